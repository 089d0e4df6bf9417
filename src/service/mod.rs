//! `service`: installs the agent as a service of the init system of a machine or of an image,
//! removes it, and calls the init system. The scripts are those of `cross/init` and
//! `cross/openwrt`, filled in by `plan`.
//!
//! The command line does not belong here, and neither does the agent: validation of the
//! configuration is an argument.

pub mod detect;
pub mod find;
pub mod install;
pub mod machine;
pub mod manager;
pub mod plan;

use std::path::PathBuf;

/// A supported init system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitSystem {
    /// systemd.
    Systemd,
    /// procd of OpenWrt.
    Procd,
    /// OpenRC.
    OpenRc,
    /// runit, also that of BusyBox.
    Runit,
    /// BusyBox's init with `/etc/init.d/rcS`.
    Busybox,
    /// SysV init with run levels.
    SysV,
}

/// Names of the init systems, for `--init`.
pub const NAMES: &[&str] = &["systemd", "procd", "openrc", "runit", "busybox", "sysv"];

impl InitSystem {
    const ALL: [InitSystem; NAMES.len()] = [
        InitSystem::Systemd,
        InitSystem::Procd,
        InitSystem::OpenRc,
        InitSystem::Runit,
        InitSystem::Busybox,
        InitSystem::SysV,
    ];

    /// Returns the system of this name.
    pub fn from_name(name: &str) -> Option<InitSystem> {
        Self::ALL.into_iter().find(|init| init.name() == name)
    }

    /// Returns the name, as in `--init`.
    pub fn name(self) -> &'static str {
        NAMES[self as usize]
    }
}

/// A service to install.
#[derive(Clone, Debug)]
pub struct Service {
    /// The init system.
    pub init: InitSystem,
    /// Name of the service.
    pub name: String,
    /// User of the agent.
    pub user: String,
    /// Path of the program.
    pub program: PathBuf,
    /// Paths of the configuration files, in order.
    pub configs: Vec<PathBuf>,
}

/// Longest name of a service.
const MAX_NAME: usize = 32;

/// Checks the name of a service: it is a part of paths and of shell scripts.
pub fn check_name(name: &str) -> Result<(), String> {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match starts && name.chars().all(plain) && name.len() <= MAX_NAME {
        true => Ok(()),
        false => {
            Err(format!("must be a letter and at most {} letters, digits, - or _", MAX_NAME - 1))
        }
    }
}

/// Checks a path that is filled into a script: an absolute one without characters that a shell
/// or a unit of systemd interprets.
pub fn check_path(path: &std::path::Path) -> Result<(), String> {
    let shown = path.display();
    let Some(text) = path.to_str() else {
        return Err(format!("the path {shown} is not UTF-8; use another path"));
    };
    // Beyond ASCII neither interprets a character. A table of letters would be 3 KB.
    let beyond = |c: char| !c.is_ascii() && !c.is_whitespace() && !c.is_control();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,=".contains(c) || beyond(c);
    match text.chars().find(|c| !plain(*c)) {
        None if path.is_absolute() => Ok(()),
        None => Err(format!("the path {shown} is not absolute; write the whole path")),
        Some(c) => Err(format!(
            "the path {text:?} contains {c:?}, which an init script cannot hold; use another path"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_init_system_has_its_name() {
        for init in InitSystem::ALL {
            assert_eq!(InitSystem::from_name(init.name()), Some(init));
        }
        assert_eq!(InitSystem::OpenRc.name(), "openrc");
        assert_eq!(InitSystem::from_name("upstart"), None);
    }

    #[test]
    fn names_and_paths_that_a_script_cannot_hold_are_refused() {
        for name in ["", "-x", "1a", "a/b", "a b", "a.b", "a$b", "ä", &"a".repeat(33)] {
            assert!(check_name(name).is_err(), "{name}");
        }
        for name in ["culvert", "culvert-2", "a_b", "C3"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for path in ["/etc/culvert/culvert.yml", "/home/ä/x.yml", "/a,b=c+d@e:f-g_h.yml"] {
            assert_eq!(check_path(path.as_ref()), Ok(()), "{path}");
        }
        for path in [
            "x.yml",
            "/a b",
            "/a'b",
            "/a$b",
            "/a%b",
            "/a;b",
            "/a\nb",
            "/a*b",
            "/a\\b",
            "/a\u{85}b",
            "/a\u{2028}b",
        ] {
            assert!(check_path(path.as_ref()).is_err(), "{path}");
        }
    }
}
