//! Ids, authtokens, cookies and bind tokens. Cookies and bind tokens are MACs under a key that
//! outlives the process: after a restart of the edge an agent gets its URLs back. Nothing is
//! stored here.

use std::io;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use ring::{aead, digest, hmac};

pub use crate::proto::hex::{hex, unhex};
use crate::proto::secret::Secret;

/// Bytes of the key.
pub const KEY_BYTES: usize = 32;

/// Key of bind tokens and cookies.
#[derive(Clone)]
pub struct TokenKey(hmac::Key);

impl TokenKey {
    /// Returns the key with these bytes.
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        TokenKey(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Returns the token that lets `account` take over `name`, a host or a port.
    pub fn bind_token(&self, account: &str, name: &str) -> Secret {
        self.sign("bind", account, name)
    }

    /// Returns whether `token` is the bind token of `account` for `name`.
    pub fn verify_bind_token(&self, token: &Secret, account: &str, name: &str) -> bool {
        self.verify(token, "bind", account, name)
    }

    /// Returns the cookie that proves that `client` is a client of `account`.
    pub fn cookie(&self, account: &str, client: &str) -> Secret {
        self.sign("client", account, client)
    }

    /// Returns whether `cookie` is the cookie of `account` and `client`.
    pub fn verify_cookie(&self, cookie: &Secret, account: &str, client: &str) -> bool {
        self.verify(cookie, "client", account, client)
    }

    /// Returns a key of its own for a purpose, an account and a name.
    pub fn derive(&self, purpose: &str, account: &str, name: &str) -> [u8; KEY_BYTES] {
        let derived = hmac::sign(&self.0, &message(&format!("derive {purpose}"), account, name));
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(derived.as_ref());
        key
    }

    /// Encrypts a text that belongs to `name`. Returns hexadecimal.
    pub fn seal(&self, name: &str, text: &str) -> io::Result<String> {
        let nonce = random::<{ aead::NONCE_LEN }>()?;
        let mut bytes = text.as_bytes().to_vec();
        let sealed = self.sealing_key().and_then(|key| {
            let nonce = aead::Nonce::assume_unique_for_key(nonce);
            key.seal_in_place_append_tag(nonce, aead::Aad::from(name), &mut bytes)
        });
        sealed.map_err(|_| io::Error::other("a text cannot be encrypted"))?;
        Ok(format!("{}{}", hex(&nonce), hex(&bytes)))
    }

    /// Decrypts a text that belongs to `name`. `None`: it is not one of this key and name.
    pub fn unseal(&self, name: &str, sealed: &str) -> Option<Secret> {
        let mut bytes = unhex(sealed)?;
        if bytes.len() < aead::NONCE_LEN {
            return None;
        }
        let mut text = bytes.split_off(aead::NONCE_LEN);
        let nonce = aead::Nonce::try_assume_unique_for_key(&bytes).ok()?;
        let key = self.sealing_key().ok()?;
        let plain = key.open_in_place(nonce, aead::Aad::from(name), &mut text).ok()?;
        std::str::from_utf8(plain).ok().map(Secret::new)
    }

    /// Returns a key of its own for texts, derived from this one.
    fn sealing_key(&self) -> Result<aead::LessSafeKey, ring::error::Unspecified> {
        let derived = hmac::sign(&self.0, &message("seal", "", ""));
        let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, derived.as_ref())?;
        Ok(aead::LessSafeKey::new(key))
    }

    fn sign(&self, purpose: &str, account: &str, name: &str) -> Secret {
        Secret::new(hex(hmac::sign(&self.0, &message(purpose, account, name)).as_ref()))
    }

    fn verify(&self, token: &Secret, purpose: &str, account: &str, name: &str) -> bool {
        let Some(tag) = unhex(token.expose()) else { return false };
        hmac::verify(&self.0, &message(purpose, account, name), &tag).is_ok()
    }
}

/// Returns the message of a MAC. The lengths stand in front, so two different triples never
/// have the same message.
fn message(purpose: &str, account: &str, name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(purpose.len() + account.len() + name.len() + 24);
    for part in [purpose, account, name] {
        out.extend_from_slice(part.len().to_string().as_bytes());
        out.push(b':');
        out.extend_from_slice(part.as_bytes());
    }
    out
}

