//! The store in a file of SQLite, below the state directory. The file is created with the first
//! object: an edge without accounts never opens it. The connection stays open after that, with a
//! page cache of 128 KiB. What is stored is decided elsewhere.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};

use super::migrations::{self, STEPS, Schema};
use super::{AccountStore, ObjectKind, StoreChange, StoreError, StoredObject};
use crate::sys::private_file;
use crate::sys::sync::Mutex;

/// Name of the file in the state directory.
pub const FILE_NAME: &str = "accounts.db";

/// Time to wait for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Page cache. The objects are in memory once; reading them again is rare.
const CACHE_KIB: i64 = 128;

/// Permissions of the file. The files of the write-ahead log get the same ones.
const MODE: u32 = 0o600;

/// A store in one file.
pub struct SqliteStore {
    path: PathBuf,
    /// Open after the first use.
    connection: Mutex<Option<OpenStore>>,
}

/// An open file.
struct OpenStore {
    connection: Connection,
    /// Device and inode of the file.
    identity: (u64, u64),
}

impl SqliteStore {
    /// Returns the store of a state directory. Opens nothing.
    pub fn new(dir: &Path) -> Self {
        SqliteStore { path: dir.join(FILE_NAME), connection: Mutex::new(None) }
    }

    /// Returns its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` with the open connection. After an error that may be the file's the
    /// connection is opened again at the next use.
    fn with<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut slot = self.connection.lock();
        if slot.as_ref().is_some_and(|open| Some(open.identity) != self.identity()) {
            // The file was removed or replaced: changes to it would be lost.
            *slot = None;
        }
        let open = match &mut *slot {
            Some(open) => open,
            None => slot.insert(self.open()?),
        };
        work(&mut open.connection).map_err(|e| {
            let error = self.explain(&e);
            if matches!(error, StoreError::Unusable(_)) {
                *slot = None;
            }
            error
        })
    }

    /// Opens the file, or creates it.
    fn open(&self) -> Result<OpenStore, StoreError> {
        let failed = |e: io::Error| self.unusable(&e.to_string());
        match private_file::create(&self.path, MODE) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                private_file::open(&self.path).map_err(failed)?;
            }
            Err(e) => return Err(failed(e)),
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let prepared = Connection::open_with_flags(&self.path, flags).and_then(|mut connection| {
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
            connection.pragma_update(None, "mmap_size", 0)?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "full")?;
            connection.pragma_update(None, "trusted_schema", false)?;
            let schema = migrations::migrate(&mut connection, STEPS)?;
            Ok((connection, schema))
        });
        match prepared.map_err(|e| self.explain(&e))? {
            (connection, Schema::Current) => {
                let identity = self.identity().unwrap_or_default();
                Ok(OpenStore { connection, identity })
            }
            (_, Schema::Newer(version)) => Err(self.unusable(&format!(
                "it is of schema version {version}, and this program knows versions up to {}; use \
                 the newer culvert-edge",
                STEPS.len()
            ))),
            (_, Schema::Foreign) => {
                Err(self.unusable("it is a database of another program; move it away"))
            }
        }
    }

    /// Returns device and inode of the file, if it exists.
    fn identity(&self) -> Option<(u64, u64)> {
        fs::metadata(&self.path).ok().map(|found| (found.dev(), found.ino()))
    }

    fn unusable(&self, why: &str) -> StoreError {
        StoreError::Unusable(format!("cannot use the store {}: {why}", self.path.display()))
    }

    fn explain(&self, e: &rusqlite::Error) -> StoreError {
        let path = self.path.display();
        match e.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy(format!(
                "the store {path} is locked: another process writes to it; try again"
            )),
            Some(ErrorCode::DiskFull) => StoreError::Full(format!(
                "cannot write the store {path}: the disk is full; free some space"
            )),
            Some(ErrorCode::ConstraintViolation) => StoreError::NameInUse,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => self.unusable(
                "it is damaged; stop the edge and restore a backup ('culvert-edge backup'), or \
                 move the file away to start without accounts",
            ),
            _ => self.unusable(&e.to_string()),
        }
    }
}

