//! Files and links of a service: the scripts of `cross/init` and `cross/openwrt`, filled in.
//! Decides what is written and writes nothing.

use std::path::{Path, PathBuf};

use super::{InitSystem, Service};

/// Returns a script of the sources without its comments: a quarter of the bytes, in a program
/// that has to be small.
macro_rules! script {
    ($path:literal) => {{
        const TEXT: &[u8] = include_bytes!($path);
        const LENGTH: usize = strip(TEXT, &mut []);
        const STRIPPED: [u8; LENGTH] = {
            let mut stripped = [0; LENGTH];
            strip(TEXT, &mut stripped);
            stripped
        };
        match std::str::from_utf8(&STRIPPED) {
            Ok(text) => text,
            // Reason: evaluated by the compiler, which then fails.
            Err(_) => panic!("the script is not UTF-8"),
        }
    }};
}

/// Copies the lines of a script that are not comments, as far as `out` has room for them.
/// Returns their length. The first line, which names the interpreter, and the header of LSB
/// between two lines with `###` stay.
const fn strip(text: &[u8], out: &mut [u8]) -> usize {
    let (mut start, mut length, mut header) = (0, 0, false);
    while start < text.len() {
        let mut end = start;
        while end < text.len() && text[end] != b'\n' {
            end += 1;
        }
        let mut first = start;
        while first < end && (text[first] == b' ' || text[first] == b'\t') {
            first += 1;
        }
        let comment = first < end && text[first] == b'#';
        let edge = comment && first + 1 < end && text[first + 1] == b'#';
        header = header != edge;
        if start == 0 || !comment || header || edge {
            let mut at = start;
            while at <= end && at < text.len() {
                if length < out.len() {
                    out[length] = text[at];
                }
                (length, at) = (length + 1, at + 1);
            }
        }
        start = end + 1;
    }
    length
}

const SYSTEMD: &str = script!("../../cross/init/culvert.service");
const OPENRC: &str = script!("../../cross/init/culvert.openrc");
const SYSV: &str = script!("../../cross/init/culvert.init");
const RUNIT_RUN: &str = script!("../../cross/init/runit/run");
const RUNIT_FINISH: &str = script!("../../cross/init/runit/finish");
const RUNIT_LOG: &str = script!("../../cross/init/runit/log/run");
const PROCD: &str = script!("../../cross/openwrt/culvert.init");

/// Begin of the line that marks files of this command. The arguments of the installation
/// follow.
pub const MARK: &str = "# made by: culvert service install";

/// Files and links of a service. Paths are relative to the root directory.
pub struct Plan {
    /// The files. The first one is the script or the unit.
    pub files: Vec<PlannedFile>,
    /// Links that start the service at boot: path and target.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Files and directories that the running service creates.
    pub traces: Vec<PathBuf>,
    /// What the user has to do; empty for nothing.
    pub remark: String,
}

/// A file of a service.
pub struct PlannedFile {
    /// Its path.
    pub path: PathBuf,
    /// Its content.
    pub content: String,
    /// Its permissions.
    pub mode: u32,
}

/// Texts of a script, each with its replacement. `@key@` in a replacement is a value of the
/// service. Tables and not code: a fifth of the bytes.
type Changes = &'static [(&'static str, &'static str)];

/// What an init system has of a service. `@key@` is a value of the service.
struct Layout {
    /// Path, script, changes of the script, permissions.
    files: &'static [(&'static str, &'static str, Changes, u32)],
    /// Links: path and target.
    links: &'static [(&'static str, &'static str)],
    traces: &'static [&'static str],
}

const SYSTEMD_LAYOUT: Layout = Layout {
    files: &[("etc/systemd/system/@name@.service", SYSTEMD, SYSTEMD_CHANGES, 0o644)],
    links: &[(
        "etc/systemd/system/multi-user.target.wants/@name@.service",
        "/etc/systemd/system/@name@.service",
    )],
    traces: &["var/lib/@own@"],
};

