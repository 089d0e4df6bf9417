//! Rules of the sources: dependencies between modules, code that needs a reason, the length of
//! files.
//!
//! Each rule has a text that breaks it and one that does not. Both are tested, so a rule that
//! detects nothing fails.

#[path = "source_rules/layers.rs"]
mod layers;
#[path = "source_rules/limits.rs"]
mod limits;
#[path = "source_rules/log_floods.rs"]
mod log_floods;
#[path = "source_rules/log_phrases.rs"]
mod log_phrases;
#[path = "source_rules/words.rs"]
mod words;

use std::fs;
use std::path::{Path, PathBuf};

/// A source file in the forms that the rules use.
struct Source {
    /// Relative to the package, with slashes.
    path: String,
    lines: Vec<Line>,
}

struct Line {
    /// Unchanged lines.
    text: String,
    /// Lines without comments and without the contents of string literals.
    code: String,
    /// Whether the line is inside of `#[cfg(test)]` or in a file of tests.
    test: bool,
}

/// Line number and description of the fault.
type Finding = (usize, String);

struct Rule {
    name: &'static str,
    applies: fn(&str) -> bool,
    check: fn(&Source) -> Vec<Finding>,
    /// Path and text that break the rule.
    bad: (&'static str, &'static str),
    /// A similar path and text that do not break it.
    good: (&'static str, &'static str),
}

