//! Variables of expressions by name: phases, kind, and those that this edge has no data for.
//! Their values are with the request.

use std::sync::Arc;

use super::time::Timestamp;
use super::value::Value;
use crate::edge::policy::catalog::PolicyPhase;

/// What the names of an expression stand for. One value is made for each use, so that a rule
/// costs what it reads.
///
/// A variable without a value, such as the name in TLS of a visitor without TLS, is `None`: the
/// expression then has an error, and `has()` is false.
pub trait Variables {
    /// Returns the value of a variable.
    fn variable(&self, variable: Variable) -> Option<Value>;

    /// Returns one entry of a variable that is a map. The key of a header has any case. An
    /// implementation that can find an entry without the whole map does so here.
    fn entry(&self, variable: Variable, key: &str) -> Option<Value> {
        self.variable(variable)?.members()?.get_text(key).cloned()
    }

    /// Returns the bytes that are read to find an entry of a variable, beside those of the entry.
    fn source_bytes(&self, _variable: Variable) -> usize {
        0
    }

    /// Returns the number of parts of a variable, such as cookies; with a key, of its entry. A
    /// visitor chooses it, so it is known before the parts become values. 0: it has few.
    fn parts(&self, _variable: Variable, _key: Option<&str>) -> usize {
        0
    }

    /// Returns the secret of a vault, for `secrets.get`.
    fn secret(&self, vault: &str, name: &str) -> Option<Arc<str>>;

    /// Returns the current time.
    fn now(&self) -> Timestamp;

    /// Returns 64 random bits.
    fn random(&self) -> u64;
}

/// What a variable is, as far as its members matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VariableKind {
    /// A value without members of its own; further variables may have its name as a prefix.
    Plain,
    /// A map, whose entries [`Variables::entry`] returns.
    Keyed,
}

/// Phases of a variable or a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PhaseSet {
    /// All phases.
    Any,
    /// Those of requests and of responses.
    Http,
    /// That of responses.
    Response,
}

impl PhaseSet {
    /// Returns whether a phase is in it.
    pub(super) fn has(self, phase: PolicyPhase) -> bool {
        match self {
            PhaseSet::Any => true,
            PhaseSet::Http => phase != PolicyPhase::TcpConnect,
            PhaseSet::Response => {
                matches!(phase, PolicyPhase::HttpResponse | PolicyPhase::EventStreamMessage)
            }
        }
    }

    /// Returns the keys of its phases.
    pub(super) fn keys(self) -> &'static str {
        match self {
            PhaseSet::Any => "all phases",
            PhaseSet::Http => "on_http_request and on_http_response",
            PhaseSet::Response => "on_http_response",
        }
    }
}

/// An entry of the table.
#[derive(Debug)]
pub(super) struct VariableSpec {
    pub(super) variable: Variable,
    /// Path from the root.
    pub(super) name: &'static str,
    pub(super) phases: PhaseSet,
    pub(super) kind: VariableKind,
}

macro_rules! variables {
    ($($name:ident $path:literal $phases:ident $kind:ident;)*) => {
        /// A variable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Variable {
            $(#[doc = concat!("`", $path, "`")] $name,)*
        }

        /// All variables.
        pub(super) static VARIABLES: &[VariableSpec] = &[
            $(VariableSpec {
                variable: Variable::$name,
                name: $path,
                phases: PhaseSet::$phases,
                kind: VariableKind::$kind,
            },)*
        ];

        impl Variable {
            /// Returns the name in expressions.
            pub fn name(self) -> &'static str {
                match self {
                    $(Variable::$name => $path,)*
                }
            }
        }
    };
}

