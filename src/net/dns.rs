//! DNS messages: a query for the addresses of a name, and the reply.
//!
//! Sans-IO. [`super::resolver`] decides which server is queried when. A reply is accepted only
//! as far as it matches the query, and every loop over it is bounded. A forged reply costs one
//! attempt, because the edge proves its name by TLS.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Maximum number of bytes of a reply that are read.
pub const MAX_REPLY_BYTES: usize = 4_096;
/// Maximum number of addresses from one reply.
const MAX_ADDRESSES: usize = 16;
/// Maximum number of records of a reply that are read.
const MAX_RECORDS: usize = 64;
/// Maximum number of aliases in a chain.
const MAX_ALIASES: usize = 16;
/// Maximum length of a name in a message (RFC 1035 section 3.1).
const MAX_NAME_BYTES: usize = 255;

const HEADER_BYTES: usize = 12;
const TYPE_CNAME: u16 = 5;
const CLASS_IN: u16 = 1;

/// Kind of the requested records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

impl RecordType {
    const fn number(self) -> u16 {
        match self {
            RecordType::A => 1,
            RecordType::Aaaa => 28,
        }
    }
}

/// A query for one kind of records.
#[derive(Clone, Debug)]
pub struct Query {
    kind: RecordType,
    message: Vec<u8>,
}

/// Reply of a resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsReply {
    /// Addresses of the name, at least one.
    Addresses(Vec<IpAddr>),
    /// The name does not exist (NXDOMAIN).
    NxDomain,
    /// The name exists, but has no address of this kind.
    NoData,
    /// Too large for a datagram: the query is repeated over TCP.
    Truncated,
    /// The resolver failed or refused (RFC 1035 section 4.1.1).
    Failed(u8),
}

/// Reason why a message is not a reply to the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// A reply to another query: late, or forged.
    NotOurs,
    /// A reply to this query, but malformed.
    Malformed,
}

impl Query {
    /// Returns a query for `name`, which may end with a dot. `None` if it is not a valid name
    /// in the DNS.
    pub fn new(id: u16, name: &str, kind: RecordType) -> Option<Self> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let mut message = Vec::with_capacity(HEADER_BYTES + name.len() + 6);
        message.extend_from_slice(&id.to_be_bytes());
        // Recursion desired; one question.
        message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.split('.') {
            let len = u8::try_from(label.len()).ok().filter(|n| (1..=63).contains(n))?;
            if !label.bytes().all(|b| b.is_ascii_graphic()) {
                return None;
            }
            message.push(len);
            message.extend_from_slice(label.as_bytes());
        }
        message.push(0);
        if message.len() - HEADER_BYTES > MAX_NAME_BYTES {
            return None;
        }
        message.extend_from_slice(&kind.number().to_be_bytes());
        message.extend_from_slice(&CLASS_IN.to_be_bytes());
        Some(Query { kind, message })
    }

    /// Returns queries for both kinds of addresses. `seed`: a random number for their ids.
    /// `None` if `name` is not a valid name in the DNS.
    pub fn pair(name: &str, seed: u64) -> Option<[Self; 2]> {
        // Two different ids.
        let (a, b) = (seed as u16, (seed >> 16) as u16);
        let b = if a == b { !b } else { b };
        Some([Query::new(a, name, RecordType::A)?, Query::new(b, name, RecordType::Aaaa)?])
    }

    /// Returns the message for a datagram.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Returns the message for a stream, with its length in front (RFC 1035 section 4.2.2).
    pub fn tcp_message(&self) -> Vec<u8> {
        // A query is shorter than 300 bytes.
        let mut bytes = (self.message.len() as u16).to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.message);
        bytes
    }

    /// Reads a message as a reply to this query.
    pub fn read(&self, reply: &[u8]) -> Result<DnsReply, ReplyError> {
        let reply = &reply[..reply.len().min(MAX_REPLY_BYTES)];
        let question = &self.message[HEADER_BYTES..];
        let (header, rest) =
            reply.split_first_chunk::<HEADER_BYTES>().ok_or(ReplyError::NotOurs)?;
        let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        // A reply (QR) with the same opcode (0) to one question.
        let ours = header[..2] == self.message[..2] && header[2] & 0xf8 == 0x80 && count(4) == 1;
        // Case does not matter in a name. Type and class are not letters.
        let asked = rest.get(..question.len()).ok_or(ReplyError::NotOurs)?;
        if !ours || !asked.eq_ignore_ascii_case(question) {
            return Err(ReplyError::NotOurs);
        }
        if header[2] & 2 != 0 {
            return Ok(DnsReply::Truncated);
        }
        match header[3] & 15 {
            0 => {}
            3 => return Ok(DnsReply::NxDomain),
            code => return Ok(DnsReply::Failed(code)),
        }
        let records = records(reply, HEADER_BYTES + question.len(), usize::from(count(6)))?;
        let mut owner = DomainName::read(reply, HEADER_BYTES).ok_or(ReplyError::Malformed)?.0;
        for _ in 0..=MAX_ALIASES {
            let mut addresses = Vec::new();
            let mut alias = None;
            for record in records.iter().filter(|r| r.owner == owner) {
                let data = &reply[record.data.0..record.data.1];
                if record.kind == TYPE_CNAME {
                    alias = Some(
                        DomainName::read(reply, record.data.0).ok_or(ReplyError::Malformed)?.0,
                    );
                } else if record.kind == self.kind.number() && addresses.len() < MAX_ADDRESSES {
                    addresses.push(address(self.kind, data).ok_or(ReplyError::Malformed)?);
                }
            }
            if !addresses.is_empty() {
                return Ok(DnsReply::Addresses(addresses));
            }
            match alias {
                Some(next) => owner = next,
                None => return Ok(DnsReply::NoData),
            }
        }
        // The aliases form a circle.
        Err(ReplyError::Malformed)
    }
}

