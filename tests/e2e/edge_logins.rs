//! `--oidc` and `--oauth` at the edge: a visitor logs in at a provider, and nothing else
//! lets it in.

use serde_json::json;

use crate::support::agent::{self, Agent};
use crate::support::edge::Edge;
use crate::support::provider::Provider;
use crate::support::serve::Serve;
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;
use crate::support::wait_for;
use crate::support::wire::{Message, Wire};

const SECRET: &str = "2hushhushHUSHhush";

/// An endpoint behind a login, with an upstream that returns the head of each request.
struct World {
    edge: Edge,
    agent: Agent,
    provider: Provider,
    _upstream: Upstream,
}

impl World {
    fn start(more: &[&str]) -> Self {
        let provider = Provider::start();
        let issuer = provider.issuer();
        let mut args = vec!["--oidc", &issuer, "--oidc-client-id", "client"];
        args.extend(["--oidc-client-secret", SECRET]);
        args.extend(more);
        let (edge, agent, upstream) = start(&args);
        World { edge, agent, provider, _upstream: upstream }
    }

    fn get(&self, target: &str, fields: &str) -> Message {
        self.agent.visit(&self.edge).ask("GET", target, fields, b"")
    }

    /// Begins a login. Returns the target of the provider's response, and the cookie.
    fn begin(&self, target: &str) -> (String, String) {
        let response = self.get(target, "");
        assert_eq!(response.status(), 302, "{}", response.text());
        let location = response.field("location").unwrap();
        let here = format!("{}/", self.provider.issuer());
        let at_provider = location.strip_prefix(&here).expect("a URL of the provider");
        let answer = get(&here[7..here.len() - 1], &format!("/{at_provider}"), "");
        let callback = answer.field("location").unwrap().to_owned();
        let here = format!("{}/ngrok/callback?", self.agent.url());
        assert!(callback.starts_with(&here), "{callback} is not below {here}");
        let target = callback[self.agent.url().len()..].to_owned();
        (target, cookie_of(&response))
    }

    /// Logs in. Returns the response of the endpoint.
    fn login(&self, target: &str) -> Message {
        let (callback, cookie) = self.begin(target);
        self.get(&callback, &format!("Cookie: {cookie}\r\n"))
    }

    /// Logs in. Returns the field with the cookie of the session.
    fn session(&self) -> String {
        let response = self.login("/");
        assert_eq!(response.status(), 302, "{}", response.text());
        format!("Cookie: {}\r\n", cookie_of(&response))
    }
}

fn start(args: &[&str]) -> (Edge, Agent, Upstream) {
    let upstream = Upstream::http(|request, wire| {
        let lines: Vec<String> =
            request.fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let body = format!("{}\n{}\n", request.first, lines.join("\n"));
        wire.respond("200 OK", "", body.as_bytes())
    });
    let edge = Edge::start();
    let port = upstream.port().to_string();
    let mut all = vec!["http", &port];
    all.extend(args);
    let agent = agent::agent(&edge.config, all).start();
    (edge, agent, upstream)
}

