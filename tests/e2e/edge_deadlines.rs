//! Faulty edges: the agent gives up on each of them within a deadline, reports the step, and
//! serves as soon as a good edge is there.

use serde_json::json;

use crate::support::peer::{
    AUTH, BIND, BadEdge, DATA, FIN, GOAWAY, PROXY, RST, SYN, Session, WNDINC, auth_response, frame,
};
use crate::support::process::Process;
use crate::support::upstream::Upstream;
use crate::support::{TempDir, proc, wait_for};

const URL: &str = "http://scripted.localhost";
const STOP: u32 = 5;

/// Starts an agent with short timeouts.
fn impatient(edge: &BadEdge, upstream: &Upstream) -> Process {
    let lines = "  connect_timeout: 1s\n  heartbeat_interval: 1s\n  heartbeat_tolerance: 1s\n";
    edge.agent(&["http", &upstream.port().to_string()], lines).spawn()
}

/// Asserts that the agent reconnects, authenticates and serves.
#[track_caller]
fn assert_recovers(edge: &BadEdge, agent: &mut Process) {
    let mut session = edge.accept();
    session.welcome(&[URL]);
    agent.wait_stdout("the start line", |line| line.starts_with(URL).then_some(()));
    assert_serves(&mut session);
    agent.assert_running();
}

#[track_caller]
fn assert_serves(session: &mut Session) {
    let request = b"GET /x HTTP/1.1\r\nHost: scripted.localhost\r\nConnection: close\r\n\r\n";
    let stream = session.visit("b0", "http", request);
    wait_for("the upstream's answer", || {
        session.receive().expect("frames of the answer");
        session.received(stream).ends_with(b"GET /x ")
    });
}

#[test]
fn one_that_accepts_and_says_nothing() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let mut agent = impatient(&edge, &upstream);
    // Held open: only the agent's deadline can end it.
    let silent = edge.accept_tcp();
    let again = edge.accept_tcp();
    drop((silent, again));
    agent.wait_stderr("connect session");
    assert_recovers(&edge, &mut agent);
}

#[test]
fn one_that_speaks_something_else_than_tls() {
    use std::io::Write;
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let mut agent = impatient(&edge, &upstream);
    for banner in
        [&b"SSH-2.0-OpenSSH_9.9\r\n"[..], b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", &[0; 600]]
    {
        let mut tcp = edge.accept_tcp();
        let _ = tcp.write_all(banner);
    }
    agent.wait_stderr("connect session");
    assert_recovers(&edge, &mut agent);
}

#[test]
fn one_that_resets_at_every_step_of_the_way_in() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let mut agent = impatient(&edge, &upstream);
    let linger = |tcp: &std::net::TcpStream| {
        socket2::SockRef::from(tcp).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    };
    // Before TLS, after TLS, after Auth, after Bind.
    linger(&edge.accept_tcp());
    linger(&edge.accept().tcp);
    let mut session = edge.accept();
    session.wait_call(AUTH);
    linger(&session.tcp);
    drop(session);
    let mut session = edge.accept();
    let (stream, _) = session.wait_call(AUTH);
    session.answer(stream, &auth_response());
    session.wait_call(BIND);
    linger(&session.tcp);
    drop(session);
    assert_recovers(&edge, &mut agent);
}

#[test]
fn one_that_never_answers_auth() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let mut agent = impatient(&edge, &upstream);
    let mut session = edge.accept();
    session.wait_call(AUTH);
    session.wait_end();
    let line = agent.wait_stderr("connect session").to_lowercase();
    assert!(line.contains("auth"), "the log names the step: {line}");
    assert_recovers(&edge, &mut agent);
}

