//! `oauth` and `openid-connect`: a login of the visitor at a provider. The flow is in
//! [`crate::edge::login`].

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::edge::actions::action::ActionError;
use crate::edge::actions::login::{self, DEFAULT_LIMITS, OPENID_SCOPES};
use crate::edge::agents::address::check_host;
use crate::edge::login::flow::{LoginClient, RESERVED_PARAMETERS};
use crate::edge::login::gate::{AdmittedVisitor, LoginConfig, LoginGate, LoginVerdict};
use crate::edge::login::provider::LoginProvider;
use crate::edge::login::services::LoginServices;
use crate::edge::login::session::SessionLimits;
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::phases::{PhaseState, RequestPhase};
use crate::edge::policy::reader::ConfigReader;
use crate::edge::policy::text::InterpolatedText;
use crate::proto::secret::Secret;
use crate::time;

/// Lifetimes of a session.
const LIFETIMES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 3600);

const MAX_SCOPES: usize = 32;
const MAX_PARAMETERS: usize = 32;
const MAX_AUTH_ID_CHARS: usize = 64;

/// A login.
#[derive(Debug)]
struct PolicyLogin {
    gate: LoginGate,
    services: Arc<LoginServices>,
    client: ConfiguredClient,
    /// Name of the variables.
    result: &'static str,
}

/// Client at the provider.
#[derive(Debug)]
enum ConfiguredClient {
    /// That of the policy.
    Own { id: InterpolatedText, secret: Option<InterpolatedText> },
    /// That of the edge.
    OfEdge { id: String, secret: Secret },
}

/// Keys that both actions have.
const KEYS: [&str; 10] = [
    "auth_id",
    "client_id",
    "client_secret",
    "scopes",
    "authz_url_params",
    "max_session_duration",
    "userinfo_refresh_interval",
    "allow_cors_preflight",
    "auth_cookie_domain",
    "idle_session_timeout",
];

pub(super) fn oauth(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    config.known_keys(&[&KEYS[..], &["provider"]].concat());
    let name = config.required_text("provider")?;
    let clients = config.environment.services.oauth_clients();
    let (provider, scopes, client) = match login::oauth(&name, &clients) {
        Ok(found) => found,
        Err(refusal) => {
            config.fault("provider", 2222, format!("is not supported: {}", refusal.message));
            return None;
        }
    };
    let of_edge = client.map(|client| ConfiguredClient::OfEdge {
        id: client.id.clone(),
        secret: client.secret.clone(),
    });
    if !config.has("client_id") && of_edge.is_none() {
        let cause = "the edge has no OAuth client for this provider";
        let advice = "add client_id and client_secret, or add a client to oauth in edge.yml";
        config.fault("client_id", 2234, format!("is required: {cause}; {advice}."));
        return None;
    }
    if !config.has("client_id") && config.has("scopes") {
        config.fault("scopes", 2203, "needs a client_id of its own.");
    }
    let client = client_of(config, of_edge)?;
    compile(config, "idle_session_timeout", "oauth", scopes, (provider, client))
}

pub(super) fn openid(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    let mut keys = KEYS;
    keys[9] = "idle_session_duration";
    config.known_keys(&[&keys[..], &["issuer_url"]].concat());
    let issuer = config.required_text("issuer_url")?;
    let Ok(provider) = login::openid(&issuer) else {
        config.fault("issuer_url", 2226, "must be a https:// URL.");
        return None;
    };
    let client = client_of(config, None)?;
    compile(config, "idle_session_duration", "oidc", OPENID_SCOPES, (provider, client))
}

fn client_of(
    config: &ConfigReader<'_>,
    of_edge: Option<ConfiguredClient>,
) -> Option<ConfiguredClient> {
    if !config.has("client_id")
        && let Some(client) = of_edge
    {
        return Some(client);
    }
    let id = config.required_template("client_id")?;
    let secret = match config.has("client_secret") {
        true => Some(config.template("client_secret")?),
        false => None,
    };
    Some(ConfiguredClient::Own { id, secret })
}

