//! Files of an update feed below the edge's own domain: which request is for one, and its file.
//! What the files contain is not checked here: agents verify the signature.

use std::fs::File;
use std::io;
use std::path::Path;

/// Path of the feed: `update_url` is this path below the edge's domain.
const PREFIX: &str = "/.well-known/culvert-update/";

/// Returns the part of a request's path that names a file, if the request is for the feed.
pub fn name<'a>(host: &str, domain: &str, path: &'a str) -> Option<&'a str> {
    let path = path.split('?').next().unwrap_or_default();
    path.strip_prefix(PREFIX).filter(|_| host.eq_ignore_ascii_case(domain))
}

/// Opens `CHANNEL/FILE` in the directory of the feed. Also returns its length. `None` if the
/// file is missing.
pub fn open(dir: &Path, name: &str) -> Option<(File, u64)> {
    let (channel, file) = name.split_once('/')?;
    if !is_plain(channel) || !is_plain(file) {
        return None;
    }
    let path = dir.join(channel).join(file);
    // The open of a FIFO would wait.
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    let file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    Some((file, length))
}

/// Returns whether a name cannot lead out of its directory.
fn is_plain(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)
}

/// Returns the head of the response.
pub fn head(length: u64, close: bool) -> String {
    let close = if close { "Connection: close\r\n" } else { "" };
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\
         Cache-Control: no-cache\r\n{close}\r\n"
    )
}

/// Copies exactly `length` bytes of a file. Fewer are an error, because the head promised them.
pub fn copy(
    file: &mut dyn io::Read,
    length: u64,
    write: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut left = length;
    let mut piece = vec![0; 64 * 1024];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        match file.read(&mut piece[..most])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                write(&piece[..n])?;
                left -= n as u64;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_a_channel_are_served() {
        let dir = std::env::temp_dir().join(format!("culvert-feed-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("stable/sub")).unwrap();
        std::fs::write(dir.join("stable/manifest"), "text").unwrap();
        std::fs::write(dir.join("stable/.hidden"), "text").unwrap();
        std::fs::write(dir.join("secret"), "text").unwrap();
        assert_eq!(open(&dir, "stable/manifest").map(|(_, length)| length), Some(4));
        for name in [
            "",
            "stable",
            "stable/",
            "secret",
            "/secret",
            "../secret",
            "stable/../secret",
            "stable/.hidden",
            "stable/sub",
            "stable/sub/x",
            "stable/manifest/",
            "stable/%6danifest",
            ".stable/manifest",
            "stable//manifest",
            "stable/manifest\0",
        ] {
            assert!(open(&dir, name).is_none(), "{name}");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_feed_is_at_the_domain_of_the_edge_only() {
        let path = "/.well-known/culvert-update/stable/manifest?x";
        assert_eq!(name("Edge.test", "edge.test", path), Some("stable/manifest"));
        assert_eq!(name("a.edge.test", "edge.test", path), None);
        assert_eq!(name("edge.test", "edge.test", "/stable/manifest"), None);
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error() {
        let mut out = Vec::new();
        let mut write = |bytes: &[u8]| {
            out.extend_from_slice(bytes);
            Ok(())
        };
        assert!(copy(&mut &b"abc"[..], 2, &mut write).is_ok());
        assert!(copy(&mut &b"abc"[..], 4, &mut write).is_err());
        assert_eq!(out, b"ababc");
    }
}
