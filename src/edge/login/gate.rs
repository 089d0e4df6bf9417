//! The login in front of an endpoint: decides about each request, and blocks the visitor's
//! thread while it waits for the provider.

use std::time::Duration;

use serde_json::Value;

use super::LoginServices;
use super::cookie::{self, CookieScope, LoginCookie};
use super::endpoints::{IdentitySource, LoginEndpoints, discovery_url, is_issuer};
use super::flow::{self, AuthorizationRequest, IdTokenRules, LoginClient};
use super::profile::CLAIMS;
use super::provider::LoginProvider;
use super::return_path;
use super::seal::SealKey;
use super::session::{LoginIdentity, LoginSession, ProviderTokens, SessionLimits};
use super::state::{MAX_AGE_SECONDS, PendingLogin};
use crate::edge::actions::{Reply, RequestInfo};
use crate::edge::fetch::{FetchError, FetchErrorKind, FetchRequest, FetchResponse};
use crate::edge::jwt::JwtFault;
use crate::edge::jwt::base64url;
use crate::edge::jwt::key_set::{JwkSet, is_unknown_key};
use crate::edge::jwt::token::SignedToken;
use crate::edge::token;
use crate::event;
use crate::http1::text::{host_of, is_at_or_below, printable};
use crate::logging::rate_limit::LineQuota;
use crate::net::http_client::Method;
use crate::sys::sync::Mutex;

/// Paths of an endpoint that the edge serves itself.
const LOGIN_PATH: &str = "/ngrok/login";
const LOGOUT_PATH: &str = "/ngrok/logout";
const CALLBACK_PATH: &str = "/ngrok/callback";

/// Time for one request to a provider, and most bytes of its response.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// Log lines about providers that fail.
static PROVIDER_LINES: Mutex<LineQuota> = Mutex::new(LineQuota::per_minute(10));

/// A login as configured.
#[derive(Clone, Debug)]
pub struct LoginConfig {
    /// Provider.
    pub provider: LoginProvider,
    /// Requested scopes.
    pub scopes: String,
    /// Distinguishes several logins of one host; may be empty.
    pub auth_id: String,
    /// Further parameters of the authorization URL.
    pub parameters: Vec<(String, String)>,
    /// Lifetime of sessions.
    pub limits: SessionLimits,
    /// Seconds after which the identity is read again.
    pub refresh: Option<u64>,
    /// Whether preflight requests pass without a login.
    pub allows_preflight: bool,
    /// Domain that has the cookie.
    pub cookie_domain: Option<String>,
    /// Domains of allowed addresses of mail.
    pub allow_domains: Vec<String>,
    /// Allowed addresses of mail.
    pub allow_emails: Vec<String>,
}

/// Login in front of an endpoint.
#[derive(Debug)]
pub struct LoginGate {
    /// Configuration.
    pub config: LoginConfig,
}

/// Decision about a request.
#[derive(Debug)]
pub enum LoginVerdict {
    /// The visitor has a session.
    Admitted(Box<AdmittedVisitor>),
    /// The request needs no session.
    Exempt,
    /// The request ends with this response.
    Respond(Reply),
}

/// A visitor with a session.
#[derive(Debug)]
pub struct AdmittedVisitor {
    /// The session.
    pub session: LoginSession,
    /// Value of `Set-Cookie` for the response.
    pub cookie: Option<String>,
    /// Whether the identity was read again for this request.
    pub is_refreshed: bool,
}

/// A request with what the decision needs.
struct Visit<'a> {
    config: &'a LoginConfig,
    services: &'a LoginServices,
    client: LoginClient<'a>,
    request: &'a RequestInfo<'a>,
    key: SealKey,
    path: &'a str,
    query: &'a str,
    cookies: CookieScope<'a>,
}

impl LoginGate {
    /// Decides about a request to an endpoint of `account`.
    pub fn check(
        &self,
        services: &LoginServices,
        account: &str,
        client: LoginClient<'_>,
        request: &RequestInfo<'_>,
    ) -> LoginVerdict {
        let target = std::str::from_utf8(request.target).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let host = host_of(request.authority).unwrap_or_default().to_ascii_lowercase();
        let is_below = |domain: &&str| is_at_or_below(&host, domain);
        let config = &self.config;
        let domain = config.cookie_domain.as_deref().filter(is_below);
        let place = domain.unwrap_or(&host);
        let login = [place, &config.provider.key(), client.id, &config.auth_id].join("\n");
        let Some(key) = services.seal_key(account, &login) else { return internal() };
        let cookies = CookieScope { auth_id: &config.auth_id, domain, tls: request.tls };
        let visit = Visit { config, services, client, request, key, path, query, cookies };
        visit.decide()
    }
}

