//! What runs of a chain have left running whose program was killed: named before the chain runs again. Changes nothing.

use super::state::own_place;
use crate::config::database::DatabaseUrl;
use crate::config::settings::StateSettings;
use crate::daemon::tell_unfinished;
use crate::store::Owner;
use crate::store::record::RunRecord;

/// Tells what runs of these chains have left. Where there is no state, or it cannot be read now, nothing is known of them.
pub fn tell<'a>(state: &StateSettings, chains: impl Iterator<Item = &'a str>) {
    let (place, here) = (own_place(state), Owner::look());
    let spooled = place.spool().and_then(|spool| spool.read_all().ok()).unwrap_or_default();
    let has_ended = |run: &RunRecord| spooled.iter().any(|record| record.run_id == run.run_id && record.outcome.is_some());
    // Nobody waits for a server to be told of the past.
    let is_file = matches!(place.url(), Ok(DatabaseUrl::Sqlite(_)));
    let stored =
        if is_file { place.open_to_read().and_then(|mut store| store.open_runs(&here.host)).unwrap_or_default() } else { Vec::new() };
    let mut open: Vec<RunRecord> = stored.into_iter().filter(|run| !has_ended(run)).collect();
    let new = |run: &&RunRecord| run.outcome.is_none() && open.iter().all(|known| known.run_id != run.run_id);
    let new: Vec<RunRecord> = spooled.iter().filter(new).cloned().collect();
    open.extend(new);
    let names: Vec<&str> = chains.collect();
    open.retain(|run| names.contains(&run.chain.as_str()) && run.owner().is_alive(&here) == Some(false));
    tell_unfinished(&open, true);
}
