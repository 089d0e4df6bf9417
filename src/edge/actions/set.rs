//! The actions of one endpoint: their phases, their order, and the permission to forward.

use std::net::IpAddr;
use std::sync::Arc;

use super::action::{ActionError, Flow, Reply, RequestAction, RequestInfo};
use super::edits::HeaderEdits;
use super::ip_restriction::IpRestriction;
use super::response::{ResponseAction, ResponsePlan};
use super::tls::TlsOptions;

/// Decision about a request.
#[must_use]
pub enum Decision {
    /// The request goes to the upstream.
    Forward(ForwardPlan),
    /// The request ends with this response.
    Respond(Reply),
}

/// Permission to forward a request, with the changes of its header. Only [`ActionSet`] creates
/// it.
pub struct ForwardPlan {
    edits: HeaderEdits,
    response: Option<Arc<ResponsePlan>>,
    websocket_to_bytes: bool,
}

impl ForwardPlan {
    /// Changes of the request's header.
    pub fn edits(&self) -> &HeaderEdits {
        &self.edits
    }

    /// Returns the actions on the response; `None` if it passes unchanged.
    pub fn response(&self) -> Option<&Arc<ResponsePlan>> {
        self.response.as_ref()
    }

    /// Returns whether the edge accepts a WebSocket and forwards the bytes of its messages.
    pub fn websocket_to_bytes(&self) -> bool {
        self.websocket_to_bytes
    }
}

/// Actions of one endpoint, in the order in which they run. The default passes everything.
#[derive(Clone, Debug, Default)]
pub struct ActionSet {
    /// For connections.
    pub(super) connect: Option<IpRestriction>,
    /// For TLS handshakes.
    pub(super) tls: Option<Arc<TlsOptions>>,
    /// Whether TLS of a TLS endpoint ends here.
    pub(super) terminates_tls: bool,
    /// For requests.
    pub(super) request: Vec<Arc<dyn RequestAction>>,
    /// For responses.
    pub(super) response: Vec<Arc<dyn ResponseAction>>,
    /// Whether the edge accepts WebSockets and forwards the bytes of their messages.
    pub(super) websocket_to_bytes: bool,
    /// SHA-256 of the options, for comparison: they may hold secrets.
    pub(super) digest: Vec<u8>,
}

impl ActionSet {
    /// Returns whether a visitor with this address may connect.
    pub fn admits(&self, visitor: IpAddr) -> bool {
        self.connect.as_ref().is_none_or(|restriction| restriction.admits(visitor))
    }

    /// Returns what changes in TLS handshakes; `None` for nothing.
    pub fn tls(&self) -> Option<&Arc<TlsOptions>> {
        self.tls.as_ref()
    }

    /// Returns whether TLS of a TLS endpoint ends at the edge.
    pub fn terminates_tls(&self) -> bool {
        self.terminates_tls
    }

    /// Returns whether a connection, whose handshake had `tls`, has shown the certificate of a
    /// client that this endpoint needs.
    pub fn admits_handshake(&self, tls: Option<&Arc<TlsOptions>>) -> bool {
        let needed = self.tls.as_ref().and_then(|tls| tls.client_cas.as_ref());
        let shown = tls.and_then(|tls| tls.client_cas.as_ref());
        needed.is_none_or(|needed| shown.is_some_and(|shown| Arc::ptr_eq(needed, shown)))
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
            .then(|| self.plan(HeaderEdits::default(), None))
    }

    fn plan(&self, edits: HeaderEdits, response: Option<Arc<ResponsePlan>>) -> ForwardPlan {
        ForwardPlan { edits, response, websocket_to_bytes: self.websocket_to_bytes }
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
        Decision::Forward(self.plan(edits, response))
    }
}

/// Returns the response for a request or a response to which an action could not be applied.
pub fn failure(error: &ActionError) -> Reply {
    Reply::new(500, 2300, format!("The edge could not apply an option of this endpoint: {error}."))
}

#[cfg(test)]
mod tests {
    use super::super::action::tests::with_request;
    use super::*;

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
