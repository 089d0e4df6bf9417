//! Two sessions without sockets, threads and clock: the muxer, the limits of a session and the
//! inbound direction of each stream. They are driven by random applications, slow readers
//! beyond every limit, and resets from both sides at each step.
//!
//! Invariants: each direction of each stream ends complete, or its receiver gets a reset. At
//! the end no sinks, bytes or streams remain.
//! reset; and at the end nothing stays, neither sinks nor bytes nor streams.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::held_finish::{Finish, HeldFinish};
use super::inbound::{Effects, Inbound, Reset, StreamEffect};
use super::input_limit::{BufferLimits, Input, InputLimit};
use super::outlet::Outlet;
use crate::mux::{Code, Config, Event, Muxer, Role, StreamId, StreamType};
use crate::sys::sync::Mutex;
use crate::time::Instant;

const STEPS: usize = 4_000;
const SEEDS: u64 = 60;

/// Bytes that a side may hold: few enough for readers to reach the limit.
const LIMIT: usize = 200_000;

#[test]
fn every_stream_ends_complete_or_reset_and_nothing_stays() {
    let mut tally = Tally::default();
    for seed in 1..=SEEDS {
        run(seed, Order::NotifyThenForget, &mut tally);
    }
    // A run without resets proves nothing.
    assert!(tally.complete > 500 && tally.reset > 500, "{tally:?}");
    assert!(tally.evicted > 50 && tally.waits > 50 && tally.failed > 50, "{tally:?}");
}

#[test]
fn a_sink_that_is_forgotten_before_it_is_notified_is_found() {
    let found = (1..=SEEDS).any(|seed| {
        let run = || run(seed, Order::ForgetThenNotify, &mut Tally::default());
        std::panic::catch_unwind(run).is_err()
    });
    assert!(found, "the simulator does not see the fault that it is made for");
}

/// Order of the steps when a session resets a stream because of a limit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    NotifyThenForget,
    /// The injected fault.
    ForgetThenNotify,
}

#[derive(Debug, Default)]
struct Tally {
    complete: usize,
    reset: usize,
    evicted: usize,
    waits: usize,
    failed: usize,
}

