//! Scripted end of a session: an edge or an agent that may break the rules. Frames are written
//! by hand here, not by the library's muxer, so that one mistake cannot hide another. Byte
//! layout: protocol 2.1.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, HandshakeKind, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::agent::{self, Builder};
use super::certs::{self, Authority};
use super::process::plant_secret;
use super::{PATIENCE, TempDir, announce_failures, until};

pub const RST: u8 = 0;
pub const DATA: u8 = 1;
pub const WNDINC: u8 = 2;
pub const GOAWAY: u8 = 3;
pub const FIN: u8 = 1;
pub const SYN: u8 = 2;

pub const AUTH: u32 = 0;
pub const BIND: u32 = 1;
pub const PROXY: u32 = 3;
pub const HEARTBEAT: u32 = 0xffff_ffff;

/// Authtoken in the configuration of agents for a scripted edge.
const TOKEN: &str = "planted-authtoken-of-scripted-edges";

/// One frame.
#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// Returns the bytes of a frame with any length in its header.
pub fn frame(kind: u8, flags: u8, stream: u32, length: usize, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (length as u32).to_be_bytes()[1..].to_vec();
    bytes.push(kind << 4 | flags);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// Scripted end of a session, after TLS.
pub struct Session {
    stream: Box<dyn Duplex>,
    pub tcp: TcpStream,
    /// Types of the streams that the other side opened.
    kinds: BTreeMap<u32, u32>,
    /// Bytes of the streams that the other side opened, without the type.
    bytes: BTreeMap<u32, Vec<u8>>,
    next: u32,
    /// Whether heartbeats are echoed.
    pub echo: bool,
    /// Whether the handshake resumed an earlier session.
    pub resumed: bool,
}

impl Session {
    fn new(tcp: TcpStream, stream: Box<dyn Duplex>, first: u32) -> Self {
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_write_timeout(Some(PATIENCE)).unwrap();
        let (kinds, bytes) = (BTreeMap::new(), BTreeMap::new());
        Session { stream, tcp, kinds, bytes, next: first, echo: true, resumed: false }
    }

    /// Connects to an edge as an agent.
    pub fn connect(to: SocketAddr, ca: &std::path::Path) -> Self {
        announce_failures();
        let tcp = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
        let name = ServerName::IpAddress(to.ip().into());
        let session = ClientConnection::new(certs::client(ca), name).unwrap();
        let stream = StreamOwned::new(session, tcp.try_clone().unwrap());
        Session::new(tcp, Box::new(stream), 3)
    }

    /// Writes raw bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.write(&frame(kind, flags, stream, payload.len(), payload))
    }

    /// Opens a stream of a type with first bytes.
    pub fn open(&mut self, kind: u32, first: &[u8]) -> u32 {
        let stream = self.next;
        self.next += 2;
        let payload = [&kind.to_be_bytes(), first].concat();
        self.send(DATA, SYN, stream, &payload).unwrap();
        stream
    }

    /// Receives the next frame. Heartbeats are echoed (see `echo`) and returned too.
    pub fn receive(&mut self) -> io::Result<Frame> {
        let mut head = [0; 8];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload)?;
        let frame = Frame { kind: head[3] >> 4, flags: head[3] & 15, stream, payload };
        self.note(&frame)?;
        Ok(frame)
    }

    fn note(&mut self, frame: &Frame) -> io::Result<()> {
        if frame.kind != DATA {
            return Ok(());
        }
        let mut payload = &frame.payload[..];
        if frame.flags & SYN != 0 && payload.len() >= 4 {
            let (kind, rest) = payload.split_at(4);
            self.kinds.insert(frame.stream, u32::from_be_bytes(kind.try_into().unwrap()));
            payload = rest;
        }
        if self.kinds.get(&frame.stream) == Some(&HEARTBEAT) {
            if self.echo && !payload.is_empty() {
                self.send(DATA, 0, frame.stream, payload)?;
            }
        } else {
            self.bytes.entry(frame.stream).or_default().extend_from_slice(payload);
        }
        Ok(())
    }

    /// Waits for a matching frame and skips the others.
    #[track_caller]
    pub fn wait(&mut self, what: &str, mut fits: impl FnMut(&Frame) -> bool) -> Frame {
        let start = Instant::now();
        let mut seen = Vec::new();
        loop {
            match self.receive() {
                Ok(frame) if fits(&frame) => return frame,
                Ok(frame) => seen.push((frame.kind, frame.flags, frame.stream)),
                Err(e) => panic!("waiting for {what}: {e}; frames before: {seen:?}"),
            }
            assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        }
    }

    /// Reads to the end of the session. Returns the code of the last GOAWAY, if there was one.
    pub fn wait_end(&mut self) -> Option<u32> {
        let start = Instant::now();
        let mut code = None;
        while start.elapsed() < PATIENCE {
            match self.receive() {
                Ok(frame) if frame.kind == GOAWAY => {
                    code = Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
                }
                Ok(_) => {}
                Err(e) => {
                    let late = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
                    assert!(!late.contains(&e.kind()), "the session did not end: {e}");
                    return code;
                }
            }
        }
        panic!("the session did not end");
    }

    /// Waits for a call of that type. Returns its stream and its request.
    #[track_caller]
    pub fn wait_call(&mut self, kind: u32) -> (u32, Value) {
        let start = Instant::now();
        loop {
            for (stream, _) in self.kinds.iter().filter(|(_, k)| **k == kind) {
                let bytes = self.bytes.get(stream).map_or(&[][..], Vec::as_slice);
                let mut values = serde_json::Deserializer::from_slice(bytes).into_iter();
                if let Some(Ok(value)) = values.next() {
                    let stream = *stream;
                    self.kinds.remove(&stream);
                    self.bytes.remove(&stream);
                    return (stream, value);
                }
            }
            assert!(start.elapsed() < PATIENCE, "waited in vain for a call of type {kind}");
            self.receive().unwrap_or_else(|e| panic!("waiting for a call of type {kind}: {e}"));
        }
    }

    /// Answers a call and ends its stream.
    pub fn answer(&mut self, stream: u32, response: &Value) {
        self.send(DATA, 0, stream, response.to_string().as_bytes()).unwrap();
        self.send(DATA, FIN, stream, b"").unwrap();
    }

    /// Makes a call and returns its response.
    #[track_caller]
    pub fn call(&mut self, kind: u32, request: &Value) -> Value {
        let stream = self.open(kind, request.to_string().as_bytes());
        self.response(kind, stream)
    }

    /// Waits for the response to a call that was begun with [`Session::open`].
    #[track_caller]
    pub fn response(&mut self, kind: u32, stream: u32) -> Value {
        let start = Instant::now();
        loop {
            let bytes = self.bytes.get(&stream).map_or(&[][..], Vec::as_slice);
            let mut values = serde_json::Deserializer::from_slice(bytes).into_iter();
            if let Some(Ok(value)) = values.next() {
                return value;
            }
            assert!(start.elapsed() < PATIENCE, "no answer to a call of type {kind}");
            self.receive().unwrap_or_else(|e| panic!("call of type {kind}: {e}"));
        }
    }

    /// Opens a visitor's stream: header (protocol 6.1) and first bytes.
    pub fn visit(&mut self, endpoint: &str, proto: &str, first: &[u8]) -> u32 {
        let header = json!({
            "Id": endpoint, "ClientAddr": "192.0.2.7:50000", "Proto": proto,
            "EdgeType": "0", "PassthroughTLS": false,
        })
        .to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(first);
        self.open(PROXY, &bytes)
    }

    /// Returns the bytes that were received on a stream of this side.
    pub fn received(&self, stream: u32) -> &[u8] {
        self.bytes.get(&stream).map_or(&[], Vec::as_slice)
    }

    /// Accepts an agent: Auth and a Bind for each URL.
    #[track_caller]
    pub fn welcome(&mut self, urls: &[&str]) {
        let (stream, _) = self.wait_call(AUTH);
        self.answer(stream, &auth_response());
        for (n, url) in urls.iter().enumerate() {
            let (stream, request) = self.wait_call(BIND);
            self.answer(stream, &bind_response(&request, &format!("b{n}"), url));
        }
    }
}

