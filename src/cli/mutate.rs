//! Tests with command lines that are almost valid: each must return a result or an error of a
//! few lines, and never panic.

use std::ffi::OsString;

use super::exit::CommandError;
use super::parse::{Invocation, parse};
use super::table::{COMMANDS, FLAGS, FlagValue};
use super::{complete, endpoint, help};
use crate::config::EndpointKind;
use crate::config::mutate::Rng;

/// Words with a meaning, beside those of the table.
const WORDS: &[&str] = &[
    "",
    "-",
    "--",
    "---",
    "=",
    "--=",
    "-=x",
    "-v",
    "-h",
    "-x",
    "help",
    "authtoken",
    "80",
    "http",
    "localhost:80",
    "file:///",
    "tcp://h:1",
    "é",
    "\u{0}",
    "\u{202e}",
    "a:b",
    ":",
    "a,b,,",
    ",",
    "1e999",
    "nan",
    "-1",
    "true",
    "false",
    "u:password",
    "10.0.0.0/8",
    "::/0",
    "a=b",
    "99999999999999999999",
    "http,https",
    "/nonexistent",
    "/dev/null",
];

fn word(rng: &mut Rng) -> String {
    let flag = &FLAGS[rng.below(FLAGS.len())];
    match rng.below(8) {
        0..3 => rng.of(WORDS).to_owned(),
        3 => format!("--{}", flag.name),
        4 | 5 => {
            let value = match flag.value {
                FlagValue::One(_, choices) | FlagValue::Like(_, choices) if rng.below(3) > 0 => {
                    rng.of(choices)
                }
                FlagValue::Switch => rng.of(&["true", "false", ""]),
                _ => rng.of(WORDS),
            };
            format!("--{}={value}", flag.name)
        }
        6 => {
            // A typing error in a name.
            let mut name: Vec<char> = flag.name.chars().collect();
            let at = rng.below(name.len());
            name[at] = rng.of(&['x', '-', '=', 'é']);
            format!("--{}", name.into_iter().collect::<String>())
        }
        _ => COMMANDS[rng.below(COMMANDS.len())].name.to_owned(),
    }
}

#[test]
fn lines_that_are_almost_right() {
    let mut rng = Rng(0xc11);
    let (mut ran, mut made) = (0, 0);
    for round in 0..30_000 {
        let command = COMMANDS[round % COMMANDS.len()].name;
        let mut line: Vec<String> = command.split(' ').map(str::to_owned).collect();
        if matches!(command, "http" | "tcp" | "tls") {
            line.push("80".to_owned());
        }
        for _ in 0..rng.below(6) {
            let at = rng.below(line.len() + 1);
            line.insert(at, word(&mut rng));
        }
        let args = line.iter().map(OsString::from);
        match parse("culvert", args) {
            Ok(Invocation::Help(command)) => {
                assert!(help::text("culvert", command).contains("Usage: culvert"), "{line:?}");
            }
            Ok(Invocation::Version) => {}
            Ok(Invocation::Run(typed)) => {
                ran += 1;
                let _ = typed.deprecated();
                let kind = match typed.command.name {
                    "http" => EndpointKind::Http,
                    "tcp" => EndpointKind::Tcp,
                    "tls" => EndpointKind::Tls,
                    _ => continue,
                };
                match endpoint::endpoints(kind, &typed) {
                    Ok(endpoints) => {
                        made += 1;
                        assert!((1..=2).contains(&endpoints.len()), "{line:?}");
                    }
                    Err(failure) => judge(failure, &line),
                }
            }
            Err(failure) => judge(failure, &line),
        }
        let _ = complete::answer_for(&line, |_| vec!["web".to_owned()]);
    }
    // Enough of them must be valid.
    assert!(ran > 3_000 && made > 300, "{ran} ran, {made} made endpoints");
}

fn judge(failure: CommandError, line: &[String]) {
    let refusal = failure.refusal();
    let lines = refusal.message.lines().count();
    assert!((1..=2).contains(&lines) || refusal.message.contains('\u{0}'), "{line:?}: {refusal}");
}
