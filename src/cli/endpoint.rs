//! `http`, `tcp`, `tls`, `tunnel`: the endpoint of a command line. Two `--scheme` make two
//! endpoints.

use std::borrow::Cow;
use std::fs;
use std::io::{self, Read};
use std::path::{self, PathBuf};

use super::exit::CommandError;
use super::parse::ParsedCommand;
use super::session;
use crate::config::modules::{
    self, AllowDeny, Headers, HostHeader, Modules, SignIn, TlsTermination,
};
use crate::config::{
    self, Agent, Endpoint, EndpointKind, Upstream, UpstreamScheme, Verify, policy, public_url,
};
use crate::event;
use crate::proto::codes::Refusal;
use crate::proto::secret::Secret;
use crate::sys::sync::Mutex;

/// Name of the endpoint without `--name`.
const NAME: &str = "command_line";

/// Code for two policies of one endpoint.
const TWO_POLICIES: u32 = 9025;

/// Maximum size of a file of certificates, in bytes.
const MAX_PEM: u64 = 256 * 1024;

pub(super) fn run(kind: EndpointKind, typed: ParsedCommand) -> Result<u8, CommandError> {
    start(typed, Box::new(move |typed| endpoints(kind, typed)))
}

/// Runs `tunnel`: an endpoint with labels. Its kind is that of its upstream, because only the
/// edge knows the protocol of the visitors.
pub(super) fn run_labelled(typed: ParsedCommand) -> Result<u8, CommandError> {
    start(typed, Box::new(|typed| labelled(typed).map(|endpoint| vec![endpoint])))
}

/// Returns the endpoints of a command line.
type MakeEndpoints = Box<dyn Fn(&ParsedCommand) -> Result<Vec<Endpoint>, CommandError> + Send>;

/// Runs the endpoints that `make` returns. It is called before the configuration is read, so
/// that its errors are reported first, and again at each reload, because flags may name files.
fn start(typed: ParsedCommand, make: MakeEndpoints) -> Result<u8, CommandError> {
    let first = Mutex::new(Some(make(&typed)?));
    let finish = move |typed: &ParsedCommand, agent: Agent| {
        let made = first.lock().take();
        let endpoints = match made {
            Some(endpoints) => endpoints,
            None => make(typed)?,
        };
        let ports = public_url::PortPolicy::of_edge(&agent.connect_url);
        for endpoint in &endpoints {
            public_url::check_url(endpoint.kind, &endpoint.url, &endpoint.bindings, ports)
                .map_err(CommandError::Usage)?;
            say_where_tls_ends(typed, endpoint);
        }
        Ok(Agent { endpoints, ..agent })
    };
    session::run(typed, Box::new(finish))
}

/// Warns that a key is sent to the edge, because `terminate-at` is missing (agent 4.3).
fn say_where_tls_ends(typed: &ParsedCommand, endpoint: &Endpoint) {
    if matches!(&endpoint.tls_termination, TlsTermination::Edge { key, .. } if !key.is_empty())
        && typed.text("terminate-at").is_none()
    {
        event!(
            warn,
            obj = "app",
            "private key goes to the edge",
            hint = "--terminate-at agent keeps it here"
        );
    }
}

fn labelled(typed: &ParsedCommand) -> Result<Endpoint, CommandError> {
    let addr = typed.words.first().map(|word| word.to_ascii_lowercase()).unwrap_or_default();
    let bytes = addr.starts_with("tcp://") || addr.starts_with("tls://");
    let mut endpoint = plain(if bytes { EndpointKind::Tcp } else { EndpointKind::Http }, typed)?;
    for label in typed.list("label") {
        match label.split_once('=') {
            Some((key, value)) if !key.is_empty() && !value.is_empty() => {
                endpoint.labels.push((key.trim().to_owned(), value.trim().to_owned()));
            }
            _ => return Err(CommandError::usage("--label must be KEY=VALUE")),
        }
    }
    if endpoint.labels.is_empty() {
        return Err(CommandError::usage("a tunnel needs a label, as in --label edge=edghts_1234"));
    }
    if typed.text("crt").or(typed.text("key")).is_some() {
        if endpoint.upstream.scheme == UpstreamScheme::File {
            return Err(CommandError::usage("--crt and --key do not apply to a directory"));
        }
        endpoint.tls_termination = tls_termination(typed, "agent", "")?;
    }
    Ok(endpoint)
}

/// Reads the flags that all kinds of endpoints have.
fn plain(kind: EndpointKind, typed: &ParsedCommand) -> Result<Endpoint, CommandError> {
    let addr = typed.words.first().map(String::as_str).unwrap_or_default();
    let upstream = Upstream::parse(kind, &whole_path(addr)).map_err(CommandError::usage)?;
    let name = typed.text("name").filter(|name| !name.is_empty()).unwrap_or(NAME);
    Ok(Endpoint {
        description: typed.owned("description"),
        metadata: typed.owned("metadata"),
        inspect: typed.switch("inspect").unwrap_or(true),
        ..Endpoint::new(name, kind, upstream)
    })
}

