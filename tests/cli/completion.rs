//! Completion in the real shells, on a terminal (made by `script`): keys are typed, and the
//! shell's output is checked.

use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::support::home::{CULVERT, Home};
use crate::support::program;

/// Time for an action of a shell.
const PATIENCE: Duration = Duration::from_secs(60);

/// End of each prompt.
const PROMPT: &str = "ready>";

/// A home with `culvert` on its `PATH`, and a configuration.
struct ShellHome(Home);

impl ShellHome {
    fn new() -> Self {
        let home = Home::new();
        fs::create_dir(home.path("bin")).unwrap();
        symlink(CULVERT, home.path("bin/culvert")).unwrap();
        let config = "version: 3\nendpoints:\n  - {name: website, upstream: 80}\n  \
                      - {name: ssh, url: \"tcp://\", upstream: 22}\n";
        home.file(".config/ngrok/ngrok.yml", config);
        home.file("policy-of-mine.yml", "");
        ShellHome(home)
    }

    fn command(&self, program: &Path) -> Command {
        let path = env::var("PATH").unwrap_or_default();
        let mut command = self.0.command(program);
        command.env("PATH", format!("{}:{path}", self.0.path("bin").display()));
        command.env("TERM", "dumb").env("PS1", PROMPT).env("LC_ALL", "C.UTF-8");
        command
    }
}

/// A shell on a terminal.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Arc<(Mutex<String>, Condvar)>,
    seen: usize,
    _home: ShellHome,
}

impl Terminal {
    fn start(shell: &str) -> Option<Self> {
        let (script, _) = (program("script")?, program(shell.split(' ').next()?)?);
        let home = ShellHome::new();
        let mut command = home.command(&script);
        command.args(["-qec", shell, "/dev/null"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let screen = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let (shared, mut output) = (Arc::clone(&screen), child.stdout.take().unwrap());
        thread::spawn(move || {
            let mut buf = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut buf) {
                shared.0.lock().unwrap().push_str(&String::from_utf8_lossy(&buf[..n]));
                shared.1.notify_all();
            }
        });
        let keys = child.stdin.take().unwrap();
        Some(Terminal { child, keys, screen, seen: 0, _home: home })
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Waits until this text is displayed, after the last one that was waited for.
    #[track_caller]
    fn wait(&mut self, text: &str) -> String {
        let start = Instant::now();
        let mut screen = self.screen.0.lock().unwrap();
        loop {
            let new = &screen[self.seen..];
            if let Some(at) = new.find(text) {
                let before = new[..at].to_owned();
                self.seen += at + text.len();
                return before;
            }
            let left = PATIENCE.saturating_sub(start.elapsed());
            assert!(!left.is_zero(), "{text:?} is not on the screen: {new:?}");
            screen = self.screen.1.wait_timeout(screen, left).unwrap().0;
        }
    }

    /// Types a line with tabs in it. Returns the resulting line, which the shell prints.
    #[track_caller]
    fn line(&mut self, keys: &str) -> String {
        self.press(keys);
        // To the start of the line, with another command in front.
        self.press("\x01echo '<''<' \r");
        self.wait("<< ");
        let said = self.wait("\n");
        self.wait(PROMPT);
        said.trim().to_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Typed keys, and the resulting line.
const LINES: &[(&str, &str)] = &[
    ("culvert ver\t", "culvert version"),
    ("culvert http --log-le\tdeb\t", "culvert http --log-level debug"),
    ("culvert http 80 --log-format=j\t", "culvert http 80 --log-format=json"),
    ("culvert start --al\t", "culvert start --all"),
    ("culvert start web\t", "culvert start website"),
    ("culvert start ssh we\t", "culvert start ssh website"),
    ("culvert config add-au\t", "culvert config add-authtoken"),
    ("culvert tls --terminate-at ag\t", "culvert tls --terminate-at agent"),
    (
        "culvert http --traffic-policy-f\tpol\t",
        "culvert http --traffic-policy-file policy-of-mine.yml",
    ),
    ("culvert completion fi\t", "culvert completion fish"),
];

#[track_caller]
fn check(shell: &str, setup: &str) {
    let Some(mut terminal) = Terminal::start(shell) else { return };
    terminal.wait(PROMPT);
    terminal.press(&format!("{setup}\r"));
    terminal.wait("set up\r");
    terminal.wait(PROMPT);
    for (keys, expected) in LINES {
        assert_eq!(terminal.line(keys), *expected, "{keys:?}");
    }
}

#[test]
fn bash_completes() {
    check(
        "bash --norc --noprofile -i",
        "bind 'set bell-style none'; source <(culvert completion bash); echo set 'up'",
    );
}

#[test]
fn zsh_completes() {
    check("zsh -f -i", "unsetopt beep; source <(culvert completion zsh); echo set 'up'");
}

#[test]
fn fish_completes() {
    let (Some(fish), home) = (program("fish"), ShellHome::new()) else { return };
    for (keys, expected) in LINES {
        let Some((line, "")) = keys.split_once('\t') else { continue };
        let script = format!("culvert completion fish | source; complete -C '{line}'");
        let output = home.command(&fish).args(["--no-config", "-c", &script]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let words: Vec<&str> = said.lines().filter_map(|l| l.split('\t').next()).collect();
        let expected = expected.rsplit(' ').next().unwrap();
        assert_eq!(words, [expected], "{line}: {said}{}", String::from_utf8_lossy(&output.stderr));
    }
    let script = "culvert completion fish | source; complete -C 'culvert http --crt='";
    let output = home.command(&fish).args(["--no-config", "-c", script]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let script = "culvert completion fish | source; complete -C 'culvert tls --crt pol'";
    let output = home.command(&fish).args(["--no-config", "-c", script]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("policy-of-mine.yml"), "{said}");
}

/// The shell is that of `$SHELL` unless named. An invalid configuration is ignored.
#[test]
fn the_script_is_for_the_shell_of_the_environment() {
    let home = ShellHome::new();
    let run = |args: &[&str], shell: &str| {
        let mut command = home.command(Path::new(CULVERT));
        command.args(args).env("SHELL", shell);
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    for (shell, sign) in [
        ("/bin/bash", "complete -F _culvert_complete culvert"),
        ("/usr/bin/zsh", "compdef _culvert_complete culvert"),
        ("fish", "complete -c culvert"),
    ] {
        let (status, out, _) = run(&["completion"], shell);
        assert!(status == Some(0) && out.contains(sign), "{shell}: {out}");
    }
    let (status, _, err) = run(&["completion"], "/bin/tcsh");
    assert!(status == Some(2) && err.contains("no shell: $SHELL is another shell"), "{err}");
    home.0.file(".config/ngrok/ngrok.yml", "version: [");
    let (status, out, err) = run(&["__complete", "fish", "start", ""], "fish");
    // A build for `make bench` prints its allocations.
    let err: Vec<&str> = err.lines().filter(|l| !l.starts_with("heap allocations")).collect();
    assert_eq!((status, out.as_str(), err.len()), (Some(0), "", 0));
}
