//! The server of the local API: one thread for all clients, a bounded number of
//! places for them, and another thread only while something takes long.
//!
//! A client costs its place and what it has sent. When all places are taken the
//! one that has been idle longest goes for the next one, so that thousands of slow
//! connections keep out nobody who asks something. Visitors leave this thread a few
//! descriptors, which do for one client after another; others of those are the agent's.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::app::{Answer, App};
use super::client::{Client, Next};
use super::http::{Body, Reply};
use super::jobs::{Desk, Ticket};
use crate::event;
use crate::logging::rate_limit::Tally;
use crate::logging::{self, Level};
use crate::proxy::FOR_API;
use crate::sys::{self, Awaited, Bell};
use crate::time::{Deadline, Instant};

/// Clients at the same time.
const PLACES: usize = 32;

/// Of them, those that listen for events.
const LISTENERS: usize = 4;

/// Memory for bodies that are coming in, of all clients together: two of the
/// largest. Small ones always fit.
const BODIES: usize = 2 * super::http::MAX_BODY + SMALL;
const SMALL: usize = 16 * 1024;

/// How often one looks for news while somebody listens.
const LOOK: Duration = Duration::from_millis(250);

/// How long the listener rests when nobody can be let in.
const REST: Duration = Duration::from_millis(500);

/// How long a client must have been idle to give his descriptor to another one.
const QUIET: Duration = Duration::from_millis(200);

/// Clients let in before those who are in have a turn.
const WELCOME: usize = 16;

/// Stack of the thread.
const STACK: usize = if cfg!(debug_assertions) { 1024 * 1024 } else { 96 * 1024 };

/// Bytes read at once.
const BUFFER: usize = 8 * 1024;

/// Starts to serve `app` at `listener`, for as long as the program lives.
pub fn start(listener: TcpListener, app: Box<dyn App>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let server = Server {
        desk: Desk::new()?,
        app,
        places: Vec::new(),
        resting: Deadline::Never,
        refused: Tally::of(1),
        calls: 0,
        listener,
    };
    thread::Builder::new().name("web".into()).stack_size(STACK).spawn(move || server.run())?;
    Ok(())
}

struct Server {
    listener: TcpListener,
    app: Box<dyn App>,
    desk: Arc<Desk>,
    places: Vec<Place>,
    /// Until when nobody is let in.
    resting: Deadline,
    /// Who could not be, as the log tells of it.
    refused: Tally,
    /// Counts requests.
    calls: u32,
}

/// A client and the request that it waits for an answer to.
struct Place {
    client: Client,
    call: Option<Call>,
}

/// A request for the log.
struct Call {
    id: u32,
    path: String,
    level: Level,
    began: Instant,
}

impl Server {
    fn run(mut self) {
        let mut buffer = [0; BUFFER];
        let mut awaited = Vec::new();
        loop {
            let now = sys::clock();
            awaited.clear();
            awaited.push(Awaited::new(self.desk.bell().as_raw_fd(), true, false));
            let lets_in = self.resting.due(now) || self.resting == Deadline::Never;
            awaited.push(Awaited::new(self.listener.as_raw_fd(), lets_in, false));
            awaited.extend(self.places.iter().map(|place| place.client.awaited()));
            if let Err(e) = sys::wait_many(&mut awaited, self.patience(lets_in, now)) {
                event!(error, obj = "web", "cannot wait for clients", err = e);
                thread::park_timeout(REST);
                continue;
            }
            let now = sys::clock();
            // From the last one, so that those who go leave the others' numbers alone.
            for at in (0..self.places.len()).rev() {
                let ready = awaited.get(at + 2).is_some_and(Awaited::is_ready);
                let client = &mut self.places[at].client;
                let mut next = if ready { client.ready(&mut buffer, now) } else { Next::Wait };
                // Also of one who sends a byte whenever one looks.
                if next == Next::Wait && client.deadline().due(now) {
                    next = client.expired();
                }
                self.go_on(at, next, now);
            }
            for (ticket, reply) in self.desk.collect() {
                let whose = self.places.iter().position(|p| p.client.ticket() == Some(ticket));
                if let Some(at) = whose {
                    let next = self.answer(at, reply, true, now);
                    self.go_on(at, next, now);
                }
            }
            self.tell_news(now);
            if lets_in && awaited.get(1).is_some_and(Awaited::is_ready) {
                self.let_in(now);
            }
            if self.places.is_empty() {
                // Idle, it holds next to nothing.
                self.places = Vec::new();
                awaited = Vec::new();
            }
        }
    }

    /// How long to wait when nothing happens.
    fn patience(&self, lets_in: bool, now: Instant) -> Option<Duration> {
        let mut until = if lets_in { Deadline::Never } else { self.resting };
        for place in &self.places {
            until = until.min(place.client.deadline());
            if place.client.has_events() {
                until = until.min(Deadline::At(now + LOOK));
            }
        }
        until.left(now)
    }

    /// Does what is next for a client, until it has to wait for something: one that
    /// sends ahead may have many requests here.
    fn go_on(&mut self, at: usize, mut next: Next, now: Instant) {
        loop {
            next = match next {
                Next::Wait if self.takes_too_much(at) => {
                    let reply = self.app.refusal(503, "too many large requests at the same time");
                    self.answer(at, reply, false, now)
                }
                Next::Wait => return,
                Next::Close => return drop(self.places.swap_remove(at)),
                Next::Refuse(status) => {
                    let reply = self.app.refusal(status, "");
                    self.answer(at, reply, false, now)
                }
                Next::Answer => self.serve(at, now),
            }
        }
    }

