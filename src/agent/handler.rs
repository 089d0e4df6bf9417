//! The agent's side of a session on its reactor thread: which stream goes where.

use std::sync::Arc;
use std::time::Duration;

use super::commands::Command;
use super::endpoints::Table;
use super::notes::{Note, Notes};
use crate::event;
use crate::mux::{Code, StreamId, StreamType};
use crate::proxy::{Incoming, Pool, Routes};
use crate::tunnel::{self, End, Session, Sink};

/// The handler of one session.
pub(super) struct Handler {
    /// Which session of this run, so that a late note is not taken for the current one's.
    pub(super) number: u32,
    pub(super) notes: Arc<Notes>,
    pub(super) table: Arc<Table>,
    pub(super) pool: Arc<Pool>,
    pub(super) remote: bool,
}

impl tunnel::Handler for Handler {
    fn opened(
        &mut self,
        session: &Session,
        stream: StreamId,
        kind: StreamType,
    ) -> Option<Arc<dyn Sink>> {
        match kind {
            StreamType::PROXY => {
                let routes = Arc::clone(&self.table) as Arc<dyn Routes>;
                Some(Arc::new(Incoming::new(session, stream, routes, Arc::clone(&self.pool))))
            }
            StreamType::STOP
            | StreamType::RESTART
            | StreamType::UPDATE
            | StreamType::STOP_TUNNEL => {
                Some(Arc::new(Command::new(session, stream, kind, &self.notes, self.remote)))
            }
            other => {
                event!(
                    warn,
                    obj = "csess",
                    "the edge opened a stream of an unknown type",
                    id = other
                );
                None
            }
        }
    }

    fn latency(&mut self, latency: Duration) {
        event!(debug, obj = "csess", "heartbeat", dur = format_args!("{latency:?}"));
    }

    fn going_away(&mut self, code: Code, text: &str) {
        // A new session at once; the streams of this one may finish meanwhile.
        self.notes.leave(Note::Ended(self.number, End::GoneAway(code, text.to_owned())));
    }

    fn ended(&mut self, end: &End) {
        self.notes.leave(Note::Ended(self.number, end.clone()));
    }
}
