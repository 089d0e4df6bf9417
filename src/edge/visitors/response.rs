//! Filter for an upstream's response: rewrites the head, passes the body unchanged, and finds
//! the end of the response. A truncated response never looks complete. No socket is used here.

use std::sync::Arc;

use super::websocket;
use crate::edge::actions::body_encoder::BodyEncoder;
use crate::edge::actions::body_transform::{
    BodyTransform, TransformError, finish_through, write_through,
};
use crate::edge::actions::response::{ResponseBody, ResponseFlow, ResponseHead, ResponsePlan};
use crate::edge::actions::{ActionError, Reply};
use crate::http1::chunked::ChunkedDecoder;
use crate::http1::error::HttpError;
use crate::http1::framing::{BodyFraming, RequestMethod};
use crate::http1::head::{self, HeadRanges, MAX_HEAD_BYTES};
use crate::http1::line::{HttpVersion, STATUS_LINE_START, Strictness};
use crate::http1::status;

/// Properties of the request that decide how its response is framed and rewritten.
#[derive(Clone, Debug, Default)]
pub struct RequestContext {
    /// The request was HEAD: the response has no body.
    pub head_only: bool,
    /// The request may switch the protocol: the response may be a 101.
    pub upgrade: bool,
    /// The visitor's connection ends after this response.
    pub close: bool,
    /// The request is HTTP/1.0: interim responses are not passed on.
    pub is_http10: bool,
    /// Actions of the endpoint on the response.
    pub plan: Option<Arc<ResponsePlan>>,
}

/// State of the response after some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterProgress {
    /// The response is not complete.
    InProgress,
    /// The response is complete. Bytes after it were dropped.
    Done,
    /// The upstream does not speak HTTP. No byte was passed on.
    Invalid(HttpError),
    /// The body is malformed. A part of it was passed on.
    Broken(HttpError),
    /// An action failed; nothing of the response was passed on.
    ActionFailed(ActionError),
    /// An action failed after a part was passed on.
    EncodingFailed,
    /// Another response replaces it: [`ResponseFilter::take_replacement`]. Nothing of the
    /// upstream's was passed on.
    Replaced,
    /// The policy closes the visitor's connection.
    Closed,
}

/// Meaning of the end of the upstream's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseEnd {
    /// The response is complete.
    Complete,
    /// No byte of a response was passed on: a page can replace it.
    NotStarted,
    /// A part of a response was passed on: the visitor must see an error.
    Truncated,
}

#[derive(Debug)]
enum ResponseState {
    Idle,
    Head,
    Length(u64),
    /// Passed on unchanged.
    Chunked(ChunkedDecoder),
    /// Decoded for an HTTP/1.0 visitor (RFC 9112 7).
    Decoded(ChunkedDecoder),
    /// Changed and encoded on the way.
    Encoded(Box<EncodedBody>),
    UntilEnd,
    Tunnel,
    /// Each piece is a message of a WebSocket.
    Messages,
    Done,
    Failed(HttpError),
    /// An action failed, or ended the response: nothing more of it is passed on.
    ActionFailed,
}

/// Body that is changed, or gets a content coding.
#[derive(Debug)]
struct EncodedBody {
    input: EncodedInput,
    transforms: Vec<Box<dyn BodyTransform>>,
    encoder: BodyEncoder,
}

/// How the body of the upstream ends.
#[derive(Debug)]
enum EncodedInput {
    Length(u64),
    Chunked(ChunkedDecoder),
    UntilEnd,
}

/// Why a head is not passed on.
enum HeadError {
    Http(HttpError),
    Action(ActionError),
    Replaced(Reply),
    Closed,
}

impl From<HttpError> for HeadError {
    fn from(error: HttpError) -> Self {
        HeadError::Http(error)
    }
}

/// Why a body could not be encoded.
enum BodyError {
    Malformed(HttpError),
    NotEncoded,
}

