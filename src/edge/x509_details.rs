//! Fields of a certificate for display in the REST API, read from its DER. Nothing is verified
//! here. Names and validity for the edge's own decisions are in [`crate::tls::x509`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use super::token;
use crate::tls::x509::{element, time};

const BIT_STRING: u8 = 0x03;
const OID: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const SEQUENCE: u8 = 0x30;
/// `[0]` around the version.
const VERSION: u8 = 0xa0;
/// `[3]` around the extensions.
const EXTENSIONS: u8 = 0xa3;
/// `[2]` and `[7]` in a subjectAltName.
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

/// Attributes of names (RFC 5280 appendix A.1).
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const COUNTRY: &[u8] = &[0x55, 4, 6];
const LOCALITY: &[u8] = &[0x55, 4, 7];
const PROVINCE: &[u8] = &[0x55, 4, 8];
const ORGANIZATION: &[u8] = &[0x55, 4, 10];
const ORGANIZATIONAL_UNIT: &[u8] = &[0x55, 4, 11];

/// Extensions (RFC 5280 4.2.1).
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 17];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];

/// Names of the bits of the key usage, the first one first.
const KEY_USAGES: [&str; 9] = [
    "digital signature",
    "content commitment",
    "key encipherment",
    "data encipherment",
    "key agreement",
    "cert sign",
    "crl sign",
    "encipher only",
    "decipher only",
];

/// Fields of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateDetails {
    /// Names of the subject: common name, organization, unit, locality, province, country.
    pub subject: [String; 6],
    /// Common name of the issuer.
    pub issuer: String,
    /// Serial number in hexadecimal.
    pub serial: String,
    /// Begin of the validity.
    pub not_before: Option<SystemTime>,
    /// End of the validity.
    pub not_after: Option<SystemTime>,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// IP addresses.
    pub ips: Vec<IpAddr>,
    /// Uses of the key.
    pub key_usages: Vec<&'static str>,
    /// Further uses.
    pub extended_key_usages: Vec<&'static str>,
    /// `rsa`, `ecdsa`, `ed25519`, or empty.
    pub key_type: &'static str,
    /// Whether it is of a CA.
    pub is_ca: bool,
}

/// Reads a certificate. `None`: it is malformed.
pub fn read(der: &[u8]) -> Option<CertificateDetails> {
    let (SEQUENCE, certificate, _) = element(der)? else { return None };
    let (SEQUENCE, mut body, _) = element(certificate)? else { return None };
    if body.first() == Some(&VERSION) {
        body = element(body)?.2;
    }
    let (_, serial, rest) = element(body)?;
    let (_, _, rest) = element(rest)?;
    let (SEQUENCE, issuer, rest) = element(rest)? else { return None };
    let (SEQUENCE, validity, rest) = element(rest)? else { return None };
    let (SEQUENCE, subject, rest) = element(rest)? else { return None };
    let (SEQUENCE, public_key, rest) = element(rest)? else { return None };
    let (from_tag, from, until) = element(validity)?;
    let (until_tag, until, _) = element(until)?;
    let attributes = [COMMON_NAME, ORGANIZATION, ORGANIZATIONAL_UNIT, LOCALITY, PROVINCE, COUNTRY];
    let mut found = CertificateDetails {
        subject: attributes.map(|oid| attribute(subject, oid).unwrap_or_default()),
        issuer: attribute(issuer, COMMON_NAME).unwrap_or_default(),
        serial: token::hex(serial),
        not_before: time(from_tag, from),
        not_after: time(until_tag, until),
        key_type: key_type(public_key).unwrap_or_default(),
        ..CertificateDetails::default()
    };
    let mut rest = rest;
    while let Some((tag, value, after)) = element(rest) {
        if tag == EXTENSIONS {
            read_extensions(value, &mut found);
        }
        rest = after;
    }
    Some(found)
}

/// Returns the first attribute of a name with this OID.
fn attribute(name: &[u8], oid: &[u8]) -> Option<String> {
    let mut sets = name;
    while let Some((_, set, rest)) = element(sets) {
        let mut pairs = set;
        while let Some((_, pair, after)) = element(pairs) {
            let (tag, found, value) = element(pair)?;
            if tag == OID && found == oid {
                let (_, text, _) = element(value)?;
                return Some(String::from_utf8_lossy(text).into_owned());
            }
            pairs = after;
        }
        sets = rest;
    }
    None
}

