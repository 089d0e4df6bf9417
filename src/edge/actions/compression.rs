//! `Compression`: which responses are compressed. The coding is chosen in
//! [`super::accept_encoding`], the bytes are encoded in [`super::body_encoder`].

use super::action::ActionError;
use super::body_encoder::Coding;
use super::response::{ResponseAction, ResponseBody, ResponseHead, ResponsePlan};
use crate::http1::head::members;
use crate::http1::text::decimal;

/// Shortest body that is compressed; shorter ones grow.
const MIN_BODY_BYTES: u64 = 256;

/// Compresses responses.
#[derive(Debug)]
pub struct Compression;

impl ResponseAction for Compression {
    fn run(&self, head: &mut ResponseHead<'_>, plan: &ResponsePlan) -> Result<(), ActionError> {
        compress(head, plan.coding);
        Ok(())
    }
}

/// Compresses a response, if it can be, with the coding that its visitor accepts. Returns the
/// coding that is used.
pub fn compress(head: &mut ResponseHead<'_>, accepted: Option<Coding>) -> Option<Coding> {
    let kind = head.values("content-type").next();
    if head.status == 304 && kind.is_none_or(is_compressible_type) {
        // It describes the body that a 200 would have.
        add_vary(head);
        if accepted.is_some() {
            head.forget_bytes();
        }
    }
    if !is_compressible(head) {
        return None;
    }
    add_vary(head);
    let coding = accepted?;
    head.coding = Some(coding);
    head.forget_bytes();
    head.add("Content-Encoding", coding.name().as_bytes().to_vec());
    Some(coding)
}

fn add_vary(head: &mut ResponseHead<'_>) {
    if !head.values("vary").flat_map(members).any(|m| is(m, "accept-encoding") || m == b"*") {
        head.add("Vary", b"Accept-Encoding".to_vec());
    }
}

fn is(value: &[u8], text: &str) -> bool {
    value.eq_ignore_ascii_case(text.as_bytes())
}

fn is_compressible(head: &ResponseHead<'_>) -> bool {
    let has = |name: &str| head.values(name).next().is_some();
    let no_transform =
        || head.values("cache-control").flat_map(members).any(|m| is(m, "no-transform"));
    let long = head
        .values("content-length")
        .next()
        .is_none_or(|length| decimal(length).is_some_and(|n| n >= MIN_BODY_BYTES));
    matches!(head.body, ResponseBody::Encodable | ResponseBody::HeadOnly)
        && (200..300).contains(&head.status)
        && !matches!(head.status, 204..=206)
        && !has("content-encoding")
        && !has("content-range")
        // The encoder writes no trailers.
        && !has("trailer")
        && long
        && head.values("content-type").next().is_some_and(is_compressible_type)
        && !no_transform()
}

/// Returns whether a media type is text. Events of a server are not compressed, because they
/// are sent one by one.
fn is_compressible_type(value: &[u8]) -> bool {
    let end = value.iter().position(|b| *b == b';').unwrap_or(value.len());
    let kind = value[..end].trim_ascii().to_ascii_lowercase();
    let text = kind.starts_with(b"text/") && kind != b"text/event-stream";
    let suffix = [&b"+json"[..], b"+xml", b"+text"].iter().any(|s| kind.ends_with(s));
    let application: [&[u8]; 9] = [
        b"application/json",
        b"application/javascript",
        b"application/x-javascript",
        b"application/xml",
        b"application/wasm",
        b"application/manifest+json",
        b"application/vnd.ms-fontobject",
        b"font/ttf",
        b"image/svg+xml",
    ];
    text || suffix || application.contains(&&*kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[(&'static str, &'static str)]) -> ResponseHead<'static> {
        let mut head = ResponseHead::new(200, ResponseBody::Encodable);
        lines.iter().for_each(|(name, value)| head.push(name.as_bytes(), value.as_bytes()));
        head
    }

    #[test]
    fn a_304_describes_the_compressed_body() {
        let fields = |accepted: Option<Coding>, kind: &'static str| {
            let mut head = ResponseHead::new(304, ResponseBody::None);
            for (name, value) in
                [("Content-Type", kind), ("Content-Length", "900"), ("ETag", "\"1\"")]
            {
                head.push(name.as_bytes(), value.as_bytes());
            }
            assert_eq!(compress(&mut head, accepted), None);
            ["content-length", "etag", "vary"].map(|name| {
                let value = head.values(name).next().unwrap_or_default();
                String::from_utf8(value.to_vec()).unwrap()
            })
        };
        let text = fields(Some(Coding::ALL[0]), "text/html");
        assert_eq!(text, ["", "W/\"1\"", "Accept-Encoding"]);
        assert_eq!(fields(None, "text/html"), ["900", "\"1\"", "Accept-Encoding"]);
        assert_eq!(fields(Some(Coding::ALL[0]), "image/png"), ["900", "\"1\"", ""]);
    }

    #[test]
    fn what_is_encoded_streamed_or_short_passes_unchanged() {
        assert!(is_compressible(&head(&[("Content-Type", "text/html; charset=utf-8")])));
        assert!(is_compressible(&head(&[("Content-Type", "application/ld+json")])));
        for lines in [
            &[("Content-Type", "text/event-stream")][..],
            &[("Content-Type", "image/png")],
            &[],
            &[("Content-Type", "text/html"), ("Content-Encoding", "gzip")],
            &[("Content-Type", "text/html"), ("Content-Length", "255")],
            &[("Content-Type", "text/html"), ("Cache-Control", "public, no-transform")],
            &[("Content-Type", "text/html"), ("Content-Range", "bytes 0-1/2")],
            &[("Content-Type", "text/html"), ("Trailer", "Server-Timing")],
        ] {
            assert!(!is_compressible(&head(lines)), "{lines:?}");
        }
        let mut partial = head(&[("Content-Type", "text/html")]);
        partial.status = 206;
        assert!(!is_compressible(&partial));
    }
}
