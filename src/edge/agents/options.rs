//! Options of a Bind request (protocol 5.6) and of its response. What the edge does for them
//! is in [`crate::edge::actions`]. An unknown option is refused, never ignored: it may
//! restrict access. Names are in [`super::address`].

use serde_json::{Map, Value, json};

use super::address::Protocol;
use crate::edge::actions::ActionSet;
use crate::edge::actions::compile::{Compiler, is_off};
use crate::edge::actions::login::LoginContext;
use crate::edge::policy;
use crate::edge::policy::reader::PolicyEnvironment;
use crate::proto::codes::Refusal;

/// Options of the edge that the edge applies with an endpoint's visitors.
#[derive(Clone, Debug, Default)]
pub struct EndpointOptions {
    /// Version of the PROXY protocol header before the visitor's bytes; 0: no header.
    pub proxy_proto: u8,
    /// What is decided for each visitor and request.
    pub actions: ActionSet,
}

/// Checks the protocol that the agent speaks to its upstream.
pub fn check_upstream_protocol(protocol: &str) -> Result<(), Refusal> {
    if matches!(protocol, "" | "http1") {
        return Ok(());
    }
    let text = format!(
        "This edge does not support --upstream-protocol (upstream.protocol) '{protocol}'. Use http1."
    );
    Err(Refusal::new(301, text))
}

/// Reads the options of an endpoint with this protocol, without its policy. `upstream` is the
/// address that the agent forwards to. `logins` is what logins depend on.
pub fn read(
    protocol: Protocol,
    opts: &Map<String, Value>,
    upstream: &str,
    logins: LoginContext<'_>,
) -> Result<EndpointOptions, Refusal> {
    let mut options = EndpointOptions::default();
    let mut compiler = Compiler::default();
    for (key, value) in opts {
        let lower = key.to_ascii_lowercase();
        match lower.as_str() {
            // Names, which are read elsewhere, and keys for display only.
            "url" | "domain" | "hostname" | "subdomain" | "addr" | "localurlscheme"
            | "mutualtlsatagent" | "trafficpolicy" | "policy" => {}
            "proxyproto" => options.proxy_proto = version(value)?,
            _ if is_off(&lower, value) => {}
            "oauth" | "oidc" if protocol == Protocol::Http => {
                compiler.login(&lower, value, logins)?;
            }
            _ => {
                let known = match protocol {
                    Protocol::Http => compiler.http(&lower, value, upstream)?,
                    Protocol::Tls => compiler.tls(&lower, value)?,
                    Protocol::Tcp => compiler.any(&lower, value)?,
                };
                if !known {
                    return Err(unsupported(key));
                }
            }
        }
    }
    options.actions = compiler.finish();
    let actions = &options.actions;
    if protocol == Protocol::Tls && actions.tls().is_some() && !actions.terminates_tls() {
        return Err(Refusal::new(
            301,
            "The edge can ask for client certificates only where it terminates TLS. Add \
             terminate_at: edge.",
        ));
    }
    Ok(options)
}

/// Returns whether a traffic policy is given.
pub fn has_policy(opts: &Map<String, Value>) -> bool {
    opts.iter().any(|(key, value)| {
        let lower = key.to_ascii_lowercase();
        matches!(&*lower, "trafficpolicy" | "policy") && !is_off(&lower, value)
    })
}

/// Returns the text of the traffic policy; empty without one.
pub fn policy_text(opts: &Map<String, Value>) -> Result<String, Refusal> {
    let mut text = String::new();
    let mut given: Option<&str> = None;
    for (key, value) in opts {
        let lower = key.to_ascii_lowercase();
        let given_text = match (&*lower, value) {
            ("trafficpolicy" | "policy", value) if is_off(&lower, value) => continue,
            ("trafficpolicy", Value::String(policy)) => {
                policy::older_form::text(policy).unwrap_or_else(|| policy.clone())
            }
            // The older form, an object.
            ("policy", Value::Object(_)) => policy::older_form::document(value),
            ("trafficpolicy" | "policy", _) => {
                let text = format!("The option '{key}' is not a traffic policy.");
                return Err(Refusal::new(9026, text));
            }
            _ => continue,
        };
        if let Some(other) = given.replace(key) {
            let text = format!("The options '{other}' and '{key}' are two policies. Remove one.");
            return Err(Refusal::new(9025, text));
        }
        text = given_text;
    }
    Ok(text)
}

