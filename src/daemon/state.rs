//! What the loop asks of the store, and what it answers. Everything goes over the desk's thread: the loop never waits for a disk.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::rounds::HasRun;
use super::{Offer, TickAnswer};
use crate::mark::{self, Room};
use crate::names::RunId;
use crate::process::leftovers::{in_words, still_running};
use crate::store::desk::{Desk, Health, Ticket};
use crate::store::job::QueueCount;
use crate::store::past::Known;
use crate::store::record::{Keeper, Occasion, RunRecord};
use crate::store::spool::Spool;
use crate::store::{CLUSTER, Owner, Retention, SlotClaim, SlotKey, Store, StoreError, end_crashed, lost_slots};

/// After so many runs a few old ones are forgotten.
const PRUNE_EVERY: u32 = 50;
/// How many are forgotten at a time.
const PRUNED_AT_ONCE: u32 = 200;
/// So many chains are asked for in one go: what comes meanwhile waits for a few milliseconds.
const ASKED_AT_ONCE: usize = 64;
/// Slots are remembered so long; older ones count as used.
const SLOTS_KEPT: SignedDuration = SignedDuration::from_hours(24 * 30);

/// Up to where the slots of a chain are decided: whose slots, the chain, the time.
pub type Watermark = (String, String, Timestamp);

/// The state, seen from the loop.
pub struct State {
    desk: Desk<Reply>,
    owner: Owner,
    keep: Retention,
    pending: HashMap<Ticket, Pending>,
    outbox: Outbox,
    kept: u32,
    /// Where runs leave their marks.
    marks: Option<Room>,
    /// Where programs without the database leave what they ran.
    spool: Option<Spool>,
}

/// What the store's thread sends back.
#[derive(Debug)]
pub(super) enum Reply {
    Loaded(Loaded),
    Ours(Vec<bool>),
    TakenOver(bool),
    Counted(Vec<QueueCount>),
    Remembered(Vec<(String, Known)>),
    Done,
}

enum Pending {
    Nothing,
    /// The records of runs that have ended.
    Records,
    Load,
    Count,
    /// How chains stand by the history, and the chains to be asked for next.
    Remember(Vec<String>),
    Claim(Vec<Offer>, Option<TickAnswer>),
    TakeOver(Offer),
    Begin(Offer),
}

/// What the loop hears.
pub(super) enum Answer {
    /// What there was at the start.
    Loaded(Loaded),
    /// For each slot whether it is ours.
    Claimed(Vec<(Offer, bool)>, Option<TickAnswer>),
    /// The slot of a process that is gone is ours now; or is not.
    TakenOver(Option<Offer>),
    /// It is written down that the run begins.
    Begun(Offer),
    /// How many jobs there are, or why nobody can tell.
    Counted(Result<Vec<QueueCount>, String>),
    /// How chains stand by the history, and of how many chains that is still to come.
    Remembered(Vec<(String, Known)>, Vec<String>),
    /// Something was written down.
    Done,
    /// It cannot be done, and that will not pass by itself: what these were asked for is lost.
    Failed(Vec<Offer>, String),
    /// The state cannot be read at all.
    Unusable(String),
}

/// What the store knew at the start.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Up to where the slots of each chain are decided.
    pub marks: HashMap<String, Timestamp>,
    /// The newest time that was ever stored.
    pub newest: Option<Timestamp>,
    /// Slots of this machine that were claimed by processes that are gone, for runs that have not begun.
    pub waiting: Vec<SlotClaim>,
}

impl HasRun for Offer {
    fn run(&self) -> &RunId {
        &self.run
    }
}

impl Offer {
    fn claim(&self) -> SlotClaim {
        let key = SlotKey { machine: self.machine.clone(), chain: self.chain.clone(), slot: self.slot.clone() };
        SlotClaim { key, run_id: self.run.as_str().to_owned() }
    }

    fn record(&self, owner: &Owner, now: Timestamp) -> RunRecord {
        let occasion = Occasion { trigger: self.trigger.kind.word().to_owned(), scheduled_at: self.slot.time() };
        // Written down a moment before it begins.
        RunRecord::begun(self.run.as_str(), &self.chain, occasion, owner, now.max(self.due))
    }
}