#[test]
fn what_auth_says_of_the_agent() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let port = upstream.port().to_string();
    let (plain, other) = ("", "  client_version: \"9.8.7\"\n  metadata: of the session\n");
    for (lines, version, metadata) in [(plain, "3.39.10", ""), (other, "9.8.7", "of the session")] {
        let _agent = edge.agent(&["http", &port], lines).spawn();
        let mut session = edge.accept();
        let (_, auth) = session.wait_call(AUTH);
        let extra = &auth["Extra"];
        assert_eq!(extra["Version"], version);
        assert_eq!(extra["UserAgent"], concat!("culvert/", env!("CARGO_PKG_VERSION")));
        assert_eq!((&extra["Metadata"], &extra["ConfigVersion"]), (&json!(metadata), &json!("3")));
        assert_eq!((&extra["ServiceRun"], &extra["CustomCAs"]), (&json!(false), &json!(true)));
        assert_eq!((&extra["CustomInterface"], &extra["ProxyType"]), (&json!(false), &json!("")));
        assert_eq!(extra["LegNumber"], 0);
    }
}

#[test]
fn auth_says_that_the_agent_is_a_service() {
    let edge = BadEdge::new();
    let endpoint = "endpoints:\n  - name: web\n    upstream:\n      url: 80\n";
    let _agent = edge.agent(&["service", "run"], endpoint).spawn();
    let (_, auth) = edge.accept().wait_call(AUTH);
    assert_eq!(auth["Extra"]["ServiceRun"], json!(true));
}

/// Ten seconds of the test are the agent's timeout for a call.
#[test]
fn one_that_answers_auth_and_never_a_bind() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let mut agent = impatient(&edge, &upstream);
    let mut session = edge.accept();
    let (stream, _) = session.wait_call(AUTH);
    session.answer(stream, &auth_response());
    session.wait_call(BIND);
    // It echoes heartbeats all the time: only the call's own deadline can end this.
    session.wait_end();
    let line = agent.wait_stderr("connect session");
    assert!(line.contains("Bind: the edge did not respond in time"), "{line}");
    assert_recovers(&edge, &mut agent);
}

#[test]
fn a_signal_while_an_endpoint_is_being_bound_again_is_obeyed_at_once() {
    for signal in ["TERM", "INT"] {
        let (edge, upstream) = (BadEdge::new(), Upstream::hello());
        let mut agent = impatient(&edge, &upstream);
        let mut session = edge.accept();
        session.welcome(&[URL]);
        agent.wait_stdout("the start line", |line| line.starts_with(URL).then_some(()));
        drop(session);
        let mut session = edge.accept();
        let (stream, _) = session.wait_call(AUTH);
        session.answer(stream, &auth_response());
        session.wait_call(BIND);
        let before = std::time::Instant::now();
        agent.signal(signal);
        assert_eq!(agent.wait_exit(), Some(0));
        // Not a measurement: the call itself would have taken ten seconds.
        assert!(before.elapsed() < std::time::Duration::from_secs(8));
    }
}

/// The edge may not have detected yet that the last session is dead.
#[test]
fn a_name_that_is_still_held_is_waited_for_and_takes_no_other_down() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let port = upstream.port();
    let lines = format!(
        "endpoints:\n  - {{name: a, url: \"http://a.localhost\", upstream: {{url: {port}}}}}\n  \
         - {{name: b, url: \"http://b.localhost\", upstream: {{url: {port}}}}}\n"
    );
    let mut agent = edge.agent(&["start", "--all"], &lines).spawn();
    let urls = ["http://a.localhost", "http://b.localhost"];
    let mut session = edge.accept();
    session.welcome(&urls);
    drop(session);
    let mut session = edge.accept();
    let (stream, _) = session.wait_call(AUTH);
    session.answer(stream, &auth_response());
    // In the same order as before.
    let (stream, bind) = session.wait_call(BIND);
    assert_eq!((&bind["Id"], &bind["Extra"]["Name"]), (&json!("b0"), &json!("a")));
    let online = "The endpoint 'http://a.localhost' is already online.\n\nERR_NGROK_334\n";
    session.answer(stream, &json!({"Error": online}));
    let (stream, bind) = session.wait_call(BIND);
    assert_eq!(bind["Id"], "b1");
    session.answer(stream, &crate::support::peer::bind_response(&bind, "b1", urls[1]));
    let line = agent.wait_stderr("endpoint refused");
    assert!(line.contains("our last session") && line.contains("name=a"), "{line}");
    agent.wait_stderr("session is back");
    // Tried again automatically, on the same session.
    let (stream, bind) = session.wait_call(BIND);
    assert_eq!(
        (&bind["Id"], &bind["Extra"]["Token"]),
        (&json!("b0"), &json!("planted-bind-token"))
    );
    session.answer(stream, &crate::support::peer::bind_response(&bind, "b0", urls[0]));
    agent.wait_stderr("endpoint is back");
    assert_serves(&mut session);
    agent.assert_running();
}

