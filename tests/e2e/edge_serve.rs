//! `culvert-edge serve` as an operator meets it: its configuration, who may bind
//! what, certificates from files.

#![cfg(feature = "edge")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// A directory of a test's own.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("culvert-serve-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A child that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Edge {
    dir: Scratch,
    _process: Process,
    agent: SocketAddr,
    http: SocketAddr,
    https: SocketAddr,
}

/// What every configuration here has.
const LISTENERS: &str = "\
domain: tunnel.test
listeners: {agent: '127.0.0.1:0', http: '127.0.0.1:0', https: '127.0.0.1:0', tcp: 127.0.0.1}
ports: 0-0
state_dir: state
";

fn edge(more: &str, prepare: impl FnOnce(&Scratch)) -> Edge {
    let dir = Scratch::new();
    prepare(&dir);
    let config = dir.write("edge.yml", &format!("{LISTENERS}{more}"));
    let ready = dir.0.join("ready.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_culvert-edge"));
    command.arg("serve").arg("--config").arg(config).arg("--ready-file").arg(&ready);
    command.current_dir(&dir.0).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Process(command.spawn().unwrap());
    let until = Instant::now() + PATIENCE;
    let text = loop {
        if let Ok(text) = fs::read_to_string(&ready) {
            break text;
        }
        assert!(Instant::now() < until, "the edge is not ready in time");
        thread::yield_now();
    };
    let ready: serde_json::Value = serde_json::from_str(&text).unwrap();
    let address = |key: &str| ready[key].as_str().unwrap().parse().unwrap();
    Edge {
        agent: address("agent_addr"),
        http: address("http_addr"),
        https: address("https_addr"),
        dir,
        _process: process,
    }
}

impl Edge {
    /// Starts an agent; its URL, or what it said when it was refused.
    fn agent(&self, token: &str, args: &[&str]) -> Result<(Process, String), String> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let ca = self.dir.0.join("state/ca.pem");
        let config = self.dir.write(
            &format!("agent-{n}.yml"),
            &format!(
                "version: 3\nagent:\n  authtoken: {token}\n  connect_url: {}\n  connect_cas: {}\n",
                self.agent,
                ca.display()
            ),
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_culvert"));
        command.args(args).arg("--config").arg(config);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let process = Process(child);
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = tell.send(line);
        });
        let (tell_error, error) = mpsc::channel();
        thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            let _ = tell_error.send(text);
        });
        let line = told.recv_timeout(PATIENCE).expect("a start line or the agent's end");
        match line.split_once(" -> ") {
            Some((url, _)) => Ok((process, url.to_owned())),
            None => Err(error.recv_timeout(PATIENCE).expect("the agent's end")),
        }
    }

    fn refused(&self, token: &str, args: &[&str]) -> String {
        match self.agent(token, args) {
            Ok((_, url)) => panic!("got {url}"),
            Err(text) => text,
        }
    }

    fn get(&self, host: &str) -> String {
        let mut visitor = TcpStream::connect(self.http).unwrap();
        visitor.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(visitor, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        visitor.read_to_string(&mut text).unwrap();
        text
    }
}

/// An upstream that greets.
fn upstream() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = BufReader::new(socket.unwrap());
            let mut line = String::new();
            while socket.read_line(&mut line).is_ok_and(|n| n > 2) {
                line.clear();
            }
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
            let _ = socket.get_mut().write_all(answer);
        }
    });
    port
}

const CREDENTIALS: &str = "\
domains: ['*.shared.test', 'exact.test']
credentials:
  - id: alice
    authtoken: alice_token
    acl: ['bind:*.alice.tunnel.test', 'bind:app.tunnel.test']
    max_sessions: 1
  - id: bob
    # of bob_token
    hash: sha256:27dcbe8f2a1ce4b24f4d8d2f1b58d7cb84f6d7bd4e0f7b2b0a1ac2e55d3df2a8
    domains: ['bob.test']
  - id: carol
    authtoken: carol_token
    ip_allow: ['192.0.2.0/24']
";

fn credentials() -> String {
    let hash = culvert::edge::token::hash("bob_token");
    let old = CREDENTIALS.split("sha256:").nth(1).unwrap().lines().next().unwrap().to_owned();
    CREDENTIALS.replace(&old, &hash)
}

#[test]
fn credentials_may_bind_what_their_rules_say() {
    let edge = edge(&credentials(), |_| ());
    let port = upstream().to_string();
    let http = |url: &'static str| -> Vec<String> {
        ["http", &port, "--url", url].map(String::from).to_vec()
    };
    let bound = |token: &str, url: &'static str| {
        let args = http(url);
        edge.agent(token, &args.iter().map(String::as_str).collect::<Vec<_>>())
    };

    for url in ["http://x.alice.tunnel.test", "app.tunnel.test"] {
        let (_agent, got) = bound("alice_token", url).unwrap();
        let host = url.trim_start_matches("http://");
        let scheme = if url.contains("://") { "http" } else { "https" };
        assert!(got.starts_with(&format!("{scheme}://{host}:")), "{got}");
        assert!(edge.get(host).ends_with("hello"));
    }
    for (token, url, code) in [
        ("alice_token", "http://other.tunnel.test", 316),
        ("bob_token", "http://elsewhere.test", 319),
        ("bob_token", "http://*.tunnel.test", 318),
        ("bob_token", "http://*.x.shared.test", 321),
    ] {
        let said = match bound(token, url) {
            Ok((_, url)) => panic!("got {url}"),
            Err(said) => said,
        };
        assert!(said.contains(&format!("ERR_NGROK_{code}")), "{url}: {said}");
    }
    for url in ["http://bob.test", "http://exact.test", "http://any.shared.test"] {
        let (_agent, got) = bound("bob_token", url).unwrap();
        assert!(got.starts_with(url), "{got}");
    }
    let said = edge.refused("alice_token", &["tcp", &port]);
    assert!(said.contains("ERR_NGROK_356"), "{said}");
    let (_agent, url) = edge.agent("bob_token", &["tcp", &port]).unwrap();
    assert!(url.starts_with("tcp://tunnel.test:"), "{url}");
}

