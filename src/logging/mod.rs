//! Log lines: one record a line, with ngrok's field names, written by [`event!`](crate::event).
//!
//! ```
//! # let (peer, url) = ("127.0.0.1:1", "http://a.localhost");
//! culvert::event!(info, obj = "tunnels.session", "client session established");
//! culvert::event!(warn, obj = "join", "visitor gone", l = peer, url = url);
//! ```
//!
//! A log of our own, not the `log` facade with a printer: the facade has no level
//! above error, the small printers know none of these formats, and no library
//! that we link logs anything. It costs a third of `simplelog`.
//!
//! A line is one write(2) of at most [`MAX_LINE`] bytes: lines of several
//! processes in one file do not mix, and on a pipe that takes it the write does
//! not block. A reader that stands still costs lines, never a thread.
//! What came from a peer may be put into a field as it is: control characters are
//! escaped. Secrets may not.

pub mod outage;
pub mod rate_limit;

use std::env;
use std::fmt::{self, Display, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::proto::codes::Refusal;
use crate::sys::console::{self, LocalTime, local_time};
use crate::sys::poll;
use crate::sys::sync::{Mutex, MutexGuard};

/// Longest line with its end, in bytes: `PIPE_BUF`, what a pipe takes whole.
pub const MAX_LINE: usize = 4096;

/// Kept free for what ends a cut line: the mark, a quote, a brace, the line end.
const RESERVE: usize = 16;

/// What stands at the end of a cut value.
const CUT: &str = "...";

/// How long a line waits for a reader that stands still. Only the first one:
/// the next are dropped at once until a line gets through.
const PATIENCE: Duration = Duration::from_millis(50);

/// How long a result or a last word waits for its reader.
const PLAIN_PATIENCE: Duration = Duration::from_secs(2);

/// Severity, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For those who look for a fault.
    Debug,
    /// What happens in order.
    Info,
    /// What somebody should know.
    Warn,
    /// What went wrong.
    Error,
    /// What ends the program.
    Crit,
}

impl Level {
    /// The level of a name as options spell it.
    pub fn from_name(name: &str) -> Option<Level> {
        Some(match name {
            "debug" => Level::Debug,
            "info" => Level::Info,
            "warn" => Level::Warn,
            "error" => Level::Error,
            "crit" => Level::Crit,
            _ => return None,
        })
    }

    /// Four letters, as they stand in records.
    fn tag(self) -> &'static str {
        match self {
            Level::Debug => "dbug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "eror",
            Level::Crit => "crit",
        }
    }

    /// The number of its colour on a terminal.
    fn colour(self) -> u8 {
        match self {
            Level::Debug => 36,
            Level::Info => 32,
            Level::Warn => 33,
            Level::Error => 31,
            Level::Crit => 35,
        }
    }
}

/// How a record looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people at a terminal, in colours; elsewhere as [`Format::Logfmt`].
    Term,
    /// `key=value`.
    Logfmt,
    /// One object a line, all values text.
    Json,
}

impl Format {
    /// The format of a name as options spell it.
    pub fn from_name(name: &str) -> Option<Format> {
        Some(match name {
            "term" => Format::Term,
            "logfmt" => Format::Logfmt,
            "json" => Format::Json,
            _ => return None,
        })
    }
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere.
    Nowhere,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Standard error, for a person who asked for no log: what goes wrong.
    Terminal,
    /// The end of a file.
    File(PathBuf),
}

impl Destination {
    /// The meaning of what a user wrote: `stdout`, `stderr`, `false` or a path.
    pub fn from_text(text: &str) -> Destination {
        match text {
            "" | "false" => Destination::Nowhere,
            "stdout" => Destination::Stdout,
            "stderr" => Destination::Stderr,
            path => Destination::File(PathBuf::from(path)),
        }
    }
}

/// Writes a record: level, component, message, then named fields that print
/// themselves. The fields are not evaluated when nobody wants the record.
#[macro_export]
macro_rules! event {
    ($level:ident, obj = $obj:expr, $msg:expr $(, $key:ident = $value:expr)* $(,)?) => {{
        let level = $crate::event!(@ $level);
        if $crate::logging::enabled(level) {
            $crate::logging::write(level, $obj, &$msg, &[$((stringify!($key), &$value)),*]);
        }
    }};
    (@ debug) => { $crate::logging::Level::Debug };
    (@ info) => { $crate::logging::Level::Info };
    (@ warn) => { $crate::logging::Level::Warn };
    (@ error) => { $crate::logging::Level::Error };
    (@ crit) => { $crate::logging::Level::Crit };
}

