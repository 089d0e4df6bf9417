//! Target `http1_chunked`: a chunked body, split at any position. End and data do not depend on
//! the pieces, a strict reader agrees with a lenient one, and both with a slow reader that is
//! written here line by line.

use culvert::http1::chunked::ChunkedDecoder;
use culvert::http1::error::HttpError;
use culvert::http1::line::Strictness;

use crate::input::Dice;

/// Bytes of the body, its data, and whether it ended.
type Outcome = Result<(usize, Vec<u8>, bool), HttpError>;

/// The first byte decides the pieces.
pub fn check(data: &[u8]) {
    let (cuts, bytes) = data.split_first().unwrap_or((&0, &[]));
    let mut read = Vec::new();
    for strictness in [Strictness::Strict, Strictness::Lenient] {
        let whole = decode(strictness, bytes, |_| bytes.len().max(1));
        let mut dice = Dice::new(u64::from(*cuts));
        let cut = decode(strictness, bytes, |_| 1 + dice.below(usize::from(*cuts)));
        assert_eq!(whole, cut, "another body when cut");
        read.push(whole);
    }
    if let Ok(strict) = &read[0] {
        assert_eq!(Ok(strict), read[1].as_ref(), "a lenient reader sees another body");
        if strict.2 {
            let slow = slow(bytes).expect("a slow reader accepts it");
            assert_eq!((strict.0, &strict.1), (slow.0, &slow.1));
        }
    } else {
        assert!(slow(bytes).is_none(), "a slow reader accepts what {:?} refuses", read[0]);
    }
}

fn decode(strictness: Strictness, bytes: &[u8], mut size: impl FnMut(usize) -> usize) -> Outcome {
    let mut decoder = ChunkedDecoder::new(strictness);
    let (mut used, mut data) = (0, Vec::new());
    while used < bytes.len() && !decoder.is_done() {
        let piece = &bytes[used..bytes.len().min(used + size(used))];
        let n = decoder.feed(piece, &mut |d| data.extend_from_slice(d))?;
        assert!(n == piece.len() || decoder.is_done(), "it stopped without a reason");
        used += n;
    }
    Ok((used, data, decoder.is_done()))
}

/// The grammar of RFC 9112 7.1 for a whole body: its length and its data.
fn slow(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
    // One character for each byte, with a quote for bytes beyond ASCII, which are valid at the
    // same places.
    let ascii = |b: &u8| if b.is_ascii() { char::from(*b) } else { '"' };
    let rest: String = bytes.iter().map(ascii).collect();
    let (mut at, mut data) = (0, Vec::new());
    let control = |text: &str| text.chars().any(|c| c.is_control() && c != '\t');
    loop {
        let (line, _) = rest[at..].split_once("\r\n")?;
        let (size, extension) = match line.split_once(';') {
            Some((size, extension)) => (size, extension),
            None => (line, ""),
        };
        let size = size.trim_end_matches([' ', '\t']);
        let digits = !size.is_empty() && size.bytes().all(|b| b.is_ascii_hexdigit());
        if !digits || size.len() > 15 || control(extension) || line.len() > 4000 {
            return None;
        }
        at += line.len() + 2;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            break;
        }
        data.extend_from_slice(bytes.get(at..at.checked_add(size)?)?);
        at += size;
        if bytes.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
    let mut trailers = 0;
    loop {
        let (line, _) = rest[at..].split_once("\r\n")?;
        at += line.len() + 2;
        trailers += line.len() + 2;
        if line.is_empty() {
            return (trailers < 16_000).then_some((at, data));
        }
        let (name, value) = line.split_once(':')?;
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(token) || control(value) {
            return None;
        }
    }
}

/// Returns a body that is almost valid.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    let mut out = vec![dice.roll() as u8];
    let end = dice.pick(&["\r\n", "\r\n", "\r\n", "\n"]);
    for _ in 0..dice.below(4) {
        let body = dice.bytes(40);
        let extension =
            dice.pick(&["", "", "", ";a=b", " ;a", "  ", ";\t\"x\"", " x", ";\0", "\r"]);
        let size = if dice.below(30) == 0 { dice.roll() as usize } else { body.len().max(1) };
        out.extend(format!("{size:x}{extension}{end}").bytes());
        out.extend(&body);
        if body.is_empty() {
            out.push(b'x');
        }
        out.extend(end.bytes());
    }
    out.extend(
        dice.pick(&[
            "0\r\n\r\n",
            "0\r\n\r\n",
            "000;x\r\nSum: 1\r\n\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\r\n fold\r\n\r\n",
            "0\n\n",
            "",
        ])
        .bytes(),
    );
    out.extend(dice.bytes(4));
    out
}
