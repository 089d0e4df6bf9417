//! Tunnels: the map below `tunnels` of version 2, which version 3 still accepts, and the object
//! of the local API. A tunnel is one endpoint, or two with two schemes.

use serde_yaml::{Mapping, Value};

use super::endpoints::put;
use super::{DocumentReader, SchemaVersion, Section, has_word, unknown};
use crate::config::document::{EntryPart, PathSegment, key_text, show};
use crate::config::modules::{AllowDeny, Headers, HostHeader, Modules, SignIn, TlsTermination};
use crate::config::public_url::{self, PortPolicy};
use crate::config::{Endpoint, EndpointKind, Upstream};
use crate::proto::secret::Secret;

const HTTP: u8 = 1;
const TCP: u8 = 2;
const TLS: u8 = 4;
const LABELLED: u8 = 8;
const PUBLIC: u8 = HTTP | TCP | TLS;
const ALL: u8 = PUBLIC | LABELLED;

/// All keys, by the kinds of tunnels that have them.
const KEYS: &[(u8, &str)] = &[
    (ALL, "addr name metadata inspect description"),
    (
        PUBLIC,
        "proto url bindings pooling_enabled ip_restriction proxy_proto traffic_policy traffic_policy_file traffic_policy_url policy",
    ),
    (LABELLED, "labels"),
    (HTTP | TLS, "domain hostname subdomain mutual_tls_cas"),
    (TCP, "remote_addr"),
    (
        HTTP,
        "schemes basic_auth circuit_breaker compression host_header oauth oidc request_header response_header user_agent_filter verify_webhook websocket_tcp_converter app_protocol upstream_protocol",
    ),
    (HTTP | TLS | LABELLED, "upstream_tls_verify upstream_tls_verify_cas"),
    (TLS | LABELLED, "crt key"),
    (TLS, "terminate_at"),
];

/// Keys that wrappers in other languages add to a requested tunnel.
const OF_WRAPPERS: &str = "authtoken region uri configPath binPath web_addr";

/// Suffix of the name of the endpoint for plain HTTP of a tunnel with two schemes. Clients
/// depend on this text.
const PLAIN: &str = " (http)";

/// Returns whether `endpoint` belongs to the tunnel or endpoint `name`.
pub fn is_of(endpoint: &Endpoint, name: &str) -> bool {
    let own = endpoint.name.as_str();
    own == name || own.strip_suffix(PLAIN) == Some(name)
}

impl<'a> DocumentReader<'a> {
    /// Merges the tunnels of `map` into the existing endpoints, by name.
    pub(in crate::config) fn tunnels(
        &mut self,
        map: &Section<'a>,
        ports: PortPolicy,
        over: &mut Vec<Endpoint>,
    ) {
        for (key, value) in map.mapping {
            let Some(name) = key_text(key) else {
                let message = "has a key that is not text".to_owned();
                self.fault(map.path.clone(), EntryPart::Value, message);
                continue;
            };
            let mut path = map.path.clone();
            path.push(PathSegment::Key(name.clone()));
            let Value::Mapping(mapping) = value else {
                self.fault(path, EntryPart::Key, "must be a mapping with proto and addr".into());
                continue;
            };
            let section = Section { mapping, path, old: false };
            if section.has("name") && self.text(&section, "name").as_ref() != Some(&name) {
                let message = format!("must be {name:?} or left out: the key is the tunnel's name");
                self.fault(section.at("name"), EntryPart::Value, message);
            }
            let tunnel = self.tunnel(&name, &section, ports);
            if !tunnel.is_empty() {
                // The tunnel may have one scheme now and two in an earlier file, or vice versa.
                let later = tunnel.iter().map(|endpoint| endpoint.name.clone());
                let names: Vec<String> = later.collect();
                over.retain(|old| !is_of(old, &name) || names.contains(&old.name));
            }
            for endpoint in tunnel {
                put(over, endpoint);
            }
        }
    }

