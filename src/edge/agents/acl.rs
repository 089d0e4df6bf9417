//! ACL of a credential: rules like `bind:*.example.com`. Which hosts the edge serves is decided
//! in [`super::bind`].
//!
//! ```text
//! * | bind:* | bind:HOST | bind:*.HOST | bind:HOST:PORT | bind:KEY=VALUE
//! ```
//! Without rules everything is allowed. With several rules one must match.

/// The rules of a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acl(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    All,
    Host {
        name: String,
        port: Option<u16>,
    },
    /// `None`: any name, any value.
    Label {
        name: Option<String>,
        value: Option<String>,
    },
}

impl Acl {
    /// Reads the rules; the error names the one that is malformed.
    pub fn parse<S: AsRef<str>>(rules: &[S]) -> Result<Self, String> {
        let parse = |text: &str| {
            rule(text).ok_or_else(|| {
                format!(
                    "malformed rule '{text}': must be '*', 'bind:*', 'bind:HOST', \
                     'bind:*.HOST', 'bind:HOST:PORT' or 'bind:KEY=VALUE'"
                )
            })
        };
        rules.iter().map(|r| parse(r.as_ref())).collect::<Result<_, _>>().map(Acl)
    }

    /// Returns whether there are rules that limit anything.
    pub fn is_limited(&self) -> bool {
        !self.0.is_empty() && !self.0.contains(&Rule::All)
    }

    /// Returns whether `host` (lower case; may be a wildcard) may be bound.
    pub fn allows_host(&self, host: &str) -> bool {
        !self.is_limited()
            || self.0.iter().any(|r| match r {
                Rule::Host { name, port } => {
                    matches!(port, None | Some(80 | 443)) && covers(name, host)
                }
                _ => false,
            })
    }

    /// Returns whether the TCP address `host:port` may be bound.
    pub fn allows_address(&self, host: &str, port: u16) -> bool {
        !self.is_limited()
            || self.0.iter().any(|r| match r {
                Rule::Host { name, port: Some(p) } => *p == port && covers(name, host),
                _ => false,
            })
    }

    /// Returns whether a rule is about labels.
    pub fn has_label_rules(&self) -> bool {
        self.is_limited() && self.0.iter().any(|rule| matches!(rule, Rule::Label { .. }))
    }

    /// Returns whether a tunnel may have this label.
    pub fn allows_label(&self, given: &str, of: &str) -> bool {
        let fits = |rule: &Option<String>, text: &str| rule.as_deref().is_none_or(|r| r == text);
        !self.is_limited()
            || self.0.iter().any(|rule| match rule {
                Rule::Label { name, value } => fits(name, given) && fits(value, of),
                _ => false,
            })
    }
}

fn rule(text: &str) -> Option<Rule> {
    if text == "*" {
        return Some(Rule::All);
    }
    let what = text.strip_prefix("bind:")?;
    if what == "*" {
        return Some(Rule::All);
    }
    if let Some((key, value)) = what.split_once('=') {
        let part = |text: &str| (text != "*").then(|| text.to_owned());
        let good = !key.is_empty() && !value.is_empty();
        return good.then(|| Rule::Label { name: part(key), value: part(value) });
    }
    let (name, port) = match what.split_once(':') {
        Some((name, port)) => (name, Some(port.parse().ok()?)),
        None => (what, None),
    };
    let plain = name.strip_prefix("*.").unwrap_or(name);
    let good = !plain.is_empty()
        && plain.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        && !plain.starts_with('.')
        && !plain.contains("..");
    good.then(|| Rule::Host { name: name.to_ascii_lowercase(), port })
}

/// Returns whether the name of a rule covers `host`.
pub fn covers(rule: &str, host: &str) -> bool {
    match rule.strip_prefix("*.") {
        Some(suffix) => {
            rule == host
                || host.strip_suffix(suffix).is_some_and(|h| h.len() > 1 && h.ends_with('.'))
        }
        None => rule == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(rules: &[&str]) -> Acl {
        Acl::parse(rules).unwrap()
    }

    #[test]
    fn no_rules_allow_everything() {
        for a in [acl(&[]), acl(&["*"]), acl(&["bind:*"]), acl(&["bind:a", "*"])] {
            assert!(a.allows_host("x.example") && a.allows_address("x", 1));
            assert!(!a.is_limited());
        }
    }

    #[test]
    fn hosts() {
        let a = acl(&["bind:Foo.example.com", "bind:*.wild.example", "bind:p.example:443"]);
        for yes in ["foo.example.com", "a.wild.example", "a.b.wild.example", "*.wild.example"] {
            assert!(a.allows_host(yes), "{yes}");
        }
        assert!(a.allows_host("p.example"));
        for no in ["example.com", "x.foo.example.com", "wild.example", "awild.example", "foo"] {
            assert!(!a.allows_host(no), "{no}");
        }
        assert!(a.is_limited());
    }

    #[test]
    fn addresses() {
        let a = acl(&["bind:1.tcp.example:12345", "bind:host.example"]);
        assert!(a.allows_address("1.tcp.example", 12345));
        assert!(!a.allows_address("1.tcp.example", 12346));
        assert!(!a.allows_address("host.example", 1));
        assert!(!a.allows_host("1.tcp.example"));
    }

    #[test]
    fn a_label_allows_no_host() {
        let a = acl(&["bind:foo=bar", "bind:app=*", "bind:*=x"]);
        assert!(a.is_limited() && !a.allows_host("foo") && !a.allows_address("foo", 1));
    }

    #[test]
    fn labels() {
        let a = acl(&["bind:foo=bar", "bind:app=*", "bind:*=x"]);
        for (name, value) in [("foo", "bar"), ("app", "any"), ("other", "x")] {
            assert!(a.allows_label(name, value), "{name}={value}");
        }
        for (name, value) in [("foo", "baz"), ("other", "y"), ("", ""), ("Foo", "bar")] {
            assert!(!a.allows_label(name, value), "{name}={value}");
        }
        assert!(a.has_label_rules() && !acl(&["bind:foo"]).has_label_rules());
        assert!(!acl(&["bind:foo"]).allows_label("foo", "bar"));
        assert!(acl(&[]).allows_label("a", "b") && acl(&["*"]).allows_label("a", "b"));
    }

    #[test]
    fn malformed_rules_are_named() {
        for bad in ["", "foo", "bind:", "bind:*.", "bind:a:b", "bind:a:", "bind:=x", "bind:a b"] {
            let e = Acl::parse(&["*", bad]).unwrap_err();
            assert!(e.contains(&format!("'{bad}'")), "{e}");
        }
    }
}
