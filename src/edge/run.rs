//! Start and stop of the edge: opens everything, prints the addresses, accepts until a
//! signal and lets visitors finish. What a connection does is not decided here.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring as provider;
use serde_json::json;

use super::agents::credentials::Credentials;
use super::certificates::{self, CertResolver};
use super::config::EdgeConfig;
use super::context::{EdgeSettings, EdgeTls};
use super::listeners::{ListenerKind, Listeners};
use super::state::{self, EdgeStateDir, Secrecy};
use super::{Edge, agents, visitors};
use crate::event;
use crate::session::ProcessBuffers;
use crate::sys::sync::RwLock;
use crate::sys::{self, poll, signals, threads};
use crate::tls::server;

/// Pause between two checks for expired reservations and unused ports.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Descriptors reserved for listeners, agents and files.
const RESERVED_FDS: usize = 256;

/// Addresses and files, for standard output and the ready file.
struct ReadyInfo {
    agent: SocketAddr,
    http: SocketAddr,
    https: SocketAddr,
    ca: Option<PathBuf>,
    agent_config: Option<PathBuf>,
    authtoken: Option<PathBuf>,
}

/// Runs the edge until a signal ends it.
pub fn run(config: EdgeConfig, ready_file: Option<&Path>) -> io::Result<()> {
    let signal_fd = signals::install()?;
    signals::graceful(true);
    sys::protect_memory();
    let (edge, ready) = open(config)?;
    if let Some(path) = ready_file {
        state::write(path, ready_json(&edge, &ready).as_bytes(), Secrecy::Public)?;
    }
    announce(&edge, &ready);
    event!(info, obj = "edge", "ready", addr = ready.agent, http = ready.http, https = ready.https);

    let acceptor = Arc::clone(&edge);
    threads::ACCEPT.spawn(Box::new(move || {
        acceptor.listeners.run(|kind, socket, peer| dispatch(&acceptor, kind, socket, peer));
    }))?;
    while signals::stops() == 0 {
        poll::readable(signal_fd, Some(SWEEP_INTERVAL))?;
        edge.registry.expire_reservations(sys::clock());
        edge.listeners.close_unused_ports(&edge.registry.ports());
    }
    stop(&edge);
    Ok(())
}

/// Starts the thread of an accepted connection. Does not block.
fn dispatch(edge: &Arc<Edge>, kind: ListenerKind, socket: TcpStream, peer: SocketAddr) {
    let _ = socket.set_nodelay(true);
    match kind {
        ListenerKind::Agent => agents::accept::spawn(edge, socket, peer),
        _ => visitors::accept::spawn(edge, kind, socket, peer),
    }
}

/// Lets visitors finish, then closes the sessions of the agents.
fn stop(edge: &Edge) {
    event!(info, obj = "edge", "stopping", visitors = edge.visitors.count());
    edge.drain();
    edge.listeners.stop();
    let left = edge.visitors.drain(edge.config().limits.grace, || signals::stops() > 1);
    if left > 0 {
        event!(warn, obj = "edge", "visitors cut off", visitors = left);
    }
    edge.agents.close("the edge is stopping");
    edge.visitors.abort_all();
    event!(info, obj = "edge", "stopped");
}

/// Reads keys and certificates, and opens all listeners.
fn open(mut config: EdgeConfig) -> io::Result<(Arc<Edge>, ReadyInfo)> {
    limit_visitors(&mut config);
    let dir = EdgeStateDir::open(&config.dir)?;
    let key = dir.key()?;
    let mut authtoken = None;
    if config.dev {
        let (token, path) = dir.authtoken()?;
        config.credentials = Credentials::dev(&token);
        authtoken = Some((token, path));
    }
    let (tls, ca) = tls_configs(&config, &dir)?;

    let listeners = Listeners::new(config.tcp, config.ports)?;
    let agent = listen(&listeners, ListenerKind::Agent, "--agent-addr", config.agent)?;
    let http = listen(&listeners, ListenerKind::Http, "--http-addr", config.http)?;
    let https = listen(&listeners, ListenerKind::Https, "--https-addr", config.https)?;

    let mut ready = ReadyInfo { agent, http, https, ca, agent_config: None, authtoken: None };
    if let Some((token, path)) = authtoken {
        let ca = ready.ca.clone().unwrap_or_default();
        ready.agent_config = Some(dir.write_agent_config(&token, agent, &ca)?);
        ready.authtoken = Some(path);
    }
    let buffers = Arc::new(ProcessBuffers::new(config.limits.total_buffer));
    let edge = Edge {
        settings: RwLock::new(EdgeSettings { config: Arc::new(config), tls: Arc::new(tls) }),
        key,
        registry: Default::default(),
        agents: Default::default(),
        visitors: Default::default(),
        buffers,
        listeners,
        http_port: http.port(),
        https_port: https.port(),
        draining: Default::default(),
        warning_quotas: Default::default(),
    };
    Ok((Arc::new(edge), ready))
}

