//! What outlives the process: slots that are used once, and the history of runs. One contract, two engines.
//!
//! [`Store`] is the contract. `slots` and `runs` fulfil it for every [`engine::Engine`]; `sqlite` and `postgres` are the
//! engines; `schema` has the tables and their versions. `record` is what is kept of a run, `past` how a chain stands by
//! that, `spool` where the main chain leaves it without a database, `desk` a thread that keeps a slow database away from
//! whoever supervises processes.

pub mod alive;
pub mod desk;
pub mod engine;
pub mod error;
mod going;
pub mod job;
mod jobs;
pub mod open;
pub mod owner;
pub mod past;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod record;
mod runs;
mod schema;
mod slots;
pub mod spool;
pub mod sqlite;
mod turn;
pub mod wake;

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use engine::Engine;
pub use error::StoreError;
use job::{Finish, JobQuery, JobRecord, Kept, NewJob, QueueCount, Turn, Turned, Want};
pub use owner::Owner;
use record::RunRecord;
use spool::Spool;

/// The newest version of the tables.
pub const VERSION: i64 = schema::VERSION;
/// The machine of slots that are used once in a whole cluster (`scope = cluster`). No machine-id looks like it.
pub const CLUSTER: &str = "cluster";

/// A moment for which a schedule wants a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// This planned time.
    At(Timestamp),
    /// The boot with this id.
    Boot(String),
}

impl Slot {
    /// The planned time, if it has one.
    pub fn time(&self) -> Option<Timestamp> {
        match self {
            Self::At(time) => Some(*time),
            Self::Boot(_) => None,
        }
    }

    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("boot:") {
            Some(id) => Some(Self::Boot(id.to_owned())),
            None => text.parse().ok().map(Self::At),
        }
    }
}

/// `boot:ID`, or RFC 3339 in UTC.
impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(time) => write!(f, "{time}"),
            Self::Boot(id) => write!(f, "boot:{id}"),
        }
    }
}

/// What a slot is known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotKey {
    /// [`Owner::machine`], or [`CLUSTER`].
    pub machine: String,
    /// The chain.
    pub chain: String,
    /// The moment.
    pub slot: Slot,
}

/// Somebody wants a slot for this run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotClaim {
    /// The slot.
    pub key: SlotKey,
    /// The run that is to use it.
    pub run_id: String,
}

/// A slot that was claimed for a run that has not begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingSlot {
    /// The slot and the run.
    pub claim: SlotClaim,
    /// Who claimed it.
    pub owner: Owner,
    /// When.
    pub claimed_at: Timestamp,
}

/// Which runs of the past are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Only those of this chain.
    pub chain: Option<String>,
    /// Only those that ended otherwise than wanted.
    pub failed: bool,
    /// Not more than these.
    pub limit: u32,
}

/// How much of the past is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// So many runs.
    pub runs: u32,
    /// So long.
    pub age: Duration,
}

/// What every database of runner can do. Each of these is one transaction; what is acknowledged is durable. All may be
/// repeated after an error, also when the first one has been done after all.
pub trait Store: Send {
    /// The database as it may be shown.
    fn name(&self) -> &str;

    /// Claims slots; for each whether it is ours. One that the same run has claimed before still is. Used slots stay
    /// used, also when they were pruned since. Notes that it was `now`.
    ///
    /// # Errors
    /// Nothing was claimed, or nobody knows: ask again.
    fn claim_slots(&mut self, claims: &[SlotClaim], owner: &Owner, now: Timestamp) -> Result<Vec<bool>, StoreError>;

    /// Claims slots, and keeps the records of those runs that are to use one of them and got it: they begin at once.
    ///
    /// # Errors
    /// Nothing was claimed and nothing kept, or nobody knows: ask again.
    fn claim_and_begin(
        &mut self,
        claims: &[SlotClaim],
        begun: &[RunRecord],
        owner: &Owner,
        now: Timestamp,
    ) -> Result<Vec<bool>, StoreError>;

    /// Takes back that runs have begun: nothing of them was started. Their slots wait again; whose run has ended stays used.
    ///
    /// # Errors
    /// It could not be written.
    fn give_back(&mut self, run_ids: &[String]) -> Result<(), StoreError>;

