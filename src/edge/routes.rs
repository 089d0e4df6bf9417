//! Routes of the configuration: a host and the labels of the tunnels that serve it.

use std::collections::BTreeMap;

/// Labels of a tunnel, or those that a route selects.
pub type Labels = BTreeMap<String, String>;

/// A host for labelled tunnels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRoute {
    /// The host (perhaps `*.x`), lower case.
    pub host: String,
    /// Labels that a tunnel must have. It may have others.
    pub labels: Labels,
}

impl LabelRoute {
    /// Returns whether a tunnel with these labels serves the host.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.labels.iter().all(|(name, value)| labels.get(name) == Some(value))
    }
}
