//! DNS server on loopback with scripted replies, over UDP and TCP on one port. Messages are
//! written by hand here, not by the library.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// Type of a question for IPv4 addresses.
pub const A: u16 = 1;
/// Type of a question for IPv6 addresses.
pub const AAAA: u16 = 28;

/// A received question.
pub struct Asked {
    pub name: String,
    pub kind: u16,
    /// Whether it came over TCP, or over a layer of the test above it.
    pub stream: bool,
    /// Number of questions before this one.
    pub before: usize,
    message: Vec<u8>,
}

impl Asked {
    fn read(message: &[u8], stream: bool, before: usize) -> Option<Self> {
        let mut name = String::new();
        let mut at = 12;
        loop {
            let len = usize::from(*message.get(at)?);
            if len == 0 {
                break;
            }
            let label = message.get(at + 1..at + 1 + len)?;
            name = format!("{name}.{}", String::from_utf8_lossy(label));
            at += 1 + len;
        }
        let kind = u16::from_be_bytes([*message.get(at + 1)?, *message.get(at + 2)?]);
        let name = name.trim_start_matches('.').to_owned();
        Some(Asked { name, kind, stream, before, message: message.to_vec() })
    }

    fn reply(&self, flags: u16, records: &[Vec<u8>]) -> Vec<u8> {
        let mut reply = self.message.clone();
        reply[2..4].copy_from_slice(&flags.to_be_bytes());
        reply[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        reply.extend(records.concat());
        reply
    }

    /// Returns a reply with the addresses of the requested kind.
    pub fn addresses(&self, list: &[&str]) -> Vec<u8> {
        let mut records = Vec::new();
        for ip in list {
            let (kind, data) = match ip.parse().unwrap() {
                IpAddr::V4(ip) => (A, ip.octets().to_vec()),
                IpAddr::V6(ip) => (AAAA, ip.octets().to_vec()),
            };
            if kind == self.kind {
                let len = (data.len() as u16).to_be_bytes();
                // The name of the question, class Internet, a time to live of a minute.
                let head = [&[0xc0, 12][..], &kind.to_be_bytes(), &[0, 1, 0, 0, 0, 60], &len];
                records.push([head.concat(), data].concat());
            }
        }
        self.reply(0x8180, &records)
    }

    /// Returns a refusal with a code: 2 SERVFAIL, 3 NXDOMAIN, 5 REFUSED.
    pub fn code(&self, code: u16) -> Vec<u8> {
        self.reply(0x8180 | code, &[])
    }

    /// Returns a reply that is too large for a datagram.
    pub fn truncated(&self) -> Vec<u8> {
        self.reply(0x8380, &[])
    }
}

/// Script of a server: returns the replies to a question.
pub type Script = dyn Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync;

/// A DNS server. It runs as long as the test's process.
#[derive(Clone)]
pub struct FakeDns {
    pub addr: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl FakeDns {
    pub fn start(script: impl Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        FakeDns::slow(Duration::ZERO, script)
    }

    /// Starts a server that replies with a delay.
    pub fn slow(
        delay: Duration,
        script: impl Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        FakeDns::over(delay, script, |tcp, serve| serve(&mut &tcp))
    }

    /// Starts a server with a layer of the test between TCP and the messages.
    pub fn over(
        delay: Duration,
        script: impl Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync + 'static,
        wrap: impl Fn(TcpStream, &dyn Fn(&mut dyn Duplex)) + Send + Sync + 'static,
    ) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let addr = udp.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let script: Arc<Script> = Arc::new(script);
        {
            let (asked, script) = (asked.clone(), script.clone());
            thread::spawn(move || {
                let mut buffer = [0; 1_500];
                while let Ok((n, from)) = udp.recv_from(&mut buffer) {
                    let before = asked.fetch_add(1, Ordering::SeqCst);
                    let Some(question) = Asked::read(&buffer[..n], false, before) else { continue };
                    let (script, udp) = (script.clone(), udp.try_clone().unwrap());
                    thread::spawn(move || {
                        think(delay);
                        for message in script(&question) {
                            let _ = udp.send_to(&message, from);
                        }
                    });
                }
            });
        }
        {
            let asked = asked.clone();
            let wrap = Arc::new(wrap);
            thread::spawn(move || {
                for stream in tcp.incoming().flatten() {
                    let (asked, script, wrap) = (asked.clone(), script.clone(), wrap.clone());
                    thread::spawn(move || {
                        wrap(stream, &|stream| _ = serve(stream, &asked, &*script));
                    });
                }
            });
        }
        FakeDns { addr, asked }
    }

    /// Returns the number of received questions.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

pub trait Duplex: Read + Write {}
impl<T: Read + Write> Duplex for T {}

fn serve(stream: &mut dyn Duplex, asked: &AtomicUsize, script: &Script) -> std::io::Result<()> {
    loop {
        let mut len = [0; 2];
        stream.read_exact(&mut len)?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut message)?;
        let before = asked.fetch_add(1, Ordering::SeqCst);
        let Some(question) = Asked::read(&message, true, before) else { continue };
        for reply in script(&question) {
            stream.write_all(&(reply.len() as u16).to_be_bytes())?;
            stream.write_all(&reply)?;
            stream.flush()?;
        }
    }
}

/// Waits, as a slow server does.
fn think(delay: Duration) {
    if !delay.is_zero() {
        let (_keep, never) = mpsc::channel::<()>();
        let _ = never.recv_timeout(delay);
    }
}
