//! Traffic policies at the edge: what visitors and upstreams see, and what is refused.

use std::fs;
use std::io::Read;
use std::net::TcpStream;

use serde_json::json;

use crate::support::agent;
use crate::support::api;
use crate::support::certs::{self, Authority};
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::visitor::{Visitor, echoes};
use crate::support::wire::{Message, Wire};
use crate::support::{TempDir, is_reset};

/// Responds with its name, the request line and the header lines.
fn shows_requests(name: &'static str) -> Upstream {
    Upstream::http(move |request, wire| {
        let line = |(name, value): &(String, String)| format!("\r\n{name}: {value}");
        let fields = request.fields.iter().map(line).collect::<String>();
        let body = format!("{name} {} {fields}\r\n", request.target());
        wire.respond("200 OK", "X-Upstream: yes\r\n", body.as_bytes())
    })
}

fn code(message: &Message) -> Option<&str> {
    message.field("ngrok-error-code")
}

#[test]
fn both_phases_change_the_headers_in_the_order_of_the_rules() {
    let (edge, upstream) = (Edge::start(), shows_requests("app"));
    let agent = agent::with_policy(
        &edge,
        &upstream,
        &["--request-header-add=X-First: option"],
        "on_http_request:
  - actions:
      - {type: add-headers, config: {headers: {X-Gone: a, X-Kept: b}}}
      - {type: remove-headers, config: {headers: [x-gone, cookie, x-first]}}
  - name: last
    actions:
      - {type: add-headers, config: {headers: {host: inner.example, x-kept: c}}}
on_http_response:
  - actions:
      - {type: remove-headers, config: {headers: [X-Upstream]}}
      - {type: add-headers, config: {headers: {X-Policy: 'yes'}}}
",
    );
    let response = agent.visit(&edge).ask("GET", "/a?b", "Cookie: c\r\n", b"");
    let head = response.text().to_ascii_lowercase();
    assert!(head.starts_with("app /a?b "), "{head}");
    assert!(!head.contains("x-gone") && !head.contains("cookie"), "{head}");
    assert!(!head.contains("x-first"), "the policy runs after the options: {head}");
    assert!(head.contains("\r\nx-kept: b\r\nx-kept: c\r\n"), "{head}");
    assert!(head.contains("\r\nhost: inner.example\r\n"), "{head}");
    assert_eq!((response.field("x-upstream"), response.field("x-policy")), (None, Some("yes")));
}

#[test]
fn a_response_of_the_policy_ends_the_request() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let custom = agent::with_policy(
        &edge,
        &upstream,
        &[],
        "on_http_request:
  - actions:
      - type: custom-response
        config:
          status_code: 503
          headers: {X-A: b, retry-after: '60'}
          body: '{\"down\": true}'
",
    );
    let mut visitor = custom.visit(&edge);
    for method in ["GET", "POST"] {
        let response = visitor.ask(method, "/", "", b"");
        assert_eq!((response.status(), response.text()), (503, "{\"down\": true}".into()));
        assert_eq!(response.field("content-type"), Some("application/json"));
        assert_eq!((response.field("x-a"), code(&response)), (Some("b"), None));
        let retry = response.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case("retry-after"));
        assert_eq!(retry.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["60"]);
    }
    let deny = "on_http_request: [{actions: [{type: deny, config: {status_code: 404}}]}]";
    let denying = agent::with_policy(&edge, &upstream, &[], deny);
    let response = denying.visit(&edge).get("/");
    assert_eq!((response.status(), response.text()), (404, String::new()));
    let replacing = agent::with_policy(
        &edge,
        &upstream,
        &[],
        "on_http_response: [{actions: [{type: custom-response, config: {body: replaced}}]}]",
    );
    let mut visitor = replacing.visit(&edge);
    for _ in 0..2 {
        let response = visitor.get("/");
        assert_eq!((response.status(), response.text()), (200, "replaced".to_owned()));
    }
}

