//! Logins of visitors at a provider: OpenID Connect, and OAuth 2 with a profile. The flow is
//! that of the authorization code (RFC 6749 4.1) with PKCE (RFC 7636). All state of a visitor is
//! in its cookies and in the parameter `state`, encrypted for one endpoint of one account.
//! Nothing is kept here between requests, so a restart of the edge ends no session.
//!
//! [`gate`] serves a request of a visitor and blocks for the provider. The other files are
//! sans-IO: [`flow`] has the messages, [`state`] and [`session`] what the browser keeps,
//! [`endpoints`] and [`providers`] what is known of a provider. Options and policies are compiled elsewhere.

pub mod clients;
pub mod cookie;
pub mod endpoints;
pub mod flow;
pub mod gate;
pub mod profile;
pub mod provider;
pub mod providers;
pub mod return_path;
pub mod seal;
pub mod services;
pub mod session;
pub mod state;

pub use gate::{LoginGate, LoginVerdict};
pub use services::LoginServices;
