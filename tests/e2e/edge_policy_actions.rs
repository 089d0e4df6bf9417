//! What visitors of an endpoint see of each action of its traffic policy. What is refused at Bind
//! is tested with the code of the actions.

use std::io::{self, Read};

use serde_json::json;

use crate::support::TempDir;
use crate::support::agent::{Agent, agent};
use crate::support::certs::{self, Authority};
use crate::support::edge::Edge;
use crate::support::is_reset;
use crate::support::upstream::Upstream;
use crate::support::wire::{Message, Wire};

/// An endpoint with this policy in front of `upstream`. `kind` and `flags` are arguments of the
/// agent.
fn start(edge: &Edge, upstream: &Upstream, kind: &[&str], policy: &str) -> Agent {
    let dir = TempDir::new();
    let file = dir.write("policy.yml", policy).display().to_string();
    let (name, flags) = kind.split_first().unwrap_or((&"http", &[]));
    let address = upstream.addr.to_string();
    let args = [*name, &address, "--traffic-policy-file", &file].map(str::to_owned);
    let flags = flags.iter().map(|flag| (*flag).to_owned());
    agent(&edge.config, args.into_iter().chain(flags)).start()
}

/// A policy with one action without expressions.
fn one(phase: &str, action: &str, config: serde_json::Value) -> String {
    json!({ phase: [{ "actions": [{ "type": action, "config": config }] }] }).to_string()
}

fn code(message: &Message) -> Option<&str> {
    message.field("ngrok-error-code")
}

/// Responds with the request line, `Host` and the body.
fn shows_requests() -> Upstream {
    Upstream::http(|request, wire| {
        let host = request.field("host").unwrap_or_default();
        let body = format!("{} {} {host} {}", request.method(), request.target(), request.text());
        wire.respond("200 OK", "Content-Type: text/plain\r\n", body.as_bytes())
    })
}

#[test]
fn visitors_are_admitted_by_their_address() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let refusing = json!({ "allow": ["192.0.2.0/24"] });
    let agent = start(&edge, &upstream, &[], &one("on_http_request", "restrict-ips", refusing));
    let refused = agent.visit(&edge).get("/");
    assert_eq!((refused.status(), code(&refused)), (403, Some("ERR_NGROK_3203")));
    let denying = json!({ "allow": ["0.0.0.0/0", "::/0"], "deny": ["127.0.0.0/8"] });
    let agent =
        start(&edge, &upstream, &[], &one("on_http_response", "restrict-ips", denying.clone()));
    assert_eq!(agent.visit(&edge).get("/").status(), 403);
    let echo = Upstream::echo();
    let agent = start(&edge, &echo, &["tcp"], &one("on_tcp_connect", "restrict-ips", denying));
    // The reset may come before the connection is in use.
    let closed = Wire::connect(edge.address_of(agent.url())).and_then(|mut wire| {
        wire.write("x")?;
        wire.read_rest()
    });
    assert!(closed.as_ref().map_or_else(is_reset, Vec::is_empty), "{closed:?}");
    let watching = json!({ "allow": ["192.0.2.1"], "enforce": false });
    let agent = start(&edge, &upstream, &[], &one("on_http_request", "restrict-ips", watching));
    assert_eq!(agent.visit(&edge).get("/a").text(), "GET /a ");
}

#[test]
fn a_change_of_an_ip_policy_applies_to_the_next_visitor() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let rest = edge.rest();
    let id = rest.create("/ip_policies", &json!({}))["id"].as_str().unwrap().to_owned();
    let config = json!({ "ip_policies": [&id] });
    let agent = start(&edge, &upstream, &[], &one("on_http_request", "restrict-ips", config));
    assert_eq!(agent.visit(&edge).get("/").status(), 403, "a policy without rules");
    let rule = json!({ "ip_policy_id": &id, "cidr": "127.0.0.0/8", "action": "allow" });
    rest.create("/ip_policy_rules", &rule);
    assert_eq!(agent.visit(&edge).get("/").status(), 200);
    let rule = json!({ "ip_policy_id": &id, "cidr": "127.0.0.1", "action": "deny" });
    rest.create("/ip_policy_rules", &rule);
    assert_eq!(agent.visit(&edge).get("/").status(), 403);
    // After the removal of the policy every visitor is refused.
    rest.remove(&format!("/ip_policies/{id}"));
    assert_eq!(agent.visit(&edge).get("/").status(), 500);
}

