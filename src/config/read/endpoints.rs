//! Endpoints of version 3: the list below `endpoints`, and the common keys of endpoints and
//! tunnels.

use std::path::PathBuf;

use serde_yaml::Value;

use super::{DocumentReader, SchemaVersion, Section};
use crate::config::document::{EntryPart, PathSegment};
use crate::config::modules::TlsTermination;
use crate::config::public_url::{self, PortPolicy};
use crate::config::{Endpoint, EndpointKind, Upstream, UpstreamScheme, Verify};
use crate::proto::secret::Secret;

const KEYS: &str = "name url bindings description metadata traffic_policy traffic_policy_file \
    traffic_policy_url pooling_enabled inspect upstream agent_tls_termination";

/// Keys in responses of the local API, which clients may send back.
const OF_THE_API: &str = "uri metrics";

const UPSTREAM: &str = "url protocol proxy_protocol tls_verify tls_verify_cas";

const TLS: &str = "server_certificate server_private_key mutual_tls_certificate_authorities";

impl<'a> DocumentReader<'a> {
    /// Merges the endpoints of `list` into the existing ones. Of two with the same name the
    /// later one is used as a whole.
    pub(in crate::config) fn endpoints(
        &mut self,
        list: &'a [Value],
        ports: PortPolicy,
        over: &mut Vec<Endpoint>,
    ) {
        let mut names: Vec<String> = Vec::new();
        for (index, value) in list.iter().enumerate() {
            let path = vec![PathSegment::Key("endpoints".to_owned()), PathSegment::Index(index)];
            let Value::Mapping(mapping) = value else {
                self.fault(
                    path,
                    EntryPart::Value,
                    "must be a mapping with name and upstream".into(),
                );
                continue;
            };
            let section = Section { mapping, path, old: false };
            let Some(endpoint) = self.endpoint(&section, ports) else { continue };
            if names.contains(&endpoint.name) {
                let message = format!("{:?} is the name of another endpoint", endpoint.name);
                self.fault(section.at("name"), EntryPart::Value, message);
            }
            names.push(endpoint.name.clone());
            put(over, endpoint);
        }
    }

    /// Reads an endpoint. Returns `None` with faults.
    pub(in crate::config) fn endpoint(
        &mut self,
        section: &Section<'a>,
        ports: PortPolicy,
    ) -> Option<Endpoint> {
        match self.version {
            SchemaVersion::Api => self.keys(section, &[KEYS, OF_THE_API].join(" ")),
            _ => self.keys(section, KEYS),
        }
        let name = self.needed(section, "name");
        let url = self.url(section);
        let kind = public_url::kind_of(&url);
        let upstream = self.upstream(section, kind);
        let tls_termination = self.tls_termination(section, kind);
        let (upstream, upstream_protocol, proxy_protocol, verify) = match upstream {
            Some(upstream) => upstream,
            // The other keys are read for their faults.
            None => (Upstream::parse(kind, "1").ok()?, String::new(), 0, Verify::Off),
        };
        let mut endpoint = Endpoint {
            url,
            upstream_protocol,
            proxy_protocol,
            verify,
            tls_termination,
            ..Endpoint::new(name?, kind, upstream)
        };
        self.common(section, &mut endpoint, ports);
        Some(endpoint)
    }

    /// Reads the keys that endpoints and tunnels have in common.
    pub(in crate::config) fn common(
        &mut self,
        section: &Section<'a>,
        endpoint: &mut Endpoint,
        ports: PortPolicy,
    ) {
        endpoint.description = self.text(section, "description").unwrap_or_default();
        endpoint.metadata = self.text(section, "metadata").unwrap_or_default();
        endpoint.pooling = self.flag(section, "pooling_enabled").unwrap_or_default();
        endpoint.inspect = self.flag(section, "inspect").unwrap_or(true);
        let bindings = self.one_or_more(section, "bindings").unwrap_or_default();
        if let Err(message) = crate::config::check_bindings(&bindings) {
            self.fault(section.at("bindings"), EntryPart::Value, message);
        }
        endpoint.bindings = crate::config::inferred_bindings(bindings, &endpoint.url);
        (endpoint.traffic_policy, endpoint.traffic_policy_url) = self.policies(section);
        let checked =
            public_url::check_url(endpoint.kind, &endpoint.url, &endpoint.bindings, ports);
        if let Err(refusal) = checked {
            let names = ["url", "domain", "remote_addr"];
            let key = names.into_iter().find(|key| section.has(key)).unwrap_or("bindings");
            self.refuse(section.at(key), &refusal);
        }
    }

    /// Reads a string. The vendor's reference also allows a list of strings.
    pub(in crate::config) fn url(&mut self, section: &Section<'a>) -> String {
        let mut urls = self.one_or_more(section, "url").unwrap_or_default();
        if urls.len() > 1 {
            self.say(section, "url", "can be one URL only; write an endpoint for each");
        }
        public_url::normal_url(&urls.pop().unwrap_or_default())
    }

