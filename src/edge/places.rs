//! Places of a resource with the connections that hold them: chooses by [`Shares`] which one
//! gives way, and closes it. The protocols of the connections do not belong here.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::shares::{AddressOwner, PlaceId, Shares};
use crate::sys;
use crate::sys::sync::{Condvar, Mutex};
use crate::time::Instant;

/// Holder of a place.
pub trait Holder: Send + Sync {
    /// Ends what the place is used for: in an orderly way if `was_idle`, else what is under
    /// way is cut off. Does not block.
    fn give_way(self: Arc<Self>, was_idle: bool);

    /// Returns when its peer took or sent a byte last.
    fn last_progress(&self) -> Instant;
}

/// Places of one resource.
pub struct Places {
    table: Mutex<PlaceTable>,
    /// Notified when a place is released.
    released: Condvar,
}

struct PlaceTable {
    shares: Shares<AddressOwner>,
    holders: HashMap<PlaceId, Weak<dyn Holder>>,
}

/// A place in use. Dropping it gives it back.
pub struct Place {
    places: Arc<Places>,
    id: PlaceId,
}

impl Places {
    /// Creates a resource without a place in use.
    pub fn new() -> Self {
        let table = PlaceTable { shares: Shares::new(0), holders: HashMap::new() };
        Places { table: Mutex::new(table), released: Condvar::new() }
    }

    /// Gives a newcomer of `owner` a place; `limit` is the number of all places now. If none
    /// is free, another one gives way. `None`: the newcomer's owner holds most already.
    pub fn admit(self: &Arc<Self>, owner: AddressOwner, limit: usize) -> Option<Place> {
        let (place, leaving) = self.choose(owner, limit)?;
        if let Some(leaving) = leaving {
            leaving.close();
        }
        Some(place)
    }

    /// Gives a newcomer a place, as [`Places::admit`] does. The caller closes what gives way: the
    /// end of a holder takes its locks, which the caller may hold.
    pub fn choose(
        self: &Arc<Self>,
        owner: AddressOwner,
        limit: usize,
    ) -> Option<(Place, Option<Leaving>)> {
        let mut table = self.table.lock();
        table.shares.set_limit(limit);
        let leaving = match table.shares.is_full() {
            true => Some(table.choose(owner)?),
            false => None,
        };
        let id = table.shares.insert(owner);
        drop(table);
        Some((Place { places: Arc::clone(self), id }, leaving))
    }

    /// Gives `owner` a place that another limit has allowed.
    pub fn insert(self: &Arc<Self>, owner: AddressOwner) -> Place {
        let id = self.table.lock().shares.insert(owner);
        Place { places: Arc::clone(self), id }
    }

    /// Has one place give way to a newcomer of `owner`; `limit` is the number of all places
    /// now. Returns whether one does.
    pub fn make_room(&self, owner: AddressOwner, limit: usize) -> bool {
        let mut table = self.table.lock();
        table.shares.set_limit(limit);
        let victim = table.choose(owner);
        drop(table);
        let found = victim.is_some();
        if let Some(victim) = victim {
            victim.close();
        }
        found
    }

    /// Returns the number of places in use, those that give way included.
    pub fn count(&self) -> usize {
        self.table.lock().shares.occupied()
    }

    /// Closes idle connections and waits up to `grace` for the others. Returns the number of
    /// connections that are still open.
    pub fn drain(&self, grace: Duration, cancelled: impl Fn() -> bool) -> usize {
        let end = sys::clock() + grace;
        loop {
            let table = self.table.lock();
            let idle = table.shares.idle();
            let idle: Vec<_> = idle.into_iter().filter_map(|id| table.holder(id)).collect();
            drop(table);
            for holder in idle {
                holder.give_way(true);
            }
            let left = end.since(sys::clock());
            let table = self.table.lock();
            let open = table.shares.occupied();
            if open == 0 || left.is_zero() || cancelled() {
                return open;
            }
            // The end of a response notifies no one here: the state is polled.
            let pause = left.min(Duration::from_millis(100));
            drop(self.released.wait_timeout(table, pause));
        }
    }

    /// Ends everything that is under way.
    pub fn abort_all(&self) {
        let table = self.table.lock();
        let all: Vec<_> = table.holders.values().filter_map(Weak::upgrade).collect();
        drop(table);
        for holder in all {
            holder.give_way(false);
        }
    }
}

impl PlaceTable {
    fn holder(&self, id: PlaceId) -> Option<Arc<dyn Holder>> {
        self.holders.get(&id).and_then(Weak::upgrade)
    }

    /// Chooses what gives way to a newcomer of `owner`.
    fn choose(&mut self, owner: AddressOwner) -> Option<Leaving> {
        let PlaceTable { shares, holders } = self;
        let compared = RefCell::new(Vec::new());
        let victim = shares.give_way(owner, |id| {
            let Some(holder) = holders.get(&id).and_then(Weak::upgrade) else {
                return Instant::END;
            };
            let progress = holder.last_progress();
            compared.borrow_mut().push(holder);
            progress
        });
        let holder = victim.and_then(|victim| self.holder(victim.place));
        let was_idle = victim.is_some_and(|victim| victim.was_idle);
        let leaving = Leaving { holder, was_idle, _compared: compared.into_inner() };
        // Without a victim nothing was compared.
        victim.map(|_| leaving)
    }
}

