//! Writes and removes the files of a service below a root directory. A file is written beside
//! its place, synced and renamed; if one cannot be written, none is. Calls no program.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::plan::{MARK, Plan, PlannedFile};
use crate::sys::private_file;

/// What an installation changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// The service is new.
    New,
    /// An earlier installation was replaced.
    Replaced,
    /// Nothing: the same service was installed.
    Same,
}

/// Permissions of directories that are created.
const DIRECTORY_MODE: u32 = 0o755;

/// Returns the content of the script or unit at `path`, if this command has made it.
pub fn existing(root: &Path, plan: &Plan) -> Result<Option<String>, String> {
    match plan.files.first() {
        Some(file) => own_content(&root.join(&file.path)),
        None => Ok(None),
    }
}

/// Installs the files, then the links. `force` replaces an earlier installation with other
/// settings.
pub fn install(root: &Path, plan: &Plan, force: bool) -> Result<Installed, String> {
    let mut result = Installed::Same;
    let mut missing = Vec::new();
    for file in &plan.files {
        let path = root.join(&file.path);
        match own_content(&path)? {
            None => result = if result == Installed::Same { Installed::New } else { result },
            Some(content) if content == file.content => continue,
            Some(_) if force => result = Installed::Replaced,
            Some(_) => {
                return Err(format!(
                    "{} is installed with other settings; replace it with --force, or uninstall \
                     it first",
                    path.display()
                ));
            }
        }
        missing.push(file);
    }
    let mut made = Made::default();
    let done = write_all(root, &missing, &mut made).and_then(|()| link_all(root, plan, &mut made));
    if done.is_err() {
        made.undo();
    }
    done.map(|()| result)
}

/// Files, links and directories that an unfinished installation has created.
#[derive(Default)]
struct Made {
    paths: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

impl Made {
    fn undo(&self) {
        for path in &self.paths {
            let _ = fs::remove_file(path);
        }
        for directory in self.directories.iter().rev() {
            let _ = fs::remove_dir(directory);
        }
    }

    /// Creates a directory and its parents. Refuses one that another user can change.
    fn directory(&mut self, root: &Path, path: &Path) -> Result<(), String> {
        self.create(root, path)?;
        let look = || -> io::Result<(bool, Metadata)> {
            let inside = fs::canonicalize(path)?.starts_with(fs::canonicalize(root)?);
            Ok((inside, fs::metadata(path)?))
        };
        let (inside, metadata) = look().map_err(|e| failed(path, &e))?;
        if !inside {
            return Err(format!(
                "{} leads out of {}: it is a link; create a directory in its place",
                path.display(),
                root.display()
            ));
        }
        private_file::check(&metadata)
            .map_err(|e| format!("{} cannot be used: {e}", path.display()))
    }

    fn create(&mut self, root: &Path, path: &Path) -> Result<(), String> {
        if let Some(parent) = path.parent().filter(|parent| parent.starts_with(root)) {
            self.create(root, parent)?;
        }
        let set = match fs::create_dir(path) {
            Ok(()) => {
                self.directories.push(path.to_owned());
                fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))
            }
            Err(_) if path.is_dir() => return Ok(()),
            Err(error) => Err(error),
        };
        set.map_err(|e| failed(path, &e))
    }
}

/// Writes every file beside its place, then renames all.
fn write_all(root: &Path, files: &[&PlannedFile], made: &mut Made) -> Result<(), String> {
    let mut beside = Vec::new();
    for file in files {
        let path = root.join(&file.path);
        made.directory(root, path.parent().unwrap_or(root))?;
        let new = beside_of(&path);
        // Left by an installation that was killed.
        let _ = fs::remove_file(&new);
        made.paths.push(new.clone());
        write_one(&new, file).map_err(|e| failed(&path, &e))?;
        beside.push((new, path));
    }
    for (new, path) in &beside {
        let is_new = !path.exists();
        fs::rename(new, path).and_then(|()| sync_parent(path)).map_err(|e| failed(path, &e))?;
        if is_new {
            made.paths.push(path.clone());
        }
    }
    Ok(())
}

fn write_one(path: &Path, file: &PlannedFile) -> io::Result<()> {
    let mut out = private_file::create(path, file.mode)?;
    // `create` subtracts the umask from the mode.
    out.set_permissions(Permissions::from_mode(file.mode))?;
    out.write_all(file.content.as_bytes())?;
    out.sync_all()
}

