//! XXH64 with the seed 0, a fast hash for keys of caches. It protects nothing.

const PRIMES: [u64; 5] = [
    0x9e37_79b1_85eb_ca87,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0x85eb_ca77_c2b2_ae63,
    0x27d4_eb2f_1656_67c5,
];

/// Returns the hash of bytes.
pub(super) fn xxhash64(bytes: &[u8]) -> u64 {
    let [p1, p2, p3, p4, p5] = PRIMES;
    let stripes = bytes.chunks_exact(32);
    let mut rest = stripes.remainder();
    let mut hash = if bytes.len() < 32 {
        p5
    } else {
        let mut lanes = [p1.wrapping_add(p2), p2, 0, 0_u64.wrapping_sub(p1)];
        for stripe in stripes {
            for (lane, word) in lanes.iter_mut().zip(stripe.chunks_exact(8)) {
                *lane = round(*lane, number(word));
            }
        }
        let turned = lanes.iter().zip([1, 7, 12, 18]).map(|(lane, by)| lane.rotate_left(by));
        let sum = turned.fold(0_u64, u64::wrapping_add);
        lanes
            .iter()
            .fold(sum, |hash, lane| (hash ^ round(0, *lane)).wrapping_mul(p1).wrapping_add(p4))
    };
    // Widening: the length of memory.
    hash = hash.wrapping_add(bytes.len() as u64);
    while let Some((word, later)) = rest.split_at_checked(8) {
        hash = (hash ^ round(0, number(word))).rotate_left(27).wrapping_mul(p1).wrapping_add(p4);
        rest = later;
    }
    if let Some((word, later)) = rest.split_at_checked(4) {
        hash ^= number(word).wrapping_mul(p1);
        hash = hash.rotate_left(23).wrapping_mul(p2).wrapping_add(p3);
        rest = later;
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(p5)).rotate_left(11).wrapping_mul(p1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(p2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(p3);
    hash ^ (hash >> 32)
}

fn round(lane: u64, word: u64) -> u64 {
    let [p1, p2, ..] = PRIMES;
    lane.wrapping_add(word.wrapping_mul(p2)).rotate_left(31).wrapping_mul(p1)
}

/// Returns up to eight bytes as a number, the lowest byte first.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_known_texts() {
        for (text, expected) in [
            ("", 0xef46_db37_51d8_e999),
            ("hello", 0x26c7_827d_889f_6da3),
            ("abc", 0x44bc_2cf5_ad77_0999),
            ("I want an unsigned 64-bit seed!", 0xd4cb_0a70_a2b8_c7c1),
            ("0123456789abcdef0123456789abcdef", 0x642a_9495_8e71_e6c5),
            (&"0123456789".repeat(10), 0xf80e_7b96_315a_fffa),
            (&("x".repeat(44) + "yz1"), 0x50e8_866d_75e5_438a_u64),
        ] {
            assert_eq!(xxhash64(text.as_bytes()), expected, "{text}");
        }
    }
}
