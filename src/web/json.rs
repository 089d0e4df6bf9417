//! Writes JSON with a few functions. A derived implementation for each object would be ten
//! times the code in the binary.

use std::fmt::{Display, Write};

/// A growing JSON text. Commas are added automatically.
#[derive(Debug, Default)]
pub struct Json(String);

impl Json {
    /// Returns one complete object.
    pub fn object(fill: impl FnOnce(&mut Json)) -> Self {
        let mut json = Json::default();
        json.braces(fill);
        json
    }

    /// Returns the text.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }

    /// Writes a comma, except before the first element of a list and the value of a key.
    fn comma(&mut self) {
        if !matches!(self.0.as_bytes().last(), None | Some(b'{' | b'[' | b':')) {
            self.0.push(',');
        }
    }

    fn wrapped(&mut self, [open, close]: [char; 2], fill: impl FnOnce(&mut Json)) {
        self.comma();
        self.0.push(open);
        fill(self);
        self.0.push(close);
    }

    /// Writes an object.
    pub fn braces(&mut self, fill: impl FnOnce(&mut Json)) {
        self.wrapped(['{', '}'], fill);
    }

    /// Writes a list.
    pub fn brackets(&mut self, fill: impl FnOnce(&mut Json)) {
        self.wrapped(['[', ']'], fill);
    }

    /// Writes a key. Its value must follow.
    pub fn key(&mut self, key: &str) -> &mut Self {
        self.text(key);
        self.0.push(':');
        self
    }

    /// Writes a string.
    pub fn text(&mut self, text: &str) {
        self.comma();
        self.0.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => self.0.extend(['\\', c]),
                '\n' => self.0.push_str("\\n"),
                // Also characters that end a line or a script, in case the text is pasted into
                // one.
                c if c < ' '
                    || matches!(c, '<' | '>' | '&' | '\u{7f}' | '\u{2028}' | '\u{2029}') =>
                {
                    // All of them have at most four digits.
                    let _ = write!(self.0, "\\u{:04x}", u32::from(c));
                }
                c => self.0.push(c),
            }
        }
        self.0.push('"');
    }

    /// Writes a number, `true`, `false` or `null`.
    pub fn plain(&mut self, value: impl Display) {
        self.comma();
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_stand_between_values_only() {
        let json = Json::object(|j| {
            j.key("a").text("");
            j.key("b").brackets(|j| {
                j.plain(1);
                j.braces(|_| {});
                j.braces(|j| j.key("x").plain(true));
                j.text(":");
                j.text("{");
            });
            j.key("c").plain(1.5);
            j.key("d").brackets(|_| {});
        });
        assert_eq!(json.0, r#"{"a":"","b":[1,{},{"x":true},":","{"],"c":1.5,"d":[]}"#);
    }

    #[test]
    fn every_text_comes_back_from_a_parser() {
        for text in ["", "\"\\/", "\n\r\t\0\u{1f}\u{7f}", "</script>&", "\u{2028}é€😀"] {
            let json = Json::object(|j| j.key(text).text(text));
            let value: serde_json::Value = serde_json::from_str(&json.0).unwrap();
            assert_eq!(value[text], text);
            assert!(
                !json.0.contains('<') && json.0.is_ascii() == text.is_ascii() || text.contains('é')
            );
        }
    }

    #[test]
    fn numbers_of_any_size_are_json() {
        for number in [0.0, 1e-9, 123.456, 1e21] {
            let json = Json::object(|j| j.key("n").plain(number));
            let value: serde_json::Value = serde_json::from_str(&json.0).unwrap();
            assert_eq!(value["n"].as_f64(), Some(number));
        }
    }
}
