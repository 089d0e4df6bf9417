//! Options of the agent: below `agent` in version 3, at the top in version 2.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_yaml::Value;

use super::{DocumentReader, OLD_NAMES, Section};
use crate::config::document::EntryPart;
use crate::config::loaded::Loaded;
use crate::config::update_key::UpdateKey;
use crate::config::{Agent, Cas, ConsoleUi, InspectSize, UPDATE_CHANNELS, WebAddr, address, size};
use crate::features;
use crate::logging::{Destination, Format, Level};
use crate::proto::secret::Secret;

/// All keys by their names in version 3, separated by blanks. A list of strings needs four
/// times the space.
pub(in crate::config) const KEYS: &str = "api_key api_url authtoken authtoken_file client_version connect_cas connect_interface \
    connect_timeout connect_url console_ui console_ui_color crl_noverify crl_url \
    dns_public_resolvers dns_resolver_ips heartbeat_interval heartbeat_tolerance \
    inspect_db_size local_storage log log_format log_level max_connections \
    memory_limit metadata on_state_change proxy_url remote_management state_dir update_channel \
    update_check update_key update_url web_addr web_allow_hosts";

/// Keys without effect in a build without updates.
const UPDATE_KEYS: &[&str] = &["update_channel", "update_check", "update_key", "update_url"];

/// Returns the name of an option in version 2.
pub(in crate::config) fn old_name(key: &str) -> &str {
    OLD_NAMES.iter().find(|(_, new)| *new == key).map_or(key, |(old, _)| old)
}

/// Maximum length of `on_state_change`, in bytes.
const MAX_COMMAND: usize = 4096;

/// Maximum length of a session's `metadata`, in characters.
const MAX_METADATA: usize = 4096;

impl<'a> DocumentReader<'a> {
    /// Reads `section` on top of `loaded`. Its keys were checked before.
    pub(in crate::config) fn options(&mut self, section: &Section<'a>, loaded: &mut Loaded) {
        let Loaded { agent, .. } = loaded;
        self.updates(section, agent);
        self.credentials(section, agent);
        self.edges(section, agent);
        self.ways(section, agent);
        self.limits(section, agent);
        self.looks(section, agent);
        self.log(section, loaded);
    }

    fn updates(&mut self, section: &Section<'a>, agent: &mut Agent) {
        for &key in UPDATE_KEYS {
            if !features::UPDATE && section.has(key) {
                self.note(section, key);
            }
        }
        let options = &mut agent.update;
        if let Some(n) = self.word(section, "update_channel", &UPDATE_CHANNELS) {
            options.channel = UPDATE_CHANNELS[n];
        }
        if let Some(flag) = self.flag(section, "update_check") {
            options.check = flag;
        }
        if !features::UPDATE {
            return;
        }
        if let Some(url) = self.given(section, "update_url") {
            if !url.starts_with("https://") && !url.starts_with("http://") {
                self.say(section, "update_url", "must start with https:// or http://");
            } else if !section.has("update_key") {
                self.say(section, "update_url", "needs update_key, the public key of the feed");
            }
            options.url = url;
        }
        for text in self.one_or_more(section, "update_key").unwrap_or_default() {
            match UpdateKey::parse(&text) {
                Ok(key) => options.keys.push(key),
                Err(why) => self.fault(section.at("update_key"), EntryPart::Value, why),
            }
        }
    }

    fn credentials(&mut self, section: &Section<'a>, agent: &mut Agent) {
        if section.has("authtoken") && section.has("authtoken_file") {
            self.say_key(
                section,
                "authtoken_file",
                "conflicts with authtoken; remove one of \
                them",
            );
        } else if let Some(token) = self.secret_file(section, "authtoken_file") {
            agent.authtoken = token;
        }
        if let Some(token) = self.secret(section, "authtoken") {
            agent.authtoken = token;
        }
        if let Some(key) = self.secret(section, "api_key") {
            agent.api_key = key;
        }
        if features::API
            && let Some(url) = self.text(section, "api_url")
        {
            if !url.starts_with("https://") && !url.starts_with("http://") {
                let message = "must be a http:// or https:// URL".to_owned();
                self.fault(section.at("api_url"), EntryPart::Value, message);
            }
            agent.api_url = url;
        }
    }

    /// Reads one edge, or a list of them.
    fn edges(&mut self, section: &Section<'a>, agent: &mut Agent) {
        let texts = self.one_or_more(section, "connect_url").unwrap_or_default();
        let mut edges = Vec::new();
        for text in texts {
            match address::parse_edge(&text) {
                Ok(edge) => edges.push(edge),
                Err(message) => self.fault(section.at("connect_url"), EntryPart::Value, message),
            }
        }
        if !edges.is_empty() {
            agent.connect_url = edges.remove(0);
            agent.further_urls = edges;
        }
        if let Some(cas) = self.text(section, "connect_cas") {
            agent.connect_cas = Cas::from_text(&cas);
        }
    }

