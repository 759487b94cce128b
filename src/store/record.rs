//! The record of a run: what is kept of it, as JSON and in the database. A `Recorder` hears the events of runs and
//! gathers their records; it keeps nothing itself but hands each on to a `Keeper`. Touches nothing but the clock.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::event::{Event, Reader, RunRef, StoppedBy, TaskEnd};
use crate::names::TaskName;
use crate::opinion::{Gravest, Opinion};
use crate::outcome::{ExitKind, RunOutcome, Verdict};
use crate::status::LOCK_LOST;

/// The version of the record. Fields are only ever added; a change of meaning raises it.
pub const VERSION: u32 = 1;
/// How much of the output of a try that did not work is kept, in bytes.
const FAILED_TAIL: usize = 4096;
/// How much of one that did.
const OK_TAIL: usize = 1024;
/// How much of all tries of a run; the oldest go first.
const ALL_TAILS: usize = 512 * 1024;
/// How many tries of a run are kept; the oldest go first. A run may be tried again for weeks.
const MOST_TRIES: usize = 10_000;

/// The outcome of a run that did not begin.
pub const REFUSED: &str = "refused";
/// The outcome of a slot that was given up.
pub const SKIPPED: &str = "skipped";
/// The outcome of a run whose process is gone without having told one.
pub const CRASHED: &str = "crashed";

/// One run, from its start to its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`VERSION`].
    pub version: u32,
    /// The id of the run.
    pub run_id: String,
    /// The chain.
    pub chain: String,
    /// What started it: boot, schedule, missed, tick, now, queue.
    pub trigger: String,
    /// The slot it ran for.
    #[serde(default, with = "optional_time")]
    pub scheduled_at: Option<Timestamp>,
    /// The name of the machine.
    pub host: String,
    /// Which boot of the machine.
    pub boot_id: String,
    /// Where the number of that process means something ([`super::Owner::place`]).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// The process that ran it.
    pub pid: i32,
    /// When that process began, in clock ticks since the boot (proc(5), `/proc/PID/stat`): tells it from a later one
    /// with the same number.
    pub start_time: u64,
    /// When it began; for one that did not begin, when that was decided.
    #[serde(with = "time")]
    pub began: Timestamp,
    /// When it ended.
    #[serde(default, with = "optional_time")]
    pub ended: Option<Timestamp>,
    /// How long it took, by a clock that nobody sets.
    #[serde(default)]
    pub duration_ms: Option<u64>,
    /// How it ended: done, gave_up, halted, stopped, signalled, refused, skipped, crashed.
    #[serde(default)]
    pub outcome: Option<String>,
    /// The exit code it leads to.
    #[serde(default)]
    pub exit_code: Option<u8>,
    /// The signal that told it to stop.
    #[serde(default)]
    pub signal: Option<i32>,
    /// The task whose fault or wish the outcome was.
    #[serde(default)]
    pub failed_task: Option<String>,
    /// Why, in words. Of one that is done, who says that somebody should have a look.
    #[serde(default)]
    pub message: Option<String>,
    /// The gravest of what its tasks said last of themselves: success, warning, error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// The tries of its tasks, in the order in which they ended.
    #[serde(default)]
    pub tries: Vec<TryRecord>,
    /// How many tries before these are not kept.
    #[serde(default)]
    pub tries_left_out: u64,
    /// The number of the last try, where the tries themselves were not read.
    #[serde(skip)]
    pub last_try: Option<u32>,
}

/// One try of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TryRecord {
    /// The file name of the task.
    pub task: String,
    /// Which try, from 1.
    pub try_num: u32,
    /// When it began.
    #[serde(with = "time")]
    pub began: Timestamp,
    /// How long it took.
    pub duration_ms: u64,
    /// OK, SKIP, RETRY, HALT, EXIT, CANCEL.
    pub verdict: String,
    /// The code it exited with by itself.
    #[serde(default)]
    pub exit_code: Option<u8>,
    /// The signal it died of by itself.
    #[serde(default)]
    pub signal: Option<i32>,
    /// The key of the limit it ran into: `max_time`, `idle_timeout`.
    #[serde(default)]
    pub timed_out: Option<String>,
    /// Why it did not start.
    #[serde(default)]
    pub not_started: Option<String>,
    /// How many processes of it live on.
    #[serde(default)]
    pub left_behind: u32,
    /// What it said last of itself: success, warning, error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// The end of what it wrote, where that was kept. Bytes that are no text are replaced.
    #[serde(default)]
    pub output_tail: String,
}

