//! Plan of each visit, derived from the seed and the visit's number only: the visitor and the
//! upstream compute the same plan, and a run can be repeated. No sockets here.

/// Kinds of visits. Each has lanes of its own, so that slow ones do not delay the others.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// Requests on kept connections, most of them small.
    Http,
    /// Requests to an endpoint whose upstream does not listen.
    Down,
    /// Requests whose visitor or upstream reads slowly or pauses.
    SlowHttp,
    WebSocket,
    /// Raw TCP with half-close.
    Tcp,
    /// The same with an end that reads slowly or pauses.
    SlowTcp,
}

impl Kind {
    pub const ALL: [Kind; 6] =
        [Kind::Http, Kind::Down, Kind::SlowHttp, Kind::WebSocket, Kind::Tcp, Kind::SlowTcp];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Http => "http",
            Kind::Down => "http, upstream down",
            Kind::SlowHttp => "http, slow",
            Kind::WebSocket => "websocket",
            Kind::Tcp => "tcp",
            Kind::SlowTcp => "tcp, slow",
        }
    }

    pub fn is_slow(self) -> bool {
        matches!(self, Kind::SlowHttp | Kind::SlowTcp)
    }
}

/// Number of a request: its kind, its visit and its place in the visit.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Id {
    pub kind: Kind,
    pub visit: u64,
    pub index: u64,
}

/// Index of the request that a visitor sends before one that it aborts. Its response stays
/// unread, so that the close of the connection sends a reset.
pub const SPARE: u64 = 255;

impl Id {
    pub fn to_u64(self) -> u64 {
        (self.kind as u64) << 56 | self.visit << 8 | self.index
    }

    pub fn from_u64(id: u64) -> Option<Id> {
        let kind = *Kind::ALL.get(usize::try_from(id >> 56).ok()?)?;
        Some(Id { kind, visit: id << 8 >> 16, index: id & 0xff })
    }
}

/// A generator of numbers (splitmix64).
pub struct Random(u64);

impl Random {
    /// `purpose` separates the numbers of different questions about the same request.
    pub fn new(seed: u64, id: Id, purpose: u64) -> Self {
        let mut random = Random(seed ^ id.to_u64().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose);
        random.next();
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next() % end }
    }

    /// A number from `start` to `end - 1`.
    pub fn between(&mut self, start: u64, end: u64) -> u64 {
        start + self.below(end - start)
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Mostly small, rarely some MiB.
    pub fn size(&mut self) -> u64 {
        match self.below(1000) {
            0..100 => self.below(2),
            100..700 => self.below(2 * 1024),
            700..960 => self.below(16 * 1024),
            960..996 => self.below(200 * 1024),
            _ => self.below(4 * 1024 * 1024),
        }
    }
}

pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    Length,
    Chunked,
    /// The end of the connection ends the body.
    Close,
}

/// A response that the upstream sends before it reads the body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Early {
    /// 401; then the body is read and the connection is kept.
    Unauthorized,
    /// 413 with `Connection: close`; the upstream closes soon.
    TooLarge,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The visitor leaves after this number of bytes of its body.
    VisitorInRequest { after: u64, reset: bool },
    /// The visitor leaves after this number of bytes of the response.
    VisitorInAnswer { after: u64 },
    /// The upstream leaves after this number of bytes of its body. `None`: before the head.
    Upstream { after: Option<u64>, reset: bool },
}

/// How an end reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pace {
    Full,
    /// It reads nothing for a time, after this number of bytes.
    Pause {
        after: u64,
        millis: u64,
    },
    /// It reads in steps.
    Steady {
        step: u64,
        millis: u64,
    },
}

/// One request with its response, or one TCP connection.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    pub id: Id,
    pub up: u64,
    pub up_chunked: bool,
    pub down: u64,
    pub framing: Framing,
    pub early: Option<Early>,
    /// The visitor reads the early response before it sends all of its body.
    pub answer_first: bool,
    pub fault: Option<Fault>,
    pub visitor: Pace,
    pub upstream: Pace,
    pub order: Order,
}

