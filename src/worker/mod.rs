//! Works queues: takes jobs for its free places, runs each as a process of its own, and writes down what became of
//! them. One loop; it waits for a process, a signal, the database, a ring or the next deadline. `queue` has the rules,
//! `store` the jobs, `chain::attempt` runs a try.
//!
//! A job is this worker's by its lease and by its process. Whoever shares the machine knows at once that the process is
//! gone; others wait for the lease. What a dead worker's job has left running is ended before it is begun again.

mod job;
mod state;

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::chain::Driver;
use crate::chain::setup::Setup;
use crate::clock::{Clock, Moment, SystemClock};
use crate::config::queues::QueueSettings;
use crate::names::{RunIds, counted};
use crate::notify::inbox::{Inbox, leader_of};
use crate::process::Supervised;
use crate::process::leftovers::Leftovers;
use crate::process::state::UNKILLABLE_AFTER;
use crate::queue::{JobState, Next, after_death};
use crate::store::StoreError;
use crate::store::job::{Finish, JobRecord, QueueCount, Turn, Turned, Want};
use crate::store::wake::Alarm;
use job::{Job, not_begun, not_started, patience};
use state::Answer;
pub use state::State;

/// How long a job is a worker's after the last sign of it, where nobody knows whether it lives. Three times what it takes
/// to end a job, if that is longer.
const LEASE: Duration = Duration::from_secs(60);
/// The part of the lease that is left for ending jobs, besides `kill_after`.
const SAFETY: Duration = Duration::from_secs(2);

/// How long the last results may take to be written when the worker is told to stop.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How many letters of tasks are read before the rest of the world has its turn.
const LETTERS_AT_ONCE: usize = 100;

/// What the worker needs of files and variables.
pub trait Tasks {
    /// Makes the task of a job ready: a setup that has it alone, and RUNNER_CONFIG_CMD and its kin.
    ///
    /// # Errors
    /// Why it cannot be run.
    fn prepare(&mut self, queue: &QueueSettings, task: &str, args: &[String]) -> Result<(Setup, Vec<CString>), String>;
}

/// How long a worker works, and how much.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Not more jobs at once than these, whatever the queues say.
    pub jobs: Option<usize>,
    /// It ends when no job is ready or running.
    pub drain: bool,
    /// It takes no job after this.
    pub duration: Option<Duration>,
    /// How often it looks although nothing woke it; else the least `poll` of the queues.
    pub poll: Option<Duration>,
    /// How long running jobs may go on when it is told to stop.
    pub grace: Duration,
    /// This job alone.
    pub only: Option<i64>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Attempts that ended well.
    pub done: u64,
    /// Attempts that did not, or could not begin.
    pub failed: u64,
    /// The job that was asked for by its number was not there to be taken.
    pub not_taken: bool,
    /// Ends of jobs that could not be written down before the worker had to go: these jobs are begun again.
    pub unwritten: bool,
}

/// What a worker is made of.
pub struct Parts<'a> {
    /// The loop it stands on.
    pub driver: Driver<'a>,
    /// The source of run ids.
    pub ids: &'a mut RunIds,
    /// The database.
    pub state: State,
    /// What wakes it; it looks by itself without.
    pub alarm: Option<Alarm>,
    /// Files and variables.
    pub tasks: &'a mut dyn Tasks,
}

/// A worker.
pub struct Worker<'a> {
    parts: Parts<'a>,
    queues: Vec<QueueSettings>,
    limits: Limits,
    poll: Duration,
    lease: Duration,
    running: Vec<Job>,
    finished: Vec<Finish>,
    dead: Vec<(JobRecord, Leftovers)>,
    /// Where tasks tell how far they are.
    inbox: Option<Inbox>,
    /// How far the clock of the database is ahead of ours.
    ahead: Option<SignedDuration>,
    /// When the turn that has not been answered was asked for.
    asked_at: Moment,
    /// There may be jobs that nobody has looked for.
    look: bool,
    look_at: Moment,
    renew_at: Moment,
    /// Until when the running jobs are ours, less the time it takes to end them.
    safe_until: Moment,
    begun: Moment,
    stopping: Option<Moment>,
    /// When a worker that was told to stop, and runs nothing any more, waits for the database no longer.
    leave_at: Option<Moment>,
    drained: bool,
    broken: Option<StoreError>,
    summary: Summary,
}

