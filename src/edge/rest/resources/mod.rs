//! Resources of the REST API. Each file has one: its fields, what its values must be, and what
//! the API shows.

pub mod addresses;
pub mod api_keys;
pub mod certificates;
pub mod credentials;
pub mod domains;
pub mod endpoints;
pub mod ip_policies;
pub mod sessions;
pub mod vaults;

use super::resource::Resource;

/// Returns all resources.
pub fn all() -> &'static [&'static dyn Resource] {
    &[
        &sessions::TunnelSessions,
        &endpoints::Endpoints,
        &endpoints::Tunnels,
        &credentials::Credentials,
        &api_keys::API_KEYS,
        &domains::ReservedDomains,
        &addresses::RESERVED_ADDRS,
        &ip_policies::IP_POLICIES,
        &ip_policies::IP_POLICY_RULES,
        &ip_policies::IP_RESTRICTIONS,
        &certificates::TLS_CERTIFICATES,
        &certificates::CERTIFICATE_AUTHORITIES,
        &vaults::Vaults,
        &vaults::VAULT_SECRETS,
    ]
}
