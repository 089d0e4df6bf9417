//! Version 3 of the configuration file: its keys and what each means. Another
//! version is another file beside this one.
//!
//! Every fault is collected, so that one run of `config check` shows them all.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_yaml::{Mapping, Value};

use super::document::{Document, Part, Step, show};
use super::file::{Fault, Loaded, Note};
use super::{
    Agent, Cas, ConsoleUi, Endpoint, InspectSize, Kind, Scheme, Upstream, Verify, WebAddr, address,
    duration, nearest,
};
use crate::log::{Format, Level, Target};
use crate::proto::codes::Refusal;
use crate::proto::secret::Secret;

const TOP: &[&str] = &["version", "agent", "endpoints"];

/// Keys below `agent` that mean something to this version.
const AGENT: &[&str] = &[
    "api_key",
    "authtoken",
    "client_version",
    "connect_cas",
    "connect_interface",
    "connect_timeout",
    "connect_url",
    "console_ui",
    "console_ui_color",
    "crl_noverify",
    "crl_url",
    "dns_public_resolvers",
    "dns_resolver_ips",
    "heartbeat_interval",
    "heartbeat_tolerance",
    "inspect_db_size",
    "local_storage",
    "log",
    "log_format",
    "log_level",
    "max_connections",
    "memory_limit",
    "metadata",
    "proxy_url",
    "remote_management",
    "state_dir",
    "web_addr",
    "web_allow_hosts",
];

/// Keys below `agent` that may stand there and have no effect yet. To ignore them
/// sends nothing anywhere that the user did not want.
const AGENT_UNUSED: &[&str] = &["update_channel", "update_check"];

/// Keys below `agent` that cannot be ignored: they say which way the connection
/// must take.
const AGENT_MISSING: &[&str] = &[];

const ENDPOINT: &[&str] = &[
    "name",
    "url",
    "bindings",
    "description",
    "metadata",
    "traffic_policy",
    "traffic_policy_file",
    "pooling_enabled",
    "inspect",
    "upstream",
];

/// As [`AGENT_UNUSED`].
const ENDPOINT_UNUSED: &[&str] = &[];

/// As [`AGENT_MISSING`].
const ENDPOINT_MISSING: &[&str] = &["agent_tls_termination", "traffic_policy_url"];

const UPSTREAM: &[&str] = &["url", "protocol", "proxy_protocol", "tls_verify", "tls_verify_cas"];

/// Names of former versions, and what to write now.
const RENAMED: &[(&str, &str)] = &[
    ("server_addr", "connect_url"),
    ("root_cas", "connect_cas"),
    ("http_proxy", "proxy_url"),
    ("socks5_proxy", "proxy_url"),
    ("addr", "upstream.url"),
    ("proto", "url, as in tcp:// or tls://"),
    ("domain", "url"),
    ("hostname", "url"),
    ("subdomain", "url"),
    ("remote_addr", "url"),
    ("proxy_proto", "upstream.proxy_protocol"),
    ("app_protocol", "upstream.protocol"),
    ("policy", "traffic_policy"),
];

/// Longest `metadata` of a session, in characters.
const MAX_METADATA: usize = 4096;

/// Takes what `document` says over what `loaded` has.
pub(super) fn apply(document: &Document, loaded: &mut Loaded) -> Vec<Fault> {
    let mut reader = Reader { document, faults: Vec::new(), notes: Vec::new() };
    if let Value::Mapping(mapping) = &document.root {
        let top = Section { mapping, path: Vec::new() };
        reader.top(&top, loaded);
    }
    loaded.notes.append(&mut reader.notes);
    reader.faults
}

/// A mapping of the document and the way to it.
struct Section<'a> {
    mapping: &'a Mapping,
    path: Vec<Step>,
}

impl<'a> Section<'a> {
    fn at(&self, key: &str) -> Vec<Step> {
        let mut path = self.path.clone();
        path.push(Step::Key(key.to_owned()));
        path
    }

