//! Violations of HTTP/1 as one type. The sentences for pages and logs are only here, each
//! complete: callers add no words.

use std::fmt;

/// Fault of a message. Its text is a complete sentence about a message that the context names:
/// a refused request, or a response that is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpError {
    /// A TLS handshake on a port that expects plain HTTP.
    TlsHandshake,
    /// The HTTP/2 connection preface (RFC 9113 3.4).
    Http2Preface,
    /// More bytes than the limit of the reader.
    HeadTooLarge,
    /// No blank line at the end.
    Incomplete,
    /// More header lines than [`super::head::MAX_FIELDS`].
    TooManyFields,
    /// A request line other than `METHOD TARGET VERSION`.
    RequestLine,
    /// A method that is not a token (RFC 9110 9.1).
    Method,
    /// A request target with a blank, a control character or without any character.
    Target,
    /// A request target that is neither a path, nor `*` for OPTIONS, nor a URL.
    TargetForm,
    /// CONNECT, which no server of this program offers.
    ConnectMethod,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    Version,
    /// Other bytes than `HTTP/1.` at the start of a response.
    NotHttp,
    /// A status line other than `HTTP/1.x CODE [REASON]`.
    StatusLine,
    /// A line that ends with LF alone.
    BareLf,
    /// A control character where none is allowed.
    ControlCharacter,
    /// A header line that continues the one before it (RFC 9112 5.2).
    FoldedField,
    /// A header line without a colon.
    MissingColon,
    /// A blank between a field name and its colon (RFC 9112 5.1).
    BlankBeforeColon,
    /// A field name that is not a token.
    FieldName,
    /// A malformed line that another reader could interpret as one that frames the body.
    HiddenFraming,
    /// A request without Host.
    HostMissing,
    /// Two Host headers.
    HostRepeated,
    /// A Host that is not `HOST[:PORT]`.
    HostInvalid,
    /// A Content-Length that is not a number, or too large for one.
    LengthInvalid,
    /// A Content-Length that appears more than once.
    LengthRepeated,
    /// Content-Length headers with different values.
    LengthsDiffer,
    /// Content-Length beside Transfer-Encoding.
    LengthAndCoding,
    /// A Transfer-Encoding that is not a list of names.
    CodingInvalid,
    /// `chunked` more than once, or in front of another coding.
    ChunkedNotLast,
    /// A transfer coding other than chunked, which is not implemented.
    CodingUnknown,
    /// A transfer coding other than chunked in a response to an HTTP/1.0 client.
    CodingForHttp10,
    /// Transfer-Encoding in an HTTP/1.0 request.
    CodingInHttp10,
    /// Status 101 to a request without Upgrade.
    SwitchNotRequested,
    /// Other bytes than a chunk size.
    ChunkSize,
    /// More digits than [`super::chunked::MAX_SIZE_DIGITS`].
    ChunkSizeTooLarge,
    /// More bytes than [`super::chunked::MAX_EXTENSION`].
    ChunkExtensionTooLong,
    /// Other bytes than a line end after the data of a chunk.
    ChunkEnd,
    /// A malformed line after the last chunk.
    Trailer,
    /// More bytes than [`super::chunked::MAX_TRAILERS`].
    TrailersTooLarge,
}

#[cfg(test)]
impl HttpError {
    /// All errors, for tests of the texts.
    pub const ALL: [HttpError; 39] = [
        HttpError::TlsHandshake,
        HttpError::Http2Preface,
        HttpError::HeadTooLarge,
        HttpError::Incomplete,
        HttpError::TooManyFields,
        HttpError::RequestLine,
        HttpError::Method,
        HttpError::Target,
        HttpError::TargetForm,
        HttpError::ConnectMethod,
        HttpError::Version,
        HttpError::NotHttp,
        HttpError::StatusLine,
        HttpError::BareLf,
        HttpError::ControlCharacter,
        HttpError::FoldedField,
        HttpError::MissingColon,
        HttpError::BlankBeforeColon,
        HttpError::FieldName,
        HttpError::HiddenFraming,
        HttpError::HostMissing,
        HttpError::HostRepeated,
        HttpError::HostInvalid,
        HttpError::LengthInvalid,
        HttpError::LengthRepeated,
        HttpError::LengthsDiffer,
        HttpError::LengthAndCoding,
        HttpError::CodingInvalid,
        HttpError::ChunkedNotLast,
        HttpError::CodingUnknown,
        HttpError::CodingForHttp10,
        HttpError::CodingInHttp10,
        HttpError::SwitchNotRequested,
        HttpError::ChunkSize,
        HttpError::ChunkSizeTooLarge,
        HttpError::ChunkExtensionTooLong,
        HttpError::ChunkEnd,
        HttpError::Trailer,
        HttpError::TrailersTooLarge,
    ];
}

