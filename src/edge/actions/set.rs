//! The actions of one endpoint: their phases, their order, and the permission to forward.

use std::net::IpAddr;
use std::sync::Arc;

use ring::digest::{SHA256, digest};

use super::action::{ActionError, Flow, Reply, RequestAction, RequestInfo};
use super::edits::HeaderEdits;
use super::ip_restriction::IpRestriction;
use super::response::{ResponseAction, ResponsePlan, ResponseRules};
use super::tls::TlsOptions;
use crate::edge::policy::action::PolicyFlow;
use crate::edge::policy::catalog::PolicyPhase;
use crate::edge::policy::phases::BodySource;
use crate::edge::policy::rule::CompiledPolicy;
use crate::edge::policy::visit::PolicyVisit;

/// Fields that ask the upstream for a compressed body, or for a part of one.
const READABLE_ONLY: [&str; 3] = ["accept-encoding", "range", "if-range"];

/// Decision about a request.
#[must_use]
pub enum Decision {
    /// The request goes to the upstream.
    Forward(ForwardPlan),
    /// The request ends with this response.
    Respond(Reply),
    /// The internal endpoint with this URL decides about the request, with the changes of the
    /// plan.
    Internal(String, ForwardPlan),
    /// The visitor's connection is closed.
    Close,
}

/// Decision about a connection.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum ConnectDecision {
    /// The endpoint serves the visitor.
    Admit,
    /// The internal endpoint with this URL decides about the visitor.
    Internal(String),
    /// The connection is closed.
    Close,
}

/// Visitor of a request, for the policy of the endpoint.
pub struct RequestVisit<'a> {
    /// Connection, endpoint and time.
    pub visit: PolicyVisit<'a>,
    /// Reads the body.
    pub body: &'a mut dyn BodySource,
}

/// Permission to forward a request, with the changes of its header. Only [`ActionSet`] creates
/// it.
pub struct ForwardPlan {
    edits: HeaderEdits,
    response: Option<Arc<ResponsePlan>>,
    websocket_to_bytes: bool,
}

impl ForwardPlan {
    /// Returns the changes of the request that are not in the received bytes yet.
    pub fn edits(&self) -> &HeaderEdits {
        &self.edits
    }

    /// Returns the changes, which are then in the received bytes.
    pub fn take_edits(&mut self) -> HeaderEdits {
        std::mem::take(&mut self.edits)
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
    /// Rules of the traffic policy.
    pub(super) policy: Option<Arc<CompiledPolicy>>,
    /// SHA-256 of the options, for comparison: they may hold secrets.
    pub(super) digest: Vec<u8>,
    /// SHA-256 of the policy's text.
    pub(super) policy_digest: Vec<u8>,
}

impl ActionSet {
    /// Returns whether a visitor with this address may connect.
    pub fn admits(&self, visitor: IpAddr) -> bool {
        self.connect.as_ref().is_none_or(|restriction| restriction.admits(visitor))
    }

    /// Returns what changes in TLS handshakes; `None` for nothing.
    pub fn tls(&self) -> Option<&Arc<TlsOptions>> {
        let of_policy = self.policy.as_ref().and_then(|policy| policy.tls());
        of_policy.or(self.tls.as_ref())
    }

    /// Returns whether TLS of a TLS endpoint ends at the edge.
    pub fn terminates_tls(&self) -> bool {
        self.terminates_tls || self.policy.as_ref().is_some_and(|policy| policy.tls().is_some())
    }

    /// Returns whether a connection, whose handshake had `tls`, has shown the certificate of a
    /// client that this endpoint needs, and has a version of TLS that it accepts. `version`
    /// returns that of the connection; `None` if the edge has not made the handshake.
    pub fn admits_handshake(
        &self,
        tls: Option<&Arc<TlsOptions>>,
        version: impl FnOnce() -> Option<&'static str>,
    ) -> bool {
        let Some(own) = self.tls() else { return true };
        let needed = own.client_cas.as_ref();
        let shown = tls.and_then(|tls| tls.client_cas.as_ref());
        needed.is_none_or(|needed| shown.is_some_and(|shown| Arc::ptr_eq(needed, shown)))
            && (own.versions.is_empty() || version().is_none_or(|version| own.accepts(version)))
    }

    /// Returns whether both sets were made from equal options.
    pub fn is_same_as(&self, other: &ActionSet) -> bool {
        self.digest == other.digest && self.policy_digest == other.policy_digest
    }

    /// Adds the rules of a policy, which was compiled from `text`.
    pub fn with_policy(mut self, policy: CompiledPolicy, text: &str) -> Self {
        self.policy_digest = digest(&SHA256, text.as_bytes()).as_ref().to_vec();
        // A policy without a rule costs nothing.
        self.policy =
            PolicyPhase::ALL.iter().any(|phase| policy.has(*phase)).then(|| policy.into());
        self
    }

    /// Returns the actions of the options alone.
    pub fn without_policy(&self) -> Self {
        ActionSet { policy: None, policy_digest: Vec::new(), ..self.clone() }
    }

    /// Returns whether a policy has rules.
    pub fn has_policy(&self) -> bool {
        self.policy.is_some()
    }

