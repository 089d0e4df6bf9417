//! Threads that serve visitors. Some are started as soon as there is work for them, more only
//! when the running ones do not get through it: most work is short, and a thread costs more
//! memory than the visitor that it serves. Work above the limit waits for a thread. The work
//! itself does not belong here.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::sys::sync::{Condvar, Mutex};
use crate::sys::threads::{self, ThreadKind};

/// Time that a thread waits for work before it ends.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Part of all threads that is started without a delay.
const PROMPT_SHARE: usize = 16;

/// Least number of threads that are started without a delay.
const MIN_PROMPT_THREADS: usize = 4;

/// Interval of the checks whether the running threads get through the queue.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Intervals that the running threads may need for the queue. If they need more, further ones
/// are started.
const MAX_INTERVALS: usize = 25;

/// Checks of an empty queue in a row after which the checking thread ends.
const MAX_EMPTY_CHECKS: u32 = 100;

/// Work of one thread. It may block.
pub type Job = Box<dyn FnOnce() + Send>;

/// Threads for connections of one kind.
pub struct Workers {
    kind: ThreadKind,
    state: Mutex<WorkersState>,
    /// Notified when there is work for a waiting thread.
    queued: Condvar,
}

#[derive(Default)]
struct WorkersState {
    queue: VecDeque<Job>,
    /// Threads that wait for work.
    waiting: usize,
    threads: usize,
    max_threads: usize,
    /// Counts the jobs that a thread has taken.
    taken: usize,
    /// A thread checks the queue.
    is_checked: bool,
}

impl Default for Workers {
    fn default() -> Self {
        Workers::new(threads::VISITOR)
    }
}

impl Workers {
    /// Returns workers without a thread. `kind` is that of their threads.
    pub fn new(kind: ThreadKind) -> Self {
        Workers { kind, state: Mutex::default(), queued: Condvar::default() }
    }

    /// Has a thread do `job`; at most `max` threads run. Does not block. Fails if no thread
    /// runs and none can be started; the job is dropped then.
    pub fn run(self: &Arc<Self>, job: Job, max: usize) -> io::Result<()> {
        self.run_with(job, max, |work| self.kind.spawn(work).map(|_| ()))
    }

    fn run_with(
        self: &Arc<Self>,
        job: Job,
        max: usize,
        spawn: impl FnOnce(Job) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.state.lock();
        state.queue.push_back(job);
        if state.waiting >= state.queue.len() {
            self.queued.notify_one();
            return Ok(());
        }
        state.max_threads = max.max(1);
        if state.threads >= state.max_threads {
            return Ok(());
        }
        if state.threads >= (max / PROMPT_SHARE).max(MIN_PROMPT_THREADS) {
            self.check_queue(&mut state);
            return Ok(());
        }
        let workers = Arc::clone(self);
        // Under the lock: without a thread no other job may be queued that counts on this one.
        let Err(e) = spawn(Box::new(move || workers.work())) else {
            state.threads += 1;
            return Ok(());
        };
        // A running thread takes the job later.
        let dropped = if state.threads == 0 { state.queue.pop_back() } else { None };
        drop(state);
        dropped.map_or(Ok(()), |_| Err(e))
    }

    /// Returns whether work waits for a thread.
    pub fn is_short(&self) -> bool {
        let state = self.state.lock();
        state.queue.len() > state.waiting
    }

    /// Has a thread check the queue until it is empty. After a failure the next job is another
    /// attempt.
    fn check_queue(self: &Arc<Self>, state: &mut WorkersState) {
        if state.is_checked {
            return;
        }
        let workers = Arc::clone(self);
        state.is_checked = threads::CHECK.spawn(Box::new(move || workers.check())).is_ok();
    }

