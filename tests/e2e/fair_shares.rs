//! Fair places: a new client is served even if others hold all places of the edge or of an
//! agent. 127.0.0.1, 127.0.0.2 and 127.0.0.3 stand for different clients.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;

use socket2::{Domain, Socket, Type};

use crate::support::agent::{self, Agent};
use crate::support::process::plant_secret;
use crate::support::serve::Serve;
use crate::support::upstream::Upstream;
use crate::support::wire::Wire;
use crate::support::{is_reset, proc, wait_for};

const TOKEN: &str = "2planted0credential0number0one_0123456789ABCDEFGHIJK";
const HOST: &str = "shared.tunnels.test";

fn start(limits: &str) -> Serve {
    plant_secret(TOKEN);
    Serve::start(&format!(
        "credentials:\n  - {{id: one, authtoken: {TOKEN}}}\nlimits: {{{limits}}}\n"
    ))
}

fn http_agent(edge: &Serve, upstream: &Upstream) -> Agent {
    let config = edge.config("agent.yml", TOKEN);
    agent_of(&config, upstream)
}

fn http_agent_with(edge: &Serve, upstream: &Upstream, args: &[&str]) -> Agent {
    let config = edge.config("agent.yml", TOKEN);
    let (port, url) = (upstream.port().to_string(), format!("http://{HOST}"));
    agent::agent(&config, [&["http", &port, "--url", &url], args].concat()).start()
}

fn agent_of(config: &Path, upstream: &Upstream) -> Agent {
    let url = format!("http://{HOST}");
    agent::agent(config, ["http", &upstream.port().to_string(), "--url", &url]).start()
}

/// Connects from 127.0.0.`client`.
fn connect_from(client: u8, to: SocketAddr) -> Wire {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, client), 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    Wire::new(TcpStream::from(socket))
}

fn request(wire: &mut Wire) -> Option<u16> {
    wire.write(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).ok()?;
    wire.read_response("GET").ok().map(|response| response.status())
}

/// Connects from 127.0.0.`client` and makes a request. The connection stays open.
fn visit_from(client: u8, edge: &Serve) -> (Wire, Option<u16>) {
    let mut wire = connect_from(client, edge.address("http_addr"));
    let status = request(&mut wire);
    (wire, status)
}

/// Connects from 127.0.0.1 and sends a part of a body.
fn begin_upload(edge: &Serve) -> Wire {
    let mut wire = connect_from(1, edge.address("http_addr"));
    let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100\r\n\r\nx");
    wire.write(head).unwrap();
    wire
}

#[test]
fn idle_visitors_give_way_to_newcomers_of_any_address() {
    let (edge, upstream) = (start("visitors: 8"), Upstream::hello());
    let _agent = http_agent(&edge, &upstream);
    let mut kept: Vec<Wire> = Vec::new();
    for n in 0..40 {
        // The same address that holds all places, then another one.
        let (wire, status) = visit_from(if n < 20 { 1 } else { 2 }, &edge);
        assert_eq!(status, Some(200), "visitor {n}");
        kept.push(wire);
    }
    // Those that gave way are closed soon, and nothing was under way there. The others are served.
    let mut open = 0;
    wait_for("the end of those that gave way", || {
        open = kept.iter_mut().filter_map(request).filter(|status| *status == 200).count();
        open <= 8
    });
    assert!(open >= 1, "none is open");
}

#[test]
fn an_address_that_holds_every_place_gives_way_to_another_one() {
    let (edge, upstream) = (start("visitors: 8"), Upstream::hello());
    let _agent = http_agent(&edge, &upstream);
    let uploads: Vec<Wire> = (0..8).map(|_| begin_upload(&edge)).collect();
    wait_for("all uploads to arrive", || upstream.open() == 8);
    // Nothing is idle, and this address holds everything.
    let (_, status) = visit_from(1, &edge);
    assert_ne!(status, Some(200));
    // Where no page can be sent, the end is not an orderly one.
    let end = connect_from(1, edge.address("https_addr")).read_rest();
    assert!(end.as_ref().is_err_and(is_reset), "{end:?}");
    let (kept, statuses): (Vec<Wire>, Vec<_>) = (0..3).map(|_| visit_from(2, &edge)).unzip();
    assert_eq!(statuses, [Some(200); 3]);
    drop((kept, uploads));
}

#[test]
fn an_address_that_holds_every_thread_gives_way_to_another_one() {
    let (edge, upstream) = (start("threads: 8"), Upstream::hello());
    let _agent = http_agent(&edge, &upstream);
    // Waiting visitors need no thread.
    let idle: Vec<Wire> = (0..20)
        .map(|_| {
            let (wire, status) = visit_from(1, &edge);
            assert_eq!(status, Some(200));
            wire
        })
        .collect();
    wait_for("idle visitors to leave their threads", || proc::threads(edge.pid()) < 8);
    let uploads: Vec<Wire> = (0..8).map(|_| begin_upload(&edge)).collect();
    wait_for("all uploads to arrive", || upstream.accepted() >= 28);
    let (kept, statuses): (Vec<Wire>, Vec<_>) = (0..3).map(|_| visit_from(2, &edge)).unzip();
    assert_eq!(statuses, [Some(200); 3]);
    drop((kept, uploads, idle));
}

