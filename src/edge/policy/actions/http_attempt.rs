//! Results of `http-request` as variables: its request, each attempt, and the last response.
//! Nothing is sent here.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::edge::fetch::{FetchError, FetchResponse};
use crate::http1::text::char_boundary;

/// Most bytes of a body in the variables.
const MAX_SHOWN_BYTES: usize = 48 * 1024;

/// Most bytes of the header of each attempt in the variables. That of the last response is in
/// `res`.
const MAX_ATTEMPT_HEADER_BYTES: usize = 1024;

/// Names and values of a header.
type Lines = [(String, String)];

/// A request with its expressions evaluated.
pub struct RenderedRequest {
    /// Method by name.
    pub method: &'static str,
    /// URL with its query.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// Body; `None` for none.
    pub body: Option<String>,
}

/// An attempt.
pub struct Attempt {
    /// The response, or why there is none.
    pub result: Result<FetchResponse, FetchError>,
    /// Time that it took.
    pub time: Duration,
}

impl RenderedRequest {
    fn variables(&self) -> Value {
        json!({
            "method": self.method,
            "header": header(&self.headers, usize::MAX),
            "url": self.url,
            "body": self.body.as_deref().unwrap_or_default(),
        })
    }
}

impl Attempt {
    /// Gives the body's memory back. Only the last attempt has a body in the variables.
    pub fn release_body(&mut self) {
        if let Ok(response) = &mut self.result {
            response.body = Vec::new();
        }
    }

    fn milliseconds(&self) -> String {
        self.time.as_millis().to_string()
    }

    fn variables(&self) -> Value {
        let mut variables = json!({ "response_time_ms": self.milliseconds() });
        match &self.result {
            Ok(response) => {
                variables["resolved_ip"] = json!(address(response));
                variables["response_header"] = header(&response.headers, MAX_ATTEMPT_HEADER_BYTES);
                variables["response_status_code"] = json!(response.status);
            }
            Err(error) => variables["error"] = json!(error.to_string()),
        }
        variables
    }

    fn response(&self, response: &FetchResponse) -> Value {
        let (shown, _) = response.body.split_at(response.body.len().min(MAX_SHOWN_BYTES));
        // A byte that is not UTF-8 becomes three.
        let shown = String::from_utf8_lossy(shown);
        let shown = &shown[..char_boundary(&shown, MAX_SHOWN_BYTES)];
        let mut variables = self.response_without_content(response);
        variables["header"] = header(&response.headers, usize::MAX);
        variables["body"] = json!(shown);
        variables
    }

    fn response_without_content(&self, response: &FetchResponse) -> Value {
        json!({
            "resolved_ip": address(response),
            "status_code": response.status,
            "time_ms": self.milliseconds(),
        })
    }
}

/// Returns `actions.ngrok.http_request` after these attempts.
pub fn variables(request: &RenderedRequest, attempts: &[Attempt]) -> Value {
    let mut variables = request_and_attempts(request, attempts);
    match attempts.last().map(|last| (last, &last.result)) {
        Some((last, Ok(response))) => variables["res"] = last.response(response),
        Some((_, Err(error))) => {
            let code = match error.code {
                0 => String::new(),
                code => format!("ERR_NGROK_{code}"),
            };
            variables["error"] = json!({ "code": code, "message": error.to_string() });
        }
        None => {}
    }
    variables
}

/// Returns the variables if headers and body of the response have no room in them. The status
/// stays: a rule that refuses by it must not be passed with a large response.
pub fn without_content(request: &RenderedRequest, attempts: &[Attempt]) -> Value {
    let mut variables = request_and_attempts(request, attempts);
    if let Some((last, Ok(response))) = attempts.last().map(|last| (last, &last.result)) {
        variables["res"] = last.response_without_content(response);
    }
    let message = "the response is too large for the variables of the policy";
    variables["error"] = json!({ "code": "", "message": message });
    variables
}

fn request_and_attempts(request: &RenderedRequest, attempts: &[Attempt]) -> Value {
    json!({
        "req": request.variables(),
        "attempts": attempts.iter().map(Attempt::variables).collect::<Vec<_>>(),
    })
}

/// Returns `last_attempt` of `retry_condition`. The status has the name of the variables and the
/// one in ngrok's example.
pub fn last_attempt(request: &RenderedRequest, attempt: &Attempt) -> Value {
    let mut last = json!({ "req": request.variables() });
    match &attempt.result {
        Ok(response) => {
            last["res"] = attempt.response(response);
            last["res"]["statusCode"] = json!(response.status);
        }
        Err(error) => last["error"] = json!(error.to_string()),
    }
    last
}

fn address(response: &FetchResponse) -> String {
    response.address.map(|ip| ip.to_string()).unwrap_or_default()
}

/// Returns a header as lists of values by name, as far as it has at most `most` bytes.
fn header(lines: &Lines, most: usize) -> Value {
    let mut map = Map::new();
    let mut left = most;
    for (name, value) in lines {
        match left.checked_sub(name.len() + value.len()) {
            Some(rest) => left = rest,
            None => break,
        }
        let values = map.entry(name.clone()).or_insert_with(|| json!([]));
        if let Some(values) = values.as_array_mut() {
            values.push(json!(value));
        }
    }
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(body: Vec<u8>) -> Attempt {
        let response = FetchResponse { status: 200, headers: Vec::new(), body, address: None };
        Attempt { result: Ok(response), time: Duration::ZERO }
    }

    #[test]
    fn earlier_attempts_are_the_same_without_their_bodies() {
        let request =
            RenderedRequest { method: "GET", url: String::new(), headers: Vec::new(), body: None };
        let mut attempts = [attempt(b"one".to_vec()), attempt(b"two".to_vec())];
        let before = variables(&request, &attempts);
        attempts[0].release_body();
        assert_eq!(variables(&request, &attempts), before);
        assert!(attempts[0].result.as_ref().is_ok_and(|response| response.body.capacity() == 0));
        assert_eq!(before["res"]["body"], "two");
    }

    #[test]
    fn a_body_that_is_not_utf_8_is_as_long_as_a_text() {
        let request =
            RenderedRequest { method: "GET", url: String::new(), headers: Vec::new(), body: None };
        let attempts = [attempt(vec![0xff; MAX_SHOWN_BYTES])];
        let shown = &variables(&request, &attempts)["res"]["body"];
        assert_eq!(shown.as_str().map(str::len), Some(MAX_SHOWN_BYTES));
    }
}
