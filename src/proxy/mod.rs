//! Proxying: pool, upstreams, copying, pages, files.

pub mod files;
pub mod http_head;
pub mod pages;
pub mod proxy_protocol;
