//! Responses of the edge itself: error pages with ngrok's code in the body and in the header
//! `ngrok-error-code`, and the answers of actions. No byte of an upstream is in a page.

use std::borrow::Cow;
use std::fmt::Write;

use crate::edge::actions::{Reply, ReplyContent};
use crate::http1::error::HttpError;
use crate::http1::status;
use crate::http1::text::escape;

/// Error response of the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    /// HTTP status.
    pub status: u16,
    /// Number of the error code; 0 for none.
    pub code: u32,
    /// Cause and what to do, in one or two sentences.
    pub text: String,
    /// Further header fields.
    pub fields: Vec<(Cow<'static, str>, String)>,
    /// Body in place of the text.
    pub content: Option<ReplyContent>,
}

impl From<Reply> for ErrorPage {
    fn from(reply: Reply) -> Self {
        let Reply { status, code, text, fields, content } = reply;
        ErrorPage { status, code, text, fields, content }
    }
}

impl From<ErrorPage> for Reply {
    fn from(page: ErrorPage) -> Self {
        let ErrorPage { status, code, text, fields, content } = page;
        Reply { status, code, text, fields, content }
    }
}

/// Why an upstream's response cannot be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamFault {
    /// It is not valid HTTP/1.
    Invalid(HttpError),
    /// The connection ended in an orderly way without a response.
    Closed,
    /// The connection broke off without a response.
    BrokeOff,
}

/// How to write a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageFormat {
    /// As HTML, for a browser. Else as text.
    pub html: bool,
    /// Without the body, for HEAD.
    pub head_only: bool,
    /// The connection ends after it.
    pub close: bool,
}

impl PageFormat {
    /// Text, with the end of the connection after it.
    pub const CLOSE: PageFormat = PageFormat { html: false, head_only: false, close: true };
}

impl ErrorPage {
    /// Returns a page with a code.
    pub fn new(status: u16, code: u32, text: impl Into<String>) -> Self {
        ErrorPage { status, code, text: text.into(), fields: Vec::new(), content: None }
    }

    /// The host has no endpoint.
    pub fn unknown_host(host: &str) -> Self {
        let text = format!("The endpoint {host} does not exist, or its agent is not connected.");
        ErrorPage::new(404, 3200, text)
    }

    /// The TLS connection was made for another host.
    pub fn misdirected(host: &str) -> Self {
        let text = format!(
            "The TLS connection was made for another server name than {host}. Use a new connection."
        );
        ErrorPage::new(421, 0, text)
    }

    /// The endpoint is known, but its agent is not connected.
    pub fn agent_away(host: &str) -> Self {
        let text = format!("The agent of {host} has lost its connection. It may be back soon.");
        ErrorPage::new(503, 724, text)
    }

    /// The request passed the most endpoints.
    pub fn too_many_forwards(most: usize) -> Self {
        let text =
            format!("The traffic policies forward the request through more than {most} endpoints.");
        ErrorPage::new(508, 3501, text)
    }

    /// The stream to the agent was refused, or the session ended.
    pub fn no_stream() -> Self {
        ErrorPage::new(502, 3210, "The connection could not be passed on to the agent. Try again.")
    }

    /// The edge has no place for the visitor.
    pub fn edge_full() -> Self {
        ErrorPage::new(503, 702, "The edge serves its maximum number of visitors.")
    }

    /// The agent has too many streams.
    pub fn agent_full() -> Self {
        ErrorPage::new(
            503,
            702,
            "The agent serves its maximum number of connections. Try again in a moment.",
        )
    }

    /// The request is not valid HTTP/1.
    pub fn bad_request(error: HttpError) -> Self {
        let text = format!("The request was not accepted. {}", error.sentence());
        ErrorPage::new(error.status(), 0, text)
    }

    /// The upstream did not send a valid response.
    pub fn bad_answer(fault: UpstreamFault) -> Self {
        let text = match fault {
            UpstreamFault::Invalid(error) => format!(
                "The service behind this address sent an invalid response. {}",
                error.sentence()
            ),
            UpstreamFault::Closed => "The service behind this address closed the connection \
                                      before it sent a response."
                .to_owned(),
            UpstreamFault::BrokeOff => "The connection to the service behind this address failed \
                before it sent a response. If the service expects \
                                        HTTPS, write https:// in front of its address in the \
                                        configuration of the agent."
                .to_owned(),
        };
        ErrorPage::new(502, 3004, text)
    }

    /// The visitor's address is not allowed.
    pub fn forbidden() -> Self {
        ErrorPage::new(403, 3205, "This endpoint does not accept connections from your address.")
    }

    /// Returns the whole response as bytes.
    pub fn render(&self, format: PageFormat) -> Vec<u8> {
        let reason = reason(self.status);
        let mut code = String::new();
        if self.code != 0 {
            // Writing to a String cannot fail.
            let _ = write!(code, "ERR_NGROK_{}", self.code);
        }
        let (kind, body) = self.body(reason, &code, format.html);
        let has_body = !status::has_no_body(self.status);
        let mut out = format!("HTTP/1.1 {} {reason}\r\n", self.status);
        if has_body {
            let _ = write!(out, "Content-Length: {}\r\n", body.len());
        }
        // An action may set these itself.
        let mut usual = |name: &str, value: &str| {
            if !value.is_empty() && !self.fields.iter().any(|(n, _)| n.eq_ignore_ascii_case(name)) {
                let _ = write!(out, "{name}: {value}\r\n");
            }
        };
        usual("Content-Type", &kind);
        usual("Cache-Control", "no-store");
        // The edge does not know when a response of a policy changes.
        let is_transient = self.content.is_none() && matches!(self.status, 429 | 503);
        usual("Retry-After", if is_transient { "1" } else { "" });
        if !code.is_empty() {
            let _ = write!(out, "ngrok-error-code: {code}\r\n");
        }
        for (name, value) in &self.fields {
            let _ = write!(out, "{name}: {value}\r\n");
        }
        if format.close {
            out.push_str("Connection: close\r\n");
        }
        out.push_str("\r\n");
        if has_body && !format.head_only {
            out.push_str(&body);
        }
        out.into_bytes()
    }

