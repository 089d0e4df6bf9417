//! Unusual exchanges, each split at every position, and their records.

use super::test_recorder::{Recorded, Recorder};
use super::*;
use Side::{Request as Q, Response as A};

type Script<'a> = &'a [(Side, &'a [u8])];

/// Plays a script in pieces. The connection is aborted at the end. An empty piece in the script
/// is the orderly end of a side.
fn play(script: Script<'_>, mut piece: impl FnMut() -> usize) -> Vec<Recorded> {
    let mut observer = HttpObserver::new(false);
    let mut recorder = Recorder::default();
    for &(side, bytes) in script {
        if bytes.is_empty() {
            observer.finish(side, &mut recorder);
        }
        recorder.feed(&mut observer, side, bytes, |_| piece());
    }
    recorder.done(observer)
}

/// Returns the record, which must not depend on the pieces.
fn record(script: Script<'_>) -> Vec<Recorded> {
    let whole = play(script, || usize::MAX);
    for size in [1, 2, 3, 7, 64] {
        assert_eq!(play(script, || size), whole, "in pieces of {size}");
    }
    let mut n = 1usize;
    let odd = || {
        n = n.wrapping_mul(1_103_515_245).wrapping_add(12_345) % 65_536;
        n % 23 + 1
    };
    assert_eq!(play(script, odd), whole);
    whole
}

/// Returns first line, status, whether each side is complete, and the response's bytes.
fn recorded(script: Script<'_>) -> Vec<(String, u16, bool, bool, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let shown = record(script).into_iter().filter(|seen| seen.shown);
    shown
        .map(|seen| {
            let first = text(seen.bytes[0].split(|b| *b == b'\r' || *b == b'\n').next().unwrap());
            let whole = |n: usize| matches!(seen.ends[n], Some(MessageEvent::Complete(_)));
            (first, seen.status, whole(0), whole(1), text(&seen.bytes[1]))
        })
        .collect()
}

fn one(first: &str, status: u16, asked: bool, answered: bool, response: &str) -> RecordedExchange {
    (first.into(), status, asked, answered, response.into())
}

type RecordedExchange = (String, u16, bool, bool, String);

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn requests_one_after_another_on_one_connection() {
    let post = b"POST /p HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    let script: Script<'_> =
        &[(Q, GET), (A, OK.as_bytes()), (Q, post), (A, OK.as_bytes()), (Q, b""), (A, b"")];
    assert_eq!(
        recorded(script),
        [one("GET / HTTP/1.1", 200, true, true, OK), one("POST /p HTTP/1.1", 200, true, true, OK)]
    );
    assert!(record(script)[1].bytes[0].ends_with(b"\r\n\r\nabc"));
}

#[test]
fn pipelined_requests_and_responses_find_each_other() {
    let asked = b"GET /1 HTTP/1.1\r\n\r\nHEAD /2 HTTP/1.1\r\n\r\n\r\n\nGET /3 HTTP/1.1\n\n";
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n";
    let answers = format!("{OK}{head}{OK}");
    assert_eq!(
        recorded(&[(Q, asked), (A, answers.as_bytes())]),
        [
            one("GET /1 HTTP/1.1", 200, true, true, OK),
            one("HEAD /2 HTTP/1.1", 200, true, true, head),
            one("GET /3 HTTP/1.1", 200, true, true, OK),
        ]
    );
}

#[test]
fn bodies_of_every_kind_of_length() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n4;a=\"b\"\r\nWiki\r\n\
                   00005\r\npedia\r\n0;last\r\nSum: 1\r\nMore: 2\r\n\r\n";
    let bare = "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nA\n0123456789\n0\n\n";
    let none = "HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n";
    let same = "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n";
    let short = "HTTP/1.1 200\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n";
    for answer in [chunked, bare, none, same, short] {
        // A further request follows, to check where this one ended.
        let script: Script<'_> = &[(Q, GET), (A, answer.as_bytes()), (Q, GET), (A, OK.as_bytes())];
        let seen = recorded(script);
        assert_eq!(seen.len(), 2, "{answer}");
        assert_eq!((seen[0].3, &seen[0].4[..]), (true, answer));
        assert_eq!((seen[1].3, &seen[1].4[..]), (true, OK));
    }
}

#[test]
fn a_body_may_end_with_the_connection() {
    for head in ["HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"] {
        let answer = format!("{head}all that follows\r\n\r\nHTTP/1.1 200 OK\r\n\r\n");
        let ended: Script<'_> = &[(Q, GET), (A, answer.as_bytes()), (A, b"")];
        assert_eq!(recorded(ended), [one("GET / HTTP/1.1", 200, true, true, &answer)]);
        let broken: Script<'_> = &[(Q, GET), (A, answer.as_bytes())];
        assert_eq!(recorded(broken), [one("GET / HTTP/1.1", 200, true, false, &answer)]);
    }
}

#[test]
fn interim_responses_are_not_shown() {
    let put = b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let script: Script<'_> =
        &[(Q, put), (A, interim), (Q, b"body"), (A, OK.as_bytes()), (Q, GET), (A, OK.as_bytes())];
    let seen = recorded(script);
    assert_eq!(seen[0], one("PUT / HTTP/1.1", 200, true, true, OK));
    assert_eq!(seen[1], one("GET / HTTP/1.1", 200, true, true, OK));
}

#[test]
fn an_upgrade_is_shown_to_its_handshake() {
    let asked = b"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    let answer = format!("{switch}\x02\x05hello{OK}");
    let script: Script<'_> = &[(Q, asked), (A, answer.as_bytes()), (Q, GET), (A, OK.as_bytes())];
    assert_eq!(recorded(script), [one("GET /ws HTTP/1.1", 101, true, true, switch)]);
    // A visitor that does not wait for the response.
    let script: Script<'_> = &[(Q, asked), (Q, b"\x82\x85\n\nnonsense"), (A, answer.as_bytes())];
    assert_eq!(recorded(script), [one("GET /ws HTTP/1.1", 101, true, true, switch)]);
    // An upstream that refuses the upgrade.
    let script: Script<'_> = &[(Q, asked), (A, OK.as_bytes()), (Q, GET), (A, OK.as_bytes())];
    assert_eq!(recorded(script).len(), 2);
    let connect = b"CONNECT x:443 HTTP/1.1\r\n\r\n";
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\x16\x03\x01";
    let seen = recorded(&[(Q, connect), (A, answer), (Q, GET), (A, OK.as_bytes())]);
    assert_eq!((seen.len(), seen[0].1, seen[0].3), (1, 200, true));
}

#[test]
fn an_answer_may_come_before_the_request_is_whole() {
    let post = b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345";
    let answer = "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n";
    let script: Script<'_> = &[(Q, post), (A, answer.as_bytes()), (Q, b"67890")];
    assert_eq!(recorded(script), [one("POST / HTTP/1.1", 413, true, true, answer)]);
    assert!(record(script)[0].bytes[0].ends_with(b"1234567890"));
    let script: Script<'_> = &[(Q, post), (A, answer.as_bytes())];
    assert_eq!(recorded(script), [one("POST / HTTP/1.1", 413, false, true, answer)]);
}

#[test]
fn what_breaks_off_stays_as_far_as_it_came() {
    let script: Script<'_> = &[(Q, GET), (A, &OK.as_bytes()[..OK.len() - 1]), (A, b"")];
    assert_eq!(recorded(script), [one("GET / HTTP/1.1", 200, true, false, &OK[..OK.len() - 1])]);
    assert_eq!(recorded(&[(Q, GET), (A, b"")]), [one("GET / HTTP/1.1", 0, true, false, "")]);
    assert_eq!(recorded(&[(Q, &GET[..20])]), [], "half a head is no request");
    let bad = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nxyz\r\n";
    assert_eq!(
        recorded(&[(Q, GET), (A, bad.as_bytes()), (Q, GET)]),
        [one("GET / HTTP/1.1", 200, true, false, bad.strip_suffix("xyz\r\n").unwrap())]
    );
}

#[test]
fn a_response_whose_end_is_ambiguous_is_shown_with_its_head() {
    for fields in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 1\r\nTransfer-Encoding: gzip\r\n",
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        let answer = format!("{head}1\r\nx\r\n0\r\n\r\n");
        let script: Script<'_> = &[(Q, GET), (A, answer.as_bytes()), (Q, GET)];
        assert_eq!(recorded(script), [one("GET / HTTP/1.1", 200, true, false, &head)]);
    }
}

