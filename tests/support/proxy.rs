//! Proxies on loopback: a working one for each protocol, and a scripted one. Written by hand
//! here, not with the library's parsers.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::PATIENCE;

/// Request that a proxy received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// `host:port`, as in the request.
    pub target: String,
    /// Login in the request.
    pub login: String,
}

/// A proxy. It runs as long as the test's process.
pub struct Proxy {
    pub addr: SocketAddr,
    wishes: Arc<Mutex<Vec<Wish>>>,
}

trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

impl Proxy {
    /// Starts a proxy with a script for each connection.
    pub fn scripted(script: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let script = Arc::new(script);
        thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let script = script.clone();
                thread::spawn(move || {
                    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
                    script(tcp);
                });
            }
        });
        Proxy { addr, wishes: Arc::default() }
    }

    /// Starts a proxy that sends these bytes in response to any request, and then waits for the
    /// other end.
    pub fn saying(answer: &'static [u8]) -> Self {
        Proxy::scripted(move |mut tcp| {
            let mut buffer = [0; 1_000];
            if tcp.read(&mut buffer).is_ok_and(|n| n > 0) {
                let _ = tcp.write_all(answer);
                let _ = tcp.read(&mut buffer);
            }
        })
    }

    /// Starts an HTTP CONNECT proxy that connects to `edge` for every target.
    pub fn http(edge: SocketAddr, login: Option<&'static str>) -> Self {
        Proxy::working(move |tcp| {
            let stream = tcp.try_clone()?;
            tunnel_by_http(Box::new(stream), &tcp, edge, login)
        })
    }

    /// Starts such a proxy inside TLS.
    pub fn https(edge: SocketAddr, tls: Arc<ServerConfig>) -> Self {
        Proxy::working(move |tcp| {
            let conn = ServerConnection::new(tls.clone()).unwrap();
            let stream = StreamOwned::new(conn, tcp.try_clone()?);
            tunnel_by_http(Box::new(stream), &tcp, edge, None)
        })
    }

    /// Starts a SOCKS5 proxy that connects to `edge` for every target.
    pub fn socks(edge: SocketAddr, login: Option<&'static str>) -> Self {
        Proxy::working(move |mut tcp| {
            let mut wish = Wish { target: String::new(), login: String::new() };
            let methods = read_counted(&mut tcp, 1)?;
            let method = if login.is_some() { 2 } else { 0 };
            if !methods.contains(&method) {
                tcp.write_all(&[5, 0xff])?;
                return Ok(wish);
            }
            tcp.write_all(&[5, method])?;
            if login.is_some() {
                let user = read_counted(&mut tcp, 1)?;
                let password = read_counted(&mut tcp, 0)?;
                wish.login = format!("{}:{}", text(&user), text(&password));
                let good = login == Some(&wish.login);
                tcp.write_all(&[1, u8::from(!good)])?;
                if !good {
                    return Ok(wish);
                }
            }
            let mut head = [0; 4];
            tcp.read_exact(&mut head)?;
            let host = match head[3] {
                3 => text(&read_counted(&mut tcp, 0)?),
                kind => format!("an address of kind {kind}"),
            };
            let mut port = [0; 2];
            tcp.read_exact(&mut port)?;
            wish.target = format!("{host}:{}", u16::from_be_bytes(port));
            let onward = TcpStream::connect(edge)?;
            tcp.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 1])?;
            carry(Box::new(tcp.try_clone()?), tcp, onward);
            Ok(wish)
        })
    }

    fn working(serve: impl Fn(TcpStream) -> io::Result<Wish> + Send + Sync + 'static) -> Self {
        let wishes: Arc<Mutex<Vec<Wish>>> = Arc::default();
        let kept = wishes.clone();
        let proxy = Proxy::scripted(move |tcp| {
            if let Ok(wish) = serve(tcp) {
                kept.lock().unwrap().push(wish);
            }
        });
        Proxy { wishes, ..proxy }
    }

    /// Returns the requests that were received and completed.
    pub fn wishes(&self) -> Vec<Wish> {
        self.wishes.lock().unwrap().clone()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Skips some bytes, then reads a count and this number of bytes.
fn read_counted(tcp: &mut TcpStream, before: usize) -> io::Result<Vec<u8>> {
    let mut head = vec![0; before + 1];
    tcp.read_exact(&mut head)?;
    let mut bytes = vec![0; usize::from(head[before])];
    tcp.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn tunnel_by_http(
    mut stream: Box<dyn Duplex>,
    tcp: &TcpStream,
    edge: SocketAddr,
    login: Option<&str>,
) -> io::Result<Wish> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = text(&head);
    let field = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(n, _)| *n == name).map(|(_, v)| v.to_owned()).next().unwrap_or_default()
    };
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let wish = Wish { target, login: field("Proxy-Authorization") };
    if !head.starts_with("CONNECT ") || field("Host") != wish.target {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
    } else if login.is_some_and(|login| wish.login != format!("Basic {login}")) {
        stream.write_all(b"HTTP/1.1 407 Login\r\nProxy-Authenticate: Basic realm=x\r\n\r\n")?;
    } else {
        let onward = TcpStream::connect(edge)?;
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        stream.flush()?;
        carry(stream, tcp.try_clone()?, onward);
    }
    Ok(wish)
}

/// Joins both connections on threads of their own.
fn carry(mut stream: Box<dyn Duplex>, tcp: TcpStream, onward: TcpStream) {
    // One thread for both directions, because TLS has one state: reads take turns.
    tcp.set_read_timeout(Some(std::time::Duration::from_millis(2))).unwrap();
    onward.set_read_timeout(Some(std::time::Duration::from_millis(2))).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        let waits =
            |e: &io::Error| matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        loop {
            match stream.read(&mut buffer) {
                Ok(n) if n > 0 && (&onward).write_all(&buffer[..n]).is_ok() => {}
                Err(e) if waits(&e) => {}
                _ => break,
            }
            match (&onward).read(&mut buffer) {
                Ok(n) if n > 0 => {
                    if stream.write_all(&buffer[..n]).and_then(|()| stream.flush()).is_err() {
                        break;
                    }
                }
                Err(e) if waits(&e) => {}
                _ => break,
            }
        }
        let _ = tcp.shutdown(Shutdown::Both);
        let _ = onward.shutdown(Shutdown::Both);
    });
}