impl State {
    /// Starts the thread of the store. `open` opens it, and is called again whenever the connection was lost.
    ///
    /// # Errors
    /// There is no thread or descriptor to be had.
    pub fn new(
        open: impl FnMut() -> Result<Box<dyn Store>, StoreError> + Send + 'static,
        owner: Owner,
        keep: Retention,
        outbox: Outbox,
    ) -> io::Result<Self> {
        Ok(Self { desk: Desk::new(open)?, owner, keep, pending: HashMap::new(), outbox, kept: 0, marks: None, spool: None })
    }

    /// Where runs on this machine leave their marks: by them it is known of a run whose process was killed whether anything
    /// of it can have been started.
    #[must_use]
    pub fn with_marks(self, marks: Option<Room>) -> Self {
        Self { marks, ..self }
    }

    /// Where programs without the database leave what they ran.
    #[must_use]
    pub fn with_spool(self, spool: Option<Spool>) -> Self {
        Self { spool, ..self }
    }

    /// The name of this machine among those that share the database.
    pub fn machine(&self) -> &str {
        &self.owner.machine
    }

    /// The id of this boot.
    pub fn boot_id(&self) -> &str {
        &self.owner.boot_id
    }

    /// Readable when there are answers.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.desk.fd()
    }

    /// How the database does.
    pub fn health(&self) -> Health {
        self.desk.health()
    }

    /// Why it does not answer.
    pub fn why_slow(&self) -> String {
        match self.health() {
            Health::Away(why) => why,
            Health::Opening | Health::Good => "the database does not answer".to_owned(),
        }
    }

    /// Whether everything that was asked has its answer, and every record has been handed over.
    pub fn is_settled(&self) -> bool {
        self.desk.open_requests() == 0 && self.outbox.0.borrow().is_empty()
    }

    /// The runs that are being written down as begun.
    pub(super) fn beginning(&self) -> impl Iterator<Item = &Offer> {
        self.pending.values().filter_map(|pending| match pending {
            Pending::Begin(offer) => Some(offer),
            Pending::Nothing
            | Pending::Records
            | Pending::Load
            | Pending::Count
            | Pending::Remember(_)
            | Pending::Claim(..)
            | Pending::TakeOver(_) => None,
        })
    }

    /// Whether slots were asked for, and nobody knows yet whose they are.
    pub(super) fn is_claiming(&self) -> bool {
        self.pending.values().any(|pending| match pending {
            Pending::Claim(..) | Pending::TakeOver(_) => true,
            Pending::Nothing | Pending::Records | Pending::Load | Pending::Count | Pending::Remember(_) | Pending::Begin(_) => false,
        })
    }

    /// When the slots that were asked for are due.
    pub(super) fn claims_due(&self) -> Option<Timestamp> {
        let due = self.pending.values().filter_map(|pending| match pending {
            Pending::Claim(offers, _) => offers.iter().map(|offer| offer.due).max(),
            Pending::Nothing | Pending::Records | Pending::Load | Pending::Count | Pending::Remember(_) => None,
            Pending::TakeOver(_) | Pending::Begin(_) => None,
        });
        due.max()
    }

    /// The chains whose slots are being taken over.
    pub(super) fn taking_over(&self) -> impl Iterator<Item = &str> {
        self.pending.values().filter_map(|pending| match pending {
            Pending::TakeOver(offer) => Some(offer.chain.as_str()),
            Pending::Nothing | Pending::Records | Pending::Load | Pending::Count | Pending::Remember(_) => None,
            Pending::Claim(..) | Pending::Begin(_) => None,
        })
    }

    fn ask(&mut self, pending: Pending, request: impl FnMut(&mut dyn Store) -> Result<Reply, StoreError> + Send + 'static) {
        let ticket = self.desk.ask(request);
        self.pending.insert(ticket, pending);
    }

    /// Asks for everything that is known; runs whose process is gone are written down as crashed.
    pub(super) fn load(&mut self, now: Timestamp) {
        let (owner, marks, spool) = (self.owner.clone(), self.marks.clone(), self.spool.clone());
        self.ask(Pending::Load, move |store| load(store, &owner, now, (marks.as_ref(), spool.as_ref())).map(Reply::Loaded));
    }

    /// Asks how many jobs there are.
    pub(super) fn count(&mut self, now: Timestamp) {
        self.ask(Pending::Count, move |store| store.count_jobs(now).map(Reply::Counted));
    }

    /// Takes in what other programs have left beside the history, ends there the runs of those that are gone, and asks how these
    /// chains stand.
    pub(super) fn look_back(&mut self, chains: Vec<String>, now: Timestamp) {
        let (owner, marks, spool) = (self.owner.clone(), self.marks.clone(), self.spool.clone());
        self.ask(Pending::Nothing, move |store| {
            if let Some(Err(error)) = spool.as_ref().map(|spool| spool.take_in(store)) {
                log::debug!("what other programs have left is not taken in: {error}");
            }
            note_crashed(store, &owner, now, (marks.as_ref(), spool.as_ref()))?;
            Ok(Reply::Done)
        });
        self.remember(chains, now);
    }

    /// Asks how these chains stand by the history: some of them, and the others with the answer, so that nobody who asks for a
    /// slot waits for long.
    pub(super) fn remember(&mut self, mut chains: Vec<String>, now: Timestamp) {
        let rest = chains.split_off(chains.len().min(ASKED_AT_ONCE));
        let owner = self.owner.clone();
        self.ask(Pending::Remember(rest), move |store| {
            let of_chain = |chain: &String| Ok((chain.clone(), Known::of_others(store, chain, &owner, now)?));
            chains.iter().map(of_chain).collect::<Result<_, StoreError>>().map(Reply::Remembered)
        });
    }

    /// Asks for slots; runs that can begin at once are written down with them.
    pub(super) fn claim(&mut self, offers: Vec<Offer>, now: Timestamp, answer: Option<TickAnswer>) {
        let owner = self.owner.clone();
        let claims: Vec<SlotClaim> = offers.iter().map(Offer::claim).collect();
        let begun: Vec<RunRecord> = offers.iter().filter(|offer| offer.begun).map(|offer| offer.record(&owner, now)).collect();
        self.ask(Pending::Claim(offers, answer), move |store| store.claim_and_begin(&claims, &begun, &owner, now).map(Reply::Ours));
    }

    /// Writes down up to where slots are decided.
    pub(super) fn mark(&mut self, marks: Vec<Watermark>, now: Timestamp) {
        if marks.is_empty() {
            return;
        }
        let owner = self.owner.clone();
        let mut by_machine: HashMap<String, Vec<(String, Timestamp)>> = HashMap::new();
        for (machine, chain, at) in marks {
            by_machine.entry(machine).or_default().push((chain, at));
        }
        self.ask(Pending::Nothing, move |store| {
            for (machine, marks) in &by_machine {
                store.set_watermarks(machine, marks, &owner, now)?;
            }
            Ok(Reply::Done)
        });
    }

    /// Asks for the slot of a process that is gone.
    pub(super) fn take_over(&mut self, from: SlotClaim, offer: Offer, now: Timestamp) {
        let (owner, run) = (self.owner.clone(), offer.run.as_str().to_owned());
        self.ask(Pending::TakeOver(offer), move |store| store.take_over_slot(&from, &run, &owner, now).map(Reply::TakenOver));
    }

    /// Writes down that a run begins.
    pub(super) fn begin(&mut self, offer: Offer, now: Timestamp) {
        let record = offer.record(&self.owner, now);
        self.ask(Pending::Begin(offer), move |store| store.put_runs(std::slice::from_ref(&record)).map(|()| Reply::Done));
    }

    /// Takes back that runs have begun: nothing of them was started, and whoever comes next may take their slots over.
    pub(super) fn give_back(&mut self, runs: Vec<String>) {
        if !runs.is_empty() {
            self.ask(Pending::Nothing, move |store| store.give_back(&runs).map(|()| Reply::Done));
        }
    }

    /// Writes down that a run does not begin, and why.
    pub(super) fn not_begun(&mut self, offer: &Offer, outcome: &str, why: &str, now: Timestamp) {
        let record = offer.record(&self.owner, now).not_begun(outcome, why);
        self.ask(Pending::Nothing, move |store| store.put_runs(std::slice::from_ref(&record)).map(|()| Reply::Done));
    }

    /// Hands the records of runs that have ended over to the store, and has a few old ones forgotten now and then. One
    /// batch at a time: what ends meanwhile is written with the next one, so that a slot that is asked for waits for one sync
    /// at most, and not for as many as runs have ended.
    pub(super) fn hand_over(&mut self, now: Timestamp) {
        if self.pending.values().any(|pending| matches!(pending, Pending::Records)) {
            return;
        }
        let records = std::mem::take(&mut *self.outbox.0.borrow_mut());
        if records.is_empty() {
            return;
        }
        self.kept += u32::try_from(records.len()).unwrap_or(u32::MAX);
        let prune = self.kept >= PRUNE_EVERY;
        if prune {
            self.kept = 0;
        }
        let keep = self.keep;
        self.ask(Pending::Records, move |store| {
            store.put_runs(&records)?;
            if prune {
                store.prune_runs(keep, now, PRUNED_AT_ONCE)?;
                store.prune_slots(now.checked_sub(SLOTS_KEPT).unwrap_or(Timestamp::MIN), PRUNED_AT_ONCE)?;
            }
            Ok(Reply::Done)
        });
    }

    /// The answers that have come.
    pub(super) fn answers(&mut self) -> Vec<Answer> {
        let answers = self.desk.answers();
        answers.into_iter().map(|(ticket, reply)| self.answer(ticket, reply)).collect()
    }

    fn answer(&mut self, ticket: Ticket, reply: Result<Reply, StoreError>) -> Answer {
        let pending = self.pending.remove(&ticket).unwrap_or(Pending::Nothing);
        match (pending, reply.map_err(|error| error.to_string())) {
            (Pending::Claim(offers, answer), Ok(Reply::Ours(ours))) => Answer::Claimed(offers.into_iter().zip(ours).collect(), answer),
            (Pending::TakeOver(offer), Ok(Reply::TakenOver(ours))) => Answer::TakenOver(ours.then_some(offer)),
            (Pending::Begin(offer), Ok(Reply::Done)) => Answer::Begun(offer),
            (_, Ok(Reply::Loaded(loaded))) => Answer::Loaded(loaded),
            (_, Ok(Reply::Counted(counts))) => Answer::Counted(Ok(counts)),
            (Pending::Remember(rest), Ok(Reply::Remembered(known))) => Answer::Remembered(known, rest),
            (Pending::Remember(_), Err(why)) => {
                log::warn!("what ran before, and in other programs, is not known: {why}");
                Answer::Remembered(Vec::new(), Vec::new())
            }
            (Pending::Count, Err(why)) => Answer::Counted(Err(why)),
            (_, Ok(Reply::Ours(_) | Reply::TakenOver(_) | Reply::Remembered(_) | Reply::Done)) => Answer::Done,
            (Pending::Load, Err(why)) => Answer::Unusable(why),
            (Pending::Claim(offers, _), Err(why)) => Answer::Failed(offers, why),
            (Pending::TakeOver(offer) | Pending::Begin(offer), Err(why)) => Answer::Failed(vec![offer], why),
            (Pending::Nothing | Pending::Records, Err(why)) => Answer::Failed(Vec::new(), why),
        }
    }

    /// Whether something is to be written that is not yet. What was only asked for is missed by nobody.
    fn owes(&self) -> bool {
        let writes = |pending: &Pending| match pending {
            Pending::Load | Pending::Count | Pending::Remember(_) => false,
            Pending::Nothing | Pending::Records | Pending::Claim(..) | Pending::TakeOver(_) | Pending::Begin(_) => true,
        };
        !self.outbox.0.borrow().is_empty() || self.pending.values().any(writes)
    }

    /// Waits for what is still being written, but not for ever: for the end of the program. What is ours only now was too
    /// late: it is given back.
    /// Tells whether all was written.
    pub fn settle(&mut self, limit: Duration, now: Timestamp) -> bool {
        loop {
            self.hand_over(now);
            if !self.owes() {
                return true;
            }
            let replies = self.desk.settle(limit);
            let mut unused = Vec::new();
            for (ticket, reply) in replies {
                match self.answer(ticket, reply) {
                    Answer::Claimed(offers, _) => unused.extend(begun_for_nothing(&offers)),
                    Answer::Begun(offer) => unused.push(offer.run.as_str().to_owned()),
                    Answer::Failed(_, why) | Answer::Unusable(why) => log::error!("{why}"),
                    Answer::Loaded(_) | Answer::TakenOver(_) | Answer::Counted(_) | Answer::Remembered(..) | Answer::Done => {}
                }
            }
            let is_late = self.desk.open_requests() > 0;
            if is_late || (unused.is_empty() && self.outbox.0.borrow().is_empty()) {
                break;
            }
            self.give_back(unused);
        }
        !self.owes()
    }
}

