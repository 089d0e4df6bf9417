//! Credentials appear in no output, page or argument list. In addition, the output of every
//! child of every test is searched for them (`support::process`).

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::process::{leaked_secret, plant_secret};
use crate::support::upstream::{Upstream, nobody};
use crate::support::visitor::try_get;

#[test]
fn the_search_finds_a_planted_secret() {
    plant_secret("planted-to-be-found");
    assert!(leaked_secret("x planted-to-be-found y").is_some());
    assert!(leaked_secret("nothing here").is_none());
}

#[test]
fn the_token_is_in_no_log_even_at_debug_level() {
    let mut edge = Edge::start();
    let upstream = Upstream::hello();
    let token = edge.authtoken();
    let mut agent = agent::agent(&edge.config, ["http", &upstream.port().to_string()])
        .arg("--log=stderr")
        .arg("--log-level=debug")
        .start();
    assert_eq!(agent.visit(&edge).get("/").status(), 200);
    let url = agent.url().to_owned();
    edge.restart();
    crate::support::wait_for("the endpoint to be back", || {
        try_get(&edge, &url, "/").is_some_and(|a| a.status() == 200)
    });
    agent.process().signal("TERM");
    assert_eq!(agent.process().wait_exit(), Some(0));
    for text in [agent.process().stderr(), agent.process().stdout(), edge.process().stderr()] {
        assert!(!text.contains(&token), "{text}");
    }
}

#[test]
fn a_token_given_as_argument_is_not_left_in_the_list_of_processes() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let token = edge.authtoken();
    for args in
        [vec!["--authtoken".to_owned(), token.clone()], vec![format!("--authtoken={token}")]]
    {
        let mut builder = agent::agent(&edge.config, ["http", &upstream.port().to_string()]);
        for arg in args {
            builder = builder.arg(arg);
        }
        let agent = builder.start();
        let line = fs::read(format!("/proc/{}/cmdline", agent.pid())).unwrap();
        assert!(!String::from_utf8_lossy(&line).contains(&token));
    }
}

#[test]
fn error_pages_show_no_credentials() {
    let edge = Edge::start();
    let agent = agent::http(&edge, nobody());
    let page = agent.visit(&edge).get("/").text();
    assert!(leaked_secret(&page).is_none(), "{page}");
}

#[test]
fn files_with_secrets_are_for_their_owner_alone() {
    let edge = Edge::start();
    let mut found = 0;
    for entry in fs::read_dir(edge.config.parent().unwrap()).unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        if text.contains(&edge.authtoken()) || text.contains("PRIVATE KEY") {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", entry.path().display());
            found += 1;
        }
    }
    assert!(found >= 2, "{found} files with secrets");
}
