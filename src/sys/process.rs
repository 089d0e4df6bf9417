//! Identity and permissions of this process.

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
