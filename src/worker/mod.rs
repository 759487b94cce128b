//! Works queues: takes jobs for its free places, runs each as a process of its own, and writes down what became of
//! them. It never waits: a loop of its own does ([`Worker::work`]), or that of the daemon, which has one family of
//! processes for chains and jobs. `queue` has the rules, `store` the jobs, `chain::attempt` runs a try; `ask` is what the
//! database is asked for, `answers` what it has said.
//!
//! A job is this worker's by its lease and by its process. Whoever shares the machine knows at once that the process is
//! gone; others wait for the lease. What a dead worker's job has left running is ended before it is begun again.

mod answers;
mod ask;
mod hold;
mod job;
mod state;
pub mod tally;

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::chain::setup::Setup;
use crate::chain::{Driver, World};
use crate::clock::Moment;
use crate::config::queues::QueueSettings;
use crate::names::{RunIds, counted};
use crate::notify::inbox::{Inbox, leader_of};
use crate::process::Supervised;
use crate::process::leftovers::Leftovers;
use crate::process::state::UNKILLABLE_AFTER;
use crate::queue::Next;
use crate::store::StoreError;
use crate::store::job::{Finish, JobRecord, QueueCount};
use crate::store::wake::Alarm;
use hold::{Hold, Standing};
pub use job::{Job, max_attempts};
pub use state::State;
use tally::Tallies;

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

/// Hears how many jobs there are, and what this worker has done.
pub type Tell = Box<dyn FnMut(&[QueueCount], &Tallies)>;

/// Who hears now and then how queues stand.
pub struct Telling {
    /// How often.
    pub every: Duration,
    /// What hears it.
    pub tell: Tell,
}

/// What a worker is to do.
pub struct Orders {
    /// The queues it works.
    pub queues: Vec<QueueSettings>,
    /// Files and variables.
    pub tasks: Box<dyn Tasks>,
    /// Who hears of the queues.
    pub telling: Option<Telling>,
}

/// What a worker is made of.
pub struct Parts {
    /// The source of run ids.
    pub ids: RunIds,
    /// The database.
    pub state: State,
    /// What wakes it; it looks by itself without.
    pub alarm: Option<Alarm>,
}

/// A worker.
pub struct Worker {
    parts: Parts,
    queues: Vec<QueueSettings>,
    tasks: Box<dyn Tasks>,
    telling: Option<Telling>,
    limits: Limits,
    poll: Duration,
    lease: Duration,
    running: Vec<Job>,
    finished: Vec<Finish>,
    dead: Vec<(JobRecord, Leftovers)>,
    /// Attempts that the database says are ours, and that we knew nothing of when we last looked.
    suspects: HashSet<String>,
    /// Where tasks tell how far they are.
    inbox: Option<Inbox>,
    /// How far the clock of the database is ahead of ours.
    ahead: Option<SignedDuration>,
    /// When the turn that has not been answered was asked for, and for how long a lease.
    asked: (Moment, Duration),
    /// There may be jobs that nobody has looked for.
    look: bool,
    /// The last turn found more jobs than there were places.
    plenty: bool,
    look_at: Moment,
    /// Until when the running jobs are ours.
    hold: Hold,
    begun: Moment,
    /// Told to stop: until when what runs may go on.
    stopping: Option<Moment>,
    /// What runs was told to end.
    ended: bool,
    /// When a worker that was told to stop, and runs nothing any more, waits for the database no longer.
    leave_at: Option<Moment>,
    /// When somebody is told again how queues stand.
    tell_at: Moment,
    drained: bool,
    broken: Option<StoreError>,
    /// The database has done what was asked since it was opened.
    proved: bool,
    summary: Summary,
    tallies: Tallies,
}

/// Where the descriptors of a worker stand among all that are listened to.
#[derive(Debug)]
pub struct Layout {
    state: usize,
    alarm: Option<usize>,
    inbox: Option<usize>,
    /// Where those of the jobs begin, and where those of each end.
    jobs: usize,
    ends: Vec<usize>,
}

/// For how long a worker of these queues has its jobs.
fn lease_of(queues: &[QueueSettings]) -> Duration {
    let to_end =
        queues.iter().map(|queue| queue.chain.task.kill_after).max().unwrap_or_default() + UNKILLABLE_AFTER + SAFETY + hold::ANSWER;
    LEASE.max(to_end.saturating_mul(3))
}