#[test]
fn one_that_never_echoes_a_heartbeat() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let agent = impatient(&edge, &upstream);
    let mut session = edge.accept();
    session.echo = false;
    session.welcome(&[URL]);
    session.wait_end();
    agent.wait_stderr("session closed");
    let mut session = edge.accept();
    session.welcome(&[URL]);
    assert_serves(&mut session);
}

#[test]
fn answers_that_are_no_answers() {
    let blanks = vec![b' '; 100_000];
    let nested = vec![b'['; 10_000];
    let mut endless = b"{\"Version\":\"".to_vec();
    endless.resize(100_000, b'a');
    let bad: [(&str, &[u8], bool); 9] = [
        ("not JSON", b"nonsense", false),
        ("an array", b"[]", false),
        ("a number for a text", b"{\"Version\":3,\"ClientId\":7}", false),
        ("a text for an object", b"{\"Version\":\"3\",\"Extra\":\"x\"}", false),
        ("half an object", b"{\"Version\":\"3\"", true),
        ("nothing", b"", true),
        ("blanks without end", &blanks, false),
        ("a text without end", &endless, false),
        ("nesting without end", &nested, false),
    ];
    for (what, answer, fin) in bad {
        // A new agent each time, because its waits grow with each failure.
        let (edge, upstream) = (BadEdge::new(), Upstream::hello());
        let mut agent = impatient(&edge, &upstream);
        let mut session = edge.accept();
        let (stream, _) = session.wait_call(AUTH);
        let mut sent = 0;
        // At most the bytes within a limit of 1 MiB and the window; the agent may have ended
        // the session before.
        while sent < 262_144 {
            if session.send(DATA, 0, stream, answer).is_err() || answer.len() < 1000 {
                break;
            }
            sent += answer.len() * 2;
        }
        if fin {
            let _ = session.send(DATA, FIN, stream, b"");
        }
        session.wait_end();
        assert!(agent.ended().is_none(), "{what}: {}", agent.report());
        assert_recovers(&edge, &mut agent);
    }
}

#[test]
fn an_answer_of_ten_megabytes_costs_no_memory() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let mut agent = impatient(&edge, &upstream);
    let mut session = edge.accept();
    let (stream, _) = session.wait_call(AUTH);
    let mut bytes = frame(DATA, 0, stream, 16_000, &[]);
    bytes.extend_from_slice(b"{\"Version\":\"");
    bytes.resize(8 + 16_000, b'a');
    let mut more = frame(DATA, 0, stream, 16_000, &[b'a'; 16_000]);
    let mut result = session.write(&bytes);
    for _ in 0..10_000_000 / 16_000 {
        // The window is not respected either.
        result = result.and_then(|()| session.write(&more));
    }
    more.clear();
    session.wait_end();
    assert!(proc::rss(agent.pid()) < 24 * 1024, "{} KiB", proc::rss(agent.pid()));
    assert_recovers(&edge, &mut agent);
}

#[test]
fn a_final_refusal_ends_the_program_and_another_does_not() {
    for (text, last) in [
        ("The authtoken is of another account.\n\nERR_NGROK_107\n", true),
        ("Your account is suspended.\n\nERR_NGROK_103\n", true),
        ("The credential lacks a scope.\n\nERR_NGROK_15014\n", true),
        ("Something went wrong here.\n\nERR_NGROK_802\n", false),
        ("no code at all", false),
    ] {
        let (edge, upstream) = (BadEdge::new(), Upstream::hello());
        let mut agent = impatient(&edge, &upstream);
        let mut session = edge.accept();
        let (stream, _) = session.wait_call(AUTH);
        session.answer(stream, &json!({"Version": "", "ClientId": "", "Error": text, "Extra": {}}));
        if last {
            assert_eq!(agent.wait_exit(), Some(1), "{text}");
            let shown = agent.stderr();
            let (words, code) = text.split_once("\n\n").unwrap();
            assert!(shown.contains(words) && shown.contains(code.trim()), "{shown}");
        } else {
            drop(session);
            assert_recovers(&edge, &mut agent);
        }
    }
}

