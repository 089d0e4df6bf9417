//! Sealed records on their way to the socket: a buffer of fixed size in which records are made.
//! The only system call here is the one that sends them.

use std::array;
use std::io::{self, IoSliceMut};
use std::os::fd::RawFd;

use crate::mux::frame::HEADER_BYTES;
use crate::sys;
use crate::tls::records::{
    ContentType, HEADER as RECORD_HEADER_BYTES, MAX_CONTENT_BYTES, RecordError, Sealer, TRAILER,
};

/// Bytes of the largest record.
const RECORD_BYTES: usize = RECORD_HEADER_BYTES + MAX_CONTENT_BYTES + TRAILER;

/// Records that one turn may fill. Four are sent with one system call, a quarter of a stream's
/// window. More would only delay the turns of other threads.
const TURN_RECORDS: usize = 4;

/// Bytes of the records of a turn.
const TURN_BYTES: usize = TURN_RECORDS * RECORD_BYTES;

/// Payload of a full record that holds one frame.
const RECORD_PAYLOAD_BYTES: usize = MAX_CONTENT_BYTES - HEADER_BYTES;

/// Bytes that may wait in all: one more record, for control frames and short responses while a
/// turn's bytes wait for the socket.
const CAPACITY_BYTES: usize = TURN_BYTES + RECORD_BYTES;

/// Step by which a buffer grows up to the size of one record. An idle session sends heartbeats
/// only, and an edge has a thousand of them.
const GROWTH_BYTES: usize = 1_024;

/// Two buffers. Records are made in one, under the lock. The other is lent to the thread that
/// sends it, without the lock. So no thread waits for a system call of another one, and bytes
/// that are queued in the meantime are sent together. A buffer is as large as the largest record
/// so far, and after more than one record it has its full size. Memory is touched, and zeroed
/// once, only as far as it is used. A single sender uses one buffer only.
pub(super) struct SendBuffer {
    filling: Batch,
    leaving: Batch,
    /// Whether `leaving` is lent to the thread that sends it.
    lent: bool,
}

/// Sealed records. A part of them may have been sent.
#[derive(Default)]
pub(super) struct Batch {
    buf: Vec<u8>,
    sent: usize,
    end: usize,
}

