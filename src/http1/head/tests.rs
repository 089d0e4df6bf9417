//! Valid heads, invalid ones, and harmless mistakes; in pieces; by mutation.

use super::*;
use crate::http1::mutator::Mutator;

const GET: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: x\r\nAccept: text/html;q=1, */*\r\n\r\n";

/// Returns the fields of a response as text, or the error.
fn response(text: &[u8], strictness: Strictness) -> Result<String, HttpError> {
    let mut head = HeadRanges::default();
    let response = head.response(text, strictness)?;
    let mut out = response.line.status.to_string();
    for (name, value) in response.fields.iter() {
        let utf8 = |bytes| String::from_utf8_lossy(bytes).into_owned();
        out += &format!("|{}={}", utf8(name), utf8(value));
    }
    Ok(out)
}

fn request_error(text: &[u8]) -> Option<HttpError> {
    HeadRanges::default().request(text).err()
}

#[test]
fn the_end_is_found_in_any_pieces() {
    let text = b"GET / HTTP/1.1\r\nA: b\r\n\r\nbody";
    for cut in 0..text.len() {
        let first = end(&text[..cut], 0);
        assert_eq!(first.or_else(|| end(text, cut)), Some(24), "cut at {cut}");
    }
    assert_eq!(end(b"A\n\nrest", 0), Some(3));
    assert_eq!(end(b"A\n\r\nrest", 0), Some(4));
    assert_eq!(end(b"A\r\n\r", 0), None);
    assert_eq!(end(b"A\r\n\rB\r\n", 0), None);
    assert_eq!(end(b"", 0), None);
}

#[test]
fn a_request_is_ranges_over_its_bytes() {
    let mut head = HeadRanges::default();
    let request = head.request(GET).unwrap();
    assert_eq!((request.method(), request.target()), ("GET", "/a?b"));
    assert_eq!(request.text("HOST"), Some("x"));
    assert!(request.fields().lists("accept", "*/*") && !request.fields().lists("accept", "x"));
    assert!(request.accepts_html() && request.keep_alive() && !request.expects_continue());
    assert_eq!(request.fields().iter().count(), 2);
    assert_eq!(request.body(), Ok(BodyFraming::None));
    // The memory is reused. No data of the earlier request is left.
    let text = b"POST * HTTP/1.0\r\nConnection: x, Keep-Alive\r\nContent-Length: 5\r\n\r\n";
    let request = head.request(text).unwrap();
    assert!(request.keep_alive() && request.field("host").is_none());
    assert_eq!(request.body(), Ok(BodyFraming::Length(5)));
    let text = b"GET HTTP://A.example:1?q HTTP/1.1\r\nExpect: 100-Continue\r\n\r\n";
    let request = head.request(text).unwrap();
    assert_eq!((request.authority(), request.path()), (Some("A.example:1"), "/"));
    assert!(request.expects_continue());
}

#[test]
fn a_request_that_two_readers_could_understand_in_two_ways_is_refused() {
    for (text, error) in [
        (&b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..], HttpError::BareLf),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", HttpError::BareLf),
        (b"GET / HTTP/1.1\r\nHost: a \t\nB: c\r\n\r\n", HttpError::BareLf),
        (b"GET / HTTP/1.1\r\nHost:\nB: c\r\n\r\n", HttpError::BareLf),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", HttpError::BareLf),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", HttpError::BlankBeforeColon),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", HttpError::FoldedField),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", HttpError::FoldedField),
        (b"GET / HTTP/1.1\r\nHost\r\n\r\n", HttpError::MissingColon),
        (b"GET / HTTP/1.1\r\n: a\r\n\r\n", HttpError::FieldName),
        (b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", HttpError::ControlCharacter),
        (b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", HttpError::ControlCharacter),
        (b"GET / HTTP/1.1\r\nA: b\r\r\n\r\n", HttpError::ControlCharacter),
        (b"GET / HTTP/1.1\r\nA\xe9: b\r\n\r\n", HttpError::FieldName),
        (b"GET / HTTP/1.1\r\nA: b\r\n", HttpError::Incomplete),
        (b"GET /\r\r\nA: b\r\n\r\n", HttpError::RequestLine),
        (b"GET /\xff HTTP/1.1\r\n\r\n", HttpError::Target),
        (b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", HttpError::LengthInvalid),
        (b"PRI * HTTP/2.0\r\n\r\n", HttpError::Http2Preface),
        (b"\x16\x03\x01\x02\x00\n\n", HttpError::TlsHandshake),
    ] {
        let shown = String::from_utf8_lossy(text).into_owned();
        assert_eq!(request_error(text), Some(error), "{shown:?}");
    }
}

#[test]
fn the_size_of_a_head_is_bounded() {
    let lines = |n: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(n));
    for n in [FEW_FIELDS, FEW_FIELDS + 1, MAX_FIELDS] {
        let text = lines(n);
        let mut head = HeadRanges::default();
        let request = head.request(text.as_bytes()).unwrap();
        assert_eq!(request.fields().values("a").filter(|value| *value == b"b").count(), n);
    }
    assert_eq!(request_error(lines(MAX_FIELDS + 1).as_bytes()), Some(HttpError::TooManyFields));
    let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(MAX_HEAD_BYTES));
    assert_eq!(request_error(long.as_bytes()), Some(HttpError::HeadTooLarge));
    let folded = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A:\r\n b\r\n".repeat(MAX_FIELDS + 1));
    assert_eq!(response(folded.as_bytes(), Strictness::Lenient), Err(HttpError::TooManyFields));
}

