//! More visitors than the agent serves: a clear response, then back to normal.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::visitor::try_get;
use crate::support::wire::Wire;
use crate::support::{is_reset, proc, wait_for, wait_idle};

/// More than an agent with [`limited`] memory carries.
const MANY: usize = 700;

/// An agent that carries about 500 streams.
fn limited(edge: &Edge, command: &str, upstream: &Upstream) -> agent::Agent {
    let port = upstream.port().to_string();
    agent::agent(&edge.config, [command, &port, "--memory-limit", "64MiB"]).start()
}

#[test]
fn the_excess_is_refused_clearly_and_the_rest_is_served() {
    let edge = Edge::start();
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let upstream = Upstream::http(move |request, wire| {
        if request.target() == "/held" {
            // Ends when the sender is dropped.
            let _ = wait.lock().unwrap().recv();
        }
        wire.respond("200 OK", "", b"served")
    });
    let mut agent = limited(&edge, "http", &upstream);
    let mut visitors: Vec<_> = (0..MANY)
        .map(|_| {
            let mut visitor = agent.visit(&edge);
            visitor.send("GET", "/held", "Connection: close\r\n", b"").unwrap();
            visitor
        })
        .collect();
    // The last ones are over the limit: they get their response while all others are still
    // held.
    let last = visitors.pop().unwrap();
    let mut last = last.wire;
    let answer = last.read_response("GET").expect("an answer, not silence");
    assert!([502, 503].contains(&answer.status()), "{answer:?}");
    drop(go);
    let (mut served, mut refused) = (0, 1);
    for mut visitor in visitors {
        match visitor.wire.read_response("GET") {
            Ok(answer) if answer.status() == 200 => served += 1,
            Ok(answer) if [502, 503].contains(&answer.status()) => refused += 1,
            Ok(answer) => panic!("{answer:?}"),
            Err(error) => panic!("no answer: {error}"),
        }
    }
    assert!(served >= 32, "{served} served, {refused} refused");
    agent.process().assert_running();
    wait_for("connections to end", || upstream.open() == 0);
    for _ in 0..20 {
        assert_eq!(agent.visit(&edge).get("/").text(), "served");
    }
}

/// Workers that wait for an upstream without free connections are busy, and no connection can
/// be parked: the next visitors get the agent's own 503.
#[test]
fn a_full_pool_answers_with_503_and_recovers() {
    let edge = Edge::start();
    let hanging = Hanging::new();
    let config = edge.config_via(edge.agent, "  max_connections: 2\n  web_addr: 127.0.0.1:0\n");
    let mut agent = agent::agent(&config, ["http", &hanging.addr().to_string()]).start();
    // Two get a worker, eight wait for one, some of them too long.
    let visitors: Vec<_> = (0..20)
        .map(|_| {
            let mut visitor = agent.visit(&edge);
            visitor.send("GET", "/", "", b"").unwrap();
            visitor
        })
        .collect();
    let answers: Vec<_> =
        visitors.into_iter().map(|mut v| v.wire.read_response("GET").unwrap()).collect();
    assert!(answers.iter().all(|a| [502, 503].contains(&a.status())), "{answers:?}");
    let refused = answers.iter().find(|a| a.status() == 503).expect("nobody was refused");
    assert!(refused.field("retry-after").is_some(), "{refused:?}");
    assert!(refused.text().contains("connections"), "{refused:?}");
    agent.process().wait_stderr("connection refused: workers are busy");
    agent.process().wait_stderr("connection refused: no worker in time");
    #[cfg(feature = "web")]
    {
        let refused = answers.iter().filter(|a| a.status() == 503).count();
        let api = crate::support::api::Api::of(agent.process());
        assert_eq!(api.figure("culvert_connections_refused_total"), refused as f64);
    }
    hanging.serve();
    wait_for("it to serve again", || agent.visit(&edge).get("/").text() == "GET / ");
}

/// A listener with a full queue: a connection to it never completes.
pub struct Hanging {
    listener: socket2::Socket,
    /// Connections that fill the queue.
    fill: Vec<std::net::TcpStream>,
}

impl Hanging {
    pub fn new() -> Self {
        let listener =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(1).unwrap();
        let mut hanging = Hanging { listener, fill: Vec::new() };
        let soon = std::time::Duration::from_millis(300);
        // One attempt may fail because the machine is busy.
        let mut failed = 0;
        while failed < 3 {
            match std::net::TcpStream::connect_timeout(&hanging.addr(), soon) {
                Ok(tcp) => {
                    failed = 0;
                    hanging.fill.push(tcp);
                }
                Err(_) => failed += 1,
            }
            assert!(hanging.fill.len() < 100, "the queue of a listener has no end");
        }
        hanging
    }

    pub fn addr(&self) -> std::net::SocketAddr {
        self.listener.local_addr().unwrap().as_socket().unwrap()
    }

    /// Accepts connections from now on.
    pub fn serve(self) {
        let listener: std::net::TcpListener = self.listener.into();
        drop(self.fill);
        std::thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut wire = crate::support::wire::Wire::new(tcp);
                    while let Ok(request) = wire.read_request() {
                        let _ = crate::support::upstream::hello(&request, &mut wire);
                    }
                });
            }
        });
    }
}

#[test]
fn tcp_visitors_beyond_the_bound_are_closed_and_others_live() {
    let (edge, upstream) = (Edge::start(), Upstream::echo());
    let mut agent = limited(&edge, "tcp", &upstream);
    let mut alive = Vec::new();
    let mut closed = 0;
    for _ in 0..MANY {
        // The reset may come before the connection is complete for the visitor.
        let visited = Wire::connect(edge.address_of(agent.url())).and_then(|mut wire| {
            wire.write("x")?;
            wire.read_exact(1).map(|_| wire)
        });
        match visited {
            Ok(wire) => alive.push(wire),
            Err(error) => {
                assert!(is_reset(&error), "silence instead of an end: {error}");
                closed += 1;
            }
        }
    }
    assert!(alive.len() >= 32 && closed > 0, "{} alive, {closed} closed", alive.len());
    for wire in &mut alive {
        wire.write("y").unwrap();
        assert_eq!(wire.read_exact(1).unwrap(), b"y");
    }
    drop(alive);
    wait_for("connections to end", || upstream.open() == 0);
    let mut visitor = agent.visit(&edge);
    visitor.wire.write("z").unwrap();
    assert_eq!(visitor.wire.read_exact(1).unwrap(), b"z");
    agent.process().assert_running();
}

#[test]
fn a_storm_of_visitors_leaves_nothing_behind() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let mut agent = agent::http(&edge, upstream.port());
    let (url, pid) = (agent.url().to_owned(), agent.pid());
    assert_eq!(agent.visit(&edge).get("/").status(), 200);
    wait_idle(pid);
    let before = proc::fds(pid);
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..150 {
            let (edge, url, served) = (&edge, &url, &served);
            scope.spawn(move || {
                for _ in 0..20 {
                    let answer = try_get(edge, url, "/").expect("an answer, not silence");
                    match answer.status() {
                        200 => served.fetch_add(1, Ordering::Relaxed),
                        503 => 0,
                        _ => panic!("{answer:?}"),
                    };
                }
            });
        }
    });
    assert!(served.load(Ordering::Relaxed) > 1000, "{served:?} of 3000 were served");
    // Three threads that always exist, and the one worker that stays.
    wait_for("workers to go", || proc::threads(pid) <= 4);
    wait_for("file descriptors to be closed", || proc::fds(pid) <= before);
    agent.process().assert_running();
}
