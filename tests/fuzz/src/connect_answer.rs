//! Target `connect_answer`: the response of an HTTP proxy to CONNECT, split at any position. A
//! tunnel is open exactly after a complete head with a status of 2xx and no byte after it, and
//! every refusal has a cause without control characters.

use culvert::http1::head::end;
use culvert::net::http_connect::ConnectReader;

use crate::http1_request::fields;
use crate::input::Dice;

/// The first byte decides the pieces and whether a login was sent.
pub fn check(data: &[u8]) {
    let (choice, bytes) = data.split_first().unwrap_or((&0, &[]));
    let login = choice & 1 != 0;
    let mut dice = Dice::new(u64::from(*choice));
    let mut reader = ConnectReader::new(login);
    let mut used = 0;
    while used < bytes.len() {
        let start = used;
        used = bytes.len().min(used + 1 + dice.below(usize::from(*choice)));
        match reader.feed(&bytes[start..used]) {
            Ok(false) => {}
            Ok(true) => {
                // Interim responses may come first: the last head counts.
                let (mut rest, mut last) = (&bytes[..used], &bytes[..0]);
                while let Some(len) = end(rest, 0) {
                    (last, rest) = rest.split_at(len);
                }
                assert!(rest.is_empty(), "bytes behind the answer");
                let last = String::from_utf8_lossy(last);
                assert!(last.starts_with("HTTP/1."), "{last:?}");
                assert_eq!(last.split(' ').nth(1).map(|code| &code[..1]), Some("2"));
                return;
            }
            Err(why) => {
                assert!(why.len() > 10 && !why.chars().any(char::is_control), "{why:?}");
                return;
            }
        }
    }
}

/// Returns a response that is almost valid.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    let mut out = vec![dice.roll() as u8];
    let first = dice.pick(&[
        "HTTP/1.1 200 Connection established",
        "HTTP/1.0 200 OK",
        "HTTP/1.1 299",
        "HTTP/1.1 407 Proxy Authentication Required",
        "HTTP/1.1 403 Forbidden",
        "HTTP/1.1 502 Bad Gateway\u{1b}[0m",
        "HTTP/1.1 302 Found",
        "SSH-2.0-x",
    ]);
    let end = dice.pick(&["\r\n", "\r\n", "\n"]);
    out.extend(first.bytes());
    out.extend(end.bytes());
    if dice.below(3) == 0 {
        out.extend(
            dice.pick(&["Proxy-Authenticate: Basic realm=x", "Proxy-Authenticate: NTLM\u{7}"])
                .bytes(),
        );
        out.extend(end.bytes());
    }
    fields(dice, end, &mut out);
    if dice.below(4) == 0 {
        out.extend(dice.bytes(5));
    }
    out
}
