//! The messages of the tunnel protocol. Sans-IO: bytes in, structs out.
//! No sockets, no threads, no clock, and no knowledge of frames.

pub mod secret;
