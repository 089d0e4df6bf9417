//! Capture of HTTP requests: requests of visitors and responses of upstreams, stored in bounded
//! memory for the local API, the page and the console.
//!
//! ```text
//! proxy::conn --bytes as they pass--> Tap --HttpObserver--> Store
//!                                         list, get, since <--
//! ```
//!
//! A program has one [`Inspector`], a captured connection has one [`Tap`]. [`observer`] follows
//! the bytes, `store` stores them, [`message`] parses stored bytes. JSON, listeners and
//! upstreams do not belong here: [`crate::replay`] sends a request again.
//!
//! Locks: a tap's own, then the store's. The caller of a tap may hold any other lock. No other
//! code is called under these two. Both are held for a copy at most.

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
use crate::sys::sync::{Mutex, MutexGuard};
use store::Store;

/// Entries that are visited before the lock is released for a moment.
const ENTRIES_PER_LOCK: u64 = 64;

/// Id of a captured exchange: 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeId(u64);

impl ExchangeId {
    /// Parses the text form of an id.
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

/// Summary of an exchange for lists.
#[derive(Clone, Debug)]
pub struct ExchangeSummary {
    /// Its id.
    pub id: ExchangeId,
    /// Name of its endpoint.
    pub endpoint: Arc<str>,
    /// Address of the visitor.
    pub visitor: Option<IpAddr>,
    /// Time of its first byte, since 1970.
    pub start: Duration,
    /// Time from then to the last received byte of the response; zero before that. After an
    /// upgrade, to the end of the connection, or to now.
    pub took: Duration,
    /// The method. Lists truncate very long targets.
    pub method: String,
    /// The target with its query.
    pub uri: String,
    /// The response's status; 0 before it is known.
    pub status: u16,
    /// State of the request.
    pub request: MessageState,
    /// State of the response.
    pub response: MessageState,
    /// Number of bytes of the request that passed, head included, as far as it is known.
    pub request_len: u64,
    /// Number of bytes of the response.
    pub response_len: u64,
    /// Whether only the beginning of the request was stored.
    pub request_cut: bool,
    /// Whether only the beginning of the response was stored.
    pub response_cut: bool,
    /// The connection after an upgrade.
    pub tunnel: Option<TunnelSummary>,
    /// Original exchange of a replay.
    pub replay_of: Option<ExchangeId>,
}

/// Connection that carries another protocol after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelSummary {
    /// Bytes from the visitor.
    pub received: u64,
    /// Bytes to the visitor.
    pub sent: u64,
    /// Whether it is still open.
    pub is_open: bool,
}

/// An exchange with its bytes as they passed: heads, bodies and chunks.
#[derive(Clone, Debug)]
pub struct CapturedExchange {
    /// Its summary, with the whole target.
    pub summary: ExchangeSummary,
    /// The request.
    pub request: Vec<u8>,
    /// The response, if its head has arrived.
    pub response: Option<Vec<u8>>,
}

/// Filter for lists.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListFilter<'a> {
    /// Maximum number of exchanges; `None`: all.
    pub limit: Option<usize>,
    /// Exchanges of this endpoint only.
    pub tunnel_name: Option<&'a str>,
}

/// Changes since an earlier call.
#[derive(Clone, Debug)]
pub struct Since {
    /// Argument for the next call.
    pub seq: u32,
    /// Whether exchanges were deleted, so that a list of the caller is out of date. Removal by
    /// age does not count.
    pub deleted: bool,
    /// New and changed exchanges, the newest first.
    pub entries: Vec<ExchangeSummary>,
}

/// Store of all captured exchanges.
pub struct Inspector {
    store: Mutex<Store>,
    /// The upper half of all ids of this run. It differs between runs.
    run: u32,
}

