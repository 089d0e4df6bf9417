//! A record that a peer can cause is bounded: it has the field `count`, from a quota of lines.
//! A record without it has a comment `// Not bounded: REASON` in front of it.

use super::log_phrases::{arguments, calls};
use super::{Source, sources};

/// Sources whose records a visitor, an agent, an edge or an upstream can cause.
const PEER_DRIVEN: &[&str] = &[
    "src/agent/commands.rs",
    "src/agent/handler.rs",
    "src/edge/agents/",
    "src/edge/context.rs",
    "src/edge/listeners.rs",
    "src/edge/parking.rs",
    "src/edge/places.rs",
    "src/edge/visitors/",
    "src/edge/workers.rs",
    "src/mux/",
    "src/proto/",
    "src/proxy/",
    "src/session/",
];

const REASON: &str = "// Not bounded: ";

#[test]
fn a_record_that_a_peer_can_cause_is_bounded() {
    let sources = sources();
    for part in PEER_DRIVEN {
        assert!(sources.iter().any(|s| s.path.starts_with(part)), "{part} matches no file");
    }
    let driven = sources.iter().filter(|s| PEER_DRIVEN.iter().any(|p| s.path.starts_with(p)));
    let faults: Vec<String> = driven.flat_map(unbounded).collect();
    assert!(faults.is_empty(), "records without `count`:\n{}", faults.join("\n"));
}

#[test]
fn an_unbounded_record_is_found() {
    let unbounded = |code: &str| unbounded(&Source::new("src/edge/x.rs", code)).len();
    assert_eq!(unbounded("event!(warn, obj = \"edge\", \"a b\", r = peer);\n"), 1);
    assert_eq!(unbounded("event!(\n    info,\n    obj = \"edge\",\n    \"a b\"\n);\n"), 1);
    assert_eq!(unbounded("event!(warn, obj = \"edge\", \"a b\", r = peer, count = n);\n"), 0);
    assert_eq!(unbounded("event!(debug, obj = \"edge\", \"a b\", r = peer);\n"), 0);
    let explained = "    // Not bounded: once a start.\n    event!(info, obj = \"edge\", \"a\");\n";
    assert_eq!(unbounded(explained), 0);
    let other =
        "    // Not bounded: once a start.\n    f();\n    event!(info, obj = \"edge\", \"a\");\n";
    assert_eq!(unbounded(other), 1);
}

/// Returns the records of a file that are neither bounded nor explained.
fn unbounded(source: &Source) -> Vec<String> {
    let lines: Vec<_> = source.product().map(|(_, line)| line).collect();
    let join = |part: fn(&super::Line) -> &str| -> Vec<char> {
        lines.iter().flat_map(|l| part(l).chars().chain(['\n'])).collect()
    };
    let (text, code) = (join(|l| &l.text), join(|l| &l.code));
    let mut found = Vec::new();
    for start in calls(&code, "event!(") {
        let arguments = arguments(&text, &code, start);
        let level = arguments.first().map_or("", String::as_str);
        let counted = arguments.iter().any(|argument| argument.starts_with("count = "));
        let before: String = text[..start].iter().collect();
        let explained = before.lines().rev().nth(1).is_some_and(|l| l.trim().starts_with(REASON));
        if level != "debug" && !counted && !explained {
            found.push(format!("{}: {}", source.path, arguments.join(", ")));
        }
    }
    found
}
