//! Finds the end of a chunked body without changing its bytes. Strict: every line ends with CR
//! LF and sizes are plain hexadecimal, so that the next reader finds the same end.

/// Longest line of a chunk's size with its extensions.
const MAX_SIZE_LINE_BYTES: usize = 4096;

/// Most bytes of trailer fields.
const MAX_TRAILER_BYTES: usize = 16 * 1024;

/// Where in the body the next byte lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    Size { digits: u8 },
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    LineStart,
    Line,
    LineEnd,
    LastLf,
    Done,
}

/// Follows one chunked body.
#[derive(Debug)]
pub struct Chunked {
    state: ChunkState,
    left: u64,
    line: usize,
}

impl Default for Chunked {
    fn default() -> Self {
        Chunked::new()
    }
}

impl Chunked {
    /// At the start of a body.
    pub fn new() -> Self {
        Chunked { state: ChunkState::Size { digits: 0 }, left: 0, line: 0 }
    }

    /// Whether the body is over.
    pub fn is_done(&self) -> bool {
        self.state == ChunkState::Done
    }

    /// Follows `bytes`. Returns how many of them belong to the body: all, unless
    /// it ended inside.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let mut i = 0;
        while i < bytes.len() {
            if self.state == ChunkState::Data {
                let here = u64::try_from(bytes.len() - i).unwrap_or(u64::MAX).min(self.left);
                self.left -= here;
                // No more than `bytes.len()`: it came from there.
                i += usize::try_from(here).unwrap_or(0);
                if self.left == 0 {
                    self.state = ChunkState::DataCr;
                }
                continue;
            }
            if self.state == ChunkState::Done {
                return Ok(i);
            }
            self.step(bytes[i])?;
            i += 1;
        }
        Ok(i)
    }

    fn step(&mut self, b: u8) -> Result<(), &'static str> {
        self.state = match (self.state, b) {
            (ChunkState::Size { digits }, _) if b.is_ascii_hexdigit() => {
                if digits == 15 {
                    return Err("a chunk size that is too large");
                }
                let digit = char::from(b).to_digit(16).unwrap_or(0);
                self.left = self.left * 16 + u64::from(digit);
                self.line = 0;
                ChunkState::Size { digits: digits + 1 }
            }
            (ChunkState::Size { digits: 0 }, _) => return Err("a chunk without a size"),
            (ChunkState::Size { .. } | ChunkState::Extension, b'\r') => ChunkState::SizeEnd,
            (ChunkState::Size { .. }, b';' | b' ' | b'\t') => ChunkState::Extension,
            (ChunkState::Size { .. }, _) => return Err("a chunk size that is not hexadecimal"),
            (ChunkState::Extension, _) => {
                self.line += 1;
                if self.line > MAX_SIZE_LINE_BYTES || (b < 0x20 && b != b'\t') || b == 0x7f {
                    return Err("a chunk extension that is too long or has control characters");
                }
                ChunkState::Extension
            }
            (ChunkState::SizeEnd, b'\n') if self.left == 0 => {
                self.line = 0;
                ChunkState::LineStart
            }
            (ChunkState::SizeEnd, b'\n') => ChunkState::Data,
            (ChunkState::DataCr, b'\r') => ChunkState::DataLf,
            (ChunkState::DataLf, b'\n') => ChunkState::Size { digits: 0 },
            (ChunkState::LineStart, b'\r') => ChunkState::LastLf,
            (ChunkState::LineStart, b' ' | b'\t' | b':') => return Err("a malformed trailer"),
            (ChunkState::Line, b'\r') => ChunkState::LineEnd,
            (ChunkState::LineStart | ChunkState::Line, _) => {
                self.line += 1;
                if self.line > MAX_TRAILER_BYTES || (b < 0x20 && b != b'\t') || b == 0x7f {
                    return Err("trailers that are too long or have control characters");
                }
                ChunkState::Line
            }
            (ChunkState::LineEnd, b'\n') => ChunkState::LineStart,
            (ChunkState::LastLf, b'\n') => ChunkState::Done,
            _ => return Err("a chunked body without CR LF where it must be"),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_the_same_for_every_cut() {
        let body =
            b"5\r\nhello\r\n1a;name=\"v\"\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nA: b\r\n\r\nGET";
        let len = body.len() - 3;
        for cut in 0..body.len() {
            let mut c = Chunked::new();
            let a = c.feed(&body[..cut]).unwrap();
            let b = c.feed(&body[a..]).unwrap();
            assert_eq!(a + b, len, "cut at {cut}");
            assert!(c.is_done());
            assert_eq!(c.feed(b"more").unwrap(), 0);
        }
    }

    #[test]
    fn smuggling_is_refused() {
        for bad in [
            &b"5\nhello\r\n0\r\n\r\n"[..],
            b"\r\nhello",
            b"0x5\r\nhello\r\n",
            b"+5\r\nhello\r\n",
            b"-1\r\n",
            b" 5\r\nhello",
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\n0\r\n",
            b"5;a\nb\r\nhello",
            b"5;\rX",
            b"fffffffffffffffff\r\n",
            b"0\r\nA: b\n\r\n",
            b"0\r\n\n",
            b"0\r\n folded\r\n\r\n",
            b"1_0\r\n",
        ] {
            let mut c = Chunked::new();
            assert!(c.feed(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn lines_without_end_are_bounded() {
        let mut c = Chunked::new();
        c.feed(b"5;").unwrap();
        assert!(c.feed(&vec![b'x'; MAX_SIZE_LINE_BYTES + 1]).is_err());
        let mut c = Chunked::new();
        c.feed(b"0\r\n").unwrap();
        assert!(c.feed(&vec![b'x'; MAX_TRAILER_BYTES + 1]).is_err());
    }
}
