//! Inbound direction of a proxied stream, without lock, clock and socket: the bytes that wait
//! for the outlet, and the end of the stream.
//!
//! It has three states: the last message of the peer ([`PeerEnd`]), the outlet
//! ([`OutletState`]), and our own direction ([`Outbound`]). Each call returns [`Effects`] for
//! the caller to carry out. Only such an effect releases a stream, and only after the outlet
//! was finished or aborted, so every end is visible. [`super::Pipe`] uses this type with
//! sockets, the simulator with outlets of its own.

use std::io::{self, IoSlice};
use std::os::fd::RawFd;

use super::outlet::Outlet;
use super::waiting::WaitingBytes;
use crate::mux::Code;

/// Cause of the end of a stream in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// The peer sent RST. Bytes that arrived before it are still delivered.
    Peer(Code),
    /// This side reset the stream because of a limit. Waiting bytes are dropped.
    Local(Code),
    /// The session ended. Descriptors are no longer watched, so bytes that the outlet does not
    /// accept at once are dropped.
    SessionClosed,
}

impl Reset {
    /// Returns the code in the protocol.
    pub fn code(self) -> Code {
        match self {
            Reset::Peer(code) | Reset::Local(code) => code,
            Reset::SessionClosed => Code::SESSION_CLOSED,
        }
    }
}

/// Last message of the peer on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerEnd {
    /// Further bytes may arrive.
    Open,
    /// FIN: all bytes have arrived.
    Finished,
    /// The end arrived, and bytes may be missing.
    Reset(Reset),
}

/// Whether our own direction of the stream is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outbound {
    Open,
    Done,
}

/// State of the outlet.
enum OutletState {
    /// Not connected yet.
    Missing,
    /// It accepts bytes.
    Ready(Box<dyn Outlet>),
    /// It accepts bytes again when its descriptor is writable.
    Full(Box<dyn Outlet>),
    /// The peer's FIN was passed on.
    Finished(Box<dyn Outlet>),
    /// A write failed: further bytes are consumed unread. With the kind of the error, unless
    /// the socket's other direction had ended before (EPIPE).
    Failed(Box<dyn Outlet>, Option<io::ErrorKind>),
    /// It was aborted, is not needed any longer, or was never wanted: further bytes are
    /// consumed unread. The owner removes it ([`Inbound::take_closed`]) to stop watching it.
    Closed(Option<Box<dyn Outlet>>),
}

/// Actions that a call leaves to the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "the session has to carry them out"]
pub(crate) struct Effects {
    /// Bytes whose window is returned to the peer.
    pub(crate) consumed: usize,
    /// Effect on the stream.
    pub(crate) stream: StreamEffect,
}

/// Effect of a call on a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum StreamEffect {
    /// The stream stays open, or was released before.
    #[default]
    None,
    /// Both directions have ended. The session forgets the stream.
    Release,
    /// The stream is reset and then forgotten.
    Reset(Code),
}

/// Inbound direction of one stream.
pub(crate) struct Inbound {
    waiting: WaitingBytes,
    peer: PeerEnd,
    outlet: OutletState,
    outbound: Outbound,
    /// Whether [`StreamEffect::Release`] or [`StreamEffect::Reset`] was returned.
    released: bool,
}

impl Inbound {
    /// Creates the state of a new stream without an outlet.
    pub(crate) fn new() -> Self {
        Inbound {
            waiting: WaitingBytes::default(),
            peer: PeerEnd::Open,
            outlet: OutletState::Missing,
            outbound: Outbound::Open,
            released: false,
        }
    }

    /// Returns the waiting bytes.
    pub(crate) fn waiting(&self) -> &WaitingBytes {
        &self.waiting
    }

    /// Returns the last message of the peer.
    pub(crate) fn peer(&self) -> PeerEnd {
        self.peer
    }

    /// Returns whether the stream was reset, by either side.
    pub(crate) fn is_reset(&self) -> bool {
        matches!(self.peer, PeerEnd::Reset(_))
    }

    /// Returns whether the descriptor of the outlet must be watched for room.
    pub(crate) fn wants_room(&self) -> bool {
        matches!(self.outlet, OutletState::Full(_))
    }

    /// Returns the descriptor of the outlet, if there is one.
    pub(crate) fn fd(&self) -> Option<RawFd> {
        match &self.outlet {
            OutletState::Missing | OutletState::Closed(_) => None,
            OutletState::Ready(outlet)
            | OutletState::Full(outlet)
            | OutletState::Finished(outlet)
            | OutletState::Failed(outlet, _) => Some(outlet.fd()),
        }
    }

