//! The lock of the main chain around its runs: asked for before each, looked at after every wait, told what runs, given
//! back when that is gone. A chain without `lock` never comes here.

use std::cell::RefCell;
use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use super::exit::Failure;
use super::lock::{describe, find_passfile, start_guard, unusable};
use crate::chain::Driver;
use crate::chain::ears::readable;
use crate::chain::run::Run;
use crate::chain::setup::Setup;
use crate::clock::{BootTime, Moment, Seconds};
use crate::config::Finding;
use crate::config::Origin;
use crate::environment::variable;
use crate::event::{Event, Reader, RunRef};
use crate::lock::address::{LockSettings, LockTexts};
use crate::lock::guard::Guard;
use crate::lock::owner::TaskGroup;
use crate::lock::{Lock, LockEvent, Refusal, ourselves, start_time};
use crate::names::TaskName;
use crate::notify::systemd::waiting;

/// What the keys of a lock mean together, for these tasks. What is wrong goes to `findings`.
pub fn settings(setup: &Setup, findings: &mut Vec<Finding>) -> Option<LockSettings> {
    let keys = setup.chain.lock.as_ref()?;
    let has_interval = setup.chain.run_interval.or(setup.chain.sleep_interval).is_some();
    if let Some(origin) = keys.release_on_error.as_ref().filter(|_| !has_interval) {
        let message = "release_on_error needs run_interval or sleep_interval: after a failure it waits for twice as long";
        findings.push(Finding::error(origin, message));
    }
    let texts = LockTexts { lock: &keys.lock.0, ttl: Some(&keys.ttl.0), delay: Some(&keys.delay.0), wait: Some(&keys.wait.0) };
    let graces = setup.tasks.iter().map(|task| task.settings.kill_after);
    let kill_after = graces.max().unwrap_or_default().max(setup.chain.task.kill_after);
    let base = keys.lock.1.base().map_or_else(|| std::env::current_dir().unwrap_or_default(), Path::to_owned);
    LockSettings::parse(texts, kill_after, &base)
        .inspect_err(|error| {
            let origin = match error.key {
                "lock_ttl" => &keys.ttl.1,
                "lock_delay" => &keys.delay.1,
                "wait_lock" => &keys.wait.1,
                _ => &keys.lock.1,
            };
            // A default that does not fit is told where the lock stands.
            let origin = if *origin == Origin::Default { &keys.lock.1 } else { origin };
            findings.push(Finding::error(origin, error.to_string()));
        })
        .ok()
}

/// How asking for the lock ended.
pub enum Entry {
    /// It is ours: begin.
    Ours,
    /// It is not to be had.
    Refused(Failure),
    /// We were told to stop meanwhile.
    Signal(i32),
}

/// The lock of a chain. Its readers of events and its loop share it, never at the same moment.
pub struct Guarded {
    hold: RefCell<Hold>,
    keep: bool,
    release_on_error: bool,
    managed: bool,
}

struct Hold {
    lock: Lock,
    guard: Option<Guard>,
    /// Whoever comes after the end of a lease may be elsewhere, and cannot end what runs here.
    needs_guard: bool,
    /// What runs, as it was last written down.
    groups: Vec<TaskGroup>,
}

impl Guarded {
    /// Makes the lock ready; asks for nothing. `managed` is whether a service manager listens.
    ///
    /// # Errors
    /// Its engine cannot be spoken to.
    pub fn open(mut settings: LockSettings, setup: &Setup, managed: bool) -> Result<Self, Failure> {
        find_passfile(&mut settings);
        let lock = Lock::open(&settings, ourselves(false)).map_err(unusable)?;
        let hold = Hold { lock, guard: None, needs_guard: settings.address.is_leased(), groups: Vec::new() };
        let keys = setup.chain.lock.as_ref();
        Ok(Self {
            hold: RefCell::new(hold),
            keep: keys.is_some_and(|keys| keys.keep),
            release_on_error: keys.is_some_and(|keys| keys.release_on_error.is_some()),
            managed,
        })
    }

