//! `BasicAuth` and its older form `Auth`: a user and a password in each request (RFC 7617).
//! Passwords are kept as keyed digests, so that all comparisons take the same time.

use std::fmt;

use ring::digest::{Context, SHA256};
use ring::hmac;
use ring::rand::SystemRandom;

use super::action::{ActionError, Flow, Reply, RequestAction, RequestInfo};
use super::edits::HeaderEdits;
use crate::proto::base64;
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
    /// Made at Bind, kept in memory alone.
    key: hmac::Key,
    clear: Vec<hmac::Tag>,
    hashed: Vec<HashedCredential>,
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
    /// Returns an action that accepts any of these users with its password. Fails without
    /// randomness of the system.
    pub fn new(credentials: &[(&str, Password<'_>)]) -> Result<Self, ActionError> {
        let random = SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random)
            .map_err(|_| ActionError("the system has no random numbers"))?;
        let mut action = BasicAuth { key, clear: Vec::new(), hashed: Vec::new() };
        for (user, password) in credentials {
            match password {
                Password::Clear(password) => {
                    let pair = format!("{user}:{password}");
                    action.clear.push(hmac::sign(&action.key, pair.as_bytes()));
                }
                Password::Bcrypt(hash) => action.hashed.push(HashedCredential {
                    user: (*user).to_owned(),
                    hash: (*hash).to_owned(),
                    last_match: Mutex::new(None),
                }),
            }
        }
        Ok(action)
    }

    fn accepts(&self, authorization: &[u8]) -> bool {
        let Some(pair) = decode(authorization) else { return false };
        let mut accepted = false;
        // All are compared, so that the time does not depend on which one matches.
        for tag in &self.clear {
            accepted |= hmac::verify(&self.key, &pair, tag.as_ref()).is_ok();
        }
        let Some((user, password)) = split(&pair) else { return accepted };
        for credential in &self.hashed {
            // The user's name is not secret.
            if credential.user.as_bytes() == user {
                accepted |= credential.accepts(password);
            }
        }
        accepted
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

/// Returns `user:password` of a value of `Authorization`.
fn decode(authorization: &[u8]) -> Option<Vec<u8>> {
    if authorization.len() > MAX_AUTHORIZATION_BYTES {
        return None;
    }
    let text = std::str::from_utf8(authorization).ok()?;
    let (scheme, encoded) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("basic").then(|| base64::decode(encoded.trim()))?
}

fn split(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = pair.iter().position(|b| *b == b':')?;
    Some((&pair[..colon], &pair[colon + 1..]))
}

impl RequestAction for BasicAuth {
    fn run(&self, request: &RequestInfo<'_>, _: &mut HeaderEdits) -> Result<Flow, ActionError> {
        let mut values = request.fields.values("authorization");
        // Several are ambiguous: the upstream could read another one.
        let accepted = match (values.next(), values.next()) {
            (Some(value), None) => self.accepts(value),
            _ => false,
        };
        if accepted {
            return Ok(Flow::Continue);
        }
        let mut reply =
            Reply::new(401, 0, "This endpoint needs a user and a password (HTTP basic auth).");
        reply.fields.push(("WWW-Authenticate".into(), "Basic realm=\"ngrok\"".to_owned()));
        Ok(Flow::Respond(reply))
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
        let action = BasicAuth::new(&pairs).unwrap();
        assert_eq!(status(&action, &line("u:pass:word")), 200);
        assert_eq!(status(&action, &line("v:password2")), 200);
        assert_eq!(status(&action, &line("v:password2").replace("Basic", "bAsIc")), 200);
        for wrong in ["u:password2", "u:", "", "u:pass:word ", "U:pass:word", ":"] {
            assert_eq!(status(&action, &line(wrong)), 401, "{wrong}");
        }
        assert_eq!(status(&action, ""), 401);
        assert_eq!(status(&action, "Authorization: Basic !!!\r\n"), 401);
        assert_eq!(status(&action, "Authorization: Bearer dTpwYXNzOndvcmQ=\r\n"), 401);
        assert_eq!(status(&action, &(line("u:pass:word") + &line("x:y"))), 401);
        let long = format!("Authorization: Basic {}\r\n", "A".repeat(20_000));
        assert_eq!(status(&action, &long), 401);
    }

    #[test]
    fn a_hashed_password_is_checked_with_bcrypt() {
        // Cost 4, the least, of "open sesame".
        let hash = bcrypt::hash("open sesame", 4).unwrap();
        let action = BasicAuth::new(&[("u", Password::Bcrypt(&hash))]).unwrap();
        for _ in 0..2 {
            assert_eq!(status(&action, &line("u:open sesame")), 200);
            assert_eq!(status(&action, &line("u:open sesame!")), 401);
            assert_eq!(status(&action, &line("v:open sesame")), 401);
        }
    }

    #[test]
    fn no_credential_is_printed() {
        let action = BasicAuth::new(&[("u", Password::Clear("pass:word"))]).unwrap();
        assert!(!format!("{action:?}").contains("pass"));
    }
}
