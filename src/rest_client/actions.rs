//! Actions of the REST API: names, paths, flags and descriptions. Nothing is sent here.
//!
//! They are in `actions.txt`, a text that is parsed at each use: it needs a quarter of the space
//! of tables of the language. Its lines are, in any order below a resource:
//!
//! | line | meaning |
//! |---|---|
//! | `$GROUP FLAG...` | a group of flags for use in other lines |
//! | `NAME\|PATH\|one\|several` | a resource, with its description in singular and plural. No path: the name, with underscores and slashes. `.`: an empty path |
//! | `LETTERS[SUFFIX] FLAG...[;TEXT]` | the actions `c`reate, `d`elete, `g`et, `l`ist, `u`pdate and `r`eplace. A suffix of the path replaces `/{id}`. `l+` has a filter |
//! | `:NAME METHOD SUFFIX FLAG...[;TEXT]` | any other action |
//!
//! A flag is a name and the sign of its kind: `,` list, `?` switch, `#` integer, `%` number, `=`
//! map, `=#` map of integers, `[` JSON, `<` file, `@` URL, none for a text. `*` after it: the
//! action has no effect without it. `/` after it: a part of the path. `name$GROUP` has the flags
//! of the group below the name, `$GROUP` has them without.

use crate::net::http_client::Method;

const TABLE: &str = include_str!("actions.txt");

/// A kind of object that the API manages.
#[derive(Clone, Debug)]
pub struct ApiResource {
    /// One or two words of the command line.
    pub name: &'static str,
    /// Path of the collection, with the names of parameters in braces.
    path: String,
    one: &'static str,
    several: &'static str,
    rows: &'static str,
}

/// An action on a resource.
#[derive(Clone, Debug)]
pub struct ApiAction {
    /// Its word on the command line.
    pub name: &'static str,
    /// Its HTTP method.
    pub method: Method,
    /// Its path, with the names of parameters in braces.
    pub path: String,
    /// Its description, for help.
    pub about: String,
    /// Its flags, in the order of help.
    pub flags: Vec<ApiFlag>,
}

/// A flag of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiFlag {
    /// Without its hyphens. Dots separate the names of nested objects.
    pub name: String,
    /// Its value.
    pub kind: FlagKind,
    /// Its place in the request.
    pub place: FlagPlace,
}

/// Form of a flag's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagKind {
    /// A text.
    Text,
    /// Texts, separated by commas or repeated.
    List,
    /// `true` or `false`.
    Switch,
    /// An integer.
    Integer,
    /// A number.
    Number,
    /// `KEY=VALUE`, repeated.
    Map,
    /// The same with integers.
    IntegerMap,
    /// A JSON text.
    Json,
    /// A file, the text of which is the value of the field without `-file`.
    File,
    /// A URL, the text at which is the value of the field without `-url`.
    Url,
}

/// Place of a flag in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagPlace {
    /// A field of the body, or a parameter of the query.
    Field,
    /// The same. The action has no effect without it.
    NeededField,
    /// A part of the path.
    Path,
}

/// Returns all resources, by name.
pub fn resources() -> impl Iterator<Item = ApiResource> {
    let mut rest = TABLE;
    std::iter::from_fn(move || {
        loop {
            let (line, after) = rest.split_once('\n')?;
            rest = after;
            if let Some(resource) = ApiResource::parse(line, after) {
                return Some(resource);
            }
        }
    })
}

/// Returns the resource of this name.
pub fn resource(name: &str) -> Option<ApiResource> {
    resources().find(|resource| resource.name == name)
}

impl ApiResource {
    /// Parses a line. `after` is the text after it, which begins with the rows of the resource.
    fn parse(line: &'static str, after: &'static str) -> Option<Self> {
        let mut parts = line.split('|');
        let (name, path) = (parts.next()?, parts.next()?);
        let (one, several) = (parts.next()?, parts.next()?);
        let path = match path {
            "" => format!("/{}", name.replace('-', "_").replace(' ', "/")),
            "." => String::new(),
            path => path.to_owned(),
        };
        Some(ApiResource { name, path, one, several, rows: after })
    }

