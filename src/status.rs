//! What goes on, as one value: what runs, what is due, what ran, what waits, who holds the locks. The daemon fills it
//! in; the page, `/status.json`, the metrics and `runner status` read it. It knows nobody; keys are only ever added.

mod date;
mod past;
mod totals;

use serde::{Deserialize, Serialize};

use crate::opinion::Opinion;
pub use date::Date;
pub use past::{Past, is_ahead};
pub use totals::{JobTotal, JobTotals, ResultTotal, RunTotal, SaidTotal, Totals, TryTotal};

/// The version of the shape below. It grows when a key changes its meaning, which it should not.
pub const VERSION: u32 = 1;

/// What is written of a run that lost its lock: the outcome says that it did.
pub const LOCK_LOST: &str = "somebody else may run it now";

/// All there is to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// The machine.
    pub host: String,
    /// The version of runner.
    pub program: String,
    /// When this was said.
    pub time: Date,
    /// When the daemon began; none where nobody but the reading command speaks.
    pub since: Option<Date>,
    /// The configuration that is in force.
    pub configuration: Configuration,
    /// The chains, in the order of their names.
    pub chains: Vec<Chain>,
    /// The queues, in the order of their names.
    pub queues: Vec<Queue>,
    /// The locks.
    pub locks: Vec<Lock>,
    /// What somebody should know of all of this.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<Remark>,
}

impl Status {
    /// The clock is none, for this reason: slots have no date then, and all that have one wait for it.
    pub fn without_clock(&mut self, why: &str) {
        for chain in self.chains.iter_mut().filter(|chain| !chain.next.is_empty()) {
            chain.next.clear();
            chain.waits_because.get_or_insert_with(|| why.to_owned());
        }
        self.remarks.push(Remark { kind: NO_CLOCK.to_owned(), since: None, queue: None, text: why.to_owned() });
    }
}

/// Something to be known that belongs to no single run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// Its name: `nobody_fires`, `nobody_works`, `no_clock`, `token_refused`, `history_unknown`.
    pub kind: String,
    /// Since when, where that is known.
    pub since: Option<Date>,
    /// The queue it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// In words.
    pub text: String,
}

/// The configuration in force, and one that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Its file.
    pub file: String,
    /// When it was read.
    pub loaded_at: Date,
    /// Why a newer one is not in force.
    pub refused: Option<RefusedConfiguration>,
}

/// A configuration that was changed and could not be taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedConfiguration {
    /// When that was tried.
    pub at: Date,
    /// What is wrong, one line for each error.
    pub message: String,
    /// The file of the first error.
    pub file: Option<String>,
    /// Its line.
    pub line: Option<u32>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Whether it fires on its schedule.
    pub enabled: bool,
    /// Its schedule as it was written, a line each.
    pub schedule: Vec<String>,
    /// The time zone of the schedule, if one was named.
    pub timezone: Option<String>,
    /// The next slots, the first one first.
    pub next: Vec<Date>,
    /// Why it does not run although it might: disabled, lock held, waits for idle time.
    pub waits_because: Option<String>,
    /// Its runs that are under way.
    pub running: Vec<Run>,
    /// Its last runs, the newest first.
    pub runs: Vec<Run>,
    /// When a run last ended well.
    pub last_success: Option<Date>,
    /// What was counted since the daemon began.
    pub totals: Totals,
    /// What came to nothing since a run of it last began; none where nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<GivenUp>,
}

impl Chain {
    /// Its last run that began and has ended, whatever did not begin since.
    pub fn last_run(&self) -> Option<&Run> {
        self.runs.iter().find(|run| run.outcome.is_some_and(|outcome| outcome != Ended::NotStarted))
    }

    /// What keeps it from running, if it was refused the last time: its lock was held, its task directory is wrong.
    pub fn refused(&self) -> Option<&GivenUp> {
        self.given_up.as_ref().filter(|given_up| self.running.is_empty() && given_up.is_refusal())
    }
}