    /// The value of `key`; null is none.
    fn value(&self, key: &str) -> Option<&'a Value> {
        self.mapping.get(key).filter(|value| !value.is_null())
    }
}

struct Reader<'a> {
    document: &'a Document,
    faults: Vec<Fault>,
    notes: Vec<Note>,
}

impl<'a> Reader<'a> {
    fn top(&mut self, top: &Section<'a>, loaded: &mut Loaded) {
        for key in self.unknown_keys(top, TOP) {
            let what = if key == "tunnels" {
                "is not read by this version: write each tunnel as an entry of endpoints".into()
            } else if [AGENT, AGENT_UNUSED, AGENT_MISSING].iter().any(|t| t.contains(&key)) {
                format!("is not known here: it belongs below agent, as agent.{key}")
            } else {
                unknown(key, TOP)
            };
            self.fault(top.at(key), Part::Key, what);
        }
        if let Some(agent) = self.section(top, "agent") {
            self.agent(&agent, loaded);
        }
        if let Some(list) = self.list(top, "endpoints") {
            loaded.agent.endpoints = self.endpoints(list, &loaded.agent);
        }
    }

    fn agent(&mut self, section: &Section<'a>, loaded: &mut Loaded) {
        self.keys(section, AGENT, AGENT_UNUSED, AGENT_MISSING);
        let Loaded { agent, log, .. } = loaded;
        if let Some(token) = self.text(section, "authtoken") {
            agent.authtoken = Secret::new(token);
        }
        if let Some(key) = self.text(section, "api_key") {
            agent.api_key = Secret::new(key);
        }
        self.edges(section, agent);
        if let Some(cas) = self.text(section, "connect_cas") {
            agent.connect_cas = Cas::from_text(&cas);
        }
        let times = [
            ("connect_timeout", &mut agent.connect_timeout),
            ("heartbeat_interval", &mut agent.heartbeat_interval),
            ("heartbeat_tolerance", &mut agent.heartbeat_tolerance),
        ];
        for (key, slot) in times {
            if let Some(time) = self.time(section, key) {
                *slot = time;
            }
        }
        if let Some(text) = self.text(section, "metadata") {
            if text.chars().count() > MAX_METADATA {
                let what = format!("is longer than {MAX_METADATA} characters (ERR_NGROK_100)");
                self.fault(section.at("metadata"), Part::Value, what);
            }
            agent.metadata = text;
        }
        if let Some(flag) = self.flag(section, "remote_management") {
            agent.remote_management = flag;
        }
        if let Some(n) = self.count(section, "max_connections") {
            agent.max_connections = n;
        }
        self.ways(section, agent);
        self.looks(section, agent);
        match section.value("log") {
            Some(Value::Bool(true)) => {
                let what = "must be stdout, stderr, false or a path".to_owned();
                self.fault(section.at("log"), Part::Value, what);
            }
            Some(Value::Bool(false)) => log.target = Some(Target::Nowhere),
            _ => {
                let target = self.text(section, "log").map(|text| Target::from_text(&text));
                log.target = target.or(log.target.take());
            }
        }
        let format = self.parsed(section, "log_format", |text| {
            Format::from_name(text).ok_or_else(|| "must be term, logfmt or json".to_owned())
        });
        log.format = format.or(log.format);
        let level = self.parsed(section, "log_level", |text| {
            let wrong = || "must be debug, info, warn, error or crit".to_owned();
            Level::from_name(text).ok_or_else(wrong)
        });
        log.level = level.or(log.level);
    }

