//! What the logins of all endpoints share: requests to providers, their documents, and the key
//! of cookies.

use std::sync::Arc;

use super::endpoints::{LoginEndpoints, parse_discovery};
use super::seal::SealKey;
use crate::edge::fetch::Fetch;
use crate::edge::fetch::cache::FetchCache;
use crate::edge::jwt::key_set::JwkSet;
use crate::edge::token::TokenKey;

/// Shared by all logins.
pub struct LoginServices {
    /// Requests to providers.
    pub fetch: Arc<dyn Fetch>,
    /// Key sets by URL.
    pub keys: Arc<FetchCache<JwkSet>>,
    /// Discovery documents by URL.
    pub providers: FetchCache<LoginEndpoints>,
    key: TokenKey,
}

impl LoginServices {
    /// Returns the services. `key` outlives the process, so sessions do too.
    pub fn new(fetch: Arc<dyn Fetch>, key: TokenKey) -> Self {
        LoginServices {
            keys: Arc::new(FetchCache::new(Arc::clone(&fetch), JwkSet::parse)),
            providers: FetchCache::new(Arc::clone(&fetch), parse_discovery),
            fetch,
            key,
        }
    }

    /// Returns the key for one login of an account.
    pub fn seal_key(&self, account: &str, login: &str) -> Option<SealKey> {
        SealKey::new(&self.key.derive("login", account, login))
    }
}

#[cfg(test)]
impl LoginServices {
    /// Returns services without a network.
    pub fn for_tests() -> Self {
        let fetch = Arc::new(crate::edge::fetch::EdgeFetcher::default());
        LoginServices::new(fetch, TokenKey::new(&[7; crate::edge::token::KEY_BYTES]))
    }
}

impl std::fmt::Debug for LoginServices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginServices").finish_non_exhaustive()
    }
}
