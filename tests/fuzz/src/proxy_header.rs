//! Target `proxy_header`: the header in front of a visitor's bytes, split at any position. The
//! decoder reads no byte after it, and its memory is limited by the received bytes.

use culvert::proto::proxy_header::{Decoder, MAX_HEADER_BYTES, ProxyHeader};

use crate::input::Dice;
use crate::messages;

/// The first byte decides the pieces.
pub fn check(data: &[u8]) {
    let (cuts, bytes) = data.split_first().unwrap_or((&0, &[]));
    let whole = run(bytes, |_| bytes.len().max(1));
    let mut dice = Dice::new(u64::from(*cuts));
    let cut = run(bytes, |_| 1 + dice.below(usize::from(*cuts)));
    assert_eq!(whole, cut, "the header depends on how the bytes are cut");
    let Ok((taken, header)) = whole else { return };
    let Some(header) = header else {
        assert_eq!(taken, bytes.len());
        return;
    };
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    assert_eq!(taken as u64, 8 + length, "it takes its own bytes only");
    assert!(taken <= 8 + MAX_HEADER_BYTES);
    let encoded = header.encode();
    let (n, again) = Decoder::new().feed(&encoded).expect("what we write we read");
    assert_eq!((n, again), (encoded.len(), Some(header)));
}

/// Returns the bytes read and the header, or the error's text.
fn run(
    bytes: &[u8],
    mut size: impl FnMut(usize) -> usize,
) -> Result<(usize, Option<ProxyHeader>), String> {
    let mut decoder = Decoder::new();
    let mut taken = 0;
    while taken < bytes.len() {
        let end = bytes.len().min(taken + size(taken));
        let (n, header) = decoder.feed(&bytes[taken..end]).map_err(|error| error.to_string())?;
        assert!(n <= end - taken);
        taken += n;
        if header.is_some() {
            return Ok((taken, header));
        }
        assert_eq!(taken, end, "it stopped without a header");
    }
    Ok((taken, None))
}

/// Returns a header with modified JSON, right or wrong length, and visitor's bytes after it.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    let text = dice.pick(&["", "b1", "192.0.2.7:50000", "https", "\u{0}\"\\\u{7f}é€😀"]);
    let header = ProxyHeader {
        id: text.into(),
        client_addr: dice.pick(&["", "[2001:db8::1]:80"]).into(),
        proto: dice.pick(&["http", "tcp"]).into(),
        edge_type: dice.pick(&["", "3"]).into(),
        passthrough_tls: dice.below(2) == 0,
    };
    let mut json = header.encode().split_off(8);
    if dice.below(2) == 0 {
        json = messages::twist(&json, dice);
    }
    let length = match dice.below(10) {
        0 => dice.roll(),
        1 => dice.pick(&[0, 1, 2, 65_535, 65_536, 65_537, u64::MAX, 1 << 31, 1 << 32, 1 << 63]),
        _ => json.len() as u64,
    };
    let mut input = vec![dice.roll() as u8];
    input.extend(length.to_le_bytes());
    input.extend(json);
    input.extend(dice.bytes(40));
    input
}
