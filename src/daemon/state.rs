//! What the loop asks of the store, and what it answers. Everything goes over the desk's thread: the loop never waits for a disk.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use jiff::{SignedDuration, Timestamp};

use super::rounds::HasRun;
use super::{Offer, TickAnswer};
use crate::names::RunId;
use crate::store::desk::{Desk, Health, Ticket};
use crate::store::record::{Keeper, Occasion, RunRecord};
use crate::store::{CLUSTER, Owner, Retention, SlotClaim, SlotKey, Store, StoreError, end_crashed, lost_slots};

/// After so many runs a few old ones are forgotten.
const PRUNE_EVERY: u32 = 50;
/// How many are forgotten at a time.
const PRUNED_AT_ONCE: u32 = 200;
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
}

/// What the store's thread sends back.
#[derive(Debug)]
pub(super) enum Reply {
    Loaded(Loaded),
    Ours(Vec<bool>),
    TakenOver(bool),
    Done,
}

enum Pending {
    Nothing,
    Claim(Vec<Offer>, Option<TickAnswer>),
    TakeOver(Offer),
    Begin(Offer),
}

/// What the loop hears.
pub(super) enum Answer {
    /// What there was at the start.
    Loaded(Loaded),
    /// For each slot whether it is ours; and who wants to hear of it.
    Claimed(Vec<(Offer, bool)>, Option<TickAnswer>),
    /// The slot of a process that is gone is ours now; or is not.
    TakenOver(Option<Offer>),
    /// It is written down that the run begins.
    Begun(Offer),
    /// Something was written down.
    Done,
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
        RunRecord::begun(self.run.as_str(), &self.chain, occasion, owner, now)
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
        Ok(Self { desk: Desk::new(open)?, owner, keep, pending: HashMap::new(), outbox, kept: 0 })
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

    /// Whether everything that was asked has its answer, and every record has been handed over.
    pub fn is_settled(&self) -> bool {
        self.desk.open_requests() == 0 && self.outbox.0.borrow().is_empty()
    }

    /// The runs that are being written down as begun.
    pub(super) fn beginning(&self) -> impl Iterator<Item = &Offer> {
        self.pending.values().filter_map(|pending| match pending {
            Pending::Begin(offer) => Some(offer),
            Pending::Nothing | Pending::Claim(..) | Pending::TakeOver(_) => None,
        })
    }

    fn ask(&mut self, pending: Pending, request: impl FnMut(&mut dyn Store) -> Result<Reply, StoreError> + Send + 'static) {
        let ticket = self.desk.ask(request);
        self.pending.insert(ticket, pending);
    }

    /// Asks for everything that is known; runs whose process is gone are written down as crashed.
    pub(super) fn load(&mut self, now: Timestamp) {
        let owner = self.owner.clone();
        self.ask(Pending::Nothing, move |store| load(store, &owner, now).map(Reply::Loaded));
    }

    /// Asks for slots; runs that can begin at once are written down with them.
    pub(super) fn claim(&mut self, offers: Vec<Offer>, now: Timestamp, answer: Option<TickAnswer>) {
        let owner = self.owner.clone();
        let claims: Vec<SlotClaim> = offers.iter().map(Offer::claim).collect();
        let records: Vec<Option<RunRecord>> = offers.iter().map(|offer| offer.begun.then(|| offer.record(&owner, now))).collect();
        self.ask(Pending::Claim(offers, answer), move |store| {
            let ours = store.claim_slots(&claims, &owner, now)?;
            let begun = records.iter().zip(&ours).filter(|(_, ours)| **ours).filter_map(|(record, _)| record.clone());
            let begun: Vec<RunRecord> = begun.collect();
            if !begun.is_empty() {
                store.put_runs(&begun)?;
            }
            Ok(Reply::Ours(ours))
        });
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

    /// Writes down that a run does not begin, and why.
    pub(super) fn not_begun(&mut self, offer: &Offer, outcome: &str, why: &str, now: Timestamp) {
        let record = offer.record(&self.owner, now).not_begun(outcome, why);
        self.ask(Pending::Nothing, move |store| store.put_runs(std::slice::from_ref(&record)).map(|()| Reply::Done));
    }

    /// Hands the records of runs that have ended over to the store, and has a few old ones forgotten now and then.
    pub(super) fn hand_over(&mut self, now: Timestamp) {
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
        self.ask(Pending::Nothing, move |store| {
            store.put_runs(&records)?;
            if prune {
                store.prune_runs(keep, now, PRUNED_AT_ONCE)?;
                store.prune_slots(now.checked_sub(SLOTS_KEPT).unwrap_or(Timestamp::MIN), PRUNED_AT_ONCE)?;
            }
            Ok(Reply::Done)
        });
    }

    /// The answers that have come. An error is one that will not pass by itself; what it was about is lost.
    pub(super) fn answers(&mut self) -> Vec<Result<Answer, String>> {
        let answers = self.desk.answers();
        answers.into_iter().map(|(ticket, reply)| self.answer(ticket, reply)).collect()
    }

    fn answer(&mut self, ticket: Ticket, reply: Result<Reply, StoreError>) -> Result<Answer, String> {
        let pending = self.pending.remove(&ticket).unwrap_or(Pending::Nothing);
        Ok(match (pending, reply.map_err(|error| error.to_string())?) {
            (Pending::Claim(offers, answer), Reply::Ours(ours)) => Answer::Claimed(offers.into_iter().zip(ours).collect(), answer),
            (Pending::TakeOver(offer), Reply::TakenOver(ours)) => Answer::TakenOver(ours.then_some(offer)),
            (Pending::Begin(offer), Reply::Done) => Answer::Begun(offer),
            (_, Reply::Loaded(loaded)) => Answer::Loaded(loaded),
            (_, Reply::Ours(_) | Reply::TakenOver(_) | Reply::Done) => Answer::Done,
        })
    }

    /// Waits for what is still being written, but not for ever: for the end of the program.
    pub fn settle(&mut self, limit: std::time::Duration, now: Timestamp) {
        self.hand_over(now);
        for (_, reply) in self.desk.settle(limit) {
            if let Err(error) = reply {
                log::error!("{error}");
            }
        }
        if self.desk.open_requests() > 0 {
            log::warn!("the newest records could not be written to the database");
        }
    }
}

fn load(store: &mut dyn Store, owner: &Owner, now: Timestamp) -> Result<Loaded, StoreError> {
    let mut marks: HashMap<String, Timestamp> = store.watermarks(CLUSTER)?.into_iter().collect();
    marks.extend(store.watermarks(&owner.machine)?);
    let newest = store.newest_time(owner)?;
    let waiting = lost_slots(store, owner)?.into_iter().map(|slot| slot.claim).collect();
    for run in end_crashed(store, owner, now)? {
        log::warn!("chain {}: its run {} was not finished: the process that ran it is gone", run.chain, run.run_id);
    }
    Ok(Loaded { marks, newest, waiting })
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