/// The least level that is written; above [`Level::Crit`] nothing is.
static LEAST: AtomicU8 = AtomicU8::new(NOTHING);
const NOTHING: u8 = Level::Crit as u8 + 1;

/// Guards the output. The lowest rank: no other lock is taken under it.
static OUTPUT: Mutex<Option<Output>> = Mutex::new(None);

/// Which of the standard outputs the log was asked to go to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standard {
    Output,
    Error,
    Neither,
}

struct Output {
    file: File,
    format: Format,
    colours: bool,
    /// The file's name, to open it again.
    path: Option<PathBuf>,
    /// Whether it is for a person who asked for no log.
    unasked: bool,
    /// Standard output, standard error or something else, as asked for.
    target: Standard,
    /// Lines lost since the reader stands still, or the disk is full.
    lost: u32,
    /// A line was written in part.
    torn: bool,
}

/// Begins to write records of `least` and above to `target`. The error says which
/// file could not be opened.
pub fn start(target: &Destination, format: Format, least: Level) -> Result<(), String> {
    let (file, terminal) = match target {
        Destination::Nowhere => {
            LEAST.store(NOTHING, Ordering::Relaxed);
            *output() = None;
            return Ok(());
        }
        Destination::Stdout => (duplicate(io::stdout().as_fd()), io::stdout().is_terminal()),
        Destination::Stderr | Destination::Terminal => {
            (duplicate(io::stderr().as_fd()), io::stderr().is_terminal())
        }
        Destination::File(path) => (open(path), false),
    };
    let file = match (file, target) {
        (Ok(file), _) => file,
        (Err(error), Destination::File(path)) => {
            return Err(format!("cannot open the log file {}: {error}", path.display()));
        }
        // A daemon without standard output: there is nobody to read.
        (Err(_), _) => return Ok(()),
    };
    let format = if terminal || format == Format::Json { format } else { Format::Logfmt };
    *output() = Some(Output {
        file,
        path: match target {
            Destination::File(path) => Some(path.clone()),
            _ => None,
        },
        unasked: *target == Destination::Terminal,
        target: match target {
            Destination::Stdout => Standard::Output,
            Destination::Stderr => Standard::Error,
            _ => Standard::Neither,
        },
        format,
        colours: terminal && colourful(),
        lost: 0,
        torn: false,
    });
    LEAST.store(least as u8, Ordering::Relaxed);
    Ok(())
}

/// Whether a screen may be shown: nobody asked for records on the terminal.
#[cfg(feature = "console")]
pub fn is_off_the_terminal() -> bool {
    output().as_ref().is_none_or(|output| output.target == Standard::Neither)
}

/// A screen is shown from now on: what nobody asked for is not written any more.
#[cfg(feature = "console")]
pub fn leave_the_terminal() {
    let mut output = output();
    if output.as_ref().is_some_and(|output| output.unasked) {
        LEAST.store(NOTHING, Ordering::Relaxed);
        *output = None;
    }
}

/// Opens the log's file again, by its name: after somebody moved it away, new lines go to
/// a new file. A file that cannot be opened is said in the old one, which is kept.
pub fn reopen() {
    let path = output().as_ref().and_then(|output| output.path.clone());
    let Some(path) = path else { return };
    match open(&path) {
        Ok(file) => {
            if let Some(output) = output().as_mut() {
                output.file = file;
            }
        }
        Err(error) => {
            let path = path.display();
            let msg = "cannot open the log file again";
            event!(error, obj = "app", msg, path = path, err = error);
            // The old one may be deleted: what is said there nobody reads.
            complain(&format!("{msg}: {path}: {error}"));
        }
    }
}

/// Whether the user's terminal has colours, and wants them (no-color.org).
fn colourful() -> bool {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

fn duplicate(fd: BorrowedFd<'_>) -> io::Result<File> {
    fd.try_clone_to_owned().map(File::from)
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    // A FIFO opened for writing alone would wait for its reader, with everything else.
    let is_fifo = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
    options.read(is_fifo).open(path)
}

fn output() -> MutexGuard<'static, Option<Output>> {
    OUTPUT.lock()
}

