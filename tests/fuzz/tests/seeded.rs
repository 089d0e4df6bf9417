//! A short run of every target, always with the same inputs.

use culvert::mux::fault_injection::{self, Bug};
use culvert_fuzz::{TARGETS, driver};

fn run(name: &str) {
    let target = *TARGETS.iter().find(|target| target.name == name).expect("a target");
    let runs = driver::runs(target);
    let done = driver::run(target, driver::seed(), |done| done < runs);
    println!("{name}: {done} inputs");
}

#[test]
fn frame() {
    run("frame");
}

#[test]
fn session_ops() {
    run("session_ops");
}

#[test]
fn session_hostile() {
    run("session_hostile");
}

#[test]
fn proxy_header() {
    run("proxy_header");
}

#[test]
fn proxy_protocol() {
    run("proxy_protocol");
}

#[test]
fn http_head() {
    run("http_head");
}

#[test]
fn dns_reply() {
    run("dns_reply");
}

#[test]
fn messages() {
    run("messages");
}

#[test]
fn web_request() {
    run("web_request");
}

#[test]
fn config() {
    run("config");
}

#[test]
fn policy_document() {
    run("policy_document");
}

#[test]
fn policy_expression() {
    run("policy_expression");
}

#[test]
fn policy_replacement() {
    run("policy_replacement");
}

#[test]
fn jwt() {
    run("jwt");
}

#[test]
fn addr_url() {
    run("addr_url");
}

#[test]
fn http1_request() {
    run("http1_request");
}

#[test]
fn http1_response() {
    run("http1_response");
}

#[test]
fn http1_chunked() {
    run("http1_chunked");
}

#[test]
fn tls_records() {
    run("tls_records");
}

#[test]
fn connect_answer() {
    run("connect_answer");
}

#[test]
fn edge_head() {
    run("edge_head");
}

#[test]
fn update_manifest() {
    run("update_manifest");
}

#[test]
fn rest_filter() {
    run("rest_filter");
}

#[test]
fn rest_request() {
    run("rest_request");
}

/// A check that accepts everything would be worth nothing: both targets that run sessions must
/// find injected faults.
#[test]
fn injected_faults_are_found() {
    for (name, bug) in [
        ("session_ops", Bug::GrantIgnoresWindow),
        ("session_ops", Bug::WindowOffByOne),
        ("session_ops", Bug::ParityMixed),
        ("session_ops", Bug::ResetLeaks),
        ("session_ops", Bug::FinOvertakes),
        ("session_hostile", Bug::DoubleRst),
        ("session_hostile", Bug::ResetStreamForgotten),
        ("session_hostile", Bug::TypeNotCounted),
        ("session_hostile", Bug::TypeWaitsForEver),
    ] {
        let target = *TARGETS.iter().find(|target| target.name == name).expect("a target");
        fault_injection::inject(Some(bug));
        let ran = std::panic::catch_unwind(|| driver::run(target, 1, |done| done < target.runs));
        fault_injection::inject(None);
        assert!(ran.is_err(), "{name} does not see {bug:?}");
    }
}

/// A driver without failures would be worth nothing.
#[test]
fn the_driver_notices_a_failure() {
    let mut target = TARGETS[0];
    target.check = |data| assert!(data.len() < 10, "long");
    let ran = std::panic::catch_unwind(|| driver::run(target, 1, |done| done < 100));
    assert!(ran.is_err());
}

/// A failing target does not prevent the others from running, and is listed.
#[test]
fn the_driver_runs_all_targets_and_lists_failures() {
    let mut targets = TARGETS;
    targets[0].check = |_| panic!("always");
    let mut ran = Vec::new();
    let failed = driver::run_all(&targets[..3], |target| {
        ran.push(target.name);
        if target.name == targets[0].name {
            driver::run(target, 1, |done| done < 1);
        }
    });
    assert_eq!(failed, [targets[0].name]);
    assert_eq!(ran.len(), 3);
}
