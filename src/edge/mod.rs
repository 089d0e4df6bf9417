//! The self-hosted edge: accepts agents, gives their endpoints public URLs, and
//! passes visitors on. One process on one machine.

pub mod acl;
pub mod address;
pub mod cidr;
pub mod options;
pub mod token;
pub mod visitor;
