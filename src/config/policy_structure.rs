//! Structure of traffic policies: phases, rules, actions and their keys. The agent checks it,
//! so that a typing error is found without an edge. Expressions, configurations of actions,
//! limits and the order of rules are checked by the edge.

use serde_yaml::{Mapping, Value};

use super::document::{EntryPart, PathSegment, key_text};
use super::fault::MAX_FAULTS;
use super::nearest::is_misspelled;
use super::policy_catalog::policy_actions;
use super::read::{has_word, unknown};

/// Phases. The last two are older names.
const PHASES: &str = "on_tcp_connect on_http_request on_http_response on_event_stream_message \
                      inbound outbound";

macro_rules! names {
    ($($name:literal [$($phase:ident)*] $kind:ident,)*) => { concat!($(" ", $name),*) };
}

/// Types of actions.
const ACTIONS: &str = policy_actions!(names);

/// Error codes of ngrok's service.
const STRUCTURE: u32 = 2236;
const EXPRESSION: u32 = 2200;
const ACTION_TYPE: u32 = 2201;
const ACTION_CONFIG: u32 = 2203;
const NO_ACTION: u32 = 2206;

/// A fault of a policy.
#[derive(Debug)]
pub(super) struct StructureFault {
    /// Path in the policy.
    pub(super) path: Vec<PathSegment>,
    /// Part of the entry.
    pub(super) part: EntryPart,
    /// Cause, and what to write instead. It continues the path.
    pub(super) message: String,
}

/// Returns the first faults of a policy.
pub(super) fn faults(root: &Value) -> Vec<StructureFault> {
    let mut reader = StructureReader { path: Vec::new(), faults: Vec::new() };
    // Older SDKs write JSON with capitalised keys. The edge rewrites it.
    if !["Inbound", "Outbound"].iter().any(|key| root.get(key).is_some()) {
        reader.value(Form::Policy, root);
    }
    reader.faults
}

/// Form of a value.
#[derive(Clone, Copy)]
enum Form {
    Policy,
    Rules,
    Rule,
    Expressions,
    Actions,
    Action,
    Type,
    Config,
    /// The name of a rule, and an expression.
    Text,
}

struct StructureReader {
    path: Vec<PathSegment>,
    faults: Vec<StructureFault>,
}

impl StructureReader {
    fn value(&mut self, form: Form, value: &Value) {
        match (form, value) {
            (Form::Policy, Value::Mapping(map)) => self.mapping(map, PHASES, "", 0),
            (Form::Rule, Value::Mapping(map)) => {
                self.mapping(map, "name expressions actions", "actions", NO_ACTION);
            }
            (Form::Action, Value::Mapping(map)) => {
                self.mapping(map, "type config", "type", ACTION_TYPE);
            }
            (Form::Actions, Value::Sequence(list)) if list.is_empty() => {
                self.fault(EntryPart::Value, NO_ACTION, "needs at least one action".to_owned());
            }
            (Form::Rules, Value::Sequence(list)) => self.list(list, Form::Rule),
            (Form::Expressions, Value::Sequence(list)) => self.list(list, Form::Text),
            (Form::Actions, Value::Sequence(list)) => self.list(list, Form::Action),
            (Form::Type, Value::String(name)) => self.action_type(name),
            (Form::Config, Value::Mapping(_)) => {}
            // An expression may be the flag `true`.
            (Form::Text, value) if key_text(value).is_some() => {}
            _ => self.wrong(form),
        }
    }

    fn wrong(&mut self, form: Form) {
        let (code, wanted) = match form {
            Form::Policy => (STRUCTURE, "a mapping of phases"),
            Form::Rules => (STRUCTURE, "a list of rules"),
            Form::Rule => (STRUCTURE, "a rule with expressions and actions"),
            Form::Expressions => (STRUCTURE, "a list of expressions"),
            Form::Actions => (STRUCTURE, "a list of actions"),
            Form::Action => (STRUCTURE, "an action with type and config"),
            Form::Type => (ACTION_TYPE, "the name of an action"),
            Form::Config => (ACTION_CONFIG, "a mapping"),
            Form::Text => (EXPRESSION, "text"),
        };
        self.fault(EntryPart::Value, code, format!("must be {wanted}"));
    }

    /// Reads a mapping with known keys, one of them required, or none. `code` is for its lack.
    fn mapping(&mut self, map: &Mapping, known: &str, required: &str, code: u32) {
        for (key, value) in map {
            let key = key_text(key).unwrap_or_default();
            let form = match key.as_str() {
                "name" => Form::Text,
                "expressions" => Form::Expressions,
                "actions" => Form::Actions,
                "type" => Form::Type,
                "config" => Form::Config,
                _ => Form::Rules,
            };
            let is_known = has_word(known, &key);
            let message = (!is_known).then(|| unknown(&key, known));
            self.path.push(PathSegment::Key(key));
            match message {
                Some(message) => self.fault(EntryPart::Key, STRUCTURE, message),
                None if value.is_null() => {}
                None => self.value(form, value),
            }
            self.path.pop();
        }
        if !required.is_empty() && map.get(required).is_none_or(Value::is_null) {
            self.fault(EntryPart::Value, code, format!("needs the key {required}"));
        }
    }

    fn list(&mut self, list: &[Value], form: Form) {
        for (index, value) in list.iter().enumerate() {
            self.path.push(PathSegment::Index(index));
            self.value(form, value);
            self.path.pop();
        }
    }

