//! Options that the edge applies to an endpoint's visitors before they reach the agent: those
//! of the command line's older flags and of `tunnels` (protocol 5.6). Plain values, and the
//! checks that are possible before the edge is involved, with its own codes (agent 17.3).
//! Parsing and sending them is elsewhere.

use std::net::IpAddr;

use crate::http1::text::is_token;
use crate::proto::codes::Refusal;
use crate::proto::secret::Secret;

/// Permitted lengths of a password, in characters.
const PASSWORD: std::ops::RangeInclusive<usize> = 8..=128;

/// Maximum number of credentials for basic authentication.
const MAX_CREDENTIALS: usize = 128;

/// Options of one endpoint. All are off by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Modules {
    /// Credentials of visitors: user and password.
    pub basic_auth: Vec<(String, Secret)>,
    /// Share of server errors, 0 to 1, above which visitors are refused.
    pub circuit_breaker: Option<f64>,
    /// Whether responses are compressed.
    pub compression: bool,
    /// Treatment of the `Host` header.
    pub host_header: HostHeader,
    /// Addresses of visitors.
    pub ip_restriction: AllowDeny,
    /// PEM certificates of the CAs for visitors' certificates; empty: not required.
    pub mutual_tls_cas: String,
    /// Authentication by an OAuth provider.
    pub oauth: Option<SignIn>,
    /// Authentication by an OpenID Connect issuer.
    pub oidc: Option<SignIn>,
    /// Changes to the headers of requests.
    pub request_header: Headers,
    /// Changes to the headers of responses.
    pub response_header: Headers,
    /// User agents of visitors: regular expressions.
    pub user_agent_filter: AllowDeny,
    /// Provider and secret for the verification of webhooks.
    pub verify_webhook: Option<(String, Secret)>,
    /// Whether WebSocket messages are converted to bytes.
    pub websocket_tcp_converter: bool,
}

impl Modules {
    /// Checks these options with the rules of the edge. The error contains no secret.
    pub fn check(&self) -> Result<(), Refusal> {
        self.basic_auth()?;
        self.circuit_breaker.map_or(Ok(()), check_share)?;
        self.ip_restriction.cidrs()?;
        if let Some(oauth) = &self.oauth {
            oauth.oauth()?;
        }
        if let Some(oidc) = &self.oidc {
            oidc.oidc()?;
        }
        self.request_header.check(370, "request")?;
        self.response_header.check(371, "response")?;
        if let HostHeader::Value(value) = &self.host_header {
            check_header_value("Host", value)?;
        }
        match &self.verify_webhook {
            Some((provider, _)) => check_provider(provider),
            None => Ok(()),
        }
    }

    fn basic_auth(&self) -> Result<(), Refusal> {
        if self.basic_auth.len() > MAX_CREDENTIALS {
            let text = format!("At most {MAX_CREDENTIALS} credentials can be given.");
            return Err(Refusal::text(text));
        }
        for (user, password) in &self.basic_auth {
            check_credential(user, password.expose())?;
        }
        Ok(())
    }
}

/// Checks a credential of visitors. The message has no part of the password.
pub fn check_credential(user: &str, password: &str) -> Result<(), Refusal> {
    check_user(user)?;
    let length = password.chars().count();
    if PASSWORD.contains(&length) {
        return Ok(());
    }
    let (least, most) = (PASSWORD.start(), PASSWORD.end());
    let text = format!(
        "The password of a basic auth credential must have {least} to {most} characters, this \
         one has {length}."
    );
    refuse(360, text)
}

/// Checks that a credential has a user.
pub fn check_user(user: &str) -> Result<(), Refusal> {
    if user.is_empty() {
        return refuse(359, "The user of a basic auth credential must not be empty.");
    }
    Ok(())
}

/// Checks the threshold of a circuit breaker.
pub fn check_share(share: f64) -> Result<(), Refusal> {
    if (0.0..=1.0).contains(&share) {
        return Ok(());
    }
    refuse(361, "The threshold of the circuit breaker must be from 0.0 to 1.0.")
}

/// Checks that the verification of webhooks has a provider.
pub fn check_provider(provider: &str) -> Result<(), Refusal> {
    if provider.is_empty() {
        return refuse(363, "The verification of webhooks needs the name of a provider.");
    }
    Ok(())
}

