//! Sends a captured request again, unchanged or changed, directly to an endpoint's upstream:
//! without edge and policy. The exchange is captured like any other.
//!
//! Each replay has its own thread, a few at a time and for half a minute at most. `request`
//! composes the request. The captured exchanges are those of [`crate::inspect`], which parses
//! and stores them.

mod error;
mod request;

use std::io::{self, Cursor, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub use error::ReplayError;
pub use request::RequestChanges;

use crate::event;
use crate::http1::head::HeadRanges;
use crate::inspect::{Inspector, MessageState, Tap};
use crate::proto::proxy_protocol;
use crate::proxy::pages::{self, Unreachable};
use crate::proxy::{ProxyTarget, UpstreamConn, files};
use crate::sys::sync::Mutex;
use crate::sys::{self, poll, threads};
use error::MAX_REPLAYS;
use request::compose;

/// Maximum number of endpoints for replays. The oldest are removed first.
const MAX_TARGETS: usize = 256;

/// Time for a replay after the connection to the upstream.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(30);

/// Time between two attempts to send bytes that the upstream has not accepted yet.
const SEND_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Maximum number of bytes of a response that are read. Few of them are stored.
const MAX_RESPONSE_BYTES: usize = 16 * 1024 * 1024;

/// Sends captured requests again. A program has one.
pub struct Replayer {
    inspector: Arc<Inspector>,
    /// Targets by the name of their endpoint, the oldest first.
    targets: Mutex<Vec<Arc<ProxyTarget>>>,
    /// Replays under way.
    running: AtomicUsize,
}

impl Replayer {
    /// Returns a replayer for the captures of `inspector`.
    pub fn new(inspector: Arc<Inspector>) -> Arc<Self> {
        Arc::new(Replayer { inspector, targets: Mutex::default(), running: AtomicUsize::new(0) })
    }

    /// Returns the captured requests.
    pub fn inspector(&self) -> &Arc<Inspector> {
        &self.inspector
    }

    /// Sets the target for replays to the endpoint of this name. Does nothing for an endpoint
    /// whose requests are not captured.
    pub fn set_target(&self, target: &Arc<ProxyTarget>) {
        if target.source.is_none() {
            return;
        }
        let mut targets = self.targets.lock();
        match targets.iter_mut().find(|known| known.name == target.name) {
            Some(known) => *known = Arc::clone(target),
            None => {
                if targets.len() >= MAX_TARGETS {
                    targets.remove(0);
                }
                targets.push(Arc::clone(target));
            }
        }
    }

    /// Removes the target of an endpoint that was removed.
    pub fn remove_target(&self, name: &str) {
        self.targets.lock().retain(|target| target.name != name);
    }

    fn target(&self, name: &str) -> Option<Arc<ProxyTarget>> {
        self.targets.lock().iter().find(|target| target.name == name).cloned()
    }

    /// Sends a captured request again: to its own endpoint's upstream, or to that of
    /// `endpoint`. Returns the id of the new exchange; its response arrives later.
    pub fn replay(
        self: &Arc<Self>,
        id: &str,
        endpoint: Option<&str>,
        changes: Option<&RequestChanges>,
    ) -> Result<String, ReplayError> {
        let captured = self.inspector.get(id).ok_or(ReplayError::NotFound)?;
        let summary = &captured.summary;
        let is_complete = summary.request == MessageState::Complete && !summary.request_cut;
        let changes = changes.cloned().unwrap_or_default();
        let request = compose(&captured.request, is_complete, &changes)?;
        let name = endpoint.filter(|name| !name.is_empty()).unwrap_or(&summary.endpoint);
        let target = self.target(name).ok_or_else(|| ReplayError::NoEndpoint(name.to_owned()))?;
        let running = RunningReplay::begin(self).ok_or(ReplayError::Busy)?;
        let tap = self.inspector.replay_tap(name, summary.id, &target.metrics);
        let id = tap.begin_request(&request).map(|id| id.to_string()).unwrap_or_default();
        threads::REPLAY
            .spawn(Box::new(move || {
                let _running = running;
                run(&target, &request, &tap);
            }))
            .map_err(|e| ReplayError::System(e.to_string()))?;
        Ok(id)
    }
}

/// Permit for one running replay.
struct RunningReplay(Arc<Replayer>);

impl RunningReplay {
    /// Returns `None` if the maximum is running.
    fn begin(replayer: &Arc<Replayer>) -> Option<RunningReplay> {
        // A loop, because newer versions of Rust deprecate `fetch_update` and older ones lack
        // `try_update`.
        let mut running = replayer.running.load(Ordering::Relaxed);
        while running < MAX_REPLAYS {
            let (new, relaxed) = (running + 1, Ordering::Relaxed);
            match replayer.running.compare_exchange_weak(running, new, relaxed, relaxed) {
                Ok(_) => return Some(RunningReplay(Arc::clone(replayer))),
                Err(now) => running = now,
            }
        }
        None
    }
}

impl Drop for RunningReplay {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Main function of the thread.
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
        // The part before the failure stays.
        Err(_) if tap.is_idle() => {}
        Err(e) => {
            event!(warn, obj = "web", "replay failed", l = target.upstream, err = e);
            let page = pages::bad_gateway(
                HeadRanges::default().request(request).ok().as_ref(),
                &Unreachable {
                    url: &target.url,
                    upstream: &target.upstream.to_string(),
                    error: &e.to_string(),
                    is_listening: e.kind() == io::ErrorKind::InvalidData,
                },
            );
            // No byte was received, or the bytes are not a response.
            tap.response(&page);
            tap.abort();
        }
    }
}

/// Sends and receives in turns: an upstream may respond before it has read everything.
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
                // It may have responded before it closed. One that did not close is notified of
                // the end.
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
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "no complete response in 30 seconds",
            ));
        }
        // Bytes that the TLS library still buffers are sent like those that wait here.
        let step = if waits || !unsent.is_empty() {
            SEND_RETRY_INTERVAL
        } else {
            left.min(REPLAY_TIMEOUT)
        };
        poll::readable(&upstream.fd(), Some(step))?;
    }
}

/// Writer for a directory's response, which is only captured.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn as_many_replays_run_as_allowed() {
        let replayer = Replayer::new(Inspector::with_ceiling(1 << 20).unwrap());
        let start = std::sync::Barrier::new(4 * MAX_REPLAYS);
        let running: Vec<_> = thread::scope(|scope| {
            let take = || {
                start.wait();
                RunningReplay::begin(&replayer)
            };
            let threads: Vec<_> = (0..4 * MAX_REPLAYS).map(|_| scope.spawn(take)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(running.len(), MAX_REPLAYS);
        assert!(RunningReplay::begin(&replayer).is_none());
        drop(running);
        assert!(RunningReplay::begin(&replayer).is_some());
    }
}
