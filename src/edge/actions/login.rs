//! `OAuth` and `OIDC`: a login of the visitor at a provider. The flow is in
//! [`crate::edge::login`]; this file has the options, and what an admitted request gets.

use std::sync::Arc;

use serde_json::Value;

use super::action::{ActionError, Flow, RequestAction, RequestInfo};
use super::edits::{HeaderEdits, HeaderLine};
use crate::config::modules::{Modules, SignIn};
use crate::edge::login::clients::{self, OAuthClient};
use crate::edge::login::flow::LoginClient;
use crate::edge::login::gate::{AdmittedVisitor, LoginConfig};
use crate::edge::login::provider::LoginProvider;
use crate::edge::login::providers::{self, PROVIDERS};
use crate::edge::login::session::SessionLimits;
use crate::edge::login::{LoginGate, LoginServices, LoginVerdict};
use crate::net::url::Url;
use crate::proto::codes::Refusal;
use crate::proto::secret::Secret;

/// Lifetime of sessions without a configured one.
pub const DEFAULT_LIMITS: SessionLimits =
    SessionLimits { total: 14 * 24 * 3600, idle: 7 * 24 * 3600 };

/// Scopes of an OpenID login.
pub const OPENID_SCOPES: &str = "openid profile email";

/// Headers with the identity for the upstream. Those of the visitor are removed.
const IDENTITY_HEADERS: [&str; 3] =
    ["ngrok-auth-user-id", "ngrok-auth-user-email", "ngrok-auth-user-name"];

/// Bounds of the options.
const MAX_ENTRIES: usize = 1000;
const MAX_TEXT_BYTES: usize = 1024;

/// What the options of a login depend on.
#[derive(Clone, Copy, Debug)]
pub struct LoginContext<'a> {
    /// Account of the endpoint.
    pub account: &'a str,
    /// Services of the edge.
    pub services: &'a Arc<LoginServices>,
    /// Clients of the edge.
    pub clients: &'a [OAuthClient],
}

/// Admits visitors that have logged in.
#[derive(Debug)]
pub struct LoginAction {
    gate: LoginGate,
    services: Arc<LoginServices>,
    account: String,
    client_id: String,
    client_secret: Secret,
}

impl RequestAction for LoginAction {
    fn run(&self, request: &RequestInfo<'_>, edits: &mut HeaderEdits) -> Result<Flow, ActionError> {
        let client = LoginClient { id: &self.client_id, secret: &self.client_secret };
        let verdict = self.gate.check(&self.services, &self.account, client, request);
        Ok(match verdict {
            LoginVerdict::Respond(reply) => Flow::Respond(reply),
            LoginVerdict::Exempt => {
                mark(edits, None);
                Flow::Continue
            }
            LoginVerdict::Admitted(visitor) => {
                mark(edits, Some(&visitor));
                Flow::Continue
            }
        })
    }
}

/// Replaces the headers with the identity, and renews the cookie in the response.
pub fn mark(edits: &mut HeaderEdits, visitor: Option<&AdmittedVisitor>) {
    for name in IDENTITY_HEADERS {
        edits.remove(&name.into());
    }
    let Some(visitor) = visitor else { return };
    let identity = &visitor.session.identity;
    let values = [&identity.id, &identity.email, &identity.name];
    for (name, value) in IDENTITY_HEADERS.into_iter().zip(values) {
        // Anything else could end the line.
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        if !value.is_empty() {
            edits.add(&HeaderLine { name: name.into(), value: value.into() });
        }
    }
    if let Some(cookie) = &visitor.cookie {
        let (name, value) = ("Set-Cookie".into(), cookie.as_str().into());
        edits.add_to_response(HeaderLine { name, value });
    }
}

