//! Faults that users met: one test for each, named after the symptom.
//!
//! A fault report becomes a test here before it is fixed. The name is the symptom, the
//! assertions are the correct behaviour, and the test fails without the change. Look for other
//! faults of the same kind first: a test of the kind belongs to the module of its promise. A
//! test that needs another suite (a browser, a namespace, a service manager) belongs there,
//! under the same rule.
//! there, under the same rule.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::sync::{Mutex, mpsc};

use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::serve::Serve;
use crate::support::upstream::Upstream;
use crate::support::visitor::try_get;
use crate::support::wire::Wire;
use crate::support::{TempDir, wait_for};

#[test]
fn a_log_fifo_without_a_reader_blocks_the_agent() {
    let (edge, upstream, dir) = (Edge::start(), Upstream::hello(), TempDir::new());
    let fifo = dir.join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut agent = agent::agent(&edge.config, ["http", &upstream.port().to_string()])
        .arg(format!("--log={}", fifo.display()))
        .start();
    let url = agent.url().to_owned();
    // A late reader gets the earlier lines.
    let mut lines = BufReader::new(File::open(&fifo).unwrap()).lines().map(|line| line.unwrap());
    assert!(lines.any(|line| line.contains(&url)));
    agent.process().signal("TERM");
    assert_eq!(agent.process().wait_exit(), Some(0));
}

/// A file that cannot be opened because descriptors are missing is not a missing file.
#[test]
fn a_file_upstream_answers_404_when_descriptors_are_exhausted() {
    let (edge, upstream, site) = (Edge::start(), Upstream::echo(), TempDir::new());
    site.write("index.html", "the page");
    let more = format!(
        "endpoints:\n  - name: f\n    url: http://\n    upstream: {{url: 'file://{}'}}\n  - name: t\n    \
         url: tcp://\n    upstream: {{url: {}}}\n",
        site.path().display(),
        upstream.port()
    );
    let config = edge.config_with(&more);
    let agent = agent::agent(&config, ["start", "--all"]).limit_files(32).expect(2).start();
    let url = |scheme| &agent.endpoints.iter().find(|(url, _)| url.starts_with(scheme)).unwrap().0;
    let page = || try_get(&edge, url("http:"), "/").expect("an answer, not silence");
    assert_eq!(page().text(), "the page");
    let mut alive = Vec::new();
    loop {
        let visited = Wire::connect(edge.address_of(url("tcp:"))).and_then(|mut wire| {
            wire.write("x")?;
            wire.read_exact(1).map(|_| wire)
        });
        let Ok(wire) = visited else { break };
        alive.push(wire);
    }
    let refused = page();
    assert_eq!(refused.status(), 503, "{refused:?}");
    assert!(refused.field("retry-after").is_some(), "{refused:?}");
    drop(alive);
    wait_for("it to serve", || page().text() == "the page");
}

/// Captured requests stay in memory. Visitors must not be refused because of them.
#[cfg(all(feature = "web", feature = "inspect"))]
#[test]
fn captured_requests_use_up_the_memory_of_visitors() {
    use crate::support::{api::Api, proc};

    let edge = Edge::start();
    let upstream = Upstream::http(|_, wire| wire.respond("200 OK", "", &[b'x'; 40_000]));
    let config =
        edge.config_via(edge.agent, "  web_addr: 127.0.0.1:0\n  inspect_db_size: 67108864\n");
    let mut agent = agent::agent(&config, ["http", &upstream.port().to_string()]).start();
    let (url, pid) = (agent.url().to_owned(), agent.pid());
    let status = || try_get(&edge, &url, "/").map(|answer| answer.status());
    assert_eq!(status(), Some(200));
    // Most of it is the address space of a debug build's thread.
    let bytes = (proc::size(pid) + 10 * 1024) * 1024;
    let mut prlimit = std::process::Command::new("prlimit");
    prlimit.args(["--pid", &pid.to_string(), &format!("--as={bytes}")]);
    assert!(prlimit.status().unwrap().success());
    for n in 0..600 {
        assert_eq!(status(), Some(200), "visitor {n}, one after another");
    }
    let kept = Api::of(agent.process()).figure("culvert_inspect_bytes");
    assert!((256e3..16e6).contains(&kept), "{kept} bytes are captured");
}

