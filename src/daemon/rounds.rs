//! The turns of idle chains: after all others of their tick, one after the other, while time is left. Decides only.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::names::RunId;
use crate::schedule::window::time_left;

/// Something that runs under an id.
pub trait HasRun {
    /// Its id.
    fn run(&self) -> &RunId;
}

/// The ticks in which idle chains wait for their turn.
#[derive(Debug)]
pub struct Rounds<T> {
    rounds: Vec<Round<T>>,
}

#[derive(Debug)]
struct Round<T> {
    /// What has to end before the next one has its turn.
    going: HashSet<RunId>,
    idle: VecDeque<(T, Timestamp, Duration)>,
}

/// What becomes of an idle chain.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// It runs.
    Start(T),
    /// Its window is over.
    NoTime(T),
}

impl<T> Default for Rounds<T> {
    fn default() -> Self {
        Self { rounds: Vec::new() }
    }
}

impl<T: HasRun> Rounds<T> {
    /// Idle chains, each with the moment from which its window counts, and that; they wait for the runs of `going`.
    pub fn add(&mut self, idle: Vec<(T, Timestamp, Duration)>, going: HashSet<RunId>) {
        self.rounds.push(Round { going, idle: idle.into() });
    }

    /// A run has ended, or did not begin after all.
    pub fn ended(&mut self, run: &RunId) {
        for round in &mut self.rounds {
            round.going.remove(run);
        }
        self.rounds.retain(|round| !round.idle.is_empty() || !round.going.is_empty());
    }

    /// Takes out those that wait and of which this is true.
    pub fn take_out(&mut self, is_wanted: impl Fn(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for round in &mut self.rounds {
            let (out, stays): (VecDeque<_>, VecDeque<_>) =
                std::mem::take(&mut round.idle).into_iter().partition(|(chain, ..)| is_wanted(chain));
            round.idle = stays;
            taken.extend(out.into_iter().map(|(chain, ..)| chain));
        }
        self.rounds.retain(|round| !round.idle.is_empty() || !round.going.is_empty());
        taken
    }

    /// The windows of those that wait are as long as this says from now on.
    pub fn set_windows(&mut self, window_of: impl Fn(&T) -> Duration) {
        for (chain, _, window) in self.rounds.iter_mut().flat_map(|round| &mut round.idle) {
            *window = window_of(chain);
        }
    }

    /// When the first window of those that wait is over.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.rounds.iter().flat_map(|round| &round.idle).filter_map(end_of).min()
    }

    /// One whose window is over, whomever it waits for.
    fn take_late(&mut self, now: Timestamp) -> Option<Step<T>> {
        for round in &mut self.rounds {
            let is_late = |(_, begins, window): &(T, Timestamp, Duration)| !time_left(*begins, *window, now).is_positive();
            if let Some(at) = round.idle.iter().position(is_late) {
                let (chain, ..) = round.idle.remove(at)?;
                return Some(Step::NoTime(chain));
            }
        }
        None
    }

    /// The next one whose turn it is, or whose window is over, if there is one.
    pub fn next(&mut self, now: Timestamp) -> Option<Step<T>> {
        if let Some(late) = self.take_late(now) {
            self.rounds.retain(|round| !round.idle.is_empty() || !round.going.is_empty());
            return Some(late);
        }
        let round = self.rounds.iter_mut().find(|round| round.going.is_empty() && !round.idle.is_empty())?;
        let (chain, ..) = round.idle.pop_front()?;
        round.going.insert(chain.run().clone());
        let step = Step::Start(chain);
        self.rounds.retain(|round| !round.idle.is_empty() || !round.going.is_empty());
        Some(step)
    }

    /// Those that wait: when the window of each ends, if it does, and the runs it waits for.
    pub fn waiting(&self) -> impl Iterator<Item = (&T, Option<Timestamp>, &HashSet<RunId>)> {
        self.rounds.iter().flat_map(|round| round.idle.iter().map(|waiting| (&waiting.0, end_of(waiting), &round.going)))
    }

    /// Whether nobody waits for a turn.
    pub fn is_empty(&self) -> bool {
        self.rounds.iter().all(|round| round.idle.is_empty())
    }
}

/// When a window is over, if it ends.
fn end_of<T>((_, begins, window): &(T, Timestamp, Duration)) -> Option<Timestamp> {
    begins.checked_add(SignedDuration::try_from(*window).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    impl HasRun for RunId {
        fn run(&self) -> &RunId {
            self
        }
    }

    fn run(number: u32) -> RunId {
        RunId::new("", number, 0)
    }

    #[test]
    fn whose_window_is_over_waits_for_nobody() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let window = Duration::from_secs;
        let mut rounds = Rounds::default();
        rounds.add(vec![(run(3), at(0), window(60)), (run(4), at(0), window(30))], HashSet::from([run(1)]));
        assert_eq!((rounds.next_end(), rounds.next(at(29))), (Some(at(30)), None));
        let waiting: Vec<_> = rounds.waiting().map(|(run, until, going)| (run.clone(), until, going.len())).collect();
        assert_eq!(waiting, [(run(3), Some(at(60)), 1), (run(4), Some(at(30)), 1)]);
        assert_eq!(rounds.next(at(30)), Some(Step::NoTime(run(4))));
        assert_eq!((rounds.next_end(), rounds.next(at(31))), (Some(at(60)), None));
        rounds.ended(&run(1));
        assert_eq!((rounds.next(at(40)), rounds.next_end()), (Some(Step::Start(run(3))), None));
    }

    #[test]
    fn a_window_that_is_another_one_now_counts_from_where_it_began() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut rounds = Rounds::default();
        rounds.add(vec![(run(3), at(10), Duration::from_secs(60))], HashSet::from([run(1)]));
        rounds.set_windows(|_| Duration::from_secs(100));
        assert_eq!((rounds.next_end(), rounds.next(at(109))), (Some(at(110)), None));
        rounds.set_windows(|_| Duration::from_secs(20));
        assert_eq!(rounds.next(at(30)), Some(Step::NoTime(run(3))));
    }

    #[test]
    fn they_follow_the_others_one_after_the_other_while_time_is_left() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let window = Duration::from_secs(60);
        let mut rounds = Rounds::default();
        rounds.add(vec![(run(3), at(0), window), (run(4), at(0), window), (run(5), at(0), window)], HashSet::from([run(1), run(2)]));
        assert_eq!(rounds.next(at(1)), None);
        rounds.ended(&run(1));
        assert_eq!(rounds.next(at(2)), None);
        rounds.ended(&run(2));
        assert_eq!(rounds.next(at(30)), Some(Step::Start(run(3))));
        assert_eq!(rounds.next(at(31)), None, "one after the other");
        rounds.ended(&run(3));
        assert_eq!(rounds.next(at(60)), Some(Step::NoTime(run(4))));
        assert_eq!(rounds.next(at(61)), Some(Step::NoTime(run(5))));
        assert!(rounds.is_empty());
        assert_eq!(rounds.next(at(61)), None);
    }
}
