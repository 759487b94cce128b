//! A worker's turn: the results of its jobs, their repetitions, the lease of those that go on, and jobs for its free
//! places, all in one transaction, so that one commit serves an end and a beginning. Statements only.

use jiff::Timestamp;

use super::engine::{Cell, Columns, Statements, places};
use super::error::EngineError;
use super::job::{Finish, JobRecord, Turn, Turned, Want};
use super::jobs::{COLUMNS, optional, record, text};
use crate::config::queue_values::PriorityOrder;
use crate::queue::Next;

/// How many ends of jobs go into one statement.
const FINISHES: usize = 32;

/// Looks whether there is anything to take, without being in anybody's way; what to answer when there is not.
pub fn look(on: &mut dyn Statements, turn: &Turn) -> Result<Option<Turned>, EngineError> {
    let mut next_due = None;
    for want in &turn.wants {
        let seen = walk(on, want, turn.now, "")?;
        if !seen.ids.is_empty() {
            return Ok(None);
        }
        next_due = earlier(next_due, seen.next_due);
    }
    Ok(Some(Turned { next_due, ..Turned::default() }))
}

/// Whether anything of these queues is ready or running.
pub fn has_open(on: &mut dyn Statements, wants: &[Want], now: Timestamp) -> Result<bool, EngineError> {
    for want in wants {
        let running = !on.rows("SELECT id FROM jobs WHERE state = 'running' AND queue = $1 LIMIT 1", &[text(&want.queue)])?.is_empty();
        if running || !walk(on, &Want { places: 1, ..want.clone() }, now, "")?.ids.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The whole turn. `again`: it may have been done before.
pub fn turn(on: &mut dyn Statements, turn: &Turn, again: bool) -> Result<Turned, EngineError> {
    finish_all(on, &turn.finishes)?;
    let mut turned = Turned::default();
    if again {
        turned.jobs = taken_before(on, &turn.token)?;
    }
    for want in &turn.wants {
        // Never more than there are places in all.
        let places = |turned: &Turned| {
            let have = turned.jobs.iter().filter(|job| job.queue == want.queue).count();
            let left = |places: u32, have: usize| places.saturating_sub(u32::try_from(have).unwrap_or(u32::MAX));
            left(want.places, have).min(left(turn.places, turned.jobs.len()))
        };
        let first = Want { places: places(&turned), ..want.clone() };
        if turn.plenty && first.places > 0 {
            turned.jobs.extend(take_first(on, &first, turn)?);
        }
        let rest = Want { places: places(&turned), ..first };
        if rest.places == 0 {
            continue;
        }
        let taking = on.taking();
        let seen = walk(on, &rest, turn.now, taking)?;
        turned.next_due = earlier(turned.next_due, seen.next_due);
        turned.jobs.extend(take(on, &seen.ids, turn)?);
    }
    if turn.renew {
        turned.held = Some(renew(on, turn)?);
    }
    Ok(turned)
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

/// What a walk through a queue has found.
#[derive(Debug, Default)]
struct Seen {
    /// Jobs that are due, the first to be taken first.
    ids: Vec<i64>,
    /// When the next one is due, if the walk came to the end of the queue.
    next_due: Option<Timestamp>,
}

/// Walks through a queue, priority by priority, until there are jobs for all places. Each step is one look into the index,
/// however many jobs wait.
fn walk(on: &mut dyn Statements, want: &Want, now: Timestamp, taking: &str) -> Result<Seen, EngineError> {
    let (beyond, direction) = match want.order {
        PriorityOrder::Descending => ("<", "DESC"),
        PriorityOrder::Ascending => (">", "ASC"),
    };
    let places = want.places as usize;
    let (mut seen, mut last) = (Seen::default(), None);
    loop {
        let mut values = vec![text(&want.queue)];
        let mut filter = "";
        let later = format!("AND priority {beyond} $2 ");
        if let Some(priority) = last {
            values.push(Cell::Int(priority));
            filter = &later;
        }
        let next =
            format!("SELECT priority FROM jobs WHERE queue = $1 AND state = 'waiting' {filter}ORDER BY priority {direction} LIMIT 1");
        // One more than is wanted: the first that is not due tells when to come again.
        let limit = i64::try_from(places - seen.ids.len() + 1).unwrap_or(i64::MAX);
        let sql = format!(
            "SELECT id, due, priority FROM jobs WHERE queue = $1 AND state = 'waiting' AND priority = ({next}) ORDER BY due, id \
             LIMIT ${}{taking}",
            values.len() + 1
        );
        let with_limit: Vec<Cell> = values.iter().cloned().chain([limit.into()]).collect();
        last = None;
        for row in on.rows(&sql, &with_limit)? {
            let mut row = Columns::of(row);
            let (id, due) = (row.int(), Timestamp::from_millisecond(row.int()).unwrap_or(now));
            last = Some(row.int());
            if due > now {
                seen.next_due = earlier(seen.next_due, Some(due));
                break;
            }
            if seen.ids.len() < places {
                seen.ids.push(id);
            }
        }
        if seen.ids.len() >= places {
            // There may be more that are due; whoever frees a place looks again.
            return Ok(Seen { next_due: None, ..seen });
        }
        if last.is_none() {
            // None waits, or others are just taking all of this priority.
            let Some(row) = on.rows(&next, &values)?.into_iter().next() else { return Ok(seen) };
            last = Some(Columns::of(row).int());
        }
    }
}

/// How many values [`claim`] has.
const CLAIM_CELLS: usize = 8;

/// What makes a job the worker's own, with the values from `$from` on.
fn claim(from: usize) -> String {
    let columns = ["host", "boot_id", "pid", "start_time", "lease_until", "began", "place"];
    let set: String = (from + 1..).zip(columns).map(|(place, column)| format!(", {column} = ${place}")).collect();
    format!(
        "UPDATE jobs SET state = 'running', attempts = attempts + 1, planned = COALESCE(planned, due), cancel = 0, ended = NULL, \
         claim = CAST(${from} AS TEXT) || '.' || id{set}"
    )
}

fn claim_cells(turn: &Turn) -> [Cell; CLAIM_CELLS] {
    let owner = &turn.owner;
    [
        text(&turn.token),
        text(&owner.host),
        text(&owner.boot_id),
        i64::from(owner.pid).into(),
        i64::try_from(owner.start_time).unwrap_or(i64::MAX).into(),
        turn.lease_until.as_millisecond().into(),
        turn.now.as_millisecond().into(),
        text(&owner.place),
    ]
}

/// Takes what is due of the first priority in which anything waits, in one statement: with a server between us each is a
/// journey. The order is that of [`walk`], and whatever it leaves is for that to find.
fn take_first(on: &mut dyn Statements, want: &Want, turn: &Turn) -> Result<Vec<JobRecord>, EngineError> {
    let sql = format!("WITH {}", first_taken(want, on.taking(), 1));
    claimed(on, &sql, first_cells(want, turn))
}

/// Whether a turn is nothing but results, without repetitions, and as many jobs of one queue for the places that they leave.
pub fn is_plain(turn: &Turn) -> bool {
    let ends = turn.finishes.len();
    let [want] = &turn.wants[..] else { return false };
    let places = want.places.min(turn.places) as usize == ends && (1..=FINISHES).contains(&ends);
    turn.plenty && !turn.renew && !turn.again && places && turn.finishes.iter().all(|finish| finish.repetition.is_none())
}

/// A plain turn in one statement, which needs no more of a transaction than it is itself. SQLite has no such statement.
/// `None` when places are left: the results are written down, and what was taken is found as after a lost answer.
pub fn at_once(on: &mut dyn Statements, turn: &Turn) -> Result<Option<Turned>, EngineError> {
    let Some(want) = turn.wants.first() else { return Ok(None) };
    let want = &Want { places: u32::try_from(turn.finishes.len()).unwrap_or(0), ..want.clone() };
    let mut values: Vec<Cell> = turn.finishes.iter().flat_map(finish_cells).collect();
    let taken = first_taken(want, on.taking(), values.len() + 1);
    // What both touch are different rows: the ones run, the others wait.
    let sql = format!("WITH ended AS ({}), {taken}", finished(turn.finishes.len()));
    values.extend(first_cells(want, turn));
    let jobs = claimed(on, &sql, values)?;
    Ok((jobs.len() == turn.finishes.len()).then(|| Turned { jobs, ..Turned::default() }))
}

/// The statement behind the WITH of [`take_first`], with the values from `$from` on: see [`first_cells`].
fn first_taken(want: &Want, taking: &str, from: usize) -> String {
    let direction = match want.order {
        PriorityOrder::Descending => "DESC",
        PriorityOrder::Ascending => "ASC",
    };
    // The number of places stands in the text: a planner that does not know it expects very many.
    format!(
        "first AS MATERIALIZED (SELECT id AS chosen FROM jobs WHERE queue = ${from} AND state = 'waiting' AND priority = \
         (SELECT priority FROM jobs WHERE queue = ${from} AND state = 'waiting' ORDER BY priority {direction} LIMIT 1) AND due <= ${now} \
         ORDER BY due, id LIMIT {}{taking}) {} FROM first WHERE id = chosen AND state = 'waiting' RETURNING {COLUMNS}",
        want.places,
        claim(from + 2),
        now = from + 1
    )
}

fn first_cells(want: &Want, turn: &Turn) -> Vec<Cell> {
    [text(&want.queue), turn.now.as_millisecond().into()].into_iter().chain(claim_cells(turn)).collect()
}

fn claimed(on: &mut dyn Statements, sql: &str, values: Vec<Cell>) -> Result<Vec<JobRecord>, EngineError> {
    let mut jobs: Vec<JobRecord> = on.rows(sql, &values)?.into_iter().map(record).collect();
    jobs.sort_by_key(|job| (job.due, job.id));
    Ok(jobs)
}

/// Makes jobs the worker's own, in this order.
fn take(on: &mut dyn Statements, ids: &[i64], turn: &Turn) -> Result<Vec<JobRecord>, EngineError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let chosen = places(CLAIM_CELLS + 1, ids.len());
    let sql = format!("{} WHERE id IN ({chosen}) AND state = 'waiting' RETURNING {COLUMNS}", claim(1));
    let mut values = claim_cells(turn).to_vec();
    values.extend(ids.iter().map(|id| Cell::Int(*id)));
    let mut jobs: Vec<JobRecord> = on.rows(&sql, &values)?.into_iter().map(record).collect();
    jobs.sort_by_key(|job| ids.iter().position(|id| *id == job.id));
    Ok(jobs)
}

/// Takes one job, whenever it is due.
pub fn take_one(on: &mut dyn Statements, id: i64, turn: &Turn) -> Result<Option<JobRecord>, EngineError> {
    if let Some(job) = taken_before(on, &turn.token)?.into_iter().next() {
        return Ok(Some(job));
    }
    Ok(take(on, &[id], turn)?.into_iter().next())
}

/// The jobs that this very turn has taken before.
fn taken_before(on: &mut dyn Statements, token: &str) -> Result<Vec<JobRecord>, EngineError> {
    let sql = format!("SELECT {COLUMNS} FROM jobs WHERE state = 'running' AND claim > $1 AND claim < $2 ORDER BY id");
    // The number follows a dot, and the slash follows the dot.
    let rows = on.rows(&sql, &[text(&format!("{token}.")), text(&format!("{token}/"))])?;
    Ok(rows.into_iter().map(record).collect())
}

/// Makes the lease longer; what the worker still has.
fn renew(on: &mut dyn Statements, turn: &Turn) -> Result<Vec<(String, bool)>, EngineError> {
    let owner = &turn.owner;
    let rows = on.rows(
        "UPDATE jobs SET lease_until = $1 WHERE state = 'running' AND host = $2 AND boot_id = $3 AND pid = $4 AND start_time = $5 AND place = $6 \
         RETURNING claim, cancel",
        &[
            turn.lease_until.as_millisecond().into(),
            text(&owner.host),
            text(&owner.boot_id),
            i64::from(owner.pid).into(),
            i64::try_from(owner.start_time).unwrap_or(i64::MAX).into(),
            text(&owner.place),
        ],
    )?;
    let held = |row| {
        let mut row = Columns::of(row);
        (row.text(), row.int() != 0)
    };
    Ok(rows.into_iter().map(held).collect())
}

/// Writes down what became of jobs, and leaves their repetitions behind. Tells how many still were the worker's.
pub fn finish_all(on: &mut dyn Statements, finishes: &[Finish]) -> Result<u64, EngineError> {
    let mut finished = 0;
    for part in finishes.chunks(FINISHES) {
        let ours = finish(on, part)?;
        finished += ours.len() as u64;
        for one in part.iter().filter(|one| ours.contains(&one.id)) {
            if let Some(due) = one.repetition {
                repeat(on, one, due)?;
            }
        }
    }
    Ok(finished)
}

/// The parameters of one end, in the order of [`finish_cells`]. With a server between us, many ends in one statement are
/// many times quicker than each in its own.
const FINISH_TYPES: [&str; 12] =
    ["BIGINT", "TEXT", "TEXT", "BIGINT", "BIGINT", "BIGINT", "TEXT", "BIGINT", "BIGINT", "TEXT", "TEXT", "BIGINT"];

fn finish(on: &mut dyn Statements, finishes: &[Finish]) -> Result<Vec<i64>, EngineError> {
    let values: Vec<Cell> = finishes.iter().flat_map(finish_cells).collect();
    Ok(on.rows(&finished(finishes.len()), &values)?.into_iter().map(|row| Columns::of(row).int()).collect())
}

/// The statement that writes down so many ends, with the values from `$1` on.
fn finished(count: usize) -> String {
    let typed = |row: usize| {
        let cell = |(column, kind): (usize, &&str)| format!("CAST(${} AS {kind})", row * FINISH_TYPES.len() + column + 1);
        format!("({})", FINISH_TYPES.iter().enumerate().map(cell).collect::<Vec<_>>().join(", "))
    };
    format!(
        "UPDATE jobs SET state = column3, due = COALESCE(column4, due), attempts = attempts - column5, ended = column6, claim = NULL, \
         lease_until = NULL, cancel = 0, result = column7, exit_code = column8, signal = column9, message = column10, \
         last_error = COALESCE(column11, last_error) FROM (VALUES {}) AS finished \
         WHERE id = column1 AND claim = column2 AND state = 'running' AND (column12 IS NULL OR lease_until <= column12) RETURNING id",
        (0..count).map(typed).collect::<Vec<_>>().join(", ")
    )
}

fn finish_cells(finish: &Finish) -> [Cell; FINISH_TYPES.len()] {
    let (state, due, ended) = match finish.next {
        Next::Done(_) => ("done", None, Some(finish.at)),
        Next::Failed => ("failed", None, Some(finish.at)),
        Next::Cancelled => ("cancelled", None, Some(finish.at)),
        Next::Again(due) => ("waiting", Some(due), None),
        Next::Back => ("waiting", None, None),
    };
    let millis = |time: Option<Timestamp>| Cell::from(time.map(Timestamp::as_millisecond));
    [
        finish.id.into(),
        text(&finish.claim),
        state.into(),
        millis(due),
        i64::from(finish.next == Next::Back).into(),
        millis(ended),
        finish.result.into(),
        finish.exit_code.map(i64::from).into(),
        finish.signal.map(i64::from).into(),
        optional(finish.message.as_deref()),
        optional(finish.last_error.as_deref()),
        millis(finish.lease),
    ]
}

fn repeat(on: &mut dyn Statements, finish: &Finish, due: Timestamp) -> Result<(), EngineError> {
    let (due, now) = (Cell::from(due.as_millisecond()), finish.at.as_millisecond());
    on.run(
        "INSERT INTO jobs (queue, task, args, name, creator, job_key, priority, due, planned, repeat_ms, repeat_until, max_attempts, created) \
         SELECT queue, task, args, name, creator, job_key, priority, CAST($1 AS BIGINT), CAST($2 AS BIGINT), repeat_ms, repeat_until, \
         max_attempts, CAST($3 AS BIGINT) FROM jobs WHERE id = $4",
        &[due.clone(), due, now.into(), finish.id.into()],
    )
    .map(|_| ())
}
