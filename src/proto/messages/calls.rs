//! Further calls (protocol 5.7).

use super::error_of;
use crate::proto::codes::Refusal;
use crate::proto::fields::{DecodeError, Fields, Writer, parse};

/// Request for a tunnel with labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartTunnelWithLabelRequest {
    /// Names and values.
    pub labels: Vec<(String, String)>,
    /// The upstream, for display.
    pub forwards_to: String,
    /// Empty, `http1` or `http2`.
    pub forwards_proto: String,
    /// Free text of the user.
    pub metadata: String,
}

impl StartTunnelWithLabelRequest {
    /// Returns the JSON, with every key.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.object("Labels", |out| {
            for (name, value) in &self.labels {
                out.text(name, value);
            }
        });
        out.text("ForwardsTo", &self.forwards_to)
            .text("ForwardsProto", &self.forwards_proto)
            .text("Metadata", &self.metadata);
        out.finish()
    }

    /// Parses the JSON.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let map = parse(bytes)?;
        let fields = Fields::of(&map);
        let wrong = DecodeError::Type { key: "Labels", wanted: "an object of strings" };
        let labels = fields.object("Labels")?;
        let labels = labels.entries().map(|(name, value)| {
            let value = if value.is_null() { Some("") } else { value.as_str() };
            Some((name.clone(), value?.to_owned()))
        });
        Ok(StartTunnelWithLabelRequest {
            labels: labels.collect::<Option<_>>().ok_or(wrong)?,
            forwards_to: fields.text("ForwardsTo")?,
            forwards_proto: fields.text("ForwardsProto")?,
            metadata: fields.text("Metadata")?,
        })
    }
}

/// Response of the edge to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartTunnelWithLabelResponse {
    /// Id in proxy headers.
    pub id: String,
    /// Reason of a refusal.
    pub error: Option<Refusal>,
}

impl StartTunnelWithLabelResponse {
    /// Returns the JSON, with every key.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.text("Id", &self.id).text("Error", &Refusal::field(&self.error));
        out.finish()
    }

    /// Parses the JSON.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let map = parse(bytes)?;
        let fields = Fields::of(&map);
        match error_of(fields)? {
            Some(error) => Ok(Self { error: Some(error), ..Self::default() }),
            None => Ok(Self { id: fields.text("Id")?, error: None }),
        }
    }
}

/// Response with the location of the edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SrvInfoResponse {
    /// Its region.
    pub region: String,
}

impl SrvInfoResponse {
    /// Returns the JSON.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.text("Region", &self.region);
        out.finish()
    }

    /// Parses the JSON.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let map = parse(bytes)?;
        Ok(SrvInfoResponse { region: Fields::of(&map).text("Region")? })
    }
}

/// The edge takes one endpoint down. Without a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopTunnel {
    /// Id of the endpoint.
    pub id: String,
    /// Text for the user.
    pub message: String,
    /// Code of the reason; may be empty.
    pub error_code: String,
}

impl StopTunnel {
    /// Returns the JSON, with every key.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.text("Id", &self.id).text("Message", &self.message).text("ErrorCode", &self.error_code);
        out.finish()
    }

    /// Parses the JSON.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let map = parse(bytes)?;
        let fields = Fields::of(&map);
        Ok(StopTunnel {
            id: fields.text("Id")?,
            message: fields.text("Message")?,
            error_code: fields.text("ErrorCode")?,
        })
    }
}

/// Request of the edge to update the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpdateRequest {
    /// The requested version; empty: the newest.
    pub version: String,
    /// Whether a new major version is allowed.
    pub permit_major_version: bool,
}

impl UpdateRequest {
    /// Returns the JSON, with every key.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.text("Version", &self.version).flag("PermitMajorVersion", self.permit_major_version);
        out.finish()
    }

    /// Parses the JSON.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let map = parse(bytes)?;
        let fields = Fields::of(&map);
        Ok(UpdateRequest {
            version: fields.text("Version")?,
            permit_major_version: fields.flag("PermitMajorVersion")?,
        })
    }
}

