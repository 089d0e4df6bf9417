//! `culvert-edge serve` for an operator: its configuration, credentials with their rules,
//! certificates from files. Its limits are in `edge_limits`.

use std::process::Command;

use crate::support::TempDir;
use crate::support::agent::{self, Agent};
use crate::support::certs::{self, Authority, connect, presented};
use crate::support::process::{Process, plant_secret};
use crate::support::serve::{LISTENERS, Serve, serve};
use crate::support::upstream::Upstream;

const ALICE: &str = "alice_token";
const BOB: &str = "bob_token";
const CAROL: &str = "carol_token";

fn credentials() -> String {
    [ALICE, BOB, CAROL].iter().for_each(|token| plant_secret(token));
    format!(
        "\
domains: ['*.shared.test', 'exact.test']
credentials:
  - id: alice
    authtoken: {ALICE}
    acl: ['bind:*.alice.tunnels.test', 'bind:app.tunnels.test']
    max_sessions: 1
  - id: bob
    hash: sha256:{}
    domains: ['bob.test']
  - id: carol
    authtoken: {CAROL}
    ip_allow: ['192.0.2.0/24']
",
        culvert::edge::token::hash(BOB)
    )
}

fn start(edge: &Serve, token: &str, args: &[&str]) -> agent::Builder {
    // The name is in messages, where the token must not be.
    let name = token.trim_end_matches("_token");
    agent::agent(&edge.config(&format!("{name}.yml"), token), args)
}

/// Starts an agent that gets its URL.
#[track_caller]
fn bound(edge: &Serve, token: &str, args: &[&str]) -> Agent {
    start(edge, token, args).start()
}

/// Starts an agent that is refused. Returns its report.
#[track_caller]
fn refused(edge: &Serve, token: &str, args: &[&str]) -> String {
    let mut agent = start(edge, token, args).spawn();
    assert_eq!(agent.wait_exit(), Some(1), "{}", agent.report());
    agent.stderr()
}

#[test]
fn credentials_may_bind_what_their_rules_say() {
    let (edge, upstream) = (Serve::start(&credentials()), Upstream::hello());
    let port = upstream.port().to_string();
    for url in ["http://x.alice.tunnels.test", "app.tunnels.test"] {
        let agent = bound(&edge, ALICE, &["http", &port, "--url", url]);
        let host = url.trim_start_matches("http://");
        let scheme = if url.contains("://") { "http" } else { "https" };
        assert!(agent.url().starts_with(&format!("{scheme}://{host}:")), "{}", agent.url());
        assert_eq!(edge.visit(host).read_response("GET").unwrap().text(), "GET / ");
    }
    for (token, url, code) in [
        (ALICE, "http://other.tunnels.test", 316),
        (BOB, "http://elsewhere.test", 319),
        (BOB, "http://*.tunnels.test", 318),
        (BOB, "http://*.x.shared.test", 321),
    ] {
        let said = refused(&edge, token, &["http", &port, "--url", url]);
        assert!(said.contains(&format!("ERR_NGROK_{code}")), "{url}: {said}");
    }
    for url in ["http://bob.test", "http://exact.test", "http://any.shared.test"] {
        let agent = bound(&edge, BOB, &["http", &port, "--url", url]);
        assert!(agent.url().starts_with(url), "{}", agent.url());
    }
    let said = refused(&edge, ALICE, &["tcp", &port]);
    assert!(said.contains("ERR_NGROK_356"), "{said}");
    let agent = bound(&edge, BOB, &["tcp", &port]);
    assert!(agent.url().starts_with("tcp://tunnels.test:"), "{}", agent.url());
}

