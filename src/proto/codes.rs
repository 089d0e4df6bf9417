//! Refusals: the text with a code (protocol 5.3), and the reaction of the agent to each code.
//! The tables list the errors that another attempt cannot fix.

use std::fmt;

/// Prefix of every code in a text.
const PREFIX: &str = "ERR_NGROK_";

/// The account has too many sessions.
pub const TOO_MANY_SESSIONS: u32 = 108;
/// The cookie of an earlier session is not accepted.
pub const COOKIE_INVALID: u32 = 110;
/// The URL is online already.
pub const URL_ONLINE: u32 = 334;
/// The token is missing.
pub const NO_TOKEN: u32 = 4018;

/// Reason why a call was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// Text for the user, which may have several lines or be empty.
    pub message: String,
    /// The number of `ERR_NGROK_n`.
    pub code: Option<u32>,
}

impl Refusal {
    /// Returns a refusal with a code.
    pub fn new(code: u32, message: impl Into<String>) -> Self {
        Refusal { message: message.into(), code: Some(code) }
    }

    /// Returns a refusal without a code.
    pub fn text(message: impl Into<String>) -> Self {
        Refusal { message: message.into(), code: None }
    }

    /// Parses the text of an `Error` field. `None` if it is empty, which is success. The code
    /// is the first one in the text. The message consists of the lines without a code.
    pub fn from_wire(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let mut message = String::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || find_code(line).is_some() {
                continue;
            }
            if !message.is_empty() {
                message.push('\n');
            }
            message.push_str(line);
        }
        Some(Refusal { message, code: find_code(text) })
    }

    /// Returns the text for an `Error` field: message, empty line, code on the last line.
    pub fn to_wire(&self) -> String {
        match (self.message.as_str(), self.code) {
            // An empty text would be success.
            ("", None) => "refused".to_owned(),
            ("", Some(code)) => format!("{PREFIX}{code}"),
            (message, None) => message.to_owned(),
            (message, Some(code)) => format!("{message}\n\n{PREFIX}{code}"),
        }
    }

    /// Returns the text for an `Error` field that may be success.
    pub(super) fn field(error: &Option<Refusal>) -> String {
        error.as_ref().map(Refusal::to_wire).unwrap_or_default()
    }
}

/// On one line: the message, then the code in brackets.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = if self.message.is_empty() { "refused" } else { &self.message };
        for (index, line) in message.lines().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(line)?;
        }
        match self.code {
            Some(code) => write!(f, " ({PREFIX}{code})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}

fn find_code(text: &str) -> Option<u32> {
    text.match_indices(PREFIX).find_map(|(at, _)| {
        let rest = &text[at + PREFIX.len()..];
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse().ok()
    })
}

/// Time of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// During the start of the program, while the user waits.
    Start,
    /// During a reconnect after a lost session.
    Reconnect,
}

/// Reaction to a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Further attempts cannot succeed: report it and end (the program for Auth, the endpoint
    /// for Bind).
    Final,
    /// Try again after the usual wait.
    Retry,
    /// Try again after the longest wait.
    RetrySlowly,
    /// Try again once, without a wait, as a new client: without client id and cookie.
    ForgetCookie,
}

/// Returns the reaction to a refused Auth with `code`.
pub fn auth_verdict(code: Option<u32>, when: When) -> Verdict {
    match (code, when) {
        (Some(COOKIE_INVALID), _) => Verdict::ForgetCookie,
        // During a reconnect the edge may still have the old session.
        (Some(TOO_MANY_SESSIONS | 348), When::Start) => Verdict::Final,
        (Some(TOO_MANY_SESSIONS | 348 | 349), _) => Verdict::RetrySlowly,
        (Some(code), _) if contains(AUTH_FINAL, code) => Verdict::Final,
        _ => Verdict::Retry,
    }
}

/// Returns the reaction to a refused Bind with `code`. During the start every refusal is final.
/// Later an unknown one is tried again.
pub fn bind_verdict(code: Option<u32>, when: When) -> Verdict {
    match (code, when) {
        (_, When::Start) => Verdict::Final,
        (Some(code), _) if contains(BIND_FINAL, code) => Verdict::Final,
        _ => Verdict::Retry,
    }
}

/// Pairs of the first and the last code of a range.
type Ranges = &'static [(u16, u16)];

fn contains(table: Ranges, code: u32) -> bool {
    table.iter().any(|&(first, last)| (u32::from(first)..=u32::from(last)).contains(&code))
}

