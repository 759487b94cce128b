//! The lock of one chain around its runs: asked for, looked at after every wait, told what runs, given back when that is
//! gone. It never waits itself: the loop does, for one chain (`cli/guarded`) or for many (`chain/locks`).

use std::cell::RefCell;
use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::run::Run;
use super::{News, World};
use crate::clock::{BootTime, Moment, Seconds};
use crate::environment::variable;
use crate::event::{Doing, Event, Reader, RunRef};
use crate::lock::address::LockSettings;
use crate::lock::guard::Guard;
use crate::lock::owner::TaskGroup;
use crate::lock::{Lock, LockError, LockEvent, ourselves, start_time};
use crate::names::TaskName;
use crate::process::Family;

/// The lock that the runs of a chain need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockPlan {
    /// Where, and with which times.
    pub settings: LockSettings,
    /// `keep_lock`.
    pub keep: bool,
    /// `release_on_error`.
    pub release_on_error: bool,
}

/// A lock, and what runs under it.
pub struct Hold {
    lock: Lock,
    guard: Option<Guard>,
    /// Whoever comes after the end of a lease may be elsewhere, and cannot end what runs here.
    needs_guard: bool,
    /// What runs, as it was last written down.
    groups: Vec<TaskGroup>,
}

impl Hold {
    /// Makes the lock ready; asks for nothing.
    ///
    /// # Errors
    /// Its engine cannot be spoken to.
    pub fn open(settings: &LockSettings) -> Result<Self, LockError> {
        let lock = Lock::open(settings, ourselves(false))?;
        Ok(Self { lock, guard: None, needs_guard: settings.address.is_leased(), groups: Vec::new() })
    }

