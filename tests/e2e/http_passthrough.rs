//! HTTP passes through unchanged in meaning: methods, bodies, keep-alive, fields.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::visitor::{Visitor, curl, curl_text, try_get};
use crate::support::wire::Wire;
use crate::support::{Noise, wait_for};

/// An upstream that responds with the request it received.
fn mirror() -> Upstream {
    Upstream::http(|request, wire| {
        let mut text = format!("{}\n", request.first);
        for (name, value) in &request.fields {
            text.push_str(&format!("{}: {value}\n", name.to_ascii_lowercase()));
        }
        text.push('\n');
        text.push_str(&request.text());
        wire.respond("200 OK", "X-Upstream: yes\r\n", text.as_bytes())
    })
}

#[test]
fn curl_gets_the_page_at_the_announced_url() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let agent = agent::http(&edge, upstream.port());
    let (url, shown) = agent.endpoints[0].clone();
    assert!(url.starts_with("http://"), "nobody meets a certificate warning at first: {url}");
    assert!(url.ends_with(&format!(".localhost:{}", edge.http.port())), "{url}");
    assert_eq!(shown, format!("http://localhost:{}", upstream.port()));
    assert_eq!(curl_text(&[&format!("{url}/a?b=c")]), "GET /a?b=c ");
    assert_eq!(curl_text(&["-d", "name=value", &url]), "POST / name=value");
    assert_eq!(curl_text(&["-X", "DELETE", &format!("{url}/x")]), "DELETE /x ");
}

#[test]
fn the_same_endpoint_answers_with_tls_as_well() {
    let (edge, upstream) = (Edge::start(), mirror());
    let agent = agent::http(&edge, upstream.port());
    let name = agent.url().trim_start_matches("http://").rsplit_once(':').unwrap().0.to_owned();
    let url = format!("https://{name}:{}/", edge.https.port());
    let text = curl_text(&["--cacert", edge.ca.to_str().unwrap(), &url]);
    assert!(text.contains("\nx-forwarded-proto: https\n"), "{text}");
}

