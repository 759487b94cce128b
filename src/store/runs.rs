//! The history of runs. Statements only; `engine` runs them.

use jiff::{SignedDuration, Timestamp};

use super::engine::{Cell, Columns, Row, Statements, places, rows_of_places};
use super::error::EngineError;
use super::record::{RunRecord, TryRecord, VERSION};
use super::{HistoryQuery, Retention};

/// How many tries go into one statement.
const ROWS: usize = 50;

/// Written down as begun, a run begins a moment later, in milliseconds: when it began is not told anew at its end. One that had to wait
/// for its lock began when it had it.
const AT_ONCE: i64 = 999;
/// The columns of `runs` in the order of [`cells`] and [`record`].
const COLUMNS: &str = "run_id, chain, run_trigger, scheduled_at, host, boot_id, pid, start_time, began, ended, duration_ms, outcome, \
     exit_code, signal, failed_task, message, tries_left_out, place, said";
const COLUMN_COUNT: usize = 19;
/// The number of the last try of a run.
const LAST_TRY: &str = "(SELECT MAX(tries.try_num) FROM tries WHERE tries.run_id = runs.run_id)";
/// The columns of `tries`.
const TRY_COLUMNS: &str =
    "run_id, place, task, try_num, began, duration_ms, verdict, exit_code, signal, timed_out, not_started, left_behind, output_tail, said";
const TRY_COLUMN_COUNT: usize = 14;

/// Keeps records; an end that is there stays.
pub fn put(on: &mut dyn Statements, records: &[RunRecord]) -> Result<(), EngineError> {
    let sql = format!(
        "INSERT INTO runs ({COLUMNS}, failed) VALUES ({}) ON CONFLICT (run_id) DO UPDATE SET \
         began = CASE WHEN excluded.began - runs.began BETWEEN 0 AND {AT_ONCE} THEN runs.began ELSE excluded.began END, ended = excluded.ended, duration_ms = excluded.duration_ms, outcome = excluded.outcome, exit_code = excluded.exit_code, \
         signal = excluded.signal, failed_task = excluded.failed_task, message = excluded.message, \
         tries_left_out = excluded.tries_left_out, said = excluded.said, failed = excluded.failed WHERE runs.outcome IS NULL",
        places(1, COLUMN_COUNT + 1)
    );
    for record in records {
        let mut values = cells(record);
        values.push(i64::from(record.has_failed()).into());
        if on.run(&sql, &values)? > 0 {
            put_tries(on, record)?;
        }
        on.run("UPDATE slots SET begun = 1 WHERE run_id = $1 AND begun = 0", &[record.run_id.as_str().into()])?;
    }
    Ok(())
}

/// Nothing was started for these: they are forgotten, and their slots wait again.
pub fn give_back(on: &mut dyn Statements, run_ids: &[String]) -> Result<(), EngineError> {
    for run_id in run_ids {
        let id: [Cell; 1] = [run_id.as_str().into()];
        if on.run("DELETE FROM runs WHERE run_id = $1 AND outcome IS NULL", &id)? > 0 {
            on.run("UPDATE slots SET begun = 0 WHERE run_id = $1", &id)?;
        }
    }
    Ok(())
}

fn put_tries(on: &mut dyn Statements, record: &RunRecord) -> Result<(), EngineError> {
    let mut place = 0_i64;
    for part in record.tries.chunks(ROWS) {
        let sql = format!(
            "INSERT INTO tries ({TRY_COLUMNS}) VALUES {} ON CONFLICT (run_id, place) DO NOTHING",
            rows_of_places(part.len(), TRY_COLUMN_COUNT)
        );
        let mut values = Vec::with_capacity(part.len() * TRY_COLUMN_COUNT);
        for one in part {
            place += 1;
            values.extend(try_cells(&record.run_id, place, one));
        }
        on.run(&sql, &values)?;
    }
    Ok(())
}

/// Text as every engine takes it: PostgreSQL knows no NUL.
fn text(text: &str) -> Cell {
    Cell::Text(if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text.to_owned() })
}

