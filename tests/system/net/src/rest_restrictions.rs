//! IP restrictions of the edge's REST API, with clients at real addresses: loopback addresses
//! are always admitted, so no test on one machine reaches the refusal.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use crate::lab::{AGENT, EDGE, EDGE_NAME, Place};
use crate::logged::wait;
use crate::stories::Scene;

const API_PORT: u16 = 4041;
const START: Duration = Duration::from_secs(20);

/// A client of the API: the namespace that it is in, and the edge's address for it.
type Client = (Place, &'static str);

/// Outside of the network that the restriction admits.
const OUTSIDE: Client = (Place::Agent, EDGE);
/// Inside of it.
const INSIDE: Client = (Place::Edge, EDGE);
/// The operator at the edge's machine.
const LOCAL: Client = (Place::Edge, "127.0.0.1");

/// Admits one network, then all because the restriction is not enforced, then a second one.
pub fn run(scene: &mut Scene) -> io::Result<String> {
    scene.setting.listeners = format!("  api: 0.0.0.0:{API_PORT}\n");
    let (_tunnel, _watch) = scene.start()?;
    let mut key = String::new();
    wait("the key of the API", START, || {
        key = std::fs::read_to_string(scene.dir.join("edge/api_key")).unwrap_or_default();
        !key.is_empty()
    })?;
    let api = Api { scene, key: key.trim().to_owned() };
    wait("the API answers", START, || api.is_served(OUTSIDE).is_ok())?;

    let policy = api.create("/ip_policies", r#"{"description": "edge's network"}"#)?;
    let rule = |cidr: &str| format!(r#"{{"ip_policy_id": "{policy}", "cidr": "{cidr}"}}"#);
    api.create("/ip_policy_rules", &rule("10.77.2.0/24"))?;
    let restriction =
        format!(r#"{{"type": "rest", "enforced": true, "ip_policy_ids": ["{policy}"]}}"#);
    let restriction = format!("/ip_restrictions/{}", api.create("/ip_restrictions", &restriction)?);
    api.is_refused(OUTSIDE)?;
    api.is_served(INSIDE)?;
    api.is_served(LOCAL)?;
    // A wrong key is refused for the address, too: nothing shows that the key is wrong.
    let wrong = Api { scene, key: "wrong_key".to_owned() };
    wrong.is_refused(OUTSIDE)?;

    // Without enforcement only the log has it.
    api.change(&restriction, r#"{"enforced": false}"#)?;
    api.is_served(OUTSIDE)?;
    api.change(&restriction, r#"{"enforced": true}"#)?;
    api.is_refused(OUTSIDE)?;
    api.create("/ip_policy_rules", &rule(&format!("{AGENT}/32")))?;
    api.is_served(OUTSIDE)?;
    Ok("refused outside, served inside and at the edge itself".to_owned())
}

struct Api<'a> {
    scene: &'a Scene<'a>,
    key: String,
}

impl Api<'_> {
    fn is_refused(&self, client: Client) -> io::Result<()> {
        let (status, body) = self.get(client, "/self")?;
        let expected = body.contains("\"ERR_NGROK_220\"") && body.contains(AGENT);
        match status == 403 && expected && body.contains("\"operation_id\"") {
            true => Ok(()),
            false => Err(io::Error::other(format!("{client:?} is not refused: {status} {body}"))),
        }
    }

    fn is_served(&self, client: Client) -> io::Result<()> {
        match self.get(client, "/self")? {
            (200, _) => Ok(()),
            (status, body) => Err(io::Error::other(format!("{client:?}: {status} {body}"))),
        }
    }

    fn get(&self, client: Client, path: &str) -> io::Result<(u16, String)> {
        self.call(client, "GET", path, "")
    }

    /// Creates an object and returns its id.
    fn create(&self, path: &str, body: &str) -> io::Result<String> {
        let (status, made) = self.call(LOCAL, "POST", path, body)?;
        let id = made.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next());
        match id.filter(|_| status == 201) {
            Some(id) => Ok(id.to_owned()),
            None => Err(io::Error::other(format!("POST {path}: {status} {made}"))),
        }
    }

    fn change(&self, path: &str, body: &str) -> io::Result<()> {
        match self.call(LOCAL, "PATCH", path, body)? {
            (200, _) => Ok(()),
            (status, answer) => Err(io::Error::other(format!("PATCH {path}: {status} {answer}"))),
        }
    }

    /// Returns status and body of a request over TLS, with the edge's CA alone.
    fn call(
        &self,
        (place, address): Client,
        method: &str,
        path: &str,
        body: &str,
    ) -> io::Result<(u16, String)> {
        let mut config = String::new();
        for line in [
            format!("url = \"https://{EDGE_NAME}:{API_PORT}{path}\""),
            format!("resolve = \"{EDGE_NAME}:{API_PORT}:{address}\""),
            format!("header = \"Authorization: Bearer {}\"", self.key),
        ] {
            let _ = writeln!(config, "{line}");
        }
        // A file: arguments of a program are visible.
        let file = self.scene.dir.join("curl.conf");
        std::fs::write(&file, config)?;
        let mut curl = self.scene.lab.command(place, "curl");
        curl.args(["-sS", "-m", "20", "-X", method, "-w", "\n%{http_code}", "--config"]).arg(&file);
        curl.arg("--cacert").arg(self.scene.dir.join("edge/ca.pem"));
        curl.args(["-H", "Ngrok-Version: 2", "-H", "Content-Type: application/json"]);
        if !body.is_empty() {
            curl.args(["-d", body]);
        }
        let output = curl.output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let (answer, status) = text.rsplit_once('\n').unwrap_or_default();
        match status.parse() {
            Ok(status) if status > 0 => Ok((status, answer.to_owned())),
            _ => Err(io::Error::other(format!("{method} {path} from {place:?}: {said}"))),
        }
    }
}
