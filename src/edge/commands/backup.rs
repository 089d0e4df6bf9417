//! `culvert-edge backup`: copies the store of accounts while the edge runs.

use std::path::{Path, PathBuf};

use argh::FromArgs;

use super::place;
use crate::edge::store::sqlite::SqliteStore;

/// Write a copy of the accounts to a file. The edge may run meanwhile.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "backup")]
pub struct Backup {
    /// state directory of the edge (from edge.yml, else .culvert)
    #[argh(option)]
    dir: Option<PathBuf>,
    /// configuration of the edge (edge.yml)
    #[argh(option)]
    config: Option<PathBuf>,
    /// the file to write; it must not exist
    #[argh(positional)]
    file: PathBuf,
}

impl Backup {
    /// Runs the command. Returns its output.
    pub fn run(self) -> Result<String, String> {
        let dir = place::state_dir(self.dir, self.config.as_deref())?;
        write(&dir, &self.file)
    }
}

fn write(dir: &Path, to: &Path) -> Result<String, String> {
    let store = SqliteStore::new(dir);
    store.backup(to).map_err(|e| e.to_string())?;
    Ok(format!(
        "Wrote {}. To restore it, stop the edge, remove its -wal and -shm files, and copy the file \
         to {}.\n",
        to.display(),
        store.path().display()
    ))
}
