//! What happens on other threads and concerns the supervisor: a short queue and
//! the bell that it sleeps by.

use std::collections::VecDeque;
use std::sync::Arc;

use super::handle::{Ask, Slot};
use super::leg::Failure;
use super::rpc::Outcome;
use crate::config;
use crate::mux::{StreamId, StreamType};
use crate::proto::messages::StopTunnel;
use crate::session::{End, Session};
use crate::sys::Bell;
use crate::sys::sync::{Mutex, MutexGuard};
use crate::tls::client::Established;

/// More waiting notes than this and whoever leaves them is not making sense: he is
/// told no.
const MOST: usize = 64;

/// Something for the supervisor.
pub(super) enum Note {
    /// What came of the attempt with this number.
    Dialled(u32, Box<Result<Established, Failure>>),
    /// The session with this number is over.
    Ended(u32, End),
    /// What came of the call with this number.
    Answered(u32, Outcome),
    /// The edge took an endpoint down.
    StopTunnel(StopTunnel),
    /// The configuration was read again, and what it says.
    Read(Reader, Box<Result<config::Agent, String>>),
    /// The edge asks the program for something, and waits for an answer.
    Command(StreamType, Session, StreamId),
    /// Another part of the program asks for something, and waits.
    Ask(Ask, Arc<Slot>),
}

/// Why the configuration is read.
pub(super) enum Reader {
    /// SIGHUP.
    Hangup,
    /// The edge asks for a restart, and waits for an answer on this stream.
    Restart(Session, StreamId),
}

/// The queue.
pub(super) struct Notes {
    queue: Mutex<VecDeque<Note>>,
    bell: &'static Bell,
}

impl Notes {
    pub(super) fn new(bell: &'static Bell) -> Self {
        Notes { queue: Mutex::new(VecDeque::new()), bell }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Note>> {
        self.queue.lock()
    }

    /// Leaves a note. `false`: there are too many. What the supervisor itself waits
    /// for always fits: there is one of each to a leg.
    pub(super) fn leave(&self, note: Note) -> bool {
        let awaited = matches!(
            note,
            Note::Dialled(..) | Note::Ended(..) | Note::Answered(..) | Note::Read(..)
        );
        let mut queue = self.lock();
        if queue.len() >= MOST && !awaited {
            return false;
        }
        queue.push_back(note);
        drop(queue);
        self.bell.raise();
        true
    }

    /// The oldest note.
    pub(super) fn take(&self) -> Option<Note> {
        self.lock().pop_front()
    }

    /// The bell, which also rings for signals.
    pub(super) fn bell(&self) -> &'static Bell {
        self.bell
    }
}
