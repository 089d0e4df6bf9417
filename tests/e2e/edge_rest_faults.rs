//! Bad input for the REST API of `culvert-edge`, and stores that cannot be used: an error body
//! each time, and running sessions go on.

use std::fs;

use serde_json::{Value, json};

use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::edge_rest::{Rest, error_of};
use crate::support::process::Process;
use crate::support::serve::Serve;
use crate::support::upstream::Upstream;
use crate::support::{until, wire};

/// Sends a request with exactly these fields. Returns status and number of the error.
#[track_caller]
fn refused(rest: &Rest, method: &str, fields: &str, body: &[u8]) -> (u16, u64) {
    let answer = rest.send(method, "/credentials", fields, body);
    error_of(answer.status(), &serde_json::from_str(&answer.text()).unwrap())
}

#[test]
fn keys_versions_and_bodies_that_are_not_valid() {
    let edge = Edge::start();
    let rest = edge.rest();
    let id = rest.create("/credentials", &json!({}))["id"].as_str().unwrap().to_owned();
    let version = "Ngrok-Version: 2\r\n";
    for (authorization, code) in [
        ("", 200),
        ("Authorization: \r\n", 200),
        ("Authorization: Token x\r\n", 201),
        ("Authorization: Bearer a-b\r\n", 202),
        ("Authorization: Bearer unknown_key\r\n", 203),
        (&*format!("Authorization: Bearer {}\r\n", edge.authtoken()), 206),
        (&*format!("Authorization: Bearer {id}\r\n"), 207),
        ("Authorization: Bearer ' OR 1=1; --\r\n", 202),
    ] {
        let fields = format!("{version}{authorization}");
        assert_eq!(refused(&rest, "GET", &fields, b""), (401, code), "{authorization}");
    }
    let key = format!("Authorization: Bearer {}\r\n", rest.key);
    assert_eq!(refused(&rest, "GET", &key, b""), (400, 218));
    let fields = format!("{key}Ngrok-Version: 1\r\n");
    assert_eq!(refused(&rest, "GET", &fields, b""), (400, 217));
    let fields = format!("{key}{version}");
    assert_eq!(refused(&rest, "POST", &fields, b"{}"), (400, 216));
    let text = format!("{fields}Content-Type: text/plain\r\n");
    assert_eq!(refused(&rest, "POST", &text, b"{}"), (415, 210));
    let json = format!("{fields}Content-Type: application/json; charset=utf-8\r\n");
    for (body, code) in [
        (&b"{"[..], 213),
        (b"[]", 213),
        (b"\xff", 213),
        (b"{\"acl\": [\"bind\"]}", 215),
        (b"{\"unknown\": 1}", 214),
        (b"{\"description\": 5}", 215),
        ("[".repeat(100_000).as_bytes(), 213),
    ] {
        assert_eq!(refused(&rest, "POST", &json, body), (400, code));
    }
    assert_eq!(refused(&rest, "GET", &json, b"{\"a\": 1}"), (400, 211));
    assert_eq!(rest.refused("GET", "/credentials/ak_1", &Value::Null), (404, 227));
    let long = rest.send("POST", "/credentials", &json, &b"x".repeat(10 * 1024 * 1024));
    assert_eq!(error_of(long.status(), &serde_json::from_str(&long.text()).unwrap()), (413, 413));
    // Nothing of it was created.
    assert_eq!(rest.get("/credentials")["credentials"].as_array().unwrap().len(), 2);
}

#[test]
fn a_filter_as_long_as_a_request_permits() {
    let edge = Edge::start();
    let rest = edge.rest();
    rest.create("/credentials", &json!({}));
    for (member, shown) in [("false", false), ("obj.id!=%27%27", true)] {
        let chain = vec![member; 15_000 / (member.len() + 2)].join("||");
        let list = rest.get(&format!("/credentials?filter={chain}"));
        assert_eq!(!list["credentials"].as_array().unwrap().is_empty(), shown, "{member}");
    }
}

