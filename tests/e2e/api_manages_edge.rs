//! `culvert api` manages `culvert-edge`: a friend is invited, connects and is turned out again;
//! agents are restarted, updated and stopped.

use std::path::Path;
#[cfg(feature = "update")]
use std::process::{Command, Stdio};

use culvert::rest_client::actions::{self, ApiResource};
use serde_json::Value;

use crate::support::agent::{self, Agent};
use crate::support::edge_rest::Rest;
#[cfg(feature = "update")]
use crate::support::feed::{FeedKey, FeedServer, InstalledProgram, manifest, program};
use crate::support::home::{Home, Outcome};
#[cfg(feature = "update")]
use crate::support::process::Process;
use crate::support::process::plant_secret;
use crate::support::serve::Serve;
use crate::support::upstream::Upstream;
use crate::support::{until, wait_for};

const ALICE: &str = "2planted0api0alice000000000_0123456789ABCDEFGHIJK";

/// An edge, and the command line that manages it.
struct Managed {
    edge: Serve,
    rest: Rest,
    home: Home,
}

impl Managed {
    fn start() -> Self {
        plant_secret(ALICE);
        let edge = Serve::start(&format!("credentials: [{{id: alice, authtoken: {ALICE}}}]\n"));
        Managed { rest: edge.rest(), edge, home: Home::new() }
    }

    /// Runs `culvert api` with the words of a line.
    #[track_caller]
    fn run(&self, line: &str) -> Outcome {
        let url = format!("http://{}", self.rest.addr);
        let variables = [("NGROK_API_KEY", self.rest.key.as_str()), ("NGROK_API_BASE_URL", &url)];
        let outcome = self.home.run_with(&format!("api {line}"), &variables);
        assert!(!format!("{outcome:?}").contains(&self.rest.key), "{outcome:?}");
        outcome
    }

    /// Returns the JSON of an action that succeeds with a status.
    #[track_caller]
    fn json(&self, line: &str, status: &str) -> Value {
        let outcome = self.run(line);
        assert_eq!((outcome.status, outcome.err.trim_end()), (0, status), "{line}: {outcome:?}");
        serde_json::from_str(&outcome.out).unwrap()
    }

    /// Starts an agent with an authtoken and the endpoint `http://NAME.tunnels.test`.
    #[track_caller]
    fn agent(&self, name: &str, token: &str, upstream: &Upstream) -> Agent {
        let config = self.edge.config(&format!("{name}.yml"), token);
        let url = format!("http://{name}.tunnels.test");
        agent::agent(&config, ["http", &upstream.port().to_string(), "--url", &url]).start()
    }

    fn status(&self, host: &str) -> u16 {
        self.edge.visit(host).read_response("GET").unwrap().status()
    }
}

#[test]
fn an_invited_agent_connects_and_is_turned_out() {
    let (managed, upstream) = (Managed::start(), Upstream::hello());
    let made = managed.json("credentials create --acl bind:door.tunnels.test", "201 Created");
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    plant_secret(token);
    let mut friend = managed.agent("door", token, &upstream);
    assert_eq!(managed.status("door.tunnels.test"), 200);
    let listed = managed.json("credentials list", "200 OK");
    let listed: Vec<_> = listed["credentials"].as_array().unwrap().iter().collect();
    assert!(listed.iter().any(|c| c["id"] == id && c["acl"][0] == "bind:door.tunnels.test"));

    managed.json(&format!("credentials update {id} --acl bind:other.tunnels.test"), "200 OK");
    let report = friend.process().wait_stderr("endpoint stopped by the edge");
    assert!(report.contains("code=ERR_NGROK_316"), "{report}");
    assert_eq!(managed.status("door.tunnels.test"), 404);

    let gone = managed.run(&format!("credentials delete {id}"));
    assert_eq!((gone.out.as_str(), gone.err.as_str()), ("", "204 No Content\n"));
    assert_eq!(friend.process().wait_exit(), Some(1));
    let text = managed.run(&format!("credentials get {id}")).refused(1);
    assert!(text.starts_with("HTTP 404: ") && text.contains("[ERR_NGROK_404]"), "{text}");
    assert!(text.contains("\nOperation ID: op_"), "{text}");
    // What this edge does not have.
    let text = managed.run("ssh-credentials list").refused(1);
    assert!(text.starts_with("HTTP 404: "), "{text}");
}

/// Returns the id of the only agent session.
#[track_caller]
fn session(managed: &Managed) -> Option<String> {
    let list = managed.json("tunnel-sessions list", "200 OK");
    let [session] = &list["tunnel_sessions"].as_array().unwrap()[..] else { return None };
    Some(session["id"].as_str().unwrap().to_owned())
}

