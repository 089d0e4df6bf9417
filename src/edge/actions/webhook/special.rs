//! Signatures that no row of the table can describe: those of Mailgun, Hygraph, Contentful and
//! SendGrid.

use ring::hmac;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde_json::Value;

use super::parts::{one, split_target};
use super::providers::Encoding;
use super::{mac, time};
use crate::edge::actions::action::RequestInfo;
use crate::proto::base64;

/// Most headers that Contentful may name.
const MAX_SIGNED_HEADERS: usize = 64;

/// Head of a public key for P-256 in the form of RFC 5480. The point follows, without
/// compression.
const P256_KEY_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const P256_POINT_BYTES: usize = 65;

/// Verifies Mailgun's form: time, token and signature are in the body.
pub fn json_fields(key: &hmac::Key, request: &RequestInfo<'_>) -> bool {
    let Ok(value) = serde_json::from_slice::<Value>(request.body) else { return false };
    let text = |name: &str| value["signature"][name].as_str().map(str::as_bytes);
    let (Some(at), Some(token), Some(signature)) =
        (text("timestamp"), text("token"), text("signature"))
    else {
        return false;
    };
    let tag = hmac::sign(key, &[at, token].concat());
    time::is_recent(at, request.unix_seconds) && mac::is_tag(key, &tag, signature, Encoding::Hex)
}

/// Verifies Hygraph's form: `sign=BASE64, env=NAME, t=TIME` over a JSON object.
pub fn json_envelope(key: &hmac::Key, request: &RequestInfo<'_>) -> bool {
    let value = one(request, "gcms-signature").and_then(|v| std::str::from_utf8(v).ok());
    let element = |name: &str| {
        let mut elements = value?.split(',').map(str::trim);
        elements.find_map(|element| element.strip_prefix(name)?.strip_prefix('='))
    };
    let (Some(signature), Some(environment), Some(at), Ok(body)) =
        (element("sign"), element("env"), element("t"), std::str::from_utf8(request.body))
    else {
        return false;
    };
    // A number: other characters would change the object.
    if at.is_empty() || !at.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let json = |text: &str| Value::from(text).to_string();
    let signed = format!(
        "{{\"Body\":{},\"EnvironmentName\":{},\"TimeStamp\":{at}}}",
        json(body),
        json(environment)
    );
    let tag = hmac::sign(key, signed.as_bytes());
    time::is_recent(at.as_bytes(), request.unix_seconds)
        && mac::is_tag(key, &tag, signature.as_bytes(), Encoding::Base64)
}

/// Verifies Contentful's form: method, path, the headers that a header names, and the body.
pub fn canonical_request(key: &hmac::Key, request: &RequestInfo<'_>) -> bool {
    let header = |name: &str| one(request, name);
    let (Some(signature), Some(names), Some(at)) = (
        header("x-contentful-signature"),
        header("x-contentful-signed-headers"),
        header("x-contentful-timestamp"),
    ) else {
        return false;
    };
    let Ok(names) = std::str::from_utf8(names) else { return false };
    let mut names: Vec<String> =
        names.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    names.sort();
    // A time that is not signed proves nothing.
    let signs_time = names.iter().any(|name| name == "x-contentful-timestamp");
    if !signs_time || names.len() > MAX_SIGNED_HEADERS || !time::is_recent(at, request.unix_seconds)
    {
        return false;
    }
    let mut headers: Vec<Vec<u8>> = Vec::with_capacity(names.len());
    for name in &names {
        let Some(value) = one(request, name) else { return false };
        headers.push([name.as_bytes(), b":", value].concat());
    }
    let (headers, path) = (headers.join(&b';'), contentful_path(request));
    let signed = [request.method, &path, &headers, request.body].join(&b'\n');
    mac::is_tag(key, &hmac::sign(key, &signed), signature, Encoding::Hex)
}

/// Returns the path and the query with the escapes of Contentful's client library.
fn contentful_path(request: &RequestInfo<'_>) -> Vec<u8> {
    const KEPT: &[u8] = b"-_.!~*'()";
    const KEPT_IN_URI: &[u8] = b"-_.!~*'();,/?:@&=+$#";
    let (path, query) = split_target(request);
    match query.filter(|query| !query.is_empty()) {
        None => escape(path, KEPT_IN_URI),
        Some(query) => escape(&[path, b"?", &escape(query, KEPT)].concat(), KEPT_IN_URI),
    }
}

fn escape(text: &[u8], kept: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        match byte.is_ascii_alphanumeric() || kept.contains(byte) {
            true => out.push(*byte),
            false => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    out
}

/// Reads SendGrid's public key. The error is the fault of the secret.
pub fn public_key(secret: &str) -> Result<Vec<u8>, &'static str> {
    let fault = "is not a public key for P-256 in base64";
    let der = base64::decode(secret.trim()).ok_or(fault)?;
    match der.strip_prefix(&P256_KEY_HEAD) {
        Some(point) if point.len() == P256_POINT_BYTES => Ok(point.to_vec()),
        _ => Err(fault),
    }
}

/// Verifies SendGrid's form.
pub fn ecdsa(point: &[u8], request: &RequestInfo<'_>) -> bool {
    let header = |name: &str| one(request, name);
    let (Some(signature), Some(at)) = (
        header("X-Twilio-Email-Event-Webhook-Signature"),
        header("X-Twilio-Email-Event-Webhook-Timestamp"),
    ) else {
        return false;
    };
    let signature = std::str::from_utf8(signature).ok().and_then(base64::decode);
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
    let signed = [at, request.body].concat();
    time::is_recent(at, request.unix_seconds)
        && signature.is_some_and(|signature| key.verify(&signed, &signature).is_ok())
}
