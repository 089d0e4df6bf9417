//! Certificates of the edge: from files, or issued by a CA of its own for each requested server
//! name. Wildcards are not enough: common TLS clients refuse `*.localhost`. Files of the state
//! directory are written in [`super::state`].

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::agents::acl::covers;

use crate::sys::sync::Mutex;

/// Name of the CA. Agents verify it, so it never changes.
const CA_NAME: &str = "culvert-edge local CA";

/// Days that an issued certificate is valid. Browsers accept at most 398.
const LEAF_DAYS: u64 = 397;

/// Generated certificates in the cache.
const MAX_CACHED_LEAVES: usize = 256;

/// CA of this edge.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    leaf_key: KeyPair,
}

impl Ca {
    /// Creates a key for a CA, as PEM.
    pub fn new_key() -> io::Result<String> {
        Ok(KeyPair::generate().map_err(generation_error)?.serialize_pem())
    }

    /// Returns the CA with this key.
    pub fn new(key_pem: &str) -> io::Result<Self> {
        let key = KeyPair::from_pem(key_pem).map_err(generation_error)?;
        let issuer = Issuer::new(ca_params()?, key);
        Ok(Ca { issuer, leaf_key: KeyPair::generate().map_err(generation_error)? })
    }

    /// Returns its certificate, as PEM. It is created once and stored, because agents have a
    /// copy.
    pub fn certificate(&self) -> io::Result<String> {
        Ok(ca_params()?.self_signed(self.issuer.key()).map_err(generation_error)?.pem())
    }

    /// Issues a certificate for these names and returns its chain and key. It is valid from
    /// yesterday.
    pub fn issue(
        &self,
        names: &[String],
    ) -> io::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let mut params = CertificateParams::new(names.to_vec()).map_err(generation_error)?;
        let mut name = DistinguishedName::new();
        // The common name has at most 64 characters. Clients verify the other names.
        let first: String = names.first().map(|n| n.chars().take(64).collect()).unwrap_or_default();
        name.push(DnType::CommonName, first);
        params.distinguished_name = name;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let day = Duration::from_secs(24 * 3_600);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        params.not_before = date_time_ymd(1970, 1, 1) + now.saturating_sub(day);
        params.not_after =
            date_time_ymd(1970, 1, 1) + now + day * u32::try_from(LEAF_DAYS).unwrap_or(1);
        let leaf = params.signed_by(&self.leaf_key, &self.issuer).map_err(generation_error)?;
        let key = PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der());
        Ok((vec![leaf.der().clone()], key.into()))
    }
}

fn ca_params() -> io::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).map_err(generation_error)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, CA_NAME);
    params.distinguished_name = name;
    // This CA issues no CAs, and only certificates that an edge needs.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2045, 1, 1);
    Ok(params)
}

fn generation_error(e: rcgen::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("certificates: {e}"))
}

/// Chooses the certificate by the server name of the ClientHello.
pub struct CertResolver {
    files: Vec<(Vec<String>, Arc<CertifiedKey>)>,
    ca: Option<Arc<Ca>>,
    domains: Vec<String>,
    fallback: Arc<CertifiedKey>,
    /// Issued certificates by name, the oldest first.
    made: Mutex<Vec<(String, SystemTime, Arc<CertifiedKey>)>>,
}

