//! Fires chains on their schedules: the daemon until it is told to stop, a tick for one minute. One loop, which sleeps until
//! the next deadline, a change of the clock, the end of a task, a signal, an answer of the store or a word from outside.
//!
//! The way of a slot: `book` says that it is due in a moment ([`LEAD`]); the store is asked to claim it, once whoever asks;
//! it is held until it is due; `overlap` says what becomes of it when its chain still runs; a run begins, `rounds` lets idle
//! chains follow. The store has its own thread (`store::desk`): a slow database holds nobody up who must be ended in time.

mod asked;
mod attend;
pub mod book;
pub mod crew;
pub mod depths;
pub mod lead;
pub mod overlap;
mod rounds;
mod runs;
mod slots;
mod state;
pub mod trouble;
pub mod waiting;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use jiff::Timestamp;

use crate::alarm::Alarm;
use crate::chain::Driver;
use crate::chain::fleet::{Fleet, Ready};
use crate::chain::run::Run;
use crate::clock::Moment;
use crate::config::queues::QueueSettings;
use crate::event::{RunRef, StoppedBy};
use crate::hook::HookRun;
use crate::mark::{Mark, Place};
use crate::names::{RunId, RunIds, counted};
use crate::outcome::RunOutcome;
use crate::store::past::Known;
use crate::store::wake;
use crate::store::{Slot, SlotClaim};
use crate::trigger::Trigger;
use crate::worker::{self, Orders};
use asked::Asked;
use book::{Book, Booked};
use crew::Crew;
use depths::Depths;
use lead::Lead;
use rounds::Rounds;
pub use state::{Outbox, State, tell_unfinished};
use trouble::Troubles;
use waiting::Waiting;

pub use lead::LEAD;
pub use slots::UNREAD;

/// So long a tick waits for a state that does not answer, when there is nothing else to wait for.
const PATIENCE: Duration = Duration::from_secs(10);
/// The signal by which a run is stopped for a newer slot.
const SIGTERM: i32 = 15;
/// The signal that asks for the configuration to be read again.
const SIGHUP: i32 = 1;

/// What the daemon needs of the rest of the program: what depends on files, variables and the command line.
pub trait Outside {
    /// A chain as it is now: its tasks, the variables that tell them where the configuration is, its lock.
    ///
    /// # Errors
    /// Why it cannot be run, in words.
    fn prepare(&mut self, chain: &Booked) -> Result<Ready, String>;

    /// Makes a chain ready for this run a moment before its slot is due: what is kept stands in for [`Outside::prepare`] then. `None` where
    /// that cannot be; it is tried again, and told, when the run begins.
    fn prepare_ahead(&mut self, _: &Booked, _: &RunId) -> Option<Kept> {
        None
    }

    /// Starts the chain's hook for a run that does not begin.
    fn refused(&mut self, chain: &Booked, run: &RunRef, why: Refused<'_>, driver: &mut Driver<'_>) -> Option<HookRun>;

    /// Takes the mark that says that a run of the chain goes on on this machine, at its place where that was opened before; it is
    /// given back when it is dropped.
    ///
    /// # Errors
    /// Who has it, in words.
    fn mark(&mut self, chain: &str, run: &RunId, place: Option<Place>) -> Result<Mark, String>;

    /// Whether the configuration looks different from when it was read last. Asked before a slot fires.
    fn has_changed(&mut self) -> bool;

    /// Reads the configuration again.
    ///
    /// # Errors
    /// What is wrong with it; the old one stays.
    fn reload(&mut self) -> Result<Vec<Booked>, String>;

    /// Readable when somebody outside asks for something.
    fn ears(&self) -> Option<BorrowedFd<'_>>;

