//! Configuration file on disk: it changes as a whole or not at all. A complete new file is
//! written beside the old one, synchronized to the disk, and renamed.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::file;
use crate::sys::file_mode::public_mode;

/// Mode of a file that contains a credential.
const PRIVATE_MODE: u32 = 0o600;

/// Maximum number of backups beside a file.
const MAX_BACKUPS: u32 = 1000;

/// File that will change, with its content.
pub(super) struct StoredFile {
    /// After symbolic links.
    target: PathBuf,
    dir: PathBuf,
    name: OsString,
    /// The text; `None` if the file does not exist yet.
    pub(super) text: Option<String>,
    /// Mode of the new file; `None` keeps the old one's.
    mode: Option<u32>,
    /// Held until the change is complete: two changes of one file wait for each other.
    _lock: Option<File>,
}

impl StoredFile {
    /// Opens and locks the file at `path`, which may be missing.
    pub(super) fn open(path: &Path) -> io::Result<StoredFile> {
        StoredFile::open_unless(path, None)
    }

    /// Opens and locks another file. The lock of the same directory is reused.
    pub(super) fn open_another(&self, path: &Path) -> io::Result<StoredFile> {
        StoredFile::open_unless(path, fs::canonicalize(&self.dir).ok())
    }

    fn open_unless(path: &Path, held: Option<PathBuf>) -> io::Result<StoredFile> {
        let target = match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(path) {
                Ok(to) => {
                    let text = format!("it is a link to {}, which does not exist", to.display());
                    return Err(io::Error::other(text));
                }
                Err(_) => path.to_owned(),
            },
            other => other?,
        };
        let name =
            target.file_name().ok_or_else(|| io::Error::other("it is not a file"))?.to_owned();
        let dir = match target.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
            _ => PathBuf::from("."),
        };
        // Not every file system has locks. Then the last change is kept, with a whole file.
        let lock = match held.is_some() && held == fs::canonicalize(&dir).ok() {
            true => None,
            false => File::open(&dir).ok().filter(|dir| dir.lock().is_ok()),
        };
        let text = match file::read(&target) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(StoredFile { target, dir, name, text, mode: None, _lock: lock })
    }

    /// Lets the new file have mode 0600 if every user may read the old one. Returns the old
    /// mode in this case.
    pub(super) fn tighten(&mut self) -> Option<u32> {
        let old = public_mode(&self.target)?;
        self.mode = Some(PRIVATE_MODE);
        Some(old)
    }

    /// Replaces the file by a complete one with the same mode and owner. A new file gets the
    /// mode 0600, and its new directories 0700.
    pub(super) fn replace(&self, text: &str) -> io::Result<()> {
        if self.text.is_none() {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        }
        self.remove_leftovers();
        let temporary = self.dir.join(self.temporary(std::process::id()));
        let written = self.write_like(&temporary, text).and_then(|()| {
            fs::rename(&temporary, &self.target).map_err(|error| match error.kind() {
                // For example in a container with this single file mounted.
                io::ErrorKind::ResourceBusy => io::Error::other(
                    "it is a mount point and cannot be replaced; mount its directory, or change \
                     the mounted file",
                ),
                _ => error,
            })
        });
        if written.is_err() {
            // The old file is unchanged. A leftover would contain secrets.
            let _ = fs::remove_file(&temporary);
        }
        written?;
        self.sync_names();
        Ok(())
    }

    /// Copies the file to an unused name beside it.
    pub(super) fn back_up(&self) -> io::Result<PathBuf> {
        let text = self.text.as_deref().unwrap_or_default();
        for n in 0..MAX_BACKUPS {
            let mut name = self.name.clone();
            name.push(".bak");
            if n > 0 {
                name.push(format!(".{n}"));
            }
            let path = self.dir.join(name);
            match self.write_like(&path, text) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    let _ = fs::remove_file(&path);
                    return Err(error);
                }
                Ok(()) => return Ok(path),
            }
        }
        Err(io::Error::other("too many backups exist; remove some"))
    }

    /// Removes a backup that is not needed.
    pub(super) fn remove_backup(&self, backup: &Path) {
        let _ = fs::remove_file(backup);
    }

    /// Removes the file.
    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.target)?;
        self.sync_names();
        Ok(())
    }

    /// Writes a new file at `path` and synchronizes it.
    fn write_like(&self, path: &Path, text: &str) -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(PRIVATE_MODE).open(path)?;
        file.write_all(text.as_bytes())?;
        if let Ok(old) = fs::metadata(&self.target) {
            // Only root may change the owner. Otherwise this user owns the file, with the same
            // mode as before.
            if fchown(&file, Some(old.uid()), Some(old.gid())).is_err() {
                let _ = fchown(&file, None, Some(old.gid()));
            }
            let mode = self.mode.unwrap_or(old.mode() & 0o7777);
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        file.sync_all()
    }

    /// Synchronizes the names in the directory. Not every file system supports it, and the file
    /// itself is complete.
    fn sync_names(&self) {
        if let Ok(dir) = File::open(&self.dir) {
            let _ = dir.sync_all();
        }
    }

    fn temporary(&self, pid: u32) -> OsString {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(format!(".{pid}.tmp"));
        name
    }

    /// Removes files of a killed process, because they contain secrets.
    fn remove_leftovers(&self) {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for entry in entries {
            if let Some(pid) = self.leftover(&entry.file_name())
                && (pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists())
            {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Returns the process of the temporary file `name`, if it is one.
    fn leftover(&self, name: &OsStr) -> Option<u32> {
        let inner = name.to_str()?.strip_prefix('.')?.strip_suffix(".tmp")?;
        let pid = inner.strip_prefix(self.name.to_str()?)?.strip_prefix('.')?;
        pid.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a directory for the test.
    fn directory(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("culvert-store-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        dir
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("a list");
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<_> =
            entries.map(|entry| name(entry).into_string().expect("text")).collect();
        names.sort();
        names
    }

    #[test]
    fn mode_and_links_stay_and_nothing_is_left_behind() {
        let dir = directory("mode");
        let new = dir.join("sub/ngrok.yml");
        StoredFile::open(&new).expect("a place").replace("one").expect("a new file");
        assert_eq!(fs::metadata(&new).expect("it").mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(dir.join("sub")).expect("it").mode() & 0o777, 0o700);

        fs::set_permissions(&new, Permissions::from_mode(0o640)).expect("a mode");
        // Of a process that has ended, and of one that runs.
        fs::write(dir.join("sub/.ngrok.yml.4194999.tmp"), "hush").expect("a leftover");
        fs::write(dir.join("sub/.ngrok.yml.1.tmp"), "hush").expect("another's");
        fs::write(dir.join("sub/.other.yml.4194999.tmp"), "hush").expect("another file's");
        let link = dir.join("link.yml");
        std::os::unix::fs::symlink("sub/ngrok.yml", &link).expect("a link");
        let stored = StoredFile::open(&link).expect("a file");
        assert_eq!(stored.text.as_deref(), Some("one"));
        stored.replace("two").expect("a change");
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&new).expect("text"), "two");
        assert_eq!(fs::metadata(&new).expect("it").mode() & 0o777, 0o640);
        let expected = [".ngrok.yml.1.tmp", ".other.yml.4194999.tmp", "ngrok.yml"];
        assert_eq!(names(&dir.join("sub")), expected);
        fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn a_backup_overwrites_nothing() {
        let dir = directory("backup");
        let path = dir.join("ngrok.yml");
        fs::write(&path, "one").expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("a mode");
        let stored = StoredFile::open(&path).expect("a file");
        let first = stored.back_up().expect("a backup");
        fs::write(&first, "changed").expect("a file");
        let second = stored.back_up().expect("another");
        assert_eq!(names(&dir), ["ngrok.yml", "ngrok.yml.bak", "ngrok.yml.bak.1"]);
        assert_eq!(fs::read_to_string(first).expect("text"), "changed");
        assert_eq!(fs::read_to_string(&second).expect("text"), "one");
        assert_eq!(fs::metadata(&second).expect("it").mode() & 0o777, 0o640);
        fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = directory("none");
        let dangling = dir.join("dangling.yml");
        std::os::unix::fs::symlink("nowhere/x.yml", &dangling).expect("a link");
        let error = StoredFile::open(&dangling).err().expect("an error").to_string();
        assert_eq!(error, "it is a link to nowhere/x.yml, which does not exist");
        assert!(StoredFile::open(&dir).is_err());
        assert!(StoredFile::open(Path::new("/")).is_err());
        fs::remove_dir_all(dir).expect("removed");
    }
}
