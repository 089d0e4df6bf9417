//! Configuration of the edge with its accounts: that of edge.yml and flags, and the objects of
//! the store. The objects were checked when they were created.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::table::ObjectTable;
use crate::cidr::Cidr;
use crate::edge::agents::acl::Acl;
use crate::edge::agents::credentials::{Credential, CredentialSource, Credentials};
use crate::edge::config::EdgeConfig;
use crate::edge::restrictions::{IpPolicies, IpRules, Restrictions};
use crate::edge::store::{ObjectKind, StoredObject};
use crate::edge::token::TokenKey;
use crate::proto::secret::Secret;

/// Field with the rules of a credential.
pub const ACL: &str = "acl";
/// Field of a certificate with its chain.
pub const CERTIFICATE_PEM: &str = "certificate_pem";
/// Field of a CA with its certificate.
pub const CA_PEM: &str = "ca_pem";
/// Field of a reserved domain with the id of its certificate.
pub const DOMAIN_CERTIFICATE: &str = "certificate_id";
/// Field of a rule with the id of its policy.
pub const RULE_POLICY: &str = "ip_policy_id";
/// Network of a rule.
pub const RULE_CIDR: &str = "cidr";
/// `allow` or `deny`.
pub const RULE_ACTION: &str = "action";
/// Field of a restriction with the kind of its traffic.
pub const RESTRICTION_TYPE: &str = "type";
/// Whether it refuses addresses.
pub const RESTRICTION_ENFORCED: &str = "enforced";
/// Its policies.
pub const RESTRICTION_POLICIES: &str = "ip_policy_ids";

/// Returns the configuration of `file` with the objects of `table`.
pub fn merge(file: &EdgeConfig, table: &ObjectTable) -> EdgeConfig {
    let mut config = file.clone();
    let stored = table.of_kind(ObjectKind::Credential).filter_map(|o| credential(o));
    config.credentials = Credentials::new(file.credentials.iter().cloned().chain(stored).collect());
    let domains = table.of_kind(ObjectKind::ReservedDomain).filter_map(|o| o.name.clone());
    config.domains.extend(domains);
    let addresses = table.of_kind(ObjectKind::ReservedAddr).filter_map(|o| o.name.as_ref());
    config.reserved_ports = addresses.filter_map(|name| port(name)).collect();
    config.ip_policies = ip_policies(table);
    config.restrictions = restrictions(table, &config.ip_policies);
    config
}

fn credential(object: &StoredObject) -> Option<Credential> {
    let acl_rules = object.texts(ACL);
    Some(Credential {
        id: object.id.clone(),
        hash: object.secret.clone()?,
        // A rule that this version does not know must not allow everything.
        acl: Acl::parse(&acl_rules).ok()?,
        acl_rules,
        ip_allow: Vec::new(),
        domains: Vec::new(),
        max_sessions: usize::MAX,
        description: object.text("description").to_owned(),
        metadata: object.text("metadata").to_owned(),
        source: CredentialSource::Store { created_at: object.created_at },
    })
}

/// Returns the reserved domains that have a certificate, each with chain and key as PEM.
pub fn domain_certificates(table: &ObjectTable, key: &TokenKey) -> Vec<(String, String, Secret)> {
    let domains = table.of_kind(ObjectKind::ReservedDomain);
    let found = domains.filter_map(|domain| {
        let id = domain.text(DOMAIN_CERTIFICATE);
        let certificate = table.find(ObjectKind::TlsCertificate, id)?;
        let private = key.unseal(id, certificate.secret.as_deref()?)?;
        Some((domain.name.clone()?, certificate.text(CERTIFICATE_PEM).to_owned(), private))
    });
    found.collect()
}

/// Returns the value of a secret, which the store has encrypted under a key of this edge. `None`:
/// the vault or the secret does not exist, or it was encrypted by another edge.
pub fn secret(table: &ObjectTable, key: &TokenKey, vault: &str, name: &str) -> Option<Secret> {
    let vault = table.by_name(ObjectKind::Vault, vault)?;
    let secret = table.by_name(ObjectKind::VaultSecret, &secret_name(&vault.id, name))?;
    key.unseal(&secret.id, secret.secret.as_deref()?)
}

/// Returns the name of a secret that is unique among all vaults.
pub fn secret_name(vault: &str, name: &str) -> String {
    format!("{vault}/{name}")
}

/// Returns the port of `host:port`.
pub fn port(name: &str) -> Option<u16> {
    match name.parse::<SocketAddr>() {
        Ok(address) => Some(address.port()),
        Err(_) => name.rsplit_once(':')?.1.parse().ok(),
    }
}

fn restrictions(table: &ObjectTable, ip_policies: &IpPolicies) -> Restrictions {
    let mut all = Restrictions::default();
    for object in table.of_kind(ObjectKind::IpRestriction) {
        let traffic = match object.text(RESTRICTION_TYPE) {
            "agent" => &mut all.agents,
            "endpoints" => &mut all.endpoints,
            "api" | "rest" => &mut all.rest,
            _ => continue,
        };
        let policies = object.texts(RESTRICTION_POLICIES);
        if policies.is_empty() {
            continue;
        }
        let mut rules = IpRules::default();
        for policy in policies.iter().filter_map(|id| ip_policies.get(id)) {
            rules.allow.extend(&policy.allow);
            rules.deny.extend(&policy.deny);
        }
        let list = match object.flag(RESTRICTION_ENFORCED) {
            true => &mut traffic.enforced,
            false => &mut traffic.unenforced,
        };
        list.push(rules);
    }
    all
}

/// Returns the certificate of a CA as PEM; `None` if it does not exist.
pub fn certificate_authority(table: &ObjectTable, id: &str) -> Option<String> {
    Some(table.find(ObjectKind::CertificateAuthority, id)?.text(CA_PEM).to_owned())
}

/// Returns the rules of each IP policy.
pub fn ip_policies(table: &ObjectTable) -> IpPolicies {
    let all = table.of_kind(ObjectKind::IpPolicy);
    let mut policies: HashMap<&str, IpRules> =
        all.map(|policy| (policy.id.as_str(), IpRules::default())).collect();
    for rule in table.of_kind(ObjectKind::IpPolicyRule) {
        let Some(policy) = policies.get_mut(rule.text(RULE_POLICY)) else { continue };
        let Some(network) = Cidr::parse(rule.text(RULE_CIDR)) else { continue };
        match rule.text(RULE_ACTION) {
            "allow" => policy.allow.push(network),
            _ => policy.deny.push(network),
        }
    }
    policies.into_iter().map(|(id, rules)| (id.to_owned(), Arc::new(rules))).collect()
}
