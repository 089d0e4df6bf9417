//! WebSocket messages as a stream of bytes (RFC 6455), for `WebsocketTCPConverter`: the bytes of
//! messages go to the upstream, bytes of the upstream are binary messages. No socket is used
//! here. Which endpoint has it is decided in [`crate::edge::actions`].

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::http1::head::HeaderFields;
use crate::proto::base64;

/// Longest payload of a control frame (RFC 6455 5.5).
const MAX_CONTROL_BYTES: usize = 125;

/// Longest frame header of a client: two bytes, a length of eight, a mask of four.
const MAX_HEADER_BYTES: usize = 14;

/// Appended to the client's key (RFC 6455 1.3).
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Status of a close frame for malformed input (RFC 6455 7.4.1).
const PROTOCOL_ERROR: u16 = 1002;

/// Status of a close frame for an orderly end.
const NORMAL_CLOSURE: u16 = 1000;

/// Returns the head that accepts a WebSocket, or `None` if the request asks for none.
pub fn accept(method: &[u8], fields: HeaderFields<'_>) -> Option<Vec<u8>> {
    let key = fields.first("sec-websocket-key").filter(|key| key.len() == 24)?;
    let asks = method == b"GET"
        && fields.lists("upgrade", "websocket")
        && fields.lists("connection", "upgrade")
        && fields.first("sec-websocket-version") == Some(b"13");
    if !asks {
        return None;
    }
    let accepted = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, ACCEPT_SUFFIX].concat());
    let mut head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n",
        base64::encode(accepted.as_ref())
    );
    // A browser that names protocols closes the connection if none of them is chosen.
    let mut protocols =
        fields.values("sec-websocket-protocol").flat_map(crate::http1::head::members);
    if protocols.any(|p| p == b"binary") {
        head.push_str("Sec-WebSocket-Protocol: binary\r\n");
    }
    head.push_str("\r\n");
    Some(head.into_bytes())
}

/// Returns the header of a binary message with this length.
pub fn binary_header(length: usize) -> Vec<u8> {
    let mut header = vec![0x82];
    match length {
        0..=125 => header.push(u8::try_from(length).unwrap_or(0)),
        126..=0xffff => {
            header.push(126);
            header.extend(u16::try_from(length).unwrap_or(0).to_be_bytes());
        }
        _ => {
            header.push(127);
            // Widening: a length of memory.
            header.extend((length as u64).to_be_bytes());
        }
    }
    header
}

/// Returns the close frame of an orderly end.
pub fn close_frame() -> Vec<u8> {
    control(0x8, &NORMAL_CLOSURE.to_be_bytes())
}

/// Returns whether a close frame may have this payload: nothing, or a status that may be sent and
/// a reason (RFC 6455 5.5.1, 7.4).
fn is_close_payload(payload: &[u8]) -> bool {
    let status = match payload {
        [] => return true,
        [_] => return false,
        [high, low, ..] => u16::from_be_bytes([*high, *low]),
    };
    matches!(status, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

fn control(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode, u8::try_from(payload.len()).unwrap_or(0)];
    frame.extend_from_slice(payload);
    frame
}

/// Result of reading frames.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes for the upstream.
    pub data: Vec<u8>,
    /// Frames for the visitor.
    pub reply: Vec<u8>,
    /// The visitor sends no more.
    pub end: Option<DecodeEnd>,
}

/// Why the visitor sends no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeEnd {
    /// A close frame. The close frame of this side follows the upstream's last bytes.
    Closed,
    /// A frame that breaks the rules. The reply has a close frame with the reason.
    Invalid,
}

/// Decoder of a client's frames.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    header: Vec<u8>,
    state: FrameState,
    /// A message is incomplete: continuations may follow.
    in_message: bool,
    over: bool,
}

#[derive(Debug, Default)]
enum FrameState {
    #[default]
    Header,
    /// Payload of a message.
    Data { left: u64, mask: [u8; 4], at: usize },
    /// Payload of a control frame.
    Control { opcode: u8, left: usize, mask: [u8; 4], payload: Vec<u8> },
}

impl FrameDecoder {
    /// Reads the next bytes of the visitor.
    pub fn feed(&mut self, mut input: &[u8]) -> Decoded {
        let mut out = Decoded::default();
        while !self.over && out.end.is_none() {
            match &mut self.state {
                FrameState::Header => {
                    let Some((&byte, rest)) = input.split_first() else { break };
                    self.header.push(byte);
                    input = rest;
                    if self.read_header().is_err() {
                        out.reply.extend(control(0x8, &PROTOCOL_ERROR.to_be_bytes()));
                        out.end = Some(DecodeEnd::Invalid);
                    }
                }
                FrameState::Data { left: 0, .. } => self.state = FrameState::Header,
                FrameState::Data { left, mask, at } => {
                    if input.is_empty() {
                        break;
                    }
                    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    let unmasked = input[..n].iter().zip(*at..).map(|(b, i)| b ^ mask[i % 4]);
                    out.data.extend(unmasked);
                    *at = (*at + n) % 4;
                    // Widening; n is at most `left`.
                    *left -= n as u64;
                    input = &input[n..];
                }
                FrameState::Control { opcode, left: 0, payload, .. } => {
                    match opcode {
                        0x8 if is_close_payload(payload) => out.end = Some(DecodeEnd::Closed),
                        0x8 => {
                            out.reply.extend(control(0x8, &PROTOCOL_ERROR.to_be_bytes()));
                            out.end = Some(DecodeEnd::Invalid);
                        }
                        0x9 => out.reply.extend(control(0xa, payload)),
                        _ => {}
                    }
                    self.state = FrameState::Header;
                }
                FrameState::Control { left, mask, payload, .. } => {
                    let Some((&byte, rest)) = input.split_first() else { break };
                    payload.push(byte ^ mask[payload.len() % 4]);
                    *left -= 1;
                    input = rest;
                }
            }
        }
        self.over |= out.end.is_some();
        out
    }

