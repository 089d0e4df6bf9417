//! Pool of workers: a bounded number of threads, each of which serves one connection at a time.
//!
//! One worker always exists; the others start on demand and end when idle. A machine without a
//! free thread still serves visitors, one at a time. Workers leave the last descriptors to
//! others.
//!
//! New connections may wait, a few for each worker, because a worker parks a silent connection
//! as soon as others wait. Further ones are refused at once. Connections that return from being
//! parked may always wait: the streams of the session limit their number.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::refusals::{RefusalLog, RefusalReason};
use crate::sys::eventfd::EventFd;
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use crate::sys::{self, threads};
use crate::time::Instant;

/// Time that an idle worker stays.
const WORKER_IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Size of a buffer for bulk: two records of the link.
pub(super) const BULK_BUFFER_BYTES: usize = 32 * 1024;

/// Work for the pool: one connection.
pub(super) trait PoolTask: Send + Sync {
    /// Serves until nothing is left to do. `since`: time at which a new connection began to
    /// wait; `None`: it has been parked.
    fn serve(&self, since: Option<Instant>);
    /// Logs why the connection is not served as expected.
    fn log_refusal(&self, reason: RefusalReason, error: &dyn Display);
    /// Ends a parked connection that no worker can serve.
    fn abandon(&self);
    /// Ends a half-closed connection that has been silent for too long. Returns false if it
    /// did.
    fn check_silence(&self, now: Instant) -> bool;
}

/// Pool of workers.
pub struct Pool {
    pub(super) refusals: RefusalLog,
    state: Mutex<PoolState>,
    work: Condvar,
    /// Notified while connections wait and every worker is busy.
    waiting: EventFd,
    max_workers: usize,
    max_new: usize,
    connections: AtomicUsize,
    /// Connections one of whose directions has ended.
    half_closed: Mutex<Vec<Weak<dyn PoolTask>>>,
}

#[derive(Default)]
struct PoolState {
    queue: VecDeque<QueuedConn>,
    /// Number of connections in the queue that have not been served before.
    new: usize,
    /// Number of refused new connections.
    refused: u32,
    workers: usize,
    idle: usize,
    /// Whether workers end instead of waiting for connections.
    closed: bool,
    /// Bulk buffers that are not in use.
    free_buffers: Vec<Box<[u8]>>,
    /// Number of existing bulk buffers.
    buffers: usize,
}

/// Load of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolNumbers {
    /// Existing threads.
    pub workers: usize,
    /// Threads that serve a connection.
    pub busy: usize,
    /// Connections that wait for a thread.
    pub queued: usize,
    /// Maximum number of threads.
    pub max_workers: usize,
    /// Connections that were refused since the start, because the pool was full.
    pub refused: u32,
    /// Connections that occupy no thread at the moment.
    pub parked: usize,
}

struct QueuedConn {
    conn: Arc<dyn PoolTask>,
    /// Time at which a new connection began to wait; `None`: it has been parked.
    since: Option<Instant>,
}

impl Pool {
    /// Creates a pool of at most `max_workers` workers, at least one. At most `max_new` new
    /// connections wait for them.
    pub fn new(max_workers: usize, max_new: usize) -> io::Result<Arc<Self>> {
        let pool = Arc::new(Pool {
            refusals: RefusalLog::new(),
            state: Mutex::new(PoolState::default()),
            work: Condvar::new(),
            waiting: EventFd::new()?,
            max_workers: max_workers.max(1),
            max_new: max_new.max(1),
            connections: AtomicUsize::new(0),
            half_closed: Mutex::new(Vec::new()),
        });
        // If that fails, the first visitor starts a worker.
        let _ = pool.spawn_worker(&mut pool.lock());
        Ok(pool)
    }

