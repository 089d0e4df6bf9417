//! A child process whose output is stored line by line and can be waited for.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;
use std::{env, thread};

use super::upstream::nobody;
use super::{PATIENCE, announce_failures, until};

/// Texts that must not appear in the output of any child.
static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Adds a text that every child's output is searched for.
pub fn plant_secret(secret: &str) {
    assert!(secret.len() >= 8, "a short text would be found by chance");
    let mut secrets = SECRETS.lock().unwrap();
    if !secrets.iter().any(|s| s == secret) {
        secrets.push(secret.to_owned());
    }
}

/// Returns the secret that a text contains, if any.
pub fn leaked_secret(text: &str) -> Option<String> {
    SECRETS.lock().unwrap().iter().find(|secret| text.contains(secret.as_str())).cloned()
}

/// Lines of one output stream.
#[derive(Default)]
struct Lines {
    state: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Lines {
    fn collect(self: Arc<Self>, from: impl Read + Send + 'static) {
        thread::spawn(move || {
            let mut reader = BufReader::new(from);
            let mut line = Vec::new();
            loop {
                line.clear();
                let n = reader.read_until(b'\n', &mut line).unwrap_or(0);
                let mut state = self.state.lock().unwrap();
                if n == 0 {
                    state.1 = true;
                } else {
                    state.0.push(String::from_utf8_lossy(&line).trim_end().to_owned());
                }
                self.changed.notify_all();
                if n == 0 {
                    return;
                }
            }
        });
    }

    fn text(&self) -> String {
        self.state.lock().unwrap().0.join("\n")
    }

    /// Returns the result of `find` for the first matching line from `start` on.
    fn wait<T>(&self, start: usize, mut find: impl FnMut(&str) -> Option<T>) -> Option<(usize, T)> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = start;
        let mut state = self.state.lock().unwrap();
        loop {
            while seen < state.0.len() {
                let line = &state.0[seen];
                seen += 1;
                if let Some(found) = find(line) {
                    return Some((seen, found));
                }
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            if state.1 {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }
}

/// A running child. Killed, with its group, when dropped.
pub struct Process {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
    out: Arc<Lines>,
    err: Arc<Lines>,
}

impl Process {
    /// Starts a server with a port in its arguments: one that was free a moment ago, and
    /// another one if that is in use by then.
    #[track_caller]
    pub fn on_a_port(
        name: &str,
        mut command: impl FnMut(u16) -> Command,
        is_ready: impl Fn(&Process, u16) -> bool,
    ) -> (Self, u16) {
        until(&format!("{name} to start"), || {
            let port = nobody().port();
            let mut server = Process::start(name, &mut command(port));
            until(&format!("{name} to be ready or to end"), || {
                (is_ready(&server, port) || server.ended().is_some()).then_some(())
            });
            if server.ended().is_some() {
                eprintln!("{}", server.report());
                return None;
            }
            Some((server, port))
        })
    }

    /// Starts a command in a process group of its own, without input.
    pub fn start(name: &str, command: &mut Command) -> Self {
        announce_failures();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The configuration of the machine's user must not affect the tests.
        let given: Vec<_> = command.get_envs().map(|(key, _)| key.to_owned()).collect();
        for (key, _) in env::vars_os().filter(|(key, _)| !given.contains(key)) {
            let name = key.to_string_lossy().to_ascii_lowercase();
            if name.starts_with("ngrok_") || name.ends_with("_proxy") || name == "ssl_cert_file" {
                command.env_remove(key);
            }
        }
        let mut child = command
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name}: {command:?}: {e}"));
        let (out, err) = (Arc::new(Lines::default()), Arc::new(Lines::default()));
        out.clone().collect(child.stdout.take().unwrap());
        err.clone().collect(child.stderr.take().unwrap());
        Process { name: name.to_owned(), child, status: None, out, err }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&self) -> String {
        self.out.text()
    }

    pub fn stderr(&self) -> String {
        self.err.text()
    }

    /// Waits for a line of standard output.
    #[track_caller]
    pub fn wait_stdout<T>(&self, what: &str, find: impl FnMut(&str) -> Option<T>) -> T {
        match self.out.wait(0, find) {
            Some((_, found)) => found,
            None => panic!("{}: no line on stdout: {what}\n{}", self.name, self.report()),
        }
    }

    /// Waits for a line of standard error that contains a text.
    #[track_caller]
    pub fn wait_stderr(&self, text: &str) -> String {
        self.wait_stderr_from(0, text).1
    }

    /// Waits from a line number on. Returns the number of the next line too.
    #[track_caller]
    pub fn wait_stderr_from(&self, start: usize, text: &str) -> (usize, String) {
        match self.err.wait(start, |line| line.contains(text).then(|| line.to_owned())) {
            Some(found) => found,
            None => panic!("{}: no line on stderr with {text:?}\n{}", self.name, self.report()),
        }
    }

    /// Returns how many lines of standard error contain a text.
    pub fn count_stderr(&self, text: &str) -> usize {
        self.err.state.lock().unwrap().0.iter().filter(|line| line.contains(text)).count()
    }

    /// Returns the number of lines on standard error so far.
    pub fn stderr_lines(&self) -> usize {
        self.err.state.lock().unwrap().0.len()
    }

    /// Sends a signal by name: `TERM`, `INT`, `STOP`, `CONT`, `KILL`.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let kill = format!("kill -{name} {pid}");
        let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(status.success(), "{kill}");
    }

    /// Sends SIGUSR1 without another process.
    pub fn hurry(&self) {
        // SAFETY: no pointers; the child has not been waited for, so its number is its own.
        unsafe { libc::kill(self.pid().cast_signed(), libc::SIGUSR1) };
    }

    /// Kills it at once, with its group, and waits for its end.
    pub fn kill(&mut self) {
        if self.status.is_none() {
            // Before it is waited for: until then its number is not reused.
            let group = format!("kill -KILL -{}", self.pid());
            let _ = Command::new("sh").args(["-c", &group]).stderr(Stdio::null()).status();
            let _ = self.child.kill();
            self.status = self.child.wait().ok();
        }
    }

    /// Returns the exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap();
        }
        self.status
    }

    #[track_caller]
    pub fn assert_running(&mut self) {
        if let Some(status) = self.ended() {
            panic!("{} ended: {status}\n{}", self.name, self.report());
        }
    }

    /// Waits for the end. Returns the exit code.
    #[track_caller]
    pub fn wait_exit(&mut self) -> Option<i32> {
        let name = self.name.clone();
        let status = until(&format!("{name} ends"), || self.ended());
        // The rest of the output precedes the end of its pipes.
        for lines in [&self.out, &self.err] {
            lines.wait(0, |_| None::<()>);
        }
        status.code()
    }

    /// Returns the output for the message of a failure.
    pub fn report(&self) -> String {
        let tail = |text: String| {
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(40)..].join("\n  ")
        };
        format!(
            "--- {} (pid {}, {:?}) stdout:\n  {}\n--- {0} stderr:\n  {}",
            self.name,
            self.pid(),
            self.status,
            tail(self.stdout()),
            tail(self.stderr())
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("{}", self.report());
            return;
        }
        for text in [self.stdout(), self.stderr()] {
            if let Some(line) = text.lines().find(|l| l.contains("panicked at")) {
                panic!("{} panicked: {line}\n{}", self.name, self.report());
            }
            assert!(leaked_secret(&text).is_none(), "{} shows a secret\n{text}", self.name);
        }
    }
}
