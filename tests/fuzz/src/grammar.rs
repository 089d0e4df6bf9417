//! Frames that look valid, for hostile peers.

use culvert::mux::frame::{FIN, FrameHeader, FrameType, SYN};

use crate::input::{Choices, Dice};

/// Returns one frame made from choices: usually of a few streams, usually well-formed.
pub fn frame(choices: &mut Choices<'_>) -> Vec<u8> {
    let id = match choices.below(8) {
        0 => choices.word(),
        // Ids of both parities that were used before.
        _ => 2 + u32::from(choices.byte() % 12),
    };
    let mut header = FrameHeader { length: 0, kind: FrameType::Data, flags: 0, stream: id };
    let mut payload = Vec::new();
    match choices.below(16) {
        0..4 => {
            header.flags = SYN;
            let kind = match choices.below(6) {
                0 => u32::MAX,
                1 => choices.word(),
                n => n as u32,
            };
            let n = choices.below(9).min(4);
            payload.extend_from_slice(&kind.to_be_bytes()[..n.max(choices.below(5)).min(4)]);
            payload.resize(payload.len() + choices.below(40), 0xAA);
        }
        4..9 => {
            let n = match choices.below(4) {
                0 => usize::from(choices.short()),
                1 => 4,
                _ => choices.below(60),
            };
            payload.resize(n, choices.byte());
            header.flags = if choices.below(4) == 0 { FIN } else { 0 };
        }
        9 => header.flags = FIN,
        10 => {
            header.kind = FrameType::Rst;
            payload.extend_from_slice(&u32::from(choices.byte()).to_be_bytes());
        }
        11 | 12 => {
            header.kind = FrameType::WndInc;
            let increment = match choices.below(3) {
                0 => choices.word(),
                _ => u32::from(choices.short()),
            };
            payload.extend_from_slice(&increment.to_be_bytes());
        }
        13 => {
            header.kind = FrameType::GoAway;
            header.stream = 0;
            payload.extend_from_slice(&u32::from(choices.byte()).to_be_bytes());
            payload.extend_from_slice(&u32::from(choices.byte()).to_be_bytes());
            payload.resize(8 + choices.below(20), b'x');
        }
        14 => {
            header.kind = FrameType::Unknown(4 + choices.byte() % 12);
            payload.resize(choices.below(20), 0);
        }
        _ => {
            // Random bytes.
            header = FrameHeader::decode(std::array::from_fn(|_| choices.byte()));
            header.length %= 1 << 17;
            payload.resize(choices.below(20), 0);
            return [&header.encode()[..], &payload].concat();
        }
    }
    header.length = payload.len() as u32;
    [&header.encode()[..], &payload].concat()
}

/// Returns frames made from dice.
pub fn frames(dice: &mut Dice) -> Vec<u8> {
    let count = 1 + dice.below(40);
    (0..count)
        .flat_map(|_| {
            let choices = dice.bytes(24);
            frame(&mut Choices::new(&choices))
        })
        .collect()
}
