//! Read permissions of files with secrets. Whether other users can change a file belongs to
//! `private_file`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Read permission of users that are neither the owner nor in the group.
const READABLE_BY_ALL: u32 = 0o004;

/// Returns the mode of the file at `path` if every user may read it.
pub fn public_mode(path: &Path) -> Option<u32> {
    let mode = fs::metadata(path).ok()?.mode() & 0o7777;
    (mode & READABLE_BY_ALL != 0).then_some(mode)
}
