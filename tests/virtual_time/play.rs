//! A daemon in this process, whose clock stands still until a test moves it: real runs, a real database, a wall clock and an
//! alarm that are played. A test moves the clock, and waits for what is under way; never for time.

use std::cell::{Cell, RefCell};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use runner::alarm::Alarm;
use runner::chain::ears::Ears;
use runner::chain::fleet::{Fleet, Opened, Ready};
use runner::chain::setup::Setup;
use runner::chain::{Driver, World};
use runner::clock::{Clock, Moment};
use runner::config::database::DatabaseUrl;
use runner::config::database::Secrets;
use runner::config::queues::{self, QueueSettings};
use runner::config::{Config, chains, load};
use runner::daemon::book::{Booked, read_schedules};
use runner::daemon::{Daemon, Ended, Outbox, Outside, Parts, Refused, State, TickAnswer, View};
use runner::environment::Environment;
use runner::event::{Event, Reader, RunRef};
use runner::hook::HookRun;
use runner::mark::{self, Mark, Room};
use runner::names::{RunId, RunIds};
use runner::notify::systemd::Watchdog;
use runner::process::Family;
use runner::process::signal::Signals;
use runner::process::unix::WaitMethod;
use runner::store::engine::{Engine, Work};
use runner::store::job::JobRecord;
use runner::store::open::Place;
use runner::store::record::{Facts, Recorder, RunRecord};
use runner::store::sqlite::Sqlite;
use runner::store::wake;
use runner::store::{HistoryQuery, Owner, Retention, Store, StoreError};
use runner::worker::{self, Orders, Tasks};

/// One after the other: signal handlers and children belong to the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
/// Run ids of two daemons are never the same.
static SEED: AtomicU64 = AtomicU64::new(1);
/// Only in order to fail.
const DEADLINE: Duration = Duration::from_secs(60);
const BUILT: &str = "2026-01-01T00:00:00Z";
pub(crate) const HOUR: SignedDuration = SignedDuration::from_hours(1);
pub(crate) const MINUTE: SignedDuration = SignedDuration::from_mins(1);

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The clocks of one machine.
#[derive(Clone)]
struct ManualClock {
    wall: Rc<Cell<Timestamp>>,
    since_zero: Rc<Cell<Duration>>,
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        Moment::at(self.since_zero.get())
    }

    fn wall(&self) -> Timestamp {
        self.wall.get()
    }
}

/// An alarm that a test rings.
#[derive(Clone)]
struct PlayedAlarm {
    bell: Rc<OwnedFd>,
    armed: Rc<Cell<Option<Timestamp>>>,
    wall: Rc<Cell<Timestamp>>,
}

impl PlayedAlarm {
    fn ring(&self) {
        rustix::io::write(&*self.bell, &1_u64.to_ne_bytes()).unwrap();
    }
}

impl Alarm for PlayedAlarm {
    fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    fn arm(&mut self, at: Option<Timestamp>) {
        self.armed.set(at);
        // As the kernel's does.
        if at.is_some_and(|at| at <= self.wall.get()) {
            self.ring();
        }
    }

    fn silence(&mut self) {
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
    }
}

/// A database that a test can take away, or keep waiting.
struct Switch {
    inner: Sqlite,
    away: Arc<AtomicBool>,
    pace: Arc<Pace>,
}

/// How fast the database is.
#[derive(Default)]
pub(crate) struct Pace {
    /// Whoever holds it keeps everything that is to be written waiting.
    pub(crate) turn: Mutex<()>,
    /// What was written, in its order: what for.
    pub(crate) written: Mutex<Vec<&'static str>>,
}

fn away() -> StoreError {
    StoreError::Away { database: "played".into(), doing: "reach it", why: "the test took it away".into() }
}

impl Engine for Switch {
    fn shown(&self) -> &str {
        self.inner.shown()
    }

    fn write(&mut self, doing: &'static str, work: Work<'_>) -> Result<(), StoreError> {
        let _turn = self.pace.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.away.load(Ordering::SeqCst) {
            return Err(away());
        }
        self.pace.written.lock().unwrap().push(doing);
        Engine::write(&mut self.inner, doing, work)
    }

    fn read(&mut self, doing: &'static str, work: Work<'_>) -> Result<(), StoreError> {
        if self.away.load(Ordering::SeqCst) { Err(away()) } else { Engine::read(&mut self.inner, doing, work) }
    }
}

