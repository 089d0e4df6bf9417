//! Responses that a visitor gets for the frames of a scripted agent: complete, broken, or none;
//! and the calls of an agent, one by one.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::edge::Edge;
use crate::support::peer::{
    AUTH, BIND, DATA, FIN, Frame, GOAWAY, HEARTBEAT, RST, SYN, Session, WNDINC, frame,
};
use crate::support::visitor::Visitor;
use crate::support::wait_for;
use crate::support::wire::Wire;

const UNBIND: u32 = 2;
const START_TUNNEL_WITH_LABEL: u32 = 7;
const SRV_INFO: u32 = 8;
const PATCH_TUNNEL_STATE: u32 = 10;

/// A scripted agent with one endpoint.
struct Scripted {
    session: Session,
    /// Responses to Auth and Bind.
    auth: Value,
    bind: Value,
}

fn auth(token: &str, client: &Value, cookie: &Value) -> Value {
    json!({"Version": ["3", "2"], "ClientId": client, "Extra": {"Authtoken": token,
        "Cookie": cookie, "HeartbeatInterval": 10_000_000_000u64,
        "HeartbeatTolerance": 15_000_000_000u64}})
}

fn bind(id: &Value, proto: &Value, opts: &Value, token: &Value) -> Value {
    json!({"Id": id, "Proto": proto, "ForwardsTo": "x", "ForwardsProto": "", "Opts": opts,
           "Extra": {"Token": token, "Metadata": "", "Bindings": []}})
}

impl Scripted {
    fn start(edge: &Edge, proto: &str) -> Self {
        let mut session = Session::connect(edge.agent, &edge.ca);
        let none = json!("");
        let auth = session.call(AUTH, &auth(&edge.authtoken(), &none, &none));
        let bind = session.call(BIND, &bind(&none, &json!(proto), &json!({}), &none));
        assert_eq!(bind["Error"].as_str().unwrap_or(""), "", "{bind}");
        Scripted { session, auth, bind }
    }

    /// Connects the same agent again, with the tokens of the old connection.
    fn again(edge: &Edge, old: &Scripted) -> Self {
        Scripted::claiming(edge, &old.auth, &old.bind)
    }

    /// Connects an agent with earlier responses to Auth and Bind.
    fn claiming(edge: &Edge, old: &Value, bound: &Value) -> Self {
        let mut session = Session::connect(edge.agent, &edge.ca);
        let cookie = &old["Extra"]["Cookie"];
        let auth = session.call(AUTH, &auth(&edge.authtoken(), &old["ClientId"], cookie));
        let token = &bound["Extra"]["Token"];
        let request = bind(&bound["Id"], &bound["Proto"], &bound["Opts"], token);
        let bind = session.call(BIND, &request);
        Scripted { session, auth, bind }
    }

    fn url(&self) -> String {
        self.bind["URL"].as_str().unwrap_or_else(|| panic!("{}", self.bind)).to_owned()
    }

    fn visitor(&self, edge: &Edge) -> Visitor {
        Visitor::connect(edge, &self.url())
    }

    /// Waits for a visitor's stream.
    fn stream(&mut self) -> u32 {
        let proxy = |f: &Frame| {
            f.kind == DATA && f.flags & SYN != 0 && f.payload.get(..4) == Some(&[0, 0, 0, 3])
        };
        self.session.wait("a visitor's stream", proxy).stream
    }

    /// Waits until `count` heads have arrived on a stream.
    fn requests(&mut self, stream: u32, count: usize) {
        let heads =
            |s: &Session| s.received(stream).windows(4).filter(|w| w == b"\r\n\r\n").count();
        while heads(&self.session) < count {
            self.session.receive().unwrap();
        }
    }

    fn data(&mut self, stream: u32, bytes: &[u8]) {
        self.session.send(DATA, 0, stream, bytes).unwrap();
    }

    fn fin(&mut self, stream: u32) {
        self.session.send(DATA, FIN, stream, b"").unwrap();
    }

    fn rst(&mut self, stream: u32, code: u32) {
        self.session.send(RST, 0, stream, &code.to_be_bytes()).unwrap();
    }

