//! Target `http1_response`: the head of a response. A strict and a lenient reader agree on what
//! both accept. An accepted head of the lenient one is strict after it was written again, with
//! the same fields and the same end of the body.

use culvert::http1::framing::{BodyFraming, RequestMethod};
use culvert::http1::head::{HeadRanges, HttpResponse, end};
use culvert::http1::line::Strictness;

use crate::http1_request::fields;
use crate::input::Dice;

/// The first byte decides the method of the request.
pub fn check(data: &[u8]) {
    let (choice, bytes) = data.split_first().unwrap_or((&0, &[]));
    let method = [RequestMethod::Other, RequestMethod::Head, RequestMethod::Connect]
        [usize::from(*choice) % 3];
    let Some(len) = end(bytes, 0) else { return };
    let bytes = &bytes[..len];
    let (mut lenient, mut strict) = (HeadRanges::default(), HeadRanges::default());
    let strict = strict.response(bytes, Strictness::Strict);
    let Ok(lenient) = lenient.response(bytes, Strictness::Lenient) else {
        assert!(strict.is_err(), "a strict reader accepts what a lenient one refuses");
        return;
    };
    if let Ok(strict) = strict {
        same(&strict, &lenient, method);
    }
    let mut out = format!("HTTP/1.1 {} ", lenient.line.status).into_bytes();
    out.extend(lenient.line.reason);
    out.extend(b"\r\n");
    for (name, value) in lenient.fields.iter() {
        out.extend([name, b": ", value, b"\r\n"].concat());
    }
    out.extend(b"\r\n");
    assert_eq!(end(&out, 0), Some(out.len()), "another end when written again");
    let mut again = HeadRanges::default();
    let again = again.response(&out, Strictness::Strict).expect("strict when written again");
    same(&again, &lenient, method);
}

fn same(a: &HttpResponse<'_>, b: &HttpResponse<'_>, method: RequestMethod) {
    assert_eq!(a.line.status, b.line.status);
    assert!(a.fields.iter().eq(b.fields.iter()), "other fields");
    assert_eq!(a.body(method), b.body(method));
    if let Ok(BodyFraming::Length(n)) = a.body(method) {
        let lengths: Vec<&[u8]> = a.fields.values("content-length").collect();
        let numbers = lengths.iter().map(|v| std::str::from_utf8(v).expect("digits").parse());
        assert!(!lengths.is_empty() && numbers.into_iter().all(|v| v == Ok(n)));
        assert!(a.fields.first("transfer-encoding").is_none(), "both framings");
    }
}

/// Returns a response that is almost valid.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    let mut out = vec![dice.roll() as u8];
    let first = dice.pick(&[
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200",
        "HTTP/1.0 404 Not Found",
        "HTTP/1.1 204 No Content",
        "HTTP/1.1 304 Not Modified",
        "HTTP/1.1 101 Switching Protocols",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 20",
        "ICY 200 OK",
    ]);
    let end = dice.pick(&["\r\n", "\r\n", "\n"]);
    out.extend(first.bytes());
    out.extend(end.bytes());
    fields(dice, end, &mut out);
    out
}
