//! Reserve at the end of the table of open files, which some threads may not use, as if the
//! kernel had an `RLIMIT_NOFILE` for each thread.
//!
//! The kernel returns the lowest free number. A thread that gets one of the last `n` numbers
//! knows that all others are in use, by any owner, and closes it. So `n` numbers are left for
//! others at any time, with any number of open, leaked or inherited files, and without
//! counting. The limit is read each time, because it may be changed from outside.
//!
//! When the machine has no files left (`ENFILE`) a reserve is not possible: another process
//! would use it.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::eventfd::EventFd;
use super::sync::Mutex;
use crate::features;

/// Numbers that visitors leave to clients of the local API, in addition to those that [`keep`]
/// reserves for the agent itself.
pub const WEB_RESERVE: usize = if features::WEB { 2 } else { 0 };

/// Number of reserved numbers at the end of the table, for threads that do not yield.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// Held from opening to closing, so that at most one reserved number is in use by mistake.
static TURN: Mutex<()> = Mutex::new(());

thread_local! {
    /// Further numbers that this thread does not use; `None`: it may use all.
    static YIELDS: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Reserves `count` numbers for the threads that do not yield.
pub fn keep(count: usize) {
    KEPT.store(count, Ordering::Relaxed);
}

/// Makes this thread leave the reserve free, and `more` further numbers.
pub fn yield_to_others(more: usize) {
    YIELDS.set(Some(more));
}

/// Returns the current limit of open files.
pub fn limit() -> usize {
    limits().map_or(1024, |limit| usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
}

/// Raises the limit as far as possible. Returns the new limit.
pub fn raise_limit() -> usize {
    if let Some(limit) = limits() {
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        // SAFETY: the pointer is to a live struct. After a failure the limit stays.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) };
    }
    limit()
}

fn limits() -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live, writable struct.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0;
    done.then_some(limit)
}

/// Opens a file, unless its number is one that this thread leaves to others.
pub fn open<T: AsRawFd>(open: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if YIELDS.get().is_none() {
        return open();
    }
    let _turn = TURN.lock();
    let file = open()?;
    // If it must be closed, this happens under the lock.
    check(&file).map(|()| file)
}

/// Returns a descriptor that holds a number for a library, which opens a file by itself.
pub fn place() -> io::Result<EventFd> {
    open(EventFd::new)
}

/// Fails like an exhausted table if the number of this file is reserved for others.
pub fn check(file: &impl AsRawFd) -> io::Result<()> {
    match YIELDS.get() {
        Some(more) if is_kept(file, more) => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        _ => Ok(()),
    }
}

/// Returns whether the number of this file is in the reserve or one of `more` further ones.
pub fn is_kept(file: &dyn AsRawFd, more: usize) -> bool {
    is_among_last(file.as_raw_fd(), limit(), KEPT.load(Ordering::Relaxed).saturating_add(more))
}

fn is_among_last(fd: RawFd, limit: usize, count: usize) -> bool {
    usize::try_from(fd).is_ok_and(|fd| fd >= limit.saturating_sub(count))
}

/// Returns whether a call failed because this process or the machine cannot open more files, or
/// has no memory for them.
pub fn is_exhausted(error: &io::Error) -> bool {
    let codes = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// Returns the text of an error, with what to do if this process has no file left.
pub fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EMFILE) => format!(
            "{error}: the limit is {}; raise it (ulimit -n; LimitNOFILE= of systemd)",
            limit()
        ),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::thread;

    #[test]
    fn the_last_numbers_are_left() {
        assert!(!is_among_last(21, 32, 10));
        assert!(is_among_last(22, 32, 10));
        assert!(is_among_last(0, 8, 10), "a table of nothing but what is kept");
        assert!(!is_among_last(i32::MAX - 1, usize::MAX, 10));
    }

    #[test]
    fn a_thread_that_yields_gets_nothing_where_another_one_does() {
        let take = || open(|| File::open("/dev/null"));
        thread::spawn(move || {
            yield_to_others(0);
            assert!(take().is_ok());
            // As if the table were full up to here.
            yield_to_others(limit());
            let e = take().unwrap_err();
            assert!(is_exhausted(&e) && e.raw_os_error() == Some(libc::EMFILE), "{e}");
            thread::spawn(move || take().unwrap()).join().unwrap();
        })
        .join()
        .unwrap();
    }
}