const AUTH_FINAL: Ranges = &[
    (100, 100),     // metadata too long
    (102, 103),     // account suspended
    (105, 107),     // token malformed, of agent 1, invalid
    (109, 109),     // payload
    (111, 112),     // heartbeat interval, tolerance too small
    (115, 116),     // address not allowed
    (118, 118),     // ingress
    (119, 119),     // version
    (120, 121),     // agent too old
    (122, 122),     // ingress
    (123, 123),     // e-mail not verified
    (124, 125),     // user agent, analytics
    (126, 127),     // ingress
    (300, 300),     // credential revoked
    (801, 801),     // version
    (811, 811),     // no common protocol version
    (4018, 4018),   // no token
    (8014, 8014),   // blocked
    (9008, 9013),   // plan
    (9024, 9024),   // plan: legs
    (9040, 9040),   // blocked
    (15014, 15014), // scope of the credential
];

const BIND_FINAL: Ranges = &[
    (301, 301),     // payload
    (307, 322),     // address: reservation, plan, ACL; plan; domain
    (324, 324),     // too many endpoints
    (326, 332),     // domain malformed; protocol
    (335, 338),     // cookie; account
    (341, 341),     // IP policy missing
    (343, 347),     // conflict with the service's configuration; domain
    (350, 350),     // too many endpoints
    (354, 356),     // domain; ACL
    (358, 368),     // labels; options of modules
    (370, 379),     // headers
    (382, 399),     // account; OAuth, OIDC; deny alone; proto; domains; ACL
    (6003, 6003),   // conflict with the service's configuration
    (6010, 6011),   // the same
    (8013, 8013),   // plan
    (9000, 9007),   // plan
    (9014, 9023),   // plan; several names
    (9025, 9039),   // policy; plan; URL
    (9041, 9043),   // URL; agent too old for TLS; plan
    (15014, 15014), // scope of the credential
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_code_wherever_it_stands() {
        let text = "The endpoint 'https://a.example' is already online.\n\nERR_NGROK_334\n";
        let refusal = Refusal::new(334, "The endpoint 'https://a.example' is already online.");
        assert_eq!(Refusal::from_wire(text), Some(refusal));
        assert_eq!(
            Refusal::from_wire("  one \r\n\r\n two\nsee ERR_NGROK_99x"),
            Some(Refusal::new(99, "one\ntwo"))
        );
        assert_eq!(Refusal::from_wire("no code"), Some(Refusal::text("no code")));
        assert_eq!(Refusal::from_wire("ERR_NGROK_ and so on").and_then(|r| r.code), None);
        assert_eq!(Refusal::from_wire("ERR_NGROK_99999999999").and_then(|r| r.code), None);
        assert_eq!(Refusal::from_wire("\n"), Some(Refusal::default()));
        assert_eq!(Refusal::from_wire(""), None);
    }

    #[test]
    fn writes_what_it_reads() {
        let cases = [
            (Refusal::new(105, "no"), "no\n\nERR_NGROK_105"),
            (Refusal::new(105, "a\nb"), "a\nb\n\nERR_NGROK_105"),
            (Refusal::text("no"), "no"),
            (Refusal::new(105, ""), "ERR_NGROK_105"),
        ];
        for (refusal, text) in cases {
            assert_eq!(refusal.to_wire(), text);
            assert_eq!(Refusal::from_wire(text), Some(refusal));
        }
        assert_eq!(Refusal::default().to_wire(), "refused");
        assert_eq!(Refusal::new(105, "a\nb").to_string(), "a b (ERR_NGROK_105)");
    }

    #[test]
    fn verdicts_on_auth() {
        for code in [100, 105, 106, 107, 123, 4018, 9012, 9040, 15014] {
            assert_eq!(auth_verdict(Some(code), When::Reconnect), Verdict::Final, "{code}");
        }
        for code in [101, 104, 128, 722, 741, 802, 803, 812, 9014, 70_000] {
            assert_eq!(auth_verdict(Some(code), When::Start), Verdict::Retry, "{code}");
        }
        assert_eq!(auth_verdict(None, When::Start), Verdict::Retry);
        assert_eq!(auth_verdict(Some(108), When::Start), Verdict::Final);
        assert_eq!(auth_verdict(Some(108), When::Reconnect), Verdict::RetrySlowly);
        assert_eq!(auth_verdict(Some(349), When::Start), Verdict::RetrySlowly);
        assert_eq!(auth_verdict(Some(110), When::Start), Verdict::ForgetCookie);
    }

    #[test]
    fn verdicts_on_bind() {
        for code in [334, 351, 12_345] {
            assert_eq!(bind_verdict(Some(code), When::Start), Verdict::Final, "{code}");
            assert_eq!(bind_verdict(Some(code), When::Reconnect), Verdict::Retry, "{code}");
        }
        for code in [301, 308, 322, 326, 350, 393, 9021, 9035, 9043, 15014] {
            assert_eq!(bind_verdict(Some(code), When::Reconnect), Verdict::Final, "{code}");
        }
    }
}
