//! Reading the configuration again: the consequence of each reason, and the options that
//! differ. Decisions only; the supervisor starts the thread that reads.

use std::sync::Arc;

use crate::config::Agent;
use crate::sys::sync::Mutex;

/// Reads the configuration. The text of an error is for the user.
pub(super) type ReadConfig = Box<dyn FnMut() -> Result<Agent, String> + Send>;

/// Whether the configuration is being read.
#[derive(Default)]
pub(super) struct Reload {
    pub(super) read: Option<Arc<Mutex<ReadConfig>>>,
    reading: bool,
    /// A SIGHUP arrived during the reading: the file may have changed again.
    read_again: bool,
}

/// Consequence of a reason to read the configuration.
pub(super) enum ReloadPlan {
    /// Read it, on a thread.
    Read(Arc<Mutex<ReadConfig>>),
    /// Nothing now. It is read again when the thread has finished.
    Later,
    /// The edge has to repeat its request.
    Busy,
    /// The program was started without a file.
    NoConfig,
}

impl Reload {
    /// Returns the plan for a SIGHUP, or for a restart that the edge requests.
    pub(super) fn plan(&mut self, hangup: bool) -> ReloadPlan {
        match &self.read {
            _ if self.reading && hangup => {
                self.read_again = true;
                ReloadPlan::Later
            }
            _ if self.reading => ReloadPlan::Busy,
            None => ReloadPlan::NoConfig,
            Some(read) => {
                self.reading = true;
                ReloadPlan::Read(Arc::clone(read))
            }
        }
    }

    /// Records that the thread has finished, or did not start.
    pub(super) fn finished(&mut self) {
        self.reading = false;
    }

    /// Returns whether a SIGHUP arrived in the meantime.
    pub(super) fn take_read_again(&mut self) -> bool {
        std::mem::take(&mut self.read_again)
    }
}

/// Returns the options that differ. Endpoints are not included.
pub(super) fn changed_options(old: &Agent, new: &Agent) -> Vec<&'static str> {
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
    compare!(memory_limit client_version state_dir on_state_change web_addr web_allow_hosts inspect_db_size);
    compare!(console_ui console_transparent update);
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
        assert!(changed_options(&old, &new).is_empty());
        new.heartbeat_interval = Duration::from_secs(3);
        new.authtoken = crate::proto::secret::Secret::new("another");
        assert_eq!(changed_options(&old, &new), ["authtoken", "heartbeat_interval"]);
    }

    #[test]
    fn one_reader_at_a_time_and_no_hangup_is_lost() {
        let mut reload = Reload::default();
        assert!(matches!(reload.plan(true), ReloadPlan::NoConfig));
        let read: ReadConfig = Box::new(|| Ok(Agent::default()));
        reload.read = Some(Arc::new(Mutex::new(read)));
        assert!(matches!(reload.plan(true), ReloadPlan::Read(_)));
        assert!(matches!(reload.plan(false), ReloadPlan::Busy));
        assert!(matches!(reload.plan(true), ReloadPlan::Later));
        reload.finished();
        assert!(reload.take_read_again() && !reload.take_read_again());
        assert!(matches!(reload.plan(false), ReloadPlan::Read(_)));
    }
}
