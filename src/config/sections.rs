//! Which sections speak of whom. Decides only.
//!
//! A task's value is looked for in `[task:CHAIN/NAME]`, `[task:NAME]`, then (six old keys only) in the plain section
//! `[NAME]`, then in `[runner]`, then in `[DEFAULT]`. NAME is the file name or the short name; the file name, which is
//! the more exact, goes first.

use std::collections::BTreeMap;
use std::path::Path;

use super::keys::{KeyInfo, Scope, is_known};
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
/// What the section of a task, or of a task of one chain, begins with.
const TASK_PREFIX: &str = "task:";
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

/// Whether what stands in a section may matter to a chain with these tasks: its own, those it inherits from, those of its tasks.
/// One that is a slip away from such a section was meant for it.
pub fn matters_to(section: &str, chain: &str, tasks: &[TaskName]) -> bool {
    let meant = near_miss(section);
    let section = meant.as_deref().unwrap_or(section);
    let is_task = |word: &str| tasks.iter().any(|task| words(task).any(|known| known == word));
    match section.split_once(':') {
        Some(("chain", name)) => name == chain,
        Some(("queue", _)) => false,
        Some(("env", word)) => is_task(word),
        Some(("task", word)) => word.split_once('/').map_or_else(|| is_task(word), |(of, _)| of == chain),
        Some(_) | None if is_owned(section) => ![DAEMON_SECTION, METRICS_SECTION, LIVENESS_SECTION].contains(&section),
        Some(_) | None => is_task(section),
    }
}

/// Which section each line of the files stands in.
#[derive(Debug)]
pub struct Lines<'a>(BTreeMap<(&'a Path, u32), &'a str>);

impl<'a> Lines<'a> {
    /// The lines of this configuration.
    pub fn new(config: &'a Config) -> Self {
        let origins = |section: &'a Section| [&section.origin].into_iter().chain(section.entries().iter().map(|entry| &entry.origin));
        let place = |(origin, name): (&'a Origin, &'a str)| match origin {
            Origin::File { file, line } => Some(((&**file, *line), name)),
            Origin::Default | Origin::CommandLine => None,
        };
        Self(
            config
                .sections()
                .flat_map(|section| origins(section).map(|origin| (origin, section.name.as_str())))
                .filter_map(place)
                .collect(),
        )
    }

    /// The section that a line stands in; `None` where it is no line of a section.
    pub fn section_of(&self, origin: &Origin) -> Option<&'a str> {
        let Origin::File { file, line } = origin else { return None };
        let ((known, _), name) = self.0.range(..=(&**file, *line)).next_back()?;
        (*known == &**file).then_some(*name)
    }
}

/// How near a section is to a task, the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// Which kinds of sections there are: what nobody wrote need not be looked for, task by task.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spoken {
    of_chain: bool,
    of_task: bool,
    plain: bool,
    env: bool,
}

impl Spoken {
    /// There is a section of this name.
    pub(super) fn note(&mut self, section: &str) {
        match section.split_once(':') {
            Some(("task", word)) if word.contains('/') => self.of_chain = true,
            Some(("task", _)) => self.of_task = true,
            Some(("env", _)) => self.env = true,
            Some(_) | None => self.plain |= !is_owned(section),
        }
    }
}

/// The chain whose tasks alone a section speaks of: `[task:CHAIN/NAME]`.
pub(super) fn chain_of(section: &str) -> Option<&str> {
    Some(section.strip_prefix(TASK_PREFIX)?.split_once('/')?.0)
}

/// The sections of a configuration as the tasks of one chain see them. Nothing is gone through to make them: a configuration may
/// have thousands of chains, and each thousands of tasks.
#[derive(Debug)]
pub struct Sections<'a> {
    config: &'a Config,
    /// Of the sections that speak of tasks; none where no task is looked for.
    spoken: Spoken,
    /// What the sections begin with that speak of the tasks of this chain alone.
    prefix: String,
    general: Vec<(Scope, &'a Section)>,
}

impl<'a> Sections<'a> {
    /// The sections of `config` as the tasks of `chain` see them.
    pub fn new(config: &'a Config, chain: &str) -> Self {
        Self { spoken: config.spoken(), prefix: format!("{TASK_PREFIX}{chain}/"), ..Self::for_chain(config, chain) }
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
        Self { config, spoken: Spoken::default(), prefix: String::new(), general }
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
        Self { config, spoken: Spoken::default(), prefix: String::new(), general }
    }

    /// The sections of the chain itself.
    pub fn of_chain(&self) -> SectionPath<'_, 'a> {
        SectionPath { own: Vec::new(), general: &self.general }
    }

