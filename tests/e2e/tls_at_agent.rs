//! TLS endpoints with TLS that ends at the agent: the edge passes it through, the key stays
//! with the agent, and the agent decides about client certificates.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

use crate::support::agent::{self, Agent};
use crate::support::certs::{self, Authority};
use crate::support::edge::Edge;
use crate::support::upstream::{Upstream, echo};
use crate::support::{Noise, PATIENCE, Sum, TempDir, is_reset, program, wait_for, wait_idle};

const NAME: &str = "secure.localhost";

/// An agent with its own certificate and key, and the properties that a visitor needs.
struct World {
    edge: Edge,
    agent: Agent,
    ca: PathBuf,
    /// Directory of its files.
    _dir: TempDir,
}

impl World {
    fn new(upstream: impl ToString, more: &[&str]) -> Self {
        let (authority, dir) = (Authority::new(), TempDir::new());
        let (certificate, key) = authority.pair(&[NAME]);
        let ca = dir.write("ca.pem", authority.pem());
        World::with(dir, ca, &certificate, &key, upstream, more)
    }

    fn with(
        dir: TempDir,
        ca: PathBuf,
        certificate: &str,
        key: &str,
        upstream: impl ToString,
        more: &[&str],
    ) -> Self {
        let edge = Edge::start();
        let crt = dir.write("cert.pem", certificate).display().to_string();
        let key = dir.write("key.pem", key).display().to_string();
        let mut agent = agent::agent(&edge.config, ["tls", &upstream.to_string()])
            .arg(format!("--url=tls://{NAME}"))
            .arg("--terminate-at=agent");
        for arg in ["--crt", &crt, "--key", &key].iter().chain(more) {
            agent = agent.arg(arg);
        }
        World { agent: agent.start(), edge, ca, _dir: dir }
    }

    fn visit(&self) -> StreamOwned<ClientConnection, TcpStream> {
        connect(self.edge.https, certs::client(&self.ca))
    }
}

fn connect(to: SocketAddr, config: Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
    let tcp = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from(NAME).unwrap();
    StreamOwned::new(ClientConnection::new(config, name).unwrap(), tcp)
}

/// Sends bytes as a visitor with this certificate and reads their echo. An error: it was
/// refused.
fn gets_in(world: &World, own: Option<&(String, String)>) -> io::Result<()> {
    let mut visitor = connect(world.edge.https, certs::client_as(&world.ca, own));
    visitor.write_all(b"hello")?;
    let mut back = [0; 5];
    visitor.read_exact(&mut back)?;
    assert_eq!(&back, b"hello");
    Ok(())
}

#[test]
fn the_visitor_sees_the_agents_certificate_and_the_upstream_plain_bytes() {
    let upstream = Upstream::echo();
    let world = World::new(upstream.port(), &[]);
    assert!(world.agent.url().starts_with(&format!("tls://{NAME}")), "{}", world.agent.url());
    for _ in 0..3 {
        // Trusts the CA of the agent's certificate only.
        gets_in(&world, None).unwrap();
    }
}

#[test]
fn much_in_both_directions_at_once() {
    const SIZE: usize = 3_000_000;
    let upstream = Upstream::echo();
    let world = World::new(upstream.port(), &[]);
    let sent = Noise::bytes(7, SIZE);
    let mut visitor = world.visit();
    let (mut back, mut sum, mut out, mut came) = (vec![0; 64 * 1024], Sum::new(), 0, 0);
    // Never more in flight than buffers hold: one thread does both.
    while came < SIZE {
        if out < SIZE && out - came < 100_000 {
            let next = (out + 50_000).min(SIZE);
            visitor.write_all(&sent[out..next]).unwrap();
            out = next;
        } else {
            let n = visitor.read(&mut back).unwrap();
            assert!(n > 0, "an end after {came} bytes");
            sum.add(&back[..n]);
            came += n;
        }
    }
    let mut expected = Sum::new();
    expected.add(&sent);
    assert_eq!(sum.finish(), expected.finish());
}

