//! `config`: check the configuration file, change one option in it, edit it, bring it
//! to a newer version.

use std::env;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::parse::Typed;
use super::{FINE, Failure};
use crate::config::edit::{self, Setting};
use crate::config::file;
use crate::config::upgrade::{self, Upgraded};
use crate::log;
use crate::proto::secret::Secret;
use crate::sys::argv;

/// Longest value from standard input, in bytes.
const MAX_INPUT: u64 = 4096;

/// `add-authtoken` and the others that set one option.
pub(super) fn add(typed: &Typed, setting: Setting) -> Result<u8, Failure> {
    let path = one_file(typed)?;
    let value = match typed.words.first().map(String::as_str).unwrap_or_default() {
        "-" => from_input(setting)?,
        text => {
            if setting != Setting::ConnectUrl {
                argv::hide(text);
            }
            let value = Secret::new(text);
            setting.check(&value).map_err(Failure::usage)?;
            value
        }
    };
    edit::set(&path, setting, &value).map_err(Failure::failed)?;
    let what = match setting {
        Setting::Authtoken => "Authtoken",
        Setting::ApiKey => "API key",
        Setting::ConnectUrl => "Connect URL",
    };
    log::announce(&format!("{what} saved to configuration file: {}", path.display()));
    Ok(FINE)
}

fn from_input(setting: Setting) -> Result<Secret, Failure> {
    let mut text = String::new();
    match io::stdin().take(MAX_INPUT).read_to_string(&mut text) {
        Ok(_) => Ok(Secret::new(text.trim())),
        Err(error) => Err(Failure::failed(format!(
            "{} cannot be read from standard input: {error}",
            setting.key()
        ))),
    }
}

/// The file to change: a change has one place.
fn one_file(typed: &Typed) -> Result<PathBuf, Failure> {
    let (mut paths, _) = file::paths(&typed.list("config"));
    match (paths.pop(), paths.is_empty()) {
        (Some(path), true) => Ok(path),
        _ => Err(Failure::usage("a change goes to one file: give one --config")),
    }
}

pub(super) fn check(program: &str, typed: &Typed) -> Result<u8, Failure> {
    let given = typed.list("config");
    let loaded = match file::load(&given) {
        Ok(loaded) => loaded,
        Err(error) => {
            let bad = |path: &PathBuf| error.files.iter().any(|(file, _)| file == path);
            file::paths(&given).0.iter().filter(|path| !bad(path)).for_each(|path| valid(path));
            return Err(Failure::failed(error.to_string()));
        }
    };
    if loaded.files.is_empty() {
        return Err(Failure::failed(format!(
            "there is no configuration file at {}: make one with \
             \"{program} config add-authtoken TOKEN\"",
            file::default_path().display()
        )));
    }
    loaded.files.iter().for_each(|path| valid(path));
    for note in loaded.notes.iter().filter(|note| !note.off) {
        log::announce(&format!("{} is not used by this version", note.path));
    }
    for warning in &loaded.warnings {
        log::announce(warning);
    }
    Ok(FINE)
}

fn valid(path: &Path) {
    log::announce(&format!("Valid configuration file at {}", path.display()));
}

/// What becomes of `edit`: the editor; then the file is taken away again if it was made
/// for the editor, with the text `$2`, and still is as it was; then it is checked.
const EDIT: &str = r#"
if [ -n "$EDITOR" ]; then
    eval "$EDITOR \"\$1\""
elif command -v nano >/dev/null 2>&1; then
    nano "$1"
else
    vi "$1"
fi
status=$?
if [ -n "$2" ] && [ "$(cat "$1")" = "$2" ]; then
    rm -f "$1"
    echo "Nothing was written, no file was made"
    [ "$status" = 0 ] && exit
fi
if [ "$status" != 0 ]; then
    echo "ERROR:  the editor ended with status $status. Another one can be named in EDITOR." >&2
    exit 1
fi
exec "$0" config check --config "$1"
"#;

/// Opens the file in an editor and checks it afterwards. A faulty file is opened too:
/// to mend it is what an editor is for.
pub(super) fn edit(typed: &Typed) -> Result<u8, Failure> {
    let path = one_file(typed)?;
    // An editor would make a file that everybody can read.
    let new = edit::make(&path).map_err(Failure::failed)?;
    let program = env::current_exe().unwrap_or_else(|_| argv::program().into());
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", EDIT]).arg(program).arg(path).arg(new.unwrap_or_default().trim_end());
    let error = shell.exec();
    Err(Failure::failed(format!("no editor can be started by /bin/sh: {error}")))
}

pub(super) fn upgrade(typed: &Typed) -> Result<u8, Failure> {
    let path = one_file(typed)?;
    let to = typed.words.first().map(String::as_str).unwrap_or_default();
    let dry = typed.switch("dry-run") == Some(true);
    let usual = file::usual_path();
    let relocate = (typed.switch("relocate") == Some(true)).then_some(usual.as_path());
    let done = upgrade::upgrade(&path, to, relocate, dry).map_err(Failure::failed)?;
    let Some(Upgraded { from, to, diff, remarks, path: now, backup }) = done else {
        let text = format!("Nothing to do, it is up to date already: {}", path.display());
        log::announce(&text);
        return Ok(FINE);
    };
    log::announce_all(&diff);
    for remark in remarks {
        log::announce(&format!("Note: {remark}"));
    }
    let mut text = match dry {
        true => "Would upgrade".to_owned(),
        false => "Upgraded".to_owned(),
    };
    text.push_str(&format!(" configuration file from version {from} to {to}: "));
    text.push_str(&now.display().to_string());
    log::announce(&text);
    if let Some(backup) = backup {
        log::announce(&format!("The file as it was: {}", backup.display()));
    }
    if dry {
        log::announce("Nothing was written: leave out --dry-run to do it");
    }
    Ok(FINE)
}
