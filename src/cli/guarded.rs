//! The lock of the main chain around its runs: asked for before each, looked at after every wait, told what runs, given
//! back when that is gone. A chain without `lock` never comes here.

use std::cell::RefCell;
use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use super::exit::Failure;
use super::lock::{find_passfile, unusable};
use crate::chain::Driver;
use crate::chain::ears::readable;
use crate::chain::hold::{Hold, LockPlan, Recording, tell_doubt, tell_given_back};
use crate::chain::run::Run;
use crate::chain::setup::Setup;
use crate::clock::Moment;
use crate::config::sections::Sections;
use crate::config::settings::LockKeys;
use crate::config::{Config, Finding, Origin, keys};
use crate::event::{Reader, RunRef, StoppedBy};
use crate::lock::address::{LockSettings, LockTexts, SettingError};
use crate::lock::{LockEvent, Refusal};
use crate::names::MAIN_CHAIN;
use crate::notify::systemd::waiting;

/// What the keys of a lock mean together, for these tasks. What is wrong goes to `findings`.
pub fn plan(config: &Config, setup: &Setup, findings: &mut Vec<Finding>) -> Option<LockPlan> {
    let keys = setup.chain.lock.as_ref()?;
    let has_interval = setup.chain.run_interval.or(setup.chain.sleep_interval).is_some();
    // A chain with a name has a schedule instead: `chains` has looked at that.
    if let Some(origin) = keys.release_on_error.as_ref().filter(|_| !has_interval && setup.chain.name == MAIN_CHAIN) {
        let message = "release_on_error needs run_interval or sleep_interval: after a failure it waits for twice as long";
        findings.push(Finding::error(origin, message));
    }
    let graces = setup.tasks.iter().map(|task| task.settings.kill_after);
    let kill_after = graces.max().unwrap_or_default().max(setup.chain.task.kill_after);
    let settings = read(keys, kill_after).inspect_err(|error| {
        let (origin, key) = match error.key {
            "lock_ttl" => (&keys.ttl.1, &keys::LOCK_TTL.info),
            "lock_delay" => (&keys.delay.1, &keys::LOCK_DELAY.info),
            "wait_lock" => (&keys.wait.1, &keys::WAIT_LOCK.info),
            _ => (&keys.lock.1, &keys::LOCK.info),
        };
        // A default that does not fit is told where the lock stands.
        let origin = if *origin == Origin::Default { &keys.lock.1 } else { origin };
        let name = Sections::for_chain(config, &setup.chain.name).of_chain().naming(key);
        findings.push(Finding::error(origin, format!("{name} = {}: {}", error.value, error.expected)));
    });
    Some(LockPlan { settings: settings.ok()?, keep: keys.keep, release_on_error: keys.release_on_error.is_some() })
}

