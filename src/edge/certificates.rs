//! Certificates of the edge: from files, or issued by a CA of its own for each requested server
//! name. Wildcards are not enough: common TLS clients refuse `*.localhost`. Each handshake
//! compares an issued certificate with the clock and replaces it in time. Files of the state
//! directory are written in [`super::state`].

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
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
use super::config::CertificateFiles;
use crate::sys::sync::{Mutex, RwLock};
use crate::tls::x509;

/// Name of the CA. Agents verify it, so it never changes.
const CA_NAME: &str = "culvert-edge local CA";

/// Validity of an issued certificate. Browsers accept at most 398 days.
const LEAF_DAYS: u32 = 397;

/// Age at which an issued certificate is replaced: half of its validity.
const RENEWAL_AGE: Duration = DAY.saturating_mul(LEAF_DAYS / 2);

const DAY: Duration = Duration::from_secs(24 * 3_600);

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

    /// Issues a certificate for these names. Returns its chain and key. It is valid from the
    /// day before `now` on.
    pub fn issue(
        &self,
        names: &[String],
        now: SystemTime,
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
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        params.not_before = date_time_ymd(1970, 1, 1) + now.saturating_sub(DAY);
        params.not_after = date_time_ymd(1970, 1, 1) + now + DAY * LEAF_DAYS;
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
    source: CertSource,
    /// For agents, and for names that no other certificate has.
    own: Mutex<IssuedCert>,
    /// Domains of the accounts. The own CA issues certificates for them.
    reserved: RwLock<Vec<String>>,
    /// Certificates of the accounts, by the domain that uses each.
    attached: RwLock<Vec<(String, Arc<CertifiedKey>)>>,
}

enum CertSource {
    /// Each for the names that it has.
    Files(Vec<FileCert>),
    /// Issued for names below `domains`.
    Ca { ca: Arc<Ca>, domains: Vec<String>, own_names: Vec<String>, cache: Mutex<Vec<IssuedCert>> },
}

/// A certificate from files.
struct FileCert {
    names: Vec<String>,
    path: String,
    key: Arc<CertifiedKey>,
}

/// A certificate that was issued for a name.
struct IssuedCert {
    name: String,
    issued_at: SystemTime,
    key: Arc<CertifiedKey>,
}

impl IssuedCert {
    fn new(ca: &Ca, names: &[String], now: SystemTime) -> io::Result<Self> {
        let (chain, key) = ca.issue(names, now)?;
        let name = names.first().cloned().unwrap_or_default();
        Ok(IssuedCert {
            name,
            issued_at: now,
            key: Arc::new(certified(chain, key).map_err(io::Error::other)?),
        })
    }

    /// Returns whether it is valid for a long time yet. After a jump of the clock in either
    /// direction it is not.
    fn is_fresh(&self, now: SystemTime) -> bool {
        now.duration_since(self.issued_at).is_ok_and(|age| age < RENEWAL_AGE)
    }
}