impl Exchange {
    /// Returns whether the request has a body, which may be empty.
    pub fn is_post(&self) -> bool {
        self.up > 0 || self.up_chunked
    }
}

/// Which end sends first over TCP. The other one starts after its FIN.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    VisitorFirst,
    UpstreamFirst,
    Both,
}

/// How the requests of a visit are sent.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    pub requests: u64,
    /// Requests that are sent before the first response is read.
    pub depth: u64,
}

pub fn visit(seed: u64, kind: Kind, visit: u64) -> Visit {
    let mut random = Random::new(seed, Id { kind, visit, index: SPARE }, 1);
    match kind {
        Kind::Http => {
            let depth = if random.percent(30) { random.between(2, 7) } else { 1 };
            Visit { requests: random.between(1, 25), depth }
        }
        Kind::Down => Visit { requests: random.between(1, 9), depth: 1 },
        Kind::SlowHttp => Visit { requests: random.between(1, 3), depth: 1 },
        Kind::WebSocket => Visit { requests: 1, depth: 1 },
        Kind::Tcp | Kind::SlowTcp => Visit { requests: 1, depth: 1 },
    }
}

pub fn exchange(seed: u64, id: Id) -> Exchange {
    let mut random = Random::new(seed, id, 2);
    let mut plan = Exchange {
        id,
        up: 0,
        up_chunked: false,
        down: 64,
        framing: Framing::Length,
        early: None,
        answer_first: false,
        fault: None,
        visitor: Pace::Full,
        upstream: Pace::Full,
        order: Order::Both,
    };
    if id.index == SPARE {
        return plan;
    }
    match id.kind {
        Kind::Http if visit(seed, id.kind, id.visit).depth > 1 => {
            plan.down = random.below(8 * 1024);
            plan.framing = random_framing(&mut random, false);
            plan.up = if random.percent(30) { random.below(2 * 1024) } else { 0 };
            plan.up_chunked = plan.up > 0 && random.percent(50);
        }
        Kind::Http => http(&mut plan, &mut random),
        Kind::Down => {
            plan.up = if random.percent(70) { random.size() } else { 0 };
            plan.up_chunked = plan.up > 0 && random.percent(50);
        }
        Kind::SlowHttp => {
            let size = random.between(400 << 10, 2 << 20);
            let pace = random_pace(&mut random);
            if random.percent(70) {
                plan.down = size;
                plan.framing = random_framing(&mut random, true);
                plan.visitor = pace;
            } else {
                plan.up = size;
                plan.up_chunked = random.percent(50);
                plan.upstream = pace;
            }
        }
        Kind::WebSocket => {
            // `up` is the number of messages.
            plan.up = random.between(1, 30);
            plan.fault = random_tcp_fault(&mut random, plan.up, plan.up);
        }
        Kind::Tcp => {
            plan.up = random.size();
            plan.down = random.size();
            plan.order = random_order(&mut random);
            plan.fault = random_tcp_fault(&mut random, plan.up, plan.down);
        }
        Kind::SlowTcp => {
            plan.up = random.between(256 << 10, 2 << 20);
            plan.down = random.between(256 << 10, 2 << 20);
            plan.order = random_order(&mut random);
            plan.visitor = random_pace(&mut random);
            plan.upstream = random_pace(&mut random);
            if random.percent(20) {
                plan.fault = random_tcp_fault(&mut random, plan.up, plan.down);
            }
        }
    }
    if plan.fault.is_some() && matches!(id.kind, Kind::Tcp | Kind::SlowTcp) {
        // Both sides must have sent something for the other to leave unread.
        plan.order = Order::Both;
        plan.up = plan.up.max(1);
    }
    plan
}

