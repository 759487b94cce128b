//! `runner check`: everything that can be found wrong without running anything, each with its place.

use std::collections::HashSet;

use serde_json::json;

#[cfg(all(feature = "schedule", feature = "store"))]
use super::check_schedule::named_chains;
use super::exit::{Exit, Failure};
use super::prepare::prepare;
use super::print;
use super::settings::{Loaded, Settings, find_task_dir, is_error, program_search, without_repeats};
use super::trusted::judge_files;
use crate::chain::setup::Setup;
use crate::config::sections::Sections;
use crate::config::settings::ChainSettings;
#[cfg(not(all(feature = "schedule", feature = "store")))]
use crate::config::settings::StateSettings;
use crate::config::value::CommandLine;
use crate::config::{Config, Finding, Origin, Severity, chains, keys, queues};
use crate::names::{MAIN_CHAIN, counted, printable, suggestion};
use crate::outcome::{ExitKind, ProcessEnd, Verdict};
use crate::process::find_program;

/// Judges the configuration and the task directories; what looks wrong is an error here.
///
/// # Errors
/// The configuration cannot be read, or the result not be written.
pub fn check(settings: &Settings) -> Result<Exit, Failure> {
    let Loaded { config, chain: main, state, mut findings, .. } = settings.load_to_judge()?;
    findings.extend(judge_files(&config, main.trust));
    let named = named_chains(&config, &state, &mut findings);
    queues::read_all(&config, &mut findings);
    // Whoever only has named chains needs no task_dir in [runner].
    let has_main = main.task_dir.is_some() || named.is_empty();
    let (mut told, mut setups) = (Vec::new(), Vec::new());
    let chains = has_main.then_some(main).into_iter().chain(named.into_iter().map(|named| named.chain));
    for chain in chains {
        told.extend(notes(&config, &chain));
        told.extend(of_programs(&config, &chain));
        match find_task_dir(None, &chain) {
            // A named chain without one was told already, with its line.
            Err(Failure::Config(errors)) => findings.extend(errors.into_iter().filter(|_| chain.name == MAIN_CHAIN)),
            Err(failure) => return Err(failure),
            Ok(dir) => {
                let prepared = prepare(&config, chain, Vec::new(), &dir);
                findings.extend(prepared.findings);
                setups.push(prepared.setup);
            }
        }
    }
    findings.extend(of_task_sections(&config, &setups));
    findings.extend(setups.iter().flatten().flat_map(left_out));
    told.extend(findings);
    report(settings, &without_repeats(told))
}

#[cfg(not(all(feature = "schedule", feature = "store")))]
fn named_chains(config: &Config, _: &StateSettings, findings: &mut Vec<Finding>) -> Vec<chains::NamedChain> {
    chains::read_all(config, findings)
}

/// Sections that speak of a task which no chain has, or of a chain that is none. A chain alone cannot tell: the task may be
/// another's.
fn of_task_sections(config: &Config, setups: &[Option<Setup>]) -> Vec<Finding> {
    let chains: HashSet<&str> = chains::names(config).chain([MAIN_CHAIN]).collect();
    // With one chain, or one whose tasks nobody knows, this is not the place.
    if chains.len() == 1 || setups.iter().any(Option::is_none) {
        return Vec::new();
    }
    let setups = || setups.iter().flatten();
    let tasks: HashSet<&str> = setups().flat_map(|setup| &setup.tasks).flat_map(|task| [task.name.text(), task.name.short()]).collect();
    let others: HashSet<&str> = setups().flat_map(|setup| &setup.left_out).flat_map(|(name, _)| [name.text(), name.short()]).collect();
    let mut findings = Vec::new();
    for section in config.sections() {
        let Some(("task" | "env", word)) = section.name.split_once(':') else { continue };
        let wrong = match word.split_once('/') {
            Some((chain, _)) if chains.contains(&chain) => continue,
            Some((chain, _)) => format!("no chain is called `{chain}`{}", suggestion(chain, chains.iter().copied())),
            None if tasks.contains(word) || others.contains(word) => continue,
            None => format!("no chain has a task that is called `{word}`{}", suggestion(word, tasks.iter().copied())),
        };
        findings.push(Finding::new(Severity::Suspect, &section.origin, format!("[{}]: {wrong}", section.name)));
    }
    findings
}