    /// One edge, or a list of them.
    fn edges(&mut self, section: &Section<'a>, agent: &mut Agent) {
        let texts = match section.value("connect_url") {
            Some(Value::Sequence(_)) => self.texts(section, "connect_url").unwrap_or_default(),
            _ => self.text(section, "connect_url").into_iter().collect(),
        };
        let mut edges = Vec::new();
        for text in texts {
            match address::parse_edge(&text) {
                Ok(edge) => edges.push(edge),
                Err(what) => self.fault(section.at("connect_url"), Part::Value, what),
            }
        }
        if !edges.is_empty() {
            agent.connect_url = edges.remove(0);
            agent.further_urls = edges;
        }
    }

    /// Which way the connection to the edge takes.
    fn ways(&mut self, section: &Section<'a>, agent: &mut Agent) {
        if let Some(name) = self.text(section, "connect_interface") {
            agent.connect_interface = name;
        }
        if let Some(url) = self.text(section, "proxy_url") {
            agent.proxy_url = Secret::new(url);
        }
        if let Some(list) = self.resolvers(section, "dns_resolver_ips") {
            agent.dns_resolver_ips = list;
        }
        match section.value("dns_public_resolvers") {
            Some(Value::Bool(false)) => agent.dns_public_resolvers = Vec::new(),
            Some(Value::Bool(true)) => {}
            _ => {
                if let Some(list) = self.resolvers(section, "dns_public_resolvers") {
                    agent.dns_public_resolvers = list;
                }
            }
        }
        if let Some(flag) = self.flag(section, "crl_noverify") {
            agent.crl_noverify = flag;
        }
        if let Some(url) = self.text(section, "crl_url") {
            agent.crl_url = url;
        }
        if let Some(text) = self.text(section, "client_version") {
            agent.client_version = text;
        }
    }

    fn resolvers(&mut self, section: &Section<'a>, key: &str) -> Option<Vec<SocketAddr>> {
        let texts = self.texts(section, key)?;
        let list = texts.iter().map(|text| address::parse_resolver(text)).collect();
        match list {
            Ok(list) => Some(list),
            Err(what) => {
                self.fault(section.at(key), Part::Value, what);
                None
            }
        }
    }

    /// What the agent shows of itself, and how much memory it may take.
    fn looks(&mut self, section: &Section<'a>, agent: &mut Agent) {
        if let Some(limit) = self.parsed(section, "memory_limit", super::size::parse) {
            agent.memory_limit = Some(limit);
        }
        if let Some(dir) = self.text(section, "state_dir") {
            agent.state_dir = Some(PathBuf::from(dir));
        }
        match section.value("web_addr") {
            Some(Value::Bool(false)) => agent.web_addr = WebAddr::Off,
            _ => match self.text(section, "web_addr").as_deref() {
                None => {}
                Some("false") => agent.web_addr = WebAddr::Off,
                Some(text) => agent.web_addr = WebAddr::At(text.to_owned()),
            },
        }
        if let Some(hosts) = self.texts(section, "web_allow_hosts") {
            agent.web_allow_hosts = hosts;
        }
        let room = self.parsed(section, "inspect_db_size", |text| match text {
            "-1" => Ok(InspectSize::Off),
            "0" => Ok(InspectSize::Usual),
            text => super::size::parse(text).map(InspectSize::Bytes),
        });
        if let Some(room) = room {
            agent.inspect_db_size = room;
        }
        if self.flag(section, "local_storage") == Some(false) {
            agent.inspect_db_size = InspectSize::Off;
        }
        match section.value("console_ui") {
            None => {}
            Some(Value::Bool(true)) => agent.console_ui = ConsoleUi::Always,
            Some(Value::Bool(false)) => agent.console_ui = ConsoleUi::Never,
            Some(value) => match value.as_str() {
                Some("true") => agent.console_ui = ConsoleUi::Always,
                Some("false") => agent.console_ui = ConsoleUi::Never,
                Some("iftty") => agent.console_ui = ConsoleUi::IfTerminal,
                _ => _ = self.wrong::<()>(section, "console_ui", "true, false or iftty"),
            },
        }
        match self.text(section, "console_ui_color").as_deref() {
            None => {}
            Some("black") => agent.console_transparent = false,
            Some("transparent") => agent.console_transparent = true,
            Some(_) => _ = self.wrong::<()>(section, "console_ui_color", "black or transparent"),
        }
    }

