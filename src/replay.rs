//! Sends a captured request again, as it was or changed, to an endpoint's upstream
//! directly: no edge, no policy. The exchange is captured like any other.
//!
//! What is sent says its length anew, since the captured chunks are the visitor's,
//! and asks the upstream to close. Everything else, `Host` included, is as it was
//! unless it is changed. Each replay has a thread for as long as it takes, a few at
//! a time and for half a minute at most.

use std::fmt;
use std::io::{self, Cursor, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::event;
use crate::http1::head;
use crate::http1::text::{decimal, is_token};
use crate::inspect::message::{Field, Message};
use crate::inspect::observer::Side;
use crate::inspect::{Inspector, MessageState, Tap};
use crate::proto::proxy_protocol;
use crate::proxy::pages::{self, Unreachable};
use crate::proxy::{ProxyTarget, UpstreamConn, files};
use crate::sys::{self, poll, threads};

/// Replays at the same time.
const MAX_REPLAYS: usize = 4;

/// How long one may take, after the upstream was reached.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two tries to send what the upstream has not taken yet.
const SEND_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Bytes of a response that are read. Few of them are kept.
const MAX_RESPONSE_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of a request that may be sent.
const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// What is to be different. `None` leaves it as it was.
#[derive(Clone, Debug, Default)]
pub struct RequestChanges {
    /// The method.
    pub method: Option<String>,
    /// Path and query.
    pub uri: Option<String>,
    /// All fields. Those that say how long the body is are made anew anyway.
    pub headers: Option<Vec<(String, String)>>,
    /// The body, without chunks.
    pub body: Option<Vec<u8>>,
    /// All trailers.
    pub trailers: Option<Vec<(String, String)>>,
}

/// Why nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayError {
    /// No such exchange, or it is gone by now.
    NotFound,
    /// No such endpoint, or its requests are not inspected.
    NoEndpoint(String),
    /// Its body is not all there, and no other one was given.
    Incomplete,
    /// Enough of them are under way.
    Busy,
    /// What is to be sent is no request.
    Invalid(&'static str),
    /// The system has no thread for it.
    System(String),
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::NotFound => f.write_str("there is no such request, or not any more"),
            ReplayError::NoEndpoint(name) => {
                write!(f, "there is no endpoint '{name}' whose requests are inspected")
            }
            ReplayError::Incomplete => f.write_str(
                "only the beginning of this request was stored: give a body to send in its place",
            ),
            ReplayError::Busy => {
                write!(f, "{MAX_REPLAYS} replays are under way: try again when one has finished")
            }
            ReplayError::Invalid(what) => f.write_str(what),
            ReplayError::System(why) => write!(f, "cannot start a thread for the replay: {why}"),
        }
    }
}

impl std::error::Error for ReplayError {}

impl Inspector {
    /// Sends a captured request again: to its own endpoint's upstream, or to that of
    /// `target`. Returns the name of the new exchange; its response comes later.
    pub fn replay(
        self: &Arc<Self>,
        id: &str,
        target: Option<&str>,
        changes: Option<&RequestChanges>,
    ) -> Result<String, ReplayError> {
        let entry = self.get(id).ok_or(ReplayError::NotFound)?;
        let whole = entry.summary.request == MessageState::Complete && !entry.summary.request_cut;
        let changes = changes.cloned().unwrap_or_default();
        let request = compose(&entry.request, whole, &changes)?;
        let name = target.filter(|name| !name.is_empty()).unwrap_or(&entry.summary.endpoint);
        let target = self.target(name).ok_or_else(|| ReplayError::NoEndpoint(name.to_owned()))?;
        let running = RunningReplay::take(self).ok_or(ReplayError::Busy)?;
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let origin = self.number_of(id).unwrap_or(0);
        let tap = self.source(name, false, &target.metrics).tap_of(Some(here), false, origin);
        let begun = tap.feed(Side::Request, &request);
        let id = begun.map(|number| self.id(number).to_string()).unwrap_or_default();
        threads::REPLAY
            .spawn(Box::new(move || {
                let _running = running;
                run(&target, &request, &tap);
            }))
            .map_err(|e| ReplayError::System(e.to_string()))?;
        Ok(id)
    }
}

