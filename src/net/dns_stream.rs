//! DNS over TCP (RFC 1035 section 4.2.2) and over TLS (RFC 7858): one resolver, one connection,
//! one reply. The choice of resolvers is in [`super::resolver`].

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use super::dial;
use super::dns::{DnsReply, MAX_REPLY_BYTES, Query};
use super::timed_stream::TimedStream;
use crate::sys;
use crate::time::Deadline;
use crate::tls::client;

/// Queries both kinds of addresses on a connection.
pub(super) fn query(
    tcp: TcpStream,
    server: SocketAddr,
    name: &str,
    secure: bool,
    deadline: Deadline,
) -> io::Result<Vec<IpAddr>> {
    let queries =
        Query::pair(name, sys::random_seed()).ok_or_else(|| io::Error::other("not a host name"))?;
    let mut stream = TimedStream::new(tcp, deadline);
    if secure {
        stream = stream.secure(&server.ip().to_string(), client::unverified_config()?)?;
    }
    let both = queries.iter().flat_map(Query::tcp_message).collect::<Vec<u8>>();
    stream.write_all(&both)?;
    stream.flush()?;
    let mut found = Vec::new();
    for _ in 0..queries.len() {
        let message = match read_message(&mut stream) {
            Ok(message) => message,
            Err(_) if !found.is_empty() => break,
            Err(e) => return Err(e),
        };
        for reply in queries.iter().filter_map(|q| q.read(&message).ok()) {
            if let DnsReply::Addresses(list) = reply {
                found.extend(list);
            }
        }
    }
    if found.is_empty() {
        return Err(io::Error::other("no such address"));
    }
    dial::ipv6_first(&mut found);
    Ok(found)
}

/// Repeats a query over TCP, after a truncated reply.
pub(super) fn retry(
    query: &Query,
    server: SocketAddr,
    interface: &str,
    deadline: Deadline,
) -> Result<DnsReply, String> {
    let ask = || -> io::Result<DnsReply> {
        let tcp = dial::race(&[server], dial::interface_to(interface, server), deadline)?;
        let mut stream = TimedStream::new(tcp, deadline);
        stream.write_all(&query.tcp_message())?;
        stream.flush()?;
        let message = read_message(&mut stream)?;
        Ok(query.read(&message).unwrap_or(DnsReply::Failed(0)))
    };
    ask().map_err(|e| format!("over TCP: {e}"))
}

fn read_message(stream: &mut TimedStream) -> io::Result<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(len)).min(MAX_REPLY_BYTES)];
    stream.read_exact(&mut message)?;
    Ok(message)
}
