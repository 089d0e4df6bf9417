//! Results of the edge for HTTP/1 payloads, for tests/interop/http1. Each input is a line in
//! hex, each result a line of JSON. `q` in front: requests of a visitor, parsed and passed on
//! like in the edge; `a`: a response to a GET, as it is passed to the visitor.

use std::io::{BufRead, Write};
use std::net::SocketAddr;

use culvert::edge::actions::edits::HeaderEdits;
use culvert::edge::visitors::forwarded::VisitorInfo;
use culvert::edge::visitors::request::RequestHead;
use culvert::edge::visitors::response::{
    FilterProgress, RequestContext, ResponseEnd, ResponseFilter,
};
use culvert::http1::chunked::ChunkedDecoder;
use culvert::http1::error::HttpError;
use culvert::http1::framing::BodyFraming;
use culvert::http1::head::end;
use culvert::http1::line::Strictness;
use serde_json::{Value, json};

fn main() {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a readable line");
        let (kind, text) = line.split_at(1);
        let bytes = unhex(text);
        let verdict = if kind == "q" { requests(&bytes) } else { response(&bytes) };
        writeln!(out, "{verdict}").expect("a reader");
    }
}

/// Returns the requests up to the first that is refused or ends the connection.
fn requests(mut bytes: &[u8]) -> Value {
    let (mut seen, mut forwarded, mut refused) = (Vec::new(), Vec::new(), Value::Null);
    let mut request = RequestHead::default();
    loop {
        while bytes.starts_with(b"\r\n") {
            bytes = &bytes[2..];
        }
        let Some(len) = end(bytes, 0) else { break };
        let head = &bytes[..len];
        let result = request.parse(head).and_then(|()| body(&request, &bytes[len..]));
        let (used, data, whole) = match result {
            Ok(body) => body,
            Err(error) => {
                refused = json!(error.to_string());
                break;
            }
        };
        let client = SocketAddr::from(([192, 0, 2, 1], 50_000));
        let visitor = VisitorInfo { peer: client.ip(), client, tls: false, trusted: false };
        let start = forwarded.len();
        request.rewrite(head, visitor, &HeaderEdits::default(), &mut forwarded);
        let first = forwarded[start..].split(|b| *b == b'\r').next().unwrap_or_default();
        let words: Vec<_> = first.split(|b| *b == b' ').map(latin1).collect();
        if !whole {
            forwarded.truncate(start);
            break;
        }
        seen.push(json!([words[0], words[1], hex(&data)]));
        forwarded.extend_from_slice(&bytes[len..len + used]);
        bytes = &bytes[len + used..];
        if request.closes() {
            break;
        }
    }
    json!({"requests": seen, "refused": refused, "forwarded": hex(&forwarded)})
}

/// Returns the length of the body, its data, and whether it is complete.
fn body(request: &RequestHead, bytes: &[u8]) -> Result<(usize, Vec<u8>, bool), HttpError> {
    Ok(match request.body() {
        BodyFraming::Length(n) => {
            let n = usize::try_from(n).unwrap_or(usize::MAX);
            let here = n.min(bytes.len());
            (here, bytes[..here].to_vec(), here == n)
        }
        BodyFraming::Chunked => {
            let mut decoder = ChunkedDecoder::new(Strictness::Strict);
            let mut data = Vec::new();
            let used = decoder.feed(bytes, &mut |piece| data.extend_from_slice(piece))?;
            (used, data, decoder.is_done())
        }
        _ => (0, Vec::new(), true),
    })
}

/// Returns the bytes for the visitor, and whether they are complete.
fn response(bytes: &[u8]) -> Value {
    let mut filter = ResponseFilter::http();
    filter.begin(RequestContext::default());
    let mut out = Vec::new();
    let progress = filter.feed(bytes, &mut |piece| out.extend_from_slice(piece));
    let (whole, refused) = match progress {
        FilterProgress::Done => (true, Value::Null),
        FilterProgress::InProgress => {
            let end = filter.end(&mut |piece| out.extend_from_slice(piece));
            (end == ResponseEnd::Complete, Value::Null)
        }
        FilterProgress::Invalid(error) | FilterProgress::Broken(error) => {
            (false, json!(error.to_string()))
        }
        // The endpoint has no actions.
        FilterProgress::ActionFailed(_)
        | FilterProgress::EncodingFailed
        | FilterProgress::Replaced
        | FilterProgress::Closed => unreachable!(),
    };
    json!({"whole": whole, "refused": refused, "forwarded": hex(&out)})
}

/// Returns a character for each byte.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).unwrap_or(&0)).collect()
}
