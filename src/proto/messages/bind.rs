//! Bind and Unbind: adding and removing endpoints (protocol 5.5, 5.7).
//!
//! `Opts` is stored as a whole. An agent must send unknown options back, and options that an
//! edge does not echo are lost at the next reconnect.

use std::fmt;

use serde_json::{Map, Value};

use super::error_of;
use crate::proto::codes::Refusal;
use crate::proto::fields::{DecodeError, Fields, Writer, parse};
use crate::proto::secret::Secret;

/// Request for an endpoint.
#[derive(Clone, Default, PartialEq)]
pub struct BindRequest {
    /// Empty, or during a reconnect the endpoint's earlier id.
    pub id: String,
    /// `https`, `http`, `tcp`, `tls`.
    pub proto: String,
    /// The upstream, for display.
    pub forwards_to: String,
    /// Empty, `http1` or `http2`.
    pub forwards_proto: String,
    /// Options for this protocol, as a whole. They may contain credentials.
    pub opts: Map<String, Value>,
    /// Further fields.
    pub extra: BindExtra,
}

/// Fields of every kind of endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindExtra {
    /// Name of the endpoint.
    pub name: String,
    /// Free text for display.
    pub description: String,
    /// Empty, or during a reconnect the token of the last Bind response.
    pub token: Secret,
    /// Free text of the user.
    pub metadata: String,
    /// `public`, `internal`, `kubernetes`.
    pub bindings: Vec<String>,
    /// Whether the URL is shared with other endpoints.
    pub pooling_enabled: bool,
}

impl BindRequest {
    /// Returns the JSON, with every key.
    pub fn encode(&self) -> Vec<u8> {
        let e = &self.extra;
        let mut out = Writer::new();
        out.text("Id", &self.id)
            .text("Proto", &self.proto)
            .text("ForwardsTo", &self.forwards_to)
            .text("ForwardsProto", &self.forwards_proto)
            .map("Opts", &self.opts);
        out.object("Extra", |out| {
            out.text("Name", &e.name)
                .text("Description", &e.description)
                .secret("Token", &e.token)
                .text("IPPolicyRef", "")
                .text("Metadata", &e.metadata)
                .texts("Bindings", &e.bindings)
                .flag("PoolingEnabled", e.pooling_enabled);
        });
        out.finish()
    }

    /// Parses the JSON.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let map = parse(bytes)?;
        let fields = Fields::of(&map);
        let e = fields.object("Extra")?;
        Ok(BindRequest {
            id: fields.text("Id")?,
            proto: fields.text("Proto")?,
            forwards_to: fields.text("ForwardsTo")?,
            forwards_proto: fields.text("ForwardsProto")?,
            opts: fields.object("Opts")?.map(),
            extra: BindExtra {
                name: e.text("Name")?,
                description: e.text("Description")?,
                token: e.secret("Token")?,
                metadata: e.text("Metadata")?,
                bindings: e.texts("Bindings")?,
                pooling_enabled: e.flag("PoolingEnabled")?,
            },
        })
    }
}

/// Response of the edge to a Bind.
#[derive(Clone, Default, PartialEq)]
pub struct BindResponse {
    /// Id in proxy headers.
    pub id: String,
    /// The public URL.
    pub url: String,
    /// As in the request.
    pub proto: String,
    /// Options of the request with the assigned values.
    pub opts: Map<String, Value>,
    /// Reason of a refusal.
    pub error: Option<Refusal>,
    /// Further fields.
    pub extra: BindResponseExtra,
}

/// Further fields of a Bind response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindResponseExtra {
    /// Token for the same URL after a reconnect.
    pub token: Secret,
    /// Public id of the endpoint.
    pub tunnel_id: String,
}

impl BindResponse {
    /// Returns a refusal.
    pub fn refused(error: Refusal) -> Self {
        BindResponse { error: Some(error), ..BindResponse::default() }
    }

