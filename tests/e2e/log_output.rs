//! Destinations of the log, and other outputs: other programs read them.

use serde_json::Value;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::support::agent::{self, Agent, Builder};
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::visitor::try_get;
use crate::support::{TempDir, skipped, until, wait_for};

/// An endpoint whose URL is known in advance.
const URL: &str = "http://x.localhost";

fn at_known_url(edge: &Edge, upstream: &Upstream, log: &str) -> Builder {
    let port = upstream.port().to_string();
    agent::agent(&edge.config, ["http", &port, "--url", URL])
        .arg(format!("--log={log}"))
        .arg("--log-format=logfmt")
        .arg("--log-level=debug")
}

fn is_served(edge: &Edge) -> bool {
    try_get(edge, URL, "/").is_some_and(|answer| answer.status() == 200)
}

#[track_caller]
fn assert_ends_well(mut agent: Agent) {
    agent.process().signal("TERM");
    assert_eq!(agent.process().wait_exit(), Some(0));
}

#[test]
fn standard_output_has_records_only_and_standard_error_nothing() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    for format in ["json", "logfmt", "term"] {
        let agent = agent::agent(&edge.config, ["http", &upstream.port().to_string()])
            .arg("--log=stdout")
            .arg(format!("--log-format={format}"))
            // A deprecated flag is a warning in the log, not beside it.
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
        assert!(lines.contains("deprecated flag") && lines.contains("--region"), "{lines}");
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

    // logrotate moves it away and sends the signal.
    let old = dir.join("agent.log.1");
    std::fs::rename(&log, &old).unwrap();
    agent.process().signal("HUP");
    wait_for("records in a new file", || text().contains("configuration reloaded"));
    let old = std::fs::read_to_string(&old).unwrap();
    assert!(!old.contains("configuration reloaded"), "{old}");
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
    // A build for `make bench` prints its allocations.
    let mut lines = said.lines().filter(|line| !line.starts_with("heap allocations"));
    assert!(lines.all(|line| line.starts_with("ERROR:")), "{said}");
    assert!(said.contains("ERR_NGROK_"), "{said}");
}

/// Starts an agent with a disk of 64 KiB, in a mount namespace of its own. `None`: this machine
/// does not permit mounts.
fn on_small_disk(builder: Builder, disk: &Path) -> Option<Agent> {
    fs::create_dir(disk).unwrap();
    let disk = disk.display();
    let script = format!(
        "unshare -rm true || exit 77
         exec unshare -rm sh -c 'mount -t tmpfs -o size=64k none {disk} || exit 77; exec \"$@\"' \
             sh \"$@\""
    );
    let mut agent = Agent::wait(builder.by(&script).spawn(), 0);
    // Its root is visible here, with that disk.
    let there = PathBuf::from(format!("/proc/{}/root{disk}/log", agent.pid()));
    let ended = until("a log", || {
        if there.exists() {
            return Some(false);
        }
        agent.process().ended().map(|_| true)
    });
    if ended {
        assert_eq!(agent.process().wait_exit(), Some(77));
        skipped("this machine lets the test mount nothing");
        return None;
    }
    Some(agent)
}

#[test]
fn a_full_disk_costs_lines_of_the_log_and_nothing_else() {
    let (edge, upstream, dir) = (Edge::start(), Upstream::hello(), TempDir::new());
    let disk = dir.join("disk");
    let builder = at_known_url(&edge, &upstream, &disk.join("log").display().to_string());
    let Some(mut agent) = on_small_disk(builder, &disk) else { return };
    let there = PathBuf::from(format!("/proc/{}/root{}", agent.pid(), disk.display()));
    wait_for("a served visitor", || is_served(&edge));
    // All of the free space, in small pieces: the last line is truncated.
    let filler = there.join("filler");
    let mut file = File::create(&filler).unwrap();
    while std::io::Write::write(&mut file, &[0; 1024]).is_ok() {}
    drop(file);
    for _ in 0..80 {
        assert!(is_served(&edge));
    }
    agent.process().wait_stderr("cannot write to the log file");
    let said = agent.process().stderr();
    let said = said.lines().filter(|line| line.contains("cannot write")).collect::<Vec<_>>();
    assert_eq!(said.len(), 1, "once, not for each line: {said:?}");
    assert!(said[0].contains(&disk.display().to_string()), "{said:?}");
    assert!(said[0].contains("o space left") || said[0].contains("no storage"), "{said:?}");

    // After space was freed it continues, and logs how many lines are missing.
    fs::remove_file(&filler).unwrap();
    let text = || fs::read_to_string(there.join("log")).unwrap();
    wait_for("a line about lost ones", || is_served(&edge) && text().contains("dropped log lines"));
    let text = text();
    let lost = text.lines().find(|line| line.contains("dropped log lines")).unwrap();
    let count = lost.rsplit_once("count=").unwrap().1;
    assert!(count.parse::<u32>().unwrap() > 0, "{lost}");
    assert!(lost.starts_with("t=20"), "a line of its own: {lost}");
    assert!(text.lines().last().unwrap().starts_with("t=20"), "{text}");
    assert_ends_well(agent);
}

