//! Hostile peers on both sides of the muxer: too much of what is allowed. Their own session may
//! end, memory stays flat, others are not affected.

use serde_json::{Value, json};

use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::peer::{
    AUTH, BIND, BadEdge, DATA, FIN, HEARTBEAT, RST, SYN, Session, WNDINC, frame,
};
use crate::support::process::Process;
use crate::support::upstream::Upstream;
use crate::support::visitor::try_get;
use crate::support::{proc, wait_for};

const URL: &str = "http://scripted.localhost";

/// Upper limit of memory in KiB: several windows of what a careless implementation would keep.
const CEILING: u64 = 48 * 1024;

fn agent_of(edge: &BadEdge, upstream: &Upstream) -> (Process, Session) {
    // Captured requests have their own limit, which would hide the others.
    let little = "  inspect_db_size: 1048576\n";
    let agent = edge.agent(&["http", &upstream.port().to_string()], little).spawn();
    let mut session = edge.accept();
    session.welcome(&[URL]);
    (agent, session)
}

/// Asserts that the agent serves: on this session, or on the one that follows.
#[track_caller]
fn assert_alive(edge: &BadEdge, agent: &mut Process, session: Option<Session>) {
    agent.assert_running();
    assert!(proc::rss(agent.pid()) < CEILING, "{} KiB", proc::rss(agent.pid()));
    let mut session = session.unwrap_or_else(|| {
        let mut next = edge.accept();
        next.welcome(&[URL]);
        next
    });
    let request = b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let stream = session.visit("b0", "http", request);
    wait_for("the upstream's answer", || {
        session.receive().expect("frames of the answer");
        session.received(stream).ends_with(b"GET /x ")
    });
}

/// Writes while the connection is not read: stops when the session has ended.
fn pour(session: &mut Session, times: usize, mut bytes: impl FnMut(usize) -> Vec<u8>) -> bool {
    (0..times).all(|n| session.write(&bytes(n)).is_ok())
}

#[test]
fn streams_opened_and_reset_at_once() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let (mut agent, mut session) = agent_of(&edge, &upstream);
    pour(&mut session, 1000, |n| {
        let mut bytes = Vec::new();
        for k in 0..20u32 {
            let id = 1000 + 2 * (n as u32 * 20 + k);
            bytes.extend(frame(DATA, SYN, id, 4, &[0, 0, 0, 3]));
            bytes.extend(frame(RST, 0, id, 4, &[0, 0, 0, 6]));
        }
        bytes
    });
    drop(session);
    assert_alive(&edge, &mut agent, None);
    wait_for("no upstream connection to be left", || upstream.open() <= 1);
}

#[test]
fn empty_and_tiny_frames() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let (mut agent, mut session) = agent_of(&edge, &upstream);
    let stream = session.visit("b0", "http", b"POST / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n");
    pour(&mut session, 100, |n| {
        let (length, payload) = if n % 2 == 0 { (0, &b""[..]) } else { (1, &b"t"[..]) };
        frame(DATA, 0, stream, length, payload).repeat(500)
    });
    drop(session);
    assert_alive(&edge, &mut agent, None);
}

#[test]
fn increments_that_overflow_the_window() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let (mut agent, mut session) = agent_of(&edge, &upstream);
    let stream = session.visit("b0", "http", b"GET ");
    pour(&mut session, 1000, |_| frame(WNDINC, 0, stream, 4, &[0x7f, 0xff, 0xff, 0xff]));
    drop(session);
    assert_alive(&edge, &mut agent, None);
}

#[test]
fn full_windows_on_hundreds_of_streams() {
    let edge = BadEdge::new();
    // Accepts connections and reads nothing: the agent has to buffer everything.
    let upstream = Upstream::http(|request, wire| match request.target() {
        "/x" => crate::support::upstream::hello(request, wire),
        _ => Ok(()),
    });
    let (mut agent, mut session) = agent_of(&edge, &upstream);
    for n in 0..400 {
        let head = b"POST /hold HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n";
        let stream = session.visit("b0", "http", head);
        let full = (0..15).all(|_| session.send(DATA, 0, stream, &[n as u8; 16_000]).is_ok());
        if !full {
            break;
        }
        assert!(proc::rss(agent.pid()) < CEILING, "{} KiB", proc::rss(agent.pid()));
    }
    drop(session);
    assert_alive(&edge, &mut agent, None);
}

