//! Rules for the frames that a session sends, with any peer. Both directions are read with a
//! parser of its own.

use std::collections::HashMap;

#[derive(Default)]
struct Track {
    opened: bool,
    sent: u64,
    fin: bool,
    rst: bool,
    /// The peer used the id again, or before it was opened, which is not allowed: frames of the
    /// two streams cannot be distinguished.
    reused: bool,
}

/// Both directions of one session.
pub struct Rules {
    window: u64,
    streams: HashMap<u32, Track>,
    /// Window that the peer returned for a stream, due or not.
    given: HashMap<u32, u64>,
    next_own: u32,
    resets: usize,
    gone: bool,
    /// Bytes of the peer that are not a whole header yet, or are skipped.
    header: Vec<u8>,
    left: usize,
}

impl Rules {
    /// Returns the rules for a session that opens `first` first, with windows of `window`
    /// bytes.
    pub fn new(first: u32, window: u32) -> Rules {
        Rules {
            window: u64::from(window),
            streams: HashMap::new(),
            given: HashMap::new(),
            next_own: first,
            resets: 0,
            gone: false,
            header: Vec::new(),
            left: 0,
        }
    }

    /// Processes the peer's bytes, before the session receives them.
    pub fn incoming(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.left > 0 {
                let n = self.left.min(bytes.len());
                let kept = n.min(12usize.saturating_sub(self.header.len()));
                self.header.extend_from_slice(&bytes[..kept]);
                self.left -= n;
                bytes = &bytes[n..];
            } else {
                self.header.push(byte);
                bytes = rest;
                if self.header.len() < 8 {
                    continue;
                }
                let [a, b, c] = [self.header[0], self.header[1], self.header[2]];
                self.left = u32::from_be_bytes([0, a, b, c]) as usize;
                self.head();
            }
            if self.left == 0 {
                self.increment();
                self.header.clear();
            }
        }
    }

    fn word(&self, at: usize) -> u32 {
        let bytes = self.header.get(at..at + 4).unwrap_or(&[0; 4]);
        u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) & 0x7FFF_FFFF
    }

    /// Processes a header: the session may respond before the payload is complete.
    fn head(&mut self) {
        let (id, kind) = (self.word(4), self.header[3]);
        if kind >> 4 == 1 {
            let track = self.streams.entry(id).or_default();
            let syn = kind & 2 != 0;
            track.reused |= track.opened == syn;
            track.opened |= syn;
        }
    }

    /// Processes the end of a frame.
    fn increment(&mut self) {
        if self.header[3] >> 4 == 2 {
            let (id, increment) = (self.word(4), self.word(8));
            *self.given.entry(id).or_default() += u64::from(increment);
        }
    }

    /// Processes whole frames that the session sends.
    pub fn outgoing(&mut self, mut frames: &[u8]) {
        while !frames.is_empty() {
            assert!(frames.len() >= 8, "a header in pieces");
            let length = u32::from_be_bytes([0, frames[0], frames[1], frames[2]]) as usize;
            let (kind, flags) = (frames[3] >> 4, frames[3] & 0xF);
            let id = u32::from_be_bytes([frames[4], frames[5], frames[6], frames[7]]);
            let payload = &frames[8..8 + length];
            frames = &frames[8 + length..];
            assert!(!self.gone, "a frame after GOAWAY");
            assert!(id <= 0x7FFF_FFFF);
            if kind == 3 {
                assert!(id == 0 && flags == 0 && length >= 16);
                self.gone = true;
                continue;
            }
            assert!(id != 0);
            let track = self.streams.entry(id).or_default();
            if kind == 1 && flags & 2 != 0 && !track.opened {
                // Data for a stream before it was opened had its RST.
                *track = Track::default();
            }
            // The memory of resets is bounded: an old one may be answered again.
            let sound = !track.reused;
            assert!(!track.rst || !sound || self.resets >= 1_024, "stream {id}: a frame after RST");
            match kind {
                0 => {
                    assert_eq!((length, flags), (4, 0));
                    track.rst = true;
                    self.resets += 1;
                }
                1 => {
                    assert!(flags <= 3 && length <= 16_376 && (length > 0 || flags != 0));
                    assert!(!track.fin || !sound, "stream {id}: DATA after FIN");
                    if flags & 2 != 0 {
                        assert_eq!((id, flags), (self.next_own, 2), "ids rise, SYN is no FIN");
                        assert!(length >= 4);
                        self.next_own += 2;
                        track.opened = true;
                    }
                    assert!(track.opened, "stream {id}: DATA before SYN");
                    track.sent += length as u64;
                    track.fin = flags & 1 != 0;
                    let allowed = self.window + self.given.get(&id).copied().unwrap_or(0);
                    assert!(track.sent <= allowed || !sound, "stream {id}: beyond the window");
                }
                2 => {
                    assert_eq!((length, flags), (4, 0));
                    assert!(payload != [0; 4] && payload[0] < 0x80, "WNDINC {payload:?}");
                }
                other => panic!("frame type {other}"),
            }
        }
    }
}
