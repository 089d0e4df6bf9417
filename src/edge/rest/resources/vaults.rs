//! `/vaults` and `/vault_secrets`: named secrets in groups. The store has them encrypted; the
//! API never shows a value.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::edge::accounts::merge;
use crate::edge::accounts::table::ObjectTable;
use crate::edge::rest::body::{FieldRule, FieldUse};
use crate::edge::rest::context::{ApiContext, timestamp};
use crate::edge::rest::error::ApiError;
use crate::edge::rest::page;
use crate::edge::rest::resource::{Resource, RestReply, unknown_route, wrong_method};
use crate::edge::rest::stored::{Draft, StoredResource, remove_alone};
use crate::edge::store::{ObjectKind, StoreChange, StoredObject};

const VAULTS_PATH: &str = "vaults";
const SECRETS_PATH: &str = "vault_secrets";

/// Name of the list of secrets.
const SECRETS: &str = "secrets";

/// Field of a secret with the id of its vault.
const VAULT_ID: &str = "vault_id";

const STORED_VAULTS: StoredResource = StoredResource {
    path: VAULTS_PATH,
    plural: VAULTS_PATH,
    kind: ObjectKind::Vault,
    rules: &[FieldRule::DESCRIPTION, FieldRule::METADATA, FieldRule::text("name", FieldUse::Both)],
    create: name_vault,
    update: name_vault,
    remove: remove_vault,
    show: |_, _, vault| {
        let shown = json!({
            "name": vault.name,
            "updated_at": timestamp(vault.updated_at),
            "created_by": vault.text("created_by"),
            "last_updated_by": vault.text("last_updated_by"),
        });
        shown.as_object().cloned().unwrap_or_default()
    },
};

/// Secrets.
pub const VAULT_SECRETS: StoredResource = StoredResource {
    path: SECRETS_PATH,
    plural: SECRETS,
    kind: ObjectKind::VaultSecret,
    rules: &[
        FieldRule::DESCRIPTION,
        FieldRule::METADATA,
        FieldRule::text("name", FieldUse::Both),
        FieldRule::text("value", FieldUse::Both),
        FieldRule::text(VAULT_ID, FieldUse::Create),
        FieldRule::text("vault_name", FieldUse::Create),
    ],
    create: create_secret,
    update: seal,
    remove: remove_alone,
    show: show_secret,
};

/// Vaults, with the list of the secrets in one.
pub struct Vaults;

impl Resource for Vaults {
    fn path(&self) -> &'static str {
        VAULTS_PATH
    }

    fn prefix(&self) -> &'static str {
        ObjectKind::Vault.prefix()
    }

    fn list(&self, context: &ApiContext<'_>) -> Result<Value, ApiError> {
        STORED_VAULTS.list(context)
    }

    fn get(&self, context: &ApiContext<'_>, id: &str) -> Result<Value, ApiError> {
        STORED_VAULTS.get(context, id)
    }

    fn create(&self, context: &ApiContext<'_>) -> Result<Value, ApiError> {
        STORED_VAULTS.create(context)
    }

    fn update(&self, context: &ApiContext<'_>, id: &str) -> Result<Value, ApiError> {
        STORED_VAULTS.update(context, id)
    }

    fn delete(&self, context: &ApiContext<'_>, id: &str) -> Result<(), ApiError> {
        STORED_VAULTS.delete(context, id)
    }

    fn action(
        &self,
        context: &ApiContext<'_>,
        id: &str,
        method: &str,
        action: &str,
    ) -> Result<RestReply, ApiError> {
        if action != SECRETS {
            return Err(unknown_route());
        }
        if method != "GET" {
            return Err(wrong_method(method));
        }
        STORED_VAULTS.get(context, id)?;
        let table = context.edge.accounts.table();
        let ids = secrets_of(&table, id).map(|secret| secret.id.clone()).collect();
        let prefix = ObjectKind::VaultSecret.prefix();
        let list = page::list(context, SECRETS, prefix, ids, |id| {
            table.get(id).map(|secret| VAULT_SECRETS.view(context, &table, secret))
        });
        list.map(RestReply::Found)
    }
}

