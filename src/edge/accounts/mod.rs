//! Accounts of the edge: the objects of the store in memory, and every change of them. The
//! store is read once; after that a store that cannot be used refuses changes and nothing
//! else. [`merge`] adds the objects to the configuration of edge.yml. The REST API, which
//! decides what a client may change, is not here.

pub mod merge;
pub mod table;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::store::{AccountStore, StoreChange, StoreError};
use crate::sys::sync::{Mutex, RwLock};
use table::ObjectTable;

/// All objects, and their store.
pub struct Accounts {
    store: Box<dyn AccountStore>,
    table: RwLock<Arc<ObjectTable>>,
    /// Held during a change: each one is decided by the objects before it.
    changing: Mutex<()>,
}

impl Accounts {
    /// Reads the store.
    pub fn open(store: Box<dyn AccountStore>) -> Result<Self, StoreError> {
        let table = RwLock::new(Arc::new(ObjectTable::new(store.load()?)));
        Ok(Accounts { store, table, changing: Mutex::new(()) })
    }

    /// Returns the objects now.
    pub fn table(&self) -> Arc<ObjectTable> {
        Arc::clone(&self.table.read())
    }

    /// Decides changes by the objects, stores them, and then shows them. Returns the second
    /// value of `decide`. [`Edge::apply_accounts`](crate::edge::Edge::apply_accounts) applies
    /// the changes to the configuration.
    pub fn change<T, E: From<StoreError>>(
        &self,
        decide: impl FnOnce(&ObjectTable) -> Result<(Vec<StoreChange>, T), E>,
    ) -> Result<T, E> {
        let _changing = self.changing.lock();
        let old = self.table();
        let (changes, result) = decide(&old)?;
        if !changes.is_empty() {
            self.store.apply(&changes)?;
            *self.table.write() = Arc::new(old.with(changes));
        }
        Ok(result)
    }

    /// Reads the store again.
    pub fn refresh(&self) -> Result<(), StoreError> {
        let _changing = self.changing.lock();
        let table = ObjectTable::new(self.store.load()?);
        *self.table.write() = Arc::new(table);
        Ok(())
    }
}

/// Returns the time since 1970 by the clock of the machine.
pub fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::store::{ObjectKind, StoredObject};

    struct Refusing;

    impl AccountStore for Refusing {
        fn load(&self) -> Result<Vec<StoredObject>, StoreError> {
            Ok(Vec::new())
        }

        fn apply(&self, _changes: &[StoreChange]) -> Result<(), StoreError> {
            Err(StoreError::Full("full".into()))
        }
    }

    #[test]
    fn what_the_store_does_not_keep_is_not_shown() {
        let accounts = Accounts::open(Box::new(Refusing)).unwrap();
        let object = StoredObject {
            id: "cr_1".into(),
            kind: ObjectKind::Credential,
            name: None,
            secret: None,
            created_at: 0,
            updated_at: 0,
            fields: Default::default(),
        };
        let refused = accounts.change(|_| Ok((vec![StoreChange::Insert(object)], ())));
        assert_eq!(refused, Err(StoreError::Full("full".into())));
        assert!(accounts.table().get("cr_1").is_none());
        // Without a change the store is not used.
        assert_eq!(accounts.change(|_| Ok::<_, StoreError>((Vec::new(), 5))), Ok(5));
    }
}