#[test]
fn a_device_that_is_always_full_is_no_reason_not_to_serve() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let mut agent = Agent::wait(at_known_url(&edge, &upstream, "/dev/full").spawn(), 0);
    wait_for("a served visitor", || is_served(&edge));
    agent.process().wait_stderr("cannot write to the log file /dev/full");
    assert!(is_served(&edge));
    assert_ends_well(agent);
}

#[test]
fn a_log_file_that_is_deleted_is_made_again_at_a_hangup() {
    let (edge, upstream, dir) = (Edge::start(), Upstream::hello(), TempDir::new());
    let below = dir.join("logs");
    fs::create_dir(&below).unwrap();
    let log = below.join("log");
    let builder = at_known_url(&edge, &upstream, &log.display().to_string());
    let mut agent = Agent::wait(builder.spawn(), 0);
    wait_for("a served visitor", || is_served(&edge));
    fs::remove_file(&log).unwrap();
    assert!(is_served(&edge));
    agent.process().signal("HUP");
    wait_for("a new file", || log.exists());
    assert!(is_served(&edge));
    wait_for("its lines", || fs::read_to_string(&log).unwrap().contains("join connections"));

    // Its directory is gone too: this is reported on standard error.
    fs::remove_dir_all(&below).unwrap();
    assert!(is_served(&edge));
    agent.process().signal("HUP");
    let said = agent.process().wait_stderr("cannot reopen log file");
    assert!(said.contains(&log.display().to_string()), "{said}");
    assert!(is_served(&edge));
    // The directory returns.
    fs::create_dir(&below).unwrap();
    agent.process().signal("HUP");
    wait_for("a new file", || log.exists());
    assert_ends_well(agent);
}

#[test]
fn closed_outputs_are_no_reason_not_to_serve() {
    for log in ["stdout", "stderr", "false"] {
        let (edge, upstream) = (Edge::start(), Upstream::hello());
        let builder = at_known_url(&edge, &upstream, log);
        let agent = Agent::wait(builder.by("exec \"$@\" <&- >&- 2>&-").spawn(), 0);
        wait_for("a served visitor", || is_served(&edge));
        assert_ends_well(agent);
    }
}

#[test]
fn an_output_whose_reader_goes_or_stands_still_is_no_reason_not_to_serve() {
    for (log, number) in [("stdout", 1), ("stderr", 2)] {
        for goes in [true, false] {
            let (edge, upstream, dir) = (Edge::start(), Upstream::hello(), TempDir::new());
            let fifo = dir.join("fifo");
            let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
            assert!(made.success());
            let script = format!("exec \"$@\" {number}>{}", fifo.display());
            let builder = at_known_url(&edge, &upstream, log).by(&script);
            let agent = Agent::wait(builder.spawn(), 0);
            let mut reader = BufReader::new(File::open(&fifo).unwrap());
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            assert!(line.contains("lvl="), "{line}");
            // Like `culvert ... | head -1`, or a pager that is not scrolled.
            let reader = (!goes).then_some(reader);
            wait_for("a served visitor", || is_served(&edge));
            // More than a pipe of 64 KiB holds.
            for _ in 0..900 {
                assert!(is_served(&edge), "{log} {goes}");
            }
            if let Some(reader) = reader {
                let mut lines = reader.lines().map(|line| line.unwrap());
                let served = std::thread::spawn(move || {
                    wait_for("visitors while it is read again", || is_served(&edge));
                    while is_served(&edge) {}
                });
                let lost =
                    lines.by_ref().take(5_000).any(|line| line.contains("dropped log lines"));
                assert!(lost, "what was lost is counted");
                drop(lines);
                assert_ends_well(agent);
                served.join().unwrap();
            } else {
                assert_ends_well(agent);
            }
        }
    }
}