#[test]
fn a_visitor_needs_a_credential_of_the_policy() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let config = json!({ "credentials": ["user:open sesame", "other:pass:word1"],
        "realm": "the house" });
    let agent = start(&edge, &upstream, &[], &one("on_http_request", "basic-auth", config));
    let mut visitor = agent.visit(&edge);
    let refused = visitor.get("/");
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.field("www-authenticate"), Some("Basic realm=\"the house\""));
    for (pair, status) in
        [("dXNlcjpvcGVuIHNlc2FtZQ==", 200), ("b3RoZXI6cGFzczp3b3JkMQ==", 200), ("dXNlcjp4", 401)]
    {
        let field = format!("Authorization: Basic {pair}\r\n");
        assert_eq!(visitor.ask("GET", "/", &field, b"").status(), status, "{pair}");
    }
}

#[test]
fn a_change_of_a_secret_applies_to_the_next_request() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let rest = edge.rest();
    rest.create("/vaults", &json!({ "name": "house" }));
    let secret = json!({ "vault_name": "house", "name": "password", "value": "open sesame" });
    let id = rest.create("/vault_secrets", &secret)["id"].as_str().unwrap().to_owned();
    let config = json!({ "credentials": ["user:${secrets.get('house', 'password')}"] });
    let agent = start(&edge, &upstream, &[], &one("on_http_request", "basic-auth", config));
    let mut visitor = agent.visit(&edge);
    let mut status = |pair: &str| {
        let field = format!("Authorization: Basic {pair}\r\n");
        visitor.ask("GET", "/", &field, b"").status()
    };
    assert_eq!(status("dXNlcjpvcGVuIHNlc2FtZQ=="), 200);
    rest.change(&format!("/vault_secrets/{id}"), &json!({ "value": "closed sesame" }));
    assert_eq!(status("dXNlcjpvcGVuIHNlc2FtZQ=="), 401);
    assert_eq!(status("dXNlcjpjbG9zZWQgc2VzYW1l"), 200);
    rest.remove(&format!("/vault_secrets/{id}"));
    assert_eq!(status("dXNlcjpjbG9zZWQgc2VzYW1l"), 500);
}

#[test]
fn a_key_with_too_many_requests_gets_429() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let config = json!({ "name": "per key", "algorithm": "sliding_window", "capacity": 3,
        "rate": "24h", "bucket_key": ["conn.client_ip", "getReqHeader('x-key')"] });
    let agent = start(&edge, &upstream, &[], &one("on_http_request", "rate-limit", config));
    let mut visitor = agent.visit(&edge);
    for _ in 0..3 {
        assert_eq!(visitor.ask("GET", "/", "X-Key: a\r\n", b"").status(), 200);
    }
    let refused = visitor.ask("GET", "/", "X-Key: a\r\n", b"");
    assert_eq!(refused.status(), 429);
    let seconds: u32 = refused.field("retry-after").unwrap().parse().unwrap();
    // Rounded up to a whole second.
    assert!((86_000..=86_401).contains(&seconds), "{seconds}");
    assert_eq!(visitor.ask("GET", "/", "X-Key: b\r\n", b"").status(), 200);
}