impl AccountStore for SqliteStore {
    fn load(&self) -> Result<Vec<StoredObject>, StoreError> {
        match fs::symlink_metadata(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            _ => {}
        }
        let (rows, intact) = self.with(|connection| {
            let intact: String =
                connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            let mut select = connection.prepare(
                "SELECT id, kind, name, secret, created_at, updated_at, fields FROM objects",
            )?;
            let rows = select.query_map([], |row| {
                Ok(RawObject {
                    id: row.get(0)?,
                    kind: row.get(1)?,
                    name: row.get(2)?,
                    secret: row.get(3)?,
                    created_at: row.get(4)?,
                    updated_at: row.get(5)?,
                    fields: row.get(6)?,
                })
            })?;
            Ok((rows.collect::<rusqlite::Result<Vec<_>>>()?, intact))
        })?;
        if intact != "ok" {
            return Err(self.unusable(&format!(
                "it is damaged ({intact}); restore a backup ('culvert-edge backup')"
            )));
        }
        let read = |raw: RawObject| {
            let id = raw.id.clone();
            raw.read().ok_or_else(|| self.unusable(&format!("its object {id} is malformed")))
        };
        rows.into_iter().map(read).collect()
    }

    fn apply(&self, changes: &[StoreChange]) -> Result<(), StoreError> {
        let missing = self.with(|connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for change in changes {
                let changed = match change {
                    StoreChange::Insert(object) => transaction.execute(
                        "INSERT INTO objects \
                         (id, kind, name, secret, created_at, updated_at, fields) \
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                        params![
                            object.id,
                            object.kind.prefix(),
                            object.name,
                            object.secret,
                            seconds(object.created_at),
                            seconds(object.updated_at),
                            fields(object),
                        ],
                    )?,
                    StoreChange::Update(object) => transaction.execute(
                        "UPDATE objects SET name = ?2, secret = ?3, updated_at = ?4, fields = ?5 \
                         WHERE id = ?1",
                        params![
                            object.id,
                            object.name,
                            object.secret,
                            seconds(object.updated_at),
                            fields(object),
                        ],
                    )?,
                    StoreChange::Delete(id) => {
                        transaction.execute("DELETE FROM objects WHERE id = ?1", [id])?
                    }
                };
                if changed == 0 {
                    // Dropping the transaction undoes the changes before this one.
                    return Ok(Some(change.id().to_owned()));
                }
            }
            transaction.commit().map(|()| None)
        })?;
        missing.map_or(Ok(()), |id| Err(StoreError::Missing(id)))
    }
}

impl SqliteStore {
    /// Writes a copy of the store to a file that does not exist. Others may use the store
    /// meanwhile.
    pub fn backup(&self, to: &Path) -> Result<(), StoreError> {
        let failed = |why: &dyn std::fmt::Display| {
            StoreError::Unusable(format!("cannot write the backup {}: {why}", to.display()))
        };
        if !self.path.exists() {
            let path = self.path.display();
            return Err(StoreError::Unusable(format!(
                "the store {path} does not exist: this edge has no accounts of the API yet"
            )));
        }
        // SQLite writes into an existing empty file, which only its owner can read from the start.
        private_file::create(to, MODE).map_err(|e| failed(&e))?;
        let name = to.to_str().ok_or_else(|| failed(&"its name is not UTF-8"))?;
        let copied = self.with(|connection| connection.execute("VACUUM INTO ?1", [name]));
        copied.map(|_| ()).inspect_err(|_| {
            let _ = fs::remove_file(to);
        })
    }
}

impl StoreChange {
    fn id(&self) -> &str {
        match self {
            StoreChange::Insert(object) | StoreChange::Update(object) => &object.id,
            StoreChange::Delete(id) => id,
        }
    }
}

/// A row.
struct RawObject {
    id: String,
    kind: String,
    name: Option<String>,
    secret: Option<String>,
    created_at: i64,
    updated_at: i64,
    fields: String,
}

impl RawObject {
    fn read(self) -> Option<StoredObject> {
        Some(StoredObject {
            kind: ObjectKind::of_prefix(&self.kind)?,
            id: self.id,
            name: self.name,
            secret: self.secret,
            created_at: u64::try_from(self.created_at).ok()?,
            updated_at: u64::try_from(self.updated_at).ok()?,
            fields: serde_json::from_str(&self.fields).ok()?,
        })
    }
}

fn seconds(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

fn fields(object: &StoredObject) -> String {
    serde_json::to_string(&object.fields).unwrap_or_default()
}

#[cfg(test)]
mod tests;
