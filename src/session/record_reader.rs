//! Turns received bytes into plaintext: opens TLS records in place, and handles key updates and
//! tickets. The reactor above it sees plaintext only. Frames do not belong here.

use std::fmt;

use super::handle::Session;
use crate::tls::key_update::KeySchedule;
use crate::tls::records::{ContentType, HEADER, MAX_RECORD_BYTES, Opener};

/// Bytes of the first reads: heartbeats and calls. An edge has a thousand idle sessions.
const INITIAL_BUFFER_BYTES: usize = 4 * 1024;

/// Bytes of one read once a read has filled the buffer: four full records of a peer.
const RECEIVE_BUFFER_BYTES: usize = 4 * MAX_RECORD_BYTES;

/// Records that are opened together: those of a full buffer.
pub(super) const BATCH_RECORDS: usize = 4;

/// Longest handshake message after the handshake, in bytes.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// Key updates that a peer may send at first. Each costs the derivation of a key, and a
/// response if the peer requests one.
const KEY_UPDATE_BURST: u32 = 32;

/// Records with data for which a peer may send a further key update. Peers update about every
/// 2^23 records.
const RECORDS_PER_KEY_UPDATE: u32 = 1_024;

/// Handshake messages (RFC 8446 section 4).
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// Alerts (RFC 8446 section 6.2).
const UNEXPECTED_MESSAGE: u8 = 10;
const BAD_RECORD_MAC: u8 = 20;
const ILLEGAL_PARAMETER: u8 = 47;
const DECODE_ERROR: u8 = 50;

/// Opens the records of one session.
pub(super) struct RecordReader {
    opener: Opener,
    buffer: Vec<u8>,
    /// Contents of opened records, as places in `buffer`.
    opened: [(usize, usize); BATCH_RECORDS],
    opened_count: usize,
    /// Reason for the end of the connection after the opened records.
    failure: Option<String>,
    /// The records that are not opened yet are `buffer[start..end]`. The last one may be
    /// incomplete.
    start: usize,
    end: usize,
    /// Received part of a handshake message.
    message: Vec<u8>,
    key_updates: KeyUpdateBudget,
}

impl RecordReader {
    /// Starts with the bytes that followed the handshake. Returns `None` without memory.
    pub(super) fn new(opener: Opener, leftover: &[u8]) -> Option<Self> {
        let mut buffer = Vec::new();
        let size = leftover.len().max(INITIAL_BUFFER_BYTES);
        buffer.try_reserve_exact(size).ok()?;
        buffer.resize(size, 0);
        buffer[..leftover.len()].copy_from_slice(leftover);
        let end = leftover.len();
        let key_updates = KeyUpdateBudget::new();
        Some(RecordReader {
            opener,
            buffer,
            opened: [(0, 0); BATCH_RECORDS],
            opened_count: 0,
            failure: None,
            start: 0,
            end,
            message: Vec::new(),
            key_updates,
        })
    }

    /// Returns the buffer for received bytes. It is not empty after [`Self::open`] has returned
    /// `false`.
    pub(super) fn space(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.buffer[self.end..]
    }

    /// Records that `n` bytes were received into [`Self::space`].
    pub(super) fn received(&mut self, n: usize) {
        self.end = (self.end + n).min(self.buffer.len());
    }

    /// Opens whole records. Their contents are [`Self::opened`]. Returns whether more may
    /// follow.
    ///
    /// # Errors
    /// Reason for the end of the connection. An alert for the peer waits in the send buffer.
    pub(super) fn open(&mut self, session: &Session) -> Result<bool, String> {
        self.opened_count = 0;
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        while self.opened_count < BATCH_RECORDS {
            match self.next(session) {
                Ok(Some(place)) => {
                    self.opened[self.opened_count] = place;
                    self.opened_count += 1;
                }
                Ok(None) => return Ok(false),
                // Earlier records are still delivered.
                Err(failure) => {
                    self.failure = Some(failure);
                    break;
                }
            }
        }
        Ok(true)
    }

    /// Returns the contents of the records that were opened last.
    pub(super) fn opened(&self) -> impl Iterator<Item = &[u8]> {
        self.opened[..self.opened_count].iter().map(|(start, end)| &self.buffer[*start..*end])
    }