#[test]
fn urls_are_rewritten_and_redirected() {
    let (edge, upstream) = (Edge::start(), shows_requests());
    let policy = r"
on_http_request:
  - actions:
      - {type: url-rewrite, config: {from: '/old/(\d+)', to: '/new/$1/x y'}}
      - {type: redirect, config: {from: '/moved/(.*)$', to: '/here/$1', status_code: 308, headers: {X-Why: moved}}}
      - {type: url-rewrite, config: {from: '/host/.*', to: ''}}
";
    let agent = start(&edge, &upstream, &[], policy);
    let mut visitor = agent.visit(&edge);
    let host = visitor.host().to_owned();
    let shown = |method: &str, target: &str, body: &str| format!("{method} {target} {host} {body}");
    assert_eq!(visitor.get("/old/12?q").text(), shown("GET", "/new/12/x%20y?q", ""));
    let posted = visitor.ask("POST", "/old/1", "", b"body");
    assert_eq!(posted.text(), shown("POST", "/new/1/x%20y", "body"));
    assert_eq!(visitor.get("/other").text(), shown("GET", "/other", ""));
    assert_eq!(visitor.get("/host/x").text(), shown("GET", "/", ""));
    let moved = visitor.get("/moved/a?b=c");
    assert_eq!((moved.status(), moved.field("x-why")), (308, Some("moved")));
    let location = format!("http://{host}/here/a?b=c");
    assert_eq!(moved.field("location"), Some(location.as_str()));
    assert_eq!(moved.text(), "");
}

#[test]
fn a_service_that_fails_too_often_gets_a_rest() {
    let (edge, upstream) = (
        Edge::start(),
        Upstream::http(|_, wire| wire.respond("503 Service Unavailable", "", b"busy")),
    );
    let config = json!({ "error_threshold": 0.1, "volume_threshold": 3, "window_duration": "60s",
        "tripped_duration": "2m" });
    let agent = start(&edge, &upstream, &[], &one("on_http_request", "circuit-breaker", config));
    let mut visitor = agent.visit(&edge);
    for _ in 0..3 {
        assert_eq!(visitor.get("/").text(), "busy");
    }
    let refused = visitor.get("/");
    assert_eq!((refused.status(), code(&refused)), (503, Some("ERR_NGROK_3202")));
    assert!(refused.text().contains("120 seconds"), "{}", refused.text());
}

#[test]
fn a_connection_is_closed_without_a_response() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let agent =
        start(&edge, &upstream, &[], &one("on_http_request", "close-connection", json!({})));
    let mut visitor = agent.visit(&edge);
    let closed = visitor.send("GET", "/", "", b"").and_then(|()| visitor.wire.read_rest());
    assert!(closed.as_ref().map_or_else(is_reset, Vec::is_empty), "{closed:?}");
}

#[test]
fn webhooks_are_verified() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let config = json!({ "provider": "github", "secret": "It's a Secret to Everybody" });
    let policy = one("on_http_request", "verify-webhook", config);
    let agent = start(&edge, &upstream, &[], &policy);
    let mut visitor = agent.visit(&edge);
    // From the provider's documentation.
    let signature = "X-Hub-Signature-256: \
        sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17\r\n";
    let delivered = visitor.ask("POST", "/hook", signature, b"Hello, World!");
    assert_eq!(delivered.text(), "POST /hook Hello, World!");
    let refused = visitor.ask("POST", "/hook", signature, b"Hello, World?");
    assert_eq!((refused.status(), code(&refused)), (403, Some("ERR_NGROK_3204")));
    let mut visitor = agent.visit(&edge);
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{signature}\r\n",
        visitor.host(),
        1024 * 1024 + 1
    );
    visitor.wire.write(head).unwrap();
    let refused = visitor.wire.read_response("POST").unwrap();
    assert_eq!(refused.status(), 413);
    assert!(refused.text().contains("1048576 bytes"), "{}", refused.text());
}

