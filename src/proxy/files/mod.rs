//! A directory as upstream (`file:///dir`): files, listings, ranges.
//!
//! Blocking code over `Read` and `Write`, so that a worker can serve a stream and a test a byte
//! slice. Nothing is read as a whole: a file passes through the caller's buffer, a listing
//! through a small writer. Only [`path`] decides which files a request may reach. Sockets and
//! tunnels do not belong here.

mod listing;
pub mod path;
mod range;

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::path::{PathError, Resource, Root};
use self::range::Range;
use super::pages;
use crate::http1::error::HttpError;
use crate::http1::framing::BodyFraming;
use crate::http1::head::{HeadReader, HttpRequest, MAX_AGENT_HEAD_BYTES};
use crate::http1::status;
use crate::sys;

/// Longest request body that is discarded to keep the connection.
const MAX_IGNORED_BODY_BYTES: u64 = 64 * 1024;

/// Bytes that are collected before small writes are sent.
const WRITE_BUFFER_BYTES: usize = 2048;

/// Serves requests one after another until the visitor sends no further one.
///
/// `buffer` is used for reads from `reader` and from files; 1 KiB is enough, more is faster.
/// Returns `Ok` if everything was answered and the stream may end in order. After `Err`,
/// perhaps in the middle of a response, the caller must reset the stream, because an orderly
/// end would make a truncated file look complete.
pub fn serve(
    root: &Root,
    reader: &mut dyn Read,
    writer: &mut dyn Write,
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut parser = HeadReader::new(MAX_AGENT_HEAD_BYTES);
    // Bytes of the next request that were read with the last one.
    let mut leftover = Vec::new();
    loop {
        parser.clear();
        let complete = match read_head(&mut parser, &mut leftover, reader, buffer) {
            Ok(complete) => complete,
            Err(error) => {
                let error = error?;
                return refuse(writer, None, &status_of(error), error.sentence());
            }
        };
        let Some(head) = parser.request().filter(|_| complete) else {
            return Ok(());
        };
        let length = match head.body() {
            Ok(BodyFraming::None) => 0,
            Ok(BodyFraming::Length(n))
                if n <= MAX_IGNORED_BODY_BYTES && !head.expects_continue() =>
            {
                n
            }
            Ok(_) => {
                let text = "request bodies are not accepted";
                return refuse(writer, Some(&head), "413 Content Too Large", text);
            }
            Err(error) => {
                return refuse(writer, Some(&head), &status_of(error), error.sentence());
            }
        };
        discard_body(length, &mut leftover, reader, buffer)?;
        if answer(root, &head, writer, buffer)? == AfterResponse::Close {
            return writer.flush();
        }
        writer.flush()?;
    }
}

/// Whether another request may follow on this connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AfterResponse {
    Keep,
    Close,
}

/// Reads a head. Returns false if the visitor ended between two requests. The outer error is
/// the visitor's, the inner one the connection's.
fn read_head(
    parser: &mut HeadReader,
    leftover: &mut Vec<u8>,
    reader: &mut dyn Read,
    buffer: &mut [u8],
) -> Result<bool, io::Result<HttpError>> {
    let mut bytes = std::mem::take(leftover);
    loop {
        match parser.feed(&bytes) {
            Ok(Some(used)) => {
                bytes.drain(..used);
                *leftover = bytes;
                return Ok(true);
            }
            Ok(None) => {}
            Err(error) => return Err(Ok(error)),
        }
        let n = read(reader, buffer).map_err(Err)?;
        if n == 0 {
            return match parser.started() {
                true => Err(Err(io::ErrorKind::UnexpectedEof.into())),
                false => Ok(false),
            };
        }
        bytes.clear();
        bytes.extend_from_slice(&buffer[..n]);
    }
}

/// Discards a request body.
fn discard_body(
    length: u64,
    leftover: &mut Vec<u8>,
    reader: &mut dyn Read,
    buffer: &mut [u8],
) -> io::Result<()> {
    let had = leftover.len().min(usize::try_from(length).unwrap_or(usize::MAX));
    leftover.drain(..had);
    let mut left = length - had as u64;
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let n = read(reader, &mut buffer[..most])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= n as u64;
    }
    Ok(())
}

