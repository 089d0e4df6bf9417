//! What the edge does for the options of an HTTP endpoint: what visitors and upstreams see.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, mpsc};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::support::agent::{Agent, agent};
use crate::support::certs::{self, Authority};
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::visitor::curl;
use crate::support::wire::Message;
use crate::support::{PATIENCE, TempDir, is_reset, wait_for};

/// An agent with these flags in front of `upstream`.
fn start(edge: &Edge, upstream: &Upstream, flags: &[&str]) -> Agent {
    let address = upstream.addr.to_string();
    let args = ["http", &address].into_iter().chain(flags.iter().copied());
    agent(&edge.config, args).start()
}

/// The header lines of a request.
fn head_of(request: &Message) -> String {
    let line = |(name, value): &(String, String)| format!("\r\n{name}: {value}");
    request.fields.iter().map(line).collect::<String>() + "\r\n"
}

/// Responds with the head of each request.
fn shows_heads() -> Upstream {
    Upstream::http(|request, wire| wire.respond("200 OK", "", head_of(request).as_bytes()))
}

fn code(message: &Message) -> Option<&str> {
    message.field("ngrok-error-code")
}

#[test]
fn a_visitor_needs_one_of_the_credentials() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let flags = ["--basic-auth=ann:correct horse", "--basic-auth", "bob:battery:staple"];
    let agent = start(&edge, &upstream, &flags);
    let mut visitor = agent.visit(&edge);
    let refused = visitor.get("/");
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.field("www-authenticate"), Some("Basic realm=\"ngrok\""));
    // "ann:wrong horse" and "ann:correct horse", on the same connection.
    let wrong = visitor.ask("GET", "/", "Authorization: Basic YW5uOndyb25nIGhvcnNl\r\n", b"");
    assert_eq!(wrong.status(), 401);
    let right = "Authorization: Basic YW5uOmNvcnJlY3QgaG9yc2U=\r\n";
    assert_eq!(visitor.ask("GET", "/in", right, b"").text(), "GET /in ");
    assert_eq!(visitor.ask("POST", "/in", right, b"x").text(), "POST /in x");
    // A body that came with a wrong credential never reaches the service.
    let mut visitor = agent.visit(&edge);
    assert_eq!(visitor.ask("POST", "/", "", b"body").status(), 401);
    let curl = curl(&["-u", "bob:battery:staple", &format!("{}/curl", agent.url())]);
    assert_eq!(String::from_utf8_lossy(&curl.stdout), "GET /curl ");
    let huge = format!("Authorization: Basic {}\r\n", "A".repeat(40_000));
    assert_eq!(agent.visit(&edge).ask("GET", "/", &huge, b"").status(), 401);
}

#[test]
fn the_upstream_gets_its_own_host_and_redirects_lead_back() {
    let edge = Edge::start();
    let upstream = Upstream::http(|request, wire| {
        let host = request.field("host").unwrap_or_default();
        match request.target() {
            "/old" => {
                wire.respond("302 Found", &format!("Location: http://{host}/new?a=b\r\n"), b"")
            }
            "/else" => wire.respond("302 Found", "Location: https://other.example/x\r\n", b""),
            _ => wire.respond("200 OK", "", head_of(request).as_bytes()),
        }
    });
    let own = upstream.addr.to_string();
    for (flag, expected) in
        [("--host-header=rewrite", own.as_str()), ("--host-header=site.local", "site.local")]
    {
        let agent = start(&edge, &upstream, &[flag]);
        let mut visitor = agent.visit(&edge);
        let public = visitor.host().to_owned();
        let head = visitor.get("/").text().to_ascii_lowercase();
        assert!(head.contains(&format!("\r\nhost: {expected}\r\n")), "{head}");
        assert!(head.contains(&format!("\r\nx-forwarded-host: {public}\r\n")), "{head}");
        assert_eq!(head.matches("\r\nhost:").count(), 1, "{head}");
        let found = visitor.get("/old");
        let location = format!("http://{public}/new?a=b");
        assert_eq!(found.field("location"), Some(location.as_str()));
        let other = visitor.get("/else");
        assert_eq!(other.field("location"), Some("https://other.example/x"));
    }
}