/// Compiles a traffic policy and adds it to the actions of the options.
pub fn add_policy(
    actions: ActionSet,
    text: &str,
    environment: PolicyEnvironment<'_>,
) -> Result<ActionSet, Refusal> {
    match policy::compile::compile(text, environment) {
        Ok(policy) => Ok(actions.with_policy(policy, text)),
        Err(faults) => Err(policy::fault::refusal(text, faults)),
    }
}

/// Returns a refusal with the names of an option in the configuration and in the protocol.
fn unsupported(key: &str) -> Refusal {
    let written = match key.to_ascii_lowercase().as_str() {
        "auth" | "basicauth" => "--basic-auth (basic_auth)",
        "circuitbreaker" => "--circuit-breaker (circuit_breaker)",
        "compression" => "--compression (compression)",
        "hostheaderrewrite" => "--host-header (host_header)",
        "mutualtlsca" | "mutualtlsatedge" => "--mutual-tls-cas (mutual_tls_cas)",
        "oauth" => "--oauth (oauth)",
        "oidc" => "--oidc (oidc)",
        "requestheaders" => "--request-header-add, --host-header (request_header, host_header)",
        "responseheaders" => "--response-header-add (response_header)",
        "useragentfilter" => "--ua-filter-allow (user_agent_filter)",
        "webhookverification" => "--verify-webhook (verify_webhook)",
        "websockettcpconverter" => "--websocket-tcp-converter (websocket_tcp_converter)",
        _ => "the option",
    };
    Refusal::new(301, format!("This edge does not support {written} '{key}'. Remove it."))
}

fn version(value: &Value) -> Result<u8, Refusal> {
    match value {
        Value::Null => Ok(0),
        Value::Number(n) if n.as_u64().is_some_and(|n| n <= 2) => Ok(match n.as_u64() {
            Some(1) => 1,
            Some(2) => 2,
            _ => 0,
        }),
        _ => Err(Refusal::new(301, format!("ProxyProto must be 0, 1 or 2, not {value}."))),
    }
}

