//! Faults that users met: one test for each, named after the symptom.
//!
//! A fault report becomes a test here before it is mended. The name states what was seen, the
//! assertions state what must be seen instead, and the test fails without the change. Look for
//! other faults of the same kind first: a test of the kind belongs to the module of its
//! promise. A test that needs another suite (a browser, a namespace, a service manager) goes
//! there, under the same rule.

use std::fs::File;
use std::io::{BufRead, BufReader};

use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::visitor::try_get;
use crate::support::wire::Wire;
use crate::support::{TempDir, wait_for};

#[test]
fn a_log_fifo_without_a_reader_blocks_the_agent() {
    let (edge, upstream, dir) = (Edge::start(), Upstream::hello(), TempDir::new());
    let fifo = dir.join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut agent = agent::agent(&edge.config, ["http", &upstream.port().to_string()])
        .arg(format!("--log={}", fifo.display()))
        .start();
    let url = agent.url().to_owned();
    // Who comes to read has what was said before.
    let mut lines = BufReader::new(File::open(&fifo).unwrap()).lines().map(|line| line.unwrap());
    assert!(lines.any(|line| line.contains(&url)));
    agent.process().signal("TERM");
    assert_eq!(agent.process().wait_exit(), Some(0));
}

/// A file that cannot be opened for want of a descriptor is there all the same.
#[test]
fn a_file_upstream_answers_404_when_descriptors_are_exhausted() {
    let (edge, upstream, site) = (Edge::start(), Upstream::echo(), TempDir::new());
    site.write("index.html", "the page");
    let more = format!(
        "endpoints:\n  - name: f\n    url: http://\n    upstream: {{url: 'file://{}'}}\n  - name: t\n    \
         url: tcp://\n    upstream: {{url: {}}}\n",
        site.path().display(),
        upstream.port()
    );
    let config = edge.config_with(&more);
    let agent = agent::agent(&config, ["start", "--all"]).limit_files(32).expect(2).start();
    let url = |scheme| &agent.endpoints.iter().find(|(url, _)| url.starts_with(scheme)).unwrap().0;
    let page = || try_get(&edge, url("http:"), "/").expect("an answer, not silence");
    assert_eq!(page().text(), "the page");
    let mut alive = Vec::new();
    loop {
        let mut wire = Wire::connect(edge.address_of(url("tcp:"))).unwrap();
        if wire.write("x").and_then(|()| wire.read_exact(1)).is_err() {
            break;
        }
        alive.push(wire);
    }
    let refused = page();
    assert_eq!(refused.status(), 503, "{refused:?}");
    assert!(refused.field("retry-after").is_some(), "{refused:?}");
    drop(alive);
    wait_for("it to serve", || page().text() == "the page");
}

/// What was captured stays in memory. It must not be what visitors are refused for.
#[cfg(all(feature = "web", feature = "inspect"))]
#[test]
fn captured_requests_use_up_the_memory_of_visitors() {
    use crate::support::{api::Api, proc};

    let edge = Edge::start();
    let upstream = Upstream::http(|_, wire| wire.respond("200 OK", "", &[b'x'; 40_000]));
    let config =
        edge.config_via(edge.agent, "  web_addr: 127.0.0.1:0\n  inspect_db_size: 67108864\n");
    let mut agent = agent::agent(&config, ["http", &upstream.port().to_string()]).start();
    let (url, pid) = (agent.url().to_owned(), agent.pid());
    let status = || try_get(&edge, &url, "/").map(|answer| answer.status());
    assert_eq!(status(), Some(200));
    // What a thread of a debug build has of addresses is most of it.
    let bytes = (proc::size(pid) + 10 * 1024) * 1024;
    let mut prlimit = std::process::Command::new("prlimit");
    prlimit.args(["--pid", &pid.to_string(), &format!("--as={bytes}")]);
    assert!(prlimit.status().unwrap().success());
    for n in 0..600 {
        assert_eq!(status(), Some(200), "visitor {n}, one after another");
    }
    let kept = Api::of(agent.process()).figure("culvert_inspect_bytes");
    assert!((256e3..16e6).contains(&kept), "{kept} bytes are captured");
}

#[cfg(feature = "web")]
#[test]
fn an_endpoint_starts_without_its_traffic_policy() {
    use crate::support::api::idle_agent;
    use serde_json::json;

    let edge = Edge::start();
    let policy = Upstream::http(|_, wire| wire.respond("200 OK", "", b"on_http_request: []"));
    let (_agent, api) = idle_agent(&edge);
    let url = format!("http://127.0.0.1:{}/policy.yml", policy.port());
    let nowhere = "http://127.0.0.1:1/policy.yml";
    // Our edge refuses every policy, which shows that it was sent.
    for (url, status, said) in [(&*url, 502, "'TrafficPolicy'"), (nowhere, 400, nowhere)] {
        let tunnel = json!({"name": "a", "proto": "http", "addr": 80, "traffic_policy_url": url});
        let endpoint = json!({"name": "a", "upstream": {"url": 80}, "traffic_policy_url": url});
        for (method, path, body) in [
            ("POST", "/api/tunnels", tunnel),
            ("POST", "/api/endpoints", endpoint.clone()),
            ("PUT", "/api/endpoints/a", endpoint),
        ] {
            let (got, error) = api.call(method, path, Some(body));
            assert_eq!(got, status, "{method} {path}: {error}");
            assert!(error["details"]["err"].as_str().unwrap().contains(said), "{error}");
        }
    }
    let missing = json!({"name": "a", "proto": "http", "addr": "file:///no/such/directory"});
    let (status, error) = api.call("POST", "/api/tunnels", Some(missing));
    assert_eq!(status, 400, "{error}");
    assert!(error["details"]["err"].as_str().unwrap().contains("/no/such/directory"), "{error}");
}
