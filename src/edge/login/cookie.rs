//! Cookies of a login: their names, and the fields that read and set them (RFC 6265).

use std::fmt::Write;

/// Longest value of a cookie. Browsers keep 4,096 bytes with name and attributes.
pub const MAX_VALUE_BYTES: usize = 3800;

/// Kind of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginCookie {
    /// Session of a visitor.
    Session,
    /// Proof that a response of the provider is for this browser.
    Nonce,
}

/// How the cookies of one login are set.
#[derive(Clone, Copy, Debug)]
pub struct CookieScope<'a> {
    /// Distinguishes several logins of one host; may be empty.
    pub auth_id: &'a str,
    /// Domain that has the cookie; `None`: the host only.
    pub domain: Option<&'a str>,
    /// Whether the visitor came over TLS.
    pub tls: bool,
}

impl CookieScope<'_> {
    /// Returns the name of a cookie. Over TLS the prefix prevents that another host below the
    /// same domain sets it.
    pub fn name(&self, kind: LoginCookie) -> String {
        let kind = match kind {
            LoginCookie::Session => "session",
            LoginCookie::Nonce => "nonce",
        };
        let prefix = if self.tls && self.domain.is_none() { "__Host-" } else { "" };
        let dot = if self.auth_id.is_empty() { "" } else { "." };
        format!("{prefix}ngrok.{kind}{dot}{}", self.auth_id)
    }

    /// Returns the value of `Set-Cookie`. A lifetime of 0 removes the cookie.
    pub fn set(&self, kind: LoginCookie, value: &str, seconds: u64) -> String {
        let mut text = format!("{}={value}; Path=/; Max-Age={seconds}; HttpOnly", self.name(kind));
        if let Some(domain) = self.domain {
            // Writing to a String cannot fail.
            let _ = write!(text, "; Domain={domain}");
        }
        // Strict would keep it out of the provider's redirect back.
        text.push_str("; SameSite=Lax");
        if self.tls {
            text.push_str("; Secure");
        }
        text
    }
}

/// Returns the values of the cookies with this name, in their order.
pub fn values<'a>(
    fields: impl Iterator<Item = &'a [u8]>,
    name: &str,
) -> impl Iterator<Item = &'a str> {
    let pairs = fields.flat_map(|field| field.split(|b| *b == b';'));
    pairs.filter_map(move |pair| {
        let (given, value) = std::str::from_utf8(pair).ok()?.trim().split_once('=')?;
        (given == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_protect_a_cookie() {
        let plain = CookieScope { auth_id: "", domain: None, tls: false };
        let set = plain.set(LoginCookie::Session, "v", 60);
        assert_eq!(set, "ngrok.session=v; Path=/; Max-Age=60; HttpOnly; SameSite=Lax");
        let tls = CookieScope { auth_id: "a", tls: true, ..plain };
        let set = tls.set(LoginCookie::Nonce, "v", 0);
        assert!(set.starts_with("__Host-ngrok.nonce.a=v; Path=/; Max-Age=0;"), "{set}");
        assert!(set.ends_with("; Secure"), "{set}");
        let wide = CookieScope { domain: Some("a.example"), ..tls };
        let set = wide.set(LoginCookie::Session, "v", 1);
        assert!(set.starts_with("ngrok.session.a=") && set.contains("; Domain=a.example"), "{set}");
    }

    #[test]
    fn cookies_are_found_by_name() {
        let fields = [&b"a=1; ngrok.session=x=y"[..], b"ngrok.session=z;b", b"\xff=1", b""];
        let found: Vec<&str> = values(fields.into_iter(), "ngrok.session").collect();
        assert_eq!(found, ["x=y", "z"]);
        assert_eq!(values(fields.into_iter(), "session").count(), 0);
    }
}
