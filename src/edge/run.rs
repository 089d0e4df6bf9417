//! Start and stop of the edge: opens everything, prints the addresses, accepts until a
//! signal and lets visitors finish. What a connection does is not decided here.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::accounts::Accounts;
use super::config::{ApiListener, EdgeConfig};
use super::expiry::ExpiryReminder;
use super::fetch::EdgeFetcher;
use super::listeners::{ListenerKind, Listeners};
use super::login::LoginServices;
use super::names::{self, NamesKeeper};
use super::parking::Parking;
use super::policy::rate_limit::RateTable;
use super::reload::{self, ConfigSource};
use super::rest::state::ApiState;
use super::settings::EdgeSettings;
use super::state::{self, EdgeStateDir, Secrecy};
use super::store::sqlite::SqliteStore;
use super::{Edge, agents, rest, visitors};
use crate::event;
use crate::session::ProcessBuffers;
use crate::sys::sync::RwLock;
use crate::sys::{self, poll, signals, threads};

/// Bodies that wait for their signature take at most this part of `total_buffer`.
const BODY_SHARE: usize = 4;

/// Pause between two checks for expired reservations, unused ports and free memory.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Addresses and files, for standard output and the ready file.
struct ReadyInfo {
    agent: SocketAddr,
    http: SocketAddr,
    https: SocketAddr,
    api: SocketAddr,
    api_key: PathBuf,
    ca: Option<PathBuf>,
    agent_config: Option<PathBuf>,
    authtoken: Option<PathBuf>,
}

impl ReadyInfo {
    /// Writes a configuration for agents, with an authtoken.
    fn write_agent_config(&mut self, dir: &EdgeStateDir) -> io::Result<()> {
        let (token, path) = dir.authtoken()?;
        let ca = self.ca.clone().unwrap_or_default();
        self.agent_config = Some(dir.write_agent_config(&token, self.agent, &ca)?);
        self.authtoken = Some(path);
        Ok(())
    }
}

/// Runs the edge until a signal ends it. `source` reads the configuration at a reload, and has
/// read `config`.
pub fn run(config: EdgeConfig, source: &ConfigSource, ready_file: Option<&Path>) -> io::Result<()> {
    let signal_fd = signals::install()?;
    signals::graceful(true);
    sys::protect_memory();
    let (edge, ready) = open(config)?;
    if let Some(path) = ready_file {
        state::write(path, ready_json(&edge, &ready).as_bytes(), Secrecy::Public)?;
    }
    edge.registry.on_change(|| signal_fd.notify());
    announce(&edge, &ready);
    event!(info, obj = "edge", "ready", addr = ready.agent, http = ready.http, https = ready.https);

    let acceptor = Arc::clone(&edge);
    threads::ACCEPT.spawn(Box::new(move || {
        acceptor.listeners.run(|kind, socket, peer| dispatch(&acceptor, kind, socket, peer));
    }))?;
    let parking = Arc::clone(&edge);
    threads::PARKING.spawn(Box::new(move || parking.parking.run()))?;
    let (mut expiry, mut names) = (ExpiryReminder::default(), NamesKeeper::default());
    while signals::stops() == 0 {
        expiry.remind(&edge, sys::clock());
        let pause = names.save(&edge).unwrap_or(SWEEP_INTERVAL);
        poll::readable(signal_fd, Some(pause))?;
        // Before the flags: a signal that comes now is seen at the next turn.
        signal_fd.clear();
        // SIGUSR1 ends the waits of an agent. An edge has none.
        let _ = signals::take_hurry();
        if signals::take_reload() {
            reload::reload(&edge, source);
            expiry.reset();
        }
        edge.registry.expire_reservations(sys::clock());
        edge.listeners.close_unused_ports(|port| edge.registry.has_port(port));
        sys::heap::release_free_pages();
    }
    // Before the agents disconnect.
    names::save_now(&edge);
    stop(&edge);
    Ok(())
}

