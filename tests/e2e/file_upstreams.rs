//! A directory as upstream.

use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::visitor::curl_text;
use crate::support::{Noise, TempDir, wait_for};

fn shared() -> TempDir {
    let dir = TempDir::new();
    dir.write("secret.txt", "a secret of the parent");
    dir.write("www/hello.txt", "hello");
    dir.write("www/big.bin", Noise::bytes(11, 5_000_000));
    dir.write("www/sub/index.html", "<h1>sub</h1>");
    dir.write("www/sub/other", "other");
    dir.write("www/.hidden", "a secret of the directory");
    dir
}

#[test]
fn listing_files_ranges_and_types() {
    let (edge, dir) = (Edge::start(), shared());
    let www = dir.join("www");
    let agent = agent::http(&edge, format!("file://{}", www.display()));
    assert_eq!(agent.endpoints[0].1, format!("file://{}", www.display()));
    let mut visitor = agent.visit(&edge);
    let listing = visitor.get("/");
    assert!(listing.field("content-type").unwrap().starts_with("text/html"));
    for name in ["hello.txt", "big.bin", "sub/"] {
        assert!(listing.text().contains(&format!(">{name}</a>")), "{}", listing.text());
    }
    assert!(!listing.text().contains(".hidden"));
    let file = visitor.get("/hello.txt");
    assert_eq!(file.text(), "hello");
    assert!(file.field("content-type").unwrap().starts_with("text/plain"));
    assert!(visitor.get("/big.bin").body == Noise::bytes(11, 5_000_000));
    let part = visitor.ask("GET", "/big.bin", "Range: bytes=4999990-\r\n", b"");
    assert_eq!(part.status(), 206);
    assert!(part.body == Noise::bytes(11, 5_000_000)[4_999_990..]);
    assert_eq!(visitor.get("/sub").status(), 301);
    assert_eq!(visitor.get("/sub/").text(), "<h1>sub</h1>");
    let head = visitor.ask("HEAD", "/big.bin", "", b"");
    assert_eq!((head.field("content-length"), head.body.len()), (Some("5000000"), 0));
    assert_eq!(visitor.ask("POST", "/hello.txt", "", b"x").status(), 405);
    assert_eq!(visitor.get("/none").status(), 404);
    assert_eq!(curl_text(&["-L", &format!("{}/sub", agent.url())]), "<h1>sub</h1>");
}

#[test]
fn nothing_outside_the_directory_is_shown() {
    let (edge, dir) = (Edge::start(), shared());
    let agent = agent::http(&edge, format!("file://{}", dir.join("www").display()));
    for target in ["/../secret.txt", "/%2e%2e/secret.txt", "/sub/..%2f..%2fsecret.txt", "/.hidden"]
    {
        let answer = agent.visit(&edge).get(target);
        assert!([400, 404].contains(&answer.status()), "{target}: {answer:?}");
        assert!(!answer.text().contains("a secret"));
    }
}

#[test]
fn a_visitor_who_leaves_in_the_middle_costs_nothing() {
    let (edge, dir) = (Edge::start(), shared());
    let mut agent = agent::http(&edge, format!("file://{}", dir.join("www").display()));
    for _ in 0..10 {
        let mut visitor = agent.visit(&edge);
        visitor.send("GET", "/big.bin", "", b"").unwrap();
        visitor.wire.read_exact(100_000).unwrap();
    }
    let pid = agent.pid();
    let open_files = || {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let names = fds.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
        names.filter(|name| name.ends_with("big.bin")).count()
    };
    wait_for("the files to be closed", || open_files() == 0);
    agent.process().assert_running();
}

#[test]
fn a_directory_that_is_not_there_is_an_error_at_start() {
    let edge = Edge::start();
    let mut agent = agent::agent(&edge.config, ["http", "file:///no/such/directory"]).spawn();
    assert!(matches!(agent.wait_exit(), Some(1 | 2)));
    assert!(agent.stderr().contains("/no/such/directory"), "{}", agent.stderr());
}

#[test]
fn visitors_who_stand_still_do_not_keep_the_workers() {
    let (edge, dir) = (Edge::start(), shared());
    dir.write("www/huge.bin", Noise::bytes(3, 20_000_000));
    let config = edge.config_via(edge.agent, "  max_connections: 4\n");
    let www = format!("file://{}", dir.join("www").display());
    let agent = agent::agent(&config, ["http", &www]).start();
    // As many as there are workers, each in the middle of a file that it does not read further:
    // every worker is occupied.
    let stuck: Vec<_> = (0..4)
        .map(|_| {
            let mut visitor = agent.visit(&edge);
            visitor.send("GET", "/huge.bin", "", b"").unwrap();
            assert_eq!(visitor.wire.read_head().unwrap().status(), 200);
            visitor
        })
        .collect();
    wait_for("others to be served all the same", || {
        let mut visitor = agent.visit(&edge);
        visitor.send("GET", "/hello.txt", "", b"").is_ok()
            && visitor.wire.read_response("GET").is_ok_and(|answer| answer.text() == "hello")
    });
    drop(stuck);
}
