//! `culvert service` with images: what is installed below a directory for each init system, and
//! what is refused. Real init systems are in `tests/system/init`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::home::{CULVERT, Home};

const TOKEN: &str = "2abcdefghijklmnopqrstuvwxyz_1234567890ABCDEFGHIJK";
const ENDPOINT: &str = "endpoints:\n  - name: web\n    upstream:\n      url: 80\n";

/// Paths of the scripts, and of a link that starts the service at boot.
const SYSTEMS: [(&str, &str, u32, &str); 6] = [
    (
        "systemd",
        "etc/systemd/system/gate.service",
        0o644,
        "etc/systemd/system/multi-user.target.wants/gate.service",
    ),
    ("procd", "etc/init.d/gate", 0o755, "etc/rc.d/S95gate"),
    ("openrc", "etc/init.d/gate", 0o755, "etc/runlevels/default/gate"),
    ("runit", "etc/sv/gate/run", 0o755, "etc/service/gate"),
    ("busybox", "etc/init.d/gate", 0o755, "etc/init.d/S90gate"),
    ("sysv", "etc/init.d/gate", 0o755, "etc/rc2.d/S90gate"),
];

/// An image with the program, a user and a configuration.
struct Image {
    home: Home,
}

impl Image {
    fn new() -> Image {
        let image = Image { home: Home::new() };
        for dir in ["etc/culvert", "usr/bin", "etc/init.d", "etc/service", "etc/rc2.d"] {
            fs::create_dir_all(image.at(dir)).unwrap();
        }
        fs::copy("/bin/sh", image.at("usr/bin/culvert")).unwrap();
        fs::write(image.at("etc/init.d/rcS"), "").unwrap();
        fs::write(image.at("etc/passwd"), "root:x:0:0::/:/bin/sh\nculvert:x:9:9::/:/bin/sh\n")
            .unwrap();
        image.configure(&format!("version: 3\nagent:\n  authtoken: {TOKEN}\n{ENDPOINT}"));
        image
    }

    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.home.path("image").join(path)
    }

    fn configure(&self, text: &str) {
        fs::write(self.at("etc/culvert/culvert.yml"), text).unwrap();
    }

    /// Runs `service COMMAND --root IMAGE`. Returns exit code and output.
    fn run(&self, command: &str, args: &[&str]) -> (i32, String) {
        let mut program = self.home.command(CULVERT);
        program.args(["service", command, "--root"]).arg(self.at("")).args(args);
        let output = program.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    fn install(&self, args: &[&str]) -> (i32, String) {
        self.run("install", &[&["--name", "gate"], args].concat())
    }

    /// Returns every file and link of the image.
    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut dirs = vec![self.at("")];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
                match entry.file_type().unwrap().is_dir() {
                    true => dirs.push(entry.path()),
                    false => found.push(entry.path()),
                }
            }
        }
        found.sort();
        found
    }
}

