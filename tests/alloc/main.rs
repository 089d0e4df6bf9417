//! Heap allocations: code for each frame or request allocates nothing after its first runs. One
//! binary, because a program has one allocator.

#[cfg(feature = "edge")]
mod compression;
mod counting;
#[cfg(feature = "edge")]
mod expressions;
#[cfg(feature = "inspect")]
mod inspection;
mod mux;