    /// Closes the pool: no connection follows, and the last worker ends when it is idle.
    pub fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock()
    }

    /// Submits a new connection. Returns false if the pool and its queue are full, or if memory
    /// is missing.
    pub(super) fn submit(self: &Arc<Self>, conn: Arc<dyn PoolTask>, now: Instant) -> bool {
        let out_of_memory = sys::alloc::is_short();
        let mut state = self.lock();
        if out_of_memory || state.new >= self.max_new {
            state.refused = state.refused.wrapping_add(1);
            drop(state);
            let (why, error) = if out_of_memory {
                (RefusalReason::Exhausted, "no memory")
            } else {
                (RefusalReason::Busy, "")
            };
            conn.log_refusal(why, &error);
            return false;
        }
        self.queue(state, QueuedConn { conn, since: Some(now) })
    }

    /// Resumes a connection that was parked.
    pub(super) fn resume(self: &Arc<Self>, conn: Arc<dyn PoolTask>) {
        if !self.queue(self.lock(), QueuedConn { conn: Arc::clone(&conn), since: None }) {
            conn.abandon();
        }
    }

    /// Queues a connection. Returns false if no worker exists and none can be started.
    fn queue(self: &Arc<Self>, mut state: MutexGuard<'_, PoolState>, job: QueuedConn) -> bool {
        let conn = Arc::clone(&job.conn);
        let new = usize::from(job.since.is_some());
        state.new += new;
        state.queue.push_back(job);
        let started = self.ensure_worker(&mut state);
        let accepted = started.is_ok() || state.workers > 0;
        if !accepted {
            state.queue.pop_back();
            state.new -= new;
            state.refused = state.refused.wrapping_add(new as u32);
        }
        drop(state);
        if let Err(e) = started {
            conn.log_refusal(
                if accepted { RefusalReason::FewWorkers } else { RefusalReason::NoWorker },
                &e,
            );
        }
        accepted
    }

    /// Ensures that a worker takes the queued job. Returns an error if another worker is needed
    /// and a thread cannot be started. An existing worker takes the job in any case.
    fn ensure_worker(self: &Arc<Self>, state: &mut PoolState) -> io::Result<()> {
        if state.idle >= state.queue.len() {
            self.work.notify_one();
            return Ok(());
        }
        let spawned = match state.workers < self.max_workers {
            true => self.spawn_worker(state).map(|()| true),
            false => Ok(false),
        };
        if !matches!(spawned, Ok(true)) {
            self.waiting.notify();
        }
        spawned.map(|_| ())
    }

    fn spawn_worker(self: &Arc<Self>, state: &mut PoolState) -> io::Result<()> {
        let pool = Arc::clone(self);
        threads::WORKER.spawn(Box::new(move || run(&pool)))?;
        state.workers += 1;
        Ok(())
    }

    /// Counts a connection that a worker refused.
    pub(super) fn count_refused(&self) {
        let mut state = self.lock();
        state.refused = state.refused.wrapping_add(1);
    }

    /// Logs the number of refusals without a line of their own that are due `now`.
    pub fn report_suppressed(&self, now: Instant) {
        self.refusals.report_suppressed(now);
    }

    /// Watches a connection one of whose directions has ended.
    pub(super) fn watch_half_closed(&self, conn: Weak<dyn PoolTask>) {
        self.half_closed.lock().push(conn);
    }

    /// Ends half-closed connections that have been silent for too long.
    pub fn check_half_closed(&self, now: Instant) {
        let mut watched = std::mem::take(&mut *self.half_closed.lock());
        // Without the lock: the end of a connection may take others.
        watched.retain(|conn| conn.upgrade().is_some_and(|conn| conn.check_silence(now)));
        self.half_closed.lock().append(&mut watched);
    }

    /// Returns the current load.
    pub fn numbers(&self) -> PoolNumbers {
        let live = self.live();
        let state = self.lock();
        let busy = state.workers.saturating_sub(state.idle);
        let queued = state.queue.len();
        PoolNumbers {
            workers: state.workers,
            busy,
            queued,
            max_workers: self.max_workers,
            refused: state.refused,
            parked: live.saturating_sub(busy + queued),
        }
    }

    /// Returns the number of connections: served, waiting or parked.
    pub fn live(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn count_connection(&self, opened: bool) {
        if opened {
            self.connections.fetch_add(1, Ordering::Relaxed);
        } else {
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Returns whether connections wait for a worker.
    pub(super) fn has_waiting(&self) -> bool {
        let state = self.lock();
        let waiting = state.queue.len() > state.idle;
        if !waiting {
            self.waiting.clear();
        }
        waiting
    }

    /// Returns a descriptor that is readable while connections wait for a worker.
    pub(super) fn waiting_fd(&self) -> RawFd {
        self.waiting.as_raw_fd()
    }

    /// Returns a buffer of [`BULK_BUFFER_BYTES`] bytes, if one is left.
    pub(super) fn take_buffer(&self) -> Option<Box<[u8]>> {
        let mut state = self.lock();
        if let Some(buffer) = state.free_buffers.pop() {
            return Some(buffer);
        }
        // For a quarter of the workers at the same time. The others use buffers on their
        // stacks.
        if state.buffers >= self.max_workers.div_ceil(4) {
            return None;
        }
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(BULK_BUFFER_BYTES).ok()?;
        state.buffers += 1;
        drop(state);
        buffer.resize(BULK_BUFFER_BYTES, 0);
        Some(buffer.into_boxed_slice())
    }

    /// Returns a buffer to the pool, which keeps one.
    pub(super) fn return_buffer(&self, buffer: Box<[u8]>) {
        let mut state = self.lock();
        if state.free_buffers.is_empty() {
            state.free_buffers.push(buffer);
        } else {
            state.buffers -= 1;
        }
    }

    /// Returns a worker's next job. `None`: the worker ends. `has_served`: it had a job before.
    fn next(self: &Arc<Self>, mut has_served: bool) -> Option<QueuedConn> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                if job.since.is_some() {
                    state.new -= 1;
                }
                if state.queue.is_empty() {
                    self.waiting.clear();
                }
                return Some(job);
            }
            let last = state.workers == 1 && !state.closed;
            state.idle += 1;
            if last && !has_served {
                // The worker has no memory to release.
                state = self.work.wait(state);
                state.idle -= 1;
                continue;
            }
            let (woken, wait) = self.work.wait_timeout(state, WORKER_IDLE_TIMEOUT);
            state = woken;
            state.idle -= 1;
            if !wait.timed_out() || !state.queue.is_empty() {
                continue;
            }
            if state.workers == 1 {
                // Releases the memory of a burst.
                state.queue = VecDeque::new();
                state.buffers -= state.free_buffers.len();
                state.free_buffers = Vec::new();
                // The memory of its stack is released with it, if another worker can be
                // started.
                if !state.closed && self.spawn_worker(&mut state).is_err() {
                    has_served = false;
                    continue;
                }
            }
            state.workers -= 1;
            return None;
        }
    }
}

/// Main function of a worker.
fn run(pool: &Arc<Pool>) {
    sys::fd_budget::yield_to_others(sys::fd_budget::WEB_RESERVE);
    let mut has_served = false;
    while let Some(QueuedConn { conn, since }) = pool.next(has_served) {
        has_served = true;
        conn.serve(since);
    }
}
