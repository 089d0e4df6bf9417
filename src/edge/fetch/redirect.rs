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
    let mut headers = request.headers;
    loop {
        let text = url.to_string();
        // Another origin that redirects back chooses the URL: the origin gets no headers again.
        if !url.has_origin_of(&origin) {
            headers = &[];
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn headers_are_not_sent_after_another_origin() {
        let request = FetchRequest {
            headers: &[("authorization", "secret")],
            max_redirects: 3,
            ..FetchRequest::document("http://a.example/1", 1, Duration::ZERO)
        };
        let mut sent = Vec::new();
        let response = follow(&request, Deadline::Never, &mut |url, hop| {
            sent.push((url.to_string(), hop.headers.len()));
            let location = match &*url.target {
                "/1" => "/2",
                "/2" => "http://b.example/3",
                "/3" => "http://a.example/4",
                _ => "",
            };
            let headers = vec![("location".to_owned(), location.to_owned())];
            let status = if location.is_empty() { 200 } else { 302 };
            Ok(FetchResponse { status, headers, body: Vec::new(), address: None })
        });
        assert_eq!(response.map(|response| response.status), Ok(200));
        let expected = [
            ("http://a.example/1", 1),
            ("http://a.example/2", 1),
            ("http://b.example/3", 0),
            ("http://a.example/4", 0),
        ];
        assert_eq!(sent, expected.map(|(url, headers)| (url.to_owned(), headers)));
    }
}