impl Visit<'_> {
    fn decide(&self) -> LoginVerdict {
        match self.path {
            CALLBACK_PATH => self.callback(),
            LOGOUT_PATH => self.logout(),
            LOGIN_PATH => {
                let path = flow::parameter(self.query, "redirect_path").unwrap_or_default();
                self.begin(&path, true)
            }
            _ if self.config.allows_preflight && self.is_preflight() => LoginVerdict::Exempt,
            _ => self.check_session(),
        }
    }

    fn is_preflight(&self) -> bool {
        let fields = self.request.fields;
        self.request.method == b"OPTIONS"
            && fields.first("origin").is_some()
            && fields.first("access-control-request-method").is_some()
    }

    fn cookie_values(&self, kind: LoginCookie) -> Vec<&str> {
        let name = self.cookies.name(kind);
        cookie::values(self.request.fields.values("cookie"), &name).collect()
    }

    fn now(&self) -> u64 {
        self.request.unix_seconds
    }

    fn check_session(&self) -> LoginVerdict {
        let values = self.cookie_values(LoginCookie::Session);
        let limits = self.config.limits;
        let opened = LoginSession::open(&self.key, values.into_iter(), limits, self.now());
        let Some(mut session) = opened else { return self.begin_here() };
        let mut is_refreshed = false;
        let due = |every: u64| self.now() >= session.confirmed.saturating_add(every);
        if self.config.refresh.is_some_and(due) {
            match self.refreshed_identity(&session) {
                Some(identity) => session.identity = identity,
                None => return self.begin_here(),
            }
            session.confirmed = self.now();
            is_refreshed = true;
        }
        if !self.is_allowed(&session.identity) {
            return not_allowed(&session.identity);
        }
        let mut cookie = None;
        if is_refreshed || session.needs_renewal(limits, self.now()) {
            session.used = self.now();
            cookie = self.session_cookie(&session);
        }
        LoginVerdict::Admitted(Box::new(AdmittedVisitor { session, cookie, is_refreshed }))
    }

    fn is_allowed(&self, identity: &LoginIdentity) -> bool {
        flow::is_allowed(identity, &self.config.allow_domains, &self.config.allow_emails)
    }

    fn session_cookie(&self, session: &LoginSession) -> Option<String> {
        let left = session.expiry(self.config.limits).saturating_sub(self.now());
        let value = session.seal(&self.key)?;
        Some(self.cookies.set(LoginCookie::Session, &value, left))
    }

    /// Begins a login that returns to the current URL, if that is a page.
    fn begin_here(&self) -> LoginVerdict {
        let is_page = matches!(self.request.method, b"GET" | b"HEAD");
        let target = std::str::from_utf8(self.request.target).unwrap_or_default();
        self.begin(if is_page { target } else { "/" }, false)
    }

    /// Sends the browser to the provider, and then back to `path`.
    fn begin(&self, path: &str, force: bool) -> LoginVerdict {
        let endpoints = match self.endpoints() {
            Ok(endpoints) => endpoints,
            Err(error) => return self.provider_failed(&error),
        };
        // One cookie for all logins under way of this browser.
        let known = self.cookie_values(LoginCookie::Nonce);
        let known = known.into_iter().find(|value| is_browser_id(value)).map(str::to_owned);
        let (Ok(browser), Ok(nonce), Ok(verifier)) =
            (known.map_or_else(random_text::<16>, Ok), random_text::<16>(), random_text::<32>())
        else {
            return internal();
        };
        let login = PendingLogin {
            browser,
            nonce,
            verifier,
            return_path: return_path::safe(path),
            begun: self.now(),
        };
        let Some(state) = login.seal(&self.key) else { return internal() };
        let is_openid = matches!(endpoints.identity, IdentitySource::IdToken { .. });
        let location = flow::authorization_url(
            &endpoints,
            &AuthorizationRequest {
                client_id: self.client.id,
                redirect_uri: &self.redirect_uri(),
                scopes: &self.config.scopes,
                state: &state,
                nonce: is_openid.then_some(&*login.nonce),
                verifier: &login.verifier,
                force,
                extra: &self.config.parameters,
            },
        );
        let nonce = self.cookies.set(LoginCookie::Nonce, &login.browser, MAX_AGE_SECONDS);
        redirect(location, nonce)
    }

    fn redirect_uri(&self) -> String {
        let scheme = if self.request.tls { "https" } else { "http" };
        let authority = String::from_utf8_lossy(self.request.authority);
        format!("{scheme}://{authority}{CALLBACK_PATH}")
    }

    fn logout(&self) -> LoginVerdict {
        let removed = self.cookies.set(LoginCookie::Session, "", 0);
        if let Some(path) = flow::parameter(self.query, "redirect_path") {
            return redirect(return_path::safe(&path), removed);
        }
        let mut reply = Reply::new(200, 0, "You are logged out of this endpoint.");
        reply.fields.push(("Set-Cookie".into(), removed));
        LoginVerdict::Respond(reply)
    }

    /// Serves the response of the provider.
    fn callback(&self) -> LoginVerdict {
        let browser = self.cookie_values(LoginCookie::Nonce);
        let state = flow::parameter(self.query, "state").unwrap_or_default();
        let login = PendingLogin::open(&self.key, &state, browser.into_iter(), self.now());
        let login = match login {
            Ok(login) => login,
            Err(fault) => return refuse(400, fault.code(), fault.text()),
        };
        if let Some(error) = flow::parameter(self.query, "error") {
            let more = flow::parameter(self.query, "error_description").unwrap_or_default();
            let text = format!(
                "The provider refused the login: {} {}. Try again at {LOGIN_PATH}.",
                printable(error.as_bytes()),
                printable(more.as_bytes())
            );
            return refuse(403, 0, text);
        }
        let Some(code) = flow::parameter(self.query, "code") else {
            return refuse(400, 0, "The response of the provider has no code. Log in again.");
        };
        match self.exchange(&login, &code) {
            Ok((identity, _)) if !self.is_allowed(&identity) => not_allowed(&identity),
            Ok((identity, tokens)) => self.admit(&login, identity, tokens),
            Err(error) => self.provider_failed(&error),
        }
    }

    fn admit(
        &self,
        login: &PendingLogin,
        identity: LoginIdentity,
        tokens: ProviderTokens,
    ) -> LoginVerdict {
        let Ok(id) = random_text::<16>() else { return internal() };
        let now = self.now();
        let session = LoginSession { id, identity, begun: now, used: now, confirmed: now, tokens };
        match self.session_cookie(&session) {
            Some(cookie) => redirect(login.return_path.clone(), cookie),
            None => internal(),
        }
    }

    /// Exchanges the code. Returns the identity that the provider confirms.
    fn exchange(
        &self,
        login: &PendingLogin,
        code: &str,
    ) -> Result<(LoginIdentity, ProviderTokens), FetchError> {
        let endpoints = self.endpoints()?;
        if let IdentitySource::IdToken { issuer, .. } = &endpoints.identity
            && flow::parameter(self.query, "iss").is_some_and(|given| given != *issuer)
        {
            // RFC 9207: the response is of another provider.
            return Err(invalid("the response is of another issuer"));
        }
        let request = flow::token_request(
            &endpoints,
            self.client,
            code,
            &self.redirect_uri(),
            &login.verifier,
        );
        let mut headers = vec![
            ("Accept", "application/json"),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ];
        headers.extend(request.authorization.as_deref().map(|value| ("Authorization", value)));
        let response = self.services.fetch.fetch(&FetchRequest {
            method: Method::Post,
            headers: &headers,
            body: Some(request.body.as_bytes()),
            max_redirects: 0,
            ..FetchRequest::document(&endpoints.token, MAX_RESPONSE_BYTES, PROVIDER_TIMEOUT)
        })?;
        let tokens = flow::tokens(response.status, &response.body).map_err(invalid)?;
        let identity = self.identity(&endpoints, &tokens, &login.nonce)?;
        Ok((identity, tokens))
    }

    fn identity(
        &self,
        endpoints: &LoginEndpoints,
        tokens: &ProviderTokens,
        nonce: &str,
    ) -> Result<LoginIdentity, FetchError> {
        let (issuer, jwks) = match &endpoints.identity {
            IdentitySource::Profile(_) => return self.profile(endpoints, tokens),
            IdentitySource::IdToken { issuer, jwks } => (issuer, jwks),
        };
        let fault = |fault: JwtFault| invalid(format!("the ID token was not accepted: {fault}"));
        let token = SignedToken::parse(&tokens.identity).map_err(fault)?;
        let rules = IdTokenRules { issuer, client_id: self.client.id, nonce, now: self.now() };
        let check = |keys: &JwkSet| flow::check_id_token(keys, &token, &rules);
        let checked = self.services.keys.read(jwks, self.request.now, check, is_unknown_key)?;
        let identity = checked.map_err(fault)?;
        if !identity.email.is_empty() || endpoints.userinfo.is_none() || tokens.access.is_empty() {
            return Ok(identity);
        }
        // Some providers have the address of mail in the profile only.
        let profile = self.profile(endpoints, tokens)?;
        match profile.id == identity.id {
            true => Ok(LoginIdentity {
                email: profile.email,
                name: if identity.name.is_empty() { profile.name } else { identity.name },
                id: identity.id,
            }),
            false => Err(invalid("the profile is of another account than the ID token")),
        }
    }

    /// Reads the profile of a visitor.
    fn profile(
        &self,
        endpoints: &LoginEndpoints,
        tokens: &ProviderTokens,
    ) -> Result<LoginIdentity, FetchError> {
        let url = endpoints.userinfo.as_deref().ok_or_else(|| invalid("it has no profile"))?;
        let authorization = format!("Bearer {}", tokens.access);
        let headers = [("Accept", "application/json"), ("Authorization", &authorization)];
        let response: FetchResponse = self.services.fetch.fetch(&FetchRequest {
            headers: &headers,
            max_redirects: 0,
            ..FetchRequest::document(url, MAX_RESPONSE_BYTES, PROVIDER_TIMEOUT)
        })?;
        if response.status != 200 {
            return Err(invalid(format!("the profile returned {}, not 200", response.status)));
        }
        let profile: Value = serde_json::from_slice(&response.body)
            .map_err(|_| invalid("the profile is not JSON"))?;
        let identity = match &endpoints.identity {
            IdentitySource::Profile(fields) => fields.identity(&profile),
            IdentitySource::IdToken { .. } => CLAIMS.identity(&profile),
        };
        identity.ok_or_else(|| invalid("the profile has no id"))
    }

    /// Reads the identity of a session again. `None`: a new login is needed.
    fn refreshed_identity(&self, session: &LoginSession) -> Option<LoginIdentity> {
        let endpoints = self.endpoints().ok()?;
        if session.tokens.access.is_empty() {
            return None;
        }
        let identity = self.profile(&endpoints, &session.tokens).ok()?;
        (identity.id == session.identity.id).then_some(identity)
    }

    fn endpoints(&self) -> Result<LoginEndpoints, FetchError> {
        match &self.config.provider {
            LoginProvider::OAuth { provider, base_url } => {
                Ok(provider.endpoints(base_url.as_deref()))
            }
            LoginProvider::OpenId { issuer } => {
                let url = discovery_url(issuer);
                let found = self.services.providers.get(&url, self.request.now)?;
                match &found.identity {
                    IdentitySource::IdToken { issuer: published, .. }
                        if is_issuer(issuer, published) =>
                    {
                        Ok(found.as_ref().clone())
                    }
                    _ => Err(invalid("its discovery document is of another issuer")),
                }
            }
        }
    }

    /// Logs why a provider failed. The page has the kind of the error: the rest is for the
    /// operator of the edge.
    fn provider_failed(&self, error: &FetchError) -> LoginVerdict {
        if let Some(count) = PROVIDER_LINES.lock().record(self.request.now) {
            let name = self.config.provider.key();
            event!(warn, obj = "edge", "login failed", name = name, count = count, err = error);
        }
        let (status, what) = match error.kind {
            FetchErrorKind::Refused => (502, "This edge may not connect to the provider"),
            FetchErrorKind::Busy => (503, "Too many logins are under way"),
            FetchErrorKind::Timeout => (504, "The provider did not respond in time"),
            FetchErrorKind::Failed => (502, "The provider sent no valid response"),
        };
        let text = format!("The login failed. {what}. Try again; the log of the edge has details.");
        refuse(status, 0, text)
    }
}