#[cfg(feature = "web")]
#[test]
fn an_endpoint_starts_without_its_traffic_policy() {
    use crate::support::api::idle_agent;
    use serde_json::json;

    let edge = Edge::start();
    const POLICY: &[u8] = b"on_http_request: [{actions: [{type: unknown-action}]}]";
    let policy = Upstream::http(|_, wire| wire.respond("200 OK", "", POLICY));
    let (_agent, api) = idle_agent(&edge);
    let url = format!("http://127.0.0.1:{}/policy.yml", policy.port());
    let nowhere = "http://127.0.0.1:1/policy.yml";
    // culvert-edge refuses this policy, which shows that it was sent.
    for (url, status, said) in [(&*url, 502, "unknown-action"), (nowhere, 400, nowhere)] {
        let tunnel = json!({"name": "a", "proto": "http", "addr": 80, "traffic_policy_url": url});
        let endpoint = json!({"name": "a", "upstream": {"url": 80}, "traffic_policy_url": url});
        for (method, path, body) in [
            ("POST", "/api/tunnels", tunnel),
            ("POST", "/api/endpoints", endpoint.clone()),
            ("PUT", "/api/endpoints/a", endpoint),
        ] {
            let (got, error) = api.call(method, path, Some(body));
            assert_eq!(got, status, "{method} {path}: {error}");
            assert!(error["details"]["err"].as_str().unwrap().contains(said), "{error}");
        }
    }
    let missing = json!({"name": "a", "proto": "http", "addr": "file:///no/such/directory"});
    let (status, error) = api.call("POST", "/api/tunnels", Some(missing));
    assert_eq!(status, 400, "{error}");
    assert!(error["details"]["err"].as_str().unwrap().contains("/no/such/directory"), "{error}");
}

/// `docker exec` requests an upgrade in a POST with a body.
#[test]
fn an_upgrade_with_a_body_reaches_the_upstream_without_its_upgrade() {
    const BODY: &[u8] = b"{\"Detach\":false,\"Tty\":true}";
    let edge = Edge::start();
    let upstream = Upstream::http(|request, wire| {
        let upgrade = request.field("upgrade") == Some("tcp");
        if !upgrade || request.body != BODY {
            return wire.respond("400 Bad Request", "", b"");
        }
        wire.write("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")?;
        let said = wire.read_exact(4)?;
        wire.write([&b"echo "[..], &said].concat())
    });
    let agent = agent::http(&edge, upstream.port());
    for split in [0, 10, BODY.len()] {
        let mut visitor = agent.visit(&edge);
        let head = format!(
            "POST /exec/x/start HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
             Content-Length: {}\r\n\r\n",
            visitor.host(),
            BODY.len()
        );
        let (with_head, later) = BODY.split_at(split);
        visitor.wire.write([head.as_bytes(), with_head].concat()).unwrap();
        visitor.wire.write(later).unwrap();
        let answer = visitor.wire.read_head().unwrap();
        assert_eq!(answer.status(), 101, "{answer:?}");
        assert_eq!(answer.field("upgrade"), Some("tcp"));
        visitor.wire.write("ping").unwrap();
        assert_eq!(visitor.wire.read_exact(9).unwrap(), b"echo ping");
    }
}