pub(super) fn endpoints(
    kind: EndpointKind,
    typed: &ParsedCommand,
) -> Result<Vec<Endpoint>, CommandError> {
    let mut endpoint = plain(kind, typed)?;
    let bindings = typed.list("binding");
    config::check_bindings(&bindings)
        .map_err(|why| CommandError::usage(format!("--binding {why}")))?;
    endpoint.pooling = typed.switch("pooling-enabled").unwrap_or_default();
    endpoint.upstream_protocol =
        typed.text("upstream-protocol").or(typed.text("app-protocol")).unwrap_or_default().into();
    let version = typed.text("upstream-proxy-protocol").or(typed.text("proxy-proto"));
    endpoint.proxy_protocol = config::parse_proxy_protocol(version.unwrap_or_default())
        .map_err(|why| CommandError::usage(format!("--upstream-proxy-protocol {why}")))?;
    let cas = typed.text("upstream-tls-verify-cas").or(typed.text("upstream-ca-path"));
    let verify = typed.switch("upstream-tls-verify").or(typed.switch("verify-upstream-tls"));
    endpoint.verify = match cas {
        Some(path) => Verify::File(PathBuf::from(path)),
        None if verify == Some(true) => Verify::System,
        None => Verify::Off,
    };
    endpoint.modules = modules(typed)?;
    endpoint.modules.check().map_err(CommandError::Usage)?;
    if kind == EndpointKind::Tls {
        let place = typed.text("terminate-at").unwrap_or_default();
        endpoint.tls_termination = tls_termination(typed, place, &endpoint.modules.mutual_tls_cas)?;
    }
    policy_of(typed, &mut endpoint)?;
    let mut endpoints = named(typed, endpoint)?;
    for endpoint in &mut endpoints {
        endpoint.bindings = config::inferred_bindings(bindings.clone(), &endpoint.url);
    }
    Ok(endpoints)
}

/// Reads the requested public names. Returns one endpoint, or one for each scheme (agent 4.5).
fn named(typed: &ParsedCommand, endpoint: Endpoint) -> Result<Vec<Endpoint>, CommandError> {
    let of = |flag| typed.text(flag).map(str::trim).unwrap_or_default();
    let (url, domain) = (public_url::normal_url(of("url")), of("domain"));
    let (hostname, subdomain, remote) = (of("hostname"), of("subdomain"), of("remote-addr"));
    public_url::check_names(&[&url, domain, hostname, subdomain, remote])
        .map_err(CommandError::Usage)?;
    if !remote.is_empty() {
        let url = format!("tcp://{remote}");
        public_url::check_url(EndpointKind::Tcp, &url, &[], public_url::PortPolicy::Any)
            .map_err(CommandError::Usage)?;
        return Ok(vec![Endpoint { hostname: remote.to_owned(), ..endpoint }]);
    }
    let host = if url.is_empty() { domain } else { &*url };
    let mut schemes = typed.list("scheme");
    // https first: its endpoint has the name without a suffix.
    schemes.sort_unstable_by(|a, b| b.cmp(a));
    schemes.dedup();
    if !schemes.is_empty() && host.contains("://") {
        return Err(CommandError::usage("--scheme conflicts with the URL; leave --scheme out"));
    }
    if schemes.is_empty() {
        schemes.push(String::new());
    }
    let both = schemes.len() > 1;
    let make = |scheme: String| {
        let mut endpoint = endpoint.clone();
        if both && scheme == "http" {
            endpoint.name += " (http)";
        }
        endpoint.url = match (&*scheme, host) {
            ("", host) => host.to_owned(),
            (scheme, host) => format!("{scheme}://{host}"),
        };
        endpoint.hostname = hostname.to_owned();
        endpoint.subdomain = subdomain.to_owned();
        endpoint
    };
    let endpoints: Vec<Endpoint> = schemes.into_iter().map(make).collect();
    if [hostname, subdomain].iter().any(|n| n.contains(['/', ':', '@', '?', '#', ' '])) {
        return Err(CommandError::usage(
            "--hostname and --subdomain are names, without scheme or path",
        ));
    }
    Ok(endpoints)
}

fn policy_of(typed: &ParsedCommand, endpoint: &mut Endpoint) -> Result<(), CommandError> {
    let flags = ["traffic-policy-file", "policy-file", "traffic-policy-url"];
    let mut given = flags.iter().filter_map(|flag| Some((*flag, typed.text(flag)?)));
    let Some((flag, place)) = given.next() else { return Ok(()) };
    if let Some((other, _)) = given.next() {
        let text = format!("--{flag} conflicts with --{other}; an endpoint has one policy");
        return Err(CommandError::Usage(Refusal::new(TWO_POLICIES, text)));
    }
    if flag == "traffic-policy-url" {
        endpoint.traffic_policy_url = place.to_owned();
        return Ok(());
    }
    let text = read(place, policy::MAX_POLICY as u64).map_err(|e| {
        CommandError::failed(format!(
            "the traffic policy {place} cannot be read: {e}; check the path"
        ))
    })?;
    policy::check_file(place, &text).map_err(CommandError::failed)?;
    endpoint.traffic_policy = text;
    Ok(())
}

