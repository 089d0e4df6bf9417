//! A machine that lacks descriptors, threads or memory.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::agent::{self, Agent};
use crate::support::api::Api;
use crate::support::edge::Edge;
use crate::support::group::Group;
use crate::support::relay::Relay;
use crate::support::upstream::{Upstream, nobody};
use crate::support::visitor::{Visitor, try_get};
use crate::support::wire::{Message, Wire};
use crate::support::{is_reset, proc, wait_for, wait_idle};

/// A local API on a port of its own.
const API: &str = "  web_addr: 127.0.0.1:0\n";

/// Message of the agent without descriptors for visitors.
const EXHAUSTED: &str = "connection refused: no descriptors or memory";

/// An endpoint that is added to a configuration later.
const READ: &str = "  - name: r\n    url: http://read.localhost\n    upstream: {url: 9}\n";

/// An upstream that answers `/held` when its gate is open.
struct Holding {
    upstream: Upstream,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Holding {
    fn start() -> Self {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let theirs = Arc::clone(&gate);
        let upstream = Upstream::http(move |request, wire| {
            if request.target() == "/held" {
                let closed = theirs.0.lock().unwrap();
                drop(theirs.1.wait_while(closed, |open| !*open).unwrap());
            }
            wire.respond("200 OK", "", b"served")
        });
        Holding { upstream, gate }
    }

    fn open(&self, open: bool) {
        *self.gate.0.lock().unwrap() = open;
        self.gate.1.notify_all();
    }
}

/// Visitors at the same time, each waiting for its response.
struct Crowd {
    count: usize,
    refused: Arc<AtomicUsize>,
    answers: mpsc::Receiver<Option<Message>>,
}

impl Crowd {
    fn come(edge: &Edge, url: &str, count: usize) -> Self {
        let (tell, answers) = mpsc::channel();
        let refused = Arc::new(AtomicUsize::new(0));
        for _ in 0..count {
            let mut visitor = Visitor::connect(edge, url);
            visitor.send("GET", "/held", "Connection: close\r\n", b"").unwrap();
            let (tell, refused) = (tell.clone(), Arc::clone(&refused));
            thread::spawn(move || {
                let answer = visitor.wire.read_response("GET").ok();
                if answer.as_ref().is_some_and(|a| a.status() == 503) {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
                let _ = tell.send(answer);
            });
        }
        Crowd { count, refused, answers }
    }

    /// Waits until all visitors were refused except those that the upstream holds. Returns
    /// their number.
    #[track_caller]
    fn settle(&self, holding: &Holding, held_before: usize) -> usize {
        let held = || holding.upstream.open() - held_before;
        wait_for("everybody to be held or refused", || {
            self.refused.load(Ordering::Relaxed) + held() >= self.count
        });
        held()
    }

    /// Returns the number of visitors that got a response with this status; 0: no response.
    fn leave(self) -> impl Fn(u16) -> usize {
        let answers: Vec<_> = self.answers.iter().collect();
        assert_eq!(answers.len(), self.count);
        for refused in answers.iter().flatten().filter(|a| a.status() == 503) {
            assert!(refused.field("retry-after").is_some(), "{refused:?}");
        }
        let statuses: Vec<u16> =
            answers.iter().map(|a| a.as_ref().map_or(0, Message::status)).collect();
        move |status| statuses.iter().filter(|s| **s == status).count()
    }
}

/// Asserts that nothing is retried in a loop, and that the fault is logged rarely.
#[track_caller]
fn assert_calm(agent: &mut Agent, line: &str, since: Instant) {
    wait_idle(agent.pid());
    let lines = agent.process().count_stderr(line);
    let most = 1 + usize::try_from(since.elapsed().as_secs() / 60).unwrap();
    assert!((1..=most).contains(&lines), "{lines} lines, expected {most} at most");
    agent.process().assert_running();
}

fn serves(edge: &Edge, url: &str) -> bool {
    try_get(edge, url, "/x").is_some_and(|answer| answer.text() == "served")
}

#[test]
fn two_hundred_visitors_and_32_descriptors() {
    let (edge, holding) = (Edge::start(), Holding::start());
    let way = Relay::to(edge.agent);
    let port = holding.upstream.port().to_string();
    let config = edge.config_via(way.addr, API);
    let mut agent = agent::agent(&config, ["http", &port]).limit_files(32).start();
    let (api, url) = (Api::of(agent.process()), agent.url().to_owned());
    assert!(serves(&edge, &url));
    wait_for("its end", || holding.upstream.open() == 0);
    wait_idle(agent.pid());
    let before = proc::fds(agent.pid());
    let since = Instant::now();
    for last in [false, false, true] {
        let crowd = Crowd::come(&edge, &url, 200);
        let held = crowd.settle(&holding, 0);
        assert!(held >= 3, "{held} of 200 have a connection");
        // A quarter of the table is reserved for the agent, and two are for the API. (Higher
        // ones are inherited from the process that started the tests.)
        let open = proc::fd_numbers(agent.pid());
        let theirs = open.iter().filter(|fd| (32 - 8 - 2..32).contains(*fd)).count();
        assert_eq!(theirs, 0, "{open:?}");
        for _ in 0..10 {
            let tunnels = api.get("/api/tunnels");
            assert_eq!(tunnels["tunnels"].as_array().map(Vec::len), Some(1), "{tunnels}");
        }
        assert_calm(&mut agent, EXHAUSTED, since);
        if last {
            // The link breaks while they hold all descriptors.
            way.cut();
            agent.process().wait_stderr("session closed");
            way.mend();
            agent.process().hurry();
        } else {
            holding.open(true);
        }
        let with = crowd.leave();
        assert!(with(503) >= 200 - held && with(503) + with(200) <= 200);
        assert!(last || with(200) == held, "{} of {held} were served", with(200));
        holding.open(false);
        wait_for("it to serve again", || serves(&edge, &url));
        // Visitors of the broken link hold nothing either.
        holding.open(true);
        wait_for("connections to end", || holding.upstream.open() == 0);
        wait_for("descriptors to be closed", || proc::fds(agent.pid()) <= before);
        holding.open(false);
    }
}

/// The program reports what it tried, its limit, and what to do, both when it ends and when it
/// retries.
#[test]
fn without_descriptors_for_itself_it_says_how_many_it_may_have_and_how_to_have_more() {
    let edge = Edge::start();
    let config = edge.config_via(edge.agent, API);
    let (mut ended, mut retried) = (0, 0);
    for limit in 4.. {
        let start = agent::agent(&config, ["http", &nobody().port().to_string()]);
        let mut process = start.limit_files(limit).spawn();
        let advice = format!("the limit is {limit}; raise it (ulimit -n");
        let mut status = None;
        wait_for("an end, a word about it, or the endpoint", || {
            status = process.ended();
            let said = process.stderr();
            status.is_some() || said.contains(&advice) || process.stdout().contains(" -> ")
        });
        match status {
            // Too few for the program's own libraries.
            Some(status) if status.code() == Some(127) => continue,
            Some(status) => assert_eq!(status.code(), Some(1)),
            None if process.stdout().contains(" -> ") => break,
            None => {}
        }
        match status {
            // With its whole output.
            Some(_) => ended += usize::from(process.wait_exit().is_some()),
            None => retried += 1,
        }
        let said = process.stderr();
        let line = said.lines().find(|line| line.contains(&advice)).expect(&said);
        let tried = [
            "cannot be read",
            "cannot start",
            "cannot listen on",
            "cannot connect: ",
            "no session: ",
        ];
        assert!(tried.iter().any(|what| line.contains(what)), "{line}");
    }
    assert!(ended > 0 && retried > 0, "{ended} {retried}");
}

/// With two connections to the edge, one is lost while visitors of the other hold all
/// descriptors that they can have. It recovers, and so does the API.
#[test]
fn a_session_comes_back_while_visitors_hold_all_they_can() {
    let (edge, holding) = (Edge::start(), Holding::start());
    let ways = [Relay::to(edge.agent), Relay::to(edge.agent)];
    let more = format!(
        "{API}endpoints:\n  - name: e\n    url: http://held.localhost\n    upstream: {{url: {}}}\n",
        holding.upstream.port()
    );
    let config = edge.config_at(&[ways[0].addr, ways[1].addr], &more);
    let args = ["start", "--all", "--log-level", "info"];
    let mut agent = agent::agent(&config, args).limit_files(48).start();
    let (api, url) = (Api::of(agent.process()), agent.url().to_owned());
    let up = |agent: &mut Agent, n| {
        wait_for("the sessions", || agent.process().count_stderr("tunnel session started") >= n);
    };
    up(&mut agent, 2);
    let crowd = Crowd::come(&edge, &url, 100);
    crowd.settle(&holding, 0);
    for round in 0..4 {
        let closed = agent.process().count_stderr("session closed");
        ways[round % 2].cut();
        wait_for("the loss", || agent.process().count_stderr("session closed") > closed);
        // The visitors of this connection are gone; others arrive through the other one.
        let crowd = Crowd::come(&edge, &url, 60);
        wait_for("the table to be full", || crowd.refused.load(Ordering::Relaxed) > 0);
        ways[round % 2].mend();
        agent.process().hurry();
        up(&mut agent, 3 + round);
        drop(crowd);
    }
    // The configuration is read again, and the log opened.
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("endpoints:\n", &format!("endpoints:\n{READ}"))).unwrap();
    agent.process().signal("HUP");
    agent.process().wait_stderr("http://read.localhost");
    // One more endpoint, on both sessions, at the same time.
    let body = json!({"name": "new", "proto": "http", "addr": holding.upstream.port().to_string()});
    let new = api.create("/api/tunnels", body);
    let new = new["public_url"].as_str().expect("a URL").to_owned();
    let refused = try_get(&edge, &new, "/x").expect("an answer, not silence");
    assert_eq!(refused.status(), 503, "all descriptors are held");
    holding.open(true);
    drop(crowd);
    wait_for("it to serve", || serves(&edge, &url) && serves(&edge, &new));
    agent.process().assert_running();
}

#[test]
fn tcp_visitors_without_a_descriptor_are_closed_at_once() {
    let (edge, upstream) = (Edge::start(), Upstream::echo());
    let mut agent =
        agent::agent(&edge.config, ["tcp", &upstream.port().to_string()]).limit_files(32).start();
    let since = Instant::now();
    for _ in 0..3 {
        let mut alive = Vec::new();
        let mut refused = 0;
        for _ in 0..80 {
            // A refused visitor may get its reset before its own call returns.
            let visited = Wire::connect(edge.address_of(agent.url())).and_then(|mut wire| {
                wire.write("x")?;
                wire.read_exact(1)?;
                Ok(wire)
            });
            match visited {
                Ok(wire) => alive.push(wire),
                Err(error) => {
                    assert!(is_reset(&error), "silence instead of an end: {error}");
                    refused += 1;
                }
            }
        }
        assert!(!alive.is_empty() && refused > 0, "{} alive, {refused} refused", alive.len());
        for wire in &mut alive {
            wire.write("y").unwrap();
            assert_eq!(wire.read_exact(1).unwrap(), b"y");
        }
        assert_calm(&mut agent, EXHAUSTED, since);
        drop(alive);
        wait_for("connections to end", || upstream.open() == 0);
    }
    assert_eq!(agent.process().count_stderr("session closed"), 0);
}

/// The API's clients cannot take what sessions need either, and slow ones are closed.
#[test]
fn silent_clients_of_the_api_take_no_descriptor_that_a_session_needs() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let way = Relay::to(edge.agent);
    let config = edge.config_via(way.addr, API);
    let port = upstream.port().to_string();
    let mut agent = agent::agent(&config, ["http", &port]).limit_files(32).start();
    let api = Api::of(agent.process());
    let silent: Vec<_> = (0..60).map(|_| Wire::connect(api.addr).unwrap()).collect();
    wait_for("the table to be full", || {
        (15..32 - 8).all(|fd| proc::fd_numbers(agent.pid()).contains(&fd))
    });
    wait_idle(agent.pid());
    let open = proc::fd_numbers(agent.pid());
    let last = open.iter().filter(|fd| (32 - 8 - 2..32).contains(*fd)).count();
    assert!(last <= 2, "{open:?}");
    for _ in 0..3 {
        let sessions = agent.process().count_stderr("session closed");
        way.cut();
        wait_for("the loss", || agent.process().count_stderr("session closed") > sessions);
        way.mend();
        agent.process().hurry();
        wait_for("the session", || api.get("/api/status")["status"] == "online");
    }
    drop(silent);
    wait_for("it to serve", || {
        try_get(&edge, agent.url(), "/x").is_some_and(|answer| answer.text() == "GET /x ")
    });
}

