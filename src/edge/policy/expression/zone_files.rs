//! Time zones of this machine by name. A zone is read when the first policy that names it binds,
//! and kept: an evaluation reads no file and finds no name.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use super::zone::Zone;
use crate::sys::sync::RwLock;

/// Directory of the zone database.
const DIRECTORY: &str = "/usr/share/zoneinfo";

/// Longest file of a zone.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Longest name.
const MAX_NAME_BYTES: usize = 64;

/// Zones that were read. Their number is that of the names in the database.
static ZONES: LazyLock<RwLock<HashMap<String, Arc<Zone>>>> = LazyLock::new(RwLock::default);

/// Returns a zone. It is read unless it was read before. The error is the reason.
pub(super) fn load(name: &str) -> Result<Arc<Zone>, String> {
    if let Some(zone) = ZONES.read().get(name) {
        return Ok(Arc::clone(zone));
    }
    let zone = is_name(name).then(|| read(&Path::new(DIRECTORY).join(name))).flatten();
    let zone = zone.ok_or_else(|| {
        let shown: String = name.chars().take(MAX_NAME_BYTES).collect();
        format!(
            "the time zone {shown:?} is not in {DIRECTORY} of the edge; install tzdata, or write \
             UTC or a difference as +02:00"
        )
    })?;
    let zone = Arc::new(zone);
    ZONES.write().insert(name.to_owned(), Arc::clone(&zone));
    Ok(zone)
}

/// Returns whether a name is that of a place, as `Europe/Paris`, and leads to no other directory.
fn is_name(name: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_uppercase())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-".contains(&b))
    };
    name.len() <= MAX_NAME_BYTES && name.split('/').all(is_part)
}

fn read(path: &Path) -> Option<Zone> {
    // The open of a FIFO would wait.
    let metadata = path.metadata().ok().filter(|m| m.is_file() && m.len() <= MAX_FILE_BYTES);
    metadata.and_then(|_| Zone::read(&std::fs::read(path).ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::tests::TestRequest;
    use super::super::{EvalBudget, Expression};
    use super::*;
    use crate::edge::policy::catalog::PolicyPhase;

    /// As after the Bind of a policy with this name, on a machine that has it.
    #[test]
    fn a_zone_that_was_read_is_used() {
        let zone = Zone::of_rule("A0B,59/0,300");
        ZONES.write().insert("Test/Place".to_owned(), Arc::new(zone));
        for (time, hour) in [("2026-01-01T12:00:00Z", 12), ("2026-07-01T12:00:00Z", 13)] {
            let source = format!("timestamp('{time}').getHours('Test/Place') == {hour}");
            let expression = Expression::compile(&source, PolicyPhase::HttpRequest).unwrap();
            assert_eq!(
                expression.is_true(&TestRequest, &mut EvalBudget::new()),
                Ok(true),
                "{time}"
            );
        }
    }

    /// Other policies would decide whether it is found.
    #[test]
    fn a_computed_name_is_not_found() {
        let zone = Zone::of_rule("A0B,59/0,300");
        ZONES.write().insert("Test/Computed".to_owned(), Arc::new(zone));
        let source = "timestamp('2026-01-01T12:00:00Z').getHours('Test/' + 'Computed') == 12";
        let expression = Expression::compile(source, PolicyPhase::HttpRequest).unwrap();
        let error = expression.is_true(&TestRequest, &mut EvalBudget::new()).unwrap_err();
        assert!(error.to_string().contains("a written name"), "{error}");
    }

    #[test]
    fn names_stay_in_the_directory() {
        for good in ["Europe/Paris", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "EST5EDT"] {
            assert!(is_name(good), "{good}");
        }
        let long = "A".repeat(MAX_NAME_BYTES + 1);
        for bad in ["", "../etc/passwd", "Europe/../Paris", "/etc/passwd", "Europe//Paris", &long] {
            assert!(!is_name(bad), "{bad}");
            assert!(load(bad).is_err_and(|reason| reason.contains("+02:00")));
        }
    }
}
