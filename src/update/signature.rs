//! Signature of a manifest, in the format of signify and usign: parsing and verification.

use ring::signature::{ED25519, UnparsedPublicKey};

use crate::config::update_key::UpdateKey;
use crate::proto::base64;

/// Longest signature file: a comment and a line of base64.
pub const MAX_SIGNATURE_BYTES: usize = 4 * 1024;

/// Verifies that one of `keys` signed `message`. `file` is the content of the signature file.
pub fn verify(keys: &[UpdateKey], message: &[u8], file: &[u8]) -> Result<(), String> {
    let (number, signature) =
        parse(file).ok_or_else(|| "its signature is not one of signify or usign".to_owned())?;
    let mut named = keys.iter().filter(|key| key.number == number).peekable();
    if named.peek().is_none() {
        return Err(format!(
            "another key signed it (number {:016x}); check update_key",
            u64::from_be_bytes(number)
        ));
    }
    let valid = named
        .any(|key| UnparsedPublicKey::new(&ED25519, key.key).verify(message, &signature).is_ok());
    match valid {
        true => Ok(()),
        false => Err("its signature does not match: the manifest was altered, cut off, or is \
                      being published; try again later"
            .to_owned()),
    }
}

/// Returns the number of the key and the signature.
fn parse(file: &[u8]) -> Option<([u8; 8], [u8; 64])> {
    let text = std::str::from_utf8(file).ok()?;
    let (comment, rest) = text.split_once('\n')?;
    if !comment.starts_with("untrusted comment:") {
        return None;
    }
    // Text after this line would not be signed. signify has none.
    let bytes = base64::decode(rest.strip_suffix('\n').unwrap_or(rest).trim_end_matches('\r'))?;
    let (number, signature) = bytes.strip_prefix(b"Ed")?.split_first_chunk()?;
    Some((*number, signature.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made by `signify -S` over MESSAGE.
    const KEY: &str = "RWQ2veAqwxPafE3i1tjPkFskT5Cn2SObm6YzMPRw84gIVSFKFU0dgEwE";
    const MESSAGE: &[u8] = b"culvert-update 1\nchannel stable\n";
    const SIGNATURE: &str = "untrusted comment: verify with feed.pub\n\
        RWQ2veAqwxPafKkIS0dSLkOjkf2Z6Sniz1Jb43wEZnLMArGRSK7M04Zg/Ea3jACapvsR/45YU14EQnhPd54YWw9gqf81ZJUHKws=\n";
    const OTHER_KEY: &str = "RWT9mbbEZnzRUkK5gTT2qMSBbmG2F0pyCK/7SezyNcxnTHIToRU/wZtL";
    const OTHER_SIGNATURE: &str = "untrusted comment: verify with other.pub\n\
        RWT9mbbEZnzRUtFPEN42Rfa3rXrlc//I9zCOIV3cSWlK/TCEjYWVM7y+YI5lNuYTyGxW2M/KrMqJE2sNIg/n+IaRt83iT8Ouew0=\n";

    fn keys(texts: &[&str]) -> Vec<UpdateKey> {
        texts.iter().map(|text| UpdateKey::parse(text).unwrap()).collect()
    }

    #[test]
    fn a_signature_of_signify_is_valid() {
        let both = keys(&[OTHER_KEY, KEY]);
        for signature in [SIGNATURE, OTHER_SIGNATURE] {
            assert_eq!(verify(&both, MESSAGE, signature.as_bytes()), Ok(()));
        }
    }

    #[test]
    fn another_message_key_or_file_is_refused() {
        let keys = keys(&[KEY]);
        let refused =
            |message: &[u8], file: &str| verify(&keys, message, file.as_bytes()).unwrap_err();
        assert!(refused(b"culvert-update 1\nchannel beta\n", SIGNATURE).contains("altered"));
        assert!(refused(&MESSAGE[..20], SIGNATURE).contains("cut off"));
        let other = refused(MESSAGE, OTHER_SIGNATURE);
        assert!(other.contains("another key signed it (number fd99b6c4667cd152)"), "{other}");
        // The number of our key with another key's signature.
        let line = SIGNATURE.lines().nth(1).unwrap();
        let forged = SIGNATURE.replace(&line[20..40], &OTHER_SIGNATURE[60..80]);
        assert!(refused(MESSAGE, &forged).contains("does not match"));
        for file in [
            "",
            line,
            &SIGNATURE[..90],
            &SIGNATURE.replace("RWQ2", "RXQ2"),
            &format!("{SIGNATURE}more\n"),
            &SIGNATURE.replace('=', "A"),
        ] {
            let why = refused(MESSAGE, file);
            assert!(why.contains("not one of signify or usign"), "{file}: {why}");
        }
    }
}
