//! The frame header, and the rules that need only the header (protocol 2.1 and 2.2).
//!
//! ```text
//! length, 24 bits | type, 4 bits | flags, 4 bits | 0 | stream id, 31 bits
//! ```
//! All numbers are big-endian. The meaning of a frame for a stream does not belong here.

use super::{Code, Reason, StreamId};

/// Size of a header in bytes.
pub const HEADER_BYTES: usize = 8;

/// Largest length in a header.
pub const MAX_LENGTH: u32 = 0xFF_FFFF;

/// Bits of an id. The top bit is ignored in received frames.
pub const ID_MASK: u32 = 0x7FFF_FFFF;

/// FIN flag of DATA.
pub const FIN: u8 = 0x1;

/// SYN flag of DATA.
pub const SYN: u8 = 0x2;

/// Type of a frame, the high nibble of byte 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameType {
    /// Ends a stream at once, with a code.
    Rst,
    /// Carries a stream's bytes. SYN opens the stream, FIN ends a direction.
    Data,
    /// Returns window to the sender.
    WndInc,
    /// Ends a session.
    GoAway,
    /// Types 0x4 to 0xF: never sent, skipped when received.
    Unknown(u8),
}

impl FrameType {
    /// Returns the type's number.
    pub const fn number(self) -> u8 {
        match self {
            FrameType::Rst => 0,
            FrameType::Data => 1,
            FrameType::WndInc => 2,
            FrameType::GoAway => 3,
            FrameType::Unknown(number) => number & 0xF,
        }
    }

    const fn from_nibble(nibble: u8) -> FrameType {
        match nibble {
            0 => FrameType::Rst,
            1 => FrameType::Data,
            2 => FrameType::WndInc,
            3 => FrameType::GoAway,
            other => FrameType::Unknown(other),
        }
    }

    /// Returns the name for messages.
    pub const fn name(self) -> &'static str {
        match self {
            FrameType::Rst => "RST",
            FrameType::Data => "DATA",
            FrameType::WndInc => "WNDINC",
            FrameType::GoAway => "GOAWAY",
            FrameType::Unknown(_) => "unknown",
        }
    }
}

/// Header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Length of the payload in bytes, 24 bits.
    pub length: u32,
    /// Type of the frame.
    pub kind: FrameType,
    /// The low nibble of byte 3. It has a meaning for DATA only.
    pub flags: u8,
    /// Stream id, 31 bits; 0 is the session.
    pub stream: u32,
}

impl FrameHeader {
    /// Decodes a header. Any eight bytes are accepted; [`FrameHeader::check`] checks whether
    /// they are valid.
    pub const fn decode(bytes: [u8; HEADER_BYTES]) -> FrameHeader {
        let [l0, l1, l2, kind, s0, s1, s2, s3] = bytes;
        FrameHeader {
            length: u32::from_be_bytes([0, l0, l1, l2]),
            kind: FrameType::from_nibble(kind >> 4),
            flags: kind & 0xF,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & ID_MASK,
        }
    }

    /// Encodes a header. Lengths and ids are truncated to their bits.
    pub const fn encode(self) -> [u8; HEADER_BYTES] {
        let [_, l0, l1, l2] = self.length.to_be_bytes();
        let [s0, s1, s2, s3] = (self.stream & ID_MASK).to_be_bytes();
        [l0, l1, l2, self.kind.number() << 4 | (self.flags & 0xF), s0, s1, s2, s3]
    }

    /// Returns a DATA header.
    pub const fn data(stream: StreamId, length: u32, flags: u8) -> FrameHeader {
        FrameHeader { length, kind: FrameType::Data, flags, stream: stream.0 }
    }

    /// Returns whether the FIN flag is set. It has a meaning for DATA only.
    pub const fn fin(self) -> bool {
        self.flags & FIN != 0
    }

    /// Returns whether the SYN flag is set. It has a meaning for DATA only.
    pub const fn syn(self) -> bool {
        self.flags & SYN != 0
    }

    /// Checks lengths and id 0, in this order (protocol 2.2).
    ///
    /// # Errors
    /// Code for the end of the session, and the violated rule.
    pub fn check(self) -> Result<(), (Code, Reason)> {
        let frame = self.kind.name();
        let length_is_legal = match self.kind {
            FrameType::Rst | FrameType::WndInc => self.length == 4,
            FrameType::GoAway => self.length >= 8,
            FrameType::Data | FrameType::Unknown(_) => true,
        };
        if !length_is_legal {
            let reason = Reason::FrameLength { frame, length: self.length };
            return Err((Code::FRAME_SIZE_ERROR, reason));
        }
        match self.kind {
            FrameType::Rst | FrameType::Data | FrameType::WndInc if self.stream == 0 => {
                Err((Code::PROTOCOL_ERROR, Reason::StreamZero { frame }))
            }
            FrameType::GoAway if self.stream != 0 => {
                let stream = StreamId(self.stream);
                Err((Code::PROTOCOL_ERROR, Reason::GoAwayOnStream { stream }))
            }
            _ => Ok(()),
        }
    }
}

