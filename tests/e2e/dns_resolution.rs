//! Resolution of the edge's name, with resolvers that work, lie, block or change: the agent
//! connects, or reports the fault of each resolver and retries.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::certs::Authority;
use crate::support::dns::{A, Asked, FakeDns};
use crate::support::peer::BadEdge;
use crate::support::process::Process;
use crate::support::upstream::nobody;
use crate::support::{until, wait_for};

const NAME: &str = "edge.example";

fn edge() -> BadEdge {
    let authority = Authority::new();
    let server = authority.server(&[NAME]);
    BadEdge::with(&authority, server)
}

/// Starts an agent that has the edge's name and queries these servers.
fn agent(edge: &BadEdge, resolvers: &[&FakeDns], public: &[&FakeDns], lines: &str) -> Process {
    let list = |servers: &[&FakeDns]| {
        let list: Vec<_> = servers.iter().map(|s| format!("\"{}\"", s.addr)).collect();
        format!("[{}]", list.join(", "))
    };
    let public = if public.is_empty() { "false".to_owned() } else { list(public) };
    let lines = format!(
        "  dns_resolver_ips: {}\n  dns_public_resolvers: {public}\n{lines}",
        list(resolvers)
    );
    let url = format!("{NAME}:{}", edge.addr().port());
    edge.agent_at(&url, &["http", &nobody().port().to_string()], &lines).spawn()
}

/// Asserts that the agent gets a session.
#[track_caller]
fn assert_served(edge: &BadEdge, agent: &Process) {
    // An earlier agent may still be in the queue.
    until("an agent's handshake", || edge.try_accept().ok()).welcome(&["https://x.example"]);
    agent.wait_stdout("the endpoint is up", |line| line.contains("x.example").then_some(()));
}

/// Asserts that the agent reports its failure once for each attempt, with increasing waits.
#[track_caller]
fn assert_retries(agent: &mut Process, words: &[&str]) {
    let mut from = 0;
    for attempt in 1..=4 {
        let (next, line) = agent.wait_stderr_from(from, "connect session");
        from = next;
        for word in words {
            assert!(line.contains(word), "no {word:?}: {line}");
        }
        let wait = line.split("retry=").nth(1).and_then(|rest| rest.split('s').next());
        let wait: f32 = wait.expect("a wait").parse().unwrap();
        // At most one attempt a second after the first three.
        assert!(attempt <= 3 || wait >= 1.0, "{line}");
    }
    agent.assert_running();
}

fn loopback(asked: &Asked) -> Vec<Vec<u8>> {
    vec![asked.addresses(&["127.0.0.1"])]
}

#[test]
fn the_edges_name_is_looked_up_where_it_was_said() {
    let (edge, dns) = (edge(), FakeDns::start(loopback));
    let agent = agent(&edge, &[&dns], &[], "");
    assert_served(&edge, &agent);
    assert!(dns.asked() >= 2);
}

#[test]
fn no_answer_no_such_name_and_no_address_are_told_apart() {
    let edge = edge();
    let cases: [(FakeDns, &str); 5] = [
        (FakeDns::start(|_| Vec::new()), "no answer"),
        (FakeDns::start(|asked| vec![asked.code(3)]), "no such name"),
        (FakeDns::start(|asked| vec![asked.code(2)]), "SERVFAIL"),
        (FakeDns::start(|asked| vec![asked.addresses(&[])]), "no address"),
        (FakeDns::start(|_| vec![b"rubbish".to_vec()]), "no answer"),
    ];
    let mut agents: Vec<_> =
        cases.iter().map(|(dns, _)| agent(&edge, &[dns], &[], "  connect_timeout: 1s\n")).collect();
    for (agent, (dns, what)) in agents.iter_mut().zip(&cases) {
        assert_retries(agent, &[NAME, &dns.addr.to_string(), what]);
    }
}

#[test]
fn an_address_of_the_wrong_family_or_a_dead_one_is_passed_by() {
    let edge = edge();
    // The first two have no listener: refused at once.
    let dns = FakeDns::start(|asked| vec![asked.addresses(&["127.0.0.2", "::1", "127.0.0.1"])]);
    assert_served(&edge, &agent(&edge, &[&dns], &[], ""));
    let only = FakeDns::start(|asked| vec![asked.addresses(&["::1"])]);
    let mut agent = agent(&edge, &[&only], &[], "");
    assert_retries(&mut agent, &["[::1]:"]);
}

#[test]
fn the_name_is_looked_up_anew_at_each_attempt() {
    let edge = edge();
    let moved = Arc::new(AtomicBool::new(false));
    let seen = moved.clone();
    let dns = FakeDns::start(move |asked| {
        let now = if seen.load(Ordering::SeqCst) { "127.0.0.1" } else { "127.0.0.2" };
        vec![asked.addresses(&[now])]
    });
    let agent = agent(&edge, &[&dns], &[], "");
    agent.wait_stderr("127.0.0.2");
    moved.store(true, Ordering::SeqCst);
    assert_served(&edge, &agent);
}

#[test]
fn a_slow_server_is_waited_for() {
    let edge = edge();
    let dns = FakeDns::slow(Duration::from_secs(3), loopback);
    let agent = agent(&edge, &[&dns], &[], "");
    assert_served(&edge, &agent);
    assert_eq!(agent.count_stderr("connect session"), 0);
}