    /// Returns the error of a failed write. An end that is read from the same socket is then
    /// not an orderly one, because the kernel reports a reset only once.
    pub(crate) fn write_error(&self) -> Option<io::ErrorKind> {
        match self.outlet {
            OutletState::Failed(_, kind) => kind,
            _ => None,
        }
    }

    /// Removes and returns an outlet that was closed since the last call. Its descriptor is
    /// still open.
    pub(crate) fn take_closed(&mut self) -> Option<Box<dyn Outlet>> {
        match &mut self.outlet {
            OutletState::Closed(outlet) => outlet.take(),
            _ => None,
        }
    }

    /// Removes the first `n` waiting bytes, for a reader in place of an outlet.
    pub(crate) fn take(&mut self, n: usize) -> Effects {
        let n = n.min(self.waiting.len());
        self.waiting.take(n);
        self.settle(n)
    }

    /// Connects the outlet and writes the waiting bytes to it.
    pub(crate) fn attach(&mut self, mut outlet: Box<dyn Outlet>) -> Effects {
        match self.outlet {
            OutletState::Missing => self.outlet = OutletState::Ready(outlet),
            // The stream ended while the upstream was dialled.
            _ => outlet.abort(),
        }
        self.room()
    }

    /// Accepts bytes of the peer from several buffers.
    pub(crate) fn data(&mut self, parts: &[IoSlice<'_>]) -> Effects {
        let len = parts.iter().map(|part| part.len()).sum();
        let takes = !matches!(self.outlet, OutletState::Failed(..) | OutletState::Closed(_));
        if !takes || self.is_reset() {
            return Effects { consumed: len, ..Effects::default() };
        }
        let mut done = 0;
        if self.waiting.is_empty()
            && let OutletState::Ready(outlet) = &mut self.outlet
        {
            match write_parts(outlet.as_mut(), parts, &mut done) {
                Ok(()) => return Effects { consumed: done, ..Effects::default() },
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.set_full(),
                Err(e) => {
                    let _ = self.fail(&e);
                    return self.settle(len);
                }
            }
        }
        let mut left = len - done;
        for rest in rest(parts, done) {
            if !self.waiting.push(rest) {
                let effects = self.reset_local(Code::INTERNAL_ERROR);
                return Effects { consumed: effects.consumed + done + left, ..effects };
            }
            left -= rest.len();
        }
        Effects { consumed: done, ..Effects::default() }
    }

    /// Processes a FIN of the peer.
    pub(crate) fn finished(&mut self) -> Effects {
        if self.peer == PeerEnd::Open {
            self.peer = PeerEnd::Finished;
        }
        self.room()
    }

    /// Processes a reset by the peer or by the session.
    pub(crate) fn reset(&mut self, reset: Reset) -> Effects {
        if !self.is_reset() {
            self.peer = PeerEnd::Reset(reset);
        }
        let mut done = match reset {
            Reset::Local(_) => 0,
            Reset::Peer(_) | Reset::SessionClosed => self.drain(),
        };
        if !matches!(reset, Reset::Peer(_)) {
            done += self.waiting.clear();
            self.abort();
        }
        self.settle(done)
    }

    /// Resets the stream from this side and drops the bytes that wait.
    pub(crate) fn reset_local(&mut self, code: Code) -> Effects {
        let known = self.is_reset() || self.released;
        let effects = self.reset(Reset::Local(code));
        match known {
            true => effects,
            false => Effects { stream: StreamEffect::Reset(code), ..effects },
        }
    }

    /// Writes waiting bytes as far as the outlet accepts them. Called when there may be room.
    pub(crate) fn room(&mut self) -> Effects {
        let done = self.drain();
        self.settle(done)
    }

    /// Discards the waiting bytes and all further ones: they are consumed unread, and no outlet
    /// follows. Resets an outlet that has not received all bytes.
    pub(crate) fn discard(&mut self) -> Effects {
        let done = self.waiting.clear();
        match self.outlet {
            OutletState::Finished(_) | OutletState::Failed(..) => {}
            _ => self.abort(),
        }
        self.settle(done)
    }

    /// Records the end of our own direction.
    pub(crate) fn outbound_done(&mut self) -> Effects {
        self.outbound = Outbound::Done;
        self.settle(0)
    }

    /// Writes waiting bytes. Returns how many bytes are consumed.
    fn drain(&mut self) -> usize {
        let mut done = 0;
        let (OutletState::Ready(outlet) | OutletState::Full(outlet)) = &mut self.outlet else {
            return 0;
        };
        let written = write_all(outlet.as_mut(), self.waiting.as_slice(), &mut done);
        self.waiting.take(done);
        match written {
            Ok(()) => self.set_ready(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.set_full(),
            Err(e) => done += self.fail(&e),
        }
        done
    }

    /// Marks the outlet as failed. Returns how many bytes waited for it.
    fn fail(&mut self, error: &io::Error) -> usize {
        let kind = (error.kind() != io::ErrorKind::BrokenPipe).then(|| error.kind());
        self.outlet = match self.take_outlet() {
            OutletState::Ready(mut outlet) | OutletState::Full(mut outlet) => {
                // A connection that is still alive would wait forever for the rest.
                outlet.finish();
                OutletState::Failed(outlet, kind)
            }
            other => other,
        };
        self.waiting.clear()
    }

    fn set_ready(&mut self) {
        self.outlet = match self.take_outlet() {
            OutletState::Full(outlet) => OutletState::Ready(outlet),
            other => other,
        };
    }

    fn set_full(&mut self) {
        self.outlet = match self.take_outlet() {
            OutletState::Ready(outlet) => OutletState::Full(outlet),
            other => other,
        };
    }

    fn finish_outlet(&mut self) {
        self.outlet = match self.take_outlet() {
            OutletState::Ready(mut outlet) => {
                outlet.finish();
                OutletState::Finished(outlet)
            }
            other => other,
        };
    }

    fn abort(&mut self) {
        self.close(|outlet| outlet.abort());
    }

    fn close(&mut self, last: impl FnOnce(&mut dyn Outlet)) {
        self.outlet = match self.take_outlet() {
            OutletState::Missing => OutletState::Closed(None),
            OutletState::Ready(mut outlet)
            | OutletState::Full(mut outlet)
            | OutletState::Finished(mut outlet)
            | OutletState::Failed(mut outlet, _) => {
                last(outlet.as_mut());
                OutletState::Closed(Some(outlet))
            }
            closed @ OutletState::Closed(_) => closed,
        };
    }

    fn take_outlet(&mut self) -> OutletState {
        std::mem::replace(&mut self.outlet, OutletState::Missing)
    }

    /// Passes the peer's end on after all bytes were written, and releases the stream after
    /// both directions have ended.
    fn settle(&mut self, consumed: usize) -> Effects {
        if self.released {
            return Effects { consumed, stream: StreamEffect::None };
        }
        let mut stream = StreamEffect::None;
        let failed = matches!(self.outlet, OutletState::Failed(..));
        if failed && self.outbound == Outbound::Done && self.peer == PeerEnd::Open {
            // The upstream neither accepts nor sends bytes: the peer must be notified.
            self.peer = PeerEnd::Reset(Reset::Local(Code::STREAM_CLOSED));
            stream = StreamEffect::Reset(Code::STREAM_CLOSED);
        }
        // Bytes that the outlet itself buffers must be sent first.
        if self.waiting.is_empty() && !self.wants_room() {
            match (self.peer, &self.outlet) {
                (PeerEnd::Reset(_), _) => self.abort(),
                (PeerEnd::Finished, OutletState::Ready(_)) => self.finish_outlet(),
                _ => {}
            }
        }
        let over = self.waiting.is_empty()
            && match self.peer {
                PeerEnd::Open => false,
                PeerEnd::Finished => self.outbound == Outbound::Done && !self.wants_room(),
                PeerEnd::Reset(_) => matches!(self.outlet, OutletState::Closed(_)),
            };
        if over {
            self.close(|_| {});
            self.released = true;
            if stream == StreamEffect::None {
                stream = StreamEffect::Release;
            }
        }
        Effects { consumed, stream }
    }
}

/// Does the same as [`write_all`] for bytes in several buffers.
fn write_parts(outlet: &mut dyn Outlet, parts: &[IoSlice<'_>], done: &mut usize) -> io::Result<()> {
    if let [part] = parts {
        return write_all(outlet, part, done);
    }
    *done = outlet.write_parts(parts)?;
    for rest in rest(parts, *done) {
        let mut n = 0;
        let written = write_all(outlet, rest, &mut n);
        *done += n;
        written?;
    }
    outlet.flush()
}

/// Returns what follows the first `done` bytes of `parts`.
fn rest<'b>(parts: &'b [IoSlice<'_>], mut done: usize) -> impl Iterator<Item = &'b [u8]> {
    parts.iter().filter_map(move |part| {
        let skipped = done.min(part.len());
        done -= skipped;
        Some(&part[skipped..]).filter(|rest| !rest.is_empty())
    })
}

/// Writes `bytes` and flushes. `done` counts the bytes that the outlet accepted.
fn write_all(outlet: &mut dyn Outlet, bytes: &[u8], done: &mut usize) -> io::Result<()> {
    while *done < bytes.len() {
        match outlet.write(&bytes[*done..])? {
            0 => return Err(io::ErrorKind::WouldBlock.into()),
            n => *done += n,
        }
    }
    outlet.flush()
}
