//! Behaviour of a session, frame by frame: one short test for each rule.

use std::time::Duration;

use super::frame::{self, FrameHeader, FrameType};
use super::*;
use crate::time::{Deadline, Instant};

/// No bytes.
pub(super) const NOTHING: [u8; 0] = [];

/// Returns an instant in seconds.
pub(super) fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

/// Decodes hexadecimal, with blanks ignored.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// Returns a DATA frame.
pub(super) fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader::data(StreamId(stream), payload.len() as u32, flags);
    [&header.encode()[..], payload].concat()
}

/// Returns a SYN frame with a type and first bytes.
pub(super) fn syn(stream: u32, kind: StreamType, first: &[u8]) -> Vec<u8> {
    data(stream, frame::SYN, &[&kind.0.to_be_bytes()[..], first].concat())
}

pub(super) fn rst(stream: u32, code: Code) -> Vec<u8> {
    frame::rst(StreamId(stream), code).to_vec()
}

pub(super) fn wndinc(stream: u32, increment: u32) -> Vec<u8> {
    frame::wndinc(StreamId(stream), increment).to_vec()
}

pub(super) fn goaway(last: u32, code: Code, text: &[u8]) -> Vec<u8> {
    let length = 8 + text.len() as u32;
    let header = FrameHeader { length, kind: FrameType::GoAway, flags: 0, stream: 0 };
    let fixed = [last.to_be_bytes(), code.0.to_be_bytes()].concat();
    [&header.encode()[..], &fixed, text].concat()
}

/// An [`Event`] that owns its bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Opened(u32, StreamType),
    Data(u32, Vec<u8>),
    Finished(u32),
    Reset(u32, Code),
    Writable(u32),
    Latency(Duration),
    GoAway(Code, String),
    Over(Code, Reason),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Opened { stream, kind } => Seen::Opened(stream.0, kind),
            Event::Data { stream, bytes } => Seen::Data(stream.0, bytes.to_vec()),
            Event::Finished { stream } => Seen::Finished(stream.0),
            Event::Reset { stream, code } => Seen::Reset(stream.0, code),
            Event::Writable { stream } => Seen::Writable(stream.0),
            Event::Latency(time) => Seen::Latency(time),
            Event::GoAway { code, text } => Seen::GoAway(code, text.into()),
            Event::Over { code, reason } => Seen::Over(code, reason),
        }
    }
}

/// A session under test, at the last time that was set.
pub(super) struct End {
    pub(super) session: Muxer,
    pub(super) now: Instant,
}

impl End {
    pub(super) fn new(config: Config) -> End {
        End { session: Muxer::new(config, Instant::ZERO), now: Instant::ZERO }
    }

    pub(super) fn agent() -> End {
        End::new(Config::new(Role::Agent, 1))
    }

    pub(super) fn edge() -> End {
        End::new(Config::new(Role::Edge, 2))
    }

    /// Feeds bytes and returns all events.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut rest = bytes;
        loop {
            let (used, event) = self.session.receive(rest, self.now);
            rest = &rest[used..];
            self.session.check_invariants();
            match event {
                Some(event) => seen.push(event.into()),
                None if rest.is_empty() => return seen,
                None => panic!("neither bytes taken nor an event"),
            }
        }
    }

    /// Lets time pass and returns all events.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<Seen> {
        self.now = now;
        let mut seen = Vec::new();
        while let Some(event) = self.session.tick(now) {
            seen.push(event.into());
        }
        assert!(!self.session.deadline().due(now), "a deadline in the past");
        seen
    }

    /// Returns all bytes that wait for the link.
    pub(super) fn sent(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut out = [0; MAX_CONTROL];
        while self.session.has_transmit() {
            let n = self.session.transmit(&mut out);
            all.extend(&out[..n]);
            assert!(n > 0 || !self.session.has_transmit(), "the queue stands still");
        }
        self.session.check_invariants();
        all
    }

    /// Writes `payload` as far as the window allows. Returns the frames.
    pub(super) fn write(&mut self, stream: StreamId, payload: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        let mut rest = payload;
        while !rest.is_empty() {
            let Ok(grant) = self.session.grant(stream, rest.len()) else { break };
            all.extend(grant.header);
            all.extend(&rest[..grant.len]);
            rest = &rest[grant.len..];
        }
        all
    }
}

