//! What is to be said of a chain whose runs take longer than the time between its slots, by the history where there is one. Reads
//! the database, changes nothing.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::settings::Settings;
use super::state::reading_place;
use super::trusted::refuse_database;
use crate::clock::Seconds;
use crate::config::Config;
use crate::config::database::DatabaseUrl;
use crate::config::keys::{Overlap, SlotScope};
use crate::config::settings::StateSettings;
use crate::daemon::book::Booked;
use crate::schedule::room::{Crowded, Gaps, Took};
use crate::store::record::RunRecord;
use crate::store::{HistoryQuery, StoreError};

/// So many of the last runs and slots are looked through for runs that can be judged.
pub const LOOKED_AT: u32 = 1000;

/// The newest runs of each chain, for who only remarks on them: none where the database is a server, which may be away, where
/// others could have written it, or where it cannot be read for whatever reason.
pub fn newest_runs(settings: &Settings, config: &Config, state: &StateSettings) -> HashMap<String, Vec<RunRecord>> {
    let place = reading_place(settings, state);
    let read = || -> Result<Vec<RunRecord>, StoreError> {
        place.open_to_read()?.runs(&HistoryQuery { chain: None, failed: false, limit: LOOKED_AT })
    };
    let is_file = matches!(place.url(), Ok(DatabaseUrl::Sqlite(_)));
    let mut by_chain: HashMap<String, Vec<RunRecord>> = HashMap::new();
    if is_file && refuse_database(config, &place).is_ok() {
        for run in read().unwrap_or_default() {
            by_chain.entry(run.chain.clone()).or_default().push(run);
        }
    }
    by_chain
}

/// That slots of a chain find it running again and again, in words. `runs`: the newest first.
pub fn remark(chain: &Booked, runs: &[RunRecord], now: Timestamp) -> Option<String> {
    // Of a slot that machines share nobody knows which of them has it.
    let fires_here = chain.named.enabled && chain.named.scope == SlotScope::Machine;
    let gaps = Gaps::after(chain.schedule.as_ref().filter(|_| fires_here)?, now)?;
    let Crowded { gap, least, replaced, runs } = gaps.crowded(chain.named.overlap, lengths(runs))?;
    let gap = Seconds(gap);
    let which = match chain.named.overlap {
        Overlap::Skip | Overlap::Replace => format!("two slots are only {gap} apart"),
        Overlap::Queue => format!("slots are {gap} apart on average"),
    };
    let took = match (least.map(Seconds), replaced) {
        (Some(least), 0) => format!("each of the last {runs} runs that were done took longer, {least} at least"),
        (Some(least), _) => {
            format!("of the last {runs} runs {replaced} were stopped by the next slot, and the others took {least} at least")
        }
        (None, _) => format!("each of the last {runs} runs was stopped by the next slot, none came to its end"),
    };
    let comes = match chain.named.overlap {
        Overlap::Skip => "a slot that comes meanwhile is given up (overlap = skip)",
        Overlap::Queue => "one that comes meanwhile waits, the others are given up (overlap = queue)",
        Overlap::Replace => "a run is stopped when the next slot comes (overlap = replace)",
    };
    Some(format!("{which}, and {took}: {comes}"))
}

/// How long the runs took that were done, or whose place the next slot took.
pub fn lengths(runs: &[RunRecord]) -> impl Iterator<Item = Took> {
    let length = |run: &RunRecord| match run.outcome.as_deref() {
        Some("done") => run.duration_ms.map(Duration::from_millis).map(Took::Whole),
        Some(_) | None => run.was_replaced().then_some(Took::Replaced),
    };
    runs.iter().filter_map(length)
}