impl CertResolver {
    /// Returns a resolver with certificates from files. Each is used for the hosts that it
    /// names, and the first one for all other hosts.
    pub fn from_files(files: &[(PathBuf, PathBuf)]) -> io::Result<Self> {
        let mut list = Vec::new();
        for (chain, key) in files {
            let (chain, key) = load(chain, key)?;
            let certified = certified(chain, key)?;
            let names = names_of(&certified.cert);
            list.push((names, Arc::new(certified)));
        }
        let Some((_, first)) = list.first() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no certificate is configured",
            ));
        };
        let fallback = Arc::clone(first);
        Ok(CertResolver {
            files: list,
            ca: None,
            domains: Vec::new(),
            fallback,
            made: Mutex::default(),
        })
    }

    /// Returns a resolver that issues certificates for names below `domains`. All other names
    /// get the certificate of the first domain.
    pub fn from_ca(ca: Arc<Ca>, domains: Vec<String>, fallback: &[String]) -> io::Result<Self> {
        let (chain, key) = ca.issue(fallback)?;
        let fallback = Arc::new(certified(chain, key)?);
        let made = Mutex::default();
        Ok(CertResolver { files: Vec::new(), ca: Some(ca), domains, fallback, made })
    }

    fn find(&self, name: &str) -> Arc<CertifiedKey> {
        let name = name.to_ascii_lowercase();
        // Exact names before wildcards.
        for wildcard in [false, true] {
            for (names, key) in &self.files {
                let fits = |n: &String| n.starts_with('*') == wildcard && matches_host(n, &name);
                if names.iter().any(fits) {
                    return Arc::clone(key);
                }
            }
        }
        let ours = |d: &String| *d == name || covers(&format!("*.{d}"), &name) || covers(d, &name);
        match &self.ca {
            Some(ca) if self.domains.iter().any(ours) => {
                self.make(ca, name).unwrap_or_else(|_| Arc::clone(&self.fallback))
            }
            _ => Arc::clone(&self.fallback),
        }
    }

    fn make(&self, ca: &Ca, name: String) -> io::Result<Arc<CertifiedKey>> {
        let now = SystemTime::now();
        {
            let mut made = self.made.lock();
            // Half of the validity: an edge that runs for years never shows an expired
            // certificate.
            let young = Duration::from_secs(LEAF_DAYS / 2 * 24 * 3_600);
            made.retain(|(_, at, _)| now.duration_since(*at).is_ok_and(|age| age < young));
            if let Some((_, _, key)) = made.iter().find(|(n, ..)| *n == name) {
                return Ok(Arc::clone(key));
            }
        }
        let (chain, key) = ca.issue(std::slice::from_ref(&name))?;
        let key = Arc::new(certified(chain, key)?);
        let mut made = self.made.lock();
        if made.len() >= MAX_CACHED_LEAVES {
            made.remove(0);
        }
        made.push((name, now, Arc::clone(&key)));
        Ok(key)
    }
}

impl std::fmt::Debug for CertResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("domains", &self.domains).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for CertResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(match hello.server_name() {
            Some(name) => self.find(name),
            None => Arc::clone(&self.fallback),
        })
    }
}

/// Returns whether a name of a certificate covers `host`. A wildcard covers one label.
fn matches_host(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(rest) => host.split_once('.').is_some_and(|(_, h)| h == rest),
        None => name == host,
    }
}

