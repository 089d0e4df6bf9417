//! Replacement of text in bodies by regular expressions: all matches of each expression, one
//! expression after the other.

use std::borrow::Cow;
use std::sync::Arc;

use regex_lite::Captures;

use super::search_time::{SearchTime, TooSlow};
use crate::edge::regex::BoundedRegex;
use crate::http1::text::char_boundary;

/// Longest expression.
pub const MAX_EXPRESSION_BYTES: usize = 4096;

/// Longest part of a match that is kept for the result.
const MAX_SHOWN_BYTES: usize = 256;

/// Compiles an expression. The error is the reason.
pub fn expression(text: &str) -> Result<BoundedRegex, String> {
    if text.len() > MAX_EXPRESSION_BYTES {
        return Err(format!("it has more than {MAX_EXPRESSION_BYTES} bytes"));
    }
    BoundedRegex::compile(text)
}

/// An expression and the text in place of its matches.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// What is replaced. Shared: a copy of an expression has no memory for its searches yet.
    pub from: Arc<BoundedRegex>,
    /// The new text.
    pub to: Substitution,
    /// Time of the searches in one body.
    pub time: SearchTime,
}

/// Text with groups of a match: `$1` and `${1}` by number, `$name` and `${name}` by name. `$$`
/// is a dollar sign. A group that does not exist is empty.
#[derive(Clone, Debug, Default)]
pub struct Substitution(Arc<[SubstitutionPart]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum SubstitutionPart {
    Text(String),
    Number(usize),
    Name(String),
}

/// Match of an expression, for the variables of the action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstMatch {
    /// Number of the replacement.
    pub replacement: usize,
    /// The matched text, cut if it is long.
    pub text: String,
}

/// The matches in a text could not be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplaceError {
    /// The text became longer than the limit.
    TooLong,
    /// The searches took too long.
    TooSlow,
}

impl From<TooSlow> for ReplaceError {
    fn from(_: TooSlow) -> Self {
        ReplaceError::TooSlow
    }
}

/// First of the characters that stand for bytes that are not UTF-8. The text of a visitor has
/// none of them: see [`text_of_bytes`].
const FIRST_BYTE_CHAR: char = '\u{10ff00}';

/// Returns bytes as a text, which [`bytes_of_text`] turns back. A byte that is not UTF-8 becomes
/// a character of its own, and so do the bytes of the characters that are used for this.
pub fn text_of_bytes(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(|c| c >= FIRST_BYTE_CHAR) => return Cow::Borrowed(text),
        _ => {}
    }
    let mut text = String::with_capacity(bytes.len() + 64);
    // Below the last character.
    let stand_in = |byte: &u8| char::from_u32(u32::from(FIRST_BYTE_CHAR) + u32::from(*byte));
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c < FIRST_BYTE_CHAR {
                true => text.push(c),
                false => {
                    text.extend(c.encode_utf8(&mut [0; 4]).as_bytes().iter().filter_map(stand_in))
                }
            }
        }
        text.extend(chunk.invalid().iter().filter_map(stand_in));
    }
    Cow::Owned(text)
}

