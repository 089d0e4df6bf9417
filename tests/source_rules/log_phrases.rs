//! The records of the log and their table in docs/reference/log.md are the same: phrase,
//! level, component and fields. A phrase is fixed and has at most six words.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{Source, sources};

const MOST_WORDS: usize = 6;

const LEVELS: &[&str] = &["debug", "info", "warn", "error", "crit"];

/// Tables of the document and the prefix of the paths of their records.
const AGENT: &str = "## Records of the agent";
const EDGE: &str = "## Records of culvert-edge";
const EDGE_SOURCES: &str = "src/edge/";

/// Properties of a phrase from all places that log it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Record {
    levels: BTreeSet<String>,
    components: BTreeSet<String>,
    fields: BTreeSet<String>,
}

/// Records by heading of the table and phrase.
type Records = BTreeMap<(&'static str, String), Record>;

#[test]
fn the_document_lists_every_record_of_the_log() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/log.md");
    let document = fs::read_to_string(path).unwrap();
    let faults = faults(&sources(), &document);
    assert!(faults.is_empty(), "docs/reference/log.md and the sources:\n{}", faults.join("\n"));
}

#[test]
fn differences_are_found() {
    let field_table = "## Fields\n\n| field | meaning |\n|---|---|\n| `id`, `l` | x |\n\n";
    let table = |row: &str| {
        format!("{field_table}{AGENT}\n\n| a | b | c | d | e |\n|---|---|---|---|---|\n{row}\n")
    };
    let right = table("| `a b` | warn | x | `id` | m |");
    for (code, document, fault) in [
        ("event!(warn, obj = \"x\", \"a b\", id = f(1, \"), \"));", &right, ""),
        ("event!(\n    warn,\n    obj = \"x\",\n    \"a b\",\n    id = 1,\n);", &right, ""),
        ("event!(warn, obj = \"x\", r.message(), id = 1);\nfn message() { \"a b\" }", &right, ""),
        ("// event!(warn, obj = \"x\", \"c\");", &right, "is not in the sources"),
        ("event!(warn, obj = \"x\", \"a b\");", &right, "differs"),
        ("event!(info, obj = \"x\", \"a b\", id = 1);", &right, "differs"),
        ("event!(warn, obj = \"x\", \"a c\", id = 1);", &right, "is not in the document"),
        ("event!(warn, obj = \"x\", text, id = 1);", &right, "is not a fixed phrase"),
        (
            "event!(warn, obj = \"x\", \"a b c d e f g\");",
            &table("| `a b c d e f g` | warn | x | | |"),
            "has more than 6 words",
        ),
        (
            "event!(warn, obj = \"x\", \"a\", who = 1);",
            &table("| `a` | warn | x | `who` | |"),
            "has the unknown field who",
        ),
    ] {
        let source = Source::new("src/x.rs", &format!("//! X.\n{code}\n"));
        let faults = faults(&[source], document).join("\n");
        let expected = if fault.is_empty() { faults.is_empty() } else { faults.contains(fault) };
        assert!(expected, "{code}: {faults:?} is not {fault:?}");
    }
}

/// Returns the differences between the sources and the document, and the faults of phrases.
fn faults(sources: &[Source], document: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut logged = Records::new();
    for source in sources.iter().filter(|s| s.path.starts_with("src/")) {
        // The macro itself.
        if source.path != "src/logging/mod.rs" {
            collect(source, &mut logged, &mut faults);
        }
    }
    let documented = rows(document);
    let known: BTreeSet<String> = section(document, "## Fields").flat_map(|r| code(r[0])).collect();
    for ((table, phrase), record) in &logged {
        match documented.get(&(table, phrase.clone())) {
            None => faults.push(format!("{phrase:?} is not in the document: {record:?}")),
            Some(row) if row != record => {
                faults.push(format!("{phrase:?} differs: {row:?} in the document, {record:?}"));
            }
            Some(_) => {}
        }
        if phrase.split_whitespace().count() > MOST_WORDS {
            faults.push(format!("{phrase:?} has more than {MOST_WORDS} words"));
        }
        for field in record.fields.difference(&known) {
            faults.push(format!("{phrase:?} has the unknown field {field}"));
        }
        for level in &record.levels {
            assert!(LEVELS.contains(&level.as_str()), "{level}");
        }
    }
    for (table, phrase) in documented.keys().filter(|key| !logged.contains_key(*key)) {
        faults.push(format!("{phrase:?} is not in the sources: {table}"));
    }
    faults
}

