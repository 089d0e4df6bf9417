//! REST API of `culvert-edge`: what its clients create is kept, shown and acts at once.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::agent::{self, Agent};
use crate::support::edge::Edge;
use crate::support::serve::Serve;
use crate::support::upstream::Upstream;
use crate::support::wait_for;

const ALICE: &str = "2planted0rest0alice00000000_0123456789ABCDEFGHIJK";

fn serve() -> Serve {
    crate::support::process::plant_secret(ALICE);
    Serve::start(&format!(
        "credentials:\n  - {{id: alice, authtoken: {ALICE}, description: laptop, acl: ['bind:*']}}\n"
    ))
}

/// Starts an agent with an authtoken and one `http://NAME.tunnels.test` endpoint.
fn start(edge: &Serve, name: &str, token: &str, upstream: &Upstream) -> Agent {
    let config = edge.config(&format!("{name}.yml"), token);
    let url = format!("http://{name}.tunnels.test");
    agent::agent(&config, ["http", &upstream.port().to_string(), "--url", &url]).start()
}

fn ids(list: &Value, plural: &str) -> Vec<String> {
    let objects = list[plural].as_array().unwrap_or_else(|| panic!("{list}"));
    objects.iter().map(|o| o["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_invited_agent_connects_and_is_turned_out() {
    let (edge, upstream) = (serve(), Upstream::hello());
    let rest = edge.rest();
    let made = rest.create("/credentials", &json!({"description": "friend"}));
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    assert_eq!(made["uri"], format!("http://{}/credentials/{id}", rest.addr));
    let mut friend = start(&edge, "friend", token, &upstream);
    assert_eq!(edge.visit("friend.tunnels.test").read_response("GET").unwrap().status(), 200);
    // The token was shown once.
    let path = format!("/credentials/{id}");
    assert_eq!(rest.get(&path)["token"], Value::Null);
    // A narrower ACL ends the endpoint, not the session.
    rest.change(&path, &json!({"acl": ["bind:other.tunnels.test"]}));
    let said = friend.process().wait_stderr("endpoint stopped by the edge");
    assert!(said.contains("code=ERR_NGROK_316"), "{said}");
    assert_eq!(edge.visit("friend.tunnels.test").read_response("GET").unwrap().status(), 404);
    friend.process().assert_running();
    rest.remove(&path);
    assert_eq!(friend.process().wait_exit(), Some(1));
    let said = friend.process().stderr();
    assert!(said.contains("has been revoked") && said.contains("ERR_NGROK_107"), "{said}");
    assert_eq!(rest.refused("GET", &path, &Value::Null), (404, 404));
}

#[test]
fn entries_of_edge_yml_are_shown_and_cannot_be_changed() {
    let mut edge = serve();
    let rest = edge.rest();
    let list = rest.get("/credentials");
    let alice = list["credentials"][0].clone();
    assert_eq!(alice["description"], "alice: laptop");
    assert_eq!((&alice["acl"], &alice["token"]), (&json!(["bind:*"]), &Value::Null));
    let path = format!("/credentials/{}", alice["id"].as_str().unwrap());
    assert_eq!(rest.get(&path), alice);
    assert_eq!(rest.refused("PATCH", &path, &json!({"description": "x"})), (403, 403));
    assert_eq!(rest.refused("DELETE", &path, &Value::Null), (403, 403));
    // Both sources after a reload.
    let made = rest.create("/credentials", &json!({}));
    edge.process().signal("HUP");
    edge.process().wait_stderr("configuration reloaded");
    let expected = [made["id"].as_str().unwrap(), alice["id"].as_str().unwrap()];
    let mut found = ids(&rest.get("/credentials"), "credentials");
    found.sort_unstable();
    let mut expected = expected.map(str::to_owned);
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn accounts_survive_a_kill_and_are_in_the_backup() {
    let mut edge = Edge::start();
    let rest = edge.rest();
    let key = rest.create("/api_keys", &json!({"description": "terraform", "metadata": "{}"}));
    let made = rest.create("/credentials", &json!({"acl": ["bind:*.localhost"]}));
    edge.restart();
    let other = rest.with_key(key["token"].as_str().unwrap());
    assert_eq!(other.get("/self")["api_key"]["id"], key["id"]);
    let path = format!("/credentials/{}", made["id"].as_str().unwrap());
    assert_eq!(other.get(&path)["acl"], json!(["bind:*.localhost"]));
    let backup = |file: &str| {
        std::process::Command::new(env!("CARGO_BIN_EXE_culvert-edge"))
            .args(["backup", file, "--dir", "edge"])
            .current_dir(edge.dir())
            .output()
            .unwrap()
    };
    let first = backup("copy.db");
    assert!(first.status.success(), "{first:?}");
    let copy = std::fs::read(edge.dir().join("copy.db")).unwrap();
    let holds = |text: &str| copy.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(holds(made["id"].as_str().unwrap()) && holds("terraform"));
    assert!(!holds(key["token"].as_str().unwrap()), "only the hash is stored");
    assert!(!holds(made["token"].as_str().unwrap()));
    let second = backup("copy.db");
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    // A removed key is refused at once.
    rest.remove(&format!("/api_keys/{}", key["id"].as_str().unwrap()));
    assert_eq!(other.refused("GET", "/", &Value::Null), (401, 203));
}

#[test]
fn lists_have_pages_and_filters() {
    let edge = Edge::start();
    let rest = edge.rest();
    let made: Vec<String> = (0..5)
        .map(|n| {
            let object = rest.create("/api_keys", &json!({"description": format!("key {n}")}));
            object["id"].as_str().unwrap().to_owned()
        })
        .collect();
    let mut sorted = made.clone();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(ids(&rest.get("/api_keys"), "keys"), sorted);
    let first = rest.get("/api_keys?limit=2&filter=obj.description+!%3D+'key+0'");
    let next = first["next_page_uri"].as_str().unwrap().to_owned();
    let host = format!("http://{}", rest.addr);
    let second = rest.get(next.strip_prefix(&host).unwrap());
    assert_eq!(second["next_page_uri"], Value::Null);
    let both = [ids(&first, "keys"), ids(&second, "keys")].concat();
    let expected: Vec<String> = sorted.iter().filter(|id| **id != made[0]).cloned().collect();
    assert_eq!(both, expected);
    assert_eq!(first["uri"], format!("{host}/api_keys"));
    for (query, code) in [
        ("limit=0", 233),
        ("limit=101", 233),
        ("limit=x", 233),
        ("before_id=cr_000000000000000000000000000", 227),
        ("filter=obj.id+%3D", 250),
        ("filter=obj.nope+%3D%3D+1", 250),
        ("order=x", 231),
        ("limit=1&limit=2", 232),
        ("limit=%zz", 230),
    ] {
        let path = format!("/api_keys?{query}");
        assert_eq!(rest.refused("GET", &path, &Value::Null), (400, code), "{query}");
    }
}

#[test]
fn the_root_lists_what_the_edge_has() {
    let edge = Edge::start();
    let rest = edge.rest();
    let root = rest.get("/");
    let uris: Vec<&str> =
        root.as_object().unwrap().values().filter_map(Value::as_str).skip(1).collect();
    assert!(uris.len() > 1);
    for uri in uris {
        let path = uri.strip_prefix(&format!("http://{}", rest.addr)).unwrap();
        rest.get(path);
    }
    assert_eq!(rest.get("/self")["api_key"]["id"], "local");
    for path in ["/ssh_credentials", "/edges/https", "/credentials/cr_1/x/y"] {
        assert_eq!(rest.refused("GET", path, &Value::Null).0, 404, "{path}");
    }
    assert_eq!(rest.refused("PUT", "/credentials", &Value::Null), (405, 405));
    assert_eq!(rest.refused("POST", "/self", &Value::Null), (405, 405));
}

#[test]
fn a_connection_carries_many_requests() {
    let edge = Edge::start();
    let rest = edge.rest();
    let mut wire = crate::support::wire::Wire::connect(rest.addr).unwrap();
    let request = format!("GET /self HTTP/1.1\r\nHost: {}\r\n{}\r\n", rest.addr, rest.fields());
    for _ in 0..3 {
        wire.write(&request).unwrap();
        assert_eq!(wire.read_response("GET").unwrap().status(), 200);
    }
    // Neither the response to a HEAD nor an error shifts the next response.
    wire.write(request.replacen("GET", "HEAD", 1)).unwrap();
    assert_eq!(wire.read_response("HEAD").unwrap().status(), 405);
    // Two at once.
    wire.write([&*request, &*request].concat()).unwrap();
    for _ in 0..2 {
        assert_eq!(wire.read_response("GET").unwrap().status(), 200);
    }
}

#[test]
fn idle_connections_hold_no_thread_and_have_a_limit() {
    let edge = Edge::start();
    let rest = edge.rest();
    let connect = || crate::support::wire::Wire::connect(rest.addr).unwrap();
    // More than there are threads.
    let idle: Vec<_> = (0..20).map(|_| connect()).collect();
    rest.get("/self");
    drop(idle);
    let mut all: Vec<_> = (0..64).map(|_| connect()).collect();
    // The oldest one is closed for one more. Those before may have been refused because of the
    // idle ones: what is accepted is kept, until the places are full.
    wait_for("the oldest connection to be closed", || {
        all.push(connect());
        all[0].tcp().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        all[0].read_rest().is_ok_and(|bytes| bytes.is_empty())
    });
    all.clear();
    wait_for("a place", || {
        let request = format!("GET /self HTTP/1.1\r\nHost: x\r\n{}\r\n", rest.fields());
        let mut wire = connect();
        wire.write(request).is_ok() && wire.read_response("GET").is_ok_and(|r| r.status() == 200)
    });
}
