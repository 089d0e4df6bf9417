//! State that visitors, upstreams and the driver share, and the only place that decides whether
//! an observed end is allowed.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};

use crate::ledger::{Ledger, Outcome, Side};
use crate::plan::{Exchange, Id, SPARE};
use crate::wire;

/// A restart of a program under test.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Restart {
    /// The edge, by SIGKILL.
    EdgeKilled,
    /// The edge, by SIGTERM.
    EdgeEnded,
    /// The agent, by SIGTERM.
    AgentEnded,
}

/// Restarts so far. The epoch is odd while a restart goes on.
#[derive(Default)]
pub struct Restarts {
    epoch: AtomicU64,
    list: Mutex<Vec<Restart>>,
}

impl Restarts {
    pub fn begin(&self, restart: Restart) {
        self.list.lock().expect("restarts").push(restart);
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    pub fn end(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns the epoch, for a connection to store.
    pub fn now(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Returns whether a restart went on at `since` or began after it.
    pub fn any(&self, since: u64) -> bool {
        since % 2 == 1 || self.now() != since
    }

    /// Returns whether one of those killed the edge: then the kernel ends its connections, and
    /// a reset cannot be expected.
    fn killed_edge(&self, since: u64) -> bool {
        let list = self.list.lock().expect("restarts");
        list.iter().skip((since / 2) as usize).any(|r| *r == Restart::EdgeKilled)
    }
}

pub struct Shared {
    pub seed: u64,
    pub ledger: Ledger,
    pub restarts: Restarts,
    /// Visits hold it for reading; the driver drains the load by writing.
    pub gate: RwLock<()>,
    /// Connections at the upstreams.
    pub upstream_connections: AtomicU64,
}

/// Addresses for visitors.
#[derive(Clone, Copy, Debug)]
pub struct Entrances {
    pub http: SocketAddr,
    pub tcp: SocketAddr,
}

impl Entrances {
    pub fn host(&self, name: &str) -> String {
        format!("{name}.localhost:{}", self.http.port())
    }
}

/// How one end saw the end of a body or of a connection.
pub enum Seen {
    /// An orderly end, after this number of right bytes.
    End {
        count: u64,
        expected: u64,
    },
    /// A byte at this position that was not sent.
    Wrong(u64),
    /// Bytes of another exchange.
    Other(String),
    Broken(io::Error),
    /// A status that was not due.
    Status(u16),
}

impl Shared {
    /// Counts what `side` saw of an exchange on a connection that began at epoch `since`.
    /// `fault`: an error is allowed, and an orderly end is not. Returns the outcome.
    pub fn judge(
        &self,
        side: Side,
        plan: &Exchange,
        since: u64,
        fault: bool,
        seen: &Seen,
    ) -> Outcome {
        let excused = || {
            // The visitor leaves without reading it.
            let spare = plan.id.index == SPARE;
            if fault || spare {
                Outcome::Fault
            } else if self.restarts.any(since) {
                Outcome::Restart
            } else if plan.id.kind.is_slow() {
                Outcome::Limit
            } else {
                Outcome::Unexpected
            }
        };
        let mut detail = String::new();
        let (outcome, what) = match seen {
            Seen::Wrong(at) => {
                detail = format!("at {at}; ");
                (Outcome::Wrong, "a wrong byte".to_owned())
            }
            Seen::Other(other) => {
                detail = format!("{other}; ");
                (Outcome::Wrong, "what belongs to another exchange".to_owned())
            }
            Seen::Broken(e) if wire::is_hang(e) => (Outcome::Hang, e.to_string()),
            Seen::Broken(e) => (excused(), e.to_string()),
            Seen::Status(status) => (excused(), format!("status {status}")),
            Seen::End { count, expected } if count == expected && !fault => {
                (Outcome::Whole, String::new())
            }
            Seen::End { count, expected } => {
                detail = format!("after {count} of {expected} bytes; ");
                let killed = side == Side::Visitor && self.restarts.killed_edge(since);
                let outcome = if killed { Outcome::Restart } else { Outcome::Short };
                (outcome, "an orderly end".to_owned())
            }
        };
        if outcome.is_failure() {
            detail += &format!("{plan:?}");
        }
        self.ledger.add(side, plan.id, outcome, &what, &detail);
        outcome
    }

    pub fn count(&self, side: Side, id: Id, outcome: Outcome) {
        self.ledger.add(side, id, outcome, "a request that was sent once", "");
    }
}