fn id(stream: u32) -> StreamId {
    StreamId(stream)
}

#[test]
fn an_agent_opens_heartbeat_and_auth_as_in_the_worked_bytes() {
    let mut agent = End::agent();
    let (ten, fifteen) = (Duration::from_secs(10), Duration::from_secs(15));
    agent.session.start_heartbeat(ten, fifteen, agent.now).unwrap();
    let sent = agent.sent();
    assert_eq!(sent[..12], hex("00 00 04 12 00 00 00 03  ff ff ff ff"));
    assert_eq!(sent[12..20], hex("00 00 04 10 00 00 00 03"));
    let number = sent[20..].to_vec();
    assert_eq!(number.len(), 4);
    let auth = agent.session.open(StreamType::AUTH, &[]).unwrap();
    assert_eq!(auth.get(), 5);
    assert_eq!(agent.session.grant(auth, 58), Err(GrantError::ControlPending));
    assert_eq!(agent.sent(), hex("00 00 04 12 00 00 00 05  00 00 00 00"));
    let grant = agent.session.grant(auth, 58).unwrap();
    assert_eq!(grant.header, *hex("00 00 3a 10 00 00 00 05"));
    assert_eq!(grant.len, 58);
    agent.now = at(1);
    let echo = data(3, 0, &number);
    assert_eq!(agent.take(&echo), [Seen::Latency(Duration::from_secs(1))]);
    assert_eq!(agent.session.latency(), Some(Duration::from_secs(1)));
    let answer = hex("00 00 42 10 00 00 00 05").into_iter().chain([b'x'; 66]).collect::<Vec<_>>();
    assert_eq!(agent.take(&answer), [Seen::Data(5, vec![b'x'; 66])]);
    assert_eq!(agent.take(&hex("00 00 00 11 00 00 00 05")), [Seen::Finished(5)]);
    agent.session.finish(auth);
    agent.session.consumed(auth, 66);
    assert_eq!(agent.sent(), hex("00 00 00 11 00 00 00 05"));
    assert_eq!((agent.session.streams(), agent.session.unconsumed()), (1, 0));
}

#[test]
fn an_edge_answers_the_beat_and_reads_type_and_data_in_one_frame() {
    let mut edge = End::edge();
    assert_eq!(edge.take(&hex("00000412 00000003 ffffffff  00000410 00000003 5c09885c")), []);
    assert_eq!(edge.sent(), hex("00 00 04 10 00 00 00 03  5c 09 88 5c"));
    let opened = edge.take(&hex("00 00 0b 12 00 00 00 05  00 00 00 00  7b 22 56 65 72 73 69"));
    assert_eq!(opened, [Seen::Opened(5, StreamType::AUTH), Seen::Data(5, b"{\"Versi".to_vec())]);
    assert_eq!(edge.session.unconsumed(), 7);
    assert_eq!(edge.session.largest_buffered(Instant::from_micros(u64::MAX)), Some((id(5), 7)));
    edge.session.consumed(id(5), 7);
    assert_eq!(edge.sent(), NOTHING, "eleven bytes are not worth a WNDINC");
}

