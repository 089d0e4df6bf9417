//! Local service of every tunnel: a plain HTTP/1.1 server with keep-alive and one thread for
//! each connection.
//!
//! `GET /small` returns 100 bytes, `GET /bulk/N` N bytes. `POST` reads a body of the announced
//! length and returns 100 bytes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Starts it on a loopback port that the kernel chooses. It runs until the end.
pub fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    thread::Builder::new().name("upstream".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // Small stacks: 200 idle connections are 200 threads here.
            let _ = thread::Builder::new().stack_size(64 * 1024).spawn(move || serve(stream));
        }
    })?;
    Ok(addr)
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = Vec::with_capacity(4096);
    let mut buffer = vec![b'x'; 16 * 1024];
    let bulk = vec![b'x'; 256 * 1024];
    loop {
        head.clear();
        let end = loop {
            if let Some(at) = head.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if head.len() > 64 * 1024 {
                return Ok(());
            }
            let n = stream.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            head.extend_from_slice(&buffer[..n]);
        };
        let text = String::from_utf8_lossy(&head[..end]).into_owned();
        if text.starts_with("POST ") {
            let mut left = content_length(&text).saturating_sub((head.len() - end) as u64);
            let mut sink = vec![0; 256 * 1024];
            while left > 0 {
                let n = stream.read(&mut sink)?;
                if n == 0 {
                    return Ok(());
                }
                left = left.saturating_sub(n as u64);
            }
        }
        match text.split(' ').nth(1).and_then(|path| path.strip_prefix("/bulk/")) {
            Some(size) => {
                let mut left: u64 = size.parse().unwrap_or(0);
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {left}\r\n\r\n");
                stream.write_all(answer.as_bytes())?;
                while left > 0 {
                    let part = usize::try_from(left).unwrap_or(usize::MAX).min(bulk.len());
                    stream.write_all(&bulk[..part])?;
                    left -= part as u64;
                }
            }
            None => {
                // Two segments, because most servers send head and body separately: Nagle's
                // algorithm delays the second one in a tunnel that does not disable it.
                stream.write_all(SMALL_HEAD)?;
                stream.write_all(SMALL_BODY)?;
            }
        }
    }
}

const SMALL_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n";
const SMALL_BODY: &[u8] = &[b'x'; 100];

/// Returns the announced length of a body, 0 without one.
pub fn content_length(head: &str) -> u64 {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}
