//! Result of files and environment: the agent, the log, and remarks about the files. Plain
//! values.

use std::path::PathBuf;

use super::fault::UnusedKey;
use super::model::Agent;
use crate::logging::{Destination, Format, Level};

/// Result of files and environment.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The agent, with every endpoint of the files.
    pub agent: Agent,
    /// The log.
    pub log: LogOptions,
    /// Keys without effect.
    pub notes: Vec<UnusedKey>,
    /// Warnings about accepted but outdated notation, a sentence each.
    pub warnings: Vec<String>,
    /// The files that were read, in order. Empty without a file.
    pub files: Vec<PathBuf>,
    /// Edges of a flag or of the environment, which take precedence; empty for none.
    pub(super) edges: Vec<String>,
}

/// Options of the log; `None` is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Destination.
    pub target: Option<Destination>,
    /// Format of the lines.
    pub format: Option<Format>,
    /// Lowest level that is logged.
    pub level: Option<Level>,
}