const RULES: &[Rule] = &[
    Rule {
        name: "sans-IO modules use no sockets, threads, TLS or clock",
        applies: sans_io,
        check: |source| {
            let words = ["std::thread", "mio::", "rustls", "Instant::now", "SystemTime::now"];
            let mut found = uses(source, &words);
            found.extend(source.product().filter_map(|(n, line)| {
                let rest = line.code.split("std::net").nth(1)?;
                let types = rest.trim_start_matches("::").trim_start_matches('{');
                let only_types = types
                    .split(|c: char| !c.is_alphanumeric())
                    .filter(|w| !w.is_empty())
                    .take_while(|w| w.starts_with(char::is_uppercase))
                    .all(|w| ["IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr"].contains(&w));
                (!only_types).then(|| (n, "std::net beyond address types".to_owned()))
            }));
            found
        },
        bad: ("src/mux/x.rs", "//! X.\nuse std::net::TcpStream;\n"),
        good: ("src/proto/x.rs", "//! X, not std::thread.\nuse std::net::{IpAddr, SocketAddr};\n"),
    },
    Rule {
        name: "time in protocol parts is an argument",
        applies: sans_io,
        check: |source| uses(source, &["Instant::now", "SystemTime::now", "clock::now"]),
        bad: ("src/mux/x.rs", "//! X.\nlet now = std::time::Instant::now();\n"),
        good: ("src/mux/x.rs", "//! X.\nfn tick(now: Instant) {}\n"),
    },
    Rule {
        name: "no session lives by the wall clock, which may be set",
        applies: |path| ["src/agent/", "src/session/"].iter().any(|dir| path.starts_with(dir)),
        check: |source| uses(source, &["SystemTime", "std::time::Instant", "Instant::now"]),
        bad: ("src/agent/x.rs", "//! X.\nlet t = std::time::SystemTime::now();\n"),
        good: ("src/agent/x.rs", "//! X.\nlet t = sys::clock();\n"),
    },
    Rule {
        name: "the muxer knows no JSON and logs nothing",
        applies: |path| path.starts_with("src/mux/"),
        check: |source| uses(source, &["serde", "crate::proto", "log::", "logging::", "println!"]),
        bad: ("src/mux/x.rs", "//! X.\nuse crate::proto::messages;\n"),
        good: ("src/mux/x.rs", "//! X knows no serde.\nuse crate::time::Instant;\n"),
    },
    Rule {
        name: "records are made by event!: only logging uses the facade `log`",
        applies: |path| path.starts_with("src/") && !path.starts_with("src/logging/"),
        check: |source| uses(source, &[" log::", "(log::", "use log:"]),
        bad: ("src/net/x.rs", "//! X.\nfn f() { log::info!(\"x\"); }\n"),
        good: ("src/net/x.rs", "//! X.\nfn f() { event!(info, obj = \"x\", \"x\"); }\n"),
    },
    Rule {
        name: "the messages know no frames",
        applies: |path| path.starts_with("src/proto/"),
        check: |source| uses(source, &["crate::mux", "crate::session", "crate::net", "crate::tls"]),
        bad: ("src/proto/x.rs", "//! X.\nuse crate::mux::frame;\n"),
        good: ("src/proto/x.rs", "//! X.\nuse super::secret::Secret;\n"),
    },
    Rule {
        name: "proxying knows nothing of the edge's TLS",
        applies: |path| path.starts_with("src/proxy/"),
        check: |source| uses(source, &["crate::net::dial", "crate::tls::records", "crate::agent"]),
        bad: ("src/proxy/x.rs", "//! X.\nuse crate::tls::records::Keys;\n"),
        good: ("src/proxy/x.rs", "//! X.\nuse crate::session::Session;\n"),
    },
    Rule {
        name: "the local API asks the agent, and knows neither frames nor links",
        applies: |path| path.starts_with("src/web/"),
        check: |source| uses(source, &["crate::mux", "crate::session", "crate::net", "crate::tls"]),
        bad: ("src/web/x.rs", "//! X.\nuse crate::mux::Code;\n"),
        good: ("src/web/x.rs", "//! X.\nuse crate::agent::Handle;\n"),
    },
    Rule {
        name: "what a smaller build leaves out is said in src/features.rs",
        applies: |path| path.starts_with("src/") && path != "src/features.rs",
        check: |source| uses(source, &["cfg!(feature"]),
        bad: ("src/net/x.rs", "//! X.\nfn f() -> bool { cfg!(feature = \"fetch\") }\n"),
        good: ("src/net/x.rs", "//! X.\n#[cfg(feature = \"web\")]\nmod desk;\n"),
    },
    Rule {
        name: "nothing but the edge uses the edge",
        applies: |path| {
            path.starts_with("src/")
                && !path.starts_with("src/edge/")
                && !path.starts_with("src/bin/")
        },
        check: |source| uses(source, &["crate::edge", "culvert::edge"]),
        bad: ("src/agent/x.rs", "//! X.\nuse crate::edge::registry;\n"),
        good: ("src/agent/x.rs", "//! X.\n// The other side is crate::edge.\n"),
    },
    Rule {
        name: "only sys meets the system: unsafe, libc, target switches",
        applies: |path| path.starts_with("src/") && !path.starts_with("src/sys/"),
        check: |source| {
            let mut found = uses(source, &["libc::", "unsafe ", "unsafe_code", "cfg(target_"]);
            found.retain(|(n, _)| {
                let code = &source.lines[n - 1].code;
                source.path != "src/lib.rs" || !code.contains("deny(unsafe_code)")
            });
            // The declaration of `sys` is exempt.
            found.retain(|(n, _)| {
                let next = source.lines.get(*n).map_or("", |line| line.code.as_str());
                source.path != "src/lib.rs" || !next.contains("mod sys;")
            });
            found
        },
        bad: ("src/agent/x.rs", "//! X.\nfn f() { unsafe { g() } }\n"),
        good: ("src/agent/x.rs", "//! X: nothing unsafe here.\nlet s = \"unsafe {\";\n"),
    },
    Rule {
        name: "unsafe code says why it is sound",
        applies: |path| path.starts_with("src/sys/"),
        check: |source| {
            let needs =
                |line: &Line| line.code.contains("unsafe {") || line.code.contains("unsafe impl");
            unexplained(source, needs, &["SAFETY", "Safety"])
        },
        bad: ("src/sys/x.rs", "//! X.\nlet n = unsafe { f() };\n"),
        good: (
            "src/sys/x.rs",
            "//! X.\n// SAFETY: f has no conditions.\nlet n = unsafe { f() };\n",
        ),
    },
    Rule {
        name: "what may panic says why it does not",
        applies: |path| path.starts_with("src/"),
        check: |source| {
            let needs = |line: &Line| {
                let code = &line.code;
                let calls = [".unwrap()", ".expect(", "panic!(", "unreachable!(", "todo!("];
                calls.iter().any(|call| code.contains(call)) || code.contains("unimplemented!(")
            };
            unexplained(source, needs, &["Reason:"])
        },
        bad: ("src/agent/x.rs", "//! X.\nlet n = text.parse().unwrap();\n"),
        good: (
            "src/agent/x.rs",
            "//! X.\n// Reason: written two lines above.\nlet n = text.parse().unwrap();\n\
             let m = n.unwrap_or(3);\n#[cfg(test)]\nmod tests {\n    fn t() { f().unwrap(); }\n}\n",
        ),
    },
    Rule {
        name: "no 64-bit atomics: small machines have none",
        applies: |path| path.starts_with("src/"),
        check: |source| uses(source, &["AtomicU64", "AtomicI64"]),
        bad: ("src/agent/x.rs", "//! X.\nuse std::sync::atomic::AtomicU64;\n"),
        good: ("src/agent/x.rs", "//! X.\nuse std::sync::atomic::AtomicU32;\n"),
    },
    Rule {
        name: "no byte order of this machine, whose name only the door to the system knows",
        applies: |path| path.starts_with("src/"),
        check: |source| match source.path.starts_with("src/sys/") {
            true => uses(source, &["to_ne_bytes", "from_ne_bytes"]),
            false => uses(source, &["to_ne_bytes", "from_ne_bytes", "target_endian"]),
        },
        bad: ("src/proto/x.rs", "//! X.\nlet b = n.to_ne_bytes();\n"),
        good: ("src/proto/x.rs", "//! X.\nlet b = n.to_le_bytes();\n"),
    },
    Rule {
        name: "every file says what it is for",
        applies: |_| true,
        check: |source| match source.lines.first() {
            Some(line) if line.text.starts_with("//!") => Vec::new(),
            _ => vec![(1, "no module documentation".to_owned())],
        },
        bad: ("src/agent/x.rs", "use std::fmt;\n"),
        good: ("src/agent/x.rs", "//! What it is for.\n"),
    },
    Rule {
        name: "no file of a thousand lines",
        applies: |_| true,
        check: |source| match source.lines.len() {
            n @ 1000.. => vec![(n, "split it: one idea a file".to_owned())],
            _ => Vec::new(),
        },
        bad: ("src/agent/x.rs", LONG),
        good: ("src/agent/x.rs", "//! Short.\n"),
    },
    Rule {
        name: "a test that is left out says why",
        applies: |_| true,
        check: |source| uses_anywhere(source, &["#[ignore]"]),
        bad: ("tests/x.rs", "//! X.\n#[test]\n#[ignore]\nfn t() {}\n"),
        good: ("tests/x.rs", "//! X.\n#[test]\n#[ignore = \"needs a modem\"]\nfn t() {}\n"),
    },
    Rule {
        name: "a test that is skipped is in the list at the end of `make test`",
        applies: |path| {
            path.starts_with("tests/")
                && !path.ends_with("/skips.rs")
                && path != "tests/source_rules.rs"
        },
        check: |source| {
            let lines = source.lines.iter().enumerate();
            let own = lines.filter(|(_, line)| {
                let text = line.text.to_lowercase();
                let prints = text.contains("print!(\"") || text.contains("println!(\"");
                prints && ["skipped", "not tried"].iter().any(|word| text.contains(word))
            });
            own.map(|(n, _)| (n + 1, "use skips::skipped".to_owned())).collect()
        },
        bad: ("tests/e2e/x.rs", "//! X.\nfn f() { eprintln!(\"SKIPPED: no modem\"); }\n"),
        good: ("tests/e2e/x.rs", "//! X.\nfn f() { skipped(\"a modem is missing\"); }\n"),
    },
    Rule {
        name: "tests do not sleep, but between two looks at a condition",
        applies: |path| {
            let tests = path.starts_with("tests/") || path.starts_with("src/");
            // The network tests hold a fault for a given time; the soak has slow
            // readers.
            let timed = ["tests/bench/", "tests/soak/", "tests/system/net/"];
            let timed = timed.iter().any(|dir| path.starts_with(dir));
            let looks = ["tests/support/mod.rs", "tests/support/logged.rs"].contains(&path);
            tests && !timed && !looks
        },
        check: |source| {
            let lines = source.lines.iter().enumerate();
            let sleeps = lines.filter(|(_, l)| l.test && l.code.contains("thread::sleep"));
            sleeps.map(|(n, _)| (n + 1, "wait for a condition instead".to_owned())).collect()
        },
        bad: ("tests/e2e/x.rs", "//! X.\nfn f() { std::thread::sleep(SECOND); }\n"),
        good: ("tests/e2e/x.rs", "//! X.\nfn f() { wait_for(\"it\", || done()); }\n"),
    },
    Rule {
        name: "tests ask the kernel for ports",
        applies: |path| path.starts_with("tests/e2e/") || path.starts_with("tests/support/"),
        check: |source| {
            let bound = |line: &&Line| {
                let binds = line.text.contains("::bind(\"") || line.text.contains("_on(\"");
                binds && !line.text.contains(":0\"")
            };
            let lines = source.lines.iter().enumerate().filter(|(_, line)| bound(line));
            lines.map(|(n, _)| (n + 1, "a fixed port".to_owned())).collect()
        },
        bad: ("tests/e2e/x.rs", "//! X.\nlet l = TcpListener::bind(\"127.0.0.1:8080\");\n"),
        good: ("tests/e2e/x.rs", "//! X.\nlet l = TcpListener::bind(\"127.0.0.1:0\");\n"),
    },
];

