//! Versions of the schema. A store has the number of its last step in `user_version`. Opening
//! an older store applies the missing steps in one transaction. A store of a newer version is
//! not touched. Steps that were released never change.

use rusqlite::{Connection, TransactionBehavior};

/// Steps, in their order. Step `n` leads to version `n + 1`.
pub const STEPS: &[&str] = &["
    CREATE TABLE objects (
        id         TEXT PRIMARY KEY NOT NULL,
        kind       TEXT NOT NULL,
        name       TEXT,
        secret     TEXT,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        fields     TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX objects_by_name ON objects (kind, name) WHERE name IS NOT NULL;
"];

/// Number in the header of the file that marks a store of this program (`cvlt`).
pub const APPLICATION_ID: i64 = 0x6376_6c74;

/// Result of [`migrate`] that is not an error of SQLite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// The store has the newest version.
    Current,
    /// The store has this version, which is newer than the program.
    Newer(i64),
    /// The file is a database of another program.
    Foreign,
}

/// Brings a store to the version after the last of `steps`.
pub fn migrate(connection: &mut Connection, steps: &[&str]) -> rusqlite::Result<Schema> {
    let newest = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    if version(connection)? == newest {
        return is_ours(connection)
            .map(|ours| if ours { Schema::Current } else { Schema::Foreign });
    }
    // Another process may do the same at the same time: the version counts under the lock.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    if found > newest {
        return Ok(Schema::Newer(found));
    }
    if found > 0 && !is_ours(&transaction)? || found == 0 && has_tables(&transaction)? {
        return Ok(Schema::Foreign);
    }
    for step in steps.iter().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", newest)?;
    transaction.commit()?;
    Ok(Schema::Current)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn is_ours(connection: &Connection) -> rusqlite::Result<bool> {
    let id: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    Ok(id == APPLICATION_ID)
}

fn has_tables(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: [&str; 2] = [STEPS[0], "ALTER TABLE objects ADD COLUMN owner TEXT;"];

    #[test]
    fn an_older_store_gets_the_missing_steps_and_keeps_its_rows() {
        let mut db = Connection::open_in_memory().unwrap();
        assert_eq!(migrate(&mut db, STEPS), Ok(Schema::Current));
        db.execute("INSERT INTO objects VALUES ('a', 'cr', NULL, NULL, 1, 1, '{}')", []).unwrap();
        assert_eq!(migrate(&mut db, &TWO), Ok(Schema::Current));
        assert_eq!(migrate(&mut db, &TWO), Ok(Schema::Current));
        let row: (String, Option<String>) = db
            .query_row("SELECT id, owner FROM objects", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        assert_eq!(row, ("a".into(), None));
        assert_eq!(migrate(&mut db, STEPS), Ok(Schema::Newer(2)));
    }

    #[test]
    fn a_failed_step_changes_nothing() {
        let mut db = Connection::open_in_memory().unwrap();
        assert!(migrate(&mut db, &[STEPS[0], "CREATE TABLE objects (x);"]).is_err());
        assert_eq!(version(&db), Ok(0));
        assert_eq!(has_tables(&db), Ok(false));
    }

    #[test]
    fn a_database_of_another_program_is_not_changed() {
        let mut db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE t (x);").unwrap();
        assert_eq!(migrate(&mut db, STEPS), Ok(Schema::Foreign));
        db.pragma_update(None, "user_version", 1).unwrap();
        assert_eq!(migrate(&mut db, STEPS), Ok(Schema::Foreign));
        assert_eq!(migrate(&mut db, &TWO), Ok(Schema::Foreign));
    }
}