    /// Returns the place of the next whole record's content, or `None` if none has arrived.
    fn next(&mut self, session: &Session) -> Result<Option<(usize, usize)>, String> {
        loop {
            let waiting = &mut self.buffer[self.start..self.end];
            let broken = |error: &dyn fmt::Display| {
                session.send_alert(BAD_RECORD_MAC);
                error.to_string()
            };
            let whole = Opener::record_len(waiting).map_err(|e| broken(&e))?;
            let Some(len) = whole.filter(|len| *len <= waiting.len()) else { break };
            let (content, n) = self.opener.open(&mut waiting[..len]).map_err(|e| broken(&e))?;
            let plain = self.start + HEADER..self.start + HEADER + n;
            self.start += len;
            match content {
                ContentType::Data if self.message.is_empty() => {
                    self.key_updates.earn();
                    return Ok(Some((plain.start, plain.end)));
                }
                ContentType::Data => {
                    session.send_alert(UNEXPECTED_MESSAGE);
                    return Err("the peer interrupted a TLS handshake message".to_owned());
                }
                ContentType::Handshake => {
                    let plain = self.buffer[plain].to_vec();
                    if let Err((alert, error)) = self.handshake(&plain, session) {
                        session.send_alert(alert);
                        return Err(error);
                    }
                }
                ContentType::Alert => {
                    // close_notify is the orderly end. Every other alert ends the connection
                    // too.
                    return Err(match self.buffer[plain] {
                        [_, 0] => "the peer closed the connection".to_owned(),
                        [_, code] => format!("the peer ended TLS with alert {code}"),
                        _ => "the peer sent a malformed TLS alert".to_owned(),
                    });
                }
            }
        }
        // A record is smaller than the grown buffer.
        if self.end == self.buffer.len() && !self.grow() && self.start == 0 {
            return Err("no memory for what is received".to_owned());
        }
        Ok(None)
    }

    /// Makes room for bulk. Returns `false` without memory: the buffer stays as it is.
    fn grow(&mut self) -> bool {
        let more = RECEIVE_BUFFER_BYTES.saturating_sub(self.buffer.len());
        let has_memory = self.buffer.try_reserve_exact(more).is_ok();
        if has_memory {
            self.buffer.resize(self.buffer.len() + more, 0);
        }
        has_memory
    }

    /// Handles tickets and key updates (RFC 8446 section 4.6). A ticket may be split over
    /// records. The error is the alert to send.
    fn handshake(&mut self, plain: &[u8], session: &Session) -> Result<(), (u8, String)> {
        let fault = |alert, error: &str| Err((alert, error.to_owned()));
        if plain.is_empty() {
            return fault(UNEXPECTED_MESSAGE, "an empty TLS handshake record");
        }
        self.message.extend_from_slice(plain);
        while let Some(&[kind, a, b, c]) = self.message.first_chunk() {
            let len = 4 + (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
            if len > MAX_MESSAGE_BYTES {
                return fault(DECODE_ERROR, "a TLS message too large");
            }
            let Some(message) = self.message.get(4..len) else { break };
            match (kind, message) {
                (NEW_SESSION_TICKET, ticket) => {
                    let kernel = &mut session.out().kernel;
                    if matches!(kernel, KeySchedule::Client(_)) {
                        kernel.ticket(ticket).map_err(|e| (DECODE_ERROR, e.to_string()))?;
                    }
                }
                // Bytes before or after it would belong to two keys (RFC 8446 section 5.1).
                (KEY_UPDATE, _) if self.message.len() > len || plain.len() != len => {
                    return fault(UNEXPECTED_MESSAGE, "a TLS key update that is not alone");
                }
                (KEY_UPDATE, [request @ (0 | 1)]) => {
                    if !self.key_updates.spend() {
                        return fault(UNEXPECTED_MESSAGE, "too many TLS key updates");
                    }
                    let mut out = session.out();
                    let opener = out.kernel.next_opener();
                    self.opener = opener.map_err(|e| (DECODE_ERROR, e.to_string()))?;
                    if *request == 1 && out.send_buffer.has_reserve() {
                        out.renew_key().map_err(|e| (DECODE_ERROR, e))?;
                    }
                }
                (KEY_UPDATE, _) => return fault(ILLEGAL_PARAMETER, "a malformed TLS key update"),
                _ => {
                    let error = format!("an unexpected TLS message of type {kind}");
                    return Err((UNEXPECTED_MESSAGE, error));
                }
            }
            self.message.drain(..len);
        }
        if self.message.is_empty() {
            self.message = Vec::new();
        }
        Ok(())
    }
}

/// Number of key updates that a peer may still send.
struct KeyUpdateBudget {
    left: u32,
    records: u32,
}

impl KeyUpdateBudget {
    fn new() -> Self {
        KeyUpdateBudget { left: KEY_UPDATE_BURST, records: 0 }
    }

    /// Counts a record with data.
    fn earn(&mut self) {
        self.records += 1;
        if self.records >= RECORDS_PER_KEY_UPDATE {
            self.records = 0;
            self.left = (self.left + 1).min(KEY_UPDATE_BURST);
        }
    }

    /// Returns whether another key update is within the budget.
    fn spend(&mut self) -> bool {
        let within = self.left > 0;
        self.left = self.left.saturating_sub(1);
        within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_updates_are_earned_with_data() {
        let mut budget = KeyUpdateBudget::new();
        assert!((0..KEY_UPDATE_BURST).all(|_| budget.spend()));
        assert!(!budget.spend());
        (1..RECORDS_PER_KEY_UPDATE).for_each(|_| budget.earn());
        assert!(!budget.spend());
        budget.earn();
        assert!(budget.spend() && !budget.spend());
        (0..1_000_000).for_each(|_| budget.earn());
        assert_eq!(budget.left, KEY_UPDATE_BURST);
    }
}
