//! `culvert api` without a connection: the table of actions, help, and errors of the command
//! line.

use std::fs;
use std::path::Path;

use culvert::net::http_client::Method;
use culvert::rest_client::actions::{self, ApiFlag, FlagKind, FlagPlace};

use crate::support::home::Home;

/// Resource, action, method, path, arguments and flags of every action of ngrok's API.
const ACTIONS: &str = include_str!("api-actions.tsv");

/// Returns a flag as in the file.
fn shown(flag: &ApiFlag) -> String {
    let kind = match flag.kind {
        FlagKind::Text => "string",
        FlagKind::List => "list",
        FlagKind::Switch => "bool",
        FlagKind::Integer => "int",
        FlagKind::Number => "float",
        FlagKind::Map => "map",
        FlagKind::IntegerMap => "map-int",
        FlagKind::Json => "list-obj",
        FlagKind::File => "file",
        FlagKind::Url => "url",
    };
    let mark = match flag.place {
        FlagPlace::Field => "",
        FlagPlace::NeededField => "*",
        FlagPlace::Path => "!",
    };
    format!("{}:{kind}{mark}", flag.name)
}

#[test]
fn the_table_has_every_action_with_its_path_and_flags() {
    let mut lines = Vec::new();
    for resource in actions::resources() {
        for action in resource.actions() {
            let method = match action.method {
                Method::Get => "GET",
                Method::Post => "POST",
                Method::Put => "PUT",
                Method::Patch => "PATCH",
                Method::Delete => "DELETE",
                Method::Options => "OPTIONS",
            };
            let or_none = |list: Vec<String>, separator| match list.is_empty() {
                true => "-".to_owned(),
                false => list.join(separator),
            };
            let arguments = action.arguments().iter().map(|a| a.replace('_', "-")).collect();
            let arguments = or_none(arguments, ",");
            let mut flags: Vec<String> = action.flags.iter().map(shown).collect();
            flags.sort();
            let flags = or_none(flags, " ");
            let (name, word, path) = (resource.name, action.name, &action.path);
            lines.push(format!("{name}\t{word}\t{method}\t{path}\t{arguments}\t{flags}"));
        }
    }
    let sorted = |line: &str| {
        let (start, flags) = line.rsplit_once('\t').unwrap();
        let mut flags: Vec<&str> = flags.split(' ').collect();
        flags.sort_unstable();
        format!("{start}\t{}", flags.join(" "))
    };
    let expected: Vec<String> = ACTIONS.lines().map(sorted).collect();
    for (line, expected) in lines.iter().zip(&expected) {
        assert_eq!(line, expected);
    }
    assert_eq!((lines.len(), expected.len()), (313, 313));
}

/// The list of resources in the documents is that of the program. After an intended change
/// `CULVERT_WRITE_HELP=1 cargo test --test cli` writes it again.
#[test]
fn the_documents_list_every_resource() {
    let mut table = String::from("| resource | path | actions |\n|---|---|---|\n");
    for resource in actions::resources() {
        let actions = resource.actions();
        // The shortest path is that of the collection.
        let path = actions.iter().map(|action| action.path.as_str()).min_by_key(|p| p.len());
        let names: Vec<&str> = actions.iter().map(|action| action.name).collect();
        let (name, path) = (resource.name, path.unwrap());
        table.push_str(&format!("| `{name}` | `{path}` | {} |\n", names.join(", ")));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/rest.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, after) = text.split_once("## Resources\n").unwrap();
    let (about, old) = after.split_once("\n| ").unwrap_or((after, ""));
    let after = old.split_once("\n\n").map_or(String::new(), |(_, after)| format!("\n{after}"));
    let about = about.trim_end();
    let expected = format!("{before}## Resources\n{about}\n\n{table}{after}");
    if std::env::var_os("CULVERT_WRITE_HELP").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
}

#[test]
fn help_on_three_levels() {
    let home = Home::new();
    for line in ["api", "api --help", "help api", "--help api"] {
        let help = home.run(line).fine();
        assert!(help.contains("\nUsage: culvert api RESOURCE ACTION [ID] [flags]\n"), "{line}");
        assert!(
            help.contains("\n  tunnel-sessions                agent sessions\n"),
            "{line}: {help}"
        );
        assert!(help.contains("\n  backends                       "), "{line}: {help}");
        assert!(help.contains("NGROK_API_KEY"), "{line}: {help}");
    }
    for line in ["api endpoints", "help api endpoints", "api endpoints --help"] {
        let help = home.run(line).fine();
        assert!(
            help.contains("\n  create                         Create a cloud endpoint\n"),
            "{line}: {help}"
        );
    }
    let help = home.run("api backends").fine();
    assert!(
        help.contains("\n  http-response                  fixed HTTP response backends\n"),
        "{help}"
    );
    for line in ["api ip-restrictions update --help", "help api ip-restrictions update"] {
        let help = home.run(line).fine();
        assert!(
            help.contains("\nUsage: culvert api ip-restrictions update ID [flags]\n"),
            "{help}"
        );
        assert!(help.contains("\n  --ip-policy-ids TEXT,..."), "{help}");
        assert!(help.contains("\n  --api-key KEY"), "{help}");
    }
}

#[test]
fn mistakes_end_with_status_2_and_a_hint() {
    let home = Home::new();
    for (line, expected) in [
        ("api endpoint list", "did you mean endpoints?"),
        ("api endpoints lst", "did you mean list?"),
        ("api backends weigthed list", "did you mean weighted?"),
        ("api zzzzzz", "\"culvert api --help\" lists them."),
        ("api endpoints get", "needs 1 arguments, 0 given"),
        ("api endpoints get a b", "as in \"culvert api endpoints get ID\""),
        ("api edges https-routes get a", "as in \"culvert api edges https-routes get EDGE_ID ID\""),
        ("api endpoints list --limt 5", "did you mean --limit?"),
        ("api --limit 5 endpoints list", "the flags of an action follow its name"),
        ("api endpoints list --limit", "--limit needs a value"),
        ("api endpoints list --limit 2hushhushHUSHhush", "--limit must be an integer"),
        ("api ip-restrictions update x --enforced=maybe", "--enforced is true or false"),
        ("api ip-restrictions update x --enforced false", "behind an equals sign"),
        ("api endpoints list -limit 5", "flags have two hyphens; write --limit"),
        ("api event-sources get --type x", "subscription-id is missing"),
        ("api endpoints list --log-level loud", "--log-level must be debug"),
        ("api endpoints list --url x", "is not a flag of culvert api endpoints list"),
    ] {
        let text = home.run(line).refused(2);
        assert!(text.contains(expected), "{line}: {text}");
    }
    for (url, expected) in [
        ("http://edge.example", "without TLS; write https://edge.example"),
        ("edge.example", "is not a http:// or https:// URL"),
    ] {
        let line = format!("api endpoints list --api-key 2hushhushHUSHhush --api-url {url}");
        let text = home.run(&line).refused(1);
        assert!(text.contains(expected), "{url}: {text}");
    }
}
