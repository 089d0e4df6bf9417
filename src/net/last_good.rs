//! Small files that are kept between runs, if the disk allows it. None of them is required:
//! without them a start is slower.

use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::sys;
use crate::tls::crl::CrlStore;

/// Most bytes of a file.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// Directories for files, the best first.
pub struct CacheDirs {
    dirs: Vec<PathBuf>,
}

impl CacheDirs {
    /// Returns `state_dir` if it is set, else the usual directories.
    pub fn new(state_dir: Option<&Path>, environment: &dyn Fn(&str) -> Option<String>) -> Self {
        if let Some(dir) = state_dir {
            return CacheDirs { dirs: vec![dir.to_owned()] };
        }
        let set = |name| environment(name).filter(|v| v.starts_with('/')).map(PathBuf::from);
        let mut dirs = Vec::new();
        dirs.extend(set("XDG_CACHE_HOME").map(|dir| dir.join("culvert")));
        // A home that does not exist is not created.
        let home = set("HOME").filter(|home| home.is_dir());
        dirs.extend(home.map(|home| home.join(".cache/culvert")));
        dirs.push(PathBuf::from("/var/lib/culvert"));
        let temporary = set("TMPDIR").unwrap_or_else(|| PathBuf::from("/tmp"));
        dirs.push(temporary.join(format!("culvert-{}", sys::own_uid())));
        CacheDirs { dirs }
    }

    /// Returns a file's content and its age. `None` if none of our directories has it.
    pub fn load(&self, name: &str) -> Option<(Vec<u8>, Option<Duration>)> {
        self.dirs.iter().filter(|dir| is_owned(dir)).find_map(|dir| {
            let file = File::open(dir.join(name)).ok()?;
            let age = file.metadata().ok()?.modified().ok();
            let age = age.and_then(|at| SystemTime::now().duration_since(at).ok());
            let mut bytes = Vec::new();
            file.take(MAX_FILE_BYTES as u64).read_to_end(&mut bytes).ok()?;
            Some((bytes, age))
        })
    }

    /// Writes a file as a whole, into the first directory that allows it. Best effort.
    pub fn store(&self, name: &str, bytes: &[u8]) {
        let _ = self.dirs.iter().find(|dir| write(dir, name, bytes).is_some());
    }
}

/// Stores certificate revocation lists beside the other files.
impl CrlStore for CacheDirs {
    fn load(&self, name: &str) -> Option<(Vec<u8>, Option<Duration>)> {
        CacheDirs::load(self, name)
    }

    fn store(&self, name: &str, bytes: &[u8]) {
        CacheDirs::store(self, name, bytes);
    }
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Option<()> {
    // An error here also occurs below.
    let _ = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    if !is_owned(dir) {
        return None;
    }
    // Several programs may do the same at once.
    let new = dir.join(format!("{name}.{}", std::process::id()));
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&new);
    let done = file.and_then(|mut file| file.write_all(bytes));
    let done = done.and_then(|()| fs::rename(&new, dir.join(name)));
    if done.is_err() {
        let _ = fs::remove_file(&new);
    }
    done.ok()
}

/// Returns whether a directory belongs to this user.
fn is_owned(dir: &Path) -> bool {
    // Follows links, because `state_dir` may be one. Below /tmp only root and the owner can
    // replace a directory of ours.
    fs::metadata(dir).is_ok_and(|m| m.is_dir() && m.uid() == sys::own_uid())
        && !(dir.starts_with("/tmp") && dir.is_symlink())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_that_takes_a_file_keeps_it() {
        let base = std::env::temp_dir().join(format!("culvert-state-{}", std::process::id()));
        fs::create_dir_all(base.join("tmp")).unwrap();
        // A file in place of the directory: nothing can be stored there.
        fs::write(base.join("cache"), "").unwrap();
        let environment = |name: &str| match name {
            "XDG_CACHE_HOME" => Some(base.join("cache").display().to_string()),
            "HOME" => Some(base.join("none").display().to_string()),
            "TMPDIR" => Some(base.join("tmp").display().to_string()),
            _ => None,
        };
        let mut state = CacheDirs::new(None, &environment);
        state.dirs.retain(|dir| dir.starts_with(&base));
        assert!(state.load("x").is_none());
        state.store("x", b"one");
        state.store("x", b"two");
        let (bytes, age) = state.load("x").unwrap();
        assert_eq!((bytes.as_slice(), age.is_some()), (&b"two"[..], true));
        let kept = base.join(format!("tmp/culvert-{}", sys::own_uid()));
        assert_eq!(fs::read_dir(kept).unwrap().count(), 1);
        assert!(!base.join("none").exists());
        let state = CacheDirs::new(Some(&base.join("cache/in")), &environment);
        state.store("x", b"one");
        assert!(state.load("x").is_none());
        fs::remove_dir_all(base).unwrap();
    }
}
