//! `culvert diagnose`: the way to the edge, layer by layer. Each fault is found at its layer and
//! has one line of advice.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rcgen::{SerialNumber, date_time_ymd};
use serde_json::{Value, json};

use crate::support::agent::{self, Builder};
use crate::support::certs::{self, Authority, local_params};
use crate::support::dns::FakeDns;
use crate::support::edge::Edge;
use crate::support::peer::{BadEdge, Session};
use crate::support::process::{Process, plant_secret};
use crate::support::proxy::Proxy;
use crate::support::upstream::{Upstream, nobody};
use crate::support::{skipped, until, until_within};

const NAME: &str = "edge.example";
/// Type of the call SrvInfo.
const SRV_INFO: u32 = 8;

/// Exit code and standard output of a diagnosis.
fn finished(diagnosis: Builder) -> (i32, String) {
    let mut process = diagnosis.spawn();
    let code = process.wait_exit().expect("an exit code");
    (code, process.stdout())
}

#[track_caller]
fn assert_has(text: &str, parts: &[&str]) {
    // Texts are wrapped.
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in parts {
        assert!(flat.contains(part), "{part:?} is missing:\n{text}");
    }
}

/// Returns the rows of the sections with their results.
fn rows(text: &str) -> Vec<(String, String)> {
    let rows = text.lines().filter_map(|line| line.strip_suffix(" ]")?.rsplit_once('['));
    rows.map(|(label, result)| (label.trim().to_owned(), result.trim().to_owned())).collect()
}

/// Asserts the rows of the edge's section.
#[track_caller]
fn assert_edge_rows(text: &str, expected: &[(&str, &str)]) {
    let (_, section) = text.split_once("Ngrok Connectivity - Region: ").expect("the section");
    let found = rows(section);
    let found: Vec<_> = found.iter().map(|(l, r)| (l.as_str(), r.as_str())).collect();
    assert_eq!(found, expected, "{text}");
}

/// Serves the sessions of an edge with a script, each on a thread of its own.
fn serve(edge: BadEdge, script: impl Fn(Session) + Send + Sync + 'static) -> ServedEdge {
    let served = ServedEdge { addr: edge.addr(), ca: edge.ca(), edge: Arc::new(edge) };
    let (edge, script) = (Arc::downgrade(&served.edge), Arc::new(script));
    thread::spawn(move || {
        // Until the test has dropped the edge.
        let next = || match edge.upgrade() {
            Some(edge) => edge.try_accept_tcp().map(|tcp| Some((edge, tcp))),
            None => Some(None),
        };
        while let Some((edge, tcp)) = until_within(Duration::MAX, "an agent connects", next) {
            let script = script.clone();
            thread::spawn(move || {
                // It fails with a peer that refuses the certificate.
                let session = edge.handshake(tcp);
                drop(edge);
                if let Ok(session) = session {
                    script(session);
                }
            });
        }
    });
    served
}

struct ServedEdge {
    addr: SocketAddr,
    /// The CA that is trusted.
    ca: std::path::PathBuf,
    edge: Arc<BadEdge>,
}

/// Answers every SrvInfo of a session.
fn informed(mut session: Session) {
    for _ in 0..2 {
        let (stream, _) = session.wait_call(SRV_INFO);
        session.answer(stream, &json!({"Region": "test"}));
    }
    let _ = session.wait_end();
}

impl ServedEdge {
    /// Returns a diagnosis with an address of the edge and further lines of the configuration.
    fn diagnosis(&self, url: &str, lines: &str) -> Builder {
        plant_secret("planted-authtoken-of-diagnose");
        let config = format!(
            "version: 3\nagent:\n  authtoken: planted-authtoken-of-diagnose\n  connect_url: {url}\n  \
             connect_cas: {}\n{lines}",
            self.ca.display()
        );
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = self.ca.with_file_name(format!("diagnose-{n}.yml"));
        std::fs::write(&path, config).unwrap();
        agent::agent(&path, ["diagnose"])
    }
}

/// Returns an edge whose certificate is for [`NAME`], and which answers SrvInfo.
fn good_edge() -> ServedEdge {
    let authority = Authority::new();
    let server = authority.server(&[NAME]);
    serve(BadEdge::with(&authority, server), informed)
}

