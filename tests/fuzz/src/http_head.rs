//! Target `http_head`: both directions of a captured connection, split at any position. The
//! record depends on the bytes only, contains them in order, and stays within its memory limit.

use std::sync::Arc;

use culvert::inspect::observer::{ExchangeSink, HttpObserver, MessageEvent, Side};
use culvert::inspect::{Inspector, ListFilter, MIN_STORE_BYTES, MessageState};

use crate::input::{Choices, Dice};

#[path = "../../../src/inspect/observer/test_recorder.rs"]
mod seen;
use seen::{Recorded, Recorder};

/// Splits a script into pieces: a byte with the side (and whether it ends there), a length of
/// two bytes, and this number of bytes.
fn pieces(data: &[u8]) -> Vec<(Side, bool, &[u8])> {
    let mut choices = Choices::new(data);
    let mut pieces = Vec::new();
    while !choices.is_empty() {
        let control = choices.byte();
        let side = if control & 1 == 0 { Side::Request } else { Side::Response };
        let len = usize::from(choices.short());
        pieces.push((side, control & 0xf0 == 0xf0, choices.bytes(len)));
    }
    pieces
}

/// The first byte decides the pieces, the second whether a PROXY header comes first.
pub fn check(data: &[u8]) {
    let mut choices = Choices::new(data);
    let (cuts, prefix) = (choices.byte(), choices.byte() == 0xff);
    let script = pieces(choices.rest());
    let whole = observer(&script, prefix, &mut |n| n);
    let mut dice = Dice::new(u64::from(cuts));
    let cut = observer(&script, prefix, &mut |_| 1 + dice.below(1 + usize::from(cuts)));
    assert_eq!(whole, cut, "what is recorded depends on how the bytes are cut");
    for side in [Side::Request, Side::Response] {
        let stream: Vec<u8> =
            script.iter().filter(|p| p.0 == side).flat_map(|p| p.2.iter().copied()).collect();
        let mut rest = &stream[..];
        for seen in &whole {
            let bytes = &seen.bytes[side as usize];
            if !bytes.is_empty() {
                let at = rest.windows(bytes.len()).position(|w| w == &bytes[..]);
                rest = &rest[at.expect("bytes of the stream, in order") + bytes.len()..];
            }
        }
    }
    keep(&script, prefix, &whole);
}

fn observer(
    script: &[(Side, bool, &[u8])],
    prefix: bool,
    size: &mut dyn FnMut(usize) -> usize,
) -> Vec<Recorded> {
    let mut observer = HttpObserver::new(prefix);
    let mut recorder = Recorder::default();
    for &(side, ends, bytes) in script {
        recorder.feed(&mut observer, side, bytes, &mut *size);
        // The visitor's end alone has no effect on the inspector.
        if ends && side == Side::Response {
            observer.finish(side, &mut recorder);
        }
    }
    recorder.done(observer)
}

/// Checks the same with the real store at its smallest size.
fn keep(script: &[(Side, bool, &[u8])], prefix: bool, seen: &[Recorded]) {
    let inspector = Inspector::with_ceiling(MIN_STORE_BYTES).expect("enough");
    let source = inspector.source("fuzz", prefix, &Arc::default());
    let tap = source.tap("192.0.2.1:1");
    for &(side, ends, bytes) in script {
        match side {
            Side::Request => tap.request(bytes),
            Side::Response => tap.response(bytes),
        }
        if ends && side == Side::Response {
            tap.finish();
        }
    }
    drop(tap);
    let (used, ceiling) = inspector.bytes();
    assert!(used <= ceiling, "{used} of {ceiling}");
    let listed = inspector.list(&ListFilter::default());
    let mut shown = seen.iter().rev().filter(|seen| seen.shown);
    for summary in &listed {
        let seen = shown.next().expect("nothing that was not there");
        let entry = inspector.get(&summary.id.to_string()).expect("what is listed");
        assert_eq!(summary.status, seen.status);
        let whole = matches!(seen.ends[1], Some(MessageEvent::Complete(_)));
        assert_eq!(summary.response == MessageState::Complete, whole);
        assert!(seen.bytes[0].starts_with(&entry.request));
        assert_eq!(summary.request_cut, entry.request.len() < seen.bytes[0].len());
        let response = entry.response.unwrap_or_default();
        assert!(seen.bytes[1].starts_with(&response));
        assert_eq!(summary.response_len, seen.bytes[1].len() as u64);
    }
    // Only the oldest may be missing, and only because of the limit.
    assert!(shown.next().is_none() || used > MIN_STORE_BYTES / 2);
    assert_eq!(Arc::strong_count(&inspector), 2, "the tap is gone");
}

