//! Upstreams of the load: HTTP with WebSocket, and raw TCP. They compute the plan of each
//! exchange, check every received byte, and inject the upstream's faults.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use crate::bytes::{self, Way};
use crate::ledger::{Outcome, Side};
use crate::plan::{self, Early, Exchange, Fault, Framing, Id, Kind, Order};
use crate::shared::{Seen, Shared};
use crate::websocket;
use crate::wire::{self, Head, LAST_CHUNK, Reader, Wire};

/// First bytes of each connection to the TCP upstream. A visitor that leaves them unread resets
/// its connection by closing it.
pub const GREETING: &[u8; 16] = b"culvert-soak-tcp";

/// First bytes of a visitor of the TCP upstream, before the number of the exchange.
pub const MAGIC: &[u8; 8] = b"exchange";

/// Number that requests only a response.
pub const PROBE: u64 = u64::MAX;

type Serve = fn(&Shared, Wire) -> io::Result<()>;

/// Listeners of both upstreams, bound before the agent starts.
pub struct Upstreams {
    http: TcpListener,
    tcp: TcpListener,
    /// Bound and not listening, so that the port stays unused.
    pub down: SocketAddr,
}

impl Upstreams {
    pub fn bind() -> io::Result<Upstreams> {
        let any = (Ipv4Addr::LOCALHOST, 0);
        let down = TcpListener::bind(any)?.local_addr()?;
        Ok(Upstreams { http: TcpListener::bind(any)?, tcp: TcpListener::bind(any)?, down })
    }

    pub fn http(&self) -> io::Result<SocketAddr> {
        self.http.local_addr()
    }

    pub fn tcp(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until the end of the process.
    pub fn start(self, shared: &Arc<Shared>) {
        for (listener, serve) in [(self.http, http as Serve), (self.tcp, tcp)] {
            let shared = Arc::clone(shared);
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let shared = Arc::clone(&shared);
                    shared.upstream_connections.fetch_add(1, Ordering::SeqCst);
                    // Its end is counted in the ledger.
                    let run = move || {
                        let _ = Wire::new(stream).and_then(|wire| serve(&shared, wire));
                        shared.upstream_connections.fetch_sub(1, Ordering::SeqCst);
                    };
                    thread::Builder::new()
                        .stack_size(256 * 1024)
                        .spawn(run)
                        .expect("a thread for an upstream's connection");
                }
            });
        }
    }
}

fn http(shared: &Shared, mut wire: Wire) -> io::Result<()> {
    let since = shared.restarts.now();
    loop {
        let head = match wire.head() {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(()),
            // An idle connection.
            Err(e) if wire::is_hang(&e) => continue,
            Err(e) => return Err(e),
        };
        if head.target() == "/probe" {
            wire.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            continue;
        }
        let id =
            head.target().strip_prefix("/v/").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let Some(id) = id.and_then(Id::from_u64) else {
            shared.ledger.describe("Wrong: a request of nobody", &head.0);
            return Err(io::ErrorKind::InvalidData.into());
        };
        let plan = plan::exchange(shared.seed, id);
        if id.kind == Kind::WebSocket {
            return websocket::serve(shared, wire, &plan, since);
        }
        if plan.is_post() && !shared.ledger.is_first(id) {
            shared.count(Side::Upstream, id, Outcome::Twice);
        }
        if !request(shared, &mut wire, &plan, &head, since)? {
            return Ok(());
        }
    }
}

/// Serves one request; returns whether the connection is kept.
fn request(
    shared: &Shared,
    wire: &mut Wire,
    plan: &Exchange,
    head: &Head,
    since: u64,
) -> io::Result<bool> {
    if let Some(Fault::Upstream { after, reset }) = plan.fault {
        let mut cut = || {
            if reset {
                wire.wait_unread()?;
            } else {
                read_body(shared, wire, plan, head, since)?;
            }
            match after {
                Some(after) => respond(shared, &mut wire.stream, plan, after),
                None => Ok(()),
            }
        };
        let done = cut();
        shared.count(Side::Upstream, plan.id, Outcome::Fault);
        done?;
        return Ok(false);
    }
    if let Some(early) = plan.early {
        respond(shared, &mut wire.stream, plan, plan.down)?;
        if early == Early::TooLarge {
            wire.stream.shutdown(Shutdown::Write)?;
            // Like servers that linger, so that the response arrives.
            let mut room = [0; 16 * 1024];
            while wire.read_some(&mut room)? > 0 {}
            return Ok(false);
        }
        return read_body(shared, wire, plan, head, since).map(|()| true);
    }
    read_body(shared, wire, plan, head, since)?;
    let closes = plan.framing == Framing::Close || head.closes();
    if let Err(e) = respond(shared, &mut wire.stream, plan, plan.down) {
        let fault = matches!(plan.fault, Some(Fault::VisitorInAnswer { .. }));
        shared.judge(Side::Upstream, plan, since, fault, &Seen::Broken(e));
        return Ok(false);
    }
    Ok(!closes)
}

