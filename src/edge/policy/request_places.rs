//! Places for the requests of policies, a share for each account. A request holds a thread for
//! visitors while its server responds, also after the visitor has left. Threads and requests do not
//! belong here.

use std::collections::HashMap;
use std::sync::Arc;

use crate::sys::sync::Mutex;

/// Requests that are under way.
#[derive(Debug, Default)]
pub struct RequestPlaces {
    /// Their number by account.
    counts: Mutex<HashMap<String, usize>>,
}

/// Place of one request, until it is dropped.
#[derive(Debug, Default)]
pub struct RequestPlace(Option<(Arc<RequestPlaces>, String)>);

impl RequestPlaces {
    /// Takes a place of an account that may have `most`; `None` if it has them all.
    pub fn enter(self: &Arc<Self>, account: &str, most: usize) -> Option<RequestPlace> {
        let mut counts = self.counts.lock();
        match counts.get_mut(account) {
            Some(count) if *count >= most => return None,
            Some(count) => *count += 1,
            None => drop(counts.insert(account.to_owned(), 1)),
        }
        Some(RequestPlace(Some((Arc::clone(self), account.to_owned()))))
    }
}

impl Drop for RequestPlace {
    fn drop(&mut self) {
        let Some((places, account)) = self.0.take() else { return };
        let mut counts = places.counts.lock();
        if let Some(count) = counts.get_mut(&account) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_account_has_its_own_places() {
        let places = Arc::new(RequestPlaces::default());
        let held = [places.enter("a", 2), places.enter("a", 2), places.enter("b", 2)];
        assert!(held.iter().all(Option::is_some));
        assert!(places.enter("a", 2).is_none());
        assert!(places.enter("b", 2).is_some());
        drop(held);
        assert!(places.enter("a", 2).is_some());
        assert!(places.counts.lock().is_empty());
    }
}
