//! Encryption of what a browser keeps. A key is for one login of one endpoint: a text of another
//! one does not open.

use ring::aead;

use crate::edge::jwt::base64url;
use crate::edge::token::{self, KEY_BYTES};

/// Key of the texts of one login.
pub struct SealKey(aead::LessSafeKey);

impl SealKey {
    /// Returns the key with these bytes.
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Option<Self> {
        let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, bytes).ok()?;
        Some(SealKey(aead::LessSafeKey::new(key)))
    }

    /// Encrypts bytes for a purpose, as text for a cookie or a URL. `None`: the system has no
    /// random numbers.
    pub fn seal(&self, purpose: &str, bytes: &[u8]) -> Option<String> {
        let nonce = token::random::<{ aead::NONCE_LEN }>().ok()?;
        let mut sealed = bytes.to_vec();
        let once = aead::Nonce::assume_unique_for_key(nonce);
        self.0.seal_in_place_append_tag(once, aead::Aad::from(purpose), &mut sealed).ok()?;
        Some(base64url::encode(&[&nonce[..], &sealed].concat()))
    }

    /// Decrypts a text. `None`: it is not one of this key and purpose.
    pub fn open(&self, purpose: &str, text: &str) -> Option<Vec<u8>> {
        let mut bytes = base64url::decode(text)?;
        if bytes.len() < aead::NONCE_LEN {
            return None;
        }
        let mut sealed = bytes.split_off(aead::NONCE_LEN);
        let nonce = aead::Nonce::try_assume_unique_for_key(&bytes).ok()?;
        let plain = self.0.open_in_place(nonce, aead::Aad::from(purpose), &mut sealed).ok()?;
        Some(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_opens_with_its_own_key_and_purpose() {
        let key = SealKey::new(&[7; KEY_BYTES]).unwrap();
        let sealed = key.seal("session", b"alice").unwrap();
        assert_eq!(key.open("session", &sealed).as_deref(), Some(&b"alice"[..]));
        assert_eq!(key.open("state", &sealed), None);
        assert_eq!(SealKey::new(&[8; KEY_BYTES]).unwrap().open("session", &sealed), None);
        let mut other = sealed.clone().into_bytes();
        other[20] = if other[20] == b'A' { b'B' } else { b'A' };
        for bad in ["", "AAAA", &sealed[..20], &String::from_utf8(other).unwrap(), "!"] {
            assert_eq!(key.open("session", bad), None, "{bad}");
        }
    }
}
