//! The client with servers that send invalid responses.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto};

use super::*;
use crate::sys;

/// Most bytes of a body in these tests.
const LIMIT: usize = 100;

/// Bytes of an endless response that a client must not read; more than sockets buffer.
const MOST_READ: usize = 32 * 1024 * 1024;

/// Response of a server to one request.
enum Answer {
    /// This text, then the end of the connection.
    Text(String),
    /// The first text, then the second repeatedly while the client reads.
    Endless(&'static str, &'static str),
    /// The first text, then nothing while the client waits.
    Stalled(&'static str),
    /// The same with an endless body in single bytes.
    Drip(&'static str),
    /// This text, then an end that loses bytes (RST).
    Reset(&'static str),
}

impl From<&str> for Answer {
    fn from(text: &str) -> Self {
        Answer::Text(text.to_owned())
    }
}

impl Answer {
    /// Writes the response. The error: the client has closed the connection.
    fn write(self, socket: &mut (impl Read + Write), tcp: &TcpStream) -> io::Result<()> {
        match self {
            Answer::Text(text) => socket.write_all(text.as_bytes()),
            Answer::Endless(start, more) => {
                socket.write_all(start.as_bytes())?;
                for _ in 0..MOST_READ / more.len() {
                    socket.write_all(more.as_bytes())?;
                }
                panic!("the client reads on: {more}");
            }
            Answer::Stalled(start) => {
                socket.write_all(start.as_bytes())?;
                wait_for_end(socket)
            }
            Answer::Drip(start) => {
                socket.write_all(start.as_bytes())?;
                tcp.set_read_timeout(Some(Duration::from_millis(20)))?;
                loop {
                    socket.write_all(b"x")?;
                    // Limits the rate of the bytes, and detects the end of the client.
                    match socket.read(&mut [0]) {
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                        _ => return Ok(()),
                    }
                }
            }
            Answer::Reset(start) => {
                socket.write_all(start.as_bytes())?;
                socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO))
            }
        }
    }
}

fn wait_for_end(socket: &mut impl Read) -> io::Result<()> {
    while socket.read(&mut [0; 64])? > 0 {}
    Ok(())
}

/// Reads the head of a request and the announced body. Returns both.
fn read_request(socket: &mut impl Read) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && socket.read(&mut byte).unwrap_or(0) == 1 {
        request.push(byte[0]);
    }
    let text = String::from_utf8(request).unwrap();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |n| n.parse().unwrap())];
    socket.read_exact(&mut body).unwrap();
    text + &String::from_utf8(body).unwrap()
}

/// Starts a server with these responses, one for each connection. Returns its port, and at its
/// end the requests.
fn server(answers: Vec<Answer>, tls: Option<Arc<ServerConfig>>) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = thread::spawn(move || {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut tcp, _) = listener.accept().unwrap();
            let other = tcp.try_clone().unwrap();
            // An error means that the client has closed the connection.
            match &tls {
                None => {
                    requests.push(read_request(&mut tcp));
                    let _ = answer.write(&mut tcp, &other);
                }
                Some(config) => {
                    let connection = ServerConnection::new(Arc::clone(config)).unwrap();
                    let mut tls = StreamOwned::new(connection, tcp);
                    requests.push(read_request(&mut tls));
                    let _ = answer.write(&mut tls, &other);
                }
            }
        }
        requests
    });
    (port, served)
}

fn deadline() -> Deadline {
    Deadline::At(sys::clock() + Duration::from_secs(60))
}

fn fetch(port: u16, deadline: Deadline) -> io::Result<String> {
    let url = format!("http://127.0.0.1:{port}/a/b");
    let body = Client::by_environment().get(&url, LIMIT, deadline)?;
    Ok(String::from_utf8(body).unwrap())
}

