//! The inbound direction of a proxied stream, without a lock, a clock or a socket of its
//! own: the bytes that wait for the outlet, and how the stream ends.
//!
//! Three states: what the peer sent last ([`PeerEnd`]), what became of the outlet
//! ([`OutletState`]), and whether our own direction has ended ([`Outbound`]). Each call
//! returns [`Effects`] for the caller to carry out. A stream is given up by such an effect
//! alone, and only after the outlet was finished or aborted: no end is silent.
//! [`super::Pipe`] drives this type with sockets, the simulator with outlets of its own.

use std::io;
use std::os::fd::RawFd;

use super::outlet::Outlet;
use super::waiting::WaitingBytes;
use crate::mux::Code;

/// Cause of the end of a stream in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// The peer sent RST. Bytes that came before it still count.
    Peer(Code),
    /// This side reset the stream: a limit was reached. Bytes that wait are dropped.
    Local(Code),
    /// The session ended. No event of a descriptor is reported any more, so bytes that
    /// the outlet does not take at once are dropped.
    SessionClosed,
}

impl Reset {
    /// The protocol's code.
    pub fn code(self) -> Code {
        match self {
            Reset::Peer(code) | Reset::Local(code) => code,
            Reset::SessionClosed => Code::SESSION_CLOSED,
        }
    }
}

/// What the peer sent last on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerEnd {
    /// More may come.
    Open,
    /// FIN: the bytes that came are all.
    Finished,
    /// Nothing more comes, and what came may not be all.
    Reset(Reset),
}

/// Whether our own direction of the stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outbound {
    Open,
    Done,
}

/// What became of the outlet.
enum OutletState {
    /// There is none yet.
    Missing,
    /// It takes bytes.
    Ready(Box<dyn Outlet>),
    /// It takes bytes again once its descriptor is writable.
    Full(Box<dyn Outlet>),
    /// The peer's FIN was passed on.
    Finished(Box<dyn Outlet>),
    /// A write failed: bytes that come are consumed unread. The kind of the error, unless
    /// the socket's other direction had ended before (EPIPE).
    Failed(Box<dyn Outlet>, Option<io::ErrorKind>),
    /// It was aborted or is not needed any more, or none is wanted: bytes that come are
    /// consumed unread. The owner takes it ([`Inbound::take_closed`]) to stop watching it.
    Closed(Option<Box<dyn Outlet>>),
}

/// What a call asks of the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "the session has to carry them out"]
pub(crate) struct Effects {
    /// Bytes whose window goes back to the peer.
    pub(crate) consumed: usize,
    /// What becomes of the stream.
    pub(crate) stream: StreamEffect,
}

/// What becomes of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum StreamEffect {
    /// It goes on, or was given up before.
    #[default]
    None,
    /// Both directions have ended: the session forgets the stream.
    Release,
    /// It is reset, and then forgotten.
    Reset(Code),
}

/// The inbound direction of one stream.
pub(crate) struct Inbound {
    waiting: WaitingBytes,
    peer: PeerEnd,
    outlet: OutletState,
    outbound: Outbound,
    /// [`StreamEffect::Release`] or [`StreamEffect::Reset`] was returned.
    released: bool,
}

impl Inbound {
    /// A stream that has just been opened, without an outlet.
    pub(crate) fn new() -> Self {
        Inbound {
            waiting: WaitingBytes::default(),
            peer: PeerEnd::Open,
            outlet: OutletState::Missing,
            outbound: Outbound::Open,
            released: false,
        }
    }

    /// The bytes that wait.
    pub(crate) fn waiting(&self) -> &WaitingBytes {
        &self.waiting
    }

    /// What the peer sent last.
    pub(crate) fn peer(&self) -> PeerEnd {
        self.peer
    }

    /// Whether the stream was reset, by either side.
    pub(crate) fn is_reset(&self) -> bool {
        matches!(self.peer, PeerEnd::Reset(_))
    }

    /// Whether the descriptor of the outlet has to be watched for room.
    pub(crate) fn wants_room(&self) -> bool {
        matches!(self.outlet, OutletState::Full(_))
    }

    /// The descriptor of the outlet, while there is one.
    pub(crate) fn fd(&self) -> Option<RawFd> {
        match &self.outlet {
            OutletState::Missing | OutletState::Closed(_) => None,
            OutletState::Ready(outlet)
            | OutletState::Full(outlet)
            | OutletState::Finished(outlet)
            | OutletState::Failed(outlet, _) => Some(outlet.fd()),
        }
    }

    /// The error of a failed write. An end that is read from the same socket is not an
    /// orderly one then, because the kernel reports a reset once only.
    pub(crate) fn write_error(&self) -> Option<io::ErrorKind> {
        match self.outlet {
            OutletState::Failed(_, kind) => kind,
            _ => None,
        }
    }