fn secrets_of<'t>(
    table: &'t ObjectTable,
    vault: &'t str,
) -> impl Iterator<Item = &'t Arc<StoredObject>> {
    table.of_kind(ObjectKind::VaultSecret).filter(move |secret| secret.text(VAULT_ID) == vault)
}

/// Sets the name of a vault, and which key changed it.
fn name_vault(
    context: &ApiContext<'_>,
    _: &ObjectTable,
    draft: &mut Draft,
) -> Result<(), ApiError> {
    if let Some(Value::String(name)) = draft.object.fields.remove("name") {
        draft.object.name = Some(name);
    }
    if draft.object.name.as_deref().unwrap_or_default().is_empty() {
        return Err(ApiError::invalid("The field 'name' is missing."));
    }
    sign(context, draft);
    Ok(())
}

/// Records the key of the change.
fn sign(context: &ApiContext<'_>, draft: &mut Draft) {
    let fields = &mut draft.object.fields;
    let key = Value::from(context.key.clone());
    fields.entry("created_by").or_insert_with(|| key.clone());
    fields.insert("last_updated_by".into(), key);
}

fn remove_vault(table: &ObjectTable, vault: &StoredObject) -> Result<Vec<StoreChange>, ApiError> {
    match secrets_of(table, &vault.id).next() {
        Some(secret) => {
            let text = format!("The vault has the secret {}. Remove its secrets first.", secret.id);
            Err(ApiError::in_use(text))
        }
        None => Ok(Vec::new()),
    }
}

fn create_secret(
    context: &ApiContext<'_>,
    table: &ObjectTable,
    draft: &mut Draft,
) -> Result<(), ApiError> {
    let fields = &mut draft.object.fields;
    let by_name = fields.remove("vault_name");
    let by_name = by_name.as_ref().and_then(Value::as_str).unwrap_or_default();
    let vault = match draft.object.text(VAULT_ID) {
        "" => table.by_name(ObjectKind::Vault, by_name),
        id => table.find(ObjectKind::Vault, id),
    };
    let Some(vault) = vault else {
        let text = "The vault does not exist. Name it by vault_id or vault_name.";
        return Err(ApiError::new(400, 223, text));
    };
    draft.object.fields.insert(VAULT_ID.into(), vault.id.clone().into());
    if !draft.object.fields.contains_key("value") {
        return Err(ApiError::invalid("The field 'value' is missing."));
    }
    seal(context, table, draft)
}

/// Encrypts a given value, and sets the name of a secret.
fn seal(context: &ApiContext<'_>, _: &ObjectTable, draft: &mut Draft) -> Result<(), ApiError> {
    if let Some(Value::String(value)) = draft.object.fields.remove("value") {
        let sealed = context.edge.key.seal(&draft.object.id, &value);
        draft.object.secret = Some(sealed.map_err(ApiError::failed)?);
    }
    let name = draft.object.text("name");
    if name.is_empty() {
        return Err(ApiError::invalid("The field 'name' is missing."));
    }
    // Unique within its vault.
    draft.object.name = Some(merge::secret_name(draft.object.text(VAULT_ID), name));
    sign(context, draft);
    Ok(())
}

fn show_secret(
    context: &ApiContext<'_>,
    table: &ObjectTable,
    secret: &StoredObject,
) -> Map<String, Value> {
    let vault = secret.text(VAULT_ID);
    let name = table.get(vault).and_then(|v| v.name.clone()).unwrap_or_default();
    let shown = json!({
        "name": secret.text("name"),
        "updated_at": timestamp(secret.updated_at),
        "created_by": context.reference("api_keys", secret.text("created_by")),
        "last_updated_by": context.reference("api_keys", secret.text("last_updated_by")),
        "vault": context.reference(VAULTS_PATH, vault),
        "vault_name": name,
    });
    shown.as_object().cloned().unwrap_or_default()
}
