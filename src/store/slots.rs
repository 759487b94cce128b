//! Slots: each used once, whoever asks. Statements only; `engine` runs them.

use std::collections::HashMap;

use jiff::Timestamp;

use super::engine::{Cell, Columns, Statements, rows_of_places};
use super::error::EngineError;
use super::{Owner, Slot, SlotClaim, SlotKey, WaitingSlot};

/// How many rows go into one statement; every number of them is a statement of its own that is prepared.
const ROWS: usize = 50;

/// Claims each slot that nobody has; for each whether it is ours now.
pub fn claim(on: &mut dyn Statements, claims: &[SlotClaim], owner: &Owner, now: Timestamp) -> Result<Vec<bool>, EngineError> {
    let pruned = pruned_to(on)?;
    let is_old = |key: &SlotKey| key.slot.time().is_some_and(|time| pruned.is_some_and(|pruned| time < pruned));
    // In one order whoever claims, so that two of them never wait for each other.
    let mut wanted: Vec<&SlotClaim> = claims.iter().filter(|claim| !is_old(&claim.key)).collect();
    wanted.sort_by(|one, two| one.key.cmp(&two.key));
    let mut holders: HashMap<[String; 3], String> = HashMap::with_capacity(wanted.len());
    for part in wanted.chunks(ROWS) {
        insert(on, part, owner, now)?;
        let keys: Vec<Cell> = part.iter().flat_map(|claim| key_cells(&claim.key)).collect();
        // In this form both engines look up each key; for a list of keys behind IN, SQLite reads the whole table. The
        // names of the columns of VALUES are the same in both.
        let sql = format!(
            "SELECT machine, chain, slot, run_id FROM (VALUES {}) AS wanted CROSS JOIN slots \
             WHERE machine = column1 AND chain = column2 AND slot = column3",
            rows_of_places(part.len(), 3)
        );
        for row in on.rows(&sql, &keys)? {
            let mut row = Columns::of(row);
            holders.insert([row.text(), row.text(), row.text()], row.text());
        }
    }
    note_time(on, owner, now)?;
    let ours = |claim: &SlotClaim| {
        let key = [claim.key.machine.clone(), claim.key.chain.clone(), claim.key.slot.to_string()];
        !is_old(&claim.key) && holders.get(&key).is_some_and(|run_id| *run_id == claim.run_id)
    };
    Ok(claims.iter().map(ours).collect())
}

fn insert(on: &mut dyn Statements, claims: &[&SlotClaim], owner: &Owner, now: Timestamp) -> Result<(), EngineError> {
    let row = |claim: &&SlotClaim| -> Vec<Cell> {
        let mut row = key_cells(&claim.key);
        row.push(claim.run_id.as_str().into());
        row.extend(owner_cells(owner, now));
        row
    };
    let sql = format!(
        "INSERT INTO slots (machine, chain, slot, run_id, claimed_at, host, boot_id, pid, start_time, place) VALUES {} \
         ON CONFLICT (machine, chain, slot) DO NOTHING",
        rows_of_places(claims.len(), 10)
    );
    on.run(&sql, &claims.iter().flat_map(row).collect::<Vec<_>>()).map(|_| ())
}

fn key_cells(key: &SlotKey) -> Vec<Cell> {
    vec![key.machine.as_str().into(), key.chain.as_str().into(), key.slot.to_string().as_str().into()]
}

fn owner_cells(owner: &Owner, now: Timestamp) -> [Cell; 6] {
    let start_time = i64::try_from(owner.start_time).unwrap_or(i64::MAX);
    let (host, boot_id) = (owner.host.as_str().into(), owner.boot_id.as_str().into());
    [now.as_millisecond().into(), host, boot_id, i64::from(owner.pid).into(), start_time.into(), owner.place.as_str().into()]
}

/// The machine saw this time.
fn note_time(on: &mut dyn Statements, owner: &Owner, now: Timestamp) -> Result<(), EngineError> {
    on.run(
        "INSERT INTO clocks (machine, newest) VALUES ($1, $2) \
         ON CONFLICT (machine) DO UPDATE SET newest = excluded.newest WHERE clocks.newest < excluded.newest",
        &[owner.machine.as_str().into(), now.as_millisecond().into()],
    )
    .map(|_| ())
}

/// The newest time that the machine saw.
pub fn newest_time(on: &mut dyn Statements, owner: &Owner) -> Result<Option<Timestamp>, EngineError> {
    let rows = on.rows("SELECT newest FROM clocks WHERE machine = $1", &[owner.machine.as_str().into()])?;
    Ok(rows.into_iter().next().and_then(|row| Columns::of(row).optional_int()).and_then(|at| Timestamp::from_millisecond(at).ok()))
}