/// Reads the option `OAuth` (`is_openid`: `OIDC`).
pub fn compile(
    value: &Value,
    is_openid: bool,
    context: LoginContext<'_>,
) -> Result<LoginAction, Refusal> {
    let option = if is_openid { "OIDC" } else { "OAuth" };
    let sign_in = sign_in(value, option, if is_openid { "issuer_url" } else { "provider" })?;
    let modules = match is_openid {
        true => Modules { oidc: Some(sign_in.clone()), ..Modules::default() },
        false => Modules { oauth: Some(sign_in.clone()), ..Modules::default() },
    };
    modules.check()?;
    let (provider, default_scopes, client) = match is_openid {
        true => (openid(&sign_in.provider)?, OPENID_SCOPES, None),
        false => oauth(&sign_in.provider, context.clients)?,
    };
    let own = (sign_in.client_id, sign_in.client_secret);
    let (client_id, client_secret) = match client {
        _ if !own.0.is_empty() => own,
        Some(client) => (client.id.clone(), client.secret.clone()),
        None => return Err(no_client(&sign_in.provider)),
    };
    let config = LoginConfig {
        provider,
        scopes: scopes(default_scopes, &sign_in.scopes),
        auth_id: String::new(),
        parameters: Vec::new(),
        limits: DEFAULT_LIMITS,
        refresh: None,
        allows_preflight: false,
        cookie_domain: None,
        allow_domains: sign_in.allow_domains,
        allow_emails: sign_in.allow_emails,
    };
    let (services, account) = (Arc::clone(context.services), context.account.to_owned());
    Ok(LoginAction { gate: LoginGate { config }, services, account, client_id, client_secret })
}

fn sign_in(value: &Value, option: &str, provider: &str) -> Result<SignIn, Refusal> {
    let malformed = |key: &str| {
        Refusal::new(301, format!("The value '{key}' of the option '{option}' is not valid."))
    };
    let text = |key: &str| match &value[key] {
        Value::Null => Ok(String::new()),
        Value::String(text) if text.len() <= MAX_TEXT_BYTES => Ok(text.clone()),
        _ => Err(malformed(key)),
    };
    let texts = |key: &str| match &value[key] {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) if items.len() <= MAX_ENTRIES => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(|| malformed(key)))
            .collect(),
        _ => Err(malformed(key)),
    };
    Ok(SignIn {
        provider: text(provider)?,
        client_id: text("client_id")?,
        client_secret: Secret::new(text("client_secret")?),
        scopes: texts("scopes")?,
        allow_domains: texts("allow_domains")?,
        allow_emails: texts("allow_emails")?,
    })
}

/// Returns the provider with this issuer.
pub fn openid(issuer: &str) -> Result<LoginProvider, Refusal> {
    match Url::parse(issuer) {
        Ok(url) if !url.target.contains('?') && !issuer.contains('#') => {
            Ok(LoginProvider::OpenId { issuer: issuer.to_owned() })
        }
        _ => Err(Refusal::new(387, "The OIDC issuer URL is not a http:// or https:// URL.")),
    }
}

/// Provider, its scopes, and the edge's client.
type NamedProvider<'a> = (LoginProvider, &'static str, Option<&'a OAuthClient>);

/// Returns the provider with this name.
pub fn oauth<'a>(name: &str, clients: &'a [OAuthClient]) -> Result<NamedProvider<'a>, Refusal> {
    let Some(provider) = providers::find(name) else {
        let known: Vec<&str> = PROVIDERS.iter().map(|provider| provider.name).collect();
        let text = format!(
            "The OAuth provider '{name}' is not known. Use one of {}, or --oidc (oidc) with the \
             URL of an issuer.",
            known.join(", ")
        );
        return Err(Refusal::new(363, text));
    };
    let client = clients::find(clients, name);
    let base_url = client.and_then(|client| client.base_url.clone());
    let client = client.filter(|client| !client.id.is_empty());
    Ok((LoginProvider::OAuth { provider, base_url }, provider.scopes, client))
}

/// Returns the refusal of a login without a client.
pub fn no_client(provider: &str) -> Refusal {
    Refusal::new(
        384,
        format!(
            "This edge has no application of its own at {provider}. Register one there, and give \
             --oauth-client-id (oauth.client_id) and --oauth-client-secret \
             (oauth.client_secret), or add it to 'oauth' of edge.yml."
        ),
    )
}

/// Returns scopes with blanks between them, each once.
pub fn scopes(first: &str, more: &[String]) -> String {
    let mut all: Vec<&str> = Vec::new();
    for scope in first.split(' ').chain(more.iter().flat_map(|text| text.split_whitespace())) {
        if !all.contains(&scope) {
            all.push(scope);
        }
    }
    all.join(" ")
}
