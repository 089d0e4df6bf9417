//! Hexadecimal text.

/// Returns bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    for b in bytes {
        for n in [b >> 4, b & 15] {
            out.push(char::from_digit(u32::from(n), 16).unwrap_or('0'));
        }
    }
    out
}

/// Decodes hexadecimal.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    text.as_bytes().chunks(2).map(|c| Some(digit(c[0])? << 4 | digit(c[1])?)).collect()
}