/// Notes how far the slots of chains were considered.
pub fn set_watermarks(
    on: &mut dyn Statements,
    machine: &str,
    marks: &[(String, Timestamp)],
    (owner, now): (&Owner, Timestamp),
) -> Result<(), EngineError> {
    // The last word on a chain counts, each chain once in a statement, and in one order (see `claim`).
    let newest = |marks: &[(String, Timestamp)]| {
        let mut newest = std::collections::BTreeMap::<String, Timestamp>::new();
        for (chain, time) in marks {
            let mark = newest.entry(chain.clone()).or_insert(*time);
            *mark = (*mark).max(*time);
        }
        newest.into_iter().collect::<Vec<_>>()
    };
    for part in newest(marks).chunks(ROWS) {
        let sql = format!(
            "INSERT INTO watermarks (machine, chain, considered) VALUES {} ON CONFLICT (machine, chain) \
             DO UPDATE SET considered = excluded.considered WHERE watermarks.considered < excluded.considered",
            rows_of_places(part.len(), 3)
        );
        let row = |(chain, time): &(String, Timestamp)| [machine.into(), chain.as_str().into(), Cell::Int(time.as_millisecond())];
        on.run(&sql, &part.iter().flat_map(row).collect::<Vec<_>>())?;
    }
    note_time(on, owner, now)
}

/// How far the slots of each chain were considered.
pub fn watermarks(on: &mut dyn Statements, machine: &str) -> Result<Vec<(String, Timestamp)>, EngineError> {
    let rows = on.rows("SELECT chain, considered FROM watermarks WHERE machine = $1 ORDER BY chain", &[machine.into()])?;
    let mark = |row| {
        let mut row = Columns::of(row);
        Some((row.text(), Timestamp::from_millisecond(row.int()).ok()?))
    };
    Ok(rows.into_iter().filter_map(mark).collect())
}

/// Slots that wait for their run to begin.
pub fn waiting(on: &mut dyn Statements, host: &str) -> Result<Vec<WaitingSlot>, EngineError> {
    let rows = on.rows(
        "SELECT machine, chain, slot, run_id, claimed_at, boot_id, pid, start_time, place FROM slots \
         WHERE host = $1 AND begun = 0 ORDER BY claimed_at, chain, slot",
        &[host.into()],
    )?;
    let slot = |row| {
        let mut row = Columns::of(row);
        let (machine, chain, slot) = (row.text(), row.text(), Slot::parse(&row.text())?);
        let claim = SlotClaim { key: SlotKey { machine, chain, slot }, run_id: row.text() };
        let claimed_at = Timestamp::from_millisecond(row.int()).ok()?;
        let (boot_id, pid, start_time, place) = (row.text(), row.optional()?, row.optional()?, row.text());
        let owner = Owner { machine: claim.key.machine.clone(), place, host: host.to_owned(), boot_id, pid, start_time };
        Some(WaitingSlot { claim, owner, claimed_at })
    };
    Ok(rows.into_iter().filter_map(slot).collect())
}

/// Hands a waiting slot to another run.
pub fn take_over(on: &mut dyn Statements, from: &SlotClaim, run_id: &str, (owner, now): (&Owner, Timestamp)) -> Result<bool, EngineError> {
    let mut cells: Vec<Cell> = vec![run_id.into()];
    cells.extend(owner_cells(owner, now));
    cells.extend(key_cells(&from.key));
    cells.push(from.run_id.as_str().into());
    // Whoever asks again after a lost answer finds itself as the holder.
    let changed = on.run(
        "UPDATE slots SET run_id = $1, claimed_at = $2, host = $3, boot_id = $4, pid = $5, start_time = $6, place = $7 \
         WHERE machine = $8 AND chain = $9 AND slot = $10 AND run_id IN ($11, $1) AND begun = 0",
        &cells,
    )?;
    note_time(on, owner, now)?;
    Ok(changed > 0)
}

fn pruned_to(on: &mut dyn Statements) -> Result<Option<Timestamp>, EngineError> {
    let rows = on.rows("SELECT up_to FROM pruned WHERE what = 'slots'", &[])?;
    Ok(rows.into_iter().next().and_then(|row| Columns::of(row).text().parse().ok()))
}

/// Forgets old slots. From then on everything before `before` counts as used. Boots are never forgotten: nobody can say
/// which of them still lasts, and there are few.
pub fn prune(on: &mut dyn Statements, before: Timestamp, most: u32) -> Result<u64, EngineError> {
    // To the second, as slots are written: two spellings of one moment must not be two places in the order.
    let before = Timestamp::from_second(before.as_second()).unwrap_or(before).to_string();
    on.run(
        "INSERT INTO pruned (what, up_to) VALUES ('slots', $1) \
         ON CONFLICT (what) DO UPDATE SET up_to = excluded.up_to WHERE pruned.up_to < excluded.up_to",
        &[before.as_str().into()],
    )?;
    on.run(
        "DELETE FROM slots WHERE (machine, chain, slot) IN (SELECT machine, chain, slot FROM slots WHERE slot < $1 ORDER BY slot LIMIT $2)",
        &[before.as_str().into(), i64::from(most).into()],
    )
}
