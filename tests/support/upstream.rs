//! Local services with scripted behaviour: one thread for each connection.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustls::ServerConfig;

use super::wire::{Message, Wire};
use super::{announce_failures, certs};

/// A listening service. It stops accepting when dropped.
pub struct Upstream {
    pub addr: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    open: AtomicUsize,
    stop: AtomicBool,
}

impl Upstream {
    /// Starts a service for raw bytes on 127.0.0.1.
    pub fn tcp(serve: impl Fn(Wire) + Send + Sync + 'static) -> Self {
        Upstream::on("127.0.0.1:0", None, serve)
    }

    /// Starts a service on another address, optionally with TLS.
    pub fn on(
        address: &str,
        tls: Option<Arc<ServerConfig>>,
        serve: impl Fn(Wire) + Send + Sync + 'static,
    ) -> Self {
        announce_failures();
        let listener = TcpListener::bind(address).unwrap_or_else(|e| panic!("{address}: {e}"));
        let addr = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let (shared, serve) = (counts.clone(), Arc::new(serve));
        thread::spawn(move || {
            for tcp in listener.incoming() {
                if shared.stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(tcp) = tcp else { continue };
                let (shared, serve, tls) = (shared.clone(), serve.clone(), tls.clone());
                shared.accepted.fetch_add(1, Ordering::Relaxed);
                shared.open.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || {
                    let _open = Open(&shared);
                    serve(match tls {
                        Some(config) => certs::accept(tcp, config),
                        None => Wire::new(tcp),
                    });
                });
            }
        });
        Upstream { addr, counts }
    }

    /// Starts a service that echoes. Its FIN follows the visitor's.
    pub fn echo() -> Self {
        Upstream::tcp(|mut wire| {
            let _ = echo(&mut wire);
        })
    }

    /// Starts a service that answers requests one after another until `serve` fails or returns
    /// false.
    pub fn http(
        serve: impl Fn(&Message, &mut Wire) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Upstream::tcp(serve_http(serve))
    }

    /// Starts an HTTP service on another address, optionally with TLS.
    pub fn http_on(
        address: &str,
        tls: Option<Arc<ServerConfig>>,
        serve: impl Fn(&Message, &mut Wire) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Upstream::on(address, tls, serve_http(serve))
    }

    /// Starts a service that responds with method, target and body of each request.
    pub fn hello() -> Self {
        Upstream::http(hello)
    }

    /// Returns the number of accepted connections.
    pub fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// Returns the number of connections that are served now.
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.addr);
    }
}

struct Open<'a>(&'a Counts);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve_http(
    serve: impl Fn(&Message, &mut Wire) -> io::Result<()> + Send + Sync + 'static,
) -> impl Fn(Wire) + Send + Sync + 'static {
    move |mut wire| {
        while let Ok(request) = wire.read_request() {
            if serve(&request, &mut wire).is_err() {
                return;
            }
        }
    }
}

/// Method, target and body of the request, as text.
pub fn hello(request: &Message, wire: &mut Wire) -> io::Result<()> {
    let text = format!("{} {} {}", request.method(), request.target(), request.text());
    match request.method() {
        "HEAD" => wire.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len())),
        _ => wire.respond("200 OK", "", text.as_bytes()),
    }
}

/// Echoes, then ends its direction.
pub fn echo(wire: &mut Wire) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match wire.read_some(&mut buffer)? {
            0 => {
                wire.half_close();
                return Ok(());
            }
            n => wire.write(&buffer[..n])?,
        }
    }
}

/// Returns whether a server listens on a port of this machine.
pub fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Returns an address without a listener: bound, then released.
pub fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
