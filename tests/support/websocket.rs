//! The part of RFC 6455 that tests need.

use std::io;

use super::visitor::Visitor;
use super::websocket_frame::{self, ACCEPT, CLOSE, KEY};
use super::wire::{Message, Wire};

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
        if opcode == CLOSE {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
}

/// Sends one frame. Clients must mask.
pub fn send(wire: &mut Wire, opcode: u8, payload: &[u8], mask: bool) -> io::Result<()> {
    wire.write(websocket_frame::encode(opcode, payload, mask))
}

/// Receives the next frame. Returns opcode and unmasked payload.
pub fn receive(wire: &mut Wire) -> io::Result<(u8, Vec<u8>)> {
    websocket_frame::decode(&mut |buffer| {
        buffer.copy_from_slice(&wire.read_exact(buffer.len())?);
        Ok(())
    })
}
