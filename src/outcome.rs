//! How things end: a process, a task, a run. Every ending has a name, and carries its data.

use std::fmt;
use std::time::Duration;

use crate::names::TaskName;

/// Which limit a task ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitKind {
    /// `max_time`: it took too long.
    MaxTime,
    /// `idle_timeout`: it reported no progress for too long.
    Idle,
}

impl LimitKind {
    /// The configuration key of the limit.
    pub fn key(self) -> &'static str {
        match self {
            Self::MaxTime => "max_time",
            Self::Idle => "idle_timeout",
        }
    }
}

/// What the kernel says of a process that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessEnd {
    /// It exited with this code.
    Code(u8),
    /// It died of this signal.
    Signal(i32),
}

/// How one try of a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitKind {
    /// By itself.
    Ended(ProcessEnd),
    /// We ended it, because a limit had passed. What it left the stage with does not count.
    TimedOut {
        /// Which limit.
        limit: LimitKind,
        /// The length of that limit.
        after: Duration,
    },
    /// We ended it for a reason that is not its own (a stop, a halt, the chain's limit).
    Cancelled,
    /// It never ran, and why.
    NotStarted(String),
}

impl ExitKind {
    /// The exit code, when the task ended with one by itself.
    pub fn code(&self) -> Option<u8> {
        match self {
            Self::Ended(ProcessEnd::Code(code)) => Some(*code),
            Self::Ended(ProcessEnd::Signal(_)) | Self::TimedOut { .. } | Self::Cancelled | Self::NotStarted(_) => None,
        }
    }

    /// The signal the task died of by itself.
    pub fn signal(&self) -> Option<i32> {
        match self {
            Self::Ended(ProcessEnd::Signal(signal)) => Some(*signal),
            Self::Ended(ProcessEnd::Code(_)) | Self::TimedOut { .. } | Self::Cancelled | Self::NotStarted(_) => None,
        }
    }
}

impl fmt::Display for ExitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(ProcessEnd::Code(code)) => write!(f, "exit {code}"),
            Self::Ended(ProcessEnd::Signal(signal)) => write!(f, "died of {}", signal_name(*signal)),
            Self::TimedOut { limit, after } => {
                write!(f, "timed out: {} of {} passed", limit.key(), crate::clock::Seconds(*after))
            }
            Self::Cancelled => f.write_str("stopped"),
            Self::NotStarted(why) => write!(f, "could not start: {why}"),
        }
    }
}

/// What the ending of a try means for the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Done; the next task.
    Ok,
    /// Done, and there was nothing to do.
    Skip,
    /// Not done; try again.
    Retry,
    /// Run the halt task, and stop.
    Halt,
    /// Stop without the halt task (`stop_codes`).
    Exit,
    /// We ended it; no failure, and no try used up.
    Cancel,
}

impl Verdict {
    /// The word hooks, logs and records use.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Skip => "SKIP",
            Self::Retry => "RETRY",
            Self::Halt => "HALT",
            Self::Exit => "EXIT",
            Self::Cancel => "CANCEL",
        }
    }
}

/// What each exit code means: `success_codes`, `halt_codes`, `stop_codes`, `skip_codes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codes {
    meaning: Box<[Verdict; 256]>,
}

impl Codes {
    /// The table in which every code means "try again".
    pub fn none() -> Self {
        Self { meaning: Box::new([Verdict::Retry; 256]) }
    }

    /// Gives `code` a meaning; tells the other meaning when it has one already.
    ///
    /// # Errors
    /// The verdict that another list has given to `code`.
    pub fn set(&mut self, code: u8, verdict: Verdict) -> Result<(), Verdict> {
        let slot = &mut self.meaning[usize::from(code)];
        if *slot != Verdict::Retry && *slot != verdict {
            return Err(*slot);
        }
        *slot = verdict;
        Ok(())
    }

    /// The verdict on how a try ended; the first rule that fits (DESIGN, "Verdict").
    pub fn verdict(&self, exit: &ExitKind) -> Verdict {
        match exit {
            ExitKind::Cancelled => Verdict::Cancel,
            ExitKind::TimedOut { .. } | ExitKind::NotStarted(_) => Verdict::Retry,
            ExitKind::Ended(ProcessEnd::Signal(_)) => Verdict::Retry,
            ExitKind::Ended(ProcessEnd::Code(code)) => self.meaning[usize::from(*code)],
        }
    }
}