    /// Reads the endpoints of a tunnel; none if it has faults.
    pub(in crate::config) fn tunnel(
        &mut self,
        name: &str,
        section: &Section<'a>,
        ports: PortPolicy,
    ) -> Vec<Endpoint> {
        let which = self.which(section);
        self.tunnel_keys(section, which);
        let Some(which) = which else { return Vec::new() };
        let kind = match which {
            TCP => EndpointKind::Tcp,
            TLS => EndpointKind::Tls,
            LABELLED => self.kind_of_address(section),
            _ => EndpointKind::Http,
        };
        self.require(section, "addr");
        let Some(upstream) = self.parsed(section, "addr", |text| Upstream::parse(kind, text))
        else {
            return Vec::new();
        };
        let mut endpoint = Endpoint::new(name, kind, upstream);
        endpoint.labels = self.labels(section);
        let schemes = self.schemes(section);
        self.wanted(section, &mut endpoint);
        endpoint.upstream_protocol = self.old_protocol(section, kind);
        endpoint.proxy_protocol = self
            .parsed(section, "proxy_proto", crate::config::parse_proxy_protocol)
            .unwrap_or_default();
        endpoint.verify = self.verify(section, "upstream_tls_verify", "upstream_tls_verify_cas");
        endpoint.modules = self.modules(section);
        endpoint.tls_termination = self.terminate(section, which, &endpoint.modules.mutual_tls_cas);
        if let (Some(plain), true) = (schemes.first(), endpoint.url.is_empty()) {
            // The scheme, with any name.
            let scheme = if *plain { "http://" } else { "https://" };
            endpoint.url = scheme.to_owned() + &endpoint.hostname;
            endpoint.hostname.clear();
        }
        self.common(section, &mut endpoint, ports);
        self.judge(section, &endpoint.modules);
        match schemes[..] {
            [_, _] => {
                let host = endpoint.url.split_once("://").map_or("", |(_, host)| host);
                let url = format!("http://{host}");
                let name = format!("{name}{PLAIN}");
                let plain = Endpoint { name, url, ..endpoint.clone() };
                vec![endpoint, plain]
            }
            _ => vec![endpoint],
        }
    }

    /// Reads the kind of the tunnel; `None` if it is missing.
    fn which(&mut self, section: &Section<'a>) -> Option<u8> {
        if section.has("labels") {
            if section.has("proto") {
                self.say_key(section, "proto", "conflicts with labels; remove one of them");
            } else if self.version == SchemaVersion::Three {
                self.say_key(
                    section,
                    "labels",
                    "is for files of version 2; write an endpoint with a URL",
                );
            }
            return Some(LABELLED);
        }
        if !section.has("proto") {
            let message = "needs proto: http, tcp or tls (ERR_NGROK_394)".to_owned();
            self.fault(section.path.clone(), EntryPart::Key, message);
        }
        let kind = self.word(section, "proto", &["http", "tcp", "tls"])?;
        Some(1 << kind)
    }

    /// Adds faults for unknown keys, and for those of other kinds.
    fn tunnel_keys(&mut self, section: &Section<'a>, which: Option<u8>) {
        let mut known = String::new();
        for (kinds, keys) in KEYS {
            if kinds & which.unwrap_or(ALL) != 0 {
                known.push_str(keys);
                known.push(' ');
            }
        }
        if self.version == SchemaVersion::Api {
            known.push_str(OF_WRAPPERS);
        }
        for key in self.unknown_keys(section, &known) {
            let group = KEYS.iter().find(|(_, keys)| has_word(keys, key));
            let message = match (group, which) {
                (Some((kinds, _)), Some(which)) => {
                    const NAMES: [&str; 4] = ["http", "tcp", "tls", "labeled"];
                    let mut has = String::new();
                    for (n, name) in NAMES.iter().enumerate() {
                        if kinds & (1 << n) != 0 {
                            has.push_str(if has.is_empty() { "" } else { " and " });
                            has.push_str(name);
                        }
                    }
                    let own = NAMES.get(which.trailing_zeros() as usize);
                    let own = own.copied().unwrap_or_default();
                    format!("is for {has} tunnels, this is {own}; remove it")
                }
                _ => unknown(key, &known),
            };
            self.fault(section.at(key), EntryPart::Key, message);
        }
    }

    /// Returns the kind of a labelled tunnel, by its address.
    fn kind_of_address(&mut self, section: &Section<'a>) -> EndpointKind {
        match section.value("addr").and_then(Value::as_str) {
            Some(text) if text.starts_with("tcp://") || text.starts_with("tls://") => {
                EndpointKind::Tcp
            }
            _ => EndpointKind::Http,
        }
    }

