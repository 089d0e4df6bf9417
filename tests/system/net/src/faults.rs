//! Faults of the network, and the reaction of a tunnel. Each fault has a limit for the time
//! without a response at the URL: from the end of the fault, or from its start if it does not
//! end.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{AGENT, AGENT_MOVED, Lab};
use crate::tunnel::{Kind, Programs, Setting, Tunnel};
use crate::visit::{self, Waiting, Watch};

/// Time after which a result counts as never.
const NEVER: Duration = Duration::from_secs(60);
/// Heartbeat interval and tolerance of the laboratory together.
const NOTICED: Duration = Duration::from_secs(2);
/// A visitor in flight is closed within interval + tolerance + 2 s.
const KEPT: Duration = Duration::from_secs(4);
/// Duration of an outage, so that both ends have certainly noticed.
const HELD: Duration = Duration::from_secs(5);

/// One fault.
pub struct Fault {
    pub name: &'static str,
    /// For the table: the action.
    pub what: &'static str,
    /// Longest time to the next good response.
    pub must: Duration,
    run: fn(&mut World) -> io::Result<Duration>,
}

/// Objects of a fault.
pub struct World<'a> {
    pub lab: &'a Lab,
    pub tunnel: Tunnel,
    pub watch: Watch,
    /// Longest time that a visitor in flight was kept after the fault.
    pub kept: Option<Duration>,
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// All faults, those that end by themselves and those that are ended, in the order of the
/// table.
pub const FAULTS: &[Fault] = &[
    Fault {
        name: "edge-killed",
        what: "the server is killed and started again after 3 s; five times, the worst counts",
        must: s(2),
        run: |w| {
            let mut worst = Duration::ZERO;
            for _ in 0..5 {
                w.tunnel.kill_server();
                thread::sleep(s(3));
                w.tunnel.start_server(w.lab)?;
                worst = worst.max(w.back(Instant::now())?);
            }
            Ok(worst)
        },
    },
    Fault {
        name: "edge-frozen-short",
        what: "the server stands still for 0.5 s",
        must: s(2),
        run: |w| {
            w.tunnel.freeze_server(true);
            thread::sleep(Duration::from_millis(500));
            w.tunnel.freeze_server(false);
            w.back(Instant::now())
        },
    },
    Fault {
        name: "edge-frozen-long",
        what: "the server stands still for 10 s",
        must: s(4),
        run: |w| {
            w.tunnel.freeze_server(true);
            thread::sleep(s(10));
            w.tunnel.freeze_server(false);
            w.back(Instant::now())
        },
    },
    Fault {
        name: "client-slept",
        what: "the client stands still for 10 s, as in a suspend",
        must: s(4),
        run: |w| {
            w.tunnel.freeze_client(true);
            thread::sleep(s(10));
            w.tunnel.freeze_client(false);
            w.back(Instant::now())
        },
    },
    Fault {
        name: "black-hole",
        what: "every packet vanishes for 5 s",
        must: s(4),
        run: |w| w.outage(Lab::black_hole),
    },
    Fault {
        name: "black-hole-in",
        what: "what the server sends vanishes for 5 s",
        must: s(4),
        run: |w| w.outage(Lab::black_hole_in),
    },
    Fault {
        name: "black-hole-out",
        what: "what the client sends vanishes for 5 s",
        must: s(4),
        run: |w| w.outage(Lab::black_hole_out),
    },
    Fault {
        name: "black-hole-under-load",
        what: "every packet vanishes for 5 s in the middle of a download",
        must: s(4),
        run: |w| {
            let load = Waiting::start(w.lab, &w.tunnel.entrance, "/bulk");
            thread::sleep(s(1));
            let fault = Instant::now();
            let back = w.outage(Lab::black_hole)?;
            w.kept = w.kept.max(load.let_go(fault, NEVER));
            Ok(back)
        },
    },
    Fault {
        name: "black-hole-long",
        what: "every packet vanishes for 40 s",
        must: s(4),
        run: |w| w.outage_of(Lab::black_hole, s(40)),
    },
    Fault {
        name: "mtu-hole",
        what: "packets of more than 600 bytes vanish for 5 s in the middle of a download",
        must: s(4),
        run: |w| {
            let load = Waiting::start(w.lab, &w.tunnel.entrance, "/bulk");
            thread::sleep(s(1));
            let fault = Instant::now();
            let back = w.outage(Lab::mtu_hole)?;
            w.kept = w.kept.max(load.let_go(fault, NEVER));
            Ok(back)
        },
    },
    Fault {
        name: "resets",
        what: "a firewall resets every connection for 5 s",
        must: s(4),
        run: |w| w.outage(Lab::resets),
    },
    Fault {
        name: "link-down",
        what: "the client's link is down for 10 s",
        must: s(2),
        run: |w| {
            let fault = w.begin();
            w.lab.link(false)?;
            thread::sleep(s(10));
            w.lab.link(true)?;
            let back = w.back(Instant::now())?;
            w.end(&fault);
            Ok(back)
        },
    },
    Fault {
        name: "address-change",
        what: "the client's address is replaced by another",
        must: s(4),
        run: |w| {
            let fault = w.begin();
            let at = Instant::now();
            w.lab.move_agent(AGENT, AGENT_MOVED)?;
            let back = w.back_after(at)?;
            w.end(&fault);
            w.lab.move_agent(AGENT_MOVED, AGENT)?;
            Ok(back)
        },
    },
    Fault {
        name: "nat-forgets",
        what: "the router forgets its connections",
        must: s(4),
        run: |w| {
            let fault = w.begin();
            let at = Instant::now();
            w.lab.forget()?;
            let back = w.back_after(at)?;
            w.end(&fault);
            Ok(back)
        },
    },
    Fault {
        name: "client-killed",
        what: "the client is killed and started again at once",
        must: s(2),
        run: |w| {
            w.tunnel.freeze_client(false);
            let fault = w.begin();
            w.tunnel.kill_client();
            w.tunnel.start_client(w.lab)?;
            let back = w.back_after(Instant::now())?;
            w.end(&fault);
            Ok(back)
        },
    },
];