impl EncodedBody {
    /// Takes bytes of the body, and emits them encoded. Returns how many were taken and
    /// whether the body is complete.
    fn feed(
        &mut self,
        input: &[u8],
        emit: &mut dyn FnMut(&[u8]),
    ) -> Result<(usize, bool), BodyError> {
        let (transforms, encoder) = (&mut self.transforms, &mut self.encoder);
        let mut written = Ok(());
        let mut write = |piece: &[u8]| {
            if written.is_ok() {
                written =
                    encode_changed(encoder, emit, |emit| write_through(transforms, piece, emit));
            }
        };
        let taken = match &mut self.input {
            EncodedInput::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                write(&input[..n]);
                // Widening; n is at most `left`.
                *left -= n as u64;
                (n, *left == 0)
            }
            EncodedInput::Chunked(decoder) => {
                let n = decoder.feed(input, &mut write).map_err(BodyError::Malformed)?;
                (n, decoder.is_done())
            }
            EncodedInput::UntilEnd => {
                write(input);
                (input.len(), false)
            }
        };
        let flushed = written.and_then(|()| encoder.flush(emit).map_err(|_| TransformError));
        flushed.map_err(|TransformError| BodyError::NotEncoded)?;
        Ok(taken)
    }

    /// Ends the body.
    fn finish(mut self, emit: &mut dyn FnMut(&[u8])) -> Result<(), TransformError> {
        encode_changed(&mut self.encoder, emit, |emit| finish_through(&mut self.transforms, emit))?;
        self.encoder.finish(emit).map_err(|_| TransformError)
    }
}

/// Encodes what `change` emits.
fn encode_changed(
    encoder: &mut BodyEncoder,
    emit: &mut dyn FnMut(&[u8]),
    change: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), TransformError>,
) -> Result<(), TransformError> {
    let mut encoded = Ok(());
    change(&mut |bytes| {
        if encoded.is_ok() {
            encoded = encoder.write(bytes, emit);
        }
    })?;
    encoded.map_err(|_| TransformError)
}

/// Filter for the consecutive responses of one stream.
#[derive(Debug)]
pub struct ResponseFilter {
    state: ResponseState,
    context: RequestContext,
    /// Bytes of an incomplete head.
    partial: Vec<u8>,
    scratch: Vec<u8>,
    head: HeadRanges,
    reusable: bool,
    keeps_visitor_open: bool,
    replacement: Option<Reply>,
}

impl Default for ResponseFilter {
    fn default() -> Self {
        ResponseFilter::http()
    }
}

impl ResponseFilter {
    /// Returns a filter for HTTP. [`ResponseFilter::begin`] is called with each request.
    pub fn http() -> Self {
        ResponseFilter::new(ResponseState::Idle)
    }

    /// Returns a filter for HTTP whose stream carries one request only.
    pub fn http_once() -> Self {
        ResponseFilter { reusable: false, ..ResponseFilter::http() }
    }

    /// Returns a filter that passes all bytes unchanged.
    pub fn passthrough() -> Self {
        ResponseFilter::new(ResponseState::Tunnel)
    }

    /// Passes each piece as a binary message of a WebSocket.
    pub fn binary_messages() -> Self {
        ResponseFilter::new(ResponseState::Messages)
    }

    fn new(state: ResponseState) -> Self {
        ResponseFilter {
            state,
            context: RequestContext::default(),
            partial: Vec::new(),
            scratch: Vec::new(),
            head: HeadRanges::default(),
            reusable: true,
            keeps_visitor_open: true,
            replacement: None,
        }
    }

    /// Begins the response to a request that was sent.
    pub fn begin(&mut self, context: RequestContext) {
        self.state = ResponseState::Head;
        self.keeps_visitor_open = !context.close;
        self.context = context;
        self.partial.clear();
    }

    /// Returns the response in place of the upstream's.
    pub fn take_replacement(&mut self) -> Option<Reply> {
        self.replacement.take()
    }

    /// Returns whether the response is complete.
    pub fn is_done(&self) -> bool {
        matches!(self.state, ResponseState::Idle | ResponseState::Done)
    }

    /// Returns whether no byte of the response was received.
    pub fn has_no_bytes(&self) -> bool {
        matches!(self.state, ResponseState::Head) && self.partial.is_empty()
    }

