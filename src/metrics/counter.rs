//! A 64-bit counter for machines with only 32-bit atomics.

use std::sync::atomic::{AtomicU32, Ordering};

/// A counter that all threads may increase and read without a lock.
///
/// `low` counts modulo 2^32, `high` counts how often it crossed a multiple of 2^31. The top bit
/// of `low` and the lowest bit of `high` agree, except between the two additions. So a reader
/// detects that it reads between them, if not two threads are there at the same time: `low` would
/// have to grow by 2^31 meanwhile. It reads `high` twice, since `low` may cross two of these
/// multiples while the reader waits for the processor.
#[derive(Debug, Default)]
pub(super) struct Counter {
    low: AtomicU32,
    high: AtomicU32,
}

const HALF: u32 = 1 << 31;

impl Counter {
    /// Adds less than 2^31.
    pub(super) fn add(&self, n: usize) {
        let n = u32::try_from(n).unwrap_or(HALF).min(HALF - 1);
        let before = self.low.fetch_add(n, Ordering::AcqRel);
        if (before ^ before.wrapping_add(n)) & HALF != 0 {
            self.high.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Returns the sum.
    pub(super) fn sum(&self) -> u64 {
        loop {
            let high = self.high.load(Ordering::Acquire);
            let low = self.low.load(Ordering::Acquire);
            if low >> 31 == high & 1 && self.high.load(Ordering::Acquire) == high {
                return u64::from(high) * u64::from(HALF) + u64::from(low % HALF);
            }
            // Another thread is between its two additions.
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_beyond_32_bits() {
        let counter = Counter::default();
        let mut sum = 0u64;
        for n in [1, 0x7fff_ffff, 0x7fff_fffe, 12, 0x7fff_ffff, 0x7fff_ffff, 0x4000_0000] {
            for _ in 0..5 {
                counter.add(n);
                sum += n as u64;
                assert_eq!(counter.sum(), sum);
            }
        }
        assert!(sum > 1 << 35);
    }

    #[test]
    fn threads_lose_nothing_and_no_reader_sees_it_shrink() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..50_000).for_each(|_| counter.add(0x00ff_fff1)));
            }
            let mut last = 0;
            for _ in 0..50_000 {
                let now = counter.sum();
                assert!(now >= last, "{now} after {last}");
                last = now;
            }
        });
        assert_eq!(counter.sum(), 150_000 * 0x00ff_fff1);
    }
}
