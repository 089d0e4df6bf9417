//! Options of a Bind request (protocol 5.6) to actions. Every value is checked here, so that
//! an action cannot fail for its configuration. Secrets are not in a message.

use std::collections::BTreeMap;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use serde_json::{Map, Value};

use super::action::RequestAction;
use super::basic_auth::{BasicAuth, Password};
use super::circuit_breaker::{BreakerLimits, CircuitBreaker};
use super::compression::Compression;
use super::edits::HeaderLine;
use super::headers::HeaderChanges;
use super::ip_restriction::IpRestriction;
use super::location::LocationMapping;
use super::login::{self, LoginAction, LoginContext};
use super::response::ResponseAction;
use super::set::ActionSet;
use super::tls::{self, TlsOptions};
use super::user_agent::UserAgentFilter;
use super::webhook::{WebhookVerification, providers};
use crate::cidr::Cidr;
use crate::config::modules;
use crate::edge::regex::BoundedRegex;
use crate::http1::line::is_framing;
use crate::http1::text::{host_of, shortened};
use crate::proto::base64;
use crate::proto::codes::Refusal;

/// Credentials of one endpoint.
const MAX_CREDENTIALS: usize = 10;
const MAX_USER_CHARS: usize = 128;
/// bcrypt doubles its time with each step: 12 takes a quarter of a second.
const MAX_BCRYPT_COST: u32 = 12;

/// Lines that one option adds or removes.
const MAX_HEADER_LINES: usize = 64;
const MAX_NAME_BYTES: usize = 256;
const MAX_VALUE_BYTES: usize = 4096;

/// Expressions of one list.
const MAX_EXPRESSIONS: usize = 32;
const MAX_EXPRESSION_BYTES: usize = 4096;

/// Networks of one list.
const MAX_CIDRS: usize = 256;

/// Collects the options of one endpoint.
#[derive(Default)]
pub struct Compiler {
    restriction: Option<IpRestriction>,
    tls: TlsOptions,
    user_agent: Option<UserAgentFilter>,
    webhook: Option<WebhookVerification>,
    basic_auth: Option<BasicAuth>,
    login: Option<LoginAction>,
    host: Option<Arc<str>>,
    request_headers: Option<HeaderChanges>,
    breaker: Option<Arc<CircuitBreaker>>,
    response_headers: Option<HeaderChanges>,
    compression: bool,
    terminates_tls: bool,
    websocket_to_bytes: bool,
    /// What was given, for the digest. Sorted, since the order of options has no meaning.
    given: BTreeMap<String, Value>,
}

impl Compiler {
    /// Reads an option of an HTTP endpoint. Returns whether it is one of an action. `upstream`
    /// is the address that the agent forwards to.
    pub fn http(&mut self, key: &str, value: &Value, upstream: &str) -> Result<bool, Refusal> {
        match key {
            "basicauth" => self.basic_auth = Some(basic_auth(value)?),
            "auth" => self.basic_auth = Some(auth(value)?),
            "hostheaderrewrite" => self.host = upstream_host(upstream)?,
            "requestheaders" => {
                self.request_headers = Some(header_changes(value, "request", 370)?);
            }
            "responseheaders" => {
                self.response_headers = Some(header_changes(value, "response", 371)?);
            }
            "circuitbreaker" => self.breaker = Some(circuit_breaker(value)?),
            "compression" => self.compression = true,
            "websockettcpconverter" if value.is_object() => self.websocket_to_bytes = true,
            "useragentfilter" => self.user_agent = Some(user_agent_filter(value)?),
            "webhookverification" => self.webhook = Some(webhook(value)?),
            "mutualtlsca" => self.tls.client_cas = Some(client_cas(value, "MutualTLSCA")?),
            _ => return self.any(key, value),
        }
        self.given.insert(key.to_owned(), value.clone());
        Ok(true)
    }