/// Socket of a receiver.
#[derive(Default)]
struct Socket {
    received: u64,
    /// Bytes that it accepts now.
    room: usize,
    end: SocketEnd,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SocketEnd {
    #[default]
    Open,
    Finished,
    Aborted,
    /// Its reader has disconnected.
    Broken,
}

struct SimOutlet {
    socket: Arc<Mutex<Socket>>,
    /// Seed of the expected bytes.
    key: u64,
}

impl Outlet for SimOutlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut socket = self.socket.lock();
        match socket.end {
            SocketEnd::Open => {}
            SocketEnd::Broken => return Err(io::ErrorKind::ConnectionReset.into()),
            end => panic!("a write after {end:?}"),
        }
        let n = bytes.len().min(socket.room);
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for byte in &bytes[..n] {
            assert_eq!(*byte, pattern(self.key, socket.received), "a wrong byte");
            socket.received += 1;
        }
        socket.room -= n;
        Ok(n)
    }

    fn write_parts(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut done = 0;
        for part in parts.iter().filter(|part| !part.is_empty()) {
            match self.write(part) {
                Ok(n) if n == part.len() => done += n,
                Ok(n) => return Ok(done + n),
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn finish(&mut self) {
        let mut socket = self.socket.lock();
        if socket.end == SocketEnd::Open {
            socket.end = SocketEnd::Finished;
        }
    }

    fn abort(&mut self) {
        self.socket.lock().end = SocketEnd::Aborted;
    }

    fn fd(&self) -> RawFd {
        -1
    }
}

fn pattern(key: u64, at: u64) -> u8 {
    (key.wrapping_mul(0x9e37_79b9).wrapping_add(at.wrapping_mul(31)) >> 3) as u8
}

/// State of a stream on one side.
struct SimStream {
    inbound: Inbound,
    socket: Arc<Mutex<Socket>>,
    key: u64,
    attached: bool,
    /// Whether this side still sends.
    sends: bool,
}

/// Bytes that one direction of a stream carried.
#[derive(Default)]
struct Direction {
    sent: u64,
    finished: bool,
    receiver: Option<Arc<Mutex<Socket>>>,
    attached: bool,
}

struct Side {
    role: Role,
    mux: Muxer,
    limit: InputLimit,
    sinks: BTreeMap<StreamId, SimStream>,
    /// Records on their way to the other side.
    link: VecDeque<Vec<u8>>,
}

struct World {
    random: u64,
    now: Instant,
    order: Order,
    sides: [Side; 2],
    /// State by stream and sender.
    directions: BTreeMap<(StreamId, usize), Direction>,
    evicted: usize,
    waits: usize,
}

fn run(seed: u64, order: Order, tally: &mut Tally) {
    let now = Instant::from_micros(seed);
    let sides = [Role::Agent, Role::Edge].map(|role| {
        let mut config = Config::new(role, seed);
        config.buffer_target = LIMIT;
        config.max_streams = 40;
        let limits =
            BufferLimits { stall: Some(Duration::from_secs(300)), ..BufferLimits::session(LIMIT) };
        Side {
            role,
            mux: Muxer::new(config, now),
            limit: InputLimit::new(limits),
            sinks: BTreeMap::new(),
            link: VecDeque::new(),
        }
    });
    let random = seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1;
    let directions = BTreeMap::new();
    let mut world = World { random, now, order, sides, directions, evicted: 0, waits: 0 };
    for _ in 0..STEPS {
        world.step();
    }
    world.wind_up();
    world.check(tally);
    tally.evicted += world.evicted;
    tally.waits += world.waits;
}

impl World {
    fn below(&mut self, n: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % n as u64).unwrap_or(0)
    }

    fn any(&mut self, side: usize) -> Option<StreamId> {
        let n = self.sides[side].sinks.len();
        let at = self.below(n.max(1));
        self.sides[side].sinks.keys().nth(at).copied()
    }

    fn step(&mut self) {
        let side = self.below(2);
        match self.below(100) {
            0..4 => self.open(side),
            4..30 => self.send(side),
            30..33 => self.finish(side),
            33..34 => self.reset(side),
            34..35 => self.break_socket(side),
            35..40 => self.attach(side),
            40..60 => self.make_room(side),
            60..95 => self.deliver(side),
            _ => {
                self.now = self.now + Duration::from_millis(self.below(200) as u64);
                self.evict_stalled(side);
            }
        }
        for side in 0..2 {
            self.flush(side);
            self.sides[side].mux.check_invariants();
        }
    }

    fn stream(&mut self, side: usize, stream: StreamId) {
        let key = u64::from(stream.get()) * 2 + (1 - side) as u64;
        let socket = Arc::new(Mutex::new(Socket::default()));
        let sender = self.directions.entry((stream, 1 - side)).or_default();
        sender.receiver = Some(Arc::clone(&socket));
        self.directions.entry((stream, side)).or_default();
        let new = SimStream { inbound: Inbound::new(), socket, key, attached: false, sends: true };
        self.sides[side].sinks.insert(stream, new);
    }

    fn open(&mut self, side: usize) {
        if let Ok(stream) = self.sides[side].mux.open(StreamType::PROXY, &[]) {
            self.stream(side, stream);
        }
    }

    fn send(&mut self, side: usize) {
        let Some(stream) = self.any(side) else { return };
        let wanted = 1 + self.below(20_000);
        let s = &mut self.sides[side];
        if s.link.len() > 20 || !s.sinks[&stream].sends {
            return;
        }
        let Ok(grant) = s.mux.grant(stream, wanted) else { return };
        let key = u64::from(stream.get()) * 2 + side as u64;
        let direction = self.directions.entry((stream, side)).or_default();
        let mut record = grant.header.to_vec();
        record.extend((0..grant.len as u64).map(|n| pattern(key, direction.sent + n)));
        s.link.push_back(record);
        direction.sent += grant.len as u64;
    }

    fn finish(&mut self, side: usize) {
        let Some(stream) = self.any(side) else { return };
        self.finish_one(side, stream);
    }

    fn finish_one(&mut self, side: usize, stream: StreamId) {
        let s = &mut self.sides[side];
        let Some(sink) = s.sinks.get_mut(&stream).filter(|sink| sink.sends) else { return };
        sink.sends = false;
        s.mux.finish(stream);
        self.directions.entry((stream, side)).or_default().finished = true;
        self.change(side, stream, Inbound::outbound_done);
    }

    fn reset(&mut self, side: usize) {
        let Some(stream) = self.any(side) else { return };
        self.change(side, stream, |inbound| inbound.reset_local(Code::STREAM_CANCELLED));
    }

    fn break_socket(&mut self, side: usize) {
        let Some(stream) = self.any(side) else { return };
        let socket = Arc::clone(&self.sides[side].sinks[&stream].socket);
        let mut socket = socket.lock();
        if socket.end == SocketEnd::Open && self.sides[side].sinks[&stream].attached {
            socket.end = SocketEnd::Broken;
        }
    }

    fn attach(&mut self, side: usize) {
        let Some(stream) = self.any(side) else { return };
        self.attach_one(side, stream);
    }

    fn attach_one(&mut self, side: usize, stream: StreamId) {
        let Some(sink) = self.sides[side].sinks.get_mut(&stream) else { return };
        if std::mem::replace(&mut sink.attached, true) {
            return;
        }
        let outlet = SimOutlet { socket: Arc::clone(&sink.socket), key: sink.key };
        self.directions.entry((stream, 1 - side)).or_default().attached = true;
        self.change(side, stream, |inbound| inbound.attach(Box::new(outlet)));
    }

    fn make_room(&mut self, side: usize) {
        let Some(stream) = self.any(side) else { return };
        // Some readers never read.
        if stream.get() % 7 != 0 {
            let more = 1 + self.below(60_000);
            self.give_room(side, stream, more);
        }
    }

    fn give_room(&mut self, side: usize, stream: StreamId, more: usize) {
        let Some(sink) = self.sides[side].sinks.get(&stream) else { return };
        sink.socket.lock().room += more;
        self.change(side, stream, Inbound::room);
    }

    /// Makes one call of an inbound direction, and carries out its effects.
    fn change(
        &mut self,
        side: usize,
        stream: StreamId,
        change: impl FnOnce(&mut Inbound) -> Effects,
    ) {
        let s = &mut self.sides[side];
        let Some(sink) = s.sinks.get_mut(&stream) else { return };
        let effects = change(&mut sink.inbound);
        drop(sink.inbound.take_closed());
        s.mux.consumed_at(stream, effects.consumed, self.now);
        match effects.stream {
            StreamEffect::None => return,
            StreamEffect::Release => {}
            StreamEffect::Reset(code) => s.mux.reset(stream, code),
        }
        s.sinks.remove(&stream);
        s.mux.consumed_at(stream, usize::MAX, self.now);
    }

    fn evict(&mut self, side: usize, stream: StreamId) {
        self.evicted += 1;
        let s = &mut self.sides[side];
        match s.role {
            Role::Agent => s.mux.reset(stream, Code::STREAM_CANCELLED),
            Role::Edge => s.mux.cancel(stream, Code::STREAM_CANCELLED),
        }
        if self.order == Order::ForgetThenNotify {
            s.sinks.remove(&stream);
        }
        self.change(side, stream, |inbound| inbound.reset(Reset::Local(Code::STREAM_CANCELLED)));
    }

    fn evict_stalled(&mut self, side: usize) {
        loop {
            let s = &mut self.sides[side];
            let Some((stream, _)) = s.limit.stalled(&s.mux, self.now) else { return };
            self.evict(side, stream);
        }
    }

    fn flush(&mut self, side: usize) {
        let s = &mut self.sides[side];
        while s.mux.has_transmit() {
            let mut record = vec![0; 8_192];
            let n = s.mux.transmit(&mut record);
            record.truncate(n);
            s.link.push_back(record);
        }
    }

    /// Delivers bytes of the other side to `side`, if its limit allows it.
    fn deliver(&mut self, side: usize) {
        loop {
            let s = &mut self.sides[side];
            match s.limit.next(&s.mux, self.now) {
                Input::Read => break,
                Input::Wait => {
                    self.waits += 1;
                    return;
                }
                Input::Reset(stream, _) => self.evict(side, stream),
            }
        }
        for _ in 0..1 + self.below(4) {
            let Some(record) = self.sides[1 - side].link.pop_front() else { return };
            self.receive(side, &record);
        }
    }

    /// Processes a whole record, like the reactor.
    fn receive(&mut self, side: usize, mut record: &[u8]) {
        let mut held = HeldFinish::default();
        loop {
            let (n, event) = self.sides[side].mux.receive(record, self.now);
            record = &record[n..];
            if event.is_none() && !record.is_empty() {
                continue;
            }
            match held.next(event.as_ref()) {
                Some(Finish::Orderly(stream)) => self.change(side, stream, Inbound::finished),
                Some(Finish::Cancelled(stream, code)) => {
                    self.change(side, stream, |inbound| inbound.reset(Reset::Peer(code)));
                    continue;
                }
                None => {}
            }
            match event {
                None => return,
                Some(Event::Opened { stream, .. }) => self.stream(side, stream),
                Some(Event::Data { stream, bytes }) => {
                    if self.sides[side].sinks.contains_key(&stream) {
                        // As if two frames had come together, or one.
                        let (first, second) = bytes.split_at(self.below(bytes.len() + 1));
                        let parts = [first, second].map(IoSlice::new);
                        let parts = if second.is_empty() { &parts[..1] } else { &parts[..] };
                        self.change(side, stream, |inbound| inbound.data(parts));
                    } else {
                        self.sides[side].mux.consumed_at(stream, bytes.len(), self.now);
                    }
                }
                Some(Event::Reset { stream, code }) => {
                    self.change(side, stream, |inbound| inbound.reset(Reset::Peer(code)));
                }
                Some(Event::Over { reason, .. }) => panic!("the session ended: {reason}"),
                Some(_) => {}
            }
        }
    }

    /// Lets all readers read again and all senders finish. Some runs lose the session instead.
    fn wind_up(&mut self) {
        let lost = self.below(4) == 0;
        for _ in 0..2_000 {
            for side in 0..2 {
                let streams: Vec<StreamId> = self.sides[side].sinks.keys().copied().collect();
                for stream in streams {
                    self.attach_one(side, stream);
                    if !lost {
                        self.give_room(side, stream, 1 << 20);
                    }
                    self.finish_one(side, stream);
                }
                self.flush(side);
                if !lost {
                    self.deliver(side);
                }
            }
            self.now = self.now + Duration::from_millis(10);
            if lost || self.sides.iter().all(|s| s.sinks.is_empty() && s.link.is_empty()) {
                break;
            }
        }
        if lost {
            for side in 0..2 {
                let streams: Vec<StreamId> = self.sides[side].sinks.keys().copied().collect();
                for stream in streams {
                    self.change(side, stream, |inbound| inbound.reset(Reset::SessionClosed));
                }
            }
        }
    }

    fn check(&self, tally: &mut Tally) {
        for s in &self.sides {
            assert!(s.sinks.is_empty(), "{} sinks stay", s.sinks.len());
        }
        for ((stream, sender), direction) in &self.directions {
            let Some(receiver) = direction.receiver.as_ref().filter(|_| direction.attached) else {
                continue;
            };
            let socket = receiver.lock();
            match socket.end {
                SocketEnd::Finished => {
                    assert!(
                        direction.finished && socket.received == direction.sent,
                        "stream {stream} of {sender}: a clean end after {} of {} bytes",
                        socket.received,
                        direction.sent
                    );
                    tally.complete += 1;
                }
                SocketEnd::Aborted => tally.reset += 1,
                SocketEnd::Broken => tally.failed += 1,
                SocketEnd::Open => panic!("stream {stream} of {sender}: no end at all"),
            }
        }
    }
}
