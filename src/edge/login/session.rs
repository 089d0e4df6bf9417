//! Session of a visitor after a login: the identity, times, and tokens of the provider. It is
//! an encrypted cookie.

use serde::{Deserialize, Serialize};

use super::cookie::MAX_VALUE_BYTES;
use super::seal::SealKey;

/// Purpose of the encryption.
const PURPOSE: &str = "login session";

/// Tolerated step back of the clock, in seconds.
const CLOCK_STEP_SECONDS: u64 = 60;

/// Longest interval after which a cookie with a new time of use is set, in seconds.
const MAX_RENEWAL_SECONDS: u64 = 60;

/// A person at a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginIdentity {
    /// Id at the provider.
    pub id: String,
    /// Address of mail; empty without one, and if the provider has not verified it.
    pub email: String,
    /// Name for display; may be empty.
    pub name: String,
}

/// Tokens of a provider. Empty ones are not known.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderTokens {
    /// ID token.
    pub identity: String,
    /// Access token.
    pub access: String,
    /// Refresh token.
    pub refresh: String,
}

impl std::fmt::Debug for ProviderTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProviderTokens").finish_non_exhaustive()
    }
}

/// A session. Times are of the wall clock, in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginSession {
    /// Its id.
    pub id: String,
    /// The visitor.
    pub identity: LoginIdentity,
    /// Time of the login.
    pub begun: u64,
    /// Time of the last use that the cookie has.
    pub used: u64,
    /// Time at which the provider confirmed the identity.
    pub confirmed: u64,
    /// Tokens that fit into the cookie.
    pub tokens: ProviderTokens,
}

/// Lifetime of sessions, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// From the login on.
    pub total: u64,
    /// From the last use on.
    pub idle: u64,
}

impl LoginSession {
    /// Returns the value of the cookie. Tokens that are too long for it are left out, the ID
    /// token last. `None`: the identity alone is too long, or the system has no random numbers.
    pub fn seal(&self, key: &SealKey) -> Option<String> {
        let mut kept = self.clone();
        for drop in [
            |_: &mut ProviderTokens| {},
            |tokens: &mut ProviderTokens| tokens.refresh.clear(),
            |tokens: &mut ProviderTokens| tokens.access.clear(),
            |tokens: &mut ProviderTokens| tokens.identity.clear(),
        ] {
            drop(&mut kept.tokens);
            let sealed = key.seal(PURPOSE, &serde_json::to_vec(&kept).ok()?)?;
            if sealed.len() <= MAX_VALUE_BYTES {
                return Some(sealed);
            }
        }
        None
    }

    /// Returns the session of the first valid one of the cookie's values; `None` if all of them
    /// are forged or have ended.
    pub fn open<'a>(
        key: &SealKey,
        values: impl Iterator<Item = &'a str>,
        limits: SessionLimits,
        now: u64,
    ) -> Option<Self> {
        let mut values = values.filter(|value| value.len() <= MAX_VALUE_BYTES);
        values.find_map(|value| {
            let session: LoginSession = serde_json::from_slice(&key.open(PURPOSE, value)?).ok()?;
            (!session.has_ended(limits, now)).then_some(session)
        })
    }

    fn has_ended(&self, limits: SessionLimits, now: u64) -> bool {
        let is_from_future = self.begun > now.saturating_add(CLOCK_STEP_SECONDS);
        is_from_future || now >= self.expiry(limits)
    }

    /// Returns whether the cookie needs a new time of use.
    pub fn needs_renewal(&self, limits: SessionLimits, now: u64) -> bool {
        now.saturating_sub(self.used) >= (limits.idle / 10).clamp(1, MAX_RENEWAL_SECONDS)
    }

    /// Returns the time at which the session ends if it is not used any more.
    pub fn expiry(&self, limits: SessionLimits) -> u64 {
        self.begun.saturating_add(limits.total).min(self.used.saturating_add(limits.idle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SessionLimits = SessionLimits { total: 1000, idle: 100 };

    fn session() -> LoginSession {
        let identity =
            LoginIdentity { id: "1".into(), email: "a@a.example".into(), name: "A".into() };
        let tokens = ProviderTokens {
            identity: "i".repeat(1000),
            access: "a".repeat(1000),
            refresh: "r".repeat(1000),
        };
        LoginSession { id: "s".into(), identity, begun: 5000, used: 5000, confirmed: 5000, tokens }
    }

    #[test]
    fn a_session_ends_by_its_two_limits() {
        let key = SealKey::new(&[7; 32]).unwrap();
        let open = |session: &LoginSession, now| {
            let value = session.seal(&key).unwrap();
            LoginSession::open(&key, ["x", value.as_str()].into_iter(), LIMITS, now)
                .map(|session| session.used)
        };
        assert_eq!(open(&session(), 5099), Some(5000));
        assert_eq!(open(&session(), 5100), None, "not used for too long");
        let used = LoginSession { used: 5990, ..session() };
        assert_eq!(open(&used, 5999), Some(5990));
        assert_eq!(open(&used, 6000), None, "the total lifetime is over");
        assert_eq!(open(&session(), 4940), Some(5000), "the clock was set back");
        assert_eq!(open(&session(), 4939), None, "from the future");
        assert!(!session().needs_renewal(LIMITS, 5009) && session().needs_renewal(LIMITS, 5010));
        assert_eq!((session().expiry(LIMITS), used.expiry(LIMITS)), (5100, 6000));
        let none = LoginSession::open(&key, ["", "x"].into_iter(), LIMITS, 5000);
        assert_eq!(none, None);
    }

    #[test]
    fn tokens_that_do_not_fit_are_left_out() {
        let key = SealKey::new(&[7; 32]).unwrap();
        let kept = |session: &LoginSession| {
            let value = session.seal(&key).unwrap();
            assert!(value.len() <= MAX_VALUE_BYTES);
            let values = [value.as_str()].into_iter();
            let tokens = LoginSession::open(&key, values, LIMITS, 5000).unwrap().tokens;
            [tokens.identity.len(), tokens.access.len(), tokens.refresh.len()]
        };
        let mut session = session();
        assert_eq!(kept(&session), [1000, 1000, 0]);
        session.tokens.access = "a".repeat(4000);
        assert_eq!(kept(&session), [1000, 0, 0]);
        session.tokens.identity = "i".repeat(4000);
        assert_eq!(kept(&session), [0, 0, 0]);
        session.identity.name = "n".repeat(4000);
        assert_eq!(session.seal(&key), None);
    }
}
