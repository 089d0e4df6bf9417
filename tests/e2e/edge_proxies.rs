//! Proxies in front of the edge: what it takes from a trusted one, and from no other peer.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use crate::support::agent::{self, Agent};
use crate::support::certs;
use crate::support::process::{Process, plant_secret};
use crate::support::serve::{LISTENERS, Serve, serve as command};
use crate::support::upstream::Upstream;
use crate::support::wire::Wire;
use crate::support::{TempDir, is_reset};

/// The trusted proxy.
const PROXY: &str = "127.0.0.2:0";
/// Another peer.
const DIRECT: &str = "127.0.0.3:0";

const TOKEN: &str = "proxies_token";

/// All listeners get PROXY headers.
const HEADERS: &str = "proxy_protocol: [http, https, tcp]\n";

/// An edge that trusts [`PROXY`], with more lines of configuration.
fn serve(more: &str) -> Serve {
    plant_secret(TOKEN);
    Serve::start(&format!(
        "credentials: [{{id: a, authtoken: {TOKEN}}}]\ntrusted_proxies: [127.0.0.2/32]\n{more}"
    ))
}

/// An agent with an endpoint. Its upstream gets a PROXY header of version 1 with the address
/// that the edge takes for the client's.
fn start(edge: &Serve, url: &str, upstream: &Upstream) -> Agent {
    let path = edge.config("agent.yml", TOKEN);
    let text = std::fs::read_to_string(&path).unwrap();
    let endpoint = format!(
        "endpoints: [{{name: e, url: '{url}', upstream: {{url: '{}', proxy_protocol: 1}}}}]\n",
        upstream.port()
    );
    std::fs::write(&path, format!("{text}{endpoint}")).unwrap();
    agent::agent(&path, ["start", "e"]).start()
}

/// An upstream that sends back everything up to an empty line, in a response.
fn mirror() -> Upstream {
    Upstream::tcp(|mut wire| {
        while let Ok(head) = wire.read_until(b"\r\n\r\n") {
            if wire.respond("200 OK", "", &head).is_err() {
                return;
            }
        }
    })
}

/// Connects from an address of this machine.
fn connect(from: &str, to: SocketAddr) -> Wire {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&from.parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&to.into()).unwrap();
    Wire::new(socket.into())
}

/// A request with more fields, and the status and what the upstream got.
#[track_caller]
fn request(wire: &mut Wire, fields: &str) -> (u16, String) {
    wire.write(format!("GET / HTTP/1.1\r\nHost: p.tunnels.test\r\n{fields}\r\n")).unwrap();
    let response = wire.read_response("GET").unwrap();
    (response.status(), response.text().to_lowercase())
}

#[track_caller]
fn assert_has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.starts_with(line) || text.contains(&format!("\r\n{line}")), "{line}: {text}");
    }
}

#[test]
fn a_trusted_proxy_names_the_client_and_its_scheme() {
    let (edge, upstream) = (serve(""), mirror());
    let _agent = start(&edge, "http://p.tunnels.test", &upstream);
    let claims = "X-Forwarded-For: 203.0.113.9, 192.0.2.1, 127.0.0.2\r\nX-Real-IP: 192.0.2.1\r\n\
                  X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n\
                  Forwarded: for=192.0.2.1\r\n";
    let mut proxy = connect(PROXY, edge.address("http_addr"));
    let (_, got) = request(&mut proxy, claims);
    assert_has(
        &got,
        &[
            "proxy tcp4 192.0.2.1 127.0.0.1 0 ",
            "x-forwarded-for: 203.0.113.9, 192.0.2.1, 127.0.0.2, 127.0.0.2\r\n",
            "x-forwarded-proto: https\r\n",
            "x-forwarded-host: shop.example\r\n",
            "x-real-ip: 192.0.2.1\r\n",
            "forwarded: for=192.0.2.1, for=127.0.0.2\r\n",
        ],
    );
    assert_eq!(got.matches("forwarded-proto").count(), 1, "{got}");
    // A proxy sends requests of several clients on one connection.
    let (_, got) = request(&mut proxy, "X-Forwarded-For: 192.0.2.2:4000\r\n");
    let expected = ["proxy tcp4 192.0.2.2 127.0.0.1 4000 ", "x-real-ip: 192.0.2.2\r\n"];
    assert_has(&got, &expected);
    let (_, got) = request(&mut proxy, "X-Forwarded-For: 192.0.2.2:4000\r\n");
    assert!(got.starts_with("get / "), "another stream for the same client: {got}");
}

