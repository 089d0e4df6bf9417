//! Text of an expression to its syntax tree, with the parser of the crate `cel`.
//!
//! The parser recurses by the text, and a tree is dropped by recursion. Both happen on a thread
//! with a large stack ([`on_large_stack`]). The compiled form is not deep.

use std::sync::mpsc;

use cel::IdedExpr;
use cel::parser::PrattParser;
use cel::parser::pratt_parser::{Lexer, TokenKind};

use super::fault::ExpressionFault;
use crate::sys::threads;

/// Longest expression.
pub(super) const MAX_SOURCE_BYTES: usize = 4096;

/// Most tokens of an expression.
const MAX_TOKENS: usize = 2048;

/// Deepest nesting that the parser follows; more than [`super::compile::MAX_DEPTH`], because
/// a parenthesis counts here.
const MAX_PARSE_DEPTH: u16 = 64;

/// Name under which `has` reaches the compiler. The parser's own macro does not accept
/// `has(a['b'])`. It has the same length, so that offsets remain.
pub(super) const HAS: &str = "Has";

/// Runs a function on a thread with a large stack. `None`: the thread did not start.
pub(super) fn on_large_stack<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (result, received) = mpsc::channel();
    // The receiver waits until the result is there or the thread ends.
    threads::POLICY.spawn(Box::new(move || drop(result.send(work())))).ok()?;
    received.recv().ok()
}

/// Parses an expression. To be called on a large stack, where the tree must be dropped too.
pub(super) fn parse(source: &str) -> Result<IdedExpr, ExpressionFault> {
    if source.len() > MAX_SOURCE_BYTES {
        let reason = format!("the expression has more than {MAX_SOURCE_BYTES} bytes.");
        return Err(ExpressionFault::new(0, reason));
    }
    if source.trim().is_empty() {
        return Err(ExpressionFault::new(0, "the expression is empty."));
    }
    let renamed = with_renamed_has(source)?;
    PrattParser::new().max_recursion_depth(MAX_PARSE_DEPTH).parse(&renamed).map_err(|errors| {
        let Some(first) = errors.errors.into_iter().next() else {
            return ExpressionFault::new(0, "the expression is not valid.");
        };
        let offset = byte_offset(source, first.pos);
        let found = source.get(offset..).and_then(|rest| rest.chars().next());
        ExpressionFault::new(offset, syntax_reason(first.msg.trim_end_matches('.'), found))
    })
}

/// Returns the reason of a fault of the syntax, with the character at which it is.
fn syntax_reason(reason: &str, found: Option<char>) -> String {
    match found {
        Some('$') => "unexpected '$': write the expression without ${ and }.".to_owned(),
        Some(found) if reason.starts_with("unexpected") => format!("{reason}: '{found}'."),
        _ => format!("{reason}."),
    }
}

/// Returns the text with `has(` replaced. Also counts the tokens.
fn with_renamed_has(source: &str) -> Result<String, ExpressionFault> {
    let mut renamed = source.to_owned();
    let mut before = TokenKind::TokEnd;
    let mut name = None;
    for (n, (kind, start, end)) in tokens(source).enumerate() {
        if n >= MAX_TOKENS {
            return Err(ExpressionFault::new(start, "the expression has too many parts."));
        }
        if let (TokenKind::TokLeftParen, Some((start, end))) = (kind, name) {
            match &source[start..end] {
                "has" => renamed.replace_range(start..end, HAS),
                HAS => return Err(ExpressionFault::new(start, "unknown function: Has.")),
                _ => {}
            }
        }
        let is_name = kind == TokenKind::TokIdent && before != TokenKind::TokDot;
        name = is_name.then_some((start, end));
        before = kind;
    }
    Ok(renamed)
}

/// Returns the tokens of a text with their bytes, up to the first error.
fn tokens(source: &str) -> impl Iterator<Item = (TokenKind, usize, usize)> {
    let mut lexer = Lexer::new(source);
    std::iter::from_fn(move || {
        loop {
            let token = lexer.lex();
            match token.kind {
                TokenKind::TokEnd | TokenKind::TokError => return None,
                TokenKind::TokWhitespace | TokenKind::TokComment => {}
                kind => return Some((kind, token.start, token.end)),
            }
        }
    })
}

/// Returns the byte of the brace that ends the expression at the start of a text. Braces of maps
/// and braces in texts do not end it.
pub(super) fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (kind, start, _) in tokens(text) {
        match kind {
            TokenKind::TokLeftBrace => depth += 1,
            TokenKind::TokRightBrace if depth == 0 => return Some(start),
            TokenKind::TokRightBrace => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Returns the byte of a name in a text, for a fault. The tree does not have the places of its
/// nodes; the first token with the name is near enough.
pub(super) fn offset_of(source: &str, name: &str) -> usize {
    let found = tokens(source).find(|(_, start, end)| source.get(*start..*end) == Some(name));
    found.map_or(0, |(_, start, _)| start)
}

/// Returns the byte of a line and a column, both from 1.
fn byte_offset(source: &str, (line, column): (isize, isize)) -> usize {
    let before: usize = source
        .split_inclusive('\n')
        .take(usize::try_from(line - 1).unwrap_or(0))
        .map(str::len)
        .sum();
    before.saturating_add(usize::try_from(column - 1).unwrap_or(0)).min(source.len())
}
