//! Auth, the first call of a session (protocol 5.4).

use std::time::Duration;

use serde_json::Value;

use super::error_of;
use crate::proto::codes::Refusal;
use crate::proto::fields::{DecodeError, Fields, Writer, parse};
use crate::proto::secret::Secret;

/// Request of an agent to authenticate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthRequest {
    /// Versions of the protocol, the preferred first.
    pub versions: Vec<String>,
    /// Empty for a new session, else the id of the last Auth response.
    pub client_id: String,
    /// Further fields.
    pub extra: AuthExtra,
}

/// Properties of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthExtra {
    /// Go's name of the system, `linux`.
    pub os: String,
    /// Go's name of the architecture, `mipsle`.
    pub arch: String,
    /// The credential; may be empty.
    pub authtoken: Secret,
    /// Version of the client.
    pub version: String,
    /// Name of the machine. Clients do not send it.
    pub hostname: String,
    /// `name/version (comment)`.
    pub user_agent: String,
    /// Free text of the user.
    pub metadata: String,
    /// Cookie of the last Auth response; empty at first.
    pub cookie: Secret,
    /// Time between two heartbeats.
    pub heartbeat_interval: Duration,
    /// Time that an echo may be late.
    pub heartbeat_tolerance: Duration,
    /// Remote update: `None` unknown, empty supported, else the reason why it is not.
    pub update_unsupported: Option<String>,
    /// Remote stop, likewise.
    pub stop_unsupported: Option<String>,
    /// Remote restart, likewise.
    pub restart_unsupported: Option<String>,
    /// How the agent dialled: empty, `http`, `https` or `socks5`.
    pub proxy_type: String,
    /// Whether a client certificate was used.
    pub mutual_tls: bool,
    /// Whether the agent runs as a service.
    pub service_run: bool,
    /// Whether connections are bound to a network interface.
    pub custom_interface: bool,
    /// Whether other roots than the bundled one are trusted.
    pub custom_cas: bool,
    /// Version of the configuration file: empty, `2` or `3`.
    pub config_version: String,
    /// Name of the client.
    pub client_type: String,
    /// Index of this connection among those of the client.
    pub leg_number: u64,
    /// Streams that the agent carries on this connection, for `culvert-edge` alone. 0: not
    /// sent; as many as clients of other families carry.
    pub max_streams: u64,
}

impl AuthRequest {
    /// Returns the JSON, with every key.
    pub fn encode(&self) -> Vec<u8> {
        let e = &self.extra;
        let mut out = Writer::new();
        out.texts("Version", &self.versions).text("ClientId", &self.client_id);
        out.object("Extra", |out| {
            out.text("OS", &e.os)
                .text("Arch", &e.arch)
                .secret("Authtoken", &e.authtoken)
                .text("Version", &e.version)
                .text("Hostname", &e.hostname)
                .text("UserAgent", &e.user_agent)
                .text("Metadata", &e.metadata)
                .secret("Cookie", &e.cookie)
                .value("HeartbeatInterval", nanoseconds(e.heartbeat_interval))
                .value("HeartbeatTolerance", nanoseconds(e.heartbeat_tolerance))
                .value("Fingerprint", ())
                .optional("UpdateUnsupportedError", &e.update_unsupported)
                .optional("StopUnsupportedError", &e.stop_unsupported)
                .optional("RestartUnsupportedError", &e.restart_unsupported)
                .text("ProxyType", &e.proxy_type)
                .flag("MutualTLS", e.mutual_tls)
                .flag("ServiceRun", e.service_run)
                .flag("CustomInterface", e.custom_interface)
                .flag("CustomCAs", e.custom_cas)
                .text("ConfigVersion", &e.config_version)
                .text("ClientType", &e.client_type)
                .value("LegNumber", e.leg_number);
            if e.max_streams > 0 {
                out.value("MaxStreams", e.max_streams);
            }
        });
        out.finish()
    }

