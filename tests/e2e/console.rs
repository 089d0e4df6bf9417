//! The status screen on a real terminal, and the terminal after it.

use std::path::Path;

use crate::support::edge::Edge;
use crate::support::screen::Screen;
use crate::support::upstream::Upstream;
use crate::support::visitor::try_get;
use crate::support::wait_for;

/// Starts the agent in a terminal of 80x24 and waits until it is online.
fn show(edge: &Edge, upstream: &Upstream, more: &str) -> Option<Screen> {
    let screen = Screen::start(80, 24)?;
    screen.type_line(&command(&edge.config, upstream.port(), more));
    screen.wait("online");
    Some(screen)
}

fn command(config: &Path, port: u16, more: &str) -> String {
    let (program, config) = (env!("CARGO_BIN_EXE_culvert"), config.display());
    format!(
        "{program} http {port} --url http://me.localhost --config {config} {more}; echo status $?"
    )
}

fn url(edge: &Edge) -> String {
    format!("http://me.localhost:{}", edge.http.port())
}

/// Asserts that the shell has its terminal back: its own screen, a cursor, and echo of typed
/// text.
#[track_caller]
fn assert_given_back(screen: &Screen) {
    wait_for("the shell's own screen with a cursor", || screen.modes() == (false, true));
    screen.wait_for_the_prompt();
    screen.type_line("stty -a | grep -c ' echo '; echo typed $((1 + 1))");
    screen.wait("typed 2");
    assert!(screen.text().contains("echo typed $((1 + 1))"), "{}", screen.text());
    assert!(screen.text().contains("\n1\n"), "{}", screen.text());
}

#[test]
fn the_screen_shows_session_endpoint_and_requests() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let Some(screen) = show(&edge, &upstream, "") else { return };
    let text = screen.wait("Forwarding");
    assert!(text.starts_with("culvert "), "{text}");
    assert!(text.lines().next().unwrap().ends_with("(Ctrl+C to quit)"), "{text}");
    let forwarding = format!("{} -> http://localhost:{}", url(&edge), upstream.port());
    for part in
        ["Session Status", "Version", "Web Interface", "http://127.0.0.1:", "ttl", &forwarding]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(screen.coloured().contains("\x1b[32m"), "online is green");
    assert_eq!(screen.modes(), (true, false));

    try_get(&edge, &url(&edge), "/a/path?with=query").unwrap();
    let text = screen.wait("GET     /a/path?with=query");
    let line = text.lines().find(|line| line.contains("/a/path")).unwrap();
    assert!(line.contains("200"), "{text}");
    screen.wait_until("one connection", |text| {
        text.lines().any(|line| line.trim_start().starts_with("1       "))
    });
    // The newest is first, and the list fits the screen.
    for n in 0..30 {
        try_get(&edge, &url(&edge), &format!("/many/{n}")).unwrap();
    }
    let text = screen.wait("/many/29");
    let first = text.find("/many/").unwrap();
    assert!(text[first..].starts_with("/many/29") && text.starts_with("culvert "), "{text}");
    assert!(!text.contains("/many/0 "), "{text}");

    screen.press("C-c");
    screen.wait("status 0");
    assert_given_back(&screen);
}

#[test]
fn the_screen_follows_the_size_of_the_terminal() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let Some(screen) = show(&edge, &upstream, "") else { return };
    for (width, height) in [(120, 40), (50, 14), (30, 6), (20, 2), (80, 24)] {
        screen.resize(width, height);
        let hint = "(Ctrl+C to quit)";
        screen.wait_until(&format!("a title for {width} columns"), |text| {
            let title = text.lines().next().unwrap_or_default();
            title.starts_with("culvert")
                && (width < 25 || title.len() == width && title.ends_with(hint))
        });
        let text = screen.text();
        assert_eq!(text.matches("culvert ").count() + usize::from(width < 25), 1, "{text}");
    }
    screen.wait("Forwarding");
    screen.press("C-c");
    screen.wait("status 0");
    assert_given_back(&screen);
}