#[test]
fn no_other_peer_names_a_client_or_a_scheme() {
    let (edge, upstream) = (serve(""), mirror());
    let _agent = start(&edge, "http://p.tunnels.test", &upstream);
    let claims = "X-Forwarded-For: 192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\nx_forwarded_proto: https\r\n\
                  X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n\
                  X-Forwarded-Ssl: on\r\nForwarded: for=192.0.2.1;proto=https\r\n";
    let (_, got) = request(&mut connect(DIRECT, edge.address("http_addr")), claims);
    let own = [
        "proxy tcp4 127.0.0.3 ",
        "x-forwarded-for: 127.0.0.3\r\n",
        "x-forwarded-proto: http\r\n",
        "x-forwarded-host: p.tunnels.test\r\n",
        "x-real-ip: 127.0.0.3\r\n",
    ];
    assert_has(&got, &own);
    for claim in ["192.0.2.1", "https", "shop.example", "ssl", "\r\nforwarded"] {
        assert!(!got.contains(claim), "{claim}: {got}");
    }
}

#[test]
fn an_ip_restriction_counts_the_client_of_a_trusted_proxy() {
    let (edge, upstream) = (serve(""), Upstream::hello());
    let path = edge.config("agent.yml", TOKEN);
    let args = ["http", &upstream.port().to_string(), "--url", "http://p.tunnels.test"];
    let _agent = agent::agent(&path, args).arg("--cidr-allow=192.0.2.0/24").start();
    for (from, client, status) in [
        (PROXY, "192.0.2.7", 200),
        (PROXY, "198.51.100.1", 403),
        (PROXY, "192.0.2.7, 198.51.100.1", 403),
        (DIRECT, "192.0.2.7", 403),
    ] {
        let mut wire = connect(from, edge.address("http_addr"));
        let (got, _) = request(&mut wire, &format!("X-Forwarded-For: {client}\r\n"));
        assert_eq!(got, status, "{client} by {from}");
    }
}

/// Both versions, as a proxy sends them.
fn headers(source: &str, destination: &str) -> [Vec<u8>; 2] {
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    [1, 2].map(|v| culvert::proto::proxy_protocol::encode(v, source, destination))
}

const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

#[test]
fn a_proxy_header_names_the_client_on_the_http_port() {
    let (edge, upstream) = (serve(HEADERS), mirror());
    let _agent = start(&edge, "http://p.tunnels.test", &upstream);
    for header in headers("192.0.2.1:4000", "198.51.100.7:80") {
        let mut wire = connect(PROXY, edge.address("http_addr"));
        // The header alone, and then its visitor, which is not trusted.
        wire.write(&header).unwrap();
        let (_, got) = request(&mut wire, "X-Forwarded-For: 203.0.113.9\r\n");
        let expected =
            ["proxy tcp4 192.0.2.1 198.51.100.7 4000 80\r\n", "x-forwarded-for: 192.0.2.1\r\n"];
        assert_has(&got, &expected);
    }
    // Without an address, such as a health check: the proxy's own, and no claim counts.
    for header in [LOCAL, b"PROXY UNKNOWN\r\n"] {
        let mut wire = connect(PROXY, edge.address("http_addr"));
        wire.write(
            [header, b"GET / HTTP/1.1\r\nHost: p.tunnels.test\r\nX-Forwarded-Proto: https\r\n\r\n"]
                .concat(),
        )
        .unwrap();
        let got = wire.read_response("GET").unwrap().text().to_lowercase();
        assert_has(&got, &["proxy tcp4 127.0.0.2 ", "x-forwarded-proto: http\r\n"]);
    }
}

/// A chain: a proxy that sends HTTP, in front of one that adds a PROXY header.
#[test]
fn the_source_of_a_proxy_header_may_be_a_trusted_proxy() {
    let (edge, upstream) = (serve(HEADERS), mirror());
    let _agent = start(&edge, "http://p.tunnels.test", &upstream);
    let mut wire = connect(PROXY, edge.address("http_addr"));
    wire.write(&headers("127.0.0.2:9", "127.0.0.1:80")[1]).unwrap();
    let (_, got) = request(&mut wire, "X-Forwarded-For: 192.0.2.1\r\n");
    assert_has(&got, &["proxy tcp4 192.0.2.1 ", "x-forwarded-for: 192.0.2.1, 127.0.0.2\r\n"]);
}

#[test]
fn a_proxy_header_stands_before_tls() {
    let (edge, upstream) = (serve(HEADERS), mirror());
    let _agent = start(&edge, "https://p.tunnels.test", &upstream);
    for header in headers("[2001:db8::1]:4000", "[2001:db8::2]:443") {
        let mut wire = connect(PROXY, edge.address("https_addr"));
        wire.write(&header).unwrap();
        let tcp = wire.tcp().try_clone().unwrap();
        let (_, got) = request(&mut certs::over(tcp, "p.tunnels.test", &edge.ca()), "");
        let expected = ["proxy tcp6 2001:db8::1 2001:db8::2 4000 443\r\n"];
        assert_has(
            &got,
            &[expected[0], "x-forwarded-proto: https\r\n", "x-real-ip: 2001:db8::1\r\n"],
        );
    }
}

