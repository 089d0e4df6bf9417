//! Control frames that wait for the link, in order.
//!
//! A WNDINC is only a mark here. Its increment is computed when it is written, so each stream
//! has at most one in the queue.

use std::collections::VecDeque;

use super::fault_injection::{self, Bug};
use super::frame::{self, FrameHeader, FrameType, HEADER_BYTES};
use super::table::StreamTable;
use super::{Code, StreamId, StreamType};

/// Most bytes of first payload that may wait before opening returns Busy.
const ROOM: usize = 256 * 1024;

/// Bytes that stay allocated after a burst.
const KEPT: usize = 16 * 1024;

/// Longest text of a GOAWAY that is sent, in bytes.
const MAX_TEXT: usize = 1_024;

#[derive(Clone, Copy, Debug)]
enum Control {
    /// The payload after the type is at the front of `bytes`.
    Syn {
        stream: StreamId,
        kind: StreamType,
        first: u16,
    },
    Fin(StreamId),
    Rst(StreamId, Code),
    /// FIN and RST in one record: a FIN that arrives alone would be an orderly end.
    FinRst(StreamId, Code),
    WndInc(StreamId),
    Beat(StreamId, u32),
    /// The text is in `bytes`.
    GoAway {
        last: u32,
        code: Code,
        text: u16,
    },
}

/// Queue of control frames.
#[derive(Debug, Default)]
pub(super) struct ControlQueue {
    queue: VecDeque<Control>,
    bytes: VecDeque<u8>,
    closed: bool,
}

impl ControlQueue {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns whether another SYN with first bytes does not fit.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= ROOM
    }

    /// Accepts no further frames: the last frame of the session is queued or was sent.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn syn(&mut self, stream: StreamId, kind: StreamType, first: &[u8]) {
        if self.closed {
            return;
        }
        self.bytes.extend(first);
        // The caller has checked the length against MAX_FIRST.
        let first = u16::try_from(first.len()).unwrap_or(u16::MAX);
        self.push(Control::Syn { stream, kind, first });
    }

    pub(super) fn fin(&mut self, stream: StreamId) {
        if fault_injection::is(Bug::FinOvertakes) && !self.closed {
            self.queue.push_front(Control::Fin(stream));
            return;
        }
        self.push(Control::Fin(stream));
    }

    pub(super) fn rst(&mut self, stream: StreamId, code: Code) {
        self.push(Control::Rst(stream, code));
    }

    /// Ends a stream for peers that wake their readers only for a FIN (protocol 2.6). Both
    /// frames are written to the same record.
    pub(super) fn fin_rst(&mut self, stream: StreamId, code: Code) {
        self.push(Control::FinRst(stream, code));
    }

    /// Marks a WNDINC. The caller ensures that there is at most one.
    pub(super) fn wndinc(&mut self, stream: StreamId) {
        self.push(Control::WndInc(stream));
    }

    pub(super) fn beat(&mut self, stream: StreamId, number: u32) {
        self.push(Control::Beat(stream, number));
    }

    /// Queues the last frame of a session. A text of fewer than 8 bytes is padded, because one
    /// peer reads 8 bytes too many (protocol 2.7).
    pub(super) fn goaway(&mut self, last: u32, code: Code, text: &str) {
        if self.closed {
            return;
        }
        let mut end = text.len().min(MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes.extend(text.bytes().take(end));
        self.bytes.extend(std::iter::repeat_n(b' ', 8usize.saturating_sub(end)));
        let text = u16::try_from(end.max(8)).unwrap_or(u16::MAX);
        self.push(Control::GoAway { last, code, text });
        self.close();
    }

    fn push(&mut self, control: Control) {
        if !self.closed {
            self.queue.push_back(control);
        }
    }

    /// Writes whole frames to `out`, as many as fit. Returns the number of bytes.
    pub(super) fn write(&mut self, out: &mut [u8], table: &mut StreamTable) -> usize {
        let mut written = 0;
        while let Some(&control) = self.queue.front() {
            let Some(space) = out.get_mut(written..) else { break };
            let wrote = match control {
                Control::Syn { stream, kind, first } => {
                    let payload = usize::from(first);
                    let header = FrameHeader::data(stream, 4 + u32::from(first), frame::SYN);
                    let fixed = [header.encode(), eight(kind.0, 0)];
                    self.with_bytes(space, &fixed.as_flattened()[..HEADER_BYTES + 4], payload)
                }
                Control::Fin(stream) => {
                    put(space, &FrameHeader::data(stream, 0, frame::FIN).encode())
                }
                Control::Rst(stream, code) => put(space, &frame::rst(stream, code)),
                Control::FinRst(stream, code) => {
                    let mut both = [0; 2 * HEADER_BYTES + 4];
                    let (fin, rst) = both.split_at_mut(HEADER_BYTES);
                    fin.copy_from_slice(&FrameHeader::data(stream, 0, frame::FIN).encode());
                    rst.copy_from_slice(&frame::rst(stream, code));
                    put(space, &both)
                }
                Control::Beat(stream, number) => put(space, &frame::beat(stream, number)),
                Control::GoAway { last, code, text } => {
                    let header = FrameHeader {
                        length: 8 + u32::from(text),
                        kind: FrameType::GoAway,
                        flags: 0,
                        stream: 0,
                    };
                    let fixed = [header.encode(), eight(last & frame::ID_MASK, code.0)];
                    self.with_bytes(space, fixed.as_flattened(), usize::from(text))
                }
                Control::WndInc(stream) => {
                    if space.len() < HEADER_BYTES + 4 {
                        break;
                    }
                    let owed = table.by_id(stream).map_or(0, |s| {
                        s.wndinc_waits = false;
                        if s.takes_data() { s.receive_window.give_back() } else { 0 }
                    });
                    // The stream may have ended in the meantime. A WNDINC of 0 must never be
                    // sent (protocol 2.2).
                    match owed {
                        0 => Some(0),
                        owed => put(space, &frame::wndinc(stream, owed)),
                    }
                }
            };
            let Some(wrote) = wrote else { break };
            if let Control::Syn { stream, .. } = control
                && let Some(stream) = table.by_id(stream)
            {
                stream.syn_waits = false;
            }
            written += wrote;
            self.queue.pop_front();
        }
        if self.queue.is_empty() && self.bytes.capacity() > 4 * KEPT {
            self.bytes.shrink_to(KEPT);
        }
        written
    }

    /// Returns its memory on the heap, in bytes.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.queue.capacity() * size_of::<Control>() + self.bytes.capacity()
    }

    /// Writes `fixed` and the first `n` of the queued bytes, if all fit.
    fn with_bytes(&mut self, space: &mut [u8], fixed: &[u8], n: usize) -> Option<usize> {
        let space = space.get_mut(..fixed.len() + n)?;
        let (head, body) = space.split_at_mut(fixed.len());
        head.copy_from_slice(fixed);
        for (to, byte) in body.iter_mut().zip(self.bytes.drain(..n.min(self.bytes.len()))) {
            *to = byte;
        }
        Some(space.len())
    }
}

