//! `config`: check the configuration file, and save the authtoken in it.

use std::io::Read;
use std::path::PathBuf;

use super::parse::Typed;
use super::{FINE, Failure};
use crate::config::{edit, file};
use crate::log;
use crate::proto::secret::Secret;
use crate::sys::argv;

/// Longest token from standard input, in bytes.
const MAX_TOKEN: u64 = 4096;

pub(super) fn add_authtoken(typed: &Typed) -> Result<u8, Failure> {
    let path = one_file(&typed.list("config"))?;
    let token = match typed.words.first().map(String::as_str).unwrap_or_default() {
        "-" => from_input()?,
        token => {
            argv::hide(token);
            let token = Secret::new(token);
            edit::Setting::Authtoken.check(&token).map_err(Failure::usage)?;
            token
        }
    };
    edit::set(&path, edit::Setting::Authtoken, &token).map_err(Failure::failed)?;
    log::announce(&format!("Authtoken saved to configuration file: {}", path.display()));
    Ok(FINE)
}

fn from_input() -> Result<Secret, Failure> {
    let mut text = String::new();
    match std::io::stdin().take(MAX_TOKEN).read_to_string(&mut text) {
        Ok(_) => Ok(Secret::new(text.trim())),
        Err(error) => Err(Failure::failed(format!(
            "the authtoken cannot be read from standard input: {error}"
        ))),
    }
}

/// The file to change: a change has one place.
fn one_file(given: &[String]) -> Result<PathBuf, Failure> {
    let (mut paths, _) = file::paths(given);
    match (paths.pop(), paths.is_empty()) {
        (Some(path), true) => Ok(path),
        (Some(_), false) => {
            Err(Failure::usage("the authtoken goes to one file: give one --config"))
        }
        (None, _) => Err(Failure::failed(
            "there is no place for a configuration file: set HOME, or give --config FILE",
        )),
    }
}

pub(super) fn check(program: &str, typed: &Typed) -> Result<u8, Failure> {
    let loaded =
        file::load(&typed.list("config")).map_err(|error| Failure::failed(error.to_string()))?;
    if loaded.files.is_empty() {
        return Err(Failure::failed(format!(
            "there is no configuration file at {}: make one with \
             \"{program} config add-authtoken TOKEN\"",
            file::default_path().display()
        )));
    }
    for path in &loaded.files {
        log::announce(&format!("Valid configuration file at {}", path.display()));
    }
    for note in loaded.notes.iter().filter(|note| !note.off) {
        log::announce(&format!("{} is not used by this version", note.path));
    }
    Ok(FINE)
}
