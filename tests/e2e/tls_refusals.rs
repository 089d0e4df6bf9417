//! Edges with one fault each in their certificate or TLS: refused within the handshake, the log
//! has the reason, and no byte of the authtoken is sent.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use rcgen::{
    BasicConstraints, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, NameConstraints, SanType,
    date_time_ymd,
};

use crate::support::certs::{self, Authority, authority_params, local_params, params};
use crate::support::peer::BadEdge;
use crate::support::process::Process;
use crate::support::upstream::nobody;
use crate::support::{TempDir, program, wait_for};

/// Starts an agent for the edge, which it must refuse with one of these words.
#[track_caller]
fn assert_refused(what: &str, edge: &BadEdge, words: &[&str]) {
    let mut agent =
        edge.agent(&["http", &nobody().port().to_string()], "  connect_timeout: 2s\n").spawn();
    assert!(edge.try_accept().is_err(), "{what}: the handshake succeeded");
    let line = agent.wait_stderr("connect session").to_lowercase();
    assert!(words.iter().any(|word| line.contains(word)), "{what}: {line}");
    // It may recover without a restart, because certificates are renewed.
    agent.assert_running();
}

#[test]
fn expired_and_not_yet_valid() {
    let authority = Authority::new();
    let mut expired = local_params();
    (expired.not_before, expired.not_after) =
        (date_time_ymd(2010, 1, 1), date_time_ymd(2011, 1, 1));
    let edge = BadEdge::with(&authority, authority.server_with(expired));
    assert_refused("expired", &edge, &["expired"]);
    let mut early = local_params();
    (early.not_before, early.not_after) = (date_time_ymd(2200, 1, 1), date_time_ymd(2201, 1, 1));
    let edge = BadEdge::with(&authority, authority.server_with(early));
    assert_refused("not yet valid", &edge, &["clock"]);
}

#[test]
fn for_another_name_or_none() {
    let authority = Authority::new();
    for names in [&["other.example"][..], &["*.0.0.1"], &[]] {
        let edge = BadEdge::with(&authority, authority.server_with(params(names)));
        assert_refused("wrong name", &edge, &["name", "127.0.0.1"]);
    }
    // The name as common name only.
    let mut common = params(&[]);
    common.distinguished_name.push(rcgen::DnType::CommonName, "127.0.0.1");
    let edge = BadEdge::with(&authority, authority.server_with(common));
    assert_refused("common name", &edge, &["name", "127.0.0.1"]);
}

#[test]
fn signed_by_nobody_who_may() {
    let (authority, other) = (Authority::new(), Authority::new());
    let edge = BadEdge::with(&authority, other.server(&[]));
    assert_refused("unknown authority", &edge, &["not signed by", "issuer"]);
    let edge = BadEdge::with(&authority, certs::self_signed());
    assert_refused("self-signed", &edge, &["not signed by", "issuer"]);
    let edge = BadEdge::with(&authority, authority.server_below_a_leaf());
    assert_refused("signed by a leaf", &edge, &["ca", "issuer", "certificate"]);
}

#[test]
fn for_another_purpose() {
    let authority = Authority::new();
    let mut client = local_params();
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let edge = BadEdge::with(&authority, authority.server_with(client));
    assert_refused("for clients", &edge, &["usage", "certificate"]);
    let mut issuer = local_params();
    issuer.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let edge = BadEdge::with(&authority, authority.server_with(issuer));
    assert_refused("an authority's own", &edge, &["certificate"]);
}

#[test]
fn a_chain_that_does_not_hold() {
    let authority = Authority::new();
    let missing = authority.server_below(authority_params(), local_params(), false);
    let edge = BadEdge::with(&authority, missing);
    assert_refused("intermediate missing", &edge, &["not signed by a ca that is trusted"]);
    let mut last = authority_params();
    last.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let edge = BadEdge::with(&authority, below_twice(&authority, last));
    assert_refused("path too long", &edge, &["path length", "pathlen", "issuer"]);
    let mut other = authority_params();
    other.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("other.example".to_owned())],
        excluded_subtrees: vec![GeneralSubtree::IpAddress(rcgen::CidrSubnet::V4(
            [127, 0, 0, 0],
            [255, 0, 0, 0],
        ))],
    });
    let edge = BadEdge::with(&authority, authority.server_below(other, local_params(), true));
    assert_refused("name constraints", &edge, &["constraint"]);
    // The way in which these were made is valid.
    let good = authority.server_below(authority_params(), local_params(), true);
    let edge = BadEdge::with(&authority, good);
    let agent = edge.agent(&["http", &nobody().port().to_string()], "").spawn();
    edge.accept().welcome(&["https://x.example"]);
    agent.wait_stdout("the endpoint is up", |line| line.contains("x.example").then_some(()));
}

