//! From what was typed to words in order. Users write `--flag=value` and
//! `--flag value`, flags before and after a command's words, a parent's flags
//! behind the sub-command; `argh` takes one of these forms. This pass also answers
//! mistakes, with the nearest name and never with a value: that could be a secret.

use std::ffi::OsString;

use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality};

use super::Failure;
use crate::config::nearest;

/// The tree of commands.
pub(super) type Info = CommandInfoWithArgs;

/// What was meant.
pub(super) enum Meaning {
    /// Show the help of the command at this path.
    Help(Vec<&'static str>),
    /// Run these words, as `argh` takes them.
    Run(Vec<String>),
}

/// Flags that any command takes, and ignores if it has no use for them.
const GLOBAL: &[&str] = &["--config", "--log", "--log-level", "--log-format"];

/// Flags for what is not there yet, and harmless to ignore: nothing is inspected.
const IGNORED: &[&str] = &["--inspect"];

/// Flags of the vendor's agent that this version does not have yet.
const LATER: &[&str] = &[
    "agent-tls-termination",
    "app-protocol",
    "basic-auth",
    "cidr-allow",
    "cidr-deny",
    "circuit-breaker",
    "compression",
    "crt",
    "host-header",
    "key",
    "label",
    "mutual-tls-cas",
    "oauth",
    "oidc",
    "policy-file",
    "proxy-proto",
    "request-header-add",
    "request-header-remove",
    "response-header-add",
    "response-header-remove",
    "scheme",
    "terminate-at",
    "traffic-policy-url",
    "ua-filter-allow",
    "ua-filter-deny",
    "verify-webhook",
    "websocket-tcp-converter",
];

/// Flags of older agents for the public URL, which `--url` has replaced.
const OLD_URL: &[&str] = &["domain", "hostname", "remote-addr", "subdomain"];

/// Commands of the vendor's agent that this version does not have yet.
const LATER_COMMANDS: &[&str] =
    &["api", "completion", "credits", "diagnose", "service", "tunnel", "update"];

/// Longest part of a typed word that a message shows, in characters.
const SHOWN: usize = 60;

/// A flag as typed.
struct Typed {
    /// `--url` or `-v`.
    name: String,
    value: Option<String>,
}

/// Brings `args`, without the program's name, into order.
pub(super) fn parse(
    program: &str,
    root: &Info,
    args: impl Iterator<Item = OsString>,
) -> Result<Meaning, Failure> {
    let mut args = words(args)?.into_iter();
    let mut command = root;
    let mut path: Vec<&'static str> = Vec::new();
    let mut flags: Vec<Typed> = Vec::new();
    let mut positionals: Vec<String> = Vec::new();
    let mut help = false;
    while let Some(word) = args.next() {
        if word == "--" {
            positionals.extend(args.by_ref());
        } else if matches!(word.as_str(), "-h" | "--help" | "--help=true") {
            help = true;
        } else if word.len() > 1 && word.starts_with('-') {
            flags.push(typed(root, word, &mut args)?);
        } else if command.commands.is_empty() {
            positionals.push(word);
        } else if word == "help" {
            help = true;
        } else if path.is_empty() && word == "authtoken" {
            // Agent 2's name of it, in many device guides.
            command = descend(descend(root, "config", &mut path)?, "add-authtoken", &mut path)?;
        } else {
            command = descend(command, &word, &mut path)
                .map_err(|_| unknown_command(program, command, &path, &word))?;
        }
    }
    if help {
        return Ok(Meaning::Help(path));
    }
    let name = [&[program], &path[..]].concat().join(" ");
    let flags = judged(&name, command, flags)?;
    let asks_version = flags.iter().any(|word| word == "--version" || word == "-v");
    if !command.commands.is_empty() && !path.is_empty() {
        // `culvert config` alone.
        return Ok(Meaning::Help(path));
    }
    if !asks_version {
        count(&name, command, positionals.len())?;
    }
    let mut words: Vec<String> = path.iter().map(|&word| word.to_owned()).collect();
    words.extend(flags);
    if !positionals.is_empty() {
        words.push("--".to_owned());
        words.extend(positionals);
    }
    Ok(Meaning::Run(words))
}

fn words(args: impl Iterator<Item = OsString>) -> Result<Vec<String>, Failure> {
    args.map(OsString::into_string)
        .collect::<Result<_, _>>()
        .map_err(|_| Failure::usage("the command line has bytes in it that are not UTF-8"))
}

/// The flag that `word` begins, with its value, from the next word if need be.
/// Which flags take a value does not depend on the command.
fn typed(
    root: &Info,
    word: String,
    rest: &mut impl Iterator<Item = String>,
) -> Result<Typed, Failure> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (word, None),
    };
    if !name.starts_with("--") && name.len() > 2 {
        let quoted = shown(&format!("-{name}"));
        let text = format!("flags have two hyphens: write {}", quoted.trim_matches('"'));
        return Err(Failure::usage(text));
    }
    let takes_value = anywhere(root, &name).is_some_and(takes_value);
    if value.is_some() || !takes_value {
        return Ok(Typed { name, value });
    }
    match rest.next() {
        Some(value) => Ok(Typed { name, value: Some(value) }),
        None => Err(Failure::usage(format!("{name} needs a value, as in {name}=VALUE"))),
    }
}

