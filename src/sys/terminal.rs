//! The terminal of a screen: its size, acquiring and releasing it, and its signals. There is
//! one for the process. The caller decides what is drawn.
//!
//! Releasing must work in a signal handler and in a panic. So the terminal's descriptor, its
//! attributes and the bytes that restore it are in a static that is written once.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::eventfd::{EventFd, SignalEvent};
use super::sync::Mutex;
use super::{poll, sigaction};
use crate::features;

/// Time that a write waits for a terminal that accepts no bytes.
const PATIENCE: Duration = Duration::from_millis(500);
/// The same for the bytes that restore the terminal.
const LEAVE_PATIENCE: Duration = Duration::from_millis(200);

/// State that is needed to release the terminal.
struct Terminal {
    tty: File,
    attributes: libc::termios,
    enter: &'static [u8],
    leave: &'static [u8],
}

static TERMINAL: OnceLock<Terminal> = OnceLock::new();
static HELD: AtomicBool = AtomicBool::new(false);
/// Whether the terminal was released for good.
static ENDED: AtomicBool = AtomicBool::new(false);
/// Held while the terminal is written to, acquired or released, except by a signal handler.
/// Above the log's lock in rank.
static DRAWING: Mutex<()> = Mutex::new(());

static EVENT: SignalEvent = SignalEvent::new();
/// Whether single characters are read, and not only lines.
static KEYS: AtomicBool = AtomicBool::new(false);
static STOP: AtomicBool = AtomicBool::new(false);
static RESUMED: AtomicBool = AtomicBool::new(false);

/// Opens the terminal at standard output, to be acquired with `enter` and released with
/// `leave`. Called once. Fails if this process is not in the terminal's foreground: for example
/// on an unused system console, or as a background job.
pub fn open(enter: &'static [u8], leave: &'static [u8]) -> io::Result<()> {
    // A file description of this process: only its own writes do not block.
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let tty = options.open("/proc/self/fd/1").or_else(|_| options.open("/dev/tty"))?;
    if !in_foreground(tty.as_raw_fd()) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut attributes = std::mem::MaybeUninit::<libc::termios>::zeroed();
    // SAFETY: a writable termios; all-zero is a valid one.
    let attributes = unsafe {
        if libc::tcgetattr(tty.as_raw_fd(), attributes.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        attributes.assume_init()
    };
    let terminal = Terminal { tty, attributes, enter, leave };
    TERMINAL.set(terminal).map_err(|_| io::ErrorKind::AlreadyExists.into())
}

fn in_foreground(fd: RawFd) -> bool {
    // SAFETY: plain numbers.
    unsafe { libc::tcgetpgrp(fd) == libc::getpgrp() }
}

/// Returns columns and rows.
pub fn size() -> Option<(usize, usize)> {
    let fd = TERMINAL.get()?.tty.as_raw_fd();
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request writes one winsize.
    let failed = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ as _, &raw mut size) } != 0;
    (!failed && size.ws_row > 0 && size.ws_col > 0)
        .then(|| (size.ws_col.into(), size.ws_row.into()))
}

/// Acquires the terminal: typed characters are not displayed, but Ctrl+C and Ctrl+Z keep their
/// effect. Returns false if another job has it at the moment, or if it was released for good.
pub fn take() -> bool {
    let Some(terminal) = TERMINAL.get() else { return false };
    let _drawing = DRAWING.lock();
    let fd = terminal.tty.as_raw_fd();
    if ENDED.load(Ordering::SeqCst) || !in_foreground(fd) {
        return false;
    }
    let mut quiet = terminal.attributes;
    quiet.c_lflag &= !libc::ECHO;
    if KEYS.load(Ordering::SeqCst) {
        quiet.c_lflag &= !libc::ICANON;
        quiet.c_cc[libc::VMIN] = 1;
        quiet.c_cc[libc::VTIME] = 0;
    }
    // After Ctrl+S the terminal would accept no bytes, not even those that restore it.
    quiet.c_iflag &= !libc::IXON;
    HELD.store(true, Ordering::SeqCst);
    set(fd, &quiet);
    let taken = put(terminal, terminal.enter);
    if !taken {
        // The screen must not be drawn over other text.
        leave();
    }
    taken
}

/// Makes the next [`take`] deliver single characters. Returns whether the terminal can be read.
pub fn read_keys() -> bool {
    KEYS.store(TERMINAL.get().is_some(), Ordering::SeqCst);
    KEYS.load(Ordering::SeqCst)
}

/// Returns the terminal's descriptor, to wait for characters; -1 without a terminal.
pub fn fd() -> RawFd {
    TERMINAL.get().map_or(-1, |terminal| terminal.tty.as_raw_fd())
}

/// Reads typed characters without waiting. `None`: the terminal has disconnected.
pub fn read(into: &mut [u8]) -> Option<usize> {
    match (&TERMINAL.get()?.tty).read(into) {
        Ok(0) => None,
        Ok(n) => Some(n),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Some(0)
        }
        Err(_) => None,
    }
}

