//! End of a message's body (RFC 9112 6.3). All readers of this program use this decision. A
//! message that two readers could interpret differently is an error.

use super::error::HttpError;
use super::line::{HttpVersion, is_framing, trim};
use super::status;
use super::text::{decimal, is_token};

/// Most digits of a Content-Length.
pub const MAX_LENGTH_DIGITS: usize = 19;

/// How the body of a message ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyFraming {
    /// No body.
    #[default]
    None,
    /// After this number of bytes, at least one.
    Length(u64),
    /// With the last chunk and its trailers.
    Chunked,
    /// With the connection. Responses only.
    UntilClose,
    /// Not a body: the connection carries another protocol from here on.
    Tunnel,
}

/// Method of the request that a response answers, as far as framing depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestMethod {
    /// HEAD: the response has no body.
    Head,
    /// CONNECT: a 2xx response opens a tunnel.
    Connect,
    /// Every other method.
    #[default]
    Other,
}

impl RequestMethod {
    /// Returns the kind of a method by its name.
    pub fn of(name: &str) -> Self {
        match name {
            "HEAD" => RequestMethod::Head,
            "CONNECT" => RequestMethod::Connect,
            _ => RequestMethod::Other,
        }
    }
}

/// The message that a body belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A request.
    Request(HttpVersion),
    /// A response to a request with this method.
    Response {
        /// Its status code.
        status: u16,
        /// The method of its request.
        method: RequestMethod,
    },
}

/// Header fields that frame the body, collected field by field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FramingFields {
    length: Option<u64>,
    /// Whether Content-Length appeared more than once, with one value.
    repeated: bool,
    coding: Coding,
    /// Whether a coding other than chunked is present.
    encoded: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    None,
    /// The last coding is not chunked.
    Other,
    /// The last coding, and only this one, is chunked.
    Chunked,
}

impl FramingFields {
    /// Processes the next field. Fields with other names are ignored.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), HttpError> {
        if !is_framing(name) {
            return Ok(());
        }
        if name.len() == 14 {
            let length = length(value).ok_or(HttpError::LengthInvalid)?;
            match self.length {
                Some(other) if other != length => return Err(HttpError::LengthsDiffer),
                Some(_) => self.repeated = true,
                None => self.length = Some(length),
            }
            return Ok(());
        }
        for coding in value.split(|b| *b == b',') {
            let coding = trim(coding);
            if !is_token(coding) {
                return Err(HttpError::CodingInvalid);
            }
            if self.coding == Coding::Chunked {
                return Err(HttpError::ChunkedNotLast);
            }
            self.coding = if coding.eq_ignore_ascii_case(b"chunked") {
                Coding::Chunked
            } else if coding.windows(7).any(|w| w.eq_ignore_ascii_case(b"chunked")) {
                // A reader that searches for the word would find it.
                return Err(HttpError::CodingInvalid);
            } else {
                self.encoded = true;
                Coding::Other
            };
        }
        Ok(())
    }

    /// Returns whether a transfer coding other than chunked is applied.
    pub fn is_encoded(&self) -> bool {
        self.encoded
    }

    /// Returns whether Transfer-Encoding is present.
    pub fn has_coding(&self) -> bool {
        self.coding != Coding::None
    }

    /// Returns the value of Content-Length.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Decides how the body ends (RFC 9112 6.3, in its order).
    pub fn body(&self, message: MessageKind) -> Result<BodyFraming, HttpError> {
        if self.length.is_some() && self.has_coding() {
            return Err(HttpError::LengthAndCoding);
        }
        match message {
            MessageKind::Request(version) => match (self.coding, self.length) {
                (Coding::None, _) if self.repeated => Err(HttpError::LengthRepeated),
                (Coding::None, None | Some(0)) => Ok(BodyFraming::None),
                (Coding::None, Some(length)) => Ok(BodyFraming::Length(length)),
                _ if version == HttpVersion::Http10 => Err(HttpError::CodingInHttp10),
                (Coding::Other, _) => Err(HttpError::ChunkedNotLast),
                (Coding::Chunked, _) if self.encoded => Err(HttpError::CodingUnknown),
                (Coding::Chunked, _) => Ok(BodyFraming::Chunked),
            },
            MessageKind::Response { status, method } => {
                if status == 101 || (method == RequestMethod::Connect && status / 100 == 2) {
                    return Ok(BodyFraming::Tunnel);
                }
                if method == RequestMethod::Head || status::has_no_body(status) {
                    return Ok(BodyFraming::None);
                }
                Ok(match (self.coding, self.length) {
                    (Coding::Chunked, _) => BodyFraming::Chunked,
                    (Coding::Other, _) | (Coding::None, None) => BodyFraming::UntilClose,
                    (Coding::None, Some(0)) => BodyFraming::None,
                    (Coding::None, Some(length)) => BodyFraming::Length(length),
                })
            }
        }
    }
}