    fn upstream(
        &mut self,
        endpoint: &Section<'a>,
        kind: EndpointKind,
    ) -> Option<(Upstream, String, u8, Verify)> {
        // `upstream: 8080` is a common first attempt with a single meaning.
        if matches!(endpoint.value("upstream"), Some(Value::Number(_) | Value::String(_))) {
            let upstream = self.parsed(endpoint, "upstream", |text| Upstream::parse(kind, text))?;
            return Some((upstream, String::new(), 0, Verify::Off));
        }
        if !endpoint.has("upstream") {
            let message = "needs an upstream, as in upstream: {url: 8080}".to_owned();
            self.fault(endpoint.path.clone(), EntryPart::Value, message);
            return None;
        }
        let section = self.section(endpoint, "upstream")?;
        self.keys(&section, UPSTREAM);
        let mut protocol = self.text(&section, "protocol").unwrap_or_default();
        let mut scheme = String::new();
        if self.version == SchemaVersion::Api && matches!(protocol.as_str(), "http" | "https") {
            // The form of the vendor's own example for the local API.
            scheme = std::mem::take(&mut protocol);
        }
        self.protocol(&section, "protocol", kind, &protocol);
        let proxy_protocol =
            self.parsed(&section, "proxy_protocol", crate::config::parse_proxy_protocol);
        let verify = self.verify(&section, "tls_verify", "tls_verify_cas");
        self.require(&section, "url");
        let upstream = self.parsed(&section, "url", |text| match scheme.as_str() {
            scheme if !scheme.is_empty() && !text.contains("://") => {
                Upstream::parse(kind, &format!("{scheme}://{text}"))
            }
            _ => Upstream::parse(kind, text),
        })?;
        if upstream.scheme == UpstreamScheme::File && !protocol.is_empty() {
            self.say_key(&section, "protocol", "does not apply to a file:// address");
        }
        Some((upstream, protocol, proxy_protocol.unwrap_or_default(), verify))
    }

    /// Checks a value of `upstream.protocol` or of its older names.
    pub(in crate::config) fn protocol(
        &mut self,
        section: &Section<'a>,
        key: &str,
        kind: EndpointKind,
        text: &str,
    ) {
        if !matches!(text, "" | "http1" | "http2") {
            self.say(section, key, "must be http1 or http2");
        } else if !text.is_empty() && kind != EndpointKind::Http {
            let message = format!("is for http endpoints, this is a {kind} endpoint");
            self.fault(section.at(key), EntryPart::Key, message);
        }
    }

    /// Reads how the upstream's certificate is verified. A file of CAs enables verification.
    pub(in crate::config) fn verify(
        &mut self,
        section: &Section<'a>,
        flag: &str,
        cas: &str,
    ) -> Verify {
        let verify = self.flag(section, flag);
        match self.text(section, cas) {
            Some(_) if verify == Some(false) => {
                let message = format!("conflicts with {flag}: false");
                self.fault(section.at(cas), EntryPart::Key, message);
                Verify::Off
            }
            Some(path) => Verify::File(PathBuf::from(path)),
            None if verify == Some(true) => Verify::System,
            None => Verify::Off,
        }
    }

    fn tls_termination(&mut self, endpoint: &Section<'a>, kind: EndpointKind) -> TlsTermination {
        const KEY: &str = "agent_tls_termination";
        let Some(section) = self.section(endpoint, KEY) else { return TlsTermination::Upstream };
        if kind != EndpointKind::Tls {
            self.say_key(endpoint, KEY, "is for endpoints with a tls:// URL");
        }
        self.keys(&section, TLS);
        for needed in ["server_certificate", "server_private_key"] {
            self.require(&section, needed);
        }
        let certificate = self.pem(&section, "server_certificate", "CERTIFICATE");
        let key = self.pem(&section, "server_private_key", "PRIVATE KEY");
        let mut client_cas = String::new();
        let list = "mutual_tls_certificate_authorities";
        for (index, text) in self.one_or_more(&section, list).unwrap_or_default().iter().enumerate()
        {
            let mut path = section.at(list);
            path.push(PathSegment::Index(index));
            if let Some(pem) = self.pem_of(path, text, "CERTIFICATE") {
                add_pem(&mut client_cas, &pem);
            }
        }
        let certificate = certificate.map(|pem| pem.expose().to_owned()).unwrap_or_default();
        TlsTermination::Agent { certificate, key: key.unwrap_or_default(), client_cas }
    }
}

fn add_pem(text: &mut String, pem: &Secret) {
    text.push_str(pem.expose());
    if !text.ends_with('\n') {
        text.push('\n');
    }
}

/// Replaces the endpoint with the same name, else appends `endpoint`.
pub(in crate::config) fn put(endpoints: &mut Vec<Endpoint>, endpoint: Endpoint) {
    match endpoints.iter_mut().find(|other| other.name == endpoint.name) {
        Some(other) => *other = endpoint,
        None => endpoints.push(endpoint),
    }
}
