//! A line of `Set-Cookie` as a value of expressions, with the attributes by ngrok's names.

use std::sync::Arc;

use super::expression::{Timestamp, Value, ValueMap};

/// Nanoseconds of a second, the unit of durations.
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Attributes of a cookie (RFC 6265 section 4.1). A text that is absent is empty.
#[derive(Default)]
struct CookieAttributes<'a> {
    domain: &'a str,
    path: &'a str,
    same_site: &'a str,
    secure: bool,
    http_only: bool,
    /// Nanoseconds.
    max_age: i64,
    expires: Option<Timestamp>,
    /// Those that no standard defines.
    others: Vec<(&'a str, &'a str)>,
}

/// Returns the name of the cookie of a line, and its value with all attributes.
pub(super) fn read(line: &str) -> Option<(String, Value)> {
    let mut parts = line.split(';').map(str::trim);
    let (name, value) = parts.next()?.split_once('=')?;
    let name = name.trim_end();
    let mut attributes = CookieAttributes::default();
    parts.for_each(|part| attributes.add(part));
    let mut entries = vec![("name", name.into()), ("value", value.trim_matches('"').into())];
    attributes.append_to(&mut entries);
    Some((name.to_owned(), map(entries)))
}

impl<'a> CookieAttributes<'a> {
    fn add(&mut self, part: &'a str) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match &*key.to_ascii_lowercase() {
            "domain" => self.domain = value,
            "expires" => {
                let time = httpdate::parse_http_date(value).ok();
                self.expires = time.and_then(Timestamp::of);
            }
            "max-age" => {
                let seconds = value.parse::<i64>().unwrap_or_default();
                self.max_age = seconds.saturating_mul(NANOS_PER_SECOND);
            }
            "path" => self.path = value,
            "samesite" => self.same_site = value,
            "secure" => self.secure = true,
            "httponly" => self.http_only = true,
            "" => {}
            _ => self.others.push((key, value)),
        }
    }

    fn append_to(self, entries: &mut Vec<(&str, Value)>) {
        let others = self.others.into_iter().map(|(key, value)| (key, value.into())).collect();
        entries.extend([
            ("domain", self.domain.into()),
            ("path", self.path.into()),
            ("same_site", self.same_site.into()),
            ("secure", self.secure.into()),
            ("http_only", self.http_only.into()),
            ("max_age", Value::Duration(self.max_age)),
            ("unparsed_attributes", map(others)),
        ]);
        entries.extend(self.expires.map(|time| ("expires", Value::Timestamp(time))));
    }
}

fn map(entries: Vec<(&str, Value)>) -> Value {
    let entries = entries.into_iter().map(|(key, value)| (key.into(), value)).collect();
    Value::Map(Arc::new(ValueMap::new(entries)))
}
