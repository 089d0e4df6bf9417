//! Visitors at the edge: from an accepted connection to a stream of an agent's session and
//! back. Which endpoints exist is decided in [`super::agents`].
//!
//! [`preface`] reads the first bytes, [`accept`] chooses how a connection is served. [`http`] or [`passthrough`] reads it and
//! sends into a stream of the agent's session. [`exchange`] returns the response. [`linger`]
//! closes a connection after its last response. [`internal_request`] sends the requests of
//! policies to internal endpoints. [`visitor`] ends a visitor whose place is
//! needed.
//!
//! Sans-IO: [`exchange_state`], [`forwarded`], [`origin`], [`pages`], [`request`],
//! [`response`], [`sni`].

pub mod accept;
pub mod body;
pub mod conn;
pub mod exchange;
pub mod exchange_state;
pub mod failover;
mod feed;
pub mod forwarded;
pub mod http;
pub mod internal;
pub mod internal_request;
pub mod internal_stream;
pub mod linger;
pub mod origin;
pub mod pages;
pub mod passthrough;
pub mod policy_services;
pub mod preface;
pub mod request;
pub mod response;
pub mod sni;
pub mod stream_target;
pub mod visitor;
pub mod websocket;
pub mod websocket_pipe;

#[cfg(test)]
mod tests {
    //! Hostile bytes by the thousand: no input panics, and each accepted input has the same
    //! meaning for the next reader.

    use super::forwarded::VisitorInfo;
    use super::request::RequestHead;
    use super::response::{FilterProgress, RequestContext, ResponseEnd, ResponseFilter};
    use super::sni;
    use crate::edge::actions::edits::HeaderEdits;
    use crate::http1::chunked::ChunkedDecoder;
    use crate::http1::framing::BodyFraming;
    use crate::http1::head;
    use crate::http1::line::Strictness;
    use crate::http1::mutator::Mutator;

    const REQUEST: &[u8] = b"POST /a?b HTTP/1.1\r\nHost: a.example:80\r\nAccept: */*\r\n\
        Connection: keep-alive, x-hop\r\nX-Hop: 1\r\nContent-Length: 12\r\n\r\n";

    #[test]
    fn what_is_passed_on_means_the_same_again() {
        let mut mutator = Mutator(0x9e37_79b9_7f4a_7c15);
        let client = std::net::SocketAddr::from(([192, 0, 2, 1], 50_000));
        let peer = client.ip();
        let mut visitor = VisitorInfo { peer, client, tls: true, trusted: false };
        let mut passed = 0;
        for _ in 0..40_000 {
            let text = mutator.mutate(REQUEST);
            let Some(end) = head::end(&text, 0) else { continue };
            let mut first = RequestHead::default();
            if first.parse(&text[..end]).is_err() {
                continue;
            }
            passed += 1;
            visitor.trusted = passed % 2 == 0;
            let mut out = Vec::new();
            first.rewrite(&text[..end], visitor, &HeaderEdits::default(), &mut out);
            let shown = String::from_utf8_lossy(&out).into_owned();
            assert_eq!(head::end(&out, 0), Some(out.len()), "{shown}");
            let mut second = RequestHead::default();
            second.parse(&out).unwrap_or_else(|e| panic!("{e}: {shown}"));
            assert_eq!(second.body(), first.body(), "{shown}");
            assert_eq!(second.host(), first.host(), "{shown}");
            let lines = shown.to_ascii_lowercase();
            let framing = lines.matches("\r\ncontent-length:").count()
                + lines.matches("\r\ntransfer-encoding:").count();
            assert!(framing <= 1, "{shown}");
            assert!(framing == 1 || first.body() == BodyFraming::None, "{shown}");
        }
        assert!(passed > 1_000, "only {passed} were let through");
    }

    #[test]
    fn answers_of_any_shape_end_in_one_of_the_known_ways() {
        const ANSWER: &[u8] =
            b"HTTP/1.1 200 OK\r\nContent-Type: a\r\nTransfer-Encoding: chunked\r\n\
            \r\n5\r\nhello\r\n0\r\n\r\n";
        let mut mutator = Mutator(0x2545_f491_4f6c_dd1d);
        for _ in 0..40_000 {
            let text = mutator.mutate(ANSWER);
            let cut = mutator.below(text.len().max(1));
            let mut filter = ResponseFilter::http();
            filter.begin(RequestContext::default());
            let mut out = Vec::new();
            let mut last = FilterProgress::InProgress;
            for part in [&text[..cut.min(text.len())], &text[cut.min(text.len())..]] {
                if last == FilterProgress::InProgress {
                    last = filter.feed(part, &mut |b| out.extend_from_slice(b));
                }
            }
            match last {
                // A page can still follow, because at most interim responses were passed on.
                FilterProgress::Invalid(_) => {
                    assert!(out.is_empty() || out.starts_with(b"HTTP/1.1 1"));
                }
                FilterProgress::Done | FilterProgress::Broken(_) => {
                    assert!(out.starts_with(b"HTTP/1.1 "))
                }
                FilterProgress::ActionFailed(_)
                | FilterProgress::EncodingFailed
                | FilterProgress::Replaced
                | FilterProgress::Closed => {
                    unreachable!("there are no actions")
                }
                FilterProgress::InProgress => match filter.end(&mut |_| {}) {
                    ResponseEnd::NotStarted => assert!(!out.starts_with(b"HTTP/1.1 2")),
                    ResponseEnd::Complete => assert!(!filter.keeps_visitor()),
                    ResponseEnd::Truncated => {}
                },
            }
        }
    }

    #[test]
    fn hostile_bytes_cost_nothing_else() {
        let mut mutator = Mutator(0x1234_5678_9abc_def1);
        for _ in 0..20_000 {
            let noise: Vec<u8> = (0..mutator.below(200))
                .map(|_| u8::try_from(mutator.below(256)).unwrap())
                .collect();
            let _ = sni::read(&noise);
            let _ = sni::read(&[&[22, 3, 1, 0, 100, 1, 0, 0, 96, 3, 3], &noise[..]].concat());
            let mut chunked = ChunkedDecoder::new(Strictness::Strict);
            if let Ok(n) = chunked.follow(&noise) {
                assert!(n <= noise.len());
            }
        }
    }
}
