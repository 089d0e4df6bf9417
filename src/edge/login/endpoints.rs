//! Addresses of a provider. An OpenID provider publishes them in its discovery document
//! (OpenID Connect Discovery 1.0 section 4).

use serde_json::Value;

use super::profile::ProfileFields;
use crate::net::url::Url;

/// Addresses of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginEndpoints {
    /// Where a browser logs in.
    pub authorization: String,
    /// Where the edge exchanges the code.
    pub token: String,
    /// Where the edge reads the profile.
    pub userinfo: Option<String>,
    /// How the client authenticates: by HTTP basic authentication, else in the form.
    pub basic_auth: bool,
    /// Whether the provider accepts PKCE.
    pub pkce: bool,
    /// Identity of an OpenID provider, else of a profile.
    pub identity: IdentitySource,
}

/// Where the identity of a visitor comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentitySource {
    /// The ID token of an issuer.
    IdToken {
        /// Its claim `iss`.
        issuer: String,
        /// Its keys.
        jwks: String,
    },
    /// The profile.
    Profile(ProfileFields),
}

/// Returns the URL of the discovery document of an issuer.
pub fn discovery_url(issuer: &str) -> String {
    format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
}

/// Returns whether two issuers are equal but for a slash at the end, which is often forgotten
/// in configurations.
pub fn is_issuer(configured: &str, published: &str) -> bool {
    configured.trim_end_matches('/') == published.trim_end_matches('/')
}

/// Reads a discovery document.
pub fn parse_discovery(bytes: &[u8]) -> Result<LoginEndpoints, String> {
    let document: Value = serde_json::from_slice(bytes).map_err(|_| "it is not JSON")?;
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    let url = |name: &str| {
        let text = text(name).ok_or_else(|| format!("'{name}' is missing"))?;
        Url::parse(text).map_err(|e| format!("'{name}': {e}"))?;
        if text.contains('#') {
            // The parameters of a login would be a part of it (RFC 6749 3.1).
            return Err(format!("'{name}' has a fragment"));
        }
        Ok::<_, String>(text.to_owned())
    };
    let has = |name: &str, value: &str| {
        let list = document.get(name).and_then(Value::as_array);
        list.map(|list| list.iter().any(|item| item == value))
    };
    let basic = has("token_endpoint_auth_methods_supported", "client_secret_basic");
    Ok(LoginEndpoints {
        authorization: url("authorization_endpoint")?,
        token: url("token_endpoint")?,
        userinfo: match text("userinfo_endpoint") {
            Some(_) => Some(url("userinfo_endpoint")?),
            None => None,
        },
        // The default of the specification.
        basic_auth: basic.unwrap_or(true),
        // Providers that do not know PKCE ignore its parameters (RFC 6749 3.1).
        pkce: true,
        identity: IdentitySource::IdToken { issuer: url("issuer")?, jwks: url("jwks_uri")? },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_discovery_document_has_the_addresses() {
        let document = json!({"issuer": "https://i.example/", "jwks_uri": "https://i.example/jwks",
            "authorization_endpoint": "https://i.example/auth", "token_endpoint": "https://i.example/token"});
        let parse = |change: Value| {
            let mut document = document.clone();
            document.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            parse_discovery(document.to_string().as_bytes())
        };
        let endpoints = parse(json!({})).unwrap();
        assert_eq!(endpoints.token, "https://i.example/token");
        assert!(endpoints.basic_auth && endpoints.userinfo.is_none());
        let post = json!({"token_endpoint_auth_methods_supported": ["client_secret_post"]});
        assert!(!parse(post).unwrap().basic_auth);
        for bad in [
            json!({"issuer": 1}),
            json!({"jwks_uri": "file:///etc/passwd"}),
            json!({"authorization_endpoint": "javascript:alert(1)"}),
            json!({"authorization_endpoint": "https://i.example/auth#x"}),
            json!({"token_endpoint": "https://a b/"}),
            json!({"userinfo_endpoint": "x"}),
        ] {
            assert!(parse(bad.clone()).is_err(), "{bad}");
        }
        assert!(parse_discovery(b"[]").is_err() && parse_discovery(b"").is_err());
        assert_eq!(
            discovery_url("https://i.example/a/"),
            "https://i.example/a/.well-known/openid-configuration"
        );
        assert!(is_issuer("https://i.example", "https://i.example/"));
        assert!(!is_issuer("https://i.example", "https://i.example.org"));
    }
}
