//! Reads the addresses of a PROXY protocol header, for a receiver that trusts its sender.
//!
//! Strict: a header that two readers could understand in two ways is an error, because the
//! address decides about access. Type-length-value fields are skipped.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{MAX_V1_BYTES, Prefix, SIGNATURE, V2_FIXED_BYTES, detect};

/// Longest accepted header. Version 2 announces up to 65,551 bytes; those of proxies, with
/// the certificate fields of TLS, are below 1,024.
pub const MAX_DECODED_BYTES: usize = 4_096;

/// A complete header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodedHeader {
    /// Its length in bytes.
    pub len: usize,
    /// `None` for `UNKNOWN`, `LOCAL` and a client on a Unix socket: the addresses of the
    /// connection itself count.
    pub addresses: Option<ProxiedAddresses>,
}

/// Addresses of the connection that the proxy accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxiedAddresses {
    /// Address of the client.
    pub source: SocketAddr,
    /// Address that the client connected to.
    pub destination: SocketAddr,
}

/// Why bytes are not a valid header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeHeaderError {
    /// Neither version begins like this.
    Absent,
    /// A version 1 line is malformed.
    Line,
    /// A version 2 header announces so many bytes, above [`MAX_DECODED_BYTES`].
    TooLong(usize),
    /// A version 2 header has this address family and transport.
    Family(u8),
    /// A version 2 header is too short for its addresses.
    TooShort(usize),
}

impl fmt::Display for DecodeHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("the connection does not begin with a PROXY header"),
            Self::Line => f.write_str("the PROXY header of version 1 is malformed"),
            Self::TooLong(n) => {
                write!(f, "the PROXY header has {n} bytes, at most {MAX_DECODED_BYTES} are read")
            }
            Self::Family(n) => write!(f, "the PROXY header has the family 0x{n:02x}, not TCP"),
            Self::TooShort(n) => {
                write!(f, "the PROXY header has {n} bytes, too few for its addresses")
            }
        }
    }
}

impl std::error::Error for DecodeHeaderError {}

/// Reads the header at the start of a stream. `None`: more bytes are needed, never more than
/// [`MAX_DECODED_BYTES`].
pub fn decode(bytes: &[u8]) -> Result<Option<DecodedHeader>, DecodeHeaderError> {
    let len = match detect(bytes) {
        Prefix::Undecided => return Ok(None),
        Prefix::Absent if bytes.starts_with(b"PROXY ") => return Err(DecodeHeaderError::Line),
        Prefix::Absent => return Err(DecodeHeaderError::Absent),
        Prefix::Header { len } if len > MAX_DECODED_BYTES => {
            return Err(DecodeHeaderError::TooLong(len));
        }
        Prefix::Header { len } => len,
    };
    let Some(header) = bytes.get(..len) else { return Ok(None) };
    let addresses = match header.strip_prefix(SIGNATURE) {
        Some(rest) => decode_v2(rest)?,
        None => decode_v1(header)?,
    };
    Ok(Some(DecodedHeader { len, addresses }))
}

/// Reads a line: `PROXY TCP4 source destination port port`, single blanks, CR LF.
fn decode_v1(line: &[u8]) -> Result<Option<ProxiedAddresses>, DecodeHeaderError> {
    let error = DecodeHeaderError::Line;
    debug_assert!(line.len() <= MAX_V1_BYTES);
    let line = line.strip_suffix(b"\r\n").ok_or(error)?;
    let text = std::str::from_utf8(line).map_err(|_| error)?;
    let mut words = text.split(' ');
    let mut word = || words.next().ok_or(error);
    word()?;
    let family = word()?;
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let texts = [word()?, word()?];
    let [source, destination] = match family {
        "TCP4" => texts.map(address::<Ipv4Addr>),
        _ => texts.map(address::<Ipv6Addr>),
    };
    let ports = [word()?, word()?].map(port);
    match (source, destination, ports, words.next()) {
        (Some(source), Some(destination), [Some(from), Some(to)], None) => {
            Ok(Some(ProxiedAddresses {
                source: SocketAddr::new(source, from),
                destination: SocketAddr::new(destination, to),
            }))
        }
        _ => Err(error),
    }
}

fn address<T: FromStr + Into<IpAddr>>(text: &str) -> Option<IpAddr> {
    text.parse::<T>().ok().map(Into::into)
}

/// Reads a decimal port without sign and leading zeros.
fn port(text: &str) -> Option<u16> {
    let plain = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| plain)
}