fn key_type(public_key: &[u8]) -> Option<&'static str> {
    let (_, algorithm, _) = element(public_key)?;
    let (_, oid, _) = element(algorithm)?;
    Some(match oid {
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1] => "rsa",
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1] => "ecdsa",
        [0x2b, 0x65, 0x70] => "ed25519",
        _ => "",
    })
}

fn read_extensions(bytes: &[u8], into: &mut CertificateDetails) {
    let Some((SEQUENCE, mut list, _)) = element(bytes) else { return };
    while let Some((_, extension, rest)) = element(list) {
        list = rest;
        let Some((OID, oid, mut value)) = element(extension) else { continue };
        if value.first() == Some(&BOOLEAN) {
            value = element(value).map_or(&[], |(_, _, after)| after);
        }
        let Some((_, octets, _)) = element(value) else { continue };
        match oid {
            SUBJECT_ALT_NAME => read_names(octets, into),
            KEY_USAGE => into.key_usages = key_usages(octets),
            EXTENDED_KEY_USAGE => into.extended_key_usages = extended_key_usages(octets),
            BASIC_CONSTRAINTS => {
                let flag = element(octets).and_then(|(_, list, _)| element(list));
                into.is_ca = matches!(flag, Some((BOOLEAN, [value], _)) if *value != 0);
            }
            _ => {}
        }
    }
}

fn read_names(octets: &[u8], into: &mut CertificateDetails) {
    let Some((SEQUENCE, mut names, _)) = element(octets) else { return };
    while let Some((tag, value, rest)) = element(names) {
        names = rest;
        if tag == DNS_NAME {
            into.dns_names.push(String::from_utf8_lossy(value).into_owned());
        } else if tag == IP_ADDRESS {
            let v4 = <[u8; 4]>::try_from(value).map(|b| IpAddr::from(Ipv4Addr::from(b)));
            let v6 = <[u8; 16]>::try_from(value).map(|b| IpAddr::from(Ipv6Addr::from(b)));
            into.ips.extend(v4.or(v6).ok());
        }
    }
}

fn key_usages(octets: &[u8]) -> Vec<&'static str> {
    let Some((BIT_STRING, bits, _)) = element(octets) else { return Vec::new() };
    // The first byte is the number of unused bits.
    let has = |n: usize| bits.get(1 + n / 8).is_some_and(|byte| byte & (0x80 >> (n % 8)) != 0);
    KEY_USAGES.iter().enumerate().filter(|(n, _)| has(*n)).map(|(_, name)| *name).collect()
}

fn extended_key_usages(octets: &[u8]) -> Vec<&'static str> {
    let mut found = Vec::new();
    let Some((SEQUENCE, mut list, _)) = element(octets) else { return found };
    while let Some((_, oid, rest)) = element(list) {
        list = rest;
        // id-kp (RFC 5280 4.2.1.12).
        if let [0x2b, 6, 1, 5, 5, 7, 3, number] = oid {
            found.push(match number {
                1 => "server auth",
                2 => "client auth",
                3 => "code signing",
                4 => "email protection",
                8 => "time stamping",
                9 => "ocsp signing",
                _ => continue,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_certificate_are_found() {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["one.test".to_owned(), "192.0.2.1".to_owned(), "::1".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "a name");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "an organization");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages =
            vec![rcgen::KeyUsagePurpose::DigitalSignature, rcgen::KeyUsagePurpose::CrlSign];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        let der = certificate.der();
        let found = read(der).unwrap();
        assert_eq!(found.subject[..2], ["a name".to_owned(), "an organization".to_owned()]);
        assert_eq!((found.issuer.as_str(), found.key_type), ("a name", "ecdsa"));
        assert_eq!(found.dns_names, ["one.test"]);
        assert_eq!(found.ips, ["192.0.2.1", "::1"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        assert_eq!(found.key_usages, ["digital signature", "crl sign"]);
        assert_eq!(found.extended_key_usages, ["client auth"]);
        assert!(found.is_ca && !found.serial.is_empty());
        let start = found.not_before.unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(start.as_secs(), 1_577_836_800);
        // Any damage leads to a result, not to a panic.
        for len in 0..der.len() {
            let _ = read(&der[..len]);
        }
        for at in 0..der.len() {
            let mut damaged = der.to_vec();
            damaged[at] ^= 0xff;
            let _ = read(&damaged);
        }
    }
}
