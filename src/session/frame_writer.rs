//! TLS records and the frames in them: waiting control frames, then one DATA frame. They are
//! sealed in place in the send buffer. Nothing is sent here.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use super::handle::{Session, WriteHalf};
use crate::mux::frame::HEADER_BYTES;
use crate::mux::{self, Code, StreamId};
use crate::tls::records::{ContentType, RecordError};

/// Most bytes of a record with control frames alone: the largest control frame. An idle session
/// should touch little memory.
const CONTROL_RECORD_BYTES: usize = mux::MAX_CONTROL;

/// Most bytes of a record from [`Session::forward_small`]. More is bulk, which a worker
/// forwards.
const SMALL_RECORD_BYTES: usize = 8_192;

/// Source of a frame's payload.
pub(super) enum Payload<'a> {
    /// These bytes, up to the room in the frame.
    Bytes(&'a [u8]),
    /// The result of a non-blocking read. Its buffer is limited by the stream's window and the
    /// record.
    Read(&'a dyn Fn(&mut [u8]) -> io::Result<usize>),
}

/// Content of a record that was made.
pub(super) enum Framed {
    /// Control frames alone, because there are many. The data needs another record.
    Control,
    /// This number of bytes of data. `full`: the room was filled.
    Data { bytes: usize, full: bool },
    /// No data: the stream's window is empty.
    NoWindow,
    /// No data: the read returned none. The end, or its error.
    Nothing(Option<io::Error>),
}

/// Reason why no record with data was made.
pub(super) enum SealError {
    /// The session has ended.
    Over,
    /// The stream is closed for sending.
    Closed(Code),
    /// The record could not be sealed. The session ends.
    Record(RecordError),
}

impl Session {
    /// Makes one record: the waiting control frames, then one DATA frame of `stream`. The send
    /// buffer must have room for it.
    pub(super) fn seal_frame(
        &self,
        out: &mut WriteHalf,
        stream: StreamId,
        payload: &Payload<'_>,
    ) -> Result<Framed, SealError> {
        let mut outcome = Ok(Framed::Control);
        let most = match payload {
            Payload::Bytes(bytes) => bytes.len().saturating_add(CONTROL_RECORD_BYTES),
            Payload::Read(_) => SMALL_RECORD_BYTES,
        };
        let WriteHalf { sealer, send_buffer, .. } = out;
        let sealed = send_buffer.record(sealer, ContentType::Data, most, |content| {
            let mut core = self.core();
            if core.end.is_some() {
                outcome = Err(SealError::Over);
                return 0;
            }
            let control = if core.mux.has_transmit() { core.mux.transmit(content) } else { 0 };
            let frame = &mut content[control..];
            let least = if matches!(payload, Payload::Read(_)) { most / 2 } else { HEADER_BYTES };
            if core.mux.has_transmit() || frame.len() <= least {
                return control;
            }
            let room = frame.len() - HEADER_BYTES;
            let (wanted, room) = match payload {
                Payload::Bytes(bytes) => (bytes.len().min(room), room),
                Payload::Read(read) => {
                    let room = match core.mux.window(stream) {
                        Ok(window) => window.min(room),
                        Err(error) => {
                            outcome = refused(error);
                            return control;
                        }
                    };
                    match read(&mut frame[HEADER_BYTES..HEADER_BYTES + room]) {
                        Ok(n) if n > 0 => (n, room),
                        end => {
                            outcome = Ok(Framed::Nothing(end.err()));
                            return control;
                        }
                    }
                }
            };
            // All bytes of the read: the window was checked under this lock.
            let grant = match core.mux.grant(stream, wanted) {
                Ok(grant) => grant,
                Err(error) => {
                    outcome = refused(error);
                    return control;
                }
            };
            drop(core);
            frame[..HEADER_BYTES].copy_from_slice(&grant.header);
            if let Payload::Bytes(bytes) = payload {
                frame[HEADER_BYTES..HEADER_BYTES + grant.len].copy_from_slice(&bytes[..grant.len]);
            }
            outcome = Ok(Framed::Data { bytes: grant.len, full: grant.len == room });
            control + HEADER_BYTES + grant.len
        });
        sealed.map_err(SealError::Record)?;
        outcome
    }

    pub(super) fn seal_control(&self, out: &mut WriteHalf, more: &mut bool) -> Result<(), String> {
        if out.sealer.needs_key_update() && out.send_buffer.has_reserve() {
            out.renew_key()?;
        }
        while *more && out.send_buffer.has_reserve() {
            let WriteHalf { sealer, send_buffer, .. } = out;
            send_buffer
                .record(sealer, ContentType::Data, CONTROL_RECORD_BYTES, |content| {
                    let mut core = self.core();
                    let n = core.mux.transmit(content);
                    *more = core.mux.has_transmit();
                    n
                })
                .map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Queues a fatal TLS alert after the sealed records.
    pub(super) fn send_alert(&self, description: u8) {
        const FATAL: u8 = 2;
        let mut out = self.out();
        let WriteHalf { sealer, send_buffer, .. } = &mut *out;
        if send_buffer.has_reserve() {
            // The session ends because of the fault itself. The alert is for the peer's log.
            let _ = send_buffer.record(sealer, ContentType::Alert, 2, |content| {
                content.copy_from_slice(&[FATAL, description]);
                2
            });
        }
    }
}

fn refused(error: mux::GrantError) -> Result<Framed, SealError> {
    match error {
        mux::GrantError::ControlPending => Ok(Framed::Control),
        mux::GrantError::NoWindow => Ok(Framed::NoWindow),
        mux::GrantError::Closed(code) => Err(SealError::Closed(code)),
    }
}

impl WriteHalf {
    pub(super) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Announces a new key to the peer and changes to it (RFC 8446 section 4.6.3).
    pub(super) fn renew_key(&mut self) -> Result<(), String> {
        const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
        let WriteHalf { sealer, send_buffer, kernel, .. } = self;
        send_buffer
            .record(sealer, ContentType::Handshake, KEY_UPDATE.len(), |content| {
                content.copy_from_slice(&KEY_UPDATE);
                KEY_UPDATE.len()
            })
            .map_err(|e| e.to_string())?;
        *sealer = kernel.next_sealer().map_err(|e| e.to_string())?;
        Ok(())
    }
}
