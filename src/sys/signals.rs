//! Signals as flags and a bell. The handler stores and rings; whoever waits for
//! the bell decides.

use std::io::{self, IsTerminal};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use super::Bell;

static STOPS: AtomicUsize = AtomicUsize::new(0);
static RELOAD: AtomicBool = AtomicBool::new(false);
static HURRY: AtomicBool = AtomicBool::new(false);
static GRACEFUL: AtomicBool = AtomicBool::new(false);
static BELL: SignalBell = SignalBell::new();

extern "C" fn on_stop(_signal: libc::c_int) {
    let before = STOPS.fetch_add(1, Ordering::Relaxed);
    if before > 0 || !GRACEFUL.load(Ordering::Relaxed) {
        #[cfg(feature = "console")]
        super::terminal::leave();
        // SAFETY: _exit(2) may be called in a handler.
        unsafe { libc::_exit(if before > 0 { EXIT_FORCED } else { 0 }) };
    }
    BELL.ring();
}

extern "C" fn on_hangup(_signal: libc::c_int) {
    RELOAD.store(true, Ordering::Relaxed);
    BELL.ring();
}

extern "C" fn on_user(_signal: libc::c_int) {
    HURRY.store(true, Ordering::Relaxed);
    BELL.ring();
}

/// A bell that handlers of signals ring.
pub(super) struct SignalBell {
    /// The bell's descriptor: all that a handler may look at. -1 before there is one.
    fd: AtomicI32,
    bell: OnceLock<Bell>,
}

impl SignalBell {
    pub(super) const fn new() -> Self {
        SignalBell { fd: AtomicI32::new(-1), bell: OnceLock::new() }
    }

    /// The bell, made by the first call.
    pub(super) fn get(&'static self) -> io::Result<&'static Bell> {
        if self.bell.get().is_none() {
            let _ = self.bell.set(Bell::new()?);
        }
        // Reason: set by the line above, in this thread or another.
        let bell = self.bell.get().ok_or_else(|| io::Error::other("no bell"))?;
        self.fd.store(bell.as_raw_fd(), Ordering::Relaxed);
        Ok(bell)
    }

    /// Rings. For handlers: it writes to the bell and nothing else.
    pub(super) fn ring(&self) {
        let fd: RawFd = self.fd.load(Ordering::Relaxed);
        // SAFETY: errno is this thread's, and is saved so that the interrupted code does
        // not see this call's.
        unsafe {
            let errno = libc::__errno_location();
            let saved = *errno;
            super::ring(fd);
            *errno = saved;
        }
    }
}

/// What is called when a signal comes: it may store and ring, and no more.
pub(super) type Caught = extern "C" fn(libc::c_int);

/// Has `caught` called for a signal.
pub(super) fn catch(signal: libc::c_int, caught: Caught) {
    // SAFETY: an all-zero action is valid, and so is its pointer; what is called is
    // async-signal-safe (see `Caught`).
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = caught as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
}

/// The same, unless whoever started the program had the signal ignored.
pub(super) fn catch_unless_ignored(signal: libc::c_int, caught: Caught) {
    // SAFETY: an all-zero action is valid, and so is its pointer.
    let before = unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut before);
        before.sa_sigaction
    };
    if before != libc::SIG_IGN {
        catch(signal, caught);
    }
}

/// Catches SIGTERM and SIGINT, SIGUSR1, and SIGHUP, ignores SIGPIPE, and returns the
/// bell that rings.
/// Call once, before threads start; later calls return the same bell.
pub fn install() -> io::Result<&'static Bell> {
    let bell = BELL.get()?;
    catch(libc::SIGTERM, on_stop);
    catch(libc::SIGINT, on_stop);
    catch(libc::SIGUSR1, on_user);
    // SAFETY: the system's own way to ignore it.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    // A terminal that closes takes its program along, unless nohup said no. A service
    // has no terminal: for it the signal means to read its files again.
    let hangup: Caught = if io::stdin().is_terminal() { on_stop } else { on_hangup };
    catch_unless_ignored(libc::SIGHUP, hangup);
    Ok(bell)
}

/// The status of a program that a second signal ended before its work was done.
pub const EXIT_FORCED: i32 = 1;

/// Whether a first signal only rings the bell, because there is something to end in
/// order. Otherwise, and at the second signal, the program ends at once.
pub fn graceful(on: bool) {
    GRACEFUL.store(on, Ordering::Relaxed);
}

/// How many times the process has been asked to stop.
pub fn stops() -> usize {
    STOPS.load(Ordering::Relaxed)
}

/// Whether the process has been asked to read its files again since the last look.
pub fn take_reload() -> bool {
    RELOAD.swap(false, Ordering::Relaxed)
}

/// Whether the process has been asked not to wait since the last look.
pub fn take_hurry() -> bool {
    HURRY.swap(false, Ordering::Relaxed)
}
