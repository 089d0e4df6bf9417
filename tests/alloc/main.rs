//! Allocations on the heap: paths that run for each frame or request allocate nothing once
//! they are warm. One binary, since a program has one allocator.

mod counting;
#[cfg(feature = "inspect")]
mod inspection;
mod mux;
