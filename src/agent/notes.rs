//! What happens on other threads and concerns the supervisor: a short queue and
//! the bell that it sleeps by.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use crate::proto::messages::StopTunnel;
use crate::sys::Bell;
use crate::tunnel::End;

/// More waiting notes than this and the edge is not making sense: it is told no.
const MOST: usize = 64;

/// Something for the supervisor.
#[derive(Debug)]
pub(super) enum Note {
    /// The session with this number is over.
    Ended(u32, End),
    /// The edge took an endpoint down.
    StopTunnel(StopTunnel),
    /// The edge asks the program to end.
    Stop,
    /// The edge asks the program to start anew.
    Restart,
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
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Leaves a note. `false`: there are too many. The end of a session always fits.
    pub(super) fn leave(&self, note: Note) -> bool {
        let mut queue = self.lock();
        if queue.len() >= MOST && !matches!(note, Note::Ended(..)) {
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