/// Returns the options of the response: those of the request with the assigned name, and every
/// key that a strict client needs (protocol 5.5).
pub fn echo(protocol: Protocol, mut opts: Map<String, Value>, name: &str) -> Map<String, Value> {
    let needed: &[(&str, Value)] = match protocol {
        Protocol::Http => &[
            ("Hostname", json!(name)),
            ("Auth", json!("")),
            ("Subdomain", json!("")),
            ("HostHeaderRewrite", json!(false)),
            ("ProxyProto", json!(0)),
        ],
        Protocol::Tls => &[
            ("Hostname", json!(name)),
            ("Subdomain", json!("")),
            ("ProxyProto", json!(0)),
            ("MutualTLSAtAgent", json!(false)),
        ],
        Protocol::Tcp => &[("Addr", json!(name)), ("ProxyProto", json!(0))],
    };
    opts.retain(|key, value| !(key.eq_ignore_ascii_case("Domain") && value.is_null()));
    for (key, value) in needed {
        let assigned = matches!(*key, "Hostname" | "Addr");
        let given = opts
            .iter()
            .find(|(k, v)| k.eq_ignore_ascii_case(key) && !v.is_null())
            .map(|(_, v)| v.clone());
        opts.retain(|k, _| k == key || !k.eq_ignore_ascii_case(key));
        let value = match given {
            Some(given) if !assigned => given,
            _ => value.clone(),
        };
        opts.insert((*key).to_owned(), value);
    }
    opts
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::edge::login::LoginServices;

    fn get(protocol: Protocol, opts: Value) -> Result<EndpointOptions, Refusal> {
        let services = Arc::new(LoginServices::for_tests());
        let logins = LoginContext { account: "a", services: &services, clients: &[] };
        read(protocol, opts.as_object().unwrap(), "http://localhost:8080", logins)
    }

    #[test]
    fn what_the_clients_send_by_default_passes() {
        let go = json!({"URL": "", "Domain": "", "Hostname": "", "Subdomain": "", "Auth": "",
            "HostHeaderRewrite": false, "LocalURLScheme": "", "ProxyProto": 0,
            "Compression": null, "CircuitBreaker": null, "IPRestriction": null, "BasicAuth": null,
            "OAuth": null, "OIDC": null, "WebhookVerification": null, "MutualTLSCA": null,
            "RequestHeaders": null, "ResponseHeaders": {"add": [], "remove": []},
            "WebsocketTCPConverter": null, "UserAgentFilter": null, "Policy": null,
            "TrafficPolicy": "", "Unknown": ""});
        let options = get(Protocol::Http, go).unwrap();
        assert!(options.actions.is_same_as(&Compiler::default().finish()));
        assert!(!options.actions.terminates_tls() && options.proxy_proto == 0);
    }

    #[test]
    fn unknown_options_are_refused_by_name() {
        let e = get(Protocol::Http, json!({"SomethingNew": {}})).unwrap_err();
        assert!(e.message.contains("'SomethingNew'"), "{e}");
        assert_eq!(e.code, Some(301));
        for (protocol, key) in [(Protocol::Tcp, "Compression"), (Protocol::Tls, "BasicAuth")] {
            let e = get(protocol, json!({ key: {} })).unwrap_err();
            assert!(e.message.contains(&format!("'{key}'")), "{e}");
        }
        assert!(get(Protocol::Http, json!({"TLSTermination": {}})).is_err());
    }

    #[test]
    fn a_login_needs_a_known_provider_and_a_client() {
        let client = json!({"client_id": "c", "client_secret": "secret-99"});
        let with = |value: Value| {
            let mut with = client.clone();
            with.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
            with
        };
        let issuer = json!({"issuer_url": "https://i.example/a/"});
        assert!(get(Protocol::Http, json!({"OIDC": with(issuer.clone())})).is_ok());
        assert!(get(Protocol::Http, json!({"OAuth": with(json!({"provider": "google"}))})).is_ok());
        for (key, value, code, says) in [
            ("OAuth", json!({"provider": "google"}), 384, "edge.yml"),
            ("OAuth", with(json!({"provider": "nowhere"})), 363, "github, gitlab, google"),
            ("OAuth", with(json!({})), 363, "provider"),
            ("OAuth", with(json!({"provider": 1})), 301, "'provider'"),
            ("OAuth", with(json!({"provider": "google", "scopes": "x"})), 301, "'scopes'"),
            ("OIDC", issuer, 385, "client id"),
            ("OIDC", with(json!({"issuer_url": "ftp://i.example"})), 387, "issuer"),
            ("OIDC", with(json!({"issuer_url": "https://i.example/?a"})), 387, "issuer"),
        ] {
            let e = get(Protocol::Http, json!({ key: value })).unwrap_err();
            assert_eq!(e.code, Some(code), "{e}");
            assert!(e.message.contains(says) && !e.message.contains("secret-99"), "{e}");
        }
        let both = json!({"OAuth": with(json!({"provider": "google"})),
            "OIDC": with(json!({"issuer_url": "https://i.example"}))});
        assert_eq!(get(Protocol::Http, both).unwrap_err().code, Some(301));
        let tls = json!({"OIDC": with(json!({"issuer_url": "https://i.example"}))});
        assert!(get(Protocol::Tls, tls).unwrap_err().message.contains("'OIDC'"));
    }

    #[test]
    fn modules_that_are_built() {
        let o = get(
            Protocol::Tcp,
            json!({"ProxyProto": 2,
            "IPRestriction": {"allow_cidrs": ["10.0.0.0/8"], "deny_cidrs": ["10.1.0.0/16"]}}),
        );
        let o = o.unwrap();
        assert_eq!(o.proxy_proto, 2);
        assert!(o.actions.admits("10.2.3.4".parse().unwrap()));
        assert!(!o.actions.admits("10.1.0.1".parse().unwrap()));
        assert!(
            get(Protocol::Tls, json!({"TLSTermination": {}})).unwrap().actions.terminates_tls()
        );
        assert!(get(Protocol::Tls, json!({"TLSTermination": true})).is_err());
        for (opts, code) in [
            (json!({"ProxyProto": 3}), 301),
            (json!({"ProxyProto": "1"}), 301),
            (json!({"IPRestriction": {"allow_cidrs": ["x"]}}), 362),
        ] {
            assert_eq!(get(Protocol::Tcp, opts).unwrap_err().code, Some(code));
        }
    }

    #[test]
    fn the_echo_has_all_that_strict_clients_need() {
        let opts = json!({"Domain": null, "hostname": null, "Auth": null, "ProxyProto": 1,
            "Extra": {"kept": [1]}});
        let out = echo(Protocol::Http, opts.as_object().unwrap().clone(), "a.example");
        assert_eq!(
            Value::Object(out),
            json!({"ProxyProto": 1, "Extra": {"kept": [1]}, "Hostname": "a.example", "Auth": "",
                "Subdomain": "", "HostHeaderRewrite": false})
        );
        let out = echo(Protocol::Tcp, Map::new(), "h:1");
        assert_eq!(Value::Object(out), json!({"Addr": "h:1", "ProxyProto": 0}));
        let out = echo(Protocol::Tls, Map::new(), "a");
        assert_eq!(out.len(), 4);
    }
}