/// One worker always exists. Without further threads it serves all visitors, one after another,
/// and a lost session recovers.
#[test]
fn no_thread_can_be_had() {
    let Some(group) = Group::of_threads() else { return };
    let (edge, holding) = (Edge::start(), Holding::start());
    let way = Relay::to(edge.agent);
    let port = holding.upstream.port().to_string();
    let config = edge.config_via(way.addr, API);
    let mut agent = agent::agent(&config, ["http", &port]).within(&group).start();
    let (pid, url) = (agent.pid(), agent.url().to_owned());
    wait_idle(pid);
    let threads = proc::threads(pid);
    group.limit_threads(Some(threads));
    let since = Instant::now();
    // Before the first visitor.
    for _ in 0..3 {
        let crowd = Crowd::come(&edge, &url, 40);
        wait_for("connections to the upstream", || holding.upstream.open() == 40);
        holding.open(true);
        assert_eq!(crowd.leave()(200), 40);
        holding.open(false);
        assert_calm(&mut agent, "cannot start a worker", since);
        assert_eq!(proc::threads(pid), threads);
    }
    // An idle worker is replaced by a new one, and stays if that fails.
    let refused = group.threads_refused();
    wait_for("its attempt", || group.threads_refused() > refused);
    assert!(serves(&edge, &url));
    way.cut();
    agent.process().wait_stderr("session closed");
    way.mend();
    agent.process().hurry();
    wait_for("it to serve by a new session", || serves(&edge, &url));
    assert_eq!(proc::threads(pid), threads);
    group.limit_threads(None);
    let crowd = Crowd::come(&edge, &url, 40);
    wait_for("more workers", || proc::threads(pid) > threads);
    holding.open(true);
    assert_eq!(crowd.leave()(200), 40);
    agent.process().kill();
}