/// Whether a record of this level would be written.
pub fn enabled(level: Level) -> bool {
    level as u8 >= LEAST.load(Ordering::Relaxed)
}

/// Writes a record; use [`event!`](crate::event).
pub fn write(level: Level, obj: &str, msg: &dyn Display, fields: &[(&str, &dyn Display)]) {
    let time = local_time();
    // Formatted outside the lock, with the format read first.
    let Some((format, colours)) = output().as_ref().map(|o| (o.format, o.colours)) else { return };
    let mut line = Line::new(format, colours);
    line.begin(level, &time, msg);
    line.field("obj", &obj);
    for (key, value) in fields {
        line.field(key, *value);
    }
    let line = line.finish();
    if let Some(output) = output().as_mut() {
        output.put(&line);
    }
}

impl Output {
    fn put(&mut self, line: &str) {
        let patience = if self.lost == 0 { PATIENCE } else { Duration::ZERO };
        if !poll::writable(&self.file, Some(patience)).unwrap_or(false) {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        if self.lost > 0 {
            let mut note = Line::new(self.format, self.colours);
            note.begin(Level::Warn, &local_time(), &"log lines lost, nobody took them");
            note.field("obj", &"app");
            note.field("l", &self.lost);
            if !self.write(&note.finish()) {
                self.lost = self.lost.saturating_add(1);
                return;
            }
            self.lost = 0;
            // Its reader may stand still again.
            self.put(line);
            return;
        }
        if !self.write(line) {
            self.lost = 1;
        }
    }

    /// Whether it was written whole. The first one that a file did not take is told on
    /// standard error.
    fn write(&mut self, line: &str) -> bool {
        // What was cut off, on a disk that was full, does not begin the next line.
        let joined;
        let whole = match self.torn {
            true => {
                joined = ["\n", line].concat();
                &joined
            }
            false => line,
        };
        let why = match console::write(self.file.as_fd(), whole.as_bytes()) {
            Ok(n) if n == whole.len() => {
                self.torn = false;
                return true;
            }
            Ok(n) => {
                self.torn |= n > 0;
                io::ErrorKind::StorageFull.into()
            }
            Err(e) => e,
        };
        if let (0, Some(path)) = (self.lost, &self.path) {
            complain(&format!("cannot write to the log file {}: {why}", path.display()));
        }
        false
    }
}

/// What the log itself cannot say: on standard error, unless a screen is shown there.
fn complain(text: &str) {
    #[cfg(feature = "console")]
    if crate::sys::terminal::is_open() {
        return;
    }
    plain(io::stderr().as_fd(), "WARN:   ", text);
}

/// A record on its way to be a line.
struct Line {
    text: String,
    format: Format,
    colours: bool,
    cut: bool,
}

impl Line {
    fn new(format: Format, colours: bool) -> Self {
        Line { text: String::with_capacity(256), format, colours, cut: false }
    }

    fn begin(&mut self, level: Level, t: &LocalTime, msg: &dyn Display) {
        let tag = level.tag();
        if self.format == Format::Term {
            let tag = tag.to_uppercase();
            let _ = if self.colours {
                write!(self.text, "\x1b[{}m{tag}\x1b[0m", level.colour())
            } else {
                self.text.write_str(&tag)
            };
            let _ = write!(
                self.text,
                "[{:02}-{:02}|{:02}:{:02}:{:02}] ",
                t.month, t.day, t.hour, t.minute, t.second
            );
            self.escaped(&Bounded::of(msg), false);
            return;
        }
        let sign = if t.offset < 0 { '-' } else { '+' };
        let offset = t.offset.abs();
        let date = format_args!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{sign}{:02}{:02}",
            t.year,
            t.month,
            t.day,
            t.hour,
            t.minute,
            t.second,
            offset / 60,
            offset % 60
        )
        .to_string();
        self.field("t", &date);
        self.field("lvl", &tag);
        self.field("msg", msg);
    }

