//! The door to the system: every call that the standard library has no safe
//! function for, each behind a safe one. The only place for `libc`, `unsafe`
//! and `cfg(target_…)`. No policy here: what to do about an error is the
//! caller's business.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::time::Instant;

// MIPS has numbers of its own for sockets, errors and flags. `libc` once took those of
// other machines for its 64-bit kind: options of sockets were then refused, or others.
const _: () = {
    let mips = cfg!(any(target_arch = "mips", target_arch = "mips64"));
    let right = libc::SOL_SOCKET == if mips { 0xffff } else { 1 }
        && libc::SO_REUSEADDR == if mips { 4 } else { 2 }
        && libc::SO_KEEPALIVE == if mips { 8 } else { 9 }
        && libc::SO_LINGER == if mips { 0x80 } else { 13 }
        && libc::SOCK_NONBLOCK == if mips { 0o200 } else { 0o4000 }
        && libc::EINPROGRESS == if mips { 150 } else { 115 };
    assert!(right, "this version of the crate libc has another machine's numbers of sockets");
};

pub mod alloc;
pub mod argv;
pub mod console;
pub mod eventfd;
pub mod fd_budget;
#[cfg(feature = "inspect")]
pub mod memory;
pub mod netlink;
pub mod page_cache;
pub mod poll;
pub mod sd_notify;
mod sigaction;
pub mod sigaltstack;
pub mod signals;
pub mod socket;
pub mod sync;
#[cfg(feature = "console")]
pub mod terminal;
pub mod threads;

/// The time now. Counts the time that the machine was asleep (`CLOCK_BOOTTIME`),
/// so that a link that died during a suspend is found on waking up; falls back
/// to `CLOCK_MONOTONIC` on kernels without it.
pub fn clock() -> Instant {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid, writable timespec for the duration of the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut ts) } != 0;
    if failed {
        // SAFETY: as above. CLOCK_MONOTONIC exists on every Linux.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    }
    // The casts widen: both fields are non-negative for these clocks.
    #[allow(clippy::unnecessary_cast)]
    Instant::from_micros(ts.tv_sec as u64 * 1_000_000 + ts.tv_nsec as u64 / 1_000)
}

/// The time that the machine was awake, on the scale of [`clock`].
pub fn awake() -> Instant {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid, writable timespec for the duration of the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    // The casts widen: both fields are non-negative for this clock.
    #[allow(clippy::unnecessary_cast)]
    Instant::from_micros(ts.tv_sec as u64 * 1_000_000 + ts.tv_nsec as u64 / 1_000)
}

fn check(n: isize) -> io::Result<usize> {
    // Negative means errno; anything else is a count.
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Sends what fits without blocking, without SIGPIPE. `Interrupted` is retried.
pub fn send_now(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the pointer and length describe `bytes`, which outlives the call.
        let n = unsafe {
            libc::send(
                fd,
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        match check(n) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => return other,
        }
    }
}

/// Receives what is there without blocking. 0 is the end. `Interrupted` is retried.
pub fn recv_now(fd: RawFd, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the pointer and length describe `buf`, writable during the call.
        let n = unsafe { libc::recv(fd, buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT) };
        match check(n) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => return other,
        }
    }
}

/// Receives into several places, filled in order, what is there without blocking.
/// 0 is the end. `Interrupted` is retried.
pub fn recv_into(fd: RawFd, places: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
    // SAFETY: all-zero is a valid msghdr: no name, no control, no places.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // IoSliceMut is an iovec by its documentation.
    message.msg_iov = places.as_mut_ptr().cast();
    message.msg_iovlen = places.len() as _;
    loop {
        // SAFETY: `message` describes `places`, writable during the call.
        let n = unsafe { libc::recvmsg(fd, &mut message, libc::MSG_DONTWAIT) };
        match check(n) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => return other,
        }
    }
}

fn set_option(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the pointer is to a live c_int and the length is its size.
    let n = unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Bounds the bytes that wait unsent in the kernel, so that a heartbeat never
/// stands behind seconds of bulk data on a slow link. Best effort.
pub fn limit_unsent(fd: RawFd, bytes: i32) {
    let _ = set_option(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes);
}

/// Lets the kernel probe an idle connection and give up on one whose sent bytes
/// nobody acknowledges for `timeout`. Best effort.
pub fn keep_alive(fd: RawFd, timeout: Duration) {
    let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
    let ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let _ = set_option(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, ms);
}

/// Makes the close of a socket a reset instead of an orderly end. Best effort.
pub fn reset_on_close(fd: RawFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the pointer is to a live struct and the length is its size.
    unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
}

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

/// Random bytes from the kernel: a seed for what must not be guessed twice.
pub fn random_seed() -> u64 {
    let mut bytes = [0u8; 8];
    // ring asks getrandom(2), with its own fallback for old kernels.
    let rng = ring::rand::SystemRandom::new();
    if ring::rand::SecureRandom::fill(&rng, &mut bytes).is_err() {
        return clock().as_micros();
    }
    u64::from_le_bytes(bytes)
}

/// Whether this processor has AES instructions: without them ChaCha20 is faster.
pub fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// The system's word for this machine in Go's names, which the protocol uses
/// (protocol 5.4).
pub fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "mips" if cfg!(target_endian = "little") => "mipsle",
        "mips64" if cfg!(target_endian = "little") => "mips64le",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        "powerpc" => "ppc",
        other => other,
    }
}