/// One of the replays that may run at the same time.
struct RunningReplay(Arc<Inspector>);

impl RunningReplay {
    fn take(inspector: &Arc<Inspector>) -> Option<RunningReplay> {
        // By hand: newer versions of Rust deprecate `fetch_update`, older ones lack `try_update`.
        let mut running = inspector.replays.load(Ordering::Relaxed);
        while running < MAX_REPLAYS {
            let (new, relaxed) = (running + 1, Ordering::Relaxed);
            match inspector.replays.compare_exchange_weak(running, new, relaxed, relaxed) {
                Ok(_) => return Some(RunningReplay(Arc::clone(inspector))),
                Err(now) => running = now,
            }
        }
        None
    }
}

impl Drop for RunningReplay {
    fn drop(&mut self) {
        self.0.replays.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The thread's life.
fn run(target: &ProxyTarget, request: &[u8], tap: &Tap) {
    sys::fd_budget::yield_to_others(sys::fd_budget::WEB_RESERVE);
    if let Some(root) = &target.root {
        let _ =
            files::serve(root, &mut Cursor::new(request), &mut CaptureWriter(tap), &mut [0; 4096]);
        return tap.finish();
    }
    let header = match target.proxy_protocol {
        0 => Vec::new(),
        version => {
            let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            proxy_protocol::encode(version, here, here)
        }
    };
    match UpstreamConn::open(target, true, &header)
        .and_then(|upstream| exchange(&upstream, request, tap))
    {
        Ok(()) => tap.finish(),
        // What came before it broke off stays.
        Err(_) if tap.is_idle() => {}
        Err(e) => {
            event!(
                warn,
                obj = "web",
                "a replay did not come to its end",
                l = target.upstream,
                err = e
            );
            let page = pages::bad_gateway(
                head::Head::parse(request).ok().as_ref(),
                &Unreachable {
                    url: &target.url,
                    upstream: &target.upstream.to_string(),
                    error: &e.to_string(),
                    answered: e.kind() == io::ErrorKind::InvalidData,
                },
            );
            // Nothing came yet, or this is not taken for a response.
            tap.response(&page);
            tap.abort();
        }
    }
}

/// Sends and receives, in turns: an upstream may answer before it has read all.
fn exchange(upstream: &UpstreamConn, request: &[u8], tap: &Tap) -> io::Result<()> {
    let until = sys::clock() + REPLAY_TIMEOUT;
    let mut outlet = upstream.outlet();
    let mut unsent = request;
    let mut buffer = [0; 4096];
    let mut got = 0;
    loop {
        let mut waits = false;
        if !unsent.is_empty() {
            match outlet.write(unsent).and_then(|n| {
                unsent = unsent.get(n..).unwrap_or_default();
                outlet.flush()
            }) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => waits = true,
                // It may have answered before it closed. One that did not close learns
                // that there is no more.
                Err(_) => {
                    unsent = &[];
                    outlet.finish();
                }
            }
        }
        match upstream.read_now(&mut [io::IoSliceMut::new(&mut buffer)]) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                tap.response(buffer.get(..n).unwrap_or_default());
                got += n;
                if tap.is_idle() {
                    return Ok(());
                }
                if got > MAX_RESPONSE_BYTES {
                    tap.abort();
                    return Ok(());
                }
                continue;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        let left = until.since(sys::clock());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no whole answer in 30 seconds"));
        }
        // Bytes that the TLS library still holds leave the same way as those that wait here.
        let step = if waits || !unsent.is_empty() {
            SEND_RETRY_INTERVAL
        } else {
            left.min(REPLAY_TIMEOUT)
        };
        poll::readable(&upstream.fd(), Some(step))?;
    }
}

/// Where a directory's answer goes: nowhere but into the capture.
struct CaptureWriter<'a>(&'a Tap);

