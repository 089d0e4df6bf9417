//! The part of RFC 6455 that tests need.

use std::io;

use super::visitor::Visitor;
use super::wire::{Message, Wire};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// Response of a server to [`KEY`], from RFC 6455 1.3.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Opens a WebSocket; panics unless the handshake is right.
#[track_caller]
pub fn open(mut visitor: Visitor) -> Wire {
    let fields = format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\n"
    );
    visitor.send("GET", "/ws", &fields, b"").unwrap();
    let answer = visitor.wire.read_response("GET").unwrap();
    assert_eq!(answer.status(), 101, "{answer:?}");
    assert_eq!(answer.field("sec-websocket-accept"), Some(ACCEPT));
    assert!(answer.field("upgrade").is_some_and(|u| u.eq_ignore_ascii_case("websocket")));
    visitor.wire
}

/// Server side: accepts and echoes until the client closes.
pub fn serve_echo(request: &Message, wire: &mut Wire) -> io::Result<()> {
    let asked = request.field("upgrade").is_some_and(|u| u.eq_ignore_ascii_case("websocket"));
    if !asked || request.field("sec-websocket-key") != Some(KEY) {
        return wire.respond("426 Upgrade Required", "", b"");
    }
    wire.write(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    ))?;
    loop {
        let (opcode, payload) = receive(wire)?;
        send(wire, opcode, &payload, false)?;
        if opcode == 8 {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
}

/// Sends one frame. Clients must mask.
pub fn send(wire: &mut Wire, opcode: u8, payload: &[u8], mask: bool) -> io::Result<()> {
    let mut frame = vec![0x80 | opcode];
    let bit = if mask { 0x80 } else { 0 };
    match payload.len() {
        n @ 0..126 => frame.push(bit | n as u8),
        n @ 126..65_536 => {
            frame.push(bit | 126);
            frame.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            frame.push(bit | 127);
            frame.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    let key = if mask { [1, 2, 3, 4] } else { [0; 4] };
    if mask {
        frame.extend_from_slice(&key);
    }
    frame.extend(payload.iter().enumerate().map(|(i, b)| b ^ key[i % 4]));
    wire.write(frame)
}

/// Receives the next frame. Returns opcode and unmasked payload.
pub fn receive(wire: &mut Wire) -> io::Result<(u8, Vec<u8>)> {
    let head = wire.read_exact(2)?;
    let length = match head[1] & 0x7f {
        126 => u64::from(u16::from_be_bytes(wire.read_exact(2)?.try_into().unwrap())),
        127 => u64::from_be_bytes(wire.read_exact(8)?.try_into().unwrap()),
        n => u64::from(n),
    };
    let key = match head[1] & 0x80 {
        0 => vec![0; 4],
        _ => wire.read_exact(4)?,
    };
    let mut payload = wire.read_exact(length as usize)?;
    payload.iter_mut().enumerate().for_each(|(i, b)| *b ^= key[i % 4]);
    Ok((head[0] & 0x0f, payload))
}
