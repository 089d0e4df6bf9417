//! Starts another program, without input, and waits for its end. Time limits do not belong here.
//!
//! `std::process::Command` would add 11 KB of code, most of it for options.

use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::ptr;

unsafe extern "C" {
    /// The environment of this process.
    static environ: *const *mut c_char;
}

/// Destination of what a program prints.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ChildOutput {
    /// That of this process, also for errors.
    Inherited,
    /// Nothing.
    Discarded,
    /// A pipe to this process; errors are discarded.
    Piped,
}

/// A program to start.
pub struct ChildProgram<'a> {
    /// Its path, or its name for a search in `PATH`; then its arguments.
    pub words: &'a [&'a OsStr],
    /// Its environment as `NAME=value`; `None`: that of this process.
    pub environment: Option<&'a [&'a OsStr]>,
    /// Its working directory; `None`: that of this process.
    pub directory: Option<&'a CStr>,
    /// Destination of its output.
    pub output: ChildOutput,
    /// Whether it leads a group of processes of its own.
    pub own_group: bool,
}

/// A program that was started. The caller waits for its end, otherwise it stays as a zombie.
pub struct ChildProcess {
    id: libc::pid_t,
    status: Option<ExitStatus>,
    /// Its output, if it is piped.
    pub output: Option<File>,
}

impl<'a> ChildProgram<'a> {
    /// Returns a program with the environment and the directory of this process.
    pub fn new(words: &'a [&'a OsStr], output: ChildOutput) -> Self {
        ChildProgram { words, environment: None, directory: None, output, own_group: false }
    }

    /// Starts it.
    pub fn start(&self) -> io::Result<ChildProcess> {
        let words = CStrings::new(self.words)?;
        let environment = self.environment.map(CStrings::new).transpose()?;
        let mut options = SpawnOptions::new()?;
        let null = |fd: c_int| (fd, c"/dev/null", libc::O_RDWR);
        options.open(null(0))?;
        let mut pipe = None;
        match self.output {
            ChildOutput::Inherited => {}
            ChildOutput::Discarded => options.open(null(1))?,
            ChildOutput::Piped => {
                let (output, end) = io::pipe()?;
                options.duplicate(end.as_raw_fd(), 1)?;
                pipe = Some((File::from(OwnedFd::from(output)), end));
            }
        }
        if self.output != ChildOutput::Inherited {
            options.open(null(2))?;
        }
        if let Some(directory) = self.directory {
            options.enter(directory)?;
        }
        options.set_attributes(self.own_group)?;
        let mut id = 0;
        // SAFETY: `environ` is a list that ends with a null pointer; this program does not
        // change it.
        let environment = environment.as_ref().map_or(unsafe { environ }, CStrings::pointers);
        // SAFETY: all pointers are to live values; both lists end with a null pointer.
        done(unsafe {
            libc::posix_spawnp(
                &mut id,
                words.pointers().read(),
                &options.actions,
                &options.attributes,
                words.pointers(),
                environment,
            )
        })?;
        Ok(ChildProcess { id, status: None, output: pipe.map(|(output, _)| output) })
    }
}

impl ChildProcess {
    /// Returns its status if it has ended.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.wait_with(libc::WNOHANG)?;
        Ok(self.status)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.wait_with(0)?;
        Ok(self.status.unwrap_or_default())
    }

    fn wait_with(&mut self, options: c_int) -> io::Result<()> {
        while self.status.is_none() {
            let mut status = 0;
            // SAFETY: the status is a live value.
            match unsafe { libc::waitpid(self.id, &mut status, options) } {
                0 => break,
                id if id == self.id => self.status = Some(ExitStatus::from_raw(status)),
                _ => match io::Error::last_os_error() {
                    e if e.kind() == io::ErrorKind::Interrupted => {}
                    e => return Err(e),
                },
            }
        }
        Ok(())
    }

    /// Reads its output, as far as it is text, and waits for its end.
    pub fn output(&mut self) -> io::Result<(String, ExitStatus)> {
        let mut bytes = Vec::new();
        if let Some(mut output) = self.output.take() {
            output.read_to_end(&mut bytes)?;
        }
        Ok((String::from_utf8_lossy(&bytes).into_owned(), self.wait()?))
    }

    /// Kills it, unless its status was read.
    pub fn kill(&self) {
        if self.status.is_none() {
            // SAFETY: plain numbers. The process was not reaped, so the number is its own.
            unsafe { libc::kill(self.id, libc::SIGKILL) };
        }
    }

    /// Kills it and its group, which must be of its own, unless its status was read.
    pub fn kill_group(&self) {
        if self.status.is_none() {
            // SAFETY: plain numbers. The process was not reaped, so the number is its own.
            unsafe { libc::kill(-self.id, libc::SIGKILL) };
        }
    }
}

/// Strings and the list of their addresses, which ends with a null pointer.
pub(super) struct CStrings {
    _strings: Vec<CString>,
    pointers: Vec<*mut c_char>,
}

impl CStrings {
    pub(super) fn new(texts: &[&OsStr]) -> io::Result<CStrings> {
        let mut strings = Vec::new();
        let mut pointers = Vec::new();
        for text in texts {
            let string = CString::new(text.as_bytes())?;
            pointers.push(string.as_ptr().cast_mut());
            strings.push(string);
        }
        pointers.push(ptr::null_mut());
        Ok(CStrings { _strings: strings, pointers })
    }