    /// Whether a body is more than there is memory for now.
    fn takes_too_much(&self, at: usize) -> bool {
        let held = |place: &Place| place.client.held();
        held(&self.places[at]) > SMALL && self.places.iter().map(held).sum::<usize>() > BODIES
    }

    #[must_use]
    fn serve(&mut self, at: usize, now: Instant) -> Next {
        self.calls = self.calls.wrapping_add(1);
        let place = &mut self.places[at];
        place.call = Call::begin(self.calls, &place.client, now);
        match self.app.answer(place.client.request(), now) {
            Answer::Now(reply) => {
                let listeners = || self.places.iter().filter(|p| p.client.has_events()).count();
                let reply = match reply.body {
                    Body::Events if listeners() >= LISTENERS => {
                        self.app.refusal(503, "too many pages are open")
                    }
                    _ => reply,
                };
                self.answer(at, reply, true, now)
            }
            Answer::Later(job) => {
                let ticket = Ticket(self.calls);
                if self.desk.submit(ticket, job) {
                    place.client.wait(ticket);
                    return Next::Wait;
                }
                let reply = self.app.refusal(503, "too many calls wait already");
                self.answer(at, reply, true, now)
            }
        }
    }

    #[must_use]
    fn answer(&mut self, at: usize, reply: Reply, whole: bool, now: Instant) -> Next {
        let place = &mut self.places[at];
        if let Some(call) = place.call.take() {
            call.end(reply.status);
        }
        place.client.answer(reply, whole, now)
    }

    /// Tells those who listen what they have not heard.
    fn tell_news(&mut self, now: Instant) {
        for at in (0..self.places.len()).rev() {
            let client = &mut self.places[at].client;
            let Some(seen) = client.seen() else { continue };
            let news = self.app.news(seen, now);
            if !news.is_empty() {
                let next = client.tell(news, now);
                self.go_on(at, next, now);
            }
        }
    }

    fn let_in(&mut self, now: Instant) {
        self.resting = Deadline::Never;
        for nth in 0..WELCOME {
            // Before: a client for whom there is none waits with the kernel.
            if let Err(e) = self.descriptor() {
                if nth > 0 {
                    return;
                }
                if !self.dismiss(QUIET, now) {
                    return self.rest(&e, now);
                }
            }
            match self.listener.accept() {
                Ok((socket, _)) => {
                    let _ = socket.set_nodelay(true);
                    if self.places.len() < PLACES || self.dismiss(Duration::ZERO, now) {
                        let place = Place { client: Client::new(socket, now), call: None };
                        self.places.push(place);
                    } else {
                        turn_away(&*self.app, &socket);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(e) => return self.rest(&e, now),
            }
        }
    }

    /// Whether a client may have a descriptor. Of those that visitors leave to others
    /// this thread has a few, by their number: a session may have the first of them.
    fn descriptor(&self) -> io::Result<()> {
        let next = Bell::new()?;
        let kept = |client: &dyn AsRawFd| sys::fd_budget::is_kept(client, FOR_API);
        if kept(&next) && self.places.iter().filter(|p| kept(&p.client)).count() >= FOR_API {
            return Err(io::Error::other("no descriptor is left; ulimit -n allows more"));
        }
        Ok(())
    }

    /// Lets go of the client who has been idle longest, and for `long` at least.
    /// `false`: nobody is.
    fn dismiss(&mut self, long: Duration, now: Instant) -> bool {
        let idle = self.places.iter().enumerate();
        let idle = idle.filter_map(|(at, place)| Some((place.client.idle_since(now)?, at)));
        let longest = idle.min().filter(|(since, _)| now.since(*since) >= long);
        if let Some((_, at)) = longest {
            self.places.swap_remove(at);
        }
        longest.is_some()
    }

    /// Nobody can be let in, for a while.
    fn rest(&mut self, why: &io::Error, now: Instant) {
        self.resting = Deadline::At(now + REST);
        if let Some(count) = self.refused.add(now) {
            event!(warn, obj = "web", "cannot accept a client", count = count, err = why);
        }
    }
}

/// A word to a client for whom there is no place. What does not fit its socket's
/// empty buffer is lost.
fn turn_away(app: &dyn App, socket: &TcpStream) {
    let reply = app.refusal(503, "too many clients");
    let mut bytes = reply.head(crate::http1::head::Version::Http11, false);
    if let Body::Whole(body) = reply.body {
        bytes.extend_from_slice(&body);
    }
    let _ = sys::send_now(socket.as_raw_fd(), &bytes);
    let _ = socket.shutdown(std::net::Shutdown::Write);
}

impl Call {
    /// Tells of a call of the API (agent 12.3). Those that only look are many and of
    /// interest to few.
    fn begin(id: u32, client: &Client, now: Instant) -> Option<Call> {
        let head = client.request().head()?;
        let level = match head.method() {
            "GET" | "HEAD" => Level::Debug,
            _ => Level::Info,
        };
        let path = head.path().split('?').next().unwrap_or_default();
        if !path.starts_with("/api") || !logging::enabled(level) {
            return None;
        }
        let call = Call { id, path: path.to_owned(), level, began: now };
        logging::write(level, "web", &"start", &[("pg", &call.path), ("id", &call.id)]);
        Some(call)
    }

    fn end(self, status: u16) {
        let took = sys::clock().since(self.began);
        let took = format_args!("{took:?}").to_string();
        let fields: [(&str, &dyn std::fmt::Display); 4] =
            [("pg", &self.path), ("id", &self.id), ("status", &status), ("dur", &took)];
        logging::write(self.level, "web", &"end", &fields);
    }
}
