//! Sends a request to the REST API, with the key. The key is sent to no other address: redirects
//! to another origin lose it, and it leaves this machine over TLS only.

use std::time::Duration;

use super::request::ApiRequest;
use super::response;
use crate::config::Cas;
use crate::net::http_client::{self, Client, Request};
use crate::net::url::{Url, is_loopback_host};
use crate::proto::secret::Secret;
use crate::sys;
use crate::time::Deadline;

/// The API of the vendor, the default.
pub const VENDOR_URL: &str = "https://api.ngrok.com";

/// Time for one call. Commands to an agent wait for its response.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Time to fetch the text of a flag.
const FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// Largest response.
const MAX_RESPONSE_BYTES: usize = 4 << 20;

/// The API, and the means to connect to it.
#[derive(Debug)]
pub struct ApiAddress {
    /// Its address, without the path of a resource.
    pub url: String,
    /// CAs that are trusted for its certificate.
    pub cas: Cas,
    /// Proxy for connections; empty: the environment decides.
    pub proxy_url: Secret,
    /// Key of the API.
    pub key: Secret,
}

/// Response of the API.
#[derive(Debug)]
pub struct ApiResponse {
    /// Status without the version of HTTP.
    pub status: String,
    /// The JSON, indented, or empty; or the error for the user.
    pub text: Result<String, String>,
}

impl ApiAddress {
    /// Checks the address and the form of the key.
    pub fn check(&self) -> Result<(), String> {
        let url = Url::parse(&self.url).map_err(|why| format!("the address of the API: {why}"))?;
        if url.target.contains('?') {
            return Err("the address of the API has a query; leave it out".to_owned());
        }
        if !url.secure && !is_loopback_host(&url.host) {
            return Err(format!(
                "the key would leave this machine without TLS; write https://{}",
                url.authority()
            ));
        }
        if !self.key.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the API key has a character that keys do not have; copy it again".into());
        }
        Ok(())
    }

    /// Sends the request. The error is that of the connection.
    pub fn call(&self, request: &ApiRequest) -> Result<ApiResponse, String> {
        let url = format!("{}{}", self.url.trim_end_matches('/'), request.target);
        let bearer = Secret::new(format!("Bearer {}", self.key.expose()));
        let mut headers = vec![("authorization", bearer.expose()), ("ngrok-version", "2")];
        if request.body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let request = Request {
            method: request.method,
            url: &url,
            headers: &headers,
            body: request.body.as_deref().map(str::as_bytes),
            limit: MAX_RESPONSE_BYTES,
            deadline: Deadline::At(sys::clock() + CALL_TIMEOUT),
        };
        // A proxy would get the key without TLS, and connect to its own machine. The proxy of the
        // environment is not used for such addresses either.
        let is_local = Url::parse(&self.url).is_ok_and(|url| is_loopback_host(&url.host));
        let proxy_url = if is_local { Secret::default() } else { self.proxy_url.clone() };
        let connect =
            |host: &str, port, deadline| http_client::connect(&proxy_url, host, port, deadline);
        let mut body = Vec::new();
        let code = Client::new(&connect, &self.cas)
            .send(&request, &mut body)
            .map_err(|error| format!("the request failed: {error}; check --api-url, --api-cas"))?;
        let text = response::text(code, &body, &self.key);
        Ok(ApiResponse { status: response::status_line(code), text })
    }
}

/// Returns the text at the URL of a flag, at most `limit` bytes. The key is not sent.
pub fn fetch(url: &str, limit: usize) -> Result<Vec<u8>, String> {
    let deadline = Deadline::At(sys::clock() + FETCH_TIMEOUT);
    Client::by_environment().get(url, limit, deadline).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(url: &str, key: &str) -> Result<(), String> {
        let (url, key) = (url.to_owned(), Secret::new(key));
        ApiAddress { url, cas: Cas::Host, proxy_url: Secret::default(), key }.check()
    }

    #[test]
    fn the_key_does_not_leave_the_machine_without_tls() {
        for url in [VENDOR_URL, "http://127.0.0.1:4041", "http://[::1]:1/x", "http://localhost"] {
            assert_eq!(checked(url, "ak_x"), Ok(()), "{url}");
        }
        for url in ["http://edge.example", "http://192.168.1.1:4041", "ftp://x", "", "x.example"] {
            assert!(checked(url, "ak_x").is_err(), "{url}");
        }
        for key in ["a b", "a\nb", "ä"] {
            let error = checked(VENDOR_URL, key).expect_err("the key");
            assert!(!error.contains(key), "{error}");
        }
    }
}
