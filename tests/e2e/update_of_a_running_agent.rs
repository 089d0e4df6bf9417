//! Updates of a running agent: Update of the edge, the status screen, and the first starts of a
//! new program.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::agent::Builder;
use crate::support::feed::{FeedKey, FeedServer, InstalledProgram, manifest, program, run};
use crate::support::peer::{BadEdge, Session};
use crate::support::process::Process;
use crate::support::{proc, skipped, until, wait_for};

/// Types of the edge's requests.
const RESTART: u32 = 4;
const UPDATE: u32 = 6;

const OWN: &str = env!("CARGO_PKG_VERSION");

/// Starts the installed program as an agent of `edge`.
fn start(installed: &InstalledProgram, edge: &BadEdge, lines: &str) -> Process {
    let builder: Builder = edge.agent(&["start", "--none"], lines);
    let mut command = Command::new(installed.path());
    command.args(["start", "--none", "--config"]).arg(builder.config());
    command.args(["--log", "stderr", "--log-format", "logfmt"]).env("HOME", "/nonexistent");
    command.env("XDG_CACHE_HOME", installed.dir().join("cache")).stdin(Stdio::null());
    Process::start("culvert", &mut command)
}

/// Accepts the agent. Returns its session and what it says about Update.
fn welcome(edge: &BadEdge) -> (Session, Value) {
    let mut session = edge.accept();
    let (stream, request) = session.wait_call(crate::support::peer::AUTH);
    session.answer(stream, &crate::support::peer::auth_response());
    (session, request["Extra"]["UpdateUnsupportedError"].clone())
}

/// Requests an update. The thread of the last one may end after its response.
fn update(session: &mut Session, version: &str) -> String {
    request(session, &json!({"Version": version, "PermitMajorVersion": true}))
}

fn request(session: &mut Session, request: &Value) -> String {
    until("the end of the last update", || {
        let error = session.call(UPDATE, request)["Error"].as_str().unwrap().to_owned();
        (error != "an update is running").then_some(error)
    })
}

#[test]
fn update_of_the_edge_replaces_the_program_and_restart_starts_it() {
    let (feed, key, installed) = (FeedServer::start(), FeedKey::new(1), InstalledProgram::new());
    let edge = BadEdge::new();
    let agent = start(&installed, &edge, &feed.lines(&key));
    let (mut session, unsupported) = welcome(&edge);
    assert_eq!(unsupported, json!(""));

    let error = update(&mut session, "");
    assert!(error.contains("the server returned 404"), "{error}");
    let new = program(OWN);
    feed.publish(&key, &manifest(6, OWN, &new), &new);
    let error = update(&mut session, "");
    assert!(error.contains("is up to date"), "{error}");
    let new = program("9.9.9");
    feed.publish(&key, &manifest(7, "9.9.9", &new), &new);
    let error = update(&mut session, "9.9.8");
    assert!(error.contains("has version 9.9.9, not 9.9.8"), "{error}");
    let error = request(&mut session, &json!({"Version": "9.9.9", "PermitMajorVersion": false}));
    assert!(error.contains("another major version"), "{error}");
    assert!(installed.is_original());

    assert_eq!(update(&mut session, "9.9.9"), "");
    agent.wait_stderr("msg=\"update installed\"");
    assert_eq!(installed.read("culvert").unwrap(), new);
    // The thread of the update may not have ended.
    wait_for("the refusal of a second update", || {
        update(&mut session, "").contains("waits for a restart")
    });
    assert_eq!(session.call(RESTART, &json!({}))["Error"], json!(""));
    let started = until("the new program to start", || installed.read("started"));
    assert!(started.starts_with("9.9.9 start --none --config "), "{started}");
}

/// Bytes of memory of its own that an update may need beyond an idle agent.
const MAX_UPDATE_BYTES: u64 = 256 * 1024;

/// Returns the memory of the process that updated a program to [`watcher`].
fn seen(installed: &InstalledProgram) -> u64 {
    proc::anonymous_in(&installed.read("memory").unwrap()).unwrap()
}

/// Returns a program of 3 MB that notes the memory of the process that asks for its version.
fn watcher() -> String {
    let note = "version) cat /proc/$PPID/smaps_rollup >\"${0%/*}/memory\";";
    program("9.9.9").replace("version)", note) + "exit\n" + &"#\n".repeat(1_500_000)
}

