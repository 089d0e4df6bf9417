//! One round of queries for a name: several resolvers at once, over UDP, until one has a
//! result. The choice of resolvers and the meaning of a failure are in [`super::resolver`].

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::dns::{DnsReply, MAX_REPLY_BYTES, Query, ReplyError};
use super::{dial, dns_stream};
use crate::sys;
use crate::sys::poll::{self, PollFd};
use crate::sys::socket;
use crate::time::{Deadline, Instant};

/// Time after which an unanswered query is repeated.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Time that the second family may arrive after the first (RFC 8305 section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// Round of queries for one name.
pub(super) struct UdpRound<'a> {
    name: &'a str,
    /// Network interface for the queries; empty: any.
    interface: &'a str,
    /// Addresses that are used only without an alternative.
    avoid: &'a [IpAddr],
    until: Instant,
    pending: Vec<ServerQuery>,
    result: RoundResult,
    /// End of the wait for the second family.
    delay_end: Option<Instant>,
}

/// Result of one round of queries.
#[derive(Default)]
pub(super) struct RoundResult {
    pub(super) found: Vec<IpAddr>,
    /// Addresses of replies that contain only addresses to avoid.
    pub(super) avoided: Vec<IpAddr>,
    /// Reasons for a missing result, one for each resolver.
    pub(super) failures: Vec<String>,
    /// A resolver has replied that the name or its addresses do not exist.
    pub(super) negative: bool,
}

/// Queries for both kinds of addresses to one resolver.
struct ServerQuery {
    server: SocketAddr,
    socket: UdpSocket,
    queries: [(Query, Option<DnsReply>); 2],
}

impl<'a> UdpRound<'a> {
    /// Returns a round that ends at `until`.
    pub(super) fn new(
        name: &'a str,
        interface: &'a str,
        avoid: &'a [IpAddr],
        until: Instant,
    ) -> Self {
        let result = RoundResult::default();
        UdpRound { name, interface, avoid, until, pending: Vec::new(), result, delay_end: None }
    }

    /// Queries all of `local`. Queries all of `public` too, at `public_at` or when `local` have
    /// no result.
    pub(super) fn run(
        mut self,
        local: &[SocketAddr],
        public: &[SocketAddr],
        public_at: Instant,
    ) -> RoundResult {
        self.send_queries(local);
        let mut waiting = Some(public).filter(|p| !p.is_empty());
        let mut retry_at = sys::clock() + RETRY_INTERVAL;
        let mut buffer = [0; MAX_REPLY_BYTES];
        loop {
            let now = sys::clock();
            if let Some(servers) = waiting
                && (self.pending.is_empty() || public_at <= now)
            {
                waiting = None;
                self.send_queries(servers);
            }
            if self.pending.is_empty() && waiting.is_none() {
                return self.result;
            }
            let end = self.until.min(self.delay_end.unwrap_or(self.until));
            if end <= now {
                let silent =
                    self.pending.iter().map(|query| format!("{}: no answer", query.server));
                self.result.failures.extend(silent);
                return self.result;
            }
            if retry_at <= now {
                retry_at = now + RETRY_INTERVAL;
                self.pending.retain(|query| query.send(&mut self.result.failures));
            }
            let mut next = end.min(retry_at);
            if waiting.is_some() {
                next = next.min(public_at);
            }
            let mut fds: Vec<_> =
                self.pending.iter().map(|query| PollFd::readable(&query.socket)).collect();
            let waited = poll::wait(&mut fds, Some(next.since(now)));
            if waited.is_err() || self.take_replies(&fds, &mut buffer) {
                return self.result;
            }
        }
    }

    /// Sends the queries to each of `servers`.
    fn send_queries(&mut self, servers: &[SocketAddr]) {
        let failures = &mut self.result.failures;
        for server in servers {
            let Some(queries) = Query::pair(self.name, sys::random_seed()) else {
                failures.push(format!("'{}' is not a host name", self.name));
                return;
            };
            match socket::datagrams(*server, dial::interface_to(self.interface, *server)) {
                Ok(socket) => {
                    let queries = queries.map(|q| (q, None));
                    let query = ServerQuery { server: *server, socket, queries };
                    if query.send(failures) {
                        self.pending.push(query);
                    }
                }
                Err(e) => failures.push(format!("{server}: {}", sys::fd_budget::words(&e))),
            }
        }
    }

