//! Requests of policies, `http-request`: to internal endpoints, in both phases, again, and what
//! bounds them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::peer::{AUTH, BIND, DATA, FIN, Frame, HEARTBEAT, RST, SYN, Session};
use crate::support::process::plant_secret;
use crate::support::serve::Serve;
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;
use crate::support::wire::{Message, Wire};
use crate::support::{TempDir, wait_for};

/// Status and body of the response, or why there is none.
const SHOWN: &str = "has(actions.ngrok.http_request.res) ? \
     string(actions.ngrok.http_request.res.status_code) + \" \" + \
     actions.ngrok.http_request.res.body : actions.ngrok.http_request.error.message";

/// A policy with one request, whose variables become headers of the response.
fn requests(phase: &str, config: &str) -> String {
    let action = format!("      - type: http-request\n        config: {{{config}}}\n");
    let show = format!(
        "      - type: add-headers\n        config:\n          headers:\n            \
         x-result: '${{{SHOWN}}}'\n            \
         x-attempts: '${{string(actions.ngrok.http_request.attempts.size())}}'\n"
    );
    format!("{phase}:\n  - actions:\n{action}{show}")
}

/// Responds with its name, the request line, the body, and some header lines.
fn shows_requests(name: &'static str) -> Upstream {
    Upstream::http(move |request, wire| {
        let shown = ["host", "x-key", "x-inner", "x-forwarded-for", "ngrok-req-hops", "x-result"];
        let field = |name: &&str| request.field(name).map(|value| format!(" {name}={value}"));
        let fields: String = shown.iter().filter_map(field).collect();
        let body = format!("{name} {}{fields} {}", request.first, request.text());
        wire.respond("200 OK", "Content-Type: text/plain\r\n", body.as_bytes())
    })
}

fn result(response: &Message) -> &str {
    response.field("x-result").unwrap_or_default()
}

#[test]
fn a_policy_requests_an_internal_endpoint() {
    let (edge, public, inner) = (Edge::start(), shows_requests("public"), shows_requests("inner"));
    let _internal = agent::with_policy(
        &edge,
        &inner,
        &["--url=https://svc.internal"],
        "on_http_request: [{actions: [{type: add-headers, config: {headers: {x-inner: '1'}}}]}]
on_http_response: [{actions: [{type: add-headers, config: {headers: {x-inner: '2'}}}]}]
",
    );
    let config = "url: 'https://svc.internal/hook?a=1', method: POST, body: 'id=${req.method}', \
                  headers: {x-key: 'k ${req.url.path}'}, query_params: [{key: b c, value: d&}]";
    for phase in ["on_http_request", "on_http_response"] {
        let agent = agent::with_policy(&edge, &public, &[], &requests(phase, config));
        let mut visitor = agent.visit(&edge);
        for _ in 0..2 {
            let response = visitor.ask("PUT", "/path", "X-Forwarded-For: 9.9.9.9\r\n", b"body");
            assert_eq!(response.status(), 200);
            let page = response.text();
            let seen = match phase {
                "on_http_request" => page.as_str(),
                _ => result(&response),
            };
            let expected = "200 inner POST /hook?a=1&b%20c=d%26 HTTP/1.1 host=svc.internal \
                            x-key=k /path x-inner=1 x-forwarded-for=127.0.0.1 \
                            ngrok-req-hops=1 id=PUT";
            assert!(seen.contains(expected), "{phase}: {seen}");
            assert!(page.starts_with("public PUT /path"), "{page}");
        }
    }
}

