//! Changes of a request's header that actions ask for. Applied where the head for the
//! upstream is written; no head is parsed here.

use std::sync::Arc;

/// Name and value of a header line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderLine {
    /// Name as it is sent.
    pub name: Arc<str>,
    /// Value without line breaks.
    pub value: Arc<str>,
}

/// Changes of a header: names are removed first, then lines are added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    removed: Vec<Arc<str>>,
    added: Vec<HeaderLine>,
    host: Option<Arc<str>>,
}

impl HeaderEdits {
    /// Removes all lines with this name.
    pub fn remove(&mut self, name: &Arc<str>) {
        self.removed.push(Arc::clone(name));
    }

    /// Adds a line.
    pub fn add(&mut self, line: &HeaderLine) {
        self.added.push(line.clone());
    }

    /// Replaces the value of `Host`.
    pub fn set_host(&mut self, host: &Arc<str>) {
        self.host = Some(Arc::clone(host));
    }

    /// Returns whether lines with this name are removed.
    pub fn removes(&self, name: &[u8]) -> bool {
        self.removed.iter().any(|removed| removed.as_bytes().eq_ignore_ascii_case(name))
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
