//! `basic-auth`: a user and a password in each request. The comparison is that of the option of
//! the same name.

use std::fmt;
use std::sync::Arc;

use serde_json::json;

use crate::edge::actions::action::ActionError;
use crate::edge::actions::basic_auth::{self, BasicAuth, Password};
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::phases::{PhaseState, RequestPhase, Scope};
use crate::edge::policy::reader::ConfigReader;
use crate::edge::policy::text::InterpolatedText;
use crate::sys::sync::Mutex;

/// Credentials of one action.
const MAX_CREDENTIALS: usize = 10;

const MAX_USER_CHARS: usize = 128;
const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=128;
const MAX_REALM_CHARS: usize = 128;

const INVALID: ActionError = ActionError("basic-auth has an invalid credential");

struct PolicyBasicAuth {
    credentials: Vec<UserTemplate>,
    realm: String,
    enforce: bool,
    last: Mutex<Option<CheckedPairs>>,
}

/// Credentials with the values of their expressions, and what checks them.
struct CheckedPairs {
    pairs: Vec<(String, String)>,
    checker: Arc<BasicAuth>,
}

#[derive(Debug)]
enum UserTemplate {
    Fixed(String, String),
    /// User and password, each with expressions.
    Parts(InterpolatedText, InterpolatedText),
    /// An expression for both, with a colon between them.
    Pair(InterpolatedText),
}

impl fmt::Debug for PolicyBasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyBasicAuth").finish_non_exhaustive()
    }
}

pub(super) fn compile(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    config.known_keys(&["credentials", "realm", "enforce"]);
    if !config.require("credentials") {
        return None;
    }
    let texts = config.texts("credentials", MAX_CREDENTIALS);
    config.not_empty("credentials", "must not be empty.");
    if texts.is_empty() {
        return None;
    }
    let credentials = texts.iter().map(|text| credential(config, text)).collect::<Option<_>>()?;
    let realm = config.text("realm").unwrap_or_else(|| "ngrok".to_owned());
    let is_text = |c: char| c == ' ' || c.is_ascii_graphic() && c != '"' && c != '\\';
    if realm.chars().count() > MAX_REALM_CHARS || !realm.chars().all(is_text) {
        let reason = format!("must have at most {MAX_REALM_CHARS} ASCII characters.");
        config.fault("realm", 2221, reason);
        return None;
    }
    let enforce = config.flag("enforce", true);
    Some(Arc::new(PolicyBasicAuth { credentials, realm, enforce, last: Mutex::new(None) }))
}

/// Reads a credential. No fault has a part of it: it is a secret.
fn credential(config: &ConfigReader<'_>, text: &str) -> Option<UserTemplate> {
    const KEY: &str = "credentials";
    let Some(colon) = colon_outside_expressions(text) else {
        if text.starts_with("${") && text.ends_with('}') {
            return config.part(KEY, text).map(UserTemplate::Pair);
        }
        config.fault(KEY, 2257, "must have the form user:password.");
        return None;
    };
    let user = config.part(KEY, &text[..colon])?;
    let password = config.part(KEY, &text[colon + 1..])?;
    match (user.fixed(), password.fixed()) {
        (Some(user), Some(password)) => match check(user, password) {
            Ok(()) => Some(UserTemplate::Fixed(user.to_owned(), password.to_owned())),
            Err((code, reason)) => {
                config.fault(KEY, code, reason);
                None
            }
        },
        _ => Some(UserTemplate::Parts(user, password)),
    }
}

/// Checks a user and a password. The error has the code and the reason.
fn check(user: &str, password: &str) -> Result<(), (u32, String)> {
    let has_controls = |text: &str| text.chars().any(char::is_control);
    if user.is_empty() || user.chars().count() > MAX_USER_CHARS || has_controls(user) {
        let reason =
            format!("has a user that is empty or has more than {MAX_USER_CHARS} characters.");
        return Err((2257, reason));
    }
    if !PASSWORD_CHARS.contains(&password.chars().count()) || has_controls(password) {
        let (least, most) = (PASSWORD_CHARS.start(), PASSWORD_CHARS.end());
        return Err((2258, format!("has a password that needs {least} to {most} characters.")));
    }
    Ok(())
}