    /// All slots of the chain up to this one have been considered: they were claimed, given up, or the chain was seen for the first
    /// time. Never goes back. Notes that it was `now`.
    ///
    /// # Errors
    /// It could not be written.
    fn set_watermarks(&mut self, machine: &str, marks: &[(String, Timestamp)], owner: &Owner, now: Timestamp) -> Result<(), StoreError>;

    /// The newest slot that was considered, for each chain of the machine.
    ///
    /// # Errors
    /// It could not be read.
    fn watermarks(&mut self, machine: &str) -> Result<Vec<(String, Timestamp)>, StoreError>;

    /// The newest time that this machine has noted: a wall clock before it is no clock.
    ///
    /// # Errors
    /// It could not be read.
    fn newest_time(&mut self, owner: &Owner) -> Result<Option<Timestamp>, StoreError>;

    /// The slots that somebody on this host has claimed for runs that have not begun. Whose owner is gone is lost unless
    /// somebody takes it over.
    ///
    /// # Errors
    /// It could not be read.
    fn waiting_slots(&mut self, host: &str) -> Result<Vec<WaitingSlot>, StoreError>;

    /// Takes a waiting slot over for another run; false when somebody else was quicker or its run has begun.
    ///
    /// # Errors
    /// It could not be written.
    fn take_over_slot(&mut self, from: &SlotClaim, run_id: &str, owner: &Owner, now: Timestamp) -> Result<bool, StoreError>;

    /// Forgets up to `most` slots before `before`. They count as used from then on. Tells how many there were.
    ///
    /// # Errors
    /// It could not be written.
    fn prune_slots(&mut self, before: Timestamp, most: u32) -> Result<u64, StoreError>;

    /// Keeps records of runs. One that is known is replaced, unless that one has ended: an end stays.
    ///
    /// # Errors
    /// None of them could be written.
    fn put_runs(&mut self, records: &[RunRecord]) -> Result<(), StoreError>;

    /// Runs of the past and those that go on, the newest first, without their tries.
    ///
    /// # Errors
    /// It could not be read.
    fn runs(&mut self, query: &HistoryQuery) -> Result<Vec<RunRecord>, StoreError>;

    /// The ids that begin so, up to `most`.
    ///
    /// # Errors
    /// It could not be read.
    fn find_runs(&mut self, prefix: &str, most: u32) -> Result<Vec<String>, StoreError>;

    /// One run with its tries.
    ///
    /// # Errors
    /// It could not be read.
    fn run(&mut self, run_id: &str) -> Result<Option<RunRecord>, StoreError>;

    /// The runs on this host that have begun and not ended: they go on, or their process is gone
    /// ([`Owner::is_alive`] of their [`RunRecord`]).
    ///
    /// # Errors
    /// It could not be read.
    fn open_runs(&mut self, host: &str) -> Result<Vec<RunRecord>, StoreError>;

    /// Forgets up to `most` ended runs that are over the retention. Tells how many there were.
    ///
    /// # Errors
    /// It could not be written.
    fn prune_runs(&mut self, keep: Retention, now: Timestamp, most: u32) -> Result<u64, StoreError>;

    /// The time by the clock that all users of the database share; `ours` where that is the machine's.
    ///
    /// # Errors
    /// It could not be asked.
    fn clock(&mut self, ours: Timestamp) -> Result<Timestamp, StoreError>;

    /// Adds jobs, all or none; the id of each. One that stands for an equal one that is there has the id of that.
    ///
    /// # Errors
    /// None was added.
    fn enqueue(&mut self, jobs: &[NewJob], now: Timestamp) -> Result<Vec<i64>, StoreError>;

    /// A worker's turn: what became of its jobs, a longer lease for those it has, and jobs for its free places.
    ///
    /// # Errors
    /// Nothing of it was done, or nobody knows: ask again, with [`Turn::again`].
    fn turn(&mut self, turn: &Turn) -> Result<Turned, StoreError>;

    /// Takes jobs away from workers that are gone. Tells how many there were: others may have been quicker.
    ///
    /// # Errors
    /// Nothing was done.
    fn finish_jobs(&mut self, finishes: &[Finish]) -> Result<u64, StoreError>;

