//! Logins with a provider in memory: what a browser sees, and what an attacker may try.

use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::*;
use crate::edge::actions::action::tests::with_request;
use crate::edge::fetch::Fetch;
use crate::edge::token::{KEY_BYTES, TokenKey};
use crate::proto::secret::Secret;

/// Time of [`with_request`].
const NOW: u64 = 1_700_000_000;

/// A provider. Its responses can be changed.
#[derive(Debug)]
struct Provider {
    key: Ed25519KeyPair,
    /// Claims that differ from the valid ones.
    claims: Mutex<Value>,
    /// Profile.
    profile: Mutex<Value>,
    /// Nonce of the last login that a browser began.
    nonce: Mutex<String>,
    is_down: Mutex<bool>,
    requests: Mutex<Vec<String>>,
}

impl Fetch for Provider {
    fn fetch(&self, request: &FetchRequest<'_>) -> Result<FetchResponse, FetchError> {
        let body = request.body.map(|body| String::from_utf8_lossy(body).into_owned());
        self.requests.lock().push(format!("{} {}", request.url, body.unwrap_or_default()));
        assert!(request.trusted, "{}", request.url);
        if *self.is_down.lock() {
            return Err(FetchError::new(FetchErrorKind::Timeout, "secret address 10.0.0.1"));
        }
        let body = match request.url.strip_prefix("https://i.example").unwrap() {
            "/.well-known/openid-configuration" => json!({"issuer": "https://i.example",
                "authorization_endpoint": "https://i.example/auth",
                "token_endpoint": "https://i.example/token",
                "userinfo_endpoint": "https://i.example/me",
                "jwks_uri": "https://i.example/jwks"}),
            "/jwks" => {
                let x = base64url::encode(self.key.public_key().as_ref());
                json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": x}]})
            }
            "/token" => json!({"id_token": self.id_token(), "access_token": "access"}),
            "/me" => self.profile.lock().clone(),
            _ => json!({}),
        };
        let body = body.to_string().into_bytes();
        Ok(FetchResponse { status: 200, headers: Vec::new(), body, address: None })
    }
}

impl Provider {
    fn id_token(&self) -> String {
        let mut claims = json!({"iss": "https://i.example", "aud": "client", "exp": NOW + 300,
            "nonce": *self.nonce.lock(), "sub": "42", "email": "me@a.example", "name": "Me"});
        claims.as_object_mut().unwrap().extend(self.claims.lock().as_object().unwrap().clone());
        let part = |value: &Value| base64url::encode(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(&json!({"alg": "EdDSA", "kid": "1"})), part(&claims));
        format!("{signed}.{}", base64url::encode(self.key.sign(signed.as_bytes()).as_ref()))
    }
}

/// An endpoint with a login, and a browser.
struct World {
    provider: Arc<Provider>,
    services: LoginServices,
    gate: LoginGate,
    account: &'static str,
}

impl World {
    fn new() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let provider = Arc::new(Provider {
            key: Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap(),
            claims: Mutex::new(json!({})),
            profile: Mutex::new(json!({"sub": "42", "email": "new@a.example"})),
            nonce: Mutex::default(),
            is_down: Mutex::default(),
            requests: Mutex::default(),
        });
        let fetch = Arc::<Provider>::clone(&provider);
        let services = LoginServices::new(fetch, TokenKey::new(&[7; KEY_BYTES]));
        let config = LoginConfig {
            provider: LoginProvider::OpenId { issuer: "https://i.example/".into() },
            scopes: "openid".into(),
            auth_id: String::new(),
            parameters: Vec::new(),
            limits: SessionLimits { total: 1000, idle: 100 },
            refresh: None,
            allows_preflight: false,
            cookie_domain: None,
            allow_domains: Vec::new(),
            allow_emails: Vec::new(),
        };
        World { provider, services, gate: LoginGate { config }, account: "alice" }
    }

    /// Sends a request with cookies, `seconds` after the start.
    fn send(&self, line: &str, cookies: &[String], seconds: u64) -> LoginVerdict {
        let cookies = cookies.join("; ");
        let head = format!("{line} HTTP/1.1\r\nHost: a.example\r\nCookie: {cookies}\r\n\r\n");
        self.send_head(&head, seconds)
    }

    fn send_head(&self, head: &str, seconds: u64) -> LoginVerdict {
        let secret = Secret::new("secret");
        let client = LoginClient { id: "client", secret: &secret };
        with_request(head, |request| {
            let request = RequestInfo { unix_seconds: NOW + seconds, ..*request };
            self.gate.check(&self.services, self.account, client, &request)
        })
    }

    /// Begins a login at `line`. Returns the parameter `state` and the cookie.
    fn begin(&self, line: &str) -> (String, String) {
        let reply = reply(self.send(line, &[], 0));
        assert_eq!(reply.status, 302);
        let location = field(&reply, "Location");
        assert!(location.starts_with("https://i.example/auth?"), "{location}");
        let query = location.split_once('?').unwrap().1;
        *self.provider.nonce.lock() = flow::parameter(query, "nonce").unwrap();
        (flow::parameter(query, "state").unwrap(), cookie_of(&reply))
    }

    /// Logs in. Returns the response of the callback.
    fn login(&self, line: &str) -> Reply {
        let (state, nonce) = self.begin(line);
        reply(self.send(&callback(&state), &[nonce], 1))
    }

    /// Logs in. Returns the cookie of the session.
    fn session(&self) -> String {
        let reply = self.login("GET /");
        assert_eq!(reply.status, 302, "{}", reply.text);
        cookie_of(&reply)
    }
}

