//! `api`: one action of ngrok's REST API. Parses the command line and prints the response: the
//! JSON on standard output, the status on standard error. The actions and their requests are in
//! `rest_client`.

pub(super) mod complete;
mod help;
mod words;

use std::fs::File;
use std::io::Read;

use super::exit::{CommandError, FINE, print};
use super::parse::ParsedCommand;
use crate::config::{Agent, Cas, file};
use crate::logging;
use crate::proto::secret::Secret;
use crate::rest_client::actions::FlagKind;
use crate::rest_client::call::{self, ApiAddress, VENDOR_URL};
use crate::rest_client::request::{self, GivenApiFlag};
use crate::sys::argv;
use words::ApiLine;

/// Longest text of a file or at a URL.
const MAX_TEXT_BYTES: usize = 1 << 20;

pub(super) fn run(program: &str, mut typed: ParsedCommand) -> Result<u8, CommandError> {
    let line = words::parse(program, &typed.words)?;
    typed.add_flags(program, line.common)?;
    let secrets = line.flags.iter().filter(|given| given.flag.is_secret());
    typed.secrets().chain(secrets.map(|given| given.value.as_str())).for_each(argv::hide);
    let ApiLine { resource: Some(resource), action: Some(action), help: false, .. } = line else {
        return print(&help::text(program, &typed, &line.group, line.resource, line.action));
    };
    let name = format!("{program} api {} {}", resource.name, action.name);
    words::check_arguments(&name, &action, &line.arguments)?;
    let flags = loaded(&name, line.flags)?;
    let request = request::build(&action, &line.arguments, &flags)
        .map_err(|why| CommandError::usage(format!("{name}: {why}")))?;
    let agent =
        file::load(&typed.list("config")).map_err(|e| CommandError::failed(e.to_string()))?.agent;
    let api = address(program, &typed, agent)?;
    let response = api.call(&request).map_err(CommandError::failed)?;
    let text = response.text.map_err(CommandError::failed)?;
    logging::notice(&response.status);
    if text.is_empty() { Ok(FINE) } else { print(&text) }
}

/// Returns the API of the command line, else of the environment, else of the configuration,
/// else that of the vendor.
fn address(program: &str, typed: &ParsedCommand, agent: Agent) -> Result<ApiAddress, CommandError> {
    let given = typed.text("api-url").map(str::to_owned).unwrap_or(agent.api_url);
    let cas = match (typed.text("api-cas"), agent.connect_cas) {
        (Some(text), _) => Cas::from_text(text),
        // The private CA of an edge signs for its API too.
        (None, Cas::File(path)) if !given.is_empty() => Cas::File(path),
        (None, _) => Cas::Host,
    };
    let api = ApiAddress {
        url: if given.is_empty() { VENDOR_URL.to_owned() } else { given },
        cas,
        proxy_url: agent.proxy_url,
        key: typed.text("api-key").map_or(agent.api_key, Secret::new),
    };
    if api.key.is_empty() {
        return Err(CommandError::failed(format!(
            "the API key is missing; set NGROK_API_KEY, or use '{program} config add-api-key KEY'"
        )));
    }
    api.check().map_err(CommandError::failed)?;
    Ok(api)
}

/// Replaces the values of files and URLs by their texts.
fn loaded(name: &str, mut flags: Vec<GivenApiFlag>) -> Result<Vec<GivenApiFlag>, CommandError> {
    for (n, given) in flags.iter().enumerate() {
        let same = |other: &&GivenApiFlag| {
            other.field() == given.field() && other.flag.name != given.flag.name
        };
        if let Some(other) = flags.iter().take(n).find(same) {
            let (a, b) = (&other.flag.name, &given.flag.name);
            return Err(CommandError::usage(format!("{name} takes one of --{a} and --{b}")));
        }
    }
    for given in &mut flags {
        let bytes = match given.flag.kind {
            FlagKind::File => read(&given.value),
            FlagKind::Url => call::fetch(&given.value, MAX_TEXT_BYTES),
            _ => continue,
        };
        let text = bytes
            .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()));
        given.value = text.map_err(|why| {
            CommandError::failed(format!("cannot read --{}: {why}", given.flag.name))
        })?;
    }
    Ok(flags)
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    // Widening. One byte more than allowed, to detect a longer file.
    let limit = MAX_TEXT_BYTES as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(format!("{path}: {error}")),
        Ok(n) if n > MAX_TEXT_BYTES => Err(format!("{path} is larger than {MAX_TEXT_BYTES} bytes")),
        Ok(_) => Ok(bytes),
    }
}
