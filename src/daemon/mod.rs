//! Fires chains on their schedules: the daemon until it is told to stop, a tick for one minute. One loop, which sleeps until
//! the next deadline, a change of the clock, the end of a task, a signal, an answer of the store or a word from outside.
//!
//! The way of a slot: `book` says that it is due; the store is asked to claim it, once whoever asks; `overlap` says what
//! becomes of it when its chain still runs; a run begins, `rounds` lets idle chains follow. The store has its own thread
//! (`store::desk`): a slow database holds nobody up who must be ended in time.

pub mod book;
pub mod overlap;
mod rounds;
mod state;

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::CString;
use std::rc::Rc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::alarm::Alarm;
use crate::chain::fleet::Fleet;
use crate::chain::run::Run;
use crate::chain::setup::Setup;
use crate::clock::Moment;
use crate::config::keys::Missed;
use crate::event::RunRef;
use crate::hook::HookRun;
use crate::mark::Mark;
use crate::names::{RunId, RunIds, counted};
use crate::outcome::RunOutcome;
use crate::schedule::agenda::{Decision, GivenUp, Why, believe};
use crate::store::Slot;
use crate::store::record::SKIPPED;
use crate::trigger::{Trigger, TriggerKind};
use book::{Book, Booked};
use overlap::{Fate, fate};
use rounds::{Rounds, Step};
use state::{Answer, Loaded};
pub use state::{Outbox, State};

/// The signal by which a run is stopped for a newer slot.
const SIGTERM: i32 = 15;
/// The signal that asks for the configuration to be read again.
const SIGHUP: i32 = 1;

/// What the daemon needs of the rest of the program: what depends on files, variables and the command line.
pub trait Outside {
    /// The tasks of a chain as they are now, and the variables that tell them where the configuration is.
    ///
    /// # Errors
    /// Why it cannot be run, in words.
    fn prepare(&mut self, chain: &Booked) -> Result<(Rc<Setup>, Vec<CString>), String>;

    /// Starts the chain's hook for a run that does not begin.
    fn refused(&mut self, chain: &Booked, reason: &str, message: &str, driver: &mut crate::chain::Driver<'_>) -> Option<HookRun>;

    /// Takes the mark that says that a run of the chain goes on on this machine; it is given back when it is dropped.
    ///
    /// # Errors
    /// Who has it, in words.
    fn mark(&mut self, chain: &str, run: &RunId) -> Result<Mark, String>;

    /// Whether the configuration looks different from when it was read last. Asked before a slot fires.
    fn has_changed(&mut self) -> bool;

    /// Reads the configuration again.
    ///
    /// # Errors
    /// What is wrong with it; the old one stays.
    fn reload(&mut self) -> Result<Vec<Booked>, String>;

    /// Tells people and the service manager how things stand.
    fn tell(&mut self, view: &View<'_>);
}

/// How things stand, for those who are shown it.
pub struct View<'a> {
    /// The chains and their schedules.
    pub book: &'a Book,
    /// The runs that go on.
    pub runs: &'a [Run],
    /// What was wrong with the newest configuration, which is therefore not used.
    pub refused_config: Option<&'a str>,
    /// Why the clock is not believed.
    pub no_clock: Option<&'a str>,
    /// We were told to stop, and wait for runs to end.
    pub stopping: bool,
}

/// A slot on its way to a run.
#[derive(Debug, Clone)]
struct Offer {
    chain: String,
    slot: Slot,
    machine: String,
    trigger: Trigger,
    run: RunId,
    /// It was missed together with one before it.
    follows: bool,
    /// The store knows that its run has begun.
    begun: bool,
}

/// Why the loop goes on or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Until it is told to stop.
    Daemon,
    /// Until everything that was due has ended.
    Tick,
    /// Told to stop: until what runs has ended. Runs are told to stop at this moment, if they were not yet.
    Stopping(Option<Moment>),
}

/// What the loop is made of.
pub struct Parts<'a> {
    /// The runs that go on.
    pub fleet: Fleet<'a>,
    /// The source of run ids.
    pub ids: &'a mut RunIds,
    /// The state.
    pub state: State,
    /// The alarm of the wall clock.
    pub alarm: &'a mut dyn Alarm,
    /// The rest of the program.
    pub outside: &'a mut dyn Outside,
    /// When the program was built: an earlier clock is none.
    pub built: Timestamp,
    /// How long runs may go on when we are told to stop.
    pub stop_time: Duration,
}