/// Returns the bytes of a text.
pub fn bytes_of_text(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(|c| c >= FIRST_BYTE_CHAR) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match u32::from(c).checked_sub(u32::from(FIRST_BYTE_CHAR)).map(u8::try_from) {
            Some(Ok(byte)) => bytes.push(byte),
            _ => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(bytes)
}

/// Applies the replacements to a body. `None`: nothing matched. Bytes that are not UTF-8 stay as
/// they are. Adds the first match of each replacement to `matches`.
pub fn replace_bytes(
    body: &[u8],
    replacements: &[Replacement],
    limit: usize,
    matches: &mut Vec<FirstMatch>,
) -> Result<Option<Vec<u8>>, ReplaceError> {
    let changed = replace_text(&text_of_bytes(body), replacements, limit, matches)?;
    Ok(changed.map(|text| bytes_of_text(&text).into_owned()))
}

/// Applies the replacements to a text. `None`: nothing matched. Adds the first match of each
/// to `matches`.
pub fn replace_text(
    text: &str,
    replacements: &[Replacement],
    limit: usize,
    matches: &mut Vec<FirstMatch>,
) -> Result<Option<String>, ReplaceError> {
    let mut current: Option<String> = None;
    for (number, replacement) in replacements.iter().enumerate() {
        let text = current.as_deref().unwrap_or(text);
        let mut first = None;
        let mut keep = |found: &str| _ = first.get_or_insert_with(|| shown(found));
        if let Some(new) = replacement.apply(text, limit, &mut keep)? {
            let text = first.unwrap_or_default();
            matches.push(FirstMatch { replacement: number, text });
            current = Some(new);
        }
    }
    Ok(current)
}

impl Replacement {
    /// Replaces all matches. `None`: nothing matched. Passes each match to `on_match`.
    pub fn apply(
        &self,
        text: &str,
        limit: usize,
        on_match: &mut dyn FnMut(&str),
    ) -> Result<Option<String>, ReplaceError> {
        let mut out: Option<String> = None;
        let mut copied = 0;
        let mut run = self.time.run(text.len());
        for groups in self.from.captures_iter(text) {
            let Some(whole) = groups.get(0) else { continue };
            on_match(whole.as_str());
            let out = out.get_or_insert_default();
            append(out, &text[copied..whole.start()], limit)?;
            self.to.expand(&groups, out, limit)?;
            run.found(whole.end() - copied)?;
            copied = whole.end();
        }
        run.end(text.len() - copied)?;
        if let Some(out) = &mut out {
            append(out, &text[copied..], limit)?;
        }
        Ok(out)
    }
}

impl Substitution {
    /// Reads a text with groups.
    pub fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let (name, after) = match (rest.strip_prefix('$'), rest.strip_prefix('{')) {
                (Some(after), _) => ("", after),
                (None, Some(inner)) => inner.split_once('}').unwrap_or(("", rest)),
                (None, None) => rest.split_at(name_len(rest)),
            };
            rest = after;
            if name.is_empty() {
                literal.push('$');
                continue;
            }
            if !literal.is_empty() {
                parts.push(SubstitutionPart::Text(std::mem::take(&mut literal)));
            }
            parts.push(name.parse().map_or_else(
                |_| SubstitutionPart::Name(name.to_owned()),
                SubstitutionPart::Number,
            ));
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(SubstitutionPart::Text(literal));
        }
        Substitution(parts.into())
    }

    /// Appends the new text of a match. No more than `limit` bytes are in `out` then.
    pub(super) fn expand(
        &self,
        groups: &Captures<'_>,
        out: &mut String,
        limit: usize,
    ) -> Result<(), ReplaceError> {
        for part in &*self.0 {
            let text = match part {
                SubstitutionPart::Text(text) => text,
                SubstitutionPart::Number(number) => {
                    groups.get(*number).map_or("", |group| group.as_str())
                }
                SubstitutionPart::Name(name) => {
                    groups.name(name).map_or("", |group| group.as_str())
                }
            };
            append(out, text, limit)?;
        }
        Ok(())
    }
}

fn name_len(text: &str) -> usize {
    text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count()
}

fn append(out: &mut String, text: &str, limit: usize) -> Result<(), ReplaceError> {
    match out.len() + text.len() <= limit {
        true => {
            out.push_str(text);
            Ok(())
        }
        false => Err(ReplaceError::TooLong),
    }
}

