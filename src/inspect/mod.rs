//! Capture of HTTP requests: what visitors asked and upstreams answered, kept in a
//! bounded amount of memory for the local API, the page and the console.
//!
//! ```text
//! proxy::conn --bytes as they pass--> Tap --HttpObserver--> Store
//!                                   list, get, since, wait <--
//! ```
//!
//! [`Inspector`] exists once in a program, [`Tap`] once for a captured connection.
//! [`observer`] follows the bytes, `store` keeps them, [`message`] parses what was kept.
//! No JSON, no listener, and no upstream: [`crate::replay`] sends a request again.
//!
//! Locks: a tap's own, then the store's. A caller of a tap may hold any other lock, and
//! nothing is called under these two. Both are held for a copy at most.

pub mod message;
mod store;
mod tap;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

pub use store::{MIN_STORE_BYTES, MessageState};
pub use tap::{Tap, TapSource};

use crate::config::{self, ConsoleUi, InspectSize, WebAddr};
use crate::event;
use crate::metrics;
use crate::sys;
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use crate::time::Deadline;
use store::Store;

/// Entries that are looked at without letting go of the lock.
const ENTRIES_PER_LOCK: u64 = 64;

/// The name of a captured exchange: 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeId(u64);

impl ExchangeId {
    /// Reads one as it is shown.
    pub fn parse(text: &str) -> Option<ExchangeId> {
        let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| u64::from_str_radix(text, 16).ok().map(ExchangeId))?
    }
}

impl fmt::Display for ExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a list shows of an exchange.
#[derive(Clone, Debug)]
pub struct ExchangeSummary {
    /// Its name.
    pub id: ExchangeId,
    /// The name of its endpoint.
    pub endpoint: Arc<str>,
    /// Where the visitor was.
    pub visitor: Option<IpAddr>,
    /// When its first byte came: the time since 1970.
    pub start: Duration,
    /// From then until the last that came of the response; zero before that.
    pub took: Duration,
    /// The method. In a list very long targets are cut.
    pub method: String,
    /// The target, with its query.
    pub uri: String,
    /// The response's status; 0 while there is none.
    pub status: u16,
    /// How far the request is known.
    pub request: MessageState,
    /// How far the response is known.
    pub response: MessageState,
    /// Bytes of the request that passed, head included, as far as they are known.
    pub request_len: u64,
    /// Bytes of the response.
    pub response_len: u64,
    /// Only the beginning of the request was kept.
    pub request_cut: bool,
    /// Only the beginning of the response was kept.
    pub response_cut: bool,
    /// The exchange that was replayed.
    pub replay_of: Option<ExchangeId>,
    /// The change, as [`Inspector::since`] counts them, that made it what it is.
    pub changed: u32,
}

impl ExchangeSummary {
    /// Whether nothing more comes.
    pub fn is_over(&self) -> bool {
        matches!(self.response, MessageState::Complete | MessageState::Incomplete)
    }
}

/// An exchange with its bytes: as they passed, heads and bodies, chunks and all.
#[derive(Clone, Debug)]
pub struct CapturedExchange {
    /// What the list shows, with the whole target.
    pub summary: ExchangeSummary,
    /// The request.
    pub request: Vec<u8>,
    /// The response, once its head is there.
    pub response: Option<Vec<u8>>,
}

/// What a list is wanted of.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListFilter<'a> {
    /// At most so many; all without.
    pub limit: Option<usize>,
    /// Of this endpoint alone.
    pub tunnel_name: Option<&'a str>,
}

/// What changed since an earlier call.
#[derive(Clone, Debug)]
pub struct Since {
    /// What to ask with next time.
    pub seq: u32,
    /// Exchanges were deleted, so a list of the caller is out of date. Removal by age
    /// does not count.
    pub deleted: bool,
    /// New and changed exchanges, the newest first.
    pub entries: Vec<ExchangeSummary>,
}

/// Everything that was captured.
pub struct Inspector {
    state: Mutex<InspectorState>,
    /// Notified of each change while a thread waits.
    changed: Condvar,
    /// The upper half of every name: two runs have different ones.
    run: u32,
}

struct InspectorState {
    store: Store,
    /// Threads that wait for a change.
    waiting: usize,
}

