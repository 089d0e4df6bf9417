//! The model: the actions and events of each application, recorded independently of the muxer.
//!
//! Payload is not stored. Byte `n` of a stream's direction is a function of stream, direction
//! and `n`, so every received byte can be checked.

use std::collections::BTreeMap;
use std::time::Duration;

use super::dice::Dice;
use crate::mux::{Config, MAX_FIRST, Muxer, StreamType};
use crate::time::Instant;

const PERIOD: usize = 4_093;

/// Payload of any stream at any position, as slices of one table.
#[derive(Debug)]
pub(super) struct Pattern(Vec<u8>);

impl Pattern {
    pub(super) fn new() -> Pattern {
        let byte = |i: usize| (((i % PERIOD) * 40_503) >> 3) as u8;
        Pattern((0..PERIOD + 20_480).map(byte).collect())
    }

    /// Returns `len` bytes from position `at` of the bytes that `side` sends on `stream`.
    pub(super) fn slice(&self, stream: u32, side: usize, at: u64, len: usize) -> &[u8] {
        let key = u64::from(stream) * 7 + side as u64 * 1_009;
        let start = ((at + key) % PERIOD as u64) as usize;
        &self.0[start..start + len]
    }
}

/// How an application's end of a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    No,
    /// By the protocol. Bytes may wait to be consumed.
    Over,
    /// By this side, with this code. No bytes are kept.
    Dropped(u32),
}

/// One end of a stream, from the application's view.
#[derive(Debug)]
pub(super) struct End {
    pub(super) kind: StreamType,
    pub(super) mine: bool,
    pub(super) sent: u64,
    pub(super) want: u64,
    pub(super) finish_when_sent: bool,
    pub(super) finished: bool,
    pub(super) received: u64,
    pub(super) consumed: u64,
    pub(super) got_fin: bool,
    pub(super) reads: bool,
    pub(super) blocked: bool,
    pub(super) closed: Closed,
}

impl End {
    pub(super) fn new(kind: StreamType, mine: bool) -> End {
        End {
            kind,
            mine,
            sent: 0,
            want: 0,
            finish_when_sent: false,
            finished: false,
            received: 0,
            consumed: 0,
            got_fin: false,
            reads: true,
            blocked: false,
            closed: Closed::No,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.closed == Closed::No
    }

    pub(super) fn unconsumed(&self) -> u64 {
        match self.closed {
            Closed::No | Closed::Over => self.received - self.consumed,
            Closed::Dropped(_) => 0,
        }
    }

    /// Returns whether the session must still know it.
    pub(super) fn counts(&self) -> bool {
        self.is_open() || self.unconsumed() > 0
    }
}

/// The heartbeat that a side requested.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beat {
    pub(super) interval: Duration,
    pub(super) tolerance: Duration,
    pub(super) last_good: Instant,
    /// Longest time that passed in one step since then.
    pub(super) slept: Duration,
}

/// A session, its application and its half of the link.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) session: Muxer,
    pub(super) ends: BTreeMap<u32, End>,
    /// Streams that may still act. It may contain some that cannot.
    pub(super) live: Vec<u32>,
    /// Bytes written by the session and not yet read by the pipe.
    pub(super) link: Vec<u8>,
    pub(super) beat: Option<Beat>,
    pub(super) said_goodbye: bool,
    pub(super) over: bool,
}

impl Side {
    pub(super) fn new(config: Config, now: Instant) -> Side {
        Side {
            session: Muxer::new(config, now),
            ends: BTreeMap::new(),
            live: Vec::new(),
            link: Vec::new(),
            beat: None,
            said_goodbye: false,
            over: false,
        }
    }

    /// Returns one of the streams that may still act.
    pub(super) fn any(&mut self, dice: &mut Dice) -> Option<u32> {
        while !self.live.is_empty() {
            let at = dice.index(self.live.len());
            let id = self.live[at];
            if self.ends.get(&id).is_some_and(End::counts) {
                return Some(id);
            }
            self.live.swap_remove(at);
        }
        None
    }

    pub(super) fn add(&mut self, id: u32, end: End) {
        assert!(self.ends.insert(id, end).is_none(), "stream {id} opened twice");
        self.live.push(id);
    }

    /// Returns the length of the application's part of a SYN frame.
    pub(super) fn first_length(window: u32, dice: &mut Dice) -> usize {
        dice.length((window as usize - 4).min(MAX_FIRST))
    }
}

/// Decides how much an end sends, after it was opened by the peer or by this side.
pub(super) fn plan(end: &mut End, window: u32, dice: &mut Dice) {
    let most = 3 * window as usize;
    match end.kind {
        StreamType::PROXY => {
            end.want = dice.length(most) as u64;
            end.finish_when_sent = !dice.once_in(3);
        }
        // A request is not followed by FIN: the response comes first.
        StreamType::BIND if end.mine => end.want = dice.length(100) as u64,
        StreamType::STOP_TUNNEL if end.mine => {
            end.want = dice.length(100) as u64;
            end.finish_when_sent = true;
        }
        _ => {}
    }
}