    /// Reads a list of `name=value`, or a map.
    fn labels(&mut self, section: &Section<'a>) -> Vec<(String, String)> {
        let mut labels = Vec::new();
        if let Some(Value::Mapping(map)) = section.value("labels") {
            for (name, value) in map {
                match (key_text(name), key_text(value)) {
                    (Some(name), Some(value)) if !name.is_empty() => labels.push((name, value)),
                    _ => self.say(section, "labels", "must be a map of texts"),
                }
            }
            return labels;
        }
        for text in self.texts(section, "labels").unwrap_or_default() {
            match text.split_once('=') {
                Some((name, value)) if !name.is_empty() => {
                    labels.push((name.to_owned(), value.to_owned()));
                }
                _ => self.say(section, "labels", "must be a list of NAME=VALUE"),
            }
        }
        if labels.is_empty() && section.has("labels") {
            self.say(section, "labels", "must be a list of NAME=VALUE, and one at least");
        }
        labels
    }

    /// Returns for each scheme whether it is plain HTTP; empty if not given.
    fn schemes(&mut self, section: &Section<'a>) -> Vec<bool> {
        let mut schemes = Vec::new();
        for text in self.one_or_more(section, "schemes").unwrap_or_default() {
            let plain = text == "http";
            if !plain && text != "https" {
                self.say(section, "schemes", "must be a list of http, https or both");
            } else if !schemes.contains(&plain) {
                schemes.push(plain);
            }
        }
        if section.has("schemes") && section.has("url") {
            self.say_key(section, "schemes", "conflicts with url, which has a scheme");
        }
        // HTTPS keeps the tunnel's name.
        match schemes[..] {
            [_, _] => vec![false, true],
            _ => schemes,
        }
    }

    /// Reads the requested public address, in all of its forms.
    fn wanted(&mut self, section: &Section<'a>, endpoint: &mut Endpoint) {
        const FORMS: [&str; 5] = ["url", "domain", "hostname", "subdomain", "remote_addr"];
        let mut given = FORMS.into_iter().filter(|key| section.has(key));
        if let (Some(first), Some(second)) = (given.next(), given.next()) {
            let message = format!("conflicts with {first}; remove one of them (ERR_NGROK_9021)");
            self.fault(section.at(second), EntryPart::Key, message);
        }
        let plain = self.only_plain(section);
        endpoint.url = self.url(section);
        if let Some(host) = self.host(section, "domain") {
            let scheme = match endpoint.kind {
                EndpointKind::Tls => "tls",
                _ if plain => "http",
                _ => "https",
            };
            endpoint.url = format!("{scheme}://{host}");
        }
        if let Some(address) = self.host(section, "remote_addr") {
            let url = format!("tcp://{address}");
            if let Err(refusal) =
                public_url::check_url(EndpointKind::Tcp, &url, &[], PortPolicy::Any)
            {
                self.refuse(section.at("remote_addr"), &refusal);
            }
            endpoint.hostname = address;
            return;
        }
        endpoint.hostname = self.host(section, "hostname").unwrap_or_default();
        endpoint.subdomain = self.host(section, "subdomain").unwrap_or_default();
    }

    /// Returns whether `schemes` is `http` only.
    fn only_plain(&self, section: &Section<'a>) -> bool {
        match section.value("schemes") {
            Some(Value::Sequence(list)) => {
                !list.is_empty() && list.iter().all(|scheme| scheme == "http")
            }
            Some(scheme) => scheme == "http",
            None => false,
        }
    }

    /// Reads a host with an optional port and without a scheme.
    fn host(&mut self, section: &Section<'a>, key: &str) -> Option<String> {
        let text = self.given(section, key)?;
        if text.contains("://") || text.contains(['/', ' ', '@', '?', '#']) {
            let wanted = match key {
                "remote_addr" => "HOST:PORT, with no scheme",
                "subdomain" => "the part of the name that stands before the domain",
                _ => "a host name, with no scheme and no path",
            };
            return self.wrong(section, key, wanted);
        }
        if let Err(refusal) = public_url::check_ascii(&text) {
            self.refuse(section.at(key), &refusal);
            return None;
        }
        if key == "subdomain"
            && let Some(sign) =
                text.chars().find(|c| !(c.is_ascii_alphanumeric() || "-.".contains(*c)))
        {
            let wanted = format!("made of letters, digits, hyphens and dots, without {sign:?}");
            return self.wrong(section, key, &wanted);
        }
        Some(text)
    }

