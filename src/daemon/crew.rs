//! The worker of a daemon, in the loop of the daemon: hired when the configuration names queues, told when it names others,
//! given a new database when the old one is broken, and let go when it names none. Whatever befalls it, chains go on.
//!
//! There is one family of processes, and one loop that reaps it: a second one in a thread beside it would take its children
//! away, and a process of its own would have to be told of a configuration that may be broken by then.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use jiff::Timestamp;

use super::Outside;
use crate::chain::World;
use crate::clock::{Moment, Seconds};
use crate::names::{RunIds, counted};
use crate::worker::{Layout, Limits, Orders, Parts, Worker};

/// The first wait before a worker that cannot work tries again.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Before jobs are taken the files of the configuration are looked at, but not more often.
const WONDERS_EVERY: Duration = Duration::from_secs(1);
/// The wait doubles up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The worker, if there is work for one.
pub struct Crew {
    worker: Option<Worker>,
    /// What nobody could be hired for yet.
    waiting: Option<Orders>,
    trouble: Option<String>,
    again_at: Option<Moment>,
    wait: Duration,
    stopped: bool,
    /// When it was last asked whether the configuration has changed.
    wondered: Option<Moment>,
}

impl Default for Crew {
    fn default() -> Self {
        Self { worker: None, waiting: None, trouble: None, again_at: None, wait: FIRST_WAIT, stopped: false, wondered: None }
    }
}

impl Crew {
    /// The worker.
    pub fn worker(&self) -> Option<&Worker> {
        self.worker.as_ref()
    }

    /// Why jobs are not taken.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.clone().or_else(|| self.worker.as_ref().and_then(Worker::away))
    }

    /// How many jobs run.
    pub fn running(&self) -> usize {
        self.worker.as_ref().map_or(0, |worker| worker.jobs().len())
    }

    /// These are the queues from now on. What runs ends with the settings it began with, and its places count.
    pub(super) fn obey(&mut self, orders: Orders, outside: &mut dyn Outside, ids: &mut RunIds, now: Moment) {
        let names = |orders: &Orders| orders.queues.iter().map(|queue| queue.name.clone()).collect::<Vec<_>>();
        let new = names(&orders);
        let known = self.worker.as_ref().is_some_and(|worker| worker.queues().iter().map(|queue| &queue.name).eq(&new));
        if !known && !new.is_empty() {
            log::info!("works {}: {}", counted(new.len(), "queue"), new.join(", "));
        }
        match &mut self.worker {
            Some(worker) => worker.change(orders),
            None if orders.queues.is_empty() => (self.waiting, self.trouble, self.again_at) = (None, None, None),
            None => self.hire(orders, outside, ids, now),
        }
    }

    fn hire(&mut self, orders: Orders, outside: &mut dyn Outside, ids: &mut RunIds, now: Moment) {
        match outside.jobs(&orders.queues) {
            Ok(state) => {
                let parts = Parts { ids: ids.branch(), state, alarm: outside.bell() };
                self.worker = Some(Worker::new(parts, orders, Limits::default(), now));
                (self.waiting, self.trouble, self.again_at) = (None, None, None);
            }
            Err(why) => {
                self.put_off(why, now);
                self.waiting = Some(orders);
            }
        }
    }

    /// It cannot work: told once for each reason, and tried again later.
    fn put_off(&mut self, why: String, now: Moment) {
        if self.trouble.as_ref() != Some(&why) {
            log::error!("the queues are not worked, chains go on: {why}; it is tried again, first in {}", Seconds(self.wait));
        }
        self.trouble = Some(why);
        self.again_at = Some(now + self.wait);
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }

    /// Before each wait: whoever cannot work is helped, and asks for what is to be had.
    pub(super) fn ask(&mut self, outside: &mut dyn Outside, ids: &mut RunIds, world: &World<'_>) {
        let now = world.clock.now();
        let is_due = self.again_at.is_some_and(|at| now >= at);
        if is_due && let Some(orders) = self.waiting.take() {
            self.hire(orders, outside, ids, now);
        }
        self.mend(is_due, outside, now);
        let Some(worker) = &mut self.worker else { return };
        worker.ask(world);
        if worker.is_idle() {
            log::info!("works no queue any more");
            self.worker = None;
        }
    }

    /// A worker whose database is broken gets it opened anew, again and again.
    fn mend(&mut self, is_due: bool, outside: &mut dyn Outside, now: Moment) {
        let Some(worker) = &mut self.worker else { return };
        match worker.broken().map(ToString::to_string) {
            Some(why) if self.again_at.is_none() => self.put_off(why, now),
            Some(_) if is_due => match outside.jobs(worker.queues()) {
                Ok(state) => {
                    self.again_at = None;
                    worker.mend(state, now);
                }
                Err(why) => self.put_off(why, now),
            },
            None if worker.is_proved() => {
                if self.trouble.take().is_some() {
                    log::warn!("the queues are worked again");
                }
                (self.wait, self.again_at) = (FIRST_WAIT, None);
            }
            Some(_) | None => {}
        }
    }

    /// Whether it is about to look for jobs, and has not asked itself for a second whether it still should.
    pub(super) fn wonders(&mut self, now: Moment) -> bool {
        let looks = self.worker.as_ref().is_some_and(Worker::looks) && self.wondered.is_none_or(|at| now >= at + WONDERS_EVERY);
        if looks {
            self.wondered = Some(now);
        }
        looks
    }

    pub(super) fn add_fds<'a>(&'a self, fds: &mut Vec<BorrowedFd<'a>>) -> Option<Layout> {
        self.worker.as_ref().map(|worker| worker.add_fds(fds))
    }

    pub(super) fn wake_at(&self, now: Moment) -> Option<Moment> {
        let worker = self.worker.as_ref().and_then(|worker| worker.wake_at(now));
        worker.into_iter().chain(self.again_at.filter(|_| !self.stopped)).min()
    }

    pub(super) fn act(&mut self, layout: Option<&Layout>, ready: &[bool], world: &mut World<'_>) {
        if let (Some(worker), Some(layout)) = (&mut self.worker, layout) {
            worker.act(layout, ready, world);
        }
    }

    /// Nothing new begins, and what runs may go on for `grace`.
    pub(super) fn stop(&mut self, grace: Duration, world: &World<'_>) {
        (self.stopped, self.waiting) = (true, None);
        if let Some(worker) = &mut self.worker {
            worker.stop(grace, world.clock.now());
            if grace.is_zero() {
                worker.hurry(world);
            }
        }
    }

    /// There is no more time.
    pub(super) fn hurry(&mut self, world: &World<'_>) {
        if let Some(worker) = &mut self.worker {
            worker.hurry(world);
        }
    }

    /// Whether nobody works any more.
    pub(super) fn is_gone(&mut self, now: Moment) -> bool {
        self.worker.as_mut().is_none_or(|worker| worker.is_gone(now))
    }

    /// Waits for what is being written down, but not longer than `limit`.
    pub(super) fn settle(&mut self, limit: Duration, wall: Timestamp) {
        if let Some(worker) = &mut self.worker {
            worker.settle(limit, wall);
        }
    }
}