/// What is the same for all runs of a process.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The process, and the machine it runs on.
    pub owner: super::Owner,
    /// The exit code that an outcome leads to.
    pub exit_code: fn(&RunOutcome) -> u8,
}

/// Why a run takes place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occasion {
    /// What started it: boot, schedule, missed, tick, now, queue.
    pub trigger: String,
    /// The slot it runs for.
    pub scheduled_at: Option<Timestamp>,
}

impl RunRecord {
    /// The record of a run that begins now.
    pub fn begun(run_id: &str, chain: &str, occasion: Occasion, owner: &super::Owner, now: Timestamp) -> Self {
        Self {
            version: VERSION,
            run_id: run_id.to_owned(),
            chain: chain.to_owned(),
            trigger: occasion.trigger,
            scheduled_at: occasion.scheduled_at,
            host: owner.host.clone(),
            boot_id: owner.boot_id.clone(),
            place: owner.place.clone(),
            pid: owner.pid,
            start_time: owner.start_time,
            began: whole_millis(now),
            ended: None,
            duration_ms: None,
            outcome: None,
            exit_code: None,
            signal: None,
            failed_task: None,
            message: None,
            said: None,
            tries: Vec::new(),
            tries_left_out: 0,
            last_try: None,
        }
    }

    /// The same run, which did not begin after all: `outcome` is [`REFUSED`] or [`SKIPPED`], `why` is for people.
    #[must_use]
    pub fn not_begun(mut self, outcome: &str, why: &str) -> Self {
        self.ended = Some(self.began);
        self.duration_ms = Some(0);
        self.outcome = Some(outcome.to_owned());
        self.message = Some(why.to_owned());
        self
    }

    /// The same run, whose process was found gone at `now`.
    #[must_use]
    pub fn crashed(mut self, now: Timestamp) -> Self {
        self.ended = Some(whole_millis(now));
        self.outcome = Some(CRASHED.to_owned());
        self.message = Some("its process is gone and has not told how it ended".to_owned());
        self
    }

    /// Whether it ended otherwise than wanted.
    pub fn has_failed(&self) -> bool {
        self.outcome.as_deref().is_some_and(|outcome| !["done", SKIPPED].contains(&outcome))
    }

    /// Whether it began: no slot that was given up, no run that was refused.
    pub fn has_begun(&self) -> bool {
        self.outcome.as_deref().is_none_or(|outcome| ![REFUSED, SKIPPED, "task_dir"].contains(&outcome))
    }

    /// Whether it was stopped because the next slot of its chain came (`overlap = replace`).
    pub fn was_replaced(&self) -> bool {
        self.outcome.as_deref() == Some("signalled") && self.message.as_deref().is_some_and(StoppedBy::is_slot)
    }

    pub(super) fn end(&mut self, outcome: &RunOutcome, exit_code: fn(&RunOutcome) -> u8, said: Option<&Gravest>) {
        self.said = said.map(|said| said.opinion.word().to_owned());
        self.outcome = Some(outcome.word().to_owned());
        self.failed_task = outcome.task().map(|task| task.text().to_owned());
        (self.exit_code, self.signal, self.message) = match outcome {
            RunOutcome::GaveUp { why, .. } => (Some(exit_code(outcome)), None, Some(why.reason().to_owned())),
            RunOutcome::Signalled(signal) => (None, Some(*signal), Some(StoppedBy::Signal.words(*signal))),
            RunOutcome::LockLost => (Some(exit_code(outcome)), None, Some(LOCK_LOST.to_owned())),
            RunOutcome::Done => {
                let doubt = said.filter(|said| said.is_doubt());
                (Some(exit_code(outcome)), None, doubt.map(ToString::to_string))
            }
            RunOutcome::Halted { .. } | RunOutcome::StoppedByTask { .. } => (Some(exit_code(outcome)), None, None),
        };
    }
}

/// Who keeps records.
pub trait Keeper {
    /// A run has begun.
    fn begun(&mut self, record: &RunRecord);
    /// A run has ended. Must not take long, nor fail: what cannot be kept is told.
    fn ended(&mut self, record: RunRecord);
}

