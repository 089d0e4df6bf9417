//! Stores captured exchanges: a ring of bytes with a hard limit.
//!
//! Bytes are in linked chunks of [`CHUNK_BYTES`], which are parts of slabs. Slabs are allocated
//! one by one and freed only by [`Store::clear`], so the heap is not fragmented and the counted
//! bytes are the used ones. When the ring is full the oldest exchange is removed, even an open
//! one: its writer is notified that further bytes are not needed. Locks, clock and HTTP do not
//! belong here.

use std::collections::VecDeque;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::observer::{MessageEvent, Side, TunnelBytes};
use crate::time::Instant;

/// Bytes of a chunk, its link included.
const CHUNK_BYTES: usize = 1024;

/// Bytes of the link to the next chunk.
const LINK_BYTES: usize = 4;

/// Payload of a chunk.
const CHUNK_CAPACITY: usize = CHUNK_BYTES - LINK_BYTES;

/// Chunks of a slab.
const CHUNKS_PER_SLAB: usize = 16;

/// Bytes of a slab, with the overhead of allocator and table.
const SLAB_BYTES: usize = CHUNK_BYTES * CHUNKS_PER_SLAB + 48;

/// Entries of a page.
const ENTRIES_PER_PAGE: usize = 16;

/// Bytes of a page of entries, with the overhead of allocator and table.
const PAGE_BYTES: usize = ENTRIES_PER_PAGE * size_of::<StoredExchange>() + 64;

/// Bytes that must be left to others when a slab is allocated. The slab is never freed, and
/// visitors would be refused for lack of memory until the program ends.
const RESERVE_BYTES: usize = 1 << 20;

/// Most stored bytes of one message.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// Lowest limit: with less, no useful exchange fits.
pub const MIN_STORE_BYTES: usize = 64 * 1024;

/// Highest limit. A higher one is reduced to it.
const MAX_STORE_BYTES: usize = 1 << 30;

/// No chunk.
const NO_CHUNK: u32 = u32::MAX;

/// Stored part of one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredMessage {
    first: u32,
    last: u32,
    /// Number of stored bytes.
    pub(super) kept: u32,
    /// Number of bytes that passed, and the state of the message.
    pub(super) total: u64,
    pub(super) state: MessageState,
}

/// State of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageState {
    /// Its head is incomplete.
    Started,
    /// Its head is complete, and its body passes.
    Streaming,
    /// It is complete.
    Complete,
    /// It was truncated, or could not be followed.
    Incomplete,
}

impl StoredMessage {
    const fn new() -> Self {
        StoredMessage {
            first: NO_CHUNK,
            last: NO_CHUNK,
            kept: 0,
            total: 0,
            state: MessageState::Started,
        }
    }

    /// Returns the number of bytes that passed, as far as it is known.
    pub(super) fn len(&self) -> u64 {
        self.total.max(u64::from(self.kept))
    }
}

/// One exchange.
#[derive(Debug)]
pub(super) struct StoredExchange {
    pub(super) endpoint: Arc<str>,
    pub(super) visitor: Option<IpAddr>,
    /// Time of its first byte, since 1970.
    pub(super) start: Duration,
    began: Instant,
    pub(super) took: Duration,
    pub(super) request: StoredMessage,
    pub(super) response: StoredMessage,
    pub(super) status: u16,
    /// Number of the exchange that this one replays; 0: not a replay.
    pub(super) replay_of: u64,
    /// The connection after an upgrade.
    pub(super) tunnel: Option<Box<StoredTunnel>>,
    /// Value of [`Store::changes`] at its last change.
    pub(super) changed: u32,
    /// Whether its request's head is complete.
    visible: bool,
    deleted: bool,
}

/// Connection after an upgrade.
#[derive(Debug)]
pub(super) struct StoredTunnel {
    pub(super) bytes: Arc<TunnelBytes>,
    pub(super) is_open: bool,
    /// Its bytes at its last change.
    reported: [u64; 2],
}

