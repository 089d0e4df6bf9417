//! Parses the arguments into a command with its words and flags. Users write `--flag=value` and
//! `--flag value`, flags before and after a command's words, and a group's flags after the
//! command. This pass also reports errors, with the nearest name and never with a value, which
//! could be a secret.

use std::ffi::OsString;

use super::exit::CommandError;
use super::table::{
    self, ANYWHERE, Arguments, COMMANDS, CommandSpec, FLAGS, FlagSpec, FlagValue, PROGRAM, RENAMED,
    RUN, Repeat,
};
use crate::config::nearest;
use crate::features;

/// Maximum length of an argument in a message, in characters.
const SHOWN: usize = 60;

/// Flags that restrict access: an empty value is an error.
const GUARDS: &[&str] = &[
    "basic-auth",
    "cidr-allow",
    "cidr-deny",
    "mutual-tls-cas",
    "oauth",
    "oauth-allow-domain",
    "oauth-allow-email",
    "oidc",
    "policy-file",
    "traffic-policy-file",
    "traffic-policy-url",
    "ua-filter-allow",
    "ua-filter-deny",
    "verify-webhook",
    "verify-webhook-secret",
];

/// Result of parsing.
pub(super) enum Invocation {
    /// Show the help of this command.
    Help(&'static CommandSpec),
    /// Print the version.
    Version,
    /// Run this command.
    Run(ParsedCommand),
}

/// A parsed command without syntax errors.
pub(super) struct ParsedCommand {
    /// The command.
    pub(super) command: &'static CommandSpec,
    /// Its arguments that are not flags.
    pub(super) words: Vec<String>,
    /// Whether it was called by its name in agent 2.
    pub(super) old_name: bool,
    flags: Vec<GivenFlag>,
}

struct GivenFlag {
    flag: &'static FlagSpec,
    value: String,
    /// It concerns the session and not the command's endpoint.
    of_session: bool,
}

// Called for each flag of the table: not inlined, each call is a few bytes.
impl ParsedCommand {
    fn given(&self, name: &str, of_session: bool) -> impl DoubleEndedIterator<Item = &GivenFlag> {
        debug_assert!(table::flag_named(name).is_some(), "{name} is in the table");
        let flags = self.flags.iter();
        flags.filter(move |given| given.flag.name == name && given.of_session == of_session)
    }

    /// Returns the value of a flag, the last one if there are several.
    #[inline(never)]
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.given(name, false).next_back().map(|given| given.value.as_str())
    }

    /// Returns the value of a flag, or an empty text.
    #[inline(never)]
    pub(super) fn owned(&self, name: &str) -> String {
        self.text(name).unwrap_or_default().to_owned()
    }

    /// Returns all values of a repeatable flag, separated at commas if it is of that kind.
    #[inline(never)]
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let mut list = Vec::new();
        for GivenFlag { flag, value, .. } in self.given(name, false) {
            match flag.many {
                Repeat::Commas => list.extend(value.split(',').map(|v| v.trim().to_owned())),
                _ => list.push(value.clone()),
            }
        }
        list.retain(|value| !value.is_empty());
        list
    }

    /// Returns whether a switch is on, if it was given.
    #[inline(never)]
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.text(name).map(|value| value != "false")
    }

    /// Returns the value of a flag for the session.
    pub(super) fn of_session(&self, name: &str) -> Option<&str> {
        self.given(name, true).next_back().map(|given| given.value.as_str())
    }

    /// Adds flags from the words of a command that parses them itself.
    pub(super) fn add_flags(
        &mut self,
        program: &str,
        loose: Vec<LooseFlag>,
    ) -> Result<(), CommandError> {
        self.flags.extend(settle(program, self.command, loose)?);
        Ok(())
    }

    /// Returns the values that must not be visible in the list of processes.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        self.flags.iter().filter(|given| given.flag.secret).map(|given| given.value.as_str())
    }

    /// Returns the outdated flags that were given: each replacement once, with its flags.
    pub(super) fn deprecated(&self) -> Vec<(String, &'static str)> {
        let mut found: Vec<(String, &'static str)> = Vec::new();
        for flag in FLAGS.iter().filter(|flag| flag.old & self.command.bit != 0) {
            if !self.flags.iter().any(|given| given.flag.name == flag.name) {
                continue;
            }
            match found.iter_mut().find(|(_, instead)| *instead == flag.instead) {
                Some((names, _)) => {
                    names.push_str(", --");
                    names.push_str(flag.name);
                }
                None => found.push((format!("--{}", flag.name), flag.instead)),
            }
        }
        found
    }
}

