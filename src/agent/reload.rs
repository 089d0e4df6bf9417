//! SIGHUP: the configuration is read again, and what is different is made so. What did
//! not change is not touched; a configuration with a fault changes nothing.

use super::supervisor::Supervisor;
use crate::config::Agent;
use crate::event;
use crate::sys;

impl Supervisor {
    /// Reads the configuration again and follows it.
    pub(super) fn reload(&mut self) {
        let us = sys::awake().as_micros();
        self.machine.tell(&format!("RELOADING=1\nMONOTONIC_USEC={us}"));
        let read = self.reread.as_mut().map(|reread| reread());
        match read {
            None => event!(info, obj = "app", "nothing to read again", reason = "SIGHUP"),
            Some(Ok(config)) => self.follow(config),
            Some(Err(e)) => {
                let msg = "the configuration has a fault: everything stays as it is";
                event!(error, obj = "app", msg, err = e);
            }
        }
        self.machine.tell("READY=1");
    }

    fn follow(&mut self, mut new: Agent) {
        let endpoints = std::mem::take(&mut new.endpoints);
        let options = changed(&self.shared.config, &new).join(", ");
        if !options.is_empty() {
            let msg = "options have changed that count from the next start on";
            event!(warn, obj = "app", msg, name = options);
        }
        let (mut gone, mut added, mut altered) = (0, 0, 0);
        // Names that others gave away stay theirs.
        for index in (0..self.endpoints.len()).rev() {
            let endpoint = &self.endpoints[index];
            if endpoint.configured && !endpoints.iter().any(|e| e.name == endpoint.config.name) {
                self.remove(index, None);
                gone += 1;
            }
        }
        for config in endpoints {
            let found = self.endpoints.iter().position(|e| e.config.name == config.name);
            match found {
                None => {
                    self.add(config, None);
                    added += 1;
                }
                Some(index) if self.endpoints[index].configured => {
                    let endpoint = &self.endpoints[index];
                    if *endpoint.config != config || endpoint.is_down() {
                        self.alter(index, config, None);
                        altered += 1;
                    }
                }
                Some(_) => {
                    let msg = "an endpoint of that name was started otherwise: left alone";
                    event!(warn, obj = "tunnels", msg, name = config.name);
                }
            }
        }
        event!(
            info,
            obj = "app",
            "configuration read again",
            started = added,
            stopped = gone,
            changed = altered
        );
        self.dirty = true;
    }
}

/// The options that are not the same.
fn changed(old: &Agent, new: &Agent) -> Vec<&'static str> {
    let mut names = Vec::new();
    macro_rules! compare {
        ($($field:ident)*) => {$(
            if old.$field != new.$field {
                names.push(stringify!($field));
            }
        )*};
    }
    compare!(authtoken connect_url further_urls connect_interface proxy_url dns_resolver_ips);
    compare!(dns_public_resolvers crl_noverify crl_url connect_cas connect_timeout);
    compare!(heartbeat_interval heartbeat_tolerance metadata remote_management max_connections);
    compare!(memory_limit client_version state_dir web_addr web_allow_hosts inspect_db_size);
    compare!(console_ui console_transparent);
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn options_that_differ_are_named() {
        let old = Agent::default();
        let mut new = Agent::default();
        assert!(changed(&old, &new).is_empty());
        new.heartbeat_interval = Duration::from_secs(3);
        new.authtoken = crate::proto::secret::Secret::new("another");
        assert_eq!(changed(&old, &new), ["authtoken", "heartbeat_interval"]);
    }
}
