//! Real upstreams: with TLS, on IPv6, absent, slow, broken. A visitor gets the response, an
//! error page, or a reset, and never a truncated body that looks complete.

use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::mpsc;

use crate::support::agent;
use crate::support::certs::Authority;
use crate::support::edge::Edge;
use crate::support::process::Process;
use crate::support::upstream::{Upstream, hello, listens, nobody};
use crate::support::wire::{Message, Wire};
use crate::support::{Noise, TempDir, is_reset, program, wait_for};

#[test]
fn https_with_a_certificate_that_nobody_checks() {
    let edge = Edge::start();
    let authority = Authority::new();
    let upstream = Upstream::http_on("127.0.0.1:0", Some(authority.server(&["x"])), |r, wire| {
        let mut text = r.first.clone().into_bytes();
        text.extend_from_slice(&r.body);
        wire.respond("200 OK", "", &text)
    });
    let agent = agent::http(&edge, format!("https://localhost:{}", upstream.port()));
    let mut visitor = agent.visit(&edge);
    let body = Noise::bytes(5, 400_000);
    for _ in 0..3 {
        let answer = visitor.ask("PUT", "/s", "", &body);
        assert!(answer.body[..16] == *b"PUT /s HTTP/1.1P" || answer.body.ends_with(&body));
        assert_eq!(answer.body.len(), body.len() + "PUT /s HTTP/1.1".len());
    }
    assert_eq!(upstream.accepted(), 1);
}

#[test]
fn bytes_over_tls_to_the_upstream() {
    let edge = Edge::start();
    let authority = Authority::new();
    let server = authority.server(&["localhost"]);
    let upstream = Upstream::on("127.0.0.1:0", Some(server), |mut wire| {
        // Both directions, and the upstream sends first.
        wire.write("220 ready\r\n").unwrap();
        while let Ok(line) = wire.read_line() {
            wire.write(format!("you said {line}\r\n")).unwrap();
        }
    });
    let config = edge.config_with(&format!(
        "endpoints:\n  - name: t\n    url: tcp://\n    upstream:\n      url: tls://localhost:{}\n",
        upstream.port()
    ));
    let agent = agent::agent(&config, ["start", "t"]).start();
    let mut visitor = agent.visit(&edge);
    assert_eq!(visitor.wire.read_line().unwrap(), "220 ready");
    for n in 0..20 {
        visitor.wire.write(format!("{n}\n")).unwrap();
        assert_eq!(visitor.wire.read_line().unwrap(), format!("you said {n}"));
    }
}

#[test]
fn an_upstream_on_ipv6() {
    let edge = Edge::start();
    let upstream = Upstream::http_on("[::1]:0", None, hello);
    let agent = agent::http(&edge, format!("[::1]:{}", upstream.port()));
    assert_eq!(agent.endpoints[0].1, format!("http://[::1]:{}", upstream.port()));
    assert_eq!(agent.visit(&edge).get("/six").text(), "GET /six ");
}

#[test]
fn an_ipv6_address_with_an_interface_is_resolved_as_a_name() {
    let edge = Edge::start();
    let upstream = Upstream::http_on("[::1]:0", None, hello);
    for zone in ["lo", "1"] {
        let agent = agent::http(&edge, format!("http://[::1%{zone}]:{}", upstream.port()));
        assert_eq!(agent.visit(&edge).get("/x").text(), "GET /x ");
    }
    let agent = agent::http(&edge, "http://[fe80::1%nowhere]:80");
    let page = agent.visit(&edge).get("/").text();
    assert!(page.contains("no network interface 'nowhere'"), "{page}");
}

/// `localhost` has two addresses; a service may listen on one of them only.
#[test]
fn localhost_means_either_address() {
    let edge = Edge::start();
    let upstream = Upstream::http_on("[::1]:0", None, hello);
    let agent = agent::http(&edge, upstream.port());
    let answer = agent.visit(&edge).get("/either");
    assert_eq!((answer.status(), answer.text().as_str()), (200, "GET /either "));
}