fn takes_value(flag: &FlagInfo<'_>) -> bool {
    matches!(flag.kind, FlagInfoKind::Option { .. })
}

fn is_named(flag: &FlagInfo<'_>, name: &str) -> bool {
    flag.long == name
        || flag
            .short
            .is_some_and(|short| name.strip_prefix('-') == Some(short.to_string().as_str()))
}

/// The flag of this name in any command.
fn anywhere<'a>(command: &'a Info, name: &str) -> Option<&'a FlagInfo<'static>> {
    let own = command.flags.iter().find(|flag| is_named(flag, name));
    own.or_else(|| command.commands.iter().find_map(|sub| anywhere(&sub.command, name)))
}

fn descend<'a>(
    command: &'a Info,
    word: &str,
    path: &mut Vec<&'static str>,
) -> Result<&'a Info, Failure> {
    match command.commands.iter().find(|sub| sub.name == word) {
        Some(sub) => {
            path.push(sub.name);
            Ok(&sub.command)
        }
        None => Err(Failure::usage(format!("there is no command {word}"))),
    }
}

fn unknown_command(program: &str, command: &Info, path: &[&'static str], word: &str) -> Failure {
    let name = [&[program], path].concat().join(" ");
    if path.is_empty() && LATER_COMMANDS.contains(&word) {
        return Failure::usage(format!("{name} {word} is not part of this version yet"));
    }
    let names = command.commands.iter().map(|sub| sub.name);
    let hint = match nearest(word, names) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("\"{name} --help\" lists them."),
    };
    Failure::usage(format!("{} is not a command of {name}\n{hint}", shown(word)))
}

/// The flags that `command` has, in `argh`'s form; of those that take one value
/// the last.
fn judged(name: &str, command: &Info, flags: Vec<Typed>) -> Result<Vec<String>, Failure> {
    let mut words: Vec<(String, Option<String>)> = Vec::new();
    for typed in flags {
        let Some(flag) = command.flags.iter().find(|flag| is_named(flag, &typed.name)) else {
            if [GLOBAL, IGNORED].iter().any(|list| list.contains(&typed.name.as_str())) {
                continue;
            }
            return Err(unknown_flag(name, command, &typed.name));
        };
        if flag.optionality != Optionality::Repeating {
            words.retain(|(word, _)| word != flag.long);
        }
        match (takes_value(flag), typed.value.as_deref()) {
            (true, _) => words.push((flag.long.to_owned(), typed.value)),
            (false, None | Some("true")) => words.push((flag.long.to_owned(), None)),
            (false, Some("false")) => {}
            (false, Some(_)) => {
                let text = format!("{} is true or false, as in {0}=false", flag.long);
                return Err(Failure::usage(text));
            }
        }
    }
    Ok(words.into_iter().flat_map(|(word, value)| [Some(word), value]).flatten().collect())
}

