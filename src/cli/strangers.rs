//! Sections that speak of a task which no chain has. Lists the task directories of every chain, and reads nothing else: whether
//! a file there is a task is its chain's to say.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::config::keys::{self, Key};
#[cfg(all(feature = "schedule", feature = "store"))]
use crate::config::sections::{CHAIN_PREFIX, near_miss};
use crate::config::sections::{QUEUE_PREFIX, Sections};
use crate::config::{Config, Finding, Section, Severity, chains, queues};
use crate::names::{MAIN_CHAIN, TaskName, suggestion};

/// What is found; nothing where there is only the main chain, which tells by itself, and nothing where the tasks of some chain are
/// not known. `typed` is the directory of the main chain where one was named on the command line.
pub fn find(config: &Config, typed: Option<&Path>) -> Vec<Finding> {
    let mut others =
        chains::names(config).map(str::to_owned).chain(queues::names(config).map(|name| format!("{QUEUE_PREFIX}{name}"))).peekable();
    let speaks = |name: &str| matches!(name.split_once(':'), Some(("task" | "env", word)) if !word.contains('/'));
    if others.peek().is_none() || !config.sections().any(|section| speaks(&section.name)) {
        return Vec::new();
    }
    let mut known: HashSet<String> = HashSet::new();
    let dirs = others.map(|chain| (path_of(config, &chain, &keys::TASK_DIR), chain));
    let main =
        typed.map(Path::to_owned).or_else(|| path_of(config, MAIN_CHAIN, &keys::TASK_DIR)).map(|dir| (Some(dir), MAIN_CHAIN.to_owned()));
    for (dir, chain) in dirs.chain(main) {
        let Some(entries) = dir.and_then(|dir| fs::read_dir(dir).ok()) else { return Vec::new() };
        let files = entries.flatten().map(|entry| entry.file_name());
        let halt = path_of(config, &chain, &keys::HALT_TASK).and_then(|path| path.file_name().map(ToOwned::to_owned));
        for name in files.chain(halt).map(|file| TaskName::parse(&file)) {
            known.extend([name.text().to_owned(), name.short().to_owned()]);
        }
    }
    let mut findings = Vec::new();
    for section in config.sections().filter(|section| speaks(&section.name)) {
        let Some((_, word)) = section.name.split_once(':').filter(|(_, word)| !known.contains(*word)) else { continue };
        let near = suggestion(word, known.iter().map(String::as_str));
        let message = format!("[{}]: no chain has a task that is called `{word}`{near}", section.name);
        findings.push(Finding::new(Severity::Suspect, &section.origin, message));
    }
    findings
}

/// Sections that nearly are ones of chains or queues: whoever starts them by their names misses one. A mere note elsewhere, because
/// such a section may well be the user's.
#[cfg(all(feature = "schedule", feature = "store"))]
pub fn lost(config: &Config) -> Vec<Finding> {
    let is_lost = |meant: &String| meant.starts_with(CHAIN_PREFIX) || meant.starts_with(QUEUE_PREFIX);
    let lost = |section: &Section| Some(near(section, &near_miss(&section.name).filter(is_lost)?, Severity::Warning));
    config.sections().filter_map(lost).collect()
}

/// A section that nearly is one of runner's.
pub fn near(section: &Section, meant: &str, severity: Severity) -> Finding {
    let message = format!("nothing is read from [{}], it is the user's own section; did you mean [{meant}]?", section.name);
    Finding::new(severity, &section.origin, message)
}

fn path_of(config: &Config, chain: &str, key: &Key<PathBuf>) -> Option<PathBuf> {
    let sections = Sections::for_chain(config, chain);
    let entry = sections.of_chain().find(&key.info)?;
    (key.read)(&entry.value, entry.origin.base().unwrap_or(Path::new(""))).ok()
}