#[test]
fn the_body_of_a_request_is_changed_for_the_upstream() {
    let (edge, upstream) = (Edge::start(), shows_requests());
    let config = json!({ "replacements": [
        { "from": r"key=\w+", "to": "key=[redacted]" }, { "from": "<!--.*?-->" }] });
    let policy = one("on_http_request", "request-body-find-replace", config);
    let agent = start(&edge, &upstream, &[], &policy);
    let mut visitor = agent.visit(&edge);
    let host = visitor.host().to_owned();
    let sent = b"key=abc<!-- x -->, key=d";
    let expected = format!("POST / {host} key=[redacted], key=[redacted]");
    assert_eq!(visitor.ask("POST", "/", "", sent).text(), expected);
    let chunked = b"4\r\nkey=\r\n3\r\nabc\r\n0\r\n\r\n";
    let got = visitor.ask("POST", "/", "Transfer-Encoding: chunked\r\n", chunked);
    assert_eq!(got.text(), format!("POST / {host} key=[redacted]"));
    assert_eq!(visitor.ask("POST", "/", "", b"none").text(), format!("POST / {host} none"));
    assert_eq!(visitor.get("/").text(), format!("GET / {host} "));
    let head =
        format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n", 1024 * 1024 + 1);
    visitor.wire.write(head).unwrap();
    let refused = visitor.wire.read_response("POST").unwrap();
    assert_eq!(refused.status(), 413);
    let mut visitor = agent.visit(&edge);
    let coded = visitor.ask("POST", "/", "Content-Encoding: gzip\r\n", b"x");
    assert_eq!(coded.status(), 415);
}

/// Responds with a secret, framed as the target says. It compresses for those that accept it.
fn keeps_no_secret() -> Upstream {
    Upstream::http(|request, wire| {
        let body = format!("a secret {} end", "x".repeat(100_000));
        if request.field("accept-encoding").is_some() || request.field("range").is_some() {
            return wire.respond("200 OK", "Content-Encoding: gzip\r\n", b"secret");
        }
        match request.target() {
            "/length" => wire.respond("200 OK", "ETag: \"1\"\r\n", body.as_bytes()),
            "/chunked" => {
                let (a, b) = body.split_at(5);
                let (m, n) = (a.len(), b.len());
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                wire.write(format!("{head}{m:x}\r\n{a}\r\n{n:x}\r\n{b}\r\n0\r\n\r\n"))
            }
            "/coded" => wire.respond("200 OK", "Content-Encoding: br\r\n", b"secret"),
            _ => {
                wire.write(format!("HTTP/1.1 200 OK\r\n\r\n{body}"))?;
                Err(io::ErrorKind::Other.into())
            }
        }
    })
}

#[test]
fn the_body_of_a_response_is_changed_for_the_visitor() {
    let (edge, upstream) = (Edge::start(), keeps_no_secret());
    let config = json!({ "replacements": [{ "from": "secret x+", "to": "[$0]" },
        { "from": "x+", "to": "*" }, { "from": r"end$", "to": "END" }] });
    let policy = one("on_http_response", "response-body-find-replace", config);
    let agent = start(&edge, &upstream, &[], &policy);
    let mut visitor = agent.visit(&edge);
    // The run of x is longer than the window of the edge, which finds it in parts.
    let accepts = "Accept-Encoding: gzip\r\nRange: bytes=0-3\r\n";
    for target in ["/length", "/chunked", "/length", "/close"] {
        let response = visitor.ask("GET", target, accepts, b"");
        let text = response.text();
        assert!(text.starts_with("a [secret *") && text.ends_with(" END"), "{target}: {text}");
        assert!(!text.contains('x'), "{target}");
        if target == "/length" {
            assert_eq!(response.field("etag"), Some("W/\"1\""));
        }
        if target == "/close" {
            visitor = agent.visit(&edge);
        }
    }
    let coded = visitor.get("/coded");
    assert_eq!((coded.status(), code(&coded)), (500, Some("ERR_NGROK_2300")));
    let mut visitor = agent.visit(&edge);
    let head = format!("GET /chunked HTTP/1.0\r\nHost: {}\r\n\r\n", visitor.host());
    visitor.wire.write(head).unwrap();
    let old = String::from_utf8(visitor.wire.read_rest().unwrap()).unwrap();
    assert!(old.contains("\r\n\r\na [secret *") && old.ends_with(" END"), "{}", &old[..200]);
}

