//! The seeded driver: generated and stored inputs, mutated, from one seed.
//!
//! | variable | meaning |
//! |---|---|
//! | `CULVERT_FUZZ_SEED` | another seed than 1 |
//! | `CULVERT_FUZZ_RUNS` | inputs a target |
//! | `CULVERT_FUZZ_INPUT` | hex: check this one input and nothing else |

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::Target;
use crate::input::Dice;

/// Returns the seed.
pub fn seed() -> u64 {
    number("CULVERT_FUZZ_SEED").unwrap_or(1)
}

/// Returns the number of inputs for `target`.
pub fn runs(target: Target) -> u32 {
    number("CULVERT_FUZZ_RUNS").map_or(target.runs, |n| n.try_into().expect("fits 32 bits"))
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// Runs every target, also after one that fails. Returns the names of those that failed.
pub fn run_all(targets: &[Target], mut run: impl FnMut(Target)) -> Vec<&'static str> {
    let fails = |target: &&Target| catch_unwind(AssertUnwindSafe(|| run(**target))).is_err();
    targets.iter().filter(fails).map(|target| target.name).collect()
}

/// Runs the corpus unchanged, then generated inputs until `go_on` returns false. Returns their
/// number.
///
/// # Panics
/// If a check panics, after printing how to repeat it.
pub fn run(target: Target, seed: u64, mut go_on: impl FnMut(u32) -> bool) -> u32 {
    if let Ok(text) = std::env::var("CULVERT_FUZZ_INPUT") {
        (target.check)(&unhex(&text));
        return 1;
    }
    let corpus = corpus(target.name);
    assert!(!corpus.is_empty(), "no corpus for {}", target.name);
    for input in &corpus {
        try_one(target, seed, 0, input);
    }
    let mut dice = Dice::new(seed);
    let mut done = 0;
    while go_on(done) {
        let mut input = match dice.below(3) {
            0 => corpus[dice.below(corpus.len())].clone(),
            _ => (target.generate)(&mut dice),
        };
        // One in four stays as it was made, which is usually valid.
        for _ in 0..dice.pick(&[0, 1, 2, 8]) {
            mutate(&mut input, &corpus, &mut dice);
        }
        input.truncate(1 << 16);
        try_one(target, seed, done, &input);
        done += 1;
    }
    done
}

fn try_one(target: Target, seed: u64, number: u32, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.check)(input))) {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!(
            "{} failed: seed {seed}, input {number}; repeat it with\n  CULVERT_FUZZ_INPUT={hex} \
             cargo test --manifest-path tests/fuzz/Cargo.toml {}",
            target.name, target.name
        );
        std::panic::resume_unwind(panic);
    }
}

/// Makes one small change.
fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], dice: &mut Dice) {
    let len = input.len();
    let at = dice.below(len + 1);
    let span = dice.below(len - at.min(len) + 1).min(dice.pick(&[1, 2, 4, 8, 64]));
    match dice.below(8) {
        0 if at < len => input[at] ^= 1 << dice.below(8),
        1 if at < len => {
            input[at] = dice.pick(&[0, 1, 2, 3, 4, 7, 8, 0x10, 0x12, 0x7F, 0x80, 0xFF])
        }
        2 => drop(input.drain(at..at + span)),
        3 => {
            let copy = input[at..at + span].to_vec();
            let to = dice.below(input.len() + 1);
            drop(input.splice(to..to, copy));
        }
        4 => {
            let new = dice.bytes(8);
            drop(input.splice(at..at, new));
        }
        5 => {
            let other = &corpus[dice.below(corpus.len())];
            let from = dice.below(other.len() + 1);
            let to = from + dice.below(other.len() - from + 1);
            drop(input.splice(at..at, other[from..to].to_vec()));
        }
        6 => input.truncate(at),
        _ => {
            let new = dice.roll().to_be_bytes();
            let n = dice.pick(&[2, 3, 4, 8]);
            for (byte, new) in input.iter_mut().skip(at).zip(&new[..n]) {
                *byte = *new;
            }
        }
    }
}

/// Returns the stored inputs of a target by name, so that every run has the same order.
pub fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a readable file")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).unwrap_or(&0)).collect()
}