    /// Returns whether the next bytes belong to a head.
    pub fn is_before_head(&self) -> bool {
        matches!(self.state, ResponseState::Head)
    }

    /// Returns whether the upstream's connection can carry another request.
    pub fn is_reusable(&self) -> bool {
        self.reusable && self.is_done()
    }

    /// Returns whether the visitor's connection can carry another response.
    pub fn keeps_visitor(&self) -> bool {
        self.keeps_visitor_open
    }

    /// Returns whether the bytes are not HTTP: after a 101, or from the start.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.state, ResponseState::Tunnel | ResponseState::Messages)
    }

    /// Filters `input` and passes the bytes for the visitor to `emit`, in order.
    pub fn feed(&mut self, mut input: &[u8], emit: &mut dyn FnMut(&[u8])) -> FilterProgress {
        while !input.is_empty() {
            match &mut self.state {
                ResponseState::Idle | ResponseState::Done => {
                    // Bytes without a request: after them the next response cannot be
                    // identified.
                    self.reusable = false;
                    return FilterProgress::Done;
                }
                ResponseState::Failed(error) => return FilterProgress::Broken(*error),
                ResponseState::ActionFailed => return FilterProgress::EncodingFailed,
                ResponseState::Head => match self.take_head(input, emit) {
                    Ok(rest) => input = rest,
                    Err(HeadError::Http(error)) => {
                        self.state = ResponseState::Failed(error);
                        return FilterProgress::Invalid(error);
                    }
                    Err(HeadError::Action(error)) => {
                        self.state = ResponseState::ActionFailed;
                        return FilterProgress::ActionFailed(error);
                    }
                    Err(HeadError::Replaced(reply)) => {
                        self.state = ResponseState::ActionFailed;
                        self.replacement = Some(reply);
                        return FilterProgress::Replaced;
                    }
                    Err(HeadError::Closed) => {
                        self.state = ResponseState::ActionFailed;
                        return FilterProgress::Closed;
                    }
                },
                ResponseState::Length(left) => {
                    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    emit(&input[..n]);
                    // Widening; n is at most `left`.
                    *left -= n as u64;
                    if *left == 0 {
                        self.state = ResponseState::Done;
                    }
                    input = &input[n..];
                }
                ResponseState::Chunked(decoder) => match decoder.follow(input) {
                    Ok(n) => {
                        emit(&input[..n]);
                        if decoder.is_done() {
                            self.state = ResponseState::Done;
                        }
                        input = &input[n..];
                    }
                    Err(error) => {
                        self.state = ResponseState::Failed(error);
                        return FilterProgress::Broken(error);
                    }
                },
                ResponseState::Decoded(decoder) => match decoder.feed(input, emit) {
                    Ok(n) => {
                        if decoder.is_done() {
                            self.state = ResponseState::Done;
                        }
                        input = &input[n..];
                    }
                    Err(error) => {
                        self.state = ResponseState::Failed(error);
                        return FilterProgress::Broken(error);
                    }
                },
                ResponseState::Encoded(body) => match body.feed(input, emit) {
                    Ok((n, done)) => {
                        input = &input[n..];
                        if done && !self.finish_encoded(emit) {
                            return FilterProgress::EncodingFailed;
                        }
                    }
                    Err(BodyError::Malformed(error)) => {
                        self.state = ResponseState::Failed(error);
                        return FilterProgress::Broken(error);
                    }
                    Err(BodyError::NotEncoded) => {
                        self.state = ResponseState::ActionFailed;
                        return FilterProgress::EncodingFailed;
                    }
                },
                ResponseState::Messages => {
                    emit(&websocket::binary_header(input.len()));
                    emit(input);
                    input = &[];
                }
                ResponseState::UntilEnd | ResponseState::Tunnel => {
                    emit(input);
                    input = &[];
                }
            }
        }
        if matches!(self.state, ResponseState::Done) {
            FilterProgress::Done
        } else {
            FilterProgress::InProgress
        }
    }

    /// Ends a body with a coding. Returns whether it could be encoded.
    fn finish_encoded(&mut self, emit: &mut dyn FnMut(&[u8])) -> bool {
        let state = std::mem::replace(&mut self.state, ResponseState::Done);
        let ResponseState::Encoded(body) = state else { return true };
        let finished = body.finish(emit).is_ok();
        if !finished {
            self.state = ResponseState::ActionFailed;
        }
        finished
    }

    /// Processes the orderly end of the upstream's bytes. Passes the rest of a body to `emit`.
    pub fn end(&mut self, emit: &mut dyn FnMut(&[u8])) -> ResponseEnd {
        self.reusable = false;
        if let ResponseState::Encoded(body) = &self.state
            && matches!(body.input, EncodedInput::UntilEnd)
            && self.finish_encoded(emit)
        {
            return ResponseEnd::Complete;
        }
        match self.state {
            ResponseState::Idle | ResponseState::Done | ResponseState::Tunnel => {
                ResponseEnd::Complete
            }
            ResponseState::UntilEnd => {
                self.state = ResponseState::Done;
                ResponseEnd::Complete
            }
            ResponseState::Messages => {
                emit(&websocket::close_frame());
                ResponseEnd::Complete
            }
            ResponseState::Head => ResponseEnd::NotStarted,
            ResponseState::Length(_)
            | ResponseState::Chunked(_)
            | ResponseState::Decoded(_)
            | ResponseState::Encoded(_)
            | ResponseState::Failed(_)
            | ResponseState::ActionFailed => ResponseEnd::Truncated,
        }
    }

    /// Processes the loss of the upstream's connection.
    pub fn cut(&mut self) -> ResponseEnd {
        self.reusable = false;
        match self.state {
            ResponseState::Idle | ResponseState::Done => ResponseEnd::Complete,
            ResponseState::Head => ResponseEnd::NotStarted,
            _ => ResponseEnd::Truncated,
        }
    }

    /// Reads bytes of a head and returns the bytes after it.
    fn take_head<'a>(
        &mut self,
        input: &'a [u8],
        emit: &mut dyn FnMut(&[u8]),
    ) -> Result<&'a [u8], HeadError> {
        let mut partial = std::mem::take(&mut self.partial);
        let (head, rest) = if partial.is_empty()
            && let Some(end) = head::end(input, 0)
        {
            // The usual case: the whole head in one piece, without a copy.
            input.split_at(end)
        } else {
            let seen = partial.len();
            let room = MAX_HEAD_BYTES - seen;
            partial.extend_from_slice(&input[..input.len().min(room)]);
            let n = partial.len().min(STATUS_LINE_START.len());
            if partial[..n] != STATUS_LINE_START[..n] {
                return Err(HttpError::NotHttp.into());
            }
            match head::end(&partial, seen) {
                Some(end) => {
                    let rest = &input[end - seen..];
                    partial.truncate(end);
                    (&partial[..], rest)
                }
                None if partial.len() == MAX_HEAD_BYTES => {
                    return Err(HttpError::HeadTooLarge.into());
                }
                None => {
                    self.partial = partial;
                    return Ok(&[]);
                }
            }
        };
        self.scratch.clear();
        self.rewrite_head(head)?;
        // The part of the body in the same piece is sent in the same write.
        let rest = match &mut self.state {
            ResponseState::Length(left) if *left > 0 && !rest.is_empty() => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                self.scratch.extend_from_slice(&rest[..n]);
                // Widening; n is at most `left`.
                *left -= n as u64;
                &rest[n..]
            }
            _ => rest,
        };
        if matches!(self.state, ResponseState::Length(0)) {
            self.state = ResponseState::Done;
        }
        emit(&self.scratch);
        Ok(rest)
    }

    /// Parses a head, decides how the body ends, and writes the head for the visitor to
    /// `scratch`.
    fn rewrite_head(&mut self, bytes: &[u8]) -> Result<(), HeadError> {
        let response = self.head.response(bytes, Strictness::Lenient)?;
        let (fields, framing) = (response.fields, response.framing);
        let status = response.line.status;
        let switching = status == 101;
        if switching && !self.context.upgrade {
            return Err(HttpError::SwitchNotRequested.into());
        }
        let interim = status::is_interim(status);
        if interim && self.context.is_http10 {
            return Ok(());
        }
        let method =
            if self.context.head_only { RequestMethod::Head } else { RequestMethod::Other };
        let body = response.body(method)?;
        // An HTTP/1.0 visitor gets no transfer coding (RFC 9112 6.1). Chunks are decoded; other
        // codings cannot be.
        let decode = self.context.is_http10 && framing.has_coding();
        if decode && framing.is_encoded() && body != BodyFraming::None {
            return Err(HttpError::CodingForHttp10.into());
        }
        if !interim {
            let old = response.line.version == HttpVersion::Http10;
            self.reusable &= !fields.lists("connection", "close")
                && !(old && (framing.has_coding() || !fields.lists("connection", "keep-alive")));
            self.state = match body {
                BodyFraming::Tunnel => ResponseState::Tunnel,
                BodyFraming::None => ResponseState::Done,
                BodyFraming::Length(n) => ResponseState::Length(n),
                // Chunks are passed on unchanged and checked strictly, so that the visitor
                // reads the same.
                BodyFraming::Chunked if decode => {
                    ResponseState::Decoded(ChunkedDecoder::new(Strictness::Strict))
                }
                BodyFraming::Chunked => {
                    ResponseState::Chunked(ChunkedDecoder::new(Strictness::Strict))
                }
                BodyFraming::UntilClose => ResponseState::UntilEnd,
            };
            self.reusable &= body != BodyFraming::UntilClose;
            self.keeps_visitor_open &= body != BodyFraming::UntilClose && !decode;
        }

        let plan = self.context.plan.clone().filter(|_| !interim);
        let mut edited = plan.as_ref().map(|_| {
            ResponseHead::new(
                status,
                match body {
                    _ if self.context.head_only => ResponseBody::HeadOnly,
                    BodyFraming::Tunnel | BodyFraming::None => ResponseBody::None,
                    _ if framing.is_encoded() => ResponseBody::Opaque,
                    _ if self.context.is_http10 => ResponseBody::Plain,
                    _ => ResponseBody::Encodable,
                },
            )
        });
        let out = &mut self.scratch;
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend([status / 100, status / 10 % 10, status % 10].map(digit));
        out.push(b' ');
        out.extend_from_slice(response.line.reason);
        out.extend_from_slice(b"\r\n");
        let mut has_length = framing.has_coding() || status::has_no_framing(status);
        let has_connection = fields.first("connection").is_some();
        for (name, value) in fields.iter() {
            let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            let named = || {
                let mut members = fields.values("connection").flat_map(head::members);
                members.any(|member| member.eq_ignore_ascii_case(name))
            };
            let keep = if is("content-length") {
                // One of several fields with the same value.
                !std::mem::replace(&mut has_length, true)
            } else if is("upgrade") {
                switching
            } else if is("ngrok-error-code") {
                status == 502 && value == b"ERR_NGROK_8012"
            } else {
                let hop = is("connection")
                    || is("keep-alive")
                    || is("transfer-encoding")
                    || (name.len() >= 6 && name[..6].eq_ignore_ascii_case(b"proxy-"));
                !(hop || has_connection && named())
            };
            if keep {
                match &mut edited {
                    Some(head) => head.push(name, value),
                    None => line(out, name, value),
                }
            }
        }
        let mut encoded = false;
        if let (Some(plan), Some(mut head)) = (plan, edited) {
            match plan.run(&mut head).map_err(HeadError::Action)? {
                ResponseFlow::Pass => {}
                ResponseFlow::Replace(reply) => return Err(HeadError::Replaced(reply)),
                ResponseFlow::Close => return Err(HeadError::Closed),
            }
            head.iter().for_each(|(name, value)| line(out, name, value));
            if let Some(encoder) = encoder_of(&head) {
                encoded = encoder.is_chunked();
                match encoded {
                    true => line(out, b"Transfer-Encoding", b"chunked"),
                    false => self.keeps_visitor_open = false,
                }
                let state = std::mem::replace(&mut self.state, ResponseState::Done);
                self.state = encode(encoder, head.transforms, state);
            }
        }
        if !encoded
            && framing.has_coding()
            && !self.context.is_http10
            && !status::has_no_body(status)
        {
            // Codings beside chunked are kept, because they describe the bytes. After a 304
            // some clients would wait for chunks.
            for value in fields.values("transfer-encoding") {
                line(out, b"Transfer-Encoding", value);
            }
        }
        if switching {
            line(out, b"Connection", b"Upgrade");
        } else if !interim && !self.keeps_visitor_open {
            line(out, b"Connection", b"close");
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// Returns the encoder of a body that actions have changed; `None` if it passes.
fn encoder_of(head: &ResponseHead<'_>) -> Option<BodyEncoder> {
    let changes = !head.transforms.is_empty();
    match head.body {
        ResponseBody::Encodable if changes || head.coding.is_some() => {
            Some(BodyEncoder::new(head.coding))
        }
        ResponseBody::Plain if changes => Some(BodyEncoder::until_close()),
        _ => None,
    }
}

/// Returns the state of a body that is changed. `state` finds the end of the body.
fn encode(
    encoder: BodyEncoder,
    transforms: Vec<Box<dyn BodyTransform>>,
    state: ResponseState,
) -> ResponseState {
    let input = match state {
        ResponseState::Length(left) => EncodedInput::Length(left),
        ResponseState::Chunked(decoder) | ResponseState::Decoded(decoder) => {
            EncodedInput::Chunked(decoder)
        }
        ResponseState::UntilEnd => EncodedInput::UntilEnd,
        other => return other,
    };
    ResponseState::Encoded(Box::new(EncodedBody { input, transforms, encoder }))
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Returns the character of a digit.
fn digit(n: u16) -> u8 {
    b'0' + u8::try_from(n).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(
        context: RequestContext,
        answer: &[u8],
        cut: usize,
    ) -> (ResponseFilter, FilterProgress, String) {
        let mut f = ResponseFilter::http();
        f.begin(context);
        let mut out = Vec::new();
        let mut last = FilterProgress::InProgress;
        for part in [&answer[..cut], &answer[cut..]] {
            if !part.is_empty() {
                last = f.feed(part, &mut |b| out.extend_from_slice(b));
            }
        }
        (f, last, String::from_utf8(out).unwrap())
    }

    /// Feeds a response cut at each position. All results must be equal.
    fn all(context: RequestContext, answer: &str) -> (ResponseFilter, FilterProgress, String) {
        let want = run(context.clone(), answer.as_bytes(), 0);
        for cut in 1..answer.len() {
            let got = run(context.clone(), answer.as_bytes(), cut);
            assert_eq!((got.1, &got.2), (want.1, &want.2), "cut at {cut}");
        }
        want
    }

    const CONTEXT: RequestContext = RequestContext {
        head_only: false,
        upgrade: false,
        close: false,
        is_http10: false,
        plan: None,
    };

    #[test]
    fn lengths_end_an_answer() {
        let (f, p, out) = all(CONTEXT, "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(out, "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(p, FilterProgress::Done);
        assert!(f.is_reusable() && f.keeps_visitor());
    }

    #[test]
    fn chunks_end_an_answer() {
        let body = "5\r\nhello\r\n0\r\nT: x\r\n\r\n";
        let text = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let (f, p, out) = all(CONTEXT, &text);
        assert_eq!((out, p), (text, FilterProgress::Done));
        assert!(f.is_reusable());
    }

    #[test]
    fn more_than_was_announced_is_dropped() {
        let (f, p, out) = all(CONTEXT, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhello");
        assert!(out.ends_with("\r\n\r\nhe"));
        assert_eq!(p, FilterProgress::Done);
        assert!(!f.is_reusable() && f.keeps_visitor());
    }

    #[test]
    fn a_cut_answer_is_never_whole() {
        let (mut f, _, _) = all(CONTEXT, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello");
        assert_eq!(f.end(&mut |_| {}), ResponseEnd::Truncated);
        let (mut f, _, _) =
            all(CONTEXT, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        assert_eq!(f.end(&mut |_| {}), ResponseEnd::Truncated);
        let (mut f, _, out) = all(CONTEXT, "HTTP/1.1 200 OK\r\nContent-Le");
        assert_eq!((f.end(&mut |_| {}), out.as_str()), (ResponseEnd::NotStarted, ""));
        let (mut f, p, out) = all(CONTEXT, "HTTP/1.1 200 OK\r\n\r\nhello");
        assert_eq!(p, FilterProgress::InProgress);
        assert!(out.contains("Connection: close"));
        assert_eq!(f.cut(), ResponseEnd::Truncated);
        let (mut f, ..) = all(CONTEXT, "HTTP/1.1 200 OK\r\n\r\nhello");
        assert_eq!(f.end(&mut |_| {}), ResponseEnd::Complete);
        assert!(!f.keeps_visitor() && !f.is_reusable());
    }

    #[test]
    fn answers_without_a_body() {
        for (context, status, has_length) in [
            (RequestContext { head_only: true, ..CONTEXT }, "200 OK", true),
            (CONTEXT, "304 Not Modified", true),
            // A length there could be read as that of a body (RFC 9110 8.6).
            (CONTEXT, "204 No Content", false),
        ] {
            let (f, p, out) =
                all(context, &format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n"));
            assert_eq!(p, FilterProgress::Done);
            assert_eq!(out.contains("Content-Length: 5"), has_length, "{out}");
            assert!(f.is_reusable());
        }
    }

    #[test]
    fn interim_answers_pass() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n\
                    HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let (_, p, out) = all(CONTEXT, text);
        assert_eq!((p, out.as_str()), (FilterProgress::Done, text));
        let (_, _, out) = all(RequestContext { is_http10: true, close: true, ..CONTEXT }, text);
        assert!(out.starts_with("HTTP/1.1 200 OK\r\n"), "{out}");
    }

    #[test]
    fn switching_makes_a_pipe() {
        let text = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                    Connection: Upgrade\r\nX: y\r\n\r\n\u{1}\u{2}bytes";
        let (mut f, p, out) = all(RequestContext { upgrade: true, ..CONTEXT }, text);
        assert_eq!(p, FilterProgress::InProgress);
        assert!(f.is_tunnel() && out.ends_with("\r\n\r\n\u{1}\u{2}bytes"));
        assert!(out.contains("Upgrade: websocket\r\n") && out.contains("Connection: Upgrade\r\n"));
        assert_eq!(f.end(&mut |_| {}), ResponseEnd::Complete);
        assert!(matches!(run(CONTEXT, text.as_bytes(), 0).1, FilterProgress::Invalid(_)));
    }

    #[test]
    fn what_is_not_http_is_found_at_once() {
        for text in [
            "SSH-2.0-OpenSSH_9\r\n",
            "HTTP/1.1 OK\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding\0: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            let (_, p, out) = run(CONTEXT, text.as_bytes(), 0);
            assert!(matches!(p, FilterProgress::Invalid(_)), "{text:?}");
            assert_eq!(out, "");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(MAX_HEAD_BYTES));
        assert!(matches!(run(CONTEXT, endless.as_bytes(), 0).1, FilterProgress::Invalid(_)));
        let bad = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nX\r\n";
        assert!(matches!(run(CONTEXT, bad.as_bytes(), 0).1, FilterProgress::Broken(_)));
    }

    #[test]
    fn hop_by_hop_fields_and_borrowed_codes_stay_here() {
        let (f, _, out) = all(
            CONTEXT,
            "HTTP/1.1 404 Not Found\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
             Proxy-Authenticate: x\r\nngrok-error-code: ERR_NGROK_3200\r\nContent-Length: 0\r\n\r\n",
        );
        assert_eq!(out, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        assert!(!f.is_reusable() && f.keeps_visitor());
        let (_, _, out) = all(
            CONTEXT,
            "HTTP/1.1 502 Bad Gateway\r\nngrok-error-code: ERR_NGROK_8012\r\n\
             Content-Length: 0\r\n\r\n",
        );
        assert!(out.contains("ERR_NGROK_8012"), "the agent's own page keeps its code");
    }

    #[test]
    fn one_stream_carries_several_answers() {
        let mut f = ResponseFilter::http();
        let mut out = Vec::new();
        for _ in 0..3 {
            f.begin(CONTEXT);
            let text = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
            assert_eq!(f.feed(text, &mut |b| out.extend_from_slice(b)), FilterProgress::Done);
            assert!(f.is_reusable());
        }
        assert_eq!(f.feed(b"unasked", &mut |_| panic!("passed on")), FilterProgress::Done);
        assert!(!f.is_reusable());
    }

    #[test]
    fn harmless_mistakes_of_upstreams_are_mended() {
        for (fields, expected) in [
            ("A: b\r\n  c\r\n\td\r\n", "A: b c d\r\n"),
            ("no colon\r\nA: b\r\n", "A: b\r\n"),
            ("Server : x\r\n", "Server: x\r\n"),
            ("a name: b\r\n folded\r\nA: b\r\n", "A: b\r\n"),
            ("A: b\0c\r\n", "A: b c\r\n"),
            ("A: b\n", "A: b\r\n"),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nhi");
            let (f, p, out) = all(CONTEXT, &text);
            let expected = format!("HTTP/1.1 200 OK\r\n{expected}Content-Length: 2\r\n\r\nhi");
            assert_eq!((out, p), (expected, FilterProgress::Done), "{fields:?}");
            assert!(f.is_reusable() && f.keeps_visitor());
        }
    }

    #[test]
    fn one_length_goes_on_where_several_say_the_same() {
        let fields = "Content-Length: 2\r\nA: b\r\ncontent-length: 2\r\n";
        let (_, _, out) = all(CONTEXT, &format!("HTTP/1.1 200 OK\r\n{fields}\r\nhi"));
        assert_eq!(out, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: b\r\n\r\nhi");
    }

    #[test]
    fn transfer_codings_go_on_labelled() {
        let body = "4\r\ngzip\r\n0\r\n\r\n";
        for fields in [
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
            let (f, p, out) = all(CONTEXT, &text);
            assert_eq!((out, p), (text, FilterProgress::Done));
            assert!(f.is_reusable() && f.keeps_visitor());
        }
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nbytes";
        let (mut f, p, out) = all(CONTEXT, text);
        assert_eq!(p, FilterProgress::InProgress);
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nConnection: close\r\n\r\n";
        assert_eq!(out, format!("{head}bytes"));
        assert_eq!(f.end(&mut |_| {}), ResponseEnd::Complete);
        assert!(!f.keeps_visitor() && !f.is_reusable());
    }

    #[test]
    fn a_visitor_of_http10_gets_no_transfer_coding() {
        let old = RequestContext { is_http10: true, close: true, ..CONTEXT };
        let head = "HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n";
        let text = format!("{head}5\r\nhello\r\n6;x\r\n world\r\n0\r\nT: x\r\n\r\n");
        let (f, p, out) = all(old.clone(), &text);
        let plain = "HTTP/1.1 200 OK\r\nA: b\r\nConnection: close\r\n\r\nhello world";
        assert_eq!((out.as_str(), p), (plain, FilterProgress::Done));
        assert!(f.is_reusable() && !f.keeps_visitor());
        // A truncated response does not look complete.
        let (mut f, ..) = all(old.clone(), &format!("{head}5\r\nhello\r\n"));
        assert_eq!(f.end(&mut |_| {}), ResponseEnd::Truncated);
        let coded = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
        let invalid = FilterProgress::Invalid(HttpError::CodingForHttp10);
        assert_eq!(run(old.clone(), coded.as_bytes(), 0).1, invalid);
        let (_, _, out) = all(RequestContext { head_only: true, ..old }, head);
        assert!(!out.contains("Transfer-Encoding"), "{out}");
    }
}
