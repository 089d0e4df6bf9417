//! Documents of traffic policies, YAML or JSON, to rules. Checks the structure: phases, rules,
//! actions, their order and their number. Expressions and configurations are texts and values
//! here; they are compiled elsewhere.

use serde_yaml::{Mapping, Value};

use super::catalog::{self, ActionSpec, PolicyPhase};
use super::fault::{FaultList, PolicyFault};
use crate::config::document::{Document, EntryPart, PathSegment, key_text};
use crate::edge::agents::address::Protocol;
use crate::http1::text::shortened;

/// Longest document.
pub const MAX_DOCUMENT_BYTES: usize = 512 * 1024;

/// Rules of one phase, and actions and expressions of one rule.
const MAX_RULES: usize = 100;
const MAX_ACTIONS: usize = 20;
const MAX_EXPRESSIONS: usize = 32;

/// Longest expression.
const MAX_EXPRESSION_BYTES: usize = 4096;

/// Longest name of a rule.
const MAX_NAME_CHARS: usize = 255;

/// Brackets and braces that are open at one place. The time of the YAML parser grows with the
/// product of this number and the length of the text. Those in quotes count too.
const MAX_OPEN_BRACKETS: usize = 100;

/// A document does not parse, or has another structure.
const STRUCTURE: u32 = 2236;

/// Policy of an endpoint.
#[derive(Debug, Default)]
pub struct PolicyDocument {
    /// Rules of the phases in [`PolicyPhase::ALL`].
    pub phases: [Vec<RuleEntry>; PolicyPhase::ALL.len()],
}

/// A rule. It applies if all of its expressions are true.
#[derive(Debug)]
pub struct RuleEntry {
    /// Name for the log; may be empty.
    pub name: String,
    /// Expressions; empty: it always applies.
    pub expressions: Vec<Located<String>>,
    /// Actions in their order, at least one.
    pub actions: Vec<ActionEntry>,
}

/// An action of a rule.
#[derive(Debug)]
pub struct ActionEntry {
    /// What it is.
    pub spec: &'static ActionSpec,
    /// Its configuration; empty if absent.
    pub config: Located<Mapping>,
}

/// A value with its path in the document, for faults that are found later.
#[derive(Debug)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it is.
    pub path: Vec<PathSegment>,
}

impl PolicyDocument {
    /// Reads the document of an endpoint with this protocol. Returns the text with its
    /// positions too.
    pub fn parse(text: &str, protocol: Protocol) -> Result<(Self, Document), Vec<PolicyFault>> {
        let whole = |position, reason: String| {
            vec![PolicyFault { code: STRUCTURE, path: String::new(), position, reason }]
        };
        if text.len() > MAX_DOCUMENT_BYTES {
            let reason = format!("it has more than {MAX_DOCUMENT_BYTES} bytes.");
            return Err(whole(None, reason));
        }
        if open_brackets(text) > MAX_OPEN_BRACKETS {
            let reason = format!("it has more than {MAX_OPEN_BRACKETS} open brackets.");
            return Err(whole(None, reason));
        }
        let document = Document::parse(text.to_owned())
            .map_err(|(reason, position)| whole(position, format!("it {reason}.")))?;
        let faults = FaultList::new(&document);
        let policy = PolicyReader { protocol, faults: &faults, logins: 0, handshakes: 0 }
            .policy(&document.root);
        let faults = faults.into_faults();
        match faults.is_empty() {
            true => Ok((policy, document)),
            false => Err(faults),
        }
    }

    /// Returns the rules of a phase.
    pub fn rules(&self, phase: PolicyPhase) -> &[RuleEntry] {
        let at = PolicyPhase::ALL.iter().position(|p| *p == phase);
        at.map_or(&[], |at| &self.phases[at])
    }
}

/// Collects the faults of a document.
struct PolicyReader<'a> {
    protocol: Protocol,
    faults: &'a FaultList<'a>,
    /// Logins so far.
    logins: usize,
    /// Actions for TLS handshakes so far.
    handshakes: usize,
}