#[test]
fn texts_of_sql_are_texts() {
    let edge = Edge::start();
    let rest = edge.rest();
    let sql = "'); DROP TABLE objects; --";
    let made = rest.create("/credentials", &json!({"description": sql, "metadata": sql}));
    let path = format!("/credentials/{}", made["id"].as_str().unwrap());
    assert_eq!(rest.get(&path)["metadata"], sql);
    assert_eq!(rest.refused("POST", "/credentials", &json!({"acl": [sql]})), (400, 215));
    let encoded = "%27%29%3B%20DROP%20TABLE%20objects%3B%20--";
    for path in [format!("/credentials/{encoded}"), format!("/{encoded}")] {
        assert_eq!(rest.refused("GET", &path, &Value::Null).0, 404);
    }
    let path = format!("/credentials?before_id={encoded}");
    assert_eq!(rest.refused("GET", &path, &Value::Null), (400, 227));
    let path = format!("/credentials?filter=obj.id+%3D%3D+{encoded}");
    assert_eq!(rest.refused("GET", &path, &Value::Null), (400, 250));
    assert_eq!(rest.get("/credentials")["credentials"].as_array().unwrap().len(), 2);
}

#[test]
fn an_address_with_wrong_keys_is_locked_and_the_operator_is_not() {
    let edge = Edge::start();
    let rest = edge.rest();
    let made = rest.create("/api_keys", &json!({}));
    let other = rest.with_key(made["token"].as_str().unwrap());
    other.get("/self");
    let wrong = rest.with_key("wrong_key");
    for _ in 0..10 {
        assert_eq!(wrong.refused("GET", "/", &Value::Null), (401, 203));
    }
    let answer = wrong.send("GET", "/", &wrong.fields(), b"");
    assert_eq!(answer.field("retry-after"), Some("60"));
    assert_eq!(
        error_of(answer.status(), &serde_json::from_str(&answer.text()).unwrap()),
        (429, 226)
    );
    assert_eq!(other.refused("GET", "/", &Value::Null), (429, 226), "a good key looks the same");
    rest.get("/self");
}

#[test]
fn a_key_has_a_number_of_requests_in_a_minute() {
    let edge = Serve::start("limits: {api_requests_per_minute: 5}\n");
    let rest = edge.rest();
    let key = rest.create("/api_keys", &json!({}));
    for _ in 0..4 {
        rest.get("/self");
    }
    assert_eq!(rest.refused("GET", "/self", &Value::Null), (429, 226));
    let other = rest.with_key(key["token"].as_str().unwrap());
    assert_eq!(other.get("/self")["requests_per_minute"], 5);
}

#[test]
fn a_damaged_store_refuses_changes_and_nothing_else() {
    let (mut edge, upstream) = (Edge::start(), Upstream::hello());
    let rest = edge.rest();
    let made = rest.create("/credentials", &json!({}));
    let agent = agent::http(&edge, upstream.port());
    let file = edge.dir().join("edge/accounts.db");
    let copy = edge.dir().join("copy.db");
    let backup = std::process::Command::new(env!("CARGO_BIN_EXE_culvert-edge"))
        .args(["backup", "copy.db", "--dir", "edge"])
        .current_dir(edge.dir())
        .status();
    assert!(backup.unwrap().success());
    let whole = |edge: &Edge| {
        for end in ["-wal", "-shm"] {
            let _ = fs::remove_file(edge.dir().join(format!("edge/accounts.db{end}")));
        }
    };
    // Replaced as a whole, so that the open file of the edge is another one.
    fs::remove_file(&file).unwrap();
    whole(&edge);
    fs::write(&file, "x".repeat(8_192)).unwrap();
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
    fs::set_permissions(&file, mode).unwrap();
    // A reload reads it, and keeps what it had.
    edge.process().signal("HUP");
    let said = edge.process().wait_stderr("invalid configuration not applied");
    assert!(said.contains("accounts.db") && said.contains("damaged"), "{said}");
    let path = format!("/credentials/{}", made["id"].as_str().unwrap());
    assert_eq!(rest.refused("PATCH", &path, &json!({"description": "x"})), (500, 500));
    assert_eq!(rest.refused("DELETE", &path, &Value::Null), (500, 500));
    assert_eq!(rest.get(&path)["description"], "", "it is still shown");
    agent.visit(&edge).get("/");
    // Repaired without a restart.
    fs::rename(&copy, &file).unwrap();
    assert_eq!(rest.change(&path, &json!({"description": "y"}))["description"], "y");
}

