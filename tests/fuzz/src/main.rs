//! Long runs of the seeded driver: `culvert-fuzz [--seconds N] [--seed N] [TARGET...]`. Every
//! target gets N seconds, also after a failure. The names of those that failed are printed
//! last.

use std::time::{Duration, Instant};

use culvert_fuzz::{TARGETS, Target, driver};

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
    let wanted = |target: &Target| names.is_empty() || names.iter().any(|n| n == target.name);
    let targets: Vec<Target> = TARGETS.into_iter().filter(wanted).collect();
    let failed = driver::run_all(&targets, |target| {
        let until = Instant::now() + Duration::from_secs(seconds);
        let done = driver::run(target, seed, |_| Instant::now() < until);
        println!("{}: seed {seed}, {done} inputs in {seconds} s, none failed", target.name);
    });
    if !failed.is_empty() {
        eprintln!("failed targets: {}", failed.join(" "));
        std::process::exit(1);
    }
}

fn usage(problem: &str) -> ! {
    let names = TARGETS.map(|target| target.name).join(" ");
    eprintln!(
        "{problem}\nusage: culvert-fuzz [--seconds N] [--seed N] [TARGET...]\ntargets: {names}"
    );
    std::process::exit(2)
}