/// Returns everything that a visitor of this version gets for the response `answer`.
fn through_the_edge(version: &str, answer: &'static str) -> String {
    let edge = Edge::start();
    let upstream = Upstream::http(move |_, wire| wire.write(answer));
    let agent = agent::http(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    let host = visitor.host().to_owned();
    visitor.wire.write(format!("GET / {version}\r\nHost: {host}\r\n\r\n")).unwrap();
    let mut all = visitor.wire.read_until(b"hello").unwrap();
    visitor.wire.half_close();
    all.extend(visitor.wire.read_rest().unwrap());
    String::from_utf8(all).unwrap()
}

#[test]
fn a_response_with_a_folded_header_is_a_502() {
    let answer = "HTTP/1.1 200 OK\r\nA: b\r\n  c\r\nno colon\r\nServer : x\r\na b: c\r\n\
                  Content-Length: 5\r\n\r\nhello";
    let seen = through_the_edge("HTTP/1.1", answer);
    let expected = "HTTP/1.1 200 OK\r\nA: b c\r\nServer: x\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(seen, expected);
}

#[test]
fn a_transfer_coding_arrives_without_its_label() {
    let answer =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(through_the_edge("HTTP/1.1", answer), answer);
}

#[test]
fn a_visitor_of_http10_gets_chunks() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let seen = through_the_edge("HTTP/1.0", answer);
    assert_eq!(seen, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello");
}

/// TLS and HTTP/2 on the HTTP port, and requests that break a rule: each gets a response at
/// once, with complete sentences.
#[test]
fn another_protocol_on_the_http_port_waits_or_gets_half_a_sentence() {
    let edge = Edge::start();
    for (bytes, status, text) in [
        (&b"\x16\x03\x01"[..], 400, "This port expects plain HTTP, but the client began TLS."),
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            505,
            "This port expects HTTP/1.1, but the client began HTTP/2.",
        ),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n", 400, "A header line is folded."),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 501, "The method CONNECT is not supported."),
    ] {
        let mut wire = Wire::connect(edge.http).unwrap();
        wire.write(bytes).unwrap();
        let answer = wire.read_response("GET").unwrap();
        assert_eq!(answer.status(), status, "{answer:?}");
        let body = answer.text();
        assert!(body.contains(&format!("The request was not accepted. {text}\n")), "{body}");
    }
}

#[test]
fn an_invalid_response_is_explained_by_half_a_sentence() {
    let edge = Edge::start();
    let upstream = Upstream::http(|_, wire| {
        wire.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello")
    });
    let agent = agent::http(&edge, upstream.port());
    let answer = agent.visit(&edge).get("/");
    assert_eq!(answer.status(), 502, "{answer:?}");
    let text = "The service behind this address sent an invalid response. \
                The Content-Length headers have different values.\n";
    assert!(answer.text().contains(text), "{}", answer.text());
}

