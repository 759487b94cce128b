//! When a chain runs once more: `times`, `run_interval`, `sleep_interval`. Decides only.

use std::time::Duration;

use crate::clock::Moment;
use crate::outcome::RunOutcome;

/// No two runs begin within this, whatever the intervals say: a loop of runs that do nothing must not eat a processor.
pub const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// How often, and how far apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    /// How many runs; 0 is for ever.
    pub times: u32,
    /// The time between them, if one was set.
    pub interval: Option<Interval>,
}

/// What an interval is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// `run_interval`: from the beginning of the last run; if that is over, at once.
    FromBegin(Duration),
    /// `sleep_interval`: from the end of the last run.
    FromEnd(Duration),
}

/// What comes after a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Stop,
    /// Another run, not before this.
    At(Moment),
}

impl Repeat {
    /// What comes after the run number `done` (from 1), which began and ended so.
    ///
    /// A failed run ends a loop without an interval, one that lost its lock as well; with an interval the loop goes on.
    /// HALT, EXIT and signals end it always.
    pub fn next(&self, done: u32, began: Moment, ended: Moment, outcome: &RunOutcome) -> Next {
        let goes_on = match outcome {
            RunOutcome::Done => true,
            RunOutcome::GaveUp { .. } | RunOutcome::LockLost => self.interval.is_some(),
            RunOutcome::Halted { .. } | RunOutcome::StoppedByTask { .. } | RunOutcome::Signalled(_) => false,
        };
        self.after(done, began, ended, goes_on)
    }

    /// What comes after a run that did not begin, because somebody else had the lock from `asked` to `refused`. It
    /// counts as a run, and as one that failed.
    pub fn after_refusal(&self, done: u32, asked: Moment, refused: Moment) -> Next {
        self.after(done, asked, refused, self.interval.is_some())
    }

    /// The same with intervals twice as long: another machine is to have its turn (`release_on_error`).
    #[must_use]
    pub fn twice_as_long(self) -> Self {
        let interval = self.interval.map(|interval| match interval {
            Interval::FromBegin(interval) => Interval::FromBegin(interval.saturating_mul(2)),
            Interval::FromEnd(interval) => Interval::FromEnd(interval.saturating_mul(2)),
        });
        Self { interval, ..self }
    }

    fn after(&self, done: u32, began: Moment, ended: Moment, goes_on: bool) -> Next {
        if !goes_on || (self.times != 0 && done >= self.times) {
            return Next::Stop;
        }
        let wanted = match self.interval {
            None => ended,
            Some(Interval::FromBegin(interval)) => (began + interval).max(ended),
            Some(Interval::FromEnd(interval)) => ended + interval,
        };
        Next::At(wanted.max(began + LEAST_INTERVAL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::GiveUp;

    fn at(seconds: u64) -> Moment {
        Moment::at(Duration::from_secs(seconds))
    }

    #[test]
    fn intervals_are_counted_from_where_they_say() {
        let next = |times, interval, done, ended| Repeat { times, interval }.next(done, at(100), at(ended), &RunOutcome::Done);
        let ten = Duration::from_secs(10);
        assert_eq!(next(3, None, 3, 105), Next::Stop);
        assert_eq!(next(0, None, 3, 105), Next::At(at(105)));
        assert_eq!(next(0, None, 3, 100), Next::At(at(101)), "never two runs within a second");
        assert_eq!(next(0, Some(Interval::FromBegin(ten)), 1, 103), Next::At(at(110)));
        assert_eq!(next(0, Some(Interval::FromBegin(ten)), 1, 150), Next::At(at(150)), "late: at once");
        assert_eq!(next(0, Some(Interval::FromEnd(ten)), 1, 150), Next::At(at(160)));
    }

    #[test]
    fn a_failed_run_ends_a_loop_without_interval() {
        let failed = RunOutcome::GaveUp { why: GiveUp::Tries, task: None };
        let next = |interval, outcome: &RunOutcome| Repeat { times: 0, interval }.next(1, at(0), at(5), outcome);
        let every = Some(Interval::FromEnd(Duration::from_secs(1)));
        assert_eq!(next(None, &failed), Next::Stop);
        assert_eq!(next(every, &failed), Next::At(at(6)));
        assert_eq!(next(every, &RunOutcome::Signalled(15)), Next::Stop);
        assert_eq!((next(None, &RunOutcome::LockLost), next(every, &RunOutcome::LockLost)), (Next::Stop, Next::At(at(6))));
    }

    #[test]
    fn a_refused_run_counts_and_a_failure_may_wait_for_twice_as_long() {
        let ten = Repeat { times: 2, interval: Some(Interval::FromBegin(Duration::from_secs(10))) };
        assert_eq!(ten.after_refusal(1, at(0), at(3)), Next::At(at(10)));
        assert_eq!(ten.after_refusal(2, at(0), at(3)), Next::Stop);
        assert_eq!(ten.twice_as_long().after_refusal(1, at(0), at(3)), Next::At(at(20)));
        assert_eq!(Repeat { times: 0, interval: None }.after_refusal(1, at(0), at(3)), Next::Stop);
    }
}
