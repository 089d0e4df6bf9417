//! Target of a request: the parts of its path and the parameters of its query.

use super::error::ApiError;
use crate::http1::text::{percent_decoded, query_pairs};

/// A decoded target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestTarget {
    /// Parts between slashes, without empty ones.
    pub path: Vec<String>,
    /// Names and values, each name once.
    pub parameters: Vec<(String, String)>,
}

impl RequestTarget {
    /// Decodes `/path?query`.
    pub fn parse(target: &str) -> Result<Self, ApiError> {
        let target = target.split('#').next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let bad = || ApiError::new(400, 230, "The request target is not valid percent-encoding.");
        let parts = path.split('/').filter(|part| !part.is_empty());
        let path = parts.map(|p| percent_decoded(p, false).ok_or_else(bad));
        let mut found = RequestTarget { path: path.collect::<Result<_, _>>()?, ..Self::default() };
        for (name, value) in query_pairs(query) {
            let name = percent_decoded(name, true).ok_or_else(bad)?;
            let value = percent_decoded(value, true).ok_or_else(bad)?;
            if found.parameter(&name).is_some() {
                let text = format!("The query parameter '{name}' appears twice.");
                return Err(ApiError::new(400, 232, text));
            }
            found.parameters.push((name, value));
        }
        Ok(found)
    }

    /// Returns the value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_decoded() {
        let target =
            RequestTarget::parse("//credentials/cr%5F1/?limit=5&filter=a+%3D%3D+1&x").unwrap();
        assert_eq!(target.path, ["credentials", "cr_1"]);
        assert_eq!(target.parameter("limit"), Some("5"));
        assert_eq!(target.parameter("filter"), Some("a == 1"));
        assert_eq!((target.parameter("x"), target.parameter("y")), (Some(""), None));
        assert_eq!(RequestTarget::parse("/").unwrap(), RequestTarget::default());
        for (bad, code) in [("/a%", 230), ("/a%ff", 230), ("/?a=%zz", 230), ("/?a=1&a=2", 232)] {
            assert_eq!(RequestTarget::parse(bad).unwrap_err().code, code, "{bad}");
        }
    }
}