    /// Reads received replies. Returns true if both families of one resolver are complete.
    fn take_replies(&mut self, fds: &[PollFd], buffer: &mut [u8]) -> bool {
        let result = &mut self.result;
        for at in (0..fds.len()).rev().filter(|at| fds[*at].is_ready()) {
            if let Err(e) = self.pending[at].receive(self.interface, buffer, self.until) {
                let server = self.pending.swap_remove(at).server;
                result.failures.push(format!("{server}: {e}"));
                continue;
            }
            let (found, complete) = self.pending[at].addresses();
            if !found.is_empty() && found.iter().all(|ip| self.avoid.contains(ip)) {
                if complete {
                    let server = self.pending.swap_remove(at).server;
                    result.failures.push(format!("{server}: an unusable address"));
                    result.avoided.extend(found);
                }
            } else if !found.is_empty() {
                result.found = found;
                if complete {
                    return true;
                }
                self.delay_end.get_or_insert(sys::clock() + RESOLUTION_DELAY);
            } else if complete {
                let query = self.pending.swap_remove(at);
                let (failure, negative) = query.failure();
                result.negative |= negative;
                result.failures.push(format!("{}: {failure}", query.server));
            }
        }
        false
    }
}

impl ServerQuery {
    /// Sends the unanswered queries. Returns false if the resolver cannot be reached; the
    /// reason is added to `failures`.
    fn send(&self, failures: &mut Vec<String>) -> bool {
        for (query, _) in self.queries.iter().filter(|(_, reply)| reply.is_none()) {
            if let Err(e) = self.socket.send(query.message()) {
                failures.push(format!("{}: {e}", self.server));
                return false;
            }
        }
        true
    }

    /// Returns all addresses so far, and whether both queries are answered.
    fn addresses(&self) -> (Vec<IpAddr>, bool) {
        let mut found = Vec::new();
        for (_, reply) in &self.queries {
            if let Some(DnsReply::Addresses(list)) = reply {
                found.extend(list);
            }
        }
        dial::ipv6_first(&mut found);
        (found, self.queries.iter().all(|(_, reply)| reply.is_some()))
    }

    /// Returns the reason why a resolver has no address, and whether its reply was definite.
    fn failure(&self) -> (String, bool) {
        let mut failure = ("no address".to_owned(), true);
        for (_, reply) in &self.queries {
            match reply {
                Some(DnsReply::NxDomain) => return ("no such name".to_owned(), true),
                Some(DnsReply::Failed(code)) => {
                    let why = match code {
                        2 => "it failed (SERVFAIL)".to_owned(),
                        5 => "it refused the query (REFUSED)".to_owned(),
                        n => format!("it failed (code {n})"),
                    };
                    failure = (why, false);
                }
                _ => {}
            }
        }
        failure
    }

    /// Reads messages of a resolver. Messages that do not match the query are skipped: the
    /// right reply may follow.
    fn receive(
        &mut self,
        interface: &str,
        buffer: &mut [u8],
        until: Instant,
    ) -> Result<(), String> {
        loop {
            let n = match self.socket.recv(buffer) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e.to_string()),
            };
            // Reason for the index: a socket returns at most the length it was given.
            let message = &buffer[..n];
            for at in 0..self.queries.len() {
                let (query, reply) = &mut self.queries[at];
                if reply.is_some() {
                    continue;
                }
                match query.read(message) {
                    Err(ReplyError::NotOurs | ReplyError::Malformed) => {}
                    Ok(DnsReply::Truncated) => {
                        let query = query.clone();
                        let deadline = Deadline::At(until);
                        self.queries[at].1 =
                            Some(dns_stream::retry(&query, self.server, interface, deadline)?);
                    }
                    Ok(answer) => *reply = Some(answer),
                }
            }
        }
    }
}
