//! Table of agent sessions with its limits: sessions of a credential, failed
//! authentications of an address. It reads no message and writes none.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::identity::AgentIdentity;
use super::session::AgentSession;
use crate::edge::shares::AddressOwner;
use crate::mux::Code;
use crate::proto::codes::Refusal;
use crate::session::Session;
use crate::sys;
use crate::sys::sync::Mutex;
use crate::time::{Deadline, Instant};

/// Failed authentications of one address in [`FAILURE_WINDOW`] before it is refused.
const MAX_FAILURES: u32 = 10;
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// Addresses whose failures are counted.
const MAX_FAILURE_ADDRESSES: usize = 4096;

/// Time for one session to end when the edge stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// All agent sessions.
#[derive(Default)]
pub struct AgentTable {
    entries: Mutex<AgentEntries>,
}

#[derive(Default)]
struct AgentEntries {
    last_number: u64,
    sessions: HashMap<u64, Arc<AgentSession>>,
    /// Failed authentications and the start of their window, by address.
    failures: HashMap<AddressOwner, (u32, Instant)>,
}

impl AgentTable {
    /// Closes all sessions and waits until they have ended.
    pub fn close(&self, reason: &str) {
        let sessions = self.sessions();
        for agent in &sessions {
            if let Some(session) = agent.state.lock().session.clone() {
                session.close(Code::NO_ERROR, reason);
            }
        }
        for agent in sessions {
            agent.wait(Deadline::At(sys::clock() + CLOSE_TIMEOUT), |s| s.ended);
        }
    }

    /// Returns the authenticated sessions.
    pub fn sessions(&self) -> Vec<Arc<AgentSession>> {
        self.entries.lock().sessions.values().cloned().collect()
    }

    /// Returns the number of a new session.
    pub fn next_number(&self) -> u64 {
        let mut entries = self.entries.lock();
        entries.last_number += 1;
        entries.last_number
    }

    /// Adds an authenticated session within the limits. Returns the older sessions of the
    /// same leg of the same client, which the new one replaces. The legs of a client count
    /// as one session of its credential.
    pub fn register(
        &self,
        agent: &Arc<AgentSession>,
        session: &Session,
        identity: &AgentIdentity,
        max_clients: usize,
        max_sessions: usize,
    ) -> Result<Vec<Arc<AgentSession>>, Refusal> {
        let mut entries = self.entries.lock();
        let (mut older, mut others) = (Vec::new(), HashSet::new());
        for other in entries.sessions.values() {
            if let Some(known) = other.state.lock().identity.as_ref()
                && known.account == identity.account
            {
                if known.client != identity.client {
                    others.insert(known.client.clone());
                } else if known.leg == identity.leg {
                    older.push(Arc::clone(other));
                }
            }
        }
        if others.len() >= max_clients || entries.sessions.len() >= max_sessions + older.len() {
            return Err(Refusal::new(
                108,
                format!(
                    "The credential '{}' is limited to {} simultaneous sessions.",
                    identity.account,
                    max_clients.min(max_sessions)
                ),
            ));
        }
        {
            let mut state = agent.state.lock();
            if state.ended {
                return Err(Refusal::text("The session has ended."));
            }
            state.identity = Some(identity.clone());
            state.session.get_or_insert_with(|| session.clone());
        }
        entries.sessions.insert(agent.number, Arc::clone(agent));
        agent.notify();
        Ok(older)
    }

    /// Removes a session that has ended.
    pub fn remove(&self, number: u64) {
        self.entries.lock().sessions.remove(&number);
    }

    /// Counts a failed authentication of `ip`.
    pub fn record_failure(&self, ip: IpAddr, now: Instant) {
        let mut entries = self.entries.lock();
        if entries.failures.len() >= MAX_FAILURE_ADDRESSES {
            entries.failures.retain(|_, (_, since)| now.since(*since) < FAILURE_WINDOW);
            if entries.failures.len() >= MAX_FAILURE_ADDRESSES {
                return;
            }
        }
        let (count, since) = entries.failures.entry(AddressOwner::of(ip)).or_insert((0, now));
        if now.since(*since) >= FAILURE_WINDOW {
            (*count, *since) = (0, now);
        }
        *count += 1;
    }

    /// Returns whether `ip` has failed too often to try again now.
    pub fn is_rate_limited(&self, ip: IpAddr, now: Instant) -> bool {
        self.entries.lock().failures.get(&AddressOwner::of(ip)).is_some_and(|(count, since)| {
            *count >= MAX_FAILURES && now.since(*since) < FAILURE_WINDOW
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_of_ipv6_addresses_has_one_count_of_failures() {
        let (table, now) = (AgentTable::default(), Instant::ZERO);
        let ip = |text: String| text.parse::<IpAddr>().unwrap();
        for n in 0..MAX_FAILURES {
            table.record_failure(ip(format!("2001:db8:1:2::{n}")), now);
        }
        assert!(table.is_rate_limited(ip("2001:db8:1:2:ffff::".into()), now));
        assert!(!table.is_rate_limited(ip("2001:db8:1:3::1".into()), now));
        assert!(!table.is_rate_limited(ip("192.0.2.1".into()), now));
        assert!(!table.is_rate_limited(ip("2001:db8:1:2::".into()), now + FAILURE_WINDOW));
    }
}
