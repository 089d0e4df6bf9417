//! One tunnel or endpoint of the local API: JSON, read with the rules and messages of the
//! configuration file.

use serde_yaml::Value;

use super::document::Document;
use super::fault::{ConfigError, Fault};
use super::model::{Agent, Endpoint};
use super::public_url::PortPolicy;
use super::read::tunnels::modernised;
use super::read::{DocumentReader, SchemaVersion};

/// Maximum length of a text, in bytes.
const MAX_TEXT: usize = 256 << 10;

/// Reads a tunnel of version 2 with an optional `name`. It is two endpoints if it has two
/// schemes. Older names of keys are accepted too. The error has a line for each fault.
pub fn tunnel_from_json(text: &str, agent: &Agent) -> Result<Vec<Endpoint>, ConfigError> {
    let mut document = parse(text)?;
    if let Value::Mapping(tunnel) = &document.root {
        document.root = Value::Mapping(modernised(tunnel));
    }
    let mut reader = DocumentReader::new(&document, SchemaVersion::Api);
    let mut endpoints = Vec::new();
    if let Some(section) = reader.top() {
        let name = reader.text(&section, "name").unwrap_or_default();
        endpoints = reader.tunnel(&name, &section, PortPolicy::of_edge(&agent.connect_url));
    }
    finish(reader.faults)?;
    Ok(endpoints)
}

/// Reads an endpoint of version 3. `uri` and `metrics`, which the API's responses have, are
/// ignored. The error has a line for each fault.
pub fn endpoint_from_json(text: &str, agent: &Agent) -> Result<Endpoint, ConfigError> {
    let document = parse(text)?;
    let mut reader = DocumentReader::new(&document, SchemaVersion::Api);
    let ports = PortPolicy::of_edge(&agent.connect_url);
    let endpoint = reader.top().and_then(|section| reader.endpoint(&section, ports));
    finish(reader.faults)?;
    endpoint.ok_or_else(|| fault("cannot be read".to_owned()))
}

fn parse(text: &str) -> Result<Document, ConfigError> {
    if text.len() > MAX_TEXT {
        return Err(fault(format!("must be at most {MAX_TEXT} bytes long")));
    }
    // Not with the YAML parser, which does not support all escapes of JSON.
    let json = serde_json::from_slice::<serde_json::Value>(text.as_bytes())
        .map_err(|error| fault(format!("must be JSON: {error}")))?;
    let root = value_of(json);
    if !root.is_mapping() {
        return Err(fault("must be a JSON object".to_owned()));
    }
    Ok(Document { text: String::new(), root })
}

/// Converts JSON into the values of the reader.
fn value_of(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(flag),
        Json::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(n), _, _) => n.into(),
            (_, Some(n), _) => n.into(),
            (.., n) => n.unwrap_or(f64::NAN).into(),
        },
        Json::String(text) => Value::String(text),
        Json::Array(list) => Value::Sequence(list.into_iter().map(value_of).collect()),
        Json::Object(map) => {
            let entries = map.into_iter().map(|(key, value)| (key.into(), value_of(value)));
            Value::Mapping(entries.collect())
        }
    }
}

fn fault(message: String) -> ConfigError {
    let path = "the body".to_owned();
    ConfigError::of_faults(vec![Fault { position: None, path, message }])
}

