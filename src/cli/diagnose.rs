//! `diagnose`: prints the diagnosis of the way to the edge, and writes its report. The checks
//! are in [`crate::diagnose`].

use std::env;
use std::fs::{self, DirBuilder};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::exit::{CommandError, FAILED, FINE, print};
use super::parse::ParsedCommand;
use super::table::REGIONS;
use crate::config::file;
use crate::diagnose::{self, ALL, AUTO};
use crate::logging;

/// Value of `--write-report` for standard output.
const STANDARD_OUTPUT: &str = "-";

pub(super) fn run(typed: &ParsedCommand) -> Result<u8, CommandError> {
    let region = typed.text("region").unwrap_or(AUTO);
    if !REGIONS.contains(&region) {
        return Err(CommandError::usage(format!("--region must be one of {}", REGIONS.join(", "))));
    }
    let (url, cas) = (typed.text("connect-url"), typed.text("connect-cas"));
    let config = file::load_with(&typed.list("config"), url, cas)
        .map_err(|e| CommandError::failed(e.to_string()))?
        .agent;
    diagnose::check_region(&config, region).map_err(CommandError::usage)?;
    let file = typed.text("write-report").filter(|file| !file.is_empty());
    // The output is one of both: the report, or the text for people.
    let is_quiet = file == Some(STANDARD_OUTPUT);
    let mut show = |text: &str| match is_quiet {
        true => {
            eprint!("{text}");
            Ok(())
        }
        false => logging::print(text),
    };
    let ipv6 = typed.switch("ipv6") == Some(true);
    let done = diagnose::run(&config, region, ipv6, &mut show).map_err(CommandError::failed)?;
    let text = done.report + "\n";
    match file {
        Some(STANDARD_OUTPUT) => {
            print(&text)?;
        }
        Some(file) => written(Path::new(file), &text, &mut show)?,
        None if region == ALL => {
            let dir = temporary_directory().map_err(|e| {
                CommandError::failed(format!(
                    "cannot create a directory for the report: {e}; use --write-report FILE"
                ))
            })?;
            written(&dir.join("diagnose.json"), &text, &mut show)?;
        }
        None => {}
    }
    Ok(if done.is_fine { FINE } else { FAILED })
}

/// Writes the report, readable for this user only, and prints where it is.
fn written(path: &Path, text: &str, show: diagnose::Print<'_>) -> Result<(), CommandError> {
    let write = || {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())
    };
    write().map_err(|e| {
        CommandError::failed(format!("cannot write the report {}: {e}", path.display()))
    })?;
    show(&format!("\nReport written to {}\n", path.display())).map_err(CommandError::failed)
}

/// Creates a new directory for a report.
fn temporary_directory() -> std::io::Result<PathBuf> {
    let seed = crate::sys::random_seed();
    let dir = env::temp_dir().join(format!("culvert-diagnose{seed}"));
    DirBuilder::new().mode(0o700).create(&dir)?;
    Ok(dir)
}
