//! `culvert-edge serve`: bounds on sessions, endpoints, visitors and slow heads hold.

use crate::support::process::plant_secret;
use crate::support::serve::Serve;
use crate::support::upstream::Upstream;
use crate::support::wire::Wire;
use crate::support::{agent, is_reset, wait_for};

const TOKEN_ONE: &str = "2planted0credential0number0one_0123456789ABCDEFGHIJK";
const TOKEN_TWO: &str = "2planted0credential0number0two_0123456789ABCDEFGHIJK";

fn start(limits: &str) -> Serve {
    plant_secret(TOKEN_ONE);
    plant_secret(TOKEN_TWO);
    Serve::start(&format!(
        "credentials:\n  - id: one\n    authtoken: {TOKEN_ONE}\n    acl: \
         ['bind:one.tunnels.test']\n    max_sessions: 1\n  - id: two\n    authtoken: \
         {TOKEN_TWO}\nlimits: {{{limits}}}\n"
    ))
}

#[test]
fn a_credential_binds_what_its_rules_allow() {
    let (edge, upstream) = (start(""), Upstream::hello());
    let one = edge.config("one.yml", TOKEN_ONE);
    let port = upstream.port().to_string();
    for (args, code) in [
        (["http", "--url", "http://two.tunnels.test"], "ERR_NGROK_316"),
        (["http", "--url", "http://elsewhere.example"], "ERR_NGROK_3"),
        (["tcp", "--url", "tcp://"], "ERR_NGROK_356"),
    ] {
        let mut refused = agent::agent(&one, args).arg(&port).spawn();
        assert_eq!(refused.wait_exit(), Some(1), "{args:?}");
        assert!(refused.stderr().contains(code), "{args:?}\n{}", refused.stderr());
    }
    let allowed = agent::agent(&one, ["http", &port, "--url", "http://one.tunnels.test"]).start();
    let mut wire = edge.visit("one.tunnels.test");
    assert_eq!(wire.read_response("GET").unwrap().text(), "GET / ");
    // This credential may have a single session.
    let mut second = agent::agent(&one, ["http", &port]).spawn();
    assert_eq!(second.wait_exit(), Some(1));
    assert!(second.stderr().contains("ERR_NGROK_108"), "{}", second.stderr());
    // The other one has no rules.
    let two = edge.config("two.yml", TOKEN_TWO);
    let free = agent::agent(&two, ["http", &port]).start();
    assert!(free.url().starts_with("https://"), "{}", free.url());
    let host = free.url().trim_start_matches("https://").to_owned();
    assert_eq!(edge.visit(&host).read_response("GET").unwrap().text(), "GET / ");
    drop(allowed);
}

#[test]
fn a_slow_head_is_cut_off_at_its_deadline() {
    let (edge, upstream) = (start("head_seconds: 1"), Upstream::hello());
    let config = edge.config("two.yml", TOKEN_TWO);
    let url = "http://slow.tunnels.test";
    let _agent =
        agent::agent(&config, ["http", &upstream.port().to_string(), "--url", url]).start();
    for part in ["", "G", "GET / HTTP/1.1\r\nHost: slow.tunnels.test\r\nX-"] {
        let mut wire = Wire::connect(edge.address("http_addr")).unwrap();
        wire.write(part).unwrap();
        // A response with the reason or just the end, but not endless silence.
        match wire.read_rest() {
            Ok(bytes) if bytes.is_empty() => {}
            Ok(bytes) => assert!(bytes.starts_with(b"HTTP/1.1 408 "), "{bytes:?}"),
            Err(error) => assert!(is_reset(&error), "{error}"),
        }
    }
    // The same for visitors over TLS, and for agents.
    for listener in ["https_addr", "agent_addr"] {
        let mut wire = Wire::connect(edge.address(listener)).unwrap();
        wire.write([0x16, 3, 1]).unwrap();
        let _ = wire.read_rest().map_err(|e| assert!(is_reset(&e), "{listener}: {e}"));
    }
    assert_eq!(upstream.accepted(), 0);
    assert_eq!(edge.visit("slow.tunnels.test").read_response("GET").unwrap().text(), "GET / ");
}