impl Inspector {
    /// The inspector that an agent is configured to have, if any. Takes no memory
    /// before something is captured. `room`: the most that it may choose by itself.
    pub fn new(config: &config::Agent, room: usize) -> Option<Arc<Self>> {
        let unseen = config.web_addr == WebAddr::Off && config.console_ui == ConsoleUi::Never;
        if unseen || config.inspect_db_size == InspectSize::Off {
            return None;
        }
        let bytes = match config.inspect_db_size {
            InspectSize::Off => 0,
            InspectSize::Usual => usual_size(sys::memory::total()).min(room),
            InspectSize::Bytes(bytes) => {
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX / 2);
                if bytes < store::MIN_STORE_BYTES {
                    event!(
                        warn,
                        obj = "web",
                        "inspect_db_size is too small to capture requests",
                        bytes = bytes,
                        least = store::MIN_STORE_BYTES
                    );
                }
                bytes
            }
        };
        Self::with_ceiling(bytes)
    }

    /// An inspector that takes at most `bytes`; `None` if that is too little.
    pub fn with_ceiling(bytes: usize) -> Option<Arc<Self>> {
        (bytes >= store::MIN_STORE_BYTES).then(|| {
            Arc::new(Inspector {
                state: Mutex::new(InspectorState { store: Store::new(bytes), waiting: 0 }),
                changed: Condvar::new(),
                run: sys::random_seed() as u32,
            })
        })
    }

    fn lock(&self) -> MutexGuard<'_, InspectorState> {
        self.state.lock()
    }

    /// Captured exchanges, the newest first.
    pub fn list(&self, filter: &ListFilter<'_>) -> Vec<ExchangeSummary> {
        let mut found = Vec::new();
        self.filtered(filter, &mut |store, n, entry| found.push(self.summary(store, n, entry)));
        found
    }

    /// Their names alone: of thousands these take little.
    pub fn ids(&self, filter: &ListFilter<'_>) -> Vec<ExchangeId> {
        let mut found = Vec::new();
        self.filtered(filter, &mut |_, n, _| found.push(self.id(n)));
        found
    }

    /// What changed after `seq`, which an earlier call gave (0 for the first one), at
    /// most `limit` exchanges of it.
    pub fn since(&self, seq: u32, limit: usize) -> Since {
        let (now, deleted) = {
            let state = self.lock();
            (state.store.changes(), is_later(state.store.deleted_at(), seq))
        };
        let mut entries = Vec::new();
        if now != seq {
            self.walk(limit, &|entry| is_later(entry.changed, seq), &mut |store, n, entry| {
                entries.push(self.summary(store, n, entry));
            });
        }
        Since { seq: now, deleted, entries }
    }

    /// Waits until something changed after `seq`, at most until `deadline`. What
    /// [`Self::since`] would say now.
    pub fn wait(&self, seq: u32, deadline: Deadline) -> u32 {
        let mut state = self.lock();
        while state.store.changes() == seq {
            let left = deadline.left(sys::clock()).unwrap_or(Duration::from_secs(3600));
            if left.is_zero() {
                break;
            }
            state.waiting += 1;
            state = self.changed.wait_timeout(state, left).0;
            state.waiting -= 1;
        }
        state.store.changes()
    }

    /// Wakes up the waiting threads, for the end of the program.
    pub fn wake(&self) {
        self.changed.notify_all();
    }

    /// One exchange with all that was kept of it.
    pub fn get(&self, id: &str) -> Option<CapturedExchange> {
        let id = ExchangeId::parse(id)?;
        let mut entry = {
            let state = self.lock();
            let number = self.number(&state.store, id)?;
            let found = state.store.entry(number)?;
            let response = (found.status != 0).then(|| state.store.copy(&found.response));
            let request = state.store.copy(&found.request);
            CapturedExchange {
                summary: self.summary(&state.store, number, found),
                request,
                response,
            }
        };
        if let Some((method, uri)) = message::request_words(&entry.request) {
            (entry.summary.method, entry.summary.uri) = (method, uri);
        }
        Some(entry)
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.lock().store.clear();
        self.changed.notify_all();
    }

    /// Forgets one exchange. Whether it was there.
    pub fn delete(&self, id: &str) -> bool {
        let Some(id) = ExchangeId::parse(id) else { return false };
        let mut state = self.lock();
        let number = self.number(&state.store, id);
        let there = number.is_some_and(|number| state.store.delete(number));
        drop(state);
        self.changed.notify_all();
        there
    }

    /// Bytes of memory that are taken, and the most that will be.
    pub fn bytes(&self) -> (usize, usize) {
        self.lock().store.bytes()
    }

    /// The watch for the visitors of an endpoint. `prefix`: the edge puts a PROXY
    /// header in front. What they ask counts into `metrics`.
    pub fn source(
        self: &Arc<Self>,
        endpoint: &str,
        prefix: bool,
        metrics: &Arc<metrics::EndpointMetrics>,
    ) -> TapSource {
        let (inspector, metrics) = (Arc::clone(self), Arc::clone(metrics));
        TapSource { inspector, endpoint: endpoint.into(), prefix, metrics }
    }

    /// The tap for a replay of `original` to the upstream of an endpoint.
    pub(crate) fn replay_tap(
        self: &Arc<Self>,
        endpoint: &str,
        original: ExchangeId,
        metrics: &Arc<metrics::EndpointMetrics>,
    ) -> Tap {
        let replay_of = self.number(&self.lock().store, original).unwrap_or(0);
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.source(endpoint, false, metrics).tap_of(Some(here), false, replay_of)
    }

    fn filtered(
        &self,
        filter: &ListFilter<'_>,
        found: &mut dyn FnMut(&Store, u64, &store::StoredExchange),
    ) {
        let name = filter.tunnel_name;
        let wanted =
            |entry: &store::StoredExchange| name.is_none_or(|name| *entry.endpoint == *name);
        self.walk(filter.limit.unwrap_or(usize::MAX), &wanted, found);
    }

    /// Shows the entries that are wanted to `found`, at most so many, the newest first.
    fn walk(
        &self,
        most: usize,
        wanted: &dyn Fn(&store::StoredExchange) -> bool,
        found: &mut dyn FnMut(&Store, u64, &store::StoredExchange),
    ) {
        let mut left = most;
        let mut below = u64::MAX;
        loop {
            let state = self.lock();
            let (oldest, next) = state.store.range();
            below = below.min(next);
            let stop = below.saturating_sub(ENTRIES_PER_LOCK).max(oldest);
            while below > stop && left > 0 {
                below -= 1;
                if let Some(entry) = state.store.entry(below)
                    && wanted(entry)
                {
                    found(&state.store, below, entry);
                    left -= 1;
                }
            }
            if below <= oldest || left == 0 {
                return;
            }
        }
    }

    fn summary(
        &self,
        store: &Store,
        number: u64,
        entry: &store::StoredExchange,
    ) -> ExchangeSummary {
        let (method, uri) =
            message::request_words(store.beginning(&entry.request)).unwrap_or_default();
        let (request, response) = (&entry.request, &entry.response);
        let cut = |message: &store::StoredMessage| message.len() > u64::from(message.kept);
        ExchangeSummary {
            id: self.id(number),
            endpoint: Arc::clone(&entry.endpoint),
            visitor: entry.visitor,
            start: entry.start,
            took: entry.took,
            method,
            uri,
            status: entry.status,
            request: request.state,
            response: response.state,
            request_len: request.len(),
            response_len: response.len(),
            request_cut: cut(request),
            response_cut: cut(response),
            replay_of: (entry.replay_of > 0).then(|| self.id(entry.replay_of)),
            changed: entry.changed,
        }
    }

    fn id(&self, number: u64) -> ExchangeId {
        ExchangeId(u64::from(self.run) << 32 | number & 0xffff_ffff)
    }

    /// The number that an id means: of the last 2^32.
    fn number(&self, store: &Store, id: ExchangeId) -> Option<u64> {
        let (_, next) = store.range();
        let back = (next as u32).wrapping_sub(id.0 as u32);
        (id.0 >> 32 == u64::from(self.run)).then(|| next.checked_sub(u64::from(back)))?
    }
}

/// Whether the change `a` came after `b`; their numbers may have begun anew.
fn is_later(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < u32::MAX / 2
}

/// Room for captured requests on a machine with `memory` bytes, part of which the
/// system keeps for itself and does not count: 1 GiB shows as a little less.
fn usual_size(memory: u64) -> usize {
    match memory >> 20 {
        0..48 => 0,
        48..128 => 1 << 20,
        128..900 => (memory / 64) as usize,
        _ => 50 << 20,
    }
}

pub mod observer;
#[cfg(test)]
mod tests;
