//! The local API: its routes, objects and errors for ngrok's clients.

use std::net::TcpListener;
use std::thread;

use serde_json::{Value, json};

use crate::support::agent::{self, agent};
use crate::support::api::{Api, idle_agent};
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::visitor::try_get;
use crate::support::wait_for;

const PAGE: &str = "text/html; charset=utf-8";

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// The edge opens a stream for a visitor only when the agent has been sent the response to the
/// Bind. Otherwise the stream names an endpoint that the agent does not know.
#[test]
fn visitors_who_wait_for_a_name_are_served_when_it_appears() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let (mut agent, api) = idle_agent(&edge);
    let url = format!("http://eager.localhost:{}", edge.http.port());
    let body = json!({"name": "eager", "proto": "http", "addr": upstream.port(), "url": url});
    for _ in 0..60 {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let first = std::iter::repeat_with(|| try_get(&edge, &url, "/eager"));
                    let first = first.flatten().find(|answer| answer.status() != 404);
                    assert_eq!(first.unwrap().text(), "GET /eager ");
                });
            }
            api.create("/api/tunnels", body.clone());
        });
        assert_eq!(api.call("DELETE", "/api/tunnels/eager", None).0, 204);
    }
    assert_eq!(agent.process().count_stderr("connection for unknown endpoint"), 0);
}

#[test]
fn a_tunnel_comes_serves_and_goes() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let (_agent, api) = idle_agent(&edge);
    assert_eq!(api.get("/api/tunnels"), json!({"tunnels": [], "uri": "/api/tunnels"}));

    let port = upstream.port().to_string();
    let body = json!({"name": "web one", "proto": "http", "addr": port, "inspect": false});
    let tunnel = api.create("/api/tunnels", body);
    let url = tunnel["public_url"].as_str().unwrap().to_owned();
    assert_eq!(keys(&tunnel), ["name", "ID", "uri", "public_url", "proto", "config", "metrics"]);
    assert_eq!(tunnel["name"], "web one");
    assert_eq!(tunnel["uri"], "/api/tunnels/web%20one");
    assert_eq!(tunnel["proto"], url.split(':').next().unwrap());
    let addr = format!("http://localhost:{port}");
    assert_eq!(tunnel["config"], json!({"addr": addr, "inspect": false}));
    assert!(!tunnel["ID"].as_str().unwrap().is_empty());
    let conns = ["count", "gauge", "rate1", "rate5", "rate15", "p50", "p90", "p95", "p99"];
    assert_eq!(keys(&tunnel["metrics"]["conns"]), conns);
    let http = ["count", "rate1", "rate5", "rate15", "p50", "p90", "p95", "p99"];
    assert_eq!(keys(&tunnel["metrics"]["http"]), http);

    assert_eq!(try_get(&edge, &url, "/hello").unwrap().text(), "GET /hello ");
    let one = api.get("/api/tunnels/web%20one");
    assert_eq!(one["public_url"], url);
    assert_eq!(one["metrics"]["conns"]["count"], 1);
    assert_eq!(api.get("/api/tunnels")["tunnels"][0]["ID"], one["ID"]);
    // The same object by its newer name.
    let endpoint = api.get("/api/endpoints/web%20one");
    assert_eq!((&endpoint["url"], &endpoint["name"]), (&one["public_url"], &one["name"]));

    assert_eq!(api.call("DELETE", "/api/tunnels/web%20one", None).0, 204);
    assert_eq!(api.get("/api/tunnels")["tunnels"], json!([]));
    for method in ["GET", "DELETE"] {
        let (status, error) = api.call(method, "/api/tunnels/web%20one", None);
        assert_eq!(
            (status, &error["error_code"], &error["status_code"]),
            (404, &json!(100), &json!(404))
        );
    }
    wait_for("the edge to forget it", || {
        try_get(&edge, &url, "/").is_none_or(|answer| answer.status() == 404)
    });
}