    /// Reads the option `OAuth` or `OIDC` of an HTTP endpoint.
    pub fn login(
        &mut self,
        key: &str,
        value: &Value,
        context: LoginContext<'_>,
    ) -> Result<(), Refusal> {
        if self.login.replace(login::compile(value, key == "oidc", context)?).is_some() {
            return refuse(301, "An endpoint can have OAuth or OIDC, not both. Remove one.");
        }
        self.given.insert(key.to_owned(), value.clone());
        Ok(())
    }

    /// Reads an option of a TLS endpoint that the edge terminates. Returns whether it is one of
    /// an action.
    pub fn tls(&mut self, key: &str, value: &Value) -> Result<bool, Refusal> {
        match key {
            "tlstermination" => {
                self.tls.certificate = certificate(value)?;
                self.terminates_tls = true;
            }
            "mutualtlsatedge" => self.tls.client_cas = Some(client_cas(value, "MutualTLSAtEdge")?),
            _ => return self.any(key, value),
        }
        self.given.insert(key.to_owned(), value.clone());
        Ok(true)
    }

    /// Reads an option of any endpoint.
    pub fn any(&mut self, key: &str, value: &Value) -> Result<bool, Refusal> {
        if key != "iprestriction" {
            return Ok(false);
        }
        self.restriction = Some(ip_restriction(value)?);
        self.given.insert(key.to_owned(), value.clone());
        Ok(true)
    }

    /// Returns the actions in their order: networks, user agents, webhooks, credentials,
    /// logins, header, circuit breaker; for the response the breaker, redirects, header, compression.
    pub fn finish(self) -> ActionSet {
        let mut request: Vec<Arc<dyn RequestAction>> = Vec::new();
        let mut response: Vec<Arc<dyn ResponseAction>> = Vec::new();
        if let Some(filter) = self.user_agent {
            request.push(Arc::new(filter));
        }
        if let Some(webhook) = self.webhook {
            request.push(Arc::new(webhook));
        }
        if let Some(basic_auth) = self.basic_auth {
            request.push(Arc::new(basic_auth));
        }
        if let Some(login) = self.login {
            request.push(Arc::new(login));
        }
        let mut changes = self.request_headers;
        if let Some(host) = self.host {
            changes.get_or_insert_default().host.get_or_insert(host);
        }
        let maps_location = changes.as_ref().is_some_and(|changes| changes.host.is_some());
        if let Some(changes) = changes {
            request.push(Arc::new(changes));
        }
        if let Some(breaker) = self.breaker {
            request.push(Arc::new(Arc::clone(&breaker)));
            response.push(Arc::new(breaker));
        }
        if maps_location {
            response.push(Arc::new(LocationMapping));
        }
        if let Some(changes) = self.response_headers {
            response.push(Arc::new(changes));
        }
        if self.compression {
            response.push(Arc::new(Compression));
        }
        let given = serde_json::to_vec(&self.given).unwrap_or_default();
        let digest = digest(&SHA256, &given).as_ref().to_vec();
        let changes = self.tls.certificate.is_some() || self.tls.client_cas.is_some();
        let tls = changes.then(|| Arc::new(self.tls));
        ActionSet {
            connect: self.restriction,
            tls,
            terminates_tls: self.terminates_tls,
            request,
            response,
            websocket_to_bytes: self.websocket_to_bytes,
            policy: None,
            policy_digest: Vec::new(),
            digest,
        }
    }
}

fn refuse<T>(code: u32, text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(code, text))
}

/// Returns the texts of a list; empty if it is absent.
fn texts<'a>(value: &'a Value, option: &str, key: &str) -> Result<Vec<&'a str>, Refusal> {
    let malformed = || {
        Refusal::new(
            301,
            format!("The value '{key}' of the option '{option}' is not a list of texts."),
        )
    };
    match &value[key] {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => {
            items.iter().map(|item| item.as_str().ok_or_else(malformed)).collect()
        }
        _ => Err(malformed()),
    }
}

/// Returns bytes, which clients send as base64 or as a list of numbers; `None` if absent.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) if !text.is_empty() => base64::decode(text),
        Value::Array(items) if !items.is_empty() => {
            items.iter().map(|n| n.as_u64().and_then(|n| u8::try_from(n).ok())).collect()
        }
        _ => None,
    }
}

