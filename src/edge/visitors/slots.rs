//! How many visitors there are, and which of them are idle: the bound on their
//! number, and whom a stopping edge may send away at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::conn::Conn;
use super::exchange::{Exchange, Standing};
use crate::sys;
use crate::sys::sync::{Condvar, Mutex, MutexGuard};

/// All visitors.
#[derive(Default)]
pub struct Visitors {
    table: Mutex<Table>,
    /// Told when one goes.
    left: Condvar,
}

#[derive(Default)]
struct Table {
    next: u64,
    slots: HashMap<u64, Arc<Slot>>,
}

/// One visitor.
#[derive(Default)]
pub struct Slot {
    conn: Mutex<Weak<Conn>>,
    exchange: Mutex<Weak<Exchange>>,
    reads_head: AtomicBool,
}

/// A visitor's place; given back when dropped.
pub struct Place {
    visitors: Arc<Visitors>,
    number: u64,
    slot: Arc<Slot>,
}

impl Visitors {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    /// A place for a visitor, if fewer than `most` have one.
    pub fn enter(self: &Arc<Self>, most: usize) -> Option<Place> {
        let mut table = self.lock();
        if table.slots.len() >= most {
            return None;
        }
        let number = table.next;
        table.next += 1;
        let slot = Arc::new(Slot::default());
        table.slots.insert(number, Arc::clone(&slot));
        Some(Place { visitors: Arc::clone(self), number, slot })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sends those away who wait for nothing, and waits up to `grace` for the
    /// others. Returns how many are left.
    pub fn drain(&self, grace: Duration, hurry: impl Fn() -> bool) -> usize {
        let end = sys::clock() + grace;
        let mut table = self.lock();
        loop {
            for slot in table.slots.values() {
                slot.dismiss();
            }
            let left = end.since(sys::clock());
            if table.slots.is_empty() || left.is_zero() || hurry() {
                return table.slots.len();
            }
            // Looks again now and then: an answer's end is not told here.
            let pause = left.min(Duration::from_millis(100));
            table = self.left.wait_timeout(table, pause).0;
        }
    }

    /// Ends all connections.
    pub fn end(&self) {
        for slot in self.lock().slots.values() {
            if let Some(conn) = slot.conn.lock().upgrade() {
                conn.abort();
            }
        }
    }
}

impl Slot {
    /// The visitor's connection.
    pub fn is_on(&self, conn: &Arc<Conn>) {
        *self.conn.lock() = Arc::downgrade(conn);
    }

    /// The stream that carries his requests now.
    pub fn carries(&self, exchange: &Arc<Exchange>) {
        *self.exchange.lock() = Arc::downgrade(exchange);
    }

    /// Whether his thread waits for the first byte of a request.
    pub fn reads_head(&self, yes: bool) {
        self.reads_head.store(yes, Ordering::Relaxed);
    }

    fn dismiss(&self) {
        if !self.reads_head.load(Ordering::Relaxed) {
            return;
        }
        let exchange = self.exchange.lock().upgrade();
        let settled = exchange.is_none_or(|e| e.latest().standing() == Standing::Settled);
        if settled && let Some(conn) = self.conn.lock().upgrade() {
            conn.stop_reading();
        }
    }
}

impl Place {
    /// The visitor.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.visitors.lock().slots.remove(&self.number);
        self.visitors.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let visitors = Arc::new(Visitors::default());
        let a = visitors.enter(2).unwrap();
        let _b = visitors.enter(2).unwrap();
        assert!(visitors.enter(2).is_none());
        drop(a);
        assert!(visitors.enter(2).is_some());
        assert_eq!(visitors.len(), 1);
        assert_eq!(visitors.drain(Duration::from_secs(3600), || true), 1);
    }
}
