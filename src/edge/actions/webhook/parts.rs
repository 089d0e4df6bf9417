//! Bytes of a request that a signature covers. No MAC is computed here.

use std::borrow::Cow;

use super::form;
use super::providers::Part;
use crate::edge::actions::action::RequestInfo;

/// Longest value of a header with signatures.
const MAX_SIGNATURE_BYTES: usize = 4096;

/// Characters that HubSpot decodes in a URL before it signs.
const HUBSPOT_DECODED: &[u8] = b":/?@!$'()*,;";

/// Returns the bytes of a part; `None` if the request does not have it. `time` is the signed
/// time.
pub fn bytes<'a>(
    part: Part,
    request: &RequestInfo<'a>,
    time: Option<&'a [u8]>,
) -> Option<Cow<'a, [u8]>> {
    Some(match part {
        Part::Body => request.body.into(),
        Part::Time => time?.into(),
        Part::Text(text) => text.as_bytes().into(),
        Part::Header(name) => one(request, name)?.into(),
        Part::Method => request.method.into(),
        Part::Url => url(request, request.target).into(),
        Part::UrlWithoutQuery => url(request, split_target(request).0).into(),
        Part::HubspotUrl => decode_some(&url(request, request.target)).into(),
        Part::Form => {
            let pairs = form::of_body(request.fields, request.body);
            pairs.into_iter().flat_map(|(name, value)| [name, value]).flatten().collect()
        }
        Part::PlivoUrl => plivo_url(request).into(),
    })
}

/// Returns the value of a header that occurs once.
pub fn one<'a>(request: &RequestInfo<'a>, name: &str) -> Option<&'a [u8]> {
    let mut values = request.fields.values(name);
    match (values.next(), values.next()) {
        (Some(value), None) if value.len() <= MAX_SIGNATURE_BYTES => Some(value),
        _ => None,
    }
}

/// Returns path and query of the request's target.
pub fn split_target<'a>(request: &RequestInfo<'a>) -> (&'a [u8], Option<&'a [u8]>) {
    let target = request.target;
    match target.iter().position(|b| *b == b'?') {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

fn url(request: &RequestInfo<'_>, target: &[u8]) -> Vec<u8> {
    let scheme: &[u8] = if request.tls { b"https://" } else { b"http://" };
    [scheme, request.authority, target].concat()
}

fn decode_some(url: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(url.len());
    let mut rest = url;
    while let Some((&byte, tail)) = rest.split_first() {
        match form::escaped(rest) {
            Some(value) if HUBSPOT_DECODED.contains(&value) => {
                out.push(value);
                rest = &tail[2..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

/// Returns the URL with its query sorted, and the sorted form behind a dot.
fn plivo_url(request: &RequestInfo<'_>) -> Vec<u8> {
    let (path, query) = split_target(request);
    let query = form::sorted(query.unwrap_or_default());
    let form = form::of_body(request.fields, request.body);
    let mut out = url(request, path);
    if !query.is_empty() || !form.is_empty() {
        out.push(b'?');
    }
    for (n, (name, value)) in query.iter().enumerate() {
        if n > 0 {
            out.push(b'&');
        }
        out.extend_from_slice(&[&name[..], b"=", value].concat());
    }
    if !query.is_empty() && !form.is_empty() {
        out.push(b'.');
    }
    for (name, value) in &form {
        out.extend_from_slice(name);
        out.extend_from_slice(value);
    }
    out
}
