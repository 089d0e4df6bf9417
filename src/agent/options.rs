//! Options of an endpoint in the form of the protocol (protocol 5.6). They are checked in
//! [`crate::config::modules`], not here.

use serde_json::{Map, Value};

use crate::config::modules::{AllowDeny, Headers, HostHeader, Modules, SignIn, TlsTermination};
use crate::config::{Endpoint, EndpointKind, Upstream, UpstreamScheme};
use crate::proto::base64;
use crate::proto::secret::Secret;

/// JSON object for the protocol. Nested objects are written only if they are not empty.
struct Object(Map<String, Value>);

impl Object {
    fn new() -> Self {
        Object(Map::new())
    }

    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    fn text(mut self, key: &str, text: &str) -> Self {
        if !text.is_empty() {
            self.set(key, text);
        }
        self
    }

    fn secret(self, key: &str, secret: &Secret) -> Self {
        self.text(key, secret.expose())
    }

    fn bytes(self, key: &str, bytes: &str) -> Self {
        self.text(key, &base64::encode(bytes.as_bytes()))
    }

    fn texts(mut self, key: &str, texts: &[String]) -> Self {
        if !texts.is_empty() {
            self.set(key, texts.iter().map(|text| text.as_str().into()).collect::<Vec<Value>>());
        }
        self
    }

    /// Writes the module `key`, if it is enabled.
    fn module(&mut self, key: &str, module: Option<Object>) {
        if let Some(Object(map)) = module {
            self.set(key, map);
        }
    }
}

/// Returns the options of an endpoint that is bound for the first time. At most one of the
/// fields that request a name is not empty. Disabled modules are omitted.
pub(super) fn of(endpoint: &Endpoint) -> Map<String, Value> {
    let Endpoint { kind, modules, hostname, subdomain, .. } = endpoint;
    let by_url = hostname.is_empty() && subdomain.is_empty();
    let mut opts = Object::new();
    opts.set("URL", if by_url { &*endpoint.url } else { "" });
    opts.set("ProxyProto", endpoint.proxy_protocol);
    let ips = (!modules.ip_restriction.is_empty())
        .then(|| filter(&modules.ip_restriction, "allow_cidrs", "deny_cidrs"));
    match kind {
        EndpointKind::Tcp => opts.set("Addr", &**hostname),
        EndpointKind::Http | EndpointKind::Tls => {
            opts.set("Hostname", &**hostname);
            opts.set("Subdomain", &**subdomain);
        }
    }
    match kind {
        EndpointKind::Tcp => opts.module("IPRestriction", ips),
        EndpointKind::Http => {
            opts.set("Auth", "");
            opts.set("HostHeaderRewrite", modules.host_header == HostHeader::Rewrite);
            opts.set("LocalURLScheme", "");
            http(&mut opts, modules, &endpoint.upstream, ips);
        }
        EndpointKind::Tls => {
            opts.module("IPRestriction", ips);
            tls(&mut opts, &endpoint.tls_termination, &modules.mutual_tls_cas);
        }
    }
    if !endpoint.traffic_policy.is_empty() {
        opts.set("TrafficPolicy", &*endpoint.traffic_policy);
    }
    opts.0
}

