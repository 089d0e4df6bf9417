//! Faults of a configuration, and their text: one line for each. `read` finds them.

use std::fmt;
use std::path::PathBuf;

pub use super::document::Position;

/// Maximum number of faults of a file in one message.
pub(super) const MAX_FAULTS: usize = 20;

/// A valid key without effect in this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusedKey {
    /// `agent.web_addr`
    pub path: String,
    /// Its value disables something that does not exist here.
    pub off: bool,
}

/// A fault of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its position, if it has one.
    pub position: Option<Position>,
    /// Path of the key, `agent.log_levl`; empty for the whole file.
    pub path: String,
    /// Cause, and what to write instead. It continues the path.
    pub message: String,
}

impl Fault {
    pub(super) fn of_file(message: impl Into<String>) -> Self {
        Fault { position: None, path: String::new(), message: message.into() }
    }
}

/// Reason why files cannot be used: one line for each fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Files with their faults, at least one for each.
    pub files: Vec<(PathBuf, Vec<Fault>)>,
}

impl ConfigError {
    /// Creates an error without a file: the lines begin with the key.
    pub(super) fn of_faults(faults: Vec<Fault>) -> Self {
        ConfigError { files: vec![(PathBuf::new(), faults)] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut end = "";
        for (file, faults) in &self.files {
            let file = file.display().to_string();
            for fault in faults.iter().take(MAX_FAULTS) {
                f.write_str(end)?;
                end = "\n";
                if !file.is_empty() {
                    f.write_str(&file)?;
                    if let Some(position) = fault.position {
                        write!(f, ":{}:{}", position.line, position.column)?;
                    }
                    f.write_str(": ")?;
                }
                if !fault.path.is_empty() {
                    write!(f, "{} ", fault.path)?;
                }
                f.write_str(&fault.message)?;
            }
            match faults.len().saturating_sub(MAX_FAULTS) {
                0 => {}
                more => write!(f, "{end}{file}: {more} more faults")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
