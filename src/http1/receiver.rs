//! One request with its body, for servers that read requests as a whole. Sans-IO: a
//! [`RequestReceiver`] processes bytes and reports when the request is complete.

use super::chunked::ChunkedDecoder;
use super::error::HttpError;
use super::framing::BodyFraming;
use super::head::{HeadReader, HttpRequest};
use super::line::Strictness;

/// State after some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadProgress {
    /// Further bytes are needed.
    More,
    /// Further bytes are needed, and the client waits for `100 Continue`.
    Continue,
    /// The request is complete.
    Whole,
    /// The request is refused. Bytes after it cannot be parsed.
    Refused(HttpError),
    /// The body is larger than the limit. Bytes after it cannot be parsed.
    TooLarge,
}

impl ReadProgress {
    /// Returns the status of a refusal.
    pub fn refusal(self) -> Option<u16> {
        match self {
            ReadProgress::More | ReadProgress::Continue | ReadProgress::Whole => None,
            ReadProgress::Refused(error) => Some(error.status()),
            ReadProgress::TooLarge => Some(413),
        }
    }
}

/// Assembles one request, independent of how its bytes are split.
#[derive(Debug)]
pub struct RequestReceiver {
    head: HeadReader,
    max_body: usize,
    body: Vec<u8>,
    state: ReadState,
}

#[derive(Debug)]
enum ReadState {
    Head,
    /// In a body, with the number of missing bytes.
    Body(usize),
    Chunked(ChunkedDecoder),
    Whole,
}

impl RequestReceiver {
    /// Returns a receiver of a request whose head and body have at most these numbers of bytes.
    pub fn new(max_head: usize, max_body: usize) -> Self {
        let head = HeadReader::new(max_head);
        RequestReceiver { head, max_body, body: Vec::new(), state: ReadState::Head }
    }

    /// Processes the next bytes. Returns how many of them belong to this request: all, unless
    /// it is complete or refused.
    pub fn feed(&mut self, bytes: &[u8]) -> (usize, ReadProgress) {
        let mut used = 0;
        let mut progress = ReadProgress::More;
        if matches!(self.state, ReadState::Head) {
            match self.head.feed(bytes) {
                Ok(None) => return (bytes.len(), ReadProgress::More),
                Ok(Some(n)) => used = n,
                Err(error) => return (0, ReadProgress::Refused(error)),
            }
            match self.begin_body() {
                Err(refused) => return (used, refused),
                Ok(true) if used == bytes.len() => progress = ReadProgress::Continue,
                Ok(_) => {}
            }
        }
        let rest = &bytes[used..];
        match &mut self.state {
            ReadState::Body(left) => {
                let n = rest.len().min(*left);
                *left -= n;
                self.body.extend_from_slice(&rest[..n]);
                used += n;
                if *left == 0 {
                    self.state = ReadState::Whole;
                }
            }
            ReadState::Chunked(decoder) => {
                match take_chunks(decoder, rest, &mut self.body, self.max_body) {
                    Ok(n) => {
                        used += n;
                        if decoder.is_done() {
                            self.state = ReadState::Whole;
                        }
                    }
                    Err(refused) => return (used, refused),
                }
            }
            ReadState::Head | ReadState::Whole => {}
        }
        if matches!(self.state, ReadState::Whole) {
            progress = ReadProgress::Whole;
        }
        (used, progress)
    }

    /// Checks the head. Returns true if the client waits before it sends the body.
    fn begin_body(&mut self) -> Result<bool, ReadProgress> {
        let request = self.head.request().ok_or(ReadProgress::Refused(HttpError::Incomplete))?;
        self.state = match request.body().map_err(ReadProgress::Refused)? {
            BodyFraming::Length(n) => match usize::try_from(n) {
                Ok(n) if n <= self.max_body => ReadState::Body(n),
                _ => return Err(ReadProgress::TooLarge),
            },
            BodyFraming::Chunked => ReadState::Chunked(ChunkedDecoder::new(Strictness::Strict)),
            // A request never ends with its connection (RFC 9112 6.3).
            BodyFraming::None | BodyFraming::UntilClose | BodyFraming::Tunnel => ReadState::Whole,
        };
        let has_body = !matches!(self.state, ReadState::Whole);
        Ok(has_body && self.head.request().is_some_and(|request| request.expects_continue()))
    }

    /// Returns whether a part of a request was received.
    pub fn started(&self) -> bool {
        self.head.started()
    }

    /// Returns whether the head is complete and the body is not.
    pub fn in_body(&self) -> bool {
        matches!(self.state, ReadState::Body(_) | ReadState::Chunked(_))
    }

