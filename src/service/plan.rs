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
#[derive(Debug)]
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
#[derive(Debug)]
pub struct PlannedFile {
    /// Its path.
    pub path: PathBuf,
    /// Its content.
    pub content: String,
    /// Its permissions.
    pub mode: u32,
}

/// Directories with the links of supervised services of runit, in order of preference.
const RUNIT_DIRECTORIES: [&str; 3] = ["etc/runit/runsvdir/default", "var/service", "etc/service"];

/// Order of the links at start and stop with run levels and with BusyBox.
const START_LINK: &str = "S90";
const STOP_LINK: &str = "K10";

/// The same for OpenWrt, as in its script.
const PROCD_START: &str = "S95";
const PROCD_STOP: &str = "K10";

/// Plans the service for the system at `root`.
pub fn plan(service: &Service, root: &Path) -> Plan {
    let name = &service.name;
    let script = PathBuf::from("etc/init.d").join(name);
    let mut plan =
        Plan { files: Vec::new(), links: Vec::new(), traces: Vec::new(), remark: String::new() };
    match service.init {
        InitSystem::Systemd => {
            let unit = format!("{name}.service");
            let directory = PathBuf::from("etc/systemd/system");
            let target = Path::new("/").join(&directory).join(&unit);
            plan.links.push((directory.join("multi-user.target.wants").join(&unit), target));
            plan.add(service, directory.join(unit), systemd(service), 0o644);
            plan.traces.push(PathBuf::from("var/lib").join(own_name(name)));
        }
        InitSystem::Procd => {
            plan.add(service, script, procd(service), 0o755);
            for order in [PROCD_START, PROCD_STOP] {
                plan.link_script(&format!("etc/rc.d/{order}{name}"), "../init.d/", name);
            }
            let keep = PathBuf::from("lib/upgrade/keep.d").join(name);
            let content = kept(service, &keep, &plan);
            plan.add(service, keep, content, 0o644);
        }
        InitSystem::OpenRc => {
            plan.link_script(&format!("etc/runlevels/default/{name}"), "/etc/init.d/", name);
            plan.add(service, script, openrc(service), 0o755);
            plan.traces.push(format!("var/log/{}.log", own_name(name)).into());
        }
        InitSystem::Runit => plan.add_runit(service, root),
        InitSystem::Busybox => {
            if root.join("etc/init.d/rcS").exists() {
                plan.link_script(&format!("etc/init.d/{START_LINK}{name}"), "", name);
            } else {
                plan.remark = format!(
                    "/etc/init.d/rcS does not exist: add this line to /etc/inittab\n\
                     ::respawn:/etc/init.d/{name} run"
                );
            }
            plan.add(service, script, sysv(service), 0o755);
        }
        InitSystem::SysV => {
            let base = if root.join("etc/rc.d/rc2.d").is_dir() { "etc/rc.d" } else { "etc" };
            let exists = |level: &i32| root.join(format!("{base}/rc{level}.d")).is_dir();
            for level in (0..=6).filter(exists) {
                let order = if matches!(level, 2..=5) { START_LINK } else { STOP_LINK };
                let link = format!("{base}/rc{level}.d/{order}{name}");
                plan.link_script(&link, "../init.d/", name);
            }
            plan.add(service, script, sysv(service), 0o755);
        }
    }
    plan
}

impl Plan {
    fn add(&mut self, service: &Service, path: PathBuf, content: String, mode: u32) {
        let mut mark = format!("{MARK} --user {}", service.user);
        for config in &service.configs {
            mark += &format!(" --config {}", config.display());
        }
        // The first line of a script names its interpreter.
        let first =
            if content.starts_with("#!") { content.find('\n').map_or(0, |n| n + 1) } else { 0 };
        let (head, rest) = content.split_at(first);
        self.files.push(PlannedFile { path, content: format!("{head}{mark}\n{rest}"), mode });
    }

    fn add_runit(&mut self, service: &Service, root: &Path) {
        let name = &service.name;
        let directory = PathBuf::from("etc/sv").join(name);
        for (file, content) in runit(service) {
            self.add(service, directory.join(file), content, 0o755);
        }
        let target = Path::new("/").join(&directory);
        match RUNIT_DIRECTORIES.iter().find(|path| root.join(path).is_dir()) {
            Some(services) => self.links.push((Path::new(services).join(name), target)),
            None => {
                self.remark = format!(
                    "Neither /var/service nor /etc/service exists: link {} into the directory of \
                     supervised services",
                    target.display()
                );
            }
        }
        self.traces.extend([directory, PathBuf::from("var/log").join(own_name(name))]);
    }

