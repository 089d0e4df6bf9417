//! Replacement of text in a body that passes in pieces. Memory is bounded for a body of any
//! length: a match is found if it is not longer than [`HELD_BYTES`], which stay here until more
//! of the body has come.

use super::replace::{ReplaceError, Replacement, bytes_of_text, text_of_bytes};
use crate::edge::actions::body_transform::{BodyTransform, TransformError};
use crate::http1::text::char_boundary;

/// Text that waits for what follows.
pub const HELD_BYTES: usize = 16 * 1024;

/// Text in which matches are searched at once. The search repeats at most [`HELD_BYTES`].
const SEARCHED_BYTES: usize = 2 * HELD_BYTES;

/// Input that is taken at once.
const PIECE_BYTES: usize = 8 * 1024;

/// Most text that the replacements make of [`SEARCHED_BYTES`].
const MAX_NEW_BYTES: usize = 256 * 1024;

/// Text before a search, so that its start does not look like the start of the body.
const CONTEXT_BYTES: usize = 4;

/// Replaces text in one body.
#[derive(Debug)]
pub struct ReplaceStream {
    stages: Vec<ReplaceStage>,
    /// Start of a character.
    pending: Vec<u8>,
}

/// One replacement.
#[derive(Debug)]
struct ReplaceStage {
    rule: Replacement,
    text: String,
    /// The text before it was emitted.
    done: usize,
    /// Whether a match has ended there: an empty one does not follow it.
    ended_match: bool,
}

impl ReplaceStream {
    /// Begins a body.
    pub fn new(replacements: Vec<Replacement>) -> Self {
        let stage = |rule| ReplaceStage { rule, text: String::new(), done: 0, ended_match: false };
        ReplaceStream { stages: replacements.into_iter().map(stage).collect(), pending: Vec::new() }
    }
}

impl BodyTransform for ReplaceStream {
    fn write(&mut self, piece: &[u8], emit: &mut dyn FnMut(&[u8])) -> Result<(), TransformError> {
        for piece in piece.chunks(PIECE_BYTES) {
            self.pending.extend_from_slice(piece);
            let complete = complete_len(&self.pending);
            let text = text_of_bytes(&self.pending[..complete]).into_owned();
            self.pending.drain(..complete);
            pass(&mut self.stages, &text, emit)?;
        }
        Ok(())
    }

    fn finish(&mut self, emit: &mut dyn FnMut(&[u8])) -> Result<(), TransformError> {
        let text = text_of_bytes(&std::mem::take(&mut self.pending)).into_owned();
        pass(&mut self.stages, &text, emit)?;
        finish(&mut self.stages, emit)
    }
}

/// Passes text through the replacements, one after the other.
fn pass(
    stages: &mut [ReplaceStage],
    text: &str,
    emit: &mut dyn FnMut(&[u8]),
) -> Result<(), TransformError> {
    let Some((stage, rest)) = stages.split_first_mut() else {
        if !text.is_empty() {
            emit(&bytes_of_text(text));
        }
        return Ok(());
    };
    let mut text = text;
    loop {
        // Searches begin at the same places of a body, whatever its pieces are.
        let missing = SEARCHED_BYTES.saturating_sub(stage.text.len() - stage.done);
        if text.len() < missing {
            stage.text.push_str(text);
            return Ok(());
        }
        let (taken, later) = text.split_at(char_boundary_after(text, missing));
        stage.text.push_str(taken);
        let new = stage.search(false).map_err(|_| TransformError)?;
        pass(rest, &new, emit)?;
        text = later;
    }
}

