//! REST API of `culvert-edge`: agents, their endpoints, commands to them, reserved names and IP
//! restrictions. What they forbid ends at once.

use serde_json::{Value, json};

use crate::support::agent::{self, Agent};
use crate::support::edge::Edge;
use crate::support::serve::Serve;
use crate::support::upstream::Upstream;
use crate::support::wait_for;

const ALICE: &str = "2planted0rest0agents0000000_0123456789ABCDEFGHIJK";

fn serve(more: &str) -> Serve {
    crate::support::process::plant_secret(ALICE);
    Serve::start(&format!("credentials: [{{id: alice, authtoken: {ALICE}}}]\n{more}"))
}

fn start(edge: &Serve, url: &str, upstream: &Upstream) -> Agent {
    let config = edge.config("alice.yml", ALICE);
    agent::agent(&config, ["http", &upstream.port().to_string(), "--url", url]).start()
}

/// Returns the only object of a list.
#[track_caller]
fn only(list: &Value, plural: &str) -> Value {
    let objects = list[plural].as_array().unwrap_or_else(|| panic!("{list}"));
    assert_eq!(objects.len(), 1, "{list}");
    objects[0].clone()
}

fn id(object: &Value) -> String {
    object["id"].as_str().unwrap_or_else(|| panic!("{object}")).to_owned()
}

#[test]
fn agents_and_their_endpoints_are_shown() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let rest = edge.rest();
    assert_eq!(rest.get("/tunnel_sessions")["tunnel_sessions"], json!([]));
    let config = edge.config_with("  metadata: kitchen\n");
    let agent =
        agent::agent(&config, ["http", &upstream.port().to_string(), "--name", "web"]).start();
    let session = only(&rest.get("/tunnel_sessions"), "tunnel_sessions");
    for (key, value) in [
        ("metadata", "kitchen"),
        ("ip", "127.0.0.1"),
        ("os", "linux"),
        ("region", "self"),
        ("transport", "ngrok/3"),
    ] {
        assert_eq!(session[key], value, "{session}");
    }
    assert!(session["agent_version"].as_str().is_some_and(|v| !v.is_empty()), "{session}");
    assert_eq!(rest.get(&format!("/tunnel_sessions/{}", id(&session))), session);
    let credential = session["credential"]["uri"].as_str().unwrap();
    let path = credential.split_once(&rest.addr.to_string()).unwrap().1;
    assert_eq!(rest.get(path)["id"], session["credential"]["id"]);

    let endpoint = only(&rest.get("/endpoints"), "endpoints");
    assert_eq!(endpoint["public_url"], agent.url());
    assert_eq!(endpoint["url"], agent.url());
    assert_eq!((&endpoint["proto"], &endpoint["type"]), (&json!("http"), &json!("agent")));
    assert_eq!(endpoint["upstream_url"], format!("http://localhost:{}", upstream.port()));
    assert_eq!(endpoint["tunnel_session"]["id"], session["id"]);
    assert_eq!(endpoint["port"], edge.http.port());
    let tunnel = only(&rest.get("/tunnels"), "tunnels");
    assert_eq!(tunnel["public_url"], agent.url());
    assert_eq!(tunnel["endpoint"]["id"], endpoint["id"]);
    assert_eq!(endpoint["tunnel"]["id"], tunnel["id"]);
    for path in [
        format!("/endpoints/{}", id(&endpoint)),
        format!("/tunnels/{}", id(&tunnel)),
        format!("/endpoints?filter=obj.tunnel_session.id+%3D%3D+'{}'", id(&session)),
    ] {
        rest.get(&path);
    }
    assert_eq!(rest.refused("POST", "/endpoints", &json!({"url": "https://x"})).0, 404);
    drop(agent);
    wait_for("the session to be gone", || {
        rest.get("/tunnel_sessions")["tunnel_sessions"] == json!([])
            && rest.get("/endpoints")["endpoints"] == json!([])
    });
}