fn basic_auth(value: &Value) -> Result<BasicAuth, Refusal> {
    let items = value["credentials"].as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        return refuse(301, "The option 'BasicAuth' has no credentials. Give at least one.");
    }
    if items.len() > MAX_CREDENTIALS {
        return refuse(
            301,
            format!("The option 'BasicAuth' takes at most {MAX_CREDENTIALS} credentials."),
        );
    }
    let hashes: Vec<Option<String>> = items
        .iter()
        .map(|item| match bytes(&item["hashed_password"]) {
            Some(hash) => bcrypt_hash(hash).map(Some),
            None => Ok(None),
        })
        .collect::<Result<_, Refusal>>()?;
    let mut credentials = Vec::with_capacity(items.len());
    for (item, hash) in items.iter().zip(&hashes) {
        let user = item["username"].as_str().unwrap_or_default();
        check_user(user)?;
        let password = match hash {
            Some(hash) => Password::Bcrypt(hash),
            None => {
                let password = item["cleartext_password"].as_str().unwrap_or_default();
                modules::check_credential(user, password)?;
                Password::Clear(password)
            }
        };
        credentials.push((user, password));
    }
    Ok(BasicAuth::new(&credentials))
}

/// Checks a bcrypt hash. The message has no part of it.
fn bcrypt_hash(bytes: Vec<u8>) -> Result<String, Refusal> {
    let malformed = || {
        Refusal::new(360, "The hashed password of a basic auth credential is not a bcrypt hash.")
    };
    let hash = String::from_utf8(bytes).map_err(|_| malformed())?;
    let parts: bcrypt::HashParts = hash.parse().map_err(|_| malformed())?;
    if parts.get_cost() > MAX_BCRYPT_COST {
        let text = format!("The bcrypt hash of a credential has a cost above {MAX_BCRYPT_COST}.");
        return refuse(360, text);
    }
    Ok(hash)
}

fn check_user(user: &str) -> Result<(), Refusal> {
    modules::check_user(user)?;
    if user.contains(':') || user.chars().count() > MAX_USER_CHARS {
        let text = format!(
            "The user of a basic auth credential must have at most {MAX_USER_CHARS} characters \
             and no colon."
        );
        return refuse(359, text);
    }
    Ok(())
}

/// Reads the older form, `user:password`.
fn auth(value: &Value) -> Result<BasicAuth, Refusal> {
    let Some((user, password)) = value.as_str().and_then(|text| text.split_once(':')) else {
        return refuse(359, "The option 'Auth' must have the form user:password.");
    };
    check_user(user)?;
    modules::check_credential(user, password)?;
    Ok(BasicAuth::new(&[(user, Password::Clear(password))]))
}

/// Returns host and port of the address that the agent forwards to.
fn upstream_host(address: &str) -> Result<Option<Arc<str>>, Refusal> {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match check_value("host", host).is_err() {
        // Agents that rewrite the header themselves send no address.
        true => Ok(None),
        false => Ok(Some(host.into())),
    }
}

