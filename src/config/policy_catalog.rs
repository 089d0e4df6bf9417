//! The actions of ngrok's traffic policies, one table for the agent and the edge. The agent
//! checks names with it. The edge makes its catalog of it. What an action does, and what its
//! configuration means, is not here.

/// Calls the macro `$make` with all actions, sorted by name: name, phases, and kind. The phases
/// are C (connection), Q (request), S (response) and E (event). The kinds are `action`, `end`
/// (it always ends the phase), `login`, and `unsupported` (`culvert-edge` refuses it by name).
macro_rules! policy_actions {
    ($make:ident) => {
        $make! {
            "add-headers" [Q S] action,
            "ai-gateway" [] unsupported,
            "basic-auth" [Q] action,
            "circuit-breaker" [Q] action,
            "close-connection" [C Q S] end,
            "compress-response" [S] action,
            "custom-response" [Q S] end,
            "deny" [C Q] end,
            "forward-internal" [C Q] end,
            "http-request" [Q S] action,
            "jwt-validation" [Q] action,
            "log" [C Q S] action,
            "oauth" [Q] login,
            "openid-connect" [Q] login,
            "owasp-crs-request" [] unsupported,
            "owasp-crs-response" [] unsupported,
            "rate-limit" [Q] action,
            "redirect" [Q] action,
            "remove-headers" [Q S] action,
            "request-body-find-replace" [Q] action,
            "response-body-find-replace" [S] action,
            "restrict-ips" [C Q S] action,
            "saml" [] unsupported,
            "set-vars" [C Q S] action,
            "sse-find-replace" [E] action,
            "terminate-tls" [C] action,
            "url-rewrite" [Q] action,
            "verify-webhook" [Q] action,
        }
    };
}

pub(crate) use policy_actions;