/// Request to change an endpoint that is up. `None`: unchanged; empty: cleared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchRequest {
    /// `Extra.TunnelID` of the Bind response.
    pub tunnel_id: String,
    /// New name.
    pub name: Option<String>,
    /// New description.
    pub description: Option<String>,
    /// New metadata.
    pub metadata: Option<String>,
    /// New policy.
    pub traffic_policy: Option<String>,
    /// New pooling.
    pub pooling_enabled: Option<bool>,
}

impl PatchRequest {
    /// Returns the JSON, with the keys that change.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.text("TunnelId", &self.tunnel_id);
        let texts = [
            ("Name", &self.name),
            ("Description", &self.description),
            ("Metadata", &self.metadata),
            ("TrafficPolicy", &self.traffic_policy),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                out.text(key, text);
            }
        }
        if let Some(flag) = self.pooling_enabled {
            out.flag("PoolingEnabled", flag);
        }
        out.finish()
    }

    /// Parses the JSON.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let map = parse(bytes)?;
        let fields = Fields::of(&map);
        Ok(PatchRequest {
            tunnel_id: fields.text("TunnelId")?,
            name: fields.optional_text("Name")?,
            description: fields.optional_text("Description")?,
            metadata: fields.optional_text("Metadata")?,
            traffic_policy: fields.optional_text("TrafficPolicy")?,
            pooling_enabled: fields.optional_flag("PoolingEnabled")?,
        })
    }
}

/// Response to Stop, Restart, Update, Unbind and PatchTunnelState.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandResponse {
    /// Reason of a refusal.
    pub error: Option<Refusal>,
}

impl CommandResponse {
    /// Returns a refusal.
    pub fn refused(error: Refusal) -> Self {
        CommandResponse { error: Some(error) }
    }

    /// Returns the JSON.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.text("Error", &Refusal::field(&self.error));
        out.finish()
    }

    /// Parses the JSON.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let map = parse(bytes)?;
        Ok(CommandResponse { error: error_of(Fields::of(&map))? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let labels = StartTunnelWithLabelRequest {
            labels: vec![("app".into(), "x".into()), ("é\"".into(), String::new())],
            forwards_to: "localhost:80".into(),
            forwards_proto: "http2".into(),
            metadata: "m".into(),
        };
        assert_eq!(StartTunnelWithLabelRequest::decode(&labels.encode()), Ok(labels));

        let started = StartTunnelWithLabelResponse { id: "l1".into(), error: None };
        assert_eq!(StartTunnelWithLabelResponse::decode(&started.encode()), Ok(started));

        let stop = StopTunnel { id: "b".into(), message: "m".into(), error_code: "e".into() };
        assert_eq!(StopTunnel::decode(&stop.encode()), Ok(stop));

        let update = UpdateRequest { version: "2".into(), permit_major_version: true };
        assert_eq!(UpdateRequest::decode(&update.encode()), Ok(update));

        let info = SrvInfoResponse { region: "eu".into() };
        assert_eq!(SrvInfoResponse::decode(&info.encode()), Ok(info));
    }

    #[test]
    fn the_worked_answer_to_stop() {
        assert_eq!(CommandResponse::default().encode(), br#"{"Error":""}"#);
        for json in [&b"{}"[..], br#"{"Error":null}"#, br#"{"Error":""}"#] {
            assert_eq!(CommandResponse::decode(json), Ok(CommandResponse::default()));
        }
        let refused = CommandResponse::decode(br#"{"error":"no handler"}"#).expect("an answer");
        assert_eq!(refused.error, Some(Refusal::text("no handler")));
    }

    #[test]
    fn a_patch_tells_cleared_from_unchanged() {
        let patch = PatchRequest {
            tunnel_id: "ep".into(),
            metadata: Some(String::new()),
            pooling_enabled: Some(false),
            ..PatchRequest::default()
        };
        assert_eq!(patch.encode(), br#"{"TunnelId":"ep","Metadata":"","PoolingEnabled":false}"#);
        assert_eq!(PatchRequest::decode(&patch.encode()), Ok(patch));
    }

    #[test]
    fn labels_must_be_strings() {
        let error = StartTunnelWithLabelRequest::decode(br#"{"Labels":{"a":1}}"#);
        assert_eq!(
            error.map_err(|e| e.to_string()),
            Err("Labels must be an object of strings".into())
        );
    }
}
