//! What is suspect in a configuration as a whole: keys that nobody knows, sections of nobody, variables that cannot be set.
//! Decides only; the values of known keys are judged where they are read (`settings`).

use std::cell::LazyCell;
use std::collections::HashSet;
use std::path::Path;

use super::keys::{self, Scope};
use super::sections::{
    CHAIN_PREFIX, DAEMON_SECTION, ENV_SECTION, LIVENESS_SECTION, METRICS_SECTION, QUEUE_PREFIX, RUNNER_SECTION, name_of,
};
use super::settings::bad_value;
use super::{Config, Finding, Section, Severity, chains, queues, value};
use crate::names::{MAIN_CHAIN, suggestion};

/// Judges the keys of the sections that runner owns: one that it does not know is suspect.
pub fn judge_keys(config: &Config, findings: &mut Vec<Finding>) {
    for section in config.sections() {
        for entry in section.entries().iter().filter(|entry| value::holds_secret(&entry.value)) {
            let message =
                format!("`{}` in [{}] holds a password; put it into a file that only its owner may read", entry.key, section.name);
            findings.push(Finding::new(Severity::Warning, &entry.origin, message));
        }
        let scope = match section.name.as_str() {
            RUNNER_SECTION => Scope::RUNNER,
            name if name.starts_with("task:") => Scope::TASK,
            name if name.starts_with(CHAIN_PREFIX) => Scope::CHAIN,
            name if name.starts_with(QUEUE_PREFIX) => Scope::QUEUE,
            DAEMON_SECTION => Scope::DAEMON,
            METRICS_SECTION => Scope::METRICS,
            LIVENESS_SECTION => Scope::LIVENESS,
            _ => continue,
        };
        for entry in section.entries() {
            if !keys::is_known(&entry.key, scope) {
                let message = format!("unknown key `{}` in [{}]{}", entry.key, section.name, suggestion(&entry.key, keys::names_in(scope)));
                findings.push(Finding::new(Severity::Suspect, &entry.origin, message));
            } else if scope == Scope::TASK && !entry.value.is_empty() {
                // Also where another section is nearer to the task, or no task is called so: a bad value is always an error.
                let expected = keys::judge(&entry.key, &entry.value, entry.origin.base().unwrap_or(Path::new("")));
                findings.extend(expected.map(|expected| bad_value(&name_of(section, entry), entry, &expected)));
            }
        }
    }
}

/// Judges whom the sections of tasks speak of, as far as that can be told without their directories: a chain that nobody has is a
/// slip, mostly.
pub fn judge_owners(config: &Config, findings: &mut Vec<Finding>) {
    let queues = || queues::names(config).map(|name| format!("{QUEUE_PREFIX}{name}"));
    let known: LazyCell<HashSet<String>, _> =
        LazyCell::new(|| chains::names(config).chain([MAIN_CHAIN]).map(str::to_owned).chain(queues()).collect());
    for section in config.sections() {
        let wrong = match section.name.split_once(':') {
            Some(("task", word)) => match word.split_once('/') {
                Some((chain, _)) if !known.contains(chain) => {
                    format!("no chain is called `{chain}`{}", suggestion(chain, known.iter().map(String::as_str)))
                }
                Some(_) | None => continue,
            },
            Some(("env", word)) => match word.rsplit_once('/') {
                Some((_, task)) => format!("no task is called `{word}`; variables are those of a task in every chain, write [env:{task}]"),
                None => continue,
            },
            Some(_) | None => continue,
        };
        findings.push(Finding::new(Severity::Suspect, &section.origin, format!("[{}]: {wrong}", section.name)));
    }
}

/// Judges the variables of `[env]` and `[env:NAME]`: names that cannot be set, or that lose.
pub fn judge_env(config: &Config, findings: &mut Vec<Finding>) {
    let is_env = |section: &&Section| section.name == ENV_SECTION || section.name.starts_with("env:");
    for section in config.sections().filter(is_env) {
        for entry in section.entries() {
            if entry.key.starts_with("RUNNER_") {
                let message = format!("`{}` in [{}] is not set: names that begin with RUNNER_ are runner's own", entry.key, section.name);
                findings.push(Finding::new(Severity::Warning, &entry.origin, message));
            } else if entry.value.contains('\0') {
                findings.push(Finding::error(&entry.origin, format!("`{}` holds a NUL byte, which no variable can", entry.key)));
            }
        }
    }
}