    /// A reader of events that writes down what is about to start, and starts nothing that is not covered.
    pub fn reader<'a>(&'a self, inner: &'a mut dyn Reader) -> impl Reader + 'a {
        Recording { inner, hold: &self.hold }
    }

    /// Whether a failed run lets the lock go and gives others twice the time.
    pub fn releases_on_error(&self) -> bool {
        self.release_on_error
    }

    /// The token of the run that begins, as its tasks get it.
    pub fn variable(&self) -> Option<CString> {
        let token = self.hold.borrow().lock.token()?.to_string();
        variable(b"RUNNER_LOCK_TOKEN", token.as_bytes())
    }

    /// Waits for the lock, as long as it may, or goes on with the one that was kept.
    pub fn enter(&self, run: &RunRef, driver: &mut Driver<'_>) -> Entry {
        let mut hold = self.hold.borrow_mut();
        hold.look_between_runs(driver);
        if hold.lock.may_start(BootTime::now()) {
            hold.lock.begin_run(run.id.as_str(), BootTime::now());
            hold.tell_guard(true);
            return Entry::Ours;
        }
        if hold.lock.is_held() {
            hold.let_go(driver);
        }
        let time = driver.world.clock.wall().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        hold.lock.contend(run.id.as_str(), &time, BootTime::now());
        loop {
            for event in hold.lock.hear(BootTime::now()) {
                match event {
                    LockEvent::Acquired(token) => {
                        log::debug!("{} is ours, token {token}", hold.lock.shown());
                        hold.begin_guard(driver);
                        return Entry::Ours;
                    }
                    LockEvent::GaveUp(refusal) => return Entry::Refused(hold.refused(&refusal, driver)),
                    LockEvent::Waiting(holder) => {
                        log::info!("{} is held{}", hold.lock.shown(), describe(&holder));
                        waiting(self.managed, &format!("chain {}: waits for its lock", run.chain));
                    }
                    LockEvent::Unreachable(why) => log::warn!("{why}"),
                    LockEvent::Doubt { .. } | LockEvent::Sure | LockEvent::Stop(_) | LockEvent::Kill(_) | LockEvent::GivenBack(_) => {}
                }
            }
            let stops = {
                let fds: Vec<BorrowedFd<'_>> = hold.lock.fds().collect();
                driver.listen(&[], &fds, None).stops
            };
            if let Some(signal) = stops.first() {
                hold.let_go(driver);
                return Entry::Signal(*signal);
            }
        }
    }

    /// Drives one run to its end, or to that of the lock.
    pub fn drive(&self, run: Run, driver: &mut Driver<'_>) -> Run {
        let mut runs = [run];
        loop {
            self.hold.borrow_mut().note(&runs[0]);
            self.hear(&mut runs[0], driver);
            if runs[0].outcome().is_some() {
                break;
            }
            let news = {
                let hold = self.hold.borrow();
                let guard = hold.guard.iter().flat_map(|guard| guard.process().fds());
                let fds: Vec<BorrowedFd<'_>> = hold.lock.fds().chain(guard).collect();
                driver.listen(&runs, &fds, None)
            };
            // The lock first: whoever was frozen must not go on with anything before that is known.
            self.hear(&mut runs[0], driver);
            for signal in &news.stops {
                runs[0].stop(*signal, &mut driver.world);
            }
            driver.advance(&mut runs, &news);
        }
        let [run] = runs;
        run
    }

    fn hear(&self, run: &mut Run, driver: &mut Driver<'_>) {
        let events = self.hold.borrow_mut().lock.hear(BootTime::now());
        for event in events {
            match event {
                LockEvent::Stop(why) => {
                    log::error!("{} is lost, its tasks are ended: {why}", self.hold.borrow().lock.shown());
                    run.lose_lock(false, &mut driver.world);
                }
                LockEvent::Kill(why) => {
                    log::error!("{} is lost, and somebody else may have it; its tasks are killed: {why}", self.hold.borrow().lock.shown());
                    run.lose_lock(true, &mut driver.world);
                }
                LockEvent::Doubt { .. } | LockEvent::Sure => tell_doubt(self.hold.borrow().lock.shown(), &event),
                LockEvent::Acquired(_) | LockEvent::Waiting(_) | LockEvent::Unreachable(_) => {}
                LockEvent::GaveUp(_) | LockEvent::GivenBack(_) => {}
            }
        }
        self.hold.borrow_mut().look_after_guard(driver);
    }