#[test]
fn an_agent_is_restarted_and_stopped_from_afar() {
    let (managed, upstream) = (Managed::start(), Upstream::hello());
    let mut agent = managed.agent("door", ALICE, &upstream);
    let first = session(&managed).expect("a session");
    let shown = managed.json(&format!("tunnel-sessions get {first}"), "200 OK");
    assert_eq!((&shown["id"], &shown["ip"]), (&first.as_str().into(), &"127.0.0.1".into()));
    let endpoint = managed.json("endpoints list --limit 1", "200 OK")["endpoints"][0].clone();
    assert_eq!(endpoint["url"], agent.url());
    assert_eq!(endpoint["tunnel_session"]["id"], first.as_str());
    let path = format!("endpoints get {}", endpoint["id"].as_str().unwrap());
    assert_eq!(managed.json(&path, "200 OK"), endpoint);
    assert_eq!(managed.json("tunnels list", "200 OK")["tunnels"][0]["public_url"], agent.url());

    // A configuration that is not valid would end the agent: it refuses, and goes on.
    let config = managed.edge.dir().join("door.yml");
    let text = std::fs::read_to_string(&config).unwrap();
    managed.edge.write("door.yml", format!("{text}nonsense: 1\n"));
    let refusal = managed.run(&format!("tunnel-sessions restart {first}")).refused(1);
    assert!(refusal.starts_with("HTTP 400: ") && refusal.contains("nonsense"), "{refusal}");
    assert!(refusal.contains("[ERR_NGROK_808]"), "{refusal}");
    assert_eq!(managed.status("door.tunnels.test"), 200);
    managed.edge.write("door.yml", text);

    let restart = managed.run(&format!("tunnel-sessions restart {first}"));
    assert_eq!((restart.status, restart.err.as_str()), (0, "204 No Content\n"));
    let second =
        until("the session after the restart", || session(&managed).filter(|id| *id != first));
    wait_for("its endpoint", || managed.status("door.tunnels.test") == 200);

    let stop = managed.run(&format!("tunnel-sessions stop {second}"));
    assert_eq!((stop.out.as_str(), stop.err.as_str()), ("", "204 No Content\n"));
    assert_eq!(agent.process().wait_exit(), Some(0));
    let text = managed.run(&format!("tunnel-sessions stop {second}")).refused(1);
    assert!(text.contains("[ERR_NGROK_404]"), "{text}");
}

#[cfg(feature = "update")]
#[test]
fn an_agent_is_updated_from_afar_or_answers_why_not() {
    let (feed, key, installed) = (FeedServer::start(), FeedKey::new(1), InstalledProgram::new());
    let managed = Managed::start();
    let text = format!(
        "version: 3\nagent:\n  authtoken: {ALICE}\n  connect_url: {}\n  connect_cas: {}\n  \
         web_addr: false\n{}",
        managed.edge.address("agent_addr"),
        managed.edge.ca().display(),
        feed.lines(&key)
    );
    let config = managed.edge.write("updated.yml", text);
    let mut command = Command::new(installed.path());
    command.args(["start", "--none", "--log", "stderr", "--config"]).arg(config);
    command.env("HOME", "/nonexistent").env("XDG_CACHE_HOME", installed.dir().join("cache"));
    let agent = Process::start("culvert", command.stdin(Stdio::null()));
    let id = until("the session", || session(&managed));
    let update = format!("tunnel-sessions update {id}");

    let newest = program("9.9.9");
    feed.publish(&key, &manifest(7, "9.9.9", &newest), &newest);
    for (line, expected) in [
        // The edge never permits another major version.
        (update.clone(), "another major version"),
        (format!("{update} --version 9.9.8"), "has version 9.9.9, not 9.9.8"),
    ] {
        let text = managed.run(&line).refused(1);
        assert!(text.starts_with("HTTP 400: ") && text.contains(expected), "{text}");
        assert!(text.contains("[ERR_NGROK_809]"), "{text}");
    }
    assert!(installed.is_original());

    let new = program("0.9.9");
    feed.publish(&key, &manifest(8, "0.9.9", &new), &new);
    let done = managed.run(&format!("{update} --version 0.9.9"));
    assert_eq!((done.status, done.err.as_str()), (0, "204 No Content\n"), "{done:?}");
    agent.wait_stderr("msg=\"update installed\"");
    assert_eq!(installed.read("culvert").unwrap(), new);
    // It runs after a restart.
    assert_eq!(session(&managed), Some(id));
}

#[test]
fn an_agent_without_remote_management_refuses_each_command_by_its_words() {
    let (managed, upstream) = (Managed::start(), Upstream::hello());
    let config = managed.edge.config("door.yml", ALICE);
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("agent: {", "agent: {remote_management: false, ");
    managed.edge.write("door.yml", text);
    let mut agent = agent::agent(&config, ["http", &upstream.port().to_string()]).start();
    let id = session(&managed).expect("a session");
    for (command, code) in [("stop", 804), ("restart", 805), ("update --version 9.9.9", 806)] {
        let text = managed.run(&format!("tunnel-sessions {command} {id}")).refused(1);
        assert!(text.starts_with("HTTP 400: ") && text.contains("remote management"), "{text}");
        assert!(text.contains(&format!("[ERR_NGROK_{code}]")), "{text}");
    }
    agent.process().assert_running();
}

#[test]
fn the_documents_list_what_the_edge_serves() {
    let managed = Managed::start();
    let root = managed.json("root get", "200 OK");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/rest.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("## At `culvert-edge`\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let mut documented: Vec<&str> =
        rows.flat_map(|cell| cell.split(", ")).map(|name| name.trim_matches('`')).collect();
    let base = format!("http://{}", managed.rest.addr);
    let uris = root.as_object().unwrap().values().filter_map(Value::as_str);
    let paths: Vec<&str> = uris.filter_map(|uri| uri.strip_prefix(&base)).collect();
    let collection = |resource: &ApiResource| {
        resource.action("list").is_some_and(|list| paths.contains(&list.path.as_str()))
    };
    let mut served: Vec<&str> =
        actions::resources().filter(collection).map(|r| r.name).chain(["root"]).collect();
    documented.sort_unstable();
    served.sort_unstable();
    assert_eq!(documented, served);
    assert!(served.len() > 10, "{root}");
}
