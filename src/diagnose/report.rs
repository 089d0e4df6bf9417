//! The JSON report: system, configuration and all checks. It contains no secrets, so that it
//! can be sent to the operator of an edge or of a network.

use std::fs;
use std::time::{Duration, SystemTime};

use ring::digest;

use super::json::IndentedJson;
use super::local;
use super::record::{CheckRecord, CheckResult};
use super::state::Diagnosis;
use crate::config::{Agent, Cas, WebAddr};
use crate::features;
use crate::net::dial;
use crate::proto::hex::hex;
use crate::sys;
use crate::tls::x509;

/// Version of the report's form.
const REPORT_VERSION: u32 = 1;

/// Returns the report of a diagnosis.
#[inline(never)]
pub fn report(diagnosis: &Diagnosis<'_>, result: CheckResult, summary: &str) -> String {
    let mut json = IndentedJson::new();
    json.plain("version", &REPORT_VERSION);
    agent(&mut json);
    let now = SystemTime::now().max(SystemTime::UNIX_EPOCH);
    json.text("time", &httpdate::fmt_http_date(now));
    system(&mut json, diagnosis);
    config(&mut json, diagnosis.config);
    proxy(&mut json, diagnosis);
    json.open("checks", '[');
    for check in &diagnosis.checks {
        write_check(&mut json, diagnosis, check);
    }
    json.close(']');
    json.open("certificates", '[');
    for (host, address, der) in &diagnosis.certificates {
        certificate(&mut json, host, address, der);
    }
    json.close(']');
    json.text("result", &name(result));
    json.text("summary", &summary);
    json.finish()
}

fn name(result: CheckResult) -> &'static str {
    match result {
        CheckResult::Ok => "ok",
        CheckResult::Skipped => "skipped",
        CheckResult::Warn => "warn",
        CheckResult::Error => "error",
    }
}

fn agent(json: &mut IndentedJson) {
    let features = [
        ("fetch", features::FETCH),
        ("proxies", features::PROXIES),
        ("web", features::WEB),
        ("inspect", features::INSPECT),
        ("curves", features::CURVES),
    ];
    json.open("agent", '{');
    json.text("version", &env!("CARGO_PKG_VERSION"));
    match std::env::current_exe() {
        Ok(path) => json.text("path", &path.display()),
        Err(_) => json.null("path"),
    }
    json.open("features", '[');
    for (name, is_on) in features {
        if is_on {
            json.text("", &name);
        }
    }
    json.close(']');
    json.close('}');
}

fn system(json: &mut IndentedJson, diagnosis: &Diagnosis<'_>) {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json.open("system", '{');
    json.text("os", &std::env::consts::OS);
    json.text("kernel", &kernel.trim());
    json.text("arch", &sys::go_arch());
    json.plain("uptime_s", &local::uptime().as_secs());
    json.plain("memory_kb", &(sys::memory::total() / 1024));
    json.plain("descriptors", &sys::fd_budget::limit());
    json.open("interfaces", '[');
    for interface in &diagnosis.interfaces {
        json.open("", '{');
        json.text("name", &interface.name);
        json.plain("up", &interface.is_running);
        json.texts("addresses", &interface.addresses);
        match interface.mtu {
            Some(mtu) => json.plain("mtu", &mtu),
            None => json.null("mtu"),
        }
        json.close('}');
    }
    json.close(']');
    json.texts("resolvers", &diagnosis.dialer.resolver().servers());
    json.close('}');
}

/// Writes the options that decide how the edge is reached, without secrets. A proxy's login and
/// the authtoken are only present or absent.
fn config(json: &mut IndentedJson, config: &Agent) {
    json.open("config", '{');
    match config.version.as_str() {
        // Without a file.
        "" => json.null("version"),
        version => json.plain("version", &version),
    }
    json.plain("authtoken", &!config.authtoken.is_empty());
    json.open("connect_url", '[');
    json.text("", &config.connect_url);
    for address in &config.further_urls {
        json.text("", address);
    }
    json.close(']');
    json.text("connect_interface", &config.connect_interface);
    match &config.connect_cas {
        Cas::Trusted => json.text("connect_cas", &"trusted"),
        Cas::Host => json.text("connect_cas", &"host"),
        Cas::File(path) => json.text("connect_cas", &path.display()),
    }
    json.plain("connect_timeout_s", &config.connect_timeout.as_secs());
    json.plain("heartbeat_interval_s", &config.heartbeat_interval.as_secs());
    json.plain("heartbeat_tolerance_s", &config.heartbeat_tolerance.as_secs());
    json.texts("dns_resolver_ips", &config.dns_resolver_ips);
    json.texts("dns_public_resolvers", &config.dns_public_resolvers);
    json.plain("crl_noverify", &config.crl_noverify);
    match &config.web_addr {
        WebAddr::Off => json.plain("web_addr", &false),
        WebAddr::Usual => json.text("web_addr", &"127.0.0.1:4040"),
        WebAddr::At(address) => json.text("web_addr", address),
    }
    json.plain("endpoints", &config.endpoints.len());
    json.close('}');
}

/// Writes the proxy of the first edge, or `null`.
fn proxy(json: &mut IndentedJson, diagnosis: &Diagnosis<'_>) {
    let edge = dial::split_address(&diagnosis.config.connect_url).ok();
    let found = edge.and_then(|(host, port)| diagnosis.dialer.proxy_for(&host, port));
    let Some(proxy) = found else { return json.null("proxy") };
    json.open("proxy", '{');
    json.text("scheme", &proxy.scheme.as_str());
    json.text("host", &proxy.host);
    json.plain("port", &proxy.port);
    json.plain("login", &proxy.login.is_some());
    json.close('}');
}

fn write_check(json: &mut IndentedJson, diagnosis: &Diagnosis<'_>, check: &CheckRecord) {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    json.open("", '{');
    json.text("section", &check.section.name());
    json.text("region", &check.region);
    json.text("check", &check.check);
    json.text("target", &check.target);
    json.text("address", &check.address);
    json.text("resolver", &check.resolver);
    json.plain("start", &millis(check.start.since(diagnosis.start)));
    json.plain("ms", &millis(check.took));
    json.text("result", &name(check.result));
    match check.code {
        0 => json.null("code"),
        code => json.text("code", &format_args!("ERR_NGROK_{code}")),
    }
    json.text("err", &check.err);
    json.text("advice", &check.advice);
    json.close('}');
}

fn certificate(json: &mut IndentedJson, host: &str, address: &str, der: &[u8]) {
    let (subject, issuer) = x509::subject_and_issuer(der).unwrap_or_default();
    let (start, end) = x509::validity(der).unzip();
    let sha256 = hex(digest::digest(&digest::SHA256, der).as_ref());
    json.open("", '{');
    json.text("host", &host);
    json.text("address", &address);
    json.text("subject", &subject);
    json.texts("names", &x509::dns_names(der));
    json.text("issuer", &issuer);
    for (key, time) in [("not_before", start), ("not_after", end)] {
        match time {
            Some(time) => json.text(key, &httpdate::fmt_http_date(time)),
            None => json.null(key),
        }
    }
    json.text("sha256", &sha256);
    json.close('}');
}