#[test]
fn nginx_serves_pages_files_and_ranges() {
    let Some(nginx) = program("nginx") else { return };
    let dir = TempDir::new();
    dir.write("www/index.html", "<h1>nginx</h1>");
    dir.write("www/big", Noise::bytes(6, 3_000_000));
    let (mut server, port) = Process::on_a_port(
        "nginx",
        |port| {
            let d = dir.path().display();
            dir.write(
                "nginx.conf",
                format!(
                    "daemon off; master_process off; user root; pid {d}/pid; error_log stderr;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log off; client_body_temp_path {d}/t1; proxy_temp_path {d}/t2;\n\
             fastcgi_temp_path {d}/t3; uwsgi_temp_path {d}/t4; scgi_temp_path {d}/t5;\n\
             server {{ listen 127.0.0.1:{port}; root {d}/www; }} }}\n"
                ),
            );
            let mut command = std::process::Command::new(&nginx);
            command.arg("-c").arg(dir.join("nginx.conf")).arg("-p").arg(dir.path());
            command
        },
        |_, port| listens(port),
    );
    let edge = Edge::start();
    let agent = agent::http(&edge, port);
    let mut visitor = agent.visit(&edge);
    assert_eq!(visitor.get("/").text(), "<h1>nginx</h1>");
    assert_eq!(visitor.get("/none").status(), 404);
    assert!(visitor.get("/big").body == Noise::bytes(6, 3_000_000));
    let part = visitor.ask("GET", "/big", "Range: bytes=1000-1999\r\n", b"");
    assert_eq!(part.status(), 206);
    assert!(part.body == Noise::bytes(6, 3_000_000)[1000..2000]);
    assert_eq!(visitor.ask("HEAD", "/big", "", b"").field("content-length"), Some("3000000"));
    server.assert_running();
}

#[test]
fn a_service_that_is_down_gets_a_page_that_says_what_to_do() {
    let (edge, down) = (Edge::start(), nobody());
    let agent = agent::http(&edge, down);
    let mut visitor = agent.visit(&edge);
    let host = visitor.host().to_owned();
    let answer = visitor.get("/");
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.field("ngrok-error-code"), Some("ERR_NGROK_8012"));
    for fact in [host.as_str(), &format!("http://{down}"), "ERR_NGROK_8012", "refused", "Start"] {
        assert!(answer.text().contains(fact), "{fact}\n{}", answer.text());
    }
    let html = agent.visit(&edge).ask("GET", "/", "Accept: text/html,*/*\r\n", b"");
    assert_eq!(html.status(), 502);
    assert!(html.text().contains("<html") && html.text().contains("ERR_NGROK_8012"));
    let head = agent.visit(&edge).ask("HEAD", "/", "", b"");
    assert_eq!((head.status(), head.body.len()), (502, 0));
    // A request with a body gets a response too, not a reset.
    let post = agent.visit(&edge).ask("POST", "/", "", &vec![b'p'; 100_000]);
    assert_eq!(post.status(), 502);
}

/// Ten lines a minute are logged for visitors; the number of the others is logged at the end.
#[test]
fn the_log_tells_of_every_visitor_of_a_service_that_is_down() {
    const VISITORS: u32 = 35;
    let (edge, down) = (Edge::start(), nobody());
    let mut agent = agent::http(&edge, down);
    for _ in 0..VISITORS {
        assert_eq!(agent.visit(&edge).get("/").status(), 502);
    }
    let told = |said: String| {
        let lines = said.lines().filter(|l| l.contains("failed to reach the upstream"));
        lines
            .map(|l| l.rsplit_once("count=").unwrap().1.split(' ').next().unwrap().to_owned())
            .map(|count| count.parse::<u32>().unwrap())
            .collect::<Vec<_>>()
    };
    agent.process().signal("TERM");
    assert_eq!(agent.process().wait_exit(), Some(0));
    let told = told(agent.process().stderr());
    assert_eq!(told[..10], [1; 10]);
    assert_eq!(told.iter().sum::<u32>(), VISITORS, "{told:?}");
    assert!(told.len() < VISITORS as usize, "{told:?}");
}

#[test]
fn a_service_that_comes_up_later_is_used_at_once() {
    let edge = Edge::start();
    let address = nobody();
    let agent = agent::http(&edge, address);
    assert_eq!(agent.visit(&edge).get("/").status(), 502);
    let _upstream = Upstream::http_on(&address.to_string(), None, hello);
    assert_eq!(agent.visit(&edge).get("/up").text(), "GET /up ");
}

#[test]
fn a_tcp_visitor_of_a_service_that_is_down_is_closed() {
    let (edge, down) = (Edge::start(), nobody());
    let agent = agent::tcp(&edge, down);
    for _ in 0..5 {
        let mut visitor = agent.visit(&edge);
        assert_eq!(visitor.wire.read_rest().unwrap_or_default(), b"");
    }
}

