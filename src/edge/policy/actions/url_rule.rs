//! What `redirect` and `url-rewrite` have in common: the rule for the new URL, and the URL of a
//! request.

use crate::edge::actions::action::ActionError;
use crate::edge::policy::phases::{RequestPhase, Scope};
use crate::edge::policy::reader::ConfigReader;
use crate::edge::policy::replace::ReplaceError;
use crate::edge::policy::replacement_text::ReplacementText;
use crate::edge::policy::rewrite::{ChangedUrl, replace_matches, replace_whole};
use crate::edge::policy::text::InterpolatedText;

/// How a URL changes.
#[derive(Debug)]
pub enum UrlRule {
    /// What matches is replaced.
    Matches(ReplacementText),
    /// The whole URL is replaced.
    Whole(InterpolatedText),
}

impl UrlRule {
    /// Reads `from` and `to`.
    pub fn read(config: &ConfigReader<'_>) -> Option<Self> {
        if !config.require("to") {
            return None;
        }
        match config.has("from") {
            true => ReplacementText::read(config).map(UrlRule::Matches),
            false => config.required_template("to").map(UrlRule::Whole),
        }
    }

    /// Applies the rule to a URL. `None`: it stays.
    pub fn apply(&self, url: &str, scope: &Scope<'_>) -> Result<Option<ChangedUrl>, ActionError> {
        let changed = match self {
            UrlRule::Matches(rule) => replace_matches(url, &rule.resolve(scope)?),
            UrlRule::Whole(text) => replace_whole(url, &text.render(scope)?),
        };
        changed.map_err(|error| match error {
            ReplaceError::TooLong => ActionError("the policy has made a URL that is too long"),
            ReplaceError::TooSlow => {
                ActionError("a regular expression of the policy takes too long for the URL")
            }
        })
    }
}

/// Returns the URL of a request, with the changes of earlier actions. `None`: the request has
/// none, as `OPTIONS *`.
pub fn current_url(phase: &RequestPhase<'_>) -> Option<String> {
    let request = &phase.request;
    let scheme = if request.tls { "https://" } else { "http://" };
    let authority = String::from_utf8_lossy(request.authority);
    let received = String::from_utf8_lossy(request.target);
    let target = phase.edits.target().unwrap_or(&received);
    let slash = match target.as_bytes().first() {
        Some(b'*') => return None,
        Some(b'/') => "",
        _ => "/",
    };
    let mut url = String::with_capacity(scheme.len() + authority.len() + 1 + target.len());
    [scheme, &authority, slash, target].iter().for_each(|part| url.push_str(part));
    Some(url)
}