/// Reads a certificate chain and its key from PEM files.
pub fn load(
    chain: &std::path::Path,
    key: &std::path::Path,
) -> io::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let unreadable = |what: &str, path: &std::path::Path, e: &dyn std::fmt::Display| {
        let text = format!("cannot read the {what} {}: {e}", path.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| unreadable("certificate", chain, &e))?;
    if certificates.is_empty() {
        return Err(unreadable("certificate", chain, &"no certificate is in it"));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| unreadable("private key", key, &e))?;
    Ok((certificates, key))
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> io::Result<CertifiedKey> {
    let bad = |e: rustls::Error| io::Error::new(io::ErrorKind::InvalidData, e.to_string());
    let key = CertifiedKey::new(chain, any_supported_type(&key).map_err(bad)?);
    match key.keys_match() {
        Err(e @ rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err(bad(e))
        }
        _ => Ok(key),
    }
}

/// Returns the DNS names of a certificate. The operator chose the certificate, so a search for
/// the bytes of the extension is enough. A certificate without names is the fallback.
fn names_of(chain: &[CertificateDer<'static>]) -> Vec<String> {
    let Some(leaf) = chain.first() else { return Vec::new() };
    subject_alt_names(leaf.as_ref())
}

/// Reads the extension 2.5.29.17 (subjectAltName) of a certificate in DER.
fn subject_alt_names(der: &[u8]) -> Vec<String> {
    const OID: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x11];
    let Some(at) = der.windows(OID.len()).position(|w| w == OID) else { return Vec::new() };
    let mut rest = &der[at + OID.len()..];
    // An optional "critical", then an octet string with a sequence of names.
    if rest.first() == Some(&0x01) {
        rest = rest.get(3..).unwrap_or_default();
    }
    let Some((0x04, octets, _)) = tlv(rest) else { return Vec::new() };
    let Some((0x30, mut names, _)) = tlv(octets) else { return Vec::new() };
    let mut out = Vec::new();
    while let Some((tag, value, rest)) = tlv(names) {
        if tag == 0x82
            && let Ok(name) = std::str::from_utf8(value)
        {
            out.push(name.to_ascii_lowercase());
        }
        names = rest;
    }
    out
}

/// Returns one element of DER: tag, value, and the rest.
fn tlv(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (usize::from(*rest.first()?) << 8 | usize::from(*rest.get(1)?), &rest[2..]),
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(len)?;
    Some((tag, value, rest))
}

/// Returns the names for the edge's own certificate.
pub fn own_names(domain: &str, agent: IpAddr) -> Vec<String> {
    let mut names: Vec<String> =
        ["localhost", "*.localhost", "127.0.0.1", "::1"].map(String::from).to_vec();
    for name in [domain.to_owned(), format!("*.{domain}"), agent.to_string()] {
        if !names.contains(&name) && !is_unspecified(&name) {
            names.push(name);
        }
    }
    names
}

fn is_unspecified(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ca() -> Arc<Ca> {
        Arc::new(Ca::new(&Ca::new_key().unwrap()).unwrap())
    }

    #[test]
    fn each_name_below_the_domain_gets_its_own() {
        let r =
            CertResolver::from_ca(ca(), vec!["localhost".into()], &["localhost".into()]).unwrap();
        let names = |host: &str| names_of(&r.find(host).cert);
        assert_eq!(names("ABC.localhost"), ["abc.localhost"]);
        assert_eq!(names("other.example"), ["localhost"]);
        let (a, b) = (r.find("a.localhost"), r.find("a.localhost"));
        assert!(Arc::ptr_eq(&a, &b), "made once");
        for n in 0..MAX_CACHED_LEAVES + 5 {
            r.find(&format!("n{n}.localhost"));
        }
        assert!(r.made.lock().len() <= MAX_CACHED_LEAVES);
    }

    #[test]
    fn the_chain_verifies_with_the_ca_kept_from_before() {
        let key = Ca::new_key().unwrap();
        let pem = Ca::new(&key).unwrap().certificate().unwrap();
        let again = Ca::new(&key).unwrap();
        let names = own_names("dev.test", "127.0.0.1".parse().unwrap());
        assert_eq!(
            names,
            ["localhost", "*.localhost", "127.0.0.1", "::1", "dev.test", "*.dev.test"]
        );
        let (chain, key) = again.issue(&names).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .unwrap();
        let now = rustls::pki_types::UnixTime::now();
        for name in ["localhost", "127.0.0.1", "a.dev.test", "::1"] {
            use rustls::client::danger::ServerCertVerifier;
            let name = name.to_owned().try_into().unwrap();
            verifier.verify_server_cert(&chain[0], &[], &name, &[], now).unwrap();
        }
        certified(chain, key).unwrap();
    }

    #[test]
    fn files_are_chosen_by_their_names() {
        assert!(
            matches_host("*.a.b", "x.a.b")
                && !matches_host("*.a.b", "x.y.a.b")
                && !matches_host("*.a.b", "a.b")
        );
        assert!(matches_host("a.b", "a.b") && !matches_host("a.b", "x.a.b"));
    }
}
