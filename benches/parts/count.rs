//! Counts: memory, instructions, system calls. What a task adds is the difference between two lengths of chain.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use crate::measure::stage::{Kind, Stage, command, find};
use crate::measure::table::{Aim, Table};
use crate::measure::way::Way;

const SHORT: usize = 100;
const LONG: usize = 1_100;

/// The most memory that is ever resident.
pub fn memory(stage: &Stage) {
    let mut table = Table::new("memory: peak resident set, wait4(2)", &["tasks", "program", "MiB", "aim"]);
    let ways: Vec<_> = [Some(Way::runner(stage)), Some(Way::limit(stage)), Way::run_parts()].into_iter().flatten().collect();
    for (tasks, aim) in [(0, None), (1_000, Some(6.0)), (5_000, None)] {
        let dir = stage.tasks(Kind::Static, tasks);
        for way in &ways {
            let peak = stage.measure(&way.command(&dir)).peak;
            let judged = aim.filter(|_| way.name == "runner").map(|aim| Aim::at_most(aim).judge(peak, " MiB"));
            table.row([tasks.to_string(), way.name.to_owned(), format!("{peak:.2}"), judged.unwrap_or_default()]);
        }
    }
    table.print();
}

/// User-space instructions of the program itself; what it starts is not counted.
pub fn instructions(stage: &Stage) {
    if find("valgrind").is_none() {
        println!("instructions: skipped, valgrind is not installed");
        return;
    }
    let title = format!("instructions: in user space, by callgrind, from {SHORT} to {LONG} tasks");
    let mut table = Table::new(title, &["program", "a task", "all but the tasks", "aim"]);
    let mut without_pidfds = false;
    for way in [Way::runner(stage), Way::quiet(stage), Way::limit(stage)] {
        // What is not judged there is stepped through below.
        if without_pidfds && way.name == "runner -q" {
            continue;
        }
        let Some(count) = Added::count(stage, &way, &[]) else {
            println!("instructions of {}: skipped, valgrind does not run it: {}", way.name, last_words(stage));
            continue;
        };
        without_pidfds |= count.without_pidfds;
        let judged = match (way.name, count.without_pidfds) {
            ("runner", false) => INSTRUCTIONS.judge(count.per_task, ""),
            (_, false) => String::new(),
            (_, true) => "not judged, see below".to_owned(),
        };
        table.row([way.name.to_owned(), format!("{:.0}", count.per_task), format!("{:.0}", count.rest), judged]);
    }
    table.print();
    if without_pidfds {
        step(stage);
    }
}

/// What valgrind said last of why a program ended.
fn last_words(stage: &Stage) -> String {
    let log = fs::read_to_string(stage.path("callgrind.log")).unwrap_or_default();
    let said = |line: &str| line.split_once("== ").map(|(_, said)| said.trim().to_owned());
    let ends = log.lines().filter(|line| line.contains("terminating") || line.contains("Access not within")).filter_map(said);
    let words = ends.collect::<Vec<_>>().join(", ");
    if words.is_empty() { "it does not say why".to_owned() } else { words }
}

const INSTRUCTIONS: Aim = Aim { wanted: 12_500.0, at_most: 12_500.0 };

/// Instructions that each further task adds, and those that are there without any.
struct Added {
    per_task: f64,
    rest: f64,
    /// Valgrind refused pidfd_open(2), so runner heard of the ends of its children as on kernels before 5.3.
    without_pidfds: bool,
}

impl Added {
    fn count(stage: &Stage, way: &Way<'_>, options: &[&str]) -> Option<Self> {
        let (out, log) = (stage.path("callgrind.out"), stage.path("callgrind.log"));
        let count = |tasks| {
            let subject = way.command(&stage.tasks(Kind::Static, tasks));
            let _ = fs::remove_file(&out);
            let mut valgrind = command("valgrind");
            valgrind.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out.display()));
            valgrind.arg(format!("--log-file={}", log.display()));
            let status = valgrind.arg(subject.get_program()).args(subject.get_args()).args(options).status().ok()?;
            let text = fs::read_to_string(&out).ok().filter(|_| status.success())?;
            let total = text.lines().find_map(|line| line.strip_prefix("summary:").or_else(|| line.strip_prefix("totals:")))?;
            total.trim().parse::<f64>().ok()
        };
        let (short, long) = (count(SHORT)?, count(LONG)?);
        let per_task = (long - short) / (LONG - SHORT) as f64;
        // 434 is pidfd_open on every architecture.
        let without_pidfds = fs::read_to_string(&log).is_ok_and(|log| log.contains("linux syscall: 434"));
        Some(Self { per_task, rest: short - per_task * SHORT as f64, without_pidfds })
    }
}