/// Returns the first boundary of a character that is not before `at`, which is in the text.
fn char_boundary_after(text: &str, at: usize) -> usize {
    (at..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

/// Ends the body.
fn finish(stages: &mut [ReplaceStage], emit: &mut dyn FnMut(&[u8])) -> Result<(), TransformError> {
    let Some((stage, rest)) = stages.split_first_mut() else { return Ok(()) };
    let new = stage.search(true).map_err(|_| TransformError)?;
    pass(rest, &new, emit)?;
    finish(rest, emit)
}

impl ReplaceStage {
    /// Replaces the matches that begin before the held text, and returns the text up to there.
    fn search(&mut self, is_last: bool) -> Result<String, ReplaceError> {
        let held = if is_last { 0 } else { HELD_BYTES };
        let end = char_boundary(&self.text, self.text.len() - held);
        let mut out = String::new();
        let mut at = self.done;
        let mut run = self.rule.time.run(self.text.len());
        while at <= self.text.len() {
            let Some(groups) = self.rule.from.captures_at(&self.text, at) else { break };
            let Some(whole) = groups.get(0) else { break };
            if whole.start() >= end && !is_last {
                break;
            }
            let is_empty = whole.start() == whole.end();
            if is_empty {
                let next = self.text[whole.end()..].chars().next().map_or(1, char::len_utf8);
                at = whole.end() + next;
                if whole.end() == self.done && self.ended_match {
                    continue;
                }
            } else {
                at = whole.end();
            }
            out.push_str(&self.text[self.done..whole.start()]);
            self.rule.to.expand(&groups, &mut out, MAX_NEW_BYTES)?;
            run.found(whole.end() - self.done)?;
            self.done = whole.end();
            self.ended_match = true;
        }
        run.end(end.saturating_sub(self.done))?;
        if self.done < end {
            out.push_str(&self.text[self.done..end]);
            self.done = end;
            self.ended_match = false;
        }
        self.forget();
        Ok(out)
    }

    /// Frees the text that is not needed any more.
    fn forget(&mut self) {
        let start = char_boundary(&self.text, self.done.saturating_sub(CONTEXT_BYTES));
        self.text.drain(..start);
        self.done -= start;
    }
}

/// Returns the length without the character at the end that is not complete.
fn complete_len(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let at = bytes.len() - back;
        let length = match bytes[at] {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        return if length > back { at } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::super::replace::replace_bytes;
    use super::super::replace::tests::list;
    use super::*;
    use crate::http1::mutator::Mutator;

    fn run(body: &[u8], size: usize, pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut stream = ReplaceStream::new(list(pairs));
        let mut out = Vec::new();
        for piece in body.chunks(size) {
            stream.write(piece, &mut |b| out.extend_from_slice(b)).unwrap();
        }
        stream.finish(&mut |b| out.extend_from_slice(b)).unwrap();
        out
    }

    fn whole(body: &[u8], pairs: &[(&str, &str)]) -> Vec<u8> {
        let changed = replace_bytes(body, &list(pairs), usize::MAX / 2, &mut Vec::new()).unwrap();
        changed.unwrap_or_else(|| body.to_vec())
    }

    /// What a stream makes of a body is what the same replacements make of the whole body.
    #[test]
    fn a_body_in_pieces_changes_as_the_whole_one() {
        let words = ["secret", "ä", "\n", "key=1 ", "x", "\u{10ffff}", "12-34 ", "<b>"];
        let mut random = Mutator(7);
        let lists: [&[(&str, &str)]; 5] = [
            &[("secret", "[x]"), ("x+", "y"), (r"\[y\]", "")],
            &[("", "-")],
            &[("^secret|x$|\\bä", "Ü$0")],
            &[("(?m)^.", "<$0>"), ("ä?", ".")],
            &[(r"(\d+)-(\d+)", "$2-$1"), ("(?s)key.*?x", "")],
        ];
        for round in 0..10 {
            let mut body = Vec::new();
            while body.len() < 2 * SEARCHED_BYTES {
                body.extend_from_slice(words[random.below(words.len())].as_bytes());
                if random.below(50) == 0 {
                    body.push(0x80 | random.below(128) as u8);
                }
            }
            body.truncate(random.below(body.len()));
            let pairs = lists[round % lists.len()];
            for size in [1 + random.below(100), 5000] {
                assert_eq!(run(&body, size, pairs), whole(&body, pairs), "{round} {size}");
            }
        }
    }

    #[test]
    fn a_match_longer_than_the_held_text_does_not_depend_on_the_pieces() {
        // Searches at 35,000 bytes, as with pieces of 5,000, are fewer than at 32 KiB.
        let body = [b"<".to_vec(), vec![b'a'; 69_000], b">\xc3".to_vec()].concat();
        for pairs in [&[("(?s)<.*>", "x"), ("a", "b")][..], &[("(?s)a.*", "\u{e4}")]] {
            let expected = run(&body, body.len(), pairs);
            for size in [100, 4999, 5000, HELD_BYTES + 1] {
                assert!(run(&body, size, pairs) == expected, "{size}");
            }
        }
    }

    #[test]
    fn memory_is_bounded_and_text_passes_before_the_end() {
        let mut stream = ReplaceStream::new(list(&[("secret", "x"), ("x", "y")]));
        let (mut out, mut most) = (0, 0);
        for _ in 0..200 {
            stream.write(&[b'a'; 7000], &mut |b| out += b.len()).unwrap();
            most = most.max(stream.stages.iter().map(|stage| stage.text.capacity()).sum());
        }
        assert!(out > 1_300_000 && most < 200_000, "{out} {most}");
    }

    #[test]
    fn a_text_that_grows_too_much_is_an_error() {
        let mut stream = ReplaceStream::new(list(&[("a", &"b".repeat(100))]));
        assert_eq!(stream.write(&[b'a'; 40_000], &mut |_| {}), Err(TransformError));
    }
}
