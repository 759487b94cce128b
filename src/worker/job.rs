//! One attempt of a job: a try of its task, with the variables of a job. It never waits; the loop of the worker does.

use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::chain::World;
use crate::chain::attempt::{Attempt, Kit, Progress};
use crate::chain::setup::Setup;
use crate::clock::{Moment, Seconds};
use crate::config::queues::QueueSettings;
use crate::environment::{Block, variable};
use crate::event::{Event, Reader, RunRef, TaskEnd};
use crate::names::RunId;
use crate::notify::Message;
use crate::opinion::Opinion;
use crate::outcome::{ExitKind, Verdict};
use crate::process::Supervised;
use crate::queue::{Next, Patience, after_attempt, after_death, leaves_repetition, next_repetition};
use crate::store::job::{Finish, JobRecord};
use crate::trigger::{Trigger, TriggerKind};

/// How much of the output of an attempt that failed is kept, in bytes.
const LAST_ERROR: usize = 4096;

/// What an attempt needs from its beginning to its end.
struct Frame {
    setup: Setup,
    run: RunRef,
    variables: Block,
}

impl Frame {
    /// The same with what the world has, at this moment.
    fn kit<'k, 'w: 'k>(&'k self, world: &World<'w>) -> Kit<'k> {
        Kit {
            setup: &self.setup,
            run: &self.run,
            family: world.family,
            clock: world.clock,
            now: world.clock.now(),
            run_variables: &self.variables,
            run_deadline: None,
        }
    }
}

/// A job that a worker runs.
pub struct Job {
    record: JobRecord,
    patience: Patience,
    frame: Frame,
    attempt: Attempt,
    cancelled: bool,
    /// It may be another worker's by now.
    lost: bool,
    ended: Option<(TaskEnd, Next)>,
    said: Said,
}

/// What a task has said of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// How far it is, 0 to 100.
    pub progress: Option<u8>,
    /// In its own words.
    pub status: Option<String>,
}

impl Job {
    /// Begins an attempt. `setup` has its task alone; `variables` are RUNNER_CONFIG_CMD and its kin.
    pub fn begin(record: JobRecord, queue: &QueueSettings, setup: Setup, variables: &[CString], world: &mut World<'_>) -> Self {
        let patience = patience(&record, queue);
        let scheduled_at = Some(record.planned().to_zoned(TimeZone::UTC));
        let trigger = Trigger { scheduled_at, ..Trigger::of(TriggerKind::Queue) };
        let id = RunId::of_attempt(record.claim.as_deref().unwrap_or_default());
        let run = RunRef { chain: setup.chain.name.clone(), id, trigger };
        let own = [
            variable(b"RUNNER_CHAIN", run.chain.as_bytes()),
            variable(b"RUNNER_RUN_ID", run.id.as_str().as_bytes()),
            variable(b"RUNNER_TRIGGER", run.trigger.kind.word().as_bytes()),
            variable(b"RUNNER_JOB_ID", record.id.to_string().as_bytes()),
            run.trigger.scheduled_text().and_then(|at| variable(b"RUNNER_SCHEDULED_AT", at.as_bytes())),
        ];
        let variables: Block = variables.iter().cloned().chain(own.into_iter().flatten()).collect();
        let frame = Frame { setup, run, variables };
        let kit = frame.kit(world);
        let mut events = Events::new(&record, &mut *world.reader);
        let attempt = Attempt::begin(&kit, 0, record.attempts.max(1), patience.max_attempts.max(record.attempts), &mut events);
        Self { record, patience, frame, attempt, cancelled: false, lost: false, ended: None, said: Said::default() }
    }

    /// The job.
    pub fn record(&self) -> &JobRecord {
        &self.record
    }

    /// The longest time its end may take when it is told to stop.
    pub fn longest_stop(&self) -> Duration {
        self.frame.setup.longest_stop()
    }

    /// What its task has said of itself.
    pub fn said(&self) -> &Said {
        &self.said
    }

    /// How many attempts it has in all; `u32::MAX` is no limit.
    pub fn max_attempts(&self) -> u32 {
        self.patience.max_attempts
    }

    /// The process that runs, if one does.
    pub fn process(&self) -> Option<&Supervised> {
        self.attempt.process()
    }

    /// Its task has said something of itself; any word is a sign of life.
    pub fn hear(&mut self, messages: &[Message], world: &mut World<'_>) {
        let Self { record, frame, attempt, said, .. } = self;
        let kit = frame.kit(world);
        let mut events = Events::new(record, &mut *world.reader);
        attempt.hear(&kit, messages, &mut events);
        let Said { progress, status } = events.said;
        said.progress = progress.or(said.progress);
        said.status = status.or_else(|| said.status.take());
    }

