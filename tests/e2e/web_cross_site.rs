//! The local API is safe from browsers: pages of other sites have no access.

use serde_json::{Value, json};

use crate::support::agent::agent;
use crate::support::api::{Api, config, idle_agent};
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::visitor::try_get;

const JSON: &str = "Content-Type: application/json\r\n";

fn status(api: &Api, method: &str, path: &str, fields: &str) -> u16 {
    let body: &[u8] = if method == "POST" { b"{}" } else { b"" };
    let answer = api.ask(method, path, fields, body);
    let cors =
        answer.fields.iter().find(|(name, _)| name.to_lowercase().starts_with("access-control"));
    assert!(cors.is_none(), "{cors:?}");
    answer.status()
}

#[test]
fn names_that_were_rebound_to_this_machine_are_refused() {
    let edge = Edge::start();
    let (_agent, api) = idle_agent(&edge);
    for path in
        ["/", "/api", "/api/tunnels", "/api/requests/http", "/metrics", "/healthz", "/nothing"]
    {
        for host in ["evil.example", "localhost.evil.example:4040", "10.0.0.1", "0.0.0.0"] {
            assert_eq!(
                status(&api, "GET", path, &format!("Host: {host}\r\n")),
                403,
                "{path} {host}"
            );
        }
    }
    for host in ["localhost", "LOCALHOST:9", "127.0.0.2:4040", "[::1]", "app.localhost"] {
        assert_eq!(status(&api, "GET", "/api", &format!("Host: {host}\r\n")), 200, "{host}");
    }
    assert_eq!(status(&api, "GET", "/api", "Host: localhost\r\nHost: localhost\r\n"), 400);
    // The same in a URL, which has priority.
    for target in ["http://evil.example/api", "http://evil.example/", "HTTP://10.0.0.1"] {
        assert_eq!(status(&api, "GET", target, "Host: localhost\r\n"), 403, "{target}");
    }
    let error: Value =
        serde_json::from_slice(&api.ask("GET", "/api", "Host: evil.example\r\n", b"").body)
            .unwrap();
    assert!(error["details"]["err"].as_str().unwrap().contains("web_allow_hosts"), "{error}");
}

#[test]
fn other_sites_change_nothing() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let config = config(&edge, "");
    let mut agent = agent(&config, ["http", &upstream.port().to_string()]).start();
    let api = Api::of(agent.process());
    let one = "/api/tunnels/command_line";
    for fields in [
        "Origin: https://evil.example\r\n",
        "Origin: http://localhost:3000\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ] {
        assert_eq!(status(&api, "DELETE", one, fields), 403, "{fields}");
        assert_eq!(status(&api, "DELETE", "/api/requests/http", fields), 403, "{fields}");
        let fields = format!("{fields}{JSON}");
        assert_eq!(status(&api, "POST", "/api/tunnels", &fields), 403, "{fields}");
        assert_eq!(status(&api, "POST", "/api/requests/http", &fields), 403, "{fields}");
    }
    // A form of another site in a browser that sends no Origin.
    for kind in
        ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"]
    {
        let fields = format!("Content-Type: {kind}\r\n");
        assert_eq!(status(&api, "POST", "/api/tunnels", &fields), 415, "{kind}");
    }
    assert_eq!(status(&api, "POST", "/api/tunnels", ""), 415);
    // Another site's picture or script.
    let embedded = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n";
    assert_eq!(status(&api, "GET", "/api/events", embedded), 403);
    let link = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n";
    assert_eq!(status(&api, "GET", "/", link), 200);
    assert_eq!(
        status(
            &api,
            "OPTIONS",
            "/api/tunnels",
            "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n"
        ),
        403
    );
    // The tunnel is still there; our own page may stop it.
    assert_eq!(try_get(&edge, agent.url(), "/").unwrap().status(), 200);
    let ours = format!("Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\n", api.addr);
    assert_eq!(status(&api, "DELETE", one, &ours), 204);
}

#[test]
fn hosts_that_are_listed_are_answered() {
    let edge = Edge::start();
    let hosts = "  web_allow_hosts: [app.example.com, .corp.example, 10.0.0.0/8]\n";
    let agent = agent(&config(&edge, hosts), ["start", "--none"]).spawn();
    let api = Api::of(&agent);
    for (host, expected) in [
        ("app.example.com", 200),
        ("APP.example.com:8080", 200),
        ("a.corp.example", 200),
        ("10.1.2.3:4040", 200),
        ("localhost", 200),
        ("corp.example", 403),
        ("b.example.com", 403),
        ("11.0.0.1", 403),
    ] {
        assert_eq!(status(&api, "GET", "/api", &format!("Host: {host}\r\n")), expected, "{host}");
    }
}

#[test]
fn what_is_too_large_or_no_request_is_refused() {
    let edge = Edge::start();
    let (mut agent, api) = idle_agent(&edge);
    let field = format!("X: {}\r\n", "y".repeat(9_000));
    assert_eq!(status(&api, "GET", "/api", &field), 431);
    let large = vec![b' '; 1024 * 1024 + 1];
    assert_eq!(api.ask("POST", "/api/tunnels", JSON, &large).status(), 413);
    // Of the maximum size, and not a configuration.
    let most = vec![b' '; 1024 * 1024];
    assert_eq!(api.ask("POST", "/api/tunnels", JSON, &most).status(), 400);
    for request in
        ["\r\n\r\nnonsense\r\n\r\n", "GET / HTTP/3\r\n\r\n", "\x16\x03\x01\n\n", "GET /api\r\n\r\n"]
    {
        let mut wire = crate::support::wire::Wire::connect(api.addr).unwrap();
        wire.write(request).unwrap();
        let answer = wire.read_response("GET").unwrap();
        assert!([400, 505].contains(&answer.status()), "{request:?}: {}", answer.first);
    }
    agent.process().assert_running();
    assert_eq!(api.get("/api/tunnels"), json!({"tunnels": [], "uri": "/api/tunnels"}));
}
