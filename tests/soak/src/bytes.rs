//! The bytes of a body: a function of its key and the position, so that both ends can check
//! every byte and report the first wrong one.

use crate::plan::{Id, mix};

/// Direction of a body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    Up,
    Down,
}

/// Returns the key of a body.
pub fn key(seed: u64, id: Id, way: Way) -> u64 {
    mix(seed ^ mix(id.to_u64() << 1 | u64::from(way == Way::Up)))
}

/// Fills `out` with the bytes of body `key` from `at` on.
pub fn fill(key: u64, at: u64, out: &mut [u8]) {
    let mut at = at;
    let mut out = out;
    while !out.is_empty() {
        let word = mix(key.wrapping_add(at / 8)).to_le_bytes();
        let from = (at % 8) as usize;
        let n = out.len().min(8 - from);
        out[..n].copy_from_slice(&word[from..from + n]);
        out = &mut out[n..];
        at += n as u64;
    }
}

/// A receiver's check of a body.
pub struct Check {
    key: u64,
    /// Bytes so far.
    pub count: u64,
    /// Position of the first wrong byte.
    pub wrong: Option<u64>,
    expected: Vec<u8>,
}

impl Check {
    pub fn new(key: u64) -> Self {
        Check { key, count: 0, wrong: None, expected: Vec::new() }
    }

    pub fn take(&mut self, bytes: &[u8]) {
        self.expected.resize(bytes.len(), 0);
        fill(self.key, self.count, &mut self.expected);
        if self.wrong.is_none() && self.expected != bytes {
            let same = bytes.iter().zip(&self.expected).take_while(|(a, b)| a == b).count();
            self.wrong = Some(self.count + same as u64);
        }
        self.count += bytes.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Kind;

    #[test]
    fn pieces_make_the_same_body_and_a_wrong_byte_is_found() {
        let key = key(1, Id { kind: Kind::Http, visit: 2, index: 3 }, Way::Up);
        let mut whole = vec![0; 1_000];
        fill(key, 0, &mut whole);
        let mut check = Check::new(key);
        for piece in whole.chunks(13) {
            check.take(piece);
        }
        assert_eq!((check.count, check.wrong), (1_000, None));
        whole[777] ^= 1;
        let mut check = Check::new(key);
        for piece in whole.chunks(100) {
            check.take(piece);
        }
        assert_eq!(check.wrong, Some(777));
    }
}
