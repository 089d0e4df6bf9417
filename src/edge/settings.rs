//! Configuration of an edge and what is made from it. A reload makes new settings and replaces
//! the old ones in one step. Which keys a reload may change is decided in [`super::reload`].

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::ring as provider;

use super::accounts::merge::{domain_certificates, merge};
use super::accounts::table::ObjectTable;
use super::agents::credentials::Credentials;
use super::certificates::{self, AgentCertResolver, CertResolver};
use super::config::EdgeConfig;
use super::state::EdgeStateDir;
use super::token::TokenKey;
use crate::event;
use crate::sys;
use crate::tls::server;

/// Descriptors reserved for listeners, agents and files.
const RESERVED_FDS: usize = 256;

/// Settings of an edge. They are immutable: work under way goes on with those that it began
/// with.
pub struct EdgeSettings {
    /// Configuration of edge.yml and flags, with the limit of open files.
    file: EdgeConfig,
    /// The same configuration with the accounts.
    pub(super) config: Arc<EdgeConfig>,
    /// TLS configurations.
    pub(super) tls: Arc<EdgeTls>,
    /// Certificates of all listeners.
    pub(super) certificates: Arc<CertResolver>,
    /// Certificate of the edge's own CA, if it uses one.
    pub(super) ca_file: Option<PathBuf>,
}

/// TLS configurations of an edge.
pub struct EdgeTls {
    /// For agents.
    pub agent: Arc<ServerConfig>,
    /// For visitors that speak HTTP.
    pub http: Arc<ServerConfig>,
    /// For visitors of TLS endpoints that end here. Without ALPN: their protocol is not known.
    pub opaque: Arc<ServerConfig>,
}

impl EdgeSettings {
    /// Reads the files that a configuration names. The error names the file.
    pub(super) fn build(
        mut config: EdgeConfig,
        dir: &EdgeStateDir,
        accounts: &ObjectTable,
        key: &TokenKey,
    ) -> io::Result<Self> {
        limit_visitors(&mut config);
        if config.dev {
            config.credentials = Credentials::dev(&dir.authtoken()?.0);
        }
        let (certificates, ca_file) = resolver(&config, dir)?;
        let certificates = Arc::new(certificates);
        let tls = EdgeTls {
            agent: server::tunnel_config_with(Arc::new(AgentCertResolver(Arc::clone(
                &certificates,
            ))))?,
            http: visitor_tls(&certificates, vec![b"http/1.1".to_vec()])?,
            opaque: visitor_tls(&certificates, Vec::new())?,
        };
        let mut settings = EdgeSettings {
            config: Arc::new(config.clone()),
            file: config,
            tls: Arc::new(tls),
            certificates,
            ca_file,
        };
        settings.set_accounts(accounts, key);
        Ok(settings)
    }

    /// Replaces the accounts. TLS configurations and files stay.
    pub(super) fn set_accounts(&mut self, accounts: &ObjectTable, key: &TokenKey) {
        let config = merge(&self.file, accounts);
        let own = self.file.domains.len();
        // They were checked when they were created.
        let certificates =
            domain_certificates(accounts, key).into_iter().filter_map(|(domain, chain, key)| {
                Some((domain, certificates::from_pem(&chain, key.expose()).ok()?))
            });
        let domains = config.domains.get(own..).unwrap_or_default().to_vec();
        self.certificates.set_domains(domains, certificates.collect());
        self.config = Arc::new(config);
    }
}

/// Raises the limit of open files and keeps the number of visitors below it.
fn limit_visitors(config: &mut EdgeConfig) {
    let files = sys::fd_budget::raise_limit();
    let max_visitors = files.saturating_sub(RESERVED_FDS.max(files / 8)).max(16);
    if config.limits.visitors > max_visitors {
        event!(
            warn,
            obj = "edge",
            "too few descriptors, visitor limit reduced",
            limit = max_visitors
        );
        config.limits.visitors = max_visitors;
    }
}

/// Returns the configured certificates, or those of the CA in `dir` with the CA's file.
fn resolver(
    config: &EdgeConfig,
    dir: &EdgeStateDir,
) -> io::Result<(CertResolver, Option<PathBuf>)> {
    if !config.certificates.is_empty() {
        return Ok((CertResolver::from_files(&config.certificates)?, None));
    }
    let (ca, path) = dir.ca()?;
    let mut domains = vec![config.domain.clone(), "localhost".into()];
    domains.extend(config.domains.iter().cloned());
    let own_names = certificates::own_names(&config.domain, config.agent.ip());
    let now = SystemTime::now();
    Ok((CertResolver::from_ca(Arc::new(ca), domains, own_names, now)?, Some(path)))
}

fn visitor_tls(resolver: &Arc<CertResolver>, alpn: Vec<Vec<u8>>) -> io::Result<Arc<ServerConfig>> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::<CertResolver>::clone(resolver));
    config.alpn_protocols = alpn;
    Ok(Arc::new(config))
}
