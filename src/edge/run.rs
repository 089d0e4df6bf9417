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
use super::agents::ports::{Door, Ports};
use super::certificates::{self, Resolver};
use super::config::Config;
use super::state::{self, Dir, Secrecy};
use super::visitors::accept;
use super::{Edge, token};
use crate::event;
use crate::sys::{self, poll, signals, threads};
use crate::tls::client;

/// How often names that were kept long enough are freed.
const SWEEP: Duration = Duration::from_secs(5);

/// Descriptors that visitors may not take: listeners, agents, files.
const RESERVE: usize = 256;

/// What people and programs are told when everything listens.
struct Ready {
    agent: SocketAddr,
    http: SocketAddr,
    https: SocketAddr,
    ca: Option<PathBuf>,
    agent_config: Option<PathBuf>,
    authtoken: Option<PathBuf>,
}

/// Runs the edge until a signal ends it.
pub fn run(config: Config, ready_file: Option<&Path>) -> io::Result<()> {
    let wakeup = signals::install()?;
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
        acceptor.ports().run(|door, socket, peer| accept::enter(&acceptor, door, socket, peer));
    }))?;
    while signals::stops() == 0 {
        poll::readable(wakeup, Some(SWEEP))?;
        edge.routes().expire(sys::clock());
        edge.ports().sweep(&edge.routes().ports());
    }
    stop(&edge);
    Ok(())
}

/// Lets visitors finish, then says goodbye to the agents.
fn stop(edge: &Edge) {
    event!(info, obj = "edge", "stopping", visitors = edge.visitors().len());
    edge.drain();
    edge.ports().stop();
    let left = edge.visitors().drain(edge.limits().grace, || signals::stops() > 1);
    if left > 0 {
        event!(warn, obj = "edge", "visitors cut off", visitors = left);
    }
    edge.agents().close("the edge is stopping");
    edge.visitors().end();
    event!(info, obj = "edge", "stopped");
}

/// Reads keys and certificates, and opens all listeners.
fn open(mut config: Config) -> io::Result<(Arc<Edge>, Ready)> {
    let files = sys::fd_budget::raise_limit();
    let most = files.saturating_sub(RESERVE.max(files / 8)).max(16);
    if config.limits.visitors > most {
        event!(
            warn,
            obj = "edge",
            "fewer visitors than configured: the limit of open files",
            l = most
        );
        config.limits.visitors = most;
    }
    let dir = Dir::open(&config.dir)?;
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
            (Resolver::from_files(&config.certificates)?, client::server_config(chain, key)?)
        }
        None => {
            let (ca, path) = dir.ca()?;
            ca_file = Some(path);
            let (chain, key) = ca.issue(&own_names)?;
            let agent_tls = client::server_config(chain, key)?;
            let mut domains = vec![config.domain.clone(), "localhost".into()];
            domains.extend(config.domains.iter().cloned());
            (Resolver::from_ca(Arc::new(ca), domains, &own_names)?, agent_tls)
        }
    };
    let resolver = Arc::new(resolver);
    let visitor_tls = visitor_tls(&resolver, vec![b"http/1.1".to_vec()])?;
    let plain_tls = visitor_tls_any(&resolver)?;

    let ports = Ports::new(config.tcp, config.ports)?;
    let listen = |door: Door, flag: &str, address: SocketAddr| {
        ports.listen(door, address).map_err(|e| {
            let advice = if e.kind() == io::ErrorKind::AddrInUse {
                format!(". Choose another address with {flag}")
            } else {
                String::new()
            };
            io::Error::new(e.kind(), format!("cannot listen on {address}: {e}{advice}"))
        })
    };
    let agent = listen(Door::Agent, "--agent-addr", config.agent)?;
    let http = listen(Door::Http, "--http-addr", config.http)?;
    let https = listen(Door::Https, "--https-addr", config.https)?;

    let mut agent_config = None;
    let mut authtoken_file = None;
    if let Some((token, path)) = authtoken {
        let ca = ca_file.clone().unwrap_or_default();
        agent_config = Some(dir.write_agent(&token, agent, &ca)?);
        authtoken_file = Some(path);
    }
    let ready = Ready { agent, http, https, ca: ca_file, agent_config, authtoken: authtoken_file };
    let edge = Edge::new(
        config,
        key,
        ports,
        (http.port(), https.port()),
        [agent_tls, visitor_tls, plain_tls],
    );
    Ok((Arc::new(edge), ready))
}

fn visitor_tls(resolver: &Arc<Resolver>, alpn: Vec<Vec<u8>>) -> io::Result<Arc<ServerConfig>> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::<Resolver>::clone(resolver));
    config.alpn_protocols = alpn;
    Ok(Arc::new(config))
}

/// For endpoints whose protocol is nobody's business.
fn visitor_tls_any(resolver: &Arc<Resolver>) -> io::Result<Arc<ServerConfig>> {
    visitor_tls(resolver, Vec::new())
}

fn ready_json(edge: &Edge, ready: &Ready) -> String {
    let path = |p: &Option<PathBuf>| p.as_ref().map(|p| p.display().to_string());
    let text = json!({
        "agent_addr": ready.agent.to_string(),
        "http_addr": ready.http.to_string(),
        "https_addr": ready.https.to_string(),
        "tcp_ports": edge.ports().to_string(),
        "domain": edge.domain(),
        "ca": path(&ready.ca),
        "agent_config": path(&ready.agent_config),
        "authtoken_file": path(&ready.authtoken),
    });
    format!("{text}\n")
}

/// Says on standard output where everything is and what to do next.
fn announce(edge: &Edge, ready: &Ready) {
    let domain = edge.domain();
    let port = |p: u16, usual: u16| if p == usual { String::new() } else { format!(":{p}") };
    let (http, https) = (port(ready.http.port(), 80), port(ready.https.port(), 443));
    let mut text = format!(
        "culvert-edge is ready.\n\n  agents   {}\n  http     http://NAME.{domain}{http}\n  \
         https    https://NAME.{domain}{https}\n  tcp      {}, {}\n",
        ready.agent,
        edge.tcp_host(),
        match edge.ports().to_string().as_str() {
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