variables! {
    ConnClientIp "conn.client_ip" Any Plain;
    ConnClientPort "conn.client_port" Any Plain;
    ConnServerIp "conn.server_ip" Any Plain;
    ConnServerPort "conn.server_port" Any Plain;
    ConnServerRegion "conn.server_region" Any Plain;
    ConnStart "conn.ts.start" Any Plain;
    ConnTlsCipherSuite "conn.tls.cipher_suite" Any Plain;
    ConnTlsAlpn "conn.tls.negotiated_alpn" Any Plain;
    ConnTlsResumed "conn.tls.session_resumed" Any Plain;
    ConnTlsSni "conn.tls.sni" Any Plain;
    ConnTlsVersion "conn.tls.version" Any Plain;
    ClientPem "conn.tls.client.pem" Any Plain;
    ClientSerialNumber "conn.tls.client.serial_number" Any Plain;
    ClientNotBefore "conn.tls.client.validity.not_before" Any Plain;
    ClientNotAfter "conn.tls.client.validity.not_after" Any Plain;
    ClientSanDnsNames "conn.tls.client.san.dns_names" Any Plain;
    ClientSanAddresses "conn.tls.client.san.ip_addresses" Any Plain;
    ClientSubjectCommonName "conn.tls.client.subject.common_name" Any Plain;
    ClientSubjectCountry "conn.tls.client.subject.country" Any Plain;
    ClientSubjectLocality "conn.tls.client.subject.locality" Any Plain;
    ClientSubjectOrganization "conn.tls.client.subject.organization" Any Plain;
    ClientSubjectUnit "conn.tls.client.subject.organizational_unit" Any Plain;
    ClientSubjectProvince "conn.tls.client.subject.province" Any Plain;
    ClientIssuerCommonName "conn.tls.client.issuer.common_name" Any Plain;
    EndpointAddr "endpoint.addr" Any Plain;
    EndpointHost "endpoint.host" Any Plain;
    EndpointId "endpoint.id" Any Plain;
    EndpointPort "endpoint.port" Any Plain;
    EndpointProtocol "endpoint.protocol" Any Plain;
    EndpointUrl "endpoint.url" Any Plain;
    ReqContentEncoding "req.content_encoding" Http Plain;
    ReqContentLength "req.content_length" Http Plain;
    ReqContentType "req.content_type" Http Plain;
    ReqContentTypeParameters "req.content_type.parameters" Http Keyed;
    ReqContentTypeRaw "req.content_type.raw" Http Plain;
    ReqCookies "req.cookies" Http Keyed;
    ReqHeaders "req.headers" Http Keyed;
    ReqHost "req.host" Http Plain;
    ReqLocation "req.location" Http Plain;
    ReqMethod "req.method" Http Plain;
    ReqTrailers "req.trailers" Http Keyed;
    ReqBodyReceived "req.ts.body_received" Http Plain;
    ReqHeaderReceived "req.ts.header_received" Http Plain;
    ReqUrl "req.url" Http Plain;
    ReqUrlAuthority "req.url.authority" Http Plain;
    ReqUrlHost "req.url.host" Http Plain;
    ReqUrlPath "req.url.path" Http Plain;
    ReqUrlPort "req.url.port" Http Plain;
    ReqUrlQuery "req.url.query" Http Plain;
    ReqUrlQueryParams "req.url.query_params" Http Keyed;
    ReqUrlRaw "req.url.raw" Http Plain;
    ReqUrlRawPath "req.url.raw_path" Http Plain;
    ReqUrlScheme "req.url.scheme" Http Plain;
    ReqUrlUri "req.url.uri" Http Plain;
    ReqUrlUserPassword "req.url.user_password" Http Plain;
    ReqUserAgent "req.user_agent" Http Plain;
    ReqVersion "req.version" Http Plain;
    ResContentEncoding "res.content_encoding" Response Plain;
    ResContentLength "res.content_length" Response Plain;
    ResContentType "res.content_type" Response Plain;
    ResContentTypeParameters "res.content_type.parameters" Response Keyed;
    ResContentTypeRaw "res.content_type.raw" Response Plain;
    ResCookies "res.cookies" Response Keyed;
    ResHeaders "res.headers" Response Keyed;
    ResLocation "res.location" Response Plain;
    ResStatusCode "res.status_code" Response Plain;
    ResTrailers "res.trailers" Response Keyed;
    TimeNow "time.now" Any Plain;
    Actions "actions.ngrok" Any Keyed;
    Vars "vars" Any Keyed;
}

/// Variables of ngrok's service that need data this edge lacks. An expression with one of them,
/// or with a member of one, is refused: it would be false in silence.
static LACKING: &[&str] = &[
    "conn.bytes_in",
    "conn.bytes_out",
    "conn.geo",
    "conn.client_ip.as",
    "conn.client_ip.categories",
    "conn.client_ip.geo",
    "conn.client_ip.is_on_blocklist",
    "conn.client_ip.is_tor_node",
    "conn.server_ip.as",
    "conn.server_ip.categories",
    "conn.server_ip.geo",
    "conn.server_ip.is_on_blocklist",
    "conn.server_ip.is_tor_node",
    "conn.k8s",
    "conn.tls.client.extensions",
    "conn.tls.client.issuer.country",
    "conn.tls.client.issuer.locality",
    "conn.tls.client.issuer.organization",
    "conn.tls.client.issuer.organizational_unit",
    "conn.tls.client.issuer.postal_code",
    "conn.tls.client.issuer.province",
    "conn.tls.client.issuer.street_address",
    "conn.tls.client.san.email_addresses",
    "conn.tls.client.san.uris",
    "conn.tls.client.signature_algorithm",
    "conn.tls.client.subject.postal_code",
    "conn.tls.client.subject.street_address",
    "conn.tls.ja4_fingerprint",
    "conn.tls.server",
    "conn.ts.end",
    "req.user_agent.device",
    "req.user_agent.is_bot",
    "req.user_agent.is_desktop",
    "req.user_agent.is_mobile",
    "req.user_agent.is_tablet",
    "req.user_agent.name",
    "req.user_agent.os",
    "req.user_agent.os_version",
    "req.user_agent.url",
    "req.user_agent.version",
];

/// Result of a search for a name.
#[derive(Clone, Copy, Debug)]
pub(super) enum NameMatch {
    /// A variable.
    Variable(&'static VariableSpec),
    /// A part of the names of variables.
    Group,
    /// A variable that this edge has no data for.
    Lacking,
    /// Nothing.
    Unknown,
}

/// Returns what a name is.
pub(super) fn find(name: &str) -> NameMatch {
    if LACKING.contains(&name) {
        return NameMatch::Lacking;
    }
    if let Some(spec) = VARIABLES.iter().find(|spec| spec.name == name) {
        return NameMatch::Variable(spec);
    }
    match members(name).next().is_some() {
        true => NameMatch::Group,
        false => NameMatch::Unknown,
    }
}

/// Returns the variables whose names begin with a name and a dot.
pub(super) fn members(name: &str) -> impl Iterator<Item = &'static VariableSpec> {
    VARIABLES
        .iter()
        .filter(move |spec| spec.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// First part of the variable with the results of actions.
pub(super) const RESULTS_ROOT: &str = "actions";

/// Returns whether a name is the first part of a variable.
pub(super) fn is_root(name: &str) -> bool {
    ["conn", "endpoint", "req", "res", "time", RESULTS_ROOT, "vars"].contains(&name)
}

/// Returns whether a variable is a map of its own.
pub(super) fn is_keyed(variable: Variable) -> bool {
    VARIABLES.iter().any(|spec| spec.variable == variable && spec.kind == VariableKind::Keyed)
}
