//! Header at the start of a visitor's connection (protocol 6.1): eight bytes of length,
//! little-endian, then one JSON object of exactly that length. The visitor's bytes follow.

use std::fmt;

use super::fields::{DecodeError, Fields, Writer, parse};

/// Maximum length of the JSON, in bytes. Real headers have about 120.
pub const MAX_HEADER_BYTES: usize = 65_536;

/// Minimum length of the JSON: `{}`.
const MIN_HEADER_BYTES: usize = 2;

/// Size of the length.
const LENGTH_BYTES: usize = 8;

/// The visitor and the endpoint of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Id of the endpoint, from the response to its Bind.
    pub id: String,
    /// The visitor, `ip:port`.
    pub client_addr: String,
    /// `http`, `https`, `tcp` or `tls`.
    pub proto: String,
    /// For labelled endpoints: `"1"` tcp, `"2"` tls, `"3"` https, `"0"` or empty unknown.
    pub edge_type: String,
    /// Whether the bytes are TLS that the edge has not terminated.
    pub passthrough_tls: bool,
}

impl ProxyHeader {
    /// Returns length and JSON.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.text("Id", &self.id)
            .text("ClientAddr", &self.client_addr)
            .text("Proto", &self.proto)
            .text("EdgeType", &self.edge_type)
            .flag("PassthroughTLS", self.passthrough_tls);
        let json = out.finish();
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(&json);
        bytes
    }

    fn decode(json: &[u8]) -> Result<Self, DecodeError> {
        let map = parse(json)?;
        let fields = Fields::of(&map);
        Ok(ProxyHeader {
            id: fields.text("Id")?,
            client_addr: fields.text("ClientAddr")?,
            proto: fields.text("Proto")?,
            edge_type: fields.text("EdgeType")?,
            passthrough_tls: fields.flag("PassthroughTLS")?,
        })
    }
}

/// Reason why a header is invalid. It ends the stream only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The announced length is below 2 or above [`MAX_HEADER_BYTES`] (read as signed).
    Length(i64),
    /// The JSON is not a valid header.
    Json(DecodeError),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::Length(n) => {
                write!(
                    f,
                    "proxy header announces {n} bytes, must be {MIN_HEADER_BYTES} to {MAX_HEADER_BYTES}"
                )
            }
            HeaderError::Json(error) => write!(f, "proxy header: {error}"),
        }
    }
}

impl std::error::Error for HeaderError {}

/// Collects a header from pieces. Its memory is that of the received bytes, independent of the
/// announced length.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Returns a decoder at the start of a stream.
    pub fn new() -> Self {
        Decoder::default()
    }

    /// Reads from the front of `bytes`. Returns how many bytes were read, never one after the
    /// header, and the header when it is complete. After that, and after an error, the decoder
    /// must not be used.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(usize, Option<ProxyHeader>), HeaderError> {
        let mut taken = self.fill(LENGTH_BYTES, bytes);
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok((taken, None));
        };
        let announced = i64::from_le_bytes(*length);
        let length = match usize::try_from(announced) {
            Ok(n) if (MIN_HEADER_BYTES..=MAX_HEADER_BYTES).contains(&n) => n,
            _ => return Err(HeaderError::Length(announced)),
        };
        taken += self.fill(LENGTH_BYTES + length, &bytes[taken..]);
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok((taken, None));
        }
        match ProxyHeader::decode(&self.buffer[LENGTH_BYTES..]) {
            Ok(header) => Ok((taken, Some(header))),
            Err(error) => Err(HeaderError::Json(error)),
        }
    }

    /// Collects bytes until the buffer has `wanted` bytes.
    fn fill(&mut self, wanted: usize, bytes: &[u8]) -> usize {
        let n = wanted.saturating_sub(self.buffer.len()).min(bytes.len());
        self.buffer.extend_from_slice(&bytes[..n]);
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"Id":"b1","ClientAddr":"192.0.2.7:50000","Proto":"https","EdgeType":"3","PassthroughTLS":false}"#;

    fn header() -> ProxyHeader {
        ProxyHeader {
            id: "b1".into(),
            client_addr: "192.0.2.7:50000".into(),
            proto: "https".into(),
            edge_type: "3".into(),
            passthrough_tls: false,
        }
    }

    /// The example of protocol 8, "A visitor", without frame header and type.
    fn worked_bytes() -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(JSON.as_bytes());
        bytes
    }

    #[test]
    fn the_worked_bytes_both_ways() {
        assert_eq!(header().encode(), worked_bytes());
        let mut bytes = worked_bytes();
        bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
        assert_eq!(Decoder::new().feed(&bytes), Ok((104, Some(header()))));
    }

    #[test]
    fn pieces_of_any_size() {
        let bytes = worked_bytes();
        for size in 1..bytes.len() {
            let mut decoder = Decoder::new();
            let mut found = None;
            for piece in bytes.chunks(size) {
                assert!(found.is_none());
                let (taken, header) = decoder.feed(piece).expect("a header");
                assert_eq!(taken, piece.len());
                found = header;
            }
            assert_eq!(found, Some(header()), "in pieces of {size}");
        }
    }

    #[test]
    fn lengths_out_of_bounds() {
        for n in [0, 1, 65_537, i64::MAX, -1, i64::MIN] {
            assert_eq!(Decoder::new().feed(&n.to_le_bytes()), Err(HeaderError::Length(n)));
        }
        let mut decoder = Decoder::new();
        assert_eq!(decoder.feed(&65_536i64.to_le_bytes()), Ok((8, None)));
        assert!(decoder.buffer.capacity() < 1024, "nothing is allocated by announcement");
    }

    #[test]
    fn missing_keys_are_empty_and_wrong_ones_are_named() {
        let feed = |json: &str| {
            let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
            bytes.extend_from_slice(json.as_bytes());
            Decoder::new().feed(&bytes)
        };
        assert_eq!(feed("{}"), Ok((10, Some(ProxyHeader::default()))));
        let error = feed(r#"{"EdgeType":3}"#).expect_err("a number is refused");
        assert_eq!(error.to_string(), "proxy header: EdgeType must be a string");
        assert!(feed("{} x").is_err());
        assert!(feed("[]").is_err());
    }
}
