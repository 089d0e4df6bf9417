//! What the edge does with an endpoint's visitors before they reach the agent: the
//! options of the command line's older flags and of `tunnels` (protocol 5.6). Plain
//! values: reading them is elsewhere, so is sending them.

use crate::proto::secret::Secret;

/// The options of one endpoint. Default: none is on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Modules {
    /// Who may visit: user and password.
    pub basic_auth: Vec<(String, Secret)>,
    /// Share of server errors, 0 to 1, above which visitors are turned away.
    pub circuit_breaker: Option<f64>,
    /// Compress answers.
    pub compression: bool,
    /// What becomes of the `Host` header.
    pub host_header: HostHeader,
    /// Which addresses may visit.
    pub ip_restriction: Filter,
    /// PEM certificates that must have signed the visitor's; empty for none.
    pub mutual_tls_cas: String,
    /// Sign-in with a provider.
    pub oauth: Option<SignIn>,
    /// Sign-in with an OpenID Connect issuer.
    pub oidc: Option<SignIn>,
    /// Changes to the request's header.
    pub request_header: Headers,
    /// Changes to the answer's header.
    pub response_header: Headers,
    /// Which user agents may visit: regular expressions.
    pub user_agent_filter: Filter,
    /// Provider and secret of webhooks whose signature is checked.
    pub verify_webhook: Option<(String, Secret)>,
    /// Turn a WebSocket into bytes.
    pub websocket_tcp_converter: bool,
}

/// What becomes of the `Host` header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostHeader {
    /// As the visitor sent it.
    #[default]
    Preserve,
    /// The upstream's host and port.
    Rewrite,
    /// This text.
    Value(String),
}

/// What is let through and what is not. Both empty: everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Let through.
    pub allow: Vec<String>,
    /// Turned away.
    pub deny: Vec<String>,
}

/// Changes to a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// `name:value`
    pub add: Vec<String>,
    /// Names.
    pub remove: Vec<String>,
}

/// How visitors sign in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignIn {
    /// Name of the provider (OAuth), or the issuer's URL (OpenID Connect).
    pub provider: String,
    /// The client's id; empty for the edge's own.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: Secret,
    /// Scopes asked for.
    pub scopes: Vec<String>,
    /// Domains whose users may visit.
    pub allow_domains: Vec<String>,
    /// Users who may visit, by e-mail address.
    pub allow_emails: Vec<String>,
}

/// Where the visitor's TLS ends, for `tls` endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TlsEnd {
    /// At the upstream: it passes through.
    #[default]
    Upstream,
    /// At the edge, with this certificate (PEM); empty for the edge's own.
    Edge {
        /// Certificate chain, PEM.
        certificate: String,
        /// Private key, PEM.
        key: Secret,
    },
    /// At the agent: the key stays here.
    Agent {
        /// Certificate chain, PEM.
        certificate: String,
        /// Private key, PEM.
        key: Secret,
        /// PEM certificates that must have signed the visitor's; empty for none.
        client_cas: String,
    },
}
