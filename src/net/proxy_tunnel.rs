//! Tunnel through an HTTP or SOCKS5 proxy: connects to it, requests the destination, and
//! returns the connection. The messages to the proxy are in [`super::http_connect`] and
//! [`super::socks5`], the choice of the proxy is in [`super::proxy_env`].

use std::io::{self, Read, Write};
use std::net::TcpStream;

use super::bridge;
use super::http_connect::{self, ConnectReader};
use super::proxy_env::{Proxy, ProxyScheme};
use super::socks5::{Socks5, SocksAction};
use super::timed_stream::TimedStream;
use crate::config::Cas;
use crate::time::Deadline;
use crate::tls::client;

/// Opens a tunnel to `host:port` through a proxy. `direct` connects to the proxy.
pub(super) fn open(
    proxy: &Proxy,
    direct: &dyn Fn(&str, u16, Deadline) -> io::Result<TcpStream>,
    host: &str,
    port: u16,
    deadline: Deadline,
) -> io::Result<TcpStream> {
    let tunnel = || {
        let mut stream = TimedStream::new(direct(&proxy.host, proxy.port, deadline)?, deadline);
        if proxy.scheme == ProxyScheme::Https {
            stream = stream.secure(&proxy.host, client::web_config(&Cas::Host)?)?;
        }
        match proxy.scheme {
            ProxyScheme::Http | ProxyScheme::Https => {
                connect_by_http(&mut stream, proxy, host, port)?
            }
            ProxyScheme::Socks5 => connect_by_socks(&mut stream, proxy, host, port)?,
        }
        let (tcp, outer) = stream.into_parts();
        tcp.set_read_timeout(None)?;
        tcp.set_write_timeout(None)?;
        match outer {
            None => Ok(tcp),
            Some(conn) => bridge::start(tcp, conn),
        }
    };
    tunnel().map_err(|e: io::Error| io::Error::new(e.kind(), format!("proxy {proxy}: {e}")))
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Reads bytes of the proxy. Its end is an error.
fn read_reply<'b>(stream: &mut TimedStream, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
    match stream.read(buffer) {
        Ok(0) => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "it closed the connection within its response",
        )),
        // Reason for the index: a reader returns at most the length it was given.
        Ok(n) => Ok(&buffer[..n]),
        Err(e) => Err(e),
    }
}

fn connect_by_http(
    stream: &mut TimedStream,
    proxy: &Proxy,
    host: &str,
    port: u16,
) -> io::Result<()> {
    let request = http_connect::request(host, port, proxy.login.as_ref());
    stream.write_all(request.expose().as_bytes())?;
    stream.flush()?;
    let mut reader = ConnectReader::new(proxy.login.is_some());
    let mut piece = [0; 512];
    while !reader.feed(read_reply(stream, &mut piece)?).map_err(invalid)? {}
    Ok(())
}

fn connect_by_socks(
    stream: &mut TimedStream,
    proxy: &Proxy,
    host: &str,
    port: u16,
) -> io::Result<()> {
    let (mut client, hello) = Socks5::new(host, port, proxy.login.as_ref()).ok_or_else(|| {
        invalid("the edge's name, the user or the password is too long for SOCKS5".to_owned())
    })?;
    stream.write_all(&hello)?;
    stream.flush()?;
    let mut piece = [0; 512];
    loop {
        match client.feed(read_reply(stream, &mut piece)?).map_err(invalid)? {
            SocksAction::Read => {}
            SocksAction::Write(bytes) => {
                stream.write_all(&bytes)?;
                stream.flush()?;
            }
            SocksAction::Done => return Ok(()),
        }
    }
}