#[test]
fn a_stopped_agent_ends_and_a_restarted_one_has_another_id() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let rest = edge.rest();
    let mut agent = agent::http(&edge, upstream.port());
    let first = id(&only(&rest.get("/tunnel_sessions"), "tunnel_sessions"));
    let path = format!("/tunnel_sessions/{first}");
    assert_eq!(rest.call("POST", &format!("{path}/restart"), &json!({})), (204, Value::Null));
    wait_for("the session of the restarted agent", || {
        let list = rest.get("/tunnel_sessions");
        let sessions = list["tunnel_sessions"].as_array().unwrap().clone();
        sessions.len() == 1 && sessions[0]["id"] != first
    });
    let second = id(&only(&rest.get("/tunnel_sessions"), "tunnel_sessions"));
    let path = format!("/tunnel_sessions/{second}");
    // ngrok's package for Python fails at a response without a body.
    let fields = format!("{}User-Agent: ngrok-api-python/0.0.0/3.11.7\r\n", rest.fields());
    let answer = rest.send("POST", &format!("{path}/stop"), &fields, b"");
    assert_eq!((answer.status(), &*answer.text()), (200, "{}"));
    assert_eq!(agent.process().wait_exit(), Some(0));
    let gone = rest.refused("POST", &format!("{path}/stop"), &Value::Null);
    assert_eq!(gone, (404, 404));
    assert_eq!(rest.refused("GET", &format!("{path}/stop"), &Value::Null), (405, 405));
    assert_eq!(rest.refused("POST", &format!("{path}/explode"), &Value::Null), (404, 404));
}

#[test]
fn an_agent_without_remote_management_refuses_commands() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let rest = edge.rest();
    let config = edge.config_with("  remote_management: false\n");
    let mut agent = agent::agent(&config, ["http", &upstream.port().to_string()]).start();
    let path =
        format!("/tunnel_sessions/{}", id(&only(&rest.get("/tunnel_sessions"), "tunnel_sessions")));
    for (command, code) in [("stop", 804), ("restart", 805), ("update", 806)] {
        let (status, body) = rest.call("POST", &format!("{path}/{command}"), &json!({}));
        assert_eq!((status, &body["error_code"]), (400, &json!(format!("ERR_NGROK_{code}"))));
        assert!(body["msg"].as_str().unwrap().contains("remote management"), "{body}");
    }
    let unknown = rest.refused("POST", &format!("{path}/update"), &json!({"versoin": "1"}));
    assert_eq!(unknown, (400, 214));
    let kick = std::process::Command::new(env!("CARGO_BIN_EXE_culvert-edge"))
        .args(["kick", path.rsplit('/').next().unwrap(), "--dir", "edge"])
        .current_dir(edge.dir())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&kick.stderr);
    assert!(said.contains("ERR_NGROK_804") && said.contains("remove its authtoken"), "{said}");
    agent.process().assert_running();
}

#[test]
fn a_reserved_domain_can_be_bound_until_it_is_removed() {
    let (edge, upstream) = (serve(""), Upstream::hello());
    let rest = edge.rest();
    let made = rest.create("/reserved_domains", &json!({"domain": "App.Other.test", "region": ""}));
    assert_eq!(made["domain"], "app.other.test");
    let mut agent = start(&edge, "http://app.other.test", &upstream);
    assert_eq!(edge.visit("app.other.test").read_response("GET").unwrap().status(), 200);
    let endpoint = only(&rest.get("/endpoints"), "endpoints");
    assert_eq!(endpoint["domain"]["id"], made["id"]);
    assert_eq!(
        rest.refused("POST", "/reserved_domains", &json!({"domain": "app.other.test"})),
        (409, 215)
    );
    assert_eq!(rest.refused("POST", "/reserved_domains", &json!({"domain": "a b"})), (400, 326));
    assert_eq!(rest.refused("POST", "/reserved_domains", &json!({})), (400, 215));
    let path = format!("/reserved_domains/{}", id(&made));
    assert_eq!(rest.change(&path, &json!({"description": "x"}))["domain"], "app.other.test");
    rest.remove(&path);
    agent.process().wait_stderr("endpoint stopped by the edge");
    assert_eq!(edge.visit("app.other.test").read_response("GET").unwrap().status(), 404);
    // The edge's own domain is of its configuration.
    let own = only(&rest.get("/reserved_domains"), "reserved_domains");
    assert_eq!(own["domain"], "*.tunnels.test");
    let path = format!("/reserved_domains/{}", id(&own));
    assert_eq!(rest.refused("DELETE", &path, &Value::Null), (403, 403));
}