impl Inspector {
    /// Returns the inspector of an agent's configuration, if there is one. It uses no memory
    /// before the first capture. `room`: upper limit if the configuration has none.
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
                        "inspect_db_size is too small",
                        bytes = bytes,
                        least = store::MIN_STORE_BYTES
                    );
                }
                bytes
            }
        };
        Self::with_ceiling(bytes)
    }

    /// Returns an inspector with at most `bytes` of memory; `None` if that is too little.
    pub fn with_ceiling(bytes: usize) -> Option<Arc<Self>> {
        (bytes >= store::MIN_STORE_BYTES).then(|| {
            Arc::new(Inspector {
                store: Mutex::new(Store::new(bytes)),
                run: sys::random_seed() as u32,
            })
        })
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock()
    }

    /// Returns captured exchanges, the newest first.
    pub fn list(&self, filter: &ListFilter<'_>) -> Vec<ExchangeSummary> {
        let mut found = Vec::new();
        self.filtered(filter, &mut |store, n, entry| found.push(self.summary(store, n, entry)));
        found
    }

    /// Returns their ids only, which use little memory even for thousands.
    pub fn ids(&self, filter: &ListFilter<'_>) -> Vec<ExchangeId> {
        let mut found = Vec::new();
        self.filtered(filter, &mut |_, n, _| found.push(self.id(n)));
        found
    }

    /// Returns the changes after `seq` of an earlier call (0 at first), with at most `limit`
    /// exchanges.
    pub fn since(&self, seq: u32, limit: usize) -> Since {
        let (now, deleted) = {
            let mut store = self.lock();
            store.check_tunnels();
            (store.changes(), is_later(store.deleted_at(), seq))
        };
        let mut entries = Vec::new();
        if now != seq {
            self.walk(limit, &|entry| is_later(entry.changed, seq), &mut |store, n, entry| {
                entries.push(self.summary(store, n, entry));
            });
        }
        Since { seq: now, deleted, entries }
    }

    /// Returns one exchange with all of its stored bytes.
    pub fn get(&self, id: &str) -> Option<CapturedExchange> {
        let id = ExchangeId::parse(id)?;
        let mut entry = {
            let store = self.lock();
            let number = self.number(&store, id)?;
            let found = store.entry(number)?;
            let response = (found.status != 0).then(|| store.copy(&found.response));
            let request = store.copy(&found.request);
            CapturedExchange { summary: self.summary(&store, number, found), request, response }
        };
        if let Some((method, uri)) = message::request_words(&entry.request) {
            (entry.summary.method, entry.summary.uri) = (method, uri);
        }
        Some(entry)
    }

    /// Deletes all exchanges.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Deletes one exchange. Returns whether it existed.
    pub fn delete(&self, id: &str) -> bool {
        let Some(id) = ExchangeId::parse(id) else { return false };
        let mut store = self.lock();
        let number = self.number(&store, id);
        number.is_some_and(|number| store.delete(number))
    }

    /// Returns the used memory and its limit in bytes.
    pub fn bytes(&self) -> (usize, usize) {
        self.lock().bytes()
    }

    /// Returns the source of taps for an endpoint. `prefix`: the edge sends a PROXY header
    /// first. Requests are counted in `metrics`.
    pub fn source(
        self: &Arc<Self>,
        endpoint: &str,
        prefix: bool,
        metrics: &Arc<metrics::EndpointMetrics>,
    ) -> TapSource {
        let (inspector, metrics) = (Arc::clone(self), Arc::clone(metrics));
        TapSource { inspector, endpoint: endpoint.into(), prefix, metrics }
    }

    /// Returns the tap for a replay of `original` to the upstream of an endpoint.
    pub(crate) fn replay_tap(
        self: &Arc<Self>,
        endpoint: &str,
        original: ExchangeId,
        metrics: &Arc<metrics::EndpointMetrics>,
    ) -> Tap {
        let replay_of = self.number(&self.lock(), original).unwrap_or(0);
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

    /// Passes matching entries to `found`, at most the wanted number, the newest first.
    fn walk(
        &self,
        most: usize,
        wanted: &dyn Fn(&store::StoredExchange) -> bool,
        found: &mut dyn FnMut(&Store, u64, &store::StoredExchange),
    ) {
        let mut left = most;
        let mut below = u64::MAX;
        loop {
            let store = self.lock();
            let (oldest, next) = store.range();
            below = below.min(next);
            let stop = below.saturating_sub(ENTRIES_PER_LOCK).max(oldest);
            while below > stop && left > 0 {
                below -= 1;
                if let Some(entry) = store.entry(below)
                    && wanted(entry)
                {
                    found(&store, below, entry);
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
            took: entry.took(sys::clock),
            method,
            uri,
            status: entry.status,
            request: request.state,
            response: response.state,
            request_len: request.len(),
            response_len: response.len(),
            request_cut: cut(request),
            response_cut: cut(response),
            tunnel: entry.tunnel.as_ref().map(|tunnel| {
                let [received, sent] = tunnel.bytes.sums();
                TunnelSummary { received, sent, is_open: tunnel.is_open }
            }),
            replay_of: (entry.replay_of > 0).then(|| self.id(entry.replay_of)),
        }
    }

    fn id(&self, number: u64) -> ExchangeId {
        ExchangeId(u64::from(self.run) << 32 | number & 0xffff_ffff)
    }

    /// Returns the number for an id, among the last 2^32.
    fn number(&self, store: &Store, id: ExchangeId) -> Option<u64> {
        let (_, next) = store.range();
        let back = (next as u32).wrapping_sub(id.0 as u32);
        (id.0 >> 32 == u64::from(self.run)).then(|| next.checked_sub(u64::from(back)))?
    }
}

/// Returns whether the change `a` is later than `b`. The numbers wrap around.
fn is_later(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < u32::MAX / 2
}

/// Returns the memory for captured requests on a machine with `memory` bytes. The system
/// reserves a part that it does not count, so 1 GiB appears as a little less.
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
