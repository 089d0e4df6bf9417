//! The one parser beside the readers that it replaces: by thousands of mutated messages,
//! every difference is one of those listed here, with its reason.

use super::chunked::ChunkedDecoder;
use super::error::HttpError;
use super::framing::BodyFraming;
use super::line::Strictness;
use super::message::{self, HeadRanges};
use crate::http1::head as agent;
use crate::net::http_message as client;
use crate::web::http as api;

/// A small generator (xorshift): the same numbers on every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }

    fn mutate(&mut self, text: &[u8], words: &[&str]) -> Vec<u8> {
        let mut out = text.to_vec();
        for _ in 0..self.below(4) {
            let at = self.below(out.len().max(1));
            match self.below(5) {
                0 if !out.is_empty() => out[at] = u8::try_from(self.below(256)).unwrap(),
                1 if !out.is_empty() => drop(out.remove(at)),
                2 => out.truncate(at),
                _ => drop(out.splice(at..at, words[self.below(words.len())].bytes())),
            }
        }
        out
    }
}

const HEAD_WORDS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    ": ",
    " ",
    "\t",
    "\0",
    "\r\n fold",
    "Content-Length: 5\r\n",
    "Content-Length: 6\r\n",
    "content-length: 9999999999999999999\r\n",
    "Content-Length : 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: chunked, chunked\r\n",
    "Transfer-Encoding: chunked,\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "no colon\r\n",
    "HTTP/1.0",
    ",",
];

const REQUESTS: [&[u8]; 3] = [
    b"GET /a?b HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nA:b\r\n\r\n",
];

/// The body that the new parser sees behind a request.
fn new_request(bytes: &[u8]) -> Result<BodyFraming, HttpError> {
    HeadRanges::default().request(bytes)?.body()
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn requests_at_the_agent() {
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let mut agreed = [0, 0];
    for n in 0..120_000 {
        let text = numbers.mutate(REQUESTS[n % 3], HEAD_WORDS);
        let Some(len) = message::end(&text, 0) else { continue };
        let bytes = &text[..len];
        let old = agent::Head::parse(bytes).and_then(|head| head.body()).map(|body| match body {
            agent::BodyLength::None => BodyFraming::None,
            agent::BodyLength::Length(n) => BodyFraming::Length(n),
            agent::BodyLength::Chunked => BodyFraming::Chunked,
        });
        let new = new_request(bytes);
        match (old, new) {
            (Ok(old), Ok(new)) => {
                assert_eq!(old, new, "{:?}", shown(bytes));
                agreed[0] += 1;
            }
            (Err(_), Err(_)) => agreed[1] += 1,
            (Err(old), Ok(_)) => panic!("{old}: {:?}", shown(bytes)),
            (Ok(_), Err(new)) => {
                let reason = match new {
                    // Requests have one reader and one strictness now.
                    HttpError::BareLf | HttpError::LengthRepeated => true,
                    // The old reader removed a CR that was not the line's end, as a blank.
                    HttpError::ControlCharacter => {
                        let odd = |w: &[u8]| w[0] == b'\r' && w[1] != b'\n';
                        bytes.windows(2).any(odd) || bytes.contains(&0x0c)
                    }
                    HttpError::LengthInvalid => {
                        shown(bytes).contains("9999999") || bytes.contains(&0x0c)
                    }
                    // The same for a form feed or a CR beside a coding.
                    HttpError::CodingInvalid => bytes.contains(&0x0c) || bytes.contains(&b'\r'),
                    _ => false,
                };
                assert!(reason, "{new}: {:?}", shown(bytes));
            }
        }
    }
    assert!(agreed.iter().all(|n| *n > 5_000), "{agreed:?}");
}

#[test]
fn responses_to_the_agents_own_requests() {
    const ANSWER: &[u8] =
        b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 5\r\nServer: s\r\n\r\n";
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    let (mut agreed, mut stricter) = ([0, 0], 0);
    for _ in 0..120_000 {
        let text = numbers.mutate(ANSWER, HEAD_WORDS);
        let Some(len) = message::end(&text, 0) else { continue };
        let old = client::ResponseHead::parse(&text);
        let mut head = HeadRanges::default();
        let new = head.response(&text[..len], Strictness::Lenient);
        match (old, new) {
            (Ok(Some(old)), Ok(new)) => {
                assert_eq!(old.status, new.line.status, "{:?}", shown(&text));
                agreed[0] += 1;
            }
            (Err(_), Err(_)) => agreed[1] += 1,
            // Bytes behind an empty line are read as a response that is missing its start.
            (Ok(None), _) => {}
            (Err(old), Ok(_)) => panic!("{old}: {:?}", shown(&text)),
            (Ok(Some(_)), Err(new)) => {
                let reason = match new {
                    // The old reader looked at the first length only, at the last coding
                    // only, and at no conflict of both.
                    HttpError::LengthsDiffer
                    | HttpError::LengthInvalid
                    | HttpError::ChunkedNotLast
                    | HttpError::CodingInvalid
                    | HttpError::HiddenFraming => true,
                    // The code was any three characters that are a number: `+20`, `000`;
                    // the version was any word.
                    HttpError::StatusLine => true,
                    _ => false,
                };
                assert!(reason, "{new}: {:?}", shown(&text));
                stricter += 1;
            }
        }
    }
    assert!(agreed.iter().all(|n| *n > 2_000) && stricter > 100, "{agreed:?} {stricter}");
}

const CHUNK_WORDS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    ";",
    ";a=b",
    " ",
    "\t",
    "0",
    "5",
    "F",
    "x",
    "-",
    "\0",
    "0\r\n",
    "A: b\r\n",
    ":",
    "fffffffffffffff",
    "000000000000",
];
const CHUNKS: &[u8] =
    b"5\r\nhello\r\n1A;a=\"b\"\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nA: b\r\n\r\n";

