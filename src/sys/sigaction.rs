//! `sigaction(2)`: installs signal handlers. The handlers are in the files that install them.

/// A signal handler. It may store to atomics, notify a `SignalEvent`, and call
/// async-signal-safe functions only.
pub(super) type SignalHandler = extern "C" fn(libc::c_int);

/// Installs `handler` for a signal.
pub(super) fn install(signal: libc::c_int, handler: SignalHandler) {
    // SAFETY: an all-zero action is valid, and so is its pointer; the handler is
    // async-signal-safe (see `SignalHandler`).
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
}

/// Installs `handler`, unless the process was started with the signal ignored (`nohup`, a shell
/// without job control).
pub(super) fn install_unless_ignored(signal: libc::c_int, handler: SignalHandler) {
    // SAFETY: an all-zero action is valid, and so is its pointer.
    let before = unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut before);
        before.sa_sigaction
    };
    if before != libc::SIG_IGN {
        install(signal, handler);
    }
}
