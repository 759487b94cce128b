//! Which slots are due, whose they are, and what a new configuration makes of them. Starts nothing: what is ours goes to `runs`.

use std::collections::HashSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::book::{Book, Booked};
use super::state::{Answer, Loaded};
use super::{Daemon, Mode, Offer, TickAnswer};
use crate::config::keys::Missed;
use crate::names::{RunId, counted};
use crate::schedule::agenda::{Decision, GivenUp, Why, believe};
use crate::store::Slot;
use crate::trigger::{Trigger, TriggerKind};

impl Daemon<'_> {
    /// Takes what is due and asks for its slots; arms the alarm for what comes next.
    pub(super) fn fire(&mut self) {
        if self.mode != Mode::Daemon {
            return;
        }
        let now = self.parts.fleet.wall();
        if self.book.as_ref().and_then(Book::next_deadline).is_some_and(|due| due <= now) && self.parts.outside.has_changed() {
            self.reload();
        }
        let Some(book) = &mut self.book else { return };
        if let Err(why) = believe(now, self.newest, self.parts.built) {
            let why = why.to_string();
            if self.trouble.no_clock.as_ref() != Some(&why) {
                log::warn!("{why}");
            }
            self.trouble.no_clock = Some(why);
            // It is set one day, which rings the alarm; or it gets there by itself.
            self.parts.alarm.arm(self.newest);
            return;
        }
        self.trouble.no_clock = None;
        let due: Vec<(Booked, Decision)> = book.take_due(now).into_iter().map(|(chain, decision)| (chain.clone(), decision)).collect();
        self.parts.alarm.arm(book.next_deadline());
        if !due.is_empty() {
            self.offer_all(&due, TriggerKind::Schedule, now, None);
        }
    }

    /// Somebody outside asks for a tick: the slots of this minute that nobody has used. The answer names the runs when it
    /// is known whose the slots are.
    pub(super) fn tick_now(&mut self, answer: TickAnswer) {
        let now = self.parts.fleet.wall();
        let believed = believe(now, self.newest, self.parts.built).is_ok();
        let Some(book) = self.book.as_ref().filter(|_| believed && self.mode == Mode::Daemon) else { return answer(&[]) };
        let due: Vec<(Booked, Decision)> = book.due_for_tick(now).into_iter().map(|(chain, decision)| (chain.clone(), decision)).collect();
        self.offer_all(&due, TriggerKind::Tick, now, Some(answer));
    }

    /// Asks the store for the slots of what is due.
    fn offer_all(&mut self, due: &[(Booked, Decision)], kind: TriggerKind, now: Timestamp, answer: Option<TickAnswer>) {
        let (mut offers, mut marks) = (Vec::new(), Vec::new());
        for (chain, decision) in due {
            decision.given_up.iter().for_each(|given_up| tell_given_up(chain, given_up));
            for (at, slot) in decision.run.iter().enumerate() {
                let kind = if slot.late { TriggerKind::Missed } else { kind };
                offers.push(self.new_offer(chain, Slot::At(slot.at), kind, at > 0));
            }
            if !decision.run.is_empty() || !decision.given_up.is_empty() {
                marks.push((chain.slots_of(self.parts.state.machine()).to_owned(), chain.name().to_owned(), decision.watermark));
            }
        }
        self.newest = self.newest.max(Some(now));
        self.claim(offers, now, answer);
        self.parts.state.mark(marks, now);
    }

    pub(super) fn new_offer(&mut self, chain: &Booked, slot: Slot, kind: TriggerKind, follows: bool) -> Offer {
        let zone = chain.schedule.as_ref().map(|schedule| schedule.zone().clone());
        let scheduled_at = slot.time().zip(zone).map(|(at, zone)| at.to_zoned(zone));
        Offer {
            chain: chain.name().to_owned(),
            machine: chain.slots_of(self.parts.state.machine()).to_owned(),
            slot,
            trigger: Trigger { kind, scheduled_at, window_ends: None },
            run: self.parts.ids.fresh(),
            follows,
            begun: false,
        }
    }

    fn claim(&mut self, mut offers: Vec<Offer>, now: Timestamp, answer: Option<TickAnswer>) {
        if offers.is_empty() {
            return answer.into_iter().for_each(|answer| answer(&[]));
        }
        for offer in &mut offers {
            // What can begin at once is written down as begun with the claim: one wait for the disk less.
            let idle = self.booked(&offer.chain).is_some_and(|chain| chain.named.idle);
            offer.begun = !idle && !offer.follows && !self.is_running(&offer.chain);
        }
        self.parts.state.claim(offers, now, answer);
    }

    pub(super) fn reload(&mut self) {
        match self.parts.outside.reload() {
            Ok(chains) => {
                log::info!("the configuration was read again: {}", counted(chains.len(), "chain"));
                self.trouble.refused_config = None;
                let now = self.parts.fleet.wall();
                match &self.book {
                    // What was due by the old book is decided; a new or changed schedule begins now.
                    Some(_) => {
                        let marks = chains.iter().map(|chain| (chain.name().to_owned(), now)).collect();
                        self.book = Some(Book::new(chains, &marks, self.parts.state.machine(), now));
                        self.save_marks(now);
                    }
                    None => self.chains = chains,
                }
            }
            Err(why) => {
                if self.trouble.refused_config.as_ref() != Some(&why) {
                    log::error!("the configuration is not taken over, the old one stays: {why}");
                }
                self.trouble.refused_config = Some(why);
            }
        }
        self.tell();
    }

    fn save_marks(&mut self, now: Timestamp) {
        let Some(book) = &self.book else { return };
        let stored = book.marks();
        let machine = self.parts.state.machine();
        let of = |chain: &Booked| Some((chain.slots_of(machine).to_owned(), chain.name().to_owned(), *stored.get(chain.name())?));
        let marks: Vec<_> = book.chains().iter().filter_map(of).collect();
        self.parts.state.mark(marks, now);
    }

    pub(super) fn booked(&self, chain: &str) -> Option<&Booked> {
        self.book.as_ref()?.chain(chain)
    }
}

