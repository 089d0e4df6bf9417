//! Peers that break the rules, or keep them at too high a cost. The session ends the stream or
//! itself with the right code, and its memory stays small. Every test runs both roles.

use std::time::Duration;

use super::flood::Flood;
use super::frame::{self, FrameHeader};
use super::tests::{End, NOTHING, Seen, at, data, goaway, hex, rst, syn, wndinc};
use super::*;
use crate::time::Instant;

/// Number of frames of a flood: far beyond every budget.
const MANY: u32 = 1_000_000;

/// Most memory of a session with any peer, in bytes: 512 streams, a full queue of control
/// frames, the ring of reset streams.
const SMALL: usize = 160 * 1024;

/// Returns both ends, with the first id that their peer may open.
fn both() -> [(End, u32); 2] {
    [(End::agent(), 2), (End::edge(), 3)]
}

impl End {
    /// Feeds frames until the session has ended. Returns their number and the events of the
    /// last one.
    fn flood(&mut self, frames: impl Iterator<Item = Vec<u8>>) -> (u32, Seen) {
        let mut count = 0;
        for frame in frames {
            let mut rest = &frame[..];
            loop {
                let (used, event) = self.session.receive(rest, self.now);
                rest = &rest[used..];
                match event {
                    Some(over @ Event::Over { .. }) => {
                        self.session.check_invariants();
                        return (count, over.into());
                    }
                    Some(Event::Data { stream, bytes }) => {
                        self.session.consumed(stream, bytes.len());
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            count += 1;
            if count % 1_000 == 0 || !self.session.wants_input() {
                self.discard();
            }
            if count % 10_000 == 0 {
                self.session.check_invariants();
                assert!(self.session.heap_bytes() <= SMALL, "holds {}", self.session.heap_bytes());
            }
        }
        panic!("{count} frames, and the peer was not stopped");
    }

    /// Consumes the bytes that wait for the link.
    fn discard(&mut self) {
        let mut out = [0; MAX_CONTROL];
        while self.session.has_transmit() {
            self.session.transmit(&mut out);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        assert_eq!(self.session.tick(self.now), None);
    }
}

fn calm(flood: Flood) -> Seen {
    Seen::Over(Code::ENHANCE_YOUR_CALM, Reason::Flood(flood))
}

#[test]
fn announced_lengths_allocate_nothing() {
    for (mut end, first) in both() {
        end.take(&syn(first, StreamType(77), b""));
        let held = end.session.heap_bytes();
        let frames = [
            format!("ffffff10 {first:08x}"),
            format!("ffffff12 {:08x}", first + 2),
            "ffffff70 00000000".into(),
        ];
        for (i, frame) in frames.iter().enumerate() {
            let seen = end.take(&hex(frame));
            let expected = Seen::Reset(first, Code::FLOW_CONTROL_ERROR);
            assert_eq!(seen, if i == 0 { vec![expected] } else { vec![] });
            for _ in 0..16 {
                assert_eq!(end.take(&vec![0xAA; frame::MAX_LENGTH as usize / 16]), []);
            }
            assert_eq!(end.take(&vec![0xAA; frame::MAX_LENGTH as usize % 16]), []);
        }
        assert!(end.session.heap_bytes() < held + 8_192);
        let refused = [first, first + 2].map(|id| rst(id, Code::FLOW_CONTROL_ERROR)).concat();
        assert_eq!(end.sent(), refused);
        assert_eq!(end.take(&syn(first + 4, StreamType(77), b"")).len(), 1, "still in step");
    }
}

#[test]
fn a_million_streams_opened_and_reset() {
    for (mut end, first) in both() {
        let frames = (0..MANY).map(|i| {
            let id = first + 2 * i;
            [syn(id, StreamType::PROXY, b"x"), rst(id, Code::STREAM_CANCELLED)].concat()
        });
        let (count, over) = end.flood(frames);
        assert_eq!(over, calm(Flood::Churn));
        assert!(count < 70_000);
        let bye = goaway(first + 2 * count, Code(10), b"too many streams opened and given up");
        assert_eq!(end.sent(), bye);
    }
}

#[test]
fn streams_given_up_at_the_pace_of_bad_days_are_served() {
    for (mut end, first) in both() {
        for i in 0..50_000 {
            let id = first + 2 * i;
            assert_eq!(end.take(&syn(id, StreamType::PROXY, b"x")).len(), 2);
            assert_eq!(end.take(&rst(id, Code::STREAM_CANCELLED)).len(), 1);
            end.session.consumed(StreamId(id), 1);
            end.pass(Duration::from_micros(500));
        }
        assert_eq!((end.session.streams(), end.session.unconsumed()), (0, 0));
        assert!(end.session.heap_bytes() < 4_096);
    }
}

#[test]
fn a_million_streams_opened_and_closed_before_their_type() {
    for (mut end, first) in both() {
        let frames = (0..MANY).map(|i| data(first + 2 * i, frame::SYN | frame::FIN, b""));
        let (_, over) = end.flood(frames);
        assert_eq!(over, calm(Flood::Churn));
    }
}

#[test]
fn a_million_streams_at_a_time() {
    for (mut end, first) in both() {
        let frames = (0..MANY).map(|i| syn(first + 2 * i, StreamType::PROXY, b""));
        let (count, over) = end.flood(frames);
        assert_eq!(over, calm(Flood::Refusals));
        assert!(count < 70_000);
        assert!(end.session.streams() <= 512);
        assert!(end.session.heap_bytes() <= SMALL);
    }
}

#[test]
fn a_million_streams_without_a_type() {
    for (mut end, first) in both() {
        let frames = (0..MANY).map(|i| data(first + 2 * i, frame::SYN, b""));
        let (_, over) = end.flood(frames);
        assert_eq!(over, calm(Flood::Refusals));
        assert!(end.session.streams() <= 128);
    }
}

#[test]
fn one_stream_without_a_type_among_many_with_one() {
    for (mut end, first) in both() {
        end.take(&data(first, frame::SYN, b""));
        for i in 1..20_000 {
            let id = first + 2 * i;
            end.take(&syn(id, StreamType::PROXY, b""));
            end.take(&data(id, frame::FIN, b""));
            end.session.finish(StreamId(id));
            end.discard();
        }
        assert!(end.session.heap_bytes() < 32 * 1024, "holds {}", end.session.heap_bytes());
        assert_eq!(end.tick(at(10)), []);
        assert_eq!(end.session.streams(), 0);
    }
}

#[test]
fn a_million_frames_that_we_answer_with_rst() {
    for (mut end, first) in both() {
        let (count, over) = end.flood((0..MANY).map(|i| data(first + 2 * i, 0, b"x")));
        assert_eq!(over, calm(Flood::Resets));
        assert!(count < 5_000);
    }
    // The stream is open and our own, and every frame exceeds its window.
    for (mut end, first) in both() {
        let frames = (0..MANY).map(|i| {
            let id = first + 2 * i;
            let fin = data(id, frame::FIN, b"x");
            [syn(id, StreamType::PROXY, b""), fin.clone(), fin].concat()
        });
        let (count, over) = end.flood(frames);
        assert_eq!(over, calm(Flood::Resets));
        assert!(count < 5_000);
        assert_eq!(end.session.streams(), 0);
    }
}

#[test]
fn one_rst_a_stream_however_many_frames() {
    for (mut end, first) in both() {
        let frame = data(first, 0, b"x");
        assert_eq!(end.take(&frame), []);
        assert_eq!(end.sent(), rst(first, Code::STREAM_CLOSED));
        for _ in 0..10_000 {
            assert_eq!(end.session.receive(&frame, end.now), (frame.len(), None));
            assert!(!end.session.has_transmit());
        }
        let (_, over) = end.flood((0..MANY).map(|_| frame.clone()));
        assert_eq!(over, calm(Flood::Useless));
    }
}

/// An honest agent whose visitors cancel their downloads again and again, with a whole window
/// of each in flight.
#[test]
fn an_honest_peer_is_not_blamed_for_its_visitors() {
    for (mut end, _) in both() {
        let full = vec![0; MAX_PAYLOAD];
        let frames = WINDOW as usize / MAX_PAYLOAD;
        for _ in 0..40 {
            let streams: Vec<StreamId> =
                (0..500).map(|_| end.session.open(StreamType::PROXY, b"").unwrap()).collect();
            for stream in &streams {
                end.session.cancel(*stream, Code::STREAM_CANCELLED);
            }
            end.discard();
            for stream in &streams {
                let header = FrameHeader::data(*stream, MAX_PAYLOAD as u32, 0).encode();
                for _ in 0..frames {
                    assert_eq!(end.session.receive(&header, end.now), (8, None));
                    assert_eq!(end.session.receive(&full, end.now), (MAX_PAYLOAD, None));
                }
            }
            end.discard();
            // 2,500 visitors a second.
            end.pass(Duration::from_millis(200));
        }
        assert_eq!(end.session.streams(), 0);
    }
}

#[test]
fn a_million_empty_frames() {
    for (mut end, first) in both() {
        end.take(&syn(first, StreamType::PROXY, b""));
        let (count, over) = end.flood((0..MANY).map(|_| data(first, 0, b"")));
        assert_eq!(over, calm(Flood::Empty));
        assert!(count < 20_000);
        for flags in [0, frame::FIN] {
            let (mut end, first) = (End::edge(), 9);
            let (_, over) = end.flood((0..MANY).map(|_| data(first, flags, b"")));
            assert_eq!(over, calm(Flood::Useless));
        }
    }
}

#[test]
fn a_million_single_bytes() {
    for (mut end, first) in both() {
        end.take(&syn(first, StreamType::PROXY, b""));
        let (frame, stream) = (data(first, 0, b"x"), StreamId(first));
        let held = end.session.heap_bytes();
        let (mut got, mut increments, mut out) = (0, 0, [0; 64]);
        for _ in 0..MANY {
            let (used, event) = end.session.receive(&frame, end.now);
            assert!(used == frame.len() && matches!(event, Some(Event::Data { .. })));
            end.session.consumed(stream, 1);
            got += 1;
            increments += end.session.transmit(&mut out) / 12;
            // 200,000 a second.
            end.now = end.now + Duration::from_micros(5);
        }
        assert_eq!(got, MANY);
        assert!(increments <= MANY as usize / 16_000, "{increments} WNDINCs");
        assert!(end.session.heap_bytes() <= held + 256, "no memory for it");
        // All of them at once are too many.
        let (_, over) = end.flood((0..MANY).map(|_| frame.clone()));
        assert_eq!(over, calm(Flood::Tiny));
    }
}

#[test]
fn increments_that_lie() {
    for (mut end, first) in both() {
        let over = Reason::ZeroIncrement { stream: StreamId(first) };
        end.take(&syn(first, StreamType::PROXY, b""));
        assert_eq!(end.take(&wndinc(first, 0)), [Seen::Over(Code::PROTOCOL_ERROR, over)]);
    }
    for (mut end, first) in both() {
        end.take(&syn(first, StreamType::PROXY, b""));
        let stream = StreamId(first);
        let all = vec![0; 2 * WINDOW as usize];
        let once = end.write(stream, &all).len();
        for _ in 0..3 {
            assert_eq!(end.take(&wndinc(first, 0x7FFF_FFFF)), [Seen::Writable(first)]);
            assert_eq!(end.take(&wndinc(first, 0x7FFF_FFFF)), [], "capped, not summed");
            assert_eq!(end.write(stream, &all).len(), once);
        }
        for stranger in [first + 2, first + 1] {
            assert_eq!(end.take(&wndinc(stranger, 1)), []);
        }
        end.session.cancel(stream, Code::STREAM_CANCELLED);
        assert_eq!(end.take(&wndinc(first, 1)), []);
        let (_, over) = end.flood((0..MANY).map(|_| wndinc(first, 1)));
        assert_eq!(over, calm(Flood::Useless));
    }
}

#[test]
fn resets_in_mid_transfer_leak_no_window() {
    for (mut end, first) in both() {
        let payload = vec![1; 3_000];
        for i in 0..100_000 {
            let id = first + 2 * i;
            let frames = [syn(id, StreamType::PROXY, b""), data(id, 0, &payload)].concat();
            let mut rest = &frames[..1_000];
            while let (used, Some(_)) = end.session.receive(rest, end.now) {
                rest = &rest[used..];
            }
            match i % 3 {
                0 => end.session.reset(StreamId(id), Code::STREAM_CANCELLED),
                1 => end.session.cancel(StreamId(id), Code::STREAM_CANCELLED),
                _ => {}
            }
            let mut rest = &frames[1_000..];
            while let (used, Some(_)) = end.session.receive(rest, end.now) {
                rest = &rest[used..];
            }
            if i % 3 == 2 {
                assert_eq!(end.session.unconsumed(), payload.len());
                end.session.receive(&rst(id, Code::STREAM_CANCELLED), end.now);
                end.session.consumed(StreamId(id), payload.len());
            }
            assert_eq!((end.session.unconsumed(), end.session.streams()), (0, 0));
            end.discard();
            end.pass(Duration::from_micros(200));
        }
        assert!(end.session.heap_bytes() < 8_192);
        // The window is still complete in both directions.
        let id = first + 400_000;
        end.take(&syn(id, StreamType::PROXY, b""));
        let all = vec![0; WINDOW as usize - 4];
        assert_eq!(end.take(&data(id, 0, &all)), [Seen::Data(id, all)]);
        let mut granted = 0;
        while let Ok(grant) = end.session.grant(StreamId(id), MAX_PAYLOAD) {
            granted += grant.len;
        }
        assert_eq!(granted, WINDOW as usize);
    }
}

/// 128 MB are valid. A receiver with less stops reading, then resets the stream with the most
/// bytes.
#[test]
fn every_window_filled_at_once() {
    const BUDGET: usize = 1 << 20;
    for (mut end, first) in both() {
        let (mut peak, mut reset, mut hoarded) = (0, 0, 0);
        let full = vec![0; MAX_PAYLOAD];
        for i in 0..500 {
            end.take(&syn(first + 2 * i, StreamType::PROXY, b""));
        }
        for round in 0..16 {
            for i in 0..500 {
                let frame = data(first + 2 * i, 0, &full);
                let mut rest = &frame[..];
                loop {
                    let (used, event) = end.session.receive(rest, end.now);
                    rest = &rest[used..];
                    hoarded += usize::from(matches!(event, Some(Event::Data { .. })));
                    assert!(!matches!(event, Some(Event::Over { .. })), "round {round}: over");
                    if event.is_none() {
                        break;
                    }
                }
                if end.session.unconsumed() > BUDGET {
                    let (largest, held) =
                        end.session.largest_buffered(Instant::from_micros(u64::MAX)).unwrap();
                    assert!(held >= MAX_PAYLOAD);
                    end.session.cancel(largest, Code::ENHANCE_YOUR_CALM);
                    reset += 1;
                }
                peak = peak.max(end.session.unconsumed());
            }
            end.session.check_invariants();
        }
        assert!(peak <= BUDGET, "{peak}");
        assert!(reset > 400 && hoarded > 500);
        assert_eq!(end.session.streams(), 500 - reset);
        assert!(end.session.heap_bytes() <= SMALL);
    }
}

#[test]
fn heartbeat_echoes_that_lie() {
    let (ten, fifteen) = (Duration::from_secs(10), Duration::from_secs(15));
    for (i, wrong) in [true, false].into_iter().enumerate() {
        for (mut end, _) in both() {
            end.session.start_heartbeat(ten, fifteen, end.now).unwrap();
            let sent = end.sent();
            let id = u32::from(sent[7]);
            let number = sent[20..24].to_vec();
            let over = || vec![Seen::Over(Code::PROTOCOL_ERROR, Reason::WrongEcho)];
            if wrong {
                let lie: Vec<u8> = number.iter().map(|byte| !byte).collect();
                assert_eq!(end.take(&data(id, 0, &lie)), over(), "{i}");
            } else {
                let twice = [&number[..], &number[..1]].concat();
                let seen = end.take(&data(id, 0, &twice));
                assert_eq!(seen.len(), 2, "the second was not asked for");
                assert_eq!(seen[1..], over());
            }
        }
    }
}

#[test]
fn heartbeat_never_answered_reset_or_closed() {
    let (ten, fifteen) = (Duration::from_secs(10), Duration::from_secs(15));
    for case in 0..3 {
        for (mut end, _) in both() {
            end.session.start_heartbeat(ten, fifteen, end.now).unwrap();
            let id = u32::from(end.sent()[7]);
            let frame = [vec![], rst(id, Code::STREAM_REFUSED), data(id, frame::FIN, b"")];
            assert_eq!(end.take(&frame[case]), []);
            assert_eq!(end.tick(at(24)), []);
            let over = Seen::Over(Code::NO_ERROR, Reason::HeartbeatTimeout);
            assert_eq!(end.tick(at(25)), [over]);
        }
    }
}

#[test]
fn heartbeat_requests_without_end() {
    for (mut end, first) in both() {
        end.take(&syn(first, StreamType::HEARTBEAT, b""));
        let beats = vec![7; 40_000];
        let (_, over) = end.flood(std::iter::repeat_n(data(first, 0, &beats), 10));
        assert_eq!(over, calm(Flood::Beats));
        assert!(end.session.heap_bytes() < 64 * 1024);
        assert!(end.sent().len() < 1_100 * 12, "the answers are bounded");
    }
    // A fast peer gets all echoes within its budget, in whole groups only.
    for (mut end, first) in both() {
        end.take(&syn(first, StreamType::HEARTBEAT, b"abcdefghi"));
        let echoes = [data(first, 0, b"abcd"), data(first, 0, b"efgh")].concat();
        assert_eq!(end.sent(), echoes);
        assert_eq!(end.take(&data(first, 0, b"jkl")), []);
        assert_eq!(end.sent(), data(first, 0, b"ijkl"));
    }
}

#[test]
fn heartbeat_streams_are_few() {
    for (mut end, first) in both() {
        for i in 0..6 {
            assert_eq!(end.take(&syn(first + 2 * i, StreamType::HEARTBEAT, b"")), []);
        }
        assert_eq!(end.session.streams(), 4);
        let refused = [first + 8, first + 10].map(|id| rst(id, Code::STREAM_REFUSED)).concat();
        assert_eq!(end.sent(), refused);
        end.take(&data(first, frame::FIN, b""));
        assert_eq!(end.sent(), data(first, frame::FIN, b""), "closed on both sides");
        end.take(&rst(first + 2, Code::STREAM_CANCELLED));
        assert_eq!(end.session.streams(), 2);
        let frames = (8..MANY).map(|i| {
            let id = first + 2 * i;
            [syn(id, StreamType::HEARTBEAT, b""), data(id, frame::FIN, b"")].concat()
        });
        assert_eq!(end.flood(frames).1, calm(Flood::Churn));
    }
}

#[test]
fn unknown_types_are_the_application_s_to_refuse() {
    for (mut end, first) in both() {
        assert_eq!(
            end.take(&syn(first, StreamType(0x1234_5678), b"")),
            [Seen::Opened(first, StreamType(0x1234_5678))]
        );
        end.session.cancel(StreamId(first), Code::STREAM_REFUSED);
        let refusal = [data(first, frame::FIN, b""), rst(first, Code::STREAM_REFUSED)].concat();
        assert_eq!(end.sent(), refusal);
        assert_eq!(end.take(&syn(first + 2, StreamType::PROXY, b"")).len(), 1);
    }
}

#[test]
fn a_link_that_takes_nothing_is_no_busy_loop() {
    for (mut end, first) in both() {
        let mut frames = (0..MANY).map(|i| data(first + 2 * i, 0, b"x"));
        while end.session.wants_input() {
            let frame = frames.next().unwrap();
            assert_eq!(end.session.receive(&frame, end.now).1, None);
        }
        for _ in 0..1_000 {
            assert_eq!(end.session.transmit(&mut []), 0);
            assert_eq!(end.session.transmit(&mut [0; 11]), 0);
            assert!(end.session.has_transmit() && !end.session.wants_input());
            assert_eq!(end.session.receive(&[], end.now), (0, None));
        }
        assert!(!end.session.deadline().due(Instant::from_micros(u64::MAX)));
        assert!(end.session.heap_bytes() < 64 * 1024);
        // A full queue also limits our own side.
        let mut opened = 0;
        let busy = loop {
            match end.session.open(StreamType::AUTH, &[0; MAX_FIRST]) {
                Ok(stream) => end.session.reset(stream, Code::STREAM_CANCELLED),
                Err(error) => break error,
            }
            opened += 1;
        };
        assert_eq!(busy, OpenError::Busy);
        assert!(opened < 100);
        end.discard();
        assert!(end.session.wants_input());
        assert!(end.session.open(StreamType::AUTH, b"").is_ok());
        assert!(end.session.heap_bytes() < 96 * 1024);
    }
}

#[test]
fn frames_of_unknown_type_without_end() {
    for (mut end, _) in both() {
        let frames = (0..MANY).map(|_| hex("00000140 00000000 00"));
        assert_eq!(end.flood(frames).1, calm(Flood::Useless));
    }
}

#[test]
fn after_a_goaway_nothing_new_and_no_garbage() {
    for (name, more) in [
        ("a stream", syn(100, StreamType::PROXY, b"")),
        ("a stream", syn(101, StreamType::PROXY, b"")),
        ("a second one", goaway(0, Code(3), b"again...")),
        ("an unknown frame", hex("00000040 00000000")),
        ("a bad length", hex("00000320 00000002")),
        ("a frame beyond any window", hex("ffffff10 00000002")),
    ] {
        for (mut end, first) in both() {
            end.take(&syn(first, StreamType::PROXY, b""));
            assert_eq!(end.take(&goaway(0, Code(2), b"crashed!")).len(), 1);
            assert_eq!(end.take(&data(first, 0, b"x")).len(), 1, "what runs goes on");
            let over = Seen::Over(Code(2), Reason::PeerLeft);
            assert_eq!(end.take(&more), [over], "{name}");
            assert_eq!(end.sent(), NOTHING);
        }
    }
}

#[test]
fn a_cancelled_stream_that_this_side_finishes_meanwhile_is_reset() {
    for (mut end, first) in both() {
        end.take(&syn(first, StreamType::PROXY, b"part"));
        assert_eq!(end.take(&data(first, frame::FIN, b"")), [Seen::Finished(first)]);
        // Between the two frames of a cancelled stream another thread ends our direction.
        end.session.consumed(StreamId(first), 4);
        end.session.finish(StreamId(first));
        let cancelled = Code::STREAM_CANCELLED;
        assert_eq!(end.take(&rst(first, cancelled)), [Seen::Reset(first, cancelled)]);
        // A reset that is not directly behind belongs to a stream that has ended.
        end.take(&data(first, 0, b""));
        assert_eq!(end.take(&rst(first, cancelled)), []);
    }
}
