//! Streams that were sent an RST. What the peer had in flight for them is
//! dropped without another (protocol 2.6).

use super::StreamId;
use super::fault_injection::{self, Bug};

/// How many are remembered. When the ring is full the oldest is forgotten: a
/// peer that still sends on it is answered once more.
const ROOM: usize = 1_024;

/// A ring of ids. Its memory is allocated with the first one.
#[derive(Debug, Default)]
pub(super) struct Tombs {
    ids: Vec<u32>,
    next: usize,
}

impl Tombs {
    pub(super) fn add(&mut self, stream: StreamId) {
        if fault_injection::is(Bug::TombstoneMissing) || self.contains(stream) {
            return;
        }
        if self.ids.len() < ROOM {
            if self.ids.capacity() == 0 {
                self.ids.reserve_exact(ROOM);
            }
            self.ids.push(stream.0);
        } else if let Some(oldest) = self.ids.get_mut(self.next) {
            *oldest = stream.0;
            self.next = (self.next + 1) % ROOM;
        }
    }

    /// The memory it holds, in bytes.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.ids.capacity() * size_of::<u32>()
    }

    pub(super) fn contains(&self, stream: StreamId) -> bool {
        self.ids.contains(&stream.0)
    }

    /// The peer uses the id anew.
    pub(super) fn remove(&mut self, stream: StreamId) {
        for id in &mut self.ids {
            if *id == stream.0 {
                // 0 is no stream.
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
        let mut tombs = Tombs::default();
        for id in 1..=ROOM as u32 + 1 {
            tombs.add(StreamId(id));
        }
        assert!(!tombs.contains(StreamId(1)));
        assert!(tombs.contains(StreamId(2)) && tombs.contains(StreamId(ROOM as u32 + 1)));
        assert_eq!(tombs.ids.capacity(), ROOM);
        tombs.remove(StreamId(2));
        assert!(!tombs.contains(StreamId(2)));
    }
}
