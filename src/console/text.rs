//! External text on a terminal: its width, truncation to a width, and no characters that move
//! the cursor. No I/O.

/// Mark at the end of a truncated text. ASCII, for serial consoles.
const CUT: &str = "...";

/// Combining marks, which have no width. A missing one only misaligns a column.
const MARKS: [(u32, u32); 12] = [
    (0x300, 0x36f),
    (0x483, 0x489),
    (0x591, 0x5bd),
    (0x610, 0x61a),
    (0x64b, 0x65f),
    (0x900, 0x902),
    (0xe34, 0xe3a),
    (0xe47, 0xe4e),
    (0x1ab0, 0x1aff),
    (0x1dc0, 0x1dff),
    (0x20d0, 0x20ff),
    (0xfe00, 0xfe2f),
];

/// Characters of two columns: scripts of East Asia, emoji.
const WIDE: [(u32, u32); 14] = [
    (0x1100, 0x115f),
    (0x231a, 0x231b),
    (0x23e9, 0x23f3),
    (0x25fd, 0x25fe),
    (0x2614, 0x2615),
    (0x2648, 0x27bf),
    (0x2b1b, 0x2b55),
    (0x2e80, 0x303e),
    (0x3041, 0xa4cf),
    (0xa960, 0xa97c),
    (0xac00, 0xd7a3),
    (0xf900, 0xfaff),
    (0xfe30, 0xfe6f),
    (0xff00, 0xff60),
];

/// Returns the character if a terminal can show it, else a replacement.
fn shown(c: char) -> char {
    match u32::from(c) {
        // Controls, characters without width, characters that change the text direction,
        // private use, and values that are not characters.
        0..0x20 | 0x7f..0xa0 | 0xad | 0x61c | 0x200b..=0x200f | 0x2028..=0x202e => '?',
        0x2060..=0x206f | 0xe000..=0xf8ff | 0xfeff | 0xfff0..=0xffff | 0xe0000.. => '?',
        _ => c,
    }
}

/// Returns the columns of a character that [`shown`] accepts.
fn columns(c: char) -> usize {
    let code = u32::from(c);
    if code < 0x300 {
        return 1;
    }
    let within = |ranges: &[(u32, u32)]| ranges.iter().any(|(a, b)| (*a..=*b).contains(&code));
    if within(&MARKS) {
        0
    } else if code >= 0x1f000 || within(&WIDE) {
        2
    } else {
        1
    }
}

/// Returns the columns of a text in the form that [`put`] writes.
pub fn width(text: &str) -> usize {
    text.chars().map(|c| columns(shown(c))).sum()
}

/// Appends `text` in at most `room` columns, with a mark if it was truncated. Returns its
/// columns.
pub fn put(out: &mut String, text: &str, room: usize) -> usize {
    let mut chars = text.chars().map(shown).peekable();
    let mut used = 0;
    // Position for the mark: after it no character of the text is kept.
    let mut cut = (out.len(), 0);
    while let Some(c) = chars.next() {
        let wide = columns(c);
        if used + wide > room {
            out.truncate(cut.0);
            let dots = CUT.get(..CUT.len().min(room - cut.1)).unwrap_or("");
            out.push_str(dots);
            return cut.1 + dots.len();
        }
        out.push(c);
        used += wide;
        // A combining mark belongs to the character before it.
        let whole = chars.peek().is_none_or(|next| columns(*next) > 0);
        if whole && used + CUT.len() <= room {
            cut = (out.len(), used);
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clipped(text: &str, room: usize) -> String {
        let mut out = String::new();
        let used = put(&mut out, text, room);
        assert_eq!(used, width(&out), "{text:?} in {room}");
        assert!(used <= room);
        out
    }

    #[test]
    fn what_fits_stays_and_what_does_not_is_marked() {
        assert_eq!(clipped("abc", 3), "abc");
        assert_eq!(clipped("abcdef", 5), "ab...");
        assert_eq!(clipped("abcdef", 2), "..");
        assert_eq!(clipped("abcdef", 0), "");
        assert_eq!(clipped("", 0), "");
    }

    #[test]
    fn wide_characters_are_never_halved() {
        assert_eq!(clipped("日本語", 6), "日本語");
        assert_eq!(clipped("日本語日", 7), "日本...");
        assert_eq!(clipped("日本語日", 6), "日...");
        assert_eq!(clipped("日本", 1), ".");
        assert_eq!(clipped("e\u{301}e\u{301}", 2), "e\u{301}e\u{301}");
        assert_eq!(clipped("xxxe\u{301}\u{301}yyyy", 7), "xxxe\u{301}\u{301}...");
        assert_eq!(width("😀é"), 3);
    }

    #[test]
    fn nothing_moves_the_cursor() {
        let hostile = "a\x1b[2J\r\n\t\x08\u{9b}31m\u{202e}\u{200f}\u{feff}\u{2028}\u{ad}b\x7f";
        let safe = clipped(hostile, 100);
        assert_eq!(safe, "a?[2J?????31m?????b?");
        for code in 0..0x11_0000 {
            let Some(c) = char::from_u32(code) else { continue };
            assert!(!shown(c).is_control() && columns(shown(c)) <= 2);
        }
    }
}
