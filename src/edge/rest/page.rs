//! Lists: one page of objects, newest first, by `limit`, `before_id` and `filter`.

use serde_json::{Value, json};

use super::context::ApiContext;
use super::error::ApiError;
use super::filter::Filter;
use crate::http1::text::percent_encoded;

/// Most objects of a page, and the number without `limit`.
const MAX_LIMIT: usize = 100;

/// An object of a list.
struct Listed {
    /// Its id. Ids sort by the time of creation.
    id: String,
    /// The object as the API shows it.
    object: Value,
}

/// Parameters of a list.
#[derive(Debug, Default)]
struct PageQuery {
    limit: usize,
    before: Option<String>,
    filter: Option<Filter>,
}

/// Returns the page of a list that the request selects. `ids` are those of all objects, in any
/// order; `show` makes one of them, `None` if it has ended meanwhile.
pub fn list(
    context: &ApiContext<'_>,
    plural: &str,
    prefix: &str,
    mut ids: Vec<String>,
    show: impl Fn(&str) -> Option<Value>,
) -> Result<Value, ApiError> {
    let query = parse(context, prefix)?;
    ids.sort_unstable_by(|a, b| b.cmp(a));
    let mut page: Vec<Listed> = Vec::new();
    let mut has_more = false;
    let after = ids.into_iter().filter(|id| query.before.as_ref().is_none_or(|b| id < b));
    for id in after {
        let Some(object) = show(&id) else { continue };
        if let Some(filter) = &query.filter
            && !filter.matches(&object)?
        {
            continue;
        }
        if page.len() == query.limit {
            has_more = true;
            break;
        }
        page.push(Listed { id, object });
    }
    let uri = format!("{}/{}", context.base, context.target.path.join("/"));
    let next = page.last().filter(|_| has_more).map(|last| next_page(context, &uri, &last.id));
    let objects: Vec<Value> = page.into_iter().map(|listed| listed.object).collect();
    Ok(json!({plural: objects, "uri": uri, "next_page_uri": next}))
}

fn parse(context: &ApiContext<'_>, prefix: &str) -> Result<PageQuery, ApiError> {
    let mut query = PageQuery { limit: MAX_LIMIT, ..PageQuery::default() };
    for (name, value) in &context.target.parameters {
        match name.as_str() {
            // A client that has no value sends an empty one.
            _ if value.is_empty() && ["limit", "before_id", "filter"].contains(&&**name) => {}
            "limit" => {
                let number = value.parse().ok().filter(|n| (1..=MAX_LIMIT).contains(n));
                query.limit = number.ok_or_else(|| {
                    let text =
                        format!("The limit '{value}' is not a number from 1 to {MAX_LIMIT}.");
                    ApiError::new(400, 233, text)
                })?;
            }
            "before_id" => {
                if !crate::edge::token::is_ksuid(prefix, value) {
                    let text = format!("The id in before_id must begin with '{prefix}_'.");
                    return Err(ApiError::new(400, 227, text));
                }
                query.before = Some(value.clone());
            }
            "filter" => query.filter = Some(Filter::parse(value)?),
            // Parameters of older clients.
            "id" | "url" => {}
            other => {
                let text = format!(
                    "The query parameter '{other}' is unknown. A list has limit, before_id and \
                     filter."
                );
                return Err(ApiError::new(400, 231, text));
            }
        }
    }
    Ok(query)
}

/// Returns the URL of the page after the one that ends with `last`.
fn next_page(context: &ApiContext<'_>, uri: &str, last: &str) -> String {
    let mut next = format!("{uri}?before_id={last}");
    for name in ["limit", "filter"] {
        if let Some(value) = context.target.parameter(name).filter(|value| !value.is_empty()) {
            next += &format!("&{name}={}", percent_encoded(value.as_bytes()));
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_survives_the_link_to_the_next_page() {
        let text = "obj.description == \"a&b=ü\"";
        let decoded = crate::http1::text::percent_decoded(&percent_encoded(text.as_bytes()), true);
        assert_eq!(decoded.as_deref(), Some(text));
    }
}
