//! Where the log goes, and what else is there: other programs read it.

use serde_json::Value;

use std::fs::File;
use std::io::{BufRead, BufReader};

use crate::world::agent;
use crate::world::edge::Edge;
use crate::world::upstream::Upstream;
use crate::world::{TempDir, wait_for};

#[test]
fn standard_output_has_records_only_and_standard_error_nothing() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    for format in ["json", "logfmt", "term"] {
        let agent = agent::agent(&edge.config, ["http", &upstream.port().to_string()])
            .arg("--log=stdout")
            .arg(format!("--log-format={format}"))
            // A deprecated flag warns in the log, not beside it.
            .arg("--region=eu")
            .spawn();
        agent.wait_stdout("the session", |line| {
            line.contains("tunnel session started").then_some(())
        });
        let lines = agent.stdout();
        for line in lines.lines() {
            if format == "json" {
                let record: Value = serde_json::from_str(line).unwrap_or_else(|e| {
                    panic!("{line}: {e}");
                });
                for key in ["t", "lvl", "msg", "obj"] {
                    assert!(record[key].is_string(), "{key}: {line}");
                }
            } else {
                // `term` is for terminals.
                assert!(line.starts_with("t=20") && line.contains(" lvl="), "{line}");
            }
            assert!(!line.contains('\x1b'), "no colours here: {line:?}");
        }
        assert!(lines.contains("--region: deprecated"), "{lines}");
        assert!(lines.contains("url"), "the URL is in a record: {lines}");
        assert_eq!(agent.stderr(), "", "nothing beside the log");
    }
}

#[test]
fn a_file_has_the_records_and_the_results_stay_where_they_are() {
    let (edge, upstream, dir) = (Edge::start(), Upstream::hello(), TempDir::new());
    let log = dir.join("agent.log");
    let mut agent = agent::agent(&edge.config, ["http", &upstream.port().to_string()])
        .arg(format!("--log={}", log.display()))
        .arg("--log-level=debug")
        .start();
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_for("the records", || text().contains("msg=\"tunnel session started\""));
    assert!(text().contains(&format!("url={}", agent.url())), "{}", text());
    assert!(text().contains("msg=\"open config file\" obj=app path="), "{}", text());

    // logrotate moves it away and says so.
    let old = dir.join("agent.log.1");
    std::fs::rename(&log, &old).unwrap();
    agent.process().signal("HUP");
    wait_for("records in a new file", || text().contains("configuration read again"));
    let old = std::fs::read_to_string(&old).unwrap();
    assert!(!old.contains("configuration read again"), "{old}");
}

#[test]
fn a_fifo_without_a_reader_keeps_nobody_waiting() {
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

#[test]
fn without_a_log_a_fatal_error_still_comes_to_standard_error() {
    let edge = Edge::start();
    let mut agent = agent::agent(&edge.config, ["http", "80"])
        .arg("--log=false")
        .arg("--authtoken=not-the-token-of-this-edge")
        .spawn();
    assert_eq!(agent.wait_exit(), Some(1));
    let said = agent.stderr();
    // A build for `make bench` tells its allocations.
    let mut lines = said.lines().filter(|line| !line.starts_with("heap allocations"));
    assert!(lines.all(|line| line.starts_with("ERROR:")), "{said}");
    assert!(said.contains("ERR_NGROK_"), "{said}");
}
