//! The Bind for the flags of an endpoint, byte for byte where the order matters (protocol 5.5,
//! 5.6).

use serde_json::{Value, json};

use crate::support::TempDir;
use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::peer::{AUTH, BIND, BadEdge, auth_response, bind_response};

/// Returns the Binds of an agent with these arguments.
fn binds(args: &[&str], expected: usize) -> Vec<Value> {
    let edge = BadEdge::new();
    let agent = edge.agent(args, "").expect(0).spawn();
    let mut session = edge.accept();
    let (stream, _) = session.wait_call(AUTH);
    session.answer(stream, &auth_response());
    let mut requests = Vec::new();
    for n in 0..expected {
        let (stream, request) = session.wait_call(BIND);
        let url = format!("https://{n}.example");
        session.answer(stream, &bind_response(&request, &format!("b{n}"), &url));
        requests.push(request);
    }
    // It accepts the response.
    agent.wait_stderr("tunnel session started");
    requests
}

fn bind(args: &[&str]) -> Value {
    binds(args, 1).remove(0)
}

/// Returns the options that differ from those of an endpoint without flags.
fn modules(args: &[&str]) -> Value {
    let mut opts = bind(args)["Opts"].take();
    let plain = bind(&args[..2])["Opts"].take();
    let opts = opts.as_object_mut().unwrap();
    for (key, value) in plain.as_object().unwrap() {
        if opts.get(key) == Some(value) {
            opts.remove(key);
        }
    }
    Value::Object(opts.clone())
}

#[test]
fn an_endpoint_that_asks_for_nothing() {
    let request = bind(&["http", "8080"]);
    assert_eq!(
        request["Opts"].to_string(),
        r#"{"URL":"","ProxyProto":0,"Hostname":"","Subdomain":"","Auth":"","HostHeaderRewrite":false,"LocalURLScheme":""}"#
    );
    assert_eq!(request["Proto"], "https");
    assert_eq!(request["ForwardsTo"], "http://localhost:8080");
    assert_eq!(request["Extra"]["Name"], "command_line");
}