/// Returns a server below a CA below another one that allows none below it.
fn below_twice(
    authority: &Authority,
    allows_none: rcgen::CertificateParams,
) -> std::sync::Arc<rustls::ServerConfig> {
    authority.server_below_two(allows_none, authority_params(), local_params())
}

#[test]
fn an_address_that_stands_where_names_stand() {
    let authority = Authority::new();
    let mut address = params(&[]);
    address.subject_alt_names.push(SanType::DnsName("127.0.0.1".try_into().unwrap()));
    let edge = BadEdge::with(&authority, authority.server_with(address));
    assert_refused("address as a name", &edge, &["name", "127.0.0.1"]);
}

#[test]
fn a_chain_of_a_megabyte() {
    let authority = Authority::new();
    let edge = BadEdge::with(&authority, authority.server_with_chain_of(1_000_000));
    assert_refused("a megabyte", &edge, &["too large", "handshake"]);
}

#[test]
fn tls_that_is_too_old() {
    let authority = Authority::new();
    let edge = BadEdge::with(&authority, authority.old_server());
    assert_refused("TLS 1.2", &edge, &["does not support tls 1.3"]);
}

/// Runs openssl in a directory. Returns false if it is not installed.
fn openssl(dir: &TempDir, commands: &[&str]) -> bool {
    if program("openssl").is_none() {
        return false;
    }
    for line in commands {
        let output = Command::new("sh")
            .args(["-c", &format!("openssl {line}")])
            .current_dir(dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "openssl {line}: {said}");
    }
    true
}

#[test]
fn signatures_and_keys_that_are_too_weak() {
    let dir = TempDir::new();
    dir.write("leaf.ext", "subjectAltName=IP:127.0.0.1\n");
    let sign = |name: &str, digest: &str| {
        format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -set_serial 2 -days 3000 \
             -{digest} -extfile leaf.ext -out {name}.pem"
        )
    };
    let done = openssl(
        &dir,
        &[
            "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 3000 -subj /CN=weak",
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout sha1.key \
             -out sha1.csr -subj /CN=x",
            &sign("sha1", "sha1"),
            "req -newkey rsa:1024 -nodes -keyout short.key -out short.csr -subj /CN=x",
            &sign("short", "sha256"),
        ],
    );
    if !done {
        return;
    }
    let server = certs::server_of_files(&dir.join("sha1.pem"), &dir.join("sha1.key"));
    let edge = BadEdge::of_file(&dir.join("ca.pem"), server);
    assert_refused("SHA-1", &edge, &["signature"]);
    // The TLS library does not serve with such a key, but OpenSSL does.
    let at = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", &at.to_string(), "-tls1_3", "-quiet"]);
    command.args(["-cipher", "ALL:@SECLEVEL=0", "-cert", "short.pem", "-key", "short.key"]);
    let mut server = Process::start("openssl", command.current_dir(dir.path()));
    wait_for("openssl to listen", || {
        server.assert_running();
        TcpStream::connect(at).is_ok()
    });
    let edge = BadEdge::of_file(&dir.join("ca.pem"), certs::self_signed());
    let agent = edge.agent_at(&at.to_string(), &["http", "1"], "").spawn();
    let line = agent.wait_stderr("connect session").to_lowercase();
    assert!(line.contains("key") && line.contains("weak"), "{line}");
}

