//! `runner check`: everything that can be found wrong without running anything, each with its place.

use serde_json::json;

#[cfg(all(feature = "schedule", feature = "store"))]
use super::check_schedule::named_chains;
use super::exit::{Exit, Failure};
use super::prepare::prepare;
use super::settings::{Loaded, Settings, find_main_dir, has_only_main, is_error, without_repeats};
use super::trusted::judge_files;
use super::{check_programs, print, strangers};
use crate::chain::setup::Setup;
#[cfg(not(all(feature = "schedule", feature = "store")))]
use crate::config::chains;
use crate::config::sections::{QUEUE_PREFIX, Sections, near_miss};
use crate::config::settings::ChainSettings;
#[cfg(not(all(feature = "schedule", feature = "store")))]
use crate::config::settings::StateSettings;
use crate::config::{Config, Finding, Origin, Section, Severity, keys, queues};
use crate::names::{MAIN_CHAIN, counted, printable};
use crate::outcome::{ExitKind, ProcessEnd, Verdict};

/// Judges the configuration and the task directories; what looks wrong is an error here.
///
/// # Errors
/// The configuration cannot be read, or the result not be written.
pub fn check(settings: &Settings) -> Result<Exit, Failure> {
    let Loaded { config, chain: main, state, mut findings, whole, .. } = settings.load_to_judge()?;
    if !whole {
        // What stands in a file that could not be read is not missing: everything else would be wrong for this reason.
        return report(settings, &without_repeats(findings));
    }
    findings.extend(judge_files(&config, main.trust));
    let named = named_chains(settings, &config, &state, &mut findings);
    let queues = queues::read_all(&config, &mut findings);
    // Whoever only has named chains or queues needs no task_dir in [runner].
    let has_main = main.task_dir.is_some() || has_only_main(&config);
    let (mut told, mut setups) = (Vec::new(), Vec::new());
    let chains = has_main.then_some(main).into_iter().chain(named.into_iter().map(|named| named.chain));
    for chain in chains.chain(queues.into_iter().map(|queue| queue.chain)) {
        told.extend(notes(&config, &chain));
        told.extend(check_programs::of_chain(&config, &chain));
        if chain.task_dir.is_none() && chain.name != MAIN_CHAIN {
            // That was told already, with its line.
            continue;
        }
        let dir = match find_main_dir(&config, None, &chain) {
            Ok(dir) => dir,
            Err(Failure::Config(errors)) => {
                findings.extend(errors);
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let prepared = prepare(&config, chain, Vec::new(), &dir);
        told.extend(prepared.setup.as_ref().map(|setup| check_programs::of_tasks(&config, setup)).unwrap_or_default());
        findings.extend(prepared.findings);
        setups.push(prepared.setup);
    }
    findings.extend(strangers::find(&config, None));
    findings.extend(of_near_misses(&config, &setups));
    findings.extend(setups.iter().flatten().flat_map(left_out));
    told.extend(findings);
    report(settings, &without_repeats(told))
}

#[cfg(not(all(feature = "schedule", feature = "store")))]
fn named_chains(_: &Settings, config: &Config, _: &StateSettings, findings: &mut Vec<Finding>) -> Vec<chains::NamedChain> {
    chains::read_all(config, findings)
}

/// Sections of the user's that nearly are ones of runner's. A task's old section is none.
fn of_near_misses(config: &Config, setups: &[Option<Setup>]) -> Vec<Finding> {
    let is_task = |word: &str| setups.iter().flatten().flat_map(|setup| &setup.tasks).any(|task| task.name.answers_to(word));
    let near = |section: &Section| {
        let meant = near_miss(&section.name).filter(|_| !is_task(&section.name))?;
        Some(strangers::near(section, &meant, Severity::Note))
    };
    config.sections().filter_map(near).collect()
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
    // A job that ends so has failed for good, which is what its queue is for.
    if verdict(2) == Verdict::Halt && !chain.name.starts_with(QUEUE_PREFIX) {
        let message = "a task that exits with 2 halts the chain; grep, ls, make and argparse exit with 2 as well: set halt_codes to another code if tasks end with one of them";
        notes.push(Finding::new(Severity::Note, &path.explain(&keys::HALT_CODES.info).1, message));
    }
    if chain.name == MAIN_CHAIN && path.find(&keys::TIMES.info).is_none() {
        notes.push(Finding::about(
            Severity::Note,
            format!("the chain {MAIN_CHAIN} runs once for each call; write times = 0 to have it run again and again, as the runner before this one did"),
        ));
    }
    notes
}

fn left_out(setup: &Setup) -> Vec<Finding> {
    setup
        .left_out
        .iter()
        .map(|(name, reason)| Finding::about(Severity::Note, format!("{} is no task: {reason}", setup.dir.join(name.file()).display())))
        .collect()
}
