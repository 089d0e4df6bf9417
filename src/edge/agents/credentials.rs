//! Credentials: their authtokens, kept as hashes only, and what each may bind. Sessions are
//! counted in [`super::table`].

use std::net::IpAddr;

use super::acl::{self, Acl};
use super::identity::AgentIdentity;
use crate::cidr::Cidr;
use crate::edge::token;
use crate::proto::codes::Refusal;
use crate::proto::secret::Secret;

/// Most characters of an authtoken.
const MAX_TOKEN_BYTES: usize = 256;

/// One credential.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Its name, unique. Also the account that names belong to.
    pub id: String,
    /// SHA-256 of the authtoken, in hexadecimal.
    pub hash: String,
    /// Rules for the names that it may bind.
    pub acl: Acl,
    /// Networks from which it may be used. Empty: all networks.
    pub ip_allow: Vec<Cidr>,
    /// Hosts (perhaps `*.x`) that are reserved for it.
    pub domains: Vec<String>,
    /// Most sessions at the same time.
    pub max_sessions: usize,
}

impl Credential {
    /// Checks that the credential may be used from `ip`.
    fn check_ip(&self, ip: IpAddr) -> Result<(), Refusal> {
        if self.ip_allow.is_empty() || self.ip_allow.iter().any(|c| c.contains(ip)) {
            return Ok(());
        }
        let text = format!("The address {ip} may not use the credential '{}'.", self.id);
        Err(Refusal::new(116, text))
    }
}

/// All credentials of an edge.
#[derive(Clone, Debug, Default)]
pub struct Credentials(Vec<Credential>);

impl Credentials {
    /// Creates the list. Ids and tokens must be unique.
    pub fn new(list: Vec<Credential>) -> Self {
        Credentials(list)
    }

    /// Returns the only credential of `culvert-edge dev`, which may bind everything.
    pub fn dev(token: &Secret) -> Self {
        Credentials(vec![Credential {
            id: "dev".into(),
            hash: token::hash(token.expose()),
            acl: Acl::default(),
            ip_allow: Vec::new(),
            domains: Vec::new(),
            max_sessions: usize::MAX,
        }])
    }

    /// Returns the credential of an authtoken that is used from `ip`.
    pub fn find(&self, token: &Secret, ip: IpAddr) -> Result<&Credential, Refusal> {
        let text = token.expose();
        if text.is_empty() {
            return Err(Refusal::new(
                4018,
                "This edge needs an authtoken. Add one with 'culvert config add-authtoken TOKEN'.",
            ));
        }
        let good = |b: u8| b.is_ascii_alphanumeric() || b"_-.~".contains(&b);
        if text.len() > MAX_TOKEN_BYTES || !text.bytes().all(good) {
            return Err(Refusal::new(
                105,
                "The authtoken is malformed: it may have letters, digits and '_' only.",
            ));
        }
        let hash = token::hash(text);
        // All hashes are compared: the time must not depend on which one is similar.
        let mut found = None;
        for credential in &self.0 {
            if token::constant_time_eq(&credential.hash, &hash) {
                found = Some(credential);
            }
        }
        let Some(credential) = found else {
            return Err(Refusal::new(
                107,
                "The authtoken is unknown to this edge: it is of another edge, or was revoked.",
            ));
        };
        credential.check_ip(ip)?;
        Ok(credential)
    }

    /// Returns the credential of an authenticated session, if it still allows the session.
    pub fn check_identity(
        &self,
        identity: &AgentIdentity,
        ip: IpAddr,
    ) -> Result<&Credential, Refusal> {
        let id = &identity.account;
        let credential = self
            .by_id(id)
            .filter(|c| c.hash == identity.hash)
            .ok_or_else(|| Refusal::new(300, format!("The credential '{id}' has been revoked.")))?;
        credential.check_ip(ip)?;
        Ok(credential)
    }

    /// Returns the credential with this id.
    pub fn by_id(&self, id: &str) -> Option<&Credential> {
        self.0.iter().find(|c| c.id == id)
    }

    /// Returns the credential that `host` is reserved for.
    pub fn owner(&self, host: &str) -> Option<&Credential> {
        self.0.iter().find(|c| c.domains.iter().any(|d| acl::covers(d, host)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        let one = |id: &str, token: &str| Credential {
            id: id.into(),
            hash: token::hash(token),
            acl: Acl::default(),
            ip_allow: Vec::new(),
            domains: Vec::new(),
            max_sessions: 1,
        };
        let mut bob = one("bob", "bob_token");
        bob.ip_allow = vec![Cidr::parse("10.0.0.0/8").unwrap()];
        bob.domains = vec!["bob.example".into(), "*.b.example".into()];
        Credentials::new(vec![one("alice", "alice_token"), bob])
    }

    #[test]
    fn tokens_find_their_credential() {
        let c = credentials();
        let find = |token: &str, ip: &str| {
            c.find(&Secret::new(token), ip.parse().unwrap()).map(|c| c.id.clone())
        };
        assert_eq!(find("alice_token", "127.0.0.1"), Ok("alice".into()));
        assert_eq!(find("bob_token", "10.0.0.1"), Ok("bob".into()));
        for (token, ip, code) in [
            ("", "10.0.0.1", 4018),
            ("a b", "10.0.0.1", 105),
            ("alice_tokem", "10.0.0.1", 107),
            ("alice_toke", "10.0.0.1", 107),
            ("bob_token", "127.0.0.1", 116),
        ] {
            let e = find(token, ip).unwrap_err();
            assert_eq!(e.code, Some(code));
            assert!(token.is_empty() || !e.message.contains(token), "no token in a message");
        }
    }

    #[test]
    fn a_session_stays_allowed_while_its_credential_is_the_same() {
        let c = credentials();
        let identity = |account: &str, token: &str| AgentIdentity {
            account: account.into(),
            hash: token::hash(token),
            client: "c".into(),
            session: 1,
            leg: 0,
            https_is_scheme: false,
        };
        for (account, token, ip, code) in [
            ("alice", "alice_token", "127.0.0.1", None),
            ("alice", "token_of_before", "127.0.0.1", Some(300)),
            ("carol", "alice_token", "127.0.0.1", Some(300)),
            ("bob", "bob_token", "10.0.0.1", None),
            ("bob", "bob_token", "127.0.0.1", Some(116)),
        ] {
            let checked = c.check_identity(&identity(account, token), ip.parse().unwrap());
            assert_eq!(checked.err().and_then(|e| e.code), code, "{account} {token} {ip}");
        }
    }

    #[test]
    fn names_have_owners() {
        let c = credentials();
        assert_eq!(c.owner("bob.example").map(|c| &*c.id), Some("bob"));
        assert_eq!(c.owner("x.b.example").map(|c| &*c.id), Some("bob"));
        assert!(c.owner("b.example").is_none() && c.owner("alice.example").is_none());
        assert!(!format!("{c:?}").contains("bob_token"));
    }
}