const SYSTEMD_CHANGES: Changes = &[
    ("Documentation=file:/usr/share/doc/culvert/README.md\n", ""),
    ("ConfigurationDirectory=culvert\n", ""),
    ("/usr/bin/culvert ", "@program@ "),
    ("--config /etc/culvert/culvert.yml", "--config @config@@further@"),
    ("User=culvert\nGroup=culvert\n", "User=@user@\n"),
    ("StateDirectory=culvert\n", "StateDirectory=@own@\n"),
    ("LimitNOFILE=", "EnvironmentFile=-/etc/default/@name@\nLimitNOFILE="),
    ("CapabilityBoundingSet=\n", "CapabilityBoundingSet=@capabilities@\n"),
];

const PROCD_LAYOUT: Layout = Layout {
    files: &[
        (SCRIPT, PROCD, PROCD_CHANGES, 0o755),
        ("lib/upgrade/keep.d/@name@", "@kept@", &[("@kept@", KEPT)], 0o644),
    ],
    links: &[
        ("etc/rc.d/S95@name@", "../init.d/@name@"),
        ("etc/rc.d/K10@name@", "../init.d/@name@"),
    ],
    traces: &[],
};

const PROCD_CHANGES: Changes = &[
    ("\nNAME=culvert\n", "\nNAME=@name@\n"),
    ("\nPROG=/usr/bin/culvert\n", "\nPROG=@program@\n"),
    ("\nRUN_AS=culvert\n", "\nRUN_AS=@user@\n"),
    ("\nENABLED=0\n", "\nENABLED=1\n"),
    ("\nCONFIG=\n", "\nCONFIG=@config@\n"),
    // procd takes that of the user.
    ("\tprocd_set_param group \"$RUN_AS\"\n", ""),
    ("command --config \"$file\"", "command --config \"$file\"@further@"),
];

/// The list of files that an update of OpenWrt keeps.
const KEPT: &str = "@program@\n/lib/upgrade/keep.d/@name@\n@configs@/etc/init.d/@name@\n\
                    /etc/rc.d/S95@name@\n/etc/rc.d/K10@name@\n";

const OPENRC_LAYOUT: Layout = Layout {
    files: &[(SCRIPT, OPENRC, OPENRC_CHANGES, 0o755)],
    links: &[("etc/runlevels/default/@name@", "/etc/init.d/@name@")],
    traces: &["var/log/@own@.log"],
};

const OPENRC_CHANGES: Changes = &[
    ("\ncommand=/usr/bin/culvert\n", "\ncommand=@program@\n"),
    (":=/etc/culvert/culvert.yml}", ":=@config@}"),
    ("\nowner=culvert:culvert\n", "\nowner=@user@\n"),
    // The file is the user's.
    ("\tcheckpath --file --mode 0600 --owner \"$owner\" \"$CONFIG\"\n", ""),
    ("/var/log/$RC_SVCNAME.log", "/var/log/@own@.log"),
    ("--config $CONFIG", "--config $CONFIG@further@"),
    ("--config \"$CONFIG\"", "--config \"$CONFIG\"@further@"),
];

/// Its link depends on the directories of the system.
const RUNIT_LAYOUT: Layout = Layout {
    files: &[
        ("etc/sv/@name@/run", RUNIT_RUN, RUNIT_CHANGES, 0o755),
        ("etc/sv/@name@/finish", RUNIT_FINISH, &[], 0o755),
        ("etc/sv/@name@/log/run", RUNIT_LOG, RUNIT_LOG_CHANGES, 0o755),
    ],
    links: &[],
    traces: &["etc/sv/@name@", "var/log/@own@"],
};

const RUNIT_CHANGES: Changes = &[
    ("/etc/default/culvert", "/etc/default/@name@"),
    ("\nPROGRAM=culvert\n", "\nPROGRAM=@program@\n"),
    ("\nUSER=culvert\n", "\nUSER=@user@\n"),
    ("\nCONFIG=/etc/culvert/culvert.yml\n", "\nCONFIG=@config@\n"),
    ("--config \"$CONFIG\"", "--config \"$CONFIG\"@further@"),
];

