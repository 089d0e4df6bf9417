//! Detection of the init system of a machine or of an image, by its files. Calls no program.

use std::fs;
use std::path::Path;

use super::InitSystem;

/// Files that container engines create.
const CONTAINER_FILES: [&str; 2] = [".dockerenv", "run/.containerenv"];

/// Programs of OpenRC that run its scripts.
const OPENRC_PROGRAMS: [&str; 3] = ["sbin/openrc-run", "usr/sbin/openrc-run", "usr/bin/openrc-run"];

/// Directories of a run level of SysV.
const RUN_LEVELS: [&str; 2] = ["etc/rc2.d", "etc/rc.d/rc2.d"];

/// Detects the init system that runs on this machine. `root` is its root directory.
pub fn running(root: &Path) -> Result<InitSystem, String> {
    let has = |path| has_any(root, &[path]);
    let process = fs::read_to_string(root.join("proc/1/comm")).unwrap_or_default();
    let process = process.trim();
    if is_container(root) {
        return Err(in_container("this is a container"));
    }
    let found = if is_openwrt(root) {
        InitSystem::Procd
    } else if has("run/systemd/system") {
        InitSystem::Systemd
    } else if has("run/openrc") {
        InitSystem::OpenRc
    } else if has("run/runit") || process == "runit" || process == "runsvdir" {
        InitSystem::Runit
    } else if matches!(process, "s6-svscan" | "dinit") {
        return Err(format!(
            "the init system {process} is not supported; run \"culvert start --all\" as a \
             service of it"
        ));
    } else if !matches!(process, "init" | "linuxrc" | "busybox" | "") {
        return Err(in_container(&format!(
            "process 1 is {process}, which is not a known init system"
        )));
    } else if has_any(root, &OPENRC_PROGRAMS) {
        InitSystem::OpenRc
    } else if ["sbin/init", "proc/1/exe"].iter().any(|path| is_busybox(&root.join(path))) {
        InitSystem::Busybox
    } else if has_any(root, &RUN_LEVELS) {
        InitSystem::SysV
    } else {
        return Err(unknown());
    };
    Ok(found)
}

/// Detects the init system that an image will run. `root` is its root directory.
pub fn of_image(root: &Path) -> Result<InitSystem, String> {
    if is_openwrt(root) {
        Ok(InitSystem::Procd)
    } else if has_any(root, &["lib/systemd/systemd", "usr/lib/systemd/systemd"]) {
        Ok(InitSystem::Systemd)
    } else if has_any(root, &OPENRC_PROGRAMS) {
        Ok(InitSystem::OpenRc)
    } else if has_any(root, &["etc/runit"]) {
        Ok(InitSystem::Runit)
    } else if has_any(root, &RUN_LEVELS) {
        Ok(InitSystem::SysV)
    } else if has_any(root, &["etc/init.d/rcS"]) {
        Ok(InitSystem::Busybox)
    } else {
        Err(unknown())
    }
}

/// Returns whether a container engine has created the system at `root`.
pub fn is_container(root: &Path) -> bool {
    has_any(root, &CONTAINER_FILES)
}

fn is_openwrt(root: &Path) -> bool {
    let has = |path| has_any(root, &[path]);
    has("etc/openwrt_release") || (has("sbin/procd") && has("etc/rc.common"))
}

fn is_busybox(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|program| program.ends_with("busybox"))
}

fn has_any(root: &Path, paths: &[&str]) -> bool {
    paths.iter().any(|path| root.join(path).exists())
}

fn in_container(what: &str) -> String {
    format!(
        "{what}: services are the work of its host; run \"culvert start --all\" as the command \
         of the container, or name the init system with --init"
    )
}

fn unknown() -> String {
    format!("the init system is not known; name it with --init ({})", super::NAMES.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    struct Root(PathBuf);

    impl Root {
        fn with(name: &str, paths: &[&str]) -> Root {
            let root =
                std::env::temp_dir().join(format!("culvert-detect-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&root);
            for path in paths {
                let (path, content) = path.split_once('=').unwrap_or((path, ""));
                let at = root.join(path);
                fs::create_dir_all(at.parent().unwrap()).unwrap();
                match content.strip_prefix('>') {
                    Some(target) => std::os::unix::fs::symlink(target, at).unwrap(),
                    None => fs::write(at, content).unwrap(),
                }
            }
            Root(root)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_running_init_system_is_detected() {
        let procd = "etc/openwrt_release";
        for (n, (paths, expected)) in [
            (&["proc/1/comm=systemd\n", "run/systemd/system/x"][..], "systemd"),
            (&["proc/1/comm=procd\n", procd, "etc/init.d/rcS"], "procd"),
            (&["proc/1/comm=procd\n", "sbin/procd", "etc/rc.common"], "procd"),
            (&["proc/1/comm=init\n", "run/openrc/x", "sbin/init=>/bin/busybox"], "openrc"),
            (&["proc/1/comm=init\n", "sbin/openrc-run"], "openrc"),
            (&["proc/1/comm=runit\n"], "runit"),
            (&["proc/1/comm=init\n", "sbin/init=>../bin/busybox", "etc/rc2.d/x"], "busybox"),
            (&["proc/1/comm=linuxrc\n", "proc/1/exe=>/bin/busybox"], "busybox"),
            (&["proc/1/comm=init\n", "etc/rc2.d/x"], "sysv"),
            (&["proc/1/comm=init\n", "etc/rc.d/rc2.d/x"], "sysv"),
        ]
        .into_iter()
        .enumerate()
        {
            let root = Root::with(&n.to_string(), paths);
            assert_eq!(running(&root.0).map(InitSystem::name), Ok(expected), "{paths:?}");
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (n, (paths, part)) in [
            (&["proc/1/comm=systemd\n", ".dockerenv", "run/systemd/system/x"][..], "container"),
            (&["run/.containerenv"], "container"),
            (&["proc/1/comm=sh\n", "etc/rc2.d/x"], "process 1 is sh"),
            (&["proc/1/comm=s6-svscan\n"], "s6-svscan"),
            (&["proc/1/comm=dinit\n"], "dinit"),
            (&["proc/1/comm=init\n"], "--init (systemd, procd"),
        ]
        .into_iter()
        .enumerate()
        {
            let root = Root::with(&format!("bad{n}"), paths);
            let error = running(&root.0).expect_err(part);
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_init_system_of_an_image_is_detected() {
        for (n, (paths, expected)) in [
            (&["usr/lib/systemd/systemd", "etc/rc2.d/x", ".dockerenv"][..], "systemd"),
            (&["etc/openwrt_release"], "procd"),
            (&["sbin/openrc-run"], "openrc"),
            (&["etc/runit/1"], "runit"),
            (&["etc/init.d/rcS"], "busybox"),
            (&["etc/init.d/rcS", "etc/rc2.d/x"], "sysv"),
        ]
        .into_iter()
        .enumerate()
        {
            let root = Root::with(&format!("image{n}"), paths);
            assert_eq!(of_image(&root.0).map(InitSystem::name), Ok(expected), "{paths:?}");
        }
        let empty = Root::with("empty", &["etc/passwd"]);
        assert!(of_image(&empty.0).is_err());
    }
}
