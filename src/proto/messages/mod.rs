//! Calls of a session (protocol 5): one JSON object in each direction. `encode` writes every
//! key in the spelling of the protocol. `decode` ignores the case of keys. Agent and edge use
//! both.
//!
//! A refused response needs no other field: with `error` the others are empty.

mod auth;
mod bind;
mod calls;

pub use auth::{AuthExtra, AuthRequest, AuthResponse, AuthResponseExtra, Deprecation};
pub use bind::{BindExtra, BindRequest, BindResponse, BindResponseExtra, UnbindRequest};
pub use calls::{
    CommandResponse, PatchRequest, SrvInfoResponse, StartTunnelWithLabelRequest,
    StartTunnelWithLabelResponse, StopTunnel, UpdateRequest,
};

use super::codes::Refusal;
use super::fields::{DecodeError, Fields};

/// Returns the `Error` of a response.
fn error_of(fields: Fields<'_>) -> Result<Option<Refusal>, DecodeError> {
    Ok(Refusal::from_wire(&fields.text("Error")?))
}