/// What came to nothing since a run of a chain last began: slots that were given up, runs that were refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// How many.
    pub count: u64,
    /// When the last one was.
    pub last_at: Date,
    /// What the last one was: `skipped` (a slot was given up), `lock`, `task_dir`, `overlap`.
    pub reason: String,
    /// Why the last one came to nothing, in words.
    pub why: Option<String>,
}

impl GivenUp {
    /// Whether the last one was refused, and did not only come at a bad time.
    pub fn is_refusal(&self) -> bool {
        self.reason != SKIPPED
    }

    /// In words. That the chain still ran is no news: it is the rule of such slots, and may be over.
    pub fn words(&self) -> String {
        let s = if self.count == 1 { "" } else { "s" };
        let what = if self.is_refusal() { format!("run{s} refused") } else { format!("slot{s} given up") };
        let busy = |why: &&String| why.contains("still runs") || why.contains("has not begun yet");
        let why = self.why.as_ref().filter(|why| !busy(why)).map(|why| format!(": {why}")).unwrap_or_default();
        format!("{} {what} since{why}", self.count)
    }
}

/// The kind of a remark: what ran before, and in other programs, is not known yet.
pub const HISTORY_UNKNOWN: &str = "history_unknown";
/// The kind of a remark: the clock shows a time that cannot be, and only `@boot` fires.
pub const NO_CLOCK: &str = "no_clock";
/// The reason of a slot that was given up.
pub const SKIPPED: &str = "skipped";

/// How a run ended, or that it did not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Every task is done.
    Done,
    /// Tries or time were used up.
    GaveUp,
    /// A task asked for the halt task.
    Halted,
    /// A task ended the run by its code.
    Stopped,
    /// We were told to stop.
    Signalled,
    /// The lock was lost meanwhile.
    LockLost,
    /// It did not begin: lock held, slot skipped, task directory wrong.
    NotStarted,
    /// Nobody saw its end: the machine or runner went down.
    Lost,
}

impl Ended {
    /// All there are.
    pub const ALL: [Self; 8] =
        [Self::Done, Self::GaveUp, Self::Halted, Self::Stopped, Self::Signalled, Self::LockLost, Self::NotStarted, Self::Lost];

    /// The word in JSON and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::GaveUp => "gave_up",
            Self::Halted => "halted",
            Self::Stopped => "stopped",
            Self::Signalled => "signalled",
            Self::LockLost => "lock_lost",
            Self::NotStarted => "not_started",
            Self::Lost => "lost",
        }
    }

    /// The outcome that the record of a run names. Words of a newer runner are an end that nobody knows.
    pub fn of_record(word: &str) -> Self {
        match word {
            "refused" | SKIPPED | "task_dir" => Self::NotStarted,
            "crashed" => Self::Lost,
            word => Self::ALL.into_iter().find(|ended| ended.word() == word).unwrap_or(Self::Lost),
        }
    }

    /// The word for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::GaveUp => "gave up",
            Self::Halted => "halted",
            Self::Stopped => "stopped by a task",
            Self::Signalled => "stopped",
            Self::LockLost => "lock lost",
            Self::NotStarted => "did not run",
            Self::Lost => "crashed",
        }
    }

    /// Why it came to that, in words: the task that is to blame, and what is written of it.
    pub fn why(self, task: Option<&str>, message: Option<&str>) -> Option<String> {
        match (self, task, message) {
            (Self::Halted, Some(task), None) => Some(format!("halted by {task}")),
            (Self::Stopped, Some(task), None) => Some(format!("stopped by {task}")),
            // What matters first: columns are narrow.
            (_, Some(task), Some(message)) => Some(format!("{task}, {message}")),
            (_, task, message) => message.or(task).map(str::to_owned),
        }
    }

    /// The word of jobslib's `status`.
    pub fn of_jobslib(self) -> &'static str {
        match self {
            Self::Done => "succeeded",
            Self::GaveUp | Self::Halted | Self::Stopped => "failed",
            Self::NotStarted => "pending",
            Self::Signalled => "interrupted",
            Self::LockLost | Self::Lost => "killed",
        }
    }
}

