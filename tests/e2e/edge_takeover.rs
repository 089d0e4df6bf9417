//! What a lost session holds at the edge, as its credential meets it again: places, names,
//! ports. A session that is dead without a sign of it is found out, one that lives is not.

use std::net::{TcpListener, TcpStream};

use serde_json::json;

use crate::hostile_peers::{bind, scripted_agent};
use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::peer::BIND;
use crate::support::process::plant_secret;
use crate::support::serve::Serve;
use crate::support::upstream::Upstream;
use crate::support::{TempDir, wait_for};

const ONE: &str = "2planted0takeover0one00000_0123456789ABCDEFGHIJK";
const TWO: &str = "2planted0takeover0two00000_0123456789ABCDEFGHIJK";

const UNBIND: u32 = 2;

/// An edge where the credential `one` may have one session.
fn start(args: &[&str]) -> Serve {
    plant_secret(ONE);
    plant_secret(TWO);
    let more = format!(
        "credentials:\n  - {{id: one, authtoken: {ONE}, max_sessions: 1}}\n  - {{id: two, authtoken: \
         {TWO}}}\n"
    );
    Serve::start_with(TempDir::new(), &more, args)
}

#[test]
fn an_agent_is_refused_for_its_own_session_of_before_the_power_loss() {
    let (edge, upstream) = (start(&[]), Upstream::hello());
    let config = edge.config("one.yml", ONE);
    let port = upstream.port().to_string();
    let args = ["http", &port, "--url", "http://one.tunnels.test"];
    let mut lost = agent::agent(&config, args).start();
    for _ in 0..2 {
        // The edge gets no sign of it, and the next one has neither its id nor its cookie.
        lost.process().signal("STOP");
        let again = agent::agent(&config, args).start();
        let answer = edge.visit("one.tunnels.test").read_response("GET").unwrap();
        assert_eq!(answer.text(), "GET / ");
        lost.process().kill();
        lost = again;
    }
}

#[test]
fn too_many_sessions_lock_the_address_for_all_agents() {
    let (mut edge, upstream) = (start(&[]), Upstream::hello());
    let (one, two) = (edge.config("one.yml", ONE), edge.config("two.yml", TWO));
    let port = upstream.port().to_string();
    let mut first = agent::agent(&one, ["http", &port]).start();
    for _ in 0..11 {
        let mut refused = agent::agent(&one, ["http", &port]).spawn();
        assert_eq!(refused.wait_exit(), Some(1));
        assert!(refused.stderr().contains("ERR_NGROK_108"), "{}", refused.stderr());
    }
    let other = agent::agent(&two, ["http", &port]).start();
    assert!(other.url().contains("tunnels.test"));
    // The session that lives was not touched.
    assert_eq!(first.process().count_stderr("session closed"), 0);
    // Authtokens that are wrong do lock it, and the log has it.
    let wrong = edge.config("wrong.yml", "wrong_token");
    for _ in 0..10 {
        assert_eq!(agent::agent(&wrong, ["http", &port]).spawn().wait_exit(), Some(1));
    }
    let mut locked = agent::agent(&two, ["http", &port]).spawn();
    let said = edge.process().wait_stderr("address locked after failed logins");
    assert!(said.contains("r=127.0.0.1"), "{said}");
    locked.kill();
}

/// The first of three ports that are free now.
fn three_free_ports() -> u16 {
    let mut first = 23_000 + u16::try_from(std::process::id() % 5_000).unwrap();
    while (first..first + 3).any(|port| TcpListener::bind(("127.0.0.1", port)).is_err()) {
        first += 3;
    }
    first
}

#[test]
fn the_ports_of_killed_agents_stay_taken_for_their_own_credential() {
    let first = three_free_ports();
    let edge = start(&["--tcp-ports", &format!("{first}-{}", first + 2)]);
    let upstream = Upstream::echo();
    let config = edge.config("two.yml", TWO);
    let port = upstream.port().to_string();
    let connects = |url: &str| {
        let port: u16 = url.rsplit(':').next().unwrap().parse().unwrap();
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    };
    // The ends of these are seen at once.
    for _ in 0..5 {
        let mut agent = agent::agent(&config, ["tcp", &port]).start();
        assert!(connects(agent.url()), "{}", agent.url());
        agent.process().kill();
    }
    // These are dead without a sign of it.
    let mut lost = Vec::new();
    for _ in 0..3 {
        let mut agent = agent::agent(&config, ["tcp", &port]).start();
        agent.process().signal("STOP");
        lost.push(agent);
    }
    let agent = agent::agent(&config, ["tcp", &port]).start();
    assert!(connects(agent.url()), "{}", agent.url());
    // Those that live keep their ports.
    let _two = [(); 2].map(|()| agent::agent(&config, ["tcp", &port]).start());
    let mut refused = agent::agent(&config, ["tcp", &port]).spawn();
    assert_eq!(refused.wait_exit(), Some(1));
    assert!(refused.stderr().contains("ERR_NGROK_307"), "{}", refused.stderr());
}

#[test]
fn a_tcp_endpoint_whose_bind_waited_is_online_and_nothing_listens() {
    let edge = Edge::start();
    let (mut owner, mut next) = (scripted_agent(&edge), scripted_agent(&edge));
    let bound = owner.call(BIND, &bind("tcp", &json!({"Addr": ""})));
    let url = bound["URL"].as_str().unwrap_or_else(|| panic!("{bound}")).to_owned();
    let address = url.trim_start_matches("tcp://").to_owned();
    let (mut id, mut waited) = (bound["Id"].clone(), 0);
    for round in 0..20 {
        // It waits, because the owner of the port has to answer first.
        let request = bind("tcp", &json!({"Addr": address})).to_string();
        let waiting = next.open(BIND, request.as_bytes());
        owner.call(UNBIND, &json!({"Id": id, "Extra": {}}));
        let mut bound = next.response(BIND, waiting);
        if bound["URL"] != *url {
            // The owner has answered before its Unbind arrived, so the Bind was refused.
            assert!(
                bound["Error"].as_str().is_some_and(|e| e.contains("ERR_NGROK_334")),
                "{bound}"
            );
            bound = next.call(BIND, &bind("tcp", &json!({"Addr": address})));
        } else {
            waited += 1;
        }
        assert_eq!(bound["URL"].as_str(), Some(&*url), "round {round}: {bound}");
        assert!(TcpStream::connect(edge.address_of(&url)).is_ok(), "round {round}");
        id = bound["Id"].clone();
        std::mem::swap(&mut owner, &mut next);
    }
    assert!(waited > 0, "no Bind has waited");
    // The last one closes it.
    owner.call(UNBIND, &json!({"Id": id, "Extra": {}}));
    wait_for("the port to be closed", || TcpStream::connect(edge.address_of(&url)).is_err());
}
