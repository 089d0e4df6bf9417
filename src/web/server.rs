//! Server of the local API: one thread for all clients, a bounded number of places for them,
//! and another thread only for slow jobs.
//!
//! A client needs memory for its place and its request. When all places are taken, the client
//! that has been idle longest is closed for the next one, so thousands of slow connections
//! cannot lock out a client with a request. Visitors leave this thread a few descriptors, which
//! clients use one after another. The agent uses others of those.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::app::{ApiAnswer, App};
use super::connection::{ClientAction, Connection};
use super::http::{ApiReply, ReplyBody};
use super::jobs::{JobId, JobQueue};
use crate::event;
use crate::logging::rate_limit::LineQuota;
use crate::logging::{self, Level};
use crate::sys::eventfd::EventFd;
use crate::sys::fd_budget::WEB_RESERVE;
use crate::sys::poll::{self, PollFd};
use crate::sys::{self, threads};
use crate::time::{Deadline, Instant};

/// Maximum number of clients.
const MAX_CLIENTS: usize = 32;

/// Maximum number of clients that receive events.
const MAX_LISTENERS: usize = 4;

/// Memory for the incoming bodies of all clients: two of the largest. Small ones always fit.
const MAX_BODY_BYTES: usize = 2 * super::http::MAX_BODY + SMALL_BODY_BYTES;
const SMALL_BODY_BYTES: usize = 16 * 1024;

/// Interval of the check for new events while a client receives them.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Pause of the listener after a client could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Idle time after which a client may be closed for a new one.
const MIN_IDLE: Duration = Duration::from_millis(200);

/// Maximum number of clients accepted in one turn.
const ACCEPT_BATCH: usize = 16;

/// Bytes of one read.
const READ_BUFFER_BYTES: usize = 8 * 1024;

/// Starts to serve `app` at `listener`, until the program ends.
pub fn start(listener: TcpListener, app: Box<dyn App>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let server = Server {
        jobs: JobQueue::new()?,
        app,
        clients: Vec::new(),
        accept_paused_until: Deadline::Never,
        refused: LineQuota::per_minute(1),
        requests: 0,
        listener,
    };
    threads::WEB.spawn(Box::new(move || server.run()))?;
    Ok(())
}

struct Server {
    listener: TcpListener,
    app: Box<dyn App>,
    jobs: Arc<JobQueue>,
    clients: Vec<ClientEntry>,
    /// Time until which no client is accepted.
    accept_paused_until: Deadline,
    /// Clients that could not be accepted, for the log.
    refused: LineQuota,
    /// Counts requests.
    requests: u32,
}

/// A client, and the request whose response it waits for.
struct ClientEntry {
    connection: Connection,
    logged: Option<LoggedRequest>,
}

/// A request, for the log.
struct LoggedRequest {
    id: u32,
    path: String,
    level: Level,
    began: Instant,
}

impl Server {
    fn run(mut self) {
        let mut buffer = [0; READ_BUFFER_BYTES];
        let mut awaited = Vec::new();
        loop {
            let now = sys::clock();
            awaited.clear();
            awaited.push(PollFd::readable(self.jobs.wakeup()));
            let accepting =
                self.accept_paused_until.due(now) || self.accept_paused_until == Deadline::Never;
            awaited.push(PollFd::new(&self.listener, accepting, false));
            awaited.extend(self.clients.iter().map(|client| client.connection.awaited()));
            if let Err(e) = poll::wait(&mut awaited, self.timeout(accepting, now)) {
                event!(error, obj = "web", "cannot wait for clients", err = e);
                thread::park_timeout(ACCEPT_PAUSE);
                continue;
            }
            let now = sys::clock();
            // From the last one, so that a removal does not change the numbers of the others.
            for at in (0..self.clients.len()).rev() {
                let ready = awaited.get(at + 2).is_some_and(PollFd::is_ready);
                let connection = &mut self.clients[at].connection;
                let mut next =
                    if ready { connection.ready(&mut buffer, now) } else { ClientAction::Wait };
                // Also for a client that sends a single byte before each check.
                if next == ClientAction::Wait && connection.deadline().due(now) {
                    next = connection.expired();
                }
                self.advance(at, next, now);
            }
            for (job_id, reply) in self.jobs.collect() {
                let whose = self.clients.iter().position(|p| p.connection.job_id() == Some(job_id));
                if let Some(at) = whose {
                    let next = self.answer(at, reply, true, now);
                    self.advance(at, next, now);
                }
            }
            self.send_news(now);
            if accepting && awaited.get(1).is_some_and(PollFd::is_ready) {
                self.accept(now);
            }
            if self.clients.is_empty() {
                // The idle server holds almost no memory.
                self.clients = Vec::new();
                awaited = Vec::new();
            }
        }
    }