/// Counts what valgrind cannot: the getting ready by callgrind, where no task but one is run, and the loop step by step.
fn step(stage: &Stage) {
    const FIRST: usize = 5;
    const LAST: usize = 13;
    println!("  This valgrind has no pidfds: runner was counted on its way for kernels before 5.3. On the usual way:");
    let mut table = Table::new("", &["program", "a task", "of that getting ready", "of that running", "aim"]);
    let dir = stage.tasks(Kind::Static, LAST + 5);
    let first = ["--until", "00001-t"];
    let Some(ready) = Added::count(stage, &Way::runner(stage), &first) else { return };
    for way in [Way::runner(stage), Way::quiet(stage)] {
        let subject = way.command(&dir);
        let mut steps = command(stage.path("steps"));
        steps.args([FIRST.to_string(), LAST.to_string()]).arg(subject.get_program()).args(subject.get_args());
        let counted = steps.stdout(Stdio::piped()).output().ok().filter(|output| output.status.success());
        let counted = counted.and_then(|output| String::from_utf8_lossy(&output.stdout).trim().parse::<f64>().ok());
        let Some(counted) = counted else {
            println!("instructions of {}: skipped, ptrace(2) does not step through it", way.name);
            continue;
        };
        let running = counted / (LAST - FIRST) as f64;
        let total = ready.per_task + running;
        let judged = if way.name == "runner" { INSTRUCTIONS.judge(total, "") } else { String::new() };
        table.row([way.name.to_owned(), format!("{total:.0}"), format!("{:.0}", ready.per_task), format!("{running:.0}"), judged]);
    }
    table.print();
}

/// System calls of the program itself.
pub fn system_calls(stage: &Stage) {
    if find("strace").is_none() {
        println!("syscalls: skipped, strace is not installed");
        return;
    }
    let title = format!("syscalls: of the program itself, by strace, from {SHORT} to {LONG} tasks");
    let mut table = Table::new(title, &["program", "a task", "without those in posix_spawn(3)", "aim", "which"]);
    for way in [Some(Way::runner(stage)), Some(Way::quiet(stage)), Some(Way::limit(stage)), Way::run_parts()].iter().flatten() {
        let count = |tasks| count_calls(stage, &way.command(&stage.tasks(Kind::Static, tasks)));
        let (Some(short), Some(long)) = (count(SHORT), count(LONG)) else {
            println!("syscalls of {}: skipped, strace does not run it", way.name);
            continue;
        };
        let added = long.iter().map(|(call, count)| (call, (count - short.get(call).unwrap_or(&0.0)) / (LONG - SHORT) as f64));
        let mut added: Vec<(&String, f64)> = added.filter(|(_, count)| *count > 0.0).collect();
        added.sort_by(|a, b| b.1.total_cmp(&a.1));
        let total: f64 = added.iter().map(|(_, count)| count).sum();
        let which: Vec<_> = added.iter().filter(|(_, count)| *count >= 0.05).map(|(call, count)| format!("{call} {count:.1}")).collect();
        let own: f64 = added.iter().filter(|(call, _)| !OF_SPAWN.contains(&call.as_str())).map(|(_, count)| count).sum();
        let judged = if way.name == "runner" { Aim::at_most(12.0).judge(own, "") } else { String::new() };
        table.row([way.name.to_owned(), format!("{total:.1}"), format!("{own:.1}"), judged, which.join(", ")]);
    }
    table.print();
}

/// What glibc's posix_spawn(3) calls: a stack for the child, its signals, the child. None of it is ours to leave out.
const OF_SPAWN: [&str; 6] = ["mmap", "munmap", "rt_sigprocmask", "clone3", "clone", "vfork"];

fn count_calls(stage: &Stage, subject: &Command) -> Option<BTreeMap<String, f64>> {
    let out = stage.path("strace.out");
    let _ = fs::remove_file(&out);
    let mut strace = command("strace");
    strace.arg("-c").arg("-o").arg(&out);
    let status = strace.arg(subject.get_program()).args(subject.get_args()).status().ok()?;
    let text = fs::read_to_string(&out).ok().filter(|_| status.success())?;
    // % time, seconds, usecs/call, calls, errors (empty when there were none), name.
    let calls = text.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let count = words.get(3)?.parse().ok()?;
        let name = (*words.last()?).to_owned();
        (words[0].parse::<f64>().is_ok() && name != "total").then_some((name, count))
    });
    Some(calls.collect())
}