/// How often a worker of these queues looks by itself.
fn poll_of(queues: &[QueueSettings]) -> Duration {
    queues.iter().map(|queue| queue.poll).min().unwrap_or(Duration::from_secs(5))
}

impl Worker {
    /// A worker of these queues, which has done nothing yet.
    pub fn new(mut parts: Parts, orders: Orders, limits: Limits, now: Moment) -> Self {
        let Orders { queues, tasks, telling } = orders;
        let lease = lease_of(&queues);
        let inbox = Inbox::open(&parts.ids.fresh());
        let no_inbox = |error: &std::io::Error| log::warn!("tasks cannot tell how far they are, there is no socket for it: {error}");
        Self {
            poll: limits.poll.unwrap_or(poll_of(&queues)),
            lease,
            parts,
            queues,
            tasks,
            telling,
            limits,
            running: Vec::new(),
            finished: Vec::new(),
            dead: Vec::new(),
            suspects: HashSet::new(),
            inbox: inbox.inspect_err(no_inbox).ok(),
            ahead: None,
            asked: (now, lease),
            look: true,
            plenty: false,
            look_at: now,
            hold: Hold::new(now, lease),
            begun: now,
            stopping: None,
            ended: false,
            leave_at: None,
            tell_at: now,
            drained: false,
            broken: None,
            summary: Summary::default(),
            tallies: Tallies::default(),
            proved: false,
        }
    }

    /// Works in a loop of its own until it is told to stop, or its limits say so.
    ///
    /// # Errors
    /// The database says something that will not pass by itself.
    pub fn work(&mut self, driver: &mut Driver<'_>) -> Result<Summary, StoreError> {
        loop {
            self.ask(&driver.world);
            let now = driver.world.clock.now();
            if self.is_gone(now) {
                return match self.broken.take().filter(|_| !self.summary.unwritten) {
                    Some(error) => Err(error),
                    None => Ok(self.summary),
                };
            }
            let mut fds = Vec::new();
            let layout = self.add_fds(&mut fds);
            let news = driver.listen(&[], &fds, self.wake_at(now));
            drop(fds);
            for _ in &news.stops {
                self.hear_signal(&driver.world);
            }
            self.act(&layout, &news.ready, &mut driver.world);
            if let Some(error) = self.broken.as_ref().filter(|_| !self.ended) {
                // Nobody mends it: whoever comes next begins these jobs again. Whoever called hears of the error when they are gone.
                if !self.running.is_empty() {
                    let jobs = counted(self.running.len(), "job");
                    log::error!("{error}; what runs ({jobs}) is ended, and begun again by whoever comes next");
                }
                self.end(&driver.world);
            }
        }
    }

    /// Told to stop: nothing new begins, and what runs has some time; told again, it is gone.
    fn hear_signal(&mut self, world: &World<'_>) {
        if self.stopping.is_some() {
            return self.kill(world);
        }
        self.stop(self.limits.grace, world.clock.now());
        if !self.running.is_empty() {
            let grace = crate::clock::Seconds(self.limits.grace);
            log::warn!("told to stop: {} may go on for {grace}; a second signal kills at once", counted(self.running.len(), "job"));
        }
    }

    /// Nothing new begins, and what runs may go on for `grace`.
    pub fn stop(&mut self, grace: Duration, now: Moment) {
        self.stopping.get_or_insert(now + grace);
    }

    /// There is no more time: what runs is ended, and what was being ended already is gone.
    pub fn hurry(&mut self, world: &World<'_>) {
        if self.ended { self.kill(world) } else { self.end(world) }
    }

    fn end(&mut self, world: &World<'_>) {
        self.ended = true;
        self.running.iter_mut().for_each(|job| job.stop(false, world));
    }

    fn kill(&mut self, world: &World<'_>) {
        self.ended = true;
        self.running.iter_mut().for_each(|job| job.kill_now(world));
    }

    /// From now on it takes jobs of these queues, as many as they say; what runs ends with the settings it began with, and
    /// its place counts. Without any queue it ends what it runs, and is idle then.
    pub fn change(&mut self, orders: Orders) {
        let Orders { queues, tasks, telling } = orders;
        (self.tasks, self.telling) = (tasks, telling);
        self.parts.state.keep(&queues);
        self.poll = self.limits.poll.unwrap_or(poll_of(&queues));
        // Never shorter: what runs may need it to be ended.
        self.lease = self.lease.max(lease_of(&queues));
        self.queues = queues;
        self.look = true;
    }

