//! Diagnosis of the way to the edge, layer by layer, with the means of the agent: the same
//! resolver, dialer, TLS and session. Nothing is changed or stored, so that it can run beside an
//! agent. The command line and files belong to [`crate::cli`].
//!
//! Each probe has a deadline, and so has the whole. Probes are made one after the other. The
//! layers are not inlined: one function of all would have a frame of 11 KB, and longer
//! instructions.

mod advice;
mod crl;
mod edge;
mod internet;
mod json;
mod local;
mod names;
mod proxy;
mod record;
mod report;
mod state;
mod text;
mod tunnel;

use std::time::Duration;

use crate::config::public_url::PortPolicy;
use crate::config::{Agent, DEFAULT_EDGE};
use crate::net::{Dialer, dial};
use edge::TestedEdge;
use record::{CheckRecord, CheckResult, Section};
use state::Diagnosis;
pub use state::Print;

/// Time of a diagnosis.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Time of a diagnosis of all regions.
const ALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The region that the service chooses.
pub const AUTO: &str = "auto";
/// All regions, or all edges of the configuration.
pub const ALL: &str = "all";
/// Regions of the vendor's service.
const REGIONS: [&str; 9] = ["us", "us-cal-1", "eu", "eu-lon-1", "ap", "au", "sa", "jp", "in"];

/// Result of a diagnosis.
pub struct Diagnosed {
    /// Whether the edge can be reached. Warnings do not matter.
    pub is_fine: bool,
    /// The report in JSON.
    pub report: String,
}

/// Returns why a region cannot be tested with this configuration, if so.
pub fn check_region(config: &Agent, region: &str) -> Result<(), String> {
    if region == AUTO || region == ALL || !has_own_edge(config) {
        return Ok(());
    }
    Err(format!(
        "--region {region} is for the vendor's edge, and connect_url is {}; leave it out",
        config.connect_url
    ))
}

/// Tests the layers for a configuration, and prints the results.
pub fn run(
    config: &Agent,
    region: &str,
    ipv6: bool,
    print: Print<'_>,
) -> Result<Diagnosed, String> {
    let dialer = Dialer::new(config).map_err(|refusal| refusal.to_string())?;
    let edges = edges(config, region)?;
    let total = if region == ALL { ALL_TIMEOUT } else { TOTAL_TIMEOUT };
    let mut diagnosis = Diagnosis::new(config, dialer, ipv6, total, print);
    diagnosis.section("Testing ngrok connectivity...\n\nLocal Network")?;
    let hosts: Vec<String> = edges.iter().map(|edge| edge.host.clone()).collect();
    local::test_link(&mut diagnosis, &hosts)?;
    if let Some(edge) = edges.first() {
        proxy::test(&mut diagnosis, &edge.host, edge.port)?;
    }
    if !has_own_edge(config) {
        diagnosis.section("Internet Connectivity")?;
        internet::test(&mut diagnosis)?;
    }
    diagnosis.section("Localhost Connectivity")?;
    local::test_localhost(&mut diagnosis)?;
    for edge in &edges {
        let region = match edge.region.as_str() {
            AUTO => "Auto (lowest latency)",
            region => region,
        };
        diagnosis.section(&format!("Ngrok Connectivity - Region: {region}"))?;
        edge::test(&mut diagnosis, edge)?;
    }
    finish(&mut diagnosis)
}

/// Returns the edges of a region.
fn edges(config: &Agent, region: &str) -> Result<Vec<TestedEdge>, String> {
    let is_public = PortPolicy::of_edge(&config.connect_url) == PortPolicy::Vendor;
    let mut edges = Vec::new();
    let mut add = |region: &str, address: &str| {
        let (host, port) = dial::split_address(address)?;
        edges.push(TestedEdge { region: region.to_owned(), host, port, is_public });
        Ok::<(), String>(())
    };
    let (is_all, is_own) = (region == ALL, has_own_edge(config));
    if is_all || is_own || region == AUTO {
        add(AUTO, &config.connect_url)?;
    }
    if is_own {
        for address in config.further_urls.iter().filter(|_| is_all) {
            add(address, address)?;
        }
        return Ok(edges);
    }
    for name in REGIONS.iter().filter(|name| is_all || **name == region) {
        add(name, &format!("connect.{name}.ngrok-agent.com"))?;
    }
    Ok(edges)
}

/// Returns whether the configuration names an edge other than the default one.
fn has_own_edge(config: &Agent) -> bool {
    config.connect_url != DEFAULT_EDGE
}

/// Prints the summary.
fn finish(diagnosis: &mut Diagnosis<'_>) -> Result<Diagnosed, String> {
    // An edge that can be reached proves the link.
    let is_error =
        |check: &CheckRecord| check.result == CheckResult::Error && check.section != Section::Local;
    let is_fine = diagnosis.fastest.is_some() && !diagnosis.checks.iter().any(is_error);
    let has_warning = diagnosis.checks.iter().any(|check| check.result >= CheckResult::Warn);
    let result = match (is_fine, has_warning) {
        (false, _) => CheckResult::Error,
        (true, true) => CheckResult::Warn,
        (true, false) => CheckResult::Ok,
    };
    let tree = text::tree(&diagnosis.checks);
    let summary = match &diagnosis.fastest {
        Some((region, latency)) if is_fine => format!(
            "Successfully established ngrok connection! (region: '{region}', latency: {})",
            text::go_duration(*latency)
        ),
        _ => format!("Error establishing ngrok connection: {}", diagnosis.failure),
    };
    let text = match (is_fine, tree.is_empty()) {
        (true, true) => summary.clone(),
        (true, false) => format!(
            "{summary}\n\nWarnings and non-fatal errors encountered during diagnostics:\n\n{tree}"
        ),
        (false, _) => {
            format!("\nErrors and warnings encountered during diagnostics:\n\n{tree}\n{summary}")
        }
    };
    diagnosis.section(text.trim_end())?;
    Ok(Diagnosed { is_fine, report: report::report(diagnosis, result, &summary) })
}
