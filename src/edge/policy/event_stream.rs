//! Server-sent events on their way to a visitor: finds the end of each event, and replaces text
//! in its fields. An event without a match passes byte by byte.

use super::replace::{FirstMatch, ReplaceError, Replacement, replace_text};

/// Longest event.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

/// Field of an event whose value can be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventField {
    /// The data: its lines joined with line feeds.
    Data,
    /// Milliseconds until the client connects again.
    Retry,
}

impl EventField {
    /// Returns the field with this name.
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "data" => Some(EventField::Data),
            "retry" => Some(EventField::Retry),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            EventField::Data => "data",
            EventField::Retry => "retry",
        }
    }
}

/// Replacement in one field.
#[derive(Clone, Debug)]
pub struct EventReplacement {
    /// Where.
    pub field: EventField,
    /// What.
    pub replacement: Replacement,
}

/// Returns what an event becomes; `None` if it stays.
pub type EventChange<'a> = dyn FnMut(&[u8]) -> Result<Option<Vec<u8>>, ReplaceError> + 'a;

/// Splits a stream into events and changes them.
#[derive(Debug, Default)]
pub struct EventRewriter {
    /// Bytes of an incomplete event.
    partial: Vec<u8>,
    /// Start of its last line.
    line: usize,
    /// Whether the last byte was a carriage return: a line feed after it belongs to it.
    after_return: bool,
    /// Whether an event has ended: a byte order mark can only be in front of the first one.
    started: bool,
    /// Whether the last event was changed: its lines have other ends.
    changed: bool,
}

impl EventRewriter {
    /// Takes bytes of the stream, and passes each complete event to `change` and its result to
    /// `emit`. [`change_event`] is what `change` calls in the end.
    pub fn feed(
        &mut self,
        piece: &[u8],
        change: &mut EventChange<'_>,
        emit: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ReplaceError> {
        for &byte in piece {
            if std::mem::take(&mut self.after_return) && byte == b'\n' {
                match (self.partial.is_empty(), self.changed) {
                    // The rest of the end of the event before.
                    (true, false) => emit(b"\n"),
                    (true, true) => {}
                    (false, _) => self.partial.push(byte),
                }
                self.line = self.partial.len();
                continue;
            }
            self.partial.push(byte);
            if byte == b'\n' || byte == b'\r' {
                self.after_return = byte == b'\r';
                let is_empty = self.line + 1 == self.partial.len();
                self.line = self.partial.len();
                if is_empty {
                    self.end_event(change, emit)?;
                }
            }
            if self.partial.len() > MAX_EVENT_BYTES {
                return Err(ReplaceError::TooLong);
            }
        }
        Ok(())
    }

    /// Emits the event that the end of the stream cuts off.
    pub fn finish(
        mut self,
        change: &mut EventChange<'_>,
        emit: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ReplaceError> {
        match self.partial.is_empty() {
            true => Ok(()),
            false => self.end_event(change, emit),
        }
    }

    fn end_event(
        &mut self,
        change: &mut EventChange<'_>,
        emit: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ReplaceError> {
        let mark: &[u8] = "\u{feff}".as_bytes();
        let has_mark =
            !std::mem::replace(&mut self.started, true) && self.partial.starts_with(mark);
        let skip = if has_mark { mark.len() } else { 0 };
        emit(&self.partial[..skip]);
        let changed = change(&self.partial[skip..])?;
        self.changed = changed.is_some();
        match changed {
            Some(changed) => emit(&changed),
            None => emit(&self.partial[skip..]),
        }
        self.clear();
        Ok(())
    }

    fn clear(&mut self) {
        self.partial.clear();
        self.line = 0;
    }
}

/// Applies replacements to an event with its blank line. `None`: nothing matched. Adds the first
/// match of each replacement to `matches`.
pub fn change_event(
    event: &[u8],
    replacements: &[EventReplacement],
    matches: &mut Vec<FirstMatch>,
) -> Result<Option<Vec<u8>>, ReplaceError> {
    let event = String::from_utf8_lossy(event);
    let mut lines: Vec<(&str, &str)> = lines(&event).map(field).collect();
    let data: Vec<&str> = values(&lines, EventField::Data).collect();
    let (has_data, data) = (!data.is_empty(), data.join("\n"));
    // The last one is valid.
    let retry = values(&lines, EventField::Retry).next_back();
    let new_data = match has_data {
        true => replaced(&data, EventField::Data, replacements, matches)?,
        false => None,
    };
    let new_retry = match retry {
        Some(retry) => replaced(retry, EventField::Retry, replacements, matches)?,
        None => None,
    };
    if new_data.is_none() && new_retry.is_none() {
        return Ok(None);
    }
    let mut out = String::new();
    let mut write = |name: &str, value: &str| {
        // The value ends at a line break of any kind.
        for line in value.split(['\n', '\r']) {
            [name, ": ", line, "\n"].iter().for_each(|part| out.push_str(part));
        }
    };
    for (field, value) in [(EventField::Data, &new_data), (EventField::Retry, &new_retry)] {
        if let Some(value) = value {
            write(field.name(), value);
            lines.retain(|(name, _)| *name != field.name());
        }
    }
    for (name, value) in lines {
        match (name.is_empty(), value.is_empty()) {
            // The blank line, a comment.
            (true, true) => {}
            (true, false) => [":", value, "\n"].iter().for_each(|part| out.push_str(part)),
            (false, _) => [name, ": ", value, "\n"].iter().for_each(|part| out.push_str(part)),
        }
    }
    if event.ends_with(['\n', '\r']) {
        out.push('\n');
    }
    Ok(Some(out.into_bytes()))
}

fn replaced(
    text: &str,
    field: EventField,
    replacements: &[EventReplacement],
    matches: &mut Vec<FirstMatch>,
) -> Result<Option<String>, ReplaceError> {
    let mut current: Option<String> = None;
    for (number, one) in replacements.iter().enumerate().filter(|(_, one)| one.field == field) {
        let text = current.as_deref().unwrap_or(text);
        let list = std::slice::from_ref(&one.replacement);
        let mut found = Vec::new();
        if let Some(new) = replace_text(text, list, MAX_EVENT_BYTES, &mut found)? {
            matches.extend(found.into_iter().map(|m| FirstMatch { replacement: number, ..m }));
            current = Some(new);
        }
    }
    Ok(current)
}

fn values<'a>(
    lines: &'a [(&'a str, &'a str)],
    field: EventField,
) -> impl DoubleEndedIterator<Item = &'a str> {
    lines.iter().filter(move |(name, _)| *name == field.name()).map(|(_, value)| *value)
}

/// Returns the lines of a text without their ends: line feed, carriage return, or both.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

/// Returns name and value of a line. The name of a comment is empty.
fn field(line: &str) -> (&str, &str) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    let value = if name.is_empty() { value } else { value.strip_prefix(' ').unwrap_or(value) };
    (name, value)
}