#[test]
fn whole_urls_are_targets_as_well() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let (mut agent, api) = idle_agent(&edge);
    let url = format!("http://{}", api.addr);
    let body = json!({"name": "a b", "proto": "http", "addr": upstream.port()});
    let made = api.create(&format!("{url}/api/tunnels"), body);
    agent.process().wait_stderr("pg=/api/tunnels");
    let tunnels = api.get(&format!("{url}/api/tunnels"));
    assert_eq!(tunnels["tunnels"][0]["public_url"], made["public_url"]);
    assert_eq!(api.get(&format!("{url}/api/tunnels/a%20b")), api.get("/api/tunnels/a%20b"));
    let list = api.get("HTTP://localhost:1/api/requests/http?limit=1");
    assert_eq!(list["requests"], json!([]));
    for page in [&url, &format!("{url}/"), &format!("{url}?x")] {
        assert_eq!(api.ask("GET", page, "", b"").field("content-type"), Some(PAGE), "{page}");
    }
    assert_eq!(api.call("GET", &format!("{url}/nothing"), None).0, 404);
    assert_eq!(api.call("DELETE", &format!("{url}/api/tunnels/a%20b"), None).0, 204);
}

#[test]
fn an_endpoint_is_made_changed_and_deleted() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let (_agent, api) = idle_agent(&edge);
    let body = json!({"name": "e", "upstream": {"url": upstream.port()}, "metadata": "m"});
    let made = api.create("/api/endpoints", body);
    assert_eq!(made["uri"], "/api/endpoints/e");
    assert_eq!(made["upstream"]["url"], format!("http://localhost:{}", upstream.port()));
    assert_eq!(
        (&made["metadata"], &made["inspect"], &made["pooling_enabled"], &made["traffic_policy"]),
        (&json!("m"), &json!(true), &json!(false), &json!(""))
    );
    let list = api.get("/api/endpoints");
    assert!(list["endpoints"][0].get("metrics").is_none() && made.get("metrics").is_some());

    // The API accepts the objects that it returns.
    let (status, same) = api.call("PUT", "/api/endpoints/e", Some(made.clone()));
    assert_eq!((status, &same["url"]), (200, &made["url"]), "{same}");
    let other = Upstream::http(|_, wire| wire.respond("200 OK", "", b"the other one"));
    let mut changed = made.clone();
    changed["upstream"] = json!({"url": other.port().to_string()});
    let (status, value) = api.call("PUT", "/api/endpoints/e", Some(changed));
    assert_eq!(status, 200, "{value}");
    let url = value["url"].as_str().unwrap();
    assert_eq!(try_get(&edge, url, "/").unwrap().text(), "the other one");

    let fresh = json!({"name": "f", "upstream": {"url": upstream.port()}});
    let (status, value) = api.call("PUT", "/api/endpoints/f", Some(fresh.clone()));
    assert_eq!(status, 201, "{value}");
    let (status, error) = api.call("PUT", "/api/endpoints/g", Some(fresh));
    assert_eq!((status, &error["error_code"]), (400, &json!(102)), "{error}");
    assert_eq!(api.call("DELETE", "/api/endpoints/f", None).0, 204);
    assert_eq!(api.call("DELETE", "/api/endpoints/f", None).0, 404);
    assert_eq!(api.get("/api/tunnels")["tunnels"].as_array().unwrap().len(), 1);
}

#[test]
fn errors_are_those_that_clients_compare_and_the_agent_goes_on() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let (mut agent, api) = idle_agent(&edge);
    let port = upstream.port();
    let first = api.create("/api/tunnels", json!({"name": "a", "proto": "http", "addr": port}));
    let taken = first["public_url"].as_str().unwrap();
    let expected = |code| match code {
        102 => (400, "invalid tunnel configuration"),
        _ => (502, "failed to start tunnel"),
    };
    for (body, code, err) in [
        (json!({"name": "a", "proto": "http", "addr": port}), 102, "already exists"),
        (json!({"name": "b", "proto": "http"}), 102, "addr"),
        (json!({"name": "b", "addr": port}), 102, "ERR_NGROK_394"),
        (json!({"name": "b", "proto": "udp", "addr": port}), 102, "proto"),
        (json!({"name": "b", "proto": "http", "addr": port, "nonsense": 1}), 102, "nonsense"),
        (json!({"name": "b", "proto": "http", "addr": [1]}), 102, "addr"),
        (json!({"name": "b", "proto": {}, "addr": port}), 102, "proto"),
        (json!({"name": 7, "proto": "http", "addr": port}), 102, "name must be text"),
        (json!({"name": "b", "proto": "tcp", "addr": port, "subdomain": "x"}), 102, "subdomain"),
        (json!([1, 2]), 102, "must be a JSON object"),
        (json!({"name": "b", "proto": "http", "addr": port, "url": taken}), 103, "ERR_NGROK_334"),
    ] {
        let (status, error) = api.call("POST", "/api/tunnels", Some(body.clone()));
        let (wanted, msg) = expected(code);
        assert_eq!(status, wanted, "{body}: {error}");
        assert_eq!(keys(&error), ["error_code", "status_code", "msg", "details"]);
        assert_eq!(error["error_code"], code, "{body}: {error}");
        assert_eq!(error["status_code"], wanted);
        assert_eq!(error["msg"], msg);
        let text = error["details"]["err"].as_str().unwrap();
        assert!(text.contains(err), "{body}: {error}");
        if err.starts_with("ERR") {
            let last = text.trim_end().rsplit(['\n', ' ']).next().unwrap();
            assert!(last.contains(err), "the code stands at the end: {error}");
        }
    }
    let json = "Content-Type: application/json\r\n";
    for body in [&b"{"[..], b"nonsense", b"{\"name\": \"a\"", b"\xff\xfe", b"{}{}"] {
        let answer = api.ask("POST", "/api/tunnels", json, body);
        assert_eq!(answer.status(), 400, "{}", answer.text());
    }
    assert_eq!(api.ask("POST", "/api/tunnels", json, b"").status(), 400);
    let deep = "[".repeat(100_000);
    assert_eq!(api.ask("POST", "/api/tunnels", json, deep.as_bytes()).status(), 400);
    // One tunnel exists, as before.
    assert_eq!(api.get("/api/tunnels")["tunnels"].as_array().unwrap().len(), 1);
    assert_eq!(try_get(&edge, taken, "/").unwrap().status(), 200);
    agent.process().assert_running();
}

