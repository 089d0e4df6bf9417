//! The tap of one connection: passes its bytes to an [`HttpObserver`] and stores the result.
//! Parsing and storing are elsewhere.

use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::observer::{ExchangeSink, HttpObserver, MessageEvent, Side, TunnelBytes};
use super::store::{NewExchange, Store};
use super::{ExchangeId, Inspector};
use crate::metrics;
use crate::sys;
use crate::sys::sync::{Mutex, MutexGuard};
use crate::time::Instant;

/// Source of taps for one endpoint.
#[derive(Clone)]
pub struct TapSource {
    pub(super) inspector: Arc<Inspector>,
    pub(super) endpoint: Arc<str>,
    pub(super) prefix: bool,
    pub(super) metrics: Arc<metrics::EndpointMetrics>,
}

impl TapSource {
    /// Returns the tap for a new connection of the visitor at `addr`.
    pub fn tap(&self, addr: &str) -> Tap {
        let visitor = addr.parse().map(|addr: SocketAddr| addr.ip()).ok();
        self.tap_of(visitor, self.prefix, 0)
    }

    pub(super) fn tap_of(&self, visitor: Option<IpAddr>, prefix: bool, replay_of: u64) -> Tap {
        Tap(Box::new(TapState {
            inspector: Arc::clone(&self.inspector),
            endpoint: Arc::clone(&self.endpoint),
            visitor,
            replay_of,
            metrics: Arc::clone(&self.metrics),
            observer: Mutex::new(HttpObserver::new(prefix)),
        }))
    }
}

/// Tap of one connection. On drop, open exchanges are recorded as truncated.
pub struct Tap(Box<TapState>);

struct TapState {
    inspector: Arc<Inspector>,
    endpoint: Arc<str>,
    visitor: Option<IpAddr>,
    /// The exchange that this one replays.
    replay_of: u64,
    /// Counters for finished exchanges.
    metrics: Arc<metrics::EndpointMetrics>,
    observer: Mutex<HttpObserver>,
}

impl Tap {
    /// Observes bytes on their way to the upstream.
    pub fn request(&self, bytes: &[u8]) {
        self.feed(Side::Request, bytes);
    }

    /// Observes bytes on their way to the visitor.
    pub fn response(&self, bytes: &[u8]) {
        self.feed(Side::Response, bytes);
    }

    /// Observes the first `n` bytes of several buffers on their way to the visitor.
    pub fn responses(&self, bufs: &[IoSliceMut<'_>], n: usize) {
        let mut left = n;
        for buf in bufs {
            let here = left.min(buf.len());
            if let Some(bytes) = buf.get(..here).filter(|bytes| !bytes.is_empty()) {
                self.feed(Side::Response, bytes);
            }
            left -= here;
        }
    }

    /// Records the orderly end of the response's direction.
    pub fn finish(&self) {
        self.with_observer(|observer, sink| observer.finish(Side::Response, sink));
    }

    /// Records that the connection was aborted.
    pub fn abort(&self) {
        self.with_observer(|observer, sink| observer.abort(sink));
    }

    /// Passes on the bytes of a request. Returns the id of its exchange.
    pub(crate) fn begin_request(&self, bytes: &[u8]) -> Option<ExchangeId> {
        self.feed(Side::Request, bytes).map(|number| self.0.inspector.id(number))
    }

    /// Returns the number of the exchange that begins with these bytes.
    fn feed(&self, side: Side, bytes: &[u8]) -> Option<u64> {
        self.with_observer(|observer, sink| observer.feed(side, bytes, sink))
    }

    /// Returns whether every exchange has ended.
    pub(crate) fn is_idle(&self) -> bool {
        self.observer().is_idle()
    }

    fn observer(&self) -> MutexGuard<'_, HttpObserver> {
        self.0.observer.lock()
    }

    fn with_observer(
        &self,
        f: impl FnOnce(&mut HttpObserver, &mut dyn ExchangeSink),
    ) -> Option<u64> {
        let mut observer = self.observer();
        let mut writer = StoreWriter { inner: &self.0, store: None, now: None, started: None };
        f(&mut observer, &mut writer);
        writer.started
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Stores the result for one slice. The store is locked once, or not at all.
struct StoreWriter<'a> {
    inner: &'a TapState,
    store: Option<MutexGuard<'a, Store>>,
    now: Option<Instant>,
    started: Option<u64>,
}

impl<'a> StoreWriter<'a> {
    fn store(&mut self) -> &mut Store {
        self.store.get_or_insert_with(|| self.inner.inspector.lock())
    }

    fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(sys::clock)
    }
}

impl ExchangeSink for StoreWriter<'_> {
    fn begin(&mut self) -> u64 {
        let now = self.now();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let exchange = NewExchange {
            endpoint: Arc::clone(&self.inner.endpoint),
            visitor: self.inner.visitor,
            // The clock of the machine was never set.
            start: since.unwrap_or(Duration::ZERO),
            now,
            replay_of: self.inner.replay_of,
        };
        let number = self.store().begin(exchange);
        self.started = Some(number);
        number
    }

    fn bytes(&mut self, exchange: u64, side: Side, bytes: &[u8]) -> bool {
        self.store().append(exchange, side, bytes)
    }

    fn event(&mut self, exchange: u64, side: Side, event: MessageEvent) {
        let now = self.now();
        let inner = self.inner;
        let over = side == Side::Response
            && matches!(event, MessageEvent::Complete(_) | MessageEvent::Incomplete(_));
        let store = &mut self.store();
        store.event(exchange, side, event, now);
        // A replay is not a visit, and without a response the duration is not known.
        if over
            && inner.replay_of == 0
            && let Some(entry) = store.entry(exchange).filter(|entry| entry.status != 0)
        {
            inner.metrics.http_request(entry.took, now);
        }
    }

    fn tunnel(&mut self, exchange: u64, bytes: &Arc<TunnelBytes>, is_open: bool) {
        let now = self.now();
        self.store().tunnel(exchange, bytes, is_open, now);
    }
}
