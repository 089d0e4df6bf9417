//! Generator for the numbers in heartbeats. Not for secrets: an echo proves that the peer
//! reads, not its identity.

/// xorshift64*: equal seeds give equal numbers on every machine.
#[derive(Clone, Debug)]
pub(super) struct Xorshift(u64);

impl Xorshift {
    /// Creates a generator. Any seed is allowed, including 0.
    pub(super) fn new(seed: u64) -> Self {
        // A state of 0 would stay 0.
        Xorshift(seed ^ 0x9E37_79B9_7F4A_7C15 | 1)
    }

    /// Returns the next 32 bits.
    pub(super) fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_numbers() {
        let take = |seed| {
            let mut rng = Xorshift::new(seed);
            [rng.next(), rng.next(), rng.next()]
        };
        assert_eq!(take(7), take(7));
        assert_ne!(take(7), take(8));
        assert_eq!(take(0).iter().filter(|n| **n == 0).count(), 0);
    }
}
