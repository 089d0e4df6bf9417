//! Input and result of an action on a request. No action is defined here.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use super::edits::HeaderEdits;
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
    /// Whole body without its chunks. Empty unless [`super::set::ActionSet::body_limit`] asks for it.
    pub body: &'a [u8],
    /// Whether the request is HTTP/1.0.
    pub is_http10: bool,
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
    pub fields: Vec<(Cow<'static, str>, String)>,
    /// Body in place of the text.
    pub content: Option<ReplyContent>,
}

/// Body of a response for a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyContent {
    /// Value of `Content-Type`; empty for a body without one.
    pub kind: Cow<'static, str>,
    /// The body.
    pub body: String,
}

impl Reply {
    /// Returns a response with an error code.
    pub fn new(status: u16, code: u32, text: impl Into<String>) -> Self {
        Reply { status, code, text: text.into(), fields: Vec::new(), content: None }
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

    /// Returns the most bytes of a body that the action reads; `None` if it reads none.
    fn body_limit(&self) -> Option<usize> {
        None
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::http1::head::HeadRanges;

    /// Runs `test` with the request in `head`, which ends with its blank line.
    pub fn with_request<R>(head: &str, test: impl FnOnce(&RequestInfo<'_>) -> R) -> R {
        with_body(head, b"", test)
    }

    /// Does the same with a body.
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
            is_http10: false,
            tls: false,
            visitor: [192, 0, 2, 7].into(),
            now: Instant::from_micros(1_000_000_000),
            unix_seconds: 1_700_000_000,
        })
    }
}
