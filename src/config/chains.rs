//! The chains that have a name, `[chain:NAME]`: what is said of when they run. Decides only.

use std::time::Duration;

use super::keys::{self, Missed, Overlap, SlotScope};
use super::sections::{CHAIN_PREFIX, Sections};
use super::settings::{ChainSettings, Reader};
use super::{Config, Finding, Origin};
use crate::names::{MAIN_CHAIN, suggestion};

/// A chain with a name, and when it runs.
#[derive(Debug, Clone)]
pub struct NamedChain {
    /// How it is run.
    pub chain: ChainSettings,
    /// The header of its section.
    pub origin: Origin,
    /// `schedule`, a line for each rule, and where it stands.
    pub schedule: Option<(String, Origin)>,
    /// `timezone`; without one the machine's.
    pub timezone: Option<String>,
    /// `missed`.
    pub missed: Missed,
    /// `missed_window`.
    pub missed_window: Duration,
    /// `overlap`.
    pub overlap: Overlap,
    /// `random_delay`, at most.
    pub random_delay: Duration,
    /// `idle`.
    pub idle: bool,
    /// `window`.
    pub window: Duration,
    /// `scope`.
    pub scope: SlotScope,
    /// `enabled`.
    pub enabled: bool,
}

/// The names of the chains, in the order of their sections.
pub fn names(config: &Config) -> impl Iterator<Item = &str> {
    config.sections().filter_map(|section| section.name.strip_prefix(CHAIN_PREFIX))
}

/// Reads all chains that have a name. Whatever is wrong goes to `findings`; a chain whose name is none is left out.
pub fn read_all(config: &Config, findings: &mut Vec<Finding>) -> Vec<NamedChain> {
    let sections = config.sections().filter_map(|section| Some((section, section.name.strip_prefix(CHAIN_PREFIX)?)));
    let mut chains = Vec::new();
    for (section, name) in sections {
        match judge_name(name) {
            Ok(()) => chains.push(NamedChain::read(config, name, section.origin.clone(), findings)),
            Err(expected) => findings.push(Finding::error(&section.origin, format!("[{}]: {expected}", section.name))),
        }
    }
    chains
}

/// A name is a word that can stand in a file name, a metric and a command line.
pub(super) fn judge_name(name: &str) -> Result<(), String> {
    if name == MAIN_CHAIN {
        return Err(format!("`{MAIN_CHAIN}` is the chain of [runner]; choose another name"));
    }
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(is_word) || name.starts_with(['-', '.']) {
        return Err("expected a name of letters, digits, `-`, `_` and `.`, not beginning with `-` or `.`".to_owned());
    }
    Ok(())
}

impl NamedChain {
    /// Reads what `[chain:NAME]` says.
    pub fn read(config: &Config, name: &str, origin: Origin, findings: &mut Vec<Finding>) -> Self {
        let chain = ChainSettings::of_chain(config, name, findings);
        let sections = Sections::for_chain(config, name);
        let path = sections.of_chain();
        let mut reader = Reader { path: &path, findings };
        let named = Self {
            schedule: reader.optional(&keys::SCHEDULE).map(|text| (text, path.explain(&keys::SCHEDULE.info).1)),
            timezone: reader.optional(&keys::TIMEZONE),
            missed: reader.value(&keys::MISSED),
            missed_window: reader.value(&keys::MISSED_WINDOW),
            overlap: reader.value(&keys::OVERLAP),
            random_delay: reader.value(&keys::RANDOM_DELAY),
            idle: reader.value(&keys::IDLE),
            window: reader.value(&keys::WINDOW),
            scope: reader.value(&keys::SCOPE),
            enabled: reader.value(&keys::ENABLED),
            chain,
            origin,
        };
        if named.chain.task_dir.is_none() {
            // One that was made by --set is mostly another one that was meant.
            let others = names(config).filter(|other| *other != name && named.origin == Origin::CommandLine);
            let message = format!("[{CHAIN_PREFIX}{name}] needs a task_dir{}", suggestion(name, others));
            findings.push(Finding::error(&named.origin, message));
        }
        if let Some(origin) = named.chain.lock.as_ref().and_then(|lock| lock.release_on_error.as_ref()).filter(|_| named.schedule.is_none())
        {
            findings.push(Finding::error(origin, "release_on_error needs a schedule: after a failure it leaves the next slot to others"));
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::keys::RetryFrom;
    use crate::config::{ini, judge};

    fn read(text: &str) -> (Vec<NamedChain>, Vec<String>) {
        let (mut config, mut findings) = (Config::default(), Vec::new());
        let file: Arc<Path> = Path::new("/etc/r.cfg").into();
        config.add_document(&file, ini::parse(text.as_bytes()).unwrap(), &mut findings);
        judge::judge_keys(&config, &mut findings);
        let chains = read_all(&config, &mut findings);
        (chains, findings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn it_inherits_how_tasks_are_run_and_nothing_else() {
        let text = "[DEFAULT]\nnice = 5\n[runner]\ntask_dir = tasks\nhalt_task = h\nmax_parallel = 4\nchain_max_time = 9\ntimes = 0\nmax_time = 7\nretry_from = failed\nkill_after = 2\n[chain:night]\ntask_dir = night\nkill_after = 3\n";
        let (chains, told) = read(text);
        assert_eq!(told, [""; 0]);
        let chain = &chains[0].chain;
        assert_eq!(chain.task_dir.as_deref(), Some(Path::new("/etc/night")));
        assert_eq!((chain.halt_task.as_ref(), chain.max_parallel, chain.times), (None, 1, 1));
        assert_eq!(chain.chain_max_time.duration(), None);
        assert_eq!(chain.task.max_time.duration(), Some(Duration::from_secs(7)));
        assert_eq!((chain.retry_from, chain.task.nice), (RetryFrom::Failed, Some(5)));
        assert_eq!(chain.task.kill_after, Duration::from_secs(3));
    }

    #[test]
    fn a_lock_is_its_own() {
        let text = "[runner]\nlock = file:main\nlock_ttl = 90\n[chain:a]\ntask_dir = a\n[chain:b]\ntask_dir = b\nlock = file:b\nkeep_lock = yes\nrelease_on_error = yes\n";
        let (chains, told) = read(text);
        assert!(chains[0].chain.lock.is_none());
        let lock = chains[1].chain.lock.as_ref().unwrap();
        assert_eq!((lock.lock.0.as_str(), lock.ttl.0.as_str(), lock.keep), ("file:b", "60", true));
        assert_eq!(told, ["/etc/r.cfg:10: release_on_error needs a schedule: after a failure it leaves the next slot to others"]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let (chains, told) = read("[chain:main]\n[chain:a/b]\n[chain:c]\nwindow = 5\ntimezone = Mars/Base\ntimes = 3\n");
        assert_eq!(chains.len(), 1);
        assert_eq!(
            told,
            [
                "/etc/r.cfg:6: unknown key `times` in [chain:c]",
                "/etc/r.cfg:1: [chain:main]: `main` is the chain of [runner]; choose another name",
                "/etc/r.cfg:2: [chain:a/b]: expected a name of letters, digits, `-`, `_` and `.`, not beginning with `-` or `.`",
                "/etc/r.cfg:5: timezone = Mars/Base: expected the name of a time zone, such as UTC or Europe/Prague",
                "/etc/r.cfg:3: [chain:c] needs a task_dir",
            ]
        );
    }
}
