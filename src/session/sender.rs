//! Sending: threads take turns at the write half, and flush what they queued.
//!
//! A thread that queues bytes also flushes them: it waits for the socket itself while it has
//! the turn. The reactor sends only bytes that no thread waits for. So bulk in one direction
//! wakes no second thread. The content of records is made in `frame_writer`.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::os::fd::RawFd;
use std::thread;
use std::time::Duration;

use mio::Interest;
use mio::unix::SourceFd;

use super::End;
use super::frame_writer::{Framed, Payload, SealError};
use super::handle::{LINK, Session, WriteHalf};
use super::send_error::SendError;
use crate::mux::{self, Code, StreamId};
use crate::sys::sync::MutexGuard;
use crate::sys::{self, poll};
use crate::time::Deadline;

/// Result of [`Session::forward_small`].
#[derive(Debug)]
pub enum Forwarded {
    /// Bytes were forwarded.
    Sent {
        /// The room was filled, so there may be more.
        full: bool,
    },
    /// The stream's window is empty: [`super::Sink::window`] is called when it has room.
    NoWindow,
    /// The link accepts no bytes at the moment.
    NoRoom,
    /// Nothing was read: the end, or its error.
    Nothing(Option<io::Error>),
}

/// Reason why a turn ended before all bytes were sent.
enum Stop {
    NoWindow,
    Failed(SendError),
}

impl Session {
    /// Sends all of `bytes`. Waits for window and link until `deadline`. Not on the reactor
    /// thread.
    pub fn send(
        &self,
        stream: StreamId,
        mut bytes: &[u8],
        deadline: Deadline,
    ) -> Result<(), SendError> {
        while !bytes.is_empty() {
            let mut sent = 0;
            let stop = self.take_turn(deadline, |out| {
                while sent < bytes.len() && out.send_buffer.has_room() {
                    match self.seal_data(out, stream, &bytes[sent..]) {
                        Ok(n) => sent += n,
                        Err(stop) => return Some(stop),
                    }
                }
                None
            });
            bytes = &bytes[sent..];
            match stop {
                None => {}
                Some(Stop::Failed(e)) => return Err(e),
                Some(Stop::NoWindow) => _ = self.window(stream, deadline)?,
            }
        }
        Ok(())
    }

