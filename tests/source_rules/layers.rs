//! The layers of the tree: a directory of `src/` uses only directories above it in
//! [`LAYERS`], and no two files use each other, directly or through others.
//!
//! An edge is a path to another module outside of tests: in a `use` that does not
//! re-export, or in the code. A path through a re-export leads to the file behind it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, sources};

/// Directories and single files of `src/`, bottom to top.
const LAYERS: &[&str] = &[
    "time",
    "cidr",
    "features",
    "sys",
    "proto",
    "http1",
    "mux",
    "logging",
    "config",
    "tls",
    "net",
    "rest_client",
    "session",
    "metrics",
    "inspect",
    "proxy",
    "replay",
    "update",
    "agent",
    "diagnose",
    "web",
    "console",
    "service",
    "cli",
    "edge",
];

/// Private state machine of several files, each with a part of one type's methods.
const CIRCLES_ALLOWED_IN: &str = "mux";

/// Path of a module below the crate.
type Module = String;

/// Modules by name, each with the modules that it uses and the path in its source.
type Edges = BTreeMap<Module, BTreeMap<Module, String>>;

#[test]
fn a_directory_uses_only_those_above_it_in_the_list() {
    let rank = |module: &str| {
        let room = module.split("::").next().unwrap_or_default();
        let known = LAYERS.iter().position(|layer| *layer == room);
        known.unwrap_or_else(|| panic!("src/{room} is not in the list of layers"))
    };
    let graph = Graph::of(&sources());
    let mut upward = Vec::new();
    for (from, uses) in &graph.edges {
        for (to, path) in uses {
            if rank(to) > rank(from) {
                upward.push(format!("{from} uses {path}"));
            }
        }
    }
    assert!(upward.is_empty(), "upward edges:\n{}", upward.join("\n"));
    for layer in LAYERS {
        assert!(graph.modules.iter().any(|m| rank(m) == rank(layer)), "src/{layer} is missing");
    }
}

#[test]
fn files_do_not_use_each_other_in_circles() {
    let edges = Graph::of(&sources()).edges;
    let circular = circular(&edges);
    let shown: Vec<String> =
        circular.iter().map(|(a, b, path)| format!("{a} -> {b} ({path})")).collect();
    assert!(circular.is_empty(), "circles:\n{}", shown.join("\n"));
}