#[test]
fn a_refused_endpoint_ends_the_program_with_the_words_of_the_edge() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let mut agent = impatient(&edge, &upstream);
    let mut session = edge.accept();
    let (stream, _) = session.wait_call(AUTH);
    session.answer(stream, &auth_response());
    let (stream, request) = session.wait_call(BIND);
    assert!(request["ForwardsTo"].as_str().unwrap().contains(&upstream.port().to_string()));
    let text = "This name is reserved for somebody else.\n\nERR_NGROK_320\n";
    session.answer(stream, &json!({"Error": text}));
    assert_eq!(agent.wait_exit(), Some(1));
    let shown = agent.stderr();
    assert!(shown.contains("reserved for somebody else") && shown.contains("ERR_NGROK_320"));
}

#[test]
fn goaway_in_the_middle_of_a_stream() {
    let (edge, upstream) = (BadEdge::new(), Upstream::echo());
    let mut agent = edge.agent(&["tcp", &upstream.port().to_string()], "").spawn();
    let mut session = edge.accept();
    session.welcome(&["tcp://localhost:1"]);
    let old = session.visit("b0", "tcp", b"ping");
    session.wait("the echo", |f| f.stream == old && f.payload == b"ping");
    let payload = [&2u32.to_be_bytes()[..], &0u32.to_be_bytes(), b"no error"].concat();
    session.send(GOAWAY, 0, 0, &payload).unwrap();
    // A new session begins at once, independent of the old one.
    let mut next = edge.accept();
    next.welcome(&["tcp://localhost:1"]);
    let stream = next.visit("b0", "tcp", b"pong");
    next.wait("the echo", |f| f.stream == stream && f.payload == b"pong");
    // Open streams of the old one may finish.
    session.send(DATA, 0, old, b"the rest").unwrap();
    session.wait("the echo", |f| f.stream == old && f.payload == b"the rest");
    drop(session);
    agent.assert_running();
}

#[test]
fn a_session_that_is_cut_asks_for_the_same_endpoint_again() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let agent = impatient(&edge, &upstream);
    let mut session = edge.accept();
    session.welcome(&[URL]);
    agent.wait_stdout("the start line", |line| line.starts_with(URL).then_some(()));
    for _ in 0..5 {
        drop(session);
        session = edge.accept();
        let (stream, auth) = session.wait_call(AUTH);
        assert_eq!(auth["ClientId"], "client-1", "protocol 7.2");
        assert_eq!(auth["Extra"]["Cookie"], "planted-cookie-of-tests");
        session.answer(stream, &auth_response());
        let (stream, bind) = session.wait_call(BIND);
        assert_eq!(bind["Id"], "b0");
        assert_eq!(bind["Extra"]["Token"], "planted-bind-token");
        session.answer(stream, &crate::support::peer::bind_response(&bind, "b0", URL));
        assert_serves(&mut session);
    }
    assert_eq!(agent.stdout().lines().count(), 1);
}

/// Frames that break the rules end the session (GOAWAY with the code of protocol 2.2) and
/// nothing else.
#[test]
fn frames_against_the_rules() {
    let cases: Vec<(&str, Vec<u8>, Option<u32>)> = vec![
        ("RST of 3 bytes", frame(RST, 0, 3, 3, b"abc"), Some(8)),
        ("WNDINC of 5 bytes", frame(WNDINC, 0, 3, 5, b"abcde"), Some(8)),
        ("DATA on stream 0", frame(DATA, 0, 0, 1, b"x"), Some(1)),
        ("RST on stream 0", frame(RST, 0, 0, 4, &[0; 4]), Some(1)),
        ("WNDINC of 0", frame(WNDINC, 0, 3, 4, &[0; 4]), Some(1)),
        ("SYN with an id of the agent's", frame(DATA, SYN, 99, 4, &[0, 0, 0, 3]), Some(1)),
        ("GOAWAY of 4 bytes", frame(GOAWAY, 0, 0, 4, &[0; 4]), None),
    ];
    for (what, bytes, code) in cases {
        let (edge, upstream) = (BadEdge::new(), Upstream::hello());
        let mut agent = impatient(&edge, &upstream);
        let mut session = edge.accept();
        session.welcome(&[URL]);
        session.write(&bytes).unwrap();
        let seen = session.wait_end();
        if code.is_some() {
            assert_eq!(seen, code, "{what}");
        }
        assert_recovers(&edge, &mut agent);
    }
}