/// Starts the thread of an accepted connection. Does not block.
fn dispatch(edge: &Arc<Edge>, kind: ListenerKind, socket: TcpStream, peer: SocketAddr) {
    let _ = socket.set_nodelay(true);
    match kind {
        ListenerKind::Agent => agents::accept::spawn(edge, socket, peer),
        ListenerKind::Api => rest::accept::spawn(edge, socket, peer),
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
fn open(config: EdgeConfig) -> io::Result<(Arc<Edge>, ReadyInfo)> {
    let dir = EdgeStateDir::open(&config.dir)?;
    let key = dir.key()?;
    let store = SqliteStore::new(dir.path());
    let accounts = Accounts::open(Box::new(store)).map_err(|e| io::Error::other(e.to_string()))?;
    let settings = EdgeSettings::build(config, &dir, &accounts.table(), &key)?;
    let config = Arc::clone(&settings.config);

    let listeners = Listeners::new(config.tcp, config.ports)?;
    let agent = listen(&listeners, ListenerKind::Agent, "--agent-addr", config.agent)?;
    let http = listen(&listeners, ListenerKind::Http, "--http-addr", config.http)?;
    let https = listen(&listeners, ListenerKind::Https, "--https-addr", config.https)?;
    let (api, api_key) = open_api(&listeners, config.api, &dir)?;

    let mut ready = ReadyInfo {
        agent,
        http,
        https,
        api: api.address(),
        api_key,
        ca: settings.ca_file.clone(),
        agent_config: None,
        authtoken: None,
    };
    if config.dev {
        ready.write_agent_config(&dir)?;
    }
    let fetcher = Arc::new(EdgeFetcher::new(config.fetch.clone()));
    let edge = Edge {
        settings: RwLock::new(settings),
        dir,
        logins: Arc::new(LoginServices::new(Arc::<EdgeFetcher>::clone(&fetcher), key.clone())),
        key,
        fetcher,
        accounts,
        api,
        registry: Default::default(),
        late_replies: Default::default(),
        agents: Default::default(),
        strangers: Default::default(),
        visitors: Default::default(),
        refused: Default::default(),
        parking: Parking::new()?,
        threads: Default::default(),
        workers: Default::default(),
        buffers: Arc::new(ProcessBuffers::new(config.limits.total_buffer)),
        rates: RateTable::new(),
        bodies: Arc::new(ProcessBuffers::new(config.limits.total_buffer / BODY_SHARE)),
        policy_requests: Default::default(),
        policy_responses: Arc::new(ProcessBuffers::new(config.limits.total_buffer / BODY_SHARE)),
        listeners,
        http_port: http.port(),
        https_port: https.port(),
        draining: Default::default(),
        line_quotas: Default::default(),
    };
    names::restore(&edge, config.limits.hold);
    Ok((Arc::new(edge), ready))
}

/// Opens the REST API. Returns its state and the file with its key.
fn open_api(
    listeners: &Listeners,
    api: ApiListener,
    dir: &EdgeStateDir,
) -> io::Result<(ApiState, PathBuf)> {
    let address = listen_api(listeners, api)?;
    let (key, file) = dir.api_key()?;
    let api = ApiState::new(address, &key);
    dir.write_api_url(&api.url())?;
    Ok((api, file))
}

/// Opens the listener of the REST API. The default port may be in use by another program: an
/// edge that was updated must start all the same.
fn listen_api(listeners: &Listeners, api: ApiListener) -> io::Result<SocketAddr> {
    match api {
        ApiListener::Default => listen_near(listeners, api.address()),
        ApiListener::At(address) => listen(listeners, ListenerKind::Api, "--api-addr", address),
    }
}

/// Opens the REST API at `address`, or at another port of it if that one is in use.
fn listen_near(listeners: &Listeners, address: SocketAddr) -> io::Result<SocketAddr> {
    match listeners.listen(ListenerKind::Api, address) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            let other = SocketAddr::new(address.ip(), 0);
            let found = listeners.listen(ListenerKind::Api, other)?;
            event!(warn, obj = "edge", "default API port in use", addr = found);
            Ok(found)
        }
        result => result,
    }
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
            format!("; choose another address with {flag}")
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
        "api_addr": ready.api.to_string(),
        "api_key_file": ready.api_key.display().to_string(),
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
         https    https://NAME.{domain}{https}\n  tcp      {}, {}\n  api      {}, key in {}\n",
        ready.agent,
        domain,
        match edge.listeners.port_range().as_str() {
            "0" => "any free port".to_owned(),
            range => format!("ports {range}"),
        },
        edge.api.url(),
        ready.api_key.display(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_another_program_is_not_needed() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let other = std::net::TcpListener::bind(any).unwrap();
        let taken = other.local_addr().unwrap();
        let listeners = Listeners::new(any.ip(), (0, 0)).unwrap();
        let found = listen_near(&listeners, taken).unwrap();
        assert_ne!(found.port(), taken.port());
        assert!(TcpStream::connect(found).is_ok());
        assert!(listen_api(&listeners, ApiListener::At(taken)).is_err(), "a configured one");
    }
}
