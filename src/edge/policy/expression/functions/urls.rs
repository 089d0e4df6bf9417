//! Percent-encoding and parts of URLs.

use std::sync::Arc;

use super::super::budget::EvalBudget;
use super::super::call::{Call, FunctionSpec};
use super::super::error::EvalError;
use super::super::value::{Value, ValueMap};
use super::{global, member};
use crate::http1::text::{percent_decoded, percent_encoded};

type Evaluated = Result<Value, EvalError>;

pub(super) static FUNCTIONS: &[FunctionSpec] = &[
    global("url.escape", (1, 1), escape),
    global("url.unescape", (1, 1), unescape),
    global("url.parse", (1, 1), parse),
    member("escapeUrl", (1, 1), escape),
    member("unescapeUrl", (1, 1), unescape),
    member("parseUrl", (1, 1), parse),
    member("isURL", (1, 1), |call| Ok(Value::Bool(url_parts(call.text(0)?).is_some()))),
];

/// Returns a text in the encoding of queries: a blank is `+`. Fails before a text is made that the
/// budget has no room for. Charges nothing.
pub(super) fn escaped(text: &str, budget: &mut EvalBudget) -> Result<String, EvalError> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let escapes = text.bytes().filter(|byte| !is_plain(byte)).count();
    // An escape has three bytes.
    budget.fits(text.len().saturating_add(2 * escapes))?;
    Ok(percent_encoded(text.as_bytes()).replace("%20", "+"))
}

fn escape(call: &mut Call<'_>) -> Evaluated {
    let text = call.text(0)?;
    let text = escaped(text, call.budget)?;
    call.new_text(text)
}

fn unescape(call: &mut Call<'_>) -> Evaluated {
    let decoded = percent_decoded(call.text(0)?, true);
    let decoded = decoded.ok_or_else(|| EvalError::argument("the percent-encoding is not valid"));
    call.new_text(decoded?)
}

/// Returns the parts that a URL has: `scheme`, `user`, `host`, `hostname`, `port`, `path`,
/// `query` and `fragment`.
fn parse(call: &mut Call<'_>) -> Evaluated {
    let parts = url_parts(call.text(0)?);
    let parts = parts.ok_or_else(|| EvalError::argument("the text is not a URL"))?;
    let mut entries = Vec::new();
    for (name, text) in parts.into_iter().filter(|(_, text)| !text.is_empty()) {
        let value = call.new_text(text)?;
        call.budget.element(&Value::Null)?;
        entries.push((Value::text(name), value));
    }
    Ok(Value::Map(Arc::new(ValueMap::new(entries))))
}

/// Returns the parts of a URL with a scheme and a host.
fn url_parts(text: &str) -> Option<[(&'static str, &str); 8]> {
    let (scheme, rest) = text.split_once("://")?;
    let good_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path_at = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(path_at);
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (hostname, port) = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, port),
        _ => (host, ""),
    };
    let plain = !text.chars().any(|c| c.is_whitespace() || c.is_control());
    (good_scheme && plain && !hostname.is_empty()).then_some([
        ("scheme", scheme),
        ("user", user),
        ("host", host),
        ("hostname", hostname),
        ("port", port),
        ("path", path),
        ("query", query),
        ("fragment", fragment),
    ])
}
