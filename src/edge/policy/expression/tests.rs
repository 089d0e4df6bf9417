//! Tests of expressions as a whole: a text and a request to a value.

use std::sync::Arc;

use super::*;
use crate::edge::policy::catalog::PolicyPhase;

mod differential;

/// A request of the tests.
pub(super) struct TestRequest;

fn texts(values: &[&str]) -> Value {
    Value::list(values.iter().map(Value::text))
}

fn map(entries: &[(&str, Value)]) -> ValueMap {
    ValueMap::new(entries.iter().map(|(key, value)| (Value::text(key), value.clone())).collect())
}

impl Variables for TestRequest {
    fn variable(&self, variable: Variable) -> Option<Value> {
        Some(match variable {
            Variable::ConnClientIp => "203.0.113.7".into(),
            Variable::ReqMethod => "GET".into(),
            Variable::ReqHost => "example.com".into(),
            Variable::ReqUrl => "https://example.com/admin/a?x=1&y=2&x=3".into(),
            Variable::ReqUrlPath => "/admin/a".into(),
            Variable::ReqUrlQueryParams => {
                Value::Map(Arc::new(map(&[("x", texts(&["1", "3"])), ("y", texts(&["2"]))])))
            }
            Variable::ReqHeaders => Value::Map(Arc::new(ValueMap::any_case(vec![
                ("user-agent".into(), texts(&["curl/8.0"])),
                ("x-list".into(), texts(&["a", "b"])),
                ("x-json".into(), texts(&["{\"a\":[1,2.5,null]}"])),
            ]))),
            Variable::ReqCookies => {
                let cookie = map(&[("name", "session".into()), ("value", "abc".into())]);
                let list = Value::list([Value::Map(Arc::new(cookie))]);
                Value::Map(Arc::new(map(&[("session", list)])))
            }
            Variable::ConnStart => Value::Timestamp(Timestamp::new(1_700_000_000, 0)?),
            Variable::Vars => Value::Map(Arc::new(map(&[("n", 7.into()), ("t", "seven".into())]))),
            Variable::ResStatusCode => 503.into(),
            _ => return None,
        })
    }

    fn secret(&self, vault: &str, name: &str) -> Option<Arc<str>> {
        (vault == "v" && name == "key").then(|| "hush".into())
    }

    fn now(&self) -> Timestamp {
        Timestamp::new(1_700_000_000, 500_000_000).expect("a time")
    }

    fn random(&self) -> u64 {
        u64::MAX / 2
    }
}

const Q: PolicyPhase = PolicyPhase::HttpRequest;

fn value(source: &str) -> Result<Value, EvalError> {
    let expression = Expression::compile(source, Q).unwrap_or_else(|e| panic!("{source}: {e}"));
    expression.value(&TestRequest, &mut EvalBudget::new())
}

