//! The actions behind [`compile_action`](super::compile_action), as rules of small policies: what
//! Bind refuses, and what requests, responses and connections meet.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cidr::Cidr;
use crate::edge::actions::action::tests::with_body;
use crate::edge::actions::action::{ActionError, Reply};
use crate::edge::actions::body_transform::{finish_through, write_through};
use crate::edge::actions::edits::HeaderEdits;
use crate::edge::actions::response::{ResponseBody, ResponseHead};
use crate::edge::agents::address::Protocol;
use crate::edge::policy::action::PolicyFlow;
use crate::edge::policy::compile::compile;
use crate::edge::policy::fault::PolicyFault;
use crate::edge::policy::phases::{
    BodySource, ConnectPhase, ConnectionInfo, EndpointInfo, InternalFault, PolicyHops, PolicyInput,
    PolicyServices, RequestPhase, ResponsePhase, body_too_long,
};
use crate::edge::policy::rate_limit::RateTable;
use crate::edge::policy::reader::PolicyEnvironment;
use crate::edge::policy::rule::CompiledPolicy;
use crate::edge::policy::search_time::ThreadClock;
use crate::edge::restrictions::IpRules;
use crate::proto::base64;
use crate::proto::secret::Secret;
use crate::time::Instant;

/// An edge with the IP policy `ipp_office` and a secret.
#[derive(Debug)]
struct FakeEdge {
    rates: Arc<RateTable>,
}

impl PolicyServices for FakeEdge {
    fn check_internal(&self, _: &str, _: Protocol, _: &str) -> Result<(), InternalFault> {
        Err(InternalFault { code: 3200, text: String::new() })
    }

    fn ip_policy(&self, id: &str) -> Option<Arc<IpRules>> {
        let list = |text: &str| vec![Cidr::parse(text).unwrap()];
        let rules = IpRules { allow: list("192.0.2.0/24"), deny: list("192.0.2.128/25") };
        (id == "ipp_office").then(|| Arc::new(rules))
    }

    fn certificate_authority(&self, _: &str) -> Option<String> {
        None
    }

    fn secret(&self, _: &str, vault: &str, name: &str) -> Option<Secret> {
        ((vault, name) == ("house", "password")).then(|| Secret::new("open sesame"))
    }

    fn rates(&self) -> Arc<RateTable> {
        Arc::clone(&self.rates)
    }

    fn thread_clock(&self) -> ThreadClock {
        || Duration::ZERO
    }
}

/// A body that arrives whole.
struct Body<'a>(&'a [u8]);

impl BodySource for Body<'_> {
    fn read(&mut self, limit: usize) -> Result<Vec<u8>, Reply> {
        match self.0.len() <= limit {
            true => Ok(self.0.to_vec()),
            false => Err(body_too_long(limit)),
        }
    }
}

fn try_policy(protocol: Protocol, text: &str) -> Result<CompiledPolicy, Vec<PolicyFault>> {
    // The tests look at all results.
    Ok(CompiledPolicy { reads_results: true, ..compiled(protocol, text)? })
}

fn compiled(protocol: Protocol, text: &str) -> Result<CompiledPolicy, Vec<PolicyFault>> {
    let services: Arc<dyn PolicyServices> = Arc::new(FakeEdge { rates: RateTable::new() });
    let environment =
        PolicyEnvironment { account: "cr_1", protocol, is_internal: false, services: &services };
    compile(text, environment)
}

/// A result with the error that it has after a success.
fn succeeded(mut result: Value) -> Value {
    result["error"] = json!({ "code": "", "message": "" });
    result
}

/// One action in a phase, its configuration as JSON.
fn policy(phase: &str, action: &str, config: Value) -> CompiledPolicy {
    let text = document(phase, action, &config);
    try_policy(Protocol::Http, &text).unwrap_or_else(|faults| panic!("{config}: {faults:?}"))
}

fn document(phase: &str, action: &str, config: &Value) -> String {
    json!({ phase: [{ "actions": [{ "type": action, "config": config }] }] }).to_string()
}

fn input<'a>(policy: &'a CompiledPolicy, client: &str, seconds: u64) -> PolicyInput<'a> {
    PolicyInput {
        connection: ConnectionInfo {
            client: format!("{client}:5000").parse().unwrap(),
            server: "198.51.100.1:443".parse().unwrap(),
            tls: true,
            server_name: None,
            handshake: None,
        },
        endpoint: EndpointInfo {
            tunnel_id: "tn_1",
            url: "https://a.example",
            account: "cr_1",
            protocol: Protocol::Http,
        },
        services: &*policy.services,
        now: Instant::from_micros(seconds * 1_000_000),
        unix_seconds: seconds,
        hops: PolicyHops::default(),
    }
}

/// What became of a request.
struct Outcome {
    flow: Result<PolicyFlow, ActionError>,
    edits: HeaderEdits,
    /// `actions.ngrok`.
    results: Value,
}