    /// Answers those who want to look; those who want a tick are handed on.
    fn asked(&mut self, view: &View<'_>) -> Vec<TickAnswer>;

    /// How long runs may go on when we are told to stop.
    fn stop_time(&self) -> Duration;

    /// Tells people and the service manager how things stand.
    fn tell(&mut self, view: &View<'_>);

    /// What the configuration in force wants done with queues; `None` in a program that works none.
    fn orders(&mut self) -> Option<Orders> {
        None
    }

    /// The database of the jobs of these queues.
    ///
    /// # Errors
    /// Why there is none to be had.
    fn jobs(&mut self, _: &[QueueSettings]) -> Result<worker::State, String> {
        Err("this program works no queues".to_owned())
    }

    /// What wakes a worker. One at a time: the name of the next is that of the one before.
    fn bell(&mut self) -> Option<wake::Alarm> {
        None
    }

    /// Whether those who look are shown queues.
    fn shows_queues(&self) -> bool {
        false
    }

    /// Whether anybody can look at runs.
    fn shows_runs(&self) -> bool {
        false
    }

    /// This is what the history knows of these chains.
    fn remember(&mut self, _: &[(String, Known)]) {}
}

/// Why a run does not begin.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// In a word.
    pub reason: &'a str,
    /// In words.
    pub message: &'a str,
}

/// A chain that was made ready a moment ago; nothing if its task directory looks different by now.
pub type Kept = Box<dyn FnOnce() -> Option<Ready>>;

/// Hears which runs a tick has begun, or why nobody could look what is due.
pub type TickAnswer = Box<dyn FnOnce(Result<&[RunRef], &str>)>;

/// How things stand, for those who are shown it.
pub struct View<'a> {
    /// The chains and their schedules.
    pub book: &'a Book,
    /// The state is not known yet, so that nothing fires.
    pub unread: bool,
    /// The runs that go on.
    pub runs: &'a [Run],
    /// The chains that wait for their lock, and why.
    pub waits: Vec<(&'a str, &'a str)>,
    /// The slots that wait for their turn.
    pub slots: Waiting<'a>,
    /// What was wrong with the newest configuration, which is therefore not used.
    pub refused_config: Option<&'a str>,
    /// Why the clock is not believed.
    pub no_clock: Option<&'a str>,
    /// We were told to stop, and wait for runs to end.
    pub stopping: bool,
    /// Who works queues.
    pub crew: &'a Crew,
    /// How many jobs the queues have.
    pub depths: &'a Depths,
}

/// A slot on its way to a run.
#[derive(Debug, Clone)]
struct Offer {
    chain: String,
    slot: Slot,
    machine: String,
    trigger: Trigger,
    run: RunId,
    /// It is not to begin before.
    due: Timestamp,
    /// From when the window of its chain counts; known once it has gone its way as an idle one.
    window_begins: Option<Timestamp>,
    /// It was missed together with one before it.
    follows: bool,
    /// The store knows that its run has begun.
    begun: bool,
    /// Why it is not to run: it is taken over from a process that is gone in order to be given up.
    unwanted: Option<&'static str>,
}

impl Offer {
    fn run_ref(&self) -> RunRef {
        RunRef { chain: self.chain.clone(), id: self.run.clone(), trigger: self.trigger.clone() }
    }
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
    /// Slots that are ours and not due yet, by the time at which they are.
    held: BTreeMap<Timestamp, Vec<Offer>>,
    /// How long before it is due a slot is asked for.
    lead: Lead,
    /// Since when slots are asked for.
    asking: Option<Moment>,
    /// What was made ready for runs that have not begun yet.
    kept: HashMap<RunId, Kept>,
    backlog: HashMap<String, VecDeque<Offer>>,
    /// Runs that are to begin when their lock is ours.
    awaiting: HashMap<RunId, (Offer, Ready)>,
    /// Chains whose last run failed, and whose next slot is left to others (`release_on_error`).
    handed_on: HashSet<String>,
    rounds: Rounds<Offer>,
    trouble: Trouble,
    outcomes: Vec<(RunRef, RunOutcome)>,
    refused: usize,
    /// The lock of a run could not be asked for: why.
    no_lock: Option<String>,
    /// Runs that were told to stop for a newer slot.
    replaced: HashSet<RunId>,
    /// Slots of processes that are gone, until the clock can be believed.
    lost: Vec<SlotClaim>,
    /// Those who asked for a tick before the state was known.
    early: Vec<TickAnswer>,
    /// Slots that were taken over, until it is known which of them are ours.
    taken: Vec<Offer>,
    /// When the state was known: what was due before it was missed.
    since: Timestamp,
    /// The state cannot be used: why.
    no_state: Option<String>,
    /// Since when a tick has nothing to wait for but the state.
    waits_since: Option<Moment>,
    crew: Crew,
    depths: Depths,
    /// When the history was asked how chains stand.
    history: Asked,
    /// Something has changed since it was last told how things stand.
    untold: bool,
}

