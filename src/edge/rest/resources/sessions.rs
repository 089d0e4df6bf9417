//! `/tunnel_sessions`: agents that are connected, and the commands stop, restart and update.

use std::time::Duration;

use serde_json::{Value, json};

use crate::edge::agents::overview::SessionOverview;
use crate::edge::agents::remote::{self, CommandFault};
use crate::edge::context::REGION;
use crate::edge::rest::body::{self, BodyUse, FieldRule, FieldUse};
use crate::edge::rest::context::{ApiContext, credential_id, timestamp};
use crate::edge::rest::error::ApiError;
use crate::edge::rest::page;
use crate::edge::rest::resource::{Resource, RestReply, unknown_route, wrong_method};
use crate::mux::StreamType;
use crate::proto::messages::UpdateRequest;

/// First part of the paths.
pub const PATH: &str = "tunnel_sessions";

/// Time for an agent to answer a command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// Fields of the body of an update.
const UPDATE_RULES: &[FieldRule] = &[FieldRule::text("version", FieldUse::Both)];

/// Sessions of agents.
pub struct TunnelSessions;

/// A command to an agent, with its error codes.
struct RemoteCommand {
    kind: StreamType,
    name: &'static str,
    /// The agent reported that it cannot.
    unsupported: u32,
    /// The agent refuses this time.
    refused: u32,
}

/// The agent did not answer.
const NO_ANSWER: u32 = 810;

const COMMANDS: [RemoteCommand; 3] = [
    RemoteCommand { kind: StreamType::STOP, name: "stop", unsupported: 804, refused: 807 },
    RemoteCommand { kind: StreamType::RESTART, name: "restart", unsupported: 805, refused: 808 },
    RemoteCommand { kind: StreamType::UPDATE, name: "update", unsupported: 806, refused: 809 },
];

impl Resource for TunnelSessions {
    fn path(&self) -> &'static str {
        PATH
    }

    fn prefix(&self) -> &'static str {
        "ts"
    }

    fn list(&self, context: &ApiContext<'_>) -> Result<Value, ApiError> {
        let sessions = context.edge.agents.overview();
        let ids = sessions.iter().map(|s| s.info.id.clone()).collect();
        page::list(context, PATH, self.prefix(), ids, |id| {
            sessions.iter().find(|s| s.info.id == id).map(|session| show(context, session))
        })
    }

    fn get(&self, context: &ApiContext<'_>, id: &str) -> Result<Value, ApiError> {
        find(context, id).map(|session| show(context, &session))
    }

    fn action(
        &self,
        context: &ApiContext<'_>,
        id: &str,
        method: &str,
        action: &str,
    ) -> Result<RestReply, ApiError> {
        let command = COMMANDS.iter().find(|c| c.name == action).ok_or_else(unknown_route)?;
        if method != "POST" {
            return Err(wrong_method(method));
        }
        let session = find(context, id)?;
        let rules = if command.kind == StreamType::UPDATE { UPDATE_RULES } else { &[] };
        let given = body::read(rules, &context.body, BodyUse::Update)?;
        let version = given.get("version").and_then(Value::as_str).unwrap_or_default();
        run(command, &session, version)?;
        // Its client fails at a response without a body.
        Ok(if context.is_python_client { RestReply::Found(json!({})) } else { RestReply::Done })
    }
}

fn find(context: &ApiContext<'_>, id: &str) -> Result<SessionOverview, ApiError> {
    let sessions = context.edge.agents.overview();
    sessions.into_iter().find(|s| s.info.id == id).ok_or_else(|| ApiError::unknown_id(id))
}

fn show(context: &ApiContext<'_>, session: &SessionOverview) -> Value {
    let info = &session.info;
    json!({
        "id": info.id,
        "uri": context.uri(PATH, &info.id),
        "agent_version": info.version,
        "credential": context.reference("credentials", &credential_id(&session.account)),
        "ip": session.peer.ip().to_canonical().to_string(),
        "metadata": info.metadata,
        "os": info.os,
        "region": REGION,
        "started_at": timestamp(info.started_at),
        "transport": format!("ngrok/{}", info.protocol),
    })
}

/// Sends a command, unless the agent reported in Auth that it cannot carry it out.
fn run(command: &RemoteCommand, session: &SessionOverview, version: &str) -> Result<(), ApiError> {
    let info = &session.info;
    let reason = match command.kind {
        StreamType::STOP => &info.stop_unsupported,
        StreamType::RESTART => &info.restart_unsupported,
        _ => &info.update_unsupported,
    };
    let name = command.name;
    let reason = reason.as_deref().unwrap_or("it is too old");
    if !reason.is_empty() {
        let text = format!("The agent does not support the command {name}: {reason}.");
        return Err(ApiError::new(400, command.unsupported, text));
    }
    let request = match command.kind {
        StreamType::UPDATE => {
            UpdateRequest { version: version.to_owned(), permit_major_version: false }.encode()
        }
        _ => b"{}".to_vec(),
    };
    match remote::send(&session.session, command.kind, &request, COMMAND_TIMEOUT) {
        Ok(response) => match response.error {
            None => Ok(()),
            Some(refusal) => {
                let text = format!("The agent refused the command {name}: {}.", refusal.message);
                Err(ApiError::new(400, command.refused, text))
            }
        },
        Err(CommandFault::NotSent) => Err(ApiError::unknown_id(&info.id)),
        Err(CommandFault::NoResponse) => {
            let text = format!("The agent did not answer the command {name}.");
            Err(ApiError::new(504, NO_ANSWER, text))
        }
    }
}