impl Write for CaptureWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.response(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The request to send: `raw`, of which everything is there if it is `whole`, with
/// the changes.
fn compose(raw: &[u8], whole: bool, changes: &RequestChanges) -> Result<Vec<u8>, ReplayError> {
    let message = Message::parse(raw);
    if !message.whole_head || (!whole && changes.body.is_none()) {
        return Err(ReplayError::Incomplete);
    }
    let [method, uri, version] = message.words();
    let method = changes.method.as_deref().unwrap_or(&method);
    let uri = changes.uri.as_deref().unwrap_or(&uri);
    if !is_token(method.as_bytes()) {
        return Err(ReplayError::Invalid("the method must be one word, as GET"));
    }
    if uri.is_empty() || uri.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Err(ReplayError::Invalid(
            "the path must not be empty, and must be without blanks and control characters",
        ));
    }
    let (content, kept) = message.content();
    let content = changes.body.as_deref().unwrap_or(&content);
    let fields = fields_or(changes.headers.as_deref(), || message.fields().collect())?;
    // New trailers, or those of the body that they belong to.
    let trailers = fields_or(changes.trailers.as_deref(), || match changes.body {
        Some(_) => Vec::new(),
        None => kept,
    })?;
    let is_http10 = version == "HTTP/1.0";
    let is = |name: &[u8], word: &str| name.eq_ignore_ascii_case(word.as_bytes());
    let upgrade = fields.iter().any(|(name, _)| is(name, "upgrade"));
    let declared = fields.iter().any(|(name, value)| {
        is(name, "transfer-encoding") || (is(name, "content-length") && decimal(value).is_some())
    });
    let chunked = !trailers.is_empty() && !is_http10;
    let mut out = Vec::with_capacity(raw.len() + 64);
    for word in [method, " ", uri, if is_http10 { " HTTP/1.0\r\n" } else { " HTTP/1.1\r\n" }] {
        out.extend_from_slice(word.as_bytes());
    }
    for (name, value) in &fields {
        let framing = is(name, "content-length") || is(name, "transfer-encoding");
        let trailer = is(name, "trailer") && !chunked;
        // The body goes out at once, on a connection that is used once.
        let hop = is(name, "expect") || (is(name, "connection") && !upgrade);
        if !framing && !trailer && !hop {
            push_field(&mut out, name, value);
        }
    }
    if !upgrade {
        push_field(&mut out, b"Connection", b"close");
    }
    if chunked {
        push_field(&mut out, b"Transfer-Encoding", b"chunked");
        out.extend_from_slice(b"\r\n");
        if !content.is_empty() {
            out.extend_from_slice(format!("{:x}\r\n", content.len()).as_bytes());
            out.extend_from_slice(content);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n");
        for (name, value) in &trailers {
            push_field(&mut out, name, value);
        }
        out.extend_from_slice(b"\r\n");
    } else {
        if declared || !content.is_empty() {
            push_field(&mut out, b"Content-Length", content.len().to_string().as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(content);
    }
    if out.len() > MAX_REQUEST_BYTES {
        return Err(ReplayError::Invalid("the request is too large: 4 MiB at most"));
    }
    Ok(out)
}

/// The fields that were given, or else those of the capture.
fn fields_or<'a>(
    given: Option<&'a [(String, String)]>,
    captured: impl FnOnce() -> Vec<Field<'a>>,
) -> Result<Vec<Field<'a>>, ReplayError> {
    let Some(given) = given else { return Ok(captured()) };
    for (name, value) in given {
        if !is_token(name.as_bytes()) || value.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
            return Err(ReplayError::Invalid(
                "a header must have a name of letters, digits and -, and a value of one line",
            ));
        }
    }
    Ok(given.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect())
}

