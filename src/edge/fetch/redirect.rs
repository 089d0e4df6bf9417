//! Redirects of the edge's requests: which ones are followed, and what the next request has.
//! Sans-IO: the caller sends each request.

use super::message::{FetchError, FetchErrorKind, FetchRequest, FetchResponse};
use crate::net::http_client::{Method, Request};
use crate::net::url::Url;
use crate::time::Deadline;

/// Longest URL, also of a redirect.
const MAX_URL_BYTES: usize = 8 * 1024;

/// Sends one request to a URL.
pub type SendRequest<'a> =
    &'a mut dyn FnMut(&Url, &Request<'_>) -> Result<FetchResponse, FetchError>;

/// Sends a request by `send` and follows its redirects until `deadline`.
pub fn follow(
    request: &FetchRequest<'_>,
    deadline: Deadline,
    send: SendRequest<'_>,
) -> Result<FetchResponse, FetchError> {
    let mut url = parse(request.url)?;
    let origin = url.clone();
    let (mut method, mut body) = (request.method, request.body);
    let mut left = request.max_redirects;
    loop {
        let text = url.to_string();
        let headers = if url.has_origin_of(&origin) { request.headers } else { &[] };
        let limit = request.limit;
        let hop = Request { method, url: &text, headers, body, limit, deadline };
        let response = send(&url, &hop)?;
        let Some(location) = redirect(&response).filter(|_| request.max_redirects > 0) else {
            return Ok(response);
        };
        if left == 0 {
            return Err(failed(&url, "redirects too often"));
        }
        left -= 1;
        let next = url.join(location).map_err(|e| failed(&url, &e))?;
        if url.secure && !next.secure {
            return Err(failed(&url, "redirects from https to http"));
        }
        // RFC 9110 15.4: 303 always becomes a GET, and 301 and 302 of a POST do in practice.
        if response.status == 303 || matches!(response.status, 301 | 302) && method == Method::Post
        {
            (method, body) = (Method::Get, None);
        }
        if body.is_some() && !next.has_origin_of(&origin) {
            return Err(failed(&url, "redirects a request with a body to another server"));
        }
        url = parse(&next.to_string())?;
    }
}

fn parse(text: &str) -> Result<Url, FetchError> {
    let refused = |e: String| FetchError::new(FetchErrorKind::Refused, e);
    if text.len() > MAX_URL_BYTES {
        return Err(refused(format!("a URL has more than {MAX_URL_BYTES} bytes")));
    }
    Url::parse(text).map_err(refused)
}

fn failed(url: &Url, what: &str) -> FetchError {
    FetchError::new(FetchErrorKind::Failed, format!("{} {what}", url.authority()))
}

/// Returns where a response redirects to.
fn redirect(response: &FetchResponse) -> Option<&str> {
    let location = response.headers.iter().find(|(name, _)| name == "location");
    let (_, location) = location.filter(|_| matches!(response.status, 301..=303 | 307 | 308))?;
    Some(location)
}
