//! Parses the words after `api`: resource, action, arguments and flags. The flags of an action
//! follow its name, the flags of all actions may be anywhere. Errors do not contain a value,
//! which could be a secret.

use crate::cli::exit::CommandError;
use crate::cli::parse::{self, LooseFlag, shown};
use crate::cli::table;
use crate::config::nearest;
use crate::rest_client::actions::{self, ApiAction, ApiResource, FlagKind};
use crate::rest_client::request::GivenApiFlag;

/// The parsed words.
#[derive(Default)]
pub struct ApiLine {
    /// First word of resources with two words, before the second.
    pub group: String,
    /// The resource, if it was given.
    pub resource: Option<ApiResource>,
    /// The action, if it was given.
    pub action: Option<ApiAction>,
    /// Arguments of the action.
    pub arguments: Vec<String>,
    /// Flags of the action.
    pub flags: Vec<GivenApiFlag>,
    /// Flags of all actions.
    pub common: Vec<LooseFlag>,
    /// Whether help was requested.
    pub help: bool,
}

pub fn parse(program: &str, words: &[String]) -> Result<ApiLine, CommandError> {
    let mut line = ApiLine::default();
    let mut words = words.iter().cloned();
    while let Some(word) = words.next() {
        if word == "--" {
            for word in words.by_ref() {
                line.word(program, word)?;
            }
        } else if matches!(word.as_str(), "-h" | "--help") {
            line.help = true;
        } else if word.len() > 1 && word.starts_with('-') {
            line.flag(program, word, &mut words)?;
        } else if word == "help" && line.action.is_none() {
            line.help = true;
        } else {
            line.word(program, word)?;
        }
    }
    Ok(line)
}

impl ApiLine {
    /// Returns the command up to here, as it is typed.
    pub fn name(&self, program: &str) -> String {
        let resource = self.resource.as_ref().map_or(self.group.as_str(), |r| r.name);
        let action = self.action.as_ref().map_or("", |action| action.name);
        let name = format!("{program} api {resource} {action}");
        name.trim_end().to_owned()
    }

    /// Adds a word that is not a flag.
    pub fn word(&mut self, program: &str, word: String) -> Result<(), CommandError> {
        if self.action.is_some() {
            self.arguments.push(word);
        } else if let Some(resource) = &self.resource {
            self.action = Some(resource.action(&word).ok_or_else(|| {
                let names: Vec<_> = resource.actions().iter().map(|action| action.name).collect();
                self.unknown(program, &word, "an action", names)
            })?);
        } else {
            let name = format!("{} {word}", self.group);
            let name = name.trim_start();
            self.resource = actions::resource(name);
            if self.resource.is_none() {
                let is_group =
                    |r: ApiResource| r.name.split_once(' ').is_some_and(|(g, _)| g == name);
                if !actions::resources().any(is_group) {
                    let names = next_words(&self.group).into_iter().map(|(word, _)| word).collect();
                    return Err(self.unknown(program, &word, "a resource", names));
                }
                self.group = name.to_owned();
            }
        }
        Ok(())
    }

    fn flag(
        &mut self,
        program: &str,
        word: String,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<(), CommandError> {
        let text = word.trim_start_matches('-');
        let (name, value) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v)));
        let own = self.action.as_ref().and_then(|action| action.flag(name)).cloned();
        let Some(flag) = own.filter(|_| word.starts_with("--")) else {
            let loose = parse::split(word, false, rest)?;
            if !table::flag_named(&loose.name).is_some_and(|flag| flag.is_of_api()) {
                return Err(self.unknown_flag(program, &loose.name));
            }
            self.common.push(loose);
            return Ok(());
        };
        let value = match (flag.kind, value.map(str::to_owned)) {
            (FlagKind::Switch, None) => "true".to_owned(),
            (FlagKind::Switch, Some(value)) => parse::switch_value(name, &value)?.to_owned(),
            (_, Some(value)) => value,
            (_, None) => rest.next().ok_or_else(|| {
                CommandError::usage(format!("--{name} needs a value, as in --{name}=VALUE"))
            })?,
        };
        self.flags.push(GivenApiFlag { flag, value });
        Ok(())
    }

    fn unknown(&self, program: &str, word: &str, what: &str, names: Vec<&str>) -> CommandError {
        let name = self.name(program);
        let hint = match nearest(word, names) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("\"{name} --help\" lists them."),
        };
        CommandError::usage(format!("{} is not {what} of {name}\n{hint}", shown(word)))
    }

    fn unknown_flag(&self, program: &str, flag: &str) -> CommandError {
        let name = self.name(program);
        let own = self.action.iter().flat_map(|action| &action.flags).map(|f| f.name.as_str());
        let common = table::FLAGS.iter().filter(|flag| flag.is_of_api()).map(|flag| flag.name);
        let hint = match nearest(flag, own.chain(common)) {
            Some(near) => format!("did you mean --{near}?"),
            None if self.action.is_none() => "the flags of an action follow its name".to_owned(),
            None => format!("\"{name} --help\" lists them."),
        };
        let flag = shown(&format!("--{flag}"));
        CommandError::usage(format!("{flag} is not a flag of {name}\n{hint}"))
    }
}

/// Returns the words that may follow the first word of a resource, or `api` if it is empty, with
/// their descriptions.
pub fn next_words(group: &str) -> Vec<(&'static str, &'static str)> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for resource in actions::resources() {
        let (first, rest) = resource.name.split_once(' ').unwrap_or(("", resource.name));
        if first == group {
            found.push((rest, resource.about()));
        } else if group.is_empty() && found.last().is_none_or(|(word, _)| *word != first) {
            found.push((first, "a group of resources"));
        }
    }
    found
}

/// Checks the number of arguments.
pub fn check_arguments(
    name: &str,
    action: &ApiAction,
    given: &[String],
) -> Result<(), CommandError> {
    let needed = action.arguments();
    if given.len() == needed.len() {
        return Ok(());
    }
    let example = needed.iter().fold(name.to_owned(), |line, argument| {
        format!("{line} {}", argument.to_ascii_uppercase())
    });
    if given.iter().any(|word| matches!(word.as_str(), "true" | "false")) {
        return Err(CommandError::usage(format!(
            "{name}: a switch has its value behind an equals sign, as in --enforced=false"
        )));
    }
    Err(CommandError::usage(format!(
        "{name} needs {} arguments, {} given\nas in \"{example}\"",
        needed.len(),
        given.len()
    )))
}