    fn endpoints(&mut self, list: &'a [Value], agent: &Agent) -> Vec<Endpoint> {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for (index, value) in list.iter().enumerate() {
            let path = vec![Step::Key("endpoints".to_owned()), Step::Index(index)];
            let Value::Mapping(mapping) = value else {
                self.fault(path, Part::Value, "must be a mapping with name and upstream".into());
                continue;
            };
            let section = Section { mapping, path };
            let Some(endpoint) = self.endpoint(&section, agent) else { continue };
            if endpoints.iter().any(|other| other.name == endpoint.name) {
                let what = format!("{:?} is the name of another endpoint too", endpoint.name);
                self.fault(section.at("name"), Part::Value, what);
            }
            endpoints.push(endpoint);
        }
        endpoints
    }

    /// An endpoint, or faults that say why there is none.
    fn endpoint(&mut self, section: &Section<'a>, agent: &Agent) -> Option<Endpoint> {
        self.keys(section, ENDPOINT, ENDPOINT_UNUSED, ENDPOINT_MISSING);
        let name = self.needed(section, "name");
        let url = address::normal_url(&self.url(section).unwrap_or_default());
        let kind = address::kind_of(&url);
        let bindings = self.bindings(section, &url);
        let ports = address::Ports::of_edge(&agent.connect_url);
        if let Err(refusal) = address::check_url(kind, &url, &bindings, ports) {
            self.refuse(section.at("url"), &refusal);
        }
        let upstream = self.upstream(section, kind);
        let description = self.text(section, "description").unwrap_or_default();
        let metadata = self.text(section, "metadata").unwrap_or_default();
        let pooling = self.flag(section, "pooling_enabled").unwrap_or_default();
        let traffic_policy = self.policy(section);
        let inspect = self.flag(section, "inspect").unwrap_or(true);
        let (upstream, upstream_protocol, proxy_protocol, verify) = upstream?;
        Some(Endpoint {
            url,
            upstream_protocol,
            proxy_protocol,
            verify,
            description,
            metadata,
            bindings,
            pooling,
            traffic_policy,
            inspect,
            ..Endpoint::new(name?, kind, upstream)
        })
    }

    /// A string; the vendor's reference says a list of strings.
    fn url(&mut self, section: &Section<'a>) -> Option<String> {
        match section.value("url") {
            Some(Value::Sequence(_)) => {
                let mut urls = self.texts(section, "url")?;
                if urls.len() > 1 {
                    let what = "can be one URL only: write an endpoint for each".to_owned();
                    self.fault(section.at("url"), Part::Value, what);
                }
                urls.pop()
            }
            _ => self.text(section, "url"),
        }
    }

    fn bindings(&mut self, section: &Section<'a>, url: &str) -> Vec<String> {
        let bindings = self.texts(section, "bindings").unwrap_or_default();
        if let Err(what) = super::check_bindings(&bindings) {
            self.fault(section.at("bindings"), Part::Value, what);
        }
        super::inferred_bindings(bindings, url)
    }

    fn upstream(
        &mut self,
        endpoint: &Section<'a>,
        kind: Kind,
    ) -> Option<(Upstream, String, u8, Verify)> {
        // `upstream: 8080` is what people try first, and can mean one thing only.
        if matches!(endpoint.value("upstream"), Some(Value::Number(_) | Value::String(_))) {
            let upstream = self.parsed(endpoint, "upstream", |text| Upstream::parse(kind, text))?;
            return Some((upstream, String::new(), 0, Verify::Off));
        }
        if endpoint.value("upstream").is_none() {
            let what = "needs an upstream, as in upstream: {url: 8080}".to_owned();
            self.fault(endpoint.path.clone(), Part::Value, what);
            return None;
        }
        let section = self.section(endpoint, "upstream")?;
        self.keys(&section, UPSTREAM, &[], &[]);
        let protocol = self.text(&section, "protocol").unwrap_or_default();
        if !matches!(protocol.as_str(), "" | "http1" | "http2") {
            let what = "must be http1 or http2".to_owned();
            self.fault(section.at("protocol"), Part::Value, what);
        } else if !protocol.is_empty() && kind != Kind::Http {
            let what = format!("is for http endpoints, this is a {kind} endpoint");
            self.fault(section.at("protocol"), Part::Key, what);
        }
        let proxy_protocol = self.parsed(&section, "proxy_protocol", super::parse_proxy_protocol);
        let verify = self.flag(&section, "tls_verify").unwrap_or_default();
        let verify = match self.text(&section, "tls_verify_cas") {
            Some(path) => Verify::File(PathBuf::from(path)),
            None if verify => Verify::System,
            None => Verify::Off,
        };
        self.needed(&section, "url")?;
        let upstream = self.parsed(&section, "url", |text| Upstream::parse(kind, text))?;
        if upstream.scheme == Scheme::File && !protocol.is_empty() {
            let what = "has no meaning for a file:// address".to_owned();
            self.fault(section.at("protocol"), Part::Key, what);
        }
        Some((upstream, protocol, proxy_protocol.unwrap_or_default(), verify))
    }

    fn policy(&mut self, section: &Section<'a>) -> String {
        let file = self.text(section, "traffic_policy_file");
        let inline = match section.value("traffic_policy") {
            None => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(value @ Value::Mapping(_)) => match serde_json::to_string(value) {
                Ok(text) => Some(text),
                Err(_) => {
                    let what = "has a key that is no text".to_owned();
                    self.fault(section.at("traffic_policy"), Part::Value, what);
                    None
                }
            },
            Some(_) => {
                self.fault(section.at("traffic_policy"), Part::Value, "must be a mapping".into());
                None
            }
        };
        match (inline, file) {
            (Some(_), Some(_)) => {
                let what = "cannot stand beside traffic_policy: one policy only".to_owned();
                self.fault(section.at("traffic_policy_file"), Part::Key, what);
                String::new()
            }
            (Some(text), None) => text,
            (None, Some(path)) => fs::read_to_string(&path).unwrap_or_else(|error| {
                let what = format!("cannot be read from {path}: {error}");
                self.fault(section.at("traffic_policy_file"), Part::Value, what);
                String::new()
            }),
            (None, None) => String::new(),
        }
    }
}