#[test]
fn upward_edges_and_circles_are_found() {
    let sources = [
        Source::new("src/sys/mod.rs", "//! X.\npub mod a;\npub use a::A;\n"),
        Source::new("src/sys/a.rs", "//! X.\nuse super::b::B;\npub struct A;\n"),
        Source::new("src/sys/b.rs", "//! X.\nfn f() -> super::A { crate::mux::c() }\n"),
        Source::new(
            "src/mux/mod.rs",
            "//! X.\n#[cfg(test)]\nmod tests {\n    use crate::sys;\n}\n",
        ),
        Source::new("src/mux/d.rs", "//! X, not crate::sys.\nuse crate::sys::{self, a::{A, Z}};\n"),
    ];
    let edges = Graph::of(&sources).edges;
    let all: Vec<(&str, &str)> = edges
        .iter()
        .flat_map(|(from, uses)| uses.keys().map(move |to| (from.as_str(), to.as_str())))
        .collect();
    let expected = [
        ("mux::d", "sys"),
        ("mux::d", "sys::a"),
        ("sys::a", "sys::b"),
        ("sys::b", "mux"),
        ("sys::b", "sys::a"),
    ];
    assert_eq!(all, expected);
    let circle: Vec<(String, String)> =
        circular(&edges).into_iter().map(|(a, b, _)| (a, b)).collect();
    let expected = [("sys::a", "sys::b"), ("sys::b", "sys::a")];
    assert_eq!(circle, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

/// Returns the edges between files that are part of a circle.
fn circular(edges: &Edges) -> Vec<(Module, Module, String)> {
    let mut found = Vec::new();
    for (from, uses) in edges {
        for (to, path) in uses {
            let allowed = [from, to].iter().all(|m| m.starts_with(CIRCLES_ALLOWED_IN));
            if !allowed && reaches(edges, to, from) {
                found.push((from.clone(), to.clone(), path.clone()));
            }
        }
    }
    found
}

fn reaches(edges: &Edges, from: &str, to: &str) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(module) = next.pop() {
        if module == to {
            return true;
        }
        if seen.insert(module) {
            next.extend(
                edges.get(module).into_iter().flat_map(|uses| uses.keys().map(String::as_str)),
            );
        }
    }
    false
}

/// Dependencies between the modules of the sources.
struct Graph {
    modules: BTreeSet<Module>,
    /// Paths of re-exports by module and name.
    exports: BTreeMap<(Module, String), Vec<String>>,
    edges: Edges,
}

impl Graph {
    fn of(sources: &[Source]) -> Graph {
        let product: Vec<(Module, String)> = sources
            .iter()
            .filter_map(|source| Some((module_of(&source.path)?, source)))
            .map(|(module, source)| {
                let lines: Vec<&str> =
                    source.product().map(|(_, line)| line.code.as_str()).collect();
                (module, lines.join("\n"))
            })
            .collect();
        let modules = product.iter().map(|(module, _)| module.clone()).collect();
        let mut graph = Graph { modules, exports: BTreeMap::new(), edges: BTreeMap::new() };
        for (module, code) in &product {
            for (path, exported) in uses(code) {
                if let (true, Some(path)) = (exported, graph.absolute(module, &path)) {
                    let name = path.last().cloned().unwrap_or_default();
                    graph.exports.insert((module.clone(), name), path);
                }
            }
        }
        for (module, code) in &product {
            let imported = uses(code).into_iter().filter(|(_, exported)| !exported);
            let paths: Vec<Vec<String>> =
                imported.map(|(path, _)| path).chain(paths(code)).collect();
            for path in paths {
                let Some(path) = graph.absolute(module, &path) else { continue };
                let target = graph.target(&path, 0);
                if !target.is_empty() && target != *module {
                    let uses = graph.edges.entry(module.clone()).or_default();
                    uses.entry(target).or_insert_with(|| path.join("::"));
                }
            }
        }
        graph
    }

    /// Returns the path below the crate, `None` for a path out of the crate.
    fn absolute(&self, module: &str, path: &[String]) -> Option<Vec<String>> {
        let mut base: Vec<String> = module.split("::").map(str::to_owned).collect();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => (base, rest) = (Vec::new(), &path[1..]),
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|part| part == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            child if self.modules.contains(&format!("{module}::{child}")) => {}
            _ => return None,
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    /// Returns the module of the file that a path below the crate refers to.
    fn target(&self, path: &[String], depth: usize) -> Module {
        for n in (1..=path.len()).rev() {
            let module = path[..n].join("::");
            if !self.modules.contains(&module) {
                continue;
            }
            let name = path.get(n).cloned().unwrap_or_default();
            return match self.exports.get(&(module.clone(), name)) {
                Some(behind) if depth < 8 && behind != path => self.target(behind, depth + 1),
                _ => module,
            };
        }
        String::new()
    }
}

/// Returns the module of a file: `a::b` for `src/a/b.rs`, `src/a/b/mod.rs` and
/// `src/a/b/stub.rs`. `None` for programs.
fn module_of(path: &str) -> Option<Module> {
    let path = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").or(path.strip_suffix("/stub")).unwrap_or(path);
    let program = path == "lib" || path == "main" || path.starts_with("bin/");
    (!program).then(|| path.replace('/', "::"))
}

/// Returns the paths of all `use` declarations and whether each one is a re-export.
fn uses(code: &str) -> Vec<(Vec<String>, bool)> {
    let mut found = Vec::new();
    for statement in use_statements(code) {
        let (before, tree) = statement.split_once("use ").unwrap_or_default();
        let mut paths = Vec::new();
        flatten(&[], tree, &mut paths);
        found.extend(paths.into_iter().map(|path| (path, before.contains("pub"))));
    }
    found
}

/// Returns the `use` declarations without their semicolons.
fn use_statements(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut from = 0;
    for line in code.split_inclusive('\n') {
        let text = line.trim_start();
        let is_use =
            text.starts_with("use ") || (text.starts_with("pub") && text.contains(" use "));
        if is_use && let Some(n) = code[from..].find(';') {
            found.push(&code[from..from + n]);
        }
        from += line.len();
    }
    found
}

/// Returns the paths of a tree such as `a::{self, b::{C, D as E}}`.
fn flatten(prefix: &[String], tree: &str, into: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let parts = |text: &str| -> Vec<String> {
        text.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let mut path = prefix.to_vec();
    if let Some((head, rest)) = tree.split_once('{') {
        path.extend(parts(head));
        let body = rest.rsplit_once('}').map_or(rest, |(body, _)| body);
        let (mut depth, mut start) = (0usize, 0);
        for (n, c) in body.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    flatten(&path, &body[start..n], into);
                    start = n + 1;
                }
                _ => {}
            }
        }
        flatten(&path, &body[start..], into);
    } else if !tree.is_empty() {
        let named = parts(tree.split(" as ").next().unwrap_or_default());
        if named != ["self"] {
            path.extend(named);
        }
        into.push(path);
    }
}

/// Returns the paths in code that begin with `crate` or `super`, without those of `use`.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut code = code.to_owned();
    for statement in use_statements(&code.clone()) {
        code = code.replace(statement, "");
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    code.split(|c: char| !is_word(c))
        .filter(|word| word.starts_with("crate::") || word.starts_with("super::"))
        .map(|word| word.split("::").filter(|p| !p.is_empty()).map(str::to_owned).collect())
        .collect()
}