#[test]
fn a_locked_store_refuses_changes_until_it_is_free() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let rest = edge.rest();
    let made = rest.create("/credentials", &json!({}));
    let path = format!("/credentials/{}", made["id"].as_str().unwrap());
    let agent = agent::http(&edge, upstream.port());
    let store = rusqlite::Connection::open(edge.dir().join("edge/accounts.db")).unwrap();
    store.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let answer = rest.send("POST", "/credentials", &rest.fields(), b"{}");
    assert_eq!(answer.field("retry-after"), Some("1"));
    let body = serde_json::from_str(&answer.text()).unwrap();
    assert_eq!(error_of(answer.status(), &body), (503, 503));
    assert_eq!(rest.refused("DELETE", &path, &Value::Null), (503, 503));
    rest.get(&path);
    agent.visit(&edge).get("/");
    store.execute_batch("ROLLBACK").unwrap();
    rest.remove(&path);
}

#[test]
fn an_edge_does_not_start_with_a_store_of_a_newer_version() {
    let mut edge = Edge::start();
    edge.rest().create("/credentials", &json!({}));
    edge.process().signal("TERM");
    assert_eq!(edge.process().wait_exit(), Some(0));
    let file = edge.dir().join("edge/accounts.db");
    let store = rusqlite::Connection::open(&file).unwrap();
    store.pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_culvert-edge"));
    command
        .args(["dev", "--dir", "edge", "--agent-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"])
        .args(["--https-addr", "127.0.0.1:0", "--api-addr", "127.0.0.1:0", "--log", "stderr"])
        .current_dir(edge.dir());
    let mut newer = Process::start("culvert-edge", &mut command);
    assert_eq!(newer.wait_exit(), Some(1));
    let said = newer.stderr();
    assert!(said.contains("schema version 99") && said.contains("newer culvert-edge"), "{said}");
}

/// Kills of the edge in the usual run. `CULVERT_STORE_KILLS` is another number.
const KILLS: usize = 30;

/// Kills during writes: each acknowledged object is there afterwards, and no other object is
/// half there.
#[test]
fn a_kill_during_writes_leaves_whole_objects_only() {
    let mut edge = Edge::start();
    let mut acknowledged: Vec<(String, String)> = Vec::new();
    let kills = std::env::var("CULVERT_STORE_KILLS").map_or(KILLS, |n| n.parse().unwrap());
    for round in 0..kills {
        let rest = edge.rest();
        // The process is killed while this connection has further requests under way.
        let mut wire = wire::Wire::connect(rest.addr).unwrap();
        let marks: Vec<String> = (0..4).map(|n| format!("{round}-{n}")).collect();
        for mark in &marks {
            let body = json!({"description": mark, "metadata": mark.repeat(200)}).to_string();
            let head = format!(
                "POST /credentials HTTP/1.1\r\nHost: x\r\n{}Content-Length: {}\r\n\r\n",
                rest.fields(),
                body.len()
            );
            wire.write([head, body].concat()).unwrap();
        }
        // Between the first response and the last one, at another place each time.
        for mark in marks.iter().take(1 + round % 3) {
            let answer = wire.read_response("POST").unwrap();
            assert_eq!(answer.status(), 201);
            let made: Value = serde_json::from_str(&answer.text()).unwrap();
            acknowledged.push((made["id"].as_str().unwrap().to_owned(), mark.clone()));
        }
        edge.restart();
        // The last ones of this round; all of them at the end.
        check(&edge, acknowledged.iter().rev().take(3));
    }
    check(&edge, acknowledged.iter());
}

#[track_caller]
fn check<'a>(edge: &Edge, expected: impl Iterator<Item = &'a (String, String)>) {
    let rest = edge.rest();
    let mut found = std::collections::HashMap::new();
    let mut path = "/credentials".to_owned();
    loop {
        let page = until("a page of credentials", || {
            let (status, page) = rest.call("GET", &path, &Value::Null);
            assert_ne!(status, 429);
            (status == 200).then_some(page)
        });
        for object in page["credentials"].as_array().unwrap() {
            let text = |key: &str| object[key].as_str().unwrap().to_owned();
            if text("description").starts_with(|c: char| c.is_ascii_digit()) {
                assert_eq!(text("metadata"), text("description").repeat(200));
            }
            found.insert(text("id"), text("description"));
        }
        match page["next_page_uri"].as_str() {
            Some(next) => path = next.split_once(&rest.addr.to_string()).unwrap().1.to_owned(),
            None => break,
        }
    }
    for (id, mark) in expected {
        assert_eq!(found.get(id), Some(mark), "{id} was acknowledged");
    }
}