/// Returns a thousand lines, the first of them a module's documentation.
const LONG: &str = {
    const LINES: [u8; 2008] = {
        let mut bytes = [b'\n'; 2008];
        let start = b"//! Long.";
        let mut at = 0;
        while at < start.len() {
            bytes[at] = start[at];
            at += 1;
        }
        bytes
    };
    match std::str::from_utf8(&LINES) {
        Ok(text) => text,
        Err(_) => "",
    }
};

/// Modules without I/O: files, or directories with a slash.
const SANS_IO: &[&str] = &[
    "src/agent/backoff.rs",
    "src/agent/options.rs",
    "src/cidr.rs",
    "src/cli/help.rs",
    "src/cli/parse.rs",
    "src/cli/table.rs",
    "src/config/",
    "src/console/paint.rs",
    "src/console/screen.rs",
    "src/console/text.rs",
    "src/edge/visitors/exchange_state.rs",
    "src/edge/visitors/exchange_state/",
    "src/edge/visitors/pages.rs",
    "src/edge/visitors/request.rs",
    "src/edge/visitors/response.rs",
    "src/edge/visitors/sni.rs",
    "src/http1/",
    "src/inspect/message.rs",
    "src/inspect/observer.rs",
    "src/inspect/store.rs",
    "src/logging/format.rs",
    "src/logging/rate_limit.rs",
    "src/metrics/",
    "src/mux/",
    "src/net/dns.rs",
    "src/net/http_connect.rs",
    "src/net/proxy_env.rs",
    "src/net/resolv_conf.rs",
    "src/net/socks5.rs",
    "src/net/url.rs",
    "src/proto/",
    "src/proxy/pages.rs",
    "src/replay/request.rs",
    "src/session/inbound.rs",
    "src/session/waiting.rs",
    "src/time.rs",
    "src/update/decision.rs",
    "src/update/manifest.rs",
    "src/update/record.rs",
    "src/update/signature.rs",
    "src/update/version.rs",
    "src/web/guard.rs",
    "src/web/http.rs",
    "src/web/json.rs",
];