#[test]
fn an_edge_that_works_is_reported_with_its_latency_beside_a_running_agent() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let running = agent::http(&edge, upstream.port());
    let (code, text) = finished(agent::agent(&edge.config, ["diagnose"]));
    let expected = "\
Testing ngrok connectivity...

Local Network
  Link                                      [ OK ]
  Address                                   [ OK ]
  Clock                                     [ OK ]
  MTU                                       [ OK ]
Localhost Connectivity
  Name Resolution                           [ OK ]
Ngrok Connectivity - Region: Auto (lowest latency)
  Name Resolution                           [ OK ]
  TCP                                       [ OK ]
  TLS                                       [ OK ]
  Tunnel Protocol                           [ OK ]
Successfully established ngrok connection! (region: 'auto', latency: ";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.trim_end().ends_with("s)"), "{text}");
    assert_eq!((code, text.lines().count()), (0, 15), "{text}");
    assert_eq!(running.visit(&edge).get("/").status(), 200);
}

#[test]
fn each_resolver_is_queried_and_a_lone_answer_is_a_warning() {
    let edge = good_edge();
    let good = FakeDns::start(|asked| vec![asked.addresses(&["127.0.0.1"])]);
    let bad = FakeDns::start(|asked| vec![asked.code(3)]);
    let url = format!("{NAME}:{}", edge.addr.port());
    let lines = format!(
        "  dns_resolver_ips: [\"{}\", \"{}\"]\n  dns_public_resolvers: false\n",
        good.addr, bad.addr
    );
    let (code, text) = finished(edge.diagnosis(&url, &lines));
    assert_eq!(code, 0, "{text}");
    assert_edge_rows(
        &text,
        &[("Name Resolution", "WARN"), ("TCP", "OK"), ("TLS", "OK"), ("Tunnel Protocol", "OK")],
    );
    let expected = format!(
        "\
\nWarnings and non-fatal errors encountered during diagnostics:

* Diagnostics
  * Name Resolution
    * Resolver: {}
      * Hostname: {NAME}
        - Warn: {0} was the only resolver to return 127.0.0.1 for",
        good.addr
    );
    assert!(text.contains(&expected), "{expected}\n{text}");
    assert_has(
        &text,
        &[
            "may be returning incorrect results. (ERR_NGROK_8010)",
            &format!("* Resolver: {} * Hostname: {NAME}", bad.addr),
            "Failed to resolve host edge.example: no such name",
            "(ERR_NGROK_8000)",
        ],
    );

    let lines = format!("  dns_resolver_ips: [\"{}\"]\n  dns_public_resolvers: false\n", bad.addr);
    let (code, text) = finished(edge.diagnosis(&url, &lines));
    assert_eq!(code, 1);
    assert_edge_rows(&text, &[("Name Resolution", "ERROR")]);
    assert_has(
        &text,
        &["Errors and warnings encountered during diagnostics:", "Try: check /etc/resolv.conf"],
    );
    let last = text.lines().last().unwrap();
    let expected = "Error establishing ngrok connection: Failed to resolve host edge.example: no \
                    such name";
    assert!(last.starts_with(expected), "{text}");
}

#[test]
fn an_address_that_works_is_enough_and_the_others_are_named() {
    let edge = good_edge();
    // Nothing listens at the second address.
    let dns = FakeDns::start(|asked| vec![asked.addresses(&["127.0.0.1", "127.0.0.9", "::1"])]);
    let url = format!("{NAME}:{}", edge.addr.port());
    let lines = format!("  dns_resolver_ips: [\"{}\"]\n  dns_public_resolvers: false\n", dns.addr);
    let (code, text) = finished(edge.diagnosis(&url, &lines));
    assert_eq!(code, 0, "{text}");
    assert_edge_rows(
        &text,
        &[("Name Resolution", "OK"), ("TCP", "WARN"), ("TLS", "OK"), ("Tunnel Protocol", "OK")],
    );
    let port = edge.addr.port();
    assert_has(
        &text,
        &[&format!("* {NAME} (127.0.0.9:{port})"), "onnection refused", "(ERR_NGROK_8002)"],
    );
    assert!(!text.contains("[::1]"), "{text}");
    let (code, text) = finished(edge.diagnosis(&url, &lines).arg("--ipv6").arg("true"));
    assert_eq!(code, 0, "{text}");
    assert_has(
        &text,
        &[
            &format!("* {NAME} ([::1]:{port})"),
            "IPV6 errors encountered - it may be disabled. (ERR_NGROK_8011)",
        ],
    );
}

