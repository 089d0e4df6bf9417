//! The muxer allocates nothing in steady state: for frames in either direction, WNDINCs,
//! heartbeats, and streams that are opened and closed.

use std::time::Duration;

use culvert::mux::{
    Code, Config, Event, MAX_CONTROL, MAX_PAYLOAD, Muxer, Role, StreamId, StreamType, WINDOW,
};
use culvert::time::Instant;

use crate::counting::allocations;

/// Two sessions and the link between them, without allocations of their own.
struct World {
    sessions: [Muxer; 2],
    now: Instant,
    wire: Vec<u8>,
    frames: u64,
    bytes: u64,
    increments: u64,
    echoes: u64,
}

impl World {
    fn new() -> World {
        let now = Instant::ZERO;
        let sessions = [Role::Agent, Role::Edge].map(|role| {
            let mut session = Muxer::new(Config::new(role, 1), now);
            let (interval, tolerance) = (Duration::from_secs(1), Duration::from_secs(5));
            session.start_heartbeat(interval, tolerance, now).expect("room for a heartbeat");
            session
        });
        let wire = Vec::with_capacity(1 << 20);
        World { sessions, now, wire, frames: 0, bytes: 0, increments: 0, echoes: 0 }
    }

    /// Moves the bytes of the link to `to`, in pieces of `piece` bytes.
    fn deliver(&mut self, to: usize, piece: usize) {
        for bytes in self.wire.chunks(piece) {
            let mut rest = bytes;
            loop {
                let session = &mut self.sessions[to];
                let (used, event) = session.receive(rest, self.now);
                rest = &rest[used..];
                match event {
                    Some(Event::Data { stream, bytes }) => {
                        self.bytes += bytes.len() as u64;
                        session.consumed(stream, bytes.len());
                    }
                    Some(Event::Finished { stream }) => session.finish(stream),
                    Some(Event::Latency(_)) => self.echoes += 1,
                    Some(Event::Over { code, reason }) => panic!("over: {code}, {reason}"),
                    Some(_) => {}
                    None => break,
                }
            }
        }
        self.wire.clear();
    }

    fn control(&mut self, from: usize) {
        let mut out = [0; MAX_CONTROL];
        while self.sessions[from].has_transmit() {
            let n = self.sessions[from].transmit(&mut out);
            let mut rest = &out[..n];
            while let Some(&[a, b, c, kind, ..]) = rest.first_chunk::<8>() {
                self.increments += u64::from(kind == 0x20);
                rest = &rest[8 + u32::from_be_bytes([0, a, b, c]) as usize..];
            }
            self.wire.extend_from_slice(&out[..n]);
        }
    }

    fn data(&mut self, from: usize, stream: StreamId, len: usize) {
        let grant = self.sessions[from].grant(stream, len).expect("the reader keeps up");
        self.wire.extend_from_slice(&grant.header);
        self.wire.resize(self.wire.len() + grant.len, 0x5A);
        self.frames += 1;
    }

    /// Does one round of all operations.
    fn round(&mut self, streams: &[StreamId]) {
        for side in [0, 1] {
            for (i, &stream) in streams.iter().enumerate() {
                self.data(side, stream, if i % 4 == 0 { MAX_PAYLOAD } else { 1 + i });
            }
            // One visitor ends in order, another is cut off.
            for aborted in [false, true] {
                let session = &mut self.sessions[side];
                let stream = session.open(StreamType::PROXY, &[7; 150]).expect("room");
                self.control(side);
                self.data(side, stream, 1_000);
                let session = &mut self.sessions[side];
                if aborted {
                    session.cancel(stream, Code::STREAM_CANCELLED);
                } else {
                    session.finish(stream);
                }
                self.control(side);
            }
            self.deliver(1 - side, 4_096 + 11);
            self.control(1 - side);
            self.deliver(side, 1_000);
        }
        self.now = self.now + Duration::from_millis(300);
        for side in [0, 1] {
            while self.sessions[side].tick(self.now).is_some() {}
            self.control(side);
            self.deliver(1 - side, 7);
        }
    }
}

#[test]
fn no_allocation_in_steady_state() {
    let mut world = World::new();
    let mut streams = Vec::new();
    for i in 0..40 {
        let side = i % 2;
        streams.push(world.sessions[side].open(StreamType::PROXY, b"").expect("room"));
        world.control(side);
        world.deliver(1 - side, 100);
    }
    for _ in 0..50 {
        world.round(&streams);
    }
    let before = (world.frames, world.bytes, world.increments, world.echoes);
    let before_rounds = allocations();
    for _ in 0..500 {
        world.round(&streams);
    }
    assert_eq!(allocations() - before_rounds, 0, "allocations in steady state");
    // The link carried frames.
    assert!(world.frames - before.0 >= 500 * 80);
    assert!(world.bytes - before.1 > 100 * u64::from(WINDOW));
    assert!(world.increments - before.2 > 500 && world.echoes - before.3 > 200);
    for session in &world.sessions {
        session.check_invariants();
        assert_eq!(session.unconsumed(), 0);
        assert_eq!(session.streams(), streams.len() + 2, "the visitors are gone");
    }
}