/// A connection that gives way. It is closed without the lock of the table, which a holder
/// takes when it is dropped.
#[must_use = "what gives way has to be closed"]
pub struct Leaving {
    /// `None` if it is about to end by itself.
    holder: Option<Arc<dyn Holder>>,
    was_idle: bool,
    _compared: Vec<Arc<dyn Holder>>,
}

impl Leaving {
    /// Ends the connection. Takes the locks of its holder.
    pub fn close(self) {
        if let Some(holder) = self.holder {
            holder.give_way(self.was_idle);
        }
    }
}

impl Place {
    /// Sets what holds the place. Returns `false` if it has to give way already.
    #[must_use = "what gives way has to end"]
    pub fn set_holder(&self, holder: &Arc<dyn Holder>) -> bool {
        let mut table = self.places.table.lock();
        table.holders.insert(self.id, Arc::downgrade(holder));
        !table.shares.is_leaving(self.id)
    }

    /// Records that nothing is under way from now on.
    pub fn set_idle(&self, now: Instant) {
        self.places.table.lock().shares.set_idle(self.id, now);
    }

    /// Records that something is under way. Returns `false` if the place gives way to a newcomer.
    pub fn set_busy(&self) -> bool {
        self.places.table.lock().shares.set_busy(self.id)
    }

    /// Moves the place to its true owner.
    pub fn set_owner(&self, owner: AddressOwner) {
        self.places.table.lock().shares.set_owner(self.id, owner);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.places.table.lock();
        table.shares.release(self.id);
        table.holders.remove(&self.id);
        drop(table);
        self.places.released.notify_all();
    }
}

impl Default for Places {
    fn default() -> Self {
        Places::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;

    const LIMIT: usize = 4;

    struct Connection {
        place: Place,
        progress: Instant,
        idle_ends: AtomicU32,
        is_aborted: AtomicBool,
    }

    impl Holder for Connection {
        fn give_way(self: Arc<Self>, was_idle: bool) {
            match was_idle {
                true => _ = self.idle_ends.fetch_add(1, Ordering::Relaxed),
                false => self.is_aborted.store(true, Ordering::Relaxed),
            }
        }

        fn last_progress(&self) -> Instant {
            self.progress
        }
    }

    fn connect(places: &Arc<Places>, owner: u32, seconds: u64) -> Option<Arc<Connection>> {
        let place = places.admit(AddressOwner::V4(owner), LIMIT)?;
        let connection = Arc::new(Connection {
            place,
            progress: Instant::ZERO + Duration::from_secs(seconds),
            idle_ends: AtomicU32::new(0),
            is_aborted: AtomicBool::new(false),
        });
        let holder: Arc<dyn Holder> = Arc::<Connection>::clone(&connection);
        assert!(connection.place.set_holder(&holder));
        Some(connection)
    }

    #[test]
    fn a_newcomer_closes_the_stalest_of_the_address_that_holds_everything() {
        let places = Arc::new(Places::new());
        let held: Vec<_> = [5, 3, 7, 9].map(|s| connect(&places, 1, s).unwrap()).into();
        assert!(connect(&places, 1, 10).is_none(), "its address holds most");
        let newcomer = connect(&places, 2, 10).unwrap();
        let aborted: Vec<bool> =
            held.iter().map(|c| c.is_aborted.load(Ordering::Relaxed)).collect();
        assert_eq!(aborted, [false, true, false, false]);
        assert_eq!(places.count(), 5, "the old one is still open");
        drop(held);
        assert_eq!(places.count(), 1);
        assert!(newcomer.place.set_busy());
    }

    #[test]
    fn the_caller_closes_what_it_has_chosen() {
        let places = Arc::new(Places::new());
        let held: Vec<_> = [5, 3, 7, 9].map(|s| connect(&places, 1, s).unwrap()).into();
        let (_place, leaving) = places.choose(AddressOwner::V4(2), LIMIT).unwrap();
        let aborted = || held.iter().filter(|c| c.is_aborted.load(Ordering::Relaxed)).count();
        assert_eq!((aborted(), held[1].place.set_busy()), (0, false));
        leaving.unwrap().close();
        assert_eq!((aborted(), held[1].is_aborted.load(Ordering::Relaxed)), (1, true));
    }

    #[test]
    fn a_drain_closes_what_is_idle() {
        let places = Arc::new(Places::new());
        let idle = connect(&places, 1, 0).unwrap();
        let busy = connect(&places, 1, 0).unwrap();
        idle.place.set_idle(Instant::ZERO);
        assert_eq!(places.drain(Duration::from_secs(3600), || true), 2);
        assert_eq!(idle.idle_ends.load(Ordering::Relaxed), 1);
        assert_eq!(busy.idle_ends.load(Ordering::Relaxed), 0);
        places.abort_all();
        assert!(busy.is_aborted.load(Ordering::Relaxed));
    }
}
