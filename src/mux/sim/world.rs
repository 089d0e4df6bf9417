//! Two sides, two pipes, one clock: the possible steps, and the conditions after each step.

use std::time::Duration;

use super::app::{Beat, Closed, End, Pattern, Side, plan};
use super::dice::{Dice, Trace};
use super::pipe::Pipe;
use super::wire::Wire;
use crate::mux::{
    Code, Config, Event, GrantError, MAX_CONTROL, OpenError, Reason, Role, StreamId, StreamType,
};
use crate::time::{Deadline, Instant};

const AGENT: usize = 0;
const EDGE: usize = 1;

/// Codes that applications use for resets.
const CODES: [Code; 3] = [Code::STREAM_CANCELLED, Code::STREAM_REFUSED, Code(0xDEAD_BEEF)];

/// Faults of the network in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    /// No faults: no heartbeat may time out.
    Calm,
    /// Stalls.
    Mixed,
    /// Stalls, dead links, a suspend of an hour.
    Bad,
}

/// Counted events, to check that a run is not idle.
pub(super) const TALLY: [&str; 13] = [
    "streams opened",
    "pieces of data",
    "clean ends",
    "resets by the other application",
    "refusals for want of room",
    "refusals of late types",
    "streams lost to a goodbye",
    "windows found anew",
    "echoes",
    "goodbyes",
    "dead links",
    "ends after a goodbye",
    "senders without window",
];

