//! Endpoints of a session that are online and whose agent has not been sent the response yet.
//!
//! A visitor's stream that overtook the response would name an endpoint that the agent does not
//! know. The response itself does not belong here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::sys;
use crate::sys::sync::{Condvar, Mutex};

/// Longest wait of a visitor: the time to send a response when the link is full.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The endpoints of one session.
#[derive(Default)]
pub struct UnsentBinds {
    count: AtomicUsize,
    lock: Mutex<()>,
    changed: Condvar,
}

/// One endpoint, from before it is online until its response is sent or dropped.
pub struct UnsentBind(Arc<UnsentBinds>);

impl UnsentBinds {
    /// Counts an endpoint that is about to be online.
    pub fn begin(self: &Arc<Self>) -> UnsentBind {
        self.count.fetch_add(1, Ordering::SeqCst);
        UnsentBind(Arc::clone(self))
    }

    /// Blocks until the responses for all endpoints of the session are sent, at most
    /// `MAX_WAIT`.
    pub fn wait(&self) {
        self.wait_at_most(MAX_WAIT);
    }

    fn wait_at_most(&self, timeout: Duration) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let until = sys::clock() + timeout;
        let mut guard = self.lock.lock();
        while self.count.load(Ordering::SeqCst) > 0 {
            let left = until.since(sys::clock());
            if left.is_zero() {
                return;
            }
            guard = self.changed.wait_timeout(guard, left).0;
        }
    }
}

impl Drop for UnsentBind {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            // A thread that has read the old count holds the lock or waits already. With the lock
            // taken once, it gets the notification.
            drop(self.0.lock.lock());
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_waits_for_the_last_response_only() {
        let binds = Arc::new(UnsentBinds::default());
        binds.wait();
        let (first, second) = (binds.begin(), binds.begin());
        let visitor = {
            let binds = Arc::clone(&binds);
            std::thread::spawn(move || binds.wait())
        };
        drop(first);
        assert!(!visitor.is_finished());
        drop(second);
        visitor.join().unwrap();
    }

    #[test]
    fn a_response_that_is_never_sent_does_not_keep_visitors() {
        let binds = Arc::new(UnsentBinds::default());
        let _unsent = binds.begin();
        binds.wait_at_most(Duration::from_millis(1));
    }
}
