//! Help texts, made from the definitions in [`super::args`].

use std::fmt::Write;

use argh::{FlagInfoKind, Optionality};

use super::words::Info;

/// How wide names are, those of flags with their values.
const NAMES: usize = 16;
const FLAGS: usize = 30;

/// The help of the command at `path`.
pub(super) fn text(program: &str, root: &Info, path: &[&'static str]) -> String {
    let mut command = root;
    for word in path {
        match command.commands.iter().find(|sub| sub.name == *word) {
            Some(sub) => command = &sub.command,
            None => break,
        }
    }
    let name = [&[program], path].concat().join(" ");
    let mut out = format!("{name}: {}\n\nUsage: {name}", command.description);
    if !command.commands.is_empty() {
        out.push_str(" COMMAND");
    }
    for positional in command.positionals {
        out.push(' ');
        out.push_str(positional.name);
        if positional.optionality == Optionality::Repeating {
            out.push_str("...");
        }
    }
    out.push_str(" [flags]\n");
    for positional in command.positionals {
        out.push('\n');
        line(&mut out, NAMES, positional.name, positional.description);
    }
    if !command.commands.is_empty() {
        out.push_str("\nCommands:\n");
        for sub in &command.commands {
            line(&mut out, NAMES, sub.name, sub.command.description);
        }
        line(&mut out, NAMES, "help COMMAND", "the help of a command");
    }
    out.push_str("\nFlags:\n");
    for flag in command.flags.iter().filter(|flag| !flag.hidden && flag.long != "--help") {
        let short = flag.short.map(|short| format!("-{short}, ")).unwrap_or_default();
        let form = match flag.kind {
            FlagInfoKind::Option { arg_name } => format!("{short}{} {arg_name}", flag.long),
            FlagInfoKind::Switch => format!("{short}{}", flag.long),
        };
        line(&mut out, FLAGS, &form, flag.description);
    }
    line(&mut out, FLAGS, "-h, --help", "this text");
    section(&mut out, "Examples", command.examples, program);
    section(&mut out, "Notes", command.notes, program);
    if !command.error_codes.is_empty() {
        out.push_str("\nExit status:\n");
        for code in command.error_codes {
            line(&mut out, NAMES, &code.code.to_string(), code.description);
        }
    }
    out
}

fn line(out: &mut String, width: usize, left: &str, right: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(out, "  {left:<width$} {right}");
}

fn section(out: &mut String, title: &str, texts: &[&str], program: &str) {
    if texts.is_empty() {
        return;
    }
    out.push('\n');
    out.push_str(title);
    out.push_str(":\n");
    for text in texts.iter().flat_map(|text| text.lines()) {
        out.push_str("  ");
        // The examples are written with our name.
        match text.strip_prefix("culvert ") {
            Some(rest) => _ = write!(out, "{program} {rest}"),
            None => out.push_str(text),
        }
        out.push('\n');
    }
}