    fn check(self: &Arc<Self>) {
        let mut empty_checks = 0;
        let mut taken = self.state.lock().taken;
        loop {
            thread::sleep(CHECK_INTERVAL);
            let mut state = self.state.lock();
            let recent = state.taken.wrapping_sub(taken);
            taken = state.taken;
            empty_checks = if state.queue.is_empty() { empty_checks + 1 } else { 0 };
            if empty_checks > MAX_EMPTY_CHECKS {
                state.is_checked = false;
                return;
            }
            let room = state.max_threads.saturating_sub(state.threads);
            for _ in 0..missing_threads(state.queue.len(), recent).min(room) {
                let workers = Arc::clone(self);
                if self.kind.spawn(Box::new(move || workers.work())).is_err() {
                    break;
                }
                state.threads += 1;
            }
        }
    }

    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            while let Some(job) = state.queue.pop_front() {
                state.taken = state.taken.wrapping_add(1);
                drop(state);
                job();
                state = self.state.lock();
            }
            state.waiting += 1;
            let timed_out;
            (state, timed_out) = {
                let (state, out) = self.queued.wait_timeout(state, IDLE_TIMEOUT);
                (state, out.timed_out())
            };
            state.waiting -= 1;
            if timed_out && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

/// Returns how many threads to start for `queued` jobs when the running ones have taken
/// `recent` jobs in the last interval.
fn missing_threads(queued: usize, recent: usize) -> usize {
    if queued <= recent.saturating_mul(MAX_INTERVALS) { 0 } else { queued.div_ceil(4) }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    #[test]
    fn no_job_waits_for_a_thread_that_could_not_be_started() {
        for _ in 0..200 {
            let workers = Arc::new(Workers::default());
            let (done, finished) = channel();
            let second = {
                let (workers, done) = (Arc::clone(&workers), done.clone());
                move || workers.run(Box::new(move || done.send("second").unwrap()), 1)
            };
            let mut second = Some(second);
            let mut handle = None;
            let first = workers.run_with(Box::new(move || done.send("first").unwrap()), 1, |_| {
                handle = second.take().map(thread::spawn);
                thread::yield_now();
                Err(io::ErrorKind::OutOfMemory.into())
            });
            assert!(first.is_err());
            handle.unwrap().join().unwrap().unwrap();
            assert_eq!(finished.recv_timeout(Duration::from_secs(60)), Ok("second"));
        }
    }

    #[test]
    fn work_above_the_limit_waits_for_a_thread() {
        let workers = Arc::new(Workers::default());
        let (done, finished) = channel();
        let mut gates = Vec::new();
        for n in 0..5 {
            let (gate, opened) = channel::<()>();
            gates.push(gate);
            let done = done.clone();
            let job = Box::new(move || {
                let _ = opened.recv();
                done.send(n).unwrap();
            });
            workers.run(job, 2).unwrap();
        }
        assert_eq!(workers.state.lock().threads, 2);
        assert!(workers.is_short());
        // The last ones are not begun before the first ones end.
        drop(gates.drain(2..).collect::<Vec<_>>());
        assert!(finished.try_recv().is_err());
        drop(gates);
        let mut order: Vec<u32> =
            (0..5).map(|_| finished.recv_timeout(Duration::from_secs(60)).unwrap()).collect();
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2, 3, 4]);
        assert!(!workers.is_short() && workers.state.lock().threads <= 2);
    }

    #[test]
    fn threads_follow_while_the_running_ones_are_blocked() {
        const JOBS: usize = 40;
        let workers = Arc::new(Workers::default());
        let (started, starts) = channel();
        let mut gates = Vec::new();
        for _ in 0..JOBS {
            let (gate, opened) = channel::<()>();
            gates.push(gate);
            let started = started.clone();
            let job = Box::new(move || {
                started.send(()).unwrap();
                let _ = opened.recv();
            });
            workers.run(job, JOBS).unwrap();
        }
        for _ in 0..JOBS {
            starts.recv_timeout(Duration::from_secs(60)).unwrap();
        }
    }

    #[test]
    fn no_thread_follows_while_the_running_ones_keep_up() {
        assert_eq!(missing_threads(100, 4), 0);
        assert_eq!(missing_threads(101, 4), 26);
        assert_eq!(missing_threads(1, 0), 1);
        assert_eq!(missing_threads(0, 0), 0);
    }
}
