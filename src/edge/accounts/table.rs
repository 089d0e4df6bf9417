//! The objects in memory, immutable: a change makes another table.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::edge::store::{ObjectKind, StoreChange, StoredObject};

/// Objects by id.
#[derive(Clone, Debug, Default)]
pub struct ObjectTable(BTreeMap<String, Arc<StoredObject>>);

impl ObjectTable {
    /// Creates a table of these objects.
    pub fn new(objects: Vec<StoredObject>) -> Self {
        ObjectTable(objects.into_iter().map(|o| (o.id.clone(), Arc::new(o))).collect())
    }

    /// Returns the table after these changes.
    pub fn with(&self, changes: Vec<StoreChange>) -> Self {
        let mut objects = self.0.clone();
        for change in changes {
            match change {
                StoreChange::Insert(object) | StoreChange::Update(object) => {
                    objects.insert(object.id.clone(), Arc::new(object));
                }
                StoreChange::Delete(id) => {
                    objects.remove(&id);
                }
            }
        }
        ObjectTable(objects)
    }

    /// Returns the number of objects.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the object with this id.
    pub fn get(&self, id: &str) -> Option<&Arc<StoredObject>> {
        self.0.get(id)
    }

    /// Returns the object of a kind with this id.
    pub fn find(&self, kind: ObjectKind, id: &str) -> Option<&Arc<StoredObject>> {
        self.get(id).filter(|object| object.kind == kind)
    }

    /// Returns the objects of a kind, oldest first.
    pub fn of_kind(&self, kind: ObjectKind) -> impl Iterator<Item = &Arc<StoredObject>> {
        // `~` is above every digit of an id.
        let (from, to) = (format!("{}_", kind.prefix()), format!("{}_~", kind.prefix()));
        self.0.range(from..to).map(|(_, object)| object).filter(move |o| o.kind == kind)
    }

    /// Returns the object of a kind with this name.
    pub fn by_name(&self, kind: ObjectKind, name: &str) -> Option<&Arc<StoredObject>> {
        self.of_kind(kind).find(|object| object.name.as_deref() == Some(name))
    }
}

impl StoredObject {
    /// Returns a text of its fields; empty if it is missing.
    pub fn text(&self, field: &str) -> &str {
        self.fields.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns a list of texts of its fields.
    pub fn texts(&self, field: &str) -> Vec<String> {
        let list = self.fields.get(field).and_then(Value::as_array);
        let texts = list.into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }

    /// Returns a flag of its fields.
    pub fn flag(&self, field: &str) -> bool {
        self.fields.get(field).and_then(Value::as_bool).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_a_kind_are_found_among_similar_ids() {
        let object = |id: &str, kind, name: &str| StoredObject {
            id: id.into(),
            kind,
            name: Some(name.into()),
            secret: None,
            created_at: 0,
            updated_at: 0,
            fields: Default::default(),
        };
        let table = ObjectTable::new(vec![
            object("ipp_2", ObjectKind::IpPolicy, "b"),
            object("ipp_1", ObjectKind::IpPolicy, "a"),
            object("ipr_1", ObjectKind::IpPolicyRule, "a"),
            object("ca_1", ObjectKind::CertificateAuthority, "a"),
            object("cert_1", ObjectKind::TlsCertificate, "a"),
        ]);
        let ids = |kind| Vec::from_iter(table.of_kind(kind).map(|o| o.id.as_str()));
        assert_eq!(ids(ObjectKind::IpPolicy), ["ipp_1", "ipp_2"]);
        assert_eq!(ids(ObjectKind::TlsCertificate), ["cert_1"]);
        assert_eq!(ids(ObjectKind::CertificateAuthority), ["ca_1"]);
        assert_eq!(table.by_name(ObjectKind::IpPolicy, "b").unwrap().id, "ipp_2");
        assert!(table.find(ObjectKind::IpPolicy, "ipr_1").is_none());
        let less = table.with(vec![StoreChange::Delete("ipp_1".into())]);
        assert!(less.get("ipp_1").is_none() && table.get("ipp_1").is_some());
    }
}