impl Batch {
    /// Sends as many bytes as the socket accepts. Returns true if none are left.
    pub(super) fn send(&mut self, fd: RawFd) -> io::Result<bool> {
        while self.sent < self.end {
            match sys::send_now(fd, &self.buf[self.sent..self.end]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        self.sent = 0;
        self.end = 0;
        Ok(true)
    }

    fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Ensures that the buffer has at least `end` bytes.
    fn reserve(&mut self, end: usize) -> Result<(), RecordError> {
        if self.buf.len() < end {
            if self.buf.capacity() < end {
                let size = if end <= RECORD_BYTES {
                    end.next_multiple_of(GROWTH_BYTES)
                } else {
                    CAPACITY_BYTES.max(end)
                };
                let more = size - self.buf.len();
                self.buf.try_reserve_exact(more).map_err(|_| RecordError::NoMemory)?;
            }
            self.buf.resize(end, 0);
        }
        Ok(())
    }
}

impl SendBuffer {
    pub(super) fn new() -> Self {
        SendBuffer { filling: Batch::default(), leaving: Batch::default(), lent: false }
    }

    /// Returns whether a turn may add a whole record.
    pub(super) fn has_room(&self) -> bool {
        self.filling.end + RECORD_BYTES <= TURN_BYTES
    }

    /// Returns whether control frames may add a whole record.
    pub(super) fn has_reserve(&self) -> bool {
        self.filling.end + RECORD_BYTES <= CAPACITY_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.lent && self.leaving.is_empty() && self.filling.is_empty()
    }

    /// Returns whether a thread is sending.
    pub(super) fn is_lent(&self) -> bool {
        self.lent
    }

    /// Lends the next bytes to send, in order, to one thread at a time.
    pub(super) fn lend(&mut self) -> Option<Batch> {
        if self.lent {
            return None;
        }
        if self.leaving.is_empty() {
            if self.filling.is_empty() {
                return None;
            }
            std::mem::swap(&mut self.filling, &mut self.leaving);
        }
        self.lent = true;
        Some(std::mem::take(&mut self.leaving))
    }

    /// Takes the lent bytes back. The unsent ones are sent first.
    pub(super) fn give_back(&mut self, batch: Batch) {
        self.lent = false;
        if batch.is_empty() && self.filling.is_empty() {
            // With a single sender the buffer in use is used again.
            self.leaving = std::mem::replace(&mut self.filling, batch);
        } else {
            self.leaving = batch;
        }
    }

    /// Makes one record. `fill` writes its content and returns the length; 0 makes no record.
    /// The caller has checked that there is room. `most` limits the content.
    pub(super) fn record(
        &mut self,
        sealer: &mut Sealer,
        content: ContentType,
        most: usize,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<(), RecordError> {
        let batch = &mut self.filling;
        let start = batch.end;
        let most = most.min(MAX_CONTENT_BYTES);
        batch.reserve(start + RECORD_HEADER_BYTES + most + TRAILER)?;
        let len =
            fill(&mut batch.buf[start + RECORD_HEADER_BYTES..start + RECORD_HEADER_BYTES + most])
                .min(most);
        if len > 0 {
            batch.end += sealer.seal(content, &mut batch.buf[start..], len)?;
        }
        Ok(())
    }

    /// Makes records from one `read` of at most `most` bytes and at most a turn. It gets the
    /// places of the payloads in order and fills them from the first on. `head` returns the
    /// frame header of each record's payload, or `None` if the stream has ended. Returns the
    /// number of bytes that were read.
    pub(super) fn records(
        &mut self,
        sealer: &mut Sealer,
        most: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
        mut head: impl FnMut(usize) -> Option<[u8; HEADER_BYTES]>,
    ) -> Result<io::Result<usize>, RecordError> {
        let batch = &mut self.filling;
        let start = batch.end;
        let count = (TURN_BYTES.saturating_sub(start) / RECORD_BYTES)
            .min(most.div_ceil(RECORD_PAYLOAD_BYTES));
        if count == 0 {
            return Ok(Err(io::ErrorKind::WouldBlock.into()));
        }
        let last = (most - (count - 1) * RECORD_PAYLOAD_BYTES).min(RECORD_PAYLOAD_BYTES);
        let end = start
            + (count - 1) * RECORD_BYTES
            + RECORD_HEADER_BYTES
            + HEADER_BYTES
            + last
            + TRAILER;
        batch.reserve(end)?;
        let mut rest = &mut batch.buf[start..end];
        let mut places: [IoSliceMut<'_>; TURN_RECORDS] = array::from_fn(|_| {
            let len = rest.len().min(RECORD_BYTES);
            let (record, behind) = std::mem::take(&mut rest).split_at_mut(len);
            rest = behind;
            let place = len.saturating_sub(TRAILER);
            IoSliceMut::new(
                record.get_mut(RECORD_HEADER_BYTES + HEADER_BYTES..place).unwrap_or_default(),
            )
        });
        let n = match read(&mut places[..count]) {
            Ok(n) => n.min(most),
            Err(e) => return Ok(Err(e)),
        };
        let mut left = n;
        while left > 0 {
            let len = left.min(RECORD_PAYLOAD_BYTES);
            let Some(header) = head(len) else { break };
            let record = &mut batch.buf[batch.end..];
            record[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + HEADER_BYTES]
                .copy_from_slice(&header);
            batch.end += sealer.seal(ContentType::Data, record, HEADER_BYTES + len)?;
            left -= len;
        }
        Ok(Ok(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mux;

    /// An edge has a thousand sessions that send heartbeats only.
    #[test]
    fn a_buffer_is_as_large_as_its_largest_record() {
        let mut batch = Batch::default();
        let heartbeat = RECORD_HEADER_BYTES + mux::MAX_CONTROL + TRAILER;
        batch.reserve(heartbeat).unwrap();
        assert!(batch.buf.capacity() < heartbeat + GROWTH_BYTES);
        batch.reserve(RECORD_BYTES).unwrap();
        assert!(batch.buf.capacity() < RECORD_BYTES + GROWTH_BYTES);
        batch.reserve(2 * RECORD_BYTES).unwrap();
        assert_eq!(batch.buf.capacity(), CAPACITY_BYTES);
    }
}