#[test]
fn an_update_needs_little_memory_beyond_an_idle_agent() {
    let (feed, key, new) = (FeedServer::start(), FeedKey::new(1), watcher());
    feed.publish(&key, &manifest(7, "9.9.9", &new), &new);
    let (edge, lines) = (BadEdge::new(), feed.lines(&key));
    let (by_command, by_edge) = (InstalledProgram::new(), InstalledProgram::new());
    let agent = start(&by_edge, &edge, &lines);
    let (mut session, _) = welcome(&edge);
    let Ok(idle) = proc::anonymous(agent.pid()) else {
        return skipped("smaps_rollup is not readable");
    };
    let (code, out, err) = run(by_command.update(&lines, &["--yes"]));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(update(&mut session, "9.9.9"), "");
    agent.wait_stderr("msg=\"update installed\"");
    for (kind, bytes) in [("command", seen(&by_command)), ("agent", seen(&by_edge))] {
        assert!(bytes <= idle + MAX_UPDATE_BYTES, "{kind}: {bytes}, an idle agent {idle}");
    }
}

#[test]
fn without_a_feed_update_of_the_edge_is_refused() {
    let (feed, key, installed) = (FeedServer::start(), FeedKey::new(1), InstalledProgram::new());
    let edge = BadEdge::new();
    let off = feed.lines(&key) + "  update_check: false\n";
    for (lines, expected) in [("", "no update_url is configured"), (&off, "update_check: false")] {
        let agent = start(&installed, &edge, lines);
        let (mut session, unsupported) = welcome(&edge);
        assert!(unsupported.as_str().unwrap().contains(expected), "{unsupported}");
        let error = update(&mut session, "");
        assert!(error.contains(expected), "{error}");
        // Before its session, so that it does not connect again.
        drop(agent);
    }
    assert!(feed.requested().is_empty(), "{:?}", feed.requested());
}

fn record(installed: &InstalledProgram, starts: u32) {
    let text =
        format!("culvert-update-record 1\nfrom 0.0.1\nto {OWN}\nserial 9\nstarts {starts}\n");
    installed.beside(".culvert.update", &text, 0o644);
    installed.program_beside(".culvert.old", &program("0.0.1"));
}

#[test]
fn the_first_session_confirms_a_new_program() {
    let (edge, installed) = (BadEdge::new(), InstalledProgram::new());
    record(&installed, 2);
    let agent = start(&installed, &edge, "");
    let starts = || installed.read(".culvert.update").unwrap_or_default();
    wait_for("the start to be counted", || starts().contains("\nstarts 3\n"));
    let (_session, _) = welcome(&edge);
    agent.wait_stderr("msg=\"new program confirmed\"");
    assert!(!starts().contains("starts"), "{}", starts());
    assert!(starts().contains("serial 9"), "{}", starts());
}

#[test]
fn a_new_program_that_never_gets_a_session_is_replaced_by_the_old_one() {
    let installed = InstalledProgram::new();
    record(&installed, 0);
    // A crash loop: each start fails at the configuration.
    let config = installed.dir().write("bad.yml", "version: 3\nagent: {connect_timeout: never}\n");
    let mut starts = 0;
    let started = until("the old program to start", || {
        starts += 1;
        assert!(starts < 10);
        let status = Command::new(installed.path())
            .args(["http", "8080", "--config"])
            .arg(&config)
            .env("HOME", "/nonexistent")
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(starts > 3 || status.code() == Some(1), "{status}");
        installed.read("started")
    });
    assert_eq!(starts, 4);
    assert!(started.starts_with("0.0.1 http 8080 --config "), "{started}");
    assert_eq!(installed.read("culvert").unwrap(), program("0.0.1"));
    let record = installed.read(".culvert.update").unwrap();
    assert!(record.contains("bad 9\n") && !record.contains("starts"), "{record}");
}

#[cfg(feature = "console")]
#[test]
fn the_screen_offers_an_update_and_ctrl_u_installs_it() {
    use crate::support::edge::Edge;
    use crate::support::screen::Screen;

    let (feed, key, installed) = (FeedServer::start(), FeedKey::new(1), InstalledProgram::new());
    let new = program("9.9.9");
    feed.publish(&key, &manifest(7, "9.9.9", &new), &new);
    let edge = Edge::start();
    let config = edge.config_with(&feed.lines(&key));
    let Some(screen) = Screen::start(100, 24) else { return };
    let line =
        |path: &Path| format!("{} http 9 --config {}; stty -a", path.display(), config.display());
    screen.type_line(&line(&installed.path()));
    screen.wait("update available (version 9.9.9, Ctrl-U to update)");
    assert!(installed.is_original());
    // Other keys have no effect.
    screen.press("x");
    screen.press("C-u");
    screen.wait("installed (version 9.9.9, runs after a restart)");
    assert_eq!(installed.read("culvert").unwrap(), new);
    screen.press("C-c");
    // The shell's terminal has lines and echo again.
    screen.wait_until("the settings of the terminal", |text| {
        text.contains(" icanon") && text.contains(" echo ")
    });
}