/// Writes the modules of HTTP endpoints, in the protocol's order.
fn http(opts: &mut Object, modules: &Modules, upstream: &Upstream, ips: Option<Object>) {
    let on = |on: bool| on.then(Object::new);
    opts.module("Compression", on(modules.compression));
    let breaker = modules.circuit_breaker.map(|share| {
        let mut breaker = Object::new();
        if share != 0.0 {
            breaker.set("error_threshold", share);
        }
        breaker
    });
    opts.module("CircuitBreaker", breaker);
    opts.module("IPRestriction", ips);
    if !modules.basic_auth.is_empty() {
        let credentials: Vec<Value> = modules.basic_auth.iter().map(credential).collect();
        let mut auth = Object::new();
        auth.set("credentials", credentials);
        opts.module("BasicAuth", Some(auth));
    }
    opts.module("OAuth", modules.oauth.as_ref().map(|oauth| sign_in(oauth, "provider")));
    opts.module("OIDC", modules.oidc.as_ref().map(|oidc| sign_in(oidc, "issuer_url")));
    let webhook = modules.verify_webhook.as_ref().map(|(provider, secret)| {
        Object::new().text("provider", provider).secret("secret", secret)
    });
    opts.module("WebhookVerification", webhook);
    opts.module("MutualTLSCA", authorities(&modules.mutual_tls_cas));
    opts.module("RequestHeaders", headers(&modules.request_header, host(modules, upstream)));
    opts.module("ResponseHeaders", headers(&modules.response_header, None));
    opts.module("WebsocketTCPConverter", on(modules.websocket_tcp_converter));
    if !modules.user_agent_filter.is_empty() {
        let agents = filter(&modules.user_agent_filter, "allow", "deny");
        opts.module("UserAgentFilter", Some(agents));
    }
}

/// Writes where TLS ends (agent 4.3). For TLS that ends at the agent the options are those of
/// an upstream with TLS, except for client certificates.
fn tls(opts: &mut Object, end: &TlsTermination, client_cas: &str) {
    let at_agent =
        matches!(end, TlsTermination::Agent { client_cas, .. } if !client_cas.is_empty());
    opts.set("MutualTLSAtAgent", at_agent);
    if let TlsTermination::Edge { certificate, key } = end {
        opts.module("MutualTLSAtEdge", authorities(client_cas));
        let termination = Object::new().bytes("cert", certificate).bytes("key", key.expose());
        opts.module("TLSTermination", Some(termination));
    }
}

fn credential((user, password): &(String, Secret)) -> Value {
    let credential = Object::new().text("username", user);
    credential.secret("cleartext_password", password).0.into()
}

fn sign_in(module: &SignIn, provider: &str) -> Object {
    Object::new()
        .text(provider, &module.provider)
        .text("client_id", &module.client_id)
        .secret("client_secret", &module.client_secret)
        .texts("allow_emails", &module.allow_emails)
        .texts("allow_domains", &module.allow_domains)
        .texts("scopes", &module.scopes)
}

fn filter(filter: &AllowDeny, allow: &str, deny: &str) -> Object {
    Object::new().texts(allow, &filter.allow).texts(deny, &filter.deny)
}

fn authorities(pem: &str) -> Option<Object> {
    (!pem.is_empty()).then(|| Object::new().bytes("mutual_tls_ca", pem))
}

fn headers(headers: &Headers, host: Option<String>) -> Option<Object> {
    if headers.is_empty() && host.is_none() {
        return None;
    }
    let field = |text: &String| match text.split_once(':') {
        Some((name, value)) => format!("{}:{}", name.trim(), value.trim()),
        None => text.clone(),
    };
    let add: Vec<String> = host.into_iter().chain(headers.add.iter().map(field)).collect();
    Some(Object::new().texts("add", &add).texts("remove", &headers.remove))
}

