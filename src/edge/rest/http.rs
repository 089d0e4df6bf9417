//! Requests and responses of the REST API as bytes on a connection. Routes and keys do not
//! belong here.

use std::io::{self, Read, Write};

use super::error::ApiError;
use crate::http1::error::HttpError;
use crate::http1::head::HttpRequest;
use crate::http1::receiver::{ReadProgress, RequestReceiver};
use crate::http1::status;

/// Longest head. The query may have a filter.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Longest body: certificates with their keys.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Bytes of one read.
const READ_BYTES: usize = 16 * 1024;

/// A whole request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiHttpRequest {
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// `Host`.
    pub host: String,
    /// `Authorization`.
    pub authorization: Option<String>,
    /// `Ngrok-Version`.
    pub version: Option<String>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `User-Agent`.
    pub user_agent: String,
    /// Body.
    pub body: Vec<u8>,
    /// Whether the client may send another request.
    pub keep_alive: bool,
}

/// Result of reading a request.
pub enum ReadOutcome {
    /// A request.
    Request(ApiHttpRequest),
    /// The client sends nothing more.
    Closed,
    /// What came is not a valid request. Its connection ends.
    Invalid(ApiError),
}

/// Reads one request, in one or several calls.
pub struct RequestReader {
    receiver: RequestReceiver,
    /// The body of the request may come.
    is_admitted: bool,
}

impl Default for RequestReader {
    fn default() -> Self {
        let receiver = RequestReceiver::new(MAX_HEAD_BYTES, MAX_BODY_BYTES);
        RequestReader { receiver, is_admitted: false }
    }
}

impl RequestReader {
    /// Reads until the request is complete. `buffer` has the bytes that came after the last one,
    /// and gets those after this one. After an error of the kind `TimedOut` another call
    /// continues. `admit` decides whether to wait for a body, which needs memory.
    pub fn read<S: Read + Write>(
        &mut self,
        stream: &mut S,
        buffer: &mut Vec<u8>,
        admit: impl Fn(&ApiHttpRequest) -> Result<(), ApiError>,
    ) -> io::Result<ReadOutcome> {
        let mut piece = std::mem::take(buffer);
        loop {
            if piece.is_empty() && !receive(stream, &mut piece)? {
                return Ok(match self.receiver.started() {
                    true => ReadOutcome::Invalid(invalid(HttpError::Incomplete)),
                    false => ReadOutcome::Closed,
                });
            }
            let (used, progress) = self.receiver.feed(&piece);
            match progress {
                ReadProgress::Whole => {
                    *buffer = piece.split_off(used);
                    break;
                }
                ReadProgress::Refused(e) => return Ok(ReadOutcome::Invalid(invalid(e))),
                ReadProgress::TooLarge => return Ok(ReadOutcome::Invalid(too_large())),
                ReadProgress::More | ReadProgress::Continue => {}
            }
            if !self.is_admitted
                && let Some(head) = self.receiver.partial_head()
            {
                if let Err(error) = admit(&describe(&head)) {
                    return Ok(ReadOutcome::Invalid(error));
                }
                self.is_admitted = true;
            }
            if progress == ReadProgress::Continue {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                stream.flush()?;
            }
            piece.clear();
        }
        let receiver = std::mem::take(self).receiver;
        // Reason: the receiver has reported a whole request.
        let Some(head) = receiver.head() else { return Ok(ReadOutcome::Closed) };
        let mut request = describe(&head);
        request.body = receiver.into_body();
        Ok(ReadOutcome::Request(request))
    }
}

fn describe(request: &HttpRequest<'_>) -> ApiHttpRequest {
    let text = |name: &str| request.text(name).map(str::to_owned);
    ApiHttpRequest {
        method: request.method().to_owned(),
        target: request.target().to_owned(),
        host: text("host").unwrap_or_default(),
        authorization: text("authorization"),
        version: text("ngrok-version"),
        content_type: text("content-type"),
        user_agent: text("user-agent").unwrap_or_default(),
        body: Vec::new(),
        keep_alive: request.keep_alive(),
    }
}

/// Reads some bytes into an empty buffer. Returns `false` at the end.
fn receive<S: Read>(stream: &mut S, piece: &mut Vec<u8>) -> io::Result<bool> {
    piece.resize(READ_BYTES, 0);
    let n = stream.read(piece)?;
    piece.truncate(n);
    Ok(n > 0)
}