/// Returns requests and responses that usually match.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    let mut script = vec![dice.roll() as u8, dice.pick(&[0, 0, 0, 0, 0, 0, 0, 0xff])];
    for _ in 0..1 + dice.below(6) {
        let count = dice.pick(&[1, 1, 1, 1, 2, 5, 40]);
        let asked: Vec<u8> = (0..count).flat_map(|_| request(dice)).collect();
        let answered: Vec<u8> = (0..count).flat_map(|_| response(dice)).collect();
        let somewhere = dice.below(asked.len() + 1);
        let (early, late) = asked.split_at(dice.pick(&[asked.len(), somewhere]));
        push(&mut script, 0, early);
        push(&mut script, dice.pick(&[1, 1, 1, 1, 1, 0xf1]), &answered);
        push(&mut script, 0, late);
    }
    script
}

fn push(script: &mut Vec<u8>, control: u8, bytes: &[u8]) {
    for bytes in bytes.chunks(60_000) {
        script.push(control);
        script.extend((bytes.len() as u16).to_be_bytes());
        script.extend(bytes);
    }
}

fn request(dice: &mut Dice) -> Vec<u8> {
    let method = dice.pick(&["GET", "GET", "POST", "PUT", "HEAD", "CONNECT", "G T", ""]);
    let target = dice.pick(&["/", "/a?b=c", "http://x/", "*", "x:443", "/ /", ""]);
    let version = dice.pick(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", ""]);
    message(dice, &format!("{method} {target} {version}"))
}

fn response(dice: &mut Dice) -> Vec<u8> {
    let first = dice.pick(&[
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 OK",
        "HTTP/1.0 200",
        "HTTP/1.1 204 No Content",
        "HTTP/1.1 304 Not Modified",
        "HTTP/1.1 100 Continue",
        "HTTP/1.1 103 Early Hints",
        "HTTP/1.1 101 Switching Protocols",
        "HTTP/1.1 2 OK",
        "ICY 200 OK",
    ]);
    message(dice, first)
}

/// Returns fields, and a body that usually has their length.
fn message(dice: &mut Dice, first: &str) -> Vec<u8> {
    let end = dice.pick(&["\r\n", "\r\n", "\r\n", "\n", "\r\n "]);
    let mut out = format!("{first}{end}").into_bytes();
    let most = dice.pick(&[0, 5, 100, 5_000]);
    let body = dice.bytes(most);
    let mut field = |text: &str| out.extend(format!("{text}{end}").into_bytes());
    let framing = dice.below(8);
    match framing {
        0 | 1 => field(&format!("Content-Length: {}", body.len())),
        2 | 3 => {
            field(dice.pick(&["Transfer-Encoding: chunked", "TRANSFER-ENCODING:gzip, Chunked"]))
        }
        4 => {
            field(&format!("Content-Length: {}", body.len()));
            field("Transfer-Encoding: chunked");
        }
        5 => field(dice.pick(&[
            "Content-Length: 18446744073709551616",
            "Content-Length : 3",
            "Content-Length: -1",
            "Transfer-Encoding: gzip",
        ])),
        _ => {}
    }
    for _ in 0..dice.below(4) {
        let long = "x".repeat(dice.pick(&[1, 10, 600, 9_000, 33_000]));
        let name = dice.pick(&["Host", "Cookie", "Connection", "Upgrade", "Expect", " fold", "no"]);
        field(&format!("{name}: {long}"));
    }
    out.extend(end.as_bytes());
    match framing {
        2..=4 => {
            for chunk in body.chunks(1 + dice.below(50)) {
                let extension = dice.pick(&["", "", ";a=b", " ", "x"]);
                out.extend(format!("{:x}{extension}{end}", chunk.len()).into_bytes());
                out.extend(chunk);
                out.extend(end.as_bytes());
            }
            out.extend(
                dice.pick(&["0\r\n\r\n", "0\r\n\r\n", "00;x\r\nA: b\r\n\r\n", "0\n\n", ""]).bytes(),
            );
        }
        0 | 1 => out.extend(body),
        _ => {}
    }
    out
}
