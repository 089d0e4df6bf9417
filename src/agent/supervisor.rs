//! The supervisor: the main thread's loop around sessions. What is retried, what
//! is final, and how long to wait is decided here.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use super::backoff::Backoff;
use super::commands::{NO_REMOTE, NO_UPDATE};
use super::endpoints::{Endpoint, Standing, Table};
use super::handler::Handler;
use super::notes::{Note, Notes};
use super::rpc::{self, CallError};
use crate::config::{self, Cas};
use crate::event;
use crate::link::{self, Dialer};
use crate::log;
use crate::mux::{self, Code, Role, StreamType};
use crate::proto::codes::{self, Refusal, Verdict, When};
use crate::proto::messages::{
    AuthExtra, AuthRequest, AuthResponse, BindResponse, StartTunnelWithLabelResponse, StopTunnel,
    UnbindRequest,
};
use crate::proto::secret::Secret;
use crate::proxy::Pool;
use crate::sys::{self, signals};
use crate::time::{Deadline, Instant};
use crate::tunnel::{self, End, Session};

/// How long the edge may take to answer a call (protocol 5.1).
const CALL: Duration = Duration::from_secs(30);
/// How long the edge may take to answer an Unbind when the program ends.
const UNBIND: Duration = Duration::from_secs(2);
/// How long connections may go on after the program was told to end.
const GRACE: Duration = Duration::from_secs(10);
/// How long the reactor may take to send the last words.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long after a refused rebind the endpoint is tried again.
const REBIND: Duration = Duration::from_secs(5);
/// What Auth tells of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How a run ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// By a signal, or by a stop from the edge.
    Stopped,
    /// The edge asked for a restart.
    Restart,
}

/// Why there is no session.
enum Failure {
    /// Try again after the usual wait.
    Retry(String),
    /// Try again after the longest wait.
    RetrySlowly(String),
    /// Try again once as a new client.
    ForgetCookie(String),
    /// More tries cannot mend it.
    Final(Refusal),
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Failure::Retry(e.to_string())
    }
}

impl From<link::Error> for Failure {
    fn from(e: link::Error) -> Self {
        match e {
            link::Error::Retry(why) => Failure::Retry(why),
            link::Error::Final(refusal) => Failure::Final(refusal),
        }
    }
}

impl From<CallError> for Failure {
    fn from(e: CallError) -> Self {
        Failure::Retry(e.to_string())
    }
}

/// The agent's state across sessions.
pub(super) struct Supervisor {
    config: config::Agent,
    dialer: Dialer,
    endpoints: Vec<Endpoint>,
    table: Arc<Table>,
    pool: Arc<Pool>,
    notes: Arc<Notes>,
    /// Who we are to the edge, from its last answer.
    client_id: String,
    cookie: Secret,
    /// Counts sessions.
    number: u32,
    /// The first session was set up.
    started: bool,
    /// Something went wrong since, and was said.
    troubled: bool,
    seed: u64,
}

impl Supervisor {
    /// Checks what can be checked before a packet is sent.
    pub(super) fn new(mut config: config::Agent) -> Result<Self, Refusal> {
        let told = |e: &dyn std::fmt::Display| Refusal::text(e.to_string());
        if config.authtoken.is_empty() {
            return Err(Refusal::new(
                codes::NO_TOKEN,
                format!(
                    "no authtoken: add it with '{} config add-authtoken TOKEN', --authtoken or \
                     NGROK_AUTHTOKEN",
                    sys::argv::program()
                ),
            ));
        }
        let dialer = Dialer::new(&config)?;
        let mut endpoints = Vec::new();
        for endpoint in std::mem::take(&mut config.endpoints) {
            let name = endpoint.name.clone();
            endpoints.push(
                Endpoint::new(endpoint)
                    .map_err(|e| Refusal::text(format!("endpoint '{name}': {e}")))?,
            );
        }
        let bell = signals::install().map_err(|e| told(&e))?;
        sys::protect_memory();
        Ok(Supervisor {
            pool: Pool::new(config.max_connections).map_err(|e| told(&e))?,
            config,
            dialer,
            endpoints,
            table: Arc::default(),
            notes: Arc::new(Notes::new(bell)),
            client_id: String::new(),
            cookie: Secret::default(),
            number: 0,
            started: false,
            troubled: false,
            seed: sys::random_seed(),
        })
    }

