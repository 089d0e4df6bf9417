//! Finding configuration files, reading them one over the other, and the
//! environment over them. Flags come later and are not known here.

use std::env;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_yaml::Value;

use super::document::{Document, Part, Step};
use super::{Agent, v3};
use crate::log::{Format, Level, Target};
use crate::proto::secret::Secret;
use crate::sys::argv;

pub use super::document::Place;

/// Largest file, in bytes. A real one has a few hundred.
const MAX_FILE: u64 = 1 << 20;

/// Most faults that one message shows.
const MAX_FAULTS: usize = 20;

/// What files and environment say.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The agent, with every endpoint of the files.
    pub agent: Agent,
    /// The log.
    pub log: Log,
    /// Keys without effect.
    pub notes: Vec<Note>,
    /// The files read, in order. Empty: there was none.
    pub files: Vec<PathBuf>,
}

/// Options of the log; `None` is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Where to.
    pub target: Option<Target>,
    /// How it looks.
    pub format: Option<Format>,
    /// How much.
    pub level: Option<Level>,
}

/// A key that may stand there and has no effect in this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// `agent.web_addr`
    pub path: String,
    /// Its value switches something off that is not there anyway.
    pub off: bool,
}

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, if it is at a place.
    pub place: Option<Place>,
    /// The key, `agent.log_levl`; empty for the file as such.
    pub path: String,
    /// What is wrong and what to write instead. Continues the path.
    pub what: String,
}

/// Why a file cannot be used: one line for each fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The file.
    pub file: PathBuf,
    /// At least one.
    pub faults: Vec<Fault>,
}

impl Error {
    fn of_file(file: &Path, what: impl Into<String>) -> Self {
        let fault = Fault { place: None, path: String::new(), what: what.into() };
        Error { file: file.to_owned(), faults: vec![fault] }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        for (index, fault) in self.faults.iter().take(MAX_FAULTS).enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{file}")?;
            if let Some(place) = fault.place {
                write!(f, ":{}:{}", place.line, place.column)?;
            }
            f.write_str(": ")?;
            if !fault.path.is_empty() {
                write!(f, "{} ", fault.path)?;
            }
            f.write_str(&fault.what)?;
        }
        match self.faults.len().saturating_sub(MAX_FAULTS) {
            0 => Ok(()),
            more => write!(f, "\n{file}: {more} more faults"),
        }
    }
}

impl std::error::Error for Error {}

/// Where the file is when nobody says otherwise: below `XDG_CONFIG_HOME`, else
/// below `~/.config`. `None` without a home.
pub fn default_path() -> Option<PathBuf> {
    let base = match variable("XDG_CONFIG_HOME") {
        Some(base) => PathBuf::from(base),
        None => PathBuf::from(variable("HOME")?).join(".config"),
    };
    Some(base.join("ngrok").join("ngrok.yml"))
}

/// The files to read: those of the command line, else `NGROK_CONFIG`, else the
/// default one.
pub fn paths(given: &[String]) -> (Vec<PathBuf>, Missing) {
    let from_environment = variable("NGROK_CONFIG");
    let given: Vec<&str> = match (given, &from_environment) {
        ([], Some(text)) => vec![text],
        (given, _) => given.iter().map(String::as_str).collect(),
    };
    if given.is_empty() {
        return (default_path().into_iter().collect(), Missing::Fine);
    }
    let paths = given.iter().flat_map(|text| text.split(','));
    (paths.filter(|p| !p.is_empty()).map(PathBuf::from).collect(), Missing::Error)
}

/// What it means when a file is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing: it is the default file.
    Fine,
    /// An error: somebody named it.
    Error,
}

/// Reads the files that [`paths`] gives for `given`, then the environment.
pub fn load(given: &[String]) -> Result<Loaded, Error> {
    let (paths, missing) = paths(given);
    let mut loaded = Loaded::default();
    for path in &paths {
        read_over(path, missing, &mut loaded)?;
    }
    if let Some(token) = variable("NGROK_AUTHTOKEN") {
        loaded.agent.authtoken = Secret::new(token);
    }
    Ok(loaded)
}

