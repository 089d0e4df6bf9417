//! Help of `api` on its three levels: resources, actions of a resource, flags of an action.

use super::words;
use crate::cli::help::{self, FORMS};
use crate::cli::parse::ParsedCommand;
use crate::rest_client::actions::{ApiAction, ApiResource, FlagPlace};

/// Returns the help after these words.
pub fn text(
    program: &str,
    typed: &ParsedCommand,
    group: &str,
    resource: Option<ApiResource>,
    action: Option<ApiAction>,
) -> String {
    let Some(resource) = resource else {
        let mut out = match group {
            "" => help::text(program, typed.command),
            group => {
                format!("{program} api {group}\n\nUsage: {program} api {group} RESOURCE ACTION\n")
            }
        };
        out.push_str("\nResources:\n");
        for (word, about) in words::next_words(group) {
            help::line(&mut out, FORMS, word, about);
        }
        return out;
    };
    let name = format!("{program} api {}", resource.name);
    let Some(action) = action else {
        let mut out = format!("{name}: {}\n\nUsage: {name} ACTION\n\nActions:\n", resource.about());
        for action in resource.actions() {
            help::line(&mut out, FORMS, action.name, &action.about);
        }
        return out;
    };
    let name = format!("{name} {}", action.name);
    let mut out = format!("{name}: {}\n\nUsage: {name}", action.about);
    for argument in action.arguments() {
        out.push(' ');
        out.push_str(&argument.to_ascii_uppercase());
    }
    out.push_str(" [flags]\n\nFlags:\n");
    for flag in &action.flags {
        let form = format!("--{} {}", flag.name, flag.value_name());
        let about = if flag.place == FlagPlace::Field { "" } else { "needed" };
        help::line(&mut out, FORMS, form.trim_end(), about);
    }
    help::flags(&mut out, typed.command);
    out
}