fn put(space: &mut [u8], frame: &[u8]) -> Option<usize> {
    space.get_mut(..frame.len())?.copy_from_slice(frame);
    Some(frame.len())
}

fn eight(a: u32, b: u32) -> [u8; 8] {
    let [a0, a1, a2, a3] = a.to_be_bytes();
    let [b0, b1, b2, b3] = b.to_be_bytes();
    [a0, a1, a2, a3, b0, b1, b2, b3]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(control_queue: &mut ControlQueue) -> Vec<u8> {
        let mut out = [0; 512];
        let n = control_queue.write(&mut out, &mut StreamTable::default());
        out[..n].to_vec()
    }

    #[test]
    fn goaway_as_in_the_protocol() {
        let mut control_queue = ControlQueue::default();
        control_queue.goaway(6, Code::NO_ERROR, "no error");
        let mut expected = vec![0, 0, 0x10, 0x30, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0];
        expected.extend(b"no error");
        assert_eq!(written(&mut control_queue), expected);
        control_queue.fin(StreamId(3));
        assert!(control_queue.is_empty(), "nothing follows a GOAWAY");
        for (text, padded) in
            [("bye", "bye     "), ("", "        "), ("a longer one", "a longer one")]
        {
            let mut control_queue = ControlQueue::default();
            control_queue.goaway(0, Code::NO_ERROR, text);
            assert_eq!(&written(&mut control_queue)[16..], padded.as_bytes());
        }
    }

    #[test]
    fn only_whole_frames_are_written() {
        let mut control_queue = ControlQueue::default();
        control_queue.syn(StreamId(3), StreamType::PROXY, b"first");
        control_queue.fin(StreamId(3));
        let mut out = [0; 17 + 8];
        let mut table = StreamTable::default();
        assert_eq!(control_queue.write(&mut out[..16], &mut table), 0);
        assert_eq!(control_queue.write(&mut out[..24], &mut table), 17);
        assert_eq!(out[..17], *b"\0\0\x09\x12\0\0\0\x03\0\0\0\x03first");
        assert_eq!(control_queue.write(&mut out, &mut table), 8);
        assert!(control_queue.is_empty());
    }

    #[test]
    fn no_wndinc_of_zero() {
        let mut control_queue = ControlQueue::default();
        control_queue.wndinc(StreamId(3));
        assert!(written(&mut control_queue).is_empty() && control_queue.is_empty());
    }

    #[test]
    fn fin_and_rst_of_one_call_are_never_apart() {
        let mut control_queue = ControlQueue::default();
        let mut table = StreamTable::default();
        control_queue.fin_rst(StreamId(3), Code::STREAM_CANCELLED);
        for room in 0..2 * HEADER_BYTES + 4 {
            assert_eq!(control_queue.write(&mut vec![0; room], &mut table), 0, "{room}");
        }
        let mut record = [0; 64];
        assert_eq!(control_queue.write(&mut record, &mut table), 2 * HEADER_BYTES + 4);
        assert!(control_queue.is_empty());
    }
}
