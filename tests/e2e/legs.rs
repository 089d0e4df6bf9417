//! Several sessions at once: to several edges, to one edge on several paths, and as many as an
//! edge announces. The loss of one affects no visitor's next request.

use serde_json::json;

use crate::support::agent;
use crate::support::certs::Authority;
use crate::support::edge::Edge;
use crate::support::peer::{AUTH, BIND, BadEdge, auth_response, bind_response};
use crate::support::relay::Relay;
use crate::support::upstream::Upstream;
use crate::support::visitor::try_get;
use crate::support::wait_for;

fn endpoint(url: &str, upstream: &Upstream) -> String {
    format!("endpoints:\n  - name: e\n    url: {url}\n    upstream: {{url: {}}}\n", upstream.port())
}

fn serves(edge: &Edge, url: &str) -> bool {
    try_get(edge, url, "/x").is_some_and(|answer| answer.text() == "GET /x ")
}

#[test]
fn two_edges_serve_one_endpoint_and_each_comes_back_by_itself() {
    let upstream = Upstream::hello();
    let mut first = Edge::start();
    let mut second = Edge::like(&first);
    let more = endpoint("http://both.localhost", &upstream);
    let config = first.config_at(&[first.agent, second.agent], &more);
    let mut agent = agent::agent(&config, ["start", "e"]).expect(2).start();
    let urls = [&first, &second].map(|e| format!("http://both.localhost:{}", e.http.port()));
    assert_eq!(agent.url(), urls[0], "the first edge is asked first");
    assert!(serves(&first, &urls[0]) && serves(&second, &urls[1]));
    for _ in 0..2 {
        first.kill();
        agent.process().wait_stderr("session closed");
        assert!(serves(&second, &urls[1]), "the other one does not notice");
        first.restart();
        wait_for("the first edge to serve again", || serves(&first, &urls[0]));
        second.kill();
        assert!(serves(&first, &urls[0]));
        second.restart();
        wait_for("the second edge to serve again", || serves(&second, &urls[1]));
    }
    agent.process().signal("TERM");
    assert_eq!(agent.process().wait_exit(), Some(0));
    wait_for("both to have been told", || {
        [(&first, &urls[0]), (&second, &urls[1])]
            .iter()
            .all(|(edge, url)| try_get(edge, url, "/").is_some_and(|a| a.status() == 404))
    });
}

#[test]
fn the_second_edge_serves_while_the_first_was_never_there() {
    let (upstream, mut first) = (Upstream::hello(), Edge::start());
    let second = Edge::like(&first);
    first.kill();
    let more = endpoint("http://late.localhost", &upstream);
    let config = first.config_at(&[first.agent, second.agent], &more);
    let _agent = agent::agent(&config, ["start", "e"]).start();
    let url = |edge: &Edge| format!("http://late.localhost:{}", edge.http.port());
    assert!(serves(&second, &url(&second)));
    first.restart();
    wait_for("the first edge to serve", || serves(&first, &url(&first)));
    assert!(serves(&second, &url(&second)));
}

#[test]
fn one_edge_by_two_ways_loses_no_request_with_one_of_them() {
    let (edge, http, echo) = (Edge::start(), Upstream::hello(), Upstream::echo());
    let ways = [Relay::to(edge.agent), Relay::to(edge.agent)];
    let more = format!(
        "{}  - name: t\n    url: tcp://\n    upstream: {{url: {}}}\n",
        endpoint("", &http),
        echo.port()
    );
    let config = edge.config_at(&[ways[0].addr, ways[1].addr], &more);
    let mut agent =
        agent::agent(&config, ["start", "--all", "--log-level", "info"]).expect(2).start();
    let (url, tcp) = (agent.url().to_owned(), agent.endpoints[1].0.clone());
    let pings = |edge: &Edge| {
        let mut wire = crate::support::wire::Wire::connect(edge.address_of(&tcp)).unwrap();
        wire.write("ping").is_ok() && wire.read_exact(4).is_ok_and(|b| b == b"ping")
    };
    let up = |agent: &mut agent::Agent, n| {
        wait_for("the sessions", || agent.process().count_stderr("tunnel session started") >= n);
    };
    up(&mut agent, 2);
    let mut sessions = 2;
    for round in 0..4 {
        let way = &ways[round % 2];
        for _ in 0..6 {
            assert!(serves(&edge, &url) && pings(&edge), "both take turns");
        }
        let closed = agent.process().count_stderr("session closed");
        way.cut();
        wait_for("the loss", || agent.process().count_stderr("session closed") > closed);
        wait_for("the edge to know of it", || serves(&edge, &url) && pings(&edge));
        for _ in 0..6 {
            assert!(serves(&edge, &url) && pings(&edge), "one is enough");
        }
        way.mend();
        sessions += 1;
        up(&mut agent, sessions);
    }
    // The same URLs all the time: no second start line.
    assert_eq!(agent.process().stdout().lines().count(), 2);
}

