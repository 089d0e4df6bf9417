//! Auth (protocol 5.4): what the agent says of itself, and what becomes of the answer.

use super::commands::{NO_REMOTE, NO_UPDATE};
use super::failure::LegFailure;
use super::leg::Leg;
use super::supervisor::{Supervisor, backoff, keep_descriptors};
use crate::config::{self, Cas};
use crate::event;
use crate::proto::codes::{self, Verdict};
use crate::proto::messages::{AuthExtra, AuthRequest, AuthResponse, AuthResponseExtra};
use crate::sys;
use crate::time::Deadline;

/// Legs that an edge may ask for, with the first one.
const MAX_LEGS: usize = 8;
/// What the user agent tells of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Supervisor {
    pub(super) fn authenticated(&mut self, at: usize, bytes: &[u8]) -> Result<(), LegFailure> {
        let response = AuthResponse::decode(bytes)
            .map_err(|e| LegFailure::Retry(format!("the edge's answer to Auth: {e}")))?;
        if let Some(refusal) = response.error {
            let text = refusal.to_string();
            return Err(match codes::auth_verdict(refusal.code, self.when()) {
                Verdict::Final => LegFailure::Final(refusal),
                Verdict::Retry => LegFailure::Retry(text),
                Verdict::RetrySlowly => LegFailure::RetrySlowly(text),
                Verdict::ForgetCookie => LegFailure::ForgetCookie(text),
            });
        }
        let about = response.extra;
        event!(
            info,
            obj = "tunnels.session",
            "client session established",
            region = about.region,
            account = about.account_name
        );
        if !about.banner.is_empty() && about.banner != self.about.banner {
            event!(info, obj = "tunnels.session", about.banner);
        }
        if let Some(deprecation) = &about.deprecation
            && self.about.deprecation.as_ref() != Some(deprecation)
        {
            event!(
                warn,
                obj = "tunnels.session",
                deprecation.message,
                version = deprecation.next_min,
                date = deprecation.next_date
            );
        }
        // The newest cookie counts for all legs of one client.
        for leg in &mut self.legs {
            if leg.client_id == response.client_id {
                leg.cookie = about.cookie.clone();
            }
        }
        let leg = &mut self.legs[at];
        leg.client_id = response.client_id;
        leg.cookie = about.cookie.clone();
        leg.region = about.region.clone();
        leg.as_new_client = false;
        if let Some(live) = leg.live() {
            live.authenticated = true;
        }
        if at == 0 {
            self.announced(&about);
        }
        if at == 0 || self.about.account_name.is_empty() {
            self.about = about;
        }
        Ok(())
    }

    /// The edge may ask for further legs, in its first answer (protocol 1).
    fn announced(&mut self, about: &AuthResponseExtra) {
        let list = &about.connect_addresses;
        if self.legs.len() > 1 || list.len() < 2 {
            return;
        }
        if self.shared.config.connect_url == config::DEFAULT_EDGE {
            // From the next attempt on.
            self.legs[0].address.clone_from(&list[0].1);
        }
        // What a limit leaves has been divided among the legs that the configuration has.
        if self.shared.config.memory_limit.is_some() {
            // Each session of that edge announces them again.
            if !std::mem::replace(&mut self.ignored_legs_logged, true) {
                let why = "memory_limit has no room for them; addresses in connect_url get theirs";
                event!(info, obj = "csess", "no further legs", count = list.len() - 1, err = why);
            }
            return;
        }
        for (_, address) in list.iter().take(MAX_LEGS).skip(1) {
            if crate::net::dial::split_address(address).is_err() {
                event!(warn, obj = "csess", "no address for a leg", addr = address);
                continue;
            }
            self.seed = self.seed.rotate_left(9);
            let backoff = backoff(&self.shared.config, self.seed);
            self.legs.push(Leg::new(address, true, Deadline::Never, backoff));
        }
        keep_descriptors(self.legs.len());
        for endpoint in &mut self.endpoints {
            endpoint.add_legs(self.legs.len());
        }
    }

    pub(super) fn auth_request(&self, at: usize) -> AuthRequest {
        let c = &self.shared.config;
        let (update, other) = match c.remote_management {
            true => (NO_UPDATE, ""),
            false => (NO_REMOTE, NO_REMOTE),
        };
        // A leg that is new to its edge belongs to the client that the others are.
        let leg = &self.legs[at];
        let known = |leg: &&Leg| !leg.client_id.is_empty();
        let who = Some(leg).filter(known).or_else(|| self.legs.iter().find(known));
        let who = who.filter(|_| !leg.as_new_client);
        AuthRequest {
            versions: vec!["3".into(), "2".into()],
            client_id: who.map(|leg| leg.client_id.clone()).unwrap_or_default(),
            extra: AuthExtra {
                os: std::env::consts::OS.into(),
                arch: sys::go_arch().into(),
                authtoken: c.authtoken.clone(),
                version: c.client_version.clone(),
                user_agent: format!("culvert/{VERSION}"),
                metadata: c.metadata.clone(),
                cookie: who.map(|leg| leg.cookie.clone()).unwrap_or_default(),
                heartbeat_interval: c.heartbeat_interval,
                heartbeat_tolerance: c.heartbeat_tolerance,
                update_unsupported: Some(update.into()),
                stop_unsupported: Some(other.into()),
                restart_unsupported: Some(other.into()),
                proxy_type: self.dialer.proxy_type().into(),
                service_run: sys::sd_notify::is_service(),
                custom_interface: self.dialer.custom_interface(),
                custom_cas: c.connect_cas != Cas::Trusted,
                config_version: c.version.clone(),
                client_type: "culvert".into(),
                leg_number: u64::try_from(at).unwrap_or_default(),
                ..AuthExtra::default()
            },
        }
    }
}
