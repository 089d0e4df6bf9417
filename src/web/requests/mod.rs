//! Captured requests in the API: lists, single requests, replays, events (agent 10.3, 10.4).
//! The inspector decides what is stored and for how long.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::http::{ApiReply, JSON, ReplyBody};
use super::json::Json;
use crate::agent::Handle;
use crate::http1::text::percent_decoded;
use crate::inspect::message::Message;
use crate::inspect::{CapturedExchange, ExchangeId, Inspector, ListFilter, MessageState};
use crate::proto::base64;
use crate::replay::{ReplayError, RequestChanges};

/// Maximum number of exchanges in one event. No user can read more than that in a moment.
const MAX_NEWS: usize = 50;

/// Exchanges that a page gets again after a deletion.
const MAX_RELOADED: usize = 200;

/// `GET /api/requests/http`. The response is made while it is sent, one exchange at a time,
/// because all of them together may be as large as the store.
pub fn list(handle: &Handle, query: &str) -> Result<ApiReply, String> {
    let mut filter = ListFilter::default();
    let (mut name, mut raw) = (None, true);
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let value = percent_decoded(value, true).ok_or("the query is not UTF-8")?;
        match key {
            "limit" => {
                let limit = value.parse().map_err(|_| "limit must be a number")?;
                filter.limit = Some(limit);
            }
            "tunnel_name" => name = Some(value),
            "raw" => raw = value != "false",
            _ => {}
        }
    }
    filter.tunnel_name = name.as_deref();
    let inspector = handle.inspector().cloned();
    let limit = filter.limit.take().unwrap_or(usize::MAX);
    let mut ids: Vec<ExchangeId> = match &inspector {
        Some(inspector) => inspector.ids(&filter),
        None => Vec::new(),
    };
    let total = ids.len();
    ids.truncate(limit);
    let mut first = true;
    let pieces = ids.into_iter().filter_map(move |id| {
        // It was removed in the meantime, and is omitted.
        let entry = inspector.as_ref()?.get(&id.to_string())?;
        let mut json = Json::default();
        captured(&mut json, &entry, raw);
        let mut piece = json.into_bytes();
        if !std::mem::take(&mut first) {
            piece.insert(0, b',');
        }
        Some(piece)
    });
    let head = br#"{"requests":["#.to_vec();
    let tail = format!(r#"],"uri":"/api/requests/http","total":{total}}}"#).into_bytes();
    let pieces = std::iter::once(head).chain(pieces).chain(std::iter::once(tail));
    let body = ReplyBody::Pieces(Box::new(pieces));
    Ok(ApiReply::new(JSON, body))
}

/// `GET /api/requests/http/ID`.
pub fn get(handle: &Handle, id: &str) -> Option<ApiReply> {
    let entry = handle.inspector()?.get(id)?;
    let mut json = Json::default();
    captured(&mut json, &entry, true);
    Some(ApiReply::json(200, json.into_bytes()))
}

/// Deletes one exchange, or all. Returns whether any existed.
pub fn delete(handle: &Handle, id: Option<&str>) -> bool {
    match (handle.inspector(), id) {
        (Some(inspector), Some(id)) => inspector.delete(id),
        (Some(inspector), None) => {
            inspector.clear();
            true
        }
        (None, id) => id.is_none(),
    }
}

/// Sends a captured request again. Returns the id of the new exchange, or status and reason.
pub fn replay(handle: &Handle, text: &str) -> Result<String, (u16, String)> {
    let fault = |err: String| (400, err);
    let body: Map<String, Value> = serde_json::from_slice(text.as_bytes())
        .map_err(|e| fault(format!("the body must be JSON: {e}")))?;
    let (mut id, mut target, mut changes) = (None, None, None);
    for (key, value) in &body {
        match (key.as_str(), value) {
            ("id", Value::String(text)) => id = Some(text),
            // The npm package sends the second name.
            ("tunnel_name" | "tunnelName", Value::String(text)) => target = Some(text.as_str()),
            ("tunnel_name" | "tunnelName" | "request", Value::Null) => {}
            ("request", Value::Object(request)) => {
                changes =
                    Some(changed(request).map_err(|what| fault(["request.", &what].concat()))?);
            }
            ("id" | "tunnel_name" | "tunnelName", _) => {
                return Err(fault(format!("{key} must be a text")));
            }
            ("request", _) => return Err(fault("request must be an object".into())),
            _ => return Err(fault(format!("{key} is not a known key"))),
        }
    }
    let id = id.ok_or_else(|| fault("the body needs the key id".into()))?;
    let Some(replayer) = handle.replayer() else {
        return Err((404, ReplayError::NotFound.to_string()));
    };
    replayer.replay(id, target, changes.as_ref()).map_err(|e| {
        let status = match e {
            ReplayError::NotFound | ReplayError::NoEndpoint(_) => 404,
            ReplayError::Incomplete | ReplayError::Invalid(_) => 400,
            ReplayError::Busy | ReplayError::System(_) => 503,
        };
        (status, e.to_string())
    })
}

