//! Reads several documents in order: their versions, the keys at the top level, then the
//! options and the endpoints of each. Files are opened in [`crate::config::file`].

use serde_yaml::Value;

use super::options::{self, old_name};
use super::{DocumentReader, SchemaVersion, Section, unknown};
use crate::config::document::{Document, EntryPart, PathSegment, digits};
use crate::config::fault::Fault;
use crate::config::loaded::Loaded;
use crate::config::public_url::PortPolicy;
use crate::sys::argv;

/// Reads `texts` in order, on top of `loaded`. Returns the faults of each; the result is valid
/// without faults.
pub(in crate::config) fn parse_all(texts: Vec<String>, loaded: &mut Loaded) -> Vec<Vec<Fault>> {
    let mut first: Option<SchemaVersion> = None;
    let mut faults = Vec::new();
    let mut documents = Vec::new();
    for text in texts {
        let mut wrong = Vec::new();
        match Document::parse(text) {
            Ok(document) => match version(&document) {
                Ok(version) if first.is_none_or(|first| first == version) => {
                    first = Some(version);
                    documents.push(Some((document, version)));
                }
                Ok(_) => {
                    let path = [PathSegment::Key("version".to_owned())];
                    let position = document.locate(&path, EntryPart::Value);
                    let message = "differs from the files before; all must have the same";
                    wrong.push(Fault {
                        position,
                        path: "version".to_owned(),
                        message: message.to_owned(),
                    });
                    documents.push(None);
                }
                Err(fault) => {
                    wrong.push(fault);
                    documents.push(None);
                }
            },
            Err((message, position)) => {
                wrong.push(Fault { position, path: String::new(), message });
                documents.push(None);
            }
        }
        faults.push(wrong);
    }
    let mut readers: Vec<_> = documents
        .iter()
        .map(|entry| {
            entry.as_ref().map(|(document, version)| DocumentReader::new(document, *version))
        })
        .collect();
    // The valid URLs of an endpoint depend on the edge, which a later file may name.
    for reader in readers.iter_mut().flatten() {
        loaded.agent.version =
            if reader.version == SchemaVersion::Two { "2" } else { "3" }.to_owned();
        reader.agent_options(loaded);
    }
    if !loaded.edges.is_empty() {
        loaded.agent.further_urls = std::mem::take(&mut loaded.edges);
        loaded.agent.connect_url = loaded.agent.further_urls.remove(0);
    }
    for reader in readers.iter_mut().flatten() {
        reader.all_endpoints(loaded);
    }
    for (reader, faults) in readers.into_iter().zip(&mut faults) {
        let Some(mut reader) = reader else { continue };
        loaded.notes.append(&mut reader.notes);
        loaded.warnings.append(&mut reader.warnings);
        faults.append(&mut reader.faults);
    }
    faults
}

const TOP: &str = "version agent endpoints tunnels";

impl<'a> DocumentReader<'a> {
    /// Reads the options of the agent, and checks the keys at the top level.
    fn agent_options(&mut self, loaded: &mut Loaded) {
        let Some(top) = self.top() else { return };
        if self.version == SchemaVersion::Two {
            let names: Vec<&str> = options::KEYS.split(' ').map(old_name).collect();
            let known = names.join(" ") + " version tunnels region";
            for key in self.unknown_keys(&top, &known) {
                let message = match key {
                    "agent" | "endpoints" => {
                        format!("is a key of version 3: {}", upgrade_hint())
                    }
                    key => unknown(key, &known),
                };
                self.fault(top.at_written(key), EntryPart::Key, message);
            }
            if self.text(&top, "region").is_some() {
                self.warnings.push("region is ignored, server_addr names the edge".to_owned());
            }
            self.options(&top, loaded);
            return;
        }
        for key in self.unknown_keys(&top, TOP) {
            let new = options::KEYS.split(' ').find(|new| old_name(new) == key || *new == key);
            let message = match new {
                Some(new) => format!("is not known here; write it as agent.{new}"),
                None => unknown(key, TOP),
            };
            self.fault(top.at_written(key), EntryPart::Key, message);
        }
        if let Some(agent) = self.section(&top, "agent") {
            self.keys(&agent, options::KEYS);
            self.options(&agent, loaded);
        }
    }