/// The upstream responds in the middle of the body, and still reads the rest.
#[test]
fn an_early_response_closes_a_kept_connection() {
    let edge = Edge::start();
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let upstream = Upstream::tcp(move |mut wire| {
        while let Ok(head) = wire.read_head() {
            if head.method() == "POST" {
                assert_eq!(wire.read_exact(500).unwrap(), [b'x'; 500]);
                wire.respond("401 Unauthorized", "", b"no").unwrap();
                go.send(()).unwrap();
                assert_eq!(wire.read_exact(500).unwrap(), [b'y'; 500]);
            } else {
                wire.respond("200 OK", "", b"yes").unwrap();
            }
        }
    });
    let agent = agent::http(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    for _ in 0..10 {
        let head =
            format!("POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000\r\n\r\n", visitor.host());
        visitor.wire.write([head.as_bytes(), &[b'x'; 500]].concat()).unwrap();
        wait.lock().unwrap().recv_timeout(crate::support::PATIENCE).unwrap();
        let answer = visitor.wire.read_response("POST").unwrap();
        assert_eq!((answer.status(), answer.field("connection")), (401, None));
        visitor.wire.write([b'y'; 500]).unwrap();
        assert_eq!(visitor.get("/2").text(), "yes", "on the same connection");
    }
}

/// The upstream reads nothing of the rest. A small rest is discarded, else the response
/// announces the close.
#[test]
fn an_early_response_of_a_closed_upstream_closes_a_kept_connection() {
    let edge = Edge::start();
    let upstream = Upstream::tcp(|mut wire| {
        let head = wire.read_head().unwrap();
        let _ = wire.respond("413 Content Too Large", "", head.method().as_bytes());
    });
    let nobody = crate::support::upstream::nobody();
    for (port, status) in [(upstream.port(), 413), (nobody.port(), 502)] {
        let agent = agent::http(&edge, port);
        for length in [100_000, 9_000_000] {
            let mut visitor = agent.visit(&edge);
            let head = format!(
                "POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n",
                visitor.host()
            );
            visitor.wire.write([head.as_bytes(), b"x"].concat()).unwrap();
            let answer = visitor.wire.read_response("POST").unwrap();
            assert_eq!(answer.status(), status);
            let kept = answer.field("connection").is_none();
            assert_eq!(kept, length < 1_000_000, "{answer:?}");
            if kept {
                visitor.wire.write(vec![b'x'; length - 1]).unwrap();
                assert_eq!(visitor.get("/").status(), status, "on the same connection");
            }
        }
    }
}

/// A direct visitor sees the end of a kept connection, and sends its request again.
#[test]
fn a_request_on_a_connection_that_the_upstream_closes_is_a_502() {
    let edge = Edge::start();
    let upstream = Upstream::tcp(|mut wire| {
        let request = wire.read_request().unwrap();
        wire.respond("200 OK", "", &request.body).unwrap();
        // It closes while the next request is on its way.
        let _ = wire.read_request();
    });
    let agent = agent::http(&edge, upstream.port());
    for _ in 0..10 {
        let mut visitor = agent.visit(&edge);
        assert_eq!(visitor.ask("POST", "/1", "", b"one").text(), "one");
        visitor.send("POST", "/2", "", b"two").unwrap();
        match visitor.wire.read_rest() {
            Ok(bytes) => assert_eq!(String::from_utf8_lossy(&bytes), ""),
            Err(error) => assert!(crate::support::is_reset(&error), "{error}"),
        }
        assert_eq!(agent.visit(&edge).ask("POST", "/2", "", b"two").text(), "two");
    }
}

#[test]
fn tls_on_the_http_port_is_silent() {
    let mut edge = Edge::start();
    for _ in 0..20 {
        let mut wire = Wire::connect(edge.http).unwrap();
        wire.write([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).unwrap();
        let page = wire.read_rest().unwrap();
        assert!(page.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&page));
    }
    edge.process().wait_stderr("the client began TLS");
    assert_eq!(edge.process().count_stderr("the client began TLS"), 1, "a line a minute");
}

#[test]
fn an_upgrade_that_is_answered_late_ends_without_a_response() {
    let token = "2planted0credential0of0late0upgrades_0123456789ABCDEF";
    crate::support::process::plant_secret(token);
    let edge = Serve::start(&format!(
        "credentials: [{{id: a, authtoken: {token}}}]\nlimits: {{idle_seconds: 1}}\n"
    ));
    // It reads and never responds.
    let upstream = Upstream::tcp(|mut wire| drop(wire.read_rest()));
    let config = edge.config("agent.yml", token);
    let url = "http://late.tunnels.test";
    let _agent =
        agent::agent(&config, ["http", &upstream.port().to_string(), "--url", url]).start();
    for (fields, body) in [("", ""), ("Content-Length: 2\r\n", "{}")] {
        let mut wire = Wire::connect(edge.address("http_addr")).unwrap();
        wire.write(format!(
            "POST /exec HTTP/1.1\r\nHost: late.tunnels.test\r\nConnection: Upgrade\r\n\
             Upgrade: tcp\r\n{fields}\r\n{body}"
        ))
        .unwrap();
        let answer = wire.read_response("POST").expect("a page, not silence");
        assert_eq!((answer.status(), answer.field("connection")), (504, Some("close")));
        assert_eq!(wire.read_rest().unwrap(), b"");
    }
    wait_for("the upstream's connections to end", || upstream.open() == 0);
}

/// The first request has no response yet when the second one has arrived.
#[test]
fn a_pipelined_request_that_is_answered_late_ends_without_a_response() {
    let token = "2planted0credential0of0late0pipelines_0123456789ABCDE";
    crate::support::process::plant_secret(token);
    let edge = Serve::start(&format!(
        "credentials: [{{id: a, authtoken: {token}}}]\nlimits: {{idle_seconds: 1}}\n"
    ));
    let upstream = Upstream::tcp(|mut wire| drop(wire.read_rest()));
    let config = edge.config("agent.yml", token);
    let url = "http://late.tunnels.test";
    let _agent =
        agent::agent(&config, ["http", &upstream.port().to_string(), "--url", url]).start();
    let mut wire = Wire::connect(edge.address("http_addr")).unwrap();
    wire.write("GET /1 HTTP/1.1\r\nHost: late.tunnels.test\r\n\r\n".repeat(2)).unwrap();
    assert_eq!(wire.read_response("GET").expect("a page, not silence").status(), 504);
    // Also a body that pauses.
    let mut wire = Wire::connect(edge.address("http_addr")).unwrap();
    wire.write("POST / HTTP/1.1\r\nHost: late.tunnels.test\r\nContent-Length: 9\r\n\r\nx").unwrap();
    assert_eq!(wire.read_response("POST").expect("a page, not silence").status(), 408);
    wait_for("the upstream's connections to end", || upstream.open() == 0);
}

/// An agent of protocol version 2 binds `https` and `http` for an endpoint without a scheme.
#[test]
fn an_old_agents_https_and_http_of_one_name_conflict() {
    use crate::support::peer::{AUTH, BIND, Session};
    use serde_json::json;

    let edge = Edge::start();
    let mut session = Session::connect(edge.agent, &edge.ca);
    let token = edge.authtoken();
    let auth = json!({"Version": ["2"], "ClientId": "", "Extra": {"Authtoken": token,
        "HeartbeatInterval": 10_000_000_000u64, "HeartbeatTolerance": 15_000_000_000u64}});
    assert_eq!(session.call(AUTH, &auth)["Version"], "2");
    let mut host = json!("");
    for (proto, port) in [("https", edge.https.port()), ("http", edge.http.port())] {
        let answer = session.call(
            BIND,
            &json!({"Id": "", "Proto": proto, "ForwardsTo": "x", "Opts": {"Hostname": host},
                "Extra": {"Token": ""}}),
        );
        assert_eq!(answer["Error"].as_str().unwrap_or(""), "", "{answer}");
        host = answer["Opts"]["Hostname"].clone();
        assert_eq!(answer["Proto"], proto, "{answer}");
        let url = format!("{proto}://{}:{port}", host.as_str().unwrap());
        assert_eq!(answer["URL"], json!(url));
    }
}

/// Returns the bytes of a connection up to its end, or its error.
fn end_of(wire: std::io::Result<Wire>) -> Result<Vec<u8>, std::io::ErrorKind> {
    wire.and_then(|mut wire| wire.read_rest()).map_err(|error| error.kind())
}

#[test]
fn an_absent_agent_is_an_empty_answer_for_raw_visitors() {
    use crate::support::visitor::echoes;

    let (edge, upstream) = (Edge::start(), Upstream::echo());
    let mut tcp = agent::tcp(&edge, upstream.port());
    let mut tls = agent::agent(&edge.config, ["tls", &upstream.port().to_string()])
        .arg("--url=tls://raw.localhost")
        .start();
    let mut hello = Vec::new();
    let name = rustls::pki_types::ServerName::try_from("raw.localhost").unwrap();
    let config = crate::support::certs::client(&edge.ca);
    let mut client = rustls::ClientConnection::new(config, name).unwrap();
    client.write_tls(&mut hello).unwrap();
    let url = tcp.url().to_owned();
    assert!(echoes(&edge, &url));
    let ask_tls = || {
        let mut wire = Wire::connect(edge.https)?;
        wire.write(&hello).map(|()| wire)
    };
    let echoed = || ask_tls().and_then(|mut wire| wire.read_exact(hello.len()));
    assert_eq!(echoed().unwrap(), hello, "passed through");
    tcp.process().kill();
    tls.process().kill();
    let reset = Err(std::io::ErrorKind::ConnectionReset);
    // The edge may detect the death a moment later.
    wait_for("the TCP agent's absence", || !echoes(&edge, &url));
    wait_for("the TLS agent's absence", || echoed().is_err());
    for _ in 0..5 {
        assert_eq!(end_of(Wire::connect(edge.address_of(&url))), reset);
        assert_eq!(end_of(ask_tls()), reset);
    }
}

/// The kernel reports a reset once: to the write of the download, or to the read of the upload.
#[test]
fn a_visitors_reset_during_a_download_is_an_end_of_its_upload() {
    use socket2::{Domain, Socket, Type};

    let edge = Edge::start();
    let (report, reports) = mpsc::channel();
    let upstream = Upstream::tcp(move |mut wire| {
        // Another write at the end could get the reset, and hide it from the read.
        let end = wire.write(vec![b'd'; 1_500_000]).and_then(|()| wire.read_rest());
        report.send(end).unwrap();
    });
    let agent = agent::tcp(&edge, upstream.port());
    let address = edge.address_of(agent.url());
    for n in 0..800 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // The download is still under way when the visitor leaves.
        socket.set_recv_buffer_size(32_768).unwrap();
        socket.connect(&address.into()).unwrap();
        let mut visitor = Wire::new(socket.into());
        visitor.write("upload").unwrap();
        visitor.read_exact(n % 100 * 10_000 + 1).unwrap();
        visitor.reset();
        let end = reports.recv_timeout(crate::support::PATIENCE).unwrap();
        let error = end.expect_err("an end that looks clean");
        assert!(crate::support::is_reset(&error), "visitor {n}: {error}");
    }
}