#[test]
fn methods_and_paths_that_there_are_not() {
    let edge = Edge::start();
    let (_agent, api) = idle_agent(&edge);
    for (method, path, status, allow) in [
        ("PATCH", "/api/tunnels", 405, Some("GET, HEAD, POST")),
        ("OPTIONS", "/api/endpoints/x", 405, Some("GET, HEAD, PUT, DELETE")),
        ("POST", "/", 405, Some("GET, HEAD")),
        ("DELETE", "/api/tunnels", 405, Some("GET, HEAD, POST")),
        ("GET", "/api/nothing", 404, None),
        ("GET", "/favicon.ico", 404, None),
        ("GET", "/api/tunnels/%zz", 404, None),
        ("GET", "/../../etc/passwd", 404, None),
    ] {
        let answer = api.ask(method, path, "", b"");
        assert_eq!(answer.status(), status, "{method} {path}");
        assert_eq!(answer.field("allow"), allow);
        let error: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(error["status_code"], status);
    }
    let head = api.ask("HEAD", "/api/tunnels", "", b"");
    assert!(head.status() == 200 && head.body.is_empty());
    assert_eq!(api.get("/api/")["tunnels_uri"], "/api/tunnels");
}

#[test]
fn two_schemes_make_two_tunnels_and_a_name_may_be_missing() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let (_agent, api) = idle_agent(&edge);
    let port = upstream.port();
    let both = json!({"name": "both", "proto": "http", "addr": port, "schemes": ["http", "https"]});
    let first = api.create("/api/tunnels", both);
    // The scheme of the first one is the edge's choice: none was requested.
    assert_eq!(first["name"], "both");
    let second = api.get("/api/tunnels/both%20(http)");
    assert_eq!(second["proto"], "http");
    assert_eq!(second["uri"], "/api/tunnels/both%20(http)");
    assert_eq!(api.call("DELETE", "/api/tunnels/both%20(http)", None).0, 204);
    assert_eq!(api.call("DELETE", "/api/tunnels/both", None).0, 204);

    let nameless = api.create("/api/tunnels", json!({"proto": "tcp", "addr": port}));
    assert_eq!((&nameless["name"], &nameless["uri"]), (&json!(""), &json!("/api/tunnels/")));
    assert_eq!(api.call("DELETE", "/api/tunnels/", None).0, 204);
    assert_eq!(api.get("/api/tunnels")["tunnels"], json!([]));
}