/// Whether a body has a line that only one of two readers sees in the same way.
fn has(bytes: &[u8], words: &[&str]) -> bool {
    words.iter().any(|word| bytes.windows(word.len()).any(|w| w == word.as_bytes()))
}

#[test]
fn chunked_bodies_at_the_local_api() {
    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let mut agreed = [0, 0];
    for _ in 0..120_000 {
        let text = numbers.mutate(CHUNKS, CHUNK_WORDS);
        let mut old = api::Receiver::default();
        let (used, progress) = old.feed(&[HEAD, &text].concat());
        let mut data = Vec::new();
        let mut new = ChunkedDecoder::new(Strictness::Strict);
        let result = new.feed(&text, &mut |piece| data.extend_from_slice(piece));
        match (progress, result) {
            (api::ReadProgress::Refused(413), _) => {}
            (api::ReadProgress::Refused(_), Err(_)) => agreed[1] += 1,
            (api::ReadProgress::Refused(_), Ok(_)) => {
                // Blanks behind the size, which servers and clients use as padding.
                assert!(has(&text, &[" ", "\t"]), "{:?}", shown(&text));
            }
            (_, Ok(n)) => {
                assert_eq!(used, HEAD.len() + n, "{:?}", shown(&text));
                assert_eq!(progress == api::ReadProgress::Whole, new.is_done());
                assert_eq!(old.body(), data);
                agreed[0] += 1;
            }
            (_, Err(new)) => {
                // Trailers have the form of fields now, and sizes a bounded length.
                let reason = matches!(new, HttpError::Trailer | HttpError::ChunkSizeTooLarge);
                assert!(reason, "{new}: {:?}", shown(&text));
            }
        }
    }
    assert!(agreed.iter().all(|n| *n > 5_000), "{agreed:?}");
}

#[test]
fn chunked_bodies_of_responses_to_the_agent() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    let mut agreed = [0, 0];
    for _ in 0..120_000 {
        let text = numbers.mutate(CHUNKS, CHUNK_WORDS);
        let mut old = client::ResponseReader::new(1 << 20);
        let before = old.feed(&[HEAD, &text].concat());
        let mut data = Vec::new();
        let mut new = ChunkedDecoder::new(Strictness::Lenient);
        let result = new.feed(&text, &mut |piece| data.extend_from_slice(piece));
        match (before == Ok(true), new.is_done()) {
            (true, true) => {
                assert_eq!(old.body, data, "{:?}", shown(&text));
                agreed[0] += 1;
            }
            (false, false) => agreed[1] += 1,
            (true, false) => {
                // The old reader trimmed each line: CRs and blanks in front of a size or
                // around an empty line, and control characters anywhere in a line.
                let odd = |w: &[u8]| w[0] == b'\r' && w[1] != b'\n';
                let control = text.iter().any(|b| (*b < b' ' && !b"\r\n".contains(b)) || *b == 127);
                let odd = control || text.windows(2).any(odd) || has(&text, &["\n ", "\r\r"]);
                // The same behind the data of a chunk.
                let odd = odd || (result == Err(HttpError::ChunkEnd) && has(&text, &[" ", "\t"]));
                assert!(odd || text[0] == b' ', "{result:?}: {:?}", shown(&text));
            }
            (false, true) => panic!("{before:?}: {:?}", shown(&text)),
        }
    }
    assert!(agreed.iter().all(|n| *n > 5_000), "{agreed:?}");
}
