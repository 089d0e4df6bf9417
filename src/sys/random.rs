//! Random numbers that need no secrecy. Keys come from `ring`.

/// Returns random bytes from the kernel, as a seed.
pub fn random_seed() -> u64 {
    let mut bytes = [0u8; 8];
    // ring uses getrandom(2), with its own fallback for old kernels.
    let rng = ring::rand::SystemRandom::new();
    if ring::rand::SecureRandom::fill(&rng, &mut bytes).is_err() {
        return super::clock().as_micros();
    }
    u64::from_le_bytes(bytes)
}
