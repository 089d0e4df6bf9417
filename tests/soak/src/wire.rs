//! HTTP/1.1 for both ends of the load, written separately from the programs under test: heads,
//! and bodies with a distinction between end and loss.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::bytes::{self, Check};
use crate::plan::Pace;

/// Time without progress after which an exchange counts as stuck.
pub const HANG: Duration = Duration::from_secs(60);

const MAX_HEAD_BYTES: usize = 16 * 1024;
const PIECE_BYTES: usize = 64 * 1024;

/// A connection and the bytes that were read from it and not used.
pub struct Wire {
    pub stream: TcpStream,
    held: Vec<u8>,
    start: usize,
}

/// A request's or response's head.
pub struct Head(pub String);

impl Head {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.0
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    fn has(&self, name: &str, token: &str) -> bool {
        let value = self.field(name).unwrap_or("");
        value.split(',').any(|t| t.trim().eq_ignore_ascii_case(token))
    }

    pub fn is_chunked(&self) -> bool {
        self.has("transfer-encoding", "chunked")
    }

    pub fn length(&self) -> Option<u64> {
        self.field("content-length").and_then(|value| value.parse().ok())
    }

    pub fn closes(&self) -> bool {
        self.has("connection", "close")
    }

    pub fn status(&self) -> u16 {
        self.0.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
    }

    /// The target of a request.
    pub fn target(&self) -> &str {
        self.0.split(' ').nth(1).unwrap_or("")
    }
}

/// How a body ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyEnd {
    /// By its framing.
    Framed,
    /// By the end of the connection, which was the framing.
    Closed,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn cut(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, what)
}

/// Returns whether an error means no progress for [`HANG`].
pub fn is_hang(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

impl Wire {
    pub fn new(stream: TcpStream) -> io::Result<Wire> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(HANG))?;
        stream.set_write_timeout(Some(HANG))?;
        Ok(Wire { stream, held: Vec::new(), start: 0 })
    }

    /// Reads a head. `None`: the connection ended before its first byte. Bytes after the head
    /// stay in the socket if possible: a close resets the connection then.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        let mut room = [0; 4096];
        loop {
            let held = &self.held[self.start..];
            if let Some(end) = find_end(held) {
                let text = String::from_utf8_lossy(&held[..end]).into_owned();
                self.start += end;
                return Ok(Some(Head(text)));
            }
            if held.len() > MAX_HEAD_BYTES {
                return Err(invalid("a head too long"));
            }
            let empty = held.is_empty();
            let n = self.stream.peek(&mut room)?;
            if n == 0 {
                return if empty { Ok(None) } else { Err(cut("the head is cut")) };
            }
            let before = held.len();
            self.compact();
            self.held.extend_from_slice(&room[..n]);
            let take = find_end(&self.held).map_or(n, |end| end - before);
            self.stream.read_exact(&mut room[..take])?;
            self.held.truncate(before + take);
        }
    }

    fn compact(&mut self) {
        self.held.drain(..self.start);
        self.start = 0;
    }

    /// Waits until a byte is available that stays unread.
    pub fn wait_unread(&self) -> io::Result<()> {
        match self.stream.peek(&mut [0])? {
            0 => Err(cut("the connection ended")),
            _ => Ok(()),
        }
    }

    pub fn read_some(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let held = &self.held[self.start..];
        if held.is_empty() {
            return self.stream.read(room);
        }
        let n = held.len().min(room.len());
        room[..n].copy_from_slice(&held[..n]);
        self.start += n;
        Ok(n)
    }

    pub fn read_exact(&mut self, mut room: &mut [u8]) -> io::Result<()> {
        while !room.is_empty() {
            match self.read_some(room)? {
                0 => return Err(cut("the connection ended")),
                n => room = &mut room[n..],
            }
        }
        Ok(())
    }

    /// Reads a line. Bytes after it stay in the socket: they may be the next request, which an
    /// upstream leaves unread so that its close is a reset.
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let mut room = [0; 4096];
        loop {
            let held = &self.held[self.start..];
            let end = held.iter().position(|b| *b == b'\n').map(|at| at + 1);
            line.extend_from_slice(&held[..end.unwrap_or(held.len())]);
            self.start += end.unwrap_or(held.len());
            if end.is_some() {
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if line.len() > MAX_HEAD_BYTES {
                return Err(invalid("a chunk's line too long"));
            }
            let n = self.stream.peek(&mut room)?;
            if n == 0 {
                return Err(cut("the connection ended in a chunked body"));
            }
            let take = room[..n].iter().position(|b| *b == b'\n').map_or(n, |at| at + 1);
            self.stream.read_exact(&mut room[..take])?;
            self.compact();
            self.held.extend_from_slice(&room[..take]);
        }
    }

    /// Reads a body to its end, or up to `most` bytes of it (`Ok(None)`).
    pub fn body(
        &mut self,
        head: &Head,
        is_response: bool,
        reader: &mut Reader,
        most: u64,
    ) -> io::Result<Option<BodyEnd>> {
        if head.is_chunked() {
            loop {
                let line = self.line()?;
                let digits = line.split(';').next().unwrap_or("").trim();
                let size =
                    u64::from_str_radix(digits, 16).map_err(|_| invalid("a chunk's size"))?;
                if size == 0 {
                    while !self.line()?.is_empty() {}
                    return Ok(Some(BodyEnd::Framed));
                }
                if !self.exactly(size, reader, most)? {
                    return Ok(None);
                }
                if !self.line()?.is_empty() {
                    return Err(invalid("no line end behind a chunk"));
                }
            }
        }
        match head.length() {
            Some(length) => {
                let whole = self.exactly(length, reader, most)?;
                Ok(whole.then_some(BodyEnd::Framed))
            }
            None if is_response => self.read_to_end(reader, most),
            None => Ok(Some(BodyEnd::Framed)),
        }
    }

    fn exactly(&mut self, size: u64, reader: &mut Reader, most: u64) -> io::Result<bool> {
        let mut left = size;
        while left > 0 {
            let here = left.min(most.saturating_sub(reader.check.count));
            if here == 0 {
                return Ok(false);
            }
            match self.piece(here, reader)? {
                0 => return Err(cut("the connection ended in a body")),
                n => left -= n,
            }
        }
        Ok(true)
    }

    /// Reads to the end of the connection.
    pub fn read_to_end(&mut self, reader: &mut Reader, most: u64) -> io::Result<Option<BodyEnd>> {
        loop {
            let here = most.saturating_sub(reader.check.count);
            if here == 0 {
                return Ok(None);
            }
            if self.piece(here, reader)? == 0 {
                return Ok(Some(BodyEnd::Closed));
            }
        }
    }

    fn piece(&mut self, most: u64, reader: &mut Reader) -> io::Result<u64> {
        let mut room = std::mem::take(&mut reader.room);
        let most = reader.before_read(most).min(room.len() as u64) as usize;
        let read = self.read_some(&mut room[..most]);
        reader.room = room;
        let n = read?;
        reader.check.take(&reader.room[..n]);
        Ok(n as u64)
    }
}