impl StoredExchange {
    /// Returns the time that it took until `now`.
    pub(super) fn took(&self, now: impl FnOnce() -> Instant) -> Duration {
        match &self.tunnel {
            Some(tunnel) if tunnel.is_open => now().since(self.began),
            _ => self.took,
        }
    }
}

/// Properties of a new exchange.
pub(super) struct NewExchange {
    pub(super) endpoint: Arc<str>,
    pub(super) visitor: Option<IpAddr>,
    pub(super) start: Duration,
    pub(super) now: Instant,
    pub(super) replay_of: u64,
}

/// The ring.
#[derive(Debug)]
pub(super) struct Store {
    ceiling: usize,
    max_slabs: usize,
    max_pages: usize,
    /// Most stored bytes of one message.
    limit: u32,
    slabs: Vec<Box<[u8]>>,
    /// First free chunk.
    free: u32,
    /// Entries by number, the oldest first.
    pages: VecDeque<Vec<StoredExchange>>,
    /// An empty page, for the next one.
    free_page: Option<Vec<StoredExchange>>,
    /// Numbers of the first entry of the first page, of the oldest existing entry, and of the
    /// next one.
    base: u64,
    oldest: u64,
    next: u64,
    /// Number of changes to visible entries.
    changes: u32,
    /// Value of `changes` when an entry was last removed, except by age.
    deleted_at: u32,
    /// Numbers of the entries with an open tunnel.
    tunnels: Vec<u64>,
}

impl Store {
    /// Creates a store with at most `ceiling` bytes of memory, at least [`MIN_STORE_BYTES`].
    pub(super) fn new(ceiling: usize) -> Self {
        let ceiling = ceiling.min(MAX_STORE_BYTES);
        // A sixteenth is for the entries.
        let max_pages = (ceiling / 16 / PAGE_BYTES).max(2);
        let max_slabs =
            (ceiling - ceiling / 16).min(ceiling - (max_pages + 1) * PAGE_BYTES) / SLAB_BYTES;
        Store {
            ceiling,
            max_slabs,
            max_pages,
            limit: u32::try_from((ceiling / 16).min(MAX_MESSAGE_BYTES)).unwrap_or(0),
            slabs: Vec::new(),
            free: NO_CHUNK,
            pages: VecDeque::new(),
            free_page: None,
            base: 1,
            oldest: 1,
            next: 1,
            changes: 0,
            deleted_at: 0,
            tunnels: Vec::new(),
        }
    }

    /// Returns the used memory and its limit in bytes.
    pub(super) fn bytes(&self) -> (usize, usize) {
        let pages = self.pages.len() + usize::from(self.free_page.is_some());
        (self.slabs.len() * SLAB_BYTES + pages * PAGE_BYTES, self.ceiling)
    }

    pub(super) fn changes(&self) -> u32 {
        self.changes
    }

    pub(super) fn deleted_at(&self) -> u32 {
        self.deleted_at
    }

    /// Returns the numbers of the oldest entry and after the newest.
    pub(super) fn range(&self) -> (u64, u64) {
        (self.oldest, self.next)
    }

    /// Begins an exchange and returns its number.
    pub(super) fn begin(&mut self, exchange: NewExchange) -> u64 {
        if self.pages.back().is_none_or(|page| page.len() >= ENTRIES_PER_PAGE) {
            while self.pages.len() >= self.max_pages {
                self.drop_oldest();
            }
            if self.pages.capacity() == 0 {
                // The tables get their final size here.
                self.pages.reserve_exact(self.max_pages);
                self.slabs.reserve_exact(self.max_slabs);
            }
            let page =
                self.free_page.take().unwrap_or_else(|| Vec::with_capacity(ENTRIES_PER_PAGE));
            self.pages.push_back(page);
        }
        let NewExchange { endpoint, visitor, start, now, replay_of } = exchange;
        if let Some(page) = self.pages.back_mut() {
            page.push(StoredExchange {
                endpoint,
                visitor,
                start,
                began: now,
                took: Duration::ZERO,
                request: StoredMessage::new(),
                response: StoredMessage::new(),
                status: 0,
                replay_of,
                tunnel: None,
                changed: 0,
                visible: false,
                deleted: false,
            });
        }
        self.next += 1;
        self.next - 1
    }