    /// Adds the descriptors that become readable when something happened to it.
    pub fn add_fds<'a>(&'a self, fds: &mut Vec<BorrowedFd<'a>>) {
        fds.extend(self.attempt.fds());
    }

    /// The next moment at which time alone changes something.
    pub fn wake_at(&self) -> Option<Moment> {
        self.attempt.wake_at(&self.frame.setup)
    }

    /// It is to end: TERM, grace, KILL. `cancelled` is whether nobody wants it any more.
    pub fn stop(&mut self, cancelled: bool, world: &World<'_>) {
        self.cancelled |= cancelled;
        self.attempt.cancel(&self.frame.kit(world));
    }

    /// It is to end, because it may be another worker's by now.
    pub fn lose(&mut self, world: &World<'_>) {
        self.lost = true;
        self.attempt.cancel(&self.frame.kit(world));
    }

    /// It is to be gone.
    pub fn kill_now(&mut self, world: &World<'_>) {
        self.attempt.kill_now(&self.frame.kit(world));
    }

    /// Looks what has happened to it; how it ended, when all is over.
    pub fn advance(&mut self, world: &mut World<'_>, now: jiff::Timestamp) -> Option<Finish> {
        let Self { record, patience, frame, attempt, cancelled, lost, ended, .. } = self;
        let kit = frame.kit(world);
        let mut events = Events::new(record, &mut *world.reader);
        while let Some(progress) = attempt.advance(&kit, &mut events) {
            match progress {
                Progress::Judged(judged) => {
                    let next = after_attempt(judged.verdict, record.attempts, *patience, *cancelled, now);
                    // What has begun, and was ended because it may have begun elsewhere, was an attempt.
                    let then = match next {
                        // A longer wait makes no argument shorter.
                        Next::Again(_) if attempt.is_hopeless() => Next::Failed,
                        Next::Back if *lost => after_death(record.attempts, patience.max_attempts, now),
                        next => next,
                    };
                    events.again = again_in(then, now);
                    attempt.conclude(&kit, judged.verdict, then == Next::Failed, &mut events);
                    *ended = events.end.take().map(|end| (end, then));
                    if ended.is_none() {
                        // It was stopped before it began.
                        return Some(not_begun(record, next, now));
                    }
                }
                Progress::Freed => {
                    let (end, next) = ended.take()?;
                    let mut finish = finish(record, &end, next, now);
                    if *lost && end.verdict == Verdict::Cancel {
                        finish.message = Some("ended: its worker could not tell any more whether it was its own".to_owned());
                    }
                    return Some(finish);
                }
            }
        }
        None
    }
}

/// How a job is tried again: its own number of attempts goes before that of its queue.
pub fn patience(record: &JobRecord, queue: &QueueSettings) -> Patience {
    let of_job = record.max_attempts.map(|most| if most == 0 { u32::MAX } else { most });
    Patience { max_attempts: of_job.unwrap_or(queue.max_attempts.count()), delay: queue.retry_delay }
}

/// How often a job of this queue is tried in all; `u32::MAX` is no limit.
pub fn max_attempts(record: &JobRecord, queue: &QueueSettings) -> u32 {
    patience(record, queue).max_attempts
}

fn repetition(record: &JobRecord, next: Next, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
    let wanted = leaves_repetition(next);
    wanted.then(|| next_repetition(record.planned(), record.repeat(), record.repeat_until, now)).flatten()
}

/// The end of a job that was never begun, or whose worker is gone.
pub fn not_begun(record: &JobRecord, next: Next, now: jiff::Timestamp) -> Finish {
    Finish {
        id: record.id,
        claim: record.claim.clone().unwrap_or_default(),
        next,
        repetition: repetition(record, next, now),
        at: now,
        result: Verdict::Cancel.word(),
        exit_code: None,
        signal: None,
        message: None,
        last_error: None,
        lease: None,
    }
}

/// The end of an attempt that could not begin, and why.
pub fn not_started(record: &JobRecord, queue: &QueueSettings, why: &str, now: jiff::Timestamp) -> Finish {
    let next = after_attempt(Verdict::Retry, record.attempts, patience(record, queue), record.cancel, now);
    let message = Some(ExitKind::NotStarted(why.to_owned()).to_string());
    Finish { result: Verdict::Retry.word(), message, ..not_begun(record, next, now) }
}

fn finish(record: &JobRecord, end: &TaskEnd, next: Next, now: jiff::Timestamp) -> Finish {
    let failed = matches!(end.verdict, Verdict::Retry | Verdict::Halt | Verdict::Exit);
    let last_error = failed.then(|| {
        let from = end.tail.len().saturating_sub(LAST_ERROR);
        String::from_utf8_lossy(&end.tail[from..]).into_owned()
    });
    Finish {
        result: end.verdict.word(),
        exit_code: end.exit.code(),
        signal: end.exit.signal(),
        message: Some(format!("{}{}", end.exit, doubt(end))),
        last_error,
        ..not_begun(record, next, now)
    }
}

/// What the task of a job doubts, behind how it ended.
fn doubt(end: &TaskEnd) -> String {
    end.doubt().map(|said| format!(", says {}", said.word())).unwrap_or_default()
}