    fn all_endpoints(&mut self, loaded: &mut Loaded) {
        let Some(top) = self.top() else { return };
        let ports = PortPolicy::of_edge(&loaded.agent.connect_url);
        if let Some(map) = self.section(&top, "tunnels") {
            let map = Section { old: false, ..map };
            if self.version == SchemaVersion::Three {
                let text = "tunnels are deprecated in version 3; write them below endpoints";
                self.warnings.push(text.to_owned());
            }
            self.tunnels(&map, ports, &mut loaded.agent.endpoints);
        }
        if self.version == SchemaVersion::Three
            && let Some(list) = self.list(&top, "endpoints")
        {
            self.endpoints(list, ports, &mut loaded.agent.endpoints);
        }
    }
}

fn upgrade_hint() -> String {
    format!("\"{} config upgrade\" upgrades the file to version 3", argv::program())
}

/// Returns the version of a document, if it is supported.
pub(in crate::config) fn version(document: &Document) -> Result<SchemaVersion, Fault> {
    let at = |message: String| {
        let path = [PathSegment::Key("version".to_owned())];
        let position = document.locate(&path, EntryPart::Value);
        Fault { position, path: "version".to_owned(), message }
    };
    let mapping = match &document.root {
        Value::Mapping(mapping) => mapping,
        Value::Null => return Err(at("is missing; write \"version: 3\" at the top".to_owned())),
        _ => return Err(Fault::of_file("must be a mapping of keys, beginning with version: 3")),
    };
    let version = match mapping.get("version") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => digits(number).unwrap_or_else(|| "fraction".to_owned()),
        Some(_) => return Err(at("must be 2 or 3".to_owned())),
    };
    match version.as_str() {
        "3" => Ok(SchemaVersion::Three),
        "2" => Ok(SchemaVersion::Two),
        // Only keys of version 3 make the version unambiguous.
        "" if mapping
            .keys()
            .all(|key| key == "version" || key == "agent" || key == "endpoints") =>
        {
            Err(at("is missing; write \"version: 3\" at the top".to_owned()))
        }
        "" => Err(at(format!("is missing, as in files of agent 2; {}", upgrade_hint()))),
        "1" => Err(at(format!("is too old; {}", upgrade_hint()))),
        _ => Err(at("is not known; it must be 2 or 3".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Cas;
    use crate::config::fault::{ConfigError, MAX_FAULTS};
    use crate::config::{EndpointKind, Verify};
    use crate::features;
    use crate::logging::{Destination, Format, Level};
    use std::time::Duration;

    fn parse(texts: &[&str]) -> (Loaded, Vec<Vec<Fault>>) {
        let mut loaded = Loaded::default();
        let faults = parse_all(texts.iter().map(|&t| t.to_owned()).collect(), &mut loaded);
        (loaded, faults)
    }

    fn good(text: &str) -> Loaded {
        let (loaded, faults) = parse(&[text]);
        assert!(faults.concat().is_empty(), "{faults:?}");
        loaded
    }

    /// Returns the faults as text.
    fn bad(text: &str) -> Vec<String> {
        let (_, mut faults) = parse(&[text]);
        let faults = faults.remove(0);
        assert!(!faults.is_empty(), "no fault in {text}");
        let error = ConfigError { files: vec![("f.yml".into(), faults)] }.to_string();
        error.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_whole_file() {
        let loaded = good(
            "version: 3\nagent:\n  authtoken: hush\n  connect_url: edge.example\n  \
             connect_cas: host\n  connect_timeout: 3s\n  heartbeat_interval: 1m\n  \
             heartbeat_tolerance: 500ms\n  log: stdout\n  log_level: debug\n  \
             log_format: json\n  metadata: here\n  remote_management: false\n  \
             max_connections: 20\n  web_addr: 127.0.0.1:4040\n  update_check: false\n\
             endpoints:\n  - name: web\n    url: https://app.example.com\n    \
             description: d\n    metadata: m\n    bindings: [public]\n    \
             pooling_enabled: true\n    traffic_policy:\n      on_http_request:\n        \
             - actions: [{type: deny}]\n    \
             upstream: {url: \"http://localhost:8080\", protocol: http1, tls_verify: true}\n  \
             - {name: ssh, url: \"tcp://1.tcp.example:12345\", \
             upstream: {url: 22, proxy_protocol: 2}}\n  \
             - name: in\n    url: https://x.internal:99\n    upstream: 80\n",
        );
        let agent = &loaded.agent;
        assert_eq!(agent.authtoken.expose(), "hush");
        assert_eq!(agent.connect_url, "edge.example:443");
        assert_eq!(agent.connect_cas, Cas::Host);
        assert_eq!(agent.connect_timeout, Duration::from_secs(3));
        assert_eq!(agent.heartbeat_interval, Duration::from_secs(60));
        assert_eq!(agent.heartbeat_tolerance, Duration::from_millis(500));
        assert_eq!(agent.metadata, "here");
        assert!(!agent.remote_management);
        assert_eq!(agent.max_connections, Some(20));
        assert_eq!(agent.version, "3");
        assert_eq!(loaded.log.target, Some(Destination::Stdout));
        assert_eq!(loaded.log.level, Some(Level::Debug));
        assert_eq!(loaded.log.format, Some(Format::Json));
        let notes: Vec<_> = loaded.notes.iter().map(|n| (n.path.as_str(), n.off)).collect();
        let unused = [
            (features::UPDATE, ("agent.update_check", true)),
            (features::WEB, ("agent.web_addr", false)),
        ];
        let expected: Vec<_> =
            unused.iter().filter(|(used, _)| !used).map(|(_, note)| *note).collect();
        assert_eq!(notes, expected);
        let [web, ssh, inside] = &agent.endpoints[..] else { panic!("three endpoints") };
        assert_eq!((web.name.as_str(), web.kind, web.pooling), ("web", EndpointKind::Http, true));
        assert_eq!(web.upstream.to_string(), "http://localhost:8080");
        assert_eq!(web.traffic_policy, r#"{"on_http_request":[{"actions":[{"type":"deny"}]}]}"#);
        assert_eq!(web.verify, Verify::System);
        assert_eq!((ssh.kind, ssh.proxy_protocol), (EndpointKind::Tcp, 2));
        assert_eq!(ssh.upstream.to_string(), "localhost:22");
        assert_eq!(inside.bindings, ["internal"]);
        assert!(!format!("{loaded:?}").contains("hush"));
    }

    #[test]
    fn numbers_and_strings_are_taken_for_each_other() {
        let loaded =
            good("version: \"3\"\nagent: {authtoken: 12345, remote_management: \"false\"}");
        assert_eq!(loaded.agent.authtoken.expose(), "12345");
        assert!(!loaded.agent.remote_management);
        good("version: 3\nagent:\nendpoints:\n");
        good("{\"version\": 3, \"agent\": {\"authtoken\": \"x\"}}");
        good("version: 3\nagent: &a {metadata: x}\n");
    }

    #[test]
    fn every_fault_has_file_line_key_and_advice() {
        let faults = bad(
            "version: 3\nagent:\n  log_levl: info\n  connect_timeout: 10\n  authtoken: [hush]\n\
             server_addr: x\nendpoint: []\nendpoints:\n  - name: a\n    addr: 80\n  - name: a\n    \
             upstream:\n      url: \"tcp://x:1\"\n",
        );
        let expected = [
            "f.yml:3:3: agent.log_levl is not a known key; did you mean log_level?",
            "f.yml:4:20: agent.connect_timeout \"10\" is not a duration: a unit",
            "f.yml:5:14: agent.authtoken must be text, found a list",
            "f.yml:6:1: server_addr is not known here; write it as agent.connect_url",
            "f.yml:7:1: endpoint is not a known key; did you mean endpoints?",
            "f.yml:9:5: endpoints[0] needs an upstream",
            "f.yml:10:5: endpoints[0].addr is not a known key; did you mean upstream.url?",
            "f.yml:11:11: endpoints[1].name \"a\" is the name of another endpoint",
            "f.yml:13:12: endpoints[1].upstream.url tcp:// is an address for",
        ];
        assert_eq!(faults.len(), expected.len(), "{faults:#?}");
        for (fault, expected) in faults.iter().zip(expected) {
            assert!(fault.starts_with(expected), "{fault:?} and not {expected:?}");
        }
        assert!(!faults.concat().contains("hush"));
    }

    #[test]
    fn single_faults() {
        for &(text, expected) in FAULTS {
            let faults = bad(text);
            assert_eq!(faults.len(), 1, "{faults:?}");
            let fault = &faults[0];
            assert!(fault.starts_with(expected), "{fault:?} and not {expected:?}");
        }
    }

    /// A file and the beginning of its only fault.
    const FAULTS: &[(&str, &str)] = &[
        ("", "f.yml: version is missing"),
        ("# only a comment\n", "f.yml: version is missing"),
        ("authtoken: x\n", "f.yml: version is missing"),
        ("- 1\n", "f.yml: must be a mapping"),
        ("text", "f.yml: must be a mapping"),
        ("tunnels: {}\n", "f.yml: version is missing, as in files of agent 2; \"culvert config"),
        ("version: 1\nauthtoken: x\n", "f.yml:1:10: version is too old; \"culvert config up"),
        ("version: 4\n", "f.yml:1:10: version is not known; it must be 2 or 3"),
        ("version: [3]\n", "f.yml:1:10: version must be 2 or 3"),
        ("version: 2\nagent: {}\n", "f.yml:2:1: agent is a key of version 3"),
        (
            "version: 2\nconnect_url: x\n",
            "f.yml:2:1: connect_url is not a known key; did you mean server_addr?",
        ),
        ("version: 3\ntunnels: []\n", "f.yml:2:10: tunnels must be a mapping, found a list"),
        ("version: 3\nagent: {proxy_url: hush}\n", "f.yml:2:20: agent.proxy_url is not a proxy"),
        ("version: 3\nagent: {web_addr: x}\n", "f.yml:2:19: agent.web_addr must be HOST:PORT"),
        (
            "version: 3\nagent: {authtoken: x, authtoken_file: /f}\n",
            "f.yml:2:23: agent.authtoken_file conflicts with authtoken",
        ),
        (
            "version: 3\nagent: {authtoken_file: /no/such}\n",
            "f.yml:2:25: agent.authtoken_file cannot be read from /no/such: No such file",
        ),
        ("version: 3\nauthtoken: x\n", "f.yml:2:1: authtoken is not known here; write it"),
        ("version: 3\nagent: []\n", "f.yml:2:8: agent must be a mapping, found a list"),
        ("version: 3\nagent: {memory_limit: x}\n", "f.yml:2:23: agent.memory_limit must be"),
        ("version: 3\nagent: {console_ui: 1}\n", "f.yml:2:21: agent.console_ui must be"),
        ("version: 3\nagent: {log: true}\n", "f.yml:2:14: agent.log must be stdout"),
        ("version: 3\nagent: {log_level: loud}\n", "f.yml:2:20: agent.log_level must be debug"),
        ("version: 3\nagent: {authtoken: 1e9}\n", "f.yml:2:20: agent.authtoken must be text;"),
        ("version: 3\nagent: {max_connections: 0}\n", "f.yml:2:26: agent.max_connections must"),
        ("version: 3\nagent: {1: 2}\n", "f.yml:2:8: agent has a key that is not text"),
        ("version: 3\nagent: {connect_url: \"https://x\"}\n", "f.yml:2:22: agent.connect_url"),
        ("version: 3\nendpoints: {}\n", "f.yml:2:12: endpoints must be a list"),
        ("version: 3\nendpoints: [x]\n", "f.yml:2:13: endpoints[0] must be a mapping"),
        ("version: 3\nendpoints: [{upstream: 80}]\n", "f.yml:2:13: endpoints[0] needs the key"),
        (
            "version: 3\nendpoints: [{name: a, upstream: 80, agent_tls_termination: ~, x: 1}]\n",
            "f.yml:2:63: endpoints[0].x is not a known key",
        ),
        (
            "version: 3\nendpoints: [{name: a, upstream: 80}, {name: a, upstream: 81}]\n",
            "f.yml:2:45: endpoints[1].name \"a\" is the name of another",
        ),
        (
            "version: 3\nendpoints: [{name: a, url: \"https://a.example:1\", upstream: 80}]\n",
            "f.yml:2:28: endpoints[0].url The URL",
        ),
        (
            "version: 3\nendpoints: [{name: a, bindings: [privat], upstream: 80}]\n",
            "f.yml:2:33: endpoints[0].bindings must be",
        ),
        (
            "version: 3\nendpoints: [{name: a, upstream: {url: 80, proxy_protocol: 3}}]\n",
            "f.yml:2:59: endpoints[0].upstream.proxy_protocol must be",
        ),
        (
            "version: 3\nagent:\n\tlog: x\n",
            "f.yml:3:1: is not valid YAML: line 3 is indented with a tab; use spaces",
        ),
    ];

    #[test]
    fn many_faults_are_cut() {
        let keys: String = (0..30).map(|n| format!("zz{n}: 1\n")).collect();
        let faults = bad(&format!("version: 3\n{keys}"));
        assert_eq!(faults.len(), MAX_FAULTS + 1);
        assert_eq!(faults.last().map(String::as_str), Some("f.yml: 10 more faults"));
    }

    #[test]
    fn later_files_win_and_endpoints_merge_by_name() {
        let (loaded, faults) = parse(&[
            "version: 3\nagent: {metadata: a, web_allow_hosts: [a, b]}\n\
             endpoints: [{name: a, upstream: 80}, {name: b, upstream: 80, description: old}]\n\
             tunnels: {t: {proto: tcp, addr: 22}}\n",
            "version: \"3\"\nagent: {connect_url: x, web_allow_hosts: [c]}\n\
             endpoints: [{name: b, url: \"https://b.example:1\", upstream: 81}, \
             {name: c, upstream: 82}]\n",
        ]);
        assert!(faults.concat().is_empty(), "{faults:?}");
        let agent = &loaded.agent;
        assert_eq!((agent.metadata.as_str(), agent.connect_url.as_str()), ("a", "x:443"));
        assert_eq!(agent.web_allow_hosts, ["c"]);
        let shown = agent.endpoints.iter().map(|e| (e.name.as_str(), e.upstream.port));
        assert_eq!(shown.collect::<Vec<_>>(), [("t", 22), ("a", 80), ("b", 81), ("c", 82)]);
        assert_eq!(agent.endpoints[2].description, "", "taken whole");
    }

    #[test]
    fn faults_of_several_files() {
        let (_, faults) = parse(&["version: 3\nx: 1\n", "version: 2\n", "version: 3\ny: 1\n"]);
        let counts: Vec<usize> = faults.iter().map(Vec::len).collect();
        assert_eq!(counts, [1, 1, 1], "{faults:?}");
        assert!(faults[1][0].message.contains("must have the same"), "{faults:?}");
    }

    #[test]
    fn version_2_has_options_at_the_top_and_tunnels() {
        let loaded = good(
            "version: \"2\"\nauthtoken: hush\nregion: eu\nserver_addr: e.example:1\n\
             root_cas: host\nlog_level: debug\ntunnels:\n  web:\n    proto: http\n    \
             addr: 8080\n    schemes: [http, https]\n    domain: w.example.com\n  \
             ssh: {proto: tcp, addr: 22, remote_addr: \"1.tcp.example:2\"}\n",
        );
        let agent = &loaded.agent;
        assert_eq!(agent.connect_url, "e.example:1");
        assert_eq!(agent.connect_cas, Cas::Host);
        assert_eq!(agent.version, "2");
        let shown = agent.endpoints.iter().map(|e| (e.name.as_str(), e.url.as_str()));
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [("web", "https://w.example.com"), ("web (http)", "http://w.example.com"), ("ssh", "")]
        );
        assert_eq!(agent.endpoints[2].hostname, "1.tcp.example:2");
        assert_eq!(loaded.warnings, ["region is ignored, server_addr names the edge"]);
    }
}
