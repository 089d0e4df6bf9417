//! Programs in the environment of a user: in a home of the test, without settings of this
//! machine, and their output.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::TempDir;

/// The program under test.
pub const CULVERT: &str = env!("CARGO_BIN_EXE_culvert");

/// A secret in every program's environment and in files of tests. It must not be in any output.
pub const SECRET: &str = "2hushhushHUSHhush";

/// An empty home. It is removed with its handle.
pub struct Home(TempDir);

impl Home {
    pub fn new() -> Self {
        Home(TempDir::new())
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.write(name, text);
        // `config check` warns of a credential that every user may read.
        if name.ends_with(".yml") {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        path.display().to_string()
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Returns the names in a directory, sorted.
    pub fn names(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(dir)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.dir()).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("NGROK_AUTHTOKEN", SECRET).current_dir(self.dir()).stdin(Stdio::null());
        command
    }

    /// Runs `culvert` with the words of `line`.
    #[track_caller]
    pub fn run(&self, line: &str) -> Outcome {
        self.run_with(line, &[])
    }

    /// Runs `culvert` with further variables.
    #[track_caller]
    pub fn run_with(&self, line: &str, variables: &[(&str, &str)]) -> Outcome {
        let mut command = self.command(CULVERT);
        command.args(line.split_whitespace()).envs(variables.iter().copied());
        Outcome::of(command)
    }
}

/// Returns standard error without the count of a build for `make bench`.
fn said(stderr: &[u8]) -> String {
    let text = std::str::from_utf8(stderr).unwrap();
    text.split_inclusive('\n').filter(|line| !line.starts_with("heap allocations: ")).collect()
}

/// Exit and output of a program.
#[derive(Debug)]
pub struct Outcome {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Outcome {
    #[track_caller]
    pub fn of(mut command: Command) -> Outcome {
        let output = command.output().unwrap();
        let outcome = Outcome {
            status: output.status.code().expect("an exit status and no signal"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: said(&output.stderr),
        };
        assert!(!format!("{outcome:?}").contains(SECRET), "{outcome:?}");
        assert!(!outcome.err.contains("panicked"), "{outcome:?}");
        outcome
    }

    #[track_caller]
    pub fn fine(self) -> String {
        assert_eq!((self.status, self.err.as_str()), (0, ""), "{self:?}");
        self.out
    }

    /// Returns standard error of a failed program, including that of its children.
    #[track_caller]
    pub fn failed(self, status: i32) -> String {
        assert_eq!(self.status, status, "{self:?}");
        self.err
    }

    /// Returns standard error without the prefix of each line. Nothing else was printed.
    #[track_caller]
    pub fn refused(self, status: i32) -> String {
        assert_eq!((self.status, self.out.as_str()), (status, ""), "{self:?}");
        let lines = self.err.lines().map(|line| {
            line.strip_prefix("ERROR:  ").unwrap_or_else(|| panic!("no prefix: {line:?}"))
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}
