//! What tasks think of themselves (`X_RUNNER_RESULT=`): for display and metrics; the exit code decides. Knows nobody.

use std::collections::BTreeMap;
use std::fmt;

use crate::names::TaskName;

/// What a task thinks of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Opinion {
    /// All is well.
    Success,
    /// Somebody should have a look.
    Warning,
    /// Something is wrong.
    Error,
}

impl Opinion {
    /// All there are, the gravest last.
    pub const ALL: [Self; 3] = [Self::Success, Self::Warning, Self::Error];

    /// The word, as the task says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|opinion| opinion.word() == word)
    }

    /// Whether somebody should see it although the exit code is good.
    pub fn is_doubt(self) -> bool {
        self != Self::Success
    }
}

/// The last word of each task of a run, by the place of the task. Costs nothing while nobody says anything.
#[derive(Debug, Clone, Default)]
pub struct Opinions(BTreeMap<usize, Opinion>);

impl Opinions {
    /// A try of the task at this place has ended, and has said so of itself.
    pub fn hear(&mut self, place: usize, said: Option<Opinion>) {
        match said {
            Some(said) => {
                self.0.insert(place, said);
            }
            None => {
                self.0.remove(&place);
            }
        }
    }

    /// The gravest word of all, and whose it is. `name` tells the name of the task at a place.
    pub fn gravest(&self, name: impl FnOnce(usize) -> TaskName) -> Option<Gravest> {
        let opinion = *self.0.values().max()?;
        let mut whose = self.0.iter().filter(|(_, said)| **said == opinion).map(|(place, _)| *place);
        let task = name(whose.next()?);
        Some(Gravest { opinion, task, others: whose.count() })
    }
}

/// The gravest word of the tasks of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gravest {
    /// The word.
    pub opinion: Opinion,
    /// The first task that says so.
    pub task: TaskName,
    /// How many others say the same.
    pub others: usize,
}

impl Gravest {
    /// Whether somebody should see it although the run ended well.
    pub fn is_doubt(&self) -> bool {
        self.opinion.is_doubt()
    }
}

impl fmt::Display for Gravest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (task, word) = (&self.task, self.opinion.word());
        match self.others {
            0 => write!(f, "{task} says {word}"),
            1 => write!(f, "{task} and 1 other say {word}"),
            others => write!(f, "{task} and {others} others say {word}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_of_the_last_words_counts() {
        let words = |said: &[(usize, Option<Opinion>)]| {
            let mut opinions = Opinions::default();
            said.iter().for_each(|(place, said)| opinions.hear(*place, *said));
            opinions.gravest(|place| TaskName::parse(format!("{place}-a.sh"))).map(|gravest| gravest.to_string())
        };
        let (success, warning, error) = (Some(Opinion::Success), Some(Opinion::Warning), Some(Opinion::Error));
        assert_eq!(words(&[]), None);
        assert_eq!(words(&[(1, None)]), None);
        assert_eq!(words(&[(1, success)]).as_deref(), Some("1-a.sh says success"));
        assert_eq!(words(&[(1, success), (2, warning)]).as_deref(), Some("2-a.sh says warning"));
        assert_eq!(words(&[(3, error), (2, error), (1, warning)]).as_deref(), Some("2-a.sh and 1 other say error"));
        assert_eq!(words(&[(1, warning), (2, warning), (3, warning)]).as_deref(), Some("1-a.sh and 2 others say warning"));
        assert_eq!(words(&[(1, error), (2, warning), (1, None)]).as_deref(), Some("2-a.sh says warning"), "its next try says nothing");
        assert_eq!(Opinion::ALL.map(|opinion| Opinion::parse(opinion.word())), Opinion::ALL.map(Some));
        assert_eq!(Opinion::parse("perhaps"), None);
    }
}
