//! YAML files of a fixed form, read into a type of their own, with faults at their places. No
//! key has a meaning here: it is for files that are not the agent's.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::document::{Document, EntryPart, PathSegment, position_of, without_position};
use super::fault::{ConfigError, Fault};

/// A file that was read, for the places of its keys.
#[derive(Debug)]
pub struct TypedFile {
    path: PathBuf,
    document: Document,
}

impl TypedFile {
    /// Reads the text of `path`. An empty file is the default. The error has file, line and
    /// column.
    pub fn parse<T: DeserializeOwned + Default>(
        path: &Path,
        text: &str,
    ) -> Result<(TypedFile, T), ConfigError> {
        let failed = |message, position| {
            let fault = Fault { position, path: String::new(), message };
            ConfigError { files: vec![(path.to_owned(), vec![fault])] }
        };
        let document =
            Document::parse(text.to_owned()).map_err(|(message, at)| failed(message, at))?;
        let value = match document.root.is_null() {
            true => T::default(),
            false => serde_yaml::from_str(&document.text)
                .map_err(|e| failed(without_position(&e), e.location().map(position_of)))?,
        };
        Ok((TypedFile { path: path.to_owned(), document }, value))
    }

    /// Returns file, line and column of a key such as `credentials[2].acl`. Of a missing key
    /// it is the place of what it belongs to.
    pub fn place(&self, key: &str) -> String {
        let mut path = segments(key);
        let file = self.path.display();
        while !path.is_empty() {
            if let Some(at) = self.document.locate(&path, EntryPart::Key) {
                return format!("{file}:{}:{}", at.line, at.column);
            }
            path.pop();
        }
        file.to_string()
    }
}

fn segments(key: &str) -> Vec<PathSegment> {
    let mut path = Vec::new();
    for part in key.split('.') {
        let (name, indices) = part.split_at(part.find('[').unwrap_or(part.len()));
        path.push(PathSegment::Key(name.to_owned()));
        let indices = indices.split(['[', ']']).filter_map(|index| index.parse().ok());
        path.extend(indices.map(PathSegment::Index));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    type Lists = BTreeMap<String, Vec<BTreeMap<String, u8>>>;

    fn parse(text: &str) -> Result<(TypedFile, Lists), ConfigError> {
        TypedFile::parse(Path::new("a.yml"), text)
    }

    #[test]
    fn faults_and_keys_have_places() {
        let (file, value) = parse("\u{feff}list:\n  - {one: 1}\n  - two: 2\n").unwrap();
        assert_eq!(value["list"].len(), 2);
        for (key, place) in [
            ("list", "a.yml:1:1"),
            ("list[0].one", "a.yml:2:6"),
            ("list[1].two", "a.yml:3:5"),
            ("list[1].missing", "a.yml:3:5"),
            ("missing", "a.yml"),
        ] {
            assert_eq!(file.place(key), place, "{key}");
        }
        assert!(parse("").unwrap().1.is_empty());
        for (text, place) in
            [("list: [\n", "a.yml:2:1: "), ("list:\n  - one: x\n", "a.yml:2:10: list[0].one")]
        {
            let said = parse(text).unwrap_err().to_string();
            assert!(said.starts_with(place), "{said}");
        }
    }
}
