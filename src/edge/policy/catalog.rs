//! The actions of traffic policies by name: their phases, and which of them end a phase. What
//! their configuration means is not defined here.

use crate::config::nearest;
use crate::config::policy_catalog::policy_actions;

/// Phase of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyPhase {
    /// A connection was accepted.
    TcpConnect,
    /// The head of a request was read.
    HttpRequest,
    /// The head of the upstream's response was read.
    HttpResponse,
    /// The head of a response with server-sent events was read. Its actions change each event.
    EventStreamMessage,
}

impl PolicyPhase {
    /// All, in the order in which they run.
    pub const ALL: [PolicyPhase; 4] = [
        PolicyPhase::TcpConnect,
        PolicyPhase::HttpRequest,
        PolicyPhase::HttpResponse,
        PolicyPhase::EventStreamMessage,
    ];

    /// Returns the key of the phase in a document.
    pub fn key(self) -> &'static str {
        match self {
            PolicyPhase::TcpConnect => "on_tcp_connect",
            PolicyPhase::HttpRequest => "on_http_request",
            PolicyPhase::HttpResponse => "on_http_response",
            PolicyPhase::EventStreamMessage => "on_event_stream_message",
        }
    }
}

/// An action by name.
#[derive(Debug)]
pub struct ActionSpec {
    /// Value of `type`.
    pub name: &'static str,
    /// Phases in which it may be.
    pub phases: &'static [PolicyPhase],
    /// Whether it always ends the phase.
    pub terminates: bool,
    /// Whether it is a login. An endpoint has at most one.
    pub is_login: bool,
}

const C: PolicyPhase = PolicyPhase::TcpConnect;
const Q: PolicyPhase = PolicyPhase::HttpRequest;
const S: PolicyPhase = PolicyPhase::HttpResponse;
const E: PolicyPhase = PolicyPhase::EventStreamMessage;

const fn action(name: &'static str, phases: &'static [PolicyPhase]) -> ActionSpec {
    ActionSpec { name, phases, terminates: false, is_login: false }
}

const fn end(name: &'static str, phases: &'static [PolicyPhase]) -> ActionSpec {
    ActionSpec { terminates: true, ..action(name, phases) }
}

const fn login(name: &'static str, phases: &'static [PolicyPhase]) -> ActionSpec {
    ActionSpec { is_login: true, ..action(name, phases) }
}

/// An action that this edge refuses by name. It has no phases.
const fn unsupported(name: &'static str, phases: &'static [PolicyPhase]) -> ActionSpec {
    action(name, phases)
}

macro_rules! specs {
    ($($name:literal [$($phase:ident)*] $kind:ident,)*) => {
        &[$($kind($name, &[$($phase),*])),*]
    };
}

/// Actions of ngrok's policies, sorted by name.
static ACTIONS: &[ActionSpec] = policy_actions!(specs);

/// Returns the action with this name, if this edge supports it.
pub fn find(name: &str) -> Option<&'static ActionSpec> {
    ACTIONS.iter().find(|action| action.name == name && !action.phases.is_empty())
}

/// Returns whether an action exists that this edge refuses.
pub fn is_unsupported(name: &str) -> bool {
    ACTIONS.iter().any(|action| action.name == name && action.phases.is_empty())
}

/// Returns the name of the action that was meant by another one.
pub fn nearest_name(name: &str) -> Option<&'static str> {
    nearest(name, ACTIONS.iter().map(|action| action.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_unique() {
        let names: Vec<&str> = ACTIONS.iter().map(|action| action.name).collect();
        assert!(names.is_sorted_by(|a, b| a < b));
        assert!(find("saml").is_none() && is_unsupported("saml") && !is_unsupported("deny"));
        assert_eq!(find("deny").map(|action| action.phases), Some(&[C, Q][..]));
    }
}
