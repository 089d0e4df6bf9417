//! What a service needs of this machine: a program that stays and that no other user can
//! replace, a user to run as, and that no package has the service already.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::InitSystem;
use crate::sys;
use crate::sys::child::{ChildOutput, ChildProgram};

/// The user of the service by default. It is created if it is missing.
pub const DEFAULT_USER: &str = "culvert";

/// Directories that are empty after a restart of the machine.
const TEMPORARY: [&str; 6] = ["/tmp", "/var/tmp", "/dev/shm", "/run", "/var/run", "/var/volatile"];

/// Directories of the program in an image, and of programs that a script names without a path.
pub(super) const PROGRAM_DIRECTORIES: [&str; 4] = ["usr/bin", "usr/local/bin", "usr/sbin", "bin"];

/// Directories with units of packages.
pub(super) const PACKAGE_UNITS: [&str; 3] =
    ["usr/lib/systemd/system", "lib/systemd/system", "usr/local/lib/systemd/system"];

/// Creates a user: by useradd, by OpenWrt's functions, or by BusyBox's adduser.
const CREATE_USER: &str = r#"
if command -v useradd >/dev/null; then
	useradd -r -U -M -d / -s /bin/false "$1"
elif [ -r /lib/functions.sh ] && [ -r /etc/openwrt_release ]; then
	. /lib/functions.sh
	group_exists "$1" || group_add_next "$1" >/dev/null
	gid=$(sed -n "s/^$1:[^:]*:\([0-9]*\):.*/\1/p" /etc/group)
	user_add "$1" "" "$gid"
else
	addgroup -S "$1" && adduser -S -D -H -h / -s /bin/false -G "$1" "$1"
fi
"#;

/// Returns the path of this program, if it may be the program of a service.
pub fn program() -> Result<PathBuf, String> {
    let path =
        env::current_exe().map_err(|e| format!("the path of this program is not known: {e}"))?;
    check_program(&path).map(|()| path)
}

fn check_program(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let remedy = "copy it to /usr/local/bin and run it from there";
    if path.as_os_str().as_encoded_bytes().ends_with(b" (deleted)") {
        return Err(format!("{shown}: this program was removed or replaced; run it again"));
    }
    if TEMPORARY.iter().any(|directory| path.starts_with(directory)) || is_in_memory(path) {
        return Err(format!(
            "the program {shown} is in a temporary directory, which a restart empties; {remedy}"
        ));
    }
    super::check_path(path)?;
    for part in path.ancestors() {
        let metadata = fs::metadata(part).map_err(|e| format!("{}: {e}", part.display()))?;
        let sticky = metadata.is_dir() && metadata.mode() & 0o1000 != 0;
        if metadata.uid() != 0 || (metadata.mode() & 0o002 != 0 && !sticky) {
            return Err(format!(
                "another user than root can replace the program {shown}: {} belongs to user {}, \
                 mode {:o}; {remedy}",
                part.display(),
                metadata.uid(),
                metadata.mode() & 0o7777
            ));
        }
    }
    Ok(())
}

/// Returns whether the file system of `path` is in memory, and is not that of `/`: a system that
/// runs from memory has no other place.
fn is_in_memory(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    // Lines `source mount-point type options`. A later mount hides an earlier one.
    let mounts = table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let of_path = mounts.filter(|(point, _)| path.starts_with(point));
    let deepest = of_path.max_by_key(|(point, _)| point.len());
    deepest.is_some_and(|(point, kind)| point != "/" && matches!(kind, "tmpfs" | "ramfs"))
}

/// Refuses a configuration file that is lost at a restart of the machine.
pub fn check_config(path: &Path) -> Result<(), String> {
    if TEMPORARY.iter().any(|directory| path.starts_with(directory)) {
        return Err(format!(
            "the configuration file {} is in a temporary directory, which a restart empties; \
             move it, for example to /etc/culvert",
            path.display()
        ));
    }
    Ok(())
}

