//! Facade of the crate `log`: records of this program and of its libraries pass through here.
//!
//! Records of this program have the component as their target. The facade has no level above
//! error: a record of level `crit` has [`CRIT_MODULE`] as its module. A library's record is
//! written at level `debug`, independent of its own level, because this program reports
//! important errors and warnings itself. Output does not belong here: the facade's logger is
//! [`super::output`].

use std::fmt::Display;

use log::kv::{self, Key, Source, Value, VisitSource};
use log::{Log, Record};

use super::format::{Format, Level, LogLine, bounded};
use crate::features;
use crate::sys::console::LocalTime;

/// Module path of this program's records. Records of a macro of the facade in this program
/// begin with it.
const OWN_MODULE: &str = "culvert";

/// Module path of this program's records of level `crit`: errors that end the program.
const CRIT_MODULE: &str = "culvert::crit";

/// Sends a record of this program to a logger.
pub(super) fn send(
    logger: &dyn Log,
    level: Level,
    obj: &str,
    msg: &'static str,
    fields: &[(&str, &dyn Display)],
) {
    logger.log(
        &Record::builder()
            .level(facade_level(level))
            .target(obj)
            .module_path_static(Some(own_module(level)))
            .key_values(&Fields(fields))
            .args(format_args!("{msg}"))
            .build(),
    );
}

/// Returns the facade's level for a level of this program.
pub(super) fn facade_level(level: Level) -> log::Level {
    match level {
        Level::Debug => log::Level::Debug,
        Level::Info => log::Level::Info,
        Level::Warn => log::Level::Warn,
        Level::Error | Level::Crit => log::Level::Error,
    }
}

fn own_module(level: Level) -> &'static str {
    if level == Level::Crit { CRIT_MODULE } else { OWN_MODULE }
}

/// Adapter for the fields of a record.
struct Fields<'a>(&'a [(&'a str, &'a dyn Display)]);

impl Source for Fields<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), kv::Error> {
        for (key, value) in self.0 {
            visitor.visit_pair(Key::from_str(key), Value::from_dyn_display(*value))?;
        }
        Ok(())
    }

    fn get(&self, key: Key<'_>) -> Option<Value<'_>> {
        let found = self.0.iter().find(|(name, _)| *name == key.as_str());
        found.map(|(_, value)| Value::from_dyn_display(*value))
    }

    fn count(&self) -> usize {
        self.0.len()
    }
}

/// Returns whether a module of this program made the record. In a build without `fetch`
/// libraries make no records.
fn is_own(record: &Record<'_>) -> bool {
    !features::FETCH || record.module_path().is_some_and(|path| path.starts_with(OWN_MODULE))
}

/// Returns the level at which a record is written.
pub(super) fn level_of(record: &Record<'_>) -> Level {
    if !is_own(record) {
        return Level::Debug;
    }
    match record.level() {
        log::Level::Error if record.module_path() == Some(CRIT_MODULE) => Level::Crit,
        log::Level::Error => Level::Error,
        log::Level::Warn => Level::Warn,
        log::Level::Info => Level::Info,
        log::Level::Debug | log::Level::Trace => Level::Debug,
    }
}

/// Returns the line of a record with its line end.
pub(super) fn line_of(
    level: Level,
    record: &Record<'_>,
    time: &LocalTime,
    format: Format,
    colours: bool,
) -> String {
    let mut line = LogLine::new(format, colours);
    if !is_own(record) {
        // Fields of libraries are omitted, because they may contain a secret.
        line.begin(level, time, &without_secrets(&bounded(record.args())));
        line.field("obj", &record.target());
        return line.finish();
    }
    line.begin(level, time, record.args());
    line.field("obj", &record.target());
    // The visitor below returns no error.
    let _ = record.key_values().visit(&mut FieldWriter(&mut line));
    line.finish()
}

struct FieldWriter<'l>(&'l mut LogLine);

impl<'kvs> VisitSource<'kvs> for FieldWriter<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        self.0.field(key.as_str(), &value);
        Ok(())
    }
}