/// Returns a complete RST frame.
pub(super) fn rst(stream: StreamId, code: Code) -> [u8; HEADER_BYTES + 4] {
    with_u32(FrameHeader { length: 4, kind: FrameType::Rst, flags: 0, stream: stream.0 }, code.0)
}

/// Returns a complete WNDINC frame.
pub(super) fn wndinc(stream: StreamId, increment: u32) -> [u8; HEADER_BYTES + 4] {
    with_u32(
        FrameHeader { length: 4, kind: FrameType::WndInc, flags: 0, stream: stream.0 },
        increment & ID_MASK,
    )
}

/// Returns a complete DATA frame of four bytes: a heartbeat or its echo.
pub(super) fn beat(stream: StreamId, number: u32) -> [u8; HEADER_BYTES + 4] {
    with_u32(FrameHeader::data(stream, 4, 0), number)
}

fn with_u32(header: FrameHeader, value: u32) -> [u8; HEADER_BYTES + 4] {
    let [a, b, c, d, e, f, g, h] = header.encode();
    let [v0, v1, v2, v3] = value.to_be_bytes();
    [a, b, c, d, e, f, g, h, v0, v1, v2, v3]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every decoded header is equal to the encoded one.
    #[test]
    fn headers_survive_the_round_trip() {
        for kind in 0..16 {
            for flags in 0..16 {
                for (length, stream) in [(0, 0), (1, 2), (MAX_LENGTH, ID_MASK), (0x1234, 77)] {
                    let header =
                        FrameHeader { length, kind: FrameType::from_nibble(kind), flags, stream };
                    assert_eq!(FrameHeader::decode(header.encode()), header);
                }
            }
        }
    }

    #[test]
    fn worked_bytes_of_the_protocol() {
        let syn = FrameHeader::decode([0, 0, 4, 0x12, 0, 0, 0, 3]);
        assert_eq!(syn, FrameHeader { length: 4, kind: FrameType::Data, flags: SYN, stream: 3 });
        assert!(syn.syn() && !syn.fin());
        let fin = FrameHeader::data(StreamId(5), 0, FIN);
        assert_eq!(fin.encode(), [0, 0, 0, 0x11, 0, 0, 0, 5]);
        let four = StreamId(4);
        assert_eq!(rst(four, Code(9)), [0, 0, 4, 0, 0, 0, 0, 4, 0, 0, 0, 9]);
        assert_eq!(rst(StreamId(6), Code(4)), [0, 0, 4, 0, 0, 0, 0, 6, 0, 0, 0, 4]);
        assert_eq!(wndinc(StreamId(3), 4), [0, 0, 4, 0x20, 0, 0, 0, 3, 0, 0, 0, 4]);
        assert_eq!(wndinc(StreamId(5), 131_072), [0, 0, 4, 0x20, 0, 0, 0, 5, 0, 2, 0, 0]);
        assert_eq!(
            beat(StreamId(3), 0x5c09_885c),
            [0, 0, 4, 0x10, 0, 0, 0, 3, 0x5c, 9, 0x88, 0x5c]
        );
        let largest = FrameHeader::data(StreamId(2), 262_144, 0);
        assert_eq!(largest.encode(), [4, 0, 0, 0x10, 0, 0, 0, 2]);
        let last = FrameHeader::data(StreamId(ID_MASK), 0, 0);
        assert_eq!(last.encode(), [0, 0, 0, 0x10, 0x7F, 0xFF, 0xFF, 0xFF]);
    }

    #[test]
    fn the_top_bit_of_the_id_is_masked_off() {
        assert_eq!(FrameHeader::decode([0, 0, 0, 0x10, 0x80, 0, 0, 2]).stream, 2);
    }

    #[test]
    fn lengths_and_ids_are_checked() {
        let check = |kind, length, stream| {
            FrameHeader { length, kind, flags: 0, stream }.check().map_err(|(code, _)| code.0)
        };
        for kind in [FrameType::Rst, FrameType::WndInc] {
            assert_eq!(check(kind, 4, 2), Ok(()));
            for length in [0, 3, 5, MAX_LENGTH] {
                assert_eq!(check(kind, length, 2), Err(8));
            }
            assert_eq!(check(kind, 4, 0), Err(1));
        }
        assert_eq!(check(FrameType::Data, MAX_LENGTH, 2), Ok(()));
        assert_eq!(check(FrameType::Data, 0, 0), Err(1));
        assert_eq!(check(FrameType::GoAway, 8, 0), Ok(()));
        assert_eq!(check(FrameType::GoAway, 7, 0), Err(8));
        assert_eq!(check(FrameType::GoAway, 8, 1), Err(1));
        assert_eq!(check(FrameType::Unknown(9), 0, 0), Ok(()));
    }
}