    /// Sessions one after another, until something ends the program.
    pub(super) fn run(mut self) -> Result<Finish, Refusal> {
        let mut backoff = Backoff::new(self.seed);
        let mut forgot = false;
        // The very first attempt is at once; the wait after its failure is not.
        let _ = backoff.next_wait();
        loop {
            let (why, wait) = match self.connect() {
                Ok(session) => {
                    forgot = false;
                    let began = sys::clock();
                    let served = self.serve(&session)?;
                    self.table.clear();
                    let end = match served {
                        Served::Finished(finish) => return Ok(finish),
                        Served::Lost(end) => end,
                    };
                    event!(
                        error,
                        obj = "tunnels.session",
                        "session closed, starting reconnect loop",
                        err = end
                    );
                    backoff.session_ended(began, sys::clock());
                    (None, backoff.next_wait())
                }
                Err(Failure::Final(refusal)) => return Err(refusal),
                Err(Failure::Retry(why)) => (Some(why), backoff.next_wait()),
                Err(Failure::RetrySlowly(why)) => (Some(why), backoff.slow_wait()),
                Err(Failure::ForgetCookie(why)) => {
                    self.client_id = String::new();
                    self.cookie = Secret::default();
                    let wait = if forgot { backoff.next_wait() } else { Duration::ZERO };
                    forgot = true;
                    (Some(why), wait)
                }
            };
            self.table.clear();
            self.troubled = true;
            if let Some(why) = why {
                let seconds = format!("{:.1}s", wait.as_secs_f32());
                event!(
                    error,
                    obj = "tunnels.session",
                    "failed to reconnect session",
                    err = why,
                    addr = self.config.connect_url,
                    retry = seconds
                );
            }
            if self.rest(wait) {
                return Ok(Finish::Stopped);
            }
        }
    }

    /// Waits between attempts. `true`: the program was told to end meanwhile.
    fn rest(&self, wait: Duration) -> bool {
        let until = sys::clock() + wait;
        loop {
            // Notes of a session that is gone are of no use any more.
            self.notes.bell().lower();
            while self.notes.take().is_some() {}
            if signals::stops() > 0 {
                return true;
            }
            let left = until.since(sys::clock());
            if left.is_zero() {
                return false;
            }
            let _ = sys::wait(self.notes.bell().as_raw_fd(), None, Some(left));
        }
    }

    /// One attempt: name, TCP, TLS, Auth within `connect_timeout`; then the binds.
    fn connect(&mut self) -> Result<Session, Failure> {
        let deadline = Deadline::At(sys::clock() + self.config.connect_timeout);
        let link = self.dialer.connect(&self.config.connect_url, deadline)?;
        self.number = self.number.wrapping_add(1);
        let handler = Handler {
            number: self.number,
            notes: Arc::clone(&self.notes),
            table: Arc::clone(&self.table),
            pool: Arc::clone(&self.pool),
            remote: self.config.remote_management,
            beginning: Vec::new(),
        };
        self.seed = self.seed.rotate_left(7) ^ sys::random_seed();
        let mux = mux::Config::new(Role::Agent, self.seed);
        let session = tunnel::start(link, mux, Box::new(handler))?;
        session.start_heartbeat(self.config.heartbeat_interval, self.config.heartbeat_tolerance);
        let set_up = self.authenticate(&session, deadline).and_then(|()| self.bind_all(&session));
        if let Err(failure) = set_up {
            session.close(Code::NO_ERROR, "no error");
            return Err(failure);
        }
        event!(
            info,
            obj = "tunnels.session",
            "tunnel session started",
            addr = self.config.connect_url
        );
        self.started = true;
        if std::mem::take(&mut self.troubled) {
            // Who was told of the trouble is told of its end.
            event!(
                warn,
                obj = "tunnels.session",
                "session is back",
                addr = self.config.connect_url
            );
        }
        Ok(session)
    }

