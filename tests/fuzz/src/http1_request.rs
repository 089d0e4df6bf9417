//! Target `http1_request`: the head of a request, split at any position. The result does not
//! depend on the pieces, and an accepted head has one meaning: every line is a field, every
//! line ends with CR LF, and at most one field frames the body.

use culvert::http1::error::HttpError;
use culvert::http1::framing::BodyFraming;
use culvert::http1::head::{HeadRanges, HeadReader, MAX_HEAD_BYTES, end};
use culvert::http1::line;

use crate::input::Dice;

/// Bytes used, method, target and body of a request.
type Seen = (usize, String, String, Result<BodyFraming, HttpError>);

/// The first byte decides the pieces.
pub fn check(data: &[u8]) {
    let (cuts, bytes) = data.split_first().unwrap_or((&0, &[]));
    let whole = collect(bytes, |_| bytes.len().max(1));
    let mut dice = Dice::new(u64::from(*cuts));
    let cut = collect(bytes, |_| 1 + dice.below(usize::from(*cuts)));
    match (&whole, &cut) {
        // Which of two errors is found first may depend on the pieces.
        (Err(_), Err(_)) => {}
        _ => assert_eq!(whole, cut, "another request when cut"),
    }
    for error in [whole.err(), cut.err()].into_iter().flatten() {
        assert!(error.sentence().ends_with('.') && (400..600).contains(&error.status()));
    }
    let start = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    if let Some(len) = end(&bytes[start..], 0) {
        accepted(&bytes[start..start + len]);
    }
}

/// Reads the first request.
fn collect(bytes: &[u8], mut size: impl FnMut(usize) -> usize) -> Result<Option<Seen>, HttpError> {
    let mut collector = HeadReader::new(MAX_HEAD_BYTES);
    let mut used = 0;
    while used < bytes.len() {
        let piece = &bytes[used..bytes.len().min(used + size(used))];
        if let Some(n) = collector.feed(piece)? {
            assert!(n <= piece.len());
            let request = collector.request().expect("a complete head");
            let (method, target) = (request.method().to_owned(), request.target().to_owned());
            return Ok(Some((used + n, method, target, request.body())));
        }
        assert!(collector.request().is_none(), "half a head is not a request");
        used += piece.len();
    }
    Ok(None)
}

/// Checks the conditions for an accepted head.
fn accepted(bytes: &[u8]) {
    let mut head = HeadRanges::default();
    let Ok(request) = head.request(bytes) else { return };
    let text: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
    let (last, lines) = text.split_last().expect("at least one line");
    assert!(last.is_empty(), "bytes behind the blank line");
    let mut fields = request.fields().iter();
    let mut framings = 0;
    for (n, line) in lines.iter().enumerate() {
        let line = line.strip_suffix(b"\r").expect("CR LF at the end of each line");
        assert!(!line.contains(&b'\r') && !line.contains(&0), "a bare CR or NUL");
        if n == 0 {
            let words: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
            assert_eq!(words[..2], [request.method().as_bytes(), request.target().as_bytes()]);
            assert_eq!(words.len(), 3);
        } else if n == lines.len() - 1 {
            assert!(line.is_empty());
        } else {
            let field = fields.next();
            assert_eq!(field.ok_or(HttpError::Incomplete), line::field(line), "another field");
            framings += usize::from(line::is_framing(field.expect("a field").0));
        }
    }
    assert!(fields.next().is_none());
    if request.body().is_ok() {
        assert!(framings <= 1, "two fields frame the body");
    }
}

/// Returns a request that is almost valid.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    let mut out = vec![dice.roll() as u8];
    out.extend(head(dice));
    out.extend(dice.bytes(10));
    out
}

/// Returns the head of a request.
pub fn head(dice: &mut Dice) -> Vec<u8> {
    let mut out = Vec::new();
    let method = dice.pick(&["GET", "GET", "POST", "HEAD", "PUT", "CONNECT", "G T", "PRI", ""]);
    let target = dice.pick(&["/", "/a?b=c", "http://x/", "*", "x:443", "/ /", "/\u{e9}", ""]);
    let version = dice.pick(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "http/1.1", ""]);
    let end = dice.pick(&["\r\n", "\r\n", "\r\n", "\r\n", "\n"]);
    out.extend(format!("{method} {target} {version}{end}").bytes());
    fields(dice, end, &mut out);
    out
}

/// Writes header lines up to the blank line.
pub fn fields(dice: &mut Dice, end: &str, out: &mut Vec<u8>) {
    const LINES: &[&str] = &[
        "Host: a.example",
        "Host: a.example:80",
        "Connection: keep-alive, Upgrade, x-hop",
        "Upgrade: websocket",
        "X-Hop: 1",
        "Accept: text/html",
        "Cookie: a=b; c=d",
        "Content-Length: 5",
        "content-length: 5",
        "Content-Length: 6",
        "Content-Length: 5, 5",
        "Content-Length : 5",
        "Content-Length: 9223372036854775808",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding\u{b}: chunked",
        "Set-Cookie: a=b",
        "Server : x",
        "no colon",
        " folded",
        "\tfolded: a",
        "a b: c",
        ": empty",
        "X: a\rb",
        "X: a\0b",
        "Trailer: Sum",
    ];
    for _ in 0..dice.pick(&[0, 1, 2, 3, 5, 40]) {
        out.extend(dice.pick(LINES).bytes());
        out.extend(end.bytes());
    }
    out.extend(dice.pick(&["\r\n", "\r\n", "\r\n", "\n", ""]).bytes());
}