    /// Whether what was opened is not what has its name any more: moved away, deleted, replaced. It is not to be used then.
    fn is_gone(&mut self) -> bool;

    /// Whether there is a sign that this process lives, although nobody here can see it.
    fn sees_life(&self, owner: &Owner) -> bool;

    /// All jobs that a worker has, or had when it died.
    ///
    /// # Errors
    /// It could not be read.
    fn running_jobs(&mut self) -> Result<Vec<JobRecord>, StoreError>;

    /// Jobs, the newest first.
    ///
    /// # Errors
    /// It could not be read.
    fn jobs(&mut self, query: &JobQuery) -> Result<Vec<JobRecord>, StoreError>;

    /// One job.
    ///
    /// # Errors
    /// It could not be read.
    fn job(&mut self, id: i64) -> Result<Option<JobRecord>, StoreError>;

    /// Takes a job that waits for this worker, whenever it is due; `None` when it does not wait.
    ///
    /// # Errors
    /// It could not be written.
    fn take_job(&mut self, id: i64, turn: &Turn) -> Result<Option<JobRecord>, StoreError>;

    /// Nobody wants these jobs any more: those that wait are cancelled, those that run are to be ended by their worker.
    /// The ids of both.
    ///
    /// # Errors
    /// Nothing was done.
    fn cancel_jobs(&mut self, ids: &[i64], now: Timestamp) -> Result<(Vec<i64>, Vec<i64>), StoreError>;

    /// These jobs, which have ended, begin anew. The ids of those that did.
    ///
    /// # Errors
    /// Nothing was done.
    fn retry_jobs(&mut self, ids: &[i64], now: Timestamp) -> Result<Vec<i64>, StoreError>;

    /// Forgets up to `most` jobs that have ended and are over what is kept. Tells how many there were.
    ///
    /// # Errors
    /// Nothing was done.
    fn prune_jobs(&mut self, kept: &[Kept], now: Timestamp, most: u32) -> Result<u64, StoreError>;

    /// How many jobs of each state each queue has.
    ///
    /// # Errors
    /// It could not be read.
    fn count_jobs(&mut self, now: Timestamp) -> Result<Vec<QueueCount>, StoreError>;

    /// Whether a job of these queues is ready or running. However many jobs there are, it takes no longer.
    ///
    /// # Errors
    /// It could not be read.
    fn has_open_jobs(&mut self, wants: &[Want], now: Timestamp) -> Result<bool, StoreError>;
}

impl<E: Engine> Store for E {
    fn name(&self) -> &str {
        self.shown()
    }

    fn claim_slots(&mut self, claims: &[SlotClaim], owner: &Owner, now: Timestamp) -> Result<Vec<bool>, StoreError> {
        write(self, "claim slots", |on| slots::claim(on, claims, owner, now))
    }

    fn claim_and_begin(
        &mut self,
        claims: &[SlotClaim],
        begun: &[RunRecord],
        owner: &Owner,
        now: Timestamp,
    ) -> Result<Vec<bool>, StoreError> {
        write(self, "claim slots", |on| {
            let ours = slots::claim(on, claims, owner, now)?;
            let holders: HashSet<&str> = claims.iter().zip(&ours).filter(|(_, ours)| **ours).map(|(claim, _)| &*claim.run_id).collect();
            let got: Vec<RunRecord> = begun.iter().filter(|record| holders.contains(&*record.run_id)).cloned().collect();
            runs::put(on, &got)?;
            Ok(ours)
        })
    }

    fn give_back(&mut self, run_ids: &[String]) -> Result<(), StoreError> {
        write(self, "take back that a run has begun", |on| runs::give_back(on, run_ids))
    }

    fn set_watermarks(&mut self, machine: &str, marks: &[(String, Timestamp)], owner: &Owner, now: Timestamp) -> Result<(), StoreError> {
        write(self, "note which slots were considered", |on| slots::set_watermarks(on, machine, marks, (owner, now)))
    }

    fn watermarks(&mut self, machine: &str) -> Result<Vec<(String, Timestamp)>, StoreError> {
        read(self, "read which slots were considered", |on| slots::watermarks(on, machine))
    }

    fn newest_time(&mut self, owner: &Owner) -> Result<Option<Timestamp>, StoreError> {
        read(self, "read the newest time", |on| slots::newest_time(on, owner))
    }

