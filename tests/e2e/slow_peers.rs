//! Many slow visitors and slow upstreams: each transfer arrives complete or ends with a reset
//! at both ends, nothing blocks, memory stays within the limits, and others are served in the
//! meantime.

use std::io;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::support::agent::{self, Agent};
use crate::support::process::plant_secret;
use crate::support::serve::Serve;
use crate::support::upstream::Upstream;
use crate::support::wire::Wire;
use crate::support::{Noise, Sum, proc, until_within, wait_for, wait_idle};

const TOKEN: &str = "2planted0credential0of0slow0peers_0123456789ABCDEFGHI";
const HOST: &str = "slow.tunnels.test";

/// More than the kernel buffers for a connection with small buffers.
const BODY_BYTES: usize = 6_000_000;

/// The kernel's buffers of a visitor and of a slow upstream.
const SOCKET_BUFFER_BYTES: usize = 64 * 1024;

/// Longer than any wait of a session for a reader.
const PAUSE: Duration = Duration::from_secs(6);

/// Time for all of a test's transfers on a busy machine.
const LONG: Duration = Duration::from_secs(120);

fn edge(limits: &str) -> Serve {
    plant_secret(TOKEN);
    let credential = format!("credentials: [{{id: a, authtoken: {TOKEN}}}]");
    Serve::start(&format!("{credential}\nlimits: {{{limits}}}\n"))
}

fn config(edge: &Serve, lines: &str) -> PathBuf {
    let config = edge.config("agent.yml", TOKEN);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("agent: {", &format!("agent: {{{lines}"))).unwrap();
    config
}

/// Number of moved bytes: constant when every transfer waits for its reader.
#[derive(Clone, Default)]
struct Moved(Arc<AtomicU64>);

impl Moved {
    fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    #[track_caller]
    fn wait_still(&self, pause: Duration) {
        let (mut last, mut since) = (0, Instant::now());
        until_within(LONG, "transfers to stand still", || {
            let now = self.0.load(Ordering::Relaxed);
            if now != last {
                (last, since) = (now, Instant::now());
            }
            (now > 0 && since.elapsed() >= pause).then_some(())
        });
    }
}

/// Segments as on a real network: loopback's of 64 KiB make large send buffers at the edge.
const SEGMENT_BYTES: u32 = 1460;

/// A connection whose buffers do not grow much, at both ends.
fn connect_small(to: std::net::SocketAddr) -> Wire {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES).unwrap();
    socket.set_tcp_mss(SEGMENT_BYTES).unwrap();
    socket.connect(&to.into()).unwrap();
    Wire::new(TcpStream::from(socket))
}

