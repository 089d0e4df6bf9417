//! The network: a byte pipe with latency, short writes, stalls, and splits at any position.

use std::collections::VecDeque;
use std::time::Duration;

use super::dice::Dice;
use crate::time::Instant;

/// One direction of the link.
#[derive(Debug)]
pub(super) struct Pipe {
    bytes: Vec<u8>,
    taken: usize,
    /// Arrival time of each run of bytes.
    arrivals: VecDeque<(Instant, usize)>,
    latency: Duration,
    stalled_until: Instant,
    room: usize,
}

impl Pipe {
    pub(super) fn new(latency: Duration, room: usize) -> Pipe {
        Pipe {
            bytes: Vec::new(),
            taken: 0,
            arrivals: VecDeque::new(),
            latency,
            stalled_until: Instant::ZERO,
            room,
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Delays all bytes until `until`.
    pub(super) fn stall(&mut self, until: Instant) {
        self.stalled_until = self.stalled_until.max(until);
    }

    pub(super) fn calm(&mut self) {
        self.stalled_until = Instant::ZERO;
    }

    /// Makes room for all bytes.
    pub(super) fn widen(&mut self) {
        self.room = 1 << 20;
    }

    /// Accepts `bytes` as far as they fit, or fewer. Returns the number.
    pub(super) fn write(&mut self, bytes: &[u8], now: Instant, dice: &mut Dice) -> usize {
        let room = self.room.saturating_sub(self.in_flight()).min(bytes.len());
        let n = if dice.once_in(3) { dice.index(room + 1) } else { room };
        if n > 0 {
            self.bytes.extend_from_slice(&bytes[..n]);
            self.arrivals.push_back((now + self.latency, n));
        }
        n
    }

    /// Moves up to `most` bytes that have arrived to `to`.
    pub(super) fn read(&mut self, most: usize, now: Instant, to: &mut Vec<u8>) {
        to.clear();
        if now < self.stalled_until {
            return;
        }
        while let Some((at, n)) = self.arrivals.front_mut() {
            if *at > now || to.len() >= most {
                break;
            }
            let take = (*n).min(most - to.len());
            to.extend_from_slice(&self.bytes[self.taken..self.taken + take]);
            self.taken += take;
            *n -= take;
            if *n == 0 {
                self.arrivals.pop_front();
            }
        }
        if self.taken == self.bytes.len() || self.taken > 65_536 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }
}
