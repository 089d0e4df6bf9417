//! Maps a request target to a file below the root, and to nothing else.
//!
//! Three rules. `..`, NUL and separators are refused after decoding. Names that begin with a
//! dot (`.git`, `.env`, `.ssh`) are not served, except RFC 8615's `.well-known`. The target of
//! a symbolic link must be below the root too. The last rule is checked on the resolved path. A
//! process that may write into the directory could replace a name after the check, but it could
//! also copy the file there.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::http1::{head, text};
use crate::sys;

/// Names that are tried before a directory is listed.
const INDEX_NAMES: [&str; 2] = ["index.html", "index.htm"];

/// A directory that may be served.
#[derive(Clone, Debug)]
pub struct Root {
    dir: PathBuf,
}

/// Resource that a target names.
#[derive(Debug)]
pub enum Resource {
    /// An open regular file.
    File {
        /// At its first byte.
        file: File,
        /// Its length when it was opened.
        length: u64,
        /// Its time of modification, if the file system has one.
        modified: Option<SystemTime>,
        /// Value for `Content-Type`.
        kind: &'static str,
    },
    /// A directory without index page.
    Directory {
        /// Path of the directory.
        dir: PathBuf,
        /// Its path for display, decoded, with slashes at both ends.
        shown: String,
    },
    /// A directory that was named without its final slash. The absolute path with the slash,
    /// encoded.
    Redirect(String),
}

/// Reason why nothing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// The target is not a path, or badly encoded.
    Malformed,
    /// Missing, hidden, not readable, or outside of the root. Visitors cannot distinguish
    /// these.
    NotFound,
    /// Descriptors are exhausted.
    Exhausted,
}

impl Root {
    /// Opens a directory for serving. An error names it.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let named = |e: io::Error| {
            io::Error::new(e.kind(), format!("cannot serve the directory {}: {e}", dir.display()))
        };
        let dir = fs::canonicalize(dir).map_err(named)?;
        // The path `.` tests that it is a directory. Listing it is not an alternative: the
        // library panics if closing fails then.
        File::open(dir.join(".")).map_err(named)?;
        Ok(Root { dir })
    }

    /// Finds the resource that a request target names.
    pub fn find(&self, target: &str) -> Result<Resource, PathError> {
        let (path, query) = split(target).ok_or(PathError::Malformed)?;
        let names = decode(path)?;
        if names.iter().any(|name| is_hidden(OsStr::from_bytes(name))) {
            return Err(PathError::NotFound);
        }
        let wanted: PathBuf =
            self.dir.join(names.iter().map(|n| OsStr::from_bytes(n)).collect::<PathBuf>());
        let real = self.resolve(&wanted)?;
        let metadata = fs::metadata(&real).map_err(|_| PathError::NotFound)?;
        if metadata.is_dir() {
            if !path.ends_with('/') {
                return Ok(Resource::Redirect(redirect(&names, query)));
            }
            for index in INDEX_NAMES {
                match self.resolve(&real.join(index)).and_then(|p| open(&p)) {
                    Err(PathError::NotFound | PathError::Malformed) => {}
                    found => return found,
                }
            }
            return Ok(Resource::Directory { dir: real, shown: shown(&names) });
        }
        if path.ends_with('/') {
            return Err(PathError::NotFound);
        }
        open(&real)
    }

    /// Returns the resolved path, if it is below the root and no part of it is hidden.
    pub(super) fn resolve(&self, path: &Path) -> Result<PathBuf, PathError> {
        let real = fs::canonicalize(path).map_err(|_| PathError::NotFound)?;
        let below = real.strip_prefix(&self.dir).map_err(|_| PathError::NotFound)?;
        if below.iter().any(is_hidden) {
            return Err(PathError::NotFound);
        }
        Ok(real)
    }
}

/// Returns whether a name is hidden from visitors.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".") && name != ".well-known"
}

/// Opens a regular file. Pipes and devices could block or never end.
fn open(path: &Path) -> Result<Resource, PathError> {
    let regular = |metadata: &fs::Metadata| metadata.is_file();
    fs::metadata(path).ok().filter(regular).ok_or(PathError::NotFound)?;
    // Without a lock: the file may be on another machine.
    let opened = File::open(path).and_then(|file| sys::fd_budget::check(&file).map(|()| file));
    let file = opened.map_err(|e| match sys::fd_budget::is_exhausted(&e) {
        true => PathError::Exhausted,
        false => PathError::NotFound,
    })?;
    let metadata = file.metadata().ok().filter(regular).ok_or(PathError::NotFound)?;
    let (length, modified) = (metadata.len(), metadata.modified().ok());
    Ok(Resource::File { file, length, modified, kind: content_type(path) })
}

/// Returns path and query of a target, which may be a complete URL.
fn split(target: &str) -> Option<(&str, Option<&str>)> {
    let target = head::split_url(target).map_or(target, |(_, path)| path);
    if !target.starts_with('/') {
        return None;
    }
    let target = target.split('#').next().unwrap_or(target);
    Some(match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    })
}

/// Returns the names of a path. Each is percent-decoded separately, so that an encoded slash
/// cannot make a new name. Empty names and `.` are omitted.
fn decode(path: &str) -> Result<Vec<Vec<u8>>, PathError> {
    let mut names = Vec::new();
    for part in path.split('/') {
        let mut name = Vec::with_capacity(part.len());
        let mut bytes = part.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'%' {
                name.push(byte);
                continue;
            }
            let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
            let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
                return Err(PathError::Malformed);
            };
            name.push((high * 16 + low) as u8);
        }
        if name.contains(&0) || name.contains(&b'/') || name == b".." {
            return Err(PathError::Malformed);
        }
        if !name.is_empty() && name != b"." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Returns the URL of a directory with its slash. It is built from the decoded names: a path
/// like `//host` must not become a redirect to another host.
fn redirect(names: &[Vec<u8>], query: Option<&str>) -> String {
    let mut to = String::from("/");
    for name in names {
        to.push_str(&text::percent_encoded(name));
        to.push('/');
    }
    if let Some(query) = query {
        to.push('?');
        to.push_str(query);
    }
    to
}

fn shown(names: &[Vec<u8>]) -> String {
    names.iter().fold(String::from("/"), |shown, name| shown + &String::from_utf8_lossy(name) + "/")
}

/// Returns a name for display: lossy, escaped for HTML.
pub(super) fn display(name: &OsStr) -> String {
    text::escape(&name.to_string_lossy())
}

/// Returns the content type by extension. Unknown files are downloads, never content that a
/// browser runs.
fn content_type(path: &Path) -> &'static str {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or("").to_ascii_lowercase();
    match extension.as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "txt" | "md" | "log" | "conf" | "ini" | "toml" | "yml" | "yaml" | "rs" | "c" | "h"
        | "py" | "sh" => "text/plain; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "json" | "map" => "application/json",
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "mp3" => "audio/mpeg",
        "ogg" | "oga" => "audio/ogg",
        "wav" => "audio/wav",
        "flac" => "audio/flac",
        "mp4" | "m4v" => "video/mp4",
        "webm" => "video/webm",
        "mkv" => "video/x-matroska",
        "pdf" => "application/pdf",
        "wasm" => "application/wasm",
        "zip" => "application/zip",
        "gz" | "tgz" => "application/gzip",
        "xz" => "application/x-xz",
        "zst" => "application/zstd",
        "tar" => "application/x-tar",
        _ => "application/octet-stream",
    }
}