fn redirect(to: &str) -> Answer {
    Answer::Text(format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"))
}

fn ok(fields: &str, body: &str) -> Answer {
    Answer::Text(format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}"))
}

fn chunked(body: &str) -> Answer {
    ok("Transfer-Encoding: chunked\r\n", body)
}

/// Header lines `X0: 0`, `X1: 1`, ...
fn fields(count: usize) -> String {
    (0..count).fold(String::new(), |mut lines, n| {
        let _ = write!(lines, "X{n}: {n}\r\n");
        lines
    })
}

#[test]
fn bodies_of_all_kinds() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    let full = "x".repeat(LIMIT);
    for (answer, body) in [
        (ok("content-LENGTH: 3\r\n", "abcREST"), "abc"),
        (ok("Content-Length: 0\r\n", ""), ""),
        (Answer::from("HTTP/1.0 200\n\nup to the end"), "up to the end"),
        (Answer::Text(format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")), "x"),
        (chunked("4;x=y\r\nwiki\r\n6\r\npedia.\r\n0\r\nT: 1\r\n\r\n"), "wikipedia."),
        (ok(&format!("Content-Length: {LIMIT}\r\n"), &full), &full),
        (ok("", &full), &full),
        (ok(&fields(127), "many fields"), "many fields"),
    ] {
        let (port, _) = server(vec![answer], None);
        assert_eq!(fetch(port, deadline()).unwrap(), body);
    }
}

#[test]
fn a_file_behind_redirects() {
    let good = ok("Content-Length: 4\r\n", "body");
    // The client does not wait for the body of a redirect.
    let stalled = "HTTP/1.1 301 Moved\r\nLocation: z?\r\nContent-Length: 4000000000\r\n\r\n";
    let answers = vec![redirect("/x"), redirect("y"), Answer::Stalled(stalled), good];
    let (port, served) = server(answers, None);
    assert_eq!(fetch(port, deadline()).unwrap(), "body");
    let requests = served.join().unwrap();
    let targets: Vec<_> = requests.iter().filter_map(|r| r.split(' ').nth(1)).collect();
    assert_eq!(targets, ["/a/b", "/x", "/y", "/z?"]);
}

/// Each response is an error that names host and cause.
#[test]
fn hostile_answers() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(MAX_HEAD));
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n";
    for (answers, cause) in [
        // Not HTTP.
        (vec![Answer::from("")], "no answer"),
        (vec!["SSH-2.0-dropbear\r\n".into()], "not HTTP: 'SSH-2.0-dropbear"),
        (vec!["SSH".into()], "not HTTP: 'SSH'"),
        (vec!["\x16\x03\x01".into()], "not HTTP: '"),
        (vec!["<html>\n\n".into()], "not HTTP: '<html>"),
        (vec!["HTTP/2 200\r\n\r\n".into()], "not HTTP: 'HTTP/2"),
        (vec![Answer::Endless("", "garbage ")], "not HTTP: 'garbage"),
        // Heads.
        (vec!["HTTP/1.1 200 OK\r\n".into()], "cut off"),
        (vec!["HTTP/1.1 200 OK\r\nA: b".into()], "cut off"),
        (vec!["HTTP/1.1 twohundred\r\n\r\n".into()], "invalid HTTP: "),
        (vec!["HTTP/1.1 099 x\r\n\r\n".into()], "invalid HTTP: invalid status code"),
        (vec!["HTTP/1.1 2000 x\r\n\r\n".into()], "invalid HTTP: "),
        (vec![ok("no colon\r\n", "")], "invalid HTTP: "),
        (vec![ok("A: b\r\n folded\r\n", "")], "invalid HTTP: "),
        (vec![ok("A : b\r\n", "")], "invalid HTTP: "),
        (vec![ok("A: \x01\r\n", "")], "invalid HTTP: "),
        (vec![ok(&fields(129), "")], "too many headers"),
        (vec![Answer::Text(long)], "head of the response is larger than 16384"),
        (vec![Answer::Endless("HTTP/1.1 200 OK\r\nA: ", "b")], "larger than 16384"),
        (vec![Answer::Endless("HTTP/1.1 200 OK\r\n", "A: b\r\n")], "too many headers"),
        (vec![Answer::Endless(interim, interim)], "too many interim responses"),
        // Lengths.
        (vec![ok("Content-Length: 5\r\n", "abc")], "cut off"),
        (vec![ok("Content-Length: -5\r\n", "abc")], "invalid HTTP: content-length"),
        (vec![ok("Content-Length: +3\r\n", "abc")], "invalid HTTP: content-length"),
        (vec![ok("Content-Length: 3x\r\n", "abc")], "invalid HTTP: content-length"),
        (vec![ok("Content-Length: 99999999999999999999\r\n", "")], "invalid HTTP: content-length"),
        (vec![ok("Content-Length: 3\r\nContent-Length: 4\r\n", "abcd")], "invalid HTTP: "),
        (vec![ok("Content-Length: 101\r\n", "")], "larger than 100 bytes"),
        (vec![ok("Content-Length: 4294967297\r\n", "")], "larger than 100 bytes"),
        (vec![Answer::Endless("HTTP/1.1 200 OK\r\n\r\n", "xx")], "larger than 100 bytes"),
        (vec![Answer::Endless("HTTP/1.1 404 No\r\n\r\n", "xx")], "larger than 100 bytes"),
        (vec![Answer::Reset("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")], "127.0.0.1"),
        // Chunks.
        (vec![chunked("+4\r\nabcd\r\n0\r\n\r\n")], "size of a chunk"),
        (vec![chunked("4\r\nabcd\r\n+0\r\n\r\n")], "size of a chunk"),
        (vec![chunked("-4\r\nabcd\r\n0\r\n\r\n")], "invalid HTTP: "),
        (vec![chunked("x\r\nabcd\r\n0\r\n\r\n")], "invalid HTTP: "),
        (vec![chunked("fffffffffffffffff\r\n")], "invalid HTTP: "),
        (vec![chunked("4\r\nabcde\r\n0\r\n\r\n")], "invalid HTTP: "),
        (vec![chunked("4\r\nabcd\r\n")], "cut off"),
        (vec![chunked("4\r\nabcd\r\n0\r\n")], "cut off"),
        (vec![chunked("64\r\n")], "cut off"),
        (
            vec![Answer::Endless(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "1\r\nx\r\n",
            )],
            "larger than 100 bytes",
        ),
        (
            vec![Answer::Endless(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
                "T: 1\r\n",
            )],
            "invalid HTTP: ",
        ),
        (
            vec![Answer::Endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1", ";x")],
            "invalid HTTP: ",
        ),
        (vec![ok("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")], "a transfer coding"),
        // Redirects.
        ((0..4).map(|_| redirect("/a")).collect(), "redirects too often"),
        (vec![redirect("ftp://x/")], "not a http"),
        (vec![redirect("http://")], "not a http"),
        (vec![redirect("http://u@h/")], "not a http"),
        (vec!["HTTP/1.1 302 Found\r\n\r\n".into()], "returned 302, not 200"),
        (vec!["HTTP/1.1 302 Found\r\nLocation: /x\r\n".into()], "cut off"),
        (vec!["HTTP/1.1 304 Not Modified\r\n\r\n".into()], "returned 304"),
        (vec!["HTTP/1.1 404 Not Found\r\n\r\nno".into()], "returned 404"),
        (vec!["HTTP/1.1 101 Switching Protocols\r\n\r\n".into()], "returned 101"),
    ] {
        let (port, served) = server(answers, None);
        let error = fetch(port, deadline()).map_err(|e| e.to_string());
        served.join().unwrap();
        assert!(error.as_ref().is_err_and(|e| e.contains(cause)), "{cause}: {error:?}");
        let names_host = error.as_ref().is_err_and(|e| e.contains("127.0.0.1"));
        assert!(names_host || cause == "not a http", "{error:?}");
    }
}

#[test]
fn one_deadline_ends_what_does_not_end() {
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n";
    let close = "HTTP/1.1 200 OK\r\n\r\n";
    for answer in [
        Answer::Stalled(""),
        Answer::Stalled("HTTP/1.1 200 OK\r\n"),
        Answer::Stalled(length),
        Answer::Drip("HTTP/1.1 200 OK\r\nA: "),
        Answer::Drip(length),
        Answer::Drip(close),
    ] {
        let (port, _) = server(vec![answer], None);
        let soon = Deadline::At(sys::clock() + Duration::from_millis(300));
        let error = fetch(port, soon).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }
}

#[test]
fn a_body_that_ends_by_reset_is_not_whole() {
    let (port, _) = server(vec![Answer::Reset("HTTP/1.1 200 OK\r\n\r\nabc")], None);
    assert!(fetch(port, deadline()).is_err());
}

/// File of a CA, and a server of 127.0.0.1 with a certificate of it.
struct Tls {
    cas: Cas,
    config: Arc<ServerConfig>,
    file: PathBuf,
}

impl Tls {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let file = std::env::temp_dir().join(format!("culvert-{name}-{}.pem", std::process::id()));
        std::fs::write(&file, certificate.pem()).unwrap();
        let config =
            ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![certificate.der().clone()],
                    PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
                )
                .unwrap();
        Tls { cas: Cas::File(file.clone()), config: Arc::new(config), file }
    }

    fn server(&self, answers: Vec<Answer>) -> (u16, JoinHandle<Vec<String>>) {
        server(answers, Some(Arc::clone(&self.config)))
    }

    fn client(&self) -> Client<'_> {
        Client::new(&connect_by_environment, &self.cas)
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