#[test]
fn legs_that_the_edge_asks_for() {
    let authority = Authority::new();
    let [edge, other] = [(); 2].map(|()| BadEdge::with(&authority, authority.server(&[])));
    let upstream = Upstream::hello();
    let mut agent = edge.agent(&["http", &upstream.port().to_string()], "").spawn();
    let mut session = edge.accept();
    let (stream, auth) = session.wait_call(AUTH);
    assert_eq!(auth["Extra"]["LegNumber"], 0);
    let mut response = auth_response();
    response["Extra"]["ConnectAddresses"] = json!([
        {"Region": "a", "ServerAddr": edge.addr().to_string()},
        {"Region": "b", "ServerAddr": other.addr().to_string()},
    ]);
    session.answer(stream, &response);
    let (stream, bind) = session.wait_call(BIND);
    assert_eq!(bind["Id"], "");
    session.answer(stream, &bind_response(&bind, "b7", "http://legs.localhost"));
    // Only when the first one is complete: it needs its id and token.
    let mut second = other.accept();
    let (stream, auth) = second.wait_call(AUTH);
    assert_eq!(auth["Extra"]["LegNumber"], 1);
    assert_eq!(auth["ClientId"], "client-1");
    assert_eq!(auth["Extra"]["Cookie"], "planted-cookie-of-tests");
    second.answer(stream, &auth_response());
    let (stream, again) = second.wait_call(BIND);
    assert_eq!(
        (&again["Id"], &again["Extra"]["Token"]),
        (&json!("b7"), &json!("planted-bind-token"))
    );
    assert_eq!(again["Opts"], bind["Opts"]);
    second.answer(stream, &bind_response(&again, "b7", "http://legs.localhost"));
    let request = b"GET /x HTTP/1.1\r\nHost: legs.localhost\r\nConnection: close\r\n\r\n";
    for leg in [&mut session, &mut second] {
        let stream = leg.visit("b7", "http", request);
        wait_for("the upstream's answer", || {
            leg.receive().expect("frames of the answer");
            leg.received(stream).ends_with(b"GET /x ")
        });
    }
    // An endpoint that is taken down on one leg is down on all.
    second.open(9, br#"{"Id":"b7","Message":"enough","ErrorCode":""}"#);
    agent.wait_stderr("endpoint stopped by the edge");
    let stream = session.visit("b7", "http", request);
    session.wait("the visitor to be turned away", |f| f.stream == stream && f.flags & 1 == 1);
    agent.assert_running();
}

#[test]
fn legs_that_the_edge_asks_for_do_not_break_a_memory_limit() {
    let authority = Authority::new();
    let [edge, other] = [(); 2].map(|()| BadEdge::with(&authority, authority.server(&[])));
    let args = ["http", "8080", "--memory-limit", "8MiB"];
    let mut agent = edge.agent(&args, "").spawn();
    let mut session = edge.accept();
    let (stream, _) = session.wait_call(AUTH);
    let mut response = auth_response();
    response["Extra"]["ConnectAddresses"] = json!([
        {"Region": "a", "ServerAddr": edge.addr().to_string()},
        {"Region": "b", "ServerAddr": other.addr().to_string()},
    ]);
    session.answer(stream, &response);
    let line = agent.wait_stderr("further legs ignored");
    assert!(line.contains("memory_limit") && line.contains("count=1"), "{line}");
    let (stream, bind) = session.wait_call(BIND);
    session.answer(stream, &bind_response(&bind, "b7", "http://legs.localhost"));
    agent.wait_stderr("started tunnel");
    // It is logged once, not by each session.
    session.tcp.shutdown(std::net::Shutdown::Both).unwrap();
    agent.wait_stderr("session closed");
    let mut again = edge.accept();
    let (stream, _) = again.wait_call(AUTH);
    again.answer(stream, &response);
    let (stream, bind) = again.wait_call(BIND);
    again.answer(stream, &bind_response(&bind, "b7", "http://legs.localhost"));
    agent.wait_stderr("session is back");
    assert_eq!(agent.count_stderr("further legs ignored"), 1);
    agent.assert_running();
}