#[test]
fn endpoints_beyond_the_bound_are_refused_and_visitors_take_turns() {
    let edge = start("visitors: 8, endpoints_per_agent: 2");
    let upstream = Upstream::hello();
    let config = edge.config("two.yml", TOKEN_TWO);
    let mut text = std::fs::read_to_string(&config).unwrap();
    text.push_str("endpoints:\n");
    for name in ["a", "b", "c"] {
        text.push_str(&format!(
            "  - {{name: {name}, url: 'http://{name}.tunnels.test', upstream: {{url: {}}}}}\n",
            upstream.port()
        ));
    }
    std::fs::write(&config, text).unwrap();
    let mut three = agent::agent(&config, ["start", "--all", "--strict"]).spawn();
    assert_eq!(three.wait_exit(), Some(1));
    assert!(three.stderr().contains("ERR_NGROK_324"), "{}", three.stderr());
    let _agent = agent::agent(&config, ["start", "a", "b"]).expect(2).start();
    wait_for("the first visitor to be served", || {
        edge.visit("a.tunnels.test").read_response("GET").is_ok_and(|a| a.status() == 200)
    });
    // The ninth connection and later ones take the places of those that wait.
    let mut kept: Vec<Wire> = Vec::new();
    for _ in 0..40 {
        let mut wire = edge.visit("a.tunnels.test");
        assert_eq!(wire.read_response("GET").unwrap().status(), 200);
        kept.push(wire);
    }
    let ended = |wire: &Wire| matches!(wire.tcp().peek(&mut [0]), Ok(0));
    wait_for("all but eight to be closed", || {
        kept.retain(|wire| {
            wire.tcp().set_nonblocking(true).unwrap();
            !ended(wire)
        });
        kept.len() <= 8
    });
    drop(kept);
    wait_for("visitors to be served again", || {
        edge.visit("b.tunnels.test").read_response("GET").is_ok_and(|a| a.status() == 200)
    });
}

#[test]
fn bodies_that_wait_for_their_signature_are_limited_together() {
    // A quarter is 256 KiB.
    let (mut edge, upstream) = (start("total_buffer_mib: 1"), Upstream::hello());
    let config = edge.config("two.yml", TOKEN_TWO);
    let port = upstream.port().to_string();
    let hook = ["http", &port, "--url", "http://hook.tunnels.test", "--verify-webhook=github"];
    let secret = ["--verify-webhook-secret", "s"];
    let _agent = agent::agent(&config, hook.into_iter().chain(secret)).start();
    let head = "POST / HTTP/1.1\r\nHost: hook.tunnels.test\r\nContent-Length: ";
    let address = edge.address("http_addr");
    let mut visitors: Vec<_> = (0..4)
        .map(|_| {
            let mut wire = Wire::connect(address).unwrap();
            wire.write(format!("{head}150000\r\n\r\n")).unwrap();
            wire.write(vec![b'x'; 100_000]).unwrap();
            wire
        })
        .collect();
    edge.process().wait_stderr("bodies of requests");
    let mut statuses = visitors.iter_mut().map(|wire| {
        wire.half_close();
        wire.read_response("POST").unwrap().status()
    });
    assert!(statuses.any(|status| status == 503), "one is refused");
    drop(visitors);
    // Their memory is free again: the signature is missing.
    wait_for("room for a body", || {
        let mut wire = Wire::connect(address).unwrap();
        wire.write(format!("{head}100000\r\n\r\n")).unwrap();
        wire.write(vec![b'x'; 100_000]).unwrap();
        wire.read_response("POST").is_ok_and(|response| response.status() == 403)
    });
}
