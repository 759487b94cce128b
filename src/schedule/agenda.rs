//! What is due: which slots of a schedule are run now, which are given up, when to look again. Decides only.
//!
//! A slot is named by the moment the schedule says. `random_delay` moves the moment at which it fires, never its name.
//! The watermark is the time up to which every slot has been decided, run or given up. It only grows: a clock that is set
//! back finds its slots used; one that is set forward, or a machine that slept, finds them missed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Schedule;
use super::window::minute_of;
use crate::config::keys::Missed;
use crate::names::stable_hash;

/// The most slots that `missed = all` runs at once.
pub const MOST_CAUGHT_UP: usize = 100;
/// A slot of this age is on time; a tick looks so far.
pub const MINUTE: SignedDuration = SignedDuration::from_secs(60);
/// Slots that are given up are counted so far: there may be millions, and ten thousand chains wake from one sleep.
const COUNTED: usize = 100;

/// The settings of a chain that say which slots it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// `missed`.
    pub missed: Missed,
    /// `missed_window`: slots that should have fired longer ago are given up.
    pub window: Duration,
    /// How much later than its slot the chain fires: see [`stable_delay`].
    pub delay: Duration,
}

/// A slot that is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Its name: the moment the schedule says.
    pub at: Timestamp,
    /// It was missed: it should have fired more than a minute ago.
    pub late: bool,
}

/// Why slots are not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Longer ago than `missed_window`.
    TooOld,
    /// `missed = skip`.
    Skipped,
    /// A newer slot is run.
    Overtaken,
    /// More than [`MOST_CAUGHT_UP`].
    TooMany,
}

/// Neighbouring slots that are not run, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenUp {
    /// The oldest.
    pub first: Timestamp,
    /// The newest.
    pub last: Timestamp,
    /// How many; never more than 100, which says "that many at least".
    pub count: usize,
    /// Why.
    pub why: Why,
}

/// What is due of one chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// In their order; nearly always one or none.
    pub run: Vec<Slot>,
    /// In their order; at most two.
    pub given_up: Vec<GivenUp>,
    /// Slots up to here are decided: what is to be stored, and handed in the next time. After a tick it may lie ahead, within
    /// the minute; otherwise it is the time that was handed in, less the delay, or what it was before if that is later.
    pub watermark: Timestamp,
    /// When to look again; `None` if nothing will ever be due.
    pub wake: Option<Timestamp>,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// A daemon: what has come by now.
    Daemon,
    /// A tick: what comes in this minute, its end included; of slots less than a minute apart those that have come.
    Tick,
}

/// What is due by `now`. Without a watermark the chain is seen for the first time: nothing is caught up.
///
/// After a clock that cannot be believed ([`believe`]) this must not be asked: only `@boot` fires then.
pub fn decide(schedule: &Schedule, policy: &Policy, watermark: Option<Timestamp>, now: Timestamp) -> Decision {
    judge(schedule, policy, watermark, now, Asks::Daemon)
}

/// What is due in the minute of `now`, even if its second is still to come; what was missed before, as in [`decide`].
///
/// A chain seen for the first time is due when one of its slots lies in this minute. Slots less than a minute apart are not
/// taken before their time: one of them would be run too early, and the others given up before they came.
pub fn tick(schedule: &Schedule, policy: &Policy, watermark: Option<Timestamp>, now: Timestamp) -> Decision {
    judge(schedule, policy, watermark, now, Asks::Tick)
}