/// A flag before the command is known.
pub(super) struct LooseFlag {
    /// Without its hyphens.
    pub(super) name: String,
    value: Option<String>,
    /// Whether it precedes the command.
    early: bool,
}

/// Parses `args`, without the program's name.
pub(super) fn parse(
    program: &str,
    args: impl Iterator<Item = OsString>,
) -> Result<Invocation, CommandError> {
    let mut args = unicode(args)?.into_iter();
    let mut command = &PROGRAM;
    let mut loose: Vec<LooseFlag> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let (mut help, mut version, mut old_name) = (false, false, false);
    while let Some(word) = args.next() {
        if word == "--" {
            words.extend(args.by_ref());
        } else if matches!(word.as_str(), "-h" | "--help" | "--help=true") {
            help = true;
        } else if matches!(word.as_str(), "-v" | "--version" | "--version=true") {
            version = true;
        } else if matches!(word.as_str(), "--help=false" | "--version=false") {
            // Ignored.
        } else if word.len() > 1 && word.starts_with('-') {
            let early = command.name.is_empty();
            loose.push(split(word, early, &mut args)?);
        } else if !is_group(command) {
            // Not for `http help`, where `help` is the host `help:80`, and not for names of
            // endpoints.
            help |=
                word == "help" && words.is_empty() && !matches!(command.words, Arguments::Any(..));
            words.push(word);
        } else if word == "help" {
            help = true;
        } else if command.name.is_empty() && word == "authtoken" {
            // Agent 2's name of the command, in many guides for devices.
            old_name = true;
            command = table::command("config add-authtoken").unwrap_or(command);
        } else {
            command = member(program, command, &word)?;
            if matches!(command.words, Arguments::Rest(..)) {
                words.extend(help.then(|| "--help".to_owned()).into_iter().chain(args.by_ref()));
                help = false;
            }
        }
    }
    if help || (is_group(command) && !version) {
        // `culvert config` alone, too, if its flags are valid.
        if !help {
            settle(program, command, loose)?;
            if let Some(word) = words.first() {
                return Err(unknown_command(program, command, word));
            }
        }
        return Ok(Invocation::Help(command));
    }
    if version {
        return Ok(Invocation::Version);
    }
    let mut flags = settle(program, command, loose)?;
    join_value(&mut flags, &mut words);
    count(program, command, &words)?;
    Ok(Invocation::Run(ParsedCommand { command, words, old_name, flags }))
}

/// Returns the command of a group.
fn member(
    program: &str,
    group: &CommandSpec,
    word: &str,
) -> Result<&'static CommandSpec, CommandError> {
    let found = table::members(group).find(|(_, name)| *name == word);
    found.map(|(member, _)| member).ok_or_else(|| unknown_command(program, group, word))
}

/// Returns whether other commands follow it.
fn is_group(command: &CommandSpec) -> bool {
    table::members(command).next().is_some()
}

fn unicode(args: impl Iterator<Item = OsString>) -> Result<Vec<String>, CommandError> {
    args.map(OsString::into_string)
        .collect::<Result<_, _>>()
        .map_err(|_| CommandError::usage("the command line is not UTF-8"))
}

/// Returns the flag that `word` begins, with its value, which may be the next word.
pub(super) fn split(
    word: String,
    early: bool,
    rest: &mut impl Iterator<Item = String>,
) -> Result<LooseFlag, CommandError> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (word, None),
    };
    let short = |(short, _): &&(&str, &str)| name.strip_prefix('-') == Some(*short);
    let long = table::SHORT_FLAGS.iter().find(short).map(|(_, long)| *long);
    let Some(name) = long.or_else(|| name.strip_prefix("--")) else {
        let quoted = shown(renamed(name.trim_start_matches('-')));
        let text = format!("flags have two hyphens; write --{}", quoted.trim_matches('"'));
        return Err(CommandError::usage(text));
    };
    let name = name.to_owned();
    let takes_value =
        table::flag_named(&name).is_some_and(|f| !matches!(f.value, FlagValue::Switch));
    if value.is_some() || !takes_value {
        return Ok(LooseFlag { name, value, early });
    }
    match rest.next() {
        Some(value) => Ok(LooseFlag { name, value: Some(value), early }),
        None => Err(CommandError::usage(format!("--{name} needs a value, as in --{name}=VALUE"))),
    }
}

