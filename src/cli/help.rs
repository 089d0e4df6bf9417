//! Help texts, made from [`super::table`].

use std::fmt::Write;

use super::parse::full_name;
use super::table::{self, Arguments, CommandSpec, FLAGS, FlagValue};

/// Width of the column of names, including flags with their values.
const NAMES: usize = 16;
pub(super) const FORMS: usize = 30;

/// Maximum width of a line before its text continues below.
const WIDTH: usize = 92;

/// Returns the help of a command.
pub(super) fn text(program: &str, command: &CommandSpec) -> String {
    let name = full_name(program, command);
    let mut out = format!("{name}: {}\n\nUsage: {name}", command.about);
    let members: Vec<_> = table::members(command).filter(|(c, _)| !c.hidden).collect();
    let word = match command.words {
        Arguments::None if members.is_empty() => None,
        Arguments::None => {
            out.push_str(" COMMAND");
            None
        }
        Arguments::One(word, about) => Some((word, word.to_owned(), about)),
        Arguments::Optional(word, about, _) => Some((word, format!("[{word}]"), about)),
        Arguments::Any(word, about) => Some((word, format!("{word}..."), about)),
        Arguments::Rest(word, about) => Some((word, word.to_owned(), about)),
    };
    if let Some((_, form, _)) = &word {
        out.push(' ');
        out.push_str(form);
    }
    out.push_str(" [flags]\n");
    if let Some((word, _, about)) = word {
        out.push('\n');
        line(&mut out, NAMES, word, about);
    }
    if !members.is_empty() {
        out.push_str("\nCommands:\n");
        for (member, word) in members {
            line(&mut out, NAMES, word, member.about);
        }
        line(&mut out, NAMES, "help COMMAND", "the help of a command");
    }
    out.push_str("\nFlags:\n");
    flags(&mut out, command);
    section(&mut out, "Examples", command.examples.iter().copied(), program);
    section(&mut out, "Notes", command.notes.lines(), program);
    if command.name.is_empty() {
        out.push_str("\nExit status:\n");
        line(&mut out, NAMES, "0", "success, or ended by Ctrl-C or SIGTERM");
        line(&mut out, NAMES, "1", "failure, or final refusal by the edge");
        line(&mut out, NAMES, "2", "invalid command line");
    }
    out
}

/// Appends the flags of a command.
pub(super) fn flags(out: &mut String, command: &CommandSpec) {
    for flag in FLAGS.iter().filter(|flag| flag.listed() & command.bit != 0) {
        let form = match flag.value {
            FlagValue::Switch if flag.name == "version" => "-v, --version".to_owned(),
            FlagValue::Switch => named(flag.name),
            FlagValue::Text(name)
            | FlagValue::Path(name)
            | FlagValue::One(name, _)
            | FlagValue::Like(name, _) => {
                format!("{} {name}", named(flag.name))
            }
        };
        line(out, FORMS, &form, flag.about(command));
    }
    line(out, FORMS, "-h, --help", "this text");
}

/// Returns a flag with its short form, if it has one.
fn named(flag: &str) -> String {
    match table::SHORT_FLAGS.iter().find(|(_, long)| *long == flag) {
        Some((short, _)) => format!("-{short}, --{flag}"),
        None => format!("--{flag}"),
    }
}

/// Appends a line of two columns. The second one continues below.
pub(super) fn line(out: &mut String, width: usize, left: &str, right: &str) {
    // Writing to a String cannot fail.
    let _ = write!(out, "  {left:<width$}");
    let mut column = 2 + left.len().max(width);
    for word in right.split(' ') {
        if column + 1 + word.len() > WIDTH {
            let _ = write!(out, "\n  {:width$}", "");
            column = 2 + width;
        }
        out.push(' ');
        out.push_str(word);
        column += 1 + word.len();
    }
    out.push('\n');
}

fn section<'a>(out: &mut String, title: &str, lines: impl Iterator<Item = &'a str>, program: &str) {
    for (n, text) in lines.enumerate() {
        if n == 0 {
            let _ = writeln!(out, "\n{title}:");
        }
        // The examples in the table use this program's name.
        let _ = writeln!(out, "  {}", text.replace("culvert ", &format!("{program} ")));
    }
}
