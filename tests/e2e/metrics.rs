//! Metrics: the figures of the API and of `/metrics` are right.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::agent::agent;
use crate::support::api::{Api, config};
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::{program, wait_for};

#[test]
fn connections_bytes_and_requests_are_counted() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let mut agent = agent(&config(&edge, ""), ["http", &upstream.port().to_string()]).start();
    let api = Api::of(agent.process());
    let mut open = agent.visit(&edge);
    for _ in 0..5 {
        assert_eq!(open.get("/a").status(), 200);
    }
    for _ in 0..3 {
        let mut visitor = agent.visit(&edge);
        let answer = visitor.ask("POST", "/b", "Connection: close\r\n", &[b'x'; 10_000]);
        assert_eq!(answer.status(), 200);
    }
    let metrics = || api.get("/api/tunnels/command_line")["metrics"].clone();
    wait_for("three of four connections to end", || metrics()["conns"]["gauge"] == 1);
    let m = metrics();
    assert_eq!(m["conns"]["count"], 4, "{m}");
    assert_eq!(m["http"]["count"], 8, "{m}");
    for p in ["p50", "p90", "p95", "p99"] {
        assert!(m["conns"][p].as_u64().unwrap() > 1_000, "{m}");
        assert!(m["http"][p].as_u64().unwrap() > 1_000, "{m}");
    }
    drop(open);
    wait_for("the last one to end", || metrics()["conns"]["gauge"] == 0);
    let figure = |name: &str| api.figure(&format!("{name}{{endpoint=\"command_line\"}}"));
    assert_eq!(figure("culvert_connections_total"), 4.0);
    assert_eq!(figure("culvert_connections_open"), 0.0);
    assert_eq!(figure("culvert_http_requests_total"), 8.0);
    let (received, sent) =
        (figure("culvert_received_bytes_total"), figure("culvert_sent_bytes_total"));
    // Bodies, and heads of a few hundred bytes.
    assert!((30_000.0..36_000.0).contains(&received), "{received}");
    assert!((30_000.0..36_000.0).contains(&sent), "{sent}");
    // The averages make a step every five seconds.
    wait_for("a rate", || metrics()["conns"]["rate1"].as_f64().unwrap() > 0.0);
}

#[test]
fn prometheus_reads_the_text() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let config = config(&edge, "");
    let mut agent =
        agent(&config, ["http", &upstream.port().to_string()]).arg("--name=we\"ird\\ name").start();
    let api = Api::of(agent.process());
    assert_eq!(agent.visit(&edge).get("/").status(), 200);
    let answer = api.ask("GET", "/metrics", "", b"");
    assert_eq!(answer.field("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = answer.text();
    let families = parse(&text);
    for name in [
        "culvert_build_info",
        "culvert_uptime_seconds",
        "culvert_session_up",
        "culvert_sessions_total",
        "culvert_reconnects_total",
        "culvert_heartbeat_latency_seconds",
        "culvert_endpoint_up",
        "culvert_connections_total",
        "culvert_connections_open",
        "culvert_http_requests_total",
        "culvert_received_bytes_total",
        "culvert_sent_bytes_total",
        "culvert_workers",
        "culvert_workers_busy",
        "culvert_workers_max",
        "culvert_connections_queued",
        "culvert_connections_parked",
        "culvert_connections_refused_total",
        "culvert_inspect_bytes",
        "culvert_inspect_max_bytes",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert!(families.contains_key(name), "no {name} in\n{text}");
    }
    assert_eq!(families["culvert_sessions_total"], ("counter".into(), vec![1.0]));
    let rss = families["process_resident_memory_bytes"].1[0];
    assert!((1e5..1e9).contains(&rss), "{rss}");
    assert!(text.contains(r#"{endpoint="we\"ird\\ name"}"#), "{text}");

    let Some(promtool) = program("promtool") else { return };
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// Parses the text format strictly: a family's lines together, after its HELP and TYPE, each
/// sample once.
fn parse(text: &str) -> HashMap<String, (String, Vec<f64>)> {
    let mut families: HashMap<String, (String, Vec<f64>)> = HashMap::new();
    let (mut current, mut seen) = (String::new(), HashSet::new());
    assert!(text.ends_with('\n'));
    let mut help = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').expect("a text");
            assert!(!words.is_empty());
            help = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert_eq!(name, help, "HELP comes before TYPE");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            let before = families.insert(name.to_owned(), (kind.to_owned(), Vec::new()));
            assert!(before.is_none(), "{name} twice");
            current = name.to_owned();
        } else {
            let name_end = line.find(['{', ' ']).expect("a sample");
            assert_eq!(&line[..name_end], current, "a sample of another family");
            let (labels, value) = line.rsplit_once(' ').expect("a value");
            assert!(seen.insert(labels.to_owned()), "{labels} twice");
            let value: f64 = value.parse().expect("a number");
            families.get_mut(&current).expect("announced").1.push(value);
        }
    }
    families
}

#[test]
fn busybox_can_ask_for_health() {
    let Some(busybox) = program("busybox") else { return };
    let edge = Edge::start();
    let (_agent, api) = crate::support::api::idle_agent(&edge);
    let url = format!("http://{}/healthz", api.addr);
    let output = Command::new(busybox).args(["wget", "-q", "-O-", &url]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.starts_with("online for "), "{output:?}");
}
