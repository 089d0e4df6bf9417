//! Behaviour of culvert when the network fails: faults in network namespaces, with the time
//! until the URL responds again; on request beside `ssh -R`.
//!
//! usage: culvert-net --agent FILE --edge FILE [--rivals] [--table FILE]
//!                    [--at-once N] [--long] [NAME...]

mod faults;
mod lab;
#[path = "../../../support/logged.rs"]
mod logged;
mod months;
mod power;
#[path = "../../../support/proc.rs"]
mod proc;
#[path = "../../../support/programs.rs"]
mod programs;
mod rest_restrictions;
#[path = "../../../support/ssh.rs"]
mod ssh;
mod stories;
mod tunnel;
mod visit;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use faults::{FAULTS, Fault};
use months::LONG_STORIES;
use stories::{STORIES, Story};
use tunnel::{Kind, Programs};

struct Args {
    programs: Programs,
    rivals: bool,
    table: Option<PathBuf>,
    at_once: usize,
    long: bool,
    names: Vec<String>,
}

fn args() -> Result<Args, String> {
    let (mut agent, mut edge, mut rivals, mut table) = (None, None, false, None);
    let (mut at_once, mut long) = (4, false);
    let mut names = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().map(PathBuf::from).ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--agent" => agent = Some(value()?),
            "--edge" => edge = Some(value()?),
            "--table" => table = Some(value()?),
            "--rivals" => rivals = true,
            "--long" => long = true,
            "--at-once" => {
                let many = value()?.to_str().and_then(|many| many.parse().ok());
                at_once = many.filter(|many| *many > 0).ok_or("--at-once needs a number")?;
            }
            name if FAULTS.iter().any(|f| f.name == name)
                || all_stories().any(|s| s.name == name) =>
            {
                names.push(word);
            }
            other => return Err(format!("{other} is neither a flag nor a fault")),
        }
    }
    let programs = Programs {
        agent: agent.ok_or("--agent FILE is missing")?,
        edge: edge.ok_or("--edge FILE is missing")?,
    };
    Ok(Args { programs, rivals, table, at_once, long, names })
}

/// Returns the stories, the longest first.
fn all_stories() -> impl Iterator<Item = &'static Story> {
    LONG_STORIES.iter().chain(months::STORIES).chain(STORIES)
}

/// Work to do.
enum Job {
    Fault(&'static Fault),
    Story(&'static Story),
}

impl Job {
    fn name(&self) -> &'static str {
        match self {
            Job::Fault(fault) => fault.name,
            Job::Story(story) => story.name,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

/// Result of a job.
struct Report {
    line: String,
    verdict: Verdict,
    /// A fault's figures for the table.
    cells: Vec<String>,
}

fn main() -> ExitCode {
    let args = match args() {
        Ok(args) => args,
        Err(why) => {
            eprintln!("culvert-net: {why}");
            return ExitCode::from(2);
        }
    };
    let work = std::env::temp_dir().join(format!("culvert-net-{}", std::process::id()));
    let is_long = |name: &str| LONG_STORIES.iter().any(|story| story.name == name);
    let wanted = |name: &str| match args.names.is_empty() {
        true => args.long || !is_long(name),
        false => args.names.iter().any(|n| n == name),
    };
    let jobs: Vec<Job> = (all_stories().map(Job::Story))
        .chain(FAULTS.iter().map(Job::Fault))
        .filter(|job| wanted(job.name()))
        .collect();
    let reports = at_once(args.at_once, &jobs, |job| match job {
        Job::Fault(fault) => endure(fault, &args, &work.join(fault.name)),
        Job::Story(story) => tell(story, &args.programs, &work.join(story.name)),
    });
    let count = |wanted: Verdict| reports.iter().filter(|r| r.verdict == wanted).count();
    let (passed, failed) = (count(Verdict::Passed), count(Verdict::Failed));
    if let Some(file) = args.table {
        let kinds = Kind::ALL.map(Kind::name);
        let mut text = format!("| fault | {} |\n|---|---|---|---|\n", kinds.join(" | "));
        for (job, report) in jobs.iter().zip(&reports) {
            if let Job::Fault(fault) = job {
                let _ = writeln!(text, "| {} | {} |", fault.what, report.cells.join(" | "));
            }
        }
        if let Err(e) = std::fs::write(&file, text) {
            eprintln!("culvert-net: cannot write {}: {e}", file.display());
        }
    }
    if failed == 0 {
        let _ = std::fs::remove_dir_all(&work);
    } else {
        println!("logs are in {}", work.display());
    }
    println!("net: {passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

/// Does all jobs, at most `many` at the same time: each has its own laboratory, and nearly all
/// of them wait. The reports are in the order of the jobs.
fn at_once(many: usize, jobs: &[Job], work: impl Fn(&Job) -> Report + Sync) -> Vec<Report> {
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(jobs.iter().map(|_| None).collect::<Vec<Option<Report>>>());
    thread::scope(|scope| {
        for _ in 0..many {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(at) else { return };
                    let report = work(job);
                    println!("{}", report.line);
                    reports.lock().expect("nobody panics with it")[at] = Some(report);
                }
            });
        }
    });
    let reports = reports.into_inner().expect("nobody panicked with it");
    reports.into_iter().map(|report| report.expect("every job was done")).collect()
}

/// Runs one fault: culvert with its limits, the others for the table.
fn endure(fault: &Fault, args: &Args, dir: &Path) -> Report {
    let outcome = fault.run(Kind::Culvert, &args.programs, &dir.join("culvert"));
    let mut cells = vec![match &outcome {
        Ok(outcome) => format!("{:.1}", outcome.back.as_secs_f32()),
        Err(_) => "never".to_owned(),
    }];
    let mut report = Report::new(fault.name, outcome.and_then(|outcome| outcome.judge(fault)));
    if args.rivals {
        for kind in [Kind::Autossh, Kind::Dbclient] {
            if let Some(why) = kind.missing() {
                cells.push("not measured".to_owned());
                eprintln!("{}: {why}", kind.name());
                continue;
            }
            let outcome = fault.run(kind, &args.programs, &dir.join(format!("{kind:?}")));
            cells.push(match outcome {
                Ok(outcome) => format!("{:.1}", outcome.back.as_secs_f32()),
                Err(why) => {
                    eprintln!("{}: {}: {why}", fault.name, kind.name());
                    "not within 60".to_owned()
                }
            });
        }
        let _ = write!(report.line, "\n      {}", cells.join(" | "));
    }
    report.cells = cells;
    report
}

fn tell(story: &Story, programs: &Programs, dir: &Path) -> Report {
    if let Some(what) = story.missing(programs) {
        let line = format!("skip  {}: {what}", story.name);
        note_skipped(story.name, &what);
        return Report { line, verdict: Verdict::Skipped, cells: Vec::new() };
    }
    Report::new(story.name, story.run(programs, dir))
}

impl Report {
    fn new(name: &str, outcome: Result<String, String>) -> Report {
        let (line, verdict) = match outcome {
            Ok(said) => (format!("ok    {name}: {said}"), Verdict::Passed),
            Err(why) => (format!("FAIL  {name}: {why}"), Verdict::Failed),
        };
        Report { line, verdict, cells: Vec::new() }
    }
}

/// Appends to the list from which `make test` reports skipped tests (tests/skips.sh).
fn note_skipped(name: &str, reason: &str) {
    let Some(list) = std::env::var_os("CULVERT_TEST_SKIPS") else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(list);
    let line = format!("faults of the network, {name}: {reason}\n");
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    written.expect("the list of skipped tests can be written");
}