    fn old_protocol(&mut self, section: &Section<'a>, kind: EndpointKind) -> String {
        let mut names = ["upstream_protocol", "app_protocol"].into_iter();
        let Some(key) = names.find(|key| section.has(key)) else { return String::new() };
        if names.any(|other| section.has(other)) {
            let message = format!("conflicts with {key}; remove one of them");
            self.fault(section.at("app_protocol"), EntryPart::Key, message);
        }
        let text = self.text(section, key).unwrap_or_default();
        self.protocol(section, key, kind, &text);
        text
    }

    /// Reads the options that the edge applies to visitors.
    fn modules(&mut self, section: &Section<'a>) -> Modules {
        let mut modules = Modules::default();
        for text in self.texts(section, "basic_auth").unwrap_or_default() {
            match text.split_once(':') {
                Some((user, password)) => {
                    modules.basic_auth.push((user.to_owned(), Secret::new(password)));
                }
                // The text may be a password: it is not shown.
                None => self.say(section, "basic_auth", "must be a list of USER:PASSWORD"),
            }
        }
        modules.circuit_breaker = self.share(section, "circuit_breaker");
        modules.compression = self.flag(section, "compression").unwrap_or_default();
        modules.host_header =
            HostHeader::from_text(&self.text(section, "host_header").unwrap_or_default());
        modules.ip_restriction =
            self.filter(section, "ip_restriction", "allow_cidrs", "deny_cidrs");
        modules.oauth = self.sign_in(section, "oauth", "provider");
        modules.oidc = self.sign_in(section, "oidc", "issuer_url");
        modules.request_header = self.headers(section, "request_header");
        modules.response_header = self.headers(section, "response_header");
        modules.user_agent_filter = self.filter(section, "user_agent_filter", "allow", "deny");
        if let Some(inner) = self.section(section, "verify_webhook") {
            self.keys(&inner, "provider secret");
            let secret = self.secret(&inner, "secret").unwrap_or_default();
            modules.verify_webhook =
                self.needed(&inner, "provider").map(|provider| (provider, secret));
        }
        modules.websocket_tcp_converter =
            self.flag(section, "websocket_tcp_converter").unwrap_or_default();
        let cas = self.pem(section, "mutual_tls_cas", "CERTIFICATE");
        modules.mutual_tls_cas = cas.map(|pem| pem.expose().to_owned()).unwrap_or_default();
        modules
    }

    /// Reads a number from 0 to 1.
    fn share(&mut self, section: &Section<'a>, key: &str) -> Option<f64> {
        let number = match section.value(key)? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        match number {
            Some(number) if (0.0..=1.0).contains(&number) => Some(number),
            _ => self.wrong(section, key, "a number from 0.0 to 1.0 (ERR_NGROK_361)"),
        }
    }

    fn filter(&mut self, section: &Section<'a>, key: &str, allow: &str, deny: &str) -> AllowDeny {
        let Some(inner) = self.section(section, key) else { return AllowDeny::default() };
        self.keys(&inner, &[allow, deny].join(" "));
        AllowDeny {
            allow: self.texts(&inner, allow).unwrap_or_default(),
            deny: self.texts(&inner, deny).unwrap_or_default(),
        }
    }

    fn headers(&mut self, section: &Section<'a>, key: &str) -> Headers {
        let Some(inner) = self.section(section, key) else { return Headers::default() };
        self.keys(&inner, "add remove");
        let add = self.texts(&inner, "add").unwrap_or_default();
        if add.iter().any(|text| !text.contains(':')) {
            self.wrong::<()>(&inner, "add", "a list of \"NAME:VALUE\"");
        }
        Headers { add, remove: self.texts(&inner, "remove").unwrap_or_default() }
    }

    fn sign_in(&mut self, section: &Section<'a>, key: &str, provider: &str) -> Option<SignIn> {
        let inner = self.section(section, key)?;
        let lists = ["scopes", "allow_domains", "allow_emails"];
        let keys = "client_id client_secret scopes allow_domains allow_emails";
        self.keys(&inner, &[provider, keys].join(" "));
        let [scopes, allow_domains, allow_emails] =
            lists.map(|key| self.texts(&inner, key).unwrap_or_default());
        let client_id = self.text(&inner, "client_id").unwrap_or_default();
        let client_secret = self.secret(&inner, "client_secret").unwrap_or_default();
        let provider = self.needed(&inner, provider)?;
        Some(SignIn { provider, client_id, client_secret, scopes, allow_domains, allow_emails })
    }

