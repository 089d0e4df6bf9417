//! Responses of the REST API: the result as indented JSON, or the error for the user.

use serde_json::Value;

use crate::http1::status;
use crate::proto::secret::Secret;

/// Returns the status line without the version of HTTP: `200 OK`.
pub fn status_line(code: u16) -> String {
    format!("{code} {}", status::reason(code)).trim_end().to_owned()
}

/// Returns the JSON of a successful response, indented, with a line end. It is empty if the
/// response has no body. The error does not contain `key`.
pub fn text(code: u16, body: &[u8], key: &Secret) -> Result<String, String> {
    if !(200..300).contains(&code) {
        let text = error_text(code, body);
        return Err(if key.is_empty() { text } else { text.replace(key.expose(), "***") });
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(String::new());
    }
    let value: Value = serde_json::from_slice(body).map_err(|_| {
        format!("HTTP {}: the response is not JSON; check --api-url", status_line(code))
    })?;
    Ok(format!("{value:#}\n"))
}

/// Returns the error in a response: the message, the code and the id of the operation.
fn error_text(code: u16, body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let Some(message) = value["msg"].as_str() else {
        return format!(
            "HTTP {}: the response is not an error of the API; check --api-url",
            status_line(code)
        );
    };
    let mut text = format!("HTTP {code}: {message}");
    if let Some(code) = value["error_code"].as_str().filter(|code| !code.is_empty()) {
        text.push_str(&format!(" [{code}]"));
    }
    if let Some(id) = value["details"]["operation_id"].as_str() {
        text.push_str(&format!("\n\nOperation ID: {id}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Secret {
        Secret::new("hush")
    }

    #[test]
    fn json_is_indented_in_its_order() {
        let body = br#"{"uri":"/x","id":"ts_1","list":[],"n":{"a":1}}"#;
        let expected = "{\n  \"uri\": \"/x\",\n  \"id\": \"ts_1\",\n  \"list\": [],\n  \"n\": {\n    \
                        \"a\": 1\n  }\n}\n";
        assert_eq!(text(200, body, &key()).as_deref(), Ok(expected));
        assert_eq!(text(204, b"", &key()).as_deref(), Ok(""));
        assert_eq!(status_line(204), "204 No Content");
    }

    #[test]
    fn errors_have_the_code_and_the_operation() {
        let body = br#"{"error_code":"ERR_NGROK_202","status_code":401,"msg":"hush is no key",
                        "details":{"operation_id":"op_1"}}"#;
        let expected = "HTTP 401: *** is no key [ERR_NGROK_202]\n\nOperation ID: op_1";
        assert_eq!(text(401, body, &key()).unwrap_err(), expected);
        let page = text(502, b"<html>", &key()).unwrap_err();
        assert!(page.starts_with("HTTP 502 Bad Gateway: the response is not an error"), "{page}");
        let page = text(200, b"<html>", &key()).unwrap_err();
        assert!(page.starts_with("HTTP 200 OK: the response is not JSON"), "{page}");
    }
}
