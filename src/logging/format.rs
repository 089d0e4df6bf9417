//! Format of a record: level, time, fields and escapes, in three formats.
//!
//! A line has at most [`MAX_LINE`] bytes. Text of a peer may be a field without changes:
//! control characters are escaped. Secrets must not be fields. Output is in [`super::output`].

use std::fmt::{self, Display, Write as _};

use crate::sys::console::LocalTime;

/// Maximum length of a line with its end, in bytes: `PIPE_BUF`, which a pipe accepts as a
/// whole.
pub const MAX_LINE: usize = 4096;

/// Bytes reserved for the end of a truncated line: the mark, a quote, a brace, the line end.
const TAIL_BYTES: usize = 16;

/// Mark at the end of a truncated value.
const ELLIPSIS: &str = "...";

/// Severity, lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Details for diagnosis.
    Debug,
    /// Regular events.
    Info,
    /// Events that need attention.
    Warn,
    /// Errors.
    Error,
    /// Errors that end the program.
    Crit,
}

impl Level {
    /// Returns the level for a name in options.
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

    /// Returns the name with four letters for records.
    fn tag(self) -> &'static str {
        match self {
            Level::Debug => "dbug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "eror",
            Level::Crit => "crit",
        }
    }

    /// Returns its colour number on a terminal.
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

/// Format of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people at a terminal, in colours. Elsewhere like [`Format::Logfmt`].
    Term,
    /// `key=value`.
    Logfmt,
    /// One object on each line; all values are strings.
    Json,
}

impl Format {
    /// Returns the format for a name in options.
    pub fn from_name(name: &str) -> Option<Format> {
        Some(match name {
            "term" => Format::Term,
            "logfmt" => Format::Logfmt,
            "json" => Format::Json,
            _ => return None,
        })
    }
}

/// A record's line that is being built.
pub(super) struct LogLine {
    text: String,
    format: Format,
    colours: bool,
    cut: bool,
}

impl LogLine {
    pub(super) fn new(format: Format, colours: bool) -> Self {
        LogLine { text: String::with_capacity(256), format, colours, cut: false }
    }

    pub(super) fn begin(&mut self, level: Level, t: &LocalTime, msg: &dyn Display) {
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
            self.escaped(&bounded(msg), false);
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

    pub(super) fn field(&mut self, key: &str, value: &dyn Display) {
        if self.cut || self.text.len() + key.len() + TAIL_BYTES > MAX_LINE {
            return;
        }
        let value = bounded(value);
        let json = self.format == Format::Json;
        let quoted =
            json || value.is_empty() || value.contains(|c| needs_quotes(c) || is_unprintable(c));
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

    /// Appends `value`, truncated when the line is full.
    fn escaped(&mut self, value: &str, quoted: bool) {
        for c in value.chars() {
            if self.text.len() + TAIL_BYTES > MAX_LINE {
                self.text.push_str(ELLIPSIS);
                self.cut = true;
                return;
            }
            match c {
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '"' | '\\' if quoted => self.text.extend(['\\', c]),
                // All of these are below U+FFFF, so four digits are enough, also in JSON.
                c if is_unprintable(c) => _ = write!(self.text, "\\u{:04x}", u32::from(c)),
                c => self.text.push(c),
            }
        }
    }

    pub(super) fn finish(mut self) -> String {
        if self.format == Format::Json {
            self.text.push('}');
        }
        self.text.push('\n');
        self.text
    }
}

/// Returns whether a character could move a terminal's cursor or reverse its text.
fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn needs_quotes(c: char) -> bool {
    matches!(c, ' ' | '"' | '=' | '\\' | '\'')
}

/// Returns a value's text, truncated to a line's length, because a value may print without end.
pub(super) fn bounded(value: &dyn Display) -> String {
    let mut text = Bounded(String::new());
    // After the error of a full buffer its content is the result.
    let _ = write!(text, "{value}");
    text.0
}

/// Buffer of at most a line's length.
struct Bounded(String);

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

/// Returns a line with its end for [`print()`](super::print). Control characters are escaped.
pub fn line(text: &dyn Display) -> String {
    message_line("", &bounded(text))
}

/// Returns a line with a prefix, which is not escaped.
pub(super) fn message_line(prefix: &str, text: &str) -> String {
    let mut line = LogLine::new(Format::Term, false);
    line.text.push_str(prefix);
    line.escaped(text, false);
    line.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: LocalTime =
        LocalTime { year: 2026, month: 1, day: 2, hour: 15, minute: 4, second: 5, offset: -90 };

    fn record(format: Format, colours: bool, msg: &str, fields: &[(&str, &str)]) -> String {
        let mut line = LogLine::new(format, colours);
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

    /// Readers that split as a shell does take `'` for a quote.
    #[test]
    fn an_apostrophe_is_not_quoted() {
        let line = record(Format::Logfmt, false, "m", &[("err", "it's"), ("a", "b")]);
        assert!(line.contains("err=\"it's\" a=b"), "{line}");
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
                    assert!(line.contains(ELLIPSIS) && line.ends_with('\n'));
                }
            }
            let json = record(Format::Json, false, &long, &[("a", &long)]);
            assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
        }
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
        assert!(bounded(&Endless).len() <= MAX_LINE);
    }
}
