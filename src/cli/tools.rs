//! `config edit` and `config upgrade`: for editing the file on this machine. A build for
//! a machine without such users omits them.

use std::env;
use std::ffi::OsString;
use std::path::Path;

use super::config::one_file;
use super::exit::{CommandError, print};
use super::parse::ParsedCommand;
use crate::config::upgrade::{self, Upgraded};
use crate::config::{edit, file};
use crate::logging::line;
use crate::sys::{self, argv};

/// Script of `edit`: runs the editor. Then it removes a file that was created for the editor
/// with the text `$2` and was not changed. Then it checks the file.
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
    echo "Nothing was written, no file was created"
    [ "$status" = 0 ] && exit
fi
if [ "$status" != 0 ]; then
    echo "ERROR:  the editor failed with status $status; set EDITOR to use another one" >&2
    exit 1
fi
exec "$0" config check --config "$1"
"#;

/// Opens the file in an editor and checks it afterwards. An invalid file is opened too, so that
/// it can be repaired.
pub(super) fn edit(typed: &ParsedCommand) -> Result<u8, CommandError> {
    let path = one_file(typed)?;
    // The file that an editor creates would be readable for all users.
    let new = edit::make(&path).map_err(CommandError::failed)?;
    let program = env::current_exe().unwrap_or_else(|_| argv::program().into());
    let mut words = ["/bin/sh", "-c", EDIT].map(OsString::from).to_vec();
    words.extend([program.into(), path.into(), new.unwrap_or_default().trim_end().into()]);
    let error = sys::exec(Path::new("/bin/sh"), &words);
    Err(CommandError::failed(format!("cannot start an editor with /bin/sh: {error}")))
}

pub(super) fn upgrade(typed: &ParsedCommand) -> Result<u8, CommandError> {
    let path = one_file(typed)?;
    let to = typed.words.first().map(String::as_str).unwrap_or_default();
    let dry = typed.switch("dry-run") == Some(true);
    let usual = file::usual_path();
    let relocate = (typed.switch("relocate") == Some(true)).then_some(usual.as_path());
    let done = upgrade::upgrade(&path, to, relocate, dry).map_err(CommandError::failed)?;
    let Some(Upgraded { from, to, diff, remarks, path: now, backup }) = done else {
        let path = path.display();
        return print(&line(&format_args!("Nothing to do: {path} is up to date")));
    };
    let mut text = diff;
    for remark in remarks {
        text.push_str(&line(&format_args!("Note: {remark}")));
    }
    let done = if dry { "Would upgrade" } else { "Upgraded" };
    let now = now.display();
    text.push_str(&line(&format_args!(
        "{done} configuration file from version {from} to {to}: {now}"
    )));
    if let Some(backup) = backup {
        text.push_str(&line(&format_args!("Old file: {}", backup.display())));
    }
    if dry {
        text.push_str("Nothing was written; leave out --dry-run to write\n");
    }
    print(&text)
}
