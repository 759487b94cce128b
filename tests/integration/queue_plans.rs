//! No step of a worker, of an enqueuer or of a reader of the history walks through all there is: every statement that the
//! program itself makes is explained by the engine first, on tables with very many rows.

use jiff::Timestamp;
use runner::config::queue_values::Keep;
use runner::queue::Next;
use runner::store::engine::{Cell, Engine, Row, Statements, Work};
use runner::store::error::EngineError;
use runner::store::job::{Existing, Kept, NewJob, Turn, Want};
use runner::store::sqlite::Sqlite;
use runner::store::{HistoryQuery, Retention, Store, StoreError};

use crate::contract::{at, owner};
use crate::contract_jobs::{finish_of, new_job, turn_of};
use crate::scene::Scene;

/// An engine that explains each statement before it does it.
struct Explained<E> {
    engine: E,
    word: &'static str,
    plans: Vec<(String, String)>,
}

/// The statements of one of its transactions.
struct Inside<'a> {
    on: &'a mut dyn Statements,
    word: &'static str,
    plans: &'a mut Vec<(String, String)>,
}

impl Inside<'_> {
    fn explain(&mut self, sql: &str, values: &[Cell]) -> Result<(), EngineError> {
        let rows = self.on.rows(&format!("{} {sql}", self.word), values)?;
        let text = |row: Row| {
            let texts = row.into_iter().filter_map(|cell| if let Cell::Text(text) = cell { Some(text) } else { None });
            texts.collect::<String>()
        };
        self.plans.push((sql.to_owned(), rows.into_iter().map(text).collect::<Vec<_>>().join("\n")));
        Ok(())
    }
}

impl Statements for Inside<'_> {
    fn run(&mut self, sql: &str, values: &[Cell]) -> Result<u64, EngineError> {
        self.explain(sql, values)?;
        self.on.run(sql, values)
    }

    fn rows(&mut self, sql: &str, values: &[Cell]) -> Result<Vec<Row>, EngineError> {
        self.explain(sql, values)?;
        self.on.rows(sql, values)
    }

    fn taking(&self) -> &'static str {
        self.on.taking()
    }

    fn alone_with(&mut self, name: &str) -> Result<(), EngineError> {
        self.on.alone_with(name)
    }

    fn tell_workers(&mut self, word: &str) -> Result<(), EngineError> {
        self.on.tell_workers(word)
    }
}

impl<E: Engine> Explained<E> {
    fn beside(&mut self) -> Inside<'_> {
        Inside { on: self.engine.alone().unwrap(), word: self.word, plans: &mut self.plans }
    }
}

/// Statements that are transactions of their own, which only a server has.
impl<E: Engine> Statements for Explained<E> {
    fn run(&mut self, sql: &str, values: &[Cell]) -> Result<u64, EngineError> {
        self.beside().run(sql, values)
    }

    fn rows(&mut self, sql: &str, values: &[Cell]) -> Result<Vec<Row>, EngineError> {
        self.beside().rows(sql, values)
    }

    fn taking(&self) -> &'static str {
        " FOR UPDATE SKIP LOCKED"
    }
}

impl<E: Engine> Engine for Explained<E> {
    fn shown(&self) -> &str {
        self.engine.shown()
    }

    fn write(&mut self, doing: &'static str, work: Work<'_>) -> Result<(), StoreError> {
        let (word, plans) = (self.word, &mut self.plans);
        self.engine.write(doing, &mut |on| work(&mut Inside { on, word, plans }))
    }

    fn read(&mut self, doing: &'static str, work: Work<'_>) -> Result<(), StoreError> {
        let (word, plans) = (self.word, &mut self.plans);
        self.engine.read(doing, &mut |on| work(&mut Inside { on, word, plans }))
    }

    fn alone(&mut self) -> Option<&mut dyn Statements> {
        self.engine.alone()?;
        Some(self)
    }

