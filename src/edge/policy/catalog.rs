//! The actions of traffic policies by name: their phases, and which of them end a phase. What
//! their configuration means is not defined here.

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

const fn login(name: &'static str) -> ActionSpec {
    ActionSpec { is_login: true, ..action(name, &[Q]) }
}

/// Actions of ngrok's policies that this edge may have.
pub static ACTIONS: &[ActionSpec] = &[
    action("add-headers", &[Q, S]),
    action("basic-auth", &[Q]),
    action("circuit-breaker", &[Q]),
    end("close-connection", &[C, Q, S]),
    action("compress-response", &[S]),
    end("custom-response", &[Q, S]),
    end("deny", &[C, Q]),
    end("forward-internal", &[C, Q]),
    action("http-request", &[Q, S]),
    action("jwt-validation", &[Q]),
    action("log", &[C, Q, S]),
    login("oauth"),
    login("openid-connect"),
    action("rate-limit", &[Q]),
    action("redirect", &[Q]),
    action("remove-headers", &[Q, S]),
    action("request-body-find-replace", &[Q]),
    action("response-body-find-replace", &[S]),
    action("restrict-ips", &[C, Q, S]),
    action("set-vars", &[C, Q, S]),
    action("sse-find-replace", &[E]),
    action("terminate-tls", &[C]),
    action("url-rewrite", &[Q]),
    action("verify-webhook", &[Q]),
];

/// Actions of ngrok's policies that this edge refuses by name.
pub static REFUSED: &[&str] = &["ai-gateway", "owasp-crs-request", "owasp-crs-response", "saml"];

/// Returns the action with this name.
pub fn find(name: &str) -> Option<&'static ActionSpec> {
    ACTIONS.iter().find(|action| action.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_unique() {
        let names: Vec<&str> = ACTIONS.iter().map(|action| action.name).collect();
        assert!(names.is_sorted());
        assert!(REFUSED.iter().all(|name| find(name).is_none()) && REFUSED.is_sorted());
        assert!(ACTIONS.iter().all(|action| !action.phases.is_empty()));
    }
}
