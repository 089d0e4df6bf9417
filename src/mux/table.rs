//! All streams of a session: reused slots, and a sorted index.
//!
//! Finding a stream costs a binary search. Opening or closing one moves at most 8 bytes for
//! each other stream, and allocates nothing up to the largest size so far.

use super::StreamId;
use super::stream::StreamState;

/// Position of a stream in the table. It may be stale: [`StreamTable::get`] checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamSlot {
    place: u32,
    id: StreamId,
}

/// Streams by id.
#[derive(Debug, Default)]
pub(super) struct StreamTable {
    slots: Vec<Option<StreamState>>,
    free: Vec<u32>,
    index: Vec<(StreamId, u32)>,
}

impl StreamTable {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn find(&self, id: StreamId) -> Option<StreamSlot> {
        let at = self.position(id).ok()?;
        self.index.get(at).map(|&(id, place)| StreamSlot { place, id })
    }

    /// Returns the stream in `slot`, unless it was removed.
    pub(super) fn get(&mut self, slot: StreamSlot) -> Option<&mut StreamState> {
        let stream = self.slots.get_mut(slot.place as usize)?.as_mut()?;
        (stream.id == slot.id).then_some(stream)
    }

    /// Returns the stream with `id`.
    pub(super) fn by_id(&mut self, id: StreamId) -> Option<&mut StreamState> {
        let slot = self.find(id)?;
        self.get(slot)
    }

    /// Inserts a stream, unless its id is in use.
    pub(super) fn insert(&mut self, stream: StreamState) -> Option<StreamSlot> {
        let id = stream.id;
        let Err(at) = self.position(id) else { return None };
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                let place = u32::try_from(self.slots.len()).ok()?;
                self.slots.push(None);
                place
            }
        };
        *self.slots.get_mut(place as usize)? = Some(stream);
        self.index.insert(at, (id, place));
        Some(StreamSlot { place, id })
    }

    pub(super) fn remove(&mut self, id: StreamId) -> Option<StreamState> {
        let at = self.position(id).ok()?;
        let (_, place) = self.index.remove(at);
        let stream = self.slots.get_mut(place as usize)?.take();
        self.free.push(place);
        stream
    }

    /// Returns all streams by rising id.
    pub(super) fn iter(&self) -> impl Iterator<Item = &StreamState> {
        self.index.iter().filter_map(|&(_, place)| self.slots.get(place as usize)?.as_ref())
    }

    fn position(&self, id: StreamId) -> Result<usize, usize> {
        self.index.binary_search_by_key(&id, |&(id, _)| id)
    }

    /// Returns its memory on the heap, in bytes.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Option<StreamState>>()
            + self.free.capacity() * size_of::<u32>()
            + self.index.capacity() * size_of::<(StreamId, u32)>()
    }

    pub(super) fn check(&self) {
        debug_assert!(self.index.is_sorted_by(|a, b| a.0 < b.0), "index out of order");
        debug_assert_eq!(self.index.len() + self.free.len(), self.slots.len(), "slots leak");
        for &(id, place) in &self.index {
            let held = self.slots.get(place as usize).and_then(Option::as_ref);
            debug_assert_eq!(held.map(|s| s.id), Some(id), "index points elsewhere");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mux::stream::Purpose;

    fn stream(id: u32) -> StreamState {
        StreamState::new(StreamId(id), Purpose::Application, 10)
    }

    #[test]
    fn slots_are_used_again_and_stale_ones_are_noticed() {
        let mut table = StreamTable::default();
        for id in [9, 2, 7, 4] {
            assert!(table.insert(stream(id)).is_some());
        }
        assert!(table.insert(stream(7)).is_none(), "the id is taken");
        let stale = table.find(StreamId(7)).unwrap();
        assert!(table.remove(StreamId(7)).is_some());
        assert!(table.remove(StreamId(7)).is_none());
        assert!(table.get(stale).is_none());
        let fresh = table.insert(stream(11)).unwrap();
        assert_eq!(fresh.place, stale.place);
        assert!(table.get(stale).is_none(), "another stream lives there now");
        assert_eq!(table.iter().map(|s| s.id.0).collect::<Vec<_>>(), [2, 4, 9, 11]);
        table.check();
    }
}
