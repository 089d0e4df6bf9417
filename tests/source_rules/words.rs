//! Words of the old style in comments, literals and documents. The reader has English as
//! a second language; CONTRIBUTING.md has the rules.
//!
//! Counted are:
//!
//! - persons for roles ([`ROLES`]). A role has a name: client, caller, peer, thread, visitor.
//!   `whose` is not counted, because it also belongs to things;
//! - speech of programs ([`SPEECH`]). They log, report, notify, return, request and query;
//! - figures of speech that this project once used ([`FIGURES`]);
//! - a negated noun after a verb of being ([`BEING`]): `is no size`, `there is none`. `has no
//!   limit` is plain, and so is `is no longer` ([`PLAIN_AFTER_NO`]).
//!
//! Not counted are code, text in backquotes, place holders of formats (`{who}`), code blocks,
//! literals of tests, which are data, and the section of CONTRIBUTING.md that lists these words.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Line, Source};

/// Permitted are errors that address a person ("ask the owner of the edge"), texts of ngrok's
/// service, and licences.
const MOST_OLD_WORDS: usize = 40;

const ROLES: &[&str] = &[
    "who",
    "whom",
    "whoever",
    "whomever",
    "he",
    "him",
    "his",
    "she",
    "her",
    "hers",
    "somebody",
    "someone",
    "nobody",
    "anybody",
    "anyone",
    "everybody",
    "everyone",
];

const SPEECH: &[&str] = &[
    "tell", "tells", "telling", "told", "say", "says", "saying", "said", "ask", "asks", "asking",
    "asked",
];

const FIGURES: &[&str] = &[
    "ado", "bell", "doze", "dozes", "dozing", "errand", "goodbye", "hire", "hires", "hired",
    "hoarder", "hungry", "planted", "staff", "tombs",
];

const BEING: &[&str] = &["is", "are", "was", "were", "be", "being"];

const PLAIN_AFTER_NO: &[&str] = &["longer", "more", "less", "later", "earlier"];

/// Every file that is counted has one of these endings.
const KINDS: &[&str] = &[".rs", ".js", ".md"];

#[test]
fn few_words_are_of_the_old_style() {
    let texts = texts();
    for kind in KINDS {
        assert!(texts.iter().any(|(path, _)| path.ends_with(kind)), "no file is a {kind}");
    }
    let mut found = Vec::new();
    for (path, prose) in texts {
        found.extend(old_words(&prose).into_iter().map(|(n, word)| format!("{path}:{n}: {word}")));
    }
    assert!(found.len() <= MOST_OLD_WORDS, "{}:\n{}", found.len(), found.join("\n"));
}

#[test]
fn old_words_are_found_in_prose_only() {
    let words = |path: &str, text: &str| -> Vec<String> {
        let prose = prose(path, text);
        old_words(&prose).into_iter().map(|(n, word)| format!("{n} {word}")).collect()
    };
    let code = "//! Whoever\n// is here is\n// no peer.\nlet who = f(\"told {who}\"); // `he`\n";
    assert_eq!(words("src/x.rs", code), ["1 whoever", "3 is no", "4 told"]);
    assert_eq!(words("src/tests.rs", "//! Who.\nf(\"told\"); // He.\n"), ["1 who", "2 he"]);
    let page =
        "It is no longer.\n```\nwho\n```\n`who` There is none.\n## Language\nwho\n## X\nHe\n";
    assert_eq!(words("CONTRIBUTING.md", page), ["5 is none", "9 he"]);
    assert_eq!(words("x.js", "who(); // `a` of no use\nf('http://he');\n"), ["1 of no"]);
}

/// Returns path and prose of each file, line by line.
fn texts() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> =
        ["README.md", "SECURITY.md", "CONTRIBUTING.md"].map(|name| root.join(name)).into();
    walk(&root.join("src"), &mut paths);
    walk(&root.join("docs"), &mut paths);
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
        let text = fs::read_to_string(&path).unwrap();
        let prose = prose(&name, &text);
        (name, prose)
    };
    paths.into_iter().map(read).collect()
}

