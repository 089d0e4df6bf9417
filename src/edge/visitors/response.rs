//! Filter for an upstream's response: rewrites the head, passes the body unchanged, and finds
//! the end of the response. A truncated response never looks complete. No socket is used here.

use super::chunked::Chunked;
use super::head::{self, HeadRanges, Strictness};

/// Properties of the request that decide how its response is framed and rewritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestContext {
    /// The request was HEAD: the answer has no body.
    pub head_only: bool,
    /// The request asked for another protocol: 101 is a possible answer.
    pub upgrade: bool,
    /// The visitor's connection ends after this response.
    pub close: bool,
    /// The request is HTTP/1.0: interim responses are not passed on.
    pub is_http10: bool,
}

/// State of the response after some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterProgress {
    /// The response is not complete.
    InProgress,
    /// The response is complete. Bytes after it were dropped.
    Done,
    /// The upstream does not speak HTTP; nothing of it was passed on.
    Invalid(&'static str),
    /// The body is malformed, after a part was passed on.
    Broken(&'static str),
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
    Chunked(Chunked),
    UntilEnd,
    Tunnel,
    Done,
    Failed,
}

/// Filter for the consecutive responses of one stream.
#[derive(Debug)]
pub struct ResponseFilter {
    state: ResponseState,
    context: RequestContext,
    /// A head that is not complete yet.
    partial: Vec<u8>,
    scratch: Vec<u8>,
    head: HeadRanges,
    reusable: bool,
    keeps_visitor_open: bool,
}

impl Default for ResponseFilter {
    fn default() -> Self {
        ResponseFilter::http()
    }
}

impl ResponseFilter {
    /// For HTTP: call [`ResponseFilter::begin`] with each request.
    pub fn http() -> Self {
        ResponseFilter::new(ResponseState::Idle)
    }

    /// Passes all bytes unchanged.
    pub fn passthrough() -> Self {
        ResponseFilter::new(ResponseState::Tunnel)
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
        }
    }

    /// A request was sent: an answer may come.
    pub fn begin(&mut self, context: RequestContext) {
        self.state = ResponseState::Head;
        self.context = context;
        self.partial.clear();
        self.keeps_visitor_open = !context.close;
    }

    /// What the answer under way belongs to.
    pub fn context(&self) -> RequestContext {
        self.context
    }

    /// Whether no answer is under way.
    pub fn is_done(&self) -> bool {
        matches!(self.state, ResponseState::Idle | ResponseState::Done)
    }

    /// Whether nothing of the answer has come.
    pub fn has_no_bytes(&self) -> bool {
        matches!(self.state, ResponseState::Head) && self.partial.is_empty()
    }

    /// Whether the upstream's connection can take another request.
    pub fn is_reusable(&self) -> bool {
        self.reusable && self.is_done()
    }

    /// Whether the visitor's connection can take another answer.
    pub fn keeps_visitor(&self) -> bool {
        self.keeps_visitor_open
    }

    /// Whether the bytes are not HTTP any more (after 101), or never were.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.state, ResponseState::Tunnel)
    }

    /// Follows `input`; gives what the visitor is to get to `emit`, in order.
    pub fn feed(&mut self, mut input: &[u8], emit: &mut dyn FnMut(&[u8])) -> FilterProgress {
        while !input.is_empty() {
            match &mut self.state {
                ResponseState::Idle | ResponseState::Done => {
                    // Bytes that nobody asked for: nothing that follows is
                    // certain to be the answer to the next request.
                    self.reusable = false;
                    return FilterProgress::Done;
                }
                ResponseState::Failed => {
                    return FilterProgress::Broken("bytes behind a broken answer");
                }
                ResponseState::Head => match self.take_head(input, emit) {
                    Ok(rest) => input = rest,
                    Err(reason) => {
                        self.state = ResponseState::Failed;
                        return FilterProgress::Invalid(reason);
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
                ResponseState::Chunked(chunked) => match chunked.feed(input) {
                    Ok(n) => {
                        emit(&input[..n]);
                        if chunked.is_done() {
                            self.state = ResponseState::Done;
                        }
                        input = &input[n..];
                    }
                    Err(reason) => {
                        self.state = ResponseState::Failed;
                        return FilterProgress::Broken(reason);
                    }
                },
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

    /// The upstream's bytes ended in an orderly way.
    pub fn end(&mut self) -> ResponseEnd {
        self.reusable = false;
        match self.state {
            ResponseState::Idle | ResponseState::Done | ResponseState::Tunnel => {
                ResponseEnd::Complete
            }
            ResponseState::UntilEnd => {
                self.state = ResponseState::Done;
                ResponseEnd::Complete
            }
            ResponseState::Head => ResponseEnd::NotStarted,
            ResponseState::Length(_) | ResponseState::Chunked(_) | ResponseState::Failed => {
                ResponseEnd::Truncated
            }
        }
    }

    /// The upstream's bytes were cut off.
    pub fn cut(&mut self) -> ResponseEnd {
        self.reusable = false;
        match self.state {
            ResponseState::Idle | ResponseState::Done => ResponseEnd::Complete,
            ResponseState::Head => ResponseEnd::NotStarted,
            _ => ResponseEnd::Truncated,
        }
    }

    /// Takes bytes of a head; returns those behind it.
    fn take_head<'a>(
        &mut self,
        input: &'a [u8],
        emit: &mut dyn FnMut(&[u8]),
    ) -> Result<&'a [u8], &'static str> {
        let mut partial = std::mem::take(&mut self.partial);
        let (head, rest) = if partial.is_empty()
            && let Some(end) = head::end(input, 0)
        {
            // The usual case: the whole head in one piece, not copied.
            input.split_at(end)
        } else {
            let seen = partial.len();
            let room = head::MAX_HEAD_BYTES - seen;
            partial.extend_from_slice(&input[..input.len().min(room)]);
            const START: &[u8] = b"HTTP/1.";
            let n = partial.len().min(START.len());
            if partial[..n] != START[..n] {
                return Err("does not begin like HTTP/1");
            }
            match head::end(&partial, seen) {
                Some(end) => {
                    let rest = &input[end - seen..];
                    partial.truncate(end);
                    (&partial[..], rest)
                }
                None if partial.len() == head::MAX_HEAD_BYTES => {
                    return Err("has a head of more than 64 KiB");
                }
                None => {
                    self.partial = partial;
                    return Ok(&[]);
                }
            }
        };
        if head.len() > head::MAX_HEAD_BYTES {
            return Err("has a head of more than 64 KiB");
        }
        self.scratch.clear();
        self.rewrite_head(head)?;
        // What the same piece holds of the body goes out in the same write.
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

    /// Understands a head, decides how the body ends, and writes the head for
    /// the visitor to `scratch`.
    fn rewrite_head(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        self.head.parse(bytes, Strictness::Lenient)?;
        let head = &self.head;
        let line = &bytes[head.start.clone()];
        let (minor, status) = status(line).ok_or("has a malformed status line")?;
        let switching = status == 101;
        if switching && !self.context.upgrade {
            return Err("switches protocols although nobody asked for that");
        }
        let interim = status < 200 && !switching;
        if interim && self.context.is_http10 {
            return Ok(());
        }

        let chunked = head.lists(bytes, "transfer-encoding", "chunked");
        let encoded = head.values(bytes, "transfer-encoding").next().is_some();
        let mut length = None;
        for value in head.values(bytes, "content-length") {
            let n = parse_length(value).ok_or("has a Content-Length that is not a number")?;
            if length.is_some_and(|l| l != n) {
                return Err("has two Content-Length headers that differ");
            }
            length = Some(n);
        }
        let bodiless =
            interim || switching || self.context.head_only || matches!(status, 204 | 304);
        if encoded && !chunked && !bodiless {
            return Err("has a Transfer-Encoding other than chunked");
        }
        if encoded && length.is_some() {
            // RFC 9112, 6.3: the coding wins, and the upstream is suspect.
            self.reusable = false;
        }
        let closes = head.lists(bytes, "connection", "close")
            || (minor == 0 && !head.lists(bytes, "connection", "keep-alive"));
        if !interim {
            self.reusable &= !closes;
            self.state = match length {
                _ if switching => ResponseState::Tunnel,
                _ if bodiless => ResponseState::Done,
                _ if chunked => ResponseState::Chunked(Chunked::new()),
                Some(n) => ResponseState::Length(n),
                None => ResponseState::UntilEnd,
            };
            if matches!(self.state, ResponseState::UntilEnd) {
                self.keeps_visitor_open = false;
                self.reusable = false;
            }
        }

        let out = &mut self.scratch;
        out.extend_from_slice(b"HTTP/1.1");
        out.extend_from_slice(&line[8..]);
        out.extend_from_slice(b"\r\n");
        for f in &self.head.fields {
            let name = &bytes[f.name.clone()];
            let value = &bytes[f.value.clone()];
            let eq = |n: &str| name.eq_ignore_ascii_case(n.as_bytes());
            let hop = eq("connection")
                || eq("keep-alive")
                || eq("transfer-encoding")
                || (eq("upgrade") && !switching)
                || (name.len() >= 6 && name[..6].eq_ignore_ascii_case(b"proxy-"))
                || (eq("content-length") && encoded)
                || (eq("ngrok-error-code") && !(status == 502 && value == b"ERR_NGROK_8012"));
            let named = !hop
                && !eq("upgrade")
                && !eq("content-length")
                && self
                    .head
                    .values(bytes, "connection")
                    .any(|v| head::tokens(v).any(|t| t.eq_ignore_ascii_case(name)));
            if !hop && !named {
                out.extend_from_slice(name);
                out.extend_from_slice(b": ");
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
            }
        }
        if chunked && !matches!(status, 100..=199 | 204) {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        if switching {
            out.extend_from_slice(b"Connection: Upgrade\r\n");
        } else if !interim && !self.keeps_visitor_open {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// Digits only, at most 19 of them.
fn parse_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Minor version and status of a status line.
fn status(line: &[u8]) -> Option<(u8, u16)> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let [minor @ (b'0' | b'1'), b' ', a, b, c, rest @ ..] = rest else { return None };
    if !rest.is_empty() && rest[0] != b' ' {
        return None;
    }
    let status = std::str::from_utf8(&[*a, *b, *c]).ok()?.parse().ok()?;
    (100..=999).contains(&status).then_some((minor - b'0', status))
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

    /// The same for every cut.
    fn all(context: RequestContext, answer: &str) -> (ResponseFilter, FilterProgress, String) {
        let want = run(context, answer.as_bytes(), 0);
        for cut in 1..answer.len() {
            let got = run(context, answer.as_bytes(), cut);
            assert_eq!((got.1, &got.2), (want.1, &want.2), "cut at {cut}");
        }
        want
    }

    const CONTEXT: RequestContext =
        RequestContext { head_only: false, upgrade: false, close: false, is_http10: false };

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
        assert_eq!(f.end(), ResponseEnd::Truncated);
        let (mut f, _, _) =
            all(CONTEXT, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        assert_eq!(f.end(), ResponseEnd::Truncated);
        let (mut f, _, out) = all(CONTEXT, "HTTP/1.1 200 OK\r\nContent-Le");
        assert_eq!((f.end(), out.as_str()), (ResponseEnd::NotStarted, ""));
        let (mut f, p, out) = all(CONTEXT, "HTTP/1.1 200 OK\r\n\r\nhello");
        assert_eq!(p, FilterProgress::InProgress);
        assert!(out.contains("Connection: close"));
        assert_eq!(f.cut(), ResponseEnd::Truncated);
        let (mut f, ..) = all(CONTEXT, "HTTP/1.1 200 OK\r\n\r\nhello");
        assert_eq!(f.end(), ResponseEnd::Complete);
        assert!(!f.keeps_visitor() && !f.is_reusable());
    }

    #[test]
    fn answers_without_a_body() {
        for (context, status) in [
            (RequestContext { head_only: true, ..CONTEXT }, "200 OK"),
            (CONTEXT, "304 Not Modified"),
            (CONTEXT, "204 No Content"),
        ] {
            let (f, p, out) =
                all(context, &format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n"));
            assert_eq!(p, FilterProgress::Done);
            assert!(out.contains("Content-Length: 5") && f.is_reusable());
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
        assert_eq!(f.end(), ResponseEnd::Complete);
        assert!(matches!(run(CONTEXT, text.as_bytes(), 0).1, FilterProgress::Invalid(_)));
    }

    #[test]
    fn what_is_not_http_is_found_at_once() {
        for text in [
            "SSH-2.0-OpenSSH_9\r\n",
            "HTTP/1.1 OK\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        ] {
            let (_, p, out) = run(CONTEXT, text.as_bytes(), 0);
            assert!(matches!(p, FilterProgress::Invalid(_)), "{text:?}");
            assert_eq!(out, "");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(head::MAX_HEAD_BYTES));
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
    fn both_framings_leave_chunks_only() {
        let (f, _, out) = all(
            CONTEXT,
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        );
        assert!(!out.contains("Content-Length") && out.contains("chunked"));
        assert!(!f.is_reusable());
    }
}