    /// Appends to one side of an exchange. Returns false if further bytes are not needed.
    pub(super) fn append(&mut self, number: u64, side: Side, mut bytes: &[u8]) -> bool {
        let Some(message) = self.live(number).map(|entry| *entry.message(side)) else {
            return false;
        };
        let StoredMessage { mut first, mut last, mut kept, .. } = message;
        let room = usize::try_from(self.limit.saturating_sub(kept)).unwrap_or(0);
        let wants = bytes.len() < room;
        bytes = bytes.get(..room).unwrap_or(bytes);
        while !bytes.is_empty() {
            let used = kept as usize % CHUNK_CAPACITY;
            if used == 0 {
                let Some(chunk) = self.chunk(number) else { return false };
                if first == NO_CHUNK {
                    first = chunk;
                } else if let Some(before) = self.slice(last) {
                    before[..LINK_BYTES].copy_from_slice(&chunk.to_le_bytes());
                }
                last = chunk;
            }
            let n = bytes.len().min(CHUNK_CAPACITY - used);
            let (now, later) = bytes.split_at(n);
            if let Some(place) = self.slice(last) {
                place[LINK_BYTES + used..LINK_BYTES + used + n].copy_from_slice(now);
            }
            bytes = later;
            kept += n as u32;
            // Updated at once: the entry must be consistent while room is made.
            if let Some(entry) = self.live(number) {
                let message = entry.message_mut(side);
                (message.first, message.last, message.kept) = (first, last, kept);
            }
        }
        wants
    }

    /// Records an event of one side of an exchange.
    pub(super) fn event(&mut self, number: u64, side: Side, event: MessageEvent, now: Instant) {
        let changes = self.changes.wrapping_add(1);
        let Some(entry) = self.live(number) else { return };
        let response = side == Side::Response;
        let message = entry.message_mut(side);
        match event {
            MessageEvent::Head(status) => {
                message.state = MessageState::Streaming;
                if response {
                    entry.status = status;
                } else {
                    entry.visible = true;
                }
            }
            MessageEvent::Complete(total) => {
                (message.state, message.total) = (MessageState::Complete, total)
            }
            MessageEvent::Incomplete(total) => {
                (message.state, message.total) = (MessageState::Incomplete, total)
            }
            MessageEvent::Interim => {
                let first = std::mem::replace(message, StoredMessage::new()).first;
                return self.release(first);
            }
            MessageEvent::NotARequest => return self.remove(number),
        }
        if response {
            entry.took = now.since(entry.began);
        }
        if entry.visible {
            entry.changed = changes;
            self.changes = changes;
        }
    }

    /// Records the begin or the end of another protocol after an exchange.
    pub(super) fn tunnel(
        &mut self,
        number: u64,
        bytes: &Arc<TunnelBytes>,
        is_open: bool,
        now: Instant,
    ) {
        self.tunnels.retain(|open| *open != number);
        let changes = self.changes.wrapping_add(1);
        let Some(entry) = self.live(number) else { return };
        entry.took = now.since(entry.began);
        let (bytes, reported) = (Arc::clone(bytes), bytes.sums());
        entry.tunnel = Some(Box::new(StoredTunnel { bytes, is_open, reported }));
        entry.changed = changes;
        self.changes = changes;
        if is_open {
            self.tunnels.push(number);
        }
    }

    /// Marks the tunnels as changed that have carried bytes since the last call.
    pub(super) fn check_tunnels(&mut self) {
        let mut tunnels = std::mem::take(&mut self.tunnels);
        tunnels.retain(|number| {
            let changes = self.changes.wrapping_add(1);
            let Some(entry) = self.live(*number) else { return false };
            let Some(tunnel) = &mut entry.tunnel else { return false };
            let sums = tunnel.bytes.sums();
            if tunnel.reported != sums {
                tunnel.reported = sums;
                entry.changed = changes;
                self.changes = changes;
            }
            true
        });
        self.tunnels = tunnels;
    }