/// Typed values. Each answers `None` for a missing key and for a faulty one.
impl<'a> Reader<'a> {
    fn text(&mut self, section: &Section<'a>, key: &str) -> Option<String> {
        match section.value(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) if !number.is_f64() => Some(number.to_string()),
            Value::Number(_) => self.wrong(section, key, "text: put the number in quotes"),
            other => self.wrong(section, key, &format!("text, found {}", name_of(other))),
        }
    }

    fn needed(&mut self, section: &Section<'a>, key: &str) -> Option<String> {
        if section.value(key).is_none() {
            let what = format!("needs the key {key}");
            self.fault(section.path.clone(), Part::Value, what);
        }
        let text = self.text(section, key)?;
        if text.is_empty() {
            return self.wrong(section, key, "something that is not empty");
        }
        Some(text)
    }

    fn parsed<T>(
        &mut self,
        section: &Section<'a>,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(section, key)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(what) => {
                self.fault(section.at(key), Part::Value, what);
                None
            }
        }
    }

    fn time(&mut self, section: &Section<'a>, key: &str) -> Option<Duration> {
        let time = self.parsed(section, key, duration::parse)?;
        if time.is_zero() {
            return self.wrong(section, key, "longer than nothing");
        }
        Some(time)
    }

    fn flag(&mut self, section: &Section<'a>, key: &str) -> Option<bool> {
        match section.value(key)? {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) if text == "true" => Some(true),
            Value::String(text) if text == "false" => Some(false),
            other => self.wrong(section, key, &format!("true or false, found {}", name_of(other))),
        }
    }

    fn count(&mut self, section: &Section<'a>, key: &str) -> Option<usize> {
        let text = self.text(section, key)?;
        match text.parse::<u16>() {
            Ok(n) if n > 0 => Some(usize::from(n)),
            _ => self.wrong(section, key, "a number from 1 to 65535"),
        }
    }

    fn list(&mut self, section: &Section<'a>, key: &str) -> Option<&'a [Value]> {
        match section.value(key)? {
            Value::Sequence(list) => Some(list),
            other => self.wrong(section, key, &format!("a list, found {}", name_of(other))),
        }
    }

    fn texts(&mut self, section: &Section<'a>, key: &str) -> Option<Vec<String>> {
        let list = self.list(section, key)?;
        let texts = list.iter().map(|item| item.as_str().map(str::to_owned));
        match texts.collect() {
            Some(texts) => Some(texts),
            None => self.wrong(section, key, "a list of texts"),
        }
    }

    fn section(&mut self, section: &Section<'a>, key: &str) -> Option<Section<'a>> {
        match section.value(key)? {
            Value::Mapping(mapping) => Some(Section { mapping, path: section.at(key) }),
            other => self.wrong(section, key, &format!("a mapping, found {}", name_of(other))),
        }
    }

    fn wrong<T>(&mut self, section: &Section<'a>, key: &str, wanted: &str) -> Option<T> {
        self.fault(section.at(key), Part::Value, format!("must be {wanted}"));
        None
    }

    /// Faults for keys that are not known or cannot be obeyed, notes for those
    /// that have no effect.
    fn keys(&mut self, section: &Section<'a>, used: &[&str], unused: &[&str], missing: &[&str]) {
        for key in self.unknown_keys(section, used) {
            if missing.contains(&key) {
                let what = "is not supported by this version yet: take it out".to_owned();
                self.fault(section.at(key), Part::Key, what);
            } else if unused.contains(&key) {
                let off = section.value(key).is_none_or(|value| *value == Value::Bool(false));
                self.notes.push(Note { path: show(&section.at(key)), off });
            } else {
                let known = [used, unused, missing].concat();
                self.fault(section.at(key), Part::Key, unknown(key, &known));
            }
        }
    }

    /// The keys of `section` that are not in `known`. What is no text is a fault.
    fn unknown_keys(&mut self, section: &Section<'a>, known: &[&str]) -> Vec<&'a str> {
        let mut unknown = Vec::new();
        for key in section.mapping.keys() {
            match key.as_str() {
                Some(key) if known.contains(&key) => {}
                Some(key) => unknown.push(key),
                None => {
                    let what = "has a key that is no text".to_owned();
                    self.fault(section.path.clone(), Part::Value, what);
                }
            }
        }
        unknown
    }

    fn refuse(&mut self, path: Vec<Step>, refusal: &Refusal) {
        self.fault(path, Part::Value, refusal.to_string());
    }

    fn fault(&mut self, path: Vec<Step>, part: Part, what: String) {
        let place = self.document.locate(&path, part);
        self.faults.push(Fault { place, path: show(&path), what });
    }
}

fn unknown(key: &str, known: &[&str]) -> String {
    let renamed = RENAMED.iter().find(|(old, _)| *old == key).map(|(_, new)| *new);
    let near = || nearest(key, known.iter().copied());
    match renamed.or_else(near) {
        Some(other) => format!("is not a known key, did you mean {other}?"),
        None => format!("is not a known key, known are {}", known.join(" ")),
    }
}

/// What a value is, for a message that must not show the value.
fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Tagged(_) => "a value with a tag",
    }
}