#[test]
fn a_port_without_a_server_is_an_error_of_tcp() {
    let edge = good_edge();
    let address = nobody().to_string();
    let (code, text) = finished(edge.diagnosis(&address, ""));
    assert_eq!(code, 1);
    assert_edge_rows(&text, &[("Name Resolution", "OK"), ("TCP", "ERROR")]);
    assert_has(
        &text,
        &[
            "* Connectivity - Err: No tunnel servers were reachable via TCP. (ERR_NGROK_8007)",
            &format!("* 127.0.0.1 ({address}) - Err: Failed to establish TCP connection to"),
            "Try: check the port in connect_url",
            "Error establishing ngrok connection: No tunnel servers were reachable via TCP.",
        ],
    );
}

/// Runs a diagnosis of an edge with a certificate that is refused.
fn refused_certificate(trusted: &Authority, edge: BadEdge) -> String {
    let ca = edge.dir().write("trusted.pem", trusted.pem());
    let edge = ServedEdge { ca, ..serve(edge, informed) };
    let dns = FakeDns::start(|asked| vec![asked.addresses(&["127.0.0.1"])]);
    let url = format!("{NAME}:{}", edge.addr.port());
    let lines = format!("  dns_resolver_ips: [\"{}\"]\n  dns_public_resolvers: false\n", dns.addr);
    let (code, text) = finished(edge.diagnosis(&url, &lines));
    assert_eq!(code, 1, "{text}");
    assert_edge_rows(&text, &[("Name Resolution", "OK"), ("TCP", "OK"), ("TLS", "ERROR")]);
    assert_has(
        &text,
        &[
            "No tunnel servers could establish a TLS connection. (ERR_NGROK_8008)",
            "Possible Man-in-the Middle. (ERR_NGROK_8003)",
        ],
    );
    text
}

#[test]
fn a_certificate_that_is_not_the_right_one_is_named() {
    let (ours, other) = (Authority::new(), Authority::new());
    // Of an intercepting proxy.
    let text = refused_certificate(&ours, BadEdge::with(&other, other.server(&[NAME])));
    assert_has(
        &text,
        &[
            "the received certificate is for edge.example, by 'authority",
            "intercepts TLS: exempt edge.example from it, or trust it with connect_cas",
        ],
    );
    // Of another server.
    let text = refused_certificate(&ours, BadEdge::with(&ours, ours.server(&["portal.example"])));
    assert_has(
        &text,
        &[
            "is for another name",
            "the received certificate is for portal.example, by 'authority",
            "Try: DNS or a login page leads to another server than edge.example",
        ],
    );
    // For a clock that is wrong.
    for (from, to, cause) in [(2100, 2101, "is not valid yet"), (2020, 2021, "has expired")] {
        let mut params = certs::params(&[NAME]);
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let text = refused_certificate(&ours, BadEdge::with(&ours, ours.server_with(params)));
        assert_has(&text, &[cause, "Try: set this machine's clock (date -s, or NTP)"]);
    }
}

#[test]
fn a_login_page_in_place_of_the_edge_is_named() {
    let edge = good_edge();
    let page = Proxy::saying(b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n");
    let (code, text) = finished(edge.diagnosis(&page.addr.to_string(), ""));
    assert_eq!(code, 1);
    assert_edge_rows(&text, &[("Name Resolution", "OK"), ("TCP", "OK"), ("TLS", "ERROR")]);
    assert_has(&text, &["it sent 'HTTP/1.1 302 Found", "Try: a login page answers: open"]);
}

/// Starts a path to an edge that loses pieces of more than `limit` bytes unless both sides send
/// small segments, as a router does that drops large packets.
fn path_without_large_segments(edge: SocketAddr, limit: usize) -> SocketAddr {
    path(TcpListener::bind("127.0.0.1:0").unwrap(), edge, limit)
}

fn path(listener: TcpListener, edge: SocketAddr, limit: usize) -> SocketAddr {
    const SMALL_SEGMENT_BYTES: u32 = 600;
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for agent in listener.incoming().flatten() {
            let edge = TcpStream::connect(edge).unwrap();
            let is_small = socket2::SockRef::from(&agent).tcp_mss().unwrap() <= SMALL_SEGMENT_BYTES;
            for (from, to) in [
                (agent.try_clone().unwrap(), edge.try_clone().unwrap()),
                (edge.try_clone().unwrap(), agent.try_clone().unwrap()),
            ] {
                thread::spawn(move || carry(from, to, if is_small { usize::MAX } else { limit }));
            }
        }
    });
    addr
}

