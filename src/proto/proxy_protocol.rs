//! Header of the PROXY protocol, versions 1 and 2 (protocol 6.3).
//!
//! Sans-IO. The agent only finds the end of a header, to forward its bytes unchanged before TLS
//! to the upstream begins. It does not read addresses and TLVs. The edge writes headers; it reads those of
//! trusted proxies with [`decode`].

pub mod decode;

use std::net::{IpAddr, SocketAddr};

/// First bytes of a version 2 header.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Maximum length of a version 1 header, CR LF included, by haproxy's specification.
const MAX_V1_BYTES: usize = 107;

/// Fixed part of a version 2 header.
const V2_FIXED_BYTES: usize = 16;

/// Meaning of the first bytes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// May still become a header: call again with more bytes. Never for more than 107 bytes.
    Undecided,
    /// Not a header: the bytes are the visitor's own.
    Absent,
    /// The first `len` bytes of the stream are a header. Some may not have arrived yet: version
    /// 2 announces up to 65,551.
    Header {
        /// Length of the header in bytes.
        len: usize,
    },
}

/// Checks the first bytes of a stream. Decides as soon as they cannot be a header, so that a
/// visitor that sends fewer bytes and then waits is not delayed.
pub fn detect(bytes: &[u8]) -> Prefix {
    if bytes.is_empty() {
        return Prefix::Undecided;
    }
    if agrees(bytes, SIGNATURE) {
        return detect_v2(bytes);
    }
    detect_v1(bytes)
}

fn detect_v2(bytes: &[u8]) -> Prefix {
    // Version 2 in the high nibble, LOCAL or PROXY in the low one.
    if bytes.get(12).is_some_and(|b| *b != 0x20 && *b != 0x21) {
        return Prefix::Absent;
    }
    match bytes.get(14..V2_FIXED_BYTES) {
        Some(length) => {
            let length = u16::from_be_bytes([length[0], length[1]]);
            Prefix::Header { len: V2_FIXED_BYTES + usize::from(length) }
        }
        None => Prefix::Undecided,
    }
}

fn detect_v1(bytes: &[u8]) -> Prefix {
    let starts = [&b"PROXY TCP4 "[..], b"PROXY TCP6 ", b"PROXY UNKNOWN"];
    if !starts.iter().any(|start| agrees(bytes, start)) {
        return Prefix::Absent;
    }
    let window = &bytes[..bytes.len().min(MAX_V1_BYTES)];
    match window.windows(2).position(|pair| pair == b"\r\n") {
        Some(at) => Prefix::Header { len: at + 2 },
        None if bytes.len() >= MAX_V1_BYTES => Prefix::Absent,
        None => Prefix::Undecided,
    }
}

/// Returns whether one is the beginning of the other.
fn agrees(bytes: &[u8], expected: &[u8]) -> bool {
    let n = bytes.len().min(expected.len());
    bytes[..n] == expected[..n]
}

/// Returns the header of version 1 or 2 for a connection from `source` to `destination`; empty
/// for another version.
pub fn encode(version: u8, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    match version {
        1 => encode_v1(source, destination),
        2 => encode_v2(source, destination),
        _ => Vec::new(),
    }
}

/// Returns a header of version 1: one line of text.
fn encode_v1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (from, to) = same_family(source.ip(), destination.ip());
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