    /// The lock.
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    /// Readable when there is something to hear, or the guard has ended.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.lock.fds().chain(self.guard.iter().flat_map(|guard| guard.process().fds()))
    }

    /// Begins to ask for it for a run.
    pub fn contend(&mut self, run: &RunRef) {
        self.lock.contend(run.id.as_str(), BootTime::now());
    }

    /// The next run begins under the lock that was kept. `false` when it may not.
    pub fn resume(&mut self, run: &RunRef) -> bool {
        if !self.may_start() {
            return false;
        }
        self.lock.begin_run(run.id.as_str(), BootTime::now());
        self.tell_guard(true);
        true
    }

    /// A task may have ended: looks whether the lock was ours until then. Before it is judged, and not when the run is over: what ran
    /// while somebody else could is not done.
    pub fn look(&mut self, run: &Run, news: &News) {
        if run.has_news(news) {
            self.lock.look();
        }
    }

    /// What has happened to it. What it says is to be done before anything else.
    pub fn hear(&mut self) -> Vec<LockEvent> {
        self.lock.hear(BootTime::now())
    }

    /// Whether something may begin under it.
    pub fn may_start(&self) -> bool {
        self.lock.may_start(BootTime::now())
    }

    /// It is ours now: whoever looks after what runs here when we cannot begins, too.
    pub fn entered(&mut self, family: &Family) {
        self.groups.clear();
        if self.needs_guard {
            self.guard = Guard::beside(family, self.lock.kill_after());
            self.tell_guard(true);
        }
    }

    /// The token as the tasks get it.
    pub fn variable(&self) -> Option<CString> {
        variable(b"RUNNER_LOCK_TOKEN", self.lock.token()?.to_string().as_bytes())
    }

    /// A task is about to start: it is known by its marks, and by its group a moment later.
    fn starting(&mut self, task: &TaskName, try_num: u32) {
        self.groups.push(TaskGroup { pid: 0, start_time: 0, task: task.text().to_owned(), try_num });
        self.lock.record(self.groups.clone(), BootTime::now());
        self.tell_guard(true);
    }

    /// Writes down what runs now, if that is news.
    pub fn note(&mut self, run: &Run) {
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
        guard.tell_until(self.lock.trusted_until(), BootTime::now());
        if with_owner {
            guard.tell_owner(self.lock.owner());
        }
    }

    /// A guard that has done its work, or was killed, is buried at once: a dead child of ours hides others behind it.
    pub fn look_after_guard(&mut self, family: &Family, now: Moment) {
        self.tell_guard(false);
        let gone = self.guard.take_if(|guard| guard.is_gone(family, now));
        if gone.is_some_and(|guard| guard.was_due()) {
            // The lease was renewed after all: what begins from now on needs another one.
            self.guard = Guard::beside(family, self.lock.kill_after());
            self.tell_guard(true);
        }
    }

    /// Sends the guard home and gives the lock back; what ran under it is gone. [`LockEvent::GivenBack`] says when that is
    /// done, and [`Self::is_alone`] when the guard is gone.
    pub fn let_go(&mut self, family: &Family, now: Moment) {
        self.groups.clear();
        if let Some(guard) = &mut self.guard {
            guard.dismiss(family, now);
        }
        self.lock.let_go(BootTime::now());
    }

    /// Whether there is no guard.
    pub fn is_alone(&self) -> bool {
        self.guard.is_none()
    }

    /// When a guard that is being ended is to be looked at.
    pub fn wake_at(&self) -> Option<Moment> {
        self.guard.as_ref().and_then(|guard| guard.process().wake_at())
    }

    /// Does to a run what is said of its lock.
    pub fn obey(lock: &str, event: LockEvent, run: &mut Run, world: &mut World<'_>) {
        match event {
            // Its outcome stands, and has been told.
            LockEvent::Stop(why) | LockEvent::Kill(why) if run.is_decided() => {
                log::error!("{lock} was lost, which is seen only now that its run is over; somebody else may have run beside it: {why}");
            }
            LockEvent::Stop(why) => {
                log::error!("{lock} is lost, its tasks are ended: {why}");
                run.lose_lock(false, world);
            }
            LockEvent::Kill(why) => {
                log::error!("{lock} is lost, and somebody else may have it; its tasks are killed: {why}");
                run.lose_lock(true, world);
            }
            LockEvent::Doubt { .. } | LockEvent::Sure => tell_doubt(lock, &event),
            LockEvent::Acquired(_) | LockEvent::Waiting(_) | LockEvent::Unreachable(_) => {}
            LockEvent::GaveUp(_) | LockEvent::GivenBack(_) => {}
        }
    }
}

/// Tells whether a lock is in doubt.
pub fn tell_doubt(lock: &str, event: &LockEvent) {
    match event {
        LockEvent::Doubt { why, stop_in } => {
            log::warn!("{lock} is in doubt, and lost in {} if it stays so: {why}", Seconds(*stop_in));
        }
        LockEvent::Sure => log::info!("{lock} is ours beyond doubt again"),
        LockEvent::Acquired(_) | LockEvent::Waiting(_) | LockEvent::Unreachable(_) | LockEvent::GaveUp(_) => {}
        LockEvent::Stop(_) | LockEvent::Kill(_) | LockEvent::GivenBack(_) => {}
    }
}

/// Tells what is wrong with how a lock was given back.
pub fn tell_given_back(lock: &str, result: Option<&str>) {
    if let Some(why) = result {
        log::warn!("{lock} could not be given back and ends by itself: {why}");
    }
}

/// Stands before the readers of events: writes down what is about to start, and starts nothing that is not covered.
pub struct Recording<'a> {
    inner: &'a mut dyn Reader,
    hold: &'a RefCell<Hold>,
}

impl<'a> Recording<'a> {
    /// For the runs under this lock. It is shared with their loop, never at the same moment.
    pub fn new(inner: &'a mut dyn Reader, hold: &'a RefCell<Hold>) -> Self {
        Self { inner, hold }
    }
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

    fn describe(&self, run: &RunRef, doing: &Doing<'_>) -> Option<Vec<u8>> {
        self.inner.describe(run, doing)
    }

    fn may_start(&self) -> bool {
        self.hold.borrow().may_start()
    }
}
