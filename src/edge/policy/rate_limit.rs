//! Counters of `rate-limit` actions: requests of the last window for each key. All actions of
//! the edge share one table with a bounded number of keys. What a key is, and what a visitor
//! over the limit gets, is not decided here.
//!
//! Exact in one direction: no window has more admitted requests than the capacity. A request
//! may wait a tenth of the window longer than necessary, because requests of the same tenth
//! are counted together, with the time of the last one.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use crate::sys::sync::Mutex;
use crate::time::Instant;

/// Keys of all actions. Another key removes the one that was used longest ago.
pub const MAX_KEYS: usize = 100_000;

/// Groups of requests that a key counts apart.
const MAX_GROUPS: usize = 10;

/// Unit of the times in a table: an edge can run for 13 years.
const TICK: Duration = Duration::from_millis(100);

/// Slots that are allocated at once, so that the table never copies all of them.
const SLOTS_AT_ONCE: usize = 1024;

/// Place in a list that does not exist.
const NONE: u32 = u32::MAX;

/// How many requests are admitted, and in which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateWindow {
    capacity: u32,
    ticks: u32,
}

/// Decision about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateVerdict {
    /// The request was counted.
    Admitted,
    /// The request was not counted.
    Limited {
        /// Seconds after which the next one can be admitted.
        retry_after: u32,
    },
}

/// Counters of all actions.
#[derive(Debug)]
pub struct RateTable {
    /// A keyed hash identifies a key. Visitors cannot find two keys with the same, and the keys
    /// of a full table are different with a probability of 1 - 3e-10.
    hasher: RandomState,
    state: Mutex<TableState>,
}

/// The counters of one action. They are removed with it.
#[derive(Debug)]
pub struct RateLimiter {
    table: Arc<RateTable>,
    list: u32,
    window: RateWindow,
}

type KeyDigest = u64;

#[derive(Debug, Default)]
struct TableState {
    by_key: HashMap<KeyDigest, u32, DigestHashers>,
    /// Each has room for [`SLOTS_AT_ONCE`].
    slots: Vec<Vec<Slot>>,
    lists: Vec<KeyList>,
    free_slots: Vec<u32>,
}

/// Makes hashers of [`KeyDigest`].
type DigestHashers = BuildHasherDefault<DigestHasher>;

