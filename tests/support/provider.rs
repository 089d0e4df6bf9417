//! An OpenID provider, which is a provider of OAuth too. Every browser is logged in as the same
//! person. Tests change what it returns.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use culvert::edge::jwt::base64url;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::upstream::Upstream;
use super::wire::Message;

/// A provider on loopback, over HTTP.
pub struct Provider {
    server: Upstream,
    key: Arc<Ed25519KeyPair>,
    state: Arc<Mutex<ProviderState>>,
}

#[derive(Default)]
struct ProviderState {
    issuer: String,
    /// Claims that differ from the valid ones.
    claims: Value,
    /// Nonce and challenge of each code.
    codes: HashMap<String, (String, String)>,
    requests: Vec<String>,
}

impl Provider {
    pub fn start() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = Arc::new(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap());
        let signs = Arc::clone(&key);
        let state = Arc::new(Mutex::new(ProviderState::default()));
        let shared = Arc::clone(&state);
        let server = Upstream::http(move |request, wire| {
            let mut state = shared.lock().unwrap();
            state.requests.push(request.target().to_owned());
            let (status, fields, body) = state.answer(request, &signs);
            drop(state);
            wire.respond(status, &fields, body.to_string().as_bytes())
        });
        state.lock().unwrap().issuer = format!("http://{}", server.addr);
        state.lock().unwrap().claims = json!({});
        Provider { server, key, state }
    }

    /// Returns the URL of its issuer.
    pub fn issuer(&self) -> String {
        format!("http://{}", self.server.addr)
    }

    /// Replaces claims of further ID tokens.
    pub fn claims(&self, changes: Value) {
        self.state.lock().unwrap().claims = changes;
    }

    /// Returns a token for the audience `api`, with changed claims.
    pub fn token(&self, header: &Value, changes: &Value) -> String {
        let mut claims = json!({"iss": self.issuer(), "aud": "api", "exp": now() + 300});
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        sign(header, &claims, &self.key)
    }

    /// Returns the targets of its requests.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }
}

impl ProviderState {
    fn answer(&mut self, request: &Message, key: &Ed25519KeyPair) -> (&'static str, String, Value) {
        let (path, query) = request.target().split_once('?').unwrap_or((request.target(), ""));
        let parameter = |text: &str, name: &str| {
            culvert::edge::login::flow::parameter(text, name).unwrap_or_default()
        };
        let issuer = &self.issuer;
        let ok = |body: Value| ("200 OK", "Content-Type: application/json\r\n".to_owned(), body);
        match path {
            "/.well-known/openid-configuration" => ok(json!({
                "issuer": issuer, "authorization_endpoint": format!("{issuer}/auth"),
                "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/jwks"),
                "userinfo_endpoint": format!("{issuer}/me")})),
            "/jwks" => {
                let x = base64url::encode(key.public_key().as_ref());
                ok(json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": x}]}))
            }
            // GitHub's path too.
            "/auth" | "/login/oauth/authorize" => {
                let code = format!("code-{}", self.codes.len());
                let login = (parameter(query, "nonce"), parameter(query, "code_challenge"));
                self.codes.insert(code.clone(), login);
                let location = format!(
                    "Location: {}?code={code}&state={}\r\n",
                    parameter(query, "redirect_uri"),
                    parameter(query, "state")
                );
                ("302 Found", location, Value::Null)
            }
            "/token" | "/login/oauth/access_token" => {
                let form = request.text();
                let login = self.codes.remove(&parameter(&form, "code"));
                let verifier = parameter(&form, "code_verifier");
                let challenge = base64url::encode(digest(&SHA256, verifier.as_bytes()).as_ref());
                match login {
                    Some((nonce, expected)) if expected == challenge => ok(json!({
                        "access_token": "access-1", "id_token": self.id_token(&nonce, key)})),
                    _ => ("400 Bad Request", String::new(), json!({"error": "invalid_grant"})),
                }
            }
            "/me" | "/user" => {
                assert_eq!(request.field("authorization"), Some("Bearer access-1"));
                ok(json!({"id": 42, "sub": "42", "email": "me@a.example", "name": "Me"}))
            }
            _ => ("404 Not Found", String::new(), Value::Null),
        }
    }

    fn id_token(&self, nonce: &str, key: &Ed25519KeyPair) -> String {
        let mut claims = json!({"iss": self.issuer, "aud": "client", "exp": now() + 300,
            "nonce": nonce, "sub": "42", "email": "me@a.example", "name": "Me"});
        claims.as_object_mut().unwrap().extend(self.claims.as_object().unwrap().clone());
        sign(&json!({"alg": "EdDSA", "kid": "1"}), &claims, key)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Returns a signed token.
pub fn sign(header: &Value, claims: &Value, key: &Ed25519KeyPair) -> String {
    let part = |value: &Value| base64url::encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(header), part(claims));
    format!("{signed}.{}", base64url::encode(key.sign(signed.as_bytes()).as_ref()))
}
