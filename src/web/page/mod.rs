//! The web page: one compressed document and its content security policy. Only bytes are here.
//! `web` serves them, and the page requests everything else from the local API.
//!
//! `make page` assembles the sources beside this file (`index.html`, `style.css`, `bytes.js`,
//! `format.js`, `app.js`). The document contains its only script and its only style, so the
//! first display needs one request. The policy allows both by their hashes: other scripts in
//! captured data cannot run.

/// The document, `text/html; charset=utf-8`, as gzip, which every browser decodes.
pub const PAGE: &[u8] = include_bytes!("page.html.gz");

/// Value of the header `Content-Security-Policy` for [`PAGE`].
pub const CSP: &str = include_str!("page.csp");

mod inflate;

use std::sync::OnceLock;

/// Returns the document without its coding, for clients that do not decode gzip. It is decoded
/// at the first call, and stays.
pub fn unpacked() -> &'static [u8] {
    static DOCUMENT: OnceLock<Vec<u8>> = OnceLock::new();
    DOCUMENT.get_or_init(|| inflate::gunzip(PAGE).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use ring::digest::{SHA256, digest};

    use super::*;

    /// Returns the document after decompression.
    fn page() -> String {
        let mut gzip = Command::new("gzip")
            .arg("-dc")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("gzip");
        let mut stdin = gzip.stdin.take().expect("a pipe");
        let feeder = std::thread::spawn(move || stdin.write_all(PAGE));
        let output = gzip.wait_with_output().expect("gzip ends");
        feeder.join().expect("no panic").expect("gzip reads");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Returns the lines without what the assembly removes.
    fn slim(text: &str) -> Vec<&str> {
        let lines = text.lines().map(str::trim_start);
        lines.filter(|line| !line.is_empty() && !line.starts_with("//")).collect()
    }

    #[test]
    fn the_packed_page_is_what_its_sources_say() {
        let mut script = vec!["(() => {'use strict';"];
        script.extend(slim(include_str!("bytes.js")));
        script.extend(slim(include_str!("format.js")));
        script.extend(slim(include_str!("app.js")));
        script.push("})();");
        let html: Vec<&str> = include_str!("index.html").lines().map(str::trim_start).collect();
        let expected = html
            .join("\n")
            .replacen("/*STYLE*/", &slim(include_str!("style.css")).join("\n"), 1)
            .replacen("/*SCRIPT*/", &script.join("\n"), 1);
        assert!(page().trim_end() == expected.trim_end(), "page.html.gz is stale: run make page");
    }

    #[test]
    fn the_policy_names_the_one_script_and_the_one_style() {
        let page = page();
        for (tag, directive) in [("script", "script-src"), ("style", "style-src")] {
            let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
            assert_eq!(page.matches(&open).count(), 1);
            assert_eq!(page.matches(&close).count(), 1);
            let begin = page.find(&open).expect("opens") + open.len();
            let end = page.find(&close).expect("closes");
            let hash = base64(digest(&SHA256, &page.as_bytes()[begin..end]).as_ref());
            let source = format!("{directive} 'sha256-{hash}';");
            assert!(CSP.contains(&source), "no {source} in {CSP}: run make page");
        }
        assert!(!CSP.contains("unsafe") && CSP.starts_with("default-src 'none';"));
        assert!(!CSP.contains(['\r', '\n']));
    }

    #[test]
    fn the_page_asks_nobody_else_and_writes_no_markup() {
        let page = page();
        // The namespace of SVG is a name and not an address.
        let page = page.replace("xmlns='http://www.w3.org/2000/svg'", "");
        for word in [
            "src=",
            "@import",
            " url(",
            ":url(",
            "innerHTML",
            "insertAdjacentHTML",
            "document.write",
        ] {
            assert!(!page.contains(word), "{word}");
        }
        assert!(!page.contains("style=\"") && !page.contains("onclick=\""));
        assert_eq!(
            page.matches("<link").count(),
            page.matches("<link rel=\"icon\" href=\"data:").count()
        );
    }

    #[test]
    fn without_a_coding_it_is_the_same_document() {
        assert_eq!(str::from_utf8(unpacked()).expect("UTF-8"), page());
    }

    #[test]
    fn the_page_fits_small_machines() {
        assert!(PAGE.len() <= 25 * 1024, "{} bytes", PAGE.len());
    }

    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let mut n = 0u32;
            for at in 0..3 {
                n = n << 8 | u32::from(*chunk.get(at).unwrap_or(&0));
            }
            for at in 0..4 {
                let digit = DIGITS[(n >> (18 - 6 * at)) as usize & 63];
                text.push(if at > chunk.len() { '=' } else { char::from(digit) });
            }
        }
        text
    }
}
