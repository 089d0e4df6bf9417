//! A directory as a page. Names come from the file system and are escaped.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::{fmt, fs};

use super::path::{self, Root};
use crate::proxy::pages;

/// Most entries of one page: a directory of a million files must not cost the
/// memory of a million names.
const MOST: usize = 2000;

/// The entries of a directory, sorted, and what else the page says.
pub(super) struct Listing {
    shown: String,
    /// Name and whether it is a directory.
    entries: Vec<(OsString, bool)>,
    /// Whether there are more than [`MOST`].
    more: bool,
}

impl Listing {
    /// Reads a directory. Left out is what a request would not find either:
    /// hidden names, links to the outside, pipes and devices.
    pub(super) fn read(root: &Root, dir: &Path, shown: String) -> io::Result<Self> {
        let mut entries = Vec::new();
        let mut more = false;
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            if path::hidden(&name) {
                continue;
            }
            let Ok(real) = root.resolve(&dir.join(&name)) else { continue };
            let Ok(facts) = fs::metadata(real) else { continue };
            if !facts.is_dir() && !facts.is_file() {
                continue;
            }
            if entries.len() == MOST {
                more = true;
                break;
            }
            entries.push((name, facts.is_dir()));
        }
        entries.sort();
        Ok(Listing { shown, entries, more })
    }

    /// How many bytes [`Listing::write`] will write.
    pub(super) fn length(&self) -> u64 {
        let mut counter = Counter(0);
        // Reason: the counter takes everything.
        let _ = self.write(&mut counter);
        counter.0
    }

    /// Writes the page.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let title = format!("Index of {}", self.shown);
        let page = pages::page(&title, MARK);
        let (before, after) = page.split_once(MARK).unwrap_or((&page, ""));
        out.write_all(before.as_bytes())?;
        writeln!(out, "<ul>")?;
        if self.shown != "/" {
            writeln!(out, "<li><a href=\"../\">../</a>")?;
        }
        for (name, is_dir) in &self.entries {
            writeln!(out, "{}", Entry { name, slash: if *is_dir { "/" } else { "" } })?;
        }
        writeln!(out, "</ul>")?;
        if self.more {
            writeln!(out, "<p>{MOST} entries are shown; the directory has more.</p>")?;
        }
        out.write_all(after.as_bytes())
    }
}

/// Where the list goes in the page; no file name contains a line like it,
/// because names are escaped.
const MARK: &str = "<!--entries-->";

struct Entry<'a> {
    name: &'a OsStr,
    slash: &'static str,
}

impl fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { name, slash } = self;
        // The dot keeps a name with a colon from being read as a scheme.
        let target = path::encode(name.as_bytes());
        write!(f, "<li><a href=\"./{target}{slash}\">{}{slash}</a>", path::display(name))
    }
}

struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