    /// Returns the type of the body and the body.
    fn body(&self, reason: &str, code: &str, html: bool) -> (Cow<'static, str>, String) {
        if let Some(ReplyContent { kind, body }) = &self.content {
            return (kind.clone(), body.clone());
        }
        let title = format!("{}: {}", self.status, reason.to_lowercase());
        if html {
            let body = format!(
                "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
                 <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
                 <style>body{{font:16px/1.5 sans-serif;max-width:44em;margin:3em auto;\
                 padding:0 1em}}</style>\n<h1>{title}</h1>\n<p>{}</p>\n<p>{code}</p>\n</html>\n",
                escape(&self.text)
            );
            ("text/html; charset=utf-8".into(), body)
        } else {
            let text: String =
                self.text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            ("text/plain; charset=utf-8".into(), format!("{title}\n\n{text}\n\n{code}\n"))
        }
    }
}

/// Returns the reason phrase of a code that the edge or an action sends. Codes that only a policy
/// chooses are named here and not in `http1`, which is a part of the agent too.
fn reason(status: u16) -> &'static str {
    match status {
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        402 => "Payment Required",
        406 => "Not Acceptable",
        409 => "Conflict",
        410 => "Gone",
        422 => "Unprocessable Content",
        451 => "Unavailable For Legal Reasons",
        508 => "Loop Detected",
        _ => status::reason(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(page: &ErrorPage, format: PageFormat) -> (String, String) {
        let text = String::from_utf8(page.render(format)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[test]
    fn a_program_gets_text_and_the_code() {
        let (head, body) = parts(&ErrorPage::unknown_host("a.example"), PageFormat::default());
        assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n"));
        assert!(head.contains("ngrok-error-code: ERR_NGROK_3200"));
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        assert!(body.contains("a.example") && body.contains("ERR_NGROK_3200"));
        assert!(!head.contains("Connection: close"));
    }

    #[test]
    fn codes_of_policies_have_a_reason_phrase() {
        for (status, line) in [
            (301, "HTTP/1.1 301 Moved Permanently"),
            (308, "HTTP/1.1 308 Permanent Redirect"),
            (410, "HTTP/1.1 410 Gone"),
            (404, "HTTP/1.1 404 Not Found"),
            (508, "HTTP/1.1 508 Loop Detected"),
        ] {
            let (head, _) = parts(&ErrorPage::new(status, 0, ""), PageFormat::default());
            assert_eq!(head.lines().next(), Some(line));
        }
    }

    #[test]
    fn only_pages_of_the_edge_ask_for_another_attempt() {
        let page = ErrorPage::agent_away("a.example");
        assert!(parts(&page, PageFormat::default()).0.contains("\r\nRetry-After: 1"));
        let content = Some(ReplyContent { kind: "text/plain".into(), body: "maintenance".into() });
        let page = ErrorPage { content, ..page };
        let (head, body) = parts(&page, PageFormat::default());
        assert_eq!((head.contains("Retry-After"), body.as_str()), (false, "maintenance"));
    }

    #[test]
    fn a_browser_gets_html_without_foreign_markup() {
        let page = ErrorPage::new(502, 3004, "<script>\u{1b}");
        let (head, body) = parts(&page, PageFormat { html: true, close: true, head_only: false });
        assert!(head.contains("text/html") && head.contains("Connection: close"));
        assert!(body.contains(r"&lt;script&gt;\x1b"));
    }

    #[test]
    fn a_refused_request_is_told_why_in_whole_sentences() {
        for error in HttpError::ALL {
            let (head, body) = parts(&ErrorPage::bad_request(error), PageFormat::default());
            let text = body.split("\n\n").nth(1).unwrap();
            let sentence = error.sentence();
            assert_eq!(text, format!("The request was not accepted. {sentence}"));
            assert!(head.starts_with(&format!("HTTP/1.1 {} ", error.status())), "{head}");
            assert!(!head.contains(" Error\r\n"), "a status without its reason: {head}");
        }
    }

    #[test]
    fn a_response_that_is_not_passed_on_is_explained_in_whole_sentences() {
        let invalid = HttpError::ALL.map(UpstreamFault::Invalid);
        for fault in invalid.into_iter().chain([UpstreamFault::Closed, UpstreamFault::BrokeOff]) {
            let (_, body) = parts(&ErrorPage::bad_answer(fault), PageFormat::default());
            let text = body.split("\n\n").nth(1).unwrap();
            let sentences: Vec<&str> = text.split_inclusive(". ").collect();
            assert!((1..=2).contains(&sentences.len()), "{text}");
            for sentence in sentences {
                assert!(sentence.starts_with(char::is_uppercase), "{text}");
                assert!(sentence.trim_end().ends_with('.'), "{text}");
            }
            assert!(!text.contains("  ") && !text.contains(".."), "{text}");
        }
    }

    #[test]
    fn head_gets_the_length_only() {
        let (head, body) =
            parts(&ErrorPage::no_stream(), PageFormat { head_only: true, ..PageFormat::default() });
        assert!(!head.contains("Content-Length: 0"));
        assert_eq!(body, "");
    }
}
