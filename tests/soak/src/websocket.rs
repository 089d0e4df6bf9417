//! WebSocket exchanges (RFC 6455): both ends, with messages that are checked and echoed.

use std::io::{self, Write};

use crate::bytes::{self, Way};
use crate::ledger::{Outcome, Side};
use crate::plan::{Exchange, Fault, Random, mix};
use crate::shared::{Seen, Shared};
use crate::websocket_frame::{self, ACCEPT, CLOSE, KEY};
use crate::wire::Wire;

const BINARY: u8 = 2;

/// Message `n` of an exchange.
fn message(shared: &Shared, plan: &Exchange, n: u64) -> Vec<u8> {
    let mut random = Random::new(shared.seed, plan.id, 1_000 + n);
    let size = match random.below(10) {
        0..3 => random.below(126),
        3..9 => random.below(8 * 1024),
        _ => random.below(100 * 1024),
    };
    let mut bytes = vec![0; size as usize];
    bytes::fill(mix(bytes::key(shared.seed, plan.id, Way::Up) ^ n), 0, &mut bytes);
    bytes
}

fn send(wire: &mut Wire, opcode: u8, payload: &[u8], mask: bool) -> io::Result<()> {
    wire.stream.write_all(&websocket_frame::encode(opcode, payload, mask))
}

fn receive(wire: &mut Wire) -> io::Result<(u8, Vec<u8>)> {
    websocket_frame::decode(&mut |buffer| wire.read_exact(buffer))
}

/// Checks that a frame is message `n`.
fn check(shared: &Shared, plan: &Exchange, n: u64, frame: &(u8, Vec<u8>)) -> Result<(), Seen> {
    let expected = message(shared, plan, n);
    if frame.0 == BINARY && frame.1 == expected {
        return Ok(());
    }
    let same = frame.1.iter().zip(&expected).take_while(|(a, b)| a == b).count();
    let what = format!(
        "message {n} has opcode {}, {} of {} bytes, {same} of them right",
        frame.0,
        frame.1.len(),
        expected.len()
    );
    Err(Seen::Other(what))
}

/// Upstream side, after the request's head.
pub fn serve(shared: &Shared, mut wire: Wire, plan: &Exchange, since: u64) -> io::Result<()> {
    write!(
        wire.stream,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         X-Id: {:x}\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n",
        plan.id.to_u64()
    )?;
    let fault = matches!(plan.fault, Some(Fault::VisitorInRequest { .. }));
    let mut done = 0;
    let mut echo = || -> Result<(), Seen> {
        loop {
            if let Some(Fault::Upstream { after: Some(after), .. }) = plan.fault
                && done == after
            {
                return wire.wait_unread().map_err(Seen::Broken);
            }
            let frame = receive(&mut wire).map_err(Seen::Broken)?;
            if frame.0 == CLOSE {
                return send(&mut wire, CLOSE, &frame.1, false).map_err(Seen::Broken);
            }
            check(shared, plan, done, &frame)?;
            done += 1;
            send(&mut wire, BINARY, &frame.1, false).map_err(Seen::Broken)?;
        }
    };
    let seen = match echo() {
        Err(seen) => seen,
        Ok(()) if matches!(plan.fault, Some(Fault::Upstream { .. })) => {
            shared.count(Side::Upstream, plan.id, Outcome::Fault);
            return Ok(());
        }
        Ok(()) => Seen::End { count: done, expected: plan.up },
    };
    shared.judge(Side::Upstream, plan, since, fault, &seen);
    Ok(())
}

/// Visitor side, on a new connection.
pub fn visit(shared: &Shared, wire: &mut Wire, plan: &Exchange, host: &str) -> Result<(), Seen> {
    let broken = Seen::Broken;
    write!(
        wire.stream,
        "GET /v/{:x} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
        plan.id.to_u64()
    )
    .map_err(broken)?;
    let head = wire.head().map_err(broken)?;
    let head = head.ok_or_else(|| Seen::Broken(io::ErrorKind::UnexpectedEof.into()))?;
    if head.status() != 101 {
        return Err(Seen::Status(head.status()));
    }
    if head.field("sec-websocket-accept") != Some(ACCEPT) {
        return Err(Seen::Other(format!("the handshake is {:?}", head.0)));
    }
    let mut random = Random::new(shared.seed, plan.id, 999);
    let mut n = 0;
    while n < plan.up {
        let batch = random.between(1, 5).min(plan.up - n);
        if let Some(Fault::VisitorInRequest { after, .. }) = plan.fault
            && n + batch > after
        {
            // The unread echo makes the close a reset.
            send(wire, BINARY, &message(shared, plan, n), true).map_err(broken)?;
            wire.wait_unread().map_err(broken)?;
            return Ok(());
        }
        for n in n..n + batch {
            send(wire, BINARY, &message(shared, plan, n), true).map_err(broken)?;
        }
        for n in n..n + batch {
            let frame = receive(wire).map_err(broken)?;
            check(shared, plan, n, &frame)?;
        }
        n += batch;
    }
    send(wire, CLOSE, &[3, 232], true).map_err(broken)?;
    match receive(wire).map_err(broken)? {
        (CLOSE, code) if code == [3, 232] => {}
        other => return Err(Seen::Other(format!("in place of the close frame: {other:?}"))),
    }
    // The upstream closes after its close frame.
    match wire.read_some(&mut [0; 16]).map_err(broken)? {
        0 => Ok(()),
        n => Err(Seen::Other(format!("{n} bytes behind the close frame"))),
    }
}
