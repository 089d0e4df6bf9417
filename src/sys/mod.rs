//! System calls without a safe function in the standard library, each behind a safe one. The
//! only place for `libc`, `unsafe` and `cfg(target_…)`. Policy does not belong here: the caller
//! decides what an error means.

#![allow(unsafe_code)]

pub mod alloc;
pub mod argv;
pub mod child;
mod clock;
pub mod console;
mod cpu;
mod errno;
pub mod eventfd;
pub mod fd_budget;
pub mod file_mode;
pub mod heap;
mod interfaces;
pub mod memory;
pub mod netlink;
pub mod page_cache;
pub mod poll;
pub mod private_file;
mod process;
mod random;
pub mod sd_notify;
mod sigaction;
pub mod sigaltstack;
pub mod signals;
pub mod socket;
mod socket_io;
mod socket_options;
pub mod storage;
pub mod sync;
mod target;
pub mod terminal;
pub mod threads;

pub use clock::{awake, clock, thread_time};
pub use cpu::{go_arch, has_aes};
pub use interfaces::{NetworkInterface, interfaces};
pub use process::{become_user, exec, own_uid, protect_memory};
pub use random::random_seed;
pub use socket_io::{NonBlocking, recv_into, recv_now, send_now, send_parts};
pub use socket_options::{keep_alive, limit_unsent, probe_idle, reset_on_close};
pub use target::target;
