//! The profile of a person at a provider: which of its members are used.

use serde_json::Value;

use super::session::LoginIdentity;

/// Members of a profile, as paths of JSON (RFC 6901).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileFields {
    /// The id.
    pub id: &'static str,
    /// An address that the provider has verified; empty: the profile has none.
    pub email: &'static str,
    /// The name for display.
    pub name: &'static str,
}

/// Claims of OpenID Connect.
pub const CLAIMS: ProfileFields = ProfileFields { id: "/sub", email: "/email", name: "/name" };
/// The usual members of other profiles.
pub const PROFILE: ProfileFields = ProfileFields { id: "/id", email: "/email", name: "/name" };

impl ProfileFields {
    /// Returns the identity of a profile. `None`: it has no id. An address that the provider
    /// marks as not verified is left out.
    pub fn identity(&self, profile: &Value) -> Option<LoginIdentity> {
        let text = |path: &str| match profile.pointer(path) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let id = text(self.id);
        let email = if is_unverified(profile) { String::new() } else { text(self.email) };
        (!id.is_empty()).then(|| LoginIdentity { id, email, name: text(self.name) })
    }
}

/// Returns whether a profile marks its address of mail as not verified. Some providers write
/// the flag as text.
fn is_unverified(profile: &Value) -> bool {
    match profile.get("email_verified") {
        None | Some(Value::Null | Value::Bool(true)) => false,
        Some(Value::String(text)) => text != "true",
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_address_that_is_not_verified_is_left_out() {
        let email = |flag: Value| {
            let profile = json!({"sub": "1", "email": "a@a.example", "email_verified": flag});
            CLAIMS.identity(&profile).unwrap().email
        };
        for verified in [json!(true), json!("true"), json!(null)] {
            assert_eq!(email(verified), "a@a.example");
        }
        for unverified in [json!(false), json!("false"), json!(1), json!("")] {
            assert_eq!(email(unverified), "");
        }
        assert_eq!(PROFILE.identity(&json!({"id": 7, "email": null})).unwrap().id, "7");
        assert!(PROFILE.identity(&json!({"sub": "1"})).is_none());
    }
}
