//! Memory of expressions of traffic policies that are written to use much of it.

use std::net::SocketAddr;
use std::sync::Arc;

use culvert::edge::actions::RequestInfo;
use culvert::edge::actions::edits::HeaderEdits;
use culvert::edge::agents::address::Protocol;
use culvert::edge::policy::catalog::PolicyPhase;
use culvert::edge::policy::expression::{
    EvalBudget, Expression, Timestamp, Value, Variable, Variables,
};
use culvert::edge::policy::phases::{
    ConnectionInfo, EndpointInfo, InternalFault, NoBody, PhaseState, PolicyHops, PolicyInput,
    PolicyServices, RequestPhase, Scope,
};
use culvert::edge::policy::rate_limit::RateTable;
use culvert::edge::policy::search_time::ThreadClock;
use culvert::edge::restrictions::IpRules;
use culvert::http1::head::HeadRanges;
use culvert::proto::secret::Secret;
use culvert::sys;
use culvert::time::Instant;

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
    // 24 KiB, of which JSON needs six bytes for each.
    let long =
        format!("'aaaaaaaa'{}.replace('a', 'aaaaaa')", ".replace('a', 'aaaaaaaa')".repeat(3));
    let controls = format!("{long}.replace('a', '\\u0001')");
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
        format!("{controls}.encodeJson()"),
        format!("'%s'.format([[{controls}]])"),
        format!("{controls}.escapeUrl()"),
        format!("{{'a': {controls}}}.encodeQueryString()"),
        format!("strings.quote({controls}.replace('x', 'y'))"),
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

/// An edge without anything.
#[derive(Debug)]
struct EmptyEdge;

impl PolicyServices for EmptyEdge {
    fn thread_clock(&self) -> ThreadClock {
        sys::thread_time
    }

    fn check_internal(&self, _: &str, _: Protocol, url: &str) -> Result<(), InternalFault> {
        Err(InternalFault { code: 3200, text: url.to_owned() })
    }

    fn ip_policy(&self, _: &str) -> Option<Arc<IpRules>> {
        None
    }

    fn certificate_authority(&self, _: &str) -> Option<String> {
        None
    }

    fn secret(&self, _: &str, _: &str, _: &str) -> Option<Secret> {
        None
    }

    fn rates(&self) -> Arc<RateTable> {
        RateTable::new()
    }
}

/// Runs `test` with what expressions read of a request with this head.
fn with_request(head: &str, test: impl FnOnce(&Scope<'_>)) {
    let client = SocketAddr::from(([192, 0, 2, 7], 50_000));
    let (now, unix_seconds) = (Instant::from_micros(1_000_000), 1_000);
    let mut ranges = HeadRanges::default();
    let line = ranges.read_request(head.as_bytes()).expect("a request");
    let request = RequestInfo {
        method: line.method.as_bytes(),
        authority: b"a.example",
        target: line.target,
        fields: ranges.fields(head.as_bytes()),
        body: b"",
        is_http10: false,
        tls: true,
        visitor: client.ip(),
        now,
        unix_seconds,
    };
    let (server_name, handshake) = (None, None);
    let input = PolicyInput {
        connection: ConnectionInfo { client, server: client, tls: true, server_name, handshake },
        endpoint: EndpointInfo {
            tunnel_id: "tn_1",
            url: "https://a.example",
            account: "cr_1",
            protocol: Protocol::Http,
        },
        services: &EmptyEdge,
        now,
        unix_seconds,
        hops: PolicyHops::default(),
    };
    let (mut edits, mut body) = (HeaderEdits::default(), NoBody);
    test(&RequestPhase::new(input, request, &mut edits, &mut body).scope());
}

/// Visitors choose how many parts a query, a cookie or a type has.
#[test]
fn a_request_of_many_parts_needs_at_most_256_kib() {
    let names: Vec<String> = (0..9_000).map(|n| format!("{n:x}")).collect();
    let list = |name: &str, separator: &str| vec![name; 20_000].join(separator);
    let query = |query: String| format!("GET /?{query} HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let line = |name: &str, value: String| {
        format!("GET / HTTP/1.1\r\nHost: a.example\r\n{name}: {value}\r\n\r\n")
    };
    let cookies = names.join("=;") + "=";
    for (head, source) in [
        (query(names.join("&")), "size(req.url.query_params) > 0"),
        (query(names.join("&")), "has(req.url.query_params.zz) || req.url.contains('zz!')"),
        (query(names.join("&")), "[req.url].size() > 0"),
        (query(list("a", "&")), "size(req.url.query_params) > 0"),
        (query(list("a", "&")), "getQueryParam('a').size() > 0"),
        (query(list("a", "&")), "'zz' in req.url.query_params['a']"),
        (line("Cookie", cookies.clone()), "size(req.cookies) > 0"),
        (line("Cookie", cookies.clone()), "hasReqCookie('zz') || has(req.cookies['zy'])"),
        (line("Cookie", list("a=", ";")), "hasReqCookie('a')"),
        (line("Cookie", list("a=", ";")), "size(req.cookies['a']) > 0"),
        (line("Content-Type", format!("a/b;{cookies}")), "size(req.content_type.parameters) > 0"),
        (line("Content-Type", format!("a/b;{cookies}")), "[req.content_type].size() > 0"),
        (line("Content-Encoding", list("a", ",")), "size(req.content_encoding) > 0"),
    ] {
        let expression = Expression::compile(source, PolicyPhase::HttpRequest).unwrap();
        with_request(&head, |scope| {
            let mut result = None;
            let peak = peak_of(|| {
                result = Some(expression.is_true(scope, &mut EvalBudget::new()));
            });
            // No such name: it is false. The others need too much.
            match result.expect("a result") {
                Ok(false) => assert!(source.contains("zz"), "{source}"),
                Err(error) => assert!(error.is_fatal(), "{source}: {error}"),
                Ok(true) => panic!("{source}"),
            }
            assert!(peak <= MAX_BYTES, "{source}: {peak} bytes");
        });
    }
}

/// The same names in numbers that browsers send.
#[test]
fn a_request_of_usual_size_has_all_its_parts() {
    let pairs = |separator| {
        (0..100).map(|n| format!("name{n}=value{n}")).collect::<Vec<_>>().join(separator)
    };
    let head = format!(
        "GET /?{} HTTP/1.1\r\nHost: a.example\r\nCookie: {}\r\n\r\n",
        pairs("&"),
        pairs("; ")
    );
    with_request(&head, |scope| {
        for source in [
            "size(req.url.query_params) == 100 && size(req.cookies) == 100",
            "getQueryParam('name7') == ['value7'] && getReqCookie('name99').value == 'value99'",
            "req.cookies['name3'][0].name == 'name3' && !hasReqCookie('name100')",
        ] {
            let expression = Expression::compile(source, PolicyPhase::HttpRequest).unwrap();
            let result = expression.is_true(scope, &mut EvalBudget::new());
            assert_eq!(result, Ok(true), "{source}");
        }
    });
}
