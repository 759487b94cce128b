//! Runs that go on in any program of this machine, as they tell of themselves: for `runner status` and `runner why`.

use std::path::Path;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::table::about;
use crate::names::counted;
use crate::notify::asking::ask_all;
use crate::status::{Date, Going, Run, Task, TaskState, VERSION};

/// How long all of them are waited for together: each answers from its loop, which never waits for anything.
const PATIENCE: Duration = Duration::from_millis(300);
/// How many tasks of a run are named in a line.
const NAMED: usize = 3;

/// Asks them. Whoever does so before reading the history misses nobody: a run that ends meanwhile stands there.
pub fn look() -> Vec<Going> {
    let read = |answer: Vec<u8>| serde_json::from_slice::<Going>(&answer).ok().filter(|going| going.version == VERSION);
    ask_all(PATIENCE).into_iter().filter_map(read).collect()
}

/// Those whose record will be in this state, with their dates in this zone.
pub fn of_state(all: Vec<Going>, state_dir: Option<&Path>, zone: &TimeZone) -> Vec<Going> {
    let ours = |going: &Going| state_dir.is_some_and(|dir| dir == Path::new(&going.state_dir));
    all.into_iter().filter(ours).map(|going| Going { run: in_zone(going.run, zone), ..going }).collect()
}

fn in_zone(mut run: Run, zone: &TimeZone) -> Run {
    let tries = run.tasks.iter_mut().flat_map(|task| task.until.iter_mut().chain(task.tries.iter_mut().map(|last| &mut last.started_at)));
    for date in [&mut run.started_at].into_iter().chain(&mut run.scheduled_at).chain(&mut run.until).chain(tries) {
        *date = Date::new(date.at, zone);
    }
    run
}

/// What a run does at this moment, in a line; nothing where that is not known.
pub fn doing(run: &Run, now: Date) -> Option<String> {
    let mut parts = Vec::new();
    let done = run.tasks.iter().filter(|task| matches!(task.state, TaskState::Done | TaskState::Skipped)).count();
    if done > 0 {
        parts.push(format!("{} done", counted(done, "task")));
    }
    parts.extend(
        run.until.map(|until| format!("{} begins in {}", of_tries(run.try_num, run.max_tries), about(now.at.duration_until(until.at)))),
    );
    let going: Vec<&Task> = run.tasks.iter().filter(|task| task.is_going()).collect();
    parts.extend(going.iter().take(NAMED).map(|task| of_task(task, now)));
    if going.len() > NAMED {
        parts.push(format!("and {} more", going.len() - NAMED));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Where a task stands that runs or waits, in words.
pub fn of_task(task: &Task, now: Date) -> String {
    let last = task.tries.last();
    let mut text = task.file.clone();
    if let Some(last) = last.filter(|last| last.try_num > 1 && task.state == TaskState::Running) {
        text.push_str(&format!(" ({})", of_tries(last.try_num, task.max_tries.unwrap_or(u32::MAX))));
    }
    if let Some(until) = task.until {
        text.push_str(&format!(" is tried again in {}", about(now.at.duration_until(until.at))));
    }
    if let Some(percent) = task.progress {
        text.push_str(&format!(" {percent}%"));
    }
    if let Some(status) = task.status.as_deref().filter(|status| !status.is_empty()) {
        text.push_str(&format!(" {status}"));
    }
    text
}

/// Which try, of how many if there is a limit.
pub fn of_tries(try_num: u32, max_tries: u32) -> String {
    if max_tries == u32::MAX { format!("try {try_num}") } else { format!("try {try_num} of {max_tries}") }
}