/// Carries bytes up to the first large piece.
fn carry(mut from: TcpStream, mut to: TcpStream, limit: usize) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(n) = from.read(&mut buffer)
        && n > 0
    {
        if n > limit {
            let _ = from.read_to_end(&mut Vec::new());
            return;
        }
        if to.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[test]
fn a_path_that_loses_large_packets_is_found_by_small_ones() {
    let authority = Authority::new();
    let edge = serve(BadEdge::with(&authority, authority.server_with_chain_of(2_000)), informed);
    let path = path_without_large_segments(edge.addr, 600);
    let (code, text) = finished(edge.diagnosis(&path.to_string(), ""));
    assert_eq!(code, 1);
    assert_edge_rows(&text, &[("Name Resolution", "OK"), ("TCP", "OK"), ("TLS", "ERROR")]);
    assert_has(
        &text,
        &[
            "no answer in time; it succeeds with small packets.",
            "Try: large packets are lost: lower the MTU (ip link set dev lo mtu 1280)",
        ],
    );
}

#[test]
fn large_requests_that_are_lost_are_an_error_of_the_tunnel_protocol() {
    // Its handshake fits into small segments.
    let edge = serve(BadEdge::new(), informed);
    let path = path_without_large_segments(edge.addr, 2_000);
    let (code, text) = finished(edge.diagnosis(&path.to_string(), ""));
    assert_eq!(code, 1);
    assert_edge_rows(
        &text,
        &[("Name Resolution", "OK"), ("TCP", "OK"), ("TLS", "OK"), ("Tunnel Protocol", "ERROR")],
    );
    assert_has(
        &text,
        &[
            "No tunnel servers could establish a tunnel connection. (ERR_NGROK_8009)",
            "a request of 4096 bytes had no response, a small one had; it succeeds with small \
             packets (ERR_NGROK_8004)",
            "Try: large packets are lost",
        ],
    );
    // An edge that does not answer a second call.
    let edge = serve(BadEdge::new(), |mut session| {
        let (stream, _) = session.wait_call(SRV_INFO);
        session.answer(stream, &json!({"Region": "test"}));
        let _ = session.wait_end();
    });
    let (code, text) = finished(edge.diagnosis(&edge.addr.to_string(), ""));
    assert_eq!(code, 0, "{text}");
    assert_has(&text, &["Tunnel Protocol [ WARN ]", "had no response, a small one had"]);
}

#[test]
fn a_server_that_is_no_edge_is_an_error_of_the_tunnel_protocol() {
    let edge = serve(BadEdge::new(), drop);
    let (code, text) = finished(edge.diagnosis(&edge.addr.to_string(), ""));
    assert_eq!(code, 1);
    assert_has(
        &text,
        &[
            "Failed to establish tunnel protocol connection to",
            "(ERR_NGROK_8004)",
            "Try: check that connect_url names the edge's port for agents",
        ],
    );
}

/// Starts a web server with one response. Returns its URL.
fn web_server(head: &'static str, body: Vec<u8>) -> String {
    let page = Proxy::scripted(move |mut tcp| {
        let mut buffer = [0; 2_000];
        if tcp.read(&mut buffer).is_ok_and(|n| n > 0) {
            let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
            let _ = tcp.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    format!("http://{}/ngrok.crl", page.addr)
}

#[test]
fn the_list_of_revoked_certificates_shows_login_pages_and_clocks() {
    let authority = Authority::new();
    let mut params = local_params();
    params.serial_number = Some(SerialNumber::from(77u64));
    let edge = serve(BadEdge::with(&authority, authority.server_with(params)), informed);
    let run = |url: &str| {
        let lines = format!("  crl_url: {url}\n");
        finished(edge.diagnosis(&edge.addr.to_string(), &lines))
    };
    let good = authority.revoked(&[5], 2200);

    let (code, text) = run(&web_server("HTTP/1.1 200 OK\r\n", good.clone()));
    assert_eq!((code, text.contains("WARN")), (0, false), "{text}");

    let (code, text) = run(&web_server(
        "HTTP/1.1 302 Found\r\nLocation: http://portal.example/in\r\n",
        Vec::new(),
    ));
    assert_eq!(code, 0, "{text}");
    assert_has(
        &text,
        &[
            "TLS [ WARN ]",
            "the list of revoked certificates is redirected to portal.example",
            "Try: a login page answers: open http://portal.example/in in a browser",
        ],
    );

    let via = web_server("HTTP/1.1 200 OK\r\nVia: 1.1 cache.example\r\n", b"rubbish".to_vec());
    let (code, text) = run(&via);
    assert_eq!(code, 0, "{text}");
    assert_has(&text, &["TLS [ WARN ]", "the proxy '1.1 cache.example' intercepts HTTP"]);

    let old = "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
    let (code, text) = run(&web_server(old, good));
    assert_eq!(code, 0, "{text}");
    assert_has(
        &text,
        &[
            "Clock [ WARN ]",
            "Thu, 01 Jan 2026 00:00:00 GMT there",
            "Try: set this machine's clock (date -s, or NTP)",
        ],
    );

    let (code, text) = run(&web_server("HTTP/1.1 200 OK\r\n", authority.revoked(&[77], 2200)));
    assert_eq!(code, 1, "{text}");
    assert_has(&text, &["TLS [ ERROR ]", "was revoked by its CA", "(ERR_NGROK_8003)"]);
}

#[test]
fn a_proxy_has_a_section_of_its_own() {
    let edge = good_edge();
    let url = edge.addr.to_string();
    plant_secret("planted-proxy-password");
    let proxy = Proxy::http(edge.addr, Some("dXNlcjpwbGFudGVkLXByb3h5LXBhc3N3b3Jk"));
    let lines =
        |addr: SocketAddr| format!("  proxy_url: http://user:planted-proxy-password@{addr}\n");
    let (code, text) = finished(edge.diagnosis(&url, &lines(proxy.addr)));
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains(
            "Proxy Connectivity\n  Name Resolution                           [ OK ]\n  \
             TCP                                       [ OK ]\nLocalhost"
        ),
        "{text}"
    );
    assert_edge_rows(&text, &[("TCP", "OK"), ("TLS", "OK"), ("Tunnel Protocol", "OK")]);

    let (code, text) = finished(edge.diagnosis(&url, &lines(nobody())));
    assert_eq!(code, 1, "{text}");
    assert_has(
        &text,
        &["Failed to connect to proxy http://", "(ERR_NGROK_8006)", "Try: check proxy_url"],
    );
}

#[test]
fn the_report_is_json_without_secrets_for_its_user_only() {
    let edge = good_edge();
    let file = edge.ca.with_file_name("report.json");
    let builder = edge.diagnosis(&edge.addr.to_string(), "  proxy_url: ''\n");
    let (code, text) = finished(builder.arg("-w").arg(file.to_str().unwrap()));
    assert_eq!(code, 0, "{text}");
    assert!(text.ends_with(&format!("\n\nReport written to {}", file.display())), "{text}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(!written.contains("planted-"), "{written}");
    let report: Value = serde_json::from_str(&written).unwrap();
    assert_eq!((&report["version"], &report["result"]), (&json!(1), &json!("ok")));
    assert_eq!(report["agent"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["config"]["authtoken"], true);
    assert_eq!(report["config"]["connect_url"], json!([edge.addr.to_string()]));
    assert_eq!(report["certificates"][0]["names"], json!([NAME]));
    assert_eq!(report["certificates"][0]["sha256"].as_str().map(str::len), Some(64));
    let checks = report["checks"].as_array().unwrap();
    let tunnel = checks.iter().find(|check| check["check"] == "Tunnel Protocol").unwrap();
    assert_eq!(tunnel["result"], "ok");
    assert_eq!(tunnel["address"], edge.addr.to_string());
    assert!(tunnel["err"].as_str().unwrap().starts_with("latency "), "{tunnel}");

    let builder = edge.diagnosis(&nobody().to_string(), "");
    let (code, text) = finished(builder.arg("--write-report=-"));
    let report: Value = serde_json::from_str(&text).expect("only JSON");
    assert_eq!((code, &report["result"]), (1, &json!("error")));
    assert_eq!(
        report["summary"],
        "Error establishing ngrok connection: No tunnel servers were reachable via TCP."
    );

    // Without a configuration file.
    let output = Command::new(env!("CARGO_BIN_EXE_culvert"))
        .args(["diagnose", "-w", "-", "--connect-url", &edge.addr.to_string(), "--connect-cas"])
        .arg(&edge.ca)
        .env("HOME", "/nonexistent")
        .env_remove("XDG_CONFIG_HOME")
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).expect("only JSON");
    assert_eq!((&report["config"]["version"], &report["result"]), (&json!(null), &json!("ok")));

    let mut process =
        edge.diagnosis(&edge.addr.to_string(), "").arg("-w").arg("/nonexistent/x").spawn();
    assert_eq!(process.wait_exit(), Some(1));
    assert!(process.stderr().contains("cannot write the report /nonexistent/x"));
}

#[test]
fn a_wrong_command_line_or_configuration_connects_to_nothing() {
    let edge = good_edge();
    let url = edge.addr.to_string();
    for (flag, code, expected) in [
        ("--region=eu", 2, "--region eu is for the vendor's edge, and connect_url is 127.0.0.1:"),
        ("--region=moon", 2, "--region must be one of auto, us,"),
        ("now", 2, "takes no argument"),
    ] {
        let mut process = edge.diagnosis(&url, "").arg(flag).spawn();
        assert_eq!(process.wait_exit(), Some(code), "{}", process.report());
        assert!(process.stderr().contains(expected), "{flag}: {}", process.report());
        assert_eq!(process.stdout(), "");
    }
    let mut process = edge.diagnosis("'[bad'", "").spawn();
    assert_eq!(process.wait_exit(), Some(1), "{}", process.report());
}

#[test]
fn an_interrupt_ends_a_probe_that_waits() {
    let edge = good_edge();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut process: Process =
        edge.diagnosis(&silent.local_addr().unwrap().to_string(), "").spawn();
    let (held, _) = silent.accept().unwrap();
    process.signal("INT");
    let status = until("the end", || process.ended());
    assert_eq!(status.signal(), Some(2), "{}", process.report());
    drop(held);
}

/// Variable of a test that runs in a network of its own.
const IN_NETWORK: &str = "CULVERT_TEST_IN_NETWORK";

/// Network with a default route into nothing, and public addresses of this machine.
const NETWORK: &str = "
    set -e
    trap 'exit 77' EXIT
    ip link set lo up
    ip link add up0 type veth peer name far0
    ip link set far0 up
    ip link set up0 up
    ip addr add 198.51.100.2/24 dev up0
    ip route add default via 198.51.100.1
    for address in 203.0.113.1 203.0.113.2 203.0.113.3; do
        ip addr add $address/32 dev lo
    done
    # The kernel reports a carrier up to a second later.
    until ip -o link show up0 | grep -q 'state UP'; do sleep 0.05; done
    trap - EXIT
    exec \"$@\"";

/// Runs a test again in a network of its own. Returns whether this is that run.
fn in_network(test: &str) -> bool {
    if std::env::var_os(IN_NETWORK).is_some() {
        return true;
    }
    let output = Command::new("unshare")
        .args(["-rn", "sh", "-c", NETWORK, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("diagnose_command::{test}"), "--nocapture"])
        .env(IN_NETWORK, "1")
        .output();
    let output = match output {
        Ok(output) if output.status.code() != Some(77) => output,
        other => {
            let why = other.map(|o| String::from_utf8_lossy(&o.stderr).into_owned());
            skipped(&format!("a network namespace cannot be made: {why:?}"));
            return false;
        }
    };
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains("1 passed"), "{shown}");
    false
}

/// Without `connect_url` the service and a well-known host are tested. Both are stand-ins.
#[test]
fn the_service_is_tested_with_the_internet() {
    if !in_network("the_service_is_tested_with_the_internet") {
        return;
    }
    let authority = Authority::new();
    let web = serve(BadEdge::with(&authority, authority.server(&["google.com"])), drop);
    let service = authority.server(&["connect.ngrok-agent.com"]);
    let edge = serve(BadEdge::with(&authority, service), informed);
    for (last, to) in [(1, web.addr), (2, edge.addr)] {
        let public = SocketAddr::from(([203, 0, 113, last], 443));
        path(TcpListener::bind(public).unwrap(), to, usize::MAX);
    }
    let dns = FakeDns::start(|asked| match asked.name.as_str() {
        "google.com" => vec![asked.addresses(&["203.0.113.1"])],
        "connect.ngrok-agent.com" => vec![asked.addresses(&["203.0.113.2"])],
        "connect.eu.ngrok-agent.com" => vec![asked.addresses(&["203.0.113.3"])],
        _ => vec![asked.code(3)],
    });
    let filter = FakeDns::start(|asked| vec![asked.addresses(&["127.0.0.66"])]);
    let broken = FakeDns::start(|asked| vec![asked.code(3)]);
    let run = |resolvers: &[&FakeDns], args: &[&str]| {
        let list: Vec<_> = resolvers.iter().map(|dns| format!("\"{}\"", dns.addr)).collect();
        let lines =
            format!("  dns_resolver_ips: [{}]\n  dns_public_resolvers: false\n", list.join(", "));
        let mut builder = edge.diagnosis("connect.ngrok-agent.com:443", &lines);
        builder = args.iter().fold(builder, |builder, arg| builder.arg(arg));
        finished(builder.env("SSL_CERT_FILE", &edge.ca))
    };

    let (code, text) = run(&[&dns], &[]);
    let expected = "\
Testing ngrok connectivity...

Local Network
  Link                                      [ OK ]
  Address                                   [ OK ]
  Clock                                     [ OK ]
  MTU                                       [ OK ]
Internet Connectivity
  Name Resolution                           [ OK ]
  TCP                                       [ OK ]
  TLS                                       [ OK ]
Localhost Connectivity
  Name Resolution                           [ OK ]
Ngrok Connectivity - Region: Auto (lowest latency)
  Name Resolution                           [ OK ]
  TCP                                       [ OK ]
  TLS                                       [ OK ]
  Tunnel Protocol                           [ OK ]
Successfully established ngrok connection! (region: 'auto', latency: ";
    assert!(text.starts_with(expected), "{text}");
    assert_eq!((code, text.lines().count()), (0, 19), "{text}");

    let (code, text) = run(&[&dns, &filter], &[]);
    assert_eq!(code, 0, "{text}");
    assert_has(
        &text,
        &[
            "returned a private address for the hostname connect.ngrok-agent.com: 127.0.0.66",
            "Try: the resolver filters names or shows a login page: set dns_resolver_ips",
        ],
    );

    let (code, text) = run(&[&dns], &["--region", "eu"]);
    assert_eq!(code, 1, "{text}");
    assert_has(
        &text,
        &["Ngrok Connectivity - Region: eu", "* connect.eu.ngrok-agent.com (203.0.113.3:443)"],
    );

    let (code, text) = run(&[&broken], &[]);
    assert_eq!(code, 1, "{text}");
    assert_edge_rows(&text, &[("Name Resolution", "ERROR")]);
    assert_has(&text, &["Failed to establish internet connectivity: resolver returned no IPs."]);
}

#[test]
fn a_machine_without_a_link_is_named() {
    if !in_network("a_machine_without_a_link_is_named") {
        return;
    }
    let ip = |words: &str| {
        let done = Command::new("ip").args(words.split(' ')).status().unwrap();
        assert!(done.success(), "ip {words}");
    };
    let edge = good_edge();
    let run = || finished(edge.diagnosis("203.0.113.3:4443", ""));
    ip("link set up0 mtu 1000");
    let (_, text) = run();
    assert_has(&text, &["MTU [ WARN ]", "the MTU of up0 is 1000, less than 1280"]);
    ip("route del default");
    let (_, text) = run();
    assert_has(
        &text,
        &["Link [ WARN ]", "the default route is missing", "Try: check the DHCP client"],
    );
    ip("addr flush dev up0");
    ip("addr add 169.254.7.7/16 dev up0");
    let (_, text) = run();
    assert_has(&text, &["Address [ WARN ]", "the network gave no address, only", "169.254.7.7"]);
    ip("link set up0 down");
    let (code, text) = run();
    assert_eq!(code, 1);
    assert_has(
        &text,
        &["Link [ ERROR ]", "no network interface is up with a carrier", "Try: check cable, Wi-Fi"],
    );
    ip("link set lo down");
    let (_, text) = run();
    assert_has(&text, &["127.0.0.1 does not answer", "Try: ip link set dev lo up"]);
}
