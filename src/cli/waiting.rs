//! Slots that were claimed and whose runs have not begun: for whom each waits, as far as the state tells. Changes nothing.

use jiff::{SignedDuration, Timestamp};

use super::exit::Failure;
use super::state::Reading;
use crate::daemon::book::Booked;
use crate::schedule::window::minute_of;
use crate::store::{HistoryQuery, WaitingSlot};

/// How the words begin that say of a chain that its slot waits.
pub const SLOT: &str = "its slot";
/// A slot that was claimed so much later was missed.
const MISSED: SignedDuration = SignedDuration::from_mins(1);

/// A slot that waits.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The moment it is for.
    pub slot: Timestamp,
    /// In words: for whom.
    pub text: String,
}

/// The slot of a chain that waits, if one does. `by_daemon`: no tick claims slots here. `runs_now`: a run of the chain goes on.
///
/// # Errors
/// The database does not answer.
pub fn of_chain(
    chain: &Booked,
    reading: &mut Reading,
    now: Timestamp,
    (by_daemon, runs_now): (bool, bool),
) -> Result<Option<Waiting>, Failure> {
    let machine = chain.slots_of(&reading.here.machine).to_owned();
    let ours = |slot: &WaitingSlot| slot.claim.key.chain == chain.name() && slot.claim.key.machine == machine;
    let waiting = reading.waiting_slots()?;
    let newest =
        waiting.iter().filter(|slot| ours(slot)).filter_map(|slot| Some((slot.claim.key.slot.time()?, slot))).min_by_key(|(at, _)| *at);
    let Some((slot, claimed)) = newest else { return Ok(None) };
    let delay = SignedDuration::try_from(chain.policy(&reading.here.machine).delay).unwrap_or_default();
    let fires = slot.saturating_add(delay).unwrap_or(slot);
    if fires > now {
        // It is claimed a moment before it is due.
        return Ok(None);
    }
    if runs_now || !chain.named.idle {
        let text = "waits for the end of the run before it".to_owned();
        return Ok(runs_now.then_some(Waiting { slot, text }));
    }
    let late = fires.duration_until(claimed.claimed_at) > MISSED;
    let begins = if late { claimed.claimed_at } else { fires };
    let begins = if by_daemon { begins } else { minute_of(begins) };
    let ends = SignedDuration::try_from(chain.named.window).ok().and_then(|window| begins.checked_add(window).ok());
    let mates = mates(chain, slot, &waiting, reading)?;
    let whom = if mates.is_empty() { "others of its minute".to_owned() } else { mates.join(", ") };
    let until = ends.map(|ends| format!("; its window ends in {}", super::table::about(now.duration_until(ends)))).unwrap_or_default();
    Ok(Some(Waiting { slot, text: format!("waits for {whom}: it is idle{until}") }))
}

/// The chains that run for the same moment, and then those that are idle, too, and have their turn before it.
fn mates(chain: &Booked, slot: Timestamp, waiting: &[WaitingSlot], reading: &mut Reading) -> Result<Vec<String>, Failure> {
    let recent = reading.history(&HistoryQuery { chain: None, failed: false, limit: 200 })?;
    let going = recent.into_iter().filter(|run| run.outcome.is_none() && run.scheduled_at == Some(slot) && run.chain != chain.name());
    let mut names: Vec<String> = going.map(|run| run.chain).collect();
    if names.is_empty() {
        let others = waiting.iter().filter(|other| other.claim.key.slot.time() == Some(slot) && other.claim.key.chain != chain.name());
        names.extend(others.map(|other| other.claim.key.chain.clone()));
    }
    names.sort();
    names.dedup();
    Ok(names)
}
