//! What becomes of a slot that is ours: its run begins, waits for the one before it, follows as an idle one, or is given up.

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;

use super::book::Booked;
use super::overlap::{Fate, fate};
use super::rounds::Step;
use super::trouble::News;
use super::{Daemon, Mode, Offer, Refused, SIGTERM};
use crate::chain::fleet::Ready;
use crate::chain::locks::{Answer, Unavailable};
use crate::chain::run::Run;
use crate::config::keys::{Overlap, SlotScope};
use crate::event::StoppedBy;
use crate::names::RunId;
use crate::outcome::RunOutcome;
use crate::store::record::{REFUSED, SKIPPED};

/// The side of a chain that is in trouble when it cannot be made ready.
const TASKS: &str = "tasks";
const REPLACED: &str = "a newer slot takes its place (overlap = replace)";
const HANDED_ON: &str = "its last run failed, and this slot is left to other machines (release_on_error)";

impl Daemon<'_> {
    pub(super) fn is_running(&self, chain: &str) -> bool {
        let waits = self.awaiting.values().any(|(offer, _)| offer.chain == chain);
        waits || self.starting.contains(chain) || self.parts.fleet.is_running(chain)
    }

    /// Whether idle chains wait for a run: for one that waits for its lock nobody does.
    pub(super) fn is_on_its_way(&self, run: &RunId) -> bool {
        let runs = self.parts.fleet.runs().iter().any(|going| going.run_ref().id == *run);
        runs || self.backlog.values().flatten().any(|offer| offer.run == *run) || self.starting_runs().any(|id| id == run)
    }

    fn starting_runs(&self) -> impl Iterator<Item = &RunId> {
        self.parts.state.beginning().map(|offer| &offer.run)
    }

    /// A slot is ours: its run begins, waits, or is given up.
    pub(super) fn offer(&mut self, mut offer: Offer) {
        let Some(chain) = self.chain_of(&offer) else { return };
        offer.trigger.window_ends = self.window_ends(&chain, &offer);
        if let Some(why) = offer.unwanted {
            return self.skip(&chain, &offer, why);
        }
        // What is caught up takes nobody's place.
        let waiting = self.backlog.get(&offer.chain).map_or(0, |waiting| waiting.iter().filter(|waiting| !waiting.follows).count());
        let running = self.is_running(&offer.chain);
        match fate(chain.named.overlap, running, waiting, offer.follows) {
            Fate::Begin => self.write_down(offer),
            Fate::Wait => {
                // Of those that were missed together a hundred may wait.
                let (level, why) = if offer.follows { (log::Level::Debug, "missed = all") } else { (log::Level::Info, "overlap = queue") };
                log::log!(level, "chain {}: the slot {} waits for the end of the run before it ({why})", offer.chain, offer.slot);
                self.backlog.entry(offer.chain.clone()).or_default().push_back(offer);
            }
            Fate::Replace => {
                self.stop_for(&offer);
                let offer_chain = offer.chain.clone();
                for replaced in self.backlog.insert(offer.chain.clone(), VecDeque::from([offer])).into_iter().flatten() {
                    self.skip(&chain, &replaced, REPLACED);
                }
                if let Some(waiting) = self.withdraw(&offer_chain) {
                    self.skip(&chain, &waiting, REPLACED);
                }
            }
            Fate::GiveUp if self.parts.fleet.is_running(&offer.chain) => {
                let why = if waiting > 0 { "the chain still runs, and another slot waits already" } else { "the chain still runs" };
                self.skip(&chain, &offer, why);
            }
            Fate::GiveUp => self.skip(&chain, &offer, "the run before it has not begun yet"),
        }
    }

    /// The chain of a slot, if it is still there and enabled; otherwise the slot is given up, and told so.
    fn chain_of(&mut self, offer: &Offer) -> Option<Rc<Booked>> {
        let found = self.booked(&offer.chain).filter(|chain| chain.named.enabled).cloned();
        if found.is_none() {
            let why = "the chain is not in the configuration any more, or not enabled";
            log::warn!(event = "slot_skipped", chain = offer.chain.as_str(); "chain {}: the slot {} is given up: {why}", offer.chain, offer.slot);
            self.parts.state.not_begun(offer, SKIPPED, why, self.parts.fleet.wall());
            self.after(&offer.run, &offer.chain);
        }
        found
    }

    /// Stops the run of the chain for a newer slot. Once: a second signal would kill it at once.
    fn stop_for(&mut self, offer: &Offer) {
        // Nor one that somebody has told to stop already, or that is over but for its hook.
        let of_chain = |run: &&Run| run.run_ref().chain == offer.chain && !run.is_stopping() && run.closing_part().is_none();
        let going = self.parts.fleet.runs().iter().find(of_chain).map(|run| run.run_ref().id.clone());
        if let Some(run) = going
            && self.replaced.insert(run)
        {
            self.parts.fleet.stop(Some(&offer.chain), SIGTERM, &StoppedBy::Slot(offer.slot.to_string()));
        }
    }

    /// It is written down that a run begins: it does, unless a newer slot has come to replace it meanwhile.
    pub(super) fn begin_if_newest(&mut self, offer: Offer) {
        let newer = |waiting: &VecDeque<Offer>| waiting.iter().any(|waiting| !waiting.follows);
        if self.backlog.get(&offer.chain).is_some_and(newer)
            && let Some(chain) = self.booked(&offer.chain).filter(|chain| chain.named.overlap == Overlap::Replace).cloned()
        {
            return self.skip(&chain, &offer, REPLACED);
        }
        self.begin(offer);
    }

    /// A run that the store does not know yet is written down before it begins.
    fn write_down(&mut self, offer: Offer) {
        if offer.begun {
            return self.begin(offer);
        }
        self.starting.insert(offer.chain.clone());
        self.parts.state.begin(offer, self.parts.fleet.wall());
    }

    pub(super) fn begin(&mut self, offer: Offer) {
        let Some(chain) = self.chain_of(&offer) else { return };
        let kept = self.kept.remove(&offer.run).and_then(|kept| kept());
        let ready = match kept.map_or_else(|| self.parts.outside.prepare(&chain), Ok) {
            Ok(ready) => ready,
            Err(why) => return self.refuse(&chain, &offer, &why),
        };
        if self.trouble.chains.hear(&offer.chain, TASKS, None) == News::Passed {
            log::info!("chain {}: is well again, its tasks can be run", offer.chain);
        }
        match ready.lock.clone() {
            None => self.start(&chain, offer, ready),
            Some(plan) if self.handed_on.remove(&offer.chain) && plan.release_on_error => self.skip(&chain, &offer, HANDED_ON),
            Some(plan) => {
                let run = offer.run.clone();
                self.parts.fleet.ask(plan, offer.run_ref());
                self.awaiting.insert(run.clone(), (offer, ready));
                self.hear_locks();
                if self.awaiting.contains_key(&run) {
                    self.rounds.ended(&run);
                    self.go_round();
                }
                self.untold = true;
            }
        }
    }

    fn start(&mut self, chain: &Booked, mut offer: Offer, mut ready: Ready) {
        offer.trigger.window_ends = self.window_ends(chain, &offer);
        if is_too_late(&offer, self.parts.fleet.wall()) {
            self.parts.fleet.withdraw(&offer.run);
            return self.skip(chain, &offer, &window_is_over(chain));
        }
        // The last thing before it starts: whoever comes after a crash sees by the mark whether it may have.
        let mark = match self.parts.outside.mark(&offer.chain, &offer.run, ready.opened.place.take()) {
            Ok(mark) => mark,
            Err(holder) => {
                self.parts.fleet.withdraw(&offer.run);
                return self.skip(chain, &offer, &format!("the chain still runs: {holder}"));
            }
        };
        let run = offer.run_ref();
        self.marks.insert(offer.run, mark);
        self.parts.fleet.begin(ready, run);
        for ended in self.parts.fleet.take_ended() {
            self.ended(&ended);
        }
        self.untold = true;
    }

    /// Hears what came of asking for locks.
    pub(super) fn hear_locks(&mut self) {
        while let Some(answer) = self.parts.fleet.answer() {
            match answer {
                Answer::Ours { run, waited } => match self.awaiting.remove(&run.id) {
                    Some((offer, ready)) => self.enter(offer, ready, waited),
                    None => self.parts.fleet.withdraw(&run.id),
                },
                Answer::Refused { run, why } => {
                    if let Some((offer, _)) = self.awaiting.remove(&run.id) {
                        self.lock_refused(&offer, why);
                    }
                }
            }
        }
    }

    /// The lock of a run is ours. Whoever waited for it looks again what there is to run.
    fn enter(&mut self, offer: Offer, ready: Ready, waited: bool) {
        let Some(chain) = self.booked(&offer.chain).filter(|chain| chain.named.enabled).cloned() else {
            self.parts.fleet.withdraw(&offer.run);
            return drop(self.chain_of(&offer));
        };
        if !waited {
            return self.start(&chain, offer, ready);
        }
        match self.parts.outside.prepare(&chain) {
            Ok(again) if again.lock == ready.lock => self.start(&chain, offer, again),
            Ok(_) => {
                self.parts.fleet.withdraw(&offer.run);
                self.begin(offer);
            }
            Err(why) => {
                self.parts.fleet.withdraw(&offer.run);
                self.refuse(&chain, &offer, &why);
            }
        }
    }

    fn lock_refused(&mut self, offer: &Offer, why: Unavailable) {
        let Some(chain) = self.chain_of(offer) else { return };
        let said = chain.named.chain.lock.as_ref().filter(|_| matches!(why, Unavailable::Unusable(_)));
        let message = said.map_or_else(|| why.message().to_owned(), |keys| keys.told(why.message()));
        let name = chain.name();
        log::warn!(event = "run_refused", chain = name, reason = "lock"; "chain {name}: {message}");
        self.not_begun(&chain, offer, REFUSED, Refused { reason: "lock", message: &message });
        match why {
            Unavailable::Unreachable(why) => self.no_lock = Some(why),
            Unavailable::Unusable(_) => self.refused += 1,
            Unavailable::Held(_) => {}
        }
    }

    /// Takes back the run of a chain that waits for its lock.
    fn withdraw(&mut self, chain: &str) -> Option<Offer> {
        let run = self.awaiting.iter().find(|(_, (offer, _))| offer.chain == chain).map(|(run, _)| run.clone())?;
        self.parts.fleet.withdraw(&run);
        self.awaiting.remove(&run).map(|(offer, _)| offer)
    }

    /// A new configuration is in force: locks are not kept, and not waited for, for chains that it does not want them for.
    pub(super) fn review_locks(&mut self) {
        let Some(book) = &self.book else { return };
        let wanted = |chain: &str| book.chain(chain).filter(|chain| chain.named.enabled);
        let keeps = |chain: &str| wanted(chain).and_then(|chain| chain.named.chain.lock.as_ref()).is_some_and(|lock| lock.keep);
        self.parts.fleet.keep_only(|chain, _| keeps(chain));
        let gone: Vec<String> =
            self.awaiting.values().map(|(offer, _)| &offer.chain).filter(|chain| wanted(chain).is_none()).cloned().collect();
        for chain in gone {
            if let Some(offer) = self.withdraw(&chain) {
                drop(self.chain_of(&offer));
            }
        }
    }

    fn refuse(&mut self, chain: &Booked, offer: &Offer, why: &str) {
        self.refused += 1;
        let level = self.trouble.chains.hear(&offer.chain, TASKS, Some(why)).level(log::Level::Error);
        log::log!(level, event = "run_refused", chain = offer.chain.as_str(), reason = "task_dir"; "chain {}: {why}", offer.chain);
        self.not_begun(chain, offer, "task_dir", Refused { reason: "task_dir", message: why });
    }

    /// A slot is given up: written down, told, and the hook hears of it.
    pub(super) fn skip(&mut self, chain: &Booked, offer: &Offer, why: &str) {
        let (name, slot) = (chain.name(), offer.slot.to_string());
        log::warn!(event = "slot_skipped", chain = name, slot = slot.as_str(); "chain {name}: the slot {slot} is given up: {why}");
        self.not_begun(chain, offer, SKIPPED, Refused { reason: SKIPPED, message: why });
    }

    fn not_begun(&mut self, chain: &Booked, offer: &Offer, outcome: &str, why: Refused<'_>) {
        self.parts.state.not_begun(offer, outcome, why.message, self.parts.fleet.wall());
        let hook = self.parts.outside.refused(chain, &offer.run_ref(), why, self.parts.fleet.driver());
        if let Some(hook) = hook {
            self.parts.fleet.add_hook(&offer.chain, hook);
        }
        self.after(&offer.run, &offer.chain);
    }

    pub(super) fn ended(&mut self, run: &Run) {
        let of = run.run_ref();
        self.marks.remove(&of.id);
        self.replaced.remove(&of.id);
        let releases = run.setup().chain.lock.as_ref().is_some_and(|lock| lock.release_on_error.is_some());
        // Of a slot that the whole cluster shares nobody else would have another one.
        let alone = self.booked(&of.chain).is_some_and(|chain| chain.named.scope == SlotScope::Machine);
        if releases && alone && run.outcome() != Some(&RunOutcome::Done) {
            self.handed_on.insert(of.chain.clone());
        }
        // A daemon does not end for weeks: only a tick adds up what its runs came to.
        if let Some(outcome) = run.outcome()
            && self.mode != Mode::Daemon
        {
            self.outcomes.push((of.clone(), outcome.clone()));
        }
        self.after(&of.id, &of.chain);
        self.untold = true;
    }

    /// A place is free: whoever waited for the chain, or for the round, has its turn.
    pub(super) fn after(&mut self, run: &RunId, chain: &str) {
        if !self.is_running(chain)
            && let Some(waiting) = self.backlog.get_mut(chain)
        {
            let next = waiting.pop_front();
            if waiting.is_empty() {
                self.backlog.remove(chain);
            }
            if let Some(offer) = next {
                self.write_down(offer);
            }
        }
        self.rounds.ended(run);
        self.go_round();
    }

    /// Idle chains whose turn it is.
    pub(super) fn go_round(&mut self) {
        while let Some(step) = self.rounds.next(self.parts.fleet.wall()) {
            match step {
                Step::Start(offer) => self.offer(offer),
                Step::NoTime(offer) => {
                    if let Some(chain) = self.chain_of(&offer) {
                        self.skip(&chain, &offer, &window_is_over(&chain));
                    }
                }
            }
        }
    }

    /// Slots of these chains that wait for their turn as idle ones: a newer one has come, which would overtake them.
    pub(super) fn give_up_older(&mut self, chains: &HashSet<&str>) {
        for offer in self.rounds.take_out(|waiting| !waiting.follows && chains.contains(waiting.chain.as_str())) {
            if let Some(chain) = self.chain_of(&offer) {
                self.skip(&chain, &offer, "a newer slot of it has come");
            }
        }
    }

    /// A new configuration is in force. That a slot waits was decided when it came, and stays so; until when it may, and whether for an
    /// idle moment, the new one says. What waits of a chain that is gone or disabled is given up.
    pub(super) fn review_waiting(&mut self) {
        let Some(book) = &self.book else { return };
        let wanted = |offer: &Offer| book.chain(&offer.chain).filter(|chain| chain.named.enabled);
        let freed = self.rounds.take_out(|offer| wanted(offer).is_none_or(|chain| !chain.named.idle));
        self.rounds.set_windows(|offer| wanted(offer).map_or(Duration::ZERO, |chain| chain.named.window));
        let (waiting, gone): (Vec<Offer>, Vec<Offer>) =
            std::mem::take(&mut self.backlog).into_values().flatten().partition(|offer| wanted(offer).is_some());
        for mut offer in waiting {
            offer.trigger.window_ends = self.booked(&offer.chain).and_then(|chain| self.window_ends(chain, &offer));
            self.backlog.entry(offer.chain.clone()).or_default().push_back(offer);
        }
        gone.iter().for_each(|offer| drop(self.chain_of(offer)));
        freed.into_iter().for_each(|offer| self.offer(offer));
    }

    /// When the first window is over of idle slots that wait, for others or for the run before theirs.
    pub(super) fn next_end(&self) -> Option<Timestamp> {
        let in_backlog = self.backlog.values().flatten().filter_map(|offer| offer.trigger.window_ends).min();
        self.rounds.next_end().into_iter().chain(in_backlog).min()
    }

    /// Idle slots whose window is over are given up then, and not only when what they wait for has ended.
    pub(super) fn give_up_late(&mut self) {
        if !self.rounds.is_empty() {
            self.go_round();
        }
        if self.backlog.is_empty() {
            return;
        }
        let (now, mut late) = (self.parts.fleet.wall(), Vec::new());
        for waiting in self.backlog.values_mut() {
            late.extend(waiting.iter().filter(|offer| is_too_late(offer, now)).cloned());
            waiting.retain(|offer| !is_too_late(offer, now));
        }
        self.backlog.retain(|_, waiting| !waiting.is_empty());
        for offer in late {
            if let Some(chain) = self.chain_of(&offer) {
                self.skip(&chain, &offer, &window_is_over(&chain));
            }
        }
    }
}

/// Whether an idle slot can begin no more.
fn is_too_late(offer: &Offer, now: Timestamp) -> bool {
    offer.trigger.window_ends.is_some_and(|ends| ends <= now)
}

fn window_is_over(chain: &Booked) -> String {
    format!("its window of {} s is over", chain.named.window.as_secs())
}
