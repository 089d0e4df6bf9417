//! The server with a small application, over real sockets: places, deadlines that do not depend
//! on the clients, requests that follow each other.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::app::{ApiAnswer, App, EventCursor};
use super::http::{ApiReply, ReplyBody};
use super::server;
use crate::http1::receiver::RequestReceiver;
use crate::time::Instant;

/// Returns the request as text. `/slow` waits for a signal, `/long` is sent piece by piece.
struct Echo {
    held: Option<Receiver<()>>,
}

impl App for Echo {
    fn answer(&mut self, request: &RequestReceiver, _: Instant) -> ApiAnswer {
        let head = request.head().unwrap();
        let (method, target) = (head.method().to_owned(), head.target().to_owned());
        let text = format!("{method} {target} {}", request.body().len());
        match target.as_str() {
            "/slow" => {
                let held = self.held.take();
                ApiAnswer::Later(Box::new(move || {
                    if let Some(held) = held {
                        let _ = held.recv_timeout(Duration::from_secs(30));
                    }
                    ApiReply::text(200, text)
                }))
            }
            "/long" => {
                let pieces = (0..100).map(|n| vec![b'0' + n % 10; 1000 * usize::from(n % 3)]);
                let body = ReplyBody::Pieces(Box::new(pieces));
                ApiAnswer::Now(ApiReply { body, ..ApiReply::text(200, String::new()) })
            }
            "/events" => ApiAnswer::Now(ApiReply { body: ReplyBody::Events, ..ApiReply::empty() }),
            _ => ApiAnswer::Now(ApiReply::text(200, text)),
        }
    }

    fn refusal(&self, status: u16, why: &str) -> ApiReply {
        ApiReply::text(status, format!("refused: {why}"))
    }

    fn news(&mut self, cursor: &mut EventCursor, _: Instant) -> Vec<u8> {
        match cursor.state.replace(1) {
            None => b"data: hello\n\n".to_vec(),
            Some(_) => Vec::new(),
        }
    }
}

/// Returns the server's address, and the sender that lets `/slow` continue.
fn serve() -> (SocketAddr, Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (go, held) = channel();
    server::start(listener, Box::new(Echo { held: Some(held) })).unwrap();
    (addr, go)
}

fn connect(addr: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket
}