#[test]
fn header_lines_are_removed_and_added_in_both_directions() {
    let edge = Edge::start();
    let upstream = Upstream::http(|request, wire| {
        let fields = "X-Powered-By: cat\r\nServer: old\r\n";
        wire.respond("200 OK", fields, head_of(request).as_bytes())
    });
    let flags = [
        "--request-header-remove=cookie",
        "--request-header-add=X-Via: the edge",
        "--response-header-remove=x-powered-by",
        "--response-header-add=Strict-Transport-Security: max-age=60",
    ];
    let agent = start(&edge, &upstream, &flags);
    let response =
        agent.visit(&edge).ask("GET", "/", "Cookie: a=b\r\nCOOKIE: c\r\nX-Kept: 1\r\n", b"");
    let head = response.text().to_ascii_lowercase();
    assert!(!head.contains("cookie"), "{head}");
    assert!(
        head.contains("\r\nx-via: the edge\r\n") && head.contains("\r\nx-kept: 1\r\n"),
        "{head}"
    );
    assert_eq!(response.field("x-powered-by"), None);
    assert_eq!(response.field("server"), Some("old"));
    assert_eq!(response.field("strict-transport-security"), Some("max-age=60"));
}

#[test]
fn clients_are_refused_by_their_user_agent() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let flags = ["--ua-filter-allow=curl/.*", "--ua-filter-deny=curl/7"];
    let agent = start(&edge, &upstream, &flags);
    let mut visitor = agent.visit(&edge);
    assert_eq!(visitor.ask("GET", "/a", "User-Agent: curl/8.1\r\n", b"").text(), "GET /a ");
    for agent in ["User-Agent: curl/7.1\r\n", "User-Agent: Mozilla/5.0\r\n", ""] {
        let refused = visitor.ask("GET", "/", agent, b"");
        assert_eq!((refused.status(), code(&refused)), (403, Some("ERR_NGROK_3211")), "{agent}");
    }
}

#[test]
fn a_service_that_fails_too_often_gets_a_rest() {
    let edge = Edge::start();
    let upstream = Upstream::http(|_, wire| wire.respond("500 Oops", "", b"own page"));
    let agent = start(&edge, &upstream, &["--circuit-breaker=0.5"]);
    let mut visitor = agent.visit(&edge);
    for _ in 0..10 {
        assert_eq!(visitor.get("/").text(), "own page");
    }
    let refused = visitor.get("/");
    assert_eq!((refused.status(), code(&refused)), (503, Some("ERR_NGROK_3202")));
}

#[test]
fn a_service_that_closes_without_a_response_gets_a_rest() {
    let edge = Edge::start();
    let upstream = Upstream::tcp(|mut wire| {
        let _ = wire.read_request();
    });
    let agent = start(&edge, &upstream, &["--circuit-breaker=0.5"]);
    let page = || {
        let page = agent.visit(&edge).ask("POST", "/", "", b"x");
        (page.status(), code(&page).map(str::to_owned))
    };
    for _ in 0..10 {
        assert_eq!(page(), (502, Some("ERR_NGROK_3004".to_owned())));
    }
    assert_eq!(page(), (503, Some("ERR_NGROK_3202".to_owned())));
}

#[test]
fn a_webhook_needs_the_signature_of_its_provider() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let flags =
        ["--verify-webhook=github", "--verify-webhook-secret", "It's a Secret to Everybody"];
    let agent = start(&edge, &upstream, &flags);
    let mut visitor = agent.visit(&edge);
    // From the provider's documentation.
    let signature = "X-Hub-Signature-256: \
        sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17\r\n";
    let delivered = visitor.ask("POST", "/hook", signature, b"Hello, World!");
    assert_eq!(delivered.text(), "POST /hook Hello, World!");
    let chunked = format!("{signature}Transfer-Encoding: chunked\r\n");
    let body = b"5\r\nHello\r\n8\r\n, World!\r\n0\r\n\r\n";
    let delivered = visitor.ask("POST", "/hook", &chunked, body);
    assert_eq!(delivered.text(), "POST /hook Hello, World!");
    let refused = visitor.ask("POST", "/hook", signature, b"Hello, World?");
    assert_eq!((refused.status(), code(&refused)), (403, Some("ERR_NGROK_3204")));
    let long = vec![b'x'; 1024 * 1024 + 1];
    let mut visitor = agent.visit(&edge);
    // The answer comes before the body is read.
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{signature}\r\n",
        visitor.host(),
        long.len()
    );
    visitor.wire.write(head).unwrap();
    let refused = visitor.wire.read_response("POST").unwrap();
    assert_eq!((refused.status(), code(&refused)), (403, Some("ERR_NGROK_3204")));
}

/// Undoes the coding of a response.
fn decoded(response: &Message) -> String {
    let mut text = String::new();
    match response.field("content-encoding").unwrap() {
        "br" => brotli::Decompressor::new(&*response.body, 4096).read_to_string(&mut text),
        "gzip" => flate2::read::GzDecoder::new(&*response.body).read_to_string(&mut text),
        "deflate" => flate2::read::ZlibDecoder::new(&*response.body).read_to_string(&mut text),
        other => panic!("{other}"),
    }
    .unwrap();
    text
}

