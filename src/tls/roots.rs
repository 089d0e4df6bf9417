//! Trusted CAs for a peer's certificate: the bundled root, those of the system, or those of a
//! file. Connections do not belong here.

use std::fs;
use std::io;
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::error::invalid;
use crate::config::Cas;

/// Root CA of ngrok's service (protocol 9).
const BUNDLED_ROOT: &[u8] = include_bytes!("ngrok-root-ca.pem");

/// Paths of root bundles on common systems, the most common first.
const HOST_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];

/// Reads the certificates of a PEM file. A file without a certificate is an error.
fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let pem = read(path)?;
    let list = parse_pem(&pem).map_err(|e| {
        invalid(format!("{} is not a PEM file of certificates: {e}", path.display()))
    })?;
    if list.is_empty() {
        return Err(invalid(format!("{} holds no certificate", path.display())));
    }
    Ok(list)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path)
        .map_err(|e| io::Error::new(e.kind(), format!("cannot read {}: {e}", path.display())))
}

fn parse_pem(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| invalid(e.to_string()))
}

/// Returns the roots for a value of `connect_cas`. For `host`, certificates that cannot be
/// parsed are skipped, because every system's bundle has some.
pub fn load(cas: &Cas) -> io::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    match cas {
        Cas::Trusted => {
            for der in parse_pem(BUNDLED_ROOT)? {
                store.add(der).map_err(|e| invalid(e.to_string()))?;
            }
        }
        Cas::File(path) => {
            for der in certificates(path)? {
                store.add(der).map_err(|e| {
                    invalid(format!("{} holds an unusable certificate: {e}", path.display()))
                })?;
            }
        }
        Cas::Host => {
            // As in other programs (OpenSSL, Go).
            let from_environment = std::env::var_os("SSL_CERT_FILE").filter(|v| !v.is_empty());
            let paths =
                from_environment.iter().map(Path::new).chain(HOST_BUNDLES.iter().map(Path::new));
            let bundle = paths.into_iter().find(|p| p.exists()).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    "this system has no CA bundle; install ca-certificates (OpenWrt: ca-bundle), \
                     or \
                     name a PEM file (connect_cas for the edge, tls_verify_cas for an upstream, \
                     SSL_CERT_FILE for both)",
                )
            })?;
            let pem = read(bundle)?;
            let (added, _) = store.add_parsable_certificates(
                CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok),
            );
            if added == 0 {
                return Err(invalid(format!("{} holds no usable certificate", bundle.display())));
            }
        }
    }
    Ok(store)
}