/// Returns the changes for a replay.
fn changed(request: &Map<String, Value>) -> Result<RequestChanges, String> {
    let mut changes = RequestChanges::default();
    for (key, value) in request {
        match (key.as_str(), value) {
            (_, Value::Null) => {}
            ("method", Value::String(text)) => changes.method = Some(text.clone()),
            ("uri", Value::String(text)) => changes.uri = Some(text.clone()),
            ("body", Value::String(text)) => {
                let body = base64::decode(text).ok_or("body must be base64")?;
                changes.body = Some(body);
            }
            ("headers", Value::Object(map)) => changes.headers = Some(fields(key, map)?),
            ("trailers", Value::Object(map)) => changes.trailers = Some(fields(key, map)?),
            ("headers" | "trailers", _) => return Err(format!("{key} must be an object")),
            ("method" | "uri" | "body", _) => return Err(format!("{key} must be a text")),
            _ => return Err(format!("{key} is not a known key")),
        }
    }
    Ok(changes)
}

/// Parses `{Name: [values]}`, or `{Name: value}`.
fn fields(key: &str, map: &Map<String, Value>) -> Result<Vec<(String, String)>, String> {
    let wrong = || format!("{key} must have lists of texts");
    let mut fields = Vec::new();
    for (name, values) in map {
        let values = match values {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            let value = value.as_str().ok_or_else(wrong)?;
            fields.push((name.clone(), value.to_owned()));
        }
    }
    Ok(fields)
}

/// Returns the events since `seen`.
pub fn news(handle: &Handle, seen: &mut Option<u32>) -> Vec<u8> {
    let Some(inspector) = handle.inspector() else { return Vec::new() };
    let Some(before) = *seen else {
        // A new client has requested the list, or does so now.
        *seen = Some(inspector.since(0, 0).seq);
        return Vec::new();
    };
    let since = inspector.since(before, MAX_NEWS);
    *seen = Some(since.seq);
    let mut news = Vec::new();
    let mut entries = since.entries;
    if since.deleted {
        news.extend_from_slice(b"event: cleared\ndata: {}\n\n");
        entries = inspector.list(&ListFilter { limit: Some(MAX_RELOADED), tunnel_name: None });
    }
    if !entries.is_empty() {
        let ids = entries.into_iter().map(|found| found.id);
        news.extend_from_slice(b"event: requests\ndata: ");
        news.extend(several(inspector, ids));
        news.extend_from_slice(b"\n\n");
    }
    news
}

fn several(inspector: &Arc<Inspector>, ids: impl Iterator<Item = ExchangeId>) -> Vec<u8> {
    let mut json = Json::default();
    json.brackets(|j| {
        for entry in ids.filter_map(|id| inspector.get(&id.to_string())) {
            captured(j, &entry, false);
        }
    });
    json.into_bytes()
}

/// Returns the memory of captured requests and its limit.
pub fn bytes(handle: &Handle) -> Option<(usize, usize)> {
    handle.inspector().map(|inspector| inspector.bytes())
}

