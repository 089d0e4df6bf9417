//! Program files that a test writes and that are then executed.
//!
//! A child process writes them. A thread of the test that starts another program at the same
//! time would inherit the open file, and the kernel refuses to execute a file that is open for
//! writing.

use std::path::Path;
use std::process::{Command, Stdio};

/// Copies a program, over an existing one if there is one.
pub fn copy(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let (from, to) = (from.as_ref(), to.as_ref());
    let status = Command::new("cp").arg(from).arg(to).status().expect("cp starts");
    assert!(status.success(), "cp {} {}: {status}", from.display(), to.display());
}

/// Writes an executable file, for example a script.
pub fn write(to: impl AsRef<Path>, text: &str) {
    let to = to.as_ref();
    let status = Command::new("sh")
        .args(["-c", "printf %s \"$2\" >\"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(to)
        .arg(text)
        .stdin(Stdio::null())
        .status()
        .expect("sh starts");
    assert!(status.success(), "sh writes {}: {status}", to.display());
}