/// Errors that end at most one stream.
#[test]
fn frames_that_a_session_survives() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let mut agent = impatient(&edge, &upstream);
    let mut session = edge.accept();
    session.welcome(&[URL]);
    // An unknown type is skipped; so are a RST, a WNDINC and an end for unknown streams. Data
    // for one is answered with RST 4.
    session.write(&frame(7, 0, 5, 9, b"undefined")).unwrap();
    session.send(RST, 0, 1001, &[0, 0, 0, 5]).unwrap();
    session.send(WNDINC, 0, 1001, &[0, 0, 0, 5]).unwrap();
    session.send(DATA, FIN, 1001, b"").unwrap();
    assert_serves(&mut session);
    session.send(DATA, 0, 2000, b"for nobody").unwrap();
    let rst = session.wait("RST", |f| f.kind == RST && f.stream == 2000);
    assert_eq!(rst.payload, [0, 0, 0, 4]);
    // A stream of an unknown type, a visitor for an unknown endpoint, invalid headers: the
    // stream ends.
    let unknown = session.open(77, b"whatever");
    session.wait("the end of a stream of unknown type", |f| f.stream == unknown && f.kind == RST);
    let lost = session.visit("no-such-endpoint", "http", b"GET / HTTP/1.1\r\n\r\n");
    session.wait("its end", |f| f.stream == lost && (f.flags & FIN != 0 || f.kind == RST));
    for header in [
        &[0xff; 8][..],
        &[0, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0, 2, 0, 0, 0, 0, 0],
        b"\x05\0\0\0\0\0\0\0hello",
        b"\x0d\0\0\0\0\0\0\0{\"Id\":\"b0\",,}",
    ] {
        let stream = session.open(3, header);
        session.wait("the end of a bad header", |f| {
            f.stream == stream && (f.flags & FIN != 0 || f.kind == RST)
        });
    }
    // More than the window: that stream is reset, code 3.
    let greedy = session.visit("b0", "http", b"POST / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n");
    for _ in 0..40 {
        session.send(DATA, 0, greedy, &[b'g'; 16_000]).unwrap();
    }
    session.send(DATA, 0, greedy, &vec![b'g'; 262_145]).unwrap();
    let rst = session.wait("RST", |f| f.kind == RST && f.stream == greedy);
    assert_eq!(rst.payload, [0, 0, 0, 3]);
    assert_serves(&mut session);
    agent.assert_running();
    assert_eq!(agent.count_stderr("session closed"), 0);
}

#[test]
fn a_visitor_header_in_many_pieces() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let mut agent = impatient(&edge, &upstream);
    let mut session = edge.accept();
    session.welcome(&[URL]);
    let header = json!({"id": "b0", "CLIENTADDR": "192.0.2.7:5", "Proto": "http",
                        "EdgeType": "", "PassthroughTLS": false, "Unknown": [1, 2]})
    .to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(b"GET /pieces HTTP/1.1\r\nHost: x\r\n\r\n");
    let stream = session.open(3, b"");
    for byte in bytes {
        session.send(DATA, 0, stream, &[byte]).unwrap();
    }
    wait_for("the answer", || {
        session.receive().unwrap();
        session.received(stream).ends_with(b"GET /pieces ")
    });
    agent.assert_running();
}

