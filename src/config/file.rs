//! Finds and reads configuration files in order, then the environment. Flags are applied later
//! and elsewhere.
//!
//! Later files have priority: options of the agent one by one, lists as a whole, tunnels and
//! endpoints by their name, each as a whole. Every call reads everything again, so that a
//! running agent can reload.

use std::env;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Cas;
use super::address::parse_edge;
use super::authtoken::trimmed;
use super::fault::{ConfigError, Fault};
use super::loaded::Loaded;
use super::read::merge::parse_all;
use crate::features;
use crate::proto::secret::Secret;
use crate::sys::file_mode::public_mode;
use crate::sys::{argv, fd_budget};

/// Maximum size of a file, in bytes. A real one has a few hundred.
const MAX_FILE: u64 = 256 << 10;

/// Variable with the addresses of edges, separated by commas.
const CONNECT_URL: &str = "CULVERT_CONNECT_URL";

/// Maximum number of files.
const MAX_FILES: usize = 16;

/// Path of the file on a machine whose users have no home.
const OF_THE_MACHINE: &str = "/etc/culvert/culvert.yml";

/// Returns the default paths in order of preference. In each directory `culvert.yml` precedes
/// `ngrok.yml`.
fn candidates(xdg: Option<&str>, home: Option<&str>) -> Vec<PathBuf> {
    let base = match (xdg, home) {
        (Some(xdg), _) => Some(PathBuf::from(xdg)),
        (None, Some(home)) => Some(Path::new(home).join(".config")),
        (None, None) => None,
    };
    let mut paths = Vec::new();
    if let Some(dir) = base {
        paths.extend(["culvert.yml", "ngrok.yml"].map(|name| dir.join("ngrok").join(name)));
    }
    // Of agent 2.
    paths.extend(home.map(|home| Path::new(home).join(".ngrok2").join("ngrok.yml")));
    paths.push(PathBuf::from(OF_THE_MACHINE));
    paths
}

/// Returns the default file: the first that exists. Else the path of a new one: below
/// `XDG_CONFIG_HOME`, else below `~/.config`, else the machine's path.
pub fn default_path() -> PathBuf {
    let (xdg, home) = (variable("XDG_CONFIG_HOME"), variable("HOME"));
    let paths = candidates(xdg.as_deref(), home.as_deref());
    // A dangling link counts as existing: an error is better than skipping it.
    let there = |path: &&PathBuf| path.exists() || path.is_symlink();
    let usual = || paths.iter().find(|path| path.ends_with("ngrok/ngrok.yml")).or(paths.last());
    paths.iter().find(there).or_else(usual).cloned().unwrap_or_default()
}

/// Returns the path to which `config upgrade --relocate` moves a file.
pub fn usual_path() -> PathBuf {
    let (xdg, home) = (variable("XDG_CONFIG_HOME"), variable("HOME"));
    let mut paths = candidates(xdg.as_deref(), home.as_deref()).into_iter();
    let usual = paths.find(|path| path.ends_with("ngrok/ngrok.yml"));
    usual.unwrap_or_else(|| PathBuf::from(OF_THE_MACHINE))
}

/// Returns the files to read: those of the command line, else of the environment, else the
/// default one.
pub fn paths(given: &[String]) -> (Vec<PathBuf>, Missing) {
    let from_environment = either_variable("CONFIG");
    let given: Vec<&str> = match (given, &from_environment) {
        ([], Some(text)) => vec![text],
        (given, _) => given.iter().map(String::as_str).collect(),
    };
    if given.is_empty() {
        return (vec![default_path()], Missing::Fine);
    }
    let paths = given.iter().flat_map(|text| text.split(','));
    (paths.filter(|p| !p.is_empty()).map(PathBuf::from).collect(), Missing::Error)
}

/// Consequence of a missing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// None: it is the default file.
    Fine,
    /// An error: the user named it.
    Error,
}

/// Reads the files that [`paths`] returns for `given`, then the environment.
pub fn load(given: &[String]) -> Result<Loaded, ConfigError> {
    load_with(given, None, None)
}

/// The same with the values of `--connect-url` and `--connect-cas` over it.
pub fn load_with(
    given: &[String],
    url: Option<&str>,
    cas: Option<&str>,
) -> Result<Loaded, ConfigError> {
    let (paths, missing) = paths(given);
    let from_environment = variable(CONNECT_URL);
    let mut start = Loaded::default();
    for text in url.or(from_environment.as_deref()).into_iter().flat_map(|text| text.split(',')) {
        let edge = parse_edge(text).map_err(|why| {
            let from = if url.is_some() { "--connect-url" } else { CONNECT_URL };
            ConfigError { files: vec![(from.into(), vec![Fault::of_file(why)])] }
        })?;
        start.edges.push(edge);
    }
    let mut loaded = read_all(&paths, missing, start)?;
    if let Some(cas) = cas.or(variable("CULVERT_CONNECT_CAS").as_deref()) {
        loaded.agent.connect_cas = Cas::from_text(cas);
    }
    if let Some(token) = either_variable("AUTHTOKEN") {
        loaded.agent.authtoken = Secret::new(trimmed(&token));
    }
    if let Some(key) = either_variable("API_KEY") {
        loaded.agent.api_key = Secret::new(trimmed(&key));
    }
    if features::API
        && let Some(url) = either_variable("API_BASE_URL")
    {
        loaded.agent.api_url = url;
    }
    Ok(loaded)
}