fn renamed(name: &str) -> &str {
    RENAMED.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new)
}

/// Returns program and command as they are typed.
pub(super) fn full_name(program: &str, command: &CommandSpec) -> String {
    format!("{program} {}", command.name).trim_end().to_owned()
}

fn unknown_command(program: &str, group: &CommandSpec, word: &str) -> CommandError {
    let name = full_name(program, group);
    if !features::TOOLS && table::TOOLS.contains(&format!("{} {word}", group.name).trim_start()) {
        return CommandError::usage(format!("{name} {word} {}", features::NO_TOOLS));
    }
    let missing = match word {
        "api" if !features::API => Some(features::NO_API),
        "diagnose" if !features::DIAGNOSE => Some(features::NO_DIAGNOSE),
        "service" if !features::SERVICE => Some(features::NO_SERVICE),
        "update" if !features::UPDATE => Some(features::NO_UPDATE),
        _ => None,
    };
    if let Some(reason) = missing.filter(|_| group.name.is_empty()) {
        return CommandError::usage(format!("{name} {word} {reason}"));
    }
    let names = table::members(group).filter(|(member, _)| !member.hidden).map(|(_, name)| name);
    let hint = match nearest(word, names) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("\"{name} --help\" lists them."),
    };
    CommandError::usage(format!("{} is not a command of {name}\n{hint}", shown(word)))
}

/// Checks the flags for `command`.
fn settle(
    program: &str,
    command: &CommandSpec,
    loose: Vec<LooseFlag>,
) -> Result<Vec<GivenFlag>, CommandError> {
    let mut flags = Vec::new();
    for LooseFlag { name, value, early } in loose {
        let known = table::flag_named(&name);
        let flag = match known {
            Some(flag) if flag.on & (command.bit | ANYWHERE) != 0 => flag,
            // A flag of the session before a command of one endpoint.
            Some(flag) if early && command.bit & RUN != 0 && flag.has_session() => flag,
            _ => return Err(unknown_flag(program, command, &name)),
        };
        let value = match (flag.value, value) {
            (FlagValue::Switch, None) => "true".to_owned(),
            (FlagValue::Switch, Some(value)) => switch_value(&name, &value)?.to_owned(),
            (FlagValue::One(_, choices), Some(value)) => {
                let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
                if !parts.into_iter().all(|part| choices.contains(&part)) {
                    return Err(CommandError::usage(format!(
                        "--{name} must be {}",
                        either(choices)
                    )));
                }
                value
            }
            // An unset variable, for example: it would leave the endpoint open.
            (_, value) if GUARDS.contains(&flag.name) && is_blank(value.as_deref()) => {
                return Err(CommandError::usage(format!(
                    "--{name} has an empty value; give one, or leave the flag out"
                )));
            }
            (_, value) => value.unwrap_or_default(),
        };
        let at_start = command.name == "start";
        let of_session = flag.has_session() && (early || at_start);
        flags.push(GivenFlag { flag, value, of_session });
    }
    Ok(flags)
}

/// Returns `true` or `false` for the value of a switch. The forms are those of Go's agents.
pub(super) fn switch_value(name: &str, value: &str) -> Result<&'static str, CommandError> {
    match value {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok("true"),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok("false"),
        _ => Err(CommandError::usage(format!("--{name} is true or false, as in --{name}=false"))),
    }
}

/// Returns whether a value is empty, also as a list.
fn is_blank(value: Option<&str>) -> bool {
    value.is_none_or(|value| value.chars().all(|c| c == ',' || c.is_whitespace()))
}

/// Joins words: `a, b or c`.
fn either(choices: &[&str]) -> String {
    match choices {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => choices.concat(),
    }
}

