//! CONNECT to an HTTP proxy: the request and the response (RFC 9110 section 9.3.6).
//! Sans-IO.

use super::url::bracketed;
use crate::http1::error::HttpError;
use crate::http1::head::ResponseHeadReader;
use crate::http1::status;
use crate::http1::text::printable;
use crate::proto::base64;
use crate::proto::secret::Secret;

/// Most bytes of the head of a response.
const MAX_HEAD: usize = 16 * 1024;

/// Returns the request for a tunnel to `host:port`. It is a secret because of its login.
pub fn request(host: &str, port: u16, login: Option<&(String, Secret)>) -> Secret {
    let target = format!("{}:{port}", bracketed(host));
    let mut text = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some((user, password)) = login {
        let plain = Secret::new(format!("{user}:{}", password.expose()));
        text.reserve(64 + plain.expose().len() * 2);
        text.push_str("Proxy-Authorization: Basic ");
        let encoded = Secret::new(base64::encode(plain.expose().as_bytes()));
        text.push_str(encoded.expose());
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    Secret::new(text)
}

/// Reader of a proxy's response.
#[derive(Debug)]
pub struct ConnectReader {
    head: ResponseHeadReader,
    login: bool,
}

impl ConnectReader {
    /// Returns a reader of the response to a request with or without a login.
    pub fn new(login: bool) -> Self {
        ConnectReader { head: ResponseHeadReader::new(MAX_HEAD), login }
    }

    /// Processes received bytes. Returns true if the tunnel is open, and false if more bytes
    /// are needed. The error is the proxy's reason.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<bool, String> {
        while let Some(used) = self.head.feed(bytes).map_err(|error| self.describe(error))? {
            bytes = &bytes[used..];
            let status = match self.head.response() {
                Ok(response) => response.line.status,
                Err(error) => return Err(self.describe(error)),
            };
            match status {
                // The edge does not send first.
                200..=299 if !bytes.is_empty() => {
                    return Err("it sent bytes behind its response to CONNECT".to_owned());
                }
                200..=299 => return Ok(true),
                _ if !status::is_interim(status) => return Err(self.refusal()),
                _ => self.head.clear(),
            }
        }
        Ok(false)
    }

    fn describe(&self, error: HttpError) -> String {
        let what = match error {
            HttpError::NotHttp | HttpError::StatusLine => {
                format!("not HTTP: '{}'", printable(self.head.bytes()))
            }
            _ => format!("invalid HTTP: {error}"),
        };
        format!("its response to CONNECT is {what}; check its port")
    }

    /// Returns why the proxy opens no tunnel.
    fn refusal(&mut self) -> String {
        let login = self.login;
        let response = match self.head.response() {
            Ok(response) => response,
            Err(error) => return self.describe(error),
        };
        let status = response.line.status;
        // Some proxies send 401 for a wrong password.
        if matches!(status, 401 | 407) {
            let offers: Vec<String> = response
                .fields
                .values("proxy-authenticate")
                .filter_map(|v| v.split(|b| matches!(b, b' ' | b'\t')).next())
                .map(|scheme| String::from_utf8_lossy(scheme).into_owned())
                .collect();
            let basic = offers.is_empty() || offers.iter().any(|o| o.eq_ignore_ascii_case("basic"));
            return match (basic, login) {
                (false, _) => format!(
                    "it requires a login by {} ({status}); only Basic is supported",
                    printable(offers.join(", ").as_bytes()),
                ),
                (true, false) => {
                    format!(
                        "it requires a login ({status}); put user:password@ in front of its host"
                    )
                }
                (true, true) => {
                    format!("it does not accept this user and password ({status})")
                }
            };
        }
        let hint = match status {
            403 | 405 => ": it does not allow a tunnel to this host and port",
            502..=504 => ": it cannot reach the edge",
            300..=399 => ": a login page of the network, perhaps",
            _ => "",
        };
        let reason = printable(response.line.reason);
        format!("it refused CONNECT with {status} {reason}{hint}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let plain = request("edge.example", 443, None);
        assert_eq!(
            plain.expose(),
            "CONNECT edge.example:443 HTTP/1.1\r\nHost: edge.example:443\r\n\r\n"
        );
        for (user, password, code) in
            [("a", "", "YTo="), ("Aladdin", "open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ==")]
        {
            let login = (user.to_owned(), Secret::new(password));
            let text = request("::1", 8443, Some(&login));
            let expected = format!(
                "CONNECT [::1]:8443 HTTP/1.1\r\nHost: [::1]:8443\r\n\
                 Proxy-Authorization: Basic {code}\r\n\r\n"
            );
            assert_eq!(text.expose(), expected);
        }
    }

    /// Reads a response in one piece and byte by byte. The results must be equal.
    fn read(answer: &[u8], login: bool) -> Result<bool, String> {
        let whole = ConnectReader::new(login).feed(answer);
        let mut reader = ConnectReader::new(login);
        let mut last = Ok(false);
        for byte in answer {
            if last != Ok(false) {
                break;
            }
            last = reader.feed(&[*byte]);
        }
        // One piece can contain bytes after the head, and more bytes of other protocols.
        let differs = answer.ends_with(b"x") || !answer.starts_with(b"HTTP/1.");
        assert!(whole == last || differs, "{whole:?} {last:?}");
        whole
    }

    #[test]
    fn answers() {
        let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(read(interim, false), Ok(true));
        assert_eq!(read(b"HTTP/1.0 200 Connection established\r\n\r\n", false), Ok(true));
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", false), Ok(true));
        for more in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nX: y\r\n"] {
            assert_eq!(read(more.as_bytes(), false), Ok(false));
        }
        for (answer, login, what) in [
            ("HTTP/1.1 200 OK\r\n\r\nx", false, "bytes behind its response"),
            (
                "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=x\r\n\r\n",
                false,
                "user:password@",
            ),
            ("HTTP/1.1 407 No\r\n\r\n", true, "does not accept this user"),
            ("HTTP/1.1 401 Unauthorized\r\n\r\n", true, "does not accept this user"),
            ("HTTP/1.1 407 No\r\nproxy-authenticate: NTLM\r\n\r\n", true, "login by NTLM"),
            ("HTTP/1.1 403 Forbidden\r\n\r\n", false, "403 Forbidden: it does not allow"),
            ("HTTP/1.1 502 Bad Gateway\r\n\r\n", false, "cannot reach the edge"),
            ("HTTP/1.1 302 Found\r\n\r\n", false, "login page"),
            ("SSH-2.0-x\r\n", false, "not HTTP: 'SSH-2.0-x'"),
            ("HTTP/1.1 99999\r\n\r\n", false, "not HTTP: 'HTTP/1.1 99999'"),
        ] {
            let error = read(answer.as_bytes(), login).unwrap_err();
            assert!(error.contains(what), "{answer}: {error}");
        }
    }
}