fn number(number: u64) -> Cell {
    Cell::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn optional(value: Option<&str>) -> Cell {
    value.map_or(Cell::Null, text)
}

fn cells(record: &RunRecord) -> Vec<Cell> {
    vec![
        text(&record.run_id),
        text(&record.chain),
        text(&record.trigger),
        record.scheduled_at.map(Timestamp::as_millisecond).into(),
        text(&record.host),
        text(&record.boot_id),
        i64::from(record.pid).into(),
        number(record.start_time),
        record.began.as_millisecond().into(),
        record.ended.map(Timestamp::as_millisecond).into(),
        record.duration_ms.map_or(Cell::Null, number),
        optional(record.outcome.as_deref()),
        record.exit_code.map(i64::from).into(),
        record.signal.map(i64::from).into(),
        optional(record.failed_task.as_deref()),
        optional(record.message.as_deref()),
        number(record.tries_left_out),
        text(&record.place),
        optional(record.said.as_deref()),
    ]
}

fn try_cells(run_id: &str, place: i64, one: &TryRecord) -> [Cell; TRY_COLUMN_COUNT] {
    [
        text(run_id),
        place.into(),
        text(&one.task),
        i64::from(one.try_num).into(),
        one.began.as_millisecond().into(),
        number(one.duration_ms),
        text(&one.verdict),
        one.exit_code.map(i64::from).into(),
        one.signal.map(i64::from).into(),
        optional(one.timed_out.as_deref()),
        optional(one.not_started.as_deref()),
        i64::from(one.left_behind).into(),
        text(&one.output_tail),
        optional(one.said.as_deref()),
    ]
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn record(row: Row) -> RunRecord {
    read_record(&mut Columns::of(row))
}

/// A record without its tries, and behind its columns the number of the last.
fn listed(row: Row) -> RunRecord {
    let mut row = Columns::of(row);
    let record = read_record(&mut row);
    RunRecord { last_try: row.optional(), ..record }
}

fn read_record(row: &mut Columns) -> RunRecord {
    RunRecord {
        version: VERSION,
        run_id: row.text(),
        chain: row.text(),
        trigger: row.text(),
        scheduled_at: row.optional_int().map(at),
        host: row.text(),
        boot_id: row.text(),
        pid: row.optional().unwrap_or(0),
        start_time: row.optional().unwrap_or(0),
        began: at(row.int()),
        ended: row.optional_int().map(at),
        duration_ms: row.optional(),
        outcome: row.optional_text(),
        exit_code: row.optional(),
        signal: row.optional(),
        failed_task: row.optional_text(),
        message: row.optional_text(),
        tries_left_out: row.optional().unwrap_or(0),
        place: row.text(),
        said: row.optional_text(),
        tries: Vec::new(),
        last_try: None,
    }
}

fn try_record(row: Row) -> TryRecord {
    let mut row = Columns::of(row);
    // Its run and its place are known.
    row.text();
    row.int();
    TryRecord {
        task: row.text(),
        try_num: row.optional().unwrap_or(0),
        began: at(row.int()),
        duration_ms: row.optional().unwrap_or(0),
        verdict: row.text(),
        exit_code: row.optional(),
        signal: row.optional(),
        timed_out: row.optional_text(),
        not_started: row.optional_text(),
        left_behind: row.optional().unwrap_or(0),
        output_tail: row.text(),
        said: row.optional_text(),
    }
}

/// The statement for a question: each of the four has an index of its own.
pub(super) fn history_sql(query: &HistoryQuery) -> String {
    let (filter, place) = match (query.chain.is_some(), query.failed) {
        (false, false) => ("", 1),
        (false, true) => ("WHERE failed = 1 ", 1),
        (true, false) => ("WHERE chain = $1 ", 2),
        (true, true) => ("WHERE chain = $1 AND failed = 1 ", 2),
    };
    format!("SELECT {COLUMNS}, {LAST_TRY} FROM runs {filter}ORDER BY began DESC, run_id DESC LIMIT ${place}")
}

/// The newest runs.
pub fn history(on: &mut dyn Statements, query: &HistoryQuery) -> Result<Vec<RunRecord>, EngineError> {
    let values: Vec<Cell> = query.chain.as_deref().map(Cell::from).into_iter().chain([i64::from(query.limit).into()]).collect();
    Ok(on.rows(&history_sql(query), &values)?.into_iter().map(listed).collect())
}

/// The ids that begin so.
pub fn find(on: &mut dyn Statements, prefix: &str, most: u32) -> Result<Vec<String>, EngineError> {
    let end = format!("{prefix}\u{10ffff}");
    let rows = on.rows(
        "SELECT run_id FROM runs WHERE run_id >= $1 AND run_id <= $2 ORDER BY run_id LIMIT $3",
        &[prefix.into(), end.as_str().into(), i64::from(most).into()],
    )?;
    Ok(rows.into_iter().map(|row| Columns::of(row).text()).collect())
}

/// One run and its tries.
pub fn one(on: &mut dyn Statements, run_id: &str) -> Result<Option<RunRecord>, EngineError> {
    let rows = on.rows(&format!("SELECT {COLUMNS} FROM runs WHERE run_id = $1"), &[run_id.into()])?;
    let Some(run) = rows.into_iter().next().map(record) else { return Ok(None) };
    let tries = on.rows(&format!("SELECT {TRY_COLUMNS} FROM tries WHERE run_id = $1 ORDER BY place"), &[run_id.into()])?;
    Ok(Some(RunRecord { tries: tries.into_iter().map(try_record).collect(), ..run }))
}

/// The runs of a host that have no end.
pub fn open(on: &mut dyn Statements, host: &str) -> Result<Vec<RunRecord>, EngineError> {
    let sql = format!("SELECT {COLUMNS} FROM runs WHERE host = $1 AND outcome IS NULL ORDER BY began DESC, run_id DESC");
    Ok(on.rows(&sql, &[host.into()])?.into_iter().map(record).collect())
}

/// Forgets the oldest of the runs that are over the retention.
pub fn prune(on: &mut dyn Statements, keep: Retention, now: Timestamp, most: u32) -> Result<u64, EngineError> {
    let oldest = SignedDuration::try_from(keep.age).ok().and_then(|age| now.checked_sub(age).ok());
    let too_old = (oldest.map_or(i64::MIN, Timestamp::as_millisecond), String::new());
    let first_too_many =
        on.rows("SELECT began, run_id FROM runs ORDER BY began DESC, run_id DESC LIMIT 1 OFFSET $1", &[i64::from(keep.runs).into()])?;
    let too_many = first_too_many.into_iter().next().map(|row| {
        let mut row = Columns::of(row);
        (row.int(), row.text())
    });
    let (began, run_id) = too_many.map_or(too_old.clone(), |too_many| too_many.max(too_old));
    let ids: Vec<Cell> = on
        .rows(
            "SELECT run_id FROM runs WHERE (began, run_id) <= ($1, $2) AND outcome IS NOT NULL ORDER BY began, run_id LIMIT $3",
            &[began.into(), run_id.as_str().into(), i64::from(most).into()],
        )?
        .into_iter()
        .flatten()
        .collect();
    let mut gone = 0;
    for part in ids.chunks(ROWS) {
        let some = places(1, part.len());
        on.run(&format!("DELETE FROM tries WHERE run_id IN ({some})"), part)?;
        gone += on.run(&format!("DELETE FROM runs WHERE run_id IN ({some})"), part)?;
    }
    Ok(gone)
}