fn address(kind: RecordType, data: &[u8]) -> Option<IpAddr> {
    Some(match kind {
        RecordType::A => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?)),
        RecordType::Aaaa => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?)),
    })
}

struct ResourceRecord {
    owner: DomainName,
    kind: u16,
    /// Start and end of its data.
    data: (usize, usize),
}

/// Returns the records of class Internet among the first `count`, beginning at `at`.
fn records(reply: &[u8], mut at: usize, count: usize) -> Result<Vec<ResourceRecord>, ReplyError> {
    let mut found = Vec::new();
    for _ in 0..count.min(MAX_RECORDS) {
        let (owner, end) = DomainName::read(reply, at).ok_or(ReplyError::Malformed)?;
        let rest = reply.get(end..).ok_or(ReplyError::Malformed)?;
        // Type, class, time to live, length.
        let (fixed, _) = rest.split_first_chunk::<10>().ok_or(ReplyError::Malformed)?;
        let data = end + 10;
        at = data + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        if at > reply.len() {
            return Err(ReplyError::Malformed);
        }
        if u16::from_be_bytes([fixed[2], fixed[3]]) == CLASS_IN {
            let kind = u16::from_be_bytes([fixed[0], fixed[1]]);
            found.push(ResourceRecord { owner, kind, data: (data, at) });
        }
    }
    Ok(found)
}

/// A name as labels with their lengths, in lower case and uncompressed.
#[derive(PartialEq, Eq)]
struct DomainName(Vec<u8>);