#[test]
fn what_is_not_http_is_let_go() {
    let long = [&b"GET /"[..], &[b'a'; MAX_HEAD_BYTES], b" HTTP/1.1\r\n\r\n"].concat();
    let many =
        [&b"GET / HTTP/1.1\r\n"[..], &b"A: b\r\n".repeat(MAX_HEAD_BYTES / 6), b"\r\n"].concat();
    for bytes in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\n\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"GET /\r\n\r\n",
        b"GET HTTP/1.1\r\n\r\n",
        b"GET / HTTP/3.0\r\n\r\n",
        b"G(T / HTTP/1.1\r\n\r\n",
        b" GET / HTTP/1.1\r\n\r\n",
        // Two parsers could find different ends.
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
        b"POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n12345",
        b"POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n12345",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length : 5\r\n\r\n12345",
        b"POST / HTTP/1.1\r\nContent-Length:\r\n 5\r\n\r\n12345",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n , identity\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &long,
        &many,
    ] {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        assert_eq!(recorded(&[(Q, bytes), (A, OK.as_bytes())]), [], "{text}");
        // The exchange before it is complete.
        let script: Script<'_> = &[(Q, GET), (Q, bytes), (A, OK.as_bytes()), (A, OK.as_bytes())];
        assert_eq!(recorded(script), [one("GET / HTTP/1.1", 200, true, true, OK)], "{text}");
    }
}

