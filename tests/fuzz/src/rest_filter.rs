//! Target `rest_filter`: any text as the filter of a list of the REST API. It is refused with
//! its code, or it has a result for each object; its negation has the other one.

use std::sync::OnceLock;

use culvert::edge::rest::error::ApiError;
use culvert::edge::rest::filter::Filter;
use serde_json::{Value, json};

use crate::input::Dice;

/// Checks all of it.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let filter = match Filter::parse(text) {
        Ok(filter) => filter,
        Err(error) => return judge(&error),
    };
    let opposite = Filter::parse(&format!("!({text})"));
    for object in objects() {
        let result = filter.matches(object);
        if let Err(error) = &result {
            judge(error);
        }
        match &opposite {
            Ok(opposite) => assert_eq!(opposite.matches(object), result.map(|found| !found)),
            // One level more than the limit.
            Err(error) => assert!(error.message.contains("too deeply"), "{error:?}"),
        }
    }
}

fn judge(error: &ApiError) {
    assert_eq!((error.status, error.code), (400, 250), "{error:?}");
    assert!(error.message.starts_with("The filter is not valid: "), "{error:?}");
}

fn objects() -> &'static [Value] {
    static OBJECTS: OnceLock<[Value; 3]> = OnceLock::new();
    OBJECTS.get_or_init(|| {
        [
            json!({
                "id": "cr_1", "description": "it's", "acl": ["bind:a", "bind:b"], "port": 8080,
                "enforced": true, "created_at": "2026-01-02T03:04:05Z", "domain": null,
                "credential": {"id": "cr_9", "uri": "u"},
            }),
            json!({"id": "", "acl": [], "port": -0.5, "domain": {"id": "rd_1"}}),
            json!({}),
        ]
    })
}

const PIECES: &[&str] = &[
    "obj.id",
    "obj.acl",
    "obj.port",
    "obj.domain.id",
    "obj.created_at",
    "obj.enforced",
    "obj.nothing",
    "'cr_1'",
    "\"bind:a\"",
    "'it\\'s'",
    "'\u{e9}\\n'",
    "8080",
    "-0.5",
    "true",
    "false",
    "null",
    "['cr_1', obj.id]",
    "[]",
    "size(obj.acl)",
    "timestamp('2026-01-01T00:00:00Z')",
    "timestamp(time.now).subtract(\"7d\")",
    ".add('90s')",
    "time.now",
    "(",
    ")",
    "!",
    "[",
    "]",
    ",",
    ".",
];

const OPERATORS: &[&str] = &[" == ", "!=", "<", "<= ", " >", ">=", " in ", " && ", "||", " "];

/// Returns pieces of expressions with operators between them.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    let mut text = String::new();
    // A chain is as long as a request permits in one of 64 inputs.
    let members = match dice.below(64) {
        0 => 4_000,
        _ => 1 + dice.below(6),
    };
    for n in 0..members {
        if n > 0 {
            text += dice.pick(if members > 6 { &["||"] } else { OPERATORS });
        }
        text += dice.pick(if members > 6 { &["false"] } else { PIECES });
    }
    text.into_bytes()
}