fn judge(schedule: &Schedule, policy: &Policy, watermark: Option<Timestamp>, now: Timestamp, asks: Asks) -> Decision {
    let delay = signed(policy.delay);
    // From here on by the names of the slots: those up to `passed` should have fired, those up to `until` may.
    let passed = back(now, delay);
    let (until, first_sight) = match asks {
        Asks::Daemon => (passed, passed),
        Asks::Tick => {
            let begins = back(minute_of(now), delay);
            (reach(schedule, passed, just_before(ahead(begins, MINUTE))), just_before(begins))
        }
    };
    let decided = watermark.unwrap_or(first_sight);
    let next = schedule.next_after(decided);
    if decided >= until || next.is_none_or(|next| next > until) {
        let (watermark, wake) = (decided.max(passed), next.map(|next| ahead(next, delay)));
        return Decision { run: Vec::new(), given_up: Vec::new(), watermark, wake };
    }
    let oldest = back(passed, signed(policy.window).max(MINUTE));
    let since = decided.max(just_before(oldest));
    let most = match policy.missed {
        Missed::Skip | Missed::Last => 1,
        Missed::All => MOST_CAUGHT_UP,
    };
    let slot = |at: Timestamp| Slot { at, late: at < back(passed, MINUTE) };
    let mut run: Vec<_> = schedule.newest(since, until, most).into_iter().map(slot).collect();
    if policy.missed == Missed::Skip {
        run.retain(|slot| !slot.late);
    }
    let why = match policy.missed {
        Missed::Skip if run.is_empty() => Why::Skipped,
        Missed::Skip | Missed::Last => Why::Overtaken,
        Missed::All => Why::TooMany,
    };
    let newer = run.first().map_or(until, |slot| just_before(slot.at));
    let given_up = [given_up(schedule, decided, since, Why::TooOld), given_up(schedule, since, newer, why)];
    let given_up: Vec<_> = given_up.into_iter().flatten().collect();
    // A tick may have decided slots that are still to come in its minute.
    let decided = run.last().map(|slot| slot.at).into_iter().chain(given_up.last().map(|part| part.last)).fold(passed, Timestamp::max);
    let wake = schedule.next_after(decided).map(|next| ahead(next, delay));
    Decision { run, given_up, watermark: decided, wake }
}

/// How far a tick that may look as far as `end` looks: a slot that is still to come is taken only if none lies less than a minute
/// from it.
fn reach(schedule: &Schedule, passed: Timestamp, end: Timestamp) -> Timestamp {
    let Some(next) = schedule.next_after(passed).filter(|next| *next <= end) else { return end };
    let follows = schedule.next_after(next).is_some_and(|after| after < ahead(next, MINUTE));
    let is_crowded = follows || !schedule.newest(back(next, MINUTE), just_before(next), 1).is_empty();
    if is_crowded { passed } else { end }
}

/// The slots after `after` and not after `until`.
fn given_up(schedule: &Schedule, after: Timestamp, until: Timestamp, why: Why) -> Option<GivenUp> {
    let slots = || schedule.slots_after(after).take_while(|slot| *slot <= until);
    let first = slots().next()?;
    let last = schedule.newest(after, until, 1).first().copied().unwrap_or(first);
    Some(GivenUp { first, last, count: slots().take(COUNTED).count(), why })
}

