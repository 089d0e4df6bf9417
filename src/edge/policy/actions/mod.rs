//! The actions of policies, one file each, and the table of their compilers.

use std::sync::Arc;

use super::action::PolicyAction;
use super::reader::ConfigReader;

mod custom_response;
mod deny;
mod forward_internal;
mod headers;
mod log_line;
mod set_vars;

/// Compiles the configuration of an action. Returns `None` after a fault.
pub fn compile_action(name: &str, config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    match name {
        "add-headers" => headers::add(config),
        "custom-response" => custom_response::compile(config),
        "deny" => deny::compile(config),
        "forward-internal" => forward_internal::compile(config),
        "log" => log_line::compile(config),
        "remove-headers" => headers::remove(config),
        "set-vars" => set_vars::compile(config),
        _ => {
            config.fault_here(2201, format!("this edge does not support the action '{name}'."));
            None
        }
    }
}
