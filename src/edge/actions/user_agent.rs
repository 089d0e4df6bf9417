//! `UserAgentFilter`: which clients may visit, by regular expressions for `User-Agent`.

use super::action::{ActionError, Flow, Reply, RequestAction, RequestInfo};
use super::edits::HeaderEdits;
use crate::edge::regex::BoundedRegex;

/// Longest part of `User-Agent` that is searched.
const MAX_USER_AGENT_BYTES: usize = 4096;

/// Refuses requests by their `User-Agent`.
#[derive(Debug)]
pub struct UserAgentFilter {
    /// Empty: all.
    pub allow: Vec<BoundedRegex>,
    /// Refused, even if allowed.
    pub deny: Vec<BoundedRegex>,
}

impl RequestAction for UserAgentFilter {
    fn run(&self, request: &RequestInfo<'_>, _: &mut HeaderEdits) -> Result<Flow, ActionError> {
        let value = request.fields.first("user-agent").unwrap_or_default();
        if value.len() > MAX_USER_AGENT_BYTES {
            return Ok(Flow::Respond(refused()));
        }
        let agent = String::from_utf8_lossy(value);
        let matches = |list: &[BoundedRegex]| list.iter().any(|regex| regex.is_match(&agent));
        let allowed = self.allow.is_empty() || matches(&self.allow);
        Ok(match allowed && !matches(&self.deny) {
            true => Flow::Continue,
            false => Flow::Respond(refused()),
        })
    }
}

fn refused() -> Reply {
    Reply::new(403, 3211, "This endpoint does not accept your client (User-Agent).")
}

#[cfg(test)]
mod tests {
    use super::super::action::tests::with_request;
    use super::*;

    fn passes(allow: &[&str], deny: &[&str], agent: &str) -> bool {
        let list =
            |texts: &[&str]| texts.iter().map(|t| BoundedRegex::compile(t).unwrap()).collect();
        let action = UserAgentFilter { allow: list(allow), deny: list(deny) };
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: {agent}\r\n\r\n");
        let flow = with_request(&head, |r| action.run(r, &mut HeaderEdits::default()));
        flow == Ok(Flow::Continue)
    }

    #[test]
    fn deny_beats_allow_and_an_allow_list_is_exhaustive() {
        assert!(passes(&["curl/.*"], &[], "curl/8.0"));
        assert!(!passes(&["curl/.*"], &[], "Mozilla/5.0"));
        assert!(!passes(&["curl/.*"], &["^curl/7"], "curl/7.1"));
        assert!(passes(&[], &["(?i)bot"], "Mozilla/5.0"));
        assert!(!passes(&[], &["(?i)bot"], "GoogleBOT"));
        assert!(!passes(&[], &["x"], &"a".repeat(5000)));
    }
}
