//! Answers to the checks by which providers verify the address of an endpoint. The edge sends
//! them in place of the upstream.

use serde_json::{Value, json};

use super::form;
use super::mac::KeyedMac;
use super::parts::{one, split_target};
use super::providers::Challenge;
use crate::edge::actions::action::{Reply, ReplyContent, RequestInfo};
use crate::edge::token::hex;
use crate::proto::base64;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Returns the answer to a check that has no signature of a webhook. Twitter signs the query:
/// without that, the answer would sign any text for any client.
pub fn answer_unsigned(
    challenge: Challenge,
    mac: &KeyedMac,
    request: &RequestInfo<'_>,
) -> Option<Reply> {
    if request.method != b"GET" {
        return None;
    }
    match challenge {
        Challenge::CrcToken => {
            let query = split_target(request).1?;
            let pairs = form::sorted(query);
            let (_, token) = pairs.iter().find(|(name, _)| name == b"crc_token")?;
            if !mac.verifies_bytes(one(request, mac.header())?, query) {
                return None;
            }
            let tag = base64::encode(mac.sign(token).as_ref());
            Some(content(JSON, json!({ "response_token": format!("sha256={tag}") }).to_string()))
        }
        Challenge::EchoedHeader => {
            let value = one(request, "X-GCS-Webhooks-Endpoint-Verification")?;
            Some(content(TEXT, std::str::from_utf8(value).ok()?))
        }
        Challenge::EmptyEvents | Challenge::PlainToken => None,
    }
}

/// Returns the answer to a check whose signature is valid.
pub fn answer_signed(
    challenge: Challenge,
    mac: &KeyedMac,
    request: &RequestInfo<'_>,
) -> Option<Reply> {
    let body = || serde_json::from_slice::<Value>(request.body).ok();
    match challenge {
        Challenge::PlainToken => {
            let body = body().filter(|body| body["event"] == "endpoint.url_validation")?;
            let plain = body["payload"]["plainToken"].as_str()?;
            let encrypted = hex(mac.sign(plain.as_bytes()).as_ref());
            let tokens = json!({ "plainToken": plain, "encryptedToken": encrypted });
            Some(content(JSON, tokens.to_string()))
        }
        Challenge::EmptyEvents => {
            let body = body()?;
            let empty = body["events"].as_array().is_some_and(Vec::is_empty);
            empty.then(|| content(TEXT, ""))
        }
        Challenge::CrcToken | Challenge::EchoedHeader => None,
    }
}

fn content(kind: &'static str, body: impl Into<String>) -> Reply {
    let content = ReplyContent { kind: kind.into(), body: body.into() };
    Reply { content: Some(content), ..Reply::new(200, 0, "") }
}