    fn when(&self) -> When {
        if self.started { When::Reconnect } else { When::Start }
    }

    fn authenticate(&mut self, session: &Session, deadline: Deadline) -> Result<(), Failure> {
        let bytes = rpc::call(session, StreamType::AUTH, &self.auth_request().encode(), deadline)
            .map_err(|e| {
            let hint = match e {
                CallError::Late => ": is connect_url the edge's port for agents?",
                _ => "",
            };
            Failure::Retry(format!("Auth: {e}{hint}"))
        })?;
        let response = AuthResponse::decode(&bytes)
            .map_err(|e| Failure::Retry(format!("the edge's answer to Auth: {e}")))?;
        if let Some(refusal) = response.error {
            let text = refusal.to_string();
            return Err(match codes::auth_verdict(refusal.code, self.when()) {
                Verdict::Final => Failure::Final(refusal),
                Verdict::Retry => Failure::Retry(text),
                Verdict::RetrySlowly => Failure::RetrySlowly(text),
                Verdict::ForgetCookie => Failure::ForgetCookie(text),
            });
        }
        self.client_id = response.client_id;
        self.cookie = response.extra.cookie;
        event!(
            info,
            obj = "tunnels.session",
            "client session established",
            region = response.extra.region,
            account = response.extra.account_name
        );
        if !response.extra.banner.is_empty() {
            event!(info, obj = "tunnels.session", response.extra.banner);
        }
        if let Some(deprecation) = response.extra.deprecation {
            event!(
                warn,
                obj = "tunnels.session",
                deprecation.message,
                version = deprecation.next_min,
                date = deprecation.next_date
            );
        }
        Ok(())
    }

    fn auth_request(&self) -> AuthRequest {
        let c = &self.config;
        let (update, other) = match c.remote_management {
            true => (NO_UPDATE, ""),
            false => (NO_REMOTE, NO_REMOTE),
        };
        AuthRequest {
            versions: vec!["3".into(), "2".into()],
            client_id: self.client_id.clone(),
            extra: AuthExtra {
                os: std::env::consts::OS.into(),
                arch: sys::go_arch().into(),
                authtoken: c.authtoken.clone(),
                version: VERSION.into(),
                user_agent: format!("culvert/{VERSION}"),
                metadata: c.metadata.clone(),
                cookie: self.cookie.clone(),
                heartbeat_interval: c.heartbeat_interval,
                heartbeat_tolerance: c.heartbeat_tolerance,
                update_unsupported: Some(update.into()),
                stop_unsupported: Some(other.into()),
                restart_unsupported: Some(other.into()),
                proxy_type: self.dialer.proxy_type().into(),
                custom_interface: self.dialer.custom_interface(),
                custom_cas: c.connect_cas != Cas::Trusted,
                config_version: c.version.clone(),
                client_type: "culvert".into(),
                ..AuthExtra::default()
            },
        }
    }

    /// Binds every endpoint that should be up. At the start a refusal is final;
    /// later it concerns that endpoint alone.
    fn bind_all(&mut self, session: &Session) -> Result<(), Failure> {
        for at in 0..self.endpoints.len() {
            if self.endpoints[at].standing != Standing::Down {
                self.bind(session, at)?;
            }
        }
        Ok(())
    }