const RUNIT_LOG_CHANGES: Changes = &[("dir=/var/log/culvert\n", "dir=/var/log/@own@\n")];

/// Of BusyBox and of SysV. Their links depend on the directories of the system.
const SYSV_LAYOUT: Layout =
    Layout { files: &[(SCRIPT, SYSV, SYSV_CHANGES, 0o755)], links: &[], traces: &[] };

const SYSV_CHANGES: Changes = &[
    ("# Provides:          culvert\n", "# Provides:          @name@\n"),
    ("\nNAME=culvert\n", "\nNAME=@name@\n"),
    ("\nPROGRAM=/usr/bin/culvert\n", "\nPROGRAM=@program@\n"),
    ("\nCONFIG=/etc/culvert/culvert.yml\n", "\nCONFIG=@config@\n"),
    ("\nUSER=culvert\n", "\nUSER=@user@\n"),
    ("--config \"$CONFIG\"", "--config \"$CONFIG\"@further@"),
    ("--config$CONFIG--", "--config$CONFIG@joined@--"),
];

/// Path of an init script.
const SCRIPT: &str = "etc/init.d/@name@";

/// Directories with the links of supervised services of runit, in order of preference.
const RUNIT_DIRECTORIES: [&str; 3] = ["etc/runit/runsvdir/default", "var/service", "etc/service"];

/// Order of the links at start and stop with run levels and with BusyBox.
const START_LINK: &str = "S90";
const STOP_LINK: &str = "K10";

/// Plans the service for the system at `root`.
pub fn plan(service: &Service, root: &Path) -> Plan {
    let name = &service.name;
    let values = Values::of(service);
    let layout = match service.init {
        InitSystem::Systemd => &SYSTEMD_LAYOUT,
        InitSystem::Procd => &PROCD_LAYOUT,
        InitSystem::OpenRc => &OPENRC_LAYOUT,
        InitSystem::Runit => &RUNIT_LAYOUT,
        InitSystem::Busybox | InitSystem::SysV => &SYSV_LAYOUT,
    };
    let mut plan =
        Plan { files: Vec::new(), links: Vec::new(), traces: Vec::new(), remark: String::new() };
    for (path, script, changes, mode) in layout.files {
        let content = marked(service, &values.changed(script, changes));
        plan.files.push(PlannedFile { path: values.filled(path).into(), content, mode: *mode });
    }
    for (path, target) in layout.links {
        plan.link(values.filled(path), values.filled(target));
    }
    for path in layout.traces {
        plan.traces.push(values.filled(path).into());
    }
    match service.init {
        InitSystem::Runit => match RUNIT_DIRECTORIES.iter().find(|path| root.join(path).is_dir()) {
            Some(services) => plan.link(format!("{services}/{name}"), format!("/etc/sv/{name}")),
            None => {
                plan.remark = values.filled(
                    "Neither /var/service nor /etc/service exists: link /etc/sv/@name@ into \
                         the directory of supervised services",
                );
            }
        },
        InitSystem::Busybox if root.join("etc/init.d/rcS").exists() => {
            plan.link(format!("etc/init.d/{START_LINK}{name}"), name.clone());
        }
        InitSystem::Busybox => {
            plan.remark = values.filled(
                "/etc/init.d/rcS does not exist: add this line to /etc/inittab\n\
                 ::respawn:/etc/init.d/@name@ run",
            );
        }
        InitSystem::SysV => plan.link_run_levels(root, name),
        _ => {}
    }
    plan
}

impl Plan {
    fn link_run_levels(&mut self, root: &Path, name: &str) {
        let base = if root.join("etc/rc.d/rc2.d").is_dir() { "etc/rc.d" } else { "etc" };
        for level in 0..=6 {
            let directory = format!("{base}/rc{level}.d");
            if root.join(&directory).is_dir() {
                let order = if matches!(level, 2..=5) { START_LINK } else { STOP_LINK };
                self.link(format!("{directory}/{order}{name}"), format!("../init.d/{name}"));
            }
        }
    }

    fn link(&mut self, path: String, target: String) {
        self.links.push((path.into(), target.into()));
    }
}

