//! Base64 with the alphabet for URLs and without padding (RFC 7515 section 2). One text for
//! each sequence of bytes: other spellings of it are not accepted.

use crate::proto::base64;

/// Encodes `bytes`.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = base64::encode(bytes);
    text.truncate(text.trim_end_matches('=').len());
    text.replace('+', "-").replace('/', "_")
}

/// Returns the bytes that `text` stands for. `None` for padding, other letters, and bits that
/// are not zero behind the last byte.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    if text.bytes().any(|b| matches!(b, b'+' | b'/' | b'=')) {
        return None;
    }
    let bytes = base64::decode(&text.replace('-', "+").replace('_', "/"))?;
    (encode(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sequence_of_bytes_has_one_text() {
        for (bytes, text) in
            [(&b""[..], ""), (b"f", "Zg"), (b"fo", "Zm8"), (b"foo", "Zm9v"), (&[0xfb, 0xff], "-_8")]
        {
            assert_eq!(encode(bytes), text);
            assert_eq!(decode(text).as_deref(), Some(bytes), "{text}");
        }
        for bad in ["Zg==", "Zh", "Zm9", "+/8", "-_9", "Z", "Zm9v\n", " Zm9v", "Zm.9", "Zg\u{e9}"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