impl Outcome {
    /// Returns the response of the policy.
    fn reply(self) -> Reply {
        match self.flow {
            Ok(PolicyFlow::Respond(reply)) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn status(self) -> u16 {
        match &self.flow {
            Ok(PolicyFlow::Continue) => 0,
            Err(_) => 500,
            _ => self.reply().status,
        }
    }
}

fn request(policy: &CompiledPolicy, head: &str, body: &[u8]) -> Outcome {
    request_at(policy, head, body, 1000)
}

fn request_at(policy: &CompiledPolicy, head: &str, body: &[u8], seconds: u64) -> Outcome {
    with_body(&format!("{head}\r\n"), b"", |info| {
        let mut edits = HeaderEdits::default();
        let mut source = Body(body);
        let input = input(policy, "192.0.2.7", seconds);
        let mut phase = RequestPhase::new(input, *info, &mut edits, &mut source);
        let flow = policy.request(&mut phase);
        let results = json!(phase.vars.results());
        Outcome { flow, edits, results }
    })
}

/// What became of a response.
struct ResponseOutcome {
    flow: Result<PolicyFlow, ActionError>,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    /// `actions.ngrok`.
    results: Value,
}

/// Runs the response phase, then the body.
fn response(
    policy: &CompiledPolicy,
    request: &str,
    fields: &[(&'static str, &'static str)],
    body: &[u8],
) -> ResponseOutcome {
    with_body(&format!("{request}\r\n"), b"", |info| {
        let mut head = ResponseHead::new(200, ResponseBody::Encodable);
        fields.iter().for_each(|(name, value)| head.push(name.as_bytes(), value.as_bytes()));
        let mut phase = ResponsePhase::new(input(policy, "192.0.2.7", 1000), *info, &mut head);
        let flow = policy.response(&mut phase);
        let results = json!(phase.vars.results());
        let mut out = Vec::new();
        let mut transforms = std::mem::take(&mut head.transforms);
        for piece in body.chunks(3) {
            write_through(&mut transforms, piece, &mut |b| out.extend_from_slice(b)).unwrap();
        }
        finish_through(&mut transforms, &mut |b| out.extend_from_slice(b)).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = head.iter().map(|(name, value)| (text(name), text(value))).collect();
        ResponseOutcome { flow, fields, body: out, results }
    })
}

const GET: &str = "GET /a/1?x=2 HTTP/1.1\r\nHost: a.example\r\n";

fn with_lines(lines: &str) -> String {
    format!("{GET}{lines}")
}

/// Faults of actions in the request phase: action, configuration, code, and the rest of the path.
const FAULTS: &[(&str, &str, u32, &str)] = &[
    ("add-headers", r#"{"headers": {}}"#, 2223, ".headers"),
    ("add-headers", r#"{"headers": {"connection": "x"}}"#, 2219, ".headers.connection"),
    ("add-headers", r#"{"headers": {"x-a": null, "x-b": "b"}}"#, 2204, ".headers.x-a"),
    ("add-headers", r#"{"headers": {"host": "a b"}}"#, 2211, ".headers"),
    ("remove-headers", r#"{"headers": []}"#, 2223, ".headers"),
    ("remove-headers", r#"{"headers": ["te"]}"#, 2219, ".headers[0]"),
    ("custom-response", r#"{"body": {}}"#, 2204, ".body"),
    ("restrict-ips", r#"{}"#, 2234, ""),
    ("restrict-ips", r#"{"enforce": true}"#, 2234, ""),
    ("restrict-ips", r#"{"allow": ["10.0.0.0/33"]}"#, 2217, ".allow"),
    ("restrict-ips", r#"{"ip_policies": ["ipp_other"]}"#, 2216, ".ip_policies"),
    ("restrict-ips", r#"{"allow": ["::1"], "enforce": "x"}"#, 2204, ".enforce"),
    ("restrict-ips", r#"{"allow": ["::1"], "other": 1}"#, 2203, ".other"),
    (
        "jwt-validation",
        r#"{"issuer": {"allow_list": [{"value": "i"}]}, "http": {"tokens": [{"type": "jwt",
            "method": "header", "name": "a"}]}, "jws": {"allowed_algorithms": ["EdDSA"],
            "keys": {"sources": {"additional_jkus": ["file:///etc/keys"]}}}}"#,
        2226,
        ".jws.keys",
    ),
    (
        "jwt-validation",
        r#"{"issuer": {"allow_list": [{"value": "i"}]}, "http": {"tokens": [{"type": "jwt",
            "method": "header", "name": "a b"}]}, "jws": {"allowed_algorithms": ["EdDSA"],
            "keys": {"sources": {"additional_jkus": ["https://a.example/keys"]}}}}"#,
        2210,
        ".http.tokens[0].name",
    ),
    ("basic-auth", r#"{}"#, 2234, ""),
    ("basic-auth", r#"{"credentials": []}"#, 2223, ".credentials"),
    ("basic-auth", r#"{"credentials": [1,2,3,4,5,6,7,8,9,10,11]}"#, 2218, ".credentials"),
    ("basic-auth", r#"{"credentials": ["secret99"]}"#, 2257, ".credentials"),
    ("basic-auth", r#"{"credentials": [":secret99"]}"#, 2257, ".credentials"),
    ("basic-auth", r#"{"credentials": ["u:secret9"]}"#, 2258, ".credentials"),
    ("basic-auth", r#"{"credentials": ["u:secret99"], "realm": "é"}"#, 2221, ".realm"),
    ("basic-auth", r#"{"credentials": ["u:secret99"], "realm": "\""}"#, 2221, ".realm"),
    ("redirect", r#"{"from": "a"}"#, 2234, ""),
    ("redirect", r#"{"from": "(", "to": "/"}"#, 2261, ".from"),
    ("redirect", r#"{"to": "/", "status_code": 200}"#, 2215, ".status_code"),
    ("redirect", r#"{"to": "/", "headers": {"location": "x"}}"#, 2219, ".headers.location"),
    ("redirect", r#"{"to": "/", "headers": {"a": "b\n"}}"#, 2211, ".headers.a"),
    ("url-rewrite", r#"{}"#, 2234, ""),
    ("url-rewrite", r#"{"from": "((a{50}){50}){50}", "to": "/"}"#, 2261, ".from"),
    ("circuit-breaker", r#"{"error_threshold": 1.1}"#, 2215, ".error_threshold"),
    ("circuit-breaker", r#"{"volume_threshold": 0}"#, 2215, ".volume_threshold"),
    ("circuit-breaker", r#"{"window_duration": "121s"}"#, 2225, ".window_duration"),
    ("circuit-breaker", r#"{"tripped_duration": "500ms"}"#, 2225, ".tripped_duration"),
    ("circuit-breaker", r#"{"num_buckets": 11}"#, 2215, ".num_buckets"),
    ("close-connection", r#"{"x": 1}"#, 2203, ".x"),
    ("verify-webhook", r#"{"provider": "github"}"#, 2234, ""),
    ("verify-webhook", r#"{"provider": "acme", "secret": "s"}"#, 2222, ".provider"),
    ("verify-webhook", r#"{"provider": "sns", "secret": "s"}"#, 2222, ".provider"),
    ("verify-webhook", r#"{"provider": "svix", "secret": "secret99!"}"#, 2204, ".secret"),
    ("request-body-find-replace", r#"{}"#, 2234, ""),
    ("request-body-find-replace", r#"{"replacements": []}"#, 2223, ".replacements"),
    ("request-body-find-replace", r#"{"replacements": [{"to": "x"}]}"#, 2234, ".replacements[0]"),
    (
        "request-body-find-replace",
        r#"{"replacements": [{"from": "["}]}"#,
        2261,
        ".replacements[0].from",
    ),
];

/// Faults in other phases, likewise.
const FAULTS_OF_RESPONSES: &[(&str, &str, &str, u32)] = &[
    (
        "on_event_stream_message",
        "sse-find-replace",
        r#"{"replacements": [{"field": "id", "from": "a"}]}"#,
        2222,
    ),
    ("on_http_response", "compress-response", r#"{"algorithms": []}"#, 2214),
    ("on_http_response", "compress-response", r#"{"algorithms": ["zstd"]}"#, 2214),
    ("on_http_response", "compress-response", r#"{"algorithms": ["compress"]}"#, 2214),
    ("on_http_response", "compress-response", r#"{"algorithms": ["br", "br"]}"#, 2231),
    ("on_http_response", "rate-limit", r#"{}"#, 2202),
    ("on_http_request", "sse-find-replace", r#"{}"#, 2202),
    ("on_tcp_connect", "terminate-tls", r#"{"min_version": "1.1"}"#, 2222),
    ("on_tcp_connect", "terminate-tls", r#"{"min_version": "1.3", "max_version": "1.2"}"#, 2215),
    ("on_tcp_connect", "terminate-tls", r#"{"server_certificate": "x"}"#, 2240),
    (
        "on_tcp_connect",
        "terminate-tls",
        r#"{"server_certificate": "x", "server_private_key": "y"}"#,
        2228,
    ),
    (
        "on_tcp_connect",
        "terminate-tls",
        r#"{"mutual_tls_certificate_authorities": ["ca_none"]}"#,
        2204,
    ),
    (
        "on_tcp_connect",
        "terminate-tls",
        r#"{"mutual_tls_certificate_authorities": ["no PEM"]}"#,
        2228,
    ),
    (
        "on_tcp_connect",
        "terminate-tls",
        r#"{"mutual_tls_verification_strategy": "require-and-verify"}"#,
        2240,
    ),
];

/// Returns the only fault of a policy with one action.
fn fault(phase: &str, action: &str, config: &Value) -> PolicyFault {
    let text = document(phase, action, config);
    let mut faults = try_policy(Protocol::Http, &text).map(drop).unwrap_err();
    assert_eq!(faults.len(), 1, "{action} {config}: {faults:?}");
    faults.remove(0)
}

#[test]
fn what_is_wrong_in_a_configuration_is_refused_with_its_code_and_its_place() {
    for (action, config, code, path) in FAULTS.iter().copied() {
        let config: Value = serde_json::from_str(config).unwrap();
        let fault = fault("on_http_request", action, &config);
        let place = format!("on_http_request[0].actions[0].config{path}");
        assert_eq!((fault.code, &fault.path), (code, &place), "{action} {config}: {fault}");
        assert!(!fault.reason.contains("secret99"), "{fault}");
        assert!(fault.position.is_some_and(|position| position.line == 1));
    }
    for (phase, action, config, code) in FAULTS_OF_RESPONSES.iter().copied() {
        let config: Value = serde_json::from_str(config).unwrap();
        let fault = fault(phase, action, &config);
        assert_eq!(fault.code, code, "{action} {config}: {fault}");
    }
    let many = json!({ "allow": vec!["::1"; 257] });
    assert_eq!(fault("on_http_request", "restrict-ips", &many).code, 2218);
    let many = json!({ "replacements": vec![json!({ "from": "a" }); 11] });
    assert_eq!(fault("on_http_request", "request-body-find-replace", &many).code, 2218);
    let long = json!({ "credentials": ["u:secret99"], "realm": "x".repeat(129) });
    assert_eq!(fault("on_http_request", "basic-auth", &long).code, 2221);
}

/// The edge keeps what a policy is compiled to, which can be thousands of times its text.
#[test]
fn expressions_and_regular_expressions_of_a_policy_are_bounded_together() {
    let only_fault = |policy: Value| {
        let faults = try_policy(Protocol::Http, &policy.to_string()).map(drop).unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
        (faults[0].code, faults[0].path.clone())
    };
    let rules = |rule: Value, count: usize| json!({ "on_http_request": vec![rule; count] });
    let log = json!([{ "type": "log" }]);
    // 64 KiB when compiled.
    let matches = "req.method.matches('(?:a{40}[b-z]){30}')";
    let conditions = json!({ "expressions": [matches], "actions": log });
    assert!(try_policy(Protocol::Http, &rules(conditions.clone(), 16).to_string()).is_ok());
    let fault = only_fault(rules(conditions, 100));
    assert_eq!(fault, (2249, "on_http_request[16].expressions[0]".into()));
    let replaces = json!([{ "type": "request-body-find-replace", "config": {
        "replacements": vec![json!({ "from": "(?:a{40}[b-z]){30}" }); 10] } }]);
    let (code, path) = only_fault(rules(json!({ "actions": replaces }), 100));
    assert_eq!((code, path.starts_with("on_http_request[1].actions[0]")), (2249, true), "{path}");
    let vars = vec![json!({ "v": format!("${{{matches}}}").repeat(3) }); 100];
    let sets = json!([{ "type": "set-vars", "config": { "vars": vars } }]);
    assert_eq!(only_fault(rules(json!({ "actions": sets }), 10)).0, 2249);
    let many = json!({ "expressions": vec!["true"; 32], "actions": log });
    assert!(try_policy(Protocol::Http, &rules(many.clone(), 100).to_string()).is_ok());
    let headers = json!([{ "type": "log", "config": { "metadata": {
        "a": "${req.method}".repeat(64) } } }]);
    let many = json!({ "expressions": vec!["true"; 32], "actions": headers });
    assert_eq!(only_fault(rules(many, 100)).0, 2249);
}

#[test]
fn a_condition_that_is_a_constant_is_a_bool() {
    let bind = |condition: &str| {
        let rule =
            format!("{{expressions: [\"{condition}\"], actions: [{{type: deny, config: {{}}}}]}}");
        try_policy(Protocol::Http, &format!("on_http_request: [{rule}]"))
    };
    for (condition, kind) in [("'text'", "string"), ("1", "int"), ("null", "null")] {
        let faults = bind(condition).unwrap_err();
        assert_eq!((faults.len(), faults[0].code), (1, 2200), "{condition}");
        let text = faults[0].to_string();
        assert!(text.contains(&format!("is a {kind}, not a bool")), "{text}");
    }
    for condition in ["true", "false", "req.url.path"] {
        assert!(bind(condition).is_ok(), "{condition}");
    }
}

#[test]
fn tls_is_not_decided_by_expressions_and_not_for_tcp() {
    let text = "on_tcp_connect: [{expressions: ['true'], actions: [{type: terminate-tls}]}]";
    let faults = try_policy(Protocol::Http, text).map(drop).unwrap_err();
    assert!(faults.iter().any(|fault| fault.code == 2204), "{faults:?}");
    let text = "on_tcp_connect: [{actions: [{type: terminate-tls}]}]";
    assert!(try_policy(Protocol::Tls, text).unwrap().tls().is_some());
    let faults = try_policy(Protocol::Tcp, text).map(drop).unwrap_err();
    assert_eq!(faults[0].code, 2205);
}

#[test]
fn addresses_must_be_allowed_and_not_denied() {
    for (config, client, action, matched) in [
        (json!({"allow": ["192.0.2.0/24"]}), "192.0.2.7", "allow", "192.0.2.0/24"),
        (json!({"allow": ["192.0.2.0/24"]}), "198.51.100.1", "deny", ""),
        (json!({"allow": ["0.0.0.0/0"], "deny": ["192.0.2.7"]}), "192.0.2.7", "deny", "192.0.2.7"),
        (json!({"deny": ["10.0.0.0/8"]}), "192.0.2.7", "deny", ""),
        (json!({"ip_policies": ["ipp_office"]}), "192.0.2.7", "allow", "192.0.2.0/24"),
        (json!({"ip_policies": ["ipp_office"]}), "192.0.2.200", "deny", "192.0.2.128/25"),
        (
            json!({"allow": ["0.0.0.0/0"], "ip_policies": ["ipp_office"]}),
            "192.0.2.200",
            "deny",
            "192.0.2.128/25",
        ),
    ] {
        let mut watched = config.clone();
        watched["enforce"] = json!(false);
        for (config, enforced) in [(config, true), (watched, false)] {
            let policy = policy("on_tcp_connect", "restrict-ips", config.clone());
            let mut phase = ConnectPhase::new(input(&policy, client, 1000));
            let flow = policy.connect(&mut phase).unwrap();
            let closes = enforced && action == "deny";
            let expected = if closes { PolicyFlow::Close } else { PolicyFlow::Continue };
            assert_eq!(flow, expected, "{config} {client}");
            let result = succeeded(json!({ "action": action, "matched_cidr": matched }));
            assert_eq!(phase.vars.results()["restrict_ips"], result, "{config} {client}");
        }
    }
    let policy = policy("on_http_request", "restrict-ips", json!({"allow": ["10.0.0.0/8"]}));
    let reply = request(&policy, GET, b"").reply();
    assert_eq!((reply.status, reply.code), (403, 3203));
}

#[test]
fn basic_auth_challenges_with_its_realm() {
    let config = json!({"credentials": ["u:pass:word"], "realm": "the house"});
    let strict = policy("on_http_request", "basic-auth", config.clone());
    let reply = request(&strict, GET, b"").reply();
    assert_eq!(reply.status, 401);
    assert_eq!(reply.fields[0].1, "Basic realm=\"the house\"");
    let line = |pair: &str| {
        with_lines(&format!("Authorization: Basic {}\r\n", base64::encode(pair.as_bytes())))
    };
    let right = request(&strict, &line("u:pass:word"), b"");
    assert_eq!(right.flow, Ok(PolicyFlow::Continue));
    let mut config = config;
    config["enforce"] = json!(false);
    let watching = policy("on_http_request", "basic-auth", config);
    for (head, presented, user, authorized) in [
        (GET.to_owned(), false, "", false),
        (line("v:wrong"), true, "v", false),
        (line("u:pass:word"), true, "u", true),
    ] {
        let outcome = request(&watching, &head, b"");
        assert_eq!(outcome.flow, Ok(PolicyFlow::Continue));
        let credentials = &outcome.results["basic_auth"]["credentials"];
        let expected =
            json!({ "presented": presented, "username": user, "authorized": authorized });
        assert_eq!(*credentials, expected);
    }
}

#[test]
fn urls_are_rewritten_for_the_upstream() {
    for (config, target, host) in [
        (json!({"from": "/a/", "to": "/b/"}), Some("/b/1?x=2"), None),
        (json!({"from": r"/a/(\d+)\?x=", "to": "/item?id=$1&y="}), Some("/item?id=1&y=2"), None),
        (json!({"to": "/all"}), Some("/all"), None),
        (json!({"from": "a.example", "to": "b.example"}), Some("/a/1?x=2"), Some("b.example")),
        (json!({"from": "/none", "to": "/b"}), None, None),
        (json!({"from": "/a/1.*", "to": ""}), Some("/"), None),
    ] {
        let policy = policy("on_http_request", "url-rewrite", config.clone());
        let outcome = request(&policy, GET, b"");
        assert_eq!(outcome.flow, Ok(PolicyFlow::Continue), "{config}");
        assert_eq!((outcome.edits.target(), outcome.edits.host()), (target, host), "{config}");
    }
    let policy = policy("on_http_request", "url-rewrite", json!({"from": "/a/", "to": "/b/"}));
    let result = request(&policy, GET, b"").results;
    let expected = succeeded(json!({ "matches": ["/a/"], "url": "http://a.example/b/1?x=2" }));
    assert_eq!(result["url_rewrite"], expected);
    let star = "OPTIONS * HTTP/1.1\r\nHost: a\r\n";
    assert_eq!(request(&policy, star, b"").edits, HeaderEdits::default());
}

#[test]
fn a_url_that_is_not_one_ends_the_request() {
    let to = |to: &str| policy("on_http_request", "url-rewrite", json!({"to": to}));
    assert_eq!(request(&to("products"), GET, b"").status(), 500);
    assert_eq!(request(&to("http://a b/"), GET, b"").status(), 500);
}

#[test]
fn redirects_send_the_new_url_and_pass_the_same_one() {
    let config = json!({"from": r"/a/(\d+)", "to": "/b/$1/", "status_code": 301,
        "headers": {"X-Moved": "yes"}});
    let moved = policy("on_http_request", "redirect", config);
    let reply = request(&moved, GET, b"").reply();
    assert_eq!(reply.status, 301);
    let fields: Vec<(&str, &str)> = reply.fields.iter().map(|(n, v)| (&**n, &**v)).collect();
    let location = ("Location", "http://a.example/b/1/?x=2");
    assert_eq!(fields, [location, ("x-moved", "yes")]);
    let other = request(&moved, "GET /c HTTP/1.1\r\nHost: a\r\n", b"");
    assert_eq!(other.flow, Ok(PolicyFlow::Continue));
    let same = policy("on_http_request", "redirect", json!({"to": "http://a.example/a/1?x=2"}));
    assert_eq!(request(&same, GET, b"").flow, Ok(PolicyFlow::Continue));
    let usual = policy("on_http_request", "redirect", json!({"to": "https://b.example"}));
    assert_eq!(request(&usual, GET, b"").reply().status, 302);
}

#[test]
fn the_body_of_a_request_is_changed_or_refused() {
    let config = json!({"replacements": [{"from": r#""key":"\w+""#, "to": r#""key":"x""#},
        {"from": "gone"}]});
    let policy = policy("on_http_request", "request-body-find-replace", config);
    let outcome = request(&policy, GET, br#"{"key":"abc","b":"gone"}"#);
    assert_eq!(outcome.edits.body(), Some(&br#"{"key":"x","b":""}"#[..]));
    let expected = json!([
        { "replacement_index": 0, "matched_content": r#""key":"abc""# },
        { "replacement_index": 1, "matched_content": "gone" },
    ]);
    assert_eq!(outcome.results["request_body_find_replace"]["replacements"], expected);
    assert_eq!(request(&policy, GET, b"nothing").edits.body(), None);
    let long = request(&policy, GET, &vec![b'x'; 1024 * 1024 + 1]).reply();
    assert_eq!(long.status, 413);
    assert!(long.text.contains("1048576 bytes"), "{}", long.text);
    let coded = request(&policy, &with_lines("Content-Encoding: gzip\r\n"), b"x");
    assert_eq!(coded.status(), 415);
}

#[test]
fn the_body_of_a_response_is_changed_on_its_way() {
    let config = json!({"replacements": [{"from": r"\d{3}-\d{4}", "to": "[phone]"}]});
    let policy = policy("on_http_response", "response-body-find-replace", config);
    let fields = [("Content-Length", "20"), ("ETag", "\"a\""), ("X", "y")];
    let ResponseOutcome { flow, fields, body, .. } =
        response(&policy, GET, &fields, b"call 555-1234 or 555-9999");
    assert_eq!(flow, Ok(PolicyFlow::Continue));
    assert_eq!(body, b"call [phone] or [phone]");
    let expected = [("ETag", "W/\"a\""), ("X", "y")];
    assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    // What the edge cannot read does not pass.
    for line in [("Content-Encoding", "gzip"), ("Content-Range", "bytes 0-1/2")] {
        assert!(response(&policy, GET, &[line], b"").flow.is_err(), "{line:?}");
    }
    assert!(response(&policy, GET, &[("Content-Encoding", "identity")], b"").flow.is_ok());
}

#[test]
fn events_are_changed_and_other_responses_are_not() {
    let config = json!({"replacements": [{"from": "secret", "to": "x"},
        {"field": "retry", "from": r"\d+", "to": "9"}]});
    let policy = policy("on_event_stream_message", "sse-find-replace", config);
    let stream = b"data: secret\nid: 1\n\nretry: 5\n\n: secret\n\n";
    let kind = [("Content-Type", "text/event-stream; charset=utf-8")];
    let ResponseOutcome { flow, body, .. } = response(&policy, GET, &kind, stream);
    assert_eq!(flow, Ok(PolicyFlow::Continue));
    assert_eq!(body, b"data: x\nid: 1\n\nretry: 9\n\n: secret\n\n");
    assert_eq!(response(&policy, GET, &[("Content-Type", "text/plain")], stream).body, stream);
}

#[test]
fn responses_are_compressed_with_a_coding_of_the_list() {
    let run = |config: Value, accept: &str, fields: &[(&'static str, &'static str)]| {
        let policy = policy("on_http_response", "compress-response", config);
        let head = with_lines(&format!("Accept-Encoding: {accept}\r\n"));
        response(&policy, &head, fields, b"").results["compress"].clone()
    };
    let result = |already: bool, coding: &str| json!({ "already_compressed": already, "negotiated_algorithm": coding });
    let text = [("Content-Type", "text/html")];
    assert_eq!(run(json!({}), "gzip, br", &text), result(false, "gzip"));
    assert_eq!(
        run(json!({"algorithms": ["br", "compress"]}), "gzip, br", &text),
        result(false, "br")
    );
    assert_eq!(run(json!({"algorithms": ["br"]}), "gzip", &text), result(false, ""));
    let coded = [("Content-Type", "text/html"), ("Content-Encoding", "br")];
    assert_eq!(run(json!({}), "gzip", &coded), result(true, ""));
}

#[test]
fn a_webhook_needs_the_signature_of_its_body() {
    let config = json!({"provider": "gitlab", "secret": "token-1"});
    let strict = policy("on_http_request", "verify-webhook", config.clone());
    let reply = request(&strict, GET, b"x").reply();
    assert_eq!((reply.status, reply.code), (403, 3204));
    let right = with_lines("X-Gitlab-Token: token-1\r\n");
    let outcome = request(&strict, &right, b"x");
    assert_eq!(outcome.flow, Ok(PolicyFlow::Continue));
    assert_eq!(outcome.results["verify_webhook"], succeeded(json!({ "verified": true })));
    let long = request(&strict, &right, &vec![b'x'; 1024 * 1024 + 1]);
    assert_eq!(long.status(), 413);
    let mut config = config;
    config["enforce"] = json!(false);
    let watching = policy("on_http_request", "verify-webhook", config);
    let outcome = request(&watching, GET, b"x");
    assert_eq!(outcome.flow, Ok(PolicyFlow::Continue));
    let result = &outcome.results["verify_webhook"];
    assert_eq!(result["verified"], json!(false));
    assert_eq!(result["error"]["code"], json!("ERR_NGROK_3204"));
}

/// Configuration of `rate-limit` with one change.
fn limit(key: &str, value: Value) -> Value {
    let mut config = json!({ "name": "n", "algorithm": "sliding_window", "capacity": 2,
        "rate": "60s", "bucket_key": ["req.headers['x-key'][0]", "req.method"] });
    config[key] = value;
    config
}

#[test]
fn a_limit_that_is_out_of_its_bounds_is_refused() {
    for (key, value, code) in [
        ("capacity", json!(0), 2215),
        ("capacity", json!(2_000_000_001_u64), 2215),
        ("rate", json!("50s"), 2225),
        ("rate", json!("25h"), 2225),
        ("rate", json!("65s"), 2204),
        ("rate", json!(60), 2204),
        ("algorithm", json!("fixed"), 2222),
        ("name", json!("x".repeat(1024)), 2221),
        ("bucket_key", json!([]), 2223),
        ("bucket_key", json!(vec!["req.host"; 11]), 2218),
        ("bucket_key", json!(["req.hots"]), 2224),
        ("bucket_key", json!(["${req.host}"]), 2224),
        ("bucket_key", json!(null), 2234),
    ] {
        let config = limit(key, value);
        let fault = fault("on_http_request", "rate-limit", &config);
        assert_eq!(fault.code, code, "{config}: {fault}");
    }
    for (key, reason) in [
        ("${req.host}", "at byte 1: unexpected '$': write the expression without ${ and }."),
        ("req.hots", "at byte 1: unknown variable: req.hots."),
    ] {
        let fault = fault("on_http_request", "rate-limit", &limit("bucket_key", json!([key])));
        assert_eq!(fault.reason, reason);
    }
}

#[test]
fn each_combination_of_values_has_its_own_limit() {
    let policy = policy("on_http_request", "rate-limit", limit("name", json!("n")));
    let status =
        |lines: &str, seconds| request_at(&policy, &with_lines(lines), b"", seconds).status();
    assert_eq!([1000, 1010, 1020].map(|at| status("X-Key: a\r\n", at)), [0, 0, 429]);
    assert_eq!(status("X-Key: b\r\n", 1020), 0);
    let post = "POST / HTTP/1.1\r\nHost: a\r\nX-Key: a\r\n";
    assert_eq!(request_at(&policy, post, b"", 1020).status(), 0);
    // Requests without the header have one limit too.
    assert_eq!([1000, 1010, 1020].map(|at| status("", at)), [0, 0, 429]);
    let reply = request_at(&policy, &with_lines("X-Key: a\r\n"), b"", 1020).reply();
    assert_eq!(reply.fields, [("Retry-After".into(), "41".to_owned())]);
    assert_eq!(status("X-Key: a\r\n", 1061), 0);
    let watching = self::policy("on_http_request", "rate-limit", limit("enforce", json!(false)));
    let results = [1000, 1001, 1002].map(|at| {
        let outcome = request_at(&watching, &with_lines("X-Key: a\r\n"), b"", at);
        assert_eq!(outcome.flow, Ok(PolicyFlow::Continue));
        outcome.results["rate_limit"].clone()
    });
    assert_eq!(results[1], succeeded(json!({ "bucket_key": "a,GET", "limited": false })));
    assert_eq!(results[2], succeeded(json!({ "bucket_key": "a,GET", "limited": true })));
}

#[test]
fn credentials_and_secrets_are_read_for_each_request() {
    let config = json!({ "credentials": ["user:${secrets.get('house', 'password')}"] });
    let policy = policy("on_http_request", "basic-auth", config);
    let line = |pair: &str| {
        with_lines(&format!("Authorization: Basic {}\r\n", base64::encode(pair.as_bytes())))
    };
    assert_eq!(request(&policy, &line("user:open sesame"), b"").status(), 0);
    assert_eq!(request(&policy, &line("user:wrong"), b"").status(), 401);
    // An expression must not move the colon, and a secret must exist: neither lets pass.
    for credential in ["${req.headers['x'][0]}:password1", "user:${secrets.get('house', 'x')}"] {
        let config = json!({ "credentials": [credential] });
        let policy = self::policy("on_http_request", "basic-auth", config);
        let head = format!("{}X: a:password1\r\n", line("a:password1:password1"));
        assert_eq!(request(&policy, &head, b"").status(), 500, "{credential}");
    }
}

#[test]
fn expressions_are_evaluated_before_a_match() {
    let config = json!({ "from": "^${req.url.scheme}://${req.host}/a", "to": "/${req.method}" });
    let policy = policy("on_http_request", "url-rewrite", config);
    assert_eq!(request(&policy, GET, b"").edits.target(), Some("/GET/1?x=2"));
    let config = json!({ "from": "${req.headers['x'][0]}", "to": "" });
    let policy = self::policy("on_http_request", "url-rewrite", config);
    let invalid = request(&policy, &with_lines("X: (\r\n"), b"");
    assert_eq!(invalid.status(), 500);
    let config = json!({ "allow": ["${req.headers['x'][0]}"] });
    let policy = self::policy("on_http_request", "restrict-ips", config);
    assert_eq!(request(&policy, &with_lines("X: 192.0.2.0/24\r\n"), b"").status(), 0);
    assert_eq!(request(&policy, &with_lines("X: no network\r\n"), b"").status(), 500);
}

#[test]
fn connections_are_closed_without_a_response() {
    let policy = policy("on_http_request", "close-connection", json!({}));
    assert_eq!(request(&policy, GET, b"").flow, Ok(PolicyFlow::Close));
}

#[test]
fn a_visitor_cannot_get_past_a_rule_by_a_long_path() {
    let text = json!({ "on_http_request": [{
        "expressions": ["req.url.path.split('/')[1] == 'admin'"],
        "actions": [{ "type": "deny" }],
    }] });
    let policy = try_policy(Protocol::Http, &text.to_string()).unwrap();
    let status = |path: &str| {
        request(&policy, &format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n"), b"").status()
    };
    assert_eq!(status("/admin/a"), 403);
    assert_eq!(status("/public"), 0);
    assert_eq!(status(&format!("/admin{}", "/".repeat(20_000))), 500);
}

fn rules(text: &str) -> CompiledPolicy {
    try_policy(Protocol::Http, text).unwrap_or_else(|faults| panic!("{text}: {faults:?}"))
}

#[test]
fn a_result_that_does_not_fit_does_not_get_past_a_rule() {
    let policy = rules(
        "on_http_request:
  - actions:
      - {type: set-vars, config: {vars: [&a {a: '${req.headers[\"x-a\"][0]}'}, *a]}}
      - {type: basic-auth, config: {credentials: ['user:password'], enforce: false}}
  - expressions: ['!actions.ngrok.basic_auth.credentials.authorized']
    actions: [{type: deny}]
",
    );
    let status = |user: &str, more: usize| {
        let value = base64::encode(format!("{user}:password").as_bytes());
        let lines = format!("X-A: {}\r\nAuthorization: Basic {value}\r\n", "a".repeat(more));
        request(&policy, &with_lines(&lines), b"").status()
    };
    assert_eq!((status("user", 1), status("other", 1)), (0, 403));
    // The variables alone fit.
    assert_eq!((status("other", 32_000), status("other", 32_700)), (403, 500));
}

#[test]
fn an_invalid_escape_does_not_hide_the_others() {
    let policy = rules(
        "on_http_request:
  - expressions: [\"req.url.path.startsWith('/admin') || getQueryParam('q') == ['admin']\"]
    actions: [{type: deny}]
",
    );
    let status = |target: &str| {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n");
        request(&policy, &head, b"").status()
    };
    for target in ["/admin", "/%61dmin", "/%61dmin/%ff", "/%61dmin;%", "/%61dmin/%zz", "/%61dmin%6"]
    {
        assert_eq!(status(target), 403, "{target}");
    }
    for target in ["/?q=%61dmin", "/?%71=admin", "/?x=%ff&q=%61dmin"] {
        assert_eq!(status(target), 403, "{target}");
    }
    for target in ["/", "/%", "/%ff%61dmin", "/?q=%61dmin%ff", "/?q=admi%C3%A4"] {
        assert_eq!(status(target), 0, "{target}");
    }
}

#[test]
fn a_search_in_a_long_query_or_cookie_has_its_price() {
    let policy = rules(
        "on_http_request:
  - expressions: ['lists.range(100).exists(n, hasQueryParam(string(n)))']
    actions: [{type: deny}]
  - expressions: ['lists.range(100).exists(n, hasReqCookie(string(n)))']
    actions: [{type: deny, config: {status_code: 404}}]
",
    );
    let status = |query: &str, cookie: &str| {
        let head = format!("GET /?{query} HTTP/1.1\r\nHost: a.example\r\nCookie: {cookie}\r\n");
        request(&policy, &head, b"").status()
    };
    assert_eq!((status("99=", ""), status("", "99="), status("x=", "x=")), (403, 404, 0));
    let long =
        |separator: &str| (0..4000).map(|n| format!("x{n}=")).collect::<Vec<_>>().join(separator);
    assert_eq!((status(&long("&"), ""), status("", &long(";"))), (500, 500));
}

/// A policy makes results of actions if an expression reads them, wherever it is.
#[test]
fn every_expression_that_reads_results_is_noticed() {
    let reads = |text: &str| compiled(Protocol::Http, text).unwrap().reads_results;
    let action = |kind: &str, config: &str| {
        reads(&format!("on_http_request: [{{actions: [{{type: {kind}, config: {config}}}]}}]"))
    };
    let condition = |text: &str| {
        let actions = "actions: [{type: deny}]";
        reads(&format!("on_http_request: [{{expressions: [\"{text}\"], {actions}}}]"))
    };
    assert!(condition("actions.ngrok.rate_limit.limited"));
    assert!(condition("[1].exists(n, actions['ngrok']['log'][n] == 1)"));
    assert!(!condition("[1].exists(actions, actions == 1)"));
    assert!(!condition("req.host == 'actions'"));
    assert!(action("log", "{metadata: {a: [{b: '${actions.ngrok.log}'}]}}"));
    assert!(action("add-headers", "{headers: {a: 'x${actions.ngrok.log.a}'}}"));
    assert!(!action("add-headers", "{headers: {a: '${req.host}'}}"));
    let key = "{name: a, algorithm: sliding_window, capacity: 1, rate: 60s, bucket_key: [KEY]}";
    assert!(action("rate-limit", &key.replace("KEY", "actions.ngrok.log.a")));
}
