//! `runner history`: the runs of the past, the newest first.

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::exit::{Exit, Failure};
use super::print;
use super::settings::Settings;
use super::state::Reading;
use super::table::{self, Table};
use super::variables::local_zone;
use crate::config::Config;
use crate::names::{MAIN_CHAIN, typed_suggestion};
use crate::status::Ended;
use crate::store::HistoryQuery;
use crate::store::record::RunRecord;

/// Prints runs of the past.
///
/// # Errors
/// The state cannot be read; there is no such chain; the result cannot be written.
pub fn history(settings: &Settings, query: HistoryQuery) -> Result<Exit, Failure> {
    let zone = local_zone();
    let (mut reading, _) = Reading::open_with_going(settings, &zone)?;
    let config = reading.config.clone();
    let runs = reading.history(&query)?;
    if runs.is_empty() {
        refuse_unknown(&config, query.chain.as_deref())?;
    }
    if settings.json {
        let runs: Vec<Value> = runs.iter().map(as_json).collect();
        print::json(&json!({ "version": 1, "runs": runs }))?;
    } else if !runs.is_empty() {
        print::text(&as_text(&runs, &zone))?;
    }
    Ok(Exit::Done)
}

/// A chain of the past need not be configured any more; one that is neither was mistyped.
fn refuse_unknown(config: &Config, chain: Option<&str>) -> Result<(), Failure> {
    let Some(chain) = chain else { return Ok(()) };
    let known: Vec<&str> = config.sections().filter_map(|section| section.name.strip_prefix("chain:")).chain([MAIN_CHAIN]).collect();
    if known.contains(&chain) {
        return Ok(());
    }
    Err(Failure::Usage(format!("no chain is called `{chain}`, and no run of one is kept{}", typed_suggestion(chain, known))))
}

/// How it ended, in a few words.
pub fn result(run: &RunRecord) -> String {
    let word = run.outcome.as_deref().map_or("running", |word| Ended::of_record(word).words());
    let parts = [Some(word), run.failed_task.as_deref(), run.message.as_deref()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn as_text(runs: &[RunRecord], zone: &TimeZone) -> String {
    let mut table = Table::new(&["RUN", "CHAIN", "TRIGGER", "BEGAN", "TOOK", "RESULT"]);
    for run in runs {
        let began = table::time(run.began, zone);
        table.add(vec![run.run_id.clone(), run.chain.clone(), run.trigger.clone(), began, table::length(run.duration_ms), result(run)]);
    }
    table.text(table::width())
}

/// The record without its tries, which a list does not read.
fn as_json(run: &RunRecord) -> Value {
    let mut value = serde_json::to_value(run).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        for name in ["version", "tries", "tries_left_out"] {
            fields.shift_remove(name);
        }
    }
    value
}