/// Reads what follows the signature: command, family, length, addresses.
fn decode_v2(rest: &[u8]) -> Result<Option<ProxiedAddresses>, DecodeHeaderError> {
    const LOCAL: u8 = 0x20;
    const UNSPECIFIED: u8 = 0x00;
    const TCP_IPV4: u8 = 0x11;
    const TCP_IPV6: u8 = 0x21;
    const UNIX_STREAM: u8 = 0x31;

    let too_short = DecodeHeaderError::TooShort(SIGNATURE.len() + rest.len());
    let [command, family, _, _, payload @ ..] = rest else { return Err(too_short) };
    let mut payload = payload;
    match (*command, *family) {
        (LOCAL, _) | (_, UNSPECIFIED | UNIX_STREAM) => return Ok(None),
        (_, TCP_IPV4 | TCP_IPV6) => {}
        (_, other) => return Err(DecodeHeaderError::Family(other)),
    }
    let mut ip = || -> Option<IpAddr> {
        Some(match *family {
            TCP_IPV4 => IpAddr::from(take::<4>(&mut payload)?),
            _ => IpAddr::from(take::<16>(&mut payload)?),
        })
    };
    let ips = (ip(), ip());
    let ports = (take::<2>(&mut payload), take::<2>(&mut payload));
    let ((Some(source), Some(destination)), (Some(from), Some(to))) = (ips, ports) else {
        return Err(too_short);
    };
    Ok(Some(ProxiedAddresses {
        source: SocketAddr::new(source, u16::from_be_bytes(from)),
        destination: SocketAddr::new(destination, u16::from_be_bytes(to)),
    }))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

// The bound of a line is the one of the specification, and below the bound of all headers.
const _: () = assert!(MAX_V1_BYTES < MAX_DECODED_BYTES && V2_FIXED_BYTES < MAX_DECODED_BYTES);

#[cfg(test)]
mod tests {
    use super::super::encode;
    use super::*;

    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &len, payload].concat()
    }

    fn addresses(bytes: &[u8]) -> Result<Option<ProxiedAddresses>, DecodeHeaderError> {
        decode(bytes).map(|header| header.expect("complete").addresses)
    }

    #[test]
    fn reads_what_is_written_wherever_it_is_cut() {
        let v4 = "192.168.0.1:56324".parse().unwrap();
        let v6 = "[2001:db8::1]:443".parse().unwrap();
        for version in [1, 2] {
            for (source, destination) in [(v4, v4), (v6, v6)] {
                let header = encode(version, source, destination);
                let expected = DecodedHeader {
                    len: header.len(),
                    addresses: Some(ProxiedAddresses { source, destination }),
                };
                for n in 0..header.len() {
                    assert_eq!(decode(&header[..n]), Ok(None), "{n} bytes");
                }
                let with_payload = [&header[..], b"PROXY TCP4 x"].concat();
                assert_eq!(decode(&with_payload), Ok(Some(expected)));
            }
        }
    }

    #[test]
    fn some_headers_have_no_addresses() {
        for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ::1 whatever\r\n"] {
            assert_eq!(addresses(line.as_bytes()), Ok(None), "{line}");
        }
        let ipv4 = [1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187];
        for header in [
            v2(0x20, 0x00, &[]),
            v2(0x20, 0x11, &ipv4),
            v2(0x21, 0x00, b"tlv"),
            v2(0x21, 0x31, &[b'/'; 216]),
        ] {
            assert_eq!(addresses(&header), Ok(None), "{header:x?}");
        }
    }

    #[test]
    fn fields_behind_the_addresses_are_skipped() {
        let ipv4 = [1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187];
        let header = v2(0x21, 0x11, &[&ipv4[..], &[0x02, 0, 1, b'a']].concat());
        let found = decode(&header).unwrap().unwrap();
        assert_eq!(found.len, header.len());
        let ProxiedAddresses { source, destination } = found.addresses.unwrap();
        assert_eq!((source.to_string(), destination.to_string()).0, "1.2.3.4:80");
        assert_eq!(destination.to_string(), "5.6.7.8:443");
    }

    #[test]
    fn malformed_lines_are_errors() {
        for line in [
            "PROXY TCP4 1.1.1.1 2.2.2.2 80 443 \r\n",
            "PROXY TCP4 1.1.1.1  2.2.2.2 80 443\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 80\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 80 443 7\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 80 65536\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 080 443\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 +80 443\r\n",
            "PROXY TCP4 01.1.1.1 2.2.2.2 80 443\r\n",
            "PROXY TCP4 ::1 ::1 80 443\r\n",
            "PROXY TCP6 1.1.1.1 2.2.2.2 80 443\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 80 443\r\n",
            "PROXY TCP4 \r\n",
            "PROXY UNKNOWNX\r\n",
            "PROXY TCP5 1.1.1.1 2.2.2.2 80 443\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 80 443\n",
        ] {
            let text = format!("{line}{}", "x".repeat(MAX_V1_BYTES));
            assert_eq!(decode(text.as_bytes()), Err(DecodeHeaderError::Line), "{line:?}");
        }
        let invalid = b"PROXY TCP4 \xff 2.2.2.2 80 443\r\n";
        assert_eq!(decode(invalid), Err(DecodeHeaderError::Line));
    }

    #[test]
    fn malformed_version_2_headers_are_errors() {
        use DecodeHeaderError::{Absent, Family, TooLong, TooShort};
        let short = v2(0x21, 0x11, &[0; 11]);
        assert_eq!(decode(&short), Err(TooShort(short.len())));
        assert_eq!(decode(&v2(0x21, 0x21, &[0; 35])), Err(TooShort(51)));
        for family in [0x12, 0x22, 0x32, 0x10, 0x41, 0xff] {
            assert_eq!(decode(&v2(0x21, family, &[0; 36])), Err(Family(family)));
        }
        for command in [0x10, 0x22, 0x31] {
            assert_eq!(decode(&v2(command, 0x11, &[0; 12])), Err(Absent));
        }
        // Known from the fixed part: the rest is not collected.
        let long = v2(0x21, 0x11, &[0; MAX_DECODED_BYTES]);
        assert_eq!(decode(&long[..V2_FIXED_BYTES]), Err(TooLong(long.len())));
        assert_eq!(decode(b"GET / HTTP/1.1\r\n"), Err(Absent));
        assert_eq!(decode(b""), Ok(None));
    }
}