/// An edge with another protocol than TLS on each connection: the agent must report one of
/// these words, in time, and retry.
#[track_caller]
fn assert_no_tls(what: &str, words: &str, act: impl Fn(TcpStream) -> io::Result<()>) {
    let edge = BadEdge::new();
    let mut agent =
        edge.agent(&["http", &nobody().port().to_string()], "  connect_timeout: 2s\n").spawn();
    let mut from = 0;
    for _ in 0..2 {
        let mut tcp = edge.accept_tcp();
        // Only a ClientHello has arrived when the peer responds.
        let mut first = [0; 6];
        tcp.read_exact(&mut first).unwrap();
        assert_eq!((first[0], first[5]), (22, 1), "{what}: not a ClientHello");
        // All of it is read, so that an end is an end and not a reset.
        let length = u16::from_be_bytes([first[3], first[4]]);
        tcp.read_exact(&mut vec![0; usize::from(length) - 1]).unwrap();
        let _ = act(tcp);
        let (next, line) = agent.wait_stderr_from(from, "connect session");
        assert!(line.to_lowercase().contains(words), "{what}: no {words:?}: {line}");
        from = next;
    }
    agent.assert_running();
}

/// Sends these bytes, and reads until the agent has disconnected.
fn saying(bytes: &'static [u8]) -> impl Fn(TcpStream) -> io::Result<()> {
    move |mut tcp| {
        tcp.write_all(bytes)?;
        io::copy(&mut tcp, &mut io::sink()).map(|_| ())
    }
}

#[test]
fn something_else_than_tls() {
    assert_no_tls("HTTP", "'http/1.1 400 bad request", saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    assert_no_tls("portal", "login page", saying(b"HTTP/1.1 302 Found\r\nLocation: x\r\n\r\n"));
    assert_no_tls("SSH", "an ssh server", saying(b"SSH-2.0-dropbear_2022.83\r\n"));
    assert_no_tls("zeros", "does not use tls", saying(&[0; 100]));
    // Alerts: 70 is protocol_version, 40 handshake_failure.
    assert_no_tls("TLS 1.1", "does not support tls 1.3", saying(&[21, 3, 1, 0, 2, 2, 70]));
    assert_no_tls("alert", "handshakefailure", saying(&[21, 3, 3, 0, 2, 2, 40]));
}

#[test]
fn a_handshake_that_does_not_come_to_its_end() {
    assert_no_tls("cut at once", "closed the connection during the tls", |_| Ok(()));
    assert_no_tls("cut in the middle", "closed the connection during the tls", |mut tcp| {
        tcp.write_all(&[22, 3, 3, 0, 90, 2, 0, 0, 86, 3, 3])
    });
    assert_no_tls("silence", "no answer in time", saying(&[]));
    assert_no_tls("a byte now and then", "no answer in time", |mut tcp| {
        let (_keep, never) = mpsc::channel::<()>();
        for byte in [22, 3, 3, 0x20, 0, 2, 0].iter().chain(&[0; 60]) {
            tcp.write_all(&[*byte])?;
            let pause = never.recv_timeout(Duration::from_millis(250));
            assert_eq!(pause, Err(RecvTimeoutError::Timeout));
        }
        Ok(())
    });
}

/// A middle box that signs for every name: refused, unless its CA is trusted.
#[test]
fn a_middle_box_needs_its_own_authority() {
    let (edges, boxes) = (Authority::new(), Authority::new());
    let edge = BadEdge::with(&edges, boxes.server(&[]));
    assert_refused("middle box", &edge, &["connect_cas"]);
    let bundle = edge.dir().write("bundle.pem", boxes.pem());
    let args = ["http", &nobody().port().to_string()];
    let agent = edge
        .agent(&args, "")
        .rewrite("connect_cas:", "connect_cas: host")
        .env("SSL_CERT_FILE", bundle)
        .spawn();
    let mut session = crate::support::until("a handshake", || edge.try_accept().ok());
    session.welcome(&["https://x.example"]);
    agent.wait_stdout("the endpoint is up", |line| line.contains("x.example").then_some(()));
}

/// An end without close_notify also ends the session.
#[test]
fn an_end_without_close_notify_is_a_lost_session() {
    let edge = BadEdge::new();
    let agent = edge.agent(&["http", &nobody().port().to_string()], "").spawn();
    let mut session = edge.accept();
    session.welcome(&["https://x.example"]);
    agent.wait_stderr("tunnel session started");
    session.tcp.shutdown(std::net::Shutdown::Both).unwrap();
    agent.wait_stderr("session closed, starting reconnect loop");
    edge.accept().welcome(&["https://x.example"]);
    agent.wait_stderr("session is back");
}
