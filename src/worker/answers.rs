//! What a worker makes of the answers of the database: jobs begin, are ended because they are not wanted or not ours any
//! more, and what dead workers have left is ended and given free.

use std::collections::HashSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Worker;
use super::hold::Hold;
use super::job::{Job, not_begun, not_started, patience, tell_not_started};
use super::state::{Answer, Seen};
use crate::chain::World;
use crate::clock::Moment;
use crate::config::queues::QueueSettings;
use crate::notify::inbox::Inbox;
use crate::process::leftovers::Leftovers;
use crate::queue::{Next, after_death};
use crate::store::job::{Finish, JobRecord, Turned, Want};
use crate::store::wake::Alarm;
use crate::store::{Owner, StoreError};

impl Worker {
    pub(super) fn hear(&mut self, world: &mut World<'_>) {
        for answer in self.parts.state.answers() {
            match answer {
                Ok(Answer::Turned(turned)) => self.turned(turned, world),
                Ok(Answer::Refused(finishes, error)) => {
                    // They are told again when it is mended.
                    self.finished.extend(finishes);
                    self.fail(error);
                }
                Ok(Answer::Taken(Some(job))) => {
                    self.limits.only = Some(job.id);
                    self.drained = true;
                    self.begin(*job, world);
                }
                Ok(Answer::Taken(None)) => {
                    self.summary.not_taken = true;
                    self.drained = true;
                }
                Ok(Answer::Around(ahead, running)) => self.around(ahead, running, world),
                Ok(Answer::Counted(counts)) => self.tell(&counts),
                Ok(Answer::Open(open)) => self.drained |= !open && self.is_done(),
                Ok(Answer::Freed) => self.look = true,
                Err(error) => self.fail(error),
            }
        }
    }

    fn fail(&mut self, error: StoreError) {
        self.broken.get_or_insert(error);
    }

    fn turned(&mut self, turned: Turned, world: &mut World<'_>) {
        self.proved = true;
        if let Some(held) = turned.held {
            self.renewed(&held, world);
        }
        let none = turned.jobs.is_empty();
        self.plenty = !none && turned.next_due.is_none();
        if let Some(due) = turned.next_due {
            let wait = Duration::try_from(due.duration_since(self.wall(world))).unwrap_or_default();
            self.look_at = self.look_at.min(world.clock.now() + wait);
        }
        let (asked, lease) = self.asked;
        let hold = Hold::new(asked, lease);
        if self.running.is_empty() {
            // The lease of the first of them is the lease of all.
            self.hold = hold;
        }
        for job in turned.jobs {
            if hold.is_fresh(world.clock.now()) {
                self.begin(job, world);
            } else {
                // The answer was so long on its way that others may have begun them.
                self.finished.push(not_begun(&job, Next::Back, self.wall(world)));
                self.look = true;
            }
        }
        if self.limits.drain && none && !self.look && self.is_done() {
            // Nothing is to be had; a drain is over when others run nothing either.
            let want = |queue: &QueueSettings| Want { queue: queue.name.clone(), order: queue.order, places: 1 };
            self.parts.state.ask_open(self.queues.iter().map(want).collect(), self.wall(world));
        }
    }

    /// Whether all that it had is over, and written down or being written down.
    fn is_done(&self) -> bool {
        self.running.is_empty() && self.finished.is_empty() && self.dead.is_empty()
    }

    /// The lease was renewed: what is not ours any more, or not wanted, is ended.
    fn renewed(&mut self, held: &[(String, bool)], world: &World<'_>) {
        let (asked, lease) = self.asked;
        self.hold = Hold::new(asked, lease);
        for job in &mut self.running {
            let claim = job.record().claim.clone().unwrap_or_default();
            match held.iter().find(|(known, _)| *known == claim) {
                Some((_, true)) => job.stop(true, world),
                Some((_, false)) => {}
                None => {
                    log::error!("job {} is another worker's, or not in the database any more: it is ended here", job.record().id);
                    job.lose(world);
                }
            }
        }
    }

