//! Command line of `culvert-edge`. The configuration is checked in [`super::config`].

use std::fs;
use std::path::PathBuf;

use argh::FromArgs;

use super::commands::accounts::{Agents, Check, Domains, EndpointList, Kick, TokenCommand};
use super::commands::backup::Backup;
use super::commands::policy::PolicyCommand;
use super::config::{EdgeConfig, Overrides, parse_addr, parse_ports};
use super::reload::ConfigSource;
use super::{run, token};
use crate::logging::{self, Destination, Format, Level};
use crate::proto::codes::Refusal;

/// A small self-hosted edge for culvert, and for every agent that speaks ngrok's protocol.
#[derive(FromArgs, Debug)]
struct Cli {
    #[argh(subcommand)]
    command: Option<EdgeCommand>,
    /// print the version
    #[argh(switch)]
    version: bool,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum EdgeCommand {
    Dev(Dev),
    Serve(Serve),
    Token(Token),
    Backup(Backup),
    Agents(Agents),
    Endpoints(EndpointList),
    Kick(Kick),
    Domains(Domains),
    Check(Check),
    Policy(Policy),
}

/// Defines a command that listens: its own flags, then the flags of all such commands. The
/// parser cannot share flags between commands.
macro_rules! listening {
    ($(#[$about:meta])* struct $name:ident { $($own:tt)* }) => {
        #[derive(FromArgs, Debug)]
        $(#[$about])*
        struct $name {
            $($own)*
            /// directory for keys, certificates and state (dev: .culvert)
            #[argh(option)]
            dir: Option<PathBuf>,
            /// address for agents (dev: 127.0.0.1:4400)
            #[argh(option)]
            agent_addr: Option<String>,
            /// address for visitors over HTTP (dev: 127.0.0.1:4080)
            #[argh(option)]
            http_addr: Option<String>,
            /// address for visitors over HTTPS (dev: 127.0.0.1:4443)
            #[argh(option)]
            https_addr: Option<String>,
            /// address of the REST API (127.0.0.1:4041)
            #[argh(option)]
            api_addr: Option<String>,
            /// ports of TCP endpoints (dev: 20000-20099); 0: the system picks
            #[argh(option)]
            tcp_ports: Option<String>,
            /// domain of the endpoints' names (dev: localhost)
            #[argh(option)]
            domain: Option<String>,
            /// write a JSON file when everything listens
            #[argh(option)]
            ready_file: Option<PathBuf>,
            /// destination of the log: stdout, stderr, false or a file (stderr)
            #[argh(option)]
            log: Option<String>,
            /// debug, info, warn, error or crit (info)
            #[argh(option)]
            log_level: Option<String>,
            /// term, logfmt or json (term)
            #[argh(option)]
            log_format: Option<String>,
        }

        impl $name {
            /// Starts the log and runs the edge with the configuration that `make` returns. It
            /// is called again at each reload.
            fn run_with(
                self,
                make: impl Fn(Overrides) -> Result<EdgeConfig, String> + 'static,
            ) -> Result<(), EdgeError> {
                start_log(self.log, self.log_level, self.log_format)?;
                let listeners = [self.agent_addr, self.http_addr, self.https_addr, self.api_addr];
                let flags = overrides(listeners, self.tcp_ports)?;
                let flags = Overrides { dir: self.dir, domain: self.domain, ..flags };
                let source: ConfigSource = Box::new(move || make(flags.clone()));
                let config = source().map_err(EdgeError::Usage)?;
                let ready = self.ready_file.as_deref();
                run::run(config, &source, ready).map_err(|e| EdgeError::Runtime(e.to_string()))
            }
        }
    };
}

listening! {
    /// Try it on this machine: listens on loopback only, without a configuration. Creates the
    /// files for agents, such as agent.yml, in a directory.
    #[argh(subcommand, name = "dev")]
    struct Dev {}
}

listening! {
    /// Serve agents and visitors with the configuration in edge.yml.
    #[argh(subcommand, name = "serve")]
    struct Serve {
        /// the configuration file (edge.yml)
        #[argh(option)]
        config: Option<PathBuf>,
    }
}

/// Manage the authtokens of a running edge: add, list, remove, set-acl. Without a command: make
/// an authtoken, and print it and the hash for edge.yml.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "token")]
struct Token {
    #[argh(subcommand)]
    command: Option<TokenCommand>,
}

/// Check traffic policies.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "policy")]
struct Policy {
    #[argh(subcommand)]
    command: Option<PolicyCommand>,
}

/// Error of a command. It decides the exit code.
enum EdgeError {
    /// Error in the command line or the configuration: exit code 2.
    Usage(String),
    /// Every other error: exit code 1.
    Runtime(String),
}

/// Runs the program with these arguments. The first is its name. Returns the exit code: 0
/// success, 1 failure, 2 usage error.
pub fn main(args: impl IntoIterator<Item = String>) -> u8 {
    let mut args = split_equals(args);
    // `help`, `-h`, `version` and `-v` as in the agent.
    for arg in args.iter_mut().skip(1) {
        match arg.as_str() {
            "-h" => *arg = "--help".into(),
            "-v" => *arg = "--version".into(),
            _ => {}
        }
    }
    if args.get(1).is_some_and(|word| word == "version") {
        args[1] = "--version".into();
    }
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    let cli = match Cli::from_args(&["culvert-edge"], &words) {
        Ok(cli) => cli,
        Err(early) if early.status.is_ok() => {
            return status(print(&format!("{}\n", early.output.trim_end())));
        }
        Err(early) => {
            logging::fatal(&Refusal::text(invalid_arguments(&early.output)));
            return 2;
        }
    };
    let result = match cli.command {
        _ if cli.version => {
            print(concat!("culvert-edge version ", env!("CARGO_PKG_VERSION"), "\n"))
        }
        None => Err(EdgeError::Usage(
            "missing command; use 'culvert-edge dev' to try it, 'culvert-edge serve --config \
             edge.yml' \
             to serve, 'culvert-edge token' for a new authtoken"
                .into(),
        )),
        Some(EdgeCommand::Dev(dev)) => dev.run_with(EdgeConfig::dev),
        Some(EdgeCommand::Serve(serve)) => serve.run(),
        Some(EdgeCommand::Token(Token { command: None })) => print_token(),
        Some(EdgeCommand::Token(Token { command: Some(command) })) => report(command.run()),
        Some(EdgeCommand::Backup(command)) => report(command.run()),
        Some(EdgeCommand::Agents(command)) => report(command.run()),
        Some(EdgeCommand::Endpoints(command)) => report(command.run()),
        Some(EdgeCommand::Kick(command)) => report(command.run()),
        Some(EdgeCommand::Domains(command)) => report(command.run()),
        Some(EdgeCommand::Check(command)) => report(command.run()),
        Some(EdgeCommand::Policy(Policy { command: None })) => {
            Err(EdgeError::Usage("missing command; use 'culvert-edge policy check FILE'".into()))
        }
        Some(EdgeCommand::Policy(Policy { command: Some(command) })) => report(command.run()),
    };
    status(result)
}

/// Returns the error of the parser, which adds a line of its own about `--help`. The first line
/// has the error; a missing argument is on the second.
fn invalid_arguments(output: &str) -> String {
    let mut lines = output.trim_end().lines();
    let mut error = lines.next().unwrap_or_default().to_owned();
    if let Some(missing) = lines.next().filter(|_| error.ends_with(':')) {
        error = format!("{error} {}", missing.trim());
    }
    format!("{error}\n'culvert-edge --help' lists commands and flags")
}

/// Prints the output of a command.
fn report(result: Result<String, String>) -> Result<(), EdgeError> {
    print(&result.map_err(EdgeError::Runtime)?)
}

fn status(result: Result<(), EdgeError>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(EdgeError::Usage(text)) => {
            logging::fatal(&Refusal::text(text));
            2
        }
        Err(EdgeError::Runtime(text)) => {
            logging::fatal(&Refusal::text(text));
            1
        }
    }
}

impl Serve {
    fn run(mut self) -> Result<(), EdgeError> {
        let path = self.config.take().unwrap_or_else(|| "edge.yml".into());
        self.run_with(move |flags| {
            let text = fs::read_to_string(&path)
                .map_err(|e| format!("cannot read the configuration {}: {e}", path.display()))?;
            EdgeConfig::serve(&path, &text, flags)
        })
    }
}

fn print_token() -> Result<(), EdgeError> {
    let token = token::authtoken().map_err(|e| EdgeError::Runtime(e.to_string()))?;
    let hash = token::hash(token.expose());
    print(&format!("authtoken: {}\nhash: sha256:{hash}\n", token.expose()))
}

fn print(text: &str) -> Result<(), EdgeError> {
    logging::print(text).map_err(EdgeError::Runtime)
}

fn overrides(
    [agent, http, https, api]: [Option<String>; 4],
    ports: Option<String>,
) -> Result<Overrides, EdgeError> {
    let address = |flag: &str, text: Option<String>| {
        let parse =
            |t: String| parse_addr(&t).map_err(|e| EdgeError::Usage(format!("{flag}: {e}")));
        text.map(parse).transpose()
    };
    let range =
        |t: String| parse_ports(&t).map_err(|e| EdgeError::Usage(format!("--tcp-ports: {e}")));
    Ok(Overrides {
        agent: address("--agent-addr", agent)?,
        http: address("--http-addr", http)?,
        https: address("--https-addr", https)?,
        api: address("--api-addr", api)?,
        ports: ports.map(range).transpose()?,
        ..Overrides::default()
    })
}

fn start_log(
    target: Option<String>,
    level: Option<String>,
    format: Option<String>,
) -> Result<(), EdgeError> {
    let target = match target.as_deref() {
        None => Destination::Terminal,
        Some("stderr") => Destination::Stderr,
        Some("stdout") => Destination::Stdout,
        Some("false") => Destination::Nowhere,
        Some(path) => Destination::File(path.into()),
    };
    let level = level.as_deref().unwrap_or("info");
    let level = Level::from_name(level).ok_or_else(|| {
        EdgeError::Usage(format!(
            "--log-level: '{level}' is not one of debug, info, warn, error, crit"
        ))
    })?;
    let format = format.as_deref().unwrap_or("term");
    let format = Format::from_name(format).ok_or_else(|| {
        EdgeError::Usage(format!("--log-format: '{format}' is not one of term, logfmt, json"))
    })?;
    logging::start(&target, format, level).map_err(EdgeError::Runtime)
}

/// Splits `--flag=value` into two words, because the parser needs that form.
fn split_equals(args: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut out = Vec::new();
    let mut flags = true;
    for arg in args {
        flags &= arg != "--";
        match arg.split_once('=') {
            Some((flag, value)) if flags && flag.starts_with("--") => {
                out.extend([flag.to_owned(), value.to_owned()]);
            }
            _ => out.push(arg),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_flags() {
        let args = ["x", "dev", "--http-addr=127.0.0.1:0", "--dir", "a=b", "--", "--c=d"];
        let split = split_equals(args.map(String::from));
        assert_eq!(
            split,
            ["x", "dev", "--http-addr", "127.0.0.1:0", "--dir", "a=b", "--", "--c=d"]
        );
    }

    #[test]
    fn help_is_there_at_every_level() {
        for (words, expected) in [
            (&["--help"][..], "dev"),
            (&["dev", "--help"], "--agent-addr"),
            (&["serve", "--help"], "--config"),
            (&["token", "--help"], "authtoken"),
            (&["token", "add", "--help"], "--acl"),
            (&["kick", "--help"], "--json"),
            (&["backup", "--help"], "--dir"),
            (&["policy", "--help"], "check"),
            (&["policy", "check", "--help"], "--protocol"),
        ] {
            let help = Cli::from_args(&["culvert-edge"], words).expect_err("an early exit");
            assert!(help.status.is_ok() && help.output.contains(expected), "{}", help.output);
        }
    }

    #[test]
    fn what_is_not_understood_is_a_usage_error() {
        for args in [
            &["x"][..],
            &["x", "bogus"],
            &["x", "dev", "--bogus"],
            &["x", "dev", "--log=false", "--http-addr", "nowhere"],
            &["x", "dev", "--log=false", "--agent-addr", "0.0.0.0:1"],
            &["x", "dev", "--log=false", "--tcp-ports", "9-1"],
            &["x", "dev", "--log-level", "loud"],
            &["x", "serve", "--log=false", "--config", "/nonexistent/edge.yml"],
            &["x", "policy"],
            &["x", "policy", "check", "--protocol", "udp", "a.yml"],
        ] {
            assert_eq!(main(args.iter().map(|a| (*a).to_owned())), 2, "{args:?}");
        }
        assert_eq!(main(["x", "--version"].map(String::from)), 0);
        assert_eq!(main(["x", "dev", "--help"].map(String::from)), 0);
    }
}