#[test]
fn an_internal_endpoint_of_another_account_is_not_found() {
    let edge = Serve::start(
        "credentials: [{id: one, authtoken: one_0123456789abcdefghij}, \
         {id: two, authtoken: two_0123456789abcdefghij}]\n",
    );
    let (upstream, secret) = (Upstream::hello(), Upstream::hello());
    let other = edge.config("two.yml", "two_0123456789abcdefghij");
    let args = ["http", &secret.addr.to_string(), "--url=https://svc.internal"];
    let _other = agent::agent(&other, args).start();
    let own = edge.config("one.yml", "one_0123456789abcdefghij");
    let policy = requests("on_http_request", "url: 'https://svc.internal/', on_error: halt");
    let file = edge.write("policy.yml", policy).display().to_string();
    let (address, url) = (upstream.addr.to_string(), "http://a.tunnels.test");
    let args = ["http", &address, "--url", url, "--traffic-policy-file", &file];
    let _own = agent::agent(&own, args).start();
    let mut wire = Wire::connect(edge.address("http_addr")).unwrap();
    wire.write("GET / HTTP/1.1\r\nHost: a.tunnels.test\r\n\r\n").unwrap();
    assert_eq!(wire.read_response("GET").unwrap().status(), 502);
    assert_eq!(secret.accepted(), 0);
}

#[test]
fn the_rules_of_the_internal_endpoint_count() {
    let (edge, public, inner) = (Edge::start(), shows_requests("public"), Upstream::hello());
    let hidden = "--url=https://hidden.internal";
    let _hidden = agent::with_policy(&edge, &inner, &[hidden], "{}");
    let agent = |url: &str, policy: &str| agent::with_policy(&edge, &inner, &[url], policy);
    let _deny = agent(
        "--url=http://deny.internal",
        "on_http_request: [{actions: [{type: deny, config: {status_code: 451}}]}]",
    );
    let _forward = agent(
        "--url=http://forward.internal",
        "on_http_request: [{actions: [{type: url-rewrite, config: {from: /x, to: /y}}, {type: \
         forward-internal, config: {url: 'https://hidden.internal'}}]}]",
    );
    let _replace = agent(
        "--url=http://replace.internal",
        "on_http_response: [{actions: [{type: custom-response, config: {status_code: 418, body: \
         'mine'}}]}]",
    );
    for (host, expected) in [
        ("deny", "451"),
        ("forward", "200 GET /y"),
        ("replace", "418 mine"),
        (
            "missing",
            "The internal endpoint http://missing.internal:80 does not exist, or its agent \
                     is not connected.",
        ),
    ] {
        let config = format!("url: 'http://{host}.internal/x'");
        let agent = agent::with_policy(&edge, &public, &[], &requests("on_http_response", &config));
        assert_eq!(result(&agent.visit(&edge).get("/")), expected, "{host}");
    }
}

#[test]
fn redirects_stay_in_the_account_and_are_counted() {
    let (edge, public) = (Edge::start(), Upstream::hello());
    let server = Upstream::http(|request, wire| match request.target() {
        "/end" => wire.respond("200 OK", "", b"end"),
        "/away" => wire.respond("302 Found", "Location: https://other.internal/end\r\n", b""),
        _ => wire.respond("302 Found", "Location: /end\r\n", b""),
    });
    let _one = agent::with_policy(&edge, &server, &["--url=https://one.internal"], "{}");
    let _other = agent::with_policy(&edge, &server, &["--url=https://other.internal"], "{}");
    for (path, most, expected) in
        [("/", 0, "302"), ("/", 1, "200 end"), ("/away", 1, "200 end"), ("/", 2, "200 end")]
    {
        let config = format!("url: 'https://one.internal{path}', max_redirects: {most}");
        let agent = agent::with_policy(&edge, &public, &[], &requests("on_http_response", &config));
        assert_eq!(result(&agent.visit(&edge).get("/")), expected, "{path} {most}");
    }
}

