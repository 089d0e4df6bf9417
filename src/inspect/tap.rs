//! The tap on one connection: shows its bytes to a [`Watch`] and writes down what
//! that makes of them. No parsing and no memory of its own beyond both.

use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::observer::{Note, Notes, Side, Watch};
use super::store::Beginning;
use super::{Inspector, Kept};
use crate::metrics;
use crate::proxy::ProxyTarget;
use crate::sys;
use crate::sys::sync::{Mutex, MutexGuard};
use crate::time::Instant;

/// What the visitors of one endpoint are watched with.
#[derive(Clone)]
pub struct Source {
    pub(super) inspector: Arc<Inspector>,
    pub(super) endpoint: Arc<str>,
    pub(super) prefix: bool,
    pub(super) metrics: Arc<metrics::EndpointMetrics>,
}

impl Source {
    /// A tap for a new connection of the visitor at `addr`.
    pub fn tap(&self, addr: &str) -> Tap {
        let visitor = addr.parse().map(|addr: SocketAddr| addr.ip()).ok();
        self.tap_of(visitor, self.prefix, 0)
    }

    pub(crate) fn tap_of(&self, visitor: Option<IpAddr>, prefix: bool, origin: u64) -> Tap {
        Tap(Box::new(Inner {
            inspector: Arc::clone(&self.inspector),
            endpoint: Arc::clone(&self.endpoint),
            visitor,
            origin,
            metrics: Arc::clone(&self.metrics),
            watch: Mutex::new(Watch::new(prefix)),
        }))
    }

    /// The endpoint's upstream is there: replays may go to it.
    pub fn serves(&self, target: &Arc<ProxyTarget>) {
        self.inspector.serves(target);
    }
}

/// Watches one connection. Dropped, it takes what is under way for broken off.
pub struct Tap(Box<Inner>);

struct Inner {
    inspector: Arc<Inspector>,
    endpoint: Arc<str>,
    visitor: Option<IpAddr>,
    /// The exchange that is replayed here.
    origin: u64,
    /// What finished exchanges count into.
    metrics: Arc<metrics::EndpointMetrics>,
    watch: Mutex<Watch>,
}

impl Tap {
    /// Bytes on their way to the upstream.
    pub fn request(&self, bytes: &[u8]) {
        self.feed(Side::Request, bytes);
    }

    /// Bytes on their way to the visitor.
    pub fn response(&self, bytes: &[u8]) {
        self.feed(Side::Response, bytes);
    }

    /// The same for the first `n` bytes of several places.
    pub fn responses(&self, places: &[IoSliceMut<'_>], n: usize) {
        let mut left = n;
        for place in places {
            let here = left.min(place.len());
            if let Some(bytes) = place.get(..here).filter(|bytes| !bytes.is_empty()) {
                self.feed(Side::Response, bytes);
            }
            left -= here;
        }
    }

    /// The response's direction came to its orderly end.
    pub fn finish(&self) {
        self.tell(|watch, notes| watch.finish(Side::Response, notes));
    }

    /// The connection broke off.
    pub fn abort(&self) {
        self.tell(|watch, notes| watch.abort(notes));
    }

    /// The exchange that these bytes began, if they did.
    pub(crate) fn feed(&self, side: Side, bytes: &[u8]) -> Option<u64> {
        self.tell(|watch, notes| watch.feed(side, bytes, notes))
    }

    /// Whether every exchange that began is over.
    pub(crate) fn is_quiet(&self) -> bool {
        self.watch().is_quiet()
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.0.watch.lock()
    }

    fn tell(&self, f: impl FnOnce(&mut Watch, &mut dyn Notes)) -> Option<u64> {
        let mut watch = self.watch();
        let mut recorder =
            Recorder { inner: &self.0, kept: None, now: None, begun: None, noted: false };
        f(&mut watch, &mut recorder);
        recorder.begun
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Writes down one slice's worth: the store is locked once, if at all.
struct Recorder<'a> {
    inner: &'a Inner,
    kept: Option<MutexGuard<'a, Kept>>,
    now: Option<Instant>,
    begun: Option<u64>,
    /// Something changed that somebody may wait for.
    noted: bool,
}

impl<'a> Recorder<'a> {
    fn kept(&mut self) -> &mut Kept {
        self.kept.get_or_insert_with(|| self.inner.inspector.lock())
    }

    fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(sys::clock)
    }
}

impl Notes for Recorder<'_> {
    fn begin(&mut self) -> u64 {
        let now = self.now();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let beginning = Beginning {
            endpoint: Arc::clone(&self.inner.endpoint),
            visitor: self.inner.visitor,
            // A machine whose clock was never set.
            start: since.unwrap_or(Duration::ZERO),
            now,
            origin: self.inner.origin,
        };
        let number = self.kept().store.begin(beginning);
        self.begun = Some(number);
        number
    }

    fn bytes(&mut self, exchange: u64, side: Side, bytes: &[u8]) -> bool {
        self.kept().store.append(exchange, side, bytes)
    }

    fn note(&mut self, exchange: u64, side: Side, note: Note) {
        let now = self.now();
        let inner = self.inner;
        let over = side == Side::Response && matches!(note, Note::Whole(_) | Note::Part(_));
        let store = &mut self.kept().store;
        store.note(exchange, side, note, now);
        // A replay is nobody's visit, and without an answer there is nothing to time.
        if over
            && inner.origin == 0
            && let Some(entry) = store.entry(exchange).filter(|entry| entry.status != 0)
        {
            inner.metrics.http_request(entry.took, now);
        }
        self.noted = true;
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        let waiting = self.kept.take().is_some_and(|kept| kept.waiting > 0);
        if waiting && self.noted {
            self.inner.inspector.changed.notify_all();
        }
    }
}