/// A variable of the environment that is there and not empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn read_over(path: &Path, missing: Missing, loaded: &mut Loaded) -> Result<(), Error> {
    let text = match read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match missing {
                Missing::Fine => Ok(()),
                Missing::Error => Err(Error::of_file(
                    path,
                    format!(
                        "does not exist: correct --config, or make the file with \
                         \"{} config add-authtoken TOKEN --config {}\"",
                        argv::program(),
                        path.display()
                    ),
                )),
            };
        }
        Err(error) => return Err(Error::of_file(path, format!("cannot be read: {error}"))),
    };
    let faults = parse_over(text, loaded);
    if !faults.is_empty() {
        return Err(Error { file: path.to_owned(), faults });
    }
    loaded.files.push(path.to_owned());
    Ok(())
}

/// The text of a configuration file, of bounded length.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let n = fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if n as u64 > MAX_FILE {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    Ok(text)
}

/// Takes what `text` says over what `loaded` has. Without faults it is good.
pub(super) fn parse_over(text: String, loaded: &mut Loaded) -> Vec<Fault> {
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err((what, place)) => return vec![Fault { place, path: String::new(), what }],
    };
    match version(&document) {
        Ok(()) => {
            loaded.agent.version = "3".to_owned();
            v3::apply(&document, loaded)
        }
        Err(fault) => vec![fault],
    }
}

