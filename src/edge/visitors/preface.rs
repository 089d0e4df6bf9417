//! First bytes of a visitor's connection, before it is known how the connection is served: the
//! PROXY header of a trusted proxy, and the ClientHello.

use std::io::{self, Read};
use std::net::TcpStream;
use std::time::Duration;

use super::origin::ConnectionOrigin;
use super::sni::{self, Hello};
use crate::edge::proxies::TrustedProxies;
use crate::proto::proxy_protocol::decode::decode;
use crate::sys;
use crate::time::Deadline;

/// Bytes read at once.
const READ_BYTES: usize = 4096;

/// Reads the PROXY header of a connection whose peer must send one. Appends to `bytes` what
/// has come behind the header. The error for a malformed header is `InvalidData`.
pub fn read_proxy_header(
    socket: &TcpStream,
    origin: ConnectionOrigin,
    proxies: &TrustedProxies,
    deadline: Deadline,
    bytes: &mut Vec<u8>,
) -> io::Result<ConnectionOrigin> {
    loop {
        match decode(bytes) {
            Ok(None) => read_more(socket, bytes, deadline)?,
            Ok(Some(header)) => {
                bytes.drain(..header.len);
                return Ok(origin.proxied(proxies, &header));
            }
            Err(e) => return Err(io::Error::new(io::ErrorKind::InvalidData, e)),
        }
    }
}

/// Reads until the ClientHello in `bytes` is complete.
pub fn read_hello(
    socket: &TcpStream,
    deadline: Deadline,
    bytes: &mut Vec<u8>,
) -> io::Result<Hello> {
    loop {
        match sni::read(bytes) {
            Hello::Incomplete if bytes.len() < 2 * sni::MAX_HELLO_BYTES => {}
            Hello::Incomplete => return Ok(Hello::NotTls),
            hello => return Ok(hello),
        }
        read_more(socket, bytes, deadline)?;
    }
}

/// Appends the next bytes of the visitor. Fails at the end of the connection.
fn read_more(mut socket: &TcpStream, bytes: &mut Vec<u8>, deadline: Deadline) -> io::Result<()> {
    let left = deadline.left(sys::clock()).unwrap_or_default();
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
    let used = bytes.len();
    bytes.resize(used + READ_BYTES, 0);
    let read = socket.read(&mut bytes[used..]);
    bytes.truncate(used + *read.as_ref().unwrap_or(&0));
    match read {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        // A signal, or the end of the time limit: the deadline decides.
        Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
            Ok(())
        }
        other => other.map(|_| ()),
    }
}
