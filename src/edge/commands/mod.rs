//! Commands of `culvert-edge` that work with an edge on this machine. [`place`] finds the
//! state directory, [`client`] sends requests to the REST API, [`output`] prints objects.
//! [`policy`] needs no running edge.
//! Serving is not here: `edge::run`.

pub mod accounts;
pub mod backup;
pub mod client;
pub mod output;
pub mod place;
pub mod policy;
