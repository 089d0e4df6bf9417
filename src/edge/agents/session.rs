//! State of one agent session, shared between its reactor, the thread that accepted it and
//! the calls of other sessions. No protocol message is read or written here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::identity::AgentIdentity;
use super::info::AgentInfo;
use super::registry::OnlineEndpoint;
use super::unsent_binds::UnsentBinds;
use crate::edge::places::Places;
use crate::session::Session;
use crate::sys;
use crate::sys::sync::{Condvar, Mutex};
use crate::time::Deadline;

/// Longest pause between two checks of a condition without a deadline.
const RECHECK_INTERVAL: Duration = Duration::from_secs(30);

/// One session of an agent.
pub struct AgentSession {
    pub(super) peer: SocketAddr,
    pub(super) number: u64,
    /// Streams that visitors hold.
    pub(super) streams: Arc<Places>,
    pub(super) unsent_binds: Arc<UnsentBinds>,
    pub(super) state: Mutex<AgentSessionState>,
    /// Notified when Auth is decided and when the session ends.
    changed: Condvar,
}

/// What changes during a session.
#[derive(Default)]
pub(super) struct AgentSessionState {
    pub(super) session: Option<Session>,
    /// Set by a successful Auth.
    pub(super) identity: Option<AgentIdentity>,
    /// Set with the identity.
    pub(super) info: Option<Arc<AgentInfo>>,
    /// Auth waits for another session of the credential to end.
    pub(super) auth_pending: bool,
    /// Auth was refused. The session ends soon.
    pub(super) refused: bool,
    pub(super) ended: bool,
    /// Endpoints that this session has online.
    pub(super) endpoints: Vec<Arc<OnlineEndpoint>>,
}

impl AgentSession {
    /// Creates the state of a session that is not authenticated.
    pub fn new(peer: SocketAddr, number: u64) -> Self {
        AgentSession {
            peer,
            number,
            streams: Arc::default(),
            unsent_binds: Arc::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Wakes the threads in [`AgentSession::wait`].
    pub(super) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Waits until `done` returns true. Returns false at the deadline.
    pub(super) fn wait(
        &self,
        deadline: Deadline,
        done: impl Fn(&AgentSessionState) -> bool,
    ) -> bool {
        let mut state = self.state.lock();
        while !done(&state) {
            let left = deadline.left(sys::clock()).unwrap_or(RECHECK_INTERVAL);
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).0;
        }
        true
    }
}
