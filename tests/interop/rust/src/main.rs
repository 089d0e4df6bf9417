//! The official Rust SDK behind a line protocol: one JSON command a line in, one JSON answer a
//! line out. `../client.py` and `../client.mjs` are its twins; `../drive.py` uses all three.

use std::collections::HashMap;
use std::error::Error;

use bytes::Bytes;
use ngrok::Session;
use ngrok::config::{
    ForwarderBuilder, HttpTunnelBuilder, OauthOptions, OidcOptions, Policy, TcpTunnelBuilder,
    TlsTunnelBuilder,
};
use ngrok::tunnel::{EndpointInfo, TunnelCloser, TunnelInfo};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use url::Url;

type Failure = Box<dyn Error + Send + Sync>;

/// A forwarded endpoint of any protocol.
trait Endpoint: EndpointInfo + TunnelInfo + TunnelCloser + Send {}

impl<T: EndpointInfo + TunnelInfo + TunnelCloser + Send> Endpoint for T {}

#[derive(Default)]
struct Client {
    sessions: Vec<Session>,
    endpoints: HashMap<String, Box<dyn Endpoint>>,
}

impl Client {
    async fn command(&mut self, command: &Value) -> Result<Value, Failure> {
        match text(command, "do")? {
            "connect" => self.connect(command).await,
            "listen" => self.listen(command).await,
            "forward" => {
                self.connect(command).await?;
                let session = self.sessions.last().ok_or("not connected")?;
                let to = Url::parse(text(command, "to")?)?;
                let endpoint =
                    session.http_endpoint().listen_and_forward(to).await.map_err(coded)?;
                Ok(self.keep(Box::new(endpoint)))
            }
            "close" => {
                let endpoint = self.endpoints.remove(text(command, "url")?);
                endpoint.ok_or("an unknown URL")?.close().await.map_err(coded)?;
                Ok(json!({}))
            }
            "bye" => {
                self.sessions.first_mut().ok_or("not connected")?.close().await.map_err(coded)?;
                Ok(json!({"bye": true}))
            }
            other => Err(format!("{other} is not a command").into()),
        }
    }

    async fn connect(&mut self, command: &Value) -> Result<Value, Failure> {
        let mut builder = Session::builder();
        builder.server_addr(text(command, "server")?)?.root_cas(text(command, "ca")?)?;
        builder.authtoken(text(command, "token")?).metadata("interop");
        self.sessions.push(builder.connect().await.map_err(coded)?);
        Ok(json!({}))
    }

    async fn listen(&mut self, command: &Value) -> Result<Value, Failure> {
        let session = self.sessions.first().ok_or("not connected")?;
        let to = Url::parse(text(command, "to")?)?;
        let domain = command["domain"].as_str();
        let calls = Call::read(command)?;
        let endpoint: Box<dyn Endpoint> = match text(command, "proto")? {
            "http" => {
                let mut builder = session.http_endpoint();
                domain.map(|domain| builder.domain(domain));
                calls.iter().try_for_each(|call| http_call(&mut builder, call))?;
                Box::new(builder.metadata("interop").listen_and_forward(to).await.map_err(coded)?)
            }
            "tcp" => {
                let mut builder = session.tcp_endpoint();
                calls.iter().try_for_each(|call| tcp_call(&mut builder, call))?;
                Box::new(builder.metadata("interop").listen_and_forward(to).await.map_err(coded)?)
            }
            "tls" => {
                let mut builder = session.tls_endpoint();
                domain.map(|domain| builder.domain(domain));
                calls.iter().try_for_each(|call| tls_call(&mut builder, call))?;
                Box::new(builder.metadata("interop").listen_and_forward(to).await.map_err(coded)?)
            }
            other => return Err(format!("{other} is not a protocol").into()),
        };
        Ok(self.keep(endpoint))
    }

    fn keep(&mut self, endpoint: Box<dyn Endpoint>) -> Value {
        let url = endpoint.url().to_owned();
        let answer = json!({"url": url, "id": endpoint.id()});
        self.endpoints.insert(url, endpoint);
        answer
    }
}

fn text<'a>(command: &'a Value, key: &str) -> Result<&'a str, Failure> {
    Ok(command[key].as_str().ok_or_else(|| format!("{key} is not a string"))?)
}

/// Call of a method of a builder, as `["basic_auth", ["user", "password"]]`.
struct Call<'a> {
    name: &'a str,
    arguments: &'a [Value],
}

impl<'a> Call<'a> {
    fn read(command: &'a Value) -> Result<Vec<Self>, Failure> {
        let calls = command["calls"].as_array().map_or(&[][..], Vec::as_slice);
        let read = |call: &'a Value| {
            let name = call[0].as_str()?;
            Some(Call { name, arguments: call[1].as_array()? })
        };
        calls
            .iter()
            .map(|call| Ok(read(call).ok_or_else(|| format!("{call} is not a call"))?))
            .collect()
    }

    fn text(&self, at: usize) -> Result<&'a str, Failure> {
        let argument = self.arguments.get(at).and_then(Value::as_str);
        Ok(argument.ok_or_else(|| format!("{}: argument {at} is not a string", self.name))?)
    }

    fn flag(&self) -> Result<bool, Failure> {
        let argument = self.arguments.first().and_then(Value::as_bool);
        Ok(argument.ok_or_else(|| format!("{}: the argument is not a boolean", self.name))?)
    }

    /// Returns the bytes of a file; the argument is `{"file": PATH}`.
    fn file(&self, at: usize) -> Result<Bytes, Failure> {
        let path = self.arguments.get(at).and_then(|argument| argument["file"].as_str());
        let path = path.ok_or_else(|| format!("{}: argument {at} is not a file", self.name))?;
        Ok(std::fs::read(path)?.into())
    }

    fn unknown(&self) -> Failure {
        format!("the builder does not have {}", self.name).into()
    }
}