    fn field(&mut self, key: &str, value: &dyn Display) {
        if self.cut || self.text.len() + key.len() + RESERVE > MAX_LINE {
            return;
        }
        let value = Bounded::of(value);
        let json = self.format == Format::Json;
        let quoted = json || value.is_empty() || value.contains(|c| needs_quotes(c) || hidden(c));
        self.text.push_str(match (json, self.text.is_empty()) {
            (true, true) => "{\"",
            (true, false) => ",\"",
            (false, true) => "",
            (false, false) => " ",
        });
        self.text.push_str(key);
        self.text.push_str(if json { "\":" } else { "=" });
        if quoted {
            self.text.push('"');
        }
        self.escaped(&value, quoted);
        if quoted {
            self.text.push('"');
        }
    }

    /// Appends `value`, cut where the line is full.
    fn escaped(&mut self, value: &str, quoted: bool) {
        for c in value.chars() {
            if self.text.len() + RESERVE > MAX_LINE {
                self.text.push_str(CUT);
                self.cut = true;
                return;
            }
            match c {
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '"' | '\\' if quoted => self.text.extend(['\\', c]),
                // All of these are below U+FFFF: four digits hold them, in JSON too.
                c if hidden(c) => _ = write!(self.text, "\\u{:04x}", u32::from(c)),
                c => self.text.push(c),
            }
        }
    }

    fn finish(mut self) -> String {
        if self.format == Format::Json {
            self.text.push('}');
        }
        self.text.push('\n');
        self.text
    }
}

/// What would move a terminal's cursor or turn its text around.
fn hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn needs_quotes(c: char) -> bool {
    matches!(c, ' ' | '"' | '=' | '\\')
}

/// Text of at most a line's length, of a value that may print for ever.
struct Bounded(String);

impl Bounded {
    fn of(value: &dyn Display) -> String {
        let mut text = Bounded(String::new());
        // Fails when it is full: what is there is what is wanted.
        let _ = write!(text, "{value}");
        text.0
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let room = MAX_LINE - self.0.len();
        if piece.len() <= room {
            self.0.push_str(piece);
            return Ok(());
        }
        let fits = piece.char_indices().map(|(at, _)| at).take_while(|at| *at <= room).last();
        self.0.push_str(&piece[..fits.unwrap_or(0)]);
        Err(fmt::Error)
    }
}

/// A line on standard output that is a result, not a record: `URL -> UPSTREAM`. Not said
/// while records go there: a reader of those wants nothing else, and there is one that
/// says the same; nor while a screen is shown, which shows it. Control characters are
/// escaped; a closed or stuck output is no error.
pub fn announce(text: &str) {
    #[cfg(feature = "console")]
    if crate::sys::terminal::is_open() {
        return;
    }
    let rank = output();
    if rank.as_ref().is_some_and(|output| output.target == Standard::Output) {
        return;
    }
    plain(io::stdout().as_fd(), "", text);
}

/// The result of a command on standard output, as it is: lines with their ends. A reader
/// who is gone has read enough. The error is for the user.
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
            // Another program that has it, too, made it not block.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ = poll::writable(&stdout, None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A line with its end for [`print()`], of what may have anything in it: control
/// characters are escaped.
pub fn line(said: &dyn Display) -> String {
    let mut line = Line::new(Format::Term, false);
    line.escaped(&Bounded::of(said), false);
    line.finish()
}

/// The end of the program by an error: the message on standard error, each line
/// after `ERROR:  `, with its code and the page about that code; and a record,
/// if somebody asked for a log.
pub fn fatal(refusal: &Refusal) {
    #[cfg(feature = "console")]
    crate::sys::terminal::give_back();
    if !output().as_ref().is_some_and(|o| o.unasked) {
        event!(error, obj = "app", "terminating with error", err = refusal);
        event!(crit, obj = "app", "command failed", err = refusal);
    }
    let message = if refusal.message.is_empty() { "refused" } else { &refusal.message };
    let _rank = output();
    let stderr = io::stderr();
    for line in message.lines() {
        plain(stderr.as_fd(), "ERROR:  ", line);
    }
    if let Some(code) = refusal.code {
        plain(stderr.as_fd(), "ERROR:  ", "");
        plain(stderr.as_fd(), "ERROR:  ", &format!("ERR_NGROK_{code}"));
        let page = format!("https://ngrok.com/docs/errors/err_ngrok_{code}");
        plain(stderr.as_fd(), "ERROR:  ", &page);
    }
}

