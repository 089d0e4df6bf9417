//! What the rules of a phase read and change. [`Scope`] is the part that expressions and
//! interpolated texts read; it is the same in all phases.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::made_values::MadeValues;
use super::rate_limit::RateTable;
use super::request_places::RequestPlace;
use super::search_time::ThreadClock;
use super::vars::PolicyVars;
use crate::edge::actions::action::{Reply, RequestInfo};
use crate::edge::actions::edits::HeaderEdits;
use crate::edge::actions::response::{ResponseAction, ResponseHead};
use crate::edge::agents::address::Protocol;
use crate::edge::fetch::{FetchError, FetchErrorKind, FetchResponse};
use crate::edge::login::LoginServices;
use crate::edge::login::clients::OAuthClient;
use crate::edge::restrictions::IpRules;
use crate::edge::workers::Job;
use crate::net::http_client::Request;
use crate::net::url::Url;
use crate::proto::secret::Secret;
use crate::time::Instant;

/// Result of the TLS handshake of a visitor at this edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsDetails {
    /// Version, as `1.3`.
    pub version: &'static str,
    /// Cipher suite by its name in RFC 8446 or RFC 5289.
    pub cipher_suite: String,
    /// Protocol by ALPN; empty without one.
    pub alpn: String,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// Certificate of the client as DER.
    pub certificate: Option<Vec<u8>>,
}

/// Connection of a visitor.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionInfo<'a> {
    /// Address of the visitor.
    pub client: SocketAddr,
    /// Address of this edge that the visitor connected to.
    pub server: SocketAddr,
    /// Whether the visitor came over TLS.
    pub tls: bool,
    /// Server name of the TLS handshake.
    pub server_name: Option<&'a str>,
    /// Result of the handshake; `None` before it, and if the edge does not terminate TLS.
    pub handshake: Option<&'a Arc<TlsDetails>>,
}

/// Endpoint of the policy.
#[derive(Clone, Copy, Debug)]
pub struct EndpointInfo<'a> {
    /// Id of its tunnel.
    pub tunnel_id: &'a str,
    /// Its URL.
    pub url: &'a str,
    /// Id of the credential that owns it.
    pub account: &'a str,
    /// Protocol of its visitors.
    pub protocol: Protocol,
}

/// Why an internal endpoint cannot serve a visitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalFault {
    /// Number of the error code.
    pub code: u32,
    /// What is wrong.
    pub text: String,
}

impl InternalFault {
    /// Returns the response for a request that was to be forwarded.
    pub fn into_reply(self) -> Reply {
        let status = match self.code {
            3200 => 404,
            724 => 503,
            _ => 502,
        };
        Reply::new(status, self.code, self.text)
    }
}

/// Requests of policies that led to a visit. A visitor's own request has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyHops {
    /// Their number.
    pub count: u32,
    /// End of the time of the first one, which bounds all of them.
    pub end: Option<Instant>,
}

/// A request of a policy to an internal endpoint.
#[derive(Clone, Copy, Debug)]
pub struct InternalRequest<'a> {
    /// Account of the policy: only its endpoints are found.
    pub account: &'a str,
    /// Connection of the visitor.
    pub connection: ConnectionInfo<'a>,
    /// Requests of policies up to this one.
    pub hops: PolicyHops,
    /// URL of the request.
    pub url: &'a Url,
    /// The request.
    pub request: &'a Request<'a>,
}

/// What actions use of the edge beside the request.
pub trait PolicyServices: fmt::Debug + Send + Sync {
    /// Checks that `url` is an internal endpoint of the account that is online and has this
    /// protocol.
    fn check_internal(
        &self,
        account: &str,
        protocol: Protocol,
        url: &str,
    ) -> Result<(), InternalFault>;

    /// Sends a request to an internal endpoint. Blocks until the response is complete.
    fn request_internal(&self, request: &InternalRequest<'_>) -> Result<FetchResponse, FetchError> {
        let text = format!("{} cannot be reached", request.url.authority());
        Err(FetchError::new(FetchErrorKind::Failed, text))
    }

