//! The first starts of a new program. Until its first session each start is counted. After too
//! many of them, or too long without a session although the edge is reached, the old program is
//! put back and executed.

use std::time::Duration;

use super::own_version;
use super::program::Program;
use super::record::{StartCheck, UpdateRecord};
use crate::event;
use crate::sys::{self, argv};
use crate::time::{Deadline, Instant};

/// Time for a session after the edge was reached over TLS.
const SESSION_TIMEOUT: Duration = Duration::from_secs(120);

/// What the record means for this start.
pub enum StartedProgram {
    /// The program is confirmed.
    Confirmed,
    /// The program is new.
    OnTrial(Trial),
    /// The program has failed too often. The old one was put back and has to be executed.
    RolledBack(ReplacedProgram),
}

/// The old program, in its place again.
pub struct ReplacedProgram {
    program: Program,
    /// Version that failed.
    pub failed: String,
    /// Version that was put back.
    pub version: String,
}

/// A new program until its first session.
pub struct Trial {
    program: Program,
    record: UpdateRecord,
    deadline: Deadline,
}

impl StartedProgram {
    /// Counts this start. Errors are not reported: a program whose record cannot be written
    /// counts as confirmed.
    pub fn check() -> StartedProgram {
        let found = Program::find().ok().zip(own_version().ok());
        let Some((program, version)) = found else { return StartedProgram::Confirmed };
        match program.record().start(&version) {
            StartCheck::Confirmed => StartedProgram::Confirmed,
            StartCheck::OnTrial(record) => {
                let written = program.lock().and_then(|lock| program.write_record(&lock, &record));
                match written {
                    Ok(()) => StartedProgram::OnTrial(Trial {
                        program,
                        record,
                        deadline: Deadline::Never,
                    }),
                    // Another user owns the directory.
                    Err(_) => StartedProgram::Confirmed,
                }
            }
            StartCheck::RollBack => match put_back(program) {
                Ok(replaced) => StartedProgram::RolledBack(replaced),
                Err(_) => StartedProgram::Confirmed,
            },
        }
    }
}

fn put_back(program: Program) -> Result<ReplacedProgram, String> {
    let lock = program.lock()?;
    let record = program.roll_back(&lock, true)?;
    Ok(ReplacedProgram { program, failed: record.from, version: record.to })
}

impl ReplacedProgram {
    /// Logs that it was put back, with the reason.
    pub fn log(&self, reason: &'static str) {
        event!(
            error,
            obj = "update",
            "new program failed, old one restored",
            version = self.version,
            name = self.failed,
            reason = reason
        );
    }

    /// Executes the old program with the arguments of this one. Returns only on failure.
    pub fn execute(&self) -> std::io::Error {
        sys::exec(self.program.path(), &argv::original())
    }
}

impl Trial {
    /// Records that the edge was reached over TLS.
    pub fn reached(&mut self, now: Instant) {
        self.deadline = self.deadline.min(Deadline::At(now + SESSION_TIMEOUT));
    }

    /// Returns the time at which [`Self::has_failed`] may become true.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Returns whether the program had no session for too long.
    pub fn has_failed(&self, now: Instant) -> bool {
        self.deadline.due(now)
    }

    /// Confirms the program, at its first session. Returns its version.
    pub fn confirm(self) -> Result<String, String> {
        let record = UpdateRecord { starts: None, ..self.record };
        let lock = self.program.lock()?;
        self.program.write_record(&lock, &record)?;
        Ok(record.to)
    }

    /// Puts the old program back. A restart of the agent executes it.
    pub fn roll_back(self) -> Result<ReplacedProgram, String> {
        put_back(self.program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_is_down_does_not_count() {
        let program = Program::find().unwrap();
        let record = UpdateRecord::default();
        let mut trial = Trial { program, record, deadline: Deadline::Never };
        assert!(!trial.has_failed(Instant::ZERO + Duration::from_secs(100_000)));
        let start = Instant::ZERO + Duration::from_secs(10);
        trial.reached(start);
        trial.reached(start + Duration::from_secs(100));
        assert_eq!(trial.deadline(), Deadline::At(start + SESSION_TIMEOUT));
        assert!(!trial.has_failed(start + Duration::from_secs(119)));
        assert!(trial.has_failed(start + Duration::from_secs(120)));
    }
}
