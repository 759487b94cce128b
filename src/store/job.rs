//! What is kept of a job, and what a worker tells and asks of the database in one turn. Touches nothing.

use std::time::Duration;

use jiff::Timestamp;

use super::Owner;
use crate::config::queue_values::{Keep, PriorityOrder};
use crate::queue::{JobState, Next};

/// What happens when an equal job is there: one with the same key that waits or runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// It stands for the new one.
    #[default]
    Keep,
    /// It gets the time, priority and arguments of the new one. While it runs, the new one is added.
    Reschedule,
    /// It is cancelled, and the new one is added. While it runs, it goes on.
    Replace,
    /// The new one is added beside it.
    Add,
}

/// A job to be added.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewJob {
    /// Its queue.
    pub queue: String,
    /// Its task.
    pub task: String,
    /// The arguments of the task.
    pub args: Vec<String>,
    /// What people call it.
    pub name: Option<String>,
    /// Who wants it.
    pub creator: Option<String>,
    /// What it is known by among its equals.
    pub key: Option<String>,
    /// What happens when there is an equal one.
    pub existing: Existing,
    /// Its priority.
    pub priority: i64,
    /// When it is due; at once when `None`.
    pub due: Option<Timestamp>,
    /// How often it repeats.
    pub repeat: Option<Duration>,
    /// Until when.
    pub repeat_until: Option<Timestamp>,
    /// Its attempts in all, if not those of the queue.
    pub max_attempts: Option<u32>,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRecord {
    /// Its number.
    pub id: i64,
    /// Its queue.
    pub queue: String,
    /// Its task.
    pub task: String,
    /// The arguments of the task, as a JSON list.
    pub args: String,
    /// What people call it.
    pub name: Option<String>,
    /// Who wanted it.
    pub creator: Option<String>,
    /// What it is known by among its equals.
    pub key: Option<String>,
    /// The word of its state in the database.
    pub state: String,
    /// Its priority.
    pub priority: i64,
    /// When it is due, was due, or is tried again.
    pub due: Timestamp,
    /// When it was due first: repetitions are counted from it.
    pub planned: Option<Timestamp>,
    /// How often it repeats, in milliseconds.
    pub repeat_ms: Option<u64>,
    /// Until when it repeats.
    pub repeat_until: Option<Timestamp>,
    /// How many attempts were begun.
    pub attempts: u32,
    /// Its attempts in all, if not those of the queue.
    pub max_attempts: Option<u32>,
    /// When it was added.
    pub created: Timestamp,
    /// What the attempt that goes on is known by: the id of its run.
    pub claim: Option<String>,
    /// The host of the worker that has or had it.
    pub host: Option<String>,
    /// The boot of that host.
    pub boot_id: Option<String>,
    /// Where the number of its process means something ([`Owner::place`]).
    pub place: Option<String>,
    /// The process of that worker.
    pub pid: Option<i32>,
    /// When that process began.
    pub start_time: Option<u64>,
    /// Until when it is that worker's, if nobody knows whether it lives.
    pub lease_until: Option<Timestamp>,
    /// It is to be ended.
    pub cancel: bool,
    /// When its last attempt began.
    pub began: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// The verdict on its last attempt.
    pub result: Option<String>,
    /// The exit code of its last attempt.
    pub exit_code: Option<u8>,
    /// The signal its last attempt died of.
    pub signal: Option<i32>,
    /// How its last attempt ended, in words.
    pub message: Option<String>,
    /// The end of what the last attempt that failed wrote.
    pub last_error: Option<String>,
}

impl JobRecord {
    /// Where it stands.
    pub fn state(&self, now: Timestamp) -> JobState {
        JobState::of_stored(&self.state, self.due, now)
    }

    /// The worker that has it.
    pub fn owner(&self) -> Option<Owner> {
        let (host, boot_id) = (self.host.clone()?, self.boot_id.clone()?);
        Some(Owner {
            machine: String::new(),
            place: self.place.clone().unwrap_or_default(),
            host,
            boot_id,
            pid: self.pid?,
            start_time: self.start_time?,
        })
    }

    /// The planned time that repetitions are counted from.
    pub fn planned(&self) -> Timestamp {
        self.planned.unwrap_or(self.due)
    }

    /// How often it repeats.
    pub fn repeat(&self) -> Option<Duration> {
        self.repeat_ms.map(Duration::from_millis)
    }
}

/// What became of a job that a worker had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    /// The job.
    pub id: i64,
    /// The attempt: a worker that has lost the job changes nothing.
    pub claim: String,
    /// What becomes of it.
    pub next: Next,
    /// When its next repetition is due, if it leaves one behind.
    pub repetition: Option<Timestamp>,
    /// When that was.
    pub at: Timestamp,
    /// The verdict.
    pub result: &'static str,
    /// The exit code.
    pub exit_code: Option<u8>,
    /// The signal it died of.
    pub signal: Option<i32>,
    /// How it ended, in words.
    pub message: Option<String>,
    /// The end of what it wrote, if it failed.
    pub last_error: Option<String>,
    /// Only if its lease was not made longer than this: its worker was taken for dead by the lease alone.
    pub lease: Option<Timestamp>,
}

/// Jobs wanted from one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The queue.
    pub queue: String,
    /// Which priority goes first.
    pub order: PriorityOrder,
    /// Not more than these.
    pub places: u32,
}

/// What a worker tells and asks in one transaction.
#[derive(Debug, Clone)]
pub struct Turn {
    /// The worker.
    pub owner: Owner,
    /// The time.
    pub now: Timestamp,
    /// Until when jobs are the worker's.
    pub lease_until: Timestamp,
    /// What became of its jobs.
    pub finishes: Vec<Finish>,
    /// Whether the lease of the others is to be made longer.
    pub renew: bool,
    /// What is wanted, the first queue first; nothing where it has no free place.
    pub wants: Vec<Want>,
    /// Not more than these of all queues together.
    pub places: u32,
    /// The last turn found more than it had places for: the first look is likely to be enough, and takes at once.
    pub plenty: bool,
    /// What the new attempts are known by: no two turns have the same.
    pub token: String,
    /// This turn may have been done before, and the answer was lost.
    pub again: bool,
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Turned {
    /// Its new jobs.
    pub jobs: Vec<JobRecord>,
    /// When the next job is due that nobody has, if its queues were looked through to the end.
    pub next_due: Option<Timestamp>,
    /// After a renewal: the attempts it still has, and whether each is to be ended.
    pub held: Option<Vec<(String, bool)>>,
}

/// Which jobs are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobQuery {
    /// Only those of this queue.
    pub queue: Option<String>,
    /// Only those of this state.
    pub state: Option<JobState>,
    /// Not more than these.
    pub limit: u32,
    /// The time, which tells scheduled jobs from ready ones.
    pub now: Timestamp,
}

/// How many ended jobs of a queue are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The queue.
    pub queue: String,
    /// Of those that are done, and as many that were cancelled.
    pub done: Keep,
    /// Of those that failed.
    pub failed: Keep,
}

/// How many jobs of a state a queue has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueCount {
    /// The queue.
    pub queue: String,
    /// The state.
    pub state: JobState,
    /// How many.
    pub count: u64,
    /// The earliest due time among them, of those that have not ended.
    pub first_due: Option<Timestamp>,
}
