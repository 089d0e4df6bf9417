//! Layer of the tunnel protocol: a session without Auth, with SrvInfo as its only call.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::agent::rpc::{self, CallError};
use crate::mux::{self, Code, Role, StreamId, StreamType};
use crate::proto::messages::SrvInfoResponse;
use crate::session::{self, BufferLimits, End, Handler, Session, Sink};
use crate::sys;
use crate::time::Deadline;
use crate::tls::Established;

/// Bytes of the large request: three full segments in one frame.
const LARGE_REQUEST_BYTES: usize = 4_096;

/// Bytes that the session may hold.
const BUFFERED_BYTES: usize = 256 * 1024;

/// Reason why the session does not work.
#[derive(Debug)]
pub enum TunnelFault {
    /// It cannot be started, or SrvInfo has no valid response.
    Call(String),
    /// The response to a small request came after this time, and none to a large one.
    LargeRequest(Duration),
}

impl fmt::Display for TunnelFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TunnelFault::Call(why) => f.write_str(why),
            TunnelFault::LargeRequest(_) => write!(
                f,
                "a request of {LARGE_REQUEST_BYTES} bytes had no response, a small one had"
            ),
        }
    }
}

/// Requests data of the edge on a new session, and ends it. Returns the time of the call.
pub fn probe(link: Established, deadline: Deadline) -> Result<Duration, TunnelFault> {
    let config = mux::Config::new(Role::Agent, sys::random_seed());
    let limits = BufferLimits::session(BUFFERED_BYTES);
    let session = session::start(link, config, limits, Box::new(NoStreams))
        .map_err(|e| TunnelFault::Call(format!("no session: {}", sys::fd_budget::words(&e))))?;
    let result = calls(&session, deadline);
    session.close(Code::NO_ERROR, "");
    result
}

fn calls(session: &Session, deadline: Deadline) -> Result<Duration, TunnelFault> {
    let begin = sys::clock();
    let call = |request: &[u8]| rpc::call(session, StreamType::SRV_INFO, request, deadline);
    let response = call(b"{}").map_err(|e| TunnelFault::Call(format!("SrvInfo: {e}")))?;
    let latency = sys::clock().since(begin);
    SrvInfoResponse::decode(&response)
        .map_err(|e| TunnelFault::Call(format!("invalid response to SrvInfo: {e}")))?;
    let mut large = vec![b' '; LARGE_REQUEST_BYTES];
    large[0] = b'{';
    large[LARGE_REQUEST_BYTES - 1] = b'}';
    match call(&large) {
        Err(CallError::Late) => Err(TunnelFault::LargeRequest(latency)),
        // Another error is about the request, not about the path.
        _ => Ok(latency),
    }
}

/// Application that accepts no streams of the edge.
struct NoStreams;

impl Handler for NoStreams {
    fn opened(&mut self, _: &Session, _: StreamId, _: StreamType) -> Option<Arc<dyn Sink>> {
        None
    }

    fn ended(&mut self, _: &End) {}
}
