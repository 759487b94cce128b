//! Jobs: added, listed, cancelled, begun anew, forgotten. Statements only; `engine` runs them. `turn` is the worker's part.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::engine::{Cell, Columns, Row, Statements, places, rows_of_places};
use super::error::EngineError;
use super::job::{Existing, JobQuery, JobRecord, Kept, NewJob, QueueCount};
use crate::config::queue_values::Keep;
use crate::queue::{JobState, STATES};

/// How many jobs go into one statement.
const ROWS: usize = 100;
/// The columns of `jobs` in the order of [`record`].
pub(super) const COLUMNS: &str = "id, queue, task, args, name, creator, job_key, state, priority, due, planned, repeat_ms, repeat_until, \
     attempts, max_attempts, created, claim, host, boot_id, pid, start_time, lease_until, cancel, began, ended, result, exit_code, signal, \
     message, last_error, place";
const NEW_COLUMNS: &str =
    "queue, task, args, name, creator, job_key, priority, due, planned, repeat_ms, repeat_until, max_attempts, created";
const NEW_COLUMN_COUNT: usize = 13;

/// Text as every engine takes it: PostgreSQL knows no NUL.
pub(super) fn text(text: &str) -> Cell {
    Cell::Text(if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text.to_owned() })
}

/// Text that may be absent.
pub(super) fn optional(value: Option<&str>) -> Cell {
    value.map_or(Cell::Null, text)
}

/// A row of [`COLUMNS`].
pub(super) fn record(row: Row) -> JobRecord {
    let mut row = Columns::of(row);
    let time = |millis: i64| Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH);
    JobRecord {
        id: row.int(),
        queue: row.text(),
        task: row.text(),
        args: row.text(),
        name: row.optional_text(),
        creator: row.optional_text(),
        key: row.optional_text(),
        state: row.text(),
        priority: row.int(),
        due: time(row.int()),
        planned: row.optional_int().map(time),
        repeat_ms: row.optional(),
        repeat_until: row.optional_int().map(time),
        attempts: row.optional().unwrap_or(0),
        max_attempts: row.optional(),
        created: time(row.int()),
        claim: row.optional_text(),
        host: row.optional_text(),
        boot_id: row.optional_text(),
        pid: row.optional(),
        start_time: row.optional(),
        lease_until: row.optional_int().map(time),
        cancel: row.int() != 0,
        began: row.optional_int().map(time),
        ended: row.optional_int().map(time),
        result: row.optional_text(),
        exit_code: row.optional(),
        signal: row.optional(),
        message: row.optional_text(),
        last_error: row.optional_text(),
        place: row.optional_text(),
    }
}

/// Adds jobs. `before` is what an earlier call with the same jobs answered, of which nobody knows whether it is true.
pub fn enqueue(on: &mut dyn Statements, jobs: &[NewJob], now: Timestamp, before: &mut Option<Vec<i64>>) -> Result<Vec<i64>, EngineError> {
    if let (Some(ids), Some(job)) = (before.as_ref(), jobs.first())
        && is_there(on, ids, job, now)?
    {
        return Ok(ids.clone());
    }
    let mut ids = Vec::with_capacity(jobs.len());
    let mut at = 0;
    while at < jobs.len() {
        let plain = jobs[at..].iter().take(ROWS).take_while(|job| job.key.is_none()).count();
        if plain > 0 {
            insert(on, &jobs[at..at + plain], now, &mut ids)?;
            at += plain;
        } else {
            ids.push(enqueue_one_of_its_kind(on, &jobs[at], now)?);
            at += 1;
        }
    }
    *before = Some(ids.clone());
    Ok(ids)
}

/// Whether the first of the jobs was added after all, and so all of them.
fn is_there(on: &mut dyn Statements, ids: &[i64], job: &NewJob, now: Timestamp) -> Result<bool, EngineError> {
    let Some(id) = ids.first() else { return Ok(false) };
    let values = [(*id).into(), text(&job.queue), text(&job.task), now.as_millisecond().into()];
    Ok(!on.rows("SELECT id FROM jobs WHERE id = $1 AND queue = $2 AND task = $3 AND created = $4", &values)?.is_empty())
}