fn callback(state: &str) -> String {
    format!("GET /ngrok/callback?code=abc&state={state}")
}

fn reply(verdict: LoginVerdict) -> Reply {
    match verdict {
        LoginVerdict::Respond(reply) => reply,
        other => panic!("{other:?}"),
    }
}

fn admitted(verdict: LoginVerdict) -> AdmittedVisitor {
    match verdict {
        LoginVerdict::Admitted(visitor) => *visitor,
        other => panic!("{other:?}"),
    }
}

fn field<'a>(reply: &'a Reply, name: &str) -> &'a str {
    let found = reply.fields.iter().find(|(n, _)| *n == name);
    &found.unwrap_or_else(|| panic!("{name} in {reply:?}")).1
}

fn cookie_of(reply: &Reply) -> String {
    field(reply, "Set-Cookie").split(';').next().unwrap().to_owned()
}

#[test]
fn a_visitor_logs_in_and_returns_to_its_page() {
    let world = World::new();
    let reply = world.login("GET /page?x=1");
    assert_eq!((reply.status, field(&reply, "Location")), (302, "/page?x=1"));
    let cookie = cookie_of(&reply);
    assert!(cookie.starts_with("ngrok.session="), "{cookie}");
    assert!(!cookie.contains("a.example"), "{cookie}");
    let visitor = admitted(world.send("POST /form", &[cookie], 2));
    let identity = &visitor.session.identity;
    assert_eq!((identity.id.as_str(), identity.email.as_str()), ("42", "me@a.example"));
    assert_eq!(visitor.session.tokens.access, "access");
    let sent = world.provider.requests.lock();
    let exchange = sent.iter().find(|sent| sent.starts_with("https://i.example/token")).unwrap();
    for part in
        ["code=abc", "code_verifier=", "redirect_uri=http%3A%2F%2Fa.example%2Fngrok%2Fcallback"]
    {
        assert!(exchange.contains(part), "{part} in {exchange}");
    }
}

#[test]
fn only_pages_are_returned_to() {
    let world = World::new();
    for (line, path) in [
        ("POST /form", "/"),
        ("GET //evil.example/", "/"),
        ("GET /\\evil.example", "/"),
        ("GET /ngrok/login?redirect_path=https://evil.example", "/"),
        ("GET /ngrok/login?redirect_path=%2F%2Fevil.example", "/"),
        ("GET /ngrok/login?redirect_path=%2Fapp%3Fa", "/app?a"),
        ("GET /ngrok/login", "/"),
    ] {
        assert_eq!(field(&world.login(line), "Location"), path, "{line}");
    }
    let forced = reply(world.send("GET /ngrok/login", &[], 0));
    assert!(field(&forced, "Location").contains("prompt=login"));
}