#[test]
fn a_lost_session_is_red_with_its_reason_and_then_green_again() {
    let (mut edge, upstream) = (Edge::start(), Upstream::hello());
    let Some(screen) = show(&edge, &upstream, "") else { return };
    edge.kill();
    let text = screen.wait("reconnecting (");
    assert!(!text.contains("online"), "{text}");
    assert!(screen.coloured().contains("\x1b[31mreconnecting"));
    edge.restart();
    screen.wait("online");
    // Errors in the meantime are shown in the screen only.
    assert!(!screen.text().contains("EROR"), "{}", screen.text());
    screen.press("C-c");
    screen.wait("status 0");
}

#[test]
fn ctrl_z_gives_the_terminal_back_and_fg_shows_the_screen_again() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let Some(screen) = Screen::start(80, 24) else { return };
    let line = command(&edge.config, upstream.port(), "");
    screen.type_line(line.strip_suffix("; echo status $?").unwrap());
    screen.wait("online");
    screen.press("C-z");
    assert_given_back(&screen);
    // In the background it does not use the terminal.
    screen.type_line("bg");
    wait_for("it to serve in the background", || {
        try_get(&edge, &url(&edge), "/background").is_some()
    });
    screen.type_line("clear; echo still $((1 + 2))");
    screen.wait("still 3");
    assert_eq!(screen.modes(), (false, true));
    screen.type_line("fg");
    screen.wait("/background");
    assert_eq!(screen.modes(), (true, false));
    screen.press("C-c");
    assert_given_back(&screen);
}

#[test]
fn the_terminal_comes_back_from_signals_and_fatal_errors() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let Some(screen) = show(&edge, &upstream, "") else { return };
    screen.press("C-z");
    screen.wait_for_the_prompt();
    screen.type_line("kill -TERM %1; fg");
    assert_given_back(&screen);

    // Ctrl+S does not stop it, which would block its shutdown.
    let Some(screen) = show(&edge, &upstream, "") else { return };
    screen.press("C-s");
    try_get(&edge, &url(&edge), "/after-ctrl-s").unwrap();
    screen.wait("/after-ctrl-s");
    screen.press("C-c");
    screen.wait("status 0");
    assert_given_back(&screen);

    let Some(screen) = Screen::start(80, 24) else { return };
    screen.type_line(&command(&edge.config, upstream.port(), "--authtoken wrong"));
    let text = screen.wait("status 1");
    assert!(text.contains("ERROR:") && text.contains("ERR_NGROK_"), "{text}");
    assert_given_back(&screen);
}

#[test]
fn there_is_no_screen_where_the_log_is_or_where_none_is_wanted() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let usual = command(&edge.config, upstream.port(), "");
    let forwarding = format!("{} -> http://localhost:{}", url(&edge), upstream.port());
    let without = edge.config_with("  console_ui: false\n");
    for (line, expected) in [
        (command(&edge.config, upstream.port(), "--log stdout"), "started tunnel"),
        (command(&without, upstream.port(), ""), forwarding.as_str()),
        (usual.replace("; echo", "| cat; echo"), forwarding.as_str()),
        (format!("TERM=dumb {usual}"), forwarding.as_str()),
        (usual.replace("; echo", "</dev/null; echo"), forwarding.as_str()),
    ] {
        let Some(screen) = Screen::start(200, 24) else { return };
        screen.type_line(&line);
        screen.wait(expected);
        assert_eq!(screen.modes(), (false, true), "{line}");
        screen.press("C-c");
        assert_given_back(&screen);
    }
    // In the background from the start.
    let Some(screen) = Screen::start(200, 24) else { return };
    screen.type_line(&usual.replace("; echo status $?", " &"));
    screen.wait(&forwarding);
    assert_eq!(screen.modes(), (false, true));
    screen.type_line("kill %1; wait");
    assert_given_back(&screen);
}