/// One run of a chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// What made it begin: boot, schedule, missed, tick, now, queue.
    pub trigger: String,
    /// The slot it was for.
    pub scheduled_at: Option<Date>,
    /// When it began.
    pub started_at: Date,
    /// When it ended; none while it runs.
    pub ended_at: Option<Date>,
    /// How it ended; none while it runs.
    pub outcome: Option<Ended>,
    /// Why, in words.
    pub why: Option<String>,
    /// The exit code that runner gives to such an end.
    pub exit_code: Option<u8>,
    /// The gravest of what its tasks said last of themselves: success, warning, error; none while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// Which try of the whole chain it is.
    pub try_num: u32,
    /// How many there are; 4294967295 where there is no limit.
    pub max_tries: u32,
    /// When it begins again from its start: this try is still to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Date>,
    /// What of it still runs although its tasks are over and `outcome` is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing: Option<Closing>,
    /// Its tasks, in their order.
    pub tasks: Vec<Task>,
}

impl Run {
    /// The same of a chain with so many tries: not everybody who tells of a run knows how many there are.
    #[must_use]
    pub fn with_tries(self, of_chain: u32) -> Self {
        let max_tries = if self.max_tries == u32::MAX { of_chain } else { self.max_tries };
        Self { max_tries, ..self }
    }

    /// How long it took, or has taken until `now`, in seconds.
    pub fn seconds(&self, now: Date) -> f64 {
        self.started_at.seconds_until(self.ended_at.unwrap_or(now)).max(0.0)
    }

    /// The word of its tasks, where it is done and they say that somebody should have a look.
    pub fn doubt(&self) -> Option<&str> {
        let said = self.said.as_deref().filter(|_| self.outcome == Some(Ended::Done));
        said.filter(|said| Opinion::parse(said).is_some_and(Opinion::is_doubt))
    }

    /// How it ended, for people; none while it runs.
    pub fn words(&self) -> Option<String> {
        let word = self.outcome?.words();
        Some(self.doubt().map_or_else(|| word.to_owned(), |said| format!("{word}, says {said}")))
    }
}

/// Where a task of a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Its turn has not come.
    Waiting,
    /// It runs.
    Running,
    /// It is done.
    Done,
    /// It had nothing to do.
    Skipped,
    /// It failed, and is not tried again alone.
    Failed,
    /// It failed, and is tried again later.
    Sleeping,
    /// We ended it, or it was never begun.
    Cancelled,
}

impl TaskState {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Sleeping => "sleeping",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A task of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its file.
    pub file: String,
    /// Where it stands.
    pub state: TaskState,
    /// How far it says it is, 0 to 100.
    pub progress: Option<u8>,
    /// What it says of itself.
    pub status: Option<String>,
    /// When it is tried again.
    pub until: Option<Date>,
    /// The process that leads it, while it runs and where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// How many tries it has, where it has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tries: Option<u32>,
    /// Its tries, the first one first. The last may still run.
    pub tries: Vec<Try>,
}

impl Task {
    /// What its newest try has said of itself.
    pub fn said(&self) -> Option<&str> {
        self.tries.last()?.said.as_deref()
    }

    /// Whether it runs or waits to be tried again.
    pub fn is_going(&self) -> bool {
        matches!(self.state, TaskState::Running | TaskState::Sleeping)
    }
}

/// A run that tells of itself when it is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Going {
    /// [`VERSION`].
    pub version: u32,
    /// The chain.
    pub chain: String,
    /// The state directory of its program: where its record will be.
    pub state_dir: String,
    /// The database of its program, as it may be shown; older programs do not say.
    #[serde(default)]
    pub database: Option<String>,
    /// Its process.
    pub pid: u32,
    /// How it stands.
    pub run: Run,
}

