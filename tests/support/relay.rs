//! A relay between agent and edge that can stop carrying bytes, like a dead link: no end, no
//! reset.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// Directions that are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carries {
    pub to_edge: bool,
    pub to_agent: bool,
}

/// Both directions.
pub const ALL: Carries = Carries { to_edge: true, to_agent: true };

/// A relay. It carries everything at first.
pub struct Relay {
    pub addr: SocketAddr,
    /// `None`: connections end at once.
    open: Arc<Mutex<Option<Vec<TcpStream>>>>,
    state: Arc<(Mutex<Carries>, Condvar)>,
}

impl Relay {
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new((Mutex::new(ALL), Condvar::new()));
        let shared = state.clone();
        let open = Arc::new(Mutex::new(Some(Vec::new())));
        let connections = open.clone();
        thread::spawn(move || {
            for agent in listener.incoming().flatten() {
                let Ok(edge) = TcpStream::connect(target) else { continue };
                match connections.lock().unwrap().as_mut() {
                    Some(list) => list.extend(agent.try_clone()),
                    None => continue,
                }
                let pair = [(agent.try_clone(), edge.try_clone()), (Ok(edge), Ok(agent))];
                for (n, (from, to)) in pair.into_iter().enumerate() {
                    let (Ok(from), Ok(to)) = (from, to) else { continue };
                    let shared = shared.clone();
                    thread::spawn(move || carry(from, to, &shared, n == 0));
                }
            }
        });
        Relay { addr, open, state }
    }

    /// Ends every connection, and each new one at once until `mend`.
    pub fn cut(&self) {
        for connection in self.open.lock().unwrap().take().into_iter().flatten() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    pub fn mend(&self) {
        *self.open.lock().unwrap() = Some(Vec::new());
    }

    /// Changes what is carried. Delayed bytes continue when their direction is carried again.
    pub fn set(&self, carries: Carries) {
        *self.state.0.lock().unwrap() = carries;
        self.state.1.notify_all();
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, state: &(Mutex<Carries>, Condvar), up: bool) {
    let open = |carries: &Carries| if up { carries.to_edge } else { carries.to_agent };
    let mut buffer = [0; 16 * 1024];
    loop {
        let n = from.read(&mut buffer).unwrap_or(0);
        let held = state.1.wait_while(state.0.lock().unwrap(), |carries| !open(carries));
        drop(held);
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
    }
}
