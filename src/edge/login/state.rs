//! A login under way: what the response of the provider must fit to. It is the encrypted
//! parameter `state`, so several tabs of a browser may log in at once.

use serde::{Deserialize, Serialize};

use super::seal::SealKey;
use crate::edge::token::constant_time_eq;

/// Time for a login at the provider, in seconds.
pub const MAX_AGE_SECONDS: u64 = 10 * 60;

/// Tolerated step back of the clock, in seconds.
const CLOCK_STEP_SECONDS: u64 = 60;

/// Purpose of the encryption.
const PURPOSE: &str = "login state";

/// Longest text that is read.
const MAX_STATE_BYTES: usize = 4096;

/// A login that was sent to the provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingLogin {
    /// Value of the cookie of the browser.
    pub browser: String,
    /// The claim `nonce` that the ID token must have.
    pub nonce: String,
    /// Secret of PKCE.
    pub verifier: String,
    /// Path after the login.
    pub return_path: String,
    /// Wall clock at its begin, in seconds since 1970.
    pub begun: u64,
}

/// Why the parameter `state` is not accepted, with ngrok's codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateFault {
    /// It is not one of this login.
    Invalid,
    /// It is too old.
    Expired,
    /// Another browser began the login.
    OtherBrowser,
}

impl PendingLogin {
    /// Returns the parameter. `None`: the system has no random numbers.
    pub fn seal(&self, key: &SealKey) -> Option<String> {
        key.seal(PURPOSE, &serde_json::to_vec(self).ok()?)
    }

    /// Returns the login of a parameter that `browser`, the values of the cookie, began.
    pub fn open<'a>(
        key: &SealKey,
        text: &str,
        mut browser: impl Iterator<Item = &'a str>,
        now: u64,
    ) -> Result<Self, StateFault> {
        let bytes = Some(text).filter(|text| text.len() <= MAX_STATE_BYTES);
        let bytes = bytes.and_then(|text| key.open(PURPOSE, text)).ok_or(StateFault::Invalid)?;
        let login: PendingLogin =
            serde_json::from_slice(&bytes).map_err(|_| StateFault::Invalid)?;
        let in_time = login.begun <= now.saturating_add(CLOCK_STEP_SECONDS)
            && now < login.begun.saturating_add(MAX_AGE_SECONDS);
        match browser.any(|value| constant_time_eq(value, &login.browser)) {
            false => Err(StateFault::OtherBrowser),
            true if !in_time => Err(StateFault::Expired),
            true => Ok(login),
        }
    }
}

impl StateFault {
    /// Returns the number of the error code.
    pub fn code(self) -> u32 {
        match self {
            StateFault::Invalid => 3300,
            StateFault::Expired => 3301,
            StateFault::OtherBrowser => 3302,
        }
    }

    /// Returns what happened and what to do.
    pub fn text(self) -> &'static str {
        match self {
            StateFault::Invalid => {
                "The parameter 'state' of this login is not valid. Log in again."
            }
            StateFault::Expired => "This login took too long. Log in again.",
            StateFault::OtherBrowser => {
                "This login was begun in another browser, or its cookie is gone. Log in again, \
                 and allow cookies."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_for_one_browser_and_ten_minutes() {
        let key = SealKey::new(&[7; 32]).unwrap();
        let login = PendingLogin {
            browser: "b".repeat(22),
            nonce: "n".into(),
            verifier: "v".into(),
            return_path: "/x".into(),
            begun: 1_000_000,
        };
        let text = login.seal(&key).unwrap();
        let open = |text: &str, browser: &[&str], now| {
            PendingLogin::open(&key, text, browser.iter().copied(), now)
        };
        let own = login.browser.as_str();
        assert_eq!(open(&text, &["x", own], 1_000_599), Ok(login.clone()));
        assert_eq!(open(&text, &[own], 1_000_600), Err(StateFault::Expired));
        assert_eq!(open(&text, &[own], 999_939), Err(StateFault::Expired));
        for browser in [&[][..], &[""], &["x"]] {
            assert_eq!(open(&text, browser, 1_000_000), Err(StateFault::OtherBrowser));
        }
        let other = SealKey::new(&[8; 32]).unwrap();
        for bad in ["", "x", &text[1..], &login.seal(&other).unwrap(), &"A".repeat(5000)] {
            assert_eq!(open(bad, &[own], 1_000_000), Err(StateFault::Invalid));
        }
        let session = key.seal("login session", &serde_json::to_vec(&login).unwrap()).unwrap();
        assert_eq!(open(&session, &[own], 1_000_000), Err(StateFault::Invalid));
    }
}