fn invalid(text: impl Into<String>) -> FetchError {
    FetchError::new(FetchErrorKind::Failed, text)
}

fn random_text<const N: usize>() -> std::io::Result<String> {
    Ok(base64url::encode(&token::random::<N>()?))
}

/// Returns whether a value of the cookie has the form of those that this edge sets.
fn is_browser_id(value: &str) -> bool {
    base64url::decode(value).is_some_and(|bytes| bytes.len() == 16)
}

fn redirect(location: String, cookie: String) -> LoginVerdict {
    let mut reply = Reply::new(302, 0, "This endpoint needs a login.");
    reply.fields.push(("Location".into(), location));
    reply.fields.push(("Set-Cookie".into(), cookie));
    LoginVerdict::Respond(reply)
}

fn refuse(status: u16, code: u32, text: impl Into<String>) -> LoginVerdict {
    LoginVerdict::Respond(Reply::new(status, code, text))
}

fn internal() -> LoginVerdict {
    refuse(500, 2300, "The edge could not encrypt a session. Try again.")
}

fn not_allowed(identity: &LoginIdentity) -> LoginVerdict {
    let account = if identity.email.is_empty() { &identity.name } else { &identity.email };
    let text = format!(
        "The account '{}' may not use this endpoint. Log in with another one at {LOGIN_PATH}.",
        printable(account.as_bytes())
    );
    refuse(403, 3403, text)
}

#[cfg(test)]
mod tests;
