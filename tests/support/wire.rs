//! One end of a connection: bytes, lines, HTTP messages. For visitors and upstreams.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::{PATIENCE, wait_for};

trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// A connection with or without TLS, with a deadline for each call.
pub struct Wire {
    stream: Box<dyn Duplex>,
    tcp: TcpStream,
    /// Bytes that were read from the connection and not used yet.
    held: Vec<u8>,
}

/// A request or a response.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// Request line or status line.
    pub first: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Message {
    /// Returns the status of a response.
    #[track_caller]
    pub fn status(&self) -> u16 {
        let word = self.first.split(' ').nth(1).unwrap_or("");
        word.parse().unwrap_or_else(|_| panic!("not a status line: {:?}", self.first))
    }

    /// Returns the method of a request.
    pub fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or("")
    }

    /// Returns the target of a request.
    pub fn target(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or("")
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn chunked(&self) -> bool {
        self.field("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"))
    }

    fn length(&self) -> Option<usize> {
        self.field("content-length").map(|v| v.parse().expect("content-length"))
    }
}

impl Wire {
    pub fn connect(to: SocketAddr) -> io::Result<Self> {
        Ok(Wire::new(TcpStream::connect_timeout(&to, PATIENCE)?))
    }

    pub fn new(tcp: TcpStream) -> Self {
        let stream = Box::new(tcp.try_clone().unwrap());
        Wire::over(tcp, stream)
    }

    /// Returns a TLS stream over a clone of `tcp`.
    pub fn over(tcp: TcpStream, stream: Box<impl Read + Write + Send + 'static>) -> Self {
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_write_timeout(Some(PATIENCE)).unwrap();
        tcp.set_nodelay(true).unwrap();
        Wire { stream, tcp, held: Vec::new() }
    }

    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Returns a second handle for another thread; plain connections only.
    pub fn clone_plain(&self) -> Wire {
        Wire::new(self.tcp.try_clone().unwrap())
    }

    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    /// Ends this side's direction.
    pub fn half_close(&self) {
        let _ = self.tcp.shutdown(Shutdown::Write);
    }

    /// Ends the connection with a RST instead of a FIN.
    pub fn reset(self) {
        socket2::SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Waits until the other side resets the connection, also after its orderly end.
    pub fn wait_reset(&self) {
        wait_for("a reset", || self.tcp.take_error().unwrap().is_some());
    }

    /// Reads some bytes; 0 at the end.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.held.is_empty() {
            let n = self.held.len().min(buffer.len());
            buffer[..n].copy_from_slice(&self.held[..n]);
            self.held.drain(..n);
            return Ok(n);
        }
        loop {
            match self.stream.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    pub fn read_exact(&mut self, n: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; n];
        let mut have = 0;
        while have < n {
            match self.read_some(&mut bytes[have..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                got => have += got,
            }
        }
        Ok(bytes)
    }

    /// Reads everything up to the end.
    pub fn read_rest(&mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.read_some(&mut buffer)? {
                0 => return Ok(all),
                n => all.extend_from_slice(&buffer[..n]),
            }
        }
    }

    /// Reads up to and including a mark. An error if the end comes first.
    pub fn read_until(&mut self, mark: &[u8]) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 4096];
        let mut from = 0;
        loop {
            let at = self.held[from..].windows(mark.len()).position(|w| w == mark);
            if let Some(at) = at {
                return Ok(self.held.drain(..from + at + mark.len()).collect());
            }
            from = self.held.len().saturating_sub(mark.len() - 1);
            match self.stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.held.extend_from_slice(&buffer[..n]),
            }
        }
    }

    /// Reads one line without its end.
    pub fn read_line(&mut self) -> io::Result<String> {
        let line = self.read_until(b"\n")?;
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Reads a message's head. Its body stays unread.
    pub fn read_head(&mut self) -> io::Result<Message> {
        let bytes = self.read_until(b"\r\n\r\n")?;
        let text = String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut lines = text.trim_end().split("\r\n");
        let mut message = Message { first: lines.next().unwrap().into(), ..Message::default() };
        for line in lines {
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            message.fields.push((name.to_owned(), value.trim().to_owned()));
        }
        Ok(message)
    }

    /// Reads a complete request.
    pub fn read_request(&mut self) -> io::Result<Message> {
        let mut message = self.read_head()?;
        message.body = match message.chunked() {
            true => self.read_chunks()?,
            false => self.read_exact(message.length().unwrap_or(0))?,
        };
        Ok(message)
    }

    /// Reads a complete response to a request of that method. Interim ones are skipped.
    pub fn read_response(&mut self, method: &str) -> io::Result<Message> {
        loop {
            let mut message = self.read_head()?;
            let status = message.status();
            if status < 200 && status != 101 {
                continue;
            }
            let bodiless = method == "HEAD" || [101, 204, 304].contains(&status);
            message.body = match (bodiless, message.chunked(), message.length()) {
                (true, ..) => Vec::new(),
                (_, true, _) => self.read_chunks()?,
                (_, _, Some(n)) => self.read_exact(n)?,
                _ => self.read_rest()?,
            };
            return Ok(message);
        }
    }

    /// Reads one chunk's data; empty for the last one, with its trailers read.
    pub fn read_chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = self.read_line()?;
        let size = line.split(';').next().unwrap_or("").trim();
        let n = usize::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        if n == 0 {
            while !self.read_line()?.is_empty() {}
            return Ok(Vec::new());
        }
        let chunk = self.read_exact(n)?;
        if self.read_exact(2)? != b"\r\n" {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(chunk)
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            match self.read_chunk()? {
                chunk if chunk.is_empty() => return Ok(body),
                chunk => body.extend_from_slice(&chunk),
            }
        }
    }

    /// Sends a response with a length.
    pub fn respond(&mut self, status: &str, fields: &str, body: &[u8]) -> io::Result<()> {
        let n = body.len();
        let mut bytes =
            format!("HTTP/1.1 {status}\r\nContent-Length: {n}\r\n{fields}\r\n").into_bytes();
        bytes.extend_from_slice(body);
        self.write(bytes)
    }
}