impl HttpError {
    /// Returns the sentence for users.
    pub fn sentence(self) -> &'static str {
        match self {
            HttpError::TlsHandshake => "This port expects plain HTTP, but the client began TLS.",
            HttpError::Http2Preface => "This port expects HTTP/1.1, but the client began HTTP/2.",
            HttpError::HeadTooLarge => "The head of the message is too large.",
            HttpError::Incomplete => "The head of the message is incomplete.",
            HttpError::TooManyFields => "The head of the message has too many header lines.",
            HttpError::RequestLine => "The first line is not a method, a target and a version.",
            HttpError::Method => "The method contains an invalid character.",
            HttpError::Target => "The request target contains an invalid character.",
            HttpError::TargetForm => "The request target is neither a path nor a URL.",
            HttpError::ConnectMethod => "The method CONNECT is not supported.",
            HttpError::Version => "The HTTP version is not supported; use HTTP/1.1.",
            HttpError::NotHttp => "The first bytes are not HTTP/1.1.",
            HttpError::StatusLine => "The status line is malformed.",
            HttpError::BareLf => "A line ends with a bare LF instead of CR LF.",
            HttpError::ControlCharacter => "The head of the message contains a control character.",
            HttpError::FoldedField => "A header line is folded.",
            HttpError::MissingColon => "A header line has no colon.",
            HttpError::BlankBeforeColon => "A header line has a blank in front of its colon.",
            HttpError::FieldName => "A header name contains an invalid character.",
            HttpError::HiddenFraming => {
                "A malformed header line looks like Content-Length or Transfer-Encoding."
            }
            HttpError::HostMissing => "The Host header is missing.",
            HttpError::HostRepeated => "The Host header appears more than once.",
            HttpError::HostInvalid => "The Host header is malformed.",
            HttpError::LengthInvalid => "The Content-Length header is not a valid number.",
            HttpError::LengthRepeated => "The Content-Length header appears more than once.",
            HttpError::LengthsDiffer => "The Content-Length headers have different values.",
            HttpError::LengthAndCoding => "Content-Length and Transfer-Encoding are both present.",
            HttpError::CodingInvalid => "The Transfer-Encoding header is malformed.",
            HttpError::ChunkedNotLast => "The transfer coding chunked is not the last one.",
            HttpError::CodingUnknown => "A transfer coding other than chunked is not supported.",
            HttpError::CodingForHttp10 => {
                "The transfer coding is not possible for an HTTP/1.0 client."
            }
            HttpError::CodingInHttp10 => "The Transfer-Encoding header is not allowed in HTTP/1.0.",
            HttpError::SwitchNotRequested => {
                "The response switches protocols without a request for it."
            }
            HttpError::ChunkSize => "The size of a chunk is malformed.",
            HttpError::ChunkSizeTooLarge => "The size of a chunk is too large.",
            HttpError::ChunkExtensionTooLong => "The extension of a chunk is too long.",
            HttpError::ChunkEnd => "The end of a chunk is not CR LF.",
            HttpError::Trailer => "A trailer line is malformed.",
            HttpError::TrailersTooLarge => "The trailer lines are too large.",
        }
    }

    /// Returns the status of the response to a request with this error.
    pub fn status(self) -> u16 {
        match self {
            HttpError::HeadTooLarge | HttpError::TooManyFields => 431,
            HttpError::ConnectMethod | HttpError::CodingUnknown => 501,
            HttpError::Version | HttpError::Http2Preface => 505,
            _ => 400,
        }
    }
}

impl fmt::Display for HttpError {
    /// Writes the sentence without its full stop, for a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence().trim_end_matches('.'))
    }
}

impl std::error::Error for HttpError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_is_one_sentence_of_its_own() {
        let verbs = ["is", "are", "has", "have", "contains", "ends", "expects", "appears"];
        let mut seen = std::collections::HashSet::new();
        for error in HttpError::ALL {
            let text = error.sentence();
            assert!(seen.insert(text), "twice: {text}");
            assert!(text.starts_with(|c: char| c.is_ascii_uppercase()), "{text}");
            assert!(text.ends_with('.') && !text.ends_with(".."), "{text}");
            assert!(!text.contains("  ") && text.len() < 90, "{text}");
            let words: Vec<_> = text.trim_end_matches('.').split([' ', ',', ';']).collect();
            let found =
                words.iter().any(|w| verbs.contains(w) || *w == "switches" || *w == "looks");
            assert!(found, "no verb: {text}");
            assert!((400..506).contains(&error.status()));
        }
    }

    #[test]
    fn the_list_is_complete() {
        // A new variant is a new number, which the list must reach.
        let last = HttpError::TrailersTooLarge as usize;
        assert_eq!(HttpError::ALL.len(), last + 1);
        for (at, error) in HttpError::ALL.into_iter().enumerate() {
            assert_eq!(error as usize, at);
        }
    }
}