/// Raises the limit of open files and keeps the number of visitors below it.
fn limit_visitors(config: &mut EdgeConfig) {
    let files = sys::fd_budget::raise_limit();
    let max_visitors = files.saturating_sub(RESERVED_FDS.max(files / 8)).max(16);
    if config.limits.visitors > max_visitors {
        event!(
            warn,
            obj = "edge",
            "too few descriptors, visitor limit reduced",
            limit = max_visitors
        );
        config.limits.visitors = max_visitors;
    }
}

/// Returns the TLS configurations, from the configured certificates or from the CA in `dir`. In
/// the second case the file of the CA is returned too.
fn tls_configs(config: &EdgeConfig, dir: &EdgeStateDir) -> io::Result<(EdgeTls, Option<PathBuf>)> {
    let own_names = certificates::own_names(&config.domain, config.agent.ip());
    let (resolver, (chain, key), ca_file) = match config.certificates.first() {
        Some((chain, key)) => {
            let own = certificates::load(chain, key)?;
            (CertResolver::from_files(&config.certificates)?, own, None)
        }
        None => {
            let (ca, path) = dir.ca()?;
            let own = ca.issue(&own_names)?;
            let mut domains = vec![config.domain.clone(), "localhost".into()];
            domains.extend(config.domains.iter().cloned());
            (CertResolver::from_ca(Arc::new(ca), domains, &own_names)?, own, Some(path))
        }
    };
    let resolver = Arc::new(resolver);
    let tls = EdgeTls {
        agent: server::tunnel_config(chain, key)?,
        http: visitor_tls(&resolver, vec![b"http/1.1".to_vec()])?,
        opaque: visitor_tls(&resolver, Vec::new())?,
    };
    Ok((tls, ca_file))
}

fn visitor_tls(resolver: &Arc<CertResolver>, alpn: Vec<Vec<u8>>) -> io::Result<Arc<ServerConfig>> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::<CertResolver>::clone(resolver));
    config.alpn_protocols = alpn;
    Ok(Arc::new(config))
}

/// Opens one of the fixed listeners. The error names its flag.
fn listen(
    listeners: &Listeners,
    kind: ListenerKind,
    flag: &str,
    address: SocketAddr,
) -> io::Result<SocketAddr> {
    listeners.listen(kind, address).map_err(|e| {
        let advice = if e.kind() == io::ErrorKind::AddrInUse {
            format!(". Choose another address with {flag}")
        } else {
            String::new()
        };
        io::Error::new(e.kind(), format!("cannot listen on {address}: {e}{advice}"))
    })
}

fn ready_json(edge: &Edge, ready: &ReadyInfo) -> String {
    let path = |p: &Option<PathBuf>| p.as_ref().map(|p| p.display().to_string());
    let text = json!({
        "agent_addr": ready.agent.to_string(),
        "http_addr": ready.http.to_string(),
        "https_addr": ready.https.to_string(),
        "tcp_ports": edge.listeners.port_range(),
        "domain": edge.config().domain,
        "ca": path(&ready.ca),
        "agent_config": path(&ready.agent_config),
        "authtoken_file": path(&ready.authtoken),
    });
    format!("{text}\n")
}

/// Prints the addresses and the next command.
fn announce(edge: &Edge, ready: &ReadyInfo) {
    let config = edge.config();
    let domain = &config.domain;
    let port = |p: u16, usual: u16| if p == usual { String::new() } else { format!(":{p}") };
    let (http, https) = (port(ready.http.port(), 80), port(ready.https.port(), 443));
    let mut text = format!(
        "culvert-edge is ready.\n\n  agents   {}\n  http     http://NAME.{domain}{http}\n  \
         https    https://NAME.{domain}{https}\n  tcp      {}, {}\n",
        ready.agent,
        domain,
        match edge.listeners.port_range().as_str() {
            "0" => "any free port".to_owned(),
            range => format!("ports {range}"),
        },
    );
    if let Some(ca) = &ready.ca {
        text.push_str(&format!("  CA       {}\n", ca.display()));
    }
    if let Some(config) = &ready.agent_config {
        text.push_str(&format!(
            "\nNext, in another terminal, to share the service on port 8080:\n\n  culvert http 8080 \
             --config {}\n",
            config.display()
        ));
    }
    // A closed standard output is not a reason to stop.
    let _ = io::stdout().write_all(text.as_bytes());
    let _ = io::stdout().flush();
}