    /// Returns its description: several of them, or the single one.
    pub fn about(&self) -> &'static str {
        if self.several.is_empty() { self.one } else { self.several }
    }

    /// Returns its actions, by name.
    pub fn actions(&self) -> Vec<ApiAction> {
        let rows = self.rows.lines().take_while(|row| !row.contains('|'));
        let mut actions: Vec<ApiAction> = rows.flat_map(|row| self.parse_row(row)).collect();
        actions.sort_by_key(|action| action.name);
        actions
    }

    fn parse_row(&self, row: &'static str) -> Vec<ApiAction> {
        let (row, text) = row.split_once(';').unwrap_or((row, ""));
        let (head, flags) = row.split_once(' ').unwrap_or((row, ""));
        if let Some(name) = head.strip_prefix(':') {
            let mut parts = flags.splitn(3, ' ');
            let method = parts.next().and_then(Method::from_name).unwrap_or(Method::Get);
            let suffix = parts.next().unwrap_or_default().trim_start_matches('.');
            let flags = parse_flags(parts.next().unwrap_or_default());
            let path = format!("{}{suffix}", self.path);
            return vec![ApiAction { name, method, path, about: text.to_owned(), flags }];
        }
        let end = head.find(['/', '+']).unwrap_or(head.len());
        let (letters, suffix) = head.split_at(end);
        let usual = |letter| self.usual_action(letter, suffix, flags, text);
        letters.chars().filter_map(usual).collect()
    }

    fn usual_action(
        &self,
        letter: char,
        suffix: &str,
        flags: &str,
        text: &str,
    ) -> Option<ApiAction> {
        let (name, method, verb) = match letter {
            'c' => ("create", Method::Post, "Create"),
            'd' => ("delete", Method::Delete, "Remove"),
            'g' => ("get", Method::Get, "Show"),
            'l' => ("list", Method::Get, "List"),
            'u' => ("update", Method::Patch, "Change"),
            'r' => ("replace", Method::Put, "Set"),
            _ => return None,
        };
        let is_filtered = suffix == "+";
        let of_item = matches!(letter, 'd' | 'g' | 'u') && !self.path.contains("{id}");
        let suffix = match suffix {
            "" | "+" if of_item => "/{id}",
            "+" => "",
            suffix => suffix,
        };
        let mut flags = parse_flags(flags);
        let mut object = self.one;
        if letter == 'l' {
            flags.extend(parse_flags(if is_filtered { "$filtered-page" } else { "$page" }));
            object = self.several;
        }
        let about = if text.is_empty() { format!("{verb} {object}") } else { text.to_owned() };
        Some(ApiAction { name, method, path: format!("{}{suffix}", self.path), about, flags })
    }

    /// Returns the action of this name.
    pub fn action(&self, name: &str) -> Option<ApiAction> {
        self.actions().into_iter().find(|action| action.name == name)
    }
}

impl ApiAction {
    /// Returns the names of its arguments that are not flags, as in [`Self::path`].
    pub fn arguments(&self) -> Vec<&str> {
        let by_flag = |name: &str| {
            let name = name.replace('_', "-");
            self.flags.iter().any(|f| f.place == FlagPlace::Path && f.name == name)
        };
        self.parameters().filter(|name| !by_flag(name)).collect()
    }

    /// Returns the names of all parameters of its path.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.path.split('{').skip(1).filter_map(|part| part.split('}').next())
    }

    /// Returns the flag of this name.
    pub fn flag(&self, name: &str) -> Option<&ApiFlag> {
        self.flags.iter().find(|flag| flag.name == name)
    }
}

impl ApiFlag {
    /// Returns the name of its value, for help.
    pub fn value_name(&self) -> &'static str {
        match self.kind {
            FlagKind::Text => "TEXT",
            FlagKind::List => "TEXT,...",
            FlagKind::Switch => "",
            FlagKind::Integer | FlagKind::Number => "N",
            FlagKind::Map => "KEY=VALUE",
            FlagKind::IntegerMap => "KEY=N",
            FlagKind::Json => "JSON",
            FlagKind::File => "FILE",
            FlagKind::Url => "URL",
        }
    }

    /// Returns whether its value must not be visible in the list of processes.
    pub fn is_secret(&self) -> bool {
        ["secret", "key", "token", "value"].iter().any(|word| self.name.contains(word))
    }
}

fn parse_flags(text: &str) -> Vec<ApiFlag> {
    let mut flags = Vec::new();
    expand(text, "", &mut flags);
    flags
}

/// Appends the flags in `text`, with `prefix` before their names.
fn expand(text: &str, prefix: &str, flags: &mut Vec<ApiFlag>) {
    for item in text.split_whitespace() {
        match item.split_once('$') {
            Some(("", group)) => expand(group_text(group), prefix, flags),
            Some((name, group)) => expand(group_text(group), &format!("{prefix}{name}."), flags),
            None => flags.push(parse_flag(item, prefix)),
        }
    }
}

fn group_text(name: &str) -> &'static str {
    let lines = TABLE.lines().filter_map(|line| line.strip_prefix('$')?.split_once(' '));
    lines.into_iter().find(|(group, _)| *group == name).map_or("", |(_, flags)| flags)
}

fn parse_flag(item: &str, prefix: &str) -> ApiFlag {
    let (item, place) = match (item.strip_suffix('*'), item.strip_suffix('/')) {
        (Some(item), _) => (item, FlagPlace::NeededField),
        (_, Some(item)) => (item, FlagPlace::Path),
        _ => (item, FlagPlace::Field),
    };
    let end = item.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(item.len());
    let (name, sign) = item.split_at(end);
    let kind = match sign {
        "," => FlagKind::List,
        "?" => FlagKind::Switch,
        "#" => FlagKind::Integer,
        "%" => FlagKind::Number,
        "=" => FlagKind::Map,
        "=#" => FlagKind::IntegerMap,
        "[" => FlagKind::Json,
        "<" => FlagKind::File,
        "@" => FlagKind::Url,
        _ => FlagKind::Text,
    };
    ApiFlag { name: format!("{prefix}{name}"), kind, place }
}
