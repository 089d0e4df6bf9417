//! Resources whose objects are in the store: creation, change and removal by one procedure.
//! What is special about a resource is in the functions of its [`StoredResource`].

use serde_json::{Map, Value};

use super::body::{self, BodyUse, FieldRule};
use super::context::ApiContext;
use super::error::ApiError;
use super::page;
use super::resource::Resource;
use crate::edge::accounts::table::ObjectTable;
use crate::edge::accounts::wall_clock;
use crate::edge::agents::revocation;
use crate::edge::store::{ObjectKind, StoreChange, StoredObject};
use crate::edge::token;
use crate::event;

/// Most objects of all kinds. They are in memory.
const MAX_OBJECTS: usize = 50_000;

/// An object that is created or changed.
pub struct Draft {
    /// The object. Its fields are those before the change, and the given ones.
    pub object: StoredObject,
    /// The fields that the request gives.
    pub given: Map<String, Value>,
    /// A text that only the response shows: a token.
    pub shown_once: Option<String>,
}

/// Checks and completes a draft by the other objects.
pub type Prepare = fn(&ApiContext<'_>, &ObjectTable, &mut Draft) -> Result<(), ApiError>;

/// Returns the other changes that the removal of an object needs, or why it must stay.
pub type Remove = fn(&ObjectTable, &StoredObject) -> Result<Vec<StoreChange>, ApiError>;

/// Returns what the API shows of an object.
pub type Show = fn(&ApiContext<'_>, &ObjectTable, &StoredObject) -> Map<String, Value>;

/// A resource of stored objects.
pub struct StoredResource {
    /// First part of its paths.
    pub path: &'static str,
    /// Name of its list.
    pub plural: &'static str,
    /// Kind of its objects.
    pub kind: ObjectKind,
    /// Fields of its bodies.
    pub rules: &'static [FieldRule],
    /// Completes a new object.
    pub create: Prepare,
    /// Completes a changed object.
    pub update: Prepare,
    /// Checks a removal.
    pub remove: Remove,
    /// Shows an object.
    pub show: Show,
}

/// Does nothing at a change.
pub fn keep(_: &ApiContext<'_>, _: &ObjectTable, _: &mut Draft) -> Result<(), ApiError> {
    Ok(())
}

/// Removes nothing else.
pub fn remove_alone(_: &ObjectTable, _: &StoredObject) -> Result<Vec<StoreChange>, ApiError> {
    Ok(Vec::new())
}

impl StoredResource {
    /// Returns an object as the API shows it, with the fields that all objects have.
    pub fn view(
        &self,
        context: &ApiContext<'_>,
        table: &ObjectTable,
        object: &StoredObject,
    ) -> Value {
        let mut map = Map::new();
        map.insert("id".into(), object.id.clone().into());
        map.insert("uri".into(), context.uri(self.path, &object.id).into());
        map.insert("created_at".into(), super::context::timestamp(object.created_at).into());
        map.insert("description".into(), object.text("description").into());
        map.insert("metadata".into(), object.text("metadata").into());
        map.extend((self.show)(context, table, object));
        Value::Object(map)
    }

    /// Returns the object with this id.
    fn find<'t>(&self, table: &'t ObjectTable, id: &str) -> Result<&'t StoredObject, ApiError> {
        let found = table.find(self.kind, id).map(|object| &**object);
        found.ok_or_else(|| ApiError::unknown_id(id))
    }

    /// Changes an object that exists. `edit` decides the new one. For actions of a resource.
    pub fn edit(
        &self,
        context: &ApiContext<'_>,
        id: &str,
        edit: impl FnOnce(&ObjectTable, &mut Draft) -> Result<(), ApiError>,
    ) -> Result<Value, ApiError> {
        let edge = context.edge;
        edge.accounts.change(|table| {
            let object = self.find(table, id)?.clone();
            let mut draft = Draft { object, given: Map::new(), shown_once: None };
            edit(table, &mut draft)?;
            draft.object.updated_at = wall_clock().as_secs();
            Ok::<_, ApiError>((vec![StoreChange::Update(draft.object)], ()))
        })?;
        self.applied(context, "update", id);
        let table = edge.accounts.table();
        Ok(self.view(context, &table, self.find(&table, id)?))
    }

    /// Makes a change take effect.
    fn applied(&self, context: &ApiContext<'_>, what: &str, id: &str) {
        context.edge.apply_accounts();
        let revoked = revocation::enforce(context.edge);
        // Not bounded: the requests of a key are.
        event!(
            info,
            obj = "edge",
            "accounts changed",
            name = what,
            id = id,
            key = context.key,
            sessions = revoked.sessions,
            endpoints = revoked.endpoints
        );
    }
}