/// Without a thread to dial the agent reports it, and connects as soon as there is one.
#[test]
fn a_session_without_a_thread() {
    let Some(group) = Group::of_threads() else { return };
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    group.limit_threads(Some(3));
    let args = ["http", &upstream.port().to_string()];
    let process = agent::agent(&edge.config_via(edge.agent, API), args).within(&group).spawn();
    process.wait_stderr("cannot start a thread; raise ulimit -u");
    group.limit_threads(None);
    process.hurry();
    let agent = Agent::wait(process, 1);
    assert_eq!(agent.visit(&edge).get("/").text(), "GET / ");
}

/// Connects. Returns nothing if the connection is reset at once.
#[track_caller]
fn connect_or_reset(door: SocketAddr) -> Option<Wire> {
    match Wire::connect(door) {
        Ok(wire) => Some(wire),
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => None,
        Err(e) => panic!("cannot connect: {e}"),
    }
}

/// An edge with few descriptors refuses visitors, keeps its agents, and recovers.
#[test]
fn five_hundred_visitors_of_an_edge_with_64_descriptors() {
    let (mut edge, holding) = (Edge::start_limited(64), Holding::start());
    let mut agent = agent::http(&edge, holding.upstream.port());
    let url = agent.url().to_owned();
    assert!(serves(&edge, &url));
    wait_idle(edge.pid());
    let before = proc::fds(edge.pid());
    // A refused visitor may be reset before its connect() returns.
    let silent = |door, n| (0..n).filter_map(|_| connect_or_reset(door)).collect::<Vec<_>>();
    let crowd = [silent(edge.http, 250), silent(edge.https, 250)];
    wait_idle(edge.pid());
    assert_eq!(edge.process().count_stderr("limit reached"), 1);
    // Unauthenticated connections to the agent port use the rest: nothing can be accepted until
    // their ten seconds are over.
    let before_that = proc::cpu(edge.pid()).unwrap();
    let strangers = silent(edge.agent, 60);
    edge.process().wait_stderr("cannot accept connections");
    edge.process().wait_stderr("agent not accepted");
    let cpu = proc::cpu(edge.pid()).unwrap() - before_that;
    assert!(cpu < Duration::from_secs(3), "{cpu:?} of a processor, for nothing");
    assert!(edge.process().stderr_lines() < 40, "{}", edge.process().stderr());
    drop((crowd, strangers));
    wait_for("it to serve", || serves(&edge, &url));
    wait_for("descriptors to be closed", || proc::fds(edge.pid()) <= before);
    edge.process().assert_running();
    assert_eq!(agent.process().count_stderr("session closed"), 0);
}

