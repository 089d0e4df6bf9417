//! Traffic policies: text for the edge, YAML or JSON. What the actions mean is the
//! edge's to say; here it is seen that the text can be read at all.

use serde_yaml::Value;

use super::document::{Document, Part};
use super::read::{Reader, Section};

/// Whether `text` is a policy as far as its form goes: YAML or JSON, a mapping of
/// phases. The error continues the name of a flag or key, and has one line.
pub fn check(text: &str) -> Result<(), String> {
    let document = Document::parse(text.to_owned()).map_err(|(what, place)| match place {
        Some(place) => format!("{what} (line {}, column {})", place.line, place.column),
        None => what,
    })?;
    match &document.root {
        Value::Mapping(mapping) if mapping.keys().all(Value::is_string) => Ok(()),
        _ => Err("must hold a mapping of phases such as on_http_request".to_owned()),
    }
}

impl<'a> Reader<'a> {
    /// The policy of an endpoint, as text, and the address to fetch one from.
    pub(super) fn policies(&mut self, section: &Section<'a>) -> (String, String) {
        const KEYS: [&str; 4] =
            ["traffic_policy", "policy", "traffic_policy_file", "traffic_policy_url"];
        let mut given = KEYS.into_iter().filter(|key| section.has(key));
        let Some(key) = given.next() else { return Default::default() };
        if let Some(second) = given.next() {
            let what = format!("cannot stand beside {key}: one policy only (ERR_NGROK_9025)");
            self.fault(section.at(second), Part::Key, what);
        }
        let text = match (key, section.value(key)) {
            ("traffic_policy_url", _) => {
                let url = self.needed(section, key).unwrap_or_default();
                if !url.starts_with("http://") && !url.starts_with("https://") {
                    self.wrong::<()>(section, key, "a URL that begins with http:// or https://");
                }
                return (String::new(), url);
            }
            ("traffic_policy_file", _) => self.file(section, key),
            (_, Some(Value::String(text))) => Some(text.clone()),
            (_, Some(value @ Value::Mapping(_))) => {
                serde_json::to_string(value).ok().or_else(|| {
                    let what = "has a key that is no text".to_owned();
                    self.fault(section.at(key), Part::Value, what);
                    None
                })
            }
            _ => self.wrong(section, key, "a mapping"),
        };
        let text = text.unwrap_or_default();
        if !text.is_empty()
            && let Err(what) = check(&text)
        {
            self.fault(section.at(key), Part::Value, what);
        }
        (text, String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_by_their_form() {
        for text in ["on_http_request: []\n", "{\"inbound\": []}", "{}", "a: b"] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for text in ["", "- a", "text", "a: [", "a:\n\tb: 1\n", "1: 2"] {
            let what = check(text).expect_err(text);
            assert!(!what.contains('\n'), "{what}");
        }
    }
}