fn plain(fd: BorrowedFd<'_>, before: &str, text: &str) {
    let mut line = Line::new(Format::Term, false);
    line.text.push_str(before);
    line.escaped(text, false);
    if !poll::writable(&fd, Some(PLAIN_PATIENCE)).unwrap_or(false) {
        return;
    }
    // Nothing can be done about words that nobody takes.
    let _ = console::write(fd, line.finish().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: LocalTime =
        LocalTime { year: 2026, month: 1, day: 2, hour: 15, minute: 4, second: 5, offset: -90 };

    fn record(format: Format, colours: bool, msg: &str, fields: &[(&str, &str)]) -> String {
        let mut line = Line::new(format, colours);
        line.begin(Level::Error, &TIME, &msg);
        for (key, value) in fields {
            line.field(key, value);
        }
        line.finish()
    }

    #[test]
    fn the_three_formats() {
        let fields = [("obj", "tunnels"), ("err", "a \"b\"=\\c"), ("id", "")];
        assert_eq!(
            record(Format::Logfmt, false, "session closed", &fields),
            "t=2026-01-02T15:04:05-0130 lvl=eror msg=\"session closed\" obj=tunnels \
             err=\"a \\\"b\\\"=\\\\c\" id=\"\"\n"
        );
        assert_eq!(
            record(Format::Json, false, "session closed", &fields),
            "{\"t\":\"2026-01-02T15:04:05-0130\",\"lvl\":\"eror\",\"msg\":\"session closed\",\
             \"obj\":\"tunnels\",\"err\":\"a \\\"b\\\"=\\\\c\",\"id\":\"\"}\n"
        );
        assert_eq!(
            record(Format::Term, true, "up", &fields[..1]),
            "\x1b[31mEROR\x1b[0m[01-02|15:04:05] up obj=tunnels\n"
        );
    }

    #[test]
    fn nothing_of_a_peer_moves_the_cursor() {
        let hostile = "a\n\x1b[2J\r\t\u{9b}\u{202e}é";
        for format in [Format::Logfmt, Format::Json, Format::Term] {
            let line = record(format, false, hostile, &[("url", hostile)]);
            assert_eq!(line.matches('\n').count(), 1);
            assert!(line.contains(r"a\n\u001b[2J\r\t\u009b\u202eé"), "{line}");
        }
        let json = record(Format::Json, false, hostile, &[("url", hostile)]);
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(value["url"], hostile);
    }

    #[test]
    fn long_records_are_cut_and_stay_well_formed() {
        for long in ["x".repeat(10_000), "\n".repeat(10_000), "é".repeat(10_000)] {
            for format in [Format::Logfmt, Format::Json, Format::Term] {
                for line in [
                    record(format, true, &long, &[("a", "b")]),
                    record(format, true, "m", &[("a", &long), ("b", &long)]),
                ] {
                    assert!(line.len() <= MAX_LINE, "{}", line.len());
                    assert!(line.contains(CUT) && line.ends_with('\n'));
                }
            }
            let json = record(Format::Json, false, &long, &[("a", &long)]);
            assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
        }
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_only() {
        use std::io::Read;
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        let mut output = Output {
            file,
            path: None,
            format: Format::Logfmt,
            colours: false,
            unasked: false,
            target: Standard::Neither,
            lost: 0,
            torn: false,
        };
        let line = format!("{}\n", "x".repeat(MAX_LINE - 1));
        while output.lost < 3 {
            output.put(&line);
        }
        let mut piece = vec![0; 16 * MAX_LINE];
        let n = reader.read(&mut piece).expect("bytes");
        assert!(n > 0);
        output.put("next\n");
        drop(output);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("text");
        assert!(rest.contains("log lines lost") && rest.contains("l=3"), "{rest}");
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
        // What cannot be opened again leaves the old one open.
        std::fs::remove_dir_all(&dir).ok();
        std::fs::create_dir_all(&dir).expect("a directory");
        std::fs::create_dir(&file).expect("a directory in its place");
        reopen();
        event!(info, obj = "test-of-log", "still here");
        start(&Destination::Nowhere, Format::Term, Level::Info).expect("no log");
        assert!(file.is_dir());
        std::fs::remove_dir_all(&dir).ok();
    }

    #[test]
    fn a_value_that_prints_for_ever_is_cut() {
        struct Endless;
        impl Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    f.write_str("é-")?;
                }
            }
        }
        assert!(Bounded::of(&Endless).len() <= MAX_LINE);
    }
}