/// Returns the header field that makes the edge send another `Host` (agent 4.4). The agent
/// passes requests as bytes, so the edge rewrites the field. `HostHeaderRewrite` alone would
/// only report that it is rewritten.
fn host(modules: &Modules, upstream: &Upstream) -> Option<String> {
    match &modules.host_header {
        HostHeader::Preserve => None,
        HostHeader::Value(value) => Some(format!("host:{}", value.trim())),
        // A directory has no name.
        HostHeader::Rewrite if upstream.scheme == UpstreamScheme::File => None,
        HostHeader::Rewrite => {
            let usual = match upstream.scheme {
                UpstreamScheme::Https | UpstreamScheme::Tls => 443,
                _ => 80,
            };
            // The interface of an address is of this machine alone (RFC 9844).
            let host = upstream.host.split('%').next().unwrap_or_default();
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            Some(match upstream.port == usual {
                true => format!("host:{host}"),
                false => format!("host:{host}:{}", upstream.port),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features;
    use serde_json::{Value, json};

    fn endpoint(kind: EndpointKind, address: &str) -> Endpoint {
        Endpoint::new("e", kind, Upstream::parse(kind, address).expect("an address"))
    }

    /// Returns the JSON text, so that the order of the keys is compared too.
    fn wire(endpoint: &Endpoint) -> String {
        Value::Object(of(endpoint)).to_string()
    }

    #[test]
    fn nothing_asked_for() {
        assert_eq!(
            wire(&endpoint(EndpointKind::Http, "80")),
            r#"{"URL":"","ProxyProto":0,"Hostname":"","Subdomain":"","Auth":"","HostHeaderRewrite":false,"LocalURLScheme":""}"#
        );
        assert_eq!(
            wire(&endpoint(EndpointKind::Tcp, "22")),
            r#"{"URL":"","ProxyProto":0,"Addr":""}"#
        );
        assert_eq!(
            wire(&endpoint(EndpointKind::Tls, "443")),
            r#"{"URL":"","ProxyProto":0,"Hostname":"","Subdomain":"","MutualTLSAtAgent":false}"#
        );
    }

    #[test]
    fn one_name_at_most() {
        let mut e = endpoint(EndpointKind::Http, "80");
        e.url = "http://".into();
        assert_eq!(of(&e)["URL"], "http://");
        e.hostname = "a.example".into();
        assert_eq!((&of(&e)["URL"], &of(&e)["Hostname"]), (&json!(""), &json!("a.example")));
        (e.hostname, e.subdomain) = (String::new(), "a".into());
        assert_eq!((&of(&e)["URL"], &of(&e)["Subdomain"]), (&json!(""), &json!("a")));
        let mut e = endpoint(EndpointKind::Tcp, "22");
        e.hostname = "1.tcp.example:2022".into();
        assert_eq!(of(&e)["Addr"], "1.tcp.example:2022");
    }

    fn all_modules() -> Modules {
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        let sign_in = |provider: &str| SignIn {
            provider: provider.into(),
            client_id: "id".into(),
            client_secret: Secret::new("s3cret"),
            scopes: texts(&["openid"]),
            allow_domains: texts(&["d.example"]),
            allow_emails: texts(&["a@d.example"]),
        };
        Modules {
            basic_auth: vec![("u".into(), Secret::new("password"))],
            circuit_breaker: Some(0.5),
            compression: true,
            host_header: HostHeader::Rewrite,
            ip_restriction: AllowDeny { allow: texts(&["10.0.0.0/8"]), deny: texts(&["::/0"]) },
            mutual_tls_cas: "PEM".into(),
            oauth: Some(sign_in("google")),
            oidc: Some(sign_in("https://i.example")),
            request_header: Headers { add: texts(&["a: b:c"]), remove: texts(&["d"]) },
            response_header: Headers { add: Vec::new(), remove: texts(&["e"]) },
            user_agent_filter: AllowDeny { allow: texts(&["(?i)curl"]), deny: texts(&["x,y"]) },
            verify_webhook: Some(("github".into(), Secret::new("hook"))),
            websocket_tcp_converter: true,
        }
    }

    #[test]
    fn every_module_of_an_http_endpoint() {
        let mut e = endpoint(EndpointKind::Http, "http://[::1]:8080");
        e.proxy_protocol = 2;
        e.traffic_policy = "{}".into();
        e.modules = all_modules();
        let client = r#""client_id":"id","client_secret":"s3cret","allow_emails":["a@d.example"],"allow_domains":["d.example"],"scopes":["openid"]"#;
        assert_eq!(
            wire(&e),
            [
                r#"{"URL":"","ProxyProto":2,"Hostname":"","Subdomain":"","Auth":"","HostHeaderRewrite":true,"LocalURLScheme":"","#,
                r#""Compression":{},"CircuitBreaker":{"error_threshold":0.5},"#,
                r#""IPRestriction":{"allow_cidrs":["10.0.0.0/8"],"deny_cidrs":["::/0"]},"#,
                r#""BasicAuth":{"credentials":[{"username":"u","cleartext_password":"password"}]},"#,
                &format!(r#""OAuth":{{"provider":"google",{client}}},"#),
                &format!(r#""OIDC":{{"issuer_url":"https://i.example",{client}}},"#),
                r#""WebhookVerification":{"provider":"github","secret":"hook"},"#,
                r#""MutualTLSCA":{"mutual_tls_ca":"UEVN"},"#,
                r#""RequestHeaders":{"add":["host:[::1]:8080","a:b:c"],"remove":["d"]},"#,
                r#""ResponseHeaders":{"remove":["e"]},"WebsocketTCPConverter":{},"#,
                r#""UserAgentFilter":{"allow":["(?i)curl"],"deny":["x,y"]},"TrafficPolicy":"{}"}"#,
            ]
            .concat()
        );
    }

    #[test]
    fn other_kinds_have_what_is_theirs() {
        let mut e = endpoint(EndpointKind::Tcp, "22");
        e.modules = all_modules();
        assert_eq!(
            wire(&e),
            r#"{"URL":"","ProxyProto":0,"Addr":"","IPRestriction":{"allow_cidrs":["10.0.0.0/8"],"deny_cidrs":["::/0"]}}"#
        );
        let mut e = endpoint(EndpointKind::Tls, "443");
        e.modules.mutual_tls_cas = "PEM".into();
        e.tls_termination = TlsTermination::Edge { certificate: "C".into(), key: Secret::new("K") };
        assert_eq!(
            wire(&e),
            r#"{"URL":"","ProxyProto":0,"Hostname":"","Subdomain":"","MutualTLSAtAgent":false,"MutualTLSAtEdge":{"mutual_tls_ca":"UEVN"},"TLSTermination":{"cert":"Qw==","key":"Sw=="}}"#
        );
        e.tls_termination =
            TlsTermination::Edge { certificate: String::new(), key: Secret::default() };
        assert_eq!(of(&e)["TLSTermination"], json!({}));
        for (client_cas, asked) in [("", false), ("PEM", true)] {
            let client_cas = client_cas.to_owned();
            e.tls_termination = TlsTermination::Agent {
                certificate: "C".into(),
                key: Secret::new("K"),
                client_cas,
            };
            assert_eq!(of(&e)["MutualTLSAtAgent"], asked);
            assert!(!of(&e).contains_key("TLSTermination"), "the key stays here");
            assert!(!wire(&e).contains("Sw=="));
        }
    }

    #[test]
    fn the_host_that_the_upstream_sees() {
        for (address, expected) in [
            ("80", Some("host:localhost")),
            ("https://h", Some("host:h")),
            ("https://h:80", Some("host:h:80")),
            ("h:8080", Some("host:h:8080")),
            ("http://[fe80::1%eth0]:8080", Some("host:[fe80::1]:8080")),
            ("file:///tmp", None),
        ] {
            if address.starts_with("file:") && !features::FILES {
                continue;
            }
            let e = endpoint(EndpointKind::Http, address);
            let modules = Modules { host_header: HostHeader::Rewrite, ..Modules::default() };
            assert_eq!(host(&modules, &e.upstream).as_deref(), expected, "{address}");
        }
        let mut e = endpoint(EndpointKind::Http, "80");
        e.modules.host_header = HostHeader::from_text("x.example");
        assert_eq!(of(&e)["RequestHeaders"], json!({"add": ["host:x.example"]}));
        assert_eq!(of(&e)["HostHeaderRewrite"], false);
        e.modules.host_header = HostHeader::from_text("preserve");
        assert!(!of(&e).contains_key("RequestHeaders"));
    }
}
