//! `restrict-ips`: admits visitors by their address. IP policies are those of the REST API; a
//! change of one applies to the next visitor.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::json;

use crate::cidr::Cidr;
use crate::edge::actions::action::{ActionError, Reply};
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::phases::{ConnectPhase, PhaseState, RequestPhase, ResponsePhase, Scope};
use crate::edge::policy::reader::ConfigReader;
use crate::edge::policy::text::InterpolatedText;
use crate::http1::text::shortened;

/// Networks of one list, and IP policies of one action.
const MAX_CIDRS: usize = 256;
const MAX_POLICIES: usize = 32;

const INVALID: ActionError = ActionError("restrict-ips has an invalid CIDR");

#[derive(Debug)]
struct RestrictIps {
    enforce: bool,
    allow: Vec<Network>,
    deny: Vec<Network>,
    /// Ids.
    policies: Vec<String>,
}

#[derive(Debug)]
enum Network {
    Fixed(Cidr, String),
    Interpolated(InterpolatedText),
}

/// Decision about an address, with the network that caused it.
struct NetworkVerdict<'a> {
    admitted: bool,
    matched: Cow<'a, str>,
}

pub(super) fn compile(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    const LISTS: [&str; 3] = ["allow", "deny", "ip_policies"];
    config.known_keys(&["enforce", "allow", "deny", "ip_policies"]);
    if !LISTS.iter().any(|key| config.has(key)) {
        config.fault_here(2234, "needs allow, deny or ip_policies.");
        return None;
    }
    let policies = config.texts("ip_policies", MAX_POLICIES);
    for id in &policies {
        if config.environment.services.ip_policy(id).is_none() {
            let shown = shortened(id);
            let reason = format!("names the IP policy {shown:?}, which does not exist.");
            config.fault("ip_policies", 2216, reason);
        }
    }
    let (allow, deny) = (networks(config, "allow")?, networks(config, "deny")?);
    let enforce = config.flag("enforce", true);
    Some(Arc::new(RestrictIps { enforce, allow, deny, policies }))
}

fn networks(config: &ConfigReader<'_>, key: &str) -> Option<Vec<Network>> {
    let mut list = Vec::new();
    for text in config.templates(key, MAX_CIDRS) {
        match text.fixed().map(|text| (Cidr::parse(text), text.to_owned())) {
            Some((Some(cidr), text)) => list.push(Network::Fixed(cidr, text)),
            Some((None, text)) => {
                let shown = shortened(&text);
                config.fault(key, 2217, format!("has {shown:?}, write e.g. 192.0.2.0/24."));
                return None;
            }
            None => list.push(Network::Interpolated(text)),
        }
    }
    Some(list)
}

/// Returns the first network of a list with this address.
fn find<'a>(
    list: &'a [Network],
    ip: IpAddr,
    scope: &Scope<'_>,
) -> Result<Option<Cow<'a, str>>, ActionError> {
    for network in list {
        match network {
            Network::Fixed(cidr, text) if cidr.contains(ip) => return Ok(Some(text.into())),
            Network::Fixed(..) => {}
            Network::Interpolated(text) => {
                let text = text.render(scope)?;
                if Cidr::parse(&text).ok_or(INVALID)?.contains(ip) {
                    return Ok(Some(text));
                }
            }
        }
    }
    Ok(None)
}

impl RestrictIps {
    fn verdict(&self, scope: &Scope<'_>) -> Result<NetworkVerdict<'_>, ActionError> {
        let ip = scope.input.connection.client.ip().to_canonical();
        let denied = find(&self.deny, ip, scope)?;
        if let Some(matched) = denied {
            return Ok(NetworkVerdict { admitted: false, matched });
        }
        let mut allowed = find(&self.allow, ip, scope)?;
        for id in &self.policies {
            // A policy that was removed after the Bind allows no visitor.
            let missing = ActionError("an IP policy of restrict-ips does not exist any more");
            let rules = scope.input.services.ip_policy(id).ok_or(missing)?;
            let within = |list: &[Cidr]| list.iter().find(|cidr| cidr.contains(ip)).copied();
            if let Some(cidr) = within(&rules.deny) {
                return Ok(NetworkVerdict { admitted: false, matched: cidr.to_string().into() });
            }
            allowed = allowed.or_else(|| within(&rules.allow).map(|cidr| cidr.to_string().into()));
        }
        Ok(NetworkVerdict { admitted: allowed.is_some(), matched: allowed.unwrap_or_default() })
    }

    /// Decides in any phase. Returns whether the visitor goes on.
    fn admits(&self, phase: &mut dyn PhaseState) -> Result<bool, ActionError> {
        let verdict = match self.verdict(&phase.scope()) {
            Ok(verdict) => verdict,
            Err(error) if self.enforce => return Err(error),
            Err(error) => {
                let error = json!({ "code": "ERR_NGROK_2253", "message": error.0 });
                let result = json!({ "action": "deny", "matched_cidr": "", "error": error });
                phase.vars_mut().set_result("restrict_ips", result);
                return Ok(true);
            }
        };
        let action = if verdict.admitted { "allow" } else { "deny" };
        let result = || json!({ "action": action, "matched_cidr": verdict.matched });
        phase.vars_mut().set_result_with("restrict_ips", result);
        Ok(verdict.admitted || !self.enforce)
    }

    fn flow(&self, phase: &mut dyn PhaseState) -> Result<PolicyFlow, ActionError> {
        Ok(match self.admits(phase)? {
            true => PolicyFlow::Continue,
            false => {
                let text = "This endpoint does not accept requests from your address.";
                PolicyFlow::Respond(Reply::new(403, 3203, text))
            }
        })
    }
}

impl PolicyAction for RestrictIps {
    fn connect(&self, phase: &mut ConnectPhase<'_>) -> Result<PolicyFlow, ActionError> {
        Ok(match self.admits(phase)? {
            true => PolicyFlow::Continue,
            false => PolicyFlow::Close,
        })
    }

    fn request(&self, phase: &mut RequestPhase<'_>) -> Result<PolicyFlow, ActionError> {
        self.flow(phase)
    }

    fn response(&self, phase: &mut ResponsePhase<'_, '_>) -> Result<PolicyFlow, ActionError> {
        self.flow(phase)
    }
}
