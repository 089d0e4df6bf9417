//! Two sessions over a real TLS connection on loopback.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{End, Handler, Outlet, Pipe, PlainOutlet, SendError, Session, Sink};
use crate::config::Cas;
use crate::mux::{Code, Config, Role, StreamId, StreamType};
use crate::sys;
use crate::time::Deadline;
use crate::tls::records::ContentType;
use crate::tls::{client, roots, server};

pub(crate) fn soon() -> Deadline {
    Deadline::At(sys::clock() + Duration::from_secs(20))
}

/// End of a session, for tests.
#[derive(Default)]
struct Ending(Mutex<Option<End>>, Condvar);

impl Ending {
    fn wait(&self) -> End {
        let guard = self.0.lock().unwrap();
        let (guard, timeout) =
            self.1.wait_timeout_while(guard, Duration::from_secs(20), |e| e.is_none()).unwrap();
        assert!(!timeout.timed_out(), "the session did not end");
        guard.clone().unwrap()
    }
}

pub(crate) type Opened =
    Box<dyn FnMut(&Session, StreamId, StreamType) -> Option<Arc<dyn Sink>> + Send>;

struct Test(Opened, Arc<Ending>);

impl Handler for Test {
    fn opened(&mut self, s: &Session, id: StreamId, kind: StreamType) -> Option<Arc<dyn Sink>> {
        (self.0)(s, id, kind)
    }

    fn ended(&mut self, end: &End) {
        *self.1.0.lock().unwrap() = Some(end.clone());
        self.1.1.notify_all();
    }
}

pub(crate) struct Pair {
    agent: Session,
    pub(crate) edge: Session,
    agent_end: Arc<Ending>,
    edge_end: Arc<Ending>,
}

/// Returns an agent and an edge. `opened` handles the agent's streams.
pub(crate) fn pair(opened: Opened) -> Pair {
    let dir =
        std::env::temp_dir().join(format!("culvert-tunnel-{}-{:p}", std::process::id(), &opened));
    std::fs::create_dir_all(&dir).unwrap();
    let cert = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let ca = dir.join("ca.pem");
    std::fs::write(&ca, cert.cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(cert.signing_key.serialize_der()));
    let server = server::tunnel_config(vec![cert.cert.der().clone()], key).unwrap();
    let client = client::tunnel_config(Arc::new(roots::load(&Cas::File(ca)).unwrap())).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        server::accept(socket, server, soon()).unwrap()
    });
    let socket = TcpStream::connect(address).unwrap();
    let link = client::connect(socket, "localhost", client, soon()).unwrap().0;
    let agent_end = Arc::new(Ending::default());
    let edge_end = Arc::new(Ending::default());
    let handler = Box::new(Test(opened, Arc::clone(&agent_end)));
    let agent = super::start(
        link,
        Config::new(Role::Agent, 1),
        super::BufferLimits::session(super::BUFFERED),
        handler,
    )
    .unwrap();
    let handler = Box::new(Test(Box::new(|_, _, _| None), Arc::clone(&edge_end)));
    let edge = super::start(
        accepting.join().unwrap(),
        Config::new(Role::Edge, 2),
        super::BufferLimits::session(super::BUFFERED),
        handler,
    )
    .unwrap();
    Pair { agent, edge, agent_end, edge_end }
}

/// Returns streams that echo their bytes: a worker reads the pipe.
fn echo() -> Opened {
    Box::new(|session, stream, _| {
        let pipe = Arc::new(Pipe::new(session, stream));
        let reader = Arc::clone(&pipe);
        thread::spawn(move || {
            let mut buf = vec![0; 30_000];
            while let Ok(n) = reader.read(&mut buf, soon()) {
                if n == 0 || reader.session().send(stream, &buf[..n], soon()).is_err() {
                    break;
                }
            }
            reader.session().finish(stream);
            reader.discard();
            reader.outbound_done();
        });
        Some(pipe)
    })
}

pub(crate) fn open(session: &Session, first: &[u8]) -> Arc<Pipe> {
    let mut made = None;
    session
        .open_with(StreamType::PROXY, first, |stream| {
            let pipe = Arc::new(Pipe::new(session, stream));
            made = Some(Arc::clone(&pipe));
            pipe
        })
        .unwrap();
    made.unwrap()
}

pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = soon();
    while !condition() {
        assert!(!deadline.due(sys::clock()), "{what} did not happen");
        thread::yield_now();
    }
}

#[test]
fn bytes_come_back_whole_over_several_windows() {
    let pair = pair(echo());
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| ((n * 7) >> 3) as u8).collect();
    let pipe = open(&pair.edge, &sent[..100]);
    let (session, stream, rest) = (pair.edge.clone(), pipe.stream(), sent[100..].to_vec());
    let sender = thread::spawn(move || {
        session.send(stream, &rest, soon()).unwrap();
        session.finish(stream);
    });
    let mut received = Vec::new();
    let mut buf = vec![0; 10_000];
    loop {
        let n = pipe.read(&mut buf, soon()).unwrap();
        if n == 0 {
            break;
        }
        received.extend_from_slice(&buf[..n]);
    }
    sender.join().unwrap();
    pipe.outbound_done();
    assert!(received == sent);
    until("both sides forget the stream", || pair.edge.streams() + pair.agent.streams() == 0);
    pair.edge.close(Code::NO_ERROR, "no error");
    assert!(matches!(pair.edge_end.wait(), End::Closed));
    assert!(matches!(pair.agent_end.wait(), End::GoneAway(Code::NO_ERROR, _)));
    assert_eq!(pair.agent.send(stream, b"x", soon()), Err(SendError::Over));
}

