//! Response phase: the head that actions may change, and the data of its request.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::accept_encoding;
use super::action::{ActionError, Reply, RequestInfo};
use super::body_encoder::Coding;
use super::body_transform::BodyTransform;
use super::edits::{HeaderEdits, HeaderLine};
use crate::edge::workers::Job;
use crate::time::Instant;

/// Result of the response phase.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum ResponseFlow {
    /// The head is passed on.
    Pass,
    /// This response replaces it.
    Replace(Reply),
    /// The visitor's connection is closed.
    Close,
}

/// Action on the head of a response.
pub trait ResponseAction: fmt::Debug + Send + Sync {
    /// Changes the head if necessary. Fails if the response must not be passed on.
    fn run(&self, head: &mut ResponseHead<'_>, plan: &ResponsePlan) -> Result<(), ActionError>;

    /// Records that the upstream failed, and that a page with this status is the response.
    fn upstream_failed(&self, _status: u16, _plan: &ResponsePlan) {}
}

/// Rules of a policy for one response.
pub trait ResponseRules: fmt::Debug + Send + Sync {
    /// Decides about a response, and may change its head.
    fn run(&self, head: &mut ResponseHead<'_>) -> Result<ResponseFlow, ActionError>;

    /// Returns whether [`ResponseRules::run`] may block its thread.
    fn may_block(&self) -> bool {
        false
    }

    /// Has another thread do `work`, which may block. Does not block. Returns `false` if no
    /// thread is free.
    fn offload(&self, _work: Job) -> bool {
        false
    }
}

/// What a response has behind its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseBody {
    /// Nothing, as 204, or bytes that are not HTTP, as after 101.
    None,
    /// Nothing, since the request was HEAD: the head is that of a GET.
    HeadOnly,
    /// Bytes that may be encoded.
    Encodable,
    /// Bytes for a visitor that reads no coding and no chunks (HTTP/1.0).
    Plain,
    /// Bytes that the edge cannot read.
    Opaque,
}

/// Head of a response on its way to the visitor, without hop-by-hop fields.
pub struct ResponseHead<'a> {
    /// HTTP status.
    pub status: u16,
    /// What follows the head.
    pub body: ResponseBody,
    /// Coding of the body on its way to the visitor; set by an action.
    pub coding: Option<Coding>,
    /// Changes of the body before it gets the coding.
    pub transforms: Vec<Box<dyn BodyTransform>>,
    fields: Vec<ResponseField<'a>>,
}

/// Name and value.
type ResponseField<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

impl<'a> ResponseHead<'a> {
    /// Returns a head without fields.
    pub fn new(status: u16, body: ResponseBody) -> Self {
        ResponseHead { status, body, coding: None, transforms: Vec::new(), fields: Vec::new() }
    }

    /// Adds a change of the body. Fails if the edge cannot read the body.
    pub fn change_body(&mut self, transform: Box<dyn BodyTransform>) -> Result<(), ActionError> {
        match self.body {
            ResponseBody::None => {
                // A 304 describes the body that a 200 would have.
                if self.status == 304 {
                    self.forget_bytes();
                }
                return Ok(());
            }
            ResponseBody::Opaque => {
                return Err(ActionError("the body has a transfer coding and cannot be changed"));
            }
            ResponseBody::HeadOnly | ResponseBody::Encodable | ResponseBody::Plain => {}
        }
        let mut codings = self.values("content-encoding");
        if self.coding.is_none() && codings.any(|coding| !coding.eq_ignore_ascii_case(b"identity"))
        {
            return Err(ActionError("the body has a content coding and cannot be changed"));
        }
        drop(codings);
        if self.values("content-range").next().is_some() {
            return Err(ActionError("a part of a body cannot be changed"));
        }
        self.forget_bytes();
        self.transforms.push(transform);
        Ok(())
    }

    /// Returns whether the body is a stream of server-sent events.
    pub fn is_event_stream(&self) -> bool {
        let kind = self.values("content-type").next().unwrap_or_default();
        let end = kind.iter().position(|b| *b == b';').unwrap_or(kind.len());
        kind[..end].trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    }

    /// Removes what describes the bytes of a body that changes.
    pub fn forget_bytes(&mut self) {
        // Ranges and digests are those of the bytes before the change.
        const FIELDS: [&str; 5] =
            ["Content-Length", "Accept-Ranges", "Content-MD5", "Content-Digest", "Digest"];
        FIELDS.iter().for_each(|name| self.remove(name));
        self.replace("ETag", |tag| (!tag.starts_with(b"W/")).then(|| [&b"W/"[..], tag].concat()));
    }

