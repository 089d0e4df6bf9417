//! Target `policy_replacement`: replacement of text in bodies and in server-sent events. The
//! pieces in which a body arrives do not change the result, also not an error. Lengths stay below
//! their limits.
//!
//! An input is the number of a list of replacements, the length of the pieces, how often the body
//! is repeated, and the body.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use culvert::edge::actions::body_transform::{BodyTransform, TransformError};
use culvert::edge::policy::event_stream::{
    EventField, EventReplacement, EventRewriter, MAX_EVENT_BYTES, change_event,
};
use culvert::edge::policy::replace::{
    Replacement, Substitution, bytes_of_text, expression, text_of_bytes,
};
use culvert::edge::policy::replace_stream::ReplaceStream;
use culvert::edge::policy::search_time::SearchTime;

use crate::driver;
use crate::input::Dice;

/// Longest repeated body: more than the stream keeps.
const MAX_BODY_BYTES: usize = 100_000;

/// Most bytes that one replacement makes of a byte: the longest new text is below it.
const MAX_GROWTH: usize = 16;

/// Lists of replacements: empty matches, anchors, groups, long matches, growth.
const LISTS: &[&[(&str, &str)]] = &[
    &[("secret", "[x]"), ("x+", "y"), (r"\[y\]", "")],
    &[("", "-")],
    &[("^secret|x$|\\ba", "\u{dc}$0")],
    &[("(?m)^.", "<$0>"), ("\u{e4}?", ".")],
    &[(r"(\d+)-(\d+)", "$2-$1"), ("(?s)<.*>", "$$")],
    &[("(?s)a.*", "b"), ("b", "aaaa")],
    &[("\r?\n", "\n\n"), ("data", "id")],
    &[("(?P<n>[^a-z])", "${n}${n}")],
    &[("a", "")],
    &[("(?s).", "12345678")],
];

/// Checks all of it.
pub fn check(data: &[u8]) {
    let [list, size, times, body @ ..] = data else { return };
    let list = LISTS[usize::from(*list) % LISTS.len()];
    let body = body.repeat(usize::from(*times) + 1);
    let body = &body[..body.len().min(MAX_BODY_BYTES)];
    assert_eq!(*bytes_of_text(&text_of_bytes(body)), *body);
    // One byte at a time, and a length that is not a divisor of the bounds.
    let sizes = [usize::from(*size) + 1, 37 * (usize::from(*size) + 1)];
    check_body(body, list, sizes);
    check_events(body, list, sizes);
}

fn replacements(list: &[(&str, &str)]) -> Vec<Replacement> {
    let one = |(from, to): &(&str, &str)| Replacement {
        from: Arc::new(expression(from).expect("an expression of the list")),
        to: Substitution::parse(to),
        // Without a limit: the result is the same on each machine.
        time: SearchTime::new(|| Duration::ZERO),
    };
    list.iter().map(one).collect()
}

/// Output of a stream until its end or its error.
type Outcome = (Vec<u8>, Result<(), TransformError>);

fn replaced(body: &[u8], size: usize, list: &[(&str, &str)]) -> Outcome {
    let mut stream = ReplaceStream::new(replacements(list));
    let mut out = Vec::new();
    let mut run = || {
        for piece in body.chunks(size) {
            stream.write(piece, &mut |bytes| out.extend_from_slice(bytes))?;
        }
        stream.finish(&mut |bytes| out.extend_from_slice(bytes))
    };
    let end = run();
    (out, end)
}

fn check_body(body: &[u8], list: &[(&str, &str)], sizes: [usize; 2]) {
    let whole = replaced(body, body.len().max(1), list);
    for size in sizes {
        assert!(replaced(body, size, list) == whole, "pieces of {size} bytes change the body");
    }
    let most = list.iter().fold(body.len() + 1, |most, _| most * MAX_GROWTH);
    assert!(whole.0.len() <= most, "{} bytes of {}", whole.0.len(), body.len());
}

fn rewritten(stream: &[u8], size: usize, list: &[EventReplacement]) -> (Vec<u8>, bool) {
    let mut rewriter = EventRewriter::default();
    let mut longest = 0;
    let mut change = |event: &[u8]| {
        longest = longest.max(event.len());
        change_event(event, list, &mut Vec::new())
    };
    let mut out = Vec::new();
    let run = || {
        for piece in stream.chunks(size) {
            rewriter.feed(piece, &mut change, &mut |bytes| out.extend_from_slice(bytes))?;
        }
        rewriter.finish(&mut change, &mut |bytes| out.extend_from_slice(bytes))
    };
    let is_complete = run().is_ok();
    assert!(longest <= MAX_EVENT_BYTES + 1, "an event of {longest} bytes");
    (out, is_complete)
}

fn check_events(stream: &[u8], list: &[(&str, &str)], sizes: [usize; 2]) {
    let fields = [EventField::Data, EventField::Retry].into_iter().cycle();
    let list: Vec<EventReplacement> = replacements(list)
        .into_iter()
        .zip(fields)
        .map(|(replacement, field)| EventReplacement { field, replacement })
        .collect();
    let whole = rewritten(stream, stream.len().max(1), &list);
    for size in sizes {
        assert!(rewritten(stream, size, &list) == whole, "pieces of {size} bytes change events");
    }
    // Without a replacement every byte passes.
    assert!(rewritten(stream, sizes[0], &[]) == (stream.to_vec(), true), "an event has changed");
}

const PIECES: &[&str] = &[
    "secret",
    "data: ",
    "data:a\n",
    "retry: 10\n",
    "id: 7\n",
    ":c\n",
    "\n\n",
    "\r\n\r\n",
    "\r\r",
    "\n",
    "\r",
    "\u{feff}",
    "\u{e4}",
    "\u{10ffff}",
    "12-34 ",
    "<",
    ">",
    "x",
    "a",
    " ",
];

/// Returns a stored body, with pieces inserted, repeated and removed.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    static CORPUS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let corpus = CORPUS.get_or_init(|| driver::corpus("policy_replacement"));
    let mut input = corpus[dice.below(corpus.len())].clone();
    for _ in 0..dice.below(12) {
        let at = dice.below(input.len() + 1).max(3.min(input.len()));
        let to = (at + dice.below(4)).min(input.len());
        let times = if dice.below(8) == 0 { dice.below(4_000) } else { 1 };
        drop(input.splice(at..to, dice.pick(PIECES).repeat(times).into_bytes()));
    }
    for byte in input.iter_mut().take(2) {
        *byte = u8::try_from(dice.below(256)).unwrap_or_default();
    }
    // Most bodies are short: the long ones take the time.
    if let Some(times) = input.get_mut(2) {
        *times = if dice.below(8) == 0 { u8::try_from(dice.below(256)).unwrap_or(0) } else { 0 };
    }
    input
}
