//! What a worker asks the database for, one turn at a time: jobs for its free places, how its jobs ended, and more time for
//! those that run. Nothing is waited for; `answers` hears what came of it.

use jiff::Timestamp;

use super::Worker;
use crate::chain::World;
use crate::clock::{Clock, SystemClock};
use crate::config::queues::QueueSettings;
use crate::store::job::{Turn, Want};

impl Worker {
    /// Asks the database for what is to be had: one turn at a time. Before each wait.
    pub fn ask(&mut self, world: &World<'_>) {
        let now = world.clock.now();
        if self.broken.is_some() {
            return;
        }
        if now >= self.look_at {
            self.look_at = now + self.poll;
            self.look = true;
            let clock = SystemClock::new();
            self.parts.state.look_around(move || clock.wall());
        }
        if let Some(telling) = self.telling.as_ref().filter(|_| now >= self.tell_at && self.ahead.is_some()) {
            self.tell_at = now + telling.every;
            let wall = self.wall(world);
            self.parts.state.count(wall);
        }
        if self.parts.state.turns() || self.ahead.is_none() {
            return;
        }
        let wants = if self.look && self.takes_jobs(now) { self.wants() } else { Vec::new() };
        let renew = now >= self.hold.renew_at && !self.running.is_empty();
        if wants.is_empty() && self.finished.is_empty() && !renew {
            return;
        }
        let only = self.limits.only.filter(|_| !wants.is_empty());
        let turn = self.turn(wants, renew && only.is_none(), self.wall(world));
        self.asked = (now, self.lease);
        match only {
            Some(id) => self.parts.state.take(id, turn),
            None => self.parts.state.turn(turn),
        }
    }

    fn turn(&mut self, wants: Vec<Want>, renew: bool, now: Timestamp) -> Turn {
        let places = self.places();
        if !wants.is_empty() {
            self.look = false;
        }
        Turn {
            owner: self.parts.state.owner().clone(),
            now,
            lease_until: crate::queue::later(now, self.lease),
            finishes: std::mem::take(&mut self.finished),
            renew,
            wants,
            places: u32::try_from(places).unwrap_or(u32::MAX),
            plenty: self.plenty,
            token: self.parts.ids.fresh().to_string(),
            again: false,
        }
    }

    /// How many more jobs may run.
    fn places(&self) -> usize {
        self.limits.jobs.unwrap_or(usize::MAX).saturating_sub(self.running.len())
    }

    fn wants(&self) -> Vec<Want> {
        if self.places() == 0 {
            return Vec::new();
        }
        let busy = |queue: &QueueSettings| self.running.iter().filter(|job| job.record().queue == queue.name).count();
        let only_one = self.limits.only.map(|_| 1);
        let want = |queue: &QueueSettings| {
            let most = only_one.or(self.limits.jobs).unwrap_or(queue.jobs);
            let places = u32::try_from(most.saturating_sub(busy(queue))).unwrap_or(u32::MAX);
            (places > 0).then(|| Want { queue: queue.name.clone(), order: queue.order, places })
        };
        let mut wants: Vec<Want> = self.queues.iter().filter_map(want).collect();
        // Not always the same queue first: where places are few, the others would have to wait for it to be empty.
        let turns = wants.len().max(1);
        wants.rotate_left(usize::try_from(self.summary.done + self.summary.failed).unwrap_or(0) % turns);
        wants
    }
}