    fn waiting_slots(&mut self, host: &str) -> Result<Vec<WaitingSlot>, StoreError> {
        read(self, "read the claimed slots", |on| slots::waiting(on, host))
    }

    fn take_over_slot(&mut self, from: &SlotClaim, run_id: &str, owner: &Owner, now: Timestamp) -> Result<bool, StoreError> {
        write(self, "take a slot over", |on| slots::take_over(on, from, run_id, (owner, now)))
    }

    fn prune_slots(&mut self, before: Timestamp, most: u32) -> Result<u64, StoreError> {
        write(self, "forget old slots", |on| slots::prune(on, before, most))
    }

    fn put_runs(&mut self, records: &[RunRecord]) -> Result<(), StoreError> {
        write(self, "keep the record of a run", |on| runs::put(on, records))
    }

    fn runs(&mut self, query: &HistoryQuery) -> Result<Vec<RunRecord>, StoreError> {
        read(self, "read the history", |on| runs::history(on, query))
    }

    fn find_runs(&mut self, prefix: &str, most: u32) -> Result<Vec<String>, StoreError> {
        read(self, "look for a run", |on| runs::find(on, prefix, most))
    }

    fn run(&mut self, run_id: &str) -> Result<Option<RunRecord>, StoreError> {
        read(self, "read a run", |on| runs::one(on, run_id))
    }

    fn open_runs(&mut self, host: &str) -> Result<Vec<RunRecord>, StoreError> {
        read(self, "read the runs that go on", |on| runs::open(on, host))
    }

    fn prune_runs(&mut self, keep: Retention, now: Timestamp, most: u32) -> Result<u64, StoreError> {
        write(self, "forget old runs", |on| runs::prune(on, keep, now, most))
    }

    fn clock(&mut self, ours: Timestamp) -> Result<Timestamp, StoreError> {
        Engine::clock(self, ours)
    }

    fn enqueue(&mut self, jobs: &[NewJob], now: Timestamp) -> Result<Vec<i64>, StoreError> {
        let mut before = None;
        write(self, "add jobs", |on| jobs::enqueue(on, jobs, now, &mut before))
    }

    fn turn(&mut self, turn: &Turn) -> Result<Turned, StoreError> {
        let idle = turn.finishes.is_empty() && !turn.renew && !turn.again;
        if idle && let Some(turned) = read(self, "look for jobs", |on| turn::look(on, turn))? {
            return Ok(turned);
        }
        let (mut again, mut rest) = (turn.again, None);
        if turn::is_plain(turn)
            && let Some(on) = self.alone()
        {
            match turn::at_once(on, turn) {
                Ok(Some(turned)) => return Ok(turned),
                Ok(None) => rest = Some(Turn { finishes: Vec::new(), plenty: false, ..turn.clone() }),
                // Nobody knows what of it was done: it is looked for, with the care that is taken there.
                Err(_) => {}
            }
            again = true;
        }
        let turn = rest.as_ref().unwrap_or(turn);
        write(self, "take jobs", |on| turn::turn(on, turn, std::mem::replace(&mut again, true)))
    }

    fn finish_jobs(&mut self, finishes: &[Finish]) -> Result<u64, StoreError> {
        write(self, "give jobs back", |on| turn::finish_all(on, finishes))
    }

    fn is_gone(&mut self) -> bool {
        Engine::is_gone(self)
    }

    fn sees_life(&self, owner: &Owner) -> bool {
        Engine::sees_life(self, owner)
    }

    fn running_jobs(&mut self) -> Result<Vec<JobRecord>, StoreError> {
        read(self, "read the jobs that run", jobs::running)
    }

    fn jobs(&mut self, query: &JobQuery) -> Result<Vec<JobRecord>, StoreError> {
        read(self, "read jobs", |on| jobs::list(on, query))
    }

    fn job(&mut self, id: i64) -> Result<Option<JobRecord>, StoreError> {
        read(self, "read a job", |on| jobs::one(on, id))
    }

    fn take_job(&mut self, id: i64, turn: &Turn) -> Result<Option<JobRecord>, StoreError> {
        write(self, "take a job", |on| turn::take_one(on, id, turn))
    }