impl CertResolver {
    /// Reads certificates from files. The first one is for agents and unknown names.
    pub fn from_files(files: &[CertificateFiles]) -> io::Result<Self> {
        let mut list = Vec::new();
        for files in files {
            let key = load(files)
                .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", files.position)))?;
            let names = key.cert.first().map(|leaf| x509::dns_names(leaf)).unwrap_or_default();
            let path = files.certificate.display().to_string();
            list.push(FileCert { names, path, key: Arc::new(key) });
        }
        let Some(first) = list.first() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no certificate is configured",
            ));
        };
        let own =
            IssuedCert { name: String::new(), issued_at: UNIX_EPOCH, key: Arc::clone(&first.key) };
        Ok(CertResolver::new(CertSource::Files(list), own))
    }

    /// Issues certificates for names below `domains`. All others get one for `own_names`.
    pub fn from_ca(
        ca: Arc<Ca>,
        domains: Vec<String>,
        own_names: Vec<String>,
        now: SystemTime,
    ) -> io::Result<Self> {
        let own = IssuedCert::new(&ca, &own_names, now)?;
        let source = CertSource::Ca { ca, domains, own_names, cache: Mutex::default() };
        Ok(CertResolver::new(source, own))
    }

    fn new(source: CertSource, own: IssuedCert) -> Self {
        CertResolver {
            source,
            own: Mutex::new(own),
            reserved: RwLock::default(),
            attached: RwLock::default(),
        }
    }

    /// Replaces the domains of the accounts, and the certificates that some of them have.
    pub fn set_domains(&self, domains: Vec<String>, certificates: Vec<(String, CertifiedKey)>) {
        *self.reserved.write() = domains;
        let shared = certificates.into_iter().map(|(domain, key)| (domain, Arc::new(key)));
        *self.attached.write() = shared.collect();
    }

    /// Returns the certificate of the account's domain that covers `name`: the exact name before
    /// a wildcard.
    fn attached(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let attached = self.attached.read();
        let exact = attached.iter().find(|(domain, _)| domain == name);
        let found = exact.or_else(|| attached.iter().find(|(domain, _)| covers(domain, name)));
        found.map(|(_, key)| Arc::clone(key))
    }

    /// Returns the files and the end of the validity of the configured certificates.
    pub fn expiries(&self) -> Vec<(&str, SystemTime)> {
        let CertSource::Files(list) = &self.source else { return Vec::new() };
        let expiry = |file: &FileCert| x509::not_after(file.key.cert.first()?);
        list.iter().filter_map(|file| Some((file.path.as_str(), expiry(file)?))).collect()
    }

    /// Returns whether one certificate has both names. Certificates that the edge issues have
    /// one name each.
    pub fn has_both(&self, a: &str, b: &str) -> bool {
        let CertSource::Files(list) = &self.source else { return false };
        if self.attached(a).is_some() || self.attached(b).is_some() {
            return false;
        }
        let (a, b) = (find_file(list, a), find_file(list, b));
        a.zip(b).is_some_and(|(a, b)| Arc::ptr_eq(&a, &b))
    }

    /// Returns the certificate for agents and for unknown names.
    fn own(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let mut own = self.own.lock();
        if let CertSource::Ca { ca, own_names, .. } = &self.source
            && !own.is_fresh(now)
            // One that is too old is better than none.
            && let Ok(new) = IssuedCert::new(ca, own_names, now)
        {
            *own = new;
        }
        Arc::clone(&own.key)
    }

    fn find(&self, name: &str, now: SystemTime) -> Arc<CertifiedKey> {
        let name = name.to_ascii_lowercase();
        if let Some(key) = self.attached(&name) {
            return key;
        }
        let found = match &self.source {
            CertSource::Files(list) => find_file(list, &name),
            CertSource::Ca { ca, domains, cache, .. } => {
                let ours =
                    |d: &String| *d == name || covers(&format!("*.{d}"), &name) || covers(d, &name);
                let reserved = || self.reserved.read().iter().any(ours);
                let issued = (domains.iter().any(ours) || reserved())
                    .then(|| issue_cached(ca, cache, &name, now));
                issued.and_then(Result::ok)
            }
        };
        found.unwrap_or_else(|| self.own(now))
    }
}

/// Finds the certificate that has `name`: an exact name before a wildcard.
fn find_file(list: &[FileCert], name: &str) -> Option<Arc<CertifiedKey>> {
    let with = |wildcard: bool| {
        let fits = move |n: &String| n.starts_with('*') == wildcard && matches_host(n, name);
        list.iter().find(|file| file.names.iter().any(fits))
    };
    with(false).or_else(|| with(true)).map(|file| Arc::clone(&file.key))
}

/// Returns a fresh certificate for `name` from the cache, or issues one.
fn issue_cached(
    ca: &Ca,
    cache: &Mutex<Vec<IssuedCert>>,
    name: &str,
    now: SystemTime,
) -> io::Result<Arc<CertifiedKey>> {
    {
        let mut cache = cache.lock();
        cache.retain(|issued| issued.is_fresh(now));
        if let Some(issued) = cache.iter().find(|issued| issued.name == name) {
            return Ok(Arc::clone(&issued.key));
        }
    }
    let issued = IssuedCert::new(ca, &[name.to_owned()], now)?;
    let key = Arc::clone(&issued.key);
    let mut cache = cache.lock();
    if cache.len() >= MAX_CACHED_LEAVES {
        // The oldest one.
        cache.remove(0);
    }
    cache.push(issued);
    Ok(key)
}

impl fmt::Debug for CertResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertResolver").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for CertResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = SystemTime::now();
        Some(match hello.server_name() {
            Some(name) => self.find(name, now),
            None => self.own(now),
        })
    }
}

/// The certificate for the agents' port, whatever name they connect to.
#[derive(Debug)]
pub struct AgentCertResolver(pub Arc<CertResolver>);

