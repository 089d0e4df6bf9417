//! Base64, JSON, query strings and basic credentials.

use std::sync::Arc;

use super::super::call::{Call, FunctionSpec};
use super::super::conversion;
use super::super::error::EvalError;
use super::super::json;
use super::super::value::{Value, ValueMap};
use super::urls::escaped;
use super::{costly, global, member};
use crate::http1::text::percent_decoded;
use crate::proto::base64;

type Evaluated = Result<Value, EvalError>;

/// Steps of a call that reads JSON: more than its bytes, because each part becomes a value.
const JSON_STEPS: usize = 20;

pub(super) static FUNCTIONS: &[FunctionSpec] = &[
    global("base64.encode", (1, 1), encode_bytes),
    global("base64.decode", (1, 1), decode_bytes),
    member("encodeBase64", (1, 1), encode_text),
    member("decodeBase64", (1, 1), decode_text),
    global("basic_auth.encode", (2, 2), basic_auth),
    costly(JSON_STEPS, global("json.encode", (1, 1), encode_json)),
    costly(JSON_STEPS, global("json.decode", (1, 1), decode_json)),
    costly(JSON_STEPS, member("encodeJson", (1, 1), encode_json)),
    costly(JSON_STEPS, member("decodeJson", (1, 1), decode_json)),
    costly(JSON_STEPS, member("isJson", (1, 1), is_json)),
    global("queryString.encode", (1, 1), encode_query),
    global("queryString.decode", (1, 1), decode_query),
    member("encodeQueryString", (1, 1), encode_query),
    member("decodeQueryString", (1, 1), decode_query),
    member("isQueryString", (1, 1), is_query),
];

fn encode_bytes(call: &mut Call<'_>) -> Evaluated {
    match call.value(0) {
        Value::Bytes(bytes) => {
            call.budget.create(bytes.len() / 3 * 4 + 4)?;
            Ok(Value::from(base64::encode(bytes)))
        }
        _ => encode_text(call),
    }
}

fn decode_bytes(call: &mut Call<'_>) -> Evaluated {
    Ok(Value::Bytes(decoded(call)?.into()))
}

fn encode_text(call: &mut Call<'_>) -> Evaluated {
    let text = base64::encode(call.text(0)?.as_bytes());
    call.new_text(text)
}

fn decode_text(call: &mut Call<'_>) -> Evaluated {
    let text = String::from_utf8(decoded(call)?);
    text.map(Value::from).map_err(|_| EvalError::argument("the decoded bytes are not UTF-8"))
}

fn decoded(call: &mut Call<'_>) -> Result<Vec<u8>, EvalError> {
    let text = call.text(0)?;
    call.budget.create(text.len())?;
    // The padding is not optional here.
    let decoded = base64::decode(text).filter(|_| text.len() % 4 == 0);
    decoded.ok_or_else(|| EvalError::argument("the text is not base64"))
}

fn basic_auth(call: &mut Call<'_>) -> Evaluated {
    let (user, password) = (call.text(0)?, call.text(1)?);
    call.budget.create((user.len() + password.len()).saturating_mul(2))?;
    let pair = base64::encode(format!("{user}:{password}").as_bytes());
    Ok(Value::from(format!("Basic {pair}")))
}

fn encode_json(call: &mut Call<'_>) -> Evaluated {
    call.budget.read(call.value(0).bytes())?;
    let text = conversion::encode(call.value(0))?;
    call.new_text(text)
}

fn decode_json(call: &mut Call<'_>) -> Evaluated {
    let text = call.text(0)?;
    json::decode(text, call.budget)
}

fn is_json(call: &mut Call<'_>) -> Evaluated {
    let text = call.text(0)?;
    match json::decode(text, call.budget) {
        Err(error) if error.is_fatal() => Err(error),
        result => Ok(Value::Bool(result.is_ok())),
    }
}

fn encode_query(call: &mut Call<'_>) -> Evaluated {
    let Some(map) = call.value(0).members() else { return Err(call.wrong(0, "map")) };
    let mut text = String::new();
    for (key, value) in map.iter() {
        let values = value.as_list().unwrap_or(std::slice::from_ref(value));
        for value in values {
            let key = escaped(&key.display()?, call.budget)?;
            let pair = format!("{key}={}", escaped(&value.display()?, call.budget)?);
            call.budget.create(pair.len() + 1)?;
            if !text.is_empty() {
                text.push('&');
            }
            text.push_str(&pair);
        }
    }
    Ok(Value::from(text))
}

/// Returns the parameters. Of several with the same name the first counts.
fn decode_query(call: &mut Call<'_>) -> Evaluated {
    let text = call.text(0)?;
    let mut entries = Vec::new();
    for pair in text.trim_start_matches('?').split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = |text| {
            percent_decoded(text, true)
                .map(Value::from)
                .ok_or_else(|| EvalError::argument("the text is not a query"))
        };
        let (key, value) = (decoded(key)?, decoded(value)?);
        call.budget.element(&key)?;
        call.budget.element(&value)?;
        entries.push((key, value));
    }
    Ok(Value::Map(Arc::new(ValueMap::new(entries))))
}

/// Returns whether a text is `name=value` pairs without blanks.
fn is_query(call: &mut Call<'_>) -> Evaluated {
    let text = call.text(0)?;
    let good = |pair: &str| {
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != ';';
        pair.contains('=') && pair.chars().all(plain) && percent_decoded(pair, true).is_some()
    };
    Ok(Value::Bool(!text.is_empty() && text.split('&').all(good)))
}
