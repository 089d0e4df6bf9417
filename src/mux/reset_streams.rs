//! Streams for which this side sent RST. Frames that the peer had in flight for them are
//! dropped without another RST (protocol 2.6).

use super::StreamId;
use super::fault_injection::{self, Bug};

/// Number of remembered streams. When the ring is full the oldest one is forgotten. A peer that
/// still sends on it gets another RST.
const ROOM: usize = 1_024;

/// Number of streams for which memory is allocated at first: most sessions reset few of them.
const FIRST_ROOM: usize = 32;

/// Ring of ids. Its memory is allocated in two steps.
#[derive(Debug, Default)]
pub(super) struct ResetStreams {
    ids: Vec<u32>,
    next: usize,
}

impl ResetStreams {
    pub(super) fn add(&mut self, stream: StreamId) {
        if fault_injection::is(Bug::ResetStreamForgotten) || self.contains(stream) {
            return;
        }
        if self.ids.len() < ROOM {
            if self.ids.len() == self.ids.capacity() {
                let room = if self.ids.is_empty() { FIRST_ROOM } else { ROOM };
                self.ids.reserve_exact(room - self.ids.len());
            }
            self.ids.push(stream.0);
        } else if let Some(oldest) = self.ids.get_mut(self.next) {
            *oldest = stream.0;
            self.next = (self.next + 1) % ROOM;
        }
    }

    /// Returns its memory on the heap, in bytes.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.ids.capacity() * size_of::<u32>()
    }

    pub(super) fn contains(&self, stream: StreamId) -> bool {
        self.ids.contains(&stream.0)
    }

    /// Removes an id that the peer uses again.
    pub(super) fn remove(&mut self, stream: StreamId) {
        for id in &mut self.ids {
            if *id == stream.0 {
                // 0 is not a valid stream.
                *id = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_when_the_ring_is_full() {
        let mut reset_streams = ResetStreams::default();
        for id in 1..=ROOM as u32 + 1 {
            reset_streams.add(StreamId(id));
        }
        assert!(!reset_streams.contains(StreamId(1)));
        assert!(
            reset_streams.contains(StreamId(2))
                && reset_streams.contains(StreamId(ROOM as u32 + 1))
        );
        assert_eq!(reset_streams.ids.capacity(), ROOM);
        reset_streams.remove(StreamId(2));
        assert!(!reset_streams.contains(StreamId(2)));
    }
}