impl PolicyReader<'_> {
    fn fault(
        &mut self,
        code: u32,
        path: &[PathSegment],
        part: EntryPart,
        reason: impl Into<String>,
    ) {
        self.faults.add(code, path, part, reason);
    }

    fn policy(&mut self, root: &Value) -> PolicyDocument {
        let mut policy = PolicyDocument::default();
        let root = match root {
            Value::Null => return policy,
            Value::Mapping(root) => root,
            _ => {
                self.fault(STRUCTURE, &[], EntryPart::Value, "it must be a mapping of phases.");
                return policy;
            }
        };
        let mut given: [Option<String>; PolicyPhase::ALL.len()] = Default::default();
        for (key, value) in root {
            let key = key_text(key).unwrap_or_default();
            let path = [PathSegment::Key(key.clone())];
            let Some(phase) = self.phase(&key) else {
                let known = PolicyPhase::ALL.map(PolicyPhase::key).join(", ");
                let reason = format!("is not a phase; use {known}.");
                self.fault(STRUCTURE, &path, EntryPart::Key, reason);
                continue;
            };
            if phase != PolicyPhase::TcpConnect && self.protocol != Protocol::Http {
                let reason = "is a phase of HTTP endpoints; use on_tcp_connect.";
                self.fault(2230, &path, EntryPart::Key, reason);
                continue;
            }
            let at = PolicyPhase::ALL.iter().position(|p| *p == phase).unwrap_or_default();
            if let Some(other) = given[at].replace(key.clone()) {
                let reason = format!("is the same phase as {other}; use one of them.");
                self.fault(STRUCTURE, &path, EntryPart::Key, reason);
                continue;
            }
            policy.phases[at] = self.rules(phase, value, path.to_vec());
        }
        policy
    }

    /// Returns the phase of a key. `inbound` and `outbound` are older names.
    fn phase(&self, key: &str) -> Option<PolicyPhase> {
        match key {
            "inbound" if self.protocol == Protocol::Http => Some(PolicyPhase::HttpRequest),
            "inbound" => Some(PolicyPhase::TcpConnect),
            "outbound" => Some(PolicyPhase::HttpResponse),
            _ => PolicyPhase::ALL.into_iter().find(|phase| phase.key() == key),
        }
    }

    fn rules(
        &mut self,
        phase: PolicyPhase,
        value: &Value,
        path: Vec<PathSegment>,
    ) -> Vec<RuleEntry> {
        let list = match value {
            Value::Null => return Vec::new(),
            Value::Sequence(list) => list,
            _ => {
                self.fault(STRUCTURE, &path, EntryPart::Value, "must be a list of rules.");
                return Vec::new();
            }
        };
        if list.len() > MAX_RULES {
            let reason = format!("has {} rules, the maximum is {MAX_RULES}.", list.len());
            self.fault(2264, &path, EntryPart::Key, reason);
            return Vec::new();
        }
        let mut rules = Vec::with_capacity(list.len());
        let mut ended = false;
        for (n, value) in list.iter().enumerate() {
            let path = below(&path, PathSegment::Index(n));
            if std::mem::take(&mut ended) {
                let reason = "is never reached: the rule before it always ends the phase.";
                self.fault(2207, &path, EntryPart::Value, reason);
            }
            if let Some(rule) = self.rule(phase, value, &path) {
                ended = rule.expressions.is_empty() && rule.actions.iter().any(always_ends);
                rules.push(rule);
            }
        }
        rules
    }

    fn rule(
        &mut self,
        phase: PolicyPhase,
        value: &Value,
        path: &[PathSegment],
    ) -> Option<RuleEntry> {
        let Value::Mapping(map) = value else {
            let reason = "must be a rule with expressions and actions.";
            self.fault(STRUCTURE, path, EntryPart::Value, reason);
            return None;
        };
        self.unknown_keys(map, path, &["name", "expressions", "actions"]);
        let name = match map.get("name") {
            None | Some(Value::Null) => String::new(),
            Some(value) => match key_text(value) {
                Some(name) if name.chars().count() <= MAX_NAME_CHARS => name,
                _ => {
                    let reason = format!("must be a text of at most {MAX_NAME_CHARS} characters.");
                    self.fault(STRUCTURE, &key(path, "name"), EntryPart::Value, reason);
                    String::new()
                }
            },
        };
        let expressions = self.expressions(map.get("expressions"), &key(path, "expressions"));
        let actions = self.actions(phase, map.get("actions"), path);
        Some(RuleEntry { name, expressions, actions })
    }

    fn expressions(&mut self, value: Option<&Value>, path: &[PathSegment]) -> Vec<Located<String>> {
        let list = match value {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Sequence(list)) => list,
            Some(_) => {
                self.fault(STRUCTURE, path, EntryPart::Value, "must be a list of expressions.");
                return Vec::new();
            }
        };
        if list.len() > MAX_EXPRESSIONS {
            let reason =
                format!("has {} expressions, the maximum is {MAX_EXPRESSIONS}.", list.len());
            self.fault(2200, path, EntryPart::Key, reason);
            return Vec::new();
        }
        let mut expressions = Vec::with_capacity(list.len());
        for (n, value) in list.iter().enumerate() {
            let path = below(path, PathSegment::Index(n));
            // `true` is a flag of YAML.
            match key_text(value) {
                Some(text) if text.trim().is_empty() => {
                    self.fault(2200, &path, EntryPart::Value, "is an empty expression.");
                }
                Some(text) if text.len() > MAX_EXPRESSION_BYTES => {
                    let reason = format!("has more than {MAX_EXPRESSION_BYTES} bytes.");
                    self.fault(2200, &path, EntryPart::Value, reason);
                }
                Some(value) => expressions.push(Located { value, path }),
                None => self.fault(2200, &path, EntryPart::Value, "must be a text."),
            }
        }
        expressions
    }

    fn actions(
        &mut self,
        phase: PolicyPhase,
        value: Option<&Value>,
        rule: &[PathSegment],
    ) -> Vec<ActionEntry> {
        let path = key(rule, "actions");
        let list = match value {
            Some(Value::Sequence(list)) if !list.is_empty() => list,
            Some(Value::Sequence(_) | Value::Null) => {
                self.fault(2206, &path, EntryPart::Key, "needs at least one action.");
                return Vec::new();
            }
            None => {
                self.fault(2206, rule, EntryPart::Value, "needs at least one action.");
                return Vec::new();
            }
            Some(_) => {
                self.fault(STRUCTURE, &path, EntryPart::Value, "must be a list of actions.");
                return Vec::new();
            }
        };
        if list.len() > MAX_ACTIONS {
            let reason = format!("has {} actions, the maximum is {MAX_ACTIONS}.", list.len());
            self.fault(2265, &path, EntryPart::Key, reason);
            return Vec::new();
        }
        let mut actions: Vec<ActionEntry> = Vec::with_capacity(list.len());
        for (n, value) in list.iter().enumerate() {
            let path = below(&path, PathSegment::Index(n));
            if actions.last().is_some_and(always_ends) {
                let reason = "is never reached: the action before it always ends the phase.";
                self.fault(2207, &path, EntryPart::Value, reason);
            }
            actions.extend(self.action(phase, value, path));
        }
        actions
    }

    fn action(
        &mut self,
        phase: PolicyPhase,
        value: &Value,
        path: Vec<PathSegment>,
    ) -> Option<ActionEntry> {
        let Value::Mapping(map) = value else {
            let reason = "must be an action with type and config.";
            self.fault(STRUCTURE, &path, EntryPart::Value, reason);
            return None;
        };
        self.unknown_keys(map, &path, &["type", "config"]);
        let spec = self.spec(phase, map.get("type"), &path)?;
        let config_path = key(&path, "config");
        let config = match map.get("config") {
            None | Some(Value::Null) => Mapping::new(),
            Some(Value::Mapping(config)) => config.clone(),
            Some(_) => {
                self.fault(2203, &config_path, EntryPart::Value, "must be a mapping.");
                return None;
            }
        };
        Some(ActionEntry { spec, config: Located { value: config, path: config_path } })
    }

    fn spec(
        &mut self,
        phase: PolicyPhase,
        value: Option<&Value>,
        action: &[PathSegment],
    ) -> Option<&'static ActionSpec> {
        let path = key(action, "type");
        let Some(value) = value else {
            self.fault(2201, action, EntryPart::Value, "needs the type of the action.");
            return None;
        };
        let name = key_text(value).unwrap_or_default();
        let shown = shortened(&name);
        let Some(spec) = catalog::find(&name) else {
            let reason = match (catalog::is_unsupported(&name), catalog::nearest_name(&name)) {
                (true, _) => format!("this edge does not support the action '{name}'."),
                (_, Some(other)) => {
                    format!("{shown:?} is not a known action; did you mean {other}?")
                }
                (_, None) => format!("{shown:?} is not a known action."),
            };
            self.fault(2201, &path, EntryPart::Value, reason);
            return None;
        };
        if !spec.phases.contains(&phase) {
            let phases: Vec<&str> = spec.phases.iter().map(|phase| phase.key()).collect();
            let reason = format!("'{name}' can only be in {}.", phases.join(", "));
            self.fault(2202, &path, EntryPart::Value, reason);
            return None;
        }
        self.logins += usize::from(spec.is_login);
        if spec.is_login && self.logins > 1 {
            let reason = format!("'{name}' is a second login; an endpoint can have one.");
            self.fault(2239, &path, EntryPart::Value, reason);
            return None;
        }
        self.handshakes += usize::from(spec.name == "terminate-tls");
        if spec.name == "terminate-tls" && self.handshakes > 1 {
            // One of them would have no effect, such as the demand for a certificate.
            let reason = "'terminate-tls' is there twice; write all of its keys in one action.";
            self.fault(2231, &path, EntryPart::Value, reason);
            return None;
        }
        Some(spec)
    }

    fn unknown_keys(&mut self, map: &Mapping, path: &[PathSegment], known: &[&str]) {
        for name in map.keys() {
            let name = key_text(name).unwrap_or_default();
            if !known.contains(&&*name) {
                let reason = format!("is not a known key; use {}.", known.join(", "));
                self.fault(STRUCTURE, &key(path, &name), EntryPart::Key, reason);
            }
        }
    }
}

