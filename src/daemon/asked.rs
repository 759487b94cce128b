//! When something is asked of the database for those who look: when one does, not again at once, and never so that he waits for
//! long. Decides only.

use std::time::Duration;

use crate::clock::Moment;

/// Asking takes one part in so many of the time of the database at most.
const SHARE: u32 = 20;
/// A question without an answer for so long has none. A table of a million jobs takes a second.
const LOST: Duration = Duration::from_secs(5);

/// When something was asked, and answered.
#[derive(Debug)]
pub struct Asked {
    /// An answer is new for so long.
    fresh: Duration,
    /// So long somebody who looks waits for one; then he is shown the last.
    patience: Duration,
    /// When the last answer came, and how long that took.
    answered: Option<(Moment, Duration)>,
    /// Since when there is a question without an answer.
    asked_at: Option<Moment>,
}

impl Asked {
    /// Nothing was asked yet.
    pub fn new(fresh: Duration, patience: Duration) -> Self {
        Self { fresh, patience, answered: None, asked_at: None }
    }

    /// Whether there ever was an answer.
    pub fn is_answered(&self) -> bool {
        self.answered.is_some()
    }

    /// Whether somebody who looks now makes it worth while to ask.
    pub fn is_old(&self, now: Moment) -> bool {
        let fresh = |(at, took): (Moment, Duration)| now < at + self.fresh.max(took * SHARE);
        self.asked_at.is_none() && !self.answered.is_some_and(fresh)
    }

    /// It was asked for.
    pub fn ask(&mut self, now: Moment) {
        self.asked_at = Some(now);
    }

    /// Until when somebody who looks waits for the answer.
    pub fn held_until(&self, now: Moment) -> Option<Moment> {
        self.asked_at.map(|at| at + self.patience).filter(|until| now < *until)
    }

    /// There is an answer.
    pub fn hear(&mut self, now: Moment) {
        let took = self.asked_at.take().map_or(Duration::ZERO, |at| now.since(at));
        self.answered = Some((now, took));
    }

    /// What was heard counts for nothing any more.
    pub fn forget(&mut self) {
        self.answered = None;
    }

    /// Whether the answer has not come for so long that the last one is not worth showing any more.
    pub fn is_lost(&self, now: Moment) -> bool {
        self.asked_at.is_some_and(|at| now >= at + LOST)
    }
}
