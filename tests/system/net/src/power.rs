//! Visitors and a service at the router. A peer whose machine loses its power sends no end: all
//! packets of its connection are dropped.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::lab::{EDGE, Lab, Place, ROUTER};

/// Time for an echo.
const ECHO: Duration = Duration::from_secs(10);

/// A connection of the agent to the service.
struct Served {
    /// First byte of the visitor.
    name: u8,
    /// Port of the agent.
    port: u16,
    ended: bool,
}

/// A service that returns each byte.
pub struct Service {
    pub addr: SocketAddr,
    served: Arc<Mutex<Vec<Served>>>,
}

impl Service {
    pub fn start(lab: &Lab) -> io::Result<Service> {
        let listener = lab.within(Place::Router, || TcpListener::bind((ROUTER, 0))).join();
        let listener = listener.map_err(|_| io::Error::other("no listener"))??;
        let addr = listener.local_addr()?;
        let served = Arc::default();
        let list = Arc::clone(&served);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let list = Arc::clone(&list);
                thread::spawn(move || _ = echo(socket, &list));
            }
        });
        Ok(Service { addr, served })
    }

    /// Returns the agent's port of the connection for the visitor `name`.
    pub fn port(&self, name: u8) -> io::Result<u16> {
        self.find(name, |served| served.port)
            .ok_or_else(|| io::Error::other("the service has no such visitor"))
    }

    /// Returns whether the connection for the visitor `name` has ended.
    pub fn ended(&self, name: u8) -> bool {
        self.find(name, |served| served.ended).unwrap_or(false)
    }

    fn find<T>(&self, name: u8, what: fn(&Served) -> T) -> Option<T> {
        let served = self.served.lock().ok()?;
        served.iter().find(|served| served.name == name).map(what)
    }
}

fn echo(mut socket: TcpStream, list: &Mutex<Vec<Served>>) -> io::Result<()> {
    let port = socket.peer_addr()?.port();
    let mut byte = [0];
    socket.read_exact(&mut byte)?;
    if let Ok(mut list) = list.lock() {
        list.push(Served { name: byte[0], port, ended: false });
    }
    while socket.write_all(&byte).and_then(|()| socket.read_exact(&mut byte)).is_ok() {}
    if let Ok(mut list) = list.lock() {
        list.iter_mut().filter(|served| served.port == port).for_each(|s| s.ended = true);
    }
    Ok(())
}

/// A visitor of a TCP endpoint.
pub struct TcpVisitor {
    socket: TcpStream,
    name: u8,
}

impl TcpVisitor {
    /// Connects to `port` of the edge, and waits for the first echo.
    pub fn start(lab: &Lab, port: u16, name: u8) -> io::Result<TcpVisitor> {
        let socket = lab.within(Place::Router, move || TcpStream::connect((EDGE, port))).join();
        let socket = socket.map_err(|_| io::Error::other("no visitor"))??;
        let mut visitor = TcpVisitor { socket, name };
        visitor.echo()?;
        Ok(visitor)
    }

    pub fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// Sends a byte and waits for it.
    pub fn echo(&mut self) -> io::Result<()> {
        self.socket.set_read_timeout(Some(ECHO))?;
        self.socket.write_all(&[self.name])?;
        self.socket.read_exact(&mut [0])
    }

    /// Returns whether the edge has closed its connection.
    pub fn ended(&mut self) -> bool {
        let read = self.socket.set_nonblocking(true).and_then(|()| self.socket.read(&mut [0]));
        let _ = self.socket.set_nonblocking(false);
        !matches!(read, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }
}