fn tell_given_up(chain: &Booked, given_up: &GivenUp) {
    let GivenUp { first, last, count, why } = given_up;
    let name = chain.name();
    let why = match why {
        Why::TooOld => "they are older than missed_window",
        Why::Skipped => "missed = skip",
        Why::Overtaken => "a newer one is run",
        Why::TooMany => "at most 100 are caught up",
    };
    let slots = counted(*count, "slot");
    let level = if chain.named.missed == Missed::Skip { log::Level::Info } else { log::Level::Warn };
    log::log!(level, event = "slots_given_up", chain = name, count; "chain {name}: {slots} from {first} to {last} given up: {why}");
}

impl Daemon<'_> {
    pub(super) fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Loaded(loaded) => self.loaded(loaded),
            Answer::Claimed(offers, answer) => self.claimed(offers, answer),
            Answer::TakenOver(offer) => {
                if let Some(offer) = offer {
                    log::warn!("chain {}: its slot {} was claimed by a process that is gone; it is run now", offer.chain, offer.slot);
                    self.offer(offer);
                }
            }
            Answer::Begun(offer) => {
                self.starting.remove(&offer.chain);
                self.begin(offer);
            }
            Answer::Done => {}
        }
    }

    /// The state is known: the book is opened, and what a crash has left is taken up.
    pub(super) fn loaded(&mut self, loaded: Loaded) {
        let now = self.parts.fleet.wall();
        self.newest = loaded.newest;
        let chains = std::mem::take(&mut self.chains);
        let book = self.book.insert(Book::new(chains, &loaded.marks, self.parts.state.machine(), now));
        let believed = believe(now, self.newest, self.parts.built).is_ok();
        let due: Vec<(Booked, Decision)> = match self.mode {
            Mode::Tick if believed => book.due_in_minute(now).into_iter().map(|(chain, decision)| (chain.clone(), decision)).collect(),
            Mode::Tick | Mode::Daemon | Mode::Stopping(_) => Vec::new(),
        };
        let boot: Vec<Booked> = book.at_boot().cloned().collect();
        match self.mode {
            Mode::Tick => {
                if let Err(why) = believe(now, self.newest, self.parts.built) {
                    log::warn!("{why}");
                }
                self.offer_all(&due, TriggerKind::Tick, now, None);
            }
            Mode::Daemon => self.save_marks(now),
            Mode::Stopping(_) => return,
        }
        let slot = Slot::Boot(self.parts.state.boot_id().to_owned());
        let offers: Vec<Offer> = boot.iter().map(|chain| self.new_offer(chain, slot.clone(), TriggerKind::Boot, false)).collect();
        self.claim(offers, now, None);
        for waiting in loaded.waiting {
            let Some(chain) = self.booked(&waiting.key.chain).cloned() else { continue };
            let offer = self.new_offer(&chain, waiting.key.slot.clone(), TriggerKind::Missed, false);
            self.parts.state.take_over(waiting, offer, now);
        }
        self.tell();
    }

    /// Slots were asked for: those that are ours go their way together.
    fn claimed(&mut self, offers: Vec<(Offer, bool)>, answer: Option<TickAnswer>) {
        let ours: Vec<Offer> = offers.into_iter().filter_map(|(offer, ours)| ours.then_some(offer)).collect();
        if let Some(answer) = answer {
            answer(&ours.iter().map(Offer::run_ref).collect::<Vec<_>>());
        }
        if matches!(self.mode, Mode::Stopping(_)) {
            // Claimed and not begun: whoever comes next takes them over.
            return;
        }
        let now = self.parts.fleet.wall();
        let (idle, first): (Vec<_>, Vec<_>) =
            ours.into_iter().partition(|offer| self.booked(&offer.chain).is_some_and(|chain| chain.named.idle));
        let going: Vec<RunId> = first.iter().map(|offer| offer.run.clone()).collect();
        for offer in first {
            self.offer(offer);
        }
        let idle = idle.into_iter().map(|mut offer| {
            let minute = offer.slot.time().filter(|_| offer.trigger.kind != TriggerKind::Missed).unwrap_or(now);
            let minute = crate::schedule::order::minute_of(minute);
            let window = self.booked(&offer.chain).map_or(Duration::ZERO, |chain| chain.named.window);
            offer.trigger.window_ends = SignedDuration::try_from(window).ok().and_then(|window| minute.checked_add(window).ok());
            (offer, minute, window)
        });
        let idle: Vec<_> = idle.collect();
        if !idle.is_empty() {
            let still: HashSet<RunId> = going.into_iter().filter(|run| self.is_on_its_way(run)).collect();
            self.rounds.add(idle, still);
            self.go_round();
        }
    }
}