fn insert(on: &mut dyn Statements, jobs: &[NewJob], now: Timestamp, ids: &mut Vec<i64>) -> Result<(), EngineError> {
    let sql = format!("INSERT INTO jobs ({NEW_COLUMNS}) VALUES {}", rows_of_places(jobs.len(), NEW_COLUMN_COUNT));
    let mut values = Vec::with_capacity(jobs.len() * NEW_COLUMN_COUNT);
    for job in jobs {
        values.extend(new_cells(job, now));
    }
    if jobs.len() == 1 {
        ids.push(on.add(&sql, &values)?);
        return Ok(());
    }
    let mut new: Vec<i64> = on.rows(&format!("{sql} RETURNING id"), &values)?.into_iter().map(|row| Columns::of(row).int()).collect();
    // Numbers grow in the order of the rows; that of the answer is nobody's promise.
    new.sort_unstable();
    ids.extend(new);
    Ok(())
}

fn new_cells(job: &NewJob, now: Timestamp) -> [Cell; NEW_COLUMN_COUNT] {
    let due = job.due.unwrap_or(now).as_millisecond();
    [
        text(&job.queue),
        text(&job.task),
        args(job),
        optional(job.name.as_deref()),
        optional(job.creator.as_deref()),
        optional(job.key.as_deref()),
        job.priority.into(),
        due.into(),
        due.into(),
        job.repeat.map(|every| i64::try_from(every.as_millis()).unwrap_or(i64::MAX).max(1)).into(),
        job.repeat_until.map(Timestamp::as_millisecond).into(),
        job.max_attempts.map(i64::from).into(),
        now.as_millisecond().into(),
    ]
}

fn args(job: &NewJob) -> Cell {
    Cell::Text(serde_json::Value::from(job.args.as_slice()).to_string())
}

/// A job with a key, of which there may be an equal one.
fn enqueue_one_of_its_kind(on: &mut dyn Statements, job: &NewJob, now: Timestamp) -> Result<i64, EngineError> {
    let key = job.key.as_deref().unwrap_or_default();
    on.alone_with(&format!("{} {key}", job.queue))?;
    let rows = on.rows(
        "SELECT id, state FROM jobs WHERE queue = $1 AND job_key = $2 AND state IN ('waiting', 'running') ORDER BY id",
        &[text(&job.queue), text(key)],
    )?;
    let equal: Vec<(i64, bool)> = rows
        .into_iter()
        .map(|row| {
            let mut row = Columns::of(row);
            (row.int(), row.text() == "waiting")
        })
        .collect();
    let waiting = equal.iter().find(|(_, waits)| *waits).map(|(id, _)| *id);
    match job.existing {
        Existing::Keep => {
            if let Some(id) = waiting.or(equal.first().map(|(id, _)| *id)) {
                return Ok(id);
            }
        }
        Existing::Reschedule => {
            if let Some(id) = waiting {
                reschedule(on, id, job, now)?;
                return Ok(id);
            }
        }
        Existing::Replace => {
            let ids: Vec<i64> = equal.iter().filter(|(_, waits)| *waits).map(|(id, _)| *id).collect();
            cancel_waiting(on, &ids, now)?;
        }
        Existing::Add => {}
    }
    let mut ids = Vec::new();
    insert(on, std::slice::from_ref(job), now, &mut ids)?;
    Ok(ids.first().copied().unwrap_or_default())
}

fn reschedule(on: &mut dyn Statements, id: i64, job: &NewJob, now: Timestamp) -> Result<(), EngineError> {
    let [_, task, args, name, creator, _, priority, due, planned, repeat, until, most, _] = new_cells(job, now);
    let values = [task, args, name, creator, priority, due, planned, repeat, until, most, id.into()];
    on.run(
        "UPDATE jobs SET task = $1, args = $2, name = $3, creator = $4, priority = $5, due = $6, planned = $7, repeat_ms = $8, \
         repeat_until = $9, max_attempts = $10, attempts = 0 WHERE id = $11 AND state = 'waiting'",
        &values,
    )
    .map(|_| ())
}

/// The jobs that a worker has or had.
pub fn running(on: &mut dyn Statements) -> Result<Vec<JobRecord>, EngineError> {
    let rows = on.rows(&format!("SELECT {COLUMNS} FROM jobs WHERE state = 'running' ORDER BY claim"), &[])?;
    Ok(rows.into_iter().map(record).collect())
}

