//! What happens in a run, told once and read by many: the log, progress bars, the service manager.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Moment;
use crate::names::{RunId, TaskName};
use crate::opinion::{Gravest, Opinion};
use crate::outcome::{ExitKind, HaltReason, RunOutcome, Verdict, signal_name};
use crate::trigger::Trigger;

/// Which run an event belongs to.
#[derive(Debug, Clone)]
pub struct RunRef {
    /// The name of the chain.
    pub chain: String,
    /// The id of the run.
    pub id: RunId,
    /// Why it began.
    pub trigger: Trigger,
}

/// How one try of a task ended.
#[derive(Debug, Clone)]
pub struct TaskEnd {
    /// The task.
    pub task: TaskName,
    /// Which try it was, from 1.
    pub try_num: u32,
    /// How many there are; `u32::MAX` where there is no limit.
    pub max_tries: u32,
    /// How its process ended.
    pub exit: ExitKind,
    /// What that means.
    pub verdict: Verdict,
    /// A RETRY after which there is no further try.
    pub last: bool,
    /// From its start to the end of its last process.
    pub duration: Duration,
    /// What it said last of itself, if it did.
    pub said: Option<Opinion>,
    /// Processes of it that live on, by pid.
    pub left_behind: Vec<i32>,
    /// A process of it survived KILL.
    pub unkillable: bool,
    /// The end of what it wrote, where that was kept.
    pub tail: Vec<u8>,
    /// How much of what it wrote is not in `tail`, in bytes.
    pub tail_lost: u64,
    /// Its output was kept back and has not been shown yet.
    pub show_tail: bool,
}

impl TaskEnd {
    /// What it said of itself, where somebody should see it although the exit code is good.
    pub fn doubt(&self) -> Option<Opinion> {
        self.said.filter(|said| said.is_doubt())
    }
}

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A run begins.
    RunStarted {
        /// How many tasks it has.
        tasks: usize,
    },
    /// A try of a task begins.
    TaskStarted {
        /// The task.
        task: &'a TaskName,
        /// Which try it is.
        try_num: u32,
        /// How many there are.
        max_tries: u32,
        /// When, by the wall clock.
        at: Timestamp,
    },
    /// A task says how far it is.
    TaskProgress {
        /// The task.
        task: &'a TaskName,
        /// 0 to 100.
        percent: Option<u8>,
        /// In its own words.
        status: Option<&'a str>,
        /// What it thinks of itself.
        result: Option<Opinion>,
        /// When it was heard.
        at: Moment,
    },
    /// A limit of a task passed, or it is to stop; it is being ended.
    TaskEnding {
        /// The task.
        task: &'a TaskName,
        /// Why.
        why: &'a str,
        /// From TERM to KILL.
        kill_after: Duration,
    },
    /// A try of a task has ended, and so have its processes.
    TaskEnded(&'a TaskEnd),
    /// A failed task is tried again later, alone.
    TaskSleeping {
        /// The task.
        task: &'a TaskName,
        /// For how long.
        wait: Duration,
    },
    /// Everything is tried again later.
    RunRetry {
        /// For how long it pauses.
        wait: Duration,
        /// The try that comes.
        try_num: u32,
        /// How many there are.
        max_tries: u32,
    },
    /// The halt task begins.
    HaltStarted {
        /// Its file.
        file: &'a str,
        /// Why.
        reason: HaltReason,
    },
    /// The halt task has ended, or could not begin.
    HaltEnded {
        /// Its file.
        file: &'a str,
        /// How.
        exit: &'a ExitKind,
        /// How long it took.
        duration: Duration,
    },
    /// A hook failed, hung or did not start. It changes nothing.
    HookFailed {
        /// Which key named it.
        key: &'static str,
        /// How it failed.
        why: &'a str,
    },
    /// We were told to stop.
    Stopping {
        /// By this signal.
        signal: i32,
        /// Who wants that.
        by: &'a StoppedBy,
        /// It was told before: now it is killed.
        again: bool,
    },
    /// A run does not begin: it has no right to.
    RunRefused {
        /// Why.
        why: &'a str,
    },
    /// A run is over.
    RunEnded {
        /// How.
        outcome: &'a RunOutcome,
        /// How long it took, the halt task not included.
        duration: Duration,
        /// Tries of tasks that were started.
        started: u32,
        /// What its tasks said last of themselves, if they did.
        said: Option<&'a Gravest>,
    },
}

/// What a run does when somebody asks.
#[derive(Debug)]
pub struct Doing<'a> {
    /// Its tasks that run, each with the process that leads it.
    pub processes: &'a [(i32, &'a TaskName)],
    /// What it does since its end was told.
    pub closing: Option<&'a Closing>,
}

/// What a run whose end was told still does.
#[derive(Debug, Clone)]
pub struct Closing {
    /// How it ended.
    pub outcome: RunOutcome,
    /// When it began, by the wall clock.
    pub began: Timestamp,
    /// What of it runs.
    pub what: ClosingPart,
    /// The process that leads that.
    pub pid: i32,
}

/// What of a run is left to do when its end was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClosingPart {
    /// The hook of its chain.
    ChainHook,
    /// The halt task.
    HaltTask,
}

impl ClosingPart {
    /// The word in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::ChainHook => "chain_hook",
            Self::HaltTask => "halt_task",
        }
    }
}

/// Somebody who wants to hear of events.
pub trait Reader {
    /// Hears of one. Must not fail, and must not take long.
    fn tell(&mut self, run: &RunRef, event: &Event<'_>);

    /// How soon it wants to be woken although nothing has happened: a screen whose clocks move.
    fn wake_in(&self) -> Option<Duration> {
        None
    }

    /// It is woken, for whatever reason.
    fn wake(&mut self) {}

    /// How the run stands, in the words of whoever asks for it.
    fn describe(&self, _run: &RunRef, _doing: &Doing<'_>) -> Option<Vec<u8>> {
        None
    }

    /// Whether a task may be started now. Asked right before each start; only who holds the right to run says no.
    fn may_start(&self) -> bool {
        true
    }
}

/// Who wants a run to stop, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoppedBy {
    /// A signal told this program to.
    Signal,
    /// Somebody asked this one run to (`runner stop`); the program goes on if there is more to do.
    Asked,
    /// This slot of its chain takes its place.
    Slot(String),
    /// The daemon whose run it is stops.
    Daemon,
}

/// What stands in the words of a run whose place a slot of its chain took; the slot follows.
const REPLACED: &str = " (replaced by the slot ";

impl StoppedBy {
    /// Whether these words of a run say that a slot of its chain took its place.
    pub fn is_slot(words: &str) -> bool {
        words.contains(REPLACED)
    }

    /// In words, for a run that was told so by this signal.
    pub fn words(&self, signal: i32) -> String {
        let why = match self {
            Self::Signal => String::new(),
            Self::Asked => " (runner stop)".to_owned(),
            Self::Slot(slot) => format!("{REPLACED}{slot})"),
            Self::Daemon => " (the daemon stops)".to_owned(),
        };
        format!("told to stop by {}{why}", signal_name(signal))
    }
}