    /// What the database said that will not pass by itself. It does nothing more until it is mended, or told to stop.
    pub fn broken(&self) -> Option<&StoreError> {
        self.broken.as_ref()
    }

    /// Why the database is away just now: it is tried again and again.
    pub fn away(&self) -> Option<String> {
        self.parts.state.away()
    }

    /// Whether the database has done what was asked since it was opened last.
    pub fn is_proved(&self) -> bool {
        self.proved
    }

    /// It tries again, with the database opened anew.
    pub fn mend(&mut self, state: State, now: Moment) {
        self.parts.state = state;
        (self.broken, self.proved) = (None, false);
        self.look = true;
        self.look_at = now;
    }

    /// Whether it is about to look for jobs.
    pub fn looks(&self) -> bool {
        self.look && self.broken.is_none()
    }

    /// The queues it works.
    pub fn queues(&self) -> &[QueueSettings] {
        &self.queues
    }

    /// The jobs it runs.
    pub fn jobs(&self) -> &[Job] {
        &self.running
    }

    /// What it has done.
    pub fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// Whether it has nothing to do, and nothing to say.
    pub fn is_idle(&self) -> bool {
        let flushed = self.finished.is_empty() && !self.parts.state.turns();
        self.queues.is_empty() && self.running.is_empty() && self.dead.is_empty() && flushed
    }

    /// Whether it has ended: all is written down, or nobody can wait for that any longer.
    pub fn is_gone(&mut self, now: Moment) -> bool {
        if self.stopping.is_some() && self.running.is_empty() {
            self.leave_at.get_or_insert(now + LAST_WORDS);
        }
        if self.leave_at.is_some_and(|at| now >= at) {
            if !self.summary.unwritten {
                log::error!("the database has not answered: how the last jobs ended is not written down, and they are begun again");
            }
            self.summary.unwritten = true;
            return true;
        }
        let flushed = self.finished.is_empty() || self.broken.is_some();
        !self.takes_jobs(now) && self.running.is_empty() && flushed && !self.parts.state.turns()
    }

    /// Hands letters to the jobs whose processes they came from.
    fn deliver(&mut self, world: &mut World<'_>) {
        let Some(inbox) = &self.inbox else { return };
        let pid = |job: &Job| job.process().map(Supervised::pid);
        for letter in std::iter::from_fn(|| inbox.next_letter()).take(LETTERS_AT_ONCE) {
            if let Some(asker) = &letter.asker {
                // Whoever asks for runs finds none here, and need not wait for an answer.
                inbox.answer(asker, b"");
                continue;
            }
            let leaders: Vec<_> = self.running.iter().filter_map(pid).collect();
            let leader = leader_of(letter.sender, &leaders);
            if let Some(job) = self.running.iter_mut().find(|job| leader.is_some() && pid(job) == leader) {
                job.hear(&letter.messages, world);
            }
        }
    }

    /// Now, by the clock of the database.
    fn wall(&self, world: &World<'_>) -> Timestamp {
        let wall = world.clock.wall();
        wall.checked_add(self.ahead.unwrap_or_default()).unwrap_or(wall)
    }

    fn takes_jobs(&self, now: Moment) -> bool {
        let over = self.limits.duration.is_some_and(|duration| now >= self.begun + duration);
        self.stopping.is_none() && !over && !self.drained && self.broken.is_none()
    }