    /// Takes a place for a request of a policy of the account; `None` if it has too many.
    fn request_place(&self, _account: &str) -> Option<RequestPlace> {
        Some(RequestPlace::default())
    }

    /// Has another thread do work that may block, for a visitor with this address. Does not
    /// block. Returns `false` if no thread is free.
    fn run_blocking(&self, _client: IpAddr, _work: Job) -> bool {
        false
    }

    /// Returns the networks of an IP policy; `None` if it does not exist.
    fn ip_policy(&self, id: &str) -> Option<Arc<IpRules>>;

    /// Returns the certificate of a CA as PEM; `None` if it does not exist.
    fn certificate_authority(&self, id: &str) -> Option<String>;

    /// Returns the value of a secret for the policies of an account; `None` if it does not
    /// exist, or the account may not read it.
    fn secret(&self, account: &str, vault: &str, name: &str) -> Option<Secret>;

    /// Returns the counters of `rate-limit`.
    fn rates(&self) -> Arc<RateTable>;

    /// Returns the clock of the searches for regular expressions.
    fn thread_clock(&self) -> ThreadClock;

    /// Returns the services of logins, with requests to other servers; `None`: the edge is
    /// stopping.
    fn logins(&self) -> Option<Arc<LoginServices>> {
        None
    }

    /// Returns the clients of the edge at providers of OAuth.
    fn oauth_clients(&self) -> Vec<OAuthClient> {
        Vec::new()
    }

    /// Returns whether hosts of other accounts than this one may be below a domain.
    fn is_shared(&self, _account: &str, _domain: &str) -> bool {
        true
    }
}

/// Input of all phases.
#[derive(Clone, Copy)]
pub struct PolicyInput<'a> {
    /// Connection of the visitor.
    pub connection: ConnectionInfo<'a>,
    /// Endpoint of the policy.
    pub endpoint: EndpointInfo<'a>,
    /// The edge.
    pub services: &'a dyn PolicyServices,
    /// Time of the connection or the request.
    pub now: Instant,
    /// The same by the wall clock, in seconds since 1970.
    pub unix_seconds: u64,
    /// Requests of policies that led here.
    pub hops: PolicyHops,
}

/// What expressions and interpolated texts read.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// Input of all phases.
    pub input: &'a PolicyInput<'a>,
    /// The request; `None` in the connect phase.
    pub request: Option<&'a RequestInfo<'a>>,
    /// Head of the response; `None` before the response phase.
    pub response: Option<&'a ResponseHead<'a>>,
    /// Variables of this phase.
    pub vars: &'a PolicyVars,
    /// Values that were made in this phase.
    pub made: &'a MadeValues,
}

/// State of any phase, for actions that are the same in all of them.
pub trait PhaseState {
    /// Returns what expressions read.
    fn scope(&self) -> Scope<'_>;

    /// Returns the variables.
    fn vars_mut(&mut self) -> &mut PolicyVars;
}

/// Connect phase: a visitor has connected.
pub struct ConnectPhase<'a> {
    /// Input of all phases.
    pub input: PolicyInput<'a>,
    /// Variables of this phase.
    pub vars: PolicyVars,
    made: MadeValues,
}

impl PhaseState for ConnectPhase<'_> {
    fn scope(&self) -> Scope<'_> {
        let ConnectPhase { input, vars, made } = self;
        Scope { input, request: None, response: None, vars, made }
    }

    fn vars_mut(&mut self) -> &mut PolicyVars {
        &mut self.vars
    }
}

impl<'a> ConnectPhase<'a> {
    /// Begins the phase.
    pub fn new(input: PolicyInput<'a>) -> Self {
        ConnectPhase { input, vars: PolicyVars::default(), made: MadeValues::default() }
    }
}

/// Reads the body of a request when an action asks for it.
pub trait BodySource {
    /// Reads the whole body, which has at most `limit` bytes. The error is the response that
    /// ends the request. Called once.
    fn read(&mut self, limit: usize) -> Result<Vec<u8>, Reply>;
}

