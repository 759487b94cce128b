//! What `runner check` finds out about the programs of a chain: hooks, interpreters, and the first line of each task. Reads
//! these files and starts none of them.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;

use super::variables::program_search;
use crate::chain::setup::Setup;
use crate::config::keys::{self, KeyInfo};
use crate::config::sections::Sections;
use crate::config::settings::{ChainSettings, TaskSettings};
use crate::config::value::CommandLine;
use crate::config::{Config, Finding, Origin, Severity};
use crate::names::TaskName;
use crate::process::{explain_content, find_program};

/// Hooks that are not there, or cannot be started.
pub fn of_chain(config: &Config, chain: &ChainSettings) -> Vec<Finding> {
    let sections = Sections::for_chain(config, &chain.name);
    let path = sections.of_chain();
    let search = program_search(config);
    let search = search.as_deref();
    let mut findings = Vec::new();
    for (key, hook) in [(&keys::TASK_HOOK.info, &chain.task_hook), (&keys::CHAIN_HOOK.info, &chain.chain_hook)] {
        let Some(hook) = hook else { continue };
        let origin = path.explain(key).1;
        let cannot_start = |file: &Path| explain_file(file, None, search);
        let why = match find_program(hook.program().as_ref(), search).filter(|file| file.is_file()) {
            None => Some(missing(key, hook, &origin)),
            Some(file) => {
                cannot_start(&file).map(|why| Finding::new(Severity::Warning, &origin, format!("{} cannot start: {why}", key.name)))
            }
        };
        findings.extend(why);
    }
    findings
}

/// Tasks whose interpreter is not there, or which the kernel would not start.
pub fn of_tasks(config: &Config, setup: &Setup) -> Vec<Finding> {
    let sections = Sections::new(config, &setup.chain.name);
    let mut findings = Vec::new();
    let mut judge = |who: (&str, Origin),
                     file: &Path,
                     interpreter: Option<(&CommandLine, Origin)>,
                     working_dir: Option<&Path>,
                     search: Option<&OsStr>| {
        findings.extend(match interpreter {
            Some((command, _)) if is_there(command, search) => None,
            Some((command, origin)) => Some(missing(&keys::INTERPRETER.info, command, &origin)),
            None => explain_file(file, working_dir, search)
                .map(|why| Finding::new(Severity::Warning, &who.1, format!("{} cannot start: {why}", who.0))),
        });
    };
    for task in &setup.tasks {
        let origin = || sections.of_task(&task.name).explain(&keys::INTERPRETER.info).1;
        let interpreter = task.settings.interpreter.as_ref().map(|command| (command, origin()));
        judge(("a task", Origin::Default), &task.path, interpreter, task.settings.working_dir.as_deref(), task.variables.search.as_deref());
    }
    // One that is missing was told.
    if let Some(halt) = setup.halt.as_ref().filter(|halt| halt.path.is_file()) {
        let origin = || sections.of_chain().explain(&keys::INTERPRETER.info).1;
        let interpreter = halt.settings.interpreter.as_ref().map(|command| (command, origin()));
        let who = ("the halt task", setup.chain.halt_task_origin.clone());
        judge(who, &halt.path, interpreter, halt.settings.working_dir.as_deref(), setup.variables.search.as_deref());
    }
    findings.extend(of_working_dirs(&sections, setup));
    findings
}

/// Directories that tasks are to start in and are not there. They may be mounted later.
fn of_working_dirs(sections: &Sections<'_>, setup: &Setup) -> Vec<Finding> {
    let halt = setup.halt.as_ref().map(|halt| (TaskName::parse(halt.path.file_name().unwrap_or_default()), &halt.settings));
    let all = setup.tasks.iter().map(|task| (task.name.clone(), &task.settings)).chain(halt);
    let wrong = |(name, settings): (TaskName, &Rc<TaskSettings>)| {
        let dir = settings.working_dir.as_deref().filter(|dir| !dir.is_dir())?;
        let path = sections.of_task(&name);
        let what = if dir.exists() { "is no directory" } else { "is not there" };
        let message = format!("{} = {}: it {what}, and no task can start in it", path.naming(&keys::WORKING_DIR.info), dir.display());
        Some(Finding::new(Severity::Warning, &path.explain(&keys::WORKING_DIR.info).1, message))
    };
    all.filter_map(wrong).collect()
}

fn is_there(command: &CommandLine, search: Option<&OsStr>) -> bool {
    find_program(command.program().as_ref(), search).is_some_and(|path| path.is_file())
}

fn missing(key: &KeyInfo, command: &CommandLine, origin: &Origin) -> Finding {
    Finding::new(Severity::Suspect, origin, format!("{} = {}: there is no such program", key.name, command.program()))
}

/// Why a file would not start, if that can be seen.
fn explain_file(file: &Path, working_dir: Option<&Path>, search: Option<&OsStr>) -> Option<String> {
    let mode = file.metadata().ok()?.permissions().mode();
    if mode & 0o111 == 0 {
        return Some(format!("{} may not be executed: make it executable (chmod +x)", file.display()));
    }
    explain_content(file, working_dir, search)
}
