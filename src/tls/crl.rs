//! Revocation: fetches and stores the certificate revocation list, and checks the edge's
//! certificate. The TLS library makes the check itself.
//!
//! Policy (`docs/internals/connectivity.md`): a certificate on a list that its CA signed is
//! refused for good. A list that cannot be fetched, read or verified is a warning, logged once:
//! the cause may be a broken network, and a router behind one must still reconnect.

use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, Error, ExpirationPolicy,
    KeyUsage, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use crate::event;
use crate::sys;
use crate::sys::sync::{Mutex, MutexGuard};
use crate::time::Instant;

/// Time that a fetch may delay a session.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum size of a list.
pub const MAX_CRL_BYTES: usize = 1024 * 1024;
/// Time after which a list is fetched again, even if it is valid for longer.
const REFRESH_INTERVAL: Duration = Duration::from_secs(24 * 3_600);
/// Pause after a failed fetch.
const RETRY_DELAY: Duration = Duration::from_secs(600);
/// Name of its file.
const CRL_FILE: &str = "revoked.crl";

/// Status of a certificate according to a list.
#[derive(Debug, PartialEq, Eq)]
pub enum RevocationStatus {
    /// Not on the list.
    Good,
    /// On the list.
    Revoked,
    /// The list cannot be used, with the reason.
    Unknown(String),
}

/// Storage for a list between runs, if that is possible.
pub trait CrlStore {
    /// Returns the content of a file and its age, if both are known.
    fn load(&self, name: &str) -> Option<(Vec<u8>, Option<Duration>)>;
    /// Writes a file as a whole. Best effort.
    fn store(&self, name: &str, bytes: &[u8]);
}

/// Revocation list at one URL.
pub struct Crl {
    /// Its URL.
    pub url: String,
    roots: Arc<RootCertStore>,
    /// Cached list. Not held during calls that block.
    cache: Mutex<CrlCache>,
}

#[derive(Default)]
struct CrlCache {
    looked_on_disk: bool,
    list: Option<Arc<Vec<u8>>>,
    /// Time of the next fetch.
    refresh_at: Option<Instant>,
    /// Time of the next attempt after a failed fetch.
    retry_at: Option<Instant>,
    warned: String,
}

impl Crl {
    /// Returns the list of a CA among `roots`.
    pub fn new(url: &str, roots: Arc<RootCertStore>) -> Self {
        Crl { url: url.to_owned(), roots, cache: Mutex::default() }
    }

    fn cache(&self) -> MutexGuard<'_, CrlCache> {
        self.cache.lock()
    }

    /// Returns whether the certificate was revoked. Fetches the list with `fetch` when that is
    /// due, and logs its faults once.
    pub fn revoked(
        &self,
        chain: &[CertificateDer<'_>],
        store: &dyn CrlStore,
        fetch: &dyn Fn(&str) -> std::io::Result<Vec<u8>>,
    ) -> bool {
        self.look_on_disk(store);
        let now = sys::clock();
        let (kept, due) = {
            let cache = self.cache();
            let refresh_at = cache.refresh_at.is_none_or(|at| at <= now);
            (cache.list.clone(), refresh_at && cache.retry_at.is_none_or(|at| at <= now))
        };
        let check = |list: &[u8]| check(list, &self.roots, chain);
        let old = kept.as_deref().map(|list| check(list));
        let outdated = matches!(old, None | Some(RevocationStatus::Unknown(_)));
        let may_retry = self.cache().retry_at.is_none_or(|at| at <= now);
        let mut new = None;
        if due || (outdated && may_retry) {
            match fetch(&self.url).map(to_der) {
                Ok(list) => {
                    let verdict = check(&list);
                    if !matches!(verdict, RevocationStatus::Unknown(_)) {
                        if kept.as_deref() != Some(&list) {
                            store.store(CRL_FILE, &list);
                        }
                        let mut cache = self.cache();
                        cache.list = Some(Arc::new(list));
                        cache.refresh_at = Some(now + REFRESH_INTERVAL);
                        cache.retry_at = None;
                    } else {
                        self.cache().retry_at = Some(now + RETRY_DELAY);
                    }
                    new = Some(verdict);
                }
                Err(e) => {
                    self.cache().retry_at = Some(now + RETRY_DELAY);
                    new = Some(RevocationStatus::Unknown(format!("cannot be fetched: {e}")));
                }
            }
        }
        // A valid list is not replaced by an invalid one.
        let verdict = match (new, old) {
            (_, Some(RevocationStatus::Revoked)) => RevocationStatus::Revoked,
            (Some(RevocationStatus::Unknown(_)), Some(RevocationStatus::Good)) => {
                RevocationStatus::Good
            }
            (Some(verdict), _) | (None, Some(verdict)) => verdict,
            // A moment ago the fetch failed and was logged.
            (None, None) => return false,
        };
        match verdict {
            RevocationStatus::Revoked => return true,
            RevocationStatus::Good => self.cache().warned.clear(),
            RevocationStatus::Unknown(why) => self.warn(why),
        }
        false
    }

    fn warn(&self, why: String) {
        let mut cache = self.cache();
        if cache.warned != why {
            cache.warned.clone_from(&why);
            drop(cache);
            event!(
                warn,
                obj = "tunnels.session",
                "certificate revocation not checked",
                err = format_args!("the list of revoked certificates {why}"),
                url = self.url,
                hint = "set crl_url, or crl_noverify: true"
            );
        }
    }

    fn look_on_disk(&self, store: &dyn CrlStore) {
        if std::mem::replace(&mut self.cache().looked_on_disk, true) {
            return;
        }
        let Some((list, age)) = store.load(CRL_FILE) else { return };
        let left = age.and_then(|age| REFRESH_INTERVAL.checked_sub(age)).unwrap_or_default();
        let mut cache = self.cache();
        cache.refresh_at = Some(sys::clock() + left);
        cache.list = Some(Arc::new(list));
    }
}

