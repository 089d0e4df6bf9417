//! Identity and permissions of this process.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::child::CStrings;

/// Excludes the process's memory and environment, which contain credentials, from core files
/// and from access by other processes of the same user, and prevents that child processes gain
/// privileges. A debug build stays open to debuggers and tests. Best effort.
pub fn protect_memory() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain numbers and a pointer to a live struct.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        if !cfg!(debug_assertions) {
            libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        }
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    }
}

/// Returns the user of this process.
pub fn own_uid() -> u32 {
    // SAFETY: no pointers, and it cannot fail.
    unsafe { libc::geteuid() }
}

/// Gives up the rights of root: continues as this user with these groups, of which the first is
/// the primary one. Must be called while there is one thread.
pub fn become_user(uid: u32, groups: &[u32]) -> io::Result<()> {
    let primary = groups.first().copied().unwrap_or(uid);
    let done = |result: libc::c_int| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: the list lives until the call returns, and its length is given.
    done(unsafe { libc::setgroups(groups.len() as _, groups.as_ptr()) })?;
    // SAFETY: plain numbers.
    done(unsafe { libc::setgid(primary) })?;
    // SAFETY: plain numbers.
    done(unsafe { libc::setuid(uid) })
}

/// Replaces this process's program by `program`, with the same environment. `arguments` begin
/// with the program's name. Returns only on failure. `std::process::Command` would add 10 KB of
/// code, most of it for options.
pub fn exec(program: &Path, arguments: &[OsString]) -> io::Error {
    let words: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    let strings = (CString::new(program.as_os_str().as_bytes()), CStrings::new(&words));
    // Arguments of a process contain no zero byte.
    let (Ok(path), Ok(words)) = strings else { return io::ErrorKind::InvalidInput.into() };
    // The standard library ignores SIGPIPE, and another program would inherit that.
    // SAFETY: plain numbers.
    let ignored = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // SAFETY: all strings end with a zero byte, the list with a null pointer, and both live
    // until the call returns.
    unsafe { libc::execv(path.as_ptr(), words.pointers().cast()) };
    let error = io::Error::last_os_error();
    // SAFETY: the handler is that of before.
    unsafe { libc::signal(libc::SIGPIPE, ignored) };
    error
}