/// The newest jobs.
pub fn list(on: &mut dyn Statements, query: &JobQuery) -> Result<Vec<JobRecord>, EngineError> {
    let (mut filters, mut values) = (Vec::new(), Vec::new());
    if let Some(queue) = &query.queue {
        values.push(text(queue));
        filters.push(format!("queue = ${}", values.len()));
    }
    if let Some(state) = query.state {
        filters.push(format!("state = '{}'", state.stored()));
        if state.stored() == "waiting" {
            values.push(query.now.as_millisecond().into());
            filters.push(format!("due {} ${}", if state == JobState::Scheduled { ">" } else { "<=" }, values.len()));
        }
    }
    let filter = if filters.is_empty() { String::new() } else { format!("WHERE {} ", filters.join(" AND ")) };
    values.push(i64::from(query.limit).into());
    let sql = format!("SELECT {COLUMNS} FROM jobs {filter}ORDER BY id DESC LIMIT ${}", values.len());
    Ok(on.rows(&sql, &values)?.into_iter().map(record).collect())
}

/// One job.
pub fn one(on: &mut dyn Statements, id: i64) -> Result<Option<JobRecord>, EngineError> {
    let rows = on.rows(&format!("SELECT {COLUMNS} FROM jobs WHERE id = $1"), &[id.into()])?;
    Ok(rows.into_iter().next().map(record))
}

/// Cancels the jobs that wait, and marks those that run.
pub fn cancel(on: &mut dyn Statements, ids: &[i64], now: Timestamp) -> Result<(Vec<i64>, Vec<i64>), EngineError> {
    let cancelled = cancel_waiting(on, ids, now)?;
    let mut marked = Vec::new();
    for part in ids.chunks(ROWS) {
        let sql = format!("UPDATE jobs SET cancel = 1 WHERE id IN ({}) AND state = 'running' RETURNING id", places(1, part.len()));
        marked.extend(on.rows(&sql, &cells(part))?.into_iter().map(|row| Columns::of(row).int()));
    }
    marked.sort_unstable();
    if !marked.is_empty() {
        on.tell_workers("cancel")?;
    }
    Ok((cancelled, marked))
}

fn cancel_waiting(on: &mut dyn Statements, ids: &[i64], now: Timestamp) -> Result<Vec<i64>, EngineError> {
    let mut cancelled = Vec::new();
    for part in ids.chunks(ROWS) {
        let sql = format!(
            "UPDATE jobs SET state = 'cancelled', ended = $1 WHERE id IN ({}) AND state = 'waiting' RETURNING id",
            places(2, part.len())
        );
        let values: Vec<Cell> = [now.as_millisecond().into()].into_iter().chain(cells(part)).collect();
        cancelled.extend(on.rows(&sql, &values)?.into_iter().map(|row| Columns::of(row).int()));
    }
    cancelled.sort_unstable();
    Ok(cancelled)
}

/// Lets ended jobs begin anew.
pub fn retry(on: &mut dyn Statements, ids: &[i64], now: Timestamp) -> Result<Vec<i64>, EngineError> {
    let mut begun = Vec::new();
    for part in ids.chunks(ROWS) {
        let sql = format!(
            "UPDATE jobs SET state = 'waiting', due = $1, attempts = 0, ended = NULL, cancel = 0 \
             WHERE id IN ({}) AND state IN ('done', 'failed', 'cancelled') RETURNING id",
            places(2, part.len())
        );
        let values: Vec<Cell> = [now.as_millisecond().into()].into_iter().chain(cells(part)).collect();
        begun.extend(on.rows(&sql, &values)?.into_iter().map(|row| Columns::of(row).int()));
    }
    begun.sort_unstable();
    Ok(begun)
}

fn cells(ids: &[i64]) -> Vec<Cell> {
    ids.iter().map(|id| Cell::Int(*id)).collect()
}

