//! `culvert-edge policy check`: compiles a traffic policy as a Bind does, without a running
//! edge. What is valid is decided in [`crate::edge::policy`].

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use argh::FromArgs;

use super::place;
use crate::edge::accounts::merge;
use crate::edge::accounts::table::ObjectTable;
use crate::edge::agents::address::Protocol;
use crate::edge::config::EdgeConfig;
use crate::edge::fetch::EdgeFetcher;
use crate::edge::login::LoginServices;
use crate::edge::login::clients::OAuthClient;
use crate::edge::policy::compile::compile;
use crate::edge::policy::document::MAX_DOCUMENT_BYTES;
use crate::edge::policy::fault::PolicyFault;
use crate::edge::policy::older_form;
use crate::edge::policy::phases::{InternalFault, PolicyServices};
use crate::edge::policy::rate_limit::RateTable;
use crate::edge::policy::reader::PolicyEnvironment;
use crate::edge::policy::search_time::ThreadClock;
use crate::edge::restrictions::IpRules;
use crate::edge::store::AccountStore;
use crate::edge::store::sqlite::SqliteStore;
use crate::edge::token::{KEY_BYTES, TokenKey};
use crate::proto::secret::Secret;
use crate::sys::{self, threads};

/// Commands for traffic policies.
#[derive(FromArgs, Debug)]
#[argh(subcommand)]
pub enum PolicyCommand {
    /// Checks one.
    Check(PolicyCheck),
}

/// Compile a traffic policy as for an endpoint, and print all its faults. Needs no running edge.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "check")]
pub struct PolicyCheck {
    /// protocol of the endpoint: http, tcp or tls (http)
    #[argh(option, default = "Protocol::Http", from_str_fn(parse_protocol))]
    protocol: Protocol,
    /// the endpoint is internal
    #[argh(switch)]
    internal: bool,
    /// id of the credential of the endpoint, for auth_cookie_domain
    #[argh(option, default = "String::new()")]
    credential: String,
    /// state directory of the edge (from edge.yml, else .culvert)
    #[argh(option)]
    dir: Option<PathBuf>,
    /// configuration of the edge (edge.yml)
    #[argh(option)]
    config: Option<PathBuf>,
    /// the policy, YAML or JSON
    #[argh(positional)]
    file: PathBuf,
}

impl PolicyCommand {
    /// Runs the command. Returns its output.
    pub fn run(self) -> Result<String, String> {
        let PolicyCommand::Check(check) = self;
        check.run()
    }
}

impl PolicyCheck {
    fn run(self) -> Result<String, String> {
        let file = self.file.display().to_string();
        let text =
            self.text().map_err(|e| format!("cannot read the traffic policy {file}: {e}"))?;
        let mut config = match place::edge_config(self.config.as_deref())? {
            Some(config) => config,
            None => EdgeConfig::dev(Default::default())?,
        };
        config.dir = self.dir.clone().unwrap_or(config.dir);
        let services = Arc::new(StoredServices { config, objects: OnceLock::new() });
        let stored = Arc::clone(&services);
        // The parsers recurse by the nesting of the text.
        let faults = threads::POLICY
            .run(move || self.faults(&text, stored))
            .map_err(|e| format!("cannot check the traffic policy {file}: {e}"))?;
        if let Some(Err(error)) = services.objects.get() {
            return Err(error.clone());
        }
        if faults.is_empty() {
            return Ok(format!("Valid traffic policy at {file}\n"));
        }
        Err(faults.into_iter().map(|fault| line(&file, fault)).collect::<Vec<_>>().join("\n"))
    }

    fn text(&self) -> io::Result<String> {
        let most = MAX_DOCUMENT_BYTES as u64;
        let mut text = String::new();
        // One byte more, which the compiler of policies refuses.
        File::open(&self.file)?.take(most + 1).read_to_string(&mut text)?;
        Ok(text)
    }

    fn faults(&self, text: &str, services: Arc<StoredServices>) -> Vec<PolicyFault> {
        let services: Arc<dyn PolicyServices> = services;
        let environment = PolicyEnvironment {
            account: &self.credential,
            protocol: self.protocol,
            is_internal: self.internal,
            services: &services,
        };
        let rewritten = older_form::text(text);
        compile(rewritten.as_deref().unwrap_or(text), environment).err().unwrap_or_default()
    }
}

fn parse_protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "http" => Ok(Protocol::Http),
        "tcp" => Ok(Protocol::Tcp),
        "tls" => Ok(Protocol::Tls),
        _ => Err("use http, tcp or tls".to_owned()),
    }
}

/// Returns a fault as a line that begins with its place, as the line of a compiler.
fn line(file: &str, mut fault: PolicyFault) -> String {
    let place = match fault.position.take() {
        Some(position) => format!("{file}:{}:{}", position.line, position.column),
        None => file.to_owned(),
    };
    let text = format!("{place}: {fault}");
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// What policies use of an edge that does not run: its configuration and its stored objects.
#[derive(Debug)]
struct StoredServices {
    config: EdgeConfig,
    /// Read when a policy needs them: they may be readable for another user only.
    objects: OnceLock<Result<ObjectTable, String>>,
}

impl StoredServices {
    fn objects(&self) -> Option<&ObjectTable> {
        let load = || SqliteStore::new(&self.config.dir).load();
        let read = || load().map(ObjectTable::new).map_err(|e| e.to_string());
        self.objects.get_or_init(read).as_ref().ok()
    }
}

impl PolicyServices for StoredServices {
    /// Is for visitors, which do not exist here.
    fn check_internal(&self, _: &str, _: Protocol, _: &str) -> Result<(), InternalFault> {
        Err(InternalFault { code: 724, text: "The edge is not running.".to_owned() })
    }

    fn ip_policy(&self, id: &str) -> Option<Arc<IpRules>> {
        merge::ip_policies(self.objects()?).remove(id)
    }

    fn certificate_authority(&self, id: &str) -> Option<String> {
        merge::certificate_authority(self.objects()?, id)
    }

    /// Is for visitors, which do not exist here.
    fn secret(&self, _: &str, _: &str, _: &str) -> Option<Secret> {
        None
    }

    fn rates(&self) -> Arc<RateTable> {
        RateTable::new()
    }

    fn thread_clock(&self) -> ThreadClock {
        sys::thread_time
    }

    fn logins(&self) -> Option<Arc<LoginServices>> {
        let fetch = Arc::new(EdgeFetcher::new(self.config.fetch.clone()));
        Some(Arc::new(LoginServices::new(fetch, TokenKey::new(&[0; KEY_BYTES]))))
    }

    fn oauth_clients(&self) -> Vec<OAuthClient> {
        self.config.oauth.clone()
    }

    fn is_shared(&self, account: &str, domain: &str) -> bool {
        let Some(table) = self.objects() else { return true };
        merge::merge(&self.config, table).is_shared(account, domain)
    }
}