/// Hash of a digest: the digest, which is a keyed hash already.
#[derive(Debug, Default)]
struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, digest: u64) {
        self.0 = digest;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Keys of one action by the time of their last request.
#[derive(Clone, Copy, Debug)]
struct KeyList {
    oldest: u32,
    newest: u32,
    len: u32,
    in_use: bool,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    key: KeyDigest,
    groups: [RequestGroup; MAX_GROUPS],
    len: u8,
    list: u32,
    older: u32,
    newer: u32,
}

/// Requests of the same tenth of a window.
#[derive(Clone, Copy, Debug, Default)]
struct RequestGroup {
    count: u32,
    /// First tick after the last one.
    end: u32,
}

impl RateWindow {
    /// Returns a window of at least a second with room for `capacity` requests.
    pub fn new(capacity: u32, length: Duration) -> Self {
        let ticks = length.as_millis() / TICK.as_millis();
        RateWindow {
            capacity,
            ticks: u32::try_from(ticks).unwrap_or(u32::MAX).max(MAX_GROUPS as u32),
        }
    }
}

impl RateTable {
    /// Returns an empty table.
    pub fn new() -> Arc<Self> {
        Arc::new(RateTable { hasher: RandomState::new(), state: Mutex::new(TableState::default()) })
    }

    /// Returns the number of keys and the bytes that they use.
    pub fn size(&self) -> (usize, usize) {
        let state = self.state.lock();
        // A map of the standard library has a byte beside each entry, and is at most seven
        // eighths full.
        let entry = size_of::<(KeyDigest, u32)>() + 1;
        let map = (state.by_key.capacity() * 8 / 7).next_power_of_two() * entry;
        let slots: usize = state.slots.iter().map(|part| part.capacity() * size_of::<Slot>()).sum();
        let lists = state.lists.capacity() * size_of::<KeyList>();
        let free = state.free_slots.capacity() * size_of::<u32>();
        (state.by_key.len(), map + slots + lists + free)
    }

    fn digest(&self, list: u32, parts: &[impl Hash]) -> KeyDigest {
        self.hasher.hash_one((list, parts))
    }
}

impl RateLimiter {
    /// Returns an action without counts.
    pub fn new(table: &Arc<RateTable>, window: RateWindow) -> Self {
        let list = table.state.lock().add_list();
        RateLimiter { table: Arc::clone(table), list, window }
    }

    /// Decides about a request whose key has these parts, and counts it if it is admitted.
    pub fn check(&self, parts: &[impl Hash], now: Instant) -> RateVerdict {
        let key = self.table.digest(self.list, parts);
        let now = now.as_micros() / u64::try_from(TICK.as_micros()).unwrap_or(1);
        let now = u32::try_from(now).unwrap_or(u32::MAX);
        self.table.state.lock().check(self.list, key, self.window, now)
    }
}

impl Drop for RateLimiter {
    fn drop(&mut self) {
        self.table.state.lock().remove_list(self.list);
    }
}

impl TableState {
    fn add_list(&mut self) -> u32 {
        let empty = KeyList { oldest: NONE, newest: NONE, len: 0, in_use: true };
        let at = self.lists.iter().position(|list| !list.in_use).unwrap_or(self.lists.len());
        match self.lists.get_mut(at) {
            Some(list) => *list = empty,
            None => self.lists.push(empty),
        }
        // Each list belongs to an endpoint: far below 2^32.
        u32::try_from(at).unwrap_or(NONE)
    }

    fn remove_list(&mut self, list: u32) {
        while self.lists[list as usize].len > 0 {
            self.remove(self.lists[list as usize].oldest);
        }
        self.lists[list as usize].in_use = false;
        if self.by_key.is_empty() {
            // The memory of a flood goes back.
            self.by_key = HashMap::default();
            self.slots = Vec::new();
            self.free_slots = Vec::new();
        }
    }

    fn check(&mut self, list: u32, key: KeyDigest, window: RateWindow, now: u32) -> RateVerdict {
        let at = match self.by_key.get(&key) {
            Some(&at) => {
                self.unlink(at);
                at
            }
            None => self.insert(list, key),
        };
        self.append(at);
        self.slot(at).check(window, now)
    }

    /// Takes a slot for a key. The slot is in no list yet.
    fn insert(&mut self, list: u32, key: KeyDigest) -> u32 {
        if self.by_key.len() >= MAX_KEYS {
            self.remove(self.lists[self.crowded(list) as usize].oldest);
        }
        let slot = Slot {
            key,
            groups: [RequestGroup::default(); MAX_GROUPS],
            len: 0,
            list,
            older: NONE,
            newer: NONE,
        };
        let at = match self.free_slots.pop() {
            Some(at) => {
                *self.slot(at) = slot;
                at
            }
            None => self.push(slot),
        };
        self.by_key.insert(key, at);
        at
    }

    fn push(&mut self, slot: Slot) -> u32 {
        if self.slots.last().is_none_or(|part| part.len() == SLOTS_AT_ONCE) {
            self.slots.push(Vec::with_capacity(SLOTS_AT_ONCE));
        }
        let before = (self.slots.len() - 1) * SLOTS_AT_ONCE;
        let Some(part) = self.slots.last_mut() else { return NONE };
        part.push(slot);
        // At most [`MAX_KEYS`].
        u32::try_from(before + part.len() - 1).unwrap_or(NONE)
    }

    /// Returns the list that gives up a key: the own one, unless another one has more. So a
    /// flood at one endpoint does not remove the counts of another.
    fn crowded(&self, own: u32) -> u32 {
        let mut most = own;
        for (at, list) in (0..).zip(&self.lists) {
            if list.len > self.lists[most as usize].len {
                most = at;
            }
        }
        most
    }

    fn slot(&mut self, at: u32) -> &mut Slot {
        &mut self.slots[at as usize / SLOTS_AT_ONCE][at as usize % SLOTS_AT_ONCE]
    }

    fn remove(&mut self, at: u32) {
        self.unlink(at);
        let key = self.slot(at).key;
        self.by_key.remove(&key);
        self.free_slots.push(at);
    }

    fn unlink(&mut self, at: u32) {
        let Slot { list, older, newer, .. } = *self.slot(at);
        match older {
            NONE => self.lists[list as usize].oldest = newer,
            older => self.slot(older).newer = newer,
        }
        match newer {
            NONE => self.lists[list as usize].newest = older,
            newer => self.slot(newer).older = older,
        }
        self.lists[list as usize].len -= 1;
    }

    /// Adds a slot to its list as the newest.
    fn append(&mut self, at: u32) {
        let list = self.slot(at).list;
        let last = std::mem::replace(&mut self.lists[list as usize].newest, at);
        match last {
            NONE => self.lists[list as usize].oldest = at,
            last => self.slot(last).newer = at,
        }
        let slot = self.slot(at);
        (slot.older, slot.newer) = (last, NONE);
        self.lists[list as usize].len += 1;
    }
}

impl Slot {
    fn check(&mut self, window: RateWindow, now: u32) -> RateVerdict {
        let expired = |group: &&RequestGroup| group.end.saturating_add(window.ticks) <= now;
        let gone = self.groups().iter().take_while(expired).count();
        self.groups.copy_within(gone..usize::from(self.len), 0);
        // Both are at most [`MAX_GROUPS`].
        self.len -= u8::try_from(gone).unwrap_or(0);
        let used: u64 = self.groups().iter().map(|group| u64::from(group.count)).sum();
        if used < u64::from(window.capacity) {
            self.count(window, now);
            return RateVerdict::Admitted;
        }
        let oldest = self.groups().first().map_or(now, |group| group.end);
        let ticks = oldest.saturating_add(window.ticks).saturating_sub(now);
        let per_second = u32::try_from(1000 / TICK.as_millis()).unwrap_or(1);
        RateVerdict::Limited { retry_after: ticks.div_ceil(per_second).max(1) }
    }

    fn groups(&self) -> &[RequestGroup] {
        &self.groups[..usize::from(self.len)]
    }

    fn count(&mut self, window: RateWindow, now: u32) {
        let tenth = window.ticks / MAX_GROUPS as u32;
        let end = now.saturating_add(1);
        let len = usize::from(self.len);
        if let Some(last) = self.groups[..len].last_mut()
            && (last.end - 1) / tenth >= now / tenth
        {
            last.count += 1;
            last.end = last.end.max(end);
            return;
        }
        if len == MAX_GROUPS {
            // The two oldest become one, which stays as long as the later one.
            self.groups[1].count += self.groups[0].count;
            self.groups.copy_within(1.., 0);
            self.len -= 1;
        }
        self.groups[usize::from(self.len)] = RequestGroup { count: 1, end };
        self.len += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::mutator::Mutator;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    fn limiter(table: &Arc<RateTable>, capacity: u32) -> RateLimiter {
        RateLimiter::new(table, RateWindow::new(capacity, Duration::from_secs(60)))
    }

    fn key(text: impl ToString) -> [String; 1] {
        [text.to_string()]
    }

    fn admits(limiter: &RateLimiter, key: &[String], millis: u64) -> bool {
        limiter.check(key, at(millis)) == RateVerdict::Admitted
    }

    #[test]
    fn a_burst_is_admitted_again_after_the_window() {
        let limiter = limiter(&RateTable::new(), 3);
        let a = key("a");
        assert!((0..3).all(|n| admits(&limiter, &a, 5000 + n)));
        let verdict = limiter.check(&a, at(5500));
        assert_eq!(verdict, RateVerdict::Limited { retry_after: 60 });
        assert!(admits(&limiter, &key("b"), 5500), "another key has counts of its own");
        assert_eq!(limiter.check(&a, at(64_900)), RateVerdict::Limited { retry_after: 1 });
        assert!((0..3).all(|_| admits(&limiter, &a, 65_500)));
        assert!(!admits(&limiter, &a, 65_500));
    }

    #[test]
    fn the_parts_of_a_key_are_not_joined() {
        let limiter = limiter(&RateTable::new(), 1);
        let parts = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        assert!(admits(&limiter, &parts(&["a", "bc"]), 0));
        assert!(admits(&limiter, &parts(&["ab", "c"]), 0));
        assert!(!admits(&limiter, &parts(&["a", "bc"]), 0));
    }

    /// Requests at random times: no window has more than the capacity, and the time that a
    /// refusal states is right.
    #[test]
    fn no_window_admits_more_than_the_capacity() {
        let mut random = Mutator(0x9e37_79b9_7f4a_7c15);
        for capacity in [1, 2, 7, 40] {
            let limiter = limiter(&RateTable::new(), capacity);
            let (mut now, mut admitted) = (1_000_000_u64, Vec::<u64>::new());
            let pauses = [1, 50, 900, 4000, 30_000];
            for _ in 0..20_000 {
                let pause = pauses[random.below(pauses.len())];
                now += random.below(pause) as u64;
                match limiter.check(&key("a"), at(now)) {
                    RateVerdict::Admitted => {
                        admitted.push(now);
                        let recent = admitted.iter().rev().take_while(|t| now - **t < 60_000);
                        assert!(recent.count() <= capacity as usize, "at {now}");
                    }
                    RateVerdict::Limited { retry_after } => {
                        assert!((1..=67).contains(&retry_after));
                        if random.below(20) == 0 {
                            now += u64::from(retry_after) * 1000;
                            assert!(admits(&limiter, &key("a"), now), "at {now}");
                            admitted.push(now);
                        }
                    }
                }
            }
            assert!(admitted.len() > 1000 || capacity < 7, "{}", admitted.len());
        }
    }

    #[test]
    fn a_hundred_thousand_keys_fit_in_sixteen_megabytes() {
        let table = RateTable::new();
        let limiter = limiter(&table, 1);
        for n in 0..MAX_KEYS {
            assert!(admits(&limiter, &key(n), 1000));
        }
        let (keys, bytes) = table.size();
        assert_eq!(keys, MAX_KEYS);
        assert!(bytes > MAX_KEYS * size_of::<Slot>() && bytes <= 16_000_000, "{bytes}");
        // The first key is used again, so the second one is the oldest.
        assert!(!admits(&limiter, &key(0), 1500));
        assert!(admits(&limiter, &key("another"), 2000));
        assert_eq!(table.size().0, MAX_KEYS);
        assert!(!admits(&limiter, &key(0), 2000) && !admits(&limiter, &key(2), 2000));
        assert!(admits(&limiter, &key(1), 2000), "the counts of the oldest key are gone");
        assert!(table.size().1 <= 16_000_000);
    }

    #[test]
    fn a_flood_at_one_endpoint_keeps_the_counts_of_another() {
        let table = RateTable::new();
        let (quiet, flooded) = (limiter(&table, 1), limiter(&table, 1));
        assert!(admits(&quiet, &key("a"), 1000));
        for n in 0..MAX_KEYS + 10 {
            assert!(admits(&flooded, &key(n), 2000));
        }
        assert!(!admits(&quiet, &key("a"), 3000));
        drop(flooded);
        assert_eq!(table.size().0, 1);
        drop(quiet);
        assert!(table.size().1 < 10_000, "the memory is freed");
        assert!(admits(&limiter(&table, 1), &key("a"), 3000), "a new action has no counts");
    }
}