fn header_changes(value: &Value, which: &str, form: u32) -> Result<HeaderChanges, Refusal> {
    let option = if form == 370 { "RequestHeaders" } else { "ResponseHeaders" };
    let mut lines: Vec<(String, String)> = Vec::new();
    for text in texts(value, option, "add")? {
        let Some((name, value)) = text.split_once(':') else {
            let text = format!("An added {which} header must have the form key:value.");
            return refuse(form, text);
        };
        lines.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    if let Some(parsed) = value["addParsed"].as_object() {
        for (name, value) in parsed {
            let Some(value) = value.as_str() else {
                return refuse(form, format!("An added {which} header must have a text as value."));
            };
            lines.push((name.clone(), value.to_owned()));
        }
    }
    let removed = texts(value, option, "remove")?;
    let most = lines.len().max(removed.len());
    if most > MAX_HEADER_LINES {
        let text = format!(
            "The option '{option}' has {most} headers in a list, the maximum is \
             {MAX_HEADER_LINES}."
        );
        return refuse(376, text);
    }
    let mut changes = HeaderChanges::default();
    for (name, value) in &lines {
        check_name(name, form)?;
        check_value(name, value)?;
        if let Some((other, _)) =
            lines.iter().find(|(n, _)| n != name && n.eq_ignore_ascii_case(name))
        {
            let text = format!(
                "The header '{name}' is added twice with different casings: {name} and {other}."
            );
            return refuse(375, text);
        }
        match name.eq_ignore_ascii_case("host") && form == 370 {
            true => changes.host = Some(value.as_str().into()),
            false => {
                let (name, value) = (name.as_str().into(), value.as_str().into());
                changes.add.push(HeaderLine { name, value });
            }
        }
    }
    for name in removed.iter().map(|name| name.trim()) {
        check_name(name, form)?;
        // `Host` is replaced or stays: a request without one has no destination.
        if !name.eq_ignore_ascii_case("host") {
            changes.remove.push(name.into());
        }
    }
    Ok(changes)
}

fn check_name(name: &str, form: u32) -> Result<(), Refusal> {
    let shown = shortened(name);
    if name.len() > MAX_NAME_BYTES {
        let text = format!(
            "The header beginning with '{shown}' exceeds the maximum header name length of \
             {MAX_NAME_BYTES} bytes."
        );
        return refuse(377, text);
    }
    modules::check_header_name(name)?;
    let lower = name.to_ascii_lowercase();
    let fixed = matches!(&*lower, "connection" | "keep-alive" | "te" | "trailer" | "upgrade");
    if fixed || is_framing(lower.as_bytes()) || lower.starts_with("proxy-") {
        let text = format!("The header '{shown}' belongs to the connection and cannot be changed.");
        return refuse(372, text);
    }
    let request = form == 370;
    if request && lower == "user-agent" || !request && lower == "ngrok-error-code" {
        return refuse(372, format!("The header '{shown}' cannot be changed."));
    }
    Ok(())
}

/// Checks the value of a header.
fn check_value(name: &str, value: &str) -> Result<(), Refusal> {
    if value.len() > MAX_VALUE_BYTES {
        let text = format!(
            "The value of the header '{name}' exceeds the maximum header value length of \
             {MAX_VALUE_BYTES} bytes."
        );
        return refuse(378, text);
    }
    modules::check_header_value(name, value)?;
    if name.eq_ignore_ascii_case("host") && host_of(value.as_bytes()).is_none() {
        return refuse(374, "The value of the header 'host' is not a host or host:port.");
    }
    Ok(())
}

fn circuit_breaker(value: &Value) -> Result<Arc<CircuitBreaker>, Refusal> {
    let share = match &value["error_threshold"] {
        Value::Null => 0.0,
        // What is not a number is not in the range either.
        number => number.as_f64().unwrap_or(f64::NAN),
    };
    modules::check_share(share)?;
    Ok(CircuitBreaker::new(BreakerLimits { threshold: share, ..BreakerLimits::default() }))
}

fn user_agent_filter(value: &Value) -> Result<UserAgentFilter, Refusal> {
    let list = |key: &str| {
        let texts = texts(value, "UserAgentFilter", key)?;
        if texts.len() > MAX_EXPRESSIONS {
            let text = format!(
                "The option 'UserAgentFilter' takes at most {MAX_EXPRESSIONS} expressions in a list."
            );
            return refuse(2090, text);
        }
        let compile = |text: &&str| {
            let shown = shortened(text);
            let compiled = match text.len() <= MAX_EXPRESSION_BYTES {
                true => BoundedRegex::compile(text),
                false => Err(format!("it has more than {MAX_EXPRESSION_BYTES} bytes")),
            };
            compiled.map_err(|e| {
                Refusal::new(2090, format!("{shown:?} is not a valid regular expression: {e}."))
            })
        };
        texts.iter().map(compile).collect::<Result<Vec<_>, Refusal>>()
    };
    Ok(UserAgentFilter { allow: list("allow")?, deny: list("deny")? })
}

fn webhook(value: &Value) -> Result<WebhookVerification, Refusal> {
    let name = value["provider"].as_str().unwrap_or_default();
    modules::check_provider(name)?;
    let name = name.to_ascii_lowercase();
    let Some(provider) = providers::find(&name) else {
        let shown = shortened(&name);
        let text = match providers::UNSUPPORTED.iter().find(|(other, _)| *other == name) {
            Some((_, reason)) => format!(
                "This edge cannot verify webhooks of '{shown}': {reason}. Verify them in the \
                 service."
            ),
            None => format!("{shown:?} is not a known provider of webhooks."),
        };
        return refuse(364, text);
    };
    let secret = value["secret"].as_str().unwrap_or_default();
    if secret.is_empty() {
        return refuse(2032, format!("The verification of webhooks of '{name}' needs a secret."));
    }
    WebhookVerification::new(provider, secret)
        .map_err(|e| Refusal::new(2032, format!("The secret for webhooks of '{name}' {e}.")))
}

fn client_cas(value: &Value, option: &str) -> Result<Arc<dyn ClientCertVerifier>, Refusal> {
    let pem = bytes(&value["mutual_tls_ca"]).unwrap_or_default();
    tls::client_cas(&pem)
        .map_err(|e| Refusal::new(301, format!("The option '{option}' is not valid: {e}.")))
}

fn certificate(value: &Value) -> Result<Option<Arc<CertifiedKey>>, Refusal> {
    if !value.is_object() {
        return refuse(301, "The option 'TLSTermination' must be an object.");
    }
    if bytes(&value["sealed_key"]).is_some() {
        return refuse(301, "This edge cannot open a sealed key. Give the key itself.");
    }
    match (bytes(&value["cert"]), bytes(&value["key"])) {
        (None, None) => Ok(None),
        (Some(chain), Some(key)) => match tls::certificate(&chain, &key) {
            Ok(certified) => Ok(Some(Arc::new(certified))),
            Err(e) => refuse(301, format!("The certificate of the endpoint is not valid: {e}.")),
        },
        _ => refuse(301, "TLS termination needs both the certificate and its key, or neither."),
    }
}

fn ip_restriction(value: &Value) -> Result<IpRestriction, Refusal> {
    let list = |key: &str| -> Result<Vec<Cidr>, Refusal> {
        let items = texts(value, "IPRestriction", key)?;
        if items.len() > MAX_CIDRS {
            let text =
                format!("The option 'IPRestriction' takes at most {MAX_CIDRS} CIDRs in a list.");
            return refuse(362, text);
        }
        let parse = |item: &&str| {
            Cidr::parse(item).ok_or_else(|| {
                Refusal::new(362, format!("{item:?} in {key} is not a CIDR like 10.0.0.0/8."))
            })
        };
        items.iter().map(parse).collect()
    };
    let restriction = IpRestriction { allow: list("allow_cidrs")?, deny: list("deny_cidrs")? };
    let is_given = |list: &[Cidr]| !list.is_empty();
    modules::check_deny_needs_allow(is_given(&restriction.allow), is_given(&restriction.deny))?;
    Ok(restriction)
}

/// Returns whether an option of this kind is off: null, `""`, false, 0, an empty list, and
/// lists of changes without a change.
pub fn is_off(key: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => {
            let lists = matches!(
                key,
                "requestheaders" | "responseheaders" | "useragentfilter" | "iprestriction"
            );
            lists && changes_nothing(map)
        }
    }
}