/// The daemon, or one tick.
pub struct Daemon<'a> {
    parts: Parts<'a>,
    mode: Mode,
    /// `None` until the state is known.
    book: Option<Book>,
    /// The chains, until there is a book.
    chains: Vec<Booked>,
    newest: Option<Timestamp>,
    marks: HashMap<RunId, Mark>,
    /// Runs whose beginning is being written down.
    starting: HashSet<String>,
    backlog: HashMap<String, VecDeque<Offer>>,
    rounds: Rounds<Offer>,
    refused_config: Option<String>,
    no_clock: Option<String>,
    outcomes: Vec<(RunRef, RunOutcome)>,
    refused: usize,
}

/// How a tick, or a daemon, ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// The runs of a tick, in the order in which they ended.
    pub outcomes: Vec<(RunRef, RunOutcome)>,
    /// How many due runs could not begin because something is wrong with them.
    pub refused: usize,
    /// The state could not be used: why.
    pub no_state: Option<String>,
}

impl<'a> Daemon<'a> {
    /// A daemon of these chains.
    pub fn new(parts: Parts<'a>, chains: Vec<Booked>) -> Self {
        Self {
            parts,
            mode: Mode::Daemon,
            book: None,
            chains,
            newest: None,
            marks: HashMap::new(),
            starting: HashSet::new(),
            backlog: HashMap::new(),
            rounds: Rounds::default(),
            refused_config: None,
            no_clock: None,
            outcomes: Vec::new(),
            refused: 0,
        }
    }

    /// Runs until it is told to stop.
    pub fn run(&mut self) -> Ended {
        self.parts.state.load(self.parts.fleet.wall());
        self.work()
    }

    /// Runs what is due in this minute, waits for it, and ends.
    pub fn tick(&mut self) -> Ended {
        self.mode = Mode::Tick;
        self.parts.state.load(self.parts.fleet.wall());
        self.work()
    }

    /// Waits until the newest records are written, but not longer than `limit`.
    pub fn settle(&mut self, limit: Duration) {
        let now = self.parts.fleet.wall();
        self.parts.state.settle(limit, now);
    }

    fn work(&mut self) -> Ended {
        self.tell();
        loop {
            self.fire();
            if self.is_done() {
                return Ended { outcomes: std::mem::take(&mut self.outcomes), refused: self.refused, no_state: None };
            }
            if let Some(why) = self.listen() {
                return Ended { outcomes: std::mem::take(&mut self.outcomes), refused: self.refused, no_state: Some(why) };
            }
        }
    }

    fn is_done(&self) -> bool {
        let quiet = self.parts.fleet.is_quiet() && self.starting.is_empty();
        match self.mode {
            Mode::Daemon => false,
            Mode::Stopping(_) => quiet,
            Mode::Tick => {
                quiet && self.book.is_some() && self.parts.state.is_settled() && self.rounds.is_empty() && self.backlog.is_empty()
            }
        }
    }

    /// Waits for something to happen, and acts on it. Tells when a tick cannot be done for want of a state.
    fn listen(&mut self) -> Option<String> {
        let stop_at = match self.mode {
            Mode::Stopping(at) => at,
            Mode::Daemon | Mode::Tick => None,
        };
        let Parts { fleet, state, alarm, .. } = &mut self.parts;
        let news = fleet.listen(&[alarm.fd(), state.fd()], stop_at);
        if news.ready[0] {
            alarm.silence();
        }
        for signal in &news.stops {
            self.hear(*signal);
        }
        if stop_at.is_some_and(|at| self.parts.fleet.now() >= at) {
            self.mode = Mode::Stopping(None);
            self.parts.fleet.stop(None, SIGTERM);
        }
        let ended = self.parts.fleet.advance(&news);
        for run in ended {
            self.ended(&run);
        }
        self.parts.state.hand_over(self.parts.fleet.wall());
        if news.ready[1] {
            for answer in self.parts.state.answers() {
                match answer {
                    Err(why) if self.mode == Mode::Tick => return Some(why),
                    Err(why) => log::error!("{why}"),
                    Ok(answer) => self.answered(answer),
                }
            }
        }
        None
    }

    fn hear(&mut self, signal: i32) {
        match self.mode {
            Mode::Daemon if signal == SIGHUP => self.reload(),
            Mode::Daemon => {
                let going = self.parts.fleet.runs().len();
                log::warn!("told to stop; {} still", counted(going, "run"));
                self.backlog.clear();
                self.rounds = Rounds::default();
                if self.parts.stop_time.is_zero() {
                    self.mode = Mode::Stopping(None);
                    self.parts.fleet.stop(None, signal);
                } else {
                    self.mode = Mode::Stopping(Some(self.parts.fleet.now() + self.parts.stop_time));
                }
            }
            Mode::Tick | Mode::Stopping(_) => {
                self.backlog.clear();
                self.rounds = Rounds::default();
                self.mode = Mode::Stopping(None);
                self.parts.fleet.stop(None, signal);
            }
        }
        self.tell();
    }

