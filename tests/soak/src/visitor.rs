//! Visitors of the load: they carry out visits, check every received byte, and inject the
//! visitors' faults.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;

use crate::bytes::{self, Way};
use crate::ledger::{Outcome, Side};
use crate::plan::{self, Early, Exchange, Fault, Id, Kind, SPARE};
use crate::shared::{Entrances, Seen, Shared};
use crate::upstream::{self, GREETING, MAGIC};
use crate::websocket;
use crate::wire::{self, BodyEnd, LAST_CHUNK, Reader, Wire};

/// A connection to the edge and the epoch in which it began.
struct Connection {
    wire: Wire,
    since: u64,
    /// Whether the response before arrived before the body was read.
    behind_early: bool,
}

/// Consequence of an exchange.
enum Next {
    /// The connection is kept.
    Keep(Connection),
    /// The close was announced, or is the end of the body.
    Reconnect,
    /// The visit ends here.
    Leave,
}

/// Carries out one visit. Returns whether the tunnel served it.
pub fn visit(shared: &Shared, entrances: &Entrances, kind: Kind, number: u64) -> bool {
    let ends = match kind {
        Kind::Http | Kind::Down | Kind::SlowHttp => http(shared, entrances, kind, number),
        Kind::WebSocket => websocket(shared, entrances, number),
        Kind::Tcp | Kind::SlowTcp => tcp(shared, entrances, kind, number),
    };
    ends != Some(Outcome::Restart)
}

fn connect(shared: &Shared, plan: &Exchange, address: SocketAddr) -> Result<Connection, Outcome> {
    let since = shared.restarts.now();
    match TcpStream::connect(address).and_then(Wire::new) {
        Ok(wire) => Ok(Connection { wire, since, behind_early: false }),
        // Not a connection: it does not count.
        Err(_) if shared.restarts.any(since) => Err(Outcome::Restart),
        Err(e) => Err(shared.judge(Side::Visitor, plan, since, false, &Seen::Broken(e))),
    }
}

/// Returns the outcome of the last exchange, if it was judged.
fn http(shared: &Shared, entrances: &Entrances, kind: Kind, number: u64) -> Option<Outcome> {
    let host = entrances.host(if kind == Kind::Down { "down" } else { "web" });
    let visit = plan::visit(shared.seed, kind, number);
    let mut kept: Option<Connection> = None;
    let mut last = None;
    let mut index = 0;
    while index < visit.requests {
        let group = visit.depth.min(visit.requests - index);
        let plans: Vec<Exchange> = (index..index + group)
            .map(|index| plan::exchange(shared.seed, Id { kind, visit: number, index }))
            .collect();
        let connection = match kept.take() {
            Some(connection) => connection,
            None => match connect(shared, &plans[0], entrances.http) {
                Ok(connection) => connection,
                Err(outcome) => return Some(outcome),
            },
        };
        let (served, next) = if group > 1 {
            pipelined(shared, connection, &plans, &host, &mut last)
        } else {
            (1, request(shared, connection, &plans[0], &host, &mut last))
        };
        index += served;
        match next {
            Next::Keep(connection) => kept = Some(connection),
            Next::Reconnect => {}
            Next::Leave => break,
        }
    }
    last
}