/// Writes a Captured. Without `raw` it has no bytes, for lists.
fn captured(json: &mut Json, entry: &CapturedExchange, raw: bool) {
    let found = &entry.summary;
    json.braces(|j| {
        let id = found.id.to_string();
        j.key("uri").text(&["/api/requests/http/", &id].concat());
        j.key("id").text(&id);
        j.key("tunnel_name").text(&found.endpoint);
        let visitor = found.visitor.map(|ip| ip.to_string());
        j.key("remote_addr").text(visitor.as_deref().unwrap_or_default());
        j.key("start").text(&crate::time::rfc3339(found.start));
        j.key("duration").plain(found.took.as_nanos());
        let request = Message::parse(&entry.request);
        let [_, _, proto] = request.words();
        j.key("request").braces(|j| {
            j.key("method").text(&found.method);
            j.key("proto").text(&proto);
            headers(j, &request);
            j.key("uri").text(&found.uri);
            sizes(j, &request, &entry.request, found.request_len, found.request_cut);
            if raw {
                j.key("raw").text(&base64::encode(&entry.request));
            }
        });
        match &entry.response {
            None => j.key("response").plain("null"),
            Some(bytes) => j.key("response").braces(|j| {
                let response = Message::parse(bytes);
                let [proto, code, reason] = response.words();
                j.key("status").text(&match reason.is_empty() {
                    true => code,
                    false => Cow::Owned([&code, " ", &reason].concat()),
                });
                j.key("status_code").plain(found.status);
                j.key("proto").text(&proto);
                headers(j, &response);
                sizes(j, &response, bytes, found.response_len, found.response_cut);
                if raw {
                    j.key("raw").text(&base64::encode(bytes));
                }
            }),
        }
        if let Some(tunnel) = &found.tunnel {
            j.key("tunnel").braces(|j| {
                j.key("received").plain(tunnel.received);
                j.key("sent").plain(tunnel.sent);
                j.key("open").plain(tunnel.is_open);
            });
        }
        if found.response == MessageState::Incomplete {
            j.key("err").text(match found.status {
                0 => "closed without an answer",
                _ => "closed before the end of the response",
            });
        }
        if let Some(of) = found.replay_of {
            j.key("replay_of").text(&of.to_string());
        }
    });
}

/// Writes the length of the body as it passed, and whether only a part is stored.
fn sizes(json: &mut Json, message: &Message<'_>, kept: &[u8], passed: u64, cut: bool) {
    let head = kept.len() - message.body.len();
    json.key("body_size").plain(passed.saturating_sub(u64::try_from(head).unwrap_or(0)));
    if cut {
        json.key("truncated").plain(true);
    }
}

/// Writes fields with the spelling of Go, for which scripts search: `Content-Type`.
fn headers(json: &mut Json, message: &Message<'_>) {
    let fields: Vec<_> = message.fields().collect();
    json.key("headers").braces(|j| {
        for (at, (name, _)) in fields.iter().enumerate() {
            let same = |(other, _): &&(&[u8], &[u8])| other.eq_ignore_ascii_case(name);
            if fields.iter().take(at).any(|field| same(&field)) {
                continue;
            }
            j.key(&canonical(name)).brackets(|j| {
                for (_, value) in fields.iter().skip(at).filter(same) {
                    j.text(&String::from_utf8_lossy(value));
                }
            });
        }
    });
}

fn canonical(name: &[u8]) -> String {
    let mut upper = true;
    let name = String::from_utf8_lossy(name);
    let letter = |c: char| {
        let written = if upper { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
        upper = c == '-';
        written
    };
    name.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_go_writes_them() {
        for (name, written) in
            [("content-type", "Content-Type"), ("ETAG", "Etag"), ("x-a--b", "X-A--B")]
        {
            assert_eq!(canonical(name.as_bytes()), written);
        }
    }

    #[test]
    fn changes_of_a_replay() {
        let request = |text: &str| changed(&serde_json::from_str(text).unwrap());
        let all = request(
            r#"{"method": "PUT", "uri": "/x", "headers": {"A": ["1", "2"], "B": "3"}, "body": "aGk="}"#,
        )
        .unwrap();
        assert_eq!((all.method.as_deref(), all.uri.as_deref()), (Some("PUT"), Some("/x")));
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        assert_eq!(all.headers.unwrap(), [pair("A", "1"), pair("A", "2"), pair("B", "3")]);
        assert_eq!(all.body.unwrap(), b"hi");
        for (text, what) in [
            (r#"{"method": 1}"#, "method must be a text"),
            (r#"{"headers": []}"#, "headers must be an object"),
            (r#"{"headers": {"A": 1}}"#, "headers must have lists of texts"),
            (r#"{"body": "?"}"#, "body must be base64"),
            (r#"{"url": "/"}"#, "url is not a known key"),
        ] {
            assert_eq!(request(text).unwrap_err(), what);
        }
    }

    #[test]
    fn one_name_has_all_its_values() {
        let raw = b"GET / HTTP/1.1\r\nhost: a\r\nX-A: 1\r\nx-a: \xff\r\n\r\nbody";
        let json = Json::object(|j| headers(j, &Message::parse(raw)));
        let value: Value = serde_json::from_slice(&json.into_bytes()).unwrap();
        assert_eq!(value["headers"]["Host"][0], "a");
        assert_eq!(value["headers"]["X-A"].as_array().unwrap().len(), 2);
    }
}