/// Source for requests without rules: no action reads a body.
pub struct NoBody;

impl BodySource for NoBody {
    fn read(&mut self, _: usize) -> Result<Vec<u8>, Reply> {
        Err(Reply::new(500, 2300, "The body of the request cannot be read here."))
    }
}

/// Request phase: the head of a request was read.
pub struct RequestPhase<'a> {
    /// Input of all phases.
    pub input: PolicyInput<'a>,
    /// The request as received. Its body is empty; see [`RequestPhase::body`].
    pub request: RequestInfo<'a>,
    /// Changes of the request for the upstream.
    pub edits: &'a mut HeaderEdits,
    /// Variables of this phase.
    pub vars: PolicyVars,
    /// Actions on the response to this request, beside the rules of the response phase.
    pub on_response: Vec<Arc<dyn ResponseAction>>,
    made: MadeValues,
    source: &'a mut dyn BodySource,
    body: Option<Vec<u8>>,
}

impl PhaseState for RequestPhase<'_> {
    fn scope(&self) -> Scope<'_> {
        let RequestPhase { input, request, vars, made, .. } = self;
        Scope { input, request: Some(request), response: None, vars, made }
    }

    fn vars_mut(&mut self) -> &mut PolicyVars {
        &mut self.vars
    }
}

impl<'a> RequestPhase<'a> {
    /// Begins the phase.
    pub fn new(
        input: PolicyInput<'a>,
        request: RequestInfo<'a>,
        edits: &'a mut HeaderEdits,
        source: &'a mut dyn BodySource,
    ) -> Self {
        let (vars, made) = (PolicyVars::default(), MadeValues::default());
        RequestPhase {
            input,
            request,
            edits,
            vars,
            on_response: Vec::new(),
            made,
            source,
            body: None,
        }
    }

    /// Returns the whole body, without its chunks, as the upstream gets it. It is read when the
    /// first action needs it. The error is the response that ends the request.
    pub fn body(&mut self, limit: usize) -> Result<&[u8], Reply> {
        if let Some(replaced) = self.edits.body() {
            return Ok(replaced);
        }
        let body = match self.body.take() {
            Some(body) => body,
            None => self.source.read(limit)?,
        };
        let body = self.body.insert(body);
        match body.len() <= limit {
            true => Ok(body),
            false => Err(body_too_long(limit)),
        }
    }
}

/// Returns the response to a request whose body is too long for an action.
pub fn body_too_long(limit: usize) -> Reply {
    let text = format!(
        "The body of the request is too long for the traffic policy of this endpoint: the \
         maximum is {limit} bytes."
    );
    Reply::new(413, 0, text)
}

/// Response phase: the head of the upstream's response was read.
pub struct ResponsePhase<'a, 'h> {
    /// Input of all phases. The time is that of the request.
    pub input: PolicyInput<'a>,
    /// The request as received, without its body.
    pub request: RequestInfo<'a>,
    /// The head, which actions change in place.
    pub head: &'a mut ResponseHead<'h>,
    /// Variables of this phase.
    pub vars: PolicyVars,
    made: MadeValues,
}

impl PhaseState for ResponsePhase<'_, '_> {
    fn scope(&self) -> Scope<'_> {
        let ResponsePhase { input, request, head, vars, made } = self;
        Scope { input, request: Some(request), response: Some(head), vars, made }
    }

    fn vars_mut(&mut self) -> &mut PolicyVars {
        &mut self.vars
    }
}

impl<'a, 'h> ResponsePhase<'a, 'h> {
    /// Begins the phase.
    pub fn new(
        input: PolicyInput<'a>,
        request: RequestInfo<'a>,
        head: &'a mut ResponseHead<'h>,
    ) -> Self {
        ResponsePhase {
            input,
            request,
            head,
            vars: PolicyVars::default(),
            made: MadeValues::default(),
        }
    }
}
