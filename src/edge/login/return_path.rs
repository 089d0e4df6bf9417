//! Paths that a visitor is sent to after a login or logout: always on the same host.

/// Longest path. It is part of the parameter `state`.
const MAX_PATH_BYTES: usize = 1024;

/// Returns a path and query that is safe as `Location`; `/` for others. A browser reads `//`
/// and `/\` as the start of another host, and removes control characters before it looks.
pub fn safe(target: &str) -> String {
    let rest = target.strip_prefix('/');
    let is_local = rest.is_some_and(|rest| !rest.starts_with(['/', '\\']));
    let is_visible = target.bytes().all(|b| (0x21..0x7f).contains(&b));
    // A login that ends at these would begin or end again.
    let is_own = target.starts_with("/ngrok/");
    match is_local && is_visible && !is_own && target.len() <= MAX_PATH_BYTES {
        true => target.to_owned(),
        false => "/".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_hosts_are_never_the_destination() {
        for good in ["/", "/a/b?c=d&e=//f", "/a//b", "/%2f%2fevil.example", "/@evil.example"] {
            assert_eq!(safe(good), good);
        }
        for bad in [
            "",
            "a",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "/\r\nSet-Cookie: a=b",
            "https://evil.example/",
            "javascript:alert(1)",
            " //evil",
            "*",
            "/caf\u{e9}",
            "/ngrok/logout",
            "/ngrok/callback?x",
        ] {
            assert_eq!(safe(bad), "/", "{bad:?}");
        }
        assert_eq!(safe(&format!("/{}", "a".repeat(1024))), "/");
    }
}
