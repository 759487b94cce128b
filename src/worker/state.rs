//! What a worker asks of the database, through a desk: it never waits for a disk. One turn at a time, so that results
//! gather while the one before is being written, and each is durable before its place is counted as free.

use std::collections::HashSet;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::queues::QueueSettings;
use crate::store::desk::{Desk, Health, Ticket};
use crate::store::job::{Finish, JobRecord, Kept, QueueCount, Turn, Turned, Want};
use crate::store::{Owner, Store, StoreError};

/// How many old jobs are forgotten at once.
const PRUNED_AT_ONCE: u32 = 500;

/// What the database says.
#[derive(Debug)]
pub enum Answer {
    /// To a turn.
    Turned(Turned),
    /// To a turn that could not be done, and why: these ends are not written down.
    Refused(Vec<Finish>, StoreError),
    /// To a look around: how far the clock of the database is ahead, in milliseconds, and who runs what.
    Around(i64, Vec<Seen>),
    /// How many jobs there are.
    Counted(Vec<QueueCount>),
    /// Whether a job of the queues is ready or running.
    Open(bool),
    /// To a job that was asked for by its number.
    Taken(Option<Box<JobRecord>>),
    /// Jobs of dead workers are free again.
    Freed,
}

/// A job that a worker has, or had when it died.
#[derive(Debug)]
pub struct Seen {
    /// The job.
    pub job: JobRecord,
    /// Whether its worker lives; of another machine or container nobody knows, unless there is a sign of life.
    pub alive: Option<bool>,
}

/// The desk, and what has not been answered.
#[derive(Debug)]
pub struct State {
    desk: Desk<Answer>,
    owner: Owner,
    kept: Vec<Kept>,
    turn: Option<Ticket>,
    around: Option<Ticket>,
    counting: Option<Ticket>,
    asking: Option<Ticket>,
}

impl State {
    /// Opens the database by `open`, again and again until it works.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn new(
        open: impl FnMut() -> Result<Box<dyn Store>, StoreError> + Send + 'static,
        owner: Owner,
        queues: &[QueueSettings],
    ) -> io::Result<Self> {
        Ok(Self { desk: Desk::new(open)?, owner, kept: kept(queues), turn: None, around: None, counting: None, asking: None })
    }

    /// From now on so many jobs of these queues are kept.
    pub fn keep(&mut self, queues: &[QueueSettings]) {
        self.kept = kept(queues);
    }

    /// The worker's process.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Why the database is away just now, if it is.
    pub fn away(&self) -> Option<String> {
        match self.desk.health() {
            Health::Away(why) => Some(why),
            Health::Opening | Health::Good => None,
        }
    }

    /// Readable when there are answers.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.desk.fd()
    }

    /// Whether a turn has not been answered.
    pub fn turns(&self) -> bool {
        self.turn.is_some()
    }

    /// Whether a question for numbers has not been answered.
    pub fn counts(&self) -> bool {
        self.counting.is_some()
    }

    /// Whether nothing is asked for.
    pub fn is_quiet(&self) -> bool {
        self.desk.open_requests() == 0
    }

    /// Asks for a turn.
    pub fn turn(&mut self, turn: Turn) {
        let mut turn = turn;
        self.turn = Some(self.desk.ask(move |store| {
            let turned = store.turn(&turn);
            // Whoever asks once more does not know whether this was done.
            turn.again = true;
            match turned {
                Err(error) if !error.may_pass() => Ok(Answer::Refused(std::mem::take(&mut turn.finishes), error)),
                turned => turned.map(Answer::Turned),
            }
        }));
    }

    /// Asks for one job by its number.
    pub fn take(&mut self, id: i64, turn: Turn) {
        self.turn = Some(self.desk.ask(move |store| store.take_job(id, &turn).map(|job| Answer::Taken(job.map(Box::new)))));
    }

    /// Looks around, unless it is just being done.
    pub fn look_around(&mut self, wall: impl Fn() -> Timestamp + Send + 'static) {
        if self.around.is_some() {
            return;
        }
        let (kept, here) = (self.kept.clone(), self.owner.clone());
        self.around = Some(self.desk.ask(move |store| {
            let ours = wall();
            let theirs = store.clock(ours)?;
            let running = look(store, &here)?;
            store.prune_jobs(&kept, theirs, PRUNED_AT_ONCE)?;
            Ok(Answer::Around(theirs.as_millisecond() - ours.as_millisecond(), running))
        }));
    }

    /// Asks how many jobs there are.
    pub fn count(&mut self, now: Timestamp) {
        if self.counting.is_none() {
            self.counting = Some(self.desk.ask(move |store| store.count_jobs(now).map(Answer::Counted)));
        }
    }

    /// Asks whether a job of these queues is ready or running, here or elsewhere.
    pub fn ask_open(&mut self, wants: Vec<Want>, now: Timestamp) {
        if self.asking.is_none() {
            self.asking = Some(self.desk.ask(move |store| store.has_open_jobs(&wants, now).map(Answer::Open)));
        }
    }

    /// Gives jobs of dead workers free.
    pub fn free(&mut self, finishes: Vec<Finish>) {
        self.desk.ask(move |store| store.finish_jobs(&finishes).map(|_| Answer::Freed));
    }

    /// What was answered.
    ///
    /// # Errors
    /// What will not pass by itself.
    pub fn answers(&mut self) -> Vec<Result<Answer, StoreError>> {
        let answers = self.desk.answers();
        answers.into_iter().map(|(ticket, answer)| self.answered(ticket, answer)).collect()
    }

    fn answered(&mut self, ticket: Ticket, answer: Result<Answer, StoreError>) -> Result<Answer, StoreError> {
        for open in [&mut self.turn, &mut self.around, &mut self.counting, &mut self.asking] {
            open.take_if(|open| *open == ticket);
        }
        answer
    }

    /// Waits for what is asked for, but not longer than `limit`; what was answered meanwhile.
    ///
    /// # Errors
    /// As for [`State::answers`].
    pub fn settle(&mut self, limit: Duration) -> Vec<Result<Answer, StoreError>> {
        let answers = self.desk.settle(limit);
        answers.into_iter().map(|(ticket, answer)| self.answered(ticket, answer)).collect()
    }
}

/// Who runs what. A worker may have written down the end of a job and left between the look into the database and the one at
/// its process: only what it still has after its process was found to be gone is a dead worker's.
fn look(store: &mut dyn Store, here: &Owner) -> Result<Vec<Seen>, StoreError> {
    let running = store.running_jobs()?;
    let lives = |owner: Owner| owner.is_alive(here).or_else(|| store.sees_life(&owner).then_some(true));
    let seen = |job: JobRecord| Seen { alive: job.owner().and_then(lives), job };
    let mut around: Vec<Seen> = running.into_iter().map(seen).collect();
    if around.iter().any(|seen| seen.alive == Some(false)) {
        let still: HashSet<Option<String>> = store.running_jobs()?.into_iter().map(|job| job.claim).collect();
        around.retain(|seen| seen.alive != Some(false) || still.contains(&seen.job.claim));
    }
    Ok(around)
}

fn kept(queues: &[QueueSettings]) -> Vec<Kept> {
    let kept = |queue: &QueueSettings| Kept { queue: queue.name.clone(), done: queue.keep_done, failed: queue.keep_failed };
    queues.iter().map(kept).collect()
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