#[test]
fn sessions_are_refused_with_their_code() {
    let (edge, upstream) = (Serve::start(&credentials()), Upstream::hello());
    let port = upstream.port().to_string();
    for (token, code) in [(CAROL, 116), ("dave_token", 107)] {
        let said = refused(&edge, token, &["http", &port]);
        assert!(said.contains(&format!("ERR_NGROK_{code}")), "{said}");
        assert!(!said.contains(token), "a token in {said}");
    }
    let _first = bound(&edge, ALICE, &["http", &port, "--url", "app.tunnels.test"]);
    let said = refused(&edge, ALICE, &["http", &port, "--url", "a.alice.tunnels.test"]);
    assert!(said.contains("ERR_NGROK_108"), "{said}");
    // A name of another credential.
    let said = refused(&edge, BOB, &["http", &port, "--url", "app.tunnels.test"]);
    assert!(said.contains("ERR_NGROK_334"), "{said}");
}

#[test]
fn a_domain_of_one_credential_is_refused_to_another() {
    let acl = "acl: ['bind:*.alice.tunnels.test', 'bind:app.tunnels.test']";
    let credentials = credentials();
    assert!(credentials.contains(acl), "{credentials}");
    let edge = Serve::start(&credentials.replace(acl, "acl: []"));
    let said = refused(&edge, ALICE, &["http", "9", "--url", "http://bob.test"]);
    assert!(said.contains("ERR_NGROK_320"), "{said}");
}

#[test]
fn certificates_from_files_are_chosen_by_name() {
    let dir = TempDir::new();
    let mut more = credentials() + "certificates:\n";
    for name in ["one.test", "two.test"] {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        dir.write(&format!("{name}.pem"), certificate.self_signed(&key).unwrap().pem());
        dir.write(&format!("{name}.key"), key.serialize_pem());
        more += &format!("  - {{certificate: {name}.pem, key: {name}.key}}\n");
    }
    let edge = Serve::start_in(dir, &more);
    for (asked, shown) in
        [("two.test", "two.test"), ("one.test", "one.test"), ("three.test", "one.test")]
    {
        let der = presented(edge.address("https_addr"), asked);
        let names = |n: &str| der.windows(n.len()).any(|w| w == n.as_bytes());
        assert!(names(shown), "{asked}");
        let other = if shown == "one.test" { "two.test" } else { "one.test" };
        assert!(!names(other), "{asked}");
    }
}

/// A connection to one server name carries requests for another host only if one certificate
/// and one account have both.
#[test]
fn requests_for_another_host_than_the_server_name_are_misdirected() {
    let (dir, upstream) = (TempDir::new(), Upstream::hello());
    let authority = Authority::new();
    let mut more = credentials() + "certificates:\n";
    // The first one is for agents, too.
    for (file, names) in
        [("tunnels", &["*.tunnels.test", "127.0.0.1"][..]), ("shared", &["*.shared.test"])]
    {
        let (certificate, key) = authority.pair(names);
        dir.write(&format!("{file}.pem"), certificate);
        dir.write(&format!("{file}.key"), key);
        more += &format!("  - {{certificate: {file}.pem, key: {file}.key}}\n");
    }
    let ca = dir.write("visitors-ca.pem", authority.pem());
    let edge = Serve::start_in(dir, &more);
    let port = upstream.port().to_string();
    let agents = [
        (BOB, "x.tunnels.test"),
        (BOB, "y.tunnels.test"),
        (BOB, "any.shared.test"),
        (ALICE, "app.tunnels.test"),
    ]
    .map(|(token, host)| {
        let name = format!("{}-{host}.yml", token.trim_end_matches("_token"));
        let agent = edge.address("agent_addr");
        let text = format!(
            "version: 3\nagent: {{authtoken: {token}, connect_url: '{agent}', connect_cas: '{}'}}\n",
            ca.display()
        );
        let config = edge.write(&name, text);
        agent::agent(&config, ["http", &port, "--url", host]).start()
    });
    let mut wire = connect(edge.address("https_addr"), "x.tunnels.test", &ca);
    for (host, status) in [
        ("x.tunnels.test", 200),
        ("y.tunnels.test", 200),
        ("any.shared.test", 421),
        ("app.tunnels.test", 421),
        ("X.tunnels.test", 200),
    ] {
        wire.write(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).unwrap();
        assert_eq!(wire.read_response("GET").unwrap().status(), status, "{host}");
    }
    drop(agents);
}

