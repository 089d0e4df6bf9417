//! The check of a token's text: what copying, shells and example files put into it. Whether
//! the edge accepts the token is not known here.

/// Returns why `text` cannot be a token; it continues the token's name. Shows no token.
pub(crate) fn fault(text: &str) -> Option<String> {
    if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Some(format!("contains {c:?}: copy it again"));
    }
    let upper = text.to_ascii_uppercase();
    let mark = upper.contains("YOUR") || text.starts_with(['$', '<']);
    (mark && upper.contains("TOKEN")).then(|| format!("is the placeholder {text}: use your own"))
}

/// A token of the environment, without the blanks and the quotes that shells and `--env-file`
/// leave around it.
pub(super) fn trimmed(text: &str) -> &str {
    let text = text.trim();
    let inner = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(text).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_around_a_token_is_removed() {
        for text in ["2ab_c", "2ab_c\r\n", " \"2ab_c\" ", "'2ab_c'\n", "\t2ab_c"] {
            assert_eq!(trimmed(text), "2ab_c", "{text:?}");
        }
        assert_eq!(trimmed("\"2ab_c"), "\"2ab_c");
        assert_eq!(trimmed("\""), "\"");
    }

    #[test]
    fn what_is_in_a_token_is_named() {
        for (text, expected) in [
            ("2ab\u{200b}c", "contains '\\u{200b}'"),
            ("2ab c", "contains ' '"),
            ("2ab\rc", "contains '\\r'"),
            ("PUT-YOUR-AUTHTOKEN-HERE", "is the placeholder PUT-YOUR-AUTHTOKEN-HERE"),
            ("<your_token>", "is the placeholder"),
            ("${NGROK_AUTHTOKEN}", "is the placeholder"),
        ] {
            let fault = fault(text).unwrap_or_default();
            assert!(fault.starts_with(expected), "{text:?}: {fault}");
        }
        for text in ["", "2ab_C", "TOKEN", "$2y$10$abc", "planted-token-for-nobody"] {
            assert_eq!(fault(text), None, "{text:?}");
        }
    }
}