/// Returns a response that accepts an agent.
pub fn auth_response() -> Value {
    json!({"Version": "3", "ClientId": "client-1", "Error": "",
           "Extra": {"Version": "1", "Region": "test", "Cookie": "planted-cookie-of-tests"}})
}

/// Returns a response that grants an endpoint.
pub fn bind_response(request: &Value, id: &str, url: &str) -> Value {
    let id = request["Id"].as_str().filter(|id| !id.is_empty()).unwrap_or(id);
    json!({"Id": id, "URL": url, "Proto": request["Proto"], "Opts": request["Opts"],
           "Error": "", "Extra": {"Token": "planted-bind-token", "TunnelID": "t"}})
}

/// A listener that is an edge for agents, and their configuration for it.
pub struct BadEdge {
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    dir: TempDir,
}

impl BadEdge {
    pub fn new() -> Self {
        let authority = Authority::new();
        let tls = authority.server(&[]);
        BadEdge::with(&authority, tls)
    }

    /// Returns an edge with another certificate. Agents trust the CA.
    pub fn with(authority: &Authority, tls: Arc<ServerConfig>) -> Self {
        BadEdge::trusted_by(authority.pem(), tls)
    }

    /// Returns an edge with a CA from a file.
    pub fn of_file(ca: &std::path::Path, tls: Arc<ServerConfig>) -> Self {
        BadEdge::trusted_by(&std::fs::read_to_string(ca).unwrap(), tls)
    }

