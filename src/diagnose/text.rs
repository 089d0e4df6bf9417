//! Output for people: rows of 50 columns, and the tree of faults. The texts are those of
//! ngrok's agent where it has them, because scripts read them. Pure functions.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use super::record::{CheckRecord, CheckResult, NAME_RESOLUTION, Section};

/// Width of a row with its result.
const ROW_COLUMNS: usize = 50;
/// Width at which a text of the tree continues on the next line.
const TREE_COLUMNS: usize = 78;

/// Returns a row.
pub fn row(label: &str, result: CheckResult) -> String {
    let shown = match result {
        CheckResult::Ok | CheckResult::Skipped => "[ OK ]",
        CheckResult::Warn => "[ WARN ]",
        CheckResult::Error => "[ ERROR ]",
    };
    let width = ROW_COLUMNS.saturating_sub(2 + label.len());
    format!("  {label}{shown:>width$}\n")
}

/// Returns a duration in the form of Go's programs: `54.895ms`.
pub fn go_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    let (whole, part, unit) = match micros {
        0..1_000 => return format!("{micros}µs"),
        1_000..1_000_000 => (micros / 1_000, micros % 1_000, "ms"),
        _ => (micros / 1_000_000, micros / 1_000 % 1_000, "s"),
    };
    let number = format!("{whole}.{part:03}");
    format!("{}{unit}", number.trim_end_matches('0').trim_end_matches('.'))
}

/// Returns a list of addresses.
pub fn joined(addresses: &[IpAddr]) -> String {
    let mut list = String::new();
    for ip in addresses {
        let separator = if list.is_empty() { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(list, "{separator}{ip}");
    }
    list
}

/// Returns the tree of the faults among these checks. It is empty without faults.
#[inline(never)]
pub fn tree(checks: &[CheckRecord]) -> String {
    let mut faults: Vec<(usize, Vec<String>, &CheckRecord)> = Vec::new();
    for check in checks.iter().filter(|check| check.result >= CheckResult::Warn) {
        let path = path(check);
        let rank = rank(&path, checks, check);
        // Behind faults of the same rank.
        let at = faults.iter().take_while(|(other, ..)| *other <= rank).count();
        faults.insert(at, (rank, path, check));
    }
    let (mut out, mut before, mut advised) = (String::new(), Vec::new(), Vec::new());
    if !faults.is_empty() {
        out.push_str("* Diagnostics\n");
    }
    for (_, path, check) in faults {
        let shared = path.iter().zip(&before).take_while(|(a, b)| a == b).count();
        for (depth, part) in path.iter().enumerate().skip(shared) {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{:1$}* {part}", "", 2 * (depth + 1));
        }
        let indent = 2 * (path.len() + 1);
        let mark = if check.result == CheckResult::Warn { "- Warn: " } else { "- Err: " };
        wrapped(&mut out, indent, mark, &check.err);
        let hanging = indent + mark.len();
        if check.code != 0 {
            let _ = writeln!(out, "{:hanging$}(ERR_NGROK_{})", "", check.code);
        }
        if !check.advice.is_empty() && !advised.contains(&&check.advice) {
            let _ = writeln!(out, "{:indent$}Try: {}", "", check.advice);
            advised.push(&check.advice);
        }
        before = path;
    }
    out
}

/// Returns the rank of a fault: by layer, the fault of a whole layer before those of its
/// addresses, then by resolver, because each has all of its hosts.
fn rank(path: &[String], checks: &[CheckRecord], check: &CheckRecord) -> usize {
    let layers = ["Local Network", NAME_RESOLUTION, "Connectivity"];
    let layer = layers.iter().take_while(|layer| **layer != path[0]).count();
    let resolver = checks.iter().take_while(|other| other.resolver != check.resolver).count();
    (2 * layer + usize::from(path.len() > 1)) * checks.len() + resolver
}

/// Returns the place of a fault in the tree.
fn path(check: &CheckRecord) -> Vec<String> {
    if check.section == Section::Local {
        return vec!["Local Network".to_owned(), check.check.to_owned()];
    }
    let layer = if check.check == NAME_RESOLUTION { NAME_RESOLUTION } else { "Connectivity" };
    let mut path = vec![layer.to_owned()];
    if !check.resolver.is_empty() {
        path.push(format!("Resolver: {}", check.resolver));
        path.push(format!("Hostname: {}", check.target));
    } else if !check.address.is_empty() {
        path.push(format!("{} ({})", check.target, check.address));
    }
    path
}

/// Writes a text behind its mark. Further lines begin below the text.
fn wrapped(out: &mut String, indent: usize, mark: &str, text: &str) {
    let hanging = indent + mark.len();
    let _ = write!(out, "{:indent$}{mark}", "");
    let mut column = hanging;
    for (n, word) in text.split_whitespace().enumerate() {
        let width = word.chars().count();
        if n > 0 && column + 1 + width > TREE_COLUMNS {
            let _ = write!(out, "\n{:hanging$}", "");
            column = hanging;
        } else if n > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;

    #[test]
    fn each_row_has_fifty_columns() {
        assert_eq!(
            row("Name Resolution", CheckResult::Ok),
            "  Name Resolution                           [ OK ]\n"
        );
        assert_eq!(
            row("Name Resolution", CheckResult::Warn),
            "  Name Resolution                         [ WARN ]\n"
        );
        for label in ["TCP", "TLS", "Tunnel Protocol"] {
            assert_eq!(row(label, CheckResult::Error).len(), 51);
        }
    }

    #[test]
    fn durations_are_those_of_go() {
        for (micros, expected) in [
            (0, "0µs"),
            (999, "999µs"),
            (54_895, "54.895ms"),
            (54_800, "54.8ms"),
            (2_000, "2ms"),
            (1_050_000, "1.05s"),
        ] {
            assert_eq!(go_duration(Duration::from_micros(micros)), expected);
        }
    }

    #[test]
    fn the_tree_is_that_of_ngroks_agent() {
        let resolution = |resolver: &str, err: &str| {
            let mut check = CheckRecord::begin(
                Section::Edge,
                NAME_RESOLUTION,
                "connect.ngrok-agent.com",
                Instant::ZERO,
            );
            check.resolver = resolver.to_owned();
            if !err.is_empty() {
                check.fault(CheckResult::Error, 8000, err, "do it");
            }
            check
        };
        let err = "Failed to resolve host connect.ngrok-agent.com: lookup \
                   connect.ngrok-agent.com: no such host";
        let mut layer = CheckRecord::begin(Section::Edge, "TLS", "h", Instant::ZERO);
        layer.fault(CheckResult::Error, 8008, "No tunnel servers.", "do it");
        let mut address = layer.clone();
        address.fault(CheckResult::Warn, 0, "late", "");
        address.address = "192.0.2.1:443".to_owned();
        let checks = [address, layer, resolution("8.8.8.8", ""), resolution("system", err)];
        let expected = "\
* Diagnostics
  * Name Resolution
    * Resolver: system
      * Hostname: connect.ngrok-agent.com
        - Err: Failed to resolve host connect.ngrok-agent.com: lookup
               connect.ngrok-agent.com: no such host
               (ERR_NGROK_8000)
        Try: do it
  * Connectivity
    - Err: No tunnel servers.
           (ERR_NGROK_8008)
    * h (192.0.2.1:443)
      - Warn: late
";
        assert_eq!(tree(&checks), expected);
        assert_eq!(tree(&checks[2..3]), "");
    }
}