/// What the rest of the program does for the daemon.
struct Played {
    config: Config,
    stage: Stage,
}

/// What a test sees and sets of a daemon.
#[derive(Clone)]
struct Stage {
    dir: PathBuf,
    changed: Rc<Cell<bool>>,
    refused: Rc<RefCell<Vec<String>>>,
    marks: bool,
    away: Arc<AtomicBool>,
    pace: Arc<Pace>,
    bells: bool,
}

impl Stage {
    fn opener(&self) -> impl FnMut() -> Result<Box<dyn Store>, StoreError> + Send + 'static {
        let (path, gone, pace) = (self.dir.join("runner.db"), self.away.clone(), self.pace.clone());
        move || {
            if gone.load(Ordering::SeqCst) {
                return Err(away());
            }
            Ok(Box::new(Switch { inner: Sqlite::open(&path)?, away: gone.clone(), pace: pace.clone() }) as Box<dyn Store>)
        }
    }
}

fn read_config(dir: &Path) -> Result<(Config, Vec<Booked>), String> {
    let mut findings = Vec::new();
    let config = load::load(Some(&dir.join("runner.cfg")), &[], &mut findings).map_err(|error| error.to_string())?;
    let chains = read_schedules(chains::read_all(&config, &mut findings), &TimeZone::UTC, &mut findings);
    match findings.iter().find(|finding| finding.severity == runner::config::Severity::Error) {
        Some(error) => Err(error.to_string()),
        None => Ok((config, chains)),
    }
}

impl Outside for Played {
    fn prepare(&mut self, chain: &Booked) -> Result<Ready, String> {
        let dir = self.stage.dir.join(chain.name());
        let setup = Setup::new(&self.config, chain.named.chain.clone(), &dir, &environment(&self.stage.dir), &mut Vec::new());
        setup
            .map(|setup| Ready { setup: Rc::new(setup), variables: Vec::new(), lock: None, opened: Opened::default() })
            .ok_or_else(|| "it has no directory".to_owned())
    }

    fn refused(&mut self, chain: &Booked, _: &RunRef, why: Refused<'_>, _: &mut Driver<'_>) -> Option<HookRun> {
        let Refused { reason, message } = why;
        self.stage.refused.borrow_mut().push(format!("{} {reason}: {message}", chain.name()));
        None
    }

    fn mark(&mut self, chain: &str, run: &RunId, place: Option<mark::Place>) -> Result<Mark, String> {
        let room = self.stage.marks.then(|| Room::new(&self.stage.dir, None));
        mark::take_at(place, room.as_ref(), chain, run, None).map(|(mark, _)| mark)
    }

    fn has_changed(&mut self) -> bool {
        self.stage.changed.replace(false)
    }

    fn reload(&mut self) -> Result<Vec<Booked>, String> {
        let (config, chains) = read_config(&self.stage.dir)?;
        self.config = config;
        Ok(chains)
    }