    /// An outlet that has been closed since the last call. Its descriptor is still open.
    pub(crate) fn take_closed(&mut self) -> Option<Box<dyn Outlet>> {
        match &mut self.outlet {
            OutletState::Closed(outlet) => outlet.take(),
            _ => None,
        }
    }

    /// Takes the first `n` bytes that wait, for a reader in place of an outlet.
    pub(crate) fn take(&mut self, n: usize) -> Effects {
        let n = n.min(self.waiting.len());
        self.waiting.take(n);
        self.settle(n)
    }

    /// Connects the outlet. Bytes that wait are written to it.
    pub(crate) fn attach(&mut self, mut outlet: Box<dyn Outlet>) -> Effects {
        match self.outlet {
            OutletState::Missing => self.outlet = OutletState::Ready(outlet),
            // The stream ended while the upstream was dialled.
            _ => outlet.abort(),
        }
        self.room()
    }

    /// Takes bytes of the peer.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> Effects {
        let takes = !matches!(self.outlet, OutletState::Failed(..) | OutletState::Closed(_));
        if !takes || self.is_reset() {
            return Effects { consumed: bytes.len(), ..Effects::default() };
        }
        let mut done = 0;
        if self.waiting.is_empty()
            && let OutletState::Ready(outlet) = &mut self.outlet
        {
            match write_all(outlet.as_mut(), bytes, &mut done) {
                Ok(()) => return Effects { consumed: done, ..Effects::default() },
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.set_full(),
                Err(e) => {
                    let _ = self.fail(&e);
                    return self.settle(bytes.len());
                }
            }
        }
        if !self.waiting.push(&bytes[done..]) {
            let effects = self.reset_local(Code::INTERNAL_ERROR);
            return Effects { consumed: effects.consumed + bytes.len(), ..effects };
        }
        Effects { consumed: done, ..Effects::default() }
    }

    /// The peer sent FIN.
    pub(crate) fn finished(&mut self) -> Effects {
        if self.peer == PeerEnd::Open {
            self.peer = PeerEnd::Finished;
        }
        self.room()
    }

    /// The stream was reset by the peer or by the session.
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

    /// Writes what waits, as far as the outlet takes it. To be called when there may be
    /// room.
    pub(crate) fn room(&mut self) -> Effects {
        let done = self.drain();
        self.settle(done)
    }

    /// No more bytes are wanted, and there will be no outlet: those that wait and those
    /// that come are consumed unread. Resets an outlet that has not received all.
    pub(crate) fn discard(&mut self) -> Effects {
        let done = self.waiting.clear();
        match self.outlet {
            OutletState::Finished(_) | OutletState::Failed(..) => {}
            _ => self.abort(),
        }
        self.settle(done)
    }

    /// Our own direction has ended.
    pub(crate) fn outbound_done(&mut self) -> Effects {
        self.outbound = Outbound::Done;
        self.settle(0)
    }

    /// Writes what waits. Returns how many bytes are consumed.
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

    /// The outlet takes nothing any more. Returns how many bytes waited for it.
    fn fail(&mut self, error: &io::Error) -> usize {
        let kind = (error.kind() != io::ErrorKind::BrokenPipe).then(|| error.kind());
        self.outlet = match self.take_outlet() {
            OutletState::Ready(mut outlet) | OutletState::Full(mut outlet) => {
                // A connection that is alive all the same would wait for the rest forever.
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

    /// Passes the peer's end on once all bytes have left, and gives the stream up once
    /// both directions have ended.
    fn settle(&mut self, consumed: usize) -> Effects {
        if self.released {
            return Effects { consumed, stream: StreamEffect::None };
        }
        let mut stream = StreamEffect::None;
        let failed = matches!(self.outlet, OutletState::Failed(..));
        if failed && self.outbound == Outbound::Done && self.peer == PeerEnd::Open {
            // The upstream neither takes nor sends any more: the peer has to know.
            self.peer = PeerEnd::Reset(Reset::Local(Code::STREAM_CLOSED));
            stream = StreamEffect::Reset(Code::STREAM_CLOSED);
        }
        // What an outlet holds itself has to leave first, too.
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

/// Writes `bytes` and flushes; `done` counts the bytes that the outlet took.
fn write_all(outlet: &mut dyn Outlet, bytes: &[u8], done: &mut usize) -> io::Result<()> {
    while *done < bytes.len() {
        match outlet.write(&bytes[*done..])? {
            0 => return Err(io::ErrorKind::WouldBlock.into()),
            n => *done += n,
        }
    }
    outlet.flush()
}