/// What of a run goes on when its end was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// `chain_hook` or `halt_task`.
    pub what: String,
    /// The process that leads it.
    pub pid: i32,
}

/// One try of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Try {
    /// Which, from 1.
    pub try_num: u32,
    /// When it began.
    pub started_at: Date,
    /// How long it took, in milliseconds; none while it runs.
    pub duration_ms: Option<u64>,
    /// Its result: OK, SKIP, RETRY, HALT, EXIT, CANCEL; none while it runs.
    pub result: Option<String>,
    /// How it ended, in words.
    pub end: Option<String>,
    /// The code it exited with.
    pub exit_code: Option<u8>,
    /// The signal it died of.
    pub signal: Option<i32>,
    /// Whether it took too long.
    pub timed_out: bool,
    /// What it said last of itself: success, warning, error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// The end of what it wrote, where that was kept.
    pub output: Option<String>,
    /// How much of what it wrote is not in `output`, in bytes.
    pub output_lost: u64,
}

impl Try {
    /// One that runs.
    pub fn begun(try_num: u32, started_at: Date) -> Self {
        Self {
            try_num,
            started_at,
            duration_ms: None,
            result: None,
            end: None,
            exit_code: None,
            signal: None,
            timed_out: false,
            said: None,
            output: None,
            output_lost: 0,
        }
    }
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Jobs that are due later.
    pub scheduled: u64,
    /// Jobs that are due.
    pub ready: u64,
    /// Jobs that run.
    pub running: u64,
    /// Jobs that have failed for good and are kept.
    pub failed: u64,
    /// Since when the oldest of the ready jobs is due.
    pub oldest_ready: Option<Date>,
    /// The jobs that run here.
    pub jobs: Vec<Job>,
    /// Jobs that are done and are kept.
    #[serde(default)]
    pub done: u64,
    /// Jobs that nobody wanted any more, and that are kept.
    #[serde(default)]
    pub cancelled: u64,
    /// How many of its jobs this program runs side by side; none where it does not work it.
    #[serde(default)]
    pub places: Option<u64>,
    /// Why its jobs are not taken, although this program works it.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Why its jobs could not be counted: the numbers are those of the last time, or none.
    #[serde(default)]
    pub uncounted: Option<String>,
    /// What this program has done of it since it began.
    #[serde(default)]
    pub totals: JobTotals,
}

/// A job that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// Its name, or its task.
    pub name: String,
    /// Which attempt it is.
    pub attempt: u32,
    /// How many there are.
    pub max_attempts: u32,
    /// When it began.
    pub started_at: Date,
    /// How far it says it is, 0 to 100.
    pub progress: Option<u8>,
    /// What it says of itself.
    pub status: Option<String>,
}

/// A lock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lock {
    /// Where it is, without its password.
    pub name: String,
    /// What it is in: file, postgresql, etcd, consul.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub engine: String,
    /// Its key there; of a file its path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// The chains whose runs need it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chains: Vec<String>,
    /// Whether a process of this machine holds it.
    pub held_here: bool,
    /// Who holds it; none where it is free, or nobody knows.
    pub holder: Option<Holder>,
    /// The fencing token of its owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// Why nobody knows whether it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    /// The machine.
    pub host: String,
    /// The process there.
    pub pid: i32,
    /// The run.
    pub run_id: Option<String>,
    /// What runs under it, where no run of a chain does: the command of `runner lock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Since when.
    pub since: Date,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_keeps_its_offset() {
        for text in ["2026-11-21T06:34:46.117+00:00", "2026-11-21T06:34:46.000+01:00", "1970-01-01T00:00:00.001-03:30"] {
            assert_eq!(text.parse::<Date>().unwrap().to_string(), text);
        }
        assert!("2026-11-21".parse::<Date>().is_err());
    }

    #[test]
    fn the_words_of_json_are_those_of_metrics() {
        for ended in Ended::ALL {
            assert_eq!(serde_json::to_string(&ended).unwrap(), format!("\"{}\"", ended.word()));
        }
    }
}
