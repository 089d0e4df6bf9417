//! The edge's own clients at providers of OAuth: `oauth` of edge.yml. A login that brings no
//! client of its own uses them.

use super::providers::OAuthProvider;
use crate::proto::secret::Secret;

/// A client of the edge at a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuthClient {
    /// The provider.
    pub provider: &'static OAuthProvider,
    /// Id; empty: only `base_url` is configured.
    pub id: String,
    /// Secret.
    pub secret: Secret,
    /// Scheme and host of an installation of its own, such as a GitLab server.
    pub base_url: Option<String>,
}

/// Returns the client for a provider.
pub fn find<'a>(clients: &'a [OAuthClient], provider: &str) -> Option<&'a OAuthClient> {
    clients.iter().find(|client| client.provider.name == provider)
}
