//! Actions of traffic policies that depend on another server: `openid-connect`, `oauth`,
//! `jwt-validation` and `http-request`.

use serde_json::json;

use crate::support::TempDir;
use crate::support::agent::{self, Agent};
use crate::support::edge::Edge;
use crate::support::provider::Provider;
use crate::support::serve::Serve;
use crate::support::upstream::Upstream;
use crate::support::wire::{Message, Wire};

/// An HTTP endpoint with this policy.
fn start(edge: &Edge, upstream: &Upstream, policy: &str) -> Agent {
    let dir = TempDir::new();
    let file = dir.write("policy.yml", policy).display().to_string();
    let address = upstream.addr.to_string();
    agent::agent(&edge.config, ["http", &address, "--traffic-policy-file", &file]).start()
}

fn shows_requests() -> Upstream {
    Upstream::http(|request, wire| {
        let line = |(name, value): &(String, String)| format!("\n{name}: {value}");
        let fields = request.fields.iter().map(line).collect::<String>();
        let body = format!("{}{fields}\n{}", request.first, request.text());
        wire.respond("200 OK", "", body.as_bytes())
    })
}

fn result(response: &Message) -> (u16, Option<&str>) {
    (response.status(), response.field("ngrok-error-code"))
}

fn jwt_policy(provider: &Provider, token: &str) -> String {
    let issuer = provider.issuer();
    format!(
        "on_http_request:
  - actions:
      - type: jwt-validation
        config:
          issuer: {{allow_list: [{{value: '{issuer}'}}]}}
          audience: {{allow_list: [{{value: api}}]}}
          http: {{tokens: [{token}]}}
          jws:
            allowed_algorithms: [RS256, EdDSA]
            keys: {{sources: {{additional_jkus: ['{issuer}/jwks']}}}}
  - expressions: [\"actions.ngrok.jwt_validation.tokens[0].payload.iss == '{issuer}'\"]
    actions:
      - type: add-headers
        config: {{headers: {{x-by: '${{actions.ngrok.jwt_validation.tokens[0].header.kid}}'}}}}
"
    )
}

#[test]
fn a_request_needs_a_token_of_the_issuer() {
    let (edge, upstream, provider) = (Edge::start(), shows_requests(), Provider::start());
    let place = "{type: jwt, method: header, name: Authorization, prefix: 'Bearer '}";
    let agent = start(&edge, &upstream, &jwt_policy(&provider, place));
    let header = json!({"alg": "EdDSA", "kid": "1"});
    let ask = |fields: &str| agent.visit(&edge).ask("GET", "/", fields, b"");
    let bearer = |token: &str| ask(&format!("Authorization: Bearer {token}\r\n"));
    let good = provider.token(&header, &json!({}));
    let page = bearer(&good).text();
    assert!(page.starts_with("GET / ") && page.contains("\nx-by: 1\n"), "{page}");
    assert!(ask(&format!("authorization: bearer {good}\r\n")).text().starts_with("GET / "));
    assert_eq!(result(&ask("")), (401, Some("ERR_NGROK_3408")));
    assert_eq!(result(&ask("Authorization: Basic x\r\n")), (401, Some("ERR_NGROK_3413")));
    let unsigned = good.rsplit_once('.').unwrap().0.to_owned() + ".";
    for bad in [
        provider.token(&header, &json!({"aud": "other"})),
        provider.token(&header, &json!({"aud": null})),
        provider.token(&header, &json!({"iss": "https://evil.example"})),
        provider.token(&header, &json!({"exp": 1_000_000})),
        provider.token(&header, &json!({"nbf": 99_999_999_999_u64})),
        provider.token(&json!({"alg": "none"}), &json!({})),
        provider.token(&json!({"alg": "EdDSA", "kid": "2"}), &json!({})),
        provider.token(&json!({"alg": "ES256", "kid": "1"}), &json!({})),
        unsigned,
        "x.y.z".to_owned(),
    ] {
        let response = bearer(&bad);
        assert_eq!(result(&response), (401, Some("ERR_NGROK_3401")), "{bad}");
        assert!(response.field("www-authenticate").unwrap().contains("invalid_token"));
    }
    let twice = format!("Authorization: Bearer {good}\r\nAuthorization: Bearer x\r\n");
    assert_eq!(result(&ask(&twice)), (401, Some("ERR_NGROK_3401")));
    let fetched = provider.requests();
    assert_eq!(fetched, ["/jwks"], "keys are kept");
}

#[test]
fn a_token_may_be_in_the_body() {
    let (edge, upstream, provider) = (Edge::start(), shows_requests(), Provider::start());
    let place = "{type: id_token, method: body, name: id_token}";
    let agent = start(&edge, &upstream, &jwt_policy(&provider, place));
    let token = provider.token(&json!({"alg": "EdDSA", "kid": "1"}), &json!({}));
    let ask = |method: &str, kind: &str, body: &str| {
        let fields = format!("Content-Type: {kind}\r\n");
        agent.visit(&edge).ask(method, "/", &fields, body.as_bytes())
    };
    let form = "application/x-www-form-urlencoded";
    for (kind, body) in [
        ("application/json; charset=utf-8", json!({"ID_token": token}).to_string()),
        (form, format!("a=b&id_token={token}&c")),
    ] {
        let response = ask("POST", kind, &body);
        assert!(response.text().ends_with(&body), "the body goes on: {}", response.text());
    }
    for (method, kind, body, code) in [
        ("GET", form, String::new(), "ERR_NGROK_3415"),
        ("POST", form, "a=b".to_owned(), "ERR_NGROK_3406"),
        ("POST", form, format!("id_token={token}&id_token=x"), "ERR_NGROK_3406"),
        ("POST", "application/json", "{".to_owned(), "ERR_NGROK_3411"),
        ("POST", "text/plain", token.clone(), "ERR_NGROK_3414"),
        ("POST", form, "id_token=x".to_owned(), "ERR_NGROK_3401"),
    ] {
        assert_eq!(result(&ask(method, kind, &body)), (401, Some(code)), "{method} {kind} {body}");
    }
    let long = format!("id_token={}", "x".repeat(70_000));
    assert_eq!(ask("POST", form, &long).status(), 413);
}

#[test]
fn a_login_by_a_policy() {
    let (edge, upstream, provider) = (Edge::start(), shows_requests(), Provider::start());
    let policy = format!(
        "on_http_request:
  - actions:
      - type: openid-connect
        config:
          issuer_url: '{}'
          client_id: client
          client_secret: 2hushhushHUSHhush
          authz_url_params: {{hd: a.example}}
          allow_cors_preflight: true
  # A preflight request has no identity.
  - expressions: [has(actions.ngrok.oidc.identity)]
    actions:
      - type: add-headers
        config: {{headers: {{x-mail: '${{actions.ngrok.oidc.identity.email}}'}}}}
",
        provider.issuer()
    );
    let agent = start(&edge, &upstream, &policy);
    let ask = |target: &str, fields: &str| agent.visit(&edge).ask("GET", target, fields, b"");
    let first = ask("/x", "");
    assert_eq!(first.status(), 302);
    let location = first.field("location").unwrap();
    assert!(location.contains("&hd=a.example"), "{location}");
    let target = location.strip_prefix(&provider.issuer()).unwrap();
    let mut wire = Wire::connect(provider.issuer()[7..].parse().unwrap()).unwrap();
    wire.write(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")).unwrap();
    let answer = wire.read_response("GET").unwrap();
    let callback = answer.field("location").unwrap().strip_prefix(agent.url()).unwrap().to_owned();
    let cookie = |response: &Message| {
        let set = response.field("set-cookie").unwrap();
        format!("Cookie: {}\r\n", set.split(';').next().unwrap())
    };
    let done = ask(&callback, &cookie(&first));
    assert_eq!((done.status(), done.field("location")), (302, Some("/x")), "{}", done.text());
    let page = ask("/x", &cookie(&done)).text();
    for line in ["x-mail: me@a.example", "ngrok-auth-user-email: me@a.example"] {
        assert!(page.contains(line), "{line} in {page}");
    }
    let preflight = "Origin: https://b.example\r\nAccess-Control-Request-Method: PUT\r\n\
                     ngrok-auth-user-email: forged@a.example\r\n";
    let page = agent.visit(&edge).ask("OPTIONS", "/x", preflight, b"").text();
    assert!(page.starts_with("OPTIONS /x ") && !page.contains("forged"), "{page}");
}

#[test]
fn a_policy_sends_requests() {
    let (edge, upstream) = (Edge::start(), shows_requests());
    let policy = |config: &str| {
        format!(
            "on_http_request:
  - actions:
      - type: http-request
        config: {{{config}}}
      - type: add-headers
        config:
          headers:
            x-status: '${{has(actions.ngrok.http_request.res) ?
              string(actions.ngrok.http_request.res.status_code) : \"none\"}}'
"
        )
    };
    let counted = Upstream::http(|request, wire| {
        let is_post = request.method() == "POST" && request.text() == "hello";
        let has_query = request.target() == "/hook?b=1&a%20c=d%26";
        let has_header = request.field("x-key") == Some("k");
        let has_client = request.field("x-forwarded-for") == Some("127.0.0.1");
        let good = is_post && has_query && has_header && has_client;
        wire.respond(if good { "200 OK" } else { "400 Bad Request" }, "", b"")
    });
    let agent = start(
        &edge,
        &upstream,
        &policy(&format!(
            "url: 'http://{}/hook?b=1', method: POST, body: hello, on_error: halt, \
             headers: {{x-key: k}}, query_params: [{{key: a c, value: d&}}]",
            counted.addr
        )),
    );
    let page = agent.visit(&edge).get("/").text();
    assert!(page.contains("\nx-status: 200"), "{page}");
    assert_eq!(counted.accepted(), 1);
    // Nothing listens there.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (on_error, status) in [("halt", 502), ("continue", 200)] {
        let url = format!("url: 'http://{gone}/', on_error: {on_error}");
        let agent = start(&edge, &upstream, &policy(&url));
        assert_eq!(agent.visit(&edge).get("/").status(), status, "{on_error}");
    }
}

#[test]
fn a_policy_does_not_reach_the_network_of_the_edge() {
    let provider = Provider::start();
    let mut edge = Serve::start("credentials: [{id: a, authtoken: a_token}]\n");
    let upstream = Upstream::hello();
    let config = edge.config("agent.yml", "a_token");
    let port = upstream.port().to_string();
    let place = "{type: jwt, method: header, name: Authorization}";
    let token = provider.token(&json!({"alg": "EdDSA", "kid": "1"}), &json!({}));
    let request = format!(
        "on_http_request:\n  - actions:\n      - type: http-request\n        config: {{url: '{}/x', \
         on_error: halt}}\n",
        provider.issuer()
    );
    for (host, policy) in [("jwt", jwt_policy(&provider, place)), ("request", request)] {
        let file = edge.write("policy.yml", policy).display().to_string();
        let url = format!("http://{host}.tunnels.test");
        let args = ["http", &port, "--url", &url, "--traffic-policy-file", &file];
        let _agent = agent::agent(&config, args).start();
        let mut wire = Wire::connect(edge.address("http_addr")).unwrap();
        let head = format!(
            "GET / HTTP/1.1\r\nHost: {host}.tunnels.test\r\nAuthorization: {token}\r\n\r\n"
        );
        wire.write(head).unwrap();
        let response = wire.read_response("GET").unwrap();
        assert_eq!(response.status(), 502, "{host}: {}", response.text());
        assert!(!response.text().contains("127.0.0.1"), "{}", response.text());
    }
    assert_eq!(provider.requests(), [""; 0]);
    edge.process().wait_stderr("cannot fetch keys");
}

#[test]
fn a_cookie_is_not_for_a_domain_with_hosts_of_others() {
    let edge = Serve::start(
        "domains: [a.example.com, b.example.com, c.example.org]\n\
         credentials:\n  - {id: one, authtoken: one_0123456789abcdefghij, domains: [a.example.com, \
         c.example.org]}\n  - {id: two, authtoken: two_0123456789abcdefghij}\n",
    );
    let config = edge.config("agent.yml", "one_0123456789abcdefghij");
    let policy = |domain: &str| {
        let login = "provider: google, client_id: c, client_secret: hush";
        let config = format!("{{{login}, auth_cookie_domain: {domain}}}");
        let text = format!("on_http_request: [{{actions: [{{type: oauth, config: {config}}}]}}]\n");
        edge.write("policy.yml", text).display().to_string()
    };
    let start = |host: &str, file: &str| {
        let url = format!("http://{host}");
        agent::agent(&config, ["http", "80", "--url", &url, "--traffic-policy-file", file])
    };
    let refused = start("a.example.com", &policy("example.com")).expect(0).spawn();
    let line = refused.wait_stderr("ERR_NGROK_9026");
    assert!(line.contains("is a domain of several accounts"), "{line}");
    start("c.example.org", &policy("example.org")).start();
}

#[test]
fn configurations_that_are_not_valid_refuse_the_endpoint() {
    let edge = Edge::start();
    let refused = |phase: &str, action: &str, config: &str, says: &str| {
        let dir = TempDir::new();
        let policy =
            format!("{phase}:\n  - actions:\n      - {{type: {action}, config: {config}}}\n");
        let file = dir.write("policy.yml", policy).display().to_string();
        let args = ["http", "80", "--traffic-policy-file", &file];
        let agent = agent::agent(&edge.config, args).expect(0).spawn();
        let line = agent.wait_stderr("ERR_NGROK_9026");
        assert!(line.contains(says), "{action} {config}: {line}");
        assert!(!line.contains("hush"), "{line}");
    };
    let request = "on_http_request";
    refused(request, "openid-connect", "{}", "issuer_url");
    refused(request, "openid-connect", "{issuer_url: x, client_id: c}", "https://");
    refused(request, "openid-connect", "{issuer_url: 'https://i.example'}", "client_id");
    refused(request, "oauth", "{provider: goggle}", "is not known");
    refused(request, "oauth", "{provider: google}", "add a client to oauth in edge.yml");
    let login = "{provider: google, client_id: c, client_secret: hush, ";
    refused(request, "oauth", &format!("{login}auth_cookie_domain: localhost}}"), "domain");
    refused(request, "oauth", &format!("{login}authz_url_params: {{state: x}}}}"), "state");
    refused(request, "oauth", &format!("{login}max_session_duration: 1000d}}"), "duration");
    refused(request, "oauth", &format!("{login}colour: red}}"), "colour");
    refused(request, "jwt-validation", "{}", "issuer");
    let jwt = "{issuer: {allow_list: [{value: a}]}, http: {tokens: [{type: jwt, method: header, \
               name: Authorization}]}, jws: {keys: {sources: {additional_jkus: ['https://a']}}, \
               allowed_algorithms: ";
    for bad in ["[none]}}", "[HS256]}}", "[rs256]}}", "[]}}"] {
        refused(request, "jwt-validation", &format!("{jwt}{bad}"), "allowed_algorithms");
    }
    refused(request, "http-request", "{url: 'file:///etc/passwd'}", "http://");
    refused(request, "http-request", "{url: 'http://*.internal/'}", "internal");
    refused(request, "http-request", "{url: 'http://a', retry_condition: 'attempts <'}", "retry");
    refused(request, "http-request", "{url: 'http://a', retry_condition: 'tries < 2'}", "tries");
    refused(request, "http-request", "{url: 'http://a', headers: {connection: a}}", "connection");
    refused(request, "http-request", "{url: 'http://a', timeout: 31s}", "timeout");
    refused(request, "http-request", "{url: 'http://a', max_redirects: 6}", "max_redirects");
    refused("on_tcp_connect", "http-request", "{url: 'http://a'}", "on_http_request");
}
