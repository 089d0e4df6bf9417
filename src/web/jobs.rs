//! Jobs that need more time than a response may: starting, changing and stopping endpoints, and
//! replays. At most one thread runs them, one after the other. It ends when the queue is empty.
//! An event wakes the server's thread. HTTP and sockets do not belong here.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::http::ApiReply;
use crate::event;
use crate::sys::eventfd::EventFd;
use crate::sys::sync::{Mutex, MutexGuard};
use crate::sys::threads;

/// Maximum number of waiting jobs.
const MAX_QUEUED: usize = 16;

/// A job. Returns the response.
pub type ApiJob = Box<dyn FnOnce() -> ApiReply + Send>;

/// Number of a job. The connection that waits for its response has it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobId(pub u32);

/// Queue of jobs, and the responses that were not collected yet.
pub struct JobQueue {
    state: Mutex<Queued>,
    wakeup: EventFd,
}

#[derive(Default)]
struct Queued {
    queue: VecDeque<(JobId, ApiJob)>,
    done: Vec<(JobId, ApiReply)>,
    /// Whether a thread runs jobs.
    busy: bool,
}

impl JobQueue {
    /// Returns an empty queue.
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(JobQueue { state: Mutex::default(), wakeup: EventFd::new()? }))
    }

    fn lock(&self) -> MutexGuard<'_, Queued> {
        self.state.lock()
    }

    /// Adds a job. Returns false if the queue is full, or if a thread cannot be started.
    pub fn submit(self: &Arc<Self>, job_id: JobId, job: ApiJob) -> bool {
        let mut state = self.lock();
        if state.queue.len() >= MAX_QUEUED {
            return false;
        }
        state.queue.push_back((job_id, job));
        if !state.busy {
            let jobs = Arc::clone(self);
            let spawned = threads::WEB_JOB.spawn(Box::new(move || jobs.work()));
            if let Err(e) = spawned {
                event!(error, obj = "web", "cannot start a thread", err = e);
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
            let Some((job_id, job)) = state.queue.pop_front() else {
                state.busy = false;
                state.queue = VecDeque::new();
                return;
            };
            drop(state);
            let reply = job();
            self.lock().done.push((job_id, reply));
            self.wakeup.notify();
        }
    }

    /// Returns the responses since the last call.
    pub fn collect(&self) -> Vec<(JobId, ApiReply)> {
        self.wakeup.clear();
        std::mem::take(&mut self.lock().done)
    }

    /// Returns the event that is readable while there are responses.
    pub fn wakeup(&self) -> &EventFd {
        &self.wakeup
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn jobs_are_done_in_turn_and_more_than_fit_are_refused() {
        let jobs = JobQueue::new().unwrap();
        let (go, wait) = mpsc::channel::<()>();
        let (started, began) = mpsc::channel::<()>();
        let held = move || {
            started.send(()).unwrap();
            wait.recv().unwrap();
            ApiReply::empty()
        };
        assert!(jobs.submit(JobId(0), Box::new(held)));
        began.recv().unwrap();
        let accepted =
            (1..100).take_while(|n| jobs.submit(JobId(*n), Box::new(ApiReply::empty))).count();
        assert_eq!(accepted, MAX_QUEUED);
        go.send(()).unwrap();
        let mut cursor = Vec::new();
        while cursor.len() <= MAX_QUEUED {
            assert!(poll::readable(jobs.wakeup(), Some(Duration::from_secs(10))).unwrap());
            cursor.extend(jobs.collect().into_iter().map(|(JobId(n), _)| n));
        }
        assert_eq!(cursor, (0..=MAX_QUEUED as u32).collect::<Vec<_>>());
        // The idle queue accepts jobs again.
        while !jobs.submit(JobId(7), Box::new(ApiReply::empty)) {}
        assert!(poll::readable(jobs.wakeup(), Some(Duration::from_secs(10))).unwrap());
        assert_eq!(jobs.collect().len(), 1);
    }
}