#[test]
fn every_older_flag_of_http() {
    let dir = TempDir::new();
    let cas = dir.write("ca.pem", "-----BEGIN CERTIFICATE-----\n").display().to_string();
    for (args, expected) in [
        (
            &["--basic-auth=u:password1", "--basic-auth", "v:pass:word"][..],
            json!({"BasicAuth": {"credentials": [
                {"username": "u", "cleartext_password": "password1"},
                {"username": "v", "cleartext_password": "pass:word"}]}}),
        ),
        (&["--circuit-breaker=0.5"], json!({"CircuitBreaker": {"error_threshold": 0.5}})),
        (&["--compression"], json!({"Compression": {}})),
        (&["--compression=false"], json!({})),
        (
            &["--host-header=rewrite"],
            json!({"HostHeaderRewrite": true,
                   "RequestHeaders": {"add": ["host:localhost:8080"]}}),
        ),
        (&["--host-header=a.example"], json!({"RequestHeaders": {"add": ["host:a.example"]}})),
        (&["--host-header=preserve"], json!({})),
        (
            &["--cidr-allow=10.0.0.0/8,::/0", "--cidr-deny", "10.1.0.0/16"],
            json!({"IPRestriction": {"allow_cidrs": ["10.0.0.0/8", "::/0"],
                                     "deny_cidrs": ["10.1.0.0/16"]}}),
        ),
        (
            &["--request-header-add=x-a: b:c,d", "--request-header-remove", "x-b,x-c"],
            json!({"RequestHeaders": {"add": ["x-a:b:c,d"], "remove": ["x-b", "x-c"]}}),
        ),
        (
            &["--response-header-add=x-a:b", "--response-header-remove=x-b"],
            json!({"ResponseHeaders": {"add": ["x-a:b"], "remove": ["x-b"]}}),
        ),
        (
            &["--oauth=google", "--oauth-allow-domain=a,b", "--oauth-allow-email=c@d"],
            json!({"OAuth": {"provider": "google", "allow_emails": ["c@d"],
                             "allow_domains": ["a", "b"]}}),
        ),
        (
            &["--oauth=x", "--oauth-client-id=i", "--oauth-client-secret=s", "--oauth-scope=a,b"],
            json!({"OAuth": {"provider": "x", "client_id": "i", "client_secret": "s",
                             "scopes": ["a", "b"]}}),
        ),
        (
            &["--oidc=https://i", "--oidc-client-id=i", "--oidc-client-secret=s", "--oidc-scope=a"],
            json!({"OIDC": {"issuer_url": "https://i", "client_id": "i", "client_secret": "s",
                            "scopes": ["a"]}}),
        ),
        (
            &["--ua-filter-allow=(?i)a,b", "--ua-filter-deny=c"],
            json!({"UserAgentFilter": {"allow": ["(?i)a,b"], "deny": ["c"]}}),
        ),
        (
            &["--verify-webhook=github", "--verify-webhook-secret=s"],
            json!({"WebhookVerification": {"provider": "github", "secret": "s"}}),
        ),
        (&["--websocket-tcp-converter"], json!({"WebsocketTCPConverter": {}})),
        (
            &["--mutual-tls-cas", &cas],
            json!({"MutualTLSCA": {"mutual_tls_ca": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg=="}}),
        ),
        (&["--proxy-proto=1"], json!({"ProxyProto": 1})),
        (&["--upstream-proxy-protocol=2", "--proxy-proto=1"], json!({"ProxyProto": 2})),
    ] {
        let args = [&["http", "8080"], args].concat();
        assert_eq!(modules(&args), expected, "{args:?}");
    }
}

#[test]
fn names_in_all_their_forms() {
    for (args, proto, key, value) in [
        (&["http", "80", "--url=a.example"][..], "https", "URL", "a.example"),
        (&["http", "80", "--url=http://"], "http", "URL", "http://"),
        (&["http", "80", "--url=HTTP://a.example"], "http", "URL", "http://a.example"),
        (&["http", "80", "--domain=a.example"], "https", "URL", "a.example"),
        (&["http", "80", "--domain=a.example", "--scheme=http"], "http", "URL", "http://a.example"),
        (&["http", "80", "--scheme=http"], "http", "URL", "http://"),
        (&["http", "80", "--hostname=a.example"], "https", "Hostname", "a.example"),
        (
            &["http", "80", "--hostname=a.example", "--scheme", "http"],
            "http",
            "Hostname",
            "a.example",
        ),
        (&["http", "80", "--subdomain=a"], "https", "Subdomain", "a"),
        (&["tls", "443", "--domain=a.example"], "tls", "URL", "a.example"),
        (&["tls", "443", "--subdomain=a"], "tls", "Subdomain", "a"),
        (&["tcp", "22", "--url=tcp://h.example:1"], "tcp", "URL", "tcp://h.example:1"),
        (&["tcp", "22", "--remote-addr=h.example:1"], "tcp", "Addr", "h.example:1"),
    ] {
        let request = bind(args);
        assert_eq!(request["Proto"], proto, "{args:?}");
        assert_eq!(request["Opts"][key], value, "{args:?}");
        let names = ["URL", "Hostname", "Subdomain", "Addr"];
        let given =
            names.iter().filter(|k| request["Opts"][**k].as_str().is_some_and(|v| !v.is_empty()));
        assert_eq!(given.count(), 1, "never two (9021): {request}");
    }
}

#[test]
fn two_schemes_are_two_endpoints() {
    let schemes = ["--scheme=http", "--scheme=https"];
    let requests = binds(&["http", "80", "--domain=a.example", schemes[0], schemes[1]], 2);
    let [https, http] = &requests[..] else { panic!("two") };
    assert_eq!(
        (&https["Proto"], &https["Extra"]["Name"]),
        (&json!("https"), &json!("command_line"))
    );
    assert_eq!(https["Opts"]["URL"], "https://a.example");
    assert_eq!(
        (&http["Proto"], &http["Extra"]["Name"]),
        (&json!("http"), &json!("command_line (http)"))
    );
    assert_eq!(http["Opts"]["URL"], "http://a.example");
    let requests = binds(&["http", "80", "--name=web", "--scheme=https,http"], 2);
    assert_eq!(requests[1]["Extra"]["Name"], "web (http)");
}

#[test]
fn what_is_for_display_and_what_the_upstream_speaks() {
    let request = bind(&[
        "http",
        "80",
        "--name=web",
        "--description=d e",
        "--metadata=m",
        "--binding=internal",
        "--url=https://a.internal:99",
        "--pooling-enabled",
        "--app-protocol=http2",
    ]);
    assert_eq!(request["ForwardsProto"], "http2");
    let extra = &request["Extra"];
    for (key, value) in [
        ("Name", json!("web")),
        ("Description", json!("d e")),
        ("Metadata", json!("m")),
        ("Bindings", json!(["internal"])),
        ("PoolingEnabled", json!(true)),
    ] {
        assert_eq!(extra[key], value, "{key}");
    }
}

#[test]
fn policies_from_files_and_from_the_web() {
    let dir = TempDir::new();
    let text = "on_http_request:\n  - actions: [{type: deny}] # kept as it is\n";
    let file = dir.write("policy.yml", text).display().to_string();
    for flag in ["--traffic-policy-file", "--policy-file"] {
        assert_eq!(modules(&["http", "80", flag, &file]), json!({"TrafficPolicy": text}));
    }
    let server = crate::support::upstream::Upstream::http(move |_, wire| {
        wire.respond("200 OK", "", text.as_bytes())
    });
    let url = format!("http://127.0.0.1:{}/policy.yml", server.port());
    let args = ["tcp", "22", "--traffic-policy-url", &url];
    assert_eq!(modules(&args), json!({"TrafficPolicy": text}));
}

#[cfg(feature = "visitor-tls")]
#[test]
fn where_tls_ends() {
    let (dir, authority) = (TempDir::new(), crate::support::certs::Authority::new());
    let (certificate, key) = authority.pair(&["a.example"]);
    let write = |name: &str, text: &str| dir.write(name, text).display().to_string();
    let (crt, key, cas) =
        (write("c.pem", &certificate), write("k.pem", &key), write("a.pem", authority.pem()));
    let own = ["--crt", &crt, "--key", &key];
    let with = |more: &[&str]| modules(&[&["tls", "443"], &own[..], more].concat());
    for more in [&[][..], &["--terminate-at=edge"]] {
        let opts = with(more);
        let keys: Vec<_> = opts["TLSTermination"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["cert", "key"], "{more:?}");
        assert_eq!(opts.as_object().unwrap().len(), 1, "{opts}");
    }
    assert_eq!(with(&["--terminate-at=agent"]), json!({}), "the key stays at home");
    let opts = with(&["--terminate-at=agent", "--mutual-tls-cas", &cas]);
    assert_eq!(opts, json!({"MutualTLSAtAgent": true}));
    let opts = with(&["--mutual-tls-cas", &cas]);
    assert!(opts["MutualTLSAtEdge"]["mutual_tls_ca"].is_string(), "{opts}");
    assert_eq!(modules(&["tls", "443", "--terminate-at=edge"]), json!({"TLSTermination": {}}));
    assert_eq!(modules(&["tls", "443", "--terminate-at=upstream"]), json!({}));
}

#[test]
fn the_session_has_a_text_of_its_own() {
    for (args, expected) in [
        (&["--metadata", "s", "http", "80", "--metadata", "e"][..], "s"),
        (&["start", "--none", "--metadata=s"], "s"),
        (&["http", "80", "--metadata", "e"], ""),
    ] {
        let edge = BadEdge::new();
        let _agent = edge.agent(args, "").expect(0).spawn();
        let (_, request) = edge.accept().wait_call(AUTH);
        assert_eq!(request["Extra"]["Metadata"], expected, "{args:?}");
    }
}

#[test]
fn labels_instead_of_a_url() {
    let edge = BadEdge::new();
    let args = ["tunnel", "8080", "--label", "edge=e1", "--label=a=b", "--metadata=m"];
    let agent = edge.agent(&args, "").expect(0).spawn();
    let mut session = edge.accept();
    let (stream, _) = session.wait_call(AUTH);
    session.answer(stream, &auth_response());
    let (stream, request) = session.wait_call(7);
    assert_eq!(request["Labels"], json!({"edge": "e1", "a": "b"}));
    assert_eq!(request["ForwardsTo"], "http://localhost:8080");
    assert_eq!(request["Metadata"], "m");
    session.answer(stream, &json!({"Id": "t1", "Error": ""}));
    agent.wait_stderr("tunnel session started");
}

/// What our edge refuses is named as it was typed, with advice that works there.
#[test]
fn a_refused_option_is_named_as_it_was_typed() {
    let edge = Edge::start();
    let tunnels = "tunnels:\n  web: {proto: http, addr: 80, oauth: {provider: google}}\n";
    let file = edge.config_with(tunnels);
    for (config, args, words) in [
        (&edge.config, &["http", "80", "--oauth", "google"][..], &["--oauth-client-id"][..]),
        (&file, &["start", "web"], &["endpoint 'web': ", "oauth.client_id"]),
        (&edge.config, &["http", "80", "--upstream-protocol=http2"], &["--upstream-protocol"]),
        (&edge.config, &["http", "80", "--binding=kubernetes", "--url=http://a.b"], &["--binding"]),
        (&edge.config, &["tunnel", "80", "--label", "edge=e1"], &["--label", "URL instead"]),
    ] {
        let mut agent = agent::agent(config, args).spawn();
        assert_eq!(agent.wait_exit(), Some(1));
        let text = agent.stderr();
        for word in words.iter().chain(&["ERR_NGROK_", "docs/reference/errors.md"]) {
            assert!(text.contains(word), "no {word:?} in {text}");
        }
        // No advice that this edge refuses, and no page of another service.
        assert!(!text.contains("policy") && !text.contains("ngrok.com"), "{text}");
    }
}