#[test]
fn a_visitor_and_a_stop_as_in_the_worked_bytes() {
    let visitor = hex("00 00 92 12 00 00 00 02 00 00 00 03 60 00 00 00 \
         00 00 00 00 7b 22 49 64 22 3a 22 62 31 22 2c 22 \
         43 6c 69 65 6e 74 41 64 64 72 22 3a 22 31 39 32 \
         2e 30 2e 32 2e 37 3a 35 30 30 30 30 22 2c 22 50 \
         72 6f 74 6f 22 3a 22 68 74 74 70 73 22 2c 22 45 \
         64 67 65 54 79 70 65 22 3a 22 33 22 2c 22 50 61 \
         73 73 74 68 72 6f 75 67 68 54 4c 53 22 3a 66 61 \
         6c 73 65 7d 47 45 54 20 2f 20 48 54 54 50 2f 31 \
         2e 31 0d 0a 48 6f 73 74 3a 20 64 65 6d 6f 2e 65 \
         78 61 6d 70 6c 65 0d 0a 0d 0a");
    let mut edge = End::edge();
    let stream = edge.session.open(StreamType::PROXY, &visitor[12..]).unwrap();
    assert_eq!(stream.get(), 2);
    assert_eq!(edge.sent(), visitor);
    let mut agent = End::agent();
    assert_eq!(
        agent.take(&visitor),
        [Seen::Opened(2, StreamType::PROXY), Seen::Data(2, visitor[12..].to_vec())]
    );
    let stop = hex("00 00 04 12 00 00 00 04  00 00 00 05  00 00 02 10 00 00 00 04  7b 7d");
    assert_eq!(
        agent.take(&stop),
        [Seen::Opened(4, StreamType::STOP), Seen::Data(4, b"{}".to_vec())]
    );
    let answer = agent.write(id(4), b"{\"Error\":\"\"}");
    assert_eq!(answer, hex("00 00 0c 10 00 00 00 04  7b 22 45 72 72 6f 72 22 3a 22 22 7d"));
}

#[test]
fn events_do_not_depend_on_how_the_bytes_are_cut() {
    let bytes = [
        syn(3, StreamType::BIND, b"hello"),
        data(3, 0, b"world"),
        wndinc(3, 5),
        hex("00 00 03 70 00 00 00 00 aa bb cc"),
        data(3, frame::FIN, b"!"),
        goaway(0, Code::NO_ERROR, b"so long, and thanks"),
    ]
    .concat();
    for size in 1..bytes.len() {
        let mut edge = End::edge();
        let mut text = Vec::new();
        let mut others = Vec::new();
        for piece in bytes.chunks(size) {
            for seen in edge.take(piece) {
                match seen {
                    Seen::Data(3, bytes) => text.extend(bytes),
                    other => others.push(other),
                }
            }
        }
        assert_eq!(text, b"helloworld!");
        let bye = Seen::GoAway(Code::NO_ERROR, "so long, and thanks".into());
        assert_eq!(others, [Seen::Opened(3, StreamType::BIND), Seen::Finished(3), bye]);
    }
}

#[test]
fn windows_stop_the_sender_and_give_way_again() {
    let mut agent = End::agent();
    let stream = agent.session.open(StreamType::AUTH, &[]).unwrap();
    agent.sent();
    let sent = agent.write(stream, &vec![0; 300_000]);
    let frames = (WINDOW as usize - 4).div_ceil(MAX_PAYLOAD);
    assert_eq!(sent.len(), WINDOW as usize - 4 + 8 * frames);
    assert_eq!(agent.session.grant(stream, 1), Err(GrantError::NoWindow));
    assert_eq!(agent.take(&wndinc(3, 10)), [Seen::Writable(3)]);
    assert_eq!(agent.take(&wndinc(3, 10)), []);
    assert_eq!(agent.session.grant(stream, 100).unwrap().len, 20);
    assert_eq!(agent.session.grant(stream, 1), Err(GrantError::NoWindow));
    assert_eq!(agent.take(&wndinc(3, 0x7FFF_FFFF)), [Seen::Writable(3)]);
    let sent = agent.write(stream, &vec![0; 300_000]);
    assert_eq!(sent.len(), WINDOW as usize + 8 * (WINDOW as usize).div_ceil(MAX_PAYLOAD));
}

