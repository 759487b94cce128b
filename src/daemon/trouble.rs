//! Which trouble of a chain is news. Decides only: what is the same at every slot is told once, and again when it is another or
//! has passed. What is written into the history is not asked here: it has each.

use std::collections::HashMap;

/// What is known of the chains.
#[derive(Debug, Default)]
pub struct Troubles {
    known: HashMap<(String, &'static str), String>,
}

/// What is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// A trouble that is new, or another than before.
    Trouble,
    /// The same as at the slot before.
    Same,
    /// It has passed.
    Passed,
    /// All is well, as before.
    Well,
}

impl News {
    /// The level of the line that tells of a trouble: `level` if it is news.
    pub fn level(self, level: log::Level) -> log::Level {
        match self {
            Self::Trouble => level,
            Self::Same | Self::Passed | Self::Well => log::Level::Debug,
        }
    }
}

impl Troubles {
    /// How one side of a chain is doing: `trouble` is what is wrong with it now.
    pub fn hear(&mut self, chain: &str, side: &'static str, trouble: Option<&str>) -> News {
        let key = (chain.to_owned(), side);
        match trouble {
            None if self.known.remove(&key).is_some() => News::Passed,
            None => News::Well,
            Some(trouble) if self.known.get(&key).is_some_and(|known| known == trouble) => News::Same,
            Some(trouble) => {
                self.known.insert(key, trouble.to_owned());
                News::Trouble
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_when_it_begins_changes_and_ends() {
        let mut troubles = Troubles::default();
        let steps = [
            ("a", "tasks", None, News::Well),
            ("a", "tasks", Some("x"), News::Trouble),
            ("a", "tasks", Some("x"), News::Same),
            ("b", "tasks", Some("x"), News::Trouble),
            ("a", "mark", Some("x"), News::Trouble),
            ("a", "tasks", Some("y"), News::Trouble),
            ("a", "tasks", None, News::Passed),
            ("a", "tasks", None, News::Well),
            ("a", "mark", Some("x"), News::Same),
            ("a", "tasks", Some("y"), News::Trouble),
        ];
        for (chain, side, trouble, news) in steps {
            assert_eq!(troubles.hear(chain, side, trouble), news, "{chain} {side} {trouble:?}");
        }
    }
}