fn sans_io(path: &str) -> bool {
    SANS_IO.iter().any(|part| is_in(path, part))
}

/// Returns whether `path` is the file `part`, or below the directory `part`.
fn is_in(path: &str, part: &str) -> bool {
    path == part || (part.ends_with('/') && path.starts_with(part))
}

/// Returns the lines of the product, without its tests, that contain one of the words.
fn uses(source: &Source, words: &[&str]) -> Vec<Finding> {
    source.product().flat_map(|(n, line)| hits(n, line, words)).collect()
}

/// Returns the lines, also of tests, that contain one of the words.
fn uses_anywhere(source: &Source, words: &[&str]) -> Vec<Finding> {
    let lines = source.lines.iter().enumerate();
    lines.flat_map(|(n, line)| hits(n + 1, line, words)).collect()
}

fn hits(n: usize, line: &Line, words: &[&str]) -> Option<Finding> {
    let word = words.iter().find(|word| line.code.contains(**word))?;
    Some((n, format!("uses {word}")))
}

/// Returns the lines that need an explanation and have neither a comment on the same line nor
/// one directly above the statement.
fn unexplained(source: &Source, needs: fn(&Line) -> bool, marks: &[&str]) -> Vec<Finding> {
    let explains = |text: &str| {
        text.split_once("//").is_some_and(|(_, c)| marks.iter().any(|mark| c.contains(mark)))
    };
    let lacking = source.product().filter(|(n, line)| {
        if !needs(line) || explains(&line.text) {
            return false;
        }
        // First the lines of the statement, then the comment above it.
        let mut above = source.lines[..n - 1].iter().rev().map(|l| l.text.trim()).peekable();
        let statement_goes_on = |text: &str| text.starts_with('.') || text.starts_with("&&");
        let mut text = line.text.trim();
        while statement_goes_on(text) {
            match above.peek() {
                Some(before) if !before.starts_with("//") => text = above.next().unwrap_or(""),
                _ => break,
            }
        }
        !above.take_while(|text| text.starts_with("//")).any(explains)
    });
    lacking
        .map(|(n, line)| (n, format!("needs a comment with {}: {}", marks[0], line.text.trim())))
        .collect()
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let code = blank_comments_and_strings(text);
        let all_tests = path.starts_with("tests/")
            || path.ends_with("/tests.rs")
            || path.contains("/tests/")
            || path.ends_with("/sim.rs")
            || path.ends_with("/hostile.rs")
            || path.ends_with("/test_recorder.rs")
            || path.ends_with("_tests.rs")
            || path.contains("/sim/");
        let mut lines = Vec::new();
        // Depth of braces at the start of the current test module.
        let (mut depth, mut test_since, mut announced) = (0usize, None, false);
        for (text, code) in text.lines().zip(code.lines()) {
            let before = depth;
            depth += code.matches('{').count();
            depth = depth.saturating_sub(code.matches('}').count());
            announced |= code.contains("#[cfg(test)]") || code.contains("#[cfg(all(test");
            if announced && test_since.is_none() {
                if depth > before {
                    (test_since, announced) = (Some(before), false);
                } else if code.contains(';') {
                    announced = false;
                }
            }
            let test = all_tests || announced || test_since.is_some();
            lines.push(Line { text: text.to_owned(), code: code.to_owned(), test });
            if test_since.is_some_and(|since| depth <= since) {
                test_since = None;
            }
        }
        Source { path: path.to_owned(), lines }
    }

    /// Returns the numbered lines outside of tests.
    fn product(&self) -> impl Iterator<Item = (usize, &Line)> {
        let numbered = self.lines.iter().enumerate().map(|(n, line)| (n + 1, line));
        numbered.filter(|(_, line)| !line.test)
    }
}

