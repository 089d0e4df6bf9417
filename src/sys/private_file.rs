//! Files and directories that no other user can change.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::process::own_uid;

/// Write permissions of the group and of others.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Creates a file that does not exist, with these permissions. Follows no link.
pub fn create(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode).custom_flags(libc::O_NOFOLLOW);
    options.open(path)
}

/// Opens a regular file for reading, if no other user can change it. Follows no link.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Without O_NONBLOCK the open of a FIFO would wait for its writer.
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path).map_err(|e| match e.raw_os_error() {
        Some(libc::ELOOP) => refused("it is a symbolic link. Replace it by the file".to_owned()),
        _ => e,
    })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(refused("it is not a regular file".to_owned()));
    }
    check(&metadata)?;
    Ok(file)
}

/// Checks that no other user can change a file or a directory. The error contains the reason
/// and a remedy.
pub fn check(metadata: &Metadata) -> io::Result<()> {
    match fault(metadata.uid(), metadata.mode(), own_uid()) {
        None => Ok(()),
        Some(text) => Err(refused(text)),
    }
}

fn refused(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

fn fault(owner: u32, mode: u32, own: u32) -> Option<String> {
    if owner != own && owner != 0 {
        return Some(format!(
            "user {owner} owns it, and this program runs as user {own}. Use chown, or run as its \
             owner"
        ));
    }
    (mode & WRITABLE_BY_OTHERS != 0).then(|| {
        let mode = mode & 0o7777;
        format!("other users may change it (mode {mode:o}). Use chmod go-w")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_may_change_is_refused() {
        for (owner, mode, own, expected) in [
            (1000, 0o100600, 1000, ""),
            (1000, 0o40755, 1000, ""),
            (0, 0o100644, 1000, ""),
            (1001, 0o40700, 1000, "user 1001 owns it"),
            (1001, 0o40700, 0, "user 1001 owns it"),
            (1000, 0o40777, 1000, "mode 777"),
            (0, 0o100620, 1000, "mode 620"),
        ] {
            let found = fault(owner, mode, own).unwrap_or_default();
            assert!(found.contains(expected), "{found}");
            assert_eq!(found.is_empty(), expected.is_empty(), "{found}");
        }
    }
}