/// Applies a call that the builders of all protocols have. Returns whether it is one.
macro_rules! common_call {
    ($builder:expr, $call:expr) => {
        match $call.name {
            "allow_cidr" => $builder.allow_cidr($call.text(0)?).done(),
            "deny_cidr" => $builder.deny_cidr($call.text(0)?).done(),
            "proxy_proto" => $builder.proxy_proto($call.text(0)?.parse::<i64>()?.into()).done(),
            "binding" => $builder.binding($call.text(0)?).done(),
            "forwards_to" => $builder.forwards_to($call.text(0)?).done(),
            "verify_upstream_tls" => $builder.verify_upstream_tls($call.flag()?).done(),
            "policy" => $builder.policy(Policy::try_from($call.text(0)?)?)?.done(),
            "traffic_policy" => $builder.traffic_policy($call.text(0)?).done(),
            "pooling_enabled" => $builder.pooling_enabled($call.flag()?).done(),
            _ => false,
        }
    };
}

/// Ends a chain of calls, whose last value is the builder.
trait Done {
    fn done(&mut self) -> bool {
        true
    }
}

impl Done for HttpTunnelBuilder {}
impl Done for TcpTunnelBuilder {}
impl Done for TlsTunnelBuilder {}

fn http_call(builder: &mut HttpTunnelBuilder, call: &Call<'_>) -> Result<(), Failure> {
    if common_call!(builder, call) {
        return Ok(());
    }
    match call.name {
        "app_protocol" => builder.app_protocol(call.text(0)?),
        "scheme" => builder.scheme(call.text(0)?.parse()?),
        "mutual_tlsca" => builder.mutual_tlsca(call.file(0)?),
        "compression" => builder.compression(),
        "websocket_tcp_conversion" => builder.websocket_tcp_conversion(),
        "circuit_breaker" => {
            let ratio = call.arguments.first().and_then(Value::as_f64);
            builder.circuit_breaker(ratio.ok_or("circuit_breaker: not a number")?)
        }
        "host_header_rewrite" => builder.host_header_rewrite(call.flag()?),
        "request_header" => builder.request_header(call.text(0)?, call.text(1)?),
        "response_header" => builder.response_header(call.text(0)?, call.text(1)?),
        "remove_request_header" => builder.remove_request_header(call.text(0)?),
        "remove_response_header" => builder.remove_response_header(call.text(0)?),
        "basic_auth" => builder.basic_auth(call.text(0)?, call.text(1)?),
        "oauth" => builder.oauth(OauthOptions::new(call.text(0)?)),
        "oidc" => builder.oidc(OidcOptions::new(call.text(0)?, call.text(1)?, call.text(2)?)),
        "webhook_verification" => builder.webhook_verification(call.text(0)?, call.text(1)?),
        "allow_user_agent" => builder.allow_user_agent(call.text(0)?),
        "deny_user_agent" => builder.deny_user_agent(call.text(0)?),
        _ => return Err(call.unknown()),
    };
    Ok(())
}

fn tcp_call(builder: &mut TcpTunnelBuilder, call: &Call<'_>) -> Result<(), Failure> {
    if common_call!(builder, call) {
        return Ok(());
    }
    match call.name {
        "remote_addr" => builder.remote_addr(call.text(0)?),
        _ => return Err(call.unknown()),
    };
    Ok(())
}

fn tls_call(builder: &mut TlsTunnelBuilder, call: &Call<'_>) -> Result<(), Failure> {
    if common_call!(builder, call) {
        return Ok(());
    }
    match call.name {
        "mutual_tlsca" => builder.mutual_tlsca(call.file(0)?),
        "termination" => builder.termination(call.file(0)?, call.file(1)?),
        _ => return Err(call.unknown()),
    };
    Ok(())
}

/// Returns an error of the SDK with its code.
fn coded<E: ngrok::Error + Send + Sync + 'static>(error: E) -> Failure {
    [with_causes(&error), error.error_code().unwrap_or_default().to_owned()].join(" ").into()
}

/// Returns the text of an error and of all its causes.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", with_causes(cause)),
        None => error.to_string(),
    }
}

async fn serve() -> std::io::Result<()> {
    let mut client = Client::default();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match serde_json::from_str(&line) {
            Ok(command) => client.command(&command).await,
            Err(error) => Err(error.into()),
        };
        let answer = answer.unwrap_or_else(|error| json!({"error": with_causes(&*error)}));
        println!("{answer}");
        if answer["bye"] == true {
            break;
        }
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(serve());
    // A thread that reads standard input would be waited for.
    runtime.shutdown_background();
    result
}