    /// Reports a name with one error. Another unknown action may be newer than this program: the
    /// edge decides.
    fn action_type(&mut self, name: &str) {
        if !has_word(ACTIONS, name)
            && let Some(other) =
                ACTIONS.split_ascii_whitespace().find(|known| is_misspelled(name, known))
        {
            let message = format!("is not a known action; did you mean {other}?");
            self.fault(EntryPart::Value, ACTION_TYPE, message);
        }
    }

    fn fault(&mut self, part: EntryPart, code: u32, mut message: String) {
        if self.faults.len() < MAX_FAULTS {
            message.push_str(&format!(" (ERR_NGROK_{code})"));
            self.faults.push(StructureFault { path: self.path.clone(), part, message });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::{Document, show};
    use super::*;

    /// Returns path, line and message of each fault.
    fn faults_of(text: &str) -> Vec<(String, usize, String)> {
        let document = Document::parse(text.to_owned()).unwrap();
        let shown = |fault: StructureFault| {
            let line = document.locate(&fault.path, fault.part).map_or(0, |place| place.line);
            (show(&fault.path), line, fault.message)
        };
        faults(&document.root).into_iter().map(shown).collect()
    }

    /// Text, path and line of its only fault, and a part of the message.
    const FAULTS: &[(&str, &str, usize, &str)] = &[
        (
            "on_http_reqest: []",
            "on_http_reqest",
            1,
            "did you mean on_http_request? (ERR_NGROK_2236)",
        ),
        ("version: 3", "version", 1, "known are on_tcp_connect"),
        ("on_http_request: {a: b}", "on_http_request", 1, "must be a list of rules"),
        ("inbound:\n  - 5", "inbound[0]", 2, "must be a rule with"),
        ("inbound:\n  -", "inbound[0]", 2, "must be a rule with"),
        ("inbound:\n- name: x", "inbound[0]", 2, "needs the key actions (ERR_NGROK_2206)"),
        ("inbound:\n- actions:", "inbound[0]", 2, "needs the key actions"),
        ("inbound:\n- actions: []", "inbound[0].actions", 2, "needs at least one action"),
        ("inbound:\n- actions: 5", "inbound[0].actions", 2, "must be a list of actions"),
        (
            "inbound:\n- actions: [{type: log}]\n  expresions: []",
            "inbound[0].expresions",
            3,
            "did you mean expressions?",
        ),
        ("inbound:\n- actions: [{type: log}]\n  name: [a]", "inbound[0].name", 3, "must be text"),
        (
            "inbound:\n- actions: [{type: log}]\n  expressions: a",
            "inbound[0].expressions",
            3,
            "must be a list of expressions (ERR_NGROK_2236)",
        ),
        (
            "inbound:\n- actions: [{type: log}]\n  expressions:\n  - a\n  - {b: c}",
            "inbound[0].expressions[1]",
            5,
            "must be text (ERR_NGROK_2200)",
        ),
        ("inbound:\n- actions:\n  - deny", "inbound[0].actions[0]", 3, "must be an action with"),
        (
            "inbound:\n- actions:\n  - config: {}",
            "inbound[0].actions[0]",
            3,
            "needs the key type (ERR_NGROK_2201)",
        ),
        (
            "inbound:\n- actions:\n  - type: denny",
            "inbound[0].actions[0].type",
            3,
            "is not a known action; did you mean deny? (ERR_NGROK_2201)",
        ),
        (
            "inbound:\n- actions:\n  - type: [a]",
            "inbound[0].actions[0].type",
            3,
            "must be the name of an action",
        ),
        (
            "inbound:\n- actions:\n  - type: log\n    config: 5",
            "inbound[0].actions[0].config",
            4,
            "must be a mapping (ERR_NGROK_2203)",
        ),
        (
            "inbound:\n- actions:\n  - type: log\n    configs: {}",
            "inbound[0].actions[0].configs",
            4,
            "did you mean config?",
        ),
        ("- a", "", 1, "must be a mapping of phases"),
    ];

    #[test]
    fn faults_have_path_line_and_advice() {
        for (text, path, line, expected) in FAULTS.iter().copied() {
            let found = faults_of(text);
            assert_eq!(found.len(), 1, "{text}\n{found:?}");
            let (found_path, found_line, message) = &found[0];
            assert_eq!((&**found_path, *found_line), (path, line), "{text}");
            assert!(message.contains(expected), "{message}");
        }
        let many = format!("inbound:\n{}", "- 5\n".repeat(100));
        assert_eq!(faults_of(&many).len(), MAX_FAULTS);
    }

    #[test]
    fn what_the_edge_accepts_is_accepted() {
        for text in [
            "{}",
            "on_http_request:",
            "on_tcp_connect: []\non_event_stream_message: []\noutbound: []",
            "inbound:\n- {name: 5, expressions: [true, a], actions: [{type: saml, config: }]}",
            "inbound:\n- {name: , expressions: , actions: [{type: custom-response, config: {}}]}",
            "Inbound: [{Name: a, Actions: [{Type: deny}]}]\nOutbound: []",
            // Future actions. The second one resembles add-headers.
            "inbound:\n- actions: [{type: translate-poetry}]",
            "inbound:\n- actions: [{type: set-headers}]",
        ] {
            assert!(faults_of(text).is_empty(), "{text}: {:?}", faults_of(text));
        }
    }
}
