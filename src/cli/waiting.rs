//! Slots that were claimed and whose runs have not begun: for whom each waits, as far as the state, or the daemon, tells; and the
//! words for it. Changes nothing.

use jiff::{SignedDuration, Timestamp};

use super::exit::Failure;
use super::state::Reading;
use crate::config::chains::NamedChain;
use crate::config::{Config, Origin};
use crate::daemon::book::Booked;
use crate::daemon::waiting::Behind;
#[cfg(feature = "http")]
use crate::daemon::waiting::SlotWait;
use crate::schedule::window::minute_of;
#[cfg(feature = "http")]
use crate::status;
use crate::store::{HistoryQuery, WaitingSlot};

/// How the words begin that say of a chain that its slot waits.
pub const SLOT: &str = "its slot";
/// A slot that was claimed so much later was missed.
const MISSED: SignedDuration = SignedDuration::from_mins(1);
/// No slot is claimed so long before it is due.
const AHEAD: SignedDuration = SignedDuration::from_secs(2);

/// A slot that waits.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The moment it is for.
    pub slot: Timestamp,
    /// In words: for whom.
    pub text: String,
}

/// For whom a slot waits, behind the words "its slot".
fn in_words(behind: &Behind, now: Timestamp) -> String {
    /// More names than these say nothing more.
    const NAMED: usize = 5;
    match behind {
        Behind::ItsRun => "waits for the end of the run before it".to_owned(),
        Behind::Others { chains, until } => {
            let whom = match chains.as_slice() {
                [] => "others of its minute".to_owned(),
                some if some.len() <= NAMED => some.join(", "),
                many => format!("{} and {} more", many[..NAMED].join(", "), many.len() - NAMED),
            };
            let until = until.map(|until| format!("; its window ends in {}", super::table::about(now.duration_until(until))));
            format!("waits for {whom}: it is idle{}", until.unwrap_or_default())
        }
    }
}

/// The same as the reason why a chain does not run.
pub fn because(text: &str) -> String {
    format!("{SLOT} {text}")
}

/// Says it of the chains of a daemon, before what else keeps them.
#[cfg(feature = "http")]
pub fn show(slots: &[SlotWait], status: &mut status::Status) {
    let now = status.time.at;
    for slot in slots {
        if let Ok(at) = status.chains.binary_search_by(|chain| chain.name.cmp(&slot.chain)) {
            let text = because(&in_words(&slot.behind, now));
            let known = status.chains[at].waits_because.take();
            status.chains[at].waits_because = Some(known.map_or(text.clone(), |known| format!("{text}; {known}")));
        }
    }
}

/// The slot of a chain that waits, if one does. `by_daemon`: no tick claims slots here. `runs_now`: a run of the chain goes on.
/// `waiting` are all slots that wait.
///
/// # Errors
/// The database does not answer.
pub fn of_chain(
    chain: &Booked,
    (waiting, config): (&[WaitingSlot], &Config),
    reading: &mut Reading,
    now: Timestamp,
    (by_daemon, runs_now): (bool, bool),
) -> Result<Option<Waiting>, Failure> {
    let machine = chain.slots_of(&reading.here.machine).to_owned();
    let ours = |slot: &WaitingSlot| slot.claim.key.chain == chain.name() && slot.claim.key.machine == machine;
    let newest =
        waiting.iter().filter(|slot| ours(slot)).filter_map(|slot| Some((slot.claim.key.slot.time()?, slot))).min_by_key(|(at, _)| *at);
    let Some((slot, claimed)) = newest else { return Ok(None) };
    let delay = SignedDuration::try_from(chain.policy(&reading.here.machine).delay).unwrap_or_default();
    let fires = slot.saturating_add(delay).unwrap_or(slot);
    // It is claimed a moment before it is due; where that was long ago, its delay has changed since.
    let delayed_since = fires > now && claimed.claimed_at.duration_until(now) > AHEAD;
    if fires > now && !delayed_since {
        return Ok(None);
    }
    if runs_now || !chain.named.idle {
        return Ok(runs_now.then(|| Waiting { slot, text: in_words(&Behind::ItsRun, now) }));
    }
    let late = fires.duration_until(claimed.claimed_at) > MISSED;
    let begins = if late || delayed_since { claimed.claimed_at } else { fires };
    let begins = if by_daemon { begins } else { minute_of(begins) };
    let until = SignedDuration::try_from(chain.named.window).ok().and_then(|window| begins.checked_add(window).ok());
    let is_idle = |name: &str| NamedChain::read(config, name, Origin::Default, &mut Vec::new()).idle;
    let chains = mates(chain, slot, waiting, is_idle, reading)?;
    Ok(Some(Waiting { slot, text: in_words(&Behind::Others { chains, until }, now) }))
}

/// The chains that run for the same moment, or wait for that without being idle: those that have their turn before it for sure. In which
/// order idle ones follow only the daemon knows.
fn mates(
    chain: &Booked,
    slot: Timestamp,
    waiting: &[WaitingSlot],
    is_idle: impl Fn(&str) -> bool,
    reading: &mut Reading,
) -> Result<Vec<String>, Failure> {
    let recent = reading.history(&HistoryQuery { chain: None, failed: false, limit: 200 })?;
    let going = recent.into_iter().filter(|run| run.outcome.is_none() && run.scheduled_at == Some(slot)).map(|run| run.chain);
    let others = waiting.iter().map(|other| &other.claim.key).filter(|key| key.slot.time() == Some(slot) && !is_idle(&key.chain));
    let mut names: Vec<String> = going.chain(others.map(|key| key.chain.clone())).filter(|name| name != chain.name()).collect();
    names.sort();
    names.dedup();
    Ok(names)
}
