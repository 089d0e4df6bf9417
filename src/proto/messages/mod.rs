//! The calls of a session (protocol 5): one JSON object each way. `encode` writes
//! every key in the spelling of the protocol, `decode` reads keys without regard
//! to case. Agent and edge use both directions.
//!
//! A refused response needs no other field: if `error` is there, the rest is
//! empty.

mod auth;
mod bind;
mod calls;

pub use auth::{AuthExtra, AuthRequest, AuthResponse, AuthResponseExtra, Deprecation};
pub use bind::{
    BindExtra, BindRequest, BindResponse, BindResponseExtra, UnbindRequest, UnbindResponse,
};
pub use calls::{
    CommandResponse, EMPTY, PatchRequest, SrvInfoResponse, StartTunnelWithLabelRequest,
    StartTunnelWithLabelResponse, StopTunnel, UpdateRequest,
};

use super::codes::Refusal;
use super::fields::{DecodeError, Fields};

/// The `Error` of a response.
fn error_of(fields: Fields<'_>) -> Result<Option<Refusal>, DecodeError> {
    Ok(Refusal::from_wire(&fields.text("Error")?))
}