    /// What is done with the lock between two runs: kept where it is to be, else given back.
    pub fn after_run(&self, failed: bool, driver: &mut Driver<'_>) {
        let mut hold = self.hold.borrow_mut();
        if !self.keep || (failed && self.release_on_error) || !hold.lock.may_start(BootTime::now()) {
            hold.let_go(driver);
        }
    }

    /// Gives the lock back, if it is still ours.
    pub fn leave(&self, driver: &mut Driver<'_>) {
        let mut hold = self.hold.borrow_mut();
        if hold.lock.is_held() {
            hold.let_go(driver);
        }
    }

    /// Sleeps between two runs and looks after the lock if it is kept. A signal that came.
    pub fn sleep_until(&self, at: Moment, driver: &mut Driver<'_>) -> Option<i32> {
        while driver.world.clock.now() < at {
            let stops = {
                let hold = self.hold.borrow();
                let guard = hold.guard.iter().flat_map(|guard| guard.process().fds());
                let fds: Vec<BorrowedFd<'_>> = hold.lock.fds().chain(guard).collect();
                driver.listen(&[], &fds, Some(at)).stops
            };
            self.hold.borrow_mut().look_between_runs(driver);
            if let Some(signal) = stops.first() {
                return Some(*signal);
            }
        }
        None
    }
}

impl Hold {
    fn begin_guard(&mut self, driver: &Driver<'_>) {
        self.groups.clear();
        if self.needs_guard {
            self.guard = start_guard(driver.world.family, self.lock.kill_after());
            self.tell_guard(true);
        }
    }

    fn refused(&mut self, refusal: &Refusal, driver: &mut Driver<'_>) -> Failure {
        match refusal {
            Refusal::Held(holder) => {
                self.await_given_back(driver);
                Failure::Refused(format!("{} is held{}", self.lock.shown(), describe(holder)))
            }
            Refusal::Unreachable(why) => Failure::State(why.clone()),
        }
    }

    /// A task is about to start: it is known by its marks, and by its group a moment later.
    fn starting(&mut self, task: &TaskName, try_num: u32) {
        self.groups.push(TaskGroup { pid: 0, start_time: 0, task: task.text().to_owned(), try_num });
        self.lock.record(self.groups.clone(), BootTime::now());
        self.tell_guard(true);
    }

    /// Writes down what runs now, if that is news.
    fn note(&mut self, run: &Run) {
        let old = std::mem::take(&mut self.groups);
        let known = |pid: i32, task: &TaskName, try_num: u32| {
            old.iter().find(|group| group.pid == pid && group.task == task.text() && group.try_num == try_num).cloned()
        };
        let group = |(pid, task, try_num): (i32, &TaskName, u32)| {
            let new = || TaskGroup { pid, start_time: start_time(pid), task: task.text().to_owned(), try_num };
            known(pid, task, try_num).unwrap_or_else(new)
        };
        self.groups = run.processes().map(group).collect();
        if self.groups != old {
            self.lock.record(self.groups.clone(), BootTime::now());
            self.tell_guard(true);
        }
    }

    fn tell_guard(&mut self, with_owner: bool) {
        let Some(guard) = &mut self.guard else { return };
        guard.tell_until(self.lock.trusted_until());
        if with_owner {
            guard.tell_owner(self.lock.owner());
        }
    }

    /// A guard that has done its work, or was killed, is buried at once: a dead child of ours hides others behind it.
    fn look_after_guard(&mut self, driver: &Driver<'_>) {
        self.tell_guard(false);
        let (family, now) = (driver.world.family, driver.world.clock.now());
        self.guard.take_if(|guard| guard.is_gone(family, now));
    }

