//! What culvert does when the network fails: faults in network namespaces, with
//! the time until the URL answers again; on request beside `ssh -R`.
//!
//! usage: culvert-net --agent FILE --edge FILE [--rivals] [--table FILE] [NAME...]

mod faults;
mod lab;
mod program;
mod stories;
mod tunnel;
mod visit;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use faults::FAULTS;
use stories::STORIES;
use tunnel::{Kind, Programs};

struct Args {
    programs: Programs,
    rivals: bool,
    table: Option<PathBuf>,
    names: Vec<String>,
}

fn args() -> Result<Args, String> {
    let (mut agent, mut edge, mut rivals, mut table) = (None, None, false, None);
    let mut names = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().map(PathBuf::from).ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--agent" => agent = Some(value()?),
            "--edge" => edge = Some(value()?),
            "--table" => table = Some(value()?),
            "--rivals" => rivals = true,
            name if FAULTS.iter().any(|f| f.name == name)
                || STORIES.iter().any(|s| s.name == name) =>
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
    Ok(Args { programs, rivals, table, names })
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
    let wanted = |name: &str| args.names.is_empty() || args.names.iter().any(|n| n == name);
    let (mut passed, mut failed) = (0, 0);
    let mut judge = |name: &str, verdict: Result<String, String>| match verdict {
        Ok(said) => {
            passed += 1;
            println!("ok    {name}: {said}");
        }
        Err(why) => {
            failed += 1;
            println!("FAIL  {name}: {why}");
        }
    };
    let mut rows = Vec::new();
    for fault in FAULTS.iter().filter(|fault| wanted(fault.name)) {
        let dir = work.join(fault.name);
        let outcome = fault.run(Kind::Culvert, &args.programs, &dir.join("culvert"));
        let mut cells = Vec::new();
        let verdict = match &outcome {
            Ok(outcome) => {
                let back = outcome.back.as_secs_f32();
                cells.push(format!("{back:.1}"));
                let must = fault.must.as_secs_f32();
                let kept = outcome.kept.map(|kept| kept.as_secs_f32());
                // A visitor in flight is let go within interval + tolerance + 2 s.
                if back > must {
                    Err(format!("back after {back:.2} s, must be {must:.0} s"))
                } else if kept.is_some_and(|kept| kept > 4.0) {
                    Err(format!("a visitor in flight was kept for {:.2} s", kept.unwrap_or(0.0)))
                } else {
                    let visitor =
                        kept.map(|k| format!(", a visitor in flight let go after {k:.2} s"));
                    Ok(format!("back after {back:.2} s{}", visitor.unwrap_or_default()))
                }
            }
            Err(why) => {
                cells.push("never".to_owned());
                Err(why.clone())
            }
        };
        judge(fault.name, verdict);
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
            println!("      {}", cells.join(" | "));
        }
        rows.push((fault, cells));
    }
    for story in STORIES.iter().filter(|story| wanted(story.name)) {
        let verdict = match story.missing() {
            Some(what) => {
                println!("skip  {}: {what} is not installed", story.name);
                continue;
            }
            None => story.run(&args.programs, &work.join(story.name)),
        };
        judge(story.name, verdict);
    }
    if let Some(file) = args.table {
        let kinds = Kind::ALL.map(Kind::name);
        let mut text = format!("| fault | {} |\n|---|---|---|---|\n", kinds.join(" | "));
        for (fault, cells) in &rows {
            let _ = writeln!(text, "| {} | {} |", fault.what, cells.join(" | "));
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
