//! A visit of an endpoint with a policy: what the caller knows about the visitor, and the copy
//! that the response phase reads when the request itself is gone.

use std::fmt;
use std::net::SocketAddr;
use std::ops::{Index, Range};
use std::sync::Arc;

use super::action::PolicyFlow;
use super::phases::{
    BodySource, ConnectPhase, ConnectionInfo, EndpointInfo, PolicyHops, PolicyInput, RequestPhase,
    ResponsePhase, TlsDetails,
};
use super::rule::CompiledPolicy;
use crate::edge::actions::action::{ActionError, RequestInfo};
use crate::edge::actions::edits::HeaderEdits;
use crate::edge::actions::response::{ResponseAction, ResponseFlow, ResponseHead, ResponseRules};
use crate::edge::agents::address::Protocol;
use crate::edge::workers::Job;
use crate::http1::head::OwnedFields;
use crate::time::Instant;

/// Visitor and endpoint of a connection or a request.
#[derive(Clone, Copy, Debug)]
pub struct PolicyVisit<'a> {
    /// Connection of the visitor.
    pub connection: ConnectionInfo<'a>,
    /// Endpoint of the policy.
    pub endpoint: EndpointInfo<'a>,
    /// Time of the connection or the request.
    pub now: Instant,
    /// The same by the wall clock, in seconds since 1970.
    pub unix_seconds: u64,
    /// Requests of policies that led here.
    pub hops: PolicyHops,
}

impl<'a> PolicyVisit<'a> {
    fn input(self, policy: &'a CompiledPolicy) -> PolicyInput<'a> {
        let PolicyVisit { connection, endpoint, now, unix_seconds, hops } = self;
        let services = &*policy.services;
        PolicyInput { connection, endpoint, services, now, unix_seconds, hops }
    }

    /// Runs the connect phase.
    pub fn connect(self, policy: &CompiledPolicy) -> Result<PolicyFlow, ActionError> {
        policy.connect(&mut ConnectPhase::new(self.input(policy)))
    }

    /// Runs the request phase. Returns the actions on the response too, which the rules added.
    pub fn request(
        self,
        policy: &CompiledPolicy,
        request: RequestInfo<'_>,
        edits: &mut HeaderEdits,
        body: &mut dyn BodySource,
    ) -> Result<(PolicyFlow, Vec<Arc<dyn ResponseAction>>), ActionError> {
        let mut phase = RequestPhase::new(self.input(policy), request, edits, body);
        let flow = policy.request(&mut phase)?;
        Ok((flow, phase.on_response))
    }

    /// Returns what the response phase needs.
    pub fn remember(self, policy: &Arc<CompiledPolicy>, request: &RequestInfo<'_>) -> PastVisit {
        let ConnectionInfo { client, server, tls, server_name, handshake } = self.connection;
        let EndpointInfo { tunnel_id, url, account, protocol } = self.endpoint;
        let endpoint = [tunnel_id, url, account];
        PastVisit {
            policy: Arc::clone(policy),
            client,
            server,
            connection_tls: tls,
            server_name: server_name.map(str::to_owned),
            handshake: handshake.cloned(),
            endpoint: Joined::new(endpoint.concat(), endpoint.map(str::len)),
            protocol,
            hops: self.hops,
            request: RequestCopy::of(request),
        }
    }
}

/// Three texts in one piece of memory: each request has copies of some.
#[derive(Debug)]
struct Joined<T: ?Sized> {
    all: Box<T>,
    /// Ends of the texts.
    ends: [usize; 3],
}

impl<T: ?Sized + Index<Range<usize>, Output = T>> Joined<T> {
    /// Keeps `all`, which consists of texts with these lengths.
    fn new(all: impl Into<Box<T>>, [a, b, c]: [usize; 3]) -> Self {
        Joined { all: all.into(), ends: [a, a + b, a + b + c] }
    }

    fn parts(&self) -> [&T; 3] {
        let [a, b, c] = self.ends;
        [&self.all[0..a], &self.all[a..b], &self.all[b..c]]
    }
}

/// Copy of a request without its body.
#[derive(Debug)]
struct RequestCopy {
    /// Method, authority and target.
    line: Joined<[u8]>,
    fields: OwnedFields,
    is_http10: bool,
    tls: bool,
    visitor: std::net::IpAddr,
    now: Instant,
    unix_seconds: u64,
}

impl RequestCopy {
    fn of(request: &RequestInfo<'_>) -> Self {
        let line = [request.method, request.authority, request.target];
        RequestCopy {
            line: Joined::new(line.concat(), line.map(<[u8]>::len)),
            fields: request.fields.to_owned(),
            is_http10: request.is_http10,
            tls: request.tls,
            visitor: request.visitor,
            now: request.now,
            unix_seconds: request.unix_seconds,
        }
    }

    fn info(&self) -> RequestInfo<'_> {
        let [method, authority, target] = self.line.parts();
        RequestInfo {
            method,
            authority,
            target,
            fields: self.fields.fields(),
            body: b"",
            is_http10: self.is_http10,
            tls: self.tls,
            visitor: self.visitor,
            now: self.now,
            unix_seconds: self.unix_seconds,
        }
    }
}

/// A visit that waits for its response.
pub struct PastVisit {
    policy: Arc<CompiledPolicy>,
    client: SocketAddr,
    server: SocketAddr,
    connection_tls: bool,
    server_name: Option<String>,
    handshake: Option<Arc<TlsDetails>>,
    /// Id of the tunnel, URL, and account of the endpoint.
    endpoint: Joined<str>,
    protocol: Protocol,
    hops: PolicyHops,
    request: RequestCopy,
}

impl ResponseRules for PastVisit {
    fn run(&self, head: &mut ResponseHead<'_>) -> Result<ResponseFlow, ActionError> {
        let connection = ConnectionInfo {
            client: self.client,
            server: self.server,
            tls: self.connection_tls,
            server_name: self.server_name.as_deref(),
            handshake: self.handshake.as_ref(),
        };
        let [tunnel_id, url, account] = self.endpoint.parts();
        let endpoint = EndpointInfo { tunnel_id, url, account, protocol: self.protocol };
        let request = self.request.info();
        let (now, unix_seconds) = (request.now, request.unix_seconds);
        let hops = self.hops;
        let visit = PolicyVisit { connection, endpoint, now, unix_seconds, hops };
        let mut phase = ResponsePhase::new(visit.input(&self.policy), request, head);
        match self.policy.response(&mut phase)? {
            PolicyFlow::Continue => Ok(ResponseFlow::Pass),
            PolicyFlow::Respond(reply) => Ok(ResponseFlow::Replace(reply)),
            PolicyFlow::Close => Ok(ResponseFlow::Close),
            PolicyFlow::Forward(_) => Err(ActionError("a response cannot be forwarded")),
        }
    }

    fn may_block(&self) -> bool {
        self.policy.response_may_block()
    }

    fn offload(&self, work: Job) -> bool {
        self.policy.services.run_blocking(self.client.ip(), work)
    }
}

impl fmt::Debug for PastVisit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PastVisit").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
