//! Figures, their targets, and the table.

use crate::tools::Kind;
use std::collections::HashMap;

/// Limit of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// At most this value.
    Below(f64),
    /// At most this multiple of the value of `ssh -R` in the same run.
    BelowSsh(f64),
    /// At least this multiple of the value of `ssh -R` in the same run.
    AboveSsh(f64),
}

/// One row.
pub struct Figure {
    pub key: &'static str,
    pub title: &'static str,
    pub digits: usize,
    /// Required and desired value; `None` for rows without a target.
    pub targets: Option<(Target, Target)>,
}

const fn figure(
    key: &'static str,
    title: &'static str,
    digits: usize,
    must: Target,
    aim: Target,
) -> Figure {
    Figure { key, title, digits, targets: Some((must, aim)) }
}

const fn beside(key: &'static str, title: &'static str, digits: usize) -> Figure {
    Figure { key, title, digits, targets: None }
}

/// All rows. Megabytes are 1,000,000 bytes; MiB and GiB are powers of two.
pub const FIGURES: &[Figure] = &[
    figure("idle", "idle RSS, MB", 2, Target::Below(2.0), Target::Below(1.5)),
    figure(
        "cpu_gib",
        "client CPU s/GiB, download",
        2,
        Target::BelowSsh(0.9),
        Target::BelowSsh(0.7),
    ),
    // bore, without encryption, had 1.39 times the value of ssh -R.
    figure("bulk", "download, one stream, MiB/s", 0, Target::AboveSsh(1.0), Target::AboveSsh(1.39)),
    figure(
        "rps",
        "small requests/s, 10 connections",
        0,
        Target::AboveSsh(1.5),
        Target::AboveSsh(2.0),
    ),
    figure("p99", "their p99, ms", 2, Target::Below(5.0), Target::Below(2.0)),
    figure(
        "cpu_req",
        "client CPU us/small request",
        1,
        Target::BelowSsh(1.0),
        Target::BelowSsh(0.7),
    ),
    figure(
        "parked",
        "RSS + by 200 idle connections, MB",
        2,
        Target::Below(0.5),
        Target::Below(0.12),
    ),
    // 0 is not measurable: one page touched late would miss it.
    figure("after", "RSS + after they close, MB", 2, Target::Below(0.2), Target::Below(0.02)),
    figure("peak", "peak RSS + in 1 GiB, MB", 2, Target::Below(0.5), Target::Below(0.1)),
    beside("up_bulk", "upload, one stream, MiB/s", 0),
    beside("up_cpu", "client CPU s/GiB, upload", 2),
    beside("ring", "RSS + by a full ring of 1 MiB, MB", 2),
    beside("drift", "RSS + by 100,000 requests more, MB", 2),
    beside("edge_rss", "server: RSS after all that, MB", 2),
    beside("edge_cpu_gib", "server: CPU s/GiB, download", 2),
    beside("edge_cpu_req", "server: CPU us/small request", 1),
    beside("allocs_mib", "heap allocations/MiB, download", 3),
    beside("allocs_req", "heap allocations/small request", 3),
];

/// Limits for the cost of capture: the figure with it, as a multiple of the one without it in
/// the same run.
pub const INSPECTION: &[(&str, &str, f64)] = &[
    ("cpu_req", "client CPU/small request", 1.3),
    ("cpu_gib", "client CPU/GiB, download", 1.1),
    ("up_cpu", "client CPU/GiB, upload", 1.1),
];

/// Most that 100 requests a second to the API of an edge may raise the 99th percentile of its
/// visitors, as a multiple.
pub const API_RATIO: f64 = 1.2;

/// Most that a full ring of 1 MiB may add to idle memory, and most that further requests may
/// add to that: a few pages of stacks that were touched late, less than half a byte for each
/// request. In MB.
pub const RING: &[(&str, &str, f64)] = &[
    ("ring", "RSS + by a full ring of 1 MiB, MB", 1.1 * 1.048_576),
    ("drift", "RSS + by 100,000 requests more, MB", 0.05),
];

/// Measured values, with all repetitions.
#[derive(Default)]
pub struct Results {
    values: HashMap<(Kind, &'static str), Vec<f64>>,
}

impl Results {
    pub fn add(&mut self, kind: Kind, key: &'static str, value: f64) {
        self.values.entry((kind, key)).or_default().push(value);
    }

    /// Returns the median of the repetitions.
    pub fn get(&self, kind: Kind, key: &'static str) -> Option<f64> {
        let mut values = self.values.get(&(kind, key))?.clone();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        match values.len() {
            0 => None,
            n if n % 2 == 1 => Some(values[middle]),
            _ => Some((values[middle - 1] + values[middle]) / 2.0),
        }
    }

    /// Prints the cost of capture.
    fn print_inspection(&self, missed: &mut Vec<&'static str>) {
        println!("\nwith capture of requests");
        let with = |key| self.get(Kind::Inspected, key);
        let ratios = INSPECTION.iter().map(|&(key, title, most)| {
            let ratio = with(key).zip(self.get(Kind::CulvertHttp, key)).map(|(on, off)| on / off);
            (title, ratio, most, " x without")
        });
        let sizes = RING.iter().map(|&(key, title, most)| (title, with(key), most, ""));
        for (title, value, most, unit) in ratios.chain(sizes) {
            // A figure that was not measured has not failed: a run may omit parts.
            let Some(value) = value else { continue };
            let verdict = if value <= most { "ok" } else { "MISS" };
            println!("{title:<34} {value:>12.3}{unit}  must <= {most:.2}{unit} {verdict}");
            if value > most {
                missed.push(title);
            }
        }
    }

