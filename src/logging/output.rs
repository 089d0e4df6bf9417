//! Output of records and messages for the user: the log's destination, standard output,
//! standard error.
//!
//! A line is one write(2). Lines of several processes in one file do not mix, and on a pipe
//! with room the write does not block. A reader that does not read loses lines and blocks no
//! thread. The format of a line is in [`super::format`].

use std::env;
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};

use super::facade;
use super::format::{Format, Level, LogLine, message_line};
use crate::event;
use crate::features;
use crate::proto::codes::Refusal;
use crate::sys::console::{self, local_time};
use crate::sys::poll;
use crate::sys::sync::Mutex;
use crate::sys::terminal;

/// Time that a line waits for a reader that does not read. Only for the first line: the next
/// ones are dropped at once until one is written.
const RECORD_WRITE_TIMEOUT: Duration = Duration::from_millis(50);

/// Time that a result or an error message waits for its reader.
const MESSAGE_WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// Destination of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Disabled.
    Nowhere,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Standard error, for a user without a configured log: warnings and errors.
    Terminal,
    /// Appends to a file.
    File(PathBuf),
}

impl Destination {
    /// Returns the destination for a text of the user: `stdout`, `stderr`, `false` or a path.
    pub fn from_text(text: &str) -> Destination {
        match text {
            "" | "false" => Destination::Nowhere,
            "stdout" => Destination::Stdout,
            "stderr" => Destination::Stderr,
            path => Destination::File(PathBuf::from(path)),
        }
    }
}

/// Lowest level that is written; above [`Level::Crit`]: none.
static MIN_LEVEL: AtomicU8 = AtomicU8::new(LEVEL_OFF);
const LEVEL_OFF: u8 = Level::Crit as u8 + 1;

struct LogOutput {
    file: File,
    format: Format,
    colours: bool,
    destination: Destination,
    /// Number of lines dropped since the reader stopped reading, or since the disk is full.
    dropped: u32,
    /// Whether the last line was written in part.
    is_torn: bool,
}

/// Current destination; `None`: disabled. The lowest rank: no other lock is taken under it.
static LOG_OUTPUT: Mutex<Option<LogOutput>> = Mutex::new(None);

/// Starts to write records of level `least` and above to `destination`. The error names the
/// file that could not be opened.
pub fn start(destination: &Destination, format: Format, least: Level) -> Result<(), String> {
    let (file, terminal) = match destination {
        Destination::Nowhere => {
            set_min_level(None);
            *LOG_OUTPUT.lock() = None;
            return Ok(());
        }
        Destination::Stdout => (duplicate(io::stdout().as_fd()), io::stdout().is_terminal()),
        Destination::Stderr | Destination::Terminal => {
            (duplicate(io::stderr().as_fd()), io::stderr().is_terminal())
        }
        Destination::File(path) => (open(path), false),
    };
    let file = match (file, destination) {
        (Ok(file), _) => file,
        (Err(error), Destination::File(path)) => {
            return Err(format!("cannot open the log file {}: {error}", path.display()));
        }
        // A daemon without standard output: the log has no reader.
        (Err(_), _) => return Ok(()),
    };
    let format = if terminal || format == Format::Json { format } else { Format::Logfmt };
    *LOG_OUTPUT.lock() = Some(LogOutput {
        file,
        destination: destination.clone(),
        format,
        colours: terminal && wants_colours(),
        dropped: 0,
        is_torn: false,
    });
    set_min_level(Some(least));
    Ok(())
}

/// Sets the lowest level that is written; `None`: no record is written.
fn set_min_level(least: Option<Level>) {
    MIN_LEVEL.store(least.map_or(LEVEL_OFF, |least| least as u8), Ordering::Relaxed);
    if features::FETCH {
        // Fails if another logger is registered, which then receives the records.
        let _ = log::set_logger(&LOGGER);
        // The level up to which libraries make records.
        let level = |least| facade::facade_level(least).to_level_filter();
        log::set_max_level(least.map_or(LevelFilter::Off, level));
    }
}

/// Returns whether `is_meant` holds for the destination of the log; false without a log.
fn goes_to(is_meant: impl FnOnce(&Destination) -> bool) -> bool {
    LOG_OUTPUT.lock().as_ref().is_some_and(|output| is_meant(&output.destination))
}

/// Returns whether a screen may be shown: the user did not configure records on the terminal.
pub fn is_off_the_terminal() -> bool {
    !goes_to(|to| matches!(to, Destination::Stdout | Destination::Stderr))
}

/// Stops the default log on the terminal, because a screen is shown.
pub fn leave_the_terminal() {
    let mut output = LOG_OUTPUT.lock();
    if output.as_ref().is_some_and(|output| output.destination == Destination::Terminal) {
        set_min_level(None);
        *output = None;
    }
}