/// Returns unpredictable bytes.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(bytes)
}

/// Returns an id such as `ep_2f…`: the prefix and 96 random bits.
pub fn id(prefix: &str) -> io::Result<String> {
    Ok(format!("{prefix}_{}", hex(&random::<12>()?)))
}

/// Returns the id with another prefix. Endpoint and tunnel are the same object, and the agent
/// may have chosen the id of its Bind.
pub fn id_with(prefix: &str, tunnel_id: &str) -> String {
    let digits = tunnel_id.split_once('_').map_or(tunnel_id, |(_, digits)| digits);
    format!("{prefix}_{digits}")
}

/// Digits in the order of their codes, so that texts of one length sort as their numbers.
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Bytes of the number in an id of the REST API, and its digits.
const KSUID_BYTES: usize = 20;
const KSUID_DIGITS: usize = 27;

/// Start of the time in an id of the REST API, in seconds since 1970.
const KSUID_EPOCH: u64 = 1_400_000_000;

/// Returns an id of the REST API (a KSUID): the prefix, and 27 digits for the time in seconds
/// and 128 random bits. Ids of one prefix sort by their time.
pub fn ksuid(prefix: &str, since_1970: Duration) -> io::Result<String> {
    let seconds = since_1970.as_secs().saturating_sub(KSUID_EPOCH);
    let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
    let mut bytes = [0; KSUID_BYTES];
    bytes[..4].copy_from_slice(&seconds.to_be_bytes());
    bytes[4..].copy_from_slice(&random::<16>()?);
    Ok(format!("{prefix}_{}", base62(bytes)))
}

/// Returns an id of the REST API that is always the same for `name`.
pub fn stable_id(prefix: &str, name: &str) -> String {
    let digest = digest::digest(&digest::SHA256, name.as_bytes());
    let mut bytes = [0; KSUID_BYTES];
    bytes.copy_from_slice(&digest.as_ref()[..KSUID_BYTES]);
    format!("{prefix}_{}", base62(bytes))
}

