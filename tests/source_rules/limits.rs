//! Limits for figures of the sources, which may only go down: names of several types, long
//! functions, switches by feature.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, sources};

/// Type names defined in more than one module; stubs and tests are not counted.
const MOST_SHARED_NAMES: usize = 30;

/// Functions longer than [`LONG_FUNCTION_LINES`], tests included.
const MOST_LONG_FUNCTIONS: usize = 15;

const LONG_FUNCTION_LINES: usize = 60;

/// Lines with `cfg(feature = ...)`.
const MOST_FEATURE_SWITCHES: usize = 40;

#[test]
fn few_type_names_stand_for_several_types() {
    let mut modules: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in product().iter().filter(|s| !s.path.ends_with("/stub.rs")) {
        for name in type_names(source) {
            modules.entry(name).or_default().insert(source.path.clone());
        }
    }
    let shared: Vec<String> = modules
        .into_iter()
        .filter(|(_, paths)| paths.len() > 1)
        .map(|(name, paths)| format!("{name}: {}", Vec::from_iter(paths).join(" ")))
        .collect();
    assert!(shared.len() <= MOST_SHARED_NAMES, "{}:\n{}", shared.len(), shared.join("\n"));
}

#[test]
fn few_functions_are_long() {
    let long: Vec<String> = product().iter().flat_map(long_functions).collect();
    assert!(long.len() <= MOST_LONG_FUNCTIONS, "{}:\n{}", long.len(), long.join("\n"));
}

#[test]
fn features_are_switched_in_few_places() {
    let mut places = Vec::new();
    for source in product() {
        for (n, line) in source.lines.iter().enumerate() {
            if line.code.contains("cfg") && line.text.contains("feature = ") {
                places.push(format!("{}:{}: {}", source.path, n + 1, line.text.trim()));
            }
        }
    }
    assert!(places.len() <= MOST_FEATURE_SWITCHES, "{}:\n{}", places.len(), places.join("\n"));
}

#[test]
fn what_is_counted_is_found() {
    let body = "    f();\n".repeat(LONG_FUNCTION_LINES);
    let text =
        format!("//! X.\npub(crate) struct A;\nenum B {{}}\nfn g() {{\n{body}}}\nfn h() {{\n}}\n");
    let source = Source::new("src/x.rs", &text);
    assert_eq!(type_names(&source), ["A", "B"]);
    assert_eq!(long_functions(&source), ["src/x.rs: g, 62 lines"]);
}

/// Returns the sources of the product.
fn product() -> Vec<Source> {
    sources().into_iter().filter(|source| source.path.starts_with("src/")).collect()
}

/// Returns the names of the types that a file defines outside of tests and functions.
fn type_names(source: &Source) -> Vec<String> {
    let words = ["struct ", "enum ", "trait ", "union ", "type "];
    let mut found = Vec::new();
    for (_, line) in source.product() {
        let code = line.code.as_str();
        let item = code.strip_prefix("pub").map_or(code, |rest| match rest.split_once(") ") {
            Some((scope, item)) if scope.starts_with('(') => item,
            _ => rest.trim_start(),
        });
        if let Some(rest) = words.iter().find_map(|word| item.strip_prefix(word)) {
            let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next();
            found.extend(name.map(str::to_owned));
        }
    }
    found
}

/// Returns the functions of a file that are too long. Their end is the brace with their
/// indentation.
fn long_functions(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (n, line) in source.lines.iter().enumerate() {
        let text = line.code.as_str();
        let Some((before, after)) = text.split_once("fn ") else { continue };
        let qualifiers = ["pub", "const", "unsafe", "crate", "super", "in", "extern", "async"];
        let mut words = before.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
        if !words.all(|word| qualifiers.contains(&word)) {
            continue;
        }
        let indent = &text[..text.len() - text.trim_start().len()];
        let end = format!("{indent}}}");
        let rest = source.lines[n..].iter();
        let ended =
            rest.take_while(|l| !l.code.trim_end().eq(&end) && !is_item_end(&l.code, indent));
        let lines = ended.count() + 1;
        if lines > LONG_FUNCTION_LINES {
            let name = after.split(|c: char| !c.is_alphanumeric() && c != '_').next();
            found.push(format!("{}: {}, {lines} lines", source.path, name.unwrap_or_default()));
        }
    }
    found
}

/// Returns whether a function without a body, or of one line, ends here.
fn is_item_end(code: &str, indent: &str) -> bool {
    let own = code.len() - code.trim_start().len() == indent.len();
    let text = code.trim_end();
    own && text.contains("fn ") && (text.ends_with(';') || text.ends_with('}'))
}