fn unknown_flag(program: &str, command: &CommandSpec, flag: &str) -> CommandError {
    let name = full_name(program, command);
    let takes =
        |other: &&FlagSpec, set: u32| set & (command.bit | ANYWHERE) != 0 && other.name != flag;
    let listed = FLAGS.iter().filter(|f| takes(f, f.listed())).map(|f| f.name);
    let all = FLAGS.iter().filter(|f| takes(f, f.on)).map(|f| f.name);
    let near = match renamed(flag) {
        new if new != flag && all.clone().any(|name| name == new) => Some(new),
        _ => nearest(flag, listed).or_else(|| nearest(flag, all)),
    };
    let elsewhere = table::flag_named(flag).map_or(0, |flag| flag.on);
    let others = COMMANDS.iter().filter(|c| c.bit & elsewhere != 0 && !c.hidden).map(|c| c.name);
    let others: Vec<&str> = others.collect();
    let hint = match near {
        _ if !others.is_empty() => format!("it is one of {}", others.join(", ")),
        Some(near) => format!("did you mean --{near}?"),
        None => format!("\"{name} --help\" lists them."),
    };
    CommandError::usage(format!("{} is not a flag of {name}\n{hint}", shown(&format!("--{flag}"))))
}

/// Checks the number of words, and the words themselves if the command has a list.
fn count(program: &str, command: &CommandSpec, words: &[String]) -> Result<(), CommandError> {
    let name = full_name(program, command);
    let example = command.examples.first().copied().unwrap_or_default();
    let example = example.replace("culvert", program);
    let given = words.len();
    let (word, most) = match command.words {
        Arguments::One(word, _) if given == 0 => {
            return Err(CommandError::usage(format!("{name} needs {word}, as in \"{example}\"")));
        }
        Arguments::Optional(_, _, choices)
            if words
                .first()
                .is_some_and(|word| !choices.is_empty() && !choices.contains(&word.as_str())) =>
        {
            let text = format!("{name} takes {}, as in \"{example}\"", either(choices));
            return Err(CommandError::usage(text));
        }
        Arguments::Any(..) | Arguments::Rest(..) => return Ok(()),
        Arguments::One(word, _) | Arguments::Optional(word, ..) => (word, 1),
        Arguments::None => ("", 0),
    };
    if given > most {
        if words.iter().any(|word| matches!(word.as_str(), "true" | "false")) {
            return Err(CommandError::usage(format!(
                "{name}: a switch has its value behind an equals sign, as in --inspect=false"
            )));
        }
        let takes = match most {
            0 => "no argument".to_owned(),
            n => format!("{n} ({word})"),
        };
        let text = format!("{name} takes {takes}, {given} given\nas in \"{example}\"");
        return Err(CommandError::usage(text));
    }
    Ok(())
}

/// Makes a word `true` or `false` the value of `--ipv6`, as the vendor's documents write it.
fn join_value(flags: &mut [GivenFlag], words: &mut Vec<String>) {
    if features::DIAGNOSE
        && let Some(given) = flags.iter_mut().find(|given| given.flag.name == "ipv6")
        && let [word] = &words[..]
        && matches!(word.as_str(), "true" | "false")
    {
        given.value.clone_from(word);
        words.clear();
    }
}