fn unknown_flag(name: &str, command: &Info, flag: &str) -> Failure {
    if LATER.contains(&flag.trim_start_matches('-')) {
        return Failure::usage(format!("{flag} is not part of this version yet"));
    }
    if let Some(url) = url_for(command, flag) {
        return Failure::usage(format!("{flag} is not part of this version: use --url {url}"));
    }
    let known = command.flags.iter().filter(|flag| !flag.hidden).map(|flag| flag.long);
    let hint = match nearest(flag, known) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("\"{name} --help\" lists them."),
    };
    Failure::usage(format!("{} is not a flag of {name}\n{hint}", shown(flag)))
}

/// What to write after `--url` for a `flag` that it has replaced.
fn url_for(command: &Info, flag: &str) -> Option<&'static str> {
    let old = flag.trim_start_matches('-');
    if !OLD_URL.contains(&old) {
        return None;
    }
    match (command.name, old) {
        ("http", "subdomain") => Some("https://SUBDOMAIN.DOMAIN"),
        ("tls", "subdomain") => Some("tls://SUBDOMAIN.DOMAIN"),
        ("http" | "tcp" | "tls", "remote-addr") | ("tcp", _) => Some("tcp://HOST:PORT"),
        ("http", _) => Some("https://DOMAIN"),
        ("tls", _) => Some("tls://DOMAIN"),
        _ => None,
    }
}

/// Whether `given` words without a flag are as many as the command takes.
fn count(name: &str, command: &Info, given: usize) -> Result<(), Failure> {
    let needed = command.positionals.iter().filter(|p| p.optionality == Optionality::Required);
    let needed: Vec<&str> = needed.map(|p| p.name).collect();
    let repeating = command.positionals.iter().any(|p| p.optionality == Optionality::Repeating);
    let program = name.split(' ').next().unwrap_or_default();
    let example = command.examples.first().copied().unwrap_or_default();
    let example = example.replace("culvert", program);
    if given < needed.len() {
        let missing = needed[given..].join(" ");
        return Err(Failure::usage(format!("{name} needs {missing}, as in \"{example}\"")));
    }
    if given > needed.len() && !repeating {
        let takes = match needed.len() {
            0 => "no argument".to_owned(),
            n => format!("{n} ({})", needed.join(" ")),
        };
        let text = format!("{name} takes {takes}, there are {given}\nas in \"{example}\"");
        return Err(Failure::usage(text));
    }
    Ok(())
}

