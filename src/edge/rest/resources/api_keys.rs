//! `/api_keys`: keys of the REST API. The key itself is shown once.

use serde_json::{Map, Value, json};

use crate::edge::accounts::table::ObjectTable;
use crate::edge::rest::body::{FieldRule, FieldType, FieldUse};
use crate::edge::rest::context::ApiContext;
use crate::edge::rest::error::ApiError;
use crate::edge::rest::stored::{Draft, StoredResource, keep, remove_alone};
use crate::edge::store::{ObjectKind, StoredObject};
use crate::edge::token;

/// Keys of the REST API.
pub const API_KEYS: StoredResource = StoredResource {
    path: "api_keys",
    plural: "keys",
    kind: ObjectKind::ApiKey,
    rules: &[
        FieldRule::DESCRIPTION,
        FieldRule::METADATA,
        FieldRule::text("owner_id", FieldUse::Create),
        FieldRule::new("owner_email", FieldType::Unsupported, FieldUse::Create),
    ],
    create: make_token,
    update: keep,
    remove: remove_alone,
    show,
};

/// Gives a new object a token. The store gets its hash.
pub fn make_token(_: &ApiContext<'_>, _: &ObjectTable, draft: &mut Draft) -> Result<(), ApiError> {
    let token = token::authtoken().map_err(ApiError::failed)?;
    draft.object.secret = Some(token::hash(token.expose()));
    draft.shown_once = Some(token.expose().to_owned());
    Ok(())
}

fn show(_: &ApiContext<'_>, _: &ObjectTable, object: &StoredObject) -> Map<String, Value> {
    let owner = object.fields.get("owner_id").filter(|id| id.as_str() != Some(""));
    let fields = json!({"token": null, "owner_id": owner});
    fields.as_object().cloned().unwrap_or_default()
}
