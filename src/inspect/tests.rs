//! Exchanges of real connections: from a stream of the edge to an upstream and back, the
//! visitor's view and the captured one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;
use crate::config::{Upstream, UpstreamScheme};
use crate::http1::text::decimal;
use crate::proto::proxy_header::ProxyHeader;
use crate::proxy::files::path::Root;
use crate::proxy::{Incoming, Pool, ProxyTarget, Routes};
use crate::replay::{ReplayError, Replayer, RequestChanges};
use crate::session::tests::{Pair, open, pair, soon, until};

struct World {
    pair: Pair,
    inspector: Arc<Inspector>,
    replayer: Arc<Replayer>,
}

struct TestRoutes(Mutex<Vec<Arc<ProxyTarget>>>);

impl Routes for TestRoutes {
    fn target(&self, id: &str) -> Option<Arc<ProxyTarget>> {
        self.0.lock().unwrap().iter().find(|target| target.name == id).cloned()
    }
}

fn target(name: &str, port: u16) -> ProxyTarget {
    ProxyTarget {
        name: name.into(),
        url: format!("http://{name}.example"),
        upstream: Upstream {
            scheme: UpstreamScheme::Http,
            host: "127.0.0.1".into(),
            port,
            dir: Default::default(),
        },
        pages: true,
        tls: None,
        visitor_tls: None,
        root: None,
        proxy_protocol: 0,
        source: None,
        metrics: Arc::default(),
    }
}

impl World {
    fn new(targets: Vec<ProxyTarget>) -> World {
        let inspector = Inspector::with_ceiling(1 << 20).unwrap();
        let replayer = Replayer::new(Arc::clone(&inspector));
        let targets = targets.into_iter().map(|mut target| {
            target.source =
                Some(inspector.source(&target.name, target.proxy_protocol > 0, &target.metrics));
            let target = Arc::new(target);
            replayer.set_target(&target);
            target
        });
        let table = Arc::new(TestRoutes(Mutex::new(targets.collect())));
        let pool = Pool::new(4, 16).unwrap();
        let pair = pair(Box::new(move |session, stream, _| {
            let routes = Arc::clone(&table) as Arc<dyn Routes>;
            Some(Arc::new(Incoming::new(session, stream, routes, Arc::clone(&pool))))
        }));
        World { pair, inspector, replayer }
    }

    /// Sends `request` to an endpoint as a visitor, and waits for the end.
    fn visit(&self, name: &str, request: &[u8]) -> Vec<u8> {
        let header = ProxyHeader {
            id: name.into(),
            client_addr: "192.0.2.7:50000".into(),
            ..ProxyHeader::default()
        };
        let pipe = open(&self.pair.edge, &header.encode());
        let session = pipe.session();
        let mut answer = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = session.send(pipe.stream(), request, soon());
                session.finish(pipe.stream());
            });
            let mut buffer = [0; 20_000];
            while let Ok(n @ 1..) = pipe.read(&mut buffer, soon()) {
                answer.extend_from_slice(&buffer[..n]);
            }
        });
        answer
    }

    fn list(&self) -> Vec<ExchangeSummary> {
        self.inspector.list(&ListFilter::default())
    }

    /// Returns the newest exchange, after it has ended.
    fn newest(&self) -> CapturedExchange {
        until("the newest exchange to be over", || self.list().first().is_some_and(is_over));
        self.inspector.get(&self.list()[0].id.to_string()).unwrap()
    }
}