/// Reads until the received bytes end with a text, or to the end.
fn read_until(socket: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while !bytes.ends_with(end.as_bytes()) || end.is_empty() {
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => break,
            Err(e) => panic!("{e} after {}", String::from_utf8_lossy(&bytes)),
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Sends one request on a connection of its own, and reads to the end.
fn ask(addr: SocketAddr, request: &str) -> String {
    let mut socket = connect(addr);
    socket.write_all(request.as_bytes()).unwrap();
    read_until(&mut socket, "")
}

fn get(addr: SocketAddr, path: &str) -> String {
    ask(addr, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
}

#[test]
fn requests_follow_each_other_on_a_connection_also_ahead_of_answers() {
    let (addr, _go) = serve();
    let mut socket = connect(addr);
    for n in 0..3 {
        socket.write_all(format!("GET /{n} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
        let answer = read_until(&mut socket, &format!("GET /{n} 0"));
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    // Hundreds of requests in one write.
    let many = "GET /a HTTP/1.1\r\n\r\n".repeat(1000)
        + "POST /last HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    socket.write_all(many.as_bytes()).unwrap();
    let answers = read_until(&mut socket, "POST /last 3");
    assert_eq!(answers.matches("GET /a 0").count(), 1000);
}

#[test]
fn ends_of_connections_as_the_client_wants_them() {
    let (addr, _go) = serve();
    assert!(get(addr, "/").ends_with("\r\nConnection: close\r\n\r\nGET / 0"));
    let old = ask(addr, "GET /old HTTP/1.0\r\n\r\n");
    assert!(old.ends_with("GET /old 0"), "{old}");
    let head = ask(addr, "HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert!(head.contains("Content-Length: 8\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    // A client that has sent everything and waits.
    let mut socket = connect(addr);
    socket.write_all(b"GET /half HTTP/1.1\r\n\r\n").unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(read_until(&mut socket, "").ends_with("GET /half 0"));
}

#[test]
fn long_answers_come_in_pieces() {
    let (addr, _go) = serve();
    let sum: usize = (0..100).map(|n| 1000 * (n % 3)).sum();
    let chunked = get(addr, "/long");
    assert!(chunked.contains("Transfer-Encoding: chunked") && chunked.ends_with("\r\n0\r\n\r\n"));
    assert_eq!(chunked.matches("3e8\r\n").count(), 33);
    let plain = ask(addr, "GET /long HTTP/1.0\r\n\r\n");
    assert_eq!(plain.split_once("\r\n\r\n").unwrap().1.len(), sum);
}

#[test]
fn what_is_refused_is_refused_with_an_answer_that_arrives() {
    let (addr, _go) = serve();
    let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(60_000));
    let answer = ask(addr, &head);
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let body = format!("POST / HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n{}", "z".repeat(200_000));
    let answer = ask(addr, &body);
    assert!(
        answer.starts_with("HTTP/1.1 413 ") && answer.contains("Connection: close"),
        "{answer}"
    );
    assert!(ask(addr, "\x16\x03\x01\x00\r\n\r\n").starts_with("HTTP/1.1 400 "));
}

#[test]
fn a_body_that_waits_to_be_asked_for_is_asked_for() {
    let (addr, _go) = serve();
    let mut socket = connect(addr);
    let head =
        "POST / HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    socket.write_all(head.as_bytes()).unwrap();
    assert_eq!(read_until(&mut socket, "\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(b"12345").unwrap();
    assert!(read_until(&mut socket, "").ends_with("POST / 5"));
}

#[test]
fn thousands_of_slow_clients_keep_nobody_out() {
    let (addr, _go) = serve();
    let starts =
        ["", "G", "GET / HTTP/1.1\r\nHo", "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc"];
    let mut slow = Vec::new();
    for n in 0..400 {
        let mut socket = connect(addr);
        let _ = socket.write_all(starts[n % 4].as_bytes());
        slow.push(socket);
        if n % 20 == 0 {
            assert!(get(addr, "/still").ends_with("GET /still 0"), "after {n}");
        }
    }
}

#[test]
fn a_job_holds_up_nobody_else_and_too_many_are_refused() {
    let (addr, go) = serve();
    let waiting: Vec<_> = (0..25)
        .map(|_| {
            let mut socket = connect(addr);
            socket.write_all(b"GET /slow HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
            socket
        })
        .collect();
    assert!(get(addr, "/quick").ends_with("GET /quick 0"));
    // Clients without a place are refused while the first one occupies the others.
    let answered = |socket: &&TcpStream| {
        socket.set_nonblocking(true).unwrap();
        let there = socket.peek(&mut [0]).is_ok();
        socket.set_nonblocking(false).unwrap();
        there
    };
    let began = std::time::Instant::now();
    while waiting.iter().filter(answered).count() < 8 {
        assert!(began.elapsed() < Duration::from_secs(30), "nobody is refused");
        std::thread::yield_now();
    }
    go.send(()).unwrap();
    let answers: Vec<String> = waiting.into_iter().map(|mut s| read_until(&mut s, "")).collect();
    let fine = answers.iter().filter(|a| a.starts_with("HTTP/1.1 200 ")).count();
    let refused = answers.iter().filter(|a| a.starts_with("HTTP/1.1 503 ")).count();
    assert_eq!(fine + refused, 25);
    // One running job and a queue of 16. With one that was queued before the first began there
    // are 17.
    assert!(fine >= 16 && refused >= 8, "{fine} answered, {refused} refused");
}

#[test]
fn listeners_hear_what_happens_and_are_few() {
    let (addr, _go) = serve();
    let listen = || {
        let mut socket = connect(addr);
        socket.write_all(b"GET /events HTTP/1.1\r\n\r\n").unwrap();
        let heard = read_until(&mut socket, "\n\n");
        (socket, heard)
    };
    let four: Vec<_> = (0..4)
        .map(|_| {
            let mut socket = connect(addr);
            socket.write_all(b"GET /events HTTP/1.1\r\n\r\n").unwrap();
            assert!(read_until(&mut socket, "data: hello\n\n").starts_with("HTTP/1.1 204 "));
            socket
        })
        .collect();
    let mut fifth = connect(addr);
    fifth.write_all(b"GET /events HTTP/1.1\r\n\r\n").unwrap();
    assert!(read_until(&mut fifth, "open").starts_with("HTTP/1.1 503 "));
    drop(four);
    // Their places are free again.
    while !listen().1.contains("hello") {}
}

#[test]
fn large_bodies_have_room_together_and_small_ones_always() {
    let (addr, _go) = serve();
    let large = "x".repeat(900_000);
    let begun: Vec<_> = (0..6)
        .map(|_| {
            let mut socket = connect(addr);
            let head =
                "POST /large HTTP/1.1\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n";
            let _ = socket.write_all(head.as_bytes());
            let _ = socket.write_all(large.as_bytes());
            socket
        })
        .collect();
    let small =
        ask(addr, "POST /small HTTP/1.1\r\nConnection: close\r\nContent-Length: 4\r\n\r\nabcd");
    assert!(small.ends_with("POST /small 4"), "{small}");
    let answers: Vec<String> = begun
        .into_iter()
        .map(|mut socket| {
            let _ = socket.write_all("y".repeat(100_000).as_bytes());
            read_until(&mut socket, "")
        })
        .collect();
    assert!(answers.iter().any(|a| a.ends_with("POST /large 1000000")), "{answers:?}");
    assert!(answers.iter().any(|a| a.starts_with("HTTP/1.1 503 ")), "{answers:?}");
}
