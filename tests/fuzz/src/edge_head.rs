//! Target `edge_head`: a request of a visitor and the response of an upstream at the edge. The
//! edge's output for the upstream has the same meaning, and its output for the visitor depends
//! on the bytes only, not on the pieces.

use std::net::SocketAddr;

use culvert::edge::actions::edits::HeaderEdits;
use culvert::edge::visitors::forwarded::VisitorInfo;
use culvert::edge::visitors::request::RequestHead;
use culvert::edge::visitors::response::{FilterProgress, RequestContext, ResponseFilter};
use culvert::http1::head::end;

use crate::http1_request;
use crate::input::{Choices, Dice};

/// The first two bytes decide the request's properties and the pieces; a request up to its
/// blank line follows, then the response.
pub fn check(data: &[u8]) {
    let mut choices = Choices::new(data);
    let (asked, cuts) = (choices.byte(), choices.byte());
    let bytes = choices.rest();
    let len = end(bytes, 0).unwrap_or(0);
    for trusted in [false, true] {
        request(&bytes[..len], trusted);
    }
    answer(asked, cuts, &bytes[len..]);
}

fn request(bytes: &[u8], trusted: bool) {
    let client = SocketAddr::from(([192, 0, 2, 1], 50_000));
    let visitor = VisitorInfo { peer: client.ip(), client, tls: true, trusted };
    let mut first = RequestHead::default();
    if first.parse(bytes).is_err() {
        return;
    }
    let mut out = Vec::new();
    first.rewrite(bytes, visitor, &HeaderEdits::default(), &mut out);
    assert_eq!(end(&out, 0), Some(out.len()), "another end of the head");
    let mut second = RequestHead::default();
    second.parse(&out).expect("what is passed on is valid");
    assert_eq!((second.body(), second.host()), (first.body(), first.host()));
    assert_eq!(second.upgrades(), first.upgrades());
    let lines = String::from_utf8_lossy(&out).to_ascii_lowercase();
    let framings = lines.matches("\r\ncontent-length:").count()
        + lines.matches("\r\ntransfer-encoding:").count();
    assert!(framings <= 1, "two fields frame the body: {lines}");
    // Applications on CGI read both characters as one.
    let names = lines.replace('_', "-");
    for (name, value) in [
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "192.0.2.1"),
    ] {
        let count = names.matches(&format!("\r\n{name}:")).count();
        assert!(count == 1 || trusted && count > 0, "{count} fields {name}: {lines}");
        let own = format!("\r\n{name}: {value}\r\n");
        assert!(trusted || lines.contains(&own), "a visitor's {name}: {lines}");
    }
    assert!(trusted || !names.contains("\r\nforwarded:"), "a visitor's Forwarded: {lines}");
}

fn answer(asked: u8, cuts: u8, bytes: &[u8]) {
    let asked = RequestContext {
        head_only: asked & 1 != 0,
        upgrade: asked & 2 != 0,
        close: asked & 12 != 0,
        is_http10: asked & 12 == 12,
        plan: None,
    };
    let whole = filter(&asked, bytes, |_| bytes.len().max(1));
    let mut dice = Dice::new(u64::from(cuts));
    let cut = filter(&asked, bytes, |_| 1 + dice.below(usize::from(cuts)));
    let valid = |progress| matches!(progress, FilterProgress::InProgress | FilterProgress::Done);
    assert_eq!(valid(whole.0), valid(cut.0), "{:?} {:?}", whole.0, cut.0);
    if valid(whole.0) {
        assert_eq!(whole, cut, "another answer when cut");
    }
    if asked.is_http10 {
        let head = &whole.1[..end(&whole.1, 0).unwrap_or(0)];
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        assert!(!head.contains("\r\ntransfer-encoding:"), "a coding for HTTP/1.0: {head}");
    }
}

/// Returns progress and bytes for the visitor.
fn filter(
    asked: &RequestContext,
    bytes: &[u8],
    mut size: impl FnMut(usize) -> usize,
) -> (FilterProgress, Vec<u8>, bool) {
    let mut filter = ResponseFilter::http();
    filter.begin(asked.clone());
    let (mut used, mut out, mut last) = (0, Vec::new(), FilterProgress::InProgress);
    while used < bytes.len() && last == FilterProgress::InProgress {
        let piece = &bytes[used..bytes.len().min(used + size(used))];
        last = filter.feed(piece, &mut |b| out.extend_from_slice(b));
        used += piece.len();
    }
    (last, out, filter.keeps_visitor())
}

/// Returns a request and a response that are almost valid.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    let mut out = vec![dice.roll() as u8, dice.roll() as u8];
    out.extend(http1_request::head(dice));
    for _ in 0..dice.pick(&[0, 0, 0, 1]) {
        out.extend(
            dice.pick(&["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 \r\nA: b\r\n\r\n"]).bytes(),
        );
    }
    let status = dice.pick(&["200 OK", "204 No Content", "304 Not", "101 Switch", "502 Bad"]);
    out.extend(format!("HTTP/1.{} {status}\r\n", dice.below(2)).bytes());
    http1_request::fields(dice, "\r\n", &mut out);
    out.extend(
        dice.pick(&["hello", "5\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\nA: b\r\n\r\n"]).bytes(),
    );
    out
}