/// A server of the internet chooses neither an internal endpoint nor what one gets.
#[test]
fn a_redirect_of_an_outside_server_leads_to_no_internal_endpoint() {
    let (edge, public) = (Edge::start(), Upstream::hello());
    let outside = Upstream::http(|request, wire| match request.target() {
        "/end" => wire.respond("200 OK", "", b"outside"),
        "/on" => wire.respond("302 Found", "Location: /in\r\n", b""),
        _ => wire.respond("302 Found", "Location: http://in.internal/secret\r\n", b""),
    });
    let address = outside.addr;
    let secrets = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&secrets);
    let inner = Upstream::http(move |request, wire| {
        if request.target() == "/secret" {
            count.fetch_add(1, Ordering::Relaxed);
            return wire.respond("200 OK", "", b"secret");
        }
        let location = format!("Location: http://{address}{}\r\n", request.target());
        wire.respond("302 Found", &location, b"")
    });
    let _inner = agent::with_policy(&edge, &inner, &["--url=http://in.internal"], "{}");
    let refused = format!("{address} redirects to an internal endpoint");
    for (path, expected) in [("/end", "200 outside"), ("/in", &refused), ("/on", &refused)] {
        let config = format!("url: 'http://in.internal{path}', max_redirects: 5");
        let agent = agent::with_policy(&edge, &public, &[], &requests("on_http_response", &config));
        assert_eq!(result(&agent.visit(&edge).get("/")), expected, "{path}");
    }
    assert_eq!(secrets.load(Ordering::Relaxed), 0);
}

#[test]
fn a_request_is_repeated_while_the_condition_is_true() {
    let (edge, public) = (Edge::start(), Upstream::hello());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let flaky = Upstream::http(move |request, wire| {
        let number = counted.fetch_add(1, Ordering::Relaxed);
        match request.target() {
            "/cut" => Err(std::io::ErrorKind::Other.into()),
            "/late" if number > 1 => wire.respond("200 OK", "", b"now"),
            _ => wire.respond("500 Internal Server Error", "", b"no"),
        }
    });
    let _inner = agent::with_policy(&edge, &flaky, &["--url=https://flaky.internal"], "{}");
    for (path, condition, status, attempts) in [
        ("/", "last_attempt.res.statusCode == 500", "500 no", "4"),
        ("/", "attempts < 2 && last_attempt.res.status_code >= 500", "500 no", "2"),
        ("/late", "last_attempt.res.status_code == 500", "200 now", "3"),
        ("/cut", "has(last_attempt.error)", "flaky.internal: the response was cut off", "4"),
        ("/", "last_attempt.res.body == 'no' && last_attempt.req.method == 'PUT'", "500 no", "1"),
        ("/", "last_attempt.error.contains('x')", "500 no", "1"),
        ("/", "req.url.path == '/again'", "500 no", "4"),
    ] {
        count.store(0, Ordering::Relaxed);
        let config = format!(
            "url: 'https://flaky.internal{path}', retry_condition: \"{}\"",
            condition.replace('"', "\\\"")
        );
        let agent = agent::with_policy(&edge, &public, &[], &requests("on_http_response", &config));
        let response = agent.visit(&edge).get("/again");
        assert!(result(&response).starts_with(status), "{condition}: {}", result(&response));
        assert_eq!(response.field("x-attempts"), Some(attempts), "{condition}");
        assert_eq!(count.load(Ordering::Relaxed).to_string(), attempts, "{condition}");
    }
}

#[test]
fn a_policy_that_requests_itself_ends() {
    let edge = Edge::start();
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let upstream = Upstream::http(move |_, wire| {
        count.fetch_add(1, Ordering::Relaxed);
        wire.respond("200 OK", "", b"app")
    });
    // Without the header that counts: the count does not depend on it.
    let round = "on_http_request:
  - actions:
      - {type: remove-headers, config: {headers: [ngrok-req-hops]}}
      - {type: forward-internal, config: {url: 'http://turn.internal'}}
";
    let turn = "on_http_request:
  - actions:
      - {type: http-request, config: {url: 'http://round.internal/', timeout: 30s}}
";
    let _round = agent::with_policy(&edge, &upstream, &["--url=http://round.internal"], round);
    let _turn = agent::with_policy(&edge, &upstream, &["--url=http://turn.internal"], turn);
    let config = "url: 'http://round.internal/', timeout: 30s";
    let entry = agent::with_policy(&edge, &upstream, &[], &requests("on_http_response", config));
    assert_eq!(result(&entry.visit(&edge).get("/")), "200 app");
    // The visitor's request, and two of policies. The third one is refused.
    assert_eq!(served.load(Ordering::Relaxed), 3);
}