    /// Appends a field as received.
    pub fn push(&mut self, name: &'a [u8], value: &'a [u8]) {
        self.fields.push((Cow::Borrowed(name), Cow::Borrowed(value)));
    }

    /// Appends a field.
    pub fn add(&mut self, name: &str, value: Vec<u8>) {
        self.fields.push((Cow::Owned(name.as_bytes().to_vec()), Cow::Owned(value)));
    }

    /// Removes all fields with this name.
    pub fn remove(&mut self, name: &str) {
        self.fields.retain(|(n, _)| !n.eq_ignore_ascii_case(name.as_bytes()));
    }

    /// Returns the values of all fields with this name.
    pub fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s [u8]> {
        let named = move |(n, v): &'s ResponseField<'a>| {
            n.eq_ignore_ascii_case(name.as_bytes()).then_some(&**v)
        };
        self.fields.iter().filter_map(named)
    }

    /// Replaces values of fields with this name, where `change` returns another one.
    pub fn replace(&mut self, name: &str, change: impl Fn(&[u8]) -> Option<Vec<u8>>) {
        for (n, value) in &mut self.fields {
            if n.eq_ignore_ascii_case(name.as_bytes())
                && let Some(new) = change(value)
            {
                *value = Cow::Owned(new);
            }
        }
    }

    /// Returns names and values in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// Data of a request for the actions on its response.
#[derive(Debug)]
pub struct ResponsePlan {
    actions: Vec<Arc<dyn ResponseAction>>,
    /// Rules of the policy.
    rules: Option<Box<dyn ResponseRules>>,
    /// Plan of the endpoint that forwarded the request to this one.
    outer: Option<Arc<ResponsePlan>>,
    /// Lines to add.
    added: Vec<HeaderLine>,
    /// Time of the request.
    pub started: Instant,
    /// Whether the visitor came over TLS.
    pub tls: bool,
    /// Host and port that the visitor asked for.
    pub authority: Vec<u8>,
    /// `Host` that the upstream got, if it is another one.
    pub upstream_host: Option<String>,
    /// Coding that the visitor prefers and the edge has.
    pub coding: Option<Coding>,
}

impl ResponsePlan {
    pub(super) fn new(
        actions: Vec<Arc<dyn ResponseAction>>,
        (rules, outer): (Option<Box<dyn ResponseRules>>, Option<Arc<ResponsePlan>>),
        request: &RequestInfo<'_>,
        edits: &HeaderEdits,
    ) -> Self {
        ResponsePlan {
            actions,
            rules,
            outer,
            added: edits.response_lines().to_vec(),
            started: request.now,
            tls: request.tls,
            authority: request.authority.to_vec(),
            upstream_host: edits.host().map(str::to_owned),
            coding: accept_encoding::negotiate(
                request.fields.values("accept-encoding"),
                &Coding::ALL,
            ),
        }
    }

    /// Runs the actions on the head of a response, then the rules of the policy. The plan of
    /// the endpoint that forwarded the request runs after both.
    pub fn run(&self, head: &mut ResponseHead<'_>) -> Result<ResponseFlow, ActionError> {
        for line in &self.added {
            head.add(&line.name, line.value.as_bytes().to_vec());
        }
        self.actions.iter().try_for_each(|action| action.run(head, self))?;
        if let Some(rules) = &self.rules {
            match rules.run(head)? {
                ResponseFlow::Pass => {}
                end => return Ok(end),
            }
        }
        match &self.outer {
            Some(outer) => outer.run(head),
            None => Ok(ResponseFlow::Pass),
        }
    }

    /// Returns the rules that may block the thread that runs [`ResponsePlan::run`]: those
    /// of this plan or of an outer one.
    fn blocking_rules(&self) -> Option<&dyn ResponseRules> {
        let own = self.rules.as_deref().filter(|rules| rules.may_block());
        own.or_else(|| self.outer.as_ref()?.blocking_rules())
    }

    /// Returns whether [`ResponsePlan::run`] may block its thread.
    pub fn may_block(&self) -> bool {
        self.blocking_rules().is_some()
    }

    /// Has another thread do `work`, which may block. Does not block. Returns `false` if no
    /// thread is free.
    pub fn offload(&self, work: Job) -> bool {
        self.blocking_rules().is_some_and(|rules| rules.offload(work))
    }

    /// Reports to the actions that a page with this status is sent, because the upstream failed.
    pub fn upstream_failed(&self, status: u16) {
        self.actions.iter().for_each(|action| action.upstream_failed(status, self));
        if let Some(outer) = &self.outer {
            outer.upstream_failed(status);
        }
    }
}