impl ResolvesServerCert for AgentCertResolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.own(SystemTime::now()))
    }
}

/// Returns whether a name of a certificate covers `host`. A wildcard covers one label.
fn matches_host(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(rest) => host.split_once('.').is_some_and(|(_, h)| h == rest),
        None => name == host,
    }
}

/// Reads a chain and its key from PEM files. The error names the file.
fn load(files: &CertificateFiles) -> io::Result<CertifiedKey> {
    let CertificateFiles { certificate, key, .. } = files;
    let unreadable = |what: &str, path: &Path, e: &dyn fmt::Display| {
        let text = format!("cannot read the {what} {}: {e}", path.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| unreadable("certificate", certificate, &e))?;
    if chain.is_empty() {
        return Err(unreadable("certificate", certificate, &"no certificate is in it"));
    }
    let der = PrivateKeyDer::from_pem_file(key).map_err(|e| unreadable("private key", key, &e))?;
    certified(chain, der).map_err(|e| {
        let text = format!(
            "the private key {} and the certificate {} cannot be used: {e}",
            key.display(),
            certificate.display()
        );
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

/// Returns the certificate of PEM texts.
pub fn from_pem(chain: &str, key: &str) -> io::Result<CertifiedKey> {
    let invalid = |e: &dyn fmt::Display| io::Error::new(io::ErrorKind::InvalidData, e.to_string());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let chain = chain.map_err(|e| invalid(&e))?;
    if chain.is_empty() {
        return Err(invalid(&"no certificate is in the PEM text"));
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|e| invalid(&format!("the private key is not PEM: {e}")))?;
    certified(chain, key).map_err(|e| invalid(&e))
}

/// Returns a chain with its private key. The error is the reason, without bytes of the input.
pub fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, String> {
    let key = any_supported_type(&key)
        .map_err(|_| "the type of the private key is not supported".to_owned())?;
    let key = CertifiedKey::new(chain, key);
    match key.keys_match() {
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err("the key does not match; use the key of the certificate".to_owned())
        }
        _ => Ok(key),
    }
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

    fn resolver(now: SystemTime) -> CertResolver {
        let domains = vec!["localhost".to_owned()];
        CertResolver::from_ca(ca(), domains.clone(), domains, now).unwrap()
    }

    fn at_day(day: u32) -> SystemTime {
        UNIX_EPOCH + DAY * day
    }

    /// Returns whether a certificate of the resolver may be shown for a month from `day` on.
    fn is_valid_for_a_month(key: &CertifiedKey, day: u32) -> bool {
        let der: &[u8] = &key.cert[0];
        let end = x509::not_after(der).unwrap();
        // The validity begins one day before the issue.
        let start = end - DAY * (LEAF_DAYS + 1);
        start <= at_day(day) && at_day(day + 30) < end
    }

    #[test]
    fn issued_certificates_are_valid_on_every_day_of_the_clock() {
        let mut day = 0;
        let r = resolver(at_day(day));
        let today = 20_786;
        // Booted in 1970 and set right, years of uptime, wrong by a century and set back.
        let years = (1..60).map(|month| today + month * 30);
        for next in [today].into_iter().chain(years).chain([today + 36_500, today]) {
            day = next;
            for key in [r.own(at_day(day)), r.find("a.localhost", at_day(day))] {
                assert!(is_valid_for_a_month(&key, day), "day {day}");
            }
        }
        let again = r.own(at_day(day + 1));
        assert!(Arc::ptr_eq(&again, &r.own(at_day(day))), "no new one for each handshake");
    }

    #[test]
    fn each_name_below_the_domain_gets_its_own() {
        let r = resolver(at_day(20_000));
        let find = |host: &str| r.find(host, at_day(20_000));
        let names = |host: &str| x509::dns_names(&find(host).cert[0]);
        assert_eq!(names("ABC.localhost"), ["abc.localhost"]);
        assert_eq!(names("other.example"), ["localhost"]);
        let (a, b) = (find("a.localhost"), find("a.localhost"));
        assert!(Arc::ptr_eq(&a, &b), "made once");
        for n in 0..MAX_CACHED_LEAVES + 5 {
            find(&format!("n{n}.localhost"));
        }
        let CertSource::Ca { cache, .. } = &r.source else { unreachable!("it has a CA") };
        assert!(cache.lock().len() <= MAX_CACHED_LEAVES);
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
        let (chain, key) = again.issue(&names, SystemTime::now()).unwrap();
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