fn find_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

/// Reads a body at a pace and checks it.
pub struct Reader {
    pub check: Check,
    pace: Pace,
    room: Vec<u8>,
}

impl Reader {
    pub fn new(key: u64, pace: Pace) -> Self {
        Reader { check: Check::new(key), pace, room: vec![0; PIECE_BYTES] }
    }

    /// Slow reading is injected here; it does not wait for a condition.
    fn before_read(&mut self, most: u64) -> u64 {
        match self.pace {
            Pace::Full => most,
            Pace::Pause { after, millis } => {
                if self.check.count < after {
                    return most.min(after - self.check.count);
                }
                std::thread::sleep(Duration::from_millis(millis));
                self.pace = Pace::Full;
                most
            }
            Pace::Steady { step, millis } => {
                std::thread::sleep(Duration::from_millis(millis));
                most.min(step)
            }
        }
    }
}

/// Writes the bytes `from..to` of body `key`, as chunks if `chunked`, without the last chunk.
pub fn write_body(
    stream: &mut TcpStream,
    key: u64,
    from: u64,
    to: u64,
    chunked: bool,
) -> io::Result<()> {
    let mut buffer = vec![0; (to - from).min(PIECE_BYTES as u64) as usize + 16];
    let mut at = from;
    // Chunks of different sizes.
    let mut size = key % 5_000 + 1;
    while at < to {
        let most = if chunked { size } else { PIECE_BYTES as u64 };
        let n = (to - at).min(most).min(PIECE_BYTES as u64) as usize;
        buffer.clear();
        if chunked {
            buffer.extend_from_slice(format!("{n:x}\r\n").as_bytes());
        }
        let start = buffer.len();
        buffer.resize(start + n, 0);
        bytes::fill(key, at, &mut buffer[start..]);
        if chunked {
            buffer.extend_from_slice(b"\r\n");
        }
        stream.write_all(&buffer)?;
        at += n as u64;
        size = size * 3 + 1;
    }
    Ok(())
}

pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;
    use crate::plan::Pace;

    #[test]
    fn the_body_of_a_request_behind_another_stays_unread() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut visitor = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut wire = Wire::new(listener.accept().unwrap().0).unwrap();
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = "1\r\nx\r\n0\r\n\r\n";
        visitor.write_all(format!("{head}{body}{head}{body}").as_bytes()).unwrap();
        let first = wire.head().unwrap().unwrap();
        let end = wire.body(&first, false, &mut Reader::new(0, Pace::Full), u64::MAX);
        assert_eq!(end.unwrap(), Some(BodyEnd::Framed));
        assert!(wire.head().unwrap().is_some());
        wire.stream.set_nonblocking(true).unwrap();
        wire.wait_unread().unwrap();
    }
}
