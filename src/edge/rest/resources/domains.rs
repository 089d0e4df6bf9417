//! `/reserved_domains`: names that agents may bind beside those below the edge's domain. Those
//! of edge.yml are shown, and cannot be changed here.

use serde_json::{Map, Value, json};

use super::certificates::CERTIFICATES_PATH;
use crate::edge::accounts::merge::DOMAIN_CERTIFICATE;
use crate::edge::accounts::table::ObjectTable;
use crate::edge::agents::address::check_host;
use crate::edge::context::REGION;
use crate::edge::rest::body::{FieldRule, FieldType, FieldUse};
use crate::edge::rest::context::{ApiContext, timestamp};
use crate::edge::rest::error::ApiError;
use crate::edge::rest::page;
use crate::edge::rest::resource::{Resource, RestReply, unknown_route};
use crate::edge::rest::stored::{Draft, StoredResource, remove_alone};
use crate::edge::store::{ObjectKind, StoredObject};
use crate::edge::token;
use crate::http1::text::shortened;

const PATH: &str = "reserved_domains";

const STORED: StoredResource = StoredResource {
    path: PATH,
    plural: PATH,
    kind: ObjectKind::ReservedDomain,
    rules: &[
        FieldRule::DESCRIPTION,
        FieldRule::METADATA,
        FieldRule::text("domain", FieldUse::Create),
        // The older name of the field.
        FieldRule::text("name", FieldUse::Create),
        FieldRule::text("region", FieldUse::Both),
        FieldRule::text(DOMAIN_CERTIFICATE, FieldUse::Both),
        FieldRule::new("certificate_management_policy", FieldType::Unsupported, FieldUse::Both),
        FieldRule::new("http_endpoint_configuration_id", FieldType::Unsupported, FieldUse::Both),
        FieldRule::new("https_endpoint_configuration_id", FieldType::Unsupported, FieldUse::Both),
        FieldRule::new("resolves_to", FieldType::Unsupported, FieldUse::Both),
        FieldRule::new("error_redirect_url", FieldType::Unsupported, FieldUse::Both),
    ],
    create: prepare,
    update: check_certificate,
    remove: remove_alone,
    show: |context, _, object| {
        let mut shown = shown_fields(object.name.as_deref().unwrap_or_default());
        let certificate = object.text(DOMAIN_CERTIFICATE);
        if !certificate.is_empty() {
            let reference = context.reference(CERTIFICATES_PATH, certificate);
            shown.insert("certificate".into(), reference);
        }
        shown
    },
};

/// Domains of the store and of edge.yml.
pub struct ReservedDomains;

impl Resource for ReservedDomains {
    fn path(&self) -> &'static str {
        PATH
    }

    fn prefix(&self) -> &'static str {
        ObjectKind::ReservedDomain.prefix()
    }

    fn list(&self, context: &ApiContext<'_>) -> Result<Value, ApiError> {
        let table = context.edge.accounts.table();
        let in_file = in_file(context);
        let stored = table.of_kind(ObjectKind::ReservedDomain).map(|o| o.id.clone());
        let ids = stored.chain(in_file.iter().map(|(id, _)| id.clone())).collect();
        page::list(context, PATH, self.prefix(), ids, |id| {
            match in_file.iter().find(|(known, _)| known == id) {
                Some((id, domain)) => Some(show_file(context, id, domain)),
                None => table.get(id).map(|object| STORED.view(context, &table, object)),
            }
        })
    }

    fn get(&self, context: &ApiContext<'_>, id: &str) -> Result<Value, ApiError> {
        match in_file(context).into_iter().find(|(known, _)| known == id) {
            Some((id, domain)) => Ok(show_file(context, &id, &domain)),
            None => STORED.get(context, id),
        }
    }

    fn create(&self, context: &ApiContext<'_>) -> Result<Value, ApiError> {
        STORED.create(context)
    }

    fn update(&self, context: &ApiContext<'_>, id: &str) -> Result<Value, ApiError> {
        check_stored(context, id)?;
        STORED.update(context, id)
    }

    fn delete(&self, context: &ApiContext<'_>, id: &str) -> Result<(), ApiError> {
        check_stored(context, id)?;
        STORED.delete(context, id)
    }

    fn action(
        &self,
        context: &ApiContext<'_>,
        id: &str,
        method: &str,
        action: &str,
    ) -> Result<RestReply, ApiError> {
        let known = ["certificate", "certificate_management_policy"].contains(&action);
        if !known || method != "DELETE" {
            return Err(unknown_route());
        }
        check_stored(context, id)?;
        STORED.edit(context, id, |_, draft| {
            if action == "certificate" {
                draft.object.fields.remove(DOMAIN_CERTIFICATE);
            }
            Ok(())
        })?;
        Ok(RestReply::Done)
    }
}