    pub(super) fn pointers(&self) -> *const *mut c_char {
        self.pointers.as_ptr()
    }
}

/// Options of `posix_spawn`.
struct SpawnOptions {
    actions: libc::posix_spawn_file_actions_t,
    attributes: libc::posix_spawnattr_t,
}

impl SpawnOptions {
    fn new() -> io::Result<SpawnOptions> {
        let mut actions = MaybeUninit::uninit();
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the two calls initialize the values; on Linux they fail only before that.
        unsafe {
            done(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
            done(libc::posix_spawnattr_init(attributes.as_mut_ptr()))?;
            Ok(SpawnOptions {
                actions: actions.assume_init(),
                attributes: attributes.assume_init(),
            })
        }
    }

    /// Opens a file as a descriptor of the program.
    fn open(&mut self, (fd, path, flags): (c_int, &CStr, c_int)) -> io::Result<()> {
        // SAFETY: the path is copied.
        done(unsafe {
            libc::posix_spawn_file_actions_addopen(&mut self.actions, fd, path.as_ptr(), flags, 0)
        })
    }

    /// Makes a descriptor of this process another one of the program.
    fn duplicate(&mut self, from: c_int, to: c_int) -> io::Result<()> {
        // SAFETY: plain numbers.
        done(unsafe { libc::posix_spawn_file_actions_adddup2(&mut self.actions, from, to) })
    }

    fn enter(&mut self, directory: &CStr) -> io::Result<()> {
        // SAFETY: the path is copied.
        done(unsafe {
            libc::posix_spawn_file_actions_addchdir_np(&mut self.actions, directory.as_ptr())
        })
    }

    /// Sets the signals to those of a program that a shell starts.
    fn set_attributes(&mut self, own_group: bool) -> io::Result<()> {
        let group = if own_group { libc::POSIX_SPAWN_SETPGROUP } else { 0 };
        let flags = libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK | group;
        let mut signals = MaybeUninit::uninit();
        // SAFETY: the set is initialized before it is used; the attributes copy it.
        unsafe {
            libc::sigemptyset(signals.as_mut_ptr());
            done(libc::posix_spawnattr_setsigmask(&mut self.attributes, signals.as_ptr()))?;
            // The standard library ignores it in this process.
            libc::sigaddset(signals.as_mut_ptr(), libc::SIGPIPE);
            done(libc::posix_spawnattr_setsigdefault(&mut self.attributes, signals.as_ptr()))?;
            done(libc::posix_spawnattr_setflags(&mut self.attributes, flags as libc::c_short))
        }
    }
}

impl Drop for SpawnOptions {
    fn drop(&mut self) {
        // SAFETY: both are initialized and not used again.
        unsafe {
            libc::posix_spawn_file_actions_destroy(&mut self.actions);
            libc::posix_spawnattr_destroy(&mut self.attributes);
        }
    }
}

/// These functions return an error number.
fn done(error: c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program<'a>(words: &'a [&'a OsStr]) -> ChildProgram<'a> {
        ChildProgram::new(words, ChildOutput::Piped)
    }

    fn output(program: &ChildProgram<'_>) -> (String, ExitStatus) {
        let mut child = program.start().unwrap();
        let (text, status) = child.output().unwrap();
        assert_eq!(child.try_wait().unwrap(), Some(status));
        (text, status)
    }

    #[test]
    fn a_program_gets_its_words_environment_and_directory() {
        let words = ["sh", "-c", "cat; pwd; echo $1 $A ${HOME-unset}; exit 3", "sh", "b c"];
        let words = words.map(OsStr::new);
        let environment = [OsStr::new("A=1")];
        let program = ChildProgram {
            environment: Some(&environment),
            directory: Some(c"/"),
            ..program(&words)
        };
        let (text, status) = output(&program);
        assert_eq!((text.as_str(), status.code()), ("/\nb c 1 unset\n", Some(3)));
    }

    #[test]
    fn signals_of_this_process_do_not_reach_the_program() {
        let words = ["sh", "-c", "kill -PIPE $$; echo ignored"].map(OsStr::new);
        let (text, status) = output(&program(&words));
        assert_eq!((text.as_str(), status.signal()), ("", Some(libc::SIGPIPE)));
    }

    #[test]
    fn a_group_of_its_own_has_its_number() {
        let words = ["sh", "-c", "echo $$; cut -d ' ' -f 5 /proc/$$/stat"].map(OsStr::new);
        let (text, _) = output(&ChildProgram { own_group: true, ..program(&words) });
        let numbers: Vec<&str> = text.lines().collect();
        assert_eq!(numbers.len(), 2, "{text}");
        assert_eq!(numbers[0], numbers[1]);
    }

    #[test]
    fn a_program_that_cannot_be_started_is_an_error() {
        let kind = |word: &str| program(&[OsStr::new(word)]).start().err().map(|e| e.kind());
        assert_eq!(kind("/nonexistent/x"), Some(io::ErrorKind::NotFound));
        assert_eq!(kind("a\0b"), Some(io::ErrorKind::InvalidInput));
        let words = ["sleep", "1000"].map(OsStr::new);
        let mut child = program(&words).start().unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}
