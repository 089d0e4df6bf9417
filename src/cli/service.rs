//! `service`: installs the agent as a service and controls it. Parses, validates and prints;
//! files and init systems are in [`crate::service`].

use std::env;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::exit::{CommandError, FAILED, FINE, print};
use super::parse::ParsedCommand;
use super::{session, status};
use crate::agent::{self, FETCH_TIMEOUT};
use crate::config::{UpstreamScheme, WebAddr, file};
use crate::logging::line;
use crate::service::install::{self, Installed};
use crate::service::manager::{self, Action};
use crate::service::plan::{self, Plan, configs_of};
use crate::service::{InitSystem, Service, check_name, check_path, detect, machine};
use crate::sys::child::{ChildOutput, ChildProgram};
use crate::sys::{argv, own_uid};

/// The configuration file without `--config`.
const DEFAULT_CONFIG: &str = "/etc/culvert/culvert.yml";

/// Hidden command that validates the configuration: as the user of the service, without the
/// environment of the installation.
const CHECK: [&str; 2] = ["service", "check"];

/// The system to change.
pub(super) struct System {
    root: PathBuf,
    /// It is an image. Nothing of this machine is checked, and no program is called.
    image: bool,
}

impl System {
    /// Returns this machine.
    pub fn here() -> System {
        System { root: "/".into(), image: false }
    }

    fn of(typed: &ParsedCommand) -> Result<System, CommandError> {
        let Some(root) = typed.text("root") else {
            return Ok(System::here());
        };
        match fs::canonicalize(root) {
            Ok(root) if root.is_dir() => Ok(System { root, image: true }),
            Ok(_) => Err(CommandError::usage(format!("--root: {root} is not a directory"))),
            Err(error) => Err(CommandError::failed(format!("--root: {root}: {error}"))),
        }
    }

    fn needs_root(&self, typed: &ParsedCommand) -> Result<(), CommandError> {
        if self.image || own_uid() == 0 {
            return Ok(());
        }
        let (program, command) = (argv::program(), typed.command.name);
        Err(CommandError::failed(format!("{command} needs root: sudo {program} {command}")))
    }

    fn init(&self, typed: &ParsedCommand) -> Result<InitSystem, CommandError> {
        if let Some(init) = typed.text("init").and_then(InitSystem::from_name) {
            return Ok(init);
        }
        let detected = match self.image {
            true => detect::of_image(&self.root),
            false => detect::running(&self.root),
        };
        detected.map_err(CommandError::failed)
    }

    /// Returns the path of a file of this system for this process.
    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// A service of a system, for the commands that need an installed one.
pub(super) struct Request {
    system: System,
    name: String,
    init: InitSystem,
    plan: Plan,
}

impl Request {
    fn of(typed: &ParsedCommand, is_change: bool) -> Result<Request, CommandError> {
        let system = System::of(typed)?;
        if is_change {
            system.needs_root(typed)?;
        }
        let (name, init) = (name(typed)?, system.init(typed)?);
        Ok(Request::new(system, init, name))
    }

    pub fn new(system: System, init: InitSystem, name: String) -> Request {
        let service = Service {
            init,
            name: name.clone(),
            user: String::new(),
            program: PathBuf::new(),
            configs: Vec::new(),
        };
        // For its paths.
        let plan = plan::plan(&service, &system.root);
        Request { system, name, init, plan }
    }

