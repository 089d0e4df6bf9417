//! Public key of an update feed, in the format of signify and usign. Verification is in
//! `update`.

use crate::proto::base64;

/// Public key of Ed25519 with the number by which a signature names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateKey {
    /// Number of the key, random.
    pub number: [u8; 8],
    /// The key itself.
    pub key: [u8; 32],
}

impl UpdateKey {
    /// Parses the second line of a key file: base64 of `Ed`, the number and the key.
    pub fn parse(text: &str) -> Result<UpdateKey, String> {
        let bytes = base64::decode(text.trim()).unwrap_or_default();
        let parsed = bytes.strip_prefix(b"Ed").and_then(|rest| {
            let (number, key) = rest.split_first_chunk()?;
            Some(UpdateKey { number: *number, key: key.try_into().ok()? })
        });
        parsed.ok_or_else(|| {
            "is not a public key of signify or usign; write the second line of the .pub file"
                .to_owned()
        })
    }

    /// Returns the form that [`Self::parse`] reads.
    pub fn text(&self) -> String {
        let mut bytes = b"Ed".to_vec();
        bytes.extend_from_slice(&self.number);
        bytes.extend_from_slice(&self.key);
        base64::encode(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_signify_is_read_and_other_texts_are_not() {
        let text = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
        let key = UpdateKey::parse(&format!(" {text}\n")).unwrap();
        assert_eq!((key.text().as_str(), key.number[0]), (text, 0x1f));
        for bad in
            ["", "x", "RWQ=", &text[4..], &format!("{text}AAAA"), &text.replacen("RW", "RX", 1)]
        {
            assert!(UpdateKey::parse(bad).is_err(), "{bad}");
        }
    }
}