/// Reads once. Signals do not interrupt it.
fn read(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn status_of(error: HttpError) -> String {
    format!("{} {}", error.status(), status::reason(error.status()))
}

/// Answers one request.
fn answer(
    root: &Root,
    head: &HttpRequest<'_>,
    writer: &mut dyn Write,
    buffer: &mut [u8],
) -> io::Result<AfterResponse> {
    if head.method() != "GET" && head.method() != "HEAD" {
        let text = "only GET and HEAD are allowed";
        respond(writer, head, "405 Method Not Allowed", "Allow: GET, HEAD\r\n", text)?;
        return Ok(after_response(head));
    }
    match root.find(head.target()) {
        Ok(Resource::File { file, length, modified, kind }) => {
            send_file(head, FileBody { file, length, modified, kind }, writer, buffer)
        }
        Ok(Resource::Directory { dir, shown }) => {
            let entries = match listing::Listing::read(root, &dir, shown) {
                Ok(entries) => entries,
                Err(e) if sys::fd_budget::is_exhausted(&e) => return exhausted(writer, head),
                Err(_) => return not_found(writer, head),
            };
            let length = entries.length();
            let mut out = BufWriter::with_capacity(WRITE_BUFFER_BYTES, writer);
            write_head(&mut out, head, "200 OK", "text/html; charset=utf-8", length, "")?;
            if head.method() == "GET" {
                entries.write(&mut out)?;
            }
            out.flush()?;
            Ok(after_response(head))
        }
        Ok(Resource::Redirect(to)) => {
            let field = format!("Location: {to}\r\n");
            respond(writer, head, "301 Moved Permanently", &field, "the directory is at that URL")?;
            Ok(after_response(head))
        }
        Err(PathError::Malformed) => {
            respond(writer, head, "400 Bad Request", "", "malformed path")?;
            Ok(after_response(head))
        }
        Err(PathError::NotFound) => not_found(writer, head),
        Err(PathError::Exhausted) => exhausted(writer, head),
    }
}

/// A file to be sent.
struct FileBody {
    file: File,
    length: u64,
    modified: Option<SystemTime>,
    kind: &'static str,
}

fn send_file(
    head: &HttpRequest<'_>,
    mut body: FileBody,
    writer: &mut dyn Write,
    buffer: &mut [u8],
) -> io::Result<AfterResponse> {
    let mut extra = String::from("Accept-Ranges: bytes\r\n");
    if let Some(modified) = body.modified.map(whole_seconds) {
        let date = httpdate::fmt_http_date(modified);
        extra.push_str("Last-Modified: ");
        extra.push_str(&date);
        extra.push_str("\r\n");
        let since = head.text("if-modified-since").and_then(|t| httpdate::parse_http_date(t).ok());
        if head.field("if-none-match").is_none() && since.is_some_and(|since| modified <= since) {
            let mut out = BufWriter::with_capacity(WRITE_BUFFER_BYTES, writer);
            write!(out, "HTTP/1.1 304 Not Modified\r\n{extra}{}\r\n", connection(head))?;
            out.flush()?;
            return Ok(after_response(head));
        }
    }
    let length = body.length;
    let (status, first, count) = match requested_range(head, &body) {
        Range::Whole => ("200 OK", 0, length),
        Range::Part { first, last } => {
            extra.push_str(&format!("Content-Range: bytes {first}-{last}/{length}\r\n"));
            ("206 Partial Content", first, last - first + 1)
        }
        Range::Outside => {
            let field = format!("Content-Range: bytes */{length}\r\n");
            respond(writer, head, "416 Range Not Satisfiable", &field, "no such range")?;
            return Ok(after_response(head));
        }
    };
    {
        let mut out = BufWriter::with_capacity(WRITE_BUFFER_BYTES, &mut *writer);
        write_head(&mut out, head, status, body.kind, count, &extra)?;
        out.flush()?;
    }
    if head.method() == "GET" && count > 0 {
        body.file.seek(SeekFrom::Start(first))?;
        copy_exactly(&mut body.file, count, writer, buffer)?;
    }
    Ok(after_response(head))
}

/// Returns the requested range. HEAD has no range, and neither has an `If-Range` that does not
/// match the current file.
fn requested_range(head: &HttpRequest<'_>, body: &FileBody) -> Range {
    let Some(asked) = head.text("range").filter(|_| head.method() == "GET") else {
        return Range::Whole;
    };
    if let Some(state) = head.field("if-range") {
        let same = std::str::from_utf8(state)
            .ok()
            .and_then(|t| httpdate::parse_http_date(t).ok())
            .is_some_and(|t| body.modified.map(whole_seconds) == Some(t));
        if !same {
            return Range::Whole;
        }
    }
    range::parse(asked, body.length)
}

fn copy_exactly(
    file: &mut File,
    count: u64,
    writer: &mut dyn Write,
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut left = count;
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let n = read(file, &mut buffer[..most])?;
        if n == 0 {
            let text = "the file became shorter while it was sent";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        writer.write_all(&buffer[..n])?;
        left -= n as u64;
    }
    Ok(())
}

fn not_found(writer: &mut dyn Write, head: &HttpRequest<'_>) -> io::Result<AfterResponse> {
    respond(writer, head, "404 Not Found", "", "the file does not exist")?;
    Ok(after_response(head))
}

fn exhausted(writer: &mut dyn Write, head: &HttpRequest<'_>) -> io::Result<AfterResponse> {
    let text = "too many files are open, try again in a moment";
    respond(writer, head, "503 Service Unavailable", "Retry-After: 1\r\n", text)?;
    Ok(after_response(head))
}

/// Sends a short text response.
fn respond(
    writer: &mut dyn Write,
    head: &HttpRequest<'_>,
    status: &str,
    extra: &str,
    text: &str,
) -> io::Result<()> {
    let html = head.accepts_html();
    let (kind, body) = match html {
        true => ("text/html; charset=utf-8", pages::page(status, &format!("<p>{text}</p>"))),
        false => ("text/plain; charset=utf-8", format!("{status}: {text}\n")),
    };
    let mut out = BufWriter::with_capacity(WRITE_BUFFER_BYTES, writer);
    write_head(&mut out, head, status, kind, body.len() as u64, extra)?;
    if head.method() != "HEAD" {
        out.write_all(body.as_bytes())?;
    }
    out.flush()
}

/// Sends a response and ends the connection, because the following bytes cannot be parsed.
fn refuse(
    writer: &mut dyn Write,
    head: Option<&HttpRequest<'_>>,
    status: &str,
    text: &str,
) -> io::Result<()> {
    let body = match head.is_some_and(|head| head.method() == "HEAD") {
        true => String::new(),
        false => format!("{status}: {text}\n"),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    writer.write_all(answer.as_bytes())?;
    writer.flush()
}

fn write_head(
    out: &mut dyn Write,
    head: &HttpRequest<'_>,
    status: &str,
    kind: &str,
    length: u64,
    extra: &str,
) -> io::Result<()> {
    write!(
        out,
        "HTTP/1.1 {status}\r\nDate: {}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         X-Content-Type-Options: nosniff\r\n{extra}{}\r\n",
        httpdate::fmt_http_date(whole_seconds(SystemTime::now())),
        connection(head),
    )
}

fn after_response(head: &HttpRequest<'_>) -> AfterResponse {
    if head.keep_alive() { AfterResponse::Keep } else { AfterResponse::Close }
}

fn connection(head: &HttpRequest<'_>) -> &'static str {
    match head.keep_alive() {
        true => "Connection: keep-alive\r\n",
        false => "Connection: close\r\n",
    }
}

/// The last second of the year 9999.
const LAST: u64 = 253_402_300_799;

/// Rounds a time to what HTTP can express: seconds from 1970 to 9999.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    UNIX_EPOCH + Duration::from_secs(since.as_secs().min(LAST))
}

#[cfg(test)]
mod tests;