#[test]
fn https_is_checked_and_not_left() {
    let tls = Tls::new("https");
    let (port, _) = tls.server(vec![ok("Content-Length: 4\r\n", "safe")]);
    let url = format!("https://127.0.0.1:{port}/");
    assert_eq!(tls.client().get(&url, LIMIT, deadline()).unwrap(), b"safe");
    // To the same server without TLS: no request is sent.
    let (plain, _) = server(vec![ok("", "never")], None);
    let (port, _) = tls.server(vec![redirect(&format!("http://127.0.0.1:{plain}/"))]);
    let url = format!("https://127.0.0.1:{port}/");
    let error = tls.client().get(&url, LIMIT, deadline()).unwrap_err().to_string();
    assert!(error.contains("redirects from https to http"), "{error}");
    // Truncated without the end of TLS: a body that ends with the connection is incomplete.
    let (port, _) = tls.server(vec![ok("", "half")]);
    let url = format!("https://127.0.0.1:{port}/");
    let error = tls.client().get(&url, LIMIT, deadline()).unwrap_err().to_string();
    assert!(error.contains("closed within TLS"), "{error}");
    // A CA that is not among the roots.
    let other = Tls::new("other");
    let (port, _) = other.server(vec![ok("", "lie")]);
    let url = format!("https://127.0.0.1:{port}/");
    let error = tls.client().get(&url, LIMIT, deadline()).unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
}