#[test]
fn odd_fields_that_change_nothing_are_let_through() {
    let cookie = [&b"GET / HTTP/1.1\r\nCookie: "[..], &[b'c'; 9_000], b"\r\n\r\n"].concat();
    let target = [&b"HEAD /"[..], &[b'u'; 9_000], b" HTTP/1.1\r\n\r\n"].concat();
    for bytes in [
        &b"GET / HTTP/1.1\r\nA: b\r\n folded\r\nno colon\r\nB : c\r\n\r\n"[..],
        b"GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.0\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nX: \xff\r\n\r\n",
        &cookie,
        &target,
    ] {
        let answer = if bytes.starts_with(b"HEAD") { &OK[..OK.len() - 2] } else { OK };
        let script: Script<'_> =
            &[(Q, bytes), (A, answer.as_bytes()), (Q, GET), (A, OK.as_bytes())];
        let seen = record(script);
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].bytes[0], bytes);
        assert!(seen.iter().all(|seen| matches!(
            seen.ends,
            [Some(MessageEvent::Complete(_)), Some(MessageEvent::Complete(_))]
        )));
    }
}

#[test]
fn responses_that_make_no_sense_end_the_watch() {
    for bytes in [
        &b"HTTP/2 200\r\n\r\n"[..],
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 Odd\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"<html>\n",
    ] {
        let seen = recorded(&[(Q, GET), (A, bytes), (Q, GET), (A, OK.as_bytes())]);
        let text = String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(seen.len(), 1, "{text}");
        assert_eq!((seen[0].1, seen[0].2, seen[0].3), (0, true, false), "{text}");
    }
    // A response without a request.
    let late = b"HTTP/1.1 408 Request Timeout\r\n\r\n";
    let seen = recorded(&[(Q, GET), (A, OK.as_bytes()), (A, late), (Q, GET), (A, OK.as_bytes())]);
    assert_eq!(seen.len(), 1);
}

#[test]
fn a_flood_of_pipelined_requests_is_bounded() {
    let asked = GET.repeat(1_000);
    let answers = OK.repeat(1_000);
    let seen = recorded(&[(Q, &asked), (A, answers.as_bytes())]);
    assert_eq!(seen.len(), MAX_PIPELINED);
    assert!(seen.iter().all(|seen| seen.3));
}

#[test]
fn a_proxy_header_in_front_is_skipped() {
    let source = "192.0.2.1:5".parse().unwrap();
    for version in [1, 2] {
        let bytes = [&proxy_protocol::encode(version, source, source)[..], GET].concat();
        for size in [1, 5, 300] {
            let mut observer = HttpObserver::new(true);
            let mut recorder = Recorder::default();
            for piece in bytes.chunks(size) {
                observer.feed(Q, piece, &mut recorder);
            }
            assert_eq!(recorder.0.len(), 1);
            assert_eq!(recorder.0[0].bytes[0], GET);
        }
    }
    let mut observer = HttpObserver::new(true);
    let mut recorder = Recorder::default();
    observer.feed(Q, GET, &mut recorder);
    assert!(recorder.0.is_empty(), "it was announced and is not there");
}

#[test]
fn what_is_not_wanted_is_not_told() {
    const HEAD: &[u8] = b"HTTP/1.1 200 Y\r\nContent-Length:1000000\r\n\r\n";
    struct Little(usize);
    impl ExchangeSink for Little {
        fn begin(&mut self) -> u64 {
            7
        }
        fn bytes(&mut self, exchange: u64, _: Side, bytes: &[u8]) -> bool {
            assert_eq!(exchange, 7);
            self.0 += bytes.len();
            false
        }
        fn event(&mut self, _: u64, side: Side, event: MessageEvent) {
            if side == A && event != MessageEvent::Head(200) {
                assert_eq!(event, MessageEvent::Complete(HEAD.len() as u64 + 1_000_000));
            }
        }
    }
    let mut observer = HttpObserver::new(false);
    let mut little = Little(0);
    observer.feed(Q, GET, &mut little);
    observer.feed(A, HEAD, &mut little);
    let recorded = little.0;
    for _ in 0..1_000 {
        observer.feed(A, &[0; 1_000], &mut little);
    }
    assert!(observer.is_idle());
    assert_eq!(little.0, recorded);
}