/// Returns the most brackets and braces that are open at one place.
fn open_brackets(text: &str) -> usize {
    let mut open = 0_usize;
    let mut most = 0;
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

/// Returns whether an action ends the phase in every case.
fn always_ends(action: &ActionEntry) -> bool {
    let goes_on = action.config.value.get("on_error").and_then(Value::as_str) == Some("continue");
    action.spec.terminates && !(action.spec.name == "forward-internal" && goes_on)
}

fn below(path: &[PathSegment], step: PathSegment) -> Vec<PathSegment> {
    let mut path = path.to_vec();
    path.push(step);
    path
}

fn key(path: &[PathSegment], name: &str) -> Vec<PathSegment> {
    below(path, PathSegment::Key(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::show;

    fn faults(protocol: Protocol, text: &str) -> Vec<(u32, String, Option<usize>)> {
        match PolicyDocument::parse(text, protocol) {
            Ok(_) => Vec::new(),
            Err(faults) => faults
                .into_iter()
                .map(|f| (f.code, f.path, f.position.map(|position| position.line)))
                .collect(),
        }
    }

    /// Returns the only fault of a policy for HTTP.
    fn fault(text: &str) -> (u32, String, Option<usize>) {
        let mut found = faults(Protocol::Http, text);
        assert_eq!(found.len(), 1, "{text}\n{found:?}");
        found.remove(0)
    }

    const OFFICE: &str = "on_tcp_connect:
  - actions: [{type: restrict-ips, config: {allow: [192.0.2.0/24]}}]
on_http_request:
  - name: only-office
    expressions:
      - \"!(conn.client_ip in ['192.0.2.7'])\"
      - true
    actions:
      - type: log
        config: {metadata: {a: b}}
      - type: deny
        config:
          status_code: 403
  - actions: [{type: forward-internal, config: {url: 'http://a.internal', on_error: continue}},
              {type: custom-response, config: {body: down}}]
on_http_response:
";

    #[test]
    fn a_document_in_yaml_and_in_json() {
        let (policy, document) = PolicyDocument::parse(OFFICE, Protocol::Http).unwrap();
        assert_eq!(policy.rules(PolicyPhase::TcpConnect).len(), 1);
        assert!(policy.rules(PolicyPhase::HttpResponse).is_empty());
        let rules = policy.rules(PolicyPhase::HttpRequest);
        assert_eq!((rules.len(), &*rules[0].name), (2, "only-office"));
        let texts: Vec<&str> = rules[0].expressions.iter().map(|e| e.value.as_str()).collect();
        assert_eq!(texts, ["!(conn.client_ip in ['192.0.2.7'])", "true"]);
        let names: Vec<&str> = rules[0].actions.iter().map(|a| a.spec.name).collect();
        assert_eq!(names, ["log", "deny"]);
        // What is found later has a place too.
        let config = &rules[0].actions[1].config;
        assert_eq!(show(&config.path), "on_http_request[0].actions[1].config");
        assert_eq!(document.locate(&config.path, EntryPart::Key).map(|p| p.line), Some(12));
        let json = r#"{"on_http_request": [{"actions": [{"type": "deny"}]}]}"#;
        let (policy, _) = PolicyDocument::parse(json, Protocol::Http).unwrap();
        assert_eq!(policy.rules(PolicyPhase::HttpRequest)[0].actions[0].spec.name, "deny");
        assert!(PolicyDocument::parse("", Protocol::Tcp).is_ok());
    }

    #[test]
    fn older_names_of_phases() {
        let old = "inbound: [{actions: [{type: log}]}]\noutbound: [{actions: [{type: log}]}]\n";
        let (policy, _) = PolicyDocument::parse(old, Protocol::Http).unwrap();
        assert_eq!(policy.rules(PolicyPhase::HttpRequest).len(), 1);
        assert_eq!(policy.rules(PolicyPhase::HttpResponse).len(), 1);
        let connect = "inbound: [{actions: [{type: log}]}]\n";
        let (policy, _) = PolicyDocument::parse(connect, Protocol::Tls).unwrap();
        assert_eq!(policy.rules(PolicyPhase::TcpConnect).len(), 1);
        let both = "on_http_request: []\ninbound: []\n";
        assert_eq!(fault(both), (2236, "inbound".into(), Some(2)));
    }

    /// Text, code, path and line of its only fault.
    const FAULTS: &[(&str, u32, &str, Option<usize>)] = &[
        ("on_http_request: [", 2236, "", Some(2)),
        ("- a", 2236, "", Some(1)),
        ("on_http_reqest: []", 2236, "on_http_reqest", Some(1)),
        ("on_http_request: {a: b}", 2236, "on_http_request", Some(1)),
        ("on_http_request:\n  - 5", 2236, "on_http_request[0]", Some(2)),
        ("on_http_request:\n- name: x", 2206, "on_http_request[0]", Some(2)),
        ("on_http_request:\n- actions: []", 2206, "on_http_request[0].actions", Some(2)),
        (
            "on_http_request:\n- actions: [{type: log}]\n  expresions: []",
            2236,
            "on_http_request[0].expresions",
            Some(3),
        ),
        (
            "on_http_request:\n- actions:\n  - config: {}",
            2201,
            "on_http_request[0].actions[0]",
            Some(3),
        ),
        (
            "on_http_request:\n- actions:\n  - type: denny",
            2201,
            "on_http_request[0].actions[0].type",
            Some(3),
        ),
        (
            "on_http_request:\n- actions:\n  - type: saml",
            2201,
            "on_http_request[0].actions[0].type",
            Some(3),
        ),
        (
            "on_http_response:\n- actions:\n  - type: deny",
            2202,
            "on_http_response[0].actions[0].type",
            Some(3),
        ),
        (
            "on_http_request:\n- actions:\n  - type: log\n    config: 5",
            2203,
            "on_http_request[0].actions[0].config",
            Some(4),
        ),
        (
            "on_http_request:\n- expressions: ['']\n  actions: [{type: log}]",
            2200,
            "on_http_request[0].expressions[0]",
            Some(2),
        ),
        (
            "on_http_request:\n- actions:\n  - type: deny\n  - type: log",
            2207,
            "on_http_request[0].actions[1]",
            Some(4),
        ),
        (
            "on_http_request:\n- actions: [{type: deny}]\n- actions: [{type: log}]",
            2207,
            "on_http_request[1]",
            Some(3),
        ),
        (
            "on_http_request:\n- actions:\n  - type: oauth\n  - type: openid-connect",
            2239,
            "on_http_request[0].actions[1].type",
            Some(4),
        ),
        (
            "on_tcp_connect:\n- actions: [{type: terminate-tls}]\n- actions: [{type: terminate-tls}]",
            2231,
            "on_tcp_connect[1].actions[0].type",
            Some(3),
        ),
    ];

    #[test]
    fn faults_have_code_path_and_line() {
        for (text, code, path, line) in FAULTS.iter().copied() {
            assert_eq!(fault(text), (code, path.to_owned(), line), "{text}");
        }
        let tcp = faults(Protocol::Tcp, "on_http_request: []");
        assert_eq!(tcp, [(2230, "on_http_request".to_owned(), Some(1))]);
    }

    #[test]
    fn a_conditional_end_reaches_the_next_rule() {
        let text = "on_http_request:\n- expressions: ['false']\n  actions: [{type: deny}]\n\
                    - actions: [{type: log}]\n";
        assert!(PolicyDocument::parse(text, Protocol::Http).is_ok());
    }

    #[test]
    fn numbers_and_lengths_are_bounded() {
        let rules = format!("on_http_request:\n{}", "- actions: [{type: log}]\n".repeat(101));
        assert_eq!(fault(&rules).0, 2264);
        let actions = format!("on_http_request:\n- actions:\n{}", "  - type: log\n".repeat(21));
        assert_eq!(fault(&actions).0, 2265);
        let long = format!(
            "on_http_request:\n- expressions: ['{}']\n  actions: [{{type: log}}]",
            "x".repeat(5000)
        );
        assert_eq!(fault(&long).0, 2200);
        assert_eq!(fault(&" ".repeat(MAX_DOCUMENT_BYTES + 1)).0, 2236);
        let many = format!("on_http_request:\n{}", "- 5\n".repeat(100));
        assert_eq!(faults(Protocol::Http, &many).len(), 20);
        // The parser would take minutes.
        let nested = format!("a: {}", "[".repeat(MAX_DOCUMENT_BYTES / 2));
        assert_eq!(fault(&nested).0, 2236);
        // Aliases that expand to gigabytes.
        let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (from, to) in ('a'..'i').zip('b'..'j') {
            bomb.push_str(&format!("{to}: &{to} [{}]\n", format!("*{from},").repeat(9)));
        }
        assert_eq!(fault(&bomb).0, 2236);
    }
}
