//! Captured requests in the local API: listed, shown, replayed, deleted, reported as events.

use serde_json::{Value, json};

use crate::support::agent::{Agent, agent};
use crate::support::api::{Api, config};
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::websocket;
use crate::support::wire::Wire;
use crate::support::{until, wait_for};

fn start() -> (Edge, Upstream, Agent, Api) {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let mut agent = agent(&config(&edge, ""), ["http", &upstream.port().to_string()]).start();
    agent.process().wait_stderr("tunnel session started");
    let api = Api::of(agent.process());
    (edge, upstream, agent, api)
}

fn list(api: &Api, query: &str) -> Vec<Value> {
    let value = api.get(&format!("/api/requests/http{query}"));
    assert_eq!(value["uri"], "/api/requests/http");
    value["requests"].as_array().unwrap().clone()
}

/// Returns the list, when it has this number of responses.
fn answered(api: &Api, count: usize) -> Vec<Value> {
    until("the requests to be answered", || {
        let all = list(api, "");
        (all.len() == count && all.iter().all(|r| !r["response"].is_null())).then_some(all)
    })
}

/// Decodes a base64 text.
fn bytes(value: &Value) -> String {
    let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut have, mut bytes) = (0u32, 0, Vec::new());
    for c in value.as_str().unwrap().trim_end_matches('=').chars() {
        bits = bits << 6 | digits.find(c).unwrap() as u32;
        have += 6;
        if have >= 8 {
            have -= 8;
            bytes.push((bits >> have) as u8);
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn what_was_asked_is_listed_and_shown() {
    let (edge, _upstream, agent, api) = start();
    assert_eq!(
        api.get("/api/requests/http"),
        json!({"requests": [], "uri": "/api/requests/http", "total": 0})
    );
    agent.visit(&edge).get("/first?a=b");
    let fields = "x-one: 1\r\nX-ONE: 2\r\n";
    agent.visit(&edge).ask("POST", "/second", fields, b"a body");
    let all = answered(&api, 2);
    let newest = &all[0];
    let uri = newest["uri"].as_str().unwrap();
    let id = newest["id"].as_str().unwrap();
    assert!(id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    assert_eq!(uri, format!("/api/requests/http/{id}"));
    assert_eq!(
        (&newest["tunnel_name"], &newest["remote_addr"]),
        (&json!("command_line"), &json!("127.0.0.1"))
    );
    assert!(
        newest["start"].as_str().unwrap().ends_with('Z')
            && newest["duration"].as_u64().unwrap() > 0
    );
    let request = &newest["request"];
    assert_eq!(
        (&request["method"], &request["uri"], &request["proto"]),
        (&json!("POST"), &json!("/second"), &json!("HTTP/1.1"))
    );
    assert_eq!(request["headers"]["X-One"], json!(["1", "2"]));
    let raw = bytes(&request["raw"]);
    assert!(
        raw.starts_with("POST /second HTTP/1.1\r\n") && raw.ends_with("\r\n\r\na body"),
        "{raw}"
    );
    let response = &newest["response"];
    assert_eq!((&response["status"], &response["status_code"]), (&json!("200 OK"), &json!(200)));
    assert!(bytes(&response["raw"]).ends_with("POST /second a body"));
    assert_eq!(api.get(uri), *newest);
    assert_eq!(all[1]["request"]["uri"], "/first?a=b");

    assert_eq!(list(&api, "?limit=1"), std::slice::from_ref(newest));
    assert_eq!(list(&api, "?tunnel_name=command_line").len(), 2);
    assert_eq!(list(&api, "?tunnel_name=other").len(), 0);
    let short = &list(&api, "?raw=false")[0];
    assert!(short["request"].get("raw").is_none() && short["request"]["body_size"] == 6);
    assert_eq!(api.call("GET", "/api/requests/http?limit=x", None).0, 400);

    assert_eq!(api.call("DELETE", uri, None).0, 204);
    for method in ["GET", "DELETE"] {
        assert_eq!(api.call(method, uri, None).0, 404);
    }
    assert_eq!(list(&api, "").len(), 1);
    assert_eq!(api.call("DELETE", "/api/requests/http", None).0, 204);
    assert_eq!(list(&api, "").len(), 0);
}

#[test]
fn a_replay_reaches_the_upstream_again_as_it_was_or_changed() {
    let (edge, upstream, agent, api) = start();
    agent.visit(&edge).ask("POST", "/it", "", b"one");
    let id = answered(&api, 1)[0]["id"].clone();
    let (status, _) = api.call("POST", "/api/requests/http", Some(json!({"id": id})));
    assert_eq!(status, 204);
    let again = &answered(&api, 2)[0];
    assert_eq!(again["replay_of"], id);
    assert!(bytes(&again["response"]["raw"]).ends_with("POST /it one"));

    let changes = json!({"method": "PUT", "uri": "/other", "headers": {"Host": ["x"], "X-A": ["1"]}, "body": "dHdv"});
    let body = json!({"id": id, "tunnel_name": "command_line", "request": changes}).to_string();
    let answer = api.ask(
        "POST",
        "/api/requests/http",
        "Content-Type: application/json\r\n",
        body.as_bytes(),
    );
    assert_eq!(answer.status(), 204, "{}", answer.text());
    let new_id = answer.field("x-culvert-request-id").unwrap().to_owned();
    let changed = &answered(&api, 3)[0];
    assert_eq!(changed["id"], new_id);
    assert!(bytes(&changed["response"]["raw"]).ends_with("PUT /other two"));
    assert_eq!(changed["request"]["headers"]["X-A"], json!(["1"]));
    assert_eq!(upstream.accepted(), 3);

    for (body, status) in [
        (json!({"id": "0000000000000000"}), 404),
        (json!({"id": "nonsense"}), 404),
        (json!({}), 400),
        (json!({"id": id, "tunnel_name": "nobody"}), 404),
        (json!({"id": 7}), 400),
        (json!({"id": id, "more": 1}), 400),
        (json!({"id": id, "request": {"body": "!"}}), 400),
        (json!({"id": id, "request": {"method": "G ET"}}), 400),
        (json!([id]), 400),
    ] {
        let (seen, error) = api.call("POST", "/api/requests/http", Some(body.clone()));
        assert_eq!(seen, status, "{body}: {error}");
    }
    assert_eq!(upstream.accepted(), 3, "what is refused reaches nobody");
}

/// Reads the next event: its name and its data.
fn event(wire: &mut Wire) -> (String, Value) {
    let (mut name, mut data) = (String::new(), Value::Null);
    loop {
        let line = wire.read_line().expect("a line of an event");
        if let Some(rest) = line.strip_prefix("event: ") {
            name = rest.to_owned();
        } else if let Some(rest) = line.strip_prefix("data: ") {
            data = serde_json::from_str(rest).expect("JSON");
        } else if line.is_empty() && !name.is_empty() {
            return (name, data);
        }
    }
}

#[test]
fn who_listens_is_told() {
    let (mut edge, _upstream, agent, api) = start();
    let mut wire = Wire::connect(api.addr).unwrap();
    wire.write("GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let head = wire.read_head().unwrap();
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    let (name, status) = event(&mut wire);
    assert_eq!((name.as_str(), &status["status"]), ("status", &json!("online")));

    agent.visit(&edge).get("/seen?<b>");
    let mut answered = Value::Null;
    while answered.is_null() {
        let (name, list) = event(&mut wire);
        if name == "requests" {
            let it = &list[0];
            assert_eq!(it["request"]["uri"], "/seen?<b>");
            assert!(it["request"].get("raw").is_none());
            answered = it["response"].clone();
        }
    }
    assert_eq!(answered["status_code"], 200);
    assert_eq!(answered["body_size"], "GET /seen?<b> ".len());

    assert_eq!(api.call("DELETE", "/api/requests/http", None).0, 204);
    while event(&mut wire).0 != "cleared" {}

    let body = json!({"name": "more", "proto": "tcp", "addr": 9});
    api.create("/api/tunnels", body);
    while event(&mut wire).0 != "status" {}
    edge.kill();
    loop {
        let (name, status) = event(&mut wire);
        if name == "status" && status["status"] == "reconnecting" {
            break;
        }
    }
}

#[test]
fn a_long_list_is_sent_whole_and_costs_little_memory() {
    let (edge, _upstream, agent, api) = start();
    let mut visitor = agent.visit(&edge);
    let body = vec![b'x'; 20_000];
    for _ in 0..300 {
        assert_eq!(visitor.ask("POST", "/bulk", "", &body).status(), 200);
    }
    let count = list(&api, "?raw=false").len();
    assert!(count > 20, "{count} kept");
    let before = crate::support::proc::rss(agent.pid());
    let whole = list(&api, "");
    assert_eq!(whole.len(), count);
    assert!(whole.iter().all(|r| r["request"]["raw"].as_str().unwrap().len() > 20_000));
    let after = crate::support::proc::rss(agent.pid());
    // All of it at once would be sixteen.
    assert!(after < before + 4_096, "{before} KiB before the list, {after} KiB after it");
    // A client of HTTP/1.0, which does not support chunks.
    let mut wire = Wire::connect(api.addr).unwrap();
    wire.write("GET /api/requests/http HTTP/1.0\r\n\r\n").unwrap();
    wire.read_head().unwrap();
    let value: Value = serde_json::from_slice(&wire.read_rest().unwrap()).unwrap();
    assert_eq!(value["requests"].as_array().unwrap().len(), count);
}

#[test]
fn a_request_that_is_never_answered_is_pending_for_ever() {
    let edge = Edge::start();
    let upstream = Upstream::http(|request, wire| {
        if request.target() == "/cut" {
            wire.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")?;
        }
        // It closes the connection.
        Err(std::io::ErrorKind::Other.into())
    });
    let mut agent = agent(&config(&edge, ""), ["http", &upstream.port().to_string()]).start();
    agent.process().wait_stderr("tunnel session started");
    let api = Api::of(agent.process());
    for (path, err) in
        [("/none", "closed without an answer"), ("/cut", "closed before the end of the response")]
    {
        let mut visitor = agent.visit(&edge);
        visitor.send("GET", path, "Connection: close\r\n", b"").unwrap();
        let _ = visitor.wire.read_response("GET");
        until("the end of the request", || {
            let newest = list(&api, "").remove(0);
            (newest["request"]["uri"] == path && newest["err"] == err).then_some(())
        });
    }
    let none = list(&api, "").remove(1);
    assert!(none["response"].is_null() && none["duration"].as_u64() > Some(0), "{none}");
}

#[test]
fn a_websocket_has_no_bytes_and_no_duration() {
    let (edge, upstream) = (Edge::start(), Upstream::http(websocket::serve_echo));
    let mut agent = agent(&config(&edge, ""), ["http", &upstream.port().to_string()]).start();
    agent.process().wait_stderr("tunnel session started");
    let api = Api::of(agent.process());
    let mut events = Wire::connect(api.addr).unwrap();
    events.write(format!("GET /api/events HTTP/1.1\r\nHost: {}\r\n\r\n", api.addr)).unwrap();
    events.read_head().unwrap();
    let mut socket = websocket::open(agent.visit(&edge));
    let newest = || list(&api, "").remove(0);
    assert_eq!(newest()["tunnel"], json!({"received": 0, "sent": 0, "open": true}));
    let mut before = 0;
    for round in 1..=3u64 {
        websocket::send(&mut socket, 1, b"hello", true).unwrap();
        websocket::receive(&mut socket).unwrap();
        // Masked frames have four bytes more.
        let tunnel = json!({"received": round * 11, "sent": round * 7, "open": true});
        wait_for("the bytes to be counted", || newest()["tunnel"] == tunnel);
        until("an event about them", || {
            let (name, value) = event(&mut events);
            let all = value.as_array().cloned().unwrap_or_default();
            (name == "requests" && all.iter().any(|r| r["tunnel"] == tunnel)).then_some(())
        });
        let took = newest()["duration"].as_u64().unwrap();
        assert!(took > before, "{took} ns after {before} ns");
        before = took;
    }
    drop(socket);
    wait_for("its end", || newest()["tunnel"]["open"] == false);
    let ended = newest();
    assert_eq!((&ended["tunnel"]["received"], &ended["tunnel"]["sent"]), (&json!(33), &json!(21)));
    assert!(ended["duration"].as_u64() >= Some(before), "{ended}");
    assert_eq!(newest()["duration"], ended["duration"], "it has ended");
}

/// What a list leaves out is counted.
#[test]
fn a_limited_list_looks_like_all_requests() {
    let (edge, _upstream, agent, api) = start();
    for n in 0..5 {
        agent.visit(&edge).get(&format!("/{n}"));
    }
    answered(&api, 5);
    for (limit, count) in [(2, 2), (0, 0), (9, 5)] {
        let value = api.get(&format!("/api/requests/http?limit={limit}"));
        assert_eq!(value["requests"].as_array().unwrap().len(), count);
        assert_eq!(value["total"], 5);
    }
}

#[test]
fn an_unknown_request_is_another_error_than_ngroks() {
    let (_edge, _upstream, _agent, api) = start();
    for (method, path, body) in [
        ("GET", "/api/requests/http/0123456789abcdef", None),
        ("GET", "/api/requests/http/UNKNOWN", None),
        ("DELETE", "/api/requests/http/UNKNOWN", None),
        ("POST", "/api/requests/http", Some(json!({"id": "UNKNOWN"}))),
    ] {
        let (status, error) = api.call(method, path, body);
        assert_eq!((status, &error["error_code"]), (404, &json!(106)), "{method} {path}: {error}");
    }
}
