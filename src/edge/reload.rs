//! Reload (SIGHUP): reads the configuration and all files that it names again, replaces the
//! settings in one step, and ends what they no longer allow. If a file is not valid, nothing
//! changes. Connections and sessions that stay allowed are not touched.

use super::agents::revocation;
use super::config::EdgeConfig;
use super::context::Edge;
use super::settings::EdgeSettings;
use crate::{event, logging};

/// Reads the configuration. The error has file and line.
pub type ConfigSource = Box<dyn Fn() -> Result<EdgeConfig, String>>;

/// Reads all files again and applies them. Logs the result.
pub fn reload(edge: &Edge, source: &ConfigSource) {
    logging::reopen();
    if let Err(error) = source().and_then(|config| apply(edge, config)) {
        event!(error, obj = "edge", "invalid configuration not applied", err = error);
    }
}

fn apply(edge: &Edge, mut config: EdgeConfig) -> Result<(), String> {
    let old = edge.config();
    let fixed = keep_fixed_keys(&mut config, &old);
    edge.accounts.refresh().map_err(|e| e.to_string())?;
    let accounts = edge.accounts.table();
    let settings =
        EdgeSettings::build(config, &edge.dir, &accounts, &edge.key).map_err(|e| e.to_string())?;
    edge.fetcher.configure(settings.config.fetch.clone());
    *edge.settings.write() = settings;
    // A change since the build.
    edge.apply_accounts();
    if !fixed.is_empty() {
        let keys = fixed.join(", ");
        event!(warn, obj = "edge", "changed options take effect after restart", name = keys);
    }
    let revoked = revocation::enforce(edge);
    event!(
        info,
        obj = "edge",
        "configuration reloaded",
        sessions = revoked.sessions,
        endpoints = revoked.endpoints
    );
    Ok(())
}

/// Keeps the values of the keys that only a restart changes. Returns the keys whose values
/// differ.
fn keep_fixed_keys(new: &mut EdgeConfig, old: &EdgeConfig) -> Vec<&'static str> {
    let mut changed = Vec::new();
    let mut note = |key, differs: bool| {
        if differs {
            changed.push(key);
        }
    };
    note("domain", new.domain != old.domain);
    note("listeners.agent", new.agent != old.agent);
    note("listeners.http", new.http != old.http);
    note("listeners.https", new.https != old.https);
    note("listeners.api", new.api != old.api);
    note("listeners.tcp", new.tcp != old.tcp);
    note("ports", new.ports != old.ports);
    note("state_dir", new.dir != old.dir);
    note("limits.total_buffer_mib", new.limits.total_buffer != old.limits.total_buffer);
    new.domain.clone_from(&old.domain);
    (new.agent, new.http, new.https) = (old.agent, old.http, old.https);
    (new.tcp, new.ports) = (old.tcp, old.ports);
    new.api = old.api;
    new.dir.clone_from(&old.dir);
    new.limits.total_buffer = old.limits.total_buffer;
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn config(text: &str) -> EdgeConfig {
        let credentials = "credentials: [{id: a, authtoken: a_token}]\n";
        let text = format!("{credentials}{text}");
        EdgeConfig::serve(Path::new("edge.yml"), &text, Default::default()).unwrap()
    }

    #[test]
    fn keys_that_need_a_restart_are_named_and_kept() {
        let old = config("domain: a.test\n");
        let mut new = config(
            "domain: b.test\nlisteners: {agent: '127.0.0.1:1', tcp: 127.0.0.1}\nports: 1-2\n\
             domains: [c.test]\nlimits: {visitors: 7, total_buffer_mib: 1}\n",
        );
        let named = keep_fixed_keys(&mut new, &old);
        assert_eq!(
            named,
            ["domain", "listeners.agent", "listeners.tcp", "ports", "limits.total_buffer_mib"]
        );
        assert_eq!((&new.domain, new.agent, new.ports), (&old.domain, old.agent, old.ports));
        assert_eq!((new.domains, new.limits.visitors), (vec!["c.test".to_owned()], 7));
        assert!(keep_fixed_keys(&mut old.clone(), &old).is_empty());
    }
}