    /// Forwards the bytes of one `read`, at most `most`, which the caller knows to fit the
    /// stream's window. Waits for the link. `read` must not block, and fills its buffers from
    /// the first on. For a stream that the peer knows (it opened the stream, or received bytes
    /// on it) and whose only sender is the caller. Not on the reactor thread.
    pub fn forward_bulk(
        &self,
        stream: StreamId,
        most: usize,
        read: impl Fn(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> Result<io::Result<usize>, SendError> {
        let mut passed = None;
        let stop = self.take_turn(Deadline::Never, |out| {
            if passed.is_some() || !out.send_buffer.has_room() {
                return None;
            }
            let WriteHalf { sealer, send_buffer, .. } = out;
            let mut over = None;
            let sealed = send_buffer.records(sealer, most, &read, |len| {
                let mut core = self.core();
                if core.end.is_some() {
                    over = Some(SendError::Over);
                    return None;
                }
                match core.mux.grant(stream, len) {
                    Ok(grant) => Some(grant.header),
                    Err(mux::GrantError::Closed(code)) => {
                        over = Some(SendError::Closed(code));
                        None
                    }
                    Err(_) => {
                        over = Some(SendError::Closed(Code::INTERNAL_ERROR));
                        None
                    }
                }
            });
            match sealed {
                Ok(read) => passed = Some(read),
                Err(e) => {
                    self.break_off(&e);
                    over = Some(SendError::Over);
                }
            }
            over.map(Stop::Failed)
        });
        match (stop, passed) {
            (Some(Stop::Failed(e)), _) => Err(e),
            (_, Some(passed)) => Ok(passed),
            // Room was found, or the turn would have failed; nothing could be read.
            (_, None) => Ok(Err(io::ErrorKind::WouldBlock.into())),
        }
    }

    /// Takes one turn at the write half. The bytes that `fill` puts into the send buffer are
    /// flushed. It is called again after a part was sent, until it returns a reason to stop.
    fn take_turn(
        &self,
        deadline: Deadline,
        mut fill: impl FnMut(&mut WriteHalf) -> Option<Stop>,
    ) -> Option<Stop> {
        let mut out = self.out();
        let me = thread::current();
        let mut queued = false;
        loop {
            let first = match out.turns.front() {
                Some(front) => queued && front.id() == me.id(),
                None => !queued,
            };
            // The end of the session empties the queue.
            if queued && out.turns.is_empty() {
                return Some(Stop::Failed(SendError::Over));
            }
            if first && out.send_buffer.has_room() {
                break;
            }
            if !queued {
                out.turns.push_back(me.clone());
                queued = true;
                continue;
            }
            if first && !out.send_buffer.is_lent() {
                // No thread is sending: the queued bytes are sent first.
                let sent;
                (out, sent) = self.drain(out, Some(deadline));
                if let Err(e) = sent {
                    drop(out);
                    self.leave_queue();
                    return Some(Stop::Failed(e));
                }
                continue;
            }
            drop(out);
            if let Err(e) = pause(deadline) {
                self.leave_queue();
                return Some(Stop::Failed(e));
            }
            out = self.out();
        }
        let mut stop = fill(&mut out);
        if queued {
            out.turns.pop_front();
            out.wake_next();
        }
        // If this thread may not wait, the reactor sends the sealed records.
        let wait = stop.is_none().then_some(deadline);
        let (out, sent) = self.drain(out, wait);
        drop(out);
        if let Err(e) = sent {
            stop.get_or_insert(Stop::Failed(e));
        }
        // Control frames that others queued while this thread held the write half.
        self.pump_control();
        stop
    }

    /// Sends the send buffer without holding the lock. Another thread that is sending sends
    /// these bytes too. The rest waits for the socket until `wait`, or is left to the reactor.
    fn drain<'a>(
        &'a self,
        mut out: MutexGuard<'a, WriteHalf>,
        wait: Option<Deadline>,
    ) -> (MutexGuard<'a, WriteHalf>, Result<(), SendError>) {
        while let Some(mut batch) = out.send_buffer.lend() {
            // The other buffer is free now.
            out.wake_next();
            let fd = out.fd();
            drop(out);
            let result = loop {
                match (batch.send(fd), wait) {
                    (Ok(true), _) => break Ok(true),
                    (Ok(false), None) => break Ok(false),
                    (Ok(false), Some(deadline)) => {
                        if let Err(e) = wait_for_room(fd, deadline) {
                            break Err(e);
                        }
                        if self.is_over() {
                            break Err(SendError::Over);
                        }
                    }
                    (Err(e), _) => {
                        self.break_off(&e);
                        break Err(SendError::Over);
                    }
                }
            };
            out = self.out();
            out.send_buffer.give_back(batch);
            match result {
                Ok(true) => {}
                Ok(false) => {
                    self.arm(&mut out);
                    return (out, Ok(()));
                }
                Err(e) => {
                    self.arm(&mut out);
                    return (out, Err(e));
                }
            }
        }
        out.wake_next();
        (out, Ok(()))
    }

    /// Ends the session because of an error at the write half, whose lock may be held. The
    /// reactor wakes up and notifies the others.
    fn break_off(&self, why: &dyn fmt::Display) {
        self.core().fail(End::Lost(why.to_string()));
        self.wake_reactor();
    }

    /// Flushes the waiting control frames, if any.
    fn pump_control(&self) {
        let waiting = self.core().mux.has_transmit();
        if waiting {
            self.pump();
        }
    }

    fn leave_queue(&self) {
        let me = thread::current().id();
        let mut out = self.out();
        out.turns.retain(|t| t.id() != me);
        out.wake_next();
        drop(out);
        // Control frames that others queued while this thread held the write half.
        self.pump_control();
    }

    /// Returns how many bytes `stream` may send now, at least 1. Waits until `deadline` for the
    /// peer to grant window. A caller that reads no more than that from elsewhere never holds
    /// bytes that cannot be sent. After [`SendError::Late`] the sink's [`super::Sink::window`]
    /// is called when there is room again.
    pub fn window(&self, stream: StreamId, deadline: Deadline) -> Result<usize, SendError> {
        loop {
            let mut core = self.core();
            if core.end.is_some() {
                return Err(SendError::Over);
            }
            match core.mux.window(stream) {
                Ok(n) => return Ok(n),
                Err(mux::GrantError::Closed(code)) => return Err(SendError::Closed(code)),
                Err(_) => {}
            }
            if deadline.due(sys::clock()) {
                return Err(SendError::Late);
            }
            core.windows.push((stream, thread::current()));
            drop(core);
            // A last check after the deadline, so that new room is not missed.
            let _ = pause(deadline);
            let me = thread::current().id();
            self.core().windows.retain(|(_, t)| t.id() != me);
        }
    }

    /// Sends bytes that can be sent at once: from the reactor thread, or where losing the rest
    /// is better than waiting. Returns how many were sent. Small responses fit even while other
    /// threads wait for the socket.
    pub fn try_send(&self, stream: StreamId, bytes: &[u8]) -> Result<usize, SendError> {
        let mut sent = Ok(0);
        let mut out = self.out();
        while let Ok(n) = sent
            && n < bytes.len()
            && out.send_buffer.has_reserve()
        {
            match self.seal_data(&mut out, stream, &bytes[n..]) {
                Ok(more) => sent = Ok(n + more),
                Err(Stop::NoWindow) => break,
                Err(Stop::Failed(e)) => sent = Err(e),
            }
        }
        drop(out);
        // Also if nothing was sent: waiting control frames may be in the send buffer now.
        self.flush();
        self.pump();
        sent
    }

    /// Forwards a small `read`, on the reactor thread. `read` must not block, and its buffer is
    /// limited to the bytes that can be sent at once. They are sealed and sent at the end of
    /// the reactor's turn, together with the bytes of other streams in one system call.
    pub fn forward_small(
        &self,
        stream: StreamId,
        read: impl Fn(&mut [u8]) -> io::Result<usize>,
    ) -> Result<Forwarded, SendError> {
        let mut out = self.out();
        while out.send_buffer.has_reserve() {
            match self.seal_frame(&mut out, stream, &Payload::Read(&read)) {
                // Many control frames went first, alone.
                Ok(Framed::Control) => {}
                Ok(Framed::Data { full, .. }) => return Ok(Forwarded::Sent { full }),
                Ok(Framed::NoWindow) => return Ok(Forwarded::NoWindow),
                Ok(Framed::Nothing(end)) => return Ok(Forwarded::Nothing(end)),
                Err(error) => {
                    drop(out);
                    return Err(self.send_error(error));
                }
            }
        }
        Ok(Forwarded::NoRoom)
    }

    /// Seals as many of `bytes` as fit one record, after the waiting control frames.
    fn seal_data(
        &self,
        out: &mut WriteHalf,
        stream: StreamId,
        bytes: &[u8],
    ) -> Result<usize, Stop> {
        while out.send_buffer.has_reserve() {
            match self.seal_frame(out, stream, &Payload::Bytes(bytes)) {
                Ok(Framed::Control) => {}
                Ok(Framed::Data { bytes, .. }) => return Ok(bytes),
                Ok(Framed::NoWindow | Framed::Nothing(_)) => return Err(Stop::NoWindow),
                Err(error) => return Err(Stop::Failed(self.send_error(error))),
            }
        }
        Ok(0)
    }

    /// Returns the error for the sender of a record that could not be made. The write half may
    /// be locked.
    fn send_error(&self, error: SealError) -> SendError {
        match error {
            SealError::Over => SendError::Over,
            SealError::Closed(code) => SendError::Closed(code),
            SealError::Record(error) => {
                self.break_off(&error);
                SendError::Over
            }
        }
    }

    /// Sends the records of [`Self::forward_small`].
    pub(super) fn flush(&self) {
        // A failure has ended the session.
        let _ = self.drain(self.out(), None);
    }

    /// Flushes the waiting control frames. If another thread holds the write half, it flushes
    /// them afterwards. Never blocks for long; errors end the session.
    pub(super) fn pump(&self) {
        loop {
            let Some(out) = self.0.out.try_lock() else { return };
            let (out, all) = self.push_out(out);
            drop(out);
            // Another thread may have queued more and found the write half locked.
            if !all || !self.core().mux.has_transmit() {
                return;
            }
        }
    }

    /// Seals the waiting control frames as far as there is room, and sends. Returns whether
    /// there was room for all of them.
    pub(super) fn push_out<'a>(
        &'a self,
        mut out: MutexGuard<'a, WriteHalf>,
    ) -> (MutexGuard<'a, WriteHalf>, bool) {
        loop {
            let mut more = true;
            let sealed = self.seal_control(&mut out, &mut more);
            if let Err(why) = sealed {
                self.core().fail(End::Lost(why));
                self.wake_reactor();
                return (out, false);
            }
            let sent;
            (out, sent) = self.drain(out, None);
            if sent.is_err() || !more || !out.send_buffer.has_reserve() {
                return (out, sent.is_ok() && !more);
            }
        }
    }

