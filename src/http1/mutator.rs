//! Random changes of HTTP/1 text, for tests of the parsers and of their callers.

/// Words that change the meaning of a head or of a chunked body.
const WORDS: [&[u8]; 18] = [
    b"\r\n",
    b"\n",
    b"\r",
    b": ",
    b" ",
    b"\t",
    b"\0",
    b",",
    b"\r\n fold",
    b" : x\r\n",
    b"no colon\r\n",
    b"Content-Length: 5\r\n",
    b"chunked",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n",
    b"Connection: close\r\n",
    b"0\r\n\r\n",
    b"5;x\r\n",
];

/// Generator of pseudorandom changes (xorshift). Equal seeds give equal changes.
pub(crate) struct Mutator(pub(crate) u64);

impl Mutator {
    /// Returns a number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }

    /// Changes, removes, adds or repeats some bytes.
    pub(crate) fn mutate(&mut self, text: &[u8]) -> Vec<u8> {
        let mut out = text.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(out.len().max(1));
            match self.below(4) {
                0 if !out.is_empty() => out[at] = self.below(256) as u8,
                1 if !out.is_empty() => drop(out.remove(at)),
                2 => out.truncate(at),
                _ => drop(out.splice(at..at, WORDS[self.below(WORDS.len())].iter().copied())),
            }
        }
        out
    }
}
