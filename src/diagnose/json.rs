//! Writes an indented JSON object, member by member. Values are written as they come: a tree of
//! values would be three times the code in the binary. Which members there are belongs to
//! `report`.

use std::fmt::Display;

/// A growing JSON object.
pub struct IndentedJson {
    text: String,
    /// Number of open brackets.
    depth: usize,
}

impl IndentedJson {
    /// Returns an object without members.
    pub fn new() -> Self {
        IndentedJson { text: "{".to_owned(), depth: 1 }
    }

    /// Closes the object and returns its text.
    pub fn finish(mut self) -> String {
        self.close('}');
        self.text
    }

    /// Opens an object or a list. `key` is empty in a list.
    pub fn open(&mut self, key: &str, bracket: char) {
        self.begin(key);
        self.text.push(bracket);
        self.depth += 1;
    }

    /// Closes the innermost object or list.
    pub fn close(&mut self, bracket: char) {
        self.depth -= 1;
        if !self.text.ends_with(['{', '[']) {
            self.new_line();
        }
        self.text.push(bracket);
    }

    /// Writes a string. `key` is empty in a list.
    pub fn text(&mut self, key: &str, value: &dyn Display) {
        self.begin(key);
        self.quoted(&value.to_string());
    }

    /// Writes `null`.
    pub fn null(&mut self, key: &str) {
        self.plain(key, &"null");
    }

    /// Writes a number, `true` or `false`.
    pub fn plain(&mut self, key: &str, value: &dyn Display) {
        self.begin(key);
        self.text.push_str(&value.to_string());
    }

    /// Writes a list of strings.
    pub fn texts<T: Display>(&mut self, key: &str, values: &[T]) {
        self.open(key, '[');
        for value in values {
            self.text("", value);
        }
        self.close(']');
    }

    /// Begins a value on a line of its own.
    fn begin(&mut self, key: &str) {
        if !self.text.ends_with(['{', '[']) {
            self.text.push(',');
        }
        self.new_line();
        if !key.is_empty() {
            self.quoted(key);
            self.text.push_str(": ");
        }
    }

    fn new_line(&mut self) {
        self.text.push('\n');
        for _ in 0..self.depth {
            self.text.push_str("  ");
        }
    }

    fn quoted(&mut self, text: &str) {
        // A string is always valid JSON.
        self.text.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_the_library() {
        let mut json = IndentedJson::new();
        json.text("a", &"{\"\\\n\u{1}é[");
        json.texts::<&str>("none", &[]);
        json.texts("two", &["x", ""]);
        json.open("objects", '[');
        for number in [1, 2] {
            json.open("", '{');
            json.plain("n", &number);
            json.close('}');
        }
        json.open("", '{');
        json.close('}');
        json.close(']');
        json.null("absent");
        json.plain("flag", &true);
        let text = json.finish();
        let expected = serde_json::json!({
            "a": "{\"\\\n\u{1}é[",
            "none": [],
            "two": ["x", ""],
            "objects": [{"n": 1}, {"n": 2}, {}],
            "absent": null,
            "flag": true,
        });
        assert_eq!(text, format!("{expected:#}"));
    }
}
