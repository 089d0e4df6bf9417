//! Random numbers of the simulator: one seed gives the same numbers on every machine.

/// splitmix64. All arithmetic uses 64 bits, so pointer width and byte order have no effect.
#[derive(Clone, Debug)]
pub(in crate::mux) struct Dice(u64);

impl Dice {
    pub(in crate::mux) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x1234_5678_9ABC_DEF1))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number below `n`; 0 if `n` is 0.
    pub(in crate::mux) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// Returns a number below `n` as an index.
    pub(in crate::mux) fn index(&mut self, n: usize) -> usize {
        self.below(n as u64) as usize
    }

    /// Returns true once in `n` calls on average.
    pub(in crate::mux) fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Returns one of `choices`.
    pub(in crate::mux) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    /// Returns a length: usually small, sometimes up to `most`.
    pub(in crate::mux) fn length(&mut self, most: usize) -> usize {
        let most = most as u64;
        let top = match self.below(4) {
            0 => most.min(3),
            1 => most.min(100),
            2 => most.min(5_000),
            _ => most,
        };
        self.below(top + 1) as usize
    }
}

/// Hash of all events in order (FNV-1a over 64-bit words).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mux) struct Trace(pub(in crate::mux) u64);

impl Trace {
    pub(in crate::mux) fn new() -> Trace {
        Trace(0xCBF2_9CE4_8422_2325)
    }

    pub(in crate::mux) fn note(&mut self, words: &[u64]) {
        for word in words {
            self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01B3);
            self.0 ^= self.0 >> 29;
        }
    }
}