    /// Returns the JSON, with every key.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.text("Id", &self.id)
            .text("URL", &self.url)
            .text("Proto", &self.proto)
            .map("Opts", &self.opts)
            .text("Error", &Refusal::field(&self.error));
        out.object("Extra", |out| {
            out.secret("Token", &self.extra.token).text("TunnelID", &self.extra.tunnel_id);
        });
        out.finish()
    }

    /// Parses the JSON.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let map = parse(bytes)?;
        let fields = Fields::of(&map);
        if let Some(error) = error_of(fields)? {
            return Ok(BindResponse::refused(error));
        }
        let e = fields.object("Extra")?;
        Ok(BindResponse {
            id: fields.text("Id")?,
            url: fields.text("URL")?,
            proto: fields.text("Proto")?,
            opts: fields.object("Opts")?.map(),
            error: None,
            extra: BindResponseExtra { token: e.secret("Token")?, tunnel_id: e.text("TunnelID")? },
        })
    }
}

/// Without `opts`, which may contain passwords.
impl fmt::Debug for BindRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BindRequest")
            .field("id", &self.id)
            .field("proto", &self.proto)
            .field("forwards_to", &self.forwards_to)
            .field("extra", &self.extra)
            .finish_non_exhaustive()
    }
}

/// Without `opts`, which may contain passwords.
impl fmt::Debug for BindResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BindResponse")
            .field("id", &self.id)
            .field("url", &self.url)
            .field("error", &self.error)
            .field("extra", &self.extra)
            .finish_non_exhaustive()
    }
}

/// Request to remove an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnbindRequest {
    /// Id of the endpoint.
    pub id: String,
}

impl UnbindRequest {
    /// Returns the JSON, with every key.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.text("Id", &self.id).value("Extra", ());
        out.finish()
    }

    /// Parses the JSON.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let map = parse(bytes)?;
        Ok(UnbindRequest { id: Fields::of(&map).text("Id")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn round_trip_of_all_fields() {
        let request = BindRequest {
            id: "b1".into(),
            proto: "https".into(),
            forwards_to: "http://localhost:80".into(),
            forwards_proto: "http1".into(),
            opts: map(json!({"Domain": "a.example", "MutualTLSCA": {"mutual_tls_ca": "QUJD"}})),
            extra: BindExtra {
                name: "n".into(),
                description: "d".into(),
                token: Secret::new("t"),
                metadata: "m".into(),
                bindings: vec!["public".into()],
                pooling_enabled: true,
            },
        };
        let read = BindRequest::decode(&request.encode());
        assert!(read.as_ref() == Ok(&request), "{read:?}");

        let response = BindResponse {
            id: "b1".into(),
            url: "https://a.example".into(),
            proto: "https".into(),
            opts: request.opts.clone(),
            error: None,
            extra: BindResponseExtra { token: Secret::new("t"), tunnel_id: "ep_1".into() },
        };
        let read = BindResponse::decode(&response.encode());
        assert!(read.as_ref() == Ok(&response), "{read:?}");
    }

    #[test]
    fn options_are_kept_as_they_came() {
        let json = br#"{"Proto":"tls","Opts":{"LocalUrlScheme":null,"TLSTermination":{},"new":[1,{"x":2}]},"Extra":{"Bindings":null}}"#;
        let request = BindRequest::decode(json).expect("a request");
        assert_eq!(
            Value::Object(request.opts.clone()),
            json!({"LocalUrlScheme": null, "TLSTermination": {}, "new": [1, {"x": 2}]})
        );
        let again = BindRequest::decode(&request.encode()).expect("a request");
        assert!(again == request);
    }

    #[test]
    fn what_the_strict_clients_need_is_there() {
        let response = BindResponse { id: "b1".into(), ..BindResponse::default() };
        let value: Value = serde_json::from_slice(&response.encode()).expect("JSON");
        for path in ["/Id", "/URL", "/Proto", "/Error", "/Extra/Token"] {
            assert!(value.pointer(path).is_some_and(Value::is_string), "{path}");
        }
        assert!(value.pointer("/Opts").is_some_and(Value::is_object));
    }

    #[test]
    fn unbind_of_both_families() {
        for json in [r#"{"Id":"b1"}"#, "{\"Id\":\"b1\",\"Extra\":null}\n"] {
            let request = UnbindRequest::decode(json.as_bytes()).expect("a request");
            assert_eq!(request.id, "b1");
        }
    }

    #[test]
    fn passwords_are_not_printed() {
        let opts = map(json!({"Auth": "user:hush"}));
        let request = BindRequest { opts: opts.clone(), ..BindRequest::default() };
        let response = BindResponse { opts, ..BindResponse::default() };
        assert!(!format!("{request:?} {response:?}").contains("hush"));
    }
}
