//! Bounds of the agent for memory and descriptors, derived from `memory_limit`. Arithmetic
//! only: each bound is applied elsewhere.
//!
//! ```text
//! limit >= BASE_BYTES + legs x LEG_BYTES + workers x WORKER_BYTES + streams x STREAM_BYTES
//!               + 2 x buffered + store
//! ```
//!
//! The constants are measurements, rounded up (docs/internals/memory.md). Memory of the kernel
//! for sockets and threads is not included.

use crate::config::{self, DEFAULT_MAX_CONNECTIONS, InspectSize};
use crate::features;
use crate::mux::WINDOW;
use crate::session;
use crate::sys;

/// The idle program with all features.
const BASE_BYTES: u64 = 2304 << 10;

/// A further connection to an edge: buffers for records, a thread.
const LEG_BYTES: u64 = 256 << 10;

/// A busy worker: the used part of its stack, and its share of the common buffers.
const WORKER_BYTES: u64 = 48 << 10;

/// A connection with TLS to its upstream, the most expensive kind, with data in both
/// directions: the state of the library, one record in each direction.
const STREAM_BYTES: u64 = 52 << 10;

/// Streams of a session without `memory_limit`, at least and at most, and the machine's memory
/// for each. Most are idle sockets without TLS, which take a few kilobytes.
const LEAST_STREAMS: u64 = 512;
const MOST_STREAMS: u64 = 4_096;
const MACHINE_BYTES: u64 = 128 << 10;

/// A tunnel needs more streams than a browser opens: six.
const MIN_STREAMS: u64 = 16;

/// With fewer buffered bytes, uploads that are merely slow would fail: a peer may send a whole
/// window before it gets a response.
const MIN_BUFFERED_BYTES: u64 = WINDOW as u64;

/// New connections that may wait, for each worker.
const QUEUED_PER_WORKER: usize = 4;

/// Descriptors of a session: socket, poll, its copy, waker. A leg that reconnects needs all of
/// them at the end. Before that it needs at most as many: queries to three resolvers, attempts
/// to several addresses, a revocation list beside the connection.
const DESCRIPTORS_PER_LEG: usize = 4;

/// Descriptors for other purposes: configuration, log, `/etc/resolv.conf`, an old session that
/// finishes while a new one begins.
const DESCRIPTORS_OF_AGENT: usize = 4;

/// Returns how many of `limit` descriptors are reserved for `legs` to reconnect. Visitors and
/// clients of the local API cannot use them. It is at most a quarter, so that visitors are
/// served in any case.
pub(super) fn descriptors(legs: usize, limit: usize) -> usize {
    (DESCRIPTORS_OF_AGENT + DESCRIPTORS_PER_LEG * legs).min(limit / 4)
}

/// Bounds of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// Threads that serve connections.
    pub(super) workers: usize,
    /// New connections that may wait for a worker.
    pub(super) waiting: usize,
    /// Bytes that a session may have received and not delivered.
    pub(super) buffered: usize,
    /// Streams of a session; `None`: as many as the machine carries.
    pub(super) streams: Option<usize>,
    /// Most bytes for captured requests, unless the configuration has their number.
    pub(super) store: usize,
}

impl Budget {
    /// Returns the streams of a session. A build without features is for small machines.
    pub(super) fn max_streams(&self) -> usize {
        let machine = if features::INSPECT { sys::memory::total() / MACHINE_BYTES } else { 0 };
        let usual = machine.clamp(LEAST_STREAMS, MOST_STREAMS);
        let given = self.streams.and_then(|streams| u64::try_from(streams).ok());
        usize::try_from(given.unwrap_or(usual).min(MOST_STREAMS)).unwrap_or(usize::MAX)
    }
}

