//! Bindings of an endpoint: the networks from which it can be reached.

use super::public_url::is_internal;

/// Checks a list of bindings.
pub fn check_bindings(bindings: &[String]) -> Result<(), String> {
    let known = ["public", "internal", "kubernetes"];
    match bindings {
        [] => Ok(()),
        [one] if known.contains(&one.as_str()) => Ok(()),
        [_] => Err("must be public, internal or kubernetes".to_owned()),
        _ => Err("must be one of public, internal, kubernetes: an endpoint has one".to_owned()),
    }
}

/// Returns the bindings of an endpoint. A URL below `.internal` implies `internal`.
pub fn inferred_bindings(bindings: Vec<String>, url: &str) -> Vec<String> {
    if bindings.is_empty() && is_internal(url) {
        return vec!["internal".to_owned()];
    }
    bindings
}
