//! Bytes of a stream that wait for a socket: a queue that uses little more memory than its
//! bytes, and none when it is empty.

/// Step in which a buffer of at least this size grows, in bytes.
const GROWTH_STEP_BYTES: usize = 32 * 1024;

/// Smallest buffer, and the number of sent bytes after which the rest is moved to the front.
const MIN_BUFFER_BYTES: usize = 2 * 1024;

/// A queue of bytes.
#[derive(Debug, Default)]
pub(crate) struct WaitingBytes {
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that were removed.
    taken: usize,
}

impl WaitingBytes {
    /// Number of bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len() - self.taken
    }

    /// Returns whether no byte waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the waiting bytes in order.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    /// Removes the first `n` bytes.
    pub(crate) fn take(&mut self, n: usize) {
        self.taken = (self.taken + n).min(self.buffer.len());
        if self.taken == self.buffer.len() {
            // Idle connections have no buffer.
            *self = WaitingBytes::default();
        } else if self.taken >= MIN_BUFFER_BYTES && self.len() <= self.taken / 2 {
            // The limit of a session counts the bytes, not the memory around them.
            self.compact();
            self.buffer.shrink_to(capacity_for(self.buffer.len()));
        }
    }

    /// Removes all bytes. Returns how many there were.
    pub(crate) fn clear(&mut self) -> usize {
        let n = self.len();
        *self = WaitingBytes::default();
        n
    }

    /// Appends `bytes`. Returns whether there was memory for them.
    #[must_use]
    pub(crate) fn push(&mut self, bytes: &[u8]) -> bool {
        if self.buffer.len() + bytes.len() > self.buffer.capacity() {
            self.compact();
            // In steps, not doubled: at most a window waits.
            let capacity = capacity_for(self.buffer.len() + bytes.len());
            if self.buffer.try_reserve_exact(capacity - self.buffer.len()).is_err() {
                return false;
            }
        }
        self.buffer.extend_from_slice(bytes);
        true
    }

    fn compact(&mut self) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
    }
}

/// Returns the capacity for `n` bytes: less than twice as much, in steps that are not small.
fn capacity_for(n: usize) -> usize {
    if n <= GROWTH_STEP_BYTES {
        n.next_power_of_two().max(MIN_BUFFER_BYTES)
    } else {
        n.next_multiple_of(GROWTH_STEP_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_whatever_the_steps() {
        let all: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        let mut waiting = WaitingBytes::default();
        let (mut pushed, mut out) = (0, Vec::new());
        for step in [1, 3_000, 70_000, 2_047, 100_000, 24_952].into_iter().cycle() {
            let n = step.min(all.len() - pushed);
            assert!(waiting.push(&all[pushed..pushed + n]));
            pushed += n;
            let n = (step / 2 + 1).min(waiting.len());
            out.extend_from_slice(&waiting.as_slice()[..n]);
            waiting.take(n);
            assert!(waiting.buffer.capacity() <= 2 * waiting.len().max(GROWTH_STEP_BYTES) + 70_000);
            if pushed == all.len() && waiting.is_empty() {
                break;
            }
        }
        assert!(out == all);
        assert_eq!(waiting.buffer.capacity(), 0, "an empty queue holds no memory");
    }

    #[test]
    fn memory_follows_the_bytes() {
        let mut waiting = WaitingBytes::default();
        assert!(waiting.push(&[7; 262_144]));
        assert!(waiting.buffer.capacity() <= 262_144 + GROWTH_STEP_BYTES);
        waiting.take(260_000);
        assert!(waiting.buffer.capacity() <= GROWTH_STEP_BYTES, "little is left");
        assert_eq!(waiting.clear(), 2_144);
        assert_eq!(waiting.buffer.capacity(), 0);
    }
}