#[test]
fn a_network_interface_that_is_not_there_yet_is_waited_for() {
    let (edge, dns) = (edge(), FakeDns::start(loopback));
    let mut missing = agent(&edge, &[&dns], &[], "  connect_interface: wwan9\n");
    assert_retries(&mut missing, &["connect_interface 'wwan9'", "interface does not exist"]);
    drop(missing);
    assert_served(&edge, &agent(&edge, &[&dns], &[], "  connect_interface: lo\n"));
}

#[test]
fn lies_that_do_not_fit_the_question_are_passed_over() {
    let edge = edge();
    let dns = FakeDns::start(|asked| {
        let lie = asked.addresses(&["127.0.0.2", "::1"]);
        let (mut id, mut question) = (lie.clone(), lie);
        id[1] ^= 1;
        question[14] ^= 1;
        vec![id, question, asked.addresses(&["127.0.0.1"])]
    });
    assert_served(&edge, &agent(&edge, &[&dns], &[], ""));
}

#[test]
fn an_answer_that_was_cut_is_asked_for_over_tcp() {
    let edge = edge();
    let dns = FakeDns::start(|asked| match asked.stream {
        true => vec![asked.addresses(&["127.0.0.1"])],
        false => vec![asked.truncated()],
    });
    assert_served(&edge, &agent(&edge, &[&dns], &[], ""));
}

#[test]
fn public_resolvers_help_out_and_are_not_asked_otherwise() {
    let edge = edge();
    let broken = FakeDns::start(|asked| vec![asked.code(if asked.kind == A { 2 } else { 3 })]);
    let public = FakeDns::start(loopback);
    assert_served(&edge, &agent(&edge, &[&broken], &[&public], ""));
    assert!(public.asked() > 0);
    let (good, unused) = (FakeDns::start(loopback), FakeDns::start(loopback));
    assert_served(&edge, &agent(&edge, &[&good], &[&unused], ""));
    assert_eq!(unused.asked(), 0);
}

/// A resolver that returns a login page for every name: the next attempt queries others.
#[test]
fn a_resolver_that_leads_astray_is_not_followed_for_ever() {
    let edge = edge();
    let portal = SocketAddr::from(([127, 0, 0, 3], edge.addr().port()));
    let listener = TcpListener::bind(portal).unwrap();
    let page = thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        tcp.write_all(b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n").unwrap();
        // Until the agent has closed the connection.
        let _ = tcp.read_to_end(&mut Vec::new());
    });
    let lies = FakeDns::start(move |asked| vec![asked.addresses(&["127.0.0.3"])]);
    let public = FakeDns::start(loopback);
    let agent = agent(&edge, &[&lies], &[&public], "");
    let line = agent.wait_stderr("login page");
    assert!(line.contains("127.0.0.3") && line.contains("HTTP/1.1 302"), "{line}");
    assert_served(&edge, &agent);
    page.join().unwrap();
}

/// All resolvers are gone: the last good address is in the agent's memory, and in a file for
/// the next run.
#[test]
fn without_any_resolver_the_last_address_that_worked_is_used() {
    let edge = edge();
    let alive = Arc::new(AtomicBool::new(true));
    let answers = alive.clone();
    let dns = FakeDns::start(move |asked| match answers.load(Ordering::SeqCst) {
        true => vec![asked.addresses(&["127.0.0.1"])],
        false => vec![asked.code(2)],
    });
    let kept = edge.dir().join("kept");
    let lines = format!("  state_dir: {}\n", kept.display());
    {
        let first = agent(&edge, &[&dns], &[], &lines);
        let mut session = edge.accept();
        session.welcome(&["https://x.example"]);
        first.wait_stdout("the endpoint is up", |l| l.contains("x.example").then_some(()));
        alive.store(false, Ordering::SeqCst);
        drop(session);
        let before = dns.asked();
        edge.accept().welcome(&["https://x.example"]);
        first.wait_stderr("session is back");
        assert!(dns.asked() > before, "the resolvers were not asked first");
    }
    wait_for("the address to be written", || kept.join("addresses").exists());
    assert_served(&edge, &agent(&edge, &[&dns], &[], &lines));
}

/// A machine without a network: the line names the cause, and each cause once.
#[test]
fn a_first_start_without_a_network_fails_to_reconnect() {
    let edge = edge();
    let silent: Vec<_> = (0..5).map(|_| nobody()).collect();
    let list = silent.iter().map(|a| format!("\"{a}\"")).collect::<Vec<_>>().join(", ");
    let lines = format!("  dns_resolver_ips: [{list}]\n  dns_public_resolvers: [{list}]\n");
    let url = format!("{NAME}:{}", edge.addr().port());
    let agent = edge.agent_at(&url, &["http", "80"], &lines).expect(0).spawn();
    let line = agent.wait_stderr("connect session");
    assert!(line.contains("msg=\"failed to connect session\""), "{line}");
    assert!(
        line.contains(&format!("err=\"cannot resolve '{NAME}': Connection refused ")),
        "{line}"
    );
    assert!(line.len() < 400, "{} characters: {line}", line.len());
    assert_eq!(line.matches("os error").count(), 1, "{line}");
}