    fn ears(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn asked(&mut self, _: &View<'_>) -> Vec<TickAnswer> {
        Vec::new()
    }

    fn stop_time(&self) -> Duration {
        Duration::ZERO
    }

    fn tell(&mut self, _: &View<'_>) {}

    fn orders(&mut self) -> Option<Orders> {
        let queues = queues::of_daemon(&self.config, &mut Vec::new());
        let tasks = PlayedTasks { config: self.config.clone(), dir: self.stage.dir.clone() };
        Some(Orders { queues, tasks: Box::new(tasks), telling: None })
    }

    fn jobs(&mut self, queues: &[QueueSettings]) -> Result<worker::State, String> {
        worker::State::new(self.stage.opener(), Owner::look(), queues).map_err(|error| error.to_string())
    }

    fn bell(&mut self) -> Option<wake::Alarm> {
        let database = DatabaseUrl::Sqlite(self.stage.dir.join("runner.db"));
        let keep = Retention { runs: 1, age: Duration::ZERO };
        let place = Place { state_dir: None, database: Some(database), config_file: None, keep, secrets: Secrets::default() };
        self.stage.bells.then(|| wake::Alarm::new(&place).unwrap())
    }
}

fn environment(dir: &Path) -> Environment {
    Environment::new([("PATH".into(), "/usr/bin:/bin".into()), ("SCENE".into(), dir.into())])
}

/// The one task of a queue.
struct PlayedTasks {
    config: Config,
    dir: PathBuf,
}

impl Tasks for PlayedTasks {
    fn prepare(&mut self, queue: &QueueSettings, _: &str, _: &[String]) -> Result<(Setup, Vec<std::ffi::CString>), String> {
        let dir = self.dir.join(&queue.name);
        let setup = Setup::new(&self.config, queue.chain.clone(), &dir, &environment(&self.dir), &mut Vec::new());
        setup.map(|setup| (setup, Vec::new())).ok_or_else(|| "it has no directory".to_owned())
    }
}

/// Hears of the runs.
struct Listener {
    fired: Rc<RefCell<Vec<String>>>,
    recorder: Recorder,
}

impl Reader for Listener {
    fn tell(&mut self, run: &RunRef, event: &Event<'_>) {
        if let Event::RunStarted { .. } = event {
            let slot = run.trigger.scheduled_text().unwrap_or_else(|| "-".to_owned());
            self.fired.borrow_mut().push(format!("{} {} {slot}", run.chain, run.trigger.kind.word()));
        }
        self.recorder.tell(run, event);
    }
}

/// A machine: a directory, a database, a clock.
pub(crate) struct Machine {
    _turn: MutexGuard<'static, ()>,
    _alive: mpsc::Sender<()>,
    dir: tempfile::TempDir,
    clock: ManualClock,
    pub(crate) away: Arc<AtomicBool>,
    pub(crate) pace: Arc<Pace>,
    /// Whether its workers show that they live.
    pub(crate) bells: bool,
    boot: &'static str,
}

impl Machine {
    /// A machine whose clock shows this, with this configuration.
    pub(crate) fn new(now: &str, config: &str) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let (alive, watched) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if watched.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("a test waits for what does not come");
                std::process::abort();
            }
        });
        let clock = ManualClock { wall: Rc::new(Cell::new(at(now))), since_zero: Rc::new(Cell::new(Duration::from_secs(1000))) };
        let dir = tempfile::tempdir().unwrap();
        let machine =
            Self { _turn: turn, _alive: alive, dir, clock, away: Arc::default(), pace: Arc::default(), bells: false, boot: "this boot" };
        machine.configure(config);
        machine
    }

    /// Writes the configuration: chains and their directories.
    pub(crate) fn configure(&self, config: &str) {
        let mut text = String::new();
        for line in config.lines().map(str::trim) {
            text.push_str(&format!("{line}\n"));
            if let Some(name) = line.strip_prefix("[queue:").and_then(|rest| rest.strip_suffix(']')) {
                fs::create_dir_all(self.dir.path().join(name)).unwrap();
                text.push_str(&format!("task_dir = {name}\n"));
            }
            if let Some(name) = line.strip_prefix("[chain:").and_then(|rest| rest.strip_suffix(']')) {
                fs::create_dir_all(self.dir.path().join(name)).unwrap();
                text.push_str(&format!("task_dir = {name}\ntimezone = UTC\n"));
            }
        }
        fs::write(self.dir.path().join("runner.cfg"), text).unwrap();
    }

    /// A task of a chain, in the words of a shell.
    pub(crate) fn task(self, chain: &str, text: &str) -> Self {
        let path = self.path(chain).join("1-task.sh");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.wall.get()
    }

    /// Sets the clock while no daemon runs.
    pub(crate) fn set(&self, now: &str) {
        self.clock.wall.set(at(now));
    }

    fn owner(&self, lives: bool) -> Owner {
        let here = Owner::look();
        Owner { machine: "machine".into(), start_time: here.start_time + u64::from(!lives), ..here }
    }

    pub(crate) fn store(&self) -> Sqlite {
        Sqlite::open(&self.path("runner.db")).unwrap()
    }

    /// What is remembered of a chain's runs, the oldest first: slot and outcome.
    pub(crate) fn history(&self, chain: &str) -> Vec<(Timestamp, String)> {
        let query = HistoryQuery { chain: Some(chain.into()), failed: false, limit: 1000 };
        let mut runs: Vec<RunRecord> = self.store().runs(&query).unwrap();
        runs.sort_by_key(|run| run.scheduled_at);
        let slot = |run: RunRecord| (run.scheduled_at.unwrap_or(run.began), run.outcome.unwrap_or_else(|| "runs".to_owned()));
        runs.into_iter().map(slot).collect()
    }

    /// A daemon that is ready.
    pub(crate) fn daemon(&self) -> Play<'_> {
        let mut play = self.daemon_of(true);
        play.settle();
        play
    }

    /// A daemon of a process that others will find gone, when it is dropped without a word.
    pub(crate) fn doomed_daemon(&self) -> Play<'_> {
        let mut play = self.daemon_of(false);
        play.settle();
        play
    }

    /// A daemon that has only asked for its state.
    pub(crate) fn daemon_of(&self, lives: bool) -> Play<'_> {
        Play::new(self, lives)
    }
}

