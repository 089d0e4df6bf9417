//! Runs another program for a short time and returns the begin of its output.

use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use crate::sys::child::{ChildProcess, ChildProgram};
use crate::sys::{self, poll};
use crate::time::Instant;

/// Most bytes of the output.
const MAX_OUTPUT_BYTES: usize = 4096;

/// Attempts to start a program that another thread's child still has open for writing.
const MAX_STARTS: u32 = 10;
const START_PAUSE: Duration = Duration::from_millis(50);

/// Interval of checks for the exit of a program that has closed its output.
const EXIT_PAUSE: Duration = Duration::from_millis(5);

/// Exit of a program and its standard output.
pub struct ChildResult {
    /// Whether its exit code was 0.
    pub succeeded: bool,
    /// Its output, at most 4,096 bytes.
    pub text: String,
}

/// Runs a program whose output is piped, at most for `time`.
pub fn run(program: &ChildProgram<'_>, time: Duration) -> io::Result<ChildResult> {
    let deadline = sys::clock() + time;
    let mut child = start(program)?;
    let output = read(&mut child, deadline);
    let ended = output.is_ok() && ends(&mut child, deadline);
    if !ended {
        child.kill();
    }
    let status = child.wait()?;
    let bytes = output?;
    if !ended {
        return Err(late());
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(ChildResult { succeeded: status.success(), text })
}

/// Waits for the end of a program that has closed its output. Returns false at the deadline.
fn ends(child: &mut ChildProcess, deadline: Instant) -> bool {
    while sys::clock() < deadline {
        if let Ok(Some(_)) = child.try_wait() {
            return true;
        }
        thread::sleep(EXIT_PAUSE);
    }
    false
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it does not end")
}

fn start(program: &ChildProgram<'_>) -> io::Result<ChildProcess> {
    let mut starts = 1;
    loop {
        match program.start() {
            // A child of another thread had inherited the descriptor and has not executed
            // its program yet.
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy && starts < MAX_STARTS => {
                starts += 1;
                thread::sleep(START_PAUSE);
            }
            other => return other,
        }
    }
}

/// Reads until the end of the output.
fn read(child: &mut ChildProcess, deadline: Instant) -> io::Result<Vec<u8>> {
    let Some(mut pipe) = child.output.take() else { return Ok(Vec::new()) };
    let mut bytes = Vec::new();
    let mut piece = [0; 512];
    loop {
        let left = deadline.since(sys::clock());
        if left.is_zero() {
            return Err(late());
        }
        if !poll::readable(&pipe, Some(left))? {
            continue;
        }
        match pipe.read(&mut piece)? {
            0 => return Ok(bytes),
            n if bytes.len() + n > MAX_OUTPUT_BYTES => {
                return Err(io::Error::other("its output is too long"));
            }
            n => bytes.extend_from_slice(piece.get(..n).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child::ChildOutput;
    use std::ffi::OsStr;

    fn run_words(words: &[&str], time: Duration) -> io::Result<ChildResult> {
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        run(&ChildProgram::new(&words, ChildOutput::Piped), time)
    }

    fn sh(script: &str, time: Duration) -> io::Result<ChildResult> {
        run_words(&["sh", "-c", script], time)
    }

    #[test]
    fn output_and_exit_are_returned() {
        let minute = Duration::from_secs(60);
        let output = sh("echo out; echo err >&2", minute).unwrap();
        assert_eq!((output.text.as_str(), output.succeeded), ("out\n", true));
        assert!(!sh("exit 3", minute).unwrap().succeeded);
        let long = sh("while :; do echo aaaaaaaaaaaaaaaaaaaaaaa; done", minute);
        assert!(long.err().unwrap().to_string().contains("too long"));
        assert!(run_words(&["/nonexistent/x"], minute).is_err());
    }

    #[test]
    fn a_program_without_an_end_is_killed() {
        for script in ["exec sleep 1000", "exec >&-; exec sleep 1000"] {
            let error = sh(script, Duration::from_millis(100)).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{script}");
        }
    }
}