/// Why a slot that somebody has claimed and did not use is not wanted any more by `now`; `None` when it is.
pub fn why_unwanted(schedule: &Schedule, policy: &Policy, at: Timestamp, now: Timestamp) -> Option<Why> {
    let passed = back(now, signed(policy.delay));
    let late = at < back(passed, MINUTE);
    match policy.missed {
        _ if at < back(passed, signed(policy.window).max(MINUTE)) => Some(Why::TooOld),
        Missed::Skip if late => Some(Why::Skipped),
        Missed::Skip | Missed::Last => (!schedule.newest(at, passed, 1).is_empty()).then_some(Why::Overtaken),
        Missed::All => None,
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn back(t: Timestamp, by: SignedDuration) -> Timestamp {
    t.checked_sub(by).unwrap_or(Timestamp::MIN)
}

fn ahead(t: Timestamp, by: SignedDuration) -> Timestamp {
    t.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn just_before(t: Timestamp) -> Timestamp {
    back(t, SignedDuration::from_nanos(1))
}

/// `random_delay`: whole seconds from 0 to `most`, always the same for this machine and chain, in every version.
pub fn stable_delay(machine: &str, chain: &str, most: Duration) -> Duration {
    let hash = stable_hash(machine.bytes().chain([0]).chain(chain.bytes()));
    let places = u128::from(most.as_secs()) + 1;
    Duration::from_secs(((u128::from(hash) * places) >> 64) as u64)
}

/// Why the wall clock is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoClock {
    /// It is before the day the program was built.
    #[error("the clock shows {now}, before this program was built ({built}): only @boot fires until it is set")]
    BeforeBuild {
        /// What the clock shows.
        now: Timestamp,
        /// When the program was built.
        built: Timestamp,
    },
    /// It is before a time that was stored.
    #[error("the clock shows {now:.0}, before the newest stored time ({newest:.0}): only @boot fires until then")]
    BeforeStored {
        /// What the clock shows.
        now: Timestamp,
        /// The newest time in the store.
        newest: Timestamp,
    },
}

/// Whether a wall clock can be believed. `newest` is the newest time at which something happened, such as the begin or end of a
/// run; not a watermark, which a tick may move ahead of the clock.
///
/// # Errors
/// It is before the build of the program, or before the newest time that was ever stored: only `@boot` fires.
pub fn believe(now: Timestamp, newest: Option<Timestamp>, built: Timestamp) -> Result<(), NoClock> {
    match newest {
        _ if now < built => Err(NoClock::BeforeBuild { now, built }),
        Some(newest) if now < newest => Err(NoClock::BeforeStored { now, newest }),
        Some(_) | None => Ok(()),
    }
}

/// One chain of an agenda.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When it is to run.
    pub schedule: Schedule,
    /// Which slots it takes.
    pub policy: Policy,
    /// Up to where its slots are decided; `None` when it is seen for the first time. After a reload that is also right for
    /// a chain whose schedule is another one now: it has missed nothing of what nobody had asked for.
    pub watermark: Option<Timestamp>,
}

/// The chains of a daemon, and when each is to be looked at next. Chains are called by their place in the list.
#[derive(Debug, Clone, Default)]
pub struct Agenda {
    entries: Vec<Entry>,
    wakes: BinaryHeap<Reverse<(Timestamp, usize)>>,
}

impl Agenda {
    /// An agenda of these chains. What a watermark left undecided is due at once.
    pub fn new(entries: Vec<Entry>, now: Timestamp) -> Self {
        let mut agenda = Self { entries, wakes: BinaryHeap::new() };
        let wakes: Vec<_> =
            agenda.entries.iter_mut().enumerate().filter_map(|(chain, entry)| Some(Reverse((entry.begin(now)?, chain)))).collect();
        agenda.wakes = wakes.into();
        agenda
    }

    /// The chains, with their watermarks as they stand.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The chains that ask for a run at the start of the machine. Whether they had it, the store knows.
    pub fn at_boot(&self) -> impl Iterator<Item = usize> + '_ {
        self.entries.iter().enumerate().filter(|(_, entry)| entry.schedule.at_boot()).map(|(chain, _)| chain)
    }

    /// When something is due next. It may lie in the past, and does not change when the clock is set.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.wakes.peek().map(|Reverse((wake, _))| *wake)
    }

    /// What is due by `now`, in the order of the deadlines, then of the list.
    pub fn take_due(&mut self, now: Timestamp) -> Vec<(usize, Decision)> {
        let mut due = Vec::new();
        while let Some(Reverse((_, chain))) = self.wakes.peek().copied().filter(|Reverse((wake, _))| *wake <= now) {
            self.wakes.pop();
            let entry = &mut self.entries[chain];
            let decision = decide(&entry.schedule, &entry.policy, entry.watermark, now);
            entry.watermark = Some(decision.watermark);
            // It lies after `now`, or this would not end.
            if let Some(next) = decision.wake {
                self.wakes.push(Reverse((next, chain)));
            }
            due.push((chain, decision));
        }
        due
    }
}

impl Entry {
    /// The first deadline. A chain that is new has nothing to catch up.
    fn begin(&mut self, now: Timestamp) -> Option<Timestamp> {
        let delay = signed(self.policy.delay);
        let watermark = *self.watermark.get_or_insert_with(|| back(now, delay));
        self.schedule.next_after(watermark).map(|next| ahead(next, delay))
    }
}