/// Tells of an attempt that could not begin, as of every other end.
pub fn tell_not_started(record: &JobRecord, queue: &QueueSettings, why: &str, (next, now): (Next, jiff::Timestamp)) {
    let (job, task, try_num, failed) = (record.id, record.task.as_str(), record.attempts, next == Next::Failed);
    let (level, end) = if failed { (log::Level::Error, "failed for good") } else { (log::Level::Warn, "failed") };
    let (attempt, chain) = (attempt_of(try_num, max_attempts(record, queue)), queue.chain.name.as_str());
    log::log!(level, event = "job_ended", job, queue = queue.name.as_str(), chain, run_id = record.claim.as_deref().unwrap_or_default(), task, try_num,
        result = Verdict::Retry.word(), final_try = failed, exit_code = None::<u64>, signal = None::<i32>, duration_ms = 0, said = None::<&str>;
        "job {job}, {task}: {end}: could not start: {why}, {attempt}{}", again_in(next, now));
}

/// Which attempt of how many.
fn attempt_of(number: u32, most: u32) -> String {
    if most == u32::MAX { format!("attempt {number}") } else { format!("attempt {number} of {most}") }
}

/// When it is tried again, if it is.
fn again_in(next: Next, now: jiff::Timestamp) -> String {
    match next {
        Next::Again(at) => format!("; next try in {}", Seconds(now.duration_until(at).unsigned_abs())),
        Next::Done(_) | Next::Failed | Next::Back | Next::Cancelled => String::new(),
    }
}

/// Hears of the events of an attempt: what it is to be told of a job says which job.
struct Events<'a> {
    record: &'a JobRecord,
    others: &'a mut dyn Reader,
    end: Option<TaskEnd>,
    said: Said,
    /// When it is tried again, in words.
    again: String,
}

impl<'a> Events<'a> {
    fn new(record: &'a JobRecord, others: &'a mut dyn Reader) -> Self {
        Self { record, others, end: None, said: Said::default(), again: String::new() }
    }

    fn ended(&self, run: &RunRef, end: &TaskEnd) {
        let (job, queue, task, took) = (self.record.id, self.record.queue.as_str(), end.task.text(), Seconds(end.duration));
        let duration_ms = u64::try_from(end.duration.as_millis()).unwrap_or(u64::MAX);
        let (attempt, again) = (attempt_of(end.try_num, end.max_tries), &self.again);
        let doubt = doubt(end);
        let well = if doubt.is_empty() { log::Level::Info } else { log::Level::Warn };
        let (level, how) = match end.verdict {
            Verdict::Ok => (well, "done".to_owned()),
            Verdict::Skip => (well, format!("done, skipped, {}", end.exit)),
            Verdict::Cancel => (log::Level::Info, "stopped".to_owned()),
            Verdict::Retry if !end.last => (log::Level::Warn, format!("failed: {}, {attempt}", end.exit)),
            Verdict::Retry | Verdict::Halt | Verdict::Exit => (log::Level::Error, format!("failed for good: {}, {attempt}", end.exit)),
        };
        log::log!(level, event = "job_ended", job, queue, chain = run.chain.as_str(), run_id = run.id.as_str(), task, try_num = end.try_num, result = end.verdict.word(),
            final_try = end.last, exit_code = end.exit.code().map(u64::from), signal = end.exit.signal(), duration_ms, said = end.said.map(Opinion::word);
            "job {job}, {task}: {how}, in {took}{doubt}{again}");
        if end.unkillable {
            log::error!("job {job}, {task}: unkillable, a process of it survives KILL");
        }
        if !end.left_behind.is_empty() {
            let pids = end.left_behind.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            log::warn!("job {job}, {task}: left processes behind: pid {pids}");
        }
    }
}

impl Reader for Events<'_> {
    fn tell(&mut self, run: &RunRef, event: &Event<'_>) {
        let job = self.record.id;
        match event {
            Event::TaskStarted { task, try_num, .. } => {
                let (queue, chain, run_id, task) = (self.record.queue.as_str(), run.chain.as_str(), run.id.as_str(), task.text());
                log::debug!(event = "job_started", job, queue, chain, run_id, task, try_num; "job {job}, {task}: started, attempt {try_num}");
            }
            Event::TaskEnding { task, why, kill_after } => {
                let grace = Seconds(*kill_after);
                log::warn!("job {job}, {task}: {why}; sent TERM, KILL follows in {grace}");
            }
            Event::TaskEnded(end) => {
                self.ended(run, end);
                self.end = Some((*end).clone());
            }
            Event::TaskProgress { percent, status, .. } => {
                self.said = Said { progress: *percent, status: status.map(str::to_owned) };
                self.others.tell(run, event);
            }
            Event::HookFailed { .. }
            | Event::RunStarted { .. }
            | Event::RunRefused { .. }
            | Event::TaskSleeping { .. }
            | Event::RunRetry { .. }
            | Event::HaltStarted { .. }
            | Event::HaltEnded { .. }
            | Event::Stopping { .. }
            | Event::RunEnded { .. } => self.others.tell(run, event),
        }
    }
}