/// Returns the place of the first colon that is not in `${...}`.
fn colon_outside_expressions(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut quote = None;
    let mut before = '\0';
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open && before != '\\' => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') if depth > 0 => quote = Some(c),
            (None, '{') if depth > 0 || before == '$' => depth += 1,
            (None, '}') => depth = depth.saturating_sub(1),
            (None, ':') if depth == 0 => return Some(at),
            (None, _) => {}
        }
        // Two backslashes are a character.
        before = if before == '\\' && c == '\\' { '\0' } else { c };
    }
    None
}

impl PolicyBasicAuth {
    /// Returns what checks requests with the values that the expressions have now.
    fn checker(&self, scope: &Scope<'_>) -> Result<Arc<BasicAuth>, ActionError> {
        let pairs: Vec<(String, String)> = self
            .credentials
            .iter()
            .map(|credential| credential.pair(scope))
            .collect::<Result<_, _>>()?;
        let mut last = self.last.lock();
        if let Some(known) = &*last
            && known.pairs == pairs
        {
            return Ok(Arc::clone(&known.checker));
        }
        let list: Vec<_> =
            pairs.iter().map(|(user, password)| (&**user, Password::Clear(password))).collect();
        let checker = Arc::new(BasicAuth::new(&list));
        *last = Some(CheckedPairs { pairs, checker: Arc::clone(&checker) });
        Ok(checker)
    }
}

impl UserTemplate {
    fn pair(&self, scope: &Scope<'_>) -> Result<(String, String), ActionError> {
        let (user, password) = match self {
            UserTemplate::Fixed(user, password) => return Ok((user.clone(), password.clone())),
            UserTemplate::Parts(user, password) => {
                (user.render(scope)?.into_owned(), password.render(scope)?.into_owned())
            }
            UserTemplate::Pair(pair) => {
                let pair = pair.render(scope)?;
                let (user, password) = pair.split_once(':').ok_or(INVALID)?;
                (user.to_owned(), password.to_owned())
            }
        };
        // An expression must not move the colon.
        match user.contains(':') || check(&user, &password).is_err() {
            true => Err(INVALID),
            false => Ok((user, password)),
        }
    }
}

impl PolicyAction for PolicyBasicAuth {
    fn request(&self, phase: &mut RequestPhase<'_>) -> Result<PolicyFlow, ActionError> {
        let checker = self.checker(&phase.scope())?;
        let fields = phase.request.fields;
        let user = fields.first("authorization").and_then(basic_auth::user);
        let authorized = checker.admits(fields);
        let result = json!({ "credentials": {
            "presented": user.is_some(),
            "username": user.unwrap_or_default(),
            "authorized": authorized,
        }});
        phase.vars_mut().set_result("basic_auth", result);
        if authorized || !self.enforce {
            return Ok(PolicyFlow::Continue);
        }
        Ok(PolicyFlow::Respond(basic_auth::challenge(&self.realm)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_colon_of_an_expression_does_not_split() {
        for (text, at) in [
            ("user:pass:word", Some(4)),
            ("${secrets.get('a:b', 'c')}:password", Some(26)),
            ("user${req.host == 'a' ? '}:' : \"b\\\":\"}:x", Some(38)),
            ("${a ? b : c}", None),
            ("user", None),
            ("$:b", Some(1)),
            ("{a:b}", Some(2)),
        ] {
            assert_eq!(colon_outside_expressions(text), at, "{text}");
        }
    }

    #[test]
    fn passwords_have_eight_to_128_characters() {
        let code = |user: &str, password: &str| check(user, password).err().map(|(code, _)| code);
        assert_eq!(code("u", "12345678"), None);
        assert_eq!(code("u", "1234567"), Some(2258));
        assert_eq!(code("u", &"ä".repeat(128)), None);
        assert_eq!(code("u", &"x".repeat(129)), Some(2258));
        assert_eq!(code("", "12345678"), Some(2257));
        assert_eq!(code("a\u{1}", "12345678"), Some(2257));
    }
}
