//! Finds the configuration and the state directory of the edge on this machine, as the commands
//! name them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::edge::config::{DEFAULT_DIR, EdgeConfig};

/// Configuration that is used without a flag, if it exists.
const DEFAULT_CONFIG: &str = "edge.yml";

/// Returns the state directory: `--dir`, else that of the configuration, else the default.
pub fn state_dir(dir: Option<PathBuf>, config: Option<&Path>) -> Result<PathBuf, String> {
    match dir {
        Some(dir) => Ok(dir),
        None => Ok(edge_config(config)?.map_or_else(|| DEFAULT_DIR.into(), |config| config.dir)),
    }
}

/// Returns the configuration: that of `--config`, else `edge.yml` if it exists.
pub fn edge_config(config: Option<&Path>) -> Result<Option<EdgeConfig>, String> {
    let path = config.unwrap_or(Path::new(DEFAULT_CONFIG));
    match fs::read_to_string(path) {
        Ok(text) => EdgeConfig::serve(path, &text, Default::default()).map(Some),
        Err(_) if config.is_none() => Ok(None),
        Err(e) => Err(format!(
            "cannot read the configuration {}: {e}; name the state directory with --dir",
            path.display()
        )),
    }
}