/// The simulated world.
pub(super) struct World {
    pub(super) steps: u64,
    pub(super) trace: Trace,
    pub(super) tally: [u64; TALLY.len()],
    dice: Dice,
    now: Instant,
    weather: Weather,
    config: [Config; 2],
    /// Bytes that the application of each side may hold.
    budget: usize,
    sides: [Side; 2],
    /// `pipes[side]` carries the bytes that `side` sends.
    pipes: [Pipe; 2],
    wire: Wire,
    pattern: Pattern,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut dice = Dice::new(seed);
        let weather = dice.pick(&[Weather::Calm, Weather::Mixed, Weather::Bad]);
        let window = dice.pick(&[64, 1_000, 5_000, 70_000, 262_144]);
        let max_streams = dice.pick(&[4, 20, 500]);
        let mut config = [Role::Agent, Role::Edge].map(|role| Config::new(role, seed));
        for config in &mut config {
            config.window = window;
            config.max_streams = max_streams;
            config.accept_backlog = dice.pick(&[2, 128]);
            config.type_deadline = Duration::from_millis(dice.pick(&[300, 10_000]));
        }
        let now = Instant::from_micros(dice.below(1_000_000));
        let budget = window as usize * dice.pick(&[1, 3, 50]);
        let sides = [AGENT, EDGE].map(|side| Side::new(config[side].clone(), now));
        let pipes = [AGENT, EDGE].map(|_| Pipe::new(Duration::ZERO, 1));
        let wire = Wire::new(window);
        let (trace, pattern) = (Trace::new(), Pattern::new());
        let mut world = World {
            steps: 0,
            trace,
            tally: [0; TALLY.len()],
            dice,
            now,
            weather,
            config,
            budget,
            sides,
            pipes,
            wire,
            pattern,
        };
        world.connect();
        world
    }

    /// Starts a new session over a new link.
    fn connect(&mut self) {
        let now = self.now;
        self.wire = Wire::new(self.config[AGENT].window);
        for side in [AGENT, EDGE] {
            let latency = Duration::from_millis(self.dice.pick(&[0, 1, 50, 200]));
            let room = match self.weather {
                Weather::Calm => 200_000,
                _ => self.dice.pick(&[100, 5_000, 200_000]),
            };
            self.pipes[side] = Pipe::new(latency, room);
            self.sides[side] = Side::new(self.config[side].clone(), now);
            if !self.dice.once_in(3) {
                let (interval, tolerance) = match self.weather {
                    Weather::Calm => (10_000, 15_000),
                    _ => self.dice.pick(&[(10_000, 15_000), (2_000, 8_000), (1_000, 1_000)]),
                };
                let [interval, tolerance] = [interval, tolerance].map(Duration::from_millis);
                let session = &mut self.sides[side].session;
                session.start_heartbeat(interval, tolerance, now).unwrap();
                let beat = Beat { interval, tolerance, last_good: now, slept: Duration::ZERO };
                self.sides[side].beat = Some(beat);
            }
        }
        self.trace.note(&[0xC0, now.as_micros()]);
    }

    /// Does one random operation, then all checks.
    pub(super) fn step(&mut self) {
        self.steps += 1;
        let side = self.dice.index(2);
        match self.dice.below(100) {
            0..8 => self.open(side),
            8..33 => self.send(side),
            33..45 => self.read(side),
            45..48 => self.stop_or_go(side),
            48..52 => self.end_one(side),
            52..65 => self.flush(side),
            65..88 => self.deliver(side),
            88..98 => self.pass(),
            _ => self.mishap(side),
        }
        self.tick();
        self.settle();
        self.check();
    }

    fn open(&mut self, side: usize) {
        let kinds: &[StreamType] = match side {
            AGENT => &[StreamType::BIND, StreamType::PROXY],
            _ => &[StreamType::PROXY, StreamType::PROXY, StreamType::STOP_TUNNEL],
        };
        let window = self.config[side].window;
        let kind = self.dice.pick(kinds);
        let n = Side::first_length(window, &mut self.dice);
        let mut end = End::new(kind, true);
        plan(&mut end, window, &mut self.dice);
        end.sent = n as u64;
        let s = &mut self.sides[side];
        // The id decides the bytes, and the session decides the id.
        let id = s.session.next_id();
        match s.session.open(kind, self.pattern.slice(id, side, 0, n)) {
            Ok(stream) => {
                assert_eq!(stream.get(), id);
                s.add(id, end);
            }
            Err(OpenError::TooMany) => {
                assert!(s.session.streams() >= self.config[side].max_streams);
            }
            Err(OpenError::Busy) => assert!(s.session.has_transmit()),
            Err(OpenError::PeerLeft) => assert!(self.sides[1 - side].said_goodbye),
            Err(error) => panic!("{error}"),
        }
    }

    fn send(&mut self, side: usize) {
        let Some(id) = self.sides[side].any(&mut self.dice) else { return };
        let wanted = self.dice.length(40_000);
        self.send_on(side, id, wanted);
    }

    /// Sends one frame, if that is allowed.
    fn send_on(&mut self, side: usize, id: u32, wanted: usize) {
        let s = &mut self.sides[side];
        let Some(end) = s.ends.get_mut(&id) else { return };
        let wanted = wanted.min(usize::try_from(end.want).unwrap());
        if !end.is_open() || end.finished || end.blocked || s.link.len() > 65_536 {
            return;
        }
        if wanted > 0 {
            match s.session.grant(StreamId(id), wanted) {
                Ok(grant) => {
                    assert!(grant.len > 0 && grant.len <= wanted);
                    let payload = self.pattern.slice(id, side, end.sent, grant.len);
                    end.sent += grant.len as u64;
                    end.want -= grant.len as u64;
                    let start = s.link.len();
                    s.link.extend_from_slice(&grant.header);
                    s.link.extend_from_slice(payload);
                    self.inspect(side, start);
                }
                Err(GrantError::NoWindow) => {
                    end.blocked = true;
                    self.tally[12] += 1;
                }
                Err(GrantError::ControlPending) => assert!(s.session.has_transmit()),
                Err(GrantError::Closed(code)) => panic!("stream {id} should be open: {code}"),
            }
        }
        let end = &self.sides[side].ends[&id];
        if end.want == 0 && end.finish_when_sent {
            self.finish(side, id);
        }
    }

    fn finish(&mut self, side: usize, id: u32) {
        let s = &mut self.sides[side];
        s.session.finish(StreamId(id));
        let Some(end) = s.ends.get_mut(&id).filter(|end| end.is_open()) else { return };
        end.finished = true;
        end.blocked = false;
        if end.got_fin {
            end.closed = Closed::Over;
        }
    }

    fn read(&mut self, side: usize) {
        let Some(id) = self.sides[side].any(&mut self.dice) else { return };
        let end = &self.sides[side].ends[&id];
        if end.reads {
            let n = self.dice.length(usize::try_from(end.unconsumed()).unwrap());
            self.consume(side, id, n as u64);
        }
    }

    fn consume(&mut self, side: usize, id: u32, n: u64) {
        let s = &mut self.sides[side];
        let Some(end) = s.ends.get_mut(&id) else { return };
        // Sometimes an owner consumes more than it received. The excess must be ignored.
        let claim = if self.dice.once_in(50) { n + 1_000_000 } else { n };
        let n = if claim > n { end.unconsumed() } else { n };
        s.session.consumed(StreamId(id), claim as usize);
        if !matches!(end.closed, Closed::Dropped(_)) {
            end.consumed += n;
        }
    }

    fn stop_or_go(&mut self, side: usize) {
        let Some(id) = self.sides[side].any(&mut self.dice) else { return };
        if let Some(end) = self.sides[side].ends.get_mut(&id) {
            end.reads = !end.reads;
        }
    }

    /// Ends a stream with FIN, RST or both.
    fn end_one(&mut self, side: usize) {
        let Some(id) = self.sides[side].any(&mut self.dice) else { return };
        match self.dice.below(4) {
            0 | 1 => self.finish(side, id),
            _ => self.drop_stream(side, id),
        }
    }

    fn drop_stream(&mut self, side: usize, id: u32) {
        let code = self.dice.pick(&CODES);
        let s = &mut self.sides[side];
        let Some(end) = s.ends.get_mut(&id) else { return };
        if self.dice.once_in(2) {
            s.session.cancel(StreamId(id), code);
        } else {
            s.session.reset(StreamId(id), code);
        }
        match end.closed {
            Closed::No => end.closed = Closed::Dropped(code.0),
            // Only drops bytes: no RST.
            Closed::Over => end.consumed = end.received,
            Closed::Dropped(_) => {}
        }
    }

    /// Moves bytes from the muxer to the link, and from the link to the pipe.
    fn flush(&mut self, side: usize) {
        let s = &mut self.sides[side];
        let start = s.link.len();
        if start < 65_536 {
            let room = self.dice.pick(&[MAX_CONTROL, 20_000]);
            s.link.resize(start + room, 0);
            let n = s.session.transmit(&mut s.link[start..]);
            s.link.truncate(start + n);
            self.inspect(side, start);
        }
        let s = &mut self.sides[side];
        let n = self.pipes[side].write(&s.link, self.now, &mut self.dice);
        s.link.drain(..n);
    }

    /// Checks the frames that `side` has written since `start`.
    fn inspect(&mut self, side: usize, start: usize) {
        let Side { session, ends, link, .. } = &self.sides[side];
        let consumed = |id| {
            let end: &End = ends.get(&id)?;
            Some(end.consumed + if end.mine { 0 } else { 4 })
        };
        let (resets, backlog) = (self.wire.resets[side], self.config[side].accept_backlog);
        let few = self.config[side].max_streams < 500 || backlog < 128;
        let reset = |id, code| match ends.get(&id) {
            Some(end) => end.closed == Closed::Dropped(code),
            // Never reported to the application: refused because of a limit, or because its
            // type was late. The ring of reset streams may have overflowed.
            None => match Code(code) {
                Code::ACCEPT_QUEUE_FULL => few,
                Code::STREAM_REFUSED => true,
                Code::STREAM_CLOSED => resets > 1_000,
                _ => false,
            },
        };
        let _ = session;
        self.wire.inspect(side, &link[start..], &mut self.trace, consumed, reset);
    }

    /// Moves bytes from the pipe to the session, split at any position.
    fn deliver(&mut self, side: usize) {
        let most = match self.dice.below(4) {
            0 => 1 + self.dice.index(30),
            1 => 1 + self.dice.index(3_000),
            _ => 70_000,
        };
        self.deliver_up_to(side, most);
    }

    fn deliver_up_to(&mut self, side: usize, most: usize) {
        let mut bytes = Vec::new();
        self.pipes[1 - side].read(most, self.now, &mut bytes);
        let mut rest = &bytes[..];
        let mut rounds = 0;
        loop {
            rounds += 1;
            assert!(rounds <= 2 * bytes.len() + 1_000, "the session goes round in circles");
            let (used, event) = self.sides[side].session.receive(rest, self.now);
            rest = &rest[used..];
            match event {
                Some(event) => self.happened(side, event),
                None if rest.is_empty() => break,
                None => panic!("neither bytes taken nor an event"),
            }
        }
    }

    /// Lets time pass.
    fn pass(&mut self) {
        let most = match self.weather {
            Weather::Calm => 20_000,
            _ => self.dice.pick(&[1_000, 20_000, 500_000]),
        };
        let while_ = Duration::from_micros(self.dice.below(most));
        self.sleep(while_);
    }

    fn sleep(&mut self, time: Duration) {
        self.now = self.now + time;
        for side in &mut self.sides {
            if let Some(beat) = &mut side.beat {
                beat.slept = beat.slept.max(time);
            }
        }
    }

    fn mishap(&mut self, side: usize) {
        match (self.weather, self.dice.below(20)) {
            (Weather::Mixed | Weather::Bad, 0..3) => {
                let time = Duration::from_millis(self.dice.pick(&[10, 500, 3_000, 30_000]));
                self.pipes[side].stall(self.now + time);
            }
            (Weather::Bad, 6) => self.sleep(Duration::from_secs(3_600)),
            (Weather::Bad, 7) => self.connect(),
            (_, 8) => {
                let s = &mut self.sides[side];
                s.session.go_away(Code::NO_ERROR, "no error");
                s.said_goodbye = true;
                s.over = true;
            }
            (_, 9..16) if self.sides[side].session.unconsumed() > self.budget => {
                let (stream, held) = self.sides[side]
                    .session
                    .largest_buffered(Instant::from_micros(u64::MAX))
                    .unwrap();
                assert!(held > 0);
                self.drop_stream(side, stream.get());
            }
            _ => {}
        }
    }

    fn tick(&mut self) {
        for side in [AGENT, EDGE] {
            let mut rounds = 0;
            while let Some(event) = self.sides[side].session.tick(self.now) {
                self.happened(side, event);
                rounds += 1;
                assert!(rounds < 1_000, "the clock goes round in circles");
            }
            let s = &self.sides[side];
            assert!(!s.session.deadline().due(self.now), "a deadline in the past");
            if let Some(beat) = s.beat.filter(|_| !s.session.is_over()) {
                let latest = beat.last_good + beat.interval + beat.slept + beat.tolerance;
                assert!(self.now <= latest, "a dead link goes unnoticed");
            }
        }
    }

    /// Checks an event of a session: the model must have expected it.
    fn happened(&mut self, side: usize, event: Event<'_>) {
        let window = self.config[side].window;
        self.tally[match &event {
            Event::Opened { .. } => 0,
            Event::Data { .. } => 1,
            Event::Finished { .. } => 2,
            Event::Reset { code: Code::ACCEPT_QUEUE_FULL, .. } => 4,
            Event::Reset { stream, code: Code::STREAM_REFUSED }
                if !self.sides[1 - side].ends.contains_key(&stream.get()) =>
            {
                5
            }
            Event::Reset { code: Code::REMOTE_GONE_AWAY, .. } => 6,
            Event::Reset { .. } => 3,
            Event::Writable { .. } => 7,
            Event::Latency(_) => 8,
            Event::GoAway { .. } => 9,
            Event::Over { reason: Reason::HeartbeatTimeout, .. } => 10,
            Event::Over { .. } => 11,
        }] += 1;
        let [a, b] = &mut self.sides;
        let (me, peer) = if side == AGENT { (a, b) } else { (b, a) };
        assert!(!me.over, "{event:?} after the end");
        match event {
            Event::Opened { stream, kind } => {
                let id = stream.get();
                let theirs = &peer.ends[&id];
                assert!(theirs.mine && theirs.kind == kind);
                let mut end = End::new(kind, false);
                plan(&mut end, window, &mut self.dice);
                me.add(id, end);
                self.trace.note(&[1, side as u64, u64::from(id), u64::from(kind.0)]);
            }
            Event::Data { stream, bytes } => {
                let id = stream.get();
                let end = me.ends.get_mut(&id).unwrap();
                assert!(end.is_open() && !end.got_fin, "stream {id}: data after the end");
                let expected = self.pattern.slice(id, 1 - side, end.received, bytes.len());
                assert!(bytes == expected, "stream {id}: wrong bytes at {}", end.received);
                end.received += bytes.len() as u64;
                assert!(end.received <= peer.ends[&id].sent, "stream {id}: bytes from nowhere");
                let answers = end.kind == StreamType::BIND && !end.mine && !end.finish_when_sent;
                if answers && self.dice.once_in(2) {
                    end.want = self.dice.length(2 * window as usize) as u64;
                    end.finish_when_sent = true;
                }
                self.trace.note(&[2, side as u64, u64::from(id), bytes.len() as u64]);
                if self.dice.once_in(100) {
                    self.drop_stream(side, id);
                } else if self.dice.once_in(3) {
                    self.consume(side, id, bytes.len() as u64);
                }
            }
            Event::Finished { stream } => {
                let id = stream.get();
                let end = me.ends.get_mut(&id).unwrap();
                assert!(end.is_open() && !end.got_fin, "stream {id}: two ends of data");
                // A refusal is FIN and RST, and the refusing application never got the stream.
                let (fin, sent) = peer.ends.get(&id).map_or((true, 0), |theirs| {
                    let dropped = matches!(theirs.closed, Closed::Dropped(_));
                    (theirs.finished || dropped, theirs.sent)
                });
                assert!(fin, "stream {id}: FIN from nowhere");
                assert_eq!(end.received, sent, "stream {id}: cut short by a clean end");
                end.got_fin = true;
                if end.finished {
                    end.closed = Closed::Over;
                }
                // The requesting side closes after the response.
                if end.mine && end.kind == StreamType::BIND || !self.dice.once_in(3) {
                    end.finish_when_sent = true;
                }
                self.trace.note(&[3, side as u64, u64::from(id)]);
            }
            Event::Reset { stream, code } => {
                let id = stream.get();
                let end = me.ends.get_mut(&id).unwrap();
                // Or the FIN before it, which ended the stream, was not an orderly end.
                let just_ended = end.finished && end.got_fin;
                assert!(end.is_open() || just_ended, "stream {id}: reset after its end");
                let expected = match peer.ends.get(&id) {
                    Some(theirs) => theirs.closed == Closed::Dropped(code.0),
                    None => matches!(
                        code,
                        Code::ACCEPT_QUEUE_FULL | Code::STREAM_REFUSED | Code::REMOTE_GONE_AWAY
                    ),
                };
                assert!(expected, "stream {id}: reset with {code} for nothing");
                end.closed = Closed::Over;
                self.trace.note(&[4, side as u64, u64::from(id), u64::from(code.0)]);
            }
            Event::Writable { stream } => {
                let end = me.ends.get_mut(&stream.get()).unwrap();
                assert!(end.blocked && end.is_open(), "stream {stream} was not blocked");
                end.blocked = false;
                self.trace.note(&[5, side as u64, u64::from(stream.get())]);
            }
            Event::Latency(time) => {
                let beat = me.beat.as_mut().unwrap();
                (beat.last_good, beat.slept) = (self.now, Duration::ZERO);
                assert_eq!(me.session.latency(), Some(time));
                self.trace.note(&[6, side as u64, time.as_micros() as u64]);
            }
            Event::GoAway { code, text } => {
                assert!(peer.over, "goodbye from nowhere: {code} {text}");
                self.trace.note(&[7, side as u64, u64::from(code.0)]);
            }
            Event::Over { code, reason } => {
                match reason {
                    Reason::PeerLeft => assert!(peer.over),
                    Reason::HeartbeatTimeout => {
                        assert!(self.weather != Weather::Calm, "timed out in calm weather");
                        let beat = me.beat.unwrap();
                        let earliest = beat.last_good + beat.interval + beat.tolerance;
                        assert!(self.now >= earliest, "given up too early");
                    }
                    _ => panic!("an honest peer was thrown out: {reason}"),
                }
                me.over = true;
                assert!(me.session.is_over());
                self.trace.note(&[8, side as u64, u64::from(code.0)]);
            }
        }
    }

    /// Replaces sessions that have ended: the rest is sent and read, then a new one starts.
    fn settle(&mut self) {
        let Some(side) = [AGENT, EDGE].into_iter().find(|&side| self.sides[side].over) else {
            return;
        };
        let peer = 1 - side;
        // A stalled link does not carry the last frames.
        if self.dice.once_in(2) {
            self.pipes[side].calm();
            let mut rounds = 0;
            let mut quiet = 0;
            while quiet < 10 {
                self.flush(side);
                self.now = self.now + Duration::from_millis(50);
                self.deliver_up_to(peer, 70_000);
                let s = &self.sides[side];
                let idle = !s.session.has_transmit() && s.link.is_empty();
                quiet += u64::from(idle && self.pipes[side].in_flight() == 0);
                rounds += 1;
                assert!(rounds < 100_000, "the farewell is never done");
            }
            if self.sides[side].said_goodbye {
                self.sleep(self.config[peer].leave_grace);
                self.tick();
                assert!(self.sides[peer].over, "a goodbye is not the end");
            }
        }
        self.connect();
    }

    /// Checks the conditions after every step.
    fn check(&self) {
        for (side, config) in self.sides.iter().zip(&self.config) {
            let session = &side.session;
            session.check_invariants();
            if session.is_over() {
                continue;
            }
            let mut counted = 0;
            let mut unconsumed = 0;
            for end in side.live.iter().map(|id| &side.ends[id]).filter(|end| end.counts()) {
                assert!(end.received - end.consumed <= u64::from(config.window));
                counted += 1;
                unconsumed += end.unconsumed();
            }
            assert_eq!(session.unconsumed() as u64, unconsumed, "unconsumed bytes");
            assert_eq!(session.application_streams(), counted, "streams");
        }
    }

    /// Without faults all sides read, send the rest and close: no stream may be left.
    pub(super) fn drain(&mut self) {
        for round in 0.. {
            assert!(round < 5_000, "not drained: {:?}", self.sides.each_ref().map(|s| &s.session));
            for side in [AGENT, EDGE] {
                self.pipes[side].calm();
                self.pipes[side].widen();
                for id in self.sides[side].live.clone() {
                    self.finish_up(side, id);
                }
                self.flush(side);
            }
            self.sleep(Duration::from_millis(20));
            for side in [AGENT, EDGE] {
                self.deliver_up_to(side, 1_000_000);
            }
            self.tick();
            self.settle();
            self.check();
            if self.is_drained() {
                break;
            }
        }
        for side in &self.sides {
            let session = &side.session;
            let heartbeats = self.sides.iter().filter(|s| s.beat.is_some()).count();
            assert_eq!((session.unconsumed(), session.application_streams()), (0, 0));
            // A full table refuses heartbeats too.
            assert!(session.streams() <= heartbeats);
            assert!(session.largest_buffered(Instant::from_micros(u64::MAX)).is_none());
            assert!(side.ends.values().all(|end| !end.counts()));
            assert!(side.beat.is_some() || session.deadline() == Deadline::Never);
        }
    }

    fn finish_up(&mut self, side: usize, id: u32) {
        let end = self.sides[side].ends.get_mut(&id).unwrap();
        end.finish_when_sent = true;
        let unconsumed = end.unconsumed();
        let open = end.is_open();
        if unconsumed > 0 {
            self.consume(side, id, unconsumed);
        }
        if open {
            self.send_on(side, id, 40_000);
        }
    }

    fn is_drained(&self) -> bool {
        let quiet = |side: &Side| {
            !side.session.has_transmit()
                && side.link.is_empty()
                && side.ends.values().all(|end| !end.counts())
        };
        self.sides.iter().all(quiet) && self.pipes.iter().all(|pipe| pipe.in_flight() == 0)
    }
}
