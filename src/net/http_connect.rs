//! CONNECT to an HTTP proxy: the request and the response (RFC 9110 section 9.3.6).
//! Sans-IO.

use super::http_message::{ResponseHead, bracketed};
use crate::http1::text::printable;
use crate::proto::base64;
use crate::proto::secret::Secret;

/// What to send for a tunnel to `host:port`. It is a secret for its login.
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

/// Reads the answer. `true`: the tunnel stands. `false`: more is to come. The error
/// says what the proxy said. `login`: one was sent.
pub fn read(bytes: &[u8], login: bool) -> Result<bool, String> {
    let head = match ResponseHead::parse(bytes) {
        Ok(Some(head)) => head,
        Ok(None) => return Ok(false),
        Err(e) => return Err(format!("its answer to CONNECT is {e}: is this its proxy port?")),
    };
    match head.status {
        // The edge does not speak first.
        200..=299 if head.len < bytes.len() => {
            Err("it sent bytes of its own behind its answer to CONNECT".to_owned())
        }
        200..=299 => Ok(true),
        // 401 is what some proxies say of a wrong password.
        401 | 407 => {
            let offers: Vec<&str> = head
                .values("proxy-authenticate")
                .filter_map(|v| v.split_whitespace().next())
                .collect();
            let basic = offers.is_empty() || offers.iter().any(|o| o.eq_ignore_ascii_case("basic"));
            Err(match (basic, login) {
                (false, _) => format!(
                    "it wants a login by {} ({}), and only Basic is spoken here",
                    printable(offers.join(", ").as_bytes()),
                    head.status
                ),
                (true, false) => format!(
                    "it wants a login ({}): put user:password@ in front of its host",
                    head.status
                ),
                (true, true) => {
                    format!("it does not accept this user and password ({})", head.status)
                }
            })
        }
        status => {
            let hint = match status {
                403 | 405 => ": it does not allow a tunnel to this host and port",
                502..=504 => ": it cannot reach the edge",
                300..=399 => ": a login page of the network, perhaps",
                _ => "",
            };
            Err(format!("it answered CONNECT with {status} {}{hint}", head.reason))
        }
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

    #[test]
    fn answers() {
        assert_eq!(read(b"HTTP/1.0 200 Connection established\r\n\r\n", false), Ok(true));
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", false), Ok(true));
        for more in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nX: y\r\n"] {
            assert_eq!(read(more.as_bytes(), false), Ok(false));
        }
        for (answer, login, what) in [
            ("HTTP/1.1 200 OK\r\n\r\nx", false, "bytes of its own"),
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
            ("HTTP/1.1 99999\r\n\r\n", false, "no HTTP status line"),
        ] {
            let error = read(answer.as_bytes(), login).unwrap_err();
            assert!(error.contains(what), "{answer}: {error}");
        }
    }
}
