//! `BasicAuth` and its older form `Auth`: a user and a password in each request (RFC 7617).
//! The value that a browser sends is prepared at Bind, so that a request costs one comparison.

use std::fmt;

use ring::digest::{Context, SHA256};

use super::action::{ActionError, Flow, Reply, RequestAction, RequestInfo};
use super::edits::HeaderEdits;
use crate::http1::head::HeaderFields;
use crate::proto::base64;
use crate::proto::secret::Secret;
use crate::sys::sync::Mutex;

/// Longest value of `Authorization` that is read.
const MAX_AUTHORIZATION_BYTES: usize = 1024;

/// Held during a bcrypt run: wrong passwords of all visitors together use one processor at most.
/// A password that matched before needs no run.
static BCRYPT: Mutex<()> = Mutex::new(());

/// Credential of an endpoint.
pub enum Password<'a> {
    /// The password itself.
    Clear(&'a str),
    /// A bcrypt hash (`$2b$...`).
    Bcrypt(&'a str),
}

/// Checks the credential of each request.
pub struct BasicAuth {
    clear: Vec<PreparedValue>,
    hashed: Vec<HashedCredential>,
}

/// Value of `Authorization` that a credential has in its usual form.
struct PreparedValue {
    /// Filled with zero bytes to the longest value that is read.
    padded: Secret,
    len: usize,
}

struct HashedCredential {
    user: String,
    hash: String,
    /// Digest of the last password that matched: bcrypt takes tens of milliseconds.
    last_match: Mutex<Option<[u8; 32]>>,
}

impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BasicAuth").finish_non_exhaustive()
    }
}

