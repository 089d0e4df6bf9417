//! Decodes one gzip member with a header without options (RFC 1952), as zopfli writes it,
//! and its deflate blocks (RFC 1951). For the page of this program only: input from others
//! does not belong here.

/// Bytes of a gzip header without options, and of the trailer.
const HEADER_BYTES: usize = 10;
const TRAILER_BYTES: usize = 8;

/// Longest code.
const MAX_CODE_BITS: usize = 15;

/// Order of the lengths of the code lengths (RFC 1951 3.2.7).
const LENGTH_ORDER: [usize; 19] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Returns the decoded bytes; `None` if the input is truncated or invalid.
pub(super) fn gunzip(gzip: &[u8]) -> Option<Vec<u8>> {
    let end = gzip.len().checked_sub(TRAILER_BYTES)?;
    let mut bits = BitReader { bytes: gzip.get(HEADER_BYTES..end)?, bit: 0 };
    let mut out = Vec::new();
    loop {
        let is_last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => stored(&mut bits, &mut out)?,
            1 => {
                let lengths: Vec<u8> = (0..288)
                    .map(|n| match n {
                        0..144 => 8,
                        144..256 => 9,
                        256..280 => 7,
                        _ => 8,
                    })
                    .collect();
                compressed(
                    &mut bits,
                    &HuffmanCode::new(&lengths),
                    &HuffmanCode::new(&[5; 30]),
                    &mut out,
                )?;
            }
            2 => {
                let (literals, distances) = dynamic_codes(&mut bits)?;
                compressed(&mut bits, &literals, &distances, &mut out)?;
            }
            _ => return None,
        }
        if is_last {
            return Some(out);
        }
    }
}

/// Reader of bits, the lowest of a byte first.
struct BitReader<'a> {
    bytes: &'a [u8],
    bit: usize,
}

impl BitReader<'_> {
    fn take(&mut self, count: usize) -> Option<usize> {
        let mut value = 0;
        for n in 0..count {
            let byte = *self.bytes.get(self.bit / 8)?;
            value |= usize::from(byte >> (self.bit % 8) & 1) << n;
            self.bit += 1;
        }
        Some(value)
    }
}

/// Canonical Huffman code: the number of codes of each length, and the symbols in order.
struct HuffmanCode {
    counts: [usize; MAX_CODE_BITS + 1],
    symbols: Vec<usize>,
}

impl HuffmanCode {
    fn new(lengths: &[u8]) -> Self {
        let mut counts = [0; MAX_CODE_BITS + 1];
        let mut symbols = Vec::new();
        for (bits, count) in counts.iter_mut().enumerate().skip(1) {
            let before = symbols.len();
            let same =
                lengths.iter().enumerate().filter(|(_, length)| usize::from(**length) == bits);
            symbols.extend(same.map(|(symbol, _)| symbol));
            *count = symbols.len() - before;
        }
        HuffmanCode { counts, symbols }
    }

    fn symbol(&self, bits: &mut BitReader) -> Option<usize> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in self.counts.iter().skip(1) {
            code |= bits.take(1)?;
            if code < first + count {
                return self.symbols.get(index + code - first).copied();
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

fn stored(bits: &mut BitReader, out: &mut Vec<u8>) -> Option<()> {
    bits.bit = bits.bit.next_multiple_of(8);
    let length = bits.take(16)?;
    bits.take(16)?;
    let start = bits.bit / 8;
    out.extend_from_slice(bits.bytes.get(start..start + length)?);
    bits.bit += length * 8;
    Some(())
}

/// Reads the codes of a block with codes of its own.
fn dynamic_codes(bits: &mut BitReader) -> Option<(HuffmanCode, HuffmanCode)> {
    let (literals, distances, count) = (bits.take(5)? + 257, bits.take(5)? + 1, bits.take(4)? + 4);
    let mut lengths = [0; 19];
    for at in LENGTH_ORDER.iter().take(count) {
        lengths[*at] = bits.take(3)? as u8;
    }
    let code = HuffmanCode::new(&lengths);
    let mut lengths = Vec::new();
    while lengths.len() < literals + distances {
        let (value, repeat) = match code.symbol(bits)? {
            16 => (*lengths.last()?, 3 + bits.take(2)?),
            17 => (0, 3 + bits.take(3)?),
            18 => (0, 11 + bits.take(7)?),
            length => (length as u8, 1),
        };
        lengths.resize(lengths.len() + repeat, value);
    }
    let (of_literals, of_distances) = lengths.split_at(literals);
    Some((HuffmanCode::new(of_literals), HuffmanCode::new(of_distances)))
}

/// Decodes a block of literals and of copies of earlier bytes.
fn compressed(
    bits: &mut BitReader,
    literals: &HuffmanCode,
    distances: &HuffmanCode,
    out: &mut Vec<u8>,
) -> Option<()> {
    loop {
        let symbol = literals.symbol(bits)?;
        let length = match symbol {
            0..256 => {
                out.push(symbol as u8);
                continue;
            }
            256 => return Some(()),
            257..265 => symbol - 254,
            265..285 => {
                let extra = (symbol - 261) / 4;
                3 + ((4 + (symbol - 261) % 4) << extra) + bits.take(extra)?
            }
            285 => 258,
            _ => return None,
        };
        let distance = match distances.symbol(bits)? {
            code @ 0..4 => code + 1,
            code @ 4..30 => {
                let extra = code / 2 - 1;
                1 + ((2 + code % 2) << extra) + bits.take(extra)?
            }
            _ => return None,
        };
        for _ in 0..length {
            out.push(*out.get(out.len().checked_sub(distance)?)?);
        }
    }
}
