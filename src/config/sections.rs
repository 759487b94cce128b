//! Which sections speak of whom. Decides only.
//!
//! A task's value is looked for in `[task:CHAIN/NAME]`, `[task:NAME]`, then (six old keys only) in the plain section
//! `[NAME]`, then in `[runner]`, then in `[DEFAULT]`. NAME is the file name or the short name; the file name, which is
//! the more exact, goes first.

use std::collections::{HashMap, HashSet};

use super::keys::{KeyInfo, Scope, names_in};
use super::{Config, DEFAULT_SECTION, Entry, Origin, Section};
use crate::names::{MAIN_CHAIN, TaskName};

/// The section of the main chain.
pub const RUNNER_SECTION: &str = "runner";
/// What the section of a named chain begins with.
pub const CHAIN_PREFIX: &str = "chain:";
/// The section of the daemon.
pub const DAEMON_SECTION: &str = "daemon";
/// The section of those who get metrics.
pub const METRICS_SECTION: &str = "metrics";
/// The section of those who get a sign of life.
pub const LIVENESS_SECTION: &str = "liveness";
/// What the section of a queue begins with. A queue is asked for as if it were a chain of this whole name, which no chain can have.
pub const QUEUE_PREFIX: &str = "queue:";
/// The section of variables for all tasks.
pub const ENV_SECTION: &str = "env";

/// Whether runner owns the section: its keys are judged, and it is no plain section of a task.
pub fn is_owned(section: &str) -> bool {
    NAMES.contains(&section) || section.split_once(':').is_some_and(|(kind, _)| KINDS.contains(&kind))
}

/// What stands before the colon of a section that runner owns.
const KINDS: [&str; 4] = ["task", "env", "chain", "queue"];
/// The other sections that runner owns.
const NAMES: [&str; 6] = [RUNNER_SECTION, ENV_SECTION, DEFAULT_SECTION, DAEMON_SECTION, METRICS_SECTION, LIVENESS_SECTION];

/// The section of runner's that was meant, if the name of one of the user's is a letter, a blank or the case of letters away
/// from it.
pub fn near_miss(section: &str) -> Option<String> {
    /// So short a word is too near to too many others.
    const SHORT: usize = 3;
    let is_near = |word: &str, known: &str| {
        let (word, known) = (word.trim().to_lowercase(), known.to_lowercase());
        word == known
            || (known.len() > SHORT && strsim::damerau_levenshtein(&word, &known) == 1)
            || word.strip_suffix('s').is_some_and(|stem| stem == known)
    };
    if is_owned(section) {
        return None;
    }
    match section.split_once(':') {
        Some((kind, name)) => {
            let near = KINDS.iter().find(|known| is_near(kind, known))?;
            Some(format!("{near}:{}", name.trim()))
        }
        None => {
            // A kind without a name: only as it is, a longer word may well be the user's.
            let kind = || KINDS.iter().find(|known| section.trim().eq_ignore_ascii_case(known)).map(|known| format!("{known}:NAME"));
            NAMES.iter().find(|known| is_near(section, known)).map(|known| (*known).to_owned()).or_else(kind)
        }
    }
}

/// How near a section is to a task, the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    TaskOfChain,
    Task,
    Plain,
}

impl Kind {
    fn scope(self) -> Scope {
        match self {
            Self::TaskOfChain | Self::Task => Scope::TASK,
            Self::Plain => Scope::OLD_TASK,
        }
    }
}

/// The sections of a configuration by the task they may speak of. Made once: a chain may have thousands of tasks.
#[derive(Debug)]
pub struct Sections<'a> {
    config: &'a Config,
    by_word: HashMap<&'a str, Vec<(Kind, &'a Section)>>,
    with_env: HashSet<&'a str>,
    general: Vec<(Scope, &'a Section)>,
}

impl<'a> Sections<'a> {
    /// The sections of `config` as the tasks of `chain` see them.
    pub fn new(config: &'a Config, chain: &str) -> Self {
        let mut by_word: HashMap<&str, Vec<(Kind, &Section)>> = HashMap::new();
        let mut with_env = HashSet::new();
        for section in config.sections() {
            let (kind, word) = match section.name.split_once(':') {
                Some(("task", word)) => match word.split_once('/') {
                    Some((of, word)) if of == chain => (Kind::TaskOfChain, word),
                    Some(_) => continue,
                    None => (Kind::Task, word),
                },
                Some(("env", word)) => {
                    with_env.insert(word);
                    continue;
                }
                _ if is_owned(&section.name) => continue,
                _ => (Kind::Plain, section.name.as_str()),
            };
            by_word.entry(word).or_insert_with(|| Vec::with_capacity(1)).push((kind, section));
        }
        Self { by_word, with_env, ..Self::for_chain(config, chain) }
    }

    /// The sections as the chain itself sees them; no task is found in these. A named chain takes from `[runner]` only
    /// what is inherited.
    pub fn for_chain(config: &'a Config, chain: &str) -> Self {
        let (own, scope) = match chain.strip_prefix(QUEUE_PREFIX) {
            Some(_) => (chain.to_owned(), Scope::QUEUE),
            None => (format!("{CHAIN_PREFIX}{chain}"), Scope::CHAIN),
        };
        let places = if chain == MAIN_CHAIN {
            vec![(RUNNER_SECTION, Scope::RUNNER), (DEFAULT_SECTION, Scope::RUNNER)]
        } else {
            vec![(own.as_str(), scope), (RUNNER_SECTION, Scope::INHERITED), (DEFAULT_SECTION, scope)]
        };
        let general = places.into_iter().filter_map(|(name, scope)| Some((scope, config.section(name)?))).collect();
        Self { config, by_word: HashMap::new(), with_env: HashSet::new(), general }
    }

