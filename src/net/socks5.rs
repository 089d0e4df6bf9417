//! Client side of SOCKS5 (RFC 1928, login RFC 1929). Sans-IO. A name is sent unchanged: the
//! proxy resolves it.

use std::net::IpAddr;

use crate::proto::secret::Secret;

const SOCKS_VERSION: u8 = 5;
const METHOD_NO_LOGIN: u8 = 0;
const METHOD_PASSWORD: u8 = 2;
const METHOD_NONE: u8 = 0xff;

/// Next action of the caller.
#[derive(Debug, PartialEq, Eq)]
pub enum SocksAction {
    /// Read further bytes.
    Read,
    /// Write these bytes, then read.
    Write(Vec<u8>),
    /// The tunnel is open.
    Done,
}

enum SocksStage {
    Method,
    Login,
    Connect,
}

/// One exchange with a proxy.
pub struct Socks5 {
    stage: SocksStage,
    pending: Vec<u8>,
    connect: Vec<u8>,
    login: Option<Vec<u8>>,
}

impl Socks5 {
    /// Returns the exchange for a tunnel to `host:port` and its first message. `None` if the
    /// host or the login is too long for the protocol.
    pub fn new(host: &str, port: u16, login: Option<&(String, Secret)>) -> Option<(Self, Vec<u8>)> {
        let mut connect = vec![SOCKS_VERSION, 1, 0];
        match host.parse() {
            Ok(IpAddr::V4(ip)) => {
                connect.push(1);
                connect.extend(ip.octets());
            }
            Ok(IpAddr::V6(ip)) => {
                connect.push(4);
                connect.extend(ip.octets());
            }
            Err(_) => {
                connect.push(3);
                connect.push(u8::try_from(host.len()).ok()?);
                connect.extend(host.bytes());
            }
        }
        connect.extend(port.to_be_bytes());
        let (login, hello) = match login {
            None => (None, vec![SOCKS_VERSION, 1, METHOD_NO_LOGIN]),
            Some((user, password)) => {
                let mut words = vec![1];
                for text in [user.as_str(), password.expose()] {
                    words.push(u8::try_from(text.len()).ok()?);
                    words.extend(text.bytes());
                }
                (Some(words), vec![SOCKS_VERSION, 2, METHOD_NO_LOGIN, METHOD_PASSWORD])
            }
        };
        let client = Socks5 { stage: SocksStage::Method, pending: Vec::new(), connect, login };
        Some((client, hello))
    }

    /// Processes received bytes. The error has the proxy's reason.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<SocksAction, String> {
        self.pending.extend_from_slice(bytes);
        let (expected, first) = match self.stage {
            SocksStage::Login => ("a version 1", 1),
            _ => ("a SOCKS version 5", SOCKS_VERSION),
        };
        match self.pending.first() {
            None => return Ok(SocksAction::Read),
            Some(got) if *got != first => {
                return Err(format!("it sent byte {got} in place of {expected}; check its port"));
            }
            Some(_) => {}
        }
        let len = match (&self.stage, &self.pending[..]) {
            (SocksStage::Method | SocksStage::Login, _) => 2,
            // A refusal is valid with any type of address after it.
            (SocksStage::Connect, [_, code, ..]) if *code != 0 => 2,
            (SocksStage::Connect, [_, _, _, 1, ..]) => 10,
            (SocksStage::Connect, [_, _, _, 3, n, ..]) => 7 + usize::from(*n),
            (SocksStage::Connect, [_, _, _, 4, ..]) => 22,
            (SocksStage::Connect, [_, _, _, kind, ..]) if *kind != 3 => {
                return Err(format!("it sent an address of unknown type {kind}"));
            }
            (SocksStage::Connect, _) => return Ok(SocksAction::Read),
        };
        if self.pending.len() < len {
            return Ok(SocksAction::Read);
        }
        // Reason for the index: at least two bytes in each step.
        let code = self.pending[1];
        // Neither the proxy nor the edge behind it sends first.
        if self.pending.len() > len && (code == 0 || !matches!(self.stage, SocksStage::Connect)) {
            return Err("it sent more than a response".to_owned());
        }
        self.pending.clear();
        match (&self.stage, code) {
            (SocksStage::Method, METHOD_NO_LOGIN) => Ok(self.send_connect()),
            (SocksStage::Method, METHOD_PASSWORD) if self.login.is_some() => {
                self.stage = SocksStage::Login;
                Ok(SocksAction::Write(self.login.take().unwrap_or_default()))
            }
            (SocksStage::Method, METHOD_NONE) => Err(match self.login {
                None => "it requires a login; put user:password@ in front of its host",
                Some(_) => "it accepts no login method of this agent",
            }
            .to_owned()),
            (SocksStage::Method, n) => {
                Err(format!("it chose login method {n}, which was not offered"))
            }
            (SocksStage::Login, 0) => Ok(self.send_connect()),
            (SocksStage::Login, _) => Err("it does not accept this user and password".to_owned()),
            (SocksStage::Connect, 0) => Ok(SocksAction::Done),
            (SocksStage::Connect, code) => {
                Err(format!("it refused the connection: {}", reason(code)))
            }
        }
    }

    fn send_connect(&mut self) -> SocksAction {
        self.stage = SocksStage::Connect;
        SocksAction::Write(std::mem::take(&mut self.connect))
    }
}