/// Applications compare the scheme as a whole: a list of two makes them redirect for ever.
#[test]
fn a_direct_visitor_poses_as_https() {
    let edge = Edge::start();
    let upstream = Upstream::http(|request, wire| {
        let named = request.fields.iter().filter(|(name, _)| {
            let name = name.to_lowercase().replace('_', "-");
            name.contains("forwarded") || name == "x-real-ip" || name.contains("https")
        });
        let seen: String = named.map(|(name, value)| format!("{name}: {value}\n")).collect();
        wire.respond("200 OK", "", seen.as_bytes())
    });
    let agent = agent::http(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    let own = visitor.get("/").text();
    let claims = "X-Forwarded-Proto: https\r\nX_Forwarded_Proto: https\r\nForwarded: proto=https\r\n\
                  X-Forwarded-Ssl: on\r\nX-Forwarded-Scheme: https\r\nFront-End-Https: on\r\n\
                  X-Forwarded-For: 192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\nX-Forwarded-Host: b\r\n";
    assert_eq!(visitor.ask("GET", "/", claims, b"").text(), own);
    assert!(own.contains("X-Forwarded-Proto: http\n"), "{own}");
}

/// The connection was accepted: the service runs, and another start does not help.
#[test]
fn a_failed_tls_handshake_is_a_service_that_has_to_be_started() {
    use crate::support::certs::Authority;
    use std::io::Read;

    let (edge, dir) = (Edge::start(), crate::support::TempDir::new());
    let authority = Authority::new();
    let ca = dir.write("ca.pem", authority.pem());
    let first_byte = |wire: &Wire| wire.tcp().read_exact(&mut [0]).unwrap();
    let resets = Upstream::tcp(move |wire| {
        first_byte(&wire);
        wire.reset();
    });
    // It reads everything: a close with unread bytes is a reset.
    let closes = Upstream::tcp(|mut wire| {
        wire.half_close();
        let _ = wire.read_rest();
    });
    let silent = Upstream::tcp(|mut wire| drop(wire.read_rest()));
    let plain = Upstream::tcp(|mut wire| drop(wire.write("HTTP/1.1 400 Bad Request\r\n\r\n")));
    let untrusted = Upstream::on("127.0.0.1:0", Some(Authority::new().server(&["localhost"])), {
        |mut wire| drop(wire.read_rest())
    });
    let old = {
        let mut params = crate::support::certs::params(&["localhost"]);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        Upstream::on("127.0.0.1:0", Some(authority.server_with(params)), {
            |mut wire| drop(wire.read_rest())
        })
    };
    let cases = [
        (&resets, "the upstream reset the connection"),
        (&closes, "the upstream closed the connection"),
        (&silent, "no answer of the upstream within 10 s"),
        (&plain, "the upstream does not use TLS"),
        (&untrusted, "the certificate is not accepted: UnknownIssuer"),
        (&old, "the certificate is not accepted: certificate expired"),
    ];
    let (edge, ca) = (&edge, &ca);
    std::thread::scope(|scope| {
        for (upstream, cause) in cases {
            scope.spawn(move || {
                let url = format!("https://localhost:{}", upstream.port());
                let mut agent = agent::agent(&edge.config, ["http", &url])
                    .arg(format!("--upstream-tls-verify-cas={}", ca.display()))
                    .start();
                let page = agent.visit(edge).get("/");
                let code = page.field("ngrok-error-code");
                assert_eq!((page.status(), code), (502, Some("ERR_NGROK_8012")), "{cause}");
                let text = page.text();
                assert!(text.contains(&format!("TLS handshake: {cause}")), "{cause}: {text}");
                assert!(!text.contains("Start the service"), "{cause}: {text}");
                let line = agent.process().wait_stderr("failed to reach the upstream");
                assert!(line.contains(&format!("TLS handshake: {cause}")), "{cause}: {line}");
            });
        }
    });
}