/// A typed word for a message, quoted and not too long.
fn shown(word: &str) -> String {
    let short: String = word.chars().take(SHOWN).collect();
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Culvert;
    use argh::ArgsInfo;

    fn meant(line: &str) -> Result<Meaning, Failure> {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse("culvert", &Culvert::get_args_info(), args.into_iter())
    }

    fn run(line: &str) -> String {
        match meant(line) {
            Ok(Meaning::Run(words)) => words.join(" "),
            Ok(Meaning::Help(path)) => format!("help {}", path.join(" ")).trim_end().to_owned(),
            Err(Failure::Usage(refusal)) => refusal.message.replace('\n', " / "),
            Err(Failure::Failed(refusal)) => panic!("{refusal}"),
        }
    }

    #[test]
    fn every_order_and_form_is_one() {
        let expected = "http --url u --log stdout -- 8080";
        for line in [
            "http --url u --log stdout 8080",
            "http 8080 --url=u --log=stdout",
            "--url u http --log=stdout 8080",
            "--url=u --log stdout http 8080",
            "http --url u --log stdout -- 8080",
            "http --url x --url u --log stdout 8080",
        ] {
            assert_eq!(run(line), expected, "{line}");
        }
        assert_eq!(run("config --config f check"), "config check --config f");
        assert_eq!(run("start --config a --config=b w"), "start --config a --config b -- w");
        assert_eq!(run("start --all=true --none=false"), "start --all");
        assert_eq!(run("start --all --all=false x"), "start -- x");
        assert_eq!(run("authtoken t"), "config add-authtoken -- t");
        assert_eq!(run("http -- --odd"), "http -- --odd");
        assert_eq!(run("config add-authtoken -"), "config add-authtoken -- -");
        assert_eq!(run("-v"), "--version");
        assert_eq!(run("http 80 --url --name"), "http --url --name -- 80");
        assert_eq!(run(""), "");
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
        assert_eq!(run("help config check"), "help config check");
    }

    #[test]
    fn mistakes_get_a_hint_and_never_show_a_value() {
        for (line, expected) in [
            ("htpt 80", "\"htpt\" is not a command of culvert / did you mean http?"),
            ("nothing", "\"nothing\" is not a command of culvert / \"culvert --help\" lists them."),
            ("config chekc", "\"chekc\" is not a command of culvert config / did you mean check?"),
            ("api x", "culvert api is not part of this version yet"),
            (
                "http 80 --naem=hush",
                "\"--naem\" is not a flag of culvert http / did you mean --name?",
            ),
            (
                "http 80 --authtokn hush",
                "\"--authtokn\" is not a flag of culvert http / did you mean --authtoken?",
            ),
            (
                "http 80 --zzzzzz",
                "\"--zzzzzz\" is not a flag of culvert http / \"culvert http --help\" lists them.",
            ),
            ("http 80 --basic-auth=hush", "--basic-auth is not part of this version yet"),
            (
                "http --domain hush 80",
                "--domain is not part of this version: use --url https://DOMAIN",
            ),
            (
                "http 80 --hostname=hush",
                "--hostname is not part of this version: use --url https://DOMAIN",
            ),
            (
                "http --subdomain hush 80",
                "--subdomain is not part of this version: use --url https://SUBDOMAIN.DOMAIN",
            ),
            (
                "tcp --remote-addr hush 22",
                "--remote-addr is not part of this version: use --url tcp://HOST:PORT",
            ),
            (
                "tls --domain hush 443",
                "--domain is not part of this version: use --url tls://DOMAIN",
            ),
            ("http -url hush 80", "flags have two hyphens: write --url"),
            ("http", "culvert http needs ADDR, as in \"culvert http 8080\""),
            (
                "http 80 hush",
                "culvert http takes 1 (ADDR), there are 2 / as in \"culvert http 8080\"",
            ),
            (
                "version x",
                "culvert version takes no argument, there are 1 / as in \"culvert version\"",
            ),
            ("http 80 --url", "--url needs a value, as in --url=VALUE"),
            ("start --all=hush", "--all is true or false, as in --all=false"),
            (
                "version --url hush",
                "\"--url\" is not a flag of culvert version / \"culvert version --help\" lists them.",
            ),
        ] {
            let text = run(line);
            assert!(!text.contains("hush"), "{text}");
            assert_eq!(text, expected, "{line}");
        }
    }

    #[test]
    fn a_flag_has_one_form_in_all_commands() {
        fn walk(command: &Info, seen: &mut Vec<(&'static str, bool)>) {
            for flag in command.flags {
                seen.push((flag.long, takes_value(flag)));
            }
            for sub in &command.commands {
                walk(&sub.command, seen);
            }
        }
        let root = Culvert::get_args_info();
        let mut seen = Vec::new();
        walk(&root, &mut seen);
        for (name, takes) in &seen {
            assert!(seen.iter().all(|(n, t)| n != name || t == takes), "{name}");
            let word = name.trim_start_matches('-');
            assert!(!LATER.contains(&word) && !OLD_URL.contains(&word), "{name} is here already");
        }
        for global in GLOBAL {
            assert!(seen.contains(&(global, true)), "{global}");
        }
        assert_eq!(run("version --log stdout"), "version");
        assert_eq!(run("--log-level=debug config check"), "config check");
        assert_eq!(run("http --inspect=false 80"), "http -- 80");
    }
}