#[test]
fn window_goes_back_in_batches() {
    let mut edge = End::edge();
    edge.take(&syn(3, StreamType::AUTH, &[]));
    let half = vec![0; WINDOW as usize / 2];
    edge.take(&data(3, 0, &half));
    edge.session.consumed(id(3), 1_000);
    assert_eq!(edge.sent(), NOTHING);
    edge.session.consumed(id(3), half.len());
    assert_eq!(edge.sent(), wndinc(3, 4 + half.len() as u32));
    edge.session.consumed(id(3), half.len());
    assert_eq!(edge.sent(), NOTHING, "nothing is given back twice");
}

#[test]
fn more_than_the_window_resets_the_stream_alone() {
    let mut edge = End::edge();
    edge.take(&syn(3, StreamType::AUTH, &[]));
    edge.take(&syn(5, StreamType::BIND, &[]));
    let full = data(3, 0, &vec![0; WINDOW as usize - 4]);
    assert_eq!(edge.take(&full).len(), 1);
    let more = data(3, 0, b"x");
    assert_eq!(edge.take(&more), [Seen::Reset(3, Code::FLOW_CONTROL_ERROR)]);
    assert_eq!(edge.sent(), rst(3, Code::FLOW_CONTROL_ERROR));
    assert_eq!(edge.take(&more), [], "one RST a stream");
    assert_eq!(edge.sent(), NOTHING);
    assert_eq!(edge.session.unconsumed(), 0);
    let huge = data(5, 0, &vec![0; WINDOW as usize + 1]);
    assert_eq!(edge.take(&huge), [Seen::Reset(5, Code::FLOW_CONTROL_ERROR)]);
    assert_eq!(edge.take(&syn(7, StreamType::BIND, b"a")).len(), 2);
}

#[test]
fn data_after_fin_or_for_unknown_streams_is_answered_once() {
    let mut edge = End::edge();
    edge.take(&syn(3, StreamType::AUTH, b"a"));
    assert_eq!(edge.take(&data(3, frame::FIN, b"b")).len(), 2);
    assert_eq!(edge.take(&data(3, frame::FIN, b"")), [], "a second FIN is normal");
    assert_eq!(edge.take(&data(3, 0, b"")), []);
    assert_eq!(edge.take(&data(3, 0, b"c")), [Seen::Reset(3, Code::STREAM_CLOSED)]);
    assert_eq!(edge.sent(), rst(3, Code::STREAM_CLOSED));
    for stranger in [4, 9] {
        assert_eq!(edge.take(&data(stranger, 0, b"x")), []);
        assert_eq!(edge.sent(), rst(stranger, Code::STREAM_CLOSED));
        assert_eq!(edge.take(&data(stranger, 0, b"x")), []);
        assert_eq!(edge.take(&data(stranger, frame::FIN, b"")), []);
        assert_eq!(edge.take(&wndinc(stranger, 3)), []);
        assert_eq!(edge.take(&rst(stranger, Code::STREAM_CLOSED)), []);
        assert_eq!(edge.sent(), NOTHING);
    }
}

#[test]
fn half_close_leaves_the_other_direction_open() {
    let mut agent = End::agent();
    let stream = agent.session.open(StreamType::BIND, b"q").unwrap();
    agent.session.finish(stream);
    agent.session.finish(stream);
    assert_eq!(agent.sent(), [syn(3, StreamType::BIND, b"q"), data(3, frame::FIN, b"")].concat());
    assert_eq!(agent.session.grant(stream, 1), Err(GrantError::Closed(Code::STREAM_CLOSED)));
    let big = vec![7; 200_000];
    assert_eq!(agent.take(&data(3, 0, &big)).len(), 1);
    agent.session.consumed(stream, big.len());
    assert_eq!(agent.sent(), wndinc(3, 200_000), "window goes on after our FIN");
    assert_eq!(agent.take(&data(3, frame::FIN, b"")), [Seen::Finished(3)]);
    assert_eq!(agent.session.streams(), 0);
}

