//! What a resource knows of the request that it handles.

use serde_json::{Map, Value, json};

use super::query::RequestTarget;
use crate::edge::store::ObjectKind;
use crate::edge::{Edge, token};
use crate::time;

/// A request after its checks.
pub struct ApiContext<'a> {
    /// The edge.
    pub edge: &'a Edge,
    /// Path and parameters.
    pub target: RequestTarget,
    /// Body; empty without one.
    pub body: Map<String, Value>,
    /// Scheme and host of the API, as the client sees it.
    pub base: String,
    /// Id of the key.
    pub key: String,
    /// Whether the client is ngrok's package for Python. It fails at a 204 of a command.
    pub is_python_client: bool,
}

impl ApiContext<'_> {
    /// Returns the URL of an object.
    pub fn uri(&self, path: &str, id: &str) -> String {
        format!("{}/{path}/{id}", self.base)
    }

    /// Returns a reference to an object.
    pub fn reference(&self, path: &str, id: &str) -> Value {
        json!({"id": id, "uri": self.uri(path, id)})
    }
}

/// Returns the id of a credential as the API shows it. A name in edge.yml always has the same
/// one.
pub fn credential_id(account: &str) -> String {
    let prefix = ObjectKind::Credential.prefix();
    match token::is_ksuid(prefix, account) {
        true => account.to_owned(),
        false => token::stable_id(prefix, account),
    }
}

/// Returns a time in seconds since 1970 as the API shows it.
pub fn timestamp(seconds: u64) -> String {
    let text = time::rfc3339(std::time::Duration::from_secs(seconds));
    // Without a fraction.
    format!("{}Z", text.split('.').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_seconds() {
        assert_eq!(timestamp(1_798_761_599), "2026-12-31T23:59:59Z");
    }
}
