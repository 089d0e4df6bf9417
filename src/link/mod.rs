//! The encrypted byte pipe to the edge: dialling and TLS.
