//! The door to the system: the only place for `libc` and `unsafe`.

pub mod console;
