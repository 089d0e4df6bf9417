//! Resources of the REST API. Each file has one: its fields, what its values must be, and what
//! the API shows.

pub mod api_keys;
pub mod credentials;

use super::resource::Resource;

/// Returns all resources.
pub fn all() -> &'static [&'static dyn Resource] {
    &[&credentials::Credentials, &api_keys::API_KEYS]
}