    /// Returns the time to wait without an event.
    fn timeout(&self, accepting: bool, now: Instant) -> Option<Duration> {
        let mut until = if accepting { Deadline::Never } else { self.accept_paused_until };
        for client in &self.clients {
            until = until.min(client.connection.deadline());
            if client.connection.has_events() {
                until = until.min(Deadline::At(now + POLL_INTERVAL));
            }
        }
        until.left(now)
    }

    /// Carries out the next actions for a client until it has to wait. A client that does not
    /// wait for responses may have sent many requests.
    fn advance(&mut self, at: usize, mut next: ClientAction, now: Instant) {
        loop {
            next = match next {
                ClientAction::Wait if self.exceeds_body_memory(at) => {
                    let reply = self.app.refusal(503, "too many large requests at the same time");
                    self.answer(at, reply, false, now)
                }
                ClientAction::Wait => return,
                ClientAction::Close => return drop(self.clients.swap_remove(at)),
                ClientAction::Refuse(status) => {
                    let reply = self.app.refusal(status, "");
                    self.answer(at, reply, false, now)
                }
                ClientAction::Answer => self.serve(at, now),
            }
        }
    }

    /// Returns whether a body exceeds the memory that is left.
    fn exceeds_body_memory(&self, at: usize) -> bool {
        let held = |client: &ClientEntry| client.connection.held();
        held(&self.clients[at]) > SMALL_BODY_BYTES
            && self.clients.iter().map(held).sum::<usize>() > MAX_BODY_BYTES
    }

    #[must_use]
    fn serve(&mut self, at: usize, now: Instant) -> ClientAction {
        self.requests = self.requests.wrapping_add(1);
        let client = &mut self.clients[at];
        client.logged = LoggedRequest::begin(self.requests, &client.connection, now);
        match self.app.answer(client.connection.request(), now) {
            ApiAnswer::Now(reply) => {
                let listeners =
                    || self.clients.iter().filter(|p| p.connection.has_events()).count();
                let reply = match reply.body {
                    ReplyBody::Events if listeners() >= MAX_LISTENERS => {
                        self.app.refusal(503, "too many pages are open")
                    }
                    _ => reply,
                };
                self.answer(at, reply, true, now)
            }
            ApiAnswer::Later(job) => {
                let job_id = JobId(self.requests);
                if self.jobs.submit(job_id, job) {
                    client.connection.wait(job_id);
                    return ClientAction::Wait;
                }
                let reply = self.app.refusal(503, "too many calls wait already");
                self.answer(at, reply, true, now)
            }
        }
    }

    #[must_use]
    fn answer(&mut self, at: usize, reply: ApiReply, whole: bool, now: Instant) -> ClientAction {
        let client = &mut self.clients[at];
        if let Some(logged) = client.logged.take() {
            logged.end(reply.status);
        }
        client.connection.answer(reply, whole, now)
    }

    /// Sends new events to the clients that receive them.
    fn send_news(&mut self, now: Instant) {
        for at in (0..self.clients.len()).rev() {
            let connection = &mut self.clients[at].connection;
            let Some(cursor) = connection.cursor() else { continue };
            let news = self.app.news(cursor, now);
            if !news.is_empty() {
                let next = connection.send_events(news, now);
                self.advance(at, next, now);
            }
        }
    }

