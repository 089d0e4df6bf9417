//! Capture of requests is invisible from outside: upstream and visitor get the same bytes as
//! without it, in every protocol, and its memory stays within its limit.

use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;
use crate::support::wire::Wire;
use crate::support::{Noise, agent};

/// A step of one side of an exchange.
#[derive(Clone)]
enum Step {
    Send(Vec<u8>),
    /// Reads up to a mark.
    Await(&'static [u8]),
    /// Reads to the end.
    Rest,
}
use Step::{Await, Rest, Send};

/// An exchange: the visitor's steps, then the upstream's. `{host}` in the visitor's bytes is
/// the endpoint's name.
type Talk = (&'static str, Vec<Step>, Vec<Step>);

fn send(text: impl AsRef<[u8]>) -> Step {
    Send(text.as_ref().to_vec())
}

fn with_length(head: &str, body: &[u8]) -> Vec<u8> {
    let length = format!("Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), length.as_bytes(), body].concat()
}

fn chunked(head: &str, body: &[u8]) -> Vec<u8> {
    let mut out = [head.as_bytes(), b"Transfer-Encoding: chunked\r\n\r\n"].concat();
    for (n, chunk) in body.chunks(10_007).enumerate() {
        let extension = if n % 3 == 0 { ";a=\"b\"" } else { "" };
        out.extend(format!("{:X}{extension}\r\n", chunk.len()).bytes());
        out.extend(chunk);
        out.extend(b"\r\n");
    }
    out.extend(b"0\r\nX-Sum: 7\r\n\r\n");
    out
}

const CLOSE: &str = "Host: {host}\r\nConnection: close\r\n";

fn talks() -> Vec<Talk> {
    let ask = |first: &str, fields: &str| send(format!("{first} HTTP/1.1\r\n{CLOSE}{fields}\r\n"));
    let head: &[u8] = b"\r\n\r\n";
    let mut big = Noise::bytes(1, 3_000_000);
    let mut odd = Noise::bytes(2, 700_001);
    // The upstream detects the end of an upload by a mark.
    big.extend(b"THE END");
    odd.extend(b"THE END");
    let post = format!("POST /up HTTP/1.1\r\n{CLOSE}");
    let ok = "HTTP/1.1 200 OK\r\n";
    let whole = |answer: Vec<u8>| vec![Await(head), Send(answer)];
    vec![
        ("download", vec![ask("GET /big", ""), Rest], whole(with_length(ok, &big))),
        (
            "upload",
            vec![send(with_length(&post, &big)), Rest],
            vec![Await(b"THE END"), send(with_length(ok, b"thanks"))],
        ),
        ("chunked answer", vec![ask("GET /chunks", ""), Rest], whole(chunked(ok, &odd))),
        (
            "chunked upload",
            vec![send(chunked(&post, &odd)), Rest],
            vec![Await(b"THE END"), Await(head), send(with_length(ok, b"thanks"))],
        ),
        (
            "HEAD",
            vec![ask("HEAD /h", ""), Rest],
            whole(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n".to_vec()),
        ),
        (
            "204",
            vec![ask("DELETE /d", ""), Rest],
            whole(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        ),
        (
            "304",
            vec![ask("GET /e", ""), Rest],
            whole(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec()),
        ),
        (
            "an answer that ends with the connection",
            vec![ask("GET /old", ""), Rest],
            whole([b"HTTP/1.0 200 OK\r\n\r\n", &odd[..]].concat()),
        ),
        (
            "100-continue",
            vec![
                send(format!("{post}Expect: 100-continue\r\nContent-Length: 4\r\n\r\n")),
                Await(b"100 Continue\r\n"),
                Await(b"\r\n"),
                send("body"),
                Rest,
            ],
            vec![
                Await(head),
                send("HTTP/1.1 100 Continue\r\n\r\n"),
                Await(b"body"),
                send(with_length(ok, b"thanks")),
            ],
        ),
        (
            "early hints",
            vec![ask("GET /hints", ""), Rest],
            whole(with_length("HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n", b"x")),
        ),
        (
            "pipelining",
            vec![
                send(
                    "GET /1 HTTP/1.1\r\nHost: {host}\r\n\r\nGET /2 HTTP/1.1\r\nHost: {host}\r\n\r\n",
                ),
                ask("GET /3", ""),
                Rest,
            ],
            // One after another: an edge need not send the next one before.
            (1..4u8)
                .flat_map(|n| [Await(head), send(with_length(ok, &[b'0' + n; 9_000]))])
                .collect(),
        ),
        (
            "an upgrade",
            vec![
                send(
                    "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: \
                     websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \
                     dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                ),
                Await(b"\x02\x05hello"),
                send("\u{2}GET / HTTP/1.1\r\n\r\nTHE END"),
                Rest,
            ],
            vec![
                Await(head),
                send(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: \
                     websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\
                     \u{2}\u{5}hello",
                ),
                Await(b"THE END"),
                Send(odd.clone()),
            ],
        ),
        (
            "an answer before the request is whole",
            vec![
                send(format!("{post}Content-Length: 4\r\n\r\n12")),
                Await(b"\r\n"),
                send("34"),
                Rest,
            ],
            vec![
                Await(head),
                send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"),
                Await(b"1234"),
                send("done"),
            ],
        ),
    ]
}

/// Takes the steps. Returns the bytes that were read.
fn take(wire: &mut Wire, steps: &[Step], host: &str) -> std::io::Result<Vec<u8>> {
    let mut read = Vec::new();
    for step in steps {
        match step {
            Send(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => wire.write(text.replace("{host}", host))?,
                Err(_) => {
                    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(0);
                    let (head, body) = bytes.split_at(end);
                    let head = String::from_utf8(head.to_vec()).unwrap_or_default();
                    wire.write(head.replace("{host}", host))?;
                    wire.write(body)?;
                }
            },
            Await(mark) => read.extend(wire.read_until(mark)?),
            Rest => read.extend(wire.read_rest()?),
        }
    }
    Ok(read)
}

type Shared = Arc<Mutex<Vec<Step>>>;

/// An upstream that takes the steps of the current exchange. Returns the bytes that it read.
fn upstream() -> (Upstream, Shared, Receiver<Vec<u8>>) {
    let steps = Arc::new(Mutex::new(Vec::new()));
    let (tell, told) = mpsc::channel();
    let shared = Arc::clone(&steps);
    let tell = Mutex::new(tell);
    let upstream = Upstream::tcp(move |mut wire| {
        let steps = shared.lock().unwrap().clone();
        let read = take(&mut wire, &steps, "").unwrap_or_else(|e| e.to_string().into_bytes());
        let _ = tell.lock().unwrap().send(read);
    });
    (upstream, steps, told)
}

#[test]
fn nobody_sees_a_difference() {
    let edge = Edge::start();
    let (upstream, steps, told) = upstream();
    let mut before: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    // Without capture, with very little room, and with the default.
    for room in ["-1", "65536", "50000000"] {
        let config = edge.config_via(edge.agent, &format!("  inspect_db_size: {room}\n"));
        let port = upstream.port().to_string();
        let url = "--url=http://same.localhost";
        let mut agent = agent::agent(&config, ["http", &port, url]).start();
        let mut seen = Vec::new();
        for (name, visitor_steps, upstream_steps) in talks() {
            *steps.lock().unwrap() = upstream_steps;
            let mut visitor = Visitor::connect(&edge, agent.url());
            let host = visitor.host().to_owned();
            let got = take(&mut visitor.wire, &visitor_steps, &host)
                .unwrap_or_else(|e| panic!("{name}, inspect_db_size {room}: {e}"));
            let asked = told.recv().unwrap();
            assert!(!got.is_empty() && asked.len() > 20, "{name}");
            seen.push((asked, got));
        }
        for ((now, then), (name, ..)) in seen.iter().zip(&before).zip(talks()) {
            assert!(now == then, "{name} differs with inspect_db_size {room}");
        }
        before = seen;
        agent.process().signal("TERM");
        assert_eq!(agent.process().wait_exit(), Some(0));
    }
}

/// The longest of the exchanges, many at the same time through one small ring.
#[test]
fn captures_under_way_do_not_disturb_each_other() {
    let edge = Edge::start();
    let body = Noise::bytes(3, 400_000);
    let answer = Arc::new(with_length("HTTP/1.1 200 OK\r\n", &body));
    let sent = Arc::clone(&answer);
    let upstream = Upstream::http(move |_, wire| wire.write(&*sent));
    let config = edge.config_via(edge.agent, "  inspect_db_size: 65536\n");
    let agent = agent::agent(&config, ["http", &upstream.port().to_string()]).start();
    thread::scope(|scope| {
        for n in 0..20 {
            let (agent, edge, body) = (&agent, &edge, &body);
            scope.spawn(move || {
                let mut visitor = agent.visit(edge);
                for _ in 0..5 {
                    let got = visitor.ask("POST", &format!("/{n}"), "", body);
                    assert!(got.body == *body);
                }
            });
        }
    });
}

/// Memory with a full ring: at most the memory before, the ring, and a tenth.
#[cfg(feature = "inspect")]
#[test]
fn a_full_ring_takes_what_it_may_and_no_more() {
    use crate::support::{proc, until, wait_idle};
    const RING: u64 = 4 << 20;
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let config = edge.config_via(edge.agent, &format!("  inspect_db_size: {RING}\n"));
    let agent = agent::agent(&config, ["http", &upstream.port().to_string()]).start();
    let mut visitor = agent.visit(&edge);
    assert_eq!(visitor.get("/").status(), 200);
    wait_idle(agent.pid());
    let idle = proc::rss(agent.pid());
    let most = idle + RING / 1024 * 11 / 10;
    let body = Noise::bytes(4, 3_000).iter().map(|b| b'a' + b % 26).collect::<Vec<u8>>();
    let mut full = None;
    for round in 0..4 {
        for n in 0..1_000 {
            let answer = visitor.ask("POST", &format!("/{round}/{n}"), "", &body);
            assert_eq!(answer.status(), 200);
        }
        let now = until("memory to be known", || Some(proc::rss(agent.pid())).filter(|n| *n > 0));
        assert!(now <= most, "{now} KiB of {most}, idle {idle}");
        if let Some(full) = full.replace(now) {
            // The kernel adds the counts of each processor with a delay.
            assert!(now <= full + 256, "it grows: {full}, then {now} KiB");
        }
    }
    let full = full.unwrap();
    assert!(full >= idle + RING / 1024 * 8 / 10, "nothing was captured? {idle}, {full}");
}
