//! Bytes for a terminal: only the lines that changed since the last update. No I/O.

use std::fmt::Write as _;

use super::screen::{Style, StyledLine};

/// Acquires the screen: the alternate one, so that the earlier content is restored, and without
/// a cursor.
pub const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";

/// Releases the screen.
pub const LEAVE: &[u8] = b"\x1b[0m\x1b[?25h\x1b[?1049l";

/// Content of the terminal.
#[derive(Debug)]
pub struct Painter {
    /// Sequence before each line: the common colours.
    base: &'static str,
    size: (usize, usize),
    rows: Vec<String>,
    known: bool,
}

impl Painter {
    /// Returns a painter for a terminal with unknown content.
    pub fn new(transparent: bool) -> Self {
        let base = if transparent { "\x1b[0m" } else { "\x1b[0;37;40m" };
        Painter { base, size: (0, 0), rows: Vec::new(), known: false }
    }

    /// Discards the known content, because other text was written to the terminal: the next
    /// update draws all lines.
    pub fn forget(&mut self) {
        self.known = false;
    }

    /// Returns the bytes that make the terminal show `lines`; empty if it shows them.
    pub fn paint(&mut self, lines: &[StyledLine], width: usize, height: usize) -> String {
        let mut out = String::new();
        let whole = !self.known || self.size != (width, height);
        if whole {
            self.rows.clear();
            self.size = (width, height);
            self.known = true;
            let _ = write!(out, "{}\x1b[2J", self.base);
        }
        let base = self.base;
        for at in 0..height.min(lines.len().max(self.rows.len())) {
            let row = lines.get(at).map(|line| row(line, base)).unwrap_or_default();
            let old = self.rows.get(at).map_or("", String::as_str);
            if row == old {
                continue;
            }
            // Cleared first: after the last column nothing is left to clear, and some terminals
            // would clear the last column.
            let _ = write!(out, "\x1b[{};1H{base}\x1b[K{row}", at + 1);
            match self.rows.get_mut(at) {
                Some(place) => *place = row,
                None => {
                    self.rows.resize(at, String::new());
                    self.rows.push(row);
                }
            }
        }
        out
    }
}

fn row(line: &StyledLine, base: &str) -> String {
    let mut out = String::new();
    for (style, text) in line {
        let colour = match style {
            Style::Plain => "",
            Style::Bold => "\x1b[1m",
            Style::Good => "\x1b[32m",
            Style::Warn => "\x1b[33m",
            Style::Bad => "\x1b[31m",
            Style::Link => "\x1b[36m",
        };
        out.push_str(colour);
        out.push_str(text);
        if !colour.is_empty() {
            out.push_str(base);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> StyledLine {
        vec![(Style::Plain, text.to_owned())]
    }

    /// A simple terminal: the result of the bytes.
    struct Terminal {
        rows: Vec<Vec<char>>,
        at: (usize, usize),
    }

    impl Terminal {
        fn new(width: usize, height: usize) -> Self {
            Terminal { rows: vec![vec!['#'; width]; height], at: (0, 0) }
        }

        fn take(&mut self, bytes: &str) {
            let mut rest = bytes;
            while let Some(c) = rest.chars().next() {
                if let Some(sequence) = rest.strip_prefix("\x1b[") {
                    let end = sequence.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                    let (numbers, tail) = sequence.split_at(end);
                    match tail.chars().next().unwrap() {
                        'H' => {
                            let row: usize = numbers.split(';').next().unwrap().parse().unwrap();
                            self.at = (row - 1, 0);
                        }
                        'K' => self.rows[self.at.0][self.at.1..].fill(' '),
                        'J' => self.rows.iter_mut().for_each(|row| row.fill(' ')),
                        'm' => {}
                        other => panic!("{other}"),
                    }
                    rest = &tail[1..];
                    continue;
                }
                self.rows[self.at.0][self.at.1] = c;
                self.at.1 += 1;
                rest = &rest[c.len_utf8()..];
            }
        }

        fn text(&self) -> Vec<String> {
            let rows = self.rows.iter();
            rows.map(|row| row.iter().collect::<String>().trim_end().to_owned()).collect()
        }
    }

    #[test]
    fn only_what_changed_is_written() {
        let mut painter = Painter::new(true);
        let mut terminal = Terminal::new(20, 4);
        let first = [line("one"), line("two"), line("three")];
        terminal.take(&painter.paint(&first, 20, 4));
        assert_eq!(terminal.text(), ["one", "two", "three", ""]);
        assert_eq!(painter.paint(&first, 20, 4), "");

        let second = [line("one"), line("2")];
        let bytes = painter.paint(&second, 20, 4);
        assert!(!bytes.contains("one") && !bytes.contains("2J"));
        terminal.take(&bytes);
        assert_eq!(terminal.text(), ["one", "2", "", ""]);

        terminal.take(&painter.paint(&[line("one"), line("2"), line("3"), line("4")], 20, 4));
        assert_eq!(terminal.text(), ["one", "2", "3", "4"]);
    }

    #[test]
    fn another_size_or_a_foreign_hand_means_a_whole_picture() {
        let mut painter = Painter::new(false);
        let lines = [line("one"), line("two")];
        painter.paint(&lines, 20, 4);
        let mut terminal = Terminal::new(30, 2);
        terminal.take(&painter.paint(&lines, 30, 2));
        assert_eq!(terminal.text(), ["one", "two"]);
        painter.forget();
        let mut terminal = Terminal::new(30, 2);
        terminal.take(&painter.paint(&lines, 30, 2));
        assert_eq!(terminal.text(), ["one", "two"]);
    }

    #[test]
    fn more_lines_than_rows_do_not_scroll() {
        let mut painter = Painter::new(true);
        let bytes = painter.paint(&[line("a"), line("b"), line("c")], 20, 2);
        assert!(!bytes.contains('c') && !bytes.contains('\n'));
    }
}
