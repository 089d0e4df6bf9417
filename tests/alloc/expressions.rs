//! Memory of expressions of traffic policies that are written to use much of it.

use std::sync::Arc;

use culvert::edge::policy::catalog::PolicyPhase;
use culvert::edge::policy::expression::{
    EvalBudget, Expression, Timestamp, Value, Variable, Variables,
};

use crate::counting::peak_of;

/// Bound of one evaluation, which docs/reference/policy.md states.
const MAX_BYTES: i64 = 256 * 1024;

/// A request with a long head.
struct LongRequest;

impl Variables for LongRequest {
    fn variable(&self, variable: Variable) -> Option<Value> {
        match variable {
            Variable::ReqUserAgent => Some(Value::from("ab".repeat(8 * 1024))),
            Variable::ReqUrlPath => Some(Value::from(format!("[{}0]", "0,".repeat(8 * 1024)))),
            Variable::ReqHost => Some(Value::from("{\"a\":".repeat(100) + &"}".repeat(100))),
            _ => None,
        }
    }

    fn secret(&self, _: &str, _: &str) -> Option<Arc<str>> {
        None
    }

    fn now(&self) -> Timestamp {
        Timestamp::EPOCH
    }

    fn random(&self) -> u64 {
        0
    }
}

/// Returns expressions that exceed the budget.
fn bombs() -> Vec<String> {
    let doubled = |times: usize| format!("[1]{}", ".map(a, [a, a])".repeat(times));
    let replaced = format!("'aaaaaaaa'{}", ".replace('a', 'aaaaaaaa')".repeat(7));
    vec![
        "lists.range(1000000000)".into(),
        "lists.range(100).map(a, lists.range(100).map(b, lists.range(100).map(c, a)))".into(),
        format!("{}.encodeJson()", doubled(28)),
        format!("{} == {}", doubled(14), doubled(14)),
        format!("{}.flatten(28)", doubled(28)),
        format!("{} in [1]", doubled(28)),
        replaced.clone(),
        format!("{replaced} == '' || true"),
        format!("true && ({replaced} == '' || true)"),
        format!("[1].exists(n, {replaced} == '') || true"),
        format!("[1].all(n, {replaced} == '') && false"),
        format!("{replaced}.isJson() || true"),
        "lists.range(1000).map(n, req.user_agent)".into(),
        "lists.range(1000).map(n, req.user_agent.size())".into(),
        "lists.range(1000).map(n, req.user_agent.contains('aa'))".into(),
        "lists.range(1000).distinct()".into(),
        "lists.range(3000).sort()".into(),
        "lists.range(1000).map(n, '0123456789').map(n, n + n + n + n).join()".into(),
        "lists.range(2000).map(n, '0123456789').join('0123456789012345678901234567890')".into(),
        "req.user_agent.split('')".into(),
        "req.user_agent.split('a')".into(),
        "req.user_agent.replace('', 'aaaaaaaa')".into(),
        "req.user_agent.replace('a', '0123456789')".into(),
        "req.user_agent.escapeUrl() + req.user_agent + req.user_agent + req.user_agent.upper() \
         + req.user_agent"
            .into(),
        "req.user_agent.matches('(a?){30}(b?){30}a{30}[a-z]{100}$')".into(),
        "req.url.path.decodeJson()".into(),
        "req.url.path.isJson() || true".into(),
        format!("'%s%s%s%s%s%s%s%s%s%s'.format([{0}, {0}, {0}, {0}, {0}, {0}])", "req.user_agent"),
        "{'a': lists.range(1000), 'b': lists.range(1000), 'c': lists.range(1000)}\
         .encodeQueryString()"
            .into(),
    ]
}

#[test]
fn an_expression_keeps_at_most_256_kib() {
    for source in bombs() {
        let expression = Expression::compile(&source, PolicyPhase::HttpRequest)
            .unwrap_or_else(|fault| panic!("{source}: {fault}"));
        let mut result = None;
        let peak = peak_of(|| {
            result = Some(expression.value(&LongRequest, &mut EvalBudget::new()));
        });
        match result {
            Some(Err(error)) if error.is_fatal() => {}
            other => panic!("{source}: {:?}", other.map(|value| value.map(|v| v.type_name()))),
        }
        assert!(peak <= MAX_BYTES, "{source}: {peak} bytes");
    }
}

#[test]
fn an_expression_within_the_budget_keeps_at_most_256_kib() {
    for source in [
        "lists.range(2000).size() == 2000",
        "lists.range(500).map(n, [n]).size() == 500",
        "req.user_agent.upper().size() == 16384",
        "req.user_agent.replace('b', '').size() == 8192",
        "req.host.size() > 0",
        "'[[[[1,2],3],{\"a\":[]}]]'.decodeJson().size() == 1",
        "(req.user_agent + req.user_agent).size() == 32768",
    ] {
        let expression = Expression::compile(source, PolicyPhase::HttpRequest).unwrap();
        let mut result = None;
        let peak = peak_of(|| {
            result = Some(expression.is_true(&LongRequest, &mut EvalBudget::new()));
        });
        assert_eq!(result, Some(Ok(true)), "{source}");
        assert!(peak <= MAX_BYTES, "{source}: {peak} bytes");
    }
}
