//! `on_state_change`: the command that runs when the agent goes online, offline and ends.

use std::fs;
use std::path::Path;

use crate::support::agent::agent;
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::{TempDir, wait_for};

/// Returns a configuration with a command.
fn config(edge: &Edge, command: &str) -> std::path::PathBuf {
    edge.config_with(&format!("  on_state_change: |\n    {}\n", command.replace('\n', "\n    ")))
}

fn states(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn each_state_is_reported_and_no_process_is_left() {
    let (mut edge, upstream, dir) = (Edge::start(), Upstream::hello(), TempDir::new());
    let out = dir.join("states");
    let config = config(&edge, &format!("echo $CULVERT_STATE >>{}", out.display()));
    let mut running = agent(&config, ["http", &upstream.port().to_string()]).start();
    wait_for("the state online", || states(&out).last().is_some_and(|state| state == "online"));
    let children = format!("/proc/{0}/task/{0}/children", running.pid());
    wait_for("the command to be reaped", || fs::read_to_string(&children).unwrap().is_empty());
    edge.kill();
    wait_for("the state reconnecting", || {
        states(&out).last().is_some_and(|state| state == "reconnecting")
    });
    running.process().signal("TERM");
    wait_for("the state stopped", || states(&out).last().is_some_and(|state| state == "stopped"));
    assert_eq!(running.process().wait_exit(), Some(0));
    let mut seen = states(&out);
    // A command for it may still be running when the agent is online.
    seen.retain(|state| state != "connecting");
    assert_eq!(seen, ["online", "reconnecting", "stopped"]);
}

#[test]
fn the_command_gets_neither_credentials_nor_descriptors() {
    let (edge, upstream, dir) = (Edge::start(), Upstream::hello(), TempDir::new());
    let out = dir.join("seen");
    let script = format!(
        "{{ env; tr '\\0' ' ' </proc/$$/cmdline; echo; ls /proc/$$/fd; }} >{0}.new; mv {0}.new {0}",
        out.display()
    );
    let token = edge.authtoken();
    let config = config(&edge, &script);
    let _running = agent(&config, ["http", &upstream.port().to_string()])
        .env("CULVERT_AUTHTOKEN", &token)
        .env("HTTPS_PROXY_PASSWORD", "hush")
        .start();
    wait_for("the command", || out.exists());
    let text = fs::read_to_string(&out).unwrap();
    assert!(text.contains("CULVERT_STATE="), "{text}");
    assert!(!text.contains(&token) && !text.contains("hush"), "{text}");
    let descriptors = text.lines().filter(|line| line.parse::<u32>().is_ok_and(|fd| fd > 2));
    // A shell may keep a copy of its output with a high number.
    assert!(descriptors.filter(|fd| fd.parse::<u32>().unwrap() < 10).count() == 0, "{text}");
}

#[test]
fn a_command_that_fails_or_hangs_changes_nothing() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    for command in ["exit 7", "sleep 1000", "/nonexistent", "kill -KILL $$"] {
        let config = config(&edge, command);
        let mut running = agent(&config, ["http", &upstream.port().to_string()]).start();
        running.visit(&edge).get("/");
        if command == "exit 7" {
            running.process().wait_stderr("state command failed");
        }
        running.process().signal("TERM");
        assert_eq!(running.process().wait_exit(), Some(0), "{command}");
    }
}
