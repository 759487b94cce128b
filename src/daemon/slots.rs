//! Which slots are due, whose they are, and what a new configuration makes of them. Starts nothing: what is ours goes to `runs`.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::book::{Book, Booked};
use super::state::{Answer, Loaded, begun_for_nothing};
use super::{Daemon, LEAD, Mode, Offer, TickAnswer};
use crate::config::keys::Missed;
use crate::names::{RunId, counted};
use crate::schedule::agenda::{Decision, GivenUp, MINUTE, Why, believe, why_unwanted};
use crate::schedule::window::minute_of;
use crate::store::Slot;
use crate::store::desk::Health;
use crate::trigger::{Trigger, TriggerKind};

/// Why nothing fires before the state is known.
pub const UNREAD: &str = "the database has not answered yet: nobody knows which slots are used";

impl Daemon<'_> {
    /// Lets begin what is due, asks for the slots of what will be in a moment, and arms the alarm for what comes next.
    pub(super) fn fire(&mut self) {
        if self.is_stopping() {
            return;
        }
        self.give_up_late();
        if self.mode == Mode::Tick {
            return self.parts.alarm.arm(self.next_end());
        }
        let now = self.parts.fleet.wall();
        self.release(now);
        let ask_at = self.ask_ahead(now);
        let wakes = [ask_at, self.next_end(), self.parts.state.claims_due().filter(|due| *due > now), self.held.keys().next().copied()];
        self.parts.alarm.arm(wakes.into_iter().flatten().min());
    }

    /// Slots that are ours and due now go their way.
    fn release(&mut self, now: Timestamp) {
        if self.held.keys().next().is_none_or(|due| *due > now) {
            return;
        }
        // They were asked for by the configuration of a moment ago, and begin by the one that is there now.
        if self.parts.outside.has_changed() {
            self.reload();
        }
        while let Some(held) = self.held.first_entry().filter(|held| *held.key() <= now) {
            let mut offers = held.remove();
            offers.iter_mut().for_each(|offer| self.judge_again(offer, now));
            self.send_off(offers);
        }
    }

    /// While it was held the clock was set, or the machine slept: the rules of what was missed hold for it, too.
    fn judge_again(&self, offer: &mut Offer, now: Timestamp) {
        let late = now.duration_since(offer.due);
        if late <= LEAD {
            return;
        }
        let chain = self.booked(&offer.chain).and_then(|chain| Some((chain, chain.schedule.as_ref()?, offer.slot.time()?)));
        if let Some((chain, schedule, at)) = chain {
            let policy = chain.policy(self.parts.state.machine());
            offer.unwanted = offer.unwanted.or_else(|| why_unwanted(schedule, &policy, at, now).map(reason));
            if late > MINUTE {
                offer.trigger.kind = TriggerKind::Missed;
            }
        }
    }

    /// Asks for the slots of the next moment, if that is near. Tells when to look again.
    fn ask_ahead(&mut self, now: Timestamp) -> Option<Timestamp> {
        if self.parts.state.is_claiming() {
            // One after the other: what comes due meanwhile is asked for together, and by the rules of what was missed when
            // the state was away for long. The answer wakes us.
            return None;
        }
        let near = now.saturating_add(self.lead.length()).unwrap_or(now);
        if self.book.as_ref().and_then(Book::next_deadline).is_some_and(|due| due <= near) && self.parts.outside.has_changed() {
            self.reload();
        }
        self.book.as_ref()?;
        if let Err(why) = believe(now, self.newest, self.parts.built) {
            // The words have the time in them, and it is looked at whenever anything happens.
            if self.trouble.no_clock.is_none() {
                log::warn!("{why}");
            }
            self.trouble.no_clock = Some(why.to_string());
            // It is set one day, which rings the alarm; or it gets there by itself.
            return self.newest.max(Some(self.parts.built));
        }
        self.trouble.no_clock = None;
        self.take_over_lost(now);
        let book = self.book.as_mut()?;
        if let Some(next) = book.next_deadline().filter(|next| *next <= near) {
            // What is due at one moment is asked for together; what comes after it, a moment later.
            let at = next.max(now);
            let due = book.take_due(at);
            self.offer_all(&due, TriggerKind::Schedule, at, None);
        }
        self.book.as_ref()?.next_deadline()?.checked_sub(self.lead.length()).ok()
    }

    /// Somebody outside asks for a tick: the slots that have come and that nobody has used. Those still to come in this minute
    /// are the daemon's, which fires them on time. The answer names the runs when it is known whose the slots are.
    pub fn tick_now(&mut self, answer: TickAnswer) {
        let now = self.parts.fleet.wall();
        let Some(book) = &self.book else {
            return match self.parts.state.health() {
                // It will be known in a moment.
                Health::Opening | Health::Good => self.early.push(answer),
                Health::Away(_) => answer(Err(UNREAD)),
            };
        };
        match self.mode {
            Mode::Stopping(_) => return answer(Err("the daemon is told to stop")),
            // A tick has its own.
            Mode::Daemon | Mode::Tick if believe(now, self.newest, self.parts.built).is_err() => return answer(Ok(&[])),
            Mode::Daemon | Mode::Tick => {}
        }
        let due = book.due_for_tick(now);
        self.offer_all(&due, TriggerKind::Tick, now, Some(answer));
    }

    /// Asks the store for the slots of what is due by `at`, which lies ahead by a moment at most.
    fn offer_all(&mut self, due: &[(Rc<Booked>, Decision)], kind: TriggerKind, at: Timestamp, answer: Option<TickAnswer>) {
        let now = self.parts.fleet.wall();
        let (mut offers, mut marks) = (Vec::new(), Vec::new());
        for (chain, decision) in due {
            decision.given_up.iter().for_each(|given_up| tell_given_up(chain, given_up));
            for (place, slot) in decision.run.iter().enumerate() {
                let kind = if slot.late { TriggerKind::Missed } else { kind };
                let missed = slot.late || slot.at <= self.since;
                let follows = place > 0 || (missed && chain.named.missed == Missed::All);
                offers.push(Offer { due: at, ..self.new_offer(chain, Slot::At(slot.at), kind, follows) });
            }
            if !decision.run.is_empty() || !decision.given_up.is_empty() {
                marks.push((chain.slots_of(self.parts.state.machine()).to_owned(), chain.name().to_owned(), decision.watermark));
            }
        }
        self.newest = self.newest.max(Some(now));
        self.claim(offers, now, answer);
        self.parts.state.mark(marks, now);
    }

    /// A slot on its way, due at once.
    pub(super) fn new_offer(&mut self, chain: &Booked, slot: Slot, kind: TriggerKind, follows: bool) -> Offer {
        let zone = chain.schedule.as_ref().map(|schedule| schedule.zone().clone());
        let scheduled_at = slot.time().zip(zone).map(|(at, zone)| at.to_zoned(zone));
        Offer {
            chain: chain.name().to_owned(),
            machine: chain.slots_of(self.parts.state.machine()).to_owned(),
            slot,
            trigger: Trigger { kind, scheduled_at, window_ends: None },
            run: self.parts.ids.fresh(),
            due: Timestamp::MIN,
            window_begins: None,
            follows,
            begun: false,
            unwanted: None,
        }
    }

    fn claim(&mut self, mut offers: Vec<Offer>, now: Timestamp, answer: Option<TickAnswer>) {
        if offers.is_empty() {
            return answer.into_iter().for_each(|answer| answer(Ok(&[])));
        }
        let others: HashSet<&str> = self.parts.state.taking_over().collect();
        let mut asked: HashSet<String> = HashSet::new();
        for offer in &mut offers {
            // What can begin at once is written down as begun with the claim: one wait for the disk less.
            let idle = self.booked(&offer.chain).is_some_and(|chain| chain.named.idle);
            let busy = self.is_running(&offer.chain) || others.contains(offer.chain.as_str());
            offer.begun = !idle && !busy && asked.insert(offer.chain.clone());
        }
        let soon: Vec<Offer> = offers.iter().filter(|offer| offer.begun && offer.due > now).cloned().collect();
        self.asking.get_or_insert(self.parts.fleet.now());
        self.parts.state.claim(offers, now, answer);
        self.prepare_ahead(&soon);
    }

    /// Makes chains ready while the disk is at work, as long as nothing is due.
    fn prepare_ahead(&mut self, soon: &[Offer]) {
        for offer in soon {
            if self.parts.fleet.wall() >= offer.due {
                return;
            }
            let Some(chain) = self.book.as_ref().and_then(|book| book.chain(&offer.chain)) else { continue };
            if let Some(kept) = self.parts.outside.prepare_ahead(chain, &offer.run) {
                self.kept.insert(offer.run.clone(), kept);
            }
        }
    }

    pub(super) fn reload(&mut self) {
        match self.parts.outside.reload() {
            Ok(chains) => {
                log::info!("the configuration was read again: {}", counted(chains.len(), "chain"));
                self.trouble.refused_config = None;
                self.kept.clear();
                let now = self.parts.fleet.wall();
                match &self.book {
                    Some(book) => {
                        self.book = Some(book.renewed(chains, self.parts.state.machine(), now));
                        self.save_marks(now);
                        self.review_locks();
                        self.review_held();
                        self.review_waiting();
                    }
                    None => self.chains = chains,
                }
                self.give_orders();
            }
            Err(why) => {
                if self.trouble.refused_config.as_ref() != Some(&why) {
                    log::error!("the configuration is not taken over, the old one stays: {why}");
                }
                self.trouble.refused_config = Some(why);
            }
        }
        self.untold = true;
    }

    /// A new configuration is in force: what is held of a schedule that is another one now is not wanted.
    fn review_held(&mut self) {
        let Some(book) = &self.book else { return };
        for offer in self.held.values_mut().flatten() {
            let (Some(chain), Some(at)) = (book.chain(&offer.chain), offer.slot.time()) else { continue };
            let before = at.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(at);
            if chain.schedule.as_ref().is_none_or(|schedule| schedule.newest(before, at, 1).is_empty()) {
                offer.unwanted = Some("the chain has another schedule now");
            }
        }
    }

    fn save_marks(&mut self, now: Timestamp) {
        let Some(book) = &self.book else { return };
        let stored = book.marks();
        let machine = self.parts.state.machine();
        let of = |chain: &Rc<Booked>| Some((chain.slots_of(machine).to_owned(), chain.name().to_owned(), *stored.get(chain.name())?));
        let marks: Vec<_> = book.chains().iter().filter_map(of).collect();
        self.parts.state.mark(marks, now);
    }

    pub(super) fn booked(&self, chain: &str) -> Option<&Rc<Booked>> {
        self.book.as_ref()?.chain(chain)
    }
}

