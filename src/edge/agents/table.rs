//! Table of agent sessions with its limits: sessions of a credential, failed
//! authentications of an address. It reads no message and writes none.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::identity::AgentIdentity;
use super::session::AgentSession;
use crate::edge::login_failures::LoginFailures;
use crate::mux::Code;
use crate::proto::codes::Refusal;
use crate::session::Session;
use crate::sys;
use crate::sys::sync::Mutex;
use crate::time::{Deadline, Instant};

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
    /// Failed authentications.
    failures: LoginFailures,
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
        self.entries.lock().failures.record(ip, now);
    }

    /// Returns whether `ip` has failed too often to try again now.
    pub fn is_rate_limited(&self, ip: IpAddr, now: Instant) -> bool {
        self.entries.lock().failures.is_locked(ip, now)
    }
}