/// Hears events and gathers the record of each run.
pub struct Recorder {
    pub(super) facts: Facts,
    clock: Box<dyn Clock>,
    keeper: Box<dyn Keeper>,
    /// Those that go on: few, mostly one.
    pub(super) runs: Vec<Gathered>,
}

pub(super) struct Gathered {
    pub(super) record: RunRecord,
    pub(super) running: Vec<Running>,
    pub(super) tries: VecDeque<TryRecord>,
    pub(super) waits: Waits,
    /// Who wants it to stop, in words.
    stopped: Option<String>,
    /// The length of all tails, and how many tries from the front have none any more.
    tails: usize,
    without_tail: usize,
}

/// A try that goes on.
pub(super) struct Running {
    pub(super) task: TaskName,
    pub(super) began: Timestamp,
    pub(super) try_num: u32,
    pub(super) max_tries: u32,
    pub(super) percent: Option<u8>,
    pub(super) status: Option<String>,
    pub(super) said: Option<Opinion>,
}

/// What waits to be tried again.
#[derive(Default)]
pub(super) struct Waits {
    /// Everything: since when, for how long, the try that comes, how many there are, and how many tries lie before it.
    pub(super) run: Option<(Timestamp, Duration, u32, u32)>,
    /// How many tries had been made when everything began again.
    pub(super) tries_before: u64,
    /// Single tasks: since when, for how long.
    pub(super) tasks: Vec<(TaskName, Timestamp, Duration)>,
}

impl Recorder {
    /// A recorder that hands its records on to `keeper`.
    pub fn new(facts: Facts, clock: Box<dyn Clock>, keeper: Box<dyn Keeper>) -> Self {
        Self { facts, clock, keeper, runs: Vec::new() }
    }

    pub(super) fn record_of(&self, run: &RunRef) -> RunRecord {
        let trigger = &run.trigger;
        let scheduled_at = trigger.scheduled_at.as_ref().map(jiff::Zoned::timestamp);
        let occasion = Occasion { trigger: trigger.kind.word().to_owned(), scheduled_at };
        RunRecord::begun(run.id.as_str(), &run.chain, occasion, &self.facts.owner, self.clock.wall())
    }

    fn begin(&mut self, run: &RunRef, tasks: usize) {
        let record = self.record_of(run);
        self.keeper.begun(&record);
        let tries = VecDeque::with_capacity(tasks.min(MOST_TRIES));
        self.runs.push(Gathered { record, running: Vec::new(), tries, waits: Waits::default(), stopped: None, tails: 0, without_tail: 0 });
    }
}

impl Reader for Recorder {
    fn tell(&mut self, run: &RunRef, event: &Event<'_>) {
        if let Event::RunStarted { tasks } = event {
            return self.begin(run, *tasks);
        }
        if let Event::RunRefused { why } = event {
            let record = self.record_of(run).not_begun(REFUSED, why);
            return self.keeper.ended(record);
        }
        let Some(at) = self.runs.iter().position(|gathered| gathered.record.run_id == run.id.as_str()) else { return };
        let gathered = &mut self.runs[at];
        match event {
            Event::TaskStarted { task, try_num, max_tries, at } => {
                // In the pause before it is told how the try before went.
                if gathered.waits.run.take().is_some() {
                    gathered.waits.tries_before = gathered.record.tries_left_out + gathered.tries.len() as u64;
                }
                gathered.waits.tasks.retain(|(waits, ..)| waits != *task);
                let (task, try_num, max_tries) = ((*task).clone(), *try_num, *max_tries);
                gathered.running.push(Running { task, began: *at, try_num, max_tries, percent: None, status: None, said: None });
            }
            Event::TaskProgress { task, percent, status, result, .. } => gathered.note_progress(task, *percent, *status, *result),
            Event::TaskSleeping { task, wait } => gathered.waits.tasks.push(((*task).clone(), self.clock.wall(), *wait)),
            Event::RunRetry { wait, try_num, max_tries } => {
                gathered.waits.run = Some((self.clock.wall(), *wait, *try_num, *max_tries));
            }
            Event::TaskEnded(end) => gathered.add(end, || self.clock.wall()),
            Event::RunEnded { outcome, duration, said, .. } => {
                gathered.record.ended = Some(whole_millis(self.clock.wall()));
                gathered.record.duration_ms = Some(millis(*duration));
                gathered.record.end(outcome, self.facts.exit_code, *said);
                if let (RunOutcome::Signalled(_), Some(words)) = (outcome, gathered.stopped.take()) {
                    gathered.record.message = Some(words);
                }
                let gathered = self.runs.swap_remove(at);
                self.keeper.ended(gathered.into_record());
            }
            Event::Stopping { signal, by, .. } => {
                gathered.stopped.get_or_insert_with(|| by.words(*signal));
            }
            Event::RunStarted { .. }
            | Event::RunRefused { .. }
            | Event::TaskEnding { .. }
            | Event::HaltStarted { .. }
            | Event::HaltEnded { .. }
            | Event::HookFailed { .. } => {}
        }
    }
}

