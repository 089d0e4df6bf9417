//! Checks every frame that either side sends, with a parser and a state of its own. It has the
//! rules that an honest side must keep.

use std::collections::BTreeMap;

use super::dice::Trace;

/// State of one stream. Index 0 is the agent, 1 the edge.
#[derive(Debug, Default)]
pub(super) struct Track {
    opened_by: Option<usize>,
    sent: [u64; 2],
    given: [u64; 2],
    fin: [bool; 2],
    rst: [Option<u32>; 2],
}

/// Both directions of a session.
#[derive(Debug)]
pub(super) struct Wire {
    streams: BTreeMap<u32, Track>,
    next_id: [u32; 2],
    goaway: [bool; 2],
    window: u64,
    pub(super) resets: [usize; 2],
}

impl Wire {
    pub(super) fn new(window: u32) -> Wire {
        Wire {
            streams: BTreeMap::new(),
            next_id: [3, 2],
            goaway: [false; 2],
            window: u64::from(window),
            resets: [0; 2],
        }
    }

    /// Checks whole frames that `side` sends. `consumed` returns how many bytes of a stream its
    /// owner on that side has consumed, type included. `reset` returns whether that side may
    /// reset a stream with a code.
    pub(super) fn inspect(
        &mut self,
        side: usize,
        mut frames: &[u8],
        trace: &mut Trace,
        consumed: impl Fn(u32) -> Option<u64>,
        reset: impl Fn(u32, u32) -> bool,
    ) {
        while !frames.is_empty() {
            assert!(frames.len() >= 8, "a header in pieces");
            let length = u32::from_be_bytes([0, frames[0], frames[1], frames[2]]) as usize;
            let (kind, flags) = (frames[3] >> 4, frames[3] & 0xF);
            let id = u32::from_be_bytes([frames[4], frames[5], frames[6], frames[7]]);
            let payload = &frames[8..8 + length];
            frames = &frames[8 + length..];
            let number = || u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]]);
            let what = (u64::from(kind) << 8) | u64::from(flags);
            trace.note(&[side as u64, what, u64::from(id), length as u64]);
            assert!(!self.goaway[side], "a frame after GOAWAY");
            assert!(id <= 0x7FFF_FFFF, "the reserved bit is set");
            if kind == 3 {
                assert!(id == 0 && flags == 0 && length >= 16, "GOAWAY with a short text");
                self.goaway[side] = true;
                continue;
            }
            assert!(id != 0, "a frame for stream 0");
            let track = self.streams.entry(id).or_default();
            let peer = 1 - side;
            assert!(track.rst[side].is_none(), "stream {id}: a frame after RST");
            match kind {
                0 => {
                    assert_eq!((length, flags), (4, 0), "malformed RST");
                    assert!(reset(id, number()), "stream {id}: RST {} for nothing", number());
                    track.rst[side] = Some(number());
                    self.resets[side] += 1;
                }
                1 => {
                    assert!(flags <= 3, "undefined flags");
                    assert!(length <= 16_376, "more than one record");
                    if flags & 2 != 0 {
                        assert_eq!(id, self.next_id[side], "ids rise by two");
                        assert!(length >= 4, "the type is split");
                        assert_eq!(flags & 1, 0, "SYN with FIN");
                        assert!(track.opened_by.is_none(), "opened twice");
                        track.opened_by = Some(side);
                        self.next_id[side] += 2;
                    }
                    assert!(track.opened_by.is_some(), "stream {id}: DATA before SYN");
                    assert!(!track.fin[side], "stream {id}: DATA after FIN");
                    assert!(length > 0 || flags != 0, "an empty frame");
                    track.sent[side] += length as u64;
                    let allowed = self.window + track.given[peer];
                    assert!(track.sent[side] <= allowed, "stream {id}: beyond the window");
                    track.fin[side] = flags & 1 != 0;
                }
                2 => {
                    assert_eq!((length, flags), (4, 0), "malformed WNDINC");
                    assert!(number() > 0 && number() <= 0x7FFF_FFFF, "WNDINC of {}", number());
                    track.given[side] += u64::from(number());
                    let consumed = consumed(id).unwrap_or(track.sent[peer]);
                    assert!(
                        track.given[side] <= consumed,
                        "stream {id}: gives {} back for {consumed}",
                        track.given[side]
                    );
                }
                other => panic!("frame type {other}"),
            }
        }
    }
}
