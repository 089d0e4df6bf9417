//! Target `session_ops`: any operations on both ends of a session. The bytes between them are
//! split at any position and sometimes damaged.

use std::time::Duration;

use culvert::mux::{MAX_CONTROL, Role};

use crate::input::{Choices, Dice};
use crate::session_hostile::Host;

/// Bytes that one end has sent and the other has not read.
#[derive(Default)]
struct Pipe {
    bytes: Vec<u8>,
}

impl Pipe {
    fn take(&mut self, n: usize) -> Vec<u8> {
        self.bytes.drain(..n.min(self.bytes.len())).collect()
    }
}

/// Choices: window, then operations.
pub fn check(data: &[u8]) {
    let mut choices = Choices::new(data);
    let window = [64, 1_000, 65_536, 262_144][choices.below(4)];
    let max_streams = [2, 8, 500][choices.below(3)];
    let mut ends = [Role::Agent, Role::Edge]
        .map(|role| (Host::new(role, window, max_streams), Pipe::default()));
    while !choices.is_empty() {
        let op = choices.byte();
        let (me, peer) = {
            let [a, b] = &mut ends;
            if op & 0x80 == 0 { (a, b) } else { (b, a) }
        };
        match op & 0x0F {
            0..6 => {
                let sent = me.0.act(&mut choices);
                me.1.bytes.extend(sent);
            }
            6..9 => {
                let sent = me.0.transmit(MAX_CONTROL);
                me.1.bytes.extend(sent);
            }
            9..13 => {
                let n = if op & 0x10 == 0 { usize::from(choices.byte()) } else { 1 << 17 };
                let bytes = peer.1.take(n);
                me.0.receive(&bytes);
            }
            13 => {
                let time = Duration::from_millis(u64::from(choices.short()));
                me.0.pass(time);
            }
            14 if op & 0x70 == 0x70 => {
                // A damaged link: from here on the peer counts as hostile.
                let at = choices.below(peer.1.bytes.len().max(1));
                if let Some(byte) = peer.1.bytes.get_mut(at) {
                    *byte ^= choices.byte();
                }
            }
            15 if op & 0x70 == 0x70 => {
                let bytes = choices.bytes(12).to_vec();
                peer.1.bytes.extend(bytes);
            }
            _ => {}
        }
    }
    // The rest is read; then both release their streams.
    for _ in 0..4 {
        for side in 0..2 {
            let (host, pipe) = &mut ends[side];
            let sent = host.transmit(MAX_CONTROL);
            pipe.bytes.extend(sent);
            let bytes = std::mem::take(&mut pipe.bytes);
            ends[1 - side].0.receive(&bytes);
        }
    }
    for (host, _) in &mut ends {
        host.end();
    }
}

/// Any bytes are valid choices.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    let mut input = dice.bytes(3_000);
    if dice.below(2) == 0 {
        // An undamaged link.
        for byte in &mut input {
            if *byte & 0x0E == 0x0E {
                *byte &= 0xEF;
            }
        }
    }
    input
}