/// Returns the text of a reply code (RFC 1928 section 6).
fn reason(code: u8) -> String {
    match code {
        1 => "it failed (code 1)",
        2 => "its rules do not allow it (code 2)",
        3 => "no route to the edge's network (code 3)",
        4 => "no route to the edge, or its name is unknown there (code 4)",
        5 => "the edge refused the connection (code 5)",
        6 => "it took too long (code 6)",
        7 => "CONNECT is not supported (code 7)",
        8 => "this address type is not supported (code 8)",
        n => return format!("code {n}"),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Option<(String, Secret)> {
        Some(("user".to_owned(), Secret::new("pass")))
    }

    #[test]
    fn without_and_with_a_login() {
        let (mut client, hello) = Socks5::new("edge.x", 443, None).unwrap();
        assert_eq!(hello, [5, 1, 0]);
        assert_eq!(client.feed(&[5]), Ok(SocksAction::Read));
        let connect = b"\x05\x01\x00\x03\x06edge.x\x01\xbb".to_vec();
        assert_eq!(client.feed(&[0]), Ok(SocksAction::Write(connect)));
        for byte in [5, 0, 0, 3, 1, b'h', 0] {
            assert_eq!(client.feed(&[byte]), Ok(SocksAction::Read));
        }
        assert_eq!(client.feed(&[1]), Ok(SocksAction::Done));

        let (mut client, hello) = Socks5::new("::1", 1, login().as_ref()).unwrap();
        assert_eq!(hello, [5, 2, 0, 2]);
        assert_eq!(client.feed(&[5, 2]), Ok(SocksAction::Write(b"\x01\x04user\x04pass".to_vec())));
        let Ok(SocksAction::Write(connect)) = client.feed(&[1, 0]) else { panic!("no connect") };
        assert_eq!(connect[..4], [5, 1, 0, 4]);
        let answer = [&[5, 0, 0, 4][..], &[0; 18]].concat();
        assert_eq!(client.feed(&answer), Ok(SocksAction::Done));
        // A login that the proxy does not require is not sent.
        let (mut client, _) = Socks5::new("192.0.2.1", 1, login().as_ref()).unwrap();
        let connect = [5, 1, 0, 1, 192, 0, 2, 1, 0, 1].to_vec();
        assert_eq!(client.feed(&[5, 0]), Ok(SocksAction::Write(connect)));
    }

    #[test]
    fn what_proxies_refuse() {
        for (with, answers, what) in [
            (false, &[&[5, 0xff][..]][..], "user:password@"),
            (true, &[&[5, 0xff]], "no login method"),
            (false, &[&[5, 2]], "method 2"),
            (true, &[&[5, 1]], "method 1"),
            (true, &[&[5, 2], &[1, 1]], "does not accept this user"),
            (true, &[&[5, 2], &[5, 0]], "in place of a version 1"),
            (false, &[b"HTTP/1.1 400"], "byte 72"),
            (false, &[&[4, 0]], "byte 4"),
            (false, &[&[5, 0], &[5, 0, 0, 9, 0]], "unknown type 9"),
            (false, &[&[5, 0], &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0, 9]], "more than a response"),
            (false, &[&[5, 0, 5]], "more than a response"),
            (false, &[&[5, 0], &[5, 77]], "code 77"),
        ] {
            let login = login().filter(|_| with);
            let (mut client, _) = Socks5::new("e", 1, login.as_ref()).unwrap();
            let mut outcome = Ok(SocksAction::Read);
            for answer in answers {
                outcome = client.feed(answer);
            }
            let error = outcome.unwrap_err();
            assert!(error.contains(what) && !error.contains("pass\""), "{answers:?}: {error}");
        }
        for code in 1..=8 {
            let (mut client, _) = Socks5::new("e", 1, None).unwrap();
            client.feed(&[5, 0]).unwrap();
            let error = client.feed(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap_err();
            assert!(error.contains(&format!("code {code}")), "{error}");
        }
        assert!(Socks5::new(&"x".repeat(256), 1, None).is_none());
    }
}
