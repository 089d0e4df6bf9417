//! Connections of the REST API: place, thread, TLS, and one request after the other. A
//! connection that waits for its client is in the parking, without a thread, also in the middle
//! of a request: slow clients must not hold all threads.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::client::ApiClient;
use super::error::ApiError;
use super::http::{self, ApiHttpRequest, ReadOutcome, RequestReader};
use super::state::MAX_THREADS;
use super::stream::ApiStream;
use super::{auth, router};
use crate::edge::Edge;
use crate::edge::parking::Parked;
use crate::event;
use crate::sys;
use crate::time::{Deadline, Instant};

/// Time for a request, from its first byte to its last, and for a handshake before it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Time that a thread waits for further bytes of a client.
const READ_PATIENCE: Duration = Duration::from_millis(100);

/// Time to send a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time that a connection may wait for its next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes and time that a refused client gets to send what it has begun, so that it reads the
/// response: a reset would discard it.
const LINGER_BYTES: usize = 16 * 1024 * 1024;
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// Leaves a connection to the parking until its first byte. Does not block.
pub fn spawn(edge: &Arc<Edge>, socket: TcpStream, peer: SocketAddr) {
    let Some(client) = ApiClient::admit(&edge.api, &socket, peer.ip()) else {
        edge.warn_full("connections of the REST API");
        return;
    };
    let tls = edge.api.uses_tls().then(|| Arc::clone(&edge.tls().opaque));
    match ApiStream::new(socket, tls) {
        Ok(stream) => {
            let connection = ApiConnection {
                edge: Arc::clone(edge),
                stream,
                peer,
                client,
                buffer: Vec::new(),
                reader: RequestReader::default(),
                request_end: None,
                discard: None,
            };
            connection.park(ApiWait { end: sys::clock() + IDLE_TIMEOUT, is_idle: true });
        }
        Err(e) => event!(debug, obj = "edge", "API client disconnected", r = peer, err = e),
    }
}

/// A connection.
struct ApiConnection {
    edge: Arc<Edge>,
    stream: ApiStream,
    peer: SocketAddr,
    client: Arc<ApiClient>,
    /// Bytes after the last request.
    buffer: Vec<u8>,
    /// The request that is coming.
    reader: RequestReader,
    /// End of the time for it.
    request_end: Option<Instant>,
    /// After a refusal: what is still read.
    discard: Option<RefusedInput>,
}

/// Wait for bytes of the client.
struct ApiWait {
    end: Instant,
    /// Nothing is under way.
    is_idle: bool,
}

/// Bytes and time that are left for a refused client.
struct RefusedInput {
    bytes: usize,
    end: Instant,
}

impl Parked for ApiConnection {
    fn fd(&self) -> RawFd {
        self.stream.fd()
    }

    fn resume(self: Box<Self>) {
        if !self.client.set_busy() {
            return;
        }
        let edge = Arc::clone(&self.edge);
        let job = Box::new(move || self.serve());
        if let Err(e) = edge.api.workers.run(job, MAX_THREADS) {
            edge.warn_spawn_failed("a client of the REST API", &e);
        }
    }

    fn expire(self: Box<Self>) {}
}

impl ApiConnection {
    fn park(self, wait: ApiWait) {
        if wait.is_idle {
            self.client.set_idle();
        }
        let edge = Arc::clone(&self.edge);
        if let Err(e) = edge.parking.park(Box::new(self), wait.end) {
            edge.warn_park_failed(&e);
        }
    }

    fn serve(mut self) {
        let outcome = match self.discard.take() {
            Some(discard) => Ok(self.discard(discard)),
            None => self.serve_requests(),
        };
        match outcome {
            Ok(Some(wait)) => self.park(wait),
            Ok(None) => {}
            Err(e) => {
                event!(debug, obj = "edge", "API client disconnected", r = self.peer, err = e);
            }
        }
    }

    /// Serves the requests that have come. Returns the wait for the next one, or for the rest of
    /// one; `None` at the end of the connection.
    fn serve_requests(&mut self) -> io::Result<Option<ApiWait>> {
        loop {
            let now = sys::clock();
            let end = *self.request_end.get_or_insert(now + REQUEST_TIMEOUT);
            self.stream.set_deadline(Deadline::At(end.min(now + READ_PATIENCE)));
            let admit = |request: &ApiHttpRequest| {
                auth::authenticate(&self.edge, self.peer, request).map(drop)
            };
            let outcome = match self.reader.read(&mut self.stream, &mut self.buffer, admit) {
                Err(e) if e.kind() == io::ErrorKind::TimedOut && sys::clock() < end => {
                    return Ok(Some(ApiWait { end, is_idle: false }));
                }
                outcome => outcome?,
            };
            self.request_end = None;
            self.stream.set_deadline(Deadline::At(sys::clock() + RESPONSE_TIMEOUT));
            match outcome {
                ReadOutcome::Closed => return Ok(None),
                ReadOutcome::Invalid(error) => return self.refuse(&error),
                ReadOutcome::Request(request) => {
                    let keep = request.keep_alive && !self.edge.is_draining();
                    let response = router::respond(&self.edge, self.peer, &request);
                    self.stream.set_deadline(Deadline::At(sys::clock() + RESPONSE_TIMEOUT));
                    let to_head = request.method == "HEAD";
                    http::write(&mut self.stream, &response, keep, to_head)?;
                    if !keep {
                        self.stream.finish();
                        return Ok(None);
                    }
                }
            }
            if self.buffer.is_empty() && !self.stream.has_bytes() {
                return Ok(Some(ApiWait { end: sys::clock() + IDLE_TIMEOUT, is_idle: true }));
            }
        }
    }

    /// Sends an error, and discards what the client still sends.
    fn refuse(&mut self, error: &ApiError) -> io::Result<Option<ApiWait>> {
        http::write(&mut self.stream, &router::refusal(error), false, false)?;
        self.stream.finish();
        let discard = RefusedInput { bytes: LINGER_BYTES, end: sys::clock() + LINGER_TIMEOUT };
        Ok(self.discard(discard))
    }

    /// Discards what has come. Returns the wait for more.
    fn discard(&mut self, mut discard: RefusedInput) -> Option<ApiWait> {
        let end = discard.end;
        self.stream.set_deadline(Deadline::At(end.min(sys::clock() + READ_PATIENCE)));
        let mut piece = [0; 8 * 1024];
        while discard.bytes > 0 {
            match self.stream.read(&mut piece) {
                Ok(1..) if sys::clock() >= end => return None,
                Ok(n @ 1..) => discard.bytes = discard.bytes.saturating_sub(n),
                Err(e) if e.kind() == io::ErrorKind::TimedOut && sys::clock() < end => {
                    self.discard = Some(discard);
                    return Some(ApiWait { end, is_idle: true });
                }
                Ok(_) | Err(_) => return None,
            }
        }
        None
    }
}
