//! Sealed records on their way to the socket: a buffer of fixed size that
//! records are made in. No socket calls but the one that empties it.

use std::io;
use std::os::fd::RawFd;

use crate::link::records::{Content, HEADER, MAX_CONTENT, RecordError, Sealer, TRAILER};
use crate::sys;

/// Bytes of the largest record.
const RECORD: usize = HEADER + MAX_CONTENT + TRAILER;

/// Bytes that a turn may fill: two full records go out with one system call.
/// More would only make others wait longer for their turn.
const TURN: usize = 2 * RECORD;

/// Bytes that may wait in all: a record more, for control frames and short
/// answers while a turn's bytes wait for the socket.
const CAPACITY: usize = TURN + RECORD;

/// The buffer. Memory is touched, and zeroed once, only as far as it is used.
pub(super) struct Outbox {
    buf: Vec<u8>,
    sent: usize,
    end: usize,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Outbox { buf: Vec::new(), sent: 0, end: 0 }
    }

    /// Whether a turn may add a whole record.
    pub(super) fn has_room(&self) -> bool {
        self.end + RECORD <= TURN
    }

    /// Whether control may add a whole record.
    pub(super) fn has_reserve(&self) -> bool {
        self.end + RECORD <= CAPACITY
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.end
    }

    /// Makes one record: `fill` writes its content and returns the length; 0 makes none.
    /// The caller has
    /// checked that there is room. `most` bounds the content.
    pub(super) fn record(
        &mut self,
        sealer: &mut Sealer,
        content: Content,
        most: usize,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<(), RecordError> {
        let start = self.end;
        let most = most.min(MAX_CONTENT);
        let end = start + HEADER + most + TRAILER;
        if self.buf.len() < end {
            if self.buf.capacity() < CAPACITY {
                self.buf.reserve_exact(CAPACITY - self.buf.len());
            }
            self.buf.resize(end, 0);
        }
        let len = fill(&mut self.buf[start + HEADER..start + HEADER + most]).min(most);
        if len > 0 {
            self.end += sealer.seal(content, &mut self.buf[start..], len)?;
        }
        Ok(())
    }

    /// Sends what the socket takes. `Ok(true)`: nothing is left.
    pub(super) fn flush(&mut self, fd: RawFd) -> io::Result<bool> {
        while self.sent < self.end {
            match sys::send_now(fd, &self.buf[self.sent..self.end]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    // Makes room at the end for whole records.
                    self.buf.copy_within(self.sent..self.end, 0);
                    self.end -= self.sent;
                    self.sent = 0;
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
        self.end = 0;
        self.sent = 0;
        Ok(true)
    }
}