#[test]
fn only_certificates_of_the_listed_authorities_come_in_each_time() {
    let (mine, other, dir) = (Authority::new(), Authority::new(), TempDir::new());
    let cas = dir.write("clients.pem", mine.pem()).display().to_string();
    let upstream = Upstream::echo();
    let mut world = World::new(upstream.port(), &["--mutual-tls-cas", &cas]);
    gets_in(&world, Some(&mine.pair(&["client"]))).unwrap();
    for own in [None, Some(&other.pair(&["client"]))] {
        let refused = gets_in(&world, own).expect_err("refused");
        assert!(refused.to_string().contains("received fatal alert"), "{refused}");
    }
    // One client, several connections: it would resume if that were possible.
    let own = mine.pair(&["client"]);
    let config = certs::client_as(&world.ca, Some(&own));
    for _ in 0..3 {
        let mut visitor = connect(world.edge.https, Arc::clone(&config));
        visitor.write_all(b"x").unwrap();
        visitor.read_exact(&mut [0]).unwrap();
        assert_eq!(visitor.conn.handshake_kind(), Some(HandshakeKind::Full));
    }
    world.agent.process().wait_stderr("visitor TLS handshake failed");
}

#[test]
fn each_side_can_end_its_direction_alone() {
    let upstream = Upstream::tcp(|mut wire| {
        let asked = wire.read_rest().unwrap();
        wire.write(format!("{} bytes", asked.len())).unwrap();
    });
    let world = World::new(upstream.port(), &[]);
    let mut visitor = world.visit();
    visitor.write_all(&[7; 100_000]).unwrap();
    visitor.conn.send_close_notify();
    visitor.flush().unwrap();
    let mut answer = String::new();
    // Fails unless the end is an orderly one (close_notify).
    visitor.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "100000 bytes");
}

#[test]
fn a_connection_that_is_cut_is_no_end_for_the_upstream() {
    let ends = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&ends);
    let upstream = Upstream::tcp(move |mut wire| {
        let end = wire.read_rest().map(|bytes| bytes.len());
        told.lock().unwrap().push(end);
    });
    let world = World::new(upstream.port(), &[]);
    let mut visitor = world.visit();
    visitor.write_all(b"not all").unwrap();
    wait_for("the upstream to have the visitor", || upstream.open() == 1);
    visitor.sock.shutdown(Shutdown::Both).unwrap();
    wait_for("the upstream's end", || !ends.lock().unwrap().is_empty());
    let end = ends.lock().unwrap().pop().unwrap();
    assert!(end.as_ref().is_err_and(is_reset), "{end:?}");
}

#[test]
fn an_upstream_with_tls_of_its_own_and_the_visitors_address_in_front() {
    let authority = Authority::new();
    let server = authority.server(&[]);
    let upstream = Upstream::on("127.0.0.1:0", Some(server), |mut wire| {
        let _ = echo(&mut wire);
    });
    let world = World::new(format!("tls://127.0.0.1:{}", upstream.port()), &[]);
    gets_in(&world, None).unwrap();

    let upstream = Upstream::tcp(|mut wire| {
        let line = wire.read_line().unwrap();
        let mut rest = wire.read_exact(5).unwrap();
        rest.extend_from_slice(line.as_bytes());
        wire.write(rest).unwrap();
    });
    let world = World::new(upstream.port(), &["--upstream-proxy-protocol", "1"]);
    let mut visitor = world.visit();
    visitor.write_all(b"hello").unwrap();
    let mut back = String::new();
    visitor.read_to_string(&mut back).unwrap();
    assert!(back.starts_with("helloPROXY TCP4 127.0.0.1 "), "{back}");
}

