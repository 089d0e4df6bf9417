//! An action of a policy, and how a phase goes on after it. No action is defined here.

use std::fmt;
use std::sync::Arc;

use super::phases::{ConnectPhase, PhaseState, RequestPhase, ResponsePhase};
use crate::edge::actions::action::{ActionError, Reply};
use crate::edge::actions::tls::TlsOptions;

/// Result of an action.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum PolicyFlow {
    /// The next action decides.
    Continue,
    /// The request ends with this response. In the connect phase the connection is closed.
    Respond(Reply),
    /// The connection is closed without a response.
    Close,
    /// The internal endpoint with this URL serves the visitor. It was found online.
    Forward(String),
}

/// Error of an action in a phase that the table of actions does not permit.
const OTHER_PHASE: ActionError = ActionError("an action of the policy is in another phase");

/// Compiled action. It implements the phases that [`super::catalog`] lists for it.
pub trait PolicyAction: fmt::Debug + Send + Sync {
    /// Decides in a phase for which the action has no method of its own.
    fn any(&self, _phase: &mut dyn PhaseState) -> Result<PolicyFlow, ActionError> {
        Err(OTHER_PHASE)
    }

    /// Decides about a connection.
    fn connect(&self, phase: &mut ConnectPhase<'_>) -> Result<PolicyFlow, ActionError> {
        self.any(phase)
    }

    /// Decides about a request, and may change what the upstream gets.
    fn request(&self, phase: &mut RequestPhase<'_>) -> Result<PolicyFlow, ActionError> {
        self.any(phase)
    }

    /// Returns what it changes in the TLS handshakes of visitors.
    fn tls(&self) -> Option<&Arc<TlsOptions>> {
        None
    }

    /// Returns whether it may block its thread. The response phase then runs on another thread
    /// than that of the session, which must not block.
    fn may_block(&self) -> bool {
        false
    }

    /// Returns whether it changes bodies in the response phase. The upstream then gets no request
    /// for a compressed body or a part of one.
    fn changes_bodies(&self) -> bool {
        false
    }

    /// Decides about the head of a response, and may change it.
    fn response(&self, phase: &mut ResponsePhase<'_, '_>) -> Result<PolicyFlow, ActionError> {
        self.any(phase)
    }
}
