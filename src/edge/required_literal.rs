//! The required literal of a regular expression: a text that each match contains. Found in the source of
//! an expression that compiles; where this is not simple, the expression has none.

/// Returns the longest such text; `None` if none is known.
pub fn find(source: &str) -> Option<String> {
    let mut scan =
        LiteralScan { rest: source.chars(), depth: 0, run: String::new(), best: String::new() };
    scan.all()?;
    scan.end_run();
    (!scan.best.is_empty()).then_some(scan.best)
}

/// Reads an expression from left to right.
struct LiteralScan<'a> {
    rest: std::str::Chars<'a>,
    /// Open groups. What is in one may be optional, and is not used.
    depth: usize,
    /// Characters that follow each other in each match.
    run: String,
    /// Longest run.
    best: String,
}

impl LiteralScan<'_> {
    /// Reads all of it. `None`: the expression has a part that is not known here.
    fn all(&mut self) -> Option<()> {
        while let Some(c) = self.rest.next() {
            match c {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => self.group()?,
                ')' => self.depth = self.depth.checked_sub(1)?,
                // One of several alternatives is in a match.
                '|' if self.depth == 0 => return None,
                '*' | '?' => self.optional(),
                '{' => {
                    self.optional();
                    self.rest.find(|c| *c == '}')?;
                }
                '+' => self.repeated()?,
                '.' | '^' | '$' | '|' => self.end_run(),
                ']' | '}' => return None,
                literal => self.push(literal),
            }
        }
        (self.depth == 0).then_some(())
    }

    fn push(&mut self, literal: char) {
        if self.depth == 0 {
            self.run.push(literal);
        }
    }

    fn end_run(&mut self) {
        if self.run.len() > self.best.len() {
            self.best.clone_from(&self.run);
        }
        self.run.clear();
    }

    /// The last character may be absent.
    fn optional(&mut self) {
        if self.depth == 0 {
            self.run.pop();
        }
        self.end_run();
    }

    /// The last character may be there several times, unless a further sign makes it optional.
    fn repeated(&mut self) -> Option<()> {
        self.end_run();
        let mut signs = self.rest.clone().take(2);
        match (signs.next(), signs.next()) {
            (Some('?'), Some('*' | '+' | '?' | '{')) | (Some('*' | '+' | '{'), _) => None,
            _ => Some(()),
        }
    }

    /// A character after a backslash: itself, or a class or a place.
    fn escape(&mut self) -> Option<()> {
        match self.rest.next()? {
            'd' | 'D' | 'w' | 'W' | 's' | 'S' | 'b' | 'B' | 'A' | 'z' | 'n' | 'r' | 't' | 'f'
            | 'v' | 'a' | '<' | '>' => self.end_run(),
            sign if sign.is_ascii_punctuation() => self.push(sign),
            _ => return None,
        }
        Some(())
    }

    /// A simple class, without another one in it.
    fn class(&mut self) -> Option<()> {
        self.end_run();
        let mut is_first = true;
        loop {
            match self.rest.next()? {
                '^' if is_first => continue,
                ']' if is_first => return None,
                ']' => return Some(()),
                '[' => return None,
                '\\' => _ = self.rest.next()?,
                _ => {}
            }
            is_first = false;
        }
    }

    /// The start of a group without flags: flags could make the rest ignore case.
    fn group(&mut self) -> Option<()> {
        self.end_run();
        self.depth += 1;
        let kind = self.rest.as_str();
        let Some(kind) = kind.strip_prefix('?') else { return Some(()) };
        let len = match kind {
            _ if kind.starts_with(':') => ":".len(),
            _ if kind.starts_with('<') || kind.starts_with("P<") => kind.find('>')? + 1,
            _ => return None,
        };
        self.rest = kind[len..].chars();
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::mutator::Mutator;
    use regex_lite::Regex;

    #[test]
    fn the_longest_run_of_characters_is_required() {
        for (source, literal) in [
            ("secret", "secret"),
            (r"^https?://old\.example/(.*)", "://old.example/"),
            (r"key=(\w+)&long=\d+", "&long="),
            ("abc?de+f", "ab"),
            ("ab{2}cde", "cde"),
            ("x(?:yyy)zz(?P<n>a|b)", "zz"),
            ("[a-z]ö[^x]", "ö"),
        ] {
            assert_eq!(find(source).as_deref(), Some(literal), "{source}");
        }
        for source in [
            "",
            "a|b",
            "(?i)abc",
            "(?i:abc)def",
            "a*",
            r"\d+",
            "(abc)?",
            "a+?*",
            r"\x41bc",
            "[[:alpha:]]x",
        ] {
            assert_eq!(find(source), None, "{source}");
        }
    }

    /// A text that matches has the literal.
    #[test]
    fn no_match_is_without_the_literal() {
        let pieces = [
            "a", "b", "c", "ab", ".", "*", "+", "?", "+?", "??", "|", "(", ")", "(?:", "(?P<n>",
            "(?i)", "(?x)", "{2}", "{0}", "{0,}", "[ab]", "[^c]", "[]a]", r"\b", r"\w", r"\.",
            r"\x61", r"\|", "^", "$", " ", "#",
        ];
        let mut random = Mutator(11);
        let (mut compiled, mut matched) = (0, 0);
        for _ in 0..60_000 {
            let count = 1 + random.below(7);
            let source: String = (0..count).map(|_| pieces[random.below(pieces.len())]).collect();
            let Ok(regex) = Regex::new(&source) else { continue };
            let Some(literal) = find(&source) else { continue };
            compiled += 1;
            for _ in 0..10 {
                let count = random.below(6);
                let text: String = (0..count)
                    .map(|_| ["a", "b", "c", "A", ".", "|", " "][random.below(7)])
                    .collect();
                if regex.is_match(&text) {
                    matched += 1;
                    assert!(text.contains(&literal), "{source} {text} {literal}");
                }
            }
        }
        assert!(compiled > 2000 && matched > 2000, "{compiled} {matched}");
    }
}