    /// Sends until the edge accepts nothing more. The last bytes wait in the edge.
    fn fill(&mut self, stream: u32) -> usize {
        let (mut window, mut sent) = (262_144usize, 0);
        let piece = vec![b'x'; 16_384];
        self.session.tcp.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        loop {
            while window >= piece.len() {
                self.data(stream, &piece);
                window -= piece.len();
                sent += piece.len();
            }
            match self.session.receive() {
                Ok(f) if f.kind == WNDINC && f.stream == stream => {
                    let more: [u8; 4] = f.payload[..4].try_into().unwrap();
                    window += u32::from_be_bytes(more) as usize;
                }
                Ok(_) => {}
                // A second without progress: the visitor's socket is full.
                Err(_) => return sent,
            }
        }
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn what_came_before_a_reset_reaches_a_slow_visitor() {
    let edge = Edge::start();
    let mut agent = Scripted::start(&edge, "tcp");
    let mut visitor = agent.visitor(&edge);
    let stream = agent.stream();
    let sent = agent.fill(stream);
    agent.fin(stream);
    agent.rst(stream, 4);
    assert_eq!(visitor.wire.read_rest().unwrap().len(), sent);
}

#[test]
fn what_came_before_the_end_of_a_session_reaches_a_slow_visitor() {
    let edge = Edge::start();
    let mut agent = Scripted::start(&edge, "tcp");
    let mut visitor = agent.visitor(&edge);
    let stream = agent.stream();
    let sent = agent.fill(stream);
    agent.fin(stream);
    drop(agent);
    assert_eq!(visitor.wire.read_rest().unwrap().len(), sent);
}

#[test]
fn an_answer_that_was_cut_is_never_whole() {
    let edge = Edge::start();
    let mut agent = Scripted::start(&edge, "http");
    let fin = |stream| frame(DATA, FIN, stream, 0, b"");
    let rst = |stream| frame(RST, 0, stream, 4, &6u32.to_be_bytes());
    for (head, with_fin, with_rst) in [
        ("HTTP/1.1 200 OK\r\n\r\n", false, true),
        ("HTTP/1.1 200 OK\r\n\r\n", true, true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", true, false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", false, true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n", true, false),
    ] {
        let mut visitor = agent.visitor(&edge);
        visitor.send("GET", "/", "", b"").unwrap();
        let stream = agent.stream();
        agent.data(stream, head.as_bytes());
        agent.data(stream, b"some bytes");
        visitor.wire.read_head().unwrap();
        visitor.wire.read_until(b"some bytes").unwrap();
        let mut frames = if with_fin { fin(stream) } else { Vec::new() };
        if with_rst {
            frames.extend(rst(stream));
        }
        agent.session.write(&frames).unwrap();
        assert!(visitor.wire.read_rest().is_err(), "a clean end after {head:?}");
    }
}

#[test]
fn no_answer_is_a_page() {
    let edge = Edge::start();
    let mut agent = Scripted::start(&edge, "http");
    let mut visitor = agent.visitor(&edge);
    for (reset, status, code) in [
        (None, 502, "ERR_NGROK_3004"),
        (Some(6), 502, "ERR_NGROK_3004"),
        (Some(2), 502, "ERR_NGROK_3210"),
        (Some(9), 503, "ERR_NGROK_702"),
    ] {
        visitor.send("POST", "/", "", b"body").unwrap();
        let stream = agent.stream();
        match reset {
            None => agent.fin(stream),
            Some(code) => agent.rst(stream, code),
        }
        let page = visitor.wire.read_response("POST").unwrap();
        assert_eq!(page.status(), status);
        assert_eq!(page.field("ngrok-error-code"), Some(code));
    }
    visitor.send("GET", "/", "", b"").unwrap();
    let stream = agent.stream();
    agent.data(stream, b"SSH-2.0-x\r\n");
    assert_eq!(visitor.wire.read_response("GET").unwrap().status(), 502);
}

#[test]
fn a_request_that_met_a_dying_stream_is_sent_again_if_that_is_safe() {
    let edge = Edge::start();
    let mut agent = Scripted::start(&edge, "http");
    let mut visitor = agent.visitor(&edge);
    visitor.send("GET", "/1", "", b"").unwrap();
    let first = agent.stream();
    agent.requests(first, 1);
    agent.data(first, OK);
    assert_eq!(visitor.wire.read_response("GET").unwrap().text(), "ok");

    // The upstream closes the kept connection at the moment of a request.
    visitor.send("GET", "/2", "", b"").unwrap();
    agent.requests(first, 2);
    agent.fin(first);
    let second = agent.stream();
    agent.requests(second, 1);
    let text = String::from_utf8_lossy(agent.session.received(second)).into_owned();
    assert!(text.contains("GET /2 HTTP/1.1\r\n"), "{text}");
    agent.data(second, OK);
    assert_eq!(visitor.wire.read_response("GET").unwrap().text(), "ok");

    // A request that must not be repeated is not: the visitor sees the end of a kept
    // connection, as without a tunnel.
    visitor.send("POST", "/3", "", b"").unwrap();
    agent.requests(second, 2);
    agent.fin(second);
    assert_eq!(visitor.wire.read_rest().unwrap(), b"");

    // Bytes without a request are not the next response.
    let mut visitor = agent.visitor(&edge);
    visitor.send("GET", "/4", "", b"").unwrap();
    let third = agent.stream();
    agent.data(third, &[OK, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfake"].concat());
    assert_eq!(visitor.wire.read_response("GET").unwrap().text(), "ok");
    visitor.send("GET", "/5", "", b"").unwrap();
    let fourth = agent.stream();
    agent.data(fourth, OK);
    assert_eq!(visitor.wire.read_response("GET").unwrap().text(), "ok");
}

#[test]
fn an_early_answer_is_delivered_and_the_rest_of_the_request_is_not_wanted() {
    let edge = Edge::start();
    let mut agent = Scripted::start(&edge, "http");
    let mut visitor = agent.visitor(&edge);
    let head =
        format!("POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: 9000000\r\n\r\n", visitor.host());
    visitor.wire.write(head).unwrap();
    visitor.wire.write(vec![b'x'; 1000]).unwrap();
    let stream = agent.stream();
    agent.data(stream, b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nless");
    agent.fin(stream);
    agent.rst(stream, 4);
    let answer = visitor.wire.read_response("POST").unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (413, "less"));
}

#[test]
fn the_same_agent_gets_the_same_url_from_its_dead_self_and_from_a_new_edge() {
    let mut edge = Edge::start();
    for proto in ["http", "tcp"] {
        let mut old = Scripted::start(&edge, proto);
        let new = Scripted::again(&edge, &old);
        assert_eq!((new.url(), &new.bind["Id"]), (old.url(), &old.bind["Id"]));
        assert_eq!(new.auth["ClientId"], old.auth["ClientId"]);
        assert_eq!(old.session.wait_end(), Some(0), "the old session is told to go");
        // The end of the old session takes nothing from the new one.
        let mut new = new;
        let _visitor = new.visitor(&edge);
        if proto == "tcp" {
            new.stream();
        }
        edge.restart();
        let after = Scripted::again(&edge, &new);
        assert_eq!((after.url(), &after.bind["Id"]), (new.url(), &new.bind["Id"]));
        // The token alone is enough for the same endpoint. Without it the Bind is refused.
        let forgetful = Scripted { auth: json!({"ClientId": "x"}), ..after };
        let back = Scripted::again(&edge, &forgetful);
        assert_eq!(back.url(), new.url());
        let Scripted { mut session, bind: mut claim, .. } = back;
        // The current owner of the name is probed: its session echoes, so it keeps the name.
        std::thread::spawn(move || while session.receive().is_ok() {});
        claim["Extra"]["Token"] = json!("");
        let refused = Scripted::claiming(&edge, &json!({"ClientId": "x"}), &claim);
        assert!(refused.bind["Error"].as_str().unwrap().contains("ERR_NGROK_334"));
    }
}

#[test]
fn policies_of_older_sdks_are_understood() {
    let edge = Edge::start();
    let mut session = Session::connect(edge.agent, &edge.ca);
    let none = json!("");
    session.call(AUTH, &auth(&edge.authtoken(), &none, &none));
    let config = "eyJzdGF0dXNfY29kZSI6IDQxMH0=";
    for opts in [
        json!({"Policy": {"inbound": [{"name": "", "expressions": [],
            "actions": [{"type": "deny", "config": config}]}], "outbound": []}}),
        json!({"TrafficPolicy": json!({"Inbound": [{"Name": "", "Expressions": [],
            "Actions": [{"Type": "deny", "Config": {"status_code": 410}}]}]}).to_string()}),
    ] {
        let bound = session.call(BIND, &bind(&none, &json!("http"), &opts, &none));
        let url = bound["URL"].as_str().unwrap_or_else(|| panic!("{bound}"));
        assert_eq!(Visitor::connect(&edge, url).get("/").status(), 410);
    }
}

#[test]
fn calls_are_answered_as_the_protocol_says() {
    let edge = Edge::start();
    let mut session = Session::connect(edge.agent, &edge.ca);
    // Before Auth: heartbeats and SrvInfo only, but every call gets a response.
    let beat = session.open(HEARTBEAT, b"");
    session.send(DATA, 0, beat, &[1, 2, 3, 4]).unwrap();
    session.wait("the echo", |f| f.stream == beat && f.payload == [1, 2, 3, 4]);
    assert!(session.call(SRV_INFO, &json!({}))["Region"].is_string());
    let early = session.call(BIND, &bind(&json!(""), &json!("http"), &json!({}), &json!("")));
    assert!(early["Error"].as_str().unwrap().contains("ERR_NGROK_4018"));
    let none = json!("");
    let answer = session.call(AUTH, &auth(&edge.authtoken(), &none, &none));
    assert_eq!(answer["Version"], "3");
    let bound = session.call(BIND, &bind(&none, &json!("https"), &json!({"Domain": null}), &none));
    for key in ["Id", "URL", "Proto"] {
        assert!(bound[key].as_str().is_some_and(|t| !t.is_empty()), "{key} in {bound}");
    }
    assert!(bound["Extra"]["Token"].is_string());
    for key in ["Hostname", "Auth", "Subdomain"] {
        assert!(bound["Opts"][key].is_string(), "{key} in {bound}");
    }
    assert_eq!(bound["Opts"].get("Domain"), None);
    for (opts, code) in [
        (json!({"TrafficPolicy": "on_http_reqest: []"}), "ERR_NGROK_9026"),
        (json!({"TrafficPolicy": "{}", "Policy": {"inbound": []}}), "ERR_NGROK_9025"),
        (json!({"BasicAuth": {"credentials": []}}), "'BasicAuth'"),
        (json!({"Domain": "a.example"}), "ERR_NGROK_319"),
    ] {
        let answer = session.call(BIND, &bind(&none, &json!("http"), &opts, &none));
        assert!(answer["Error"].as_str().unwrap().contains(code), "{answer}");
    }
    let labels =
        json!({"Labels": {"a": "b"}, "ForwardsTo": "", "ForwardsProto": "", "Metadata": ""});
    let answer = session.call(START_TUNNEL_WITH_LABEL, &labels);
    assert!(answer["Error"].as_str().unwrap().contains("ERR_NGROK_358"));
    let tunnel = &bound["Extra"]["TunnelID"];
    let patch = |more: Value| {
        let mut patch = json!({"TunnelId": tunnel});
        patch.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        patch
    };
    let answer = session.call(PATCH_TUNNEL_STATE, &patch(json!({"Metadata": "new"})));
    assert_eq!(answer["Error"].as_str().unwrap_or(""), "");
    let answer = session.call(PATCH_TUNNEL_STATE, &patch(json!({"TrafficPolicy": "a: []"})));
    assert!(answer["Error"].as_str().unwrap().contains("ERR_NGROK_9026"), "{answer}");
    let answer = session.call(PATCH_TUNNEL_STATE, &patch(json!({"PoolingEnabled": true})));
    assert!(!answer["Error"].as_str().unwrap().is_empty());

    let url = bound["URL"].as_str().unwrap().to_owned();
    for _ in 0..2 {
        let answer = session.call(UNBIND, &json!({"Id": bound["Id"], "Extra": null}));
        assert_eq!(answer["Error"].as_str().unwrap_or(""), "", "Unbind is idempotent");
    }
    assert_eq!(Visitor::connect(&edge, &url).get("/").status(), 404);
    assert!(session.call(SRV_INFO, &json!({}))["Region"].is_string());
}

#[test]
fn endpoints_may_restrict_their_visitors_addresses() {
    let edge = Edge::start();
    let mut session = Scripted::start(&edge, "http").session;
    let none = json!("");
    let mut bound = |proto: &str, allow: &str| {
        let opts = json!({"IPRestriction": {"allow_cidrs": [allow]}});
        let answer = session.call(BIND, &bind(&none, &json!(proto), &opts, &none));
        answer["URL"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    let page = Visitor::connect(&edge, &bound("http", "10.0.0.0/8")).get("/");
    assert_eq!((page.status(), page.field("ngrok-error-code")), (403, Some("ERR_NGROK_3205")));
    let url = bound("tcp", "10.0.0.0/8");
    let refused = Wire::connect(edge.address_of(&url)).and_then(|mut wire| wire.read_exact(1));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let url = bound("tcp", "127.0.0.0/8");
    let _visitor = Visitor::connect(&edge, &url);
    session.wait("the visitor's stream", |f| f.payload.get(..4) == Some(&[0, 0, 0, 3]));
}

#[test]
fn tls_ends_at_the_edge_if_the_endpoint_says_so() {
    let edge = Edge::start();
    for (opts, passthrough) in [(json!({"TLSTermination": {}}), false), (json!({}), true)] {
        let mut agent = Scripted::start(&edge, "http");
        let none = json!("");
        let bound = agent.session.call(BIND, &bind(&none, &json!("tls"), &opts, &none));
        assert_eq!(bound["Opts"]["TLSTermination"], opts["TLSTermination"], "echoed");
        let host = bound["Opts"]["Hostname"].as_str().unwrap().to_owned();
        let (https, ca) = (edge.https, edge.ca.clone());
        let visitor = std::thread::spawn(move || {
            if passthrough {
                // This TLS is not terminated: its hello must arrive unchanged.
                let tcp = std::net::TcpStream::connect(https).unwrap();
                let name = rustls::pki_types::ServerName::try_from(host).unwrap();
                let config = crate::support::certs::client(&ca);
                let mut tls = rustls::ClientConnection::new(config, name).unwrap();
                tls.write_tls(&mut &tcp).unwrap();
                return Some(tcp);
            }
            let mut wire = crate::support::certs::connect(https, &host, &ca);
            wire.write("plain\n").unwrap();
            assert_eq!(wire.read_line().unwrap(), "answer");
            None
        });
        let stream = agent.stream();
        while !agent
            .session
            .received(stream)
            .windows(9)
            .any(|w| w == b"TLS\":true" || w == b"LS\":false")
        {
            agent.session.receive().unwrap();
        }
        let wanted: &[u8] = if passthrough { &[22, 3, 1] } else { b"plain\n" };
        let payload = |s: &Session| {
            let bytes = s.received(stream);
            let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            bytes[8 + n..].to_vec()
        };
        while payload(&agent.session).len() < wanted.len() {
            agent.session.receive().unwrap();
        }
        assert!(payload(&agent.session).starts_with(wanted));
        let header = String::from_utf8_lossy(agent.session.received(stream)).into_owned();
        assert!(header.contains(&format!("\"PassthroughTLS\":{passthrough}")), "{header}");
        agent.data(stream, b"answer\n");
        visitor.join().unwrap();
    }
}

#[test]
fn a_stopping_edge_lets_answers_finish_and_says_goodbye() {
    let mut edge = Edge::start();
    let mut agent = Scripted::start(&edge, "http");
    let mut visitor = agent.visitor(&edge);
    visitor.send("GET", "/", "", b"").unwrap();
    let stream = agent.stream();
    agent.data(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfi");
    visitor.wire.read_until(b"fi").unwrap();
    edge.process().signal("TERM");
    let http = edge.http;
    wait_for("the listeners to close", || std::net::TcpStream::connect(http).is_err());
    agent.data(stream, b"rst");
    assert_eq!(visitor.wire.read_exact(3).unwrap(), b"rst");
    let goodbye = agent.session.wait("GOAWAY", |f| f.kind == GOAWAY);
    assert_eq!(goodbye.payload[4..8], [0, 0, 0, 0]);
    assert!(goodbye.payload.len() >= 16, "a text of eight bytes or more");
    assert_eq!(edge.process().wait_exit(), Some(0));
}