/// Returns id and name of the domains in edge.yml: its own domain, and the further ones.
fn in_file(context: &ApiContext<'_>) -> Vec<(String, String)> {
    let config = context.edge.config();
    let table = context.edge.accounts.table();
    let own = std::iter::once(format!("*.{}", config.domain));
    let stored = |domain: &String| table.by_name(ObjectKind::ReservedDomain, domain).is_some();
    let further = config.domains.iter().filter(|domain| !stored(domain)).cloned();
    let prefix = ObjectKind::ReservedDomain.prefix();
    own.chain(further).map(|domain| (token::stable_id(prefix, &domain), domain)).collect()
}

fn check_stored(context: &ApiContext<'_>, id: &str) -> Result<(), ApiError> {
    match in_file(context).iter().any(|(known, _)| known == id) {
        true => Err(ApiError::read_only(id)),
        false => Ok(()),
    }
}

fn show_file(context: &ApiContext<'_>, id: &str, domain: &str) -> Value {
    let mut map = Map::new();
    map.insert("id".into(), id.into());
    map.insert("uri".into(), context.uri(PATH, id).into());
    map.insert("created_at".into(), timestamp(0).into());
    map.insert("description".into(), "in edge.yml".into());
    map.insert("metadata".into(), "".into());
    map.extend(shown_fields(domain));
    Value::Object(map)
}

fn shown_fields(domain: &str) -> Map<String, Value> {
    let fields = json!({
        "domain": domain,
        "region": REGION,
        "cname_target": null,
        "certificate": null,
        "certificate_management_policy": null,
        "certificate_management_status": null,
        "acme_challenge_cname_target": null,
        "resolves_to": null,
        "is_dev": false,
        "error_redirect_url": null,
    });
    fields.as_object().cloned().unwrap_or_default()
}

/// Checks that the certificate of a domain exists.
fn check_certificate(
    _: &ApiContext<'_>,
    table: &ObjectTable,
    draft: &mut Draft,
) -> Result<(), ApiError> {
    let id = draft.object.text(DOMAIN_CERTIFICATE);
    if id.is_empty() || table.find(ObjectKind::TlsCertificate, id).is_some() {
        return Ok(());
    }
    let shown = shortened(id);
    Err(ApiError::new(400, 223, format!("The certificate '{shown}' does not exist.")))
}

fn prepare(
    context: &ApiContext<'_>,
    table: &ObjectTable,
    draft: &mut Draft,
) -> Result<(), ApiError> {
    check_certificate(context, table, draft)?;
    let domain = match draft.object.text("domain") {
        "" => draft.object.text("name"),
        domain => domain,
    };
    if domain.is_empty() {
        return Err(ApiError::invalid("The field 'domain' is missing."));
    }
    let domain = domain.to_ascii_lowercase();
    check_host(&domain)
        .map_err(|refusal| ApiError::new(400, refusal.code.unwrap_or(215), refusal.message))?;
    if in_file(context).iter().any(|(_, known)| *known == domain) {
        return Err(ApiError::new(409, 215, format!("'{domain}' is in edge.yml already.")));
    }
    let object: &mut StoredObject = &mut draft.object;
    object.name = Some(domain);
    object.fields.remove("domain");
    object.fields.remove("name");
    Ok(())
}