impl DomainName {
    /// Reads a name. Also returns the position after it. `None` if it is malformed.
    fn read(message: &[u8], mut at: usize) -> Option<(DomainName, usize)> {
        let mut name = Vec::new();
        let mut end = None;
        // A pointer must lead to an earlier position, so the chain ends.
        let mut before = at;
        loop {
            let len = usize::from(*message.get(at)?);
            match len {
                0 => {
                    name.push(0);
                    return Some((DomainName(name), end.unwrap_or(at + 1)));
                }
                1..=63 => {
                    let label = message.get(at..at + 1 + len)?;
                    // A length is below 64, so it is never a letter.
                    name.extend(label.iter().map(u8::to_ascii_lowercase));
                    at += 1 + len;
                }
                192..=255 => {
                    let target = (len & 63) << 8 | usize::from(*message.get(at + 1)?);
                    if target >= before {
                        return None;
                    }
                    end = end.or(Some(at + 2));
                    before = target;
                    at = target;
                }
                _ => return None,
            }
            if name.len() > MAX_NAME_BYTES {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(kind: RecordType) -> Query {
        Query::new(0x1234, "Edge.example", kind).unwrap()
    }

    /// Returns a reply to `query` with these records.
    fn reply(query: &Query, flags: u16, count: u16, records: &[u8]) -> Vec<u8> {
        let mut bytes = query.message().to_vec();
        bytes[2..4].copy_from_slice(&flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&count.to_be_bytes());
        bytes.extend_from_slice(records);
        bytes
    }

    fn record(owner: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
        let len = (data.len() as u16).to_be_bytes();
        [owner, &kind.to_be_bytes(), &[0, 1, 0, 0, 0, 60], &len, data].concat()
    }

    /// A pointer to the name of the query.
    const ASKED: &[u8] = &[0xc0, 12];

    #[test]
    fn addresses_of_both_kinds() {
        let q = query(RecordType::A);
        let two = [record(ASKED, 1, &[192, 0, 2, 1]), record(ASKED, 1, &[192, 0, 2, 2])].concat();
        let expected = ["192.0.2.1", "192.0.2.2"].map(|a| a.parse().unwrap()).to_vec();
        assert_eq!(q.read(&reply(&q, 0x8180, 2, &two)), Ok(DnsReply::Addresses(expected)));
        let q = query(RecordType::Aaaa);
        let one = record(b"\x04eDGE\x07EXAMPLE\0", 28, &[1; 16]);
        let expected = vec![IpAddr::from([1; 16])];
        assert_eq!(q.read(&reply(&q, 0x8180, 1, &one)), Ok(DnsReply::Addresses(expected)));
    }

    #[test]
    fn aliases_are_followed_in_any_order_and_only_they_are() {
        let q = query(RecordType::A);
        let records = [
            record(b"\x01c\0", 1, &[192, 0, 2, 9]),
            record(b"\x01b\0", TYPE_CNAME, b"\x01c\0"),
            record(b"\x05other\0", 1, &[192, 0, 2, 66]),
            record(ASKED, TYPE_CNAME, b"\x01b\0"),
        ]
        .concat();
        let found = q.read(&reply(&q, 0x8180, 4, &records));
        assert_eq!(found, Ok(DnsReply::Addresses(vec!["192.0.2.9".parse().unwrap()])));
        let foreign = record(b"\x05other\0", 1, &[192, 0, 2, 66]);
        assert_eq!(q.read(&reply(&q, 0x8180, 1, &foreign)), Ok(DnsReply::NoData));
        let circle =
            [record(ASKED, TYPE_CNAME, b"\x01b\0"), record(b"\x01b\0", TYPE_CNAME, ASKED)].concat();
        assert_eq!(q.read(&reply(&q, 0x8180, 2, &circle)), Err(ReplyError::Malformed));
    }

    #[test]
    fn what_resolvers_say_instead() {
        let q = query(RecordType::A);
        for (flags, said) in [
            (0x8180, DnsReply::NoData),
            (0x8183, DnsReply::NxDomain),
            (0x8182, DnsReply::Failed(2)),
            (0x8185, DnsReply::Failed(5)),
            (0x8380, DnsReply::Truncated),
        ] {
            assert_eq!(q.read(&reply(&q, flags, 0, &[])), Ok(said), "{flags:x}");
        }
    }

    #[test]
    fn answers_to_other_questions_are_not_ours() {
        let q = query(RecordType::A);
        let good = reply(&q, 0x8180, 1, &record(ASKED, 1, &[192, 0, 2, 1]));
        // Id, QR and opcode, number of questions, name, type, class.
        for at in [0, 1, 2, 4, 5, 12, 13, 20, 25, 26, 27, 28, 29] {
            let mut bad = good.clone();
            bad[at] ^= 0x90;
            assert_eq!(q.read(&bad), Err(ReplyError::NotOurs), "byte {at}");
        }
        for len in 0..30 {
            assert_eq!(q.read(&good[..len]), Err(ReplyError::NotOurs), "{len} bytes");
        }
        let mut question = good.clone();
        question[2] &= 0x7f;
        assert_eq!(q.read(&question), Err(ReplyError::NotOurs));
    }

    #[test]
    fn broken_answers_are_refused() {
        let q = query(RecordType::A);
        let good = reply(&q, 0x8180, 1, &record(ASKED, 1, &[192, 0, 2, 1]));
        for len in 30..good.len() {
            assert_eq!(q.read(&good[..len]), Err(ReplyError::Malformed), "{len} bytes");
        }
        for records in [
            // A pointer to itself, forward, and two in a circle.
            record(&[0xc0, 30], 1, &[0; 4]),
            record(&[0xc0, 60], 1, &[0; 4]),
            record(&[1, b'a', 0xc0, 30], 1, &[0; 4]),
            // Lengths that do not exist.
            record(&[0x40, 0], 1, &[0; 4]),
            record(&[0x80, 0], 1, &[0; 4]),
            // Addresses of a wrong size.
            record(ASKED, 1, &[0; 16]),
            record(ASKED, 1, &[]),
            // An alias with an invalid name.
            record(ASKED, TYPE_CNAME, &[63]),
            // A name that is too long.
            record(&[&[63; 64].repeat(5)[..], &[0]].concat(), 1, &[0; 4]),
        ] {
            assert_eq!(q.read(&reply(&q, 0x8180, 1, &records)), Err(ReplyError::Malformed));
        }
    }

    #[test]
    fn names_that_cannot_be() {
        let long = "a.".repeat(128);
        let label = "a".repeat(64);
        for name in ["", ".", "a..b", ".a", "a b", "é", &long, &label] {
            assert!(Query::new(1, name, RecordType::A).is_none(), "{name}");
        }
        assert!(Query::new(1, "a.b.", RecordType::A).is_some());
    }
}
