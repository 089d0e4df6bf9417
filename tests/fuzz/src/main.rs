//! Long runs of the seeded driver: `culvert-fuzz [--seconds N] [--seed N] [TARGET...]`.
//! Every target gets N seconds, with seed after seed.

use std::time::{Duration, Instant};

use culvert_fuzz::{TARGETS, driver};

fn main() {
    let (mut seconds, mut seed, mut names) = (60, driver::seed(), Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse().ok());
        match arg.as_str() {
            "--seconds" => seconds = number().unwrap_or_else(|| usage("--seconds wants a number")),
            "--seed" => seed = number().unwrap_or_else(|| usage("--seed wants a number")),
            name if TARGETS.iter().any(|target| target.name == name) => names.push(arg),
            other => usage(&format!("no target {other}")),
        }
    }
    for target in TARGETS {
        if names.is_empty() || names.iter().any(|name| name == target.name) {
            let until = Instant::now() + Duration::from_secs(seconds);
            let done = driver::run(target, seed, |_| Instant::now() < until);
            println!("{}: seed {seed}, {done} inputs in {seconds} s, none failed", target.name);
        }
    }
}

fn usage(problem: &str) -> ! {
    let names = TARGETS.map(|target| target.name).join(" ");
    eprintln!(
        "{problem}\nusage: culvert-fuzz [--seconds N] [--seed N] [TARGET...]\ntargets: {names}"
    );
    std::process::exit(2)
}