#[test]
fn unconsumed_bytes_outlive_their_stream_in_the_account() {
    let mut agent = End::agent();
    let stream = agent.session.open(StreamType::BIND, &[]).unwrap();
    agent.session.finish(stream);
    agent.take(&data(3, frame::FIN, b"answer"));
    assert_eq!((agent.session.unconsumed(), agent.session.streams()), (6, 1));
    agent.session.consumed(stream, 4);
    assert_eq!(agent.session.largest_buffered(Instant::from_micros(u64::MAX)), Some((stream, 2)));
    agent.session.consumed(stream, 100);
    assert_eq!((agent.session.unconsumed(), agent.session.streams()), (0, 0));
    agent.session.consumed(stream, 100);
    let other = agent.session.open(StreamType::BIND, &[]).unwrap();
    agent.sent();
    assert_eq!(agent.take(&data(5, 0, b"answer")).len(), 1);
    assert_eq!(agent.take(&rst(5, Code(77))), [Seen::Reset(5, Code(77))]);
    assert_eq!(agent.session.unconsumed(), 6, "an RST takes nothing back");
    agent.session.cancel(other, Code::STREAM_CANCELLED);
    assert_eq!((agent.session.unconsumed(), agent.session.streams()), (0, 0));
    assert_eq!(agent.sent(), NOTHING, "RST is not answered");
}

#[test]
fn cancel_is_fin_then_rst_and_swallows_what_was_in_flight() {
    let mut edge = End::edge();
    let stream = edge.session.open(StreamType::PROXY, &[]).unwrap();
    edge.sent();
    edge.session.cancel(stream, Code::STREAM_CANCELLED);
    edge.session.cancel(stream, Code::STREAM_CANCELLED);
    let expected = [data(2, frame::FIN, b""), rst(2, Code::STREAM_CANCELLED)].concat();
    assert_eq!(edge.sent(), expected);
    assert_eq!(edge.take(&data(2, 0, b"late")), []);
    assert_eq!(edge.take(&rst(2, Code::STREAM_CLOSED)), []);
    assert_eq!(edge.sent(), NOTHING);
}

#[test]
fn cancel_of_a_stream_that_we_finished_is_not_an_orderly_end() {
    let cancel = [data(3, frame::FIN, b""), rst(3, Code::STREAM_CANCELLED)].concat();
    for cut in [cancel.len(), 8, 11] {
        let mut edge = End::edge();
        edge.take(&syn(3, StreamType::AUTH, b"part"));
        edge.session.finish(id(3));
        edge.sent();
        let mut seen = edge.take(&cancel[..cut]);
        seen.extend(edge.take(&cancel[cut..]));
        assert_eq!(seen, [Seen::Finished(3), Seen::Reset(3, Code::STREAM_CANCELLED)]);
        assert_eq!(edge.take(&rst(3, Code::STREAM_CANCELLED)), [], "one reset a stream");
        assert_eq!(edge.sent(), NOTHING);
    }
    // A reset behind another frame is late, and STREAM_CLOSED follows any end.
    let late = [wndinc(3, 1), rst(3, Code::STREAM_CANCELLED)].concat();
    for behind in [late, rst(3, Code::STREAM_CLOSED)] {
        let mut edge = End::edge();
        edge.take(&syn(3, StreamType::AUTH, b"all"));
        edge.session.finish(id(3));
        let end = [data(3, frame::FIN, b""), behind].concat();
        assert_eq!(edge.take(&end), [Seen::Finished(3)]);
    }
}

#[test]
fn a_stream_reset_in_the_middle_of_a_frame_skips_its_rest() {
    let mut edge = End::edge();
    let bytes = [syn(3, StreamType::AUTH, b"abcdef"), syn(5, StreamType::BIND, b"")].concat();
    assert_eq!(edge.take(&bytes[..15]).len(), 2);
    edge.session.reset(id(3), Code::STREAM_CANCELLED);
    assert_eq!(edge.take(&bytes[15..]), [Seen::Opened(5, StreamType::BIND)]);
    assert_eq!(edge.sent(), rst(3, Code::STREAM_CANCELLED));
}

