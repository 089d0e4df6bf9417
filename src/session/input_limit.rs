//! Whether the reactor reads from the peer, decided from the bytes that streams hold.
//!
//! Back pressure comes before a reset: a reader that pauses gets no window, and above half
//! of the limit slow readers get less (`mux`). Only where the windows that peers have
//! anyway exceed the limit is a stream reset: one that takes nothing, the largest first.
//! No socket, lock or clock here; the simulator drives the same type.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::mux::{self, StreamId, WINDOW};
use crate::time::Instant;

/// A stream that consumes nothing for so long while bytes wait is stalled.
const STALLED_AFTER: Duration = Duration::from_secs(2);

/// Longest time that the peer is not read while streams take bytes, but too few of them.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// How many bytes a session may hold.
#[derive(Clone, Debug)]
pub struct BufferLimits {
    /// Bytes that all streams together may have received and not passed on.
    pub session: usize,
    /// The limit of all sessions of the process together.
    pub process: Option<Arc<ProcessBuffers>>,
    /// How long a stream may keep bytes without passing any on; then it is reset.
    pub stall: Option<Duration>,
}

impl BufferLimits {
    /// A limit for one session alone.
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
    /// Nothing held.
    pub fn new(limit: usize) -> Self {
        ProcessBuffers { limit, held: AtomicUsize::new(0) }
    }

    /// Bytes that wait in all sessions.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Counts bytes that still wait after the end of their session. `None` if they exceed the
    /// limit.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Option<HeldBytes> {
        let held = HeldBytes { buffers: Arc::clone(self), bytes };
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        (before.saturating_add(bytes) <= self.limit).then_some(held)
    }
}

/// Bytes without a session that count in [`ProcessBuffers`] until this is dropped.
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

/// What to do about the peer's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Read them.
    Read,
    /// Leave them where they are for a moment.
    Wait,
    /// Reset this stream, which holds so many bytes, and ask again.
    Reset(StreamId, usize),
}

/// The limits of one session and what it holds of them.
#[derive(Debug)]
pub(super) struct InputLimit {
    limits: BufferLimits,
    /// Bytes that are counted in [`ProcessBuffers`].
    reported: usize,
    /// Since when the peer has not been read.
    waiting: Option<Instant>,
    /// When stalled streams are looked for next.
    next_look: Instant,
}

impl InputLimit {
    pub(super) fn new(limits: BufferLimits) -> Self {
        InputLimit { limits, reported: 0, waiting: None, next_look: Instant::ZERO }
    }

    /// Whether the last answer was [`Input::Wait`].
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
            // The peer does not take our control frames.
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

    /// A stream that has kept bytes for longer than it may, looked for once a second.
    pub(super) fn stalled(&mut self, mux: &mux::Muxer, now: Instant) -> Option<(StreamId, usize)> {
        self.report(mux.unconsumed());
        let stall = self.limits.stall.filter(|_| self.is_look_due(now))?;
        let found = mux.largest_buffered(now.before(stall));
        if found.is_none() {
            self.next_look = now + Duration::from_secs(1);
        }
        found
    }

    /// When [`Self::stalled`] wants to be asked.
    pub(super) fn next_look(&self) -> Option<Instant> {
        (self.limits.stall.is_some() && self.reported > 0).then_some(self.next_look)
    }

    /// Whether it is time for [`Self::stalled`].
    pub(super) fn is_look_due(&self, now: Instant) -> bool {
        self.next_look().is_some_and(|look| look <= now)
    }

    fn is_exceeded(&self) -> bool {
        let process = self.limits.process.as_ref();
        // A stream's window is always there for a session, whatever others hold.
        let crowded =
            process.is_some_and(|p| p.held() > p.limit && self.reported > WINDOW as usize);
        self.reported > self.limits.session || crowded
    }

    /// The streams of the session hold so many bytes.
    pub(super) fn report(&mut self, held: usize) {
        if held == self.reported {
            return;
        }
        if let Some(process) = &self.limits.process {
            // Wraps around, which an addition of a difference may.
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