#[test]
fn an_upstream_that_is_not_there_and_rubbish_disturb_nobody() {
    let upstream = Upstream::echo();
    let world = World::new(upstream.port(), &[]);
    for rubbish in [&b"\x16\x03\x01\x00\x05hello"[..], b"\x16\x03\x01\xff\xff"] {
        let mut wire = TcpStream::connect(world.edge.https).unwrap();
        wire.write_all(rubbish).unwrap();
        wire.shutdown(Shutdown::Write).unwrap();
        let _ = wire.read_to_end(&mut Vec::new());
    }
    gets_in(&world, None).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let lonely = World::new(port, &[]);
    assert!(gets_in(&lonely, None).is_err());
}

#[test]
fn openssl_speaks_with_an_rsa_certificate() {
    let Some(openssl) = program("openssl") else { return };
    let dir = TempDir::new();
    let (key, crt) = (dir.join("rsa.key"), dir.join("rsa.pem"));
    let made = Command::new(&openssl)
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj"])
        .args([&format!("/CN={NAME}"), "-addext", &format!("subjectAltName=DNS:{NAME}")])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&crt)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let [key, certificate] = [&key, &crt].map(|path| std::fs::read_to_string(path).unwrap());
    let upstream = Upstream::echo();
    let world = World::with(dir, crt, &certificate, &key, upstream.port(), &[]);
    for version in ["-tls1_2", "-tls1_3"] {
        let mut client = Command::new(&openssl)
            .args(["s_client", version, "-quiet", "-verify_return_error", "-connect"])
            .args([&world.edge.https.to_string(), "-servername", NAME, "-CAfile"])
            .arg(&world.ca)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        client.stdin.as_mut().unwrap().write_all(b"through\n").unwrap();
        let mut back = [0; 8];
        client.stdout.as_mut().unwrap().read_exact(&mut back).unwrap();
        client.kill().unwrap();
        client.wait().unwrap();
        assert_eq!(&back, b"through\n", "{version}");
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_said_before_connecting() {
    let (edge, dir, authority) = (Edge::start(), TempDir::new(), Authority::new());
    let (certificate, _) = authority.pair(&[NAME]);
    let (_, other) = authority.pair(&[NAME]);
    let crt = dir.write("cert.pem", certificate).display().to_string();
    let key = dir.write("other.pem", other).display().to_string();
    let mut process = agent::agent(&edge.config, ["tls", "443", "--terminate-at=agent"])
        .arg(format!("--crt={crt}"))
        .arg(format!("--key={key}"))
        .spawn();
    process.wait_stderr("the private key does not match");
    assert_eq!(process.wait_exit(), Some(1));
}

#[test]
fn who_stands_still_loses_nothing() {
    // More than all buffers between the ends hold.
    const SIZE: usize = 20_000_000;
    let (go, started) = mpsc::channel::<()>();
    let started = Mutex::new(started);
    let upstream = Upstream::tcp(move |mut wire| {
        started.lock().unwrap().recv().unwrap();
        let came = wire.read_exact(SIZE).unwrap();
        wire.write(&came).unwrap();
    });
    let world = World::new(upstream.port(), &[]);
    let mut visitor = world.visit();
    let (written, wrote) = mpsc::channel();
    let (read, may_read) = mpsc::channel::<()>();
    let visit = thread::spawn(move || {
        let sent = Noise::bytes(9, SIZE);
        visitor.write_all(&sent).unwrap();
        written.send(()).unwrap();
        may_read.recv().unwrap();
        let mut back = vec![0; SIZE];
        visitor.read_exact(&mut back).unwrap();
        assert!(back == sent, "not what was sent");
        assert_eq!(visitor.read(&mut [0]).unwrap(), 0, "an orderly end");
    });
    wait_for("the upstream to have the visitor", || upstream.open() == 1);
    wait_idle(world.agent.pid());
    assert!(wrote.try_recv().is_err(), "the upstream has read nothing yet");
    go.send(()).unwrap();
    wrote.recv_timeout(PATIENCE).unwrap();
    // Now the upstream is stuck with its response.
    wait_idle(world.agent.pid());
    read.send(()).unwrap();
    visit.join().unwrap();
}
