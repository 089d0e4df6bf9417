//! `http`, `tcp`, `tls`: one endpoint from the command line.

use std::borrow::Cow;
use std::fs;
use std::path::{self, PathBuf};

use super::args::EndpointFlags;
use super::{Failure, session};
use crate::config::{self, Endpoint, Kind, Upstream, Verify, address};

/// Name of the endpoint without `--name`.
const NAME: &str = "command_line";

pub(super) fn run((kind, mut flags): (Kind, EndpointFlags)) -> Result<u8, Failure> {
    let session = std::mem::take(&mut flags.session);
    let endpoint = endpoint(kind, flags)?;
    session::run(session, move |mut agent| {
        let ports = address::Ports::of_edge(&agent.connect_url);
        address::check_url(kind, &endpoint.url, &endpoint.bindings, ports)
            .map_err(Failure::Usage)?;
        agent.endpoints = vec![endpoint.clone()];
        Ok(agent)
    })
}

fn endpoint(kind: Kind, flags: EndpointFlags) -> Result<Endpoint, Failure> {
    let wrong = |flag: &'static str| move |why: String| Failure::usage(format!("{flag} {why}"));
    let upstream = Upstream::parse(kind, &whole_path(&flags.addr)).map_err(Failure::usage)?;
    let url = address::normal_url(&flags.url.unwrap_or_default());
    let bindings: Vec<String> =
        flags.binding.iter().flat_map(|text| text.split(',')).map(str::to_owned).collect();
    config::check_bindings(&bindings).map_err(wrong("--binding"))?;
    let upstream_protocol = flags.upstream_protocol.unwrap_or_default();
    if !matches!(upstream_protocol.as_str(), "" | "http1" | "http2") {
        return Err(Failure::usage("--upstream-protocol must be http1 or http2"));
    }
    if !upstream_protocol.is_empty() && kind != Kind::Http {
        let text = format!("--upstream-protocol is for http endpoints, this is a {kind} endpoint");
        return Err(Failure::usage(text));
    }
    let proxy_protocol =
        config::parse_proxy_protocol(flags.upstream_proxy_protocol.as_deref().unwrap_or_default())
            .map_err(wrong("--upstream-proxy-protocol"))?;
    let verify = match flags.upstream_tls_verify_cas {
        Some(path) => Verify::File(PathBuf::from(path)),
        None if flags.upstream_tls_verify => Verify::System,
        None => Verify::Off,
    };
    let traffic_policy = match flags.traffic_policy_file {
        None => String::new(),
        Some(path) => fs::read_to_string(&path).map_err(|error| {
            Failure::failed(format!("the traffic policy cannot be read from {path}: {error}"))
        })?,
    };
    Ok(Endpoint {
        bindings: config::inferred_bindings(bindings, &url),
        url,
        upstream_protocol,
        proxy_protocol,
        verify,
        description: flags.description.unwrap_or_default(),
        metadata: flags.metadata.unwrap_or_default(),
        pooling: flags.pooling_enabled,
        traffic_policy,
        ..Endpoint::new(flags.name.unwrap_or_else(|| NAME.to_owned()), kind, upstream)
    })
}

/// The address, but of a relative path such as `.` or `./site` the whole path: it is
/// no address either, and the refusal shows what to write for it.
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
