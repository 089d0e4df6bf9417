//! Notifications to a service manager through its socket, in the file system and outside of it.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;

use serde_json::json;

use crate::support::edge::Edge;
use crate::support::peer::BadEdge;
use crate::support::process::Process;
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, TempDir};

/// Reads messages until one contains a text.
#[track_caller]
fn wait(socket: &UnixDatagram, text: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{text:?}: {e}; {seen:?}"));
        let message = String::from_utf8_lossy(&buffer[..n]).into_owned();
        if message.contains(text) {
            return message;
        }
        seen.push(message);
    }
}

#[test]
fn ready_status_watchdog_reloading_stopping() {
    let (mut edge, upstream, dir) = (Edge::start(), Upstream::hello(), TempDir::new());
    for hidden in [false, true] {
        let name = match hidden {
            false => dir.join("notify").to_str().unwrap().to_owned(),
            true => format!("@culvert-{}", std::process::id()),
        };
        let socket = match name.strip_prefix('@') {
            Some(name) => {
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap()
            }
            None => UnixDatagram::bind(&name).unwrap(),
        };
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_culvert"));
        command.args(["http", &upstream.port().to_string(), "--log", "stderr", "--config"]);
        command.arg(&edge.config).env("HOME", "/nonexistent").env("NOTIFY_SOCKET", &name);
        command.env("WATCHDOG_USEC", "300000").env_remove("WATCHDOG_PID");
        let mut agent = Process::start("culvert", &mut command);
        assert_eq!(wait(&socket, "READY"), "READY=1");
        wait(&socket, "STATUS=online, 1 endpoints up");
        for _ in 0..3 {
            assert_eq!(wait(&socket, "WATCHDOG"), "WATCHDOG=1");
        }
        agent.signal("HUP");
        assert!(wait(&socket, "RELOADING=1").contains("\nMONOTONIC_USEC="));
        wait(&socket, "READY=1");
        edge.kill();
        wait(&socket, "STATUS=reconnecting: ");
        // Without a session it is still alive.
        wait(&socket, "WATCHDOG=1");
        edge.restart();
        wait(&socket, "STATUS=online");
        agent.signal("TERM");
        wait(&socket, "STOPPING=1");
        assert_eq!(agent.wait_exit(), Some(0));
    }
}

/// A manager that is notified of an end would kill the restarted program.
#[test]
fn a_restart_that_the_edge_asks_for_is_no_end() {
    let (edge, upstream, dir) = (BadEdge::new(), Upstream::hello(), TempDir::new());
    let path = dir.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let agent = edge.agent(&["http", &upstream.port().to_string()], "");
    let mut agent = agent.env("NOTIFY_SOCKET", path).spawn();
    let mut session = edge.accept();
    session.welcome(&["http://again.localhost"]);
    wait(&socket, "STATUS=online");
    let answer = session.call(4, &json!({}));
    assert_eq!(answer["Error"].as_str().unwrap_or(""), "");
    let mut buffer = [0; 4096];
    let mut seen: Vec<String> = Vec::new();
    while !seen.iter().any(|message| message == "READY=1") {
        let n = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{e}; {seen:?}"));
        seen.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
    }
    assert!(seen.iter().any(|message| message.starts_with("RELOADING=1")), "{seen:?}");
    assert!(!seen.iter().any(|message| message.contains("STOPPING")), "{seen:?}");
    agent.assert_running();
}
