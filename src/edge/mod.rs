//! The self-hosted edge: accepts agents, gives their endpoints public URLs, and
//! passes visitors on. One process on one machine.

pub mod visitor;