fn compile(
    config: &ConfigReader<'_>,
    idle_key: &str,
    result: &'static str,
    scopes: &str,
    (provider, client): (LoginProvider, ConfiguredClient),
) -> Option<Arc<dyn PolicyAction>> {
    let seconds = |key: &str, default: u64| {
        config.duration(key, Duration::from_secs(default), LIFETIMES).as_secs()
    };
    let limits = SessionLimits {
        total: seconds("max_session_duration", DEFAULT_LIMITS.total),
        idle: seconds(idle_key, DEFAULT_LIMITS.idle),
    };
    let refresh = config
        .has("userinfo_refresh_interval")
        .then(|| seconds("userinfo_refresh_interval", DEFAULT_LIMITS.total));
    let auth_id = config.text("auth_id").unwrap_or_default();
    let is_id = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if !is_id(&auth_id) || auth_id.len() > MAX_AUTH_ID_CHARS {
        let reason = format!("must be at most {MAX_AUTH_ID_CHARS} letters, digits, '-' and '_'.");
        config.fault("auth_id", 2204, reason);
    }
    let gate = LoginConfig {
        provider,
        scopes: login::scopes(scopes, &config.texts("scopes", MAX_SCOPES)),
        auth_id,
        parameters: parameters(config),
        limits,
        refresh,
        allows_preflight: config.flag("allow_cors_preflight", false),
        cookie_domain: cookie_domain(config),
        allow_domains: Vec::new(),
        allow_emails: Vec::new(),
    };
    let services = config.environment.services.logins()?;
    Some(Arc::new(PolicyLogin { gate: LoginGate { config: gate }, services, client, result }))
}

fn parameters(config: &ConfigReader<'_>) -> Vec<(String, String)> {
    let Some(map) = config.child("authz_url_params") else { return Vec::new() };
    let mut parameters = Vec::new();
    for (name, _) in map.entries() {
        if RESERVED_PARAMETERS.contains(&&*name) {
            map.fault(&name, 2203, "is set by the edge and cannot be changed.");
        } else if let Some(value) = map.text(&name) {
            parameters.push((name, value));
        }
    }
    if parameters.len() > MAX_PARAMETERS {
        config.fault("authz_url_params", 2218, format!("has more than {MAX_PARAMETERS} entries."));
    }
    parameters
}

fn cookie_domain(config: &ConfigReader<'_>) -> Option<String> {
    let text = config.text("auth_cookie_domain")?;
    let domain = text.trim_start_matches('.').to_ascii_lowercase();
    if check_host(&domain).is_err() || !domain.contains('.') {
        config.fault("auth_cookie_domain", 2204, "must be a domain.");
    } else if config.environment.services.is_shared(config.environment.account, &domain) {
        // Upstreams of other accounts would get the cookie.
        let reason = "is a domain of several accounts, which would get the cookie.";
        config.fault("auth_cookie_domain", 2204, reason);
    }
    Some(domain)
}

impl PolicyAction for PolicyLogin {
    fn request(&self, phase: &mut RequestPhase<'_>) -> Result<PolicyFlow, ActionError> {
        let (id, secret) = match &self.client {
            ConfiguredClient::OfEdge { id, secret } => (id.clone(), secret.clone()),
            ConfiguredClient::Own { id, secret } => {
                let scope = phase.scope();
                let secret = match secret {
                    Some(secret) => Secret::new(secret.render(&scope)?),
                    None => Secret::default(),
                };
                (id.render(&scope)?.into_owned(), secret)
            }
        };
        let client = LoginClient { id: &id, secret: &secret };
        let account = phase.input.endpoint.account;
        Ok(match self.gate.check(&self.services, account, client, &phase.request) {
            LoginVerdict::Respond(reply) => PolicyFlow::Respond(reply),
            LoginVerdict::Exempt => {
                login::mark(phase.edits, None);
                PolicyFlow::Continue
            }
            LoginVerdict::Admitted(visitor) => {
                login::mark(phase.edits, Some(&visitor));
                let result = self.variables(&visitor);
                phase.vars_mut().set_result(self.result, result);
                PolicyFlow::Continue
            }
        })
    }
}

impl PolicyLogin {
    fn variables(&self, visitor: &AdmittedVisitor) -> serde_json::Value {
        let session = &visitor.session;
        let expiry = Duration::from_secs(session.expiry(self.gate.config.limits));
        json!({
            "identity": {
                "id": session.identity.id,
                "email": session.identity.email,
                "name": session.identity.name,
                "provider_user_id": session.identity.id,
                "current_session_id": session.id,
                "current_provider_session_id": session.id,
            },
            "identity_token": session.tokens.identity,
            "access_token": session.tokens.access,
            "refresh_token": session.tokens.refresh,
            "expires_at": time::rfc3339(expiry),
            "session_timed_out": false,
            "session_max_duration_reached": false,
            "userinfo_refreshed": visitor.is_refreshed,
        })
    }
}