    /// Returns an entry that may be shown.
    pub(super) fn entry(&self, number: u64) -> Option<&StoredExchange> {
        let at = usize::try_from(number.checked_sub(self.base)?).ok()?;
        let entry = self.pages.get(at / ENTRIES_PER_PAGE)?.get(at % ENTRIES_PER_PAGE)?;
        (entry.visible && !entry.deleted).then_some(entry)
    }

    fn live(&mut self, number: u64) -> Option<&mut StoredExchange> {
        let at = usize::try_from(number.checked_sub(self.base)?).ok()?;
        let entry = self.pages.get_mut(at / ENTRIES_PER_PAGE)?.get_mut(at % ENTRIES_PER_PAGE)?;
        (!entry.deleted).then_some(entry)
    }

    /// Returns the first bytes of a message, at most a chunk.
    pub(super) fn beginning(&self, message: &StoredMessage) -> &[u8] {
        let kept = (message.kept as usize).min(CHUNK_CAPACITY);
        self.chunk_bytes(message.first).and_then(|(_, room)| room.get(..kept)).unwrap_or_default()
    }

    /// Returns all stored bytes of a message.
    pub(super) fn copy(&self, message: &StoredMessage) -> Vec<u8> {
        let mut left = message.kept as usize;
        let mut bytes = Vec::with_capacity(left);
        let mut at = message.first;
        while left > 0
            && let Some((next, room)) = self.chunk_bytes(at)
        {
            let n = left.min(CHUNK_CAPACITY);
            bytes.extend_from_slice(&room[..n]);
            left -= n;
            at = next;
        }
        bytes
    }

    /// Deletes one entry. Returns whether it was visible.
    pub(super) fn delete(&mut self, number: u64) -> bool {
        let there = self.entry(number).is_some();
        if there {
            self.remove(number);
            self.changes = self.changes.wrapping_add(1);
            self.deleted_at = self.changes;
        }
        there
    }

    /// Deletes all entries and frees the memory.
    pub(super) fn clear(&mut self) {
        self.slabs = Vec::new();
        self.free = NO_CHUNK;
        self.pages = VecDeque::new();
        self.free_page = None;
        self.base = self.next;
        self.oldest = self.next;
        self.changes = self.changes.wrapping_add(1);
        self.deleted_at = self.changes;
    }

    fn remove(&mut self, number: u64) {
        let Some(entry) = self.live(number) else { return };
        entry.deleted = true;
        let chains = [entry.request.first, entry.response.first];
        for first in chains {
            self.release(first);
        }
    }

    fn drop_oldest(&mut self) {
        if self.oldest >= self.next {
            return;
        }
        self.remove(self.oldest);
        self.oldest += 1;
        if self.oldest - self.base >= ENTRIES_PER_PAGE as u64
            && let Some(mut page) = self.pages.pop_front()
        {
            page.clear();
            self.free_page = Some(page);
            self.base += ENTRIES_PER_PAGE as u64;
        }
    }

    /// Returns a chunk for the exchange `number`; `None` if it was removed itself.
    fn chunk(&mut self, number: u64) -> Option<u32> {
        while self.free == NO_CHUNK {
            if self.slabs.len() < self.max_slabs {
                self.grow();
                continue;
            }
            self.drop_oldest();
            self.live(number)?;
        }
        let chunk = self.free;
        let place = self.slice(chunk)?;
        let next = link(place);
        place[..LINK_BYTES].copy_from_slice(&NO_CHUNK.to_le_bytes());
        self.free = next;
        Some(chunk)
    }

    /// Allocates one more slab of free chunks.
    fn grow(&mut self) {
        let first = (self.slabs.len() * CHUNKS_PER_SLAB) as u32;
        let mut slab = Vec::new();
        // Allocated and freed without use: this needs addresses, but no memory. The compiler
        // must not remove it.
        let left = black_box(&mut Vec::<u8>::new()).try_reserve_exact(RESERVE_BYTES);
        if left.is_err() || slab.try_reserve_exact(CHUNK_BYTES * CHUNKS_PER_SLAB).is_err() {
            // The system has no further memory: the current size is the limit.
            self.max_slabs = self.slabs.len();
            return;
        }
        slab.resize(CHUNK_BYTES * CHUNKS_PER_SLAB, 0);
        self.slabs.push(slab.into_boxed_slice());
        for chunk in (first..first + CHUNKS_PER_SLAB as u32).rev() {
            let next = self.free;
            if let Some(place) = self.slice(chunk) {
                place[..LINK_BYTES].copy_from_slice(&next.to_le_bytes());
                self.free = chunk;
            }
        }
    }