/// Returns the number of a Content-Length. `None` above [`i64::MAX`], which other readers do
/// not support.
fn length(digits: &[u8]) -> Option<u64> {
    let number = if digits.len() <= MAX_LENGTH_DIGITS { decimal(digits) } else { None };
    number.filter(|number| i64::try_from(*number).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(fields: &[(&str, &str)], message: MessageKind) -> Result<BodyFraming, HttpError> {
        let mut framing = FramingFields::default();
        for (name, value) in fields {
            framing.field(name.as_bytes(), value.as_bytes())?;
        }
        framing.body(message)
    }

    const REQUEST: MessageKind = MessageKind::Request(HttpVersion::Http11);
    const CL: &str = "Content-Length";
    const TE: &str = "transfer-encoding";

    fn response(status: u16, method: RequestMethod) -> MessageKind {
        MessageKind::Response { status, method }
    }

    #[test]
    fn bodies_of_requests() {
        let old = MessageKind::Request(HttpVersion::Http10);
        for (fields, message, expected) in [
            (&[][..], REQUEST, Ok(BodyFraming::None)),
            (&[("Host", "5")], REQUEST, Ok(BodyFraming::None)),
            (&[(CL, "0")], REQUEST, Ok(BodyFraming::None)),
            (&[(CL, "5")], REQUEST, Ok(BodyFraming::Length(5))),
            (&[(CL, "5")], old, Ok(BodyFraming::Length(5))),
            (&[(CL, "0005")], REQUEST, Ok(BodyFraming::Length(5))),
            (&[(TE, "Chunked")], REQUEST, Ok(BodyFraming::Chunked)),
            (&[(TE, "\tchunked ")], REQUEST, Ok(BodyFraming::Chunked)),
            (&[(CL, "9223372036854775807")], REQUEST, Ok(BodyFraming::Length(i64::MAX as u64))),
            (&[(CL, "9223372036854775808")], REQUEST, Err(HttpError::LengthInvalid)),
            (&[(CL, "99999999999999999999")], REQUEST, Err(HttpError::LengthInvalid)),
            (&[(CL, "")], REQUEST, Err(HttpError::LengthInvalid)),
            (&[(CL, "+5")], REQUEST, Err(HttpError::LengthInvalid)),
            (&[(CL, "-5")], REQUEST, Err(HttpError::LengthInvalid)),
            (&[(CL, "0x5")], REQUEST, Err(HttpError::LengthInvalid)),
            (&[(CL, "5 5")], REQUEST, Err(HttpError::LengthInvalid)),
            (&[(CL, "5, 5")], REQUEST, Err(HttpError::LengthInvalid)),
            (&[(CL, "5"), (CL, "5")], REQUEST, Err(HttpError::LengthRepeated)),
            (&[(CL, "5"), (CL, "6")], REQUEST, Err(HttpError::LengthsDiffer)),
            (&[(CL, "5"), (TE, "chunked")], REQUEST, Err(HttpError::LengthAndCoding)),
            (&[(TE, "chunked"), (CL, "0")], REQUEST, Err(HttpError::LengthAndCoding)),
            (&[(TE, "chunked")], old, Err(HttpError::CodingInHttp10)),
            (&[(TE, "gzip, chunked")], REQUEST, Err(HttpError::CodingUnknown)),
            (&[(TE, "gzip"), (TE, "chunked")], REQUEST, Err(HttpError::CodingUnknown)),
            (&[(TE, "gzip")], REQUEST, Err(HttpError::ChunkedNotLast)),
            (&[(TE, "identity")], REQUEST, Err(HttpError::ChunkedNotLast)),
            (&[(TE, "chunked, gzip")], REQUEST, Err(HttpError::ChunkedNotLast)),
            (&[(TE, "chunked, chunked")], REQUEST, Err(HttpError::ChunkedNotLast)),
            (&[(TE, "chunked"), (TE, "chunked")], REQUEST, Err(HttpError::ChunkedNotLast)),
            (&[(TE, "chunked,")], REQUEST, Err(HttpError::CodingInvalid)),
            (&[(TE, "")], REQUEST, Err(HttpError::CodingInvalid)),
            (&[(TE, "xchunked")], REQUEST, Err(HttpError::CodingInvalid)),
            (&[(TE, "chunked;a=b")], REQUEST, Err(HttpError::CodingInvalid)),
            (&[(TE, "\"chunked\"")], REQUEST, Err(HttpError::CodingInvalid)),
            (&[(TE, "\u{b}chunked")], REQUEST, Err(HttpError::CodingInvalid)),
        ] {
            assert_eq!(body(fields, message), expected, "{fields:?}");
        }
    }

    #[test]
    fn bodies_of_responses() {
        let ok = response(200, RequestMethod::Other);
        for (fields, message, expected) in [
            (&[][..], ok, Ok(BodyFraming::UntilClose)),
            (&[(CL, "0")], ok, Ok(BodyFraming::None)),
            (&[(CL, "5")], ok, Ok(BodyFraming::Length(5))),
            (&[(CL, "5"), (CL, "5")], ok, Ok(BodyFraming::Length(5))),
            (&[(TE, "chunked")], ok, Ok(BodyFraming::Chunked)),
            (&[(TE, "gzip, chunked")], ok, Ok(BodyFraming::Chunked)),
            (&[(TE, "gzip")], ok, Ok(BodyFraming::UntilClose)),
            (&[(CL, "5")], response(200, RequestMethod::Head), Ok(BodyFraming::None)),
            (&[(TE, "chunked")], response(200, RequestMethod::Head), Ok(BodyFraming::None)),
            (&[(CL, "5")], response(304, RequestMethod::Other), Ok(BodyFraming::None)),
            (&[(CL, "5")], response(204, RequestMethod::Other), Ok(BodyFraming::None)),
            (&[(CL, "5")], response(100, RequestMethod::Other), Ok(BodyFraming::None)),
            (&[], response(103, RequestMethod::Other), Ok(BodyFraming::None)),
            (&[(CL, "5")], response(101, RequestMethod::Other), Ok(BodyFraming::Tunnel)),
            (&[(CL, "5")], response(200, RequestMethod::Connect), Ok(BodyFraming::Tunnel)),
            (&[(CL, "5")], response(407, RequestMethod::Connect), Ok(BodyFraming::Length(5))),
            (&[(CL, "5"), (CL, "6")], ok, Err(HttpError::LengthsDiffer)),
            (&[(CL, "5"), (TE, "chunked")], ok, Err(HttpError::LengthAndCoding)),
            (
                &[(CL, "5"), (TE, "gzip")],
                response(304, RequestMethod::Other),
                Err(HttpError::LengthAndCoding),
            ),
            (&[(TE, "chunked, gzip")], ok, Err(HttpError::ChunkedNotLast)),
            (&[(CL, "x")], ok, Err(HttpError::LengthInvalid)),
        ] {
            assert_eq!(body(fields, message), expected, "{fields:?} {message:?}");
        }
    }
}
