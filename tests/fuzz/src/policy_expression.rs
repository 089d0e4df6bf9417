//! Target `policy_expression`: any text as an expression and as a template. Nothing panics, the
//! phases agree, a fault has a place and a reason, and an evaluation keeps its budget.

use std::sync::{Arc, OnceLock};

use culvert::edge::policy::catalog::PolicyPhase;
use culvert::edge::policy::expression::{
    EvalBudget, EvalError, Expression, ExpressionFault, Template, Timestamp, Value, ValueMap,
    Variable, Variables,
};

use crate::driver;
use crate::input::Dice;

/// Longest text of a value whose parts were all charged: each byte may be escaped.
const MAX_SHOWN_BYTES: usize = 6 * 96 * 1024;

/// Checks all of it.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let compiled = PolicyPhase::ALL.map(|phase| Expression::compile(text, phase));
    // A later phase has all names of the one before it.
    let good = compiled.each_ref().map(Result::is_ok);
    assert!(good.is_sorted(), "{good:?}: {text}");
    for expression in compiled {
        match expression {
            Ok(expression) => evaluate(text, &expression),
            Err(fault) => check_fault(text, &fault),
        }
    }
    match Template::compile(text, PolicyPhase::HttpResponse) {
        Ok(template) => {
            let rendered = template.render(&Request, &mut EvalBudget::new());
            assert!(!template.is_constant() || rendered.as_deref() == Ok(text), "{text}");
            if let Ok(rendered) = rendered {
                assert!(rendered.len() <= text.len() + MAX_SHOWN_BYTES, "{text}");
            }
        }
        Err(fault) => check_fault(text, &fault),
    }
}

fn evaluate(text: &str, expression: &Expression) {
    let mut budget = EvalBudget::new();
    let value = expression.value(&Request, &mut budget);
    if let Ok(value) = &value {
        let json = value.to_json().map(|json| json.to_string());
        assert!(
            json.is_ok_and(|json| json.len() <= MAX_SHOWN_BYTES) || has_number(value),
            "{text}"
        );
    }
    let again = expression.value(&Request, &mut EvalBudget::new());
    assert_eq!(shown(&value), shown(&again), "{text}");
    // A smaller budget is an overrun or does not matter.
    let mut small = EvalBudget::with(40, 400);
    match expression.value(&Request, &mut small) {
        Err(error) if error.is_fatal() => {}
        other => assert_eq!(shown(&value), shown(&other), "{text}"),
    }
}

/// Returns whether a part of a value is a number without a form in JSON.
fn has_number(value: &Value) -> bool {
    match value {
        Value::Double(n) => !n.is_finite(),
        Value::Bytes(_) => true,
        Value::List(list) => list.iter().any(has_number),
        Value::Map(map) => map.iter().any(|(key, value)| has_number(key) || has_number(value)),
        _ => false,
    }
}

fn shown(value: &Result<Value, EvalError>) -> String {
    format!("{value:?}")
}

fn check_fault(text: &str, fault: &ExpressionFault) {
    assert!(!fault.reason.is_empty() && fault.offset <= text.len(), "{fault:?}: {text}");
}

/// A request of an attacker.
struct Request;

impl Variables for Request {
    fn variable(&self, variable: Variable) -> Option<Value> {
        Some(match variable {
            Variable::ConnClientIp => "203.0.113.7".into(),
            Variable::ReqUrlPath => Value::from("/a%20b".repeat(500)),
            Variable::ReqUrl => "https://a/b?c=d".into(),
            Variable::ReqUserAgent => Value::from("ab".repeat(4096)),
            Variable::ReqMethod => "GET".into(),
            Variable::ReqHeaders | Variable::ResHeaders | Variable::Vars => {
                let list = Value::list([Value::from("{\"a\":[1]}"), "x=1&y=2".into()]);
                let entries = ["host", "x-a", "x-b"].map(|name| (name.into(), list.clone()));
                Value::Map(Arc::new(ValueMap::any_case(entries.to_vec())))
            }
            Variable::ResStatusCode => 200.into(),
            _ => return None,
        })
    }

    fn secret(&self, _: &str, name: &str) -> Option<Arc<str>> {
        (name == "a").then(|| "hush".into())
    }

    fn now(&self) -> Timestamp {
        Timestamp::EPOCH
    }

    fn random(&self) -> u64 {
        5
    }
}

const PIECES: &[&str] = &[
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ".",
    ",",
    "?",
    ":",
    "!",
    "-",
    "+",
    "*",
    "/",
    "%",
    "==",
    "<=",
    "&&",
    "||",
    " in ",
    "'a'",
    "\"",
    "'",
    "\\",
    "${",
    "b'a'",
    "r'\\'",
    "null",
    "true",
    "1",
    "2u",
    "1.5",
    "9223372036854775807",
    "has(",
    "[1,2]",
    "{'a':1}",
    "req.headers",
    "req.url",
    ".path",
    "['x-a']",
    "vars.a",
    "conn.geo",
    "res.status_code",
    "conn.client_ip",
    ".map(n, [n,n])",
    ".filter(n, true)",
    ".exists(n, n)",
    ".all(n, n)",
    ".sortBy(n, n)",
    ".replace('','aaaa')",
    ".split('')",
    ".matches('a+')",
    ".size()",
    ".join()",
    ".encodeJson()",
    ".decodeJson()",
    ".flatten(9)",
    ".distinct()",
    ".substring(1)",
    ".format([1])",
    "lists.range(9999)",
    "timestamp(",
    "duration('1h')",
    "secrets.get('a','a')",
    "getReqHeader('host')",
    "\u{e9}",
    "----",
    "((((((((",
];

/// Returns a stored expression, with pieces inserted, repeated and removed.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    static CORPUS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let corpus = CORPUS.get_or_init(|| driver::corpus("policy_expression"));
    let mut text = corpus[dice.below(corpus.len())].clone();
    for _ in 0..dice.below(5) {
        let at = dice.below(text.len() + 1);
        let to = (at + dice.below(8)).min(text.len());
        // One in sixteen is a bomb of the same piece.
        let times = if dice.below(16) == 0 { dice.below(400) } else { 1 };
        drop(text.splice(at..to, dice.pick(PIECES).repeat(times).into_bytes()));
    }
    text
}
