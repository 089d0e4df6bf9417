//! The simulator: two sessions, their applications, the network between them and a clock, all
//! from one seed. It uses no socket, thread or sleep.
//!
//! A step is one action of one side, or an interval of time. After each step the model must
//! agree with both sessions. At the end all streams must have ended. A failure prints the
//! command that repeats it.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `CULVERT_SIM_SEED` | run this seed alone | |
//! | `CULVERT_SIM_SEEDS` | how many seeds | 256 |
//! | `CULVERT_SIM_STEPS` | steps a seed | 3,000 |

mod app;
mod dice;
mod pipe;
mod wire;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use dice::Trace;
use world::World;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// Runs one seed. Returns its world with all events.
fn run(seed: u64, steps: u64) -> World {
    let mut world = World::new(seed);
    let ran = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..steps {
            world.step();
        }
        world.drain();
    }));
    if let Err(panic) = ran {
        eprintln!(
            "seed {seed} failed at step {}; repeat it with\n  CULVERT_SIM_SEED={seed} \
             CULVERT_SIM_STEPS={steps} cargo test --lib mux::sim::seeds -- --nocapture",
            world.steps
        );
        resume_unwind(panic);
    }
    world
}

/// Runs all seeds of one parity. Two tests share the work on two cores.
fn run_seeds(parity: u64) {
    let steps = number("CULVERT_SIM_STEPS").unwrap_or(3_000);
    if let Some(seed) = number("CULVERT_SIM_SEED") {
        if seed % 2 == parity {
            println!("seed {seed}: trace {:#018x}", run(seed, steps).trace.0);
        }
        return;
    }
    let seeds = number("CULVERT_SIM_SEEDS").unwrap_or(256);
    let mut tally = [0; world::TALLY.len()];
    for seed in (0..seeds).filter(|seed| seed % 2 == parity) {
        for (sum, n) in tally.iter_mut().zip(run(seed, steps).tally) {
            *sum += n;
        }
    }
    // A simulation in which something never happens proves nothing about it.
    for (what, n) in world::TALLY.iter().zip(tally) {
        println!("{what}: {n}");
        assert!(n > 0 || seeds < 256, "{what}: never happened");
    }
}

#[test]
fn seeds_even() {
    run_seeds(0);
}

#[test]
fn seeds_odd() {
    run_seeds(1);
}

#[test]
fn a_seed_does_the_same_twice() {
    for seed in [1, 2, 77] {
        assert_eq!(run(seed, 1_000).trace, run(seed, 1_000).trace);
    }
    assert_ne!(run(1, 100).trace, run(2, 100).trace);
}

/// The same on every target, independent of pointer width and byte order. It changes with the
/// behaviour of the muxer or the simulator. Then replace it with the number in the failure,
/// after a check that the change was intended.
const TRACE: u64 = 0x8ba1_b152_af93_5372;

#[test]
fn all_targets_do_the_same() {
    let mut all = Trace::new();
    for seed in 1_000..1_016 {
        all.note(&[run(seed, 500).trace.0]);
    }
    assert_eq!(all.0, TRACE, "the trace is now {:#018x}", all.0);
}

/// The simulator must find every injected fault.
#[test]
#[cfg(feature = "fault-injection")]
fn injected_faults_are_found() {
    use super::fault_injection::{Bug, inject};
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        inject(Some(bug));
        let found = (0..1_000).find(|&seed| {
            catch_unwind(|| {
                let mut world = World::new(seed);
                for _ in 0..1_000 {
                    world.step();
                }
                world.drain();
            })
            .is_err()
        });
        inject(None);
        match found {
            Some(seed) => println!("{bug:?}: found by seed {seed}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
