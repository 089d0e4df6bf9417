//! The agent: supervisor, calls, endpoints.
