//! The edge's life: opens everything, says so, accepts until it is told to stop,
//! and lets its visitors finish.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring as provider;
use serde_json::json;

use super::agents::credentials::{Credential, Credentials};
use super::certificates::{self, CertResolver};
use super::config::EdgeConfig;
use super::listeners::{ListenerKind, Listeners};
use super::state::{self, Secrecy, StateDir};
use super::visitors::accept;
use super::{Edge, token};
use crate::event;
use crate::sys::{self, poll, signals, threads};
use crate::tls::client;

/// How often names that were kept long enough are freed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Descriptors that visitors may not take: listeners, agents, files.
const RESERVED_FDS: usize = 256;

/// What people and programs are told when everything listens.
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
        acceptor
            .listeners()
            .run(|kind, socket, peer| accept::dispatch(&acceptor, kind, socket, peer));
    }))?;
    while signals::stops() == 0 {
        poll::readable(signal_fd, Some(SWEEP_INTERVAL))?;
        edge.registry().expire_reservations(sys::clock());
        edge.listeners().close_unused_ports(&edge.registry().ports());
    }
    stop(&edge);
    Ok(())
}

/// Lets visitors finish, then says goodbye to the agents.
fn stop(edge: &Edge) {
    event!(info, obj = "edge", "stopping", visitors = edge.visitors().len());
    edge.drain();
    edge.listeners().stop();
    let left = edge.visitors().drain(edge.limits().grace, || signals::stops() > 1);
    if left > 0 {
        event!(warn, obj = "edge", "visitors cut off", visitors = left);
    }
    edge.agents().close("the edge is stopping");
    edge.visitors().abort_all();
    event!(info, obj = "edge", "stopped");
}

/// Reads keys and certificates, and opens all listeners.
fn open(mut config: EdgeConfig) -> io::Result<(Arc<Edge>, ReadyInfo)> {
    let files = sys::fd_budget::raise_limit();
    let max_visitors = files.saturating_sub(RESERVED_FDS.max(files / 8)).max(16);
    if config.limits.visitors > max_visitors {
        event!(
            warn,
            obj = "edge",
            "fewer visitors than configured: the limit of open files",
            l = max_visitors
        );
        config.limits.visitors = max_visitors;
    }
    let dir = StateDir::open(&config.dir)?;
    let key = dir.key()?;
    let mut authtoken = None;
    if config.dev {
        let (token, path) = dir.authtoken()?;
        config.credentials = Credentials::new(vec![Credential {
            id: "dev".into(),
            hash: token::hash(token.expose()),
            acl: Default::default(),
            ip_allow: Vec::new(),
            domains: Vec::new(),
            max_sessions: usize::MAX,
        }]);
        authtoken = Some((token, path));
    }

    let own_names = certificates::own_names(&config.domain, config.agent.ip());
    let mut ca_file = None;
    let (resolver, agent_tls) = match config.certificates.first() {
        Some((chain, key)) => {
            let (chain, key) = certificates::load(chain, key)?;
            (CertResolver::from_files(&config.certificates)?, client::server_config(chain, key)?)
        }
        None => {
            let (ca, path) = dir.ca()?;
            ca_file = Some(path);
            let (chain, key) = ca.issue(&own_names)?;
            let agent_tls = client::server_config(chain, key)?;
            let mut domains = vec![config.domain.clone(), "localhost".into()];
            domains.extend(config.domains.iter().cloned());
            (CertResolver::from_ca(Arc::new(ca), domains, &own_names)?, agent_tls)
        }
    };
    let resolver = Arc::new(resolver);
    let visitor_tls = visitor_tls(&resolver, vec![b"http/1.1".to_vec()])?;
    let opaque_tls = opaque_tls(&resolver)?;

    let listeners = Listeners::new(config.tcp, config.ports)?;
    let listen = |kind: ListenerKind, flag: &str, address: SocketAddr| {
        listeners.listen(kind, address).map_err(|e| {
            let advice = if e.kind() == io::ErrorKind::AddrInUse {
                format!(". Choose another address with {flag}")
            } else {
                String::new()
            };
            io::Error::new(e.kind(), format!("cannot listen on {address}: {e}{advice}"))
        })
    };
    let agent = listen(ListenerKind::Agent, "--agent-addr", config.agent)?;
    let http = listen(ListenerKind::Http, "--http-addr", config.http)?;
    let https = listen(ListenerKind::Https, "--https-addr", config.https)?;

    let mut agent_config = None;
    let mut authtoken_file = None;
    if let Some((token, path)) = authtoken {
        let ca = ca_file.clone().unwrap_or_default();
        agent_config = Some(dir.write_agent_config(&token, agent, &ca)?);
        authtoken_file = Some(path);
    }
    let ready =
        ReadyInfo { agent, http, https, ca: ca_file, agent_config, authtoken: authtoken_file };
    let edge = Edge::new(
        config,
        key,
        listeners,
        (http.port(), https.port()),
        [agent_tls, visitor_tls, opaque_tls],
    );
    Ok((Arc::new(edge), ready))
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

/// For endpoints whose protocol is nobody's business.
fn opaque_tls(resolver: &Arc<CertResolver>) -> io::Result<Arc<ServerConfig>> {
    visitor_tls(resolver, Vec::new())
}

fn ready_json(edge: &Edge, ready: &ReadyInfo) -> String {
    let path = |p: &Option<PathBuf>| p.as_ref().map(|p| p.display().to_string());
    let text = json!({
        "agent_addr": ready.agent.to_string(),
        "http_addr": ready.http.to_string(),
        "https_addr": ready.https.to_string(),
        "tcp_ports": edge.listeners().port_range(),
        "domain": edge.domain(),
        "ca": path(&ready.ca),
        "agent_config": path(&ready.agent_config),
        "authtoken_file": path(&ready.authtoken),
    });
    format!("{text}\n")
}

/// Says on standard output where everything is and what to do next.
fn announce(edge: &Edge, ready: &ReadyInfo) {
    let domain = edge.domain();
    let port = |p: u16, usual: u16| if p == usual { String::new() } else { format!(":{p}") };
    let (http, https) = (port(ready.http.port(), 80), port(ready.https.port(), 443));
    let mut text = format!(
        "culvert-edge is ready.\n\n  agents   {}\n  http     http://NAME.{domain}{http}\n  \
         https    https://NAME.{domain}{https}\n  tcp      {}, {}\n",
        ready.agent,
        edge.tcp_host(),
        match edge.listeners().port_range().as_str() {
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
    // Nobody may be reading; that is no reason to stop.
    let _ = io::stdout().write_all(text.as_bytes());
    let _ = io::stdout().flush();
}