fn refuse(code: u32, text: impl Into<String>) -> Result<(), Refusal> {
    Err(Refusal::new(code, text))
}

/// Parses a credential of the user, `user:password`. The password may contain colons.
pub fn parse_credential(text: &str) -> Result<(String, Secret), String> {
    match text.split_once(':') {
        Some((user, password)) => Ok((user.to_owned(), Secret::new(password))),
        None => Err("must be USER:PASSWORD".to_owned()),
    }
}

/// Parses a share of errors: a number, checked by [`Modules::check`].
pub fn parse_share(text: &str) -> Result<f64, String> {
    text.trim().parse().map_err(|_| "must be a number from 0.0 to 1.0".to_owned())
}

/// Treatment of the `Host` header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostHeader {
    /// Unchanged.
    #[default]
    Preserve,
    /// The upstream's host and port.
    Rewrite,
    /// This text.
    Value(String),
}

impl HostHeader {
    /// Returns the value for a text of the user: `rewrite`, `preserve`, empty, or another text.
    pub fn from_text(text: &str) -> HostHeader {
        match text {
            "" | "preserve" => HostHeader::Preserve,
            "rewrite" => HostHeader::Rewrite,
            value => HostHeader::Value(value.to_owned()),
        }
    }
}

/// Rules for what is allowed and denied. Both empty: everything is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowDeny {
    /// Allowed entries.
    pub allow: Vec<String>,
    /// Denied entries.
    pub deny: Vec<String>,
}

impl AllowDeny {
    /// Returns whether everything is allowed.
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    fn cidrs(&self) -> Result<(), Refusal> {
        if let Some(bad) = self.allow.iter().chain(&self.deny).find(|text| !is_cidr(text)) {
            let text = format!("{bad:?} is not a range of addresses like 10.0.0.0/8 or ::1/128.");
            return refuse(362, text);
        }
        check_deny_needs_allow(!self.allow.is_empty(), !self.deny.is_empty())
    }
}

/// Checks that something is allowed if something is denied.
pub fn check_deny_needs_allow(allows: bool, denies: bool) -> Result<(), Refusal> {
    if allows || !denies {
        return Ok(());
    }
    refuse(
        393,
        "When ranges of addresses are denied, at least one must be allowed, otherwise all \
         connections are refused. Allow 0.0.0.0/0 and ::/0 to allow all others.",
    )
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

/// Changes to headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// `name:value`
    pub add: Vec<String>,
    /// Names.
    pub remove: Vec<String>,
}

impl Headers {
    /// Returns whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }

    fn check(&self, form: u32, which: &str) -> Result<(), Refusal> {
        for field in &self.add {
            // The value is not shown, because it may be a token.
            let Some((name, value)) = field.split_once(':') else {
                let text = format!("An added {which} header must have the form key:value.");
                return refuse(form, text);
            };
            check_header_name(name.trim())?;
            check_header_value(name, value)?;
        }
        self.remove.iter().try_for_each(|name| check_header_name(name.trim()))
    }
}

/// Checks the characters of a header's name.
pub fn check_header_name(name: &str) -> Result<(), Refusal> {
    if !is_token(name.as_bytes()) {
        let shown: String = name.chars().take(60).collect();
        let text = format!(
            "{shown:?} is not a valid HTTP header name because it is empty or contains an \
             invalid character."
        );
        return refuse(372, text);
    }
    Ok(())
}

/// Checks the characters of a header's value. The message does not contain it: it may be a token.
pub fn check_header_value(name: &str, value: &str) -> Result<(), Refusal> {
    match value.chars().any(|c| c.is_control() && c != '\t') {
        true => refuse(374, format!("The value of the header {name} has a control character.")),
        false => Ok(()),
    }
}

/// Authentication of visitors by a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignIn {
    /// Name of the provider (OAuth), or the issuer's URL (OpenID Connect).
    pub provider: String,
    /// Client id; empty: that of the edge.
    pub client_id: String,
    /// Client secret.
    pub client_secret: Secret,
    /// Requested scopes.
    pub scopes: Vec<String>,
    /// Domains whose users are allowed.
    pub allow_domains: Vec<String>,
    /// Allowed users, by e-mail address.
    pub allow_emails: Vec<String>,
}

