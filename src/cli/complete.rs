//! Shell completion: the possible next words, from [`super::table`]. The shell's part is a few
//! lines that call this program, so it knows the commands of this version and the endpoints of
//! the configuration.

use std::borrow::Cow;
use std::env;
use std::ffi::OsString;
use std::path::Path;

use super::api::complete::ApiWordsBefore;
use super::exit::{CommandError, print};
use super::parse::ParsedCommand;
use super::table::{self, Arguments, CommandSpec, FLAGS, FlagSpec, FlagValue, PROGRAM, Repeat};
use crate::config::file;
use crate::rest_client::actions::FlagKind;

/// Command that the shells' parts call: `__complete SHELL WORD...`. The last word is the one at
/// the cursor.
pub(super) const COMMAND: &str = "__complete";

/// Output that makes the shell complete file names.
const FILES: &str = ":files";

/// Maximum length of a command line that is completed, in words.
const MAX_WORDS: usize = 1000;

/// `completion`: prints the part for a shell.
pub(super) fn script(program: &str, typed: &ParsedCommand) -> Result<u8, CommandError> {
    let named = typed.words.first().cloned();
    let shell = named.or_else(|| {
        let shell = env::var_os("SHELL")?;
        Path::new(&shell).file_name()?.to_str().map(str::to_owned)
    });
    let script = match shell.as_deref() {
        Some("bash") => include_str!("completion/bash.sh"),
        Some("zsh") => include_str!("completion/zsh.sh"),
        Some("fish") => include_str!("completion/fish.fish"),
        other => {
            let why = match other {
                Some(_) => "$SHELL is another shell",
                None => "$SHELL is not set",
            };
            return Err(CommandError::usage(format!(
                "no shell: {why}; name it, as in \"{program} completion bash\" (or zsh, fish)"
            )));
        }
    };
    print(&script.replace("culvert", program))
}

/// Prints the candidates for the last word, one on each line with a tab and a description; or
/// [`FILES`].
pub(super) fn answer(args: impl Iterator<Item = OsString>) -> Result<u8, CommandError> {
    let words = args.take(MAX_WORDS).map(|word| word.to_string_lossy().into_owned());
    print(&answer_for(&words.collect::<Vec<_>>(), names))
}

pub(super) fn answer_for(
    words: &[String],
    endpoints: impl FnOnce(&[String]) -> Vec<String>,
) -> String {
    let (shell, words) = words.split_first().map_or(("", words), |(shell, rest)| (shell, rest));
    let mut words = words.to_vec();
    let cut = match shell {
        "bash" => join(&mut words),
        _ => 0,
    };
    let mut out = String::new();
    match candidates(&words, endpoints) {
        None => out.push_str(FILES),
        Some(candidates) => {
            for (word, about) in candidates {
                out.push_str(word.get(cut..).unwrap_or_default());
                out.push('\t');
                out.push_str(&about);
                out.push('\n');
            }
        }
    }
    out
}

/// Joins words that Bash splits at `=` and `:`. Returns how many bytes of the last word the
/// shell does not expect in the output.
fn join(words: &mut Vec<String>) -> usize {
    let mut whole: Vec<String> = Vec::new();
    let mut cut = 0;
    let mut glue = false;
    for word in words.drain(..) {
        let sign = matches!(word.as_str(), "=" | ":");
        match whole.last_mut() {
            Some(last) if (sign && !last.is_empty()) || glue => {
                cut = if sign { last.len() + word.len() } else { last.len() };
                last.push_str(&word);
            }
            _ => {
                cut = 0;
                whole.push(word);
            }
        }
        glue = sign;
    }
    *words = whole;
    cut
}

/// Returns the endpoints of the configuration; none if it cannot be read.
fn names(config: &[String]) -> Vec<String> {
    let loaded = file::load(config).map(|loaded| loaded.agent.endpoints);
    loaded.unwrap_or_default().into_iter().map(|endpoint| endpoint.name).collect()
}

type Candidates = Vec<(String, Cow<'static, str>)>;

/// Meaning of the words before the one at the cursor.
struct WordsBefore<'a> {
    command: &'static CommandSpec,
    /// Names of the flags.
    flags: Vec<&'static str>,
    /// Values of `--config`.
    config: Vec<String>,
    /// Arguments that are neither flags nor commands.
    arguments: Vec<&'a str>,
    has_help: bool,
    /// `--` was given: no flags follow.
    is_literal: bool,
    /// The flag that takes the next word as its value.
    waiting: Option<&'static FlagSpec>,
}

