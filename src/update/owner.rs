//! Other ways by which this machine updates the program: a package manager, or an image. An
//! update beside them is refused with their command.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::child;
use crate::sys::child::{ChildOutput, ChildProgram};

/// File of a package of this project: the command that updates it.
const MARKER: &str = "/usr/share/culvert/package-managed";

/// Time for a package manager to find the owner of a file: seconds on a fast machine.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(60);

/// Package managers: the arguments that find the owner of a file, and the command to use
/// instead. They print nothing or fail if the file has no owner.
const MANAGERS: &[(&[&str], &str)] = &[
    (&["dpkg", "-S"], "apt-get install --only-upgrade"),
    (&["opkg", "search"], "opkg upgrade"),
    (&["apk", "info", "--who-owns"], "apk upgrade"),
    (&["rpm", "-qf"], "dnf upgrade"),
];

/// The first program of a machine or a container. No machine starts the agent as its first one.
const FIRST_PROGRAM: &str = "/proc/1/exe";

/// Checks that nothing else updates the program. The error has the command to use.
pub fn check(program: &Path) -> Result<(), String> {
    if fs::read_link(FIRST_PROGRAM).is_ok_and(|first| first == program) {
        return Err("this container runs the program: update its image".to_owned());
    }
    if Path::new("/usr") == program.ancestors().nth(2).unwrap_or(program)
        && let Ok(text) = fs::read_to_string(MARKER)
    {
        return Err(instead(text.lines().next().unwrap_or_default()));
    }
    for (words, update) in MANAGERS {
        let mut words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        words.push(program.as_os_str());
        let manager = ChildProgram::new(&words, ChildOutput::Piped);
        // A manager that is not installed does not own the file.
        if let Ok(output) = child::run(&manager, SEARCH_TIMEOUT)
            && output.succeeded
            && !output.text.trim().is_empty()
        {
            let package = package(&output.text);
            return Err(instead(&format!("{update} {package}")));
        }
    }
    Ok(())
}

fn instead(command: &str) -> String {
    format!("the program belongs to a package; update it with: {command:.100}")
}

/// Returns the name of the package in the output of a manager, or nothing if it is not clear.
/// `culvert: /usr/bin/culvert`, `culvert - 0.1.0`, `/usr/bin/culvert is owned by culvert-0.1.0`,
/// `culvert-0.1.0-1.x86_64`.
fn package(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    let name = match line.split_once(" is owned by ") {
        Some((_, name)) => name,
        None => line.split([':', ' ']).next().unwrap_or_default(),
    };
    // The version begins at the first hyphen before a digit.
    let hyphens = name.match_indices('-').map(|(at, _)| at);
    let is_version = |at: &usize| name[at + 1..].starts_with(|c: char| c.is_ascii_digit());
    let end = hyphens.filter(|at| is_version(at)).min().unwrap_or(name.len());
    &name[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_is_found_in_the_output_of_its_manager() {
        for (text, name) in [
            ("culvert: /usr/bin/culvert\n", "culvert"),
            ("culvert:arm64: /usr/bin/culvert\n", "culvert"),
            ("culvert-tiny - 0.1.0-1\n", "culvert-tiny"),
            ("/usr/bin/culvert is owned by culvert-agent-0.1.0-r0\n", "culvert-agent"),
            ("culvert-0.1.0-1.x86_64\n", "culvert"),
            ("", ""),
        ] {
            assert_eq!(package(text), name, "{text}");
        }
    }

    #[test]
    fn a_file_of_a_package_is_refused_and_another_is_not() {
        // On a machine with dpkg.
        if Path::new("/var/lib/dpkg/info/coreutils.list").exists() {
            let why = check(Path::new("/usr/bin/env")).unwrap_err();
            assert!(why.contains("apt-get install --only-upgrade coreutils"), "{why}");
            let own = std::env::current_exe().unwrap();
            assert_eq!(check(&own), Ok(()));
        }
    }
}