    /// Returns whether visitors meet rules of the policy when they connect.
    pub fn has_connect_rules(&self) -> bool {
        self.has_rules(PolicyPhase::TcpConnect)
    }

    fn has_rules(&self, phase: PolicyPhase) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.has(phase))
    }

    /// Runs the rules for a connection. A visitor is refused if a rule cannot decide.
    pub fn connect(&self, visit: PolicyVisit<'_>) -> Result<ConnectDecision, ActionError> {
        let Some(policy) = &self.policy else { return Ok(ConnectDecision::Admit) };
        Ok(match visit.connect(policy)? {
            PolicyFlow::Continue => ConnectDecision::Admit,
            PolicyFlow::Forward(url) => ConnectDecision::Internal(url),
            PolicyFlow::Respond(_) | PolicyFlow::Close => ConnectDecision::Close,
        })
    }

    /// Returns the most bytes of a request's body that the actions read; `None` if they read
    /// none.
    pub fn body_limit(&self) -> Option<usize> {
        self.request.iter().filter_map(|action| action.body_limit()).max()
    }

    /// Returns the plan of all requests, if no action and no rule depends on them. `outer` is
    /// the plan of the endpoint that forwarded the request to this one.
    pub fn unconditional(&self, outer: Option<&Arc<ResponsePlan>>) -> Option<ForwardPlan> {
        let rules = self.has_rules(PolicyPhase::HttpRequest)
            || self.policy.as_ref().is_some_and(|policy| policy.has_response_rules());
        (self.request.is_empty() && self.response.is_empty() && !rules)
            .then(|| self.plan(HeaderEdits::default(), outer.cloned()))
    }

    fn plan(&self, edits: HeaderEdits, response: Option<Arc<ResponsePlan>>) -> ForwardPlan {
        ForwardPlan { edits, response, websocket_to_bytes: self.websocket_to_bytes }
    }

    /// Runs the actions on a request, then the rules of the policy. `outer` is the plan of the
    /// endpoint that forwarded the request to this one.
    pub fn request(
        &self,
        request: &RequestInfo<'_>,
        visit: RequestVisit<'_>,
        outer: Option<Arc<ResponsePlan>>,
    ) -> Decision {
        self.try_request(request, visit, outer)
            .unwrap_or_else(|error| Decision::Respond(failure(&error)))
    }

    fn try_request(
        &self,
        request: &RequestInfo<'_>,
        RequestVisit { visit, body }: RequestVisit<'_>,
        outer: Option<Arc<ResponsePlan>>,
    ) -> Result<Decision, ActionError> {
        let mut edits = HeaderEdits::default();
        for action in &self.request {
            if let Flow::Respond(reply) = action.run(request, &mut edits)? {
                return Ok(Decision::Respond(reply));
            }
        }
        let mut on_response = self.response.clone();
        let mut internal = None;
        let mut past = None;
        if let Some(policy) = &self.policy {
            if policy.has(PolicyPhase::HttpRequest) {
                let (flow, added) = visit.request(policy, *request, &mut edits, body)?;
                on_response.extend(added);
                match flow {
                    PolicyFlow::Continue => {}
                    PolicyFlow::Respond(reply) => return Ok(Decision::Respond(reply)),
                    PolicyFlow::Close => return Ok(Decision::Close),
                    PolicyFlow::Forward(url) => internal = Some(url),
                }
            }
            past = policy.has_response_rules().then(|| {
                let past: Box<dyn ResponseRules> = Box::new(visit.remember(policy, request));
                past
            });
            if policy.changes_bodies() {
                // What the edge could not read it could not change.
                READABLE_ONLY.iter().for_each(|name| edits.remove(&Arc::from(*name)));
            }
        }
        let unchanged = on_response.is_empty() && edits.response_lines().is_empty();
        let response = match unchanged && past.is_none() {
            true => outer,
            false => {
                let rest = (past, outer);
                Some(Arc::new(ResponsePlan::new(on_response, rest, request, &edits)))
            }
        };
        let plan = self.plan(edits, response);
        Ok(match internal {
            Some(url) => Decision::Internal(url, plan),
            None => Decision::Forward(plan),
        })
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
    use crate::edge::agents::address::Protocol;
    use crate::edge::policy::phases::{ConnectionInfo, EndpointInfo, NoBody, PolicyHops};

    fn visit<'a>(request: &RequestInfo<'_>) -> PolicyVisit<'a> {
        let client = (request.visitor, 50_000).into();
        PolicyVisit {
            connection: ConnectionInfo {
                client,
                server: client,
                tls: false,
                server_name: None,
                handshake: None,
            },
            endpoint: EndpointInfo {
                tunnel_id: "tn_1",
                url: "https://a.example",
                account: "u",
                protocol: Protocol::Http,
            },
            now: request.now,
            unix_seconds: request.unix_seconds,
            hops: PolicyHops::default(),
        }
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
        let decision = with_request("GET / HTTP/1.1\r\nHost: a\r\n\r\n", |r| {
            set.request(r, RequestVisit { visit: visit(r), body: &mut NoBody }, None)
        });
        let Decision::Respond(reply) = decision else { panic!("forwarded") };
        assert_eq!((reply.status, reply.code), (500, 2300));
        assert!(reply.text.contains("no randomness"));
    }
}