/// What the four keys that have a text mean, where what runs is given `kill_after` to end.
///
/// # Errors
/// The key that is wrong, and what was expected.
pub fn read(keys: &LockKeys, kill_after: Duration) -> Result<LockSettings, SettingError> {
    let texts = LockTexts { lock: &keys.lock.0, ttl: Some(&keys.ttl.0), delay: Some(&keys.delay.0), wait: Some(&keys.wait.0) };
    let base = keys.lock.1.base().map_or_else(|| std::env::current_dir().unwrap_or_default(), Path::to_owned);
    let mut settings = LockSettings::parse(texts, kill_after, &base)?;
    find_passfile(&mut settings);
    Ok(settings)
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

impl Guarded {
    /// Makes the lock ready; asks for nothing. `managed` is whether a service manager listens.
    ///
    /// # Errors
    /// Its engine cannot be spoken to.
    pub fn open(plan: &LockPlan, managed: bool) -> Result<Self, Failure> {
        let hold = RefCell::new(Hold::open(&plan.settings).map_err(unusable)?);
        Ok(Self { hold, keep: plan.keep, release_on_error: plan.release_on_error, managed })
    }

    /// A reader of events that writes down what is about to start, and starts nothing that is not covered.
    pub fn reader<'a>(&'a self, inner: &'a mut dyn Reader) -> impl Reader + 'a {
        Recording::new(inner, &self.hold)
    }

    /// Whether a failed run lets the lock go and gives others twice the time.
    pub fn releases_on_error(&self) -> bool {
        self.release_on_error
    }

    /// The token of the run that begins, as its tasks get it.
    pub fn variable(&self) -> Option<CString> {
        self.hold.borrow().variable()
    }

    /// Waits for the lock, as long as it may, or goes on with the one that was kept.
    pub fn enter(&self, run: &RunRef, driver: &mut Driver<'_>) -> Entry {
        let mut hold = self.hold.borrow_mut();
        look_between_runs(&mut hold, driver);
        if hold.resume(run) {
            return Entry::Ours;
        }
        if hold.lock().is_held() {
            let_go(&mut hold, driver);
        }
        hold.contend(run);
        loop {
            for event in hold.hear() {
                match event {
                    LockEvent::Acquired(token) => {
                        log::debug!("{} is ours, token {token}", hold.lock().shown());
                        hold.entered(driver.world.family);
                        return Entry::Ours;
                    }
                    LockEvent::GaveUp(refusal) => return Entry::Refused(refused(&mut hold, refusal, driver)),
                    LockEvent::Waiting(holder) => {
                        log::info!("{} is held{}", hold.lock().shown(), holder.by());
                        waiting(self.managed, &format!("chain {}: waits for its lock", run.chain));
                    }
                    LockEvent::Unreachable(why) => log::warn!("{why}"),
                    LockEvent::Doubt { .. } | LockEvent::Sure | LockEvent::Stop(_) | LockEvent::Kill(_) | LockEvent::GivenBack(_) => {}
                }
            }
            let stops = {
                let fds: Vec<BorrowedFd<'_>> = hold.fds().collect();
                driver.listen(&[], &fds, None).stops
            };
            if let Some(signal) = stops.first() {
                let_go(&mut hold, driver);
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
                let fds: Vec<BorrowedFd<'_>> = hold.fds().collect();
                driver.listen(&runs, &fds, None)
            };
            self.hold.borrow_mut().look(&runs[0], &news);
            // The lock first: whoever was frozen must not go on with anything before that is known.
            self.hear(&mut runs[0], driver);
            for signal in &news.stops {
                runs[0].stop(*signal, &StoppedBy::Signal, &mut driver.world);
            }
            driver.advance(&mut runs, &news);
        }
        let [run] = runs;
        run
    }

    fn hear(&self, run: &mut Run, driver: &mut Driver<'_>) {
        let (events, shown) = {
            let mut hold = self.hold.borrow_mut();
            (hold.hear(), hold.lock().shown().to_owned())
        };
        for event in events {
            Hold::obey(&shown, event, run, &mut driver.world);
        }
        self.hold.borrow_mut().look_after_guard(driver.world.family, driver.world.clock.now());
    }

    /// What is done with the lock between two runs: kept where it is to be, else given back.
    pub fn after_run(&self, failed: bool, driver: &mut Driver<'_>) {
        let mut hold = self.hold.borrow_mut();
        if !self.keep || (failed && self.release_on_error) || !hold.may_start() {
            let_go(&mut hold, driver);
        }
    }

    /// Gives the lock back, if it is still ours.
    pub fn leave(&self, driver: &mut Driver<'_>) {
        let mut hold = self.hold.borrow_mut();
        if hold.lock().is_held() {
            let_go(&mut hold, driver);
        }
    }

    /// Sleeps between two runs and looks after the lock if it is kept. A signal that came.
    pub fn sleep_until(&self, at: Moment, driver: &mut Driver<'_>) -> Option<i32> {
        while driver.world.clock.now() < at {
            let stops = {
                let hold = self.hold.borrow();
                let fds: Vec<BorrowedFd<'_>> = hold.fds().collect();
                driver.listen(&[], &fds, Some(at)).stops
            };
            look_between_runs(&mut self.hold.borrow_mut(), driver);
            if let Some(signal) = stops.first() {
                return Some(*signal);
            }
        }
        None
    }
}

fn refused(hold: &mut Hold, refusal: Refusal, driver: &mut Driver<'_>) -> Failure {
    match refusal {
        Refusal::Held(holder) => {
            await_given_back(hold, driver);
            Failure::Refused(format!("{} is held{}", hold.lock().shown(), holder.by()))
        }
        Refusal::Unreachable(why) => Failure::State(why),
    }
}

/// Hears what becomes of a lock that is kept while nothing runs under it. One that is lost is asked for again.
fn look_between_runs(hold: &mut Hold, driver: &mut Driver<'_>) {
    for event in hold.hear() {
        match event {
            LockEvent::Stop(why) | LockEvent::Kill(why) => {
                log::warn!("{} is lost between two runs: {why}", hold.lock().shown());
                let_go(hold, driver);
            }
            LockEvent::Doubt { .. } | LockEvent::Sure => tell_doubt(hold.lock().shown(), &event),
            LockEvent::Acquired(_) | LockEvent::Waiting(_) | LockEvent::Unreachable(_) => {}
            LockEvent::GaveUp(_) | LockEvent::GivenBack(_) => {}
        }
    }
    hold.look_after_guard(driver.world.family, driver.world.clock.now());
}

/// Gives it back; what ran under it is gone.
fn let_go(hold: &mut Hold, driver: &mut Driver<'_>) {
    hold.let_go(driver.world.family, driver.world.clock.now());
    await_given_back(hold, driver);
}

fn await_given_back(hold: &mut Hold, driver: &mut Driver<'_>) {
    let (family, clock) = (driver.world.family, driver.world.clock);
    let until = clock.now() + hold.lock().give_back_limit();
    let (mut stops, mut given_back) = (Vec::new(), false);
    loop {
        for event in hold.hear() {
            if let LockEvent::GivenBack(result) = event {
                tell_given_back(hold.lock().shown(), result.as_deref());
                given_back = true;
            }
        }
        hold.look_after_guard(family, clock.now());
        if given_back && hold.is_alone() {
            break;
        }
        if clock.now() >= until {
            if !given_back {
                log::warn!("{} gave no answer when it was given back; it ends by itself", hold.lock().shown());
            }
            break;
        }
        let fds = hold.fds().map(readable).collect();
        let deadline = hold.wake_at().into_iter().chain([until]).min();
        stops.extend(driver.ears.listen(fds, deadline, family, clock).stops);
    }
    driver.ears.keep(&stops);
}
