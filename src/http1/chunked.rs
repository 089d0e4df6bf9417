//! Decodes a chunked body (RFC 9112 7.1) as its bytes arrive. Also finds its end for callers
//! that pass the bytes on unchanged.

use super::error::HttpError;
use super::line::{Strictness, is_control};
use super::text::is_token;

/// Most digits of the size of a chunk. The number fits into 63 bits.
pub const MAX_SIZE_DIGITS: u8 = 15;

/// Most bytes of a chunk extension, its blanks included.
pub const MAX_EXTENSION: usize = 4096;

/// Most bytes of the trailer lines, their line ends included.
pub const MAX_TRAILERS: usize = 16 * 1024;

/// Position of the next byte in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the size, after this number of digits.
    Size {
        digits: u8,
    },
    /// In the blanks after the size.
    Blanks,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    Done,
}

/// Decoder of one chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkedDecoder {
    strictness: Strictness,
    state: State,
    /// Bytes of data that are missing from the chunk.
    left: u64,
    /// Number of bytes of the extension or of the trailers so far.
    line: usize,
}

impl ChunkedDecoder {
    /// Creates a decoder at the first byte of a body. Lenient: lines may end with LF alone, and
    /// trailer lines may be malformed.
    pub fn new(strictness: Strictness) -> Self {
        ChunkedDecoder { strictness, state: State::Size { digits: 0 }, left: 0, line: 0 }
    }

    /// Returns whether the body has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Returns whether all data has arrived. Trailers may follow.
    pub fn is_behind_data(&self) -> bool {
        matches!(
            self.state,
            State::Trailer
                | State::TrailerName
                | State::TrailerValue
                | State::TrailerLf
                | State::LastLf
                | State::Done
        )
    }

    /// Returns how many announced data bytes of the current chunk are missing.
    pub fn missing(&self) -> u64 {
        self.left
    }