/// Returns the path that the program has in the image at `root`.
pub fn program_of_image(root: &Path) -> Result<PathBuf, String> {
    let found = PROGRAM_DIRECTORIES.iter().map(|dir| Path::new(dir).join("culvert")).find(|path| {
        let program = fs::metadata(root.join(path));
        program.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    });
    found.map(|path| Path::new("/").join(path)).ok_or_else(|| {
        format!(
            "the program is missing in the image; copy it to {} first",
            root.join("usr/bin/culvert").display()
        )
    })
}

/// Returns whether the system at `root` has this user.
pub fn has_user(root: &Path, user: &str) -> bool {
    let table = fs::read_to_string(root.join("etc/passwd")).unwrap_or_default();
    table.lines().any(|line| fields(line)[0] == user)
}

/// Continues as a user of this machine, with the user's groups.
pub fn become_user(user: &str) -> Result<(), String> {
    let table = |path| fs::read_to_string(path).unwrap_or_default();
    let mut ids = None;
    for line in table("/etc/passwd").lines() {
        let fields = fields(line);
        if fields[0] == user && ids.is_none() {
            ids = fields[2].parse::<u32>().ok().zip(fields[3].parse::<u32>().ok());
        }
    }
    let (uid, gid) = ids.ok_or_else(|| format!("the user {user} is missing in /etc/passwd"))?;
    let mut groups = vec![gid];
    for line in table("/etc/group").lines() {
        let fields = fields(line);
        if fields[3].split(',').any(|name| name == user) {
            groups.extend(fields[2].parse::<u32>().ok());
        }
    }
    sys::become_user(uid, &groups).map_err(|e| format!("cannot continue as user {user}: {e}"))
}

/// Returns the first fields of a line of `/etc/passwd` or `/etc/group`.
fn fields(line: &str) -> [&str; 4] {
    let mut fields = line.split(':');
    [(); 4].map(|()| fields.next().unwrap_or_default())
}

/// Creates the default user. Another missing user is an error.
pub fn ensure_user(user: &str) -> Result<bool, String> {
    if has_user(Path::new("/"), user) {
        return Ok(false);
    }
    if user != DEFAULT_USER {
        return Err(format!("the user {user} is missing; create it, or give another --user"));
    }
    let words = ["/bin/sh", "-c", CREATE_USER, "sh", user].map(OsStr::new);
    let shell = ChildProgram::new(&words, ChildOutput::Inherited);
    match shell.start().and_then(|mut child| child.wait()) {
        Ok(status) if status.success() && has_user(Path::new("/"), user) => Ok(true),
        _ => Err(format!(
            "the user {user} cannot be created; create it, or give another one, as in \
             --user root"
        )),
    }
}

/// Refuses a service that a package has. Its unit of systemd is in a directory of packages;
/// scripts are detected by their content when they are written.
pub fn check_package(root: &Path, init: InitSystem, name: &str) -> Result<(), String> {
    let unit = format!("{name}.service");
    let path =
        PACKAGE_UNITS.iter().map(|dir| root.join(dir).join(&unit)).find(|path| path.exists());
    match path {
        Some(path) if init == InitSystem::Systemd => Err(format!(
            "{} is the service of a package; use it (systemctl enable --now {name}), or give \
             another --name",
            path.display()
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_stay_is_refused() {
        for (path, part) in [
            ("/usr/bin/culvert (deleted)", "was removed"),
            ("/tmp/culvert", "temporary directory"),
            ("/dev/shm/x/culvert", "temporary directory"),
            ("/usr/bin/a program", "cannot hold"),
        ] {
            let error = check_program(path.as_ref()).expect_err(path);
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(check_program("/bin/sh".as_ref()), Ok(()));
    }

    #[test]
    fn an_image_without_the_program_is_refused() {
        let error = program_of_image("/nowhere".as_ref()).unwrap_err();
        assert!(error.contains("/nowhere/usr/bin/culvert"), "{error}");
    }
}
