//! Auth (protocol 5.4): the request of a leg, and the meaning of its response. Sends nothing
//! and changes nothing: see `legs`.

use super::commands::NO_REMOTE;
use super::failure::LegFailure;
use super::legs::Legs;
use super::updates;
use crate::config::public_url::PortPolicy;
use crate::config::{self, Cas};
use crate::net::Dialer;
use crate::proto::codes::{self, Verdict, When};
use crate::proto::messages::{AuthExtra, AuthRequest, AuthResponse};
use crate::sys;

/// Version in the user agent.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Decodes a response. A refusal is an error with its consequence.
pub(super) fn response(bytes: &[u8], when: When) -> Result<AuthResponse, LegFailure> {
    let mut response = AuthResponse::decode(bytes)
        .map_err(|e| LegFailure::Retry(format!("invalid response to Auth: {e}")))?;
    let Some(refusal) = response.error.take() else { return Ok(response) };
    let text = refusal.to_string();
    Err(match codes::auth_verdict(refusal.code, when) {
        Verdict::Final => LegFailure::Final(refusal),
        Verdict::Retry => LegFailure::Retry(text),
        Verdict::RetrySlowly => LegFailure::RetrySlowly(text),
        Verdict::ForgetCookie => LegFailure::ForgetCookie(text),
    })
}

/// Returns the request of the leg at index `at`.
pub(super) fn request<S>(
    config: &config::Agent,
    dialer: &Dialer,
    legs: &Legs<S>,
    at: usize,
    max_streams: usize,
) -> AuthRequest {
    let (update, other) = match config.remote_management {
        true => (updates::unsupported(config), ""),
        false => (NO_REMOTE, NO_REMOTE),
    };
    let identity = legs.identity(at);
    AuthRequest {
        versions: vec!["3".into(), "2".into()],
        client_id: identity.map(|leg| leg.client_id.clone()).unwrap_or_default(),
        extra: AuthExtra {
            os: std::env::consts::OS.into(),
            arch: sys::go_arch().into(),
            authtoken: config.authtoken.clone(),
            version: config.client_version.clone(),
            user_agent: format!("culvert/{VERSION}"),
            metadata: config.metadata.clone(),
            cookie: identity.map(|leg| leg.cookie.clone()).unwrap_or_default(),
            heartbeat_interval: config.heartbeat_interval,
            heartbeat_tolerance: config.heartbeat_tolerance,
            update_unsupported: Some(update.into()),
            stop_unsupported: Some(other.into()),
            restart_unsupported: Some(other.into()),
            proxy_type: dialer.proxy_type().into(),
            service_run: config.service_run || sys::sd_notify::is_service(),
            custom_interface: dialer.custom_interface(),
            custom_cas: config.connect_cas != Cas::Trusted,
            config_version: config.version.clone(),
            client_type: "culvert".into(),
            leg_number: u64::try_from(at).unwrap_or_default(),
            max_streams: match PortPolicy::of_edge(&config.connect_url) {
                PortPolicy::Vendor => 0,
                _ => u64::try_from(max_streams).unwrap_or_default(),
            },
            ..AuthExtra::default()
        },
    }
}