/// Returns the status of a chain that is otherwise valid, according to a list in PEM or DER.
pub fn status(
    list: Vec<u8>,
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'_>],
) -> RevocationStatus {
    check(&to_der(list), roots, chain)
}

/// Converts a list from PEM or DER to DER.
fn to_der(bytes: Vec<u8>) -> Vec<u8> {
    match CertificateRevocationListDer::from_pem_slice(&bytes) {
        Ok(der) => der.to_vec(),
        Err(_) => bytes,
    }
}

/// Returns the status of a chain that is otherwise valid, according to a list in DER.
fn check(
    list: &[u8],
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'_>],
) -> RevocationStatus {
    let Some((leaf, between)) = chain.split_first() else {
        return RevocationStatus::Unknown("is not needed: no certificate".to_owned());
    };
    let unreadable = || RevocationStatus::Unknown("cannot be read".to_owned());
    let Ok(list) = BorrowedCertRevocationList::from_der(list) else { return unreadable() };
    let list = CertRevocationList::from(list);
    let Ok(leaf) = EndEntityCert::try_from(leaf) else { return unreadable() };
    let ask = |unknown: UnknownStatusPolicy, expired: ExpirationPolicy| {
        let lists = [&list];
        let options = RevocationOptionsBuilder::new(&lists).ok()?;
        let options = options.with_status_policy(unknown).with_expiration_policy(expired).build();
        let now = UnixTime::now();
        let usage = KeyUsage::server_auth();
        let algorithms = super::provider::any().signature_verification_algorithms.all;
        leaf.verify_for_usage(algorithms, &roots.roots, between, now, usage, Some(options), None)
            .err()
    };
    let why = match ask(UnknownStatusPolicy::Deny, ExpirationPolicy::Enforce) {
        None => return RevocationStatus::Good,
        Some(Error::CertRevoked) => return RevocationStatus::Revoked,
        Some(Error::CrlExpired { .. }) => "is out of date",
        Some(Error::UnknownRevocationStatus) => {
            "is not by the CA that signed the edge's certificate"
        }
        Some(_) => "has an invalid signature or an unsupported entry",
    };
    // The list may be old or of another scope, but its entries are signed.
    match ask(UnknownStatusPolicy::Allow, ExpirationPolicy::Ignore) {
        Some(Error::CertRevoked) => RevocationStatus::Revoked,
        _ => RevocationStatus::Unknown(why.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::last_good::CacheDirs;
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer,
        KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
    };
    use std::cell::Cell;

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        roots: Arc<RootCertStore>,
    }

    impl Authority {
        fn new(name: &str) -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            let mut roots = RootCertStore::empty();
            roots.add(params.self_signed(&key).unwrap().der().clone()).unwrap();
            Authority { issuer: Issuer::new(params, key), roots: Arc::new(roots) }
        }

        fn leaf(&self, serial: u64) -> Vec<CertificateDer<'static>> {
            let mut params = CertificateParams::new(vec!["edge.example".to_owned()]).unwrap();
            params.serial_number = Some(SerialNumber::from(serial));
            let key = KeyPair::generate().unwrap();
            vec![params.signed_by(&key, &self.issuer).unwrap().der().clone()]
        }

        fn list(&self, serial: u64, until: i32) -> Vec<u8> {
            let revoked = RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            };
            let params = CertificateRevocationListParams {
                this_update: date_time_ymd(2020, 1, 1),
                next_update: date_time_ymd(until, 1, 1),
                crl_number: SerialNumber::from(1),
                issuing_distribution_point: None,
                revoked_certs: vec![revoked],
                key_identifier_method: KeyIdMethod::Sha256,
            };
            params.signed_by(&self.issuer).unwrap().der().to_vec()
        }
    }

    #[test]
    fn what_lists_say() {
        let (ours, other, twin) = (Authority::new("a"), Authority::new("b"), Authority::new("a"));
        let leaf = ours.leaf(7);
        let check = |list: &[u8]| check(list, &ours.roots, &leaf);
        let doubt = |list: &[u8]| match check(list) {
            RevocationStatus::Unknown(why) => why,
            sure => panic!("{sure:?}"),
        };
        assert_eq!(check(&ours.list(8, 2200)), RevocationStatus::Good);
        assert_eq!(check(&ours.list(7, 2200)), RevocationStatus::Revoked);
        // An old list with a valid entry.
        assert_eq!(check(&ours.list(7, 2021)), RevocationStatus::Revoked);
        assert!(doubt(&ours.list(8, 2021)).contains("out of date"));
        assert!(doubt(&other.list(7, 2200)).contains("not by the CA"));
        // Signed by another CA of the same name.
        assert!(doubt(&twin.list(7, 2200)).contains("invalid signature"));
        assert!(doubt(b"<html>").contains("cannot be read"));
        let good = ours.list(8, 2200);
        for len in 0..good.len() {
            assert!(matches!(check(&good[..len]), RevocationStatus::Unknown(_)), "{len} bytes");
        }
        let pem = pem_of(&good);
        assert_eq!(to_der(pem.into_bytes()), good);
        assert_eq!(to_der(good.clone()), good);
    }

    fn pem_of(der: &[u8]) -> String {
        let mut text = String::new();
        for chunk in der.chunks(3) {
            // Each group separately, as a PEM reader joins them.
            let at = |n: usize| u32::from(chunk.get(n).copied().unwrap_or(0));
            let bits = at(0) << 16 | at(1) << 8 | at(2);
            for n in 0..4 {
                let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
                let digit = alphabet[(bits >> (18 - 6 * n) & 63) as usize];
                text.push(if n > chunk.len() { '=' } else { char::from(digit) });
            }
        }
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", lines.join("\n"))
    }

    #[test]
    fn a_list_is_kept_and_a_good_one_outlives_bad_ones() {
        let ours = Authority::new("a");
        let dir = std::env::temp_dir().join(format!("culvert-crl-{}", std::process::id()));
        let state = CacheDirs::new(Some(&dir), &|_| None);
        let (good, bad) = (ours.leaf(7), ours.leaf(8));
        let asked = Cell::new(0);
        let list = ours.list(8, 2200);
        let give = |_: &str| {
            asked.set(asked.get() + 1);
            Ok(list.clone())
        };
        let fail = |_: &str| {
            asked.set(asked.get() + 1);
            Err(std::io::Error::other("no"))
        };
        let crl = Crl::new("http://x/", ours.roots.clone());
        // No further fetch within the retry delay.
        assert!(!crl.revoked(&bad, &state, &fail));
        assert!(!crl.revoked(&bad, &state, &fail));
        assert_eq!(asked.get(), 1);
        crl.cache().retry_at = None;
        assert!(crl.revoked(&bad, &state, &give));
        assert!(!crl.revoked(&good, &state, &give));
        assert_eq!(asked.get(), 2);
        // The next run has it from the disk.
        let crl = Crl::new("http://x/", ours.roots.clone());
        assert!(crl.revoked(&bad, &state, &fail));
        assert_eq!(asked.get(), 2);
        // An invalid list in its place: the old one is still used.
        crl.cache().refresh_at = None;
        let lie = |_: &str| Ok(b"<html>".to_vec());
        assert!(crl.revoked(&bad, &state, &lie));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