    /// Prints what requests to the API of the edge cost visitors, with the load of the machine.
    fn print_api(&self, missed: &mut Vec<&'static str>) {
        let get = |key| self.get(Kind::CulvertHttp, key);
        if get("api_pairs").is_none() {
            return;
        }
        let Some(ratio) = get("api_ratio") else {
            println!("\nvisitors' p99 with API requests: the API answered fewer than 90/s  MISS");
            return missed.push("visitors' p99 with API requests");
        };
        let (with, without) = (get("api_p99"), get("api_p99_without"));
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or("?");
        let verdict = if ratio <= API_RATIO { "ok" } else { "MISS" };
        println!(
            "\nvisitors' p99 with 100 API requests/s: {:.2} ms, without {:.2} ms; median ratio \
             {ratio:.3}  must <= {API_RATIO:.2} {verdict} (load of the machine {load})",
            with.unwrap_or_default(),
            without.unwrap_or_default()
        );
        if ratio > API_RATIO {
            missed.push("visitors' p99 with API requests");
        }
    }

    /// Returns whether culvert's TCP endpoint meets a target; `None` if a value was not
    /// measured.
    fn reached(&self, key: &'static str, target: Target) -> Option<bool> {
        let ours = self.get(Kind::CulvertTcp, key)?;
        Some(match target {
            Target::Below(limit) => ours <= limit,
            Target::BelowSsh(share) => ours <= share * self.get(Kind::Ssh, key)?,
            Target::AboveSsh(share) => ours >= share * self.get(Kind::Ssh, key)?,
        })
    }

    /// Prints the table. Returns the titles of the required figures that were missed or not
    /// measured.
    pub fn print(&self, kinds: &[Kind]) -> Vec<&'static str> {
        let mut missed = Vec::new();
        print!("{:<34}", "");
        for kind in kinds {
            print!(" {:>12}", kind.name());
        }
        println!("  {:>8} {:>16} {:>16}", "to ssh", "must", "aim");
        for figure in FIGURES {
            if figure.targets.is_none()
                && kinds.iter().all(|kind| self.get(*kind, figure.key).is_none())
            {
                continue;
            }
            print!("{:<34}", figure.title);
            for kind in kinds {
                match self.get(*kind, figure.key) {
                    Some(value) => print!(" {value:>12.0$}", figure.digits),
                    None => print!(" {:>12}", "-"),
                }
            }
            let ratio = self
                .get(Kind::CulvertTcp, figure.key)
                .zip(self.get(Kind::Ssh, figure.key))
                .map_or("-".into(), |(ours, ssh)| format!("{:.2}", ours / ssh));
            print!("  {ratio:>8}");
            if let Some((must, aim)) = figure.targets {
                for target in [must, aim] {
                    let verdict = match self.reached(figure.key, target) {
                        Some(true) => "ok",
                        Some(false) => "MISS",
                        None => "?",
                    };
                    print!(" {:>16}", format!("{} {verdict}", wording(target)));
                }
                if self.reached(figure.key, must) != Some(true) {
                    missed.push(figure.title);
                }
            }
            println!();
        }
        if kinds.contains(&Kind::Inspected) {
            self.print_inspection(&mut missed);
        }
        self.print_api(&mut missed);
        missed
    }
}

fn wording(target: Target) -> String {
    match target {
        Target::Below(limit) => format!("<= {limit}"),
        Target::BelowSsh(share) => format!("<= {share} ssh"),
        Target::AboveSsh(share) => format!(">= {share} ssh"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_repetitions() {
        let mut results = Results::default();
        for value in [9.0, 1.0, 2.0] {
            results.add(Kind::Ssh, "bulk", value);
        }
        assert_eq!(results.get(Kind::Ssh, "bulk"), Some(2.0));
        results.add(Kind::Ssh, "bulk", 4.0);
        assert_eq!(results.get(Kind::Ssh, "bulk"), Some(3.0));
        assert_eq!(results.get(Kind::Ssh, "idle"), None);
    }

    #[test]
    fn targets_are_reached_or_missed() {
        let mut results = Results::default();
        results.add(Kind::Ssh, "bulk", 300.0);
        results.add(Kind::CulvertTcp, "bulk", 310.0);
        assert_eq!(results.reached("bulk", Target::AboveSsh(1.0)), Some(true));
        assert_eq!(results.reached("bulk", Target::AboveSsh(1.39)), Some(false));
        results.add(Kind::CulvertTcp, "idle", 2.1);
        assert_eq!(results.reached("idle", Target::Below(2.0)), Some(false));
        assert_eq!(results.reached("rps", Target::AboveSsh(1.0)), None);
    }

    #[test]
    fn api_requests_may_cost_a_fifth() {
        for (ratio, missed) in [(Some(1.19), false), (Some(1.21), true), (None, true)] {
            let mut results = Results::default();
            results.add(Kind::CulvertHttp, "api_pairs", 7.0);
            if let Some(ratio) = ratio {
                results.add(Kind::CulvertHttp, "api_ratio", ratio);
            }
            let titles = results.print(&[]);
            assert_eq!(titles.contains(&"visitors' p99 with API requests"), missed);
        }
    }

    #[test]
    fn what_was_not_measured_counts_as_missed() {
        assert!(!Results::default().print(&[Kind::CulvertTcp]).is_empty());
    }
}