    fn accept(&mut self, now: Instant) {
        self.accept_paused_until = Deadline::Never;
        for nth in 0..ACCEPT_BATCH {
            // Checked first: without a descriptor the client stays in the kernel's queue.
            if let Err(e) = self.check_descriptor() {
                if nth > 0 {
                    return;
                }
                if !self.close_idle(MIN_IDLE, now) {
                    return self.pause_accept(&e, now);
                }
            }
            match self.listener.accept() {
                Ok((socket, _)) => {
                    let _ = socket.set_nodelay(true);
                    sys::probe_idle(socket.as_raw_fd());
                    if self.clients.len() < MAX_CLIENTS || self.close_idle(Duration::ZERO, now) {
                        let client =
                            ClientEntry { connection: Connection::new(socket, now), logged: None };
                        self.clients.push(client);
                    } else {
                        reject(&*self.app, &socket);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(e) => return self.pause_accept(&e, now),
            }
        }
    }

    /// Checks that a client may use a descriptor. This thread has a few of those that visitors
    /// leave free, by their number. A session may use the first of them.
    fn check_descriptor(&self) -> io::Result<()> {
        let next = EventFd::new()?;
        let kept = |client: &dyn AsRawFd| sys::fd_budget::is_kept(client, WEB_RESERVE);
        if kept(&next) && self.clients.iter().filter(|p| kept(&p.connection)).count() >= WEB_RESERVE
        {
            return Err(io::Error::other("no descriptor is left; ulimit -n allows more"));
        }
        Ok(())
    }

    /// Closes the client that has been idle longest, and at least for `long`. Returns false if
    /// none is idle for that time.
    fn close_idle(&mut self, long: Duration, now: Instant) -> bool {
        let idle = self.clients.iter().enumerate();
        let idle = idle.filter_map(|(at, client)| Some((client.connection.idle_since(now)?, at)));
        let longest = idle.min().filter(|(since, _)| now.since(*since) >= long);
        if let Some((_, at)) = longest {
            self.clients.swap_remove(at);
        }
        longest.is_some()
    }

    /// Pauses accepting for a while.
    fn pause_accept(&mut self, why: &io::Error, now: Instant) {
        self.accept_paused_until = Deadline::At(now + ACCEPT_PAUSE);
        if let Some(count) = self.refused.record(now) {
            event!(warn, obj = "web", "cannot accept a client", count = count, err = why);
        }
    }
}

/// Sends a refusal to a client over the limit. Bytes that do not fit the empty buffer of its
/// socket are lost.
fn reject(app: &dyn App, socket: &TcpStream) {
    let reply = app.refusal(503, "too many clients");
    let mut bytes = reply.head(crate::http1::line::HttpVersion::Http11, false);
    if let ReplyBody::Whole(body) = reply.body {
        bytes.extend_from_slice(&body);
    }
    let _ = sys::send_now(socket.as_raw_fd(), &bytes);
    let _ = socket.shutdown(std::net::Shutdown::Write);
}

impl LoggedRequest {
    /// Logs a request to the API (agent 12.3). Requests that only read are
    /// frequent: their level is debug.
    fn begin(id: u32, client: &Connection, now: Instant) -> Option<LoggedRequest> {
        let head = client.request().head()?;
        let level = match head.method() {
            "GET" | "HEAD" => Level::Debug,
            _ => Level::Info,
        };
        let path = head.path().split('?').next().unwrap_or_default();
        if !path.starts_with("/api") || !logging::enabled(level) {
            return None;
        }
        let logged = LoggedRequest { id, path: path.to_owned(), level, began: now };
        event!(level = level, obj = "web", "start", pg = logged.path, id = logged.id);
        Some(logged)
    }

    fn end(self, status: u16) {
        let took = sys::clock().since(self.began);
        event!(
            level = self.level,
            obj = "web",
            "end",
            pg = self.path,
            id = self.id,
            status = status,
            dur = format_args!("{took:?}")
        );
    }
}