fn reason(why: Why) -> &'static str {
    match why {
        Why::TooOld => "older than missed_window",
        Why::Skipped => "missed = skip",
        Why::Overtaken => "a newer one is run",
        Why::TooMany => "at most 100 are caught up",
    }
}

fn tell_given_up(chain: &Booked, given_up: &GivenUp) {
    let GivenUp { first, last, count, why } = given_up;
    let name = chain.name();
    let why = reason(*why);
    let slots = if *count == 1 { format!("the slot {first}") } else { format!("{} from {first} to {last}", counted(*count, "slot")) };
    let level = if chain.named.missed == Missed::Skip { log::Level::Info } else { log::Level::Warn };
    log::log!(level, event = "slots_given_up", chain = name, count; "chain {name}: {slots} given up: {why}");
}

impl Daemon<'_> {
    pub(super) fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Loaded(loaded) => self.loaded(loaded),
            Answer::Claimed(offers, answer) => {
                // Those were asked for before, and are older.
                self.send_taken();
                self.claimed(offers, answer);
            }
            Answer::TakenOver(offer) => {
                // Ours and not begun, if we are told to stop: whoever comes next takes it over again.
                if let Some(offer) = offer
                    && !self.is_stopping()
                {
                    let (chain, slot) = (&offer.chain, &offer.slot);
                    log::info!("chain {chain}: the slot {slot} is taken over: whoever had claimed it ended before its run began");
                    if offer.due > self.parts.fleet.wall() { self.hold(offer) } else { self.taken.push(offer) }
                }
            }
            Answer::Begun(offer) if self.is_stopping() => self.parts.state.give_back(vec![offer.run.as_str().to_owned()]),
            Answer::Begun(mut offer) => {
                self.starting.remove(&offer.chain);
                offer.begun = true;
                self.begin_if_newest(offer);
            }
            Answer::Counted(counts) => self.depths.hear(counts, self.parts.fleet.now()),
            Answer::Remembered(known, rest) => self.heard_history(&known, rest),
            Answer::Done => {}
            Answer::Failed(offers, why) => self.failed(&offers, why),
            // Told by whoever has called us: this is our end.
            Answer::Unusable(why) => {
                self.no_state = Some(why);
                self.crew.stop(Duration::ZERO, &self.parts.fleet.driver().world);
            }
        }
    }

    /// Slots that were taken over go their way together, as others that are due at one moment: idle ones follow.
    pub(super) fn send_taken(&mut self) {
        if !self.taken.is_empty() && self.parts.state.taking_over().next().is_none() {
            let taken = std::mem::take(&mut self.taken);
            self.send_off(taken);
        }
    }

    /// The store cannot do what was asked, and never will: these runs do not begin, and nobody waits for them.
    fn failed(&mut self, offers: &[Offer], why: String) {
        match self.mode {
            // It ends with this, and then tells it.
            Mode::Tick => {}
            Mode::Daemon | Mode::Stopping(_) => log::error!("{why}"),
        }
        for offer in offers {
            self.starting.remove(&offer.chain);
            log::error!("chain {}: the slot {} is lost: it cannot be written down", offer.chain, offer.slot);
            self.after(&offer.run, &offer.chain);
        }
        if self.mode == Mode::Tick {
            self.no_state = Some(why);
        }
    }

    fn is_stopping(&self) -> bool {
        matches!(self.mode, Mode::Stopping(_))
    }

    /// The state is known: the book is opened, and what a crash has left is taken up.
    pub(super) fn loaded(&mut self, loaded: Loaded) {
        let now = self.parts.fleet.wall();
        self.newest = loaded.newest;
        self.lost = loaded.waiting;
        self.since = now;
        let chains = std::mem::take(&mut self.chains);
        let book = self.book.insert(Book::new(chains, &loaded.marks, self.parts.state.machine(), now));
        let believed = believe(now, self.newest, self.parts.built).is_ok();
        let due = match self.mode {
            Mode::Tick if believed => book.due_in_minute(now),
            Mode::Tick | Mode::Daemon | Mode::Stopping(_) => Vec::new(),
        };
        let boot: Vec<Rc<Booked>> = book.at_boot().cloned().collect();
        match self.mode {
            Mode::Tick => {
                if believed {
                    self.take_over_lost(now);
                }
                if let Err(why) = believe(now, self.newest, self.parts.built) {
                    log::warn!("{why}");
                }
                self.offer_all(&due, TriggerKind::Tick, now, None);
                self.mark_first_seen(&due, &loaded.marks, now);
            }
            Mode::Daemon => {
                self.save_marks(now);
                self.ask_history();
                self.give_orders();
                std::mem::take(&mut self.early).into_iter().for_each(|answer| self.tick_now(answer));
            }
            Mode::Stopping(_) => return,
        }
        let slot = Slot::Boot(self.parts.state.boot_id().to_owned());
        let offers: Vec<Offer> = boot.iter().map(|chain| self.new_offer(chain, slot.clone(), TriggerKind::Boot, false)).collect();
        self.claim(offers, now, None);
        self.untold = true;
    }

    /// Writes down that somebody looks at chains that are seen for the first time and not due: what passes from now on was
    /// missed, and `runner why` does not say that nobody looks. Later ticks write of them only when they are due.
    fn mark_first_seen(&mut self, looked_at: &[(Rc<Booked>, Decision)], known: &HashMap<String, Timestamp>, now: Timestamp) {
        let is_due = |decision: &Decision| !decision.run.is_empty() || !decision.given_up.is_empty();
        let machine = self.parts.state.machine();
        let of =
            |(chain, decision): &(Rc<Booked>, Decision)| (chain.slots_of(machine).to_owned(), chain.name().to_owned(), decision.watermark);
        let new = looked_at.iter().filter(|(chain, decision)| !known.contains_key(chain.name()) && !is_due(decision));
        let marks = new.map(of).collect();
        self.parts.state.mark(marks, now);
    }

    /// Asks for the slots of processes that are gone: those that are still wanted by the rules of what was missed run, the others
    /// are given up. Chains that we do not have are left alone: another configuration may share the database.
    fn take_over_lost(&mut self, now: Timestamp) {
        for lost in std::mem::take(&mut self.lost) {
            let Some(chain) = self.booked(&lost.key.chain).filter(|chain| chain.named.enabled).cloned() else { continue };
            let machine = self.parts.state.machine().to_owned();
            let unwanted = match (&lost.key.slot, &chain.schedule) {
                (Slot::At(at), Some(schedule)) => why_unwanted(schedule, &chain.policy(&machine), *at, now).map(reason),
                (Slot::At(_), None) => Some("the chain has no schedule any more"),
                (Slot::Boot(id), _) => (id != self.parts.state.boot_id()).then_some("it was for an earlier boot"),
            };
            let kind = if lost.key.slot.time().is_some() { TriggerKind::Missed } else { TriggerKind::Boot };
            let mut offer = self.new_offer(&chain, lost.key.slot.clone(), kind, chain.named.missed == Missed::All);
            offer.machine.clone_from(&lost.key.machine);
            offer.unwanted = unwanted;
            // It may have been claimed a moment before it was due. A tick waits for nobody: it takes its whole minute.
            if let Some(at) = lost.key.slot.time().filter(|_| self.mode == Mode::Daemon) {
                offer.due = at.saturating_add(chain.policy(&machine).delay).unwrap_or(at);
            }
            self.parts.state.take_over(lost, offer, now);
        }
    }

    /// Slots were asked for: those that are ours are held until they are due.
    fn claimed(&mut self, offers: Vec<(Offer, bool)>, answer: Option<TickAnswer>) {
        if let Some(since) = self.asking.take() {
            self.lead.hear(self.parts.fleet.now().since(since));
        }
        if self.is_stopping() {
            // Whoever comes next takes them over.
            return self.parts.state.give_back(begun_for_nothing(&offers));
        }
        offers.iter().filter(|(_, ours)| !ours).for_each(|(offer, _)| drop(self.kept.remove(&offer.run)));
        let ours: Vec<Offer> = offers.into_iter().filter_map(|(offer, ours)| ours.then_some(offer)).collect();
        if let Some(answer) = answer {
            answer(Ok(&ours.iter().map(Offer::run_ref).collect::<Vec<_>>()));
        }
        let now = self.parts.fleet.wall();
        let (later, due): (Vec<_>, Vec<_>) = ours.into_iter().partition(|offer| offer.due > now);
        later.into_iter().for_each(|offer| self.hold(offer));
        self.send_off(due);
    }

    fn hold(&mut self, offer: Offer) {
        self.held.entry(offer.due).or_default().push(offer);
    }

    /// From when the window of an idle chain counts: the moment at which its slot fires, or the minute of the tick.
    fn window_begins(&self, offer: &Offer, now: Timestamp) -> Timestamp {
        if let Some(known) = offer.window_begins {
            return known;
        }
        let fires = |at: Timestamp| {
            let delay = self.booked(&offer.chain).map_or(Duration::ZERO, |chain| chain.policy(self.parts.state.machine()).delay);
            at.saturating_add(delay).unwrap_or(at)
        };
        let begins = offer.slot.time().filter(|_| offer.trigger.kind != TriggerKind::Missed).map_or(now, fires);
        let ticked = self.mode == Mode::Tick || offer.trigger.kind == TriggerKind::Tick;
        if ticked { minute_of(begins) } else { begins }
    }

    /// Until when a slot may begin, by the configuration in force: none but an idle chain has a window.
    pub(super) fn window_ends(&self, chain: &Booked, offer: &Offer) -> Option<Timestamp> {
        let window = SignedDuration::try_from(chain.named.window).ok().filter(|_| chain.named.idle)?;
        self.window_begins(offer, self.parts.fleet.wall()).checked_add(window).ok()
    }

    /// Slots that are ours and due go their way together.
    fn send_off(&mut self, ours: Vec<Offer>) {
        let now = self.parts.fleet.wall();
        // One that is taken over in order to be given up waits for nobody.
        let is_idle = |offer: &Offer| offer.unwanted.is_none() && self.booked(&offer.chain).is_some_and(|chain| chain.named.idle);
        let (idle, first): (Vec<_>, Vec<_>) = ours.into_iter().partition(is_idle);
        let going: Vec<RunId> = first.iter().map(|offer| offer.run.clone()).collect();
        for offer in first {
            let run = offer.run.clone();
            self.offer(offer);
            self.kept.remove(&run);
        }
        let idle = idle.into_iter().map(|mut offer| {
            let begins = self.window_begins(&offer, now);
            let window = self.booked(&offer.chain).map_or(Duration::ZERO, |chain| chain.named.window);
            offer.window_begins = Some(begins);
            (offer, begins, window)
        });
        let idle: Vec<_> = idle.collect();
        if !idle.is_empty() {
            let newer: HashSet<&str> = idle.iter().filter(|(offer, ..)| !offer.follows).map(|(offer, ..)| offer.chain.as_str()).collect();
            self.give_up_older(&newer);
            let still: HashSet<RunId> = going.into_iter().filter(|run| self.is_on_its_way(run)).collect();
            self.rounds.add(idle, still);
            self.go_round();
        }
    }
}
