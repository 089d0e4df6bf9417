//! Names and validity of a certificate, read from its DER. For the operator's own certificates
//! and for display: a certificate that cannot be read has no names and no known end. Nothing is
//! verified here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::http1::text::printable;

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
/// Tag of a time with four digits of the year.
pub const GENERALIZED_TIME: u8 = 0x18;
/// `[0]` around the version of a certificate.
const VERSION: u8 = 0xa0;
/// `[2]` in a subjectAltName: a DNS name.
const DNS_NAME: u8 = 0x82;

/// Returns the DNS names of the extension subjectAltName, in lower case. A search for the
/// extension's bytes is good enough for a trusted certificate.
pub fn dns_names(der: &[u8]) -> Vec<String> {
    const OID: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x11];
    let Some(at) = der.windows(OID.len()).position(|w| w == OID) else { return Vec::new() };
    let mut rest = &der[at + OID.len()..];
    // Perhaps "critical", then an octet string around a sequence of names.
    if rest.first() == Some(&0x01) {
        rest = rest.get(3..).unwrap_or_default();
    }
    let Some((OCTET_STRING, octets, _)) = element(rest) else { return Vec::new() };
    let Some((SEQUENCE, mut names, _)) = element(octets) else { return Vec::new() };
    let mut out = Vec::new();
    while let Some((tag, value, rest)) = element(names) {
        if tag == DNS_NAME
            && let Ok(name) = std::str::from_utf8(value)
        {
            out.push(name.to_ascii_lowercase());
        }
        names = rest;
    }
    out
}

/// Returns the end of a certificate's validity (RFC 5280 section 4.1.2.5).
pub fn not_after(der: &[u8]) -> Option<SystemTime> {
    validity(der).map(|(_, end)| end)
}

/// Returns the start and the end of a certificate's validity (RFC 5280 section 4.1.2.5).
pub fn validity(der: &[u8]) -> Option<(SystemTime, SystemTime)> {
    let (_, rest) = issuer_and_rest(der)?;
    let (SEQUENCE, validity, _) = element(rest)? else { return None };
    let (first_tag, first, rest) = element(validity)?;
    let (last_tag, last, _) = element(rest)?;
    Some((time(first_tag, first)?, time(last_tag, last)?))
}

/// Returns short names of the subject and the issuer, made printable: the common name, else the
/// organization. Empty for names without both.
pub fn subject_and_issuer(der: &[u8]) -> Option<(String, String)> {
    let (issuer, rest) = issuer_and_rest(der)?;
    let (_, _, rest) = element(rest)?;
    let (SEQUENCE, subject, _) = element(rest)? else { return None };
    Some((short_name(subject), short_name(issuer)))
}

/// Returns the content of the issuer's name, and the elements after it.
fn issuer_and_rest(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, certificate, _) = element(der)?;
    let (_, mut body, _) = element(certificate)?;
    if body.first() == Some(&VERSION) {
        body = element(body)?.2;
    }
    // Serial number and algorithm.
    for _ in 0..2 {
        body = element(body)?.2;
    }
    let (SEQUENCE, issuer, rest) = element(body)? else { return None };
    Some((issuer, rest))
}

/// Returns the common name of a name, else its organization (RFC 5280 section 4.1.2.4).
fn short_name(name: &[u8]) -> String {
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];
    let value = |wanted: &[u8]| {
        let mut sets = name;
        while let Some((_, set, rest)) = element(sets) {
            sets = rest;
            let Some((SEQUENCE, pair, _)) = element(set) else { continue };
            let Some((_, oid, rest)) = element(pair) else { continue };
            if let (true, Some((_, text, _))) = (oid == wanted, element(rest)) {
                return Some(printable(text));
            }
        }
        None
    };
    value(COMMON_NAME).or_else(|| value(ORGANIZATION)).unwrap_or_default()
}

/// Reads `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
pub fn time(tag: u8, text: &[u8]) -> Option<SystemTime> {
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<u64>().ok();
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year = number(year)?;
            (year + if year < 50 { 2000 } else { 1900 }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (number(year)?, rest)
        }
        _ => return None,
    };
    let field = |at: usize| number(rest.get(2 * at..2 * at + 2)?);
    let (month, day) = (field(0)?, field(1)?);
    let seconds = days_since_epoch(year, month, day)? * 86_400
        + field(2)? * 3_600
        + field(3)? * 60
        + field(4)?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    const BEFORE_MONTH: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let before = BEFORE_MONTH.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
    let last = year.checked_sub(1)?;
    // Leap days of all years before this one, less those before 1970.
    let leap_days = (last / 4 - last / 100 + last / 400).checked_sub(477)?;
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let leap_day = u64::from(is_leap && month > 2);
    Some(year.checked_sub(1970)? * 365 + leap_days + before + leap_day + day.checked_sub(1)?)
}

/// Splits off one element of DER: tag, value, and what follows.
pub fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(tag: u8, text: &str) -> Option<u64> {
        time(tag, text.as_bytes()).map(|t| t.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn times_of_both_forms_are_read() {
        assert_eq!(seconds(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(seconds(UTC_TIME, "261129102312Z"), Some(1_795_947_792));
        assert_eq!(seconds(GENERALIZED_TIME, "20000229235959Z"), Some(951_868_799));
        assert_eq!(seconds(GENERALIZED_TIME, "21000301000000Z"), Some(4_107_542_400));
        for bad in
            ["", "26", "261", "26112910231", "261329102312Z", "26-129102312Z", "500101000000Z"]
        {
            assert_eq!(seconds(UTC_TIME, bad), None, "{bad}");
        }
        assert_eq!(seconds(0x02, "700101000000Z"), None);
    }

    #[test]
    fn the_end_and_the_names_of_a_certificate_are_found() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params =
            rcgen::CertificateParams::new(vec!["One.test".to_owned(), "*.two.test".to_owned()])
                .unwrap();
        for (year, expected) in [(2027, 1_798_761_600), (2051, 2_556_144_000)] {
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            let certificate = params.self_signed(&key).unwrap();
            let end = not_after(certificate.der()).unwrap();
            assert_eq!(end.duration_since(UNIX_EPOCH).unwrap().as_secs(), expected);
            assert_eq!(dns_names(certificate.der()), ["one.test", "*.two.test"]);
            for len in 0..certificate.der().len() {
                let cut = &certificate.der()[..len];
                let _ = (not_after(cut), dns_names(cut), subject_and_issuer(cut));
            }
        }
    }

    #[test]
    fn subject_and_issuer_are_named() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.distinguished_name = rcgen::DistinguishedName::new();
        ca.distinguished_name.push(rcgen::DnType::CountryName, "XX");
        ca.distinguished_name.push(rcgen::DnType::OrganizationName, "Office\u{1b}Net");
        let issuer = rcgen::Issuer::new(ca, rcgen::KeyPair::generate().unwrap());
        let mut params = rcgen::CertificateParams::new(vec!["one.test".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "one");
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        let leaf = params.signed_by(&key, &issuer).unwrap();
        let (subject, issuer) = subject_and_issuer(leaf.der()).unwrap();
        assert_eq!(subject, "one");
        assert!(issuer.starts_with("Office") && !issuer.contains('\u{1b}'), "{issuer}");
        let (start, _) = validity(leaf.der()).unwrap();
        assert_eq!(start.duration_since(UNIX_EPOCH).unwrap().as_secs(), 1_767_225_600);
    }
}
