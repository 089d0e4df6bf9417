//! `culvert` as a child process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::TempDir;
use super::edge::Edge;
use super::group::Group;
use super::process::Process;
use super::upstream::Upstream;
use super::visitor::Visitor;

/// A running agent and its start lines.
pub struct Agent {
    process: Process,
    /// `(URL, upstream)` of each start line.
    pub endpoints: Vec<(String, String)>,
}

/// An agent that is not started yet.
pub struct Builder {
    config: PathBuf,
    args: Vec<OsString>,
    expected: usize,
    /// Commands of a shell before it becomes the agent.
    before: String,
    /// The last of them: a script that becomes the agent, with its command as arguments.
    exec: Option<String>,
    variables: Vec<(String, OsString)>,
}

/// Returns an agent with these arguments, for example `["http", "8080"]`, and a configuration.
pub fn agent<S: AsRef<str>>(config: &Path, args: impl IntoIterator<Item = S>) -> Builder {
    let args = args.into_iter().map(|a| a.as_ref().into()).collect();
    Builder {
        config: config.to_owned(),
        args,
        expected: 1,
        before: String::new(),
        exec: None,
        variables: Vec::new(),
    }
}

/// Starts `culvert http UPSTREAM` and waits for it.
#[track_caller]
pub fn http(edge: &Edge, upstream: impl ToString) -> Agent {
    agent(&edge.config, ["http", &upstream.to_string()]).start()
}

/// Starts an HTTP endpoint with a traffic policy and further flags, and waits for it.
#[track_caller]
pub fn with_policy(edge: &Edge, upstream: &Upstream, flags: &[&str], policy: &str) -> Agent {
    let dir = TempDir::new();
    let file = dir.write("policy.yml", policy).display().to_string();
    let address = upstream.addr.to_string();
    let args = ["http", &address, "--traffic-policy-file", &file];
    agent(&edge.config, args.iter().chain(flags)).start()
}

/// Starts `culvert tcp UPSTREAM` and waits for it.
#[track_caller]
pub fn tcp(edge: &Edge, upstream: impl ToString) -> Agent {
    agent(&edge.config, ["tcp", &upstream.to_string()]).start()
}

/// Returns the program to test: of this build, or of `CULVERT_AGENT`, which may be a command of
/// several words, such as another machine's build under an emulator.
pub fn program() -> Vec<String> {
    let given = std::env::var("CULVERT_AGENT").unwrap_or_default();
    let words: Vec<String> = given.split_whitespace().map(str::to_owned).collect();
    if words.is_empty() { vec![env!("CARGO_BIN_EXE_culvert").to_owned()] } else { words }
}

impl Builder {
    pub fn arg(mut self, arg: impl AsRef<str>) -> Self {
        self.args.push(arg.as_ref().into());
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Replaces the line of its configuration that contains `has`.
    pub fn rewrite(self, has: &str, line: &str) -> Self {
        let text = std::fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(has), "{text}");
        let lines = text.lines().map(|old| match old.contains(has) {
            true => format!("  {line}\n"),
            false => format!("{old}\n"),
        });
        std::fs::write(&self.config, lines.collect::<String>()).unwrap();
        self
    }

    /// Sets how many endpoints it will announce; 1 by default.
    pub fn expect(mut self, endpoints: usize) -> Self {
        self.expected = endpoints;
        self
    }

    /// Limits its open files and sockets.
    pub fn limit_files(mut self, most: usize) -> Self {
        self.before += &format!("ulimit -n {most}; ");
        self
    }

    /// Starts it in a group of processes.
    pub fn within(mut self, group: &Group) -> Self {
        self.before += &format!("echo $$ > {}; ", group.procs().display());
        self
    }

    /// Starts it by a shell's script, which has the command as its arguments and becomes it.
    pub fn by(mut self, script: &str) -> Self {
        self.exec = Some(script.to_owned());
        self
    }

    /// Returns the file of its configuration.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Starts it without waiting.
    pub fn spawn(self) -> Process {
        let mut words = program();
        if !self.before.is_empty() || self.exec.is_some() {
            let exec = self.exec.as_deref().unwrap_or("exec \"$@\"");
            let script = format!("{}{exec}", self.before);
            words.splice(0..0, ["sh".into(), "-c".into(), script, "sh".into()]);
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.args(&self.args).arg("--config").arg(&self.config);
        let given = |flag: &str| self.args.iter().any(|a| a.to_string_lossy().starts_with(flag));
        if !given("--log=") && !self.args.contains(&"--log".into()) {
            command.args(["--log", "stderr", "--log-format", "logfmt"]);
        }
        // Without the configuration of the machine's user.
        command.env("HOME", "/nonexistent").env_remove("XDG_CONFIG_HOME");
        // Its cache is beside its configuration.
        command.env("XDG_CACHE_HOME", self.config.parent().unwrap().join("cache"));
        command.envs(self.variables);
        Process::start("culvert", &mut command)
    }

    /// Starts it and waits until its endpoints are up.
    #[track_caller]
    pub fn start(self) -> Agent {
        let expected = self.expected;
        Agent::wait(self.spawn(), expected)
    }
}

impl Agent {
    /// Waits for the start lines of a process.
    #[track_caller]
    pub fn wait(process: Process, expected: usize) -> Self {
        let mut endpoints = Vec::new();
        if expected > 0 {
            process.wait_stdout("URL -> UPSTREAM", |line| {
                let (url, upstream) = line.split_once(" -> ")?;
                endpoints.push((url.to_owned(), upstream.to_owned()));
                (endpoints.len() == expected).then_some(())
            });
        }
        Agent { process, endpoints }
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns the URL of its first endpoint.
    pub fn url(&self) -> &str {
        &self.endpoints[0].0
    }

    /// Connects a visitor to its first endpoint.
    #[track_caller]
    pub fn visit(&self, edge: &Edge) -> Visitor {
        Visitor::connect(edge, self.url())
    }
}
