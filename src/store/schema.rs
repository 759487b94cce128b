//! The tables, by version. A version that was published is never changed: what comes later is a further entry.
//! docs/state.md describes them, and the tests hold an old copy of every version.

/// The newest version.
pub const VERSION: i64 = 4;

/// What makes each version of the one before, in the words both engines have in common: see [`Dialect`].
const STEPS: [&str; 4] = [
    "
CREATE TABLE slots (
    machine {text} NOT NULL,
    chain {text} NOT NULL,
    slot {text} NOT NULL,
    run_id {text} NOT NULL,
    claimed_at {int} NOT NULL,
    host {text} NOT NULL,
    boot_id {text} NOT NULL,
    pid {int} NOT NULL,
    start_time {int} NOT NULL,
    begun {int} NOT NULL DEFAULT 0 CHECK (begun IN (0, 1)),
    PRIMARY KEY (machine, chain, slot)
) {end};
CREATE INDEX slots_by_slot ON slots (slot);
CREATE INDEX slots_by_run ON slots (run_id);
CREATE INDEX slots_waiting ON slots (host) WHERE begun = 0;

CREATE TABLE watermarks (
    machine {text} NOT NULL,
    chain {text} NOT NULL,
    considered {int} NOT NULL,
    PRIMARY KEY (machine, chain)
) {end};

CREATE TABLE clocks (
    machine {text} NOT NULL PRIMARY KEY,
    newest {int} NOT NULL
) {end};

CREATE TABLE pruned (
    what {text} NOT NULL PRIMARY KEY,
    up_to {text} NOT NULL
) {end};

CREATE TABLE runs (
    run_id {text} NOT NULL PRIMARY KEY,
    chain {text} NOT NULL,
    run_trigger {text} NOT NULL,
    scheduled_at {int},
    host {text} NOT NULL,
    boot_id {text} NOT NULL,
    pid {int} NOT NULL,
    start_time {int} NOT NULL,
    began {int} NOT NULL,
    ended {int},
    duration_ms {int},
    outcome {text},
    exit_code {int},
    signal {int},
    failed_task {text},
    message {text},
    tries_left_out {int} NOT NULL DEFAULT 0,
    failed {int} NOT NULL DEFAULT 0 CHECK (failed IN (0, 1)),
    CHECK (outcome IS NULL OR ended IS NOT NULL)
) {end};
CREATE INDEX runs_by_time ON runs (began, run_id);
CREATE INDEX runs_by_chain ON runs (chain, began, run_id);
CREATE INDEX runs_failed ON runs (began, run_id) WHERE failed = 1;
CREATE INDEX runs_failed_by_chain ON runs (chain, began, run_id) WHERE failed = 1;
CREATE INDEX runs_open ON runs (host) WHERE outcome IS NULL;

CREATE TABLE tries (
    run_id {text} NOT NULL,
    place {int} NOT NULL,
    task {text} NOT NULL,
    try_num {int} NOT NULL,
    began {int} NOT NULL,
    duration_ms {int} NOT NULL,
    verdict {text} NOT NULL,
    exit_code {int},
    signal {int},
    timed_out {text},
    not_started {text},
    left_behind {int} NOT NULL DEFAULT 0,
    output_tail {text} NOT NULL DEFAULT '',
    PRIMARY KEY (run_id, place)
) {end};
",
    "
CREATE TABLE jobs (
    id {serial},
    queue {text} NOT NULL DEFAULT 'default' CHECK (queue <> ''),
    task {text} NOT NULL CHECK (task <> '' AND task NOT LIKE '%/%'),
    args {text} NOT NULL DEFAULT '[]',
    name {text},
    creator {text},
    job_key {text},
    state {text} NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'running', 'done', 'failed', 'cancelled')),
    priority {int} NOT NULL DEFAULT 0,
    due {int} NOT NULL DEFAULT {now},
    planned {int},
    repeat_ms {int} CHECK (repeat_ms > 0),
    repeat_until {int},
    attempts {int} NOT NULL DEFAULT 0,
    max_attempts {int},
    created {int} NOT NULL DEFAULT {now},
    claim {text},
    host {text},
    boot_id {text},
    pid {int},
    start_time {int},
    lease_until {int},
    cancel {int} NOT NULL DEFAULT 0 CHECK (cancel IN (0, 1)),
    began {int},
    ended {int},
    result {text},
    exit_code {int},
    signal {int},
    message {text},
    last_error {text},
    CHECK (state <> 'running' OR (claim IS NOT NULL AND lease_until IS NOT NULL))
){end_rows};
CREATE INDEX jobs_waiting ON jobs (queue, priority, due, id) WHERE state = 'waiting';
CREATE INDEX jobs_running ON jobs (claim) WHERE state = 'running';
CREATE INDEX jobs_ended ON jobs (queue, state, ended, id) WHERE ended IS NOT NULL;
CREATE INDEX jobs_by_key ON jobs (queue, job_key, state) WHERE job_key IS NOT NULL;
{wake}",
    "
ALTER TABLE slots ADD COLUMN place {text} NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN place {text} NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN place {text};
",
    "
ALTER TABLE runs ADD COLUMN said {text};
ALTER TABLE tries ADD COLUMN said {text};
",
];

/// Where the engines' words for tables differ.
#[derive(Debug, Clone, Copy)]
pub struct Dialect {
    /// A text that is ordered by its bytes.
    pub text: &'static str,
    /// A number of 64 bits.
    pub int: &'static str,
    /// What stands behind a table with a key of its own.
    pub end: &'static str,
    /// What stands behind a table whose rows are numbered.
    pub end_rows: &'static str,
    /// The number of a row, never used twice.
    pub serial: &'static str,
    /// This moment, in milliseconds since 1970.
    pub now: &'static str,
    /// What wakes the workers when there is a new job, where the engine can do that.
    pub wake: &'static str,
}

/// The statements that lead from version `from` to the newest, each with the version it leads to.
pub fn steps(from: i64, dialect: Dialect) -> impl Iterator<Item = (i64, String)> {
    let words = [
        ("{text}", dialect.text),
        ("{int}", dialect.int),
        ("{end}", dialect.end),
        ("{end_rows}", dialect.end_rows),
        ("{serial}", dialect.serial),
        ("{now}", dialect.now),
        ("{wake}", dialect.wake),
    ];
    let said = move |step: &str| words.iter().fold(step.to_owned(), |step, (word, said)| step.replace(word, said));
    (1..).zip(STEPS).filter(move |(version, _)| *version > from).map(move |(version, step)| (version, said(step)))
}