impl World<'_> {
    /// Returns a visitor in flight, and the start of the fault.
    fn begin(&self) -> (Waiting, Instant) {
        let waiting = Waiting::start(self.lab, &self.tunnel.entrance, "/never");
        // It must be in flight when the fault begins.
        thread::sleep(Duration::from_millis(300));
        (waiting, Instant::now())
    }

    fn end(&mut self, fault: &(Waiting, Instant)) {
        let kept = fault.0.let_go(fault.1, NEVER).unwrap_or(NEVER);
        self.kept = self.kept.max(Some(kept));
    }

    fn outage(&mut self, fault: fn(&Lab) -> io::Result<()>) -> io::Result<Duration> {
        self.outage_of(fault, HELD)
    }

    /// Holds the fault, then heals it. Returns the time from then to a good response.
    fn outage_of(
        &mut self,
        fault: fn(&Lab) -> io::Result<()>,
        held: Duration,
    ) -> io::Result<Duration> {
        let visitor = self.begin();
        fault(self.lab)?;
        thread::sleep(held);
        self.lab.heal()?;
        let back = self.back(Instant::now())?;
        self.end(&visitor);
        Ok(back)
    }

    fn back(&self, from: Instant) -> io::Result<Duration> {
        self.watch.back(from, NEVER).ok_or_else(|| self.lost())
    }

    /// Does the same with an outage that begins only after `from`.
    fn back_after(&self, from: Instant) -> io::Result<Duration> {
        self.watch.gone(NOTICED * 2);
        self.back(from)
    }

    fn lost(&self) -> io::Error {
        io::Error::other(format!("no answer within {NEVER:?}"))
    }
}

/// Result of one fault.
pub struct Outcome {
    /// Time to the next good response.
    pub back: Duration,
    /// Longest time that a visitor in flight was kept.
    pub kept: Option<Duration>,
}

impl Outcome {
    /// Returns whether it was fast enough, as text.
    pub fn judge(&self, fault: &Fault) -> Result<String, String> {
        let (back, must) = (self.back.as_secs_f32(), fault.must.as_secs_f32());
        if self.back > fault.must {
            return Err(format!("back after {back:.2} s, must be {must:.0} s"));
        }
        match self.kept {
            None => Ok(format!("back after {back:.2} s")),
            Some(kept) if kept > KEPT => {
                Err(format!("a visitor in flight was kept for {kept:.2?}"))
            }
            Some(kept) => {
                Ok(format!("back after {back:.2} s, a visitor in flight let go after {kept:.2?}"))
            }
        }
    }
}

impl Fault {
    /// Applies this fault to a new tunnel of `kind`.
    pub fn run(&self, kind: Kind, programs: &Programs, dir: &Path) -> Result<Outcome, String> {
        let lab = Lab::new().map_err(|e| format!("no laboratory: {e}"))?;
        if self.name == "nat-forgets" {
            lab.nat().map_err(|e| e.to_string())?;
        }
        let upstream: SocketAddr = visit::serve(&lab).map_err(|e| e.to_string())?;
        let setting = Setting::default();
        let tunnel = Tunnel::start(&lab, kind, programs, upstream, dir, &setting)
            .map_err(|e| e.to_string())?;
        let watch = Watch::start(&lab, tunnel.entrance.clone());
        let mut world = World { lab: &lab, tunnel, watch, kept: None };
        let done = crate::logged::wait("the tunnel answers", NEVER, || world.watch.is_good())
            .and_then(|()| (self.run)(&mut world));
        match done {
            Ok(back) if world.tunnel.client.alive() => Ok(Outcome { back, kept: world.kept }),
            Ok(_) => Err(format!("the client ended\n{}", world.tunnel.client.tail())),
            Err(e) => Err(format!("{e}\n{}", world.tunnel.client.tail())),
        }
    }
}