fn push_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn composed(raw: &str, changes: &RequestChanges) -> String {
        String::from_utf8(compose(raw.as_bytes(), true, changes).unwrap()).unwrap()
    }

    #[test]
    fn without_changes_only_the_framing_is_new() {
        let raw = "GET /a?b HTTP/1.1\r\nHost: x.example\r\nCookie: a=b\r\nConnection: \
                   keep-alive\r\n\r\n";
        assert_eq!(
            composed(raw, &RequestChanges::default()),
            "GET /a?b HTTP/1.1\r\nHost: x.example\r\nCookie: a=b\r\nConnection: close\r\n\r\n"
        );
        let raw = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: \
                   100-continue\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n";
        assert_eq!(
            composed(raw, &RequestChanges::default()),
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nabcde"
        );
        let raw = "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
        assert!(composed(raw, &RequestChanges::default()).contains("Content-Length: 0\r\n"));
    }

    #[test]
    fn trailers_keep_their_chunks() {
        let raw = "POST / HTTP/1.1\r\nHost: x\r\nTrailer: Sum\r\nTransfer-Encoding: \
                   chunked\r\n\r\n3\r\nabc\r\n0\r\nSum: 7\r\n\r\n";
        assert_eq!(
            composed(raw, &RequestChanges::default()),
            "POST / HTTP/1.1\r\nHost: x\r\nTrailer: Sum\r\nConnection: close\r\nTransfer-Encoding: \
             chunked\r\n\r\n3\r\nabc\r\n0\r\nSum: 7\r\n\r\n"
        );
        let changes = RequestChanges { body: Some(b"other".to_vec()), ..RequestChanges::default() };
        assert!(composed(raw, &changes).ends_with("Content-Length: 5\r\n\r\nother"));
        let changes = RequestChanges { trailers: Some(vec![("A".into(), "b".into())]), ..changes };
        assert!(composed(raw, &changes).ends_with("\r\n\r\n5\r\nother\r\n0\r\nA: b\r\n\r\n"));
    }

    #[test]
    fn everything_may_be_changed() {
        let raw = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let changes = RequestChanges {
            method: Some("POST".into()),
            uri: Some("/new?q=1".into()),
            headers: Some(vec![
                ("Host".into(), "y".into()),
                ("Content-Length".into(), "999".into()),
                ("A".into(), "b".into()),
            ]),
            body: Some(b"{}".to_vec()),
            trailers: None,
        };
        assert_eq!(
            composed(raw, &changes),
            "POST /new?q=1 HTTP/1.1\r\nHost: y\r\nA: b\r\nConnection: close\r\nContent-Length: \
             2\r\n\r\n{}"
        );
    }

    #[test]
    fn an_upgrade_stays_one() {
        let raw =
            "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(composed(raw, &RequestChanges::default()), raw);
    }

    #[test]
    fn nothing_can_be_smuggled_in() {
        let raw = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let field = |name: &str, value: &str| RequestChanges {
            headers: Some(vec![(name.into(), value.into())]),
            ..RequestChanges::default()
        };
        for changes in [
            RequestChanges { method: Some("GET /".into()), ..RequestChanges::default() },
            RequestChanges { method: Some(String::new()), ..RequestChanges::default() },
            RequestChanges { uri: Some("/ HTTP/1.1\r\nA: b".into()), ..RequestChanges::default() },
            RequestChanges { uri: Some(String::new()), ..RequestChanges::default() },
            field("A\r\nB", "c"),
            field("A", "b\r\nC: d"),
            field("", "b"),
            RequestChanges { body: Some(vec![0; MAX_REQUEST_BYTES]), ..RequestChanges::default() },
        ] {
            let refused = compose(raw, true, &changes);
            assert!(matches!(refused, Err(ReplayError::Invalid(_))), "{changes:?}");
        }
    }

    #[test]
    fn as_many_replays_run_as_allowed() {
        let inspector = Inspector::with_ceiling(1 << 20).unwrap();
        let start = std::sync::Barrier::new(4 * MAX_REPLAYS);
        let turns: Vec<_> = thread::scope(|scope| {
            let take = || {
                start.wait();
                RunningReplay::take(&inspector)
            };
            let threads: Vec<_> = (0..4 * MAX_REPLAYS).map(|_| scope.spawn(take)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(turns.len(), MAX_REPLAYS);
        assert!(RunningReplay::take(&inspector).is_none());
        drop(turns);
        assert!(RunningReplay::take(&inspector).is_some());
    }

    #[test]
    fn what_is_not_all_there_needs_a_body() {
        let raw = b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nbegin";
        let nothing = RequestChanges::default();
        assert_eq!(compose(raw, false, &nothing), Err(ReplayError::Incomplete));
        assert_eq!(compose(&raw[..20], true, &nothing), Err(ReplayError::Incomplete));
        let body = RequestChanges { body: Some(b"x".to_vec()), ..nothing };
        assert!(compose(raw, false, &body).is_ok());
    }
}