/// Returns whether `text` is an id of the REST API with this prefix.
pub fn is_ksuid(prefix: &str, text: &str) -> bool {
    let digits = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_'));
    digits.is_some_and(|d| d.len() == KSUID_DIGITS && d.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Returns a number of 160 bits, the highest byte first, as 27 digits.
fn base62(mut number: [u8; KSUID_BYTES]) -> String {
    let mut digits = [b'0'; KSUID_DIGITS];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0u32;
        for byte in &mut number {
            let value = rest << 8 | u32::from(*byte);
            // Reason: `rest` is below 62, so the quotient is below 256.
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            rest = value % 62;
        }
        *digit = BASE62[rest as usize];
    }
    digits.iter().map(|b| char::from(*b)).collect()
}

/// Returns a label for a host name: 48 random bits, valid in DNS.
pub fn host_label() -> io::Result<String> {
    Ok(hex(&random::<6>()?))
}

/// Returns an authtoken in the usual form: two parts of letters and digits.
pub fn authtoken() -> io::Result<Secret> {
    let mut text = String::with_capacity(49);
    while text.len() < 49 {
        for b in random::<64>()? {
            // 248 is a multiple of 62, so all digits have the same probability.
            if b < 248 && text.len() < 49 {
                if text.len() == 27 {
                    text.push('_');
                } else {
                    text.push(char::from(BASE62[usize::from(b % 62)]));
                }
            }
        }
    }
    Ok(Secret::new(text))
}

/// Returns the SHA-256 of a token in hexadecimal, the form in which tokens are stored.
pub fn hash(text: &str) -> String {
    hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

/// Returns whether two texts are equal, in a time that depends on their length only.
pub fn constant_time_eq(a: &str, b: &str) -> bool {
    a.len() == b.len()
        && std::hint::black_box(a.bytes().zip(b.bytes()).fold(0, |d, (a, b)| d | (a ^ b))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_is_for_one_account_and_name() {
        let key = TokenKey::new(&[7; KEY_BYTES]);
        let bind_token = key.bind_token("alice", "a.example");
        assert!(key.verify_bind_token(&bind_token, "alice", "a.example"));
        assert!(
            TokenKey::new(&[7; KEY_BYTES]).verify_bind_token(&bind_token, "alice", "a.example"),
            "after a restart"
        );
        assert!(!key.verify_bind_token(&bind_token, "bob", "a.example"));
        assert!(!key.verify_bind_token(&bind_token, "alice", "b.example"));
        assert!(!key.verify_bind_token(&bind_token, "alicea", ".example"));
        assert!(!key.verify_cookie(&bind_token, "alice", "a.example"));
        assert!(!TokenKey::new(&[8; KEY_BYTES]).verify_bind_token(
            &bind_token,
            "alice",
            "a.example"
        ));
        for bad in ["", "0", "zz", "00"] {
            assert!(!key.verify_bind_token(&Secret::new(bad), "alice", "a.example"));
        }
    }

    #[test]
    fn derived_keys_are_for_one_account_and_name() {
        let key = TokenKey::new(&[7; KEY_BYTES]);
        let derived = key.derive("login", "alice", "a.example");
        assert_eq!(TokenKey::new(&[7; KEY_BYTES]).derive("login", "alice", "a.example"), derived);
        for (purpose, account, name) in [
            ("login", "bob", "a.example"),
            ("login", "alice", "b.example"),
            ("logina", "lice", "a.example"),
            ("other", "alice", "a.example"),
        ] {
            assert_ne!(key.derive(purpose, account, name), derived);
        }
    }

    #[test]
    fn sealed_texts_are_for_one_name_and_key() {
        let key = TokenKey::new(&[7; KEY_BYTES]);
        let sealed = key.seal("secret_1", "hunter2").unwrap();
        assert_ne!(sealed, key.seal("secret_1", "hunter2").unwrap());
        assert!(!sealed.contains(&hex(b"hunter2")));
        assert_eq!(key.unseal("secret_1", &sealed).unwrap().expose(), "hunter2");
        assert!(key.unseal("secret_2", &sealed).is_none());
        assert!(TokenKey::new(&[8; KEY_BYTES]).unseal("secret_1", &sealed).is_none());
        let broken = ["", "00", "zz", &sealed[..20], &sealed[2..]];
        assert!(broken.iter().all(|text| key.unseal("secret_1", text).is_none()));
    }

    #[test]
    fn random_things_look_right() {
        let token = authtoken().unwrap();
        let (a, b) = token.expose().split_once('_').unwrap();
        assert_eq!((a.len(), b.len()), (27, 21));
        assert!(token.expose().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        assert_eq!(host_label().unwrap().len(), 12);
        assert_ne!(id("ep").unwrap(), id("ep").unwrap());
    }

    #[test]
    fn ids_of_the_api_sort_by_their_time() {
        // Values of the definition of KSUIDs: zero, and the largest number.
        assert_eq!(base62([0; KSUID_BYTES]), "000000000000000000000000000");
        assert_eq!(base62([0xff; KSUID_BYTES]), "aWgEPTl1tmebfsQzFP4bxwgy80V");
        let at = |seconds| ksuid("cr", Duration::from_secs(seconds)).unwrap();
        assert!(at(1_800_000_000) < at(1_800_000_001) && at(5) < at(1_400_000_001));
        assert!(is_ksuid("cr", &at(1_800_000_000)) && !is_ksuid("c", &at(1_800_000_000)));
        assert_eq!(stable_id("cr", "alice"), stable_id("cr", "alice"));
        assert_ne!(stable_id("cr", "alice"), stable_id("cr", "bob"));
        assert!(is_ksuid("cr", &stable_id("cr", "alice")));
        for bad in
            ["cr_", "cr_1", "cr_' OR 1=1; DROP TABLE o; --", "ak_000000000000000000000000000"]
        {
            assert!(!is_ksuid("cr", bad), "{bad}");
        }
    }

    #[test]
    fn texts_compare() {
        assert!(
            constant_time_eq(&hash("a"), &hash("a"))
                && !constant_time_eq(&hash("a"), &hash("b"))
                && !constant_time_eq("a", "ab")
        );
        assert_eq!(unhex(&hex(&[0, 255, 16])), Some(vec![0, 255, 16]));
        assert_eq!((unhex("0"), unhex("0g")), (None, None));
    }
}