#[test]
fn a_request_has_its_time_and_its_length() {
    let (edge, public) = (Edge::start(), Upstream::hello());
    let silent = Upstream::tcp(|wire| wire.wait_reset());
    let large = Upstream::http(|request, wire| {
        let length = request.target()[1..].parse().unwrap();
        wire.respond("200 OK", "", &vec![b'x'; length])
    });
    let _silent = agent::with_policy(&edge, &silent, &["--url=http://silent.internal"], "{}");
    let _large = agent::with_policy(&edge, &large, &["--url=http://large.internal"], "{}");
    const MOST: usize = 256 * 1024;
    for (url, expected) in [
        ("silent.internal/", "silent.internal: timed out".to_owned()),
        (&*format!("large.internal/{MOST}"), "complete".to_owned()),
        (
            &*format!("large.internal/{}", MOST + 1),
            format!("large.internal: the response is larger than {MOST} bytes"),
        ),
    ] {
        let config = format!("url: 'http://{url}', timeout: 2s");
        // A long body is read once in an expression.
        let shown = "has(actions.ngrok.http_request.res) ? \"complete\" : \
                     actions.ngrok.http_request.error.message";
        let policy = requests("on_http_response", &config).replace(SHOWN, shown);
        let agent = agent::with_policy(&edge, &public, &[], &policy);
        assert_eq!(result(&agent.visit(&edge).get("/")), expected, "{url}");
    }
    // Interim responses can be endless, and their bytes do not count as those of the response.
    let interim = Upstream::http(|_, wire| {
        while wire.write("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100)).is_ok() {}
        Ok(())
    });
    let _interim = agent::with_policy(&edge, &interim, &["--url=http://interim.internal"], "{}");
    let config = "url: 'http://interim.internal/', timeout: 1s";
    let agent = agent::with_policy(&edge, &public, &[], &requests("on_http_response", config));
    assert_eq!(result(&agent.visit(&edge).get("/")), "interim.internal: timed out");
    // The stream of a request whose time is over was given back.
    wait_for("the endless service to be left", || interim.open() == 0);
    wait_for("the silent service to be left", || silent.open() == 0);
}

/// Requests that wait for a slow endpoint hold a quarter of the threads, not those of all visitors.
#[test]
fn the_requests_of_one_account_have_a_share_of_the_threads() {
    let edge = Serve::start(
        "limits: {threads: 16}\ncredentials: [{id: one, authtoken: one_0123456789abcdefghij}]\n",
    );
    let (public, silent) = (Upstream::hello(), Upstream::tcp(|wire| wire.wait_reset()));
    let own = edge.config("one.yml", "one_0123456789abcdefghij");
    let args = ["http", &silent.addr.to_string(), "--url=http://silent.internal"];
    let _silent = agent::agent(&own, args).start();
    let policy = requests("on_http_response", "url: 'http://silent.internal/', timeout: 30s");
    let file = edge.write("policy.yml", policy).display().to_string();
    let (address, url) = (public.addr.to_string(), "http://a.tunnels.test");
    let args = ["http", &address, "--url", url, "--traffic-policy-file", &file];
    let _agent = agent::agent(&own, args).start();
    let visit = || {
        let mut wire = Wire::connect(edge.address("http_addr")).unwrap();
        wire.write("GET / HTTP/1.1\r\nHost: a.tunnels.test\r\n\r\n").unwrap();
        wire
    };
    let _waiting: Vec<Wire> = (0..4).map(|_| visit()).collect();
    wait_for("four requests of policies", || silent.open() == 4);
    let response = visit().read_response("GET").unwrap();
    assert_eq!(response.status(), 200);
    let text = "the credential has too many requests of policies under way";
    assert_eq!(result(&response), text);
    assert_eq!(silent.open(), 4);
}

#[test]
fn the_text_of_a_response_has_room_or_is_an_error() {
    let (edge, public) = (Edge::start(), Upstream::hello());
    let binary = Upstream::http(|_, wire| wire.respond("200 OK", "", &[0xff; 100_000]));
    let _binary = agent::with_policy(&edge, &binary, &["--url=http://binary.internal"], "{}");
    let request = "      - {type: http-request, config: {url: 'http://binary.internal/'}}\n";
    let policy = |requests: &str, on_error: &str| {
        format!(
            "on_http_response:\n  - actions:\n{requests}      - type: add-headers\n        \
             config: {{headers: {{x-result: '${{has(actions.ngrok.http_request.res.body) ? \
             \"complete\" : actions.ngrok.http_request.error.message}}', x-status: \
             '${{string(actions.ngrok.http_request.res.status_code)}}', x-error: \
             '<${{actions.ngrok.http_request.error.message}}>'}}}}\n"
        )
        .replace("internal/'", &format!("internal/', on_error: {on_error}"))
    };
    // Three bytes for each byte that is not UTF-8, at most 48 KiB.
    let one = agent::with_policy(&edge, &public, &[], &policy(request, "continue"));
    let response = one.visit(&edge).get("/");
    assert_eq!((response.status(), result(&response)), (200, "complete"));
    assert_eq!(response.field("x-error"), Some("<>"));
    let two = agent::with_policy(&edge, &public, &[], &policy(&request.repeat(2), "continue"));
    let response = two.visit(&edge).get("/");
    let error = "the response is too large for the variables of the policy";
    assert_eq!((response.status(), result(&response)), (200, error));
    // A rule that refuses by the status decides all the same.
    assert_eq!(response.field("x-status"), Some("200"));
    let halts = agent::with_policy(&edge, &public, &[], &policy(&request.repeat(2), "halt"));
    assert_eq!(halts.visit(&edge).get("/").status(), 502);
}

#[test]
fn parameters_are_before_the_fragment() {
    let (edge, public, inner) = (Edge::start(), Upstream::hello(), Upstream::hello());
    let _inner = agent::with_policy(&edge, &inner, &["--url=http://svc.internal"], "{}");
    let config = "url: 'http://svc.internal/a#b?c', query_params: [{key: d, value: e}]";
    let agent = agent::with_policy(&edge, &public, &[], &requests("on_http_response", config));
    assert_eq!(result(&agent.visit(&edge).get("/")), "200 GET /a?d=e");
}

#[test]
fn a_value_of_the_visitor_adds_no_header_line() {
    let (edge, public, inner) = (Edge::start(), Upstream::hello(), Upstream::hello());
    let _inner = agent::with_policy(&edge, &inner, &["--url=http://svc.internal"], "{}");
    let config = "url: 'http://svc.internal/', headers: {x-key: \
                  '${req.url.query_params[\"v\"][0]}'}";
    let agent = agent::with_policy(&edge, &public, &[], &requests("on_http_response", config));
    let good = agent.visit(&edge).get("/?v=plain");
    assert_eq!(result(&good), "200 GET /");
    let bad = agent.visit(&edge).get("/?v=a%0d%0aHost:%20b");
    assert_eq!(result(&bad), "the value of the header 'x-key' is not valid");
    assert_eq!(inner.accepted(), 1);
}

/// The rules for responses run beside the thread that receives for all visitors of the agent.
#[test]
fn a_slow_request_of_a_response_delays_no_other_visitor() {
    let edge = Edge::start();
    let open = Arc::new(AtomicBool::new(false));
    let (gate, waiting) = (Arc::clone(&open), Arc::new(AtomicUsize::new(0)));
    let arrived = Arc::clone(&waiting);
    let slow = Upstream::http(move |_, wire| {
        arrived.fetch_add(1, Ordering::Relaxed);
        wait_for("the gate", || gate.load(Ordering::Relaxed));
        wire.respond("200 OK", "", b"slow")
    });
    let app = Upstream::http(|request, wire| {
        let long = if request.target() == "/slow" { 300_000 } else { 1 };
        wire.respond("200 OK", "", &vec![b'y'; long])
    });
    let _slow = agent::with_policy(&edge, &slow, &["--url=http://slow.internal"], "{}");
    let config = "url: 'http://slow.internal/', timeout: 30s";
    let policy = requests("on_http_response", config)
        .replace("  - actions:", "  - expressions: [\"req.url.path == '/slow'\"]\n    actions:");
    let agent = agent::with_policy(&edge, &app, &[], &policy);
    let mut first = agent.visit(&edge);
    first.send("GET", "/slow", "", b"").unwrap();
    wait_for("the request of the policy", || waiting.load(Ordering::Relaxed) == 1);
    assert_eq!(agent.visit(&edge).get("/fast").text(), "y");
    open.store(true, Ordering::Relaxed);
    let response = first.wire.read_response("GET").unwrap();
    assert_eq!((result(&response), response.text().len()), ("200 slow", 300_000));
    // The connection goes on.
    assert_eq!(first.get("/fast").text(), "y");
}

/// The head of the response comes in two pieces. The rules run after the second one.
#[test]
fn rules_of_a_head_in_two_pieces_delay_no_other_visitor() {
    let edge = Edge::start();
    let (rest, open) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (gate, waiting) = (Arc::clone(&open), Arc::new(AtomicUsize::new(0)));
    let arrived = Arc::clone(&waiting);
    let slow = Upstream::http(move |_, wire| {
        arrived.fetch_add(1, Ordering::Relaxed);
        wait_for("the gate", || gate.load(Ordering::Relaxed));
        wire.respond("200 OK", "", b"slow")
    });
    let begun = Arc::new(AtomicBool::new(false));
    let (goes_on, is_begun) = (Arc::clone(&rest), Arc::clone(&begun));
    let app = Upstream::http(move |request, wire| {
        if request.target() != "/slow" {
            return wire.respond("200 OK", "", b"y");
        }
        // The edge has a piece that ends within the head: an interim response precedes it.
        wire.write("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n")?;
        is_begun.store(true, Ordering::Relaxed);
        wait_for("the rest of the head", || goes_on.load(Ordering::Relaxed));
        wire.write("Content-Length: 4\r\n\r\nbody")
    });
    let _slow = agent::with_policy(&edge, &slow, &["--url=http://slow.internal"], "{}");
    let config = "url: 'http://slow.internal/', timeout: 30s";
    let policy = requests("on_http_response", config)
        .replace("  - actions:", "  - expressions: [\"req.url.path == '/slow'\"]\n    actions:");
    let agent = agent::with_policy(&edge, &app, &[], &policy);
    let mut first = agent.visit(&edge);
    first.send("GET", "/slow", "", b"").unwrap();
    wait_for("the first piece", || begun.load(Ordering::Relaxed));
    let interim = first.wire.read_head().unwrap();
    assert_eq!(interim.first, "HTTP/1.1 103 Early Hints");
    rest.store(true, Ordering::Relaxed);
    wait_for("the request of the policy", || waiting.load(Ordering::Relaxed) == 1);
    assert_eq!(agent.visit(&edge).get("/fast").text(), "y");
    open.store(true, Ordering::Relaxed);
    let response = first.wire.read_response("GET").unwrap();
    assert_eq!((result(&response), response.text()), ("200 slow", "body".into()));
    assert_eq!(first.get("/fast").text(), "y");
}

/// All threads serve visitors of one proxy. The thread for the rules of a response takes the place
/// of the visitor that waits for this response.
#[test]
fn a_visitor_that_gives_way_to_its_own_rules_stops_no_other_one() {
    const TOKEN: &str = "requests_token";
    plant_secret(TOKEN);
    let edge = Serve::start(&format!(
        "credentials: [{{id: a, authtoken: {TOKEN}}}]\ntrusted_proxies: [127.0.0.1/32]\n\
         limits: {{threads: 2}}\n"
    ));
    let (open, arrived) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (gate, waiting) = (Arc::clone(&open), Arc::clone(&arrived));
    let app = Upstream::http(move |_, wire| {
        let number = waiting.fetch_add(1, Ordering::Relaxed);
        wait_for("the gate", || gate.load(Ordering::Relaxed) > number);
        wire.respond("200 OK", "", b"y")
    });
    let policy = requests("on_http_response", "url: 'http://slow.internal/', timeout: 30s")
        .replace("  - actions:", "  - expressions: [\"req.url.path == '/slow'\"]\n    actions:");
    let dir = TempDir::new();
    let file = dir.write("policy.yml", policy).display().to_string();
    let address = app.addr.to_string();
    let config = edge.config("agent.yml", TOKEN);
    let args = ["http", &address, "--url=http://p.tunnels.test", "--traffic-policy-file", &file];
    let _agent = agent::agent(&config, args).start();
    let send = |target: &str| {
        let mut visitor = Wire::connect(edge.address("http_addr")).unwrap();
        let fields = "Host: p.tunnels.test\r\nX-Forwarded-For: 192.0.2.1\r\n";
        visitor.write(format!("GET {target} HTTP/1.1\r\n{fields}\r\n")).unwrap();
        visitor
    };
    let mut first = send("/slow");
    wait_for("the first visitor", || arrived.load(Ordering::Relaxed) == 1);
    let mut second = send("/fast");
    wait_for("the second visitor", || arrived.load(Ordering::Relaxed) == 2);
    open.store(1, Ordering::Relaxed);
    let response = first.read_response("GET");
    assert!(response.is_err(), "the stalest visitor has to give way: {response:?}");
    open.store(2, Ordering::Relaxed);
    assert_eq!(second.read_response("GET").unwrap().text(), "y");
}

/// Connects a scripted agent with one endpoint. Returns the URL of the endpoint.
fn scripted(edge: &Edge, opts: &Value) -> (Session, String) {
    let mut agent = Session::connect(edge.agent, &edge.ca);
    let auth = json!({"Version": ["3"], "ClientId": "", "Extra": {"Authtoken": edge.authtoken(),
        "Cookie": "", "HeartbeatInterval": 10_000_000_000u64,
        "HeartbeatTolerance": 15_000_000_000u64}});
    agent.call(AUTH, &auth);
    let bind = json!({"Id": "", "Proto": "http", "ForwardsTo": "x", "ForwardsProto": "",
        "Opts": opts, "Extra": {"Token": "", "Metadata": "", "Bindings": []}});
    let bound = agent.call(BIND, &bind);
    let url = bound["URL"].as_str().unwrap_or_else(|| panic!("{bound}"));
    (agent, url.to_owned())
}

/// Whether the frame opens a stream for a visitor.
fn is_visit(frame: &Frame) -> bool {
    frame.flags & SYN != 0 && frame.payload.get(..4) == Some(&[0, 0, 0, 3])
}

/// The agent of the internal endpoint never returns the window, and responds before the request
/// was sent to its end.
#[test]
fn a_response_may_precede_the_end_of_the_request() {
    let edge = Edge::start();
    let app = shows_requests("public");
    // The body becomes longer than the window of a stream.
    let long = "y".repeat(40_000);
    let policy = format!(
        "on_http_request:\n  - actions:\n      - type: request-body-find-replace\n        config: \
         {{replacements: [{{from: x, to: {long}}}]}}\n"
    );
    let opts = json!({"URL": "http://early.internal", "TrafficPolicy": policy});
    let (mut internal, url) = scripted(&edge, &opts);
    let config = format!("url: '{url}/', method: POST, timeout: 30s, body: xxxxxxxx");
    let agent = agent::with_policy(&edge, &app, &[], &requests("on_http_request", &config));
    let mut visitor = agent.visit(&edge);
    visitor.send("GET", "/", "", b"").unwrap();
    let stream = internal.wait("the request of the policy", is_visit).stream;
    // The whole window, less the type of the stream.
    while internal.received(stream).len() < 256 * 1024 - 4 {
        internal.receive().unwrap();
    }
    let response = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig";
    internal.send(DATA, 0, stream, response).unwrap();
    internal.wait("the end of the stream", |f| f.kind == RST && f.stream == stream);
    let text = visitor.wire.read_response("GET").unwrap().text();
    assert!(text.contains("x-result=413 big"), "{text}");
}

/// End of a stream that a scripted agent sends while the rules of its response still run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AgentEnd {
    Finish,
    Reset,
    /// The orderly end, and then the end of the session.
    FinishAndLeave,
    Leave,
}