    fn around(&mut self, ahead: i64, running: Vec<Seen>, world: &World<'_>) {
        self.ahead = Some(SignedDuration::from_millis(ahead));
        // The database is open by now, also where it was deleted with all that stood beside it, or was not there yet.
        self.look |= matches!(self.parts.alarm.as_mut().map(Alarm::listen_again), Some(Ok(true)));
        let (here, now) = (self.parts.state.owner().clone(), self.wall(world));
        let mut free = Vec::new();
        let suspects = std::mem::take(&mut self.suspects);
        let known: HashSet<i64> = self.dead.iter().map(|(record, _)| record.id).collect();
        for Seen { job: record, alive } in running {
            if record.cancel {
                self.cancel(record.id, world);
            }
            match alive {
                Some(true) if !known.contains(&record.id) && self.is_lost(&record, &here) => {
                    let claim = record.claim.clone().unwrap_or_default();
                    // Its end may have been on its way while the database looked. The next look comes after that.
                    if suspects.contains(&claim) {
                        log::warn!("job {}: this worker has lost it", record.id);
                        self.bury(record, world.clock.now());
                    } else {
                        self.suspects.insert(claim);
                    }
                }
                Some(true) => {}
                Some(false) if !known.contains(&record.id) => {
                    log::warn!("job {}: its worker, process {}, is gone", record.id, record.pid.unwrap_or(0));
                    self.bury(record, world.clock.now());
                }
                Some(false) => {}
                // Of another machine, and nobody has heard of it for as long as its lease was.
                None if record.lease_until.is_none_or(|until| until < now) => {
                    log::warn!("job {}: its worker on {} is gone", record.id, record.host.as_deref().unwrap_or("?"));
                    free.push(Finish { lease: record.lease_until, ..self.death(&record, now) });
                }
                None => {}
            }
        }
        if !free.is_empty() {
            self.parts.state.free(free);
        }
    }

    /// Whether the database says that it is ours, and we know nothing of it: the answer of a database that was broken.
    fn is_lost(&self, record: &JobRecord, here: &Owner) -> bool {
        let ours = record.owner().is_some_and(|owner| {
            let place = owner.place.is_empty() || owner.place == here.place;
            place && owner.pid == here.pid && owner.start_time == here.start_time
        });
        let claim = record.claim.as_deref().unwrap_or_default();
        let runs = self.running.iter().any(|job| job.record().claim.as_deref() == Some(claim));
        ours && !runs && self.finished.iter().all(|finish| finish.claim != claim)
    }

    fn cancel(&mut self, id: i64, world: &World<'_>) {
        self.running.iter_mut().filter(|job| job.record().id == id).for_each(|job| job.stop(true, world));
    }

    /// A job of this machine whose worker is gone, or has lost it: what is left of it is ended first.
    fn bury(&mut self, record: JobRecord, now: Moment) {
        let kill_after = self.queue_of(&record).map_or(Duration::ZERO, |queue| queue.chain.task.kill_after);
        let leftovers = Leftovers::new(record.claim.as_deref().unwrap_or_default(), kill_after, now);
        self.dead.push((record, leftovers));
    }

    pub(super) fn end_the_dead(&mut self, world: &World<'_>) {
        let (now, wall) = (world.clock.now(), self.wall(world));
        let gone: Vec<JobRecord> = self.dead.extract_if(.., |(_, leftovers)| leftovers.advance(now)).map(|(record, _)| record).collect();
        if !gone.is_empty() {
            let finishes = gone.iter().map(|record| self.death(record, wall)).collect();
            self.parts.state.free(finishes);
        }
    }

    fn queue_of(&self, record: &JobRecord) -> Option<&QueueSettings> {
        self.queues.iter().find(|queue| queue.name == record.queue)
    }

    fn death(&self, record: &JobRecord, now: Timestamp) -> Finish {
        let most = match self.queue_of(record) {
            Some(queue) => patience(record, queue).max_attempts,
            // Of a queue that others work: they know how often it is tried.
            None => record.max_attempts.filter(|most| *most > 0).unwrap_or(u32::MAX),
        };
        let next = if record.cancel { Next::Cancelled } else { after_death(record.attempts, most, now) };
        Finish { result: "DIED", message: Some("its worker died".to_owned()), ..not_begun(record, next, now) }
    }

    fn begin(&mut self, record: JobRecord, world: &mut World<'_>) {
        let now = self.wall(world);
        let Some(queue) = self.queues.iter().find(|queue| queue.name == record.queue).filter(|_| self.stopping.is_none()) else {
            // Told to stop, or to work other queues, while it was on its way. Or a job that was asked for by its number is of
            // a queue that is not ours.
            self.finished.push(not_begun(&record, Next::Back, now));
            self.summary.not_taken = true;
            return;
        };
        let ready = crate::queue::judge_task(&record.task).map_err(str::to_owned).and_then(|()| {
            let args: Result<Vec<String>, _> = serde_json::from_str(&record.args);
            let args = args.map_err(|_| format!("its arguments are no JSON list of strings: {}", record.args))?;
            self.tasks.prepare(queue, &record.task, &args)
        });
        match ready {
            Ok((setup, mut variables)) => {
                variables.extend(self.inbox.as_ref().and_then(Inbox::variable));
                let job = Job::begin(record, queue, setup, &variables, world);
                self.running.push(job);
            }
            Err(why) => {
                let finish = not_started(&record, queue, &why, now);
                tell_not_started(&record, queue, &why, (finish.next, now));
                self.summary.failed += 1;
                self.tallies.add(&record.queue, &finish, Duration::ZERO);
                self.finished.push(finish);
                self.look = true;
            }
        }
    }
}