    /// Returns the service, if it is installed.
    pub fn installed(&self) -> Option<InstalledService> {
        InstalledService::find(&self.system, &self.plan, self.init, &self.name)
    }
}

pub(super) fn install(typed: &ParsedCommand) -> Result<u8, CommandError> {
    let system = System::of(typed)?;
    let now = typed.switch("now") == Some(true);
    if now && system.image {
        return Err(CommandError::usage("--now starts nothing in an image; give --now or --root"));
    }
    system.needs_root(typed)?;
    let (name, configs) = (name(typed)?, configs(typed, &system)?);
    if !is_valid(&configs, &system, None)? {
        return Ok(FAILED);
    }
    let init = system.init(typed)?;
    let failed = CommandError::failed;
    let user = typed.text("user").unwrap_or(machine::DEFAULT_USER).to_owned();
    machine::check_package(&system.root, init, &name).map_err(failed)?;
    let mut text = String::new();
    let program = if system.image {
        if !machine::has_user(&system.root, &user) {
            text += &format!("The user {user} is missing in the image: create it\n");
        }
        machine::program_of_image(&system.root).map_err(failed)?
    } else {
        let program = machine::program().map_err(failed)?;
        if machine::ensure_user(&user).map_err(failed)? {
            text += &format!("Created user {user}\n");
        }
        if !is_valid(&configs, &system, Some(&user))? {
            return Err(failed(format!(
                "the user {user} cannot start the service; see the error above. Give it the \
                 file, as in \"chown {user} {}\", or use --user root",
                configs[0].display()
            )));
        }
        program
    };
    let service = Service { init, name, user, program, configs };
    let plan = plan::plan(&service, &system.root);
    let force = typed.switch("force") == Some(true);
    let installed = install::install(&system.root, &plan, force).map_err(failed)?;
    if !system.image {
        manager::reload(init).map_err(failed)?;
        if now {
            let action = match installed {
                Installed::Replaced => Action::Restart,
                _ => Action::Start,
            };
            manager::act(init, &service.name, action).map_err(failed)?;
        }
    }
    text += &summary(&service, &plan, installed, &system);
    print(&text)
}

/// Describes a finished installation and the next step.
fn summary(service: &Service, plan: &Plan, installed: Installed, system: &System) -> String {
    let Service { name, init, user, .. } = service;
    let mut text = format!(
        "Service {name} ({}) {}\n",
        init.name(),
        match installed {
            Installed::New => "is installed",
            Installed::Replaced => "is replaced",
            Installed::Same => "is installed already",
        }
    );
    // Writing to a String cannot fail.
    for file in &plan.files {
        let _ = writeln!(text, "  {}", system.at(&file.path).display());
    }
    let _ = writeln!(text, "It starts at boot, as user {user}");
    if !plan.remark.is_empty() {
        let _ = writeln!(text, "{}", plan.remark);
    }
    if !system.image {
        let _ = writeln!(text, "Log: {}", manager::log_command(*init, name));
        let program = argv::program();
        let flag =
            if name == machine::DEFAULT_USER { String::new() } else { format!(" --name {name}") };
        let _ = writeln!(
            text,
            "Start and state: {program} service start{flag}, {program} service status{flag}"
        );
    }
    text
}

pub(super) fn uninstall(typed: &ParsedCommand) -> Result<u8, CommandError> {
    let Request { system, name, init, plan } = Request::of(typed, true)?;
    let failed = CommandError::failed;
    let mut text = String::new();
    let found = install::existing(&system.root, &plan).map_err(failed)?.is_some();
    if !system.image && found {
        // One that cannot be stopped is removed nevertheless.
        if let Err(why) = manager::act(init, &name, Action::Stop) {
            text += &format!("Warning: {why}\n");
        }
    }
    if !system.image {
        install::unlink(&system.root, &plan, &name).map_err(failed)?;
        manager::release(init, &name);
    }
    let removed = install::uninstall(&system.root, &plan, &name).map_err(failed)?;
    if removed && !system.image {
        manager::reload(init).map_err(failed)?;
    }
    text += &match removed {
        true => format!(
            "Service {name} ({}) is removed; its configuration and its user stay\n",
            init.name()
        ),
        false => format!("Service {name} ({}) is not installed\n", init.name()),
    };
    print(&text)
}

/// Runs `start`, `stop` and `restart`.
pub(super) fn control(typed: &ParsedCommand, action: Action) -> Result<u8, CommandError> {
    let request = Request::of(typed, true)?;
    let Request { system, name, init, .. } = &request;
    let Some(found) = request.installed() else {
        return Err(CommandError::failed(format!(
            "the service {name} ({}) is not installed; use \"{} service install\"",
            init.name(),
            argv::program()
        )));
    };
    // A restart with an invalid configuration would end a running agent. The configuration of a
    // package is not checked: OpenWrt has a part of it in UCI.
    if action == Action::Restart && found.ours && !is_valid(&found.configs, system, None)? {
        return Ok(FAILED);
    }
    manager::act(*init, name, action).map_err(CommandError::failed)?;
    Ok(FINE)
}

/// Prints the state of the service, and of the session. The exit code is that of LSB for the
/// service, also if its state cannot be found out.
pub(super) fn state(typed: &ParsedCommand) -> Result<u8, CommandError> {
    match known_state(typed) {
        Err(error @ CommandError::Failed(_)) => {
            error.report();
            Ok(manager::UNKNOWN)
        }
        other => other,
    }
}

fn known_state(typed: &ParsedCommand) -> Result<u8, CommandError> {
    let request = Request::of(typed, false)?;
    let Request { name, init, .. } = &request;
    let Some(found) = request.installed() else {
        print(&format!("service    {name} ({}) is not installed\n", init.name()))?;
        return Ok(manager::UNKNOWN);
    };
    let (code, word) = manager::state(*init, name).map_err(CommandError::failed)?;
    let mut text = format!("service    {name} ({}): {word}\n", init.name());
    if code == manager::RUNNING {
        text += &status::text_at(&found.web_addr());
    }
    print(&text)?;
    Ok(code)
}

/// A service of this machine.
pub(super) struct InstalledService {
    pub configs: Vec<PathBuf>,
    /// This command has installed it. Otherwise it is that of a package.
    pub ours: bool,
}

impl InstalledService {
    fn find(system: &System, plan: &Plan, init: InitSystem, name: &str) -> Option<Self> {
        let root = &system.root;
        match install::existing(root, plan) {
            Ok(Some(content)) => {
                let configs = configs_of(&content).into_iter().map(PathBuf::from).collect();
                Some(InstalledService { configs, ours: true })
            }
            Ok(None) if machine::check_package(root, init, name).is_ok() => None,
            _ => Some(InstalledService { configs: vec![DEFAULT_CONFIG.into()], ours: false }),
        }
    }

