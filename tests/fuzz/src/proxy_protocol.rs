//! Target `proxy_protocol`: the header that a proxy in front of the edge sends. A result does
//! not depend on what follows, no more than the limit is ever needed, and both readers, the
//! agent's and the edge's, agree.

use std::net::{IpAddr, SocketAddr};

use culvert::proto::proxy_protocol::decode::{MAX_DECODED_BYTES, decode};
use culvert::proto::proxy_protocol::{Prefix, detect, encode};

use crate::input::Dice;

/// The bytes are the start of a connection.
pub fn check(data: &[u8]) {
    let whole = decode(data);
    for n in 0..data.len().min(200) {
        match decode(&data[..n]) {
            Ok(None) => {}
            early => assert_eq!(early, whole, "decided after {n} bytes"),
        }
    }
    let Ok(header) = whole else { return };
    let Some(header) = header else {
        assert!(data.len() < MAX_DECODED_BYTES, "more is needed after {} bytes", data.len());
        return;
    };
    assert!(header.len <= data.len().min(MAX_DECODED_BYTES));
    assert_eq!(detect(data), Prefix::Header { len: header.len });
    assert_eq!(decode(&data[..header.len]), whole, "the header alone");
    let Some(addresses) = header.addresses else { return };
    for version in [1, 2] {
        let again = encode(version, addresses.source, addresses.destination);
        let found = decode(&again).expect("what is written is read").expect("complete");
        assert_eq!(found.len, again.len());
        let found = found.addresses.expect("addresses");
        let canonical = |a: SocketAddr| (a.ip().to_canonical(), a.port());
        assert_eq!(canonical(found.source), canonical(addresses.source));
        assert_eq!(canonical(found.destination), canonical(addresses.destination));
    }
}

/// A header of either version, perhaps with a few changed bytes, and a visitor behind it.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    let address = |dice: &mut Dice| {
        let ip: IpAddr = match dice.below(3) {
            0 => IpAddr::from((dice.roll() as u32).to_be_bytes()),
            1 => IpAddr::from([0, 0, 0, 0, 0, 0xffff, dice.roll() as u16, 7]),
            _ => IpAddr::from((u128::from(dice.roll()) << 64 | 1).to_be_bytes()),
        };
        SocketAddr::new(ip, dice.roll() as u16)
    };
    let mut input = match dice.below(5) {
        0 => dice.pick(&[&b"PROXY UNKNOWN\r\n"[..], b"PROXY TCP4 ", b"GET / "]).to_vec(),
        1 => {
            let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
            header.extend([dice.pick(&[0x20, 0x21, 0x22]), dice.pick(&[0, 0x11, 0x21, 0x31])]);
            header.extend(dice.pick(&[0u16, 11, 12, 36, 216, 0xffff]).to_be_bytes());
            header.extend(dice.bytes(300));
            header
        }
        n => encode(1 + u8::from(n == 2), address(dice), address(dice)),
    };
    for _ in 0..dice.below(3) {
        let at = dice.below(input.len());
        let any = dice.roll() as u8;
        input[at] = dice.pick(&[any, b' ', b'0', b'\r', 0]);
    }
    input.extend(dice.bytes(40));
    input
}
