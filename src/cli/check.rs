//! `runner check`: everything that can be found wrong without running anything, each with its place.

use serde_json::json;

use super::exit::{Exit, Failure};
use super::prepare::prepare;
use super::print;
use super::settings::{Loaded, Settings, find_task_dir, is_error, program_search, without_repeats};
use crate::chain::setup::Setup;
use crate::config::sections::Sections;
use crate::config::value::CommandLine;
use crate::config::{Finding, Origin, Severity, keys, queues};
use crate::names::{MAIN_CHAIN, counted, printable};
use crate::outcome::{ExitKind, ProcessEnd, Verdict};
use crate::process::find_program;

/// Judges the configuration and the task directory; what looks wrong is an error here.
///
/// # Errors
/// The configuration cannot be read, or the result not be written.
pub fn check(settings: &Settings) -> Result<Exit, Failure> {
    let loaded = settings.load()?;
    let mut findings = notes(&loaded);
    queues::read_all(&loaded.config, &mut findings);
    match find_task_dir(None, &loaded.chain) {
        Err(Failure::Config(errors)) => {
            findings.extend(loaded.findings);
            findings.extend(errors);
        }
        Err(failure) => return Err(failure),
        Ok(dir) => {
            let Loaded { config, chain, findings: known, .. } = loaded;
            let prepared = prepare(&config, chain, known, &dir);
            findings.extend(prepared.findings);
            findings.extend(prepared.setup.iter().flat_map(left_out));
        }
    }
    report(settings, &without_repeats(findings))
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
fn notes(loaded: &Loaded) -> Vec<Finding> {
    let mut notes = Vec::new();
    let sections = Sections::new(&loaded.config, MAIN_CHAIN);
    let path = sections.of_chain();
    let verdict = |code| loaded.chain.task.codes.verdict(&ExitKind::Ended(ProcessEnd::Code(code)));
    if verdict(2) == Verdict::Halt {
        let message = "a task that exits with 2 halts the chain; grep, ls, make and argparse exit with 2 as well: set halt_codes to another code if tasks end with one of them";
        notes.push(Finding::new(Severity::Note, &path.explain(&keys::HALT_CODES.info).1, message));
    }
    if path.find(&keys::TIMES.info).is_none() {
        notes.push(Finding::about(
            Severity::Note,
            format!("the chain {MAIN_CHAIN} runs once; the old runner ran for ever: write times = 0 for that"),
        ));
    }
    let search = program_search(&loaded.config);
    let mut missing = |key: &keys::KeyInfo, command: &Option<CommandLine>| {
        if let Some(command) = command
            && find_program(command.program().as_ref(), search.as_deref()).is_none_or(|path| !path.is_file())
        {
            let message = format!("{} = {}: there is no such program", key.name, command.program());
            notes.push(Finding::new(Severity::Suspect, &path.explain(key).1, message));
        }
    };
    missing(&keys::TASK_HOOK.info, &loaded.chain.task_hook);
    missing(&keys::CHAIN_HOOK.info, &loaded.chain.chain_hook);
    missing(&keys::INTERPRETER.info, &loaded.chain.task.interpreter);
    notes
}

fn left_out(setup: &Setup) -> Vec<Finding> {
    setup
        .left_out
        .iter()
        .map(|(name, reason)| Finding::about(Severity::Note, format!("{} is no task: {reason}", setup.dir.join(name.file()).display())))
        .collect()
}