#[test]
fn frames_that_end_the_session() {
    let stream = id(4);
    let cases: &[(&str, Code, Reason)] = &[
        ("00 00 05 00 00000004", Code(8), Reason::FrameLength { frame: "RST", length: 5 }),
        (
            "ff ff ff 20 00000004",
            Code(8),
            Reason::FrameLength { frame: "WNDINC", length: 0xFF_FFFF },
        ),
        ("00 00 07 30 00000000", Code(8), Reason::FrameLength { frame: "GOAWAY", length: 7 }),
        ("00 00 04 00 00000000", Code(1), Reason::StreamZero { frame: "RST" }),
        ("00 00 00 10 00000000", Code(1), Reason::StreamZero { frame: "DATA" }),
        ("00 00 00 10 80000000", Code(1), Reason::StreamZero { frame: "DATA" }),
        ("00 00 04 20 00000000", Code(1), Reason::StreamZero { frame: "WNDINC" }),
        ("00 00 08 30 00000004", Code(1), Reason::GoAwayOnStream { stream }),
        ("00 00 04 20 00000004 00000000", Code(1), Reason::ZeroIncrement { stream }),
        ("00 00 04 20 00000004 80000000", Code(1), Reason::ZeroIncrement { stream }),
        ("00 00 04 12 00000003 00000000", Code(1), Reason::WrongParity { stream: id(3) }),
        ("00 00 04 12 00000002 00000000", Code(1), Reason::DuplicateSyn { stream: id(2) }),
    ];
    for &(bytes, code, reason) in cases {
        let mut agent = End::agent();
        agent.take(&syn(2, StreamType::STOP, b""));
        assert_eq!(agent.take(&hex(bytes)), [Seen::Over(code, reason)], "{bytes}");
        assert_eq!(agent.sent(), goaway(2, code, reason.to_string().as_bytes()));
        assert!(agent.session.is_over());
        assert_eq!(agent.take(&syn(6, StreamType::STOP, b"")), []);
        assert_eq!(agent.session.open(StreamType::AUTH, &[]), Err(OpenError::Over));
        assert_eq!(agent.session.deadline(), Deadline::Never);
        assert_eq!(agent.sent(), NOTHING);
    }
}

#[test]
fn odd_but_harmless_frames_are_survived() {
    let mut agent = End::agent();
    assert_eq!(agent.take(&hex("00 00 02 4f 00 00 00 00 aa bb")), [], "unknown type");
    assert_eq!(
        agent.take(&hex("00 00 04 1e 80 00 00 02 00 00 00 05")).len(),
        1,
        "masked id, flags"
    );
    assert_eq!(agent.take(&hex("00 00 04 2f 00 00 00 02 80 00 00 01")), [], "flags on WNDINC");
    assert_eq!(agent.take(&hex("00 00 00 13 00 00 00 04")), [], "SYN and FIN, nothing else");
    assert_eq!(agent.take(&syn(2_000, StreamType(99), b"")), [Seen::Opened(2_000, StreamType(99))]);
    assert_eq!(agent.session.streams(), 2);
}

#[test]
fn a_type_may_come_in_pieces_but_not_for_ever() {
    let mut agent = End::agent();
    for (i, frame) in
        [data(2, frame::SYN, &[0]), data(2, 0, &[0]), data(2, 0, &[0])].iter().enumerate()
    {
        agent.now = at(i as u64);
        assert_eq!(agent.take(frame), []);
    }
    assert_eq!(
        agent.take(&data(2, 0, &[3, 9])),
        [Seen::Opened(2, StreamType::PROXY), Seen::Data(2, vec![9])]
    );
    assert_eq!(agent.session.deadline(), Deadline::Never);
    agent.take(&data(4, frame::SYN, &[0]));
    agent.now = at(3);
    agent.take(&data(6, frame::SYN, b""));
    assert_eq!(agent.session.deadline(), Deadline::At(at(12)));
    assert_eq!(agent.tick(at(11)), []);
    assert_eq!(agent.tick(at(12)), []);
    let refusal = |n| [data(n, frame::FIN, b""), rst(n, Code::STREAM_REFUSED)].concat();
    assert_eq!(agent.sent(), refusal(4));
    assert_eq!(agent.tick(at(100)), []);
    assert_eq!(agent.sent(), refusal(6));
    assert_eq!(agent.take(&data(4, 0, &[0, 0, 3])), [], "too late");
    assert_eq!(agent.session.streams(), 1);
}

