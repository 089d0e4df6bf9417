//! A request of a policy to an internal endpoint. It meets the same rules as a visitor's request
//! that is forwarded there: the IP restrictions, the policy of the endpoint and of those that it
//! forwards to. The thread of the policy sends it into a stream of the agent and reads the
//! response, so that no further thread and no socket is used.
//!
//! Bounds: the time of the policy's action, the length of its response, the memory for
//! responses to policies, a stream of the visitor's share, and the chain of internal endpoints.

use std::sync::Arc;

use super::failover::MAX_MEMBERS;
use super::forwarded::VisitorInfo;
use super::internal;
use super::internal_stream::{InternalStream, ReadEnd};
use super::pages::{ErrorPage, PageFormat, UpstreamFault};
use super::request::RequestHead;
use super::response::{FilterProgress, RequestContext, ResponseEnd, ResponseFilter};
use crate::edge::Edge;
use crate::edge::actions::response::ResponsePlan;
use crate::edge::actions::{self, Decision, ForwardPlan, Reply, RequestVisit};
use crate::edge::agents::address::Protocol;
use crate::edge::agents::registry::OnlineEndpoint;
use crate::edge::fetch::{FetchError, FetchErrorKind, FetchResponse};
use crate::edge::policy::phases::{BodySource, InternalFault, InternalRequest, body_too_long};
use crate::edge::policy::visit::PolicyVisit;
use crate::http1::head::{self, HeadRanges, MAX_HEAD_BYTES};
use crate::http1::line::Strictness;
use crate::net::http_client::Method;
use crate::session::{HeldBytes, SendError};
use crate::sys;

/// Value of `User-Agent`, unless the policy sets another one.
const USER_AGENT: &str = concat!("culvert-edge/", env!("CARGO_PKG_VERSION"));

/// Step by which the memory of a response is counted.
const HOLD_BYTES: usize = 64 * 1024;

/// Sends a request and returns the response.
pub fn send(edge: &Edge, request: &InternalRequest<'_>) -> Result<FetchResponse, FetchError> {
    let client = request.connection.client;
    let tls = request.url.secure;
    let mut visit = InternalVisit {
        edge,
        request,
        visitor: VisitorInfo { peer: client.ip(), client, tls, trusted: false },
        parsed: RequestHead::default(),
        head: request_head(request)?,
        body: request.request.body.unwrap_or_default().to_vec(),
    };
    visit.parse()?;
    match visit.route()? {
        Routed::Reply(page) => visit.page(&page),
        Routed::Forward(endpoint, plan) => {
            let sent = visit.exchange(&endpoint, &plan);
            if let (Err(_), Some(response)) = (&sent, plan.response()) {
                response.upstream_failed(502);
            }
            sent
        }
    }
}

/// Returns the head of the request. Its values come from expressions: none may add a line.
fn request_head(request: &InternalRequest<'_>) -> Result<Vec<u8>, FetchError> {
    let InternalRequest { url, request, .. } = request;
    let method = match request.method {
        Method::Get => "GET",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Patch => "PATCH",
        Method::Delete => "DELETE",
        Method::Options => "OPTIONS",
    };
    let mut head = format!("{method} {} HTTP/1.1\r\nHost: {}\r\n", url.target, url.authority());
    let mut has_agent = false;
    for (name, value) in request.headers {
        if value.bytes().any(|byte| byte != b'\t' && (byte < b' ' || byte == 127)) {
            let text = format!("the value of the header '{name}' is not valid");
            return Err(FetchError::new(FetchErrorKind::Refused, text));
        }
        has_agent |= name.eq_ignore_ascii_case("user-agent");
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !has_agent {
        head.push_str(&format!("User-Agent: {USER_AGENT}\r\n"));
    }
    if let Some(body) = request.body {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    Ok(head.into_bytes())
}

/// A request on its way through the endpoints.
struct InternalVisit<'a> {
    edge: &'a Edge,
    request: &'a InternalRequest<'a>,
    visitor: VisitorInfo,
    parsed: RequestHead,
    head: Vec<u8>,
    body: Vec<u8>,
}

/// Decision about the request.
enum Routed {
    /// The agent of this endpoint gets it.
    Forward(Arc<OnlineEndpoint>, ForwardPlan),
    /// A policy has responded.
    Reply(ErrorPage),
}

/// Body in memory.
struct MemoryBody<'a>(&'a [u8]);

impl BodySource for MemoryBody<'_> {
    fn read(&mut self, limit: usize) -> Result<Vec<u8>, Reply> {
        match self.0.len() <= limit {
            true => Ok(self.0.to_vec()),
            false => Err(body_too_long(limit)),
        }
    }
}