impl Resource for StoredResource {
    fn path(&self) -> &'static str {
        self.path
    }

    fn prefix(&self) -> &'static str {
        self.kind.prefix()
    }

    fn list(&self, context: &ApiContext<'_>) -> Result<Value, ApiError> {
        let table = context.edge.accounts.table();
        let ids = table.of_kind(self.kind).map(|object| object.id.clone()).collect();
        page::list(context, self.plural, self.prefix(), ids, |id| {
            table.get(id).map(|object| self.view(context, &table, object))
        })
    }

    fn get(&self, context: &ApiContext<'_>, id: &str) -> Result<Value, ApiError> {
        let table = context.edge.accounts.table();
        Ok(self.view(context, &table, self.find(&table, id)?))
    }

    fn create(&self, context: &ApiContext<'_>) -> Result<Value, ApiError> {
        let given = body::read(self.rules, &context.body, BodyUse::Create)?;
        let now = wall_clock();
        let id = token::ksuid(self.prefix(), now).map_err(ApiError::failed)?;
        let edge = context.edge;
        let shown_once = edge.accounts.change(|table| {
            if table.len() >= MAX_OBJECTS {
                let text = format!("This edge has {MAX_OBJECTS} objects. Remove some first.");
                return Err(ApiError::new(403, 403, text));
            }
            let object = StoredObject {
                id: id.clone(),
                kind: self.kind,
                name: None,
                secret: None,
                created_at: now.as_secs(),
                updated_at: now.as_secs(),
                fields: given.clone(),
            };
            let mut draft = Draft { object, given, shown_once: None };
            (self.create)(context, table, &mut draft)?;
            check_name(table, &draft.object)?;
            Ok((vec![StoreChange::Insert(draft.object)], draft.shown_once))
        })?;
        self.applied(context, "create", &id);
        let table = edge.accounts.table();
        let mut shown = self.view(context, &table, self.find(&table, &id)?);
        if let (Some(text), Value::Object(map)) = (shown_once, &mut shown) {
            map.insert("token".into(), text.into());
        }
        Ok(shown)
    }

    fn update(&self, context: &ApiContext<'_>, id: &str) -> Result<Value, ApiError> {
        // First: an unknown object is the more important error.
        self.find(&context.edge.accounts.table(), id)?;
        let given = body::read(self.rules, &context.body, BodyUse::Update)?;
        self.edit(context, id, |table, draft| {
            draft.object.fields.extend(given.clone());
            draft.given = given;
            (self.update)(context, table, draft)?;
            check_name(table, &draft.object)
        })
    }

    fn delete(&self, context: &ApiContext<'_>, id: &str) -> Result<(), ApiError> {
        context.edge.accounts.change(|table| {
            let mut changes = (self.remove)(table, self.find(table, id)?)?;
            changes.push(StoreChange::Delete(id.to_owned()));
            Ok::<_, ApiError>((changes, ()))
        })?;
        self.applied(context, "delete", id);
        Ok(())
    }
}

/// Checks that no other object of the kind has the name.
fn check_name(table: &ObjectTable, object: &StoredObject) -> Result<(), ApiError> {
    let Some(name) = &object.name else { return Ok(()) };
    match table.by_name(object.kind, name) {
        Some(other) if other.id != object.id => {
            let text = format!("'{name}' exists already: {}.", other.id);
            Err(ApiError::new(409, 215, text))
        }
        _ => Ok(()),
    }
}