/// Starts an upstream that answers the first request of each connection with the next response
/// and then closes. Returns the requests too.
fn upstream(answers: Vec<Vec<u8>>) -> (u16, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (requests, received) = mpsc::channel();
    thread::spawn(move || {
        for answer in answers {
            let (mut socket, _) = listener.accept().unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            let whole = |request: &[u8]| {
                let message = message::Message::parse(request);
                let length = message.field("content-length").unwrap_or(b"0");
                let length = decimal(length).unwrap() as usize;
                match message.is_chunked() {
                    true => request.ends_with(b"0\r\n\r\n"),
                    false => message.whole_head && message.body.len() >= length,
                }
            };
            while !whole(&request)
                && let Ok(n @ 1..) = socket.read(&mut buffer)
            {
                request.extend_from_slice(&buffer[..n]);
            }
            requests.send(request).unwrap();
            socket.write_all(&answer).unwrap();
        }
    });
    (port, received)
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello";
const POST: &[u8] = b"POST /a?b=c HTTP/1.1\r\nHost: web.example\r\nContent-Length: 3\r\n\r\nabc";

fn is_over(exchange: &ExchangeSummary) -> bool {
    matches!(exchange.response, MessageState::Complete | MessageState::Incomplete)
}

#[test]
fn an_exchange_is_captured_as_it_passed() {
    let (port, received) = upstream(vec![OK.to_vec()]);
    let world = World::new(vec![target("web", port)]);
    let seq = world.inspector.since(0, 10).seq;
    assert_eq!(world.visit("web", POST), OK);
    assert_eq!(received.recv().unwrap(), POST);
    let CapturedExchange { summary, request, response } = world.newest();
    assert_eq!((&request[..], response.as_deref()), (POST, Some(OK)));
    assert_eq!((&summary.method[..], &summary.uri[..], summary.status), ("POST", "/a?b=c", 200));
    assert_eq!(&*summary.endpoint, "web");
    assert_eq!(summary.visitor.unwrap().to_string(), "192.0.2.7");
    assert_eq!(
        (summary.request, summary.response),
        (MessageState::Complete, MessageState::Complete)
    );
    assert_eq!((summary.request_len, summary.response_len), (POST.len() as u64, OK.len() as u64));
    assert!(!summary.request_cut && !summary.response_cut && summary.replay_of.is_none());
    assert!(summary.took > Duration::ZERO && summary.took < Duration::from_secs(60));
    let age = std::time::UNIX_EPOCH.elapsed().unwrap().checked_sub(summary.start).unwrap();
    assert!(age < Duration::from_secs(60));
    let id = summary.id.to_string();
    assert!(id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    let since = world.inspector.since(seq, 10);
    assert_eq!((since.entries.len(), since.deleted), (1, false));
    assert!(world.inspector.since(since.seq, 10).entries.is_empty());
}

#[test]
fn lists_are_filtered_and_entries_forgotten() {
    let (port, _told) = upstream(vec![OK.to_vec(); 5]);
    let world = World::new(vec![target("one", port), target("two", port)]);
    for name in ["one", "two", "one", "one"] {
        assert_eq!(world.visit(name, POST), OK);
        world.newest();
    }
    let names: Vec<_> = world.list().iter().map(|s| s.endpoint.to_string()).collect();
    assert_eq!(names, ["one", "one", "two", "one"], "the newest first");
    let filter = ListFilter { limit: Some(2), tunnel_name: Some("one") };
    let ones = world.inspector.list(&filter);
    assert_eq!(ones.len(), 2);
    assert_eq!(ones[0].id, world.list()[0].id);
    assert_eq!(world.inspector.ids(&filter), [ones[0].id, ones[1].id]);
    let seq = world.inspector.since(0, 10).seq;
    let id = ones[1].id.to_string();
    assert!(world.inspector.delete(&id) && !world.inspector.delete(&id));
    assert!(world.inspector.get(&id).is_none());
    assert_eq!(world.list().len(), 3);
    assert!(world.inspector.since(seq, 10).deleted);
    assert!(world.inspector.bytes().0 > 0);
    world.inspector.clear();
    assert_eq!((world.list().len(), world.inspector.bytes().0), (0, 0));
    for nonsense in ["", "0", "zzzzzzzzzzzzzzzz", "0000000000000001", &id] {
        assert!(world.inspector.get(nonsense).is_none(), "{nonsense}");
    }
    assert_eq!(world.visit("two", POST), OK);
    assert_eq!(&*world.newest().summary.endpoint, "two");
}

#[test]
fn large_bodies_are_cut_and_pass_unharmed() {
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let answer = [head.as_bytes(), &body].concat();
    let head = format!("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    let request = [head.as_bytes(), &body].concat();
    let (port, received) = upstream(vec![answer.clone()]);
    let world = World::new(vec![target("web", port)]);
    assert!(world.visit("web", &request) == answer);
    assert!(received.recv().unwrap() == request);
    let entry = world.newest();
    let summary = &entry.summary;
    assert!(summary.request_cut && summary.response_cut);
    assert_eq!(
        (summary.request_len, summary.response_len),
        (request.len() as u64, answer.len() as u64)
    );
    let response = entry.response.unwrap();
    assert!(entry.request.len() == 65_536 && request.starts_with(&entry.request));
    assert!(response.len() == 65_536 && answer.starts_with(&response));
    let id = entry.summary.id.to_string();
    let refused = world.replayer.replay(&id, None, None);
    assert_eq!(refused, Err(ReplayError::Incomplete));
}

#[test]
fn pages_and_files_of_our_own_are_shown_too() {
    let dir = std::env::temp_dir().join(format!("culvert-inspect-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("a.txt"), "content of a").unwrap();
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut files = target("files", 0);
    files.root = Some(Root::open(&dir).unwrap());
    let world = World::new(vec![target("dead", dead), files]);
    let page = world.visit("dead", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(page.starts_with(b"HTTP/1.1 502 "));
    let entry = world.newest();
    assert_eq!((entry.summary.status, entry.response), (502, Some(page)));
    let request = b"GET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = world.visit("files", request);
    assert!(answer.ends_with(b"content of a"));
    let entry = world.newest();
    assert_eq!((entry.summary.status, entry.response.as_deref()), (200, Some(&answer[..])));
    // A replay, without the visitor.
    let id = world.replayer.replay(&entry.summary.id.to_string(), None, None).unwrap();
    let again = world.newest();
    assert_eq!(again.summary.id.to_string(), id);
    assert!(again.response.unwrap().ends_with(b"content of a"));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_replay_reaches_the_upstream_and_is_captured() {
    let other = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n";
    let (port, received) = upstream(vec![OK.to_vec(), other.to_vec(), OK.to_vec()]);
    let (second, received_second) = upstream(vec![OK.to_vec()]);
    let world = World::new(vec![target("web", port), target("second", second)]);
    world.visit("web", POST);
    received.recv().unwrap();
    let first = world.newest().summary.id.to_string();

    let id = world.replayer.replay(&first, None, None).unwrap();
    let asked = received.recv().unwrap();
    assert!(asked.starts_with(b"POST /a?b=c HTTP/1.1\r\nHost: web.example\r\n"));
    assert!(asked.ends_with(b"\r\n\r\nabc"));
    let entry = world.newest();
    assert_eq!(entry.summary.id.to_string(), id);
    assert_eq!(entry.summary.replay_of.unwrap().to_string(), first);
    assert_eq!((entry.summary.status, entry.response.as_deref()), (404, Some(&other[..])));
    assert_eq!(entry.request, asked);

    let changes = RequestChanges { body: Some(b"changed".to_vec()), ..RequestChanges::default() };
    world.replayer.replay(&id, Some(""), Some(&changes)).unwrap();
    assert!(received.recv().unwrap().ends_with(b"Content-Length: 7\r\n\r\nchanged"));
    assert_eq!(world.newest().summary.status, 200);

    world.replayer.replay(&first, Some("second"), None).unwrap();
    assert!(received_second.recv().unwrap().starts_with(b"POST /a?b=c"));
    assert_eq!(&*world.newest().summary.endpoint, "second");

    let none = world.replayer.replay(&first, Some("third"), None);
    assert_eq!(none, Err(ReplayError::NoEndpoint("third".into())));
    let gone = world.replayer.replay("0123456789abcdef", None, None);
    assert_eq!(gone, Err(ReplayError::NotFound));
    // The upstream is gone: the result is the one for a visitor.
    world.replayer.replay(&first, None, None).unwrap();
    let entry = world.newest();
    assert_eq!(entry.summary.status, 502);
    assert!(String::from_utf8_lossy(&entry.response.unwrap()).contains("ERR_NGROK_8012"));
}

#[test]
fn an_upstream_behind_tls_is_captured_in_clear_and_replayed() {
    let cert = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(cert.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.cert.der().clone()], PrivateKeyDer::Pkcs8(key))
        .map(Arc::new)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // More than one record, and more than a turn at the link.
    let body = vec![b'x'; 200_000];
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let answer = [head.as_bytes(), &body].concat();
    let sent = answer.clone();
    thread::spawn(move || {
        for _ in 0..2 {
            let (socket, _) = listener.accept().unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let conn = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = rustls::StreamOwned::new(conn, socket);
            let mut request = vec![0; POST.len()];
            // The response to a replay is longer: it is not read to its end.
            tls.read_exact(&mut request).unwrap();
            tls.write_all(&sent).unwrap();
            tls.conn.send_close_notify();
            let _ = tls.flush();
            let _ = tls.read(&mut [0; 1000]);
        }
    });
    let tls = Arc::new(crate::proxy::UpstreamTlsConfig::new(&config::Verify::Off, false).unwrap());
    let world = World::new(vec![ProxyTarget { tls: Some(tls), ..target("web", port) }]);
    assert!(world.visit("web", POST) == answer);
    let entry = world.newest();
    assert!(entry.request == POST && answer.starts_with(&entry.response.unwrap()));
    assert_eq!(entry.summary.response_len, answer.len() as u64);
    world.replayer.replay(&entry.summary.id.to_string(), None, None).unwrap();
    let again = world.newest();
    assert_eq!((again.summary.status, again.summary.response), (200, MessageState::Complete));
    assert_eq!(again.summary.response_len, answer.len() as u64);
}

#[test]
fn replays_at_the_same_time_are_few() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answering = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let _ = socket.read(&mut [0; 4096]);
        socket.write_all(OK).unwrap();
        drop(socket);
        // These get no response.
        let silent: Vec<_> = (0..4).map(|_| listener.accept().unwrap()).collect();
        (listener, silent)
    });
    let world = World::new(vec![target("web", port)]);
    world.visit("web", POST);
    let id = world.newest().summary.id.to_string();
    for _ in 0..4 {
        world.replayer.replay(&id, None, None).unwrap();
    }
    let silent = answering.join().unwrap();
    assert_eq!(world.replayer.replay(&id, None, None), Err(ReplayError::Busy));
    drop(silent);
    until("the replays to be over", || world.list().iter().all(is_over));
    until("a turn to be free", || world.replayer.replay(&id, None, None).is_ok());
}

#[test]
fn a_proxy_header_reaches_the_upstream_of_a_replay() {
    let (port, received) = upstream(vec![OK.to_vec(); 2]);
    let world = World::new(vec![ProxyTarget { proxy_protocol: 1, ..target("web", port) }]);
    let source: SocketAddr = "192.0.2.7:50000".parse().unwrap();
    let header = crate::proto::proxy_protocol::encode(1, source, source);
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    world.visit("web", &[&header, &request[..]].concat());
    received.recv().unwrap();
    let entry = world.newest();
    assert_eq!(entry.request, request, "the header is not the visitor's");
    world.replayer.replay(&entry.summary.id.to_string(), None, None).unwrap();
    assert!(received.recv().unwrap().starts_with(b"PROXY TCP4 127.0.0.1 127.0.0.1 "));
}

#[test]
fn sizes_follow_the_machine_and_the_configuration() {
    for (mib, size) in [(16, 0), (47, 0), (60, 1 << 20), (120, 1 << 20), (256, 4 << 20)] {
        assert_eq!(usual_size(mib << 20), size, "{mib} MiB");
    }
    assert_eq!(usual_size(980 << 20), 50 << 20);
    let with = |change: &dyn Fn(&mut config::Agent)| {
        let mut agent = config::Agent::default();
        change(&mut agent);
        Inspector::new(&agent, 1 << 20).map(|inspector| inspector.bytes())
    };
    assert_eq!(with(&|a| a.inspect_db_size = InspectSize::Off), None);
    assert_eq!(with(&|a| a.inspect_db_size = InspectSize::Bytes(1000)), None);
    assert_eq!(with(&|a| a.inspect_db_size = InspectSize::Bytes(1 << 20)), Some((0, 1 << 20)));
    // The default is limited by the room. It is less on a small machine.
    assert!(with(&|_| ()).is_none_or(|(used, most)| used == 0 && most <= 1 << 20));
    assert!(Inspector::new(&config::Agent::default(), 1000).is_none());
    assert_eq!(with(&|a| (a.web_addr, a.console_ui) = (WebAddr::Off, ConsoleUi::Never)), None);
}

#[test]
fn changes_are_told_apart_when_their_numbers_begin_anew() {
    assert!(is_later(1, 0) && !is_later(0, 1) && !is_later(5, 5));
    assert!(is_later(2, u32::MAX - 3) && !is_later(u32::MAX - 3, 2));
}
