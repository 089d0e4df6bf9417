//! The provider of a login, as configured.

use super::providers::OAuthProvider;

/// Provider of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginProvider {
    /// An OpenID provider by the URL of its issuer.
    OpenId {
        /// The URL as configured.
        issuer: String,
    },
    /// A known provider of OAuth.
    OAuth {
        /// What is known of it.
        provider: &'static OAuthProvider,
        /// Scheme and host of an installation of its own; `None`: the provider's.
        base_url: Option<String>,
    },
}

impl LoginProvider {
    /// Returns a text that differs for different providers.
    pub fn key(&self) -> String {
        match self {
            LoginProvider::OpenId { issuer } => format!("openid {issuer}"),
            LoginProvider::OAuth { provider, base_url } => {
                format!("oauth {} {}", provider.name, base_url.as_deref().unwrap_or_default())
            }
        }
    }
}