#[test]
fn a_refused_visitor_reads_its_page_although_it_sends_more() {
    let (edge, upstream) = (start("visitors: 8"), Upstream::hello());
    let _agent = http_agent(&edge, &upstream);
    let uploads: Vec<Wire> = (0..8).map(|_| begin_upload(&edge)).collect();
    wait_for("all uploads to arrive", || upstream.open() == 8);
    let mut wire = connect_from(1, edge.address("http_addr"));
    let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 300000\r\n\r\n");
    wire.write(head).unwrap();
    wire.write(vec![b'x'; 300_000]).unwrap();
    // Fails unless the end is an orderly one.
    let page = String::from_utf8(wire.read_rest().unwrap()).unwrap();
    assert!(page.starts_with("HTTP/1.1 503 "), "{page}");
    drop(uploads);
}

#[test]
fn visitors_that_got_their_last_response_need_no_thread() {
    let edge = start("threads: 4");
    let mut kept: Vec<Wire> = Vec::new();
    for n in 0..20 {
        let mut wire = connect_from(1, edge.address("http_addr"));
        let head = "GET / HTTP/1.1\r\nHost: missing.tunnels.test\r\nConnection: close\r\n\r\n";
        wire.write(head).unwrap();
        assert_eq!(wire.read_response("GET").unwrap().status(), 404, "visitor {n}");
        kept.push(wire);
    }
}

/// Holds all streams of an agent with requests that wait for their next one.
#[test]
fn idle_connections_of_one_address_do_not_use_up_an_agents_streams() {
    let (edge, upstream) = (start(""), Upstream::hello());
    // About 150 streams.
    let _agent = http_agent_with(&edge, &upstream, &["--memory-limit", "20MiB"]);
    let mut kept = Vec::new();
    for n in 0..520 {
        let (wire, status) = visit_from(1, &edge);
        assert_eq!(status, Some(200), "visitor {n}");
        kept.push(wire);
    }
    let (_, status) = visit_from(2, &edge);
    assert_eq!(status, Some(200));
    // A visitor whose stream was taken gets another one: no connection was lost.
    for wire in kept.iter_mut().take(40) {
        assert_eq!(request(wire), Some(200));
    }
    wait_for("idle visitors to wait without a thread", || proc::threads(edge.pid()) < 40);
    for wire in &mut kept {
        assert_eq!(request(wire), Some(200));
    }
}

#[test]
fn silent_strangers_do_not_keep_agents_away() {
    let (edge, upstream) = (start("unauthenticated: 8"), Upstream::hello());
    let address = edge.address("agent_addr");
    let silent: Vec<Wire> =
        (0..40).map(|n| connect_from(1 + u8::try_from(n % 4).unwrap(), address)).collect();
    let _agent = http_agent(&edge, &upstream);
    assert_eq!(visit_from(1, &edge).1, Some(200));
    drop(silent);
}

#[test]
fn strangers_in_a_handshake_give_way_to_other_addresses() {
    let (edge, upstream) = (start("unauthenticated: 8"), Upstream::hello());
    let address = edge.address("agent_addr");
    let mut slow: Vec<Wire> = (0..8).map(|_| connect_from(2, address)).collect();
    for wire in &mut slow {
        // The start of a ClientHello.
        wire.write([0x16, 3, 1, 2, 0, 1]).unwrap();
    }
    let _agent = http_agent(&edge, &upstream);
    assert_eq!(visit_from(1, &edge).1, Some(200));
    drop(slow);
}

#[test]
fn a_silent_stranger_is_closed_soon() {
    let edge = start("");
    let mut wire = connect_from(1, edge.address("agent_addr"));
    match wire.read_rest() {
        Ok(bytes) => assert_eq!(bytes, b""),
        Err(error) => assert!(is_reset(&error), "{error}"),
    }
}

/// Sends `begin` on many connections of one address to the REST API, and then makes requests
/// from another one: those that give way may not be closed yet at the first.
#[track_caller]
fn another_operator_is_answered(edge: &Serve, clients: usize, begin: &str) -> Vec<Wire> {
    let api = edge.address("api_addr");
    let clients = (0..clients)
        .map(|_| {
            let mut wire = connect_from(1, api);
            wire.write(begin).unwrap();
            wire
        })
        .collect();
    wait_for("an answer for another address", || {
        let mut other = connect_from(2, api);
        other.write("GET /self HTTP/1.1\r\nHost: h\r\n\r\n").is_ok()
            && other.read_response("GET").is_ok_and(|response| response.status() == 401)
    });
    clients
}

#[test]
fn silent_clients_of_the_rest_api_keep_no_operator_away() {
    another_operator_is_answered(&start(""), 64, "");
}

#[test]
fn slow_clients_of_the_rest_api_hold_no_thread() {
    // Fewer than there are places.
    another_operator_is_answered(&start(""), 60, "GET /self HTTP/1.1\r\nHost: h\r\n");
    // Without a key no body is waited for.
    let head = "POST /credentials HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n{";
    let edge = start("");
    for mut client in another_operator_is_answered(&edge, 60, head) {
        assert_eq!(client.read_response("POST").unwrap().status(), 401);
    }
}
