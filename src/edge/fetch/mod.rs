//! Requests of the edge to servers whose URLs come from the options and policies of endpoints:
//! keys of issuers, providers of logins, `http-request`. An agent chooses these URLs, so it
//! must not reach the network of the edge with them.
//!
//! [`guard`] decides which addresses are permitted, [`fetcher`] connects to them, [`redirect`]
//! follows redirects, [`places`] bounds the number of requests, and [`cache`] keeps documents.
//! [`Fetch`] is what other code uses.

pub mod address;
pub mod cache;
pub mod fetcher;
pub mod guard;
pub mod message;
pub mod places;
pub mod redirect;

pub use fetcher::EdgeFetcher;
pub use message::{Fetch, FetchError, FetchErrorKind, FetchRequest, FetchResponse};