#[test]
fn a_response_with_harmless_mistakes_is_read() {
    for (text, strict, lenient) in [
        (&b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"[..], None, "200|A=b"),
        (b"HTTP/1.0 404\r\n\r\n", None, "404"),
        (b"HTTP/1.0 200 OK\nA: b\n\n", Some(HttpError::BareLf), "200|A=b"),
        (b"HTTP/1.1 200 OK\r\nA: b\n\r\n", Some(HttpError::BareLf), "200|A=b"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\tc\r\n\r\n", Some(HttpError::FoldedField), "200|A=b c"),
        (b"HTTP/1.1 200 OK\r\nx\r\nA: b\r\n\r\n", Some(HttpError::MissingColon), "200|A=b"),
        (
            b"HTTP/1.1 200 OK\r\nServer : x\r\n\r\n",
            Some(HttpError::BlankBeforeColon),
            "200|Server=x",
        ),
        (b"HTTP/1.1 200 OK\r\nA b: c\r\nD: e\r\n\r\n", Some(HttpError::FieldName), "200|D=e"),
        (b"HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n", Some(HttpError::ControlCharacter), "200|A=b"),
        (b"HTTP/1.1 200 O\x01K\r\nA: b\r\n\r\n", Some(HttpError::ControlCharacter), "200|A=b"),
    ] {
        let shown = String::from_utf8_lossy(text).into_owned();
        assert_eq!(response(text, Strictness::Lenient).as_deref(), Ok(lenient), "{shown:?}");
        assert_eq!(response(text, Strictness::Strict).err(), strict, "{shown:?}");
    }
}

#[test]
fn a_response_that_could_smuggle_is_refused() {
    for (fields, error) in [
        ("Content-Length: 5\r\nContent-Length: 6\r\n", HttpError::LengthsDiffer),
        ("Content-Length: 5\rA\r\n", HttpError::HiddenFraming),
        ("Content-Length: 5\0\r\n", HttpError::HiddenFraming),
        ("Content-Length:\r\n 5\r\n", HttpError::HiddenFraming),
        ("Content-Length : 5\r\n", HttpError::HiddenFraming),
        ("Transfer-Encoding\u{b}: chunked\r\n", HttpError::HiddenFraming),
        ("Transfer-Encoding: chunked, gzip\r\n", HttpError::ChunkedNotLast),
        ("Transfer-Encoding: xchunked\r\n", HttpError::CodingInvalid),
        ("Content-Length: 5, 5\r\n", HttpError::LengthInvalid),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        assert_eq!(response(text.as_bytes(), Strictness::Lenient), Err(error), "{fields:?}");
    }
    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut head = HeadRanges::default();
    let read = head.response(text, Strictness::Lenient).unwrap();
    assert_eq!(read.body(RequestMethod::Other), Err(HttpError::LengthAndCoding));
    for (text, error) in [
        (&b"SSH-2.0-x\r\n\r\n"[..], HttpError::NotHttp),
        (b"HTTP/2 200\r\n\r\n", HttpError::NotHttp),
        (b"HTTP/1.1 twohundred\r\n\r\n", HttpError::StatusLine),
    ] {
        assert_eq!(response(text, Strictness::Lenient), Err(error));
    }
}

#[test]
fn a_collector_reads_the_same_head_from_any_pieces() {
    for cut in 0..GET.len() {
        let mut collector = HeadReader::new(MAX_HEAD_BYTES);
        assert_eq!(collector.feed(&GET[..cut]), Ok(None));
        assert!(collector.request().is_none());
        let rest = [&GET[cut..], b"next"].concat();
        assert_eq!(collector.feed(&rest), Ok(Some(GET.len() - cut)), "cut at {cut}");
        let request = collector.request().unwrap();
        assert_eq!((request.method(), request.target()), ("GET", "/a?b"));
        assert_eq!(request.text("host"), Some("x"));
    }
    let mut collector = HeadReader::new(MAX_HEAD_BYTES);
    assert_eq!(collector.feed(b"\r\n"), Ok(None));
    assert!(!collector.started());
    assert_eq!(collector.feed(b"\r\n\nGET / HTTP/1.0\r\nA: b\r\n\r\nrest"), Ok(Some(27)));
    assert_eq!(collector.request().unwrap().version(), HttpVersion::Http10);
    collector.clear();
    assert!(!collector.started() && collector.request().is_none());
    assert_eq!(collector.feed(GET), Ok(Some(GET.len())));
}

#[test]
fn a_collector_is_bounded() {
    let mut collector = HeadReader::new(100);
    let error = (0..100).find_map(|_| collector.feed(b"GET / HTTP/1.1\r\nX: y\r\n").err());
    assert_eq!(error, Some(HttpError::HeadTooLarge));
    assert!(collector.bytes.len() <= 100);
    assert_eq!(HeadReader::new(100).feed(&[b'\n'; 101]), Err(HttpError::HeadTooLarge));
    let exact = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(77));
    assert_eq!(exact.len(), 100);
    assert_eq!(HeadReader::new(100).feed(exact.as_bytes()), Ok(Some(100)));
    assert_eq!(HeadReader::new(99).feed(exact.as_bytes()), Err(HttpError::HeadTooLarge));
    assert_eq!(HeadReader::new(100).feed(b"\x16"), Err(HttpError::TlsHandshake));
}

/// Searched bytes are not searched again, so that single bytes cost as much as one piece.
#[test]
fn the_search_for_the_end_goes_on_where_it_stopped() {
    let text = b"A\r\n\r\nB: cdef\r\n\r\n";
    assert_eq!(end(text, 0), Some(5));
    for seen in 8..text.len() {
        assert_eq!(end(text, seen), Some(text.len()), "{seen}");
    }
    let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(MAX_HEAD_BYTES - 30));
    let mut collector = HeadReader::new(MAX_HEAD_BYTES);
    let (last, drip) = long.as_bytes().split_last().unwrap();
    assert!(drip.iter().all(|byte| collector.feed(&[*byte]) == Ok(None)));
    assert_eq!(collector.feed(&[*last]), Ok(Some(1)));
}

