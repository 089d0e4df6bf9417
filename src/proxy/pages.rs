//! The agent's own responses to HTTP visitors: 502 if the upstream cannot be reached, 503 if
//! the pool is full (protocol 6.5, error code 8012).
//!
//! They are whole responses as bytes, HTML or text. External text is escaped. I/O and secrets
//! do not belong here.

use crate::http1::head::HttpRequest;
use crate::http1::text::escape;

/// Longest external text in a page, in bytes.
const MAX_DETAIL_BYTES: usize = 1024;

/// Content of the page for an upstream that cannot be reached.
#[derive(Clone, Copy, Debug)]
pub struct Unreachable<'a> {
    /// The public URL.
    pub url: &'a str,
    /// Address of the failed attempt, such as `http://localhost:8080`.
    pub upstream: &'a str,
    /// Its error, such as `Connection refused (os error 111)`.
    pub error: &'a str,
    /// Whether the upstream accepted the connection, and TLS or its PROXY header failed.
    pub is_listening: bool,
}

/// Returns the 502 page with `ERR_NGROK_8012`. Without a request it is text with a body.
pub fn bad_gateway(request: Option<&HttpRequest<'_>>, details: &Unreachable<'_>) -> Vec<u8> {
    let Unreachable { url, upstream, error, is_listening } = *details;
    let title = "502: the service behind this address cannot be reached";
    let advice = match is_listening {
        false => start_hint(upstream),
        true => "The service accepts connections, but not as configured: check the scheme of its \
             address (http:// or https://), its certificate and the options of that."
            .to_owned(),
    };
    let body = if wants_html(request) {
        page(
            title,
            &format!(
                "<p>The tunnel for <b>{}</b> is up, but its agent cannot reach \
                 <b>{}</b>:</p>\n<pre>{}</pre>\n<p>{}</p>\n<p>ERR_NGROK_8012</p>",
                escape(truncated(url)),
                escape(truncated(upstream)),
                escape(truncated(error)),
                escape(&advice)
            ),
        )
    } else {
        format!(
            "{title}\n\nThe tunnel for {} is up, but its agent cannot reach {}:\n\n    {}\n\n\
             {advice}\n\nERR_NGROK_8012\n",
            plain(truncated(url)),
            plain(truncated(upstream)),
            plain(truncated(error)),
        )
    };
    response(request, "502 Bad Gateway", "ngrok-error-code: ERR_NGROK_8012\r\n", &body)
}

/// Returns the 503 page of an agent with the maximum of connections. Without a request it is
/// text with a body.
pub fn overloaded(request: Option<&HttpRequest<'_>>) -> Vec<u8> {
    let title = "503: too many connections";
    let text = "The agent serves its maximum number of connections. Try again in a moment.";
    let body = if wants_html(request) {
        page(title, &format!("<p>{text}</p>"))
    } else {
        format!("{title}\n\n{text}\n")
    };
    response(request, "503 Service Unavailable", "Retry-After: 1\r\n", &body)
}

/// Returns which service to start, and where.
fn start_hint(upstream: &str) -> String {
    let place = upstream.split_once("://").map_or(upstream, |(_, place)| place);
    format!(
        "Start the service so that it listens on {0}, on the machine that runs the agent (or that \
         its network reaches), or start the agent again with the address that the service \
         listens on.",
        plain(truncated(place))
    )
}

fn wants_html(request: Option<&HttpRequest<'_>>) -> bool {
    request.is_some_and(HttpRequest::accepts_html)
}

/// Returns status line, fields, and the body unless the request is HEAD.
fn response(request: Option<&HttpRequest<'_>>, status: &str, extra: &str, body: &str) -> Vec<u8> {
    let kind = if wants_html(request) { "text/html" } else { "text/plain" };
    let mut out = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\n{extra}Connection: close\r\n\r\n",
        body.len()
    );
    if request.is_none_or(|request| request.method() != "HEAD") {
        out.push_str(body);
    }
    out.into_bytes()
}

/// Returns a page with a title; `content` is HTML.
pub(super) fn page(title: &str, content: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>body{{font:16px/1.5 sans-serif;max-width:44em;margin:3em auto;padding:0 1em}}\
         pre{{white-space:pre-wrap}}</style>\n<h1>{title}</h1>\n{content}\n</html>\n"
    )
}

/// Returns a text without control characters, for a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}

/// Returns the beginning of a long text.
fn truncated(text: &str) -> &str {
    let mut end = text.len().min(MAX_DETAIL_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::HeadRanges;

    const DETAILS: Unreachable<'_> = Unreachable {
        is_listening: false,
        url: "http://abc.localhost:8080",
        upstream: "http://localhost:3000",
        error: "Connection refused (os error 111)",
    };

    fn parts(bytes: Vec<u8>) -> (String, String) {
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    fn length(head: &str) -> usize {
        let line = head.lines().find(|l| l.starts_with("Content-Length: ")).unwrap();
        line["Content-Length: ".len()..].parse().unwrap()
    }

    #[test]
    fn a_program_gets_text_that_names_everything() {
        let mut head = HeadRanges::default();
        let head = head.request(b"GET / HTTP/1.1\r\nAccept: */*\r\n\r\n").unwrap();
        let (fields, body) = parts(bad_gateway(Some(&head), &DETAILS));
        assert!(fields.starts_with("HTTP/1.1 502 Bad Gateway\r\n"));
        for field in ["ngrok-error-code: ERR_NGROK_8012", "Connection: close", "text/plain"] {
            assert!(fields.contains(field), "{fields}");
        }
        for detail in
            [DETAILS.url, DETAILS.upstream, DETAILS.error, "ERR_NGROK_8012", "localhost:3000"]
        {
            assert!(body.contains(detail), "{body}");
        }
        assert_eq!(length(&fields), body.len());
    }

    #[test]
    fn a_browser_gets_html_with_everything_escaped() {
        let mut head = HeadRanges::default();
        let head = head.request(b"GET / HTTP/1.1\r\nAccept: text/html\r\n\r\n").unwrap();
        let details = Unreachable { error: "<script>alert('&\"')</script>\x1b[0m", ..DETAILS };
        let (fields, body) = parts(bad_gateway(Some(&head), &details));
        assert!(fields.contains("Content-Type: text/html"));
        assert!(!body.contains("<script>") && !body.contains('\x1b'));
        assert!(body.contains("&lt;script&gt;alert(&#39;&amp;&quot;&#39;)"));
        assert_eq!(length(&fields), body.len());
    }

    #[test]
    fn head_has_the_length_and_no_body() {
        let mut head = HeadRanges::default();
        let head = head.request(b"HEAD / HTTP/1.1\r\n\r\n").unwrap();
        for bytes in [bad_gateway(Some(&head), &DETAILS), overloaded(Some(&head))] {
            let (fields, body) = parts(bytes);
            assert!(length(&fields) > 0);
            assert_eq!(body, "");
        }
    }

    #[test]
    fn a_full_pool_needs_no_head() {
        let (fields, body) = parts(overloaded(None));
        assert!(fields.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(fields.contains("Retry-After: 1") && fields.contains("Connection: close"));
        assert_eq!(length(&fields), body.len());
    }

    #[test]
    fn long_facts_are_cut_at_a_character() {
        let long = "ä".repeat(5000);
        let (_, body) = parts(bad_gateway(None, &Unreachable { error: &long, ..DETAILS }));
        assert!(body.len() < 3 * MAX_DETAIL_BYTES);
    }
}
