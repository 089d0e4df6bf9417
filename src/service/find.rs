//! Finds the services that run a program, by the scripts and units of the init system. Calls no
//! program.

use std::fs;
use std::path::Path;

use super::InitSystem;
use super::machine::{PACKAGE_UNITS, PROGRAM_DIRECTORIES};

/// Directory with the units of an administrator and of this command.
const OWN_UNITS: &str = "etc/systemd/system";

/// Characters around the path of a program: quotes, and prefixes in a unit.
const AROUND: &str = "\"';-@:+!";

/// Returns the names of the services whose script or unit runs `program`.
pub fn services(root: &Path, init: InitSystem, program: &Path) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut add = |directory: &str, end: &str| {
        for entry in fs::read_dir(root.join(directory)).into_iter().flatten().flatten() {
            let (name, mut file) = (entry.file_name(), entry.path());
            let name = name.to_str().and_then(|name| name.strip_suffix(end)).unwrap_or_default();
            // A link with another name, such as `S90culvert`, is the same service. OpenRC's are
            // instances, and runit's are directories elsewhere.
            let is_same = file.is_symlink()
                && !matches!(init, InitSystem::OpenRc | InitSystem::Runit)
                && !fs::canonicalize(&file)
                    .is_ok_and(|target| target.file_name() == file.file_name());
            if name.is_empty() || is_same || names.iter().any(|known| known == name) {
                continue;
            }
            if init == InitSystem::Runit {
                file.push("run");
            }
            let settings = root.join("etc/default").join(name);
            if [file, settings].iter().any(|file| runs(root, init, file, program)) {
                names.push(name.to_owned());
            }
        }
    };
    match init {
        InitSystem::Systemd => {
            let directories = PACKAGE_UNITS.iter().chain([&OWN_UNITS]);
            directories.for_each(|directory| add(directory, ".service"));
        }
        InitSystem::Runit => add("etc/sv", ""),
        _ => add("etc/init.d", ""),
    }
    names
}

/// Returns whether a script, a unit or its settings run the program.
fn runs(root: &Path, init: InitSystem, file: &Path, program: &Path) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default().replace("\\\n", " ");
    // `PROGRAM=culvert` of the script for runit is the first program of this name in PATH.
    let by_name = program.file_name().and_then(|name| {
        let directories = PROGRAM_DIRECTORIES.iter().map(|directory| root.join(directory));
        let first = directories.filter_map(|dir| fs::canonicalize(dir.join(name)).ok()).next()?;
        (first == program).then(|| format!("PROGRAM={}", name.to_string_lossy()))
    });
    let is_program = |word: &str| {
        let path = match bare(word).split_once('=') {
            Some((key, value)) if !key.starts_with('/') => bare(value),
            _ => bare(word),
        };
        // Relative to the root also if that is not this machine's.
        path.strip_prefix('/').is_some_and(|path| {
            fs::canonicalize(root.join(path)).is_ok_and(|found| found == program)
        })
    };
    let is_command = |line: &&str| match init {
        InitSystem::Systemd => line.split('=').next().is_some_and(|key| key.trim() == "ExecStart"),
        _ => !line.starts_with('#'),
    };
    text.lines().map(str::trim).filter(is_command).any(|line| {
        let mut words = line.split_ascii_whitespace();
        // A unit that updates the program is not its service.
        by_name.as_deref() == Some(line)
            || (words.clone().any(is_program) && words.all(|word| bare(word) != "update"))
    })
}

