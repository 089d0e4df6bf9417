//! The fetcher with servers on loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use super::*;
use crate::cidr::Cidr;
use crate::net::http_client::Method;

/// A server that answers each connection with the next response, and reports the requests.
struct Server {
    port: u16,
    requests: Receiver<String>,
}

impl Server {
    fn start(address: &str, responses: Vec<String>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, requests) = mpsc::channel();
        thread::spawn(move || {
            for response in responses {
                let (tcp, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(&tcp);
                let mut request = String::new();
                while !request.ends_with("\r\n\r\n") && reader.read_line(&mut request).unwrap() > 0
                {
                }
                let length = request.lines().find_map(|l| l.strip_prefix("content-length: "));
                let mut body = vec![0; length.map_or(0, |n| n.parse().unwrap())];
                reader.read_exact(&mut body).unwrap();
                request.push_str(&String::from_utf8(body).unwrap());
                sender.send(request).unwrap();
                (&tcp).write_all(response.as_bytes()).unwrap();
            }
        });
        Server { port, requests }
    }

    fn ok(body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\nX-Name: Value\r\nContent-Length: {length}\r\n\r\n{body}")
    }

    fn redirect(status: u16, location: &str) -> String {
        format!("HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
    }
}

/// Returns a fetcher for which only 127.0.0.1 is permitted.
fn fetcher() -> EdgeFetcher {
    let networks = vec![Cidr::parse("127.0.0.1").unwrap()];
    let guard = FetchGuard { networks, hosts: Vec::new() };
    EdgeFetcher::new(FetchConfig { guard, ..FetchConfig::default() })
}

fn get(url: &str) -> FetchRequest<'_> {
    FetchRequest::document(url, 100, Duration::from_secs(20))
}

#[test]
fn a_response_has_status_header_body_and_address() {
    let server = Server::start("127.0.0.1:0", vec![Server::ok("hello")]);
    let url = format!("http://127.0.0.1:{}/x?y=z", server.port);
    let response = fetcher().fetch(&get(&url)).unwrap();
    assert_eq!((response.status, response.body.as_slice()), (200, &b"hello"[..]));
    assert!(response.headers.contains(&("x-name".into(), "Value".into())));
    assert_eq!(response.address, Some([127, 0, 0, 1].into()));
    let request = server.requests.recv().unwrap();
    assert!(request.starts_with("GET /x?y=z HTTP/1.1\r\n"), "{request}");
}

#[test]
fn addresses_that_are_not_permitted_get_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let strict = EdgeFetcher::default();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0", "x.localhost."]
    {
        let error = strict.fetch(&get(&format!("http://{host}:{port}/"))).unwrap_err();
        assert_eq!(error.kind, FetchErrorKind::Refused, "{host}: {error}");
        assert!(error.to_string().contains("fetch.allow"), "{error}");
    }
    for url in ["file:///etc/passwd", "ftp://127.0.0.1/", "http://u:p@127.0.0.1/", ""] {
        assert_eq!(strict.fetch(&get(url)).unwrap_err().kind, FetchErrorKind::Refused, "{url}");
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "a connection was made");
}

#[test]
fn a_redirect_is_checked_like_the_first_url() {
    let inner = TcpListener::bind("127.0.0.2:0").unwrap();
    let inside = format!("http://127.0.0.2:{}/", inner.local_addr().unwrap().port());
    let server = Server::start("127.0.0.1:0", vec![Server::redirect(302, &inside)]);
    let url = format!("http://127.0.0.1:{}/", server.port);
    let error = fetcher().fetch(&get(&url)).unwrap_err();
    assert_eq!(error.kind, FetchErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("127.0.0.2"), "{error}");
    inner.set_nonblocking(true).unwrap();
    assert!(inner.accept().is_err(), "a connection was made");
}