#[test]
fn heartbeats_without_end() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let (mut agent, mut session) = agent_of(&edge, &upstream);
    let beat = session.open(HEARTBEAT, b"");
    pour(&mut session, 200, |_| frame(DATA, 0, beat, 400, &[7; 400]).repeat(10));
    drop(session);
    assert_alive(&edge, &mut agent, None);
    // Many requests at once are refused at some point, not served forever.
    let mut session = edge.accept();
    session.welcome(&[URL]);
    for _ in 0..200 {
        session.open(HEARTBEAT, b"beat");
    }
    drop(session);
    assert_alive(&edge, &mut agent, None);
}

#[test]
fn more_visitors_than_it_can_take_at_once() {
    let (edge, upstream) = (BadEdge::new(), Upstream::tcp(|mut wire| drop(wire.read_rest())));
    // Without a limit the machine's memory decides how many it takes.
    let lines = "  memory_limit: 8MiB\n";
    let agent = edge.agent(&["http", &upstream.port().to_string()], lines).spawn();
    let mut session = edge.accept();
    session.welcome(&[URL]);
    let mut streams = Vec::new();
    for _ in 0..600 {
        streams.push(session.visit("b0", "http", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"));
    }
    // Some get a 503 or a RST, and the session is still open.
    let answer = session.wait("a refusal", |f| {
        streams.contains(&f.stream) && (f.kind == RST || f.payload.starts_with(b"HTTP/1.1 503"))
    });
    assert!(streams.contains(&answer.stream));
    for stream in streams {
        let _ = session.send(DATA, FIN, stream, b"");
        let _ = session.send(RST, 0, stream, &[0, 0, 0, 6]);
    }
    drop(session);
    let mut agent = agent;
    let mut next = edge.accept();
    next.welcome(&[URL]);
    agent.assert_running();
}

// The same from the other side: hostile agents at the edge.

/// Returns an Auth that is accepted.
fn auth(token: &str) -> Value {
    json!({"Version": ["3", "2"], "ClientId": "", "Extra": {
        "OS": "linux", "Arch": "amd64", "Authtoken": token, "Version": "1", "Hostname": "",
        "UserAgent": "test/1", "Metadata": "", "Cookie": "", "HeartbeatInterval": 10_000_000_000u64,
        "HeartbeatTolerance": 15_000_000_000u64, "ClientType": "test"}})
}

pub fn bind(proto: &str, opts: &Value) -> Value {
    json!({"Id": "", "Proto": proto, "ForwardsTo": "x", "ForwardsProto": "", "Opts": opts,
           "Extra": {"Token": "", "IPPolicyRef": "", "Metadata": "", "Bindings": null}})
}

/// Returns a scripted agent after Auth.
pub fn scripted_agent(edge: &Edge) -> Session {
    let mut session = Session::connect(edge.agent, &edge.ca);
    let answer = session.call(AUTH, &auth(&edge.authtoken()));
    assert_eq!(answer["Error"].as_str().unwrap_or(""), "", "{answer}");
    session
}

#[test]
fn an_edge_answers_an_agent_that_was_not_written_by_us() {
    let edge = Edge::start();
    let mut session = scripted_agent(&edge);
    let answer = session.call(BIND, &bind("http", &json!({})));
    let url = answer["URL"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    let http = edge.http;
    let host = url.split_once("://").unwrap().1.to_owned();
    let visitor = std::thread::spawn(move || {
        let mut wire = crate::support::wire::Wire::connect(http).unwrap();
        wire.write(format!("GET /q HTTP/1.1\r\nHost: {host}\r\n\r\n")).unwrap();
        wire.read_response("GET").unwrap()
    });
    let opened =
        session.wait("a visitor", |f| f.flags & SYN != 0 && f.payload[..4] == [0, 0, 0, 3]);
    wait_for("the whole request", || {
        let bytes = session.received(opened.stream);
        let complete = bytes.windows(4).any(|w| w == b"\r\n\r\n");
        if !complete {
            session.receive().unwrap();
        }
        complete
    });
    let bytes = session.received(opened.stream).to_vec();
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + n]).unwrap();
    assert_eq!(header["Id"], answer["Id"]);
    assert_eq!(header["Proto"], "http");
    assert!(header["ClientAddr"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(bytes[8 + n..].starts_with(b"GET /q HTTP/1.1\r\n"));
    session
        .send(DATA, 0, opened.stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .unwrap();
    assert_eq!(visitor.join().unwrap().text(), "ok");
}

#[test]
fn bad_agents_end_and_good_ones_do_not_notice() {
    let mut edge = Edge::start();
    let upstream = Upstream::hello();
    let good = agent::http(&edge, upstream.port());
    let url = good.url().to_owned();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("garbage", vec![0xff; 100_000]),
        ("RST of 3 bytes", frame(RST, 0, 2, 3, b"abc")),
        ("DATA on stream 0", frame(DATA, 0, 0, 1, b"x")),
        ("WNDINC of 0", frame(WNDINC, 0, 2, 4, &[0; 4])),
        ("SYN with an id of the edge's", frame(DATA, SYN, 98, 4, &[0, 0, 0, 1])),
        ("a visitor's stream before Auth", frame(DATA, SYN, 3, 4, &[0, 0, 0, 3])),
        ("Bind before Auth", frame(DATA, SYN, 3, 6, b"\0\0\0\x01{}")),
        ("nonsense for Auth", frame(DATA, SYN, 3, 12, b"\0\0\0\0nonsense")),
    ];
    for (what, bytes) in &cases {
        let mut session = Session::connect(edge.agent, &edge.ca);
        let _ = session.write(bytes);
        if what.contains("Auth") {
            // At least a stream is refused; a deadline ends the rest.
            let end = session.receive();
            assert!(end.is_err() || end.is_ok_and(|f| f.kind != WNDINC || f.stream > 0), "{what}");
        } else {
            session.wait_end();
        }
        assert_eq!(try_get(&edge, &url, "/").unwrap().text(), "GET / ", "after {what}");
    }
    edge.process().assert_running();
}

#[test]
fn wrong_tokens_are_refused_with_a_code_and_the_session_ends() {
    let edge = Edge::start();
    let missing = Session::connect(edge.agent, &edge.ca).call(AUTH, &auth(""));
    assert!(missing["Error"].as_str().unwrap().contains("ERR_NGROK_4018"), "{missing}");
    let mut session = Session::connect(edge.agent, &edge.ca);
    let wrong = session.call(AUTH, &auth("2abcdefghijklmnopqrstuvwxyz_0123456789ABCDEFGHIJK"));
    let text = wrong["Error"].as_str().unwrap();
    assert!(text.contains("ERR_NGROK_107") || text.contains("ERR_NGROK_105"), "{wrong}");
    session.wait_end();
}

#[test]
fn an_agent_that_floods_the_edge() {
    let mut edge = Edge::start();
    let upstream = Upstream::hello();
    let good = agent::http(&edge, upstream.port());
    let url = good.url().to_owned();
    let (pid, still) = (edge.pid(), |edge: &Edge| {
        assert_eq!(try_get(edge, &url, "/").unwrap().text(), "GET / ");
    });
    // Streams opened and reset.
    let mut session = scripted_agent(&edge);
    pour(&mut session, 1000, |n| {
        let mut bytes = Vec::new();
        for k in 0..20u32 {
            let id = 1001 + 2 * (n as u32 * 20 + k);
            bytes.extend(frame(DATA, SYN, id, 4, &[0, 0, 0, 1]));
            bytes.extend(frame(RST, 0, id, 4, &[0, 0, 0, 6]));
        }
        bytes
    });
    still(&edge);
    // Endless calls, and endless JSON.
    let mut session = scripted_agent(&edge);
    pour(&mut session, 600, |n| frame(DATA, SYN, 1001 + 2 * n as u32, 5, b"\0\0\0\x01{"));
    still(&edge);
    let mut session = scripted_agent(&edge);
    let stream = session.open(BIND, b"{\"Id\":\"");
    pour(&mut session, 200, |_| frame(DATA, 0, stream, 16_000, &[b'a'; 16_000]));
    still(&edge);
    assert!(proc::rss(pid) < 2 * CEILING, "{} KiB", proc::rss(pid));
    edge.process().assert_running();
}

#[test]
fn endpoints_without_number_are_refused_at_some_point() {
    let edge = Edge::start();
    let mut session = scripted_agent(&edge);
    let refused = (0..2000).find_map(|_| {
        let answer = session.call(BIND, &bind("http", &json!({})));
        answer["Error"].as_str().filter(|e| !e.is_empty()).map(str::to_owned)
    });
    let text = refused.expect("two thousand endpoints of one session were granted");
    assert!(text.contains("ERR_NGROK_324"), "{text}");
}

#[test]
fn visitors_who_say_nothing_or_little_hold_up_nobody() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let agent = agent::http(&edge, upstream.port());
    let idle: Vec<_> = (0..200)
        .map(|n| {
            let mut visitor = agent.visit(&edge);
            let some = ["", "G", "GET / HTTP/1.1\r\nHo", "\r\n"][n % 4];
            visitor.wire.write(some).unwrap();
            visitor
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(agent.visit(&edge).get("/").text(), "GET / ");
    }
    assert_eq!(upstream.accepted(), 20, "a request without end reaches no upstream");
    drop(idle);
}

#[test]
fn calls_that_wait_for_a_taken_name_and_are_reset_cost_no_thread() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let good = agent::http(&edge, upstream.port());
    let host = good.url().split([':', '/']).find(|part| part.contains('.')).unwrap();
    let taken = bind("http", &json!({"Domain": host})).to_string();
    let mut session = scripted_agent(&edge);
    let before = proc::threads(edge.pid());
    for _ in 0..300 {
        let stream = session.open(BIND, taken.as_bytes());
        session.send(RST, 0, stream, &[0, 0, 0, 6]).unwrap();
    }
    let waiting: Vec<u32> = (0..4).map(|_| session.open(BIND, taken.as_bytes())).collect();
    // Each of them gets its refusal, and the session serves on.
    for stream in waiting {
        wait_for("a refusal", || {
            let received = session.received(stream);
            let refused = received.windows(12).any(|w| w == b"ERR_NGROK_33");
            if !refused {
                session.receive().unwrap();
            }
            refused
        });
    }
    let free = session.call(BIND, &bind("http", &json!({})));
    assert_eq!(free["Error"].as_str().unwrap_or(""), "", "{free}");
    let most = before + 8;
    assert!(proc::threads(edge.pid()) <= most, "{} threads", proc::threads(edge.pid()));
}

#[test]
fn what_strangers_and_agents_do_wrong_is_not_a_log_line_each() {
    let mut edge = Edge::start();
    let mut stranger = Session::connect(edge.agent, &edge.ca);
    for _ in 0..400 {
        if stranger.send(DATA, SYN, 2001, &[0, 0, 0, 3]).is_err() {
            break;
        }
        stranger.open(3, b"");
    }
    let mut agent = scripted_agent(&edge);
    for _ in 0..100 {
        let refused = agent.call(BIND, &bind("http", &json!({"Domain": "not a domain"})));
        assert_ne!(refused["Error"].as_str().unwrap_or(""), "", "{refused}");
        agent.call(BIND, &json!([]));
    }
    for _ in 0..30 {
        Session::connect(edge.agent, &edge.ca);
    }
    edge.process().wait_stderr("bind refused");
    for phrase in ["stream refused", "malformed call", "bind refused", "agent not accepted"] {
        let lines = edge.process().count_stderr(phrase);
        assert!(lines <= 10, "{lines} lines: {phrase}");
    }
}
