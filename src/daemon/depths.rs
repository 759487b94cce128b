//! How many jobs the queues have, for those who look: asked for when somebody does, and not again at once. Decides only.

use std::time::Duration;

use super::asked::Asked;
use crate::clock::Moment;
use crate::store::job::QueueCount;

/// What was counted is new for so long.
const FRESH: Duration = Duration::from_secs(1);
/// So long somebody who looks waits for the count; then he is shown the last one.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known.
#[derive(Debug)]
pub struct Depths {
    counts: Vec<QueueCount>,
    asked: Asked,
    failed: Option<String>,
}

impl Default for Depths {
    fn default() -> Self {
        Self { counts: Vec::new(), asked: Asked::new(FRESH, PATIENCE), failed: None }
    }
}

impl Depths {
    /// What was counted last.
    pub fn counts(&self) -> &[QueueCount] {
        &self.counts
    }

    /// Why the last count is none, or old.
    pub fn failed(&self) -> Option<&str> {
        let never = (!self.asked.is_answered()).then_some("the database has not answered yet");
        self.failed.as_deref().or(never)
    }

    /// Whether somebody who looks now makes it worth while to count.
    pub fn is_old(&self, now: Moment) -> bool {
        self.asked.is_old(now)
    }

    /// It was asked for.
    pub fn ask(&mut self, now: Moment) {
        self.asked.ask(now);
    }

    /// Until when somebody who looks waits for the answer.
    pub fn held_until(&self, now: Moment) -> Option<Moment> {
        self.asked.held_until(now)
    }

    /// The answer.
    pub fn hear(&mut self, answer: Result<Vec<QueueCount>, String>, now: Moment) {
        self.asked.hear(now);
        match answer {
            Ok(counts) => (self.counts, self.failed) = (counts, None),
            Err(why) => self.failed = Some(why),
        }
    }

    /// The database is away: nobody waits for it, and it is asked as soon as it is back.
    pub fn give_up(&mut self, why: String) {
        self.failed = Some(why);
        self.asked.forget();
    }

    /// Whether the answer has not come for so long that the last one is not worth showing any more.
    pub fn is_lost(&self, now: Moment) -> bool {
        self.asked.is_lost(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn it_is_counted_when_somebody_looks_and_not_again_at_once() {
        let now = Moment::at(Duration::from_secs(100));
        let mut depths = Depths::default();
        assert!(depths.is_old(now) && depths.failed().is_some());
        depths.ask(now);
        assert!(!depths.is_old(now), "one question at a time");
        assert_eq!(depths.held_until(now), Some(now + PATIENCE));
        assert_eq!(depths.held_until(now + PATIENCE), None, "nobody waits longer");
        assert!(!depths.is_lost(now + PATIENCE) && depths.is_lost(now + Duration::from_secs(5)));
        let later = now + Duration::from_millis(200);
        depths.hear(Ok(Vec::new()), later);
        assert_eq!((depths.held_until(later), depths.failed()), (None, None));
        assert!(!depths.is_old(later + Duration::from_secs(3)), "what took 200 ms is not asked for every second");
        assert!(depths.is_old(later + Duration::from_secs(4)));
        depths.hear(Err("no".to_owned()), later);
        assert_eq!((depths.failed(), depths.is_old(later)), (Some("no"), false));
        depths.give_up("away".to_owned());
        assert_eq!((depths.failed(), depths.is_old(later)), (Some("away"), true));
    }
}