    fn trusted_by(ca: &str, tls: Arc<ServerConfig>) -> Self {
        announce_failures();
        for secret in [TOKEN, "planted-cookie-of-tests", "planted-bind-token"] {
            plant_secret(secret);
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let dir = TempDir::new();
        dir.write("ca.pem", ca);
        BadEdge { listener, tls, dir }
    }

    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Returns the directory of this test.
    pub fn dir(&self) -> &TempDir {
        &self.dir
    }

    /// Returns the CA that signed its certificate.
    pub fn ca(&self) -> std::path::PathBuf {
        self.dir.join("ca.pem")
    }

    /// Returns an agent for this edge, with further lines below `agent:`.
    pub fn agent(&self, args: &[&str], lines: &str) -> Builder {
        self.agent_at(&self.addr().to_string(), args, lines)
    }

    /// Returns an agent with another form of the edge's address.
    pub fn agent_at(&self, url: &str, args: &[&str], lines: &str) -> Builder {
        let config = format!(
            "version: \"3\"\nagent:\n  authtoken: {TOKEN}\n  connect_url: {url}\n  \
             connect_cas: {}\n{lines}",
            self.ca().display(),
        );
        // Several agents may use one configuration, with its cache beside it.
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("agent-{}/agent.yml", NEXT.fetch_add(1, Ordering::Relaxed));
        agent::agent(&self.dir.write(&name, config), args)
    }

    /// Accepts the next TCP connection, before TLS.
    #[track_caller]
    pub fn accept_tcp(&self) -> TcpStream {
        until("the agent connects", || self.try_accept_tcp())
    }

    /// Accepts the next TCP connection, if there is one.
    pub fn try_accept_tcp(&self) -> Option<TcpStream> {
        let (tcp, _) = self.listener.accept().ok()?;
        tcp.set_nonblocking(false).unwrap();
        tcp.set_nodelay(true).unwrap();
        Some(tcp)
    }

    /// Accepts the next connection, with TLS.
    #[track_caller]
    pub fn accept(&self) -> Session {
        self.try_accept().expect("TLS handshake with the agent")
    }

    /// Accepts the next connection, if its TLS handshake succeeds.
    pub fn try_accept(&self) -> io::Result<Session> {
        self.handshake(self.accept_tcp())
    }

    /// Makes the TLS handshake on a connection.
    pub fn handshake(&self, tcp: TcpStream) -> io::Result<Session> {
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut session = ServerConnection::new(self.tls.clone()).unwrap();
        let mut socket = tcp.try_clone().unwrap();
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        let made = Session::new(tcp, Box::new(StreamOwned::new(session, socket)), 2);
        Ok(Session { resumed, ..made })
    }
}