    fn clock(&mut self, ours: Timestamp) -> Result<Timestamp, StoreError> {
        self.engine.clock(ours)
    }
}

/// Many jobs that wait, some of them for long, some that have ended; many runs.
const FILL: &str = "INSERT INTO jobs (queue, task, priority, due, job_key) SELECT 'crowd', 't', n % 3, n, 'k' || n FROM numbers; \
    INSERT INTO jobs (queue, task, due, state, ended) SELECT 'crowd', 't', n, 'done', n FROM numbers WHERE n % 2 = 0; \
    INSERT INTO runs (run_id, chain, run_trigger, host, boot_id, pid, start_time, began, ended, outcome, failed) \
    SELECT 'r' || n, 'c' || (n % 10), 'now', 'h', 'b', 1, 1, n, n, 'done', CASE WHEN n % 3 = 0 THEN 1 ELSE 0 END FROM numbers; \
    ANALYZE;";

/// The numbers that an SQLite file is filled from.
const NUMBERS: &str =
    "CREATE TEMP TABLE numbers AS WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 50000) SELECT n FROM n;";

/// Does all that is done often.
fn do_everything(store: &mut dyn Store) {
    let me = owner("crowd");
    let taken = store.turn(&turn_of(&me, "crowd", 5, 1)).unwrap().jobs;
    assert_eq!(taken.len(), 5);
    let finishes = taken[..3].iter().map(|job| finish_of(job, Next::Done(false), 2)).collect();
    let turn = Turn { finishes, renew: true, ..turn_of(&me, "crowd", 3, 2) };
    assert_eq!(store.turn(&turn).unwrap().jobs.len(), 3);
    let plenty = Turn { plenty: true, renew: true, ..turn_of(&me, "crowd", 2, 2) };
    let more: Vec<_> = store.turn(&plenty).unwrap().jobs.iter().map(|job| finish_of(job, Next::Back, 2)).collect();
    assert_eq!((more.len(), store.finish_jobs(&more).unwrap()), (2, 2));
    assert_eq!(store.turn(&Turn { again: true, ..turn }).unwrap().jobs.len(), 3);
    let finishes = taken[3..].iter().map(|job| finish_of(job, Next::Done(false), 2)).collect();
    let plain = Turn { finishes, plenty: true, ..turn_of(&me, "crowd", 2, 2) };
    assert_eq!(store.turn(&plain).unwrap().jobs.len(), 2);
    // All priorities are walked through, and nothing is there to be taken.
    let early = Turn { now: Timestamp::from_millisecond(-1).unwrap(), ..turn_of(&me, "crowd", 3, 2) };
    assert!(store.turn(&early).unwrap().next_due.is_some());
    let other = Want { queue: "none".into(), ..turn_of(&me, "crowd", 3, 2).wants[0].clone() };
    store.turn(&Turn { wants: vec![other], ..turn_of(&me, "crowd", 3, 2) }).unwrap();
    assert_eq!(store.running_jobs().unwrap().len(), 5);
    let wanted = |queue: &str| [Want { queue: queue.into(), ..turn_of(&me, "crowd", 1, 2).wants[0].clone() }];
    assert!(store.has_open_jobs(&wanted("crowd"), at(0)).unwrap());
    assert!(!store.has_open_jobs(&wanted("none"), at(0)).unwrap());
    for existing in [Existing::Keep, Existing::Reschedule, Existing::Replace] {
        store.enqueue(&[NewJob { key: Some("k77".into()), existing, ..new_job("crowd", "t") }], at(0)).unwrap();
    }
    let hundred = Keep { count: Some(100), age: None };
    let kept = Kept { queue: "crowd".into(), done: hundred, failed: hundred };
    store.prune_jobs(&[kept], at(0), 10).unwrap();
    store.cancel_jobs(&[5, 6], at(0)).unwrap();
    for (chain, failed) in [(None, false), (None, true), (Some("c3"), false), (Some("c3"), true)] {
        let query = HistoryQuery { chain: chain.map(str::to_owned), failed, limit: 20 };
        assert_eq!(store.runs(&query).unwrap().len(), 20);
    }
    assert_eq!(store.find_runs("r77", 5).unwrap().len(), 5);
    assert!(store.run("r77").unwrap().is_some());
    store.open_runs("h").unwrap();
    store.prune_runs(Retention { runs: 1000, age: std::time::Duration::MAX }, at(0), 10).unwrap();
}

