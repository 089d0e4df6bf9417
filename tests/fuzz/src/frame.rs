//! Target `frame`: any bytes, split at any position. The session's events do not depend on the
//! pieces, it reads no more than it was given, and headers survive reading and writing.

use culvert::mux::frame::FrameHeader;
use culvert::mux::{Config, Event, MAX_CONTROL, Muxer, Role};
use culvert::time::Instant;

use crate::grammar;
use crate::input::{Choices, Dice};

/// The first byte is the role, the second decides the pieces, the rest is the input.
pub fn check(data: &[u8]) {
    let mut choices = Choices::new(data);
    let role = if choices.byte() & 1 == 0 { Role::Agent } else { Role::Edge };
    let cuts = choices.byte();
    let bytes = choices.rest();
    for chunk in bytes.as_chunks::<8>().0 {
        let header = FrameHeader::decode(*chunk);
        let mut masked = *chunk;
        masked[4] &= 0x7F;
        assert_eq!(header.encode(), masked);
        assert_eq!(FrameHeader::decode(masked), header);
        let _ = header.check();
    }
    let whole = run(role, bytes, |_| bytes.len().max(1));
    let mut dice = Dice::new(u64::from(cuts));
    let cut = run(role, bytes, |at| match cuts {
        0 => 1,
        _ => 1 + dice.below(if at % 3 == 0 { 12 } else { 5_000 }),
    });
    assert_eq!(whole.0, cut.0, "events depend on how the bytes are cut");
    assert_eq!(whole.1, cut.1, "answers depend on how the bytes are cut");
}

/// An event, and the bytes of consecutive ones on one stream.
type Seen = (String, Vec<u8>);

/// Returns all events and the bytes that were sent.
fn run(role: Role, bytes: &[u8], mut size: impl FnMut(usize) -> usize) -> (Vec<Seen>, Vec<u8>) {
    let now = Instant::ZERO;
    let mut session = Muxer::new(Config::new(role, 1), now);
    let (mut events, mut last) = (Vec::<Seen>::new(), None);
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes.len().min(at + size(at));
        let mut piece = &bytes[at..end];
        let mut rounds = 0;
        loop {
            let (used, event) = session.receive(piece, now);
            assert!(used <= piece.len());
            piece = &piece[used..];
            rounds += 1;
            assert!(rounds < 2 * (end - at) + 1_000, "no end of events");
            match event {
                Some(Event::Data { stream, bytes }) => {
                    assert!(!bytes.is_empty());
                    if last != Some(stream) {
                        events.push((format!("data of {stream}"), Vec::new()));
                    }
                    let (_, joined) = events.last_mut().expect("just pushed");
                    joined.extend_from_slice(bytes);
                    last = Some(stream);
                }
                Some(event) => {
                    events.push((format!("{event:?}"), Vec::new()));
                    last = None;
                }
                None if piece.is_empty() => break,
                None => panic!("neither bytes taken nor an event"),
            }
        }
        session.check_invariants();
        at = end;
    }
    let (mut sent, mut out) = (Vec::new(), [0; MAX_CONTROL]);
    while session.has_transmit() {
        let n = session.transmit(&mut out);
        sent.extend_from_slice(&out[..n]);
    }
    (events, sent)
}

/// Returns frames of the grammar.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    let mut input = vec![dice.roll() as u8, dice.roll() as u8];
    input.extend(grammar::frames(dice));
    input
}
