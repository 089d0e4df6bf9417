//! The program's file and what lies beside it: the new program until it is complete, the old
//! one for a rollback, and the record. Each step leaves a whole program under the program's
//! name, also after a power cut. Downloads do not belong here.
//!
//! For `culvert` these files are `.culvert.new`, `.culvert.old` and `.culvert.update`.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::child;
use super::record::UpdateRecord;
use super::version::Version;
use crate::sys::child::{ChildOutput, ChildProgram};
use crate::sys::{private_file, storage};

/// Time for the new program to print its version, on a busy machine with slow flash.
const VERSION_TIMEOUT: Duration = Duration::from_secs(20);

/// Space that stays free: for the record, and for directories.
const SPACE_RESERVE: u64 = 64 * 1024;

/// Longest record.
const MAX_RECORD_BYTES: u64 = 16 * 1024;

/// End of the path of a file that was replaced or removed.
const DELETED: &str = " (deleted)";

/// The file of this program.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
}

/// A lock on the directory of the program. Only its holder changes files in it.
pub struct ProgramLock {
    dir: File,
}

impl Program {
    /// Finds the file of the running program, or the one that replaced it.
    pub fn find() -> io::Result<Program> {
        let path = std::env::current_exe()?;
        let text = path.as_os_str().to_str().and_then(|text| text.strip_suffix(DELETED));
        let path = text.map(PathBuf::from).unwrap_or(path);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => Ok(Program { path }),
            Ok(_) => Err(io::Error::other(format!("{} is not a file", path.display()))),
            Err(e) => Err(named("read", &path, &e)),
        }
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether another file has replaced the running program.
    pub fn is_replaced(&self) -> bool {
        let id = |path: &Path| fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
        id(Path::new("/proc/self/exe")) != id(&self.path)
    }