impl<'a> Worker<'a> {
    /// A worker of these queues, which has done nothing yet.
    pub fn new(parts: Parts<'a>, queues: Vec<QueueSettings>, limits: Limits) -> Self {
        let now = parts.driver.world.clock.now();
        let shortest = queues.iter().map(|queue| queue.poll).min().unwrap_or(Duration::from_secs(5));
        let to_end = queues.iter().map(|queue| queue.chain.task.kill_after).max().unwrap_or_default() + UNKILLABLE_AFTER + SAFETY;
        let lease = LEASE.max(to_end.saturating_mul(3));
        Self {
            poll: limits.poll.unwrap_or(shortest),
            lease,
            parts,
            queues,
            limits,
            running: Vec::new(),
            finished: Vec::new(),
            dead: Vec::new(),
            inbox: None,
            ahead: None,
            asked_at: now,
            look: true,
            look_at: now,
            renew_at: now + lease / 3,
            safe_until: now + lease,
            begun: now,
            stopping: None,
            leave_at: None,
            drained: false,
            broken: None,
            summary: Summary::default(),
        }
    }

    /// Works until it is told to stop, or its limits say so.
    ///
    /// # Errors
    /// The database says something that will not pass by itself.
    pub fn work(&mut self) -> Result<Summary, StoreError> {
        self.open_inbox();
        loop {
            self.ask();
            if self.stopping.is_some() && self.running.is_empty() {
                let at = self.now() + LAST_WORDS;
                self.leave_at.get_or_insert(at);
            }
            if self.leave_at.is_some_and(|at| self.now() >= at) {
                log::error!("the database has not answered: how the last jobs ended is not written down, and they are begun again");
                self.summary.unwritten = true;
                return Ok(self.summary);
            }
            if self.is_over() {
                return match self.broken.take() {
                    Some(error) => Err(error),
                    None => Ok(self.summary),
                };
            }
            self.wait();
        }
    }

    fn open_inbox(&mut self) {
        match Inbox::open(&self.parts.ids.fresh()) {
            Ok(inbox) => self.inbox = Some(inbox),
            Err(error) => log::warn!("tasks cannot tell how far they are, there is no socket for it: {error}"),
        }
    }

    /// Hands letters to the jobs whose processes they came from.
    fn deliver(&mut self) {
        let Some(inbox) = &self.inbox else { return };
        let pid = |job: &Job| job.process().map(Supervised::pid);
        for letter in std::iter::from_fn(|| inbox.next_letter()).take(LETTERS_AT_ONCE) {
            let leaders: Vec<_> = self.running.iter().filter_map(pid).collect();
            let leader = leader_of(letter.sender, &leaders);
            if let Some(job) = self.running.iter_mut().find(|job| leader.is_some() && pid(job) == leader) {
                job.hear(&letter.messages, &mut self.parts.driver.world);
            }
        }
    }

    fn now(&self) -> Moment {
        self.parts.driver.world.clock.now()
    }

    /// Now, by the clock of the database.
    fn wall(&self) -> Timestamp {
        let wall = self.parts.driver.world.clock.wall();
        wall.checked_add(self.ahead.unwrap_or_default()).unwrap_or(wall)
    }

    fn takes_jobs(&self) -> bool {
        let over = self.limits.duration.is_some_and(|duration| self.now() >= self.begun + duration);
        self.stopping.is_none() && !over && !self.drained && self.broken.is_none()
    }

    fn is_over(&self) -> bool {
        let flushed = self.finished.is_empty() || self.broken.is_some();
        !self.takes_jobs() && self.running.is_empty() && flushed && !self.parts.state.turns()
    }

