//! What is wrong in a configuration, and how a user sees it: one line for each fault.
//! Finding faults is the task of `read`.

use std::fmt;
use std::path::PathBuf;

pub use super::document::Position;

/// Most faults of a file that one message shows.
pub(super) const MAX_FAULTS: usize = 20;

/// A key that may stand there and has no effect in this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusedKey {
    /// `agent.web_addr`
    pub path: String,
    /// Its value switches something off that is not there anyway.
    pub off: bool,
}

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, if it is at a place.
    pub position: Option<Position>,
    /// The key, `agent.log_levl`; empty for the file as such.
    pub path: String,
    /// What is wrong and what to write instead. Continues the path.
    pub message: String,
}

impl Fault {
    pub(super) fn of_file(message: impl Into<String>) -> Self {
        Fault { position: None, path: String::new(), message: message.into() }
    }
}

/// Why files cannot be used: one line for each fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The files and what is wrong with each, one fault at least.
    pub files: Vec<(PathBuf, Vec<Fault>)>,
}

impl ConfigError {
    /// For what comes from no file: the lines begin with the key.
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
