//! A visitor's place at the edge: whose it is, when the visitor had progress last, and how its
//! connection ends when another visitor needs the place. Nothing is read or written here.

use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::origin::ConnectionOrigin;
use crate::edge::places::{Holder, Place};
use crate::edge::shares::AddressOwner;
use crate::sys;
use crate::sys::sync::Mutex;
use crate::time::Instant;

/// What a visitor's connection is used for.
pub trait VisitorWork: Send + Sync {
    /// Cuts it off. Does not block.
    fn cut_off(self: Arc<Self>);
}

/// A visitor.
pub struct Visitor {
    addresses: Mutex<VisitorAddresses>,
    place: Place,
    /// Place of the thread that serves the connection. Held by the thread.
    thread: Mutex<Weak<Place>>,
    socket: Weak<TcpStream>,
    work: Mutex<Option<Weak<dyn VisitorWork>>>,
    /// Second of the last byte. Machines with 32 bits have no larger atomic.
    last_progress: AtomicU32,
    leaves: AtomicBool,
}

/// Addresses of a visitor, as far as they are known.
#[derive(Clone, Copy)]
struct VisitorAddresses {
    origin: ConnectionOrigin,
    client: IpAddr,
}

/// Returns the owner of the places of a visitor with this address.
pub fn owner(client: IpAddr) -> AddressOwner {
    AddressOwner::of(client)
}

impl Visitor {
    /// Registers a visitor that has sent nothing.
    pub fn new(origin: ConnectionOrigin, place: Place, socket: &Arc<TcpStream>) -> Arc<Self> {
        let addresses = VisitorAddresses { origin, client: origin.peer.ip() };
        let visitor = Arc::new(Visitor {
            addresses: Mutex::new(addresses),
            place,
            thread: Mutex::default(),
            socket: Arc::downgrade(socket),
            work: Mutex::new(None),
            last_progress: AtomicU32::new(sys::clock().as_seconds()),
            leaves: AtomicBool::new(false),
        });
        let holder: Arc<dyn Holder> = Arc::<Visitor>::clone(&visitor);
        if !visitor.place.set_holder(&holder) {
            holder.give_way(false);
        }
        visitor
    }

    /// Returns the addresses of the connection.
    pub fn origin(&self) -> ConnectionOrigin {
        self.addresses.lock().origin
    }

    /// Sets the addresses that a PROXY header names.
    pub fn set_origin(&self, origin: ConnectionOrigin) {
        self.addresses.lock().origin = origin;
        self.set_client(origin.peer.ip());
    }

    /// Returns the address of the client for which the connection was made: the owner of its
    /// places.
    pub fn client(&self) -> IpAddr {
        self.addresses.lock().client
    }

    /// Sets the client of the current request, as a trusted proxy names it.
    pub fn set_client(&self, client: IpAddr) {
        let before = std::mem::replace(&mut self.addresses.lock().client, client);
        if before != client {
            self.place.set_owner(owner(client));
        }
    }

    /// Sets what the connection is used for.
    pub fn set_work(&self, work: Weak<dyn VisitorWork>) {
        *self.work.lock() = Some(work);
    }

    /// Sets the place of the thread that serves the connection from now on. Returns `false` if
    /// the connection has to give way.
    pub fn set_thread(self: &Arc<Self>, place: &Arc<Place>) -> bool {
        *self.thread.lock() = Arc::downgrade(place);
        let holder: Arc<dyn Holder> = Arc::<Visitor>::clone(self);
        place.set_holder(&holder)
    }

    /// Records that nothing is under way from now on.
    pub fn set_idle(&self) {
        let now = sys::clock();
        self.place.set_idle(now);
        if let Some(thread) = self.thread() {
            thread.set_idle(now);
        }
    }

    /// Records that something is under way. Returns `false` if the connection has to give way.
    pub fn set_busy(&self) -> bool {
        let thread_stays = self.thread().is_none_or(|thread| thread.set_busy());
        self.place.set_busy() && thread_stays
    }

    fn thread(&self) -> Option<Arc<Place>> {
        self.thread.lock().upgrade()
    }

    /// Returns whether the connection has to end after what is under way.
    pub fn leaves(&self) -> bool {
        self.leaves.load(Ordering::Relaxed)
    }

    /// Records that the visitor took or sent bytes.
    pub fn record_progress(&self) {
        self.last_progress.store(sys::clock().as_seconds(), Ordering::Relaxed);
    }
}

impl Holder for Visitor {
    fn give_way(self: Arc<Self>, was_idle: bool) {
        self.leaves.store(true, Ordering::Relaxed);
        let work = self.work.lock().as_ref().and_then(Weak::upgrade);
        if let Some(work) = work.filter(|_| !was_idle) {
            work.cut_off();
        }
        let Some(socket) = self.socket.upgrade() else { return };
        if !was_idle {
            sys::reset_on_close(socket.as_raw_fd());
        }
        // A thread that reads gets the end, and so does the parking.
        let _ = socket.shutdown(Shutdown::Read);
    }

    fn last_progress(&self) -> Instant {
        let seconds = self.last_progress.load(Ordering::Relaxed);
        Instant::ZERO + Duration::from_secs(seconds.into())
    }
}