#[test]
fn a_stream_that_ends_before_its_type_is_closed_and_forgotten() {
    let mut agent = End::agent();
    assert_eq!(agent.take(&[data(2, frame::SYN, &[0, 0]), data(2, frame::FIN, &[0])].concat()), []);
    assert_eq!(agent.sent(), data(2, frame::FIN, b""));
    assert_eq!(agent.take(&[data(4, frame::SYN, &[0, 0]), rst(4, Code(6))].concat()), []);
    assert_eq!(agent.sent(), NOTHING);
    assert_eq!(agent.session.streams(), 0);
    assert_eq!(agent.session.deadline(), Deadline::Never);
}

#[test]
fn streams_beyond_the_limits_are_refused() {
    let mut config = Config::new(Role::Agent, 1);
    (config.max_streams, config.accept_backlog) = (3, 1);
    let mut agent = End::new(config);
    agent.take(&data(2, frame::SYN, b""));
    assert_eq!(agent.take(&syn(4, StreamType::PROXY, b"x")), []);
    assert_eq!(agent.sent(), rst(4, Code::ACCEPT_QUEUE_FULL), "the backlog is one");
    agent.take(&data(2, 0, &[0, 0, 0, 3]));
    agent.take(&syn(6, StreamType::PROXY, b"x"));
    let own = agent.session.open(StreamType::AUTH, b"").unwrap();
    agent.sent();
    assert_eq!(agent.take(&syn(8, StreamType::PROXY, b"x")), []);
    assert_eq!(agent.sent(), rst(8, Code::ACCEPT_QUEUE_FULL));
    assert_eq!(agent.session.open(StreamType::AUTH, b""), Err(OpenError::TooMany));
    agent.session.cancel(own, Code::STREAM_CANCELLED);
    assert_eq!(agent.take(&syn(10, StreamType::PROXY, b"x")).len(), 2);
}

#[test]
fn ids_run_out_without_a_word_on_the_wire() {
    let mut agent = End::agent();
    agent.session.set_next_id(frame::ID_MASK);
    assert_eq!(agent.session.open(StreamType::AUTH, b"").unwrap().get(), frame::ID_MASK);
    agent.sent();
    assert_eq!(agent.session.open(StreamType::AUTH, b""), Err(OpenError::Exhausted));
    assert_eq!(
        agent.session.open(StreamType::AUTH, &[0; MAX_FIRST + 1]),
        Err(OpenError::Exhausted)
    );
    assert_eq!(agent.sent(), NOTHING);
}

#[test]
fn goaway_lets_known_streams_finish_and_ends_the_others() {
    let mut agent = End::agent();
    for _ in 0..3 {
        agent.session.open(StreamType::BIND, b"").unwrap();
    }
    agent.sent();
    let seen = agent.take(&goaway(5, Code::NO_ERROR, b"no error"));
    assert_eq!(
        seen,
        [Seen::GoAway(Code::NO_ERROR, "no error".into()), Seen::Reset(7, Code::REMOTE_GONE_AWAY)]
    );
    assert_eq!(agent.session.open(StreamType::BIND, b""), Err(OpenError::PeerLeft));
    assert_eq!(agent.take(&data(3, frame::FIN, b"x")).len(), 2);
    assert_eq!(agent.session.deadline(), Deadline::At(at(5)));
    let over = || [Seen::Over(Code::NO_ERROR, Reason::PeerLeft)];
    assert_eq!(agent.tick(at(5)), over());
    assert_eq!(agent.sent(), NOTHING);

    let mut edge = End::edge();
    assert_eq!(edge.take(&goaway(0, Code::NO_ERROR, b"")).len(), 1);
    assert_eq!(edge.tick(at(0)), over(), "nothing runs: over at once");
}