/// Asserts that a result of a broken upstream is not complete.
#[track_caller]
fn assert_not_whole(what: &str, result: io::Result<Message>) {
    match result {
        Ok(answer) => {
            assert!(answer.status() >= 500, "{what}: a clean answer: {answer:?}");
        }
        Err(error) => assert!(is_reset(&error), "{what}: {error}"),
    }
}

#[test]
fn broken_answers_are_never_clean_ones() {
    let edge = Edge::start();
    let upstream = Upstream::tcp(|mut wire: Wire| {
        let Ok(request) = wire.read_request() else { return };
        let part = vec![b'b'; 50_000];
        let _ = match request.target() {
            "/closes" => Ok(()),
            "/resets" => return wire.reset(),
            "/short" => wire
                .write("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                .and_then(|()| wire.write(&part)),
            "/reset-in-body" => {
                let _ = wire.write("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
                let _ = wire.write(&part);
                return wire.reset();
            }
            "/dies-in-chunks" => wire
                .write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nc350\r\n")
                .and_then(|()| wire.write(&part))
                .and_then(|()| wire.write("\r\nc350\r\nonly a part")),
            "/no-last-chunk" => {
                wire.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            }
            "/half-a-head" => wire.write("HTTP/1.1 200 OK\r\nContent-Le"),
            "/rubbish" => wire.write("220 smtp.example ESMTP\r\n\r\n"),
            "/bad-chunk" => {
                wire.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n")
            }
            _ => wire.respond("200 OK", "", b"fine"),
        };
    });
    let agent = agent::http(&edge, upstream.port());
    for target in [
        "/closes",
        "/resets",
        "/short",
        "/reset-in-body",
        "/dies-in-chunks",
        "/no-last-chunk",
        "/half-a-head",
        "/rubbish",
        "/bad-chunk",
    ] {
        for _ in 0..3 {
            let mut visitor = agent.visit(&edge);
            visitor.send("GET", target, "", b"").unwrap();
            assert_not_whole(target, visitor.wire.read_response("GET"));
        }
        assert_eq!(agent.visit(&edge).get("/").text(), "fine", "after {target}");
    }
    wait_for("upstream connections to end", || upstream.open() == 0);
}

/// A body that is delimited by the end of the connection is complete only after an orderly end.
#[test]
fn a_body_without_length_that_breaks_off_is_not_ended_cleanly() {
    let edge = Edge::start();
    let upstream = Upstream::tcp(|mut wire: Wire| {
        let Ok(request) = wire.read_request() else { return };
        let _ = wire.write("HTTP/1.1 200 OK\r\n\r\nsome of it");
        if request.target() == "/reset" {
            wire.reset();
        }
    });
    let agent = agent::http(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    visitor.send("GET", "/whole", "", b"").unwrap();
    assert_eq!(visitor.wire.read_response("GET").unwrap().text(), "some of it");
    for _ in 0..5 {
        let mut visitor = agent.visit(&edge);
        visitor.send("GET", "/reset", "", b"").unwrap();
        assert_not_whole("/reset", visitor.wire.read_response("GET"));
    }
}

#[test]
fn more_than_was_announced_is_not_another_answer() {
    let edge = Edge::start();
    let upstream = Upstream::http(|_, wire| {
        wire.write(
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood\
             HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        )
    });
    let agent = agent::http(&edge, upstream.port());
    for _ in 0..5 {
        let mut visitor = agent.visit(&edge);
        assert_eq!(visitor.get("/1").text(), "good");
        let second = visitor.send("GET", "/2", "", b"");
        if let Ok(answer) = second.and_then(|()| visitor.wire.read_response("GET")) {
            assert_ne!(answer.text(), "evil");
        }
    }
}

#[test]
fn an_answer_before_the_request_ended_arrives() {
    let edge = Edge::start();
    let upstream = Upstream::tcp(|mut wire: Wire| {
        let _ = wire.read_head();
        let _ = wire.respond("413 Content Too Large", "Connection: close\r\n", b"too much");
        wire.half_close();
        // Reads on for a while, like regular servers.
        let _ = wire.read_rest();
    });
    let agent = agent::http(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    let host = visitor.host().to_owned();
    let head = format!("PUT / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000000\r\n\r\n");
    visitor.wire.write(head).unwrap();
    visitor.wire.write(vec![b'a'; 100_000]).unwrap();
    let answer = visitor.wire.read_response("PUT").unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (413, "too much"));
}

#[test]
fn header_fields_without_end_from_an_upstream_are_refused() {
    let edge = Edge::start();
    let upstream = Upstream::tcp(|mut wire: Wire| {
        let _ = wire.read_request();
        let _ = wire.write("HTTP/1.1 200 OK\r\n");
        let line = format!("X-More: {}\r\n", "m".repeat(1000));
        while wire.write(&line).is_ok() {}
    });
    let agent = agent::http(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    visitor.send("GET", "/", "", b"").unwrap();
    assert_not_whole("endless head", visitor.wire.read_response("GET"));
    wait_for("the upstream's connection to end", || upstream.open() == 0);
}

#[test]
fn a_silent_upstream_holds_its_own_visitor_only() {
    let edge = Edge::start();
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let upstream = Upstream::http(move |request, wire| {
        if request.target() == "/silent" {
            wait.lock().unwrap().recv().map_err(io::Error::other)?;
        }
        wire.respond("200 OK", "", b"spoke")
    });
    let agent = agent::http(&edge, upstream.port());
    let mut silent = agent.visit(&edge);
    silent.send("GET", "/silent", "", b"").unwrap();
    for _ in 0..20 {
        assert_eq!(agent.visit(&edge).get("/").text(), "spoke");
    }
    go.send(()).unwrap();
    assert_eq!(silent.wire.read_response("GET").unwrap().text(), "spoke");
}

#[test]
fn the_proxy_header_reaches_the_upstream_unchanged() {
    for (version, tls) in [(1, false), (2, false), (1, true), (2, true)] {
        let edge = Edge::start();
        let server = Authority::new().server(&["localhost"]);
        let upstream = Upstream::tcp(move |wire: Wire| {
            // In clear, before TLS. Byte by byte: the bytes after it may be TLS, which must not
            // be buffered here.
            let mut header = Vec::new();
            let mut byte = [0];
            let complete = |header: &[u8]| match version {
                1 => header.ends_with(b"\r\n"),
                _ => header.get(14..16).is_some_and(|n| {
                    header.len() == 16 + usize::from(u16::from_be_bytes([n[0], n[1]]))
                }),
            };
            while !complete(&header) {
                wire.tcp().read_exact(&mut byte).unwrap();
                header.push(byte[0]);
            }
            let mut wire = match tls {
                true => {
                    crate::support::certs::accept(wire.tcp().try_clone().unwrap(), server.clone())
                }
                false => wire,
            };
            let line = wire.read_line().unwrap();
            wire.write(format!("{line}\n")).unwrap();
            wire.write(&header).unwrap();
        });
        let scheme = if tls { "tls" } else { "tcp" };
        let config = edge.config_with(&format!(
            "endpoints:\n  - name: p\n    url: tcp://\n    upstream:\n      url: \
             {scheme}://localhost:{}\n      proxy_protocol: {version}\n",
            upstream.port()
        ));
        let agent = agent::agent(&config, ["start", "p"]).start();
        let mut visitor = agent.visit(&edge);
        let (from, to) =
            (visitor.wire.tcp().local_addr().unwrap(), visitor.wire.tcp().peer_addr().unwrap());
        visitor.wire.write("after the header\n").unwrap();
        assert_eq!(visitor.wire.read_line().unwrap(), "after the header");
        let expected = culvert::proto::proxy_protocol::encode(version, from, to);
        let header = visitor.wire.read_exact(expected.len()).unwrap();
        assert_eq!(header, expected, "version {version}, TLS {tls}");
    }
}

#[test]
fn a_vanished_visitor_ends_the_upstream_connection() {
    let edge = Edge::start();
    let upstream = Upstream::http(|_, wire| {
        wire.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
        loop {
            wire.write([b'v'; 10_000])?;
        }
    });
    let agent = agent::http(&edge, upstream.port());
    for _ in 0..5 {
        let mut visitor = agent.visit(&edge);
        visitor.send("GET", "/", "", b"").unwrap();
        visitor.wire.read_exact(100_000).unwrap();
        drop(visitor);
        wait_for("the upstream's connection to end", || upstream.open() == 0);
    }
}
