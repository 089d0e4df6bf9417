//! Changes of a request that actions ask for. Applied where the request for the upstream is
//! written; no head is parsed here.

use std::sync::Arc;

/// Name and value of a header line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderLine {
    /// Name as it is sent.
    pub name: Arc<str>,
    /// Value without line breaks.
    pub value: Arc<str>,
}

/// Changes of a request. Received lines are removed, then lines are added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    removed: Vec<Arc<str>>,
    added: Vec<HeaderLine>,
    host: Option<Arc<str>>,
    target: Option<String>,
    body: Option<Vec<u8>>,
    response: Vec<HeaderLine>,
}

impl HeaderEdits {
    /// Removes all lines with this name, also those that were added before.
    pub fn remove(&mut self, name: &Arc<str>) {
        self.added.retain(|line| !line.name.eq_ignore_ascii_case(name));
        self.removed.push(Arc::clone(name));
    }

    /// Adds a line.
    pub fn add(&mut self, line: &HeaderLine) {
        self.added.push(line.clone());
    }

    /// Adds a line to the header of the response.
    pub fn add_to_response(&mut self, line: HeaderLine) {
        self.response.push(line);
    }

    /// Returns the lines to add to the header of the response.
    pub fn response_lines(&self) -> &[HeaderLine] {
        &self.response
    }

    /// Replaces the value of `Host`.
    pub fn set_host(&mut self, host: &Arc<str>) {
        self.host = Some(Arc::clone(host));
    }

    /// Replaces path and query. The text must be a valid target that begins with a slash.
    pub fn set_target(&mut self, target: String) {
        self.target = Some(target);
    }

    /// Returns the new path and query.
    pub fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    /// Replaces the body.
    pub fn set_body(&mut self, body: Vec<u8>) {
        self.body = Some(body);
    }

    /// Returns the new body.
    pub fn body(&self) -> Option<&[u8]> {
        self.body.as_deref()
    }

    /// Returns whether lines with this name are removed. CGI and its relatives read `X_Name` as
    /// `X-Name`: the removal of the second one removes both.
    pub fn removes(&self, name: &[u8]) -> bool {
        let same = |(a, b): (&u8, &u8)| a.eq_ignore_ascii_case(b) || (*a, *b) == (b'_', b'-');
        self.removed.iter().any(|removed| {
            let removed = removed.as_bytes();
            removed.len() == name.len() && name.iter().zip(removed).all(same)
        })
    }

    /// Returns the new value of `Host`.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// Returns the lines to add.
    pub fn added(&self) -> &[HeaderLine] {
        &self.added
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_removal_of_a_name_includes_its_spelling_with_underscores() {
        let mut edits = HeaderEdits::default();
        edits.remove(&"ngrok-auth-user-email".into());
        for name in ["Ngrok-Auth-User-Email", "ngrok_auth_user_email", "NGROK-Auth_User-email"] {
            assert!(edits.removes(name.as_bytes()), "{name}");
        }
        for name in ["ngrok-auth-user-emai", "ngrok-auth-user-emails", "ngrok+auth-user-email"] {
            assert!(!edits.removes(name.as_bytes()), "{name}");
        }
        edits.remove(&"x_plain".into());
        assert!(edits.removes(b"X_Plain") && !edits.removes(b"X-Plain"));
    }
}