#[test]
fn expressions_decide_which_rules_apply() {
    let (mut edge, upstream) = (Edge::start(), shows_requests("app"));
    let agent = agent::with_policy(
        &edge,
        &upstream,
        &[],
        "on_http_request:
  - actions:
      - type: set-vars
        config:
          vars:
            - admin: \"${req.url.path.startsWith('/admin')}\"
            - words: [\"${req.method}\", plain]
            - both: \"${vars.words.join('-')}\"
  - expressions: [vars.admin, \"!inCidrRange(conn.client_ip, '10.0.0.0/8')\"]
    actions:
      - type: custom-response
        config:
          status_code: 403
          body: \"${vars.both} ${req.url.query_params['a'][0]} ${getReqHeader('x-a')[0]}\"
  - name: broken
    expressions: [\"req.headers['x-missing'][0] == 'a'\"]
    actions: [{type: deny}]
  - expressions: [\"req.headers['X-Answer'][0] == 'no' && size(req.cookies['s']) == 2\"]
    actions: [{type: deny, config: {status_code: 409}}]
  - expressions: [req.host.endsWith('localhost')]
    actions: [{type: add-headers, config: {headers: {x-seen: \"${conn.client_ip}:${endpoint.url}\"}}}]
on_http_response:
  - expressions: [res.status_code == 200 && req.method == 'PUT', \"'yes' in res.headers['x-upstream']\"]
    actions: [{type: add-headers, config: {headers: {x-size: \"${res.content_length > 5}\"}}}]
",
    );
    let mut visitor = agent.visit(&edge);
    let refused = visitor.ask("GET", "/admin/x?a=b%20c", "X-A: header\r\n", b"");
    assert_eq!((refused.status(), refused.text()), (403, "GET-plain b c header".to_owned()));
    let denied = visitor.ask("GET", "/", "x-answer: no\r\nCookie: s=1; t=2; s=3\r\n", b"");
    assert_eq!(denied.status(), 409);
    let passed = visitor.ask("PUT", "/", "X-Answer: no\r\nCookie: s=1\r\n", b"body");
    let expected = format!("\r\nx-seen: 127.0.0.1:{}\r\n", agent.url());
    assert!(passed.text().contains(&expected), "{}", passed.text());
    assert_eq!(passed.field("x-size"), Some("true"));
    assert_eq!(visitor.get("/").field("x-size"), None);
    let line = edge.process().wait_stderr("rule does not match");
    assert!(line.contains("name=broken") && line.contains("count=1"), "{line}");
    assert_eq!(edge.process().count_stderr("name=broken"), 1, "once a minute");
}

#[test]
fn a_policy_that_is_wrong_is_refused_with_line_and_path() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let dir = TempDir::new();
    for (policy, code, expected) in [
        (
            // The agent refuses a misspelled one.
            "on_http_request:\n  - actions:\n      - type: translate\n",
            2201,
            "line 3: on_http_request[0].actions[0].type: \"translate\" is not a known action.",
        ),
        (
            "on_http_request:\n  - expressions: [\"conn.geo.country_code == 'DE'\"]\n    actions: \
             [{type: deny}]\n",
            2200,
            "line 2: on_http_request[0].expressions[0]: at byte 1: ",
        ),
        (
            "on_http_request:\n  - actions:\n      - type: deny\n        config:\n          \
             status: 5\n",
            2203,
            "line 5: on_http_request[0].actions[0].config.status: is not a known key; use \
             status_code.",
        ),
        (
            "on_http_request:\n  - actions:\n      - type: add-headers\n        config:\n          \
             headers: {user-agent: x}\n",
            2219,
            "line 5: on_http_request[0].actions[0].config.headers.user-agent: cannot be changed.",
        ),
        (
            "on_http_request:\n  - actions:\n      - type: forward-internal\n        config:\n          \
             url: https://a.example\n",
            2226,
            "line 5: on_http_request[0].actions[0].config.url: must be the URL of an internal \
             endpoint: \"https://a.example\".",
        ),
    ] {
        let file = dir.write("policy.yml", policy).display().to_string();
        let address = upstream.addr.to_string();
        let args = ["http", &address, "--traffic-policy-file", &file];
        let process = agent::agent(&edge.config, args).spawn();
        process.wait_stderr(expected);
        process.wait_stderr(&format!("(error {code})"));
        process.wait_stderr("ERR_NGROK_9026");
    }
}

#[test]
fn internal_endpoints_serve_what_policies_forward() {
    let edge = Edge::start();
    let (public, inner) = (shows_requests("public"), shows_requests("inner"));
    let internal = agent::with_policy(
        &edge,
        &inner,
        &["--url=https://svc.internal"],
        "on_http_request: [{actions: [{type: add-headers, config: {headers: {x-inner: '1'}}}]}]
on_http_response: [{actions: [{type: add-headers, config: {headers: {x-inner: '2'}}}]}]
",
    );
    assert_eq!(internal.url(), "https://svc.internal");
    let forwarding = agent::with_policy(
        &edge,
        &public,
        &[],
        "on_http_request:
  - actions:
      - {type: add-headers, config: {headers: {x-outer: '1'}}}
      - {type: remove-headers, config: {headers: [x-secret]}}
      - {type: forward-internal, config: {url: 'https://svc.internal'}}
on_http_response: [{actions: [{type: add-headers, config: {headers: {x-outer: '2'}}}]}]
",
    );
    let mut visitor = forwarding.visit(&edge);
    let host = visitor.host().to_owned();
    for (method, body) in [("GET", &b""[..]), ("POST", b"some bytes"), ("GET", b"")] {
        let response =
            visitor.ask(method, "/x?y", "X-Secret: s\r\nX-Forwarded-For: 9.9.9.9\r\n", body);
        let head = response.text().to_ascii_lowercase();
        assert!(head.starts_with("inner /x?y "), "{head}");
        assert!(head.contains(&format!("\r\nhost: {host}\r\n")), "{head}");
        assert!(
            head.contains("\r\nx-outer: 1\r\n") && head.contains("\r\nx-inner: 1\r\n"),
            "{head}"
        );
        assert!(!head.contains("x-secret") && !head.contains("9.9.9.9"), "{head}");
        assert_eq!(head.matches("\r\nx-forwarded-for:").count(), 1, "{head}");
        assert_eq!((response.field("x-inner"), response.field("x-outer")), (Some("2"), Some("2")));
    }
    // The name is not found from outside.
    for host in ["svc.internal", "svc.internal:443"] {
        let mut wire = Wire::connect(edge.address_of(forwarding.url())).unwrap();
        wire.write(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).unwrap();
        let response = wire.read_response("GET").unwrap();
        assert_eq!((response.status(), code(&response)), (404, Some("ERR_NGROK_3200")));
    }
}

/// The head that the internal endpoint reads is shorter or longer than the received one.
#[test]
fn a_refusal_by_an_internal_endpoint_ends_its_request_only() {
    let (edge, upstream) = (Edge::start(), shows_requests("public"));
    let _internal = agent::with_policy(
        &edge,
        &upstream,
        &["--url=https://strict.internal"],
        "on_http_request: [{actions: [{type: deny, config: {status_code: 451}}]}]",
    );
    let long = "x".repeat(300);
    for value in ["1", &long] {
        let forwarding = agent::with_policy(
            &edge,
            &upstream,
            &[],
            &format!(
                "on_http_request:
  - expressions: [req.url.path == '/inner']
    actions:
      - {{type: add-headers, config: {{headers: {{x-outer: '{value}'}}}}}}
      - {{type: forward-internal, config: {{url: 'https://strict.internal'}}}}
"
            ),
        );
        let mut visitor = forwarding.visit(&edge);
        let hop = format!("Connection: keep-alive, X-Hop\r\nX-Hop: {}\r\n", "y".repeat(100));
        for fields in [&hop, ""] {
            assert_eq!(visitor.ask("GET", "/inner", fields, b"").status(), 451);
            let response = visitor.ask("GET", "/next", "", b"");
            assert!(response.text().starts_with("public /next "), "{}", response.text());
        }
    }
}

#[test]
fn a_missing_internal_endpoint_ends_the_request_or_the_next_action_runs() {
    let (edge, upstream) = (Edge::start(), shows_requests("public"));
    let forward = |more: &str| {
        format!(
            "on_http_request:
  - actions:
      - type: forward-internal
        config: {{url: 'https://missing.internal'{more}}}
"
        )
    };
    let halting = agent::with_policy(&edge, &upstream, &[], &forward(""));
    let response = halting.visit(&edge).get("/");
    assert_eq!((response.status(), code(&response)), (404, Some("ERR_NGROK_3200")));
    assert!(response.text().contains("https://missing.internal"), "{}", response.text());
    let fallback = "      - {type: add-headers, config: {headers: {x-fallback: '1'}}}\n";
    let policy = forward(", on_error: continue") + fallback;
    let going_on = agent::with_policy(&edge, &upstream, &[], &policy);
    let head = going_on.visit(&edge).get("/").text().to_ascii_lowercase();
    assert!(head.starts_with("public /") && head.contains("\r\nx-fallback: 1\r\n"), "{head}");
}

#[test]
fn a_chain_of_internal_endpoints_has_an_end() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let forward = |to: &str| {
        format!(
            "on_http_request: [{{actions: [{{type: forward-internal, config: {{url: 'http://{to}.internal'}}}}]}}]"
        )
    };
    let round =
        agent::with_policy(&edge, &upstream, &["--url=http://round.internal"], &forward("round"));
    assert_eq!(round.url(), "http://round.internal");
    let entry = agent::with_policy(&edge, &upstream, &[], &forward("round"));
    let response = entry.visit(&edge).get("/");
    assert_eq!((response.status(), code(&response)), (508, Some("ERR_NGROK_3501")));
}

#[test]
fn a_tcp_endpoint_forwards_or_closes() {
    let (edge, echo) = (Edge::start(), Upstream::echo());
    let dir = TempDir::new();
    let tcp = |flags: &[&str], policy: &str| {
        let file = dir.write("policy.yml", policy).display().to_string();
        let address = echo.addr.to_string();
        let args = ["tcp", &address, "--traffic-policy-file", &file].map(str::to_owned);
        let flags = flags.iter().map(|flag| (*flag).to_owned());
        agent::agent(&edge.config, args.into_iter().chain(flags)).start()
    };
    let inner = tcp(&["--url=tcp://db.internal:5432"], "{}");
    assert_eq!(inner.url(), "tcp://db.internal:5432");
    let forwarding = tcp(
        &[],
        "on_tcp_connect:
  - actions:
      - {type: forward-internal, config: {url: 'tcp://missing.internal:1', on_error: continue}}
      - {type: forward-internal, config: {url: 'tcp://db.internal:5432'}}
",
    );
    assert!(echoes(&edge, forwarding.url()));
    let halting = "on_tcp_connect:
  - actions:
      - {type: forward-internal, config: {url: 'tcp://missing.internal:1'}}
";
    for policy in [halting, "on_tcp_connect: [{actions: [{type: deny}]}]"] {
        let closing = tcp(&[], policy);
        let mut visitor = TcpStream::connect(edge.address_of(closing.url())).unwrap();
        let refused = visitor.read(&mut [0; 1]);
        assert!(refused.as_ref().is_err_and(is_reset), "{refused:?}");
    }
}

#[test]
fn a_rule_for_connections_closes_those_of_http_too() {
    let (mut edge, upstream) = (Edge::start(), Upstream::hello());
    let agent =
        agent::with_policy(&edge, &upstream, &[], "on_tcp_connect: [{actions: [{type: deny}]}]");
    let mut visitor = agent.visit(&edge);
    visitor.send("GET", "/", "", b"").unwrap();
    let refused = visitor.wire.read_response("GET");
    assert!(refused.as_ref().is_err_and(is_reset), "{refused:?}");
    let logs = agent::with_policy(
        &edge,
        &upstream,
        &[],
        "on_tcp_connect: [{actions: [{type: log, config: {metadata: {a: b}}}]}]",
    );
    let mut visitor = logs.visit(&edge);
    assert_eq!(visitor.get("/1").text(), "GET /1 ");
    assert_eq!(visitor.get("/2").text(), "GET /2 ");
    let line = edge.process().wait_stderr("policy log");
    assert!(line.contains(r#"metadata="{\"a\":\"b\"}""#), "{line}");
    assert_eq!(edge.process().count_stderr("policy log"), 1, "once a connection");
}

/// The client's certificate is asked for by the option; the policy reads its fields.
#[test]
fn a_policy_reads_the_handshake_of_its_visitor() {
    let (edge, upstream) = (Edge::start(), shows_requests("app"));
    let (dir, authority) = (TempDir::new(), Authority::new());
    let cas = dir.write("clients.pem", authority.pem()).display().to_string();
    let policy = "on_http_request:
  - expressions: [\"'mallory' in conn.tls.client.san.dns_names\"]
    actions: [{type: deny}]
  - actions:
      - type: add-headers
        config:
          headers:
            x-client: ${conn.tls.client.san.dns_names[0]} ${conn.tls.client.subject.common_name}
            x-tls: ${conn.tls.version} ${conn.tls.sni}
on_http_response:
  - actions:
      - type: add-headers
        config: {headers: {x-serial: '${size(conn.tls.client.serial_number) > 0}'}}
";
    let agent =
        agent::with_policy(&edge, &upstream, &["--scheme=https", "--mutual-tls-cas", &cas], policy);
    let host = agent.url().strip_prefix("https://").unwrap();
    let server_name = host.split(':').next().unwrap();
    for (name, status) in [("ann", 200), ("mallory", 403)] {
        let config = certs::client_as(&edge.ca, Some(&authority.pair(&[name])));
        let to = edge.address_of(agent.url());
        let mut wire = certs::connect_with(to, server_name, config);
        wire.write(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).unwrap();
        let response = wire.read_response("GET").unwrap();
        assert_eq!(response.status(), status, "{name}");
        if status == 200 {
            let head = response.text();
            assert!(head.contains("\r\nx-client: ann rcgen"), "{head}");
            assert!(head.contains(&format!("\r\nx-tls: 1.3 {server_name}\r\n")), "{head}");
            assert_eq!(response.field("x-serial"), Some("true"));
        }
    }
}

#[test]
fn the_id_of_an_endpoint_is_that_of_the_rest_api() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let policy = "on_http_request: [{actions: [{type: custom-response, config: {headers: \
         {x-id: '${endpoint.id}'}}}]}]";
    let agent = agent::with_policy(&edge, &upstream, &[], policy);
    let listed = edge.rest().get("/endpoints");
    let expected = listed["endpoints"][0]["id"].as_str();
    assert_eq!(agent.visit(&edge).get("/").field("x-id"), expected);
}

#[test]
fn a_policy_uses_a_secret_of_the_store() {
    let (mut edge, upstream) = (Edge::start(), shows_requests("app"));
    let rest = edge.rest();
    let vault = rest.create("/vaults", &json!({"name": "keys"}));
    let secret = json!({"name": "token", "value": "first", "vault_id": vault["id"]});
    let made = rest.create("/vault_secrets", &secret);
    let policy = "on_http_request:
  - expressions: [\"req.headers['x-token'][0] != secrets.get('keys', 'token')\"]
    actions: [{type: deny, config: {status_code: 401}}]
  - actions:
      - {type: add-headers, config: {headers: {x-key: \"${secrets.get('keys', 'token')}\"}}}
";
    let agent = agent::with_policy(&edge, &upstream, &[], policy);
    let mut visitor = agent.visit(&edge);
    assert_eq!(visitor.ask("GET", "/", "X-Token: other\r\n", b"").status(), 401);
    let passed = visitor.ask("GET", "/", "X-Token: first\r\n", b"");
    assert!(passed.text().contains("\r\nx-key: first\r\n"), "{}", passed.text());
    // Without the secret the rule has no value, and the text neither: nothing is forwarded.
    let path = format!("/vault_secrets/{}", made["id"].as_str().unwrap());
    rest.remove(&path);
    let refused = visitor.ask("GET", "/", "X-Token: first\r\n", b"");
    assert_eq!((refused.status(), code(&refused)), (500, Some("ERR_NGROK_2300")));
    let line = edge.process().wait_stderr("rule cannot decide");
    assert!(line.contains("on_http_request[0].expressions"), "{line}");
}

#[test]
fn the_place_of_an_action_that_fails_is_in_the_log_and_not_in_the_response() {
    let (mut edge, upstream) = (Edge::start(), Upstream::hello());
    let policy = "on_http_request:
  - actions: [{type: remove-headers, config: {headers: [x-a]}}]
  - name: tenant
    actions:
      - {type: remove-headers, config: {headers: [x-b]}}
      - {type: add-headers, config: {headers: {x-tenant: \"${getReqHeader('x-key')[0]}\"}}}
";
    let agent = agent::with_policy(&edge, &upstream, &[], policy);
    let mut visitor = agent.visit(&edge);
    for _ in 0..2 {
        let refused = visitor.get("/");
        assert_eq!((refused.status(), code(&refused)), (500, Some("ERR_NGROK_2300")));
        assert!(!refused.text().contains("actions["), "{}", refused.text());
    }
    let line = edge.process().wait_stderr("rule cannot decide");
    assert!(line.contains("on_http_request[1].actions[1]"), "{line}");
    assert!(line.contains("name=tenant") && line.contains("count=1"), "{line}");
    assert_eq!(edge.process().count_stderr("rule cannot decide"), 1, "once a minute");
}

#[test]
fn a_rule_with_a_secret_that_cannot_be_read_lets_nobody_pass() {
    let (edge, upstream) = (Edge::start(), shows_requests("app"));
    let rest = edge.rest();
    let vault = rest.create("/vaults", &json!({"name": "keys"}));
    let secret = json!({"name": "token", "value": "first", "vault_id": vault["id"]});
    rest.create("/vault_secrets", &secret);
    let guarded = |name: &str| {
        format!(
            "on_http_request:\n  - expressions: [\"!hasReqHeader('x-token') || \
             getReqHeader('x-token')[0] != secrets.get('keys', '{name}')\"]\n    actions: \
             [{{type: deny, config: {{status_code: 401}}}}]\n"
        )
    };
    let agent = agent::with_policy(&edge, &upstream, &[], &guarded("missing"));
    let refused = agent.visit(&edge).ask("GET", "/", "X-Token: first\r\n", b"");
    assert_eq!((refused.status(), code(&refused)), (500, Some("ERR_NGROK_2300")));
    drop(agent);

    // A credential with an ACL does not read what the operator has stored.
    let made = rest.create("/credentials", &json!({"acl": ["bind:*.localhost"]}));
    let dir = TempDir::new();
    let config = fs::read_to_string(&edge.config).unwrap();
    let config = config.replace(&edge.authtoken(), made["token"].as_str().unwrap());
    let config = dir.write("guest.yml", config);
    let file = dir.write("policy.yml", guarded("token")).display().to_string();
    let (address, url) = (upstream.addr.to_string(), "http://guest.localhost");
    let args = ["http", &address, "--url", url, "--traffic-policy-file", &file];
    let agent = agent::agent(&config, args).start();
    let refused = agent.visit(&edge).ask("GET", "/", "X-Token: first\r\n", b"");
    assert_eq!((refused.status(), code(&refused)), (500, Some("ERR_NGROK_2300")));
}

#[test]
fn a_nested_or_large_policy_is_refused_and_the_edge_goes_on() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let dir = TempDir::new();
    let nested = format!("on_http_request: {}1{}", "[".repeat(2_000), "]".repeat(2_000));
    let parentheses = format!(
        "on_http_request: [{{expressions: ['{}true{}'], actions: [{{type: deny}}]}}]",
        "(".repeat(1_500),
        ")".repeat(1_500)
    );
    let vars = format!(
        "on_http_request: [{{actions: [{{type: set-vars, config: {{vars: [{{a: {}1{}}}]}}}}]}}]",
        "[".repeat(50),
        "]".repeat(50)
    );
    for (policy, code) in [(nested, 2236), (parentheses, 2200), (vars, 2250)] {
        let file = dir.write("policy.yml", policy).display().to_string();
        let address = upstream.addr.to_string();
        // The agent checks the form of a file itself.
        let process =
            agent::agent(&edge.config, ["http", &address, "--traffic-policy-file", &file]).spawn();
        if code == 2236 {
            process.wait_stderr("is not valid YAML");
        } else {
            process.wait_stderr(&format!("(error {code})"));
        }
    }
    let plain = agent::agent(&edge.config, ["http", &upstream.addr.to_string()]).start();
    assert_eq!(plain.visit(&edge).get("/").text(), "GET / ");
}

#[test]
fn a_policy_is_changed_while_its_endpoint_is_online() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let (_agent, api) = api::idle_agent(&edge);
    let policy = |status: u16| {
        let rule = json!({"actions": [{"type": "deny", "config": {"status_code": status}}]});
        json!({ "on_http_request": [rule] }).to_string()
    };
    let made = api.create(
        "/api/endpoints",
        json!({"name": "e", "upstream": {"url": upstream.port()}, "traffic_policy": policy(410)}),
    );
    let url = made["url"].as_str().unwrap();
    let mut visitor = Visitor::connect(&edge, url);
    assert_eq!(visitor.get("/").status(), 410);
    let put = |policy: &str| {
        let mut changed = made.clone();
        changed["traffic_policy"] = json!(policy);
        api.call("PUT", "/api/endpoints/e", Some(changed))
    };
    let (status, value) = put(&policy(451));
    assert_eq!((status, &value["url"], &value["id"]), (200, &made["url"], &made["id"]), "{value}");
    // The visitor's connection lasts, and meets the new rules.
    assert_eq!(visitor.get("/").status(), 451);
    let (status, error) = put("on_http_request: [{actions: [{type: translate}]}]");
    assert!(status >= 400, "{error}");
    assert!(error.to_string().contains("translate"), "{error}");
    assert_eq!(visitor.get("/").status(), 451);
    assert_eq!(put("").0, 200);
    assert_eq!(visitor.get("/in").text(), "GET /in ");
}
