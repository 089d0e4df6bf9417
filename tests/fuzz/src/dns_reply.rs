//! Target `dns_reply`: a modified reply of a resolver. It is read in bounded time and memory,
//! rejected if it does not match the query, and its result contains no other addresses.

use culvert::net::dns::{DnsReply, MAX_REPLY_BYTES, Query, RecordType, ReplyError};
use std::net::IpAddr;

use crate::input::Dice;

const NAME: &str = "Edge.example";
const ID: u16 = 0x1234;

/// The first byte decides the kind of the requested addresses.
pub fn check(data: &[u8]) {
    let (first, message) = data.split_first().unwrap_or((&0, &[]));
    let kind = if first & 1 == 0 { RecordType::A } else { RecordType::Aaaa };
    let query = Query::new(ID, NAME, kind).expect("a name");
    let said = query.read(message);
    // Each byte that identifies the reply matters.
    let question = query.message().len();
    if said != Err(ReplyError::NotOurs) {
        assert!(message.len() >= question, "shorter than its question");
        assert_eq!(message[..2], ID.to_be_bytes());
        assert_eq!(message[2] & 0x80, 0x80, "a question taken for an answer");
        assert!(message[12..question].eq_ignore_ascii_case(&query.message()[12..]));
    }
    let Ok(DnsReply::Addresses(list)) = said else { return };
    assert!(!list.is_empty() && list.len() <= 16);
    let message = &message[..message.len().min(MAX_REPLY_BYTES)];
    for ip in list {
        let there = match ip {
            IpAddr::V4(ip) => {
                assert_eq!(kind, RecordType::A);
                message.windows(4).any(|w| w == ip.octets())
            }
            IpAddr::V6(ip) => {
                assert_eq!(kind, RecordType::Aaaa);
                message.windows(16).any(|w| w == ip.octets())
            }
        };
        assert!(there, "{ip} is not in the message");
    }
}

/// Returns a reply with records that match, point in circles, or have wrong lengths.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    let aaaa = dice.below(2) as u8;
    let kind = if aaaa == 0 { RecordType::A } else { RecordType::Aaaa };
    let mut message = Query::new(ID, NAME, kind).expect("a name").message().to_vec();
    message[2..4].copy_from_slice(&dice.pick(&[[0x81, 0x80], [0x81, 0x83], [0x83, 0x80], [1, 0]]));
    let count = dice.below(6);
    message[7] = count as u8;
    for _ in 0..count {
        let owner: &[u8] = match dice.below(6) {
            0 => &[0xc0, 12],
            1 => &[0xc0, 17],
            2 => b"\x01a\x00",
            3 => b"\x01a\xc0\x0c",
            4 => b"\x04edge\x07example\x00",
            _ => &[0xc0, 40],
        };
        message.extend_from_slice(owner);
        let data: Vec<u8> = match dice.below(5) {
            0 => dice.bytes(20),
            1 => vec![7; 4],
            2 => vec![9; 16],
            3 => b"\x01a\x00".to_vec(),
            _ => vec![0xc0, dice.roll() as u8 & 63],
        };
        let kind = dice.pick(&[1u16, 28, 5, 41]);
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
        let length = if dice.below(8) == 0 { dice.roll() as u16 } else { data.len() as u16 };
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(&data);
    }
    if dice.below(3) == 0 {
        let at = dice.below(message.len());
        message[at] ^= dice.roll() as u8;
    }
    if dice.below(6) == 0 {
        message.truncate(dice.below(message.len() + 1));
    }
    let mut input = vec![aaaa];
    input.extend(message);
    input
}