#[test]
fn responses_are_compressed_for_those_that_accept_it() {
    const LINE: &str = "the same words again and again\n";
    let edge = Edge::start();
    let upstream = Upstream::http(|request, wire| {
        let text = LINE.repeat(4000);
        match request.target() {
            "/length" => wire.respond(
                "200 OK",
                "Content-Type: text/plain\r\nETag: \"1\"\r\n",
                text.as_bytes(),
            ),
            "/chunked" => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                            Transfer-Encoding: chunked\r\n\r\n";
                wire.write(format!("{head}{:x}\r\n{text}\r\n0\r\nX-Trailer: 1\r\n\r\n", text.len()))
            }
            "/close" => {
                wire.write(format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n{text}"))?;
                Err(std::io::ErrorKind::Other.into())
            }
            "/events" => {
                wire.respond("200 OK", "Content-Type: text/event-stream\r\n", text.as_bytes())
            }
            _ => wire.respond("200 OK", "Content-Type: image/png\r\n", text.as_bytes()),
        }
    });
    let agent = start(&edge, &upstream, &["--compression"]);
    for coding in ["br", "gzip", "deflate"] {
        let accept = format!("Accept-Encoding: {coding}\r\n");
        let mut visitor = agent.visit(&edge);
        for path in ["/length", "/chunked", "/length", "/close"] {
            let response = visitor.ask("GET", path, &accept, b"");
            assert_eq!(response.field("content-encoding"), Some(coding), "{path}");
            assert_eq!(decoded(&response), LINE.repeat(4000), "{path} {coding}");
            assert!(response.body.len() < 10_000, "{path}: {}", response.body.len());
            assert_eq!(response.field("vary"), Some("Accept-Encoding"));
            assert_eq!(response.field("content-length"), None);
            if path == "/length" {
                assert_eq!(response.field("etag"), Some("W/\"1\""));
            }
        }
    }
    let mut visitor = agent.visit(&edge);
    let plain = visitor.get("/length");
    assert_eq!((plain.field("content-encoding"), plain.field("etag")), (None, Some("\"1\"")));
    assert_eq!(plain.field("vary"), Some("Accept-Encoding"));
    for path in ["/events", "/image"] {
        let response = visitor.ask("GET", path, "Accept-Encoding: gzip\r\n", b"");
        assert_eq!(response.field("content-encoding"), None, "{path}");
        assert_eq!(response.text(), LINE.repeat(4000));
    }
    let head = visitor.ask("HEAD", "/length", "Accept-Encoding: gzip\r\n", b"");
    assert_eq!(head.field("content-encoding"), Some("gzip"));
}

#[test]
fn a_truncated_response_is_not_completed_by_its_compression() {
    let edge = Edge::start();
    let upstream = Upstream::http(|_, wire| {
        wire.write("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n")?;
        wire.write("a part")?;
        Err(std::io::ErrorKind::Other.into())
    });
    let agent = start(&edge, &upstream, &["--compression"]);
    let mut visitor = agent.visit(&edge);
    visitor.send("GET", "/", "Accept-Encoding: gzip\r\n", b"").unwrap();
    assert!(visitor.wire.read_response("GET").is_err(), "a part was taken for the whole");
}

#[test]
fn options_act_together_in_their_order() {
    let (edge, upstream) = (Edge::start(), shows_heads());
    let flags = [
        "--basic-auth=ann:correct horse",
        "--ua-filter-deny=bot",
        "--request-header-add=x-user: ann",
        "--compression",
    ];
    let agent = start(&edge, &upstream, &flags);
    let mut visitor = agent.visit(&edge);
    // The filter of clients comes before the credential.
    assert_eq!(visitor.ask("GET", "/", "User-Agent: bot\r\n", b"").status(), 403);
    assert_eq!(visitor.get("/").status(), 401);
    let right = "Authorization: Basic YW5uOmNvcnJlY3QgaG9yc2U=\r\n";
    let head = visitor.ask("GET", "/", right, b"").text().to_ascii_lowercase();
    assert!(head.contains("x-user: ann"), "{head}");
}

/// A masked binary message of up to 125 bytes.
fn message(payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    let masked = payload.iter().map(|b| b ^ 0x55);
    [0x82, 0x80 | length, 0x55, 0x55, 0x55, 0x55].into_iter().chain(masked).collect()
}

/// The head of a visitor's WebSocket.
const WEBSOCKET_FIELDS: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// The close frame of a visitor, with the status 1000.
const CLOSE_FRAME: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];

