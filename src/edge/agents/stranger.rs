//! A connection to the agents' port that has not shown an authtoken: its place, and how it is
//! closed when another connection needs the place. The handshake is not made here.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Weak};

use crate::edge::places::{Holder, Place};
use crate::mux::Code;
use crate::session::Session;
use crate::sys;
use crate::sys::sync::Mutex;
use crate::time::Instant;

/// A connection without an authtoken.
pub struct Stranger {
    place: Place,
    started: Instant,
    handle: Mutex<StrangerHandle>,
}

/// What closes the connection.
enum StrangerHandle {
    /// No byte has come.
    Silent(Weak<TcpStream>),
    /// A second descriptor of the socket, which the handshake has.
    Handshake(TcpStream),
    Session(Session),
}

impl Stranger {
    /// Registers a connection that has sent nothing.
    pub fn new(place: Place, socket: &Arc<TcpStream>) -> Arc<Self> {
        let now = sys::clock();
        let handle = Mutex::new(StrangerHandle::Silent(Arc::downgrade(socket)));
        let stranger = Arc::new(Stranger { place, started: now, handle });
        let holder: Arc<dyn Holder> = Arc::<Stranger>::clone(&stranger);
        if !stranger.place.set_holder(&holder) {
            holder.give_way(false);
        }
        stranger.place.set_idle(now);
        stranger
    }

    /// Records that the first bytes have arrived. `handle` is a second descriptor of the socket.
    /// Returns `false` if the connection has to give way.
    pub fn begin_handshake(&self, handle: TcpStream) -> bool {
        *self.handle.lock() = StrangerHandle::Handshake(handle);
        self.place.set_busy()
    }

    /// Records the end of the handshake.
    pub fn begin_session(&self, session: &Session) {
        *self.handle.lock() = StrangerHandle::Session(session.clone());
    }
}

impl Holder for Stranger {
    fn give_way(self: Arc<Self>, _: bool) {
        let socket = match &*self.handle.lock() {
            StrangerHandle::Silent(socket) => socket.upgrade(),
            StrangerHandle::Handshake(socket) => {
                let _ = socket.shutdown(Shutdown::Both);
                None
            }
            StrangerHandle::Session(session) => {
                session.close(Code::NO_ERROR, "the edge is full, authentication took too long");
                None
            }
        };
        if let Some(socket) = socket {
            // The parking reads the end, and closes the connection.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn last_progress(&self) -> Instant {
        self.started
    }
}