fn shown(text: &str) -> String {
    text[..char_boundary(text, MAX_SHOWN_BYTES)].to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::search_time::tests::{slow, unlimited};
    use super::*;

    /// Returns a compiled replacement.
    pub fn replacement(from: &str, to: &str) -> Replacement {
        let from = Arc::new(expression(from).unwrap());
        Replacement { from, to: Substitution::parse(to), time: unlimited() }
    }

    /// Returns compiled replacements.
    pub fn list(pairs: &[(&str, &str)]) -> Vec<Replacement> {
        pairs.iter().map(|(from, to)| replacement(from, to)).collect()
    }

    fn bytes(body: &[u8], pairs: &[(&str, &str)]) -> Option<Vec<u8>> {
        replace_bytes(body, &list(pairs), 1000, &mut Vec::new()).unwrap()
    }

    #[test]
    fn all_matches_change_and_later_expressions_see_the_result() {
        let pairs = [(r"key=(\w+)", "<$1>"), ("<a>", "$$"), ("absent", "")];
        assert_eq!(bytes(b"key=a key=b", &pairs).unwrap(), b"$ <b>");
        assert_eq!(bytes(b"nothing", &pairs), None);
        assert_eq!(bytes(b"a--b", &[("-", "")]).unwrap(), b"ab");
        assert_eq!(bytes("höhe".as_bytes(), &[("ö", "oe")]).unwrap(), b"hoehe");
        assert_eq!(bytes(b"ab", &[("", "-")]).unwrap(), b"-a-b-");
    }

    #[test]
    fn bytes_that_are_not_text_stay() {
        assert_eq!(
            bytes(b"\xff secret \xfe secret", &[("secret", "x")]).unwrap(),
            b"\xff x \xfe x"
        );
        assert_eq!(bytes(b"\xff\xfe", &[("secret", "x")]), None);
    }

    #[test]
    fn any_bytes_come_back() {
        let all: Vec<u8> = (0..=255).collect();
        let odd =
            ["\u{10ffff}".as_bytes(), "\u{10ff80}a\u{10feff}".as_bytes(), b"\xf4\x8f"].concat();
        for bytes in [&all, &odd] {
            assert_eq!(bytes_of_text(&text_of_bytes(bytes)), bytes.as_slice());
        }
    }

    #[test]
    fn a_text_that_grows_above_the_limit_is_an_error() {
        let body = vec![b'a'; 1000];
        let grows = list(&[("a", "aa"), ("a", "aa"), ("a", "aa")]);
        let run = |body: &[u8], list: &[Replacement], limit| {
            replace_bytes(body, list, limit, &mut Vec::new())
        };
        assert_eq!(run(&body, &grows, 7999), Err(ReplaceError::TooLong));
        assert_eq!(run(&body, &grows, 8000).unwrap().unwrap().len(), 8000);
        let copies = list(&[("a+", &"$0".repeat(2000))]);
        assert_eq!(run(&body, &copies, 100_000), Err(ReplaceError::TooLong));
        let mut mixed = body.clone();
        mixed.push(0xff);
        mixed.extend_from_slice(&body);
        assert_eq!(run(&mixed, &grows, 15_999), Err(ReplaceError::TooLong));
    }

    /// `a(.*b)?` reads the whole rest for each `a`.
    #[test]
    fn searches_that_take_too_long_end_with_an_error() {
        let rule = |time| Replacement { time, ..replacement("a(.*b)?", "x") };
        let apply = |time, text: &str| rule(time).apply(text, 10_000, &mut |_| {});
        assert_eq!(apply(slow(), &"a".repeat(200)), Err(ReplaceError::TooSlow));
        assert_eq!(apply(slow(), &"a".repeat(50)).unwrap().unwrap(), "x".repeat(50));
    }

    #[test]
    fn groups_are_written_as_in_go() {
        let to = |to: &str| {
            let pair = list(&[(r"(\d+)-(?P<end>\w+)", to)]);
            let changed = pair[0].apply("x 12-ab y", 100, &mut |_| {}).unwrap().unwrap();
            changed[2..changed.len() - 2].to_owned()
        };
        assert_eq!(to("$2/$1"), "ab/12");
        assert_eq!(to("${1}x$end"), "12xab");
        assert_eq!(to("$1x"), "", "a group of this name does not exist");
        assert_eq!(to("$$1 $ ${ $9."), "$1 $ ${ .");
        assert_eq!(to("$0"), "12-ab");
    }

    #[test]
    fn the_first_match_of_each_expression_is_reported_and_cut() {
        let mut matches = Vec::new();
        let long = format!("x{}", "ä".repeat(500));
        let text = format!("b1 b2 {long}");
        replace_text(&text, &list(&[("a", ""), (r"b\d", ""), ("xä+", "")]), 5000, &mut matches)
            .unwrap();
        assert_eq!(matches[0], FirstMatch { replacement: 1, text: "b1".into() });
        assert_eq!(matches[1].replacement, 2);
        assert_eq!(matches[1].text.len(), 255, "cut between two characters");
    }

    #[test]
    fn an_expression_that_compiles_to_too_much_is_refused() {
        assert!(expression("(").is_err());
        assert!(expression("((a{50}){50}){50}").is_err());
        assert!(expression(&"a".repeat(MAX_EXPRESSION_BYTES + 1)).is_err());
        assert!(expression(r"\b\d{3}-\d{2}-\d{4}\b").is_ok());
    }
}
