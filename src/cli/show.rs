//! `runner show`: one run with the tries of its tasks and what they wrote last.

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::exit::{Exit, Failure};
use super::history::result;
use super::settings::Settings;
use super::state::Reading;
use super::table::{self, Table, harmless};
use super::variables::local_zone;
use super::{going, print};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::config::keys::Output;
use crate::config::settings::ChainSettings;
use crate::names::{MAIN_CHAIN, printable};
use crate::outcome::signal_name;
use crate::status::{Date, Run};
use crate::store::record::{RunRecord, TryRecord};

/// Prints one run: of this id, the last one of this chain, or the last one of all.
///
/// # Errors
/// The state cannot be read; no run, or more than one, is meant; the result cannot be written.
pub fn show(settings: &Settings, word: Option<&str>) -> Result<Exit, Failure> {
    let zone = local_zone();
    let (mut reading, told) = Reading::open_with_going(settings, &zone)?;
    let config = reading.config.clone();
    let run = match word {
        None => reading.last(None)?,
        // One that is configured, or was when it ran: the configuration may just now be one that cannot be read.
        Some(word) if is_chain(&reading.config, word) || reading.knows(word)? => reading.last(Some(word))?,
        Some(id) => reading.find(id)?,
    };
    let told = told
        .into_iter()
        .find(|going| going.run.id == run.run_id && (run.outcome.is_none() || going.run.closing.is_some()))
        .map(|going| going.run);
    if settings.json {
        let mut document = json!({ "version": 1, "run": run });
        if let (Some(told), Value::Object(fields)) = (told, &mut document) {
            fields.insert("going".to_owned(), serde_json::to_value(told).unwrap_or_default());
        }
        print::json(&document)?;
    } else {
        print::text(&format!("{}{}", as_text(&run, told.as_ref(), &zone), keeps_nothing(&config, &run).unwrap_or_default()))?;
    }
    Ok(Exit::Done)
}

/// Whether a word is the name of a chain: ids of runs hold dashes and digits, and few chains are called so.
pub fn is_chain(config: &Config, word: &str) -> bool {
    word == MAIN_CHAIN || config.sections().any(|section| section.name.strip_prefix("chain:") == Some(word))
}

fn as_text(run: &RunRecord, told: Option<&Run>, zone: &TimeZone) -> String {
    let time = |at| table::time(at, zone);
    let exit = run.exit_code.map(|code| code.to_string());
    let lines = [
        ("run", Some(run.run_id.clone())),
        ("chain", Some(run.chain.clone())),
        ("trigger", Some(run.trigger.clone())),
        ("scheduled at", run.scheduled_at.map(time)),
        ("host", Some(run.host.clone())),
        ("process", Some(format!("{}, boot {}", run.pid, run.boot_id))),
        ("began", Some(time(run.began))),
        ("ended", run.ended.map(time)),
        ("took", Some(table::length(run.duration_ms)).filter(|took| !took.is_empty())),
        ("result", Some(result(run))),
        ("exit code", exit),
        ("runs still", told.and_then(|told| told.closing.as_ref()).map(|closing| going::of_closing(Some(closing)))),
    ];
    let mut text = String::new();
    for (name, value) in lines {
        if let Some(value) = value {
            text.push_str(&format!("{name:12}  {}\n", harmless(&value).replace('\n', " ")));
        }
    }
    if let Some(told) = told.filter(|told| !told.tasks.is_empty()) {
        text.push('\n');
        text.push_str(&going::tasks(told, Date::new(SystemClock::new().wall(), zone)));
    }
    if !run.tries.is_empty() {
        text.push('\n');
        text.push_str(&tries(run, zone));
    }
    for one in run.tries.iter().filter(|one| !one.output_tail.is_empty()) {
        text.push_str(&format!("\n{}, try {}, the end of its output:\n", printable(&one.task), one.try_num));
        text.extend(one.output_tail.lines().map(|line| format!("    {}\n", harmless(line))));
    }
    text
}

/// Why there is no output to be seen, where the configuration says that none is kept.
fn keeps_nothing(config: &Config, run: &RunRecord) -> Option<String> {
    let chain = ChainSettings::of_chain(config, &run.chain, &mut Vec::new());
    let silent = !run.tries.is_empty() && run.tries.iter().all(|one| one.output_tail.is_empty());
    // As `Setup::output_of` has it: beside others each line is marked, and kept.
    let alone = chain.max_parallel == 1 && (run.chain == MAIN_CHAIN || run.trigger == "now");
    let inherits = match chain.task.output {
        Output::Inherit => true,
        Output::Auto => alone,
        Output::Prefix | Output::Capture => false,
    };
    if !inherits || !silent {
        return None;
    }
    if run.trigger == "now" && chain.task.output == Output::Auto {
        // Whether `now` ran others beside it nobody has written down.
        return Some("\noutput: none, or not kept: a chain that `now` runs alone writes where that does; set output = prefix\n".to_owned());
    }
    let unit = if run.chain == MAIN_CHAIN { "runner" } else { "runner-daemon" };
    Some(format!("\noutput: not kept (output = inherit): see the journal of its unit (journalctl -u {unit}), or set output = prefix\n"))
}

fn tries(run: &RunRecord, zone: &TimeZone) -> String {
    let mut table = Table::new(&["TASK", "TRY", "BEGAN", "TOOK", "RESULT"]);
    if run.tries_left_out > 0 {
        table.add(vec![format!("({} tries before these are not kept)", run.tries_left_out)]);
    }
    for one in &run.tries {
        let began = table::time(one.began, zone);
        table.add(vec![printable(&one.task).into_owned(), one.try_num.to_string(), began, table::length(Some(one.duration_ms)), how(one)]);
    }
    table.text(table::width())
}

/// How a try ended, in a few words.
fn how(one: &TryRecord) -> String {
    let mut parts = vec![one.verdict.clone()];
    parts.extend(one.exit_code.filter(|code| *code != 0).map(|code| format!("exit {code}")));
    parts.extend(one.signal.map(|signal| format!("died of {}", signal_name(signal))));
    parts.extend(one.timed_out.as_ref().map(|key| format!("timed out: {key}")));
    parts.extend(one.not_started.as_ref().map(|why| format!("could not start: {why}")));
    parts.extend(one.said.as_ref().map(|said| format!("says {said}")));
    if one.left_behind > 0 {
        parts.push(format!("left {} behind", crate::names::counted(one.left_behind as usize, "process")));
    }
    parts.join(", ")
}
