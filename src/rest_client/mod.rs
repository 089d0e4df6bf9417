//! Client of ngrok's REST API, which `culvert-edge` serves too: the actions, their requests and
//! the meaning of responses. The command line is in `cli`, HTTP is in `net::http_client`.
//!
//! Sans-IO: [`actions`], [`request`], [`response`].

pub mod actions;
pub mod call;
pub mod request;
pub mod response;