#[test]
fn requests_on_one_connection_share_one_upstream_connection() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let agent = agent::http(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    for n in 0..50 {
        let answer = visitor.ask("POST", &format!("/{n}"), "", n.to_string().as_bytes());
        assert_eq!((answer.status(), answer.text()), (200, format!("POST /{n} {n}")));
    }
    assert_eq!(upstream.accepted(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let agent = agent::http(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    for n in 0..10 {
        visitor.send("GET", &format!("/{n}"), "", b"").unwrap();
    }
    for n in 0..10 {
        assert_eq!(visitor.wire.read_response("GET").unwrap().text(), format!("GET /{n} "));
    }
}

#[test]
fn head_has_a_length_and_no_body() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let agent = agent::http(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    let answer = visitor.ask("HEAD", "/file", "", b"");
    assert_eq!((answer.status(), answer.field("content-length")), (200, Some("11")));
    assert_eq!(visitor.get("/next").text(), "GET /next ");
}

#[test]
fn answers_without_body_do_not_hold_the_connection() {
    let edge = Edge::start();
    let upstream = Upstream::http(|request, wire| match request.target() {
        "/204" => wire.write("HTTP/1.1 204 No Content\r\n\r\n"),
        "/304" => wire.write("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),
        _ => wire.respond("200 OK", "", b"end"),
    });
    let agent = agent::http(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    assert_eq!(visitor.get("/204").status(), 204);
    assert_eq!(visitor.get("/304").status(), 304);
    assert_eq!(visitor.get("/").text(), "end");
}

#[test]
fn chunked_bodies_both_ways() {
    let edge = Edge::start();
    let upstream = Upstream::http(|request, wire| {
        wire.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for piece in request.body.chunks(1000) {
            wire.write(format!("{:x};ext=1\r\n", piece.len()))?;
            wire.write(piece)?;
            wire.write("\r\n")?;
        }
        wire.write("0\r\nX-Trailer: 1\r\n\r\n")
    });
    let agent = agent::http(&edge, upstream.port());
    let body = Noise::bytes(1, 100_000);
    let mut chunks = Vec::new();
    for piece in body.chunks(777) {
        chunks.extend_from_slice(format!("{:X}\r\n", piece.len()).as_bytes());
        chunks.extend_from_slice(piece);
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    let mut visitor = agent.visit(&edge);
    for _ in 0..3 {
        let answer = visitor.ask("PUT", "/", "Transfer-Encoding: chunked\r\n", &chunks);
        assert!(answer.body == body, "{} of {} bytes", answer.body.len(), body.len());
    }
}

#[test]
fn a_chunk_arrives_before_the_next_is_made() {
    let edge = Edge::start();
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let upstream = Upstream::http(move |_, wire| {
        wire.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for n in 0..5 {
            wire.write(format!("1\r\n{n}\r\n"))?;
            wait.lock().unwrap().recv().map_err(std::io::Error::other)?;
        }
        wire.write("0\r\n\r\n")
    });
    let agent = agent::http(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    visitor.send("GET", "/", "", b"").unwrap();
    assert_eq!(visitor.wire.read_head().unwrap().status(), 200);
    for n in 0..5 {
        assert_eq!(visitor.wire.read_chunk().unwrap(), n.to_string().as_bytes());
        go.send(()).unwrap();
    }
    assert!(visitor.wire.read_chunk().unwrap().is_empty());
}

#[test]
fn a_visitor_that_waits_for_100_continue_gets_it_from_the_upstream() {
    let edge = Edge::start();
    let upstream = Upstream::tcp(|mut wire: Wire| {
        let head = wire.read_head().unwrap();
        assert_eq!(head.field("expect"), Some("100-continue"));
        wire.write("HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        let body = wire.read_exact(5).unwrap();
        wire.respond("200 OK", "", &body).unwrap();
    });
    let agent = agent::http(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    let fields =
        format!("Host: {}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n", visitor.host());
    visitor.wire.write(format!("POST / HTTP/1.1\r\n{fields}\r\n")).unwrap();
    assert_eq!(visitor.wire.read_head().unwrap().status(), 100);
    visitor.wire.write("hello").unwrap();
    assert_eq!(visitor.wire.read_response("POST").unwrap().text(), "hello");
}

#[test]
fn the_upstream_learns_who_asked_for_what() {
    let (edge, upstream) = (Edge::start(), mirror());
    let agent = agent::http(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    let host = visitor.host().to_owned();
    let text = visitor.get("/").text();
    for line in ["x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http"] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
    }
    assert!(text.contains(&format!("\nx-forwarded-host: {host}\n")), "{text}");
    assert!(text.contains(&format!("\nhost: {host}\n")), "{text}");
    assert!(text.contains("\nx-real-ip: 127.0.0.1\n"), "{text}");
}

#[test]
fn fields_and_bodies_pass_untouched() {
    let edge = Edge::start();
    let seen = Arc::new(Mutex::new(None));
    let keep = seen.clone();
    let upstream = Upstream::http(move |request, wire| {
        *keep.lock().unwrap() = Some(request.clone());
        let fields = "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Odd:   two  blanks \r\n";
        wire.respond("418 I'm a teapot", fields, &request.body)
    });
    let agent = agent::http(&edge, upstream.port());
    let cookie = "c".repeat(6000);
    let body = Noise::bytes(2, 300_000);
    let fields = format!("Cookie: {cookie}\r\nX-Case-Kept: Yes\r\n");
    let answer = agent.visit(&edge).ask("PATCH", "/%7Ea//b?q=%20+", &fields, &body);
    assert_eq!(answer.status(), 418);
    assert!(answer.body == body);
    let cookies: Vec<_> =
        answer.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case("set-cookie")).collect();
    assert_eq!(cookies.len(), 2);
    assert_eq!(answer.field("x-odd"), Some("two  blanks"));
    let request = seen.lock().unwrap().take().unwrap();
    assert_eq!(request.first, "PATCH /%7Ea//b?q=%20+ HTTP/1.1");
    assert_eq!(request.field("cookie"), Some(cookie.as_str()));
    assert_eq!(request.field("x-case-kept"), Some("Yes"));
}

#[test]
fn an_unknown_host_gets_a_404_page_that_says_so() {
    let edge = Edge::start();
    let url = format!("http://nobody-here.localhost:{}", edge.http.port());
    let answer = try_get(&edge, &url, "/").expect("an answer");
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.field("ngrok-error-code"), Some("ERR_NGROK_3200"));
    assert!(answer.text().contains("nobody-here.localhost"), "{}", answer.text());
    assert!(!answer.text().contains("<html"));
    let html = Visitor::connect(&edge, &url).ask("GET", "/", "Accept: text/html\r\n", b"");
    assert!(html.text().contains("<html") && html.text().contains("ERR_NGROK_3200"));
}

#[test]
fn two_hundred_requests_at_once() {
    let edge = Edge::start();
    let upstream = Upstream::http(|request, wire| {
        let n: u64 = request.target()[1..].parse().unwrap();
        wire.respond("200 OK", "", &Noise::bytes(n, 20_000))
    });
    let agent = agent::http(&edge, upstream.port());
    let url = agent.url().to_owned();
    let wrong: Vec<String> = thread::scope(|scope| {
        let (edge, url) = (&edge, &url);
        let ask = move |n: u64| match try_get(edge, url, &format!("/{n}")) {
            Some(a) if a.status() == 200 && a.body == Noise::bytes(n, 20_000) => None,
            Some(a) => Some(format!("{n}: {} {:.200}", a.first, a.text())),
            None => Some(format!("{n}: no answer")),
        };
        let threads: Vec<_> = (0..200).map(|n| scope.spawn(move || ask(n))).collect();
        threads.into_iter().filter_map(|t| t.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{} of 200: {wrong:#?}", wrong.len());
    wait_for("upstream connections to end", || upstream.open() == 0);
}

#[test]
fn what_two_parsers_could_read_in_two_ways_never_reaches_the_upstream() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let agent = agent::http(&edge, upstream.port());
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length : 5\r\n",
        "X: a\r\n b\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Content-Length: -1\r\n",
        "Bad Name: x\r\n",
    ] {
        let mut visitor = agent.visit(&edge);
        let host = visitor.host().to_owned();
        let request = format!("POST / HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n0\r\n\r\n");
        visitor.wire.write(request).unwrap();
        let answer = visitor.wire.read_response("POST").unwrap();
        assert!([400, 501].contains(&answer.status()), "{fields:?}: {answer:?}");
    }
    assert_eq!(upstream.accepted(), 0);
    assert_eq!(agent.visit(&edge).get("/").text(), "GET / ");
}

#[test]
fn a_head_without_end_is_cut_off() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let agent = agent::http(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    let host = visitor.host().to_owned();
    visitor.wire.write(format!("GET / HTTP/1.1\r\nHost: {host}\r\n")).unwrap();
    let mut reader = visitor.wire.clone_plain();
    let answer = thread::spawn(move || {
        let answer = reader.read_response("GET").unwrap();
        // The connection ends, even if the visitor continues.
        let _ = reader.read_rest();
        answer
    });
    let line = format!("X-More: {}\r\n", "m".repeat(1000));
    while visitor.wire.write(&line).is_ok() {}
    let answer = answer.join().unwrap();
    assert!([400, 431].contains(&answer.status()), "{answer:?}");
    assert_eq!(agent.visit(&edge).get("/").text(), "GET / ");
}

#[test]
fn two_endpoints_of_one_agent_are_told_apart() {
    let edge = Edge::start();
    let (one, two) = (Upstream::hello(), mirror());
    let port = edge.http.port();
    let config = edge.config_with(&format!(
        "endpoints:\n  - name: one\n    url: http://one.localhost:{port}\n    upstream:\n      \
         url: {}\n  - name: two\n    url: http://two.localhost:{port}\n    upstream:\n      \
         url: http://127.0.0.1:{}\n",
        one.port(),
        two.port()
    ));
    let agent = agent::agent(&config, ["start", "--all"]).expect(2).start();
    let mut urls: Vec<_> = agent.endpoints.clone();
    urls.sort();
    assert_eq!(urls[0].0, format!("http://one.localhost:{port}"));
    assert_eq!(urls[1].1, format!("http://127.0.0.1:{}", two.port()));
    assert_eq!(try_get(&edge, &urls[0].0, "/x").unwrap().text(), "GET /x ");
    assert!(try_get(&edge, &urls[1].0, "/x").unwrap().text().starts_with("GET /x HTTP/1.1\n"));
    // Case does not matter in names.
    let shouted = urls[0].0.replace("one", "ONE");
    assert_eq!(try_get(&edge, &shouted, "/x").unwrap().text(), "GET /x ");
}

#[test]
fn curl_over_one_connection_with_many_urls() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let agent = agent::http(&edge, upstream.port());
    let range = format!("{}/[1-20]", agent.url());
    let output = curl(&["-w", "%{num_connects}\n", "-o", "/dev/null", &range]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let connects: u32 = text.lines().map(|l| l.trim().parse::<u32>().unwrap()).sum();
    assert_eq!(connects, 1, "{text}");
}