/// One certificate and one account have both hosts, but only one accepts TLS 1.2.
#[test]
fn a_connection_for_another_host_does_not_avoid_the_version_of_tls() {
    let (dir, upstream, authority) = (TempDir::new(), Upstream::hello(), Authority::new());
    let (certificate, key) = authority.pair(&["*.tunnels.test", "127.0.0.1"]);
    dir.write("tunnels.pem", certificate);
    dir.write("tunnels.key", key);
    let ca = dir.write("visitors-ca.pem", authority.pem());
    let more = credentials() + "certificates: [{certificate: tunnels.pem, key: tunnels.key}]\n";
    let edge = Serve::start_in(dir, &more);
    let port = upstream.port().to_string();
    let connect_url = edge.address("agent_addr");
    let text = format!(
        "version: 3\nagent: {{authtoken: {BOB}, connect_url: '{connect_url}', connect_cas: '{}'}}\n",
        ca.display()
    );
    let config = edge.write("bob.yml", text);
    let policy = edge.write(
        "policy.yml",
        "on_tcp_connect: [{actions: [{type: terminate-tls, config: {min_version: '1.3'}}]}]\n",
    );
    let policy = policy.display().to_string();
    let args = ["http", &port, "--url", "x.tunnels.test", "--traffic-policy-file", &policy];
    let _strict = agent::agent(&config, args).start();
    let _open = agent::agent(&config, ["http", &port, "--url", "y.tunnels.test"]).start();
    let ask = |name: &str, config| {
        let mut wire = certs::connect_with(edge.address("https_addr"), name, config);
        wire.write("GET / HTTP/1.1\r\nHost: x.tunnels.test\r\n\r\n")?;
        wire.read_response("GET").map(|response| response.status())
    };
    assert!(ask("x.tunnels.test", certs::old_client(&ca)).is_err(), "TLS 1.2 is accepted");
    assert_eq!(ask("y.tunnels.test", certs::old_client(&ca)).unwrap(), 421);
    assert_eq!(ask("y.tunnels.test", certs::client(&ca)).unwrap(), 200);
}

#[test]
fn a_wrong_configuration_is_named_and_exits_2() {
    let dir = TempDir::new();
    for (text, named) in [
        (format!("{LISTENERS}{}lisntners: {{}}\n", credentials()), "lisntners"),
        (format!("{LISTENERS}credentials: [{{id: a, authtoken: t, acl: [host]}}]\n"), "acl"),
        ("domain: [\n".to_owned(), "edge.yml"),
        ("domain: x.test\nsurprise: 1\n".to_owned(), "surprise"),
        ("credentials: [{id: a, authtoken: b}]\n".to_owned(), "domain"),
    ] {
        let config = dir.write("edge.yml", text);
        let mut process = Process::start("culvert-edge serve", &mut serve(&config, &dir));
        assert_eq!(process.wait_exit(), Some(2), "{named}\n{}", process.report());
        assert!(process.stdout().is_empty(), "{}", process.report());
        let said = process.stderr();
        assert!(said.contains("edge.yml") && said.contains(named), "{named}: {said}");
    }
    assert!(!dir.join("state").exists());
}

#[test]
fn a_state_directory_that_others_may_change_is_used() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new();
    let config = dir.write("edge.yml", format!("{LISTENERS}{}", credentials()));
    let state = dir.write("state/authtoken", "planted").parent().unwrap().to_owned();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut process = Process::start("culvert-edge serve", &mut serve(&config, &dir));
    assert_eq!(process.wait_exit(), Some(1), "{}", process.report());
    let said = process.stderr();
    assert!(said.contains("mode 777") && said.contains("chmod go-w"), "{said}");
    assert_eq!(std::fs::read_dir(&state).unwrap().count(), 1, "nothing was written into it");
}

#[test]
fn a_token_is_made_with_its_hash() {
    let output = Command::new(env!("CARGO_BIN_EXE_culvert-edge")).arg("token").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).unwrap().to_owned();
    let (token, hash) = (field("authtoken: "), field("hash: sha256:"));
    assert_eq!(culvert::edge::token::hash(&token), hash);
}
