//! Visitors: bulk transfers, small requests on kept connections, and connections that only stay
//! open.

use crate::upstream::content_length;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Address of a tunnel for visitors.
#[derive(Clone)]
pub struct Entrance {
    pub addr: SocketAddr,
    /// Value of the Host header, which selects the HTTP endpoint.
    pub host: String,
    /// Further header lines, each with CR LF.
    pub fields: String,
}

impl Entrance {
    /// Returns an entrance for requests without further header lines.
    pub fn new(addr: SocketAddr, host: impl Into<String>) -> Self {
        Entrance { addr, host: host.into(), fields: String::new() }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.addr, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        Ok(stream)
    }
}

/// Sends one request and reads the response, on a connection that stays open.
fn small(stream: &mut TcpStream, request: &[u8], buffer: &mut [u8]) -> io::Result<()> {
    stream.write_all(request)?;
    let mut filled = 0;
    loop {
        let n = stream.read(&mut buffer[filled..])?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the answer"));
        }
        filled += n;
        if let Some(end) = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]);
            if !head.starts_with("HTTP/1.1 200") {
                return Err(io::Error::other(format!(
                    "the answer is not 200: {}",
                    head.lines().next().unwrap_or("")
                )));
            }
            let length = content_length(&head);
            if (filled - end - 4) as u64 >= length {
                return Ok(());
            }
        }
        if filled == buffer.len() {
            return Err(io::Error::other("the answer to a small request is not small"));
        }
    }
}

fn small_request(entrance: &Entrance) -> Vec<u8> {
    let Entrance { host, fields, .. } = entrance;
    format!("GET /small HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n").into_bytes()
}

/// Sends one small request on a connection of its own.
pub fn once(entrance: &Entrance) -> io::Result<()> {
    let mut stream = entrance.connect()?;
    small(&mut stream, &small_request(entrance), &mut [0; 4096])
}

/// Sends `count` small requests, one after another on one connection.
pub fn repeat(entrance: &Entrance, count: usize) -> io::Result<()> {
    let mut stream = entrance.connect()?;
    let request = small_request(entrance);
    let mut buffer = [0; 4096];
    (0..count).try_for_each(|_| small(&mut stream, &request, &mut buffer))
}

/// Result of `requests`.
pub struct Requests {
    pub count: u64,
    pub per_second: f64,
    pub p99: Duration,
}

/// Sends small requests over `connections` kept connections for `time`. Each waits for its
/// response before the next request.
pub fn requests(entrance: &Entrance, connections: usize, time: Duration) -> io::Result<Requests> {
    let started = Instant::now();
    let end = started + time;
    let workers: Vec<_> = (0..connections)
        .map(|_| {
            let entrance = entrance.clone();
            thread::spawn(move || -> io::Result<Vec<u32>> {
                let mut stream = entrance.connect()?;
                let request = small_request(&entrance);
                let mut buffer = [0; 4096];
                let mut micros = Vec::with_capacity(100_000);
                loop {
                    let before = Instant::now();
                    if before >= end {
                        return Ok(micros);
                    }
                    small(&mut stream, &request, &mut buffer)?;
                    micros.push(u32::try_from(before.elapsed().as_micros()).unwrap_or(u32::MAX));
                }
            })
        })
        .collect();
    let mut micros = Vec::new();
    for worker in workers {
        micros.extend(worker.join().map_err(|_| io::Error::other("a visitor panicked"))??);
    }
    let elapsed = started.elapsed();
    Ok(Requests {
        count: micros.len() as u64,
        per_second: micros.len() as f64 / elapsed.as_secs_f64(),
        p99: Duration::from_micros(u64::from(percentile(&mut micros, 99))),
    })
}

/// Returns the value that `percent` of the values do not exceed; 0 without values.
pub fn percentile(values: &mut [u32], percent: usize) -> u32 {
    values.sort_unstable();
    let at = (values.len() * percent).div_ceil(100).saturating_sub(1);
    values.get(at).copied().unwrap_or(0)
}

/// Downloads `size` bytes on one connection. Returns the duration.
pub fn download(entrance: &Entrance, size: u64) -> io::Result<Duration> {
    let started = Instant::now();
    let mut stream = entrance.connect()?;
    let Entrance { host, fields, .. } = entrance;
    let request = format!("GET /bulk/{size} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
    stream.write_all(request.as_bytes())?;
    let mut buffer = vec![0; 256 * 1024];
    let mut filled = 0;
    let head = loop {
        let n = stream.read(&mut buffer[filled..])?;
        filled += n;
        if let Some(end) = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        if n == 0 {
            return Err(io::Error::other("no response head"));
        }
    };
    if !buffer.starts_with(b"HTTP/1.1 200") {
        return Err(io::Error::other("the download was refused"));
    }
    let mut got = (filled - head) as u64;
    while got < size {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the download of {size} bytes ended after {got}"),
            ));
        }
        got += n as u64;
    }
    match got - size {
        0 => Ok(started.elapsed()),
        more => Err(io::Error::other(format!("{more} bytes too many"))),
    }
}

/// Uploads `size` bytes on one connection. Returns the time until the response.
pub fn upload(entrance: &Entrance, size: u64) -> io::Result<Duration> {
    let started = Instant::now();
    let mut stream = entrance.connect()?;
    let Entrance { host, fields, .. } = entrance;
    let request =
        format!("POST /up HTTP/1.1\r\nHost: {host}\r\n{fields}Content-Length: {size}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let bulk = vec![b'y'; 256 * 1024];
    let mut left = size;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(bulk.len());
        stream.write_all(&bulk[..part])?;
        left -= part as u64;
    }
    small(&mut stream, b"", &mut [0; 4096])?;
    Ok(started.elapsed())
}

/// Opens `count` connections, sends one request on each and leaves them open.
pub fn idle(entrance: &Entrance, count: usize) -> io::Result<Vec<TcpStream>> {
    let request = small_request(entrance);
    let mut buffer = [0; 4096];
    (0..count)
        .map(|n| {
            let mut stream = entrance.connect()?;
            small(&mut stream, &request, &mut buffer)
                .map_err(|e| io::Error::new(e.kind(), format!("idle connection {n}: {e}")))?;
            Ok(stream)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct() -> Entrance {
        let addr = crate::upstream::start().unwrap();
        Entrance::new(addr, addr.to_string())
    }

    #[test]
    fn percentiles() {
        assert_eq!(percentile(&mut [], 99), 0);
        assert_eq!(percentile(&mut [7], 99), 7);
        let mut hundred: Vec<u32> = (1..=100).rev().collect();
        assert_eq!(percentile(&mut hundred, 99), 99);
        assert_eq!(percentile(&mut hundred, 50), 50);
    }

    #[test]
    fn every_kind_of_load_reaches_the_upstream() {
        let entrance = direct();
        once(&entrance).unwrap();
        download(&entrance, 3_000_001).unwrap();
        upload(&entrance, 3_000_001).unwrap();
        assert_eq!(idle(&entrance, 5).unwrap().len(), 5);
        let measured = requests(&entrance, 3, Duration::from_millis(50)).unwrap();
        assert!(measured.count >= 3);
    }

    #[test]
    fn a_closed_entrance_is_an_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        assert!(once(&Entrance::new(addr, "x")).is_err());
    }
}
