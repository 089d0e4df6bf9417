//! What this process is and may do.

/// Keeps the process's memory and environment, which hold credentials, out of core
/// files and away from other processes of the same user, and lets nothing that it
/// runs gain privileges. A debug build stays open to debuggers and to tests that look
/// at it. Best effort.
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

/// The user that this process is.
pub fn own_uid() -> u32 {
    // SAFETY: no pointers, and it cannot fail.
    unsafe { libc::geteuid() }
}
