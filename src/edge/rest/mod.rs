//! REST API of the edge, with the routes, fields and error codes of ngrok's API: its clients
//! manage this edge. It has its own listener, and few threads of its own: visitors and agents
//! do not wait for it.
//!
//! [`accept`] takes connections, [`client`] has their places, [`http`] reads requests, [`auth`] checks keys, [`router`]
//! finds the resource. [`resources`] has one file for each kind of object. [`page`] makes
//! lists, with [`filter`].

pub mod accept;
pub mod auth;
pub mod body;
pub mod client;
pub mod context;
pub mod error;
pub mod filter;
pub mod http;
pub mod page;
pub mod query;
pub mod resource;
pub mod resources;
pub mod router;
pub mod state;
pub mod stored;
pub mod stream;
