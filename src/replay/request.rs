//! The request that a replay sends: the captured one with the changes of the user.
//!
//! Sans-IO. Its length is written anew, because the captured chunks are those of the visitor,
//! and it requests the close of the connection. Everything else, including `Host`, stays unless
//! it is changed.

use super::error::ReplayError;
use crate::http1::text::{decimal, is_token};
use crate::inspect::message::{Field, Message};

/// Maximum size of a request.
const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// Changes to a request. `None` leaves a part unchanged.
#[derive(Clone, Debug, Default)]
pub struct RequestChanges {
    /// The method.
    pub method: Option<String>,
    /// Path and query.
    pub uri: Option<String>,
    /// All fields. Those that frame the body are always written anew.
    pub headers: Option<Vec<(String, String)>>,
    /// The body, without chunks.
    pub body: Option<Vec<u8>>,
    /// All trailers.
    pub trailers: Option<Vec<(String, String)>>,
}

/// Returns the request to send: `raw` with the changes. `is_complete`: `raw` is the complete
/// request.
pub(super) fn compose(
    raw: &[u8],
    is_complete: bool,
    changes: &RequestChanges,
) -> Result<Vec<u8>, ReplayError> {
    let message = Message::parse(raw);
    if !message.whole_head || (!is_complete && changes.body.is_none()) {
        return Err(ReplayError::Incomplete);
    }
    let [method, uri, version] = message.words();
    let method = changes.method.as_deref().unwrap_or(&method);
    let uri = changes.uri.as_deref().unwrap_or(&uri);
    check_request_line(method, uri)?;
    let (content, captured_trailers) = message.content();
    let body = changes.body.as_deref().unwrap_or(&content);
    let fields = fields_or(changes.headers.as_deref(), || message.fields().collect())?;
    // New trailers, or those of the captured body.
    let trailers = fields_or(changes.trailers.as_deref(), || match changes.body {
        Some(_) => Vec::new(),
        None => captured_trailers,
    })?;
    let is_http10 = version == "HTTP/1.0";
    let is_upgrade = fields.iter().any(|(name, _)| is(name, "upgrade"));
    let declares_body = fields.iter().any(|(name, value)| {
        is(name, "transfer-encoding") || (is(name, "content-length") && decimal(value).is_some())
    });
    let chunked = !trailers.is_empty() && !is_http10;
    let mut out = Vec::with_capacity(raw.len() + 64);
    for word in [method, " ", uri, if is_http10 { " HTTP/1.0\r\n" } else { " HTTP/1.1\r\n" }] {
        out.extend_from_slice(word.as_bytes());
    }
    for (name, value) in fields.iter().filter(|(name, _)| is_kept(name, chunked, is_upgrade)) {
        push_field(&mut out, name, value);
    }
    if !is_upgrade {
        push_field(&mut out, b"Connection", b"close");
    }
    if chunked {
        push_chunked_body(&mut out, body, &trailers);
    } else {
        if declares_body || !body.is_empty() {
            push_field(&mut out, b"Content-Length", body.len().to_string().as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body);
    }
    if out.len() > MAX_REQUEST_BYTES {
        return Err(ReplayError::Invalid("the request is too large: 4 MiB at most"));
    }
    Ok(out)
}

fn check_request_line(method: &str, uri: &str) -> Result<(), ReplayError> {
    if !is_token(method.as_bytes()) {
        return Err(ReplayError::Invalid("the method must be one word, as GET"));
    }
    if uri.is_empty() || uri.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Err(ReplayError::Invalid(
            "the path must not be empty, and must be without blanks and control characters",
        ));
    }
    Ok(())
}

fn is(name: &[u8], word: &str) -> bool {
    name.eq_ignore_ascii_case(word.as_bytes())
}

/// Returns whether a field is sent unchanged. Framing fields are written anew. Connection
/// fields are omitted: the connection is used once, with a body that is sent at once.
fn is_kept(name: &[u8], chunked: bool, is_upgrade: bool) -> bool {
    let framing = is(name, "content-length") || is(name, "transfer-encoding");
    let trailer = is(name, "trailer") && !chunked;
    let hop = is(name, "expect") || (is(name, "connection") && !is_upgrade);
    !framing && !trailer && !hop
}