impl InternalVisit<'_> {
    fn failed(&self, text: impl AsRef<str>) -> FetchError {
        let text = format!("{}: {}", self.request.url.authority(), text.as_ref());
        FetchError::new(FetchErrorKind::Failed, text)
    }

    fn parse(&mut self) -> Result<(), FetchError> {
        match self.head.len() <= MAX_HEAD_BYTES {
            true => self.parsed.parse(&self.head).map_err(|error| self.failed(error.sentence())),
            false => Err(self.failed("the head of the request is too long")),
        }
    }

    /// Finds the endpoint and runs the actions, as for the request of a visitor.
    fn route(&mut self) -> Result<Routed, FetchError> {
        let url = self.request.url;
        let scheme = if url.secure { "https" } else { "http" };
        let mut next = format!("{scheme}://{}:{}", url.host, url.port);
        let mut outer = None;
        for _ in 0..internal::MAX_CHAIN {
            let found = internal::find(self.edge, self.request.account, Protocol::Http, &next);
            let endpoint = found.map_err(|InternalFault { code, text }| {
                FetchError::new(FetchErrorKind::Failed, text).with_code(code)
            })?;
            if !self.edge.admits_visitor(&endpoint, self.visitor.client) {
                return Ok(Routed::Reply(ErrorPage::forbidden()));
            }
            match self.decide(&endpoint, outer) {
                Decision::Forward(plan) if plan.websocket_to_bytes() => {
                    let text = "This endpoint accepts WebSocket connections only.";
                    return Ok(Routed::Reply(ErrorPage::new(400, 3206, text)));
                }
                Decision::Forward(plan) => return Ok(Routed::Forward(endpoint, plan)),
                Decision::Respond(reply) => return Ok(Routed::Reply(reply.into())),
                Decision::Close => return Err(self.failed("a policy closed the connection")),
                Decision::Internal(url, plan) => {
                    self.apply(&plan)?;
                    outer = plan.response().cloned();
                    next = url;
                }
            }
        }
        Ok(Routed::Reply(ErrorPage::too_many_forwards(internal::MAX_CHAIN)))
    }

    fn decide(&self, endpoint: &OnlineEndpoint, outer: Option<Arc<ResponsePlan>>) -> Decision {
        let actions = &endpoint.options.actions;
        let now = (sys::clock(), internal::unix_seconds());
        let body = match actions.body_limit() {
            Some(limit) if self.body.len() > limit => {
                return Decision::Respond(body_too_long(limit));
            }
            Some(_) => &self.body[..],
            None => &[],
        };
        let visit = PolicyVisit {
            connection: self.request.connection,
            endpoint: endpoint.info(),
            now: now.0,
            unix_seconds: now.1,
            hops: self.request.hops,
        };
        let info = self.parsed.info(&self.head, body, self.visitor, now);
        let mut body = MemoryBody(&self.body);
        actions.request(&info, RequestVisit { visit, body: &mut body }, outer)
    }

    /// Applies the changes of an endpoint for the next one.
    fn apply(&mut self, plan: &ForwardPlan) -> Result<(), FetchError> {
        let mut head = Vec::with_capacity(self.head.len() + 256);
        self.parsed.edit(&self.head, plan.edits(), &mut head);
        if let Some(body) = plan.edits().body() {
            self.body = body.to_vec();
        }
        self.head = head;
        self.parse()
    }

    /// Sends the request to the agent, and returns the response.
    fn exchange(
        &self,
        endpoint: &Arc<OnlineEndpoint>,
        plan: &ForwardPlan,
    ) -> Result<FetchResponse, FetchError> {
        let mut bytes = Vec::new();
        self.parsed.rewrite(&self.head, self.visitor, plan.edits(), &mut bytes);
        bytes.extend_from_slice(plan.edits().body().unwrap_or(&self.body));
        let mut stream = self.open(endpoint, &bytes)?;
        let mut filter = ResponseFilter::http_once();
        // A reader of HTTP/1.0 gets one head, and the body without chunks.
        filter.begin(RequestContext {
            close: true,
            is_http10: true,
            plan: plan.response().cloned(),
            ..RequestContext::default()
        });
        let mut response = self.collector();
        loop {
            let emit = &mut |piece: &[u8]| response.push(piece);
            let progress = match stream.read(self.request.request.deadline) {
                Ok(bytes) => filter.feed(&bytes, emit),
                Err(end) => self.ended(end, &mut filter, emit)?,
            };
            response.check()?;
            match progress {
                FilterProgress::InProgress => {}
                FilterProgress::Done => {
                    stream.finish();
                    return response.finish();
                }
                FilterProgress::Invalid(error) | FilterProgress::Broken(error) => {
                    return Err(self.failed(error.sentence()));
                }
                FilterProgress::ActionFailed(error) => {
                    return self.page(&actions::failure(&error).into());
                }
                FilterProgress::Replaced => {
                    let reply = filter.take_replacement();
                    return self.page(&reply.map_or_else(ErrorPage::no_stream, ErrorPage::from));
                }
                FilterProgress::EncodingFailed => {
                    return Err(self.failed("a policy could not change the response"));
                }
                FilterProgress::Closed => {
                    return Err(self.failed("a policy closed the connection"));
                }
            }
        }
    }

    /// Processes the end of the stream. An error: the response is not complete.
    fn ended(
        &self,
        end: ReadEnd,
        filter: &mut ResponseFilter,
        emit: &mut dyn FnMut(&[u8]),
    ) -> Result<FilterProgress, FetchError> {
        match end {
            ReadEnd::Late => {
                let text = format!("{}: timed out", self.request.url.authority());
                Err(FetchError::new(FetchErrorKind::Timeout, text))
            }
            ReadEnd::Finished if filter.end(emit) == ResponseEnd::Complete => {
                Ok(FilterProgress::Done)
            }
            ReadEnd::Finished => Err(self.failed("the response was cut off")),
            ReadEnd::Cut => Err(self.failed(ErrorPage::bad_answer(UpstreamFault::BrokeOff).text)),
        }
    }

    /// Opens a stream to the agent of the endpoint, or of another member of its pool.
    fn open(
        &self,
        endpoint: &Arc<OnlineEndpoint>,
        request: &[u8],
    ) -> Result<InternalStream, FetchError> {
        let client = self.visitor.client;
        let open = |endpoint: &OnlineEndpoint| {
            let (local, tls) = (self.request.connection.server, self.visitor.tls);
            let mut bytes = endpoint.prefix(client, local, tls);
            bytes.extend_from_slice(request);
            InternalStream::open(&endpoint.wait_for_target(), client.ip(), bytes)
        };
        let mut opened = open(endpoint);
        if let Err(SendError::Over | SendError::Refused(_)) = opened {
            for other in self.edge.registry.pool_members(endpoint, MAX_MEMBERS) {
                if other.decides_as(endpoint) {
                    opened = open(&other);
                }
                if opened.is_ok() {
                    break;
                }
            }
        }
        opened.map_err(|error| {
            if let SendError::Refused(_) = error {
                self.edge.warn_full("streams to one agent");
            }
            let kind = match error {
                SendError::Late => FetchErrorKind::Timeout,
                SendError::Refused(_) => FetchErrorKind::Busy,
                SendError::Over | SendError::Closed(_) => FetchErrorKind::Failed,
            };
            FetchError::new(kind, format!("{}: {error}", self.request.url.authority()))
        })
    }

    /// Returns a page of the edge as the response.
    fn page(&self, page: &ErrorPage) -> Result<FetchResponse, FetchError> {
        let mut response = self.collector();
        response.push(&page.render(PageFormat::CLOSE));
        response.check()?;
        response.finish()
    }

    fn collector(&self) -> ResponseCollector<'_> {
        ResponseCollector { visit: self, bytes: Vec::new(), held: None }
    }
}