#[test]
fn a_reserved_address_is_not_given_at_random() {
    let edge = Edge::start();
    let rest = edge.rest();
    let made = rest.create("/reserved_addrs", &json!({"description": "ssh"}));
    let address = made["addr"].as_str().unwrap();
    let port = address.strip_prefix("localhost:").unwrap();
    let url = format!("tcp://localhost:{port}");
    let agent = agent::agent(&edge.config, ["tcp", "9", "--url", &url]).start();
    assert_eq!(agent.url(), url);
    assert_eq!(only(&rest.get("/endpoints"), "endpoints")["tcp_addr"]["id"], made["id"]);
    rest.remove(&format!("/reserved_addrs/{}", id(&made)));
}

#[test]
fn an_ip_restriction_ends_sessions_and_refuses_visitors() {
    let (edge, upstream) = (serve(""), Upstream::hello());
    let rest = edge.rest();
    let mut agent = start(&edge, "http://a.tunnels.test", &upstream);
    let policy = id(&rest.create("/ip_policies", &json!({"description": "office", "action": ""})));
    let rule = rest.create(
        "/ip_policy_rules",
        &json!({"ip_policy_id": policy, "cidr": "192.0.2.0/24", "action": "allow"}),
    );
    assert_eq!(rule["ip_policy"]["id"], policy);
    let make = |kind: &str, enforced: bool| {
        let body = json!({"type": kind, "enforced": enforced, "ip_policy_ids": [policy]});
        format!("/ip_restrictions/{}", id(&rest.create("/ip_restrictions", &body)))
    };
    // Visitors.
    let endpoints = make("endpoints", true);
    assert_eq!(edge.visit("a.tunnels.test").read_response("GET").unwrap().status(), 403);
    rest.change(&endpoints, &json!({"enforced": false}));
    assert_eq!(edge.visit("a.tunnels.test").read_response("GET").unwrap().status(), 200);
    // Clients send an empty list for one that they do not change.
    let kept = rest.change(&endpoints, &json!({"enforced": true, "ip_policy_ids": []}));
    assert_eq!(kept["ip_policies"][0]["id"], policy);
    rest.remove(&endpoints);
    // Agents: first only a line in the log.
    let agents = make("agent", false);
    agent.process().assert_running();
    rest.change(&agents, &json!({"enforced": true}));
    assert_eq!(agent.process().wait_exit(), Some(1));
    let said = agent.process().stderr();
    assert!(said.contains("ERR_NGROK_115"), "{said}");
    // The policy is in use.
    let path = format!("/ip_policies/{policy}");
    assert_eq!(rest.refused("DELETE", &path, &Value::Null), (400, 223));
    // A rule that allows this machine.
    let here = json!({"ip_policy_id": policy, "cidr": "127.0.0.0/8"});
    let rule = format!("/ip_policy_rules/{}", id(&rest.create("/ip_policy_rules", &here)));
    let mut agent = start(&edge, "http://a.tunnels.test", &upstream);
    rest.change(&rule, &json!({"cidr": "127.1.0.0/16"}));
    assert_eq!(agent.process().wait_exit(), Some(1));
    // The API on loopback cannot lock the operator out.
    let api = make("api", true);
    rest.get("/self");
    rest.remove(&api);
    rest.remove(&agents);
    rest.remove(&path);
    assert_eq!(rest.get("/ip_policy_rules")["ip_policy_rules"], json!([]));
}

#[test]
fn rules_and_restrictions_that_are_not_valid() {
    let edge = Edge::start();
    let rest = edge.rest();
    let policy = id(&rest.create("/ip_policies", &json!({})));
    for (path, body, expected) in [
        ("/ip_policy_rules", json!({"cidr": "10.0.0.0/8"}), (400, 215)),
        ("/ip_policy_rules", json!({"ip_policy_id": "ipp_1", "cidr": "10.0.0.0/8"}), (400, 223)),
        ("/ip_policy_rules", json!({"ip_policy_id": policy, "cidr": "10.0.0.0/99"}), (400, 362)),
        (
            "/ip_policy_rules",
            json!({"ip_policy_id": policy, "cidr": "x", "action": "drop"}),
            (400, 215),
        ),
        ("/ip_restrictions", json!({"type": "dashboard"}), (400, 215)),
        ("/ip_restrictions", json!({"type": "agent", "ip_policy_ids": ["ipp_1"]}), (400, 223)),
        ("/ip_restrictions", json!({"type": "agent", "enforced": "yes"}), (400, 215)),
    ] {
        assert_eq!(rest.refused("POST", path, &body), expected, "{path} {body}");
    }
}