    /// Hears what becomes of a lock that is kept while nothing runs under it. One that is lost is asked for again.
    fn look_between_runs(&mut self, driver: &mut Driver<'_>) {
        for event in self.lock.hear(BootTime::now()) {
            match event {
                LockEvent::Stop(why) | LockEvent::Kill(why) => {
                    log::warn!("{} is lost between two runs: {why}", self.lock.shown());
                    self.let_go(driver);
                }
                LockEvent::Doubt { .. } | LockEvent::Sure => tell_doubt(self.lock.shown(), &event),
                LockEvent::Acquired(_) | LockEvent::Waiting(_) | LockEvent::Unreachable(_) => {}
                LockEvent::GaveUp(_) | LockEvent::GivenBack(_) => {}
            }
        }
        self.look_after_guard(driver);
    }

    /// Gives it back; what ran under it is gone.
    fn let_go(&mut self, driver: &mut Driver<'_>) {
        self.groups.clear();
        self.dismiss_guard(driver);
        self.lock.let_go(BootTime::now());
        self.await_given_back(driver);
    }

    fn dismiss_guard(&mut self, driver: &mut Driver<'_>) {
        let Some(mut guard) = self.guard.take() else { return };
        let (family, clock) = (driver.world.family, driver.world.clock);
        guard.dismiss(family, clock.now());
        let mut stops = Vec::new();
        while !guard.is_gone(family, clock.now()) {
            let fds = guard.process().fds().map(readable).collect();
            stops.extend(driver.ears.listen(fds, guard.process().wake_at(), family, clock).stops);
        }
        driver.ears.keep(&stops);
    }

    fn await_given_back(&mut self, driver: &mut Driver<'_>) {
        let (family, clock) = (driver.world.family, driver.world.clock);
        let until = clock.now() + self.lock.give_back_limit();
        let mut stops = Vec::new();
        loop {
            let events = self.lock.hear(BootTime::now());
            let given = events.into_iter().find_map(|event| if let LockEvent::GivenBack(result) = event { Some(result) } else { None });
            if let Some(result) = given {
                if let Some(why) = result {
                    log::warn!("{} could not be given back and ends by itself: {why}", self.lock.shown());
                }
                break;
            }
            if clock.now() >= until {
                log::warn!("{} gave no answer when it was given back; it ends by itself", self.lock.shown());
                break;
            }
            let fds = self.lock.fds().map(readable).collect();
            stops.extend(driver.ears.listen(fds, Some(until), family, clock).stops);
        }
        driver.ears.keep(&stops);
    }
}

fn tell_doubt(shown: &str, event: &LockEvent) {
    match event {
        LockEvent::Doubt { why, stop_in } => {
            log::warn!("{shown} is in doubt, and lost in {} if it stays so: {why}", Seconds(*stop_in));
        }
        LockEvent::Sure => log::info!("{shown} is ours beyond doubt again"),
        LockEvent::Acquired(_) | LockEvent::Waiting(_) | LockEvent::Unreachable(_) | LockEvent::GaveUp(_) => {}
        LockEvent::Stop(_) | LockEvent::Kill(_) | LockEvent::GivenBack(_) => {}
    }
}

/// Stands before the readers of events.
struct Recording<'a> {
    inner: &'a mut dyn Reader,
    hold: &'a RefCell<Hold>,
}

impl Reader for Recording<'_> {
    fn tell(&mut self, run: &RunRef, event: &Event<'_>) {
        if let Event::TaskStarted { task, try_num, .. } = event {
            self.hold.borrow_mut().starting(task, *try_num);
        }
        self.inner.tell(run, event);
    }

    fn wake_in(&self) -> Option<Duration> {
        self.inner.wake_in()
    }

    fn wake(&mut self) {
        self.inner.wake();
    }

    fn describe(&self, run: &RunRef) -> Option<Vec<u8>> {
        self.inner.describe(run)
    }

    fn may_start(&self) -> bool {
        self.hold.borrow().lock.may_start(BootTime::now())
    }
}