/// Forgets the oldest of the ended jobs that are over what is kept.
pub fn prune(on: &mut dyn Statements, kept: &[Kept], now: Timestamp, most: u32) -> Result<u64, EngineError> {
    let mut gone = 0;
    for kept in kept {
        for (state, keep) in [("done", kept.done), ("cancelled", kept.done), ("failed", kept.failed)] {
            let left = u64::from(most).saturating_sub(gone);
            if let Some((ended, id)) = oldest_kept(on, &kept.queue, state, keep, now)?
                && left > 0
            {
                let sql = format!(
                    "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE queue = $1 AND state = '{state}' AND ended IS NOT NULL \
                     AND (ended, id) <= ($2, $3) ORDER BY ended, id LIMIT $4)"
                );
                let limit = i64::try_from(left).unwrap_or(i64::MAX);
                gone += on.run(&sql, &[text(&kept.queue), ended.into(), id.into(), limit.into()])?;
            }
        }
    }
    Ok(gone)
}

/// Everything up to this end and number is over what is kept.
fn oldest_kept(on: &mut dyn Statements, queue: &str, state: &str, keep: Keep, now: Timestamp) -> Result<Option<(i64, i64)>, EngineError> {
    let since = |age: Duration| SignedDuration::try_from(age).ok().and_then(|age| now.checked_sub(age).ok());
    let too_old = keep.age.and_then(since).map(|time| (time.as_millisecond(), i64::MAX));
    let too_many = match keep.count {
        None => None,
        Some(count) => {
            let sql = format!(
                "SELECT ended, id FROM jobs WHERE queue = $1 AND state = '{state}' AND ended IS NOT NULL \
                 ORDER BY ended DESC, id DESC LIMIT 1 OFFSET $2"
            );
            let rows = on.rows(&sql, &[text(queue), i64::try_from(count).unwrap_or(i64::MAX).into()])?;
            rows.into_iter().next().map(|row| {
                let mut row = Columns::of(row);
                (row.int(), row.int())
            })
        }
    };
    Ok(too_old.max(too_many))
}

/// How many jobs of each state each queue has. Each question is answered by an index alone, in its order.
pub fn count(on: &mut dyn Statements, now: Timestamp) -> Result<Vec<QueueCount>, EngineError> {
    let mut counts = Vec::new();
    let waiting = "SELECT queue, count(*), min(due), sum(CASE WHEN due > $1 THEN 1 ELSE 0 END), min(CASE WHEN due > $1 THEN due END) \
                   FROM jobs WHERE state = 'waiting' GROUP BY queue";
    for row in on.rows(waiting, &[now.as_millisecond().into()])? {
        let mut row = Columns::of(row);
        let (queue, all, first, later, first_later) = (row.text(), row.int(), row.optional_int(), row.int(), row.optional_int());
        counts.push(queue_count(queue.clone(), JobState::Ready, all - later, first));
        counts.push(queue_count(queue, JobState::Scheduled, later, first_later));
    }
    let running = "SELECT queue, count(*), min(due) FROM jobs WHERE state = 'running' GROUP BY queue";
    for row in on.rows(running, &[])? {
        let mut row = Columns::of(row);
        counts.push(queue_count(row.text(), JobState::Running, row.int(), row.optional_int()));
    }
    for row in on.rows("SELECT queue, state, count(*) FROM jobs WHERE ended IS NOT NULL GROUP BY queue, state", &[])? {
        let mut row = Columns::of(row);
        let (queue, word) = (row.text(), row.text());
        match JobState::of_stored(&word, now, now) {
            // Somebody has written an end by hand where there is none.
            JobState::Scheduled | JobState::Ready | JobState::Running => {}
            state @ (JobState::Done | JobState::Failed | JobState::Cancelled) => counts.push(queue_count(queue, state, row.int(), None)),
        }
    }
    counts.retain(|count| count.count > 0);
    let place = |state: JobState| STATES.iter().position(|known| *known == state);
    counts.sort_by(|one, two| one.queue.cmp(&two.queue).then(place(one.state).cmp(&place(two.state))));
    Ok(counts)
}

fn queue_count(queue: String, state: JobState, count: i64, first_due: Option<i64>) -> QueueCount {
    let first_due = first_due.and_then(|due| Timestamp::from_millisecond(due).ok());
    QueueCount { queue, state, count: u64::try_from(count).unwrap_or(0), first_due }
}
