//! A terminal for the agent, made and read with tmux. Each terminal has a server, which ends
//! with its handle, together with all programs in it.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{TempDir, announce_failures, program, until};

/// A terminal with a shell in it.
pub struct Screen {
    tmux: PathBuf,
    dir: TempDir,
}

impl Screen {
    /// Starts a terminal of this size. `None`, and a line with the reason, without tmux.
    pub fn start(width: usize, height: usize) -> Option<Self> {
        announce_failures();
        let screen = Screen { tmux: program("tmux")?, dir: TempDir::new() };
        let (width, height) = (width.to_string(), height.to_string());
        // Without settings of the machine's user, and with a prompt to wait for.
        let shell = "PS1='ready> ' HOME=/nonexistent TERM=screen sh";
        screen.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &width, "-y", &height, shell]);
        screen.tmux(&["set-option", "-g", "remain-on-exit", "on"]);
        screen.wait("ready>");
        Some(screen)
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut command = Command::new(&self.tmux);
        command.arg("-S").arg(self.dir.join("socket")).args(args);
        command.env_remove("TMUX").env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        let output = command.output().expect("tmux runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Types a line at the prompt and, once it is displayed, Enter: a prompt after that is the
    /// next one. (The kernel displays typed characters with a delay, which on a busy machine is
    /// longer than the interval of checks.)
    #[track_caller]
    pub fn type_line(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        // Lines that were too long for the terminal are joined, with their final spaces.
        self.wait_in(&["capture-pane", "-p", "-J"], line, |text| {
            text.trim_end().ends_with(line.trim_end())
        });
        self.press("Enter");
    }

    /// Presses a key by tmux's name for it: `C-c`.
    pub fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    pub fn resize(&self, width: usize, height: usize) {
        self.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// Returns the displayed text.
    pub fn text(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Returns the displayed text with its colours as sequences.
    pub fn coloured(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Returns whether a program shows the alternate screen, and whether there is a cursor.
    pub fn modes(&self) -> (bool, bool) {
        let modes = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        (modes.starts_with('1'), modes.trim_end().ends_with('1'))
    }

    /// Waits until this text is displayed.
    #[track_caller]
    pub fn wait(&self, text: &str) -> String {
        self.wait_until(text, |screen| screen.contains(text))
    }

    /// Waits for the next prompt of the shell.
    #[track_caller]
    pub fn wait_for_the_prompt(&self) {
        self.wait_until("a prompt", |text| text.trim_end().ends_with("\nready>"));
    }

    /// Waits until the displayed text meets a condition.
    #[track_caller]
    pub fn wait_until(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        self.wait_in(&["capture-pane", "-p"], what, holds)
    }

    #[track_caller]
    fn wait_in(&self, look: &[&str], what: &str, holds: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let mut ask = || {
            last = self.tmux(look);
            holds(&last).then(|| last.clone())
        };
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| until(what, &mut ask)));
        result.unwrap_or_else(|_| panic!("not seen: {what}\n{last}"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}