/// Returns the bounds for a configuration. The error has a limit that is large enough.
pub(super) fn for_config(config: &config::Agent) -> Result<Budget, String> {
    let asked = config.max_connections;
    let Some(limit) = config.memory_limit else {
        let workers = asked.unwrap_or(DEFAULT_MAX_CONNECTIONS);
        return Ok(Budget {
            workers,
            waiting: workers.saturating_mul(QUEUED_PER_WORKER),
            buffered: session::BUFFERED,
            streams: None,
            store: usize::MAX,
        });
    };
    let links = 1 + config.further_urls.len() as u64;
    let fixed = match config.inspect_db_size {
        InspectSize::Bytes(bytes) if features::INSPECT => bytes,
        _ => 0,
    };
    let base = BASE_BYTES + (links - 1) * LEG_BYTES;
    let session = MIN_STREAMS * STREAM_BYTES + 2 * MIN_BUFFERED_BYTES;
    let least = (base + links * session)
        .saturating_add((asked.unwrap_or(1) as u64).saturating_mul(WORKER_BYTES))
        .saturating_add(fixed);
    let Some(spare) = limit.checked_sub(least) else {
        let reasons = [
            asked.map(|n| format!("max_connections {n}")),
            (links > 1).then(|| format!("{links} addresses in connect_url")),
            (fixed > 0).then(|| "inspect_db_size as given".to_owned()),
        ];
        return Err(too_small(limit, least, reasons.into_iter().flatten().collect()));
    };
    // An eighth is for captured requests, an eighth for workers, half of the rest for waiting
    // bytes (in pieces of up to twice their size), half for streams.
    let store = match config.inspect_db_size {
        InspectSize::Usual if features::INSPECT => spare / 8,
        _ => 0,
    };
    let more = match asked {
        Some(_) => 0,
        None => (spare / 8 / WORKER_BYTES).min(DEFAULT_MAX_CONNECTIONS as u64 - 1),
    };
    let left = (spare - store - more * WORKER_BYTES) / links;
    let buffered = (MIN_BUFFERED_BYTES + left / 4).min(session::BUFFERED as u64);
    let streams = MIN_STREAMS + left / 2 / STREAM_BYTES;
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let workers = asked.unwrap_or(size(1 + more));
    Ok(Budget {
        workers,
        // Below the number of streams: a visitor over the limit gets a response on a stream.
        waiting: workers.saturating_mul(QUEUED_PER_WORKER).min(size(streams / 2)),
        buffered: size(buffered),
        streams: Some(size(streams)),
        store: size(store),
    })
}

