//! What a worker has done since it began, by queue. Counts only.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::queue::Next;
use crate::store::job::Finish;

/// What was done, by queue.
#[derive(Debug, Clone, Default)]
pub struct Tallies(BTreeMap<String, Tally>);

/// What was done of one queue.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Jobs that are done.
    pub done: u64,
    /// Jobs that have failed for good.
    pub failed: u64,
    /// Jobs that were ended because nobody wanted them any more.
    pub cancelled: u64,
    /// Attempts, by their result: how many, and how long they took together.
    pub tries: BTreeMap<&'static str, (u64, Duration)>,
}

impl Tallies {
    /// The tally of a queue; `None` where nothing was done yet.
    pub fn of(&self, queue: &str) -> Option<&Tally> {
        self.0.get(queue)
    }

    /// An attempt has ended.
    pub fn add(&mut self, queue: &str, finish: &Finish, took: Duration) {
        if !self.0.contains_key(queue) {
            self.0.insert(queue.to_owned(), Tally::default());
        }
        let Some(tally) = self.0.get_mut(queue) else { return };
        let (count, seconds) = tally.tries.entry(finish.result).or_default();
        (*count, *seconds) = (*count + 1, *seconds + took);
        match finish.next {
            Next::Done(_) => tally.done += 1,
            Next::Failed => tally.failed += 1,
            Next::Cancelled => tally.cancelled += 1,
            Next::Again(_) | Next::Back => {}
        }
    }
}