#[test]
fn each_init_system_gets_its_script_and_its_links_and_uninstall_leaves_nothing() {
    for (init, script, mode, link) in SYSTEMS {
        let image = Image::new();
        let before = image.files();
        let (code, text) = image.install(&["--init", init]);
        assert_eq!(code, 0, "{init}: {text}");
        assert!(text.contains(&format!("Service gate ({init}) is installed\n")), "{text}");
        let content = fs::read_to_string(image.at(script)).unwrap();
        assert!(content.contains("/etc/culvert/culvert.yml"), "{content}");
        let found = fs::metadata(image.at(script)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(found, mode, "{init}");
        let target = fs::read_link(image.at(link)).unwrap();
        let directory = image.at(link).parent().unwrap().to_owned();
        let target =
            target.strip_prefix("/").map_or(directory.join(&target), |path| image.at(path));
        assert!(target.exists(), "{init}: {target:?}");

        let installed = image.files();
        let (code, text) = image.install(&["--init", init]);
        assert_eq!(code, 0, "{init}: {text}");
        assert!(text.contains(&format!("Service gate ({init}) is installed already\n")), "{text}");
        assert_eq!(image.files(), installed, "{init}");

        let (code, text) = image.run("uninstall", &["--name", "gate", "--init", init]);
        assert_eq!(code, 0, "{init}: {text}");
        assert_eq!(image.files(), before, "{init}");
        let (code, text) = image.run("uninstall", &["--name", "gate", "--init", init]);
        assert_eq!((code, text.contains("is not installed")), (0, true), "{init}: {text}");
    }
}

#[test]
fn an_installation_with_other_settings_is_replaced_only_with_force() {
    let image = Image::new();
    assert_eq!(image.install(&["--init", "systemd"]).0, 0);
    let unit = image.at("etc/systemd/system/gate.service");
    let old = fs::read_to_string(&unit).unwrap();
    let (code, text) = image.install(&["--init", "systemd", "--user", "root"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("is installed with other settings; replace it with --force"), "{text}");
    assert_eq!(fs::read_to_string(&unit).unwrap(), old);
    let (code, text) = image.install(&["--init", "systemd", "--user", "root", "--force"]);
    assert_eq!((code, text.contains("is replaced")), (0, true), "{text}");
    assert!(fs::read_to_string(&unit).unwrap().contains("\nUser=root\n"));
}

#[test]
fn a_configuration_that_cannot_be_started_is_not_installed() {
    let image = Image::new();
    let before = image.files();
    for (config, part) in [
        ("version: 3\nagent: [", "culvert.yml:"),
        ("version: 3\nagent:\n  athtoken: x\n", "athtoken"),
        // The variable of the installation is not in the environment of the service.
        (&format!("version: 3\n{ENDPOINT}"), "no authtoken"),
    ] {
        image.configure(config);
        let (code, text) = image.install(&["--init", "systemd"]);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(part), "{part}: {text}");
        assert_eq!(image.files(), before, "{text}");
    }
    image.configure(&format!("version: 3\nagent:\n  authtoken: {TOKEN}\n"));
    let (code, text) = image.install(&["--init", "systemd"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("the configuration has no endpoints"), "{text}");
}

#[test]
fn a_service_of_somebody_else_is_not_touched() {
    let image = Image::new();
    let script = image.at("etc/init.d/gate");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    for command in ["install", "uninstall"] {
        let (code, text) = image.run(command, &["--name", "gate", "--init", "openrc"]);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("was not made by this command"), "{text}");
    }
    let (code, text) = image.install(&["--init", "openrc", "--force"]);
    assert_eq!(code, 1, "{text}");
    assert_eq!(fs::read_to_string(&script).unwrap(), "#!/bin/sh\n");
    assert!(!image.at("etc/runlevels").exists());

    fs::create_dir_all(image.at("usr/lib/systemd/system")).unwrap();
    fs::write(image.at("usr/lib/systemd/system/gate.service"), "").unwrap();
    let (code, text) = image.install(&["--init", "systemd"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("is the service of a package"), "{text}");
}

#[test]
fn an_unfinished_installation_leaves_nothing() {
    let image = Image::new();
    // A directory in the place of the second file.
    fs::create_dir_all(image.at("lib/upgrade")).unwrap();
    fs::write(image.at("lib/upgrade/keep.d"), "").unwrap();
    let before = image.files();
    let (code, text) = image.install(&["--init", "procd"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("keep.d"), "{text}");
    assert_eq!(image.files(), before);
    // A directory that other users can change, and one outside of the image.
    let dir = image.at("etc/systemd");
    fs::create_dir(&dir).unwrap();
    fs::create_dir(dir.join("system")).unwrap();
    fs::set_permissions(dir.join("system"), fs::Permissions::from_mode(0o777)).unwrap();
    let (code, text) = image.install(&["--init", "systemd"]);
    assert_eq!((code, text.contains("other users may change it")), (1, true), "{text}");
    fs::remove_dir(dir.join("system")).unwrap();
    let outside = image.home.path("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, dir.join("system")).unwrap();
    let (code, text) = image.install(&["--init", "systemd"]);
    assert_eq!((code, text.contains("leads out of")), (1, true), "{text}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let image = Image::new();
    for (args, code, part) in [
        (&["--name", "a/b"][..], 2, "--name must be a letter"),
        (&["--init", "upstart"], 2, "--init must be systemd, procd"),
        (&["--config", "culvert.yml"], 1, "is not absolute"),
        (&["--config", "/etc/a b.yml"], 1, "which an init script cannot hold"),
        (&["--config", "/etc/missing.yml"], 1, "does not exist"),
        (&["--now"], 2, "--now starts nothing in an image"),
        (&[], 1, "the init system is not known"),
    ] {
        let init = ["--init", "systemd"];
        let given = if args.is_empty() || args[0] == "--init" {
            args.to_vec()
        } else {
            [args, &init].concat()
        };
        // Without files by which an init system could be detected.
        let _ = fs::remove_file(image.at("etc/init.d/rcS"));
        let _ = fs::remove_dir(image.at("etc/rc2.d"));
        let (found, text) = image.run("install", &given);
        assert_eq!(found, code, "{args:?}: {text}");
        assert!(text.contains(part), "{args:?}: {text}");
    }
    fs::remove_file(image.at("usr/bin/culvert")).unwrap();
    let (code, text) = image.run("install", &["--init", "systemd"]);
    assert_eq!((code, text.contains("the program is missing in the image")), (1, true), "{text}");
}

#[test]
fn the_state_of_a_missing_service_is_unknown() {
    let home = Home::new();
    let mut program = home.command(CULVERT);
    let output =
        program.args(["service", "status", "--init", "sysv", "--name", "absent"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("absent (sysv) is not installed"), "{text}");
    let mut program = home.command(CULVERT);
    let output = program.args(["service", "status", "--name", "a/b"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn the_command_of_another_agents_unit_is_accepted() {
    let home = Home::new();
    let config = home.file("a.yml", "version: 3\nagent:\n  authtoken: x\n");
    let mut program = home.command(CULVERT);
    let output = program.args(["service", "run", "--config", &config]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("the configuration has no endpoints"), "{text}");
}