#[test]
fn the_malformed_goaway_ends_the_session_where_it_stops_to_parse() {
    let mut edge = End::edge();
    edge.take(&syn(3, StreamType::AUTH, b""));
    let bytes = hex("00 00 0d 30 00 00 00 00  00 00 00 06  00 00 00 01 \
         69 6e 76 61 6c 69 64 20 66 72 61 6d 65");
    assert_eq!(
        edge.take(&bytes),
        [Seen::GoAway(Code::PROTOCOL_ERROR, "inval".into()), Seen::Over(Code(1), Reason::PeerLeft)]
    );
}

#[test]
fn a_goaway_whose_text_never_comes_does_not_hold_the_session() {
    let mut edge = End::edge();
    edge.take(&syn(3, StreamType::AUTH, b""));
    let bytes = goaway(0, Code(2), &[b'x'; 4_000]);
    assert_eq!(edge.take(&bytes[..100]), []);
    assert_eq!(edge.tick(at(5)), [Seen::Over(Code(2), Reason::PeerLeft)]);
    let mut edge = End::edge();
    assert_eq!(edge.take(&bytes), [Seen::GoAway(Code(2), "x".repeat(256))]);
}

#[test]
fn our_goaway_is_the_last_frame() {
    let mut edge = End::edge();
    edge.take(&syn(9, StreamType::AUTH, b""));
    let stream = edge.session.open(StreamType::STOP, b"{}").unwrap();
    edge.session.finish(stream);
    edge.session.go_away(Code::NO_ERROR, "no error");
    edge.session.cancel(stream, Code::STREAM_CANCELLED);
    let expected = [
        syn(2, StreamType::STOP, b"{}"),
        data(2, frame::FIN, b""),
        goaway(9, Code::NO_ERROR, b"no error"),
    ];
    assert_eq!(edge.sent(), expected.concat());
    assert!(edge.session.is_over() && !edge.session.wants_input());
}

#[test]
fn heartbeats_run_on_their_own() {
    let (mut agent, mut edge) = (End::agent(), End::edge());
    let (ten, fifteen) = (Duration::from_secs(10), Duration::from_secs(15));
    agent.session.start_heartbeat(ten, fifteen, at(0)).unwrap();
    edge.session.start_heartbeat(ten, fifteen, at(0)).unwrap();
    for beat in 0..100 {
        let now = at(10 * beat);
        assert_eq!((agent.tick(now), edge.tick(now)), (vec![], vec![]));
        let (a, e) = (agent.sent(), edge.sent());
        assert_eq!((agent.take(&e), edge.take(&a)), (vec![], vec![]));
        let (a, e) = (agent.sent(), edge.sent());
        assert_eq!((a.len(), e.len()), (12, 12), "an echo and nothing else");
        let latency = || vec![Seen::Latency(Duration::ZERO)];
        assert_eq!((agent.take(&e), edge.take(&a)), (latency(), latency()));
    }
    assert_eq!(agent.tick(at(1_000)), []);
    assert_eq!(agent.sent().len(), 12);
    assert_eq!(agent.session.deadline(), Deadline::At(at(1_015)));
    assert_eq!(agent.tick(at(1_015)), [Seen::Over(Code::NO_ERROR, Reason::HeartbeatTimeout)]);
    let bye = goaway(2, Code::NO_ERROR, Reason::HeartbeatTimeout.to_string().as_bytes());
    assert_eq!(agent.sent(), bye);
}