#[cfg(test)]
mod tests {
    use super::super::replace::tests::replacement;
    use super::*;

    fn list(items: &[(EventField, &str, &str)]) -> Vec<EventReplacement> {
        let one = |(field, from, to): &(EventField, &str, &str)| EventReplacement {
            field: *field,
            replacement: replacement(from, to),
        };
        items.iter().map(one).collect()
    }

    /// Runs a stream in pieces of this size.
    fn run(stream: &[u8], size: usize, items: &[(EventField, &str, &str)]) -> String {
        let list = list(items);
        let mut change = |event: &[u8]| change_event(event, &list, &mut Vec::new());
        let mut out = Vec::new();
        let mut rewriter = EventRewriter::default();
        for piece in stream.chunks(size) {
            rewriter.feed(piece, &mut change, &mut |b| out.extend_from_slice(b)).unwrap();
        }
        rewriter.finish(&mut change, &mut |b| out.extend_from_slice(b)).unwrap();
        String::from_utf8_lossy(&out).into_owned()
    }

    const SECRET: [(EventField, &str, &str); 1] = [(EventField::Data, "secret", "[x]")];

    #[test]
    fn matches_are_replaced_in_every_form_of_a_line_end_and_split() {
        for (given, expected) in [
            ("data: a secret\n\n", "data: a [x]\n\n"),
            ("data:secret\r\n\r\n", "data: [x]\n\n"),
            ("data: secret\r\rdata: secret\r\r", "data: [x]\n\ndata: [x]\n\n"),
            ("id: 1\ndata: secret\nevent: e\n:c\n\n", "data: [x]\nid: 1\nevent: e\n:c\n\n"),
            ("\u{feff}data: secret\n\n", "\u{feff}data: [x]\n\n"),
            ("data: secret", "data: [x]\n"),
        ] {
            for size in 1..=given.len() {
                assert_eq!(run(given.as_bytes(), size, &SECRET), expected, "{given:?} {size}");
            }
        }
    }

    #[test]
    fn the_lines_of_data_are_one_text() {
        let items = [(EventField::Data, r"one\ntwo", "three\nfour\rfive")];
        let got = run(b"data: one\ndata: two\n\n", 100, &items);
        assert_eq!(got, "data: three\ndata: four\ndata: five\n\n");
    }

    #[test]
    fn retry_is_a_field_of_its_own() {
        let items = [(EventField::Retry, r"\d+", "5000")];
        assert_eq!(run(b"retry: 10\ndata: 10\n\n", 3, &items), "retry: 5000\ndata: 10\n\n");
    }

    #[test]
    fn events_without_a_match_pass_byte_by_byte() {
        let stream = "\n\r\ndata\nid:  7\r\nother: secret\n: secret\n\n\r\rdata: \u{fffd}x\r\n\r\n";
        for size in 1..9 {
            assert_eq!(run(stream.as_bytes(), size, &SECRET), stream);
        }
        let bytes = b"data: \xff\xfe\n\n";
        let mut out = Vec::new();
        let mut rewriter = EventRewriter::default();
        let mut change = |event: &[u8]| change_event(event, &list(&SECRET), &mut Vec::new());
        rewriter.feed(bytes, &mut change, &mut |b| out.extend_from_slice(b)).unwrap();
        assert_eq!(out, bytes);
    }

    #[test]
    fn a_complete_event_is_not_kept_back_and_a_long_one_is_an_error() {
        let mut out = Vec::new();
        let mut rewriter = EventRewriter::default();
        let mut change = |_: &[u8]| Ok(None);
        rewriter.feed(b"data: a\n\ndata", &mut change, &mut |b| out.extend_from_slice(b)).unwrap();
        assert_eq!(out, b"data: a\n\n");
        let long = vec![b'x'; MAX_EVENT_BYTES];
        assert_eq!(rewriter.feed(&long, &mut change, &mut |_| {}), Err(ReplaceError::TooLong));
    }
}
