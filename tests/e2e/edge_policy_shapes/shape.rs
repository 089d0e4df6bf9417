//! Format of the files with shapes: a list of policies, each with its requests. What a request
//! causes is checked elsewhere.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// A policy, and requests that show what it does.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Purpose of the policy.
    pub shape: String,
    /// URL of the endpoint without a port. Default: `http://` and a name of its own.
    pub url: Option<String>,
    /// The policy, or its text.
    pub policy: Value,
    /// Internal endpoints by URL, each with its policy or null. The upstream has the name of the
    /// host without `.internal`.
    #[serde(default)]
    pub internal: BTreeMap<String, Value>,
    /// Requests in their order. A file of `bind` faults has none.
    pub requests: Vec<Check>,
}

/// A request, and what the visitor gets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Method and target.
    #[serde(default = "get")]
    pub send: String,
    /// `Host` without a port, if it is not that of the endpoint.
    pub host: Option<String>,
    /// Header lines.
    #[serde(default)]
    pub headers: BTreeMap<String, Texts>,
    /// Body of the request.
    #[serde(default)]
    pub body: String,
    /// A line for an endpoint without HTTP, in place of a request.
    pub line: Option<String>,
    /// Name in the certificate of the client. The CA of `stranger` is not `<ca>`.
    pub client: Option<String>,
    /// Whether the client has no version above TLS 1.2.
    #[serde(default)]
    pub old_tls: bool,
    /// Claims of the ID token. The visitor logs in before the request.
    pub login: Option<Map<String, Value>>,
    /// Claims of `<token>`.
    pub token: Option<Map<String, Value>>,
    /// How `<mac>` is computed.
    pub mac: Option<Mac>,

    /// Response of the upstream. Default: 200 with the request as the upstream got it.
    pub reply: Option<Reply>,

    /// Status of the response.
    #[serde(default = "ok")]
    pub status: u16,
    /// Upstream that responds; `app` is that of the endpoint. Default: the edge itself. With
    /// several names the request is repeated until all of them have responded.
    #[serde(default)]
    pub by: Texts,
    /// Header lines of the response, in which `*` is any text. Null: the line is missing.
    #[serde(default)]
    pub fields: BTreeMap<String, Option<String>>,
    /// Texts in the decoded body of the response.
    #[serde(default)]
    pub has: Texts,
    /// Texts that are not in it.
    #[serde(default)]
    pub lacks: Texts,
    /// Whether the connection is closed without a response.
    #[serde(default)]
    pub closed: bool,
    /// Text in a line `policy log` of the edge.
    pub logs: Option<String>,
}

/// Response of an upstream.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// Its status.
    #[serde(default = "ok")]
    pub status: u16,
    /// Header lines. Without `content-type` it is text.
    #[serde(default)]
    pub headers: BTreeMap<String, Texts>,
    /// Its body. Default: the request.
    pub body: Option<String>,
}

/// A MAC over a text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mac {
    /// `sha1`, `sha256` or `sha512`.
    #[serde(default = "sha256")]
    pub hash: String,
    /// Whether it is base64, not hexadecimal.
    #[serde(default)]
    pub base64: bool,
    /// Key.
    pub key: String,
    /// Text; the body if absent.
    pub over: Option<String>,
}

/// A text, a list of texts, or none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "OneOrMany")]
pub struct Texts(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Texts {
    fn from(texts: OneOrMany) -> Self {
        match texts {
            OneOrMany::One(text) => Texts(vec![text]),
            OneOrMany::Many(texts) => Texts(texts),
        }
    }
}

fn get() -> String {
    "GET /".to_owned()
}

fn ok() -> u16 {
    200
}

fn sha256() -> String {
    "sha256".to_owned()
}

/// Reads a file.
#[track_caller]
pub fn parse(name: &str, text: &str) -> Vec<Shape> {
    let shapes: Vec<Shape> =
        serde_yaml::from_str(text).unwrap_or_else(|e| panic!("{name}.yml: {e}"));
    for shape in &shapes {
        assert!(!shape.requests.is_empty(), "{name}.yml: {} has no requests", shape.shape);
    }
    shapes
}