    fn tell(&mut self) {
        let empty = Book::default();
        let view = View {
            book: self.book.as_ref().unwrap_or(&empty),
            runs: self.parts.fleet.runs(),
            refused_config: self.refused_config.as_deref(),
            no_clock: self.no_clock.as_deref(),
            stopping: matches!(self.mode, Mode::Stopping(_)),
        };
        self.parts.outside.tell(&view);
    }
}

// ---- time and configuration ----------------------------------------------------------------------

impl Daemon<'_> {
    /// Takes what is due and asks for its slots; arms the alarm for what comes next.
    fn fire(&mut self) {
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
            if self.no_clock.as_ref() != Some(&why) {
                log::warn!("{why}");
            }
            self.no_clock = Some(why);
            // It is set one day, which rings the alarm; or it gets there by itself.
            self.parts.alarm.arm(self.newest);
            return;
        }
        self.no_clock = None;
        let due: Vec<(Booked, Decision)> = book.take_due(now).into_iter().map(|(chain, decision)| (chain.clone(), decision)).collect();
        self.parts.alarm.arm(book.next_deadline());
        if !due.is_empty() {
            self.offer_all(&due, TriggerKind::Schedule, now);
        }
    }

    /// Asks the store for the slots of what is due.
    fn offer_all(&mut self, due: &[(Booked, Decision)], kind: TriggerKind, now: Timestamp) {
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
        self.claim(offers, marks, now);
    }

    fn new_offer(&mut self, chain: &Booked, slot: Slot, kind: TriggerKind, follows: bool) -> Offer {
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

    fn claim(&mut self, mut offers: Vec<Offer>, marks: Vec<state::Watermark>, now: Timestamp) {
        for offer in &mut offers {
            // What can begin at once is written down as begun with the claim: one wait for the disk less.
            let idle = self.booked(&offer.chain).is_some_and(|chain| chain.named.idle);
            offer.begun = !idle && !offer.follows && !self.is_running(&offer.chain);
        }
        self.parts.state.claim(offers, marks, now);
    }

    fn reload(&mut self) {
        match self.parts.outside.reload() {
            Ok(chains) => {
                log::info!("the configuration was read again: {}", counted(chains.len(), "chain"));
                self.refused_config = None;
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
                if self.refused_config.as_ref() != Some(&why) {
                    log::error!("the configuration is not taken over, the old one stays: {why}");
                }
                self.refused_config = Some(why);
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

    fn booked(&self, chain: &str) -> Option<&Booked> {
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

// ---- answers of the store ------------------------------------------------------------------------

impl Daemon<'_> {
    fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Loaded(loaded) => self.loaded(loaded),
            Answer::Claimed(offers) => self.claimed(offers),
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
    fn loaded(&mut self, loaded: Loaded) {
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
                self.offer_all(&due, TriggerKind::Tick, now);
            }
            Mode::Daemon => self.save_marks(now),
            Mode::Stopping(_) => return,
        }
        let slot = Slot::Boot(self.parts.state.boot_id().to_owned());
        let offers: Vec<Offer> = boot.iter().map(|chain| self.new_offer(chain, slot.clone(), TriggerKind::Boot, false)).collect();
        if !offers.is_empty() {
            self.claim(offers, Vec::new(), now);
        }
        for waiting in loaded.waiting {
            let Some(chain) = self.booked(&waiting.key.chain).cloned() else { continue };
            let offer = self.new_offer(&chain, waiting.key.slot.clone(), TriggerKind::Missed, false);
            self.parts.state.take_over(waiting, offer, now);
        }
        self.tell();
    }

    /// Slots were asked for: those that are ours go their way together.
    fn claimed(&mut self, offers: Vec<(Offer, bool)>) {
        let ours: Vec<Offer> = offers.into_iter().filter_map(|(offer, ours)| ours.then_some(offer)).collect();
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

// ---- runs ------------------------------------------------------------------------------------------

impl Daemon<'_> {
    fn is_running(&self, chain: &str) -> bool {
        self.starting.contains(chain) || self.parts.fleet.is_running(chain)
    }

    fn is_on_its_way(&self, run: &RunId) -> bool {
        let runs = self.parts.fleet.runs().iter().any(|going| going.run_ref().id == *run);
        runs || self.backlog.values().flatten().any(|offer| offer.run == *run) || self.starting_runs().any(|id| id == run)
    }

    fn starting_runs(&self) -> impl Iterator<Item = &RunId> {
        self.parts.state.beginning().map(|offer| &offer.run)
    }

    /// A slot is ours: its run begins, waits, or is given up.
    fn offer(&mut self, offer: Offer) {
        let Some(chain) = self.booked(&offer.chain).cloned() else { return };
        let waiting = self.backlog.get(&offer.chain).map_or(0, VecDeque::len);
        let running = self.is_running(&offer.chain);
        match fate(chain.named.overlap, running, waiting, offer.follows) {
            Fate::Begin => self.write_down(offer),
            Fate::Wait => self.backlog.entry(offer.chain.clone()).or_default().push_back(offer),
            Fate::Replace => {
                log::warn!("chain {}: its run is stopped for the slot {} (overlap = replace)", offer.chain, offer.slot);
                self.parts.fleet.stop(Some(&offer.chain), SIGTERM);
                for replaced in self.backlog.insert(offer.chain.clone(), VecDeque::from([offer])).into_iter().flatten() {
                    self.skip(&chain, &replaced, "a newer slot takes its place (overlap = replace)");
                }
            }
            Fate::GiveUp => self.skip(&chain, &offer, "the chain still runs"),
        }
    }

    /// A run that the store does not know yet is written down before it begins.
    fn write_down(&mut self, offer: Offer) {
        if offer.begun {
            return self.begin(offer);
        }
        self.starting.insert(offer.chain.clone());
        self.parts.state.begin(offer, self.parts.fleet.wall());
    }

    fn begin(&mut self, offer: Offer) {
        let Some(chain) = self.booked(&offer.chain).cloned() else { return };
        let run = RunRef { chain: offer.chain.clone(), id: offer.run.clone(), trigger: offer.trigger.clone() };
        let mark = match self.parts.outside.mark(&offer.chain, &offer.run) {
            Ok(mark) => mark,
            Err(holder) => return self.skip(&chain, &offer, &format!("the chain still runs: {holder}")),
        };
        match self.parts.outside.prepare(&chain) {
            Ok((setup, variables)) => {
                self.marks.insert(offer.run, mark);
                self.parts.fleet.begin(setup, run, &variables);
                for ended in self.parts.fleet.take_ended() {
                    self.ended(&ended);
                }
                self.tell();
            }
            Err(why) => {
                self.refused += 1;
                log::error!(event = "run_refused", chain = offer.chain.as_str(), reason = "task_dir"; "chain {}: {why}", offer.chain);
                self.not_begun(&chain, &offer, "task_dir", &why);
            }
        }
    }

    /// A slot is given up: written down, told, and the hook hears of it.
    fn skip(&mut self, chain: &Booked, offer: &Offer, why: &str) {
        let (name, slot) = (chain.name(), offer.slot.to_string());
        log::warn!(event = "slot_skipped", chain = name, slot = slot.as_str(); "chain {name}: the slot {slot} is given up: {why}");
        self.not_begun(chain, offer, SKIPPED, why);
    }

    fn not_begun(&mut self, chain: &Booked, offer: &Offer, reason: &str, why: &str) {
        self.parts.state.not_begun(offer, reason, why, self.parts.fleet.wall());
        let hook = self.parts.outside.refused(chain, reason, why, self.parts.fleet.driver());
        if let Some(hook) = hook {
            self.parts.fleet.add_hook(&offer.chain, hook);
        }
        self.after(&offer.run, &offer.chain);
    }

    fn ended(&mut self, run: &Run) {
        let of = run.run_ref();
        self.marks.remove(&of.id);
        // A daemon does not end for weeks: only a tick adds up what its runs came to.
        if let Some(outcome) = run.outcome()
            && self.mode != Mode::Daemon
        {
            self.outcomes.push((of.clone(), outcome.clone()));
        }
        self.after(&of.id, &of.chain);
        self.tell();
    }

    /// A place is free: whoever waited for the chain, or for the round, has its turn.
    fn after(&mut self, run: &RunId, chain: &str) {
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
    fn go_round(&mut self) {
        while let Some(step) = self.rounds.next(self.parts.fleet.wall()) {
            match step {
                Step::Start(offer) => self.offer(offer),
                Step::NoTime(offer, left) => {
                    if let Some(chain) = self.booked(&offer.chain).cloned() {
                        self.skip(&chain, &offer, &format!("no time is left in its window ({} s)", left.as_secs()));
                    }
                }
            }
        }
    }
}