/// Reads one file only.
pub fn load_one(path: &Path) -> Result<Loaded, ConfigError> {
    load_files(&[path.to_owned()])
}

/// Reads these files only.
pub fn load_files(paths: &[PathBuf]) -> Result<Loaded, ConfigError> {
    read_all(paths, Missing::Error, Loaded::default())
}

/// Returns a warning for each file that contains a credential and that every user may read.
pub fn public_credentials(files: &[PathBuf]) -> Vec<String> {
    let warning = |path: &PathBuf| {
        let mode = public_mode(path)?;
        let agent = load_one(path).ok()?.agent;
        (!agent.authtoken.is_empty() || !agent.api_key.is_empty()).then(|| {
            let path = path.display();
            format!(
                "{path} contains a credential, and every user may read it (mode {mode:o}); \
                 use \"chmod 600 {path}\""
            )
        })
    };
    files.iter().filter_map(warning).collect()
}

/// Reads the text of one file. `Ok` without faults.
pub fn parse(text: &str) -> Result<Loaded, ConfigError> {
    let mut loaded = Loaded::default();
    let faults = parse_all(vec![text.to_owned()], &mut loaded).concat();
    if faults.is_empty() { Ok(loaded) } else { Err(ConfigError::of_faults(faults)) }
}

/// Returns a variable of the environment that is set and not empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the variable with our own prefix, else the vendor's.
fn either_variable(name: &str) -> Option<String> {
    ["CULVERT_", "NGROK_"].iter().find_map(|prefix| variable(&format!("{prefix}{name}")))
}

/// Reads files one over the other, over what `loaded` has.
fn read_all(
    paths: &[PathBuf],
    missing: Missing,
    mut loaded: Loaded,
) -> Result<Loaded, ConfigError> {
    let (mut texts, mut files) = (Vec::new(), Vec::new());
    if paths.len() > MAX_FILES {
        let message = format!("is one file too many; give {MAX_FILES} at most");
        let path = paths.get(MAX_FILES).cloned().unwrap_or_default();
        return Err(ConfigError { files: vec![(path, vec![Fault::of_file(message)])] });
    }
    for path in paths {
        match read(path) {
            Ok(text) => texts.push((path.clone(), text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && missing == Missing::Fine => {}
            Err(error) => files.push((path.clone(), vec![Fault::of_file(why(path, &error))])),
        }
    }
    if !files.is_empty() {
        return Err(ConfigError { files });
    }
    loaded.files = texts.iter().map(|(path, _)| path.clone()).collect();
    for path in &loaded.files {
        if path.parent().is_some_and(|dir| dir.ends_with(".ngrok2")) && missing == Missing::Fine {
            loaded.warnings.push(format!(
                "{} is at the path of agent 2; \"{} config upgrade --relocate\" moves it",
                path.display(),
                argv::program()
            ));
        }
    }
    let faults = parse_all(texts.iter().map(|(_, text)| text.clone()).collect(), &mut loaded);
    let files = texts.into_iter().map(|(path, _)| path).zip(faults);
    let files: Vec<_> = files.filter(|(_, faults)| !faults.is_empty()).collect();
    if files.is_empty() { Ok(loaded) } else { Err(ConfigError { files }) }
}

fn why(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "does not exist; correct --config, or create the file with \
             \"{} config add-authtoken TOKEN --config {}\"",
            argv::program(),
            path.display()
        ),
        io::ErrorKind::InvalidData => "is not UTF-8; save it as UTF-8".to_owned(),
        _ => format!("cannot be read: {}", fd_budget::words(error)),
    }
}

/// Reads the text of a configuration file, up to the maximum size.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it is longer than {} KiB", MAX_FILE >> 10)));
    }
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_without_a_word_about_them() {
        let shown = |xdg, home| -> Vec<String> {
            candidates(xdg, home).iter().map(|path| path.display().to_string()).collect()
        };
        let etc = "/etc/culvert/culvert.yml";
        assert_eq!(shown(None, None), [etc]);
        assert_eq!(
            shown(None, Some("/h")),
            [
                "/h/.config/ngrok/culvert.yml",
                "/h/.config/ngrok/ngrok.yml",
                "/h/.ngrok2/ngrok.yml",
                etc
            ]
        );
        assert_eq!(
            shown(Some("/x"), Some("/h"))[..2],
            ["/x/ngrok/culvert.yml", "/x/ngrok/ngrok.yml"]
        );
    }
}
