//! An update feed on loopback: signed files that a test publishes, and the requests for them.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::TempDir;
use super::program_file;
use super::upstream::Upstream;

/// A key pair in the format of signify and usign.
pub struct FeedKey {
    pair: Ed25519KeyPair,
    number: [u8; 8],
}

impl FeedKey {
    /// Returns the key of a number.
    pub fn new(number: u8) -> Self {
        FeedKey {
            pair: Ed25519KeyPair::from_seed_unchecked(&[number; 32]).unwrap(),
            number: [number; 8],
        }
    }

    fn encoded(&self, rest: &[u8]) -> String {
        let bytes: Vec<u8> = b"Ed".iter().chain(&self.number).chain(rest).copied().collect();
        culvert::proto::base64::encode(&bytes)
    }

    /// Returns the public key as in the configuration.
    pub fn public(&self) -> String {
        self.encoded(self.pair.public_key().as_ref())
    }

    /// Returns the signature file of a text.
    pub fn sign(&self, text: &str) -> String {
        let signature = self.encoded(self.pair.sign(text.as_bytes()).as_ref());
        format!("untrusted comment: of a test\n{signature}\n")
    }
}

/// A web server with files that can change.
pub struct FeedServer {
    server: Upstream,
    files: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    requested: Arc<Mutex<Vec<String>>>,
}

impl FeedServer {
    pub fn start() -> Self {
        let files: Arc<Mutex<HashMap<String, Vec<u8>>>> = Arc::default();
        let requested: Arc<Mutex<Vec<String>>> = Arc::default();
        let (served, seen) = (files.clone(), requested.clone());
        let server = Upstream::http(move |request, wire| {
            seen.lock().unwrap().push(request.target().to_owned());
            let file = served.lock().unwrap().get(request.target()).cloned();
            match file {
                Some(bytes) => wire.respond("200 OK", "", &bytes),
                None => wire.respond("404 Not Found", "", b"no file"),
            }
        });
        FeedServer { server, files, requested }
    }

    /// Returns the base URL.
    pub fn url(&self) -> String {
        format!("http://{}/feed", self.server.addr)
    }

    /// Returns `update_url` and `update_key` as lines of a configuration.
    pub fn lines(&self, key: &FeedKey) -> String {
        format!("  update_url: {}\n  update_key: {}\n", self.url(), key.public())
    }

    pub fn put(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = format!("/feed/{path}");
        self.files.lock().unwrap().insert(path, bytes.as_ref().to_vec());
    }

    /// Publishes a program and its signed manifest in the channel `stable`.
    pub fn publish(&self, key: &FeedKey, manifest: &str, program: &str) {
        self.put("stable/new", program);
        self.put("stable/manifest", manifest);
        self.put("stable/manifest.sig", key.sign(manifest));
    }

    /// Returns the paths that were requested, in order.
    pub fn requested(&self) -> Vec<String> {
        self.requested.lock().unwrap().clone()
    }
}

/// Returns a program that prints a version. With other arguments it writes them to `started`
/// beside itself.
pub fn program(version: &str) -> String {
    format!(
        "#!/bin/sh\ncase $1 in version) echo culvert version {version};; *) cd \"${{0%/*}}\" && \
         echo \"{version} $*\" > started.new && mv started.new started;; esac\n"
    )
}

/// Returns a manifest for a program of this machine.
pub fn manifest(serial: u32, version: &str, program: &str) -> String {
    let hex: String =
        digest(&SHA256, program.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!(
        "culvert-update 1\nchannel stable\nserial {serial}\nversion {version}\ndate \
         2026-11-01T00:00:00Z\nfile {} {} {hex} new\n",
        culvert::sys::target(),
        program.len(),
    )
}

/// A copy of the program under test, in a directory of its own.
pub struct InstalledProgram {
    dir: TempDir,
}

impl InstalledProgram {
    pub fn new() -> Self {
        let dir = TempDir::new();
        fs::create_dir(dir.join("bin")).unwrap();
        program_file::copy(env!("CARGO_BIN_EXE_culvert"), dir.join("bin/culvert"));
        InstalledProgram { dir }
    }

    pub fn dir(&self) -> &TempDir {
        &self.dir
    }

    pub fn path(&self) -> PathBuf {
        self.dir.join("bin/culvert")
    }

    /// Writes a file beside the program.
    pub fn beside(&self, name: &str, text: &str, mode: u32) {
        let path = self.dir.write(&format!("bin/{name}"), text);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Writes a program beside the program.
    pub fn program_beside(&self, name: &str, text: &str) {
        program_file::write(self.dir.join("bin").join(name), text);
    }

    /// Reads a file beside the program.
    pub fn read(&self, name: &str) -> Option<String> {
        fs::read(self.dir.join("bin").join(name))
            .ok()
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns the names in its directory.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.join("bin")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Returns whether the program is the one that was copied.
    pub fn is_original(&self) -> bool {
        fs::read(self.path()).unwrap() == fs::read(env!("CARGO_BIN_EXE_culvert")).unwrap()
    }

    /// Returns `culvert update` with a configuration of these lines below `agent:`.
    pub fn update(&self, lines: &str, args: &[&str]) -> Command {
        let config = self.dir.write("update.yml", format!("version: 3\nagent:\n{lines}"));
        let mut command = Command::new(self.path());
        command.arg("update").arg("--config").arg(config).args(args);
        command.env("HOME", "/nonexistent").env_remove("XDG_CONFIG_HOME");
        command.env("XDG_CACHE_HOME", self.dir.join("cache"));
        command.stdin(std::process::Stdio::null());
        command
    }
}

/// Returns exit code, standard output and standard error of a command, without the count of
/// a build for `make bench`.
#[track_caller]
pub fn run(mut command: Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let error = text(output.stderr);
    let lines = error.split_inclusive('\n').filter(|line| !line.starts_with("heap allocations: "));
    (output.status.code().unwrap_or(-1), text(output.stdout), lines.collect())
}