    /// Reads where the visitor's TLS is terminated. `client_cas` are the CAs for client
    /// certificates.
    fn terminate(&mut self, section: &Section<'a>, which: u8, client_cas: &str) -> TlsTermination {
        if which & (TLS | LABELLED) == 0 {
            return TlsTermination::Upstream;
        }
        let faults = self.faults.len();
        let mut place = self.text(section, "terminate_at").unwrap_or_default();
        if which == LABELLED && section.has("crt") {
            place = "agent".to_owned();
        }
        let certificate = self.pem(section, "crt", "CERTIFICATE").unwrap_or_default();
        let key = self.pem(section, "key", "PRIVATE KEY").unwrap_or_default();
        if self.faults.len() > faults {
            return TlsTermination::Upstream;
        }
        let sent = place.is_empty() && !key.is_empty();
        if sent && section.has("crt") {
            self.warnings.push(format!(
                "{}: the private key goes to the edge; terminate_at: agent keeps it here",
                show(&section.path)
            ));
        }
        TlsTermination::choose(&place, certificate.expose().to_owned(), key, client_cas)
            .unwrap_or_else(|why| {
                let keys = ["terminate_at", "crt", "key", "mutual_tls_cas"];
                let key = keys.into_iter().find(|key| section.has(key)).unwrap_or("proto");
                self.fault(section.at(key), EntryPart::Key, why);
                TlsTermination::Upstream
            })
    }

    /// Checks the rules of the edge for its modules, with its codes.
    fn judge(&mut self, section: &Section<'a>, modules: &Modules) {
        let Err(refusal) = modules.check() else { return };
        let key = match refusal.code {
            Some(359 | 360) => "basic_auth",
            Some(361) => "circuit_breaker",
            Some(362 | 393) => "ip_restriction",
            Some(370) => "request_header",
            Some(371) => "response_header",
            Some(383 | 384 | 390) => "oauth",
            Some(385..=387) => "oidc",
            _ => "",
        };
        let path = if section.has(key) { section.at(key) } else { section.path.clone() };
        self.fault(path, EntryPart::Key, format!("cannot be used: {refusal}"));
    }
}

/// Returns a tunnel of agent 2 with the keys of version 2: `bind_tls` and `auth` have new
/// names, which have priority.
pub(in crate::config) fn modernised(tunnel: &Mapping) -> Mapping {
    let mut new = Mapping::new();
    for (key, value) in tunnel {
        let (name, value) = match key.as_str() {
            Some("bind_tls") => {
                let schemes = schemes_of(value).unwrap_or_default();
                ("schemes", schemes.iter().map(|scheme| Value::from(*scheme)).collect())
            }
            Some("auth") if value.is_null() => continue,
            Some("auth") => ("basic_auth", vec![value.clone()]),
            Some(dotted) if put_below(&mut new, dotted, value) => continue,
            _ => {
                new.insert(key.clone(), value.clone());
                continue;
            }
        };
        if tunnel.get(name).is_none() && !value.is_empty() {
            new.insert(name.into(), Value::Sequence(value));
        }
    }
    new
}

/// Moves `oauth.provider`, the notation of the npm package, below `oauth`. Returns whether it
/// is such a key with a place there.
fn put_below(tunnel: &mut Mapping, dotted: &str, value: &Value) -> bool {
    let Some((name, key)) = dotted.split_once('.') else { return false };
    let section = tunnel.entry(name.into()).or_insert_with(|| Value::Mapping(Mapping::new()));
    match section.as_mapping_mut() {
        Some(section) if !section.contains_key(key) => {
            section.insert(key.into(), value.clone());
            true
        }
        _ => false,
    }
}

/// Returns the schemes for agent 2's `bind_tls`.
pub(in crate::config) fn schemes_of(bind_tls: &Value) -> Option<&'static [&'static str]> {
    Some(match key_text(bind_tls)?.as_str() {
        "true" => &["https"],
        "false" => &["http"],
        "both" => &["http", "https"],
        _ => return None,
    })
}