/// The head has been sent: the visitor gets no page, and the log has the reason.
#[test]
fn a_body_that_cannot_be_changed_is_cut_off_and_logged() {
    let mut edge = Edge::start();
    let upstream = Upstream::http(|request, wire| match request.target() {
        "/304" => {
            let length = "Content-Length: 900\r\nETag: \"1\"\r\n\r\n";
            wire.write(format!("HTTP/1.1 304 Not Modified\r\n{length}"))
        }
        _ => wire.respond("200 OK", "", &[b'a'; 100_000]),
    });
    // One search replaces 16 KiB, and makes at most 256 KiB of them.
    let config = json!({ "replacements": [{ "from": "a", "to": "twenty-four bytes of it." }] });
    let policy = one("on_http_response", "response-body-find-replace", config);
    let agent = start(&edge, &upstream, &[], &policy);
    let unchanged = agent.visit(&edge).get("/304");
    let fields = (unchanged.field("content-length"), unchanged.field("etag"));
    assert_eq!((unchanged.status(), fields), (304, (None, Some("W/\"1\""))));
    for _ in 0..2 {
        let mut visitor = agent.visit(&edge);
        visitor.send("GET", "/", "", b"").unwrap();
        assert!(visitor.wire.read_response("GET").is_err(), "the body looks complete");
    }
    let line = edge.process().wait_stderr("body cannot be changed");
    assert!(line.contains(agent.url()) && line.contains("count=1"), "{line}");
    assert_eq!(edge.process().count_stderr("body cannot be changed"), 1, "once a minute");
}

#[test]
fn events_are_changed_one_by_one() {
    let edge = Edge::start();
    let upstream = Upstream::http(|request, wire| {
        let kind = "Content-Type: text/event-stream\r\n";
        wire.write(format!("HTTP/1.1 200 OK\r\n{kind}Transfer-Encoding: chunked\r\n\r\n"))?;
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
        wire.write(chunk("data: my secret\nid: 1\n\nretry: 5\nda"))?;
        if request.target() == "/wait" {
            // The first event must pass before the second one is complete.
            wire.read_exact(1)?;
        }
        wire.write(chunk("ta: open\r\n\r\n") + "0\r\n\r\n")
    });
    let config = json!({ "replacements": [{ "from": "secret", "to": "[x]" },
        { "field": "retry", "from": r"\d+", "to": "9" }] });
    let policy = one("on_event_stream_message", "sse-find-replace", config);
    let agent = start(&edge, &upstream, &[], &policy);
    let mut visitor = agent.visit(&edge);
    visitor.send("GET", "/wait", "", b"").unwrap();
    let head = visitor.wire.read_head().unwrap();
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    let first = visitor.wire.read_until(b"\n\n").unwrap();
    assert!(String::from_utf8_lossy(&first).contains("data: my [x]\nid: 1\n"));
    let mut visitor = agent.visit(&edge);
    let whole = visitor.get("/");
    assert_eq!(whole.text(), "data: my [x]\nid: 1\n\nretry: 9\ndata: open\n\n");
}

#[test]
fn responses_are_compressed_with_the_codings_of_the_policy() {
    let edge = Edge::start();
    let upstream = Upstream::http(|_, wire| {
        let text = "the same words again and again\n".repeat(400);
        wire.respond("200 OK", "Content-Type: text/plain\r\n", text.as_bytes())
    });
    let policy = one("on_http_response", "compress-response", json!({ "algorithms": ["deflate"] }));
    let agent = start(&edge, &upstream, &[], &policy);
    let mut visitor = agent.visit(&edge);
    let response = visitor.ask("GET", "/", "Accept-Encoding: gzip, deflate\r\n", b"");
    assert_eq!(response.field("content-encoding"), Some("deflate"));
    let mut text = String::new();
    flate2::read::ZlibDecoder::new(&*response.body).read_to_string(&mut text).unwrap();
    assert!(text.starts_with("the same words"));
    let plain = visitor.ask("GET", "/", "Accept-Encoding: gzip\r\n", b"");
    assert_eq!(plain.field("content-encoding"), None);
}

