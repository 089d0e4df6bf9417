//! Connections of the REST API: place, thread, TLS, and one request after the other. A
//! connection without a request waits in the parking, without a thread.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::error::ApiError;
use super::http::{self, ReadOutcome};
use super::router;
use super::state::{ConnectionPlace, MAX_THREADS};
use super::stream::ApiStream;
use crate::edge::Edge;
use crate::edge::parking::Parked;
use crate::event;
use crate::sys;
use crate::time::Deadline;

/// Time for a request, from its first byte to its last, and for a handshake before it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

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
    let Some(place) = edge.api.connect() else {
        edge.warn_full("connections of the REST API");
        return;
    };
    let tls = edge.api.uses_tls().then(|| Arc::clone(&edge.tls().opaque));
    match ApiStream::new(socket, tls) {
        Ok(stream) => {
            let (edge, buffer) = (Arc::clone(edge), Vec::new());
            ApiConnection { edge, stream, peer, buffer, _place: place }.park();
        }
        Err(e) => event!(debug, obj = "edge", "API client disconnected", r = peer, err = e),
    }
}

/// A connection.
struct ApiConnection {
    edge: Arc<Edge>,
    stream: ApiStream,
    peer: SocketAddr,
    /// Bytes after the last request.
    buffer: Vec<u8>,
    _place: ConnectionPlace,
}

impl Parked for ApiConnection {
    fn fd(&self) -> RawFd {
        self.stream.fd()
    }

    fn resume(self: Box<Self>) {
        let edge = Arc::clone(&self.edge);
        let job = Box::new(move || self.serve());
        if let Err(e) = edge.api.workers.run(job, MAX_THREADS) {
            edge.warn_spawn_failed("a client of the REST API", &e);
        }
    }

    fn expire(self: Box<Self>) {}
}

impl ApiConnection {
    fn park(self) {
        let edge = Arc::clone(&self.edge);
        if let Err(e) = edge.parking.park(Box::new(self), sys::clock() + IDLE_TIMEOUT) {
            edge.warn_park_failed(&e);
        }
    }

    fn serve(mut self) {
        match self.serve_requests() {
            Ok(true) => self.park(),
            Ok(false) => {}
            Err(e) => {
                event!(debug, obj = "edge", "API client disconnected", r = self.peer, err = e);
            }
        }
    }

    /// Serves the requests that have come. Returns whether the connection stays open.
    fn serve_requests(&mut self) -> io::Result<bool> {
        loop {
            self.stream.set_deadline(Deadline::At(sys::clock() + REQUEST_TIMEOUT));
            let outcome = http::read(&mut self.stream, &mut self.buffer)?;
            self.stream.set_deadline(Deadline::At(sys::clock() + RESPONSE_TIMEOUT));
            match outcome {
                ReadOutcome::Closed => return Ok(false),
                ReadOutcome::Invalid(error) => return self.refuse(&error).map(|()| false),
                ReadOutcome::Request(request) => {
                    let keep = request.keep_alive && !self.edge.is_draining();
                    let response = router::respond(&self.edge, self.peer, &request);
                    self.stream.set_deadline(Deadline::At(sys::clock() + RESPONSE_TIMEOUT));
                    let to_head = request.method == "HEAD";
                    http::write(&mut self.stream, &response, keep, to_head)?;
                    if !keep {
                        self.stream.finish();
                        return Ok(false);
                    }
                }
            }
            if self.buffer.is_empty() && !self.stream.has_bytes() {
                return Ok(true);
            }
        }
    }

    /// Sends an error, and discards what the client still sends.
    fn refuse(&mut self, error: &ApiError) -> io::Result<()> {
        http::write(&mut self.stream, &router::refusal(error), false, false)?;
        self.stream.finish();
        self.stream.set_deadline(Deadline::At(sys::clock() + LINGER_TIMEOUT));
        let (mut left, mut piece) = (LINGER_BYTES, [0; 8 * 1024]);
        while left > 0 {
            match io::Read::read(&mut self.stream, &mut piece) {
                Ok(0) | Err(_) => return Ok(()),
                Ok(n) => left = left.saturating_sub(n),
            }
        }
        Ok(())
    }
}
