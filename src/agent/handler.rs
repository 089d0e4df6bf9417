//! The agent's side of a session on its reactor thread: assigns each stream to its sink.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::commands::{CommandSink, count_fault};
use super::events::{AgentEvent, EventQueue};
use super::routes::RouteTable;
use super::status::Latency;
use crate::event;
use crate::mux::{Code, StreamId, StreamType};
use crate::proxy::{Incoming, Pool, Routes};
use crate::session::{self, End, Session, Sink};
use crate::sys;
use crate::time::{Deadline, Instant};

/// Time after a heartbeat at which its memory is released. Its response is sent by then.
const CODE_RELEASE_DELAY: Duration = Duration::from_secs(1);

/// The handler of one session.
pub(super) struct SessionHandler {
    /// Number of the session in this run. It identifies late events.
    pub(super) number: u32,
    pub(super) events: Arc<EventQueue>,
    pub(super) routes: Arc<RouteTable>,
    pub(super) pool: Arc<Pool>,
    pub(super) remote_management: bool,
    pub(super) latency: Arc<Latency>,
    pub(super) changes: Arc<AtomicU32>,
    /// Streams whose first message was incomplete at the last tick.
    pub(super) unread_streams: Vec<UnreadStream>,
    /// Whether a heartbeat arrived since the last tick.
    pub(super) heartbeat_seen: bool,
    /// Time at which recently used code pages are released.
    pub(super) release_code_at: Deadline,
}

/// A stream whose first message has a deadline.
pub(super) enum UnreadStream {
    Visitor(Weak<Incoming>),
    Request(Weak<CommandSink>),
}

impl UnreadStream {
    fn expire(&self, now: Instant) -> Deadline {
        match self {
            UnreadStream::Visitor(stream) => stream.upgrade().map(|s| s.expire(now)),
            UnreadStream::Request(stream) => stream.upgrade().map(|s| s.expire(now)),
        }
        .unwrap_or(Deadline::Never)
    }
}

impl session::Handler for SessionHandler {
    fn opened(
        &mut self,
        session: &Session,
        stream: StreamId,
        kind: StreamType,
    ) -> Option<Arc<dyn Sink>> {
        match kind {
            StreamType::PROXY => {
                let routes = Arc::clone(&self.routes) as Arc<dyn Routes>;
                let incoming = Incoming::new(session, stream, routes, Arc::clone(&self.pool));
                let incoming = Arc::new(incoming);
                self.unread_streams.push(UnreadStream::Visitor(Arc::downgrade(&incoming)));
                Some(incoming)
            }
            StreamType::STOP
            | StreamType::RESTART
            | StreamType::UPDATE
            | StreamType::STOP_TUNNEL => {
                let command =
                    CommandSink::new(session, stream, kind, &self.events, self.remote_management);
                let command = Arc::new(command);
                self.unread_streams.push(UnreadStream::Request(Arc::downgrade(&command)));
                Some(command)
            }
            other => {
                if let Some(count) = count_fault() {
                    let kind = other;
                    event!(warn, obj = "csess", "unknown stream type", kind = kind, count = count);
                }
                None
            }
        }
    }

    fn tick(&mut self, now: Instant) -> Deadline {
        let mut next = Deadline::Never;
        self.unread_streams.retain(|stream| {
            let until = stream.expire(now);
            next = next.min(until);
            until != Deadline::Never
        });
        if self.unread_streams.is_empty() {
            self.unread_streams.shrink_to(16);
        }
        // At each heartbeat, or earlier.
        self.pool.report_suppressed(now);
        self.pool.check_half_closed(now);
        if std::mem::take(&mut self.heartbeat_seen) {
            self.release_code_at = Deadline::At(now + CODE_RELEASE_DELAY);
        }
        if self.release_code_at.due(now) {
            self.release_code_at = Deadline::Never;
            // With visitors, more than the next heartbeat is expected.
            let numbers = self.pool.numbers();
            if numbers.workers <= 1 && numbers.busy == 0 {
                sys::page_cache::forget_code();
            }
        }
        next.min(self.release_code_at)
    }

    fn latency(&mut self, latency: Duration) {
        self.latency.set(Some(latency));
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.heartbeat_seen = true;
        event!(debug, obj = "csess", "heartbeat", dur = format_args!("{latency:?}"));
        sys::heap::release_free_pages();
    }

    fn going_away(&mut self, code: Code, text: &str) {
        // The new session begins at once. Streams of this one may finish in the meantime.
        self.events.push(AgentEvent::Ended(self.number, End::GoneAway(code, text.to_owned())));
    }

    fn ended(&mut self, end: &End) {
        self.events.push(AgentEvent::Ended(self.number, end.clone()));
    }
}