/// Whether the document is of a version that is read here. Other versions get
/// their reader beside `v3` and their place in this match.
pub(super) fn version(document: &Document) -> Result<(), Fault> {
    let at = |what: &str| {
        let path = [Step::Key("version".to_owned())];
        let place = document.locate(&path, Part::Value);
        Fault { place, path: "version".to_owned(), what: what.to_owned() }
    };
    let mapping = match &document.root {
        Value::Mapping(mapping) => mapping,
        Value::Null => return Err(at("is missing: write \"version: 3\" at the top")),
        _ => {
            let what = "must be a mapping of keys, beginning with version: 3".to_owned();
            return Err(Fault { place: None, path: String::new(), what });
        }
    };
    let version = match mapping.get("version") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) => return Err(at("must be 3")),
    };
    match version.as_str() {
        "3" => Ok(()),
        "" => Err(at("is missing: write \"version: 3\" at the top, with the options of the \
                      agent below agent: and tunnels as entries of endpoints:")),
        "1" | "2" => Err(at("is older than 3, the only one that this version reads: write \
                             \"version: 3\", move the options of the agent below agent: and \
                             write tunnels as entries of endpoints:")),
        _ => Err(at("is not known: this version reads version 3")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Cas, Kind, Verify};
    use std::time::Duration;

    fn good(text: &str) -> Loaded {
        let mut loaded = Loaded::default();
        let faults = parse_over(text.to_owned(), &mut loaded);
        assert!(faults.is_empty(), "{faults:?}");
        loaded
    }

    /// The faults as a user sees them.
    fn bad(text: &str) -> Vec<String> {
        let faults = parse_over(text.to_owned(), &mut Loaded::default());
        assert!(!faults.is_empty(), "no fault in {text}");
        let error = Error { file: "f.yml".into(), faults }.to_string();
        error.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_whole_file() {
        let loaded = good(
            "version: 3\nagent:\n  authtoken: hush\n  connect_url: edge.example\n  \
             connect_cas: host\n  connect_timeout: 3s\n  heartbeat_interval: 1m\n  \
             heartbeat_tolerance: 500ms\n  log: stdout\n  log_level: debug\n  \
             log_format: json\n  metadata: here\n  remote_management: false\n  \
             max_connections: 20\n  web_addr: 127.0.0.1:4040\n  update_check: false\n\
             endpoints:\n  - name: web\n    url: https://app.example.com\n    \
             description: d\n    metadata: m\n    bindings: [public]\n    \
             pooling_enabled: true\n    traffic_policy:\n      on_http_request:\n        \
             - actions: [{type: deny}]\n    \
             upstream: {url: \"http://localhost:8080\", protocol: http1, tls_verify: true}\n  \
             - {name: ssh, url: \"tcp://1.tcp.example:12345\", \
             upstream: {url: 22, proxy_protocol: 2}}\n  \
             - name: in\n    url: https://x.internal:99\n    upstream: 80\n",
        );
        let agent = &loaded.agent;
        assert_eq!(agent.authtoken.expose(), "hush");
        assert_eq!(agent.connect_url, "edge.example:443");
        assert_eq!(agent.connect_cas, Cas::Host);
        assert_eq!(agent.connect_timeout, Duration::from_secs(3));
        assert_eq!(agent.heartbeat_interval, Duration::from_secs(60));
        assert_eq!(agent.heartbeat_tolerance, Duration::from_millis(500));
        assert_eq!(agent.metadata, "here");
        assert!(!agent.remote_management);
        assert_eq!(agent.max_connections, 20);
        assert_eq!(agent.version, "3");
        assert_eq!(loaded.log.target, Some(Target::Stdout));
        assert_eq!(loaded.log.level, Some(Level::Debug));
        assert_eq!(loaded.log.format, Some(Format::Json));
        let notes: Vec<_> = loaded.notes.iter().map(|n| (n.path.as_str(), n.off)).collect();
        assert_eq!(notes, [("agent.update_check", true)]);
        let [web, ssh, inside] = &agent.endpoints[..] else { panic!("three endpoints") };
        assert_eq!((web.name.as_str(), web.kind, web.pooling), ("web", Kind::Http, true));
        assert_eq!(web.upstream.to_string(), "http://localhost:8080");
        assert_eq!(web.traffic_policy, r#"{"on_http_request":[{"actions":[{"type":"deny"}]}]}"#);
        assert_eq!(web.verify, Verify::System);
        assert_eq!((ssh.kind, ssh.proxy_protocol), (Kind::Tcp, 2));
        assert_eq!(ssh.upstream.to_string(), "localhost:22");
        assert_eq!(inside.bindings, ["internal"]);
        assert!(!format!("{loaded:?}").contains("hush"));
    }

    #[test]
    fn numbers_and_strings_are_taken_for_each_other() {
        let loaded =
            good("version: \"3\"\nagent: {authtoken: 12345, remote_management: \"false\"}");
        assert_eq!(loaded.agent.authtoken.expose(), "12345");
        assert!(!loaded.agent.remote_management);
        good("version: 3\nagent:\nendpoints:\n");
        good("{\"version\": 3, \"agent\": {\"authtoken\": \"x\"}}");
        good("version: 3\nagent: &a {metadata: x}\n");
    }

    #[test]
    fn every_fault_has_file_line_key_and_advice() {
        let faults = bad(
            "version: 3\nagent:\n  log_levl: info\n  connect_timeout: 10\n  authtoken: [hush]\n\
             server_addr: x\nendpoint: []\nendpoints:\n  - name: a\n    addr: 80\n  - name: a\n    \
             upstream:\n      url: \"tcp://x:1\"\n",
        );
        let expected = [
            "f.yml:6:1: server_addr is not a known key, did you mean connect_url?",
            "f.yml:7:1: endpoint is not a known key, did you mean endpoints?",
            "f.yml:3:3: agent.log_levl is not a known key, did you mean log_level?",
            "f.yml:5:14: agent.authtoken must be text, found a list",
            "f.yml:4:20: agent.connect_timeout \"10\" is not a duration: a unit",
            "f.yml:10:5: endpoints[0].addr is not a known key, did you mean upstream.url?",
            "f.yml:9:5: endpoints[0] needs an upstream",
            "f.yml:13:12: endpoints[1].upstream.url tcp:// is an address for",
        ];
        assert_eq!(faults.len(), expected.len(), "{faults:#?}");
        for (fault, expected) in faults.iter().zip(expected) {
            assert!(fault.starts_with(expected), "{fault:?} and not {expected:?}");
        }
        assert!(!faults.concat().contains("hush"));
    }

    #[test]
    fn single_faults() {
        for (text, expected) in [
            ("", "f.yml: version is missing"),
            ("# only a comment\n", "f.yml: version is missing"),
            ("authtoken: x\n", "f.yml: version is missing"),
            ("- 1\n", "f.yml: must be a mapping"),
            ("text", "f.yml: must be a mapping"),
            ("version: 2\nauthtoken: x\n", "f.yml:1:10: version is older than 3"),
            ("version: 4\n", "f.yml:1:10: version is not known"),
            ("version: [3]\n", "f.yml:1:10: version must be 3"),
            ("version: 3\ntunnels: {}\n", "f.yml:2:1: tunnels is not read by this version"),
            ("version: 3\nauthtoken: x\n", "f.yml:2:1: authtoken is not known here: it belongs"),
            ("version: 3\nagent: []\n", "f.yml:2:8: agent must be a mapping, found a list"),
            ("version: 3\nagent: {memory_limit: x}\n", "f.yml:2:23: agent.memory_limit must be"),
            ("version: 3\nagent: {console_ui: 1}\n", "f.yml:2:21: agent.console_ui must be"),
            ("version: 3\nagent: {log: true}\n", "f.yml:2:14: agent.log must be stdout"),
            ("version: 3\nagent: {log_level: loud}\n", "f.yml:2:20: agent.log_level must be debug"),
            ("version: 3\nagent: {authtoken: 1e9}\n", "f.yml:2:20: agent.authtoken must be text:"),
            ("version: 3\nagent: {max_connections: 0}\n", "f.yml:2:26: agent.max_connections must"),
            ("version: 3\nagent: {1: 2}\n", "f.yml:2:8: agent has a key that is no text"),
            ("version: 3\nagent: {connect_url: \"https://x\"}\n", "f.yml:2:22: agent.connect_url"),
            ("version: 3\nendpoints: {}\n", "f.yml:2:12: endpoints must be a list"),
            ("version: 3\nendpoints: [x]\n", "f.yml:2:13: endpoints[0] must be a mapping"),
            ("version: 3\nendpoints: [{upstream: 80}]\n", "f.yml:2:13: endpoints[0] needs the key"),
            (
                "version: 3\nendpoints: [{name: a, upstream: 80, agent_tls_termination: {}}]\n",
                "f.yml:2:37: endpoints[0].agent_tls_termination is not supported",
            ),
            (
                "version: 3\nendpoints: [{name: a, upstream: 80}, {name: a, upstream: 81}]\n",
                "f.yml:2:45: endpoints[1].name \"a\" is the name of another",
            ),
            (
                "version: 3\nendpoints: [{name: a, url: \"https://a.example:1\", upstream: 80}]\n",
                "f.yml:2:28: endpoints[0].url The URL",
            ),
            (
                "version: 3\nendpoints: [{name: a, bindings: [privat], upstream: 80}]\n",
                "f.yml:2:33: endpoints[0].bindings must be",
            ),
            (
                "version: 3\nendpoints: [{name: a, upstream: {url: 80, proxy_protocol: 3}}]\n",
                "f.yml:2:59: endpoints[0].upstream.proxy_protocol must be",
            ),
            (
                "version: 3\nagent:\n\tlog: x\n",
                "f.yml:3:1: is not valid YAML: line 3 is indented with a tab: use spaces",
            ),
        ] {
            let faults = bad(text);
            assert_eq!(faults.len(), 1, "{faults:?}");
            let fault = &faults[0];
            assert!(fault.starts_with(expected), "{fault:?} and not {expected:?}");
        }
    }

    #[test]
    fn many_faults_are_cut() {
        let keys: String = (0..30).map(|n| format!("zz{n}: 1\n")).collect();
        let faults = bad(&format!("version: 3\n{keys}"));
        assert_eq!(faults.len(), MAX_FAULTS + 1);
        assert_eq!(faults.last().map(String::as_str), Some("f.yml: 10 more faults"));
    }

    #[test]
    fn later_files_win_and_lists_are_replaced() {
        let mut loaded = good(
            "version: 3\nagent: {metadata: a, connect_url: x}\n\
             endpoints: [{name: a, upstream: 80}]\n",
        );
        let text = "version: 3\nagent: {metadata: b}\nendpoints: [{name: b, upstream: 81}]\n";
        assert!(parse_over(text.to_owned(), &mut loaded).is_empty());
        assert_eq!(loaded.agent.metadata, "b");
        assert_eq!(loaded.agent.connect_url, "x:443");
        assert_eq!(loaded.agent.endpoints.len(), 1);
        assert_eq!(loaded.agent.endpoints[0].name, "b");
    }
}
