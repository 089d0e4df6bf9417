//! Providers of OAuth by name, with ngrok's names. Each has a profile in JSON, of which the id
//! and a verified address of mail are used.

use super::endpoints::{IdentitySource, LoginEndpoints};
use super::profile::{CLAIMS, PROFILE, ProfileFields};

/// A provider of OAuth.
#[derive(Debug, PartialEq, Eq)]
pub struct OAuthProvider {
    /// Name in options and policies.
    pub name: &'static str,
    /// Scopes without configured ones, with blanks between them.
    pub scopes: &'static str,
    authorization: &'static str,
    token: &'static str,
    userinfo: &'static str,
    profile: ProfileFields,
    /// Whether it accepts PKCE. Some refuse it for clients with a secret.
    pkce: bool,
}

/// All providers, sorted.
pub static PROVIDERS: &[OAuthProvider] = &[
    OAuthProvider {
        name: "amazon",
        scopes: "profile",
        authorization: "https://www.amazon.com/ap/oa",
        token: "https://api.amazon.com/auth/o2/token",
        userinfo: "https://api.amazon.com/user/profile",
        profile: ProfileFields { id: "/user_id", email: "/email", name: "/name" },
        pkce: true,
    },
    OAuthProvider {
        name: "facebook",
        scopes: "email",
        authorization: "https://www.facebook.com/v21.0/dialog/oauth",
        token: "https://graph.facebook.com/v21.0/oauth/access_token",
        userinfo: "https://graph.facebook.com/v21.0/me?fields=id,name,email",
        profile: PROFILE,
        pkce: true,
    },
    OAuthProvider {
        name: "github",
        scopes: "read:user",
        authorization: "https://github.com/login/oauth/authorize",
        token: "https://github.com/login/oauth/access_token",
        // The address of a public profile is one that GitHub has verified.
        userinfo: "https://api.github.com/user",
        profile: PROFILE,
        pkce: true,
    },
    OAuthProvider {
        name: "gitlab",
        scopes: "openid profile email",
        authorization: "https://gitlab.com/oauth/authorize",
        token: "https://gitlab.com/oauth/token",
        userinfo: "https://gitlab.com/oauth/userinfo",
        profile: CLAIMS,
        pkce: true,
    },
    OAuthProvider {
        name: "google",
        scopes: "openid profile email",
        authorization: "https://accounts.google.com/o/oauth2/v2/auth",
        token: "https://oauth2.googleapis.com/token",
        userinfo: "https://openidconnect.googleapis.com/v1/userinfo",
        profile: CLAIMS,
        pkce: true,
    },
    OAuthProvider {
        name: "linkedin",
        scopes: "openid profile email",
        authorization: "https://www.linkedin.com/oauth/v2/authorization",
        token: "https://www.linkedin.com/oauth/v2/accessToken",
        userinfo: "https://api.linkedin.com/v2/userinfo",
        profile: CLAIMS,
        pkce: false,
    },
    OAuthProvider {
        name: "microsoft",
        scopes: "User.Read",
        authorization: "https://login.microsoftonline.com/common/oauth2/v2.0/authorize",
        token: "https://login.microsoftonline.com/common/oauth2/v2.0/token",
        userinfo: "https://graph.microsoft.com/v1.0/me",
        // `mail` is what the administrator of any tenant writes. The domain of this name is
        // verified.
        profile: ProfileFields { id: "/id", email: "/userPrincipalName", name: "/displayName" },
        pkce: true,
    },
    OAuthProvider {
        name: "twitch",
        scopes: "openid user:read:email",
        authorization: "https://id.twitch.tv/oauth2/authorize",
        token: "https://id.twitch.tv/oauth2/token",
        userinfo: "https://id.twitch.tv/oauth2/userinfo",
        profile: ProfileFields { id: "/sub", email: "/email", name: "/preferred_username" },
        pkce: false,
    },
];

/// Returns the provider with this name.
pub fn find(name: &str) -> Option<&'static OAuthProvider> {
    PROVIDERS.iter().find(|provider| provider.name == name)
}

impl OAuthProvider {
    /// Returns its addresses; with `base_url` those of an installation of its own.
    pub fn endpoints(&self, base_url: Option<&str>) -> LoginEndpoints {
        let at = |url: &str| {
            let path = url.splitn(4, '/').nth(3).unwrap_or_default();
            match base_url {
                Some(base) => format!("{}/{path}", base.trim_end_matches('/')),
                None => url.to_owned(),
            }
        };
        LoginEndpoints {
            authorization: at(self.authorization),
            token: at(self.token),
            userinfo: Some(at(self.userinfo)),
            basic_auth: false,
            pkce: self.pkce,
            identity: IdentitySource::Profile(self.profile),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::url::Url;

    #[test]
    fn names_are_sorted_and_addresses_are_valid() {
        assert!(PROVIDERS.is_sorted_by_key(|provider| provider.name));
        for provider in PROVIDERS {
            let endpoints = provider.endpoints(None);
            for url in [&endpoints.authorization, &endpoints.token, &endpoints.userinfo.unwrap()] {
                assert!(Url::parse(url).unwrap().secure, "{url}");
            }
        }
        let own = find("gitlab").unwrap().endpoints(Some("https://git.example/"));
        assert_eq!(own.token, "https://git.example/oauth/token");
        assert!(find("Google").is_none());
    }
}
