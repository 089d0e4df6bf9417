//! Requests and answers over a real directory, no socket.

use std::io::Cursor;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, process};

use super::*;

/// A directory that is removed after the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = env::temp_dir().join(format!("culvert-files-{}-{n}", process::id()));
        fs::create_dir_all(dir.join("root/sub/deep")).unwrap();
        fs::write(dir.join("secret.txt"), "secret").unwrap();
        fs::write(dir.join("root/hello.txt"), "0123456789").unwrap();
        fs::write(dir.join("root/empty"), "").unwrap();
        fs::write(dir.join("root/.env"), "TOKEN=secret").unwrap();
        fs::write(dir.join("root/sub/index.html"), "<h1>index</h1>").unwrap();
        fs::write(dir.join("root/a<b>&\"c'.html"), "odd").unwrap();
        symlink(dir.join("secret.txt"), dir.join("root/out")).unwrap();
        symlink(&dir, dir.join("root/up")).unwrap();
        symlink("hello.txt", dir.join("root/in.txt")).unwrap();
        symlink(".env", dir.join("root/env.txt")).unwrap();
        Dir(dir)
    }

    fn ask(&self, request: &str) -> Vec<Answer> {
        let (result, bytes) = self.ask_raw(request.as_bytes());
        result.unwrap();
        answers(&bytes)
    }

    fn ask_raw(&self, request: &[u8]) -> (io::Result<()>, Vec<u8>) {
        let root = Root::open(&self.0.join("root")).unwrap();
        let mut out = Vec::new();
        // A buffer smaller than a head, so that every split occurs.
        let result = serve(&root, &mut Cursor::new(request), &mut out, &mut [0; 7]);
        (result, out)
    }

    fn get(&self, target: &str, fields: &str) -> Answer {
        self.ask(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n")).remove(0)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Splits a sequence of GET responses by their lengths.
fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let length = head
            .lines()
            .find_map(|l| l.strip_prefix("Content-Length: "))
            .map_or(0, |n| n.parse().unwrap());
        let body = String::from_utf8(bytes[end..end + length].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        bytes = &bytes[end + length..];
        all.push(Answer { status, head, body });
    }
    all
}

#[test]
fn a_file_with_type_and_length() {
    let answer = Dir::new().get("/hello.txt?x=y", "");
    assert_eq!((answer.status, answer.body.as_str()), (200, "0123456789"));
    for field in ["Content-Type: text/plain", "Last-Modified: ", "Accept-Ranges: bytes", "Date: "] {
        assert!(answer.head.contains(field), "{}", answer.head);
    }
    assert_eq!(Dir::new().get("/empty", "").status, 200);
    assert_eq!(Dir::new().get("http://any.host/hello.txt", "").status, 200);
}

#[test]
fn listing_is_sorted_escaped_and_without_what_is_not_served() {
    let answer = Dir::new().get("/", "");
    assert!(answer.head.contains("text/html"));
    let names: Vec<&str> = answer
        .body
        .lines()
        .filter_map(|l| l.strip_prefix("<li><a href=\"./"))
        .filter_map(|l| l.split('"').next())
        .collect();
    assert_eq!(names, ["a%3Cb%3E%26%22c%27.html", "empty", "hello.txt", "in.txt", "sub/"]);
    assert!(answer.body.contains(">a&lt;b&gt;&amp;&quot;c&#39;.html</a>"));
    assert!(!answer.body.contains("../"));
    assert!(Dir::new().get("/sub/deep/", "").body.contains("href=\"../\""));
}

#[test]
fn directories_index_and_slash() {
    let dir = Dir::new();
    assert_eq!(dir.get("/sub/", "").body, "<h1>index</h1>");
    let moved = dir.get("/sub?a=b", "");
    assert_eq!(moved.status, 301);
    assert!(moved.head.contains("Location: /sub/?a=b\r\n"));
    // Must not lead to another host.
    assert!(dir.get("//sub/deep", "").head.contains("Location: /sub/deep/\r\n"));
    assert_eq!(dir.get("/hello.txt/", "").status, 404);
}

#[test]
fn nothing_leaves_the_directory() {
    let dir = Dir::new();
    for target in [
        "/../secret.txt",
        "/sub/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/%2E%2E%2Fsecret.txt",
        "/sub/..%2f..%2fsecret.txt",
        "/hello.txt%00.html",
        "/out",
        "/up/secret.txt",
        "/up/",
        "/.env",
        "/%2eenv",
        "/env.txt",
        "/%",
        "/%zz",
        "/..",
        "/..\\secret.txt",
        "secret.txt",
        "*",
    ] {
        let answer = dir.get(target, "");
        assert!([400, 404].contains(&answer.status), "{target}: {}", answer.head);
        assert!(!answer.body.contains("secret"), "{target}");
    }
    assert_eq!(dir.get("/in.txt", "").body, "0123456789");
}

#[test]
fn ranges() {
    let dir = Dir::new();
    for (range, status, body) in [
        ("bytes=2-4", 206, "234"),
        ("bytes=8-", 206, "89"),
        ("bytes=-2", 206, "89"),
        ("bytes=0-0,2-2", 200, "0123456789"),
        ("bytes=10-", 416, ""),
    ] {
        let answer = dir.get("/hello.txt", &format!("Range: {range}\r\n"));
        assert_eq!(answer.status, status, "{range}");
        if status != 416 {
            assert_eq!(answer.body, body, "{range}");
        } else {
            assert!(answer.head.contains("Content-Range: bytes */10\r\n"));
        }
    }
    let part = dir.get("/hello.txt", "Range: bytes=2-4\r\n");
    assert!(part.head.contains("Content-Range: bytes 2-4/10\r\n"));
    let date = part.head.lines().find_map(|l| l.strip_prefix("Last-Modified: ")).unwrap();
    let same = dir.get("/hello.txt", &format!("Range: bytes=2-4\r\nIf-Range: {date}\r\n"));
    assert_eq!(same.status, 206);
    let other = dir.get("/hello.txt", "Range: bytes=2-4\r\nIf-Range: \"etag\"\r\n");
    assert_eq!(other.status, 200);
}

#[test]
fn unchanged_is_not_sent_again() {
    let dir = Dir::new();
    let date = dir
        .get("/hello.txt", "")
        .head
        .lines()
        .find_map(|l| l.strip_prefix("Last-Modified: ").map(str::to_owned))
        .unwrap();
    let field = format!("If-Modified-Since: {date}\r\n");
    assert_eq!(dir.get("/hello.txt", &field).status, 304);
    let old = "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
    assert_eq!(dir.get("/hello.txt", old).status, 200);
    assert_eq!(dir.get("/hello.txt", "If-Modified-Since: rubbish\r\n").status, 200);
}

#[test]
fn many_requests_on_one_connection() {
    let dir = Dir::new();
    let answers = dir.ask(
        "GET /hello.txt HTTP/1.1\r\n\r\n\
         POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde\
         GET /none HTTP/1.1\r\n\r\n\
         GET /hello.txt HTTP/1.1\r\nConnection: close\r\n\r\n\
         GET /never HTTP/1.1\r\n\r\n",
    );
    let statuses: Vec<u16> = answers.iter().map(|a| a.status).collect();
    assert_eq!(statuses, [200, 405, 404, 200]);
    assert!(answers[1].head.contains("Allow: GET, HEAD"));
    assert!(answers[3].head.contains("Connection: close"));
}

#[test]
fn head_says_what_get_would() {
    for target in ["/hello.txt", "/", "/none", "/sub"] {
        let dir = Dir::new();
        let (result, bytes) = dir.ask_raw(format!("HEAD {target} HTTP/1.0\r\n\r\n").as_bytes());
        result.unwrap();
        let head = String::from_utf8(bytes).unwrap();
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        let get = dir.ask(&format!("GET {target} HTTP/1.0\r\n\r\n")).remove(0);
        let length = |h: &str| h.lines().find(|l| l.starts_with("Content-Len")).map(str::to_owned);
        assert_eq!(length(&head), length(&get.head));
        assert!(head.contains("Connection: close"));
    }
}

#[test]
fn what_is_not_understood_ends_the_connection() {
    let dir = Dir::new();
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(MAX_AGENT_HEAD_BYTES));
    for (request, status) in [
        ("GET /\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\n\r\n", 505),
        (long.as_str(), 431),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ("PUT /f HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 413),
        ("PUT /f HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n", 413),
    ] {
        let answers = dir.ask(request);
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].status, status);
        assert!(answers[0].head.contains("Connection: close"));
    }
    assert!(dir.ask("").is_empty());
    assert!(dir.ask_raw(b"GET / HT").0.is_err());
}

#[test]
fn a_missing_directory_is_named() {
    let error = Root::open(std::path::Path::new("/no/such/dir")).unwrap_err();
    assert!(error.to_string().contains("/no/such/dir"));
}

#[test]
fn times_that_http_has_no_date_for() {
    let date = |seconds: i64| {
        let far = Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds < 0 { UNIX_EPOCH - far } else { UNIX_EPOCH + far };
        httpdate::fmt_http_date(whole_seconds(time))
    };
    assert_eq!(date(-300_000_000), "Thu, 01 Jan 1970 00:00:00 GMT");
    assert_eq!(date(253_402_300_799), "Fri, 31 Dec 9999 23:59:59 GMT");
    assert_eq!(date(300_000_000_000), "Fri, 31 Dec 9999 23:59:59 GMT");
}