fn finish(faults: Vec<Fault>) -> Result<(), ConfigError> {
    if faults.is_empty() { Ok(()) } else { Err(ConfigError::of_faults(faults)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EndpointKind, UpstreamScheme};

    fn tunnel(text: &str) -> Vec<Endpoint> {
        tunnel_from_json(text, &Agent::default()).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn endpoint(text: &str) -> Endpoint {
        endpoint_from_json(text, &Agent::default())
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn tunnels_as_the_wrappers_ask_for_them() {
        let [one] = &tunnel(r#"{"name": "a", "proto": "http", "addr": "8080"}"#)[..] else {
            panic!("one endpoint")
        };
        assert_eq!((one.name.as_str(), one.kind, one.url.as_str()), ("a", EndpointKind::Http, ""));
        assert_eq!(one.upstream.to_string(), "http://localhost:8080");

        let both = tunnel(
            r#"{"name": "a", "proto": "http", "addr": 80, "bind_tls": "both", "auth": "u:password",
                "authtoken": "x", "inspect": false}"#,
        );
        let shown: Vec<_> = both.iter().map(|e| (e.name.as_str(), e.url.as_str())).collect();
        assert_eq!(shown, [("a", "https://"), ("a (http)", "http://")]);
        assert_eq!(both[1].modules.basic_auth.len(), 1);
        assert!(!both[0].inspect);

        let [dotted] = &tunnel(
            r#"{"proto": "http", "addr": 80, "oauth.provider": "google", "compression": true,
                "oauth.allow_domains": ["a.example"], "ip_restriction.allow_cidrs": ["10.0.0.0/8"]}"#,
        )[..] else {
            panic!("one")
        };
        let oauth = dotted.modules.oauth.as_ref().expect("a module");
        assert_eq!(
            (oauth.provider.as_str(), &oauth.allow_domains[..]),
            ("google", &["a.example".into()][..])
        );
        assert_eq!(dotted.modules.ip_restriction.allow, ["10.0.0.0/8"]);

        let [numbers] = &tunnel(r#"{"proto": "tcp", "addr": 22, "proxy_proto": 2}"#)[..] else {
            panic!("one")
        };
        assert_eq!((numbers.upstream.port, numbers.proxy_protocol), (22, 2));
        let [nameless] = &tunnel(r#"{"proto": "tcp", "addr": "22"}"#)[..] else { panic!("one") };
        assert_eq!((nameless.name.as_str(), nameless.kind), ("", EndpointKind::Tcp));
        let [labelled] = &tunnel(r#"{"labels": {"edge": "e1"}, "addr": 80}"#)[..] else {
            panic!("one")
        };
        assert_eq!(labelled.labels, [("edge".to_owned(), "e1".to_owned())]);
        // An escape that YAML does not have.
        let [smile] = &tunnel(r#"{"proto": "tcp", "addr": 22, "metadata": "\ud83d\ude00"}"#)[..]
        else {
            panic!("one")
        };
        assert_eq!(smile.metadata, "\u{1f600}");
    }

    #[test]
    fn endpoints_as_the_api_shows_them() {
        let one = endpoint(
            r#"{"name": "a", "uri": "/api/endpoints/a", "url": "https://a.example",
                "upstream": {"url": "localhost:8443", "protocol": "https"},
                "traffic_policy": "on_http_request: []\n", "pooling_enabled": true}"#,
        );
        assert_eq!((one.upstream.scheme, one.upstream.port), (UpstreamScheme::Https, 8443));
        assert_eq!(one.traffic_policy, "on_http_request: []\n");
        assert!(one.pooling && one.upstream_protocol.is_empty());
        let mapped = endpoint(
            r#"{"name": "a", "upstream": {"url": 80, "protocol": "http2"}, "traffic_policy": {"inbound": []}}"#,
        );
        assert_eq!(mapped.traffic_policy, r#"{"inbound":[]}"#);
        assert_eq!(mapped.upstream_protocol, "http2");
    }

    #[test]
    fn a_line_for_each_fault_and_no_file() {
        let agent = Agent::default();
        for (text, expected) in [
            ("", "the body must be JSON: EOF while parsing a value at line 1 column 0"),
            ("[]", "the body must be a JSON object"),
            ("{}", "the body needs proto: http, tcp or tls (ERR_NGROK_394)"),
            (
                r#"{"proto": "tcp", "addr": 22, "subdomain": "x"}"#,
                "subdomain is for http and tls tunnels, this is tcp; remove it",
            ),
            (
                r#"{"proto": "http", "addr": 80, "ip_restriction": {"alow_cidrs": []}}"#,
                "ip_restriction.alow_cidrs is not a known key; did you mean allow_cidrs?",
            ),
            (
                r#"{"name": 7, "proto": "http", "addr": 80, "metadata": 1.5}"#,
                "name must be text, found a number\nmetadata must be text, found a number",
            ),
            (
                r#"{"proto": "http", "addr": 80, "basic_auth": ["hush"]}"#,
                "basic_auth must be a list of USER:PASSWORD",
            ),
        ] {
            let error = tunnel_from_json(text, &agent).expect_err(text).to_string();
            assert_eq!(error, expected, "{text}");
        }
        let error = endpoint_from_json(r#"{"name": 7, "upstream": {"url": 80}}"#, &agent);
        assert_eq!(error.expect_err("a fault").to_string(), "name must be text, found a number");
        let error = endpoint_from_json(r#"{"upstream": {"url": "x y"}, "nam": 1}"#, &agent);
        let error = error.expect_err("faults").to_string();
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(lines.len(), 3, "{error}");
        assert!(error.contains("nam is not a known key; did you mean name?"), "{error}");
        assert!(error.contains("the body needs the key name"), "{error}");
        assert!(error.contains("upstream.url \"x y\" is not an address"), "{error}");
        assert!(endpoint_from_json(&"[".repeat(100_000), &agent).is_err());
        assert!(endpoint_from_json(&" ".repeat(MAX_TEXT + 1), &agent).is_err());
    }
}
