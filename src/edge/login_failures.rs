//! Failed logins by address: of agents, and of clients of the REST API. An address that failed
//! too often is refused for a while. What a login is does not belong here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::shares::AddressOwner;
use crate::time::Instant;

/// Failed logins of one address in a window before it is refused.
const MAX_FAILURES: u32 = 10;
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// Addresses whose failures are counted.
const MAX_FAILURE_ADDRESSES: usize = 4096;

/// Failed logins and the start of their window, by address.
#[derive(Debug, Default)]
pub struct LoginFailures(HashMap<AddressOwner, (u32, Instant)>);

impl LoginFailures {
    /// Counts a failed login of `ip`.
    pub fn record(&mut self, ip: IpAddr, now: Instant) {
        if self.0.len() >= MAX_FAILURE_ADDRESSES {
            self.0.retain(|_, (_, since)| now.since(*since) < FAILURE_WINDOW);
            if self.0.len() >= MAX_FAILURE_ADDRESSES {
                return;
            }
        }
        let (count, since) = self.0.entry(AddressOwner::of(ip)).or_insert((0, now));
        if now.since(*since) >= FAILURE_WINDOW {
            (*count, *since) = (0, now);
        }
        *count += 1;
    }

    /// Returns whether `ip` has failed too often to try again now.
    pub fn is_locked(&self, ip: IpAddr, now: Instant) -> bool {
        self.0.get(&AddressOwner::of(ip)).is_some_and(|(count, since)| {
            *count >= MAX_FAILURES && now.since(*since) < FAILURE_WINDOW
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_of_ipv6_addresses_has_one_count_of_failures() {
        let (mut failures, now) = (LoginFailures::default(), Instant::ZERO);
        let ip = |text: String| text.parse::<IpAddr>().unwrap();
        for n in 0..MAX_FAILURES {
            failures.record(ip(format!("2001:db8:1:2::{n}")), now);
        }
        assert!(failures.is_locked(ip("2001:db8:1:2:ffff::".into()), now));
        assert!(!failures.is_locked(ip("2001:db8:1:3::1".into()), now));
        assert!(!failures.is_locked(ip("192.0.2.1".into()), now));
        assert!(!failures.is_locked(ip("2001:db8:1:2::".into()), now + FAILURE_WINDOW));
    }
}