#[test]
fn without_a_session_tunnels_have_to_wait_and_health_says_why() {
    let edge = Edge::start();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = edge.config_via(nobody, "  web_addr: 127.0.0.1:0\n");
    let agent = agent(&config, ["start", "--none"]).spawn();
    let api = Api::of(&agent);
    let status = api.get("/api/status");
    assert_eq!(status["status"], "connecting");
    assert_eq!(status["session"]["legs"], json!([]));
    let body = json!({"name": "a", "proto": "tcp", "addr": 1});
    let (status, error) = api.call("POST", "/api/tunnels", Some(body));
    assert_eq!(status, 503, "{error}");
    assert_eq!(
        error,
        json!({
            "error_code": 104, "status_code": 503,
            "msg": "ngrok is not yet ready to start tunnels",
            "details": {"err": "a successful ngrok tunnel session has not yet been established"},
        })
    );
    let health = api.ask("GET", "/healthz", "", b"");
    assert_eq!(health.status(), 503);
    assert!(health.text().starts_with("connecting for ") && health.text().contains("refused"));
    assert_eq!(api.figure("culvert_session_up"), 0.0);
}

#[test]
fn status_and_health_follow_the_session() {
    let mut edge = Edge::start();
    let (_agent, api) = idle_agent(&edge);
    let status = api.get("/api/status");
    assert_eq!((&status["status"], &status["uri"]), (&json!("online"), &json!("/api/status")));
    assert!(!status["agent_version"].as_str().unwrap().is_empty());
    wait_for("a latency", || {
        let leg = &api.get("/api/status")["session"]["legs"][0];
        leg["latency"].as_str().is_some_and(|l| l.ends_with("ms")) && leg["region"] == "self"
    });
    assert!(api.ask("GET", "/healthz", "", b"").text().starts_with("online for "));
    edge.kill();
    wait_for("the loss to show", || api.get("/api/status")["status"] == "reconnecting");
    let health = api.ask("GET", "/healthz", "", b"");
    assert!(health.status() == 503 && health.text().starts_with("reconnecting for "));
    edge.restart();
    wait_for("the session to be back", || api.ask("GET", "/healthz", "", b"").status() == 200);
    assert_eq!(api.figure("culvert_reconnects_total"), 1.0);
}

#[test]
fn where_it_listens() {
    let edge = Edge::start();
    // An address in use is an error, with the words that programs search for.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let config = edge.config_with(&format!("  web_addr: {addr}\n"));
    let mut failed = agent(&config, ["start", "--none"]).spawn();
    assert_eq!(failed.wait_exit(), Some(1));
    assert!(failed.stderr().contains("address already in use"), "{}", failed.stderr());
    // The default port, or the next: several agents run side by side.
    let two = [0, 1].map(|_| agent::agent(&edge.config, ["start", "--none"]).spawn());
    let [a, b] = two.each_ref().map(Api::of);
    assert!(a.addr != b.addr && a.addr.ip().is_loopback() && b.addr.ip().is_loopback());
    assert_eq!(a.get("/api/tunnels"), b.get("/api/tunnels"));
    // Disabled.
    let config = edge.config_with("  web_addr: false\n");
    let none = agent::agent(&config, ["start", "--none"]).spawn();
    none.wait_stderr("tunnel session started");
    assert_eq!(none.count_stderr("web service"), 0);
    assert_eq!(crate::support::proc::sockets(none.pid(), 10), 0, "a listening socket");
}

#[test]
fn the_page_is_one_answer_under_a_strict_policy() {
    let edge = Edge::start();
    let (_agent, api) = idle_agent(&edge);
    for path in ["/", "/inspect/http", "/status"] {
        let page = api.ask("GET", path, "Accept-Encoding: gzip\r\n", b"");
        assert_eq!(page.status(), 200);
        assert_eq!(page.field("content-encoding"), Some("gzip"));
        assert!(page.body.starts_with(&[0x1f, 0x8b]) && page.body.len() < 40 * 1024);
        let policy = page.field("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(page.field("x-content-type-options"), Some("nosniff"));
        assert_eq!(page.field("x-frame-options"), Some("DENY"));
    }
}

#[test]
fn a_script_that_decodes_no_gzip_gets_gzip() {
    let edge = Edge::start();
    let (_agent, api) = idle_agent(&edge);
    let packed = api.ask("GET", "/status", "Accept-Encoding: br, gzip\r\n", b"");
    assert_eq!(packed.field("content-encoding"), Some("gzip"));
    for fields in ["", "Accept-Encoding: identity\r\n", "Accept-Encoding: gzip;q=0, br\r\n"] {
        let page = api.ask("GET", "/status", fields, b"");
        assert_eq!((page.status(), page.field("content-encoding")), (200, None), "{fields:?}");
        assert_eq!(page.field("vary"), Some("Accept-Encoding"));
        let text = page.text();
        assert!(text.starts_with("<!doctype html>") && text.contains("</html>"), "{text:.100}");
        assert!(page.body.len() > packed.body.len());
    }
}
