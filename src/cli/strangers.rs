//! Sections that speak of a task which no chain has, or not the one that they name. Lists the task directories of every chain, and reads nothing else: whether
//! a file there is a task is its chain's to say.

use std::collections::{HashMap, HashSet};
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
    let speaks = |section: &&Section| matches!(section.name.split_once(':'), Some(("task" | "env", _)));
    if others.peek().is_none() || !config.sections().any(|section| speaks(&section)) {
        return Vec::new();
    }
    let mut known: HashMap<String, HashSet<String>> = HashMap::new();
    let mut all_known = true;
    let dirs = others.map(|chain| (path_of(config, &chain, &keys::TASK_DIR), chain));
    let main =
        typed.map(Path::to_owned).or_else(|| path_of(config, MAIN_CHAIN, &keys::TASK_DIR)).map(|dir| (Some(dir), MAIN_CHAIN.to_owned()));
    for (dir, chain) in dirs.chain(main) {
        let Some(entries) = dir.and_then(|dir| fs::read_dir(dir).ok()) else {
            all_known = false;
            continue;
        };
        let files = entries.flatten().map(|entry| entry.file_name());
        let halt = path_of(config, &chain, &keys::HALT_TASK).and_then(|path| path.file_name().map(ToOwned::to_owned));
        let names = files.chain(halt).map(|file| TaskName::parse(&file));
        known.insert(chain, names.flat_map(|name| [name.text().to_owned(), name.short().to_owned()]).collect());
    }
    let judge = |section: &Section| {
        let (kind, word) = section.name.split_once(':')?;
        let wrong = match word.split_once('/') {
            Some((chain, word)) if kind == "task" => {
                let names = known.get(chain).filter(|names| !names.contains(word))?;
                // In the words of the chain itself, which may tell it, too.
                format!("no task is called `{word}`{}", suggestion(word, names.iter().map(String::as_str)))
            }
            None if all_known && !known.values().any(|names| names.contains(word)) => {
                let near = suggestion(word, known.values().flatten().map(String::as_str));
                format!("no chain has a task that is called `{word}`{near}")
            }
            Some(_) | None => return None,
        };
        Some(Finding::new(Severity::Suspect, &section.origin, format!("[{}]: {wrong}", section.name)))
    };
    config.sections().filter(speaks).filter_map(judge).collect()
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