/// Collects the bytes of a response: one head, then the body.
struct ResponseCollector<'a> {
    visit: &'a InternalVisit<'a>,
    bytes: Vec<u8>,
    /// Memory that is counted for `bytes`.
    held: Option<(HeldBytes, usize)>,
}

impl ResponseCollector<'_> {
    fn push(&mut self, piece: &[u8]) {
        // One piece may be too much: it ends the response.
        if self.bytes.len() <= self.most() {
            self.bytes.extend_from_slice(piece);
        }
    }

    /// Returns the most bytes. Actions may have made the head longer.
    fn most(&self) -> usize {
        self.visit.request.request.limit + 2 * MAX_HEAD_BYTES
    }

    fn too_large(&self) -> FetchError {
        let limit = self.visit.request.request.limit;
        self.visit.failed(format!("the response is larger than {limit} bytes"))
    }

    /// Checks the length, and counts the memory.
    fn check(&mut self) -> Result<(), FetchError> {
        if self.bytes.len() > self.most() {
            return Err(self.too_large());
        }
        let counted = self.held.as_ref().map_or(0, |(_, bytes)| *bytes);
        if self.bytes.len() > counted {
            let edge = self.visit.edge;
            let wanted = self.bytes.len().next_multiple_of(HOLD_BYTES);
            // The former bytes are given back first: they are part of the new ones.
            self.held = None;
            let Some(held) = edge.policy_responses.hold(wanted) else {
                edge.warn_full("responses to policies");
                let text = "the edge has no memory for further responses";
                return Err(FetchError::new(FetchErrorKind::Busy, text));
            };
            self.held = Some((held, wanted));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<FetchResponse, FetchError> {
        let invalid = || self.visit.failed("the response is not valid");
        let end = head::end(&self.bytes, 0).ok_or_else(invalid)?;
        let mut ranges = HeadRanges::default();
        let head = &self.bytes[..end];
        let response = ranges.response(head, Strictness::Lenient).map_err(|_| invalid())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = response.fields.iter();
        // The connection to the reader is none.
        let fields = fields.filter(|(name, _)| !name.eq_ignore_ascii_case(b"connection"));
        let headers = fields.map(|(name, value)| (text(name).to_ascii_lowercase(), text(value)));
        let (status, headers) = (response.line.status, headers.collect());
        if self.bytes.len() - end > self.visit.request.request.limit {
            return Err(self.too_large());
        }
        // In place: a copy would not be counted.
        self.bytes.drain(..end);
        Ok(FetchResponse { status, headers, body: self.bytes, address: None })
    }
}