/// Lives as long as the test program: there are few, and they borrow from each other.
fn keep<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

/// A daemon on a machine.
pub(crate) struct Play<'a> {
    machine: &'a Machine,
    daemon: Daemon<'static>,
    alarm: PlayedAlarm,
    stage: Stage,
    fired: Rc<RefCell<Vec<String>>>,
    pub(crate) wakes: usize,
    pub(crate) ended: Option<Ended>,
}

impl<'a> Play<'a> {
    fn new(machine: &'a Machine, lives: bool) -> Self {
        let clock = machine.clock.clone();
        let bell = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK | rustix::event::EventfdFlags::CLOEXEC).unwrap();
        let alarm = PlayedAlarm { bell: Rc::new(bell), armed: Rc::default(), wall: clock.wall.clone() };
        let (dir, away, pace) = (machine.dir.path().to_owned(), machine.away.clone(), machine.pace.clone());
        let stage = Stage { dir, changed: Rc::default(), refused: Rc::default(), marks: true, away, pace, bells: machine.bells };
        let (config, chains) = read_config(&stage.dir).unwrap();
        let owner = Owner { boot_id: machine.owner(true).boot_id, ..machine.owner(lives) };
        let outbox = Outbox::default();
        let facts = Facts { owner: owner.clone(), exit_code: |_| 0 };
        let fired = Rc::new(RefCell::new(Vec::new()));
        let listener = Listener { fired: fired.clone(), recorder: Recorder::new(facts, Box::new(clock.clone()), Box::new(outbox.clone())) };
        let seed = SEED.fetch_add(1, Ordering::SeqCst);
        let ears = Ears::new(Signals::install().unwrap(), Watchdog::new(false, clock.now()));
        let world = World {
            family: keep(Family::new(WaitMethod::detect())),
            clock: keep(clock),
            reader: keep(listener),
            rng: keep(SmallRng::seed_from_u64(seed)),
        };
        let keep_runs = Retention { runs: 10_000, age: Duration::from_secs(86_400 * 365) };
        let state = State::new(stage.opener(), owner, keep_runs, outbox).unwrap().with_marks(Some(Room::new(machine.dir.path(), None)));
        let parts = Parts {
            fleet: Fleet::new(Driver { ears: keep(ears), world }),
            ids: keep(RunIds::new(machine.boot.to_owned(), seed)),
            state,
            alarm: keep(alarm.clone()),
            outside: keep(Played { config, stage: stage.clone() }),
            built: at(BUILT),
        };
        let mut daemon = Daemon::new(parts, chains);
        daemon.load();
        Self { machine, daemon, alarm, stage, fired, wakes: 0, ended: None }
    }

    /// One turn of the loop, which has something to hear.
    pub(crate) fn turn(&mut self) {
        assert!(self.ended.is_none(), "it has ended");
        self.ended = self.daemon.turn();
    }

    /// Waits for all that is under way.
    pub(crate) fn settle(&mut self) {
        self.until(|play| play.daemon.is_settled());
    }

    /// Waits for a fact, while things are under way.
    pub(crate) fn until(&mut self, fact: impl Fn(&Self) -> bool) {
        while self.ended.is_none() && !fact(self) {
            self.turn();
        }
    }

    /// The alarm rings now: the daemon looks at its clocks.
    pub(crate) fn wake(&mut self) {
        self.wakes += 1;
        self.alarm.ring();
        self.turn();
        // What was heard is acted on in the next turn; one more bell lets it pass without anything else to hear.
        self.alarm.ring();
        self.turn();
    }

    /// Somebody sets the clock, or the machine slept: the wall clock jumps, the other one stands.
    pub(crate) fn jump(&mut self, by: SignedDuration) {
        self.machine.clock.wall.set(self.machine.now() + by);
        self.wake();
        self.settle();
    }

    /// Time passes, and with it the deadlines of runs, but nobody acts on it yet.
    pub(crate) fn pass(&mut self, by: SignedDuration) {
        self.machine.clock.wall.set(self.machine.now() + by);
        let since_zero = self.machine.clock.since_zero.get() + by.unsigned_abs();
        self.machine.clock.since_zero.set(since_zero);
    }

    /// Time passes until then: the daemon is woken when its alarm says so and at no other time.
    pub(crate) fn run_until(&mut self, end: &str) {
        let end = at(end);
        self.settle();
        while let Some(next) = self.alarm.armed.get().filter(|next| *next <= end) {
            assert!(next > self.machine.now(), "the alarm is set to a time that has passed: it would ring for ever");
            self.pass(next.duration_since(self.machine.now()));
            self.wake();
            self.settle();
        }
        self.pass(end.duration_since(self.machine.now()));
    }

    /// When it wants to be woken.
    pub(crate) fn armed(&self) -> Option<Timestamp> {
        self.alarm.armed.get()
    }

    /// The runs that began since the last call: chain, trigger, slot.
    pub(crate) fn fired(&mut self) -> Vec<String> {
        self.fired.take()
    }

    /// How many have begun since the last call of [`Play::fired`].
    pub(crate) fn count(&self) -> usize {
        self.fired.borrow().len()
    }

    /// The slots that were given up and told to the hook, since the last call.
    pub(crate) fn refused(&mut self) -> Vec<String> {
        self.stage.refused.take()
    }

    /// A signal arrives.
    pub(crate) fn signal(&mut self, signal: i32) {
        self.daemon.hear(signal);
    }

    /// The files look different when a slot is due.
    pub(crate) fn files_changed(&self) {
        self.stage.changed.set(true);
    }

    /// It is told to stop, and ends.
    pub(crate) fn stop(mut self) {
        self.signal(15);
        self.until(|_| false);
        self.daemon.settle(Duration::from_secs(20));
    }
}