    /// Leaves the send buffer to the reactor.
    fn arm(&self, out: &mut WriteHalf) {
        // Registers the socket even if it is registered: its event may have been consumed while
        // another thread had the bytes. A new registration repeats the event.
        out.armed = self.listen(out, Interest::READABLE | Interest::WRITABLE);
    }

    /// Continues after the reactor found the socket writable: waiting bytes are sent, and the
    /// next turn begins.
    pub(super) fn room(&self) {
        self.pump();
        let mut out = self.out();
        if out.armed && out.send_buffer.is_empty() {
            out.armed = !self.listen(&mut out, Interest::READABLE);
        }
    }

    fn listen(&self, out: &mut WriteHalf, interest: Interest) -> bool {
        self.0.registry.reregister(&mut SourceFd(&out.fd()), LINK, interest).is_ok()
    }
}

impl WriteHalf {
    /// Wakes the thread with the next turn, if there is room for it.
    fn wake_next(&self) {
        if let Some(next) = self.turns.front()
            && self.send_buffer.has_room()
        {
            next.unpark();
        }
    }
}

/// Waits for a wakeup, at most a second: then the caller checks by itself.
fn pause(deadline: Deadline) -> Result<(), SendError> {
    thread::park_timeout(step(deadline)?);
    Ok(())
}

/// Waits until the socket accepts bytes or is dead; at most a second.
fn wait_for_room(fd: RawFd, deadline: Deadline) -> Result<(), SendError> {
    // The next flush reports an error.
    let _ = poll::writable(&fd, Some(step(deadline)?));
    Ok(())
}

fn step(deadline: Deadline) -> Result<Duration, SendError> {
    let most = Duration::from_secs(1);
    let left = deadline.left(sys::clock()).unwrap_or(most);
    if left.is_zero() { Err(SendError::Late) } else { Ok(left.min(most)) }
}