/// Returns the text with blanks in place of comments, string and character literals. Line ends
/// stay.
fn blank_comments_and_strings(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let after_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
        // Number of characters to replace.
        let gone = if rest.starts_with(&['/', '/']) {
            rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())
        } else if rest.starts_with(&['/', '*']) {
            rest.windows(2).position(|w| w == ['*', '/']).map_or(rest.len(), |n| n + 2)
        } else if rest[0] == 'r' && !after_word && raw_string(rest).is_some() {
            raw_string(rest).unwrap_or(1)
        } else if rest[0] == '"' {
            let mut n = 1;
            while n < rest.len() && rest[n] != '"' {
                n += if rest[n] == '\\' { 2 } else { 1 };
            }
            n + 1
        } else if rest[0] == '\'' && rest.len() > 2 && (rest[1] == '\\' || rest[2] == '\'') {
            let from = if rest[1] == '\\' { 3 } else { 2 };
            let n = rest[from..].iter().position(|c| *c == '\'').map_or(rest.len(), |n| from + n);
            n + 1
        } else {
            out.push(rest[0]);
            at += 1;
            continue;
        };
        let end = (at + gone).min(chars.len());
        out.extend(chars[at..end].iter().map(|c| blank(*c)));
        at = end;
    }
    out
}

/// Returns the length of the raw string that begins here.
fn raw_string(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return None;
    }
    let mut end = vec!['"'];
    end.extend(vec!['#'; hashes]);
    let body = &rest[2 + hashes..];
    let n = body.windows(end.len()).position(|w| w == end)?;
    Some(2 + hashes + n + end.len())
}