impl SignIn {
    fn oauth(&self) -> Result<(), Refusal> {
        if self.provider.is_empty() {
            return refuse(363, "OAuth needs the name of a provider, as in google.");
        }
        match (self.client_id.is_empty(), self.client_secret.is_empty()) {
            (false, true) => refuse(
                383,
                "You may not specify an OAuth client id without also specifying a client secret. \
                 Specify both or neither.",
            ),
            (true, false) => refuse(
                384,
                "You may not specify an OAuth client secret without also specifying a client id. \
                 Specify both or neither.",
            ),
            (true, true) if !self.scopes.is_empty() => refuse(
                390,
                "You must use your own OAuth application, specifying its client id and secret, in \
                 order to specify scopes.",
            ),
            _ => Ok(()),
        }
    }

    fn oidc(&self) -> Result<(), Refusal> {
        if self.provider.is_empty() {
            return refuse(387, "You must specify the OIDC issuer URL.");
        }
        if self.client_id.is_empty() {
            return refuse(385, "You must specify an OIDC client id.");
        }
        if self.client_secret.is_empty() {
            return refuse(386, "You must specify an OIDC client secret.");
        }
        Ok(())
    }
}

/// Place where the visitor's TLS is terminated, for `tls` endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TlsTermination {
    /// The upstream: TLS passes through.
    #[default]
    Upstream,
    /// The edge, with this certificate (PEM); empty: that of the edge.
    Edge {
        /// Certificate chain, PEM.
        certificate: String,
        /// Private key, PEM.
        key: Secret,
    },
    /// The agent: the key stays on this machine.
    Agent {
        /// Certificate chain, PEM.
        certificate: String,
        /// Private key, PEM.
        key: Secret,
        /// PEM certificates of the CAs for visitors' certificates; empty: not required.
        client_cas: String,
    },
}

