//! The self-hosted edge.