#[test]
fn a_proxy_header_names_the_visitor_of_a_tcp_endpoint() {
    let (edge, upstream) = (serve(HEADERS), mirror());
    let agent = start(&edge, "tcp://", &upstream);
    let port = agent.url().rsplit(':').next().unwrap().parse().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    for header in headers("192.0.2.1:4000", "198.51.100.7:22") {
        let mut wire = connect(PROXY, address);
        wire.write([&header[..], b"ssh\r\n\r\n"].concat()).unwrap();
        let got = wire.read_response("GET").unwrap().text();
        assert_eq!(got, "PROXY TCP4 192.0.2.1 198.51.100.7 4000 22\r\nssh\r\n\r\n");
    }
    // The header of another peer is not one.
    let mut wire = connect(DIRECT, address);
    wire.write([&headers("192.0.2.1:4000", "198.51.100.7:22")[0][..], b"\r\n"].concat()).unwrap();
    let got = wire.read_response("GET").unwrap().text();
    let (own, claim) = got.split_once("\r\n").unwrap();
    assert!(own.starts_with("PROXY TCP4 127.0.0.3 "), "{got}");
    assert_eq!(claim, "PROXY TCP4 192.0.2.1 198.51.100.7 4000 22\r\n\r\n");
}

#[test]
fn an_invalid_proxy_header_ends_in_a_reset_and_few_log_lines() {
    let mut edge = serve(&format!("{HEADERS}limits: {{head_seconds: 1}}\n"));
    let upstream = mirror();
    let _agent = start(&edge, "http://p.tunnels.test", &upstream);
    let http = edge.address("http_addr");
    let end = |bytes: &[u8]| -> io::Result<Vec<u8>> {
        let mut wire = connect(PROXY, http);
        wire.write(bytes)?;
        wire.read_rest()
    };
    let long = [&LOCAL[..12], b"\x21\x11\xff\xff"].concat();
    let line = format!("PROXY TCP4 {}", "1".repeat(200));
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: p.tunnels.test\r\n\r\n"[..],
        b"PROXY TCP4 1.1.1.1 2.2.2.2 80 http\r\n",
        b"PROXY TCP4 1.1.1.1  2.2.2.2 80 80\r\n",
        line.as_bytes(),
        &long,
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0b0123456789a",
        // Incomplete until the time is over.
        b"PROXY TCP4 1.1",
        &LOCAL[..13],
    ] {
        let error = end(bytes).expect_err("an end that looks orderly");
        assert!(is_reset(&error), "{bytes:?}: {error}");
    }
    // Without a byte it is a check of the port, and ends in any way.
    assert_eq!(end(b"").unwrap_or_default(), b"");
    for _ in 0..30 {
        assert!(end(b"nonsense").is_err());
    }
    edge.process().wait_stderr("does not begin with a PROXY header");
    let lines = edge.process().count_stderr("invalid PROXY header");
    assert!((1..=10).contains(&lines), "{lines} lines");
    // For other peers these are ordinary bytes.
    let mut wire = connect(DIRECT, http);
    wire.write("PROXY TCP4 1.1.1.1 2.2.2.2 80 80\r\n\r\n").unwrap();
    assert_eq!(wire.read_response("GET").unwrap().status(), 400);
    assert_eq!(request(&mut connect(DIRECT, http), "").0, 200);
}

#[test]
fn an_invalid_list_of_proxies_is_named() {
    let dir = TempDir::new();
    for (more, named) in [
        ("trusted_proxies: [example.com]", "trusted_proxies: 'example.com'"),
        ("trusted_proxies: [10.0.0.0/40]", "trusted_proxies: '10.0.0.0/40'"),
        ("trusted_proxies: [10.0.0.1]\nproxy_protocol: [agent]", "proxy_protocol: 'agent'"),
        ("proxy_protocol: [http]", "proxy_protocol: trusted_proxies is missing"),
    ] {
        let credentials = "credentials: [{id: a, authtoken: b_c}]";
        let config = dir.write("edge.yml", format!("{LISTENERS}{credentials}\n{more}\n"));
        let mut process = Process::start("culvert-edge serve", &mut command(&config, &dir));
        assert_eq!(process.wait_exit(), Some(2), "{named}\n{}", process.report());
        assert!(process.stderr().contains(named), "{named}: {}", process.stderr());
    }
}
