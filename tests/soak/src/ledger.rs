//! Outcomes of visits: how each end of an exchange saw its end, counted, and the failures as
//! text.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::plan::{Id, Kind};

/// How one end saw the end of one exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Complete and right.
    Whole,
    /// A reset or an error after a fault of this exchange.
    Fault,
    /// A reset, an error or a refusal while a program restarted.
    Restart,
    /// A reset or an error of a slow exchange: the limit of buffered bytes.
    Limit,
    /// A byte that was not sent, or the response to another request.
    Wrong,
    /// An end that looks complete after too few bytes.
    Short,
    /// No progress for a minute.
    Hang,
    /// A reset, an error or a status without a cause.
    Unexpected,
    /// A request with a body that reached the upstream twice.
    Twice,
}

impl Outcome {
    pub const ALL: [(Outcome, &'static str); 9] = [
        (Outcome::Whole, "whole"),
        (Outcome::Fault, "fault"),
        (Outcome::Restart, "restart"),
        (Outcome::Limit, "limit"),
        (Outcome::Wrong, "WRONG"),
        (Outcome::Short, "SHORT"),
        (Outcome::Hang, "HANG"),
        (Outcome::Unexpected, "UNEXPECTED"),
        (Outcome::Twice, "TWICE"),
    ];

    pub fn is_failure(self) -> bool {
        !matches!(self, Outcome::Whole | Outcome::Fault | Outcome::Restart | Outcome::Limit)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    Visitor,
    Upstream,
}

/// Failures of one sort that are printed in detail.
const MAX_EXAMPLES: u64 = 3;

#[derive(Default)]
pub struct Ledger {
    counts: [[[AtomicU64; Outcome::ALL.len()]; Kind::ALL.len()]; 2],
    pub bytes: AtomicU64,
    requests: AtomicU64,
    /// Sorts of failures, and how often each occurred.
    sorts: Mutex<HashMap<String, u64>>,
    /// Requests with a body that the upstream has received.
    seen: Mutex<HashSet<u64>>,
}

impl Ledger {
    /// Counts an outcome. `what` is the sort of a failure, `detail` what makes it this one.
    pub fn add(&self, side: Side, id: Id, outcome: Outcome, what: &str, detail: &str) {
        self.counts[side as usize][id.kind as usize][outcome as usize]
            .fetch_add(1, Ordering::Relaxed);
        if side == Side::Visitor {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
        if outcome.is_failure() {
            let seen = if side == Side::Visitor { "visitor" } else { "upstream" };
            let sort = format!("{outcome:?}, seen by the {seen}: {}: {what}", id.kind.name());
            self.describe(&sort, &format!("visit {} request {}: {detail}", id.visit, id.index));
        }
    }

    /// Records a failure as text.
    pub fn describe(&self, sort: &str, detail: &str) {
        let mut sorts = self.sorts.lock().expect("ledger");
        let count = sorts.entry(sort.to_owned()).or_default();
        *count += 1;
        if *count <= MAX_EXAMPLES {
            println!("{sort}: {detail}");
        }
    }

    /// The sorts of failures with their counts.
    pub fn sorts(&self) -> String {
        let sorts = self.sorts.lock().expect("ledger");
        let mut lines: Vec<String> = sorts.iter().map(|(s, n)| format!("{n:>7} {s}\n")).collect();
        lines.sort();
        lines.concat()
    }

    /// Records a request with a body. Returns false for a repetition.
    pub fn is_first(&self, id: Id) -> bool {
        self.seen.lock().expect("ledger").insert(id.to_u64())
    }

    /// Requests and connections of visitors so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Returns whether no failure was recorded, also without an exchange.
    pub fn is_clean(&self) -> bool {
        self.sorts.lock().expect("ledger").is_empty()
    }

    fn count(&self, side: Side, kind: Kind, outcome: Outcome) -> u64 {
        self.counts[side as usize][kind as usize][outcome as usize].load(Ordering::Relaxed)
    }

    pub fn failures(&self) -> u64 {
        let mut sum = 0;
        for side in [Side::Visitor, Side::Upstream] {
            for kind in Kind::ALL {
                for (outcome, _) in Outcome::ALL {
                    if outcome.is_failure() {
                        sum += self.count(side, kind, outcome);
                    }
                }
            }
        }
        sum
    }

    /// The table of all outcomes.
    pub fn table(&self) -> String {
        let mut text = format!("{:30}", "seen by the");
        for (_, name) in Outcome::ALL {
            text += &format!("{name:>11}");
        }
        for side in [Side::Visitor, Side::Upstream] {
            for kind in Kind::ALL {
                let who = if side == Side::Visitor { "visitor" } else { "upstream" };
                text += &format!("\n{:30}", format!("{who}: {}", kind.name()));
                for (outcome, _) in Outcome::ALL {
                    text += &format!("{:>11}", self.count(side, kind, outcome));
                }
            }
        }
        text
    }
}
