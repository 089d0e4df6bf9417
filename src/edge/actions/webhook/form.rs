//! Names and values of forms and queries, for signatures over them. No signature is checked
//! here.

use crate::http1::head::HeaderFields;

/// Name and value.
type Pair = (Vec<u8>, Vec<u8>);

/// Returns the names and values of a body that is a form, by name; empty for other bodies.
pub fn of_body(fields: HeaderFields<'_>, body: &[u8]) -> Vec<Pair> {
    let kind = fields.first("content-type").unwrap_or_default().to_ascii_lowercase();
    match kind.starts_with(b"application/x-www-form-urlencoded") {
        true => sorted(body),
        false => Vec::new(),
    }
}

/// Returns the names and values in a text of the form `name=value&...`, by name.
pub fn sorted(text: &[u8]) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = text
        .split(|b| *b == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let at = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
            (decoded(&pair[..at]), decoded(pair.get(at + 1..).unwrap_or_default()))
        })
        .collect();
    pairs.sort();
    pairs
}

/// Returns the byte that `%XX` at the start of `text` stands for.
pub fn escaped(text: &[u8]) -> Option<u8> {
    let [b'%', digits @ ..] = text else { return None };
    let digits = digits.get(..2).filter(|d| d.iter().all(u8::is_ascii_hexdigit))?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        match escaped(rest) {
            Some(value) => {
                out.push(value);
                rest = &tail[2..];
            }
            None => {
                out.push(if byte == b'+' { b' ' } else { byte });
                rest = tail;
            }
        }
    }
    out
}