    /// The section `[daemon]`.
    pub fn for_daemon(config: &'a Config) -> Self {
        Self::for_one(config, DAEMON_SECTION, Scope::DAEMON)
    }

    /// The section `[metrics]`.
    pub fn for_metrics(config: &'a Config) -> Self {
        Self::for_one(config, METRICS_SECTION, Scope::METRICS)
    }

    /// The section `[liveness]`.
    pub fn for_liveness(config: &'a Config) -> Self {
        Self::for_one(config, LIVENESS_SECTION, Scope::LIVENESS)
    }

    fn for_one(config: &'a Config, name: &str, scope: Scope) -> Self {
        let general = config.section(name).map(|section| (scope, section)).into_iter().collect();
        Self { config, by_word: HashMap::new(), with_env: HashSet::new(), general }
    }

    /// The sections of the chain itself.
    pub fn of_chain(&self) -> SectionPath<'_, 'a> {
        SectionPath { own: Vec::new(), general: &self.general }
    }

    /// The sections of one task.
    pub fn of_task(&self, task: &TaskName) -> SectionPath<'_, 'a> {
        let mut own = Vec::new();
        if !self.by_word.is_empty() {
            for word in words(task) {
                own.extend(self.by_word.get(word).into_iter().flatten());
            }
            // The sort is stable: the file name stays before the short name.
            own.sort_by_key(|(kind, _)| *kind);
        }
        SectionPath { own, general: &self.general }
    }

    /// The variables that `[env]` and `[env:NAME]` give to a task, in the order in which they are set. A `RUNNER_*`
    /// name there loses against runner's own; `settings::judge_env` tells.
    pub fn variables(&self, task: Option<&TaskName>) -> Vec<&'a Entry> {
        let mut names = vec![ENV_SECTION.to_owned()];
        // The more exact name is set last, and so wins.
        names.extend(task.into_iter().flat_map(words).map(|word| format!("env:{word}")).rev());
        names.iter().flat_map(|name| self.config.items(name)).filter(|entry| !entry.key.starts_with("RUNNER_")).collect()
    }

    /// Whether any section gives `task` variables of its own.
    pub fn has_own_variables(&self, task: &TaskName) -> bool {
        !self.with_env.is_empty() && words(task).any(|word| self.with_env.contains(word))
    }
}

/// The words a task answers to: its file name, and its short name if that is another one.
fn words(task: &TaskName) -> impl DoubleEndedIterator<Item = &str> {
    let short = Some(task.short()).filter(|short| short.len() != task.text().len());
    [Some(task.text()), short].into_iter().flatten()
}

/// The sections that speak of a task or a chain, the nearest first.
#[derive(Debug)]
pub struct SectionPath<'s, 'a> {
    own: Vec<(Kind, &'a Section)>,
    general: &'s [(Scope, &'a Section)],
}

impl<'a> SectionPath<'_, 'a> {
    /// Whether the sections of its own say anything but `key` that is read from them.
    pub fn says_more_than(&self, key: &KeyInfo) -> bool {
        let is_read = |scope: Scope, name: &str| name != key.name && names_in(scope).any(|known| known == name);
        self.own.iter().any(|(kind, section)| section.entries().iter().any(|entry| is_read(kind.scope(), &entry.key)))
    }

    /// Whether no section speaks of it alone.
    pub fn is_general(&self) -> bool {
        self.own.is_empty()
    }

    /// The entry that decides `key`.
    pub fn find(&self, key: &KeyInfo) -> Option<&'a Entry> {
        let own = self.own.iter().map(|(kind, section)| (kind.scope(), *section));
        let all = own.chain(self.general.iter().copied());
        all.filter(|(scope, _)| key.scope.covers(*scope)).find_map(|(_, section)| section.own(key.name))
    }

    /// The text that decides `key` (the default, if nobody wrote one) and where it stands.
    pub fn explain(&self, key: &KeyInfo) -> (&'a str, Origin) {
        match self.find(key) {
            Some(entry) => (&entry.value, entry.origin.clone()),
            None => (key.default, Origin::Default),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_that_is_a_letter_away_from_one_of_ours_is_known() {
        let cases = [
            ("tasks:build", "task:build"),
            ("taks:build", "task:build"),
            ("queues:a", "queue:a"),
            ("Chain:a", "chain:a"),
            (" chain : a", "chain:a"),
            ("ENV:x", "env:x"),
            ("runer", "runner"),
            ("Runner", "runner"),
            ("runner ", "runner"),
            ("default", "DEFAULT"),
            ("deamon", "daemon"),
            ("metric", "metrics"),
            ("envs", "env"),
            ("queue", "queue:NAME"),
            ("Chain", "chain:NAME"),
        ];
        for (section, meant) in cases {
            assert_eq!(near_miss(section).as_deref(), Some(meant), "{section}");
        }
        let own = ["runner", "task:x", "env", "DEFAULT", "chain:", "hg", "build", "end", "dev", "env2:x", "tasks", "slack:runner", "", ":"];
        for section in own {
            assert_eq!(near_miss(section), None, "{section}");
        }
    }
}