    fn cancel_jobs(&mut self, ids: &[i64], now: Timestamp) -> Result<(Vec<i64>, Vec<i64>), StoreError> {
        write(self, "cancel jobs", |on| jobs::cancel(on, ids, now))
    }

    fn retry_jobs(&mut self, ids: &[i64], now: Timestamp) -> Result<Vec<i64>, StoreError> {
        write(self, "begin jobs anew", |on| jobs::retry(on, ids, now))
    }

    fn prune_jobs(&mut self, kept: &[Kept], now: Timestamp, most: u32) -> Result<u64, StoreError> {
        write(self, "forget old jobs", |on| jobs::prune(on, kept, now, most))
    }

    fn count_jobs(&mut self, now: Timestamp) -> Result<Vec<QueueCount>, StoreError> {
        read(self, "count jobs", |on| jobs::count(on, now))
    }

    fn has_open_jobs(&mut self, wants: &[Want], now: Timestamp) -> Result<bool, StoreError> {
        read(self, "look for jobs", |on| turn::has_open(on, wants, now))
    }
}

/// Ends the runs on this host whose process is gone: nobody else will. Tells which they were. Of some it is known that
/// nothing was started (`never_began`): their slots wait again. What has left its end in the `spool` is none of them.
///
/// # Errors
/// The database does not answer.
pub fn end_crashed(
    store: &mut dyn Store,
    here: &Owner,
    now: Timestamp,
    never_began: &dyn Fn(&RunRecord) -> bool,
    spool: Option<&Spool>,
) -> Result<Vec<RunRecord>, StoreError> {
    let open = store.open_runs(&here.host)?;
    let mut gone: Vec<RunRecord> = open.into_iter().filter(|run| run.owner().is_alive(here) == Some(false)).collect();
    if let Some(spool) = spool.filter(|_| !gone.is_empty()) {
        // Whoever is gone has left the end of its run before, or never will.
        spool.take_in(store)?;
        let still: HashSet<String> = store.open_runs(&here.host)?.into_iter().map(|run| run.run_id).collect();
        gone.retain(|run| still.contains(&run.run_id));
    }
    let (unused, began): (Vec<_>, Vec<_>) = gone.into_iter().partition(|run| never_began(run));
    if !unused.is_empty() {
        store.give_back(&unused.into_iter().map(|run| run.run_id).collect::<Vec<_>>())?;
    }
    let crashed: Vec<RunRecord> = began.into_iter().map(|run| run.crashed(now)).collect();
    if !crashed.is_empty() {
        store.put_runs(&crashed)?;
    }
    Ok(crashed)
}

/// The slots on this host that were claimed by a process that is gone, for runs that have not begun: whoever wants one of
/// them takes it over ([`Store::take_over_slot`]).
///
/// # Errors
/// The database does not answer.
pub fn lost_slots(store: &mut dyn Store, here: &Owner) -> Result<Vec<WaitingSlot>, StoreError> {
    let mut waiting = store.waiting_slots(&here.host)?;
    waiting.retain(|slot| slot.owner.is_alive(here) == Some(false));
    Ok(waiting)
}

/// One transaction that writes, with what it found out.
fn write<E: Engine + ?Sized, T>(
    engine: &mut E,
    doing: &'static str,
    mut work: impl FnMut(&mut dyn engine::Statements) -> Result<T, error::EngineError>,
) -> Result<T, StoreError> {
    let mut found = None;
    engine.write(doing, &mut |on| work(on).map(|value| found = Some(value)))?;
    taken(found, engine.shown(), doing)
}

/// One transaction that reads, with what it found out.
fn read<E: Engine + ?Sized, T>(
    engine: &mut E,
    doing: &'static str,
    mut work: impl FnMut(&mut dyn engine::Statements) -> Result<T, error::EngineError>,
) -> Result<T, StoreError> {
    let mut found = None;
    engine.read(doing, &mut |on| work(on).map(|value| found = Some(value)))?;
    taken(found, engine.shown(), doing)
}

fn taken<T>(found: Option<T>, database: &str, doing: &'static str) -> Result<T, StoreError> {
    let never = || StoreError::Rejected { database: database.to_owned(), doing, why: "it was not even tried".to_owned() };
    found.ok_or_else(never)
}