    /// Asks the database for what is to be had: one turn at a time.
    fn ask(&mut self) {
        let now = self.now();
        if now >= self.look_at {
            self.look_at = now + self.poll;
            self.look = true;
            let clock = SystemClock::new();
            self.parts.state.look_around(move || clock.wall());
        }
        if self.parts.state.turns() || self.ahead.is_none() || self.broken.is_some() {
            return;
        }
        let wants = if self.look && self.takes_jobs() { self.wants() } else { Vec::new() };
        let renew = now >= self.renew_at && !self.running.is_empty();
        if wants.is_empty() && self.finished.is_empty() && !renew {
            return;
        }
        let only = self.limits.only.filter(|_| !wants.is_empty());
        let turn = self.turn(wants, renew && only.is_none());
        self.asked_at = now;
        match only {
            Some(id) => self.parts.state.take(id, turn),
            None => self.parts.state.turn(turn),
        }
    }

    fn turn(&mut self, wants: Vec<Want>, renew: bool) -> Turn {
        let now = self.wall();
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

    /// Waits for the next thing to happen, and acts on it.
    fn wait(&mut self) {
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.parts.state.fd()];
        fds.extend(self.parts.alarm.as_ref().map(Alarm::fd));
        let inbox = fds.len();
        fds.extend(self.inbox.as_ref().map(Inbox::fd));
        let own = fds.len();
        let mut ends = Vec::with_capacity(self.running.len());
        for job in &self.running {
            job.add_fds(&mut fds);
            ends.push(fds.len());
        }
        let deadline = self.deadline();
        let news = self.parts.driver.listen(&[], &fds, deadline);
        drop(fds);
        for _ in &news.stops {
            self.stop();
        }
        if self.parts.alarm.is_some() && news.ready[1] {
            self.rung();
        }
        if inbox < own && news.ready[inbox] {
            self.deliver();
        }
        if news.ready[0] {
            self.hear();
        }
        self.advance(&ends, &news.ready, own);
        self.end_the_dead();
        self.keep_limits();
    }

    fn deadline(&self) -> Option<Moment> {
        let jobs = self.running.iter().filter_map(Job::wake_at);
        let dead = self.dead.iter().map(|(_, leftovers)| leftovers.wake_at());
        let end = self.limits.duration.map(|duration| self.begun + duration).filter(|end| *end > self.now());
        let held = (!self.running.is_empty()).then_some([self.renew_at, self.safe_until]);
        jobs.chain(dead).chain(end).chain(held.into_iter().flatten()).chain(self.stopping).chain(self.leave_at).chain([self.look_at]).min()
    }

    fn rung(&mut self) {
        let Some(rang) = self.parts.alarm.as_ref().map(Alarm::silence) else { return };
        self.look |= rang.jobs;
        if rang.cancel {
            self.look_at = self.now();
        }
    }

    /// Told to stop: nothing new begins, and what runs has some time; told again, it is gone.
    fn stop(&mut self) {
        if self.stopping.is_none() {
            self.stopping = Some(self.now() + self.limits.grace);
            if !self.running.is_empty() {
                let grace = crate::clock::Seconds(self.limits.grace);
                log::warn!("told to stop: {} may go on for {grace}; a second signal kills at once", counted(self.running.len(), "job"));
            }
        } else {
            let world = &self.parts.driver.world;
            self.running.iter_mut().for_each(|job| job.kill_now(world));
        }
    }

    fn hear(&mut self) {
        for answer in self.parts.state.answers() {
            match answer {
                Ok(Answer::Turned(turned)) => self.turned(turned),
                Ok(Answer::Taken(Some(job))) => {
                    self.limits.only = Some(job.id);
                    self.drained = true;
                    self.begin(*job);
                }
                Ok(Answer::Taken(None)) => {
                    self.summary.not_taken = true;
                    self.drained = true;
                }
                Ok(Answer::Around(ahead, running)) => self.around(ahead, running),
                Ok(Answer::Counted(counts)) => self.counted(&counts),
                Ok(Answer::Freed) => self.look = true,
                Err(error) => {
                    log::error!("{error}");
                    self.broken.get_or_insert(error);
                    let world = &self.parts.driver.world;
                    self.running.iter_mut().for_each(|job| job.stop(false, world));
                }
            }
        }
    }