/// Why the halt task runs; its `RUNNER_HALT_REASON`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HaltReason {
    /// A task said so with its exit code.
    Task,
    /// The tries, or the time for them, were used up.
    GaveUp,
    /// `chain_max_time` passed.
    ChainLimit,
    /// `--halt-after`: all runs were done.
    AfterLast,
}

impl HaltReason {
    /// The word in `RUNNER_HALT_REASON`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Task => "halt",
            Self::GaveUp => "give-up",
            Self::ChainLimit => "chain-limit",
            Self::AfterLast => "halt-after",
        }
    }
}

/// Why a run gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveUp {
    /// `max_tries` are used up.
    Tries,
    /// `retry_deadline` leaves no time for another try.
    Deadline,
    /// `chain_max_time` passed.
    ChainLimit,
    /// A process of the failed task survives KILL; a second copy must not run beside it.
    Unkillable,
}

impl GiveUp {
    /// Why, in words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Tries => "the tries are used up",
            Self::Deadline => "retry_deadline leaves no time for another try",
            Self::ChainLimit => "chain_max_time passed",
            Self::Unkillable => "a process of the failed task cannot be killed",
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunOutcome {
    /// Every task is done.
    Done,
    /// Not done, and not tried again.
    GaveUp {
        /// Why.
        why: GiveUp,
        /// The task that failed last, if it was one task's fault.
        task: Option<TaskName>,
    },
    /// A task asked for the halt task.
    Halted {
        /// Which.
        task: TaskName,
    },
    /// A task ended the run with one of its `stop_codes`.
    StoppedByTask {
        /// Which.
        task: TaskName,
    },
    /// The lock it held was lost, or nobody could tell any more whose it was.
    LockLost,
    /// We were told to stop by this signal.
    Signalled(i32),
}

impl RunOutcome {
    /// The word in records and hooks.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::GaveUp { .. } => "gave_up",
            Self::Halted { .. } => "halted",
            Self::StoppedByTask { .. } => "stopped",
            Self::LockLost => "lock_lost",
            Self::Signalled(_) => "signalled",
        }
    }

    /// The task whose fault or wish it was.
    pub fn task(&self) -> Option<&TaskName> {
        match self {
            Self::GaveUp { task, .. } => task.as_ref(),
            Self::Halted { task } | Self::StoppedByTask { task } => Some(task),
            Self::Done | Self::LockLost | Self::Signalled(_) => None,
        }
    }
}

/// The name of a signal, as `kill -l` has it.
pub fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 32] = [
        "0", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT",
        "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    match usize::try_from(signal).ok().and_then(|index| NAMES.get(index)) {
        Some(name) => format!("SIG{name}"),
        None => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_the_first_rule_that_fits() {
        let mut codes = Codes::none();
        codes.set(0, Verdict::Ok).unwrap();
        codes.set(2, Verdict::Halt).unwrap();
        let code = |n| ExitKind::Ended(ProcessEnd::Code(n));
        let timed_out = ExitKind::TimedOut { limit: LimitKind::MaxTime, after: Duration::from_secs(1) };
        let table = [
            (ExitKind::Cancelled, Verdict::Cancel),
            (timed_out, Verdict::Retry),
            (ExitKind::NotStarted("no such file".into()), Verdict::Retry),
            (ExitKind::Ended(ProcessEnd::Signal(9)), Verdict::Retry),
            (code(0), Verdict::Ok),
            (code(2), Verdict::Halt),
            (code(1), Verdict::Retry),
            (code(255), Verdict::Retry),
        ];
        for (exit, verdict) in table {
            assert_eq!(codes.verdict(&exit), verdict, "{exit}");
        }
    }

    #[test]
    fn a_code_has_one_meaning() {
        let mut codes = Codes::none();
        codes.set(3, Verdict::Exit).unwrap();
        assert_eq!(codes.set(3, Verdict::Exit), Ok(()));
        assert_eq!(codes.set(3, Verdict::Skip), Err(Verdict::Exit));
    }
}