    /// Returns the path of a file beside the program.
    fn beside(&self, end: &str) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(end);
        self.path.with_file_name(name)
    }

    fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Locks the directory for one update.
    pub fn lock(&self) -> Result<ProgramLock, String> {
        let dir = File::open(self.dir()).map_err(|e| named("open", self.dir(), &e).to_string())?;
        match dir.try_lock() {
            Ok(()) => Ok(ProgramLock { dir }),
            Err(TryLockError::WouldBlock) => {
                Err("another update is running; wait for its end".into())
            }
            // A file system without locks. The new file is created exclusively.
            Err(TryLockError::Error(_)) => Ok(ProgramLock { dir }),
        }
    }

    /// Checks that the directory can be changed, and removes the rest of a killed update.
    pub fn check_writable(&self, _: &ProgramLock) -> Result<(), String> {
        let new = self.beside(".new");
        let tried = match fs::remove_file(&new) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                private_file::create(&new, 0o600).and_then(|_| fs::remove_file(&new))
            }
            other => other,
        };
        tried.map_err(|e| self.unwritable(&e))
    }

    /// Returns the error for a directory that cannot be changed.
    fn unwritable(&self, e: &io::Error) -> String {
        let dir = self.dir().display();
        let advice = match e.kind() {
            io::ErrorKind::ReadOnlyFilesystem => {
                "its file system is read-only; update the image of this machine"
            }
            io::ErrorKind::PermissionDenied => {
                "run this command as the owner of the directory, as with sudo"
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space",
            _ => "check the directory",
        };
        format!("cannot change {dir}: {e}; {advice}")
    }

    /// Checks that the file system has room for a new program of `size` bytes.
    pub fn check_space(&self, lock: &ProgramLock, size: u64) -> Result<(), String> {
        let own = fs::metadata(&self.path).map_or(0, |found| found.len());
        // On an overlay the link to a file of the image copies it.
        let copy = if storage::is_overlay(&lock.dir) { own } else { 0 };
        let needed = size.saturating_add(copy).saturating_add(SPACE_RESERVE);
        let free = storage::free_bytes(&lock.dir)
            .map_err(|e| named("read the free space of", self.dir(), &e).to_string())?;
        match free < needed {
            false => Ok(()),
            true => Err(format!(
                "the file system of {} has {free} bytes free and needs {needed}; free some space",
                self.dir().display()
            )),
        }
    }

    /// Creates the file for the new program. Also returns it open for writing.
    pub fn stage(&self, _: &ProgramLock) -> Result<(StagedProgram, File), String> {
        let path = self.beside(".new");
        let file = private_file::create(&path, 0o600).map_err(|e| self.unwritable(&e))?;
        Ok((StagedProgram { path }, file))
    }

    /// Replaces the program by the new one, which was checked before. The old one stays beside
    /// it.
    pub fn replace(
        &self,
        lock: &ProgramLock,
        staged: StagedProgram,
        record: &UpdateRecord,
    ) -> Result<(), String> {
        let old = self.beside(".old");
        // A link and not a rename: the name is never without a program.
        let kept = remove(&old).and_then(|()| fs::hard_link(&self.path, &old));
        kept.map_err(|e| format!("cannot keep the old program: {}", self.unwritable(&e)))?;
        // Before the program, so that the new one never runs without it.
        self.write_record(lock, record)?;
        fs::rename(&staged.path, &self.path).map_err(|e| self.unwritable(&e))?;
        lock.dir.sync_all().map_err(|e| named("write", self.dir(), &e).to_string())
    }

    /// Puts the old program back. Returns the record of it. A manifest that is `bad` is not
    /// installed again.
    pub fn roll_back(&self, lock: &ProgramLock, is_bad: bool) -> Result<UpdateRecord, String> {
        let old = self.beside(".old");
        if !old.is_file() {
            return Err(format!("no older program is kept: {} is missing", old.display()));
        }
        let record = self.record().rolled_back(is_bad);
        self.write_record(lock, &record)?;
        fs::rename(&old, &self.path).map_err(|e| self.unwritable(&e))?;
        lock.dir.sync_all().map_err(|e| named("write", self.dir(), &e).to_string())?;
        Ok(record)
    }

    /// Returns the record; an empty one if the file is missing.
    pub fn record(&self) -> UpdateRecord {
        let read = private_file::open(&self.beside(".update")).and_then(|file| {
            let mut text = String::new();
            file.take(MAX_RECORD_BYTES).read_to_string(&mut text)?;
            Ok(text)
        });
        UpdateRecord::parse(&read.unwrap_or_default())
    }

    /// Writes the record as a whole.
    pub fn write_record(&self, lock: &ProgramLock, record: &UpdateRecord) -> Result<(), String> {
        let (path, new) = (self.beside(".update"), self.beside(".update.new"));
        let written = remove(&new)
            .and_then(|()| private_file::create(&new, 0o644))
            .and_then(|mut file| {
                file.write_all(record.text().as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&new, &path))
            .and_then(|()| lock.dir.sync_all());
        written.map_err(|e| self.unwritable(&e))
    }
}

/// A new program that is not complete yet. Dropping it removes its file.
pub struct StagedProgram {
    path: PathBuf,
}

impl StagedProgram {
    /// Writes the file to the disk with the owner and the permissions of the old program, and
    /// closes it: a program that is open for writing cannot be executed.
    pub fn finish(&self, file: File, program: &Program) -> Result<(), String> {
        let done = fs::metadata(&program.path).and_then(|old| adopt(&file, &old));
        done.and_then(|()| file.sync_all()).map_err(|e| named("write", &self.path, &e).to_string())
    }

    /// Checks that it runs on this machine and prints this version.
    pub fn check_version(&self, expected: &Version) -> Result<(), String> {
        let words = [self.path.as_os_str(), OsStr::new("version")];
        let program = ChildProgram {
            environment: Some(&[]),
            ..ChildProgram::new(&words, ChildOutput::Piped)
        };
        let output = child::run(&program, VERSION_TIMEOUT)
            .map_err(|e| format!("the new program does not run here: {e}"))?;
        let line = output.text.trim_end();
        let found = line.rsplit(' ').next().unwrap_or_default();
        match output.succeeded && found == expected.to_string() {
            true => Ok(()),
            false => {
                Err(format!("the new program is not version {expected}: it prints {line:.60?}"))
            }
        }
    }
}

impl Drop for StagedProgram {
    fn drop(&mut self) {
        // After the rename it does not exist.
        let _ = fs::remove_file(&self.path);
    }
}

fn adopt(file: &File, old: &Metadata) -> io::Result<()> {
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
        fchown(file, Some(old.uid()), Some(old.gid()))?;
    }
    file.set_permissions(Permissions::from_mode(old.mode() & 0o7777))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn named(what: &str, path: &Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("cannot {what} {}: {e}", path.display()))
}
