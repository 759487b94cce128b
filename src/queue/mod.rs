//! The rules of a job: its states, what the end of an attempt means, when it comes again. Decides only; `store` keeps
//! jobs, `worker` runs them.
//!
//! ```text
//!              due passes   claimed    OK, SKIP   HALT, EXIT   RETRY             stopped     dead worker      cancel
//! scheduled    ready        -          -          -            -                 -           -                cancelled
//! ready        -            running    -          -            -                 -           -                cancelled
//! running      -            -          done       failed       scheduled, or     ready, as   as RETRY, but    is ended:
//!                                                              failed (the last  if never    due at once      cancelled
//!                                                              attempt)          begun
//! done, failed, cancelled: the end; `retry` begins anew
//! ```
//! `done` and `failed` of a repeating job leave its next repetition behind, in the same transaction.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::config::queue_values::RetryDelay;
use crate::outcome::Verdict;

/// Where a job stands. The first two are one in the database: `waiting`, and its due time tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobState {
    /// It waits for its time.
    Scheduled,
    /// Its time has come; it waits for a worker.
    Ready,
    /// A worker has it.
    Running,
    /// It ended well.
    Done,
    /// It will not be tried again.
    Failed,
    /// Somebody did not want it any more.
    Cancelled,
}

/// All states, in the order of a job's life.
pub const STATES: [JobState; 6] =
    [JobState::Scheduled, JobState::Ready, JobState::Running, JobState::Done, JobState::Failed, JobState::Cancelled];

impl JobState {
    /// The word of tables and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The word in the database.
    pub fn stored(self) -> &'static str {
        match self {
            Self::Scheduled | Self::Ready => "waiting",
            Self::Running | Self::Done | Self::Failed | Self::Cancelled => self.word(),
        }
    }

    /// From the word in the database. One that is not known has come to its end somehow.
    pub fn of_stored(word: &str, due: Timestamp, now: Timestamp) -> Self {
        match word {
            "waiting" if due > now => Self::Scheduled,
            "waiting" => Self::Ready,
            "running" => Self::Running,
            "done" => Self::Done,
            "cancelled" => Self::Cancelled,
            _ => Self::Failed,
        }
    }
}

/// What becomes of a job that a worker had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It ended well; `true` when there was nothing to do.
    Done(bool),
    /// It will not be tried again.
    Failed,
    /// It is tried again, not before this.
    Again(Timestamp),
    /// It goes back as if it had never begun.
    Back,
    /// It was ended because somebody did not want it any more.
    Cancelled,
}

/// How a job is tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Patience {
    /// Attempts in all.
    pub max_attempts: u32,
    /// The wait between two.
    pub delay: RetryDelay,
}

/// What the end of an attempt means. `attempt` counts from 1; `cancelled` is whether somebody asked for its end.
pub fn after_attempt(verdict: Verdict, attempt: u32, patience: Patience, cancelled: bool, now: Timestamp) -> Next {
    match verdict {
        Verdict::Ok => Next::Done(false),
        Verdict::Skip => Next::Done(true),
        Verdict::Cancel | Verdict::Retry if cancelled => Next::Cancelled,
        Verdict::Cancel => Next::Back,
        Verdict::Halt | Verdict::Exit => Next::Failed,
        Verdict::Retry if attempt >= patience.max_attempts => Next::Failed,
        Verdict::Retry => Next::Again(later(now, patience.delay.wait(attempt))),
    }
}

/// What becomes of a job whose worker died: it is tried again at once, and what died was an attempt.
pub fn after_death(attempt: u32, max_attempts: u32, now: Timestamp) -> Next {
    if attempt >= max_attempts { Next::Failed } else { Next::Again(now) }
}

/// The next repetition of a job: counted from its planned time, and the first one that lies ahead. `None` when it does
/// not repeat, or not any more. What is asked for in steps of less than a second comes once a second.
pub fn next_repetition(planned: Timestamp, every: Option<Duration>, until: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let every = i128::try_from(every?.as_millis()).ok()?.max(1000);
    let (planned, now) = (i128::from(planned.as_millisecond()), i128::from(now.as_millisecond()));
    let steps = ((now - planned).max(0) / every) + 1;
    let next = Timestamp::from_millisecond(i64::try_from(planned + steps * every).ok()?).ok()?;
    (until.is_none_or(|until| next <= until)).then_some(next)
}

/// The next repetition, if this end of an attempt leaves one behind.
pub fn leaves_repetition(next: Next) -> bool {
    match next {
        Next::Done(_) | Next::Failed => true,
        Next::Again(_) | Next::Back | Next::Cancelled => false,
    }
}

