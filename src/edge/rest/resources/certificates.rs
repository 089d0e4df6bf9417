//! `/tls_certificates` and `/certificate_authorities`: certificates that are uploaded once. A
//! reserved domain uses a certificate by its `certificate_id`. Private keys are encrypted in
//! the store and never shown.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value, json};

use crate::edge::accounts::merge::{CA_PEM, CERTIFICATE_PEM, DOMAIN_CERTIFICATE};
use crate::edge::accounts::table::ObjectTable;
use crate::edge::certificates;
use crate::edge::rest::body::{FieldRule, FieldType, FieldUse, MAX_PEM_BYTES};
use crate::edge::rest::context::{ApiContext, timestamp};
use crate::edge::rest::error::ApiError;
use crate::edge::rest::stored::{Draft, StoredResource, keep, remove_alone};
use crate::edge::store::{ObjectKind, StoreChange, StoredObject};
use crate::edge::x509_details::{self, CertificateDetails};

/// Path of the certificates.
pub const CERTIFICATES_PATH: &str = "tls_certificates";

const PRIVATE_KEY: &str = "private_key_pem";
const PEM: FieldType = FieldType::Text(MAX_PEM_BYTES);

/// Certificates with keys.
pub const TLS_CERTIFICATES: StoredResource = StoredResource {
    path: CERTIFICATES_PATH,
    plural: CERTIFICATES_PATH,
    kind: ObjectKind::TlsCertificate,
    rules: &[
        FieldRule::DESCRIPTION,
        FieldRule::METADATA,
        FieldRule::new(CERTIFICATE_PEM, PEM, FieldUse::Required),
        FieldRule::new(PRIVATE_KEY, PEM, FieldUse::Required),
    ],
    create: create_certificate,
    update: keep,
    remove: remove_certificate,
    show: show_certificate,
};

/// Certificates of CAs.
pub const CERTIFICATE_AUTHORITIES: StoredResource = StoredResource {
    path: "certificate_authorities",
    plural: "certificate_authorities",
    kind: ObjectKind::CertificateAuthority,
    rules: &[
        FieldRule::DESCRIPTION,
        FieldRule::METADATA,
        FieldRule::new(CA_PEM, PEM, FieldUse::Required),
    ],
    create: create_authority,
    update: keep,
    remove: remove_alone,
    show: show_authority,
};

fn create_certificate(
    context: &ApiContext<'_>,
    _: &ObjectTable,
    draft: &mut Draft,
) -> Result<(), ApiError> {
    let key = draft.object.fields.remove(PRIVATE_KEY);
    let key = key.as_ref().and_then(Value::as_str).unwrap_or_default();
    certificates::from_pem(draft.object.text(CERTIFICATE_PEM), key)
        .map_err(|e| ApiError::invalid(format!("The certificate cannot be used: {e}.")))?;
    let sealed = context.edge.key.seal(&draft.object.id, key);
    draft.object.secret = Some(sealed.map_err(ApiError::failed)?);
    Ok(())
}

fn create_authority(
    _: &ApiContext<'_>,
    _: &ObjectTable,
    draft: &mut Draft,
) -> Result<(), ApiError> {
    match details(draft.object.text(CA_PEM)) {
        Some(found) if found.is_ca => Ok(()),
        Some(_) => Err(ApiError::invalid("The certificate in 'ca_pem' is not of a CA.")),
        None => Err(ApiError::invalid("The field 'ca_pem' must be a certificate as PEM.")),
    }
}

fn remove_certificate(
    table: &ObjectTable,
    certificate: &StoredObject,
) -> Result<Vec<StoreChange>, ApiError> {
    let uses = |o: &&Arc<StoredObject>| o.text(DOMAIN_CERTIFICATE) == certificate.id;
    match table.of_kind(ObjectKind::ReservedDomain).find(uses) {
        Some(user) => {
            let text = format!("The reserved domain {} uses this certificate.", user.id);
            Err(ApiError::in_use(text))
        }
        None => Ok(Vec::new()),
    }
}

/// Reads the first certificate of a PEM text.
fn details(pem: &str) -> Option<CertificateDetails> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    x509_details::read(&der)
}

fn show_certificate(
    _: &ApiContext<'_>,
    _: &ObjectTable,
    object: &StoredObject,
) -> Map<String, Value> {
    let pem = object.text(CERTIFICATE_PEM);
    let found = details(pem).unwrap_or_default();
    let [name, organization, unit, locality, province, country] = &found.subject;
    let ips: Vec<String> = found.ips.iter().map(ToString::to_string).collect();
    let shown = json!({
        "certificate_pem": pem,
        "subject_common_name": name,
        "subject_organization": organization,
        "subject_organizational_unit": unit,
        "subject_locality": locality,
        "subject_province": province,
        "subject_country": country,
        "subject_alternative_names": {"dns_names": found.dns_names, "ips": ips},
        "issued_at": null,
        "not_before": shown_time(found.not_before),
        "not_after": shown_time(found.not_after),
        "key_usages": found.key_usages,
        "extended_key_usages": found.extended_key_usages,
        "private_key_type": found.key_type,
        "issuer_common_name": found.issuer,
        "serial_number": found.serial,
    });
    shown.as_object().cloned().unwrap_or_default()
}

fn show_authority(
    _: &ApiContext<'_>,
    _: &ObjectTable,
    object: &StoredObject,
) -> Map<String, Value> {
    let pem = object.text(CA_PEM);
    let found = details(pem).unwrap_or_default();
    let shown = json!({
        "ca_pem": pem,
        "subject_common_name": found.subject[0],
        "not_before": shown_time(found.not_before),
        "not_after": shown_time(found.not_after),
        "key_usages": found.key_usages,
        "extended_key_usages": found.extended_key_usages,
    });
    shown.as_object().cloned().unwrap_or_default()
}

fn shown_time(time: Option<SystemTime>) -> String {
    let seconds = time.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    timestamp(seconds.as_secs())
}
