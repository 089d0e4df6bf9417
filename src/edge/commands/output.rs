//! Output of the commands: tables for people, JSON for programs.

use serde_json::Value;

/// Returns objects as indented JSON.
pub fn json(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

/// Returns a table of objects: one line for each, one column for each field. A field may be
/// below another one: `credential.id`.
pub fn table(objects: &[Value], columns: &[(&str, &str)], empty: &str) -> String {
    if objects.is_empty() {
        return format!("{empty}\n");
    }
    let mut rows = vec![columns.iter().map(|(title, _)| (*title).to_owned()).collect::<Vec<_>>()];
    rows.extend(
        objects.iter().map(|object| columns.iter().map(|(_, path)| cell(object, path)).collect()),
    );
    let width = |at: usize| rows.iter().map(|row: &Vec<String>| row[at].chars().count()).max();
    let widths: Vec<usize> = (0..columns.len()).map(|at| width(at).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        out += cells.collect::<Vec<_>>().join("  ").trim_end();
        out.push('\n');
    }
    out
}

/// Returns a field as text without control characters: an agent may have chosen it.
fn cell(object: &Value, path: &str) -> String {
    let value = path.split('.').fold(object, |value, name| &value[name]);
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => "-".to_owned(),
        Value::Array(list) => {
            list.iter().map(|v| v.as_str().unwrap_or_default()).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_aligned_and_safe() {
        let objects = [
            json!({"id": "cr_1", "acl": ["bind:a", "bind:b"], "credential": {"id": "x"}}),
            json!({"id": "cr_100", "acl": [], "credential": null, "description": "a\u{1b}[2Jb"}),
        ];
        let columns =
            [("id", "id"), ("acl", "acl"), ("owner", "credential.id"), ("text", "description")];
        let text = table(&objects, &columns, "none");
        let expected = "id      acl            owner  text\n\
                        cr_1    bind:a bind:b  x      -\n\
                        cr_100  -              -      a [2Jb\n";
        assert_eq!(text, expected);
        assert_eq!(table(&[], &columns, "none"), "none\n");
    }
}