fn changes_nothing(map: &Map<String, Value>) -> bool {
    map.values().all(|value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn compile(key: &str, value: Value) -> Result<ActionSet, Refusal> {
        let mut compiler = Compiler::default();
        let known = compiler.http(&key.to_ascii_lowercase(), &value, "http://localhost:8080")?;
        assert!(known, "{key}");
        Ok(compiler.finish())
    }

    #[test]
    fn a_wrong_option_is_refused_with_its_code_and_without_its_secret() {
        let long = "x".repeat(5000);
        let many: Vec<String> = (0..10_000).map(|n| format!("x-{n}")).collect();
        let pairs: Vec<Value> =
            (0..11).map(|_| json!({"username": "u", "cleartext_password": "secret-99"})).collect();
        for (key, value, code) in [
            ("BasicAuth", json!({"credentials": []}), 301),
            ("BasicAuth", json!({"credentials": pairs}), 301),
            ("BasicAuth", json!({"credentials": [{"cleartext_password": "secret-99"}]}), 359),
            (
                "BasicAuth",
                json!({"credentials": [{"username": "u", "cleartext_password": "s"}]}),
                360,
            ),
            (
                "BasicAuth",
                json!({"credentials": [{"username": "u", "hashed_password": "c2VjcmV0LTk5"}]}),
                360,
            ),
            ("Auth", json!("secret-99"), 359),
            ("Auth", json!("u:short"), 360),
            ("CircuitBreaker", json!({"error_threshold": 1.5}), 361),
            ("CircuitBreaker", json!({"error_threshold": "x"}), 361),
            ("UserAgentFilter", json!({"allow": ["("]}), 2090),
            ("UserAgentFilter", json!({"allow": [long]}), 2090),
            ("WebhookVerification", json!({"provider": ""}), 363),
            ("WebhookVerification", json!({"provider": "x", "secret": "secret-99"}), 364),
            ("WebhookVerification", json!({"provider": "sns", "secret": "secret-99"}), 364),
            ("WebhookVerification", json!({"provider": "github"}), 2032),
            ("WebhookVerification", json!({"provider": "svix", "secret": "secret-99!"}), 2032),
            ("RequestHeaders", json!({"add": ["secret-99"]}), 370),
            ("ResponseHeaders", json!({"add": ["secret-99"]}), 371),
            ("RequestHeaders", json!({"add": ["a b:secret-99"]}), 372),
            ("RequestHeaders", json!({"add": ["a:secret-99\u{1}"]}), 374),
            ("RequestHeaders", json!({"add": ["a:1", "A:2"]}), 375),
            ("RequestHeaders", json!({"remove": many}), 376),
            ("RequestHeaders", json!({"remove": ["x".repeat(300)]}), 377),
            ("RequestHeaders", json!({"add": [format!("a:{}", "x".repeat(5000))]}), 378),
            ("RequestHeaders", json!({"add": ["Content-Length:5"]}), 372),
            ("RequestHeaders", json!({"remove": ["transfer-encoding"]}), 372),
            ("RequestHeaders", json!({"remove": ["User-Agent"]}), 372),
            ("RequestHeaders", json!({"add": ["Host: secret-99/path"]}), 374),
            ("RequestHeaders", json!({"add": ["host: a.example:secret-99"]}), 374),
            ("RequestHeaders", json!({"add": ["host:"]}), 374),
            ("ResponseHeaders", json!({"add": ["ngrok-error-code:x"]}), 372),
            ("ResponseHeaders", json!({"add": "x"}), 301),
            ("IPRestriction", json!({"allow_cidrs": ["x"]}), 362),
            ("IPRestriction", json!({"deny_cidrs": ["10.0.0.0/8"]}), 393),
        ] {
            let e = compile(key, value.clone()).unwrap_err();
            assert_eq!(e.code, Some(code), "{key} {value}: {e}");
            assert!(!e.message.contains("secret-99"), "{e}");
            assert!(e.message.len() < 400, "{e}");
        }
    }

    #[test]
    fn sets_of_equal_options_are_the_same() {
        let set = |value: Value| compile("RequestHeaders", value).unwrap();
        let one = set(json!({"add": ["a:b"]}));
        assert!(one.is_same_as(&set(json!({"add": ["a:b"]}))));
        assert!(!one.is_same_as(&set(json!({"add": ["a:c"]}))));
        assert!(!one.is_same_as(&ActionSet::default()));
    }

    #[test]
    fn nothing_is_on_by_default() {
        assert!(is_off("responseheaders", &json!({"add": [], "remove": []})));
        assert!(is_off("iprestriction", &json!({"allow_cidrs": [], "deny_cidrs": null})));
        assert!(!is_off("compression", &json!({})));
        assert!(!is_off("basicauth", &json!({"credentials": []})));
        assert!(is_off("auth", &json!("")));
    }
}