fn bare(word: &str) -> &str {
    word.trim_matches(|c| AROUND.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Service;
    use crate::service::plan::plan;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Root {
            let path = fs::canonicalize(std::env::temp_dir()).unwrap();
            let path = path.join(format!("culvert-find-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            let root = Root(path);
            for program in ["usr/bin/culvert", "opt/culvert", "opt/culvert-edge"] {
                root.write(program, "");
            }
            root
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        /// Writes the files and links of a service as `service install` does.
        fn install(&self, init: InitSystem, name: &str, program: &str) {
            let service = Service {
                init,
                name: name.to_owned(),
                user: "tunnel".to_owned(),
                program: program.into(),
                configs: vec!["/etc/a.yml".into()],
            };
            let plan = plan(&service, &self.0);
            for file in &plan.files {
                self.write(file.path.to_str().unwrap(), &file.content);
            }
            for (path, target) in &plan.links {
                fs::create_dir_all(self.0.join(path).parent().unwrap()).unwrap();
                symlink(target, self.0.join(path)).unwrap();
            }
        }

        fn services(&self, init: InitSystem, program: &str) -> Vec<String> {
            let mut names = services(&self.0, init, &self.0.join(program));
            names.sort();
            names
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn services_are_found_under_every_name_and_init_system() {
        for init in InitSystem::ALL {
            let root = Root::new(init.name());
            root.write("etc/init.d/rcS", "");
            root.install(init, "home", "/usr/bin/culvert");
            root.install(init, "culvert", "/usr/bin/culvert");
            root.install(init, "other", "/opt/culvert");
            root.install(init, "edge", "/opt/culvert-edge");
            let found = |program| root.services(init, program);
            assert_eq!(found("usr/bin/culvert"), ["culvert", "home"], "{}", init.name());
            assert_eq!(found("opt/culvert"), ["other"], "{}", init.name());
            assert!(found("usr/bin/absent").is_empty());
        }
    }

    #[test]
    fn services_of_others_are_found_too() {
        let root = Root::new("others");
        symlink("usr/bin", root.0.join("bin")).unwrap();
        let unit = |name: &str, line: &str| {
            root.write(name, &format!("[Service]\n# /usr/bin/culvert\n{line}\n"));
        };
        unit("usr/lib/systemd/system/package.service", "ExecStart=/usr/bin/culvert start --all");
        unit("etc/systemd/system/package.service", "ExecStart=/usr/bin/culvert start --all");
        unit("etc/systemd/system/ngrok.service", "ExecStart=/bin/culvert \"service\" \"run\"");
        unit("etc/systemd/system/prefix.service", "ExecStart=-+/bin/culvert start --all");
        unit("etc/systemd/system/timer.service", "ExecStart=/usr/bin/culvert update --yes");
        unit("etc/systemd/system/quoted.service", "ExecStart=\"/usr/bin/culvert\" \"update\"");
        unit("etc/systemd/system/none.service", "ExecStart=/usr/bin/culvert-edge serve");
        unit("etc/systemd/system/space.service", "ExecStart = /usr/bin/culvert start");
        unit("etc/systemd/system/two-lines.service", "ExecStart=nice \\\n /usr/bin/culvert start");
        for (name, line) in [
            ("condition", "ConditionPathExists=/usr/bin/culvert"),
            ("before", "ExecStartPre=/usr/bin/culvert version"),
            ("comment", ";ExecStart=/usr/bin/culvert start"),
        ] {
            unit(&format!("etc/systemd/system/{name}.service"), line);
        }
        unit("etc/systemd/system/culvert.timer", "ExecStart=/usr/bin/culvert start");
        let found = root.services(InitSystem::Systemd, "usr/bin/culvert");
        assert_eq!(found, ["ngrok", "package", "prefix", "space", "two-lines"]);
        root.write("etc/sv/tunnel/run", "#!/bin/sh\nPROGRAM=culvert\nexec \"$PROGRAM\" start\n");
        root.write("etc/sv/other/run", "#!/bin/sh\nexec sleep 1\n");
        assert_eq!(root.services(InitSystem::Runit, "usr/bin/culvert"), ["tunnel"]);
        // Another program of this name comes first in PATH.
        assert!(root.services(InitSystem::Runit, "opt/culvert").is_empty());
        root.write("etc/init.d/moved", "#!/bin/sh\n. /etc/default/moved\n");
        root.write("etc/default/moved", "PROGRAM=/opt/culvert\n");
        assert_eq!(root.services(InitSystem::SysV, "opt/culvert"), ["moved"]);
    }

    #[test]
    fn linked_services_are_found_and_other_names_are_not() {
        let root = Root::new("links");
        let link = |path: &str, target: &str| {
            let path = root.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(root.0.join(target), path).unwrap();
        };
        root.write("etc/init.d/culvert", "PROGRAM=/usr/bin/culvert\n");
        link("etc/init.d/culvert.home", "etc/init.d/culvert");
        let found = |init| root.services(init, "usr/bin/culvert");
        assert_eq!(found(InitSystem::OpenRc), ["culvert", "culvert.home"]);
        assert_eq!(found(InitSystem::Busybox), ["culvert"]);
        root.write("opt/culvert.service", "ExecStart=/usr/bin/culvert start\n");
        link("etc/systemd/system/culvert.service", "opt/culvert.service");
        link("etc/systemd/system/alias.service", "opt/culvert.service");
        assert_eq!(found(InitSystem::Systemd), ["culvert"]);
        root.write("srv/sv/run", "PROGRAM=culvert\n");
        link("etc/sv/tunnel", "srv/sv");
        assert_eq!(found(InitSystem::Runit), ["tunnel"]);
    }
}