/// Reads and judges a request's body. An error is one of the connection.
fn read_body(
    shared: &Shared,
    wire: &mut Wire,
    plan: &Exchange,
    head: &Head,
    since: u64,
) -> io::Result<()> {
    let mut reader = Reader::new(bytes::key(shared.seed, plan.id, Way::Up), plan.upstream);
    let end = wire.body(head, false, &mut reader, u64::MAX);
    let in_request = matches!(plan.fault, Some(Fault::VisitorInRequest { .. }));
    // A visitor may stop after a response that announced the close.
    let may_break = in_request || plan.early.is_some() || plan.fault.is_some();
    let (seen, error) = match (reader.check.wrong, end) {
        (Some(at), _) => (Seen::Wrong(at), Some(io::ErrorKind::InvalidData.into())),
        (None, Ok(_)) => (Seen::End { count: reader.check.count, expected: plan.up }, None),
        (None, Err(e)) => {
            let copy = io::Error::new(e.kind(), e.to_string());
            (Seen::Broken(e), Some(copy))
        }
    };
    let fault = match &seen {
        Seen::Broken(_) => may_break,
        _ => in_request,
    };
    shared.judge(Side::Upstream, plan, since, fault, &seen);
    error.map_or(Ok(()), Err)
}

/// Writes a head and the first `to` bytes of the body; the end of the body if that is all.
fn respond(shared: &Shared, stream: &mut TcpStream, plan: &Exchange, to: u64) -> io::Result<()> {
    let (status, close) = match plan.early {
        Some(Early::Unauthorized) => ("401 Unauthorized", ""),
        Some(Early::TooLarge) => ("413 Content Too Large", "Connection: close\r\n"),
        None if plan.framing == Framing::Close => ("200 OK", "Connection: close\r\n"),
        None => ("200 OK", ""),
    };
    let framing = match plan.framing {
        Framing::Length => format!("Content-Length: {}\r\n", plan.down),
        Framing::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
        Framing::Close => String::new(),
    };
    let id = plan.id.to_u64();
    let head = format!("HTTP/1.1 {status}\r\nX-Id: {id:x}\r\n{close}{framing}\r\n");
    stream.write_all(head.as_bytes())?;
    let chunked = plan.framing == Framing::Chunked;
    let key = bytes::key(shared.seed, plan.id, Way::Down);
    wire::write_body(stream, key, 0, to, chunked)?;
    // A truncated body has an end if nothing was to follow.
    if chunked && to == plan.down {
        stream.write_all(LAST_CHUNK)?;
    }
    Ok(())
}

fn tcp(shared: &Shared, mut wire: Wire) -> io::Result<()> {
    let since = shared.restarts.now();
    wire.stream.write_all(GREETING)?;
    let mut first = [0; 16];
    wire.read_exact(&mut first)?;
    let (magic, number) = first.split_at(8);
    let number = u64::from_be_bytes(number.try_into().expect("eight bytes"));
    if number == PROBE {
        return wire.stream.write_all(b"ok");
    }
    let id = Id::from_u64(number).filter(|_| magic == MAGIC);
    let Some(id) = id else {
        shared.ledger.describe("Wrong: a connection of nobody", &format!("{first:?}"));
        return Ok(());
    };
    let plan = plan::exchange(shared.seed, id);
    if let Some(Fault::Upstream { after, .. }) = plan.fault {
        wire.wait_unread()?;
        let key = bytes::key(shared.seed, id, Way::Down);
        let written = wire::write_body(&mut wire.stream, key, 0, after.unwrap_or(0), false);
        shared.count(Side::Upstream, id, Outcome::Fault);
        return written;
    }
    let fault = matches!(plan.fault, Some(Fault::VisitorInRequest { .. }));
    let seen = converse(shared, &mut wire, &plan, Side::Upstream)?;
    shared.judge(Side::Upstream, &plan, since, fault, &seen);
    Ok(())
}

/// Both directions of a TCP exchange on `side`. The reset of a connection is reported once, to
/// the reader or to the writer.
pub fn converse(shared: &Shared, wire: &mut Wire, plan: &Exchange, side: Side) -> io::Result<Seen> {
    let (out, length, incoming, expected, pace) = match side {
        Side::Visitor => (Way::Up, plan.up, Way::Down, plan.down, plan.visitor),
        Side::Upstream => (Way::Down, plan.down, Way::Up, plan.up, plan.upstream),
    };
    let mut writer = wire.stream.try_clone()?;
    let out_key = bytes::key(shared.seed, plan.id, out);
    let mut write = move || {
        wire::write_body(&mut writer, out_key, 0, length, false)?;
        writer.shutdown(Shutdown::Write)
    };
    let mut reader = Reader::new(bytes::key(shared.seed, plan.id, incoming), pace);
    let first = match plan.order {
        Order::VisitorFirst => Some(Side::Visitor),
        Order::UpstreamFirst => Some(Side::Upstream),
        Order::Both => None,
    };
    let (written, read) = match first {
        Some(first) if first == side => {
            let written = write();
            (written, wire.read_to_end(&mut reader, u64::MAX))
        }
        Some(_) => {
            let read = wire.read_to_end(&mut reader, u64::MAX);
            // An incomplete body gets no response.
            let written = match read {
                Ok(_) if reader.check.count == expected => write(),
                _ => Ok(()),
            };
            (written, read)
        }
        None => thread::scope(|scope| {
            let writer = scope.spawn(write);
            let read = wire.read_to_end(&mut reader, u64::MAX);
            (writer.join().expect("a writer"), read)
        }),
    };
    shared.ledger.bytes.fetch_add(reader.check.count + length, Ordering::Relaxed);
    Ok(match (reader.check.wrong, read, written) {
        (Some(at), _, _) => Seen::Wrong(at),
        (None, Err(e), _) | (None, _, Err(e)) => Seen::Broken(e),
        (None, Ok(_), Ok(())) => Seen::End { count: reader.check.count, expected },
    })
}