    /// Parses the JSON of either family of clients.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let map = parse(bytes)?;
        let fields = Fields::of(&map);
        let e = fields.object("Extra")?;
        Ok(AuthRequest {
            versions: fields.texts("Version")?,
            client_id: fields.text("ClientId")?,
            extra: AuthExtra {
                os: e.text("OS")?,
                arch: e.text("Arch")?,
                authtoken: e.secret("Authtoken")?,
                version: e.text("Version")?,
                hostname: e.text("Hostname")?,
                user_agent: e.text("UserAgent")?,
                metadata: e.text("Metadata")?,
                cookie: e.secret("Cookie")?,
                heartbeat_interval: Duration::from_nanos(e.count("HeartbeatInterval")?),
                heartbeat_tolerance: Duration::from_nanos(e.count("HeartbeatTolerance")?),
                update_unsupported: e.optional_text("UpdateUnsupportedError")?,
                stop_unsupported: e.optional_text("StopUnsupportedError")?,
                restart_unsupported: e.optional_text("RestartUnsupportedError")?,
                proxy_type: e.text("ProxyType")?,
                mutual_tls: e.flag("MutualTLS")?,
                service_run: e.flag("ServiceRun")?,
                custom_interface: e.flag("CustomInterface")?,
                custom_cas: e.flag("CustomCAs")?,
                config_version: e.text("ConfigVersion")?,
                client_type: e.text("ClientType")?,
                leg_number: e.count("LegNumber")?,
                max_streams: e.count("MaxStreams")?,
            },
        })
    }
}

/// Returns a signed 64-bit number, as Go's clients expect it.
fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

/// Response of the edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthResponse {
    /// The chosen version.
    pub version: String,
    /// Id of the session, for the next Auth.
    pub client_id: String,
    /// Reason of a refusal.
    pub error: Option<Refusal>,
    /// Further fields.
    pub extra: AuthResponseExtra,
}

/// Properties of an edge and of the account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthResponseExtra {
    /// Version of the edge.
    pub version: String,
    /// Region of the edge.
    pub region: String,
    /// Cookie for the next Auth.
    pub cookie: Secret,
    /// For display.
    pub account_name: String,
    /// For display.
    pub plan_name: String,
    /// For display.
    pub banner: String,
    /// Time until the edge ends the session, in whole seconds; zero: no limit.
    pub session_duration: Duration,
    /// Set if this version of the agent will be refused soon.
    pub deprecation: Option<Deprecation>,
    /// Addresses for further connections: region and `host:port` of each. The first entry is
    /// this edge.
    pub connect_addresses: Vec<(String, String)>,
    /// Public id of the session.
    pub agent_session_id: String,
}

/// A warning about the agent's version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deprecation {
    /// The oldest version that will be accepted.
    pub next_min: String,
    /// Start of the refusal, an RFC 3339 time.
    pub next_date: String,
    /// Text for the user.
    pub message: String,
}

impl AuthResponse {
    /// Returns a refusal.
    pub fn refused(error: Refusal) -> Self {
        AuthResponse { error: Some(error), ..AuthResponse::default() }
    }

    /// Returns the JSON, with every key.
    pub fn encode(&self) -> Vec<u8> {
        let e = &self.extra;
        let mut out = Writer::new();
        out.text("Version", &self.version)
            .text("ClientId", &self.client_id)
            .text("Error", &Refusal::field(&self.error));
        out.object("Extra", |out| {
            out.text("Version", &e.version)
                .text("Region", &e.region)
                .secret("Cookie", &e.cookie)
                .text("AccountName", &e.account_name)
                .text("PlanName", &e.plan_name)
                .text("Banner", &e.banner)
                .value("SessionDuration", e.session_duration.as_secs());
            // Omitted without a warning: an empty `NextDate` is an error for Go's clients.
            if let Some(warning) = &e.deprecation {
                out.object("DeprecationWarning", |out| {
                    out.text("NextMin", &warning.next_min)
                        .text("NextDate", &warning.next_date)
                        .text("Msg", &warning.message);
                });
            }
            if !e.connect_addresses.is_empty() {
                let entries = e.connect_addresses.iter().map(|(region, address)| {
                    let entry = [("Region", region), ("ServerAddr", address)];
                    Value::from_iter(entry.map(|(key, text)| (key, text.as_str())))
                });
                out.value("ConnectAddresses", entries.collect::<Vec<_>>());
            }
            out.text("AgentSessionID", &e.agent_session_id);
        });
        out.finish()
    }