/// Has a scripted agent respond with `response` and this end before the rules have ended. Returns
/// the body that the visitor gets.
fn end_during_rules(response: &str, end: AgentEnd) -> std::io::Result<Vec<u8>> {
    let edge = Edge::start();
    let (open, arrived) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (gate, waiting) = (Arc::clone(&open), Arc::clone(&arrived));
    let slow = Upstream::http(move |_, wire| {
        waiting.store(true, Ordering::Relaxed);
        wait_for("the gate", || gate.load(Ordering::Relaxed));
        wire.respond("200 OK", "", b"slow")
    });
    let _slow = agent::with_policy(&edge, &slow, &["--url=http://slow.internal"], "{}");
    let policy = requests("on_http_response", "url: 'http://slow.internal/', timeout: 30s");
    let (mut agent, url) = scripted(&edge, &json!({"TrafficPolicy": policy}));
    let mut visitor = Visitor::connect(&edge, &url);
    visitor.send("GET", "/", "", b"").unwrap();
    let stream = agent.wait("a visitor's stream", is_visit).stream;
    agent.send(DATA, 0, stream, response.as_bytes()).unwrap();
    wait_for("the request of the policy", || arrived.load(Ordering::Relaxed));
    match end {
        AgentEnd::Finish | AgentEnd::FinishAndLeave => agent.send(DATA, FIN, stream, b"").unwrap(),
        AgentEnd::Reset => agent.send(RST, 0, stream, &[0, 0, 0, 6]).unwrap(),
        AgentEnd::Leave => {}
    }
    // The edge processes frames in their order: it has the end before this heartbeat.
    let beat = agent.open(HEARTBEAT, b"");
    agent.send(DATA, 0, beat, &[1, 2, 3, 4]).unwrap();
    agent.wait("the echo", |f| f.stream == beat && f.payload == [1, 2, 3, 4]);
    if let AgentEnd::Leave | AgentEnd::FinishAndLeave = end {
        drop(agent);
        edge.output().wait_stderr("agent disconnected");
    }
    open.store(true, Ordering::Relaxed);
    let head = visitor.wire.read_head().unwrap();
    assert_eq!(result(&head), "200 slow", "{end:?}");
    visitor.wire.read_rest()
}

#[test]
fn the_end_of_a_response_follows_its_rules() {
    const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody";
    const UNTIL_END: &str = "HTTP/1.1 200 OK\r\n\r\nbody";
    for (response, end, is_whole) in [
        (UNTIL_END, AgentEnd::Finish, true),
        (UNTIL_END, AgentEnd::FinishAndLeave, true),
        (UNTIL_END, AgentEnd::Reset, false),
        (UNTIL_END, AgentEnd::Leave, false),
        (LENGTH, AgentEnd::Finish, false),
        (LENGTH, AgentEnd::FinishAndLeave, false),
    ] {
        let body = end_during_rules(response, end);
        match is_whole {
            true => assert_eq!(body.unwrap(), b"body", "{end:?}"),
            false => assert!(body.is_err(), "{end:?}: a part looks complete: {body:?}"),
        }
    }
}