/// To count is to walk, but through an index alone, and in its order: the rows themselves are ten times as many pages.
#[test]
fn jobs_are_counted_in_their_indexes() {
    let scene = Scene::new();
    let file = scene.path("runner.db");
    let engine = Sqlite::open(&file).unwrap();
    let mut explained = Explained { engine, word: "EXPLAIN QUERY PLAN", plans: Vec::new() };
    for filled in [false, true] {
        if filled {
            rusqlite::Connection::open(&file).unwrap().execute_batch(&format!("{NUMBERS} BEGIN; {FILL} COMMIT")).unwrap();
        }
        explained.count_jobs(at(0)).unwrap();
    }
    for (sql, plan) in explained.plans.iter().filter(|(sql, _)| !sql.contains("'running'")) {
        assert!(plan.contains("USING COVERING INDEX") && !plan.contains("TEMP B-TREE"), "{sql}:\n{plan}");
    }
    for (sql, plan) in explained.plans.iter().filter(|(sql, _)| sql.contains("'running'")) {
        assert!(plan.contains("USING INDEX jobs_running"), "{sql}:\n{plan}");
    }
    assert_eq!(explained.plans.len(), 6);
}

/// What a plan that looks at all rows says, or at all in order to sort them.
#[track_caller]
fn nothing_walks_through_all(plans: &[(String, String)]) {
    assert!(plans.len() > 30, "{plans:?}");
    for (sql, plan) in plans {
        let is_walk = |line: &str| {
            let scans = ["SCAN jobs", "SCAN runs", "Seq Scan on jobs", "Seq Scan on runs"].iter().any(|word| line.contains(word));
            scans && !line.contains("USING") && !line.contains("INTEGER PRIMARY KEY")
        };
        let sorts = sql.contains("LIMIT") && (plan.contains("TEMP B-TREE") || plan.contains("Sort"));
        assert!(!plan.lines().any(is_walk) && !sorts, "{sql}:\n{plan}");
    }
}

#[test]
fn no_step_walks_through_a_file() {
    let scene = Scene::new();
    let file = scene.path("runner.db");
    let engine = Sqlite::open(&file).unwrap();
    rusqlite::Connection::open(&file).unwrap().execute_batch(&format!("{NUMBERS} BEGIN; {FILL} COMMIT")).unwrap();
    let mut explained = Explained { engine, word: "EXPLAIN QUERY PLAN", plans: Vec::new() };
    do_everything(&mut explained);
    nothing_walks_through_all(&explained.plans);
}

#[cfg(feature = "postgres")]
#[test]
fn no_step_walks_through_a_server() {
    use runner::store::postgres::{Postgres, Server};
    let Some(server) = crate::postgres::Server::start() else { return };
    let engine = Postgres::open(Server::new(&server.local(), &runner::config::database::Secrets::default()).unwrap()).unwrap();
    let mut client = postgres::Client::connect(&server.local(), postgres::NoTls).unwrap();
    let numbers = "CREATE TEMP TABLE numbers AS SELECT n FROM generate_series(1, 50000) n;";
    client.batch_execute(&format!("SET search_path TO runner; {numbers} {FILL}")).unwrap();
    let mut explained = Explained { engine, word: "EXPLAIN", plans: Vec::new() };
    do_everything(&mut explained);
    assert!(explained.plans.iter().any(|(sql, _)| sql.starts_with("WITH ended AS (UPDATE ")), "a busy worker's turn is one statement");
    nothing_walks_through_all(&explained.plans);
}
