//! Commands over the REST API of the edge on this machine: `token`, `agents`, `endpoints`,
//! `kick`, `domains` and `check`.

use std::path::PathBuf;

use argh::FromArgs;
use serde_json::{Value, json};

use super::client::EdgeApi;
use super::{output, place};

/// Time of an object without one, in the REST API.
const NO_TIME: &str = "1970-01-01T00:00:00Z";

/// Defines a command with the flags that all of them have. The parser cannot share flags
/// between commands.
macro_rules! remote {
    ($(#[$about:meta])* struct $name:ident { $($own:tt)* }) => {
        #[derive(FromArgs, Debug)]
        $(#[$about])*
        pub struct $name {
            $($own)*
            /// state directory of the edge (from edge.yml, else .culvert)
            #[argh(option)]
            dir: Option<PathBuf>,
            /// configuration of the edge (edge.yml)
            #[argh(option)]
            config: Option<PathBuf>,
            /// print JSON
            #[argh(switch)]
            json: bool,
        }

        impl $name {
            fn api(&self) -> Result<EdgeApi, String> {
                EdgeApi::open(&place::state_dir(self.dir.clone(), self.config.as_deref())?)
            }
        }
    };
}

/// Commands for authtokens.
#[derive(FromArgs, Debug)]
#[argh(subcommand)]
pub enum TokenCommand {
    /// Creates one.
    Add(TokenAdd),
    /// Lists all.
    List(TokenList),
    /// Removes one.
    Remove(TokenRemove),
    /// Replaces the rules of one.
    SetAcl(TokenSetAcl),
}

remote! {
    /// Add an authtoken: prints it once. Agents can use it at once.
    #[argh(subcommand, name = "add")]
    struct TokenAdd {
        /// rule for names that it may bind, such as bind:*.example.com; repeat it for more
        #[argh(option)]
        acl: Vec<String>,
        /// text that describes it
        #[argh(positional, default = "String::new()")]
        description: String,
    }
}

remote! {
    /// List the authtokens without their secrets, those of edge.yml too.
    #[argh(subcommand, name = "list")]
    struct TokenList {}
}

remote! {
    /// Remove an authtoken. Its agents are disconnected at once.
    #[argh(subcommand, name = "remove")]
    struct TokenRemove {
        /// id of the authtoken, cr_...
        #[argh(positional)]
        id: String,
    }
}

remote! {
    /// Replace the rules of an authtoken. Endpoints that they do not permit end at once.
    #[argh(subcommand, name = "set-acl")]
    struct TokenSetAcl {
        /// id of the authtoken, cr_...
        #[argh(positional)]
        id: String,
        /// rules such as bind:*.example.com; none: everything is permitted
        #[argh(positional)]
        rules: Vec<String>,
    }
}

remote! {
    /// List the agents that are connected.
    #[argh(subcommand, name = "agents")]
    struct Agents {}
}

remote! {
    /// List the endpoints that are online.
    #[argh(subcommand, name = "endpoints")]
    struct EndpointList {}
}

remote! {
    /// Stop an agent. It ends with exit code 0. To keep it out, remove its authtoken.
    #[argh(subcommand, name = "kick")]
    struct Kick {
        /// id of the session, ts_...
        #[argh(positional)]
        id: String,
    }
}

remote! {
    /// List the domains that agents may bind, add one, or remove one.
    #[argh(subcommand, name = "domains")]
    struct Domains {
        /// reserve this domain
        #[argh(option)]
        add: Option<String>,
        /// remove the domain with this id, rd_...
        #[argh(option)]
        remove: Option<String>,
    }
}

remote! {
    /// Check the configuration and whether the edge answers.
    #[argh(subcommand, name = "check")]
    struct Check {}
}

impl TokenCommand {
    /// Runs the command. Returns its output.
    pub fn run(self) -> Result<String, String> {
        match self {
            TokenCommand::Add(command) => command.run(),
            TokenCommand::List(command) => command.run(),
            TokenCommand::Remove(command) => command.run(),
            TokenCommand::SetAcl(command) => command.run(),
        }
    }
}

impl TokenAdd {
    fn run(self) -> Result<String, String> {
        let body = json!({"description": self.description, "acl": self.acl});
        let made = self.api()?.call("POST", "/credentials", Some(&body))?;
        if self.json {
            return Ok(output::json(&made));
        }
        let text = |key: &str| made[key].as_str().unwrap_or_default();
        Ok(format!(
            "id: {}\nauthtoken: {}\n\nThe authtoken is not shown again. On the agent's machine:\n\n  \
             culvert config add-authtoken {}\n",
            text("id"),
            text("token"),
            text("token")
        ))
    }
}

impl TokenList {
    fn run(self) -> Result<String, String> {
        let mut list = self.api()?.list("/credentials", "credentials")?;
        for credential in list.iter_mut().filter(|_| !self.json) {
            // Those of edge.yml: the file has no time of creation, and the API needs one.
            if credential["created_at"] == NO_TIME {
                credential["created_at"] = Value::Null;
            }
        }
        let columns = [
            ("id", "id"),
            ("created", "created_at"),
            ("acl", "acl"),
            ("description", "description"),
        ];
        Ok(shown(self.json, list, &columns, "This edge has no authtokens."))
    }
}

impl TokenRemove {
    fn run(self) -> Result<String, String> {
        self.api()?.call("DELETE", &path("credentials", &self.id), None)?;
        Ok(done(self.json, &format!("Removed {}.", self.id)))
    }
}

impl TokenSetAcl {
    fn run(self) -> Result<String, String> {
        let body = json!({"acl": self.rules});
        let changed = self.api()?.call("PATCH", &path("credentials", &self.id), Some(&body))?;
        Ok(match self.json {
            true => output::json(&changed),
            false => format!("Changed the rules of {}.\n", self.id),
        })
    }
}

impl Agents {
    /// Runs the command. Returns its output.
    pub fn run(self) -> Result<String, String> {
        let list = self.api()?.list("/tunnel_sessions", "tunnel_sessions")?;
        let columns = [
            ("id", "id"),
            ("address", "ip"),
            ("version", "agent_version"),
            ("os", "os"),
            ("since", "started_at"),
            ("authtoken", "credential.id"),
            ("metadata", "metadata"),
        ];
        Ok(shown(self.json, list, &columns, "No agent is connected."))
    }
}

impl EndpointList {
    /// Runs the command. Returns its output.
    pub fn run(self) -> Result<String, String> {
        let list = self.api()?.list("/endpoints", "endpoints")?;
        let columns = [
            ("url", "public_url"),
            ("upstream", "upstream_url"),
            ("since", "created_at"),
            ("session", "tunnel_session.id"),
            ("name", "name"),
        ];
        Ok(shown(self.json, list, &columns, "No endpoint is online."))
    }
}

impl Kick {
    /// Runs the command. Returns its output.
    pub fn run(self) -> Result<String, String> {
        let path = format!("{}/stop", path("tunnel_sessions", &self.id));
        self.api()?.call("POST", &path, None).map_err(|e| {
            // Codes of an agent that does not stop. Other errors are of the id or the edge.
            let by_agent = ["ERR_NGROK_80", "ERR_NGROK_81"].iter().any(|code| e.contains(code));
            let advice = "\nTo disconnect it all the same, remove its authtoken: token remove";
            if by_agent { e + advice } else { e }
        })?;
        Ok(done(self.json, &format!("Stopped {}.", self.id)))
    }
}

impl Domains {
    /// Runs the command. Returns its output.
    pub fn run(self) -> Result<String, String> {
        let api = self.api()?;
        if let Some(id) = &self.remove {
            api.call("DELETE", &path("reserved_domains", id), None)?;
            return Ok(done(self.json, &format!("Removed {id}.")));
        }
        if let Some(domain) = &self.add {
            let made = api.call("POST", "/reserved_domains", Some(&json!({"domain": domain})))?;
            let id = made["id"].as_str().unwrap_or_default();
            return Ok(match self.json {
                true => output::json(&made),
                false => format!("Reserved {domain}: {id}.\n"),
            });
        }
        let list = api.list("/reserved_domains", "reserved_domains")?;
        let columns = [("id", "id"), ("domain", "domain"), ("description", "description")];
        Ok(shown(self.json, list, &columns, "This edge has no domains."))
    }
}

impl Check {
    /// Runs the command. Returns its output.
    pub fn run(self) -> Result<String, String> {
        // Reads the configuration too.
        let api = self.api()?;
        let own = api.call("GET", "/self", None)?;
        let agents = api.list("/tunnel_sessions", "tunnel_sessions")?.len();
        let endpoints = api.list("/endpoints", "endpoints")?.len();
        let text = |key: &str| own[key].as_str().unwrap_or_default();
        if self.json {
            return Ok(output::json(&json!({
                "url": api.url(),
                "version": own["edge_version"],
                "domain": own["domain"],
                "agents": agents,
                "endpoints": endpoints,
            })));
        }
        Ok(format!(
            "The edge answers at {}: version {}, domain {}, agents {agents}, endpoints \
             {endpoints}.\n",
            api.url(),
            text("edge_version"),
            text("domain")
        ))
    }
}

/// Returns the path of an object. The edge checks the id.
fn path(resource: &str, id: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    format!("/{resource}/{}", id.chars().map(safe).collect::<String>())
}

fn shown(json: bool, list: Vec<Value>, columns: &[(&str, &str)], empty: &str) -> String {
    if json { output::json(&Value::Array(list)) } else { output::table(&list, columns, empty) }
}

fn done(json: bool, text: &str) -> String {
    if json { "{}\n".to_owned() } else { format!("{text}\n") }
}
