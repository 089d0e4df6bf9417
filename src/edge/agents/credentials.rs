//! Credentials: their authtokens, kept as hashes only, and what each may bind. Sessions are
//! counted in [`super::table`].

use std::collections::HashMap;
use std::net::IpAddr;

use super::acl::Acl;
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
    /// The same rules as texts.
    pub acl_rules: Vec<String>,
    /// Networks from which it may be used. Empty: all networks.
    pub ip_allow: Vec<Cidr>,
    /// Hosts (perhaps `*.x`) that are reserved for it.
    pub domains: Vec<String>,
    /// Most sessions at the same time.
    pub max_sessions: usize,
    /// Free text.
    pub description: String,
    /// Free text.
    pub metadata: String,
    /// Where it is defined.
    pub source: CredentialSource,
}

/// Where a credential is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// In edge.yml, or by `culvert-edge dev`.
    File,
    /// In the store.
    Store {
        /// Time of its creation, in seconds since 1970.
        created_at: u64,
    },
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

/// All credentials of an edge. A look-up takes the same time for any number of them.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    list: Vec<Credential>,
    by_id: HashMap<String, usize>,
    /// By the hash of the authtoken. The time of a look-up depends on a hash that a client
    /// cannot choose, so it does not help to guess an authtoken.
    by_hash: HashMap<String, usize>,
    /// Reserved hosts, `*.x` as it is written.
    by_domain: HashMap<String, usize>,
}

impl Credentials {
    /// Creates the list. Ids and tokens must be unique.
    pub fn new(list: Vec<Credential>) -> Self {
        let (mut by_id, mut by_hash, mut by_domain) =
            <(HashMap<_, _>, HashMap<_, _>, HashMap<_, _>)>::default();
        for (at, credential) in list.iter().enumerate() {
            by_id.entry(credential.id.clone()).or_insert(at);
            by_hash.entry(credential.hash.clone()).or_insert(at);
            for domain in &credential.domains {
                by_domain.entry(domain.clone()).or_insert(at);
            }
        }
        Credentials { list, by_id, by_hash, by_domain }
    }

    /// Returns all credentials.
    pub fn iter(&self) -> impl Iterator<Item = &Credential> {
        self.list.iter()
    }

    /// Returns the only credential of `culvert-edge dev`, which may bind everything.
    pub fn dev(token: &Secret) -> Self {
        Credentials::new(vec![Credential {
            id: "dev".into(),
            hash: token::hash(token.expose()),
            acl: Acl::default(),
            ip_allow: Vec::new(),
            domains: Vec::new(),
            max_sessions: usize::MAX,
            acl_rules: Vec::new(),
            description: "authtoken of culvert-edge dev".into(),
            metadata: String::new(),
            source: CredentialSource::File,
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
        let found = self.by_hash(&hash);
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
        let credential =
            self.by_id(id).filter(|c| c.hash == identity.hash).ok_or_else(|| revoked(id))?;
        credential.check_ip(ip)?;
        Ok(credential)
    }

    /// Returns the credential with this id, or the refusal for an agent whose credential has
    /// been removed.
    pub fn valid(&self, id: &str) -> Result<&Credential, Refusal> {
        self.by_id(id).ok_or_else(|| revoked(id))
    }

    /// Returns the credential with this id.
    pub fn by_id(&self, id: &str) -> Option<&Credential> {
        self.list.get(*self.by_id.get(id)?)
    }

    /// Returns the credential whose authtoken has this hash.
    pub fn by_hash(&self, hash: &str) -> Option<&Credential> {
        let credential = self.list.get(*self.by_hash.get(hash)?)?;
        token::constant_time_eq(&credential.hash, hash).then_some(credential)
    }

    /// Returns the credential that `host` is reserved for: by its exact name, else by the
    /// longest wildcard.
    pub fn owner(&self, host: &str) -> Option<&Credential> {
        let mut found = self.by_domain.get(host);
        let mut rest = host;
        while found.is_none()
            && let Some((_, parent)) = rest.split_once('.')
        {
            found = self.by_domain.get(&format!("*.{parent}"));
            rest = parent;
        }
        self.list.get(*found?)
    }

    /// Checks that `host` is not reserved for another credential. Returns the owner if it is
    /// reserved.
    pub fn check_owner(
        &self,
        credential: &Credential,
        host: &str,
    ) -> Result<Option<&Credential>, Refusal> {
        match self.owner(host) {
            Some(owner) if owner.id != credential.id => Err(Refusal::new(
                320,
                format!("The domain '{host}' is reserved for another credential."),
            )),
            owner => Ok(owner),
        }
    }
}

fn revoked(id: &str) -> Refusal {
    Refusal::new(300, format!("The credential '{id}' has been revoked."))
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
            acl_rules: Vec::new(),
            description: String::new(),
            metadata: String::new(),
            source: CredentialSource::File,
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