/// Returns a header of version 2: binary, command PROXY, no TLVs.
fn encode_v2(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut out = Vec::with_capacity(V2_FIXED_BYTES + 36);
    out.extend_from_slice(SIGNATURE);
    match same_family(source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.extend_from_slice(&[0x21, 0x11, 0, 12]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
        }
        (from, to) => {
            out.extend_from_slice(&[0x21, 0x21, 0, 36]);
            out.extend_from_slice(&octets_v6(from));
            out.extend_from_slice(&octets_v6(to));
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
    out
}

/// Returns both addresses as IPv4 if possible, including mapped ones, else both as IPv6,
/// because a header has one family.
fn same_family(a: IpAddr, b: IpAddr) -> (IpAddr, IpAddr) {
    let (a, b) = (a.to_canonical(), b.to_canonical());
    if a.is_ipv4() && b.is_ipv4() {
        return (a, b);
    }
    (IpAddr::from(octets_v6(a)), IpAddr::from(octets_v6(b)))
}

fn octets_v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds every prefix. Returns the result and the number of bytes that were needed.
    fn decide(bytes: &[u8]) -> (usize, Prefix) {
        for n in 1..=bytes.len() {
            let prefix = detect(&bytes[..n]);
            if prefix != Prefix::Undecided {
                return (n, prefix);
            }
        }
        (bytes.len(), Prefix::Undecided)
    }

    #[test]
    fn lines_of_the_specification_are_headers() {
        for line in [
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
             ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            "PROXY UNKNOWN\r\n",
            "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
             ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
        ] {
            assert!(line.len() <= MAX_V1_BYTES);
            assert_eq!(decide(line.as_bytes()), (line.len(), Prefix::Header { len: line.len() }));
            let with_payload = format!("{line}GET / HTTP/1.1\r\n\r\n");
            assert_eq!(detect(with_payload.as_bytes()), Prefix::Header { len: line.len() });
        }
    }

    #[test]
    fn version_2_is_known_from_its_fixed_part_with_tlvs_counted() {
        let mut header = SIGNATURE.to_vec();
        header.extend_from_slice(&[0x21, 0x11, 0, 12 + 7]);
        assert_eq!(decide(&header), (16, Prefix::Header { len: 16 + 12 + 7 }));
        // LOCAL, which health checks send.
        let mut local = SIGNATURE.to_vec();
        local.extend_from_slice(&[0x20, 0, 0, 0]);
        assert_eq!(decide(&local), (16, Prefix::Header { len: 16 }));
        // The longest one need not be collected first.
        let mut long = SIGNATURE.to_vec();
        long.extend_from_slice(&[0x21, 0x21, 0xff, 0xff]);
        assert_eq!(decide(&long), (16, Prefix::Header { len: 65_551 }));
    }

    #[test]
    fn decides_at_the_first_byte_that_cannot_be_a_header() {
        for (bytes, at) in [
            (&b"GET / HTTP/1.1\r\n"[..], 1),
            (b"POST", 2),
            (b"\x16\x03\x01", 1),
            (b"PROXY TCP5 ", 10),
            (b"PROXY tcp4 ", 7),
            (b"\r\n\r\n\0\r\nQUIX", 12),
            (b"\r\nx", 3),
        ] {
            let seen = decide(bytes);
            assert_eq!(seen.1, Prefix::Absent, "{bytes:?}");
            assert!(seen.0 <= at, "{bytes:?}: {}", seen.0);
        }
        let mut version_3 = SIGNATURE.to_vec();
        version_3.push(0x31);
        assert_eq!(decide(&version_3), (13, Prefix::Absent));
        assert_eq!(detect(b""), Prefix::Undecided);
        assert_eq!(detect(b"PROX"), Prefix::Undecided);
    }

    #[test]
    fn a_line_without_end_is_given_up_after_107_bytes() {
        let line = format!("PROXY TCP4 {}", "1".repeat(200));
        assert_eq!(decide(line.as_bytes()), (MAX_V1_BYTES, Prefix::Absent));
    }

    #[test]
    fn writes_what_it_reads() {
        let v4 = "192.168.0.1:56324".parse().unwrap();
        let v4_to = "192.168.0.11:443".parse().unwrap();
        let v6 = "[2001:db8::1]:1".parse().unwrap();
        let line = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n";
        assert_eq!(encode(1, v4, v4_to), line);
        for version in [1, 2] {
            for (from, to) in [(v4, v4_to), (v6, v6), (v4, v6), (v6, v4)] {
                let bytes = encode(version, from, to);
                assert_eq!(detect(&bytes), Prefix::Header { len: bytes.len() });
            }
        }
        assert!(encode(0, v4, v4_to).is_empty());
    }

    #[test]
    fn version_2_bytes_are_those_of_the_specification() {
        let bytes =
            encode(2, "127.0.0.1:4660".parse().unwrap(), "127.0.0.2:22136".parse().unwrap());
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "0d0a0d0a000d0a515549540a2111000c7f0000017f00000212345678");
        let mapped = encode(1, "[::ffff:1.2.3.4]:5".parse().unwrap(), "9.9.9.9:6".parse().unwrap());
        assert_eq!(mapped, b"PROXY TCP4 1.2.3.4 9.9.9.9 5 6\r\n");
    }
}
