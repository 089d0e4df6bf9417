//! A REST API with scripted responses. It records the requests.

use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;

use super::PATIENCE;
use super::upstream::Upstream;
use super::wire::Message;

/// A running API.
pub struct RestApi {
    upstream: Upstream,
    scheme: &'static str,
    requests: Receiver<Message>,
}

impl RestApi {
    /// Starts an API with one response to all requests.
    pub fn start(status: &'static str, body: &'static str) -> Self {
        RestApi::with(status, "Content-Type: application/json\r\n", body, None)
    }

    /// The same with further header lines, optionally with TLS.
    pub fn with(
        status: &'static str,
        fields: &'static str,
        body: &'static str,
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        let (sender, requests) = mpsc::channel();
        let (sender, scheme) = (Mutex::new(sender), if tls.is_some() { "https" } else { "http" });
        let upstream = Upstream::http_on("127.0.0.1:0", tls, move |request, wire| {
            let _ = sender.lock().unwrap().send(request.clone());
            match status {
                "204 No Content" => wire.write("HTTP/1.1 204 No Content\r\n\r\n"),
                _ => wire.respond(status, fields, body.as_bytes()),
            }
        });
        RestApi { upstream, scheme, requests }
    }

    /// Returns its address, for `--api-url`.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.upstream.addr)
    }

    /// Returns the next request.
    #[track_caller]
    pub fn request(&self) -> Message {
        self.requests.recv_timeout(PATIENCE).expect("a request")
    }

    /// Returns whether there was no further request.
    pub fn is_quiet(&self) -> bool {
        self.requests.try_recv().is_err()
    }
}