fn invalid(e: HttpError) -> ApiError {
    let status = e.status();
    ApiError::new(status, u32::from(status), format!("The request is not valid HTTP: {e}."))
}

fn too_large() -> ApiError {
    let text = format!("The request body is larger than {MAX_BODY_BYTES} bytes.");
    ApiError::new(413, 413, text)
}

/// A response without the fields for its connection.
#[derive(Clone, Debug, Default)]
pub struct ApiResponse {
    /// Status.
    pub status: u16,
    /// JSON; empty for 204.
    pub body: Vec<u8>,
    /// Further fields, each with CR LF.
    pub fields: String,
}

/// Sends a response, without its body if the request was a HEAD.
pub fn write<S: Write>(
    stream: &mut S,
    response: &ApiResponse,
    keep_alive: bool,
    to_head: bool,
) -> io::Result<()> {
    let ApiResponse { status, body, fields } = response;
    let mut bytes = format!("HTTP/1.1 {status} {}\r\n", status::reason(*status));
    if !status::has_no_framing(*status) {
        bytes += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    bytes += fields;
    bytes += "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n";
    if !keep_alive {
        bytes += "Connection: close\r\n";
    }
    bytes += "\r\n";
    let mut bytes = bytes.into_bytes();
    if !to_head {
        bytes.extend_from_slice(body);
    }
    stream.write_all(&bytes)?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that sends `input` in pieces of `size`.
    struct Client {
        input: Vec<u8>,
        size: usize,
        output: Vec<u8>,
    }

    impl Read for Client {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = self.size.min(self.input.len()).min(buf.len());
            let rest = self.input.split_off(n);
            buf[..n].copy_from_slice(&std::mem::replace(&mut self.input, rest));
            Ok(n)
        }
    }

    impl Write for Client {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.output.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn requests(input: &str, size: usize) -> (Vec<ApiHttpRequest>, Option<u16>, String) {
        let mut client = Client { input: input.into(), size, output: Vec::new() };
        let (mut buffer, mut found) = (Vec::new(), Vec::new());
        let mut reader = RequestReader::default();
        loop {
            match reader.read(&mut client, &mut buffer, |_| Ok(())).unwrap() {
                ReadOutcome::Request(request) => found.push(request),
                ReadOutcome::Closed => return (found, None, text(client.output)),
                ReadOutcome::Invalid(e) => return (found, Some(e.status), text(client.output)),
            }
        }
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn requests_in_pieces_of_any_size() {
        let two = "POST /a?b HTTP/1.1\r\nHost: h\r\nNgrok-Version: 2\r\nContent-Length: 5\r\n\r\nhello\
                   PATCH /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n\
                   GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        for size in [1, 7, 100, 10_000] {
            let (found, invalid, _) = requests(two, size);
            let seen: Vec<_> =
                found.iter().map(|r| (&*r.method, &*r.target, &*r.body, r.keep_alive)).collect();
            let expected: [(&str, &str, &[u8], bool); 3] = [
                ("POST", "/a?b", b"hello", true),
                ("PATCH", "/c", b"ab", true),
                ("GET", "/", b"", false),
            ];
            assert_eq!((seen, invalid), (expected.to_vec(), None));
            assert_eq!(found[0].version.as_deref(), Some("2"));
        }
    }

    #[test]
    fn invalid_and_large_requests_end_the_connection() {
        let large = "x".repeat(MAX_BODY_BYTES);
        let chunks = format!("{:x}\r\n{large}\r\n1\r\nx\r\n0\r\n\r\n", large.len());
        for (input, status) in [
            ("nonsense\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\nHost: h\r\n".to_owned(), 400),
            (format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000)), 431),
            ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10485760\r\n\r\n".to_owned(), 413),
            ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab".to_owned(), 400),
            (
                format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
                413,
            ),
            (
                "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".to_owned(),
                400,
            ),
        ] {
            let (found, invalid, _) = requests(&input, 10_000);
            assert_eq!((found.len(), invalid), (0, Some(status)), "{:.60}", input);
        }
    }

    #[test]
    fn a_client_that_waits_is_told_to_go_on() {
        let input =
            "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab";
        let head = input.len() - 2;
        let (found, _, output) = requests(input, head);
        assert_eq!((&*found[0].body, &*output), (&b"ab"[..], "HTTP/1.1 100 Continue\r\n\r\n"));
    }
}