impl Play<'_> {
    /// Somebody outside asks for a tick: how many runs the answer names.
    pub(crate) fn ask_for_a_tick(&mut self) -> usize {
        let answered = Rc::new(Cell::new(None));
        let answer = answered.clone();
        self.daemon.tick_now(Box::new(move |runs| answer.set(Some(runs.map_or(0, <[_]>::len)))));
        self.until(|_| answered.get().is_some());
        answered.get().unwrap()
    }

    /// Whether a run goes on.
    pub(crate) fn is_running(&self) -> bool {
        !self.daemon.is_quiet()
    }

    /// Makes it a tick, before its state is known.
    pub(crate) fn begin_tick(&mut self) {
        self.daemon.become_tick();
    }

    /// How many runs it holds something of.
    pub(crate) fn remembered(&self) -> usize {
        self.daemon.remembered()
    }

    /// Waits until the slots that were asked for have their answer.
    pub(crate) fn until_claimed(&mut self) {
        self.until(|play| !play.daemon.is_claiming());
    }

    /// Goes on until so many slots were asked for and are claimed, and hears none of the answers, unless they come within a moment.
    pub(crate) fn until_claimed_unheard(&mut self, slots: usize) {
        while !self.machine.store_has_slots(slots) {
            if !self.daemon.is_claiming() {
                self.alarm.ring();
                self.turn();
            }
        }
    }

    /// Asks for what is due, and is told to stop before the answer is heard.
    pub(crate) fn ask_and_stop(mut self) {
        self.alarm.ring();
        self.turn();
        self.stop();
    }

    /// Waits for a file that a task makes.
    pub(crate) fn wait_for_file(&mut self, name: &str) {
        let path = self.machine.path(name);
        while !path.exists() {
            std::thread::yield_now();
        }
    }
}

impl Machine {
    /// A job of the queue `q`.
    pub(crate) fn job(&self) -> JobRecord {
        self.store().job(1).unwrap().unwrap()
    }

    /// Whether so many slots were claimed.
    pub(crate) fn store_has_slots(&self, count: usize) -> bool {
        let here = Owner::look();
        let waiting = self.store().waiting_slots(&here.host).unwrap().len();
        waiting + self.history("a").len() >= count
    }
}