    /// The sections of one task.
    pub fn of_task(&self, task: &TaskName) -> SectionPath<'_, 'a> {
        // The nearest first, and of two as near the file name before the short name.
        let mut own = Vec::new();
        if self.spoken.of_chain {
            own.extend(words(task).filter_map(|word| self.named(Kind::TaskOfChain, &[&self.prefix, word].concat())));
        }
        if self.spoken.of_task {
            own.extend(words(task).filter_map(|word| self.named(Kind::Task, &[TASK_PREFIX, word].concat())));
        }
        if self.spoken.plain {
            own.extend(words(task).filter_map(|word| self.named(Kind::Plain, word)).filter(|(_, section)| !is_owned(&section.name)));
        }
        SectionPath { own, general: &self.general }
    }

    fn named(&self, kind: Kind, name: &str) -> Option<(Kind, &'a Section)> {
        Some((kind, self.config.section(name)?))
    }

    /// The variables that `[env]` and `[env:NAME]` give to a task, in the order in which they are set. A `RUNNER_*`
    /// name there loses against runner's own; `judge::judge_env` tells.
    pub fn variables(&self, task: Option<&TaskName>) -> Vec<&'a Entry> {
        let mut names = vec![ENV_SECTION.to_owned()];
        // The more exact name is set last, and so wins.
        names.extend(task.into_iter().flat_map(words).map(|word| format!("env:{word}")).rev());
        names.iter().flat_map(|name| self.config.items(name)).filter(|entry| !entry.key.starts_with("RUNNER_")).collect()
    }

    /// Whether any section gives `task` variables of its own.
    pub fn has_own_variables(&self, task: &TaskName) -> bool {
        self.spoken.env && words(task).any(|word| self.config.section(&["env:", word].concat()).is_some())
    }
}