/// Returns an argument for a message, quoted and truncated.
pub(super) fn shown(word: &str) -> String {
    let short: String = word.chars().take(SHOWN).collect();
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(line: &str) -> Result<Invocation, CommandError> {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse("culvert", args.into_iter())
    }

    fn run(line: &str) -> String {
        match meant(line) {
            Ok(Invocation::Run(typed)) => {
                let mut out = typed.command.name.to_owned();
                for given in &typed.flags {
                    let mark = if given.of_session { "!" } else { "" };
                    out += &format!(" {mark}{}={}", given.flag.name, given.value);
                }
                if !typed.words.is_empty() {
                    out += &format!(" | {}", typed.words.join(" "));
                }
                out
            }
            Ok(Invocation::Help(command)) => format!("help {}", command.name).trim_end().to_owned(),
            Ok(Invocation::Version) => "the version".to_owned(),
            Err(CommandError::Usage(refusal)) => refusal.message.replace('\n', " / "),
            Err(CommandError::Failed(refusal)) => panic!("{refusal}"),
        }
    }

    #[test]
    fn every_order_and_form_is_one() {
        for line in [
            "http --url u --log stdout 8080",
            "http 8080 --url=u --log=stdout",
            "--url u http --log=stdout 8080",
            "--url=u --log stdout http 8080",
            "http --url u --log stdout -- 8080",
        ] {
            assert_eq!(run(line), "http url=u log=stdout | 8080", "{line}");
        }
        assert_eq!(run("config --config f check"), "config check config=f");
        assert_eq!(run("start --config a --config=b w"), "start config=a config=b | w");
        assert_eq!(run("start --all=true --none=false"), "start all=true none=false");
        assert_eq!(run("authtoken t"), "config add-authtoken | t");
        assert_eq!(run("http -- --odd"), "http | --odd");
        assert_eq!(run("config add-authtoken -"), "config add-authtoken | -");
        for line in ["-v", "--version", "--version http", "http --version"] {
            assert_eq!(run(line), "the version", "{line}");
        }
        assert_eq!(run("http 80 --url --name"), "http url=--name | 80");
        assert_eq!(run(""), "help");
        assert_eq!(run("version --log stdout"), "version log=stdout");
        assert_eq!(run("--log-level=debug config check"), "config check log-level=debug");
        assert_eq!(run("http --inspect=false 80"), "http inspect=false | 80");
        assert_eq!(
            run("http --inspect=0 --compression=T 80"),
            "http inspect=false compression=true | 80"
        );
        assert_eq!(run("http --metadata=a=b --url= 80"), "http metadata=a=b url= | 80");
        if features::DIAGNOSE {
            for line in [
                "diagnose -6 -r eu -w f",
                "-6 diagnose -r=eu -w=f",
                "diagnose --ipv6 --region eu --write-report f",
                "diagnose --ipv6 true --region=eu --write-report=f",
            ] {
                assert_eq!(run(line), "diagnose ipv6=true region=eu write-report=f", "{line}");
            }
            assert_eq!(run("diagnose --ipv6 false"), "diagnose ipv6=false");
            assert!(run("diagnose true").contains("behind an equals sign"));
            assert!(run("diagnose x").contains("takes no argument"));
        }
    }

    #[test]
    fn the_session_and_its_endpoint_have_texts_of_their_own() {
        assert_eq!(run("--metadata s http --metadata e 80"), "http !metadata=s metadata=e | 80");
        assert_eq!(
            run("start --metadata s --inspect=false x"),
            "start !metadata=s !inspect=false | x"
        );
        assert_eq!(run("--inspect=false tcp 22"), "tcp !inspect=false | 22");
        assert!(run("tcp --inspect=false 22").contains("it is one of http, start"));
        assert!(run("--metadata x version").contains("is not a flag of culvert version"));
    }

    #[test]
    fn values_by_kind() {
        let Ok(Invocation::Run(typed)) = meant(
            "http 80 --cidr-allow 10.0.0.0/8,::1/128 --cidr-allow=192.0.2.0/24, --url a \
                   --url b --compression --compression=false --request-header-add a:b,c:d \
                   --ua-filter-deny x,y --basic-auth u:pppppppp",
        ) else {
            panic!("good")
        };
        assert_eq!(typed.list("cidr-allow"), ["10.0.0.0/8", "::1/128", "192.0.2.0/24"]);
        assert_eq!(typed.text("url"), Some("b"));
        assert_eq!(typed.switch("compression"), Some(false));
        assert_eq!(typed.switch("websocket-tcp-converter"), None);
        assert_eq!(typed.list("request-header-add"), ["a:b,c:d"]);
        assert_eq!(typed.list("ua-filter-deny"), ["x,y"]);
        let secrets: Vec<&str> = typed.secrets().collect();
        assert_eq!(secrets, ["a:b,c:d", "u:pppppppp"]);
        let flags: Vec<String> = typed.deprecated().into_iter().map(|(flags, _)| flags).collect();
        assert_eq!(
            flags,
            [
                "--cidr-allow",
                "--basic-auth",
                "--compression",
                "--request-header-add",
                "--ua-filter-deny"
            ]
        );
        let Ok(Invocation::Run(typed)) =
            meant("http 80 --domain a --oidc x --oidc-scope y --scheme http")
        else {
            panic!("good")
        };
        let found = typed.deprecated();
        assert_eq!(found.len(), 2, "one warning for each replacement: {found:?}");
        assert_eq!(found[1], ("--scheme, --domain".to_owned(), "--url"));
        let Ok(Invocation::Run(typed)) = meant("tls 443 --cidr-allow ::/0") else { panic!("good") };
        assert!(typed.deprecated().is_empty(), "current on tls");
    }

    #[test]
    fn help_on_every_level() {
        for line in ["help", "-h", "--help", "--help=true"] {
            assert_eq!(run(line), "help");
        }
        for line in ["help http", "http --help", "http -h 80 --url u", "--help http"] {
            assert_eq!(run(line), "help http", "{line}");
        }
        for line in ["config", "help config", "config help"] {
            assert_eq!(run(line), "help config", "{line}");
        }
        for line in ["http help", "http --url u help", "http help 80"] {
            assert_eq!(run(line), "help http", "{line}");
        }
        assert_eq!(run("http -- help"), "http | help");
        assert_eq!(run("http help:80"), "http | help:80");
        assert_eq!(run("start help"), "start | help");
        assert!(run("http 80 help").contains("takes 1 (ADDR)"));
        assert_eq!(run("help config check"), "help config check");
        assert_eq!(run("help tunnel"), "help tunnel");
    }

    #[test]
    fn a_command_that_the_build_lacks_is_refused_with_its_feature() {
        for (line, name) in [
            ("completion bash", "completion"),
            ("config edit", "config edit"),
            ("help config upgrade", "config upgrade"),
        ] {
            let why = "is not supported: built without feature `tools`";
            assert_eq!(run(line) == format!("culvert {name} {why}"), !features::TOOLS, "{line}");
        }
        let why = "culvert service is not supported: built without feature `service`";
        assert_eq!(run("service install") == why, !features::SERVICE);
        assert!(run("config edti").contains("is not a command of culvert config"));
    }

    #[test]
    fn mistakes_get_a_hint_and_never_show_a_value() {
        for (line, expected) in MISTAKES {
            let text = run(line);
            assert!(!text.contains("hush"), "{text}");
            assert_eq!(text, *expected, "{line}");
        }
        if features::TOOLS {
            let expected = "culvert completion takes bash, zsh or fish, as in \"source <(culvert \
                            completion bash)\"";
            assert_eq!(run("completion hush"), expected);
        }
    }

    const MISTAKES: &[(&str, &str)] = &[
        ("htpt 80", "\"htpt\" is not a command of culvert / did you mean http?"),
        ("nothing", "\"nothing\" is not a command of culvert / \"culvert --help\" lists them."),
        ("config chekc", "\"chekc\" is not a command of culvert config / did you mean check?"),
        ("tunel", "\"tunel\" is not a command of culvert / \"culvert --help\" lists them."),
        ("http 80 --naem=hush", "\"--naem\" is not a flag of culvert http / did you mean --name?"),
        (
            "http 80 --authtokn hush",
            "\"--authtokn\" is not a flag of culvert http / did you mean --authtoken?",
        ),
        (
            "http 80 --subdomian=hush",
            "\"--subdomian\" is not a flag of culvert http / did you mean --subdomain?",
        ),
        (
            "http 80 --zzzzzz",
            "\"--zzzzzz\" is not a flag of culvert http / \"culvert http --help\" lists them.",
        ),
        ("http 80 -auth=hush", "flags have two hyphens; write --basic-auth"),
        (
            "http 80 --bind-tls=hush",
            "\"--bind-tls\" is not a flag of culvert http / did you mean --scheme?",
        ),
        ("http -url hush 80", "flags have two hyphens; write --url"),
        ("http", "culvert http needs ADDR, as in \"culvert http 8080\""),
        ("http 80 hush", "culvert http takes 1 (ADDR), 2 given / as in \"culvert http 8080\""),
        ("version x", "culvert version takes no argument, 1 given / as in \"culvert version\""),
        (
            "http 80 --inspect false",
            "culvert http: a switch has its value behind an equals sign, as in \
                 --inspect=false",
        ),
        ("http 80 --url", "--url needs a value, as in --url=VALUE"),
        ("start --all=hush", "--all is true or false, as in --all=false"),
        (
            "version --url hush",
            "\"--url\" is not a flag of culvert version / it is one of http, tcp, tls",
        ),
        ("http 80 --log-level hush", "--log-level must be debug, info, warn, error or crit"),
        ("tls 443 --terminate-at hush", "--terminate-at must be edge, agent or upstream"),
        ("http 80 --proxy-proto 3", "--proxy-proto must be 1 or 2"),
        ("--zz", "\"--zz\" is not a flag of culvert / \"culvert --help\" lists them."),
        (
            "config --zz",
            "\"--zz\" is not a flag of culvert config / \"culvert config --help\" \
                             lists them.",
        ),
    ];
}
