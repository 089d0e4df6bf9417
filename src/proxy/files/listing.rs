//! Page that lists a directory. Names come from the file system and are escaped.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::{fmt, fs};

use super::path::{self, Root};
use crate::http1::text::percent_encoded;
use crate::proxy::pages;

/// Most entries of one page: a directory with a million files must not need memory for a
/// million names.
const MAX_ENTRIES: usize = 2000;

/// Entries of a directory, sorted, with the other content of the page.
pub(super) struct Listing {
    shown: String,
    /// Name, and whether it is a directory.
    entries: Vec<(OsString, bool)>,
    /// Whether there are more than [`MAX_ENTRIES`].
    more: bool,
}

impl Listing {
    /// Reads a directory. Entries that a request would not find are omitted: hidden names,
    /// links to the outside, pipes and devices.
    pub(super) fn read(root: &Root, dir: &Path, shown: String) -> io::Result<Self> {
        let mut entries = Vec::new();
        let mut more = false;
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            if path::is_hidden(&name) {
                continue;
            }
            let Ok(real) = root.resolve(&dir.join(&name)) else { continue };
            let Ok(metadata) = fs::metadata(real) else { continue };
            if !metadata.is_dir() && !metadata.is_file() {
                continue;
            }
            if entries.len() == MAX_ENTRIES {
                more = true;
                break;
            }
            entries.push((name, metadata.is_dir()));
        }
        entries.sort();
        Ok(Listing { shown, entries, more })
    }

    /// Returns the number of bytes that [`Listing::write`] writes.
    pub(super) fn length(&self) -> u64 {
        let mut counter = ByteCounter(0);
        // Reason: the counter accepts all bytes.
        let _ = self.write(&mut counter);
        counter.0
    }

    /// Writes the page.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let title = format!("Index of {}", self.shown);
        let page = pages::page(&title, ENTRIES_MARK);
        let (before, after) = page.split_once(ENTRIES_MARK).unwrap_or((&page, ""));
        out.write_all(before.as_bytes())?;
        writeln!(out, "<ul>")?;
        if self.shown != "/" {
            writeln!(out, "<li><a href=\"../\">../</a>")?;
        }
        for (name, is_dir) in &self.entries {
            writeln!(out, "{}", ListingEntry { name, slash: if *is_dir { "/" } else { "" } })?;
        }
        writeln!(out, "</ul>")?;
        if self.more {
            writeln!(out, "<p>{MAX_ENTRIES} entries are shown; the directory has more.</p>")?;
        }
        out.write_all(after.as_bytes())
    }
}

/// Place of the list in the page. No file name contains such a line, because names are escaped.
const ENTRIES_MARK: &str = "<!--entries-->";

struct ListingEntry<'a> {
    name: &'a OsStr,
    slash: &'static str,
}

impl fmt::Display for ListingEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ListingEntry { name, slash } = self;
        // The dot prevents that a name with a colon is read as a scheme.
        let target = percent_encoded(name.as_bytes());
        write!(f, "<li><a href=\"./{target}{slash}\">{}{slash}</a>", path::display(name))
    }
}

struct ByteCounter(u64);

impl Write for ByteCounter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