/// Returns the value as JSON text.
fn shown(source: &str) -> String {
    let value = value(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    value.to_json().expect("JSON").to_string()
}

fn failed(source: &str) -> EvalErrorKind {
    match value(source) {
        Ok(value) => panic!("{source}: {value:?}"),
        Err(error) => error.kind,
    }
}

fn refused(source: &str) -> String {
    match Expression::compile(source, Q) {
        Ok(_) => panic!("{source} compiles"),
        Err(fault) => {
            assert!(fault.offset <= source.len(), "{source}: {fault}");
            fault.reason
        }
    }
}

fn all_true(sources: &[&str]) {
    for source in sources {
        assert_eq!(shown(source), "true", "{source}");
    }
}

#[test]
fn operators_follow_the_language() {
    all_true(&[
        "1 + 2 * 3 == 7 && -7 / 2 == -3 && -7 % 2 == -1",
        "1u + 2u == 3u && 1.5 * 2.0 == 3.0",
        "1 == 1u && 1 == 1.0 && 1 < 1.5 && 2u > 1 && '1' != 1",
        "9223372036854775807 < 9223372036854775808.0",
        "'a' + 'b' == 'ab' && b'a' + b'b' == b'ab' && [1] + [2] == [1, 2]",
        "!(0.0 / 0.0 < 1.0) && !(0.0 / 0.0 == 0.0 / 0.0) && 0.0 / 0.0 != 0.0",
        "'a' < 'b' && false < true && [1, [2]] == [1, [2.0]] && {'a': 1} == {'a': 1u}",
        "2 in [1, 2] && 'a' in {'a': 1} && !('b' in {'a': 1}) && 1u in {1: 2}",
        "(true ? 1 : 1 / 0) == 1",
        "timestamp('2026-01-02T00:00:00Z') + duration('24h') == timestamp('2026-01-03T00:00:00Z')",
        "timestamp('2026-01-02T00:00:01.5Z') - timestamp('2026-01-02T00:00:00Z') == duration('1500ms')",
    ]);
    for source in ["9223372036854775807 + 1", "1 / 0", "1u - 2u", "-9223372036854775807 - 2"] {
        assert_eq!(failed(source), EvalErrorKind::Argument, "{source}");
    }
    for source in
        ["1 + 1u", "1 + 1.0", "'a' + 1", "!1", "1 ? 2 : 3", "'a' < 1", "1.0 % 2.0", "[] in {}"]
    {
        assert_eq!(failed(source), EvalErrorKind::Type, "{source}");
    }
}

#[test]
fn an_operand_that_decides_absorbs_the_error_of_the_other() {
    all_true(&["true || 1 / 0 == 1", "1 / 0 == 1 || true", "!(false && 1 / 0 == 1)"]);
    all_true(&["!(1 / 0 == 1 && false)", "[0, 1].exists(n, 1 / n == 1)"]);
    all_true(&["![0, 1].all(n, 1 / n == 2)"]);
    assert_eq!(failed("1 / 0 == 1 || false"), EvalErrorKind::Argument);
    assert_eq!(failed("[0].all(n, 1 / n == 1)"), EvalErrorKind::Argument);
    assert_eq!(failed("1 || false"), EvalErrorKind::Type);
}

#[test]
fn variables_of_the_request() {
    all_true(&[
        "req.url.path.startsWith('/admin') && !inCidrRange(conn.client_ip, '10.0.0.0/8')",
        "req.headers['User-Agent'][0] == 'curl/8.0' && req.headers['user-agent'][0] != ''",
        "getReqHeader('USER-AGENT')[0].contains('curl') && getReqHeader('none') == []",
        "'User-Agent' in req.headers && has(req.headers.x) == false",
        "has(req.headers['x-list']) && !has(req.headers['none'])",
        "req.headers.exists(name, name == 'x-list')",
        "hasReqCookie('session') && getReqCookie('session').value == 'abc'",
        "req.cookies['session'][0].name == 'session'",
        "hasQueryParam('x') && getQueryParam('x') == ['1', '3'] && !hasQueryParam('z')",
        "req.url.query_params['y'][0] == '2' && req['method'] == 'GET'",
        "req.url == 'https://example.com/admin/a?x=1&y=2&x=3' && req.url.contains('admin')",
        "[req.url].map(u, u.path) == ['/admin/a']",
        "vars.n == 7 && vars['t'] == 'seven' && req.headers['x-' + 'list'][1] == 'b'",
        "conn.ts.start.getFullYear() == 2023 && time.now == '2023-11-14T22:13:20.5Z'",
        "timestamp(time.now) > conn.ts.start",
        "inCidrRanges(conn.client_ip, ['10.0.0.0/8', '203.0.113.0/24'])",
        "inCidrRange(conn.client_ip, conn.client_ip + '/32')",
        "has(conn.client_ip) && !has(conn.tls.sni) && !has(conn.tls) && has(req.url)",
        "secrets.get('v', 'key') == 'hush'",
        "rand.double() < 0.5 && rand.int() == 1 && rand.int(5, 5) == 5",
    ]);
    assert_eq!(failed("conn.tls.sni == 'a'"), EvalErrorKind::Missing);
    assert_eq!(failed("req.headers.none[0] == 'a'"), EvalErrorKind::Missing);
    assert_eq!(failed("req.headers['x-list'][2] == 'a'"), EvalErrorKind::Missing);
    assert_eq!(failed("secrets.get('v', 'other') == ''"), EvalErrorKind::Unavailable);
}

#[test]
fn what_the_edge_lacks_is_refused_by_its_path() {
    for source in [
        "conn.geo.country_code == 'DE'",
        "conn['geo'].country_code == 'DE'",
        "conn['geo']['country_code'] == 'DE'",
        "has(conn.geo)",
        "[1].exists(n, conn.geo.x == n)",
    ] {
        assert!(refused(source).contains("no data for conn.geo"), "{source}");
    }
    let reason = refused("'com.anonymous.vpn' in conn.client_ip.categories");
    assert!(reason.contains("no data for conn.client_ip.categories"), "{reason}");
    for (source, part) in [
        ("conn[vars.t] == 1", "conn is a group of variables"),
        ("req.url[vars.t] == 1", "the index of req.url must be a text"),
        ("req == 1", "req is a group"),
        ("conn.tls.client.subject == 'CN=a'", "is a group of variables"),
        ("conn.tls.client.issuer.country == 'DE'", "no data for conn.tls.client.issuer.country"),
        ("conn.bytes_in > 1", "no data for conn.bytes_in"),
        ("requ.method == 'GET'", "unknown variable: requ."),
        ("req.methods == 'GET'", "unknown variable: req.methods."),
        ("conn.client_ip.foo == 1", "unknown variable: conn.client_ip.foo."),
        ("res.status_code == 200", "on_http_response"),
        ("getResHeader('a') == []", "on_http_response"),
        ("type('a') == string", "does not have the function type"),
        ("'a'.foo()", "unknown function: foo"),
        ("foo.bar(1)", "unknown function: foo.bar"),
        ("startsWith('a', 'b')", "write x.startsWith()"),
        ("'a'.startsWith()", "arguments of startsWith: 1, not 0"),
        ("'a'.matches(vars.t)", "must be a text"),
        ("'a'.matches('(')", "regular expression is not valid"),
        ("timestamp('yesterday') == 1", "is not a time"),
        ("duration('1x') == 1", "is not a duration"),
        ("conn.ts.start.getHours('Europe/Nowhere') == 1", "time zone \"Europe/Nowhere\" is not in"),
        ("inCidrRange(conn.client_ip, '10.0.0.0/33')", "10.0.0.0/33 is not a network"),
        ("has(1)", "has() needs a member"),
        ("Has(req.host)", "unknown function: Has"),
        ("Foo{a: 1}", "Foo is not a type"),
        ("[1].sort(1)", "arguments of sort: 0, not 1"),
        ("'a'.replace('b')", "arguments of replace: 2 to 3, not 1"),
        ("1 +", "Syntax error"),
        ("req.host == ${vars.host}", "unexpected '$': write the expression without ${ and }"),
        ("req.url.path == /x", "unexpected token: '/'."),
        ("", "empty"),
    ] {
        let reason = refused(source);
        assert!(reason.contains(part), "{source}: {reason}");
    }
    let fault = Expression::compile("true && foo == 1", Q).expect_err("a fault");
    assert_eq!((fault.offset, fault.to_string()), (8, "at byte 9: unknown variable: foo.".into()));
    assert!(Expression::compile("res.status_code == 503", PolicyPhase::HttpResponse).is_ok());
    let connect = Expression::compile("req.method == 'GET'", PolicyPhase::TcpConnect);
    assert!(connect.is_err_and(|fault| fault.reason.contains("not of on_tcp_connect")));
}

#[test]
fn macros_over_lists_and_maps() {
    for (source, expected) in [
        ("[1, 2, 3].map(n, n * n)", "[1,4,9]"),
        ("[1, 2, 3, 4].map(n, n % 2 == 0, n * 2)", "[4,8]"),
        ("[1, 2, 3].filter(n, n > 1)", "[2,3]"),
        ("{'b': 1, 'a': 2}.filter(k, k > 'a')", "[\"b\"]"),
        ("[1, 2].exists_one(n, n > 1)", "true"),
        ("[1, 2].map(a, [3, 4].map(b, a * b))", "[[3,4],[6,8]]"),
        ("[{'k': 2}, {'k': 1}].sortBy(e, e.k).map(e, e.k)", "[1,2]"),
        ("[3, 1, 2].sort() + ['b', 'a'].sort()", "[1,2,3,\"a\",\"b\"]"),
        ("[1, 'b', 1.0, 'b'].distinct()", "[1,\"b\"]"),
        ("[1, [2, [3, [4]]]].flatten(2)", "[1,2,3,[4]]"),
        ("[1, 2, 3, 4].slice(1, 3) + lists.range(2)", "[2,3,0,1]"),
        ("[].all(x, false)", "true"),
        ("[1].exists(req, req == 1)", "true"),
    ] {
        assert_eq!(shown(source), expected, "{source}");
    }
    assert_eq!(failed("[1, 'a'].sort()"), EvalErrorKind::Type);
    assert_eq!(failed("[1].flatten(-1)"), EvalErrorKind::Argument);
    let nested = "[1].all(a, [1].all(b, [1].all(c, [1].all(d, true))))";
    assert!(refused(nested).contains("nested deeper than 3"));
}

#[test]
fn the_deepest_expression_needs_a_small_stack() {
    // Responses are evaluated on the thread of an agent's session: 128 KiB in a release build,
    // eight times as much in a debug build.
    let calls = format!("{}'a'{}", "string(".repeat(30), ")".repeat(30));
    let choices = format!("{}1", "false ? 1 : ".repeat(28));
    let macros = "[1].map(a, [2].map(b, [3].map(c, (((((a + b) * c) + a) * b) + c))))".to_owned();
    let lists = format!("{}req.method{}", "[".repeat(30), "]".repeat(30));
    for source in [calls, choices, macros, lists] {
        let expression =
            Expression::compile(&source, Q).unwrap_or_else(|e| panic!("{source}: {e}"));
        let evaluate = move || {
            let value = expression.value(&TestRequest, &mut EvalBudget::new());
            value.and_then(|value| value.to_json()).is_ok()
        };
        let thread = std::thread::Builder::new().stack_size(512 * 1024).spawn(evaluate);
        assert!(thread.expect("a thread").join().expect("no panic"), "{source}");
    }
    for deep in
        ["[".repeat(40) + &"]".repeat(40), "-".repeat(3) + &"(-".repeat(40) + &")".repeat(40)]
    {
        assert!(Expression::compile(&deep, Q).is_err(), "{deep}");
    }
}

#[test]
fn functions_of_texts() {
    for (source, expected) in [
        ("'a,b,c'.split(',', 2)", r#"["a","b"]"#),
        ("'hello mellow'.split()", r#"["hello","mellow"]"#),
        ("'\u{e9}a'.split('')", "[\"\u{e9}\",\"a\"]"),
        ("'hello mellow'.replace('l', 'L', 2)", "\"heLLo mellow\""),
        ("'tacocat'.substring(4) + 'tacocat'.substring(0, 4)", "\"cattaco\""),
        ("'hello'.charAt(4) + 'hello'.charAt(5)", "\"o\""),
        ("['hello mellow'.indexOf('ello', 2), 'a'.indexOf('b')]", "[7,-1]"),
        ("'hello mellow'.lastIndexOf('ello', 6)", "1"),
        ("'hello mellow'.lastIndexOf('')", "12"),
        ("'h\u{e9}llo'.size() + size(b'12') + [1].size()", "8"),
        (
            "'%s %d %.2f %x %b %e'.format(['a', 42, 3.14159, 26, true, 1.5])",
            "\"a 42 3.14 1a 1 1.500000e+00\"",
        ),
        ("strings.quote('a \"b\"\\n')", r#""\"a \\\"b\\\"\\n\"""#),
        ("' \\ta '.trim() + 'ab'.reverse() + 'A'.lower() + 'a'.upperAscii()", "\"abaaA\""),
        ("['a', 'b'].join('-')", "\"a-b\""),
        ("'x1'.matches('^x[0-9]+$') && matches('foobar', 'o.*')", "true"),
    ] {
        assert_eq!(shown(source), expected, "{source}");
    }
    for source in ["'a'.substring(-1)", "'a'.substring(1, 0)", "'a'.charAt(2)", "'%d'.format([])"] {
        assert_eq!(failed(source), EvalErrorKind::Argument, "{source}");
    }
}

#[test]
fn a_long_text_is_searched_for_a_small_expression_only() {
    let text = "'ab'.replace('a', '".to_owned() + &"a".repeat(3000) + "')";
    for (expression, is_searched) in [("ab$", true), ("(ab|a[0-9]{100}){2}$", false)] {
        let source = format!("{text}.matches('{expression}')");
        match is_searched {
            true => assert_eq!(shown(&source), "true", "{expression}"),
            false => assert_eq!(failed(&source), EvalErrorKind::Overrun, "{expression}"),
        }
    }
}

#[test]
fn functions_of_encodings_and_digests() {
    for (source, expected) in [
        ("base64.encode(b'hello') + 'some:thing'.encodeBase64()", "\"aGVsbG8=c29tZTp0aGluZw==\""),
        ("string(base64.decode('aGVsbG8=')) + 'aGVsbG8='.decodeBase64()", "\"hellohello\""),
        ("basic_auth.encode('username', 'password1')", "\"Basic dXNlcm5hbWU6cGFzc3dvcmQx\""),
        ("json.decode(getReqHeader('x-json')[0]).a[1]", "2.5"),
        ("{'b': [1, true, null], 'a': 'x'}.encodeJson()", r#""{\"a\":\"x\",\"b\":[1,true,null]}""#),
        ("'{}'.isJson() && !'{'.isJson()", "true"),
        ("queryString.encode({'q': 'a b', 'l': ['1', '2']})", "\"l=1&l=2&q=a+b\""),
        ("'a=b&c=d%20e'.decodeQueryString()", r#"{"a":"b","c":"d e"}"#),
        ("'a=b&c=d'.isQueryString() && !'not a query string'.isQueryString()", "true"),
        ("'i;md/r/$y'.escapeUrl()", "\"i%3Bmd%2Fr%2F%24y\""),
        ("url.unescape('%2Ffoo')", "\"/foo\""),
        (
            "url.parse('https://ngrok.com')",
            r#"{"host":"ngrok.com","hostname":"ngrok.com","scheme":"https"}"#,
        ),
        ("'https://ngrok.com'.isURL() && !'not a url'.isURL()", "true"),
        ("hash.crc32('hello')", "\"3610a686\""),
        ("hash.md5('hello')", "\"5d41402abc4b2a76b9719d911017c592\""),
        ("'hello'.md5('base64')", "\"XUFAKrxLKna5cZ2REBfFkg==\""),
        ("hash.xxhash64('hello', 'hex')", "\"26c7827d889f6da3\""),
        ("'hello'.xxhash64('base64')", "\"JseCfYifbaM=\""),
        ("'hello'.crc64('base64')", "\"PD7u4tgQAAA=\""),
        ("hash.sha1('hello')", "\"aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d\""),
        ("'hello'.sha256('base64')", "\"LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=\""),
        ("hash.sha512('hello').startsWith('9b71d224bd62f378')", "true"),
        ("'192.168.1.1'.isPrivateIp() && !'8.8.8.8'.isPrivateIp()", "true"),
    ] {
        assert_eq!(shown(source), expected, "{source}");
    }
    for source in ["base64.decode('aGVsbG8')", "'a'.sha1('x')", "'x'.decodeJson()"] {
        assert_eq!(failed(source), EvalErrorKind::Argument, "{source}");
    }
}

#[test]
fn conversions_and_times() {
    for (source, expected) in [
        ("[int('-5'), int(2.9), int(3u), int(timestamp('1970-01-01T00:01:00Z'))]", "[-5,2,3,60]"),
        ("[uint('5'), uint(5.5), uint(7)]", "[5,5,7]"),
        ("string(5) + string(2.5) + string(true) + string(duration('90s'))", "\"52.5true90s\""),
        ("double('1e3') + double(1)", "1001.0"),
        ("bool('true') && bytes('a') == b'a'", "true"),
        ("string(timestamp('2026-01-02T03:04:05.120+01:00'))", "\"2026-01-02T02:04:05.12Z\""),
        ("timestamp('2023-12-25T12:00:00Z').getDayOfWeek()", "1"),
        ("timestamp('2023-12-25T12:00:00Z').getDayOfYear()", "358"),
        ("timestamp('2024-12-31T12:00:00Z').getDayOfYear()", "365"),
        ("timestamp('2023-12-25T00:00:00Z').getDate('-08:00')", "24"),
        ("timestamp('2023-12-25T12:00:00Z').getMonth()", "11"),
        ("timestamp('1969-12-31T23:59:59.5Z').getSeconds()", "59"),
        ("[duration('1h30m').getMinutes(), duration('1.234s').getMilliseconds()]", "[90,234]"),
        ("duration('-1.5h').getSeconds()", "-5400"),
    ] {
        assert_eq!(shown(source), expected, "{source}");
    }
    for source in ["int('x')", "int(1e30)", "uint(-1)", "bool('x')", "double('x')"] {
        assert_eq!(failed(source), EvalErrorKind::Argument, "{source}");
    }
}

#[test]
fn templates_keep_the_type_of_a_single_expression() {
    let template =
        |text: &str| Template::compile(text, Q).unwrap_or_else(|e| panic!("{text}: {e}"));
    let render = |text: &str| template(text).render(&TestRequest, &mut EvalBudget::new());
    assert_eq!(render("Hi ${req.host}, ${1 + 1}$${'}'} {}"), Ok("Hi example.com, 2$} {}".into()));
    assert_eq!(render("${{'a': {'b': 1}}}"), Ok(r#"{"a":{"b":1}}"#.into()));
    assert_eq!(render("${null} ${1.5} ${[1, 'a']}"), Ok(r#"null 1.5 [1,"a"]"#.into()));
    assert!(render("${1 / 0}").is_err());
    assert!(template("plain $5 {x}").is_constant() && !template("${1}").is_constant());
    let value = |text: &str| template(text).value(&TestRequest, &mut EvalBudget::new());
    assert!(matches!(value("${vars.n}"), Ok(Value::Int(7))));
    assert!(matches!(value("${vars.n}!"), Ok(Value::Text(text)) if &*text == "7!"));
    let fault = Template::compile("abc ${foo}", Q).expect_err("a fault");
    assert_eq!((fault.offset, fault.reason.as_str()), (6, "unknown variable: foo."));
    let open = Template::compile("abc ${req.host", Q).expect_err("a fault");
    assert_eq!(open.offset, 4);
}

/// The standard library panics in a sort by an order that contradicts itself.
#[test]
fn a_sort_without_an_order_is_an_error() {
    for n in 1..20 {
        let key = format!("n * {n} % 3 == 0 ? 0.0 / 0.0 : double(n * {n} * 7919 % 211)");
        let nan = format!("lists.range(100).map(n, {key}).sort()");
        assert_eq!(failed(&nan), EvalErrorKind::Argument, "{nan}");
        let by = format!("lists.range(100).sortBy(n, {key})");
        assert_eq!(failed(&by), EvalErrorKind::Argument, "{by}");
    }
    // Budgets that end in the middle of a sort.
    let long = "a".repeat(640);
    let source =
        format!("lists.range(60).map(n, '{long}' + string(n * 7919 % 211)).sort()[0] == 'x'");
    let expression = Expression::compile(&source, Q).unwrap_or_else(|e| panic!("{e}"));
    for steps in (0..10_000).step_by(7) {
        let mut budget = EvalBudget::with(steps, u32::MAX);
        if let Err(error) = expression.value(&TestRequest, &mut budget) {
            assert!(error.is_fatal(), "{error}");
        }
    }
}