/// Returns all Rust files of the package.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for dir in ["src", "tests"] {
        walk(&root.join(dir), &mut paths);
    }
    let relative = |path: &PathBuf| {
        let path = path.strip_prefix(root).unwrap();
        path.to_str().unwrap().replace('\\', "/")
    };
    paths.iter().map(|p| Source::new(&relative(p), &fs::read_to_string(p).unwrap())).collect()
}

fn walk(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target" && name != "node_modules") {
                walk(&path, into);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn all_sources_keep_the_rules() {
    let sources = sources();
    assert!(sources.len() > 20, "only {} files found", sources.len());
    let mut broken = Vec::new();
    for rule in RULES {
        for source in sources.iter().filter(|source| (rule.applies)(&source.path)) {
            for (line, what) in (rule.check)(source) {
                broken.push(format!("{}:{line}: {what}   [{}]", source.path, rule.name));
            }
        }
    }
    assert!(broken.is_empty(), "{} findings:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn a_rule_that_matches_no_file_fails() {
    let sources = sources();
    let matched = |applies: &dyn Fn(&str) -> bool| sources.iter().any(|s| applies(&s.path));
    for rule in RULES {
        assert!(matched(&rule.applies), "no file is under the rule: {}", rule.name);
    }
    for part in SANS_IO {
        assert!(matched(&|path| is_in(path, part)), "no file is {part}");
    }
}

#[test]
fn each_rule_fires_on_its_bad_example_and_not_on_its_good_one() {
    for rule in RULES {
        for ((path, text), expected) in [(rule.bad, true), (rule.good, false)] {
            assert!((rule.applies)(path), "{}: does not apply to {path}", rule.name);
            let found = (rule.check)(&Source::new(path, text));
            assert_eq!(!found.is_empty(), expected, "{}: {text:.200}\n{found:?}", rule.name);
        }
    }
}

#[test]
fn comments_and_literals_are_told_from_code() {
    let text = "a // x\nb /* y\n z */ c \"s//t\\\"u\" d r#\"v\"w\"# e '\"' f '\\'' g &'a h\n";
    let code = blank_comments_and_strings(text);
    assert_eq!(code.lines().count(), text.lines().count());
    let words: Vec<&str> = code.split_whitespace().collect();
    assert_eq!(words, ["a", "b", "c", "d", "e", "f", "g", "&'a", "h"]);
}

#[test]
fn code_of_tests_is_told_from_the_product() {
    let text = "//! X.\nfn a() {\n}\n#[cfg(test)]\nmod tests;\nfn b() {}\n#[cfg(test)]\nmod t {\n    \
                fn c() {\n    }\n}\nfn d() {}\n";
    let source = Source::new("src/x.rs", text);
    let product: Vec<&str> = source
        .product()
        .map(|(_, line)| line.text.as_str())
        .filter(|t| t.starts_with("fn"))
        .collect();
    assert_eq!(product, ["fn a() {", "fn b() {}", "fn d() {}"]);
}
