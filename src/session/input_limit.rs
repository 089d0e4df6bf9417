//! Decides whether the reactor reads from the peer, from the bytes that streams hold.
//!
//! Back pressure comes before a reset: a reader that pauses gets no window, and above half of
//! the limit slow readers get less (`mux`). A stream is reset only if the windows that peers
//! already have exceed the limit: a stalled stream, the largest first. No socket, lock or clock
//! is used here; the simulator uses the same type.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::mux::{self, StreamId, WINDOW};
use crate::time::Instant;

/// Time without progress after which a stream with waiting bytes is stalled.
const STALLED_AFTER: Duration = Duration::from_secs(2);

/// Longest pause in reading from the peer while streams accept bytes, but too few of them.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Limits of the bytes that a session may hold.
#[derive(Clone, Debug)]
pub struct BufferLimits {
    /// Bytes that all streams together may have received and not delivered.
    pub session: usize,
    /// The limit of all sessions of the process together.
    pub process: Option<Arc<ProcessBuffers>>,
    /// Time that a stream may hold bytes without progress; then it is reset.
    pub stall: Option<Duration>,
}

impl BufferLimits {
    /// Returns a limit for one session alone.
    pub fn session(bytes: usize) -> Self {
        BufferLimits { session: bytes, process: None, stall: None }
    }
}

/// Bytes that all sessions of a process hold, and their limit.
#[derive(Debug)]
pub struct ProcessBuffers {
    limit: usize,
    held: AtomicUsize,
}

impl ProcessBuffers {
    /// Creates the count, with no bytes held.
    pub fn new(limit: usize) -> Self {
        ProcessBuffers { limit, held: AtomicUsize::new(0) }
    }

    /// Returns the number of bytes that wait in all sessions.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Counts bytes that still wait after the end of their session. Returns `None` if they
    /// exceed the limit.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Option<HeldBytes> {
        let held = HeldBytes { buffers: Arc::clone(self), bytes };
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        (before.saturating_add(bytes) <= self.limit).then_some(held)
    }
}

/// Bytes without a session. They count in [`ProcessBuffers`] until this is dropped.
#[derive(Debug)]
pub struct HeldBytes {
    buffers: Arc<ProcessBuffers>,
    bytes: usize,
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.buffers.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Decision about the peer's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Read them.
    Read,
    /// Do not read for a moment.
    Wait,
    /// Reset this stream, which holds this number of bytes, and decide again.
    Reset(StreamId, usize),
}

/// The limits of one session and what it holds of them.
#[derive(Debug)]
pub(super) struct InputLimit {
    limits: BufferLimits,
    /// Bytes that are counted in [`ProcessBuffers`].
    reported: usize,
    /// Start of the current pause in reading.
    waiting: Option<Instant>,
    /// Time of the next check for stalled streams.
    next_look: Instant,
}

impl InputLimit {
    pub(super) fn new(limits: BufferLimits) -> Self {
        InputLimit { limits, reported: 0, waiting: None, next_look: Instant::ZERO }
    }

    /// Returns whether the last decision was [`Input::Wait`].
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Decides about the next read.
    pub(super) fn next(&mut self, mux: &mux::Muxer, now: Instant) -> Input {
        self.report(mux.unconsumed());
        if mux.wants_input() && !self.is_exceeded() {
            self.waiting = None;
            return Input::Read;
        }
        let since = *self.waiting.get_or_insert(now);
        if !self.is_exceeded() {
            // The peer does not accept our control frames.
            return Input::Wait;
        }
        let late = now.since(since) >= MAX_WAIT;
        let stalled = mux.largest_buffered(now.before(STALLED_AFTER));
        let slow = || mux.largest_buffered(now).filter(|_| late);
        match stalled.or_else(slow) {
            Some((stream, bytes)) => {
                self.waiting = None;
                Input::Reset(stream, bytes)
            }
            None => Input::Wait,
        }
    }

    /// Returns a stream that has held bytes for too long. Checks once a second.
    pub(super) fn stalled(&mut self, mux: &mux::Muxer, now: Instant) -> Option<(StreamId, usize)> {
        self.report(mux.unconsumed());
        let stall = self.limits.stall.filter(|_| self.is_look_due(now))?;
        let found = mux.largest_buffered(now.before(stall));
        if found.is_none() {
            self.next_look = now + Duration::from_secs(1);
        }
        found
    }

    /// Returns the time of the next call of [`Self::stalled`].
    pub(super) fn next_look(&self) -> Option<Instant> {
        (self.limits.stall.is_some() && self.reported > 0).then_some(self.next_look)
    }

    /// Returns whether [`Self::stalled`] is due.
    pub(super) fn is_look_due(&self, now: Instant) -> bool {
        self.next_look().is_some_and(|look| look <= now)
    }

    fn is_exceeded(&self) -> bool {
        let process = self.limits.process.as_ref();
        // Independent of other sessions, a session may always hold the window of one stream.
        let crowded =
            process.is_some_and(|p| p.held() > p.limit && self.reported > WINDOW as usize);
        self.reported > self.limits.session || crowded
    }

    /// Records the number of bytes that the streams of the session hold.
    pub(super) fn report(&mut self, held: usize) {
        if held == self.reported {
            return;
        }
        if let Some(process) = &self.limits.process {
            // Wraps around, as a difference may be negative.
            process.held.fetch_add(held.wrapping_sub(self.reported), Ordering::Relaxed);
        }
        self.reported = held;
    }
}

impl Drop for InputLimit {
    fn drop(&mut self) {
        self.report(0);
    }
}
