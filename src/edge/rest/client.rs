//! A client's place among the connections of the REST API: the owner of its address, and how its
//! connection ends when another client needs the place. Nothing is read or written here.

use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::Arc;

use crate::edge::places::{Holder, Place};
use crate::edge::shares::AddressOwner;
use crate::sys;
use crate::sys::sync::Mutex;
use crate::time::Instant;

use super::state::ApiState;

/// A client's connection.
pub struct ApiClient {
    place: Place,
    /// A second descriptor of the socket, which the stream has.
    socket: TcpStream,
    /// When bytes came last.
    last_progress: Mutex<Instant>,
}

impl ApiClient {
    /// Registers a connection of `ip`. `None`: its address holds most of all places, and none of
    /// them is idle, or the process is out of descriptors.
    pub fn admit(state: &ApiState, socket: &TcpStream, ip: IpAddr) -> Option<Arc<Self>> {
        let socket = socket.try_clone().ok()?;
        let place = state.admit(AddressOwner::of(ip))?;
        let last_progress = Mutex::new(sys::clock());
        let client = Arc::new(ApiClient { place, socket, last_progress });
        let holder: Arc<dyn Holder> = Arc::<ApiClient>::clone(&client);
        client.place.set_holder(&holder).then_some(client)
    }

    /// Records that it waits for a request from now on.
    pub fn set_idle(&self) {
        self.place.set_idle(sys::clock());
    }

    /// Records that bytes have come. Returns `false` if the connection has to give way.
    pub fn set_busy(&self) -> bool {
        *self.last_progress.lock() = sys::clock();
        self.place.set_busy()
    }
}

impl Holder for ApiClient {
    fn give_way(self: Arc<Self>, _: bool) {
        // A thread that reads gets the end, and so does the parking.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn last_progress(&self) -> Instant {
        *self.last_progress.lock()
    }
}
