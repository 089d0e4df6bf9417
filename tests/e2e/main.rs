//! End-to-end tests: the real programs on loopback, one file for each promise.
//!
//! One binary, so that the support is linked once and the promises are tested side by side. A
//! test asserts what a visitor, an upstream or the user would see, and never a duration.

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "api")]
mod api_command;
#[cfg(feature = "api")]
mod api_manages_edge;
mod bulk_transfers;
mod common_programs;
mod config_versions;
#[cfg(feature = "console")]
mod console;
mod dead_links;
mod dev_servers;
mod diagnose_command;
mod dns_resolution;
mod edge_answers;
mod edge_commands;
mod edge_deadlines;
mod edge_limits;
mod edge_logins;
mod edge_options;
mod edge_policy;
mod edge_policy_actions;
mod edge_policy_requests;
mod edge_policy_shapes;
mod edge_policy_tokens;
mod edge_proxies;
mod edge_reload;
mod edge_rest;
mod edge_rest_agents;
mod edge_rest_certificates;
mod edge_rest_faults;
mod edge_serve;
mod edge_takeover;
#[cfg(feature = "update")]
mod edge_updates;
mod endpoint_options;
mod event_streams;
mod exhausted_resources;
mod fair_shares;
mod fairness;
mod file_upstreams;
mod half_close;
mod hostile_peers;
mod http_passthrough;
mod inspection_is_invisible;
mod labelled_tunnels;
mod legs;
mod library_handle;
mod log_output;
mod memory_limit;
#[cfg(all(feature = "web", feature = "inspect"))]
mod metrics;
mod outbound_proxies;
mod overload;
#[cfg(all(feature = "web", feature = "inspect"))]
mod pinned_strings;
mod pooling;
mod portable;
mod reconnect;
mod regressions;
mod reload;
mod revocation;
mod sd_notify;
mod secrets;
mod self_checks;
mod shutdown;
mod slow_peers;
#[cfg(all(feature = "tools", feature = "web"))]
mod state_command;
mod status_command;
#[cfg(feature = "visitor-tls")]
mod tls_at_agent;
mod tls_passthrough;
mod tls_refusals;
#[cfg(feature = "update")]
mod update_command;
#[cfg(feature = "update")]
mod update_of_a_running_agent;
mod upstream_certificates;
mod upstreams;
mod url_assignment;
#[cfg(feature = "web")]
mod web_api;
#[cfg(all(feature = "web", feature = "inspect"))]
mod web_captured_requests;
#[cfg(feature = "web")]
mod web_cross_site;
#[cfg(feature = "web")]
mod web_slow_clients;
mod websocket;
