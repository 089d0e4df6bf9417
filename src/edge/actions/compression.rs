//! `Compression`: which responses are compressed, and with which coding (RFC 9110 12.5.3).
//! The bytes are encoded in [`super::body_encoder`].

use super::ActionError;
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
        if !is_compressible(head) {
            return Ok(());
        }
        if !head.values("vary").flat_map(members).any(|m| is(m, "accept-encoding") || m == b"*") {
            head.add("Vary", b"Accept-Encoding".to_vec());
        }
        let Some(coding) = plan.coding else { return Ok(()) };
        head.coding = Some(coding);
        head.remove("Content-Length");
        // Ranges and digests are those of the bytes without the coding.
        for name in ["Accept-Ranges", "Content-MD5", "Content-Digest", "Digest"] {
            head.remove(name);
        }
        head.add("Content-Encoding", coding.name().as_bytes().to_vec());
        head.replace("ETag", |tag| (!tag.starts_with(b"W/")).then(|| [&b"W/"[..], tag].concat()));
        Ok(())
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
        && long
        && head.values("content-type").next().is_some_and(is_compressible_type)
        && !no_transform()
}

/// Text, and formats that are text. Events of a server are not: they are sent one by one.
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

/// Returns the coding with the highest weight among those of the edge; of equal ones the
/// better.
pub fn negotiate<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Coding> {
    let mut weights = [None::<u16>; Coding::ALL.len()];
    let mut any = None;
    for member in values.flat_map(members) {
        let mut parts = member.split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(weight).unwrap_or(1000);
        if name == b"*" {
            any = Some(weight);
        }
        for (coding, slot) in Coding::ALL.iter().zip(&mut weights) {
            if is(name, coding.name()) || (*coding == Coding::Gzip && is(name, "x-gzip")) {
                *slot = Some(weight);
            }
        }
    }
    let weighted = Coding::ALL.iter().zip(weights).map(|(c, w)| (*c, w.or(any).unwrap_or(0)));
    // The first of equal ones: `max_by_key` takes the last.
    let best = weighted.rev().max_by_key(|(_, weight)| *weight)?;
    (best.1 > 0).then_some(best.0)
}

/// Reads `q=0.5` as thousandths.
fn weight(parameter: &[u8]) -> Option<u16> {
    let value = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="))?;
    let value = std::str::from_utf8(value).ok()?;
    let weight: f32 = value.trim().parse().ok()?;
    // From 0 to 1000: no truncation.
    Some((weight.clamp(0.0, 1.0) * 1000.0) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(accept: &str) -> Option<&'static str> {
        negotiate(std::iter::once(accept.as_bytes())).map(Coding::name)
    }

    #[test]
    fn the_highest_weight_wins_then_the_better_coding() {
        assert_eq!(best("br, deflate, gzip"), Some("gzip"));
        assert_eq!(best("br, deflate"), Some("br"));
        assert_eq!(best("gzip, deflate"), Some("gzip"));
        assert_eq!(best("deflate"), Some("deflate"));
        assert_eq!(best("br;q=0.5, gzip;q=0.8"), Some("gzip"));
        assert_eq!(best("gzip;q=0, *"), Some("br"));
        assert_eq!(best("*"), Some("gzip"));
        assert_eq!(best("identity"), None);
        assert_eq!(best("gzip;q=0"), None);
        assert_eq!(best("*;q=0"), None);
        assert_eq!(best(""), None);
        assert_eq!(best("GZIP ; Q=1.0"), Some("gzip"));
        assert_eq!(best("zstd, x-gzip"), Some("gzip"));
        assert_eq!(best("gzip;q=NaN"), None);
    }

    fn head(lines: &[(&'static str, &'static str)]) -> ResponseHead<'static> {
        let mut head = ResponseHead::new(200, ResponseBody::Encodable);
        lines.iter().for_each(|(name, value)| head.push(name.as_bytes(), value.as_bytes()));
        head
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
        ] {
            assert!(!is_compressible(&head(lines)), "{lines:?}");
        }
        let mut partial = head(&[("Content-Type", "text/html")]);
        partial.status = 206;
        assert!(!is_compressible(&partial));
    }
}
