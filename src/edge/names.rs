//! Names that were online, saved in a file of the state directory. After a restart they are
//! reserved for their accounts for a limited time: visitors get a 503 and not a 404 until the
//! agents are back. The effect of a reservation is part of the registry.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::agents::registry::ReservedName;
use super::context::Edge;
use super::state::EdgeStateDir;
use crate::event;
use crate::sys;
use crate::time::Instant;

/// Maximum number of names in the file. Further ones get a 404 after a restart.
const MAX_NAMES: usize = 16_384;

/// Minimum time between two writes.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct NamesFile {
    names: Vec<ReservedName>,
}

/// Writes the file when names have changed, at most once a second.
#[derive(Debug, Default)]
pub struct NamesKeeper {
    last_write: Option<Instant>,
}

impl NamesKeeper {
    /// Writes the file if a write is due. Returns the time until the next write, or `None` if
    /// the file is up to date.
    pub fn save(&mut self, edge: &Edge) -> Option<Duration> {
        if !edge.registry.has_changed() {
            return None;
        }
        let now = sys::clock();
        let next = self.last_write.map_or(now, |last| last + WRITE_INTERVAL);
        let left = next.since(now);
        if !left.is_zero() {
            return Some(left);
        }
        self.last_write = Some(now);
        save_now(edge);
        None
    }
}

/// Writes the file now. Failures are logged.
pub fn save_now(edge: &Edge) {
    let names = edge.registry.take_names(MAX_NAMES);
    if let Err(error) = write(&edge.dir, names)
        && let Some(count) = edge.count_warning("names", 1)
    {
        event!(error, obj = "edge", "cannot save endpoint names", count = count, err = error);
    }
}

fn write(dir: &EdgeStateDir, names: Vec<ReservedName>) -> io::Result<()> {
    let mut text = serde_json::to_vec(&NamesFile { names }).map_err(io::Error::other)?;
    text.push(b'\n');
    dir.write_names(&text)
}

/// Reserves the names of the file for `hold` from now on, and opens their ports. A file that
/// cannot be read is logged and ignored.
pub fn restore(edge: &Edge, hold: Duration) {
    let names = edge.dir.read_names().and_then(|text| match text {
        None => Ok(Vec::new()),
        Some(text) => serde_json::from_str::<NamesFile>(&text)
            .map(|file| file.names)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e)),
    });
    match names {
        Ok(names) if !hold.is_zero() => {
            let config = edge.config();
            let names = names.into_iter().take(MAX_NAMES);
            let known = |name: &ReservedName| config.credentials.by_id(&name.account).is_some();
            for name in names.filter(known) {
                if name.port != 0 && edge.listeners.is_in_range(name.port) {
                    // A failure is reported when its agent binds the port.
                    let _ = edge.listeners.open_port(name.port);
                }
                edge.registry.restore(name, sys::clock() + hold);
            }
        }
        Ok(_) => {}
        Err(error) => {
            event!(warn, obj = "edge", "cannot read endpoint names", err = error);
        }
    }
}
