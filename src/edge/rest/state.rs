//! State of the REST API that lives between requests: its address, its connections, failed
//! logins, and the requests of each key.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::edge::login_failures::LoginFailures;
use crate::edge::places::{Place, Places};
use crate::edge::shares::AddressOwner;
use crate::edge::token;
use crate::edge::workers::Workers;
use crate::proto::secret::Secret;
use crate::sys::sync::Mutex;
use crate::sys::threads;
use crate::time::Instant;

/// Threads that serve requests.
pub const MAX_THREADS: usize = 4;

/// Connections at the same time, with and without a request.
const MAX_CONNECTIONS: usize = 64;

/// Time in which the requests of a key are counted.
const QUOTA_WINDOW: Duration = Duration::from_secs(60);

/// State of the REST API.
pub struct ApiState {
    address: SocketAddr,
    /// Hash of the key in the state directory.
    local_key: String,
    failures: Mutex<LoginFailures>,
    /// Start of the window and number of requests of each key. Keys are those of the edge.
    quotas: Mutex<HashMap<String, (Instant, u32)>>,
    /// Threads of its connections.
    pub workers: Arc<Workers>,
    connections: Arc<Places>,
}

impl ApiState {
    /// Returns the state of a listener at `address`.
    pub fn new(address: SocketAddr, local_key: &Secret) -> Self {
        ApiState {
            address,
            local_key: token::hash(local_key.expose()),
            failures: Mutex::default(),
            quotas: Mutex::default(),
            workers: Arc::new(Workers::new(threads::API)),
            connections: Arc::default(),
        }
    }

    /// Returns the address of the listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns whether its connections use TLS: all but those on this machine.
    pub fn uses_tls(&self) -> bool {
        !self.address.ip().is_loopback()
    }

    /// Returns the scheme of its URLs.
    pub fn scheme(&self) -> &'static str {
        if self.uses_tls() { "https" } else { "http" }
    }

    /// Returns its URL.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme(), self.address)
    }

    /// Returns whether `hash` is that of the key in the state directory.
    pub fn is_local_key(&self, hash: &str) -> bool {
        token::constant_time_eq(&self.local_key, hash)
    }

    /// Returns a place for a new connection of `owner`. If none is free, another one gives way.
    pub fn admit(&self, owner: AddressOwner) -> Option<Place> {
        self.connections.admit(owner, MAX_CONNECTIONS)
    }

    /// Counts a failed login.
    pub fn record_failure(&self, ip: IpAddr, now: Instant) {
        self.failures.lock().record(ip, now);
    }

    /// Returns whether an address has failed too often.
    pub fn is_locked(&self, ip: IpAddr, now: Instant) -> bool {
        self.failures.lock().is_locked(ip, now)
    }

    /// Counts a request of a key. The error is the number of seconds until the next one.
    pub fn count_request(&self, key: &str, limit: u32, now: Instant) -> Result<(), u64> {
        let mut quotas = self.quotas.lock();
        quotas.retain(|_, (since, _)| now.since(*since) < QUOTA_WINDOW);
        let (since, count) = quotas.entry(key.to_owned()).or_insert((now, 0));
        if *count >= limit {
            let left = QUOTA_WINDOW.saturating_sub(now.since(*since));
            return Err(left.as_secs() + 1);
        }
        *count += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> ApiState {
        ApiState::new("127.0.0.1:1".parse().unwrap(), &Secret::new("key"))
    }

    #[test]
    fn each_key_has_its_requests_of_a_minute() {
        let (state, start) = (state(), Instant::ZERO);
        for _ in 0..3 {
            assert_eq!(state.count_request("a", 3, start), Ok(()));
        }
        assert_eq!(state.count_request("a", 3, start), Err(61));
        assert_eq!(state.count_request("b", 3, start), Ok(()));
        assert_eq!(state.count_request("a", 3, start + Duration::from_secs(59)), Err(2));
        assert_eq!(state.count_request("a", 3, start + Duration::from_secs(60)), Ok(()));
    }
}
