//! Proxying: pool, upstreams, copying, pages, files.
