//! Requests to the local API and responses as bytes. Sans-IO: no socket, no clock. An
//! [`ApiReply`] writes its own head.
//!
//! Not a library: requests are parsed by [`crate::http1`], which the agent has already; server,
//! bodies and responses are 15 KB more. The smallest maintained library, `tiny_http`,
//! was measured at 135 KB, and it needs a thread for each client.

use crate::http1::head::MAX_AGENT_HEAD_BYTES;
use crate::http1::line::HttpVersion;
use crate::http1::receiver::RequestReceiver;
use crate::http1::status;

/// Maximum size of a body: enough for a traffic policy or a changed request.
pub const MAX_BODY: usize = 1024 * 1024;

/// Returns a receiver of one request.
pub fn receiver() -> RequestReceiver {
    RequestReceiver::new(MAX_AGENT_HEAD_BYTES, MAX_BODY)
}

/// Response without the fields for its connection.
pub struct ApiReply {
    /// Status code.
    pub status: u16,
    /// `Content-Type`.
    pub kind: &'static str,
    /// Further fields, each with CR LF.
    pub fields: String,
    /// Body of the response.
    pub body: ReplyBody,
}

/// Body of a response.
pub enum ReplyBody {
    /// No body and no length: 204.
    Empty,
    /// These bytes.
    Whole(Vec<u8>),
    /// Static bytes of the program.
    Fixed(&'static [u8]),
    /// Piece by piece, so that a long response is never in memory as a whole.
    Pieces(Box<dyn Iterator<Item = Vec<u8>> + Send>),
    /// The stream of events, without end.
    Events,
}

/// `Content-Type` of all routes below `/api`.
pub const JSON: &str = "application/json";

impl ApiReply {
    /// Returns a response with status 200.
    pub fn new(kind: &'static str, body: ReplyBody) -> Self {
        ApiReply { status: 200, kind, fields: String::new(), body }
    }

    /// Returns a response with JSON.
    pub fn json(status: u16, body: Vec<u8>) -> Self {
        ApiReply { status, ..ApiReply::new(JSON, ReplyBody::Whole(body)) }
    }

    /// Returns a response with a line of text, for people and simple programs.
    pub fn text(status: u16, text: String) -> Self {
        let body = ReplyBody::Whole(text.into_bytes());
        ApiReply { status, ..ApiReply::new("text/plain; charset=utf-8", body) }
    }

    /// Returns a response with status 204.
    pub fn empty() -> Self {
        ApiReply { status: 204, ..ApiReply::new("", ReplyBody::Empty) }
    }

    /// Adds a field.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields += &[name, ": ", value, "\r\n"].concat();
        self
    }

    /// Returns the bytes of the head. `keep`: the connection stays open, unless its end is the
    /// end of the body.
    pub fn head(&self, version: HttpVersion, keep: bool) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, status::reason(self.status));
        let length = match &self.body {
            ReplyBody::Empty | ReplyBody::Events => None,
            ReplyBody::Whole(bytes) => Some(bytes.len()),
            ReplyBody::Fixed(bytes) => Some(bytes.len()),
            ReplyBody::Pieces(_) => {
                if version == HttpVersion::Http11 {
                    head += "Transfer-Encoding: chunked\r\n";
                }
                None
            }
        };
        if let Some(length) = length {
            head += &format!("Content-Length: {length}\r\n");
        }
        if !self.kind.is_empty() {
            head += &["Content-Type: ", self.kind, "\r\n"].concat();
        }
        head += &self.fields;
        // Captured bytes must not be displayed as a page, even if a browser detects one, and
        // other sites must not embed them.
        head += "X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\n";
        if !self.fields.contains("Cache-Control") {
            head += "Cache-Control: no-store\r\n";
        }
        if !keep {
            head += "Connection: close\r\n";
        } else if version == HttpVersion::Http10 {
            head += "Connection: keep-alive\r\n";
        }
        head += "\r\n";
        head.into_bytes()
    }

    /// Returns whether the end of the body is visible without the end of the connection.
    pub fn has_end(&self, version: HttpVersion) -> bool {
        match self.body {
            ReplyBody::Pieces(_) => version == HttpVersion::Http11,
            ReplyBody::Events => false,
            _ => true,
        }
    }
}

/// Returns a piece of a chunked body. An empty one would be its end.
pub fn chunk(piece: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{:x}\r\n", piece.len()).into_bytes();
    bytes.extend_from_slice(piece);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// The end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Percent-encodes a name for a path.
pub fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~()".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::text::percent_decoded;

    #[test]
    fn names_in_paths() {
        assert_eq!(percent_decoded("command_line%20(http)", false).unwrap(), "command_line (http)");
        assert_eq!(percent_decoded("a+b%2Bc", false).unwrap(), "a+b+c");
        assert_eq!(percent_decoded("a+b%2Bc", true).unwrap(), "a b+c");
        for bad in ["%", "%2", "%zz", "%ff", "%+1"] {
            assert_eq!(percent_decoded(bad, false), None, "{bad}");
        }
        for name in ["a b/ü?%\"<", "command_line (http)", ""] {
            assert_eq!(percent_decoded(&percent_encoded(name), false).unwrap(), name);
        }
        assert_eq!(percent_encoded("command_line (http)"), "command_line%20(http)");
    }

    #[test]
    fn heads_of_answers() {
        let text =
            |reply: &ApiReply, version, keep| String::from_utf8(reply.head(version, keep)).unwrap();
        let json = ApiReply::json(201, b"{}".to_vec()).with("A", "b");
        let head = text(&json, HttpVersion::Http11, true);
        assert!(head.starts_with("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n"), "{head}");
        assert!(
            head.contains("Content-Type: application/json\r\nA: b\r\n")
                && !head.contains("Connection")
        );
        assert!(head.ends_with("\r\n\r\n"));
        let none = text(&ApiReply::empty(), HttpVersion::Http11, false);
        assert!(!none.contains("Content-") || !none.contains("Length"), "{none}");
        assert!(none.contains("Connection: close"));
        let pieces =
            ApiReply { body: ReplyBody::Pieces(Box::new(std::iter::empty())), ..ApiReply::empty() };
        assert!(text(&pieces, HttpVersion::Http11, true).contains("chunked"));
        assert!(!text(&pieces, HttpVersion::Http10, false).contains("chunked"));
        assert!(!pieces.has_end(HttpVersion::Http10) && pieces.has_end(HttpVersion::Http11));
    }
}