    fn link_script(&mut self, path: &str, to: &str, name: &str) {
        self.links.push((path.into(), format!("{to}{name}").into()));
    }
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

/// Replaces texts of a script. Each must be in it.
fn filled(script: &str, changes: &[(&str, &str)]) -> String {
    let mut text = script.to_owned();
    for (from, to) in changes {
        debug_assert!(text.contains(from), "{from} is in the script");
        text = text.replace(from, to);
    }
    text
}

/// Texts that are filled in.
struct Values {
    program: String,
    /// The first configuration file, and flags for the others.
    config: String,
    further: String,
}

fn values(service: &Service) -> Values {
    let mut configs = service.configs.iter().map(|path| path.display().to_string());
    Values {
        program: service.program.display().to_string(),
        config: configs.next().unwrap_or_default(),
        further: configs.map(|path| format!(" --config {path}")).collect(),
    }
}

fn systemd(service: &Service) -> String {
    let Values { program, config, further } = values(service);
    let (own, name, user) = (own_name(&service.name), &service.name, &service.user);
    // Root without capabilities cannot read the file of another user.
    let capabilities = if user == "root" { "CAP_DAC_READ_SEARCH" } else { "" };
    filled(
        SYSTEMD,
        &[
            ("Documentation=file:/usr/share/doc/culvert/README.md\n", ""),
            ("ConfigurationDirectory=culvert\n", ""),
            ("/usr/bin/culvert ", &format!("{program} ")),
            ("--config /etc/culvert/culvert.yml", &format!("--config {config}{further}")),
            ("User=culvert\nGroup=culvert\n", &format!("User={user}\n")),
            ("StateDirectory=culvert\n", &format!("StateDirectory={own}\n")),
            ("LimitNOFILE=", &format!("EnvironmentFile=-/etc/default/{name}\nLimitNOFILE=")),
            ("CapabilityBoundingSet=\n", &format!("CapabilityBoundingSet={capabilities}\n")),
        ],
    )
}

fn procd(service: &Service) -> String {
    let Values { program, config, further } = values(service);
    let append = "command --config \"$file\"";
    filled(
        PROCD,
        &[
            ("\nNAME=culvert\n", &format!("\nNAME={}\n", service.name)),
            ("\nPROG=/usr/bin/culvert\n", &format!("\nPROG={program}\n")),
            ("\nRUN_AS=culvert\n", &format!("\nRUN_AS={}\n", service.user)),
            ("\nENABLED=0\n", "\nENABLED=1\n"),
            ("\nCONFIG=\n", &format!("\nCONFIG={config}\n")),
            // procd takes that of the user.
            ("\tprocd_set_param group \"$RUN_AS\"\n", ""),
            (append, &format!("{append}{further}")),
        ],
    )
}

/// Returns the list of files that an update of OpenWrt keeps.
fn kept(service: &Service, keep: &Path, plan: &Plan) -> String {
    let scripts = plan.files.iter().map(|file| file.path.as_path());
    let links = plan.links.iter().map(|(path, _)| path.as_path());
    let own = [service.program.as_path(), keep];
    let configs = service.configs.iter().map(PathBuf::as_path);
    let paths = own.into_iter().chain(configs).chain(scripts).chain(links);
    paths.map(|path| format!("{}\n", Path::new("/").join(path).display())).collect()
}

fn openrc(service: &Service) -> String {
    let Values { program, config, further } = values(service);
    filled(
        OPENRC,
        &[
            ("\ncommand=/usr/bin/culvert\n", &format!("\ncommand={program}\n")),
            (":=/etc/culvert/culvert.yml}", &format!(":={config}}}")),
            ("\nowner=culvert:culvert\n", &format!("\nowner={}\n", service.user)),
            // The file is the user's.
            ("\tcheckpath --file --mode 0600 --owner \"$owner\" \"$CONFIG\"\n", ""),
            ("/var/log/$RC_SVCNAME.log", &format!("/var/log/{}.log", own_name(&service.name))),
            ("--config $CONFIG", &format!("--config $CONFIG{further}")),
            ("--config \"$CONFIG\"", &format!("--config \"$CONFIG\"{further}")),
        ],
    )
}

fn sysv(service: &Service) -> String {
    let Values { program, config, further } = values(service);
    let name = &service.name;
    // As the words of a command line without separators.
    let joined = further.replace(' ', "");
    filled(
        SYSV,
        &[
            ("# Provides:          culvert\n", &format!("# Provides:          {name}\n")),
            ("\nNAME=culvert\n", &format!("\nNAME={name}\n")),
            ("\nPROGRAM=/usr/bin/culvert\n", &format!("\nPROGRAM={program}\n")),
            ("\nCONFIG=/etc/culvert/culvert.yml\n", &format!("\nCONFIG={config}\n")),
            ("\nUSER=culvert\n", &format!("\nUSER={}\n", service.user)),
            ("--config \"$CONFIG\"", &format!("--config \"$CONFIG\"{further}")),
            ("--config$CONFIG--", &format!("--config$CONFIG{joined}--")),
        ],
    )
}

fn runit(service: &Service) -> [(&'static str, String); 3] {
    let Values { program, config, further } = values(service);
    let (name, own) = (&service.name, own_name(&service.name));
    let run = filled(
        RUNIT_RUN,
        &[
            ("/etc/default/culvert", &format!("/etc/default/{name}")),
            ("\nPROGRAM=culvert\n", &format!("\nPROGRAM={program}\n")),
            ("\nUSER=culvert\n", &format!("\nUSER={}\n", service.user)),
            ("\nCONFIG=/etc/culvert/culvert.yml\n", &format!("\nCONFIG={config}\n")),
            ("--config \"$CONFIG\"", &format!("--config \"$CONFIG\"{further}")),
        ],
    );
    let log = filled(RUNIT_LOG, &[("dir=/var/log/culvert\n", &format!("dir=/var/log/{own}\n"))]);
    [("run", run), ("finish", RUNIT_FINISH.to_owned()), ("log/run", log)]
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
        assert_eq!(format!("S{}", number("START=")), PROCD_START);
        assert_eq!(format!("K{}", number("STOP=")), PROCD_STOP);
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