/// Adds the records of a file.
fn collect(source: &Source, logged: &mut Records, faults: &mut Vec<String>) {
    let lines: Vec<_> = source.product().map(|(_, line)| line).collect();
    let text: Vec<char> = lines.iter().flat_map(|l| l.text.chars().chain(['\n'])).collect();
    let code: Vec<char> = lines.iter().flat_map(|l| l.code.chars().chain(['\n'])).collect();
    let table = if source.path.starts_with(EDGE_SOURCES) { EDGE } else { AGENT };
    let mut add = |phrase: &str, levels: &BTreeSet<String>, component: &str, fields: &[&str]| {
        let record = logged.entry((table, phrase.to_owned())).or_default();
        record.levels.extend(levels.iter().cloned());
        record.components.insert(component.to_owned());
        record.fields.extend(fields.iter().map(|field| (*field).to_owned()));
    };
    for start in calls(&code, "event!(") {
        let arguments = arguments(&text, &code, start);
        let [level, component, message, fields @ ..] = &arguments[..] else { continue };
        let levels = match level.strip_prefix("level = ") {
            None => BTreeSet::from([level.clone()]),
            Some(_) => levels_in(&code.iter().collect::<String>()),
        };
        let component = component.trim_start_matches("obj = ").trim_matches('"');
        let fields: Vec<_> = fields.iter().filter_map(|f| Some(f.split_once(" = ")?.0)).collect();
        let literal = message.strip_prefix('"').and_then(|m| m.strip_suffix('"'));
        let phrases = match literal {
            Some(phrase) if !phrase.contains(['\\', '"']) => vec![phrase.to_owned()],
            None if message.ends_with(".message()") => literals_of("fn message", &text, &code),
            _ => Vec::new(),
        };
        if phrases.is_empty() {
            faults.push(format!("{}: {message} is not a fixed phrase", source.path));
        }
        for phrase in phrases {
            add(&phrase, &levels, component, &fields);
        }
    }
    // The records of the output itself use the same calls.
    for start in calls(&code, ".begin(Level::") {
        let body: String = text[start..].iter().collect();
        let literals: Vec<_> = body.split('"').skip(1).step_by(2).collect();
        let [phrase, "obj", component, field, ..] = literals[..] else { continue };
        add(phrase, &BTreeSet::from(["warn".to_owned()]), component, &[field]);
    }
}

/// Returns the positions behind each call.
pub(super) fn calls(code: &[char], call: &str) -> Vec<usize> {
    let call: Vec<char> = call.chars().collect();
    let windows = code.windows(call.len()).enumerate();
    windows.filter(|(_, w)| *w == call).map(|(at, _)| at + call.len()).collect()
}

/// Splits the arguments of a call at `start` at its commas. Each is on one line.
pub(super) fn arguments(text: &[char], code: &[char], start: usize) -> Vec<String> {
    let (mut depth, mut from, mut found) = (0, start, Vec::new());
    for (at, c) in code.iter().enumerate().skip(start) {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth > 0 => depth -= 1,
            ',' | ')' if depth == 0 => {
                let argument: String = text[from..at].iter().collect();
                found.push(argument.split_whitespace().collect::<Vec<_>>().join(" "));
                from = at + 1;
                if *c == ')' {
                    break;
                }
            }
            _ => {}
        }
    }
    found
}

/// Returns the string literals in the body of a function.
fn literals_of(function: &str, text: &[char], code: &[char]) -> Vec<String> {
    let Some(start) = calls(code, function).first().copied() else { return Vec::new() };
    let (mut depth, mut end) = (0, start);
    for (at, c) in code.iter().enumerate().skip(start) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => continue,
        }
        end = at;
        if depth == 0 {
            break;
        }
    }
    let body: String = text[start..end].iter().collect();
    body.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Returns the levels that a file names, for a record whose level is a variable.
fn levels_in(code: &str) -> BTreeSet<String> {
    let names = code.split("Level::").skip(1);
    let names = names.map(|rest| {
        rest.chars().take_while(|c| c.is_alphanumeric()).collect::<String>().to_lowercase()
    });
    names.filter(|name| LEVELS.contains(&name.as_str())).collect()
}

/// Returns the rows of the tables of records.
fn rows(document: &str) -> Records {
    let mut records = Records::new();
    for table in [AGENT, EDGE] {
        for row in section(document, table) {
            let [phrase, levels, components, fields, ..] = row[..] else { continue };
            let set = |cell: &str| -> BTreeSet<String> {
                let words = cell.split(',').map(|word| word.trim().trim_matches('`').to_owned());
                words.filter(|word| !word.is_empty()).collect()
            };
            let record =
                Record { levels: set(levels), components: set(components), fields: set(fields) };
            for phrase in code(phrase) {
                assert!(records.insert((table, phrase), record.clone()).is_none(), "{row:?}");
            }
        }
    }
    records
}

/// Returns the cells of the rows of a section's table, without its two lines of heading.
fn section<'d>(document: &'d str, heading: &'d str) -> impl Iterator<Item = Vec<&'d str>> {
    let lines = document.lines().skip_while(move |line| *line != heading).skip(1);
    let lines = lines.take_while(|line| !line.starts_with("## "));
    lines
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}

/// Returns the texts in backquotes.
fn code(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
