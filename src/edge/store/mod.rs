//! Store of accounts: what the REST API creates and a restart must keep. [`AccountStore`] is all
//! that the rest of the edge knows of a database: it reads everything, and applies changes in
//! one step. [`sqlite`] is its implementation in one file. What the objects mean is decided in
//! `edge::accounts`.

pub mod migrations;
pub mod sqlite;

use std::fmt;

use serde_json::{Map, Value};

/// Kind of an object. The text is the prefix of its ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// Credential of agents: an authtoken with its ACL.
    Credential,
    /// Key of the REST API.
    ApiKey,
    /// Domain that agents may bind.
    ReservedDomain,
    /// TCP address that is not assigned at random.
    ReservedAddr,
    /// List of addresses.
    IpPolicy,
    /// Network in a list of addresses.
    IpPolicyRule,
    /// Use of lists of addresses for agents, endpoints or the REST API.
    IpRestriction,
    /// Certificate with its key.
    TlsCertificate,
    /// Certificate of a CA.
    CertificateAuthority,
    /// Group of secrets.
    Vault,
    /// Secret text.
    VaultSecret,
}

impl ObjectKind {
    /// All kinds.
    pub const ALL: [ObjectKind; 11] = [
        ObjectKind::Credential,
        ObjectKind::ApiKey,
        ObjectKind::ReservedDomain,
        ObjectKind::ReservedAddr,
        ObjectKind::IpPolicy,
        ObjectKind::IpPolicyRule,
        ObjectKind::IpRestriction,
        ObjectKind::TlsCertificate,
        ObjectKind::CertificateAuthority,
        ObjectKind::Vault,
        ObjectKind::VaultSecret,
    ];

    /// Returns the prefix of the ids of this kind.
    pub fn prefix(self) -> &'static str {
        match self {
            ObjectKind::Credential => "cr",
            ObjectKind::ApiKey => "ak",
            ObjectKind::ReservedDomain => "rd",
            ObjectKind::ReservedAddr => "ra",
            ObjectKind::IpPolicy => "ipp",
            ObjectKind::IpPolicyRule => "ipr",
            ObjectKind::IpRestriction => "ipx",
            ObjectKind::TlsCertificate => "cert",
            ObjectKind::CertificateAuthority => "ca",
            ObjectKind::Vault => "vault",
            ObjectKind::VaultSecret => "secret",
        }
    }

    /// Returns the kind with this prefix.
    pub fn of_prefix(prefix: &str) -> Option<Self> {
        ObjectKind::ALL.into_iter().find(|kind| kind.prefix() == prefix)
    }
}

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredObject {
    /// Its id, unique among all objects.
    pub id: String,
    /// Its kind.
    pub kind: ObjectKind,
    /// Name that is unique within its kind: a host, an address. `None`: it has none.
    pub name: Option<String>,
    /// Hash of a token, or an encrypted text. Never a readable secret.
    pub secret: Option<String>,
    /// Time of its creation, in seconds since 1970.
    pub created_at: u64,
    /// Time of its last change, likewise.
    pub updated_at: u64,
    /// Its other fields.
    pub fields: Map<String, Value>,
}

/// A change of the store.
#[derive(Clone, Debug)]
pub enum StoreChange {
    /// Adds an object. Its id is new.
    Insert(StoredObject),
    /// Replaces the object with the same id.
    Update(StoredObject),
    /// Removes the object with this id.
    Delete(String),
}

/// Why the store failed. The text names the cause and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Another process holds the store. A later attempt may succeed.
    Busy(String),
    /// The disk is full.
    Full(String),
    /// The name of an object is in use.
    NameInUse,
    /// The object to change does not exist.
    Missing(String),
    /// Damaged, of a newer version, or not readable.
    Unusable(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Busy(text) | StoreError::Full(text) | StoreError::Unusable(text) => {
                f.write_str(text)
            }
            StoreError::NameInUse => f.write_str("an object with this name exists already"),
            StoreError::Missing(id) => write!(f, "the object {id} does not exist in the store"),
        }
    }
}

/// A database of objects.
pub trait AccountStore: Send + Sync {
    /// Reads all objects. A store that does not exist yet has none.
    fn load(&self) -> Result<Vec<StoredObject>, StoreError>;

    /// Applies all changes, or none of them. They survive a loss of power after it.
    fn apply(&self, changes: &[StoreChange]) -> Result<(), StoreError>;
}