fn link_all(root: &Path, plan: &Plan, made: &mut Made) -> Result<(), String> {
    for (path, target) in &plan.links {
        let path = root.join(path);
        if fs::read_link(&path).is_ok_and(|old| old == *target) {
            continue;
        }
        if path.exists() && !path.is_symlink() {
            return Err(format!(
                "{} was not made by this command; remove it, or give another --name",
                path.display()
            ));
        }
        made.directory(root, path.parent().unwrap_or(root))?;
        let new = beside_of(&path);
        let _ = fs::remove_file(&new);
        made.paths.push(new.clone());
        symlink(target, &new)
            .and_then(|()| fs::rename(&new, &path))
            .and_then(|()| sync_parent(&path))
            .map_err(|e| failed(&path, &e))?;
        made.paths.push(path);
    }
    Ok(())
}

/// Removes the links, the files, and what the service has created. Returns whether anything was
/// there.
pub fn uninstall(root: &Path, plan: &Plan, name: &str) -> Result<bool, String> {
    for file in &plan.files {
        own_content(&root.join(&file.path))?;
    }
    let mut found = unlink(root, plan, name)?;
    for file in &plan.files {
        let path = root.join(&file.path);
        // Left by an installation that was killed.
        remove(&beside_of(&path))?;
        found |= remove(&path)?;
    }
    if found {
        plan.traces.iter().try_for_each(|path| remove_tree(&root.join(path)))?;
    }
    for (path, _) in &plan.links {
        let parent = path.parent().unwrap_or(path);
        if parent.extension().is_some_and(|extension| extension == "wants") {
            // Only an empty one is removed.
            let _ = fs::remove_dir(root.join(parent));
        }
    }
    Ok(found)
}

/// Removes the links that start the service. Returns whether there was one.
pub fn unlink(root: &Path, plan: &Plan, name: &str) -> Result<bool, String> {
    let mut found = false;
    for (path, target) in &plan.links {
        let path = root.join(path);
        if fs::read_link(&path).is_ok_and(|old| old == *target) {
            found |= remove(&path)?;
        }
    }
    // `update-rc.d` gives other numbers to the links of run levels.
    for level in 0..=6 {
        for base in ["etc", "etc/rc.d"] {
            found |= unlink_level(&root.join(format!("{base}/rc{level}.d")), name)?;
        }
    }
    Ok(found)
}

/// Removes the links to the script of the service in the directory of a run level, with every
/// number.
fn unlink_level(directory: &Path, name: &str) -> Result<bool, String> {
    let mut found = false;
    let Ok(entries) = fs::read_dir(directory) else { return Ok(false) };
    for entry in entries.flatten() {
        let (file, path) = (entry.file_name(), entry.path());
        let target = fs::read_link(&path).unwrap_or_default();
        if file.to_str().and_then(|file| file.get(3..)) == Some(name)
            && target.ends_with(format!("init.d/{name}"))
        {
            found |= remove(&path)?;
        }
    }
    Ok(found)
}

fn remove(path: &Path) -> Result<bool, String> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path).map(|()| true).map_err(|e| failed(path, &e)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(path, &error)),
    }
}

fn remove_tree(path: &Path) -> Result<(), String> {
    let removed = match path.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(path, &error)),
        _ => Ok(()),
    }
}

/// Returns the content of a file of this command, or `None` without a file. The error names a
/// file of a package or of an administrator.
fn own_content(path: &Path) -> Result<Option<String>, String> {
    let shown = path.display();
    match fs::read_to_string(path) {
        Ok(content) if content.lines().take(2).any(|line| line.starts_with(MARK)) => {
            Ok(Some(content))
        }
        Ok(_) => Err(format!(
            "{shown} was not made by this command: it belongs to a package or to an \
             administrator; use that service, or give another --name"
        )),
        Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => Ok(None),
        Err(error) => Err(format!("{shown} cannot be read: {error}")),
    }
}

/// A name that no init system starts.
fn beside_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

fn failed(path: &Path, error: &io::Error) -> String {
    let remedy = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; make room there",
        ErrorKind::ReadOnlyFilesystem => "; mount it writable, or write an image with --root",
        ErrorKind::PermissionDenied => "; this needs root",
        _ => "",
    };
    format!("{} cannot be changed: {error}{remedy}", path.display())
}