/// The four bytes of a stream's type may arrive one by one. A stream without its type delays no
/// other.
#[test]
fn a_stream_type_in_four_frames_and_one_that_never_comes() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let agent = impatient(&edge, &upstream);
    let mut session = edge.accept();
    session.welcome(&[URL]);
    session.send(DATA, SYN, 500, &[0, 0]).unwrap();
    let header = json!({"Id": "b0", "ClientAddr": "192.0.2.7:5", "Proto": "http",
                        "EdgeType": "", "PassthroughTLS": false})
    .to_string();
    let mut bytes = 3u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(&(header.len() as u64).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(b"GET /typed HTTP/1.1\r\nHost: x\r\n\r\n");
    session.send(DATA, SYN, 502, &bytes[..1]).unwrap();
    for byte in &bytes[1..] {
        session.send(DATA, 0, 502, &[*byte]).unwrap();
    }
    wait_for("the answer", || {
        session.receive().unwrap();
        session.received(502).ends_with(b"GET /typed ")
    });
    // An incomplete type ends its stream, not the session.
    session.send(DATA, FIN, 500, b"").unwrap();
    assert_serves(&mut session);
    assert_eq!(agent.count_stderr("session closed"), 0);
}

#[test]
fn two_answers_to_one_call() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let agent = impatient(&edge, &upstream);
    let mut session = edge.accept();
    let (stream, _) = session.wait_call(AUTH);
    let twice = format!("{0}\n{0}", auth_response());
    session.send(DATA, 0, stream, twice.as_bytes()).unwrap();
    session.send(DATA, FIN, stream, b"").unwrap();
    let (stream, request) = session.wait_call(BIND);
    let answer = crate::support::peer::bind_response(&request, "b0", URL);
    session.answer(stream, &answer);
    let _ = session.send(DATA, 0, stream, answer.to_string().as_bytes());
    agent.wait_stdout("the start line", |line| line.starts_with(URL).then_some(()));
    assert_serves(&mut session);
}

#[test]
fn the_edge_may_ask_it_to_stop_and_to_drop_an_endpoint() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let mut agent = impatient(&edge, &upstream);
    let mut session = edge.accept();
    session.welcome(&[URL]);
    agent.wait_stdout("the start line", |line| line.starts_with(URL).then_some(()));
    // For an unknown endpoint: ignored.
    session.open(9, br#"{"Id":"nobody","Message":"x","ErrorCode":"ERR_NGROK_1"}"#);
    assert_serves(&mut session);
    let answer = session.call(5, &json!({}));
    assert_eq!(answer["Error"].as_str().unwrap_or(""), "");
    assert_eq!(agent.wait_exit(), Some(0));
}

#[test]
fn a_certificate_of_somebody_else_is_refused_and_the_token_is_not_sent() {
    let (edge, other, upstream) = (BadEdge::new(), BadEdge::new(), Upstream::hello());
    let dir = TempDir::new();
    // The address of one edge with the CA of the other.
    let config = dir.write(
        "agent.yml",
        format!(
            "version: \"3\"\nagent:\n  authtoken: planted-token-for-nobody\n  connect_url: {}\n  \
             connect_cas: {}\n  connect_timeout: 1s\n",
            edge.addr(),
            other.ca().display()
        ),
    );
    crate::support::process::plant_secret("planted-token-for-nobody");
    let args = ["http", &upstream.port().to_string()];
    let mut agent = crate::support::agent::agent(&config, args).spawn();
    for _ in 0..2 {
        assert!(edge.try_accept().is_err(), "the agent took a foreign certificate");
    }
    let line = agent.wait_stderr("connect session").to_lowercase();
    assert!(line.contains("certificate") || line.contains("issuer"), "{line}");
    agent.assert_running();
}

/// A visitor's stream without a header, and a request that never ends.
#[test]
fn one_that_does_not_finish_what_it_begins() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let mut agent = edge.agent(&["http", &upstream.port().to_string()], "").spawn();
    let mut session = edge.accept();
    session.welcome(&[URL]);
    let visitor = session.open(PROXY, &[0x60, 0, 0, 0, 0, 0, 0, 0, b'{']);
    let request = session.open(STOP, b"{");
    for stream in [visitor, request] {
        session.wait("its reset", |f| f.kind == RST && f.stream == stream);
    }
    // More than any request needs.
    let request = session.open(STOP, &[b'{'; 1]);
    let _ = session.send(DATA, 0, request, &[b' '; 16_384]);
    session.wait("its reset", |f| f.kind == RST && f.stream == request);
    assert_serves(&mut session);
    agent.assert_running();
}
