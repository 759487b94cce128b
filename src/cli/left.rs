//! What runs of a chain have left running whose program was killed: named before the chain runs again, ended when somebody says so.

use std::collections::HashMap;
use std::time::Duration;

use rustix::event::{Timespec, poll};

use super::exit::Failure;
use super::state::own_place;
use crate::clock::{Clock, SystemClock};
use crate::config::database::DatabaseUrl;
use crate::config::settings::StateSettings;
use crate::daemon::tell_unfinished;
use crate::notify::asking::there;
use crate::process::leftovers::{Leftovers, still_running};
use crate::process::state::UNKILLABLE_AFTER;
use crate::store::Owner;
use crate::store::open::Place;
use crate::store::record::{CRASHED, RunRecord};

/// Tells what runs of these chains have left. Where there is no state, or it cannot be read now, nothing is known of them.
pub fn tell<'a>(state: &StateSettings, chains: impl Iterator<Item = &'a str>) {
    let (place, here) = (own_place(state), Owner::look());
    let spooled = place.spool().and_then(|spool| spool.read_all().ok()).unwrap_or_default();
    let has_ended = |run: &RunRecord| spooled.iter().any(|record| record.run_id == run.run_id && record.outcome.is_some());
    // A server is asked only where there is something to ask for, and nobody waits for it for long.
    let asked = match place.url() {
        Ok(DatabaseUrl::Postgres(url)) => someone_is_left().then(|| Place { database: Some(in_a_hurry(url)), ..place }),
        Ok(DatabaseUrl::Sqlite(_)) | Err(_) => Some(place),
    };
    let stored = asked.map(|place| place.open_to_read().and_then(|mut store| store.open_runs(&here.host)));
    let stored = stored.transpose().inspect_err(|error| log::debug!("what runs have left is not known: {error}"));
    let stored = stored.ok().flatten().unwrap_or_default();
    let mut open: Vec<RunRecord> = stored.into_iter().filter(|run| !has_ended(run)).collect();
    let new = |run: &&RunRecord| run.outcome.is_none() && open.iter().all(|known| known.run_id != run.run_id);
    let new: Vec<RunRecord> = spooled.iter().filter(new).cloned().collect();
    open.extend(new);
    let names: Vec<&str> = chains.collect();
    open.retain(|run| names.contains(&run.chain.as_str()) && run.owner().is_alive(&here) == Some(false));
    tell_unfinished(&open, true);
}

/// Whether a process of a run is there that is none of those that go on: of one that was killed, or left on purpose.
fn someone_is_left() -> bool {
    let there = there();
    still_running().keys().any(|run| !there.contains(run))
}

/// The same server, which is given up soon unless its address says how long it is waited for.
fn in_a_hurry(mut url: String) -> DatabaseUrl {
    for (key, seconds) in [("connect_timeout", 2), ("statement_timeout", 2)] {
        if !url.contains(&format!("{key}=")) {
            let and = if url.contains('?') { '&' } else { '?' };
            url.push_str(&format!("{and}{key}={seconds}"));
        }
    }
    DatabaseUrl::Postgres(url)
}

/// What a run has left running, by pid.
pub type Left<'a> = (&'a RunRecord, Vec<i32>);

/// What those of these runs have left running whose process is gone. What a run that ended by itself has left is there on purpose.
pub fn find(runs: &[RunRecord]) -> Vec<Left<'_>> {
    let crashed: Vec<&RunRecord> = runs.iter().filter(|run| run.outcome.as_deref() == Some(CRASHED)).collect();
    let mut running = if crashed.is_empty() { HashMap::new() } else { still_running() };
    crashed.into_iter().filter_map(|run| running.remove(&run.run_id).map(|pids| (run, pids))).collect()
}

/// Ends that: TERM, and KILL after `kill_after`; without `wait` only TERM.
///
/// # Errors
/// It does not end: it is another user's, or cannot be killed just now.
pub fn end(left: &[Left<'_>], kill_after: Duration, wait: bool) -> Result<(), Failure> {
    let clock = SystemClock::new();
    let begun = clock.now();
    let mut open: Vec<_> = left.iter().map(|left| (left, Leftovers::new(&left.0.run_id, kill_after, begun))).collect();
    loop {
        let now = clock.now();
        open.retain_mut(|(_, leftovers)| !leftovers.advance(now));
        let Some(next) = open.iter().map(|(_, leftovers)| leftovers.wake_at()).min().filter(|_| wait) else { return Ok(()) };
        if now >= begun + kill_after + UNKILLABLE_AFTER {
            let runs: Vec<_> = open.iter().map(|((run, _), _)| run.run_id.as_str()).collect();
            let message =
                "what it has left running does not end: it is another user's (ask as that user, or as root), or waits in the kernel";
            return Err(Failure::State(format!("run {}: {message}", runs.join(", "))));
        }
        let _ = poll(&mut [], Some(&timespec(next.since(now))));
    }
}

fn timespec(wait: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX), tv_nsec: wait.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_given_up_soon_unless_its_address_says_when() {
        let hurried = |url: &str| match in_a_hurry(url.to_owned()) {
            DatabaseUrl::Postgres(url) => url,
            DatabaseUrl::Sqlite(path) => path.display().to_string(),
        };
        assert_eq!(hurried("postgresql://db/x"), "postgresql://db/x?connect_timeout=2&statement_timeout=2");
        let said = "postgresql://db/x?connect_timeout=9&statement_timeout=7";
        assert_eq!(hurried(said), said);
        assert_eq!(hurried("postgresql://db/x?connect_timeout=9"), "postgresql://db/x?connect_timeout=9&statement_timeout=2");
    }
}