    /// Parses the next bytes without using their data. Returns how many belong to the body:
    /// all, unless it has ended.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<usize, HttpError> {
        self.feed(bytes, &mut |_| {})
    }

    /// Parses the next bytes and passes their data to `data`, in order. Returns how many bytes
    /// belong to the body: all, unless it has ended.
    pub fn feed(&mut self, bytes: &[u8], data: &mut dyn FnMut(&[u8])) -> Result<usize, HttpError> {
        let (used, error) = self.advance(bytes, data);
        error.map_or(Ok(used), Err)
    }

    /// Parses like [`Self::feed`], for callers that need the number of valid bytes before an
    /// error.
    pub fn advance(
        &mut self,
        bytes: &[u8],
        data: &mut dyn FnMut(&[u8]),
    ) -> (usize, Option<HttpError>) {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::Done => break,
                State::Data => {
                    let here = bytes.len() - at;
                    let here = usize::try_from(self.left).unwrap_or(here).min(here);
                    data(&bytes[at..at + here]);
                    // Widening; `here` is at most `left`.
                    self.left -= here as u64;
                    at += here;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                }
                state => {
                    match self.step(state, byte) {
                        Ok(next) => self.state = next,
                        Err(error) => return (at, Some(error)),
                    }
                    at += 1;
                }
            }
        }
        (at, None)
    }

    /// Returns the state after a byte that is not data.
    fn step(&mut self, state: State, byte: u8) -> Result<State, HttpError> {
        Ok(match (state, byte) {
            (State::Size { digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if digits == MAX_SIZE_DIGITS {
                    return Err(HttpError::ChunkSizeTooLarge);
                }
                let digit = if byte <= b'9' { byte - b'0' } else { (byte | 0x20) - b'a' + 10 };
                self.left = self.left << 4 | u64::from(digit);
                State::Size { digits: digits + 1 }
            }
            (State::Size { digits: 1.. } | State::Blanks | State::Extension, b'\r') => {
                State::SizeLf
            }
            (State::Size { digits: 1.. } | State::Blanks | State::Extension, b'\n')
                if self.is_lenient() =>
            {
                self.behind_size()
            }
            (State::Size { digits: 1.. } | State::Blanks, b' ' | b'\t') => {
                self.count(MAX_EXTENSION, HttpError::ChunkExtensionTooLong)?;
                State::Blanks
            }
            (State::Size { digits: 1.. } | State::Blanks, b';') => State::Extension,
            (State::Extension, _) if !is_control(byte) => {
                self.count(MAX_EXTENSION, HttpError::ChunkExtensionTooLong)?;
                State::Extension
            }
            (State::SizeLf, b'\n') => self.behind_size(),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataCr, b'\n') if self.is_lenient() => State::Size { digits: 0 },
            (State::DataLf, b'\n') => State::Size { digits: 0 },
            (State::DataCr | State::DataLf, _) => return Err(HttpError::ChunkEnd),
            (State::Trailer, b'\r') => State::LastLf,
            (State::Trailer, b'\n') if self.is_lenient() => State::Done,
            (State::LastLf, b'\n') => State::Done,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerName | State::TrailerValue, b'\n') if self.is_lenient() => {
                State::Trailer
            }
            (State::TrailerName, b'\r') if self.is_lenient() => State::TrailerLf,
            (State::TrailerLf, b'\n') => State::Trailer,
            (State::Trailer | State::TrailerName | State::TrailerValue, _) => {
                self.count(MAX_TRAILERS, HttpError::TrailersTooLarge)?;
                match (state, byte) {
                    (State::TrailerName, b':') => State::TrailerValue,
                    (State::TrailerValue, _) if !is_control(byte) => State::TrailerValue,
                    (State::Trailer | State::TrailerName, _)
                        if is_token(&[byte]) || (self.is_lenient() && !is_control(byte)) =>
                    {
                        State::TrailerName
                    }
                    _ => return Err(HttpError::Trailer),
                }
            }
            (State::TrailerLf | State::LastLf, _) => return Err(HttpError::Trailer),
            _ => return Err(HttpError::ChunkSize),
        })
    }

    /// Returns the state after the line with the size.
    fn behind_size(&mut self) -> State {
        self.line = 0;
        if self.left == 0 { State::Trailer } else { State::Data }
    }

    fn is_lenient(&self) -> bool {
        self.strictness == Strictness::Lenient
    }

    /// Counts a byte. More than `most` are an error.
    fn count(&mut self, most: usize, error: HttpError) -> Result<(), HttpError> {
        self.line += 1;
        if self.line > most { Err(error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns how many bytes belong to the body, and its data, with the input split at `cut`.
    fn decode(
        strictness: Strictness,
        body: &[u8],
        cut: usize,
    ) -> Result<(usize, String), HttpError> {
        let mut decoder = ChunkedDecoder::new(strictness);
        let mut data = Vec::new();
        let mut used = decoder.feed(&body[..cut], &mut |d| data.extend_from_slice(d))?;
        if used == cut {
            used += decoder.feed(&body[cut..], &mut |d| data.extend_from_slice(d))?;
        }
        assert!(decoder.is_done(), "{:?}", String::from_utf8_lossy(body));
        assert_eq!(decoder.follow(b"more"), Ok(0));
        Ok((used, String::from_utf8_lossy(&data).into_owned()))
    }

    #[test]
    fn the_end_and_the_data_are_the_same_for_every_cut() {
        let body = b"5\r\nhello\r\n1A ; name=\"v\"\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nA: b\r\n\
                     C:\r\n\r\nGET";
        let len = body.len() - 3;
        for strictness in [Strictness::Strict, Strictness::Lenient] {
            for cut in 0..body.len() {
                let data = "helloabcdefghijklmnopqrstuvwxyz".to_owned();
                assert_eq!(decode(strictness, body, cut), Ok((len, data)), "cut at {cut}");
            }
        }
    }

    #[test]
    fn smuggling_is_refused() {
        for (bad, error) in [
            (&b"5\nhello\r\n0\r\n\r\n"[..], HttpError::ChunkSize),
            (b"\r\nhello", HttpError::ChunkSize),
            (b";a\r\nhello", HttpError::ChunkSize),
            (b"0x5\r\nhello\r\n", HttpError::ChunkSize),
            (b"+5\r\nhello\r\n", HttpError::ChunkSize),
            (b"-1\r\n", HttpError::ChunkSize),
            (b" 5\r\nhello", HttpError::ChunkSize),
            (b"1_0\r\n", HttpError::ChunkSize),
            (b"5 5\r\nhello", HttpError::ChunkSize),
            (b"5;a\nb\r\nhello", HttpError::ChunkSize),
            (b"5;\rX", HttpError::ChunkSize),
            (b"5\rX", HttpError::ChunkSize),
            (b"5;\0\r\n", HttpError::ChunkSize),
            (b"5\r\nhelloX\r\n", HttpError::ChunkEnd),
            (b"5\r\nhello\n0\r\n", HttpError::ChunkEnd),
            (b"5\r\nhello\rX", HttpError::ChunkEnd),
            (b"fffffffffffffffff\r\n", HttpError::ChunkSizeTooLarge),
            (b"0000000000000005\r\n", HttpError::ChunkSizeTooLarge),
            (b"0\r\nA: b\n\r\n", HttpError::Trailer),
            (b"0\r\n\n", HttpError::Trailer),
            (b"0\r\n\rX", HttpError::Trailer),
            (b"0\r\n folded\r\n\r\n", HttpError::Trailer),
            (b"0\r\n: b\r\n\r\n", HttpError::Trailer),
            (b"0\r\nno colon\r\n\r\n", HttpError::Trailer),
            (b"0\r\nname\r\n\r\n", HttpError::Trailer),
            (b"0\r\nA : b\r\n\r\n", HttpError::Trailer),
            (b"0\r\nA: b\0\r\n\r\n", HttpError::Trailer),
        ] {
            for size in [1, 1000] {
                let mut decoder = ChunkedDecoder::new(Strictness::Strict);
                let got = bad.chunks(size).find_map(|piece| decoder.follow(piece).err());
                assert_eq!(got, Some(error), "{:?}", String::from_utf8_lossy(bad));
            }
        }
    }

    #[test]
    fn bare_line_feeds_and_odd_trailers_are_for_lenient_readers() {
        for body in [
            &b"5\nhello\n0\n\n"[..],
            b"5 \r\nhello\n0;a\n\r\n",
            b"5\r\nhello\r\n0\r\nno colon\r\n fold\nA:b\n\n",
        ] {
            let len = body.len();
            for cut in 0..len {
                let read = decode(Strictness::Lenient, body, cut);
                assert_eq!(read, Ok((len, "hello".to_owned())));
            }
            assert!(ChunkedDecoder::new(Strictness::Strict).follow(body).is_err());
        }
        assert!(ChunkedDecoder::new(Strictness::Lenient).follow(b"5\r\nhello\rX").is_err());
    }

    #[test]
    fn lines_without_end_are_bounded() {
        for start in ["5;", "5 "] {
            let mut decoder = ChunkedDecoder::new(Strictness::Strict);
            decoder.follow(start.as_bytes()).unwrap();
            let fill = if start.ends_with(' ') { b' ' } else { b'x' };
            let error = decoder.follow(&vec![fill; MAX_EXTENSION + 1]);
            assert_eq!(error, Err(HttpError::ChunkExtensionTooLong));
        }
        let mut decoder = ChunkedDecoder::new(Strictness::Strict);
        decoder.follow(b"0\r\n").unwrap();
        let error = (0..=MAX_TRAILERS).find_map(|_| decoder.follow(b"A: bcdef\r\n").err());
        assert_eq!(error, Some(HttpError::TrailersTooLarge));
    }

    #[test]
    fn extensions_are_bounded_one_by_one() {
        let mut decoder = ChunkedDecoder::new(Strictness::Strict);
        for _ in 0..3 {
            let extension = "x".repeat(MAX_EXTENSION);
            let chunk = format!("1;{extension}\r\na\r\n");
            assert_eq!(decoder.follow(chunk.as_bytes()), Ok(chunk.len()));
        }
    }
}