/// Opens the log's file again by its name: after the old one was moved away, new lines go to a
/// new file. An error is logged in the old file, which is kept.
pub fn reopen() {
    let destination = LOG_OUTPUT.lock().as_ref().map(|output| output.destination.clone());
    let Some(Destination::File(path)) = destination else { return };
    match open(&path) {
        Ok(file) => {
            if let Some(output) = LOG_OUTPUT.lock().as_mut() {
                output.file = file;
            }
        }
        Err(error) => {
            let path = path.display();
            event!(error, obj = "app", "cannot reopen log file", path = path, err = error);
            // The old file may be deleted and its lines lost.
            warn_on_stderr(&format!("cannot reopen log file {path}: {error}"));
        }
    }
}

/// Returns whether the user's terminal has colours and the user allows them (no-color.org).
fn wants_colours() -> bool {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

fn duplicate(fd: BorrowedFd<'_>) -> io::Result<File> {
    fd.try_clone_to_owned().map(File::from)
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Requests may contain private data: others than owner and group read nothing. The mode of an
    // existing file is its administrator's choice.
    options.append(true).create(true).mode(0o640);
    // Opening a FIFO for writing only would block until it has a reader.
    let is_fifo = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
    options.read(is_fifo).open(path)
}

/// Returns whether a record of this level would be written.
pub fn enabled(level: Level) -> bool {
    level as u8 >= MIN_LEVEL.load(Ordering::Relaxed)
}

/// Sends a record to the facade; used by [`event!`](crate::event). Without `fetch` libraries
/// make no records, and no logger is registered: 336 bytes less on mipsel.
pub fn write(level: Level, obj: &str, msg: &'static str, fields: &[(&str, &dyn Display)]) {
    let logger = if features::FETCH { log::logger() } else { &LOGGER };
    facade::send(logger, level, obj, msg, fields);
}

/// Writes the records of the facade `log`.
struct Logger;

static LOGGER: Logger = Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let level = facade::level_of(record);
        if enabled(level) {
            write_line(level, record);
        }
    }

    fn flush(&self) {}
}

fn write_line(level: Level, record: &Record<'_>) {
    let time = local_time();
    // Formatted outside the lock, with the format read first.
    let Some((format, colours)) = LOG_OUTPUT.lock().as_ref().map(|o| (o.format, o.colours)) else {
        return;
    };
    let line = facade::line_of(level, record, &time, format, colours);
    if let Some(output) = LOG_OUTPUT.lock().as_mut() {
        output.put(&line);
    }
}

impl LogOutput {
    fn put(&mut self, line: &str) {
        let timeout = if self.dropped == 0 { RECORD_WRITE_TIMEOUT } else { Duration::ZERO };
        if !poll::writable(&self.file, Some(timeout)).unwrap_or(false) {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        if self.dropped > 0 {
            let mut note = LogLine::new(self.format, self.colours);
            note.begin(Level::Warn, &local_time(), &"dropped log lines");
            note.field("obj", &"app");
            note.field("count", &self.dropped);
            if !self.write(&note.finish()) {
                self.dropped = self.dropped.saturating_add(1);
                return;
            }
            self.dropped = 0;
            // The reader may be stuck again.
            self.put(line);
            return;
        }
        if !self.write(line) {
            self.dropped = 1;
        }
    }

    /// Writes a line. Returns whether it was written as a whole. The first one that a file does
    /// not accept is reported on standard error.
    fn write(&mut self, line: &str) -> bool {
        // A line that was truncated by a full disk must not be joined with the next line.
        let joined;
        let whole = match self.is_torn {
            true => {
                joined = ["\n", line].concat();
                &joined
            }
            false => line,
        };
        let why = match console::write(self.file.as_fd(), whole.as_bytes()) {
            Ok(n) if n == whole.len() => {
                self.is_torn = false;
                return true;
            }
            Ok(n) => {
                self.is_torn |= n > 0;
                io::ErrorKind::StorageFull.into()
            }
            Err(e) => e,
        };
        if let (0, Destination::File(path)) = (self.dropped, &self.destination) {
            warn_on_stderr(&format!("cannot write to the log file {}: {why}", path.display()));
        }
        false
    }
}

/// Reports an error of the log itself on standard error, unless a screen is shown there.
fn warn_on_stderr(text: &str) {
    if !terminal::is_open() {
        write_message(io::stderr().as_fd(), "WARN:   ", text);
    }
}

/// Prints a result on standard output that is not a record: `URL -> UPSTREAM`. It is omitted
/// while records are written there, because they contain it and their reader expects nothing
/// else. It is also omitted while a screen is shown, which displays it. Control characters are
/// escaped. A closed or stuck output is ignored.
pub fn announce(text: &str) {
    if terminal::is_open() {
        return;
    }
    let rank = LOG_OUTPUT.lock();
    if rank.as_ref().is_some_and(|output| output.destination == Destination::Stdout) {
        return;
    }
    write_message(io::stdout().as_fd(), "", text);
}

/// Prints a line for the user on standard error.
pub fn notice(text: &str) {
    write_message(io::stderr().as_fd(), "", text);
}

/// Prints the result of a command on standard output without changes: lines with their ends. A
/// reader that has closed the pipe has read enough. The error is for the user.
pub fn print(text: &str) -> Result<(), String> {
    match write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("standard output cannot be written: {error}"))
        }
        _ => Ok(()),
    }
}