/// What a message calls an entry of a section.
pub(super) fn name_of(section: &Section, entry: &Entry) -> String {
    match entry.origin {
        Origin::CommandLine => format!("--set {}.{}", section.name, entry.key),
        Origin::File { .. } | Origin::Default => entry.key.clone(),
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
        let is_read = |scope: Scope, name: &str| name != key.name && is_known(name, scope);
        self.own.iter().any(|(kind, section)| section.entries().iter().any(|entry| is_read(kind.scope(), &entry.key)))
    }

    /// Whether no section speaks of it alone.
    pub fn is_general(&self) -> bool {
        self.own.is_empty()
    }

    /// Whether the sections of its own say `key`.
    pub fn says(&self, key: &KeyInfo) -> bool {
        self.own.iter().any(|(kind, section)| key.scope.covers(kind.scope()) && section.own(key.name).is_some())
    }

    /// The entry that decides `key`.
    pub fn find(&self, key: &KeyInfo) -> Option<&'a Entry> {
        self.find_in(key).map(|(_, entry)| entry)
    }

    /// The same with its section.
    fn find_in(&self, key: &KeyInfo) -> Option<(&'a Section, &'a Entry)> {
        let own = || self.own.iter().map(|(kind, section)| (kind.scope(), *section));
        let said = |(scope, section): (Scope, &'a Section)| {
            let entry = if key.scope.covers(scope) { section.own(key.name) } else { None };
            entry.map(|entry| (section, entry))
        };
        let nearest = own().chain(self.general.iter().copied()).find_map(said)?;
        if self.own.len() > 1 && nearest.1.origin != Origin::CommandLine {
            // --set wins over every file, by whichever of its names it calls the task.
            let typed = own().filter_map(said).find(|(_, entry)| entry.origin == Origin::CommandLine);
            return Some(typed.unwrap_or(nearest));
        }
        Some(nearest)
    }

    /// What a message calls `key`: what was typed has no line, and is told with its section.
    pub fn naming(&self, key: &KeyInfo) -> String {
        match self.find_in(key) {
            Some((section, entry)) => name_of(section, entry),
            None => key.name.to_owned(),
        }
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
    use std::ffi::OsStr;

    use super::*;
    use crate::config::ini;

    fn config(text: &str) -> Config {
        let mut config = Config::default();
        config.add_document(&std::path::Path::new("/etc/r.cfg").into(), ini::parse(text.as_bytes()).unwrap(), &mut Vec::new());
        config
    }

    #[test]
    fn the_sections_of_a_task_are_found_the_nearest_first() {
        let text = "[runner]\n[a.sh]\n[a]\n[task:a]\n[task:1-a.sh]\n[task:c/a]\n[task:c/1-a.sh]\n[task:d/a]\n[task:queue:q/a]\n[env:a]\n\
                    [1-a.sh]\n[chain:c]\n[chain:d]\n[queue:q]\n";
        let config = config(text);
        let of = |chain: &str, task: &str| {
            let path_of = Sections::new(&config, chain);
            let path = path_of.of_task(&TaskName::parse(OsStr::new(task)));
            path.own.iter().map(|(_, section)| section.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(of("c", "1-a.sh"), ["task:c/1-a.sh", "task:c/a", "task:1-a.sh", "task:a", "1-a.sh", "a"]);
        assert_eq!(of("d", "a"), ["task:d/a", "task:a", "a"]);
        assert_eq!(of("main", "a.sh"), ["task:a", "a.sh", "a"]);
        assert_eq!(of("queue:q", "a"), ["task:queue:q/a", "task:a", "a"]);
        assert_eq!(of("main", "runner"), [""; 0], "what runner owns is no task's");
        assert_eq!(of("main", "env:a"), [""; 0], "nor this");
        let sections = Sections::new(&config, "main");
        let own = |task: &str| sections.has_own_variables(&TaskName::parse(OsStr::new(task)));
        assert_eq!([own("1-a.sh"), own("b")], [true, false]);
        assert!(Sections::for_chain(&config, "c").of_task(&TaskName::parse(OsStr::new("a"))).is_general(), "no task is looked for");
    }

    #[test]
    fn what_matters_to_a_chain() {
        let tasks = [TaskName::parse(OsStr::new("1-a.sh"))];
        let matters = ["runner", "DEFAULT", "env", "chain:c", "task:c/x", "task:a", "env:1-a.sh", "a", "chains:c", "runer", "tasks:a"];
        for section in matters {
            assert!(matters_to(section, "c", &tasks), "{section}");
        }
        for section in ["daemon", "metrics", "liveness", "chain:d", "chian:d", "task:d/a", "task:b", "env:b", "queue:c", "b", "hg"] {
            assert!(!matters_to(section, "c", &tasks), "{section}");
        }
    }

    #[test]
    fn a_line_stands_in_the_section_above_it() {
        let mut config = config("[a]\nx = 1\n y\n[b]\n\nx = 2\n[a]\nz = 3\n");
        config.add_override("c", "x", "1");
        let lines = Lines::new(&config);
        let of = |file: &str, line| lines.section_of(&Origin::File { file: Path::new(file).into(), line });
        assert_eq!([2, 3, 4, 5, 8].map(|line| of("/etc/r.cfg", line)), [Some("a"), Some("a"), Some("b"), Some("b"), Some("a")]);
        assert_eq!([of("/etc/s.cfg", 2), of("/etc/r.cfg", 0), lines.section_of(&Origin::CommandLine)], [None; 3]);
    }

    #[test]
    fn what_was_typed_wins_by_whichever_name() {
        let mut config = config("[runner]\nnice = 1\n[task:90-a.sh]\nnice = 2\n[task:main/a]\numask = 077\n[a]\nmax_time = 3\n");
        for (section, key, value) in [("task:a", "nice", "4"), ("task:a", "umask", "022"), ("runner", "max_time", "9")] {
            config.add_override(section, key, value);
        }
        let sections = Sections::new(&config, "main");
        let name = TaskName::parse(OsStr::new("90-a.sh"));
        let path = sections.of_task(&name);
        let value = |key: &KeyInfo| (path.explain(key).0, path.naming(key));
        assert_eq!(value(&crate::config::keys::NICE.info), ("4", "--set task:a.nice".to_owned()));
        assert_eq!(value(&crate::config::keys::UMASK.info), ("022", "--set task:a.umask".to_owned()));
        assert_eq!(value(&crate::config::keys::MAX_TIME.info), ("3", "max_time".to_owned()), "the section of the task is nearer");
        assert_eq!(value(&crate::config::keys::ARGS.info), ("", "args".to_owned()));
    }

    #[test]
    fn the_sections_of_a_chains_tasks_are_found_without_those_of_others() {
        let mut config = config("[task:c/a]\n[task:d/a]\n[task:a]\n[task:c/b/x]\n[env:c/a]\n");
        let of = |config: &Config, chain: &str| config.sections_of(chain).map(|section| section.name.clone()).collect::<Vec<_>>();
        assert_eq!(of(&config, "c"), ["task:c/a", "task:c/b/x"]);
        assert_eq!(of(&config, "e"), [""; 0]);
        config.add_override("task:e/a", "nice", "1");
        assert_eq!(of(&config, "e"), ["task:e/a"], "what is said later is found, too");
    }

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