#[test]
fn without_memory_there_are_fewer_workers_or_visitors_and_it_recovers() {
    let (edge, holding) = (Edge::start(), Holding::start());
    holding.open(true);
    let mut agent = agent::http(&edge, holding.upstream.port());
    let url = agent.url().to_owned();
    let pid = agent.pid();
    let limit = |bytes: &str| {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &pid.to_string(), &format!("--as={bytes}:unlimited")]);
        assert!(prlimit.status().unwrap().success());
    };
    assert!(serves(&edge, &url));
    // An arena of glibc for each thread has 64 MiB of addresses, and where they are denied the
    // program is aborted.
    assert!(proc::size(pid) < 64 << 10, "{} KiB of addresses", proc::size(pid));
    // Not one page more than it has; then a little more, which may be enough for a part of the
    // work.
    for more in [0, 300] {
        wait_for("only the worker that stays", || proc::threads(pid) <= 4);
        limit(&((proc::size(pid) + more) * 1024).to_string());
        wait_for("memory to be denied", || {
            let count = Crowd::come(&edge, &url, 40).leave();
            let refused = count(502) + count(503) + count(0);
            assert_eq!(count(200) + refused, 40);
            more > 0 || refused > 0 || agent.process().count_stderr("cannot start a worker") > 0
        });
        assert_eq!(agent.process().count_stderr("workers are busy"), 0);
        agent.process().assert_running();
        limit("unlimited");
        wait_for("service", || serves(&edge, &url));
    }
    agent.process().signal("TERM");
    assert_eq!(agent.process().wait_exit(), Some(0));
}

/// By default it captures as much as suits the memory limit.
#[test]
fn a_limit_of_addresses_counts_as_all_the_memory_there_is() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let config = edge.config_via(edge.agent, API);
    let mut agent = agent::agent(&config, ["http", &upstream.port().to_string()])
        .by("ulimit -v 131072; exec \"$@\"")
        .start();
    let most = Api::of(agent.process()).figure("culvert_inspect_max_bytes");
    assert_eq!(most, f64::from(2 << 20));
}
