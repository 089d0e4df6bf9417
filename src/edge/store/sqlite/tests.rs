//! Tests of the store: what is kept, and what happens to a store that cannot be used.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::*;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("culvert-store-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn store(&self) -> SqliteStore {
        SqliteStore::new(&self.0)
    }

    fn file(&self) -> PathBuf {
        self.0.join(FILE_NAME)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn object(id: &str, name: Option<&str>) -> StoredObject {
    let fields = json!({"description": "a'; DROP TABLE objects; --", "acl": ["bind:x"]});
    StoredObject {
        id: id.into(),
        kind: ObjectKind::ReservedDomain,
        name: name.map(str::to_owned),
        secret: None,
        created_at: 5,
        updated_at: 6,
        fields: fields.as_object().unwrap().clone(),
    }
}

fn insert(id: &str, name: Option<&str>) -> StoreChange {
    StoreChange::Insert(object(id, name))
}

#[test]
fn objects_are_the_same_after_a_restart() {
    let scratch = Scratch::new("restart");
    assert_eq!(scratch.store().load(), Ok(Vec::new()));
    assert!(!scratch.file().exists(), "a store without objects has no file");
    let store = scratch.store();
    store.apply(&[insert("rd_1", Some("a.test")), insert("rd_2", None)]).unwrap();
    let mut changed = object("rd_2", Some("b.test"));
    changed.secret = Some("hash".into());
    store.apply(&[StoreChange::Update(changed.clone())]).unwrap();
    assert_eq!(scratch.store().load().unwrap(), [object("rd_1", Some("a.test")), changed]);
    store.apply(&[StoreChange::Delete("rd_1".into())]).unwrap();
    assert_eq!(scratch.store().load().unwrap().len(), 1);
    for entry in fs::read_dir(&scratch.0).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
}

#[test]
fn changes_are_applied_together_or_not_at_all() {
    let scratch = Scratch::new("together");
    let store = scratch.store();
    store.apply(&[insert("rd_1", Some("a.test"))]).unwrap();
    let taken = store.apply(&[insert("rd_2", None), insert("rd_3", Some("a.test"))]);
    assert_eq!(taken, Err(StoreError::NameInUse));
    let missing = store.apply(&[insert("rd_2", None), StoreChange::Delete("rd_9".into())]);
    assert_eq!(missing, Err(StoreError::Missing("rd_9".into())));
    assert_eq!(store.load().unwrap().len(), 1);
}

#[test]
fn a_store_that_cannot_be_used_is_named_with_the_reason() {
    let scratch = Scratch::new("unusable");
    scratch.store().apply(&[insert("rd_1", None)]).unwrap();
    let good = fs::read(scratch.file()).unwrap();
    let refused = |says: &str| {
        let errors =
            [scratch.store().load().err(), scratch.store().apply(&[insert("rd_2", None)]).err()];
        for error in errors {
            let text = error.expect(says).to_string();
            assert!(text.contains("accounts.db") && text.contains(says), "{text}");
        }
    };
    // The version is a number in the header (file format of SQLite, 1.3.15).
    let mut newer = good.clone();
    newer[60..64].copy_from_slice(&[0, 0, 0, 99]);
    fs::write(scratch.file(), &newer).unwrap();
    refused("schema version 99");
    assert_eq!(fs::read(scratch.file()).unwrap(), newer, "it is not touched");
    let mut damaged = good.clone();
    let len = damaged.len();
    damaged[100..len].fill(0xff);
    fs::write(scratch.file(), damaged).unwrap();
    refused("damaged");
    fs::write(scratch.file(), b"x".repeat(8192)).unwrap();
    refused("damaged");
    fs::write(scratch.file(), good).unwrap();
    fs::set_permissions(scratch.file(), fs::Permissions::from_mode(0o666)).unwrap();
    refused("chmod go-w");
}

#[test]
fn a_locked_store_is_busy_and_free_later() {
    let scratch = Scratch::new("locked");
    let store = scratch.store();
    store.apply(&[insert("rd_1", None)]).unwrap();
    let other = Connection::open(scratch.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(store.apply(&[insert("rd_2", None)]), Err(StoreError::Busy(_))));
    assert_eq!(store.load().unwrap().len(), 1, "reading needs no lock");
    other.execute_batch("ROLLBACK").unwrap();
    store.apply(&[insert("rd_2", None)]).unwrap();
}

#[test]
fn a_full_disk_is_reported_and_changes_nothing() {
    let scratch = Scratch::new("full");
    let store = scratch.store();
    store.apply(&[insert("rd_1", None)]).unwrap();
    // The file may not grow, as on a full disk.
    store.with(|c| c.pragma_update(None, "max_page_count", 3)).unwrap();
    let mut large = object("rd_2", None);
    large.fields.insert("metadata".into(), "x".repeat(100_000).into());
    let full = store.apply(&[insert("rd_3", None), StoreChange::Insert(large)]);
    assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
    assert_eq!(store.load().unwrap().len(), 1);
}

#[test]
fn a_backup_is_a_store_with_the_same_objects() {
    let scratch = Scratch::new("backup");
    let store = scratch.store();
    let to = scratch.0.join("copy");
    fs::create_dir(&to).unwrap();
    let file = to.join(FILE_NAME);
    assert!(store.backup(&file).unwrap_err().to_string().contains("does not exist"));
    store.apply(&[insert("rd_1", Some("a.test"))]).unwrap();
    store.backup(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(SqliteStore::new(&to).load().unwrap(), store.load().unwrap());
    // An existing file is never replaced.
    assert!(store.backup(&file).is_err());
    assert_eq!(SqliteStore::new(&to).load().unwrap().len(), 1);
}

#[test]
fn a_store_that_was_moved_away_is_not_written_to() {
    let scratch = Scratch::new("moved");
    let store = scratch.store();
    store.apply(&[insert("rd_1", None)]).unwrap();
    fs::rename(scratch.file(), scratch.0.join("away")).unwrap();
    let _ = fs::remove_file(scratch.0.join("accounts.db-wal"));
    let _ = fs::remove_file(scratch.0.join("accounts.db-shm"));
    store.apply(&[insert("rd_2", None)]).unwrap();
    assert_eq!(scratch.store().load().unwrap(), [object("rd_2", None)]);
}
