//! How a run that goes on stands, from what a recorder has gathered of it so far: for those who ask it. Touches nothing.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::past;
use super::record::{Gathered, Recorder, Running, TryRecord, whole_millis};
use crate::event::{self, RunRef};
use crate::status::{Closing, Date, Run, Task, TaskState, Try};

impl Recorder {
    /// How the run stands: its tasks as far as they were begun since it last began from its start, each with its last try; of one
    /// whose record was handed on, what it still does.
    pub fn describe(&self, run: &RunRef, closing: Option<&event::Closing>) -> Option<Run> {
        let going = self.runs.iter().find(|gathered| gathered.record.run_id == run.id.as_str());
        going.map(describe).or_else(|| Some(self.describe_closing(run, closing?)))
    }

    fn describe_closing(&self, run: &RunRef, closing: &event::Closing) -> Run {
        let mut record = self.record_of(run);
        record.began = whole_millis(closing.began);
        record.end(&closing.outcome, self.facts.exit_code, None);
        let closing = Closing { what: closing.what.word().to_owned(), pid: closing.pid };
        Run { closing: Some(closing), ..past::shown(&record, u32::MAX, &TimeZone::UTC) }
    }
}

fn date(at: Timestamp) -> Date {
    Date::new(at, &TimeZone::UTC)
}

fn describe(gathered: &Gathered) -> Run {
    let Gathered { record, running, tries, waits, .. } = gathered;
    let before = usize::try_from(waits.tries_before.saturating_sub(record.tries_left_out)).unwrap_or(usize::MAX);
    let mut tasks: Vec<Task> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    let ended = tries.iter().skip(before).map(|ended| (ended.task.as_str(), of_ended(ended)));
    let going = running.iter().map(|running| (running.task.text(), of_running(running)));
    for (file, task) in ended.chain(going) {
        match places.get(file) {
            Some(place) => tasks[*place] = task,
            None => {
                places.insert(file, tasks.len());
                tasks.push(task);
            }
        }
    }
    for (task, since, wait) in &waits.tasks {
        if let Some(place) = places.get(task.text()) {
            (tasks[*place].state, tasks[*place].until) = (TaskState::Sleeping, date(*since).after(*wait));
        }
    }
    let last = running.last().map(|running| (running.try_num, running.max_tries));
    let (try_num, max_tries) = waits.run.map(|(_, _, try_num, max_tries)| (try_num, max_tries)).or(last).unwrap_or((1, u32::MAX));
    Run {
        id: record.run_id.clone(),
        trigger: record.trigger.clone(),
        scheduled_at: record.scheduled_at.map(date),
        started_at: date(record.began),
        ended_at: None,
        outcome: None,
        why: None,
        exit_code: None,
        said: None,
        try_num,
        max_tries,
        until: waits.run.and_then(|(since, wait, ..)| date(since).after(wait)),
        closing: None,
        tasks,
    }
}

fn of_ended(ended: &TryRecord) -> Task {
    let state = match ended.verdict.as_str() {
        "OK" => TaskState::Done,
        "SKIP" => TaskState::Skipped,
        "RETRY" => TaskState::Failed,
        _ => TaskState::Cancelled,
    };
    let last = Try {
        duration_ms: Some(ended.duration_ms),
        result: Some(ended.verdict.clone()),
        exit_code: ended.exit_code,
        signal: ended.signal,
        timed_out: ended.timed_out.is_some(),
        said: ended.said.clone(),
        ..Try::begun(ended.try_num, date(ended.began))
    };
    Task { file: ended.task.clone(), state, progress: None, status: None, until: None, pid: None, max_tries: None, tries: vec![last] }
}

fn of_running(running: &Running) -> Task {
    Task {
        file: running.task.text().to_owned(),
        state: TaskState::Running,
        progress: running.percent,
        status: running.status.clone(),
        until: None,
        pid: None,
        max_tries: Some(running.max_tries),
        tries: vec![Try { said: running.said.map(|said| said.word().to_owned()), ..Try::begun(running.try_num, date(running.began)) }],
    }
}
