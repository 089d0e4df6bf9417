//! Kinds of threads: name and stack size of each. A stack reserves addresses; only used pages
//! count as memory. 32-bit machines have 2 to 3 GiB of addresses, so a kind with many threads
//! has a small stack. A debug build needs more, because nothing is inlined. The work of a
//! thread is in the module that starts it.

use std::io;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

/// Error text for a session without a thread.
pub const NO_THREAD: &str = "cannot start a thread; raise ulimit -u or pids.max, or add memory";

/// A kind of thread.
#[derive(Clone, Copy, Debug)]
pub struct ThreadKind {
    /// At most 15 bytes, visible in `ps -T`.
    name: &'static str,
    /// Size in bytes.
    stack: usize,
}

/// Reactor of a session: frames and records, no handshake.
pub const REACTOR: ThreadKind = ThreadKind::new("reactor", 128, 1024);
/// Worker of the proxy. A TLS handshake with an upstream uses the most.
pub const WORKER: ThreadKind = ThreadKind::new("worker", 96, 1024);
/// Dials the edge: handshakes with the edge and with resolvers.
pub const DIAL: ThreadKind = ThreadKind::new("dial", 192, 1024);
/// Sends the rest of a long request to the edge.
pub const CALL: ThreadKind = ThreadKind::new("call", 64, 1024);
/// Reads the configuration files: documents may be nested.
pub const CONFIG: ThreadKind = ThreadKind::new("config", 256, 2048);
/// Checks for an update and installs it: a TLS handshake, and the download.
pub const UPDATE: ThreadKind = ThreadKind::new("update", 192, 1024);
/// Copies bytes between a TLS proxy and the dialer.
pub const PROXY_TLS: ThreadKind = ThreadKind::new("proxy-tls", 128, 128);
/// Replays a request, with the calls of a worker.
pub const REPLAY: ThreadKind = ThreadKind::new("replay", 96, 1024);
/// Serves all clients of the local API.
pub const WEB: ThreadKind = ThreadKind::new("web", 96, 1024);
/// Runs jobs of the local API, which parse configuration.
pub const WEB_JOB: ThreadKind = ThreadKind::new("web-job", 192, 2048);
/// Draws the screen.
pub const CONSOLE: ThreadKind = ThreadKind::new("console", 64, 512);
/// Edge: accepts connections.
pub const ACCEPT: ThreadKind = ThreadKind::new("accept", 2048, 2048);
/// Edge: waits for connections without a thread of their own.
pub const PARKING: ThreadKind = ThreadKind::new("parking", 128, 1024);
/// Edge: handshake and session of an agent.
pub const AGENT: ThreadKind = ThreadKind::new("agent", 256, 2048);
/// Edge: handshake and requests of a visitor.
pub const VISITOR: ThreadKind = ThreadKind::new("visitor", 256, 2048);
/// Edge: starts further threads for visitors.
pub const CHECK: ThreadKind = ThreadKind::new("check", 64, 512);
/// Edge: handshake and requests of a client of the REST API.
pub const API: ThreadKind = ThreadKind::new("api", 256, 2048);
/// Edge: compiles an expression of a traffic policy, whose parser recurses by the text.
pub const POLICY: ThreadKind = ThreadKind::new("policy", 2048, 8192);
/// Edge: sends the late responses to agents.
pub const ANSWER: ThreadKind = ThreadKind::new("answer", 128, 1024);

impl ThreadKind {
    const fn new(name: &'static str, release_kib: usize, debug_kib: usize) -> Self {
        let kib = if cfg!(debug_assertions) { debug_kib } else { release_kib };
        ThreadKind { name, stack: kib * 1024 }
    }

    /// Starts a thread. The work is boxed, because the standard library's function is a few
    /// kilobytes of code for each type of closure.
    pub fn spawn(self, work: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
        Builder::new().name(self.name.into()).stack_size(self.stack).spawn(work)
    }

    /// Runs work on a thread of this kind, and returns its result.
    pub fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (result, received) = mpsc::channel();
        self.spawn(Box::new(move || drop(result.send(work()))))?;
        received.recv().map_err(|_| io::Error::other("the thread has ended without a result"))
    }
}