    /// Frees the chain that begins at `first`.
    fn release(&mut self, first: u32) {
        let mut at = first;
        while let Some(place) = self.slice(at) {
            let next = link(place);
            if next == NO_CHUNK {
                let free = self.free;
                if let Some(place) = self.slice(at) {
                    place[..LINK_BYTES].copy_from_slice(&free.to_le_bytes());
                }
                self.free = first;
            }
            at = next;
        }
    }

    fn slice(&mut self, chunk: u32) -> Option<&mut [u8]> {
        let at = chunk as usize;
        let from = at % CHUNKS_PER_SLAB * CHUNK_BYTES;
        self.slabs.get_mut(at / CHUNKS_PER_SLAB)?.get_mut(from..from + CHUNK_BYTES)
    }

    /// Returns the next chunk, and the payload of this one.
    fn chunk_bytes(&self, chunk: u32) -> Option<(u32, &[u8])> {
        let at = chunk as usize;
        let from = at % CHUNKS_PER_SLAB * CHUNK_BYTES;
        let place = self.slabs.get(at / CHUNKS_PER_SLAB)?.get(from..from + CHUNK_BYTES)?;
        Some((link(place), &place[LINK_BYTES..]))
    }

    /// Panics if chunks are lost or are in two places.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut seen = vec![false; self.slabs.len() * CHUNKS_PER_SLAB];
        let mut walk = |mut at: u32| {
            let mut count = 0;
            while let Some((next, _)) = self.chunk_bytes(at) {
                assert!(!std::mem::replace(&mut seen[at as usize], true), "chunk {at} twice");
                count += 1;
                at = next;
            }
            count
        };
        walk(self.free);
        for entry in self.pages.iter().flatten().filter(|entry| !entry.deleted) {
            for message in [&entry.request, &entry.response] {
                assert_eq!(walk(message.first), (message.kept as usize).div_ceil(CHUNK_CAPACITY));
            }
        }
        assert!(seen.iter().all(|seen| *seen), "a chunk is lost");
        let (used, ceiling) = self.bytes();
        assert!(used <= ceiling, "{used} of {ceiling}");
    }
}

impl StoredExchange {
    pub(super) fn message(&self, side: Side) -> &StoredMessage {
        match side {
            Side::Request => &self.request,
            Side::Response => &self.response,
        }
    }

    fn message_mut(&mut self, side: Side) -> &mut StoredMessage {
        match side {
            Side::Request => &mut self.request,
            Side::Response => &mut self.response,
        }
    }
}