    /// Begins a frame once its header is complete.
    fn read_header(&mut self) -> Result<(), ()> {
        let &[first, second, ref rest @ ..] = &*self.header else { return Ok(()) };
        let (fin, opcode, masked) = (first & 0x80 != 0, first & 0xf, second & 0x80 != 0);
        // Extensions were not offered, and a client masks (RFC 6455 5.1, 5.2).
        if first & 0x70 != 0 || !masked {
            return Err(());
        }
        let size = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if rest.len() < size + 4 {
            return Ok(());
        }
        let (length, mask) = rest.split_at(size);
        let left = match length.len() {
            0 => u64::from(second & 0x7f),
            _ => length.iter().fold(0, |n, b| n << 8 | u64::from(*b)),
        };
        // The highest bit of a length is 0.
        if left >> 63 != 0 {
            return Err(());
        }
        let mask = mask.try_into().map_err(|_| ())?;
        self.state = match opcode {
            0x0 if self.in_message => FrameState::Data { left, mask, at: 0 },
            0x1 | 0x2 if !self.in_message => FrameState::Data { left, mask, at: 0 },
            0x8..=0xa if fin && left <= MAX_CONTROL_BYTES as u64 => {
                let left = usize::try_from(left).map_err(|_| ())?;
                FrameState::Control { opcode, left, mask, payload: Vec::new() }
            }
            _ => return Err(()),
        };
        if opcode < 0x8 {
            self.in_message = !fin;
        }
        debug_assert!(self.header.len() <= MAX_HEADER_BYTES);
        self.header.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::HeadRanges;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 250];
        let mut frame = vec![first];
        match payload.len() {
            n @ 0..=125 => frame.push(0x80 | n as u8),
            n @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend((n as u16).to_be_bytes());
            }
            n => {
                frame.push(0x80 | 127);
                frame.extend((n as u64).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]));
        frame
    }

    /// Feeds in pieces of `size` bytes.
    fn decode(bytes: &[u8], size: usize) -> Decoded {
        let mut decoder = FrameDecoder::default();
        let mut all = Decoded::default();
        for piece in bytes.chunks(size) {
            let part = decoder.feed(piece);
            all.data.extend(part.data);
            all.reply.extend(part.reply);
            all.end = all.end.or(part.end);
        }
        all
    }

    #[test]
    fn the_example_of_rfc_6455() {
        let head = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, \
                    Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                    Sec-WebSocket-Version: 13\r\n\r\n";
        let accepts = |head: &str| {
            let mut ranges = HeadRanges::default();
            let method = ranges.read_request(head.as_bytes()).unwrap().method.to_owned();
            accept(method.as_bytes(), ranges.fields(head.as_bytes()))
        };
        let text = String::from_utf8(accepts(head).unwrap()).unwrap();
        assert!(text.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{text}");
        for (from, to) in [("GET", "POST"), ("websocket", "h2c"), (": 13", ": 8"), ("==\r", "\r")] {
            assert_eq!(accepts(&head.replace(from, to)), None, "{to}");
        }
    }

    #[test]
    fn messages_are_bytes_however_they_are_cut() {
        let long = vec![b'x'; 70_000];
        let mut bytes = masked(0x02, b"Hel");
        bytes.extend(masked(0x89, b"ping"));
        bytes.extend(masked(0x80, b"lo"));
        bytes.extend(masked(0x81, b" text"));
        bytes.extend(masked(0x82, b""));
        bytes.extend(masked(0x82, &long));
        bytes.extend(masked(0x82, &long[..200]));
        bytes.extend(masked(0x88, &[0x03, 0xe8, b'b', b'y', b'e']));
        bytes.extend(masked(0x82, b"behind the end"));
        let expected = [&b"Hello text"[..], &long, &long[..200]].concat();
        for size in [1, 3, 4096, bytes.len()] {
            let got = decode(&bytes, size);
            assert!(got.data == expected, "cut at {size}");
            assert_eq!(got.reply, b"\x8a\x04ping");
            assert_eq!(got.end, Some(DecodeEnd::Closed));
        }
    }

    #[test]
    fn frames_that_break_the_rules_end_the_connection() {
        for frame in [
            b"\x82\x05Hello".to_vec(),
            masked(0xc2, b"compressed"),
            masked(0x83, b"reserved"),
            masked(0x80, b"continuation of nothing"),
            masked(0x09, b"a ping in pieces"),
            masked(0x89, &[0; 126]),
            [masked(0x02, b"a"), masked(0x02, b"b")].concat(),
            masked(0x88, &[3]),
            masked(0x88, &1005_u16.to_be_bytes()),
            b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
        ] {
            let got = decode(&frame, 1);
            assert_eq!(got.end, Some(DecodeEnd::Invalid), "{frame:?}");
            assert_eq!(got.reply, b"\x88\x02\x03\xea");
        }
    }

    #[test]
    fn headers_of_binary_messages() {
        assert_eq!(binary_header(5), [0x82, 5]);
        assert_eq!(binary_header(300), [0x82, 126, 1, 44]);
        assert_eq!(binary_header(70_000), [0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
    }
}