    fn turned(&mut self, turned: Turned) {
        if let Some(held) = turned.held {
            self.renewed(&held);
        }
        let none = turned.jobs.is_empty();
        if let Some(due) = turned.next_due {
            let wait = Duration::try_from(due.duration_since(self.wall())).unwrap_or_default();
            self.look_at = self.look_at.min(self.now() + wait);
        }
        if self.running.is_empty() {
            // The lease of the first of them is the lease of all.
            (self.safe_until, self.renew_at) = self.lease_from(self.asked_at);
        }
        for job in turned.jobs {
            self.begin(job);
        }
        if self.limits.drain && none && !self.look && self.running.is_empty() && self.finished.is_empty() && self.dead.is_empty() {
            self.parts.state.count(self.wall());
        }
    }

    fn lease_from(&self, begin: Moment) -> (Moment, Moment) {
        let to_end = self.lease / 3;
        (begin + self.lease.saturating_sub(to_end), begin + self.lease / 3)
    }

    /// The lease was renewed: what is not ours any more, or not wanted, is ended.
    fn renewed(&mut self, held: &[(String, bool)]) {
        (self.safe_until, self.renew_at) = self.lease_from(self.asked_at);
        let world = &self.parts.driver.world;
        for job in &mut self.running {
            let claim = job.record().claim.clone().unwrap_or_default();
            match held.iter().find(|(known, _)| *known == claim) {
                Some((_, true)) => job.stop(true, world),
                Some((_, false)) => {}
                None => {
                    log::error!("job {} was taken by another worker: it is ended here", job.record().id);
                    job.stop(false, world);
                }
            }
        }
    }

    fn around(&mut self, ahead: i64, running: Vec<JobRecord>) {
        self.ahead = Some(SignedDuration::from_millis(ahead));
        let (here, now) = (self.parts.state.owner().clone(), self.wall());
        let mut free = Vec::new();
        let known: HashSet<i64> = self.dead.iter().map(|(record, _)| record.id).collect();
        for record in running {
            if record.cancel {
                self.cancel(record.id);
            }
            match record.owner().and_then(|owner| owner.is_alive(&here)) {
                Some(true) => {}
                Some(false) if !known.contains(&record.id) => self.bury(record),
                Some(false) => {}
                // Of another machine, and nobody has heard of it for as long as its lease was.
                None if record.lease_until.is_none_or(|until| until < now) => {
                    log::warn!("job {}: its worker on {} is gone", record.id, record.host.as_deref().unwrap_or("?"));
                    free.push(self.death(&record));
                }
                None => {}
            }
        }
        if !free.is_empty() {
            self.parts.state.free(free);
        }
    }

    fn cancel(&mut self, id: i64) {
        let world = &self.parts.driver.world;
        self.running.iter_mut().filter(|job| job.record().id == id).for_each(|job| job.stop(true, world));
    }

    /// A job whose worker on this machine is gone: what is left of it is ended first.
    fn bury(&mut self, record: JobRecord) {
        log::warn!("job {}: its worker, process {}, is gone", record.id, record.pid.unwrap_or(0));
        let kill_after = self.queue_of(&record).map_or(Duration::ZERO, |queue| queue.chain.task.kill_after);
        let leftovers = Leftovers::new(record.claim.as_deref().unwrap_or_default(), kill_after, self.now());
        self.dead.push((record, leftovers));
    }

    fn end_the_dead(&mut self) {
        let now = self.now();
        let gone: Vec<JobRecord> = self.dead.extract_if(.., |(_, leftovers)| leftovers.advance(now)).map(|(record, _)| record).collect();
        if !gone.is_empty() {
            let finishes = gone.iter().map(|record| self.death(record)).collect();
            self.parts.state.free(finishes);
        }
    }

    fn queue_of(&self, record: &JobRecord) -> Option<&QueueSettings> {
        self.queues.iter().find(|queue| queue.name == record.queue)
    }

    fn death(&self, record: &JobRecord) -> Finish {
        let most = match self.queue_of(record) {
            Some(queue) => patience(record, queue).max_attempts,
            // Of a queue that others work: they know how often it is tried.
            None => record.max_attempts.filter(|most| *most > 0).unwrap_or(u32::MAX),
        };
        let now = self.wall();
        let next = if record.cancel { Next::Cancelled } else { after_death(record.attempts, most, now) };
        Finish { result: "DIED", message: Some("its worker died".to_owned()), ..not_begun(record, next, now) }
    }