    /// Adds the descriptors that become readable when something has happened.
    pub fn add_fds<'a>(&'a self, fds: &mut Vec<BorrowedFd<'a>>) -> Layout {
        let mut add = |fd: BorrowedFd<'a>| {
            fds.push(fd);
            fds.len() - 1
        };
        let state = add(self.parts.state.fd());
        let alarm = self.parts.alarm.as_ref().map(|alarm| add(alarm.fd()));
        let inbox = self.inbox.as_ref().map(|inbox| add(inbox.fd()));
        let jobs = fds.len();
        let mut ends = Vec::with_capacity(self.running.len());
        for job in &self.running {
            job.add_fds(fds);
            ends.push(fds.len());
        }
        Layout { state, alarm, inbox, jobs, ends }
    }

    /// The next moment at which time alone changes something.
    pub fn wake_at(&self, now: Moment) -> Option<Moment> {
        let jobs = self.running.iter().filter_map(Job::wake_at);
        let dead = self.dead.iter().map(|(_, leftovers)| leftovers.wake_at());
        let end = self.limits.duration.map(|duration| self.begun + duration).filter(|end| *end > now);
        let held = (!self.running.is_empty()).then_some(self.hold.look_at());
        let works = self.broken.is_none();
        // What was asked for wakes us by its answer.
        let renew = (works && !self.running.is_empty() && !self.parts.state.turns()).then_some(self.hold.renew_at);
        let tell = self.telling.as_ref().filter(|_| works && self.ahead.is_some()).map(|_| self.tell_at);
        let stop = self.stopping.filter(|_| !self.ended);
        let look = works.then_some(self.look_at);
        jobs.chain(dead).chain(end).chain(held).chain(renew).chain(tell).chain(stop).chain(self.leave_at).chain(look).min()
    }

    /// Acts on what was heard. `layout` says what of it is about this worker.
    pub fn act(&mut self, layout: &Layout, ready: &[bool], world: &mut World<'_>) {
        if layout.alarm.is_some_and(|at| ready[at]) {
            self.rung(world.clock.now());
        }
        if layout.inbox.is_some_and(|at| ready[at]) {
            self.deliver(world);
        }
        if ready[layout.state] {
            self.hear(world);
        }
        self.advance(layout, ready, world);
        self.end_the_dead(world);
        self.keep_limits(world);
    }

    fn rung(&mut self, now: Moment) {
        let Some(rang) = self.parts.alarm.as_ref().map(Alarm::silence) else { return };
        self.look |= rang.jobs;
        if rang.cancel {
            self.look_at = now;
        }
    }

    /// Lets the jobs act on what happened to them.
    fn advance(&mut self, layout: &Layout, ready: &[bool], world: &mut World<'_>) {
        let (now, wall) = (world.clock.now(), self.wall(world));
        let mut start = layout.jobs;
        let mut over = Vec::new();
        for (at, job) in self.running.iter_mut().enumerate() {
            // One that has begun since was not listened to; it may have ended already.
            let end = layout.ends.get(at).copied().unwrap_or(start);
            let news = ready[start..end].iter().any(|ready| *ready);
            start = end;
            let is_due = at >= layout.ends.len() || news || job.wake_at().is_some_and(|wake| now >= wake);
            if let Some(finish) = is_due.then(|| job.advance(world, wall)).flatten() {
                over.push((at, finish));
            }
        }
        for (at, finish) in over.into_iter().rev() {
            let job = self.running.swap_remove(at);
            match finish.next {
                Next::Done(_) => self.summary.done += 1,
                Next::Failed | Next::Again(_) => self.summary.failed += 1,
                Next::Back | Next::Cancelled => {}
            }
            let took = job.record().began.and_then(|began| Duration::try_from(wall.duration_since(began)).ok());
            self.tallies.add(&job.record().queue, &finish, took.unwrap_or_default());
            self.finished.push(finish);
            self.look = true;
        }
    }

    /// What time alone brings: the end of the grace, or of the lease.
    fn keep_limits(&mut self, world: &World<'_>) {
        let now = world.clock.now();
        if self.stopping.is_some_and(|at| now >= at) && !self.ended {
            self.end(world);
        }
        if self.running.is_empty() {
            return;
        }
        let alarm = self.parts.alarm.as_ref();
        match self.hold.look(now, || alarm.is_some_and(Alarm::shows_life)) {
            Standing::Held | Standing::Doubted | Standing::Seen(false) => {}
            Standing::Seen(true) => log::warn!("the database has not been heard of: jobs go on, others see that their worker lives"),
            Standing::Lost => {
                log::error!("the database has not been heard of: jobs are ended before another worker may begin them");
                self.running.iter_mut().for_each(|job| job.lose(world));
                self.hold = Hold::new(now, self.lease);
            }
        }
    }

    /// Waits until what is asked for is done, but not longer than `limit`; tells for the last time how queues stand.
    pub fn settle(&mut self, limit: Duration, wall: Timestamp) {
        if self.summary.unwritten {
            return;
        }
        if self.telling.is_some() && self.broken.is_none() {
            self.parts.state.count(wall);
        }
        for answer in self.parts.state.settle(limit) {
            if let Ok(state::Answer::Counted(counts)) = answer {
                self.tell(&counts);
            }
        }
    }

    fn tell(&mut self, counts: &[QueueCount]) {
        if let Some(telling) = &mut self.telling {
            (telling.tell)(counts, &self.tallies);
        }
    }
}
