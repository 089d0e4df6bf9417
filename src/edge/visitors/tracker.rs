//! Open visitor connections: their limit, and which of them a stopping edge may close at
//! once. Nothing is read or written here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::conn::VisitorConn;
use super::exchange::{ExchangeStatus, VisitorExchange};
use crate::sys;
use crate::sys::sync::{Condvar, Mutex};

/// All visitor connections.
#[derive(Default)]
pub struct VisitorTracker {
    table: Mutex<VisitorTable>,
    /// Notified when one is removed.
    removed: Condvar,
}

#[derive(Default)]
struct VisitorTable {
    next: u64,
    handles: HashMap<u64, Arc<VisitorHandle>>,
}

/// Entry of one visitor.
#[derive(Default)]
pub struct VisitorHandle {
    conn: Mutex<Weak<VisitorConn>>,
    exchange: Mutex<Weak<VisitorExchange>>,
    awaiting_request: AtomicBool,
}

/// Permit of one visitor connection. It is returned when dropped.
pub struct VisitorPermit {
    visitors: Arc<VisitorTracker>,
    number: u64,
    handle: Arc<VisitorHandle>,
}

impl VisitorTracker {
    /// Returns a permit, or `None` if `max` are in use.
    pub fn try_acquire(self: &Arc<Self>, max: usize) -> Option<VisitorPermit> {
        let mut table = self.table.lock();
        if table.handles.len() >= max {
            return None;
        }
        let number = table.next;
        table.next += 1;
        let handle = Arc::new(VisitorHandle::default());
        table.handles.insert(number, Arc::clone(&handle));
        Some(VisitorPermit { visitors: Arc::clone(self), number, handle })
    }

    /// Returns the number of visitors.
    pub fn count(&self) -> usize {
        self.table.lock().handles.len()
    }

    /// Closes idle connections and waits up to `grace` for the others. Returns the number of
    /// connections that are still open.
    pub fn drain(&self, grace: Duration, cancelled: impl Fn() -> bool) -> usize {
        let end = sys::clock() + grace;
        let mut table = self.table.lock();
        loop {
            for handle in table.handles.values() {
                handle.close_if_idle();
            }
            let left = end.since(sys::clock());
            if table.handles.is_empty() || left.is_zero() || cancelled() {
                return table.handles.len();
            }
            // The end of a response notifies no one here: the state is polled.
            let pause = left.min(Duration::from_millis(100));
            table = self.removed.wait_timeout(table, pause).0;
        }
    }

    /// Resets all connections.
    pub fn abort_all(&self) {
        for handle in self.table.lock().handles.values() {
            if let Some(conn) = handle.conn.lock().upgrade() {
                conn.abort();
            }
        }
    }
}

impl VisitorHandle {
    /// Sets the visitor's connection.
    pub fn set_conn(&self, conn: &Arc<VisitorConn>) {
        *self.conn.lock() = Arc::downgrade(conn);
    }

    /// Sets the stream that carries the visitor's requests.
    pub fn set_exchange(&self, exchange: &Arc<VisitorExchange>) {
        *self.exchange.lock() = Arc::downgrade(exchange);
    }

    /// Sets whether the visitor's thread waits for the first byte of a request.
    pub fn set_awaiting_request(&self, yes: bool) {
        self.awaiting_request.store(yes, Ordering::Relaxed);
    }

    fn close_if_idle(&self) {
        if !self.awaiting_request.load(Ordering::Relaxed) {
            return;
        }
        let exchange = self.exchange.lock().upgrade();
        let settled = exchange.is_none_or(|e| e.latest().status() == ExchangeStatus::Idle);
        if settled && let Some(conn) = self.conn.lock().upgrade() {
            conn.stop_reading();
        }
    }
}

impl VisitorPermit {
    /// Returns the visitor's entry.
    pub fn handle(&self) -> &VisitorHandle {
        &self.handle
    }
}

impl Drop for VisitorPermit {
    fn drop(&mut self) {
        self.visitors.table.lock().handles.remove(&self.number);
        self.visitors.removed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let visitors = Arc::new(VisitorTracker::default());
        let a = visitors.try_acquire(2).unwrap();
        let _b = visitors.try_acquire(2).unwrap();
        assert!(visitors.try_acquire(2).is_none());
        drop(a);
        assert!(visitors.try_acquire(2).is_some());
        assert_eq!(visitors.count(), 1);
        assert_eq!(visitors.drain(Duration::from_secs(3600), || true), 1);
    }
}
