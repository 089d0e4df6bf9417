//! Bound of the requests under way: a thread waits for a free place. One host has a share, so
//! that a slow server does not take all places.

use std::collections::HashMap;

use crate::sys;
use crate::sys::sync::{Condvar, Mutex};
use crate::time::Deadline;

/// Requests at the same time.
const MAX_REQUESTS: usize = 32;

/// Requests to one host at the same time.
const MAX_OF_HOST: usize = 8;

/// Requests under way, by host.
#[derive(Debug, Default)]
pub struct FetchPlaces {
    used: Mutex<HashMap<String, usize>>,
    freed: Condvar,
}

/// A place. It is free again when this is dropped.
#[derive(Debug)]
pub struct FetchPlace<'a> {
    places: &'a FetchPlaces,
    host: String,
}

impl FetchPlaces {
    /// Waits for a place for a request to `host`. `None`: `deadline` has passed.
    pub fn enter(&self, host: &str, deadline: Deadline) -> Option<FetchPlace<'_>> {
        let mut used = self.used.lock();
        loop {
            let of_host = used.get(host).copied().unwrap_or_default();
            if of_host < MAX_OF_HOST && used.values().sum::<usize>() < MAX_REQUESTS {
                used.insert(host.to_owned(), of_host + 1);
                return Some(FetchPlace { places: self, host: host.to_owned() });
            }
            match deadline.left(sys::clock()) {
                None => used = self.freed.wait(used),
                Some(left) if left.is_zero() => return None,
                Some(left) => used = self.freed.wait_timeout(used, left).0,
            }
        }
    }
}

impl Drop for FetchPlace<'_> {
    fn drop(&mut self) {
        let mut used = self.places.used.lock();
        if let Some(count) = used.get_mut(&self.host) {
            *count -= 1;
        }
        used.retain(|_, count| *count > 0);
        drop(used);
        self.places.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;

    const NOW: Deadline = Deadline::At(Instant::ZERO);

    #[test]
    fn a_host_has_a_share_and_all_have_a_bound() {
        let places = FetchPlaces::default();
        let mut held: Vec<_> =
            (0..MAX_OF_HOST).map(|_| places.enter("slow", NOW).unwrap()).collect();
        assert!(places.enter("slow", NOW).is_none());
        held.extend(
            (MAX_OF_HOST..MAX_REQUESTS).map(|n| places.enter(&format!("host-{n}"), NOW).unwrap()),
        );
        assert!(places.enter("another", NOW).is_none());
        drop(held.pop());
        assert!(places.enter("slow", NOW).is_none());
        assert!(places.enter("another", NOW).is_some());
        drop(held);
        assert!(places.used.lock().is_empty());
    }

    #[test]
    fn a_thread_waits_for_a_place() {
        let places = FetchPlaces::default();
        let held: Vec<_> = (0..MAX_OF_HOST).map(|_| places.enter("a", NOW).unwrap()).collect();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| places.enter("a", Deadline::Never).is_some());
            drop(held);
            assert!(waits.join().unwrap());
        });
    }
}