/// Ends the head and appends a body of one chunk with its trailers.
fn push_chunked_body(out: &mut Vec<u8>, body: &[u8], trailers: &[Field<'_>]) {
    push_field(out, b"Transfer-Encoding", b"chunked");
    out.extend_from_slice(b"\r\n");
    if !body.is_empty() {
        out.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
        out.extend_from_slice(body);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        push_field(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

/// Returns the given fields, or else those of the capture.
fn fields_or<'a>(
    given: Option<&'a [(String, String)]>,
    captured: impl FnOnce() -> Vec<Field<'a>>,
) -> Result<Vec<Field<'a>>, ReplayError> {
    let Some(given) = given else { return Ok(captured()) };
    for (name, value) in given {
        if !is_token(name.as_bytes()) || value.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
            return Err(ReplayError::Invalid(
                "a header must have a name of letters, digits and -, and a value of one line",
            ));
        }
    }
    Ok(given.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect())
}

fn push_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn composed(raw: &str, changes: &RequestChanges) -> String {
        String::from_utf8(compose(raw.as_bytes(), true, changes).unwrap()).unwrap()
    }

    #[test]
    fn without_changes_only_the_framing_is_new() {
        let raw = "GET /a?b HTTP/1.1\r\nHost: x.example\r\nCookie: a=b\r\nConnection: \
                   keep-alive\r\n\r\n";
        assert_eq!(
            composed(raw, &RequestChanges::default()),
            "GET /a?b HTTP/1.1\r\nHost: x.example\r\nCookie: a=b\r\nConnection: close\r\n\r\n"
        );
        let raw = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: \
                   100-continue\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n";
        assert_eq!(
            composed(raw, &RequestChanges::default()),
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nabcde"
        );
        let raw = "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
        assert!(composed(raw, &RequestChanges::default()).contains("Content-Length: 0\r\n"));
    }

    #[test]
    fn trailers_keep_their_chunks() {
        let raw = "POST / HTTP/1.1\r\nHost: x\r\nTrailer: Sum\r\nTransfer-Encoding: \
                   chunked\r\n\r\n3\r\nabc\r\n0\r\nSum: 7\r\n\r\n";
        assert_eq!(
            composed(raw, &RequestChanges::default()),
            "POST / HTTP/1.1\r\nHost: x\r\nTrailer: Sum\r\nConnection: close\r\nTransfer-Encoding: \
             chunked\r\n\r\n3\r\nabc\r\n0\r\nSum: 7\r\n\r\n"
        );
        let changes = RequestChanges { body: Some(b"other".to_vec()), ..RequestChanges::default() };
        assert!(composed(raw, &changes).ends_with("Content-Length: 5\r\n\r\nother"));
        let changes = RequestChanges { trailers: Some(vec![("A".into(), "b".into())]), ..changes };
        assert!(composed(raw, &changes).ends_with("\r\n\r\n5\r\nother\r\n0\r\nA: b\r\n\r\n"));
    }

    #[test]
    fn everything_may_be_changed() {
        let raw = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let changes = RequestChanges {
            method: Some("POST".into()),
            uri: Some("/new?q=1".into()),
            headers: Some(vec![
                ("Host".into(), "y".into()),
                ("Content-Length".into(), "999".into()),
                ("A".into(), "b".into()),
            ]),
            body: Some(b"{}".to_vec()),
            trailers: None,
        };
        assert_eq!(
            composed(raw, &changes),
            "POST /new?q=1 HTTP/1.1\r\nHost: y\r\nA: b\r\nConnection: close\r\nContent-Length: \
             2\r\n\r\n{}"
        );
    }

    #[test]
    fn an_upgrade_stays_one() {
        let raw =
            "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(composed(raw, &RequestChanges::default()), raw);
    }

    #[test]
    fn nothing_can_be_smuggled_in() {
        let raw = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let field = |name: &str, value: &str| RequestChanges {
            headers: Some(vec![(name.into(), value.into())]),
            ..RequestChanges::default()
        };
        for changes in [
            RequestChanges { method: Some("GET /".into()), ..RequestChanges::default() },
            RequestChanges { method: Some(String::new()), ..RequestChanges::default() },
            RequestChanges { uri: Some("/ HTTP/1.1\r\nA: b".into()), ..RequestChanges::default() },
            RequestChanges { uri: Some(String::new()), ..RequestChanges::default() },
            field("A\r\nB", "c"),
            field("A", "b\r\nC: d"),
            field("", "b"),
            RequestChanges { body: Some(vec![0; MAX_REQUEST_BYTES]), ..RequestChanges::default() },
        ] {
            let refused = compose(raw, true, &changes);
            assert!(matches!(refused, Err(ReplayError::Invalid(_))), "{changes:?}");
        }
    }

    #[test]
    fn what_is_not_all_there_needs_a_body() {
        let raw = b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nbegin";
        let nothing = RequestChanges::default();
        assert_eq!(compose(raw, false, &nothing), Err(ReplayError::Incomplete));
        assert_eq!(compose(&raw[..20], true, &nothing), Err(ReplayError::Incomplete));
        let body = RequestChanges { body: Some(b"x".to_vec()), ..nothing };
        assert!(compose(raw, false, &body).is_ok());
    }
}