fn write_all(mut rest: &[u8]) -> io::Result<()> {
    let stdout = io::stdout();
    while !rest.is_empty() {
        match console::write(stdout.as_fd(), rest) {
            Ok(n) => rest = rest.get(n..).unwrap_or_default(),
            // Another program that shares it has made it non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ = poll::writable(&stdout, None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the edge is another one than ngrok's service, whose error pages do not apply then.
static OTHER_EDGE: AtomicBool = AtomicBool::new(false);

/// Refers to our own documents for error codes from now on.
pub fn use_own_error_pages() {
    OTHER_EDGE.store(true, Ordering::Relaxed);
}

/// Reports the error that ends the program: the message on standard error, each line after
/// `ERROR:  `, with its code and the page about that code; and a record if a log is configured.
pub fn fatal(refusal: &Refusal) {
    terminal::give_back();
    if !goes_to(|to| *to == Destination::Terminal) {
        event!(error, obj = "app", "terminating with error", err = refusal);
        event!(crit, obj = "app", "command failed", err = refusal);
    }
    let message = if refusal.message.is_empty() { "refused" } else { &refusal.message };
    let _rank = LOG_OUTPUT.lock();
    let stderr = io::stderr();
    for line in message.lines() {
        write_message(stderr.as_fd(), "ERROR:  ", line);
    }
    if let Some(code) = refusal.code {
        write_message(stderr.as_fd(), "ERROR:  ", "");
        write_message(stderr.as_fd(), "ERROR:  ", &format!("ERR_NGROK_{code}"));
        // Only the service of ngrok has such a page.
        let page = match OTHER_EDGE.load(Ordering::Relaxed) {
            true => "docs/reference/errors.md".to_owned(),
            false => format!("https://ngrok.com/docs/errors/err_ngrok_{code}"),
        };
        write_message(stderr.as_fd(), "ERROR:  ", &page);
    }
}

fn write_message(fd: BorrowedFd<'_>, prefix: &str, text: &str) {
    if poll::writable(&fd, Some(MESSAGE_WRITE_TIMEOUT)).unwrap_or(false) {
        // An unread message cannot be handled further.
        let _ = console::write(fd, message_line(prefix, text).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::MAX_LINE;
    use super::*;

    #[test]
    fn a_reader_that_stands_still_costs_lines_only() {
        use std::io::Read;
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        let mut output = LogOutput {
            file,
            format: Format::Logfmt,
            colours: false,
            destination: Destination::Nowhere,
            dropped: 0,
            is_torn: false,
        };
        let line = format!("{}\n", "x".repeat(MAX_LINE - 1));
        while output.dropped < 3 {
            output.put(&line);
        }
        let mut piece = vec![0; 16 * MAX_LINE];
        let n = reader.read(&mut piece).expect("bytes");
        assert!(n > 0);
        output.put("next\n");
        drop(output);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("text");
        assert!(rest.contains("dropped log lines") && rest.contains("count=3"), "{rest}");
        assert!(rest.ends_with("next\n"));
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_again() {
        let dir = env::temp_dir().join(format!("culvert-log-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let (file, moved) = (dir.join("log"), dir.join("log.1"));
        start(&Destination::File(file.clone()), Format::Term, Level::Info).expect("a log");
        event!(info, obj = "test-of-log", "before");
        std::fs::rename(&file, &moved).expect("moved");
        event!(info, obj = "test-of-log", "between");
        reopen();
        event!(info, obj = "test-of-log", "after");
        let said = |path: &Path| {
            let text = std::fs::read_to_string(path).expect("text");
            let mine = text.lines().filter(|line| line.contains("test-of-log"));
            mine.map(|l| l[..l.find(" obj").unwrap()].split("msg=").last().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (said(&moved), said(&file)),
            (vec!["before".into(), "between".into()], vec!["after".into()])
        );
        // A file that cannot be opened again leaves the old one open.
        std::fs::remove_dir_all(&dir).ok();
        std::fs::create_dir_all(&dir).expect("a directory");
        std::fs::create_dir(&file).expect("a directory in its place");
        reopen();
        event!(info, obj = "test-of-log", "still here");
        start(&Destination::Nowhere, Format::Term, Level::Info).expect("no log");
        assert!(file.is_dir());
        std::fs::remove_dir_all(&dir).ok();
    }
}