impl TlsTermination {
    /// Returns the value for `terminate_at`, a certificate and its key, both PEM and empty if
    /// not given. `client_cas`: whether client certificates are required. A certificate without
    /// `terminate_at` is for the edge, as with the vendor's agent (agent 4.3). The error has
    /// what is missing.
    pub fn choose(
        place: &str,
        certificate: String,
        key: Secret,
        client_cas: &str,
    ) -> Result<TlsTermination, String> {
        if certificate.is_empty() != key.is_empty() {
            return Err("needs both the certificate and its key, or neither".to_owned());
        }
        match (place, certificate.is_empty()) {
            ("agent", true) => Err("at the agent needs a certificate and its key".to_owned()),
            ("agent", false) => {
                Ok(TlsTermination::Agent { certificate, key, client_cas: client_cas.to_owned() })
            }
            ("edge", _) | ("", false) => Ok(TlsTermination::Edge { certificate, key }),
            ("upstream", false) => {
                Err("at the upstream uses no certificate of the agent; remove it".to_owned())
            }
            ("" | "upstream", true) if !client_cas.is_empty() => Err(
                "at the upstream cannot check client certificates; end TLS at the edge or at the \
                 agent"
                    .to_owned(),
            ),
            ("" | "upstream", true) => Ok(TlsTermination::Upstream),
            _ => Err("must be edge, agent or upstream".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(modules: Modules) -> Option<u32> {
        let refusal = modules.check().err()?;
        assert!(!refusal.message.contains("hush"), "{refusal}");
        refusal.code
    }

    fn credential(user: &str, password: &str) -> Modules {
        Modules { basic_auth: vec![(user.into(), Secret::new(password))], ..Modules::default() }
    }

    fn ips(allow: &[&str], deny: &[&str]) -> Modules {
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        let ip_restriction = AllowDeny { allow: texts(allow), deny: texts(deny) };
        Modules { ip_restriction, ..Modules::default() }
    }

    fn request(field: &str) -> Modules {
        let request_header = Headers { add: vec![field.into()], ..Headers::default() };
        Modules { request_header, ..Modules::default() }
    }

    #[test]
    fn the_edge_would_say_the_same() {
        assert_eq!(code(Modules::default()), None);
        assert_eq!(code(credential("u", "password")), None);
        assert_eq!(code(credential("", "password")), Some(359));
        assert_eq!(code(credential("u", "hush")), Some(360));
        assert_eq!(code(credential("u", &"x".repeat(129))), Some(360));
        for (share, expected) in [(0.0, None), (1.0, None), (1.01, Some(361)), (-0.1, Some(361))] {
            let modules = Modules { circuit_breaker: Some(share), ..Modules::default() };
            assert_eq!(code(modules), expected, "{share}");
        }
        let nan = Modules { circuit_breaker: Some(f64::NAN), ..Modules::default() };
        assert_eq!(code(nan), Some(361));
        assert_eq!(code(ips(&["10.0.0.0/8", "::/0"], &["10.1.0.0/16"])), None);
        assert_eq!(code(ips(&[], &["10.1.0.0/16"])), Some(393));
        for bad in ["10.0.0.0", "10.0.0.0/33", "::/129", "x/8", "10.0.0.0/", "10.0.0.0/+8"] {
            assert_eq!(code(ips(&[bad], &[])), Some(362), "{bad}");
        }
        assert_eq!(code(request("x-a:b:c")), None);
        assert_eq!(code(request("hush")), Some(370));
        assert_eq!(code(request("a b:hush")), Some(372));
        assert_eq!(code(request(":hush")), Some(372));
        assert_eq!(code(request("a:hush\r\nb: c")), Some(374));
        let response_header = Headers { add: vec!["hush".into()], remove: vec![] };
        assert_eq!(code(Modules { response_header, ..Modules::default() }), Some(371));
        let response_header = Headers { add: vec![], remove: vec!["a:".into()] };
        assert_eq!(code(Modules { response_header, ..Modules::default() }), Some(372));
        let host_header = HostHeader::from_text("a\nb");
        assert_eq!(code(Modules { host_header, ..Modules::default() }), Some(374));
        let verify_webhook = Some((String::new(), Secret::new("hush")));
        assert_eq!(code(Modules { verify_webhook, ..Modules::default() }), Some(363));
    }

    #[test]
    fn who_signs_in_needs_a_whole_client() {
        let sign_in = |id: &str, secret: &str, scope: &str| SignIn {
            provider: "p".into(),
            client_id: id.into(),
            client_secret: Secret::new(secret),
            scopes: (!scope.is_empty()).then(|| scope.to_owned()).into_iter().collect(),
            ..SignIn::default()
        };
        for (id, secret, scope, oauth, oidc) in [
            ("", "", "", None, Some(385)),
            ("i", "hush", "s", None, None),
            ("i", "", "", Some(383), Some(386)),
            ("", "hush", "", Some(384), Some(385)),
            ("", "", "s", Some(390), Some(385)),
        ] {
            let module = Modules { oauth: Some(sign_in(id, secret, scope)), ..Modules::default() };
            assert_eq!(code(module), oauth, "{id} {secret} {scope}");
            let module = Modules { oidc: Some(sign_in(id, secret, scope)), ..Modules::default() };
            assert_eq!(code(module), oidc, "{id} {secret} {scope}");
        }
        let none = Some(SignIn::default());
        assert_eq!(code(Modules { oauth: none.clone(), ..Modules::default() }), Some(363));
        assert_eq!(code(Modules { oidc: none, ..Modules::default() }), Some(387));
    }

    #[test]
    fn where_tls_ends() {
        let choose = |place: &str, certificate: &str, cas: &str| {
            TlsTermination::choose(place, certificate.into(), Secret::new(certificate), cas)
        };
        assert_eq!(choose("", "", ""), Ok(TlsTermination::Upstream));
        assert_eq!(choose("upstream", "", ""), Ok(TlsTermination::Upstream));
        assert!(matches!(choose("", "c", ""), Ok(TlsTermination::Edge { .. })));
        assert!(matches!(choose("edge", "", "ca"), Ok(TlsTermination::Edge { .. })));
        assert!(matches!(choose("agent", "c", "ca"), Ok(TlsTermination::Agent { .. })));
        for (place, certificate, cas) in
            [("agent", "", ""), ("upstream", "c", ""), ("", "", "ca"), ("here", "", "")]
        {
            assert!(choose(place, certificate, cas).is_err(), "{place} {certificate} {cas}");
        }
        assert!(TlsTermination::choose("", "c".into(), Secret::default(), "").is_err());
    }
}
