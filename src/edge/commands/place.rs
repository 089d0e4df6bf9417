//! Finds the state directory of the edge on this machine, as the commands name it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::edge::config::{DEFAULT_DIR, EdgeConfig};

/// Configuration that is used without a flag, if it exists.
const DEFAULT_CONFIG: &str = "edge.yml";

/// Returns the state directory: `--dir`, else that of the configuration, else the default.
pub fn state_dir(dir: Option<PathBuf>, config: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(dir) = dir {
        return Ok(dir);
    }
    let path = config.unwrap_or(Path::new(DEFAULT_CONFIG));
    match fs::read_to_string(path) {
        Ok(text) => EdgeConfig::serve(path, &text, Default::default()).map(|config| config.dir),
        Err(_) if config.is_none() => Ok(DEFAULT_DIR.into()),
        Err(e) => Err(format!(
            "cannot read the configuration {}: {e}; name the state directory with --dir",
            path.display()
        )),
    }
}
