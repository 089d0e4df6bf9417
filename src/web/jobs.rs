//! What takes longer than an answer may: starting, changing and stopping
//! endpoints, replaying requests. One thread at a time does it, one job after the
//! other, and is gone when there is none; the server's thread is told by a bell.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;

use super::http::Reply;
use crate::event;
use crate::sys::Bell;
use crate::sys::sync::{Mutex, MutexGuard};

/// Jobs that may wait.
const QUEUE: usize = 16;

/// Stack of the thread: parses configuration.
const STACK: usize = if cfg!(debug_assertions) { 2 * 1024 * 1024 } else { 192 * 1024 };

/// What is to be done, and the answer that comes of it.
pub type Job = Box<dyn FnOnce() -> Reply + Send>;

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u32);

/// The queue of jobs and the answers that were not collected yet.
pub struct Desk {
    state: Mutex<State>,
    bell: Bell,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(Ticket, Job)>,
    done: Vec<(Ticket, Reply)>,
    /// A thread is at it.
    busy: bool,
}

impl Desk {
    /// A desk without work.
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Desk { state: Mutex::default(), bell: Bell::new()? }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Has a job done. `false`: too many wait, or no thread can be had.
    pub fn submit(self: &Arc<Self>, ticket: Ticket, job: Job) -> bool {
        let mut state = self.lock();
        if state.queue.len() >= QUEUE {
            return false;
        }
        state.queue.push_back((ticket, job));
        if !state.busy {
            let desk = Arc::clone(self);
            let spawned = thread::Builder::new()
                .name("web-job".into())
                .stack_size(STACK)
                .spawn(move || desk.work());
            if let Err(e) = spawned {
                event!(error, obj = "web", "cannot start a thread for a call", err = e);
                state.queue.pop_back();
                return false;
            }
            state.busy = true;
        }
        true
    }

    fn work(&self) {
        loop {
            let mut state = self.lock();
            let Some((ticket, job)) = state.queue.pop_front() else {
                state.busy = false;
                state.queue = VecDeque::new();
                return;
            };
            drop(state);
            let reply = job();
            self.lock().done.push((ticket, reply));
            self.bell.raise();
        }
    }

    /// The answers since the last call.
    pub fn collect(&self) -> Vec<(Ticket, Reply)> {
        self.bell.lower();
        std::mem::take(&mut self.lock().done)
    }

    /// Readable while there are answers.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn jobs_are_done_in_turn_and_more_than_fit_are_refused() {
        let desk = Desk::new().unwrap();
        let (go, wait) = mpsc::channel::<()>();
        let (at_it, began) = mpsc::channel::<()>();
        let held = move || {
            at_it.send(()).unwrap();
            wait.recv().unwrap();
            Reply::empty()
        };
        assert!(desk.submit(Ticket(0), Box::new(held)));
        began.recv().unwrap();
        let accepted =
            (1..100).take_while(|n| desk.submit(Ticket(*n), Box::new(Reply::empty))).count();
        assert_eq!(accepted, QUEUE);
        go.send(()).unwrap();
        let mut seen = Vec::new();
        while seen.len() <= QUEUE {
            crate::sys::wait(desk.bell().as_raw_fd(), None, Some(Duration::from_secs(10))).unwrap();
            seen.extend(desk.collect().into_iter().map(|(Ticket(n), _)| n));
        }
        assert_eq!(seen, (0..=QUEUE as u32).collect::<Vec<_>>());
        // Idle, it takes work again.
        while !desk.submit(Ticket(7), Box::new(Reply::empty)) {}
        crate::sys::wait(desk.bell().as_raw_fd(), None, Some(Duration::from_secs(10))).unwrap();
        assert_eq!(desk.collect().len(), 1);
    }
}