/// So much after `time`, or the end of the calendar.
pub fn later(time: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| time.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

/// Whether a word can be the name of a job's task: a file of the task directory, and nothing that leads out of it.
///
/// # Errors
/// What was expected.
pub fn judge_task(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.contains(['/', '\0']) || name.starts_with(['.', '-']) {
        return Err("expected the name of a task: no `/`, not beginning with `.` or `-`");
    }
    Ok(())
}

/// Whether a program can be started with these arguments at all (execve(2), "Limits on size of arguments and environment").
/// The environment has its share of the second limit, and is known only when the job runs: what is near it may fail there.
///
/// # Errors
/// What no program can be given.
pub fn judge_args(args: &[String]) -> Result<(), String> {
    /// MAX_ARG_STRLEN, with the NUL at the end: 32 pages.
    const LONGEST: usize = 131_072;
    /// Three quarters of _STK_LIM, 8 MiB, which no limit of the stack exceeds; each argument has a pointer.
    const MOST: usize = 6 * 1024 * 1024;
    for (number, arg) in (1_u32..).zip(args) {
        if arg.contains('\0') {
            return Err(format!("argument {number} holds a NUL byte, which no program can be given"));
        }
        if arg.len() >= LONGEST {
            let length = arg.len();
            return Err(format!(
                "argument {number} has {length} bytes, and no program can be given more than {}: name a file",
                LONGEST - 1
            ));
        }
    }
    let all: usize = args.iter().map(|arg| arg.len() + 1 + size_of::<usize>()).sum();
    if all > MOST {
        return Err(format!(
            "its {} arguments are {all} bytes with their pointers, and no program can be given more than {MOST}: name a file",
            args.len()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + seconds).unwrap()
    }

    #[test]
    fn every_end_of_an_attempt() {
        let patience = Patience { max_attempts: 3, delay: RetryDelay::Quartic };
        #[rustfmt::skip]
        let table = [
            (Verdict::Ok, 1, false, Next::Done(false)),
            (Verdict::Ok, 3, true, Next::Done(false)),
            (Verdict::Skip, 1, false, Next::Done(true)),
            (Verdict::Halt, 1, false, Next::Failed),
            (Verdict::Exit, 1, false, Next::Failed),
            (Verdict::Retry, 1, false, Next::Again(at(6))),
            (Verdict::Retry, 2, false, Next::Again(at(21))),
            (Verdict::Retry, 3, false, Next::Failed),
            (Verdict::Retry, 1, true, Next::Cancelled),
            (Verdict::Cancel, 3, false, Next::Back),
            (Verdict::Cancel, 3, true, Next::Cancelled),
        ];
        for (verdict, attempt, cancelled, expected) in table {
            assert_eq!(after_attempt(verdict, attempt, patience, cancelled, at(0)), expected, "{verdict:?} {attempt} {cancelled}");
        }
        assert_eq!((after_death(2, 3, at(0)), after_death(3, 3, at(0))), (Next::Again(at(0)), Next::Failed));
    }

    #[test]
    fn repetitions_are_counted_from_the_plan_and_lie_ahead() {
        let every = Some(Duration::from_secs(60));
        let next = |until, now| next_repetition(at(0), every, until, at(now));
        assert_eq!([next(None, 1), next(None, 59), next(None, 60), next(None, 3601)], [at(60), at(60), at(120), at(3660)].map(Some));
        assert_eq!(next(None, -500), Some(at(60)), "one that was run early comes once more, not twice");
        assert_eq!((next(Some(at(60)), 1), next(Some(at(60)), 60)), (Some(at(60)), None));
        assert_eq!(next_repetition(at(0), None, None, at(1)), None);
        assert_eq!(next_repetition(at(0), Some(Duration::ZERO), None, at(1)), Some(at(2)), "never a busy loop");
        assert_eq!(next_repetition(at(0), Some(Duration::MAX), None, at(1)), None);
    }

    #[test]
    fn states_have_words_and_a_due_time_tells_two_apart() {
        for state in STATES {
            let due = if state == JobState::Scheduled { at(1) } else { at(0) };
            assert_eq!(JobState::of_stored(state.stored(), due, at(0)), state);
        }
    }

    #[test]
    fn what_no_program_can_be_given_is_no_argument() {
        let judge = |args: &[String]| judge_args(args);
        let long = |length| "x".repeat(length);
        assert_eq!(judge(&[String::new(), long(131_071)]), Ok(()));
        assert!(judge(&["a".into(), long(131_072)]).unwrap_err().starts_with("argument 2 has 131072 bytes"));
        assert!(judge(&["a\0b".into()]).unwrap_err().contains("NUL"));
        assert_eq!(judge(&vec![long(100_000); 60]), Ok(()));
        assert!(judge(&vec![long(100_000); 64]).unwrap_err().starts_with("its 64 arguments"));
        assert!(judge(&vec![String::new(); 1_000_000]).is_err(), "pointers count");
    }

    #[test]
    fn a_task_is_named_and_never_a_path() {
        assert!(judge_task("send-mail.py").is_ok() && judge_task("10-a").is_ok());
        for name in ["", "a/b", "../x", ".hidden", "-rf", "a\0b"] {
            assert!(judge_task(name).is_err(), "{name:?}");
        }
    }
}