/// What keeps us from what we are to do.
#[derive(Debug, Default)]
struct Trouble {
    refused_config: Option<String>,
    no_clock: Option<String>,
    /// Of each chain.
    chains: Troubles,
}

/// How a tick, or a daemon, ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// The runs of a tick, in the order in which they ended.
    pub outcomes: Vec<(RunRef, RunOutcome)>,
    /// How many due runs could not begin because something is wrong with them.
    pub refused: usize,
    /// The engine of a lock could not be reached: why.
    pub no_lock: Option<String>,
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
            held: BTreeMap::new(),
            lead: Lead::default(),
            asking: None,
            kept: HashMap::new(),
            backlog: HashMap::new(),
            awaiting: HashMap::new(),
            handed_on: HashSet::new(),
            rounds: Rounds::default(),
            trouble: Trouble::default(),
            outcomes: Vec::new(),
            refused: 0,
            no_lock: None,
            replaced: HashSet::new(),
            lost: Vec::new(),
            early: Vec::new(),
            taken: Vec::new(),
            since: Timestamp::MIN,
            no_state: None,
            waits_since: None,
            crew: Crew::default(),
            depths: Depths::default(),
            history: Asked::new(attend::FRESH, attend::PATIENCE),
            untold: true,
        }
    }

    /// Runs until it is told to stop.
    pub fn run(&mut self) -> Ended {
        self.load();
        self.work()
    }

    /// Runs what is due in this minute, waits for it, and ends.
    pub fn tick(&mut self) -> Ended {
        self.become_tick();
        self.run()
    }

    /// Ends when what is due in this minute has ended, instead of going on: before the state is known.
    pub fn become_tick(&mut self) {
        self.mode = Mode::Tick;
    }

    /// Asks for the state: before the first [`Daemon::turn`].
    pub fn load(&mut self) {
        self.parts.state.load(self.parts.fleet.wall());
        self.tell();
    }

    /// Tells the worker which queues the configuration in force names. A tick works none. Not before the state is known:
    /// two who make a new database at the same time are in each other's way.
    fn give_orders(&mut self) {
        let Parts { fleet, ids, outside, .. } = &mut self.parts;
        if self.mode == Mode::Daemon
            && self.book.is_some()
            && let Some(orders) = outside.orders()
        {
            self.crew.obey(orders, &mut **outside, ids, fleet.now());
        }
    }

    /// Whether nothing is under way: the next to happen is a deadline, a signal, or a word from outside.
    pub fn is_settled(&self) -> bool {
        self.parts.fleet.is_quiet() && self.parts.state.is_settled()
    }

    /// Whether neither a run nor a hook goes on.
    pub fn is_quiet(&self) -> bool {
        self.parts.fleet.is_quiet()
    }

    /// Whether slots were asked for, and nobody knows yet whose they are.
    pub fn is_claiming(&self) -> bool {
        self.parts.state.is_claiming()
    }

    /// How many runs something is remembered of: those that go on or wait, when all is well.
    pub fn remembered(&self) -> usize {
        let waiting: usize = self.backlog.values().map(VecDeque::len).chain(self.held.values().map(Vec::len)).sum();
        waiting + self.kept.len() + self.awaiting.len() + self.marks.len() + self.starting.len() + self.replaced.len() + self.outcomes.len()
    }

    /// Waits until the newest records are written, but not longer than `limit`. Tells whether all of them are.
    pub fn settle(&mut self, limit: Duration) -> bool {
        let now = self.parts.fleet.wall();
        let written = self.parts.state.settle(limit, now);
        self.crew.settle(limit, now);
        written
    }

    fn work(&mut self) -> Ended {
        loop {
            if let Some(ended) = self.turn() {
                return ended;
            }
        }
    }

    /// One turn of the loop: fires what is due, waits for something to happen, and acts on it.
    pub fn turn(&mut self) -> Option<Ended> {
        self.fire();
        if self.mode == Mode::Daemon && self.crew.wonders(self.parts.fleet.now()) && self.parts.outside.has_changed() {
            self.reload();
        }
        let Parts { fleet, ids, outside, .. } = &mut self.parts;
        self.crew.ask(&mut **outside, ids, &fleet.driver().world);
        self.tell();
        // What is kept between runs is given back before we go.
        if self.is_done() && self.parts.fleet.close() {
            let outcomes = std::mem::take(&mut self.outcomes);
            return Some(Ended { outcomes, refused: self.refused, no_lock: self.no_lock.take(), no_state: self.no_state.take() });
        }
        self.listen();
        None
    }

    fn is_done(&mut self) -> bool {
        let quiet = self.parts.fleet.is_quiet();
        match self.mode {
            Mode::Daemon if self.no_state.is_none() => false,
            Mode::Daemon | Mode::Stopping(_) if !self.crew.is_gone(self.parts.fleet.now()) => false,
            // What is only ours on paper is given back by whoever waits for the last records.
            Mode::Daemon | Mode::Stopping(_) => quiet,
            Mode::Tick if self.no_state.is_some() => quiet,
            Mode::Tick => self.book.is_some() && self.is_settled() && self.rounds.is_empty() && self.backlog.is_empty(),
        }
    }

    /// Waits for something to happen, and acts on it.
    fn listen(&mut self) {
        let stop_at = match self.mode {
            Mode::Stopping(at) => at,
            Mode::Daemon | Mode::Tick => None,
        };
        // Before we wait: a run without a task ends in the moment in which it begins.
        self.parts.state.hand_over(self.parts.fleet.wall());
        let give_up_at = self.gives_up_at();
        let Parts { fleet, state, alarm, outside, .. } = &mut self.parts;
        let now = fleet.now();
        // Those who look wait for a moment while jobs are counted.
        let held_until = self.depths.held_until(now).max(self.history.held_until(now));
        let ears = if held_until.is_none() { outside.ears() } else { None };
        let asked = ears.is_some().then_some(2);
        let mut also: Vec<BorrowedFd<'_>> = [alarm.fd(), state.fd()].into_iter().chain(ears).collect();
        let layout = self.crew.add_fds(&mut also);
        let deadline = stop_at.or(give_up_at).into_iter().chain(held_until).chain(self.crew.wake_at(now)).min();
        let news = fleet.listen(&also, deadline);
        drop(also);
        if news.ready[0] {
            alarm.silence();
        }
        for signal in &news.stops {
            self.hear(*signal);
        }
        let now = self.parts.fleet.now();
        if stop_at.is_some_and(|at| now >= at) {
            self.mode = Mode::Stopping(None);
            self.parts.fleet.stop(None, SIGTERM, &StoppedBy::Daemon);
        }
        let ended = self.parts.fleet.advance(&news);
        for run in ended {
            self.ended(&run);
        }
        self.hear_locks();
        self.crew.act(layout.as_ref(), &news.ready, &mut self.parts.fleet.driver().world);
        if asked.is_some_and(|at| news.ready[at]) {
            self.attend();
        }
        if news.ready[1] {
            self.waits_since = None;
            for answer in self.parts.state.answers() {
                self.answered(answer);
            }
            self.send_taken();
        } else if give_up_at.is_some_and(|at| now >= at) {
            self.no_state = Some(self.parts.state.why_slow());
        }
    }

    /// A tick that waits for nothing but the state does not wait for ever: cron starts the next one soon.
    fn gives_up_at(&mut self) -> Option<Moment> {
        if self.mode != Mode::Tick || !self.parts.fleet.is_quiet() || self.parts.state.is_settled() {
            self.waits_since = None;
            return None;
        }
        let now = self.parts.fleet.now();
        Some(*self.waits_since.get_or_insert(now) + PATIENCE)
    }

    /// Acts on a signal: it stops us, or has the configuration read again.
    pub fn hear(&mut self, signal: i32) {
        match self.mode {
            Mode::Daemon if signal == SIGHUP => self.reload(),
            // It would count as the second signal, which kills at once: nobody who asks for a reload wants that.
            Mode::Stopping(_) if signal == SIGHUP => log::info!("the configuration is not read again: we are told to stop"),
            Mode::Daemon => {
                let (going, jobs) = (self.parts.fleet.runs().len(), self.crew.running());
                let going: Vec<String> = [(going, "run"), (jobs, "job")]
                    .iter()
                    .filter(|(count, _)| *count > 0)
                    .map(|(count, what)| counted(*count, what))
                    .collect();
                let still = if going.is_empty() { "nothing runs".to_owned() } else { format!("{} still", going.join(" and ")) };
                log::warn!("told to stop; {still}");
                self.leave_the_rest();
                let stop_time = self.parts.outside.stop_time();
                self.crew.stop(stop_time, &self.parts.fleet.driver().world);
                if stop_time.is_zero() {
                    self.mode = Mode::Stopping(None);
                    self.parts.fleet.stop(None, signal, &StoppedBy::Daemon);
                } else {
                    self.mode = Mode::Stopping(Some(self.parts.fleet.now() + stop_time));
                }
            }
            Mode::Tick | Mode::Stopping(_) => {
                let by = if self.mode == Mode::Tick { StoppedBy::Signal } else { StoppedBy::Daemon };
                self.leave_the_rest();
                self.mode = Mode::Stopping(None);
                self.parts.fleet.stop(None, signal, &by);
                self.crew.hurry(&self.parts.fleet.driver().world);
            }
        }
        self.untold = true;
    }

    /// Slots that wait for their turn are left to whoever comes next.
    fn leave_the_rest(&mut self) {
        let held = std::mem::take(&mut self.held).into_values().flatten();
        let waiting = std::mem::take(&mut self.backlog).into_values().flatten().chain(held);
        let for_locks = std::mem::take(&mut self.awaiting).into_values().map(|(offer, _)| offer);
        let for_locks = for_locks.inspect(|offer| self.parts.fleet.withdraw(&offer.run));
        let begun = waiting.chain(for_locks).filter(|offer| offer.begun).map(|offer| offer.run.as_str().to_owned()).collect();
        self.parts.state.give_back(begun);
        self.rounds = Rounds::default();
        self.taken.clear();
        self.starting.clear();
        self.kept.clear();
    }

    /// Tells how things stand, once for all that has changed: fifty runs that begin together are one change.
    fn tell(&mut self) {
        if !std::mem::take(&mut self.untold) {
            return;
        }
        let mut unread = None;
        let book = match &self.book {
            Some(book) => book,
            None => unread.insert(self.unread_book()),
        };
        let (fleet, state) = (&self.parts.fleet, &self.parts.state);
        let slots = Waiting { backlog: &self.backlog, rounds: &self.rounds, runs: fleet.runs(), state };
        let view = view((book, self.book.is_none()), fleet, slots, (&self.crew, &self.depths), (&self.trouble, self.mode));
        self.parts.outside.tell(&view);
    }
}

fn view<'v>(
    (book, unread): (&'v Book, bool),
    fleet: &'v Fleet<'_>,
    slots: Waiting<'v>,
    (crew, depths): (&'v Crew, &'v Depths),
    (trouble, mode): (&'v Trouble, Mode),
) -> View<'v> {
    View {
        book,
        unread,
        runs: fleet.runs(),
        waits: fleet.waiting().map(|(run, why)| (run.chain.as_str(), why)).collect(),
        slots,
        refused_config: trouble.refused_config.as_deref(),
        no_clock: trouble.no_clock.as_deref(),
        stopping: matches!(mode, Mode::Stopping(_)),
        crew,
        depths,
    }
}