/// Returns whether a screen is open, even if another job has the terminal now.
pub fn is_open() -> bool {
    features::CONSOLE && TERMINAL.get().is_some() && !ENDED.load(Ordering::SeqCst)
}

/// Returns whether this process has the terminal now.
pub fn is_held() -> bool {
    HELD.load(Ordering::SeqCst)
}

/// Writes to the terminal if this process has it. Returns false if bytes are left.
pub fn draw(bytes: &[u8]) -> bool {
    let Some(terminal) = TERMINAL.get() else { return false };
    let _drawing = DRAWING.lock();
    is_held() && put(terminal, bytes)
}

fn put(terminal: &Terminal, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match (&terminal.tty).write(bytes) {
            Ok(0) => return false,
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // A slow line, or a terminal that is not read.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if !poll::writable(&terminal.tty, Some(PATIENCE)).unwrap_or(false) {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    true
}

/// Releases the terminal for good, if it was acquired. Text may follow.
pub fn give_back() {
    if !features::CONSOLE {
        return;
    }
    let _drawing = DRAWING.lock();
    ENDED.store(true, Ordering::SeqCst);
    leave();
}

/// Releases the terminal at once, also in a signal handler or a panic.
pub fn leave() {
    if !features::CONSOLE || !HELD.swap(false, Ordering::SeqCst) {
        return;
    }
    let Some(terminal) = TERMINAL.get() else { return };
    let fd = terminal.tty.as_raw_fd();
    let mut bytes = terminal.leave;
    // SAFETY: write(2), poll(2), tcsetattr(3) and tcflush(3) may be called in a handler;
    // the pointers are to live values.
    unsafe {
        // A terminal that has disconnected is always ready and accepts nothing: bounded
        // attempts.
        for _ in 0..4 {
            let n = libc::write(fd, bytes.as_ptr().cast(), bytes.len());
            bytes = bytes.get(usize::try_from(n).unwrap_or(0)..).unwrap_or_default();
            if bytes.is_empty() || !poll::writable(&fd, Some(LEAVE_PATIENCE)).unwrap_or(false) {
                break;
            }
        }
        // Characters typed at the screen are not for the shell.
        libc::tcflush(fd, libc::TCIFLUSH);
    }
    set(fd, &terminal.attributes);
}

/// Maximum number of attempts to set attributes.
const MAX_TRIES: u32 = 4;

/// Sets attributes. A failed call is repeated: a shell without echo is hard to use.
fn set(fd: RawFd, attributes: &libc::termios) {
    for _ in 0..MAX_TRIES {
        // SAFETY: a valid termios. May be called in a handler.
        if unsafe { libc::tcsetattr(fd, libc::TCSANOW, attributes) } == 0 {
            break;
        }
    }
}

extern "C" fn on_signal(signal: libc::c_int) {
    match signal {
        libc::SIGTSTP => STOP.store(true, Ordering::SeqCst),
        libc::SIGCONT => RESUMED.store(true, Ordering::SeqCst),
        _ => {}
    }
    EVENT.notify();
}

/// Installs handlers for SIGWINCH, SIGTSTP and SIGCONT, and returns the event that they notify.
pub fn watch() -> io::Result<&'static EventFd> {
    let event = EVENT.get()?;
    sigaction::install(libc::SIGWINCH, on_signal);
    sigaction::install(libc::SIGCONT, on_signal);
    // A shell without job control ignores this signal for its children, and so does this
    // program.
    sigaction::install_unless_ignored(libc::SIGTSTP, on_signal);
    Ok(event)
}

/// Returns whether a stop (Ctrl+Z) was requested since the last call.
pub fn take_stop() -> bool {
    STOP.swap(false, Ordering::SeqCst)
}

/// Returns whether the process continued after a stop since the last call.
pub fn take_resumed() -> bool {
    RESUMED.swap(false, Ordering::SeqCst)
}

/// Stops the process, as Ctrl+Z requests, until it is continued.
pub fn stop() {
    // SAFETY: a plain number. Sent to this thread, which stops here: a signal for the process
    // may reach another thread later, after the screen has acquired the terminal again.
    unsafe { libc::raise(libc::SIGSTOP) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// The stopping thread must do nothing before it is continued, least of all with the
    /// terminal.
    #[test]
    fn a_thread_that_stops_the_process_gets_no_further() {
        let seen = std::env::temp_dir().join(format!("culvert-stopped-{}", std::process::id()));
        let script = "until grep -q '^State:.T' /proc/$1/status; do :; done; : >\"$2\"; \
                      kill -CONT $1";
        // A thread that gets a little further does not do so each time.
        for _ in 0..10 {
            let mut other = Command::new("sh")
                .args(["-c", script, "sh", &std::process::id().to_string()])
                .arg(&seen)
                .spawn()
                .unwrap();
            let look = seen.clone();
            let stopping = std::thread::spawn(move || {
                stop();
                look.exists()
            });
            assert!(stopping.join().unwrap());
            assert!(other.wait().unwrap().success());
            std::fs::remove_file(&seen).unwrap();
        }
    }
}