    /// Returns the address of its local API.
    pub fn web_addr(&self) -> WebAddr {
        // Only its owner may be able to read the file.
        file::load_files(&self.configs).map_or(WebAddr::Usual, |loaded| loaded.agent.web_addr)
    }
}

/// Hidden: validates the configuration of a service, with the errors of a start. The working
/// directory and the environment are those of a service.
pub(super) fn check(typed: &ParsedCommand) -> Result<u8, CommandError> {
    let user = typed.text("user");
    if let Some(user) = user {
        machine::become_user(user).map_err(CommandError::failed)?;
    }
    // An image's files name files of the image.
    let in_image = typed.text("root").is_some();
    let given = typed.list("config");
    let loaded = file::load(&given).map_err(|error| CommandError::failed(error.to_string()))?;
    let mut agent = loaded.agent;
    if user.is_none() && agent.endpoints.is_empty() {
        print(
            "Warning: the configuration has no endpoints; the service starts when it has some\n",
        )?;
    }
    if in_image {
        agent::check(&agent).map_err(CommandError::failed)?;
        return agent::check_token(&agent).map(|()| FINE).map_err(CommandError::Failed);
    }
    agent = session::checked(agent, FETCH_TIMEOUT)?;
    agent::check_start(&agent).map_err(CommandError::Failed)?;
    for endpoint in agent.endpoints.iter().filter(|_| user.is_some()) {
        let upstream = &endpoint.upstream;
        if upstream.scheme == UpstreamScheme::File
            && let Err(error) = fs::read_dir(&upstream.dir)
        {
            let dir = upstream.dir.display();
            print(&line(&format_args!("Warning: {dir} cannot be read: {error}")))?;
        }
    }
    Ok(FINE)
}

/// Returns whether the configuration can be started. The reason was reported.
fn is_valid(
    configs: &[PathBuf],
    system: &System,
    user: Option<&str>,
) -> Result<bool, CommandError> {
    is_valid_for(&env::current_exe().map_err(not_run)?, configs, system, user)
}

fn not_run(error: std::io::Error) -> CommandError {
    CommandError::failed(format!("the program cannot be run to check the configuration: {error}"))
}

/// Returns whether this program can start with the configuration. The reason was reported.
pub(super) fn is_valid_for(
    program: &Path,
    configs: &[PathBuf],
    system: &System,
    user: Option<&str>,
) -> Result<bool, CommandError> {
    let configs: Vec<PathBuf> = configs.iter().map(|config| system.at(config)).collect();
    let mut words = vec![program.as_os_str()];
    words.extend(CHECK.map(OsStr::new));
    for config in &configs {
        words.extend([OsStr::new("--config"), config.as_os_str()]);
    }
    if let Some(user) = user {
        words.extend(["--user", user].map(OsStr::new));
    }
    if system.image {
        words.extend([OsStr::new("--root"), system.root.as_os_str()]);
    }
    let check = ChildProgram {
        environment: Some(&[]),
        directory: Some(c"/"),
        ..ChildProgram::new(&words, ChildOutput::Inherited)
    };
    let ended = check.start().and_then(|mut child| child.wait());
    Ok(ended.map_err(not_run)?.success())
}

fn name(typed: &ParsedCommand) -> Result<String, CommandError> {
    let name = typed.text("name").unwrap_or(machine::DEFAULT_USER);
    check_name(name).map_err(|why| CommandError::usage(format!("--name {why}")))?;
    Ok(name.to_owned())
}

/// Returns the paths of the configuration files on the system.
fn configs(typed: &ParsedCommand, system: &System) -> Result<Vec<PathBuf>, CommandError> {
    let given = typed.list("config");
    let mut configs = Vec::new();
    for text in given.iter().flat_map(|text| text.split(',')).filter(|text| !text.is_empty()) {
        let mut path = PathBuf::from(text);
        if system.image {
            path = path
                .strip_prefix(&system.root)
                .map_or(path.clone(), |inside| Path::new("/").join(inside));
        } else {
            path = std::path::absolute(&path)
                .map_err(|e| CommandError::failed(format!("{text}: {e}")))?;
            machine::check_config(&path).map_err(CommandError::failed)?;
        }
        check_path(&path).map_err(CommandError::failed)?;
        configs.push(path);
    }
    if configs.is_empty() && system.at(Path::new(DEFAULT_CONFIG)).exists() {
        configs.push(DEFAULT_CONFIG.into());
    }
    if configs.is_empty() {
        return Err(CommandError::usage(format!(
            "service install needs --config FILE: {DEFAULT_CONFIG} does not exist"
        )));
    }
    Ok(configs)
}