#[test]
fn requests_with_bodies_and_headers() {
    let answer = || Answer::from("HTTP/1.1 422 No\r\nContent-Length: 3\r\n\r\nwhy");
    for (method, word) in
        [(Method::Post, "POST"), (Method::Patch, "PATCH"), (Method::Delete, "DELETE")]
    {
        for body in [None, Some("{\"a\": 1}")] {
            let (port, served) = server(vec![answer()], None);
            let mut sink = Vec::new();
            let request = Request {
                method,
                url: &format!("http://127.0.0.1:{port}/x?y=1"),
                headers: &[("Authorization", "Bearer t"), ("Content-Type", "application/json")],
                body: body.map(str::as_bytes),
                limit: LIMIT,
                deadline: deadline(),
            };
            assert_eq!(Client::by_environment().send(&request, &mut sink).unwrap(), 422);
            assert_eq!(sink, b"why");
            let sent = served.join().unwrap().remove(0);
            assert!(sent.starts_with(&format!("{word} /x?y=1 HTTP/1.1\r\n")), "{sent}");
            for line in [
                &format!("host: 127.0.0.1:{port}"),
                "authorization: Bearer t",
                "content-type: application/json",
                concat!("user-agent: culvert/", env!("CARGO_PKG_VERSION")),
                "connection: close",
            ] {
                assert!(sent.lines().any(|l| l == line), "{line} is missing: {sent}");
            }
            assert!(sent.ends_with(body.unwrap_or("\r\n\r\n")), "{sent}");
        }
    }
}

#[test]
fn a_redirect_elsewhere_carries_no_headers() {
    let (elsewhere, second) = server(vec![ok("", "")], None);
    let (port, first) = server(vec![redirect(&format!("http://127.0.0.1:{elsewhere}/"))], None);
    let url = format!("http://127.0.0.1:{port}/");
    let request = Request {
        method: Method::Get,
        url: &url,
        headers: &[("Authorization", "Bearer t")],
        body: None,
        limit: LIMIT,
        deadline: deadline(),
    };
    assert_eq!(Client::by_environment().send(&request, &mut Vec::new()).unwrap(), 200);
    assert!(first.join().unwrap()[0].contains("Bearer t"));
    assert!(!second.join().unwrap()[0].contains("Bearer t"));
}

#[test]
fn an_invalid_request_is_not_sent() {
    let nobody = |_: &str, _: u16, _: Deadline| panic!("connected");
    let client = Client::new(&nobody, &Cas::Host);
    for (url, headers) in [
        ("http://h/", ("A\r\nB", "c")),
        ("http://h/", ("A", "b\r\nC: secret")),
        ("http://h/a b", ("A", "b")),
        ("ftp://h/", ("A", "b")),
    ] {
        let request = Request {
            method: Method::Get,
            url,
            headers: &[headers],
            body: None,
            limit: LIMIT,
            deadline: deadline(),
        };
        let error = client.send(&request, &mut Vec::new()).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
