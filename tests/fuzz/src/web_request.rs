//! Target `web_request`: bytes of a client of the local API, split at any position. The result
//! does not depend on the pieces, a request is within its limits, and a request from a page of
//! another site never passes the guard.

use culvert::http1::head::{HttpRequest, MAX_AGENT_HEAD_BYTES};
use culvert::http1::receiver::ReadProgress;
use culvert::http1::text::percent_decoded;
use culvert::web::guard::Guard;
use culvert::web::http::{self, MAX_BODY, percent_encoded};

use crate::input::Dice;

/// Result of the bytes: how many were used, the end, method, target and body.
type Outcome = (usize, ReadProgress, Option<(String, String, Vec<u8>)>);

/// The first byte decides the pieces.
pub fn check(data: &[u8]) {
    let (cuts, bytes) = data.split_first().unwrap_or((&0, &[]));
    let whole = run(bytes, |_| bytes.len().max(1));
    let mut dice = Dice::new(u64::from(*cuts));
    let cut = run(bytes, |_| 1 + dice.below(usize::from(*cuts)));
    if let (Some(a), Some(b)) = (whole.1.refusal(), cut.1.refusal()) {
        assert_eq!(a, b, "another refusal when cut");
    } else {
        assert_eq!(whole, cut, "another request when cut");
    }
    if let Some((_, target, body)) = &whole.2 {
        assert!(target.len() <= MAX_AGENT_HEAD_BYTES && body.len() <= MAX_BODY);
        if let Some(text) = percent_decoded(target, false) {
            assert_eq!(percent_decoded(&percent_encoded(&text), false), Some(text));
        }
    }
}

fn run(bytes: &[u8], mut size: impl FnMut(usize) -> usize) -> Outcome {
    let mut receiver = http::receiver();
    let (mut used, mut last) = (0, ReadProgress::More);
    while used < bytes.len() && matches!(last, ReadProgress::More | ReadProgress::Continue) {
        let end = bytes.len().min(used + size(used));
        let (n, progress) = receiver.feed(&bytes[used..end]);
        assert!(n <= end - used);
        if matches!(progress, ReadProgress::More | ReadProgress::Continue) {
            assert_eq!(n, end - used, "it stopped without a reason");
            assert!(receiver.head().is_none(), "half a request is none");
        }
        (used, last) = (used + n, progress);
    }
    if last == ReadProgress::Continue {
        last = ReadProgress::More;
    }
    let request = receiver.head().map(|head| {
        judge(&head);
        (head.method().to_owned(), head.target().to_owned(), receiver.body().to_vec())
    });
    assert_eq!(request.is_some(), last == ReadProgress::Whole);
    (used, last, request)
}

/// Checks that an accepted request has a host of this machine and is not from another site.
fn judge(head: &HttpRequest<'_>) {
    let guard = Guard::new(&[], [127, 0, 0, 1].into());
    if guard.judge(head).is_err() {
        return;
    }
    let all = |name: &str| -> Vec<String> {
        let values = head.fields().values(name);
        values.map(|value| String::from_utf8_lossy(value).to_ascii_lowercase()).collect()
    };
    let hosts = all("host");
    assert!(hosts.len() <= 1);
    // A target that is a URL replaces the host.
    let authority = head.authority().map(str::to_ascii_lowercase);
    let Some(host) = authority.as_ref().or(hosts.first()) else { return };
    assert!(is_local(host), "{host}");
    if !matches!(head.method(), "GET" | "HEAD") {
        let origin = all("origin");
        let ours = |origin: &String| origin.split_once("://").is_some_and(|(_, from)| from == host);
        assert!(origin.first().is_none_or(ours), "{origin:?} at {host}");
        assert!(!all("sec-fetch-site").contains(&"cross-site".to_owned()));
    }
}

/// Returns whether the name is of this machine only: `localhost` and all names below it (RFC
/// 6761 6.3), and loopback addresses.
fn is_local(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let address: Result<std::net::IpAddr, _> = host.parse();
    host == "localhost"
        || host.ends_with(".localhost")
        || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Returns a request that is almost valid.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    let mut text = vec![dice.roll() as u8];
    let method = dice.pick(&["GET", "POST", "DELETE", "PUT", "HEAD", "G T"]);
    let target = dice.pick(&[
        "/",
        "/api/tunnels/a%20b",
        "/api/requests/http?limit=1",
        "*",
        "/%ff%",
        "http://localhost/",
    ]);
    let version = dice.pick(&["HTTP/1.1", "HTTP/1.0", "HTTP/2"]);
    text.extend(format!("{method} {target} {version}\r\n").bytes());
    for _ in 0..dice.below(5) {
        text.extend_from_slice(
            dice.pick(&[
                "Host: localhost:4040\r\n",
                "Host: evil.example\r\n",
                "Host: localhost.evil.example\r\n",
                "Host: [::1]\r\n",
                "Host: evil.localhost\r\n",
                "Host: localhost.\r\n",
                "Origin: http://localhost:4040\r\n",
                "Origin: http://evil.example\r\n",
                "Origin: null\r\n",
                "Sec-Fetch-Site: cross-site\r\n",
                "Sec-Fetch-Site: same-origin\r\n",
                "Content-Length: 5\r\n",
                "Content-Length: 99999999\r\n",
                "Transfer-Encoding: chunked\r\n",
                "Expect: 100-continue\r\n",
            ])
            .as_bytes(),
        );
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(
        dice.pick(&["", "hello", "5\r\nhello\r\n0\r\n\r\n", "3\r\nab"]).as_bytes(),
    );
    text.extend(dice.bytes(20));
    text
}