    /// Returns the head of a complete request, else `None`.
    pub fn head(&self) -> Option<HttpRequest<'_>> {
        if matches!(self.state, ReadState::Whole) { self.head.request() } else { None }
    }

    /// Returns the head of a request whose body is not complete.
    pub fn partial_head(&self) -> Option<HttpRequest<'_>> {
        if self.in_body() { self.head.request() } else { None }
    }

    /// Returns the body of a complete request.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Returns the body of a complete request, without a copy.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// Returns the bytes of memory that the body takes.
    pub fn held(&self) -> usize {
        self.body.capacity()
    }
}

/// Appends the data of chunks to `body`. Returns how many bytes belong to the chunked body.
fn take_chunks(
    decoder: &mut ChunkedDecoder,
    bytes: &[u8],
    body: &mut Vec<u8>,
    max_body: usize,
) -> Result<usize, ReadProgress> {
    let mut too_large = false;
    let used = decoder.feed(bytes, &mut |data| {
        too_large |= body.len() + data.len() > max_body;
        if !too_large {
            body.extend_from_slice(data);
        }
    });
    // The announced length of a chunk counts before its bytes arrive.
    let announced = usize::try_from(decoder.missing()).unwrap_or(usize::MAX);
    if too_large || announced > max_body - body.len() {
        return Err(ReadProgress::TooLarge);
    }
    used.map_err(ReadProgress::Refused)
}

#[cfg(test)]
mod tests {
    use super::super::chunked::{MAX_EXTENSION, MAX_TRAILERS};
    use super::*;

    const MAX_HEAD_BYTES: usize = 8 * 1024;
    const MAX_BODY_BYTES: usize = 1024 * 1024;

    fn receiver() -> RequestReceiver {
        RequestReceiver::new(MAX_HEAD_BYTES, MAX_BODY_BYTES)
    }

    /// Feeds `bytes` in pieces of `size`. Returns the number of used bytes and the last
    /// progress.
    fn run(bytes: &[u8], size: usize) -> (RequestReceiver, usize, ReadProgress) {
        let mut receiver = receiver();
        let mut used = 0;
        let mut last = ReadProgress::More;
        while used < bytes.len() && matches!(last, ReadProgress::More | ReadProgress::Continue) {
            let end = bytes.len().min(used + size);
            let (n, progress) = receiver.feed(&bytes[used..end]);
            (used, last) = (used + n, progress);
        }
        (receiver, used, last)
    }

    #[test]
    fn bodies_are_the_same_however_they_are_cut() {
        let length: &[u8] = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello world";
        let chunked: &[u8] = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
            5\r\nhello\r\n6;x=\"y\"\r\n world\r\n0\r\nTrailer: a\r\n\r\n";
        for bytes in [length, chunked] {
            for size in 1..bytes.len() + 9 {
                let more = [bytes, b"GET / HTT"].concat();
                let (receiver, used, progress) = run(&more, size);
                assert_eq!(
                    (used, progress),
                    (bytes.len(), ReadProgress::Whole),
                    "pieces of {size}"
                );
                assert_eq!(receiver.body(), b"hello world");
                assert_eq!(receiver.head().map(|head| head.target()), Some("/a"));
            }
        }
    }

    #[test]
    fn invalid_and_too_large_requests_are_refused() {
        let long_head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(MAX_HEAD_BYTES));
        let large = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", MAX_BODY_BYTES + 1);
        let chunked =
            |rest: &str| format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{rest}");
        let endless = chunked(&format!("1;{}", "x".repeat(MAX_EXTENSION + 1)));
        let trailers = chunked(&format!("0\r\nA: {}", "x".repeat(MAX_TRAILERS)));
        for (text, status) in [
            (long_head.as_str(), 431),
            (&large, 413),
            ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("GET /\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\n\r\n", 505),
            ("\x16\x03\x01\x02\n\n", 400),
            (&chunked("100001\r\n"), 413),
            (&chunked("-1\r\n"), 400),
            (&chunked("\r\n"), 400),
            (&chunked("5\nhello"), 400),
            (&chunked("5\r\nhelloX"), 400),
            (&endless, 400),
            (&trailers, 400),
        ] {
            for size in [1, 7, text.len()] {
                let (_, _, progress) = run(text.as_bytes(), size);
                assert_eq!(progress.refusal(), Some(status), "{text:.60}");
            }
        }
    }

    #[test]
    fn chunks_may_not_add_up_to_more_than_a_body_may_be() {
        let mut receiver = receiver();
        let head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(receiver.feed(head), (head.len(), ReadProgress::More));
        let piece = [&b"ea60\r\n"[..], &[b'x'; 60_000], b"\r\n"].concat();
        let is_refused = |_| receiver.feed(&piece).1 == ReadProgress::TooLarge;
        assert!((0..1000).any(is_refused));
        assert!(receiver.body().len() <= MAX_BODY_BYTES);
    }

    #[test]
    fn a_client_that_waits_for_continue_is_invited() {
        let head = b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
        let mut receiver = receiver();
        assert_eq!(receiver.feed(head), (head.len(), ReadProgress::Continue));
        assert_eq!(receiver.feed(b"{}"), (2, ReadProgress::Whole));
    }
}
