//! Actions: what the edge does with an endpoint's visitors for the options of its Bind
//! request. [`compile`] turns the options into an [`ActionSet`]. It runs in three phases with
//! a fixed order: for a connection, for the head of a request, for the head of a response.
//!
//! Fails closed: a request goes on only with a [`ForwardPlan`], and only [`ActionSet`] makes
//! one, after each action has returned [`Flow::Continue`]. An action that fails ends the
//! request with a page. No socket, thread or clock here, and no option outside of here.

pub mod basic_auth;
pub mod body_encoder;
pub mod circuit_breaker;
pub mod compile;
pub mod compression;
pub mod edits;
pub mod headers;
pub mod ip_restriction;
pub mod location;
pub mod response;
pub mod user_agent;
pub mod webhook;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use self::edits::HeaderEdits;
use self::ip_restriction::IpRestriction;
use self::response::{ResponseAction, ResponsePlan};
use crate::http1::head::HeaderFields;
use crate::time::Instant;

/// Request whose head is complete.
#[derive(Clone, Copy)]
pub struct RequestInfo<'a> {
    /// Method as received.
    pub method: &'a [u8],
    /// Host and port that the visitor asked for, as received.
    pub authority: &'a [u8],
    /// Path and query as received.
    pub target: &'a [u8],
    /// Header fields as received.
    pub fields: HeaderFields<'a>,
    /// Whole body without its chunks. Empty unless [`ActionSet::body_limit`] asks for it.
    pub body: &'a [u8],
    /// Whether the visitor came over TLS.
    pub tls: bool,
    /// Address of the visitor.
    pub visitor: IpAddr,
    /// Time of the request.
    pub now: Instant,
    /// Wall clock in seconds since 1970, for signatures with a time.
    pub unix_seconds: u64,
}

/// Result of an action.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// The next action decides.
    Continue,
    /// The request ends with this response.
    Respond(Reply),
}

/// Response of an action in place of the upstream's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Number of the error code; 0 for none.
    pub code: u32,
    /// What happened and what to do.
    pub text: String,
    /// Further header fields.
    pub fields: Vec<(&'static str, String)>,
}

impl Reply {
    /// A response with an error code.
    pub fn new(status: u16, code: u32, text: impl Into<String>) -> Self {
        Reply { status, code, text: text.into(), fields: Vec::new() }
    }
}

/// An action could not decide. The request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionError(pub &'static str);

impl fmt::Display for ActionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Action on the head of a request.
pub trait RequestAction: fmt::Debug + Send + Sync {
    /// Decides about a request, and may change the header that the upstream gets.
    fn run(&self, request: &RequestInfo<'_>, edits: &mut HeaderEdits) -> Result<Flow, ActionError>;

    /// Most bytes of a body that the action reads; `None` if it reads none.
    fn body_limit(&self) -> Option<usize> {
        None
    }
}

/// Decision about a request.
#[must_use]
pub enum Decision {
    /// The request goes to the upstream.
    Forward(ForwardPlan),
    /// The request ends with this response.
    Respond(Reply),
}

/// Leave to forward a request, with what changes on the way. Made by [`ActionSet::request`]
/// alone.
pub struct ForwardPlan {
    edits: HeaderEdits,
    response: Option<Arc<ResponsePlan>>,
}

impl ForwardPlan {
    /// Changes of the request's header.
    pub fn edits(&self) -> &HeaderEdits {
        &self.edits
    }

    /// What becomes of the response; `None` if it passes unchanged.
    pub fn response(&self) -> Option<&Arc<ResponsePlan>> {
        self.response.as_ref()
    }
}

/// Actions of one endpoint, in the order in which they run. The default passes everything.
#[derive(Clone, Debug, Default)]
pub struct ActionSet {
    connect: Option<IpRestriction>,
    request: Vec<Arc<dyn RequestAction>>,
    response: Vec<Arc<dyn ResponseAction>>,
    /// SHA-256 of the options, for comparison: they may hold secrets.
    digest: Vec<u8>,
}

impl ActionSet {
    /// Returns whether a visitor with this address may connect.
    pub fn admits(&self, visitor: IpAddr) -> bool {
        self.connect.as_ref().is_none_or(|restriction| restriction.admits(visitor))
    }

    /// Returns whether both sets were made from equal options.
    pub fn is_same_as(&self, other: &ActionSet) -> bool {
        self.digest == other.digest
    }

    /// Returns the most bytes of a request's body that the actions read; `None` if they read
    /// none.
    pub fn body_limit(&self) -> Option<usize> {
        self.request.iter().filter_map(|action| action.body_limit()).max()
    }

    /// Returns the plan of all requests, if no action depends on them.
    pub fn unconditional(&self) -> Option<ForwardPlan> {
        (self.request.is_empty() && self.response.is_empty())
            .then(|| ForwardPlan { edits: HeaderEdits::default(), response: None })
    }

    /// Runs the actions on a request.
    pub fn request(&self, request: &RequestInfo<'_>) -> Decision {
        let mut edits = HeaderEdits::default();
        for action in &self.request {
            match action.run(request, &mut edits) {
                Ok(Flow::Continue) => {}
                Ok(Flow::Respond(reply)) => return Decision::Respond(reply),
                Err(error) => return Decision::Respond(failure(&error)),
            }
        }
        let response = (!self.response.is_empty())
            .then(|| Arc::new(ResponsePlan::new(self.response.clone(), request, &edits)));
        Decision::Forward(ForwardPlan { edits, response })
    }
}

/// Response in place of one that an action could not decide about.
pub fn failure(error: &ActionError) -> Reply {
    Reply::new(500, 2300, format!("The edge could not apply an option of this endpoint: {error}."))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::http1::head::HeadRanges;

    /// Runs `test` with the request in `head`, which ends with its blank line.
    pub fn with_request<R>(head: &str, test: impl FnOnce(&RequestInfo<'_>) -> R) -> R {
        with_body(head, b"", test)
    }

    /// The same with a body.
    pub fn with_body<R>(head: &str, body: &[u8], test: impl FnOnce(&RequestInfo<'_>) -> R) -> R {
        let mut ranges = HeadRanges::default();
        let line = ranges.read_request(head.as_bytes()).expect("a request");
        let fields = ranges.fields(head.as_bytes());
        let authority = fields.first("host").unwrap_or_default();
        let (method, target) = (line.method.as_bytes(), line.target);
        test(&RequestInfo {
            method,
            authority,
            target,
            fields,
            body,
            tls: false,
            visitor: [192, 0, 2, 7].into(),
            now: Instant::from_micros(1_000_000_000),
            unix_seconds: 1_700_000_000,
        })
    }

    #[derive(Debug)]
    struct Fails;

    impl RequestAction for Fails {
        fn run(&self, _: &RequestInfo<'_>, _: &mut HeaderEdits) -> Result<Flow, ActionError> {
            Err(ActionError("no randomness"))
        }
    }

    #[test]
    fn a_request_whose_action_fails_is_refused() {
        let set = ActionSet { request: vec![Arc::new(Fails)], ..ActionSet::default() };
        let decision = with_request("GET / HTTP/1.1\r\nHost: a\r\n\r\n", |r| set.request(r));
        let Decision::Respond(reply) = decision else { panic!("forwarded") };
        assert_eq!((reply.status, reply.code), (500, 2300));
        assert!(reply.text.contains("no randomness"));
    }
}