/// Sends a GET without an edge.
fn get(address: &str, target: &str, fields: &str) -> Message {
    let mut wire = Wire::connect(address.parse().unwrap()).unwrap();
    wire.write(format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n{fields}\r\n")).unwrap();
    wire.read_response("GET").unwrap()
}

fn cookie_of(response: &Message) -> String {
    let set = response.field("set-cookie").expect("a cookie");
    set.split(';').next().unwrap().to_owned()
}

#[test]
fn a_visitor_logs_in_and_the_upstream_knows_it() {
    let world = World::start(&[]);
    let response = world.login("/page?x=1");
    assert_eq!((response.status(), response.field("location")), (302, Some("/page?x=1")));
    let set = response.field("set-cookie").unwrap();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Lax"), "{set}");
    let cookie = format!("Cookie: {}\r\n", cookie_of(&response));
    let forged = "ngrok-auth-user-email: root@a.example\r\nNgrok-Auth-User-Id: 1\r\n";
    let page = world.get("/page?x=1", &format!("{cookie}{forged}")).text();
    assert!(page.starts_with("GET /page?x=1 "), "{page}");
    for line in ["ngrok-auth-user-id: 42", "ngrok-auth-user-email: me@a.example"] {
        assert!(page.contains(line), "{line} in {page}");
    }
    assert!(!page.contains("root@a.example") && !page.contains("Id: 1\n"), "{page}");
    // One document and one key set serve further logins.
    world.session();
    let fetched = world.provider.requests();
    assert_eq!(fetched.iter().filter(|target| *target == "/jwks").count(), 1, "{fetched:?}");
}

#[test]
fn nothing_but_a_session_reaches_the_upstream() {
    let world = World::start(&[]);
    let (callback, cookie) = world.begin("/");
    let cookie = format!("Cookie: {cookie}\r\n");
    for (target, fields) in [
        ("/", ""),
        ("/ngrok/callback", cookie.as_str()),
        ("/ngrok/callback?code=x&state=y", &cookie),
        (&callback, ""),
        (&callback.replace("state=", "state=A"), &cookie),
        ("/", &cookie.replace("nonce", "session")),
        ("/", "Cookie: ngrok.session=AAAA\r\n"),
        ("/ngrok/login", ""),
        ("/ngrok/logout", ""),
        ("//x/../ngrok/callback", ""),
    ] {
        let response = world.get(target, fields);
        assert!(!response.text().starts_with("GET "), "{target}: {}", response.text());
    }
    let used = world.get(&callback, &cookie);
    assert_eq!(used.status(), 302, "{}", used.text());
    // The provider accepts a code once.
    assert_eq!(world.get(&callback, &cookie).status(), 502);
    let mut visitor = world.agent.visit(&world.edge);
    let posted = visitor.ask("POST", "/form", "", b"body");
    assert_eq!(posted.status(), 302);
}

#[test]
fn tokens_of_the_provider_are_checked() {
    let world = World::start(&[]);
    for claims in [
        json!({"aud": "another"}),
        json!({"iss": "https://evil.example"}),
        json!({"nonce": "another"}),
        json!({"exp": 1_000_000}),
    ] {
        world.provider.claims(claims.clone());
        let response = world.login("/");
        assert_eq!(response.status(), 502, "{claims}: {}", response.text());
        assert!(response.field("set-cookie").is_none(), "{claims}");
    }
}

#[test]
fn a_login_returns_to_the_same_host() {
    let world = World::start(&[]);
    for target in [
        "/ngrok/login?redirect_path=https://evil.example/",
        "/ngrok/login?redirect_path=//evil.example/",
        "/ngrok/login?redirect_path=/%5Cevil.example/",
        "//evil.example/",
    ] {
        assert_eq!(world.login(target).field("location"), Some("/"), "{target}");
    }
    assert_eq!(world.login("/ngrok/login?redirect_path=/app").field("location"), Some("/app"));
}

#[test]
fn a_logout_ends_the_session_of_the_browser() {
    let world = World::start(&[]);
    let session = world.session();
    assert!(world.get("/", &session).text().starts_with("GET / "));
    let out = world.get("/ngrok/logout?redirect_path=//evil.example", &session);
    assert_eq!((out.status(), out.field("location")), (302, Some("/")));
    let removed = out.field("set-cookie").unwrap();
    assert!(removed.contains("session=;") && removed.contains("Max-Age=0"), "{removed}");
}

#[test]
fn a_session_outlives_the_edge() {
    let mut world = World::start(&[]);
    let session = world.session();
    world.edge.restart();
    wait_for("the endpoint is back with the session", || {
        world.get("/", &session).text().starts_with("GET / ")
    });
}

#[test]
fn over_tls_the_cookies_are_for_this_host_alone() {
    let world = World::start(&["--url", "https://secure.localhost"]);
    let session = world.session();
    assert!(session.contains("__Host-ngrok.session="), "{session}");
    assert!(world.get("/", &session).text().starts_with("GET / "));
}

/// Logs in by GitHub's name, with the client of the edge. Returns the response of the endpoint
/// and a request with a cookie.
fn login_by_name(args: &[&str], check: impl FnOnce(&Message, &dyn Fn(&str, &str) -> Message)) {
    let provider = Provider::start();
    let base = provider.issuer();
    let edge = Serve::start(&format!(
        "credentials: [{{id: a, authtoken: a_token}}]\nfetch: {{allow: [127.0.0.1]}}\n\
         oauth: {{github: {{client_id: edge, client_secret: {SECRET}, base_url: '{base}'}}}}\n"
    ));
    let upstream = Upstream::hello();
    let config = edge.config("agent.yml", "a_token");
    let port = upstream.port().to_string();
    let mut all = vec!["http", &port, "--url", "http://app.tunnels.test", "--oauth", "github"];
    all.extend(args);
    let _agent = agent::agent(&config, all).start();
    let address = edge.address("http_addr");
    let ask = |target: &str, cookie: &str| {
        let mut wire = Wire::connect(address).unwrap();
        let host = "app.tunnels.test";
        wire.write(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\n"))
            .unwrap();
        wire.read_response("GET").unwrap()
    };
    let first = ask("/x", "");
    let location = first.field("location").unwrap();
    let target = location.strip_prefix(&base).expect("a URL of the provider");
    assert!(target.contains("client_id=edge") && !target.contains(SECRET), "{target}");
    let answer = get(&base[7..], target, "");
    let callback = answer.field("location").unwrap();
    let target = callback.strip_prefix("http://app.tunnels.test").expect("the endpoint");
    check(&ask(target, &cookie_of(&first)), &ask);
}

#[test]
fn a_provider_of_oauth_by_name() {
    login_by_name(&["--oauth-allow-domain", "a.example"], |done, ask| {
        assert_eq!((done.status(), done.field("location")), (302, Some("/x")), "{}", done.text());
        assert!(ask("/x", &cookie_of(done)).text().starts_with("GET /x"));
    });
}

#[test]
fn other_accounts_get_a_page_with_the_way_out() {
    login_by_name(&["--oauth-allow-email", "you@a.example"], |done, ask| {
        assert_eq!((done.status(), done.field("ngrok-error-code")), (403, Some("ERR_NGROK_3403")));
        let page = done.text();
        assert!(page.contains("me@a.example") && page.contains("/ngrok/login"), "{page}");
        assert_eq!(ask("/x", "").status(), 302);
    });
}

#[test]
fn the_edge_does_not_reach_its_own_network_for_a_login() {
    let provider = Provider::start();
    let issuer = provider.issuer();
    let mut edge = Serve::start("credentials: [{id: a, authtoken: a_token}]\n");
    let upstream = Upstream::hello();
    let config = edge.config("agent.yml", "a_token");
    let port = upstream.port().to_string();
    let mut args = vec!["http", &port, "--url", "http://app.tunnels.test", "--oidc", &issuer];
    args.extend(["--oidc-client-id", "client", "--oidc-client-secret", SECRET]);
    let _agent = agent::agent(&config, args).start();
    let response = edge.visit("app.tunnels.test").read_response("GET").unwrap();
    assert_eq!(response.status(), 502);
    assert!(response.text().contains("may not connect"), "{}", response.text());
    assert!(!response.text().contains("127.0.0.1"), "{}", response.text());
    assert_eq!(provider.requests(), [""; 0]);
    edge.process().wait_stderr("fetch.allow");
}

#[test]
fn a_login_without_a_client_refuses_the_endpoint() {
    let edge = Edge::start();
    let agent = agent::agent(&edge.config, ["http", "80", "--oauth", "google"]).expect(0).spawn();
    let line = agent.wait_stderr("ERR_NGROK_384");
    assert!(line.contains("no application of its own at google"), "{line}");
}

#[test]
fn visitors_of_one_connection_log_in_each() {
    let world = World::start(&[]);
    let session = world.session();
    let mut visitor: Visitor = world.agent.visit(&world.edge);
    assert_eq!(visitor.ask("GET", "/", &session, b"").status(), 200);
    assert_eq!(visitor.ask("GET", "/", "", b"").status(), 302);
    assert_eq!(visitor.ask("GET", "/", &session, b"").status(), 200);
}
