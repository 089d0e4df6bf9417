//! The actions of policies, one file each, and the table of their compilers.

use std::sync::Arc;

use super::action::PolicyAction;
use super::reader::ConfigReader;

mod basic_auth;
mod body_find_replace;
mod circuit_breaker;
mod close_connection;
mod compress_response;
mod custom_response;
mod deny;
mod forward_internal;
mod headers;
mod http_attempt;
mod http_request;
mod jwt_validation;
mod log_line;
mod login;
mod rate_limit;
mod redirect;
mod restrict_ips;
mod set_vars;
mod sse_find_replace;
mod terminate_tls;
mod url_rewrite;
mod url_rule;
mod verify_webhook;

/// Compiles the configuration of an action. Returns `None` after a fault.
pub fn compile_action(name: &str, config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    match name {
        "add-headers" => headers::add(config),
        "basic-auth" => basic_auth::compile(config),
        "circuit-breaker" => circuit_breaker::compile(config),
        "close-connection" => close_connection::compile(config),
        "compress-response" => compress_response::compile(config),
        "custom-response" => custom_response::compile(config),
        "deny" => deny::compile(config),
        "forward-internal" => forward_internal::compile(config),
        "http-request" => http_request::compile(config),
        "jwt-validation" => jwt_validation::compile(config),
        "log" => log_line::compile(config),
        "oauth" => login::oauth(config),
        "openid-connect" => login::openid(config),
        "rate-limit" => rate_limit::compile(config),
        "redirect" => redirect::compile(config),
        "remove-headers" => headers::remove(config),
        "request-body-find-replace" | "response-body-find-replace" => {
            body_find_replace::compile(config)
        }
        "restrict-ips" => restrict_ips::compile(config),
        "set-vars" => set_vars::compile(config),
        "sse-find-replace" => sse_find_replace::compile(config),
        "terminate-tls" => terminate_tls::compile(config),
        "url-rewrite" => url_rewrite::compile(config),
        "verify-webhook" => verify_webhook::compile(config),
        _ => {
            config.fault_here(2201, format!("this edge does not support the action '{name}'."));
            None
        }
    }
}

#[cfg(test)]
mod tests;