#[test]
fn many_streams_at_once_do_not_mix() {
    let pair = pair(echo());
    let workers: Vec<_> = (0..32u8)
        .map(|n| {
            let session = pair.edge.clone();
            thread::spawn(move || {
                let pipe = open(&session, &[n; 10]);
                for round in 0..20 {
                    let len = 1 + usize::from(n) * 701 % 9_000 + round;
                    session.send(pipe.stream(), &vec![n; len], soon()).unwrap();
                    let mut left = len + if round == 0 { 10 } else { 0 };
                    let mut buf = [0; 4_096];
                    while left > 0 {
                        let got = pipe.read(&mut buf, soon()).unwrap();
                        assert!(got > 0 && buf[..got].iter().all(|b| *b == n));
                        left -= got;
                    }
                }
                session.finish(pipe.stream());
                pipe.outbound_done();
                assert_eq!(pipe.read(&mut [0; 1], soon()).unwrap(), 0);
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    until("all streams are forgotten", || pair.edge.streams() + pair.agent.streams() == 0);
}

#[test]
fn a_reader_that_stands_still_stops_its_own_stream_only() {
    let pair = pair(echo());
    let stuck = open(&pair.edge, b"");
    let (session, stream) = (pair.edge.clone(), stuck.stream());
    let sender = thread::spawn(move || {
        // At most two windows in each direction can be on their way.
        let mut sent = 0;
        let short = Deadline::At(sys::clock() + Duration::from_millis(300));
        while session.send(stream, &[1; 10_000], short).is_ok() {
            sent += 10_000;
        }
        sent
    });
    for _ in 0..20 {
        let pipe = open(&pair.edge, b"ping");
        let mut buf = [0; 4];
        let mut got = 0;
        while got < 4 {
            got += pipe.read(&mut buf[got..], soon()).unwrap();
        }
        assert_eq!(&buf, b"ping");
        pair.edge.finish(pipe.stream());
        pipe.outbound_done();
    }
    let sent = sender.join().unwrap();
    assert!((262_144..3 * 262_144 + 40_000).contains(&sent), "{sent}");
    pair.edge.reset(stuck.stream(), Code::STREAM_CANCELLED);
    until("the reset arrives", || pair.agent.streams() == 0);
}

#[test]
fn a_pipe_writes_to_a_socket_and_passes_ends_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let pair = pair(Box::new(move |session, stream, _| {
        let pipe = Arc::new(Pipe::new(session, stream));
        let other = Arc::clone(&pipe);
        thread::spawn(move || {
            let socket = Arc::new(TcpStream::connect(address).unwrap());
            other.attach(Box::new(PlainOutlet(Arc::clone(&socket))));
            let mut buf = [0; 1_000];
            while let Ok(n @ 1..) = (&*socket).read(&mut buf) {
                other.session().send(stream, &buf[..n], soon()).unwrap();
            }
            other.session().finish(stream);
            other.outbound_done();
        });
        Some(pipe)
    }));
    // More bytes than the socket accepts at once, so that the reactor must continue later.
    let sent = vec![5u8; 20_000_000];
    let pipe = open(&pair.edge, b"head");
    let (session, stream, bytes) = (pair.edge.clone(), pipe.stream(), sent.clone());
    let sender = thread::spawn(move || {
        session.send(stream, &bytes, soon()).unwrap();
        session.finish(stream);
    });
    let (mut upstream, _) = listener.accept().unwrap();
    upstream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut got = Vec::new();
    upstream.read_to_end(&mut got).unwrap();
    assert!(&got[..4] == b"head" && got[4..] == sent);
    sender.join().unwrap();
    // The other direction is still open.
    upstream.write_all(b"answer").unwrap();
    upstream.shutdown(Shutdown::Write).unwrap();
    let mut buf = [0; 6];
    let mut n = 0;
    while n < 6 {
        n += pipe.read(&mut buf[n..], soon()).unwrap();
    }
    assert_eq!(&buf, b"answer");
    assert_eq!(pipe.read(&mut buf, soon()).unwrap(), 0);
    pipe.outbound_done();
    until("the stream is forgotten", || pair.edge.streams() + pair.agent.streams() == 0);
}

#[test]
fn what_came_before_a_reset_still_arrives() {
    struct Never;
    impl Outlet for Never {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::WouldBlock.into())
        }
        fn finish(&mut self) {}
        fn abort(&mut self) {}
        fn fd(&self) -> i32 {
            -1
        }
    }
    let pair = pair(echo());
    let pipe = open(&pair.edge, b"before");
    until("the echo is here", || pipe.waiting() == 6);
    pipe.reset(super::Reset::Peer(Code::STREAM_CLOSED));
    let mut buf = [0; 10];
    assert_eq!(pipe.read(&mut buf, soon()).unwrap(), 6);
    assert!(pipe.read(&mut buf, soon()).is_err());
    // An outlet whose descriptor cannot be watched ends the stream and does not block it.
    let broken = open(&pair.edge, b"x");
    until("the echo is here", || broken.waiting() == 1);
    broken.attach(Box::new(Never));
    assert!(broken.is_reset());
}

#[test]
fn a_refused_stream_ends_and_the_session_goes_on() {
    let pair = pair(Box::new(|_, _, _| None));
    for _ in 0..3 {
        let pipe = open(&pair.edge, b"?");
        // FIN first, then the reset.
        let end = pipe.read(&mut [0; 1], soon());
        assert!(matches!(end, Ok(0) | Err(_)));
        until("the stream is over", || pair.edge.streams() == 0);
    }
    assert!(!pair.edge.is_over());
}

#[test]
fn a_dead_connection_ends_senders_and_sinks() {
    let pair = pair(echo());
    let pipe = open(&pair.edge, b"");
    let session = pair.edge.clone();
    let stream = pipe.stream();
    let sender = thread::spawn(move || {
        loop {
            if let Err(e) = session.send(stream, &[0; 50_000], soon()) {
                return e;
            }
        }
    });
    let agent = pair.agent.out().socket.try_clone().unwrap();
    agent.shutdown(Shutdown::Both).unwrap();
    assert_eq!(sender.join().unwrap(), SendError::Over);
    assert!(matches!(pair.agent_end.wait(), End::Lost(_)));
    pair.edge_end.wait();
    until("the pipe is told", || pipe.is_reset());
}

#[test]
fn heartbeats_measure_the_link() {
    let pair = pair(echo());
    let beat = Duration::from_millis(50);
    pair.agent.start_heartbeat(beat, Duration::from_secs(15));
    pair.edge.start_heartbeat(beat, Duration::from_secs(15));
    until("both know their latency", || {
        pair.agent.latency().is_some() && pair.edge.latency().is_some()
    });
}

#[test]
fn keys_are_renewed_in_both_directions_without_a_gap() {
    let pair = pair(echo());
    let pipe = open(&pair.edge, b"1");
    let mut buf = [0; 1];
    assert_eq!(pipe.read(&mut buf, soon()).unwrap(), 1);
    for round in 0..3 {
        pair.edge.out().renew_key().unwrap();
        pair.agent.out().renew_key().unwrap();
        pair.edge.send(pipe.stream(), &[round], soon()).unwrap();
        assert_eq!(pipe.read(&mut buf, soon()).unwrap(), 1);
        assert_eq!(buf, [round]);
    }
}

/// Returns a stream of the edge whose pipe at the agent writes to a socket, and the other end
/// of that socket.
fn piped() -> (Pair, Arc<Pipe>, Arc<Pipe>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Owned by the pipe alone, so that it closes with the pipe.
    let mut socket = Some(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    let (made, here) = std::sync::mpsc::channel();
    let pair = pair(Box::new(move |session, stream, _| {
        let pipe = Arc::new(Pipe::new(session, stream));
        pipe.attach(Box::new(PlainOutlet(Arc::new(socket.take()?))));
        made.send(Arc::clone(&pipe)).unwrap();
        Some(pipe)
    }));
    let edge = open(&pair.edge, b"head");
    let agent = here.recv_timeout(Duration::from_secs(20)).unwrap();
    let (mut upstream, _) = listener.accept().unwrap();
    upstream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    upstream.read_exact(&mut [0; 4]).unwrap();
    (pair, edge, agent, upstream)
}

#[test]
fn a_stream_that_is_given_up_is_no_orderly_end_for_the_socket() {
    let (pair, edge, agent, mut upstream) = piped();
    pair.edge.cancel(edge.stream(), Code::STREAM_CANCELLED);
    until("the reset arrives", || agent.is_reset());
    drop(agent);
    assert_eq!(upstream.read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn an_orderly_end_stays_one() {
    let (pair, edge, agent, mut upstream) = piped();
    pair.edge.finish(edge.stream());
    assert_eq!(upstream.read(&mut [0; 1]).unwrap(), 0);
    assert!(!agent.is_reset() && !pair.agent.is_over());
}

#[test]
fn a_reset_that_a_write_meets_is_remembered_for_the_reader() {
    let (pair, edge, agent, upstream) = piped();
    sys::reset_on_close(std::os::fd::AsRawFd::as_raw_fd(&upstream));
    drop(upstream);
    until("a write fails", || {
        pair.edge.send(edge.stream(), b"more", soon()).is_err() || agent.write_error().is_some()
    });
    // The kernel reports the reset once; after that the socket seems to have ended in order.
    assert_eq!(agent.write_error(), Some(std::io::ErrorKind::ConnectionReset));
    // When our own direction has ended too, the peer is notified.
    assert!(!edge.is_reset());
    pair.agent.finish(agent.stream());
    agent.outbound_done();
    until("the stream is reset", || edge.is_reset());
    until("the stream is forgotten", || pair.agent.streams() + pair.edge.streams() == 0);
}

#[test]
fn a_goodbye_waits_for_what_is_under_way() {
    use socket2::SockRef;
    let (go, gate) = std::sync::mpsc::channel::<()>();
    // The agent's reactor is stuck in the opening of this stream.
    let pair = pair(Box::new(move |_, _, _| {
        let _ = gate.recv_timeout(Duration::from_secs(20));
        Some(Arc::new(Taker))
    }));
    SockRef::from(&pair.edge.out().socket).set_send_buffer_size(16_384).unwrap();
    let streams: Vec<_> = (0..100).map(|_| open(&pair.edge, b"").stream()).collect();
    let short = Deadline::At(sys::clock() + Duration::from_millis(300));
    let late = streams.iter().any(|s| pair.edge.send(*s, &[1; 200_000], short).is_err());
    assert!(late, "the link is not full");
    let edge = pair.edge.clone();
    let closing = thread::spawn(move || edge.close(Code::NO_ERROR, "no error"));
    until("the session is closed", || pair.edge.is_over());
    go.send(()).unwrap();
    drop(go);
    closing.join().unwrap();
    assert!(matches!(pair.edge_end.wait(), End::Closed));
    let end = pair.agent_end.wait();
    assert!(matches!(end, End::GoneAway(Code::NO_ERROR, _)), "{end}");
}

/// A sink that consumes every byte.
struct Taker;

impl Sink for Taker {
    fn data(&self, bytes: &[u8]) -> usize {
        bytes.len()
    }
    fn finished(&self) {}
    fn reset(&self, _: super::Reset) {}
}

#[test]
fn many_streams_that_stand_still_do_not_cost_the_session_its_life() {
    /// A sink that keeps every byte.
    struct Hoarder;
    impl Sink for Hoarder {
        fn data(&self, _: &[u8]) -> usize {
            0
        }
        fn finished(&self) {}
        fn reset(&self, _: super::Reset) {}
    }
    let mut echo = echo();
    let pair = pair(Box::new(move |session, stream, kind| match kind {
        StreamType::PROXY => echo(session, stream, kind),
        _ => Some(Arc::new(Hoarder)),
    }));
    pair.edge.start_heartbeat(Duration::from_millis(500), Duration::from_secs(12));
    let senders: Vec<_> = (0..28)
        .map(|_| {
            let session = pair.edge.clone();
            thread::spawn(move || {
                let stream = session.open(StreamType::BIND, b"", Arc::new(Taker)).unwrap();
                let _ = session.send(stream, &[3; 262_140], Deadline::Never);
            })
        })
        .collect();
    for sender in senders {
        sender.join().unwrap();
    }
    let pipe = open(&pair.edge, b"still here");
    let mut buf = [0; 10];
    let mut n = 0;
    while n < buf.len() {
        n += pipe.read(&mut buf[n..], Deadline::Never).unwrap();
    }
    assert_eq!(&buf, b"still here");
    assert!(!pair.edge.is_over() && !pair.agent.is_over());
}

/// Sends records with parts of TLS handshake messages from the edge. Returns the ends of the
/// agent and the edge.
fn after_handshake_records(records: &[&[u8]]) -> (String, String) {
    let pair = pair(Box::new(|_, _, _| None));
    {
        let mut out = pair.edge.out();
        let super::handle::WriteHalf { sealer, send_buffer, .. } = &mut *out;
        for record in records {
            send_buffer
                .record(sealer, ContentType::Handshake, record.len(), |content| {
                    content.copy_from_slice(record);
                    record.len()
                })
                .unwrap();
        }
    }
    pair.edge.flush();
    (pair.agent_end.wait().to_string(), pair.edge_end.wait().to_string())
}

#[test]
fn a_malformed_key_update_ends_the_session_with_an_alert() {
    let cases: [(&[&[u8]], &str, u8); 6] = [
        (&[&[24, 0, 0, 1, 2]], "a malformed TLS key update", 47),
        (&[&[24, 0, 0, 2, 0, 0]], "a malformed TLS key update", 47),
        (&[&[24, 0, 0], &[1, 0]], "a TLS key update that is not alone", 10),
        (&[&[24, 0, 0, 1, 0, 24]], "a TLS key update that is not alone", 10),
        // In the middle of a ticket that was split, which is therefore not a ticket.
        (&[&[4, 0, 0, 9, 1], &[24, 0, 0, 1, 0, 24, 0, 0]], "", 50),
        (&[&[99, 0, 0, 0]], "an unexpected TLS message of type 99", 10),
    ];
    for (records, error, alert) in cases {
        let (agent, edge) = after_handshake_records(records);
        assert!(agent.starts_with(error), "{records:?}: {agent}");
        assert!(edge.ends_with(&format!("alert {alert}")), "{records:?}: {edge}");
    }
}

#[test]
fn key_updates_have_a_budget() {
    let pair = pair(Box::new(|_, _, _| None));
    for _ in 0..12_000 {
        let full = {
            let mut out = pair.edge.out();
            out.send_buffer.has_reserve() && out.renew_key().is_ok()
        };
        if !full {
            pair.edge.flush();
        }
        if pair.edge.is_over() {
            break;
        }
    }
    pair.edge.flush();
    assert_eq!(pair.agent_end.wait().to_string(), "too many TLS key updates");
    let edge = pair.edge_end.wait().to_string();
    assert!(edge.ends_with("alert 10"), "{edge}");
}
