//! What files and environment give together: the agent, the log, and what to report about
//! the files. Plain values.

use std::path::PathBuf;

use super::fault::UnusedKey;
use super::model::Agent;
use crate::logging::{Destination, Format, Level};

/// What files and environment say.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The agent, with every endpoint of the files.
    pub agent: Agent,
    /// The log.
    pub log: LogOptions,
    /// Keys without effect.
    pub notes: Vec<UnusedKey>,
    /// What works and should be written otherwise, a sentence each.
    pub warnings: Vec<String>,
    /// The files read, in order. Empty: there was none.
    pub files: Vec<PathBuf>,
}

/// Options of the log; `None` is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Where to.
    pub target: Option<Destination>,
    /// How it looks.
    pub format: Option<Format>,
    /// How much.
    pub level: Option<Level>,
}