#[test]
fn the_state_is_for_one_browser_one_login_and_ten_minutes() {
    let world = World::new();
    let (state, nonce) = world.begin("GET /");
    let (other_state, other_nonce) = world.begin("GET /");
    let status = |state: &str, cookies: &[String], seconds| {
        let reply = reply(world.send(&callback(state), cookies, seconds));
        (reply.status, reply.code)
    };
    assert_eq!(status("", std::slice::from_ref(&nonce), 1), (400, 3300));
    assert_eq!(status(&state[1..], std::slice::from_ref(&nonce), 1), (400, 3300));
    assert_eq!(status(&state, &[], 1), (400, 3302));
    assert_eq!(status(&state, std::slice::from_ref(&other_nonce), 1), (400, 3302));
    assert_eq!(status(&state, std::slice::from_ref(&nonce), 600), (400, 3301));
    // The ID token belongs to the other login.
    assert_eq!(status(&state, std::slice::from_ref(&nonce), 1), (502, 0));
    assert_eq!(status(&other_state, &[other_nonce], 1), (302, 0));
    let twice = format!("GET /ngrok/callback?code=a&state={state}&state={other_state}");
    assert_eq!(reply(world.send(&twice, &[nonce], 1)).code, 3300);
}

#[test]
fn several_tabs_log_in_at_once() {
    let world = World::new();
    let (_, nonce) = world.begin("GET /");
    let second = reply(world.send("GET /icon", std::slice::from_ref(&nonce), 0));
    assert_eq!(cookie_of(&second), nonce);
    let forged = reply(world.send("GET /", &["ngrok.nonce=short".to_owned()], 0));
    assert_ne!(cookie_of(&forged), "ngrok.nonce=short");
}

#[test]
fn a_session_is_for_one_host_account_and_client() {
    let world = World::new();
    let cookie = world.session();
    let head = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\n");
    assert!(matches!(world.send_head(&head("A.example:80"), 1), LoginVerdict::Admitted(_)));
    assert_eq!(reply(world.send_head(&head("b.example"), 1)).status, 302);
    let bob = World { account: "bob", ..World::new() };
    assert_eq!(reply(bob.send_head(&head("a.example"), 1)).status, 302);
    let mut other = World::new();
    other.gate.config.provider = LoginProvider::OpenId { issuer: "https://i.example/b".into() };
    assert!(!matches!(other.send_head(&head("a.example"), 1), LoginVerdict::Admitted(_)));
    // The cookie of a login under way is none of a session.
    let (state, nonce) = world.begin("GET /");
    for value in [state.as_str(), nonce.split_once('=').unwrap().1] {
        let cookie = format!("ngrok.session={value}");
        assert_eq!(reply(world.send("GET /", &[cookie], 1)).status, 302);
    }
}

#[test]
fn a_restart_of_the_edge_ends_no_session() {
    let world = World::new();
    let cookie = world.session();
    let restarted = World::new();
    assert!(matches!(restarted.send("GET /", &[cookie], 1), LoginVerdict::Admitted(_)));
}

#[test]
fn sessions_expire_and_are_renewed() {
    let world = World::new();
    let mut cookie = world.session();
    assert_eq!(reply(world.send("GET /", std::slice::from_ref(&cookie), 101)).status, 302);
    assert!(admitted(world.send("GET /", std::slice::from_ref(&cookie), 5)).cookie.is_none());
    for seconds in (50..1000).step_by(50) {
        let visitor = admitted(world.send("GET /", std::slice::from_ref(&cookie), seconds));
        let set = visitor.cookie.expect("a new time of use");
        cookie = set.split(';').next().unwrap().to_owned();
    }
    assert_eq!(reply(world.send("GET /", &[cookie], 1001)).status, 302);
}

#[test]
fn a_logout_removes_the_cookie() {
    let world = World::new();
    let out = reply(world.send("GET /ngrok/logout", &[world.session()], 1));
    assert_eq!(out.status, 200);
    assert!(field(&out, "Set-Cookie").starts_with("ngrok.session=; Path=/; Max-Age=0"));
    for (query, path) in [("%2Fbye", "/bye"), ("//evil.example", "/")] {
        let line = format!("GET /ngrok/logout?redirect_path={query}");
        let out = reply(world.send(&line, &[], 1));
        assert_eq!((out.status, field(&out, "Location")), (302, path));
    }
}

#[test]
fn tokens_that_are_not_valid_begin_no_session() {
    let world = World::new();
    for claims in [
        json!({"aud": "other"}),
        json!({"iss": "https://evil.example"}),
        json!({"exp": NOW - 61}),
        json!({"nonce": "other"}),
        json!({"sub": ""}),
    ] {
        *world.provider.claims.lock() = claims.clone();
        let reply = world.login("GET /");
        assert_eq!(reply.status, 502, "{claims}");
        assert!(reply.fields.iter().all(|(name, _)| *name != "Set-Cookie"), "{claims}");
    }
    *world.provider.claims.lock() = json!({});
    let (state, nonce) = world.begin("GET /");
    let mixed = format!("{}&iss=https://evil.example", callback(&state));
    assert_eq!(reply(world.send(&mixed, std::slice::from_ref(&nonce), 1)).status, 502);
    let denied = format!("GET /ngrok/callback?error=access_denied&state={state}");
    let refused = reply(world.send(&denied, std::slice::from_ref(&nonce), 1));
    assert!(refused.status == 403 && refused.text.contains("access_denied"), "{}", refused.text);
    let missing = format!("GET /ngrok/callback?state={state}");
    assert_eq!(reply(world.send(&missing, &[nonce], 1)).status, 400);
}