#[test]
fn what_is_read_leniently_is_strict_when_it_is_written_again() {
    const ANSWER: &[u8] =
        b"HTTP/1.1 200 OK\r\nServer: a\r\nContent-Length: 5\r\nSet-Cookie: b\r\n\r\n";
    let mut mutator = Mutator(0x9e37_79b9_7f4a_7c15);
    let (mut read, mut mended) = (0, 0);
    for _ in 0..40_000 {
        let text = mutator.mutate(ANSWER);
        let Some(len) = end(&text, 0) else { continue };
        let mut head = HeadRanges::default();
        let Ok(first) = head.response(&text[..len], Strictness::Lenient) else { continue };
        read += 1;
        let mut out = b"HTTP/1.1 200 OK\r\n".to_vec();
        for (name, value) in first.fields.iter() {
            out.extend_from_slice(&[name, b": ", value, b"\r\n"].concat());
        }
        out.extend_from_slice(b"\r\n");
        let shown = String::from_utf8_lossy(&out).into_owned();
        assert_eq!(end(&out, 0), Some(out.len()), "{shown:?}");
        let mut again = HeadRanges::default();
        let second = again.response(&out, Strictness::Strict);
        let second = second.unwrap_or_else(|e| panic!("{e}: {shown:?}"));
        assert!(first.fields.iter().eq(second.fields.iter()), "{shown:?}");
        assert_eq!(first.framing, second.framing);
        let mut strict = HeadRanges::default();
        mended += usize::from(strict.response(&text[..len], Strictness::Strict).is_err());
    }
    assert!(read > 1_000 && mended > 300, "read {read}, mended {mended}");
}

#[test]
fn lines_one_by_one_say_the_same_as_the_whole_head() {
    const POST: &[u8] = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nA: b\r\n\r\n";
    let mut mutator = Mutator(0x2545_f491_4f6c_dd1d);
    let mut read = 0;
    for _ in 0..40_000 {
        let text = mutator.mutate(POST);
        let Some(len) = end(&text, 0) else { continue };
        let mut head = HeadRanges::default();
        let Ok(whole) = head.request(&text[..len]) else { continue };
        read += 1;
        let (_, mut rest) = split_line(&text[..len]);
        let (mut framing, mut reader) = (FramingFields::default(), line::LenientFields::default());
        for (name, value) in whole.fields().iter() {
            let (text, after) = split_line(rest);
            rest = after;
            assert_eq!(line::field(text), Ok((name, value)));
            assert_eq!(reader.line(text), Ok(line::LenientLine::Field(name, value)));
            framing.field(name, value).unwrap();
        }
        assert_eq!(framing, whole.framing);
    }
    assert!(read > 1_000, "{read}");
}