fn report(settings: &Settings, findings: &[Finding]) -> Result<Exit, Failure> {
    let errors = findings.iter().filter(|finding| is_error(finding, true)).count();
    let warnings = findings.iter().filter(|finding| finding.severity == Severity::Warning).count();
    if settings.json {
        let list: Vec<_> = findings.iter().map(as_json).collect();
        print::json(&json!({ "version": 1, "findings": list, "errors": errors, "warnings": warnings }))?;
    } else {
        let mut text: String = findings.iter().map(|finding| format!("{}\n", printable(&as_text(finding)))).collect();
        let file = settings.config_file.as_ref().map(|file| format!("{}: ", file.display())).unwrap_or_default();
        text.push_str(&format!("{file}{}, {}\n", counted(errors, "error"), counted(warnings, "warning")));
        print::text(&text)?;
    }
    Ok(if errors > 0 { Exit::Config } else { Exit::Done })
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error | Severity::Suspect => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

fn as_text(finding: &Finding) -> String {
    let (word, message) = (word(finding.severity), &finding.message);
    match &finding.origin {
        Origin::Default => format!("{word}: {message}"),
        origin @ (Origin::CommandLine | Origin::File { .. }) => format!("{origin}: {word}: {message}"),
    }
}

fn as_json(finding: &Finding) -> serde_json::Value {
    let (file, line) = match &finding.origin {
        Origin::File { file, line } => (Some(file.display().to_string()), Some(*line)),
        Origin::Default | Origin::CommandLine => (None, None),
    };
    json!({ "severity": word(finding.severity), "file": file, "line": line, "message": finding.message })
}

/// What is right, and still surprises people.
fn notes(config: &Config, chain: &ChainSettings) -> Vec<Finding> {
    let mut notes = Vec::new();
    let sections = Sections::for_chain(config, &chain.name);
    let path = sections.of_chain();
    let verdict = |code| chain.task.codes.verdict(&ExitKind::Ended(ProcessEnd::Code(code)));
    if verdict(2) == Verdict::Halt {
        let message = "a task that exits with 2 halts the chain; grep, ls, make and argparse exit with 2 as well: set halt_codes to another code if tasks end with one of them";
        notes.push(Finding::new(Severity::Note, &path.explain(&keys::HALT_CODES.info).1, message));
    }
    if chain.name == MAIN_CHAIN && path.find(&keys::TIMES.info).is_none() {
        notes.push(Finding::about(
            Severity::Note,
            format!("the chain {MAIN_CHAIN} runs once; the old runner ran for ever: write times = 0 for that"),
        ));
    }
    notes
}

/// Hooks and interpreters that are not there.
fn of_programs(config: &Config, chain: &ChainSettings) -> Vec<Finding> {
    let sections = Sections::for_chain(config, &chain.name);
    let search = program_search(config);
    let programs = [
        (&keys::TASK_HOOK.info, &chain.task_hook),
        (&keys::CHAIN_HOOK.info, &chain.chain_hook),
        (&keys::INTERPRETER.info, &chain.task.interpreter),
    ];
    let missing = |(key, command): (&keys::KeyInfo, &Option<CommandLine>)| {
        let command = command.as_ref()?;
        let is_there = find_program(command.program().as_ref(), search.as_deref()).is_some_and(|path| path.is_file());
        let message = || format!("{} = {}: there is no such program", key.name, command.program());
        (!is_there).then(|| Finding::new(Severity::Suspect, &sections.of_chain().explain(key).1, message()))
    };
    programs.into_iter().filter_map(missing).collect()
}

fn left_out(setup: &Setup) -> Vec<Finding> {
    setup
        .left_out
        .iter()
        .map(|(name, reason)| Finding::about(Severity::Note, format!("{} is no task: {reason}", setup.dir.join(name.file()).display())))
        .collect()
}
