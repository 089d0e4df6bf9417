//! Client of the REST API of `culvert-edge`.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

use super::process::plant_secret;
use super::wire::{Message, Wire};

/// The REST API of a running edge, with one of its keys.
#[derive(Clone, Debug)]
pub struct Rest {
    pub addr: SocketAddr,
    pub key: String,
}

impl Rest {
    /// Returns the API with the key of a state directory.
    pub fn new(addr: SocketAddr, key_file: &Path) -> Self {
        let key = fs::read_to_string(key_file).unwrap().trim().to_owned();
        plant_secret(&key);
        Rest { addr, key }
    }

    /// The same API with another key.
    pub fn with_key(&self, key: &str) -> Self {
        Rest { addr: self.addr, key: key.to_owned() }
    }

    /// Sends a request on a connection of its own, with these header fields (each with CR LF)
    /// and nothing else.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, fields: &str, body: &[u8]) -> Message {
        let mut wire = Wire::connect(self.addr).unwrap();
        let length = match body.len() {
            0 => String::new(),
            n => format!("Content-Length: {n}\r\n"),
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{length}{fields}Connection: close\r\n\r\n",
            self.addr
        );
        wire.write([head.as_bytes(), body].concat()).unwrap();
        wire.read_response(method).unwrap()
    }

    /// Returns the fields that each request needs.
    pub fn fields(&self) -> String {
        format!(
            "Authorization: Bearer {}\r\nNgrok-Version: 2\r\nContent-Type: application/json\r\n",
            self.key
        )
    }

    /// Sends a request. Returns status and JSON; null without a body.
    #[track_caller]
    pub fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.send(method, path, &self.fields(), body.as_bytes());
        let text = answer.text();
        let json = match text.is_empty() {
            true => Value::Null,
            false => serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")),
        };
        if let Some(token) = json["token"].as_str() {
            plant_secret(token);
        }
        (answer.status(), json)
    }

    /// Sends a GET that succeeds.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        let (status, json) = self.call("GET", path, &Value::Null);
        assert_eq!(status, 200, "{path}: {json}");
        json
    }

    /// Creates an object.
    #[track_caller]
    pub fn create(&self, path: &str, body: &Value) -> Value {
        let (status, json) = self.call("POST", path, body);
        assert_eq!(status, 201, "{path}: {json}");
        json
    }

    /// Changes an object.
    #[track_caller]
    pub fn change(&self, path: &str, body: &Value) -> Value {
        let (status, json) = self.call("PATCH", path, body);
        assert_eq!(status, 200, "{path}: {json}");
        json
    }

    /// Removes an object.
    #[track_caller]
    pub fn remove(&self, path: &str) {
        assert_eq!(self.call("DELETE", path, &Value::Null), (204, Value::Null), "{path}");
    }

    /// Sends a request that fails. Returns status and number of the error.
    #[track_caller]
    pub fn refused(&self, method: &str, path: &str, body: &Value) -> (u16, u64) {
        let (status, json) = self.call(method, path, body);
        error_of(status, &json)
    }
}

/// Returns status and number of an error body, whose form it checks.
#[track_caller]
pub fn error_of(status: u16, json: &Value) -> (u16, u64) {
    let text = |key: &str| json[key].as_str().unwrap_or_else(|| panic!("{key} in {json}"));
    assert_eq!(json["status_code"], status, "{json}");
    assert!(text("msg").len() > 10, "{json}");
    let operation = json["details"]["operation_id"].as_str().unwrap();
    assert!(operation.starts_with("op_") && operation.len() == 30, "{json}");
    let code = text("error_code").strip_prefix("ERR_NGROK_").and_then(|n| n.parse().ok());
    (status, code.unwrap_or_else(|| panic!("{json}")))
}