/// `/small` is a greeting. Everything else is [`BODY_BYTES`] of noise, delimited by the end of
/// the connection: a truncated body with an orderly end would look complete.
fn downloads(moved: &Moved) -> Upstream {
    let moved = moved.clone();
    Upstream::http(move |request, wire| {
        let Ok(seed) = request.target()[1..].parse() else {
            return wire.respond("200 OK", "", b"hello");
        };
        socket2::SockRef::from(wire.tcp()).set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
        wire.tcp().set_write_timeout(Some(LONG))?;
        wire.write("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
        for piece in Noise::bytes(seed, BODY_BYTES).chunks(16 * 1024) {
            wire.write(piece)?;
            moved.add(piece.len());
        }
        // The end of the body is the end of the connection.
        Err(io::ErrorKind::ConnectionAborted.into())
    })
}

/// A visitor in the middle of a download.
struct Download {
    wire: Wire,
    seed: u64,
    got: Sum,
    error: Option<io::Error>,
    ended: bool,
}

impl Download {
    fn start(edge: &Serve, seed: u64) -> Self {
        let mut wire = connect_small(edge.address("http_addr"));
        wire.tcp().set_read_timeout(Some(LONG)).unwrap();
        wire.write(format!("GET /{seed} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).unwrap();
        Download { wire, seed, got: Sum::new(), error: None, ended: false }
    }

    /// Reads the head. A visitor that was reset before gets none.
    fn head(&mut self) {
        match self.wire.read_head() {
            Ok(head) => assert_eq!(head.status(), 200, "{head:?}"),
            Err(error) => self.end(error),
        }
    }

    fn end(&mut self, error: io::Error) {
        (self.error, self.ended) = (Some(error), true);
    }

    fn read(&mut self, buffer: &mut [u8]) {
        match self.wire.read_some(buffer) {
            Ok(0) => self.ended = true,
            Ok(n) => self.got.add(&buffer[..n]),
            Err(error) => self.end(error),
        }
    }

    /// Reads the rest. Returns whether it is complete: an incomplete one has ended with a
    /// reset.
    #[track_caller]
    fn finish(mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        while !self.ended {
            self.read(&mut buffer);
        }
        if let Some(error) = self.error {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "download {}", self.seed);
            return false;
        }
        let mut whole = Sum::new();
        whole.add(&Noise::bytes(self.seed, BODY_BYTES));
        let (bytes, digest) = self.got.finish();
        assert!((bytes, digest) == whole.finish(), "{bytes} bytes and a clean end");
        true
    }
}

fn http_agent(edge: &Serve, upstream: &Upstream) -> Agent {
    let url = format!("http://{HOST}");
    let args = ["http", &upstream.port().to_string(), "--url", &url, "--max-connections", "450"];
    agent::agent(&config(edge, ""), args).start()
}

#[track_caller]
fn assert_served(edge: &Serve) {
    let mut wire = Wire::connect(edge.address("http_addr")).unwrap();
    wire.write(format!("GET /small HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).unwrap();
    assert_eq!(wire.read_response("GET").expect("an answer, not silence").text(), "hello");
}

#[test]
fn visitors_who_pause_in_a_download_get_all_of_it() {
    for (limits, all) in [("", true), ("session_buffer_mib: 1", false)] {
        let (edge, moved) = (edge(limits), Moved::default());
        let upstream = downloads(&moved);
        let _agent = http_agent(&edge, &upstream);
        let mut paused: Vec<_> = (0..24).map(|seed| Download::start(&edge, seed)).collect();
        paused.iter_mut().for_each(Download::head);
        moved.wait_still(PAUSE);
        // Buffers with the kernel's tuning may hold a whole body; most do not.
        assert!(!all || upstream.open() >= 18, "{} of 24 are paused", upstream.open());
        assert_served(&edge);
        let reading: Vec<_> =
            paused.into_iter().map(|download| thread::spawn(move || download.finish())).collect();
        let whole = reading.into_iter().map(|t| t.join().unwrap());
        let whole = whole.filter(|whole| *whole).count();
        eprintln!("{whole} of 24 downloads are whole with '{limits}'");
        assert!(whole > 0 && (!all || whole == 24), "{whole} of 24 with '{limits}'");
        wait_for("the upstream's connections to end", || upstream.open() == 0);
        assert_served(&edge);
    }
}

#[test]
fn steady_slow_readers_get_everything() {
    let (edge, moved) = (edge(""), Moved::default());
    let upstream = downloads(&moved);
    let _agent = http_agent(&edge, &upstream);
    let mut slow: Vec<_> = (0..24).map(|seed| Download::start(&edge, seed)).collect();
    slow.iter_mut().for_each(Download::head);
    let mut buffer = [0; 8 * 1024];
    while slow.iter().any(|download| !download.ended) {
        // A little of each, and a whole response for another visitor between.
        assert_served(&edge);
        for download in slow.iter_mut().filter(|download| !download.ended) {
            download.read(&mut buffer);
        }
    }
    assert!(slow.into_iter().all(Download::finish));
}

/// KiB in addition to the same visitors before their requests: the buffer, which uses up to
/// twice its bytes, and the overhead of the allocator.
const PAUSED_LIMIT_KIB: u64 = 3 * 4 * 1024;

#[test]
fn paused_visitors_take_no_more_memory_than_the_limit() {
    let (edge, moved) = (edge("session_buffer_mib: 4"), Moved::default());
    let upstream = downloads(&moved);
    let _agent = http_agent(&edge, &upstream);
    let idle: Vec<_> = (0..400)
        .map(|_| {
            let mut wire = connect_small(edge.address("http_addr"));
            wire.write(format!("GET /small HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).unwrap();
            assert_eq!(wire.read_response("GET").unwrap().text(), "hello");
            wire
        })
        .collect();
    let rest = proc::rss(edge.pid());
    drop(idle);
    wait_idle(edge.pid());
    let mut paused = Vec::new();
    for seed in 0..400 {
        let mut download = Download::start(&edge, seed);
        download.head();
        paused.push(download);
        if seed % 50 == 0 {
            assert_served(&edge);
        }
    }
    moved.wait_still(PAUSE);
    assert_served(&edge);
    let taken = proc::peak(edge.pid()).saturating_sub(rest);
    eprintln!("400 paused visitors: {rest} KiB without them, {taken} KiB more at most");
    assert!(taken <= PAUSED_LIMIT_KIB, "{taken} KiB beyond {rest} KiB");
    let whole = paused.into_iter().map(Download::finish).filter(|whole| *whole).count();
    eprintln!("{whole} of 400 downloads are whole");
    assert!(whole > 0, "none of 400 is whole");
    wait_for("the upstream's connections to end", || upstream.open() == 0);
    assert_served(&edge);
}

/// Memory of a program after a burst, in addition to that before: stacks that the C library
/// keeps for the next threads, and parts of pages.
const RETURNED_LIMIT_BYTES: u64 = 1024 * 1024;

/// Waits until a program has returned the memory that it had beyond `rest`. The agent does with
/// its next heartbeat.
#[track_caller]
fn wait_returned(pid: u32, rest: u64) {
    let most = rest + RETURNED_LIMIT_BYTES;
    wait_for("memory to be returned", || proc::anonymous(pid).unwrap() <= most);
}

#[test]
fn the_edge_returns_the_memory_of_a_burst() {
    let (edge, moved) = (edge(""), Moved::default());
    let upstream = downloads(&moved);
    let _agent = http_agent(&edge, &upstream);
    assert_served(&edge);
    let rest = proc::anonymous(edge.pid()).unwrap();
    let mut paused: Vec<_> = (0..48).map(|seed| Download::start(&edge, seed)).collect();
    paused.iter_mut().for_each(Download::head);
    moved.wait_still(PAUSE);
    let burst = proc::anonymous(edge.pid()).unwrap();
    assert!(burst > rest + 2 * RETURNED_LIMIT_BYTES, "{burst} bytes after {rest}: not a burst");
    // One connection stays, with its memory between that of the others.
    let _idle = Wire::connect(edge.address("http_addr")).unwrap();
    assert!(paused.into_iter().all(Download::finish));
    wait_returned(edge.pid(), rest);
}

/// Bytes of an upload, more than all buffers on its way hold.
const UPLOAD_BYTES: usize = 8_000_000;

/// What an upstream received of an upload: its number and digest, or the reset.
type Seen = (u64, io::Result<Vec<u8>>);

/// Slow receiver of uploads: the number of one, then nothing until the uploads pause.
fn uploads(moved: &Moved) -> (Upstream, mpsc::Receiver<Seen>) {
    let (seen, hear) = mpsc::channel();
    let moved = moved.clone();
    let upstream = Upstream::tcp(move |mut wire| {
        socket2::SockRef::from(wire.tcp()).set_recv_buffer_size(SOCKET_BUFFER_BYTES).unwrap();
        wire.tcp().set_read_timeout(Some(LONG)).unwrap();
        let Ok(number) = wire.read_exact(8) else { return };
        let number = u64::from_be_bytes(number.try_into().unwrap());
        moved.wait_still(PAUSE);
        let mut sum = Sum::new();
        let mut buffer = [0; 16 * 1024];
        let end = loop {
            match wire.read_some(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(n) => sum.add(&buffer[..n]),
                Err(error) => break Err(error),
            }
        };
        let digest = sum.finish().1;
        if end.is_ok() {
            let _ = wire.write(&digest);
        }
        seen.send((number, end.map(|()| digest))).unwrap();
    });
    (upstream, hear)
}

/// Uploads to upstreams that pause. Returns how many arrived complete.
fn upload_all(count: u64, agent_lines: &str) -> usize {
    let (edge, moved) = (edge(""), Moved::default());
    let (upstream, seen) = uploads(&moved);
    let args = ["tcp", &upstream.port().to_string()];
    let mut agent = agent::agent(&config(&edge, agent_lines), args).start();
    let rest = proc::anonymous(agent.process().pid()).unwrap();
    let port: u16 = agent.url().rsplit(':').next().unwrap().parse().unwrap();
    let visitors: Vec<_> = (0..count)
        .map(|number| {
            let moved = moved.clone();
            thread::spawn(move || {
                let mut wire = Wire::connect(([127, 0, 0, 1], port).into()).unwrap();
                wire.tcp().set_write_timeout(Some(LONG)).unwrap();
                wire.tcp().set_read_timeout(Some(LONG)).unwrap();
                socket2::SockRef::from(wire.tcp())
                    .set_send_buffer_size(SOCKET_BUFFER_BYTES)
                    .unwrap();
                let body = Noise::bytes(number, UPLOAD_BYTES);
                let sent = wire.write(number.to_be_bytes()).and_then(|()| {
                    body.chunks(16 * 1024).try_for_each(|piece| {
                        wire.write(piece)?;
                        moved.add(piece.len());
                        Ok(())
                    })
                });
                wire.half_close();
                let mut sum = Sum::new();
                sum.add(&body);
                (sum.finish().1, sent.and_then(|()| wire.read_rest()))
            })
        })
        .collect();
    let visitors: Vec<_> = visitors.into_iter().map(|thread| thread.join().unwrap()).collect();
    let mut whole = 0;
    for (number, (digest, answer)) in visitors.iter().enumerate() {
        match answer {
            Ok(answer) => {
                assert!(answer == digest, "upload {number}: a clean end without an answer");
                whole += 1;
            }
            Err(error) => {
                use io::ErrorKind::{BrokenPipe, ConnectionReset};
                let reset = matches!(error.kind(), ConnectionReset | BrokenPipe);
                assert!(reset, "upload {number}: {error}");
            }
        }
    }
    eprintln!("{whole} of {count} uploads are whole");
    wait_returned(agent.process().pid(), rest);
    drop(agent);
    drop(upstream);
    for (number, end) in seen.iter() {
        match end {
            Ok(digest) => assert!(digest == visitors[number as usize].0, "cut, and a clean end"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{number}"),
        }
    }
    whole
}

#[test]
fn uploads_to_slow_upstreams_arrive_whole_or_are_reset() {
    let whole = upload_all(30, "");
    assert!(whole > 0, "none of 30 is whole");
}

#[test]
fn uploads_under_a_memory_limit_arrive_whole_or_are_reset() {
    let whole = upload_all(13, "memory_limit: 8MiB, ");
    assert!(whole > 0, "none of 13 is whole");
}

#[test]
fn a_visitor_that_stays_paused_loses_its_place() {
    let (edge, moved) = (edge("stall_seconds: 2"), Moved::default());
    let upstream = downloads(&moved);
    let _agent = http_agent(&edge, &upstream);
    let mut paused: Vec<_> = (0..8).map(|seed| Download::start(&edge, seed)).collect();
    paused.iter_mut().for_each(Download::head);
    assert!(upstream.open() > 0, "nothing is paused");
    wait_for("the upstream's connections to end", || upstream.open() == 0);
    assert_served(&edge);
    for download in paused {
        assert!(!download.finish(), "a place is held for ever");
    }
}