#[test]
fn redirects_are_followed_as_often_as_permitted() {
    let other = Server::start("127.0.0.1:0", vec![Server::ok("there")]);
    let there = format!("http://127.0.0.1:{}/there", other.port);
    let moved = vec![Server::redirect(301, "/a"), Server::redirect(307, &there)];
    let server = Server::start("127.0.0.1:0", moved);
    let url = format!("http://127.0.0.1:{}/", server.port);
    let headers = [("authorization", "secret")];
    let request = FetchRequest { headers: &headers, max_redirects: 2, ..get(&url) };
    assert_eq!(fetcher().fetch(&request).unwrap().body, b"there");
    let sent: Vec<String> = server.requests.iter().take(2).collect();
    assert!(sent.iter().all(|request| request.contains("secret")), "{sent:?}");
    let foreign = other.requests.recv().unwrap();
    assert!(foreign.starts_with("GET /there ") && !foreign.contains("secret"), "{foreign}");

    let server = Server::start("127.0.0.1:0", vec![Server::redirect(302, "/a"); 2]);
    let url = format!("http://127.0.0.1:{}/", server.port);
    let error = fetcher().fetch(&FetchRequest { max_redirects: 1, ..get(&url) }).unwrap_err();
    assert!(error.to_string().contains("redirects too often"), "{error}");
    let server = Server::start("127.0.0.1:0", vec![Server::redirect(302, "/a")]);
    let url = format!("http://127.0.0.1:{}/", server.port);
    let response = fetcher().fetch(&FetchRequest { max_redirects: 0, ..get(&url) }).unwrap();
    assert_eq!(response.status, 302);
}

#[test]
fn a_body_is_sent_to_its_own_server_only() {
    let responses = vec![
        Server::ok("1"),
        Server::redirect(303, "/next"),
        Server::ok("2"),
        Server::redirect(307, "http://127.0.0.1:9/"),
    ];
    let server = Server::start("127.0.0.1:0", responses);
    let url = format!("http://127.0.0.1:{}/form", server.port);
    let request = FetchRequest { method: Method::Post, body: Some(b"code=1"), ..get(&url) };
    let fetcher = fetcher();
    assert_eq!(fetcher.fetch(&request).unwrap().body, b"1");
    let sent = server.requests.recv().unwrap();
    assert!(sent.starts_with("POST /form ") && sent.ends_with("code=1"), "{sent}");
    assert_eq!(fetcher.fetch(&request).unwrap().body, b"2");
    let sent: Vec<String> = server.requests.iter().take(2).collect();
    assert!(sent[1].starts_with("GET /next ") && !sent[1].contains("code=1"), "{sent:?}");
    let error = fetcher.fetch(&request).unwrap_err();
    assert!(error.to_string().contains("to another server"), "{error}");
}

#[test]
fn a_response_is_bounded_in_size_and_time() {
    let server = Server::start("127.0.0.1:0", vec![Server::ok(&"x".repeat(101))]);
    let url = format!("http://127.0.0.1:{}/", server.port);
    let error = fetcher().fetch(&get(&url)).unwrap_err();
    assert!(error.to_string().contains("larger than 100 bytes"), "{error}");

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://127.0.0.1:{}/", silent.local_addr().unwrap().port());
    let request = FetchRequest { timeout: Duration::from_millis(50), ..get(&url) };
    let error = fetcher().fetch(&request).unwrap_err();
    assert_eq!(error.kind, FetchErrorKind::Timeout, "{error}");
}

#[test]
fn a_changed_configuration_counts_for_further_requests() {
    let server = Server::start("127.0.0.1:0", vec![Server::ok("x")]);
    let url = format!("http://127.0.0.1:{}/", server.port);
    let fetcher = EdgeFetcher::default();
    assert!(fetcher.fetch(&get(&url)).is_err());
    let guard = FetchGuard::with_loopback();
    fetcher.configure(FetchConfig { guard, ..FetchConfig::default() });
    assert_eq!(fetcher.fetch(&get(&url)).unwrap().status, 200);
}
