//! Target `session_hostile`: a hostile peer that uses the grammar, and an application with any
//! calls. The session sends nothing forbidden, and its counters and limits are right.

use std::collections::BTreeMap;
use std::time::Duration;

use culvert::mux::{Code, Config, Event, MAX_CONTROL, Muxer, Role, StreamId, StreamType};
use culvert::time::Instant;

use crate::grammar;
use crate::input::{Choices, Dice};
use crate::rules::Rules;

/// A session, its application, and their expected state.
pub struct Host {
    /// The session under test.
    pub session: Muxer,
    /// Its clock.
    pub now: Instant,
    rules: Rules,
    window: usize,
    max_streams: usize,
    /// Received and not consumed bytes by stream, until it is released.
    held: BTreeMap<StreamId, usize>,
    streams: Vec<StreamId>,
    over: bool,
}

impl Host {
    /// Returns a session with small limits, so that they are reached.
    pub fn new(role: Role, window: u32, max_streams: usize) -> Host {
        let mut config = Config::new(role, 7);
        config.window = window;
        config.max_streams = max_streams;
        config.accept_backlog = 3;
        config.max_pending = 64;
        let first = if role == Role::Agent { 3 } else { 2 };
        Host {
            session: Muxer::new(config, Instant::ZERO),
            now: Instant::ZERO,
            rules: Rules::new(first, window),
            window: window as usize,
            max_streams,
            held: BTreeMap::new(),
            streams: Vec::new(),
            over: false,
        }
    }

    /// Processes the peer's bytes, in one piece.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.rules.incoming(bytes);
        let mut rest = bytes;
        let mut rounds = 0;
        loop {
            let (used, event) = self.session.receive(rest, self.now);
            rest = &rest[used..];
            rounds += 1;
            assert!(rounds < 2 * bytes.len() + 1_000, "no end of events");
            match event {
                Some(event) => {
                    let event = Self::note(&mut self.held, &mut self.streams, event);
                    self.over |= event;
                }
                None if rest.is_empty() => break,
                None => panic!("neither bytes taken nor an event"),
            }
        }
        self.check();
    }

    /// Returns whether it was the last event.
    fn note(
        held: &mut BTreeMap<StreamId, usize>,
        streams: &mut Vec<StreamId>,
        event: Event<'_>,
    ) -> bool {
        match event {
            Event::Opened { stream, kind } => {
                assert!(kind != StreamType::HEARTBEAT);
                if !streams.contains(&stream) {
                    streams.push(stream);
                }
            }
            Event::Data { stream, bytes } => *held.entry(stream).or_default() += bytes.len(),
            Event::Over { .. } => return true,
            _ => {}
        }
        false
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        let mut rounds = 0;
        while let Some(event) = self.session.tick(self.now) {
            self.over |= Self::note(&mut self.held, &mut self.streams, event);
            rounds += 1;
            assert!(rounds < 10_000, "no end of events");
        }
        assert!(!self.session.deadline().due(self.now), "a deadline in the past");
        self.check();
    }

    /// Makes a call of the application.
    pub fn act(&mut self, choices: &mut Choices<'_>) -> Vec<u8> {
        let any = choices.below(self.streams.len().max(1));
        let stream = self.streams.get(any).copied();
        let code = Code(u32::from(choices.byte()));
        let mut sent = Vec::new();
        match (choices.below(10), stream) {
            (0, _) => {
                let first = vec![0x55; usize::from(choices.byte())];
                let kind = StreamType(u32::from(choices.byte()));
                if let Ok(stream) = self.session.open(kind, &first) {
                    self.streams.push(stream);
                }
            }
            (1..4, Some(stream)) => {
                let wanted = 1 + usize::from(choices.short());
                if let Ok(grant) = self.session.grant(stream, wanted) {
                    assert!(grant.len >= 1 && grant.len <= wanted);
                    sent.extend_from_slice(&grant.header);
                    sent.resize(8 + grant.len, 0x66);
                    self.rules.outgoing(&sent);
                }
            }
            (4 | 5, Some(stream)) => {
                let n = usize::from(choices.short());
                self.session.consumed(stream, n);
                if let Some(held) = self.held.get_mut(&stream) {
                    *held = held.saturating_sub(n);
                }
            }
            (6, Some(stream)) => self.session.finish(stream),
            (7, Some(stream)) => {
                if code.0 & 1 == 0 {
                    self.session.reset(stream, code);
                } else {
                    self.session.cancel(stream, code);
                }
                self.held.remove(&stream);
            }
            (8, _) => {
                let second = Duration::from_secs(1);
                let _ = self.session.start_heartbeat(10 * second, 15 * second, self.now);
            }
            (9, _) if code.0 == 255 => {
                self.session.go_away(Code::NO_ERROR, "enough");
                self.over = true;
            }
            _ => {}
        }
        self.check();
        sent
    }

    /// Returns the bytes that the session sends.
    pub fn transmit(&mut self, room: usize) -> Vec<u8> {
        let mut out = vec![0; room];
        let n = self.session.transmit(&mut out);
        out.truncate(n);
        self.rules.outgoing(&out);
        self.check();
        out
    }

    fn check(&self) {
        self.session.check_invariants();
        assert_eq!(self.over, self.session.is_over());
        assert!(self.session.streams() <= self.max_streams + 1);
        let held: usize = self.held.values().sum();
        assert!(self.session.unconsumed() <= held, "bytes from nowhere");
        assert!(self.session.unconsumed() <= self.session.streams() * self.window);
        let worst =
            self.session.largest_buffered(Instant::from_micros(u64::MAX)).map_or(0, |(_, n)| n);
        assert!(worst <= self.window && worst <= self.session.unconsumed());
        assert_eq!(worst == 0, self.session.unconsumed() == 0);
    }

    /// The application reads everything and releases its streams: nothing must be left.
    pub fn end(&mut self) {
        for stream in std::mem::take(&mut self.streams) {
            self.session.consumed(stream, usize::MAX);
            self.session.cancel(stream, Code::STREAM_CANCELLED);
        }
        assert_eq!(self.session.unconsumed(), 0);
        while self.session.has_transmit() {
            let out = self.transmit(MAX_CONTROL);
            assert!(!out.is_empty() || !self.session.has_transmit(), "the queue stands still");
        }
        self.pass(Duration::from_secs(3_600));
        self.pass(Duration::from_secs(3_600));
        assert!(self.session.is_over() || self.session.streams() <= 5, "only heartbeats are left");
    }
}

/// Choices: role, window, then frames and calls in any order.
pub fn check(data: &[u8]) {
    let mut choices = Choices::new(data);
    let role = if choices.byte() & 1 == 0 { Role::Agent } else { Role::Edge };
    let window = [64, 1_000, 65_536, 262_144][choices.below(4)];
    let max_streams = [2, 8, 500][choices.below(3)];
    let mut host = Host::new(role, window, max_streams);
    while !choices.is_empty() {
        match choices.below(8) {
            0..4 => {
                let frame = grammar::frame(&mut choices);
                let cut = choices.below(frame.len() + 1);
                host.receive(&frame[..cut]);
                if choices.below(4) == 0 {
                    host.act(&mut choices);
                }
                host.receive(&frame[cut..]);
            }
            4 | 5 => drop(host.act(&mut choices)),
            6 => {
                let room = [12, MAX_CONTROL][choices.below(2)];
                host.transmit(room);
            }
            _ => host.pass(Duration::from_millis(u64::from(choices.short()))),
        }
    }
    host.end();
}

/// Any bytes are valid choices.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    dice.bytes(1_500)
}
