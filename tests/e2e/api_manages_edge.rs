//! `culvert api` manages `culvert-edge`: a friend is invited, connects and is turned out again.

use serde_json::Value;

use crate::support::agent::{self, Agent};
use crate::support::edge_rest::Rest;
use crate::support::home::{Home, Outcome};
use crate::support::process::plant_secret;
use crate::support::serve::Serve;
use crate::support::upstream::Upstream;

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