fn too_small(limit: u64, least: u64, reasons: Vec<String>) -> String {
    let with = if reasons.is_empty() { "" } else { " for " };
    let (reasons, kib) = (reasons.join(" and "), least.div_ceil(1024));
    format!(
        "memory_limit of {limit} bytes is too small{with}{reasons}: the smallest that works is \
         {kib}KiB"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(limit: u64, change: impl FnOnce(&mut config::Agent)) -> Result<Budget, String> {
        let mut agent = config::Agent { memory_limit: Some(limit), ..Default::default() };
        change(&mut agent);
        for_config(&agent)
    }

    /// Returns the memory that a budget needs, by the formula above.
    fn price(budget: &Budget, links: u64, fixed: u64) -> u64 {
        let per_link = 2 * budget.buffered as u64 + budget.streams.unwrap() as u64 * STREAM_BYTES;
        BASE_BYTES
            + (links - 1) * LEG_BYTES
            + budget.workers as u64 * WORKER_BYTES
            + links * per_link
            + budget.store as u64
            + fixed
    }

    #[test]
    fn without_a_limit_the_defaults_hold() {
        let budget = for_config(&config::Agent::default()).unwrap();
        assert_eq!((budget.workers, budget.streams), (DEFAULT_MAX_CONNECTIONS, None));
        assert_eq!((budget.buffered, budget.store), (4 << 20, usize::MAX));
        let few = config::Agent { max_connections: Some(5), ..Default::default() };
        assert_eq!(for_config(&few).unwrap().workers, 5);
    }

    #[test]
    fn descriptors_for_every_leg_and_some_for_visitors() {
        assert_eq!(descriptors(1, 1024), 8);
        assert_eq!(descriptors(3, 1024), 16);
        assert_eq!(descriptors(1, 32), 8);
        assert_eq!(descriptors(8, 32), 8, "visitors are what it is for");
        assert_eq!(descriptors(1, 0), 0);
    }

    #[test]
    fn every_limit_is_kept_and_more_memory_never_means_less() {
        let mut before: Option<Budget> = None;
        for kib in (4 * 1024..128 * 1024).step_by(97) {
            let budget = with(kib << 10, |_| {}).unwrap();
            assert!(price(&budget, 1, 0) <= kib << 10, "{kib} KiB: {budget:?}");
            assert!(budget.buffered >= WINDOW as usize && budget.streams >= Some(16));
            if let Some(before) = before {
                assert!(budget.workers >= before.workers && budget.store >= before.store);
                assert!(budget.buffered + 1024 >= before.buffered.min(4 << 20), "{kib} KiB");
            }
            before = Some(budget);
        }
        assert_eq!(before.unwrap().workers, DEFAULT_MAX_CONNECTIONS);
    }

    #[test]
    fn what_was_asked_for_is_kept_or_refused_with_the_limit_that_would_do() {
        let eight = with(8 << 20, |a| a.max_connections = Some(50)).unwrap();
        assert_eq!(eight.workers, 50);
        assert!(price(&eight, 1, 0) <= 8 << 20);
        let stored = with(8 << 20, |a| a.inspect_db_size = InspectSize::Bytes(1 << 20)).unwrap();
        let fixed = if features::INSPECT { 1 << 20 } else { 0 };
        assert!(price(&stored, 1, fixed) <= 8 << 20 && stored.store == 0);
        let legs = |a: &mut config::Agent| a.further_urls = vec!["b:443".into(), "c:443".into()];
        assert!(price(&with(8 << 20, legs).unwrap(), 3, 0) <= 8 << 20);

        let changes = [
            &(|_: &mut config::Agent| {}) as &dyn Fn(&mut config::Agent),
            &|a| a.max_connections = Some(1000),
            &|a| a.inspect_db_size = InspectSize::Bytes(64 << 20),
            &|a| a.inspect_db_size = InspectSize::Bytes(u64::from(u32::MAX)),
        ];
        // The last two concern captured requests.
        for change in &changes[..if features::INSPECT { 4 } else { 2 }] {
            let why = with(1 << 20, change).unwrap_err();
            let kib = why.rsplit(' ').next().unwrap().strip_suffix("KiB").unwrap();
            let least = kib.parse::<u64>().unwrap() << 10;
            assert!(with(least, change).is_ok(), "{why}");
            assert!(with(least - 1024, change).is_err(), "{why}");
        }
    }

    #[test]
    fn a_limit_that_is_too_small_is_refused_with_all_that_makes_it_so() {
        let said = |change: &dyn Fn(&mut config::Agent)| {
            let why = with(1 << 20, change).unwrap_err();
            why.split(": ").next().unwrap().to_owned()
        };
        assert_eq!(said(&|_| {}), "memory_limit of 1048576 bytes is too small");
        if !features::INSPECT {
            let stored = |a: &mut config::Agent| a.inspect_db_size = InspectSize::Bytes(8 << 20);
            assert_eq!(said(&stored), said(&|_| {}), "nothing is kept");
            return;
        }
        let stored = |a: &mut config::Agent| a.inspect_db_size = InspectSize::Bytes(1);
        assert_eq!(
            said(&stored),
            "memory_limit of 1048576 bytes is too small for inspect_db_size as given"
        );
        let all = said(&|a| {
            stored(a);
            a.max_connections = Some(9);
            a.further_urls = vec!["b:443".into()];
        });
        let reasons =
            "max_connections 9 and 2 addresses in connect_url and inspect_db_size as given";
        assert_eq!(all, format!("memory_limit of 1048576 bytes is too small for {reasons}"));
    }
}
