//! Signals as flags and an event. A handler sets its flag and notifies the event. The thread
//! that waits for the event decides. Signals of a screen are in `terminal`.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::eventfd::{EventFd, SignalEvent};
use super::sigaction::{self, SignalHandler};

static STOPS: AtomicUsize = AtomicUsize::new(0);
static RELOAD: AtomicBool = AtomicBool::new(false);
static HURRY: AtomicBool = AtomicBool::new(false);
static GRACEFUL: AtomicBool = AtomicBool::new(false);
static EVENT: SignalEvent = SignalEvent::new();

extern "C" fn on_stop(_signal: libc::c_int) {
    let before = STOPS.fetch_add(1, Ordering::Relaxed);
    if before > 0 || !GRACEFUL.load(Ordering::Relaxed) {
        super::terminal::leave();
        // SAFETY: _exit(2) may be called in a handler.
        unsafe { libc::_exit(if before > 0 { EXIT_FORCED } else { 0 }) };
    }
    EVENT.notify();
}

extern "C" fn on_hangup(_signal: libc::c_int) {
    RELOAD.store(true, Ordering::Relaxed);
    EVENT.notify();
}

extern "C" fn on_user(_signal: libc::c_int) {
    HURRY.store(true, Ordering::Relaxed);
    EVENT.notify();
}

/// Installs handlers for SIGTERM, SIGINT, SIGUSR1 and SIGHUP, ignores SIGPIPE, and returns the
/// event that the handlers notify. Called once, before threads start; later calls return the
/// same event.
pub fn install() -> io::Result<&'static EventFd> {
    let event = EVENT.get()?;
    sigaction::install(libc::SIGTERM, on_stop);
    sigaction::install(libc::SIGINT, on_stop);
    sigaction::install(libc::SIGUSR1, on_user);
    // SAFETY: SIG_IGN is an action of the system.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    // A closed terminal ends its program, unless nohup prevents it. A service has no terminal:
    // it reloads its files on this signal.
    let hangup: SignalHandler = if io::stdin().is_terminal() { on_stop } else { on_hangup };
    sigaction::install_unless_ignored(libc::SIGHUP, hangup);
    Ok(event)
}

/// Exit code of a program that a second signal ended before its work was done.
pub const EXIT_FORCED: i32 = 1;

/// Sets whether the first signal only notifies the event, because the program has to end in
/// order. Otherwise, and at the second signal, the program ends at once.
pub fn graceful(on: bool) {
    GRACEFUL.store(on, Ordering::Relaxed);
}

/// Returns how many stop signals have arrived.
pub fn stops() -> usize {
    STOPS.load(Ordering::Relaxed)
}

/// Returns whether a reload signal has arrived since the last call.
pub fn take_reload() -> bool {
    RELOAD.swap(false, Ordering::Relaxed)
}

/// Returns whether a signal to reconnect at once has arrived since the last call.
pub fn take_hurry() -> bool {
    HURRY.swap(false, Ordering::Relaxed)
}
