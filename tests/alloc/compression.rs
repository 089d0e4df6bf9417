//! Memory of a response that the edge compresses.

use culvert::edge::actions::body_encoder::{BodyEncoder, Coding};

use crate::counting::peak_of;

/// Bound of one response, which docs/reference/edge.md states.
const MAX_BYTES: i64 = 256 * 1024;

/// Returns `len` bytes: words that repeat, or bytes without a pattern.
fn body(len: usize, random: bool) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let byte = |n: usize| b"a word and another "[n % 19];
    (0..len).map(|n| if random { next() } else { byte(n) ^ (next() & 1) }).collect()
}

#[test]
fn a_compressed_response_keeps_at_most_256_kib() {
    for coding in Coding::ALL {
        for random in [false, true] {
            let text = body(1 << 18, random);
            for piece in [1 << 12, 1 << 18] {
                let mut bytes = 0;
                let peak = peak_of(|| {
                    let mut encoder = BodyEncoder::new(Some(coding));
                    let mut emit = |part: &[u8]| bytes += part.len();
                    for part in text.chunks(piece) {
                        encoder.write(part, &mut emit).unwrap();
                        encoder.flush(&mut emit).unwrap();
                    }
                    encoder.finish(&mut emit).unwrap();
                });
                assert!(bytes > 0 && peak > 0);
                assert!(peak <= MAX_BYTES, "{coding:?}, pieces of {piece}: {peak} bytes");
            }
        }
    }
}
