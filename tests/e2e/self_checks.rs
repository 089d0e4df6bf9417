//! The instruments of the tests: each must detect what it is for.

use std::net::{TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, id};
use std::sync::{Arc, Barrier};
use std::thread;

use crate::support::process::{Process, plant_secret};
use crate::support::upstream::Upstream;
use crate::support::wire::Wire;
use crate::support::{is_reset, proc, wait_for};

fn shell(script: &str) -> Process {
    Process::start("sh", Command::new("sh").args(["-c", script]))
}

#[test]
fn a_panic_in_a_child_fails_its_test() {
    let child = AssertUnwindSafe(shell("echo \"thread 'x' panicked at src/x.rs:1:1\" >&2"));
    child.wait_stderr("panicked");
    assert!(catch_unwind(move || drop(child.0)).is_err());
}

#[test]
fn a_secret_in_the_output_of_a_child_fails_its_test() {
    plant_secret("planted-for-the-detector");
    for script in
        ["echo planted-for-the-detector; echo end >&2", "echo planted-for-the-detector >&2"]
    {
        let mut child = AssertUnwindSafe(shell(script));
        child.wait_exit();
        assert!(catch_unwind(move || drop(child.0)).is_err(), "{script}");
    }
}

#[test]
fn a_child_dies_with_its_handle_and_so_do_its_own() {
    let child = shell("sleep 1000 & echo $!; sleep 1000");
    let other = child.wait_stdout("a number", |line| line.parse().ok());
    let pids = [child.pid(), other];
    assert!(pids.iter().all(|pid| proc::lives(*pid)));
    drop(child);
    wait_for("the processes to be gone", || !pids.iter().any(|pid| proc::lives(*pid)));
}

#[test]
fn sockets_in_close_wait_are_counted() {
    const CLOSE_WAIT: u8 = 8;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = proc::sockets(id(), CLOSE_WAIT);
    let forgotten: Vec<_> = (0..5)
        .map(|_| {
            let left = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let kept = listener.accept().unwrap().0;
            drop(left);
            kept
        })
        .collect();
    wait_for("the sockets to be seen", || proc::sockets(id(), CLOSE_WAIT) >= here.max(5));
    drop(forgotten);
}

#[test]
fn descriptors_threads_and_memory_are_counted() {
    let child = shell("exec 5</dev/null 6</dev/null 7</dev/null; echo up; exec sleep 1000");
    child.wait_stdout("up", |line| (line == "up").then_some(()));
    // The shell executes another program in the meantime.
    wait_for("its files to be seen", || proc::fds(child.pid()) >= 6);
    wait_for("its memory to be seen", || proc::rss(child.pid()) > 100);
    const MANY: usize = 50;
    let all_there = Arc::new(Barrier::new(MANY + 1));
    let threads: Vec<_> = (0..MANY)
        .map(|_| {
            let all_there = all_there.clone();
            thread::spawn(move || all_there.wait())
        })
        .collect();
    wait_for("the threads to be seen", || proc::threads(id()) > MANY as u64);
    all_there.wait();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_reset_is_told_from_an_end() {
    let resets = Upstream::tcp(|mut wire| {
        let _ = wire.read_exact(1);
        wire.reset();
    });
    let ends = Upstream::tcp(|mut wire| {
        let _ = wire.read_exact(1);
    });
    let mut wire = Wire::connect(resets.addr).unwrap();
    wire.write("x").unwrap();
    assert!(wire.read_rest().is_err_and(|error| is_reset(&error)));
    let mut wire = Wire::connect(ends.addr).unwrap();
    wire.write("x").unwrap();
    assert_eq!(wire.read_rest().unwrap(), b"");
}

#[test]
fn a_condition_that_never_holds_is_not_waited_for_without_end() {
    let slept = catch_unwind(|| {
        crate::support::until_within(std::time::Duration::ZERO, "never", || None::<()>);
    });
    assert!(slept.is_err());
}
