//! Parts of the end-to-end tests: an edge, an agent, upstreams and visitors, all on loopback
//! and on ports that the kernel chooses.
//!
//! A test never sleeps for a guessed time: a condition is checked again until it holds or
//! [`PATIENCE`] is over. Every child process has its own process group and ends with its
//! handle.
#![allow(dead_code)] // Each test binary uses a part of the vocabulary.

pub mod home;
pub mod proc;
pub mod program_file;
pub mod programs;
pub mod skips;

// Parts of a tunnel. They use libraries of the feature.
#[cfg(feature = "edge")]
pub mod agent;
#[cfg(feature = "edge")]
pub mod api;
#[cfg(feature = "edge")]
pub mod certs;
#[cfg(feature = "edge")]
pub mod dns;
#[cfg(feature = "edge")]
pub mod edge;
#[cfg(feature = "edge")]
pub mod edge_rest;
#[cfg(all(feature = "edge", feature = "update"))]
pub mod feed;
#[cfg(feature = "edge")]
pub mod group;
#[cfg(feature = "edge")]
pub mod peer;
#[cfg(feature = "edge")]
pub mod process;
#[cfg(feature = "edge")]
pub mod provider;
#[cfg(feature = "edge")]
pub mod proxy;
#[cfg(feature = "edge")]
pub mod relay;
#[cfg(feature = "edge")]
pub mod rest;
#[cfg(feature = "edge")]
pub mod screen;
#[cfg(feature = "edge")]
pub mod serve;
#[cfg(feature = "edge")]
pub mod upstream;
#[cfg(feature = "edge")]
pub mod visitor;
#[cfg(feature = "edge")]
pub mod websocket;
#[cfg(feature = "edge")]
mod websocket_frame;
#[cfg(feature = "edge")]
pub mod wire;

use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

pub use skips::{program, skipped};

/// Time for anything before a test fails. It is generous, because only failures reach it and
/// the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Interval between two checks of a condition.
const LOOK: Duration = Duration::from_millis(5);

/// Calls `ask` until it returns `Some`, for at most [`PATIENCE`].
#[track_caller]
pub fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, ask)
}

/// Calls `ask` until it returns `Some`, for at most `patience`.
#[track_caller]
pub fn until_within<T>(patience: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < patience, "waited {patience:?} in vain: {what}");
        thread::sleep(LOOK);
    }
}

/// Waits until a condition holds.
#[track_caller]
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, || holds().then_some(()));
}

/// Makes a failing test print how to repeat it alone. Called by all parts of the world.
pub fn announce_failures() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            default(info);
            let thread = thread::current();
            let test = thread.name().filter(|name| name.contains("::"));
            // With one test thread the tests run on the main thread; nextest
            // names the test on the command line.
            let test = test.map(str::to_owned).or_else(|| env::args().find(|a| a.contains("::")));
            if let Some(test) = test {
                eprintln!(
                    "to repeat this test alone:\n  cargo test --all-features --test e2e -- \
                     --exact {test} --nocapture"
                );
            }
        }));
    });
}

/// A directory that is removed with its handle.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("culvert-e2e-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file into it and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Waits until every thread of a process sleeps and has used no CPU between several checks: its
/// work is done.
#[track_caller]
pub fn wait_idle(pid: u32) {
    let mut before = None;
    let mut quiet = 0;
    wait_for("the process to have nothing to do", || {
        let now = proc::schedule(pid);
        quiet = if before.as_ref() == Some(&now) { quiet + 1 } else { 0 };
        before = Some(now);
        quiet >= 300
    });
}

/// A byte stream that depends on the seed only and does not repeat early.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Self {
        Noise(seed.wrapping_mul(2).wrapping_add(1))
    }

    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            // splitmix64
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }

    pub fn bytes(seed: u64, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        Noise::new(seed).fill(&mut bytes);
        bytes
    }
}

/// SHA-256 of the bytes that pass.
pub struct Sum(ring::digest::Context, u64);

impl Sum {
    pub fn new() -> Self {
        Sum(ring::digest::Context::new(&ring::digest::SHA256), 0)
    }

    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
        self.1 += bytes.len() as u64;
    }

    /// Returns the number of bytes and their digest.
    pub fn finish(self) -> (u64, Vec<u8>) {
        (self.1, self.0.finish().as_ref().to_vec())
    }
}

/// Returns whether an error means that the other side reset the connection.
pub fn is_reset(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof)
}
