//! The agent's handle: its own library, in this process, with the real edge.

use std::path::Path;
use std::process::Command;
use std::{env, thread};

use culvert::agent::{Agent, AgentState, EndpointState, Handle, StartError};
use culvert::config::{Endpoint, EndpointKind, Upstream as Address, file};

use crate::support::edge::Edge;
use crate::support::peer::{AUTH, BIND, BadEdge, auth_response};
use crate::support::upstream::Upstream;
use crate::support::visitor::try_get;
use crate::support::wait_for;

/// Runs a test in a process of its own. Signals and events of an agent share a descriptor that
/// a process has once, and `cargo test` runs all tests in one process.
fn alone(test: &str, body: fn()) {
    const CHILD: &str = "CULVERT_TEST_ALONE";
    if env::var_os(CHILD).is_some() {
        return body();
    }
    let mut command = Command::new(env::current_exe().unwrap());
    let name = format!("library_handle::{test}");
    let output = command.args(["--exact", &name, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

fn start(config: &Path) -> Handle {
    let loaded = file::load(&[config.to_str().unwrap().to_owned()]).unwrap();
    let agent = Agent::new(loaded.agent).unwrap();
    let handle = agent.handle();
    // It ends with the test's process.
    thread::spawn(move || agent.run());
    handle
}

fn endpoint(name: &str, upstream: &Upstream) -> Endpoint {
    let address = Address::parse(EndpointKind::Http, &upstream.port().to_string()).unwrap();
    let mut endpoint = Endpoint::new(name, EndpointKind::Http, address);
    endpoint.url = format!("http://{name}.localhost");
    endpoint
}

fn named(name: &'static str) -> Upstream {
    Upstream::http(move |_, wire| wire.respond("200 OK", "", name.as_bytes()))
}

#[test]
fn endpoints_come_change_and_go() {
    alone("endpoints_come_change_and_go", come_change_and_go);
}

fn come_change_and_go() {
    let (mut edge, one, two) = (Edge::start(), named("one"), named("two"));
    let handle = start(&edge.config_with(""));
    // Waits for the session by itself.
    let view = handle.start(endpoint("a", &one)).unwrap();
    assert_eq!(view.url, format!("http://a.localhost:{}", edge.http.port()));
    assert_eq!((view.state.clone(), view.proto.as_str()), (EndpointState::Up, "http"));
    assert!(!view.id.is_empty() && view.config.name == "a");
    let shown = |edge: &Edge| try_get(edge, &view.url, "/").map(|a| a.text());
    assert_eq!(shown(&edge).as_deref(), Some("one"));
    let status = handle.status();
    assert_eq!((status.state, status.sessions), (AgentState::Online, 1));
    assert!(status.legs.len() == 1 && status.legs[0].online && status.why.is_empty());
    wait_for("a heartbeat", || handle.status().legs[0].latency.is_some());
    assert!(handle.pool().max_workers > 0);

    assert!(matches!(handle.start(endpoint("a", &one)), Err(StartError::NameTaken)));
    let before = handle.changed();
    // Another upstream, another text, no change: the URL stays, and no connection is cut.
    let (same, created) = handle.put(endpoint("a", &two)).unwrap();
    assert_eq!((same.id.as_str(), created), (view.id.as_str(), false));
    assert_eq!(shown(&edge).as_deref(), Some("two"));
    let mut described = endpoint("a", &two);
    described.description = "described".into();
    let (same, _) = handle.put(described.clone()).unwrap();
    assert_eq!((same.id.as_str(), same.config.description.as_str()), (&*view.id, "described"));
    assert!(!handle.put(described.clone()).unwrap().1);
    assert_ne!(handle.changed(), before);
    // A change that this edge cannot make in place: bound again.
    described.pooling = true;
    let (anew, created) = handle.put(described).unwrap();
    assert!(!created && anew.id != view.id && anew.url == view.url);
    assert_eq!(shown(&edge).as_deref(), Some("two"));
    let (b, created) = handle.put(endpoint("b", &one)).unwrap();
    assert!(created && b.state == EndpointState::Up);

    // The edge's refusal with its text; the list is unchanged.
    let mut foreign = endpoint("c", &one);
    foreign.url = "http://nobodys.example".into();
    match handle.start(foreign) {
        Err(StartError::Refused(refusal)) => assert_eq!(refusal.code, Some(319)),
        other => panic!("{other:?}"),
    }
    let names = |handle: &Handle| -> Vec<String> {
        handle.endpoints().into_iter().map(|e| e.name).collect()
    };
    assert_eq!(names(&handle), ["a", "b"]);

    edge.restart();
    wait_for("both to be back", || {
        handle.endpoints().iter().all(|e| e.state == EndpointState::Up)
            && handle.status().sessions == 2
            && shown(&edge).as_deref() == Some("two")
    });
    handle.stop("a").unwrap();
    assert!(matches!(handle.stop("a"), Err(StartError::Unknown)));
    assert_eq!(names(&handle), ["b"]);
    assert_eq!(try_get(&edge, &view.url, "/").unwrap().status(), 404);
    // The name is free at once.
    handle.start(endpoint("a", &two)).unwrap();
    assert_eq!(shown(&edge).as_deref(), Some("two"));
}

#[test]
fn without_a_session_it_says_so() {
    alone("without_a_session_it_says_so", no_session);
}

fn no_session() {
    let (mut edge, upstream) = (Edge::start(), Upstream::hello());
    let config = edge.config_with("");
    edge.kill();
    let handle = start(&config);
    wait_for("the first failure", || !handle.status().why.is_empty());
    assert!(matches!(handle.start(endpoint("a", &upstream)), Err(StartError::NotReady)));
    assert!(handle.endpoints().is_empty());
    let status = handle.status();
    assert!(status.state == AgentState::Connecting && status.why.contains("connect"), "{status:?}");
}

/// Only the requesting thread waits for the edge.
#[test]
fn a_stuck_edge_delays_only_who_asked() {
    alone("a_stuck_edge_delays_only_who_asked", stuck_edge);
}

fn stuck_edge() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let handle = start(edge.agent(&[], "").config());
    let mut session = edge.accept();
    let (stream, _) = session.wait_call(AUTH);
    session.answer(stream, &auth_response());
    let asker = handle.clone();
    let stuck = endpoint("stuck", &upstream);
    let asked = thread::spawn(move || asker.start(stuck));
    session.wait_call(BIND);
    wait_for("the session to be shown", || handle.status().state == AgentState::Online);
    assert!(matches!(handle.stop("nobody"), Err(StartError::Unknown)));
    assert_eq!(handle.endpoints().len(), 1);
    handle.stop("stuck").unwrap();
    assert!(asked.join().unwrap().is_err(), "its endpoint was taken away");
    assert!(handle.endpoints().is_empty());
}