fn link(place: &[u8]) -> u32 {
    place.first_chunk().map_or(NO_CHUNK, |bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(store: &mut Store) -> u64 {
        store.begin(NewExchange {
            endpoint: "web".into(),
            visitor: None,
            start: Duration::ZERO,
            now: Instant::ZERO,
            replay_of: 0,
        })
    }

    /// Stores a complete exchange with bodies of these sizes.
    fn exchange(store: &mut Store, request: usize, response: usize) -> u64 {
        let number = begin(store);
        for (side, size) in [(Side::Request, request), (Side::Response, response)] {
            let byte = number as u8;
            for part in vec![byte; size].chunks(700) {
                if !store.append(number, side, part) {
                    break;
                }
            }
            store.event(number, side, MessageEvent::Head(200), Instant::ZERO);
            store.event(number, side, MessageEvent::Complete(size as u64), Instant::ZERO);
        }
        number
    }

    #[test]
    fn what_goes_in_comes_out_and_the_oldest_go_first() {
        let mut store = Store::new(MIN_STORE_BYTES);
        assert_eq!(store.bytes().0, 0, "memory is taken as it fills");
        let mut last = 0;
        for n in 0..1000 {
            last = exchange(&mut store, 10 + n % 1500, n % 3000);
            store.check();
            let entry = store.entry(last).unwrap();
            assert_eq!(store.copy(&entry.request), vec![last as u8; 10 + n % 1500]);
            assert_eq!(store.copy(&entry.response), vec![last as u8; n % 3000]);
        }
        let (oldest, next) = store.range();
        assert_eq!(next, last + 1);
        assert!(oldest > 900 && store.entry(oldest - 1).is_none());
        assert!((oldest..next).all(|n| store.entry(n).is_some()));
    }

    #[test]
    fn long_messages_are_cut_and_their_length_is_known() {
        let mut store = Store::new(MIN_STORE_BYTES);
        let n = exchange(&mut store, 5_000, 1_000_000);
        let entry = store.entry(n).unwrap();
        assert_eq!(entry.request.kept, 4096);
        assert_eq!((entry.response.kept, entry.response.len()), (4096, 1_000_000));
        store.check();
    }

    #[test]
    fn many_small_ones_stay_below_the_ceiling() {
        for ceiling in [MIN_STORE_BYTES, 100_000, 1 << 20, 3_000_000] {
            let mut store = Store::new(ceiling);
            for _ in 0..5_000 {
                exchange(&mut store, 60, 0);
            }
            store.check();
            let (oldest, next) = store.range();
            assert!(next - oldest >= ceiling as u64 / 4096, "{ceiling}: {}", next - oldest);
            let full = store.bytes().0;
            assert!(full > ceiling / 4, "{full} of {ceiling}");
            for _ in 0..5_000 {
                exchange(&mut store, 60, 3000);
            }
            store.check();
            assert!(store.bytes().0 > ceiling / 4 * 3);
        }
    }

    #[test]
    fn what_is_under_way_counts_and_may_go() {
        let mut store = Store::new(MIN_STORE_BYTES);
        let slow = begin(&mut store);
        assert!(store.append(slow, Side::Request, b"GET / HTTP/1.1\r\n"));
        let open: Vec<u64> = (0..200).map(|_| begin(&mut store)).collect();
        for &n in &open {
            store.append(n, Side::Request, &[1; 3000]);
            store.check();
        }
        assert!(!store.append(slow, Side::Request, b"\r\n"), "it was the oldest");
        store.event(slow, Side::Request, MessageEvent::Head(0), Instant::ZERO);
        assert!(store.entry(slow).is_none());
        assert!(store.append(*open.last().unwrap(), Side::Request, b"more"));
    }

    #[test]
    fn interim_responses_and_non_requests_leave_nothing() {
        let mut store = Store::new(MIN_STORE_BYTES);
        let n = begin(&mut store);
        store.append(n, Side::Request, &[1; 2000]);
        assert!(store.entry(n).is_none(), "not before its head is whole");
        store.event(n, Side::Request, MessageEvent::Head(0), Instant::ZERO);
        store.append(n, Side::Response, &[2; 2000]);
        store.event(n, Side::Response, MessageEvent::Interim, Instant::ZERO);
        assert_eq!(store.entry(n).unwrap().response.kept, 0);
        let m = begin(&mut store);
        store.append(m, Side::Request, &[1; 2000]);
        let before = store.changes();
        store.event(m, Side::Request, MessageEvent::NotARequest, Instant::ZERO);
        assert!(store.entry(m).is_none() && store.changes() == before);
        store.check();
    }

    #[test]
    fn delete_and_clear() {
        let mut store = Store::new(MIN_STORE_BYTES);
        let numbers: Vec<u64> = (0..5).map(|_| exchange(&mut store, 100, 100)).collect();
        assert!(store.delete(numbers[2]) && !store.delete(numbers[2]));
        assert_eq!(store.deleted_at(), store.changes());
        store.check();
        store.clear();
        assert_eq!(store.bytes().0, 0);
        assert!(numbers.iter().all(|n| store.entry(*n).is_none()));
        assert!(!store.append(numbers[4], Side::Response, b"late"));
        assert!(exchange(&mut store, 10, 10) > numbers[4], "numbers are not used again");
        store.check();
    }
}
