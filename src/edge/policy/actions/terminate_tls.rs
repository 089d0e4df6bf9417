//! `terminate-tls`: the TLS handshakes of an endpoint's visitors. A handshake comes before the
//! rules, so the action must be in a rule without expressions, and its texts have none.

use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use serde_yaml::Value;

use crate::edge::actions::action::ActionError;
use crate::edge::actions::tls::{self, TlsOptions};
use crate::edge::agents::address::Protocol;
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::phases::ConnectPhase;
use crate::edge::policy::reader::ConfigReader;
use crate::http1::text::shortened;

/// Keys of the configuration.
const CERTIFICATE: &str = "server_certificate";
const KEY: &str = "server_private_key";
const AUTHORITIES: &str = "mutual_tls_certificate_authorities";
const STRATEGY: &str = "mutual_tls_verification_strategy";

const MAX_AUTHORITIES: usize = 10;

/// Start of the id of a CA in the store.
const AUTHORITY_PREFIX: &str = "ca_";

/// Versions by name, the oldest first.
const VERSIONS: [(&str, &SupportedProtocolVersion); 2] = [("1.2", &TLS12), ("1.3", &TLS13)];

#[derive(Debug)]
struct TerminateTls {
    options: Arc<TlsOptions>,
}

pub(super) fn compile(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    config.known_keys(&["min_version", "max_version", CERTIFICATE, KEY, AUTHORITIES, STRATEGY]);
    if config.environment.protocol == Protocol::Tcp {
        config.fault_here(2205, "is for https and tls endpoints.");
        return None;
    }
    if config.is_conditional {
        let reason = "must be in a rule without expressions: TLS begins before they can be true.";
        config.fault_here(2204, reason);
        return None;
    }
    let mut options = TlsOptions::default();
    options.certificate = certificate(config)?;
    options.client_cas = client_cas(config)?;
    options.versions = versions(config)?;
    Some(Arc::new(TerminateTls { options: Arc::new(options) }))
}

fn versions(config: &ConfigReader<'_>) -> Option<Vec<&'static SupportedProtocolVersion>> {
    let place = |key: &str, usual: usize| {
        let Some(text) = config.text(key) else { return Some(usual) };
        let found = VERSIONS.iter().position(|(name, _)| *name == text);
        if found.is_none() {
            config.fault(key, 2222, "must be '1.2' or '1.3'.");
        }
        found
    };
    let (least, most) = (place("min_version", 0)?, place("max_version", 1)?);
    if least > most {
        config.fault("min_version", 2215, "is above max_version.");
        return None;
    }
    Some(VERSIONS[least..=most].iter().map(|(_, version)| *version).collect())
}

/// Returns a text without expressions.
fn fixed(config: &ConfigReader<'_>, key: &str) -> Option<String> {
    let text = config.required_template(key)?;
    let fixed = text.fixed().map(str::to_owned);
    if fixed.is_none() {
        config.fault(key, 2224, "must not have expressions: TLS begins before a request.");
    }
    fixed
}

fn certificate(config: &ConfigReader<'_>) -> Option<Option<Arc<rustls::sign::CertifiedKey>>> {
    match (config.has(CERTIFICATE), config.has(KEY)) {
        (false, false) => return Some(None),
        (true, true) => {}
        (has_certificate, _) => {
            let missing = if has_certificate { KEY } else { CERTIFICATE };
            config.fault_here(2240, format!("needs {missing} too."));
            return None;
        }
    }
    let (chain, key) = (fixed(config, CERTIFICATE)?, fixed(config, KEY)?);
    match tls::certificate(chain.as_bytes(), key.as_bytes()) {
        Ok(certified) => Some(Some(Arc::new(certified))),
        Err(reason) => {
            config.fault(CERTIFICATE, 2228, format!("is not valid: {reason}."));
            None
        }
    }
}

fn client_cas(config: &ConfigReader<'_>) -> Option<Option<Arc<dyn ClientCertVerifier>>> {
    const VERIFY: &str = "require-and-verify";
    let strategy = config.choice(STRATEGY, &[VERIFY, "require-any", "request"]);
    let mut pem = String::new();
    // One certificate need not be in a list.
    let texts = match config.value(AUTHORITIES) {
        Some(Value::String(_)) => vec![config.template(AUTHORITIES)?],
        _ => config.templates(AUTHORITIES, MAX_AUTHORITIES),
    };
    for text in texts {
        let Some(text) = text.fixed() else {
            let reason = "must not have expressions: TLS begins before a request.";
            config.fault(AUTHORITIES, 2224, reason);
            return None;
        };
        if !text.starts_with(AUTHORITY_PREFIX) {
            pem.push_str(text);
        } else if let Some(found) = config.environment.services.certificate_authority(text) {
            pem.push_str(&found);
        } else {
            let shown = shortened(text);
            let reason = format!("names the CA {shown:?}, which does not exist.");
            config.fault(AUTHORITIES, 2204, reason);
            return None;
        }
        pem.push('\n');
    }
    if strategy != VERIFY {
        return Some(Some(tls::any_client(strategy == "require-any")));
    }
    if pem.is_empty() {
        if config.has(STRATEGY) {
            config.fault_here(2240, format!("needs {AUTHORITIES} too."));
            return None;
        }
        return Some(None);
    }
    match tls::client_cas(pem.as_bytes()) {
        Ok(verifier) => Some(Some(verifier)),
        Err(reason) => {
            config.fault(AUTHORITIES, 2228, format!("is not valid: {reason}."));
            None
        }
    }
}

impl PolicyAction for TerminateTls {
    fn connect(&self, _: &mut ConnectPhase<'_>) -> Result<PolicyFlow, ActionError> {
        // The handshake was made with it.
        Ok(PolicyFlow::Continue)
    }

    fn tls(&self) -> Option<&Arc<TlsOptions>> {
        Some(&self.options)
    }
}
