//! What a run that goes on does at this moment, in words.

use super::going::of_closing;
use super::table::about;
use crate::names::counted;
use crate::status::{Date, Run, Task, TaskState};

/// How many tasks of a run are named in a line.
const NAMED: usize = 3;

/// What a run does at this moment, in a line; nothing where that is not known.
pub fn of_run(run: &Run, now: Date) -> Option<String> {
    if let Some(outcome) = run.outcome {
        return Some(format!("{}; {} runs", outcome.words(), of_closing(run.closing.as_ref())));
    }
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
    if let Some(said) = task.said() {
        text.push_str(&format!(" says {said}"));
    }
    text
}

/// Which try, of how many if there is a limit.
pub fn of_tries(try_num: u32, max_tries: u32) -> String {
    if max_tries == u32::MAX { format!("try {try_num}") } else { format!("try {try_num} of {max_tries}") }
}