fn head(plan: &Exchange, host: &str) -> String {
    let id = plan.id.to_u64();
    if !plan.is_post() {
        return format!("GET /v/{id:x} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    }
    let framing = if plan.up_chunked {
        "Transfer-Encoding: chunked".to_owned()
    } else {
        format!("Content-Length: {}", plan.up)
    };
    format!("POST /v/{id:x} HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n\r\n")
}

/// Sends requests in one write, then reads the responses. Returns how many were answered.
fn pipelined(
    shared: &Shared,
    mut connection: Connection,
    plans: &[Exchange],
    host: &str,
    last: &mut Option<Outcome>,
) -> (u64, Next) {
    let mut all = Vec::new();
    for plan in plans {
        all.extend_from_slice(head(plan, host).as_bytes());
        let mut body = vec![0; plan.up as usize];
        bytes::fill(bytes::key(shared.seed, plan.id, Way::Up), 0, &mut body);
        if plan.up_chunked {
            all.extend_from_slice(format!("{:x}\r\n", plan.up).as_bytes());
            all.extend_from_slice(&body);
            all.extend_from_slice(b"\r\n");
            all.extend_from_slice(LAST_CHUNK);
        } else {
            all.extend_from_slice(&body);
        }
    }
    if let Err(e) = connection.wire.stream.write_all(&all) {
        let since = connection.since;
        *last = Some(shared.judge(Side::Visitor, &plans[0], since, false, &Seen::Broken(e)));
        return (1, Next::Leave);
    }
    let mut served = 0;
    for plan in plans {
        served += 1;
        match answer(shared, connection, plan, last) {
            Next::Keep(same) => connection = same,
            other => return (served, other),
        }
    }
    (served, Next::Keep(connection))
}

fn request(
    shared: &Shared,
    mut connection: Connection,
    plan: &Exchange,
    host: &str,
    last: &mut Option<Outcome>,
) -> Next {
    let key = bytes::key(shared.seed, plan.id, Way::Up);
    let wire = &mut connection.wire;
    if let Some(Fault::VisitorInRequest { after, reset }) = plan.fault {
        let mut leave = || {
            if reset {
                let spare = plan::exchange(shared.seed, Id { index: SPARE, ..plan.id });
                wire.stream.write_all(head(&spare, host).as_bytes())?;
                wire.wait_unread()?;
            }
            wire.stream.write_all(head(plan, host).as_bytes())?;
            wire::write_body(&mut wire.stream, key, 0, after, plan.up_chunked)
        };
        match leave() {
            Ok(()) => shared.count(Side::Visitor, plan.id, Outcome::Fault),
            Err(e) => {
                let seen = Seen::Broken(e);
                *last = Some(shared.judge(Side::Visitor, plan, connection.since, true, &seen));
            }
        }
        return Next::Leave;
    }
    let half = if plan.answer_first { plan.up / 2 } else { plan.up };
    let mut send = || {
        wire.stream.write_all(head(plan, host).as_bytes())?;
        wire::write_body(&mut wire.stream, key, 0, half, plan.up_chunked)?;
        if half == plan.up && plan.up_chunked {
            wire.stream.write_all(LAST_CHUNK)?;
        }
        Ok(())
    };
    if let Err(e) = send() {
        // The response may have arrived before.
        let may_be_answered = plan.early.is_some() || plan.id.kind == Kind::Down;
        if wire::is_hang(&e) || !may_be_answered {
            let fault = matches!(plan.fault, Some(Fault::Upstream { .. }));
            let seen = Seen::Broken(e);
            *last = Some(shared.judge(Side::Visitor, plan, connection.since, fault, &seen));
            return Next::Leave;
        }
        return match answer(shared, connection, plan, last) {
            Next::Keep(connection) => {
                let what = "the connection was closed without an announcement";
                let seen = Seen::Broken(io::Error::other(what));
                *last = Some(shared.judge(Side::Visitor, plan, connection.since, false, &seen));
                Next::Leave
            }
            other => other,
        };
    }
    let mut connection = match answer(shared, connection, plan, last) {
        Next::Keep(connection) => connection,
        other => return other,
    };
    if half == plan.up {
        return Next::Keep(connection);
    }
    let stream = &mut connection.wire.stream;
    let rest = wire::write_body(stream, key, half, plan.up, plan.up_chunked)
        .and_then(|()| if plan.up_chunked { stream.write_all(LAST_CHUNK) } else { Ok(()) });
    match rest {
        Ok(()) => Next::Keep(connection),
        Err(e) => {
            let seen = Seen::Broken(e);
            *last = Some(shared.judge(Side::Visitor, plan, connection.since, false, &seen));
            Next::Leave
        }
    }
}

fn answer(
    shared: &Shared,
    mut connection: Connection,
    plan: &Exchange,
    last: &mut Option<Outcome>,
) -> Next {
    let fault = matches!(plan.fault, Some(Fault::Upstream { .. }));
    let since = connection.since;
    let mut judge = |fault, seen: &Seen| {
        *last = Some(shared.judge(Side::Visitor, plan, since, fault, seen));
    };
    let head = match connection.wire.head() {
        Ok(Some(head)) => head,
        Ok(None) => {
            let what = match connection.behind_early {
                true => "closed without an announcement behind an early answer",
                false => "closed without an announcement before the answer",
            };
            judge(fault, &Seen::Broken(io::Error::new(io::ErrorKind::UnexpectedEof, what)));
            return Next::Leave;
        }
        Err(e) => {
            judge(fault, &Seen::Broken(e));
            return Next::Leave;
        }
    };
    let down = plan.id.kind == Kind::Down;
    let status = match plan.early {
        Some(Early::Unauthorized) => 401,
        Some(Early::TooLarge) => 413,
        None if down => 502,
        None => 200,
    };
    let key = bytes::key(shared.seed, plan.id, Way::Down);
    let mut reader = Reader::new(key, plan.visitor);
    if head.status() != status {
        let _ = connection.wire.body(&head, true, &mut reader, u64::MAX);
        let is_page = matches!(head.status(), 404 | 502 | 503 | 504);
        // A page is allowed where an error is. Anything else never is.
        if is_page {
            judge(fault, &Seen::Status(head.status()));
        } else {
            judge(false, &Seen::Other(format!("the head {:?}", head.0)));
        }
        return Next::Leave;
    }
    if !down && head.field("x-id") != Some(&format!("{:x}", plan.id.to_u64())) {
        judge(false, &Seen::Other(format!("the answer to another request: {:?}", head.0)));
        return Next::Leave;
    }
    if let Some(Fault::VisitorInAnswer { after }) = plan.fault {
        match connection.wire.body(&head, true, &mut reader, after) {
            _ if reader.check.wrong.is_some() => {
                judge(false, &Seen::Wrong(reader.check.wrong.unwrap_or(0)));
            }
            Ok(_) => shared.count(Side::Visitor, plan.id, Outcome::Fault),
            Err(e) => judge(false, &Seen::Broken(e)),
        }
        return Next::Leave;
    }
    let end = connection.wire.body(&head, true, &mut reader, u64::MAX);
    let count = reader.check.count;
    shared.ledger.bytes.fetch_add(count + plan.up, Ordering::Relaxed);
    let seen = match (reader.check.wrong, &end) {
        // A page of the agent.
        (_, Ok(_)) if down => Seen::End { count: 0, expected: 0 },
        (Some(at), _) if !down => Seen::Wrong(at),
        (_, Ok(_)) => Seen::End { count, expected: plan.down },
        (_, Err(e)) => Seen::Broken(io::Error::new(e.kind(), e.to_string())),
    };
    judge(fault, &seen);
    match (end, seen) {
        (Ok(Some(BodyEnd::Framed)), Seen::End { .. }) if !head.closes() && !fault => {
            connection.behind_early = plan.early.is_some() || down;
            Next::Keep(connection)
        }
        (Ok(_), Seen::End { .. }) if !fault => Next::Reconnect,
        _ => Next::Leave,
    }
}

fn websocket(shared: &Shared, entrances: &Entrances, number: u64) -> Option<Outcome> {
    let id = Id { kind: Kind::WebSocket, visit: number, index: 0 };
    let plan = plan::exchange(shared.seed, id);
    let mut connection = match connect(shared, &plan, entrances.http) {
        Ok(connection) => connection,
        Err(outcome) => return Some(outcome),
    };
    let host = entrances.host("web");
    let done = websocket::visit(shared, &mut connection.wire, &plan, &host);
    let since = connection.since;
    let fault = matches!(plan.fault, Some(Fault::Upstream { .. }));
    match (done, plan.fault) {
        (Ok(()), Some(Fault::VisitorInRequest { .. })) => {
            shared.count(Side::Visitor, id, Outcome::Fault);
            None
        }
        (Ok(()), _) => {
            let seen = Seen::End { count: plan.up, expected: plan.up };
            // The upstream's fault comes before the close frame or not at all.
            Some(shared.judge(Side::Visitor, &plan, since, fault, &seen))
        }
        (Err(seen), _) => Some(shared.judge(Side::Visitor, &plan, since, fault, &seen)),
    }
}

fn tcp(shared: &Shared, entrances: &Entrances, kind: Kind, number: u64) -> Option<Outcome> {
    let id = Id { kind, visit: number, index: 0 };
    let plan = plan::exchange(shared.seed, id);
    let mut connection = match connect(shared, &plan, entrances.tcp) {
        Ok(connection) => connection,
        Err(outcome) => return Some(outcome),
    };
    let since = connection.since;
    let wire = &mut connection.wire;
    let mut begin = || {
        let mut first = MAGIC.to_vec();
        first.extend_from_slice(&id.to_u64().to_be_bytes());
        wire.stream.write_all(&first)?;
        if let Some(Fault::VisitorInRequest { after, .. }) = plan.fault {
            let key = bytes::key(shared.seed, id, Way::Up);
            wire::write_body(&mut wire.stream, key, 0, after, false)?;
            wire.wait_unread()?;
            return Ok(None);
        }
        let mut greeting = [0; GREETING.len()];
        match wire.read_exact(&mut greeting) {
            // Expected to be a reset.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(Some(Seen::End { count: 0, expected: plan.down.max(1) }));
            }
            other => other?,
        }
        if &greeting != GREETING {
            return Ok(Some(Seen::Other(format!("the greeting is {greeting:?}"))));
        }
        upstream::converse(shared, wire, &plan, Side::Visitor).map(Some)
    };
    let fault = matches!(plan.fault, Some(Fault::Upstream { .. }));
    match begin() {
        Ok(None) => {
            shared.count(Side::Visitor, id, Outcome::Fault);
            None
        }
        Ok(Some(seen)) => Some(shared.judge(Side::Visitor, &plan, since, fault, &seen)),
        Err(e) => {
            // Before the upstream's first byte: it may have left already.
            Some(shared.judge(Side::Visitor, &plan, since, plan.fault.is_some(), &Seen::Broken(e)))
        }
    }
}