/// The runs of slots that are ours, which are written down as begun and will not begin.
pub(super) fn begun_for_nothing(offers: &[(Offer, bool)]) -> Vec<String> {
    offers.iter().filter(|(offer, ours)| *ours && offer.begun).map(|(offer, _)| offer.run.as_str().to_owned()).collect()
}

fn load(
    store: &mut dyn Store,
    owner: &Owner,
    now: Timestamp,
    (marks_in, spool): (Option<&Room>, Option<&Spool>),
) -> Result<Loaded, StoreError> {
    let mut marks: HashMap<String, Timestamp> = store.watermarks(CLUSTER)?.into_iter().collect();
    marks.extend(store.watermarks(&owner.machine)?);
    let newest = store.newest_time(owner)?;
    note_crashed(store, owner, now, (marks_in, spool))?;
    let waiting = lost_slots(store, owner)?.into_iter().map(|slot| slot.claim).collect();
    Ok(Loaded { marks, newest, waiting })
}

/// Writes down that runs whose process is gone have crashed, and tells of them.
fn note_crashed(
    store: &mut dyn Store,
    owner: &Owner,
    now: Timestamp,
    (marks_in, spool): (Option<&Room>, Option<&Spool>),
) -> Result<(), StoreError> {
    // Only of this boot: what was in the memory of an earlier one may not have reached the disk.
    let never_began = |run: &RunRecord| run.boot_id == owner.boot_id && mark::never_had(marks_in, &run.chain, &run.run_id);
    let crashed = end_crashed(store, owner, now, &never_began, spool)?;
    tell_unfinished(&crashed, false);
    Ok(())
}

/// Tells of runs whose process is gone, and what of them still runs; `only_left`: only of those of which something does.
pub fn tell_unfinished(gone: &[RunRecord], only_left: bool) {
    let left = if gone.is_empty() { HashMap::new() } else { still_running() };
    for run in gone {
        let words = left.get(&run.run_id).map(|pids| in_words(pids));
        if words.is_none() && only_left {
            continue;
        }
        let words = words
            .map(|(words, end)| format!("; {words}: the next run ends that only if the chain has a `lock`; else: {end}, or runner stop"));
        let words = words.unwrap_or_default();
        log::warn!("chain {}: its run {} was not finished: the process that ran it is gone{words}", run.chain, run.run_id);
    }
}

/// Where the records of runs that have ended lie until the loop hands them over.
#[derive(Debug, Clone, Default)]
pub struct Outbox(Rc<RefCell<Vec<RunRecord>>>);

impl Keeper for Outbox {
    /// The loop has written that down before the run began.
    fn begun(&mut self, _: &RunRecord) {}

    fn ended(&mut self, record: RunRecord) {
        self.0.borrow_mut().push(record);
    }
}