impl<'a> WordsBefore<'a> {
    /// Parses the words. Returns `None` after an unknown command.
    fn read(words: &'a [String]) -> Option<Self> {
        let mut before = WordsBefore {
            command: &PROGRAM,
            flags: Vec::new(),
            config: Vec::new(),
            arguments: Vec::new(),
            has_help: false,
            is_literal: false,
            waiting: None,
        };
        for word in words {
            if let Some(flag) = before.waiting.take() {
                before.value(flag, word);
            } else if matches!(before.command.words, Arguments::Rest(..)) {
                match word.strip_prefix("--").filter(|text| table::is_flag_of_api(text)) {
                    Some(text) => before.flag(text),
                    None => before.arguments.push(word),
                }
            } else if let Some(name) = word.strip_prefix("--").filter(|_| !before.is_literal) {
                before.flag(name);
            } else if word.starts_with('-') && !before.is_literal {
                // -h or -v.
            } else if !before.is_group() {
                before.arguments.push(word);
            } else if word == "help" {
                before.has_help = true;
            } else {
                let member = table::members(before.command).find(|(_, name)| name == word);
                before.command = member?.0;
            }
        }
        Some(before)
    }

    fn is_group(&self) -> bool {
        table::members(self.command).next().is_some()
    }

    fn flag(&mut self, text: &str) {
        self.is_literal = text.is_empty();
        let (name, value) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v)));
        let Some(flag) = table::flag_named(name) else { return };
        self.flags.push(flag.name);
        match value {
            Some(value) => self.value(flag, value),
            None if !matches!(flag.value, FlagValue::Switch) => self.waiting = Some(flag),
            None => {}
        }
    }

    fn value(&mut self, flag: &FlagSpec, value: &str) {
        if flag.name == "config" {
            self.config.push(value.to_owned());
        }
    }

    fn next_flags(&self) -> Candidates {
        let takes = |flag: &&FlagSpec| {
            let is_used_up = flag.many == Repeat::Last && self.flags.contains(&flag.name);
            flag.listed() & self.command.bit != 0 && !is_used_up
        };
        let flags = FLAGS.iter().filter(takes);
        let mut found: Candidates =
            flags.map(|f| (format!("--{}", f.name), f.about(self.command).into())).collect();
        found.push(("--help".to_owned(), "the help of the command".into()));
        found
    }

    fn next_commands(&self) -> Candidates {
        let members = table::members(self.command).filter(|(member, _)| !member.hidden);
        let mut found: Candidates =
            members.map(|(member, word)| (word.to_owned(), member.about.into())).collect();
        if !self.has_help {
            found.push(("help".to_owned(), "the help of a command".into()));
        }
        found
    }

    fn next_arguments(&self, endpoints: impl FnOnce(&[String]) -> Vec<String>) -> Candidates {
        match self.command.words {
            Arguments::Any(..) if !self.has_help => {
                let names = endpoints(&self.config).into_iter();
                let left = names.filter(|name| !self.arguments.contains(&name.as_str()));
                left.map(|name| (name, "an endpoint of the configuration".into())).collect()
            }
            Arguments::Optional(_, _, choices) if !self.has_help && self.arguments.is_empty() => {
                choices.iter().map(|choice| ((*choice).to_owned(), "".into())).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Returns the candidates for the last of `words`; `None`: the name of a file. `endpoints`
/// returns the names of endpoints, given the files of `--config`.
fn candidates(
    words: &[String],
    endpoints: impl FnOnce(&[String]) -> Vec<String>,
) -> Option<Candidates> {
    let (current, words) = words.split_last()?;
    let Some(before) = WordsBefore::read(words) else { return Some(Vec::new()) };
    if let Some(flag) = before.waiting {
        return values(flag, "", current);
    }
    if let Some((name, value)) = current.strip_prefix("--").and_then(|word| word.split_once('='))
        && let Some(flag) = table::flag_named(name)
    {
        return values(flag, &format!("--{name}="), value);
    }
    let is_flag = current.starts_with('-') && !before.is_literal;
    let mut found = match is_flag {
        _ if matches!(before.command.words, Arguments::Rest(..)) => {
            let Some(api) = ApiWordsBefore::read(&before.arguments) else {
                return Some(Vec::new());
            };
            match api.waits_for() {
                Some(FlagKind::File) => return None,
                Some(_) => Vec::new(),
                None if is_flag => [api.next_flags(), before.next_flags()].concat(),
                None => api.next_words(),
            }
        }
        true => before.next_flags(),
        false if before.is_group() => before.next_commands(),
        false => before.next_arguments(endpoints),
    };
    found.retain(|(word, _)| word.starts_with(current.as_str()));
    Some(found)
}

/// Returns the values of a flag that begin with `value`, each after `prefix`.
fn values(flag: &FlagSpec, prefix: &str, value: &str) -> Option<Candidates> {
    let choices: &[&str] = match flag.value {
        FlagValue::Path(_) => return None,
        FlagValue::One(_, choices) | FlagValue::Like(_, choices) => choices,
        FlagValue::Switch => &["true", "false"],
        FlagValue::Text(_) => &[],
    };
    // The last value of a list.
    let (done, value) = match (flag.many, value.rsplit_once(',')) {
        (Repeat::Commas, Some((done, last))) => (format!("{done},"), last),
        _ => (String::new(), value),
    };
    let fits = choices.iter().filter(|choice| choice.starts_with(value));
    let found: Candidates =
        fits.map(|choice| (format!("{prefix}{done}{choice}"), "".into())).collect();
    // `--log` also accepts a file.
    match found.is_empty() && flag.name == "log" {
        true => None,
        false => Some(found),
    }
}

#[cfg(all(test, feature = "tools"))]
mod tests {
    use super::*;
    use crate::features;

    /// Returns the output for a line whose last word is the one at the cursor.
    fn offered(line: &str) -> Option<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let names = |config: &[String]| match config {
            [] => vec!["web".to_owned(), "ssh".to_owned()],
            config => config.to_vec(),
        };
        let found = candidates(&words, names)?;
        Some(found.into_iter().map(|(word, _)| word).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn what_may_follow() {
        for (line, expected) in [
            ("h", "http help"),
            (
                "",
                "http tcp tls start config api service diagnose status completion credits \
                 update version help",
            ),
            ("--ver", "--version"),
            ("config ch", "config check"),
            ("help ht", "http"),
            ("start ", "web ssh"),
            ("start web ", "ssh"),
            ("start --config a.yml --config=b.yml ", "a.yml b.yml"),
            ("start --a", "--all --authtoken"),
            ("start --all --a", "--authtoken"),
            ("http --log-l", "--log-level"),
            ("http --log-level ", "debug info warn error crit"),
            ("http --log-level w", "warn"),
            ("http --log-format=j", "--log-format=json"),
            ("http 80 --inspect=", "--inspect=true --inspect=false"),
            ("http --scheme http,h", "http,http http,https"),
            ("http --basic", ""),
            ("http --url ", ""),
            ("tls --terminate-at ", "edge agent upstream"),
            ("completion ", "bash zsh fish"),
            ("diagnose --region e", "eu eu-lon-1"),
            ("completion bash ", ""),
            ("http -- --u", ""),
            ("nonsense ", ""),
            ("version ", ""),
        ] {
            let expected = expected.strip_prefix("config ").unwrap_or(expected);
            let expected = match features::API {
                true => expected.to_owned(),
                false => expected.replace(" api ", " "),
            };
            assert_eq!(offered(line), Some(expected), "{line}");
        }
        for line in ["http --config ", "http --log x", "tls --crt=", "http --traffic-policy-file "]
        {
            assert_eq!(offered(line), None, "{line}");
        }
        assert_eq!(candidates(&[], |_| Vec::new()), None);
    }

    #[test]
    fn what_may_follow_api() {
        if !features::API {
            return;
        }
        for (line, expected) in [
            ("api endp", "endpoint-configurations endpoints"),
            ("api back", "backends"),
            ("api backends w", "weighted"),
            ("api --api-key K endpoints l", "list"),
            ("api endpoints list --l", "--limit --log --log-level --log-format"),
            ("api endpoints list --limit ", ""),
            ("api endpoints list --limit 5 --log-format ", "term logfmt json"),
            ("api endpoints list ", ""),
            ("api nonsense ", ""),
        ] {
            assert_eq!(offered(line).as_deref(), Some(expected), "{line}");
        }
        for line in ["api --config ", "api endpoints create --traffic-policy-file "] {
            assert_eq!(offered(line), None, "{line}");
        }
    }

    #[test]
    fn words_that_bash_has_parted() {
        for (line, whole, cut) in [
            ("http --log = st", "http|--log=st", 6),
            ("http --log =", "http|--log=", 6),
            ("http a : b", "http|a:b", 2),
            ("http tcp : //x : 8", "http|tcp://x:8", 8),
            ("http x", "http|x", 0),
        ] {
            let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!((join(&mut words), words.join("|").as_str()), (cut, whole), "{line}");
        }
    }
}
