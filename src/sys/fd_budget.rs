//! The table of open files, with an end that not every thread reaches: as if the kernel
//! kept `RLIMIT_NOFILE` for each of them.
//!
//! The kernel gives the lowest number that is free. So who gets one of the last `n`
//! knows that all others are taken, whoever has them, and gives it back: `n` numbers
//! are left for others at any time, whatever else is open, leaked or inherited, and
//! nobody has to count. The limit is asked for each time; it may be changed from outside.
//!
//! When it is the machine that has no files left (`ENFILE`) there is nothing to keep:
//! what one process gave up another one would have.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::eventfd::EventFd;
use super::sync::Mutex;
use crate::features;

/// Numbers that visitors leave to clients of the local API, besides those that
/// [`keep`] keeps for the agent itself.
pub const WEB_RESERVE: usize = if features::WEB { 2 } else { 0 };

/// Numbers at the end of the table for threads that have not said that they yield.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// Held from opening to giving back, so that one number at most is in wrong hands.
static TURN: Mutex<()> = Mutex::new(());

thread_local! {
    /// How many numbers more this thread leaves alone; `None`: it may have them all.
    static YIELDS: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Keeps so many numbers for the threads that do not yield.
pub fn keep(count: usize) {
    KEPT.store(count, Ordering::Relaxed);
}

/// From now on this thread leaves alone what is kept, and `more` besides.
pub fn yield_to_others(more: usize) {
    YIELDS.set(Some(more));
}

/// The highest number of files that may be open, now.
pub fn limit() -> usize {
    limits().map_or(1024, |limit| usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
}

/// Raises it as far as it may be raised. Returns what it is then.
pub fn raise_limit() -> usize {
    if let Some(limit) = limits() {
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        // SAFETY: the pointer is to a live struct. Where it fails the limit stays.
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

/// Opens something, unless that takes what this thread leaves to others.
pub fn open<T: AsRawFd>(open: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if YIELDS.get().is_none() {
        return open();
    }
    let _turn = TURN.lock();
    let file = open()?;
    // Closed under the lock if it has to be.
    check(&file).map(|()| file)
}

/// A place in the table for what a library opens by itself, as long as it is held.
pub fn place() -> io::Result<EventFd> {
    open(EventFd::new)
}

/// Fails as opening fails when nothing is left, if this was taken from others.
pub fn check(file: &impl AsRawFd) -> io::Result<()> {
    match YIELDS.get() {
        Some(more) if is_kept(file, more) => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        _ => Ok(()),
    }
}

/// Whether this is one of the numbers that are kept, with `more` besides.
pub fn is_kept(file: &dyn AsRawFd, more: usize) -> bool {
    is_among_last(file.as_raw_fd(), limit(), KEPT.load(Ordering::Relaxed).saturating_add(more))
}

fn is_among_last(fd: RawFd, limit: usize, count: usize) -> bool {
    usize::try_from(fd).is_ok_and(|fd| fd >= limit.saturating_sub(count))
}

/// Whether a call failed because this process, or the machine, may open no more files,
/// or has no memory for them.
pub fn is_exhausted(error: &io::Error) -> bool {
    let codes = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// An error in words, with what to do about it where this process has no file left.
pub fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EMFILE) => format!(
            "{error}: {} at a time are allowed, allow more (ulimit -n; LimitNOFILE= of systemd)",
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
