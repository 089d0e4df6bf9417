//! Server name in a TLS ClientHello (RFC 8446, 4.1.2; RFC 6066, 3). The bytes are passed on
//! unchanged.

/// Maximum length of a ClientHello, record headers included.
pub const MAX_HELLO_BYTES: usize = 64 * 1024;

/// Result of reading the first bytes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// More bytes are needed.
    Incomplete,
    /// A ClientHello for this host, lower case.
    ServerName(String),
    /// A ClientHello without a name.
    NoServerName,
    /// Not TLS.
    NotTls,
}

/// Reads the ClientHello at the start of `bytes`.
pub fn read(bytes: &[u8]) -> Hello {
    let mut message = Vec::new();
    let mut at = 0;
    loop {
        // One record: type 22, version 3.x, length.
        let header = &bytes[at..bytes.len().min(at + 5)];
        let starts_right =
            header.first().is_none_or(|&b| b == 22) && header.get(1).is_none_or(|&b| b == 3);
        if !starts_right {
            return Hello::NotTls;
        }
        let [_, _, _, hi, lo] = *header else { return Hello::Incomplete };
        let len = usize::from(u16::from_be_bytes([hi, lo]));
        if len == 0 || len > 16_384 {
            return Hello::NotTls;
        }
        let body = &bytes[at + 5..bytes.len().min(at + 5 + len)];
        message.extend_from_slice(body);
        match parse(&message) {
            Some(hello) => return hello,
            None if message.len() > MAX_HELLO_BYTES => return Hello::NotTls,
            None if body.len() < len => return Hello::Incomplete,
            None => at += 5 + len,
        }
    }
}

/// Reads the handshake message. `None` while it is incomplete.
fn parse(message: &[u8]) -> Option<Hello> {
    let (&kind, rest) = message.split_first()?;
    if kind != 1 {
        return Some(Hello::NotTls);
    }
    let len = rest.get(..3)?;
    let len = usize::from(len[0]) << 16 | usize::from(len[1]) << 8 | usize::from(len[2]);
    if len > MAX_HELLO_BYTES {
        return Some(Hello::NotTls);
    }
    let body = rest[3..].get(..len)?;
    Some(name(body).unwrap_or(Hello::NotTls))
}

/// Finds the name in a complete ClientHello. `None` if it is malformed.
fn name(body: &[u8]) -> Option<Hello> {
    let mut r = HelloReader(body);
    r.take(2 + 32)?;
    r.vec8()?;
    r.vec16()?;
    r.vec8()?;
    if r.0.is_empty() {
        return Some(Hello::NoServerName);
    }
    let mut extensions = HelloReader(r.vec16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.vec16()?;
        if kind != 0 {
            continue;
        }
        let mut names = HelloReader(HelloReader(data).vec16()?);
        while !names.0.is_empty() {
            let kind = names.take(1)?;
            let host = names.vec16()?;
            if kind == [0] {
                let host = std::str::from_utf8(host).ok()?.to_ascii_lowercase();
                return Some(Hello::ServerName(host.trim_end_matches('.').to_owned()));
            }
        }
    }
    Some(Hello::NoServerName)
}

struct HelloReader<'a>(&'a [u8]);

impl<'a> HelloReader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    fn vec8(&mut self) -> Option<&'a [u8]> {
        let n = self.take(1)?[0];
        self.take(usize::from(n))
    }

    fn vec16(&mut self) -> Option<&'a [u8]> {
        let n = self.u16()?;
        self.take(usize::from(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(name: Option<&str>) -> Vec<u8> {
        let mut ext = vec![0, 23, 0, 0];
        if let Some(name) = name {
            let n = u16::try_from(name.len()).unwrap();
            ext.extend_from_slice(&[0, 0]);
            ext.extend_from_slice(&(n + 5).to_be_bytes());
            ext.extend_from_slice(&(n + 3).to_be_bytes());
            ext.push(0);
            ext.extend_from_slice(&n.to_be_bytes());
            ext.extend_from_slice(name.as_bytes());
        }
        let mut body = vec![3, 3];
        body.extend_from_slice(&[7; 32]);
        body.extend_from_slice(&[0, 0, 2, 0x13, 1, 1, 0]);
        body.extend_from_slice(&u16::try_from(ext.len()).unwrap().to_be_bytes());
        body.extend_from_slice(&ext);
        let mut message = vec![1, 0];
        message.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        message.extend_from_slice(&body);
        message
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for part in message.chunks(size) {
            out.extend_from_slice(&[22, 3, 1]);
            out.extend_from_slice(&u16::try_from(part.len()).unwrap().to_be_bytes());
            out.extend_from_slice(part);
        }
        out
    }

    #[test]
    fn the_name_is_found_however_it_is_cut() {
        let message = hello(Some("A.Example."));
        for size in [1, 7, 50, 4096] {
            let bytes = records(&message, size);
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), Hello::Incomplete, "{size} {cut}");
            }
            assert_eq!(read(&bytes), Hello::ServerName("a.example".to_owned()));
        }
    }

    #[test]
    fn nameless_and_foreign_bytes() {
        assert_eq!(read(&records(&hello(None), 4096)), Hello::NoServerName);
        assert_eq!(read(b"GET / HTTP/1.1\r\n"), Hello::NotTls);
        assert_eq!(read(&[22, 3, 1, 0, 0]), Hello::NotTls);
        assert_eq!(read(&[22, 3, 1, 0xff, 0xff]), Hello::NotTls);
        assert_eq!(read(&records(&[2, 0, 0, 0], 9)), Hello::NotTls);
        assert_eq!(read(&records(&[1, 0xff, 0xff, 0xff], 9)), Hello::NotTls);
        assert_eq!(read(&records(&[1, 0, 0, 2, 3, 3], 9)), Hello::NotTls);
    }
}