#[test]
fn the_policy_decides_about_tls_handshakes() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let clients = Authority::new();
    let config = json!({ "mutual_tls_certificate_authorities": [clients.pem()] });
    let policy = one("on_tcp_connect", "terminate-tls", config);
    let agent = start(&edge, &upstream, &["http", "--scheme", "https"], &policy);
    let host = agent.url().strip_prefix("https://").unwrap().to_owned();
    let name = host.split(':').next().unwrap().to_owned();
    let ask = |own: Option<&(String, String)>| {
        let config = certs::client_as(&edge.ca, own);
        let mut wire = certs::connect_with(edge.address_of(agent.url()), &name, config);
        wire.write(format!("GET /in HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))?;
        wire.read_response("GET")
    };
    let own = clients.pair(&["client.example"]);
    assert_eq!(ask(Some(&own)).unwrap().text(), "GET /in ");
    assert!(ask(None).is_err(), "served without a certificate");
}

#[test]
fn a_tls_endpoint_is_terminated_with_the_certificate_of_the_policy() {
    let (edge, upstream, dir) = (Edge::start(), Upstream::echo(), TempDir::new());
    let authority = Authority::new();
    let (chain, key) = authority.pair(&["own.localhost"]);
    let config = json!({ "server_certificate": chain, "server_private_key": key,
        "min_version": "1.3" });
    let policy = one("on_tcp_connect", "terminate-tls", config);
    let agent = start(&edge, &upstream, &["tls", "--url", "tls://own.localhost"], &policy);
    let ca = dir.write("ca.pem", authority.pem());
    let address = edge.address_of(agent.url());
    let mut wire = certs::connect(address, "own.localhost", &ca);
    wire.write("plain behind the edge").unwrap();
    assert_eq!(wire.read_exact(21).unwrap(), b"plain behind the edge");
    let mut old = certs::connect_with(address, "own.localhost", certs::old_client(&ca));
    let refused = old.write("x").and_then(|()| old.read_exact(1));
    assert!(refused.is_err(), "TLS 1.2 is below min_version");
}

/// The agent of the internal endpoint terminates TLS only if the edge has not.
#[test]
fn an_agent_gets_no_tls_that_the_edge_has_terminated() {
    let (edge, echo, dir) = (Edge::start(), Upstream::echo(), TempDir::new());
    let authority = Authority::new();
    let (chain, key) = authority.pair(&["own.localhost"]);
    let files = [dir.write("own.pem", &chain), dir.write("own.key", &key)];
    let [crt, file] = files.map(|path| path.display().to_string());
    let address = echo.addr.to_string();
    let inner = ["tls", &address, "--url=tls://inner.internal", "--terminate-at=agent", "--crt"];
    let _inner = agent(&edge.config, inner.into_iter().chain([&*crt, "--key", &file])).start();
    let terminate = json!({ "type": "terminate-tls",
        "config": { "server_certificate": chain, "server_private_key": key } });
    let forward =
        json!({ "type": "forward-internal", "config": { "url": "tls://inner.internal" } });
    let ca = dir.write("ca.pem", authority.pem());
    for actions in [vec![terminate, forward.clone()], vec![forward]] {
        let policy = json!({ "on_tcp_connect": [{ "actions": actions }] }).to_string();
        let outer = start(&edge, &echo, &["tls", "--url", "tls://own.localhost"], &policy);
        let mut wire = certs::connect(edge.address_of(outer.url()), "own.localhost", &ca);
        wire.write("through both").unwrap();
        assert_eq!(wire.read_exact(12).unwrap(), b"through both");
    }
}
