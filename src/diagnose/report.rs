//! The JSON report: system, configuration and all checks. It contains no secrets, so that it
//! can be sent to the operator of an edge or of a network.

use std::fs;
use std::time::SystemTime;

use ring::digest;
use serde_json::{Value, json};

use super::local;
use super::record::{CheckRecord, CheckResult};
use super::state::Diagnosis;
use crate::config::{Agent, Cas, WebAddr};
use crate::features;
use crate::net::proxy_env::Proxy;
use crate::sys;
use crate::tls::x509;

/// Version of the report's form.
const REPORT_VERSION: u32 = 1;

/// Returns the report of a diagnosis.
pub fn report(diagnosis: &Diagnosis<'_>, result: CheckResult, summary: &str) -> Value {
    json!({
        "version": REPORT_VERSION,
        "agent": agent(),
        "time": httpdate::fmt_http_date(SystemTime::now().max(SystemTime::UNIX_EPOCH)),
        "system": system(diagnosis),
        "config": config(diagnosis.config),
        "proxy": proxy(diagnosis).map(|proxy| json!({
            "scheme": proxy.scheme.as_str(),
            "host": proxy.host,
            "port": proxy.port,
            "login": proxy.login.is_some(),
        })),
        "checks": diagnosis.checks.iter().map(|c| check(diagnosis, c)).collect::<Vec<_>>(),
        "certificates": certificates(diagnosis),
        "result": name(result),
        "summary": summary,
    })
}

fn name(result: CheckResult) -> &'static str {
    match result {
        CheckResult::Ok => "ok",
        CheckResult::Skipped => "skipped",
        CheckResult::Warn => "warn",
        CheckResult::Error => "error",
    }
}

fn agent() -> Value {
    let all = [
        ("fetch", features::FETCH),
        ("proxies", features::PROXIES),
        ("web", features::WEB),
        ("inspect", features::INSPECT),
        ("curves", features::CURVES),
    ];
    let features: Vec<&str> = all.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "path": std::env::current_exe().ok(),
        "features": features,
    })
}

fn system(diagnosis: &Diagnosis<'_>) -> Value {
    let interfaces: Vec<Value> = diagnosis
        .interfaces
        .iter()
        .map(|interface| {
            json!({
                "name": interface.name,
                "up": interface.is_running,
                "addresses": interface.addresses,
                "mtu": interface.mtu,
            })
        })
        .collect();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({
        "os": std::env::consts::OS,
        "kernel": kernel.trim(),
        "arch": sys::go_arch(),
        "uptime_s": local::uptime().as_secs(),
        "memory_kb": sys::memory::total() / 1024,
        "descriptors": sys::fd_budget::limit(),
        "interfaces": interfaces,
        "resolvers": diagnosis.dialer.resolver().servers(),
    })
}

/// Returns the options that decide how the edge is reached, without secrets. A proxy's login
/// and the authtoken are only present or absent.
fn config(config: &Agent) -> Value {
    let edges: Vec<&String> =
        std::iter::once(&config.connect_url).chain(&config.further_urls).collect();
    json!({
        "version": config.version,
        "authtoken": !config.authtoken.is_empty(),
        "connect_url": edges,
        "connect_interface": config.connect_interface,
        "connect_cas": match &config.connect_cas {
            Cas::Trusted => "trusted".to_owned(),
            Cas::Host => "host".to_owned(),
            Cas::File(path) => path.display().to_string(),
        },
        "connect_timeout_s": config.connect_timeout.as_secs(),
        "heartbeat_interval_s": config.heartbeat_interval.as_secs(),
        "heartbeat_tolerance_s": config.heartbeat_tolerance.as_secs(),
        "dns_resolver_ips": config.dns_resolver_ips,
        "dns_public_resolvers": config.dns_public_resolvers,
        "crl_noverify": config.crl_noverify,
        "web_addr": match &config.web_addr {
            WebAddr::Off => json!(false),
            WebAddr::Usual => json!("127.0.0.1:4040"),
            WebAddr::At(address) => json!(address),
        },
        "endpoints": config.endpoints.len(),
    })
}

fn proxy<'a>(diagnosis: &'a Diagnosis<'_>) -> Option<&'a Proxy> {
    let (host, port) = crate::net::dial::split_address(&diagnosis.config.connect_url).ok()?;
    diagnosis.dialer.proxy_for(&host, port)
}

fn check(diagnosis: &Diagnosis<'_>, check: &CheckRecord) -> Value {
    let millis =
        |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    json!({
        "section": check.section.name(),
        "region": check.region,
        "check": check.check,
        "target": check.target,
        "address": check.address,
        "resolver": check.resolver,
        "start": millis(check.start.since(diagnosis.start)),
        "ms": millis(check.took),
        "result": name(check.result),
        "code": if check.code == 0 { Value::Null } else { format!("ERR_NGROK_{}", check.code).into() },
        "err": check.err,
        "advice": check.advice,
    })
}

fn certificates(diagnosis: &Diagnosis<'_>) -> Vec<Value> {
    let certificate = |(host, address, der): &(String, String, _)| {
        let der: &[u8] = AsRef::<[u8]>::as_ref(der);
        let (subject, issuer) = x509::subject_and_issuer(der).unwrap_or_default();
        let (start, end) = x509::validity(der).unzip();
        let time = |time: Option<SystemTime>| time.map(httpdate::fmt_http_date);
        let sha256 = digest::digest(&digest::SHA256, der);
        json!({
            "host": host,
            "address": address,
            "subject": subject,
            "names": x509::dns_names(der),
            "issuer": issuer,
            "not_before": time(start),
            "not_after": time(end),
            "sha256": sha256.as_ref().iter().map(|b| format!("{b:02x}")).collect::<String>(),
        })
    };
    diagnosis.certificates.iter().map(|(h, a, d)| certificate(&(h.clone(), a.clone(), d))).collect()
}
