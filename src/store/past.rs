//! How a chain stands by the records of its runs: one rule for `runner status` and for the daemon's page. Reads through what it
//! is given; decides only.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::record::{REFUSED, RunRecord};
use super::{HistoryQuery, Owner, Store, StoreError};
use crate::status::{Date, Ended, GivenUp, Past, Run, SKIPPED, is_ahead};

/// How many of the last runs are told.
const RUNS: u32 = 10;
/// How many of those that did not begin.
const UNBEGUN: u32 = 5;

/// What the records of a chain say.
#[derive(Debug)]
pub struct Known {
    /// Its runs that have ended or came to nothing, the newest first.
    pub ended: Vec<RunRecord>,
    /// Those that go on.
    pub going: Vec<RunRecord>,
    /// When one last ended well.
    pub last_success: Option<Timestamp>,
}

/// The newest runs of a chain: not many more than `most` unless more slots than that were given up since one last began.
/// `history` gives so many of them.
///
/// # Errors
/// Those of `history`.
pub fn newest<E>(most: u32, history: &mut impl FnMut(u32) -> Result<Vec<RunRecord>, E>) -> Result<Vec<RunRecord>, E> {
    let runs = history(most)?;
    let is_told = runs.len() < most as usize || runs.iter().any(|run| run.outcome.is_some() && run.has_begun());
    if is_told { Ok(runs) } else { history(u32::MAX) }
}

/// A run that has no end although its process is gone has crashed.
pub fn as_it_is(record: RunRecord, here: &Owner) -> RunRecord {
    let gone = record.outcome.is_none() && record.owner().is_alive(here) == Some(false);
    if gone { RunRecord { ended: None, ..record.crashed(Timestamp::UNIX_EPOCH) } } else { record }
}

impl Known {
    /// Reads what is known of a chain; `history` gives so many of its newest runs.
    ///
    /// # Errors
    /// Those of `history`.
    pub fn read<E>(now: Timestamp, mut history: impl FnMut(u32) -> Result<Vec<RunRecord>, E>) -> Result<Self, E> {
        let records = newest(RUNS, &mut history)?;
        let success = |records: &[RunRecord]| {
            let all = || records.iter().filter(|run| run.outcome.as_deref() == Some("done")).filter_map(|run| run.ended);
            all().find(|ended| !is_ahead(*ended, now)).or_else(|| all().next())
        };
        let mut last_success = success(&records);
        if last_success.is_none() && records.len() >= RUNS as usize {
            last_success = success(&history(u32::MAX)?);
        }
        let (ended, going) = records.into_iter().partition(|run| run.outcome.is_some());
        Ok(Self { ended, going, last_success })
    }

    /// The same from a database, for a program that knows best itself what it runs.
    ///
    /// # Errors
    /// The database does not answer.
    pub fn of_others(store: &mut dyn Store, chain: &str, here: &Owner, now: Timestamp) -> Result<Self, StoreError> {
        let ours = |run: &RunRecord| (run.pid, run.start_time, &run.boot_id) == (here.pid, here.start_time, &here.boot_id);
        let mut known = Self::read(now, |limit| {
            let query = HistoryQuery { chain: Some(chain.to_owned()), failed: false, limit };
            Ok(store.runs(&query)?.into_iter().map(|record| as_it_is(record, here)).collect())
        })?;
        known.going.retain(|run| !ours(run));
        Ok(known)
    }

    /// As many of those that have ended as are told: the last that began, and a few that did not.
    pub fn told(&self) -> impl Iterator<Item = &RunRecord> {
        let (mut begun, mut others) = (RUNS, UNBEGUN);
        self.ended.iter().filter(move |run| {
            let left = if run.has_begun() { &mut begun } else { &mut others };
            let is_told = *left > 0;
            *left = left.saturating_sub(1);
            is_told
        })
    }

    /// What came to nothing since a run last began. `begun` is when one did that still goes on.
    pub fn given_up(&self, begun: Option<Timestamp>, zone: &TimeZone) -> Option<GivenUp> {
        let since = || self.ended.iter().take_while(|run| !run.has_begun() && begun.is_none_or(|begun| run.began > begun));
        let last = since().next()?;
        let reason = match last.outcome.as_deref() {
            Some(REFUSED) => "lock",
            Some(word) => word,
            None => SKIPPED,
        };
        let (reason, last_at, why) = (reason.to_owned(), Date::new(last.began, zone), last.message.clone());
        Some(GivenUp { count: since().count() as u64, last_at, reason, why })
    }

    /// As it is shown.
    pub fn shown(&self, zone: &TimeZone) -> Past {
        let run = |record: &RunRecord| shown(record, u32::MAX, zone);
        Past {
            running: self.going.iter().map(run).collect(),
            runs: self.told().map(run).collect(),
            last_success: self.last_success.map(|at| Date::new(at, zone)),
            given_up: self.given_up(self.going.iter().map(|run| run.began).max(), zone),
        }
    }
}

/// A run as it is shown by its record; `max_tries` is how many tries its chain has.
pub fn shown(record: &RunRecord, max_tries: u32, zone: &TimeZone) -> Run {
    let date = |at: Timestamp| Date::new(at, zone);
    let outcome = record.outcome.as_deref().map(Ended::of_record);
    let (task, message) = (record.failed_task.as_deref(), record.message.as_deref());
    Run {
        id: record.run_id.clone(),
        trigger: record.trigger.clone(),
        scheduled_at: record.scheduled_at.map(date),
        started_at: date(record.began),
        ended_at: record.ended.map(date),
        outcome,
        why: outcome.map_or_else(|| message.map(str::to_owned), |outcome| outcome.why(task, message)),
        exit_code: record.exit_code,
        said: record.said.clone(),
        try_num: record.tries.iter().map(|last| last.try_num).max().or(record.last_try).unwrap_or(1),
        max_tries,
        until: None,
        closing: None,
        tasks: Vec::new(),
    }
}