#[test]
fn a_websocket_carries_the_bytes_of_a_service_without_http() {
    let (edge, upstream) = (Edge::start(), Upstream::echo());
    let agent = start(&edge, &upstream, &["--websocket-tcp-converter"]);
    let mut visitor = agent.visit(&edge);
    let plain = visitor.get("/");
    assert_eq!((plain.status(), code(&plain)), (400, Some("ERR_NGROK_3206")));
    visitor.send("GET", "/any", WEBSOCKET_FIELDS, b"").unwrap();
    let head = visitor.wire.read_head().unwrap();
    assert_eq!(head.status(), 101);
    assert_eq!(head.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    for text in ["hello", "again"] {
        visitor.wire.write(message(text.as_bytes())).unwrap();
        let got = visitor.wire.read_exact(2 + text.len()).unwrap();
        assert_eq!(got, [&[0x82, 5][..], text.as_bytes()].concat());
    }
    // A ping is answered by the edge.
    visitor.wire.write([0x89, 0x80, 0, 0, 0, 0]).unwrap();
    assert_eq!(visitor.wire.read_exact(2).unwrap(), [0x8a, 0]);
    // The close frame ends the upstream's connection in an orderly way.
    visitor.wire.write(CLOSE_FRAME).unwrap();
    assert_eq!(visitor.wire.read_exact(4).unwrap(), [0x88, 2, 0x03, 0xe8]);
    visitor.wire.read_rest().unwrap();
}

#[test]
fn the_last_bytes_of_a_service_come_before_the_close_frame() {
    let edge = Edge::start();
    let upstream = Upstream::tcp(|mut wire| {
        let _ = wire.read_rest();
        let _ = wire.write(b"bye");
    });
    let agent = start(&edge, &upstream, &["--websocket-tcp-converter"]);
    let mut visitor = agent.visit(&edge);
    visitor.send("GET", "/", WEBSOCKET_FIELDS, b"").unwrap();
    visitor.wire.write(CLOSE_FRAME).unwrap();
    assert_eq!(visitor.wire.read_head().unwrap().status(), 101);
    let rest = visitor.wire.read_rest().unwrap();
    assert_eq!(rest, b"\x82\x03bye\x88\x02\x03\xe8", "nothing follows a close frame");
}

#[test]
fn a_service_that_stays_silent_does_not_keep_the_close_frame_back() {
    let edge = Edge::start();
    let upstream = Upstream::tcp(|wire| wire.wait_reset());
    let agent = start(&edge, &upstream, &["--websocket-tcp-converter"]);
    let mut visitor = agent.visit(&edge);
    visitor.send("GET", "/", WEBSOCKET_FIELDS, b"").unwrap();
    visitor.wire.write(CLOSE_FRAME).unwrap();
    assert_eq!(visitor.wire.read_head().unwrap().status(), 101);
    assert_eq!(visitor.wire.read_rest().unwrap(), b"\x88\x02\x03\xe8");
}

#[test]
fn a_websocket_with_a_body_is_refused() {
    let (edge, upstream) = (Edge::start(), Upstream::echo());
    let agent = start(&edge, &upstream, &["--websocket-tcp-converter"]);
    let refused = agent.visit(&edge).ask("GET", "/", WEBSOCKET_FIELDS, b"x");
    assert_eq!((refused.status(), code(&refused)), (400, Some("ERR_NGROK_3206")));
}

#[test]
fn a_websocket_that_breaks_off_resets_the_service() {
    let edge = Edge::start();
    let upstream = Upstream::tcp(|wire| wire.wait_reset());
    let agent = start(&edge, &upstream, &["--websocket-tcp-converter"]);
    let mut visitor = agent.visit(&edge);
    visitor.send("GET", "/", WEBSOCKET_FIELDS, b"").unwrap();
    visitor.wire.write(message(b"x")).unwrap();
    assert_eq!(visitor.wire.read_head().unwrap().status(), 101);
    wait_for("the upstream's connection", || upstream.open() == 1);
    visitor.wire.half_close();
    wait_for("the reset", || upstream.open() == 0);
}

/// An edge with TLS for visitors, and an agent whose endpoint asks for client certificates.
fn needs_client_certificate(edge: &Edge, upstream: &Upstream, cas: &str) -> Agent {
    start(edge, upstream, &["--scheme", "https", "--mutual-tls-cas", cas])
}

#[test]
fn an_https_endpoint_asks_for_client_certificates() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let (dir, clients) = (TempDir::new(), Authority::new());
    let cas = dir.write("clients.pem", clients.pem()).display().to_string();
    let agent = needs_client_certificate(&edge, &upstream, &cas);
    let host = agent.url().strip_prefix("https://").unwrap().to_owned();
    let name = host.split(':').next().unwrap().to_owned();
    let ask = |own: Option<&(String, String)>, server_name: &str, host: &str| {
        let config = certs::client_as(&edge.ca, own);
        let mut wire = certs::connect_with(edge.address_of(agent.url()), server_name, config);
        wire.write(format!("GET /in HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))?;
        wire.read_response("GET")
    };
    let own = clients.pair(&["client.example"]);
    assert_eq!(ask(Some(&own), &name, &host).unwrap().text(), "GET /in ");
    assert!(ask(None, &name, &host).is_err(), "served without a certificate");
    let foreign = Authority::new().pair(&["client.example"]);
    assert!(ask(Some(&foreign), &name, &host).is_err(), "served with another authority's");
    // The handshake for another name does not open this one.
    let open = start(&edge, &upstream, &["--scheme", "https"]);
    let other = open.url().strip_prefix("https://").unwrap().split(':').next().unwrap().to_owned();
    assert_eq!(ask(None, &other, &host).unwrap().status(), 421);
}

#[test]
fn client_certificates_need_https() {
    let (edge, dir) = (Edge::start(), TempDir::new());
    let cas = dir.write("clients.pem", Authority::new().pem()).display().to_string();
    let args = ["http", "80", "--mutual-tls-cas", &cas];
    let mut agent = agent(&edge.config, args).spawn();
    assert_eq!(agent.wait_exit(), Some(1));
    assert!(agent.stderr().contains("need an https:// URL"), "{}", agent.stderr());
}

/// TLS ends at the edge: without close_notify a part of the visitor's bytes may be missing.
#[test]
fn a_tls_visitor_that_is_cut_is_no_end_for_the_upstream() {
    let (ends, ended) = mpsc::channel();
    let upstream = Upstream::tcp(move |mut wire| {
        let first = wire.read_exact(7).unwrap();
        wire.write(&first).unwrap();
        let end = wire.read_rest().map(|bytes| bytes.len());
        ends.send(end).unwrap();
    });
    let (edge, dir) = (Edge::start(), TempDir::new());
    let authority = Authority::new();
    let (certificate, key) = authority.pair(&["own.localhost"]);
    let files = [dir.write("own.pem", certificate), dir.write("own.key", key)];
    let [crt, key] = files.map(|path| path.display().to_string());
    let address = upstream.addr.to_string();
    let flags =
        ["--url", "tls://own.localhost", "--terminate-at", "edge", "--crt", &crt, "--key", &key];
    let agent = agent(&edge.config, ["tls", &address].into_iter().chain(flags)).start();
    let config = certs::client(&dir.write("ca.pem", authority.pem()));
    let visit = || {
        let tcp = TcpStream::connect(edge.address_of(agent.url())).unwrap();
        let name = ServerName::try_from("own.localhost").unwrap();
        let session = ClientConnection::new(Arc::clone(&config), name).unwrap();
        let mut visitor = StreamOwned::new(session, tcp);
        visitor.write_all(b"not all").unwrap();
        visitor.read_exact(&mut [0; 7]).unwrap();
        visitor
    };
    let next = || ended.recv_timeout(PATIENCE).unwrap();
    let visitor = visit();
    visitor.sock.shutdown(Shutdown::Write).unwrap();
    let end = next();
    assert!(end.as_ref().is_err_and(is_reset), "{end:?}");
    let mut visitor = visit();
    visitor.conn.send_close_notify();
    visitor.flush().unwrap();
    assert_eq!(next().unwrap(), 0);
}

#[test]
fn a_tls_endpoint_is_terminated_with_the_agents_certificate() {
    let (edge, upstream, dir) = (Edge::start(), Upstream::echo(), TempDir::new());
    let authority = Authority::new();
    let (certificate, key) = authority.pair(&["own.localhost"]);
    let files = [dir.write("own.pem", certificate), dir.write("own.key", key)];
    let [crt, key] = files.map(|path| path.display().to_string());
    let address = upstream.addr.to_string();
    let flags =
        ["--url", "tls://own.localhost", "--terminate-at", "edge", "--crt", &crt, "--key", &key];
    let args = ["tls", &address].into_iter().chain(flags);
    let agent = agent(&edge.config, args).start();
    let ca = dir.write("ca.pem", authority.pem());
    let mut wire = certs::connect(edge.address_of(agent.url()), "own.localhost", &ca);
    wire.write("plain behind the edge").unwrap();
    assert_eq!(wire.read_exact(21).unwrap(), b"plain behind the edge");
}