/// Returns the text with the user, password, query and fragment of each URL removed.
fn without_secrets(text: &str) -> String {
    const SCHEME_END: &str = "://";
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(SCHEME_END) {
        clean.push_str(before);
        clean.push_str(SCHEME_END);
        let ends_url = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`');
        let (url, behind) = after.split_at(after.find(ends_url).unwrap_or(after.len()));
        // The first of these ends the authority, the others the path.
        let authority = url.find(['/', '?', '#']).unwrap_or(url.len());
        let start = url[..authority].rfind('@').map_or(0, |at| at + 1);
        let end = url.find(['?', '#']).unwrap_or(url.len());
        clean.push_str(&url[start..end]);
        rest = behind;
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: LocalTime =
        LocalTime { year: 2026, month: 1, day: 2, hour: 15, minute: 4, second: 5, offset: -90 };

    /// Returns the line of a record of `write`.
    fn own(level: Level, fields: &[(&str, &dyn Display)], format: Format, colours: bool) -> String {
        let fields = Fields(fields);
        let record = Record::builder()
            .level(facade_level(level))
            .target("tunnels.session")
            .module_path_static(Some(own_module(level)))
            .key_values(&fields)
            .args(format_args!("session closed"))
            .build();
        assert_eq!(level_of(&record), level);
        line_of(level_of(&record), &record, &TIME, format, colours)
    }

    /// Other programs parse these lines: a change of one byte is a breaking change.
    #[test]
    fn lines_of_every_level_and_format() {
        let fields: [(&str, &dyn Display); 3] = [("err", &"a \"b\"\n"), ("id", &""), ("l", &7)];
        for (level, tag, upper, colour) in [
            (Level::Debug, "dbug", "DBUG", 36),
            (Level::Info, "info", "INFO", 32),
            (Level::Warn, "warn", "WARN", 33),
            (Level::Error, "eror", "EROR", 31),
            (Level::Crit, "crit", "CRIT", 35),
        ] {
            assert_eq!(
                own(level, &fields, Format::Logfmt, false),
                format!(
                    "t=2026-01-02T15:04:05-0130 lvl={tag} msg=\"session closed\" \
                     obj=tunnels.session err=\"a \\\"b\\\"\\n\" id=\"\" l=7\n"
                )
            );
            assert_eq!(
                own(level, &fields, Format::Json, false),
                format!(
                    "{{\"t\":\"2026-01-02T15:04:05-0130\",\"lvl\":\"{tag}\",\
                     \"msg\":\"session closed\",\"obj\":\"tunnels.session\",\
                     \"err\":\"a \\\"b\\\"\\n\",\"id\":\"\",\"l\":\"7\"}}\n"
                )
            );
            assert_eq!(
                own(level, &fields, Format::Term, true),
                format!(
                    "\x1b[{colour}m{upper}\x1b[0m[01-02|15:04:05] session closed \
                     obj=tunnels.session err=\"a \\\"b\\\"\\n\" id=\"\" l=7\n"
                )
            );
            assert_eq!(
                own(level, &fields[2..], Format::Term, false),
                format!("{upper}[01-02|15:04:05] session closed obj=tunnels.session l=7\n")
            );
        }
    }

    #[test]
    fn records_of_libraries_are_debug_and_have_no_secrets() {
        if !crate::features::FETCH {
            return;
        }
        for level in [log::Level::Error, log::Level::Warn, log::Level::Info, log::Level::Debug] {
            let record = Record::builder()
                .level(level)
                .target("ureq::run")
                .module_path_static(Some("ureq::run"))
                .key_values(&("lvl", "hunter2"))
                .args(format_args!("GET https://me:hunter2@host.example:81/a/b?token=hunter2"))
                .build();
            assert_eq!(level_of(&record), Level::Debug);
            assert_eq!(
                line_of(level_of(&record), &record, &TIME, Format::Logfmt, false),
                "t=2026-01-02T15:04:05-0130 lvl=dbug \
                 msg=\"GET https://host.example:81/a/b\" obj=ureq::run\n"
            );
        }
    }

    #[test]
    fn secrets_of_urls_are_removed() {
        for (text, clean) in [
            ("", ""),
            ("no URL: a?b@c", "no URL: a?b@c"),
            ("http://h", "http://h"),
            ("http://u@h/p@q", "http://h/p@q"),
            ("a \"wss://u:p@h?q\" http://h/#f b", "a \"wss://h\" http://h/ b"),
            ("http://h?u:p@x/", "http://h"),
            ("://", "://"),
            ("http://u:p@é/é?é", "http://é/é"),
        ] {
            assert_eq!(without_secrets(text), clean, "{text}");
        }
    }
}