/// Reads the older flags as options of the edge.
fn modules(typed: &ParsedCommand) -> Result<Modules, CommandError> {
    let on = |flag| typed.switch(flag).unwrap_or_default();
    let wrong =
        |flag: &'static str| move |why: String| CommandError::usage(format!("--{flag} {why}"));
    let credentials = typed.list("basic-auth");
    let basic_auth = credentials.iter().map(|text| modules::parse_credential(text));
    let breaker = typed.text("circuit-breaker").map(modules::parse_share);
    let webhook = (typed.owned("verify-webhook"), typed.owned("verify-webhook-secret"));
    let authorities = typed.text("mutual-tls-cas");
    Ok(Modules {
        basic_auth: basic_auth.collect::<Result<_, _>>().map_err(wrong("basic-auth"))?,
        circuit_breaker: breaker.transpose().map_err(wrong("circuit-breaker"))?,
        compression: on("compression"),
        host_header: HostHeader::from_text(typed.text("host-header").unwrap_or_default()),
        ip_restriction: AllowDeny {
            allow: typed.list("cidr-allow"),
            deny: typed.list("cidr-deny"),
        },
        mutual_tls_cas: match authorities {
            Some(path) => pem("--mutual-tls-cas", path, "-----BEGIN CERTIFICATE-----")?,
            None => String::new(),
        },
        oauth: sign_in(SignIn {
            provider: typed.owned("oauth"),
            client_id: typed.owned("oauth-client-id"),
            client_secret: Secret::new(typed.owned("oauth-client-secret")),
            scopes: typed.list("oauth-scope"),
            allow_domains: typed.list("oauth-allow-domain"),
            allow_emails: typed.list("oauth-allow-email"),
        }),
        oidc: sign_in(SignIn {
            provider: typed.owned("oidc"),
            client_id: typed.owned("oidc-client-id"),
            client_secret: Secret::new(typed.owned("oidc-client-secret")),
            scopes: typed.list("oidc-scope"),
            ..SignIn::default()
        }),
        request_header: Headers {
            add: typed.list("request-header-add"),
            remove: typed.list("request-header-remove"),
        },
        response_header: Headers {
            add: typed.list("response-header-add"),
            remove: typed.list("response-header-remove"),
        },
        user_agent_filter: AllowDeny {
            allow: typed.list("ua-filter-allow"),
            deny: typed.list("ua-filter-deny"),
        },
        verify_webhook: match webhook {
            (provider, secret) if provider.is_empty() && secret.is_empty() => None,
            (provider, secret) => Some((provider, Secret::new(secret))),
        },
        websocket_tcp_converter: on("websocket-tcp-converter"),
    })
}

/// Returns the module, unless it is empty.
fn sign_in(module: SignIn) -> Option<SignIn> {
    (module != SignIn::default()).then_some(module)
}

fn tls_termination(
    typed: &ParsedCommand,
    place: &str,
    client_cas: &str,
) -> Result<TlsTermination, CommandError> {
    let certificate = match typed.text("crt") {
        Some(path) => pem("--crt", path, "-----BEGIN CERTIFICATE-----")?,
        None => String::new(),
    };
    let key = match typed.text("key") {
        Some(path) => Secret::new(pem("--key", path, "PRIVATE KEY-----")?),
        None => Secret::default(),
    };
    TlsTermination::choose(place, certificate, key, client_cas)
        .map_err(|why| CommandError::usage(format!("TLS ending {why}")))
}

/// Reads a PEM file that has a block of this kind.
fn pem(flag: &str, path: &str, block: &str) -> Result<String, CommandError> {
    let text = read(path, MAX_PEM)
        .map_err(|error| CommandError::failed(format!("{flag}: {path} cannot be read: {error}")))?;
    match text.contains(block) {
        true => Ok(text),
        false => Err(CommandError::failed(format!(
            "{flag}: {path} is not PEM with a line {:?}",
            block.trim_start_matches("-----BEGIN ").trim_end_matches('-')
        ))),
    }
}

fn read(path: &str, most: u64) -> io::Result<String> {
    let mut text = String::new();
    let n =
        fs::File::open(path)?.take(most + 1).read_to_string(&mut text).map_err(
            |error| match error.kind() {
                io::ErrorKind::InvalidData => io::Error::other("it is not text (UTF-8)"),
                _ => error,
            },
        )?;
    match n as u64 > most {
        true => Err(io::Error::other(format!("it is longer than {} KiB", most / 1024))),
        false => Ok(text),
    }
}

/// Returns the address. A relative path such as `.` or `./site` becomes the whole path: it is
/// not a valid address either, and the refusal shows what to write for it.
fn whole_path(addr: &str) -> Cow<'_, str> {
    let addr = addr.trim();
    let is_path = matches!(addr, "." | "..") || addr.starts_with("./") || addr.starts_with("../");
    let whole = match is_path {
        true => fs::canonicalize(addr).or_else(|_| path::absolute(addr)).ok(),
        false => None,
    };
    match whole.and_then(|path| path.into_os_string().into_string().ok()) {
        Some(path) => Cow::Owned(path),
        None => Cow::Borrowed(addr),
    }
}
