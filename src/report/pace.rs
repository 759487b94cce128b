//! How often a task that speaks much is quoted. Decides only.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Moment;
use crate::names::RunId;
use crate::opinion::Opinion;

/// A line for each task in so long: who looks at a log cannot read more, and whoever fills it hides the rest.
const PAUSE: Duration = Duration::from_secs(1);

/// What a task has said of itself: of each kind the newest word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// 0 to 100.
    pub percent: Option<u8>,
    /// What it is doing.
    pub status: Option<String>,
    /// What it thinks of itself.
    pub result: Option<Opinion>,
    /// How many messages before this one were not shown.
    pub unshown: u64,
}

impl Said {
    fn add(&mut self, newer: Self) {
        self.percent = newer.percent.or(self.percent);
        self.status = newer.status.or(self.status.take());
        self.result = newer.result.or(self.result);
    }
}

/// Who was quoted when, and what was not shown since.
#[derive(Debug, Default)]
pub struct Pace {
    talks: HashMap<(RunId, String), Talk>,
}

#[derive(Debug)]
struct Talk {
    shown_at: Moment,
    kept: Said,
    count: u64,
}

impl Pace {
    /// A task says something: what is to be shown now.
    pub fn hear(&mut self, run: &RunId, task: &str, said: Said, now: Moment) -> Option<Said> {
        let key = (run.clone(), task.to_owned());
        let Some(talk) = self.talks.get_mut(&key) else {
            self.talks.insert(key, Talk { shown_at: now, kept: Said::default(), count: 0 });
            return Some(said);
        };
        talk.kept.add(said);
        talk.count += 1;
        if now.since(talk.shown_at) < PAUSE {
            return None;
        }
        talk.shown_at = now;
        talk.take()
    }

    /// A task has ended: its last words, if they were not shown.
    pub fn end(&mut self, run: &RunId, task: &str) -> Option<Said> {
        if self.talks.is_empty() {
            return None;
        }
        self.talks.remove(&(run.clone(), task.to_owned()))?.take()
    }
}

impl Talk {
    fn take(&mut self) -> Option<Said> {
        let unshown = std::mem::take(&mut self.count).checked_sub(1)?;
        Some(Said { unshown, ..std::mem::take(&mut self.kept) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_and_the_newest_words_at_the_end() {
        let (run, mut pace) = (RunId::new("", 0, 0), Pace::default());
        let at = |millis| Moment::at(Duration::from_millis(millis));
        let said = |text: &str| Said { status: Some(text.to_owned()), ..Said::default() };
        assert_eq!(pace.hear(&run, "a", said("1"), at(5_000)), Some(said("1")));
        assert_eq!(pace.hear(&run, "b", said("1"), at(5_001)), Some(said("1")), "each task has its own");
        assert_eq!(pace.hear(&run, "a", Said { percent: Some(7), ..Said::default() }, at(5_400)), None);
        assert_eq!(pace.hear(&run, "a", said("2"), at(5_999)), None);
        assert_eq!(pace.hear(&run, "a", said("3"), at(6_000)), Some(Said { percent: Some(7), unshown: 2, ..said("3") }));
        assert_eq!(pace.hear(&run, "a", said("4"), at(6_999)), None);
        assert_eq!(pace.end(&run, "a"), Some(said("4")));
        assert_eq!((pace.end(&run, "a"), pace.end(&run, "b")), (None, None));
        assert_eq!(pace.hear(&run, "a", said("5"), at(7_000)), Some(said("5")), "the next try begins anew");
    }
}