fn http(plan: &mut Exchange, random: &mut Random) {
    plan.up = if random.percent(40) { random.size() } else { 0 };
    plan.up_chunked = random.percent(if plan.up > 0 { 50 } else { 5 });
    plan.down = random.size();
    plan.framing = random_framing(random, true);
    match random.below(100) {
        0..4 => {
            plan.early = Some(Early::Unauthorized);
            plan.up = random.size().max(1);
        }
        4..6 => {
            plan.early = Some(Early::TooLarge);
            plan.up = random.size().max(1);
        }
        6 => {
            plan.up = random.size().max(2);
            let after = random.below(plan.up);
            plan.fault = Some(Fault::VisitorInRequest { after, reset: random.percent(50) });
        }
        7 => {
            let after = random.below(plan.down + 1);
            plan.fault = Some(Fault::VisitorInAnswer { after });
        }
        8..10 => {
            let reset = plan.framing == Framing::Close || random.percent(50);
            plan.down = plan.down.max(1);
            if reset {
                // What the upstream leaves unread makes its close a reset.
                plan.up = random.size().max(1);
            }
            let after = random.percent(80).then(|| random.below(plan.down));
            plan.fault = Some(Fault::Upstream { after, reset });
        }
        _ => {}
    }
    if plan.early.is_some() {
        plan.framing = if random.percent(50) { Framing::Length } else { Framing::Chunked };
        plan.down = random.below(2 * 1024);
        plan.answer_first = random.percent(50);
    }
}

fn random_framing(random: &mut Random, close: bool) -> Framing {
    match random.below(10) {
        0..6 => Framing::Length,
        6..9 => Framing::Chunked,
        _ if close => Framing::Close,
        _ => Framing::Length,
    }
}

fn random_pace(random: &mut Random) -> Pace {
    if random.percent(80) {
        Pace::Pause { after: random.below(200 << 10), millis: random.between(3_000, 6_500) }
    } else {
        let step = random.between(16 << 10, 64 << 10);
        Pace::Steady { step, millis: random.between(50, 150) }
    }
}

fn random_order(random: &mut Random) -> Order {
    match random.below(3) {
        0 => Order::VisitorFirst,
        1 => Order::UpstreamFirst,
        _ => Order::Both,
    }
}

fn random_tcp_fault(random: &mut Random, up: u64, down: u64) -> Option<Fault> {
    match random.below(100) {
        0..8 => Some(Fault::VisitorInRequest { after: random.below(up.max(1)), reset: true }),
        8..16 => Some(Fault::Upstream { after: Some(random.below(down + 1)), reset: true }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_number() {
        for kind in Kind::ALL {
            let id = Id { kind, visit: 0xffff_ffff, index: 17 };
            assert_eq!(Id::from_u64(id.to_u64()), Some(id));
        }
        assert_eq!(Id::from_u64(u64::MAX), None);
    }

    #[test]
    fn every_fault_occurs() {
        let plans: Vec<Exchange> = (0..20_000)
            .map(|visit| exchange(7, Id { kind: Kind::Http, visit, index: 0 }))
            .collect();
        let has = |wanted: &dyn Fn(&Exchange) -> bool| plans.iter().any(wanted);
        assert!(has(&|p| matches!(p.fault, Some(Fault::VisitorInRequest { reset: true, .. }))));
        assert!(has(&|p| matches!(p.fault, Some(Fault::VisitorInRequest { reset: false, .. }))));
        assert!(has(&|p| matches!(p.fault, Some(Fault::VisitorInAnswer { .. }))));
        assert!(has(&|p| matches!(p.fault, Some(Fault::Upstream { after: None, .. }))));
        for framing in [Framing::Length, Framing::Chunked, Framing::Close] {
            let reset = Some(true);
            let cut = |p: &Exchange| match p.fault {
                Some(Fault::Upstream { reset, .. }) => Some(reset),
                _ => None,
            };
            assert!(has(&|p| p.framing == framing && cut(p) == reset));
            assert_eq!(
                has(&|p| p.framing == framing && cut(p) == Some(false)),
                framing != Framing::Close
            );
        }
        assert!(has(&|p| p.early == Some(Early::TooLarge) && p.answer_first));
        assert!(has(&|p| p.early == Some(Early::Unauthorized) && !p.answer_first));
        assert!(has(&|p| p.down > 1 << 20) && has(&|p| p.down == 0));
    }
}
