//! Fields of a body that is a form, for signatures over them. No signature is checked here.

use crate::http1::head::HeaderFields;

/// Returns names and values of `application/x-www-form-urlencoded`, by name; empty for other
/// bodies.
pub fn sorted(fields: HeaderFields<'_>, body: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let kind = fields.first("content-type").unwrap_or_default().to_ascii_lowercase();
    if !kind.starts_with(b"application/x-www-form-urlencoded") || body.is_empty() {
        return Vec::new();
    }
    let mut form: Vec<_> = body
        .split(|b| *b == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let at = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
            (decoded(&pair[..at]), decoded(pair.get(at + 1..).unwrap_or_default()))
        })
        .collect();
    form.sort();
    form
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let digits = tail.get(..2).and_then(|d| std::str::from_utf8(d).ok());
        match (byte, digits.and_then(|d| u8::from_str_radix(d, 16).ok())) {
            (b'%', Some(value)) => {
                out.push(value);
                rest = &tail[2..];
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
    }
    out
}