    /// Binds one endpoint, and tells the user when its URL is new.
    fn bind(&mut self, session: &Session, at: usize) -> Result<(), Failure> {
        let when = self.when();
        let endpoint = &mut self.endpoints[at];
        let known = endpoint.binding.as_ref().map(|b| b.url.clone());
        match bind(session, &self.table, endpoint)? {
            None => {
                let name = &endpoint.config.name;
                let upstream = &endpoint.config.upstream;
                let url = endpoint.binding.as_ref().map_or("", |b| b.url.as_str());
                event!(
                    info,
                    obj = "tunnels",
                    "started tunnel",
                    name = name,
                    addr = upstream,
                    url = url
                );
                if known.as_deref() != Some(url) {
                    log::announce(&match endpoint.is_labelled() {
                        false => format!("{url} -> {upstream}"),
                        true => format!("{} -> {upstream}", labels(&endpoint.config.labels)),
                    });
                }
            }
            Some(refusal) => {
                let verdict = codes::bind_verdict(refusal.code, when);
                if when == When::Start && verdict == Verdict::Final {
                    return Err(Failure::Final(refusal));
                }
                endpoint.standing = if verdict == Verdict::Final {
                    Standing::Down
                } else {
                    Standing::Later(sys::clock() + REBIND)
                };
                event!(
                    error,
                    obj = "tunnels",
                    "endpoint refused by the edge",
                    name = endpoint.config.name,
                    err = refusal,
                    retry = if verdict == Verdict::Final { "no" } else { "5s" }
                );
            }
        }
        Ok(())
    }

    /// Serves until the session or the program ends.
    fn serve(&mut self, session: &Session) -> Result<Served, Refusal> {
        signals::graceful(true);
        let served = self.watch_over(session);
        signals::graceful(false);
        if signals::stops() > 0 && matches!(served, Ok(Served::Lost(_))) {
            return Ok(Served::Finished(Finish::Stopped));
        }
        served
    }

    fn watch_over(&mut self, session: &Session) -> Result<Served, Refusal> {
        loop {
            self.notes.bell().lower();
            if signals::stops() > 0 {
                event!(info, obj = "app", "received stop request", reason = "signal");
                return Ok(self.wind_down(session, Finish::Stopped));
            }
            while let Some(note) = self.notes.take() {
                match note {
                    Note::Ended(number, end) if number == self.number => {
                        return Ok(Served::Lost(end));
                    }
                    Note::Ended(..) => {}
                    Note::StopTunnel(stop) => self.taken_down(&stop),
                    Note::Stop => return Ok(self.wind_down(session, Finish::Stopped)),
                    Note::Restart => return Ok(self.wind_down(session, Finish::Restart)),
                }
            }
            if let Err(e) = self.rebind(session) {
                session.close(Code::NO_ERROR, "no error");
                let why = match e {
                    Failure::Retry(why)
                    | Failure::RetrySlowly(why)
                    | Failure::ForgetCookie(why) => why,
                    Failure::Final(refusal) => return Err(refusal),
                };
                return Ok(Served::Lost(End::Lost(why)));
            }
            let now = sys::clock();
            let left = self.next_rebind().map(|at| at.since(now));
            let _ = sys::wait(self.notes.bell().as_raw_fd(), None, left);
        }
    }

    fn next_rebind(&self) -> Option<Instant> {
        let later = self.endpoints.iter().filter_map(|e| match e.standing {
            Standing::Later(at) => Some(at),
            _ => None,
        });
        later.min()
    }

    /// Tries again what was refused on the way back and is due.
    fn rebind(&mut self, session: &Session) -> Result<(), Failure> {
        for at in 0..self.endpoints.len() {
            if let Standing::Later(due) = self.endpoints[at].standing
                && due <= sys::clock()
            {
                self.bind(session, at)?;
            }
        }
        Ok(())
    }

    /// The edge took an endpoint down: it stays down (protocol 7.4).
    fn taken_down(&mut self, stop: &StopTunnel) {
        self.table.remove(&stop.id);
        let endpoint =
            self.endpoints.iter_mut().find(|e| e.binding.as_ref().is_some_and(|b| b.id == stop.id));
        if let Some(endpoint) = endpoint {
            endpoint.standing = Standing::Down;
            event!(
                error,
                obj = "tunnels",
                "the edge stopped an endpoint",
                name = endpoint.config.name,
                err = stop.message,
                code = stop.error_code
            );
        }
    }