fn walk(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            walk(&path, into);
        } else if KINDS.iter().any(|kind| name.ends_with(kind)) {
            into.push(path);
        }
    }
}

/// Returns the prose of a text. Each line stays a line.
fn prose(path: &str, text: &str) -> String {
    let lines: Vec<String> = if path.ends_with(".rs") {
        let lines = Source::new(path, text).lines;
        let prose = |line: &Line| match line.test {
            true => comment(&line.text).to_owned(),
            false => comments_and_literals(&line.text, &line.code),
        };
        lines.iter().map(prose).collect()
    } else if path.ends_with(".js") {
        text.lines().map(|line| comment(line).to_owned()).collect()
    } else {
        outside_of_blocks(path, text)
    };
    lines.iter().map(|line| without_quotes(line) + "\n").collect()
}

/// Returns the comment of a line: from two slashes after a blank or at the start.
fn comment(line: &str) -> &str {
    let mut found = line.match_indices("//");
    let at = found.find(|(at, _)| matches!(line[..*at].chars().next_back(), None | Some(' ')));
    at.map_or("", |(at, _)| &line[at..])
}

/// Returns the part of a line that is in its text and blank in its code.
fn comments_and_literals(text: &str, code: &str) -> String {
    let both = text.chars().zip(code.chars());
    both.map(|(text, code)| if code == ' ' { text } else { ' ' }).collect()
}

/// Returns the lines of a document, with empty ones for code blocks and the list of the words.
fn outside_of_blocks(path: &str, text: &str) -> Vec<String> {
    let (mut block, mut listed) = (false, false);
    let mut lines = Vec::new();
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        block ^= fence;
        if !block && line.starts_with("## ") {
            listed = path == "CONTRIBUTING.md" && line == "## Language";
        }
        let left_out = block || fence || listed;
        lines.push(if left_out { String::new() } else { line.to_owned() });
    }
    lines
}

/// Returns a line without text in backquotes or braces.
fn without_quotes(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for (n, part) in line.split('`').enumerate() {
        out.push_str(if n % 2 == 0 { part } else { " _ " });
    }
    while let Some((start, end)) =
        out.find('{').and_then(|start| Some((start, start + out[start..].find('}')?)))
    {
        out.replace_range(start..=end, " _ ");
    }
    out
}

/// Returns line number and word, or words, of each hit.
fn old_words(prose: &str) -> Vec<(usize, String)> {
    // `.` separates sentences, and lines that are not adjacent.
    let mut words: Vec<(usize, String)> = Vec::new();
    for (n, line) in prose.lines().enumerate() {
        let mut empty = true;
        for part in line.to_lowercase().split_inclusive(|c: char| !c.is_alphanumeric() && c != '_')
        {
            let word = part.trim_end_matches(|c: char| !c.is_alphanumeric() && c != '_');
            if !word.is_empty() {
                words.push((n + 1, word.to_owned()));
                empty = false;
            }
            if part.ends_with(['.', ':', ';', ',', '"', '(', ')', '|']) {
                words.push((n + 1, ".".to_owned()));
            }
        }
        if empty {
            words.push((n + 1, ".".to_owned()));
        }
    }
    let mut found = Vec::new();
    for (at, (n, word)) in words.iter().enumerate() {
        let before = at.checked_sub(1).map_or("", |at| words[at].1.as_str());
        let after = words.get(at + 1).map_or("", |(_, word)| word.as_str());
        let negated = word == "none" || (word == "no" && !PLAIN_AFTER_NO.contains(&after));
        if [ROLES, SPEECH, FIGURES].iter().any(|list| list.contains(&word.as_str())) {
            found.push((*n, word.clone()));
        } else if (negated && BEING.contains(&before)) || (before == "of" && word == "no") {
            found.push((*n, format!("{before} {word}")));
        }
    }
    found
}
