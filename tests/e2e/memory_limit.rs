//! `memory_limit`: the agent stays below it with any visitors and upstreams, refuses visitors
//! over its limits with a response, and serves as soon as they leave.
//!
//! The limit is for the whole program. A debug build is larger at rest than a release, so the
//! tests check its growth: by its own counters, under a limit of addresses, and in a group of
//! processes with a limit.

use std::fs;
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::thread;

use crate::overload::Hanging;
use crate::support::agent::{self, Agent};
use crate::support::certs::Authority;
use crate::support::edge::Edge;
use crate::support::group::Group;
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;
use crate::support::wire::Wire;
use crate::support::{proc, wait_for, wait_idle};

/// The limit in KiB, and the part that the program uses at rest (docs/internals/memory.md).
const LIMIT: u64 = 8 * 1024;
const BASE: u64 = 2304;

/// Workers that follow from the limit, ten times as many visitors, and a few more.
const WORKERS: usize = 12;
const MANY: usize = 10 * WORKERS + 10;

/// KiB of addresses for a thread in addition to a release build, and the part that glibc maps.
const WIDER: u64 = if cfg!(debug_assertions) { 1024 + 64 } else { 64 };

/// An agent with the limit, enforced from its state at rest on.
struct Held {
    agent: Agent,
    rest: u64,
    /// After the agent, whose end it waits for: fields are dropped in order.
    _group: Option<Group>,
}

impl Held {
    fn start(edge: &Edge, args: [&str; 2]) -> Self {
        let config = edge.config_via(edge.agent, &format!("  memory_limit: {LIMIT}KiB\n"));
        Held::of(edge, agent::agent(&config, args).start())
    }

    fn of(edge: &Edge, agent: Agent) -> Self {
        // One request, so that memory of the first visitor is allocated.
        drop(agent.visit(edge));
        wait_idle(agent.pid());
        let pid = agent.pid();
        fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the peak begins anew");
        let rest = proc::rss(pid);
        // A few threads besides the workers: dialling, calls.
        let addresses = proc::size(pid) + LIMIT - BASE + (WORKERS as u64 + 4) * WIDER;
        let set = Command::new("prlimit")
            .args([format!("--pid={pid}"), format!("--as={}", addresses * 1024)])
            .status();
        assert!(set.unwrap().success(), "prlimit");
        let group = Group::of_memory(LIMIT - BASE);
        if let Some(group) = &group {
            group.add(pid);
        }
        Held { agent, rest, _group: group }
    }

    #[track_caller]
    fn assert_below(&mut self, what: &str) {
        self.agent.process().assert_running();
        let taken = proc::peak(self.agent.pid()).saturating_sub(self.rest);
        eprintln!("{what}: {} KiB at rest, {taken} KiB more at most", self.rest);
        assert!(taken <= LIMIT - BASE, "{what}: {taken} KiB beyond its rest");
    }
}

#[test]
fn ten_times_more_visitors_than_workers() {
    let edge = Edge::start();
    let hanging = Hanging::new();
    let mut held = Held::start(&edge, ["http", &hanging.addr().to_string()]);
    let visitors: Vec<_> = (0..MANY)
        .map(|_| {
            let mut visitor = held.agent.visit(&edge);
            visitor.send("GET", "/", "", b"").unwrap();
            visitor
        })
        .collect();
    let statuses: Vec<_> = visitors
        .into_iter()
        .map(|mut v| v.wire.read_response("GET").expect("an answer, not silence").status())
        .collect();
    assert!(statuses.iter().all(|s| [502, 503].contains(s)), "{statuses:?}");
    let refused = statuses.iter().filter(|s| **s == 503).count();
    assert!(refused >= MANY - 5 * WORKERS, "{refused} of {MANY} were refused");
    assert!(proc::threads(held.agent.pid()) as usize <= WORKERS + 4);
    hanging.serve();
    wait_for("it to serve again", || held.agent.visit(&edge).get("/").text() == "GET / ");
    held.assert_below("an upstream that hangs");
}

/// Visitors that are held, all with their connection to the upstream.
fn hold(edge: &Edge, held: &Held, n: usize) -> Vec<Visitor> {
    let mut visitors = Vec::new();
    for _ in 0..n {
        let mut visitor = held.agent.visit(edge);
        visitor.send("GET", "/held", "", b"").unwrap();
        visitors.push(visitor);
    }
    visitors
}

/// Returns an upstream with TLS that answers `/held` when the sender is dropped.
fn tls_upstream_that_holds() -> (mpsc::Sender<()>, Upstream) {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let server = Authority::new().server(&["x"]);
    let upstream = Upstream::http_on("127.0.0.1:0", Some(server), move |request, wire| {
        if request.target() == "/held" {
            let _ = wait.lock().unwrap().recv();
        }
        wire.respond("200 OK", "", &[b'a'; 40_000])
    });
    (go, upstream)
}

#[test]
fn upstreams_behind_tls_that_take_their_time() {
    let edge = Edge::start();
    let (go, upstream) = tls_upstream_that_holds();
    let url = format!("https://localhost:{}", upstream.port());
    let mut held = Held::start(&edge, ["http", &url]);
    let visitors = hold(&edge, &held, MANY);
    wait_for("connections to the upstream", || upstream.open() >= WORKERS);
    drop(go);
    let mut served = 0;
    for mut visitor in visitors {
        match visitor.wire.read_response("GET").expect("an answer, not silence").status() {
            200 => served += 1,
            status => assert!([502, 503].contains(&status), "{status}"),
        }
    }

    assert!(served >= WORKERS, "{served} were served");
    wait_for("it to serve", || held.agent.visit(&edge).get("/").status() == 200);
    held.assert_below("TLS upstreams");
}

