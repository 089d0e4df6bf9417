//! `/credentials`: authtokens of agents with their ACLs. Those of edge.yml are shown, and
//! cannot be changed here.

use serde_json::{Map, Value, json};

use super::api_keys::make_token;
use crate::edge::accounts::merge::ACL;
use crate::edge::accounts::table::ObjectTable;
use crate::edge::agents::acl::Acl;
use crate::edge::agents::credentials::{Credential, CredentialSource};
use crate::edge::rest::body::{FieldRule, FieldType, FieldUse};
use crate::edge::rest::context::{ApiContext, credential_id, timestamp};
use crate::edge::rest::error::ApiError;
use crate::edge::rest::page;
use crate::edge::rest::resource::Resource;
use crate::edge::rest::stored::{Draft, StoredResource, remove_alone};
use crate::edge::store::ObjectKind;

const PATH: &str = "credentials";

/// Credentials of the store.
const STORED: StoredResource = StoredResource {
    path: PATH,
    plural: PATH,
    kind: ObjectKind::Credential,
    rules: &[
        FieldRule::DESCRIPTION,
        FieldRule::METADATA,
        FieldRule::new(ACL, FieldType::Texts, FieldUse::Both),
        FieldRule::text("owner_id", FieldUse::Create),
        FieldRule::new("owner_email", FieldType::Unsupported, FieldUse::Create),
        FieldRule::new("scim_user_id", FieldType::Unsupported, FieldUse::Create),
        FieldRule::new("precomputed_token", FieldType::Unsupported, FieldUse::Create),
    ],
    create: |context, table, draft| {
        check_acl(context, table, draft)?;
        make_token(context, table, draft)
    },
    update: check_acl,
    remove: remove_alone,
    show: |_, _, object| shown_fields(&object.texts(ACL), object.fields.get("owner_id")),
};

/// Credentials of the store and of edge.yml.
pub struct Credentials;

impl Resource for Credentials {
    fn path(&self) -> &'static str {
        PATH
    }

    fn prefix(&self) -> &'static str {
        ObjectKind::Credential.prefix()
    }

    fn list(&self, context: &ApiContext<'_>) -> Result<Value, ApiError> {
        let config = context.edge.config();
        let ids = config.credentials.iter().map(|c| credential_id(&c.id)).collect();
        page::list(context, PATH, self.prefix(), ids, |id| self.get(context, id).ok())
    }

    fn get(&self, context: &ApiContext<'_>, id: &str) -> Result<Value, ApiError> {
        match in_file(context, id) {
            Some(credential) => Ok(show_file(context, &credential)),
            None => STORED.get(context, id),
        }
    }

    fn create(&self, context: &ApiContext<'_>) -> Result<Value, ApiError> {
        STORED.create(context)
    }

    fn update(&self, context: &ApiContext<'_>, id: &str) -> Result<Value, ApiError> {
        match in_file(context, id) {
            Some(_) => Err(ApiError::read_only(id)),
            None => STORED.update(context, id),
        }
    }

    fn delete(&self, context: &ApiContext<'_>, id: &str) -> Result<(), ApiError> {
        match in_file(context, id) {
            Some(_) => Err(ApiError::read_only(id)),
            None => STORED.delete(context, id),
        }
    }
}

/// Returns the credential of edge.yml with this id.
fn in_file(context: &ApiContext<'_>, id: &str) -> Option<Credential> {
    let config = context.edge.config();
    let in_file = |c: &&Credential| c.source == CredentialSource::File;
    config.credentials.iter().filter(in_file).find(|c| credential_id(&c.id) == id).cloned()
}

/// Shows a credential of edge.yml. Its name there is in front of the description.
fn show_file(context: &ApiContext<'_>, credential: &Credential) -> Value {
    let id = credential_id(&credential.id);
    let description = match credential.description.as_str() {
        "" => credential.id.clone(),
        text => format!("{}: {text}", credential.id),
    };
    let mut map = Map::new();
    map.insert("uri".into(), context.uri(PATH, &id).into());
    map.insert("id".into(), id.into());
    // The file has no time of creation.
    map.insert("created_at".into(), timestamp(0).into());
    map.insert("description".into(), description.into());
    map.insert("metadata".into(), credential.metadata.clone().into());
    map.extend(shown_fields(&credential.acl_rules, None));
    Value::Object(map)
}

fn shown_fields(acl: &[String], owner: Option<&Value>) -> Map<String, Value> {
    let owner = owner.filter(|id| id.as_str() != Some(""));
    let fields = json!({"token": null, "acl": acl, "owner_id": owner});
    fields.as_object().cloned().unwrap_or_default()
}

fn check_acl(_: &ApiContext<'_>, _: &ObjectTable, draft: &mut Draft) -> Result<(), ApiError> {
    let rules = draft.object.texts(ACL);
    Acl::parse(&rules).map(|_| ()).map_err(|e| ApiError::invalid(format!("The field 'acl': {e}.")))
}