    /// Reads the options for the connection to the edge.
    fn ways(&mut self, section: &Section<'a>, agent: &mut Agent) {
        let texts = [
            ("connect_interface", &mut agent.connect_interface),
            ("crl_url", &mut agent.crl_url),
            ("client_version", &mut agent.client_version),
        ];
        for (key, slot) in texts {
            if let Some(text) = self.text(section, key) {
                *slot = text;
            }
        }
        if let Some(url) = self.secret(section, "proxy_url") {
            self.proxy(section, &url);
            agent.proxy_url = url;
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
    }

    /// Checks the scheme of the proxy. The fault contains no part that may be a password.
    fn proxy(&mut self, section: &Section<'a>, url: &Secret) {
        let scheme = url.expose().split_once("://").map(|(scheme, _)| scheme);
        let known = ["http", "https", "socks5", "socks5h"];
        let fine = url.is_empty()
            || scheme.is_some_and(|s| known.iter().any(|k| s.eq_ignore_ascii_case(k)));
        if !fine {
            let message = "is not a proxy; write a URL with http://, https:// or socks5://";
            self.say(section, "proxy_url", message);
        } else if !features::PROXIES && !url.is_empty() {
            self.say(section, "proxy_url", features::NO_PROXIES);
        }
    }

    fn resolvers(&mut self, section: &Section<'a>, key: &str) -> Option<Vec<SocketAddr>> {
        let texts = self.texts(section, key)?;
        let list = texts.iter().map(|text| address::parse_resolver(text)).collect();
        match list {
            Ok(list) => Some(list),
            Err(message) => {
                self.fault(section.at(key), EntryPart::Value, message);
                None
            }
        }
    }

    /// Reads limits, and the permissions of the edge.
    fn limits(&mut self, section: &Section<'a>, agent: &mut Agent) {
        if let Some(limit) = self.parsed(section, "memory_limit", size::parse) {
            agent.memory_limit = Some(limit);
        }
        if let Some(n) = self.count(section, "max_connections") {
            agent.max_connections = Some(n);
        }
        if let Some(dir) = self.text(section, "state_dir") {
            agent.state_dir = Some(PathBuf::from(dir));
        }
        if features::STATE_COMMAND
            && let Some(command) = self.text(section, "on_state_change")
        {
            if command.len() > MAX_COMMAND || command.contains('\0') {
                let message = format!("is longer than {MAX_COMMAND} bytes; write a script");
                self.fault(section.at("on_state_change"), EntryPart::Value, message);
            }
            agent.on_state_change = command;
        }
        if let Some(flag) = self.flag(section, "remote_management") {
            agent.remote_management = flag;
        }
        if let Some(text) = self.text(section, "metadata") {
            if text.chars().count() > MAX_METADATA {
                let message = format!("is longer than {MAX_METADATA} characters (ERR_NGROK_100)");
                self.fault(section.at("metadata"), EntryPart::Value, message);
            }
            agent.metadata = text;
        }
        let room = self.parsed(section, "inspect_db_size", |text| match text {
            "-1" => Ok(InspectSize::Off),
            "0" => Ok(InspectSize::Usual),
            text => size::parse(text).map(InspectSize::Bytes),
        });
        if let Some(room) = room {
            agent.inspect_db_size = room;
        }
        if self.flag(section, "local_storage") == Some(false) {
            agent.inspect_db_size = InspectSize::Off;
        }
    }

    /// Reads the options of the web page, the status screen and the log.
    fn looks(&mut self, section: &Section<'a>, agent: &mut Agent) {
        let here = [
            ("web_addr", features::WEB),
            ("web_allow_hosts", features::WEB),
            ("inspect_db_size", features::INSPECT),
            ("console_ui", features::CONSOLE),
            ("console_ui_color", features::CONSOLE),
            ("on_state_change", features::STATE_COMMAND),
        ];
        for (key, here) in here {
            if !here && section.value(key).is_some() {
                self.note(section, key);
            }
        }
        match section.value("web_addr") {
            Some(Value::Bool(false)) => agent.web_addr = WebAddr::Off,
            _ => {
                let addr = self.parsed(section, "web_addr", |text| match text {
                    "false" => Ok(WebAddr::Off),
                    text => web_addr(text).map(WebAddr::At),
                });
                if let Some(addr) = addr {
                    agent.web_addr = addr;
                }
            }
        }
        if let Some(hosts) = self.texts(section, "web_allow_hosts") {
            agent.web_allow_hosts = hosts;
        }
        match self.word(section, "console_ui", &["true", "false", "iftty"]) {
            Some(0) => agent.console_ui = ConsoleUi::Always,
            Some(1) => agent.console_ui = ConsoleUi::Never,
            Some(_) => agent.console_ui = ConsoleUi::IfTerminal,
            None => {}
        }
        if let Some(n) = self.word(section, "console_ui_color", &["black", "transparent"]) {
            agent.console_transparent = n == 1;
        }
    }

    fn log(&mut self, section: &Section<'a>, loaded: &mut Loaded) {
        let log = &mut loaded.log;
        match section.value("log") {
            Some(Value::Bool(false)) => log.target = Some(Destination::Nowhere),
            Some(Value::Bool(true)) => {
                self.say(section, "log", "must be stdout, stderr, false or a path");
            }
            _ => {
                let target = self.text(section, "log").map(|text| Destination::from_text(&text));
                log.target = target.or(log.target.take());
            }
        }
        const FORMATS: [&str; 3] = ["term", "logfmt", "json"];
        if let Some(n) = self.word(section, "log_format", &FORMATS) {
            log.format = Format::from_name(FORMATS[n]);
        }
        const LEVELS: [&str; 5] = ["debug", "info", "warn", "error", "crit"];
        if let Some(n) = self.word(section, "log_level", &LEVELS) {
            log.level = Level::from_name(LEVELS[n]);
        }
    }
}

/// Parses `host:port`, `:port` for all addresses, or a port of this machine.
fn web_addr(text: &str) -> Result<String, String> {
    let text = match text.bytes().all(|b| b.is_ascii_digit()) {
        true => format!("127.0.0.1:{text}"),
        false => text.to_owned(),
    };
    let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) if !text.contains(['/', ' ', '@']) => Ok(text),
        _ => Err("must be HOST:PORT or false, as in 127.0.0.1:4040".to_owned()),
    }
}
