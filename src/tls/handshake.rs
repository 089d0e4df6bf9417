//! Handshake of either side, over a blocking socket and with a deadline, and the resulting
//! connection: keys, and bytes that were received early. The accepted certificates are decided
//! in [`super::client`] and [`super::server`].

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustls::ExtractedSecrets;
use rustls::unbuffered::{
    ConnectionState, EncodeError, UnbufferedConnectionCommon, UnbufferedStatus,
};

use super::error::{HANDSHAKE_RECORD, explain, invalid, not_tls};
use super::key_update::KeySchedule;
use super::records::{Opener, Sealer};
use crate::sys;
use crate::time::{Deadline, Instant};

/// Bytes of the handshake that may wait unparsed: the largest flight of a regular peer.
const MAX_FLIGHT_BYTES: usize = 256 * 1024;

/// A connection after its handshake, still in blocking mode.
pub struct Established {
    /// TCP connection without timeouts.
    pub socket: TcpStream,
    /// Encrypts sent records.
    pub sealer: Sealer,
    /// Decrypts received records.
    pub opener: Opener,
    /// Key updates and tickets.
    pub kernel: KeySchedule,
    /// Application data that was received with the handshake.
    pub early: Vec<u8>,
    /// Records received after the handshake, not decrypted yet.
    pub leftover: Vec<u8>,
}

/// Method of the library that processes received records, for either side.
pub(super) type Process<Data> = for<'c, 'i> fn(
    &'c mut UnbufferedConnectionCommon<Data>,
    &'i mut [u8],
) -> UnbufferedStatus<'c, 'i, Data>;

/// Makes the handshake. Returns the application data that was received with it, and the records
/// after it.
pub(super) fn run<Data>(
    socket: &mut TcpStream,
    conn: &mut UnbufferedConnectionCommon<Data>,
    process: Process<Data>,
    deadline: Deadline,
) -> io::Result<(Vec<u8>, Vec<u8>)> {
    // The stream may be a local socket instead of TCP, behind a proxy.
    let _ = socket.set_nodelay(true);
    // First bytes of the peer, for the error if they are not TLS.
    let mut first = Vec::new();
    let mut incoming = Vec::new();
    let mut outgoing: Vec<u8> = Vec::new();
    let mut early = Vec::new();
    loop {
        let UnbufferedStatus { mut discard, state } = process(conn, &mut incoming);
        let mut established = false;
        let mut needs_bytes = false;
        match state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                encode(&mut outgoing, |out| data.encode(out))?
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                send(socket, &mut outgoing, deadline)?;
                data.done();
            }
            Ok(ConnectionState::BlockedHandshake) => needs_bytes = true,
            Ok(ConnectionState::WriteTraffic(_)) => established = true,
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(explain)?;
                    discard += record.discard;
                    early.extend_from_slice(record.payload);
                }
            }
            Ok(_) => return Err(eof()),
            Err(e) => {
                incoming.drain(..discard);
                send_alert(socket, conn, process, &mut incoming, &mut outgoing);
                let is_tls = first.first() == Some(&HANDSHAKE_RECORD);
                return Err(match e {
                    rustls::Error::InvalidMessage(_) if !is_tls => not_tls(&first),
                    e => explain(e),
                });
            }
        }
        incoming.drain(..discard);
        if established {
            break;
        }
        if needs_bytes {
            receive(socket, &mut incoming, deadline)?;
            if first.is_empty() {
                first.extend_from_slice(&incoming[..incoming.len().min(64)]);
            }
        }
    }
    socket.set_read_timeout(None)?;
    socket.set_write_timeout(None)?;
    Ok((early, incoming))
}

/// Sends the alert of the library after an error, if the peer still reads. It is requested
/// once, with the bytes that are left, because the library stores its position in them and must
/// not process the error again.
fn send_alert<Data>(
    socket: &mut TcpStream,
    conn: &mut UnbufferedConnectionCommon<Data>,
    process: Process<Data>,
    incoming: &mut [u8],
    outgoing: &mut Vec<u8>,
) {
    if let Ok(ConnectionState::EncodeTlsData(mut data)) = process(conn, incoming).state {
        let _ = encode(outgoing, |out| data.encode(out));
    }
    let _ = socket.write_all(outgoing);
}

fn send(socket: &mut TcpStream, outgoing: &mut Vec<u8>, deadline: Deadline) -> io::Result<()> {
    socket.set_write_timeout(Some(time_left(deadline)?))?;
    socket.write_all(outgoing).map_err(timed_out)?;
    outgoing.clear();
    Ok(())
}

pub(super) fn established(
    socket: TcpStream,
    secrets: &ExtractedSecrets,
    kernel: KeySchedule,
    (early, leftover): (Vec<u8>, Vec<u8>),
) -> io::Result<Established> {
    let (tx, rx) = (&secrets.tx, &secrets.rx);
    match (Sealer::new(tx.0, &tx.1), Opener::new(rx.0, &rx.1)) {
        (Some(sealer), Some(opener)) => {
            Ok(Established { socket, sealer, opener, kernel, early, leftover })
        }
        _ => Err(invalid("the TLS library chose an unknown cipher")),
    }
}

fn encode(
    outgoing: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> io::Result<()> {
    let used = outgoing.len();
    let mut room = 4_096;
    loop {
        outgoing.resize(used + room, 0);
        match write(&mut outgoing[used..]) {
            Ok(n) => {
                outgoing.truncate(used + n);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size)) if size.required_size > room => {
                room = size.required_size;
            }
            Err(e) => return Err(invalid(e.to_string())),
        }
    }
}

fn receive(socket: &mut TcpStream, incoming: &mut Vec<u8>, deadline: Deadline) -> io::Result<()> {
    if incoming.len() > MAX_FLIGHT_BYTES {
        return Err(invalid("the TLS handshake of the peer is too large"));
    }
    socket.set_read_timeout(Some(time_left(deadline)?))?;
    let used = incoming.len();
    incoming.resize(used + 4_096, 0);
    let n = socket.read(&mut incoming[used..]).map_err(timed_out)?;
    incoming.truncate(used + n);
    if n == 0 { Err(eof()) } else { Ok(()) }
}

/// Returns the time until `deadline`, at least a millisecond because of sockets. An error if it
/// has passed.
pub(crate) fn time_left(deadline: Deadline) -> io::Result<Duration> {
    let now: Instant = sys::clock();
    match deadline.left(now) {
        None => Ok(Duration::from_secs(3_600)),
        Some(left) if left.is_zero() => Err(late()),
        Some(left) => Ok(left.max(Duration::from_millis(1))),
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

fn eof() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the peer closed the connection during the TLS handshake",
    )
}

pub(crate) fn timed_out(e: io::Error) -> io::Error {
    match e.kind() {
        // The kernel's errors for a timeout.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => late(),
        // The error after a peer that closed with unread bytes.
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => eof(),
        _ => e,
    }
}