impl Gathered {
    fn note_progress(&mut self, task: &TaskName, percent: Option<u8>, status: Option<&str>, said: Option<Opinion>) {
        if let Some(running) = self.running.iter_mut().find(|running| running.task == *task) {
            running.percent = percent.or(running.percent);
            running.said = said.or(running.said);
            if let Some(status) = status {
                running.status = Some(status.to_owned());
            }
        }
    }

    /// `now` is asked only for a try that has ended without having been started.
    fn add(&mut self, end: &TaskEnd, now: impl Fn() -> Timestamp) {
        let task = end.task.text();
        let started = self.running.iter().position(|running| running.task == end.task).map(|at| self.running.swap_remove(at).began);
        let began = started.unwrap_or_else(now);
        let worked = matches!(end.verdict, Verdict::Ok | Verdict::Skip);
        let output_tail = tail_text(&end.tail, if worked { OK_TAIL } else { FAILED_TAIL });
        self.tails += output_tail.len();
        self.tries.push_back(TryRecord {
            task: task.to_owned(),
            try_num: end.try_num,
            began: whole_millis(began),
            duration_ms: millis(end.duration),
            verdict: end.verdict.word().to_owned(),
            exit_code: end.exit.code(),
            signal: end.exit.signal(),
            timed_out: match &end.exit {
                ExitKind::TimedOut { limit, .. } => Some(limit.key().to_owned()),
                ExitKind::Ended(_) | ExitKind::Cancelled | ExitKind::NotStarted(_) => None,
            },
            not_started: match &end.exit {
                ExitKind::NotStarted(why) => Some(why.clone()),
                ExitKind::Ended(_) | ExitKind::Cancelled | ExitKind::TimedOut { .. } => None,
            },
            left_behind: u32::try_from(end.left_behind.len()).unwrap_or(u32::MAX),
            said: end.said.map(|said| said.word().to_owned()),
            output_tail,
        });
        while self.tails > ALL_TAILS
            && let Some(oldest) = self.tries.get_mut(self.without_tail)
        {
            self.tails -= std::mem::take(&mut oldest.output_tail).len();
            self.without_tail += 1;
        }
        if self.tries.len() > MOST_TRIES
            && let Some(oldest) = self.tries.pop_front()
        {
            self.tails -= oldest.output_tail.len();
            self.without_tail = self.without_tail.saturating_sub(1);
            self.record.tries_left_out += 1;
        }
    }

    fn into_record(self) -> RunRecord {
        RunRecord { tries: self.tries.into(), ..self.record }
    }
}

/// The end of an output as text of at most `most` bytes. PostgreSQL takes no NUL in a text.
fn tail_text(tail: &[u8], most: usize) -> String {
    if tail.is_empty() {
        return String::new();
    }
    let end = &tail[tail.len().saturating_sub(most)..];
    // What is cut in the middle of a character would begin with rubbish.
    let start = if end.len() < tail.len() { end.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count() } else { 0 };
    String::from_utf8_lossy(&end[start..]).replace('\0', "\u{fffd}")
}

/// A time as it is kept: in whole milliseconds.
pub fn whole_millis(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Times as RFC 3339 in UTC, with milliseconds.
mod time {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{time:.3}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The same where there may be none.
mod optional_time {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::time::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        #[derive(Deserialize)]
        struct Time(#[serde(with = "super::time")] Timestamp);
        Ok(Option::<Time>::deserialize(deserializer)?.map(|time| time.0))
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