#[test]
fn only_allowed_accounts_are_admitted() {
    let mut world = World::new();
    world.gate.config.allow_domains = vec!["a.example".into()];
    let cookie = world.session();
    assert!(matches!(
        world.send("GET /", std::slice::from_ref(&cookie), 1),
        LoginVerdict::Admitted(_)
    ));
    // The list has changed since the login.
    world.gate.config.allow_domains = vec!["b.example".into()];
    let refused = reply(world.send("GET /", &[cookie], 1));
    assert_eq!((refused.status, refused.code), (403, 3403));
    let refused = world.login("GET /");
    assert!(refused.status == 403 && refused.text.contains("me@a.example"), "{}", refused.text);
    world.gate.config.allow_domains = vec!["a.example".into()];
    *world.provider.claims.lock() = json!({"email_verified": false});
    *world.provider.profile.lock() = json!({"sub": "42"});
    assert_eq!(world.login("GET /").status, 403, "an address that is not verified");
}

#[test]
fn the_profile_completes_the_token_of_the_same_account_only() {
    let world = World::new();
    *world.provider.claims.lock() = json!({"email": null});
    let cookie = world.session();
    let visitor = admitted(world.send("GET /", &[cookie], 1));
    assert_eq!(visitor.session.identity.email, "new@a.example");
    *world.provider.profile.lock() = json!({"sub": "43", "email": "evil@a.example"});
    assert_eq!(world.login("GET /").status, 502);
}

#[test]
fn the_identity_is_read_again_after_its_interval() {
    let mut world = World::new();
    world.gate.config.refresh = Some(10);
    let cookie = world.session();
    assert!(!admitted(world.send("GET /", std::slice::from_ref(&cookie), 5)).is_refreshed);
    let visitor = admitted(world.send("GET /", std::slice::from_ref(&cookie), 20));
    assert!(visitor.is_refreshed && visitor.cookie.is_some());
    assert_eq!(visitor.session.identity.email, "new@a.example");
    *world.provider.profile.lock() = json!({"sub": "43"});
    assert_eq!(reply(world.send("GET /", &[cookie], 20)).status, 302, "another account");
}

#[test]
fn a_provider_that_fails_is_described_without_its_addresses() {
    let world = World::new();
    *world.provider.is_down.lock() = true;
    let reply = reply(world.send("GET /", &[], 0));
    assert_eq!(reply.status, 504);
    assert!(reply.text.contains("did not respond in time"), "{}", reply.text);
    assert!(!reply.text.contains("10.0.0.1"), "{}", reply.text);
}

#[test]
fn preflight_requests_pass_if_configured() {
    let mut world = World::new();
    let head = "OPTIONS / HTTP/1.1\r\nHost: a.example\r\nOrigin: https://b.example\r\n\
                Access-Control-Request-Method: POST\r\n\r\n";
    assert_eq!(reply(world.send_head(head, 0)).status, 302);
    world.gate.config.allows_preflight = true;
    assert!(matches!(world.send_head(head, 0), LoginVerdict::Exempt));
    assert_eq!(reply(world.send("OPTIONS /", &[], 0)).status, 302);
    assert_eq!(reply(world.send_head(&head.replace("OPTIONS", "GET"), 0)).status, 302);
}

#[test]
fn a_cookie_of_a_domain_is_for_its_hosts() {
    let mut world = World::new();
    world.gate.config.cookie_domain = Some("example".into());
    let reply = world.login("GET /");
    assert!(field(&reply, "Set-Cookie").contains("; Domain=example"));
    let cookie = cookie_of(&reply);
    let head = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\n");
    assert!(matches!(world.send_head(&head("b.example"), 1), LoginVerdict::Admitted(_)));
    assert!(!matches!(world.send_head(&head("badexample"), 1), LoginVerdict::Admitted(_)));
}