    /// Parses the JSON.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let map = parse(bytes)?;
        let fields = Fields::of(&map);
        if let Some(error) = error_of(fields)? {
            return Ok(AuthResponse::refused(error));
        }
        let e = fields.object("Extra")?;
        let warning = e.object("DeprecationWarning")?;
        let deprecation = Deprecation {
            next_min: warning.text("NextMin")?,
            next_date: warning.text("NextDate")?,
            message: warning.text("Msg")?,
        };
        let addresses = e.objects("ConnectAddresses")?;
        let addresses = addresses.iter().map(|a| Ok((a.text("Region")?, a.text("ServerAddr")?)));
        Ok(AuthResponse {
            version: fields.text("Version")?,
            client_id: fields.text("ClientId")?,
            error: None,
            extra: AuthResponseExtra {
                version: e.text("Version")?,
                region: e.text("Region")?,
                cookie: e.secret("Cookie")?,
                account_name: e.text("AccountName")?,
                plan_name: e.text("PlanName")?,
                banner: e.text("Banner")?,
                session_duration: Duration::from_secs(e.count("SessionDuration")?),
                deprecation: (!warning.is_missing()).then_some(deprecation),
                connect_addresses: addresses.collect::<Result<_, DecodeError>>()?,
                agent_session_id: e.text("AgentSessionID")?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_bytes() {
        let request =
            AuthRequest::decode(br#"{"Version":["3","2"],"ClientId":"","Extra":{"OS":"linux"}}"#)
                .expect("the request of protocol 8");
        assert_eq!(request.versions, ["3", "2"]);
        assert_eq!(request.extra.os, "linux");
        assert_eq!(request.extra.stop_unsupported, None);

        let response = AuthResponse::decode(
            br#"{"Version":"3","ClientId":"s1","Error":"","Extra":{"Cookie":"c1"}}"#,
        )
        .expect("the response of protocol 8");
        assert_eq!(response.client_id, "s1");
        assert_eq!(response.error, None);
        assert_eq!(response.extra.cookie.expose(), "c1");
    }

    #[test]
    fn both_spellings_of_the_token() {
        for key in ["Authtoken", "AuthToken"] {
            let json = format!(r#"{{"Extra":{{"{key}":"tok"}}}}"#);
            let request = AuthRequest::decode(json.as_bytes()).expect("a request");
            assert_eq!(request.extra.authtoken.expose(), "tok");
        }
    }

    #[test]
    fn a_request_survives_a_round_trip() {
        let request = AuthRequest {
            versions: vec!["3".into(), "2".into()],
            client_id: "id".into(),
            extra: AuthExtra {
                os: "linux".into(),
                arch: "mips".into(),
                authtoken: Secret::new("hush-hush"),
                version: "1.2.3".into(),
                hostname: "h".into(),
                user_agent: "culvert/1.2.3".into(),
                metadata: "\u{1F600} \"quoted\"".into(),
                cookie: Secret::new("cookie"),
                heartbeat_interval: Duration::from_secs(10),
                heartbeat_tolerance: Duration::from_secs(15),
                update_unsupported: Some("no".into()),
                stop_unsupported: Some(String::new()),
                restart_unsupported: None,
                proxy_type: "http".into(),
                mutual_tls: true,
                service_run: true,
                custom_interface: true,
                custom_cas: true,
                config_version: "3".into(),
                client_type: "culvert".into(),
                leg_number: 2,
                max_streams: 0,
            },
        };
        let bytes = request.encode();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains(r#""HeartbeatInterval":10000000000"#), "{text}");
        assert!(text.contains(r#""Fingerprint":null"#));
        assert!(text.contains(r#""RestartUnsupportedError":null"#));
        assert_eq!(AuthRequest::decode(&bytes), Ok(request.clone()));
        assert!(!format!("{request:?}").contains("hush-hush"), "secrets are not printed");
    }

    #[test]
    fn a_response_survives_a_round_trip() {
        let response = AuthResponse {
            version: "3".into(),
            client_id: "c".into(),
            error: None,
            extra: AuthResponseExtra {
                version: "1".into(),
                region: "eu".into(),
                cookie: Secret::new("k"),
                account_name: "a".into(),
                plan_name: "p".into(),
                banner: "b".into(),
                session_duration: Duration::from_secs(60),
                deprecation: Some(Deprecation {
                    next_min: "2.0.0".into(),
                    next_date: "2027-01-01T00:00:00Z".into(),
                    message: "old".into(),
                }),
                connect_addresses: vec![
                    ("eu".into(), "a.example:443".into()),
                    (String::new(), "b.example:443".into()),
                ],
                agent_session_id: "as_1".into(),
            },
        };
        assert_eq!(AuthResponse::decode(&response.encode()), Ok(response));
    }

    #[test]
    fn a_refusal_needs_nothing_else() {
        let json = br#"{"Error":"no\n\nERR_NGROK_105","Version":7,"Extra":null}"#;
        let response = AuthResponse::decode(json).expect("a refusal");
        assert_eq!(response.error, Some(Refusal::new(105, "no")));
        assert_eq!(AuthResponse::decode(&response.encode()), Ok(response));
    }

    #[test]
    fn a_wrong_type_is_named() {
        let error = AuthRequest::decode(br#"{"Extra":{"MutualTLS":"yes"}}"#).expect_err("a type");
        assert_eq!(error.to_string(), "MutualTLS must be true or false");
    }
}