    /// Takes the endpoints down, lets connections finish for a while, says goodbye.
    fn wind_down(&self, session: &Session, finish: Finish) -> Served {
        let deadline = Deadline::At(sys::clock() + UNBIND);
        for endpoint in self.endpoints.iter().filter(|e| e.standing == Standing::Up) {
            let Some(binding) = &endpoint.binding else { continue };
            let request = UnbindRequest { id: binding.id.clone() };
            // Whatever comes of it: the session ends in a moment.
            if rpc::call(session, StreamType::UNBIND, &request.encode(), deadline).is_err() {
                break;
            }
        }
        let until = sys::clock() + GRACE;
        while self.pool.live() > 0 && !session.is_over() && sys::clock() < until {
            // The bell may stay raised by notes that nobody reads any more.
            self.notes.bell().lower();
            let _ = sys::wait(self.notes.bell().as_raw_fd(), None, Some(Duration::from_millis(20)));
        }
        let cut = self.pool.live();
        if cut > 0 {
            event!(
                warn,
                obj = "app",
                "connections cut at the end of the grace period",
                count = cut
            );
        }
        session.close(Code::NO_ERROR, "no error");
        let until = sys::clock() + LAST_WORDS;
        while sys::clock() < until {
            if let Some(Note::Ended(number, _)) = self.notes.take()
                && number == self.number
            {
                break;
            }
            self.notes.bell().lower();
            let _ = sys::wait(self.notes.bell().as_raw_fd(), None, Some(Duration::from_millis(20)));
        }
        Served::Finished(finish)
    }
}

/// How serving a session ended.
enum Served {
    /// The program is to end.
    Finished(Finish),
    /// The session is over.
    Lost(End),
}

fn labels(labels: &[(String, String)]) -> String {
    labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}

/// Sends the Bind (or its labelled form). `Ok(Some)`: the edge refused. The route
/// is known before the first visitor can come.
fn bind(
    session: &Session,
    table: &Arc<Table>,
    endpoint: &mut Endpoint,
) -> Result<Option<Refusal>, Failure> {
    let deadline = Deadline::At(sys::clock() + CALL);
    let mut target = endpoint.target()?;
    let table = Arc::clone(table);
    let garbled =
        |e: &dyn std::fmt::Display| Failure::Retry(format!("the edge's answer to Bind: {e}"));
    if endpoint.is_labelled() {
        let at_once = Box::new(move |bytes: &[u8]| {
            if let Ok(StartTunnelWithLabelResponse { id, error: None }) =
                StartTunnelWithLabelResponse::decode(bytes)
            {
                table.set(&id, Arc::new(target));
            }
        });
        let request = endpoint.label_request().encode();
        let kind = StreamType::START_TUNNEL_WITH_LABEL;
        let bytes = rpc::call_with(session, kind, &request, deadline, at_once)
            .map_err(|e| Failure::Retry(format!("Bind: {e}")))?;
        let response = StartTunnelWithLabelResponse::decode(&bytes).map_err(|e| garbled(&e))?;
        if response.error.is_none() {
            endpoint.started(response.id);
        }
        return Ok(response.error);
    }
    let at_once = Box::new(move |bytes: &[u8]| {
        if let Ok(BindResponse { id, url, error: None, .. }) = BindResponse::decode(bytes) {
            target.url = url;
            table.set(&id, Arc::new(target));
        }
    });
    let request = endpoint.bind_request().encode();
    let bytes = rpc::call_with(session, StreamType::BIND, &request, deadline, at_once)
        .map_err(|e| Failure::Retry(format!("Bind: {e}")))?;
    let mut response = BindResponse::decode(&bytes).map_err(|e| garbled(&e))?;
    if let Some(refusal) = response.error.take() {
        return Ok(Some(refusal));
    }
    endpoint.bound(response);
    Ok(None)
}