/// An upstream that reads four bytes and then nothing, or sends without end, or echoes. The
/// kernel buffers little for it, so that its visitors' bytes wait in the agent.
struct Deaf;

impl Deaf {
    fn start() -> u16 {
        let (domain, kind) = (socket2::Domain::IPV4, socket2::Type::STREAM);
        let listener = socket2::Socket::new(domain, kind, None).unwrap();
        listener.set_recv_buffer_size(4096).unwrap();
        let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(128).unwrap();
        let port = listener.local_addr().unwrap().as_socket().unwrap().port();
        let listener: std::net::TcpListener = listener.into();
        thread::spawn(move || {
            let mut deaf = Vec::new();
            for tcp in listener.incoming().flatten() {
                let mut wire = Wire::new(tcp);
                match wire.read_exact(4).as_deref() {
                    Ok(b"hold") => deaf.push(wire),
                    Ok(b"pour") => {
                        thread::spawn(move || while wire.write([b'p'; 65_536]).is_ok() {});
                    }
                    Ok(_) => drop(wire.write("heard")),
                    Err(_) => {}
                }
            }
        });
        port
    }
}

#[test]
fn slow_ends_with_full_buffers() {
    let edge = Edge::start();
    let upstream = Deaf::start();
    let mut held = Held::start(&edge, ["tcp", &upstream.to_string()]);
    let mut visitors = Vec::new();
    for n in 0..MANY {
        // The edge resets those over the limit, some before the connection is made.
        let Ok(mut visitor) = Wire::connect(edge.address_of(held.agent.url())) else { continue };
        let mut writer = visitor.clone_plain();
        if n % 3 == 0 {
            let _ = visitor.write("pour");
        } else {
            // On a thread, because it blocks after a few hundred thousand bytes.
            thread::spawn(move || {
                let _ = writer.write("hold").and_then(|()| writer.write(vec![b'h'; 4_000_000]));
            });
        }
        visitors.push(visitor);
    }
    // The log has that the limit was reached; the largest stream is reset.
    held.agent.process().wait_stderr("receiver is stalled");
    held.assert_below("full buffers");
    drop(visitors);
    wait_for("it to serve", || {
        let mut visitor = held.agent.visit(&edge);
        visitor.wire.write("word").and_then(|()| visitor.wire.read_exact(2)).is_ok()
    });
    held.assert_below("after full buffers");
}

#[test]
fn a_limit_that_is_too_small_is_refused_with_one_that_works() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let with = |limit: &str| {
        let args = ["http", &upstream.port().to_string(), "--memory-limit", limit];
        agent::agent(&edge.config_with(""), args)
    };
    let mut refused = with("1MiB").spawn();
    assert_eq!(refused.wait_exit(), Some(1));
    let line = refused.wait_stderr("the smallest that works is");
    let least = line.rsplit("works is ").next().unwrap();
    let least: String = least.chars().take_while(char::is_ascii_alphanumeric).collect();
    assert!(line.contains("memory_limit of 1048576 bytes is too small"), "{line}");
    let mut agent = with(&least).start();
    assert_eq!(agent.visit(&edge).get("/").text(), "GET / ");
    let given = agent.process().wait_stderr("applied memory_limit");
    assert!(given.contains("workers=1 ") && given.contains("store=0"), "{given}");
}

/// A router's memory, no limit of the program, and more visitors than it can serve: no process
/// is killed, and every visitor gets a response.
#[test]
fn a_machine_of_32_mib_and_300_visitors() {
    let Some(group) = Group::of_memory(32 * 1024) else { return };
    let edge = Edge::start();
    let (go, upstream) = tls_upstream_that_holds();
    let url = format!("https://localhost:{}", upstream.port());
    // Debug builds have larger stacks; only the used part counts.
    let mut agent = agent::agent(&edge.config, ["http", &url]).within(&group).start();
    let before = proc::fds(agent.pid());
    let mut visitors = Vec::new();
    for _ in 0..300 {
        let mut visitor = agent.visit(&edge);
        visitor.send("GET", "/held", "Connection: close\r\n", b"").unwrap();
        visitors.push(visitor);
    }
    wait_for("connections to the upstream", || upstream.open() >= 48);
    drop(go);
    let mut served = 0;
    for mut visitor in visitors {
        match visitor.wire.read_response("GET").expect("an answer, not silence").status() {
            200 => served += 1,
            status => assert!([502, 503].contains(&status), "{status}"),
        }
    }
    assert!(served >= 48, "{served} were served");
    wait_for("it to serve", || agent.visit(&edge).get("/").status() == 200);
    wait_for("connections to end", || proc::fds(agent.pid()) <= before);
    agent.process().assert_running();
    let peak = proc::peak(agent.pid());
    eprintln!("300 visitors, {served} served: {peak} KiB at most");
    assert!(peak < 32 * 1024, "{peak} KiB");
    agent.process().kill();
}

/// The group ends a process that uses more, else the tests above would prove nothing.
#[test]
fn a_group_with_a_limit_ends_who_takes_more() {
    let Some(group) = Group::of_memory(16 * 1024) else { return };
    let take = |mib: u32| {
        let procs = group.procs();
        let script = format!(
            "echo $$ > {}; dd if=/dev/zero of=/dev/null bs={mib}M count=1 2>&1",
            procs.display()
        );
        Command::new("sh").args(["-c", &script]).output().expect("a shell").status.success()
    };
    assert!(take(1), "little is allowed");
    assert!(!take(64), "dd has a buffer of four times the limit");
}