#[test]
fn sessions_are_refused_with_their_code() {
    let edge = edge(&credentials(), |_| ());
    let port = upstream().to_string();
    for (token, code) in [("carol_token", 116), ("dave_token", 107)] {
        let said = edge.refused(token, &["http", &port]);
        assert!(said.contains(&format!("ERR_NGROK_{code}")), "{said}");
        assert!(!said.contains(token), "a token in {said}");
    }
    let _first = edge.agent("alice_token", &["http", &port, "--url", "app.tunnel.test"]).unwrap();
    let said = edge.refused("alice_token", &["http", &port, "--url", "a.alice.tunnel.test"]);
    assert!(said.contains("ERR_NGROK_108"), "{said}");
    // A name of another credential.
    let said = edge.refused("bob_token", &["http", &port, "--url", "app.tunnel.test"]);
    assert!(said.contains("ERR_NGROK_334"), "{said}");
}

#[test]
fn names_that_belong_to_somebody_are_nobody_elses() {
    let edge = edge(
        &credentials().replace("    max_sessions: 1\n", "").replacen(
            "acl: ['bind:*.alice.tunnel.test', 'bind:app.tunnel.test']",
            "acl: []",
            1,
        ),
        |_| (),
    );
    let port = upstream().to_string();
    let said = edge.refused("alice_token", &["http", &port, "--url", "http://bob.test"]);
    assert!(said.contains("ERR_NGROK_320"), "{said}");
}

#[test]
fn certificates_from_files_are_chosen_by_name() {
    let make = |dir: &Scratch, name: &str| {
        let key = rcgen_key();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let pem = certificate.self_signed(&key).unwrap().pem();
        dir.write(&format!("{name}.pem"), &pem);
        dir.write(&format!("{name}.key"), &key.serialize_pem());
    };
    let more = "certificates:\n  - {certificate: one.test.pem, key: one.test.key}\n  - \
                {certificate: two.test.pem, key: two.test.key}\n";
    let edge = edge(&format!("{more}{}", credentials()), |dir| {
        make(dir, "one.test");
        make(dir, "two.test");
    });
    for (asked, shown) in
        [("two.test", "two.test"), ("one.test", "one.test"), ("three.test", "one.test")]
    {
        let der = presented(edge.https, asked);
        let names = |n: &str| der.windows(n.len()).any(|w| w == n.as_bytes());
        assert!(names(shown), "{asked}");
        let other = if shown == "one.test" { "two.test" } else { "one.test" };
        assert!(!names(other), "{asked}");
    }
}

fn rcgen_key() -> rcgen::KeyPair {
    rcgen::KeyPair::generate().unwrap()
}

/// The certificate that a server shows to who asks for `name`.
fn presented(address: SocketAddr, name: &str) -> Vec<u8> {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    /// Accepts everything: this is about which one is shown.
    #[derive(Debug)]
    struct Anything;

    impl ServerCertVerifier for Anything {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything))
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).unwrap();
    }
    tls.peer_certificates().unwrap()[0].as_ref().to_vec()
}

#[test]
fn a_wrong_configuration_is_named_and_exits_2() {
    let run = |text: &str| {
        let dir = Scratch::new();
        let config = dir.write("edge.yml", text);
        let output = Command::new(env!("CARGO_BIN_EXE_culvert-edge"))
            .arg("serve")
            .arg("--config")
            .arg(config)
            .output()
            .unwrap();
        assert!(output.stdout.is_empty());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (text, says) in [
        (format!("{LISTENERS}{}lisntners: {{}}\n", credentials()), "lisntners"),
        (LISTENERS.to_owned(), "credentials"),
        (format!("{LISTENERS}credentials: [{{id: a, authtoken: t, acl: [host]}}]\n"), "acl"),
        ("domain: [\n".to_owned(), "edge.yml"),
    ] {
        let (status, said) = run(&text);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains("edge.yml") && said.contains(says), "{says}: {said}");
        assert!(!said.contains("alice_token"), "{said}");
    }
    assert!(!Path::new("state").exists());
}

#[test]
fn a_token_is_made_with_its_hash() {
    let output = Command::new(env!("CARGO_BIN_EXE_culvert-edge")).arg("token").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).unwrap().to_owned();
    let (token, hash) = (field("authtoken: "), field("hash: sha256:"));
    assert_eq!(culvert::edge::token::hash(&token), hash);
}
