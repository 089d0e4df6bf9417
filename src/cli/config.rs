//! `config`: checks the configuration file, and changes one option in it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::exit::{CommandError, print};
use super::parse::ParsedCommand;
use crate::agent;
use crate::config::edit::{self, Setting};
use crate::config::file;
use crate::logging::line;
use crate::proto::secret::Secret;
use crate::sys::argv;

/// Maximum length of a value from standard input, in bytes.
const MAX_INPUT: u64 = 4096;

/// Runs `add-authtoken` and the other commands that set one option.
pub(super) fn add(typed: &ParsedCommand, setting: Setting) -> Result<u8, CommandError> {
    let path = one_file(typed)?;
    let value = match typed.words.first().map(String::as_str).unwrap_or_default() {
        "-" => from_input(setting)?,
        text => {
            if setting != Setting::ConnectUrl {
                argv::hide(text);
            }
            let value = Secret::new(text);
            setting.check(&value).map_err(CommandError::usage)?;
            value
        }
    };
    let public = edit::set(&path, setting, &value).map_err(CommandError::failed)?;
    let what = match setting {
        Setting::Authtoken => "Authtoken",
        Setting::ApiKey => "API key",
        Setting::ConnectUrl => "Connect URL",
    };
    let mut text = line(&format_args!("{what} saved to configuration file: {}", path.display()));
    if let Some(mode) = public {
        text.push_str(&line(&format_args!(
            "Its mode is now 600: with the old mode {mode:o} every user could read it"
        )));
    }
    print(&text)
}

fn from_input(setting: Setting) -> Result<Secret, CommandError> {
    let mut text = String::new();
    match io::stdin().take(MAX_INPUT).read_to_string(&mut text) {
        Ok(_) => Ok(Secret::new(text.trim())),
        Err(error) => Err(CommandError::failed(format!(
            "{} cannot be read from standard input: {error}",
            setting.key()
        ))),
    }
}

/// Returns the file to change. There must be only one.
pub(super) fn one_file(typed: &ParsedCommand) -> Result<PathBuf, CommandError> {
    let (mut paths, _) = file::paths(&typed.list("config"));
    match (paths.pop(), paths.is_empty()) {
        (Some(path), true) => Ok(path),
        _ => Err(CommandError::usage("only one file can be changed; give one --config")),
    }
}

pub(super) fn check(program: &str, typed: &ParsedCommand) -> Result<u8, CommandError> {
    let given = typed.list("config");
    let mut text = String::new();
    let mut valid = |path: &Path| {
        text.push_str(&line(&format_args!("Valid configuration file at {}", path.display())));
    };
    let loaded = match file::load(&given) {
        Ok(loaded) => loaded,
        Err(error) => {
            let bad = |path: &PathBuf| error.files.iter().any(|(file, _)| file == path);
            file::paths(&given).0.iter().filter(|path| !bad(path)).for_each(|path| valid(path));
            print(&text)?;
            return Err(CommandError::failed(error.to_string()));
        }
    };
    if loaded.files.is_empty() {
        return Err(CommandError::failed(format!(
            "{} does not exist; create it with \
             \"{program} config add-authtoken TOKEN\"",
            file::default_path().display()
        )));
    }
    // Errors that the agent would report at its start.
    agent::check(&loaded.agent).map_err(|why| CommandError::failed(format!("agent.{why}")))?;
    loaded.files.iter().for_each(|path| valid(path));
    for note in loaded.notes.iter().filter(|note| !note.off) {
        text.push_str(&line(&format_args!("{} is not used by this version", note.path)));
    }
    for warning in loaded.warnings.iter().chain(&file::public_credentials(&loaded.files)) {
        text.push_str(&line(warning));
    }
    print(&text)
}