impl BasicAuth {
    /// Returns an action that accepts any of these users with its password.
    pub fn new(credentials: &[(&str, Password<'_>)]) -> Self {
        let mut action = BasicAuth { clear: Vec::new(), hashed: Vec::new() };
        for (user, password) in credentials {
            match password {
                Password::Clear(password) => action.clear.push(PreparedValue::new(user, password)),
                Password::Bcrypt(hash) => action.hashed.push(HashedCredential {
                    user: (*user).to_owned(),
                    hash: (*hash).to_owned(),
                    last_match: Mutex::new(None),
                }),
            }
        }
        action
    }

    /// Returns whether the header has one of the credentials.
    pub fn admits(&self, fields: HeaderFields<'_>) -> bool {
        let mut values = fields.values("authorization");
        // Several are ambiguous: the upstream could read another one.
        match (values.next(), values.next()) {
            (Some(value), None) => self.accepts(value),
            _ => false,
        }
    }

    fn accepts(&self, authorization: &[u8]) -> bool {
        if self.is_prepared(authorization) {
            return true;
        }
        // Another form of the same value: a scheme in other letters, further blanks, no padding.
        let Some(pair) = decode(authorization) else { return false };
        let mut accepted = self.is_prepared(value_of(&pair).as_bytes());
        let Some((user, password)) = split(&pair) else { return accepted };
        for credential in &self.hashed {
            // The user's name is not secret.
            if credential.user.as_bytes() == user {
                accepted |= credential.accepts(password);
            }
        }
        accepted
    }

    /// Compares with all credentials, so that the time does not depend on which one matches.
    fn is_prepared(&self, value: &[u8]) -> bool {
        self.clear.iter().fold(false, |found, prepared| found | prepared.equals(value))
    }
}

impl PreparedValue {
    fn new(user: &str, password: &str) -> Self {
        let mut padded = value_of(format!("{user}:{password}").as_bytes());
        let len = padded.len();
        padded.extend(std::iter::repeat_n('\0', MAX_AUTHORIZATION_BYTES.saturating_sub(len)));
        PreparedValue { padded: Secret::new(padded), len }
    }

    /// Compares in a time that depends on the length of `value` only: not on that of the
    /// password, and not on the first byte that differs.
    fn equals(&self, value: &[u8]) -> bool {
        let Some(padded) = self.padded.expose().as_bytes().get(..value.len()) else { return false };
        let differences = value.iter().zip(padded).fold(0, |d, (a, b)| d | (a ^ b));
        // Against an early end of the comparison that a compiler could introduce.
        std::hint::black_box(differences) == 0 && value.len() == self.len
    }
}

impl HashedCredential {
    fn accepts(&self, password: &[u8]) -> bool {
        let mut context = Context::new(&SHA256);
        context.update(self.hash.as_bytes());
        context.update(password);
        let digest: Option<[u8; 32]> = context.finish().as_ref().try_into().ok();
        if digest.is_some() && *self.last_match.lock() == digest {
            return true;
        }
        let matches = {
            let _one = BCRYPT.lock();
            bcrypt::verify(password, &self.hash).unwrap_or(false)
        };
        if matches {
            *self.last_match.lock() = digest;
        }
        matches
    }
}

/// Returns the user of a value of `Authorization`.
pub fn user(authorization: &[u8]) -> Option<String> {
    let pair = decode(authorization)?;
    split(&pair).map(|(user, _)| String::from_utf8_lossy(user).into_owned())
}

/// Returns `user:password` of a value of `Authorization`.
fn decode(authorization: &[u8]) -> Option<Vec<u8>> {
    if authorization.len() > MAX_AUTHORIZATION_BYTES {
        return None;
    }
    let text = std::str::from_utf8(authorization).ok()?;
    let (scheme, encoded) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("basic").then(|| base64::decode(encoded.trim()))?
}

/// Returns the value of `Authorization` for `user:password`.
fn value_of(pair: &[u8]) -> String {
    ["Basic ", &base64::encode(pair)].concat()
}

fn split(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = pair.iter().position(|b| *b == b':')?;
    Some((&pair[..colon], &pair[colon + 1..]))
}

/// Returns the response that asks for a credential.
pub fn challenge(realm: &str) -> Reply {
    let mut reply =
        Reply::new(401, 0, "This endpoint needs a user and a password (HTTP basic auth).");
    reply.fields.push(("WWW-Authenticate".into(), format!("Basic realm=\"{realm}\"")));
    reply
}

impl RequestAction for BasicAuth {
    fn run(&self, request: &RequestInfo<'_>, _: &mut HeaderEdits) -> Result<Flow, ActionError> {
        if self.admits(request.fields) {
            return Ok(Flow::Continue);
        }
        Ok(Flow::Respond(challenge("ngrok")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::action::tests::with_request;
    use super::*;

    fn status(action: &BasicAuth, lines: &str) -> u16 {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        match with_request(&head, |r| action.run(r, &mut HeaderEdits::default())).unwrap() {
            Flow::Continue => 200,
            Flow::Respond(reply) => {
                assert_eq!(reply.fields[0].0, "WWW-Authenticate");
                reply.status
            }
        }
    }

    fn line(pair: &str) -> String {
        format!("Authorization: Basic {}\r\n", base64::encode(pair.as_bytes()))
    }

    #[test]
    fn one_of_the_pairs_must_match_exactly() {
        let pairs = [("u", Password::Clear("pass:word")), ("v", Password::Clear("password2"))];
        let action = BasicAuth::new(&pairs);
        assert_eq!(status(&action, &line("u:pass:word")), 200);
        assert_eq!(status(&action, &line("v:password2")), 200);
        assert_eq!(status(&action, &line("v:password2").replace("Basic", "bAsIc")), 200);
        assert_eq!(status(&action, &line("v:password2").replace("Basic ", "Basic   ")), 200);
        assert_eq!(status(&action, &line("u:pass:word").replace('=', "")), 200, "no padding");
        // The second one is a prefix of a right value in base64, too.
        for wrong in [
            "u:password2",
            "v:passwo",
            "u:",
            "",
            "u:pass:word ",
            "u:pass:word\0",
            "U:pass:word",
            ":",
        ] {
            assert_eq!(status(&action, &line(wrong)), 401, "{wrong}");
        }
        assert_eq!(status(&action, ""), 401);
        assert_eq!(status(&action, "Authorization: Basic !!!\r\n"), 401);
        assert_eq!(status(&action, "Authorization: Bearer dTpwYXNzOndvcmQ=\r\n"), 401);
        assert_eq!(status(&action, &(line("u:pass:word") + &line("x:y"))), 401);
        for len in [MAX_AUTHORIZATION_BYTES, 20_000] {
            let long = format!("Authorization: Basic {}\r\n", "A".repeat(len));
            assert_eq!(status(&action, &long), 401);
        }
        // What is left of a value that was filled with zero bytes.
        assert!(!action.accepts(action.clear[0].padded.expose().as_bytes()));
    }

    #[test]
    fn a_hashed_password_is_checked_with_bcrypt() {
        // Cost 4, the least, of "open sesame".
        let hash = bcrypt::hash("open sesame", 4).unwrap();
        let action = BasicAuth::new(&[("u", Password::Bcrypt(&hash))]);
        for _ in 0..2 {
            assert_eq!(status(&action, &line("u:open sesame")), 200);
            assert_eq!(status(&action, &line("u:open sesame!")), 401);
            assert_eq!(status(&action, &line("v:open sesame")), 401);
        }
    }

    #[test]
    fn no_credential_is_printed() {
        let action = BasicAuth::new(&[("u", Password::Clear("pass:word"))]);
        assert!(!format!("{action:?}").contains("pass"));
    }
}
