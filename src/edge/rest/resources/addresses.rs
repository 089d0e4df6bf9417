//! `/reserved_addrs`: TCP addresses that no endpoint gets at random. The edge chooses the port.

use serde_json::{Map, Value, json};

use crate::edge::accounts::merge::port;
use crate::edge::accounts::table::ObjectTable;
use crate::edge::context::REGION;
use crate::edge::rest::body::{FieldRule, FieldUse};
use crate::edge::rest::context::ApiContext;
use crate::edge::rest::error::ApiError;
use crate::edge::rest::stored::{Draft, StoredResource, keep, remove_alone};
use crate::edge::store::{ObjectKind, StoredObject};

/// Reserved TCP addresses.
pub const RESERVED_ADDRS: StoredResource = StoredResource {
    path: "reserved_addrs",
    plural: "reserved_addrs",
    kind: ObjectKind::ReservedAddr,
    rules: &[
        FieldRule::DESCRIPTION,
        FieldRule::METADATA,
        FieldRule::text("region", FieldUse::Create),
    ],
    create: assign,
    update: keep,
    remove: remove_alone,
    show,
};

fn assign(
    context: &ApiContext<'_>,
    table: &ObjectTable,
    draft: &mut Draft,
) -> Result<(), ApiError> {
    let edge = context.edge;
    let names = table.of_kind(ObjectKind::ReservedAddr).filter_map(|o| o.name.as_deref());
    let reserved = names.filter_map(port).collect();
    let in_use = |port: u16| edge.registry.has_port(port);
    // It is closed again unless an endpoint binds it.
    let port = edge
        .listeners
        .open_any_port(&reserved)
        .map_err(|e| ApiError::new(400, 307, format!("No TCP port of this edge is free: {e}.")))?;
    edge.listeners.close_port_unless(port, || in_use(port));
    draft.object.name = Some(format!("{}:{port}", edge.config().domain));
    Ok(())
}

fn show(_: &ApiContext<'_>, _: &ObjectTable, object: &StoredObject) -> Map<String, Value> {
    let fields = json!({"addr": object.name, "region": REGION});
    fields.as_object().cloned().unwrap_or_default()
}