    /// Whether a drain is over: nothing is ready or running, here or elsewhere.
    fn counted(&mut self, counts: &[QueueCount]) {
        let ours = |count: &&QueueCount| self.queues.iter().any(|queue| queue.name == count.queue);
        let open: u64 = counts
            .iter()
            .filter(ours)
            .filter(|count| matches!(count.state, JobState::Ready | JobState::Running))
            .map(|count| count.count)
            .sum();
        if open == 0 && self.running.is_empty() && self.finished.is_empty() && self.dead.is_empty() {
            self.drained = true;
        }
    }

    fn begin(&mut self, record: JobRecord) {
        let now = self.wall();
        let Some(queue) = self.queues.iter().find(|queue| queue.name == record.queue) else {
            // Only a job that was asked for by its number can be of a queue that is not ours.
            self.finished.push(not_begun(&record, Next::Back, now));
            self.summary.not_taken = true;
            return;
        };
        let ready = crate::queue::judge_task(&record.task).map_err(str::to_owned).and_then(|()| {
            let args: Result<Vec<String>, _> = serde_json::from_str(&record.args);
            let args = args.map_err(|_| format!("its arguments are no JSON list of strings: {}", record.args))?;
            self.parts.tasks.prepare(queue, &record.task, &args)
        });
        match ready {
            Ok((setup, mut variables)) => {
                variables.extend(self.inbox.as_ref().and_then(Inbox::variable));
                let job = Job::begin(record, queue, setup, &variables, &mut self.parts.driver.world);
                self.running.push(job);
            }
            Err(why) => {
                let finish = not_started(&record, queue, &why, now);
                let end = if finish.next == Next::Failed { "failed for good" } else { "failed" };
                log::error!("job {}, {}: {end}: could not start: {why}", record.id, record.task);
                self.summary.failed += 1;
                self.finished.push(finish);
                self.look = true;
            }
        }
    }

    /// Lets the jobs act on what happened to them. `ends` and `ready` are of those that were listened to.
    fn advance(&mut self, ends: &[usize], ready: &[bool], first: usize) {
        let (now, wall) = (self.now(), self.wall());
        let mut start = first;
        let mut over = Vec::new();
        for (at, job) in self.running.iter_mut().enumerate() {
            // One that has begun since was not listened to; it may have ended already.
            let end = ends.get(at).copied().unwrap_or(start);
            let news = ready[start..end].iter().any(|ready| *ready);
            start = end;
            let is_due = at >= ends.len() || news || job.wake_at().is_some_and(|wake| now >= wake);
            if let Some(finish) = is_due.then(|| job.advance(&mut self.parts.driver.world, wall)).flatten() {
                over.push((at, finish));
            }
        }
        for (at, finish) in over.into_iter().rev() {
            self.running.swap_remove(at);
            match finish.next {
                Next::Done(_) => self.summary.done += 1,
                Next::Failed | Next::Again(_) => self.summary.failed += 1,
                Next::Back | Next::Cancelled => {}
            }
            self.finished.push(finish);
            self.look = true;
        }
    }

    /// What time alone brings: the end of the grace, or of the lease.
    fn keep_limits(&mut self) {
        let now = self.now();
        let world = &self.parts.driver.world;
        if let Some(at) = self.stopping.filter(|at| now >= *at) {
            self.running.iter_mut().for_each(|job| job.stop(false, world));
            // Once is enough.
            self.stopping = Some(at + Duration::from_secs(u64::from(u32::MAX)));
        }
        if now >= self.safe_until && !self.running.is_empty() {
            log::error!("the database has not been heard of: jobs are ended before another worker may begin them");
            self.running.iter_mut().for_each(|job| job.stop(false, world));
            self.safe_until = now + self.lease;
        }
    }

    /// Waits until what is asked for is done, but not longer than `limit`.
    pub fn settle(&mut self, limit: Duration) {
        self.parts.state.settle(limit);
    }
}