/// Adds the mark of this command to the content of a file.
fn marked(service: &Service, content: &str) -> String {
    // The first line of a script names its interpreter.
    let first = if content.starts_with("#!") { content.find('\n').map_or(0, |n| n + 1) } else { 0 };
    let (head, rest) = content.split_at(first);
    let mut text = format!("{head}{MARK} --user {}", service.user);
    for config in &service.configs {
        add_config(&mut text, config);
    }
    text + "\n" + rest
}

fn add_config(text: &mut String, path: &Path) {
    *text += " --config ";
    *text += &path.to_string_lossy();
}

/// Returns the configuration files of an installed script or unit, from its mark.
pub fn configs_of(content: &str) -> Vec<String> {
    let mark = content.lines().find_map(|line| line.strip_prefix(MARK)).unwrap_or_default();
    let mut words = mark.split(' ');
    let mut configs = Vec::new();
    while words.by_ref().any(|word| word == "--config") {
        configs.extend(words.next().map(str::to_owned));
    }
    configs
}

/// Returns the name of files that the service writes. It always begins with the program's name:
/// the service could have the name of another program.
fn own_name(name: &str) -> String {
    if name.starts_with("culvert") { name.to_owned() } else { format!("culvert-{name}") }
}

/// Values of a service that are filled in, by their keys.
struct Values([(&'static str, String); 9]);

impl Values {
    fn of(service: &Service) -> Values {
        let Service { name, user, program, configs, .. } = service;
        let mut lines = String::new();
        for path in configs {
            lines += &path.to_string_lossy();
            lines += "\n";
        }
        let config = lines.lines().next().unwrap_or_default().to_owned();
        let mut further = String::new();
        for path in configs.iter().skip(1) {
            add_config(&mut further, path);
        }
        // Root without capabilities cannot read the file of another user.
        let capabilities = if user == "root" { "CAP_DAC_READ_SEARCH" } else { "" };
        Values([
            ("name", name.clone()),
            ("own", own_name(name)),
            ("user", user.clone()),
            ("program", program.to_string_lossy().into_owned()),
            ("configs", lines),
            // The first configuration file, and flags for the others.
            ("config", config),
            // As the words of a command line without separators.
            ("joined", further.replace(' ', "")),
            ("further", further),
            ("capabilities", capabilities.to_owned()),
        ])
    }

    /// Replaces each `@key@` by its value.
    fn filled(&self, template: &str) -> String {
        let mut text = String::new();
        for (n, part) in template.split('@').enumerate() {
            // Keys are between texts.
            text += match n % 2 {
                0 => part,
                _ => self.0.iter().find(|(key, _)| *key == part).map_or("", |(_, value)| value),
            };
        }
        text
    }

    /// Replaces texts of a script. Each must be in it.
    fn changed(&self, script: &str, changes: Changes) -> String {
        let mut text = script.to_owned();
        for (from, to) in changes {
            debug_assert!(text.contains(from), "{from} is in the script");
            text = text.replace(from, &self.filled(to));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::NAMES;

    fn service(init: &str, name: &str, configs: &[&str]) -> Service {
        Service {
            init: InitSystem::from_name(init).unwrap(),
            name: name.to_owned(),
            user: "tunnel".to_owned(),
            program: "/opt/bin/agent".into(),
            configs: configs.iter().map(PathBuf::from).collect(),
        }
    }

    fn planned(init: &str, name: &str, configs: &[&str]) -> Plan {
        plan(&service(init, name, configs), Path::new("/nowhere"))
    }

    #[test]
    fn scripts_have_their_code_and_no_comments() {
        let lines = |text: &str| -> Vec<String> {
            let code = |line: &&str| !line.trim_start().starts_with('#');
            text.lines().filter(code).map(str::to_owned).collect()
        };
        let script = include_str!("../../cross/init/culvert.init");
        assert_eq!(lines(SYSV), lines(script));
        let comments: Vec<&str> =
            SYSV.lines().filter(|line| line.trim_start().starts_with('#')).collect();
        assert_eq!(
            comments[..3],
            ["#!/bin/sh", "### BEGIN INIT INFO", "# Provides:          culvert"]
        );
        assert_eq!(comments.last(), Some(&"### END INIT INFO"));
        assert!(PROCD.starts_with("#!/bin/sh /etc/rc.common\n") && SYSTEMD.starts_with("[Unit]\n"));
        assert!(!SYSTEMD.contains('#'), "{SYSTEMD}");
    }

    /// Lines that are not comments.
    fn code(content: &str) -> String {
        content
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn nothing_of_the_packages_paths_is_left() {
        for init in NAMES {
            let plan = planned(init, "gate", &["/srv/a.yml", "/srv/b.yml"]);
            let script = &plan.files[0].content;
            let code = code(script);
            for value in ["/opt/bin/agent", "/srv/a.yml", "/srv/b.yml", "tunnel"] {
                assert!(code.contains(value), "{init}: {value}");
            }
            for value in ["/usr/bin/culvert", "/etc/culvert/", "=culvert\n", ":culvert", "culvert:"]
            {
                assert!(!code.contains(value), "{init}: {value}\n{code}");
            }
            assert_eq!(configs_of(script), ["/srv/a.yml", "/srv/b.yml"], "{init}");
            for file in &plan.files {
                let mut lines = file.content.lines();
                let first = lines.next().unwrap();
                let mark = if first.starts_with("#!") { lines.next().unwrap() } else { first };
                assert!(mark.starts_with(MARK), "{init}: {mark}");
            }
            let traces = plan.traces.iter().filter(|path| !path.starts_with("etc/sv/gate"));
            for trace in traces {
                let name = trace.file_name().unwrap().to_str().unwrap();
                assert!(name.starts_with("culvert-gate"), "{init}: {name}");
            }
        }
    }

    #[test]
    fn several_configuration_files_are_in_every_command() {
        for (init, text, times) in [
            ("systemd", "--config /a --config /b", 3),
            ("sysv", "--config \"$CONFIG\" --config /b", 3),
            ("sysv", "--config$CONFIG--config/b--logstderr", 1),
            ("openrc", "--config $CONFIG --config /b", 1),
            ("openrc", "--config \"$CONFIG\" --config /b", 1),
            ("runit", "--config \"$CONFIG\" --config /b", 1),
            ("procd", "command --config \"$file\" --config /b", 1),
        ] {
            let plan = planned(init, "culvert", &["/a", "/b"]);
            assert_eq!(plan.files[0].content.matches(text).count(), times, "{init}: {text}");
        }
    }

    #[test]
    fn the_order_of_links_is_that_of_openwrts_script() {
        let number = |key| PROCD.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        let link = |letter, key| format!("etc/rc.d/{letter}{}@name@", number(key));
        let paths = PROCD_LAYOUT.links.iter().map(|(path, _)| path.to_string());
        let expected = [link("S", "START="), link("K", "STOP=")];
        assert_eq!(paths.collect::<Vec<_>>(), expected);
        for path in &expected {
            assert!(KEPT.contains(path), "{path}");
        }
        let plan = planned("procd", "gate", &["/srv/a.yml"]);
        let keep = &plan.files[1].content;
        for path in [
            "/opt/bin/agent",
            "/srv/a.yml",
            "/etc/init.d/gate",
            "/etc/rc.d/S95gate",
            "/lib/upgrade/keep.d/gate",
        ] {
            assert!(keep.lines().any(|line| line == path), "{path}\n{keep}");
        }
    }

    #[test]
    fn root_may_read_the_file_of_another_user() {
        let mut root = service("systemd", "culvert", &["/a"]);
        root.user = "root".to_owned();
        let unit = &plan(&root, Path::new("/nowhere")).files[0].content;
        assert!(
            unit.contains("\nUser=root\n") && unit.contains("=CAP_DAC_READ_SEARCH\n"),
            "{unit}"
        );
        let unit = &planned("systemd", "culvert", &["/a"]).files[0].content;
        assert!(unit.contains("\nCapabilityBoundingSet=\n"), "{unit}");
    }
}
